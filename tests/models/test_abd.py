"""ABD on made outputs, against an independent NumPy reading of its equations."""

from __future__ import annotations

from unittest import mock

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.models import ABD, Losses
from tests.gradients import jacobian
from tests.layers.test_displacement import displaced_by_hand, moves_by_hand
from tests.losses import test_dice
from tests.losses.helpers import finite_difference, softmax
from tests.models import pixelwise as pixels
from tests.models.common import made
from tests.models.pixelwise import array, batch, losses_of, mean_cross_entropy, numbers

OWN, OTHER = np.eye(3), np.array([[0.3, 1.0, -0.6], [-0.8, 0.4, 0.9], [1.1, -0.5, 0.2]])
"""What the second network's logits are of the colours; the first one's are the colours."""
SIZE, GRID, CANDIDATES = 6, 3, 4
DRAWN = np.array([1, 0, 1], "float32")


def supervised(masks, logits):
    """(CE + Dice) / 2 of the foreground."""
    logits = np.asarray(logits, "float64")
    return (mean_cross_entropy(masks, logits) + test_dice.oracle(masks, softmax(logits))) / 2


def dice(logits, labels, inside):
    """D: all classes, over the pixels inside."""
    labels = np.where(inside > 0, labels, 255)
    return test_dice.oracle(labels, softmax(np.asarray(logits, "float64")), first=0)


class Example:
    """A random batch in which the networks are of one matrix each; the strong views have other colours."""

    def __init__(self, monkeypatch, seed, labeled=2, unlabeled=3, **arguments):
        self.inputs, self.targets = batch(seed, labeled, unlabeled, size=SIZE)
        self.drawn = DRAWN[:labeled]
        areas = (pixels.area_mask(self.inputs[f"{half}_area"], SIZE) for half in ("labeled", "unlabeled"))
        self.labeled_inside, self.inside = areas
        given = {"size": SIZE, "grid": GRID, "candidates": CANDIDATES}
        self.model = pixels.pixelwise(ABD, **{**given, **arguments})
        pixels.kernel_of(self.model.networks[1]).assign(OTHER)
        monkeypatch.setattr(self.model.views, "strong", lambda images: 0.8 * ops.flip(images, axis=-1))
        monkeypatch.setattr(self.model.inverse, "draw", lambda count: ops.convert_to_tensor(self.drawn))

    def views(self, half):
        """The weak and the strong view of a half."""
        return self.inputs[half], 0.8 * self.inputs[half][..., ::-1]

    def displaced(self, half):
        """Images, inside and masks after the displacement: first of the weak views, then of the strong ones."""
        weak, strong = self.views(half)
        kind = "inverse" if half == "labeled" else "reliable"
        places = moves_by_hand(kind, weak, strong @ OTHER, GRID, CANDIDATES)
        drawn = self.drawn if half == "labeled" else np.ones(len(weak))
        inside = self.labeled_inside if half == "labeled" else self.inside
        masks = self.targets["mask"] if half == "labeled" else self.targets.get("unlabeled_mask", inside)
        pairs = (weak, strong), (inside, inside), (masks, masks)
        return [np.concatenate(displaced_by_hand(*pair, places, drawn, GRID)) for pair in pairs]

    def terms(self, first=OWN, second=OTHER, labels=None):
        """The four terms for the matrices of both networks, and what each of them labels: constants."""
        weak, strong = self.views("unlabeled")
        images, inside, _ = self.displaced("unlabeled")
        known = self.views("labeled")
        inverse, _, masks = self.displaced("labeled")
        y1, y2, r1, r2 = self.labels() if labels is None else labels
        return {
            "mask_supervised": supervised(self.targets["mask"], known[0] @ first)
            + supervised(self.targets["mask"], known[1] @ second),
            "mask_inverse": supervised(masks, inverse @ first) + supervised(masks, inverse @ second),
            "mask_cross": dice(weak @ first, y2, self.inside) + dice(strong @ second, y1, self.inside),
            "mask_reliable": dice(images @ first, r2, inside) + dice(images @ second, r1, inside),
        }

    def labels(self):
        """y1 of the weak views, y2 of the strong ones, and of both networks for all displaced ones."""
        weak, strong = self.views("unlabeled")
        images = self.displaced("unlabeled")[0]
        return [each.argmax(-1) for each in (weak, strong @ OTHER, images, images @ OTHER)]


