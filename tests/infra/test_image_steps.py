"""The instructions of the images' build stages, carried out here: COPY and RUN, in a folder that stands for the root.

No container and no root are needed: `/opt` and the working directory lie in that folder, and the base image's Python is
one of this machine. What changes the system itself (packages, users, the linker's cache) is left out by name.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.dockerfile import Stage, copies, stages

ROOT = Path(__file__).resolve().parents[2]
OF_THE_SYSTEM = ("apt-get ", "groupadd ", "/sbin/ldconfig")

pytestmark = pytest.mark.e2e


def python312() -> str:
    done = subprocess.run(
        ["bash", "infra/airflow_setup.sh", "--print-python"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def carry_out(stage: Stage, root: Path, python: dict[str, str]) -> None:
    """Does what a stage's instructions say; paths of the image lie below `root`."""
    workdir = root
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(root / "home"),
        "UV_COMPILE_BYTECODE": "0",
        # Links instead of copies, from the cache that set-up has filled.
        "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR", os.path.expanduser("~/.cache/uv")),
        **{name: value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_", "SSL_"))},
    }
    for name, arguments in stage.instructions:
        if name == "WORKDIR":
            workdir = root / arguments.lstrip("/")
            workdir.mkdir(parents=True)
        elif name == "ENV":
            environ |= dict(re.findall(r"(\w+)=(\S+)", arguments))
            environ["UV_LINK_MODE"] = "hardlink"
        elif name == "COPY":
            origin, sources, target = copies(arguments)
            assert not origin, "a build stage starts from the checkout"
            for source in sources:
                copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
                copy(ROOT / source, workdir / target if source == target else workdir / Path(source).name)
        elif name == "RUN" and not arguments.startswith(OF_THE_SYSTEM):
            command = re.sub(r"--mount=\S+ ", "", arguments).replace("/opt/", f"{root}/opt/")
            for inside, here in python.items():
                command = re.sub(rf"(?<![\w/.])(/usr/local/bin/)?{re.escape(inside)}(?![\w.])", here, command)
            done = subprocess.run(
                ["sh", "-ec", command], cwd=workdir, env=environ, capture_output=True, text=True, timeout=280
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def run(root: Path, program: str, *arguments: str) -> str:
    """What a program of the image says, in an environment as bare as the image's."""
    done = subprocess.run(
        [root / program, *arguments],
        cwd=root,
        env={"HOME": str(root / "tmp"), "PATH": "/usr/bin:/bin", "AIRFLOW_HOME": str(root / "tmp")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_image_of_the_pipelines_builds_and_ingests(tmp_path: Path) -> None:
    (build, *_) = stages(ROOT / "infra" / "images" / "pipeline.Dockerfile")
    carry_out(build, tmp_path, {"python3.10": os.path.abspath(getattr(sys, "_base_executable", sys.executable))})
    code = "import components, pipelines, schemas; print(components.__file__, pipelines.__file__, schemas.__file__)"
    places = run(tmp_path, "opt/histoline/.venv/bin/python", "-I", "-c", code).split()
    assert all(place.startswith(f"{tmp_path}/opt/histoline/.venv/lib/") for place in places), places
    histoline = "opt/histoline/.venv/bin/histoline"
    run(tmp_path, histoline, "synth", "idc", "--output", "raw", "--groups", "20", "--patches", "200")
    run(tmp_path, histoline, "ingest", "idc", "--input", "raw", "--workspace", "workspace")
    assert list(tmp_path.glob("workspace/datasets/idc/binary/*/manifest.json"))


def test_the_image_of_airflow_builds_and_reads_its_settings(tmp_path: Path) -> None:
    (build, *_) = stages(ROOT / "infra" / "images" / "airflow.Dockerfile")
    carry_out(build, tmp_path, {"python3.12": python312()})
    (tmp_path / "tmp").mkdir()
    shutil.copy(ROOT / "infra" / "images" / "airflow.cfg", tmp_path / "tmp")
    # Executors and settings that Airflow does not know are told here, before any server would start.
    code = (
        "from airflow.configuration import conf; from airflow.providers.celery.executors import celery_executor; "
        "from airflow.providers.cncf.kubernetes.executors import kubernetes_executor; import asyncpg, psycopg2, redis; "
        "import configparser, os, sys; p = configparser.ConfigParser(interpolation=None); "
        "p.read(os.environ['AIRFLOW_HOME'] + '/airflow.cfg'); known = conf.configuration_description; "
        "print([(s, k) for s in p.sections() for k in p[s] "
        "if k not in known.get(s, {}).get('options', {})], conf.get('core', 'executor'))"
    )
    told = run(tmp_path, "opt/airflow-venv/bin/python", "-W", "ignore", "-c", code)
    assert told.strip().splitlines()[-1] == "[] CeleryExecutor"
