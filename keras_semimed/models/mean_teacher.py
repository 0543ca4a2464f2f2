"""MeanTeacher: consistency with a moving average of the network."""

from __future__ import annotations

from typing import Any, Literal

import keras
from keras import ops

from keras_semimed.configuration import check_choice, check_not_negative
from keras_semimed.layers.noise import add_clipped_noise
from keras_semimed.layers.pseudo_labels import PseudoLabels, hard_labels
from keras_semimed.losses import SoftmaxConsistency
from keras_semimed.models.semi_supervised import Losses, SemiSupervisedModel
from keras_semimed.models.view import View
from keras_semimed.thresholds import consistency_ramp


@keras.saving.register_keras_serializable(package="keras_semimed")
class MeanTeacher(SemiSupervisedModel):
    """The network's probabilities follow those of its moving average, which sees the unlabelled images with noise.

    Tarvainen and Valpola, "Mean teachers are better role models", NeurIPS 2017, in its form for segmentation (SSL4MIS),
    and alike for image classes. No threshold and no hard label; `predict` uses the teacher.
    `loss = supervised + lambda_consistency exp(-5 (1 - t)^2) consistency`, t the share of the run that is done.

    Args:
        lambda_consistency: weight of the consistency at the end of the run. Sources differ by 1,000: search 0.1 to 100.
        noise: standard deviation of the noise in the teacher's input, as a share of the range 0..255; clipped at two
            deviations.
        student_view: `"weak"`, the teacher's view without noise, or `"strong"`.
        distance: `"squared"` difference of the probabilities, or `"kl"`, from the teacher's to the student's.
        lambda_seg: weight of the segmentation, where both tasks are learnt.
        lambda_cls: weight of the classification, where both tasks are learnt.
        teacher_momentum: of the teacher's moving average.

    Raises:
        ValueError: for an argument out of its range; the message names it.
    """

    teachers = 1
    selects = False  # every pixel and every image counts

    def __init__(
        self,
        lambda_consistency: float = 0.1,
        noise: float = 0.1,
        student_view: Literal["weak", "strong"] = "weak",
        distance: Literal["squared", "kl"] = "squared",
        lambda_seg: float = 0.5,
        lambda_cls: float = 1.0,
        teacher_momentum: float = 0.99,
        **kwargs: Any,
    ) -> None:
        super().__init__(teacher_momentum=teacher_momentum, **kwargs)
        check_choice("student_view", student_view, ("weak", "strong"))
        check_choice("distance", distance, ("squared", "kl"))
        self.lambda_consistency = lambda_consistency
        self.noise = noise
        self.student_view = student_view
        self.distance = distance
        self.lambda_seg = lambda_seg
        self.lambda_cls = lambda_cls
        check_not_negative(self, "lambda_consistency", "noise", "lambda_seg", "lambda_cls")
        self.consistency = SoftmaxConsistency(distance)
        self.build_networks()

    @property
    def loss_weights(self) -> dict[str, Any]:
        """1 for the supervised terms, the ramp for the others, by task."""
        ramp = self.lambda_consistency * consistency_ramp(self.progress)
        return self.by_task({"supervised": 1.0, "consistency": ramp}, mask=self.lambda_seg, label=self.lambda_cls)

    def terms(self, labeled: View, unlabeled: View) -> Losses:
        """Supervised and consistency terms."""
        seen = self.strong(unlabeled) if self.student_view == "strong" else unlabeled
        on_labeled, on_unlabeled = self.run(labeled, seen)
        noise = self.normal(ops.shape(unlabeled.images))
        (taught,) = self.teach(add_clipped_noise(unlabeled.images, noise, 255 * self.noise))
        terms, pseudo = self.supervised(labeled, on_labeled), {}
        for head in self.learnt_heads:
            pseudo[head] = targets = self.pseudo(head, unlabeled, taught[f"{head}_logits"])
            terms[f"{head}_consistency"] = self.consistency(
                on_unlabeled[f"{head}_logits"], targets.probabilities, inside=targets.kept
            )
        return Losses(terms, pseudo)

    def select(self, head: str, logits: Any, inside: Any, other: Any = None, training: bool = False) -> PseudoLabels:
        """The teacher's probabilities, all of them."""
        del head, other, training
        probabilities = ops.softmax(ops.cast(ops.stop_gradient(logits), "float32"))
        return hard_labels(logits, inside)._replace(probabilities=probabilities)
