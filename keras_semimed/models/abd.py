"""ABD: two networks that label each other, on views between which patches were moved by confidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from keras_semimed.configuration import check_at_most_one, check_not_negative
from keras_semimed.layers.displacement import BidirectionalDisplacement
from keras_semimed.layers.pseudo_labels import PseudoLabels
from keras_semimed.losses import CrossPseudoSupervision
from keras_semimed.models.semi_supervised import Losses, SemiSupervisedModel
from keras_semimed.models.view import View
from keras_semimed.networks.contract import Extended
from keras_semimed.thresholds import consistency_ramp


@keras.saving.register_keras_serializable(package="keras_semimed")
class ABD(SemiSupervisedModel):
    """Adaptive bidirectional displacement on cross teaching.

    Chi et al., "Adaptive Bidirectional Displacement for Semi-Supervised Medical Image Segmentation", CVPR 2024. The
    first network sees the weak views, the second one the strong views of the same geometry; each learns the other's
    most probable classes of the unlabelled images, without a threshold. Then patches are moved between weak and strong
    views, and both networks see all of these: of labelled images, where the least confident patches replace the most
    confident ones, they learn the masks, moved alike; of unlabelled images, where the least confident patches are
    replaced by confident ones that resemble them, each other's labels. The first network predicts.
    `loss = supervised + lambda_inverse inverse + lambda_cross exp(-5 (1 - t)^2) (cross + reliable)`, each of both
    networks, t the share of the run that is done.

    Args:
        grid: patches a side of a view; it divides `image_size`.
        candidates: most confident patches of the other view among which the replacement of an unlabelled patch is
            looked for; at most all of its patches.
        displacement_probability: share of the labelled images in which patches are moved.
        lambda_inverse: weight of the labelled images after the displacement.
        lambda_cross: weight of what the networks learn from each other at the end of the run.

    Raises:
        ValueError: for an argument out of its range; the message names it.
    """

    supports = ("segmentation",)
    selects = False  # every pixel counts
    students = 2

    def __init__(
        self,
        grid: int = 4,
        candidates: int = 4,
        displacement_probability: float = 0.5,
        lambda_inverse: float = 1.0,
        lambda_cross: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.grid = grid
        self.candidates = candidates
        self.displacement_probability = displacement_probability
        self.lambda_inverse = lambda_inverse
        self.lambda_cross = lambda_cross
        check_not_negative(self, "lambda_inverse", "lambda_cross")
        check_at_most_one(self, "displacement_probability")
        self.inverse = BidirectionalDisplacement(
            "inverse", grid, candidates, displacement_probability, seed=self.seed + 2
        )
        self.reliable = BidirectionalDisplacement("reliable", grid, candidates, seed=self.seed + 3)
        if self.image_size % grid:
            raise ValueError(f"`grid` must divide `image_size`, {self.image_size} pixels, found {grid!r}.")
        self.cross_supervision = CrossPseudoSupervision("dice")
        self.build_networks()

    @property
    def loss_weights(self) -> dict[str, Any]:
        """Of both networks together; what they learn from each other rises with the ramp."""
        cross = self.lambda_cross * consistency_ramp(self.progress)
        return {
            "mask_supervised": 1.0,
            "mask_inverse": self.lambda_inverse,
            "mask_cross": cross,
            "mask_reliable": cross,
        }

    @property
    def labeler(self) -> Extended:
        """The network that predicts is taught by the other one."""
        return self.networks[1]

    def label(self, view: Any, other: Any = None) -> dict[str, PseudoLabels]:
        """What the second network would teach the one that predicts; it sees the strong view, where one is given."""
        return super().label(view if other is None else other)

    def terms(self, labeled: View, unlabeled: View) -> Losses:
        """What both networks learn from the views, and from the displaced ones."""
        strong_unlabeled, strong_labeled = self.strong(unlabeled), self.strong(labeled)
        on_labeled, on_unlabeled = zip(
            self.run(labeled, unlabeled), self.run(strong_labeled, strong_unlabeled, student=1), strict=True
        )
        inverse = self._displaced(self.inverse, labeled, strong_labeled, on_labeled)
        reliable = self._displaced(self.reliable, unlabeled, strong_unlabeled, on_unlabeled)
        on_inverse, on_reliable = zip(*(self.run(inverse, reliable, student=index) for index in range(2)), strict=True)
        pseudo, cross = self._cross(unlabeled, on_unlabeled)
        terms = {
            "mask_supervised": self._supervised(labeled, on_labeled),
            "mask_inverse": self._supervised(inverse, on_inverse),
            "mask_cross": cross,
            "mask_reliable": self._cross(reliable, on_reliable)[1],
        }
        return Losses(terms, {"mask": pseudo})

    def _displaced(
        self, layer: BidirectionalDisplacement, weak: View, strong: View, outputs: tuple[Mapping[str, Any], ...]
    ) -> View:
        """Both views after the displacement as one: first the weak ones, then the strong ones."""
        moves = layer.moves(*(each["mask_logits"] for each in outputs))
        fields = [
            None if values is None else ops.concatenate(layer.displace(values, others, moves))
            for values, others in zip(weak[:3], strong[:3], strict=True)  # images, inside, masks
        ]
        return View(*fields)

    def _supervised(self, view: View, outputs: tuple[Mapping[str, Any], ...]) -> Any:
        """Loss of the masks, of both networks."""
        first, second = (self.supervised(view, each)["mask_supervised"] for each in outputs)
        return first + second

    def _cross(self, view: View, outputs: tuple[Mapping[str, Any], ...]) -> tuple[PseudoLabels, Any]:
        """What the second network says, and the loss of both with each other's labels."""
        logits = [each["mask_logits"] for each in outputs]
        pseudo = [self.pseudo("mask", view, each) for each in logits]
        labels = [each.known for each in pseudo]
        return pseudo[1], self.cross_supervision(logits[0], logits[1], pseudo[0].inside, labels[0], labels[1])
