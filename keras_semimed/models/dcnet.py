"""DCNet: two decoders, parted by a threshold into what they are both sure of and the rest."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import keras
from keras import ops

from keras_semimed.configuration import check_at_most_one, check_choice, check_not_negative, is_number
from keras_semimed.layers.consistency_threshold import ConsistencyThreshold, mean_confidence
from keras_semimed.layers.decoupling import decouple
from keras_semimed.layers.pseudo_labels import PseudoLabels
from keras_semimed.losses import AttentionTransfer, CrossPseudoSupervision, DirectionalConsistency
from keras_semimed.models.health import Share
from keras_semimed.models.semi_supervised import Losses, SemiSupervisedModel
from keras_semimed.models.view import View
from keras_semimed.networks.two_decoders import TwoDecoders
from keras_semimed.thresholds import consistency_ramp


@keras.saving.register_keras_serializable(package="keras_semimed")
class DCNet(SemiSupervisedModel):
    """One encoder with two decoders, whose predictions are decoupled by a threshold that follows the training.

    Chen et al., "Decoupled Consistency for Semi-supervised Medical Image Segmentation", MICCAI 2023. Of each pixel and
    class: where both decoders are sure they teach each other, elsewhere the less certain one moves towards the more
    certain one; the encoder's features imitate a decoder's. Labelled and unlabelled images alike, one weak view of
    each. The network is a U-Net; its decoder, the first one, predicts.
    `loss = supervised (both) + lambda_cross cross + lambda_directional r directional + lambda_feature (1 - r) feature`,
    `r = ramp_maximum exp(-5 (1 - t)^2)`, t the share of the run that is done.

    Arguments marked with a star take their default from the preset.

    Args:
        preset: `"paper"`, or `"small"`, without the imitation, whose weight is for images of 256 pixels.
        temperature: of the directional consistency; the authors take 0.5 for more than two classes.
        feature_target: decoder that the encoder's features imitate, 1 or 2; the authors take 2 for more than two
            classes.
        lambda_feature*: weight of the imitation; 1,000, with `"small"` 0.
        lambda_directional: weight of the directional consistency.
        lambda_cross: weight of the cross pseudo supervision.
        ramp_maximum: r at the end of the run, at most 1.
        threshold_limits: lowest and highest threshold.
        saturation: mean confidence from which on the decoders teach each other everywhere; more than 1: never.

    Raises:
        ValueError: for an argument out of its range; the message names it.
    """

    supports = ("segmentation",)
    able_networks = ("unet",)
    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {"lambda_feature": 1e3}, "small": {"lambda_feature": 0.0}}
    lambda_feature: float

    def __init__(
        self,
        preset: Literal["paper", "small"] = "paper",
        temperature: float = 1.0,
        feature_target: int = 1,
        lambda_feature: float | None = None,
        lambda_directional: float = 1e3,
        lambda_cross: float = 0.3,
        ramp_maximum: float = 0.1,
        threshold_limits: tuple[float, float] = (0.25, 0.95),
        saturation: float = 0.95,
        **kwargs: Any,
    ) -> None:
        super().__init__(preset=preset, **kwargs)
        self.take_preset(locals())
        self.temperature = temperature
        self.feature_target = feature_target
        self.lambda_directional = lambda_directional
        self.lambda_cross = lambda_cross
        self.ramp_maximum = ramp_maximum
        try:
            limits: tuple[Any, ...] = tuple(threshold_limits)
        except TypeError:  # one number
            limits = (threshold_limits,)
        self.threshold_limits = tuple(float(limit) if is_number(limit) else limit for limit in limits)
        self.saturation = saturation
        check_choice("feature_target", feature_target, (1, 2))
        check_not_negative(self, "temperature", "lambda_feature", "lambda_directional", "lambda_cross", "saturation")
        check_at_most_one(self, "ramp_maximum")
        limits = self.threshold_limits
        if len(limits) != 2 or not all(map(is_number, limits)) or not 0 <= limits[0] <= limits[1] <= 1:
            raise ValueError(f"`threshold_limits` must be two numbers in order within [0, 1], found {limits}.")
        self.filter = ConsistencyThreshold(self.num_classes, *self.threshold_limits, name="filter")
        self.cross_supervision = CrossPseudoSupervision()
        self.directional_consistency = DirectionalConsistency(temperature)
        self.attention_transfer = AttentionTransfer()
        self.build_networks()

    def make_network(self) -> TwoDecoders:
        """A U-Net with a second decoder."""
        encoder, weights, filters = self.given.encoder, self.given.weights, self.given.decoder_filters
        return TwoDecoders(self.num_classes, encoder, weights, filters, dtype=self.dtype_policy, name="two_decoders")

    @property
    def loss_weights(self) -> dict[str, Any]:
        """From the features to the directional consistency, by a ramp."""
        ramp = self.ramp_maximum * consistency_ramp(self.progress)
        return {
            "mask_supervised": 1.0,
            "mask_cross": self.lambda_cross,
            "mask_directional": self.lambda_directional * ramp,
            "feature": self.lambda_feature * (1.0 - ramp),
        }

    def terms(self, labeled: View, unlabeled: View) -> Losses:
        """Both decoders' supervised loss, and what is learnt from all images."""
        both, count = View.joined(labeled, unlabeled), labeled.count
        (outputs,) = self.run(both)
        first, second = outputs["mask_logits"], outputs["mask_logits_2"]
        confidences = ops.stack([mean_confidence(logits, both.inside) for logits in (first, second)])
        threshold = self.filter.update(confidences, rate=self.ramp(0, self.total_steps))
        parts = decouple(first, second, threshold, both.inside, self.saturation)
        own = parts.taught(second, both.inside, self.saturation)
        pseudo = self.pseudo("mask", unlabeled, PseudoLabels(*(values[count:] for values in own)))
        cross = parts if self.pseudo_labels == "method" else parts.with_truth(first, second, pseudo.labels)
        supervised = [
            self.supervised(labeled, {"mask_logits": logits[:count]})["mask_supervised"] for logits in (first, second)
        ]
        target = "" if self.feature_target == 1 else "_2"
        pairs = [(f"P{level}", f"D{level}{target}") for level in range(1, 5)]
        pairs = [pair for pair in pairs if set(pair) <= set(outputs)]
        terms = {
            "mask_supervised": supervised[0] + supervised[1],
            "mask_cross": self.cross_supervision(
                cross.logits_1, cross.logits_2, both.inside, cross.labels_1, cross.labels_2
            ),
            "mask_directional": self.directional_consistency(first, second, parts.guide_1, parts.guide_2, both.inside),
            "feature": self.attention_transfer([outputs[p] for p, _ in pairs], [outputs[d] for _, d in pairs]),
        }
        agreed = ops.sum(parts.consistent * both.inside[..., None])
        figures = {
            "consistency_threshold": threshold,
            "mask_consistent": Share(agreed, self.num_classes * ops.sum(both.inside)),
            "mask_confidence": parts.confidence,
        }
        return Losses(terms, {"mask": pseudo}, figures, {"mask_logits": first[:count]})

    def select(self, head: str, logits: Any, inside: Any, other: Any = None, training: bool = False) -> PseudoLabels:
        """What the second decoder, whose logits are `other`, teaches at the current threshold; `terms` moves it."""
        del head, training
        other = logits if other is None else other
        parts = decouple(logits, other, self.filter.threshold, inside, self.saturation)
        return parts.taught(other, inside, self.saturation)

    def label(self, view: Any, other: Any = None) -> dict[str, PseudoLabels]:
        """As in the base class, by both decoders."""
        del other
        view = self.as_view(view)
        features = self.network.encode(view.images, training=False)
        outputs = self.network.decode(features, ops.shape(view.images)[1:3], training=False, second=True)
        return self.selected(view, outputs, {"mask_logits": outputs["mask_logits_2"]})
