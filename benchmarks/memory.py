"""Peak memory of a process tree."""

from __future__ import annotations

import subprocess
import time
from typing import Any

import psutil

EVERY = 0.02
"""Seconds between samples."""


def _of(pid: int) -> tuple[int, int]:
    """(PSS, RSS) of one process in bytes; zeros once it is gone."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            lines = dict(line.split(":", 1) for line in file if line.startswith(("Pss:", "Rss:")))
    except (OSError, ValueError):
        return 0, 0
    return tuple(int(lines[name].split()[0]) << 10 if name in lines else 0 for name in ("Pss", "Rss"))  # type: ignore[return-value]


def peak(process: subprocess.Popen[Any]) -> dict[str, Any]:
    """Watches a process and its descendants until it ends.

    Returns:
        `pss_mb` and `rss_mb`: largest sums over the tree, in 10^6 bytes. PSS counts a page that n processes share
        as 1/n in each, so its sum is what the tree really takes; a sum of RSS counts shared pages n times.
        `at_peak_mb`: PSS of each process at that moment, largest first.
    """
    started = time.monotonic()
    root = psutil.Process(process.pid)
    pids, pss, rss, at_peak, when, samples, listed = [process.pid], 0, 0, [0], 0.0, 0, 0.0
    while process.poll() is None:
        now = time.monotonic()
        if now - listed > 5 * EVERY:
            try:
                pids, listed = [process.pid, *(child.pid for child in root.children(recursive=True))], now
            except psutil.Error:
                break
        sizes = [_of(pid) for pid in pids]
        total = sum(size for size, _ in sizes)
        rss = max(rss, sum(size for _, size in sizes))
        if total > pss:
            pss, when, at_peak = total, now - started, sorted((size for size, _ in sizes), reverse=True)
        samples += 1
        time.sleep(max(0.0, EVERY - (time.monotonic() - now)))
    process.wait()
    return {
        "pss_mb": pss / 1e6,
        "rss_mb": rss / 1e6,
        "at_peak_mb": [size / 1e6 for size in at_peak if size],
        "peak_after_s": when,
        "samples": samples,
        "wall_s": time.monotonic() - started,
    }
