"""Lists the image files of a folder or bucket once, straight into Arrow columns.

Every later step works on this listing: 277,524 paths as Python objects would cost a hundred megabytes.
"""

from __future__ import annotations

import array
import dataclasses
import os
import stat
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import xxhash

from components.adapters import drawn_mark
from components.core.regular_files import read_regular
from components.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

IMAGE_EXTENSIONS = frozenset({".png", ".tif", ".tiff"})
"""A file with one of these (whatever its case) is *found*, and so written or rejected, in every data set."""

GCS_SCHEME = "gs://"

_CHUNK = 20_000  # files held as Python strings at a time; one PCam folder alone holds 220,025


@dataclasses.dataclass(frozen=True)
class Listing:
    """The image files under a root.

    Attributes:
        files: Columns path (in the root, POSIX), size (bytes) and version (mtime_ns or generation), sorted by path.
        rejects: (path, code, detail) of image files that no adapter needs to look at.
        ignored: Number of files that are no images by extension.
        warnings: Sentences for the summary.
        fingerprint: Digest of names, sizes and versions of all files; may change with the order of listing, never stays
            the same when a file changes.
        drawn: Whether it, a folder in it or one around it carries `drawn_mark`, which counts as no file.
    """

    files: pa.Table
    rejects: list[tuple[str, str, str]]
    ignored: int
    warnings: list[str]
    fingerprint: str
    drawn: bool = False


def extension_of(name: str) -> str:
    """Lower-case extension with its dot; empty for names such as `.png` that are all extension."""
    return os.path.splitext(name)[1].lower()


def list_images(root: str, extensions: Iterable[str]) -> Listing:
    """Lists every image file under a folder or a `gs://bucket/prefix`.

    Links to folders are not followed (a warning names them), so loops cannot arise. Links to files are
    followed where the target lies inside the root. Hidden files and folders (leading dot) and `__MACOSX` hold
    no patches: what is an image by extension in there is a reject, like every other image that is not taken.

    Args:
        root: Folder, or `gs://bucket/prefix`.
        extensions: Extensions that the data set takes, lower case with the dot. Other image files are
            rejected as `wrong_format`.

    Raises:
        UsageError: The root is missing or no folder, or a folder in it is unreadable.
        TemporaryError: The bucket did not answer.
    """
    collector = _Collector(frozenset(extensions))
    if root.startswith(GCS_SCHEME):
        _list_bucket(root, collector)
    else:
        _list_folder(root, collector)
    return collector.listing()


def fingerprint_folder(root: str, extensions: Iterable[str]) -> str:
    """The `fingerprint` that `list_images` would give, without a listing and without loading Arrow.

    Args:
        root: A local folder.
        extensions: As for `list_images`.

    Raises:
        UsageError: As `list_images`.
    """
    collector = _Collector(frozenset(extensions), keep=False)
    _list_folder(root, collector)
    return collector.fingerprint()


def read_file(root: str, path: str) -> bytes | None:
    """Reads a small file beside the images, such as a label CSV; None where there is none.

    Args:
        root: What was given to `list_images`.
        path: Path relative to it.

    Raises:
        UsageError: The file is there but can't be read.
        TemporaryError: The bucket did not answer.
    """
    if root.startswith(GCS_SCHEME):
        from components.storage.gcs_client import gcs_errors, retry_for

        bucket, prefix = open_bucket(root)
        with gcs_errors("reading", f"{root}/{path}"):
            blob = bucket.get_blob(prefix + path, retry=retry_for())
            return None if blob is None else bytes(blob.download_as_bytes(retry=retry_for()))
    full = os.path.join(root, path)
    try:
        return read_regular(full)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"Cannot read {full!r}: {error.strerror}.", "Check its permissions.") from error


