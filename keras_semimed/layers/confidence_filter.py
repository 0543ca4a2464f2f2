"""Class-wise confidence thresholds that follow the teacher's predictions (LoCo, Eq. 14-18)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_semimed.layers.pseudo_labels import PseudoLabels


@keras.saving.register_keras_serializable(package="keras_semimed")
class ConfidenceDynamicFilter(keras.Layer):
    """Filters pseudo-labels by `T(c) = T_g (T_l(c) / max_c T_l(c))^gamma` (Cai et al., LoCo, Eq. 18).

    Eq. 14, 15: the global threshold `T_g` is a moving average of the mean over the classes present of `alpha_l(c)`.
    Eq. 16, 17: the local threshold `T_l(c)` is a moving average of `alpha_l(c)`, the mean confidence of the valid
    pixels whose most probable class is c; it starts at 1 / K, and a class that is absent leaves it alone.
    A class that the teacher is less sure of is thus filtered less strictly.

    The thresholds are float32 weights: they are saved with the model, and no gradient flows through them. They take in
    a batch before they filter it.

    Args:
        num_classes: number of classes K, background included.
        initial: `T_g` before training.
        momentum: of both moving averages, the lambda of Eq. 15 and 16.
        gamma: how far the local thresholds matter; 0 makes all classes alike.
        global_mean: `"class"`, the mean over the classes present (Eq. 14), or `"pixel"`, over all pixels (the authors'
            code).
        maximum: upper limit of `T(c)`; None, as printed: 1 at most, by its definition.
        fixed: filter with this threshold instead (Table IV, M2); the moving averages are kept up for comparison.

    Raises:
        ValueError: where an argument is out of its range.
    """

    def __init__(
        self,
        num_classes: int,
        initial: float = 0.85,
        momentum: float = 0.999,
        gamma: float = 0.25,
        global_mean: str = "class",
        maximum: float | None = None,
        fixed: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        if num_classes < 2:
            raise ValueError(f"`num_classes` must be at least 2, found {num_classes!r}.")
        for name, value in (("initial", initial), ("momentum", momentum), ("maximum", maximum), ("fixed", fixed)):
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"`{name}` must be within [0, 1], found {value!r}.")
        if gamma < 0:
            raise ValueError(f"`gamma` must not be negative, found {gamma!r}.")
        if global_mean not in ("class", "pixel"):
            raise ValueError(f"`global_mean` must be 'class' or 'pixel', found {global_mean!r}.")
        self.num_classes = num_classes
        self.initial = initial
        self.momentum = momentum
        self.gamma = gamma
        self.global_mean = global_mean
        self.maximum = maximum
        self.fixed = fixed
        self.global_threshold = self._state("global_threshold", (), initial)
        self.local_thresholds = self._state("local_thresholds", (num_classes,), 1.0 / num_classes)
        self.built = True

    def _state(self, name: str, shape: tuple, value: float) -> Any:
        return self.add_weight(
            name=name,
            shape=shape,
            dtype="float32",
            initializer=keras.initializers.Constant(value),
            trainable=False,
            autocast=False,
            aggregation="mean",
        )

    def dynamic_thresholds(self) -> Any:
        """Eq. 18 of the current state, whether or not it is what filters: `(K,)` float32."""
        local = self.local_thresholds.value
        thresholds = self.global_threshold.value * ops.power(local / ops.maximum(ops.max(local), 1e-7), self.gamma)
        return thresholds if self.maximum is None else ops.minimum(thresholds, self.maximum)

    def thresholds(self) -> Any:
        """The threshold that filters each class: `(K,)` float32."""
        if self.fixed is not None:
            return ops.full((self.num_classes,), self.fixed, dtype="float32")
        return self.dynamic_thresholds()

    def update(self, labels: Any, confidence: Any, valid: Any) -> None:
        """Moves the thresholds towards the confidence of a batch (Eq. 14-17); without a valid pixel nothing moves.

        Args:
            labels: `(N, H, W)` most probable classes.
            confidence: `(N, H, W)` their probabilities.
            valid: `(N, H, W)`, 1 where a pixel lies inside its image, else 0.
        """
        members = ops.one_hot(ops.cast(labels, "int32"), self.num_classes, dtype="float32") * valid[..., None]
        axes = tuple(range(len(members.shape) - 1))
        count = ops.sum(members, axis=axes)  # (K,)
        total = ops.sum(members * ops.cast(confidence, "float32")[..., None], axis=axes)
        mean = total / ops.maximum(count, 1.0)  # alpha_l
        present = ops.cast(count > 0, "float32")
        if self.global_mean == "class":
            overall = ops.sum(present * mean) / ops.maximum(ops.sum(present), 1.0)
        else:
            overall = ops.sum(total) / ops.maximum(ops.sum(count), 1.0)
        step = 1.0 - self.momentum
        local = self.local_thresholds.value
        self.local_thresholds.assign(local + step * present * (mean - local))
        old = self.global_threshold.value
        self.global_threshold.assign(old + step * ops.max(present) * (overall - old))

    def keep(self, labels: Any, confidence: Any, valid: Any) -> Any:
        """Returns 1.0 where a valid pixel's confidence reaches the threshold of its class, else 0.0: `(N, H, W)`."""
        needed = ops.take(self.thresholds(), ops.cast(labels, "int32"))
        return ops.cast(ops.cast(confidence, "float32") >= needed, "float32") * valid

    def call(self, probabilities: Any, valid: Any = None, training: bool | None = None) -> PseudoLabels:
        """Turns the teacher's probabilities into filtered pseudo-labels.

        Args:
            probabilities: `(N, H, W, K)`, any float dtype.
            valid: `(N, H, W)`, 1 where a pixel lies inside its image; None: everywhere.
            training: whether the thresholds take in this batch first.

        Returns:
            `PseudoLabels`; kept is 1 where the confidence of a valid pixel reaches the threshold of its class, else 0.
            All fields are there: a layer of a functional model cannot return None.
        """
        probabilities = ops.stop_gradient(ops.cast(probabilities, "float32"))
        labels = ops.cast(ops.argmax(probabilities, axis=-1), "int32")
        confidence = ops.max(probabilities, axis=-1)
        valid = ops.ones_like(confidence) if valid is None else ops.cast(valid, "float32")
        if training:
            self.update(labels, confidence, valid)
        return PseudoLabels(labels, confidence, self.keep(labels, confidence, valid), valid, probabilities)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build this layer again."""
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "initial": self.initial,
            "momentum": self.momentum,
            "gamma": self.gamma,
            "global_mean": self.global_mean,
            "maximum": self.maximum,
            "fixed": self.fixed,
        }
