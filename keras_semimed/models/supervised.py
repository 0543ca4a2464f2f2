"""The baseline that every method is compared with: the same networks and views, labelled images only."""

from __future__ import annotations

from typing import Any, Literal

import keras
from keras import ops

from keras_semimed.configuration import check_not_negative
from keras_semimed.models.semi_supervised import Losses, SemiSupervisedModel
from keras_semimed.models.view import View


@keras.saving.register_keras_serializable(package="keras_semimed")
class Supervised(SemiSupervisedModel):
    """Segmentation and classification from the labelled images alone ("SupOnly", Hermes Table 1 and 2).

    It takes the same batches as the semi-supervised methods and leaves their `"unlabeled"` images alone.

    Args:
        exchange: inter-task attention and saliency, off by default (Hermes Table 3, row 1).
        saliency_level: decoder level of the saliency map, as in `Hermes`.
        lambda_seg: weight of the segmentation loss (Eq. 15).
        lambda_cls: weight of the classification loss (Eq. 15).
        strong: train on the strong view instead of the weak one.
    """

    def __init__(
        self,
        exchange: Literal["both", "seg_to_cls", "cls_to_seg", "none"] = "none",
        saliency_level: Literal["P1", "P2", "P3", "P4"] = "P2",
        lambda_seg: float = 0.5,
        lambda_cls: float = 1.0,
        strong: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.exchange = exchange
        self.saliency_level = saliency_level
        self.lambda_seg = lambda_seg
        self.lambda_cls = lambda_cls
        self.train_on_strong = strong
        self.given.strong = strong
        check_not_negative(self, "lambda_seg", "lambda_cls")
        self.build_networks()

    @property
    def joint_options(self) -> dict[str, Any]:
        """What the branches exchange."""
        return {"exchange": self.exchange, "saliency_level": self.saliency_level}

    @property
    def loss_weights(self) -> dict[str, float]:
        """Eq. 15, labelled part."""
        return {"mask_supervised": self.lambda_seg, "label_supervised": self.lambda_cls}

    @property
    def supervised_only(self) -> bool:
        """The unlabelled images are never looked at."""
        return True

    def terms(self, labeled: View, unlabeled: View) -> Losses:
        """Eq. 1 and 2 on one view of the labelled images; the unlabelled ones are not even drawn."""
        del unlabeled
        view = self.strong(labeled) if self.train_on_strong else labeled
        (outputs,) = self.run(view)
        absent = dict.fromkeys(self.loss_weights, ops.zeros(()))
        return Losses({**absent, **self.supervised(view, outputs)}, labeled=outputs)
