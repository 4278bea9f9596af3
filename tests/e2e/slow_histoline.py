#!/usr/bin/env python3
"""Stands for `histoline` where faults are tried: takes its time, holds a lock as the real one does, keeps a journal.

The journal HISTOLINE_TEST_JOURNAL gets a line for each `begin`, `end` and `overlap` (a begin while an earlier process
lives: two at once into the same output).
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path


def alive(pid: int) -> bool:
    """Says whether a process lives; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def main() -> None:
    """One step: `slow_histoline.py ingest DATASET --...`."""
    stage, dataset = sys.argv[1:3]
    journal = Path(os.environ["HISTOLINE_TEST_JOURNAL"])
    subprocess.Popen(["sleep", "900"])  # a helper, which must not live on
    with open(journal.with_suffix(f".{dataset}.lock"), "a") as lock:
        deadline = time.monotonic() + 60
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    print("error: another try holds the lock", file=sys.stderr)
                    sys.exit(75)
                time.sleep(0.2)
        began = [line.split() for line in journal.read_text().splitlines()] if journal.exists() else []
        living = [line for line in began if line[0] == "begin" and line[1] == dataset and alive(int(line[2]))]
        with open(journal, "a") as file:
            print("overlap" if living else "begin", dataset, os.getpid(), file=file, flush=True)
            end = time.monotonic() + float(os.environ["HISTOLINE_TEST_SECONDS"])
            while time.monotonic() < end:
                print(json.dumps({"level": "info", "msg": f"{stage} {dataset} goes on"}), file=sys.stderr, flush=True)
                time.sleep(1)
            print("end", dataset, os.getpid(), file=file, flush=True)
    result = {
        "state": "committed", "task": "binary", "plan_id": "0" * 16, "content_digest": "0" * 64,
        "dataset_dir": f"datasets/{dataset}/binary/{'0' * 16}", "is_latest": False,
    }  # fmt: skip
    Path(os.environ["HISTOLINE_RESULT_JSON"]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
