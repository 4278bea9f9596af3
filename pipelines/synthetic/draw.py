"""`histoline synth`: synthetic H&E-like data sets in the layouts of the real downloads.

For demonstrations, tests and benchmarks where the real data is absent. Nuclei tell the label, colour doesn't;
every patient has a signature of stain and texture and a prevalence of its own, so that a random split lets a
model cheat.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.adapters import drawn_mark
from components.errors import TemporaryError, UsageError
from components.version import __version__
from pipelines.synthetic import layouts, stain, textures, tissue
from pipelines.synthetic.layouts import Drawing, DrawingPlan


@dataclasses.dataclass(frozen=True)
class Defaults:
    """What a data set holds where nothing else is asked for.

    Attributes:
        patches: Images (PCam: labelled images).
        groups: Patients (BreakHis: cases, PCam: slides); a test split of 20 % holds 20 with each class.
    """

    patches: int
    groups: int


DEFAULTS = {
    "idc": Defaults(patches=12_000, groups=150),
    "breakhis": Defaults(patches=864, groups=216),
    "pcam": Defaults(patches=4_000, groups=130),
}

_CHUNK = {"idc": 256, "breakhis": 4, "pcam": 128}
_TEXTURE_SIZE = {"idc": 512, "breakhis": 768, "pcam": 512}


@dataclasses.dataclass(frozen=True)
class Summary:
    """What was written.

    Attributes:
        dataset: `idc`, `breakhis` or `pcam`.
        output: Root of the new tree.
        images: Image files, copies included.
        per_class: Labelled images of the negative and of the positive class, without copies.
        unlabelled: Images without a label.
        groups: Patients (BreakHis: cases, PCam: slides).
        groups_per_class: Groups that hold at least one image of the class.
        copies: Image files that repeat another one in a nested copy.
        narrow: Images smaller than the regular size.
        files: Other files, relative to `output` (label and slide tables).
        seed: The seed.
    """

    dataset: str
    output: Path
    images: int
    per_class: tuple[int, int]
    unlabelled: int
    groups: int
    groups_per_class: tuple[int, int]
    copies: int
    narrow: int
    files: tuple[str, ...]
    seed: int


def generate(
    dataset: str,
    output: Path,
    *,
    patches: int | None = None,
    groups: int | None = None,
    seed: int = 0,
    workers: int | None = None,
    nested_copy: bool = False,
    real_proportions: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Draws a data set; equal arguments give equal bytes, whatever the number of workers.

    The tree is drawn beside `output` and renamed when it is whole. It carries a mark (`drawn_mark`), so that nobody
    takes it for real data.

    Args:
        dataset: `idc`, `breakhis` or `pcam`.
        output: Folder to make; may exist if it is empty.
        patches: Images, see `DEFAULTS`.
        groups: Patients, cases or slides, see `DEFAULTS`.
        seed: Not negative.
        workers: Processes; all cores that this process may use if None.
        nested_copy: IDC only: add the second copy of the tree that the download has been seen with.
        real_proportions: BreakHis only: patients by type as in the real data, not as many of each.
        progress: Called with (images drawn, images in all) now and then.

    Raises:
        UsageError: Unknown data set, impossible numbers, or an `output` that is not an empty or a new folder.
        TemporaryError: The disk is full.
    """
    output = Path(output)
    plan = make_plan(
        dataset, patches=patches, groups=groups, seed=seed, nested_copy=nested_copy, real_proportions=real_proportions
    )
    if workers is not None and workers < 1:
        raise UsageError(f"synth can't work with {workers} workers.", "Give 1 or more, or leave it out.")
    _check_output(output)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".synth", dir=output.parent))
        try:
            _write(dataset, plan, draft, seed, workers, progress)
            (draft / drawn_mark.NAME).write_text(drawn_mark.content(_mark(dataset, plan, seed)), encoding="utf-8")
            draft.chmod(0o777 & ~_umask())  # mkdtemp made it private
            draft.rename(output)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise _explained(error, output) from error
    return _summary(dataset, output, plan, seed)


