"""What a report is made from: run.json, the two prediction tables and the data set, as far as they are still there."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.datasets import manifest as manifests
from components.datasets.manifest import Manifest
from components.errors import HistolineError
from components.promotion import champion as champions
from components.promotion import error_maps, evaluation
from components.promotion.champion import Champion
from components.promotion.error_maps import ErrorMaps
from components.promotion.prediction_tables import probability_values
from components.promotion.served_model import NotServable, read_facts, read_train_groups
from components.report import tfx_document
from components.report.pixels import DatasetImages
from components.report.tfx_document import TfxDocument
from components.storage.atomic_files import StorageMissing
from components.storage.base import Storage
from components.training import run_record
from components.training.run_types import RunRecord

Array = npt.NDArray[Any]
PATCH_COLUMNS = ("patch_id", "x", "y", "magnification", "tumor_type", "shard", "offset")


@dataclasses.dataclass(frozen=True)
class SplitPredictions:
    """One split with the candidate's probabilities.

    Attributes:
        split: `eval` or `test`.
        patch_id: [N] str.
        groups: Patient (or slide) of each patch, [N] str.
        slides: Slide of each patch, [N] str, empty where unknown.
        labels: Class numbers, [N].
        probability: P(positive) [N], or [N, C].
        facts: Columns of patches.parquet in the same order (`PATCH_COLUMNS`), None where the data set is pruned.
        fold: Fold whose model scored each patch, [N]; None where one model scored all.
    """

    split: str
    patch_id: Array
    groups: Array
    slides: Array
    labels: Array
    probability: Array
    facts: Mapping[str, Array] | None
    fold: Array | None = None

    def __len__(self) -> int:
        """Number of patches."""
        return len(self.labels)

    def predicted(self, threshold: float | Array | None) -> Array:
        """Class numbers at the stored threshold (or each patch's own), or by argmax, [N]."""
        if self.probability.ndim == 2:
            return np.asarray(self.probability.argmax(axis=1))
        return (self.probability >= np.asarray(np.nan if threshold is None else threshold, np.float32)).astype(int)


@dataclasses.dataclass(frozen=True)
class Rival:
    """Another model on the same test patches.

    Attributes:
        name: As people read it.
        probability: [N] or [N, C].
        threshold: Its own stored cut; None where it has none.
        usable: Patches of groups that it was not trained on, bool [N].
        left_out: Number of groups that it was trained on.
    """

    name: str
    probability: Array
    threshold: float | None
    usable: Array
    left_out: int


@dataclasses.dataclass(frozen=True)
class Evidence:
    """All that a report shows.

    Attributes:
        folder: Of the run, relative to the workspace.
        record: run.json.
        manifest: Of the data set; None where it is pruned or damaged.
        champion: Promotions of this data set and task; None where there were none.
        splits: `eval`, `test` and `holdout`, those that were scored.
        rivals: `champion` and `baseline`, those that were scored.
        rejects: rejects.parquet; None where the data set is pruned.
        images: Reads single patches and thumbnails of the data set when a page asks for them.
        notes: What is missing, in sentences.
        error_maps: Where the model looked in its worst errors; None where it was not asked.
        tfx: What TFX and ML Metadata know of the run; None where it left nothing.
        before: RUN_ID of the last run of data set and task that was judged before this one began, and has a page.
    """

    folder: str
    record: RunRecord
    manifest: Manifest | None
    champion: Champion | None
    splits: Mapping[str, SplitPredictions]
    rivals: Mapping[str, Rival]
    rejects: pa.Table | None
    images: DatasetImages
    notes: tuple[str, ...]
    error_maps: ErrorMaps | None = None
    tfx: TfxDocument | None = None
    before: str = ""

    @property
    def test(self) -> SplitPredictions | None:
        """The test split with the candidate's probabilities."""
        return self.splits.get("test")

    @property
    def classes(self) -> list[str]:
        """Class names in label order."""
        return list(self.record.classes)

    @property
    def multiclass(self) -> bool:
        """Whether the task has more than two classes."""
        return len(self.record.classes) > 2

    @property
    def threshold(self) -> float | None:
        """The stored cut; None for several classes and before the evaluation."""
        return None if self.multiclass else self.record.threshold

    @property
    def cuts(self) -> float | Array | None:
        """What test patches were called by: the stored cut, or out of fold each patch's own, [N]."""
        test, folds = self.test, self.record.folds
        if self.threshold is None or test is None or test.fold is None or folds is None:
            return self.threshold
        by_fold = {member.fold: member.threshold for member in folds.members}
        return np.array([by_fold.get(fold) or self.threshold for fold in test.fold.tolist()], np.float32)

    @property
    def unit(self) -> str:
        """What a group is: patient, slide or image."""
        return str(self.record.group_unit)

    @property
    def primary(self) -> str:
        """The primary metric."""
        return "macro_f1" if self.multiclass else "auc"


def collect(storage: Storage, folder: str) -> Evidence:
    """Reads all that there is of a run; what is gone becomes a note.

    Args:
        storage: The workspace.
        folder: Of the run, relative to it.

    Raises:
        UsageError: There is no such run.
        DataError: run.json is damaged.
    """
    record = run_record.read(storage, folder)
    notes: list[str] = []
    manifest, patches, rejects = _dataset(storage, record, notes)
    home = champions.home(record.dataset, record.task)
    try:
        champion, _ = champions.read(storage, home)
    except HistolineError as error:
        champion = None
        notes.append(str(error))
    splits: dict[str, SplitPredictions] = {}
    rivals: dict[str, Rival] = {}
    predictions = _table(storage, f"{folder}/{evaluation.PREDICTIONS}")
    if predictions is not None:
        splits = _splits(predictions, patches)
        comparison = _table(storage, f"{folder}/{evaluation.COMPARISON}")
        if comparison is not None and "test" in splits:
            rivals = _rivals(storage, home, record, comparison, splits["test"])
    images = DatasetImages(storage, record.dataset_dir)
    maps, tfx = _error_maps(storage, folder), tfx_document.read(storage, folder)
    return Evidence(
        folder, record, manifest, champion, splits, rivals, rejects, images, tuple(notes), maps, tfx,
        _before(storage, record),
    )  # fmt: skip


def _before(storage: Storage, record: RunRecord) -> str:
    home, found = f"runs/{record.dataset}/{record.task}", ("", "")
    for run_id in storage.list_dirs(home):
        folder = f"{home}/{run_id}"
        if run_id == record.run_id or not storage.exists(f"{folder}/report/index.html"):
            continue
        try:
            other = run_record.read(storage, folder)
        except HistolineError:
            continue
        if other.decision in ("promoted", "refused") and found < (other.created, run_id) < (record.created, ""):
            found = (other.created, run_id)
    return found[1]


def _dataset(
    storage: Storage, record: RunRecord, notes: list[str]
) -> tuple[Manifest | None, pa.Table | None, pa.Table | None]:
    place = record.dataset_dir
    try:
        manifest = manifests.load(storage, place)
    except HistolineError:
        notes.append(
            f"The data set {place} is no longer there, or is damaged: images, slide maps and its card can't be shown."
        )
        return None, None, None
    if manifest.manifest_digest != record.manifest_digest:
        notes.append(f"The data set {place} is not the one that this run was made on, so nothing of it is shown.")
        return None, None, None
    patches, rejects = (_table(storage, f"{place}/{name}.parquet") for name in ("patches", "rejects"))
    if patches is None:
        notes.append("The data set has lost its list of patches: images and slide maps can't be shown.")
    return manifest, patches, rejects


def _table(storage: Storage, path: str) -> pa.Table | None:
    try:
        return pq.read_table(storage.local_copy(path)) if storage.exists(path) else None
    except (StorageMissing, OSError, pa.ArrowInvalid):
        return None


def _error_maps(storage: Storage, folder: str) -> ErrorMaps | None:
    path = f"{folder}/{error_maps.NAME}"
    try:
        return error_maps.read(storage.local_copy(path)) if storage.exists(path) else None
    except (StorageMissing, OSError, ValueError, KeyError, TypeError):
        return None


def texts(column: pa.ChunkedArray) -> Array:
    """A column of strings as a NumPy array of Python strings."""
    return np.array(column.to_pylist(), object)


def read_predictions(storage: Storage, folder: str) -> dict[str, SplitPredictions]:
    """`eval` and `test` of a run with its probabilities, without the facts of the patches; empty where it has none.

    Args:
        storage: The workspace.
        folder: Of the run, relative to it.
    """
    predictions = _table(storage, f"{folder}/{evaluation.PREDICTIONS}")
    return {} if predictions is None else _splits(predictions, None)


def _splits(predictions: pa.Table, patches: pa.Table | None) -> dict[str, SplitPredictions]:
    of = texts(predictions["split"])
    ids, groups, slides = (texts(predictions[name]) for name in ("patch_id", "group_id", "slide_id"))
    labels = predictions["label"].fill_null(-1).to_numpy().astype(int)
    probability = probability_values(predictions["probability"])
    fold = predictions["fold"].to_numpy() if "fold" in predictions.column_names else None
    found = {}
    for split in ("eval", "test", "holdout"):
        rows = (of == split) & (labels >= 0)
        if rows.any():
            facts = _facts(ids[rows], patches)
            found[split] = SplitPredictions(
                split, ids[rows], groups[rows], slides[rows], labels[rows], probability[rows], facts,
                None if fold is None or split != "test" else fold[rows],
            )  # fmt: skip
    return found


def _facts(ids: Array, patches: pa.Table | None) -> dict[str, Array] | None:
    """Columns of patches.parquet in the order of `ids`; None unless it knows them all."""
    if patches is None:
        return None
    # By name alone: what `histoline evaluate` tests may lie in any split of its data set.
    part = patches.filter(pc.is_in(patches["patch_id"], pa.array(ids, pa.string())))
    order = align(texts(part["patch_id"]), ids)
    if order is None:
        return None
    columns = {}
    for name in PATCH_COLUMNS[1:]:
        column = part[name]
        columns[name] = (texts(column) if pa.types.is_string(column.type) else column.to_numpy())[order]
    return columns


def align(names: Array, wanted: Array) -> Array | None:
    """Position in `names` of each of `wanted`, [N]; None where one is missing."""
    place = {name: i for i, name in enumerate(names)}
    found = [place.get(name, -1) for name in wanted]
    return None if -1 in found else np.array(found, int)


def _rivals(
    storage: Storage, home: str, record: RunRecord, comparison: pa.Table, test: SplitPredictions
) -> dict[str, Rival]:
    order = align(texts(comparison["patch_id"]), test.patch_id)
    if order is None:
        return {}
    found = {}
    version = record.gate.champion_version if record.gate else None
    for key in ("champion", "baseline"):
        name = f"{key}_probability"
        if name not in comparison.column_names or comparison[name].null_count:
            continue
        probability = probability_values(comparison[name])[order]
        usable, threshold, title = np.ones(len(test), bool), None, "colour baseline"
        if key == "champion":
            title = f"champion {version}"
            threshold, trained_on = _version_facts(storage, f"{home}/{version}")
            if trained_on is None:  # it may have seen any of them
                continue
            usable = ~np.isin(test.groups.astype(str), sorted(trained_on))
            if record.decision_by == "folds":  # what it said was said out of fold, each fold at a cut of its own
                usable, threshold = ~np.isnan(probability.reshape(len(test), -1)).any(axis=1), None
        left_out = len(np.unique(test.groups[~usable].astype(str)))
        found[key] = Rival(title, probability, threshold, usable, left_out)
    return found


def _version_facts(storage: Storage, place: str) -> tuple[float | None, frozenset[str] | None]:
    """Threshold and training groups of a version; None where it is pruned or does not say."""
    if not storage.exists(f"{place}/{champions.LIVE}"):
        return None, None
    folder = storage.local_tree(place)
    try:
        threshold = read_facts(folder).get("threshold")
    except NotServable:
        return None, None
    return threshold, read_train_groups(folder)
