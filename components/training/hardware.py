"""Where training runs: every visible GPU, else the CPU; and what of precision and compilation follows from that."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from components.errors import UsageError
from components.training.phases import dtype_policy
from components.training.recipe import TrainingConfig


@dataclasses.dataclass(frozen=True)
class Hardware:
    """What a run trains on.

    Attributes:
        devices: Logical devices that share the work.
        gpu: Whether they are GPUs.
        policy: Keras' dtype policy, `float32` or `mixed_float16`.
        strategy: MirroredStrategy over several devices, None for a single one.
    """

    devices: tuple[str, ...]
    gpu: bool
    policy: str
    strategy: Any = None

    @property
    def replicas(self) -> int:
        """Copies of the model that train side by side."""
        return len(self.devices)

    @property
    def jit_compile(self) -> bool:
        """Whether steps are compiled with XLA: on GPUs only, on a CPU it made training three times as slow."""
        return self.gpu

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Models and optimizers are made in here."""
        return self.strategy.scope() if self.strategy is not None else contextlib.nullcontext()

    def describe(self) -> str:
        """One line for people."""
        kind = "GPU" if self.gpu else "CPU"
        many = f"{self.replicas} {kind}s side by side" if self.replicas > 1 else f"one {kind}"
        return f"{many}, {self.policy}{', XLA' if self.jit_compile else ''}"


def find_hardware(config: TrainingConfig) -> Hardware:
    """Takes every visible GPU (`CUDA_VISIBLE_DEVICES` limits them), else the CPU.

    A CPU is one device unless it was parted on purpose (`tf.config.set_logical_device_configuration`); then its parts
    are used like several GPUs, which is how the distributed way is tested without any.

    Raises:
        UsageError: The batch can't be shared evenly by the devices.
    """
    for device in tf.config.list_physical_devices("GPU"):
        # Else TensorFlow takes all of a GPU's memory, and a second process finds none. Fixed once it has started.
        with contextlib.suppress(RuntimeError, ValueError):
            tf.config.experimental.set_memory_growth(device, True)
    gpus = tf.config.list_logical_devices("GPU")
    devices = tuple(device.name for device in gpus or tf.config.list_logical_devices("CPU"))
    if config.batch_size % len(devices):
        raise UsageError(
            f"batch_size is {config.batch_size}, which {len(devices)} devices can't share evenly.",
            f"Set batch_size to a multiple of {len(devices)}.",
        )
    strategy = tf.distribute.MirroredStrategy(list(devices)) if len(devices) > 1 else None
    return Hardware(devices, bool(gpus), dtype_policy(config.mixed_precision, bool(gpus)), strategy)


@contextlib.contextmanager
def precision(policy: str) -> Iterator[None]:
    """Sets Keras' dtype policy for models built inside."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
