"""verify names every byte that changed; audit finds leaks that a data set's own tables would hide."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.core import json_documents
from components.datasets import manifest as manifests
from components.datasets.tfrecord import footer, header, read_records
from components.storage.open import open_storage
from tests.support import ingest_help, trees
from tests.support.cli_help import invoke, invoke_json


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, ingest_help.Result]:
    base = tmp_path_factory.mktemp("verify")
    trees.idc_tree(base / "raw", 12, per_class=3)
    return base, ingest_help.ingest(base / "raw", base / "w")


@pytest.fixture
def dataset(made, tmp_path) -> Path:
    """A copy to damage."""
    copy = tmp_path / "copy"
    shutil.copytree(made[1].folder, copy)
    return copy


def shard(folder: Path, split: str = "train") -> Path:
    return next((folder / f"Split-{split}").iterdir())


def reseal(folder: Path, change) -> None:
    """Rewrites the manifest with a valid digest: what a careful forger would do."""
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_bytes(manifests.dump(json_documents.typed(manifests.Manifest, manifest)))


def test_a_whole_data_set_is_ok(made, capsys):
    folder = made[1].folder
    code, result = invoke_json(capsys, "verify", folder, "--deep", "--sample", 0)
    assert code == 0 and result["ok"] and result["compared_with_source"] == 72
    code, result = invoke_json(capsys, "audit", folder)
    assert code == 0 and result["ok"] and result["records"] == 72


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda d: flip(shard(d), 3000), "data checksum wrong"),
        (lambda d: flip(shard(d), 2), "length checksum wrong at byte 0"),
        (lambda d: shard(d).write_bytes(shard(d).read_bytes()[:-5]), "cut off"),
        (lambda d: shard(d, "eval").unlink(), "is missing"),
        (lambda d: shutil.copy(shard(d), d / "Split-test" / "extra.tfrecord"), "is read as records by training"),
        (lambda d: (d / "Split-test" / ".hidden").write_bytes(b""), "is read as records by training"),
        (lambda d: (d / "notes.txt").write_text("x"), "is not in the manifest"),
        (lambda d: flip(d / "patches.parquet", 10), "patches.parquet has changed"),
        (lambda d: flip(next((d / "sidecars").iterdir()), 10), "sidecars/"),
        (lambda d: (d / "splits.json").write_text("{}"), "splits.json has changed"),
        (lambda d: drop_last_record(shard(d)), "every record is intact, but records were added"),
    ],
)
def test_every_damage_is_named(dataset, capsys, damage, says):
    damage(dataset)
    code, result = invoke_json(capsys, "verify", dataset)
    assert code == 65 and not result["ok"]
    assert any(says in finding for finding in result["findings"]), result["findings"]


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def drop_last_record(path: Path) -> None:
    records = [r for _, r in read_records(path)][:-1]
    path.write_bytes(b"".join(header(len(r)) + r + footer(r) for r in records))


def test_the_damaged_record_is_found_by_name(dataset, capsys):
    path = shard(dataset)
    offsets = [offset for offset, _ in read_records(path)]
    flip(path, offsets[2] + 400)
    _, result = invoke_json(capsys, "verify", dataset)
    assert f"data checksum wrong at byte {offsets[2]} after record" in result["findings"][0]


def test_a_manifest_edited_by_hand_is_refused(dataset, capsys):
    path = dataset / "manifest.json"
    path.write_text(path.read_text().replace('"found": 72', '"found": 71'))
    assert invoke("verify", dataset) == 65
    assert "was changed after the commit" in capsys.readouterr().err


def test_a_manifest_of_a_newer_version_is_refused(dataset, capsys):
    path = dataset / "manifest.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 99'))
    assert invoke("audit", dataset) == 64
    assert "Upgrade histoline" in capsys.readouterr().err


@pytest.mark.parametrize("folder", ["nothing", "../x", "/"])
def test_a_folder_that_is_no_data_set_is_a_usage_error(tmp_path, capsys, folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert invoke("verify", folder) == 64
    assert "Traceback" not in capsys.readouterr().err


def test_deep_finds_a_source_that_is_another_picture_now(made, dataset, tmp_path, capsys):
    raw = tmp_path / "raw"
    shutil.copytree(made[0] / "raw", raw)
    victim = next(raw.rglob("*.png"))
    victim.write_bytes(trees.image_bytes("another picture"))
    code, result = invoke_json(capsys, "verify", dataset, "--deep", "--sample", 0, "--input", raw)
    assert code == 65 and len(result["findings"]) == 1
    assert str(victim.relative_to(raw)) in result["findings"][0] and "pixels differ" in result["findings"][0]
    victim.unlink()
    _, result = invoke_json(capsys, "verify", dataset, "--deep", "--sample", 0, "--input", raw)
    assert "can't be read" in result["findings"][0]


def test_deep_needs_the_raw_folder(dataset, capsys):
    assert invoke("verify", dataset, "--deep", "--input", "gone") == 64
    assert "Give --input" in capsys.readouterr().err


def move_records(folder: Path, change) -> None:
    """Rewrites train's shard through `change(records)` and reseals digests, so that verify has nothing to say."""
    path = shard(folder)
    records = change([r for _, r in read_records(path)])
    path.write_bytes(b"".join(header(len(r)) + r + footer(r) for r in records))
    manifest = json.loads((folder / "manifest.json").read_text())
    digest = __import__("hashlib").sha256(path.read_bytes()).hexdigest()
    old = manifest["splits"]["train"]["shards"][0]["sha256"]
    reseal(folder, lambda m: m["splits"]["train"]["shards"][0].update(sha256=digest, bytes=path.stat().st_size))
    assert old != digest


