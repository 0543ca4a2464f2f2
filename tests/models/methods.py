"""What the tests over all methods share: a model of each, and a record of what its networks see and make."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest import mock

import keras
import numpy as np
from keras import ops

from keras_semimed.layers.adaptive_cutmix import AdaptiveCutMix
from keras_semimed.layers.cutmix import CutMix
from keras_semimed.layers.displacement import BidirectionalDisplacement
from keras_semimed.losses import unit_per_image
from keras_semimed.models import METHODS, InterLUDE, Losses, SemiSupervisedModel
from keras_semimed.networks.contract import Extended
from tests.models.common import batches, made, tiny_encoder

B, U = 3, 2  # of `batches`
JAX = keras.backend.backend() == "jax"

EVERYTHING_KEPT: dict[str, dict[str, Any]] = {
    "fixmatch": {"threshold": 0.0},
    "unimatch": {"threshold": 0.0},
    "augseg": {"threshold": 0.0},
    "u2pl": {"unreliable_share": 0.0, "warmup_share": 0.0},
    "ad_mt": {"threshold": 0.0},
    "corrmatch": {"threshold_start": 0.0, "threshold_momentum": 1.0},
    "dcnet": {"saturation": 0.0},
    "pefat": {"threshold": 0.0, "warmup_share": 0.01},  # of 6 steps none, before which each posterior is 1/2
    "infomatch": {"threshold_momentum": 1.0},  # each threshold is 1/C
    "interlude": {"threshold": 0.0},
    "shrinkmatch": {"threshold": 0.0},
    "hermes": {"selection": "none"},
    "loco": {"dynamic_filter": False, "fixed_threshold": 0.0},
}
"""Arguments under which a method keeps all of its pseudo-labels."""

NOTHING_KEPT: dict[str, dict[str, Any]] = {
    "fixmatch": {"threshold": 1.1},
    "unimatch": {"threshold": 1.1},
    "augseg": {"threshold": 1.1},
    "ad_mt": {"threshold": 1.1},
    "corrmatch": {"threshold_start": 1.0, "threshold_momentum": 1.0},
    "interlude": {"threshold": 1.1},
    "shrinkmatch": {"threshold": 1.1},
    "hermes": {"confidence": 1.0, "uncertainty": 0.0},
    "loco": {"dynamic_filter": False, "fixed_threshold": 1.0},
}
"""Arguments under which a method keeps none of them."""

SOME_KEPT: dict[str, dict[str, Any]] = {
    "fixmatch": {"threshold": 0.8},
    "unimatch": {"threshold": 0.8},
    "augseg": {"threshold": 0.8},
    "u2pl": {"unreliable_share": 0.5, "warmup_share": 0.0},
    "ad_mt": {"threshold": 0.8},
    "corrmatch": {"threshold_start": 0.8, "threshold_momentum": 0.9},
    "dcnet": {"threshold_limits": (0.6, 0.6), "saturation": 1.1},
    "pefat": {"threshold": 0.4, "warmup_share": 0.01},
    "infomatch": {"threshold_momentum": 0.1},
    "interlude": {"threshold": 0.8},
    "shrinkmatch": {"threshold": 0.8},
    "hermes": {"confidence": 0.8, "uncertainty": 0.45},
    "loco": {"threshold_start": 0.8, "threshold_momentum": 0.9},
}
"""Arguments under which an untrained model keeps some of them."""

BATCHES: dict[str, dict[str, int]] = {"interlude": {"batch_size": 2}}
"""Arguments of `batches` for a method that cannot take 3 labelled and 2 unlabelled images."""

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in METHODS},
    "supervised_strong": ("supervised", {"strong": True}),
    "mean_teacher_strong": ("mean_teacher", {"student_view": "strong", "distance": "kl"}),
    "cps_unlabeled": ("cps", {"preset": "ssl4mis"}),
    "cps_cutmix": ("cps", {"cutmix_probability": 1.0}),
    "fixmatch_masks": ("fixmatch", {"tasks": "segmentation", "teacher_momentum": 0.9}),
    "fixmatch_labels": ("fixmatch", {"tasks": "classification"}),
    "infomatch": ("infomatch", {"num_labels": 3}),  # with two the agreement has no gradient
    "hermes_teacher": ("hermes", {"teacher_momentum": 0.9}),
    "hermes_own_statistics": ("hermes", {"teacher_momentum": 0.9, "teacher_statistics": "own"}),
    "hermes_mean": ("hermes", {"uncertainty_of": "mean"}),
    "shrinkmatch": ("shrinkmatch", {"num_labels": 3}),  # with two its own term is 0
    "loco_labeled": ("loco", {"cutmix_from": "labeled"}),
}
"""Every method, and those of its switches that change which view goes where."""


def variant(name: str, extra: dict[str, dict[str, Any]] | None = None, **changes: Any) -> SemiSupervisedModel:
    """A tiny model of a variant.

    Args:
        name: one of `VARIANTS`.
        extra: further arguments by method.
        changes: further arguments.
    """
    method, own = VARIANTS[name]
    boxes = {"cutmix_probability": 1.0} if method in ("fixmatch", "unimatch", "corrmatch", "loco") else {}
    # One place alone, which is what a stride of 32 leaves of such images, is like itself whatever is learnt.
    places = {"encoder": tiny_encoder(stride=8)} if method == "corrmatch" else {}
    return made(METHODS[method], **{**boxes, **places, **own, **(extra or {}).get(method, {}), **changes})


def batch(
    step: int = 0, name: str | None = None, **changes: Any
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Inputs and targets of a step, as a method or variant can take them."""
    inputs, targets = batches(**{**BATCHES.get(str(name), {}), **changes}).at(step)
    return dict(inputs), dict(targets)


