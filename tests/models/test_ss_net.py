"""SS-Net on made outputs, against an independent NumPy reading of its equations."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.models import SSNet, ss_net
from keras_semimed.thresholds import consistency_ramp
from tests.gradients import gradient
from tests.layers.test_class_selector import scores_by_hand
from tests.layers.test_prototypes import by_hand as prototypes_by_hand
from tests.layers.test_separation_heads import projected, shake
from tests.losses.helpers import finite_difference, softmax
from tests.losses.test_adversarial import distance, lengths, perturbation_by_hand
from tests.losses.test_separation import by_hand as separation_by_hand
from tests.models import pixelwise as pixels
from tests.models.common import assert_finite, batches, fitted, made
from tests.models.methods import batch as pictures
from tests.models.methods import shaken
from tests.models.pixelwise import array, batch, losses_of, numbers

EPSILON, XI = 2.0, 4.0


class Example:
    """A random batch whose images are its logits, with random heads and the noise of the direction."""

    def __init__(self, monkeypatch, seed, labeled=3, unlabeled=2, **arguments):
        monkeypatch.setattr(ss_net, "WIDTH", 4)
        self.inputs, self.targets = batch(seed, labeled, unlabeled)
        self.shown = {half: self.inputs[half].astype("float64") for half in ("labeled", "unlabeled")}
        self.inside = [pixels.area_mask(self.inputs[f"{half}_area"], 5) for half in self.shown]
        given = {"epsilon": EPSILON, "xi": XI, "prototypes": 4}
        self.model = pixels.pixelwise(SSNet, **{**given, **arguments})
        shake(self.model.separation_heads, seed)
        self.noise = np.random.default_rng(seed).uniform(size=(labeled + unlabeled, 5, 5, 3)).astype("float32")
        monkeypatch.setattr(self.model, "uniform", lambda shape: ops.convert_to_tensor(self.noise))
        self.right = np.where(self.shown["labeled"].argmax(-1) == self.targets["mask"], self.targets["mask"], 255)
        self.labels = np.where(self.inside[1] > 0, self.shown["unlabeled"].argmax(-1), 255)
        self.heads = self.model.separation_heads

    def all_shown(self):
        return np.concatenate([self.shown["labeled"], self.shown["unlabeled"]])

    def scores(self, embeddings, labels):
        """Of the classes that have anybody."""
        found = np.zeros((3, len(embeddings)))
        for c in (1, 2):
            if (labels == c).any():
                found[c] = scores_by_hand(self.model.selector.heads[c - 1], embeddings, labels == c)
        return found

    def prototypes(self, before=None):
        """Raw, of each class, after this batch; to be called before the model moves any statistics."""
        rows, labels = projected(self.heads.projector, self.shown["labeled"].reshape(-1, 3), False), self.right.ravel()
        members = labels == np.arange(3)[:, None]
        return prototypes_by_hand(before or [np.zeros((0, 4))] * 3, rows, self.scores(rows, labels), members, 4)

    def separation(self, shown, labels, prototypes, gain=1.0):
        """Of shown images times a gain, which the scores do not see."""
        rows, labels = shown.reshape(-1, 3), labels.ravel()
        scored, embeddings = (
            projected(self.heads.predictor, projected(self.heads.projector, each)) for each in (rows, rows * gain)
        )
        units = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in prototypes]
        means = np.stack([each.mean(0) if len(each) else np.zeros(4) for each in units])
        counts = [len(each) for each in prototypes]
        return separation_by_hand(embeddings, labels, means, counts, self.scores(scored, labels))

    def perturbation(self):
        clean = softmax(self.all_shown())
        return perturbation_by_hand(
            np.eye(3), self.all_shown(), clean, self.noise - 0.5, EPSILON, XI, inside=np.concatenate(self.inside)
        )


@pytest.mark.parametrize("seed", range(2))
def test_terms(monkeypatch, seed):
    example = Example(monkeypatch, seed)
    prototypes = example.prototypes()
    separations = [
        example.separation(example.shown["labeled"], example.targets["mask"], prototypes),
        example.separation(example.shown["unlabeled"], example.labels, prototypes),
    ]
    moved = softmax(example.all_shown() + example.perturbation())
    smoothness = distance(moved, softmax(example.all_shown()), np.concatenate(example.inside))
    found = losses_of(example.model, example.inputs, example.targets)
    terms, figures = numbers(found.terms), numbers(found.figures)
    assert list(terms) == ["mask_supervised", "mask_smoothness", "mask_separation"]
    assert terms["mask_smoothness"] == pytest.approx(smoothness, rel=2e-3) and smoothness > 0.01
    assert list(figures.values()) == pytest.approx(separations, rel=1e-3) and min(separations) > 0.05
    assert terms["mask_separation"] == pytest.approx(sum(separations), rel=1e-3)
    raw, filled = array(example.model.memory.prototypes.value), array(example.model.memory.filled.value)
    for c, rows in enumerate(prototypes):
        np.testing.assert_allclose(raw[c][filled[c] > 0], rows, atol=1e-3)
        assert bool(len(rows)) == (c > 0)
    np.testing.assert_array_equal(array(found.pseudo["mask"].kept), example.inside[1])


def test_supervised_is_cross_entropy_and_dice(monkeypatch):
    example = Example(monkeypatch, 2)
    p, masks = softmax(example.shown["labeled"]), example.targets["mask"]
    known = (masks != 255).astype("float64")
    truth = np.eye(4)[np.minimum(masks, 3)][..., :3]
    dice = distance(p[..., 1:], truth[..., 1:], known, 1e-5)
    expected = (dice + pixels.mean_cross_entropy(masks, example.shown["labeled"])) / 2
    found = numbers(losses_of(example.model, example.inputs, example.targets).terms)
    assert found["mask_supervised"] == pytest.approx(expected, rel=1e-4)


def test_what_the_network_sees(monkeypatch):
    example = Example(monkeypatch, 3)
    added = example.perturbation()
    losses_of(example.model, example.inputs, example.targets)
    passes = example.model.network.network.log.passes
    assert [training for _, training in passes] == [True] * 3
    np.testing.assert_allclose(array(passes[0][0]), example.all_shown(), rtol=1e-6)
    np.testing.assert_allclose(array(passes[2][0]), example.all_shown() + added, atol=5e-3)
    np.testing.assert_allclose(lengths(array(passes[2][0]) - example.all_shown()), EPSILON, rtol=1e-4)


def test_slopes(monkeypatch):
    """By what scales the features, which both terms have to move, and by what makes logits of them."""
    example = Example(monkeypatch, 4)
    model, prototypes, added = example.model, example.prototypes(), example.perturbation()
    views = pixels.views_of(model, example.inputs, example.targets)
    gain, kernel = model.network.network.gain, pixels.kernel_of(model.network)
    images, clean = example.all_shown(), softmax(example.all_shown())

    def separation(gain):
        return sum(
            example.separation(shown, labels, prototypes, gain)
            for shown, labels in zip(example.shown.values(), (example.targets["mask"], example.labels), strict=True)
        )

    def smoothness(gain, kernel):
        return distance(softmax((images + added) * gain @ kernel), clean, np.concatenate(example.inside))

    expected = (
        ("mask_separation", gain, finite_difference(separation, np.ones(3))),
        ("mask_smoothness", gain, finite_difference(lambda g: smoothness(g, np.eye(3)), np.ones(3))),
        ("mask_smoothness", kernel, finite_difference(lambda k: smoothness(1.0, k), np.eye(3))),
        ("mask_separation", kernel, np.zeros((3, 3))),
    )
    state = [array(variable.value) for variable in example.heads.variables]
    for name, variable, reading in expected:
        for each, value in zip(example.heads.variables, state, strict=True):
            each.assign(value)
        found = pixels.slope(variable, lambda name=name: model.terms(*views).terms[name])
        np.testing.assert_allclose(found, reading, atol=3e-4, rtol=2e-2)
        assert (np.abs(reading).max() > 5e-3) == (variable is gain or name == "mask_smoothness")


def test_every_head_learns_from_the_separation_and_none_from_the_smoothness(monkeypatch):
    example = Example(monkeypatch, 5)
    views = pixels.views_of(example.model, example.inputs, example.targets)
    variables = example.heads.trainable_variables
    places = np.cumsum([int(np.prod(variable.shape)) for variable in variables])[:-1].tolist()

    def value(flat, name):
        pieces = zip(variables, ops.split(flat, places), strict=True)
        with keras.StatelessScope(state_mapping=[(v, ops.reshape(piece, v.shape)) for v, piece in pieces]):
            return example.model.terms(*views).terms[name]

    flat = np.concatenate([array(variable.value).ravel() for variable in variables])
    assert not gradient(lambda x: value(x, "mask_smoothness"), flat).any()
    slopes = np.split(gradient(lambda x: value(x, "mask_separation"), flat), places)
    for variable, slope in zip(variables, slopes, strict=True):
        # What BatchNorm subtracts again.
        idle = variable.path.endswith(("hidden_0/bias", "projector/embedding/bias"))
        assert (np.abs(slope).max() > 1e-6) != idle, variable.path


def test_prototypes_stay_where_a_class_has_no_candidate(monkeypatch):
    example = Example(monkeypatch, 6)
    losses_of(example.model, example.inputs, example.targets)
    before = array(example.model.memory.prototypes.value)
    masks = example.targets["mask"]
    targets = {**example.targets, "mask": np.where(masks == 1, 255, masks)}
    inputs = {**example.inputs, "labeled": 1.5 * example.inputs["labeled"]}
    losses_of(example.model, inputs, targets)
    after = array(example.model.memory.prototypes.value)
    np.testing.assert_array_equal(after[:2], before[:2])
    assert (after[2] != before[2]).all() and not after[0].any()


def test_passes_beside_the_first_leave_batch_norm_alone():
    model = shaken(made(SSNet), seed=1)
    views = model.training_views(*pictures())
    start = model.get_weights()
    model.terms(*views)
    found = {v.path: array(v.value) for v in model.network.network.variables if v.name.startswith("moving_")}
    model.set_weights(start)
    model.run(*views, heads=model.network.without_heads())
    before = {v.path: value for v, value in zip(model.weights, start, strict=True)}
    assert len(found) > 10
    for variable in model.network.network.variables:
        if variable.path in found:
            np.testing.assert_allclose(array(variable.value), found[variable.path], rtol=1e-5, atol=1e-6)
            assert (before[variable.path] != found[variable.path]).any(), variable.path


def test_weights_through_the_run():
    model = made(SSNet, total_steps=80, lambda_consistency=0.2, lambda_separation=0.3)
    for step in (0, 20, 80, 90):
        model.step.assign(step)
        weights = numbers({name: ops.convert_to_tensor(weight) for name, weight in model.loss_weights.items()})
        ramp = 0.2 * float(array(consistency_ramp(min(step / 80, 1))))
        expected = {"mask_supervised": 1, "mask_smoothness": ramp, "mask_separation": 0.3 * ramp}
        assert weights == pytest.approx(expected, rel=1e-5)


def test_total_of_the_specification():
    model = made(SSNet, total_steps=10)
    model.step.assign(5)
    weights = numbers({name: ops.convert_to_tensor(weight) for name, weight in model.loss_weights.items()})
    values = {"mask_supervised": 0.61, "mask_smoothness": 0.23, "mask_separation": 0.41 + 0.37}
    assert sum(weights[name] * value for name, value in values.items()) == pytest.approx(0.6188244, abs=1e-7)


@pytest.mark.parametrize("case", ["nothing inside", "one class", "no labels", "nobody is right", "sure of everything"])
def test_degenerate_batches(monkeypatch, case):
    example = Example(monkeypatch, 7)
    inputs, targets = example.inputs, example.targets
    if case == "nothing inside":
        inputs = {**inputs, "labeled_area": 0 * inputs["labeled_area"], "unlabeled_area": 0 * inputs["unlabeled_area"]}
    if case == "one class":
        targets = {**targets, "mask": 0 * targets["mask"]}
        inputs = {**inputs, **{half: np.abs(inputs[half]) * (1, -1, -1) for half in ("labeled", "unlabeled")}}
    if case == "no labels":
        targets = {**targets, "mask": np.full_like(targets["mask"], 255)}
    if case == "nobody is right":
        targets = {**targets, "mask": (inputs["labeled"].argmax(-1).astype("int32") + 1) % 3}
    if case == "sure of everything":
        inputs = {**inputs, **{half: 500 * inputs[half] for half in ("labeled", "unlabeled")}}
    inputs = {name: value.astype("float32" if value.ndim == 4 else "int32") for name, value in inputs.items()}
    found = numbers(losses_of(example.model, inputs, targets).terms)
    assert np.isfinite(list(found.values())).all()
    assert (found["mask_separation"] == 0) == (case != "sure of everything")
    assert (found["mask_smoothness"] == 0) == (case == "nothing inside")
    assert np.isfinite(pixels.total_of(example.model, inputs, targets))


def test_the_truth_takes_the_place_of_the_labels(monkeypatch):
    example = Example(monkeypatch, 8, pseudo_labels="truth")
    truth = np.random.default_rng(8).integers(0, 3, (2, 5, 5))
    truth[0, 1:3, 1:3] = 255
    shown = np.where(example.inside[1] > 0, truth, 255)
    prototypes = example.prototypes()
    expected = example.separation(example.shown["unlabeled"], shown, prototypes)
    assert abs(expected - example.separation(example.shown["unlabeled"], example.labels, prototypes)) > 1e-3
    found = losses_of(example.model, example.inputs, {**example.targets, "unlabeled_mask": truth.astype("int32")})
    assert numbers(found.figures)["separation_unlabeled"] == pytest.approx(expected, rel=1e-3)


def test_labels_are_the_network_s(monkeypatch):
    example = Example(monkeypatch, 9)
    _, unlabeled = pixels.views_of(example.model, example.inputs, example.targets)
    found = example.model.label(unlabeled)["mask"]
    np.testing.assert_array_equal(array(found.labels), example.shown["unlabeled"].argmax(-1))
    np.testing.assert_array_equal(array(found.kept), example.inside[1])


def test_more_classes_in_grey():
    grey = batches(steps=1, batch_size=4, unlabeled=3, channels=1, classes=4)
    model, history = fitted(SSNet, 1, grey, num_classes=4)
    assert_finite(model, history)
    assert len(model.selector.heads) == 3 and tuple(model.memory.prototypes.shape) == (4, 32, 32)


def test_defaults():
    model = made(SSNet)
    assert (model.lambda_consistency, model.lambda_separation, model.mask_loss) == (0.1, 0.1, "ce_dice")
    assert (model.epsilon, model.xi, model.iterations) == (None, None, 1) and not model.selects
    assert (model.prototypes, model.prototype_order, model.memory.order) == (32, "highest", "highest")
    assert (model.memory.size, model.memory.dim, model.smoothness_loss.smooth) == (32, 32, 1e-10)
    heads = model.separation_heads
    assert heads.projector.norm.epsilon == heads.predictor.norm.epsilon == 1e-5
    assert tuple(heads.projector.hidden.kernel.shape) == (4, 32) and heads.predictor.units == 32
    assert [head.negative_slope for head in model.selector.heads] == [0.2] and model.teacher is None
    assert made(SSNet, prototype_order="lowest", prototypes=5).memory.order == "lowest"
    assert keras.saving.get_registered_name(SSNet) == "keras_semimed>SSNet"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tasks": "both"}, "`tasks` of SSNet can only be 'segmentation', found 'both'"),
        ({"lambda_consistency": -0.1}, "`lambda_consistency` must be a number of at least 0, found -0.1"),
        ({"lambda_separation": -1}, "`lambda_separation` must be a number of at least 0, found -1"),
        ({"epsilon": 0.0}, "`epsilon` must be a positive number or None, found 0.0"),
        ({"xi": -3}, "`xi` must be a positive number or None, found -3"),
        ({"iterations": 0}, "`iterations` must be a whole number of at least 1, found 0"),
        ({"prototypes": 0}, "`prototypes` must be a whole number of at least 1, found 0"),
        ({"prototype_order": "best"}, "`prototype_order` must be one of 'highest', 'lowest', found 'best'"),
    ],
)
def test_errors_name_argument_and_value(wrong, message):
    with pytest.raises(ValueError, match=message):
        made(SSNet, **wrong)
