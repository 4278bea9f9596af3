"""Grad-CAM (Selvaraju et al. 2017, doi 10.1109/ICCV.2017.74) as part of the exported graph.

Where the last feature maps of a network spoke for one class: each map is weighted by the mean of the class score's
gradient over its cells, and the weighted maps are added up. What spoke against the class is below 0; the published map
cuts it off, and so does whoever draws one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

from components.training.models.views import CropViews, TurnedViews

if TYPE_CHECKING:
    import keras

NO_FEATURES = (
    "Pooling", "Cropping", "Padding", "UpSampling",
    "Resize", "Rescaling", "CropViews", "TurnedViews", "Reinhard", "Macenko",
)  # fmt: skip
"""Layers whose output only repeats what is below them, feature maps or images: the walk goes past them."""


class GradCam:
    """Maps of one model. A plain object, so that no Keras layer gets into the SavedModel through it.

    Args:
        logits: The model up to its logits, float32[N, H, W, 3] to [N, C].

    Raises:
        ValueError: The model has no feature maps with places, [N, h, w, C].
    """

    def __init__(self, logits: keras.Model) -> None:
        import keras

        (output,) = logits.outputs
        features = _features(output)
        if not features:
            raise ValueError(f"{logits.name} has no feature maps between its images and its logits")
        self._views = [_views(feature) for feature in features]
        self._network = keras.Model(logits.inputs, [output, *features])

    def __call__(self, images: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        """What spoke for a class, place by place.

        Where a model averages over views of an image, every view's map is put back to where it came from, and they
        are averaged too.

        Args:
            images: [N, H, W, 3], grey levels 0-255.
            classes: int64[N], the class that is asked about.

        Returns:
            float32[N, H, W] on an arbitrary scale, positive where it spoke for the class and negative where against;
            interpolated from the cells of the feature maps.
        """
        images = tf.cast(images, tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(images)
            logits, *features = self._network(images, training=False)
            # Logits are only defined up to a number that all classes share: it is taken off. For two classes what is
            # left is half the log odds.
            score = tf.reduce_sum(tf.gather(logits, classes, batch_dims=1) - tf.reduce_mean(logits, axis=1))
        gradients = tape.gradient(score, features)
        size = tf.shape(images)[1:3]
        whole = tf.zeros(tf.shape(images)[:3])
        for feature, gradient, views in zip(features, gradients, self._views, strict=True):
            weights = tf.reduce_mean(gradient, axis=(1, 2), keepdims=True)
            found = tf.reduce_sum(weights * feature, axis=-1, keepdims=True)
            for layer, shape in views:
                found = _put_back(layer, found, tf.concat([tf.shape(images)[:1], shape], axis=0))
            whole += tf.image.resize(found, size)[..., 0]
        return whole


def _operation(tensor: Any) -> tuple[Any, list[Any]]:
    """What made a Keras tensor, and from which tensors."""
    operation, place, _ = tensor._keras_history
    return operation, list(operation._inbound_nodes[place].input_tensors)


def _features(logits: Any) -> list[Any]:
    """The feature maps nearest to the logits, one for each branch that has its own."""
    waiting, seen, found = [logits], set(), {}
    while waiting:
        tensor = waiting.pop()
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        operation, inputs = _operation(tensor)
        if not inputs:  # the images themselves are no features
            continue
        if len(tensor.shape) == 4 and not any(kind in type(operation).__name__ for kind in NO_FEATURES):
            found[id(tensor)] = tensor
        else:
            waiting += inputs
    return list(found.values())


def _views(feature: Any) -> list[tuple[Any, tuple[int, int, int]]]:
    """Layers below some feature maps that make several views of an image, the last first, with their input's size."""
    views: list[tuple[Any, tuple[int, int, int]]] = []
    tensor = feature
    while True:
        operation, inputs = _operation(tensor)
        if not inputs:
            return views
        tensor = inputs[0]
        if isinstance(operation, (CropViews, TurnedViews)):
            views.append((operation, (*tensor.shape[1:3], 1)))


def _put_back(layer: Any, maps: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """Maps of views [count * N, h, w, 1] to maps of the images [N, H, W, 1]: the mean of the views that saw a place.

    Cutting and turning are linear, so the layer's own gradient carries the views' maps back to where they came from.
    """
    with tf.GradientTape(persistent=True) as tape:
        places = tf.zeros(shape)
        tape.watch(places)
        seen = layer(places, training=False)
    resized = tf.image.resize(maps, tf.shape(seen)[1:3])
    total = tape.gradient(seen, places, output_gradients=resized)
    count = tape.gradient(seen, places, output_gradients=tf.ones_like(resized))
    return tf.math.divide_no_nan(total, count)
