"""Damaged PNG and TIFF files by the thousand: our decoders give Pillow's pixels or refuse; they never crash or hang.

    python -m tests.faults.fuzz --seconds 600      # make fuzz SECONDS=600

Cases run in child processes, so that a crash of a native library is seen, and a hang is ended.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import functools
import io
import json
import logging
import mmap
import multiprocessing
import os
import resource
import signal
import struct
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from components.core.native_output import caught_output
from components.core.rejects import Rejected
from components.images.decode import decode_rgb8
from components.images.formats import MAX_PIXELS
from tests.faults.damaged_images import Seed, case, drawn, real

MEMORY = 6 << 30
"""Bytes of address space that a child may have: who takes more for a small file is at fault."""

HANG_SECONDS = 20.0
BATCH = 400
"""Cases of one child."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """A case that did not hold.

    Attributes:
        number: Of the case; with the seed of the run it makes the case again.
        kind: `crash`, `hang`, `error` (an exception that is no `Rejected`) or `pixels`.
        detail: More of it.
    """

    number: int
    kind: str
    detail: str


@dataclasses.dataclass
class Told:
    """What a run found.

    Attributes:
        tried: Cases.
        outcomes: How many were `same`, `refused` (with the code) or decoded by us where Pillow refused.
        findings: What did not hold.
    """

    tried: int = 0
    outcomes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    findings: list[Finding] = dataclasses.field(default_factory=list)

    def line(self) -> str:
        """One line for people."""
        held = self.tried - len(self.findings)
        same, refused = self.outcomes["same"], sum(n for k, n in self.outcomes.items() if k.startswith("refused"))
        other = self.outcomes["Pillow alone refuses"]
        return (
            f"{self.tried:,} tried, {held:,} held: {same:,} with Pillow's pixels, {refused:,} refused, "
            f"{other:,} decoded where Pillow refuses"
        )


def by_pillow(data: bytes, extension: str) -> np.ndarray:
    """RGB8 pixels as Pillow has them; raises what Pillow raises."""
    with Image.open(io.BytesIO(data), formats=["PNG" if extension == ".png" else "TIFF"]) as image:
        image.load()
        if image.mode.startswith("I"):  # 16-bit grey; ours takes exact multiples of 257 only
            return np.repeat((np.asarray(image).astype(np.int64) // 257).astype(np.uint8)[..., None], 3, axis=2)
        return np.asarray(image.convert("RGB"))


def judge(data: bytes, extension: str) -> tuple[str, str]:
    """(outcome, detail) of one file: `same`, `refused CODE`, `Pillow alone refuses`, `error` or `pixels`."""
    try:
        pixels = decode_rgb8(data, extension)
    except Rejected as reject:
        return f"refused {reject.code}", ""
    except BaseException as error:
        return "error", f"{type(error).__name__}: {error}"
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size > 3 * MAX_PIXELS:
        return "error", f"gave {pixels.dtype} {pixels.shape}"
    try:
        with caught_output(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = by_pillow(data, extension)
    except Exception as error:
        return "Pillow alone refuses", f"{type(error).__name__}: {error}"
    if expected.shape != pixels.shape:
        return "pixels", f"{pixels.shape} where Pillow has {expected.shape}"
    if not np.array_equal(expected, pixels):
        different = (expected != pixels).any(axis=2)
        return "pixels", f"{int(different.sum())} of {different.size} pixels are not Pillow's"
    return "same", ""


def _child(corpus: list[Seed], seed: int, first: int, count: int, place: mmap.mmap, results: Path) -> None:
    """Judges some cases; `place` holds the number of the one at hand."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable(logging.CRITICAL)
    with results.open("a", encoding="utf-8") as out:
        for number in range(first, first + count):
            place[:8] = struct.pack("<q", number)
            chosen, data = case(corpus, seed, number)
            outcome, detail = judge(data, chosen.extension)
            out.write(json.dumps([number, outcome, detail]) + "\n")
            out.flush()
    os._exit(0)


def _outcomes(results: Path) -> Iterator[tuple[int, str, str]]:
    for line in results.read_text(encoding="utf-8").splitlines():
        number, outcome, detail = json.loads(line)
        yield number, outcome, detail


def run(corpus: list[Seed], seed: int, cases: int, seconds: float = float("inf"), batch: int = BATCH) -> Told:
    """Tries cases one after the other, in children of this process.

    Args:
        corpus: What they are made of.
        seed: The same seed tries the same cases.
        cases: How many.
        seconds: No batch is begun later than this.
        batch: Cases of one child.
    """
    told, started, first = Told(), time.monotonic(), 0
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder, mmap.mmap(-1, 8) as place:
        results = Path(folder, "results")
        while first < cases and time.monotonic() - started < seconds:
            results.write_text("")
            count = min(batch, cases - first)
            place[:8] = struct.pack("<q", first)
            child = context.Process(target=_child, args=(corpus, seed, first, count, place, results))
            child.start()
            hung = _wait(child, place)
            for number, outcome, detail in _outcomes(results):
                told.tried += 1
                told.outcomes[outcome] += 1
                if outcome in ("error", "pixels"):
                    told.findings.append(Finding(number, outcome, detail))
            (at,) = struct.unpack("<q", place[:8])
            first += count
            if child.exitcode:
                told.tried += 1
                died = -(child.exitcode or 0)
                what = "no end" if hung else signal.Signals(died).name if died > 0 else f"exit {child.exitcode}"
                told.findings.append(Finding(at, "hang" if hung else "crash", what))
                first = at + 1
    return told


def _wait(child: multiprocessing.process.BaseProcess, place: mmap.mmap) -> bool:
    """Waits for a child, and ends it where one case takes too long: then True."""
    last, since = place[:8], time.monotonic()
    while child.is_alive():
        child.join(0.2)
        if place[:8] != last:
            last, since = place[:8], time.monotonic()
        elif time.monotonic() - since > HANG_SECONDS:
            child.kill()
            child.join()
            return True
    return False


def corpus_here() -> list[Seed]:
    """The drawn files, and real ones where the subsets are."""
    default = Path(__file__).resolve().parents[3] / "shared" / "data"
    return drawn() + real(Path(os.environ.get("HISTOLINE_SHARED_DATA", default)))


def main() -> int:
    """Prints what was tried; 1 where something did not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=10**9)
    parser.add_argument("--case", type=int, help="judge this case alone, in this process, and keep its file")
    parser.add_argument("--keep", type=Path, default=Path(".demo/fuzz"), help="folder for files of what did not hold")
    options = parser.parse_args()
    corpus = corpus_here()
    keep = functools.partial(_keep, options.keep, corpus, options.seed)
    if options.case is not None:
        chosen, data = case(corpus, options.seed, options.case)
        print(keep(options.case), f"of {chosen.name}:", *judge(data, chosen.extension))
        return 0
    told = run(corpus, options.seed, options.cases, options.seconds)
    for finding in told.findings:
        print(f"case {finding.number} (seed {options.seed}): {finding.kind}: {finding.detail}; {keep(finding.number)}")
    for outcome, count in told.outcomes.most_common():
        print(f"  {count:9,} {outcome}")
    print(told.line())
    return bool(told.findings)


def _keep(folder: Path, corpus: list[Seed], seed: int, number: int) -> Path:
    chosen, data = case(corpus, seed, number)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"case-{seed}-{number}{chosen.extension}"
    file.write_bytes(data)
    return file


if __name__ == "__main__":
    sys.exit(main())
