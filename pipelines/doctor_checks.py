"""`histoline doctor`: what this machine has, what it lacks, and how to mend it.

Every check is a function of what was read from the machine, so that failing machines can be tested on any.
Nothing is imported to find out whether it is there: TensorFlow alone would cost seconds.
"""

from __future__ import annotations

import fcntl
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parents[1]
GIB = 1024**3

# An ingest needs little (it streams); TFX with TensorFlow holds about 1.5 GB before the first image.
MEMORY_WANTED_GIB = 4.0
# Room for one data set of the largest kind known here (PCam: 220,025 raw patches of 27.6 KB, 6 GB).
DISK_WANTED_GIB = 10.0
DISK_NEEDED_GIB = 1.0
# Each Beam worker holds open shards, pipes and sockets; 1,024 is what most systems grant.
DESCRIPTORS_WANTED = 1024
# cuDNN as TensorFlow 2.16 loads it, from the packages of `tensorflow[and-cuda]`.
CUDA_PACKAGE = "nvidia-cudnn-cu12"

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What was looked at, in a word or two.
        status: `ok`; `warn` (works, but slower or not everything); `fail` (some command will not work).
        finding: What was found.
        fix: What to do about it; empty where nothing needs doing.
    """

    name: str
    status: Status
    finding: str
    fix: str = ""


def check_python(version: tuple[int, ...], executable: str = sys.executable) -> Check:
    """Checks the interpreter: TFX 1.16 runs on Python 3.10 at most, Beam 2.74 on 3.10 at least."""
    finding = f"{'.'.join(map(str, version[:3]))} at {executable}"
    if tuple(version[:2]) != (3, 10):
        return Check("python", "fail", finding, "Run `make setup` and use .venv/bin/histoline (Python 3.10).")
    return Check("python", "ok", finding)


def normal_name(name: str) -> str:
    """Package name as PEP 503 compares it: lower case, runs of `-`, `_` and `.` as one `-`."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked_versions(lock: str) -> dict[str, str]:
    """Reads the pins of a requirements file.

    Args:
        lock: Text of the lock; continuation lines (hashes) and comments are skipped.

    Returns:
        Version by normalised package name.
    """
    pin = r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==([^\s;\\]+)"
    found = re.finditer(pin, lock, flags=re.MULTILINE)
    return {normal_name(match[1]): match[2] for match in found}


def installed_versions() -> dict[str, str]:
    """Version by normalised name of every distribution on the path; the first on the path counts."""
    versions: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name:  # a half-removed package leaves a folder without a name
            versions.setdefault(normal_name(name), distribution.version)
    return versions


def check_packages(locked: Mapping[str, str], installed: Mapping[str, str]) -> Check:
    """Compares installed packages with the lock: a missing one fails, another version is a warning."""
    missing = sorted(name for name in locked if name not in installed)
    other = sorted(name for name in locked if name in installed and installed[name] != locked[name])
    if missing:
        finding = f"{len(missing)} of {len(locked)} locked packages are missing: {_some(missing)}"
        return Check("packages", "fail", finding, "Run `make setup`.")
    if other:
        differing = [f"{name} {installed[name]} (lock: {locked[name]})" for name in other]
        finding = f"{len(other)} of {len(locked)} packages differ from the lock: {_some(differing)}"
        return Check("packages", "warn", finding, "Run `make setup` for the tested versions.")
    return Check("packages", "ok", f"{len(locked)} packages as locked")


def _some(names: list[str], limit: int = 5) -> str:
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


def check_cores(cores: int) -> Check:
    """Tells how many cores this process may use; one is enough, slowly."""
    if cores < 2:
        return Check("cores", "warn", "1 core: ingest and training will be slow", "Allow at least 2 cores.")
    return Check("cores", "ok", f"{cores} cores")


