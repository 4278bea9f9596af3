"""What a promoted version consists of: a digest of every file, written last at push and checked before each use."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from components.core.json_documents import canonical
from components.errors import DataError

NAME = "assets.extra/digests.json"
"""Inside the version's folder."""

FORMAT = 1


def write(folder: Path) -> None:
    """Writes the digests of all files that are in a version's folder.

    Args:
        folder: Whole but for this file.
    """
    target = folder / NAME
    target.unlink(missing_ok=True)
    document = {"format": FORMAT, "files": _digests(folder)}
    document["document_digest"] = hashlib.sha256(canonical(document)).hexdigest()
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def is_vouched(folder: Path) -> bool:
    """Whether a version carries its digests; those of before do not, nor does a run's model."""
    return (folder / NAME).exists()


def findings(folder: Path) -> list[str]:
    """What is not as it was published, a clause a file; empty where all is, and where there are no digests."""
    if not is_vouched(folder):
        return []
    try:
        document = json.loads((folder / NAME).read_bytes())
        said = document.pop("document_digest")
        files = {str(name): str(digest) for name, digest in document["files"].items()}
        if document["format"] != FORMAT or hashlib.sha256(canonical(document)).hexdigest() != said:
            return [f"{NAME} was edited"]
    except (FileNotFoundError, IsADirectoryError, ValueError, KeyError, TypeError, AttributeError):
        return [f"{NAME} is damaged"]
    there = _digests(folder)
    missing = [f"{name} is missing" for name in files if name not in there]
    changed = [f"{name} has changed" for name in files if name in there and there[name] != files[name]]
    added = [f"{name} was added" for name in there if name not in files]
    return sorted([*missing, *changed, *added])


def check(folder: Path, where: str) -> None:
    """Refuses a version that is not what was published.

    Args:
        folder: Local folder of it.
        where: Its full name, for the message.

    Raises:
        DataError: Names the files.
    """
    wrong = findings(folder)
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise DataError(
            f"The model {where} is not what was published: {', '.join(wrong[:3])}{more}.",
            "Restore the files, or roll back to another version (histoline models rollback).",
        )


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: _sha256(path) for name, path in names.items() if name != NAME}


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
