"""Writes tiny raw trees in the layouts in which the public data sets are downloaded.

Every image has its own pixels, drawn from its relative path, so that no test meets a duplicate by accident.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

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


def pixels(key: str, width: int = 50, height: int = 50) -> np.ndarray:
    """uint8 [height, width, 3] noise that depends on the key only."""
    rng = np.random.default_rng(zlib.crc32(key.encode("utf-8", "surrogateescape")))
    return rng.integers(0, 256, (height, width, 3), np.uint8)


def image_bytes(key: str, width: int = 50, height: int = 50, kind: str = "PNG") -> bytes:
    """An encoded image (`PNG` or `TIFF`) of `pixels`."""
    out = io.BytesIO()
    Image.fromarray(pixels(key, width, height)).save(out, kind)
    return out.getvalue()


def write_images(root: Path, paths: Iterable[str], size: tuple[int, int] = (50, 50)) -> list[str]:
    """Writes an image at each relative path, PNG or TIFF by extension; returns the paths, sorted."""
    written = []
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        kind = "TIFF" if file.suffix.lower() in (".tif", ".tiff") else "PNG"
        file.write_bytes(image_bytes(path, *size, kind=kind))
        written.append(path)
    return sorted(written)


def idc_path(patient: str, label: int, x: int = 1, y: int = 1, idx: int = 5) -> str:
    """`PATIENT/LABEL/PATIENT_idx5_xX_yY_classLABEL.png`."""
    return f"{patient}/{label}/{patient}_idx{idx}_x{x}_y{y}_class{label}.png"


def idc_tree(root: Path, patients: int | Sequence[str] = 3, per_class: int = 2) -> list[str]:
    """An IDC folder; patients as a number or by name, each with `per_class` patches of both classes."""
    names = [str(9000 + i) for i in range(patients)] if isinstance(patients, int) else patients
    cells = ((name, label, i) for name in names for label in (0, 1) for i in range(per_class))
    return write_images(root, [idc_path(name, label, 50 * i + 1, 101) for name, label, i in cells])


def breakhis_path(
    kind: str,
    case: str,
    magnification: int = 40,
    number: int = 1,
    layout: str = "official",
    underscores: bool = True,
) -> str:
    """Path of one image.

    Args:
        kind: Tumour type code, such as `TA`.
        case: Year and case, such as `14-4659` or `14-22549AB`.
        magnification: 40, 100, 200 or 400.
        number: Sequence number.
        layout: `official`, `classes` (eight class folders) or `flat`.
        underscores: Whether the file name has its underscores.
    """
    benign, class_name = BREAKHIS_TYPES[kind]
    letter = benign[0].upper()
    prefix = f"SOB_{letter}_{kind}" if underscores else f"SOB{letter}{kind}"
    name = f"{prefix}-{case}-{magnification}-{number:03}.png"
    folder = {
        "official": f"BreaKHis_v1/histology_slides/breast/{benign}/SOB/{class_name}/"
        f"SOB_{letter}_{kind}_{case}/{magnification}X/",
        "classes": f"{class_name}/",
        "flat": "",
    }[layout]
    return folder + name


def breakhis_tree(
    root: Path,
    cases: Mapping[str, Sequence[str]] | None = None,
    magnifications: Sequence[int] = (40, 100),
    per_scale: int = 1,
    layout: str = "official",
    size: tuple[int, int] = (700, 460),
) -> list[str]:
    """A BreakHis folder; `cases` maps type codes to cases (default: two cases of every type)."""
    cases = cases or {
        kind: [f"14-{1000 + 10 * i}", f"14-{1001 + 10 * i}"] for i, kind in enumerate(BREAKHIS_TYPES)
    }
    paths = [
        breakhis_path(kind, case, scale, number + 1, layout)
        for kind, names in cases.items()
        for case in names
        for scale in magnifications
        for number in range(per_scale)
    ]
    return write_images(root, paths, size)


def pcam_id(number: int) -> str:
    """A 40-digit id like those of the download."""
    return f"{number:040x}"


def pcam_tree(
    root: Path,
    labels: Mapping[str, int] | int = 6,
    test: int = 2,
    *,
    bom: bool = False,
    crlf: bool = False,
    extra_lines: Sequence[str] = (),
) -> list[str]:
    """A PCam folder with its label CSV.

    Args:
        root: Where.
        labels: Label of each id, or how many ids with alternating labels.
        test: How many images in test/.
        bom: Whether the CSV begins with a byte order mark.
        crlf: Whether its lines end in CRLF.
        extra_lines: Lines to add, such as `ID,1` of an id without a file.
    """
    if isinstance(labels, int):
        labels = {pcam_id(i): i % 2 for i in range(labels)}
    paths = [f"train/{one}.tif" for one in labels] + [f"test/{pcam_id(10_000 + i)}.tif" for i in range(test)]
    written = write_images(root, paths, (96, 96))
    lines = ["id,label", *(f"{one},{label}" for one, label in labels.items()), *extra_lines, ""]
    text = ("\r\n" if crlf else "\n").join(lines)
    (root / "train_labels.csv").write_bytes(text.encode("utf-8-sig" if bom else "utf-8"))
    return written


def groups_csv(file: Path, groups: Mapping[str, str], columns: tuple[str, str] = ("id", "slide")) -> Path:
    """Writes a mapping of patch ids to groups."""
    lines = [",".join(columns), *(f"{one},{group}" for one, group in groups.items()), ""]
    file.write_text("\n".join(lines), encoding="utf-8")
    return file
