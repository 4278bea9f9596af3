"""What an engine says when it fails, told apart: an error of ours, a bug in our code, or trouble of the engine's."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from typing import Any

from components.errors import HistolineError, TemporaryError

_OF_ENGINES = re.compile(r"^(distributed|dask|grpc|tornado)\.|^concurrent\.futures\._base$")
_GONE = re.compile("worker .*(disconnected|terminat|lost|died)|control connection|connection refused|unavailable", re.I)


@contextlib.contextmanager
def engine_errors() -> Iterator[None]:
    """Turns the loss of a worker or of the engine into exit 75; leaves errors of ours and bugs as they are.

    What a worker raises is raised here too, text and all: Beam's log of it, a traceback before it, is left out.

    Raises:
        TemporaryError: A worker was lost, or the engine could not be reached any more.
    """
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    except HistolineError:
        raise
    except Exception as error:
        if not lost(error):
            raise
        said = " ".join(str(error).split())[:300].rstrip(".")
        raise TemporaryError(
            f"The engine lost a worker, or could not be reached any more: {type(error).__name__}: {said}.",
            "Run again: finished work is kept. The engine's own logs say more.",
        ) from error
    finally:
        logging.disable(level)


def run_elsewhere(pipeline: Any) -> None:
    """Runs a pipeline on an engine to its end.

    Args:
        pipeline: A `beam.Pipeline`.

    Raises:
        TemporaryError: A worker or the engine was lost.
    """
    with engine_errors():
        result = pipeline.run()
        try:
            result.wait_until_finish()
            # Beam's Dask runner takes a job for done whose scheduler is gone: its futures are cancelled, not failed.
            if any(future.status != "finished" for future in getattr(result, "futures", ())):
                raise ConnectionError("the Dask scheduler is gone")
        finally:
            if hasattr(result, "client"):
                result.client.close(timeout=2)


def lost(error: Exception) -> bool:
    """Whether an error is about the engine: its class is one of the engine's, or its text says so without a traceback.

    Args:
        error: What running a pipeline raised.
    """
    if _OF_ENGINES.match(type(error).__module__) or isinstance(error, ConnectionError | TimeoutError):
        return True
    text = str(error)
    if not isinstance(error, RuntimeError) or "Traceback (most recent call last)" in text:
        return False
    return bool(_GONE.search(text))
