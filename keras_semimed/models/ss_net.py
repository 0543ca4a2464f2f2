"""SS-Net: a prediction that no small change of the image moves, and pixels drawn to their class."""

from __future__ import annotations

from typing import Any, Literal

import keras
from keras import ops

from keras_semimed.configuration import check_choice, check_not_negative, check_whole
from keras_semimed.layers.class_selector import ClassSelector
from keras_semimed.layers.prototypes import PrototypeMemory
from keras_semimed.layers.resampling import at_cells
from keras_semimed.layers.separation_heads import SeparationHeads
from keras_semimed.layers.views import IGNORE
from keras_semimed.losses import AdversarialSmoothness, ClassSeparation
from keras_semimed.losses.reductions import one_hot_and_valid
from keras_semimed.models.semi_supervised import Losses, SemiSupervisedModel
from keras_semimed.models.view import View
from keras_semimed.networks.contract import Head
from keras_semimed.networks.frozen_statistics import frozen_statistics
from keras_semimed.thresholds import consistency_ramp

WIDTH = 32


@keras.saving.register_keras_serializable(package="keras_semimed")
class SSNet(SemiSupervisedModel):
    """Adversarial smoothness of all images, and pixels of both halves pulled to prototypes of their class.

    Wu et al., "Exploring Smoothness and Class-Separation for Semi-supervised Medical Image Segmentation", MICCAI 2022.
    The perturbation that changes the prediction most must not change it. Labelled pixels that are predicted right give
    each class its prototypes; labelled pixels go to those of their class, unlabelled ones to those of their prediction.
    `loss = supervised + w (smoothness + lambda_separation separation)`, with w rising to `lambda_consistency`.

    Args:
        lambda_consistency: weight of both unsupervised terms at the end of the run.
        lambda_separation: weight of the separation beside the smoothness.
        epsilon: length of the perturbation of an image, over all of its values in 0..255; None: a root mean square of
            6/256 of that range.
        xi: length of the step that its direction is looked for with; None: a root mean square of 10/256.
        iterations: how often the direction is improved.
        prototypes: most prototypes of a class.
        prototype_order: `"highest"` keeps the candidates of the highest scores, `"lowest"` those of the lowest, as the
            authors' code does.

    Raises:
        ValueError: for an argument out of its range; the message names it.
    """

    supports = ("segmentation",)
    selects = False  # every pixel counts

    def __init__(
        self,
        lambda_consistency: float = 0.1,
        lambda_separation: float = 0.1,
        epsilon: float | None = None,
        xi: float | None = None,
        iterations: int = 1,
        prototypes: int = 32,
        prototype_order: Literal["highest", "lowest"] = "highest",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.lambda_consistency = lambda_consistency
        self.lambda_separation = lambda_separation
        self.epsilon = epsilon
        self.xi = xi
        self.iterations = iterations
        self.prototypes = prototypes
        self.prototype_order = prototype_order
        check_not_negative(self, "lambda_consistency", "lambda_separation")
        check_whole("prototypes", prototypes, 1)
        check_choice("prototype_order", prototype_order, ("highest", "lowest"))
        self.smoothness_loss = AdversarialSmoothness(epsilon, xi, iterations)
        self.separation_loss = ClassSeparation()
        self.memory = PrototypeMemory(self.num_classes, prototypes, WIDTH, prototype_order, name="memory")
        self.build_networks()

    @property
    def heads(self) -> dict[str, Head]:
        """Projector, predictor and selector, on the features before the logits."""
        return {"separation": Head("decoded", lambda width, **named: SeparationHeads(self.num_classes, WIDTH, **named))}

    @property
    def separation_heads(self) -> SeparationHeads:
        """Those of the network."""
        return self.network.head_layers["separation"]

    @property
    def selector(self) -> ClassSelector:
        """The scores of pixels, class by class."""
        return self.separation_heads.selector

    @property
    def loss_weights(self) -> dict[str, Any]:
        """w, which rises over the whole run, and w times `lambda_separation`."""
        weight = self.lambda_consistency * consistency_ramp(self.progress)
        return {"mask_supervised": 1.0, "mask_smoothness": weight, "mask_separation": weight * self.lambda_separation}

    def terms(self, labeled: View, unlabeled: View) -> Losses:
        """The supervised term, smoothness and separation."""
        on_labeled, on_unlabeled = self.run(labeled, unlabeled, heads=self.network.without_heads())
        pseudo = self.pseudo("mask", unlabeled, on_unlabeled["mask_logits"])
        masks = ops.where(labeled.inside > 0, labeled.masks, IGNORE)
        self.remember(on_labeled["decoded"], on_labeled["mask_logits"], masks)
        separations = {
            "separation_labeled": self.separation(on_labeled["decoded"], masks),
            "separation_unlabeled": self.separation(on_unlabeled["decoded"], pseudo.known),
        }
        clean = ops.concatenate([_probabilities(on_labeled), _probabilities(on_unlabeled)])
        terms = {
            **self.supervised(labeled, on_labeled),
            "mask_smoothness": self.smoothness(View.joined(labeled, unlabeled), clean),
            "mask_separation": separations["separation_labeled"] + separations["separation_unlabeled"],
        }
        return Losses(terms, {"mask": pseudo}, separations)

    def remember(self, features: Any, logits: Any, masks: Any) -> None:
        """Prototypes from labelled pixels `(N, S, S)` that are foreground and predicted right."""
        right = ops.cast(ops.argmax(logits, axis=-1), "int32") == masks
        projections = ops.reshape(self.separation_heads.project(features), (-1, WIDTH))
        members = self._members(at_cells(ops.where(right, masks, IGNORE), *features.shape[1:3]))
        self.memory.update(projections, self.selector(projections, members, training=True), members)

    def separation(self, features: Any, labels: Any) -> Any:
        """L_sep of features `(N, h, w, D)` whose pixels have the labels `(N, S, S)`, 255 where none."""
        embeddings = ops.reshape(self.separation_heads(features, training=True), (-1, WIDTH))
        labels = ops.reshape(at_cells(labels, *features.shape[1:3]), (-1,))
        scores = self.selector(embeddings, self._members(labels), training=True)
        return self.separation_loss(embeddings, labels, *self.memory.means(), scores)

    def smoothness(self, view: View, clean: Any) -> Any:
        """L_lds of images whose probabilities are `clean`."""
        noise = self.uniform(ops.shape(view.images)) - 0.5
        with frozen_statistics(self.network):
            added = self.smoothness_loss.perturbation(self._predict, view.images, clean, noise, view.inside)
            return self.smoothness_loss(self._predict(view.images + added), clean, view.inside)

    def _predict(self, images: Any) -> Any:
        (outputs,) = self.run(images, heads=self.network.without_heads())
        return _probabilities(outputs)

    def _members(self, labels: Any) -> Any:
        return ops.transpose(one_hot_and_valid(ops.reshape(labels, (-1,)), self.num_classes)[0])  # (K, M)


def _probabilities(outputs: dict[str, Any]) -> Any:
    return ops.softmax(ops.cast(outputs["mask_logits"], "float32"), axis=-1)