class _Collector:
    """Gathers files into Arrow chunks; paths stay Python strings for one chunk only."""

    def __init__(self, extensions: frozenset[str], keep: bool = True) -> None:
        self.extensions = extensions
        self.keep = keep
        self.digest = xxhash.xxh3_128()
        self.others = xxhash.xxh3_128()
        self.columns: list[tuple[Any, Any, Any]] = []
        self.found = IMAGE_EXTENSIONS | extensions
        self.longest = max(map(len, self.found))
        self.by_ending: dict[str, str] = {}
        self.paths: list[str] = []
        self.sizes = array.array("q")
        self.versions = array.array("q")
        self.rejects: list[tuple[str, str, str]] = []
        self.ignored = 0
        self.warnings: list[str] = []
        self.drawn = False

    def extension(self, name: str) -> str:
        """Extension of an image file, empty for any other file."""
        found = extension_of(name)
        found = found if found in self.found else ""
        # The last characters decide (but for names like `.png`), and a folder has few different ones.
        if not name.startswith(".") and len(self.by_ending) < _CHUNK:
            self.by_ending[name[-self.longest :]] = found
        return found

    def reject(self, path: str, code: str, detail: str) -> None:
        self.rejects.append((_printable(path), code, detail))

    def add(self, path: str, extension: str, size: int, version: int) -> None:
        if extension not in self.extensions:
            self.reject(path, "wrong_format", f"{extension} files are not part of this data set")
            return
        self.paths.append(path)
        self.sizes.append(size)
        self.versions.append(version)
        if len(self.paths) >= _CHUNK:
            self.flush()

    def ignore(self, path: str, info: os.stat_result | None) -> None:
        if path.rpartition("/")[2] == drawn_mark.NAME:
            self.drawn = True
            return
        self.ignored += 1
        facts = (info.st_size, info.st_mtime_ns) if info else ()
        self.others.update(f"{path}\0{facts}\0".encode("utf-8", "surrogateescape"))

    def flush(self) -> None:
        paths, sizes, versions = self.paths, self.sizes, self.versions
        self.paths, self.sizes, self.versions = [], array.array("q"), array.array("q")
        self.digest.update("\0".join(paths).encode("utf-8", "surrogateescape"))
        self.digest.update(sizes.tobytes() + versions.tobytes())
        if not self.keep:
            return
        import pyarrow as pa

        from components.core import arrow_arrays

        try:
            column = arrow_arrays.strings(paths)
        except UnicodeEncodeError:  # surrogates stand for bytes that are not UTF-8; rare, so found by failing
            for path in paths:
                if not _is_utf8(path):
                    self.reject(path, "bad_name", "the path is not valid UTF-8")
            good = [i for i, path in enumerate(paths) if _is_utf8(path)]
            sizes = array.array("q", (sizes[i] for i in good))
            versions = array.array("q", (versions[i] for i in good))
            column = arrow_arrays.strings([paths[i] for i in good])
        numbers = (arrow_arrays.numbers(values, pa.int64()) for values in (sizes, versions))
        self.columns.append((column, *numbers))

    def fingerprint(self) -> str:
        self.flush()
        odd = repr((sorted(path for path, _, _ in self.rejects), self.ignored, sorted(self.warnings)))
        whole = self.digest.hexdigest() + self.others.hexdigest() + odd
        return str(xxhash.xxh3_128_hexdigest(whole.encode("utf-8", "surrogateescape")))

    def listing(self) -> Listing:
        import pyarrow as pa
        import pyarrow.compute as pc

        fingerprint = self.fingerprint()
        schema = pa.schema([("path", pa.string()), ("size", pa.int64()), ("version", pa.int64())])
        table = pa.Table.from_batches(
            [pa.RecordBatch.from_arrays(list(c), schema=schema) for c in self.columns], schema
        )
        self.columns = []
        table = pc.take(table, pc.sort_indices(table["path"])).combine_chunks()
        return Listing(table, sorted(self.rejects), self.ignored, sorted(self.warnings), fingerprint, self.drawn)


