"""infra/setup.sh on machines with broken shims, without pyenv, or with nothing at all (all of them faked)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = "bash env awk sed sort cat sha256sum cut dirname uname mkdir flock rm ls head touch".split()
# What a shim of pyenv does where no version is selected.
BROKEN = "echo 'pyenv: command not found' >&2; exit 127"


def script(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


class Machine:
    """A checkout with only set-up in it, and a PATH on which only named tools are found."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "a project"
        self.bin = folder / "bin"
        self.home = folder / "home"
        for path in (self.project / "infra", self.bin, self.home):
            path.mkdir(parents=True)
        for name in ("common.sh", "setup.sh"):
            shutil.copy(ROOT / "infra" / name, self.project / "infra")
        for tool in TOOLS:
            found = shutil.which(tool)
            if found is None:
                pytest.skip(f"{tool} is not on this machine")
            (self.bin / tool).symlink_to(found)

    def has_uv(self, path: Path) -> Path:
        # This uv has no Python to offer.
        return script(path, '[ "$1" = --version ] && echo "uv 0.9.1" || { echo "no network" >&2; exit 2; }')

    def has_python(self, path: Path) -> Path:
        return script(path, f'exec "{sys.executable}" "$@"')

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.bin / "bash"), "infra/setup.sh", *arguments],
            cwd=self.project,
            env={"PATH": str(self.bin), "HOME": str(self.home), **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def interpreter() -> str:
    """What set-up prints for this interpreter: the base of a virtual environment, never the environment."""
    return os.path.abspath(getattr(sys, "_base_executable", sys.executable))


@pytest.mark.parametrize("place", ["bin/uv", "home/.local/bin/uv", "a project/.tools/uv/bin/uv"])
def test_uv_is_found_wherever_it_is(machine: Machine, tmp_path: Path, place: str) -> None:
    uv = machine.has_uv(tmp_path / place)
    done = machine.run("--print-uv")
    assert (done.returncode, done.stdout.strip()) == (0, str(uv)), done.stderr


def test_a_broken_or_old_uv_on_the_path_is_passed_over(machine: Machine) -> None:
    uv = machine.has_uv(machine.home / ".local/bin/uv")
    for body in (BROKEN, "echo 'uv 0.1.9'"):
        script(machine.bin / "uv", body)
        assert machine.run("--print-uv").stdout.strip() == str(uv)


def test_without_uv_and_python_the_message_says_what_to_install(machine: Machine) -> None:
    script(machine.bin / "python3", BROKEN)
    done = machine.run()
    assert done.returncode == 69
    assert "no uv and no Python" in done.stderr
    assert "apt-get install python3" in done.stderr


@pytest.mark.parametrize(
    "place", ["bin/python3.10", "bin/python", "home/.pyenv/versions/3.10.13/bin/python3.10"]
)
def test_python_is_found_behind_broken_shims(machine: Machine, tmp_path: Path, place: str) -> None:
    machine.has_uv(machine.bin / "uv")
    script(machine.bin / "python3", BROKEN)
    machine.has_python(tmp_path / place)
    done = machine.run("--print-python")
    assert (done.returncode, done.stdout.strip()) == (0, interpreter()), done.stderr


def test_without_python_310_the_message_says_how_to_get_it(machine: Machine) -> None:
    machine.has_uv(machine.bin / "uv")
    script(machine.bin / "python3", BROKEN)
    done = machine.run()
    assert done.returncode == 69
    assert "Python 3.10 was not found and could not be downloaded" in done.stderr
    assert "PYTHON310=" in done.stderr
    assert not (machine.project / ".venv").exists()


def test_a_wrong_choice_is_refused_rather_than_replaced(machine: Machine) -> None:
    machine.has_uv(machine.bin / "uv")
    machine.has_python(machine.bin / "python3.10")
    wrong = script(machine.home / "python", BROKEN)
    for variable in ("PYTHON310", "HISTOLINE_UV"):
        done = machine.run("--print-python", **{variable: str(wrong)})
        assert done.returncode == 69
        assert f"{variable}={wrong}" in done.stderr
