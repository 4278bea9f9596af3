from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from components.datasets.committed import open_dataset
from components.datasets.tfrecord import read_records
from components.errors import UsageError
from components.metrics.calibration import apply_calibration
from components.storage.open import open_storage
from components.training import feature_fit, models, run_inputs
from components.training.feature_head import Samples, fit_head, predict
from components.training.fold_training import train_folds
from components.training.input_pipeline import open_split
from components.training.models import frozen_features
from components.training.operating_point import split_groups
from components.training.recipe import TrainingConfig
from components.training.trainer import train
from tests.support.training_help import dataset

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, and two backbones as users have them: feature maps in Keras' own file, vectors as a SavedModel."""
    home = tmp_path_factory.mktemp("features")
    dataset(home)
    keras.utils.set_random_seed(4)
    maps = keras.Sequential(
        [keras.Input((None, None, 3)), keras.layers.Conv2D(6, 5, 2, activation="relu"), keras.layers.Conv2D(4, 3, 2)]
    )
    maps.save(home / "maps.keras")
    pixels = keras.Input((24, 24, 3))
    vectors = keras.Model(pixels, keras.layers.GlobalMaxPooling2D()(maps(pixels)))
    vectors.export(str(home / "vectors"), verbose=False)
    return home


def folder(home: Path) -> Path:
    (manifest,) = (home / "ws").glob("datasets/idc/binary/*/manifest.json")
    return manifest.parent


def recipe(backbone: object, **given: Any) -> TrainingConfig:
    options = {"backbone": str(backbone), "scaling": "signed", **given.pop("options", {})}
    return TrainingConfig(model="frozen_features", options=options, views=8, seed=5, **given)


def run(home: Path, name: str, config: TrainingConfig) -> tuple[Any, list[str]]:
    lines: list[str] = []
    result = train(config, folder(home), home / "ws" / "runs" / "idc" / "binary" / name, log=lines.append)
    return result, lines


def serve(result: Any, data: Path) -> np.ndarray:
    records = [d for shard in sorted((data / "Split-eval").iterdir()) for _, d in read_records(shard)]
    loaded = tf.saved_model.load(str(result.model_dir))
    return loaded.signatures["serving_default"](examples=tf.constant(records))["probability"].numpy()


def test_what_is_served_is_the_head_on_the_mean_features_of_all_eight_views(home: Path) -> None:
    result, lines = run(home, "maps", recipe(home / "maps.keras"))
    assert [line for line in lines if "features of train: 0 of 72 patches are cached" in line]
    assert result.epochs_run == 1 and {"loss", "val_loss", "auc", "val_auc", "seconds"} <= result.history.keys()
    data = open_dataset(folder(home))
    network = keras.models.load_model(home / "maps.keras")
    seen = {}
    for split in ("train", "eval"):
        images, labels = (
            np.concatenate(part)
            for part in zip(*open_split(data, split).evaluation(16).as_numpy_iterator(), strict=True)
        )
        turned = [np.rot90(images, k, axes=(1, 2)) for k in range(4)]
        views = [v for t in turned for v in (t, t[:, :, ::-1])]
        # Images of 50 pixels are first brought to options.resize.
        features = [
            np.asarray(network(keras.ops.image.resize(v / 127.5 - 1.0, (96, 96)))).mean(axis=(1, 2)) for v in views
        ]
        seen[split] = np.mean(features, axis=0).astype(np.float32), labels
    samples = Samples(*seen["train"], split_groups(data, "train"))
    head = fit_head(samples, 2, seed=5)
    logits = predict(head.layers, seen["eval"][0])
    wanted = apply_calibration(1 / (1 + np.exp(logits[:, 0] - logits[:, 1])), result.temperature, result.bias)
    np.testing.assert_allclose(serve(result, folder(home)), wanted, atol=2e-3)
    assert np.ptp(wanted) > 0.5 and hasattr(tf.saved_model.load(str(result.model_dir)), "explain")
    # Another head on the same features computes none of them.
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(feature_fit.FeatureFit, "_compute", None)
        again, lines = run(home, "again", recipe(home / "maps.keras", options={"head": "mlp", "units": 4}))
    assert "features of train: 72 of 72 patches are cached" in lines
    assert again.history["val_auc"][0] > 0.9


