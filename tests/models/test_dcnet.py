"""DCNet on made outputs, against an independent NumPy reading of its equations."""

from __future__ import annotations

from unittest import mock

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.models import DCNet, Supervised
from keras_semimed.networks import UNet, UNetDecoder
from keras_semimed.networks.contract import Network
from tests.layers.test_decoupling import by_hand as decoupled_by_hand
from tests.layers.test_decoupling import cross_by_hand
from tests.losses import test_attention_transfer as transfer
from tests.losses import test_directional_consistency as directional
from tests.losses.helpers import finite_difference, softmax
from tests.models import pixelwise as pixels
from tests.models.common import image_set, made
from tests.models.methods import batch as pictures
from tests.models.pixelwise import array, batch, losses_of, numbers
from tests.models.test_cps import supervised

OTHER = np.array([[0.9, 0.4, -0.3], [-0.5, 1.1, 0.2], [0.3, -0.4, 0.8]], "float32")
"""What the second decoder's logits are of the colours; the first one's are the colours."""


class TwoPixelwise(Network, keras.layers.Layer):
    """Two levels and two decoders of one pixel each; `decoding` is what the decoders' levels are made with."""

    image_multiple = 1
    takes_pictures = False
    logits = {"mask_logits": "decoded", "mask_logits_2": "decoded_2"}

    def __init__(self):
        super().__init__(autocast=False)
        self.gain = self.add_weight(shape=(3,), initializer="ones", name="gain")
        self.decoding = self.add_weight(shape=(), initializer="ones", name="decoding")
        self.kernels = [self.add_weight(shape=(3, 3), name=f"kernel_{index}") for index in range(2)]
        for kernel, value in zip(self.kernels, (np.eye(3), OTHER), strict=True):
            kernel.assign(value)
        self.passes = []
        self.built = True

    def encode(self, images, training=None):
        self.passes.append((images, training))
        x = images * self.gain
        return {"P1": x, "P2": x[:, ::2, 1::2, :2]}

    def represent(self, features, training=None, second=None):
        levels = {name: value * self.decoding for name, value in decoded(features).items()}
        if not (training if second is None else second):
            levels = {name: value for name, value in levels.items() if not name.endswith("_2")}
        outputs = {"decoded": features["P1"], **levels}
        return {**outputs, "decoded_2": features["P1"]} if "D1_2" in outputs else outputs

    def classify(self, represented, size):
        return {
            name: ops.matmul(represented[source], kernel)
            for (name, source), kernel in zip(self.logits.items(), self.kernels, strict=True)
            if source in represented
        }

    @property
    def widths(self):
        return {"P1": 3, "P2": 2, "decoded": 3}


def decoded(features):
    first, second = features["P1"], features["P2"]
    return {"D1": first[..., 1:] + 1, "D2": second[..., :1], "D1_2": 2 - first[..., :1], "D2_2": second[..., 1:]}


class OnPixels(DCNet):
    """DCNet on them."""

    def make_network(self):
        return TwoPixelwise()


def made_model(**arguments):
    views = {"image_size": 5, "num_classes": 3, "total_steps": 10, "views": pixels.STILL}
    return OnPixels(**{**views, **arguments})


