"""CorrMatch: pseudo-labels that spread along the similarity of places."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from keras_semimed.configuration import check_at_most_one, check_not_negative, check_whole, is_number
from keras_semimed.layers.adaptive_threshold import AdaptiveThreshold
from keras_semimed.layers.cutmix import CutMix
from keras_semimed.layers.feature_dropout import FeatureDropout
from keras_semimed.layers.pseudo_labels import PseudoLabels
from keras_semimed.layers.region_propagation import correlation_region, propagate_regions
from keras_semimed.layers.views import IGNORE, WIDE_VIEWS
from keras_semimed.losses import SoftmaxConsistency, draw_members, masked_cross_entropy
from keras_semimed.models.health import Share
from keras_semimed.models.semi_supervised import Losses, SemiSupervisedModel
from keras_semimed.models.view import View
from keras_semimed.networks.contract import Head
from keras_semimed.networks.correlation import CorrelationHead, check_places, spread_logits


@keras.saving.register_keras_serializable(package="keras_semimed")
class CorrMatch(SemiSupervisedModel):
    """UniMatch with one strong view, whose pseudo-labels spread along a correlation map of the deepest features.

    Sun et al., "CorrMatch: Label Propagation via Correlation Matching for Semi-Supervised Semantic Segmentation", CVPR
    2024. The map spreads logits, which are learnt too, and gives regions, which are filled with a class where they are
    sure of it. The confidence that a label needs follows training.
    `loss = loss_scale ((supervised + spread) / 2 + lambda_unlabeled / 4 (hard + soft + feature + correlation))`

    Args:
        threshold_start: confidence that a pseudo-label needs before training.
        threshold_momentum: of its moving average; with 1 it stays.
        regions: regions that are drawn in each step.
        correlation_dim: channels that two places are compared in; None: the number of classes, as the authors' code.
        feature_dropout: share of the channels that the feature stream loses on every level; below 1.
        cutmix_probability: share of the strong views with a box of another image.
        lambda_unlabeled: weight of what is learnt without labels.
        loss_scale: factor of the whole loss.

    Raises:
        ValueError: for an argument out of its range; the message names it.
    """

    supports = ("segmentation",)
    default_mask_loss = "ce"
    default_views = WIDE_VIEWS

    def __init__(
        self,
        threshold_start: float = 0.85,
        threshold_momentum: float = 0.999,
        regions: int = 128,
        correlation_dim: int | None = 21,
        feature_dropout: float = 0.5,
        cutmix_probability: float = 0.5,
        lambda_unlabeled: float = 1.0,
        loss_scale: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.threshold_start = threshold_start
        self.threshold_momentum = threshold_momentum
        self.regions = regions
        self.correlation_dim = correlation_dim
        self.feature_dropout = feature_dropout
        self.cutmix_probability = cutmix_probability
        self.lambda_unlabeled = lambda_unlabeled
        self.loss_scale = loss_scale
        check_at_most_one(self, "threshold_start", "threshold_momentum", "cutmix_probability")
        check_not_negative(self, "lambda_unlabeled", "loss_scale")
        check_whole("regions", regions, 1)
        check_whole("correlation_dim", 1 if correlation_dim is None else correlation_dim, 1)
        if not is_number(feature_dropout) or not 0 <= feature_dropout < 1:
            raise ValueError(f"`feature_dropout` must be in [0, 1), found {feature_dropout!r}.")
        self.filter = AdaptiveThreshold(self.num_classes, threshold_start, threshold_momentum, name="filter")
        self.cutmix = CutMix(cutmix_probability, seed=self.seed + 2)
        self.dropout = FeatureDropout(feature_dropout, seed=self.seed + 3)
        self.soft_loss = SoftmaxConsistency("kl")
        self.build_networks()
        for encoder in self.network.encoders:
            check_places(encoder, self.image_size)

    @property
    def heads(self) -> dict[str, Head]:
        """The correlation map of the deepest features."""
        dim = self.correlation_dim or self.num_classes
        return {"correlation": Head("P5", lambda width, **named: CorrelationHead(dim, seed=self.seed + 4, **named))}

    @property
    def loss_weights(self) -> dict[str, float]:
        """Halves of what is labelled, quarters of what is not."""
        supervised = dict.fromkeys(("mask_supervised", "mask_correlation_supervised"), self.loss_scale / 2)
        unlabeled = ("mask_hard", "mask_soft", "mask_feature", "mask_correlation")
        return {**supervised, **dict.fromkeys(unlabeled, self.loss_scale * self.lambda_unlabeled / 4)}

    def terms(self, labeled: View, unlabeled: View) -> Losses:
        """Of the labelled views, of the strong one before and after regions, of dropped features, of spread logits."""
        boxes = self.cutmix.boxes(unlabeled.count, self.image_size, self.image_size)
        strong = self.strong(unlabeled)
        mixed = strong.mixed(strong.rolled(), boxes)
        features = self.encode(labeled, unlabeled, mixed)
        dropped = self.dropout(dict(features[1]), training=True)
        on_labeled, on_weak, on_mixed, on_dropped = self.decode(*features, dropped, heads={"correlation": features})
        pseudo = self.pseudo("mask", unlabeled, on_weak["mask_logits"])
        targets = pseudo.mixed(pseudo.rolled(), boxes)
        filled = self.pseudo("mask", mixed, self.filled(targets, on_weak["correlation"], boxes))
        inside = targets.inside * ops.cast(targets.labels != IGNORE, "float32")
        spread = [spread_logits(outputs) for outputs in (on_labeled, on_weak, on_mixed)]
        terms = {
            **self.supervised(labeled, on_labeled),
            "mask_correlation_supervised": masked_cross_entropy(labeled.masks, spread[0]),
            "mask_hard": filled.cross_entropy(on_mixed["mask_logits"]),
            "mask_soft": self.soft_loss(on_mixed["mask_logits"], targets.probabilities, targets.kept, inside),
            "mask_feature": pseudo.cross_entropy(on_dropped["mask_logits"]),
            "mask_correlation": (filled.cross_entropy(spread[2]) + pseudo.cross_entropy(spread[1])) / 2,
        }
        share = Share(ops.sum(filled.kept), ops.sum(filled.inside))
        figures = {"threshold": self.filter.threshold.value * 1.0, "mask_propagated": share}
        return Losses(terms, {"mask": pseudo}, figures, labeled=on_labeled)

    def filled(self, targets: PseudoLabels, correlation: Any, boxes: Any) -> PseudoLabels:
        """Mixed pseudo-labels after region propagation outside the boxes, by the map of the weak view."""
        places = correlation.shape[-1]
        side, size = math.isqrt(places), (self.image_size, self.image_size)
        drawn, _ = draw_members(ops.ones((1, places)), self.uniform((self.regions,))[None])
        rows = ops.take(ops.stop_gradient(correlation), drawn[0], axis=1)  # (U, R, P)
        labels, kept = propagate_regions(
            targets.labels,
            targets.kept,
            lambda index: correlation_region(ops.take(rows, index, axis=1), (side, side), size),
            self.regions,
            (1.0 - boxes) * targets.inside,
            self.filter.threshold.value,
            self.num_classes,
        )
        return targets._replace(labels=labels, kept=kept)

    def select(self, head: str, logits: Any, inside: Any, other: Any = None, training: bool = False) -> PseudoLabels:
        """Hard labels that reach the threshold; in training it takes in the batch first."""
        del head, other
        return self.filter(ops.softmax(ops.cast(logits, "float32")), inside, training=training)
