#!/usr/bin/env bash
# `make demo`: draws IDC-like raw patches, turns them into a patient-split data set, checks what was written, trains a
# model that the gate promotes, and one that it refuses.
# Running it again is quick: the patches are kept, and unchanged data, recipes and code are recognised.
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

# decided DECISION: the last run's decision, or that of the same run earlier.
decided() {
  .venv/bin/python - "$workspace" .demo/result.json "$1" <<'PY'
import json, pathlib, sys

workspace, result, wanted = sys.argv[1:]
told = json.loads(pathlib.Path(result).read_text(encoding="utf-8"))
if told["decision"] == "unchanged":
    run = pathlib.Path(workspace, "runs", "idc", "binary", told["run_id"], "run.json")
    same = json.loads(run.read_text(encoding="utf-8"))["paths"]["same_as"]
    told = json.loads(pathlib.Path(workspace, same, "run.json").read_text(encoding="utf-8"))
if told["decision"] != wanted:
    sys.exit(f"The demo expected a model that is {wanted}, but: {told['reason']}")
PY
}
export HISTOLINE_RESULT_JSON=.demo/result.json

step "5. Train: a small network, promoted if it beats colour alone on patients it has never seen"
"$histoline" train idc --workspace "$workspace" --preset idc_quick
decided promoted

step "6. Train again: a network that learns nothing, which the gate must refuse"
"$histoline" train idc --workspace "$workspace" --preset infra/crippled.yaml
decided refused

step "7. Models: what is served, and why"
"$histoline" models list --workspace "$workspace"

step "Done."
echo "Raw patches:  $raw"
echo "Data set:     $dataset"
echo "Runs:         $workspace/runs/idc/binary"
echo "Look around:  $histoline datasets list --workspace $workspace"