class Example:
    """A random batch of any labelled and unlabelled images, and what DCNet is to make of it."""

    def __init__(self, seed, labeled=2, unlabeled=3):
        self.inputs, self.targets = batch(seed, labeled, unlabeled)
        self.images = np.concatenate([self.inputs["labeled"], self.inputs["unlabeled"]]).astype("float64")
        areas = [self.inputs["labeled_area"], self.inputs["unlabeled_area"]]
        self.inside = pixels.area_mask(np.concatenate(areas), 5)
        self.first, self.second = self.images, self.images @ OTHER

    def confidences(self):
        return [(softmax(z).max(-1) * self.inside).sum() / max(self.inside.sum(), 1) for z in (self.first, self.second)]

    def threshold(self, old, step, total=10, limits=(0.25, 0.95)):
        rate = min((step + 1) / total, 1)
        return np.clip(min((1 - rate) * old + rate * m for m in self.confidences()), *limits)

    def parts(self, threshold, saturation=0.95):
        return decoupled_by_hand(self.first, self.second, threshold, self.inside, saturation)

    def features(self, target=1):
        levels = {"P1": self.images, "P2": self.images[:, ::2, 1::2, :2]}
        names = ("D1", "D2") if target == 1 else ("D1_2", "D2_2")
        return list(levels.values()), [decoded(levels)[name] for name in names]

    def terms(self, parts, temperature=1.0, target=1):
        known = len(self.inputs["labeled"])
        guides = parts.guide_1, parts.guide_2
        return {
            "mask_supervised": sum(supervised(self.targets["mask"], z[:known]) for z in (self.first, self.second)),
            "mask_cross": cross_by_hand(parts, self.inside),
            "mask_directional": directional.by_hand(self.first, self.second, *guides, self.inside, temperature),
            "feature": transfer.by_hand(*self.features(target)),
        }


@pytest.mark.parametrize("target", [1, 2])
@pytest.mark.parametrize(("seed", "saturation"), [(0, 0.95), (1, 0.95), (2, 0.4)])
def test_loss(seed, saturation, target):
    example = Example(seed, *((2, 3), (4, 1), (1, 2))[seed])
    model = made_model(temperature=0.5, feature_target=target, saturation=saturation)
    parts = example.parts(example.threshold(1 / 3, 0), saturation)
    expected = example.terms(parts, 0.5, target)
    found = losses_of(model, example.inputs, example.targets)
    assert list(found.terms) == list(expected) and min(expected.values()) > 1e-3
    np.testing.assert_allclose(list(numbers(found.terms).values()), list(expected.values()), rtol=2e-5)
    share = (parts.consistent * example.inside[..., None]).sum() / (3 * example.inside.sum())
    figures = {
        "consistency_threshold": example.threshold(1 / 3, 0),
        "mask_consistent": share,
        "mask_confidence": min(example.confidences()),
    }
    assert numbers(found.figures) == pytest.approx(figures, rel=1e-5)
    pseudo, known = found.pseudo["mask"], len(example.inputs["labeled"])
    passing = np.ones(example.inside.shape) if saturation == 0.4 else parts.consistent.max(-1)
    np.testing.assert_array_equal(array(pseudo.labels), parts.labels_2[known:])
    np.testing.assert_array_equal(array(pseudo.kept), (passing * example.inside)[known:])
    np.testing.assert_allclose(array(found.labeled["mask_logits"]), example.first[:known], rtol=1e-5)


def test_the_threshold_follows_over_steps_and_is_used_after_its_update():
    model, gamma = made_model(total_steps=4), 1 / 3
    for step in range(6):
        example = Example(10 + step)
        model.step.assign(step)
        gamma = example.threshold(gamma, step, 4)
        found = losses_of(model, example.inputs, example.targets)
        np.testing.assert_allclose(float(array(model.filter.threshold)), gamma, rtol=1e-5)
        expected = cross_by_hand(example.parts(gamma), example.inside)
        np.testing.assert_allclose(numbers(found.terms)["mask_cross"], expected, rtol=2e-5)
    assert gamma == pytest.approx(np.clip(min(example.confidences()), 0.25, 0.95), rel=1e-6)


