"""The Beam part of a prediction: one element is the number of a part, and no image ever moves through Beam."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue

from components import workers
from components.predict_parts import PartResult, predict_part
from components.predict_plan import PredictConfig

AHEAD = 2
"""Parts per thread that are handed out before the first one's result is taken."""


class PredictPartFn(beam.DoFn):
    """Predicts parts by number, several at a time; the model is loaded once in a process.

    Args:
        config: What all parts have in common.
        parallel: Parts that one worker has under way: while one waits for the model, others are decoded.
    """

    def __init__(self, config: PredictConfig, parallel: int) -> None:
        self._config = config
        self._parallel = parallel
        self._predicted = Metrics.counter("predict", "predicted")
        self._rejected = Metrics.counter("predict", "rejected")
        self._milliseconds = Metrics.distribution("predict", "part_ms")

    def setup(self) -> None:
        """Starts threads."""
        workers.keep_freed_memory()
        self._executor = ThreadPoolExecutor(self._parallel)

    def start_bundle(self) -> None:
        """A bundle begins with nothing under way."""
        self._running: collections.deque[Future[PartResult]] = collections.deque()

    def process(self, number: int, *args: Any, **kwargs: Any) -> Iterator[PartResult]:
        """Hands part `number` out; yields what is ready, and waits only if too much is under way."""
        self._running.append(self._executor.submit(predict_part, self._config, number))
        while self._running and (self._running[0].done() or len(self._running) > AHEAD * self._parallel):
            yield self._finish(self._running.popleft())

    def finish_bundle(self) -> Iterator[WindowedValue]:
        """Yields the rest."""
        while self._running:
            yield WindowedValue(self._finish(self._running.popleft()), MIN_TIMESTAMP, [GlobalWindow()])

    def teardown(self) -> None:
        """Ends this DoFn's own threads."""
        self._executor.shutdown()

    def _finish(self, future: Future[PartResult]) -> PartResult:
        try:
            result = future.result()
        except BaseException as error:
            for later in self._running:
                later.cancel()
            workers.failed(error)
            raise
        self._predicted.inc(result.predicted)
        self._rejected.inc(result.rejected)
        self._milliseconds.update(int(result.seconds * 1000))
        workers.finished(result)
        return result


class PredictParts(beam.PTransform):
    """Part numbers -> `PartResult`s.

    Args:
        config: What all parts have in common.
        parallel: Parts that one worker has under way.
    """

    def __init__(self, config: PredictConfig, parallel: int) -> None:
        super().__init__()
        self._config, self._parallel = config, parallel

    def expand(self, numbers: beam.PCollection[int]) -> beam.PCollection[PartResult]:
        """See the class."""
        predict = beam.ParDo(PredictPartFn(self._config, self._parallel))
        return numbers | "PredictPart" >> predict.with_input_types(int).with_output_types(PartResult)


def run_beam(config: PredictConfig, numbers: list[int], parallel: int, beam_args: list[str]) -> None:
    """Predicts parts on the runner that `beam_args` name."""
    options = PipelineOptions(beam_args)
    here = not any("Runner" in a and "FnApi" not in a for a in beam_args)
    spread = not here or options.view_as(DirectOptions).direct_running_mode == "multi_processing"
    pipeline = beam.Pipeline(options=options)
    parts = pipeline | "PartNumbers" >> beam.Create(numbers, reshuffle=False)
    if spread:
        parts = parts | "Spread" >> beam.Reshuffle()
    _ = parts | "PredictParts" >> PredictParts(config, parallel)
    pipeline.run().wait_until_finish()
