"""The project's own files: locks that name no host, a package that leaves tests and dags at home."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from pipelines.doctor_checks import locked_versions, normal_name
from tests.support import spreading

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ("requirements.lock", "requirements-dev.lock", "infra/uv.lock")
SHIPPED = {"components", "pipelines", "schemas"}
MODULE_LINES = 350


def direct(name: str) -> dict[str, str]:
    """Specifier by normalised name of the direct requirements in an .in file."""
    found = {}
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        match = re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?([^#]*)", line)
        if match:
            found[normal_name(match[1])] = match[2].strip()
    return found


def declared() -> str:
    """The tables of pyproject.toml that list requirements (Python 3.10 has no TOML reader of its own)."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return text[text.index("\ndependencies = [") : text.index("[project.scripts]")]


@pytest.mark.parametrize("name", LOCKS)
def test_lock_names_no_host_and_hashes_everything(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    requirement = r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[^\]]+\])?==\S+( ; .+)? \\"
    allowed = re.compile(rf"{requirement}|    --hash=sha256:[0-9a-f]{{64}}( \\)?|    # .*")
    strange = [line for line in text.splitlines() if not allowed.fullmatch(line)]
    assert strange == []
    assert "://" not in text
    assert " @ " not in text
    blocks = re.split(r"^(?=\S)", text, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(locked_versions(text)) > 0
    assert [block.splitlines()[0] for block in blocks if "--hash=" not in block] == []


def test_lock_holds_every_direct_requirement() -> None:
    for source in ("requirements.in", "requirements-dev.in"):
        lock = source.replace(".in", ".lock")
        locked = locked_versions((ROOT / lock).read_text(encoding="utf-8"))
        missing = [name for name in direct(source) if name not in locked]
        assert missing == [], f"{lock} is older than {source}: run `make lock`"
        moved = {
            name: locked[name]
            for name, pin in direct(source).items()
            if pin.startswith("==") and f"=={locked[name]}" != pin
        }
        assert moved == {}, f"{lock} is older than {source}: run `make lock`"


def test_what_is_tested_is_what_runs() -> None:
    runtime = locked_versions((ROOT / "requirements.lock").read_text(encoding="utf-8"))
    everything = locked_versions((ROOT / "requirements-dev.lock").read_text(encoding="utf-8"))
    assert {name: everything.get(name) for name in runtime} == runtime


@pytest.mark.parametrize("name", ["requirements.in", "requirements-dev.in"])
def test_every_requirement_has_a_reason(name: str) -> None:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not re.match(r"#|-r |\S+\s+# \S", line)] == []


def test_pyproject_repeats_the_runtime_requirements() -> None:
    names = {normal_name(name) for name in re.findall(r'"([A-Za-z0-9._-]+)[^"]*"', declared())}
    assert names - {"mlflow-skinny"} == set(direct("requirements.in")), "the extra `mlflow` is in no lock"


def test_no_module_is_long() -> None:
    folders = [ROOT / name for name in (*SHIPPED, "dags", "infra", "benchmarks", "tests")]
    files = [file for folder in folders for file in folder.rglob("*.py") if ".work" not in file.parts]
    lines = {str(file.relative_to(ROOT)): len(file.read_text(encoding="utf-8").splitlines()) for file in files}
    assert {name: count for name, count in lines.items() if count > MODULE_LINES} == {}


def top_folders(names: list[str]) -> set[str]:
    return {name.split("/", 1)[0] for name in names if "/" in name}


@pytest.mark.integration
def test_staged_package_leaves_tests_and_dags_out(tmp_path: Path) -> None:
    # As Beam does with --setup_file, but from a copy: a build leaves folders behind.
    sources = [path for path in sorted(SHIPPED | {"tests", "dags"}) if (ROOT / path).is_dir()]
    copy = tmp_path / "project"
    for name in ["setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE", *sources]:
        copy.mkdir(exist_ok=True)
        subprocess.run(["cp", "-r", str(ROOT / name), str(copy / name)], check=True)
    for command in (["sdist"], ["bdist_wheel"]):
        done = subprocess.run(
            [sys.executable, "setup.py", "-q", *command, "--dist-dir", str(tmp_path / "dist")],
            cwd=copy,
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, done.stderr
    (sdist,) = (tmp_path / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        staged = [name.split("/", 1)[1] for name in archive.getnames() if "/" in name]
    assert top_folders(staged) - {"histoline.egg-info"} == SHIPPED
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        shipped = archive.namelist()
        metadata = archive.read(next(name for name in shipped if name.endswith("/METADATA"))).decode()
        scripts = archive.read(next(name for name in shipped if name.endswith("/entry_points.txt"))).decode()
    assert {name for name in top_folders(shipped) if not name.endswith(".dist-info")} == SHIPPED
    assert "schemas/classes.json" in shipped
    assert "Requires-Python: <3.11,>=3.10" in metadata
    assert "histoline = pipelines.cli:main" in scripts
    # Everything in the folders is in the package: no module in a folder without __init__.py.
    kept = {
        path.relative_to(ROOT).as_posix()
        for name in SHIPPED
        for path in (ROOT / name).rglob("*")
        if path.is_file() and path.suffix in {".py", ".json", ".pbtxt", ".yaml", ".html", ".css", ".md"}
    }
    assert kept - set(shipped) == set()


def test_modules_that_are_spread_by_name_are_there() -> None:
    there = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    assert {*spreading.LONGEST, *spreading.TOGETHER, *spreading.TOGETHER.values()} <= there
    assert spreading.group_of("tests/pipelines/tfx/test_promoted_run.py::test_x[a::b]") == "test_train"
    assert spreading.place("tests/pipelines/test_train.py::test_x") < spreading.place("tests/test_docs.py::test_x")