def check_memory(total: int) -> Check:
    """Checks the memory that this process may use.

    Args:
        total: Bytes of physical memory, or of the container's limit where that is lower.
    """
    finding = f"{total / GIB:.1f} GiB"
    if total < MEMORY_WANTED_GIB * GIB:
        fix = f"Ingest works; training wants {MEMORY_WANTED_GIB:g} GiB."
        return Check("memory", "warn", finding, fix)
    return Check("memory", "ok", finding)


def check_descriptors(soft: int, hard: int) -> Check:
    """Checks the limit on open files (-1: none)."""
    finding = "no limit" if soft < 0 else f"{soft} open files"
    if 0 <= soft < DESCRIPTORS_WANTED:
        if 0 <= hard < DESCRIPTORS_WANTED:
            fix = f"Have the hard limit ({hard}) raised to {DESCRIPTORS_WANTED} (limits.conf or container)."
        else:
            fix = f"Run `ulimit -n {DESCRIPTORS_WANTED}` in this shell first."
        return Check("open files", "warn", finding, fix)
    return Check("open files", "ok", finding)


def check_disk(free: int, folder: Path) -> Check:
    """Checks the free space of the workspace's file system.

    Args:
        free: Bytes that an ordinary user may still write.
        folder: Where it was measured, for the finding.
    """
    finding = f"{free / GIB:.1f} GiB free at {folder}"
    fix = "Free some space, run `histoline prune`, or choose another --workspace."
    if free < DISK_NEEDED_GIB * GIB:
        return Check("disk", "fail", finding, fix)
    if free < DISK_WANTED_GIB * GIB:
        return Check("disk", "warn", finding, fix)
    return Check("disk", "ok", finding)


def check_write(folder: Path) -> Check:
    """Does once, in a throw-away folder, what every commit does: write, lock, fsync and rename.

    Args:
        folder: An existing folder. A network file system without flock is found here, not in mid-run.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".histoline-doctor-", dir=folder) as scratch:
            path = Path(scratch) / "probe"
            with path.open("wb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.write(b"probe")
                file.flush()
                os.fsync(file.fileno())
            path.replace(path.with_name("renamed"))
    except OSError as error:
        fix = "Make it writable for you, or choose another --workspace."
        finding = f"cannot write, lock and rename in {folder}: {error.strerror or error}"
        return Check("write access", "fail", finding, fix)
    return Check("write access", "ok", f"{folder} can be written, locked and renamed in")


def check_gpu(devices: str | None, installed: Mapping[str, str], system_cudnn: bool) -> Check:
    """Checks whether TensorFlow could use the GPUs that the driver shows.

    Args:
        devices: What nvidia-smi lists, a line for each GPU; None where there is no driver.
        installed: Version by normalised package name.
        system_cudnn: Whether the system's library path holds cuDNN.
    """
    lines = [line.strip() for line in (devices or "").splitlines() if line.strip()]
    if not lines:
        return Check("gpu", "ok", "no NVIDIA GPU: training runs on the CPU")
    finding = "; ".join(lines)
    if CUDA_PACKAGE not in installed and not system_cudnn:
        version = installed.get("tensorflow", "2.16.2")
        fix = f"Install CUDA for TensorFlow: pip install 'tensorflow[and-cuda]=={version}'"
        return Check("gpu", "warn", f"{finding}; TensorFlow has no CUDA libraries and will not use it", fix)
    return Check("gpu", "ok", finding)


def check_tensorflow(completed: subprocess.CompletedProcess[str], gpus_listed: int) -> Check:
    """Judges a process that imported TensorFlow and printed how many GPUs it sees (`--deep`)."""
    if completed.returncode != 0:
        last = (completed.stderr.strip().splitlines() or [f"exit status {completed.returncode}"])[-1]
        return Check("tensorflow", "fail", f"cannot be imported: {last}", "Run `make setup`.")
    seen = int(completed.stdout.split()[-1])
    finding = f"imports; sees {seen} of {gpus_listed} GPUs"
    if seen < gpus_listed:
        fix = "Compare the driver's CUDA version (nvidia-smi) with the one that TensorFlow 2.16 needs (12.3)."
        return Check("tensorflow", "warn", finding, fix)
    return Check("tensorflow", "ok", finding)


def check_java(version: str | None) -> Check:
    """Tells the Java found; only Beam's job servers for Flink and Spark need one, so none is no fault."""
    if version is None:
        return Check("java", "ok", "none: needed only for the Flink and Spark runners")
    return Check("java", "ok", version)


