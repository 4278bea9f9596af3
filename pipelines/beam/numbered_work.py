"""Numbered work through Beam: an element is a number, and threads or helper processes do what it stands for."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue

from components.core import machine
from components.errors import UsageError
from components.ingest import worker_pool
from components.storage.shared_places import SharedPlaces
from pipelines.beam.flags import leaves_this_process


class NumberedWorkFn(beam.DoFn):
    """Does pieces of work by number, several at a time.

    Subclasses name their metrics, say how many pieces are handed out ahead, and where the work is done.

    Args:
        work: Called with the configuration and a number; gives a result that has `rejected` and `seconds`.
        config: What all pieces have in common.
        parallel: Pieces that one worker has under way; 0: what suits the machine that it is on.
        places: What a worker must see; None where the job stays in this process.
    """

    NAMESPACE, COUNTED, DURATION = "", "", ""
    """Of the metrics; COUNTED is the attribute of a result that is counted."""
    AHEAD = 1
    """Pieces per worker that are handed out before the first one's result is taken."""

    MOST = 256
    """Pieces under way, however many cores there are."""

    def __init__(
        self, work: Callable[[Any, int], Any], config: Any, parallel: int, places: SharedPlaces | None = None
    ) -> None:
        self._work, self._config, self._parallel, self._places = work, config, parallel, places
        self._counted = Metrics.counter(self.NAMESPACE, self.COUNTED)
        self._rejected = Metrics.counter(self.NAMESPACE, "rejected")
        self._milliseconds = Metrics.distribution(self.NAMESPACE, self.DURATION)

    def executor(self) -> tuple[Executor, bool]:
        """Where the work is done, and whether it ends with this DoFn; each subclass says."""
        raise NotImplementedError  # a subclass that forgets it fails in setup, before any work

    def setup(self) -> None:
        """Proves that this worker sees what the command sees, then finds or starts the executor."""
        if self._places is not None:
            self._places.check()
        self._parallel = self._parallel or min(self.MOST, machine.cores() + 1)
        self._executor, self._own = self.executor()

    def start_bundle(self) -> None:
        """A bundle begins with nothing under way."""
        self._running: collections.deque[Future[Any]] = collections.deque()

    def process(self, number: int, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Hands piece `number` out; yields what is ready, and waits only if too much is under way."""
        self._running.append(self._executor.submit(self._work, self._config, number))
        while self._running and (self._running[0].done() or len(self._running) > self.AHEAD * self._parallel):
            yield self._finish(self._running.popleft())

    def finish_bundle(self) -> Iterator[WindowedValue]:
        """Yields the rest."""
        while self._running:
            yield WindowedValue(self._finish(self._running.popleft()), MIN_TIMESTAMP, [GlobalWindow()])

    def teardown(self) -> None:
        """Ends an executor of this DoFn's own."""
        if self._own:
            self._executor.shutdown()

    def _finish(self, future: Future[Any]) -> Any:
        try:
            result = future.result()
        except BaseException as error:
            for later in self._running:
                later.cancel()
            worker_pool.failed(error)
            raise
        self._counted.inc(getattr(result, self.COUNTED))
        self._rejected.inc(result.rejected)
        self._milliseconds.update(int(result.seconds * 1000))
        worker_pool.finished(result)
        return result


def new_pipeline(beam_args: list[str]) -> tuple[PipelineOptions, beam.Pipeline]:
    """Options and an empty pipeline of Beam's flags.

    Raises:
        UsageError: The runner refuses its flags.
    """
    options = PipelineOptions(beam_args)
    try:
        return options, beam.Pipeline(options=options)
    except ValueError as error:
        refused = " ".join(str(error).split())
        raise UsageError(f"Beam refuses these flags: {refused}", "docs/engines.md has complete commands.") from None


def runs_elsewhere(options: PipelineOptions, beam_args: list[str]) -> bool:
    """Whether elements must be spread over processes or machines by a Reshuffle."""
    mode = options.view_as(DirectOptions).direct_running_mode
    return leaves_this_process(beam_args) or bool(mode == "multi_processing")
