"""UniMatch on made outputs, against an independent NumPy reading of its equations."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.models import UniMatch
from tests.gradients import gradient
from tests.losses import test_dice
from tests.losses.helpers import finite_difference, softmax
from tests.models import pixelwise as pixels
from tests.models.common import arguments as tiny
from tests.models.pixelwise import array, batch, cross_entropies, losses_of, mean_cross_entropy, mixed, numbers

TAU = 0.6
STREAMS = ("mask_strong_1", "mask_strong_2", "mask_feature")


def model_with(monkeypatch, strong=None, boxes=None, factors=None, **arguments):
    """With the given two strong views, two kinds of boxes, and factors of the channels."""
    model = pixels.pixelwise(UniMatch, **{"threshold": TAU, **arguments})

    def in_turn(values):
        drawn = [0]

        def take(*sizes):
            drawn[0] += 1
            return ops.convert_to_tensor(values[(drawn[0] - 1) % len(values)])

        return take

    if strong is not None:
        monkeypatch.setattr(model.views, "strong", in_turn(strong))
    if boxes is not None:
        monkeypatch.setattr(model.cutmix, "boxes", in_turn(boxes))
    if factors is not None:
        monkeypatch.setattr(model.dropout, "draw", in_turn([factors]))
    return model


class Example:
    """A random batch, with what is drawn for it."""

    def __init__(self, seed, unlabeled=3):
        self.inputs, self.targets = batch(seed, unlabeled=unlabeled)
        self.weak = self.inputs["unlabeled"].astype("float64")
        self.strong = [batch(seed + k, unlabeled=unlabeled)[0]["unlabeled"] for k in (100, 200)]
        self.boxes = [pixels.random_boxes(seed + k, unlabeled) for k in (0, 50)]
        self.factors = 2.0 * np.random.default_rng(seed).integers(0, 2, (unlabeled, 3)).astype("float32")
        self.inside = pixels.area_mask(self.inputs["unlabeled_area"], 5)

    def model(self, monkeypatch, **arguments):
        return model_with(monkeypatch, self.strong, self.boxes, self.factors, **arguments)

    def logits(self):
        """Of the three streams."""
        views = [mixed(view, boxes) for view, boxes in zip(self.strong, self.boxes, strict=True)]
        return [*views, self.weak * self.factors[:, None, None, :]]

    def terms(self, logits=None, tau=TAU, form="ce"):
        """L_1, L_2 and L_fp, of labels of the weak view and logits of the three streams."""
        logits = self.logits() if logits is None else logits
        p = softmax(self.weak)
        return {
            name: stream(each, p, self.inside, boxes, tau, form)
            for name, each, boxes in zip(STREAMS, logits, (*self.boxes, None), strict=True)
        }


def stream(logits, p, inside, boxes, tau, form):
    """H(z, q, c, v), or the Dice D with the weights k."""
    fields = [p.argmax(-1), p.max(-1), inside]
    labels, confidence, valid = fields if boxes is None else (mixed(field, boxes) for field in fields)
    kept = valid * (confidence >= tau)
    if form == "ce":
        return np.sum(kept * cross_entropies(labels, logits)) / max(np.sum(valid), 1)
    found, predicted = 0.0, softmax(np.asarray(logits, "float64"))
    for k in range(p.shape[-1]):
        member = kept * (labels == k)
        overlap, squares = np.sum(member * predicted[..., k]), np.sum(kept * predicted[..., k] ** 2)
        found += 1 - (2 * overlap + 1e-5) / (squares + member.sum() + 1e-5)
    return found / p.shape[-1]


def test_weights_of_the_specification():
    model = pixels.pixelwise(UniMatch)
    terms = {"mask_supervised": 1.0, "mask_strong_1": 0.4, "mask_strong_2": 0.8, "mask_feature": 0.6}
    assert model.loss_weights.keys() == terms.keys()
    np.testing.assert_allclose(sum(model.loss_weights[name] * value for name, value in terms.items()), 0.8)
    given = pixels.pixelwise(UniMatch, lambda_strong=3.0, lambda_feature=5.0, loss_scale=2.0).loss_weights
    assert [given[name] for name in terms] == [2.0, 3.0, 3.0, 10.0]


def pixel_in_the_first_box(monkeypatch, strong):
    """One of the first image's two pixels lies in its first box; the partner is as sure of the other class."""
    weak = np.zeros((2, 2, 2, 3), "float32")
    weak[0, 0, 0, :2], weak[1, 0, 0, :2] = np.log((0.99, 0.01)), np.log((0.01, 0.99))
    boxes = np.zeros((2, 2, 2, 2), "float32")
    boxes[0, 0, 0, 0] = 1
    views = [np.full((2, 2, 2, 3), (*each, 0), "float32") for each in strong]
    model = model_with(monkeypatch, views, boxes, np.zeros((2, 3), "float32"), size=2, num_classes=2, threshold=0.95)
    # Two pixels of the first image and one of its partner are no padding.
    inputs = {
        "labeled": np.zeros((1, 2, 2, 3), "float32"),
        "unlabeled": weak,
        "unlabeled_area": np.array([(0, 0, 1, 2), (0, 0, 1, 1)], "int32"),
    }
    return model, inputs, {"mask": np.zeros((1, 2, 2), "int32")}


