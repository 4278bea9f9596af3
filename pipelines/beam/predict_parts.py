"""The Beam part of a prediction: one element is the number of a part, and no image ever moves through Beam."""

from __future__ import annotations

from concurrent.futures import Executor, ThreadPoolExecutor

import apache_beam as beam

from components.core import machine
from components.prediction.parts import PartResult, predict_part
from components.prediction.plan import PredictConfig
from components.storage.shared_places import SharedPlaces
from pipelines.beam.engine_errors import run_elsewhere
from pipelines.beam.numbered_work import NumberedWorkFn, new_pipeline, runs_elsewhere


class PredictPartFn(NumberedWorkFn):
    """Predicts parts by number in threads: while one waits for the model, others are decoded.

    The model is loaded once in a process.
    """

    NAMESPACE, COUNTED, DURATION = "predict", "predicted", "part_ms"
    AHEAD = 2
    MOST = 8

    def executor(self) -> tuple[Executor, bool]:
        """See the base class."""
        machine.keep_freed_memory()
        return ThreadPoolExecutor(self._parallel), True


class PredictParts(beam.PTransform):
    """Part numbers -> `PartResult`s.

    Args:
        config: What all parts have in common.
        parallel: Parts that one worker has under way; 0: by its cores.
        places: What a worker must see; None where the job stays in this process.
    """

    def __init__(self, config: PredictConfig, parallel: int, places: SharedPlaces | None = None) -> None:
        super().__init__()
        self._config, self._parallel, self._places = config, parallel, places

    def expand(self, numbers: beam.PCollection[int]) -> beam.PCollection[PartResult]:
        """See the class."""
        predict = beam.ParDo(PredictPartFn(predict_part, self._config, self._parallel, self._places))
        return numbers | "PredictPart" >> predict.with_input_types(int).with_output_types(PartResult)


def run_beam(
    config: PredictConfig,
    numbers: list[int],
    parallel: int,
    beam_args: list[str],
    places: SharedPlaces | None = None,
) -> None:
    """Predicts parts on the runner that `beam_args` name."""
    options, pipeline = new_pipeline(beam_args)
    parts = pipeline | "PartNumbers" >> beam.Create(numbers, reshuffle=False)
    if runs_elsewhere(options, beam_args):
        parts = parts | "Spread" >> beam.Reshuffle()
    _ = parts | "PredictParts" >> PredictParts(config, parallel, places)
    if places:
        run_elsewhere(pipeline)
    else:
        pipeline.run().wait_until_finish()
