from __future__ import annotations

import dataclasses
import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest

import schemas
from components.errors import UsageError
from components.training import models, presets
from components.training.augmentation import PRESETS
from components.training.recipe import TrainingConfig
from components.training.recipe_parts import FLOORS, BatchNorm, ClassCap, Gate, Phase
from pipelines.recipes import PRESETS_FOLDER

from_preset = functools.partial(presets.from_preset, folder=PRESETS_FOLDER)

ROOT = Path(__file__).resolve().parents[3]
STORED = {"idc": (50, 50, None), "breakhis": (230, 350, None), "pcam": (96, 96, (32, 32, 32, 32))}


@pytest.mark.parametrize("name", presets.names(PRESETS_FOLDER))
def test_presets_fit_their_data_set_and_round_trip(name: str) -> None:
    config = from_preset(name)
    assert config.title and set(config.floors) <= set(FLOORS[config.task]) and config.floors
    assert TrainingConfig.from_json(config.to_json()) == config
    assert TrainingConfig.from_dict(config.to_dict()) == config
    dataset = config.dataset or "idc"
    assert config.task in schemas.load_json("classes.json")[dataset]
    height, width, region = STORED[dataset]
    config.check_data(dataset, config.task, height, width, region)


def test_every_task_has_a_default_preset_of_its_own_and_a_quick_one() -> None:
    classes = schemas.load_json("classes.json")
    assert set(presets.DEFAULTS) == {(d, t) for d in classes for t in classes[d]}
    for (dataset, task), name in presets.DEFAULTS.items():
        config = from_preset(name)
        assert (config.dataset, config.task) == (dataset, task)
    assert {f"{dataset}_quick" for dataset in classes} <= set(presets.names(PRESETS_FOLDER))
    downloaded = {"efficientnet_v2_b0", "convnext_tiny"}  # weights that not everybody can fetch
    assert {i.model for i in presets.infos(PRESETS_FOLDER)} == set(models.MODELS) - downloaded


def test_overrides_reach_every_depth() -> None:
    config = from_preset(
        "idc_mobilenet_v2",
        {
            "phases.0.epochs": "3",
            "phases.1.learning_rate": "1e-5",
            "phases.2": "{epochs: 1, trainable: last 5}",
            "options.alpha": "0.5",
            "augmentation.stain": "0.2",
            "early_stopping": "none",
            "gate.policy": "non-inferior",
            "mixed_precision": "off",
            "threshold": "sensitivity=.950",
            "deterministic": "true",
            "ema": "none",
            "mixup": "2e-1",
            "max_train_per_class": "600",
        },
    )
    assert [p.epochs for p in config.phases] == [3, 6, 1] and config.epochs == 10
    assert config.phases[1].learning_rate == 1e-5 and config.phases[2].trainable == 5
    assert config.options["alpha"] == 0.5 and config.options["resize"] == 96
    assert config.augmentation == dataclasses.replace(PRESETS["standard"], stain=0.2)
    assert not config.early_stopping.monitor and config.gate == Gate("non-inferior")
    assert config.mixed_precision == "off" and config.deterministic
    assert config.threshold == "sensitivity=0.95"
    assert config.batchnorm == BatchNorm("frozen") and (config.ema, config.mixup) == (0, 0.2)
    assert config.max_train_per_class == ClassCap(600, "epoch")
    assert from_preset("idc_quick", {"max_train_per_class.redraw": "never"}).max_train_per_class == ClassCap(0, "never")
    assert from_preset("idc_quick", {"batchnorm.momentum": "0.95"}).batchnorm == BatchNorm("follow", 0.95)
    follow = from_preset("idc_mobilenet_v2", {"batchnorm.mode": "follow", "batchnorm.momentum": "0.99"}).batchnorm
    assert follow == BatchNorm("follow", 0.99)
    scratch = from_preset("idc_mobilenet_v2", {"options.weights": "none"})
    assert scratch.batchnorm == BatchNorm("follow"), "random weights have no statistics to keep"


