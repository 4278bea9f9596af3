"""A version that is not what was published is refused, and the file is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from components.errors import DataError
from components.promotion import version_digests
from components.promotion.version_digests import NAME, check, findings, write


@pytest.fixture
def version(tmp_path: Path) -> Path:
    (tmp_path / "variables").mkdir()
    (tmp_path / "assets.extra").mkdir()
    for name in ("saved_model.pb", "variables/v.data", "assets.extra/histoline.json"):
        (tmp_path / name).write_bytes(name.encode())
    write(tmp_path)
    return tmp_path


def test_every_file_counts(version: Path) -> None:
    assert findings(version) == [] and len(json.loads((version / NAME).read_text())["files"]) == 3
    for name in ("saved_model.pb", "variables/v.data", "assets.extra/histoline.json"):
        before = (version / name).read_bytes()
        (version / name).write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        assert findings(version) == [f"{name} has changed"]
        with pytest.raises(DataError, match=f"x is not what was published: {name} has changed"):
            check(version, "x")
        (version / name).write_bytes(before)
    (version / "variables/v.data").unlink()
    (version / "more").write_text("")
    assert findings(version) == ["more was added", "variables/v.data is missing"]


def test_the_digests_vouch_for_themselves(version: Path) -> None:
    document = json.loads((version / NAME).read_text())
    document["files"]["saved_model.pb"] = "0" * 64
    (version / NAME).write_text(json.dumps(document))
    assert findings(version) == [f"{NAME} was edited"]
    (version / NAME).write_text("{")
    assert findings(version) == [f"{NAME} is damaged"]


def test_versions_of_before_are_not_refused(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"x")
    assert not version_digests.is_vouched(tmp_path) and findings(tmp_path) == []
