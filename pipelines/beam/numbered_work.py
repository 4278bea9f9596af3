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

from components.ingest import worker_pool


class NumberedWorkFn(beam.DoFn):
    """Does pieces of work by number, several at a time.

    Subclasses name their metrics, say how many pieces are handed out ahead, and where the work is done.

    Args:
        work: Called with the configuration and a number; gives a result that has `rejected` and `seconds`.
        config: What all pieces have in common.
        parallel: Pieces that one worker has under way.
    """

    NAMESPACE, COUNTED, DURATION = "", "", ""
    """Of the metrics; COUNTED is the attribute of a result that is counted."""
    AHEAD = 1
    """Pieces per worker that are handed out before the first one's result is taken."""

    def __init__(self, work: Callable[[Any, int], Any], config: Any, parallel: int) -> None:
        self._work, self._config, self._parallel = work, config, parallel
        self._counted = Metrics.counter(self.NAMESPACE, self.COUNTED)
        self._rejected = Metrics.counter(self.NAMESPACE, "rejected")
        self._milliseconds = Metrics.distribution(self.NAMESPACE, self.DURATION)

    def executor(self) -> tuple[Executor, bool]:
        """Where the work is done, and whether it ends with this DoFn; each subclass says."""
        raise NotImplementedError  # a subclass that forgets it fails in setup, before any work

    def setup(self) -> None:
        """Finds or starts the executor."""
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


def runs_elsewhere(options: PipelineOptions, beam_args: list[str]) -> bool:
    """Whether elements must be spread over processes or machines by a Reshuffle."""
    here = not any("Runner" in a and "FnApi" not in a for a in beam_args)
    return bool(not here or options.view_as(DirectOptions).direct_running_mode == "multi_processing")