def shaken(model: SemiSupervisedModel, seed: int = 0) -> SemiSupervisedModel:
    """The model with other weights in each of its networks, so that none predicts like another, and surely."""
    random = np.random.default_rng(seed)
    for network in (*model.networks, *model.teacher_networks):
        heads = [layer for name in ("mask_head", "label_head") for layer in network.parts.get(name, ())]
        sharp = {id(variable) for layer in heads for variable in layer.variables}
        for variable in network.variables:
            if len(variable.shape) > 1:
                noise = random.normal(size=tuple(variable.shape)) / np.sqrt(np.prod(variable.shape[:-1]))
                variable.assign((40.0 if id(variable) in sharp else 1.4) * noise)
        for layer in network.parts.get("mask_head", ()):  # so that both classes are predicted, whatever is drawn
            logits = network(ops.cast(batch()[0]["unlabeled"], "float32"), training=False)["mask_logits"]
            layer.bias.assign(layer.bias - ops.mean(logits, axis=(0, 1, 2)))
    return model


def numpy(value: Any) -> np.ndarray:
    return ops.convert_to_numpy(value)


def eager_step(model: SemiSupervisedModel, x: dict, y: dict) -> dict[str, np.ndarray]:
    """One training step without compilation; returns the logs."""
    if not model.compiled or not model.run_eagerly:
        model.compile(run_eagerly=True)
    return {name: numpy(value) for name, value in model.train_on_batch(x, y, return_dict=True).items()}


def traced_step(model: SemiSupervisedModel, x: dict, y: dict) -> None:
    """On JAX: traces a training step without compiling it, and holds that the state keeps its shapes and types."""
    import jax

    if not model.compiled:
        model.compile()
    model._symbolic_build(data_batch=(x, y))
    kinds = ("trainable_variables", "non_trainable_variables", "optimizer_variables", "metrics_variables")
    state = model._get_jax_state(**dict.fromkeys(kinds, True))
    logs, after = jax.eval_shape(model.train_step, state, (x, y))
    assert set(model.loss_weights) <= set(logs)
    kept = [[(v.shape, v.dtype) for v in jax.tree.leaves(values)] for values in (state, after)]
    assert kept[0] == kept[1], "a step changes shapes or types of its state, so that the next one compiles again"


def state_of(model: SemiSupervisedModel) -> list[np.ndarray]:
    """Weights of the model and of its optimizer."""
    return [numpy(v.value) for v in (*model.weights, *model.optimizer.variables)]


def restore(model: SemiSupervisedModel, state: list[np.ndarray]) -> None:
    for variable, value in zip((*model.weights, *model.optimizer.variables), state, strict=True):
        variable.assign(value)


