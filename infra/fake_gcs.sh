#!/usr/bin/env bash
# Builds fake-gcs-server, the Google Storage emulator of the integration tests, into .tools/bin (git-ignored), unless
# this version is there. Needs Go 1.19 or newer (Debian: golang-go) and a module proxy (Go's own settings hold: GOPROXY,
# GOFLAGS, GOTOOLCHAIN). Two minutes of one core. Prints the binary's path.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=v1.47.4 # the last that Debian 12's Go can build
binary=$PWD/.tools/bin/fake-gcs-server-$version

say() { printf 'emulator: %s\n' "$*" >&2; }
die() { printf 'emulator: %s\n' "$@" >&2; exit 69; }
. infra/common.sh

if [ ! -x "$binary" ]; then
  wait_for_others .tools/fake_gcs.lock
fi
if [ ! -x "$binary" ]; then
  command -v go >/dev/null ||
    die "fake-gcs-server is built with Go, and there is none." "Install it (Debian: apt-get install golang-go)."
  rm -rf .tools/bin/unfinished
  mkdir -p .tools/bin/unfinished
  # The checksum data base of Go, or go.sum of the proxy, proves what is fetched; a version never changes.
  GOBIN=$PWD/.tools/bin/unfinished go install "github.com/fsouza/fake-gcs-server@$version" >&2 ||
    die "fake-gcs-server $version could not be built (see the lines above)." "Check the network and Go's GOPROXY."
  mv .tools/bin/unfinished/fake-gcs-server "$binary"
  rmdir .tools/bin/unfinished
fi
echo "$binary"
