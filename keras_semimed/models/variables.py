"""Variables of networks: paired, averaged, frozen together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_semimed.networks.contract import Extended
from keras_semimed.thresholds import average_momentum


def matching_variables(
    name: str, ours: Sequence[keras.layers.Layer], theirs: Sequence[keras.layers.Layer]
) -> list[tuple[Any, Any]]:
    """Pairs the variables of one part of two networks.

    A kernel of ours may have more input channels than theirs, as of a decoder that gets a saliency map as well: they
    come last and start at 0, without influence.

    Returns:
        Our variables, each with the value that it is to take.

    Raises:
        ValueError: if the part does not fit; the message names it.
    """
    first = [variable for layer in ours for variable in layer.variables]
    second = [variable for layer in theirs for variable in layer.variables]
    shapes = [[tuple(variable.shape) for variable in variables] for variables in (first, second)]
    fitting = [_fits(mine, other) for mine, other in zip(*shapes, strict=False)]
    if len(first) != len(second) or not all(fitting):
        pairs = zip(*shapes, strict=False)
        different = next((pair for pair in pairs if not _fits(*pair)), tuple(map(len, shapes)))
        raise ValueError(
            f"`{name}` of the model to start from does not fit ({different[0]} here, {different[1]} there); make both "
            "with the same network, encoder, decoder_filters, classes, exchange and saliency_level."
        )
    return [(mine, _widened(other.value, tuple(mine.shape))) for mine, other in zip(first, second, strict=True)]


def _fits(ours: tuple[int, ...], theirs: tuple[int, ...]) -> bool:
    wider = len(ours) == len(theirs) == 4 and ours[2] > theirs[2]
    return ours == theirs or wider and ours == (*theirs[:2], ours[2], theirs[3])


def _widened(kernel: Any, shape: tuple[int, ...]) -> Any:
    """A copy (JAX would hand two variables one buffer, which the first step of either frees), with zeros behind."""
    if tuple(kernel.shape) == shape:
        return ops.copy(kernel)
    return ops.pad(kernel, [(0, 0), (0, 0), (0, shape[2] - kernel.shape[2]), (0, 0)])


def move_average(
    average: Extended,
    network: Extended,
    updates: Any,
    momentum: float,
    own_statistics: bool,
    follows: Any = None,
) -> None:
    """Moves averaged weights behind a network's, `average_momentum(updates, momentum)`, and counts the update.

    Args:
        average: what is moved.
        network: one of the same structure.
        updates: variable, the number of updates so far.
        momentum: largest momentum.
        own_statistics: leave alone what is no learnt weight, such as BatchNorm's statistics.
        follows: None, or a scalar: with 0 nothing moves.
    """
    count = updates + 1
    share = average_momentum(count, momentum)
    for ours, theirs, learnt in zip(average.variables, network.variables, network.learnt, strict=True):
        # Integers are the states of random streams.
        if own_statistics and not learnt or not keras.backend.is_float_dtype(theirs.dtype):
            continue
        moved = theirs + share * (ours - theirs)
        ours.assign(ops.cast(moved if follows is None else ops.where(follows > 0, moved, ours.value), ours.dtype))
    updates.assign(count if follows is None else updates + ops.cast(follows, "int32"))


def switches(network: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The innermost layers of a network, whose `trainable` decides what trains; in an order of their own."""
    layers = network._flatten_layers(include_self=False)
    return [layer for layer in layers if not layer._flatten_layers(include_self=False)]


def follow_switches(average: Extended, network: Extended) -> None:
    """Sets `trainable` in averaged weights as in their network: what is frozen there uses its moving statistics here.

    None of the averaged weights trains, whatever was set on them.
    """
    for ours, theirs in zip(switches(average), switches(network), strict=True):
        ours.trainable = theirs.trainable
    average.freeze()


class LayerGroup(keras.layers.Layer):
    """Several layers under one switch: setting `trainable` sets it for all of them."""

    def __init__(self, layers: Sequence[keras.layers.Layer]) -> None:
        super().__init__()
        self.members = list(layers)
        self.built = True

    @property
    def trainable(self) -> bool:
        """Whether all of them train."""
        return all(layer.trainable for layer in self.members)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        for layer in self.members:
            layer.trainable = value
