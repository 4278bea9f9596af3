#!/usr/bin/env bash
# Refreshes the hashed locks from the .in files (`make lock`); with UPGRADE=1 every version may move.
# The locks carry no index lines, so they serve uv and plain pip alike and name no host.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

uv=$(bash infra/setup.sh --print-uv)
options=(--python-version 3.10 --python-platform x86_64-unknown-linux-gnu --generate-hashes --no-header
  --no-emit-index-url --no-emit-find-links --annotation-style line --quiet)
[ -z "${UPGRADE:-}" ] || options+=(--upgrade)

"$uv" pip compile "${options[@]}" requirements.in --output-file requirements.lock
# The dev lock is the runtime lock plus tools: what is tested is what the images run.
"$uv" pip compile "${options[@]}" requirements-dev.in --constraints requirements.lock \
  --output-file requirements-dev.lock
# What GPUs need is installed over the runtime lock.
"$uv" pip compile "${options[@]}" requirements-gpu.in --constraints requirements.lock \
  --output-file requirements-gpu.lock
"$uv" pip compile "${options[@]}" infra/uv.in --output-file infra/uv.lock
# Airflow's own environment; --universal keeps the markers that let one lock serve Python 3.11 and 3.12.
airflow=(--universal --python-version 3.11 --generate-hashes --no-header
  --no-emit-index-url --no-emit-find-links --annotation-style line --quiet)
[ -z "${UPGRADE:-}" ] || airflow+=(--upgrade)
"$uv" pip compile "${airflow[@]}" dags/requirements.in --output-file dags/requirements.lock
# What the images hold: without the tools of tests, with what Kubernetes needs, in the same versions.
"$uv" pip compile "${airflow[@]}" dags/requirements-cluster.in --constraints dags/requirements.lock \
  --output-file dags/requirements-cluster.lock
echo "locks refreshed; \`make setup\` and \`make airflow\` install them"
