"""LoCo: low-contrast-enhanced contrastive learning for endoscopic image segmentation."""

from __future__ import annotations

from typing import Any, Literal

import keras
from keras import ops

from keras_semimed.configuration import check_at_most_one, check_choice, check_not_negative
from keras_semimed.layers.confidence_filter import ConfidenceDynamicFilter
from keras_semimed.layers.cutmix import CutMix
from keras_semimed.layers.pseudo_labels import PseudoLabels
from keras_semimed.layers.views import WIDE_VIEWS
from keras_semimed.losses import LowContrastLoss
from keras_semimed.models.health import Share, share_by_class
from keras_semimed.models.semi_supervised import Losses, SemiSupervisedModel
from keras_semimed.models.view import Source, View
from keras_semimed.networks.contract import Head
from keras_semimed.optimizers import encoder_optimizer

PAPER: dict[str, Any] = {
    "loss_scale": 1.0,
    "cutmix_from": "unlabeled",
    "threshold_start": 0.85,
    "threshold_maximum": None,
    "threshold_mean": "class",
    "inter_class_share": 0.30,
    "inter_class_quota": "class",
    "boundary_share": 0.30,
    "boundary_order": "highest",
    "boundary_classes": "all",
    "threshold_momentum": 0.999,
}
PRESETS: dict[str, dict[str, Any]] = {
    "paper": PAPER,
    # The authors' code where it departs from their paper.
    "release": {
        **PAPER,
        "loss_scale": 1 / 1.6,
        "cutmix_from": "labeled",
        "threshold_start": 0.90,
        "threshold_maximum": 0.95,
        "threshold_mean": "pixel",
        "inter_class_share": 0.10,
        "inter_class_quota": "equal",
        "boundary_share": 0.25,
        "boundary_order": "lowest",
        "boundary_classes": "foreground",
    },
    # Found on validation images of Kvasir-SEG (docs/loco.md).
    "small": {**PAPER, "threshold_momentum": 0.98},
}


