"""What the exporter writes is what evaluation accepts: raw, encoded and halved images, one class or several."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from components.datasets.sidecars import shard_files
from components.promotion import scoring_process
from components.training.recipe import TrainingConfig
from tests.support import ingest_help, model_help

pytestmark = pytest.mark.integration


def export(folder: Path, data: Path) -> Path:
    """An untrained network, exported as training does it."""
    import keras

    from components.datasets.committed import open_dataset
    from components.training import models
    from components.training.export import ModelFacts, export_model

    found = open_dataset(data)
    config = TrainingConfig(task=found.task)
    keras.utils.set_random_seed(1)
    height, width = found.stored_size[1], found.stored_size[0]
    model = models.build(config.model, (height, width, 3), len(found.classes), {})
    return export_model(model, folder, ModelFacts.of(config, found), 1.3, 0.4)


@pytest.mark.parametrize(
    ("dataset", "options"),
    [("idc", {}), ("idc", {"image_format": "encoded"}), ("breakhis", {"task": "subtype"})],
    ids=["raw", "encoded", "halved"],
)
def test_an_exported_model_answers(tmp_path, dataset, options):
    if dataset == "idc":
        model_help.idc(tmp_path / "raw", 12, 2)
    else:
        model_help.breakhis(tmp_path / "raw", 3, 1)
    made = ingest_help.ingest(tmp_path / "raw", tmp_path / "ws", dataset, **options)
    manifest = made.manifest
    model = export(tmp_path / "model", made.folder)
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
        shards=shards, others={"champion": str(model)}, out=str(out),
    )  # fmt: skip
    assert scoring_process.Request.from_json(request.to_json()) == request
    scoring_process.predict(request)
    told = json.loads((out / scoring_process.ANSWERS).read_text())
    assert told["answers"], told["reason"]
    table = pq.read_table(out / scoring_process.PREDICTIONS)
    assert len(table) == sum(manifest.splits[split].patches for split in ("eval", "test"))
    test = [row["probability"] for row in table.to_pylist() if row["split"] == "test"]
    assert pq.read_table(out / scoring_process.OTHERS).column("champion").to_pylist() == test
