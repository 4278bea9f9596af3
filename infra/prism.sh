#!/usr/bin/env bash
# Builds Prism, Beam's own engine behind the portable job API, into .tools/bin (git-ignored), unless this version is
# there: the version of apache-beam in requirements.lock. Needs Go (its own settings hold: GOPROXY, GOFLAGS,
# GOTOOLCHAIN) and a module proxy. A minute or two of one core. Prints the binary's path.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=v$(sed -n 's/^apache-beam\[*.*\]*==\([0-9.]*\).*/\1/p' requirements.lock)
binary=$PWD/.tools/bin/prism-$version

say() { printf 'prism: %s\n' "$*" >&2; }
die() { printf 'prism: %s\n' "$@" >&2; exit 69; }
. infra/common.sh

if [ ! -x "$binary" ]; then
  wait_for_others .tools/prism.lock
fi
if [ ! -x "$binary" ]; then
  command -v go >/dev/null ||
    die "Prism is built with Go, and there is none." "Install it (Debian: apt-get install golang-go)."
  rm -rf .tools/bin/unfinished-prism
  mkdir -p .tools/bin/unfinished-prism
  # The checksum data base of Go, or go.sum of the proxy, proves what is fetched; a version never changes.
  GOBIN=$PWD/.tools/bin/unfinished-prism go install "github.com/apache/beam/sdks/v2/go/cmd/prism@$version" >&2 ||
    die "Prism $version could not be built (see the lines above)." "Check the network, Go's version and its GOPROXY."
  mv .tools/bin/unfinished-prism/prism "$binary"
  rmdir .tools/bin/unfinished-prism
fi
echo "$binary"