@keras.saving.register_keras_serializable(package="keras_semimed")
class LoCo(SemiSupervisedModel):
    """Segmentation of low-contrast lesions from few labelled and many unlabelled images, with a mean teacher.

    Cai et al., "Low-Contrast-Enhanced Contrastive Learning for Semi-Supervised Endoscopic Image Segmentation".
    The teacher labels the weak view of the unlabelled images; a confidence filter with a threshold for each class says
    which pixels count (Eq. 14-18); the student learns them from the strong view (Eq. 6), and low-contrast pixels of
    the labelled and the weak views are contrasted with the class embeddings (Eq. 7-13). `predict` uses the teacher.

    ```python
    model = LoCo(weights="resnet50.npz", total_steps=epochs * len(train))
    model.compile()
    model.fit(train, epochs=epochs)
    model.predict(images)  # {"mask": (N, H, W, K)} probabilities
    ```

    Arguments marked with a star take their default from the preset.

    Args:
        image_size: side of the square views in pixels, at least 32; no larger than the images.
        preset: `"paper"` (the equations as printed), `"release"` (the authors' code), or `"small"`.
        dynamic_filter: thresholds that follow the teacher (Eq. 14-18); False: `fixed_threshold` for all classes.
        fixed_threshold: the threshold without the dynamic filter (Table IV, M2).
        threshold_start*: global threshold before training.
        threshold_momentum*: of the thresholds' moving averages.
        threshold_gamma: how far a class' threshold departs from the global one (Eq. 18).
        threshold_maximum*: upper limit of the thresholds, or None.
        threshold_mean*: `"class"` (Eq. 14) or `"pixel"`, what the global threshold averages over.
        inter_class: contrast the pixels least like their class (ICE, Eq. 12).
        boundary: contrast the boundary pixels most like their neighbourhood (BCE, Eq. 13).
        inter_class_share*: share k of each class' pixels that ICE takes.
        inter_class_quota*: `"class"` (a share of each class) or `"equal"` (the same number for every class).
        boundary_share*: share k of the boundary pixels that BCE takes.
        boundary_order*: `"highest"` similarity first (the text) or `"lowest"`.
        boundary_classes*: boundary pixels of `"all"` classes or of the `"foreground"`.
        neighbours: nearest pixels h that make up a neighbourhood.
        temperature: of the contrast.
        lambda_unlabeled: weight of Eq. 6; its loss is not computed with 0.
        lambda_contrast: weight of Eq. 11; with 0 there is no projector.
        loss_scale*: factor of the whole loss.
        cutmix_probability: share of strong views with a box of another image.
        cutmix_from*: boxes from another `"unlabeled"` image with its pseudo-labels, or from a `"labeled"` one with its
            truth.
        use_unlabeled: False leaves the unlabelled images alone: supervised training (Table IV, M1). Weights of 0 do
            not: the images still go through the network, whose BatchNorm sees them.
        teacher_momentum: of the teacher's moving average (its first steps average all of them).
        views: arguments of `WeakStrongViews` (a dict), such a layer, or None: zoom 0.5 to 2, crops, flips, colour,
            grey, blur.

    Raises:
        ValueError: for an argument out of its range; the message names it.
    """

    supports = ("segmentation",)
    default_network = "deeplab"
    default_mask_loss = "ce"
    default_views = WIDE_VIEWS
    teachers = 1
    presets = PRESETS
    threshold_start: float
    threshold_maximum: float | None
    threshold_mean: str
    inter_class_share: float
    inter_class_quota: str
    boundary_share: float
    boundary_order: str
    boundary_classes: str
    loss_scale: float
    cutmix_from: str
    threshold_momentum: float
    pixel_embeddings = "projection"

    def __init__(
        self,
        image_size: int = 384,
        encoder: str | keras.Model = "resnet50",
        total_steps: int = 16000,
        preset: Literal["paper", "release", "small"] = "paper",
        dynamic_filter: bool = True,
        fixed_threshold: float = 0.95,
        threshold_start: float | None = None,
        threshold_momentum: float | None = None,
        threshold_gamma: float = 0.25,
        threshold_maximum: float | None = None,
        threshold_mean: Literal["class", "pixel"] | None = None,
        inter_class: bool = True,
        boundary: bool = True,
        inter_class_share: float | None = None,
        inter_class_quota: Literal["class", "equal"] | None = None,
        boundary_share: float | None = None,
        boundary_order: Literal["highest", "lowest"] | None = None,
        boundary_classes: Literal["all", "foreground"] | None = None,
        neighbours: int = 64,
        temperature: float = 0.1,
        lambda_unlabeled: float = 0.5,
        lambda_contrast: float = 0.1,
        loss_scale: float | None = None,
        cutmix_probability: float = 0.5,
        cutmix_from: Literal["unlabeled", "labeled"] | None = None,
        use_unlabeled: bool = True,
        teacher_momentum: float = 0.999,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            preset=preset,
            image_size=image_size,
            encoder=encoder,
            total_steps=total_steps,
            teacher_momentum=teacher_momentum,
            **kwargs,
        )
        self.take_preset(locals())
        self.dynamic_filter, self.fixed_threshold = dynamic_filter, fixed_threshold
        self.threshold_gamma = threshold_gamma
        self.inter_class, self.boundary = inter_class, boundary
        self.neighbours, self.temperature = neighbours, temperature
        self.lambda_unlabeled, self.lambda_contrast = lambda_unlabeled, lambda_contrast
        self.cutmix_probability = cutmix_probability
        self.use_unlabeled = use_unlabeled
        check_not_negative(self, "lambda_unlabeled", "lambda_contrast", "loss_scale", "threshold_gamma")
        check_at_most_one(self, "fixed_threshold", "threshold_start", "threshold_momentum", "cutmix_probability")
        if self.threshold_maximum is not None:
            check_at_most_one(self, "threshold_maximum")
        if not 0 < self.inter_class_share <= 1:
            raise ValueError(f"`inter_class_share` must be above 0 and at most 1, found {self.inter_class_share!r}.")
        check_choice("threshold_mean", self.threshold_mean, ("class", "pixel"))
        check_choice("cutmix_from", self.cutmix_from, ("unlabeled", "labeled"))
        self.filter = ConfidenceDynamicFilter(
            self.num_classes,
            initial=self.threshold_start,
            momentum=self.threshold_momentum,
            gamma=threshold_gamma,
            global_mean=self.threshold_mean,
            maximum=self.threshold_maximum,
            fixed=None if dynamic_filter else fixed_threshold,
            name="filter",
        )
        self.cutmix = CutMix(cutmix_probability, seed=self.seed + 1)
        self.contrast_loss = LowContrastLoss(
            k=self.inter_class_share,
            neighbours=neighbours,
            temperature=temperature,
            inter_class=inter_class,
            boundary=boundary,
            num_classes=self.num_classes,
            inter_class_quota=self.inter_class_quota,
            boundary_share=self.boundary_share,
            boundary_order=self.boundary_order,
            boundary_classes=self.boundary_classes,
        )
        self.build_networks()

    @property
    def contrasts(self) -> bool:
        """Whether there is a low-contrast loss."""
        return self.inter_class or self.boundary

    @property
    def supervised_only(self) -> bool:
        """Whether the unlabelled images are left alone (Table IV, M1)."""
        return not self.use_unlabeled

    @property
    def selects(self) -> bool:
        """Whether pseudo-labels count."""
        return not self.supervised_only

    @property
    def heads(self) -> dict[str, Head]:
        """The projector of Eq. 7; `LowContrastLoss` does the enlargement in closed form."""
        return {"projection": Head("decoded", 64, hidden=128)} if self.contrasts and self.lambda_contrast else {}

    @property
    def loss_weights(self) -> dict[str, float]:
        """Eq. 10."""
        return {
            "mask_supervised": self.loss_scale,
            "mask_unlabeled": self.loss_scale * self.lambda_unlabeled,
            "low_contrast": self.loss_scale * self.lambda_contrast,
        }

    def terms(self, labeled: View, unlabeled: View) -> Losses:
        """The three unweighted terms of Eq. 10, those without weight left out, and the state of the filter."""
        self._check_size(labeled.source, unlabeled.source)
        terms = dict.fromkeys(self.loss_weights, ops.zeros(()))
        if self.supervised_only:
            (on_labeled,) = self.run(labeled)
            return Losses({**terms, **self.supervised(labeled, on_labeled)})
        strong = self.strong(unlabeled)
        boxes = self.cutmix.boxes(strong.count, self.image_size, self.image_size)
        partner = self._paired(labeled, strong) if self.cutmix_from == "labeled" else strong.rolled()
        mixed = strong.mixed(partner, boxes)
        seen = (labeled, mixed, unlabeled) if self.contrasts else (labeled, mixed)
        heads = {"mask_logits": (labeled, mixed)}
        if self.heads:
            heads["projection"] = (labeled, unlabeled)
        on_labeled, on_strong, *on_weak = self.run(*seen, heads=heads)
        (taught,) = self.teach(unlabeled)
        pseudo = self.pseudo("mask", unlabeled, taught["mask_logits"])
        if self.cutmix_from == "labeled":
            targets = pseudo.mixed(self.truth("mask", partner), boxes)
        else:
            targets = pseudo.mixed(pseudo.rolled(), boxes)
        terms |= self.supervised(labeled, on_labeled)
        if self.lambda_unlabeled:
            terms["mask_unlabeled"] = targets.cross_entropy(on_strong["mask_logits"])
        if self.heads:
            projections = (on_labeled["projection"], on_weak[0]["projection"])
            terms["low_contrast"] = self.contrast_loss(
                projections[0], labeled.masks, projections[1], pseudo.labels, pseudo.kept
            )
        return Losses(terms, {"mask": pseudo}, self._thresholds(pseudo))

    def select(self, head: str, logits: Any, inside: Any, other: Any = None, training: bool = False) -> PseudoLabels:
        """Eq. 14-18; in training the thresholds take in the batch first."""
        del head, other
        return self.filter(ops.softmax(ops.cast(logits, "float32")), inside, training=training)

    def _paired(self, labeled: View, unlabeled: View) -> View:
        """For each unlabelled image a labelled one, whose boxes it gets."""
        index = ops.arange(unlabeled.count) % labeled.count
        return View(*(ops.take(values, index, axis=0) for values in (labeled.images, labeled.inside, labeled.masks)))

    def _thresholds(self, pseudo: PseudoLabels) -> dict[str, Any]:
        """Thresholds of Eq. 18, and the share of pseudo-labels that the fixed threshold would keep (Fig. 6)."""
        thresholds = self.filter.dynamic_thresholds()
        figures = {"global_threshold": self.filter.global_threshold.value * 1.0}
        figures |= {f"threshold_class_{index}": thresholds[index] for index in range(self.num_classes)}
        fixed = ops.cast(pseudo.confidence >= self.fixed_threshold, "float32") * pseudo.inside
        shares: dict[str, Share] = share_by_class(
            "fixed_selected", fixed, pseudo.labels, pseudo.inside, self.num_classes
        )
        return {**figures, **shares}

    def _check_size(self, *sources: Source) -> None:
        for name, source in zip(("labeled", "unlabeled"), sources, strict=True):
            size = tuple(source.images.shape[1:3])
            if None not in size and min(size) < self.image_size:
                raise ValueError(
                    f"image_size={self.image_size} is larger than the {name} images {size}: views are crops. Make the "
                    "model with a smaller image_size, or load the images larger."
                )

    def default_optimizer(self, **arguments: Any) -> keras.optimizers.Optimizer:
        """`encoder_optimizer(total_steps, ...)`: SGD, ten times the learning rate outside the encoder."""
        return encoder_optimizer(self.total_steps, **self.optimizer_arguments("encoder", arguments))