@pytest.mark.parametrize(("step", "ramp"), [(0, 6.7379e-4), (10, 0.1)])
def test_weights_through_the_run(step, ramp):
    model = made_model()
    model.step.assign(step)
    weights = numbers({name: ops.convert_to_tensor(weight) for name, weight in model.loss_weights.items()})
    expected = {"mask_supervised": 1, "mask_cross": 0.3, "mask_directional": 1e3 * ramp, "feature": 1e3 * (1 - ramp)}
    assert weights == pytest.approx(expected, rel=1e-4)
    other = made_model(lambda_cross=0.5, lambda_directional=2.0, lambda_feature=3.0, ramp_maximum=1.0)
    other.step.assign(5)
    weights, ramp = other.loss_weights, np.exp(-5 / 4)
    found = numbers({name: ops.convert_to_tensor(weight) for name, weight in weights.items()})
    expected = {"mask_supervised": 1, "mask_cross": 0.5, "mask_directional": 2 * ramp, "feature": 3 * (1 - ramp)}
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_loss_is_their_sum():
    example, model = Example(3), made_model()
    model.step.assign(6)
    terms = example.terms(example.parts(example.threshold(1 / 3, 6)))
    w = 0.1 * np.exp(-5 * 0.4**2)
    expected = terms["mask_supervised"] + 0.3 * terms["mask_cross"]
    expected += 1000 * w * terms["mask_directional"] + 1000 * (1 - w) * terms["feature"]
    np.testing.assert_allclose(pixels.total_of(model, example.inputs, example.targets), expected, rtol=2e-5)


def test_one_pass_over_all_images():
    example, model = Example(4), made_model()
    losses_of(model, example.inputs, example.targets)
    ((images, training),) = model.network.network.passes
    assert training is True
    np.testing.assert_allclose(array(images), example.images, rtol=1e-6)


def test_slopes_by_finite_differences():
    example, model = Example(5), made_model()
    views = pixels.views_of(model, example.inputs, example.targets)
    network = model.network.network
    parts = example.parts(example.threshold(1 / 3, 0))
    guides = parts.guide_1, parts.guide_2
    stopped = example.first, example.second

    def cross(z, name):
        shown = np.where(parts.consistent > 0, z, 0)
        return cross_by_hand(parts._replace(**{name: shown}), example.inside)

    def moved(z, index):
        both = [z, example.second] if index == 0 else [example.first, z]
        return directional.by_hand(*both, *guides, example.inside, stopped=stopped)

    for index, start in enumerate((np.eye(3), OTHER)):
        slopes = {
            "mask_cross": lambda kernel, index=index: cross(example.images @ kernel, f"logits_{index + 1}"),
            "mask_directional": lambda kernel, index=index: moved(example.images @ kernel, index),
        }
        for name, function in slopes.items():
            found = pixels.slope(network.kernels[index], lambda name=name: model.terms(*views).terms[name])
            np.testing.assert_allclose(found, finite_difference(function, start), atol=2e-5, err_msg=name)
            assert np.abs(found).max() > 1e-3


def test_features_alone_imitate():
    example, model = Example(6), made_model()
    views = pixels.views_of(model, example.inputs, example.targets)
    network = model.network.network
    targets = example.features()[1]

    def imitation(gain):
        return transfer.by_hand([example.images * gain, example.images[:, ::2, 1::2, :2] * gain[:2]], targets)

    found = pixels.slope(network.gain, lambda: model.terms(*views).terms["feature"])
    np.testing.assert_allclose(found, finite_difference(imitation, np.ones(3)), atol=1e-6)
    assert np.abs(found).max() > 1e-3
    for variable in (network.decoding, *network.kernels):
        assert not pixels.slope(variable, lambda: model.terms(*views).terms["feature"]).any()


