#!/usr/bin/env bash
# Builds the pipeline environment .venv from requirements-dev.lock, with the project itself installed editable.
# Does nothing when .venv is up to date. Needs any Python >= 3.8, or uv; finds or obtains Python 3.10 and uv.
#   infra/setup.sh              build or update .venv
#   infra/setup.sh --print-uv   print the path of a usable uv, obtaining one if need be
#   infra/setup.sh --print-python   print the Python 3.10 that .venv would be built on
# Variables: PYTHON310 (a Python 3.10 to use), HISTOLINE_UV (a uv to use).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
uv_minimum=0.4.0
stamp=.venv/histoline-setup.stamp
unfinished=.venv/histoline-setup.unfinished

say() { printf 'setup: %s\n' "$*" >&2; }
die() { printf 'setup: %s\n' "$@" >&2; exit 69; }
. infra/common.sh

# What .venv was built from. The root is part of it: a moved or copied .venv has scripts that point elsewhere.
fingerprint() {
  { printf '%s\n' "$root"
    cat requirements-dev.lock pyproject.toml setup.py infra/common.sh infra/setup.sh; } | sha256sum | cut -d' ' -f1
}

up_to_date() {
  [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(fingerprint)" ] && .venv/bin/python -c '' 2>/dev/null
}

# Candidates are told apart by running them: a shim on PATH may exist and still start nothing.
python3_any() {
  local candidate
  while read -r candidate; do
    if "$candidate" -I -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null </dev/null; then
      echo "$candidate"
      return 0
    fi
  done < <(on_path python3 python3.13 python3.12 python3.11 python3.10 python3.9 python3.8 python;
    in_pyenv '3.*/bin/python3')
  return 1
}

usable_uv() {
  local version
  version=$("$1" --version 2>/dev/null </dev/null | awk 'NR == 1 && $1 == "uv" {print $2}') || return 1
  [ -n "$version" ] && printf '%s\n' "$uv_minimum" "$version" | sort -VC
}

find_uv() {
  local candidate python
  if [ -n "${HISTOLINE_UV:-}" ]; then
    usable_uv "$HISTOLINE_UV" || die "HISTOLINE_UV=$HISTOLINE_UV is no uv >= $uv_minimum that runs here." \
      "Unset it, or name a working uv."
    echo "$HISTOLINE_UV"
    return 0
  fi
  while read -r candidate; do
    if usable_uv "$candidate"; then echo "$candidate"; return 0; fi
  done < <(on_path uv; printf '%s\n' "$HOME/.local/bin/uv" "$HOME/.cargo/bin/uv" "$root/.tools/uv/bin/uv")

  python=$(python3_any) || die "no uv and no Python >= 3.8 that runs was found." \
    "Install Python 3 (Debian: apt-get install python3 python3-venv) or uv, then run make setup again."
  say "obtaining uv into .tools/uv with $python"
  rm -rf .tools/uv
  # Without ensurepip (Debian's bare python3) there is no venv, but there may be a pip that fills a folder.
  if "$python" -m venv .tools/uv >/dev/null 2>&1; then
    .tools/uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
      -r infra/uv.lock >&2
  else
    rm -rf .tools/uv
    "$python" -m pip install --quiet --disable-pip-version-check --require-hashes \
      --target .tools/uv -r infra/uv.lock >&2
  fi || die "uv could not be installed with $python (see the lines above)." \
    "Check the network and pip's settings, or install python3-venv or uv yourself, then run make setup again."
  usable_uv .tools/uv/bin/uv || die "the uv installed in .tools/uv does not run on this machine." \
    "Install uv yourself, or name one in HISTOLINE_UV, then run make setup again."
  echo "$root/.tools/uv/bin/uv"
}

find_python310() {
  local uv=$1 candidate
  if [ -n "${PYTHON310:-}" ]; then
    python_of "$PYTHON310" 3.10 || die "PYTHON310=$PYTHON310 is not a complete CPython 3.10 that runs here." \
      "Unset it, or name an interpreter such as /usr/bin/python3.10."
    return 0
  fi
  while read -r candidate; do
    if python_of "$candidate" 3.10; then return 0; fi
  done < <(in_pyenv '3.10.*/bin/python3.10'; on_path python3.10 python3 python)

  say "no Python 3.10 on this machine; asking uv for one"
  if "$uv" python install 3.10 >&2 </dev/null && candidate=$("$uv" python find --managed-python 3.10 </dev/null) &&
    python_of "$candidate" 3.10; then
    return 0
  fi
  die "Python 3.10 was not found and could not be downloaded. TFX 1.16 runs on no other version." \
    "Install it (pyenv install 3.10, conda create -n py310 python=3.10, or your system's python3.10 packages)" \
    "and run make setup again; if it is in an unusual place: make setup PYTHON310=/path/to/python3.10"
}

use_pip_settings
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV

if [ -z "${1:-}" ] && up_to_date; then exit 0; fi

wait_for_others .tools/setup.lock
case "${1:-}" in
  --print-uv) find_uv; exit 0 ;;
  --print-python) uv=$(find_uv); find_python310 "$uv"; exit 0 ;;
  "") ;;
  *) die "unknown option $1; see the head of infra/setup.sh." ;;
esac
if up_to_date; then exit 0; fi
[ "$(uname -sm)" = "Linux x86_64" ] ||
  say "warning: the lock is made and tested for Linux on x86-64 only; this is $(uname -sm)"

uv=$(find_uv)
python=$(find_python310 "$uv")
rm -f "$stamp"
# A killed installer can leave a package that looks whole; a fresh start from uv's cache is cheap.
if [ -e "$unfinished" ] || ! .venv/bin/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 10))' 2>/dev/null ||
  [ "$(sed -n 's/^histoline-root = //p' .venv/pyvenv.cfg 2>/dev/null)" != "$root" ]; then
  say "creating .venv with $python"
  rm -rf .venv
  "$uv" venv --quiet --no-project --python "$python" .venv
  printf 'histoline-root = %s\n' "$root" >>.venv/pyvenv.cfg
fi
touch "$unfinished"
say "installing requirements-dev.lock into .venv (about 3 GB; a minute or two where packages are near)"
"$uv" pip sync --quiet --compile-bytecode --python .venv/bin/python --require-hashes requirements-dev.lock ||
  die "the packages could not be installed (see the lines above)." \
    "Check the network and the free disk space (6 GB), then run make setup again: what was downloaded is kept."
# No resolution here: the lock is the only source of versions.
"$uv" pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
rm -f "$unfinished"
fingerprint >"$stamp"
say "done: .venv/bin/histoline is ready"