def slopes_of(model, views):
    """Slopes of each term by the matrices of both networks."""
    kernels = dict(zip(("first", "second"), map(pixels.kernel_of, model.networks), strict=True))

    def terms(matrices):
        with keras.StatelessScope(state_mapping=[(kernels[name], matrix) for name, matrix in matrices.items()]):
            found = model.terms(*views).terms
        return ops.stack([found[term] for term in model.loss_weights])

    slopes = jacobian(terms, {name: array(kernel.value) for name, kernel in kernels.items()})
    return {name: dict(zip(model.loss_weights, rows, strict=True)) for name, rows in slopes.items()}


@pytest.mark.parametrize(("labeled", "unlabeled"), [(2, 3), (3, 1), (2, 2)])
@pytest.mark.parametrize("seed", range(2))
def test_loss(monkeypatch, seed, labeled, unlabeled):
    example = Example(monkeypatch, seed, labeled, unlabeled)
    found = losses_of(example.model, example.inputs, example.targets)
    expected = example.terms()
    assert list(found.terms) == list(expected) and min(expected.values()) > 0.1
    np.testing.assert_allclose(list(numbers(found.terms).values()), list(expected.values()), rtol=1e-4)
    # What the networks learn after the displacement is not what they learn before it.
    assert abs(expected["mask_inverse"] - expected["mask_supervised"]) > 0.01
    assert abs(expected["mask_cross"] - expected["mask_reliable"]) > 0.01
    np.testing.assert_array_equal(array(found.pseudo["mask"].labels), example.labels()[1])
    np.testing.assert_array_equal(array(found.pseudo["mask"].kept), example.inside)
    example.model.step.assign(5)
    weights = {"mask_supervised": 1, "mask_inverse": 1, "mask_cross": 0.0286505, "mask_reliable": 0.0286505}
    total = sum(weights[name] * expected[name] for name in expected)
    np.testing.assert_allclose(pixels.total_of(example.model, example.inputs, example.targets), total, rtol=1e-4)


