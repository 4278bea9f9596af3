"""Helper processes that write shards on this machine.

Threads share one interpreter lock, and the fastest PNG decoder holds it (docs/decisions/0004), so on one machine
shards are written by processes. They are forked before Beam is imported: small, ready at once, and able to plan
while the parent still imports. On a worker of a cluster, where this pool does not exist, a DoFn uses threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from components.errors import DataError, HistolineError, TemporaryError, UsageError

_pool: ProcessPoolExecutor | None = None
_listener: Callable[[Any], None] | None = None
_failure: BaseException | None = None

PR_SET_PDEATHSIG = 1


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
    from threadpoolctl import threadpool_limits

    import components.images.colour_features  # noqa: F401 - loads NumPy and with it the library

    threadpool_limits(1, "blas")


def _start(parent: int) -> None:
    """Runs first in each helper: dies with its parent, leaves Ctrl-C to it, uses one core."""
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
    import pyarrow as pa

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    import components.ingest.shard_writer  # noqa: F401 - imported here so that the first job need not

    keep_blas_to_one_thread()


def _warm() -> int:
    time.sleep(0.05)  # keeps this helper busy while the others are started
    return os.getpid()


@contextlib.contextmanager
def helper_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Forks `workers` helper processes, all of them at once, and makes them the pool of this process.

    Must be entered before threads are started (Beam, gRPC). On an error or Ctrl-C they are killed, not waited for.

    Raises:
        TemporaryError: A helper was killed, by a lack of memory most often.
    """
    global _pool
    method = "fork" if sys.platform == "linux" else "spawn"
    context = multiprocessing.get_context(method)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(os.getpid(),))
    _pool = pool
    try:
        for _ in range(workers):
            pool.submit(_warm)
        yield pool
    except BrokenProcessPool as error:
        raise TemporaryError(
            "A helper process was killed (by the system for lack of memory, or by hand).",
            "Run again: finished shards are kept. Use fewer --workers if memory is short.",
        ) from error
    finally:
        # All results are in, or nobody waits for them any more: helpers hold nothing that a kill could harm.
        _pool = None
        for process in list((pool._processes or {}).values()):
            process.kill()
        pool.shutdown(wait=False, cancel_futures=True)


def shard_executor(threads: int) -> tuple[Executor, bool]:
    """Where a DoFn runs its shards: this process's helpers, else threads of its own.

    Returns:
        The executor, and whether the caller has to shut it down.
    """
    if _pool is not None:
        return _pool, False
    keep_freed_memory()
    keep_blas_to_one_thread()
    return ThreadPoolExecutor(threads), True


@contextlib.contextmanager
def listening(listener: Callable[[Any], None]) -> Iterator[None]:
    """Calls `listener` with each shard that a DoFn finishes in this process (none are seen on remote workers)."""
    global _listener, _failure
    _listener, _failure = listener, None
    try:
        yield
    except Exception as error:
        # Beam wraps what a DoFn raises; the user is told the first cause.
        cause = _failure or first_cause(str(error))
        if cause is not None and error is not cause:
            raise cause from None
        raise
    finally:
        _listener = None


def first_cause(text: str) -> HistolineError | None:
    """The error of ours that a remote worker's traceback ends with, which is all that comes back from there."""
    kinds = {kind.__name__: kind for kind in (UsageError, DataError, TemporaryError)}
    found = re.search(rf"^components\.errors\.({'|'.join(kinds)}): (.*?)(?: \[while running .*)?$", text, re.MULTILINE)
    return kinds[found[1]](found[2]) if found else None


def finished(result: Any) -> None:
    """Tells the listener of this process."""
    if _listener is not None:
        _listener(result)


def failed(error: BaseException) -> None:
    """Remembers the first cause of a failing job."""
    global _failure
    if _failure is None:
        _failure = error