@contextlib.contextmanager
def moving_statistics() -> Iterator[None]:
    """BatchNorm by its moving statistics everywhere: a prediction then rests on its own image alone."""
    plain = keras.layers.BatchNormalization.call

    @functools.wraps(plain)
    def call(self, inputs, training=None, mask=None):
        return plain(self, inputs, training=False, mask=mask)

    with mock.patch.object(keras.layers.BatchNormalization, "call", call):
        yield


class Pass(NamedTuple):
    """One pass of a network."""

    network: str
    training: bool
    images: Any
    rows: dict[str, list[tuple[int, int]]]
    """Which rows of the batch an output was asked for, by its name."""


class Watched:
    """What happened in a step, as far as it was watched.

    Attributes:
        passes: of the networks, in order.
        labeled: the labelled view.
        unlabeled: the unlabelled view, lazy.
        losses: what `terms` returned.
        images: every batch of images that a network may have seen, by name.
    """

    def __init__(self) -> None:
        self.passes: list[Pass] = []
        self.labeled: Any = None
        self.unlabeled: Any = None
        self.losses: Losses | None = None
        self.strong: list[Any] = []
        self.boxes: list[np.ndarray] = []
        self.draws: list[dict[str, np.ndarray]] = []
        self.noise: list[np.ndarray] = []
        self.intense: list[np.ndarray] = []
        self.moved: list[tuple[np.ndarray, np.ndarray]] = []
        self.steps: list[np.ndarray] = []
        self.added: list[np.ndarray] = []
        self.interleaved = False

    @property
    def images(self) -> dict[str, np.ndarray]:
        """By name; what was mixed is mixed anew here."""
        labeled = numpy(self.labeled.images)
        strong = [numpy(view.images) for view in self.strong]
        if not self.unlabeled.drawn:
            return {"labeled": labeled, **_numbered("strong_labeled", strong)}
        weak = numpy(self.unlabeled.images)
        partners = labeled[np.arange(len(weak)) % len(labeled)]
        if self.interleaved:  # the strong views: first that of the labelled images
            return {"interleaved": _interleaved(labeled, strong[0], weak, strong[1])}
        mixed = list(zip(strong or [weak], self.boxes, strict=False))
        augmented = zip(self.intense, self.draws, strict=True)
        return {
            "labeled": labeled,
            "weak": weak,
            **_numbered("strong", strong),
            **_numbered(
                "noisy", [weak + 25.5 * np.clip(noise, -2, 2) for noise in self.noise if noise.shape == weak.shape]
            ),
            **_numbered("mixed", [_pasted(own, np.roll(own, 1, axis=0), boxes) for own, boxes in mixed]),
            **_numbered("mixed_weak", [_pasted(weak, np.roll(weak, 1, axis=0), boxes) for boxes in self.boxes]),
            **_numbered("mixed_with_labeled", [_pasted(own, partners, boxes) for own, boxes in mixed]),
            **_numbered("augmented", [self._augmented(labeled, *pair) for pair in augmented]),
            **_numbered("displaced", [np.concatenate(pair) for pair in self.moved]),
            **_numbered("explored", [np.concatenate([labeled, weak]) + step for step in self.steps]),
            **_numbered("perturbed", [np.concatenate([labeled, weak]) + added for added in self.added]),
        }

    def _augmented(self, labeled: np.ndarray, intense: np.ndarray, draw: dict[str, np.ndarray]) -> np.ndarray:
        """AugSeg's two rounds."""
        boxes = draw["injected"][:, None, None] * draw["injection_boxes"]
        injected = _pasted(intense, labeled[draw["partners"] % len(labeled)], boxes)
        return _pasted(intense, injected[draw["partners"]], draw["mixing_boxes"])

    def seen(self) -> dict[str, list[tuple[str, ...]]]:
        """Names of the views in each pass of each network."""
        images, found = self.images, {}
        for each in self.passes:
            found.setdefault(each.network, []).append(tuple(name for name, _ in _cut(each.images, images)))
        return found

    def asked(self, network: str) -> dict[str, tuple[str, ...]]:
        """Names of the views that each output of a network's only pass was asked for."""
        (each,) = (each for each in self.passes if each.network == network)
        places = dict(_cut(each.images, self.images))
        return {
            output: tuple(name for name, place in places.items() if place in [tuple(map(int, r)) for r in rows])
            for output, rows in each.rows.items()
        }


def _numbered(name: str, values: list[np.ndarray]) -> dict[str, np.ndarray]:
    """One by its name, several with their numbers."""
    if len(values) == 1:
        return {name: values[0]}
    return {f"{name}_{index}": value for index, value in enumerate(values, 1)}


