from __future__ import annotations

import os
from types import SimpleNamespace

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pytest
import tensorflow as tf

from components.errors import UsageError
from components.training import hardware
from components.training.cluster import Cluster
from components.training.hardware import Hardware, find_hardware, precision
from tests.support.training_help import python, recipe


class Device:
    def __init__(self, name: str) -> None:
        self.name = name


def machine(monkeypatch: pytest.MonkeyPatch, gpus: int) -> list[list[str]]:
    """Pretends that there are GPUs; gives back the lists of devices that strategies were made of."""
    made: list[list[str]] = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    devices = {"GPU": [Device(f"/GPU:{i}") for i in range(gpus)], "CPU": [Device("/CPU:0")]}
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: devices[kind])
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda names: made.append(names) or "strategy")
    return made


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    made = machine(monkeypatch, 0)
    found = find_hardware(recipe())
    assert found == Hardware(("/CPU:0",), False, "float32") and not found.jit_compile and not made
    assert find_hardware(recipe(mixed_precision="on")).policy == "mixed_float16"


def test_one_gpu_needs_no_strategy(monkeypatch: pytest.MonkeyPatch) -> None:
    made = machine(monkeypatch, 1)
    found = find_hardware(recipe())
    assert found.gpu and found.policy == "mixed_float16" and found.jit_compile and not made
    assert find_hardware(recipe(mixed_precision="off")).policy == "float32"
    assert found.describe() == "one GPU, mixed_float16, XLA"


def test_xla_is_left_where_determinism_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 1)
    assert not find_hardware(recipe(deterministic=True)).jit_compile
    assert find_hardware(recipe(deterministic=True, xla="on")).jit_compile
    assert not find_hardware(recipe(xla="off")).jit_compile


def test_xla_on_several_devices_is_refused_before_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 2)
    with pytest.raises(UsageError, match="xla is on, which 2 devices side by side can't do. Set xla to auto"):
        find_hardware(recipe(xla="on"))


REPLICAS = """
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from components.training.augmentation import PRESETS
from components.training.augmentation_layers import layers
from components.training.callbacks import reseed
from components.training.hardware import separate_replicas
strategy = tf.distribute.MirroredStrategy([device.name for device in tf.config.list_logical_devices("CPU")])
with strategy.scope():
    images = keras.Input((16, 16, 3))
    x = images
    for layer in layers(PRESETS["strong"], 1):
        x = layer(x)
    model = keras.Model(images, keras.layers.Dropout(0.5)(x))
    separate_replicas(model)
reseed(model, 7, 0)
same = tf.constant(np.random.default_rng(0).uniform(0, 255, (4, 16, 16, 3)).astype("float32"))
step = tf.function(lambda: model(same, training=True))
drawn = [strategy.experimental_local_results(strategy.run(step)) for _ in range(2)]
first, second = (part.numpy() for part in drawn[0])
assert not any(np.array_equal(a, b) for a, b in zip(first, second)), "both replicas drew the same"
assert not np.array_equal(drawn[1][0].numpy(), first), "the second step draws what the first drew"
reseed(model, 7, 0)
again = [part.numpy() for part in strategy.experimental_local_results(strategy.run(step))]
assert np.array_equal(again[0], first) and np.array_equal(again[1], second), "same epoch, other numbers"
"""


@pytest.mark.integration
def test_replicas_augment_and_drop_differently_and_the_same_again() -> None:
    done = python(REPLICAS)
    assert done.returncode == 0, done.stderr


def test_every_visible_gpu_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    made = machine(monkeypatch, 4)
    found = find_hardware(recipe())
    assert found.replicas == 4 and found.strategy == "strategy"
    assert not found.jit_compile, "XLA and MirroredStrategy fail together"
    assert found.describe() == "4 GPUs side by side, mixed_float16"
    assert made == [["/GPU:0", "/GPU:1", "/GPU:2", "/GPU:3"]]
    with pytest.raises(UsageError, match="4 devices can't share evenly.*multiple of 4"):
        find_hardware(recipe(batch_size=10))


def test_devices_of_other_machines_count(monkeypatch: pytest.MonkeyPatch) -> None:
    strategy = SimpleNamespace(num_replicas_in_sync=2, extended=SimpleNamespace(worker_devices=("/job:worker/CPU:0",)))
    monkeypatch.setattr(hardware, "read_cluster", lambda: Cluster(("a:1", "b:2"), 1))
    monkeypatch.setattr(hardware, "make_strategy", lambda cluster: strategy)
    found = find_hardware(recipe())
    assert found.replicas == 2 and not found.writes and not found.gpu
    assert found.describe() == "one CPU as worker 1 of 2, float32"
    with pytest.raises(UsageError, match="2 devices can't share evenly"):
        find_hardware(recipe(batch_size=15))


def test_the_policy_is_put_back() -> None:
    with pytest.raises(ZeroDivisionError), precision("mixed_float16"):
        assert keras.config.dtype_policy().compute_dtype == "float16"
        raise ZeroDivisionError
    assert keras.config.dtype_policy().name == "float32"
    assert hardware.precision is precision
