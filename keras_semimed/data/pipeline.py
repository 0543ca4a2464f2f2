"""Batches as a tf.data pipeline, where augmentation policies that need TensorFlow can run; for every backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from keras_semimed.data.arrays import SemiSupervisedBatches


def as_tf_data(batches: SemiSupervisedBatches, strong_policy: Callable[[Any], Any] | None = None) -> Any:
    """Turns batches into a `tf.data.Dataset` with the same order, prefetched, for `fit` on any backend.

    A `strong_policy` changes the intensities of the unlabelled images on the host, and `fit` takes its result,
    moved like the weak view, instead of the strong view that the model would make:

    ```python
    model.fit(as_tf_data(batches, rand_augment()), epochs=epochs)
    ```

    The policy must not move anything: the pseudo-labels of the weak view stay where they are. Its random numbers are
    its own: with keras-cv a run is not repeated to the bit by the same seed.

    Args:
        batches: Labelled and unlabelled images. `fit` sets its epoch, so that a run that resumes goes on in the order.
        strong_policy: From float32 images `(U, H, W, C)` in 0..255 to such images, in TensorFlow, such as
            `rand_augment()`. None leaves the strong view to the model.

    Returns:
        A dataset of `len(batches)` elements as `SemiSupervisedBatches` gives them, with `"unlabeled_strong"`
        `(U, H, W, C)` uint8 among the inputs where there is a policy. Its attribute `batches` is the argument.

    Raises:
        ImportError: If TensorFlow is not installed.
    """
    import tensorflow as tf

    inputs, targets = batches.at(0)
    specification = {
        group: {name: tf.TensorSpec(array.shape, array.dtype) for name, array in arrays.items()}
        for group, arrays in (("inputs", inputs), ("targets", targets))
    }

    def epoch() -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
        first = batches.epoch * len(batches)
        for step in range(len(batches)):
            yield batches.at(first + step)

    dataset = tf.data.Dataset.from_generator(epoch, output_signature=tuple(specification.values()))
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(len(batches)))
    if strong_policy is not None:

        def with_strong(inputs: dict[str, Any], targets: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
            strong = tf.round(strong_policy(tf.cast(inputs["unlabeled"], "float32")))
            strong = tf.ensure_shape(tf.saturate_cast(strong, "uint8"), inputs["unlabeled"].shape)
            return {**inputs, "unlabeled_strong": strong}, targets

        dataset = dataset.map(with_strong, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    dataset = dataset.prefetch(tf.data.AUTOTUNE)
    dataset.batches = batches
    return dataset


def rand_augment(operations: int = 3, magnitude: float = 0.5, seed: int | None = None) -> Callable[[Any], Any]:
    """RandAugment (Cubuk et al., 2020) of keras-cv without what moves pixels: a `strong_policy` for `as_tf_data`.

    Contrast, brightness, equalization, solarization and loss of colour, drawn anew for each image.

    Args:
        operations: How many an image gets.
        magnitude: Their mean strength, 0 to 1.
        seed: Of its random numbers; on several threads their order is not fixed.

    Returns:
        A function of float32 images `(U, H, W, C)` in 0..255 to such images, in TensorFlow.

    Raises:
        ImportError: If keras-cv or TensorFlow is not installed.
    """
    try:
        from keras_cv.layers import RandAugment
    except ImportError as error:
        raise ImportError(
            f"rand_augment needs keras-cv and TensorFlow ({error}): pip install keras-cv tensorflow"
        ) from error
    import tensorflow as tf

    policy = RandAugment((0, 255), operations, magnitude, geometric=False, seed=seed)

    def changed(images: Any) -> Any:
        if images.shape[-1] != 1:
            return policy(images)
        return policy(tf.repeat(images, 3, axis=-1))[..., :1]  # keras-cv's colours need three channels, here all alike

    return changed