def test_what_each_network_sees(monkeypatch):
    example = Example(monkeypatch, 4)
    losses_of(example.model, example.inputs, example.targets)
    both = np.concatenate([example.displaced("labeled")[0], example.displaced("unlabeled")[0]])
    for index, network in enumerate(example.model.networks):
        (first, training), (second, again) = pixels.seen(network)
        assert training is True and again is True
        views = np.concatenate([example.views(half)[index] for half in ("labeled", "unlabeled")])
        np.testing.assert_allclose(first, views, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(second, both, rtol=1e-5, atol=1e-6)


def test_images_that_are_not_drawn_stay_in_the_batch_as_they_are(monkeypatch):
    example = Example(monkeypatch, 5)
    example.drawn = np.zeros(2, "float32")
    found = numbers(losses_of(example.model, example.inputs, example.targets).terms)
    images, masks = np.concatenate(example.views("labeled")), np.tile(example.targets["mask"], (2, 1, 1))
    expected = supervised(masks, images) + supervised(masks, images @ OTHER)
    np.testing.assert_allclose(found["mask_inverse"], expected, rtol=1e-4)
    example.drawn = np.ones(2, "float32")
    assert (
        abs(numbers(losses_of(example.model, example.inputs, example.targets).terms)["mask_inverse"] - expected) > 0.01
    )


def test_the_dice_of_the_specification():
    model = pixels.pixelwise(ABD, size=4, num_classes=2)
    logits = np.log([[[(0.9, 0.1), (0.4, 0.6)]]]).astype("float32")
    labels = np.zeros((1, 1, 2), "int32")
    for inside, expected in (((1, 1), 0.5622758), ((1, 0), 0.5022629), ((0, 0), 0.0)):
        found = model.cross_supervision(logits, logits, np.array([[inside]], "float32"), labels, labels)
        np.testing.assert_allclose(array(found), 2 * expected, rtol=1e-5)


def test_the_total_of_the_specification():
    model = pixels.pixelwise(ABD, size=4)
    inputs, targets = batch(0, size=4)
    values = {"mask_supervised": 1.2, "mask_inverse": 1.5, "mask_cross": 0.8, "mask_reliable": 0.6}
    terms = {name: ops.convert_to_tensor(value, "float32") for name, value in values.items()}
    model.step.assign(5)
    with mock.patch.object(model, "terms", lambda *views: Losses(terms)):
        np.testing.assert_allclose(pixels.total_of(model, inputs, targets), 2.7401107, rtol=1e-6)


def test_weights_through_the_run():
    model = pixels.pixelwise(ABD, size=4, lambda_inverse=2.0, lambda_cross=0.4)
    for step, ramp in ((0, np.exp(-5)), (5, np.exp(-1.25)), (10, 1)):
        model.step.assign(step)
        weights = numbers({name: ops.convert_to_tensor(weight) for name, weight in model.loss_weights.items()})
        expected = {"mask_supervised": 1, "mask_inverse": 2, "mask_cross": 0.4 * ramp, "mask_reliable": 0.4 * ramp}
        assert weights == pytest.approx(expected)


def test_slopes_of_each_network_by_its_own_prediction(monkeypatch):
    """With labels and moves that stay where they are: neither carries a gradient."""
    example = Example(monkeypatch, 6)
    views = pixels.views_of(example.model, example.inputs, example.targets)
    labels = example.labels()
    slopes = slopes_of(example.model, views)
    for student, name in enumerate(("first", "second")):
        for term, found in slopes[name].items():
            expected = finite_difference(
                lambda matrix, term=term, name=name: example.terms(labels=labels, **{name: matrix})[term],
                (OWN, OTHER)[student],
            )
            assert np.abs(expected).max() > 0.002
            np.testing.assert_allclose(found, expected, atol=2e-5, err_msg=f"{name} {term}")


@pytest.mark.parametrize("case", ["nothing inside", "one class", "no labels", "sure of everything"])
def test_degenerate_batches(monkeypatch, case):
    example = Example(monkeypatch, 7)
    if case == "nothing inside":
        example.inputs["unlabeled_area"] = np.ones_like(example.inputs["unlabeled_area"])
    if case == "one class":
        for half in ("labeled", "unlabeled"):
            example.inputs[half][..., 1] = 20
        example.targets["mask"][:] = 1
    if case == "no labels":
        example.targets["mask"][:] = 255
    if case == "sure of everything":
        for half in ("labeled", "unlabeled"):
            example.inputs[half] *= 100
    losses = losses_of(example.model, example.inputs, example.targets)
    found = numbers(losses.terms)
    assert np.isfinite(list(found.values())).all()
    hidden, known = (found["mask_cross"], found["mask_reliable"]), (found["mask_supervised"], found["mask_inverse"])
    assert (hidden == (0, 0)) == (case == "nothing inside") and (known == (0, 0)) == (case == "no labels")
    views = pixels.views_of(example.model, example.inputs, example.targets)
    for slopes in slopes_of(example.model, views).values():
        assert np.isfinite(list(slopes.values())).all()
        for term, value in found.items():
            assert value or not slopes[term].any(), term
    assert np.isfinite(pixels.total_of(example.model, example.inputs, example.targets))


def test_equal_networks_on_equal_views_teach_each_other_what_they_see(monkeypatch):
    """Without other colours the second network, of the same matrix, says what the first one says."""
    example = Example(monkeypatch, 8)
    monkeypatch.setattr(example.model.views, "strong", lambda images: images)
    pixels.take_channels(example.model.networks[1], 0)
    losses = losses_of(example.model, example.inputs, example.targets)
    weak = example.views("unlabeled")[0]
    expected = 2 * dice(weak, weak.argmax(-1), example.inside)
    np.testing.assert_allclose(numbers(losses.terms)["mask_cross"], expected, rtol=1e-5)


def test_the_second_network_labels_the_strong_view_and_the_first_one_predicts(monkeypatch):
    example = Example(monkeypatch, 9)
    _, unlabeled = pixels.views_of(example.model, example.inputs, example.targets)
    weak, strong = example.views("unlabeled")
    for other, images in ((example.model.strong(unlabeled), strong), (None, weak)):
        found = example.model.label(unlabeled, other)["mask"]
        np.testing.assert_array_equal(array(found.labels), (images @ OTHER).argmax(-1))
        np.testing.assert_array_equal(array(found.kept), example.inside)
    predicted = array(example.model.infer(ops.convert_to_tensor(example.inputs["unlabeled"]))["mask"])
    np.testing.assert_allclose(predicted, softmax(example.inputs["unlabeled"]), rtol=1e-4, atol=1e-6)
    assert not example.model.selects


def test_the_truth_is_moved_as_its_image_is(monkeypatch):
    model = pixels.pixelwise(
        ABD, size=SIZE, grid=GRID, pseudo_labels="truth",
        views={"vertical_flip": True, "scale": (1.0, 1.0), "shift": 0.0},
    )  # fmt: skip
    monkeypatch.setattr(model.views, "strong", lambda images: images)
    true, false = pixels.oracle_losses(model)
    right, wrong = numbers(true.terms), numbers(false.terms)
    for name in ("mask_cross", "mask_reliable"):
        assert right[name] < 1e-4 < 0.5 < wrong[name]


def test_two_networks_of_the_package_start_apart_but_for_the_encoder():
    model = made(ABD)
    ours, theirs = (network.network.get_weights() for network in model.networks)
    assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(ours, theirs, strict=True))
    for first, second in zip(*(network.encoders[0].get_weights() for network in model.networks), strict=True):
        np.testing.assert_array_equal(first, second)