@pytest.mark.parametrize("case", ["nothing inside", "no labels", "one class", "sure of everything", "black images"])
def test_degenerate_batches(case):
    example, model = Example(7), made_model()
    x, y = example.inputs, example.targets
    if case == "nothing inside":
        x |= {name: np.ones_like(x[name]) for name in ("labeled_area", "unlabeled_area")}
    if case == "no labels":
        y["mask"][:] = 255
    if case == "one class":
        y["mask"][:] = 0
        x |= {name: np.float32([2, 0, 0]) + 0 * x[name] for name in ("labeled", "unlabeled")}
    if case == "sure of everything":
        x |= {name: 1e3 * x[name] for name in ("labeled", "unlabeled")}
    if case == "black images":
        x |= {name: 0 * x[name] for name in ("labeled", "unlabeled")}
    found = numbers(losses_of(model, x, y).terms)
    assert np.isfinite(list(found.values())).all()
    assert (found["mask_cross"] == 0) == (case == "nothing inside")
    assert (found["mask_supervised"] == 0) == (case == "no labels")
    gamma = float(array(model.filter.threshold))
    if case == "nothing inside":
        assert gamma == pytest.approx(1 / 3) and found["mask_directional"] == 0  # as it was
    if case == "black images":
        np.testing.assert_allclose(found["mask_cross"], 2 * np.log(3), rtol=1e-5)
        assert gamma == pytest.approx(1 / 3) and found["mask_directional"] == 0
    views = pixels.views_of(model, x, y)
    slope = pixels.slope(model.network.network.gain, lambda: sum(model.terms(*views).terms.values()))
    assert np.isfinite(slope).all()


def test_labels_are_what_the_second_decoder_teaches_at_the_threshold_as_it_is():
    example, model = Example(8), made_model()
    model.filter.threshold.assign(0.6)
    _, view = pixels.views_of(model, example.inputs, example.targets)
    found = model.label(view)["mask"]
    parts = example.parts(0.6)
    np.testing.assert_array_equal(array(found.labels), parts.labels_2[2:])
    np.testing.assert_array_equal(array(found.kept), (parts.consistent.max(-1) * example.inside)[2:])
    assert 0 < array(found.kept).sum() < example.inside[2:].sum()
    assert float(array(model.filter.threshold)) == pytest.approx(0.6)
    assert [training for _, training in model.network.network.passes] == [False]


def test_the_truth_is_moved_as_its_image_is():
    views = {"vertical_flip": True, "scale": (1.0, 1.0), "shift": 0.0}
    model = made_model(pseudo_labels="truth", views=views)
    model.network.network.kernels[1].assign(np.eye(3))
    true, false = pixels.oracle_losses(model)
    # Labelled pixels that show no class cost ln 3 with either truth.
    assert numbers(true.terms)["mask_cross"] < 0.2 < 5 < numbers(false.terms)["mask_cross"]


def test_the_truth_takes_the_place_of_both_decoders_labels_with_all_of_their_logits():
    example, model = Example(9), made_model(pseudo_labels="truth")
    truth = np.random.default_rng(0).integers(0, 3, (3, 5, 5))
    truth[0] = 255
    truth = np.where(example.inside[2:] > 0, truth, 255)
    found = losses_of(model, example.inputs, {**example.targets, "unlabeled_mask": truth})
    parts = example.parts(example.threshold(1 / 3, 0))
    z = [np.concatenate([u[:2], z[2:]]) for u, z in ((parts.logits_1, example.first), (parts.logits_2, example.second))]
    labels = [np.concatenate([own[:2], truth]) for own in (parts.labels_1, parts.labels_2)]
    counted = example.inside * (labels[0] != 255)
    known = [np.where(each == 255, 0, each) for each in labels]
    changed = parts._replace(logits_1=z[0], logits_2=z[1], labels_1=known[0], labels_2=known[1])
    np.testing.assert_allclose(numbers(found.terms)["mask_cross"], cross_by_hand(changed, counted), rtol=2e-5)
    np.testing.assert_array_equal(array(found.pseudo["mask"].labels), truth)


def test_prediction_and_export_do_without_the_second_decoder():
    model, images = made(DCNet), image_set(2, 4).images
    second = model.network.network.second_decoder
    decode = UNetDecoder.decode_levels

    def first_only(self, *args, **arguments):
        assert self is not second
        return decode(self, *args, **arguments)

    with mock.patch.object(UNetDecoder, "decode_levels", first_only):
        predicted = model.infer(images)["mask"]
        assert model.embed(images).shape[0] == 2
        with pytest.raises(AssertionError):
            model.label(images)
    alone = model.inference_network()
    assert type(alone) is UNet
    np.testing.assert_allclose(array(ops.softmax(alone(images))), array(predicted), atol=1e-6)


