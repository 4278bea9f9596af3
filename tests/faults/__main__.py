"""All of the fault list, in full: `make faults`.

    python -m tests.faults            # every row, every n, every law with more examples, a minute of fuzz

Prints what was tried and what held, and ends with 1 where something did not.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.faults import every_n, fuzz
from tests.faults.fault import Fault, Ground, Skipped
from tests.faults.fault_list import FAULTS
from tests.faults.fault_list_processes import SLOW

LAWS = "tests/faults/test_any_input.py"


def rows(faults: tuple[Fault, ...]) -> tuple[int, int]:
    """Tries every row; how many, and how many held."""
    tried = held = 0
    with tempfile.TemporaryDirectory() as folder:
        ground = Ground(Path(folder).resolve())
        for fault in faults:
            with ground.place() as place:
                try:
                    problems = fault.problems(place)
                except Skipped as why:
                    print(f"skipped: {fault.name}: {why}")
                    continue
            tried, held = tried + 1, held + (not problems)
            for problem in problems:
                print(f"did not hold: {fault.name}: {problem}")
    return tried, held


def main() -> int:
    """Tries all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", action="store_true", help="the rows of the list alone")
    parser.add_argument("--times", type=int, default=10, help="times as many examples of each law as in the tests")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the fuzz of decoders")
    options = parser.parse_args()
    total, good = rows(FAULTS + SLOW)
    print(f"rows of the fault list: {total} tried, {good} held", flush=True)
    if not options.rows:
        tried, held = every_n.everything()
        total, good = total + tried, good + held
        print(f"fail at every n: {tried:,} tried, {held:,} held", flush=True)
        environment = {**os.environ, "HISTOLINE_EXAMPLES_TIMES": str(options.times)}
        laws = [sys.executable, "-m", "pytest", "-n", "0", "-q", "--co", LAWS]
        count = subprocess.run(laws, capture_output=True, text=True).stdout.count("::")
        laws.remove("--co")
        done = subprocess.run([*laws, "--tb=short"], env=environment, capture_output=True, text=True)
        failed = done.stdout.count("\nFAILED ")
        print(done.stdout if done.returncode else "", end="")
        failed = failed or (count if done.returncode else 0)
        total, good = total + count, good + count - failed
        print(f"laws, {options.times} times as many examples: {count} tried, {count - failed} held", flush=True)
        told = fuzz.run(fuzz.corpus_here(), seed=3, cases=10**9, seconds=options.seconds)
        for finding in told.findings:
            print(finding)
        total, good = total + told.tried, good + told.tried - len(told.findings)
        print(f"damaged images: {told.line()}")
    print(f"{total:,} tried, {good:,} held")
    return int(good != total)


if __name__ == "__main__":
    sys.exit(main())
