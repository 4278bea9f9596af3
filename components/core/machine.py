"""What a process may use of this machine, and how it behaves there: cores, memory, BLAS threads, its parent's death."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def cores() -> int:
    """Cores that this process may use: those it may run on, and no more than its container is given."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(allowed, _quota() or allowed)


def _quota(file: str = "/sys/fs/cgroup/cpu.max") -> int:
    """Cores that a container's limit amounts to, rounded up; 0 where there is none (cgroup v2)."""
    try:
        with open(file, encoding="ascii") as limit:
            quota, period = limit.read().split()
        return 0 if quota == "max" else -(-int(quota) // int(period))
    except (OSError, ValueError):
        return 0


def keep_freed_memory() -> None:
    """Lets glibc keep the arrays of one block for the next: page faults cost as much as measuring a patch."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # absent outside glibc
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3
        mallopt(mmap_threshold, 32 << 20)  # the largest that glibc takes
        mallopt(trim_threshold, 256 << 20)


def give_memory_back() -> None:
    """Returns what is free in this process to the system: after a stage that needs far more than the next."""
    import pyarrow as pa

    pa.default_memory_pool().release_unused()
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # absent outside glibc
    if malloc_trim is not None:
        malloc_trim(0)


def keep_blas_to_one_thread() -> None:
    """Makes OpenBLAS use the calling thread only: shards are written in parallel, its own threads would just wait.

    Measured on 96x96 patches: a third of the time of a core, half of that of the machine.
    """
    import numpy  # noqa: F401 - loads the library
    from threadpoolctl import threadpool_limits

    threadpool_limits(1, "blas")


def die_with_parent(parent: int) -> None:
    """Ends this process with SIGKILL when its parent ends (Linux; elsewhere nothing happens).

    Args:
        parent: Its number, read in the parent: it may have ended before this call.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def exact_float32() -> None:
    """Makes float32 mean float32 in this process from now on; on GPUs since Ampere TensorFlow rounds to TF32 otherwise.

    For scoring, calibration and whatever is compared with them; TF32's error (1e-3) is above what the gate allows.
    """
    import tensorflow as tf

    tf.config.experimental.enable_tensor_float_32_execution(False)
