"""Synthetic data sets: layouts, determinism, and that nuclei, not colour, tell the label."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from components.adapters import drawn_mark
from components.errors import TemporaryError, UsageError
from pipelines.synthetic import draw
from pipelines.synthetic.layouts import BREAKHIS_TYPES, NESTED_COPY


def tree_digest(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file() and path.name != drawn_mark.NAME)
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_idc_layout(tmp_path: Path) -> None:
    summary = draw.generate("idc", tmp_path / "idc", patches=400, groups=5, workers=1)
    files = sorted((tmp_path / "idc").rglob("*.png"))
    assert len(files) == summary.images == 400
    stems = set()
    for file in files:
        patient, label = file.relative_to(tmp_path / "idc").parts[:2]
        assert re.fullmatch(rf"{patient}_idx5_x\d+_y\d+_class{label}\.png", file.name)
        stems.add(file.stem)
    assert len(stems) == 400
    sizes = [Image.open(file).size for file in files]
    narrow = [size for size in sizes if size != (50, 50)]
    assert len(narrow) == summary.narrow == 12
    assert {1 for size in sizes if min(size) == 1}, "a sliver is missing"
    # Ingest takes 1 % of faults by default: patches below 80 % must stay under that.
    assert sum(min(size) < 40 for size in sizes) <= 0.005 * len(sizes)
    assert (tmp_path / "idc").stat().st_mode & 0o700 == 0o700
    assert list(tmp_path.iterdir()) == [tmp_path / "idc"]


def test_idc_nested_copy_doubles_every_patch(tmp_path: Path) -> None:
    summary = draw.generate("idc", tmp_path / "idc", patches=20, groups=2, nested_copy=True)
    digests = tree_digest(tmp_path / "idc")
    assert summary.copies == 20 and summary.images == len(digests) == 40
    for path, digest in digests.items():
        if not path.startswith(NESTED_COPY):
            assert digests[f"{NESTED_COPY}/{path}"] == digest


def test_pcam_layout(tmp_path: Path) -> None:
    root = tmp_path / "pcam"
    summary = draw.generate("pcam", root, patches=60, groups=6)
    tables = {name: list(csv.DictReader((root / name).open())) for name in summary.files}
    labels = {row["id"]: row["label"] for row in tables["train_labels.csv"]}
    slides = {row["id"]: row["slide_id"] for row in tables["patch_to_slide.csv"]}
    assert len(labels) == 60 and slides.keys() == labels.keys() and len(set(slides.values())) == 6
    assert {path.stem for path in (root / "train").iterdir()} == labels.keys()
    assert {path.stem for path in (root / "test").iterdir()} == {r["id"] for r in tables["sample_submission.csv"]}
    assert summary.unlabelled == 3
    for path in [*(root / "train").iterdir()][:3]:
        assert re.fullmatch(r"[0-9a-f]{40}\.tif", path.name)
        with Image.open(path) as image:
            assert (image.format, image.size, image.mode) == ("TIFF", (96, 96), "RGB")


@pytest.mark.integration
def test_breakhis_layout_and_its_traps(tmp_path: Path) -> None:
    root = tmp_path / "breakhis"
    summary = draw.generate("breakhis", root, patches=32, groups=16, workers=1)
    pixels: dict[str, list[str]] = {}
    types: dict[str, set[str]] = {}
    suffixes: dict[str, set[str]] = {}
    for file in root.rglob("*.png"):
        parts = file.relative_to(root).parts
        name = re.fullmatch(
            r"SOB_([BM])_(A|F|PT|TA|DC|LC|MC|PC)-(\d\d)-(\d+)([A-Z]*)-(40|100|200|400)-(\d{3})\.png",
            file.name,
        )
        assert name, file.name
        letter, code, year, case, suffix, magnification, _ = name.groups()
        class_name, type_name = BREAKHIS_TYPES[code]
        assert letter == class_name[0].upper()
        folder = f"SOB_{letter}_{code}_{year}-{case}{suffix}"
        head = ("BreaKHis_v1", "histology_slides", "breast", class_name, "SOB", type_name)
        assert parts[:-1] == (*head, folder, f"{magnification}X")
        with Image.open(file) as image:
            assert image.size in {(700, 460), (700, 456)}
            pixels.setdefault(hashlib.sha256(image.tobytes()).hexdigest(), []).append(code)
        types.setdefault(f"{year}-{case}", set()).add(code)
        suffixes.setdefault(f"{year}-{case}", set()).add(suffix)
    assert sum(map(len, pixels.values())) == summary.images == 32 and len(types) == 16
    assert [sorted(codes) for codes in pixels.values() if len(codes) > 1] == [["DC", "LC"]]
    assert {frozenset(t) for t in types.values() if len(t) > 1} == {
        frozenset(("DC", "LC")),
        frozenset(("F", "PT")),
    }
    assert any(len(s) > 1 and types[case] == {"A"} for case, s in suffixes.items())
    assert {code for codes in types.values() for code in codes} == set(BREAKHIS_TYPES)


@pytest.mark.parametrize("dataset", list(draw.DEFAULTS))
def test_defaults_give_a_test_split_twenty_groups_of_each_class(dataset: str) -> None:
    plan = draw.make_plan(dataset)
    labelled = [d for d in plan.drawings if d.label >= 0]
    assert len(labelled) == draw.DEFAULTS[dataset].patches
    for label in (0, 1):
        assert 0.2 * len({d.group for d in labelled if d.label == label}) >= 20
    if dataset != "breakhis":
        prevalence = [np.mean([d.label for d in labelled if d.group == g]) for g in range(plan.groups)]
        assert np.std(prevalence) > 0.2


@settings(max_examples=25, deadline=None)
@given(
    dataset=st.sampled_from(list(draw.DEFAULTS)),
    groups=st.integers(1, 40),
    extra=st.integers(0, 200),
    seed=st.integers(0, 2**32),
)
def test_a_plan_holds_what_was_asked_for(dataset: str, groups: int, extra: int, seed: int) -> None:
    plan = draw.make_plan(dataset, patches=groups + extra, groups=groups, seed=seed)
    labelled = [d for d in plan.drawings if d.label >= 0]
    assert len(labelled) == groups + extra
    assert {d.group for d in labelled} == set(range(groups))
    paths = [path for d in plan.drawings for path in d.paths]
    assert len(set(paths)) == len(paths)
    assert all(1 <= d.width <= plan.size[0] and 1 <= d.height <= plan.size[1] for d in plan.drawings)


@pytest.mark.integration
@pytest.mark.parametrize("dataset", ["idc", "pcam"])
def test_equal_seeds_give_equal_bytes_whatever_the_workers(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = draw.generate(dataset, tmp_path / "a", patches=96, groups=8, seed=5, workers=1)
    monkeypatch.setitem(draw._CHUNK, dataset, 10)
    calls: list[tuple[int, int]] = []
    draw.generate(
        dataset, tmp_path / "b", patches=96, groups=8, seed=5, workers=2, progress=lambda *c: calls.append(c)
    )
    assert tree_digest(tmp_path / "a") == tree_digest(tmp_path / "b")
    assert calls[-1] == (alone.images, alone.images)
    draw.generate(dataset, tmp_path / "c", patches=96, groups=8, seed=6, workers=1)
    assert tree_digest(tmp_path / "a") != tree_digest(tmp_path / "c")


def test_refuses_to_write_over_anything(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("full", "file"):
        with pytest.raises(UsageError):
            draw.generate("idc", tmp_path / name, patches=4, groups=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"]
    (tmp_path / "empty").mkdir()
    draw.generate("idc", tmp_path / "empty", patches=4, groups=2)
    assert len([*(tmp_path / "empty").rglob("*.png")]) == 4


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw.generate("idc", tmp_path / "idc", patches=4, groups=2, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_temporary_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(TemporaryError, match="full"):
        draw.generate("idc", tmp_path / "idc", patches=4, groups=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        {"dataset": "camelyon"},
        {"dataset": "idc", "patches": 3, "groups": 4},
        {"dataset": "idc", "patches": 0},
        {"dataset": "idc", "groups": 0},
        {"dataset": "idc", "seed": -1},
        {"dataset": "pcam", "nested_copy": True},
        {"dataset": "idc", "workers": 0},
    ],
)
def test_impossible_requests(arguments: dict, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        draw.generate(output=tmp_path / "x", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_pcam_label_is_in_the_centre_only() -> None:
    plan = draw.make_plan("pcam", patches=40, groups=4)
    centre = np.zeros((96, 96), bool)
    centre[32:64, 32:64] = True
    benign = next(d.pattern for d in plan.drawings if d.label == 0)
    changed = 0
    for drawing in [d for d in plan.drawings if d.label == 1]:
        tumour = draw.draw("pcam", plan, drawing, 0)
        other = draw.draw("pcam", plan, dataclasses.replace(drawing, pattern=benign, label=0), 0)
        assert np.array_equal(tumour[~centre], other[~centre])
        changed += not np.array_equal(tumour[centre], other[centre])
    assert changed > 10


def colour_features(images: np.ndarray) -> np.ndarray:
    """RGB mean and deviation, mean haematoxylin and eosin: what the project's colour baseline sees."""
    pixels = images.reshape(len(images), -1, 3).astype(np.float32)
    stains = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105]])
    density = -np.log10((pixels + 1) / 256).mean(1) @ np.linalg.pinv(stains / np.linalg.norm(stains, axis=1)[:, None])
    return np.concatenate([pixels.mean(1), pixels.std(1), density], axis=1)


