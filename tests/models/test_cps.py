"""CPS on made outputs, against an independent NumPy reading of its equations."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.models import CPS, Supervised
from tests.losses import test_dice
from tests.losses.helpers import finite_difference, softmax
from tests.models import pixelwise as pixels
from tests.models.common import arguments as tiny
from tests.models.common import tiny_encoder
from tests.models.pixelwise import array, batch, cross_entropies, losses_of, mean_cross_entropy, mixed, numbers

OTHER = np.array([[0.3, 1.0, -0.6], [-0.8, 0.4, 0.9], [1.1, -0.5, 0.2]])
"""What the second student's logits are of the colours; the first one's are the colours."""


def model_with(monkeypatch=None, boxes=None, **arguments):
    """Two students with different weights, and the given boxes."""
    model = pixels.pixelwise(CPS, **arguments)
    pixels.kernel_of(model.networks[1]).assign(OTHER)
    if boxes is not None:
        monkeypatch.setattr(model.cutmix, "boxes", lambda *sizes: ops.convert_to_tensor(boxes))
    return model


def both(images):
    """Logits of the first student and of the second one."""
    return images, images @ OTHER


def one_way(logits, labels, inside):
    """CE: the mean over what is inside, and not labelled 255."""
    counted = inside * (labels != 255)
    return np.sum(counted * cross_entropies(labels, logits)) / max(np.sum(counted), 1)


def supervised(masks, logits):
    dice = test_dice.oracle(masks, softmax(np.asarray(logits, "float64")))
    return (mean_cross_entropy(masks, logits) + dice) / 2


def example(seed, **changes):
    inputs, targets = batch(seed, **changes)
    areas = [inputs["labeled_area"], inputs["unlabeled_area"]]
    return inputs, targets, [pixels.area_mask(area, 5) for area in areas]


def two_pixels(first, second, area):
    """Terms, figures and slopes of two students' probabilities in the upper row of one unlabelled image."""
    logits = np.log(np.concatenate([first, second], -1)).astype("float32")[None]
    model = pixels.pixelwise(CPS, 2, 4, num_classes=2, cps_on="unlabeled")
    pixels.take_channels(model.networks[1], 2)
    views = pixels.view_of(logits), pixels.view_of(logits, pixels.area_mask([area], 2))
    losses = model.terms(*views)
    slope = pixels.slope_by_images(model, views, "mask_cps")
    return numbers(losses.terms)["mask_cps"], numbers(losses.figures)["mask_agreement"], slope[0]


def test_the_numbers_of_the_specification():
    first = [[(0.9, 0.1), (0.4, 0.6)], [(0.5, 0.5)] * 2]
    second = [[(0.8, 0.2), (0.7, 0.3)], [(0.5, 0.5)] * 2]
    found, agreement, slope = two_pixels(first, second, (0, 0, 1, 2))
    np.testing.assert_allclose(found, 0.5108256 + 0.7135582, rtol=1e-5)
    np.testing.assert_allclose(agreement, 0.5)
    np.testing.assert_allclose(slope[0, :, :2], [[-0.05, 0.05], [-0.3, 0.3]], atol=1e-6)
    assert not slope[1].any()
    found, agreement, _ = two_pixels(first, second, (0, 0, 1, 1))
    np.testing.assert_allclose([found, agreement], [-np.log(0.9) - np.log(0.8), 1], rtol=1e-5)
    found, agreement, slope = two_pixels(first, second, (1, 1, 1, 1))
    assert (found, agreement) == (0, 0) and not slope.any()


def test_all_images_are_one_mean():
    def images(count, loss):
        p = np.exp(-loss / 2)  # both students are as sure of class 0
        return np.tile(np.log([p, 1 - p] * 2), (count, 2, 2, 1)).astype("float32")

    views = pixels.view_of(images(1, 1.0)), pixels.view_of(images(3, 0.6))
    for cps_on, expected in (("all", 0.7), ("unlabeled", 0.6)):
        model = pixels.pixelwise(CPS, 2, 4, num_classes=2, cps_on=cps_on)
        pixels.take_channels(model.networks[1], 2)
        np.testing.assert_allclose(numbers(model.terms(*views).terms)["mask_cps"], expected, rtol=1e-5)