def existing_parent(path: Path) -> Path:
    """The path itself if it exists, else its nearest parent that does: a workspace is made at first use."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def memory_limit(physical: int, cgroup_files: tuple[Path, ...]) -> int:
    """Bytes that this process may use.

    Args:
        physical: Bytes of the machine.
        cgroup_files: Where a container's limit may stand (cgroup 2, then 1); absent and `max` mean none.
    """
    limit = physical
    for path in cgroup_files:
        try:
            limit = min(limit, int(path.read_text().strip()))
        except (OSError, ValueError):
            continue
    return limit


def run_checks(workspace: Path | None, deep: bool = False, lock: Path | None = None) -> list[Check]:
    """Looks at this machine.

    Args:
        workspace: Folder whose disk and write access are checked; None leaves both out (a bucket).
        deep: Also import TensorFlow in a process of its own and count the GPUs that it sees (seconds).
        lock: The lock to compare packages with; by default the project's, where there is one.

    Returns:
        The checks in the order in which one would mend them.
    """
    lock = lock or ROOT / "requirements.lock"
    installed = installed_versions()
    checks = [check_python(sys.version_info[:3])]
    if lock.is_file():
        checks.append(check_packages(locked_versions(lock.read_text(encoding="utf-8")), installed))
    checks.append(check_cores(len(os.sched_getaffinity(0))))
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cgroup = Path("/sys/fs/cgroup")
    limits = (cgroup / "memory.max", cgroup / "memory" / "memory.limit_in_bytes")
    checks.append(check_memory(memory_limit(physical, limits)))
    checks.append(check_descriptors(*resource.getrlimit(resource.RLIMIT_NOFILE)))
    if workspace is not None:
        checks.extend(_workspace_checks(workspace))
    devices = _output(["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"])
    checks.append(check_gpu(devices, installed, _has_library("libcudnn.so")))
    if deep:
        checks.append(check_tensorflow(_count_gpus(), len((devices or "").splitlines())))
    checks.append(check_java(_output(["java", "-version"], first_line=True)))
    return checks


def _workspace_checks(workspace: Path) -> list[Check]:
    folder = existing_parent(workspace)
    if not folder.is_dir():
        finding = f"{folder} is a file, so {workspace} cannot be a workspace"
        return [Check("write access", "fail", finding, "Choose another --workspace.")]
    return [check_disk(shutil.disk_usage(folder).free, folder), check_write(folder)]


def _output(command: list[str], first_line: bool = False) -> str | None:
    """What a command prints (stdout, else stderr: Java), or None where it is absent, fails or hangs."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    text = (done.stdout.strip() or done.stderr.strip()) or None
    return text.splitlines()[0] if text and first_line else text


def _has_library(stem: str) -> bool:
    """Whether the loader's cache or LD_LIBRARY_PATH holds a library."""
    cache = _output(["/sbin/ldconfig", "-p"])
    if cache and stem in cache:
        return True
    folders = [Path(part) for part in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if part]
    return any(folder.is_dir() and any(folder.glob(f"{stem}*")) for folder in folders)


def _count_gpus() -> subprocess.CompletedProcess[str]:
    code = "import tensorflow as tf; print(len(tf.config.list_physical_devices('GPU')))"
    command = [sys.executable, "-W", "ignore", "-c", code]
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", "importing TensorFlow took more than 180 s")