def texture_features(images: np.ndarray) -> np.ndarray:
    """Log energy in rings of the spectrum of the standardised grey image: sizes, whatever the colour."""
    grey = images.mean(-1)
    grey = (grey - grey.mean((1, 2), keepdims=True)) / (grey.std((1, 2), keepdims=True) + 1e-3)
    power = np.abs(np.fft.fft2(grey * np.hanning(50)[:, None] * np.hanning(50))) ** 2
    ring = np.digitize(np.hypot(np.fft.fftfreq(50)[:, None], np.fft.fftfreq(50)), np.geomspace(0.015, 0.5, 14))
    return np.stack([np.log(power[:, ring == k].sum(1) + 1e-3) for k in range(1, 14)], axis=1)


@pytest.mark.integration
def test_nuclei_tell_the_label_and_colour_does_not() -> None:
    from sklearn.ensemble import GradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    plan = draw.make_plan("idc", patches=2400, groups=60)
    whole = [d for d in plan.drawings if (d.width, d.height) == (50, 50)]
    images = np.stack([draw.draw("idc", plan, d, 0) for d in whole])
    labels = np.array([d.label for d in whole])
    patients = np.array([d.group for d in whole])
    chance = np.random.default_rng(0)

    def auc(features: np.ndarray, units: np.ndarray, linear: bool) -> float:
        scores = []
        for _ in range(3):
            test = np.isin(units, chance.permutation(units.max() + 1)[: (units.max() + 1) // 3])
            model = (
                make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
                if linear
                else GradientBoostingClassifier(n_estimators=60, subsample=0.5, max_depth=4, random_state=0)
            )
            model.fit(features[~test], labels[~test])
            scores.append(roc_auc_score(labels[test], model.predict_proba(features[test])[:, 1]))
        return float(np.mean(scores))

    colour, texture = colour_features(images), texture_features(images)
    disjoint = auc(colour, patients, linear=False)
    assert disjoint <= 0.75
    assert auc(colour, patients, linear=True) <= 0.75
    assert auc(texture, patients, linear=True) > 0.85
    # The same colours seen in a random split know the patient, hence the prevalence: that is the cheat.
    assert auc(colour, np.arange(len(labels)), linear=False) > disjoint + 0.08


def test_breakhis_can_have_the_real_proportions_of_patients() -> None:
    plan = draw.make_plan("breakhis", groups=82, patches=656, real_proportions=True)
    of_label = {label: {d.group for d in plan.drawings if d.label == label} for label in (0, 1)}
    assert (len(of_label[0]), len(of_label[1])) == (24, 58), "benign and malignant patients of Spanhol et al. 2016"
    with pytest.raises(UsageError, match="breakhis"):
        draw.make_plan("idc", groups=8, patches=80, real_proportions=True)
