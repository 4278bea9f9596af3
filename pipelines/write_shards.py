"""The Beam part of the ingest: one element is the number of a shard, and no image ever moves through Beam."""

from __future__ import annotations

import collections
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue

from components import workers
from components.shard_plan import ShardResult, WriteConfig
from components.shards import write_shard

AHEAD = 4
"""Shards per worker that are handed out before the first one's result is taken."""


class WriteShardFn(beam.DoFn):
    """Writes shards by number, several at a time.

    Args:
        config: What all shards have in common.
        parallel: Shards that one worker writes at a time.
    """

    def __init__(self, config: WriteConfig, parallel: int) -> None:
        self._config = config
        self._parallel = parallel
        self._written = Metrics.counter("ingest", "written")
        self._rejected = Metrics.counter("ingest", "rejected")
        self._milliseconds = Metrics.distribution("ingest", "shard_ms")

    def setup(self) -> None:
        """Finds this process's helpers, or starts threads."""
        self._executor: Executor
        self._executor, self._own = workers.shard_executor(self._parallel)

    def start_bundle(self) -> None:
        """A bundle begins with nothing under way."""
        self._running: collections.deque[Future[ShardResult]] = collections.deque()

    def process(self, number: int, *args: Any, **kwargs: Any) -> Iterator[ShardResult]:
        """Hands shard `number` out; yields what is ready, and waits only if too much is under way."""
        self._running.append(self._executor.submit(write_shard, self._config, number))
        while self._running and (self._running[0].done() or len(self._running) > AHEAD * self._parallel):
            yield self._finish(self._running.popleft())

    def finish_bundle(self) -> Iterator[WindowedValue]:
        """Yields the rest."""
        while self._running:
            yield WindowedValue(self._finish(self._running.popleft()), MIN_TIMESTAMP, [GlobalWindow()])

    def teardown(self) -> None:
        """Ends this DoFn's own threads."""
        if self._own:
            self._executor.shutdown()

    def _finish(self, future: Future[ShardResult]) -> ShardResult:
        try:
            result = future.result()
        except BaseException as error:
            for later in self._running:
                later.cancel()
            workers.failed(error)
            raise
        self._written.inc(result.written)
        self._rejected.inc(result.rejected)
        self._milliseconds.update(int(result.seconds * 1000))
        workers.finished(result)
        return result


class WriteShards(beam.PTransform):
    """Shard numbers -> `ShardResult`s.

    Args:
        config: What all shards have in common.
        parallel: Shards that one worker writes at a time.
    """

    def __init__(self, config: WriteConfig, parallel: int) -> None:
        super().__init__()
        self._config, self._parallel = config, parallel

    def expand(self, numbers: beam.PCollection[int]) -> beam.PCollection[ShardResult]:
        """See the class."""
        write = beam.ParDo(WriteShardFn(self._config, self._parallel))
        return numbers | "WriteShard" >> write.with_input_types(int).with_output_types(ShardResult)


def run_beam(config: WriteConfig, shards: int, parallel: int, beam_args: list[str]) -> dict[str, float]:
    """Writes all shards on the runner that `beam_args` name.

    Returns:
        Seconds that building and running took.
    """
    from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions

    started = time.monotonic()
    options = PipelineOptions(beam_args)
    here = not any("Runner" in a and "FnApi" not in a for a in beam_args)
    spread = not here or options.view_as(DirectOptions).direct_running_mode == "multi_processing"
    pipeline = beam.Pipeline(options=options)
    numbers = pipeline | "ShardNumbers" >> beam.Create(range(shards), reshuffle=False)
    if spread:
        numbers = numbers | "Spread" >> beam.Reshuffle()
    _ = numbers | "WriteShards" >> WriteShards(config, parallel)
    built = time.monotonic()
    pipeline.run().wait_until_finish()
    return {"build_s": built - started, "run_s": time.monotonic() - built}