def test_the_numbers_of_the_specification(monkeypatch):
    even = np.log(2)
    for strong, expected in (
        (((0, 0), (0, 0)), (2 * even, 2 * even)),
        (((0, np.log(9)), (0, 0)), (2 * -np.log(0.9), 2 * even)),
        (((0, 0), (0, np.log(9))), (2 * even, -np.log(0.1) - np.log(0.9))),
    ):
        model, inputs, targets = pixel_in_the_first_box(monkeypatch, strong)
        found = pixels.terms_of(model, inputs, targets)
        # Two pixels as in the specification, of which one is unsure, and the partner's own, which is sure of class 1.
        np.testing.assert_allclose([found[name] for name in STREAMS[:2]], np.divide(expected, 3), rtol=1e-5)
        np.testing.assert_allclose(found["mask_feature"], 2 * even / 3, rtol=1e-5)


def test_the_dice_of_the_specification(monkeypatch):
    p, labels = np.array([(0.8, 0.2), (0.4, 0.6)]), np.array([(0.9, 0.1), (0.1, 0.9)])
    rows = [pixels.with_zeros(np.log(np.stack([each, np.full((2, 2), 0.5)])[None])) for each in (p, labels)]
    model = model_with(
        monkeypatch, [rows[0]], np.zeros((1, 1, 2, 2), "float32"), np.ones((1, 3), "float32"),
        size=2, num_classes=2, threshold=0.5, unlabeled_loss="dice",
    )  # fmt: skip
    inputs = {"labeled": rows[0], "unlabeled": rows[1], "unlabeled_area": np.array([(0, 0, 1, 2)], "int32")}
    found = pixels.terms_of(model, inputs, {"mask": np.array([[[0, 1], [255, 255]]], "int32")})
    dice = 1 - (1.6 / 1.8 + 1.2 / 1.4) / 2
    np.testing.assert_allclose([found[name] for name in STREAMS[:2]], dice, rtol=1e-4)
    # The labelled image has the same probabilities and labels: cross-entropy and Dice, a half each.
    np.testing.assert_allclose(found["mask_supervised"], (-np.log(0.8) / 2 - np.log(0.6) / 2 + dice) / 2, rtol=1e-4)


