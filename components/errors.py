"""Errors that reach the user, each with the exit code that tells a scheduler whether a retry can help."""

from __future__ import annotations

from typing import Any

EXIT_OK = 0
EXIT_USAGE = 64
EXIT_DATA = 65
EXIT_BUG = 70
EXIT_TEMPORARY = 75


class HistolineError(Exception):
    """Base of every error that is told to the user as one paragraph.

    Args:
        what: What is wrong and where, in one or two sentences.
        fix: What to do about it, in one sentence; empty where nothing can be advised.
    """

    exit_code = EXIT_BUG

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(f"{what} {fix}".strip())
        self.what = what
        self.fix = fix

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors cross process borders (helper processes, Beam workers) and must come back as what they are.
        return (type(self), (self.what, self.fix))


class UsageError(HistolineError):
    """Wrong usage or input that only a person can put right (exit 64); retrying is useless."""

    exit_code = EXIT_USAGE


class DataError(HistolineError):
    """The data failed a check (exit 65)."""

    exit_code = EXIT_DATA


class TemporaryError(HistolineError):
    """Something that may be gone at the next try: a lock, a full disk, a killed worker (exit 75)."""

    exit_code = EXIT_TEMPORARY
