"""Under --pseudonymise no output and no message holds a raw id or path."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from components.errors import DataError, TemporaryError, UsageError
from components.ingest.pseudonyms import Pseudonymiser, read_path_map
from tests.support import ingest_help as help
from tests.support import trees
from tests.support.ingest_help import ingest

PATIENTS = [f"Patient-Zoë-{i}" for i in range(12)]


@pytest.fixture
def key(tmp_path: Path) -> Path:
    file = tmp_path / "secret" / "key"
    file.parent.mkdir()
    with open(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600), "w") as out:
        out.write("0123456789abcdef" * 2)
    return file


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Every kind of reject: a sliver, a stranger, a text file, a copy in another split, a conflict."""
    root = tmp_path / "raw"
    trees.idc_tree(root, PATIENTS, 3)
    trees.write_images(root, [trees.idc_path(PATIENTS[0], 0, 951, 951)], (2, 50))
    (root / PATIENTS[1] / "1" / "Zoë_holiday.png").write_bytes(b"no image")
    (root / trees.idc_path(PATIENTS[2], 1, 751, 751)).write_bytes(b"no image")
    for i in range(3, 8):
        shutil.copyfile(
            root / trees.idc_path(PATIENTS[i], 0, 1, 101), root / trees.idc_path(PATIENTS[i + 1], 0, 51, 101)
        )
    shutil.copyfile(
        root / trees.idc_path(PATIENTS[9], 0, 1, 101), root / trees.idc_path(PATIENTS[9], 1, 1, 101)
    )
    return root


def secrets(text: bytes) -> list[bytes]:
    return [
        word for word in ("Zoë".encode(), b"Zo\\u00eb", b"Patient", b"_idx5_", b"holiday") if word in text
    ]


def test_no_file_holds_a_raw_id_or_path(raw: Path, tmp_path: Path, key: Path) -> None:
    withdrawn = tmp_path / "withdrawn.txt"
    withdrawn.write_text(f"{PATIENTS[11]}\n")
    result = ingest(raw, tmp_path / "w", max_faults=0.5, pseudonymise=key, exclude_groups=withdrawn)
    assert set(result.rejects.values()) >= {
        "too_narrow",
        "bad_name",
        "not_an_image",
        "label_conflict",
        "excluded_group",
    }
    for name, content in help.output_bytes(tmp_path / "w").items():
        assert not secrets(content) and not secrets(name.encode()), name
    # Parquet pages are compressed: what they hold is looked at, too.
    for file in (tmp_path / "w").rglob("*.parquet"):
        import pyarrow.parquet as pq

        assert not secrets(str(pq.read_table(file).to_pylist()).encode()), file
    assert not (result.folder / "thumbnails").exists()
    assert result.manifest.input == ""
    token = Pseudonymiser(key.read_bytes()).token
    assert result.ledger["tombstones"] == [token("group_id", PATIENTS[11])]
    assert result.splits.keys() == {token("group_id", p) for p in PATIENTS[:11]}


def test_path_map_leads_back_and_is_for_its_owner_only(raw: Path, tmp_path: Path, key: Path) -> None:
    result = ingest(raw, tmp_path / "w", max_faults=0.5, pseudonymise=key)
    file = key.with_suffix(".paths.csv")
    assert file.stat().st_mode & 0o777 == 0o600
    paths = read_path_map(file)
    sources = {p.relative_to(raw).as_posix() for p in raw.rglob("*.png")}
    assert {paths[r["path"]] for r in result.patches} | {paths[p] for p in result.rejects} == sources
    other = tmp_path / "map.csv"
    ingest(raw, tmp_path / "w2", max_faults=0.5, pseudonymise=key, path_map=other)
    assert other.read_text() == file.read_text() and other.stat().st_mode & 0o777 == 0o600


