"""The fault list: one row a fault. Rows of whole processes are in `fault_list_processes`."""

from __future__ import annotations

import json
import os
import resource
import socket
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from components.adapters.group_files import read_groups_csv
from components.promotion import champion as champions
from components.promotion import publish
from components.storage.open import open_storage
from components.training import run_record
from pipelines.predict import check_apart
from tests.faults import acts
from tests.faults.fault import Fault, Place, Skipped, apart, command, flip
from tests.support import storage_help, trees
from tests.support.failing_disk import FailingDisk

GIB = 1 << 30


def fifo(file: Path) -> None:
    """A pipe that nobody writes to."""
    os.mkfifo(file)


def unix_socket(file: Path) -> None:
    """A socket; bound by a short name, since names of sockets are short."""
    before = os.getcwd()
    os.chdir(file.parent)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(file.name)
    finally:
        os.chdir(before)


def device(file: Path) -> None:
    """A device that never ends."""
    try:
        os.mknod(file, stat.S_IFCHR | 0o600, os.makedev(1, 5))
        file.open("rb").close()
    except OSError as error:
        raise Skipped("devices need root") from error


def sparse(file: Path) -> None:
    """Three gigabytes of nothing."""
    with file.open("wb") as out:
        out.truncate(3 * GIB)


def reject(make: Callable[[Path], object], small: bool = False) -> Callable[[Place], tuple[int, str]]:
    """Makes something named like an image, and tells the rejects of an ingest.

    Args:
        make: Makes it.
        small: Whether half a gigabyte of memory is enough for it.
    """

    def act(place: Place) -> tuple[int, str]:
        make(place.image())
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found = place.rejects()
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
        return (1, f"memory grew by {grown:,} bytes") if small and grown > GIB // 2 else found

    return act


def fifo_for_a_list(place: Place) -> None:
    """A pipe that nobody writes to, where a CSV was asked for."""
    fifo(place.root / "groups.csv")
    read_groups_csv(place.root / "groups.csv")


def in_dataset(name: str, change: Callable[[Path], object] = flip) -> Callable[[Place], tuple[int, str]]:
    """Changes a file of a data set, and verifies it."""

    def act(place: Place) -> tuple[int, str]:
        (file,) = place.dataset.glob(name)
        change(file)
        return command("verify", place.dataset)

    return act


def in_version(name: str) -> Callable[[Place], tuple[int, str]]:
    """Flips a bit of a file of the champion's version, and verifies models."""

    def act(place: Place) -> tuple[int, str]:
        flip(place.version / name)
        return command("models", "verify", "--workspace", place.m)

    return act


def rolled_back(place: Place) -> None:
    """What reads every byte of a version before it goes on."""
    storage = open_storage(place.m)
    publish.push(storage, run_record.run_dir("idc", "binary", "second"), clock=lambda: acts.CLOCK + 9)
    flip(place.version / "assets.extra/histoline.json")
    publish.rollback(storage, "idc", "binary", reason="wrong stain")