@pytest.mark.parametrize("form", ["ce", "dice"])
@pytest.mark.parametrize("seed", range(2))
def test_loss(monkeypatch, seed, form):
    example = Example(seed)
    model = example.model(monkeypatch, unlabeled_loss=form, lambda_strong=0.6, lambda_feature=0.8, loss_scale=0.7)
    masks, labeled = example.targets["mask"], example.inputs["labeled"]
    known = mean_cross_entropy(masks, labeled)
    if form == "dice":
        known = (known + test_dice.oracle(masks, softmax(labeled.astype("float64")), first=0)) / 2
    expected = {"mask_supervised": known, **example.terms(form=form)}
    found = pixels.terms_of(model, example.inputs, example.targets)
    assert list(found) == list(expected) and len(set(expected.values())) == 4
    for name, value in expected.items():
        assert value > 0.01
        np.testing.assert_allclose(found[name], value, rtol=1e-4, err_msg=name)
    first, second, feature = (expected[name] for name in STREAMS)
    total = 0.7 * (known + 0.3 * (first + second) + 0.8 * feature)
    np.testing.assert_allclose(pixels.total_of(model, example.inputs, example.targets), total, rtol=1e-4)


@pytest.mark.parametrize("form", ["ce", "dice"])
def test_slopes_by_the_logits_of_each_stream(monkeypatch, form):
    example = Example(3)
    model = example.model(monkeypatch, unlabeled_loss=form)
    views = pixels.views_of(model, example.inputs, example.targets)
    masks = example.targets["mask"]
    logits = [
        example.inputs["labeled"],
        example.inputs["unlabeled"],
        *(each.astype("float32") for each in example.logits()),
    ]

    def total(place, values):
        given = [{"mask_logits": values if place == index else each} for index, each in enumerate(logits)]
        with monkeypatch.context() as patch, keras.StatelessScope():
            patch.setattr(model, "decode", lambda *features: given)
            terms = model.terms(*views).terms
        return sum(model.loss_weights[name] * term for name, term in terms.items())

    def reading(place, values):
        if place == 0:
            dice = test_dice.oracle(masks, softmax(values), first=0)
            return 0.5 * (
                mean_cross_entropy(masks, values) if form == "ce" else (mean_cross_entropy(masks, values) + dice) / 2
            )
        streams = [values if place == index + 2 else each for index, each in enumerate(example.logits())]
        terms = example.terms(streams, form=form)
        return 0.125 * (terms[STREAMS[0]] + terms[STREAMS[1]]) + 0.25 * terms[STREAMS[2]]

    for place, values in enumerate(logits):
        found = gradient(lambda x, place=place: total(place, x), values)
        if place == 1:
            assert not found.any()  # the weak logits only make labels
            continue
        expected = finite_difference(lambda x, place=place: reading(place, x), values, step=1e-4)
        assert np.abs(expected).max() > 3e-4
        np.testing.assert_allclose(found, expected, atol=5e-7)


@pytest.mark.parametrize("form", ["ce", "dice"])
def test_the_feature_stream_alone_trains_the_encoder_on_the_weak_view(monkeypatch, form):
    example = Example(4)
    model = example.model(monkeypatch, unlabeled_loss=form)
    views = pixels.views_of(model, example.inputs, example.targets)
    weak, streams = example.weak, example.logits()

    def reading(gain):
        return example.terms([*streams[:2], streams[2] * gain], form=form)["mask_feature"]

    found = pixels.slope(model.network.network.gain, lambda: model.terms(*views).terms["mask_feature"])
    expected = finite_difference(reading, np.ones(3))
    assert np.abs(expected).max() > 0.005
    np.testing.assert_allclose(found, expected, atol=2e-6)
    by_image = pixels.slope_by_images(model, views, "mask_feature")
    dropped = np.broadcast_to(example.factors[:, None, None, :] == 0, weak.shape)
    assert by_image.any() and (example.factors == 0).any()
    assert not pixels.slope_by_images(model, views, "mask_strong_1").any()
    # The kernel is the identity, and the features are the images: a dropped channel passes no slope on.
    assert not by_image[dropped].any()


