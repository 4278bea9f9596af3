"""Laws of the ingest over random data sets: disjoint groups, a ledger that only grows, nothing lost, stable names."""

from __future__ import annotations

import io
import os
import random
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from components.splits.planner import SplitPlan, plan_splits
from tests.support import ingest_help as help
from tests.support import trees
from tests.support.ingest_help import ingest

CLASSES = ("negative", "idc")
few = settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
many = settings(max_examples=25, deadline=None)

# What lies at one place of a patient's folder: a patch of its own, or trouble.
FILES = st.sampled_from(["own"] * 8 + ["empty", "narrow", "sliver", "shared", "blank", "text", "odd name"])
PATIENTS = st.dictionaries(
    st.text("abcXYZ019 é_-", min_size=1, max_size=6).filter(
        lambda s: s.strip(" .-") == s and s not in (".", "..")
    ),
    st.lists(st.tuples(st.integers(0, 1), FILES), max_size=6),
    min_size=6,
    max_size=14,
)


def draw(root: Path, patients: dict[str, list[tuple[int, str]]]) -> int:
    """Writes the folder; every patient has a sound patch of both classes. Returns the number of image files."""
    with io.BytesIO() as out:
        Image.new("RGB", (50, 50), (243, 240, 244)).save(out, "PNG")
        blank = out.getvalue()
    found = 0
    for patient, files in patients.items():
        for number, (label, what) in enumerate([(0, "own"), (1, "own"), *files]):
            path = trees.idc_path(patient, label, number, 7)
            if what == "odd name":
                path = path.replace("_class", "_klass")
            file = root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            size = {"narrow": (50, 44), "sliver": (3, 50)}.get(what, (50, 50))
            given = {
                "empty": b"",
                "text": b"none",
                "blank": blank,
                "shared": trees.image_bytes(f"s{number % 2}"),
            }
            file.write_bytes(given[what] if what in given else trees.image_bytes(path, *size))
            found += 1
    return found


@pytest.mark.integration
@few
@given(patients=PATIENTS)
def test_nothing_is_lost_and_no_group_or_picture_is_in_two_splits(patients: dict) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        found = draw(root / "raw", patients)
        result = ingest(root / "raw", root / "w", max_faults=1)
        rows, rejects = result.patches, result.rejects
        assert result.manifest.found == found == len(rows) + len(rejects)
        assert not {r["path"] for r in rows} & rejects.keys()
        assert {p.relative_to(root / "raw").as_posix() for p in (root / "raw").rglob("*.png")} == {
            r["path"] for r in rows
        } | rejects.keys()
        assert all(result.splits[r["group_id"]] == r["split"] for r in rows)
        pixels: dict[bytes, set[tuple[str, int]]] = {}
        for split, example in help.examples(result.folder).values():
            if len(set(example["image/raw"])) <= 3:
                continue  # blank glass is exempt
            pixels.setdefault(example["image/raw"], set()).add((split, example["label"]))
        assert all(len(places) == 1 for places in pixels.values())
        counts = Counter(rejects.values())
        assert {c: f.count for c, f in result.manifest.rejects.items()} == counts


@pytest.mark.integration
@few
@given(patients=PATIENTS, seed=st.integers(0, 2**16))
def test_plan_id_and_ledger_do_not_depend_on_listing_order_or_root(patients: dict, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        root = Path(folder)
        draw(root / "raw", patients)
        one = help.plan(help.config(root / "raw", root / "w", max_faults=1))
        os.rename(root / "raw", root / "elsewhere")
        scandir = os.scandir
        patch.setattr("components.adapters.listing.os.scandir", lambda path: _Shuffled(scandir(path), seed))
        other = help.plan(help.config(root / "elsewhere", root / "w2", max_faults=1))
        assert (one.plan_id, one.ledger, one.specs, one.patches) == (
            other.plan_id, other.ledger, other.specs, other.patches,
        )  # fmt: skip


class _Shuffled:
    """A folder's entries in another order than the file system's."""

    def __init__(self, entries: os.ScandirIterator, seed: int) -> None:  # type: ignore[name-defined]
        with entries:
            self.entries = sorted(entries, key=lambda e: e.name)
        random.Random(seed).shuffle(self.entries)

    def __enter__(self) -> _Shuffled:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self.entries)


GROUPS = st.dictionaries(
    st.text(min_size=1, max_size=4),
    st.tuples(st.integers(0, 50), st.integers(0, 50)).filter(any),
    min_size=12,
    max_size=40,
)


def planned(counts: dict[str, tuple[int, int]], **options: object) -> SplitPlan | None:
    """A plan, None where the data can't be split."""
    from components.errors import DataError

    try:
        return plan_splits(counts, CLASSES, group_unit="patient", **options)  # type: ignore[arg-type]
    except DataError:
        return None


@many
@given(counts=GROUPS, more=GROUPS, seed=st.integers(0, 99), order=st.randoms())
def test_ledger_is_stable_under_growth_and_permutation(
    counts: dict, more: dict, seed: int, order: random.Random
) -> None:
    first = planned(counts, seed=seed)
    shuffled = list(counts.items())
    order.shuffle(shuffled)
    again = planned(dict(shuffled), seed=seed)
    assert (first and first.ledger) == (again and again.ledger)
    if first is None:
        return
    assert planned(counts, previous=first.ledger).ledger == first.ledger  # type: ignore[union-attr]
    grown = planned({**counts, **more}, previous=first.ledger)
    assert grown is not None, "what could be split can be split when it has grown"
    assert first.ledger.splits.items() <= grown.ledger.splits.items()
    gone = dict(list(counts.items())[: len(counts) // 2])
    shrunk = planned({**gone, **more}, previous=first.ledger)
    if shrunk is not None:
        assert first.ledger.splits.items() <= shrunk.ledger.splits.items()


@pytest.mark.integration
@few
@given(patients=PATIENTS, seed=st.integers(0, 9))
def test_content_digest_ignores_names_and_times_but_no_pixel(patients: dict, seed: int) -> None:
    patients = {name: [(label, "own") for label, _ in files] for name, files in patients.items()}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        draw(root / "raw", patients)
        first = ingest(root / "raw", root / "w")
        # Other coordinates in every name, other times, same order of nothing.
        for number, file in enumerate(sorted((root / "raw").rglob("*.png"))):
            file.rename(file.with_name(file.name.replace("_y7_", f"_y{seed + 8 + number}_")))
        for file in (root / "raw").rglob("*.png"):
            os.utime(file, (seed, seed))
        second = ingest(root / "raw", root / "w")
        assert second.manifest.content_digest == first.manifest.content_digest
        assert second.plan_id != first.plan_id
        victim = sorted((root / "raw").rglob("*.png"))[0]
        victim.write_bytes(trees.image_bytes("changed"))
        assert ingest(root / "raw", root / "w").manifest.content_digest != first.manifest.content_digest