def _interleaved(
    labeled_weak: np.ndarray, labeled_strong: np.ndarray, weak: np.ndarray, strong: np.ndarray
) -> np.ndarray:
    """Each labelled view before the unlabelled ones beside it, weak ones before strong ones (InterLUDE)."""
    beside = len(weak) // len(labeled_weak)
    rows = []
    for index in range(len(labeled_weak)):
        group = slice(index * beside, (index + 1) * beside)
        rows += [labeled_weak[index], *weak[group], labeled_strong[index], *strong[group]]
    return np.stack(rows)


def _pasted(images: np.ndarray, others: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    return np.where(boxes[..., None] > 0, others, images)


def _cut(images: np.ndarray, known: dict[str, np.ndarray]) -> list[tuple[str, tuple[int, int]]]:
    """Names of the batches that a joined batch is made of, and where each lies in it."""
    found, start = [], 0
    while start < len(images):
        fits = [
            (name, start + len(candidate))
            for name, candidate in known.items()
            if len(candidate) <= len(images) - start
            and np.allclose(images[start : start + len(candidate)], candidate, atol=1e-3)
        ]
        name, stop = fits[0] if fits else ("unknown", len(images))
        found.append((name, (start, stop)))
        start = stop
    return found


@contextlib.contextmanager
def watched(model: SemiSupervisedModel) -> Iterator[Watched]:
    """Watches the steps of a model, one at a time."""
    found = Watched()
    found.interleaved = isinstance(model, InterLUDE)
    encode, decode = Extended.encode, Extended.decode

    def watch_encode(self, images, training=None, **arguments):
        found.passes.append(Pass(self.name, bool(training), numpy(ops.stop_gradient(images)), {}))
        return encode(self, images, training=training, **arguments)

    def watch_decode(self, features, size, training=None, rows=None, **arguments):
        found.passes[-1].rows.update({name: list(places) for name, places in (rows or {}).items()})
        return decode(self, features, size, training=training, rows=rows, **arguments)

    def after(method, note):
        """The method, of which the result is noted."""

        def call(*values, **arguments):
            result = method(*values, **arguments)
            note(result)
            return result

        return call

    def note_views(views):
        found.labeled, found.unlabeled = views

    def note_draw(draw):
        found.draws.append({name: numpy(value) for name, value in draw._asdict().items()})

    def note_moved(pair):
        if len(pair[0].shape) == 4:  # images, not masks
            found.moved.append(tuple(map(numpy, pair)))

    with contextlib.ExitStack() as stack:

        def patch(owner, name, replacement):
            stack.enter_context(mock.patch.object(owner, name, replacement))

        patch(Extended, "encode", watch_encode)
        patch(Extended, "decode", watch_decode)
        patch(model, "training_views", after(model.training_views, note_views))
        patch(model, "strong", after(model.strong, found.strong.append))
        patch(model, "normal", after(model.normal, lambda noise: found.noise.append(numpy(noise))))
        patch(model, "terms", after(model.terms, lambda losses: setattr(found, "losses", losses)))
        cutmix = getattr(model, "cutmix", None)
        if isinstance(cutmix, CutMix):
            patch(cutmix, "boxes", after(cutmix.boxes, lambda boxes: found.boxes.append(numpy(boxes))))
        if isinstance(cutmix, AdaptiveCutMix):
            patch(cutmix, "draw", after(cutmix.draw, note_draw))
            intensity = model.intensity
            patch(intensity, "call", after(intensity.call, lambda images: found.intense.append(numpy(images))))
        for layer in model.layers:
            if isinstance(layer, BidirectionalDisplacement):
                patch(layer, "displace", after(layer.displace, note_moved))
        smoothness = getattr(model, "smoothness_loss", None)
        if smoothness is not None:
            perturbation = smoothness.perturbation

            def watch_perturbation(predict, images, clean, noise, inside):
                length = 10 / 256 * 255 * np.sqrt(np.prod(images.shape[1:]))
                found.steps.append(length * numpy(unit_per_image(noise)))
                return perturbation(predict, images, clean, noise, inside)

            added = after(watch_perturbation, lambda values: found.added.append(numpy(values)))
            patch(smoothness, "perturbation", added)
        yield found
