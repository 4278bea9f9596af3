"""Sends runs to an MLflow tracking server (`--mlflow URI`); needs mlflow-skinny, the optional extra `mlflow`."""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from components.errors import TemporaryError, UsageError

if TYPE_CHECKING:
    from components.report.mlflow_payload import Payload
    from components.storage.base import Storage

BATCH = {"metrics": 1000, "params": 100, "tags": 100}
"""Most that one call takes (MLflow's REST API, `runs/log-batch`)."""

SEND_AGAIN = "The run itself is safe: histoline runs export {run_id} --mlflow URI sends it again."


mlflow_option = click.option(
    "--mlflow", envvar="HISTOLINE_MLFLOW", default="", metavar="URI", help="MLflow tracking server to send the run to."
)


def client(uri: str) -> Any:
    """MLflow's client.

    Raises:
        UsageError: mlflow is not installed, or there is no such kind of server.
    """
    # Its own default, seven tries that wait ever longer, keeps a wrong address secret for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # stdout is for the command's result alone
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise UsageError(
            f"--mlflow needs the package mlflow-skinny ({error}).", "Install it: uv pip install 'histoline[mlflow]'."
        ) from None
    try:
        return MlflowClient(tracking_uri=uri)
    except MlflowException as error:
        raise UsageError(
            f"--mlflow {place(uri)} can't be used: {_line(error)}", "Give a URL: http://HOST:5000."
        ) from None


def place(uri: str) -> str:
    """A tracking server's URI without user and password."""
    parts = urllib.parse.urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def export(storage: Storage, folder: str, uri: str) -> dict[str, Any]:
    """Sends a run with its report; one that was sent as it stands is not sent again.

    Args:
        storage: The workspace.
        folder: Of the run, relative to it.
        uri: Of the tracking server.

    Returns:
        `run_id`, `mlflow_run_id`, `experiment`, and whether it was `sent` now.

    Raises:
        UsageError: mlflow is not installed.
        TemporaryError: The server does not answer or refuses.
    """
    from components.report.mlflow_payload import payload
    from components.training import run_record

    record = run_record.read(storage, folder)
    files = [path for path in (f"{folder}/{run_record.NAME}", record.report) if path and storage.exists(path)]
    local = [Path(storage.local_copy(path)) for path in files]
    return send(client(uri), payload(record, storage.root), local, place(uri))


def said(done: dict[str, Any]) -> str:
    """What became of an `export`, in a line."""
    how = "sent to" if done["sent"] else "is there as it stands:"
    return f"{done['run_id']} {how} {done['server']}, experiment {done['experiment']!r}, {done['mlflow_run_id']}"


def send(server: Any, run: Payload, files: Sequence[Path], where: str) -> dict[str, Any]:
    """Sends a run.

    Args:
        server: An `MlflowClient`.
        run: What is sent.
        files: Artifacts.
        where: The server, for messages.

    Raises:
        TemporaryError: The server does not answer or refuses.
    """
    from mlflow.exceptions import MlflowException

    from components.report.mlflow_payload import UPDATED_TAG

    try:
        experiment = server.get_experiment_by_name(run.experiment)
        number = experiment.experiment_id if experiment else server.create_experiment(run.experiment)
        before = _known(server, number, run)
        done = {"run_id": run.name, "experiment": run.experiment, "server": where}
        for known in before:
            if known.data.tags.get(UPDATED_TAG) == run.tags[UPDATED_TAG] and known.info.status == run.status:
                return {**done, "mlflow_run_id": known.info.run_id, "sent": False}
        made = _send(server, number, run, files)
        for known in before:  # only now: what was there stays until its successor is whole
            server.delete_run(known.info.run_id)
        return {**done, "mlflow_run_id": made, "sent": True}
    except (MlflowException, OSError) as error:
        raise TemporaryError(
            f"MLflow at {where} did not take run {run.name!r}: {_line(error)}", SEND_AGAIN.format(run_id=run.name)
        ) from error


def _known(server: Any, experiment: str, run: Payload) -> list[Any]:
    from components.report.mlflow_payload import RUN_TAG

    return list(server.search_runs([experiment], filter_string=f"tags.`{RUN_TAG}` = '{run.name}'"))


def _send(server: Any, experiment: str, run: Payload, files: Sequence[Path]) -> str:
    from mlflow.entities import Metric, Param, RunTag

    from components.report.mlflow_payload import RUN_TAG

    made = server.create_run(experiment, start_time=run.started, tags={RUN_TAG: run.name}, run_name=run.name)
    number = str(made.info.run_id)
    kinds: dict[str, list[Any]] = {
        "params": [Param(name, value) for name, value in run.parameters.items()],
        "metrics": [Metric(v.key, v.value, v.timestamp, v.step) for v in run.values],
        # Last, since one of them says that the run is there as it stood then.
        "tags": [RunTag(name, value) for name, value in run.tags.items()],
    }
    for file in files:
        server.log_artifact(number, str(file))
    for kind, items in kinds.items():
        for start in range(0, len(items), BATCH[kind]):
            server.log_batch(number, **{kind: items[start : start + BATCH[kind]]})
    server.set_terminated(number, status=run.status, end_time=run.ended)
    return number


def _line(error: Exception) -> str:
    return f"{' '.join(str(error).split())[:300]}."
