"""The forward passes of a method's step, written down while the step is traced, and run again without the method.

Which network, `encode` or `decode`, on how many images, in which mode, with which heads: all of it comes from the step
itself, so that no method needs a line of its own here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest import mock

import keras
import numpy as np
from keras import ops

from keras_semimed.models import SemiSupervisedModel
from keras_semimed.networks import LabelRectifier
from keras_semimed.networks.contract import Extended

BESIDE = {LabelRectifier: "rectifier"}
"""Further networks that a method trains, and the attribute of the model that holds them."""
REPRESENTATIONS = ("decoded", "pooled")


class Shape(NamedTuple):
    """Of a tensor, in whose place ones are put."""

    sizes: tuple[int, ...]
    dtype: str


class Encode:
    """One call of a network's `encode`.

    Attributes:
        network: `"networks"` or `"teacher_networks"`, and its number there.
        images: shape of the images.
        training: as it was called.
        arguments: further ones, tensors as `Shape`s.
    """

    def __init__(self, network: tuple[str, int], images: tuple[int, ...], training: bool, arguments: Any) -> None:
        self.network = network
        self.images = images
        self.training = training
        self.arguments = arguments


class Decode:
    """One call of a network's `decode`.

    Attributes:
        network: as in `Encode`.
        source: number of the `Encode` whose features it takes, repeated or cut to as many images.
        count: number of images.
        names: of the features.
        arguments: all other ones, tensors as `Shape`s.
        learnt: the outputs through which the loss has a gradient, noted while the step is differentiated.
    """

    def __init__(
        self, network: tuple[str, int], source: int, count: int, names: tuple[str, ...], arguments: Any
    ) -> None:
        self.network = network
        self.source = source
        self.count = count
        self.names = names
        self.arguments = arguments
        self.learnt: set[str] = set()


class Beside:
    """One call of a network that is trained beside those that segment.

    Attributes:
        name: attribute of the model that holds it.
        arguments: all of them, tensors as `Shape`s.
        learnt: as in `Decode`.
    """

    def __init__(self, name: str, arguments: Any) -> None:
        self.name = name
        self.arguments = arguments
        self.learnt: set[str] = set()


Passes = list[Encode | Decode | Beside]


class _Recorder:
    """Writes the calls down; holds the features of each `encode` to know them again."""

    def __init__(self, model: SemiSupervisedModel) -> None:
        kinds = ("networks", "teacher_networks")
        self.places = {id(network): (kind, i) for kind in kinds for i, network in enumerate(getattr(model, kind))}
        self.passes: Passes = []
        self.features: dict[int, Mapping[str, Any]] = {}

    def encode(self, network: Extended, images: Any, training: bool | None = None, **arguments: Any) -> dict[str, Any]:
        features = _ENCODE(network, images, training=training, **arguments)
        call = Encode(self.places[id(network)], tuple(images.shape), bool(training), _shapes(arguments))
        self.features[len(self.passes)] = features
        self.passes.append(call)
        return features

    def decode(self, network: Extended, features: Any, size: Any, *args: Any, **arguments: Any) -> dict[str, Any]:
        outputs = _DECODE(network, features, size, *args, **arguments)
        given = {name: value for name, value in features.items() if value is not None}
        count = int(keras.tree.flatten(given)[0].shape[0])
        place = self.places[id(network)]
        sizes = tuple(int(side) for side in size)
        source = self._source(place, given, count)
        call = Decode(place, source, count, tuple(features), _shapes((sizes, args, arguments)))
        self.passes.append(call)
        return {name: self._watched(value, call, name) for name, value in outputs.items()}

    def beside(self, plain: Callable[..., Any], layer: Any, args: Any, arguments: Any) -> dict[str, Any]:
        call = Beside(BESIDE[type(layer)], _shapes((args, arguments)))
        self.passes.append(call)
        outputs = plain(layer, *args, **arguments)
        return {name: self._watched(value, call, name) for name, value in outputs.items()}

    def _source(self, place: tuple[str, int], given: Mapping[str, Any], count: int) -> int:
        """The `encode` that the features come from; of changed ones the latest, if possible of as many images."""
        known = {id(value) for value in keras.tree.flatten(given)}
        of_network = [number for number in self.features if self.passes[number].network == place]

        def fit(number: int) -> tuple[bool, bool, int]:
            same = any(id(value) in known for value in keras.tree.flatten(dict(self.features[number])))
            return same, self.passes[number].images[0] == count, number  # type: ignore[union-attr]

        return max(of_network, key=fit)

    def _watched(self, value: Any, call: Decode | Beside, name: str) -> Any:
        if not ops.is_tensor(value):
            return value
        return _noting_gradient(value, lambda: call.learnt.add(name))


_ENCODE, _DECODE = Extended.encode, Extended.decode


def _shapes(arguments: Any) -> Any:
    def shape(value: Any) -> Any:
        if not ops.is_tensor(value):
            return value
        return Shape(tuple(int(side) for side in value.shape), keras.backend.standardize_dtype(value.dtype))

    return keras.tree.map_structure(shape, arguments)


def _ones(arguments: Any) -> Any:
    """`Shape`s become ones; written out, because trees look into named tuples."""
    if isinstance(arguments, Shape):
        return ops.ones(arguments.sizes, arguments.dtype)
    if isinstance(arguments, Mapping):
        return {name: _ones(value) for name, value in arguments.items()}
    if isinstance(arguments, list | tuple):
        return type(arguments)(_ones(value) for value in arguments)
    return arguments


def _noting_gradient(value: Any, note: Callable[[], Any]) -> Any:
    """The same tensor; `note` is called when a gradient flows through it."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        def gradient(upstream: Any) -> Any:
            note()
            return upstream

        return tf.custom_gradient(lambda x: (tf.identity(x), gradient))(value)
    if backend == "jax":
        import jax

        def backward(_: None, upstream: Any) -> tuple[Any]:
            if isinstance(upstream, jax.custom_derivatives.SymbolicZero):
                return (None,)
            note()
            return (upstream,)

        same = jax.custom_vjp(lambda x: x)
        same.defvjp(lambda x: (x.value, None), backward, symbolic_zeros=True)
        return same(value)
    if not value.requires_grad:
        return value
    same = value.view_as(value)  # the network itself may use the tensor, too
    same.register_hook(lambda _: note())
    return same


