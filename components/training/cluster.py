"""The machines that train one model together, as TensorFlow's `TF_CONFIG` names them.

    TF_CONFIG='{"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}}'

The first one is the chief: it alone runs the other stages, and writes checkpoints, the exported model and run.json.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

from components.errors import UsageError

VARIABLE = "TF_CONFIG"
JOIN_VARIABLE, JOIN_SECONDS = "HISTOLINE_JOIN_SECONDS", 600.0
"""How long workers wait for each other to come, and for what one of them is late with."""

HEARTBEAT_SECONDS = 10.0
"""After which a worker that says nothing counts as lost."""

_EXAMPLE = (
    'Give {"cluster": {"worker": ["HOST:PORT", "HOST:PORT"]}, "task": {"type": "worker", "index": 0}},'
    " the same on every machine but for the index; or unset it."
)


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers, and which of them this process is.

    Attributes:
        workers: `host:port` of each, the chief first.
        index: Of this one.
    """

    workers: tuple[str, ...]
    index: int

    @property
    def chief(self) -> bool:
        """Whether this one writes what is kept."""
        return self.index == 0

    def to_text(self) -> str:
        """The same as a TF_CONFIG that names workers only."""
        task = {"type": "worker", "index": self.index}
        return json.dumps({"cluster": {"worker": list(self.workers)}, "task": task})

    def describe(self) -> str:
        """Which of how many, for people."""
        return f"worker {self.index} of {len(self.workers)}{' (chief)' if self.chief else ''}"


def read_cluster(environ: Mapping[str, str] | None = None) -> Cluster | None:
    """The cluster that TF_CONFIG describes; None where there is none, or only this process.

    Args:
        environ: Variables; those of this process by default.

    Raises:
        UsageError: It describes something else: damaged, parameter servers, an index without an address.
    """
    text = (os.environ if environ is None else environ).get(VARIABLE, "").strip()
    if not text:
        return None
    try:
        given = json.loads(text)
        jobs = {str(name): [str(one) for one in addresses] for name, addresses in given.get("cluster", {}).items()}
        task = given.get("task", {})
        kind, index = str(task.get("type", "worker")), int(task.get("index", 0))
    except (ValueError, TypeError, AttributeError):
        raise UsageError(f"{VARIABLE} is not what TensorFlow describes.", _EXAMPLE) from None
    return _cluster(jobs, kind, index)


def _cluster(jobs: Mapping[str, list[str]], kind: str, index: int) -> Cluster | None:
    unknown = sorted(set(jobs) - {"chief", "worker"})
    if unknown or (jobs and kind not in jobs):
        what = f"names the job {unknown[0]}" if unknown else f"calls this process {kind}, of which it names none"
        raise UsageError(f"{VARIABLE} {what}; only chief and worker train together.", _EXAMPLE)
    chiefs = jobs.get("chief", [])
    workers = (*chiefs, *jobs.get("worker", []))
    if len(chiefs) > 1 or len(set(workers)) < len(workers):
        raise UsageError(f"{VARIABLE} names more than one chief, or an address twice.", _EXAMPLE)
    if len(workers) < 2:
        return None
    if not 0 <= index < len(jobs[kind]):
        raise UsageError(f"{VARIABLE} has no {kind} with the index {index}.", _EXAMPLE)
    return Cluster(workers, index + (len(chiefs) if kind == "worker" else 0))


def join_seconds() -> float:
    """Returns HISTOLINE_JOIN_SECONDS, 600 by default.

    Raises:
        UsageError: It is no positive number.
    """
    text: Any = os.environ.get(JOIN_VARIABLE) or JOIN_SECONDS
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 86400:
        raise UsageError(f"{JOIN_VARIABLE} is {text!r}.", "Give a number of seconds, such as 600.")
    return seconds