@pytest.mark.parametrize("preset", ["paper", "ssl4mis"])
@pytest.mark.parametrize("seed", range(2))
def test_loss(preset, seed):
    inputs, targets, inside = example(seed)
    model = model_with(preset=preset)
    known = sum(supervised(targets["mask"], logits) for logits in both(inputs["labeled"]))
    if preset == "paper":
        images, inside = np.concatenate([inputs["labeled"], inputs["unlabeled"]]), np.concatenate(inside)
        weight = 1.5
    else:
        images, inside = inputs["unlabeled"], inside[1]
        weight = 0.1 * np.exp(-5 * 0.6**2)
    first, second = both(images)
    directions = [one_way(first, second.argmax(-1), inside), one_way(second, first.argmax(-1), inside)]
    agreement = np.sum(inside * (first.argmax(-1) == second.argmax(-1))) / inside.sum()
    found = losses_of(model, inputs, targets)
    assert list(found.terms) == ["mask_supervised", "mask_cps"]
    np.testing.assert_allclose(list(numbers(found.terms).values()), [known, sum(directions)], rtol=1e-5)
    np.testing.assert_allclose(numbers(found.figures)["mask_agreement"], agreement, rtol=1e-5)
    assert 0 < agreement < 1 and abs(directions[0] - directions[1]) > 1e-3
    model.step.assign(4)
    np.testing.assert_allclose(pixels.total_of(model, inputs, targets), known + weight * sum(directions), rtol=1e-5)


@pytest.mark.parametrize("seed", range(2))
def test_loss_with_boxes(monkeypatch, seed):
    inputs, targets, (_, inside) = example(seed + 10)
    boxes = pixels.random_boxes(seed, 3)
    model = model_with(monkeypatch, boxes, cutmix_probability=1.0)
    first, second = both(mixed(inputs["unlabeled"], boxes))
    labels = [mixed(logits.argmax(-1), boxes) for logits in both(inputs["unlabeled"])]
    inside = mixed(inside, boxes)
    found = losses_of(model, inputs, targets)
    hidden = one_way(first, labels[1], inside) + one_way(second, labels[0], inside)
    known = sum(supervised(targets["mask"], logits) for logits in both(inputs["labeled"]))
    np.testing.assert_allclose(list(numbers(found.terms).values()), [known, hidden], rtol=1e-5)
    agreement = np.sum(inside * (labels[0] == labels[1])) / inside.sum()
    np.testing.assert_allclose(numbers(found.figures)["mask_agreement"], agreement, rtol=1e-5)


def test_weights():
    for preset, expected in (("paper", (1.5, 1.5, 1.5)), ("ssl4mis", (0.00067379, 0.0286505, 0.1))):
        model = model_with(preset=preset)
        for step, weight in zip((0, 5, 10), expected, strict=True):
            model.step.assign(step)
            weights = numbers({name: ops.convert_to_tensor(value) for name, value in model.loss_weights.items()})
            assert weights.keys() == {"mask_supervised", "mask_cps"}
            np.testing.assert_allclose(list(weights.values()), [1, weight], rtol=1e-5)


@pytest.mark.parametrize("boxes", [False, True])
def test_slopes_of_each_student_by_its_own_prediction(monkeypatch, boxes):
    inputs, targets, inside = example(20)
    drawn = pixels.random_boxes(2, 3) if boxes else None
    model = model_with(monkeypatch, drawn, cutmix_probability=float(boxes))
    views = pixels.views_of(model, inputs, targets)
    if boxes:
        images, inside = mixed(inputs["unlabeled"], drawn), mixed(inside[1], drawn)
        labels = [mixed(logits.argmax(-1), drawn) for logits in both(inputs["unlabeled"])]
    else:
        images, inside = np.concatenate([inputs["labeled"], inputs["unlabeled"]]), np.concatenate(inside)
        labels = [logits.argmax(-1) for logits in both(images)]
    for student in (0, 1):
        kernel = pixels.kernel_of(model.networks[student])
        start = array(kernel.value)
        readings = {
            "mask_supervised": lambda matrix: supervised(targets["mask"], inputs["labeled"] @ matrix),
            "mask_cps": lambda matrix, taught=labels[1 - student]: one_way(images @ matrix, taught, inside),
        }
        for name, reading in readings.items():
            found = pixels.slope(kernel, lambda name=name: model.terms(*views).terms[name])
            expected = finite_difference(reading, start)
            assert np.abs(expected).max() > 0.002
            np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=name)


def test_equal_networks_learn_the_same():
    inputs, targets, _ = example(21)
    model = model_with()
    pixels.take_channels(model.networks[1], 0)
    views = pixels.views_of(model, inputs, targets)
    losses = model.terms(*views)
    assert numbers(losses.figures)["mask_agreement"] == 1
    images, inside = np.concatenate([inputs["labeled"], inputs["unlabeled"]]), np.concatenate(example(21)[2])
    logits = both(images)[0]
    np.testing.assert_allclose(numbers(losses.terms)["mask_cps"], 2 * one_way(logits, logits.argmax(-1), inside), 1e-5)
    slopes = [
        pixels.slope(pixels.kernel_of(network), lambda: sum(model.terms(*views).terms.values()))
        for network in model.networks
    ]
    np.testing.assert_array_equal(slopes[0], slopes[1])


