"""ShrinkMatch on made outputs, against an independent NumPy reading of its equations."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.layers import MLPHead
from keras_semimed.models import FixMatch, ShrinkMatch
from keras_semimed.networks.contract import Head
from tests.losses.helpers import finite_difference, softmax
from tests.losses.test_shrunk_space import by_hand
from tests.models import pixelwise as pixels
from tests.models.common import made, tiny_encoder
from tests.models.pixelwise import array, mean_cross_entropy, number, numbers

TAU, SIZE = 0.6, 4


class Weighed(keras.layers.Layer):
    """Auxiliary logits: the features backwards, times a number."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.factor = self.add_weight(shape=(), initializer=keras.initializers.Constant(0.5), name="factor")

    def call(self, features):
        return self.factor * ops.flip(features, axis=-1)


class Backwards(ShrinkMatch):
    """With an auxiliary head that is known."""

    @property
    def heads(self):
        return {"auxiliary": Head("pooled", lambda width, **named: Weighed(**named))} if self.shrinks else {}


class Example:
    """A random batch; the logits of an image are the means of its pixels."""

    def __init__(self, seed, classes=4, labeled=3, unlabeled=6, padded=True):
        random = np.random.default_rng(seed)

        def images(count):
            means = random.normal(0, 1.5, (count, 1, 1, classes))
            return (means + random.normal(0, 1, (count, SIZE, SIZE, classes))).astype("float32")

        self.inputs = {"labeled": images(labeled), "unlabeled": images(unlabeled)}
        self.strong = images(unlabeled)
        self.inside = np.ones(unlabeled)
        if padded:  # nothing is left of the last image
            self.inside[-1] = 0
            area = np.tile([0, 0, SIZE, SIZE], (unlabeled, 1))
            area[-1] = 0
            self.inputs["unlabeled_area"] = area.astype("int32")
        labels = random.integers(0, classes, labeled)
        labels[0] = 255
        self.targets = {"label": labels.astype("int32")}

    def model(self, monkeypatch, method=Backwards, **arguments):
        classes = self.strong.shape[-1]
        given = {"num_labels": classes, "threshold": TAU, "tasks": "classification", **arguments}
        model = pixels.pixelwise(method, size=SIZE, channels=classes, **given)
        monkeypatch.setattr(model.views, "strong", lambda images: ops.convert_to_tensor(self.strong))
        return model

    def means(self, name):
        return (self.strong if name == "strong" else self.inputs[name]).astype("float64").mean((1, 2))

    def terms(self, soft=True, ratio=None, p=None, strong=None, auxiliary=None, tau=TAU):
        """The three terms and the share of certain images; without a ratio the share itself weighs."""
        p = softmax(self.means("unlabeled")) if p is None else p
        strong = self.means("strong") if strong is None else strong
        auxiliary = 0.5 * self.means("strong")[:, ::-1] if auxiliary is None else auxiliary
        unlabeled = shrunk = certain = 0.0
        losses, weights, *_ = by_hand(p, auxiliary, tau)
        for u in np.flatnonzero(self.inside):
            logarithms = pixels.log_softmax(strong[u])
            if p[u].max() >= tau:
                certain += 1
                unlabeled -= (p[u] * logarithms).sum() if soft else logarithms[p[u].argmax()]
            shrunk += weights[u] * losses[u]
        images = max(self.inside.sum(), 1)
        share = certain / images
        return {
            "label_supervised": mean_cross_entropy(self.targets["label"], self.means("labeled")),
            "label_unlabeled": unlabeled / images,
            "label_shrunk": (share if ratio is None else ratio) * shrunk / images,
        }, share


