"""FixMatch: confident labels of the weak view are learnt from the strong one."""

from __future__ import annotations

from typing import Any

import keras

from keras_semimed.configuration import check_at_most_one, check_not_negative
from keras_semimed.layers.cutmix import CutMix
from keras_semimed.layers.pseudo_labels import PseudoLabels, hard_labels
from keras_semimed.layers.views import WIDE_VIEWS
from keras_semimed.models.semi_supervised import Losses, SemiSupervisedModel
from keras_semimed.models.view import View


@keras.saving.register_keras_serializable(package="keras_semimed")
class FixMatch(SemiSupervisedModel):
    """Hard pseudo-labels of the weak view, kept where the network is confident, are learnt from the strong view.

    Sohn et al., "FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence", NeurIPS 2020; for
    masks in the form that the literature compares with (UniMatch's authors), with CutMix. Both tasks together are their
    weighted sum, with boxes for the masks only.
    `loss = loss_scale (supervised + lambda_unlabeled unlabeled)`; a pixel or image that is not kept counts in the mean,
    so the term grows with the share that is. With `teacher_momentum` the average predicts, the network itself labels.

    Args:
        threshold: lowest confidence of a pseudo-label that is kept: 0 keeps all of them, more than 1 none.
        lambda_unlabeled: weight of the unlabelled terms.
        loss_scale: factor of the whole loss; None: 0.5, for image classes alone 1.
        cutmix_probability: share of strong views with a box of another image.
        lambda_seg: weight of the segmentation, where both tasks are learnt.
        lambda_cls: weight of the classification, where both tasks are learnt.

    Raises:
        ValueError: for an argument out of its range; the message names it.
    """

    default_mask_loss = "ce"
    default_views = WIDE_VIEWS

    def __init__(
        self,
        threshold: float = 0.95,
        lambda_unlabeled: float = 1.0,
        loss_scale: float | None = None,
        cutmix_probability: float = 0.5,
        lambda_seg: float = 0.5,
        lambda_cls: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.threshold = threshold
        self.lambda_unlabeled = lambda_unlabeled
        self.loss_scale = (0.5 if self.segments else 1.0) if loss_scale is None else loss_scale
        self.cutmix_probability = cutmix_probability
        self.lambda_seg = lambda_seg
        self.lambda_cls = lambda_cls
        check_not_negative(self, "threshold", "lambda_unlabeled", "loss_scale", "lambda_seg", "lambda_cls")
        check_at_most_one(self, "cutmix_probability")
        self.cutmix = CutMix(cutmix_probability, seed=self.seed + 2)
        self.build_networks()

    @property
    def loss_weights(self) -> dict[str, float]:
        """By task."""
        weights = {"supervised": self.loss_scale, "unlabeled": self.loss_scale * self.lambda_unlabeled}
        return self.by_task(weights, mask=self.lambda_seg, label=self.lambda_cls)

    def terms(self, labeled: View, unlabeled: View) -> Losses:
        """Supervised and unlabelled terms of the tasks that are learnt."""
        strong = self.strong(unlabeled)
        views, pseudo = {"label": strong}, {}
        if self.segments:
            boxes = self.cutmix.boxes(strong.count, self.image_size, self.image_size)
            views["mask"] = strong.mixed(strong.rolled(), boxes)
        views = {head: views[head] for head in self.learnt_heads}
        seen = {f"{head}_logits": (labeled, unlabeled, view) for head, view in views.items()}
        on_labeled, on_weak, *on_strong = self.run(labeled, unlabeled, *views.values(), heads=seen)
        terms = self.supervised(labeled, on_labeled)
        for head, outputs in zip(views, on_strong, strict=True):
            pseudo[head] = targets = self.pseudo(head, unlabeled, on_weak[f"{head}_logits"])
            if head == "mask":
                targets = targets.mixed(targets.rolled(), boxes)
            terms[f"{head}_unlabeled"] = targets.cross_entropy(outputs[f"{head}_logits"])
        return Losses(terms, pseudo)

    def select(self, head: str, logits: Any, inside: Any, other: Any = None, training: bool = False) -> PseudoLabels:
        """Hard labels of at least the threshold's confidence."""
        del head, other, training
        return hard_labels(logits, inside, self.threshold)
