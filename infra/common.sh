# shellcheck shell=bash
# What setup.sh and airflow_setup.sh share; sourced, not run. They define say and die.

# Lists; that one of their sources is absent must not end them (`set -e` holds in them too).
on_path() { type -aP "$@" || true; }
# The argument is a pattern, and versions are sorted as versions.
# shellcheck disable=SC2012,SC2086
in_pyenv() { ls -d "${PYENV_ROOT:-$HOME/.pyenv}"/versions/$1 2>/dev/null | sort -rV || true; }

# Prints the real interpreter behind candidate $1 if it is a complete CPython of version $2, told by running it: a shim
# on PATH may exist and still start nothing, and uv cannot inspect shims. A candidate inside a virtual environment
# (even our own, when it is activated) stands for its base.
python_of() {
  "$1" -I -c '
import sys
if "%d.%d" % sys.version_info[:2] != sys.argv[1] or sys.implementation.name != "cpython":
    sys.exit(1)
import bz2, ctypes, lzma, sqlite3, ssl, zlib  # often missing from an interpreter built without headers
import os
print(os.path.abspath(getattr(sys, "_base_executable", None) or sys.executable))
' "$2" 2>/dev/null </dev/null
}

# Package settings meant for pip hold for uv too, which does not read them.
use_pip_settings() {
  [ -n "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ] || [ -z "${PIP_INDEX_URL:-}" ] ||
    export UV_DEFAULT_INDEX="$PIP_INDEX_URL"
  [ -n "${SSL_CERT_FILE:-}" ] || [ -z "${PIP_CERT:-}" ] || export SSL_CERT_FILE="$PIP_CERT"
}

# One set-up of a checkout at a time, by the lock file $1: two terminals would otherwise both write the environment.
wait_for_others() {
  mkdir -p .tools
  command -v flock >/dev/null || return 0
  exec 9>"$1"
  if ! flock -n 9; then
    say "another set-up of this checkout is running; waiting for it"
    flock -w 1800 9 || die "waited 30 minutes for another set-up of this checkout." "End it, then try again."
  fi
}