def test_one_pass_of_the_encoder_and_one_of_the_decoder(monkeypatch):
    example = Example(5)
    model = example.model(monkeypatch, teacher_momentum=0.9)
    losses_of(model, example.inputs, example.targets)
    first, second, dropped = example.logits()
    log = model.network.network.log
    ((decoded, training),) = log.decoded
    assert training is True and not model.teacher.network.log.passes
    views = [example.inputs["labeled"], example.inputs["unlabeled"], first, second]
    np.testing.assert_allclose(array(decoded), np.concatenate([*views, dropped]), rtol=1e-6)
    ((images, training),) = pixels.seen(model.network)
    assert training is True
    np.testing.assert_allclose(images, np.concatenate(views), rtol=1e-6)


@pytest.mark.parametrize("host", [False, True])
def test_strong_views_are_two_of_which_the_host_makes_one_at_most(monkeypatch, host):
    example = Example(6)
    model = pixels.pixelwise(UniMatch, cutmix_probability=0.0)
    calls = []
    monkeypatch.setattr(model.views, "strong", lambda images: calls.append(0) or images + 10.0 * len(calls))
    made = {"unlabeled_strong": 255 - example.inputs["unlabeled"]} if host else {}
    losses_of(model, {**example.inputs, **made}, example.targets)
    ((images, _),) = pixels.seen(model.network)
    first, second = images[5:8], images[8:]
    weak = example.inputs["unlabeled"]
    np.testing.assert_allclose(first, 255 - weak if host else weak + 10, rtol=1e-5)
    np.testing.assert_allclose(second, weak + (10 if host else 20), rtol=1e-5)


def test_colours_boxes_and_channels_are_drawn_apart_and_anew():
    inputs, targets = batch(7)
    inputs["unlabeled"] = 20 * inputs["unlabeled"] + 128
    model = pixels.pixelwise(UniMatch, cutmix_probability=1.0)
    log = model.network.network.log
    for _ in range(2):
        losses_of(model, inputs, targets)
    steps = [array(decoded) for decoded, _ in log.decoded]
    for step in steps:
        first, second, dropped = step[5:8], step[8:11], step[11:]
        assert np.abs(first - second).mean() > 1
        factors = dropped / step[2:5]
        assert set(np.unique(np.round(factors, 4))) == {0, 2}
        np.testing.assert_allclose(factors, np.broadcast_to(factors[:, :1, :1], factors.shape), atol=1e-4)
    assert all(np.abs(steps[0][rows] - steps[1][rows]).mean() > 1 for rows in (slice(5, 8), slice(11, 14)))


@pytest.mark.parametrize("form", ["ce", "dice"])
@pytest.mark.parametrize("case", ["above one", "nothing inside", "zero", "one class", "no labels"])
def test_degenerate_batches(monkeypatch, case, form):
    example = Example(8)
    if case == "nothing inside":
        example.inputs["unlabeled_area"] = np.ones_like(example.inputs["unlabeled_area"])
        example.inside = np.zeros_like(example.inside)
    if case == "one class":
        example.inputs["unlabeled"][..., 0] += 50
        example.weak[..., 0] += 50
    if case == "no labels":
        example.targets["mask"][:] = 255
    tau = {"above one": 1.01, "zero": 0.0}.get(case, TAU)
    model = example.model(monkeypatch, threshold=tau, unlabeled_loss=form)
    views = pixels.views_of(model, example.inputs, example.targets)
    found = numbers(model.terms(*views).terms)
    expected = example.terms(tau=tau, form=form)
    for name in STREAMS:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-7)
        if case in ("above one", "nothing inside"):
            assert found[name] == 0
            kernel = pixels.kernel_of(model.network)
            assert not pixels.slope(kernel, lambda name=name: model.terms(*views).terms[name]).any()
    assert (found["mask_supervised"] == 0) == (case == "no labels")
    assert np.isfinite(pixels.total_of(model, example.inputs, example.targets))


