# Each target does the set-up it needs; set-up that is up to date costs a moment.
.DEFAULT_GOAL := help
.PHONY: help setup airflow airflowdown demo demo-retrain soak faults fuzz test test-dags e2e lint bench lock clean
SHELL := /bin/bash
export PYTHON310 PYTHON312
# Compiled modules are kept, whatever the shell says: the tests start hundreds of processes.
unexport PYTHONDONTWRITEBYTECODE

PYTHON := .venv/bin/python
# Tests on all cores, whole modules at a time (tests/support/spreading.py). Each process may hold a GiB of
# TensorFlow; end-to-end tests start servers and trainings of their own, and wait for them: two processes are enough.
PARALLEL := -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder
PAIR := -n 2 --dist loadfile --no-loadscope-reorder

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## build or update .venv from the lock (finds or obtains Python 3.10 and uv)
	@bash infra/setup.sh

demo: setup ## from drawn raw patches to a verified, patient-split data set, in .demo/
	@bash infra/demo.sh

demo-retrain: setup ## four weeks of retraining on real Airflow servers, in .demo/retrain (minutes)
	@bash infra/airflow_setup.sh
	@bash infra/demo_retrain.sh $(ARGS)

soak: setup ## 50 cycles of retraining with random kills, in .demo/soak (half an hour; ARGS="--cycles 10 --seed 1")
	$(PYTHON) infra/soak.py $(ARGS)

faults: setup ## the fault list, every act at every n, laws and damaged images; prints "N tried, M held" (ten minutes)
	$(PYTHON) -m tests.faults $(ARGS)

fuzz: setup ## damaged PNG and TIFF files against Pillow in child processes (SECONDS=600 for longer, SEED=1 for others)
	$(PYTHON) -m tests.faults.fuzz --seconds $(or $(SECONDS),60) --seed $(or $(SEED),0)

test: setup ## fast and integration tests, those of the DAGs beside them (ARGS="..." narrows the former, leaves out the latter)
ifeq ($(strip $(ARGS)),)
	@bash infra/airflow_setup.sh
	@bash infra/beside.sh "$(MAKE) --no-print-directory test-dags" $(PYTHON) -m pytest $(PARALLEL) -m "not e2e"
else
	$(PYTHON) -m pytest $(PARALLEL) -m "not e2e" $(ARGS)
endif

test-dags: ## tests of the DAGs, in Airflow's own environment
	@bash infra/airflow_setup.sh
	.venv-airflow/bin/python -m pytest tests/dags -m "not e2e" -n 2

e2e: setup ## end-to-end tests: whole runs, Airflow in a browser, faults
	@bash infra/airflow_setup.sh
	$(PYTHON) -m pytest $(PAIR) -m e2e $(or $(ARGS),$(shell grep -rl --include='test_*.py' 'mark\.e2e' tests))

airflow: setup ## start Airflow on 127.0.0.1 (builds .venv-airflow; ARGS="--workspace DIR"); stop: make airflowdown
	.venv/bin/histoline airflow up $(ARGS)

airflowdown: setup ## stop Airflow and everything that it runs
	.venv/bin/histoline airflow down

lint: setup ## ruff (with docstring rules on public names), order of floors, mypy, shell scripts, images, the DAGs
	$(PYTHON) -m ruff check .
	.venv/bin/lint-imports
	$(PYTHON) -m mypy components pipelines schemas
	.venv/bin/shellcheck --external-sources infra/*.sh infra/images/*.sh .ci/run
	.venv/bin/hadolint infra/images/*.Dockerfile
	@bash infra/airflow_setup.sh
	.venv-airflow/bin/python -m mypy --config-file dags/mypy.ini dags

bench: setup ## every benchmark that docs/figures.md comes from, and the page anew (minutes)
	@for script in benchmarks/bench_*.py; do \
	  [ -e "$$script" ] || { echo "no benchmarks/bench_*.py here" >&2; exit 1; }; \
	  echo "== $$script" >&2; $(PYTHON) "$$script" --json "benchmarks/results/$$(basename "$$script" .py).json" || exit 1; done
	$(PYTHON) benchmarks/figures.py

lock: ## refresh the locks from the .in files (UPGRADE=1 lets every version move)
	@bash infra/lock.sh

clean: ## remove what make built: .venv*, .tools, .demo, caches
	-[ ! -e .venv/bin/histoline ] || .venv/bin/histoline airflow down
	rm -rf .venv .venv-airflow .tools .demo .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
	find components pipelines schemas tests benchmarks dags -name __pycache__ -type d -prune -exec rm -rf {} +
