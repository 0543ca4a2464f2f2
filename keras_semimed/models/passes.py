"""Forward passes over several views at once: what goes through together is one batch for BatchNorm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_semimed.networks.contract import Extended, Rows

Place = tuple[Any, Any]
"""Where the rows of a view start and stop in a joined batch."""


class Features(dict):
    """Features of one view by name, cut out of those of a joined batch.

    Attributes:
        joined: of the whole batch.
        place: the view's rows in it.
        whole: all places of the batch, in order.
        size: height and width of the images.
    """

    def __init__(self, joined: dict[str, Any], place: Place, whole: list[Place], size: tuple[Any, Any]) -> None:
        super().__init__(cut(joined, place, whole))
        self.joined = joined
        self.place = place
        self.whole = whole
        self.size = size


class Passes:
    """The mix-in of a model that runs `networks`, its students, and `teacher_networks`."""

    networks: list[Extended]
    teacher_networks: list[Extended]
    teacher_statistics: str

    def encode(self, *views: Any, student: int = 0, training: bool = True, **arguments: Any) -> list[Features]:
        """Features of each view, all in one pass.

        Args:
            views: `View`s, or images `(N, S, S, C)`.
            student: which network.
            training: False: moving statistics, and nothing is moved.
            arguments: for the network's `encode`.
        """
        return _encode(self.networks[student], views, training, arguments)

    def decode(
        self,
        *features: Mapping[str, Any],
        student: int = 0,
        heads: Mapping[str, Sequence[Any]] | None = None,
        training: bool = True,
    ) -> list[dict[str, Any]]:
        """Outputs for the features of each view, all in one pass.

        Args:
            features: what `encode` returned, or changed copies of it; the first as `encode` returned it.
            student: which network.
            heads: as in `run`, with features in the place of views.
            training: as in `encode`.
        """
        first = features[0]
        if not isinstance(first, Features):
            raise TypeError("the first features must be what `encode` returned; changed copies go behind them.")
        # What is still in one piece is not cut and joined again.
        intact = [f for f, place in zip(features, first.whole, strict=False) if getattr(f, "place", None) is place]
        rest = features[len(first.whole) :] if len(intact) == len(first.whole) else features
        pieces = [first.joined] if rest is not features else []
        joined = {
            name: ops.concatenate([piece[name] for piece in (*pieces, *rest)]) if len(pieces) + len(rest) > 1 else value
            for name, value in (first.joined if pieces else first).items()
            if value is not None
        }
        places = _places([next(iter(each.values())) for each in features])
        rows = _rows(heads, features, places, self.networks[student].output_names)
        outputs = self.networks[student].decode(joined, first.size, training=training, rows=rows)
        return split(outputs, places, rows or {})

    def run(
        self,
        *views: Any,
        student: int = 0,
        heads: Mapping[str, Sequence[Any]] | None = None,
        training: bool = True,
        **arguments: Any,
    ) -> list[dict[str, Any]]:
        """One forward pass over all views together, cut apart again.

        Args:
            views: `View`s, or images `(N, S, S, C)`.
            student: which network.
            heads: the views that an output, by its name, is computed for; one that is not named: for all of them.
            training: False: moving statistics, and nothing is moved.
            arguments: for the network's `encode`.

        Returns:
            For each view the network's levels `"P1"` to `"P5"`, `"decoded"` and `"pooled"`, the logits
            `"mask_logits"` `(N, S, S, K)` and `"label_logits"` `(N, C)`, and the outputs of the `heads`.
        """
        return forward(self.networks[student], views, heads, training, arguments)

    def teach(
        self,
        *views: Any,
        teacher: int = 0,
        heads: Sequence[str] = (),
        training: bool | None = None,
        **arguments: Any,
    ) -> list[dict[str, Any]]:
        """As `run` with a teacher's averaged weights, without gradient; of the heads only those that are named.

        By default its statistics decide: the batch's with `teacher_statistics="own"`, else the averaged ones.
        """
        network = self.teacher_networks[teacher]
        if unknown := [name for name in heads if name not in network.head_layers]:
            raise ValueError(f"`heads` names {unknown[0]!r}; the network has the heads {list(network.head_layers)}.")
        none = {name: () for name in network.head_layers if name not in heads}
        training = self.teacher_statistics == "own" if training is None else training
        outputs = forward(network, views, none, training, arguments)
        return keras.tree.map_structure(ops.stop_gradient, outputs)


def forward(
    network: Extended,
    views: Sequence[Any],
    heads: Mapping[str, Sequence[Any]] | None,
    training: bool,
    arguments: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """One pass of a network over all views together, cut apart again; see `Passes.run`."""
    images = [getattr(view, "images", view) for view in views]
    places = _places(images)
    rows = _rows(heads, views, places, network.output_names)
    joined = images[0] if len(images) == 1 else ops.concatenate(images)
    features = network.encode(joined, training=training, **arguments)
    outputs = network.decode(features, ops.shape(joined)[1:3], training=training, rows=rows)
    levels = {name: value for name, value in features.items() if name in network.network.widths}
    return split({**levels, **outputs}, places, rows or {})


def split(outputs: Mapping[str, Any], places: list[Place], rows: Rows) -> list[dict[str, Any]]:
    """Cuts outputs of a joined batch apart.

    Args:
        outputs: tensors, or trees of them, by name.
        places: of each view in the batch.
        rows: the places that an output was computed for, by its name; one that is not named: for all.
    """
    found: list[dict[str, Any]] = [{} for _ in places]
    for name, values in outputs.items():
        chosen = [i for i, place in enumerate(places) if any(place is wanted for wanted in rows.get(name, places))]
        own = _places_of_lengths([places[index][1] - places[index][0] for index in chosen])
        for index, place in zip(chosen, own, strict=True):
            found[index][name] = cut({name: values}, place, own)[name]
    return found


def cut(values: Mapping[str, Any], place: Place, whole: list[Place]) -> dict[str, Any]:
    """The rows of a place, of tensors or trees of them by name; what is None stays."""
    if len(whole) == 1:
        return dict(values)
    return {
        name: None if value is None else keras.tree.map_structure(lambda x: x[place[0] : place[1]], value)
        for name, value in values.items()
    }


def _encode(network: Extended, views: Sequence[Any], training: bool, arguments: Mapping[str, Any]) -> list[Features]:
    images = [getattr(view, "images", view) for view in views]
    places = _places(images)
    joined = images[0] if len(images) == 1 else ops.concatenate(images)
    features = network.encode(joined, training=training, **arguments)
    return [Features(features, place, places, ops.shape(joined)[1:3]) for place in places]


def _rows(
    heads: Mapping[str, Sequence[Any]] | None, views: Sequence[Any], places: list[Place], outputs: Sequence[str]
) -> Rows | None:
    """The places of the views that each of the `outputs` is asked for.

    Raises:
        ValueError: for an output that the network lacks, or a view that is not in the pass.
    """
    if heads is None:
        return None
    for name, chosen in heads.items():
        if name not in outputs:
            raise ValueError(f"`heads` names {name!r}, which the network has not; it has {', '.join(outputs)}.")
        if any(not any(each is view for view in views) for each in chosen):
            raise ValueError(f"`heads` asks {name!r} for a view that is not in this pass.")
    return {
        name: [place for view, place in zip(views, places, strict=True) if any(view is each for each in chosen)]
        for name, chosen in heads.items()
    }


def _places(batches: Sequence[Any]) -> list[Place]:
    return _places_of_lengths([ops.shape(batch)[0] for batch in batches])


def _places_of_lengths(lengths: Sequence[Any]) -> list[Place]:
    found: list[Place] = []
    start: Any = 0
    for length in lengths:
        found.append((start, start + length))
        start = found[-1][1]
    return found
