"""A model with one or several networks, and averages of them: made from arguments, run, saved and predicted with."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, ClassVar, Literal, Self

import keras
from keras import ops

from keras_semimed.configuration import (
    ArgumentWarning,
    arguments_config,
    check_choice,
    check_known,
    check_switches,
    check_whole,
    is_number,
)
from keras_semimed.data.images.rules import ReadingRules
from keras_semimed.layers.random_state import StoredSeedGenerator, add_random_state
from keras_semimed.layers.views import IGNORE, WeakStrongViews
from keras_semimed.losses import DiceLoss, SegmentationLoss, masked_cross_entropy
from keras_semimed.models.inference import HEADS, Inference
from keras_semimed.models.label_weights import BALANCED, checked_label_weights
from keras_semimed.models.passes import Passes
from keras_semimed.models.value_checks import check_added_losses
from keras_semimed.models.variables import LayerGroup, follow_switches, matching_variables, move_average, switches
from keras_semimed.networks.building import build_network
from keras_semimed.networks.contract import Extended, Head, Network
from keras_semimed.networks.encoders import check_image_size, encoder_config
from keras_semimed.provenance import Provenance

NOT_GIVEN = ("frozen_layers", "reading", "provenance")
"""Of a model's configuration, what is no argument of it."""


class NetworkedModel(Inference, Passes, keras.Model):
    """What a model of this package is made of; `SemiSupervisedModel` adds the training.

    Args:
        num_classes: number of mask classes K, background included.
        num_labels: number of image classes C.
        image_size: side of the square views in pixels; for a U-Net a multiple of 32.
        total_steps: length of the run; drives schedules and learning rates, which stand still after its end.
        tasks: `"both"`, `"segmentation"` or `"classification"`; None: all that the method can do.
        network: `"unet"` or `"deeplab"`, for the masks; None: the method's default.
        encoder: name or Keras model, see `keras_semimed.networks.encoder`.
        weights: start weights of the encoders: ImageNet preset, local file or None.
        decoder_filters: channels of the U-Net's blocks, deepest first, or the one width of a DeepLab's decoder; None:
            256, 128, 64, 32, 16, and 256.
        output_stride: stride of a DeepLab's last encoder features: 8, 16 or 32.
        mask_loss: of the labelled masks: `"ce"` (cross-entropy), `"dice"` or `"ce_dice"` (the mean of both); None: the
            method's default.
        label_weights: factor of each image class in the supervised loss, C numbers, or `"balanced"`: N / (C n_c) of the
            labelled images that `fit` is given, so that each class weighs as much. None: 1.
        teacher_momentum: keep a teacher, the exponential moving average of the network with this momentum (its first
            steps average all of them). None: no teacher, or the method's default.
        teacher_statistics: BatchNorm statistics of the teacher: `"average"`, the moving average of the network's, or
            `"own"`, those that its averaged weights give on the images that it labels, which it then labels with the
            statistics of the batch.
        pseudo_labels: `"method"`, or `"truth"`: an oracle, the true targets of the unlabelled images in the place of
            the method's pseudo-labels; the batches must bring them.
        train_encoder: False freezes the encoders, the teacher's with them, before the model is compiled; the same as
            `model.encoder.trainable = False` afterwards, which is saved as this argument.
        views: arguments of `WeakStrongViews` (a dict), such a layer, or None for the method's defaults.
        preset: `"paper"`, or `"small"`: what served tens of labels and a few thousand steps best, of the arguments with
            a star (where the method has any) and of `default_optimizer`; docs/training.md says what was tried.
        seed: seed of the random streams, which are part of the weights.

    Raises:
        ValueError: for an argument out of its range, or one that does not fit the method; the message names it.
    """

    supports: ClassVar[tuple[str, ...]] = ("segmentation", "classification")
    """Tasks that the method can learn."""
    able_networks: ClassVar[tuple[str, ...]] = ("unet", "deeplab")
    default_network: ClassVar[str] = "unet"
    default_mask_loss: ClassVar[str] = "ce_dice"
    default_views: ClassVar[dict[str, Any]] = {}
    students: ClassVar[int] = 1
    teachers: ClassVar[int] = 0
    """Teachers that the method labels with; `teacher_momentum` of any other method asks for one that predicts only."""
    teacher_may_label: ClassVar[bool] = False
    """Whether the method labels with a teacher where `teacher_momentum` asks for one."""
    teacher_predicts: ClassVar[bool] = True
    reading: ReadingRules | None = None
    """How the files were read that it was trained on; set by `fit`, saved, and followed by `keras_semimed.predict`."""
    provenance: Provenance | None = None
    """What it was trained on, set by `fit` and saved; and scored on, where a run or its user says so."""
    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {}, "small": {}}
    """Arguments that a preset fills in, where they are not given."""
    preset_optimizers: ClassVar[dict[str, dict[str, dict[str, Any]]]] = {
        "small": {
            "branch": {"learning_rate": 1e-3, "classifier": "adam"},
            "encoder": {"learning_rate": 1e-3, "optimizer": "adam", "head_factor": 1.0},
        }
    }
    """The same of `branch_optimizer` and `encoder_optimizer`."""

    def __init__(
        self,
        num_classes: int = 2,
        num_labels: int = 2,
        image_size: int = 224,
        total_steps: int = 3000,
        tasks: Literal["both", "segmentation", "classification"] | None = None,
        network: Literal["unet", "deeplab"] | None = None,
        encoder: str | keras.Model = "resnet18",
        weights: str | None = None,
        decoder_filters: int | tuple[int, ...] | None = None,
        output_stride: int = 16,
        mask_loss: Literal["ce", "dice", "ce_dice"] | None = None,
        label_weights: Literal["balanced"] | tuple[float, ...] | None = None,
        teacher_momentum: float | None = None,
        teacher_statistics: Literal["average", "own"] = "average",
        pseudo_labels: Literal["method", "truth"] = "method",
        train_encoder: bool = True,
        views: dict | WeakStrongViews | None = None,
        preset: str = "paper",
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        check_known(type(self), kwargs)
        super().__init__(**kwargs)
        check_whole("num_classes", num_classes, 2)
        check_whole("num_labels", num_labels, 2)
        check_whole("total_steps", total_steps, 1)
        check_whole("seed", seed, 0)
        if num_classes > IGNORE:
            raise ValueError(
                f"`num_classes` must be 2 to {IGNORE}, background included, found {num_classes}; mask value {IGNORE} "
                "is no class, it is ignored."
            )
        if num_labels > IGNORE:
            raise ValueError(
                f"`num_labels` must be 2 to {IGNORE}, found {num_labels}; label {IGNORE} is no class, it is unknown."
            )
        check_whole("image_size", image_size, 1)
        if teacher_momentum is not None and not (is_number(teacher_momentum) and 0 <= teacher_momentum < 1):
            raise ValueError(f"`teacher_momentum` must be in [0, 1) or None, found {teacher_momentum}.")
        if self.teachers and teacher_momentum is None:
            raise ValueError(
                "`teacher_momentum` must be a number in [0, 1), found None; the pseudo-labels of "
                f"{type(self).__name__} are its teacher's."
            )
        check_choice("output_stride", output_stride, (8, 16, 32))
        check_choice("teacher_statistics", teacher_statistics, ("average", "own"))
        labels = (self.teachers or self.teacher_may_label) and teacher_momentum is not None
        if teacher_statistics == "own" and not labels:
            raise ValueError(
                "`teacher_statistics` can be 'own' only where a teacher labels images, whose statistics they are: of a "
                f"method such as MeanTeacher, or Hermes with `teacher_momentum`; {type(self).__name__}'s would stay as "
                "they start. Take 'average'."
            )
        check_choice("pseudo_labels", pseudo_labels, ("method", "truth"))
        check_choice("preset", preset, tuple(self.presets))
        self.num_classes = num_classes
        self.num_labels = num_labels
        self.image_size = image_size
        self.total_steps = total_steps
        self.tasks = self._checked_tasks(tasks)
        self.output_stride = output_stride
        self.mask_loss = self.default_mask_loss if mask_loss is None else mask_loss
        self.mask_criterion = mask_criterion(self.mask_loss)
        self.label_weights = checked_label_weights(label_weights, num_labels, self.classifies)
        self.teacher_momentum = teacher_momentum
        self.teacher_statistics = teacher_statistics
        self.pseudo_labels = pseudo_labels
        self.preset = preset
        self.seed = seed
        self.views = self._made_views(views)
        check_choice("network", network or self.default_network, self.able_networks)
        # In a plain object: Keras would track a model among the attributes, and wrap containers.
        self.given = SimpleNamespace(
            network=self.default_network if network is None else network,
            encoder=encoder,
            weights=weights,
            decoder_filters=decoder_filters,
            train_encoder=train_encoder,
        )
        self.random_state = add_random_state(self, seed + 1)
        self.step = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False, name="step")
        self.label_factors: keras.Variable | None = None
        if self.label_weights is not None:
            # 0 until `fit` has seen the labels.
            self.label_factors = self.add_weight(
                (num_labels,), "zeros", "float32", trainable=False, name="label_factors"
            )
            if self.label_weights != BALANCED:
                self.label_factors.assign(self.label_weights)
        self.teacher: Extended | None = None
        self._use_teacher = teacher_momentum is not None and self.teacher_predicts

    def _checked_tasks(self, tasks: str | None) -> str:
        able = "both" if len(self.supports) == 2 else self.supports[0]
        if tasks is not None:
            check_choice("tasks", tasks, ("both", "segmentation", "classification"))
        if tasks not in (None, able) and able != "both":
            raise ValueError(
                f"`tasks` of {type(self).__name__} can only be {able!r}, found {tasks!r}. For other tasks take "
                "another method, such as Hermes, FixMatch or MeanTeacher."
            )
        return able if tasks is None else tasks

    def _made_views(self, views: dict | WeakStrongViews | None) -> WeakStrongViews:
        if isinstance(views, dict) and "class_name" in views:
            views = keras.saving.deserialize_keras_object(views)
        if not isinstance(views, WeakStrongViews):
            if views is not None and not isinstance(views, dict):
                raise ValueError(f"`views` must be a dict of arguments, or a WeakStrongViews layer, found {views!r}.")
            check_known(WeakStrongViews, views or {})
            given = {"image_size": self.image_size, "seed": self.seed, **self.default_views, **(views or {})}
            views = WeakStrongViews(**given)
        if views.image_size != self.image_size:
            raise ValueError(
                f"`views` of {views.image_size} pixels do not fit `image_size` {self.image_size}; leave it out."
            )
        return views

    def take_preset(self, given: Mapping[str, Any]) -> None:
        """Sets the attributes that the preset is about: an argument that was given, or else the preset's value.

        Args:
            given: arguments by name; None: not given.
        """
        for name, value in self.presets[self.preset].items():
            setattr(self, name, value if given[name] is None else given[name])

    @property
    def heads(self) -> Mapping[str, Head]:
        """Heads on features of the network, by the name of their output; averaged with it, left out of an export."""
        return {}

    @property
    def joint_options(self) -> dict[str, Any]:
        """Arguments of the `JointNetwork` that both tasks together are learnt with."""
        return {"exchange": "none"}

    def make_network(self) -> Network:
        """One network without heads; called once for each student and teacher."""
        return build_network(
            self.given.network,
            self.tasks,
            self.num_classes,
            self.num_labels,
            self.given.encoder,
            self.given.weights,
            self.given.decoder_filters,
            self.output_stride,
            self.joint_options,
            dtype=self.dtype_policy,
        )

    def build_networks(self) -> None:
        """Makes students and teachers, so that the model is built when it is made."""
        check_switches(self, vars(self.given))
        heads = self.heads
        self.networks = [
            self._extended("network" if index == 0 else f"network_{index + 1}", heads) for index in range(self.students)
        ]
        self.network = self.networks[0]
        check_image_size(self.image_size, self.network.network.image_multiple)
        if not isinstance(self.given.encoder, str):
            check_added_losses(self.network.encoders[0])
        self.given.encoder = encoder_config(self.given.encoder)
        if not self.given.train_encoder:
            self.encoder.trainable = False
        count = self.teachers or int(self.teacher_momentum is not None)
        self.teacher_networks = [
            self._extended("teacher" if index == 0 else f"teacher_{index + 1}", heads, frozen=True)
            for index in range(count)
        ]
        self.teacher_updates = [
            self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False, name="teacher_updates")
            for _ in range(count)
        ]
        for teacher in self.teacher_networks:
            teacher.set_weights(self.network.get_weights())
        self.follow_switches()
        self.teacher = self.teacher_networks[0] if count else None
        self.built = True

    def follow_switches(self) -> None:
        """Gives the teachers what is frozen in their network; nothing of them trains, whatever was set on them."""
        for teacher in self.teacher_networks:
            follow_switches(teacher, self.network)

    def _extended(self, name: str, heads: Mapping[str, Head], frozen: bool = False) -> Extended:
        # The name in the variables' paths tells two networks apart; those of the first stay short.
        with keras.name_scope(name):
            return Extended(self.make_network(), heads, frozen, dtype=self.dtype_policy, name=name)

    def uniform(self, shape: Any) -> Any:
        """Numbers in [0, 1) from the model's stored random stream, float32."""
        return keras.random.uniform(shape, seed=StoredSeedGenerator(self.random_state))

    def normal(self, shape: Any) -> Any:
        """Standard normal numbers from the model's stored random stream, float32."""
        return keras.random.normal(shape, dtype="float32", seed=StoredSeedGenerator(self.random_state))

    @property
    def learnt_heads(self) -> tuple[str, ...]:
        """`"mask"`, `"label"` or both, by the tasks."""
        return tuple(head for head, task in HEADS.items() if self.tasks in ("both", task))

    @property
    def segments(self) -> bool:
        """Whether masks are learnt."""
        return self.tasks != "classification"

    @property
    def classifies(self) -> bool:
        """Whether image classes are learnt."""
        return self.tasks != "segmentation"

    @property
    def encoder(self) -> keras.layers.Layer:
        """The encoder of every student; several of them as a group.

        `model.encoder.trainable = False` before `compile` freezes it. It is saved with the model, and the teachers
        follow when the model is compiled.
        """
        encoders = [encoder for network in self.networks for encoder in network.encoders]
        return encoders[0] if len(encoders) == 1 else LayerGroup(encoders)

    @property
    def train_encoder(self) -> bool:
        """Whether the encoders train."""
        return self.encoder.trainable

    @property
    def _switches(self) -> list[keras.layers.Layer]:
        return [layer for network in self.networks for layer in switches(network)]

    @property
    def labeler(self) -> Extended:
        """The network whose predictions become pseudo-labels: the teacher of a method that has one by its nature."""
        return self.teacher_networks[0] if self.teachers else self.network

    def start_from(self, *models: NetworkedModel) -> None:
        """Takes over what a trained model has learnt, so that training goes on with this method.

        Of the parts of the network that both models have, such as encoders and decoder, the weights are copied (the
        teacher's, where the other model predicts with one); the others keep theirs. Of several students the first gets
        everything, the others the encoders alone, so that they do not become twins: their fresh decoders teach the
        first one little that is right at first. A trained model for each student avoids that. Teachers start from the
        result. A decoder that gets further maps, such as Hermes' saliency, starts without their influence.

        Args:
            models: one model with the same encoder, widths and classes, for example `Supervised`; or one for each
                student (`CPS`, `ABD`), trained apart, such as with two seeds.

        Raises:
            ValueError: if a part does not fit, or for another number of models; nothing is changed.
        """
        if len(models) not in (1, len(self.networks)) or len({id(model) for model in models}) < len(models):
            count = len(self.networks)
            expected = "one trained model" if count == 1 else f"one trained model, or {count} different ones"
            raise ValueError(
                f"`models` must be {expected}, as {type(self).__name__} trains {count}, found {len(models)}"
            )
        pairs: list[tuple[Any, Any]] = []
        for index, network in enumerate(self.networks):
            own = index < len(models)
            others = models[index if own else 0].predictor.parts
            for name, layers in network.parts.items():
                if name in others and (own or name in ("segmentation_encoder", "classifier_stages")):
                    pairs += matching_variables(name, layers, others[name])
        if not pairs:
            raise ValueError(
                f"the networks have no part in common: {sorted(others)} there, {sorted(self.network.parts)} here; take "
                "a model with the same encoder, or with the tasks of this one."
            )
        for variable, value in pairs:
            variable.assign(value)
        for teacher in self.teacher_networks:
            teacher.set_weights(self.network.get_weights())

    @property
    def running_state(self) -> list[keras.Variable]:
        """What moves in a step without a gradient: statistics of BatchNorm, thresholds, banks, and what these count.

        Not a teacher's weights, nor what counts steps or draws numbers.
        """
        fixed = {id(self.step), *map(id, self.teacher_updates)} | {
            id(variable)
            for network in (*self.networks, *self.teacher_networks)
            for variable in network.variables
            if not variable.name.startswith("moving_")
        }
        return [v for v in self.non_trainable_variables if id(v) not in fixed and v.name != "random_state"]

    def teacher_follows(self, index: int) -> Any:
        """Whether a teacher follows the network at this step: None for always, or a scalar, 1 or 0."""
        del index
        return None

    def move_teachers(self) -> None:
        """Moves the teachers behind the network."""
        for index, (teacher, updates) in enumerate(zip(self.teacher_networks, self.teacher_updates, strict=True)):
            assert self.teacher_momentum is not None  # there is no teacher without
            own = self.teacher_statistics == "own"
            move_average(teacher, self.network, updates, self.teacher_momentum, own, self.teacher_follows(index))

    def get_config(self) -> dict[str, Any]:
        """Arguments of the model, and what else is frozen; start weights are in the saved weights."""
        frozen = [index for index, layer in enumerate(self._switches) if not layer.trainable]
        given = {**vars(self.given), "train_encoder": not frozen or self.train_encoder}
        config = {**super().get_config(), **arguments_config(self, given)}
        if self.reading is not None:
            config["reading"] = self.reading.get_config()
        if self.provenance is not None:
            config["provenance"] = self.provenance.get_config()
        if given["train_encoder"]:
            expected = []
        else:
            encoders = {id(layer) for layer in switches(self.encoder)}
            expected = [index for index, layer in enumerate(self._switches) if id(layer) in encoders]
        return config if frozen == expected else {**config, "frozen_layers": frozen}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        """Makes a model from what `get_config` returned."""
        del custom_objects
        frozen = config.get("frozen_layers")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ArgumentWarning)
            model = cls(**{name: value for name, value in config.items() if name not in NOT_GIVEN})
        if config.get("reading") is not None:
            model.reading = ReadingRules.from_config(config["reading"])
        if config.get("provenance") is not None:
            model.provenance = Provenance.from_config(config["provenance"])
        if frozen is not None:
            for index, layer in enumerate(model._switches):
                layer.trainable = index not in frozen
            model.follow_switches()
        return model


def mask_criterion(name: str, include_background: bool = False) -> Callable[[Any, Any], Any]:
    """The loss `(labels, logits)` of labelled masks that `mask_loss` names.

    Args:
        name: `"ce"`, `"dice"` or `"ce_dice"`.
        include_background: Whether Dice is of the background too.
    """
    check_choice("mask_loss", name, ("ce", "dice", "ce_dice"))
    if name == "ce":
        return masked_cross_entropy
    if name == "ce_dice":
        return SegmentationLoss(include_background=include_background)
    dice = DiceLoss(include_background=include_background)
    return lambda labels, logits: dice(labels, ops.softmax(ops.cast(logits, "float32"), axis=-1))
