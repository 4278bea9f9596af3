#!/bin/sh
# Builds fake-gcs-server, the Google Storage emulator of the integration tests, into .tools/bin (git-ignored).
# Needs Go (https://go.dev/dl) and its module proxy; about a minute. Prints the binary's path.
set -eu
root=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
binary="$root/.tools/bin/fake-gcs-server"
if [ ! -x "$binary" ]; then
    command -v go >/dev/null || { echo "fake-gcs-server needs Go: install it from https://go.dev/dl" >&2; exit 64; }
    mkdir -p "$root/.tools/bin"
    GOBIN="$root/.tools/bin" go install github.com/fsouza/fake-gcs-server@latest >&2
fi
echo "$binary"
