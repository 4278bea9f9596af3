"""infra/airflow_setup.sh: which Python it takes, and what it says where there is none (all of them faked)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.infra.test_setup import BROKEN, ROOT, Machine, script


def python(version: str) -> str:
    """A program that says, when it is asked for this version, that it is one."""
    return f'for last; do :; done; [ "$last" = {version} ] && echo /found/{version} || exit 1'


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    shutil.copy(ROOT / "infra" / "airflow_setup.sh", machine.project / "infra" / "setup.sh")
    return machine


@pytest.mark.parametrize("place", ["bin/python3.12", "bin/python3", "home/.pyenv/versions/3.12.1/bin/python3.12"])
def test_python_312_is_found_before_311_and_behind_broken_shims(machine: Machine, tmp_path: Path, place: str) -> None:
    script(machine.bin / "python", BROKEN)
    script(machine.bin / "python3.11", python("3.11"))
    script(tmp_path / place, python("3.12"))
    done = machine.run("--print-python")
    assert (done.returncode, done.stdout.strip()) == (0, "/found/3.12"), done.stderr


def test_python_311_will_do(machine: Machine) -> None:
    script(machine.bin / "python3", BROKEN)
    script(machine.bin / "python3.11", python("3.11"))
    assert machine.run("--print-python").stdout.strip() == "/found/3.11"


@pytest.mark.parametrize(("version", "code"), [("3.12", 0), ("3.11", 0), ("3.13", 69)])
def test_a_named_python_is_taken_or_refused(machine: Machine, version: str, code: int) -> None:
    named = script(machine.home / "python", python(version))
    done = machine.run("--print-python", PYTHON312=str(named))
    assert done.returncode == code
    if code:
        assert "PYTHON312=" in done.stderr


def test_an_unknown_option_is_refused(machine: Machine) -> None:
    assert machine.run("--nosuch").returncode == 69
