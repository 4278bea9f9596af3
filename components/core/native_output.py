"""What native libraries write to the terminal past Python, caught."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

LIMIT = 2000
_one_at_a_time = threading.Lock()


@contextlib.contextmanager
def caught_output() -> Iterator[list[str]]:
    """Catches what is written to standard error below Python, such as libpng's and libtiff's warnings.

    Only for a moment and for rare work: the descriptor is the whole process's, so what other threads write meanwhile
    is caught too, and a second block waits for the first.

    Yields:
        A list that has the lines when the block has ended, at most `LIMIT` bytes of them.
    """
    lines: list[str] = []
    if not hasattr(os, "memfd_create"):  # outside Linux
        yield lines
        return
    with _one_at_a_time:
        memory = os.memfd_create("stderr", os.MFD_CLOEXEC)
        try:
            kept = os.dup(2)
        except OSError:  # closed
            os.close(memory)
            yield lines
            return
        try:
            os.dup2(memory, 2)
            yield lines
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            text = os.pread(memory, LIMIT, 0).decode("utf-8", "replace")
            os.close(memory)
            lines += [line.strip() for line in text.splitlines() if line.strip()]