def test_networks_that_start_apart_learn_apart():
    inputs, targets, _ = example(22)
    model = model_with()
    model.compile(keras.optimizers.SGD(1e-4))
    inputs = {**inputs, **{half: np.clip(128 + 60 * inputs[half], 0, 255) for half in ("labeled", "unlabeled")}}
    for _ in range(3):
        logs = model.train_on_batch(inputs, targets, return_dict=True)
    assert 0 < float(logs["mask_agreement"]) < 1
    kernels = [array(pixels.kernel_of(network).value) for network in model.networks]
    starts = np.eye(3), OTHER
    assert all(np.abs(kernel - start).max() > 1e-4 for kernel, start in zip(kernels, starts, strict=True))
    assert np.abs(kernels[0] - kernels[1]).max() > 0.5


def test_two_networks_of_the_package_start_apart_but_for_the_encoder():
    model = CPS(**tiny())
    ours, theirs = (network.network.get_weights() for network in model.networks)
    assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(ours, theirs, strict=True))
    ours, theirs = (network.encoders[0].get_weights() for network in model.networks)
    for first, second in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(first, second)


def test_both_networks_see_the_same_weak_views_in_one_pass_each():
    inputs, targets, _ = example(23)
    model = model_with(teacher_momentum=0.9)
    losses_of(model, inputs, targets)
    for network in model.networks:
        ((images, training),) = pixels.seen(network)
        assert training is True
        np.testing.assert_allclose(images, np.concatenate([inputs["labeled"], inputs["unlabeled"]]), rtol=1e-6)
    assert not pixels.seen(model.teacher)


def test_with_boxes_both_networks_see_the_weak_views_then_the_mixed_ones(monkeypatch):
    inputs, targets, _ = example(24)
    boxes = pixels.random_boxes(4, 3)
    model = model_with(monkeypatch, boxes, cutmix_probability=1.0)
    losses_of(model, inputs, targets)
    for network in model.networks:
        (weak, _), (both, _) = passes = pixels.seen(network)
        assert all(training is True for _, training in passes)
        np.testing.assert_allclose(weak, inputs["unlabeled"], rtol=1e-6)
        expected = np.concatenate([inputs["labeled"], mixed(inputs["unlabeled"], boxes)])
        np.testing.assert_allclose(both, expected, rtol=1e-6)


def test_the_first_network_predicts_what_the_second_one_labels():
    inputs, targets, inside = example(25)
    model = model_with()
    _, unlabeled = pixels.views_of(model, inputs, targets)
    found = model.label(unlabeled)["mask"]
    first, second = both(inputs["unlabeled"])
    np.testing.assert_array_equal(array(found.labels), second.argmax(-1))
    np.testing.assert_array_equal(array(found.kept), inside[1])
    np.testing.assert_array_equal(array(losses_of(model, inputs, targets).pseudo["mask"].labels), second.argmax(-1))
    predicted = array(model.infer(ops.convert_to_tensor(inputs["unlabeled"]))["mask"])
    np.testing.assert_allclose(predicted, softmax(first), rtol=1e-4, atol=1e-6)
    assert not model.selects


@pytest.mark.parametrize("preset", ["paper", "ssl4mis"])
def test_nothing_counts(preset):
    inputs, targets, _ = example(26)
    inputs = {name: np.ones_like(value) if name.endswith("area") else value for name, value in inputs.items()}
    targets["mask"][:] = 255
    model = model_with(preset=preset)
    losses = losses_of(model, inputs, targets)
    assert numbers(losses.terms) == {"mask_supervised": 0, "mask_cps": 0}
    assert numbers(losses.figures)["mask_agreement"] == 0
    views = pixels.views_of(model, inputs, targets)
    for network in model.networks:
        assert not pixels.slope(pixels.kernel_of(network), lambda: model.terms(*views).terms["mask_cps"]).any()
    assert pixels.total_of(model, inputs, targets) == 0


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_the_truth_is_moved_and_mixed_as_its_image_is(probability):
    model = pixels.pixelwise(
        CPS, preset="ssl4mis", pseudo_labels="truth", cutmix_probability=probability,
        views={"vertical_flip": True, "scale": (1.0, 1.0), "shift": 0.0},
    )  # fmt: skip
    true, false = pixels.oracle_losses(model)
    assert numbers(true.terms)["mask_cps"] < 1e-6 < 5 < numbers(false.terms)["mask_cps"]


