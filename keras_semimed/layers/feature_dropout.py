"""Dropout of whole channels of a feature map: UniMatch's perturbation in place of a strong view."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_semimed.layers.random_state import StoredSeedGenerator, add_random_state


@keras.saving.register_keras_serializable(package="keras_semimed")
class FeatureDropout(keras.Layer):
    """Multiplies each channel of each image by 0, with probability `rate`, or by `1 / (1 - rate)` (Yang et al., 2023).

    A channel is dropped or kept as a whole, for each image and each level on its own. Acts with `training=True` alone.
    The state of the random stream is a weight, saved and restored with the layer.

    Args:
        rate: share of the channels that are dropped.
        seed: non-negative integer.

    Raises:
        ValueError: `rate` is not within [0, 1).
    """

    def __init__(self, rate: float = 0.5, seed: int = 0, **kwargs: Any) -> None:
        # The features keep their dtype, whatever the policy.
        super().__init__(**{**kwargs, "dtype": "float32", "autocast": False})
        if not 0 <= rate < 1:
            raise ValueError(f"`rate` must be within [0, 1), found {rate!r}.")
        self.rate = rate
        self.seed = seed
        self.random_state = add_random_state(self, seed)
        self.built = True

    def draw(self, batch_size: Any, channels: int) -> Any:
        """Draws the factor of each channel of each image.

        Args:
            batch_size: number of images N.
            channels: number of channels D.

        Returns:
            `(N, D)` float32, 0 or `1 / (1 - rate)`.
        """
        generator = StoredSeedGenerator(self.random_state)
        numbers = keras.random.uniform((batch_size, channels), dtype="float32", seed=generator)
        return ops.cast(numbers >= self.rate, "float32") / (1.0 - self.rate)

    def call(self, features: Any, factors: Any = None, training: bool | None = None) -> Any:
        """Drops channels.

        Args:
            features: `(N, h, w, D)`, or a dict of such levels.
            factors: what the channels are multiplied by, `(N, D)` or a dict with the keys of `features`; None: drawn,
                level by level in the order of their names.
            training: whether to drop anything.

        Returns:
            The structure, shapes and dtypes of `features`.

        Raises:
            ValueError: the factors are not of the levels of the features.
        """
        if not isinstance(features, dict):
            return self._drop(features, factors) if training else features
        if factors is not None and (not isinstance(factors, dict) or factors.keys() != features.keys()):
            found = sorted(factors) if isinstance(factors, dict) else "a single tensor"
            raise ValueError(f"`factors` must be a dict of the features' levels {sorted(features)}, found {found}.")
        if not training:
            return features
        factors = dict.fromkeys(features) if factors is None else factors
        dropped = {name: self._drop(features[name], factors[name]) for name in sorted(features)}
        return {name: dropped[name] for name in features}

    def _drop(self, features: Any, factors: Any) -> Any:
        if factors is None:
            factors = self.draw(ops.shape(features)[0], features.shape[-1])
        factors = ops.stop_gradient(ops.cast(factors, "float32"))
        between = (1,) * (len(features.shape) - 2)
        factors = ops.reshape(factors, (-1, *between, features.shape[-1]))
        return ops.cast(ops.cast(features, "float32") * factors, features.dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build this layer again."""
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