def test_same_key_goes_on_with_the_ledger_and_another_is_refused(
    raw: Path, tmp_path: Path, key: Path
) -> None:
    first = ingest(raw, tmp_path / "w", max_faults=0.5, pseudonymise=key)
    trees.idc_tree(raw, ["new-1", "new-2"], 2)
    second = ingest(raw, tmp_path / "w", max_faults=0.5, pseudonymise=key)
    assert first.splits.items() < second.splits.items()
    with pytest.raises(UsageError, match="plain ids"):
        ingest(raw, tmp_path / "w", max_faults=0.5)
    other = key.with_name("other")
    shutil.copy(key, other)
    other.write_text("another key, just as long as it needs")
    with pytest.raises(UsageError, match="made with key"):
        ingest(raw, tmp_path / "w", max_faults=0.5, pseudonymise=other)


def test_withdrawn_groups_stay_out_under_their_token(raw: Path, tmp_path: Path, key: Path) -> None:
    withdrawn = tmp_path / "withdrawn.txt"
    withdrawn.write_text(f"{PATIENTS[5]}\n")
    first = ingest(raw, tmp_path / "w", max_faults=0.5, pseudonymise=key, exclude_groups=withdrawn)
    trees.idc_tree(raw, ["new-1"], 2)
    second = ingest(raw, tmp_path / "w", max_faults=0.5, pseudonymise=key)
    token = Pseudonymiser(key.read_bytes()).token("group_id", PATIENTS[5])
    assert second.ledger["tombstones"] == first.ledger["tombstones"] == [token]
    assert token not in {r["group_id"] for r in second.patches}
    assert (
        second.manifest.written + sum(r.count for r in second.manifest.rejects.values())
        == second.manifest.found
    )


def test_key_readable_by_others_is_refused(raw: Path, tmp_path: Path, key: Path) -> None:
    key.chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        ingest(raw, tmp_path / "w", pseudonymise=key)


class TestMessages:
    def error_text(self, raw: Path, workspace: Path, kind: type[Exception], **options: object) -> str:
        with pytest.raises(kind) as caught:
            ingest(raw, workspace, **options)
        assert not secrets(str(caught.value).encode()), caught.value
        return str(caught.value)

    def test_too_many_faults(self, raw: Path, tmp_path: Path, key: Path) -> None:
        assert "--max-faults" in self.error_text(raw, tmp_path / "w", DataError, pseudonymise=key)
        for name, content in help.output_bytes(tmp_path / "w").items():
            assert not secrets(content) or "/.tmp/" in name, name

    def test_forbidden_conflict(self, raw: Path, tmp_path: Path, key: Path) -> None:
        self.error_text(raw, tmp_path / "w", DataError, pseudonymise=key, max_faults=0.5, on_conflict="fail")

    def test_too_few_patients(self, tmp_path: Path, key: Path) -> None:
        trees.idc_tree(tmp_path / "few", PATIENTS[:2], 2)
        self.error_text(tmp_path / "few", tmp_path / "w", DataError, pseudonymise=key)

    def test_nothing_to_write(self, tmp_path: Path, key: Path) -> None:
        root = tmp_path / "odd"
        trees.idc_tree(root, PATIENTS[:1], 1)
        withdrawn = tmp_path / "withdrawn.txt"
        withdrawn.write_text(f"{PATIENTS[0]}\n")
        self.error_text(root, tmp_path / "w", DataError, pseudonymise=key, exclude_groups=withdrawn)

    def test_a_source_that_changes(
        self, raw: Path, tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def plan_then_change(config, attempt):  # type: ignore[no-untyped-def]
            planned = real(config, attempt)
            for file in raw.rglob("*_x1_*.png"):
                file.write_bytes(file.read_bytes() + b"more")
            return planned

        real = help.plan_ingest
        monkeypatch.setattr(help, "plan_ingest", plan_then_change)
        text = self.error_text(raw, tmp_path / "w", TemporaryError, pseudonymise=key, max_faults=0.5)
        assert "(withheld)" in text and "changed" in text

    def test_a_published_split_that_lacks_a_group(self, raw: Path, tmp_path: Path, key: Path) -> None:
        splits = trees.groups_csv(tmp_path / "s.csv", dict.fromkeys(PATIENTS[:10], "train"), ("group", "split"))
        self.error_text(raw, tmp_path / "w", UsageError, pseudonymise=key, splits_csv=splits)