def _list_folder(root: str, out: _Collector) -> None:
    if not os.path.lexists(root):
        raise UsageError(f"The input folder {root!r} does not exist.", "Check --input.")
    if not os.path.isdir(root):
        raise UsageError(f"The input {root!r} is not a folder.", "Give the folder that holds the images.")
    real_root = os.path.join(os.path.realpath(root), "")
    out.drawn = drawn_mark.above(root)
    folders = [""]
    by_ending, longest, extensions = out.by_ending, out.longest, out.extensions
    while folders:
        paths, sizes, versions = out.paths, out.sizes, out.versions
        prefix = folders.pop()
        folder = os.path.join(root, prefix)
        hidden = _hidden_part(prefix)
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    name = entry.name
                    if entry.is_symlink():
                        _add_link(entry, prefix + name, hidden, real_root, out)
                        paths, sizes, versions = out.paths, out.sizes, out.versions  # it may have flushed
                    elif entry.is_dir(follow_symlinks=False):
                        folders.append(f"{prefix}{name}/")
                    elif hidden or name[0] == ".":
                        if out.extension(name):
                            out.reject(prefix + name, "bad_name", _hidden_detail(hidden or name))
                        else:
                            out.ignore(prefix + name, None)
                    elif not (extension := by_ending.get(name[-longest:]) or out.extension(name)):
                        out.ignore(prefix + name, entry.stat(follow_symlinks=False))
                    else:
                        info = entry.stat(follow_symlinks=False)
                        if info.st_mode & 0o170000 == stat.S_IFREG:  # S_ISREG and add() by hand: 277,524 times
                            if extension in extensions:
                                paths.append(prefix + name)
                                sizes.append(info.st_size)
                                versions.append(info.st_mtime_ns)
                                if len(paths) >= _CHUNK:
                                    out.flush()
                                    paths, sizes, versions = out.paths, out.sizes, out.versions
                            else:
                                out.add(prefix + name, extension, info.st_size, info.st_mtime_ns)
                        else:
                            out.reject(prefix + name, "unreadable", "not a regular file")
        except OSError as error:
            raise UsageError(
                f"Cannot read the folder {_printable(folder)!r}: {error.strerror}.",
                "Make it readable, or move it out of the input folder.",
            ) from error


def _add_link(entry: os.DirEntry[str], path: str, hidden: str, real_root: str, out: _Collector) -> None:
    """Sorts a symbolic link into files, rejects or warnings."""
    try:
        info = entry.stat()
    except OSError as error:  # broken, or a link that leads to itself
        if not out.extension(entry.name):
            out.ignore(path, None)
        else:
            out.reject(path, "unreadable", f"the link cannot be followed: {error.strerror}")
        return
    if stat.S_ISDIR(info.st_mode):
        out.warnings.append(f"The link to a folder {_printable(path)!r} is not followed.")
        return
    if not (extension := out.extension(entry.name)):
        out.ignore(path, info)
    elif hidden or entry.name.startswith("."):
        out.reject(path, "bad_name", _hidden_detail(hidden or entry.name))
    elif not os.path.realpath(entry.path).startswith(real_root):
        out.reject(path, "outside_root", "the link leads out of the input folder")
    elif not stat.S_ISREG(info.st_mode):
        out.reject(path, "unreadable", "not a regular file")
    else:
        out.add(path, extension, info.st_size, info.st_mtime_ns)


def _list_bucket(root: str, out: _Collector) -> None:
    from components.storage.gcs_client import gcs_errors, retry_for  # a second and 50 MB: only for a bucket
    from components.storage.gcs_listing import list_objects

    bucket, prefix = open_bucket(root)
    with gcs_errors("listing", root):
        for found in list_objects(bucket, prefix, retry_for()):
            path = found.name[len(prefix) :]
            name = path.rpartition("/")[2]
            # Consoles make "folders" as empty objects whose name ends in a slash.
            if not name:
                continue
            if not (extension := out.extension(name)):
                out.ignore(path, None)
            elif part := _hidden_part(path):
                out.reject(path, "bad_name", _hidden_detail(part))
            else:
                out.add(path, extension, found.size, found.generation)


def open_bucket(root: str) -> tuple[Any, str]:
    """Bucket and object prefix (empty, or with a trailing slash) of a `gs://bucket/prefix`.

    Raises:
        UsageError: No bucket is named, or credentials are missing.
    """
    from components.storage.gcs_client import bucket

    name, _, prefix = root[len(GCS_SCHEME) :].partition("/")
    if not name:
        raise UsageError(f"{root!r} names no bucket.", "Write gs://BUCKET/PREFIX.")
    prefix = prefix.strip("/")
    return bucket(name), f"{prefix}/" if prefix else ""


def _hidden_part(path: str) -> str:
    """First component of a path that is hidden or made by macOS' archiver; empty where there is none."""
    return next((part for part in path.split("/") if part.startswith(".") or part == "__MACOSX"), "")


def _hidden_detail(part: str) -> str:
    kind = "macOS side file" if part.startswith("._") or part == "__MACOSX" else "hidden file or folder"
    return f"{kind} {_printable(part)!r}: not a patch, delete it"


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _printable(path: str) -> str:
    r"""A path that any file and terminal can hold: bytes that are not UTF-8 become `\xNN`."""
    return path if _is_utf8(path) else os.fsencode(path).decode("utf-8", "backslashreplace")
