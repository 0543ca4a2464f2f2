"""The change from the weak to the strong view, the same for unlabelled images as for labelled ones (InterLUDE)."""

from __future__ import annotations

from typing import Any, Literal

import keras
from keras import ops

from keras_semimed.configuration import check_choice
from keras_semimed.losses.reductions import one_hot_and_valid, safe_divide, shapes_agree


@keras.saving.register_keras_serializable(package="keras_semimed")
class DeltaConsistencyLoss(keras.losses.Loss):
    """Mean squared difference between the changes of labelled images and those of the unlabelled ones beside them.

    Huang et al., InterLUDE, ICML 2024, with P the softmax: `Delta_i = P(labelled weak i) - P(labelled strong i)`,
    `Gamma_i` the mean over j of `P(unlabelled weak ij) - P(unlabelled strong ij)`, and the loss
    `1 / (B C) sum over i and classes of (Gamma_i - Delta_i)^2`.

    Args:
        pairs: the unlabelled images that enter `Gamma_i`: `"all"` beside labelled image i, or those whose most probable
            class is its label (`"class"`); a labelled image without one adds 0.
        name: name of the loss.

    Raises:
        ValueError: `pairs` is neither.
    """

    def __init__(self, pairs: Literal["all", "class"] = "all", name: str = "delta_consistency") -> None:
        super().__init__(name=name)
        check_choice("pairs", pairs, ("all", "class"))
        self.pairs = pairs

    def __call__(
        self,
        labeled_weak: Any,
        labeled_strong: Any,
        unlabeled_weak: Any,
        unlabeled_strong: Any,
        labels: Any = None,
        inside: Any = None,
    ) -> Any:
        """Computes the loss; gradient flows into both unlabelled views, and into no labelled one.

        Args:
            labeled_weak: scores before the softmax, any float dtype. Shape: `(B, C)`.
            labeled_strong: of the same images. Shape: `(B, C)`.
            unlabeled_weak: of the images beside them. Shape: `(B, mu, C)`.
            unlabeled_strong: of the same images. Shape: `(B, mu, C)`.
            labels: of the labelled images, 255 where unknown, which then count nowhere; for `"class"` alone. Shape:
                `(B,)`.
            inside: 1 for the unlabelled images that there is anything of, else 0; None: all. A labelled image that has
                only others beside it counts nowhere. Shape: `(B, mu)`.

        Returns:
            Scalar float32; 0 where no image is left.

        Raises:
            ValueError: the shapes do not fit, or `"class"` has no labels.
        """
        if self.pairs == "class" and labels is None:
            raise ValueError("`labels` must be those of the labelled images with `pairs`='class', found None.")
        self._check_shapes(labeled_weak, labeled_strong, unlabeled_weak, unlabeled_strong)
        known = ops.stop_gradient(_softmax(labeled_weak) - _softmax(labeled_strong))  # Delta (B, C)
        weak = _softmax(unlabeled_weak)
        members = ops.ones_like(weak[..., 0]) if inside is None else ops.cast(inside, "float32")
        counted = ops.cast(ops.max(members, axis=1) > 0, "float32")
        if self.pairs == "class":
            own, valid = one_hot_and_valid(labels, weak.shape[-1])
            predicted, _ = one_hot_and_valid(ops.argmax(weak, axis=-1), weak.shape[-1])
            members = members * ops.sum(own[:, None] * predicted, axis=-1)
            counted = counted * valid
        members = ops.stop_gradient(members)
        matched = ops.sum(members, axis=1)
        change = ops.sum(members[..., None] * (weak - _softmax(unlabeled_strong)), axis=1)
        change = safe_divide(change, matched[:, None])  # Gamma (B, C)
        losses = ops.mean(ops.square(change - known), axis=-1) * ops.cast(matched > 0, "float32")
        return safe_divide(ops.sum(counted * losses), ops.sum(ops.stop_gradient(counted)))

    def _check_shapes(self, labeled_weak: Any, labeled_strong: Any, unlabeled_weak: Any, unlabeled_strong: Any) -> None:
        expected = tuple(unlabeled_weak.shape)
        if len(expected) != 3:
            raise ValueError(f"`unlabeled_weak` must be (B, mu, C), found {expected}.")
        if not shapes_agree(tuple(unlabeled_strong.shape), expected):
            raise ValueError(
                f"`unlabeled_strong` must be of the shape of `unlabeled_weak` {expected}, found "
                f"{tuple(unlabeled_strong.shape)}."
            )
        for name, values in (("labeled_weak", labeled_weak), ("labeled_strong", labeled_strong)):
            if not shapes_agree(tuple(values.shape), expected[::2]):
                raise ValueError(f"`{name}` must be (B, C) {expected[::2]}, found {tuple(values.shape)}.")

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"pairs": self.pairs, "name": self.name}


def _softmax(logits: Any) -> Any:
    return ops.softmax(ops.cast(logits, "float32"), axis=-1)
