"""The base class: what every semi-supervised method shares, in two Keras hooks."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_semimed import backend
from keras_semimed.layers.views import IGNORE, WeakStrongViews
from keras_semimed.losses.reductions import one_hot_and_valid
from keras_semimed.metrics import Dice
from keras_semimed.models.health import SelectionWarning, Share
from keras_semimed.networks.encoders import check_image_size


class SemiSupervisedModel(keras.Model):
    """Trains a network on labelled and unlabelled images with plain `compile` and `fit`.

    `fit` takes batches `({"labeled": (B, H, W, C), "unlabeled": (U, H, W, C)}, {"mask": (B, H, W), "label": (B,)})`
    of images in 0..255; the views are made inside the compiled step. The inputs may also hold `"unlabeled_area"`
    `(U, 4)`, top, left, bottom, right of what is no padding, in pixels, and `"unlabeled_strong"` `(U, H, W, C)`, a
    strong view made on the host. `predict`, `evaluate` and `validation_data` take plain images `(N, H, W, C)` and see
    the supervised loss and metrics only.

    A method subclasses it, calls `_attach` at the end of its `__init__` and implements `training_outputs`,
    `loss_terms` and `infer`. It declares `term_names` (what `loss_terms` returns; the weights are
    `loss_weights`) and `health_names` (what it reports beside them).

    Args:
        num_classes: number of mask classes, background included.
        image_size: side of the square views that the network is trained on, in pixels, a multiple of `image_multiple`.
        total_steps: length of the run; it drives thresholds and learning rates, clamped after its end.
        teacher_momentum: keep a teacher, the exponential moving average of the network with this momentum
            (its first steps average all of them). None: no teacher.
        views: arguments of `WeakStrongViews` (a dict), such a layer, or None for its defaults.
        seed: seed of the random state, which is part of the weights.
        teacher_statistics: BatchNorm statistics of the teacher: `"average"`, the moving average of the network's, or
            `"own"`, those that its averaged weights give on the images that it labels, which it then labels with the
            statistics of the batch.

    Raises:
        ValueError: if the image size is no multiple of `image_multiple`, or another number is out of range.
    """

    term_names: tuple[str, ...] = ()
    health_names: tuple[str, ...] = ()
    image_multiple = 32
    """What the side of the views must be a multiple of."""

    def __init__(
        self,
        num_classes: int,
        image_size: int,
        total_steps: int,
        teacher_momentum: float | None = None,
        views: dict | WeakStrongViews | None = None,
        seed: int = 0,
        teacher_statistics: str = "average",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_image_size(image_size, self.image_multiple)
        if not 2 <= num_classes <= IGNORE:
            raise ValueError(
                f"`num_classes` must be 2 to {IGNORE}, background included; mask value {IGNORE} is no class, it is "
                f"ignored. Received: {num_classes}."
            )
        if total_steps < 1:
            raise ValueError(f"`total_steps` must be at least 1. Received: {total_steps}.")
        if teacher_momentum is not None and not 0 <= teacher_momentum < 1:
            raise ValueError(f"`teacher_momentum` must be in [0, 1) or None. Received: {teacher_momentum}.")
        if teacher_statistics not in ("average", "own"):
            raise ValueError(f"`teacher_statistics` must be 'average' or 'own'. Received: {teacher_statistics!r}.")
        self.teacher_statistics = teacher_statistics
        self.num_classes = num_classes
        self.image_size = image_size
        self.total_steps = total_steps
        self.teacher_momentum = teacher_momentum
        self.seed = seed
        if isinstance(views, dict) and "class_name" in views:
            views = keras.saving.deserialize_keras_object(views)
        if not isinstance(views, WeakStrongViews):
            views = WeakStrongViews(**{"image_size": image_size, "seed": seed, **(views or {})})
        if views.image_size != image_size:
            raise ValueError(
                f"`views` of {views.image_size} pixels do not fit `image_size` {image_size}; leave it out."
            )
        self.views = views
        self.step = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False, name="step")
        self.network: keras.layers.Layer
        self.teacher: keras.layers.Layer | None = None
        self._use_teacher = teacher_momentum is not None

    def _attach(self, build_network: Any) -> None:
        """Builds network and teacher, and the trackers, so that the model is built when it is made.

        Args:
            build_network: callable without arguments that returns the network, called once more for a teacher.
        """
        self.network = self._built(build_network())
        if self.teacher_momentum is not None:
            self.teacher = self._built(build_network())
            self.teacher.set_weights(self.network.get_weights())
            # Not `teacher.trainable`, which would keep BatchNorm from using the statistics of a batch.
            for variable in self.teacher.variables:
                variable.trainable = False
        self.term_trackers = {name: keras.metrics.Mean(name=name) for name in (*self.term_names, *self.health_names)}
        self.supervised_metrics = {
            "dice": Dice(self.num_classes, name="dice"),
            "accuracy": keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
        }
        self.built = True

    def _built(self, network: keras.layers.Layer) -> keras.layers.Layer:
        images = keras.KerasTensor((1, self.image_size, self.image_size, 3), dtype="float32")
        network(images, **self.build_arguments)
        return network

    build_arguments: dict[str, Any] = {}

    @property
    def use_teacher(self) -> bool:
        """Whether `predict` and `evaluate` use the teacher's weights (the default where there is one)."""
        return self._use_teacher

    @use_teacher.setter
    def use_teacher(self, value: bool) -> None:
        if value and self.teacher is None:
            raise ValueError("`use_teacher` needs a model that was made with `teacher_momentum`.")
        self._use_teacher = bool(value)
        self.predict_function = None
        self.test_function = None

    @property
    def predictor(self) -> keras.layers.Layer:
        """The network whose weights `predict` and `evaluate` use."""
        return self.teacher if self._use_teacher else self.network

    def start_from(self, model: SemiSupervisedModel) -> None:
        """Takes over what a trained model has learnt, so that training goes on with this method.

        Of the parts of the network that both models have, such as encoders and decoder, the weights are copied (the
        teacher's, where the other model predicts with one); the others keep theirs. A teacher starts from the result.

        Args:
            model: a model with the same encoder, widths and classes, for example `Supervised`.

        Raises:
            ValueError: if a part does not fit; the message names it, and nothing is changed.
        """
        pairs: list[tuple[Any, Any]] = []
        others = model.predictor.parts
        for name, layers in self.network.parts.items():
            if name not in others:
                continue
            ours = [variable for layer in layers for variable in layer.variables]
            theirs = [variable for layer in others[name] for variable in layer.variables]
            shapes = [[tuple(variable.shape) for variable in variables] for variables in (ours, theirs)]
            if shapes[0] != shapes[1]:
                different = next(
                    (pair for pair in zip(*shapes, strict=False) if pair[0] != pair[1]), tuple(map(len, shapes))
                )
                raise ValueError(
                    f"`{name}` of the model to start from does not fit ({different[0]} here, {different[1]} there); "
                    "make both with the same encoder, decoder_filters, classes, exchange and saliency_level."
                )
            pairs += zip(ours, theirs, strict=True)
        for variable, value in pairs:
            # A copy: JAX would hand both models' variables the same buffer, which the first step of either frees.
            variable.assign(ops.copy(value.value))
        if self.teacher is not None:
            self.teacher.set_weights(self.network.get_weights())

    @property
    def progress(self) -> Any:
        """Float32 scalar: the share of `total_steps` that is done, at most 1."""
        return ops.minimum(ops.cast(self.step, "float32") / self.total_steps, 1.0)

    @property
    def selects(self) -> bool:
        """Whether pseudo-labels are being selected at this step."""
        return True

    @property
    def loss_weights(self) -> dict[str, float]:
        """Weight of each term in the total loss, by name."""
        return dict.fromkeys(self.term_names, 1.0)

    def teach(self, images: Any, **arguments: Any) -> dict[str, Any]:
        """The teacher's outputs for views to be labelled, without gradient."""
        assert self.teacher is not None
        outputs = self.teacher(images, training=self.teacher_statistics == "own", **arguments)
        return keras.tree.map_structure(ops.stop_gradient, outputs)

    def _strong_view(self, weak: Any, images: dict[str, Any], geometry: dict[str, Any]) -> Any:
        """The strong view of the unlabelled images: one made on the host where there is one, moved like the weak."""
        if "unlabeled_strong" in images:
            return self.views.weak(images["unlabeled_strong"], geometry)
        return self.views.strong(weak)

    def training_outputs(self, images: dict[str, Any]) -> dict[str, Any]:
        """Makes the views and runs the networks on them; what `loss_terms` needs."""
        raise NotImplementedError

    def _weak_view(self, images: Any, area: Any = None) -> tuple[Any, dict[str, Any], Any]:
        """The weak view, its geometry, and `(N, S, S)` with 1 where a pixel lies inside the image (its area)."""
        shape = ops.shape(images)
        geometry = self.views.draw(shape[0], shape[1], shape[2])
        visible = self.views.visible(geometry, shape[1], shape[2], area)
        return self.views.weak(images, geometry), geometry, ops.cast(visible, "float32")

    def loss_terms(self, outputs: dict[str, Any], targets: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns the unweighted terms and the health figures by name: float32 scalars, or a `Share`."""
        raise NotImplementedError

    def inference_arguments(self, images: Any) -> dict[str, Any]:
        """What the network takes in inference besides the images."""
        del images
        return {}

    def inference_network(self, saliency: bool = True) -> keras.layers.Layer:
        """A copy of the predicting network without what only training needs: teacher, banks and projectors.

        Args:
            saliency: False puts zeros in the place of a saliency map, for runtimes that cannot differentiate.

        Returns:
            A layer from images `(N, H, W, 3)` in 0..255 to logits, as a dict as in the network, or of the mask alone.
        """
        return self.predictor.for_inference(saliency=saliency)

    def infer(self, images: Any) -> dict[str, Any]:
        """Returns `{"mask": (N, H, W, K), "label": (N, C)}` probabilities, float32, of the heads there are."""
        outputs = self.predictor(images, **self.inference_arguments(images), training=False)
        return {
            name: ops.softmax(ops.cast(outputs[f"{name}_logits"], "float32"))
            for name in ("mask", "label")
            if f"{name}_logits" in outputs
        }

    def call(self, inputs: Any, training: bool | None = None) -> dict[str, Any]:
        """Training outputs for a dict of labelled and unlabelled images, probabilities for plain images."""
        if isinstance(inputs, dict):
            if training:
                return self.training_outputs(inputs)
            inputs = inputs["labeled"]
        return self.infer(inputs)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Weighted sum of the terms in training, the supervised cross-entropy in evaluation."""
        del sample_weight
        y = _without_channel(y)
        if training and not isinstance(x, dict):
            raise ValueError(
                'fit takes inputs {"labeled": images, "unlabeled": images}, not images alone; see '
                "keras_semimed.data.from_arrays."
            )
        if not training:
            return self._evaluation_loss(y, y_pred)
        terms, health = self.loss_terms(y_pred, y)
        for name, value in (terms | health).items():
            value, weight = (value.value, value.whole) if isinstance(value, Share) else (value, None)
            self.term_trackers[name].update_state(ops.stop_gradient(value), sample_weight=weight)
        weights = self.loss_weights
        total = 0.0
        for name, value in terms.items():
            total = total + weights[name] * value
        return total

    def _evaluation_loss(self, targets: dict[str, Any], probabilities: dict[str, Any]) -> Any:
        total = ops.zeros(())
        for name in probabilities:
            if name not in targets:
                continue
            truth, _ = one_hot_and_valid(targets[name], probabilities[name].shape[-1])
            log_probability = ops.log(ops.clip(ops.cast(probabilities[name], "float32"), 1e-7, 1.0))
            total = total - ops.sum(truth * log_probability) / ops.maximum(ops.sum(truth), 1.0)
        return total

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Loss, terms and health in training; loss, Dice and accuracy of the heads there are in evaluation."""
        del sample_weight
        y = _without_channel(y)
        training = isinstance(x, dict) and "mask" not in y_pred and "label" not in y_pred
        predictions, targets = self.supervised_outputs(y_pred, y) if training else (y_pred, y)
        results = {"loss": self._loss_tracker.result()}
        for name, metric in self.supervised_metrics.items():
            head = "mask" if name == "dice" else "label"
            if head in predictions and head in targets:
                metric.update_state(targets[head], predictions[head])
                results[name] = metric.result()
        if training:
            results |= {name: tracker.result() for name, tracker in self.term_trackers.items()}
        return results

    def supervised_outputs(self, outputs: dict[str, Any], targets: dict[str, Any]) -> tuple[dict, dict]:
        """Probabilities and targets of the labelled part of a training batch, for its metrics."""
        del outputs, targets
        return {}, {}

    def train_step(self, *args: Any) -> Any:
        """Keras' step, then `after_step`."""
        return backend.run_after_step(self, super().train_step(*args))

    def after_step(self) -> None:
        """Moves the teacher behind the updated network and counts the step."""
        if self.teacher is not None:
            count = ops.cast(self.step, "float32") + 1.0
            momentum = ops.minimum(1.0 - 1.0 / count, self.teacher_momentum)
            for teacher, student in zip(self.teacher.variables, self.network.variables, strict=True):
                if self.teacher_statistics == "own" and not student.trainable:
                    continue
                teacher.assign(ops.cast(student + momentum * (teacher - student), teacher.dtype))
        self.step.assign(self.step + 1)

    def default_optimizer(self, **arguments: Any) -> keras.optimizers.Optimizer:
        """Returns the optimizer that `compile()` takes when it is given none."""
        raise NotImplementedError

    def compile(self, optimizer: Any = None, **arguments: Any) -> None:
        """Keras' `compile`; losses are the method's own, and without an optimizer the method's default is taken.

        Args:
            optimizer: any Keras optimizer, or None for `default_optimizer()`.
            arguments: `jit_compile`, `steps_per_execution`, `run_eagerly`, `auto_scale_loss` as in Keras.

        Raises:
            ValueError: if a loss is passed.
        """
        if arguments.get("loss") is not None:
            raise ValueError("`loss` is the method's own here; set its terms' weights when the model is made.")
        super().compile(optimizer=self.default_optimizer() if optimizer is None else optimizer, **arguments)
        # Variables made inside the first step would cost TensorFlow a second trace.
        self.optimizer.build(self.trainable_variables)

    def _check_classes(self, labeled: Any) -> None:
        """Refuses targets that are no classes of this model: one-hot coding would leave them out in silence."""
        masks, labels = getattr(labeled, "masks", None), getattr(labeled, "labels", None)
        if masks is not None and labeled.num_classes > self.num_classes:
            raise ValueError(
                f"the labelled images have {labeled.num_classes} mask classes, the model has num_classes="
                f"{self.num_classes}; make the model with as many."
            )
        num_labels = getattr(self, "num_labels", None)
        if labels is not None and num_labels is not None and labels.max() >= num_labels:
            raise ValueError(
                f"the labelled images have the image class {labels.max()}, the model has classes 0 to "
                f"{num_labels - 1}; make the model with num_labels={labels.max() + 1}."
            )

    def get_compile_config(self) -> dict[str, Any] | None:
        """Keeps optimizer and compile options in a saved model."""
        if not self.compiled:
            return None
        return {
            "optimizer": keras.saving.serialize_keras_object(self.optimizer),
            "jit_compile": self.jit_compile,
            "steps_per_execution": self.steps_per_execution,
        }

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded model, so that training goes on where it stopped."""
        config = dict(config)
        optimizer = keras.saving.deserialize_keras_object(config.pop("optimizer"))
        self.compile(optimizer=optimizer, **config)

    def fit(self, *args: Any, callbacks: list | None = None, **kwargs: Any) -> keras.callbacks.History:
        """Keras' `fit`, batches in the data set's own order (`shuffle=False`).

        Warns when nearly all or nearly none of the pseudo-labels are selected.
        """
        kwargs.setdefault("shuffle", False)
        data = args[0] if args else kwargs.get("x")
        data = getattr(data, "batches", data)  # behind a tf.data pipeline of ours
        self._check_classes(getattr(data, "labeled", None))
        own = [_EpochOfData(data), SelectionWarning()]
        return super().fit(*args, callbacks=[*(callbacks or []), *own], **kwargs)


def _without_channel(targets: dict[str, Any]) -> dict[str, Any]:
    """Masks `(N, H, W, 1)` become `(N, H, W)`."""
    if "mask" in targets and len(targets["mask"].shape) == 4:
        return {**targets, "mask": ops.squeeze(targets["mask"], -1)}
    return targets


class _EpochOfData(keras.callbacks.Callback):
    """Tells a data set that has an `epoch` which one begins; Keras itself looks at batches beforehand."""

    def __init__(self, data: Any) -> None:
        super().__init__()
        self.data = data

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        del logs
        if hasattr(self.data, "epoch"):
            self.data.epoch = epoch
