"""Training on several machines at once: their strategy, this worker's part of each batch, what the chief tells.

Keras 3.12 does not fit under `MultiWorkerMirroredStrategy` on TensorFlow 2.16 by itself: it reduces data batches and
scalar logs along axes that they don't have. Here it gets ready-made step functions and a model that is built already;
everything else of `fit` stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from components.errors import TemporaryError
from components.training.cluster import HEARTBEAT_SECONDS, Cluster, join_seconds

LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.DeadlineExceededError,
    tf.errors.CancelledError,
)
"""What a collective operation ends with when another worker is gone."""

LOST_WORDS = ("ollective ops is aborted", "heartbeat timeout", "oordination service", "ollective has failed")


def make_strategy(cluster: Cluster) -> Any:
    """Joins the other workers; the first thing that may touch TensorFlow's devices in a process.

    Args:
        cluster: As TF_CONFIG has it.

    Raises:
        TemporaryError: They did not come in time.
    """
    from tensorflow.python.eager import context
    from tensorflow.tsl.protobuf import coordination_config_pb2 as proto

    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    jobs = resolver.cluster_spec().as_dict()
    leader = f"/job:{'chief' if 'chief' in jobs else 'worker'}/replica:0/task:0"
    milliseconds = int(1000 * join_seconds())
    config: Any = proto
    context.context().configure_coordination_service(
        "standalone",
        leader,
        cluster_register_timeout_in_ms=milliseconds,
        heartbeat_timeout_in_ms=int(1000 * HEARTBEAT_SECONDS),
        coordinated_jobs=[config.CoordinatedJob(name=name, num_tasks=len(tasks)) for name, tasks in jobs.items()],
    )
    options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=join_seconds())
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(resolver, options)
    except (*LOST, tf.errors.InternalError, tf.errors.UnknownError) as error:
        raise lost(error, cluster) from error


def lost(error: BaseException, cluster: Cluster) -> TemporaryError:
    """The error of a worker that waits in vain for another one."""
    reason = " ".join(str(error).split())
    return TemporaryError(
        f"Another worker is gone ({cluster.describe()} says: {reason[-300:]}).",
        "Start the command again on every machine: training goes on from the last epoch.",
    )


def is_lost(error: BaseException) -> bool:
    """Says whether an error means that another worker is gone."""
    return isinstance(error, LOST) or (
        isinstance(error, tf.errors.OpError) and any(words in str(error) for words in LOST_WORDS)
    )


def own_part(strategy: Any, batches: tf.data.Dataset, class_weight: dict[int, float] | None) -> Any:
    """This worker's part of each batch, as its replicas take it; see `part_of`.

    Args:
        strategy: Of `make_strategy`.
        batches: Whole batches (images, labels), the same on every worker.
        class_weight: Class to the weight of its images; None for none.
    """

    def of_worker(context: Any) -> tf.data.Dataset:
        workers = context.num_input_pipelines
        here = context.num_replicas_in_sync // workers
        return part_of(batches, class_weight, context.input_pipeline_id, workers, here).prefetch(2)

    return strategy.distribute_datasets_from_function(of_worker)


def part_of(
    batches: tf.data.Dataset, class_weight: dict[int, float] | None, worker: int, workers: int, replicas: int
) -> tf.data.Dataset:
    """One worker's part of each batch, a piece for each of its replicas.

    Every worker makes the whole batch and keeps its part: the order is the seed's alone, as in one process, and no
    worker's images are of other patients than another's. Reading is a small part of the work; augmentation and model
    see the part only.

    Args:
        batches: Whole batches (images, labels), of a size that all replicas share evenly.
        class_weight: Class to the weight of its images, which is added to each batch; None for none.
        worker: Which one, from 0.
        workers: Number.
        replicas: Of this worker.
    """
    table = None
    if class_weight is not None:
        table = tf.constant([class_weight[label] for label in sorted(class_weight)], tf.float32)

    def pieces(images: Any, labels: Any) -> tf.data.Dataset:
        size = tf.shape(labels)[0] // workers
        kept: tuple[Any, ...] = tuple(value[worker * size : (worker + 1) * size] for value in (images, labels))
        if table is not None:
            kept = (*kept, tf.gather(table, kept[1]))
        return tf.data.Dataset.from_tensor_slices(kept).batch(tf.cast(size // replicas, tf.int64))

    return batches.flat_map(pieces)


def whole(strategy: Any, batches: tf.data.Dataset) -> Any:
    """All batches for every replica: figures on eval are then those of one process, whatever its last batch holds.

    Args:
        strategy: Of `make_strategy`.
        batches: Of the eval split.
    """

    def for_each(context: Any) -> tf.data.Dataset:
        here = context.num_replicas_in_sync // context.num_input_pipelines
        return batches.flat_map(lambda *batch: tf.data.Dataset.from_tensors(batch).repeat(here))

    return strategy.distribute_datasets_from_function(for_each)


def make_fittable(strategy: Any, model: keras.Model, shape: tuple[int, int, int]) -> None:
    """Readies a compiled model for `fit` and `evaluate` with data sets of this module.

    Args:
        strategy: Of `make_strategy`.
        model: What is fitted.
        shape: Of an image.
    """
    batch = (np.zeros((1, *shape), np.uint8), np.zeros(1, np.int32))
    with strategy.scope():
        model._symbolic_build(data_batch=batch)
    model._maybe_symbolic_build = lambda iterator=None, data_batch=None: None

    def stepper(step: Any) -> Any:
        def run(iterator: Any) -> Any:
            logs = strategy.run(step, args=(next(iterator),))
            # Of this worker's first replica. Keras reads the metrics of all of them at the end of the epoch.
            return {name: strategy.experimental_local_results(value)[0] for name, value in logs.items()}

        return tf.function(run, reduce_retracing=True)

    model.train_function, model.test_function = stepper(model.train_step), stepper(model.test_step)


def broadcast(strategy: Any, data: bytes | None) -> bytes | None:
    """What the chief has, on every worker.

    Args:
        strategy: Of `make_strategy`.
        data: The chief's, None where it has none; None on the others.

    Returns:
        The chief's bytes; None where it has none.
    """
    size = _of_chief(strategy, np.array([-1.0 if data is None else len(data)], np.float64))[0]
    if size < 0:
        return None
    # Whole numbers below 2**16 survive a sum in float32 on every device.
    words = np.zeros(-(-int(size) // 2), "<u2")
    if data is not None:
        words.view(np.uint8)[: len(data)] = np.frombuffer(data, np.uint8)
    received: bytes = _of_chief(strategy, words.astype(np.float32)).astype("<u2").tobytes()
    return received[: int(size)]


def all_say(strategy: Any, yes: bool) -> bool:
    """Whether every worker says yes: for what all must do alike and each would decide by its own machine."""
    replicas = int(strategy.num_replicas_in_sync)
    return bool(_sum(strategy, [np.array([float(yes)])] * replicas)[0] == replicas)


def _of_chief(strategy: Any, array: Any) -> Any:
    """The array of the first replica of all, on every worker."""
    return _sum(strategy, [array, *[np.zeros_like(array)] * (strategy.num_replicas_in_sync - 1)])


def _sum(strategy: Any, arrays: Sequence[Any]) -> Any:
    """The sum over all replicas of what each one's own process gives under its number."""

    def add(values: Any) -> Any:
        def sum_of(value: Any) -> Any:
            # The copy lies on the replica's device; a function's argument lies on none that TensorFlow could name.
            return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(value))

        return strategy.run(sum_of, args=(values,))

    values = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(arrays[context.replica_id_in_sync_group])
    )
    return np.asarray(strategy.experimental_local_results(tf.function(add)(values))[0])