@contextmanager
def _patched(recorder: _Recorder) -> Iterator[None]:
    def encode(network: Extended, *args: Any, **arguments: Any) -> dict[str, Any]:
        return recorder.encode(network, *args, **arguments)

    def decode(network: Extended, *args: Any, **arguments: Any) -> dict[str, Any]:
        return recorder.decode(network, *args, **arguments)

    def beside(plain: Callable[..., Any]) -> Callable[..., Any]:
        # Written out: Keras looks for `training` among the arguments.
        def call(layer: Any, *args: Any, training: bool | None = None, **arguments: Any) -> dict[str, Any]:
            return recorder.beside(plain, layer, args, {**arguments, "training": training})

        return call

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(Extended, "encode", encode))
        stack.enter_context(mock.patch.object(Extended, "decode", decode))
        for kind in BESIDE:
            stack.enter_context(mock.patch.object(kind, "call", beside(kind.call)))
        yield


def record(model: SemiSupervisedModel, x: Mapping[str, Any], y: Mapping[str, Any]) -> Passes:
    """The passes of one training step of a compiled model, in their order; on PyTorch the step is done.

    Args:
        model: any method's.
        x: inputs of a batch, tensors.
        y: its targets, tensors.
    """
    recorder = _Recorder(model)
    with _patched(recorder):
        backend = keras.backend.backend()
        if backend == "tensorflow":
            import tensorflow as tf

            tf.function(lambda: model.train_step((x, y)), autograph=False).get_concrete_function()
        elif backend == "jax":
            import jax

            kinds = (
                model.trainable_variables,
                model.non_trainable_variables,
                model.optimizer.variables,
                model.metrics_variables,
            )
            state = tuple([variable.value for variable in variables] for variables in kinds)
            jax.eval_shape(lambda state: model.train_step(state, (x, y)), state)
        else:
            model.train_step((x, y))
    return recorder.passes


