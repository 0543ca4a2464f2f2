"""InterLUDE: labelled and unlabelled images that touch inside the network."""

from __future__ import annotations

from typing import Any, Literal

import keras
from keras import ops

from keras_semimed.configuration import check_at_most_one, check_choice, check_not_negative
from keras_semimed.layers.embedding_fusion import EmbeddingFusion
from keras_semimed.layers.interleaving import deinterleave, interleave
from keras_semimed.layers.pseudo_labels import PseudoLabels, hard_labels
from keras_semimed.layers.views import IGNORE
from keras_semimed.losses import DeltaConsistencyLoss
from keras_semimed.models.batches import inside_of
from keras_semimed.models.semi_supervised import Losses, SemiSupervisedModel
from keras_semimed.models.view import View


@keras.saving.register_keras_serializable(package="keras_semimed")
class InterLUDE(SemiSupervisedModel):
    """FixMatch for image classes in which labelled and unlabelled images learn from each other.

    Huang et al., "InterLUDE: Interactions between Labeled and Unlabeled Data to Enhance Semi-Supervised Learning", ICML
    2024. Before the encoder's last stage the features of each image get a share of the next image's in the batch, where
    each labelled image stands beside its unlabelled ones; and the prediction has to change from the weak to the strong
    view of unlabelled images as it does for the labelled one beside them.
    `loss = supervised + lambda_unlabeled unlabeled + lambda_delta delta`

    A batch needs a whole number of unlabelled images for each labelled one. Nothing is fused in inference.

    Args:
        threshold: lowest confidence of a pseudo-label that is kept: 0 keeps all of them, more than 1 none.
        fusion: share of the next image in the features; 0: none.
        lambda_unlabeled: weight of the unlabelled term.
        lambda_delta: weight of the delta consistency.
        delta_pairs: compare a labelled image with `"all"` unlabelled ones beside it, or with those whose most probable
            class is its own (`"class"`).

    Raises:
        ValueError: for an argument out of its range; the message names it.
    """

    supports = ("classification",)

    def __init__(
        self,
        threshold: float = 0.95,
        fusion: float = 0.1,
        lambda_unlabeled: float = 1.0,
        lambda_delta: float = 1.0,
        delta_pairs: Literal["all", "class"] = "all",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.threshold = threshold
        self.fusion = fusion
        self.lambda_unlabeled = lambda_unlabeled
        self.lambda_delta = lambda_delta
        self.delta_pairs = delta_pairs
        check_not_negative(self, "threshold", "lambda_unlabeled", "lambda_delta")
        check_at_most_one(self, "fusion")
        check_choice("delta_pairs", delta_pairs, ("all", "class"))
        self.embedding_fusion = EmbeddingFusion(fusion)
        self.delta_loss = DeltaConsistencyLoss(delta_pairs)
        self.build_networks()

    @property
    def loss_weights(self) -> dict[str, float]:
        """1, and those of the arguments."""
        return {
            "label_supervised": 1.0,
            "label_unlabeled": self.lambda_unlabeled,
            "label_delta": self.lambda_delta,
        }

    @classmethod
    def check_batch(cls, labeled: int, unlabeled: int) -> None:
        """Raises a ValueError unless there are as many unlabelled images for each labelled one."""
        if unlabeled % labeled:
            raise ValueError(
                f"the unlabelled images of a batch (`unlabeled_batch_size`) must be a multiple of the {labeled} "
                f"labelled ones, found {unlabeled}: each labelled image stands beside as many of them."
            )

    def terms(self, labeled: View, unlabeled: View) -> Losses:
        """Of the labelled weak views, of the unlabelled strong ones, and of what changes between both."""
        views = (labeled, self.strong(labeled), unlabeled, self.strong(unlabeled))
        (outputs,) = self.run(interleave(*(view.images for view in views)), **self._fused())
        parts = deinterleave(outputs["label_logits"], labeled.count)
        on_labeled = {"label_logits": parts[0]}
        weak, strong = (ops.reshape(logits, (-1, self.num_labels)) for logits in parts[2:])
        pseudo = self.pseudo("label", unlabeled, weak)
        terms = {
            **self.supervised(labeled, on_labeled),
            "label_unlabeled": pseudo.cross_entropy(strong),
            "label_delta": self.delta_loss(*parts, *self._counted(labeled, unlabeled)),
        }
        return Losses(terms, {"label": pseudo}, labeled=on_labeled)

    def _fused(self) -> dict[str, Any]:
        """What makes a pass fuse the features that the last stage is computed from."""
        if not self.fusion:
            return {}
        last = self.network.network.levels[-2]
        return {"between": lambda level, x: self.embedding_fusion(x, training=True) if level == last else x}

    def _counted(self, labeled: View, unlabeled: View) -> tuple[Any, Any]:
        """Labels `(B,)`, and which unlabelled images show anything `(B, mu)`, beside labelled ones that do."""
        known, hidden = inside_of("label", labeled), inside_of("label", unlabeled)
        labels = ops.full_like(known, IGNORE, dtype="int32") if labeled.labels is None else labeled.labels
        return labels, known[:, None] * ops.reshape(hidden, (labeled.count, -1))

    def select(self, head: str, logits: Any, inside: Any, other: Any = None, training: bool = False) -> PseudoLabels:
        """Hard labels of at least the threshold's confidence."""
        del head, other, training
        return hard_labels(logits, inside, self.threshold)
