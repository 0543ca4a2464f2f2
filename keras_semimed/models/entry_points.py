"""What users call: `compile`, `fit`, `evaluate` and `predict`, and what they say before anything goes wrong."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import keras

from keras_semimed import backend
from keras_semimed.models import value_checks
from keras_semimed.models.checks import bound, checked_targets, refuse
from keras_semimed.models.fitting import EpochOfData, TotalStepsWarning, joined
from keras_semimed.models.health import SelectionWarning
from keras_semimed.models.label_weights import BALANCED, balancing
from keras_semimed.models.networked import NetworkedModel
from keras_semimed.models.scores import Scores
from keras_semimed.optimizers import branch_optimizer, encoder_optimizer
from keras_semimed.provenance import Provenance, data_digest


class EntryPoints(NetworkedModel):
    """The entry points of Keras, with every argument either honoured or refused by its name."""

    # In a plain object: Keras would track the metrics once more each time that the model is compiled.
    _compiled_with = SimpleNamespace(metrics=None, auto_scale_loss=True, scores=Scores(None, {}))

    def default_optimizer(self, **arguments: Any) -> keras.optimizers.Optimizer:
        """`encoder_optimizer(total_steps, ...)` for a DeepLab, `branch_optimizer(total_steps, ...)` for the others.

        Args:
            arguments: the optimizer's, before those of the preset.
        """
        deeplab = self.segments and self.given.network == "deeplab"
        make: Callable[..., Any] = encoder_optimizer if deeplab else branch_optimizer
        return make(self.total_steps, **self.optimizer_arguments("encoder" if deeplab else "branch", arguments))

    def optimizer_arguments(self, kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """What was given, and else the preset's, for a `"branch"` or an `"encoder"` optimizer."""
        return {**self.preset_optimizers.get(self.preset, {}).get(kind, {}), **given}

    def compile(
        self,
        optimizer: Any = None,
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        auto_scale_loss: bool = True,
        **arguments: Any,
    ) -> None:
        """Keras' `compile`; losses are the method's own, and without an optimizer the method's default is taken.

        Args:
            optimizer: any Keras optimizer, or None for `default_optimizer()`. With `gradient_accumulation_steps` the
                weights move once in so many steps, but `step` and the teachers at each of them, as the average of
                Keras' `use_ema` does.
            loss: refused.
            loss_weights: refused.
            metrics: `{"mask": [...], "label": [...]}`, or a list for a model that learns one of them: metrics of class
                indices and probabilities, of the labelled images in training and of all in evaluation. They are
                logged as `mask_NAME` and `label_NAME`; pixels and images whose class is unknown do not count.
            weighted_metrics: refused.
            auto_scale_loss: as in Keras.
            arguments: `jit_compile`, `steps_per_execution`, `run_eagerly` as in Keras.

        Raises:
            ValueError: for an argument that is refused, or metrics that do not fit.
        """
        refuse({"loss": loss, "loss_weights": loss_weights, "weighted_metrics": weighted_metrics})
        classes = {"mask": self.num_classes, "label": self.num_labels}
        scores = Scores(metrics, {head: classes[head] for head in self.learnt_heads})
        self.follow_switches()
        # As it was asked for: what "auto" is on one backend would make another one compile what it otherwise does not.
        jit_compile = arguments.get("jit_compile", "auto")
        self._compiled_with = SimpleNamespace(
            metrics=metrics, auto_scale_loss=auto_scale_loss, jit_compile=jit_compile, scores=scores
        )
        optimizer = self.default_optimizer() if optimizer is None else optimizer
        super().compile(optimizer=optimizer, auto_scale_loss=auto_scale_loss, **arguments)
        # Variables made inside the first step would cost TensorFlow a second trace.
        self.optimizer.build(self.trainable_variables)

    @property
    def scores(self) -> Scores:
        """The metrics that the model was compiled with."""
        return self._compiled_with.scores

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Keras' trackers, the method's own, and what the model was compiled with."""
        return [*super().metrics, *(metric for _, metric in self.scores.metrics.values())]

    def get_compile_config(self) -> dict[str, Any] | None:
        """Keeps optimizer and compile options in a saved model."""
        if not self.compiled:
            return None
        return {
            "optimizer": keras.saving.serialize_keras_object(self.optimizer),
            "metrics": keras.saving.serialize_keras_object(self._compiled_with.metrics),
            "auto_scale_loss": self._compiled_with.auto_scale_loss,
            "run_eagerly": self.run_eagerly,
            "jit_compile": self._compiled_with.jit_compile,
            "steps_per_execution": self.steps_per_execution,
        }

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded model, so that training goes on where it stopped."""
        written = backend.portable({name: config[name] for name in ("optimizer", "metrics")})
        objects = {name: keras.saving.deserialize_keras_object(value) for name, value in written.items()}
        self.compile(**{**config, **objects})

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Keras' `fit`, batches in the data set's own order (`shuffle=False`).

        A data set of this package goes on where it stands: ten times one epoch are one time ten. `initial_epoch` moves
        it, and so does a state that a callback restores.

        With `verbose` an epoch is one line, a `ProgressLine`; `callbacks=[keras.callbacks.ProgbarLogger()]` shows all.

        Warns when nearly all or nearly none of the pseudo-labels are selected, and when the run goes on behind
        `total_steps`.

        Raises:
            ValueError: for an argument that cannot be honoured, and for data that the model would learn nothing or
                something wrong from; the message says what to do.
        """
        if not self.compiled:
            raise ValueError("call `compile()` before `fit`; without arguments it takes the method's own optimizer.")
        given = bound(super().fit, args, kwargs)
        refuse(given)
        self._check_devices()
        given["x"] = self._look_at(given.get("x"))
        data = getattr(given["x"], "batches", given["x"])  # behind a tf.data pipeline of ours
        labeled = getattr(data, "labeled", None)
        if labeled is not None:
            self._check_sizes(data, given)
            self.check_batch(data.batch_size, data.unlabeled_batch_size)
            self._check_image_set(labeled, learn=True)
            self.note_data(labeled, data.unlabeled)
        self._check_arrays(given["x"], given.get("y"), whole_set=True)
        self._weigh_labels(labeled.labels if labeled is not None else _of(given.get("y"), "label"))
        if given.get("validation_data") is not None:
            given["validation_data"] = self._examined_for_validation(given["validation_data"])
        own = [EpochOfData(data, given.get("initial_epoch")), SelectionWarning(), TotalStepsWarning()]
        given["callbacks"] = joined(given.get("callbacks"), own, self.optimizer, given.get("verbose", "auto"))
        # Where a callback of an earlier run began: Keras keeps it, and a short run would be over before it begins.
        self._initial_epoch = None
        with backend.state_kept(self):
            return super().fit(**{"shuffle": False, **given})

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Keras' `evaluate`: the supervised loss and the metrics of plain images and their targets.

        Raises:
            ValueError: for an argument that cannot be honoured, images that are not in 0..255 or targets that the model
                does not have.
        """
        if kwargs.get("_use_cached_eval_dataset"):  # `fit` has looked at it
            return super().evaluate(*args, **kwargs)
        given = bound(super().evaluate, args, kwargs)
        refuse(given)
        given["x"], given["y"] = self._examined(given.get("x"), given.get("y"))
        with backend.state_kept(self):
            return super().evaluate(**given)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Keras' `predict`: `{"mask": (N, H, W, K), "label": (N, C)}` probabilities of the heads there are.

        Args:
            x: images `(N, H, W, 1 or 3)` in 0..255, or a data set of them.
            args: as in Keras.
            kwargs: as in Keras.

        Raises:
            ValueError: for images of another shape or range, and for weights or probabilities that are not finite.
        """
        if isinstance(x, Mapping):
            raise ValueError(
                "`predict` takes images (N, H, W, 1 or 3), not the inputs of a training batch; give x['labeled']."
            )
        x = self._look_at(x)
        value_checks.check_weights(self.predictor)
        with backend.state_kept(self):
            outputs = super().predict(x, *args, **kwargs)
        value_checks.check_predictions(outputs)
        return outputs

    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Keras' `train_on_batch`; raises a ValueError as `fit` does."""
        given = bound(super().train_on_batch, args, kwargs)
        refuse(given)
        self._check_devices()
        given["x"] = self._look_at(given["x"])
        self._check_arrays(given["x"], given.get("y"), whole_set=False)
        if self.label_factors is not None and not value_checks.on_host(self.label_factors.value).any():
            self._weigh_labels(None)  # `fit` has not seen any labels
        with backend.state_kept(self):
            return super().train_on_batch(**given)

    def test_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Keras' `test_on_batch`; raises a ValueError as `evaluate` does, except for what only a whole set tells."""
        given = bound(super().test_on_batch, args, kwargs)
        refuse(given)
        given["x"] = self._look_at(given["x"])
        with backend.state_kept(self):
            return super().test_on_batch(**given)

    def predict_on_batch(self, x: Any) -> dict[str, Any]:
        """Keras' `predict_on_batch`; raises a ValueError for images of another shape or range."""
        x = self._look_at(x)
        with backend.state_kept(self):
            return super().predict_on_batch(x)

    def _weigh_labels(self, labels: Any) -> None:
        """Sets the factors of `label_weights="balanced"`."""
        if self.label_weights != BALANCED or self.label_factors is None:
            return
        if labels is None:
            raise ValueError(
                "`label_weights`='balanced' needs the labels of all labelled images before training, which a "
                "generator, tf.data or a single batch does not tell; give a data set of this package, arrays, or the "
                "numbers themselves."
            )
        self.label_factors.assign(balancing(value_checks.on_host(labels), self.num_labels))

    def note_data(self, labeled: Any, unlabeled: Any) -> None:
        """Keeps what is learnt from: how it was read, so that other files can be read alike, and its digest.

        `fit` calls it with the halves of a data set of this package.

        Args:
            labeled: The labelled `ImageSet`.
            unlabeled: The unlabelled one.
        """
        self.provenance = Provenance(len(labeled), len(unlabeled), data_digest(labeled, unlabeled))
        if labeled.rules is None:
            return
        if labeled.rules.image_size != self.image_size:
            warnings.warn(
                f"the images were read with image_size={labeled.rules.image_size}, the model has "
                f"image_size={self.image_size}, so that each view is resized once more; read them with the model's.",
                stacklevel=3,
            )
        self.reading = labeled.rules

    def _check_devices(self) -> None:
        if backend.replicas(self) > 1:
            raise ValueError(
                f"training under a tf.distribute strategy with {backend.replicas(self)} replicas would add up their "
                "gradients and losses; train on one device, or with keras.distribution.DataParallel on JAX."
            )

    @classmethod
    def check_batch(cls, labeled: int, unlabeled: int) -> None:
        """Raises a ValueError for numbers of images in a batch that the method cannot learn from; here: for none."""

    def _check_sizes(self, data: Any, given: dict[str, Any]) -> None:
        for name, where in (("batch_size", "batch_size"), ("steps_per_epoch", "steps_per_epoch")):
            if given.get(name) not in (None, getattr(data, where)):
                raise ValueError(
                    f"`{name}`={given[name]} of `fit` would not be that of the data set, {getattr(data, where)}; make "
                    "the data set with it. Images for validation have their `validation_batch_size`."
                )

    def _check_image_set(self, image_set: Any, learn: bool = False) -> None:
        value_checks.check_image_set(image_set, self.num_classes, self.num_labels, self.learnt_heads, learn)

    def _check_arrays(self, x: Any, y: Any, whole_set: bool) -> None:
        """Targets that are given as arrays, of a batch or of everything that there is to learn from."""
        if not isinstance(x, Mapping) or not isinstance(y, Mapping):
            return  # data sets; what is wrong with either, the step says
        targets = checked_targets(y, self.learnt_heads)
        value_checks.check_targets(
            x.get("labeled"),
            targets,
            self.num_classes,
            self.num_labels,
            self.learnt_heads,
            learn=True,
            whole_set=whole_set,
        )

    def _examined(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Images and targets to be evaluated on, looked at."""
        self._check_image_set(getattr(x, "image_set", None))
        if self.reading is not None:
            self.reading.check_images(getattr(x, "image_set", None))
        x = self._look_at(x)
        if y is not None or hasattr(x, "shape"):
            targets = checked_targets(y, self.learnt_heads)
            value_checks.check_targets(x, targets, self.num_classes, self.num_labels, self.learnt_heads)
        return x, y

    def _look_at(self, x: Any) -> Any:
        """Images, inputs of a batch or a data set, looked at where the network takes pictures."""
        return value_checks.examined(x) if self.network.network.takes_pictures else x

    def _examined_for_validation(self, data: Any) -> Any:
        if not isinstance(data, tuple | list):
            return self._examined(data, None)[0]
        if len(data) > 2:
            refuse({"sample_weight": data[2]})
        return self._examined(data[0], data[1] if len(data) > 1 else None)


def _of(targets: Any, name: str) -> Any:
    return targets.get(name) if isinstance(targets, Mapping) else None
