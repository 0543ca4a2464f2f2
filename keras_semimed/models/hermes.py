"""Hermes: dual-threshold contrastive learning for ultrasound classification and segmentation."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_semimed.configuration import arguments_config, check_not_negative, take_arguments
from keras_semimed.embeddings import l2_normalize
from keras_semimed.layers.memory_bank import MemoryBank
from keras_semimed.layers.random_state import StoredSeedGenerator, add_random_state
from keras_semimed.layers.views import WeakStrongViews
from keras_semimed.losses import (
    DiceLoss,
    ImageContrastiveLoss,
    InterTaskConsistency,
    PixelContrastiveLoss,
    SegmentationLoss,
    masked_cross_entropy,
)
from keras_semimed.models.health import Share, share_by_class
from keras_semimed.models.labeled import supervised_predictions, supervised_terms
from keras_semimed.models.semi_supervised import SemiSupervisedModel
from keras_semimed.networks.encoders import encoder_config
from keras_semimed.networks.joint import JointNetwork
from keras_semimed.optimizers import branch_optimizer
from keras_semimed.thresholds import DualThreshold, consistency_ramp, view_uncertainty

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "lambda_cls": 1.0,
        "unlabeled_weight": 1.0,
        "confidence": "scheduled",
        "uncertainty": "scheduled",
        "mask_combine": "all",
        "attention_on": "all",
        "bank_size": 256,
        "image_weighting": "pair",
        "ramp_consistency": False,
        "gamma": 0.1,
        "contrast_delay": 0.0,
    },
    # The authors' code where it departs from their paper.
    "release": {
        "lambda_cls": 1.1,
        "unlabeled_weight": 0.1,
        "confidence": "class_wise",
        "uncertainty": "release",
        "mask_combine": "any",
        "attention_on": "labeled",
        "bank_size": 0,
        "image_weighting": "anchor",
        "ramp_consistency": True,
        "gamma": 1.0,
        # Contrast starts after 10 passes over BUSI's unlabelled images: about step 510 of 3,000.
        "contrast_delay": 0.17,
    },
}


@keras.saving.register_keras_serializable(package="keras_semimed")
class Hermes(SemiSupervisedModel):
    """Joint segmentation and classification from few labelled and many unlabelled images.

    Zhang, Lai and Kong, "Semi-Supervised Dual-Threshold Contrastive Learning for Ultrasound Image Classification
    and Segmentation". One forward pass over labelled, weak and strong views, one backward pass of Eq. 15.

    ```python
    model = Hermes(weights="resnet18.npz", total_steps=epochs * len(train))
    model.compile()
    model.fit(train, epochs=epochs)
    model.predict(images)  # {"mask": (N, H, W, K), "label": (N, C)} probabilities
    ```

    Arguments marked with a star take their default from the preset.

    Args:
        num_classes: number of mask classes K, background included.
        num_labels: number of image classes C.
        image_size: side of the square views in pixels, a multiple of 32.
        encoder: name or Keras model, see `keras_semimed.networks.encoder`.
        weights: ImageNet preset, local file or None.
        total_steps: length of the run; drives kappa and tau (Eq. 16, 17) and the learning rates.
        preset: `"paper"` (the equations as printed) or `"release"` (the authors' code).
        tasks: `"both"`, `"segmentation"` or `"classification"` (Table 3, SS and SC).
        exchange: `"both"`, `"seg_to_cls"` (attention), `"cls_to_seg"` (saliency) or `"none"` (Table 3, SM/ITA).
        attention_on*: `"all"` images or the `"labeled"` ones of a training batch only (and then not in inference).
        stop_gradient_between_tasks: keep the classification loss out of the segmentation encoder.
        saliency_level: decoder level of the saliency map, `"P1"` (1/2) to `"P4"` (1/16) (Table 6).
        saliency_image: RGB image beside the saliency map.
        contrast_level: encoder level of the pixel contrast, `"P1"` to `"P5"` (Table 5).
        selection: `"none"`, `"confidence"`, `"uncertainty"` or `"dual"` (Eq. 7, Fig. 1 and 6).
        confidence*: `"scheduled"` (Eq. 17), `"class_wise"` or a fixed threshold in [0, 1].
        uncertainty*: `"scheduled"` (Eq. 16), `"release"` or a fixed threshold in nats.
        mask_combine*: a pixel is kept if `"all"` (Eq. 7) or `"any"` of the tests pass.
        uncertainty_of: `"weak"` (entropy of the weak view, Eq. 8), `"mean"` (entropy of the mean of both views) or
            `"disagreement"` (Jensen-Shannon divergence of the views).
        unlabeled_mask_loss: `"dice"` (Eq. 9) or `"ce"`, the mean over all pixels of weight times cross-entropy.
        unlabeled_weight*: factor of Eq. 9 and Eq. 10.
        unlabeled_start: step at which the unlabelled terms start.
        unlabeled_ramp: steps over which their weight then rises linearly.
        contrast_delay*: share of `total_steps` before contrast starts, if later than `unlabeled_start`.
        image_weighting*: weights in Eq. 12 of `"pair"`s (Eq. 13) or of the `"anchor"`.
        bank_size*: entries a class of the memory bank, 0 for none.
        lambda_seg: weight of the segmentation branch.
        lambda_cls*: weight of the classification branch.
        alpha: weight of the pixel contrast.
        beta: weight of the image contrast.
        gamma*: weight of the inter-task consistency.
        ramp_consistency*: multiply gamma by exp(-5 (1 - t)^2).
        decoder_filters: channels of the decoder's blocks, deepest first.
        teacher_momentum: take pseudo-labels from a moving-average teacher; None, as printed: from the model itself.
        teacher_statistics: BatchNorm statistics of the teacher, see `SemiSupervisedModel`.
        views: arguments of `WeakStrongViews` (a dict), such a layer, or None.
        seed: seed of views and sampling.

    Raises:
        ValueError: for an argument out of its range; the message names it.
    """

    term_names = (
        "mask_supervised",
        "mask_unlabeled",
        "mask_contrast",
        "label_supervised",
        "label_unlabeled",
        "label_contrast",
        "consistency",
    )

    def __init__(
        self,
        num_classes: int = 2,
        num_labels: int = 2,
        image_size: int = 224,
        encoder: str | keras.Model = "resnet18",
        weights: str | None = None,
        total_steps: int = 3000,
        preset: str = "paper",
        tasks: str = "both",
        exchange: str = "both",
        attention_on: str | None = None,
        stop_gradient_between_tasks: bool = False,
        saliency_level: str = "P2",
        saliency_image: bool = True,
        contrast_level: str = "P3",
        selection: str = "dual",
        confidence: str | float | None = None,
        uncertainty: str | float | None = None,
        mask_combine: str | None = None,
        uncertainty_of: str = "weak",
        unlabeled_mask_loss: str = "dice",
        unlabeled_weight: float | None = None,
        unlabeled_start: int = 0,
        unlabeled_ramp: int = 0,
        contrast_delay: float | None = None,
        image_weighting: str | None = None,
        bank_size: int | None = None,
        lambda_seg: float = 0.5,
        lambda_cls: float | None = None,
        alpha: float = 0.8,
        beta: float = 0.2,
        gamma: float | None = None,
        ramp_consistency: bool | None = None,
        decoder_filters: tuple[int, ...] = (256, 128, 64, 32, 16),
        teacher_momentum: float | None = None,
        teacher_statistics: str = "average",
        views: dict | WeakStrongViews | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            num_classes, image_size, total_steps, teacher_momentum, views, seed, teacher_statistics, **kwargs
        )
        self._take(locals())
        self.encoder = encoder_config(encoder)
        self.decoder_filters = tuple(decoder_filters)
        self.segmentation_loss = SegmentationLoss()
        self.dice_loss = DiceLoss()
        self.pixel_contrast = PixelContrastiveLoss(num_classes)
        self.image_contrast = ImageContrastiveLoss(weighting=self.image_weighting)
        self.consistency_loss = InterTaskConsistency()
        self.mask_threshold = DualThreshold(
            selection, combine=self.mask_combine, confidence=self.confidence, uncertainty=self.uncertainty
        )
        self.label_threshold = DualThreshold(selection, confidence=self.confidence, uncertainty=self.uncertainty)
        self.random_state = add_random_state(self, seed + 1)
        self.bank = MemoryBank(num_classes, self.bank_size, 256, name="bank") if self.bank_size else None
        heads = {"mask": num_classes} if tasks != "classification" else {}
        heads |= {"label": num_labels} if tasks != "segmentation" else {}
        self.health_names = ("kappa", *dict.fromkeys(map(self._tau_name, heads)))
        for head, count in heads.items():
            self.health_names += (f"{head}_selected", *(f"{head}_selected_class_{c}" for c in range(count)))
        self._attach(
            lambda: JointNetwork(
                num_classes,
                num_labels,
                encoder,
                weights,
                self.decoder_filters,
                exchange,
                tasks,
                saliency_level,
                saliency_image,
                contrast_level,
                stop_gradient_between_tasks,
                dtype=self.dtype_policy,
                name="network",
            )
        )

    build_arguments = {"heads": True}

    def _take(self, arguments: dict[str, Any]) -> None:
        """Keeps each argument as an attribute and checks the choices."""
        take_arguments(self, arguments, PRESETS)
        for name, allowed in {
            "attention_on": ("all", "labeled"),
            "uncertainty_of": ("weak", "mean", "disagreement"),
            "unlabeled_mask_loss": ("dice", "ce"),
        }.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"`{name}` must be one of {allowed}. Received: {getattr(self, name)!r}.")
        check_not_negative(
            self,
            *("unlabeled_weight", "unlabeled_start", "unlabeled_ramp", "contrast_delay", "bank_size"),
            *("lambda_seg", "lambda_cls", "alpha", "beta", "gamma"),
        )

    def training_outputs(self, images: dict[str, Any]) -> dict[str, Any]:
        """One forward pass over the labelled weak, unlabelled weak and unlabelled strong views."""
        labeled, labeled_geometry, _ = self._weak_view(images["labeled"])
        weak, geometry, inside = self._weak_view(images["unlabeled"], images.get("unlabeled_area"))
        strong = self._strong_view(weak, images, geometry)
        count, unlabeled_count = ops.shape(labeled)[0], ops.shape(weak)[0]
        attended = None
        if self.attention_on == "labeled":
            attended = ops.concatenate([ops.ones((count,)), ops.zeros((2 * unlabeled_count,))])
        outputs = self.network(ops.concatenate([labeled, weak, strong]), attended=attended, heads=True, training=True)
        first, second = count, count + unlabeled_count
        parts = {
            "labeled": {name: value[:first] for name, value in outputs.items() if name.endswith("_logits")},
            "weak": {name: value[first:second] for name, value in outputs.items()},
            "strong": {name: value[second:] for name, value in outputs.items()},
        }
        if self.teacher is not None:
            taught = self.teach(weak, attended=self._attended(unlabeled_count))
            parts["weak"] |= {name: value for name, value in taught.items() if name.endswith("_logits")}
        return {**parts, "geometry": labeled_geometry, "inside": inside}

    def _attended(self, count: Any) -> Any:
        return ops.zeros((count,)) if self.attention_on == "labeled" else None

    def inference_arguments(self, images: Any) -> dict[str, Any]:
        """Without attention where it is for the labelled images of a training batch only."""
        return {"attended": self._attended(ops.shape(images)[0])}

    def inference_network(self, saliency: bool = True) -> JointNetwork:
        """As in the base class; without attention where it is for the labelled images of a training batch only."""
        return self.predictor.for_inference(attention=self.attention_on != "labeled", saliency=saliency)

    def loss_terms(self, outputs: dict[str, Any], targets: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The seven unweighted terms of Eq. 15 and what the thresholds let through."""
        terms = dict.fromkeys(self.term_names, ops.zeros(()))
        terms |= supervised_terms(self, outputs["labeled"], targets, outputs["geometry"])
        health: dict[str, Any] = {}
        weak, strong = outputs["weak"], outputs["strong"]
        ramp = self._ramp(self.unlabeled_start, self.unlabeled_ramp)
        contrast_start = max(self.unlabeled_start, int(self.contrast_delay * self.total_steps))
        contrast = self._ramp(contrast_start, self.unlabeled_ramp)
        if self.tasks != "segmentation":
            selected = self._select(self.label_threshold, weak["label_logits"], strong["label_logits"])
            terms["label_unlabeled"] = ramp * masked_cross_entropy(
                selected.labels, strong["label_logits"], selected.weight, normalize="all"
            )
            embeddings = ops.stack([weak["image_embeddings"], strong["image_embeddings"]])
            terms["label_contrast"] = contrast * self.image_contrast(embeddings, selected.labels, selected.weight)
            health |= self._health("label", selected, ops.ones_like(selected.weight), self.num_labels)
        if self.tasks != "classification":
            selected = self._select(self.mask_threshold, weak["mask_logits"], strong["mask_logits"])
            selected = selected._replace(weight=selected.weight * outputs["inside"])
            terms["mask_unlabeled"] = ramp * self._unlabeled_mask_loss(
                strong["mask_logits"], selected, outputs["inside"]
            )
            terms["mask_contrast"] = contrast * self._pixel_contrast_term(weak, strong, selected)
            health |= self._health("mask", selected, outputs["inside"], self.num_classes)
        if self.tasks == "both":
            if self.ramp_consistency:
                ramp = ramp * consistency_ramp(self.progress)
            terms["consistency"] = ramp * self.consistency_loss(
                strong["consistency_classification"], strong["consistency_segmentation"]
            )
        return terms, health

    @property
    def loss_weights(self) -> dict[str, float]:
        """Eq. 15."""
        seg, cls = self.lambda_seg, self.lambda_cls
        return {
            "mask_supervised": seg,
            "mask_unlabeled": seg * self.unlabeled_weight,
            "mask_contrast": seg * self.alpha,
            "label_supervised": cls,
            "label_unlabeled": cls * self.unlabeled_weight,
            "label_contrast": cls * self.beta,
            "consistency": self.gamma,
        }

    @property
    def selects(self) -> bool:
        """Whether pseudo-labels are being selected at this step."""
        return self.selection != "none" and int(ops.convert_to_numpy(self.step)) > self.unlabeled_start

    def _ramp(self, start: int, length: int) -> Any:
        """0 before `start`, then linearly to 1 over `length` steps."""
        done = ops.cast(self.step - start + 1, "float32")
        return ops.clip(done / max(length, 1), 0.0, 1.0)

    def _select(self, threshold: DualThreshold, weak_logits: Any, strong_logits: Any) -> Any:
        """Eq. 7 and 8 on the weak view, without gradient."""
        weak = ops.softmax(ops.cast(ops.stop_gradient(weak_logits), "float32"))
        uncertainty = None
        if self.uncertainty_of != "weak":
            strong = ops.softmax(ops.cast(ops.stop_gradient(strong_logits), "float32"))
            uncertainty = view_uncertainty(weak, strong, self.uncertainty_of)
        return threshold(weak, self.progress, uncertainty)

    def _unlabeled_mask_loss(self, logits: Any, selected: Any, inside: Any) -> Any:
        """Eq. 9, or its cross-entropy form."""
        if self.unlabeled_mask_loss == "dice":
            probabilities = ops.softmax(ops.cast(logits, "float32"))
            return self.dice_loss(selected.labels, probabilities, selected.weight)
        labels = ops.where(inside > 0, selected.labels, 255)
        return masked_cross_entropy(labels, logits, selected.weight, normalize="all")

    def _pixel_contrast_term(self, weak: dict[str, Any], strong: dict[str, Any], selected: Any) -> Any:
        """Eq. 11 on the mean of both views' embeddings; the bank takes in the anchors afterwards."""
        both = (ops.cast(view["pixel_embeddings"], "float32") for view in (weak, strong))
        embeddings = l2_normalize(sum(both))
        stride = self.image_size // embeddings.shape[1]
        hard = selected.labels != ops.argmax(strong["mask_logits"], axis=-1)
        labels, certain, hard = (
            ops.cast(x, dtype)[:, stride // 2 :: stride, stride // 2 :: stride]
            for x, dtype in ((selected.labels, "int32"), (selected.weight, "float32"), (hard, "float32"))
        )
        noise = keras.random.uniform(ops.shape(labels), seed=StoredSeedGenerator(self.random_state))
        anchors = self.pixel_contrast.select(embeddings, labels, certain, hard, noise)
        if self.bank is None:
            return self.pixel_contrast.contrast(anchors)
        loss = self.pixel_contrast.contrast(anchors, *self.bank.negatives())
        self.bank.update(anchors.embeddings, anchors.labels, anchors.valid)
        return loss

    def _health(self, head: str, selected: Any, present: Any, classes: int) -> dict[str, Any]:
        """Current thresholds and the selected share, in all and of each predicted class."""
        health = {"kappa": ops.mean(selected.kappa), self._tau_name(head): ops.mean(selected.tau)}
        health[f"{head}_selected"] = Share(ops.sum(selected.weight), ops.sum(present))
        health |= share_by_class(f"{head}_selected", selected.weight, selected.labels, present, classes)
        return health

    def _tau_name(self, head: str) -> str:
        """Both heads share a scheduled threshold; a class-wise one comes from each head's own predictions."""
        return f"{head}_tau" if self.confidence == "class_wise" else "tau"

    def supervised_outputs(self, outputs: dict[str, Any], targets: dict[str, Any]) -> tuple[dict, dict]:
        """Probabilities and warped targets of the labelled images."""
        return supervised_predictions(self, outputs["labeled"], targets, outputs["geometry"])

    def explain(self, images: Any) -> dict[str, Any]:
        """Saliency (Eq. 6) and attention (Eq. 3, 4) of some images.

        Args:
            images: `(N, H, W, 1 or 3)` in 0..255.

        Returns:
            NumPy arrays: `saliency` `(N, H, W, 1)` in 0..1, `channel_attention` and `spatial_attention`, lists with
            `(N, C)` and `(N, h, w, 1)` for each of the levels P1 to P4. What the model's `exchange` lacks is absent.
        """
        images = ops.convert_to_tensor(images)
        outputs = self.predictor(images, **self.inference_arguments(images), maps=True, training=False)
        names = (
            ("saliency",) if self.attention_on == "labeled" else ("saliency", "channel_attention", "spatial_attention")
        )
        found = {name: outputs[name] for name in names if name in outputs}
        return keras.tree.map_structure(keras.ops.convert_to_numpy, found)

    def default_optimizer(self, **arguments: Any) -> keras.optimizers.Optimizer:
        """`branch_optimizer(total_steps, ...)`: SGD for the classification branch, Adam for the segmentation branch."""
        return branch_optimizer(self.total_steps, **arguments)

    def get_config(self) -> dict[str, Any]:
        """Arguments of the model; start weights are in the saved weights."""
        return {**super().get_config(), **arguments_config(self)}