def make_plan(
    dataset: str,
    *,
    patches: int | None = None,
    groups: int | None = None,
    seed: int = 0,
    nested_copy: bool = False,
    real_proportions: bool = False,
) -> DrawingPlan:
    """Plans a data set without drawing it; arguments and errors as in `generate`."""
    if dataset not in DEFAULTS:
        raise UsageError(f"There is no synthetic data set {dataset!r}.", f"Choose one of {', '.join(DEFAULTS)}.")
    if groups is None:
        usual = DEFAULTS[dataset].groups
        groups = usual if patches is None else max(1, min(usual, patches // 4))
    if patches is None:
        patches = max(groups, DEFAULTS[dataset].patches * groups // DEFAULTS[dataset].groups)
    if seed < 0:
        raise UsageError(f"The seed is negative: {seed}.", "Give 0 or more.")
    if not 1 <= groups <= 8000 or groups > patches:
        raise UsageError(
            f"synth can't spread {patches} images over {groups} patients.",
            "Give at least one image for each patient and 1 to 8000 patients (--patches, --groups).",
        )
    if nested_copy and dataset != "idc":
        raise UsageError(f"Only idc comes with a nested copy, not {dataset}.", "Leave --nested-copy out.")
    if real_proportions and dataset != "breakhis":
        raise UsageError(f"Only breakhis has real proportions, not {dataset}.", "Leave --real-proportions out.")
    if dataset == "idc":
        return layouts.plan_idc(patches, groups, seed, nested_copy)
    if dataset == "breakhis":
        return layouts.plan_breakhis(patches, groups, seed, real_proportions)
    return layouts.plan_pcam(patches, groups, seed)


def draw(dataset: str, plan: DrawingPlan, drawing: Drawing, seed: int) -> NDArray[np.uint8]:
    """Draws one image of a plan: uint8 array (height, width, 3), RGB."""
    pixels = tissue.draw(
        _signature(dataset, drawing.group, seed),
        drawing.pattern,
        plan.size,
        drawing.radius,
        textures.textures(_TEXTURE_SIZE[dataset], drawing.radius, seed),
        np.random.default_rng([seed, 12, _code(dataset), drawing.key]),
        plan.centre,
        drawing.surround,
    )
    return np.ascontiguousarray(pixels[: drawing.height, : drawing.width])


@functools.lru_cache(maxsize=256)
def _signature(dataset: str, group: int, seed: int) -> stain.Signature:
    return stain.signature(np.random.default_rng([seed, 11, _code(dataset), group]))


def _code(dataset: str) -> int:
    return list(DEFAULTS).index(dataset)


def _encode(pixels: NDArray[np.uint8], suffix: str) -> bytes:
    import imagecodecs
    import tifffile

    if suffix == ".png":
        return bytes(imagecodecs.png_encode(pixels, level=1))
    buffer = io.BytesIO()  # TIFF, uncompressed as PCam is, and without a date: equal pixels are equal bytes
    tifffile.imwrite(buffer, pixels, photometric="rgb", metadata={}, software="histoline synth")
    return buffer.getvalue()


def _draw_chunk(dataset: str, plan: DrawingPlan, root: Path, seed: int) -> int:
    """Draws and writes the drawings of a (partial) plan; returns how many."""
    for drawing in plan.drawings:
        data = _encode(draw(dataset, plan, drawing, seed), plan.suffix)
        for path in drawing.paths:
            (root / path).write_bytes(data)
    return len(plan.drawings)


def _chunks(dataset: str, plan: DrawingPlan) -> Iterator[DrawingPlan]:
    step = _CHUNK[dataset]
    for start in range(0, len(plan.drawings), step):
        yield dataclasses.replace(plan, drawings=plan.drawings[start : start + step], texts={})


def _write(
    dataset: str,
    plan: DrawingPlan,
    root: Path,
    seed: int,
    workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Draws a plan into an existing folder."""
    total = len(plan.drawings)
    for folder in sorted({os.path.dirname(path) for drawing in plan.drawings for path in drawing.paths}):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, text in plan.texts.items():
        (root / name).write_text(text, encoding="utf-8")
    chunks = list(_chunks(dataset, plan))
    # A process costs a second to start and as much again for its textures.
    workers = min(workers or len(os.sched_getaffinity(0)), max(1, len(chunks) // 4))
    done = 0
    if workers == 1:
        for chunk in chunks:
            done += _draw_chunk(dataset, chunk, root, seed)
            if progress:
                progress(done, total)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        waiting: set[Future[int]] = {pool.submit(_draw_chunk, dataset, chunk, root, seed) for chunk in chunks}
        try:
            while waiting:
                finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                done += sum(future.result() for future in finished)
                if progress:
                    progress(done, total)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _mark(dataset: str, plan: DrawingPlan, seed: int) -> dict[str, Any]:
    facts = {"images": len(plan.drawings), "groups": plan.groups, "seed": seed}
    return {"made_by": f"histoline synth {dataset}, version {__version__}", **facts}


def _check_output(output: Path) -> None:
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise UsageError(f"{str(output)!r} is not a folder.", "Name a new or an empty folder.")
    try:
        if output.is_dir() and any(output.iterdir()):
            raise UsageError(
                f"The folder {str(output)!r} is not empty, and synth never writes over what is there.",
                "Name a new folder, or empty this one first.",
            )
    except PermissionError as error:
        raise _explained(error, output) from error


def _explained(error: OSError, output: Path) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return TemporaryError(
            f"The disk of {str(output)!r} is full; nothing was kept.",
            "Free some space, or ask for fewer --patches.",
        )
    return UsageError(f"synth can't write to {str(output)!r}: {error}.", "Name a folder that can be written.")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _summary(dataset: str, output: Path, plan: DrawingPlan, seed: int) -> Summary:
    labels = [drawing.label for drawing in plan.drawings]
    holders = {(drawing.group, drawing.label) for drawing in plan.drawings}
    return Summary(
        dataset=dataset,
        output=output,
        images=sum(len(drawing.paths) for drawing in plan.drawings),
        per_class=(labels.count(0), labels.count(1)),
        unlabelled=labels.count(-1),
        groups=plan.groups,
        groups_per_class=(
            sum(1 for _, label in holders if label == 0),
            sum(1 for _, label in holders if label == 1),
        ),
        copies=sum(len(drawing.paths) - 1 for drawing in plan.drawings),
        narrow=sum((drawing.width, drawing.height) != plan.size for drawing in plan.drawings),
        files=tuple(sorted(plan.texts)),
        seed=seed,
    )
