"""`histoline catalog`: writes dags/catalog.json, what Airflow's forms may offer, from the code that decides on it.

Airflow runs in an environment of its own and can't import components: it reads this file. A test fails when the file
that is committed is not what this module makes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from components.errors import DataError, UsageError
from pipelines import console
from pipelines.options import json_option

if TYPE_CHECKING:
    from components.adapters.base import Adapter
    from components.training.presets import PresetInfo

FORMAT = 1
FILE = Path(__file__).resolve().parents[1] / "dags" / "catalog.json"
DEFAULT = "default"
"""Word of the forms for "what the recipe or the command says"."""


def build() -> dict[str, Any]:
    """The catalogue: data sets with their tasks and form fields, the form of the workspace's own DAG, models, presets.

    Returns:
        A JSON object. A field is a JSON schema (type, enum, minimum, maximum, ...) with a `default`, the command's
        `option`, and what the form shows: `title`, `description`, `section`. `path` marks folders and files; `words`
        say what a `pattern` asks for.
    """
    from components.adapters.registry import ADAPTERS
    from components.training import models
    from components.training.presets import DEFAULTS, infos
    from pipelines.recipes import PRESETS_FOLDER

    presets = infos(PRESETS_FOLDER)
    return {
        "format": FORMAT,
        "datasets": {
            name: {
                "title": adapter.title,
                "layout": adapter.layout,
                "tasks": {task: list(adapter.classes(task)) for task in adapter.tasks},
                "presets": {task: DEFAULTS[name, task] for task in adapter.tasks if (name, task) in DEFAULTS},
                "ingest": ingest_fields(adapter),
                "train": train_fields(adapter, [p for p in presets if p.dataset in ("", name)]),
                "predict": predict_fields(adapter),
                "sweep": sweep_fields(adapter),
            }
            for name, adapter in ADAPTERS.items()
        },
        "workspace": {"title": "The workspace", "prune": prune_fields()},
        "models": {
            name: {"title": info.title, "parameters": info.parameters, "min_size": info.min_size}
            for name, info in models.MODELS.items()
        },
        "presets": {
            p.name: {"title": p.title, "dataset": p.dataset, "task": p.task, "model": p.model} for p in presets
        },
    }


def _field(option: str, section: str, title: str, description: str, default: Any, **schema: Any) -> dict[str, Any]:
    shown = {"option": option, "section": section, "title": title, "description": description, "default": default}
    return {**shown, **schema}


def _task(adapter: Adapter) -> dict[str, Any]:
    text = "What the labels are read as: " + "; ".join(f"{t}: {', '.join(adapter.classes(t))}" for t in adapter.tasks)
    return _field("--task", "Data", "Task", text, adapter.tasks[0], type="string", enum=list(adapter.tasks))


def ingest_fields(adapter: Adapter) -> dict[str, Any]:
    """Form fields of DATASET_ingest by name.

    Args:
        adapter: Of the data set.
    """
    from components.datasets.duplicates import ON_CONFLICT, ON_DUPLICATE
    from components.ingest.config import DEFAULT_MAX_FAULTS
    from components.splits.planner import ON_INFEASIBLE

    def choice(name: str, title: str, text: str, values: Sequence[str]) -> dict[str, Any]:
        return _field(f"--{name}", "Rules", title, text, values[0], type="string", enum=list(values))

    return {
        "input": _field(
            "--input", "Data", "Input folder", f"Absolute folder with the raw images: {adapter.layout}.", "",
            type="string", path=True, maxLength=1000,
        ),
        "task": _task(adapter),
        "groups_csv": _field(
            "--groups-csv", "Data", "Patients of the patches", "CSV file with patch id and patient or slide.", None,
            type=["null", "string"], path=True, maxLength=1000,
        ),
        "group_by": _field(
            "--group-by", "Data", "What may not be split", "default: what the data set knows, patients or slides;"
            " image: every image by itself, where neither is known. Such a model is promoted by hand alone.", DEFAULT,
            type="string", enum=[DEFAULT, "image"],
        ),
        "max_per_class": _field(
            "--max-per-class", "Data", "Patches per class", "A cap, to try something out; 0 takes all. What is capped"
            " is not what training takes by default.", 0, type="integer", minimum=0, maximum=10_000_000,
        ),
        "seed": _field(
            "--seed", "Data", "Seed", "Of the split of new patients and of the order of records.", 0,
            type="integer", minimum=0, maximum=2**31 - 1,
        ),
        "max_faults": _field(
            "--max-faults", "Rules", "Faulty images allowed",
            "Share of damaged images past which the ingest fails: 0.01 is one in a hundred.", DEFAULT_MAX_FAULTS,
            type="number", minimum=0, maximum=1,
        ),
        "on_duplicate": choice(
            "on-duplicate", "Same pixels in two splits", "Keep the copy in train, or fail.", ON_DUPLICATE
        ),
        "on_conflict": choice(
            "on-conflict", "Same pixels under two labels", "Reject all such images, or fail.", ON_CONFLICT
        ),
        "on_infeasible": choice(
            "on-infeasible", "A class with too few patients", "Fail, keep it in train only, or leave it out.",
            ON_INFEASIBLE,
        ),
    }  # fmt: skip


def train_fields(adapter: Adapter, presets: list[PresetInfo]) -> dict[str, Any]:
    """Form fields of DATASET_train by name.

    Args:
        adapter: Of the data set.
        presets: Infos of the recipes that fit it.
    """
    from components.training import models

    recipes = {DEFAULT: "default: the recipe made for data set and task"}
    recipes |= {p.name: f"{p.name}: {p.title}" for p in presets}
    networks = {DEFAULT: "default: the recipe's own"} | {n: f"{n}: {i.title}" for n, i in models.MODELS.items()}
    return {
        "task": _task(adapter),
        "preset": _field(
            "--preset", "Model", "Recipe", "How to train; everything below that is empty comes from it.", DEFAULT,
            type="string", enum=list(recipes), values_display=recipes,
        ),
        "model": _field(
            "--model", "Model", "Model", "Another network under the same recipe.", DEFAULT,
            type="string", enum=list(networks), values_display=networks,
        ),
        "weights": _field(
            "--weights", "Model", "Weights file", "To start from, instead of the recipe's: for machines that can't"
            " download what it names. Empty for the recipe's.", None,
            type=["null", "string"], path=True, maxLength=1000,
        ),
        "backbone": _field(
            "--backbone", "Model", "Backbone", "Of the recipes on features: a SavedModel folder or Keras file of your"
            " own in place of the recipe's backbone. Empty for the recipe's.", None,
            type=["null", "string"], path=True, maxLength=1000,
        ),
        "epochs": _field(
            "--epochs", "Model", "Epochs", "Of the last phase; empty for the recipe's.", None,
            type=["null", "integer"], minimum=1, maximum=10_000,
        ),
        "batch_size": _field(
            "--batch-size", "Model", "Batch size", "Images per step; empty for the recipe's.", None,
            type=["null", "integer"], minimum=1, maximum=65_536,
        ),
        "seed": _field(
            "--seed", "Model", "Seed", "Of weights, shuffling and augmentation; empty for the recipe's.", None,
            type=["null", "integer"], minimum=0, maximum=2**31 - 1,
        ),
        "folds": _field(
            "--folds", "Model", "Folds", "Decide by so many folds by patient, each trained as a task of its own; empty:"
            " as the recipe says, mostly by the test split.", None, type=["null", "integer"], minimum=2, maximum=20,
        ),
        "holdout": _field(
            "--holdout", "Model", "Held out of all folds", "test: the test split, to measure the served model on it.",
            DEFAULT, type="string", enum=[DEFAULT, "none", "test"],
        ),
        "gate_policy": _field(
            "--gate-policy", "Rules", "Compared with the champion", "better: only what is shown to be better replaces"
            " it; non-inferior: also what is shown to be at most the recipe's margin below it; auto: the latter for a"
            " mere retraining (recipe and code of the champion, all its training patients and more), else the former.",
            "auto", type="string", enum=["auto", "better", "non-inferior", DEFAULT],
        ),
        "accept_drift": _field(
            "--accept-drift", "Rules", "Accept a shift of colours because",
            "A reason, kept in the run and in the report. Empty: a shift against the champion's data fails the run.",
            None, type=["null", "string"], maxLength=300, pattern="^[^\\x00-\\x1f\\x7f]*(?![\\s\\S])",
            words="single line of text",
        ),
        "force": _field(
            "--force", "Rules", "Train although nothing has changed", "Otherwise an unchanged run is skipped.", False,
            type="boolean",
        ),
    }  # fmt: skip


def predict_fields(adapter: Adapter) -> dict[str, Any]:
    """Form fields of DATASET_predict by name.

    Args:
        adapter: Of the data set.
    """
    return {
        "input": _field(
            "--input", "Data", "Input folder", "Absolute folder with PNG and TIFF images, in the data set's layout or"
            " in any other.", "", type="string", path=True, maxLength=1000,
        ),
        "task": _task(adapter),
        "groups_csv": _field(
            "--groups-csv", "Data", "Patients of the patches", "CSV file with patch id and patient or slide, where the"
            " folder says neither.", None, type=["null", "string"], path=True, maxLength=1000,
        ),
        "version": _field(
            "--version", "Model", "Version", "VERSION or RUN_ID; empty for the champion.", None,
            type=["null", "string"], maxLength=100, pattern="^(?:[A-Za-z0-9][A-Za-z0-9._-]*)?(?![\\s\\S])",
            words="VERSION or RUN_ID",
        ),
        "fail_on_drift": _field(
            "--fail-on-drift", "Rules", "A shift of colours is a failure", "Otherwise the task `drift` is skipped with"
            " a warning. The images are scored in either case.", False, type="boolean",
        ),
    }  # fmt: skip


def sweep_fields(adapter: Adapter) -> dict[str, Any]:
    """Form fields of DATASET_sweep by name.

    Args:
        adapter: Of the data set.
    """
    return {
        "task": _task(adapter),
        "recipes": _field(
            "--recipes", "Search", "Recipes", "Names, separated by commas. Empty: all that were made for the data set.",
            None, type=["null", "string"], maxLength=1000, pattern="^[A-Za-z0-9_., -]*(?![\\s\\S])",
            words="list of recipes, separated by commas",
        ),
        "search_file": _field(
            "--search", "Search", "Search file", "YAML with recipes and the fields to search,"
            " such as options.backbone; empty: each recipe once.",
            None, type=["null", "string"], path=True, maxLength=1000,
        ),
        "oracle": _field(
            "--oracle", "Search", "Trials are drawn", "default: each recipe once, or at random with a search file.",
            DEFAULT, type="string", enum=[DEFAULT, "list", "grid", "random"],
        ),
        "trials": _field(
            "--trials", "Search", "Trials", "At most so many; empty for the search's own number.", None,
            type=["null", "integer"], minimum=1, maximum=1000,
        ),
        "minutes": _field(
            "--minutes", "Search", "Minutes of training", "In all; what runs then ends after its epoch. Empty: no"
            " limit.", None, type=["null", "number"], minimum=0.1, maximum=20_160,
        ),
        "folds": _field(
            "--folds", "Search", "Folds", "Each trial is scored by so many folds inside train and eval, and costs as"
            " many trainings. Empty: on eval.", None, type=["null", "integer"], minimum=2, maximum=20,
        ),
        "seed": _field(
            "--seed", "Search", "Seed", "Of the order in which trials are drawn.", 0, type="integer", minimum=0,
            maximum=2**31 - 1,
        ),
    }  # fmt: skip


def prune_fields() -> dict[str, Any]:
    """Form fields of histoline_prune by name."""
    from components.pruning.rules import Rules

    rules, age = Rules(), "^[0-9]+(?:[.][0-9]+)?[smhdw](?![\\s\\S])"

    def newest(name: str, what: str, least: int, more: str = "") -> dict[str, Any]:
        text = f"The newest of each data set and task stay{more}, and all that something needs."
        default = getattr(rules, f"keep_{name}")
        limits = {"type": "integer", "minimum": least, "maximum": 100_000}
        return _field(f"--keep-{name}", "What stays", what, text, default, **limits)

    return {
        "delete": _field(
            "--yes", "What happens", "Delete", "Otherwise the Report tab only tells what would go, and why.", True,
            type="boolean",
        ),
        "keep_runs": newest("runs", "Runs to keep", 0, "; those that found nothing new are counted apart"),
        "keep_sweeps": newest("sweeps", "Sweeps to keep", 0),
        "keep_datasets": newest("datasets", "Data sets to keep", 1, ", the latest among them"),
        "older_than": _field(
            "--older-than", "What stays", "Whatever is younger than", "30d, 12h: what was changed since stays.", "7d",
            type="string", maxLength=20, pattern=age, words="age such as 30d or 12h",
        ),
        "abandoned_after": _field(
            "--abandoned-after", "What stays", "Give up what is not over after", "Runs and sweeps that nobody has"
            " worked on for so long, such as 30d. Empty: they stay.", None,
            type=["null", "string"], maxLength=20, pattern=age, words="age such as 30d or 12h",
        ),
    }  # fmt: skip


def text() -> str:
    """The catalogue as the file holds it."""
    return json.dumps(build(), indent=1, ensure_ascii=False) + "\n"


@click.command("catalog")
@click.option("--output", default=str(FILE), show_default="dags/catalog.json", help="File to write.")
@click.option("--check", is_flag=True, help="Write nothing; exit 65 where the file is not up to date.")
@json_option
def command(output: str, check: bool, as_json: bool) -> None:
    """Write what Airflow's forms offer: data sets, tasks, models, presets and ranges."""
    path = Path(output)
    if not path.parent.is_dir():
        raise UsageError(f"There is no folder {path.parent}.", "Run this in a checkout, or give --output.")
    made = text()
    if check:
        if not path.is_file() or path.read_text(encoding="utf-8") != made:
            raise DataError(f"{path} is not what the code says.", "Run: histoline catalog, and commit the file.")
    else:
        path.write_text(made, encoding="utf-8")
    message = f"{path} is up to date." if check else f"Wrote {path}."
    console.emit({"file": str(path), "written": not check}, as_json, lambda: click.echo(message))


if __name__ == "__main__":
    sys.exit(console.run(lambda: command.main(standalone_mode=False, prog_name="python -m pipelines.catalog")))
