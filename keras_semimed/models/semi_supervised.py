"""The base class: what every semi-supervised method shares, around one hook in which a method reads like its paper."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_semimed import backend
from keras_semimed.layers.pseudo_labels import PseudoLabels, hard_labels
from keras_semimed.losses import masked_cross_entropy
from keras_semimed.losses.reductions import one_hot_and_valid
from keras_semimed.metrics import BalancedAccuracy, Dice
from keras_semimed.models import batches
from keras_semimed.models.checks import checked_inputs, checked_targets, refuse
from keras_semimed.models.entry_points import EntryPoints
from keras_semimed.models.figures import EpochFigures
from keras_semimed.models.health import Share, share_by_class
from keras_semimed.models.inference import HEADS
from keras_semimed.models.passes import forward
from keras_semimed.models.scores import update_known
from keras_semimed.models.view import LazyView, Source, View


class Losses(NamedTuple):
    """What a method makes of a batch.

    Attributes:
        terms: unweighted, by name: float32 scalars; `loss_weights` has the same names.
        pseudo: the pseudo-labels that were learnt from, by head: the shares of them that are kept get reported.
        figures: what else is worth reporting, by name: scalars, or `Share`s.
        labeled: logits of the labelled views, for the training's Dice and accuracy; left out: those of the first `run`
            that held the labelled view by itself; to be given where labelled and unlabelled views went in as one
            (`View.joined`).
    """

    terms: Mapping[str, Any]
    pseudo: Mapping[str, PseudoLabels] = {}
    figures: Mapping[str, Any] = {}
    labeled: Mapping[str, Any] = {}


class SemiSupervisedModel(EntryPoints):
    """Trains a network on labelled and unlabelled images with plain `compile` and `fit`.

    `fit` takes batches `({"labeled": (B, H, W, C), "unlabeled": (U, H, W, C)}, {"mask": (B, H, W), "label": (B,)})`
    of images in 0..255; the views are made inside the compiled step. The inputs may also hold `"labeled_area"` `(B, 4)`
    and `"unlabeled_area"` `(U, 4)`, top, left, bottom, right of what is no padding, in pixels, and `"unlabeled_strong"`
    `(U, H, W, C)`, a strong view made on the host. `predict`, `evaluate` and `validation_data` take plain images
    `(N, H, W, C)`, which are scored by the supervised cross-entropy and metrics only.

    A method subclasses it: it calls `build_networks` at the end of its `__init__` and implements `loss_weights` and
    `terms`; where it has pseudo-labels, `select` is its rule for them, and `label` what it would label images with.
    """

    fixed_threshold: float | None = None
    """A threshold that the method's own are shown beside, where it has one."""

    def build_networks(self) -> None:
        """Makes students, teachers and trackers, so that the model is built when it is made."""
        super().build_networks()
        # In a plain object: Keras would track, and so copy, the tuples among the attributes.
        self._pass = SimpleNamespace(labeled=None, outputs=None)
        self.epoch_figures = EpochFigures(capacity=64 + 8 * (self.num_classes + self.num_labels))
        self.supervised_metrics = {
            "dice": Dice(self.num_classes, name="dice"),
            "accuracy": keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
            "balanced_accuracy": BalancedAccuracy(self.num_labels),
        }

    def run(self, *views: Any, **arguments: Any) -> list[dict[str, Any]]:
        """As in `Passes`; what the labelled view gives first is what training's Dice and accuracy are of."""
        found = super().run(*views, **arguments)
        for view, outputs in zip(views, found, strict=True):
            if view is self._pass.labeled and self._pass.outputs is None:
                self._pass.outputs = outputs
        return found

    def weak(self, view: Any) -> View:
        """Another geometry of the same images.

        Raises:
            ValueError: for a view that was mixed, rolled, joined or made by hand, which has no source.
        """
        if view.source is None:
            raise ValueError(
                "this view has no source to draw again; take another draw of one of the batch's own views."
            )
        return self._drawn(view.source)

    def strong(self, view: Any, host: bool = True) -> View:
        """The same geometry in other colours; a strong view that was made on the host first, where there is one.

        Args:
            view: a view.
            host: False: colours of the layer `views` in any case, for a second strong view.
        """
        made = view.source.strong if host and view.source is not None else None
        images = self.views.strong(view.images) if made is None else self.views.weak(made, view.geometry)
        return View(images, view.inside, view.masks, view.labels, view.geometry, view.source)

    def _drawn(self, source: Source) -> View:
        """A weak view of a half of the batch."""
        shape = ops.shape(source.images)
        geometry = self.views.draw(shape[0], shape[1], shape[2])
        visible = self.views.visible(geometry, shape[1], shape[2], source.area)
        return View(
            self.views.weak(source.images, geometry),
            ops.cast(visible, "float32"),
            None if source.masks is None else self.views.mask(source.masks, geometry),
            None if source.labels is None else ops.reshape(ops.cast(source.labels, "int32"), (-1,)),
            geometry,
            source,
        )

    def select(self, head: str, logits: Any, inside: Any, other: Any = None, training: bool = False) -> PseudoLabels:
        """The method's rule: pseudo-labels of logits, and which of them count. Here: all of them.

        Args:
            head: `"mask"` or `"label"`.
            logits: `(N, S, S, K)` or `(N, C)`.
            inside: `(N, S, S)` or `(N,)`, 0 where there is no image.
            other: logits of a second view of the same images, for methods that look at both.
            training: whether state such as running thresholds moves with this batch.
        """
        del head, other, training
        return hard_labels(logits, inside)

    def pseudo(self, head: str, view: Any, logits: Any, other: Any = None) -> PseudoLabels:
        """The pseudo-labels to learn from: `select` in training, or the truth where the oracle is asked for.

        Args:
            head: `"mask"` or `"label"`.
            view: the view that they belong to.
            logits: what `select` takes, or finished `PseudoLabels`.
            other: as in `select`.
        """
        if self.pseudo_labels == "truth":
            return self.truth(head, view)
        if isinstance(logits, PseudoLabels):
            return logits
        return self.select(head, logits, batches.inside_of(head, view), other, training=True)

    def truth(self, head: str, view: Any) -> PseudoLabels:
        """The true targets of a view as pseudo-labels that are sure; what is unknown is not kept."""
        return batches.true_labels(head, view, self.num_classes if head == "mask" else self.num_labels)

    def label(self, view: Any, other: Any = None) -> dict[str, PseudoLabels]:
        """What the method would label these images with now, by head; no state and no random stream moves.

        Args:
            view: a weak view of the images, or the images as they are, `(N, H, W, 1 or 3)` in 0..255.
            other: a strong view of them, for methods that look at two; whoever asks makes it.
        """
        del other
        view = self.as_view(view)
        network, arguments = self.labeler, self.inference_arguments(view.images)
        (outputs,) = forward(network, (view,), network.without_heads(), False, arguments)
        return self.selected(view, outputs)

    def as_view(self, images: Any) -> View | LazyView:
        """A view as it is; of images as they are, which are looked at, a view that shows nothing but image.

        Raises:
            ValueError: for images of another shape, or values that are not in 0..255.
        """
        if not isinstance(images, View | LazyView):
            images = ops.cast(self._look_at(images), "float32")
        return batches.as_view(images)

    def selected(
        self, view: Any, outputs: Mapping[str, Any], other: Mapping[str, Any] | None = None
    ) -> dict[str, PseudoLabels]:
        """`select` for each head that `outputs` has logits of, with their probabilities, no state moved."""
        found = {}
        for head in HEADS:
            name = f"{head}_logits"
            if name in outputs:
                second = None if other is None else other[name]
                labels = self.select(head, outputs[name], batches.inside_of(head, view), second)
                if labels.probabilities is None:
                    labels = labels._replace(probabilities=ops.softmax(ops.cast(outputs[name], "float32")))
                found[head] = labels
        return found

    def label_variants(self, view: Any, other: Any = None) -> dict[str, PseudoLabels]:
        """The pseudo-masks under each way to select them, to be looked at side by side; none without masks.

        Here `"none"`, without any selection, and `"kept"`, as `label` has them; a method with several tests gives each
        of them (`SELECTIONS` in `keras_semimed.evaluation.pseudo_masks` has their titles).

        Args:
            view: as in `label`.
            other: as in `label`.
        """
        if not self.segments:
            return {}
        kept = self.label(view, other)["mask"]
        return {"none": kept._replace(kept=kept.inside), "kept": kept}

    @property
    def selects(self) -> bool:
        """Whether pseudo-labels are being selected at this step."""
        return not self.supervised_only

    @property
    def supervised_only(self) -> bool:
        """Whether the unlabelled images are never looked at."""
        return False

    @property
    def progress(self) -> Any:
        """Float32 scalar: the share of `total_steps` that is done, at most 1."""
        return ops.minimum(ops.cast(self.step, "float32") / self.total_steps, 1.0)

    def ramp(self, start: int, length: int) -> Any:
        """0 before the step `start`, then linearly to 1 over `length` steps."""
        done = ops.cast(self.step - start + 1, "float32")
        return ops.clip(done / max(length, 1), 0.0, 1.0)

    @property
    def loss_weights(self) -> dict[str, Any]:
        """Weight of each term in the loss, by name: a number, or a scalar tensor that depends on the step."""
        raise NotImplementedError(
            f"{type(self).__name__} must have the property `loss_weights`: the weight of each term."
        )

    def by_task(self, weights: Mapping[str, Any], mask: float, label: float) -> dict[str, Any]:
        """Weights of `mask_NAME` and `label_NAME` for each name; where both tasks are learnt, times their factors."""
        factors = {"mask": mask, "label": label}
        return {
            f"{head}_{name}": factors[head] * weight if self.tasks == "both" else weight
            for head in self.learnt_heads
            for name, weight in weights.items()
        }

    def terms(self, labeled: View, unlabeled: View) -> Losses:
        """The method: from the weak views of both halves of the batch, with their targets, to the terms of its loss."""
        raise NotImplementedError(
            f"{type(self).__name__} must implement `terms(labeled, unlabeled)`, which gives `Losses`."
        )

    def supervised(self, view: View, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """`mask_supervised` and `label_supervised` of the tasks that are learnt; 0 where a target is missing."""
        terms = {}
        if self.segments:
            known = view.masks is not None
            terms["mask_supervised"] = (
                self.mask_criterion(view.masks, outputs["mask_logits"]) if known else ops.zeros(())
            )
        if self.classifies:
            known = view.labels is not None
            terms["label_supervised"] = (
                self.label_criterion(view.labels, outputs["label_logits"]) if known else ops.zeros(())
            )
        return terms

    def label_criterion(self, labels: Any, logits: Any) -> Any:
        """Mean cross-entropy of labelled images, each times the factor of its class (`label_weights`)."""
        factors = self.factors_of(labels)
        return masked_cross_entropy(labels, logits, factors, normalize="valid" if factors is None else "all")

    def factors_of(self, labels: Any) -> Any:
        """The factor of each image's class, 0 where it is unknown. Shape: `(N,)`; None without `label_weights`."""
        if self.label_factors is None:
            return None
        one_hot, _ = one_hot_and_valid(labels, self.num_labels)
        return ops.matmul(one_hot, self.label_factors.value)

    def training_views(self, x: Mapping[str, Any], y: Mapping[str, Any]) -> tuple[View, Any]:
        """The weak views of a batch; the unlabelled one is drawn when it is first used."""
        labeled, unlabeled = batches.sources(x, y, self.pseudo_labels == "truth", self.learnt_heads)
        sizes = [ops.shape(source.images)[0] for source in (labeled, unlabeled)]
        if all(isinstance(size, int) for size in sizes):  # TensorFlow may not know them
            self.check_batch(*sizes)
        self._pass.labeled, self._pass.outputs = self._drawn(labeled), None
        return self._pass.labeled, LazyView(unlabeled, self._drawn)

    def call(self, inputs: Any, training: bool | None = None) -> dict[str, Any]:
        """Probabilities for plain images; in training nothing, because there everything happens in `compute_loss`."""
        if isinstance(inputs, dict):
            if training:
                return {}
            inputs = inputs["labeled"]
        return self.infer(inputs)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Weighted sum of the terms, and what regularizes weights, in training; in evaluation the cross-entropy."""
        refuse({"sample_weight": sample_weight})
        if not training:
            return batches.evaluation_loss(checked_targets(y, self.learnt_heads), y_pred)
        labeled, unlabeled = self.training_views(checked_inputs(x), checked_targets(y, self.learnt_heads))
        try:
            losses = self.terms(labeled, unlabeled)
            seen = losses.labeled or self._pass.outputs or {}
        finally:  # nothing of a traced step is kept
            self._pass.labeled = self._pass.outputs = None
        weights = self.loss_weights
        if weights.keys() != losses.terms.keys():
            raise ValueError(
                f"{type(self).__name__}: `terms` gives {sorted(losses.terms)}, `loss_weights` has {sorted(weights)}; "
                "they must have the same names."
            )
        total = ops.zeros(())
        for name, weight in weights.items():
            total = total + weight * losses.terms[name]
        penalties = self._penalties()
        for value in penalties.values():
            total = total + value
        figures = {**losses.terms, **penalties, **self._shares(losses.pseudo), **losses.figures}
        self.epoch_figures.update_state(figures)
        self._update_metrics(labeled, seen)
        return total

    def _penalties(self) -> dict[str, Any]:
        """`regularization`, what `kernel_regularizer` and its like ask for, where a layer has any.

        Not `losses`, which on JAX are those of a forward pass that is not this one.
        """
        found = [variable.regularizer(variable.value) for variable in self.trainable_variables if variable.regularizer]
        return {"regularization": sum(found)} if found else {}

    def _shares(self, pseudo: Mapping[str, PseudoLabels]) -> dict[str, Share]:
        """The share of the pseudo-labels that is kept, of all and of each class."""
        shares: dict[str, Share] = {}
        for head, labels in pseudo.items():
            name, count = f"{head}_selected", self.num_classes if head == "mask" else self.num_labels
            shares[name] = Share(ops.sum(labels.kept), ops.sum(labels.inside))
            shares |= share_by_class(name, labels.kept, labels.labels, labels.inside, count)
        return shares

    def _update_metrics(self, view: View, outputs: Mapping[str, Any]) -> None:
        for head, truth in (("mask", view.masks), ("label", view.labels)):
            if truth is not None and f"{head}_logits" in outputs:
                logits = ops.cast(ops.stop_gradient(outputs[f"{head}_logits"]), "float32")
                self._update_scores(head, truth, ops.softmax(logits))

    def _update_scores(self, head: str, truth: Any, probabilities: Any) -> None:
        for metric in self._metrics_of(head).values():
            update_known(metric, truth, probabilities)
        self.scores.update(head, truth, probabilities)

    def _metrics_of(self, head: str) -> dict[str, keras.metrics.Metric]:
        names = ("dice",) if head == "mask" else ("accuracy", "balanced_accuracy")
        return {name: self.supervised_metrics[name] for name in names}

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Loss, Dice and accuracy of the heads there are; in training also terms and figures."""
        del sample_weight
        y = checked_targets(y, self.learnt_heads)
        training = isinstance(x, dict) and not y_pred
        results = {"loss": self._loss_tracker.result()}
        known = [head for head in self.learnt_heads if head in y]
        for head in known:
            if not training:
                self._update_scores(head, y[head], y_pred[head])
            results |= {name: metric.result() for name, metric in self._metrics_of(head).items()}
        results |= self.scores.results(known)
        return {**results, **self.epoch_figures.result()} if training else results

    def train_step(self, *args: Any) -> Any:
        """Keras' step, then `after_step`; in float16 a step that overflows leaves what runs along as it was, too."""
        kept = self.running_state if keras.backend.standardize_dtype(self.compute_dtype) == "float16" else []
        return backend.run_step(self, super().train_step, args, kept)

    def after_step(self) -> None:
        """Moves the teachers behind the updated network and counts the step."""
        self.move_teachers()
        self.step.assign(self.step + 1)
