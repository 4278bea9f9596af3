"""What `histoline synth` draws and how it names it: the layouts of the three downloads.

A plan is a list of `Drawing`, one for each image file, and a few text files. Planning is cheap and runs in
one process; drawing needs nothing but its `Drawing`, so that any number of workers leaves the same bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pipelines.synthetic.tissue import Pattern

NESTED_COPY = "IDC_regular_ps50_idx5"
"""Folder of the second copy that the IDC download has been seen with."""

BREAKHIS_TYPES = {
    "A": ("benign", "adenosis"),
    "F": ("benign", "fibroadenoma"),
    "PT": ("benign", "phyllodes_tumor"),
    "TA": ("benign", "tubular_adenoma"),
    "DC": ("malignant", "ductal_carcinoma"),
    "LC": ("malignant", "lobular_carcinoma"),
    "MC": ("malignant", "mucinous_carcinoma"),
    "PC": ("malignant", "papillary_carcinoma"),
}
BREAKHIS_CASES = {"A": 4, "F": 10, "PT": 3, "TA": 7, "DC": 38, "LC": 5, "MC": 9, "PC": 6}
"""Patients of each type in the real data, 82 in all (Spanhol et al. 2016, table 1)."""

PCAM_STRAY_TUMOUR = 0.04
"""Chance of tumour outside the centre, whatever the label: who can't tell the centre apart pays for it."""

BREAKHIS_RADIUS = {40: 3.2, 100: 5.0, 200: 8.0, 400: 14.0}
"""Nuclear radius in pixels at each magnification; less than proportional, so that no image lacks nuclei."""

