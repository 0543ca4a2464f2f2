"""Hermes: dual-threshold contrastive learning for ultrasound classification and segmentation."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import keras
from keras import ops

from keras_semimed.configuration import check_choice, check_not_negative, check_whole, is_number
from keras_semimed.embeddings import l2_normalize
from keras_semimed.layers.memory_bank import MemoryBank
from keras_semimed.layers.pseudo_labels import PseudoLabels
from keras_semimed.layers.resampling import at_cells
from keras_semimed.losses import (
    DiceLoss,
    ImageContrastiveLoss,
    InterTaskConsistency,
    PixelContrastiveLoss,
)
from keras_semimed.models.passes import forward
from keras_semimed.models.semi_supervised import Losses, SemiSupervisedModel
from keras_semimed.models.view import View
from keras_semimed.networks.contract import Extended, Head
from keras_semimed.optimizers import branch_optimizer
from keras_semimed.thresholds import DualThreshold, consistency_ramp, view_uncertainty

PAPER: dict[str, Any] = {
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
    "selection": "dual",
    "unlabeled_mask_loss": "dice",
    "unlabeled_ramp": 0,
    "alpha": 0.8,
    "beta": 0.2,
}
PRESETS: dict[str, dict[str, Any]] = {
    "paper": PAPER,
    # The authors' code where it departs from their paper.
    "release": {
        **PAPER,
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
    # From a supervised network that was trained to its end; table S of docs/protocol.md.
    "small": {
        **PAPER,
        "selection": "confidence",
        "confidence": 0.9,
        "unlabeled_mask_loss": "ce",
        "unlabeled_ramp": 0.2,
        "beta": 0.0,
        "gamma": 0.0,
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
        preset: `"paper"` (the equations as printed), `"release"` (the authors' code), or `"small"`: for tens of
            labels, behind `start_from` of a supervised network that was trained to its end.
        exchange: `"both"`, `"seg_to_cls"` (attention), `"cls_to_seg"` (saliency) or `"none"` (Table 3, SM/ITA).
        attention_on*: `"all"` images or the `"labeled"` ones of a training batch only (and then not in inference).
        stop_gradient_between_tasks: keep the classification loss out of the segmentation encoder.
        saliency_level: decoder level of the saliency map, `"P1"` (1/2) to `"P4"` (1/16) (Table 6).
        saliency_image: RGB image beside the saliency map.
        contrast_level: encoder level of the pixel contrast, `"P1"` to `"P5"` (Table 5).
        selection*: `"none"`, `"confidence"`, `"uncertainty"` or `"dual"` (Eq. 7, Fig. 1 and 6).
        confidence*: `"scheduled"` (Eq. 17), `"class_wise"` or a fixed threshold in [0, 1].
        uncertainty*: `"scheduled"` (Eq. 16), `"release"` or a fixed threshold in nats.
        mask_combine*: a pixel is kept if `"all"` (Eq. 7) or `"any"` of the tests pass.
        uncertainty_of: `"weak"` (entropy of the weak view, Eq. 8), `"mean"` (entropy of the mean of both views) or
            `"disagreement"` (Jensen-Shannon divergence of the views).
        unlabeled_mask_loss*: `"dice"` (Eq. 9), `"ce"`, the mean over all pixels of weight times cross-entropy, or
            `"soft"`, the same with the probabilities of the weak view (the teacher's, where there is one) as labels.
        student_view: unlabelled views that the network sees: `"both"`, or the `"strong"` one alone, where a teacher
            labels the weak one and no contrast (alpha, beta) looks at it.
        unlabeled_weight*: factor of Eq. 9 and Eq. 10.
        unlabeled_start: step at which the unlabelled terms start.
        unlabeled_ramp*: steps over which their weight then rises linearly; below 1: that share of `total_steps`.
        contrast_delay*: share of `total_steps` before contrast starts, if later than `unlabeled_start`.
        image_weighting*: weights in Eq. 12 of `"pair"`s (Eq. 13) or of the `"anchor"`.
        bank_size*: entries a class of the memory bank, 0 for none.
        lambda_seg: weight of the segmentation branch.
        lambda_cls*: weight of the classification branch.
        alpha*: weight of the pixel contrast.
        beta*: weight of the image contrast.
        gamma*: weight of the inter-task consistency.
        ramp_consistency*: multiply gamma by exp(-5 (1 - t)^2).
        teacher_momentum: keep a moving-average teacher, which gives the pseudo-labels and predicts; None, as printed:
            the model itself does.
        teacher_labels: False: the teacher predicts only, and the model labels by itself.

    Raises:
        ValueError: for an argument out of its range; the message names it.
    """

    presets = PRESETS
    preset_optimizers: ClassVar[dict[str, dict[str, dict[str, Any]]]] = {
        "small": {"branch": {"learning_rate": 5e-4, "classifier": "adam"}}
    }
    teacher_may_label = True
    attention_on: str
    confidence: str | float
    uncertainty: str | float
    mask_combine: str
    unlabeled_weight: float
    contrast_delay: float
    selection: str
    unlabeled_mask_loss: str
    unlabeled_ramp: int | float
    alpha: float
    beta: float
    image_weighting: str
    bank_size: int
    lambda_cls: float
    gamma: float
    ramp_consistency: bool
    pixel_embeddings = "pixel_embeddings"
    image_embeddings = "image_embeddings"

    def __init__(
        self,
        preset: Literal["paper", "release", "small"] = "paper",
        exchange: Literal["both", "seg_to_cls", "cls_to_seg", "none"] = "both",
        attention_on: Literal["all", "labeled"] | None = None,
        stop_gradient_between_tasks: bool = False,
        saliency_level: Literal["P1", "P2", "P3", "P4"] = "P2",
        saliency_image: bool = True,
        contrast_level: Literal["P1", "P2", "P3", "P4", "P5"] = "P3",
        selection: Literal["none", "confidence", "uncertainty", "dual"] | None = None,
        confidence: str | float | None = None,
        uncertainty: str | float | None = None,
        mask_combine: Literal["all", "any"] | None = None,
        uncertainty_of: Literal["weak", "mean", "disagreement"] = "weak",
        unlabeled_mask_loss: Literal["dice", "ce", "soft"] | None = None,
        student_view: Literal["both", "strong"] = "both",
        unlabeled_weight: float | None = None,
        unlabeled_start: int = 0,
        unlabeled_ramp: int | float | None = None,
        contrast_delay: float | None = None,
        image_weighting: Literal["pair", "anchor"] | None = None,
        bank_size: int | None = None,
        lambda_seg: float = 0.5,
        lambda_cls: float | None = None,
        alpha: float | None = None,
        beta: float | None = None,
        gamma: float | None = None,
        ramp_consistency: bool | None = None,
        teacher_momentum: float | None = None,
        teacher_labels: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(preset=preset, teacher_momentum=teacher_momentum, **kwargs)
        self.teacher_labels = teacher_labels
        self.take_preset(locals())
        self.exchange = exchange
        self.stop_gradient_between_tasks = stop_gradient_between_tasks
        self.saliency_level, self.saliency_image = saliency_level, saliency_image
        self.contrast_level = contrast_level
        self.uncertainty_of = uncertainty_of
        self.student_view = student_view
        self.unlabeled_start, self.lambda_seg = unlabeled_start, lambda_seg
        check_choice("attention_on", self.attention_on, ("all", "labeled"))
        check_choice("mask_combine", self.mask_combine, ("all", "any"))
        check_choice("image_weighting", self.image_weighting, ("pair", "anchor"))
        check_choice("contrast_level", contrast_level, ("P1", "P2", "P3", "P4", "P5"))
        check_choice("uncertainty_of", uncertainty_of, ("weak", "mean", "disagreement"))
        check_choice("unlabeled_mask_loss", self.unlabeled_mask_loss, ("dice", "ce", "soft"))
        check_choice("student_view", student_view, ("both", "strong"))
        if student_view == "strong" and (teacher_momentum is None or not teacher_labels or self.alpha or self.beta):
            raise ValueError(
                "`student_view` can be 'strong' only with `teacher_momentum`, `alpha` 0 and `beta` 0: else the weak "
                "view is labelled by the network, or contrasted."
            )
        check_not_negative(self, "unlabeled_weight", "contrast_delay")
        for name in ("unlabeled_start", "bank_size"):
            check_whole(name, getattr(self, name), 0)
        if not (is_number(self.unlabeled_ramp) and 0 < self.unlabeled_ramp < 1):
            check_whole("unlabeled_ramp", self.unlabeled_ramp, 0)
        check_not_negative(self, "lambda_seg", "lambda_cls", "alpha", "beta", "gamma")
        self.dice_loss = DiceLoss()
        self.pixel_contrast = PixelContrastiveLoss(self.num_classes)
        self.image_contrast = ImageContrastiveLoss(weighting=self.image_weighting)
        self.consistency_loss = InterTaskConsistency()
        self.mask_threshold = DualThreshold(self.selection, self.mask_combine, self.confidence, self.uncertainty)
        self.label_threshold = DualThreshold(self.selection, "all", self.confidence, self.uncertainty)
        self.bank = (
            MemoryBank(self.num_classes, self.bank_size, 256, name="bank") if self.bank_size and self.alpha else None
        )
        self.build_networks()

    @property
    def joint_options(self) -> dict[str, Any]:
        """What the branches exchange."""
        names = ("exchange", "saliency_level", "saliency_image", "stop_gradient_between_tasks")
        return {name: getattr(self, name) for name in names}

    @property
    def heads(self) -> dict[str, Head]:
        """Projectors of the contrast (Eq. 11, 12) and of the consistency (Eq. 14), of terms that weigh anything."""
        heads = {}
        if self.segments and self.alpha:
            heads["pixel_embeddings"] = Head(self.contrast_level, 256, batch_norm=True)
        if self.classifies and self.beta:
            heads["image_embeddings"] = Head("pooled", 128, hidden=256, normalize=True)
        if self.tasks == "both" and self.gamma:
            heads["consistency_segmentation"] = Head("P5", 128, hidden=256, pool=True)
            heads["consistency_classification"] = Head("pooled", 128, hidden=256)
        return heads

    @property
    def labeler(self) -> Extended:
        """The teacher where there is one that labels, else the model itself."""
        return self.network if self.teacher is None or not self.teacher_labels else self.teacher

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
    def unlabeled_steps(self) -> int:
        """Steps over which the unlabelled terms rise."""
        share = 0 < self.unlabeled_ramp < 1
        return round(self.unlabeled_ramp * self.total_steps) if share else int(self.unlabeled_ramp)

    @property
    def selects(self) -> bool:
        """Whether pseudo-labels are being selected at this step."""
        return self.selection != "none" and int(ops.convert_to_numpy(self.step)) > self.unlabeled_start

    def terms(self, labeled: View, unlabeled: View) -> Losses:
        """The seven unweighted terms of Eq. 15, those without weight left out, and what the thresholds let through."""
        strong_view = self.strong(unlabeled)
        if self.student_view == "both":
            on_labeled, weak, strong = self.run(
                labeled, unlabeled, strong_view, **self._attended(labeled.count, 2 * unlabeled.count)
            )
        else:
            on_labeled, strong = self.run(labeled, strong_view, **self._attended(labeled.count, unlabeled.count))
            weak = {}
        taught = weak
        if self.labeler is not self.network:
            (taught,) = self.teach(unlabeled, **self._attended(0, unlabeled.count))
        terms = {**dict.fromkeys(self.loss_weights, ops.zeros(())), **self.supervised(labeled, on_labeled)}
        pseudo: dict[str, PseudoLabels] = {}
        ramp = self.ramp(self.unlabeled_start, self.unlabeled_steps)
        start = max(self.unlabeled_start, int(self.contrast_delay * self.total_steps))
        contrast = self.ramp(start, self.unlabeled_steps)
        if self.classifies:
            pseudo["label"] = kept = self.pseudo("label", unlabeled, taught["label_logits"], strong["label_logits"])
            if self.unlabeled_weight:
                terms["label_unlabeled"] = ramp * kept.cross_entropy(strong["label_logits"])
            if self.beta:
                embeddings = ops.stack([weak["image_embeddings"], strong["image_embeddings"]])
                terms["label_contrast"] = contrast * self.image_contrast(embeddings, kept.labels, kept.kept)
        if self.segments:
            pseudo["mask"] = kept = self.pseudo("mask", unlabeled, taught["mask_logits"], strong["mask_logits"])
            if self.unlabeled_weight:
                terms["mask_unlabeled"] = ramp * self._mask_unlabeled(strong["mask_logits"], kept)
            if self.alpha:
                terms["mask_contrast"] = contrast * self._mask_contrast(weak, strong, kept)
        if self.tasks == "both" and self.gamma:
            if self.ramp_consistency:
                ramp = ramp * consistency_ramp(self.progress)
            terms["consistency"] = ramp * self.consistency_loss(
                strong["consistency_classification"], strong["consistency_segmentation"]
            )
        return Losses(terms, pseudo, self._thresholds(pseudo))

    def select(self, head: str, logits: Any, inside: Any, other: Any = None, training: bool = False) -> PseudoLabels:
        """Eq. 7 and 8 on the weak view, without gradient."""
        del training
        return self._kept(self.mask_threshold if head == "mask" else self.label_threshold, logits, inside, other)

    def _kept(self, threshold: DualThreshold, logits: Any, inside: Any, other: Any) -> PseudoLabels:
        """Pseudo-labels of the weak view's logits that pass a threshold."""
        weak = ops.softmax(ops.cast(ops.stop_gradient(logits), "float32"))
        uncertainty = None
        if self.uncertainty_of != "weak":
            if other is None:
                raise ValueError(f"uncertainty_of={self.uncertainty_of!r} needs the logits of a second view (`other`).")
            strong = ops.softmax(ops.cast(ops.stop_gradient(other), "float32"))
            uncertainty = view_uncertainty(weak, strong, self.uncertainty_of)
        selected = threshold(weak, self.progress, uncertainty)
        return PseudoLabels(selected.labels, ops.max(weak, axis=-1), selected.weight * inside, inside, weak)

    def label(self, view: Any, other: Any = None) -> dict[str, PseudoLabels]:
        """As in the base class; for an uncertainty of two views `other` is the strong one."""
        view = self.as_view(view)
        return self.selected(view, *self._looks(view, other))

    def label_variants(self, view: Any, other: Any = None) -> dict[str, PseudoLabels]:
        """The pseudo-masks under the four selections (Fig. 6)."""
        if not self.segments:
            return {}
        view = self.as_view(view)
        logits = [outputs["mask_logits"] for outputs in self._looks(view, other)]
        rule, second = self.mask_threshold.get_config(), logits[1] if len(logits) > 1 else None
        return {
            name: self._kept(DualThreshold(**{**rule, "selection": name}), logits[0], view.inside, second)
            for name in ("none", "confidence", "uncertainty", "dual")
        }

    def _looks(self, view: View, other: View | None) -> list[dict[str, Any]]:
        """Outputs for the weak view, as pseudo-labels are made of them, and for the strong one where it is needed."""
        looks = [(self.labeler, view)]
        if self.uncertainty_of != "weak" and other is not None:
            looks.append((self.network, other))
        arguments, none = self.inference_arguments(view.images), self.network.without_heads()
        return [forward(network, (seen,), none, False, arguments)[0] for network, seen in looks]

    def _mask_unlabeled(self, logits: Any, pseudo: PseudoLabels) -> Any:
        """Eq. 9, or its cross-entropy form."""
        if self.unlabeled_mask_loss != "dice":
            return (
                pseudo.cross_entropy(logits) if self.unlabeled_mask_loss == "ce" else pseudo.soft_cross_entropy(logits)
            )
        return self.dice_loss(pseudo.labels, ops.softmax(ops.cast(logits, "float32")), pseudo.kept)

    def _mask_contrast(self, weak: dict[str, Any], strong: dict[str, Any], pseudo: PseudoLabels) -> Any:
        """Eq. 11 on the mean of both views' embeddings; the bank takes in the anchors afterwards."""
        both = (ops.cast(view["pixel_embeddings"], "float32") for view in (weak, strong))
        embeddings = l2_normalize(sum(both))
        hard = pseudo.labels != ops.argmax(strong["mask_logits"], axis=-1)
        labels, certain, hard = (
            ops.cast(at_cells(x, *embeddings.shape[1:3]), dtype)
            for x, dtype in ((pseudo.labels, "int32"), (pseudo.kept, "float32"), (hard, "float32"))
        )
        noise = self.uniform(ops.shape(labels))
        anchors = self.pixel_contrast.select(embeddings, labels, certain, hard, noise)
        if self.bank is None:
            return self.pixel_contrast.contrast(anchors)
        loss = self.pixel_contrast.contrast(anchors, *self.bank.negatives())
        self.bank.update(anchors.embeddings, anchors.labels, anchors.valid)
        return loss

    def _thresholds(self, pseudo: dict[str, PseudoLabels]) -> dict[str, Any]:
        """Kappa, which both heads share, and tau; a class-wise tau comes from each head's own predictions."""
        figures = {"kappa": self.mask_threshold.kappa(self.progress)}
        for head, labels in pseudo.items():
            classes = self.num_classes if head == "mask" else self.num_labels
            name = f"{head}_tau" if self.confidence == "class_wise" else "tau"
            figures[name] = ops.mean(self.mask_threshold.tau(self.progress, labels.labels, classes))
        return figures

    def _attended(self, labeled: Any, unlabeled: Any) -> dict[str, Any]:
        """Which images of a pass get attention, where it is for the labelled images of a training batch only."""
        if self.tasks != "both" or self.attention_on == "all":
            return {}
        return {"attended": ops.concatenate([ops.ones((labeled,)), ops.zeros((unlabeled,))])}

    def inference_arguments(self, images: Any) -> dict[str, Any]:
        """Without attention where it is for the labelled images of a training batch only."""
        return self._attended(0, ops.shape(images)[0])

    def inference_network(self, saliency: bool = True) -> keras.layers.Layer:
        """As in the base class; without attention where it is for the labelled images of a training batch only."""
        options = {"attention": self.attention_on != "labeled"} if self.tasks == "both" else {}
        return self.predictor.network.for_inference(saliency=saliency, **options)

    def explain(self, images: Any) -> dict[str, Any]:
        """As in the base class; without attention where it is for the labelled images of a training batch only."""
        maps = super().explain(images)
        return {name: maps[name] for name in maps if self.attention_on == "all" or not name.endswith("attention")}

    def default_optimizer(self, **arguments: Any) -> keras.optimizers.Optimizer:
        """`branch_optimizer(total_steps, ...)`: SGD for the classification branch, Adam for the segmentation branch."""
        return branch_optimizer(self.total_steps, **self.optimizer_arguments("branch", arguments))
