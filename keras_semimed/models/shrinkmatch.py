"""ShrinkMatch: FixMatch that also learns from uncertain images, among the classes that do not compete."""

from __future__ import annotations

import warnings
from typing import Any

import keras
from keras import ops

from keras_semimed.configuration import ArgumentWarning, check_at_most_one, check_not_negative, check_whole
from keras_semimed.layers.distribution_alignment import DistributionAlignment
from keras_semimed.layers.mlp_head import MLPHead
from keras_semimed.layers.pseudo_labels import PseudoLabels, hard_labels
from keras_semimed.layers.running_mean import RunningMean
from keras_semimed.layers.views import IGNORE
from keras_semimed.losses import shrunk_cross_entropy
from keras_semimed.losses.reductions import safe_divide
from keras_semimed.models.semi_supervised import Losses, SemiSupervisedModel
from keras_semimed.models.view import View
from keras_semimed.networks.contract import Head

_TINY = 1e-30


@keras.saving.register_keras_serializable(package="keras_semimed")
class ShrinkMatch(SemiSupervisedModel):
    """FixMatch for image classes; an image that is not certain of one is learnt among fewer classes, if it is there.

    Yang et al., "Shrinking Class Space for Enhanced Certainty in Semi-Supervised Learning", ICCV 2023. Classes that
    compete with the most probable one leave, one after the other, until it reaches the threshold among the rest; there
    an auxiliary head has to find it in the strong view.
    `loss = supervised + lambda_unlabeled (unlabeled + shrunk)`; in `shrunk` is the moving share of certain images.

    **With two classes the term of its own is exactly 0**, as its only competitor leaves: what is left is FixMatch (with
    `soft_labels` and `distribution_alignment`), without a head, and the constructor warns. With three classes there is
    one smaller space, the first and the third class.

    Args:
        threshold: lowest confidence of an image that is certain, and that it must reach in a smaller space: 0 makes all
            certain, more than 1 none.
        lambda_unlabeled: weight of the terms without labels.
        soft_labels: learn certain images with all of their probabilities, not with the most probable class alone.
        distribution_alignment: steps whose mean prediction is brought to equal classes; None: not at all, for classes
            that are not equally frequent.
        ratio_momentum: of the moving share of certain images, which weighs the shrunk term.

    Raises:
        ValueError: for an argument out of its range; the message names it.
    """

    supports = ("classification",)

    def __init__(
        self,
        threshold: float = 0.95,
        lambda_unlabeled: float = 1.0,
        soft_labels: bool = True,
        distribution_alignment: int | None = None,
        ratio_momentum: float = 0.999,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.threshold = threshold
        self.lambda_unlabeled = lambda_unlabeled
        self.soft_labels = soft_labels
        self.distribution_alignment = distribution_alignment
        self.ratio_momentum = ratio_momentum
        check_not_negative(self, "threshold", "lambda_unlabeled")
        check_at_most_one(self, "ratio_momentum")
        check_whole("distribution_alignment", 1 if distribution_alignment is None else distribution_alignment, 1)
        self.ratio = RunningMean(momentum=ratio_momentum, name="ratio")
        self.alignment = None
        if distribution_alignment is not None:
            self.alignment = DistributionAlignment(self.num_labels, distribution_alignment, name="alignment")
        if not self.shrinks:
            warnings.warn(
                "ShrinkMatch with num_labels=2 is FixMatch: of two classes the only competitor leaves, and the term of "
                "its own is 0; it needs three classes, such as BUSI's with the normal images.",
                ArgumentWarning,
                stacklevel=2,
            )
        self.build_networks()

    @property
    def shrinks(self) -> bool:
        """Whether there is a smaller class space."""
        return self.num_labels > 2

    @property
    def heads(self) -> dict[str, Head]:
        """The auxiliary head, which keeps the targets of smaller spaces out of the classifier."""
        if not self.shrinks:
            return {}
        return {"auxiliary": Head("pooled", self._auxiliary)}

    def _auxiliary(self, width: int, **named: Any) -> MLPHead:
        return MLPHead(self.num_labels, 2 * (max(width // 4, 1),), **named)

    @property
    def loss_weights(self) -> dict[str, float]:
        """1, and twice `lambda_unlabeled`."""
        hidden = self.lambda_unlabeled
        return {"label_supervised": 1.0, "label_unlabeled": hidden, "label_shrunk": hidden}

    def terms(self, labeled: View, unlabeled: View) -> Losses:
        """Of the labelled view, of certain images, and of uncertain ones in their smaller spaces."""
        strong = self.strong(unlabeled)
        asked = {name: (strong,) for name in self.heads}
        on_labeled, on_weak, on_strong = self.run(labeled, unlabeled, strong, heads=asked)
        targets = self.pseudo("label", unlabeled, on_weak["label_logits"])
        learn = targets.soft_cross_entropy if self.soft_labels else targets.cross_entropy
        ratio, shrunk = self._shrunk(targets, on_strong)
        terms = {
            **self.supervised(labeled, on_labeled),
            "label_unlabeled": learn(on_strong["label_logits"]),
            "label_shrunk": shrunk,
        }
        return Losses(terms, {"label": targets}, {"ratio": ratio})

    def _shrunk(self, targets: PseudoLabels, on_strong: dict[str, Any]) -> tuple[Any, Any]:
        """The share of certain images, which takes in this batch first, and the term that it weighs."""
        counted = targets.inside * ops.cast(targets.labels != IGNORE, "float32")
        images = ops.sum(counted)
        ratio = self.ratio.update(safe_divide(ops.sum(targets.kept), images), images > 0)
        if not self.shrinks:
            return ratio, ops.zeros(())
        found = shrunk_cross_entropy(targets.probabilities, on_strong["auxiliary"], self.threshold)
        return ratio, ratio * safe_divide(ops.sum(counted * found.weights * found.losses), images)

    def select(self, head: str, logits: Any, inside: Any, other: Any = None, training: bool = False) -> PseudoLabels:
        """Labels, aligned where asked for, and which of them are certain; in training the queue takes them in first."""
        del head, other
        logits = ops.stop_gradient(ops.cast(logits, "float32"))
        if self.alignment is not None:
            aligned = self.alignment(ops.softmax(logits), inside, training=training)
            logits = ops.log(ops.maximum(aligned, _TINY))
        return hard_labels(logits, inside, self.threshold)._replace(probabilities=ops.softmax(logits))