_BREAKHIS_PATTERNS = {
    "A": Pattern(size=0.85, elongation=1.15, uniform=0.25, rings=1.0),
    "F": Pattern(size=0.9, elongation=1.7, aligned=0.7, uniform=0.6, rings=0.6, lumen="clefts"),
    "PT": Pattern(size=0.95, elongation=2.2, aligned=0.95, uniform=1.0, lumen="clefts"),
    "TA": Pattern(size=0.9, elongation=1.3, uniform=0.03, rings=1.0),
    "DC": Pattern(size=1.6, spread=0.26, irregularity=0.08, uniform=0.15, islands=1.0, vesicular=0.7),
    "LC": Pattern(size=1.25, spread=0.18, irregularity=0.07, aligned=0.8, uniform=0.05, files=1.0, lumen="pools"),
    "MC": Pattern(size=1.45, spread=0.22, irregularity=0.07, uniform=0.02, islands=1.0, vesicular=0.6, lumen="pools"),
    "PC": Pattern(size=1.4, spread=0.2, elongation=1.6, irregularity=0.06, uniform=0.05, rings=1.0, lumen="clefts"),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Drawing:
    """One image file.

    Attributes:
        paths: Where it is written, relative to the root, POSIX; more than one for copies.
        group: Index of the patient, whose signature it carries.
        key: Seeds the drawing; two drawings with equal key, group and pattern have the same pixels.
        label: Class, -1 where the layout gives none.
        pattern: Nuclei, of the centre where `surround` is set.
        radius: Nuclear radius in pixels.
        width: Pixels.
        height: Pixels.
        surround: Nuclei outside the centre, for labels that speak of the centre only.
    """

    paths: tuple[str, ...]
    group: int
    key: int
    label: int
    pattern: Pattern
    radius: float
    width: int
    height: int
    surround: Pattern | None = None


@dataclasses.dataclass(frozen=True)
class DrawingPlan:
    """A whole data set before it is drawn.

    Attributes:
        drawings: Image files in the order of drawing.
        texts: Text files: path relative to the root -> content.
        groups: Number of patients (PCam: slides).
        size: (width, height) in pixels of the canvas from which every image is cut.
        centre: (left, top, width, height) of the region that the label speaks of; None for the whole image.
        suffix: `.png` or `.tif`.
    """

    drawings: list[Drawing]
    texts: dict[str, str]
    groups: int
    size: tuple[int, int]
    centre: tuple[int, int, int, int] | None
    suffix: str


def tissue_pattern(positive: bool, rng: np.random.Generator, contrast: float = 1.0) -> Pattern:
    """Nuclei of tumour or of other tissue.

    Both classes draw their atypia from overlapping distributions: some benign nuclei are large and some
    malignant ones small and regular, as in life. Lumina are drawn without a look at the label.

    Args:
        positive: Tumour.
        rng: Source of chance.
        contrast: 1 or more; the more, the less the classes overlap.
    """
    atypia = float(rng.beta(7.0 * contrast, 2.0) if positive else rng.beta(2.0, 7.0 * contrast))
    nature = Pattern(
        size=0.86 + 0.84 * atypia,
        spread=0.06 + 0.22 * atypia,
        irregularity=0.01 + 0.09 * atypia,
        vesicular=0.2 + 0.6 * atypia,
        uniform=1.0,
        lumen=("cells", "clefts", "pools")[int(rng.choice(3, p=[0.6, 0.2, 0.2]))],
    )
    pick = rng.random()
    if rng.random() < atypia:
        if pick < 0.6:  # nests
            return replace(nature, elongation=1.2, uniform=0.12, islands=1.0)
        if pick < 0.8:  # sheets
            return replace(nature, elongation=1.15)
        return replace(nature, elongation=1.3, aligned=0.7, uniform=0.08, files=1.0)  # single files
    if pick < 0.5:  # fibroblasts
        return replace(nature, elongation=1.9, aligned=0.8)
    if pick < 0.75:  # ducts
        return replace(nature, elongation=1.25, uniform=0.3, rings=1.0)
    return replace(nature, elongation=1.05)  # lymphocytes


def _group_sizes(total: int, groups: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Splits `total` into uneven parts of at least 1."""
    share = np.exp(rng.normal(0.0, 0.35, groups))
    sizes: NDArray[np.int64] = 1 + np.floor((total - groups) * share / share.sum()).astype(np.int64)
    sizes[: total - sizes.sum()] += 1
    return sizes


def _labels(size: int, mixed: bool, a: float, b: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Labels of one patient, the prevalence from Beta(a, b); a mixed patient has both classes."""
    if mixed and size > 1:
        positive = int(np.clip(round(size * rng.beta(a, b)), 1, size - 1))
    else:
        positive = size * int(rng.random() < a / (a + b))
    return rng.permutation(np.arange(size) < positive).astype(np.int64)


def _idc_sizes(total: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Widths and heights: 2.5 % lose up to a fifth at a slide's edge, 0.5 % more than that, down to 1x50."""
    sizes = np.full((total, 2), 50)
    order = rng.permutation(total)
    slivers = total // 200
    narrow = total // 40
    axis = rng.integers(0, 2, total)
    cut = np.concatenate([rng.integers(1, 40, slivers), rng.integers(40, 50, narrow)])
    cut[: min(2, slivers)] = 1
    axis[order[:2]] = (0, 1)[:total]
    chosen = order[: slivers + narrow]
    sizes[chosen, axis[chosen]] = cut
    return sizes[:, 0], sizes[:, 1]


def plan_idc(patches: int, groups: int, seed: int, nested_copy: bool = False) -> DrawingPlan:
    """Breast Histopathology Images: `PATIENT/{0,1}/PATIENT_idx5_xX_yY_classC.png`, 50x50, narrower at edges.

    Args:
        patches: Number of patches, without the copies.
        groups: Number of patients.
        seed: Equal seeds give equal plans.
        nested_copy: Put a second copy of the whole tree into `IDC_regular_ps50_idx5/`.
    """
    rng = np.random.default_rng([seed, 1])
    names = np.sort(rng.choice(np.arange(8000, 17000), groups, replace=False))
    widths, heights = _idc_sizes(patches, rng)
    drawings: list[Drawing] = []
    for group, (name, size) in enumerate(zip(names, _group_sizes(patches, groups, rng), strict=True)):
        labels = _labels(size, group % 25 != 24, 0.7, 1.2, rng)
        side = int(np.ceil(np.sqrt(2.5 * size))) + 4
        spots = rng.choice(side * side, size, replace=False)
        for label, spot in zip(labels, spots, strict=True):
            key = len(drawings)
            x, y = 50 * (spot % side) + 51, 50 * (spot // side) + 51
            path = f"{name}/{label}/{name}_idx5_x{x}_y{y}_class{label}.png"
            paths = (path, f"{NESTED_COPY}/{path}") if nested_copy else (path,)
            pattern = tissue_pattern(bool(label), rng)
            width, height = int(widths[key]), int(heights[key])
            drawings.append(Drawing(paths, group, key, int(label), pattern, 2.0, width, height))
    return DrawingPlan(drawings, {}, groups, (50, 50), None, ".png")


def plan_pcam(patches: int, groups: int, seed: int) -> DrawingPlan:
    """PCam as Kaggle ships it, and `patch_to_slide.csv`: `train/ID.tif`, `train_labels.csv`, `test/ID.tif`.

    A twentieth as many unlabelled images again lie in `test/`. Outside the centre of 32x32 lies tumour by
    chance alone (`PCAM_STRAY_TUMOUR`), so only the centre tells the label.

    Args:
        patches: Number of labelled patches.
        groups: Number of slides.
        seed: Equal seeds give equal plans.
    """
    rng = np.random.default_rng([seed, 3])
    drawings: list[Drawing] = []
    labels_csv, test_csv, slides_csv = ["id,label"], ["id,label"], ["id,slide_id"]
    rows = [
        (group, int(label))
        for group, size in enumerate(_group_sizes(patches, groups, rng))
        for label in _labels(size, group % 25 != 24, 0.8, 1.0, rng)
    ]
    rows += [(int(rng.integers(groups)), -1) for _ in range(patches // 20)]
    for key, (group, label) in enumerate(rows):
        name = hashlib.sha1(f"histoline synth pcam {seed} {key}".encode(), usedforsecurity=False).hexdigest()
        positive = bool(label) if label >= 0 else bool(rng.random() < 0.4)
        # A centre of 32x32 shows few nuclei: they have to be clearer than where the whole patch speaks.
        pattern = tissue_pattern(positive, rng, 2.0)
        surround = tissue_pattern(bool(rng.random() < PCAM_STRAY_TUMOUR), rng, 2.0)
        folder = "test" if label < 0 else "train"
        path = (f"{folder}/{name}.tif",)
        drawings.append(Drawing(path, group, key, label, pattern, 2.4, 96, 96, surround))
        if label < 0:
            test_csv.append(f"{name},0")
        else:
            labels_csv.append(f"{name},{label}")
            slides_csv.append(f"{name},slide_{group + 1:03d}")
    texts = {
        "train_labels.csv": labels_csv,
        "sample_submission.csv": test_csv,
        "patch_to_slide.csv": slides_csv,
    }
    joined = {name: "\n".join([lines[0], *sorted(lines[1:])]) + "\n" for name, lines in texts.items()}
    return DrawingPlan(drawings, joined, groups, (96, 96), (32, 32, 32, 32), ".tif")


def plan_breakhis(patches: int, groups: int, seed: int, real_proportions: bool = False) -> DrawingPlan:
    """BreakHis in the official layout, 700x460 and a few 700x456, eight types, four magnifications.

    The first cases hold what the real data holds (from 16 cases on): a malignant case under two types with
    one pixel-identical pair of images (as 13412), a benign case that spans two types, and cases whose images
    lie under several letter suffixes.

    Args:
        patches: Number of images.
        groups: Number of cases (patients).
        seed: Equal seeds give equal plans.
        real_proportions: As many cases of each type as in the real data, per 82; else as many of one as of another.
    """
    rng = np.random.default_rng([seed, 2])
    codes = list(BREAKHIS_TYPES)
    if real_proportions:  # the first eight stay one of each type, which the special cases below count on
        codes += [code for code, cases in BREAKHIS_CASES.items() for _ in range(cases - 1)]
    numbers = rng.choice(np.arange(2500, 30000), groups, replace=False)
    years = np.where(rng.random(groups) < 0.93, 14, 15)
    sizes = _group_sizes(patches, groups, rng) if patches % groups else np.full(groups, patches // groups)
    counters: dict[str, int] = {}
    drawings: list[Drawing] = []

    def add(case: int, code: str, suffix: str, magnification: int, height: int, key: int) -> None:
        class_name, type_name = BREAKHIS_TYPES[code]
        letter = class_name[0].upper()
        accession = f"{years[case]}-{numbers[case]}{suffix}"
        stem = f"SOB_{letter}_{code}-{accession}-{magnification}"
        counters[stem] = counters.get(stem, 0) + 1
        folder = (
            f"BreaKHis_v1/histology_slides/breast/{class_name}/SOB/{type_name}/SOB_{letter}_{code}_{accession}"
            f"/{magnification}X"
        )
        drawings.append(
            Drawing(
                (f"{folder}/{stem}-{counters[stem]:03d}.png",),
                case,
                key,
                int(class_name == "malignant"),
                _BREAKHIS_PATTERNS["DC" if case == twice else code],
                BREAKHIS_RADIUS[magnification],
                700,
                height,
            )
        )

    special = groups >= 16
    twice, spanning = (4, 1) if special else (-1, -1)
    for case in range(groups):
        code = codes[case % len(codes)]
        start = int(rng.integers(4))
        for i in range(int(sizes[case])):
            magnification = list(BREAKHIS_RADIUS)[(start + i) % 4]
            height = 456 if rng.random() < 0.03 else 460
            suffix, kind, key = "", code, len(drawings)
            if case == twice and i % 2:  # the same image again, filed as another type
                kind, key, magnification = "LC", drawings[-1].key, _magnification(drawings[-1])
                height = drawings[-1].height
                if i > 1:  # one pair only
                    key = len(drawings)
            elif case == spanning:
                suffix, kind = (("AB", "F"), ("CD", "PT"))[i % 2]
            elif special and case % 10 == 0:
                suffix = ("AB", "CD", "G")[i % 3]
            add(case, kind, suffix, magnification, height, key)
    # One magnification after the other: its textures are built once.
    drawings.sort(key=lambda d: (d.radius, d.key, d.paths))
    return DrawingPlan(drawings, {}, groups, (700, 460), None, ".png")


def _magnification(drawing: Drawing) -> int:
    return next(m for m, radius in BREAKHIS_RADIUS.items() if radius == drawing.radius)