def assert_terms(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("classes", [3, 4, 6])
def test_loss(monkeypatch, classes, soft):
    example = Example(classes, classes)
    model = example.model(monkeypatch, soft_labels=soft, lambda_unlabeled=2.0)
    expected, share = example.terms(soft)
    found = pixels.losses_of(model, example.inputs, example.targets)
    assert_terms(numbers(found.terms), expected)
    assert 0 < share < 1 and min(expected.values()) > 0.001
    np.testing.assert_allclose(number(found.figures["ratio"]), share, rtol=1e-5)
    again = example.model(monkeypatch, soft_labels=soft, lambda_unlabeled=2.0)
    total = expected["label_supervised"] + 2 * (expected["label_unlabeled"] + expected["label_shrunk"])
    np.testing.assert_allclose(pixels.total_of(again, example.inputs, example.targets), total, rtol=1e-4)


def test_the_ratio_takes_in_a_step_and_then_weighs_it(monkeypatch):
    ratio, model, examples = None, None, [Example(seed) for seed in (4, 1, 2)]
    model = examples[0].model(monkeypatch, ratio_momentum=0.75)
    for example in examples:
        monkeypatch.setattr(model.views, "strong", lambda images, given=example: ops.convert_to_tensor(given.strong))
        share = example.terms()[1]
        ratio = share if ratio is None else 0.75 * ratio + 0.25 * share
        found = pixels.losses_of(model, example.inputs, example.targets)
        assert_terms(numbers(found.terms), example.terms(ratio=ratio)[0])
        np.testing.assert_allclose(number(model.ratio.value), ratio, rtol=1e-5)
    assert len({example.terms()[1] for example in examples}) > 1
    # A batch that shows nothing leaves it.
    nothing = {**examples[0].inputs, "unlabeled_area": np.zeros((6, 4), "int32")}
    found = numbers(pixels.losses_of(model, nothing, examples[0].targets).terms)
    assert found["label_unlabeled"] == found["label_shrunk"] == 0
    np.testing.assert_allclose(number(model.ratio.value), ratio, rtol=1e-5)
    assert int(array(model.ratio.updates)) == 3


def test_the_shares_of_the_specification(monkeypatch):
    """0.25, then 0.75 of the images are certain: the ratio is 0.25, then 0.2505."""
    example = Example(0, unlabeled=4, padded=False)
    model = example.model(monkeypatch, threshold=0.95)
    sure, unsure = np.array([9.0, 0, 0, 0]), np.array([1.0, 0.8, 0, 0])
    for certain, expected in ((1, 0.25), (3, 0.2505)):
        rows = np.stack([sure] * certain + [unsure] * (4 - certain))
        images = np.broadcast_to(rows[:, None, None, :], (4, SIZE, SIZE, 4)).astype("float32")
        pixels.losses_of(model, {**example.inputs, "unlabeled": images}, example.targets)
        np.testing.assert_allclose(number(model.ratio.value), expected, rtol=1e-5)


def test_the_numbers_of_the_specification(monkeypatch):
    """An uncertain image beside a certain one: L_s = 0.17329, times the share 1/2."""
    example = Example(0, unlabeled=2, padded=False)
    p = np.array([[0.5, 0.3, 0.15, 0.05], [0.9, 0.05, 0.03, 0.02]])
    images = np.broadcast_to(np.log(p)[:, None, None, :], (2, SIZE, SIZE, 4)).astype("float32")
    example.strong = np.zeros_like(images)
    model = example.model(monkeypatch, threshold=0.8)
    found = pixels.terms_of(model, {**example.inputs, "unlabeled": images}, example.targets)
    np.testing.assert_allclose(found["label_shrunk"], 0.5 * 0.17329, atol=1e-5)
    np.testing.assert_allclose(found["label_unlabeled"], np.log(4) / 2, rtol=1e-5)


def test_alignment_comes_before_everything(monkeypatch):
    model, ratio, queue = None, None, np.zeros((2, 4))
    for index, seed in enumerate((0, 1, 2)):
        example = Example(seed)
        model = model or example.model(monkeypatch, distribution_alignment=2)
        monkeypatch.setattr(model.views, "strong", lambda images, given=example: ops.convert_to_tensor(given.strong))
        p = softmax(example.means("unlabeled"))
        queue[index % 2] = p[example.inside > 0].mean(0)
        p = p / queue.mean(0)
        p = p / p.sum(-1, keepdims=True)
        share = example.terms(p=p)[1]
        ratio = share if ratio is None else 0.999 * ratio + 0.001 * share
        found = pixels.losses_of(model, example.inputs, example.targets)
        assert_terms(numbers(found.terms), example.terms(p=p, ratio=ratio)[0])
        pseudo = found.pseudo["label"]
        np.testing.assert_array_equal(array(pseudo.labels), p.argmax(-1))
        np.testing.assert_array_equal(array(pseudo.kept), example.inside * (p.max(-1) >= TAU))
        np.testing.assert_allclose(array(pseudo.probabilities), p, rtol=1e-4)
        assert (p.argmax(-1) != softmax(example.means("unlabeled")).argmax(-1)).any() or index
    before = [array(v.value) for v in model.alignment.variables]
    labels = model.label(pixels.views_of(model, example.inputs, example.targets)[1])["label"]
    np.testing.assert_array_equal(array(labels.labels), p.argmax(-1))
    for variable, value in zip(model.alignment.variables, before, strict=True):
        np.testing.assert_array_equal(array(variable.value), value)


@pytest.mark.parametrize("soft", [True, False])
def test_slopes(monkeypatch, soft):
    """By the classifier's kernel, by the auxiliary head, and by what is before both."""
    example = Example(3)
    model = example.model(monkeypatch, soft_labels=soft)
    views = pixels.views_of(model, example.inputs, example.targets)
    fixed, known, strong = softmax(example.means("unlabeled")), example.means("labeled"), example.means("strong")

    def slope(variable, name):
        return pixels.slope(variable, lambda: model.terms(*views).terms[f"label_{name}"])

    kernel = pixels.kernel_of(model.network, "label")
    expected = {
        "supervised": finite_difference(lambda k: mean_cross_entropy(example.targets["label"], known @ k), np.eye(4)),
        "unlabeled": finite_difference(
            lambda k: example.terms(soft, p=fixed, strong=strong @ k)[0]["label_unlabeled"], np.eye(4)
        ),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(slope(kernel, name), values, atol=1e-5, err_msg=name)
        assert np.abs(values).max() > 0.01
    # Targets of smaller spaces stay out of the classifier, and reach the head and the features.
    assert not slope(kernel, "shrunk").any()
    factor = model.network.head_layers["auxiliary"].factor
    expected = finite_difference(
        lambda f: example.terms(p=fixed, auxiliary=f * strong[:, ::-1])[0]["label_shrunk"], np.array(0.5)
    )
    np.testing.assert_allclose(slope(factor, "shrunk"), expected, atol=1e-5)
    assert np.abs(expected) > 0.001 and not slope(factor, "unlabeled").any()
    gain = model.network.network.gain
    expected = finite_difference(
        lambda g: example.terms(p=fixed, auxiliary=0.5 * (g * strong)[:, ::-1])[0]["label_shrunk"], np.ones(4)
    )
    np.testing.assert_allclose(slope(gain, "shrunk"), expected, atol=1e-5)
    assert np.abs(expected).max() > 0.001
    for name in ("unlabeled", "shrunk"):
        assert not pixels.slope_by_images(model, views, f"label_{name}").any()  # of the weak view


@pytest.mark.parametrize("soft", [True, False])
def test_with_two_classes_it_is_fixmatch(monkeypatch, soft):
    example = Example(1, classes=2)
    with pytest.warns(UserWarning, match="num_labels=2 is FixMatch.*of its own is 0") as caught:
        model = example.model(monkeypatch, method=ShrinkMatch, soft_labels=soft, threshold=0.9)
    assert len(caught) == 1
    with warnings.catch_warnings():  # of a copy, as a run makes and whoever loads a file
        warnings.simplefilter("error", UserWarning)
        ShrinkMatch.from_config(made(ShrinkMatch, num_labels=3).get_config() | {"num_labels": 2})
    assert not model.shrinks and not model.heads and not model.network.head_layers
    found = pixels.terms_of(model, example.inputs, example.targets)
    assert found["label_shrunk"] == 0
    expected, share = example.terms(soft, auxiliary=np.zeros((6, 2)), tau=0.9)
    assert expected["label_shrunk"] == 0 and 0 < share < 1
    assert_terms(found, expected)
    kernel = pixels.kernel_of(model.network, "label")
    views = pixels.views_of(model, example.inputs, example.targets)
    assert not pixels.slope(kernel, lambda: model.terms(*views).terms["label_shrunk"]).any()
    if not soft:
        other = example.model(monkeypatch, method=FixMatch, threshold=0.9)
        given = (example.inputs, example.targets)
        np.testing.assert_allclose(pixels.total_of(model, *given), pixels.total_of(other, *given), rtol=1e-6)


def test_with_three_classes_the_second_one_leaves(monkeypatch):
    example = Example(0, classes=3, unlabeled=2, padded=False)
    p = np.array([[0.9, 0.06, 0.04], [0.97, 0.02, 0.01]])
    example.inputs["unlabeled"] = np.broadcast_to(np.log(p)[:, None, None, :], (2, SIZE, SIZE, 3)).astype("float32")
    auxiliary = np.array([np.log(3), 7, 0])
    example.strong = np.broadcast_to(2 * auxiliary[::-1], (2, SIZE, SIZE, 3)).astype("float32")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = example.model(monkeypatch, threshold=0.95)
    found = pixels.terms_of(model, example.inputs, example.targets)
    np.testing.assert_allclose(found["label_shrunk"], 0.5 * 0.25891 / 2, atol=1e-5)


@pytest.mark.parametrize("case", ["above one", "zero", "one class", "nothing labelled"])
def test_degenerate_batches(monkeypatch, case):
    example = Example(2)
    if case == "one class":
        example.inputs["unlabeled"][..., 0] += 50
    if case == "nothing labelled":
        example.targets["label"][:] = 255
    tau = {"above one": 1.1, "zero": 0.0}.get(case, TAU)
    model = example.model(monkeypatch, threshold=tau)
    found = pixels.terms_of(model, example.inputs, example.targets)
    expected, share = example.terms(tau=tau)
    assert_terms(found, expected)
    assert share == {"above one": 0, "zero": 1, "one class": 1}.get(case, share)
    if case != "nothing labelled":
        assert found["label_shrunk"] == 0
    assert (found["label_unlabeled"] == 0) == (case == "above one")


def test_the_truth_of_image_classes(monkeypatch):
    """It is sure: nothing is uncertain, and what is unknown counts nowhere."""
    example = Example(4, padded=False)
    model = example.model(monkeypatch, pseudo_labels="truth")
    truth = np.array([2, 255, 0, 1, 3, 255], "int32")
    found = pixels.losses_of(model, example.inputs, {**example.targets, "unlabeled_label": truth})
    expected = mean_cross_entropy(truth, example.means("strong"))
    np.testing.assert_allclose(number(found.terms["label_unlabeled"]), expected, rtol=1e-5)
    assert number(found.terms["label_shrunk"]) == 0 and number(model.ratio.value) == 1


def test_the_head_of_a_network():
    model = made(ShrinkMatch, num_labels=3, encoder=tiny_encoder(8))
    head = model.network.head_layers["auxiliary"]
    assert type(head) is MLPHead and model.network.network.widths["pooled"] == 40
    assert (head.units, tuple(head.hidden_units), head.negative_slope) == (3, (10, 10), 0.1)
    optimizer = model.default_optimizer()
    optimizer.build(model.trainable_variables)
    assert all("classification" in v.path for v in head.trainable_variables)
    assert not {id(v) for v in head.variables} & {id(v) for v in model.inference_network().variables}
    assert model.inference_network().count_params() == model.network.network.count_params()


def test_defaults():
    model = pixels.pixelwise(ShrinkMatch)
    assert (model.threshold, model.lambda_unlabeled, model.soft_labels) == (0.95, 1.0, True)
    assert (model.distribution_alignment, model.ratio_momentum, model.teacher) == (None, 0.999, None)
    assert model.alignment is None and model.tasks == "classification" and model.ratio.momentum == 0.999
    assert dict(model.loss_weights) == dict.fromkeys(("label_supervised", "label_unlabeled", "label_shrunk"), 1.0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"threshold": -0.1}, "`threshold` must be a number of at least 0, found -0.1"),
        ({"lambda_unlabeled": float("nan")}, "`lambda_unlabeled` must be a number of at least 0, found nan"),
        ({"soft_labels": 1}, "`soft_labels` must be True or False, found 1"),
        ({"distribution_alignment": 0}, "`distribution_alignment` must be a whole number of at least 1, found 0"),
        ({"distribution_alignment": True}, "`distribution_alignment` must be a whole number of at least 1, found True"),
        ({"ratio_momentum": 1.5}, r"`ratio_momentum` must be within \[0, 1\], found 1.5"),
        ({"tasks": "segmentation"}, "`tasks` of .* can only be 'classification', found 'segmentation'"),
        ({"decoder_filters": (8, 0)}, "`decoder_filters` must be a whole number of at least 1, found 0"),
    ],
)
def test_errors_name_argument_and_value(wrong, message):
    with pytest.raises(ValueError, match=message):
        ShrinkMatch(num_labels=3, encoder=tiny_encoder(), image_size=32, **wrong)
