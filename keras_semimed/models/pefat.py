"""PEFAT: losses of labelled images tell which pseudo-labels to trust; the others get noise on their features."""

from __future__ import annotations

import warnings
from typing import Any

import keras
from keras import ops

from keras_semimed.configuration import check_not_negative, check_whole, is_number
from keras_semimed.layers.loss_mixture import LossMixture
from keras_semimed.layers.pseudo_labels import PseudoLabels, hard_labels
from keras_semimed.layers.views import IGNORE
from keras_semimed.losses import ViewContrastiveLoss, pseudo_losses
from keras_semimed.losses import feature_adversarial as noise
from keras_semimed.losses.cross_entropy import cross_entropies
from keras_semimed.models.batches import inside_of
from keras_semimed.models.health import Share
from keras_semimed.models.semi_supervised import Losses, SemiSupervisedModel
from keras_semimed.models.view import View


@keras.saving.register_keras_serializable(package="keras_semimed")
class PEFAT(SemiSupervisedModel):
    """Pseudo-labels of two views, trusted where each view's loss with the other's label is like that of a true label.

    Zeng et al., "PEFAT: Boosting Semi-supervised Medical Image Classification via Pseudo-loss Estimation and Feature
    Adversarial Training", CVPR 2023. Two views: strong, and weak of another geometry. First a warm-up, `supervised +
    contrast`; at its end a mixture is fitted, once, to the losses of labelled images. Then `trusted +
    lambda_adversarial adversarial + lambda_uncertain uncertain`: labels and trusted pseudo-labels, the same with noise
    on the pooled features, and of all other images the agreement of one view with the other's noisy features.

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
        check_not_negative(self, "xi", "lambda_adversarial", "lambda_uncertain")
        check_whole("iterations", iterations, 1)
        self.contrast_loss = ViewContrastiveLoss(temperature)
        self.mixture = LossMixture(window=window, threshold=threshold, name="mixture")
        self._trusts = self.pseudo_labels == "truth" or threshold < 1  # any image at all
        self.warmup_steps = int(warmup_share * self.total_steps)
        if self._trusts and not self.warmup_steps:
            warnings.warn(
                f"`warmup_share`={warmup_share:g} of total_steps={self.total_steps} is no step: the mixture, which is "
                "fitted when the warm-up ends, never is, and the posterior of every image is 1/2; give more of one",
                stacklevel=2,
            )
        self.build_networks()

    @property
    def loss_weights(self) -> dict[str, Any]:
        """Of the warm-up, then of what follows it; where nothing can be trusted, the labelled mean by its own name."""
        warm = 1.0 - self._after
        return {
            "label_supervised": warm if self._trusts else warm + self._after / 2,
            "label_contrast": warm,
            "label_trusted": self._after if self._trusts else 0.0,
            "label_adversarial": self._after * self.lambda_adversarial,
            "label_uncertain": self._after * self.lambda_uncertain,
        }

    @property
    def _after(self) -> Any:
        """1 after the warm-up, else 0."""
        return ops.cast(self.step >= self.warmup_steps, "float32")

    @property
    def selects(self) -> bool:
        """Whether a step since the warm-up has chosen what to trust."""
        return self._trusts and int(ops.convert_to_numpy(self.step)) > self.warmup_steps

    def terms(self, labeled: View, unlabeled: View) -> Losses:
        """Of the warm-up both labelled views and the contrast; of what follows labels, trusted ones too, and noise."""
        strong, strong_labeled = (self.strong(self.weak(view)) for view in (unlabeled, labeled))
        _, on_labeled, on_1, on_2 = outputs = self.run(strong_labeled, labeled, strong, unlabeled)
        known, inside = (inside_of("label", view) for view in (labeled, unlabeled))
        losses, valid = cross_entropies(labeled.labels, on_labeled["label_logits"])
        self.mixture.update(losses, valid * (1.0 - self._after))
        own, posterior = self._judged(on_2["label_logits"], on_1["label_logits"], inside, training=True)
        pseudo = self.pseudo("label", unlabeled, own)
        other = self.pseudo("label", strong, hard_labels(on_1["label_logits"]))
        # Images of the warm-up do not count. Crossed: the first view learns the label of the second.
        pseudo = pseudo._replace(kept=self._after * pseudo.kept, inside=self._after * pseudo.inside)
        crossed = [ops.where(pseudo.kept > 0, each.labels, IGNORE) for each in (pseudo, other)]
        labels = ops.concatenate([labeled.labels, labeled.labels, *crossed])
        logits, pooled = ([each[name] for each in outputs] for name in ("label_logits", "pooled"))
        head = self.network.network.label_head.kernel, self.network.network.label_head.bias
        rows = ops.concatenate(pooled), labels, ops.ones_like(labels), *head
        pairs = ops.stack(pooled[2:]), inside * (1.0 - pseudo.kept), *head
        away = noise.trusted_directions(*rows, self.normal(ops.shape(rows[0])), self.iterations)
        apart = noise.uncertain_directions(*pairs, self.normal(ops.shape(pairs[0])), self.iterations, self.xi)
        terms = {
            "label_supervised": sum(self.supervised(labeled, each)["label_supervised"] for each in outputs[:2]),
            "label_contrast": self.contrast_loss(*map(ops.concatenate, (pooled[::2], pooled[1::2], [known, inside]))),
            "label_trusted": self.label_criterion(labels, ops.concatenate(logits)),
            "label_adversarial": noise.trusted_adversarial_loss(*rows, away),
            "label_uncertain": noise.uncertain_loss(*pairs, apart),
        }
        shares, means, _ = self.mixture.mixture
        figures = {"mixture_low_share": shares[0], "mixture_low_mean": means[0], "mixture_high_mean": means[1]}
        figures["label_posterior"] = Share(ops.sum(inside * posterior), ops.sum(inside))
        return Losses(terms, {"label": pseudo}, figures)

    def _judged(self, logits: Any, other: Any, inside: Any, training: bool) -> tuple[PseudoLabels, Any]:
        """The weak view's labels, kept where both views make an image trusted, and the posterior."""
        losses = pseudo_losses(other, logits).losses
        posterior, trusted = self.mixture(self.mixture.scale(losses, inside))
        if training:
            self.mixture.remember(losses, inside * self._after)
        return hard_labels(logits, inside)._replace(kept=inside * trusted * self._after), posterior

    def select(self, head: str, logits: Any, inside: Any, other: Any = None, training: bool = False) -> PseudoLabels:
        """Labels of the weak view; `other` is the strong view's logits, without which the weak ones stand for both."""
        return self._judged(logits, logits if other is None else other, inside, training)[0]

    def label(self, view: Any, other: Any = None) -> dict[str, PseudoLabels]:
        """As in the base class; `other` is the strong view, without which the weak one stands for both."""
        view = self.as_view(view)
        looks = [self.run(each, training=False)[0] for each in (view, other) if each is not None]
        return self.selected(view, *looks)

    def after_step(self) -> None:
        """Counts the step; where it was the last of the warm-up, fits the mixture."""
        super().after_step()
        self.mixture.fit(self.step == self.warmup_steps)