def test_labels_and_figures(monkeypatch):
    example = Example(9)
    model = example.model(monkeypatch)
    p = softmax(example.weak)
    views = pixels.views_of(model, example.inputs, example.targets)
    for found in (model.label(views[1])["mask"], model.terms(*views).pseudo["mask"]):
        np.testing.assert_array_equal(array(found.labels), p.argmax(-1))
        np.testing.assert_array_equal(array(found.kept), example.inside * (p.max(-1) >= TAU))
    predicted = array(model.infer(ops.convert_to_tensor(example.inputs["unlabeled"]))["mask"])
    np.testing.assert_allclose(predicted, p, rtol=1e-5)  # no channel is dropped


@pytest.mark.parametrize("form", ["ce", "dice"])
def test_the_truth_is_moved_and_mixed_as_its_image_is(monkeypatch, form):
    model = pixels.pixelwise(
        UniMatch, pseudo_labels="truth", threshold=1.01, cutmix_probability=1.0, feature_dropout=0.0,
        unlabeled_loss=form, views={"vertical_flip": True, "scale": (1.0, 1.0), "shift": 0.0},
    )  # fmt: skip
    monkeypatch.setattr(model.views, "strong", lambda images: images)
    true, false = pixels.oracle_losses(model)
    for name in STREAMS:
        assert numbers(true.terms)[name] < 1e-6 < 0.3 < numbers(false.terms)[name]


def test_every_level_that_a_deeplab_s_decoder_takes_loses_channels(monkeypatch):
    model = UniMatch(**tiny(network="deeplab", decoder_filters=8, threshold=0.0))
    inputs, targets = batch(10, 2, 2, size=32)
    targets["mask"] = np.where(targets["mask"] == 2, 1, targets["mask"])
    views = pixels.views_of(model, inputs, targets)
    drawn, draw = [], model.dropout.draw
    monkeypatch.setattr(model.dropout, "draw", lambda *sizes: drawn.append(sizes) or draw(*sizes))
    found = numbers(model.terms(*views).terms)
    assert {(2, 8), (2, 20)} <= set(drawn)
    assert all(np.isfinite(value) and value > 0 for value in found.values())


def test_defaults():
    model = pixels.pixelwise(UniMatch)
    assert (model.threshold, model.lambda_strong, model.lambda_feature, model.loss_scale) == (0.95, 0.5, 0.5, 0.5)
    assert (model.feature_dropout, model.dropout.rate) == (0.5, 0.5)
    assert (model.cutmix_probability, model.cutmix.probability) == (0.5, 0.5)
    assert (model.unlabeled_loss, model.mask_loss, model.tasks, model.teacher) == ("ce", "ce", "segmentation", None)
    assert pixels.pixelwise(UniMatch, unlabeled_loss="dice").mask_loss == "ce_dice"
    assert pixels.pixelwise(UniMatch, unlabeled_loss="dice", mask_loss="ce").mask_loss == "ce"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tasks": "classification"}, "`tasks` of UniMatch can only be 'segmentation', found 'classification'"),
        ({"threshold": -0.5}, "`threshold` must be a number of at least 0, found -0.5"),
        ({"unlabeled_loss": "dise"}, "`unlabeled_loss` must be one of .* found 'dise'. Did you mean 'dice'"),
        ({"feature_dropout": 1.0}, r"`feature_dropout` must be in \[0, 1\).* found 1.0"),
        ({"lambda_strong": -1}, "`lambda_strong` must be a number of at least 0, found -1"),
        ({"lambda_feature": -1}, "`lambda_feature` must be a number of at least 0, found -1"),
        ({"cutmix_probability": -1}, r"`cutmix_probability` must be within \[0, 1\], found -1"),
    ],
)
def test_errors_name_argument_and_value(wrong, message):
    with pytest.raises(ValueError, match=message):
        UniMatch(**wrong)
