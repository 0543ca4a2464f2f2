"""CPS: two networks learn each other's hard predictions."""

from __future__ import annotations

from typing import Any, Literal

import keras
from keras import ops

from keras_semimed.configuration import check_at_most_one, check_choice, check_not_negative
from keras_semimed.layers.cutmix import CutMix
from keras_semimed.layers.pseudo_labels import PseudoLabels, hard_labels
from keras_semimed.losses import CrossPseudoSupervision
from keras_semimed.models.health import Share
from keras_semimed.models.semi_supervised import Losses, SemiSupervisedModel
from keras_semimed.models.view import View
from keras_semimed.networks.contract import Extended
from keras_semimed.thresholds import consistency_ramp

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"lambda_cps": 1.5, "ramp_cps": False},
    # The form of most medical comparisons.
    "ssl4mis": {"lambda_cps": 0.1, "cps_on": "unlabeled", "ramp_cps": True},
    # In 100 steps with full weight from the first one on, both networks agreed on wrong masks.
    "small": {"lambda_cps": 1.5, "ramp_cps": True},
}


@keras.saving.register_keras_serializable(package="keras_semimed")
class CPS(SemiSupervisedModel):
    """Cross pseudo supervision: two networks that start apart, each taught by the other's most probable classes.

    Chen et al., "Semi-Supervised Semantic Segmentation with Cross Pseudo Supervision", CVPR 2021. No teacher and no
    threshold; both networks see the same weak views, and no gradient crosses from one into the other. The first one
    predicts. `loss = supervised_1 + supervised_2 + lambda_cps (ce(logits_1, labels_2) + ce(logits_2, labels_1))`.
    The figure `mask_agreement` is the share of the compared pixels in which both agree; networks that start alike stay
    twins.

    Arguments marked with a star take their default from the preset.

    Args:
        preset: `"paper"`, `"ssl4mis"`, or `"small"`.
        lambda_cps*: weight of the cross pseudo supervision; 1.5, with `"ssl4mis"` 0.1.
        cps_on*: `"all"` images in one mean, or the `"unlabeled"` ones; without a preset's choice all, with CutMix the
            unlabelled ones, which alone are mixed.
        ramp_cps*: multiply lambda_cps by exp(-5 (1 - t)^2), t the share of the run that is done.
        cutmix_probability: above 0, both networks see unlabelled images with a box of another one, and are taught by
            the labels of the unmixed images, mixed alike (the paper's variant: 1, with lambda_cps 1).

    Raises:
        ValueError: for an argument out of its range; the message names it.
    """

    supports = ("segmentation",)
    selects = False  # every pixel counts
    students = 2
    presets = PRESETS
    lambda_cps: float
    cps_on: str
    ramp_cps: bool

    def __init__(
        self,
        preset: Literal["paper", "ssl4mis", "small"] = "paper",
        lambda_cps: float | None = None,
        cps_on: Literal["all", "unlabeled"] | None = None,
        ramp_cps: bool | None = None,
        cutmix_probability: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(preset=preset, **kwargs)
        self.cps_on = cps_on or ("unlabeled" if cutmix_probability else "all")
        self.take_preset(locals())
        self.cutmix_probability = cutmix_probability
        check_choice("cps_on", self.cps_on, ("all", "unlabeled"))
        check_not_negative(self, "lambda_cps")
        check_at_most_one(self, "cutmix_probability")
        if cutmix_probability and self.cps_on == "all":
            raise ValueError("`cps_on` cannot be 'all' with `cutmix_probability` above 0; leave it out.")
        self.cutmix = CutMix(cutmix_probability, seed=self.seed + 2)
        self.cross_supervision = CrossPseudoSupervision()
        self.build_networks()

    @property
    def loss_weights(self) -> dict[str, Any]:
        """Of both networks' supervised loss and of both directions between them."""
        ramp = consistency_ramp(self.progress) if self.ramp_cps else 1.0
        return {"mask_supervised": 1.0, "mask_cps": self.lambda_cps * ramp}

    @property
    def labeler(self) -> Extended:
        """The network that predicts is taught by the other one."""
        return self.networks[1]

    def terms(self, labeled: View, unlabeled: View) -> Losses:
        """The supervised loss of both networks, and each one's cross-entropy with the other's labels."""
        both, seen, mix = (0, 1), unlabeled, None
        if self.cutmix_probability:
            weak = [self.run(unlabeled, student=index)[0] for index in both]
            boxes = self.cutmix.boxes(unlabeled.count, self.image_size, self.image_size)
            seen, mix = unlabeled.mixed(unlabeled.rolled(), boxes), boxes
        on_labeled, on_seen = zip(*(self.run(labeled, seen, student=index) for index in both), strict=True)
        logits = [on["mask_logits"] for on in (weak if self.cutmix_probability else on_seen)]
        pseudo = [self.pseudo("mask", unlabeled, each) for each in logits]
        taught = [self._compared(on_labeled[index], labeled, pseudo[index], mix) for index in both]
        found = [self._compared(on_labeled[i], labeled, hard_labels(logits[i], unlabeled.inside), mix) for i in both]
        students = [on["mask_logits"] for on in on_seen]
        if self.cps_on == "all":
            students = [ops.concatenate([on_labeled[index]["mask_logits"], students[index]]) for index in both]
        labels = [each.known for each in taught]
        supervised = [self.supervised(labeled, outputs)["mask_supervised"] for outputs in on_labeled]
        terms = {
            "mask_supervised": supervised[0] + supervised[1],
            "mask_cps": self.cross_supervision(students[0], students[1], taught[0].inside, labels[0], labels[1]),
        }
        agree = found[0].inside * ops.cast(found[0].labels == found[1].labels, "float32")
        return Losses(terms, {"mask": pseudo[1]}, {"mask_agreement": Share(ops.sum(agree), ops.sum(found[0].inside))})

    def _compared(self, on_labeled: dict[str, Any], labeled: View, labels: PseudoLabels, boxes: Any) -> PseudoLabels:
        """A network's labels on everything that is compared: the unlabelled images, mixed, or all images."""
        if boxes is not None:
            return labels.mixed(labels.rolled(), boxes)
        if self.cps_on == "unlabeled":
            return labels
        own = hard_labels(on_labeled["mask_logits"], labeled.inside)
        pairs = zip(own[:4], labels[:4], strict=True)
        return PseudoLabels(*(ops.concatenate(pair) for pair in pairs))
