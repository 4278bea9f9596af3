"""The process of one worker: `python -m components.training.worker_main REQUEST.json`; see `training_process`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from components import errors
from components.core.machine import die_with_parent
from components.training import trainer
from components.training.cluster import Cluster, read_cluster
from components.training.recipe import TrainingConfig
from components.training.training_process import ERROR, Request


def _work(request: Request, cluster: Cluster | None) -> None:
    work: Callable[..., Any] = trainer.train if cluster is None or cluster.chief else trainer.take_part
    config = TrainingConfig.from_json(request.config)
    try:
        work(config, request.dataset_dir, Path(request.run_dir), log=lambda line: print(line, flush=True))
    except errors.HistolineError:
        raise
    except Exception as error:
        from components.training.workers import is_lost, lost

        if cluster is None or not is_lost(error):
            raise
        raise lost(error, cluster) from error


def main(argv: list[str]) -> int:
    """Entry point of the process; errors go to `error.json` and the exit code."""
    request = Request(**json.loads(Path(argv[0]).read_text()))
    die_with_parent(request.parent)
    cluster = read_cluster()
    try:
        _work(request, cluster)
    except errors.HistolineError as error:
        Path(request.scratch, ERROR).write_text(json.dumps({"what": error.what, "fix": error.fix}))
        sys.stdout.flush()
        # TensorFlow would now wait at its end for workers that are gone.
        os._exit(error.exit_code)
    return errors.EXIT_OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
