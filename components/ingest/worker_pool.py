"""Helper processes that write shards on this machine.

Threads share one interpreter lock, and the fastest PNG decoder holds it (docs/decisions/0004), so on one machine
shards are written by processes. They are forked before Beam is imported: small, ready at once, and able to plan
while the parent still imports. On a worker of a cluster, where this pool does not exist, a DoFn uses threads.
"""

from __future__ import annotations

import contextlib
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

from components.core.machine import die_with_parent, keep_blas_to_one_thread, keep_freed_memory
from components.errors import DataError, HistolineError, TemporaryError, UsageError

MANAGER_SECONDS = 5.0

_pool: ProcessPoolExecutor | None = None
_listener: Callable[[Any], None] | None = None
_failure: BaseException | None = None


def _start(parent: int) -> None:
    """Runs first in each helper: dies with its parent, leaves Ctrl-C to it, uses one core."""
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent(parent)
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
        manager: Any = pool._executor_manager_thread
        for process in list((pool._processes or {}).values()):
            process.kill()
        pool.shutdown(wait=False, cancel_futures=True)
        if manager is not None:
            # It notices the deaths at once. Left to itself it may meet closed pipes when the interpreter ends.
            manager.join(MANAGER_SECONDS)


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