def test_audit_does_not_trust_the_tables(dataset, capsys):
    """A test patient's record smuggled into train, all checksums made right."""
    smuggled = next(r for _, r in read_records(shard(dataset, "test")))
    move_records(dataset, lambda records: [*records[:-1], smuggled])
    assert invoke("verify", dataset) == 0
    code, result = invoke_json(capsys, "audit", dataset)
    assert code == 65 and result["shared_groups"] == 1
    findings = " ".join(result["findings"])
    assert "stand in more than one split" in findings
    assert "the same pixels in 2 splits" in findings
    assert "differ between records and patches.parquet" in findings


def test_audit_counts_again(dataset, capsys):
    reseal(dataset, lambda m: m["splits"]["test"]["by_class"].update(negative=999))
    code, result = invoke_json(capsys, "audit", dataset)
    assert code == 65 and any("the manifest says 999" in f for f in result["findings"])
    table = pq.read_table(dataset / "rejects.parquet")
    row = pa.table({n: [""] for n in table.schema.names}, schema=table.schema)
    pq.write_table(pa.concat_tables([table, row]), dataset / "rejects.parquet")
    _, result = invoke_json(capsys, "audit", dataset)
    assert any("72 written + 1 rejected is not 72 found" in f for f in result["findings"])


def test_a_leaky_data_set_is_told_as_one(tmp_path, capsys):
    trees.idc_tree(tmp_path / "raw", 6, per_class=6)
    leaky = ingest_help.ingest(tmp_path / "raw", tmp_path / "w", split_by="image")
    assert leaky.manifest.flags == ("leaky",) and not leaky.is_latest
    code, result = invoke_json(capsys, "audit", leaky.folder)
    assert code == 65 and result["flags"] == ["leaky"] and result["shared_groups"] > 0
    assert "can't judge a model" in result["findings"][0]


def test_manifest_follows_its_schema_or_is_not_written(made):
    with pytest.raises(ValueError, match="schema"):
        manifests.dump(dataclasses.replace(made[1].manifest, classes=("one",)))
    storage = open_storage(str(made[1].folder.parent))
    assert manifests.load(storage, made[1].folder.name).written == 72
