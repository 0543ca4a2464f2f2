"""A method that the recipes have never heard of."""

from __future__ import annotations

from typing import Any, Literal

import keras

from keras_semimed.configuration import check_not_negative
from keras_semimed.losses import masked_cross_entropy
from keras_semimed.models import Losses, SemiSupervisedModel, View


@keras.saving.register_keras_serializable(package="made")
class Made(SemiSupervisedModel):
    """Learns its own labels.

    Args:
        kind: what nobody looks at.
        lambda_own: weight of what it learns from itself.
        fixed: weight of the same once more.
        own_start: step at which nothing starts.
    """

    supports = ("segmentation",)

    def __init__(
        self,
        kind: Literal["this", "that"] = "this",
        lambda_own: float = 0.5,
        fixed: float = 0.0,
        own_start: int = 30,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kind = kind
        self.lambda_own = lambda_own
        self.fixed = fixed
        self.own_start = own_start
        check_not_negative(self, "lambda_own", "fixed")
        self.build_networks()

    @property
    def loss_weights(self) -> dict[str, float]:
        """Of its three terms."""
        return {"mask_supervised": 1.0, "mask_own": self.lambda_own, "mask_more": self.fixed}

    def terms(self, labeled: View, unlabeled: View) -> Losses:
        """One pass over both."""
        on_labeled, on_unlabeled = self.run(labeled, unlabeled)
        logits = on_unlabeled["mask_logits"]
        own = masked_cross_entropy(keras.ops.argmax(logits, axis=-1), logits)
        return Losses({**self.supervised(labeled, on_labeled), "mask_own": own, "mask_more": own})
