"""LoCo: low-contrast-enhanced contrastive learning for endoscopic image segmentation."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_semimed.configuration import arguments_config, check_at_most_one, check_not_negative, take_arguments
from keras_semimed.layers.confidence_filter import ConfidenceDynamicFilter, PseudoLabels
from keras_semimed.layers.cutmix import CutMix, neighbour
from keras_semimed.layers.views import IGNORE, WeakStrongViews
from keras_semimed.losses import LowContrastLoss, masked_cross_entropy
from keras_semimed.models.health import Share, share_by_class
from keras_semimed.models.labeled import supervised_predictions, view_masks
from keras_semimed.models.semi_supervised import SemiSupervisedModel
from keras_semimed.networks.encoders import encoder_config
from keras_semimed.networks.projected import ProjectedDeepLab
from keras_semimed.optimizers import encoder_optimizer

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
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
    },
    # The authors' code where it departs from their paper.
    "release": {
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
}
VIEWS = {"scale": (0.5, 2.0), "shift": 0.25, "grey_probability": 0.2}


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
        num_classes: number of mask classes K, background included.
        image_size: side of the square views in pixels, at least 32; no larger than the images.
        encoder: name or Keras model, see `keras_semimed.networks.encoder`.
        output_stride: stride of the encoder's last features: 8, 16 or 32.
        weights: ImageNet preset, local file or None.
        total_steps: length of the run; drives the learning rates.
        preset: `"paper"` (the equations as printed) or `"release"` (the authors' code).
        dynamic_filter: thresholds that follow the teacher (Eq. 14-18); False: `fixed_threshold` for all classes.
        fixed_threshold: the threshold without the dynamic filter (Table IV, M2).
        threshold_start*: global threshold before training.
        threshold_momentum: of the thresholds' moving averages.
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
        lambda_unlabeled: weight of Eq. 6; with 0 and without contrast: supervised training (Table IV, M1).
        lambda_contrast: weight of Eq. 11.
        loss_scale*: factor of the whole loss.
        cutmix_probability: share of strong views with a box of another image.
        cutmix_from*: boxes from another `"unlabeled"` image with its pseudo-labels, or from a `"labeled"` one with its
            truth.
        decoder_filters: channels of the decoder.
        teacher_momentum: of the teacher's moving average (its first steps average all of them).
        teacher_statistics: BatchNorm statistics of the teacher, see `SemiSupervisedModel`.
        views: arguments of `WeakStrongViews` (a dict), such a layer, or None: zoom 0.5 to 2, crops, flips, colour,
            grey, blur.
        seed: seed of views and boxes.

    Raises:
        ValueError: for an argument out of its range; the message names it.
    """

    term_names = ("mask_supervised", "mask_unlabeled", "low_contrast")
    image_multiple = 1

    def __init__(
        self,
        num_classes: int = 2,
        image_size: int = 384,
        encoder: str | keras.Model = "resnet50",
        output_stride: int = 16,
        weights: str | None = None,
        total_steps: int = 16000,
        preset: str = "paper",
        dynamic_filter: bool = True,
        fixed_threshold: float = 0.95,
        threshold_start: float | None = None,
        threshold_momentum: float = 0.999,
        threshold_gamma: float = 0.25,
        threshold_maximum: float | None = None,
        threshold_mean: str | None = None,
        inter_class: bool = True,
        boundary: bool = True,
        inter_class_share: float | None = None,
        inter_class_quota: str | None = None,
        boundary_share: float | None = None,
        boundary_order: str | None = None,
        boundary_classes: str | None = None,
        neighbours: int = 64,
        temperature: float = 0.1,
        lambda_unlabeled: float = 0.5,
        lambda_contrast: float = 0.1,
        loss_scale: float | None = None,
        cutmix_probability: float = 0.5,
        cutmix_from: str | None = None,
        decoder_filters: int = 256,
        teacher_momentum: float = 0.999,
        teacher_statistics: str = "average",
        views: dict | WeakStrongViews | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        if not isinstance(views, WeakStrongViews):
            views = views if views and "class_name" in views else {**VIEWS, **(views or {})}
        super().__init__(
            num_classes, image_size, total_steps, teacher_momentum, views, seed, teacher_statistics, **kwargs
        )
        take_arguments(self, locals(), PRESETS)
        if teacher_momentum is None:
            raise ValueError("`teacher_momentum` must be a number in [0, 1): LoCo's pseudo-labels are its teacher's.")
        check_not_negative(self, "lambda_unlabeled", "lambda_contrast", "loss_scale")
        if decoder_filters < 1:
            raise ValueError(f"`decoder_filters` must be at least 1. Received: {decoder_filters!r}.")
        check_at_most_one(self, "fixed_threshold", "threshold_start", "threshold_momentum", "cutmix_probability")
        if self.cutmix_from not in ("unlabeled", "labeled"):
            raise ValueError(f"`cutmix_from` must be 'unlabeled' or 'labeled'. Received: {self.cutmix_from!r}.")
        self.encoder = encoder_config(encoder)
        self.filter = ConfidenceDynamicFilter(
            num_classes,
            initial=self.threshold_start,
            momentum=threshold_momentum,
            gamma=threshold_gamma,
            global_mean=self.threshold_mean,
            maximum=self.threshold_maximum,
            fixed=None if dynamic_filter else fixed_threshold,
            name="filter",
        )
        self.cutmix = CutMix(cutmix_probability, seed=seed + 1)
        self.contrast_loss = LowContrastLoss(
            k=self.inter_class_share,
            neighbours=neighbours,
            temperature=temperature,
            inter_class=inter_class,
            boundary=boundary,
            num_classes=num_classes,
            inter_class_quota=self.inter_class_quota,
            boundary_share=self.boundary_share,
            boundary_order=self.boundary_order,
            boundary_classes=self.boundary_classes,
        )
        self.contrasts = inter_class or boundary
        self.supervised_only = lambda_unlabeled == 0 and not self.contrasts
        if not self.supervised_only:
            self.health_names = ("global_threshold", "mask_selected")
            for name in ("threshold", "mask_selected", "fixed_selected"):
                self.health_names += tuple(f"{name}_class_{index}" for index in range(num_classes))
        self._attach(
            lambda: ProjectedDeepLab(
                num_classes, encoder, output_stride, weights, decoder_filters, dtype=self.dtype_policy, name="network"
            )
        )
        self.network.projector.trainable = self.contrasts  # else Keras would warn about weights without a gradient

    def training_outputs(self, images: dict[str, Any]) -> dict[str, Any]:
        """One forward pass of the student, one of the teacher on the weak view.

        The student sees the labelled images and, unless the training is supervised only, the strong views; where it
        contrasts, the weak ones too.
        """
        self._check_size(images)
        size = (self.image_size, self.image_size)
        labeled, labeled_geometry, _ = self._weak_view(images["labeled"])
        if self.supervised_only:
            logits = self.network(labeled, training=True)["mask_logits"]
            return {"labeled": {"mask_logits": logits}, "geometry": labeled_geometry}
        weak, geometry, inside = self._weak_view(images["unlabeled"], images.get("unlabeled_area"))
        strong = self._strong_view(weak, images, geometry)
        first, count = ops.shape(labeled)[0], ops.shape(weak)[0]
        boxes = self.cutmix.boxes(count, *size)
        strong = self.cutmix.mix(strong, self._partners(labeled, strong), boxes)

        student = [labeled, strong] + ([weak] if self.contrasts else [])
        features = self.network.features(ops.concatenate(student), training=True)
        second = first + count
        logits = self.network.classify(features[:second], size)
        outputs = {
            "labeled": {"mask_logits": logits[:first]},
            "strong_logits": logits[first:],
            "teacher": ops.softmax(ops.cast(self.teach(weak)["mask_logits"], "float32")),
            "geometry": labeled_geometry,
            "inside": inside,
            "boxes": boxes,
        }
        if self.contrasts:
            projected = self.network.project(ops.concatenate([features[:first], features[second:]]), training=True)
            outputs |= {"labeled_projections": projected[:first], "weak_projections": projected[first:]}
        return outputs

    def _partners(self, labeled: Any, unlabeled: Any) -> Any:
        """For each unlabelled image what its box is filled from: another one, or a labelled one."""
        if self.cutmix_from == "unlabeled":
            return neighbour(unlabeled)
        index = ops.arange(ops.shape(unlabeled)[0]) % ops.shape(labeled)[0]
        return ops.cast(ops.take(labeled, index, axis=0), unlabeled.dtype)

    def loss_terms(self, outputs: dict[str, Any], targets: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The three unweighted terms of Eq. 10, and the state of the filter."""
        masks = view_masks(self, targets["mask"], outputs["geometry"])
        terms = dict.fromkeys(self.term_names, ops.zeros(()))
        terms["mask_supervised"] = masked_cross_entropy(masks, outputs["labeled"]["mask_logits"])
        if self.supervised_only:
            return terms, {}
        inside = outputs["inside"]
        pseudo = self.filter(outputs["teacher"], inside, training=True)
        labels, weight = self._mixed(pseudo, inside, masks, outputs["boxes"])
        terms["mask_unlabeled"] = masked_cross_entropy(labels, outputs["strong_logits"], weight, normalize="all")
        if self.contrasts:
            terms["low_contrast"] = self.contrast_loss(
                outputs["labeled_projections"], masks, outputs["weak_projections"], pseudo.labels, pseudo.kept
            )
        return terms, self._health(pseudo, inside)

    def _mixed(self, pseudo: PseudoLabels, inside: Any, masks: Any, boxes: Any) -> tuple[Any, Any]:
        """Targets of the strong view, 255 outside the image, and their weights, both after CutMix."""
        if self.cutmix_from == "labeled":
            truth = ops.cast(self._partners(masks, pseudo.labels), "int32")
            known = ops.cast(truth != IGNORE, "float32")
            others = (truth, known, known)
        else:
            others = (neighbour(pseudo.labels), neighbour(pseudo.kept), neighbour(inside))
        labels, kept, valid = (
            self.cutmix.mix(own, other, boxes)
            for own, other in zip((pseudo.labels, pseudo.kept, inside), others, strict=True)
        )
        return ops.where(valid > 0, labels, IGNORE), kept

    def _health(self, pseudo: PseudoLabels, inside: Any) -> dict[str, Any]:
        """Thresholds of Eq. 18, and the shares of pseudo-labels that they and the fixed threshold keep (Fig. 6)."""
        fixed = ops.cast(pseudo.confidence >= self.fixed_threshold, "float32") * inside
        health = {
            "global_threshold": self.filter.global_threshold.value * 1.0,
            "mask_selected": Share(ops.sum(pseudo.kept), ops.sum(inside)),
        }
        thresholds = self.filter.dynamic_thresholds()
        health |= {f"threshold_class_{index}": thresholds[index] for index in range(self.num_classes)}
        for name, kept in (("mask_selected", pseudo.kept), ("fixed_selected", fixed)):
            health |= share_by_class(name, kept, pseudo.labels, inside, self.num_classes)
        return health

    def _check_size(self, images: dict[str, Any]) -> None:
        for name in ("labeled", "unlabeled"):
            size = tuple(images[name].shape[1:3])
            if None not in size and min(size) < self.image_size:
                raise ValueError(
                    f"image_size={self.image_size} is larger than the {name} images {size}: views are crops. Make the "
                    "model with a smaller image_size, or load the images larger."
                )

    @property
    def loss_weights(self) -> dict[str, float]:
        """Eq. 10."""
        weights = {
            "mask_supervised": 1.0,
            "mask_unlabeled": self.lambda_unlabeled,
            "low_contrast": self.lambda_contrast,
        }
        return {name: self.loss_scale * weight for name, weight in weights.items()}

    @property
    def selects(self) -> bool:
        """Whether pseudo-labels count."""
        return not self.supervised_only

    def supervised_outputs(self, outputs: dict[str, Any], targets: dict[str, Any]) -> tuple[dict, dict]:
        """Probabilities and warped targets of the labelled images."""
        return supervised_predictions(self, outputs["labeled"], targets, outputs["geometry"])

    def default_optimizer(self, **arguments: Any) -> keras.optimizers.Optimizer:
        """`encoder_optimizer(total_steps, ...)`: SGD, ten times the learning rate outside the encoder."""
        return encoder_optimizer(self.total_steps, **arguments)

    def get_config(self) -> dict[str, Any]:
        """Arguments of the model; start weights are in the saved weights."""
        return {**super().get_config(), **arguments_config(self)}