def describe(passes: Passes) -> str:
    """The passes in a line."""
    words = []
    for number, call in enumerate(passes):
        if isinstance(call, Encode):
            kind, index = call.network
            name = f"{'student' if kind == 'networks' else 'teacher'} {index + 1}"
            words.append(f"{name} encodes {call.images[0]}{'' if call.training else ' (moving statistics)'}")
        elif isinstance(call, Beside):
            words.append(f"{call.name}, {'learns' if call.learnt else 'without gradient'}")
        else:
            learnt = f", learns by {' '.join(sorted(call.learnt))}" if call.learnt else ", without gradient"
            words.append(f"decodes {call.count}{learnt if call.source < number else ''}")
    return "; ".join(words)


def passes_alone(method: type[SemiSupervisedModel], passes: Passes, **arguments: Any) -> SemiSupervisedModel:
    """A compiled model of a method's networks whose step has the passes and nothing else of the method.

    The loss is the sum of the mean squares of what carried the gradient; of what did not it has the value only. The
    method's optimizer follows, and the moving average where there is one.

    Args:
        method: one of `METHODS`.
        passes: of its step.
        arguments: of the model.
    """

    class Bare(method):  # type: ignore[misc, valid-type]
        """The networks under a loss of no meaning."""

        def call(self, inputs: Any, training: bool | None = None) -> dict[str, Any]:
            """Nothing: everything happens in `compute_loss`."""
            del inputs, training
            return {}

        def compute_loss(self, x: Any = None, *_: Any, **__: Any) -> Any:
            """Runs the passes on ready images."""
            return _trivial_loss(self, passes, x)

        def compute_metrics(self, *_: Any, **__: Any) -> dict[str, Any]:
            """The loss alone."""
            return {"loss": self._loss_tracker.result()}

        def after_step(self) -> None:
            """The teachers follow."""
            SemiSupervisedModel.after_step(self)

    model = Bare(**arguments)
    model.compile()
    return model


def ready_images(passes: Passes) -> dict[str, np.ndarray]:
    """Smooth images for each `Encode`, by its number, float32 in 0..255."""
    shapes = {str(number): call.images for number, call in enumerate(passes) if isinstance(call, Encode)}
    return {number: smooth_images(shape, int(number)) for number, shape in shapes.items()}


def smooth_images(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Images without noise, float32 in 0..255: on noise every pseudo-label is a boundary."""
    count, height, width, channels = shape
    coarse = np.random.default_rng(seed).uniform(0, 255, (count, 6, 6, channels)).astype("float32")
    return ops.convert_to_numpy(ops.image.resize(coarse, (height, width), data_format="channels_last"))


def _trivial_loss(model: SemiSupervisedModel, passes: Passes, images: Mapping[str, Any]) -> Any:
    features: dict[int, Mapping[str, Any]] = {}
    total = ops.zeros(())
    for number, call in enumerate(passes):
        if isinstance(call, Beside):
            args, arguments = _ones(call.arguments)
            total = total + _squares(getattr(model, call.name)(*args, **arguments), call.learnt)
            continue
        kind, index = call.network
        network: Extended = getattr(model, kind)[index]
        if isinstance(call, Encode):
            features[number] = network.encode(images[str(number)], training=call.training, **_ones(call.arguments))
            continue
        size, args, arguments = _ones(call.arguments)
        outputs = network.decode(_fitted(features[call.source], call), size, *args, **arguments)
        total = total + _squares(outputs, call.learnt)
    return total


def _squares(outputs: Mapping[str, Any], learnt: set[str]) -> Any:
    total = ops.zeros(())
    for name, value in outputs.items():
        if name in learnt or name not in REPRESENTATIONS and ops.is_tensor(value):
            square = ops.mean(ops.square(ops.cast(value, "float32")))
            total = total + (square if name in learnt else ops.stop_gradient(square))
    return total


def _fitted(features: Mapping[str, Any], call: Decode) -> dict[str, Any]:
    """Features of as many images as the call took."""

    def fitted(value: Any) -> Any:
        count = call.count if value is None else value.shape[0]
        if count == call.count:
            return value
        whole, rest = divmod(call.count, count)
        pieces = [value] * whole + ([value[:rest]] if rest else [])
        return pieces[0] if len(pieces) == 1 else ops.concatenate(pieces)

    return {name: keras.tree.map_structure(fitted, features[name]) for name in call.names}
