"""`histoline leakage`: what a random split would have promised, and what new patients get."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from components.errors import UsageError
from pipelines import console
from pipelines.options import json_option, open_workspace, task_option, workspace_option
from pipelines.train import check_dataset, overrides

if TYPE_CHECKING:
    from components.datasets.committed import DatasetFiles
    from components.datasets.manifest import Manifest
    from components.storage.base import Storage
    from components.training.leakage_trials import Trial
    from components.training.recipe import TrainingConfig

DOCUMENT, PAGE = "leakage.json", "index.html"
SCHEMA = "leakage.schema.json"


@click.command("leakage")
@click.argument("dataset", metavar="DATASET")
@workspace_option("Folder that holds datasets/; the page goes to leakage/.")
@task_option()
@click.option("--data", default="", help="Data set (folder or PLAN_ID); the latest by default.")
@click.option("--preset", default="", help="Recipe: a name in pipelines/presets, or a YAML file.")
@click.option("--model", default="", help="Model of the registry; the preset's by default.")
@click.option("--epochs", default="", help="Epochs of the last phase.")
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(1, 50), help="Pairs of models to train.")
@click.option(
    "--set", "changes", multiple=True, metavar="FIELD=VALUE", help="Any other field of the recipe; repeatable."
)
@click.option("--picture", default="", metavar="FILE.svg", help="Write the picture of the page as a file too.")
@json_option
def command(
    dataset: str, task: str, data: str, seeds: int, picture: str, workspace: str, as_json: bool, **given: Any
) -> None:
    """Measure how much a random split would have promised too much.

    The same recipe is trained on the patient split and on random splits of the same patches, equally large, under the
    same seeds. Nothing is promoted, no model is kept, and the random splits are never written. A killed run goes on
    where it stood.
    """
    from components.core import json_documents
    from components.report import leakage_page, svg
    from components.training import run_inputs

    check_dataset(dataset, task)
    if picture and not Path(picture).absolute().parent.is_dir():
        raise UsageError(f"--picture {picture}: there is no folder {Path(picture).parent}.", "Make it first.")
    storage = open_workspace(workspace)
    folder, manifest = run_inputs.find_dataset(storage, dataset, task, data)
    refuse(manifest, storage.uri(folder))
    config = _recipe(dataset, task, given)
    width, height = manifest.stored_size
    config.check_data(dataset, task, height, width, manifest.label_region)
    home = f"leakage/{dataset}/{task}/{_name(config, manifest, seeds)}"
    with storage.lock(f"{home}/.lock", owner=f"histoline leakage {dataset} {task}") as held:
        found = json_documents.plain(measure(storage, folder, manifest, config, seeds, home))
        held.check()
        storage.write_atomic(f"{home}/{DOCUMENT}", json_documents.dump(found, SCHEMA))
        storage.write_atomic(f"{home}/{PAGE}", leakage_page.render(found, manifest.drawn).encode("utf-8", "replace"))
    found = {**found, "page": storage.uri(f"{home}/{PAGE}")}
    if picture:
        Path(picture).write_text(svg.standalone(leakage_page.picture(found)), encoding="utf-8")
        found["picture"] = picture
    console.leave_result({**{name: found[name] for name in ("sentence", "metric", "page")}, "state": "done"})
    console.emit(found, as_json, lambda: show(found))


def refuse(manifest: Manifest, where: str) -> None:
    """Refuses data sets of which no patient split is known.

    Raises:
        UsageError: Says why.
    """
    unknown = {"leaky", "not_patient_clustered", "not_provably_patient_disjoint"} & set(manifest.flags)
    if unknown:
        from components.datasets.manifest import FLAG_REASONS

        raise UsageError(
            f"{where} has no split by patient to compare with: {FLAG_REASONS[sorted(unknown)[0]]}.",
            "Ingest it with its patients known (--groups-csv), or name another data set with --data.",
        )


def measure(
    storage: Storage, folder: str, manifest: Manifest, config: TrainingConfig, seeds: int, home: str
) -> dict[str, Any]:
    """Trains all pairs and compares them.

    Args:
        storage: The workspace.
        folder: Of the data set, relative to it.
        manifest: Its manifest.
        config: The recipe of the first seed.
        seeds: How many pairs.
        home: Folder of the comparison, relative to the workspace, locked by the caller.

    Returns:
        leakage.json.

    Raises:
        HistolineError: See `components.training.trainer.train`.
    """
    from components.core import json_documents
    from components.datasets import committed
    from components.datasets.random_view import split_at_random
    from components.metrics.bootstrap import BootstrapPlan
    from components.metrics.leakage import leakage_gap
    from components.report import leakage_page
    from components.training.leakage_trials import trial
    from components.training.source_digest import source_digest

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is loaded
    local = committed.open_dataset(committed.stage(storage, folder, manifest))
    work = storage.work_folder() / home / "trials"
    numbers = tuple(config.seed + k for k in range(seeds))
    trials: dict[str, list[Trial]] = {"patient": [], "random": []}
    shared = []
    for number in numbers:
        chosen = dataclasses.replace(config, seed=number)
        views = {"patient": local, "random": split_at_random(local, number)}
        shared.append(_shared(views["random"]))
        for kind, view in views.items():
            where = Path(work, f"{kind}-{number}")
            where.mkdir(parents=True, exist_ok=True)
            trials[kind].append(trial(chosen, view, where, source_digest(), log=_named(f"{kind} split, seed {number}")))
    gaps = leakage_gap(
        [each.test for each in trials["patient"]],
        [each.test for each in trials["random"]],
        BootstrapPlan(resamples=config.gate.n_resamples),
    )
    facts = leakage_page.Facts(
        dataset=manifest.dataset,
        task=manifest.task,
        name=home.rsplit("/", 1)[1],
        created=json_documents.now(),
        plan_id=manifest.plan_id,
        content_digest=manifest.content_digest,
        group_unit=manifest.group_unit,
        classes=manifest.classes,
        config=json.loads(config.to_json()),
        seeds=numbers,
        sizes={split: facts.patches for split, facts in manifest.splits.items()},
        tested=len(local.groups("test")),
        groups=len(local.groups("train", "eval", "test")),
        shared=sum(shared) / len(shared),
        looks=_count_look(storage, folder, manifest, home.rsplit("/", 1)[1]),
        epochs={kind: [each.epochs for each in found] for kind, found in trials.items()},
        seconds=round(sum(each.seconds for found in trials.values() for each in found), 1),
    )
    return leakage_page.document(facts, gaps)


def _named(name: str) -> Callable[[str], None]:
    return lambda line: console.log(f"{name}: {line}")


def _shared(view: DatasetFiles) -> float:
    """Share of the test patches whose group is in train or eval too."""
    seen = set(view.groups("train", "eval"))
    tested = view.table("test", ["group_id"])["group_id"].to_pylist()
    return sum(group in seen for group in tested) / len(tested)


def _count_look(storage: Storage, folder: str, manifest: Manifest, name: str) -> int:
    """Counts the comparison as one look at the test split: whoever sees its figures has seen the split."""
    from components.datasets.sidecars import digest_of_split, read_split
    from components.promotion.test_set_reuse import count_look, names_of

    table = read_split(storage, folder, manifest, "test", ("patch_id", "group_id", "label", "pixel_hash"))
    counted = count_look(
        storage, manifest.dataset, manifest.task, test_digest=digest_of_split(table),
        groups=table.column("group_id").to_pylist(), names=names_of(manifest), run_id=f"leakage:{name}",
    )  # fmt: skip
    return counted.count


def _recipe(dataset: str, task: str, given: dict[str, Any]) -> TrainingConfig:
    from components.training import run_inputs
    from pipelines.recipes import PRESETS_FOLDER

    chosen = (dataset, task, given["preset"], given["model"])
    config = run_inputs.choose_config(*chosen, folder=PRESETS_FOLDER)
    # Options of `train` that this command does not have are not given.
    changed = overrides(collections.defaultdict(lambda: None, given), len(config.phases))
    config = run_inputs.choose_config(*chosen, changed, folder=PRESETS_FOLDER) if changed else config
    if config.decision != "split" or config.ensemble:
        raise UsageError(
            "The leakage gap is that of one model on one split.", "Choose a recipe without folds and ensemble."
        )
    return config


def _name(config: TrainingConfig, manifest: Manifest, seeds: int) -> str:
    parts = [config.digest(), manifest.content_digest, seeds]
    return f"{config.model}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]}"


def show(found: dict[str, Any]) -> None:
    """Prints the comparison for people."""
    from components.report.measures import TITLES
    from pipelines.runs import interval

    unit = found["group_unit"]
    click.echo(found["sentence"])
    rows = [
        (
            TITLES[name],
            *(interval(found["metrics"][name][part], sign=part == "gap") for part in ("random", "patient", "gap")),
        )
        for name in TITLES
        if name in found["metrics"]
    ]
    title = f"\nMeans over {len(found['seeds'])} seeds, 95 % intervals by {unit}"
    console.table(title, ("metric", "split at random", f"split by {unit}", f"random minus {unit}"), rows)
    click.echo(f"\n{found['page']}")
    if "picture" in found:
        click.echo(found["picture"])


if __name__ == "__main__":
    sys.exit(console.run(lambda: command.main(standalone_mode=False, prog_name="python -m pipelines.leakage")))
