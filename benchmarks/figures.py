"""Writes docs/figures.md from the result files in benchmarks/results/.

    python benchmarks/figures.py [--check]

A result file holds one figure by name: what, value, date, commit, machine, `busy` where others used the machine, and
`carried` where no benchmark wrote it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "figures.md"

HEAD = """# Figures

Made by `.venv/bin/python benchmarks/figures.py` from `benchmarks/results/`; each row says when, on
which commit and on which machine it was measured. [benchmarks/README.md](../benchmarks/README.md) says what is counted.

Files are in the page cache. The machine is a shared virtual one whose speed changes by a third within hours: look at
the ratios, each taken within one run, rather than at the seconds.
"""

SECTIONS = {
    "ingest": (
        "Ingest",
        "The bare loop reads, decodes, measures, hashes and writes the same records with all cores, and nothing else:"
        " no plan, audit, tables or fsync. Bare loop / ingest is 1 where the ingest costs nothing beyond it. Naive Beam"
        " and TensorFlow Datasets neither measure, hash nor audit.",
    ),
    "scale": ("Millions of patches", "What one process needs before and after shards are written; no image is read."),
    "features": ("Colour features", "Computed once, at the ingest."),
    "models": (
        "Models",
        "Real IDC subset of 5,737 patches, test split of 33 patients that no model has seen, 95 % intervals by patient,"
        " as `run.json` of `histoline train idc --preset NAME` holds them (no benchmark: whole trainings), each as the"
        " first look at this split in a workspace of its own. The three that were trained from scratch or from a small"
        " MobileNetV2 are not shown to beat gradient boosting on ten colour features, so the gate refused them: this"
        " subset is small, and colour says much. The defaults of the data sets are what did best on eval in these"
        " sweeps.",
    ),
    "reading": ("Reading and training", "How many times as many images in a second as the other."),
    "prediction": ("Prediction", "Images in a second, as a share of what the bare model does."),
    "engines": (
        "Engines",
        "Ingest on workers of an engine, all of them on this one machine: the rate per patch as a share of that of"
        " `--engine local`, and what an ingest costs before its first patch. Dask's workers are processes, Prism's are"
        " threads of one process. A line through two sizes, run once each: rough, and above 1 it is noise, since both"
        " have the same two cores. What a cluster gives has not been measured.",
    ),
    "report": ("Report", ""),
}


def figures(folder: Path = RESULTS) -> dict[str, dict[str, str]]:
    """All figures by name, in the order of the files and of the figures in them.

    Raises:
        SystemExit: A figure stands in two files, or in a section that the page does not have.
    """
    found: dict[str, dict[str, str]] = {}
    for file in sorted(folder.glob("*.json")):
        for name, figure in json.loads(file.read_text(encoding="utf-8")).items():
            if name in found or name.split("/")[0] not in SECTIONS:
                raise SystemExit(f"{file.name}: {name} stands in another file too, or is of no known section")
            found[name] = figure
    return found


def page(found: dict[str, dict[str, str]]) -> str:
    """The page in Markdown."""
    parts, carried = [HEAD], False
    for section, (title, text) in SECTIONS.items():
        rows = [figure for name, figure in found.items() if name.split("/")[0] == section]
        if not rows:
            continue
        parts.append(f"## {title}\n" + (f"\n{text}\n" if text else ""))
        lines = ["| what | figure | measured |", "|---|---|---|"]
        for row in rows:
            mark = " †" if "carried" in row else ""
            carried |= bool(mark)
            measured = [row[part] for part in ("date", "commit", "machine", "busy") if part in row]
            lines.append(f"| {row['what']} | {row['value']}{mark} | {', '.join(measured)} |")
        parts.append("\n".join(lines) + "\n")
    if carried:
        notes = sorted({row["carried"] for row in found.values() if "carried" in row})
        parts.append("† Carried over by hand: " + " ".join(notes) + "\n")
    return "\n".join(parts)


def main() -> None:
    """Writes the page, or checks it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the page is not up to date")
    given = parser.parse_args()
    made = page(figures())
    if not given.check:
        PAGE.write_text(made, encoding="utf-8")
    elif made != PAGE.read_text(encoding="utf-8"):
        sys.exit(f"{PAGE.relative_to(ROOT)} is not what the results say: run .venv/bin/python benchmarks/figures.py")


if __name__ == "__main__":
    main()
