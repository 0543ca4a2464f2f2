"""InfoMatch: confident labels of the weak view are learnt from two strong views and from mixed weak ones."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import keras
from keras import ops

from keras_semimed.configuration import ArgumentWarning, check_at_most_one, check_choice, check_not_negative
from keras_semimed.layers.cutmix import CutMix, neighbour
from keras_semimed.layers.pseudo_labels import PseudoLabels
from keras_semimed.layers.self_adaptive_threshold import SelfAdaptiveThreshold
from keras_semimed.layers.views import IGNORE
from keras_semimed.losses import LogitAgreement, mixed_cross_entropy
from keras_semimed.models.semi_supervised import Losses, SemiSupervisedModel
from keras_semimed.models.view import View


@keras.saving.register_keras_serializable(package="keras_semimed")
class InfoMatch(SemiSupervisedModel):
    """Hard labels of the weak view, selected by thresholds of the classes that follow the predictions, in three places.

    Han et al., "InfoMatch: Entropy Neural Estimation for Semi-Supervised Image Classification", IJCAI 2024. They are
    learnt from two strong views, and from weak views of which each has a box of another one; a small term makes the
    strong predictions agree. `loss = supervised + lambda_cutmix cutmix + lambda_strong (strong_1 + strong_2) +
    lambda_agreement agreement`; the network itself labels, the average with `teacher_momentum` predicts.

    With two classes `agreement`, the method's own term, has no gradient at all: it is logged, and nothing is learnt
    from it.

    Args:
        threshold_momentum: of the moving averages that the thresholds are made of; 0.99 suits short runs.
        lambda_cutmix: weight of the mixed weak views.
        lambda_strong: weight of each strong view.
        lambda_agreement: weight of the agreement of the strong views.
        cutmix_placement: of the boxes: `"inside"`, or `"clipped"` at the edge of the image, as in the authors' code.
        teacher_momentum: of the moving average that predicts; None: the network itself does.

    Raises:
        ValueError: for an argument out of its range; the message names it.
    """

    supports = ("classification",)

    def __init__(
        self,
        threshold_momentum: float = 0.999,
        lambda_cutmix: float = 1.0,
        lambda_strong: float = 0.5,
        lambda_agreement: float = 0.002,
        cutmix_placement: Literal["inside", "clipped"] = "inside",
        teacher_momentum: float | None = 0.999,
        **kwargs: Any,
    ) -> None:
        super().__init__(teacher_momentum=teacher_momentum, **kwargs)
        self.threshold_momentum = threshold_momentum
        self.lambda_cutmix = lambda_cutmix
        self.lambda_strong = lambda_strong
        self.lambda_agreement = lambda_agreement
        self.cutmix_placement = cutmix_placement
        check_at_most_one(self, "threshold_momentum")
        check_not_negative(self, "lambda_cutmix", "lambda_strong", "lambda_agreement")
        check_choice("cutmix_placement", cutmix_placement, ("inside", "clipped"))
        if self.num_labels == 2:
            warnings.warn(
                "InfoMatch with two classes: the agreement of the strong views has no gradient, the other terms remain",
                ArgumentWarning,
                stacklevel=2,
            )
        self.filter = SelfAdaptiveThreshold(self.num_labels, threshold_momentum, name="filter")
        self.cutmix = CutMix(1.0, (1e-6, 0.5), (1.0, 1.0), seed=self.seed + 2, placement=cutmix_placement)
        self.agreement_loss = LogitAgreement()
        self.build_networks()

    @property
    def loss_weights(self) -> dict[str, float]:
        """Of the five terms."""
        return {
            "label_supervised": 1.0,
            "label_cutmix": self.lambda_cutmix,
            "label_strong_1": self.lambda_strong,
            "label_strong_2": self.lambda_strong,
            "label_agreement": self.lambda_agreement,
        }

    def terms(self, labeled: View, unlabeled: View) -> Losses:
        """Of the labelled views, of the mixed weak ones, of both strong ones, and of their agreement."""
        boxes = self.cutmix.boxes(unlabeled.count, self.image_size, self.image_size)
        mixed = unlabeled.mixed(unlabeled.rolled(), boxes)
        strong = self.strong(unlabeled), self.strong(unlabeled, host=False)
        on_labeled, on_weak, on_mixed, *on_strong = self.run(labeled, unlabeled, mixed, *strong)
        z_1, z_2 = (outputs["label_logits"] for outputs in on_strong)
        pseudo = self.pseudo("label", unlabeled, on_weak["label_logits"])
        labels = ops.where(pseudo.inside > 0, pseudo.labels, IGNORE)
        own = 1.0 - ops.mean(boxes, axis=(1, 2))  # the share of each mixed image that is its own
        partners = neighbour(ops.arange(unlabeled.count, dtype="int32"))
        terms = {
            **self.supervised(labeled, on_labeled),
            "label_cutmix": mixed_cross_entropy(labels, on_mixed["label_logits"], pseudo.kept, own, partners),
            "label_strong_1": pseudo.cross_entropy(z_1),
            "label_strong_2": pseudo.cross_entropy(z_2),
            "label_agreement": self.agreement_loss(z_1, z_2, pseudo.inside),
        }
        thresholds = self.filter.thresholds()
        figures = {"global_threshold": self.filter.global_threshold.value * 1.0}
        figures |= {f"threshold_class_{index}": thresholds[index] for index in range(self.num_labels)}
        return Losses(terms, {"label": pseudo}, figures)

    def select(self, head: str, logits: Any, inside: Any, other: Any = None, training: bool = False) -> PseudoLabels:
        """Hard labels that reach the threshold of their class; in training the thresholds take in the batch first."""
        del head, other
        return self.filter(ops.softmax(ops.cast(logits, "float32")), inside, training=training)
