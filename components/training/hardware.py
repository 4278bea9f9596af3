"""Where training runs: every visible GPU, else the CPU; and what of precision and compilation follows from that."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from components.errors import UsageError
from components.training.cluster import Cluster, read_cluster
from components.training.phases import dtype_policy, leaf_layers
from components.training.recipe import TrainingConfig
from components.training.workers import make_strategy


@dataclasses.dataclass(frozen=True)
class Hardware:
    """What a run trains on.

    Attributes:
        devices: Logical devices that share the work.
        gpu: Whether they are GPUs.
        policy: Keras' dtype policy, `float32` or `mixed_float16`.
        strategy: MirroredStrategy over several devices, None for a single one.
        jit_compile: Whether steps are compiled with XLA.
        cluster: The machines that train together; the strategy is then one over all of them, the devices this one's.
    """

    devices: tuple[str, ...]
    gpu: bool
    policy: str
    strategy: Any = None
    jit_compile: bool = False
    cluster: Cluster | None = None

    @property
    def replicas(self) -> int:
        """Copies of the model that train side by side."""
        return len(self.devices) if self.cluster is None else int(self.strategy.num_replicas_in_sync)

    @property
    def writes(self) -> bool:
        """Whether this process keeps what is trained: it is the only one, or the chief of several."""
        return self.cluster is None or self.cluster.chief

    def scaled(self, optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
        """The optimizer with loss scaling where replicas train in float16; Keras adds it elsewhere."""
        return SharedLossScale(optimizer) if self.replicas > 1 and "float16" in self.policy else optimizer

    def steps_at_once(self, config: TrainingConfig) -> int:
        """The recipe's `steps_per_execution`; one on several devices.

        Keras' loop of steps fails there (3.12 on TensorFlow 2.16: placeholders in its branches are not fed).
        """
        return config.steps_per_execution if self.replicas == 1 else 1

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Models and optimizers are made in here."""
        return self.strategy.scope() if self.strategy is not None else contextlib.nullcontext()

    def describe(self) -> str:
        """One line for people."""
        kind = "GPU" if self.gpu else "CPU"
        many = f"{len(self.devices)} {kind}s side by side" if len(self.devices) > 1 else f"one {kind}"
        many += f" as {self.cluster.describe()}" if self.cluster is not None else ""
        return f"{many}, {self.policy}{', XLA' if self.jit_compile else ''}"


def find_hardware(config: TrainingConfig) -> Hardware:
    """Takes every visible GPU (`CUDA_VISIBLE_DEVICES` limits them), else the CPU; those of other machines by TF_CONFIG.

    A CPU is one device unless it was parted on purpose (`tf.config.set_logical_device_configuration`); then its parts
    are used like several GPUs, which is how the distributed way is tested without any.

    Raises:
        UsageError: The batch can't be shared evenly by the devices.
        TemporaryError: Another machine did not come.
    """
    for device in tf.config.list_physical_devices("GPU"):
        # Else TensorFlow takes all of a GPU's memory, and a second process finds none. Fixed once it has started.
        with contextlib.suppress(RuntimeError, ValueError):
            tf.config.experimental.set_memory_growth(device, True)
    cluster = read_cluster()
    if cluster is not None:
        strategy = make_strategy(cluster)
        devices = tuple(strategy.extended.worker_devices)
        gpu = any("GPU" in name for name in devices)
    else:
        gpus = tf.config.list_logical_devices("GPU")
        devices = tuple(device.name for device in gpus or tf.config.list_logical_devices("CPU"))
        gpu = bool(gpus)
        strategy = tf.distribute.MirroredStrategy(list(devices)) if len(devices) > 1 else None
    count = len(devices) if cluster is None else int(strategy.num_replicas_in_sync)
    if config.batch_size % count:
        raise UsageError(
            f"batch_size is {config.batch_size}, which {count} devices can't share evenly.",
            f"Set batch_size to a multiple of {count}.",
        )
    policy = dtype_policy(config.mixed_precision, gpu)
    return Hardware(devices, gpu, policy, strategy, use_xla(config, gpu, count), cluster)


def use_xla(config: TrainingConfig, gpu: bool, devices: int) -> bool:
    """Whether steps are compiled: by default on one GPU, where determinism is not asked for.

    On a CPU it made training three times as slow, and not all that it makes is deterministic. Together with
    MirroredStrategy it fails (Keras 3.12 on TensorFlow 2.16: a replica reaches for the other device's variables).

    Raises:
        UsageError: It is asked for on several devices.
    """
    if config.xla == "on" and devices > 1:
        raise UsageError(
            f"xla is on, which {devices} devices side by side can't do.",
            "Set xla to auto, or leave one device visible (CUDA_VISIBLE_DEVICES=0).",
        )
    return config.xla == "on" or (config.xla == "auto" and gpu and devices == 1 and not config.deterministic)


class ReplicaSeedGenerator(keras.random.SeedGenerator):
    """Draws other random numbers in each replica of a strategy; in replica 0 those of its base class.

    Its state is mirrored, so without this, image i of every replica would get the same flips and the same dropout.
    """

    STRIDE = 1_000_003

    def next(self, ordered: bool = True) -> Any:
        """The base class's seed, with the replica's number folded into its first half."""
        seed = super().next(ordered)
        context = tf.distribute.get_replica_context()
        replica = context.replica_id_in_sync_group if context is not None else 0
        return seed + ops.cast(ops.stack([ops.cast(replica, "int64") * self.STRIDE, 0]), seed.dtype)


class SharedLossScale(keras.optimizers.LossScaleOptimizer):
    """Dynamic loss scaling in which all replicas skip a step where one of them has gradients that are not finite.

    Keras 3.12 asks the first replica only, before gradients are summed: where another one overflows, and float16 does
    so in the first steps as a matter of course, its infinity reaches every replica's weights.
    """

    def check_finite(self, grads: Any) -> Any:
        """Whether the gradients of all replicas are finite."""
        finite = super().check_finite(grads)
        context = tf.distribute.get_replica_context()
        wrong = context.all_reduce(tf.distribute.ReduceOp.SUM, ops.cast(ops.logical_not(finite), "float32"))
        return ops.equal(wrong, 0.0)


def separate_replicas(model: keras.Model) -> None:
    """Makes every random layer of a model (dropout, crops, augmentation) draw anew for each replica."""
    for layer in leaf_layers(model):
        for generator in layer._seed_generators:
            generator.__class__ = ReplicaSeedGenerator  # Keras' own layers take no generator from outside


@contextlib.contextmanager
def precision(policy: str) -> Iterator[None]:
    """Sets Keras' dtype policy for models built inside."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
