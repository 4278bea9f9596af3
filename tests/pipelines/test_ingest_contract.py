"""What an ingest leaves behind: folders, manifest, tables, Examples."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.datasets.example import decode_example, decode_pixels
from components.datasets.manifest import RejectFacts
from components.datasets.tfrecord import read_at
from components.errors import UsageError
from schemas.tables import PATCHES, REJECTS
from tests.support import ingest_help as help
from tests.support import trees
from tests.support.ingest_help import Result, ingest


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return help.twelve_patients(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def done(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return ingest(raw, tmp_path_factory.mktemp("workspace"), max_faults=0.5)


class TestLayout:
    def test_holds_exactly_these_files(self, done: Result) -> None:
        names = {
            re.sub(r"^thumbnails/[0-9a-f]{24}", "thumbnails/X", name)
            for name in help.output_bytes(done.folder)
        }
        shards = {f"Split-{s}/{s}-00000-of-00001.tfrecord" for s in help.SPLITS}
        sidecars = {f"sidecars/{s}-00000-of-00001.parquet" for s in help.SPLITS}
        tables = {"manifest.json", "patches.parquet", "rejects.parquet", "splits.json"}
        assert names == shards | sidecars | tables | {"thumbnails/X.png"}

    def test_no_temporaries_are_left(self, done: Result) -> None:
        assert not [p for p in done.folder.rglob(".*")]

    def test_latest_names_it(self, done: Result) -> None:
        latest = json.loads((done.folder.parent / "latest.json").read_text())
        assert latest["dataset_dir"] == f"datasets/idc/binary/{done.plan_id}"
        assert latest["plan_id"] == done.plan_id
        assert latest["content_digest"] == done.manifest.content_digest

    def test_a_split_is_cut_into_shards_by_size_and_mixes_patients(
        self, raw: Path, tmp_path: Path, monkeypatch
    ) -> None:
        monkeypatch.setattr("components.ingest.plan.EXAMPLE_OVERHEAD", 90_000)  # as if records were large
        result = ingest(raw, tmp_path, max_faults=0.5, shard_mb=1)
        files = sorted(p.name for p in (result.folder / "Split-train").iterdir())
        assert (
            files == [f"train-{i:05d}-of-{len(files):05d}.tfrecord" for i in range(len(files))]
            and len(files) > 2
        )
        groups = [{r["group_id"] for r in result.patches if r["shard"] == f} for f in files]
        assert all(len(g) > 1 for g in groups), "no shard may be one patient's"


class TestManifest:
    def test_counts_are_those_of_the_tables(self, done: Result) -> None:
        m, rows = done.manifest, done.patches
        for split in help.SPLITS:
            mine = [r for r in rows if r["split"] == split]
            facts = m.splits[split]
            assert facts.patches == len(mine) == sum(s.count for s in facts.shards)
            assert facts.groups == len({r["group_id"] for r in mine})
            for label, name in enumerate(m.classes):
                assert facts.by_class[name] == sum(r["label"] == label for r in mine)
                assert facts.groups_by_class[name] == len(
                    {r["group_id"] for r in mine if r["label"] == label}
                )
        assert m.written == len(rows)
        assert m.rejects == {"too_narrow": RejectFacts("fault", 1)}

    def test_found_is_written_plus_rejected(self, done: Result, raw: Path) -> None:
        assert done.manifest.found == len(help.sources(raw)) == len(done.patches) + len(done.rejects)

    def test_names_every_file_with_its_checksum(self, done: Result) -> None:
        m, content = done.manifest, help.output_bytes(done.folder)
        digests = dict(m.files)
        for split, facts in m.splits.items():
            for shard in facts.shards:
                path = f"Split-{split}/{shard.file}"
                digests[path] = shard.sha256
                digests[f"sidecars/{Path(path).stem}.parquet"] = shard.sidecar_sha256
                assert shard.bytes == len(content[path])
        assert digests == {n: hashlib.sha256(d).hexdigest() for n, d in content.items() if n != "manifest.json"}

    def test_splits_are_told_in_their_own_order(self, done: Result) -> None:
        assert tuple(done.manifest.splits) == help.SPLITS


class TestTables:
    def test_patches_have_the_columns_of_the_contract(self, done: Result) -> None:
        assert pq.read_schema(done.folder / "patches.parquet").remove_metadata().equals(PATCHES)

    def test_each_row_leads_to_its_record(self, done: Result) -> None:
        for row in done.patches:
            record = read_at(done.folder / f"Split-{row['split']}" / row["shard"], row["offset"])
            example = decode_example(record)
            assert example["patch_id"].decode() == row["patch_id"] == Path(row["path"]).stem
            assert (
                (example["image/width"], example["image/height"]) == (row["width"], row["height"]) == (50, 50)
            )

    def test_padded_patches_keep_their_original_size(self, done: Result) -> None:
        odd = [r for r in done.patches if (r["original_width"], r["original_height"]) != (50, 50)]
        assert [(r["group_id"], r["original_width"], r["original_height"]) for r in odd] == [("9000", 50, 41)]

    def test_rejects_have_code_kind_detail_and_thumbnail(self, done: Result) -> None:
        table = pq.read_table(done.folder / "rejects.parquet")
        assert table.schema.remove_metadata().equals(REJECTS)
        (row,) = table.to_pylist()
        assert (row["path"], row["code"], row["kind"]) == (
            trees.idc_path("9001", 0, 951, 951),
            "too_narrow",
            "fault",
        )
        assert "1x50" in row["detail"]
        assert Image.open(done.folder / "thumbnails" / row["thumbnail"]).size == (1, 50)


class TestExamples:
    def test_hold_every_feature_and_the_pixels_of_their_source(self, done: Result, raw: Path) -> None:
        rows = {r["patch_id"]: r for r in done.patches}
        found = help.examples(done.folder)
        assert found.keys() == rows.keys()
        for patch_id, (split, example) in found.items():
            row = rows[patch_id]
            assert set(example) == {*help.FEATURE_KEYS, "image/raw"}
            assert split == row["split"] == done.splits[row["group_id"]]
            for name in ("label", "x", "y", "magnification"):
                assert example[name] == row[name]
            for name in ("group_id", "slide_id", "tumor_type"):
                assert example[name].decode() == row[name]
            assert example["label/name"].decode() == row["label_name"] == ("negative", "idc")[row["label"]]
            source = np.asarray(Image.open(raw / row["path"]).convert("RGB"))
            height, width = source.shape[:2]
            assert np.array_equal(decode_pixels(example)[:height, :width], source)

    def test_absent_numbers_are_minus_one_and_absent_strings_empty(self, done: Result) -> None:
        _, example = next(iter(help.examples(done.folder).values()))
        assert (example["magnification"], example["slide_id"], example["tumor_type"]) == (-1, b"", b"")

    def test_edges_are_padded_by_reflection(self, done: Result) -> None:
        _, example = help.examples(done.folder)[Path(trees.idc_path("9000", 0, 951, 951)).stem]
        pixels = decode_pixels(example)
        assert np.array_equal(pixels[41:], pixels[31:40][::-1])

    def test_encoded_keeps_the_file_untouched(self, tmp_path: Path) -> None:
        root = tmp_path / "raw"
        trees.idc_tree(root, 6, 2)
        grey = trees.idc_path("9000", 1, 951, 951)
        Image.fromarray(trees.pixels(grey)[..., 0]).save(root / grey)
        result = ingest(root, tmp_path / "w", image_format="encoded", max_faults=0.5)
        assert result.rejects == {grey: "unsupported"}
        paths = {r["patch_id"]: r["path"] for r in result.patches}
        for patch_id, (_, example) in help.examples(result.folder).items():
            assert example["image/encoded"] == (root / paths[patch_id]).read_bytes()
            assert set(example) == {*help.FEATURE_KEYS, "image/encoded"}

    def test_encoded_is_refused_where_sources_are_no_png_or_scaled(self, tmp_path: Path) -> None:
        for dataset in ("pcam", "breakhis"):
            with pytest.raises(UsageError, match="encoded needs PNG"):
                help.config(tmp_path, tmp_path, dataset, image_format="encoded")


class TestTasksAndSizes:
    def test_subtype_and_binary_stand_side_by_side(self, tmp_path: Path) -> None:
        cases = {k: [f"14-{100 * i + j}" for j in range(3)] for i, k in enumerate(trees.BREAKHIS_TYPES)}
        trees.breakhis_tree(tmp_path / "raw", cases, magnifications=(40,))
        two = ingest(tmp_path / "raw", tmp_path / "w", "breakhis")
        eight = ingest(tmp_path / "raw", tmp_path / "w", "breakhis", task="subtype")
        assert two.folder.parent.name == "binary" and eight.folder.parent.name == "subtype"
        assert len(two.manifest.classes) == 2 and len(eight.manifest.classes) == 8
        assert {r["label"] for r in eight.patches} == set(range(8)) and two.plan_id != eight.plan_id

    @pytest.mark.parametrize("size", [None, (700, 460), (175, 115)])
    def test_stored_size(self, tmp_path: Path, size: tuple[int, int] | None) -> None:
        trees.breakhis_tree(
            tmp_path / "raw", {"TA": ["14-1", "14-2", "14-3"], "DC": ["14-4", "14-5", "14-6"]}, (40,)
        )
        short = trees.breakhis_path("TA", "14-1", number=9)
        trees.write_images(tmp_path / "raw", [short], (700, 456))
        result = ingest(tmp_path / "raw", tmp_path / "w", "breakhis", size=size)
        width, height = size or (350, 230)
        assert {(r["width"], r["height"]) for r in result.patches} == {(width, height)}
        assert result.manifest.stored_size == (width, height)
        assert {r["original_height"] for r in result.patches if r["path"] == short} == {456}
        factor = 700 // width
        for patch_id, (_, example) in help.examples(result.folder).items():
            path = next(r["path"] for r in result.patches if r["patch_id"] == patch_id)
            pixels = np.asarray(Image.open(tmp_path / "raw" / path)).astype(float)[:456]
            blocks = pixels.reshape(456 // factor, factor, width, factor, 3).mean((1, 3))
            assert np.abs(decode_pixels(example)[: len(blocks)] - blocks).max() <= 0.5

    def test_anisotropic_size_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="350x230"):
            help.config(tmp_path, tmp_path, "breakhis", size=(350, 200))


def test_sidecars_hold_all_that_patches_hold(done: Result) -> None:
    rows = pa.concat_tables(
        [
            pq.read_table(p).select(PATCHES.names).replace_schema_metadata(None)
            for p in sorted((done.folder / "sidecars").iterdir())
        ]
    )
    key = [("patch_id", "ascending")]
    assert rows.sort_by(key).equals(
        pq.read_table(done.folder / "patches.parquet").sort_by(key).cast(rows.schema)
    )