def test_another_model_starts_from_its_own_options_in_whatever_order() -> None:
    config = from_preset("idc_mobilenet_v2", {"options.dropout": "0.1", "model": "cnn_105k"})
    assert config.options == {"dropout": 0.1, "weights": "none"}
    # A head that is fitted at once has no phases, whatever the preset says of them.
    fitted = from_preset("idc_mobilenet_v2", {"model": "frozen_features"})
    plain = TrainingConfig()
    assert (fitted.phases, fitted.augmentation, fitted.views) == (plain.phases, plain.augmentation, 8)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"optimiser": "adam"}, "'optimiser'.*Did you mean 'optimizer'"),
        ({"phases.0.epoch": "3"}, "phases.0.epoch.*Did you mean 'epochs'"),
        ({"phases.0.epochs": "0"}, "phases.0.epochs is 0.*from 1 to 10000"),
        ({"phases.0.epochs": "1.5"}, "phases.0.epochs is 1.5.*whole number"),
        ({"phases.0.epochs": "true"}, "phases.0.epochs is True"),
        ({"phases.0.learning_rate": "-1"}, "phases.0.learning_rate.*from 0 to 10"),
        ({"phases.0.learning_rate": ".nan"}, "phases.0.learning_rate.*from 0 to 10"),
        ({"phases.0.trainable": "tail"}, "phases.0.trainable.*head, all"),
        ({"phases.0.trainable": "0"}, "phases.0.trainable"),
        ({"phases.0.schedule": "cosin"}, "Did you mean 'cosine'"),
        ({"phases.9.epochs": "3"}, "no 'phases.9'"),
        ({"phases": "[]"}, "at least one phase"),
        ({"title.x": "1"}, "no 'title.x'.*not a mapping"),
        ({"optimizer": "adm"}, "Did you mean 'adam'"),
        ({"model": "cnn_105"}, "Did you mean 'cnn_105k'"),
        ({"options.alfa": "1"}, "options.alfa.*Did you mean 'alpha'"),
        ({"options.alpha": "0.4"}, "options.alpha is 0.4.*0.35, 0.5"),
        ({"options.resize": "64"}, "options.resize is 64.*from 96"),
        ({"options.weights": "7"}, "options.weights"),
        ({"options.weights": "mobilenet_v2_1.4_224_no_top.h5"}, "width 1.4; options.alpha is 0.35"),
        ({"views": "3"}, "views is 3.*1, 2, 4, 8"),
        ({"views": "true"}, "views is True"),
        ({"options.views": "4"}, "options.views is 4.*left out: views is 8.*Set views only"),
        ({"stain_normalisation": "reinhart"}, "Did you mean 'reinhard'"),
        ({"stain_augmentation": "hsv"}, "stain_augmentation is 'hsv'.*none, lab, hed, both"),
        ({"weight_decay": "0.1", "optimizer": "adam"}, "adamw"),
        ({"label_smoothing": "0.6"}, "label_smoothing"),
        ({"class_weights": "balanced", "sampling": "balanced"}, "correct twice"),
        ({"early_stopping.monitor": "val_macro_f1"}, "early_stopping.monitor.*val_auc"),
        ({"augmentation": "lite"}, "Did you mean 'light'"),
        ({"augmentation.stain": "9"}, "augmentation.stain"),
        ({"batchnorm": "frosen"}, "batchnorm.mode.*Did you mean 'frozen'"),
        ({"batchnorm": "{mode: frozen, momentum: 0.9}"}, "batchnorm.momentum is 0.9.*no statistics move"),
        ({"batchnorm.momentum": "1", "batchnorm.mode": "follow"}, "batchnorm.momentum is 1.*from 0.5"),
        ({"ema": "1"}, "ema is 1.*from 0 to 0.99999"),
        ({"focal": "-1"}, "focal is -1"),
        ({"mixup": "yes please"}, "mixup is 'yes please'"),
        ({"warmup_steps": "0.5"}, "warmup_steps is 0.5.*whole number"),
        ({"min_steps": "-1"}, "min_steps is -1"),
        ({"steps_per_execution": "0"}, "steps_per_execution is 0.*from 1"),
        ({"max_train_per_class": "-5"}, "max_train_per_class.count is -5"),
        ({"max_train_per_class": "{count: 5, redraw: always}"}, "max_train_per_class.redraw.*epoch, never"),
        ({"mixed_precision": "maybe"}, "mixed_precision"),
        ({"xla": "maybe"}, "xla is 'maybe'.*one of auto, off, on"),
        ({"mixed_precision": "[1]"}, "mixed_precision is \\[1\\].*auto, off, on"),
        ({"deterministic": "1"}, "true or false"),
        ({"threshold": "sensitivity=1.2"}, "sensitivity=0.95"),
        ({"threshold": "sensitivity=0"}, "above 0"),
        ({"threshold": "yuden"}, "Did you mean 'youden'"),
        ({"floors.acu": "0.5"}, "Did you mean 'auc'"),
        ({"floors.auc": "1.5"}, "floors.auc"),
        ({"gate.margin": "0.5"}, "gate.margin"),
        ({"gate.baseline": "worse"}, "gate.baseline"),
        ({"gate.n_resamples": "10"}, "gate.n_resamples"),
        ({"image_size": "50"}, "image_size"),
        ({"image_size": "[4, 50]"}, "image_size.0"),
        ({"model": "frozen_features", "augmentation": "light"}, "augmentation.*left out: the head of frozen_features"),
        ({"model": "frozen_features", "options.stages": "9"}, "options.stages is 9"),
        ({"model": "frozen_features", "options.backbone": "7"}, "options.backbone.*SavedModel or Keras file"),
        ({"task": "subtype"}, "early_stopping.monitor"),
        ({"seed": "[1"}, "YAML"),
    ],
)
def test_wrong_values_are_named_with_what_is_allowed(overrides: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=f"(?s){said}"):
        from_preset("idc_mobilenet_v2", overrides)


