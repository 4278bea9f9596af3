"""Where input may come from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from components.core.data_roots import VARIABLE, check_root, read_roots
from components.errors import UsageError
from tests.support import ingest_help as help


def env(*roots: object) -> dict[str, str]:
    return {VARIABLE: os.pathsep.join(map(str, roots))}


def test_without_roots_anything_goes(tmp_path: Path) -> None:
    for given in ({}, env(""), env(" ")):
        check_root("--input", "/anywhere", given)
    check_root("--groups-csv", None, env(tmp_path))


def test_inside_and_the_root_itself(tmp_path: Path) -> None:
    for path in (tmp_path / "a", tmp_path / "a" / "b", f"{tmp_path}/a/../a/c"):
        check_root("--input", path, env("/elsewhere", tmp_path / "a"))


@pytest.mark.parametrize("path", ["{0}/ab", "{0}", "{0}/a/../b", "/etc", "gs://bucket/a", "relative"])
def test_outside(tmp_path: Path, path: str) -> None:
    with pytest.raises(UsageError, match="data root"):
        check_root("--input", path.format(tmp_path), env(tmp_path / "a"))


def test_links_are_followed_both_ways(tmp_path: Path) -> None:
    inside, outside = tmp_path / "root", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (inside / "link").symlink_to(outside)
    (tmp_path / "alias").symlink_to(inside)
    with pytest.raises(UsageError):
        check_root("--input", inside / "link" / "x", env(inside))
    check_root("--input", inside / "x", env(tmp_path / "alias"))


def test_buckets() -> None:
    roots = env("/data", "gs://bucket/raw", "gs://other")
    assert read_roots(roots) == ("/data", "gs://bucket/raw", "gs://other")
    check_root("--input", "gs://bucket/raw/idc", roots)
    check_root("--input", "gs://other", roots)
    for path in ("gs://bucket/rawer", "gs://bucket/raw/../x", "gs://bucket", "gs://otherwise/x"):
        with pytest.raises(UsageError):
            check_root("--input", path, roots)


@pytest.mark.integration
@pytest.mark.parametrize("option", ["--input", "--groups-csv", "--splits-csv", "--ledger", "--exclude-groups"])
def test_ingest_keeps_to_them(tmp_path: Path, option: str) -> None:
    root, link = tmp_path / "root", tmp_path / "root" / "link"
    root.mkdir()
    link.symlink_to("/etc")
    given = ["--input", root] if option != "--input" else []
    done = help.run("idc", *given, option, link, "--workspace", tmp_path / "w", HISTOLINE_DATA_ROOTS=str(root))
    assert done.returncode == 64
    assert option in done.stderr and "data root" in done.stderr
