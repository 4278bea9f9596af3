"""Prediction with input, model and output in buckets, against a real emulator process."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.prediction.inputs import plan_input
from components.prediction.job import predict
from components.promotion.find_model import model_folder
from components.storage.open import open_storage
from tests.support import gcs, predict_help

pytestmark = pytest.mark.integration


@pytest.fixture
def emulator(monkeypatch, tmp_path) -> Iterator[str]:
    with gcs.buckets(monkeypatch, tmp_path / "cache", "work") as url:
        yield url


def test_everything_may_lie_in_buckets(emulator, tmp_path, untrained):
    raw, data, model = untrained("idc")
    predict_help.run(model, raw, tmp_path / "here.parquet")
    for folder, name in ((raw, "raw"), (data.folder, "data"), (model, "models/idc/7")):
        gcs.upload(folder, f"gs://work/{name}")
    there = model_folder("gs://work/models/idc/7")
    assert there.version == "7"
    here = {row["patch_id"]: row for row in pq.read_table(tmp_path / "here.parquet").to_pylist()}
    out = open_storage("gs://work/out")
    for name in ("raw", "data"):
        plan = plan_input(there, f"gs://work/{name}")
        result = predict(there, plan, f"gs://work/out/{name}.parquet", predict_help.here)
        rows = pq.read_table(out.local_copy(f"{name}.parquet")).to_pylist()
        assert result["predicted"] == len(rows) == len(data.patches)
        for row in rows:
            np.testing.assert_allclose(row["probability"], here[row["patch_id"]]["probability"], rtol=0, atol=1e-6)
    names = [path for path, _ in out.list_files("")]
    assert names == [
        f"{n}{kind}" for n in ("data", "raw") for kind in (".parquet", ".rejects.parquet", ".summary.json")
    ]
    plan = plan_input(there, "gs://work/raw")
    assert predict(there, plan, "gs://work/out/raw.parquet", predict_help.here)["state"] == "unchanged"
