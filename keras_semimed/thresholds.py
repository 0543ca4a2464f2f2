"""Pseudo-label selection by two thresholds, and their schedules (Hermes Eq. 7-8, 16-17)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_semimed.configuration import check_choice, is_number

_SELECTIONS = ("none", "confidence", "uncertainty", "dual")


def uncertainty_threshold(
    progress: float | keras.KerasTensor, maximum: float = 0.75, minimum: float = 0.25
) -> keras.KerasTensor:
    """Kappa of Hermes Eq. 16: falls from `maximum` to `minimum` nats as half a cosine.

    Args:
        progress: iteration / total iterations; clipped to [0, 1].
        maximum: value at progress 0, the paper's eta_max.
        minimum: value at progress 1, the paper's eta_min.

    Returns:
        Scalar float32.
    """
    t = _clipped(progress)
    return minimum + 0.5 * (maximum - minimum) * (ops.cos(math.pi * t) + 1.0)


def confidence_threshold(
    progress: float | keras.KerasTensor, base: float = 0.75, rise: float = 0.25
) -> keras.KerasTensor:
    """Tau of Hermes Eq. 17 as printed: `base + rise * exp(-0.5 (1 - t)^2) * ln 2`.

    With the defaults it rises from 0.855 to 0.923 (the paper's text says that it starts at 0.75; its formula does not).

    Args:
        progress: t = iteration / total iterations; clipped to [0, 1].
        base: constant part.
        rise: factor of the rising part.

    Returns:
        Scalar float32.
    """
    t = _clipped(progress)
    return base + rise * math.log(2.0) * ops.exp(-0.5 * ops.square(1.0 - t))


def unreliable_share(progress: float | keras.KerasTensor, start: float = 0.2) -> keras.KerasTensor:
    """Share of the pixels that U2PL takes for unreliable: falls linearly from `start` to 0.

    Args:
        progress: iteration / total iterations; clipped to [0, 1].
        start: alpha_0, the share at progress 0.

    Returns:
        Scalar float32.
    """
    return start * (1.0 - _clipped(progress))


def release_uncertainty_threshold(progress: float | keras.KerasTensor) -> keras.KerasTensor:
    """Kappa as the authors' code has it: `(0.75 + 0.25 exp(-5 (1 - t)^2)) ln 2`.

    It rises from 0.521 to ln 2 = 0.693 nats, the largest entropy of two classes: the filter fades out.
    """
    t = _clipped(progress)
    return math.log(2.0) * (0.75 + 0.25 * ops.exp(-5.0 * ops.square(1.0 - t)))


def class_wise_confidence(labels: keras.KerasTensor, num_classes: int) -> keras.KerasTensor:
    """Tau of each class as the authors' code has it: `0.95 - 0.45 (1 - share of the class)`, within [0.5, 0.95].

    Args:
        labels: pseudo-labels of the whole batch. Shape: `(...)`, integers.
        num_classes: K.

    Returns:
        Threshold of each class. Shape: `(K,)`, float32.
    """
    labels = ops.reshape(ops.cast(labels, "int32"), (-1, 1))
    one_hot = ops.cast(ops.equal(labels, ops.arange(num_classes, dtype="int32")), "float32")
    return 0.95 - 0.45 * (1.0 - ops.mean(one_hot, axis=0))


def entropy(probabilities: keras.KerasTensor) -> keras.KerasTensor:
    """Entropy in nats (Hermes Eq. 8), from 0 to ln K; exact and finite where a probability is 0.

    Args:
        probabilities: any float dtype. Shape: `(..., K)`.

    Returns:
        Shape: `(...)`, float32.
    """
    p = ops.cast(probabilities, "float32")
    return -ops.sum(p * ops.log(ops.maximum(p, 1e-12)), axis=-1)


def view_uncertainty(weak: keras.KerasTensor, strong: keras.KerasTensor, kind: str) -> keras.KerasTensor:
    """A second opinion in place of Eq. 8: how uncertain two views of one image are together.

    Args:
        weak: probabilities of the weak view. Shape: `(..., K)`.
        strong: probabilities of the strong view. Shape: `(..., K)`.
        kind: `"mean"`, the entropy of their mean, or `"disagreement"`, their Jensen-Shannon divergence.

    Returns:
        Nats. Shape: `(...)`, float32.
    """
    mean = entropy(0.5 * (weak + strong))
    return mean if kind == "mean" else mean - 0.5 * (entropy(weak) + entropy(strong))


def consistency_ramp(progress: float | keras.KerasTensor) -> keras.KerasTensor:
    """`exp(-5 (1 - t)^2)`, the factor that the authors' code has before Eq. 14; it rises from 0.007 to 1."""
    return ops.exp(-5.0 * ops.square(1.0 - _clipped(progress)))


def average_momentum(updates: int | keras.KerasTensor, maximum: float) -> keras.KerasTensor:
    """Momentum of a teacher's moving average at its update number `updates`: `min(1 - 1 / updates, maximum)`.

    The first update copies the student, and until `1 / (1 - maximum)` updates the teacher is the plain mean of all
    students so far (Tarvainen, Valpola, Mean Teacher, 2017).

    Args:
        updates: number of this update, from 1 on.
        maximum: limit of the momentum, in [0, 1).

    Returns:
        Scalar float32.
    """
    return ops.minimum(1.0 - 1.0 / ops.cast(updates, "float32"), maximum)


class Selection(NamedTuple):
    """Pseudo-labels, and which of them to trust; nothing here carries a gradient.

    Attributes:
        labels: most probable class. Shape: `(...)`, int32.
        weight: 1.0 where kept, else 0.0. Shape: `(...)`, float32.
        kappa: uncertainty threshold in use. Scalar float32.
        tau: confidence threshold in use. Scalar float32, or `(K,)` when it is class-wise.
    """

    labels: keras.KerasTensor
    weight: keras.KerasTensor
    kappa: keras.KerasTensor
    tau: keras.KerasTensor


@keras.saving.register_keras_serializable(package="keras_semimed")
class DualThreshold:
    """Keeps a pseudo-label that is confident and certain: max probability >= tau, uncertainty <= kappa (Hermes Eq. 7).

    For two classes and one prediction the entropy is a monotone function of the maximum, so the two tests are one:
    `max probability >= max(tau, H^-1(kappa))`, where H^-1(kappa) is the larger of the two probabilities whose entropy
    is kappa. What "dual" adds there is a schedule only; with Eq. 16-17, kappa is the stricter one in the last 14 % of
    the run. It is a second opinion for three classes and more, or when `uncertainty` comes from several views.

    Args:
        selection: `"none"` keeps all, `"confidence"` and `"uncertainty"` use one test, `"dual"` both.
        combine: for `"dual"`: `"all"` keeps what passes both tests (Eq. 7), `"any"` what passes at least one.
        confidence: tau: `"scheduled"` (Eq. 17), `"class_wise"` (`class_wise_confidence` of the current batch, which a
            probability must exceed) or a constant in [0, 1].
        uncertainty: kappa: `"scheduled"` (Eq. 16), `"release"` (`release_uncertainty_threshold`) or a constant >= 0 in
            the unit of the uncertainty, nats for the entropy.

    Raises:
        ValueError: an argument is none of these.
    """

    def __init__(
        self,
        selection: str = "dual",
        combine: str = "all",
        confidence: str | float = "scheduled",
        uncertainty: str | float = "scheduled",
    ) -> None:
        check_choice("selection", selection, _SELECTIONS)
        check_choice("combine", combine, ("all", "any"))
        if confidence not in ("scheduled", "class_wise") and not _within(confidence, 0.0, 1.0):
            raise ValueError(f"`confidence` must be 'scheduled', 'class_wise' or within [0, 1], found {confidence!r}.")
        if uncertainty not in ("scheduled", "release") and not _within(uncertainty, 0.0, math.inf):
            raise ValueError(f"`uncertainty` must be 'scheduled', 'release' or a number >= 0, found {uncertainty!r}.")
        self.selection = selection
        self.combine = combine
        self.confidence = confidence
        self.uncertainty = uncertainty

    def __call__(
        self,
        probabilities: keras.KerasTensor,
        progress: float | keras.KerasTensor,
        uncertainty: keras.KerasTensor | None = None,
    ) -> Selection:
        """Selects pseudo-labels of images or pixels.

        Args:
            probabilities: prediction for the weak view, any float dtype. Shape: `(..., K)`.
            progress: iteration / total iterations, a scalar; clipped to [0, 1].
            uncertainty: of each entry, the entropy of `probabilities` by default. Shape: `(...)`.

        Returns:
            A `Selection`.
        """
        probabilities = ops.stop_gradient(ops.cast(probabilities, "float32"))
        labels = ops.cast(ops.argmax(probabilities, axis=-1), "int32")
        if uncertainty is None:
            uncertainty = entropy(probabilities)
        uncertainty = ops.stop_gradient(ops.cast(uncertainty, "float32"))
        kappa = self.kappa(progress)
        tau = self.tau(progress, labels, probabilities.shape[-1])
        maximum = ops.max(probabilities, axis=-1)
        confident = maximum > ops.take(tau, labels) if self.confidence == "class_wise" else maximum >= tau
        certain = uncertainty <= kappa
        return Selection(labels, ops.cast(self._keep(confident, certain), "float32"), kappa, tau)

    def _keep(self, confident: keras.KerasTensor, certain: keras.KerasTensor) -> keras.KerasTensor:
        if self.selection == "none":
            return ops.ones_like(confident)
        if self.selection == "confidence":
            return confident
        if self.selection == "uncertainty":
            return certain
        return ops.logical_and(confident, certain) if self.combine == "all" else ops.logical_or(confident, certain)

    def kappa(self, progress: float | keras.KerasTensor) -> keras.KerasTensor:
        """The uncertainty threshold at some progress: scalar float32."""
        if self.uncertainty == "scheduled":
            return uncertainty_threshold(progress)
        if self.uncertainty == "release":
            return release_uncertainty_threshold(progress)
        return ops.convert_to_tensor(self.uncertainty, "float32")

    def tau(
        self, progress: float | keras.KerasTensor, labels: keras.KerasTensor, num_classes: int
    ) -> keras.KerasTensor:
        """The confidence threshold at some progress: scalar float32; class-wise, of these pseudo-labels: `(K,)`."""
        if self.confidence == "scheduled":
            return confidence_threshold(progress)
        if self.confidence == "class_wise":
            return class_wise_confidence(labels, num_classes)
        return ops.convert_to_tensor(self.confidence, "float32")

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {
            "selection": self.selection,
            "combine": self.combine,
            "confidence": self.confidence,
            "uncertainty": self.uncertainty,
        }

    @classmethod
    def from_config(cls, config: dict) -> DualThreshold:
        """Returns an instance from what `get_config` returned."""
        return cls(**config)


def _clipped(progress: float | keras.KerasTensor) -> keras.KerasTensor:
    return ops.clip(ops.cast(progress, "float32"), 0.0, 1.0)


def _within(value: Any, low: float, high: float) -> bool:
    return is_number(value) and low <= value <= high
