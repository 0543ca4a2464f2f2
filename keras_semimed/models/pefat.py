"""PEFAT: losses of labelled images tell which pseudo-labels to trust; the others get noise on their features."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from keras_semimed.configuration import check_not_negative, check_whole, is_number
from keras_semimed.layers.loss_mixture import LossMixture
from keras_semimed.layers.pseudo_labels import PseudoLabels, hard_labels
from keras_semimed.losses import (
    ViewContrastiveLoss,
    masked_cross_entropy,
    pseudo_losses,
    trusted_adversarial_loss,
    trusted_directions,
    uncertain_directions,
    uncertain_loss,
)
from keras_semimed.losses.cross_entropy import cross_entropies
from keras_semimed.models.batches import inside_of
from keras_semimed.models.health import Share
from keras_semimed.models.passes import forward
from keras_semimed.models.semi_supervised import Losses, SemiSupervisedModel
from keras_semimed.models.view import View


@keras.saving.register_keras_serializable(package="keras_semimed")
class PEFAT(SemiSupervisedModel):
    """Pseudo-labels of two views, trusted where each view's loss with the other's label is like that of a true label.

    Zeng et al., "PEFAT: Boosting Semi-supervised Medical Image Classification via Pseudo-loss Estimation and Feature
    Adversarial Training", CVPR 2023. A strong view and a weak one of another geometry. First a warm-up, `supervised +
    contrast`, whose losses of labelled images a mixture is fitted to, once, at its end. Then `trusted +
    lambda_adversarial adversarial + lambda_uncertain uncertain`: labels and trusted pseudo-labels, the same with noise
    on the pooled features, and for images without trust the agreement of each view with the other one's noisy features.

    Args:
        warmup_share: share of the run that is warm-up, between 0 and 1.
        temperature: of the contrast.
        threshold: posterior of small losses that a trusted image must exceed: 1 or more trusts none.
        iterations: how often the direction of the noise is improved.
        xi: how far along it the gradient is taken, for images without trust.
        lambda_adversarial: weight of the noisy features of labelled and trusted images.
        lambda_uncertain: weight of the agreement.
        window: pseudo-losses that are scaled together, those of the batch among them.

    Raises:
        ValueError: for an argument out of its range; the message names it.
    """

    supports = ("classification",)

    def __init__(
        self,
        warmup_share: float = 0.2,
        temperature: float = 0.05,
        threshold: float = 0.7,
        iterations: int = 8,
        xi: float = 1e-3,
        lambda_adversarial: float = 0.3,
        lambda_uncertain: float = 0.1,
        window: int = 96,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.warmup_share, self.temperature, self.threshold = warmup_share, temperature, threshold
        self.iterations, self.xi, self.window = iterations, xi, window
        self.lambda_adversarial, self.lambda_uncertain = lambda_adversarial, lambda_uncertain
        if not is_number(warmup_share) or not 0 < warmup_share < 1:
            raise ValueError(f"`warmup_share` must be between 0 and 1, found {warmup_share!r}.")
        if not is_number(xi) or not 0 < xi < math.inf:
            raise ValueError(f"`xi` must be a positive number, found {xi!r}.")
        check_not_negative(self, "lambda_adversarial", "lambda_uncertain")
        check_whole("iterations", iterations, 1)
        self.warmup_steps = math.floor(warmup_share * self.total_steps)
        self.contrast_loss = ViewContrastiveLoss(temperature)
        self.mixture = LossMixture(window=window, threshold=threshold, name="mixture")
        self.build_networks()

    @property
    def loss_weights(self) -> dict[str, Any]:
        """Of the warm-up, then of what follows it; where nothing can be trusted, the labelled mean by its own name."""
        warm, behind = 1.0 - self._behind, self._behind
        none = float(self.pseudo_labels == "method" and self.threshold >= 1)
        return {
            "label_supervised": warm + none * behind / 2,
            "label_contrast": warm,
            "label_trusted": (1.0 - none) * behind,
            "label_adversarial": self.lambda_adversarial * behind,
            "label_uncertain": self.lambda_uncertain * behind,
        }

    @property
    def _behind(self) -> Any:
        """1 behind the warm-up, else 0."""
        return ops.cast(self.step >= self.warmup_steps, "float32")

    @property
    def selects(self) -> bool:
        """Whether the warm-up is over."""
        return bool(ops.convert_to_numpy(self._behind))

    def terms(self, labeled: View, unlabeled: View) -> Losses:
        """Of the warm-up both labelled views and the contrast; of what follows labels, trusted ones too, and noise."""
        strong, strong_labeled = (self.strong(self.weak(view)) for view in (unlabeled, labeled))
        on_labeled_1, on_labeled, on_1, on_2 = outputs = self.run(strong_labeled, labeled, strong, unlabeled)
        z_1, z_2 = on_1["label_logits"], on_2["label_logits"]
        known, inside = (inside_of("label", view) for view in (labeled, unlabeled))
        losses, valid = cross_entropies(labeled.labels, on_labeled["label_logits"])
        self.mixture.update(losses, valid * (1.0 - self._behind))
        posterior = self._judged(z_2, z_1, inside)[1]
        pseudo = self.pseudo("label", unlabeled, z_2, z_1)
        pseudo = pseudo._replace(kept=self._behind * pseudo.kept)
        other = self.pseudo("label", strong, hard_labels(z_1))
        # Crossed: the first view learns the label of the second.
        labels = ops.concatenate([labeled.labels, labeled.labels, pseudo.labels, other.labels])
        logits, features = (ops.concatenate([each[name] for each in outputs]) for name in ("label_logits", "pooled"))
        trusted = ops.concatenate([ops.ones_like(valid), ops.ones_like(valid), pseudo.kept, pseudo.kept])
        pairs, doubtful = ops.stack([on_1["pooled"], on_2["pooled"]]), inside * (1.0 - pseudo.kept)
        head = self.network.network.label_head.kernel, self.network.network.label_head.bias
        noise = self.normal(ops.shape(features)), self.normal(ops.shape(pairs))
        away = trusted_directions(features, labels, trusted, *head, noise[0], self.iterations)
        apart = uncertain_directions(pairs, doubtful, *head, noise[1], self.iterations, self.xi)
        supervised = [self.supervised(labeled, each)["label_supervised"] for each in (on_labeled_1, on_labeled)]
        terms = {
            "label_supervised": supervised[0] + supervised[1],
            "label_contrast": self.contrast_loss(
                *(ops.concatenate([each["pooled"] for each in outputs[view::2]]) for view in (0, 1)),
                ops.concatenate([known, inside]),
            ),
            "label_trusted": masked_cross_entropy(labels, logits, trusted),
            "label_adversarial": trusted_adversarial_loss(features, labels, trusted, *head, away),
            "label_uncertain": uncertain_loss(pairs, doubtful, *head, apart),
        }
        mixture = self.mixture.mixture
        figures = {
            "label_posterior": Share(ops.sum(inside * posterior), ops.sum(inside)),
            "mixture_low_share": mixture.weights[0],
            "mixture_low_mean": mixture.means[0],
            "mixture_high_mean": mixture.means[1],
        }
        return Losses(terms, {"label": pseudo}, figures)

    def _judged(self, logits: Any, other: Any, inside: Any) -> tuple[Any, Any, Any]:
        """Pseudo-losses of the first and the second view, the posterior of each image, and whether it is trusted."""
        losses = pseudo_losses(other, logits).losses
        return losses, *self.mixture(self.mixture.scale(losses, inside))

    def select(self, head: str, logits: Any, inside: Any, other: Any = None, training: bool = False) -> PseudoLabels:
        """The weak view's labels, kept where both views make the image trusted; `other` is the strong view's logits."""
        del head
        losses, _, trusted = self._judged(logits, logits if other is None else other, inside)
        if training:
            self.mixture.remember(losses, inside * self._behind)
        return hard_labels(logits, inside)._replace(kept=inside * trusted * self._behind)

    def label(self, view: Any, other: Any = None) -> dict[str, PseudoLabels]:
        """As in the base class; `other` is the strong view, without which the weak one stands for both."""
        view, none = self.as_view(view), self.network.without_heads()
        looks = [forward(self.network, (each,), none, False, {})[0] for each in (view, other) if each is not None]
        return self.selected(view, *looks)

    def after_step(self) -> None:
        """Counts the step; where it was the last of the warm-up, fits the mixture."""
        super().after_step()
        self.mixture.fit(self.step == self.warmup_steps)