def test_views_are_a_field_of_every_recipe_and_are_read_where_they_stood_before() -> None:
    for name, views in {
        "idc_cnn_105k": 8, "idc_simple_cnn": 8, "idc_mobilenet_v2": 8, "pcam_cnn": 4,
        **dict.fromkeys(("idc_quick", "pcam_quick", "breakhis_quick"), 1),
        **dict.fromkeys(("breakhis_binary_resnet50", "breakhis_subtype_resnet50"), 1),
    }.items():  # fmt: skip
        assert from_preset(name).views == views, name
    assert TrainingConfig(model="pcam_cnn").views == 4 and TrainingConfig(model="cnn_105k").views == 1
    older = TrainingConfig(model="pcam_cnn", options={"views": 8, "dropout": 0.1})
    assert older.views == 8 and older == TrainingConfig(model="pcam_cnn", views=8, options={"dropout": 0.1})
    assert TrainingConfig.from_json(older.to_json()) == older and "views" not in older.options
    assert TrainingConfig(stain_normalisation=None).stain_normalisation == "none"  # type: ignore[arg-type]


def test_unknown_presets_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'idc_quick'"):
        from_preset("idc_quik")
    for text in ("a: [", "- 1", "{}\n---\n{}"):
        (tmp_path / "x.yaml").write_text(text)
        with pytest.raises(UsageError, match="x.yaml"):
            from_preset(str(tmp_path / "x.yaml"))
    (tmp_path / "own.yaml").write_text("model: simple_cnn\nmixed_precision: off\nphases: [{learning_rate: 1e-4}]\n")
    config = from_preset(str(tmp_path / "own.yaml"))
    assert config.mixed_precision == "off" and config.phases == (Phase(1, 1e-4),)
    with pytest.raises(UsageError, match="not JSON"):
        TrainingConfig.from_json("{")
    with pytest.raises(UsageError, match="format 99"):
        TrainingConfig.from_json(json.dumps({**config.to_dict(), "format": 99}))


def test_digest_tells_what_changes_the_outcome(tmp_path: Path) -> None:
    base = from_preset("idc_quick")
    assert base.digest() == TrainingConfig.from_json(base.to_json()).digest()
    assert dataclasses.replace(base, title="x").digest() == base.digest()
    assert dataclasses.replace(base, seed=1).digest() != base.digest()
    weights = tmp_path / "w.h5"
    weights.write_bytes(b"1")
    config = from_preset("idc_quick", {"options.weights": str(weights)})
    before = config.digest()
    weights.write_bytes(b"2")
    assert config.digest() != before
    weights.unlink()
    with pytest.raises(UsageError, match="no such file"):
        config.digest()


def test_what_makes_the_model_is_told_apart_from_how_it_is_judged() -> None:
    base = from_preset("idc_quick")
    judged = from_preset("idc_quick", {"gate.policy": "auto", "gate.baseline": "report", "floors.auc": "0.51"})
    assert judged.digest() != base.digest() and judged.making_digest() == base.making_digest()
    assert dataclasses.replace(base, seed=1).making_digest() != base.making_digest()


def test_data_that_a_recipe_does_not_fit() -> None:
    pcam = from_preset("pcam_cnn")
    region = (32, 32, 32, 32)
    with pytest.raises(UsageError, match="dataset"):
        pcam.check_data("idc", "binary", 50, 50, None)
    with pytest.raises(UsageError, match="task"):
        pcam.check_data("pcam", "subtype", 96, 96, region)
    shifting = from_preset("pcam_cnn", {"augmentation.translation": "0.4"})
    with pytest.raises(UsageError, match="augmentation.translation"):
        shifting.check_data("pcam", "binary", 96, 96, region)
    cropping = from_preset("pcam_cnn", {"model": "resnet50", "options.crop": "48"})
    with pytest.raises(UsageError, match="options.crop.*64 or more"):
        cropping.check_data("pcam", "binary", 96, 96, region)
    larger = dataclasses.replace(cropping, image_size=(192, 192), options={"crop": 96})
    with pytest.raises(UsageError, match="options.crop.*128 or more"):
        larger.check_data("pcam", "binary", 96, 96, region)
    dataclasses.replace(larger, options={"crop": 128}).check_data("pcam", "binary", 96, 96, region)
    with pytest.raises(UsageError, match="at least 36 pixels"):
        TrainingConfig(model="cnn_105k").check_data("idc", "binary", 32, 32, None)


def test_it_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainingConfig().seed = 1  # type: ignore[misc]


def test_reading_presets_and_models_loads_neither_keras_nor_tensorflow() -> None:
    code = (
        "import sys; from components.training import models, presets; from pipelines.recipes import PRESETS_FOLDER; "
        "presets.infos(PRESETS_FOLDER); "
        "print([m for m in ('keras', 'tensorflow', 'h5py', 'numpy') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
