"""Images or records to probabilities by the promoted model: the command and the job.

Plan, predict parts on a Beam runner, put the table together. Decoding, padding and halving are the ingest's own code,
so that an image gets the same probability from its file as from its record.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from components.errors import DataError, TemporaryError, UsageError
from pipelines import console
from pipelines.beam.engines import engine_option
from pipelines.options import BEAM_EPILOG, json_option, name_and_flags, parts_option, task_option, workspace_option

if TYPE_CHECKING:
    from components.prediction.job import Work
    from components.prediction.plan import PredictConfig
    from components.promotion.find_model import ModelSource

MAX_PARALLEL = 8


def beam_work(workers: int, beam_args: list[str], planned: int) -> Work:
    """A `job.Work` that hands parts to Beam; loads it only where there is something to do.

    Args:
        workers: Parts that one worker has under way; 0: by its cores.
        beam_args: Flags for Beam, with a runner among them.
        planned: Patches, for the progress bar.
    """

    def work(config: PredictConfig, numbers: list[int]) -> None:
        if not numbers:
            return
        from components.ingest.worker_pool import listening
        from components.storage.open import open_storage
        from components.storage.shared_places import shared_places
        from pipelines.beam.engines import check_endpoints
        from pipelines.beam.flags import check_beam_args, import_beam, leaves_this_process

        check_endpoints(beam_args, config.input_root, config.model_root, config.work)

        run_beam = import_beam("pipelines.beam.predict_parts").run_beam
        check_beam_args(beam_args, "predict")
        with console.Progress("patches", planned) as progress:
            with listening(lambda result: progress.advance(result.predicted + result.rejected)):
                if leaves_this_process(beam_args):
                    reads = (config.input_root, f"{config.model_root}/{config.model_path}")
                    with shared_places(open_storage(config.work), "", *reads) as places:
                        run_beam(config, numbers, workers, beam_args, places)
                else:
                    run_beam(config, numbers, parallel_parts(workers), beam_args)

    return work


def parallel_parts(workers: int) -> int:
    """Parts under way in one worker: as many as asked for, else enough to keep its cores busy.

    Raises:
        UsageError: Out of range.
    """
    from components.core.machine import cores

    if not 0 <= workers <= 64:
        raise UsageError(f"--workers {workers} is out of range.", "Choose 1 to 64, or leave it out.")
    # One more than cores: while all others wait for the model, there is still one to decode.
    return workers or min(MAX_PARALLEL, cores() + 1)


def find_model(dataset: str, given: dict[str, Any]) -> ModelSource:
    """The model that the command line means, as a `ModelSource`.

    Raises:
        UsageError: None or two are named, or there is none.
        DataError: It is damaged.
    """
    if bool(dataset) == bool(given["model"]):
        raise UsageError(
            "Name a data set, for its champion, or a model's folder with --model: one of the two.",
            "For example: histoline predict idc --input DIR --output FILE.parquet.",
        )
    from components.promotion import find_model
    from components.storage.open import open_storage

    if given["model"]:
        if given["version"]:
            raise UsageError("--model and --version both name a model.", "Give one of them.")
        return find_model.model_folder(given["model"])
    from pipelines.train import check_dataset

    check_dataset(dataset, given["task"])
    storage = open_storage(given["workspace"])
    if not given["version"]:
        return find_model.champion_model(storage, dataset, given["task"])
    model = find_model.named_model(storage, given["version"])
    if (model.facts["dataset"], model.facts["task"]) != (dataset, given["task"]):
        whose = f"{model.facts['dataset']} {model.facts['task']}"
        raise UsageError(f"{given['version']} is a model of {whose}, not of {dataset} {given['task']}.")
    return model


def check_output(output: str, kaggle: bool) -> str:
    """Full name of the output.

    Raises:
        UsageError: Another extension than .parquet or .csv; a submission that is no .csv.
    """
    from components.prediction.inputs import absolute

    full = absolute(output)
    suffix = os.path.splitext(full)[1]
    if suffix not in (".csv",) if kaggle else suffix not in (".csv", ".parquet"):
        wanted = ".csv, since a submission is one" if kaggle else ".parquet or .csv"
        raise UsageError(f"--output {output!r} can't be written.", f"Its name must end in {wanted}.")
    if not full.startswith("gs://") and os.path.isdir(full):
        raise UsageError(f"--output {output!r} is a folder.", "Name a file.")
    return full


def check_apart(output: str, given: dict[str, Any]) -> None:
    """Refuses an output inside the input: the next run would find this one's files among its images.

    Raises:
        UsageError: It lies there, links followed.
    """
    from components.prediction.inputs import absolute

    def real(name: str) -> str:
        return name if name.startswith("gs://") else os.path.realpath(name)

    root = real(absolute(given["input_root"]))
    for option, name in (("--output", output), ("--slide-maps", given["slide_maps"]), ("--page", given["page"])):
        if name and (real(absolute(name)) + "/").startswith(root.rstrip("/") + "/"):
            raise UsageError(
                f"{option} {name!r} lies inside --input {given['input_root']!r}.",
                "Choose a place beside it: the next prediction would find these files among its images.",
            )


@click.command(
    "predict",
    context_settings={"ignore_unknown_options": True},
    epilog=BEAM_EPILOG,
)
@click.argument("rest", metavar="[DATASET] [BEAM FLAGS]", nargs=-1, type=click.UNPROCESSED)
@click.option("--input", "input_root", required=True, help="Folder of PNG and TIFF images, or of a data set.")
@click.option("--output", required=True, help="Table to write: FILE.parquet or FILE.csv.")
@click.option("--model", default="", help="Folder of an exported model, instead of DATASET's champion.")
@click.option("--version", default="", help="VERSION or RUN_ID of DATASET, instead of its champion.")
@task_option()
@workspace_option("Folder with models/.")
@click.option("--groups-csv", default="", help="CSV with patch id and patient or slide, where the folder says neither.")
@click.option("--kaggle", default="", help="sample_submission.csv: --output becomes a submission, in its order.")
@click.option("--slide-maps", default="", help="Folder for a PNG of each slide whose patches have coordinates.")
@click.option("--page", default="", metavar="FILE", help="Write what was found as an HTML page too.")
@click.option("--fail-on-drift", is_flag=True, help="Exit 65 where colours have shifted against the training data;"
              " the output is written all the same.")  # fmt: skip
@parts_option
@engine_option
@json_option
def command(
    rest: tuple[str, ...], workers: int, fail_on_drift: bool, as_json: bool, **given: Any
) -> None:
    """Give every patch a probability, by the champion of DATASET or the model in a folder."""
    from pipelines.beam.engines import engine_args
    from pipelines.beam.flags import check_own_typos

    dataset, extra = name_and_flags(rest)
    check_own_typos(extra, command)
    beam_args = engine_args(given.pop("engine"), extra)
    parallel_parts(workers)  # a number out of range is told before anything is read
    started = time.monotonic()
    try:
        document = run(dataset, given, workers, beam_args)
    except MemoryError as error:
        raise TemporaryError("Memory ran out.", "Use fewer --workers.") from error
    document["seconds"] = round(time.monotonic() - started, 2)
    failed = fail_on_drift and bool(document["drift"]["drifted"])
    console.leave_result(small(document, failed))
    console.emit(document, as_json, lambda: show(document))
    if failed:
        raise DataError(f"Failed, as --fail-on-drift asks. {document['drift']['text']}")


def run(dataset: str, given: dict[str, Any], workers: int, beam_args: list[str]) -> dict[str, Any]:
    """Runs one prediction.

    Args:
        dataset: DATASET, empty where --model is given.
        given: The options.
        workers: Parts that one worker has under way; 0: by its cores.
        beam_args: Flags for Beam, with a runner among them.

    Returns:
        The summary.

    Raises:
        UsageError, DataError, TemporaryError: See `components.errors`.
    """
    from components.core.data_roots import check_root

    output = check_output(given["output"], bool(given["kaggle"]))
    for option, name in (("--input", given["input_root"]), ("--groups-csv", given["groups_csv"])):
        check_root(option, name)
    model = find_model(dataset, given)
    from components.prediction import job, kaggle
    from components.prediction.inputs import absolute, plan_input

    multiclass = len(model.classes) > 2
    for option in ("kaggle", "slide_maps"):
        if given[option] and multiclass:
            name = f"--{option.replace('_', '-')}"
            raise UsageError(f"{name} is for two classes; the model has {len(model.classes)}.", f"Leave out {name}.")
    sample = kaggle.read_sample(Path(given["kaggle"])) if given["kaggle"] else None
    check_apart(output, given)
    plan = plan_input(model, given["input_root"], Path(given["groups_csv"]) if given["groups_csv"] else None)
    if sample is not None:
        kaggle.check_all_there(sample, set(plan.column("patch_id")), plan.name)
    maps = absolute(given["slide_maps"]) if given["slide_maps"] else ""
    work = beam_work(workers, beam_args, plan.planned)
    document = job.predict(model, plan, output, work, sample=sample, slide_maps=maps)
    if given["page"]:
        from components.prediction.outputs import read_rejects
        from components.report import prediction_page

        document["page"] = absolute(given["page"])
        prediction_page.write(document, read_rejects(document["files"]["rejects"]), maps, document["page"])
    return document


def small(document: dict[str, Any], failed: bool) -> dict[str, Any]:
    """What a scheduler gets of the summary.

    Args:
        document: The summary.
        failed: Whether drift is to fail the command.
    """
    kept = ("task", "model_version", "found", "predicted", "rejected", "rejects", "called", "slide_maps", "page")
    drift = {key: document["drift"][key] for key in ("skipped", "drifted", "text", "unit", "groups")}
    state = "failed" if failed else document["state"]
    told = {key: document[key] for key in kept if key in document}
    return {"state": state, "reason": drift["text"], **told, "drift": drift, "output": document["files"]["output"]}


def show(document: dict[str, Any]) -> None:
    """Prints the human summary."""
    click.echo(
        f"{document['found']:,} images found, {document['predicted']:,} predicted, {document['rejected']:,} rejected"
    )
    kinds: dict[str, list[str]] = {}
    for code, facts in document["rejects"].items():
        kinds.setdefault(facts["kind"], []).append(f"{code} {facts['count']:,}")
    for kind, codes in sorted(kinds.items()):
        click.echo(f"  {kind}: {', '.join(codes)}")
    click.echo(
        f"model {document['model_version']} ({document['dataset']} {document['task']}); label known for"
        f" {document['labelled']:,}; {document['groups']:,} groups known"
    )
    if document["of_training_groups"]:
        count = f"{document['of_training_groups']:,}"
        click.echo(f"WARNING: {count} patches are of groups that the model was trained on: no measure of its quality")
    for text in document["warnings"]:
        click.echo(f"warning: {text}")
    drift = document["drift"]
    if drift["text"]:
        click.echo(f"WARNING: {drift['text']}")
    else:
        click.echo(f"colours: {drift['skipped'] or 'no shift against the training data'}")
    if "slide_maps" in document:
        click.echo(f"{document['slide_maps']:,} slide maps")
    done = "Nothing to do, the same prediction stands in" if document["state"] == "unchanged" else "Written to"
    click.echo(f"{done} {document['files']['output']} ({document.get('seconds', 0):.1f} s)")
    click.echo(document["note"])


if __name__ == "__main__":
    sys.exit(console.run(lambda: command.main(standalone_mode=False, prog_name="python -m pipelines.predict")))