def test_a_pass_that_was_killed_goes_on_from_its_parts(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = recipe(home / "maps.keras", options={"resize": 32}, max_train_per_class=24)
    monkeypatch.setattr(feature_fit, "PART", 16)
    added = feature_fit.FeatureCache.add

    def killed(self: Any, *given: Any) -> None:
        added(self, *given)
        if len(list(self._folder.glob("*.parquet"))) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(feature_fit.FeatureCache, "add", killed)
        with pytest.raises(KeyboardInterrupt):
            run(home, "killed", config)
    _, lines = run(home, "killed", config)
    assert "features of train: 32 of 48 patches are cached" in lines


def test_a_saved_model_of_vectors_is_a_backbone_too(home: Path) -> None:
    result, _ = run(home, "vectors", recipe(home / "vectors"))
    loaded = tf.saved_model.load(str(result.model_dir))
    assert not hasattr(loaded, "explain")  # vectors have no places
    answers = serve(result, folder(home))
    assert answers.shape == (8,) and np.ptp(answers) > 0.3
    assert models.build("frozen_features", (50, 50, 3), 2, dict(recipe(home / "vectors").options)).get_layer(
        "resize"
    ).output.shape == (None, 24, 24, 3)  # the file's own size


def test_folds_share_the_features_and_are_fitted_again_on_everyone(home: Path) -> None:
    config = recipe(home / "maps.keras", options={"resize": 40}, decision="folds", folds=2, serve="refit")
    storage, place = open_storage(home / "ws"), "runs/idc/binary/folds"
    run_inputs.freeze(storage, place, run_inputs.settle(storage, "idc", "binary", folder(home).name, config, {}))
    lines: list[str] = []
    data = open_dataset(folder(home))
    result = train_folds(config, data, home / "ws" / place, log=lines.append)
    told = [line for line in lines if "patches are cached" in line]
    # Two folds and everyone, train and eval each: who is left out of one of two folds is trained on in the other.
    assert len(told) == 6 and told[0].endswith("features of train: 0 of 40 patches are cached")
    assert told[4] == "features of train: 96 of 96 patches are cached"
    caches = [part.parent for part in (home / "ws" / "cache" / "features").glob("*/*.parquet")]
    rows = {cache: sum(pq.read_metadata(part).num_rows for part in cache.glob("*.parquet")) for cache in set(caches)}
    assert 96 in rows.values()  # nothing is computed or kept twice
    assert result.threshold is not None and np.ptp(serve(result, folder(home))) > 0.3


def test_files_count_by_their_content_and_what_is_none_is_said(home: Path, tmp_path: Path) -> None:
    before = recipe(home / "vectors").digest()
    (home / "vectors" / "assets" / "note.txt").write_text("other")
    assert recipe(home / "vectors").digest() != before
    (home / "vectors" / "assets" / "note.txt").unlink()
    assert recipe(home / "vectors").digest() == before
    with pytest.raises(UsageError, match="neither a file nor a folder"):
        recipe(tmp_path / "none").digest()
    (tmp_path / "text.keras").write_text("no model")
    for path, said in ((tmp_path / "none", "no such file"), (tmp_path / "text.keras", "can't be loaded")):
        with pytest.raises(UsageError, match=said):
            models.build("frozen_features", (50, 50, 3), 2, {"backbone": str(path)})


def test_stages_end_where_width_or_size_changes_and_the_lowest_give_their_deviation() -> None:
    options = {"weights": "none", "backbone": "mobilenet_v2", "stages": 3, "resize": 32, "spread": 1}
    model = models.build("frozen_features", (32, 32, 3), 2, options)
    maps = model.get_layer("backbone").output
    assert [part.shape[1:] for part in maps] == [(1, 1, 1280), (1, 1, 112), (1, 1, 56)]
    assert frozen_features.stage_widths(model, options) == (1280, 112, 56, 56)
    assert model.get_layer("features").output.shape == (None, 1504)
    lower = models.build("frozen_features", (32, 32, 3), 2, {**options, "stages": 8, "spread": 2})
    x = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("float32")
    inner = keras.Model(lower.get_layer("backbone").input, lower.get_layer("backbone").output[-1])
    lowest = np.asarray(inner(x / 127.5 - 1.0))
    features = np.asarray(keras.Model(lower.input, lower.get_layer("features").output)(x))
    np.testing.assert_allclose(features[:, -8:], lowest.std(axis=(1, 2)), atol=2e-3)
