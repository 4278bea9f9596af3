#!/usr/bin/env bash
# Builds the orchestration environment .venv-airflow from dags/requirements.lock (`make airflow` calls it).
# Does nothing when .venv-airflow is up to date. Airflow runs on Python 3.12, or on 3.11 where 3.12 is not to be had.
#   infra/airflow_setup.sh                  build or update .venv-airflow
#   infra/airflow_setup.sh --print-python   print the Python that .venv-airflow would be built on
# Variables: PYTHON312 (a Python 3.12 or 3.11 to use), HISTOLINE_UV (a uv to use).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
stamp=.venv-airflow/histoline-setup.stamp
unfinished=.venv-airflow/histoline-setup.unfinished

say() { printf 'airflow set-up: %s\n' "$*" >&2; }
die() { printf 'airflow set-up: %s\n' "$@" >&2; exit 69; }
. infra/common.sh

# The root is part of it: a moved or copied environment has scripts that point elsewhere.
fingerprint() {
  { printf '%s\n' "$root"; cat dags/requirements.lock infra/common.sh infra/airflow_setup.sh; } | sha256sum | cut -d' ' -f1
}

up_to_date() {
  [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(fingerprint)" ] && .venv-airflow/bin/python -c '' 2>/dev/null
}

find_python() {
  local version candidate uv
  if [ -n "${PYTHON312:-}" ]; then
    python_of "$PYTHON312" 3.12 || python_of "$PYTHON312" 3.11 ||
      die "PYTHON312=$PYTHON312 is not a complete CPython 3.12 or 3.11 that runs here." \
        "Unset it, or name an interpreter such as /usr/bin/python3.12."
    return 0
  fi
  for version in 3.12 3.11; do
    while read -r candidate; do
      if python_of "$candidate" "$version"; then return 0; fi
    done < <(in_pyenv "$version.*/bin/python$version"; on_path "python$version" python3 python)
  done
  say "no Python 3.12 or 3.11 on this machine; asking uv for 3.12"
  uv=$(bash infra/setup.sh --print-uv)
  if "$uv" python install 3.12 >&2 </dev/null && candidate=$("$uv" python find --managed-python 3.12 </dev/null) &&
    python_of "$candidate" 3.12; then
    return 0
  fi
  die "Python 3.12 (or 3.11) was not found and could not be downloaded; Airflow's environment needs one." \
    "Install it (pyenv install 3.12, or your system's python3.12 or python3.11 packages) and run make airflow" \
    "again; if it is in an unusual place: make airflow PYTHON312=/path/to/python3.12"
}

use_pip_settings
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV

case "${1:-}" in
  --print-python) find_python; exit 0 ;;
  "") ;;
  *) die "unknown option $1; see the head of infra/airflow_setup.sh." ;;
esac
if up_to_date; then exit 0; fi

wait_for_others .tools/airflow_setup.lock
if up_to_date; then exit 0; fi
# Servers would go on with half of their modules from the old environment.
for process in /proc/[0-9]*; do
  program=$(tr '\0' ' ' <"$process/cmdline" 2>/dev/null) || continue
  case "$program" in "$root/.venv-airflow/bin/python -m airflow "*)
    die "dags/requirements.lock has changed, and Airflow runs from .venv-airflow (process ${process#/proc/})." \
      "Stop it first with make airflowdown, then run this again." ;;
  esac
done

uv=$(bash infra/setup.sh --print-uv)
python=$(find_python)
rm -f "$stamp"
# A killed installer can leave a package that looks whole; a fresh start from uv's cache is cheap.
if [ -e "$unfinished" ] ||
  ! .venv-airflow/bin/python -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null ||
  [ "$(sed -n 's/^histoline-root = //p' .venv-airflow/pyvenv.cfg 2>/dev/null)" != "$root" ]; then
  say "creating .venv-airflow with $python"
  rm -rf .venv-airflow
  "$uv" venv --quiet --no-project --python "$python" .venv-airflow
  printf 'histoline-root = %s\n' "$root" >>.venv-airflow/pyvenv.cfg
fi
touch "$unfinished"
say "installing dags/requirements.lock into .venv-airflow (about 0.3 GB)"
"$uv" pip sync --quiet --compile-bytecode --python .venv-airflow/bin/python --require-hashes dags/requirements.lock ||
  die "the packages could not be installed (see the lines above)." \
    "Check the network and the free disk space (1 GB), then run make airflow again: what was downloaded is kept."
rm -f "$unfinished"
fingerprint >"$stamp"
say "done: .venv-airflow is ready"
