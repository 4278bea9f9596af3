from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pytest
import tensorflow as tf

from components.errors import UsageError
from components.training import hardware
from components.training.hardware import Hardware, find_hardware, precision
from tests.support.training_help import recipe


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


def test_every_visible_gpu_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    made = machine(monkeypatch, 4)
    found = find_hardware(recipe())
    assert found.replicas == 4 and found.strategy == "strategy"
    assert made == [["/GPU:0", "/GPU:1", "/GPU:2", "/GPU:3"]]
    with pytest.raises(UsageError, match="4 devices can't share evenly.*multiple of 4"):
        find_hardware(recipe(batch_size=10))


def test_the_policy_is_put_back() -> None:
    with pytest.raises(ZeroDivisionError), precision("mixed_float16"):
        assert keras.config.dtype_policy().compute_dtype == "float16"
        raise ZeroDivisionError
    assert keras.config.dtype_policy().name == "float32"
    assert hardware.precision is precision
