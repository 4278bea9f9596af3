"""A published model, served as its users serve it: by plain TensorFlow, without a line of ours.

No server that takes a SavedModel is to be had from the package registries (TensorFlow Serving is a binary of its own
repository), so its place is taken by what it does: load the folder in a process that has TensorFlow only.
"""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.support import ingest_help, predict_help

SERVE = """
import json, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("components", "pipelines", "schemas", "keras", "tf_keras", "tensorflow_io", "tfx"):
            raise ImportError(f"{name} must not be needed to serve a model")

import tensorflow as tf
own = [name for name in sys.modules if name.split(".")[0] in ("components", "pipelines", "schemas")]
assert not own, own
sys.meta_path.insert(0, Refuse())
served = []
for asked in json.load(open(sys.argv[1])):
    model = tf.saved_model.load(asked["model"])
    answers = {}
    for shard in asked["shards"]:
        for record in tf.data.TFRecordDataset(shard):
            example = tf.train.Example.FromString(record.numpy())
            patch_id = example.features.feature["patch_id"].bytes_list.value[0].decode()
            out = model.signatures["serving_default"](examples=tf.constant([record.numpy()]))
            answers[patch_id] = [out["probability"].numpy().tolist()[0], out["label_name"].numpy()[0].decode()]
    for patch_id, path in asked["files"].items():
        out = model.signatures["serve_bytes"](images=tf.constant([open(path, "rb").read()]))
        answers["file " + patch_id] = [out["probability"].numpy().tolist()[0], out["label_name"].numpy()[0].decode()]
    served.append(answers)
print(json.dumps(served))
"""


@pytest.mark.integration
def test_tensorflow_alone_gives_our_probabilities(tmp_path, untrained):
    made = [untrained("idc"), untrained("breakhis", task="subtype")]
    asked = [
        {
            "model": str(model),
            "shards": [str(file) for file in data.folder.glob("Split-*/*") if file.stat().st_size],
            "files": {row["patch_id"]: str(raw / row["path"]) for row in data.patches},
        }
        for raw, data, model in made
    ]
    (tmp_path / "asked").write_text(json.dumps(asked))
    environment = {k: v for k, v in ingest_help.environment().items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", SERVE, str(tmp_path / "asked")],
        cwd=tmp_path, env={**environment, "TF_CPP_MIN_LOG_LEVEL": "3"}, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for (_, data, model), served in zip(made, json.loads(done.stdout.splitlines()[-1]), strict=True):
        table = tmp_path / f"{data.manifest.dataset}.parquet"
        predict_help.run(model, data.folder, table)
        ours = {row["patch_id"]: row for row in pq.read_table(table).to_pylist()}
        assert len(served) == 2 * len(ours)
        for patch_id, row in ours.items():
            for name in (patch_id, f"file {patch_id}"):
                np.testing.assert_allclose(served[name][0], row["probability"], rtol=0, atol=1e-5)
                assert served[name][1] == row["predicted_name"]
