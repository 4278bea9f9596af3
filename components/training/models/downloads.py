"""Published weights from the network: fetched once, tried again, and proved at each use."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from pathlib import Path

from components.errors import TemporaryError
from components.training.models.info import ModelInfo

TIMEOUT_S = 60.0
"""A server that says nothing for so long counts as no network."""

WAITS_S = (2.0, 8.0)
"""Before the second and the third try."""


def fetch(url: str, info: ModelInfo) -> str:
    """Downloads published weights once into Keras' cache folder (`KERAS_HOME`, default `~/.keras`).

    The digest of what came stands beside the file; a copy that no longer has it is fetched anew.

    Args:
        url: Where they are published.
        info: Of the model, for messages.

    Returns:
        Path of the file.

    Raises:
        TemporaryError: No network, or every try was cut; says how to supply the file.
    """
    for wait in (*WAITS_S, None):
        try:
            return _proved(_download(url), url)
        except Exception as error:  # get_file raises bare Exception where the server can't be reached
            if wait is None:
                raise TemporaryError(
                    f"the ImageNet weights of {info.name} could not be downloaded from {url} ({error}).",
                    "Fetch that file on a machine with a network and give it with --weights FILE "
                    "(options.weights in a recipe), or start from random weights with --weights none.",
                ) from error
            time.sleep(wait)
    raise AssertionError


def cached_file(url: str) -> Path:
    """Where `fetch` keeps what it downloads, whether it is there or not; loads nothing heavy."""
    home = os.environ.get("KERAS_HOME") or os.path.join(os.path.expanduser("~"), ".keras")
    return Path(home, "models", url.rsplit("/", 1)[1])


def is_damaged(file: Path) -> bool:
    """Whether a downloaded file is no longer what it was when it came."""
    note = _note(file)
    return note.is_file() and note.read_text(encoding="ascii").strip() != _digest(file)


def _note(file: Path) -> Path:
    """The digest beside a file."""
    return file.with_name(f"{file.name}.sha256")


def _download(url: str) -> Path:
    import keras

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_S)
    try:
        return Path(keras.utils.get_file(url.rsplit("/", 1)[1], url, cache_subdir="models"))
    finally:
        socket.setdefaulttimeout(before)


def _proved(file: Path, url: str) -> str:
    """The file's path where it is what was downloaded; a damaged copy is fetched anew."""
    note = _note(file)
    if is_damaged(file):
        file.unlink()
        note.unlink()
        file = _download(url)
    if not note.is_file():
        note.write_text(f"{_digest(file)}\n", encoding="ascii")
    return str(file)


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        for block in iter(lambda: opened.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
