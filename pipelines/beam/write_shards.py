"""The Beam part of the ingest: one element is the number of a shard, and no image ever moves through Beam."""

from __future__ import annotations

import time
from concurrent.futures import Executor

import apache_beam as beam

from components.ingest import worker_pool
from components.ingest.shard_jobs import ShardResult, WriteConfig
from components.ingest.shard_writer import write_shard
from components.storage.shared_places import SharedPlaces
from pipelines.beam.engine_errors import run_elsewhere
from pipelines.beam.numbered_work import NumberedWorkFn, new_pipeline, runs_elsewhere


class WriteShardFn(NumberedWorkFn):
    """Writes shards by number, in this process's helpers where it has them, else in threads."""

    NAMESPACE, COUNTED, DURATION = "ingest", "written", "shard_ms"
    AHEAD = 4

    def executor(self) -> tuple[Executor, bool]:
        """See the base class."""
        return worker_pool.shard_executor(self._parallel)


class WriteShards(beam.PTransform):
    """Shard numbers -> `ShardResult`s.

    Args:
        config: What all shards have in common.
        parallel: Shards that one worker writes at a time; 0: by its cores.
        places: What a worker must see; None where the job stays in this process.
    """

    def __init__(self, config: WriteConfig, parallel: int, places: SharedPlaces | None = None) -> None:
        super().__init__()
        self._config, self._parallel, self._places = config, parallel, places

    def expand(self, numbers: beam.PCollection[int]) -> beam.PCollection[ShardResult]:
        """See the class."""
        write = beam.ParDo(WriteShardFn(write_shard, self._config, self._parallel, self._places))
        return numbers | "WriteShard" >> write.with_input_types(int).with_output_types(ShardResult)


def run_beam(
    config: WriteConfig, shards: int, parallel: int, beam_args: list[str], places: SharedPlaces | None = None
) -> dict[str, float]:
    """Writes all shards on the runner that `beam_args` name.

    Returns:
        Seconds that building and running took.
    """
    started = time.monotonic()
    options, pipeline = new_pipeline(beam_args)
    numbers = pipeline | "ShardNumbers" >> beam.Create(range(shards), reshuffle=False)
    if runs_elsewhere(options, beam_args):
        numbers = numbers | "Spread" >> beam.Reshuffle()
    _ = numbers | "WriteShards" >> WriteShards(config, parallel, places)
    built = time.monotonic()
    if places:
        run_elsewhere(pipeline)
    else:
        pipeline.run().wait_until_finish()
    return {"build_s": built - started, "run_s": time.monotonic() - built}
