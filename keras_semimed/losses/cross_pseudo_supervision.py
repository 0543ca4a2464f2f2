"""Two students that learn each other's hard prediction (CPS)."""

from __future__ import annotations

import keras
from keras import ops

from keras_semimed.losses.cross_entropy import masked_cross_entropy
from keras_semimed.losses.dice import DiceLoss

_IGNORE = 255


@keras.saving.register_keras_serializable(package="keras_semimed")
class CrossPseudoSupervision(keras.losses.Loss):
    """`l(logits_1, labels_2) + l(logits_2, labels_1)` (Chen et al., CPS, 2021).

    The labels are the arg max of either student, without a threshold. l is the mean over all pixels of the batch that
    lie inside their image.

    Args:
        loss: l: `"ce"`, cross-entropy, or `"dice"`, `DiceLoss` over all classes, background included.
        name: name of the loss.

    Raises:
        ValueError: `loss` is neither `"ce"` nor `"dice"`.
    """

    def __init__(self, loss: str = "ce", name: str = "cross_pseudo_supervision") -> None:
        super().__init__(name=name)
        if loss not in ("ce", "dice"):
            raise ValueError(f"`loss` must be 'ce' or 'dice', found {loss!r}.")
        self.loss = loss
        self._dice = DiceLoss(ignore_value=_IGNORE, include_background=True)

    def __call__(
        self,
        logits_1: keras.KerasTensor,
        logits_2: keras.KerasTensor,
        inside: keras.KerasTensor | None = None,
        labels_1: keras.KerasTensor | None = None,
        labels_2: keras.KerasTensor | None = None,
    ) -> keras.KerasTensor:
        """Computes the loss; gradient flows into both logits, and from neither into the labels.

        Args:
            logits_1: scores of the first student before the softmax, any float dtype. Shape: `(N, H, W, K)`.
            logits_2: scores of the second student. Shape: `(N, H, W, K)`.
            inside: 1 where a pixel lies inside its image, else 0; 1 by default. Shape: `(N, H, W)`.
            labels_1: what the first student says, where that is not the arg max of `logits_1`, such as labels mixed by
                CutMix; 255 is left out. Shape: `(N, H, W)`, integers.
            labels_2: what the second student says. Shape: `(N, H, W)`, integers.

        Returns:
            Scalar float32; 0 where nothing is inside.
        """
        labels_1 = ops.argmax(logits_1, axis=-1) if labels_1 is None else labels_1
        labels_2 = ops.argmax(logits_2, axis=-1) if labels_2 is None else labels_2
        return self._one_way(logits_1, labels_2, inside) + self._one_way(logits_2, labels_1, inside)

    def _one_way(
        self, logits: keras.KerasTensor, labels: keras.KerasTensor, inside: keras.KerasTensor | None
    ) -> keras.KerasTensor:
        labels = ops.cast(labels, "int32")
        if inside is not None:
            labels = ops.where(ops.cast(inside, "float32") > 0, labels, _IGNORE)
        if self.loss == "ce":
            return masked_cross_entropy(labels, logits, ignore_value=_IGNORE)
        return self._dice(labels, ops.softmax(ops.cast(logits, "float32"), axis=-1))

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {"loss": self.loss, "name": self.name}
