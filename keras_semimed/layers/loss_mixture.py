"""Which pseudo-labels to trust, by a mixture fitted to the losses of labelled images (PEFAT)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_semimed.configuration import check_not_negative, check_whole
from keras_semimed.layers.mixture import Mixture, fit_mixture, mixture_posterior

_NEVER = 1e30


@keras.saving.register_keras_serializable(package="keras_semimed")
class LossMixture(keras.Layer):
    """Trusts images whose pseudo-loss is like the smaller losses of labelled images (Zeng et al., PEFAT, CVPR 2023).

    `update` collects losses of labelled images, `fit` fits two components to them, scaled to 0..1. Pseudo-losses of two
    views are scaled by the smallest and largest among them and the newest before them (`scale`, then `remember`); an
    image is trusted where the posterior of the smaller component at the mean of its two is above the threshold.

    State, saved with the model, without gradient: `queue` `(Q,)` and `count` of it, the newest losses in front;
    `shares`, `means`, `variances` `(2,)`, the mixture, of which both components are alike before it is fitted;
    `recent` `(2, W)` and `recent_count`, the newest pseudo-losses in front.

    Args:
        size: losses Q of labelled images that are kept.
        window: pseudo-losses W that are scaled together, those of the batch among them.
        threshold: posterior that a trusted image must exceed: 1 or more trusts none.

    Raises:
        ValueError: for an argument out of its range; the message names it.
    """

    def __init__(self, size: int = 256, window: int = 96, threshold: float = 0.7, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        check_whole("size", size, 1)
        check_whole("window", window, 1)
        self.size = size
        self.window = window
        self.threshold = threshold
        check_not_negative(self, "threshold")
        self.queue, self.count = self._state("queue", (size,)), self._state("count", (), dtype="int32")
        self.shares, self.means = self._state("shares", (2,), 0.5), self._state("means", (2,), 0.5)
        self.variances = self._state("variances", (2,), 1.0)
        self.recent = self._state("recent", (2, window))
        self.recent_count = self._state("recent_count", (), dtype="int32")
        self.built = True

    def _state(self, name: str, shape: tuple[int, ...], value: float = 0, dtype: str = "float32") -> Any:
        return self.add_weight(
            name=name,
            shape=shape,
            dtype=dtype,
            initializer=keras.initializers.Constant(value),
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
        )

    @property
    def mixture(self) -> Mixture:
        """As it was last fitted."""
        return Mixture(self.shares.value * 1.0, self.means.value * 1.0, self.variances.value * 1.0)

    def update(self, losses: Any, present: Any = None) -> None:
        """Puts losses of labelled images in front of the queue; what is not finite stays out.

        Args:
            losses: `(M,)`, any float dtype.
            present: `(M,)`, 1 for those that count, else 0; None: all of them.
        """
        _push(self.queue, self.count, losses, present)

    def fit(self, due: Any = None) -> None:
        """Fits the mixture to the queue's losses, scaled to 0..1; with an empty queue it stays as it is.

        Args:
            due: scalar, whether to fit at all; None: yes. Without, nothing is computed.
        """
        valid = ops.arange(self.size) < self.count.value
        wanted = self.count.value > 0
        wanted = wanted if due is None else ops.logical_and(ops.cast(due, "bool"), wanted)
        values = self.queue.value * 1.0
        fitted = ops.cond(
            wanted,
            lambda: tuple(fit_mixture(_scaled(values, values, valid), valid)),
            lambda: tuple(self.mixture),
        )
        for state, value in zip((self.shares, self.means, self.variances), fitted, strict=True):
            state.assign(value)

    def scale(self, losses: Any, inside: Any = None) -> Any:
        """Brings the pseudo-losses of each view to 0..1, by the smallest and largest of them and the newest before.

        Args:
            losses: `(2, U)`, any float dtype.
            inside: `(U,)`, 1 for the images that count, else 0; None: all of them.

        Returns:
            `(2, U)` float32, without gradient; 0 where all are the same.
        """
        losses = ops.stop_gradient(ops.cast(losses, "float32"))
        count = ops.shape(losses)[1]
        before = ops.arange(self.window) < ops.minimum(self.recent_count.value, self.window - count)
        inside = ops.ones_like(losses[0]) if inside is None else inside
        known = ops.concatenate([ops.cast(inside, "float32") > 0, before])
        return _scaled(losses, ops.concatenate([losses, self.recent.value * 1.0], axis=1), known)

    def remember(self, losses: Any, present: Any = None) -> None:
        """Puts pseudo-losses in front of the recent ones, after they were scaled.

        Args:
            losses: `(2, U)`, any float dtype.
            present: `(U,)`, 1 for those that count, else 0; None: all of them.
        """
        _push(self.recent, self.recent_count, losses, present)

    def call(self, scaled: Any) -> tuple[Any, Any]:
        """The posterior of each image, and whether it is trusted.

        Args:
            scaled: `(2, U)`, what `scale` returned.

        Returns:
            The posterior of the smaller component at the mean of both views, and 1 where it is above the threshold,
            else 0: `(U,)` float32 each.
        """
        posterior = mixture_posterior(ops.mean(ops.cast(scaled, "float32"), axis=0), self.mixture)
        return posterior, ops.cast(posterior > self.threshold, "float32")

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build this layer again."""
        return {**super().get_config(), "size": self.size, "window": self.window, "threshold": self.threshold}


def _scaled(values: Any, known: Any, valid: Any) -> Any:
    """`(values - smallest) / (largest - smallest)` of the known ones that are valid, row by row; 0 for a width of 0."""
    low = ops.min(ops.where(valid, known, _NEVER), axis=-1, keepdims=True)
    width = ops.max(ops.where(valid, known, -_NEVER), axis=-1, keepdims=True) - low
    return ops.where(width > 0, ops.clip((values - low) / ops.where(width > 0, width, 1.0), 0.0, 1.0), 0.0)


def _push(state: Any, count: Any, values: Any, present: Any) -> None:
    """Puts those of `(M,)` or `(R, M)` values that are present in front of a state `(S,)` or `(R, S)`."""
    values = ops.stop_gradient(ops.cast(values, "float32"))
    wanted = ops.isfinite(values) if len(values.shape) == 1 else ops.all(ops.isfinite(values), axis=0)
    if present is not None:
        wanted = ops.logical_and(wanted, ops.cast(present, "float32") > 0)
    size, number = state.shape[-1], ops.shape(values)[-1]
    order = ops.arange(number, dtype="int32")
    first = ops.argsort(ops.where(wanted, order, order + number))  # the present ones, in order
    pushed = ops.sum(ops.cast(wanted, "int32"))
    place = ops.arange(size, dtype="int32")
    source = ops.where(place < pushed, place, number + place - pushed)
    both = ops.concatenate([ops.take(values, first, axis=-1), state.value], axis=-1)
    state.assign(ops.take(both, source, axis=-1))
    count.assign(ops.minimum(count.value + pushed, size))
