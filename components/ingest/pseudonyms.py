"""Keyed pseudonyms for group, slide and patch ids and paths.

HMAC-SHA256 with a key that never leaves its file; without the key a token can't be tied to its id, and equal ids give
equal tokens, so that splits stay patient-disjoint over many ingests.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import hmac
import io
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from components.core import arrow_arrays
from components.core.regular_files import read_regular
from components.errors import HistolineError, UsageError

MIN_KEY_BYTES = 16
TOKEN_HEX = 24

_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Pseudonymiser:
    """Turns ids into tokens.

    Attributes:
        key: At least 16 bytes.
    """

    key: bytes = dataclasses.field(repr=False)

    @classmethod
    def from_file(cls, path: Path) -> Pseudonymiser:
        """Reads the key.

        Raises:
            UsageError: The file is missing, too short, or readable by others.
        """
        try:
            mode = path.stat().st_mode
            key = read_regular(path).strip()
        except OSError as error:
            raise UsageError(
                f"The key file {path} can't be read: {error.strerror}.",
                f"Make one with: (umask 077; head -c 32 /dev/urandom | base64 > {path})",
            ) from None
        if stat.S_IMODE(mode) & 0o077:
            raise UsageError(f"The key file {path} is readable by others.", f"chmod 600 {path}")
        if len(key) < MIN_KEY_BYTES:
            raise UsageError(f"The key in {path} has {len(key)} bytes; at least {MIN_KEY_BYTES} are needed.")
        return cls(key)

    @property
    def fingerprint(self) -> str:
        """Names the key without telling it; stored in the ledger and the manifest."""
        return self.token("fingerprint", "histoline")[:16]

    def token(self, field: str, value: str) -> str:
        """Token of a value; the field separates equal strings that mean different things. Empty stays empty."""
        if not value:
            return ""
        message = f"{field}\0{value}".encode()
        return hmac.new(self.key, message, hashlib.sha256).hexdigest()[:TOKEN_HEX]

    def column(self, field: str, values: pa.Array | pa.ChunkedArray) -> pa.Array:
        """Tokens of a string column; each distinct value is hashed once."""
        if isinstance(values, pa.ChunkedArray):
            values = values.combine_chunks()
        coded = values.dictionary_encode()
        tokens = arrow_arrays.strings([self.token(field, v) for v in coded.dictionary.to_pylist()])
        return tokens.take(coded.indices) if len(tokens) else values


@dataclasses.dataclass(frozen=True)
class PathMap:
    """Token-to-path map of a pseudonymised ingest.

    Attributes:
        tokens: Tokens of all paths, written and rejected (string array).
        paths: The path of each.
    """

    tokens: pa.Array
    paths: pa.Array


@contextlib.contextmanager
def withholding(active: bool) -> Iterator[None]:
    """Takes what is quoted (ids, paths, cells of a CSV) out of the errors of its block.

    Messages end in logs, and a log under `--pseudonymise` holds no raw id.

    Args:
        active: Whether ids are to be pseudonyms.
    """
    try:
        yield
    except HistolineError as error:
        if not active:
            raise
        what, fix = (_QUOTED.sub("(withheld)", text) for text in (error.what, error.fix))
        hint = "Names are withheld under --pseudonymise; without it (and with another --workspace) they are shown."
        raise type(error)(what, f"{fix} {hint}".strip()) from None


def write_path_map(path: Path, path_map: PathMap) -> None:
    """Adds to the token-to-path map (CSV `token,path`, mode 0600) that only the key's owner keeps.

    Raises:
        UsageError: The file can't be written.
    """
    import csv

    try:
        known = dict(read_path_map(path)) if path.exists() else {}
        known.update(zip(path_map.tokens.to_pylist(), path_map.paths.to_pylist()))
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        with open(
            os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", newline="", encoding="utf-8"
        ) as file:
            writer = csv.writer(file)
            writer.writerow(("token", "path"))
            writer.writerows(sorted(known.items()))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UsageError(
            f"The path map {path} can't be written: {error.strerror}.", "Choose another --path-map."
        ) from None


def read_path_map(path: Path) -> dict[str, str]:
    """Reads what `write_path_map` wrote: token -> path.

    Raises:
        UsageError: The file is missing.
    """
    import csv

    try:
        text = read_regular(path).decode("utf-8")
        return {row["token"]: row["path"] for row in csv.DictReader(io.StringIO(text, newline=""))}
    except OSError as error:
        raise UsageError(
            f"The path map {path} can't be read: {error.strerror}.", "It lies beside the key that ingest was given."
        ) from None