def test_starts_from_a_supervised_network_with_a_fresh_second_decoder():
    start, model = made(Supervised, tasks="segmentation"), made(DCNet)
    before = [array(v.value) for v in model.network.network.second_decoder.variables]
    model.start_from(start)
    images = image_set(2, 4).images
    np.testing.assert_allclose(array(model.infer(images)["mask"]), array(start.infer(images)["mask"]), atol=1e-6)
    for old, variable in zip(before, model.network.network.second_decoder.variables, strict=True):
        np.testing.assert_array_equal(array(variable.value), old)


@pytest.mark.parametrize(("filters", "target"), [((8, 4, 4), 1), ((4,), 2)])
def test_fewer_blocks_imitate_fewer_levels(filters, target):
    model = made(DCNet, decoder_filters=filters, feature_target=target, num_classes=4)
    with mock.patch.object(model, "attention_transfer", wraps=model.attention_transfer) as watched:
        loss = model.compute_loss(*pictures(classes=4), {})
    features, targets = watched.call_args.args
    assert len(features) == len(targets) == len(filters) - 1 and np.isfinite(float(array(loss)))
    assert [each.shape[-1] for each in targets] == list(filters[::-1][1:])


def test_defaults():
    model = made(DCNet)
    assert (model.temperature, model.feature_target, model.threshold_limits) == (1.0, 1, (0.25, 0.95))
    assert (model.lambda_feature, model.lambda_directional, model.lambda_cross) == (1000, 1000, 0.3)
    assert (model.ramp_maximum, model.saturation, model.mask_loss, model.teacher) == (0.1, 0.95, "ce_dice", None)
    assert (model.filter.minimum, model.filter.maximum, model.filter.num_classes) == (0.25, 0.95, 2)
    assert model.directional_consistency.temperature == 1 and model.given.network == "unet"


@pytest.mark.parametrize("limits", [[0.5, 0.75], np.array([0.5, 0.75], "float32")])
def test_the_limits_may_be_any_pair(limits):
    model = made(DCNet, threshold_limits=limits)
    assert (model.filter.minimum, model.filter.maximum) == model.threshold_limits == (0.5, 0.75)
    assert model.get_config()["threshold_limits"] == [0.5, 0.75]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tasks": "classification"}, "`tasks` of DCNet can only be 'segmentation', found 'classification'"),
        ({"network": "deeplab"}, "`network` must be one of 'unet', found 'deeplab'"),
        ({"temperature": 0}, "`temperature` must be a finite number above 0, found 0"),
        ({"feature_target": 3}, "`feature_target` must be one of 1, 2, found 3"),
        ({"lambda_feature": -1}, "`lambda_feature` must be a number of at least 0, found -1"),
        ({"lambda_directional": "much"}, "`lambda_directional` must be .*found 'much'"),
        ({"lambda_cross": float("nan")}, "`lambda_cross` must be .*found nan"),
        ({"ramp_maximum": 1.5}, r"`ramp_maximum` must be within \[0, 1\], found 1.5"),
        ({"threshold_limits": (0.9, 0.2)}, r"`threshold_limits` must be .*found \(0.9, 0.2\)"),
        ({"threshold_limits": (0.2, 1.2)}, r"`threshold_limits` must be .*found \(0.2, 1.2\)"),
        ({"threshold_limits": (0.2,)}, r"`threshold_limits` must be two numbers .*found \(0.2,\)"),
        ({"threshold_limits": 0.2}, r"`threshold_limits` must be two numbers .*found \(0.2,\)"),
        ({"threshold_limits": np.array([0.4, 0.3])}, r"`threshold_limits` must be .*found \(0.4, 0.3\)"),
        ({"saturation": -0.1}, "`saturation` must be .*found -0.1"),
    ],
)
def test_errors_name_argument_and_value(wrong, message):
    with pytest.raises(ValueError, match=message):
        made(DCNet, **wrong)
