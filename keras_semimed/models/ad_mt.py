"""AD-MT: two teachers follow the student in turns, and the student may overrule them where they disagree."""

from __future__ import annotations

from typing import Any, Literal

import keras
from keras import ops

from keras_semimed.configuration import check_at_most_one, check_choice, check_not_negative, check_whole
from keras_semimed.layers.alternating_turns import AlternatingTurns
from keras_semimed.layers.combat import combat_conflicts
from keras_semimed.layers.cutmix import CutMix
from keras_semimed.layers.ensemble import entropy_weighted_ensemble
from keras_semimed.layers.pseudo_labels import PseudoLabels
from keras_semimed.losses import DiceLoss, masked_cross_entropy
from keras_semimed.models.health import Share
from keras_semimed.models.semi_supervised import Losses, SemiSupervisedModel
from keras_semimed.models.view import View
from keras_semimed.thresholds import consistency_ramp


@keras.saving.register_keras_serializable(package="keras_semimed")
class ADMT(SemiSupervisedModel):
    """Alternate diverse teaching: two moving averages of one student, of which one moves at a time.

    Zhao et al., "Alternate Diverse Teaching for Semi-supervised Medical Image Segmentation", ECCV 2024. The teachers
    follow the student in turns of random length, so that they differ: in the first one's turn the student sees strong
    colours, in the second one's the weak views with boxes of each other. Both label the weak views at every step; where
    they disagree, the student's own surer label of another class stands. `predict` uses the student.
    `loss = supervised + lambda_unlabeled exp(-5 (1 - min(t / ramp_share, 1))^2) unlabeled`, t the share of the run that
    is done. Figures: `mask_conflict`, the share of the pixels that the teachers disagree about, and `mask_overruled`,
    that whose label the student changed.

    Args:
        threshold: lowest confidence of a pseudo-label that is kept: 0 keeps all of them, more than 1 none.
        lambda_unlabeled: weight of the unlabelled term at the end of its ramp.
        ramp_share: share of the run after which it has that weight; 0: from the first step on.
        unlabeled_loss: `"dice"` of all classes, or `"ce"`, the cross-entropy, of the pixels that are kept.
        max_period: most steps of a turn; about half of the steps that show every unlabelled image once.
        teacher_momentum: of the teachers' moving averages (the first steps of each average all of them).

    Raises:
        ValueError: for an argument out of its range; the message names it.
    """

    supports = ("segmentation",)
    teachers = 2
    teacher_predicts = False

    def __init__(
        self,
        threshold: float = 0.95,
        lambda_unlabeled: float = 2.0,
        ramp_share: float = 0.25,
        unlabeled_loss: Literal["dice", "ce"] = "dice",
        max_period: int = 50,
        teacher_momentum: float = 0.99,
        **kwargs: Any,
    ) -> None:
        super().__init__(teacher_momentum=teacher_momentum, **kwargs)
        self.threshold = threshold
        self.lambda_unlabeled = lambda_unlabeled
        self.ramp_share = ramp_share
        self.unlabeled_loss = unlabeled_loss
        self.max_period = max_period
        check_not_negative(self, "threshold", "lambda_unlabeled")
        check_at_most_one(self, "ramp_share")
        check_choice("unlabeled_loss", unlabeled_loss, ("dice", "ce"))
        check_whole("max_period", max_period, 1)
        self.cutmix = CutMix(1.0, seed=self.seed + 2)
        self.turns = AlternatingTurns(self.teachers, max_period, seed=self.seed + 3, name="turns")
        self.dice_loss = DiceLoss(include_background=True)
        self.build_networks()

    @property
    def loss_weights(self) -> dict[str, Any]:
        """1, and the ramp."""
        ramp = consistency_ramp(self.progress / self.ramp_share) if self.ramp_share else 1.0
        return {"mask_supervised": 1.0, "mask_unlabeled": self.lambda_unlabeled * ramp}

    def terms(self, labeled: View, unlabeled: View) -> Losses:
        """The supervised term and that of the view of whose turn it is."""
        mixing = self.turns.active.value == 1
        boxes = self.cutmix.boxes(unlabeled.count, self.image_size, self.image_size)
        boxes = boxes * ops.cast(mixing, "float32")
        strong = self.strong(unlabeled)
        strong = strong._replace(images=ops.where(mixing, unlabeled.images, strong.images))
        on_labeled, on_weak, on_strong = self.run(labeled, unlabeled, strong.mixed(strong.rolled(), boxes))
        own, figures = self._combated(unlabeled, on_weak)
        pseudo = self.pseudo("mask", unlabeled, own)
        pseudo = pseudo.mixed(pseudo.rolled(), boxes)
        terms = {
            **self.supervised(labeled, on_labeled),
            "mask_unlabeled": self._learnt(pseudo, on_strong["mask_logits"]),
        }
        return Losses(terms, {"mask": pseudo}, figures)

    def _combated(
        self, view: View, student: dict[str, Any], training: bool | None = None
    ) -> tuple[PseudoLabels, dict[str, Share]]:
        """Labels of the teachers' ensemble, where the student does not overrule them, and what there was to settle."""
        taught = [self.teach(view, teacher=index, training=training)[0] for index in range(self.teachers)]
        q_1, q_2, q_s = (ops.softmax(ops.cast(each["mask_logits"], "float32")) for each in (*taught, student))
        ensemble = entropy_weighted_ensemble(q_1, q_2)
        psi = ensemble.probabilities
        found = combat_conflicts(ops.argmax(psi, axis=-1), ops.max(psi, axis=-1), ensemble.conflict, q_s)
        kept = view.inside * ops.cast(found.confidence >= self.threshold, "float32")
        shares = {"mask_conflict": ensemble.conflict, "mask_overruled": found.overruled}
        whole = ops.sum(view.inside)
        return PseudoLabels(found.labels, found.confidence, kept, view.inside, psi), {
            name: Share(ops.sum(part * view.inside), whole) for name, part in shares.items()
        }

    def _learnt(self, pseudo: PseudoLabels, logits: Any) -> Any:
        if self.unlabeled_loss == "ce":
            return masked_cross_entropy(pseudo.labels, logits, pseudo.kept)
        return self.dice_loss(pseudo.labels, ops.softmax(ops.cast(logits, "float32")), pseudo.kept)

    def label(self, view: Any, other: Any = None) -> dict[str, PseudoLabels]:
        """The labels of both teachers and the student; `other` is not looked at."""
        del other
        view = self.as_view(view)
        (student,) = self.run(view, training=False)
        return {"mask": self._combated(view, student, training=False)[0]}

    def teacher_follows(self, index: int) -> Any:
        """1 for the teacher whose turn it is, else 0."""
        return ops.cast(self.turns.active.value == index, "float32")

    def after_step(self) -> None:
        """Moves the teacher whose turn it is behind the updated network, and counts a step of the turn and the run."""
        super().after_step()
        self.turns.advance()
