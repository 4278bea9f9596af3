"""A tiny IDC-like data set that a network learns in a moment and colours say nothing about, and the commands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.support import ingest_help, trees

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    "--preset",
    "idc_quick",
    "--set",
    "augmentation=none",
    "--set",
    "phases.0.epochs=3",
    "--set",
    "batch_size=16",
)


def draw(root: Path, patients: int = 40, per_class: int = 5, red: int = 0) -> Path:
    """A raw IDC folder: positive patches have vertical stripes, negative ones the same stripes lying down.

    Args:
        root: New folder.
        patients: Each with a brightness of its own.
        per_class: Patches of each class per patient.
        red: Added to the red channel everywhere: another scanner.
    """
    for number in range(patients):
        rng = np.random.default_rng(number)
        own = rng.normal(0, 8, 3)
        for label in (0, 1):
            for i in range(per_class):
                path = root / trees.idc_path(str(9000 + number), label, 50 * i + 1, 101)
                path.parent.mkdir(parents=True, exist_ok=True)
                stripes = 30 * np.sign(np.sin(np.arange(50) * 0.8 + rng.uniform(0, 6)))
                image = (
                    np.broadcast_to(stripes if label else stripes[:, None], (50, 50))[..., None] + 130 + own
                )
                image = image + rng.normal(0, 4, (50, 50, 3)) + np.array([red, 0, 0])
                Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path)
    return root


def run(
    module: str, *args: object, path: Path | None = None, timeout: float = 600, **env: str
) -> subprocess.CompletedProcess[str]:
    """Runs `python -m pipelines.MODULE`.

    Args:
        module: Name of the command.
        args: Its arguments.
        path: Searched for modules before anything else.
        timeout: Seconds.
        env: Added to the environment.
    """
    found = f"{path}{os.pathsep}{ROOT}" if path else str(ROOT)
    return subprocess.run(
        [sys.executable, "-m", f"pipelines.{module}", *map(str, args)],
        cwd=ROOT, env={**ingest_help.environment(**env), "PYTHONPATH": found}, timeout=timeout, text=True,
        capture_output=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def no_tfx(folder: Path) -> Path:
    """A folder for `run(path=...)` in which importing TFX, Beam or TensorFlow fails."""
    for name in ("tfx", "tensorflow", "apache_beam", "keras"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "__init__.py").write_text("raise ImportError('this must not be loaded here')\n")
    return folder


def record(workspace: Path, run_id: str) -> dict[str, Any]:
    """run.json of a run on idc binary."""
    return json.loads((workspace / "runs" / "idc" / "binary" / run_id / "run.json").read_text())


def lineage(workspace: Path) -> Any:
    """ML Metadata of idc binary."""
    from ml_metadata import metadata_store
    from ml_metadata.proto import metadata_store_pb2

    connection = metadata_store_pb2.ConnectionConfig()
    connection.sqlite.filename_uri = str(workspace / "metadata" / "idc-binary.sqlite")
    return metadata_store.MetadataStore(connection)


class Trained:
    """A workspace in which one run was promoted."""

    def __init__(self, root: Path) -> None:
        self.raw = draw(root / "raw")
        self.workspace = root / "w"
        self.data = ingest_help.ingest(self.raw, self.workspace)
        self.result_file = root / "result.json"
        self.done = run(
            "train", "idc", "--workspace", self.workspace, "--run-id", "first", "--json", "--tensorboard", *TINY,
            HISTOLINE_RESULT_JSON=str(self.result_file),
        )  # fmt: skip

    def copy(self, folder: Path) -> Path:
        """A copy of the workspace, for what changes it."""
        return Path(shutil.copytree(self.workspace, folder / "w"))
