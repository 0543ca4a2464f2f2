"""UniMatch: one weak view teaches two strong ones and its own perturbed features."""

from __future__ import annotations

from typing import Any, Literal

import keras
from keras import ops

from keras_semimed.configuration import check_at_most_one, check_choice, check_not_negative, is_number
from keras_semimed.layers.cutmix import CutMix
from keras_semimed.layers.feature_dropout import FeatureDropout
from keras_semimed.layers.pseudo_labels import PseudoLabels, hard_labels
from keras_semimed.layers.views import WIDE_VIEWS
from keras_semimed.losses import DiceLoss
from keras_semimed.models.networked import mask_criterion
from keras_semimed.models.semi_supervised import Losses, SemiSupervisedModel
from keras_semimed.models.view import View


@keras.saving.register_keras_serializable(package="keras_semimed")
class UniMatch(SemiSupervisedModel):
    """FixMatch with two strong views and a stream whose features lose half of their channels.

    Yang et al., "Revisiting Weak-to-Strong Consistency in Semi-Supervised Semantic Segmentation", CVPR 2023. The weak
    view's confident labels are learnt from two strong views, each with boxes of its own, and, unmixed, from the weak
    view's own features with dropped channels. One pass of the encoder over all views, one of the decoder.
    `loss = loss_scale (supervised + lambda_strong / 2 (strong_1 + strong_2) + lambda_feature feature)`

    Args:
        threshold: lowest confidence of a pseudo-label that is kept: 0 keeps all of them, more than 1 none.
        lambda_strong: weight of both strong streams together.
        lambda_feature: weight of the feature stream.
        loss_scale: factor of the whole loss.
        feature_dropout: share of the channels that are dropped, on every level that the decoder takes; below 1.
        cutmix_probability: share of the views of a stream with a box of another image.
        unlabeled_loss: `"ce"`, or `"dice"` with background (the authors' medical variant, which learns the labelled
            images with cross-entropy and Dice).

    Raises:
        ValueError: for an argument out of its range; the message names it.
    """

    supports = ("segmentation",)
    default_mask_loss = "ce"
    default_views = WIDE_VIEWS

    def __init__(
        self,
        threshold: float = 0.95,
        lambda_strong: float = 0.5,
        lambda_feature: float = 0.5,
        loss_scale: float = 0.5,
        feature_dropout: float = 0.5,
        cutmix_probability: float = 0.5,
        unlabeled_loss: Literal["ce", "dice"] = "ce",
        mask_loss: Literal["ce", "dice", "ce_dice"] | None = None,
        **kwargs: Any,
    ) -> None:
        check_choice("unlabeled_loss", unlabeled_loss, ("ce", "dice"))
        if mask_loss is None and unlabeled_loss == "dice":
            mask_loss = "ce_dice"
        super().__init__(mask_loss=mask_loss, **kwargs)
        self.threshold = threshold
        self.lambda_strong = lambda_strong
        self.lambda_feature = lambda_feature
        self.loss_scale = loss_scale
        self.feature_dropout = feature_dropout
        self.cutmix_probability = cutmix_probability
        self.unlabeled_loss = unlabeled_loss
        check_not_negative(self, "threshold", "lambda_strong", "lambda_feature", "loss_scale")
        check_at_most_one(self, "cutmix_probability")
        if not is_number(feature_dropout) or not 0 <= feature_dropout < 1:
            raise ValueError(f"`feature_dropout` must be in [0, 1): not all channels, found {feature_dropout!r}.")
        self.mask_criterion = mask_criterion(self.mask_loss, include_background=unlabeled_loss == "dice")
        self.dice_loss = DiceLoss(include_background=True)
        self.cutmix = CutMix(cutmix_probability, seed=self.seed + 2)
        self.dropout = FeatureDropout(feature_dropout, seed=self.seed + 3)
        self.build_networks()

    @property
    def loss_weights(self) -> dict[str, float]:
        """A half of `lambda_strong` for each strong stream."""
        weights = {
            "mask_supervised": 1.0,
            "mask_strong_1": self.lambda_strong / 2,
            "mask_strong_2": self.lambda_strong / 2,
            "mask_feature": self.lambda_feature,
        }
        return {name: self.loss_scale * weight for name, weight in weights.items()}

    def terms(self, labeled: View, unlabeled: View) -> Losses:
        """The supervised term and the three streams."""
        strong = (self.strong(unlabeled), self.strong(unlabeled, host=False))
        boxes = [self.cutmix.boxes(unlabeled.count, self.image_size, self.image_size) for _ in strong]
        mixed = [view.mixed(view.rolled(), box) for view, box in zip(strong, boxes, strict=True)]
        features = self.encode(labeled, unlabeled, *mixed)
        dropped = self.dropout(dict(features[1]), training=True)
        on_labeled, on_weak, on_first, on_second, on_dropped = self.decode(*features, dropped)
        pseudo = self.pseudo("mask", unlabeled, on_weak["mask_logits"])
        first, second = (pseudo.mixed(pseudo.rolled(), box) for box in boxes)
        terms = {
            **self.supervised(labeled, on_labeled),
            "mask_strong_1": self._stream(first, on_first["mask_logits"]),
            "mask_strong_2": self._stream(second, on_second["mask_logits"]),
            "mask_feature": self._stream(pseudo, on_dropped["mask_logits"]),
        }
        return Losses(terms, {"mask": pseudo}, labeled=on_labeled)

    def select(self, head: str, logits: Any, inside: Any, other: Any = None, training: bool = False) -> PseudoLabels:
        """Hard labels of at least the threshold's confidence."""
        del head, other, training
        return hard_labels(logits, inside, self.threshold)

    def _stream(self, targets: PseudoLabels, logits: Any) -> Any:
        if self.unlabeled_loss == "ce":
            return targets.cross_entropy(logits)
        return self.dice_loss(targets.labels, ops.softmax(ops.cast(logits, "float32")), targets.kept)
