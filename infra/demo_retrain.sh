#!/usr/bin/env bash
# `make demo-retrain`: four weeks of retraining in some minutes, on real Airflow servers with real steps, in
# .demo/retrain (made anew each time). Options: see infra/demo_retrain.py --help.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec .venv/bin/python infra/demo_retrain.py "$@"
