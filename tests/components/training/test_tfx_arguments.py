"""What run_fn makes of the Trainer's file patterns and schema."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.datasets.committed import DatasetFiles
from components.errors import DataError, UsageError
from components.training.tfx_arguments import check_schema, dataset_folder
from pipelines.tfx.schema import write_schema
from tests.support.manifests import manifest as make_manifest


@pytest.mark.parametrize("root", ["/w/datasets/idc/binary/abc", "gs://bucket/datasets/idc/binary/abc"])
def test_the_data_set_is_where_its_splits_lie(root: str) -> None:
    assert dataset_folder([f"{root}/Split-train/*"], [f"{root}/Split-eval/*"]) == root


@pytest.mark.parametrize(
    ("train", "evaluation", "said"),
    [
        ([], ["/a/Split-eval/*"], "no files"),
        (["/a/Split-test/*"], ["/a/Split-eval/*"], "no split"),
        (["/a/Split-train/*"], ["/a/Split-train/*"], "no split"),
        (["/a/Split-train/*"], ["/b/Split-eval/*"], "several data sets: /a, /b"),
    ],
)
def test_other_splits_are_refused(train: list[str], evaluation: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        dataset_folder(train, evaluation)


@pytest.mark.parametrize(
    ("changed", "said"),
    [({"classes": ("benign", "tumour")}, "classes"), ({"stored_size": (50, 40)}, "height")],
)
def test_the_schema_of_other_data_is_refused(tmp_path: Path, changed: dict[str, object], said: str) -> None:
    manifest = make_manifest()
    files = DatasetFiles(tmp_path, manifest, {})
    check_schema(write_schema(manifest, tmp_path), files)
    with pytest.raises(DataError, match=said):
        check_schema(write_schema(make_manifest(**changed), tmp_path), files)
