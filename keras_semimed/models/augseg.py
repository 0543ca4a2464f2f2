"""AugSeg: a mean teacher whose student sees random intensities and adaptive boxes."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_semimed.configuration import check_not_negative
from keras_semimed.layers.adaptive_cutmix import AdaptiveCutMix, image_confidence
from keras_semimed.layers.pseudo_labels import PseudoLabels, hard_labels
from keras_semimed.layers.random_intensity import RandomIntensity
from keras_semimed.layers.views import WIDE_VIEWS
from keras_semimed.models.semi_supervised import Losses, SemiSupervisedModel
from keras_semimed.models.view import View


@keras.saving.register_keras_serializable(package="keras_semimed")
class AugSeg(SemiSupervisedModel):
    """A mean teacher in which only the augmentation is new, and adapts to how sure the teacher is of an image.

    Zhao et al., "Augmentation Matters: A Simple-yet-Effective Approach to Semi-supervised Semantic Segmentation",
    CVPR 2023. The teacher labels the weak view. The student sees it after a random number of random intensity
    operations and two rounds of CutMix: labelled boxes are injected into images that the teacher is unsure of, then
    boxes of the results are pasted into other images. `loss = supervised + lambda_unlabeled unlabeled`; `predict` uses
    the teacher. A strong view that was made on the host is not looked at: the strong view is the method's own.

    Args:
        threshold: lowest confidence of a pseudo-label that is kept: 0 keeps all of them, more than 1 none; labelled
            pixels are always kept.
        lambda_unlabeled: weight of the unlabelled term.
        operations: most intensity operations an image gets.
        injection_beta: of the Beta distribution of what an injected box leaves of the area.
        mixing_beta: of the Beta distribution of what a mixed box leaves of the area.
        per_image_boxes: draw the size of the boxes for each image, not once for the batch.
        teacher_momentum: of the teacher's moving average.

    Raises:
        ValueError: for an argument out of its range; the message names it.
    """

    supports = ("segmentation",)
    default_mask_loss = "ce"
    default_views = WIDE_VIEWS
    teachers = 1

    def __init__(
        self,
        threshold: float = 0.95,
        lambda_unlabeled: float = 1.0,
        operations: int = 3,
        injection_beta: tuple[int, int] = (8, 2),
        mixing_beta: tuple[int, int] = (4, 4),
        per_image_boxes: bool = False,
        teacher_momentum: float = 0.999,
        **kwargs: Any,
    ) -> None:
        super().__init__(teacher_momentum=teacher_momentum, **kwargs)
        self.threshold = threshold
        self.lambda_unlabeled = lambda_unlabeled
        self.operations = operations
        self.injection_beta = tuple(injection_beta)
        self.mixing_beta = tuple(mixing_beta)
        self.per_image_boxes = per_image_boxes
        check_not_negative(self, "threshold", "lambda_unlabeled")
        self.intensity = RandomIntensity(operations, seed=self.seed + 2)
        self.cutmix = AdaptiveCutMix(injection_beta, mixing_beta, per_image_boxes, seed=self.seed + 3)
        self.build_networks()

    @property
    def loss_weights(self) -> dict[str, float]:
        """Of both terms."""
        return {"mask_supervised": 1.0, "mask_unlabeled": self.lambda_unlabeled}

    def terms(self, labeled: View, unlabeled: View) -> Losses:
        """The supervised term and that of the mixed images."""
        (taught,) = self.teach(unlabeled)
        pseudo = self.pseudo("mask", unlabeled, taught["mask_logits"])
        probabilities = ops.softmax(ops.cast(taught["mask_logits"], "float32"))
        boxes = self.cutmix.draw(self.image_size, image_confidence(probabilities, unlabeled.inside))
        strong = self.intensity(unlabeled.images, unlabeled.inside)
        mixed = self.cutmix.mix(strong, labeled.images, boxes)
        # The labels of what is labelled are sure: confidence 1.
        pairs = zip(pseudo[:4], self.truth("mask", labeled)[:4], strict=True)
        targets = PseudoLabels(*(self.cutmix.mix(ours, true, boxes) for ours, true in pairs))
        on_labeled, on_mixed = self.run(labeled, mixed)
        terms = {
            **self.supervised(labeled, on_labeled),
            "mask_unlabeled": targets.cross_entropy(on_mixed["mask_logits"]),
        }
        return Losses(terms, {"mask": pseudo})

    def select(self, head: str, logits: Any, inside: Any, other: Any = None, training: bool = False) -> PseudoLabels:
        """Hard labels of at least the threshold's confidence."""
        del head, other, training
        return hard_labels(logits, inside, self.threshold)
