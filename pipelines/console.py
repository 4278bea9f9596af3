"""How commands speak: results on stdout (tables or one JSON document), everything else on stderr."""

from __future__ import annotations

import errno
import json
import os
import re
import select
import shlex
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import click

from components.core.text import nearest
from components.errors import EXIT_BUG, HistolineError, TemporaryError, UsageError
from components.storage.atomic_files import FORBIDDEN, FULL, PASSING
from pipelines.commands import COMMANDS

NAME = "histoline"
EXIT_INTERRUPTED = 130
LINE_EVERY_SECONDS = 5.0


def log(message: str, level: str = "info") -> None:
    """Writes one line to stderr; as {level, msg} where HISTOLINE_LOG_FORMAT=json."""
    if os.environ.get("HISTOLINE_LOG_FORMAT") == "json":
        click.echo(json.dumps({"level": level, "msg": message}), err=True)
    else:
        click.echo(runnable(message if level == "info" else f"{level}: {message}"), err=True)


def say(message: str) -> None:
    """Prints a line of a result on stdout."""
    click.echo(runnable(message))


def runnable(text: str) -> str:
    """The text with commands as this person can type them: who came here by make has no `histoline` on the PATH."""
    program = _program()
    if program == NAME or NAME not in text:
        return text
    return re.sub(rf"(?<![\w./-]){NAME} (?=(?:{'|'.join(COMMANDS)})\b)", lambda _: f"{program} ", text)


def _program() -> str:
    """What this program was started as: its name where the PATH leads to it, else its path."""
    typed = sys.argv[0]
    if os.path.basename(typed) != NAME or os.sep not in typed:  # a module, or a test
        return NAME
    found = shutil.which(NAME)
    if found and os.path.realpath(found) == os.path.realpath(typed):
        return NAME
    near = os.path.relpath(typed)
    return shlex.quote(typed if near.startswith(os.pardir) else near)


def emit(document: Any, as_json: bool, show: Callable[[], None]) -> None:
    """Prints a command's result: the document where --json was given, else what `show` prints."""
    if as_json:
        click.echo(json.dumps(document, indent=1, ensure_ascii=True, default=str))
    else:
        show()


def leave_result(document: Mapping[str, Any]) -> None:
    """Writes a command's result to the file that HISTOLINE_RESULT_JSON names, for a scheduler; nothing without it."""
    path = os.environ.get("HISTOLINE_RESULT_JSON")
    if path:
        temporary = f"{path}.{os.getpid()}"
        Path(temporary).write_text(json.dumps(document), encoding="utf-8")
        os.replace(temporary, path)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], right: Sequence[int] = ()) -> None:
    """Prints a table on stdout.

    Args:
        title: Heading.
        columns: Names.
        rows: Cells; shown by `str`, never read as markup.
        right: Columns to align right.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for number, name in enumerate(columns):
        grid.add_column(name, justify="right" if number in right else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(str(cell)) for cell in row))
    width = None if sys.stdout.isatty() else 160
    Console(highlight=False, width=width).print(grid)


class Progress:
    """Progress of long work: a bar on a terminal, elsewhere a line every few seconds.

    Args:
        what: What is being counted, such as `patches`.
        total: How many there are.
    """

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._done = what, total, 0
        self._started = self._last_line = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty() and os.environ.get("HISTOLINE_LOG_FORMAT") != "json":
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            rate = TextColumn("{task.fields[rate]}")
            columns = (TextColumn(self._what), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(self._what, total=self._total, rate="")
        return self

    def advance(self, n: int) -> None:
        """Counts n more."""
        self._done += n
        now = time.monotonic()
        rate = self._done / max(now - self._started, 1e-9)
        if self._bar is not None:
            self._bar.update(self._task, advance=n, rate=f"{rate:,.0f}/s")
        elif now - self._last_line >= LINE_EVERY_SECONDS:
            self._last_line = now
            left = (self._total - self._done) / max(rate, 1e-9)
            log(f"{self._what}: {self._done:,} of {self._total:,}, {rate:,.0f}/s, {left:,.0f} s left")

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def user_error(error: BaseException) -> HistolineError | None:
    """The error that the user gets as one paragraph; None for a bug, which gets a traceback."""
    if isinstance(error, HistolineError):
        return error
    if not isinstance(error, OSError):
        return None
    if error.errno in FULL:
        return TemporaryError(f"The disk is full: {error}.", "Free space and run again; what is finished is kept.")
    if error.errno in FORBIDDEN:
        return UsageError(f"{error.filename or 'A file'} can't be used: {error.strerror}.", "Check owner and mode.")
    if error.errno in PASSING:
        return TemporaryError(f"{error.filename or 'A file'} can't be read or written: {error.strerror}.", "Run again.")
    return None


def open_streams() -> None:
    """Gives the process what it lacks of stdin, stdout and stderr, leading nowhere.

    A descriptor that is closed (`>&-`) would be the next file's that is opened, and whoever prints would write there.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)  # the same number where all below are open
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))


def _silence(number: int) -> None:
    """Leads a stream to nowhere, so that Python's own last flush meets no error either."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)


def _reader_gone(number: int) -> bool:
    """Whether a descriptor is a pipe that nobody reads any more."""
    poll = select.poll()
    poll.register(number, select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0))


def run(command: Callable[[], Any]) -> int:
    """Runs a command and turns what goes wrong into a message and an exit code: 0, 64, 65, 70 or 75."""
    open_streams()
    try:
        code = _run(command)
        sys.stdout.flush()
        return code
    except OSError as error:  # what could not be said: the reader has left, or the disk behind stdout is full
        gone = [number for number in (1, 2) if _reader_gone(number)]
        if not gone and user_error(error) is None:
            raise
        for number in gone or [1]:
            _silence(number)
        if gone:
            return 0
        log(str(user_error(error)), "error")
        return TemporaryError.exit_code


def _wrong_usage(error: click.ClickException) -> str:
    """What click has to say, in one line as all other errors, with the command whose help explains it."""
    said = error.format_message().strip()
    context = getattr(error, "ctx", None)
    if isinstance(error, click.MissingParameter) and error.param is not None:
        # Commands that hand flags on to Beam take a mistyped option for one of them.
        typed = {argument.partition("=")[0] for argument in sys.argv[1:] if argument.startswith("--")}
        near = next((found for name in error.param.opts if (found := nearest(name, typed))), "")
        said += f" Is {near} a typing error?" if near else ""
    where = f" See: {context.command_path} --help" if context is not None else ""
    return f"{said}{'' if said.endswith(('.', '?')) else '.'}{where}"


def _run(command: Callable[[], Any]) -> int:
    try:
        command()
        sys.stdout.flush()
        return 0
    except SystemExit:  # click's own way to end where a pipe is closed
        if not (_reader_gone(1) or _reader_gone(2)):
            raise
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from None
    except click.exceptions.Exit as stop:
        return int(stop.exit_code)
    except click.ClickException as error:
        log(_wrong_usage(error), "error")
        return UsageError.exit_code
    except (KeyboardInterrupt, click.Abort):
        log("Interrupted. What is finished is kept: the same command, of the same run or sweep, goes on.", "error")
        return EXIT_INTERRUPTED
    except Exception as error:
        if isinstance(error, BrokenPipeError) and (_reader_gone(1) or _reader_gone(2)):
            raise
        problem = user_error(error)
        if problem is not None:
            log(str(problem), "error")
            return problem.exit_code
        log(traceback.format_exc().rstrip(), "error")
        log("This is a bug in histoline. Please report it with the lines above.", "error")
        return EXIT_BUG
