"""A SavedModel as a server would use it: plain TensorFlow, no code of ours inside."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.core.machine import exact_float32
from components.training.ensemble import model_digest as model_digest  # of what is served here, and of what is averaged

SIGNATURES = ("serving_default", "serve_bytes")
OUTPUTS = ("probability", "label", "label_name")
FACTS = "assets.extra/histoline.json"
TRAIN_GROUPS = "assets.extra/train_groups.json"
FITTED_GROUPS = "assets.extra/fitted_groups.json"
TOLERANCE = 1e-4


class NotServable(Exception):
    """The model does not answer as it must; the message is a clause that says how."""


@dataclasses.dataclass(frozen=True)
class Answers:
    """What a signature said of N inputs.

    Attributes:
        probability: P(positive) float32[N], or float32[N, C].
        label: int64[N].
        label_name: N class names.
    """

    probability: npt.NDArray[np.float32]
    label: npt.NDArray[np.int64]
    label_name: list[str]


def read_facts(model_dir: Path) -> dict[str, Any]:
    """assets.extra/histoline.json of a model.

    Raises:
        NotServable: It is missing or damaged.
    """
    try:
        facts = json.loads((model_dir / FACTS).read_bytes())
        return {**facts, "classes": [str(name) for name in facts["classes"]]}
    except (OSError, ValueError, KeyError, TypeError):
        raise NotServable(f"its {FACTS} is missing or damaged") from None


def read_train_groups(model_dir: Path) -> frozenset[str] | None:
    """Groups that a model was fitted or tuned on (train and eval); None where its file does not say."""
    return _read_groups(model_dir / TRAIN_GROUPS)


def read_fitted_groups(model_dir: Path) -> frozenset[str] | None:
    """Groups that a model was fitted on (train); None where its file does not say."""
    return _read_groups(model_dir / FITTED_GROUPS)


def _read_groups(file: Path) -> frozenset[str] | None:
    try:
        groups = json.loads(file.read_bytes())
        return frozenset(groups) if isinstance(groups, list) and all(isinstance(g, str) for g in groups) else None
    except (OSError, ValueError):
        return None


class ServedModel:
    """A loaded SavedModel.

    Args:
        model_dir: Its folder.

    Raises:
        NotServable: It can't be loaded or lacks a signature.
    """

    def __init__(self, model_dir: Path) -> None:
        import tensorflow as tf

        exact_float32()
        self._tf = tf
        self.facts = read_facts(model_dir)
        self.classes: list[str] = self.facts["classes"]
        try:
            # Held as long as the signatures: they only refer to the variables.
            self._model = tf.saved_model.load(str(model_dir))
        except Exception as error:
            raise NotServable(f"it could not be loaded: {_short(error)}") from error
        missing = [name for name in SIGNATURES if name not in self._model.signatures]
        if missing:
            raise NotServable(f"it has no signature {' nor '.join(missing)}")

    def answer(self, signature: str, inputs: Sequence[bytes]) -> Answers:
        """Asks one signature about one batch.

        Args:
            signature: One of `SIGNATURES`.
            inputs: Serialised Examples or encoded images, N of them.

        Raises:
            NotServable: It fails, or answers something else than the contract says.
        """
        function = self._model.signatures[signature]
        (name,) = function.structured_input_signature[1]
        try:
            out = function(**{name: self._tf.constant(list(inputs), self._tf.string)})
        except Exception as error:
            raise NotServable(f"{signature} failed: {_short(error)}") from error
        missing = [key for key in OUTPUTS if key not in out]
        if missing:
            raise NotServable(f"{signature} gives no {' nor '.join(missing)}")
        probability = out["probability"].numpy()
        names = [value.decode() for value in out["label_name"].numpy().reshape(-1).tolist()]
        answers = Answers(probability, out["label"].numpy(), names)
        self._check(signature, answers, len(inputs))
        return answers

    def probabilities(self, batches: Iterable[Sequence[bytes]]) -> npt.NDArray[np.float32]:
        """Probabilities of serialised Examples, [N] or [N, C]."""
        parts = [self.answer("serving_default", batch).probability for batch in batches]
        return np.concatenate(parts) if parts else np.zeros(self._shape(0), np.float32)

    @property
    def explains(self) -> bool:
        """Whether it can show where it looked; models of before can't."""
        return hasattr(self._model, "explain")

    def explain(self, records: Sequence[bytes], classes: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Grad-CAM of one batch, as the graph itself makes it (`components.training.gradient_maps`).

        Args:
            records: Serialised Examples, N of them.
            classes: The class that is asked about for each, [N].

        Returns:
            float32[N, H, W], positive where it spoke for the class, negative where against.

        Raises:
            NotServable: It fails, or answers with numbers that are none.
        """
        try:
            asked = self._tf.constant(np.asarray(classes, np.int64))
            maps: npt.NDArray[np.float32] = self._model.explain(self._tf.constant(list(records)), asked).numpy()
        except Exception as error:
            raise NotServable(f"its maps failed: {_short(error)}") from error
        if not np.isfinite(maps).all():
            raise NotServable("its maps are not finite")
        return maps

    @contextlib.contextmanager
    def shuffled(self, seed: int) -> Iterator[None]:
        """The same network with every weight somewhere else in its own tensor, until the block ends.

        Sizes, scales and signs stay what they are; only what was learnt is lost.
        """
        rng = np.random.default_rng(seed)
        weights = [weight for weight in self._model.weights if weight.dtype.is_floating]
        kept = [weight.numpy() for weight in weights]
        try:
            for weight, values in zip(weights, kept, strict=True):
                weight.assign(rng.permutation(values.reshape(-1)).reshape(values.shape))
            yield
        finally:
            for weight, values in zip(weights, kept, strict=True):
                weight.assign(values)

    def _shape(self, rows: int) -> tuple[int, ...]:
        return (rows,) if len(self.classes) == 2 else (rows, len(self.classes))

    def _check(self, signature: str, answers: Answers, rows: int) -> None:
        p, label = answers.probability, answers.label
        if p.shape != self._shape(rows) or p.dtype != np.float32 or label.shape != (rows,):
            raise NotServable(
                f"{signature} gives {p.dtype}{list(p.shape)} as probability of {rows} patches and labels of shape"
                f" {list(label.shape)}, where float32{list(self._shape(rows))} and one label each are needed"
            )
        if not (np.isfinite(p).all() and p.min(initial=0) >= 0 and p.max(initial=0) <= 1):
            raise NotServable(f"{signature} gives probabilities that are not between 0 and 1")
        expected = p.argmax(axis=1) if p.ndim == 2 else (p >= np.float32(self._threshold())).astype(int)
        if (label != expected).any():
            raise NotServable(f"{signature} gives labels that do not follow from its probabilities and threshold")
        if answers.label_name != [self.classes[k] for k in label]:
            raise NotServable(f"{signature} gives label names that are not those of its labels")

    def _threshold(self) -> float:
        threshold = self.facts.get("threshold")
        if not isinstance(threshold, (int, float)):
            raise NotServable(f"its {FACTS} states no threshold")
        return float(threshold)


def batches(items: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    """Lists of up to `size` items."""
    batch: list[bytes] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def agrees(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Largest difference of two answers; within `TOLERANCE` they count as the same."""
    a, b = np.asarray(first, float), np.asarray(second, float)
    return float(np.abs(a - b).max(initial=0))


def _short(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"