def edit(file: Path, **changes: object) -> None:
    """A person's edit of a JSON document."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def champion(change: Callable[[Path], object]) -> Callable[[Place], tuple[int, str]]:
    """Changes champion.json, and lists models."""

    def act(place: Place) -> tuple[int, str]:
        change(place.m / acts.MODELS / champions.NAME)
        return command("models", "list", "--workspace", place.m)

    return act


def run(change: Callable[[Path], object]) -> Callable[[Place], tuple[int, str]]:
    """Changes run.json, and pushes the run."""

    def act(place: Place) -> tuple[int, str]:
        change(place.run / run_record.NAME)
        publish.push(open_storage(place.m), place.run.relative_to(place.m).as_posix())
        return 0, ""

    return act


def again(change: Callable[[Place], object]) -> Callable[[Place], None]:
    """Changes something of workspace `w`, and ingests there again."""

    def act(place: Place) -> None:
        change(place)
        place.ingest("w")

    return act


def committed_is_whole(place: Place) -> Iterable[str]:
    """Nothing half committed, in either workspace."""
    yield from acts.datasets_are_whole(place.w)
    yield from acts.datasets_are_whole(place.m)


def nothing_new(place: Place) -> Iterable[str]:
    """The champion is the old one, and there is no other version."""
    found = champions.versions(open_storage(place.m), acts.MODELS)
    if found != [int(acts.CLOCK)]:
        yield f"versions {found}"


def full_disk(place: Place) -> None:
    """An ingest on a disk that has no room from the hundredth operation on."""
    workspace = place.root / "new"
    workspace.mkdir()
    with FailingDisk(workspace, 100, "ENOSPC"):
        place.ingest()


def few_files(place: Place) -> tuple[int, str]:
    """An ingest that may open 64 files."""

    def work() -> str:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        return place.ingest().plan_id

    return apart(work)


def small_files(place: Place) -> tuple[int, str]:
    """An ingest whose files may have 20 KB (`ulimit -f`)."""

    def work() -> str:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        return place.ingest().plan_id

    return apart(work)


def locked(place: Place) -> tuple[int, str]:
    """Another process holds the lock of the run."""
    (place.root / "locked").mkdir()
    holder = storage_help.hold(str(place.root / "locked"))
    try:
        with open_storage(place.root / "locked").lock("run/.lock", owner="the second", wait_seconds=0.2):
            return 0, "got it"
    finally:
        assert holder.stdin is not None
        holder.stdin.close()
        holder.wait()


def clock_set_back(place: Place) -> tuple[int, str]:
    """A push on a machine whose clock says 1970."""
    made = publish.push(open_storage(place.m), run_record.run_dir("idc", "binary", "second"), clock=lambda: 5.0)
    return 0, f"version {made}"


def served_is_highest(place: Place) -> Iterable[str]:
    """Serving takes the highest version, which must be the champion."""
    storage = open_storage(place.m)
    current = champions.load(storage, acts.MODELS)
    if current is None or current.current.version != max(champions.versions(storage, acts.MODELS)):
        yield "the champion is not the highest version"


def newer(name: str) -> Callable[[Path], object]:
    """A document of a later histoline."""
    return lambda file: edit(file, **{name: 99})


def newer_ledger(place: Place) -> None:
    """A ledger of a later histoline is named."""
    copy = place.root / "ledger.json"
    copy.write_bytes((place.dataset / "splits.json").read_bytes())
    newer("format_version")(copy)
    place.ingest(ledger=copy)


def predict_into_input(place: Place) -> None:
    """The output of a prediction lies among its input."""
    given = {"input_root": str(place.raw), "slide_maps": "", "page": ""}
    check_apart(str(place.raw / "9000" / "out.csv"), given)


FAULTS: tuple[Fault, ...] = (
    # What is named like an image, or like a list, and is none.
    Fault("a FIFO named like an image", reject(fifo), says="fault unreadable"),
    Fault("a socket named like an image", reject(unix_socket), says="fault unreadable"),
    Fault("a device named like an image", reject(device), says="fault unreadable"),
    Fault("a sparse file of 3 GB named like an image", reject(sparse, small=True), says="fault "),
    Fault("a folder named like an image", reject(Path.mkdir)),
    Fault("a link that leads nowhere", reject(lambda file: file.symlink_to("nowhere.png")), says="fault unreadable"),
    Fault("a link that leads out", reject(lambda file: file.symlink_to("/etc/hostname")), says="outside_root"),
    Fault("an empty image", reject(Path.touch), says="fault empty_file"),
    Fault("an image that is text", reject(lambda file: file.write_bytes(b"<html>404")), says="fault not_an_image"),
    Fault("a FIFO for a list", fifo_for_a_list, 64, "no regular file"),
    Fault("a cut image", reject(lambda file: file.write_bytes(trees.image_bytes("x")[:-90])), says="fault truncated"),
    # A bit, anywhere in a data set.
    Fault("a flipped bit in a shard", in_dataset("Split-test/*.tfrecord"), 65, "tfrecord has changed"),
    Fault("a flipped bit in a sidecar", in_dataset("sidecars/train-*"), 65, "sidecars/train-.* has changed"),
    Fault("a flipped bit in patches.parquet", in_dataset("patches.parquet"), 65, "patches.parquet has changed"),
    Fault("a flipped bit in rejects.parquet", in_dataset("rejects.parquet"), 65, "rejects.parquet has changed"),
    Fault("a flipped bit in the ledger", in_dataset("splits.json"), 65, "splits.json has changed"),
    Fault("a flipped bit in the manifest", in_dataset("manifest.json"), 65, "manifest.json"),
    Fault("a shard that is gone", in_dataset("Split-eval/*.tfrecord", Path.unlink), 65, "is missing"),
    Fault("an edited manifest", in_dataset("manifest.json", lambda f: edit(f, written=5)), 65, "after the commit"),
    Fault("a manifest of a newer histoline", in_dataset("manifest.json", newer("format")), 64, "Upgrade histoline"),
    Fault(
        "a manifest that leads out of its folder",
        in_dataset("manifest.json", lambda f: edit(f, files={"../../x": "0" * 64})), 65, "changed after the commit",
    ),
    # A bit, anywhere in a model's version, and in what says which one is served.
    *(
        Fault(f"a flipped bit in {name} of a version", in_version(name), 65, f"{name} has changed")
        for name in ("saved_model.pb", "assets.extra/histoline.json", "assets.extra/promotion.json", "README.md")
    ),
    Fault("a flipped bit in the digests of a version", in_version("assets.extra/digests.json"), 65, "digests.json"),
    Fault("a rollback to a version that has changed", rolled_back, 65, "histoline.json has changed"),
    Fault("a flipped bit in champion.json", champion(flip), 65, "champion.json"),
    Fault("an edited champion.json", champion(lambda f: edit(f, why="because")), 65, "champion.json was edited"),
    Fault("a champion.json of a newer histoline", champion(newer("format")), 64, "Upgrade histoline"),
    Fault("half a champion.json", champion(lambda f: os.truncate(f, 300)), 65, "champion.json"),
    Fault("a flipped bit in run.json", run(flip), 65, "run.json", nothing_new),
    Fault("an edited run.json", run(lambda f: edit(f, reason="mine")), 65, "was edited", nothing_new),
    Fault("a run.json of a newer histoline", run(newer("format")), 64, "Upgrade histoline", nothing_new),
    Fault(
        "a model that was changed between evaluation and push",
        lambda place: (flip(place.run / "model/saved_model.pb"), run(lambda _: None)(place))[1], 65,
        "not the one that was evaluated", nothing_new,
    ),
    # Documents that an ingest goes on from.
    Fault("a damaged latest.json", again(lambda p: p.latest.write_text("{")), 65, "latest.json"),
    Fault("a latest.json of a newer histoline", again(lambda p: edit(p.latest, format=9)), 64, "Upgrade histoline"),
    Fault("a damaged ledger", again(lambda p: (p.dataset / "splits.json").write_text("[]")), 65, "splits.json"),
    Fault("an edited ledger", again(lambda p: edit(p.dataset / "splits.json", seed=9)), 65, "changed after the commit"),
    Fault("a ledger of a newer histoline", newer_ledger, 64, "Update histoline"),
    # What is typed.
    *(
        Fault(f"a path for a name: {text!r}", lambda place, text=text: command(  # type: ignore[misc]
            "runs", "show", text, "--workspace", place.m), 64)
        for text in ("../../etc/passwd", "/etc/passwd", "..", "a/b", "x" * 300)
    ),
    Fault("a path for a data set", lambda place: command("datasets", "show", "../../etc", "--workspace", place.w), 64),
    Fault("a negative seed", lambda place: command(
        "ingest", "idc", "--input", place.raw, "--workspace", place.w, "--seed", "-1"), 64, "seed"),
    Fault("a workspace that is a file", lambda place: command("runs", "list", "--workspace", place.image("9001").parent
          / "9001_idx5_x1_y101_class0.png"), 64, "is a file"),
    Fault("an output among the input of a prediction", predict_into_input, 64, "inside --input"),
    # The machine.
    Fault("a full disk", full_disk, 75, "disk is full", lambda place: place.same_bytes()),
    Fault("64 open files", few_files, left=lambda place: place.same_bytes("other")),
    Fault("files may have 20 KB", small_files, 64, "ulimit", lambda place: place.same_bytes()),
    Fault("a lock that another process holds", locked, 75, "locked by the first.*since 20"),
    Fault("a clock that was set back", clock_set_back, says="version 17000000", left=served_is_highest),
)  # fmt: skip
"""Faults that are told in moments, in this process."""
