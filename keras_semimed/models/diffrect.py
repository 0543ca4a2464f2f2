"""DiffRect: a second network learns to rectify pseudo-labels, by a diffusion in its latent space."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import keras
from keras import ops

from keras_semimed import backend
from keras_semimed.configuration import check_at_most_one, check_not_negative, is_number
from keras_semimed.layers.latent_diffusion import LatentDiffusion, check_diffusion
from keras_semimed.layers.margin_labels import margin_labels, paint, passes_margin
from keras_semimed.layers.pseudo_labels import PseudoLabels
from keras_semimed.layers.views import IGNORE
from keras_semimed.losses import SegmentationLoss, guidance_time, spatial_concentration
from keras_semimed.losses.complementary import complementary_term
from keras_semimed.models.health import Share
from keras_semimed.models.semi_supervised import Losses, SemiSupervisedModel
from keras_semimed.models.view import View
from keras_semimed.networks.rectifier import LabelRectifier
from keras_semimed.thresholds import consistency_ramp


@keras.saving.register_keras_serializable(package="keras_semimed")
class DiffRect(SemiSupervisedModel):
    """The network's labels of weak views, rectified by a second network that is trained beside it.

    Liu et al., "DiffRect: Latent Diffusion Label Rectification for Semi-supervised Medical Image Segmentation", MICCAI
    2024, as their code has it. The rectifier learns to turn the network's labels into the truth, and those of strong
    views into those of weak ones; later its own labels, sampled from noise, teach the network. Only hard labels pass
    from one network to the other. `loss = supervised + w lambda_unlabeled unlabeled + rectifier + lambda_rectified
    rectified`, `w = ramp_maximum exp(-5 (1 - t)^2)`; `rectifier` holds a w as well. The network alone predicts.

    Arguments marked with a star take their default from the preset.

    Args:
        preset: `"paper"`, or `"small"`: every label counts as it is, and rectified ones once the rectifier has learnt.
        margin*: tau: a label is background unless `(max - min) / max` of the probabilities exceeds it; 0.8, with
            `"small"` 0.
        diffusion_steps: T of the diffusion.
        sampled_steps: how many of them the sampling goes through.
        schedule: of the diffusion: `"cosine"`, or `"linear"`, which takes more than 20 steps.
        ramp_maximum: w at the end of the run.
        lambda_unlabeled: weight of what strong views learn, besides w.
        lambda_rectified: weight of the rectified labels; with 0 the rectifier, which serves nothing else, rests.
        rectification_start*: step behind which they are learnt; below 1: that share of `total_steps`. A 30th of the
            run, with `"small"` a third.

    Raises:
        ValueError: for an argument out of its range; the message names it.
    """

    supports = ("segmentation",)
    selects = False  # every pixel counts
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"margin": 0.8, "rectification_start": None},
        # The authors' start is step 1,000 of 30,000; in a run of 300 the rectifier has learnt nothing by step 10.
        "small": {"margin": 0.0, "rectification_start": 1 / 3},
    }
    margin: float
    rectification_start: int | float | None

    def __init__(
        self,
        preset: Literal["paper", "small"] = "paper",
        margin: float | None = None,
        diffusion_steps: int = 10,
        sampled_steps: int = 2,
        schedule: Literal["cosine", "linear"] = "cosine",
        ramp_maximum: float = 0.1,
        lambda_unlabeled: float = 0.5,
        lambda_rectified: float = 0.5,
        rectification_start: int | float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(preset=preset, **kwargs)
        self.take_preset(locals())
        self.diffusion_steps = diffusion_steps
        self.sampled_steps = sampled_steps
        self.schedule = schedule
        self.ramp_maximum = ramp_maximum
        self.lambda_unlabeled = lambda_unlabeled
        self.lambda_rectified = lambda_rectified
        check_at_most_one(self, "margin")
        check_diffusion(diffusion_steps, sampled_steps, schedule, "diffusion_steps")
        check_not_negative(self, "ramp_maximum", "lambda_unlabeled", "lambda_rectified")
        start = self.rectification_start
        if start is not None and not (is_number(start) and start >= 0 and (start < 1 or float(start).is_integer())):
            raise ValueError(
                f"`rectification_start` must be a whole number of at least 0, or a share below 1, found {start}"
            )
        if lambda_rectified and self.rectification_step >= self.total_steps:
            raise ValueError(f"`rectification_start` must be below {self.total_steps}, found {start}")
        self.segmentation_loss = SegmentationLoss(include_background=True)  # half of cross-entropy and Dice
        diffusion = LatentDiffusion(diffusion_steps, sampled_steps, schedule, seed=self.seed + 2, name="diffusion")
        options = {"diffusion": diffusion, "seed": self.seed + 2, "dtype": self.dtype_policy}
        self.rectifier = LabelRectifier(self.num_classes, name="rectifier", **options)
        self.build_networks()

    @property
    def loss_weights(self) -> dict[str, Any]:
        """With the ramp, and nothing for rectified labels before their start."""
        return {
            "mask_supervised": 1.0,
            "mask_unlabeled": self.lambda_unlabeled * self._ramp,
            "rectifier": 1.0 if self.lambda_rectified else 0.0,
            "mask_rectified": self.lambda_rectified * ops.cast(self.step > self.rectification_step, "float32"),
        }

    @property
    def rectification_step(self) -> int:
        """The step behind which rectified labels are learnt."""
        start = self.rectification_start
        if start is None:
            return self.total_steps // 30
        return math.floor(start * self.total_steps) if 0 < start < 1 else int(start)

    @property
    def _ramp(self) -> Any:
        return self.ramp_maximum * consistency_ramp(self.progress)

    def terms(self, labeled: View, unlabeled: View) -> Losses:
        """What the network learns from masks, strong views and rectified labels, and what the rectifier learns."""
        views = (labeled, unlabeled, self.strong(labeled), self.strong(unlabeled))
        logits = [on["mask_logits"] for on in self.run(*views)]
        weak, strong, count = View.joined(*views[:2]), View.joined(*views[2:]), labeled.count
        z_weak, z_strong = ops.concatenate(logits[:2]), ops.concatenate(logits[2:])
        p_weak, p_strong = ops.softmax(z_weak), ops.softmax(z_strong)
        coarse, distorted = (self.select("mask", z, weak.inside).known for z in (z_weak, z_strong))
        pseudo = self.pseudo("mask", unlabeled, logits[1])
        masks = ops.where(labeled.inside > 0, labeled.masks, IGNORE)
        truth, guide = (ops.concatenate([known, pseudo.known]) for known in (masks, coarse[:count]))
        counted = ops.cast(truth != IGNORE, "float32")

        time_weak = guidance_time(coarse[:count], masks, self.num_classes)
        r_weak, latent_weak = self._rectify(coarse, time_weak, weak, truth)
        rectified = self.pseudo("mask", unlabeled, r_weak[count:]).known
        time_strong = guidance_time(distorted[count:], rectified, self.num_classes)
        r_strong, latent_strong = self._rectify(distorted, time_strong, strong, guide)
        with backend.no_gradients():
            r_sampled, _ = self._rectify(coarse, time_weak, weak)
        sampled = self.pseudo("mask", unlabeled, r_sampled[count:]).known

        agreement = complementary_term(ops.softmax(r_weak), ops.softmax(r_strong), counted)
        from_strong = self._loss(rectified, r_strong[count:]) + agreement + latent_strong
        terms = {
            **self.supervised(labeled, {"mask_logits": logits[0]}),
            "mask_unlabeled": self._loss(pseudo.known, logits[3]) + complementary_term(p_weak, p_strong, counted),
            "rectifier": self._loss(masks, r_weak[:count]) + latent_weak + self._ramp * from_strong,
            "mask_rectified": self._loss(sampled, logits[1]),
        }
        unsure = Share(ops.sum(ops.where(passes_margin(p_weak, self.margin), 0.0, weak.inside)), ops.sum(weak.inside))
        figures = {"time_weak": time_weak, "time_strong": time_strong, "mask_unsure": unsure}
        figures |= {"latent_weak": latent_weak, "latent_strong": latent_strong}
        figures["concentration"] = spatial_concentration(p_strong, counted)
        return Losses(terms, {"mask": pseudo}, figures)

    def select(self, head: str, logits: Any, inside: Any, other: Any = None, training: bool = False) -> PseudoLabels:
        """Labels by the margin; those that fail it are background, and all count."""
        del head, other, training
        p = ops.softmax(ops.cast(ops.stop_gradient(logits), "float32"))
        return PseudoLabels(margin_labels(p, self.margin), ops.max(p, axis=-1), inside, inside, p)

    def _rectify(self, labels: Any, time: Any, view: View, guide: Any = None) -> tuple[Any, Any]:
        colours, guide = (None if each is None else paint(each, self.num_classes) for each in (labels, guide))
        found = self.rectifier(colours, time, view.images, guide, training=True)
        return found["mask_logits"], found["latent_loss"]

    def _loss(self, labels: Any, logits: Any) -> Any:
        return 2.0 * self.segmentation_loss(labels, logits)
