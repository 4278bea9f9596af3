#!/usr/bin/env bash
# beside.sh "BESIDE" COMMAND...: runs both at once, as the one beside mostly waits; what that one says comes when both
# are done. Fails where either fails; whoever stops it stops both.
set -uo pipefail

said=$(mktemp)
setsid bash -c "$1" >"$said" 2>&1 &
beside=$!
trap 'kill -- -"$beside" 2>/dev/null; rm -f "$said"' EXIT
trap 'exit 130' INT TERM
shift
"$@"
code=$?
wait "$beside"
beside_code=$?
cat "$said"
exit "$((code ? code : beside_code))"
