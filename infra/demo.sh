#!/usr/bin/env bash
# `make demo`: draws IDC-like raw patches, turns them into a patient-split data set, and checks what was written.
# Running it again is quick: the patches are kept, and an unchanged input is recognised.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

histoline=.venv/bin/histoline
raw=.demo/raw/idc
workspace=.demo/workspace

step() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[ -t 1 ] || step() { printf '\n%s\n' "$*"; }

if [ -d "$raw" ]; then
  step "1. Raw patches: kept from last time ($raw)"
else
  step "1. Raw patches: drawing an IDC-like sample into $raw"
  # Drawn beside its place, so that an interrupted run leaves no half sample that looks whole.
  rm -rf "$raw.partial"
  "$histoline" synth idc --output "$raw.partial"
  mv "$raw.partial" "$raw"
fi

step "2. Ingest: patches to shards, no patient in two splits"
"$histoline" ingest idc --input "$raw" --workspace "$workspace"

dataset=$(.venv/bin/python - "$workspace/datasets/idc/binary" <<'PY'
import json, pathlib, sys

folder = pathlib.Path(sys.argv[1])
print(folder / json.loads((folder / "latest.json").read_text(encoding="utf-8"))["plan_id"])
PY
)

step "3. Verify: every byte against the manifest"
"$histoline" verify "$dataset"

step "4. Audit: patients, duplicates, classes, counts"
"$histoline" audit "$dataset"

step "Done."
echo "Raw patches:  $raw"
echo "Data set:     $dataset"
echo "Look around:  $histoline datasets list --workspace $workspace"
