"""U2PL: pixels that are too unsure for a pseudo-label are negatives of what they are unlikely to be."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from keras_semimed.configuration import check_at_most_one, check_not_negative, check_pair, check_whole
from keras_semimed.layers.cutmix import CutMix, mix_boxes, neighbour
from keras_semimed.layers.memory_bank import MemoryBank
from keras_semimed.layers.pseudo_labels import PseudoLabels, hard_labels
from keras_semimed.layers.resampling import at_cells
from keras_semimed.layers.views import IGNORE, WIDE_VIEWS
from keras_semimed.losses import UnreliableContrastLoss, entropy_partition, reliable_cross_entropy
from keras_semimed.losses.unreliable_contrast import spread_members
from keras_semimed.models.semi_supervised import Losses, SemiSupervisedModel
from keras_semimed.models.view import View
from keras_semimed.networks.contract import Head
from keras_semimed.networks.deeplab import RepresentationHead
from keras_semimed.thresholds import unreliable_share

WIDTH, PUSHED = 256, 512


@keras.saving.register_keras_serializable(package="keras_semimed")
class U2PL(SemiSupervisedModel):
    """A mean teacher whose unsure pixels are negatives, in a pixel contrast with a memory for each class.

    Wang et al., "Semi-Supervised Semantic Segmentation Using Unreliable Pseudo-Labels", CVPR 2022. The teacher labels
    the weak view; the pixels of lowest entropy, whose share grows to all, are learnt from the strong view with CutMix.
    With two classes the published ranks (3, 20) leave every memory empty and the contrast at 0; the default is what the
    authors advise then, `low` 1, and an unsure pixel is a negative of the class just below 1/2: the idea thins out.
    `loss = supervised + unlabeled + lambda_contrast contrast`, behind the warm-up; `predict` uses the teacher.

    Args:
        unreliable_share: share of the unlabelled pixels that is unreliable at the start; it falls to 0.
        warmup_share: share of the run that is supervised alone.
        lambda_contrast: weight of the contrast.
        confidence: lowest probability of an anchor.
        temperature: of the contrast.
        ranks: `(low, high)`, see `UnreliableContrastLoss`; None: by the number of classes.
        samples: anchors of a class, and negatives of an anchor, that a step draws.
        bank_size: embeddings that a class remembers.
        teacher_momentum: of the teacher's moving average.

    Raises:
        ValueError: for an argument out of its range; the message names it.
    """

    supports = ("segmentation",)
    default_mask_loss = "ce"
    default_views = WIDE_VIEWS
    teachers = 1
    selects = False  # the share that counts is prescribed

    def __init__(
        self,
        unreliable_share: float = 0.2,
        warmup_share: float = 1 / 80,
        lambda_contrast: float = 0.1,
        confidence: float = 0.3,
        temperature: float = 0.5,
        ranks: tuple[int, int] | None = None,
        samples: tuple[int, int] = (256, 50),
        bank_size: int = 4096,
        teacher_momentum: float = 0.99,
        **kwargs: Any,
    ) -> None:
        super().__init__(teacher_momentum=teacher_momentum, **kwargs)
        self.unreliable_share, self.warmup_share, self.lambda_contrast = unreliable_share, warmup_share, lambda_contrast
        self.confidence, self.temperature = confidence, temperature
        self.ranks = None if ranks is None else check_pair("ranks", ranks, 0)
        self.samples, self.bank_size = check_pair("samples", samples, 1), bank_size
        check_at_most_one(self, "unreliable_share", "warmup_share", "confidence")
        check_not_negative(self, "lambda_contrast")
        check_whole("bank_size", bank_size, 1)
        self.contrast_loss = UnreliableContrastLoss(self.num_classes, confidence, temperature, self.ranks)
        self.bank = MemoryBank(self.num_classes, bank_size, WIDTH, min(PUSHED, bank_size), name="bank")
        self.cutmix = CutMix(0.5, (0.5, 0.5), (0.5, 2.0), seed=self.seed + 2, per_batch=True)
        self.build_networks()

    @property
    def heads(self) -> dict[str, Head]:
        """Embeddings, at a quarter of the image's size."""
        feature = "decoded" if self.given.network == "deeplab" else "D2"
        return {"representation": Head(feature, lambda width, **named: RepresentationHead(WIDTH, **named))}

    @property
    def loss_weights(self) -> dict[str, Any]:
        """1 and `lambda_contrast`, but nothing without labels during the warm-up."""
        warm = ops.cast(self.step >= math.floor(self.warmup_share * self.total_steps), "float32")
        return {"mask_supervised": 1.0, "mask_unlabeled": warm, "mask_contrast": self.lambda_contrast * warm}

    def terms(self, labeled: View, unlabeled: View) -> Losses:
        """The supervised term, that of the reliable pixels, and the contrast."""
        boxes = self.cutmix.boxes(unlabeled.count, self.image_size, self.image_size)
        strong = self.strong(unlabeled)
        known, taught = self.teach(labeled, unlabeled, heads=("representation",))
        pseudo = self.pseudo("mask", unlabeled, taught["mask_logits"])
        mixed = pseudo.mixed(pseudo.rolled(), boxes)
        labels = ops.where(mixed.inside > 0, mixed.labels, IGNORE)
        parts = entropy_partition(mixed.probabilities, labels != IGNORE, self._share)
        on_labeled, on_mixed = self.run(labeled, strong.mixed(strong.rolled(), boxes))
        embeddings, stored = on_labeled["representation"], taught["representation"]
        of_pixels = (
            ops.concatenate([ops.softmax(ops.cast(known["mask_logits"], "float32")), mixed.probabilities]),
            ops.concatenate([labeled.masks, labels]),
            ops.concatenate([ops.zeros_like(labeled.inside), parts.reliable]),
        )
        probabilities, targets, reliable = (at_cells(each, *embeddings.shape[1:3]) for each in of_pixels)
        stored = mix_boxes(stored, neighbour(stored), at_cells(boxes, *embeddings.shape[1:3]))
        stored = ops.concatenate([known["representation"], stored])
        of_labeled = ops.concatenate([ops.ones((labeled.count,)), ops.zeros((unlabeled.count,))])
        anchors, negatives = self.contrast_loss.masks(probabilities, targets, reliable, of_labeled)
        self._remember(stored, negatives)
        terms = {
            **self.supervised(labeled, on_labeled),
            "mask_unlabeled": reliable_cross_entropy(labels, on_mixed["mask_logits"], parts.reliable),
            "mask_contrast": self.contrast_loss(
                ops.concatenate([embeddings, on_mixed["representation"]]),
                anchors,
                self.contrast_loss.prototypes(stored, anchors),
                *self.bank.negatives(),
                self.uniform((self.num_classes, self.samples[0])),
                self.uniform((self.num_classes, *self.samples)),
            ),
        }
        return Losses(terms, {"mask": pseudo}, {"entropy_threshold": parts.threshold})

    def _remember(self, embeddings: Any, negatives: Any) -> None:
        """Pushes negatives of each class, no pixel twice, drawn from all of them where there are too many."""
        shape = (self.num_classes, self.bank.per_update)
        members = ops.transpose(ops.reshape(negatives, (-1, self.num_classes)))
        places, found = (ops.reshape(each, (-1,)) for each in spread_members(members, self.uniform(shape)))
        rows = ops.take(ops.reshape(ops.cast(embeddings, "float32"), (-1, WIDTH)), places, axis=0)
        self.bank.update(rows, ops.repeat(ops.arange(shape[0], dtype="int32"), shape[1]), found)

    @property
    def _share(self) -> Any:
        return unreliable_share(self.progress, self.unreliable_share)

    def select(self, head: str, logits: Any, inside: Any, other: Any = None, training: bool = False) -> PseudoLabels:
        """Hard labels; kept are the pixels of low entropy, by a quantile of all that are given."""
        del head, other, training
        probabilities = ops.softmax(ops.cast(ops.stop_gradient(logits), "float32"))
        parts = entropy_partition(probabilities, inside, self._share)
        return hard_labels(logits, inside)._replace(kept=parts.reliable, probabilities=probabilities)