def test_the_truth_teaches_the_unlabelled_images_alone():
    inputs, targets, inside = example(27)
    model = model_with(pseudo_labels="truth")
    truth = np.random.default_rng(0).integers(0, 3, inside[1].shape)
    truth[0, 2] = 255
    first, second = both(np.concatenate([inputs["labeled"], inputs["unlabeled"]]))
    known = [np.concatenate([logits[:2].argmax(-1), truth]) for logits in (first, second)]
    expected = one_way(first, known[1], np.concatenate(inside)) + one_way(second, known[0], np.concatenate(inside))
    found = pixels.terms_of(model, inputs, {**targets, "unlabeled_mask": truth})["mask_cps"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_defaults_and_presets():
    model = pixels.pixelwise(CPS)
    assert (model.preset, model.lambda_cps, model.cps_on, model.ramp_cps) == ("paper", 1.5, "all", False)
    assert (model.cutmix_probability, model.mask_loss, model.tasks) == (0.0, "ce_dice", "segmentation")
    assert model.teacher is None and len(model.networks) == 2
    medical = pixels.pixelwise(CPS, preset="ssl4mis", lambda_cps=0.2)
    assert (medical.lambda_cps, medical.cps_on, medical.ramp_cps) == (0.2, "unlabeled", True)
    given = pixels.pixelwise(CPS, preset="ssl4mis", lambda_cps=0, cps_on="all", ramp_cps=False)
    assert (given.lambda_cps, given.cps_on, given.ramp_cps) == (0, "all", False)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"tasks": "classification"},
            "`tasks` of CPS can only be 'segmentation', found 'classification'. For other",
        ),
        ({"tasks": "both"}, "`tasks` of CPS can only be 'segmentation', found 'both'"),
        ({"preset": "papr"}, "`preset` must be one of .* found 'papr'. Did you mean 'paper'"),
        ({"cps_on": "labeled"}, "`cps_on` must be one of 'all', 'unlabeled', found 'labeled'"),
        ({"lambda_cps": -1}, "`lambda_cps` must be a number of at least 0, found -1"),
        ({"cutmix_probability": 2}, r"`cutmix_probability` must be within \[0, 1\], found 2"),
    ],
)
def test_errors_name_argument_and_value(wrong, message):
    with pytest.raises(ValueError, match=message):
        CPS(**wrong)


def test_pixels_that_a_rule_drops_are_not_learnt_and_unknown_truth_is_no_agreement():
    class Dropping(CPS):
        def select(self, head, logits, inside, other=None, training=False):
            pseudo = super().select(head, logits, inside, other, training)
            return pseudo._replace(kept=0.0 * pseudo.kept)

    x, y = batch(3)
    model = pixels.pixelwise(Dropping, preset="ssl4mis")
    model.compute_loss(x, y, {})
    figures = {name: float(array(value)) for name, value in model.epoch_figures.result().items()}
    assert figures["mask_selected"] == 0 and figures["mask_cps"] == 0

    unknown = {"unlabeled_mask": np.full(x["unlabeled"].shape[:3], 255, "uint8")}
    model = pixels.pixelwise(CPS, preset="ssl4mis", pseudo_labels="truth")
    pixels.kernel_of(model.networks[1]).assign(OTHER)
    model.compute_loss(x, {**y, **unknown}, {})
    figures = {name: float(array(value)) for name, value in model.epoch_figures.result().items()}
    assert figures["mask_cps"] == 0 and figures["mask_agreement"] < 1


def test_boxes_go_with_the_unlabelled_images_alone():
    assert CPS(**tiny(cutmix_probability=1.0)).cps_on == "unlabeled"
    with pytest.raises(ValueError, match="`cps_on` cannot be 'all' with `cutmix_probability`"):
        CPS(**tiny(cutmix_probability=1.0, cps_on="all"))


def test_each_student_starts_from_a_model_of_its_own_or_the_second_with_a_fresh_decoder():
    encoder = tiny_encoder()
    starts = [Supervised(**tiny(tasks="segmentation", encoder=encoder)) for _ in range(2)]
    model = CPS(**tiny(encoder=encoder))
    fresh = model.networks[1].get_weights()

    def equal(network, weights):
        return [bool((ours == theirs).all()) for ours, theirs in zip(network.get_weights(), weights, strict=True)]

    first, second = (start.network.get_weights() for start in starts)
    parted = [not (ours == theirs).all() for ours, theirs in zip(first, second, strict=True)]
    model.start_from(starts[0])
    assert all(equal(model.networks[0], first))
    decoder = {id(v) for layer in model.networks[1].parts["decoder"] for v in layer.variables}
    own = [
        same
        for same, v in zip(equal(model.networks[1], fresh), model.networks[1].weights, strict=True)
        if id(v) in decoder
    ]
    assert own and all(own)
    model.start_from(*starts)
    assert all(equal(model.networks[0], first)) and all(equal(model.networks[1], second)) and any(parted)
    for wrong in ((starts[0], starts[0]), (*starts, model), ()):
        with pytest.raises(ValueError, match=f"one trained model, or 2 different ones, .* found {len(wrong)}"):
            model.start_from(*wrong)