def test_more_classes_grey_images_and_other_halves():
    model = made(ABD, num_classes=4, grid=8)
    random = np.random.default_rng(0)
    x = {half: random.integers(0, 256, (n, 32, 32, 1), "uint8") for half, n in (("labeled", 3), ("unlabeled", 1))}
    masks = random.integers(0, 4, (3, 32, 32)).astype("uint8")
    masks[0, :9] = 255
    terms = numbers(model.terms(*model.training_views(x, {"mask": masks})).terms)
    assert np.isfinite(list(terms.values())).all() and min(terms.values()) > 0


def test_defaults():
    model = made(ABD)
    assert (model.grid, model.candidates, model.displacement_probability) == (4, 4, 0.5)
    assert (model.lambda_inverse, model.lambda_cross, model.mask_loss, model.tasks) == (
        1,
        0.1,
        "ce_dice",
        "segmentation",
    )
    for layer, kind in ((model.inverse, "inverse"), (model.reliable, "reliable")):
        assert (layer.kind, layer.grid, layer.candidates, layer.probability) == (kind, 4, 4, 0.5)
    assert model.teacher is None and len(model.networks) == 2
    changed = made(ABD, grid=8, candidates=2, displacement_probability=0.25)
    assert [(each.grid, each.candidates) for each in (changed.inverse, changed.reliable)] == [(8, 2)] * 2
    assert changed.inverse.probability == 0.25


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tasks": "classification"}, "`tasks` of ABD can only be 'segmentation', found 'classification'"),
        ({"grid": 5}, "`grid` must divide `image_size`, 32 pixels, found 5"),
        ({"grid": 0}, "`grid` must be a whole number of at least 1, found 0"),
        ({"candidates": 0}, "`candidates` must be a whole number of at least 1, found 0"),
        ({"candidates": 17}, "`candidates` must be at most `grid` squared, 16, found 17 with a `grid` of 4"),
        ({"grid": 1}, "`candidates` must be at most `grid` squared, 1, found 4 with a `grid` of 1"),
        ({"displacement_probability": 1.5}, r"`displacement_probability` must be within \[0, 1\], found 1.5"),
        ({"lambda_inverse": -1}, "`lambda_inverse` must be a number of at least 0, found -1"),
        ({"lambda_cross": float("nan")}, "`lambda_cross` must be a number of at least 0, found nan"),
    ],
)
def test_errors_name_argument_and_value(wrong, message):
    with pytest.raises(ValueError, match=message):
        made(ABD, **wrong)
