"""`histoline doctor --deep`: weights that recipes start from, and files that Airflow's settings name.

Each is looked at without loading Keras: is it here, is it whole, could it be downloaded?
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import tempfile
import urllib.error
import urllib.request
from importlib import metadata
from pathlib import Path

from components.errors import HistolineError
from pipelines.doctor_checks import ROOT, Check

SECONDS = 5.0
"""To wait for a server."""

WITHOUT = "Fetch that file on a machine with a network, and give it with --weights FILE (Airflow: Weights file)."

# What Airflow itself would read, in its own environment: nothing of it is known here.
SETTINGS = """
import json
from histoline_dags.form import build_form
from histoline_dags.settings import load
from histoline_dags.settings_file import SettingsError
from histoline_dags.stages import DAGS
try:
    settings = load()
    for own in settings.datasets.values():
        for dag in DAGS:
            build_form(own, dag, settings.data_roots)
except SettingsError as error:
    raise SystemExit(str(error))
named = {
    f"{name}.train.{field}": value
    for name, own in settings.datasets.items()
    for field, value in own.defaults["train"].items()
    if value and own.entry["train"][field].get("path")
}
print(json.dumps(named))
"""


def check_weights() -> list[Check]:
    """Looks at the published weights of every recipe, then at the files that Airflow's settings name."""
    return [*(check_published(place, names) for place, names in published().items()), *check_settings()]


def published() -> dict[str, list[str]]:
    """Address or file of published weights to the recipes that start from it; a reason where there is none."""
    from components.training import models, presets
    from pipelines.recipes import PRESETS_FOLDER

    found: dict[str, list[str]] = {}
    for name in presets.names(PRESETS_FOLDER):
        config = presets.from_preset(name, folder=PRESETS_FOLDER)
        try:
            place = models.published_place(config.model, config.options)
        except HistolineError as error:
            place = f"missing: {error}"
        if place:
            found.setdefault(place, []).append(name)
    return found


def check_published(place: str, recipes: list[str]) -> Check:
    """Checks one file of published weights.

    Args:
        place: Address, file, or `missing: ` and a reason.
        recipes: That start from it.
    """
    from components.training.models.downloads import cached_file, is_damaged

    name = f"weights of {', '.join(recipes)}"
    if place.startswith("missing: "):
        return Check(name, "warn", place.removeprefix("missing: "), "Run `make setup`.")
    if not place.startswith("https:"):
        return check_packaged(name, Path(place))
    file = cached_file(place)
    if file.is_file():
        if is_damaged(file):
            return Check(name, "warn", f"{file} is damaged", "Nothing: the next run fetches it anew. Or delete it.")
        return Check(name, "ok", f"{file} ({file.stat().st_size / 1e6:.0f} MB)")
    trouble = ask_for(place)
    if trouble:
        return Check(name, "warn", f"not here, and {place} can't be had: {trouble}", WITHOUT)
    return Check(name, "ok", f"can be downloaded from {place}")


def check_packaged(name: str, file: Path) -> Check:
    """Checks a weights file that came with a package against what the package says of it."""
    wanted = recorded_digest(file)
    if wanted is None:
        return Check(name, "ok", f"{file}")
    digest = base64.urlsafe_b64encode(hashlib.sha256(file.read_bytes()).digest()).rstrip(b"=").decode()
    if digest != wanted:
        return Check(name, "fail", f"{file} is not as its package brought it", "Delete .venv and run `make setup`.")
    return Check(name, "ok", f"{file} ({file.stat().st_size / 1e6:.0f} MB), as its package brought it")


def recorded_digest(file: Path) -> str | None:
    """SHA-256 of a package's file as its RECORD has it; None where no package knows it."""
    for package in file.parents:
        for info in package.parent.glob(f"{package.name}-*.dist-info"):
            for entry in metadata.Distribution.at(info).files or ():
                if entry.name == file.name and entry.hash is not None and entry.hash.mode == "sha256":
                    return entry.hash.value
    return None


def ask_for(address: str) -> str:
    """Why a file can't be downloaded; empty where it can. Nothing is downloaded."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=SECONDS):
            return ""
    except urllib.error.HTTPError as error:
        return f"the server answers {error.code}"
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return getattr(reason, "strerror", None) or str(reason)


def check_settings(project: Path = ROOT) -> list[Check]:
    """Reads dags/settings.toml as Airflow does, and looks at the weights and backbones that it names.

    Args:
        project: The checkout; without Airflow's environment there is nothing to check.
    """
    python = project / ".venv-airflow" / "bin" / "python"
    if not python.exists():
        return []
    with tempfile.TemporaryDirectory(prefix="histoline-doctor-") as home:  # Airflow writes a file into its home
        environment = {**os.environ, **_last_roots(project), "PYTHONPATH": str(project / "dags"), "AIRFLOW_HOME": home}
        done = subprocess.run(
            [str(python), "-W", "ignore", "-c", SETTINGS], cwd=project, env=environment,
            stdin=subprocess.DEVNULL, capture_output=True, text=True,
        )  # fmt: skip
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        return [Check("airflow settings", "fail", last, "Mend dags/settings.toml, or the variable.")]
    named = json.loads(done.stdout.splitlines()[-1])
    checks = [Check("airflow settings", "ok", "dags/settings.toml can be used")]
    for place, path in named.items():
        problem = unreadable(Path(path))
        if problem:
            checks.append(Check(place, "fail", f"{path} {problem}", "Put the file there, or mend dags/settings.toml."))
        else:
            checks.append(Check(place, "ok", path))
    return checks


def unreadable(path: Path) -> str:
    """What is wrong with a file or folder of weights; empty where it can be read."""
    if not path.exists():
        return "is not there"
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    if not files:
        return "is neither a file nor a folder with files"
    for file in files:
        try:
            with file.open("rb") as opened:
                if not opened.read(1) and file == path:
                    return "is empty"
        except OSError as error:
            return f"can't be read: {error.strerror}"
    return ""


def _last_roots(project: Path) -> dict[str, str]:
    """Data roots that Airflow was started with last, where the environment says nothing else."""
    from pipelines.local_airflow.control import last_place

    before = last_place(project / ".airflow")
    if "HISTOLINE_DATA_ROOTS" in os.environ or before is None or not before.data_roots:
        return {}
    return {"HISTOLINE_DATA_ROOTS": os.pathsep.join(before.data_roots)}
