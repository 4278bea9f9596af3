"""What the exporter writes is what evaluation accepts: raw, encoded and halved images, one class or several."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from components.datasets.sidecars import shard_files
from components.promotion import error_maps, scoring_process
from components.promotion.prediction_tables import probability_values
from components.promotion.worst_errors import worst_errors

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("dataset", "options"),
    [("idc", {}), ("idc", {"image_format": "encoded"}), ("breakhis", {"task": "subtype"})],
    ids=["raw", "encoded", "halved"],
)
def test_an_exported_model_answers(tmp_path, untrained, dataset, options):
    _, made, model = untrained(dataset, **options)
    manifest = made.manifest
    here = "."
    shards = {
        split: [(str(made.folder / a), str(made.folder / b)) for a, b in shard_files(manifest, here, split)]
        for split in scoring_process.SPLITS
    }
    out = tmp_path / "out"
    out.mkdir()
    request = scoring_process.Request(
        model_dir=str(model), model_version="run", classes=manifest.classes,
        source_size=manifest.source_size, stored_size=manifest.stored_size,
        shards=shards, others={"champion": str(model)}, out=str(out), explain=True,
    )  # fmt: skip
    assert scoring_process.Request.from_json(request.to_json()) == request
    scoring_process.predict(request)
    told = json.loads((out / scoring_process.ANSWERS).read_text())
    assert told["answers"], told["reason"]
    table = pq.read_table(out / scoring_process.PREDICTIONS)
    assert len(table) == sum(manifest.splits[split].patches for split in ("eval", "test"))
    test = [row["probability"] for row in table.to_pylist() if row["split"] == "test"]
    assert pq.read_table(out / scoring_process.OTHERS).column("champion").to_pylist() == test
    _explained(out, manifest.classes, table.filter(pc.equal(table["split"], "test")))


def _explained(out, classes, test):
    """The worst errors have maps, and the maps are of this network, not of the images alone."""
    labels, probability = test["label"].to_numpy(), probability_values(test["probability"])
    groups = np.array(test["group_id"].to_pylist(), object)
    count = 12 if len(classes) == 2 else 4
    kinds = worst_errors(labels, groups, probability, 0.4, count)
    wanted = {(test["patch_id"][int(row)].as_py(), kind.called) for kind in kinds for row in kind.worst}
    made = error_maps.read(out / error_maps.NAME)
    assert wanted and made.maps.keys() == wanted
    assert all(max(one.shape) <= error_maps.SIDE and one.max() in (0, 255) for one in made.maps.values())
    assert any(one.any() for one in made.maps.values())
    assert made.control.draws == error_maps.DRAWS and made.control.patches == min(len(wanted), error_maps.CONTROLLED)
    assert made.control.correlation < 0.5


def test_maps_that_do_not_depend_on_the_weights_are_found_out(tmp_path):
    """The control of Adebayo et al.: a "map" of the image's own edges stays when the weights are shuffled."""

    class Edges:
        def __init__(self, honest):
            self.weights, self.honest = np.random.default_rng(0).normal(0, 1, (6, 6)), honest

        def explain(self, records, classes):
            images = np.stack([np.frombuffer(record, np.uint8).reshape(6, 6) for record in records]).astype(np.float32)
            return np.maximum(images * (self.weights if self.honest else 1), 0).astype(np.float32)

        @contextlib.contextmanager
        def shuffled(self, seed):
            kept = self.weights
            self.weights = np.random.default_rng(seed).permutation(kept.reshape(-1)).reshape(6, 6)
            yield
            self.weights = kept

    records = [np.random.default_rng(k).integers(0, 256, 36, np.uint8).tobytes() for k in range(30)]
    names, called = [f"p{k}" for k in range(30)], np.ones(30, int)
    found = {}
    for honest in (True, False):
        error_maps.write(Edges(honest), records, names, called, 7, tmp_path / "maps")
        found[honest] = error_maps.read(tmp_path / "maps")
    assert found[False].control.correlation == 1.0 and found[True].control.correlation < 0.5
    assert found[True].maps.keys() == {(name, 1) for name in names}
