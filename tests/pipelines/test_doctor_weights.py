"""`histoline doctor --deep` looks at weights: published ones, packaged ones, those that Airflow's settings name."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.training import models
from components.training.models.downloads import cached_file
from pipelines import doctor_weights

URL = "https://weights.invalid/models/resnet50.h5"


@pytest.fixture
def keras_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    cached_file(URL).parent.mkdir(parents=True)
    return tmp_path / "keras"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "w.h5").write_bytes(b"weights")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()


def test_every_recipe_that_starts_from_published_weights_is_named() -> None:
    found = doctor_weights.published()
    names = {name for recipes in found.values() for name in recipes}
    assert {"idc_mobilenet_v2", "idc_lite0", "idc_features", "breakhis_binary_resnet50"} <= names
    assert not {"idc_quick", "idc_cnn_105k", "pcam_cnn"} & names
    assert models.published_place("ensemble", {"weights": "none"}) == ""


def test_a_copy_is_proved_by_its_digest(keras_home: Path) -> None:
    file = cached_file(URL)
    assert file.is_relative_to(keras_home)
    file.write_bytes(b"weights")
    file.with_name(f"{file.name}.sha256").write_text(hashlib.sha256(b"weights").hexdigest() + "\n")
    check = doctor_weights.check_published(URL, ["r"])
    assert (check.status, check.name) == ("ok", "weights of r") and str(file) in check.finding
    file.write_bytes(b"wEights")
    check = doctor_weights.check_published(URL, ["r"])
    assert check.status == "warn" and "damaged" in check.finding and check.fix


def test_what_is_not_here_is_asked_for(keras_home: Path, server: str) -> None:
    assert doctor_weights.ask_for(f"{server}/w.h5") == ""
    assert doctor_weights.ask_for(f"{server}/none.h5") == "the server answers 404"
    assert doctor_weights.ask_for("http://127.0.0.1:9/w.h5") == "Connection refused"
    check = doctor_weights.check_published(URL, ["r"])
    assert check.status == "warn" and "not here" in check.finding and "--weights FILE" in check.fix


def test_a_packaged_file_is_as_its_package_brought_it(tmp_path: Path) -> None:
    (place,) = [place for place in doctor_weights.published() if not place.startswith("https:")]
    check = doctor_weights.check_published(place, ["idc_lite0"])
    assert check.status == "ok" and check.finding.endswith("as its package brought it")
    # The same package with another byte in its weights.
    package = Path(place).parents[1]
    shutil.copytree(package, tmp_path / package.name)
    (info,) = package.parent.glob(f"{package.name}-*.dist-info")
    shutil.copytree(info, tmp_path / info.name)
    copy = tmp_path / Path(place).relative_to(package.parent)
    assert doctor_weights.check_published(str(copy), ["x"]).status == "ok"
    data = bytearray(copy.read_bytes())
    data[1000] ^= 1
    copy.write_bytes(data)
    assert doctor_weights.check_published(str(copy), ["x"]).status == "fail"
    assert doctor_weights.check_published("missing: the package is gone", ["x"]).status == "warn"


def project(folder: Path, body: str) -> Path:
    """A checkout whose Airflow environment says what a test wants."""
    python = folder / ".venv-airflow" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\n{body}\n")
    python.chmod(0o755)
    return folder


def test_files_of_the_settings(tmp_path: Path) -> None:
    assert doctor_weights.check_settings(tmp_path) == [], "no Airflow here"
    (tmp_path / "w.h5").write_bytes(b"x")
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    named = {f"idc.train.{name}": str(tmp_path / name) for name in ("w.h5", "empty", "folder", "pipe", "gone")}
    checks = doctor_weights.check_settings(project(tmp_path, f"echo '{json.dumps(named)}'"))
    assert [check.status for check in checks] == ["ok", "ok", "fail", "fail", "fail", "fail"]
    assert [check.finding.rpartition(" is ")[2] for check in checks[2:]] == [
        "empty", "neither a file nor a folder with files", "neither a file nor a folder with files", "not there",
    ]  # fmt: skip


def test_settings_that_airflow_would_refuse(tmp_path: Path) -> None:
    (check,) = doctor_weights.check_settings(project(tmp_path, "echo 'idc.train.epochs is 0' >&2; exit 1"))
    assert (check.status, check.finding) == ("fail", "idc.train.epochs is 0")
