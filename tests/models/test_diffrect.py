"""DiffRect on made outputs of both networks, against an independent NumPy reading of its equations."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.export import inference_model
from keras_semimed.models import DiffRect, diffrect
from keras_semimed.networks import LabelRectifier
from tests.layers.test_margin_labels import labels_by_hand
from tests.losses.helpers import finite_difference, softmax
from tests.losses.test_complementary import complementary_by_hand, concentration_by_hand, time_by_hand
from tests.models import pixelwise as pixels
from tests.models.common import assert_finite, made
from tests.models.methods import batch, eager_step, numpy
from tests.models.pixelwise import array, losses_of, mean_cross_entropy, numbers

PALETTE = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]])
"""Of three classes."""
MARGIN = 0.6


class Answers(keras.layers.Layer):
    """In the rectifier's place: made logits and latent losses times one weight, and what it was asked."""

    def __init__(self, *_, **__):
        super().__init__(autocast=False)
        self.gain = self.add_weight(shape=(), initializer="ones", name="gain")
        self.log = {"asked": [], "answers": ()}
        self.built = True

    def call(self, colours, time, images, guide=None, training=None):
        asked = self.log["asked"]
        place = len(asked) % 3
        asked.append((colours, time, images, guide, training))
        if len(self.log["answers"]) == 0:
            self.log["answers"] = 2 * np.random.default_rng(0).normal(size=(3, *colours.shape)).astype("float32")
        loss = ops.zeros(()) if guide is None else self.gain * (0.3 + place)
        return {"mask_logits": self.gain * ops.convert_to_tensor(self.log["answers"][place]), "latent_loss": loss}


class Example:
    """A random batch whose images are logits, with the answers of the rectifier."""

    def __init__(self, monkeypatch, seed, labeled=2, unlabeled=3, **arguments):
        monkeypatch.setattr(diffrect, "LabelRectifier", Answers)
        self.inputs, self.targets = pixels.batch(seed, labeled, unlabeled)
        self.count = labeled
        self.model = pixels.pixelwise(DiffRect, **{"margin": MARGIN, "rectification_start": 0, **arguments})
        monkeypatch.setattr(self.model.views, "strong", lambda images: 0.7 * ops.flip(images, axis=-1))
        self.answers = 2 * np.random.default_rng(seed + 1).normal(size=(3, labeled + unlabeled, 5, 5, 3))
        self.model.rectifier.log["answers"] = self.answers.astype("float32")

    def losses(self):
        return losses_of(self.model, self.inputs, self.targets)

    @property
    def images(self):
        return np.concatenate([self.inputs["labeled"], self.inputs["unlabeled"]]).astype("float64")

    @property
    def inside(self):
        areas = [self.inputs[f"{half}_area"] for half in ("labeled", "unlabeled")]
        return pixels.area_mask(np.concatenate(areas), 5)

    def labels(self, logits):
        """By the margin, 255 outside."""
        return np.where(self.inside > 0, labels_by_hand(softmax(logits), MARGIN), 255)

    def expected(self, kernel=None, w=None):
        """The terms, w at the model's step; `kernel`: that of the network, while labels stay as they are."""
        kernel = np.eye(3) if kernel is None else kernel
        w = 0.1 * np.exp(-5 * (1 - int(self.model.step) / 10) ** 2) if w is None else w
        count, weak, strong = self.count, self.images, 0.7 * self.images[..., ::-1]
        coarse, y = self.labels(weak), self.targets["mask"]
        truth = np.concatenate([y, coarse[count:]])
        counted = (truth != 255).astype("float64")
        answers = self.answers.astype("float64")
        rectified, sampled = (self.labels(answers[n]) for n in (0, 2))
        agreement = functools.partial(agreement_by_hand, counted=counted)
        clean = both(y, answers[0][:count]) + 0.3
        noisy = both(rectified[count:], answers[1][count:]) + agreement(answers[0], answers[1]) + 1.3
        return {
            "mask_supervised": foreground(y, weak[:count] @ kernel),
            "mask_unlabeled": both(coarse[count:], (strong @ kernel)[count:])
            + agreement(weak @ kernel, strong @ kernel),
            "rectifier": clean + w * noisy,
            "mask_rectified": both(sampled[count:], (weak @ kernel)[count:]),
        }


def agreement_by_hand(first, second, counted):
    p, other = softmax(first), softmax(second)
    return concentration_by_hand(other, counted) * complementary_by_hand(p, other, counted)


def dice_by_hand(labels, logits, first=0):
    p, known = softmax(logits)[labels != 255], labels[labels != 255]
    y = np.eye(3)[known]
    found = 1 - (2 * (p * y).sum(0) + 1e-5) / ((p**2).sum(0) + (y**2).sum(0) + 1e-5)
    return found[first:].mean()


def both(labels, logits):
    return mean_cross_entropy(labels, logits) + dice_by_hand(labels, logits)


def foreground(labels, logits):
    """Of the labelled masks, as in every method here."""
    return (mean_cross_entropy(labels, logits) + dice_by_hand(labels, logits, 1)) / 2


@pytest.fixture
def small(monkeypatch):
    """A rectifier of few weights."""
    given = functools.partial(LabelRectifier, widths=(2, 3, 4, 5, 6), denoiser_widths=(7, 8))
    monkeypatch.setattr(diffrect, "LabelRectifier", given)


@pytest.mark.parametrize("seed", range(3))
def test_loss(monkeypatch, seed):
    example = Example(monkeypatch, seed)
    example.model.step.assign(seed)
    found = example.losses()
    terms, expected = numbers(found.terms), example.expected()
    assert list(terms) == list(expected) and min(expected.values()) > 0.1
    np.testing.assert_allclose(list(terms.values()), list(expected.values()), rtol=2e-5)
    pseudo = found.pseudo["mask"]
    own = example.inside[example.count :]
    np.testing.assert_array_equal(np.where(own > 0, array(pseudo.labels), 255), example.labels(example.images)[2:])
    np.testing.assert_array_equal(array(pseudo.kept), own)
    assert len(np.unique(array(pseudo.labels))) == 3
    weights = numbers({name: ops.convert_to_tensor(weight) for name, weight in example.model.loss_weights.items()})
    total = sum(weights[name] * expected[name] for name in expected)
    assert pixels.total_of(example.model, example.inputs, example.targets) == pytest.approx(total, rel=1e-4)


def test_masks_of_what_is_padding_are_not_learnt_by_the_rectifier(monkeypatch):
    example = Example(monkeypatch, 9)
    example.targets["mask"][example.inside[:2] == 0] = 1
    found = numbers(example.losses().terms)
    example.targets["mask"][example.inside[:2] == 0] = 255
    expected = example.expected()
    assert (example.inside[:2] == 0).any()
    for name in ("mask_unlabeled", "rectifier", "mask_rectified"):
        assert found[name] == pytest.approx(expected[name], rel=2e-5)
    np.testing.assert_array_equal(
        array(example.model.rectifier.log["asked"][0][3])[:2], PALETTE[example.targets["mask"] % 255]
    )


def test_what_the_rectifier_is_asked(monkeypatch):
    example = Example(monkeypatch, 4)
    figures = example.losses().figures
    count, weak, strong = 2, example.images, 0.7 * example.images[..., ::-1]
    coarse, distorted = example.labels(weak), example.labels(strong)
    truth = np.concatenate([example.targets["mask"], coarse[count:]])
    rectified = example.labels(example.answers[0])
    times = [time_by_hand(coarse[:2], truth[:2], 3), time_by_hand(distorted[2:], rectified[2:], 3)]
    expected = [(coarse, times[0], weak, truth), (distorted, times[1], strong, coarse), (coarse, times[0], weak, None)]
    for asked, (labels, time, images, guide) in zip(example.model.rectifier.log["asked"], expected, strict=True):
        np.testing.assert_array_equal(array(asked[0]), PALETTE[np.where(labels == 255, 0, labels)])
        np.testing.assert_allclose(array(asked[1]), time, rtol=1e-5)
        np.testing.assert_allclose(array(asked[2]), images, atol=1e-5)
        assert (asked[3] is None) == (guide is None) and asked[4] is True
        if guide is not None:
            np.testing.assert_array_equal(array(asked[3]), PALETTE[np.where(guide == 255, 0, guide)])
    assert 1 < min(times) and max(times) < 998
    shares = {name: float(numpy(value)) for name, value in figures.items() if name != "mask_unsure"}
    counted = (truth != 255).astype("float64")
    concentration = concentration_by_hand(softmax(strong), counted)
    assert shares == pytest.approx(
        {
            **{"time_weak": times[0], "time_strong": times[1], "latent_weak": 0.3, "latent_strong": 1.3},
            "concentration": concentration,
        },
        rel=1e-4,
    )
    p = np.sort(softmax(weak), -1)
    unsure = ((p[..., 2] - p[..., 0]) / p[..., 2] <= MARGIN) * example.inside
    share = figures["mask_unsure"]
    assert (float(numpy(share.part)), float(numpy(share.whole))) == (unsure.sum(), example.inside.sum())
    assert 0 < unsure.sum() < example.inside.sum()


def test_the_network_sees_weak_and_strong_views_of_both_halves_in_one_pass(monkeypatch):
    example = Example(monkeypatch, 5)
    example.losses()
    ((images, training),) = pixels.seen(example.model.network)
    expected = np.concatenate([example.images, 0.7 * example.images[..., ::-1]])
    np.testing.assert_allclose(images, expected, rtol=1e-5)
    assert training is True


def test_slopes_of_the_network(monkeypatch):
    example = Example(monkeypatch, 6)
    model = example.model
    views = pixels.views_of(model, example.inputs, example.targets)
    kernel = pixels.kernel_of(model.network)
    for name in ("mask_supervised", "mask_unlabeled", "mask_rectified"):
        found = pixels.slope(kernel, lambda name=name: model.terms(*views).terms[name])
        expected = finite_difference(lambda k, name=name: example.expected(k)[name], np.eye(3), 1e-6)
        assert np.abs(expected).max() > 0.05
        np.testing.assert_allclose(found, expected, atol=2e-4, rtol=1e-3)
        assert pixels.slope(model.rectifier.gain, lambda name=name: model.terms(*views).terms[name]) == 0
    assert not pixels.slope(kernel, lambda: model.terms(*views).terms["rectifier"]).any()


def test_slope_of_the_rectifier(monkeypatch):
    example = Example(monkeypatch, 7, ramp_maximum=3.0)
    example.model.step.assign(8)
    views = pixels.views_of(example.model, example.inputs, example.targets)
    found = pixels.slope(example.model.rectifier.gain, lambda: example.model.terms(*views).terms["rectifier"])
    w, answers = 3 * np.exp(-5 * 0.2**2), example.answers.copy()

    def term(gain):
        example.answers = np.concatenate([gain * answers[:2], answers[2:]])
        return example.expected(w=w)["rectifier"] + (gain - 1) * (0.3 + 1.3 * w)

    expected = finite_difference(lambda gain: term(gain), np.array(1.0), 1e-6)
    assert abs(expected) > 1
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_weights_through_the_run():
    def weights(model, step):
        model.step.assign(step)
        return numbers({name: ops.convert_to_tensor(weight) for name, weight in model.loss_weights.items()})

    model = made(DiffRect, total_steps=90, lambda_unlabeled=0.4, lambda_rectified=0.7)
    for step in (0, 3, 4, 45, 90):
        w = 0.1 * np.exp(-5 * (1 - step / 90) ** 2)
        expected = {"mask_supervised": 1, "mask_unlabeled": 0.4 * w, "rectifier": 1, "mask_rectified": 0.7 * (step > 3)}
        assert weights(model, step) == pytest.approx(expected)
    model.rectification_start = 50
    assert [weights(model, step)["mask_rectified"] > 0 for step in (50, 51)] == [False, True]
    model.rectification_start = 0.5
    assert [weights(model, step)["mask_rectified"] > 0 for step in (45, 46)] == [False, True]
    model.lambda_rectified = 0.0
    assert weights(model, 60)["rectifier"] == 0


@pytest.mark.parametrize("case", ["nothing inside", "no labels", "one class", "one pixel"])
def test_degenerate_batches(monkeypatch, case):
    example = Example(monkeypatch, 8)
    if case in ("nothing inside", "one pixel"):
        for half in ("labeled", "unlabeled"):
            example.inputs[f"{half}_area"][:] = [0, 0, 1, 1] if case == "one pixel" else 1
        example.targets["mask"] = np.where(example.inside[:2] > 0, 1, 255).astype("int32")
    if case == "no labels":
        example.targets["mask"][:] = 255
    if case == "one class":
        example.targets["mask"][:] = 0
        for half in ("labeled", "unlabeled"):
            example.inputs[half] = np.tile(np.array([9, 0, 0], "float32"), (*example.inputs[half].shape[:3], 1))
        example.inputs = {name: values for name, values in example.inputs.items() if not name.endswith("area")}
        monkeypatch.setattr(Example, "inside", np.ones((5, 5, 5)))
    found = example.losses()
    terms, expected = numbers(found.terms), example.expected()
    np.testing.assert_allclose(list(terms.values()), list(expected.values()), rtol=1e-4, atol=1e-6)
    if case == "nothing inside":
        w = 0.1 * np.exp(-5)
        assert [terms[name] for name in terms if name != "rectifier"] == [0, 0, 0]
        assert terms["rectifier"] == pytest.approx(0.3 + 1.3 * w)
    if case in ("no labels", "nothing inside"):
        assert terms["mask_supervised"] == 0 and float(numpy(found.figures["time_weak"])) == 0
    if case == "one pixel":  # no entropy of one pixel, and the loss is that of the pixels inside alone
        first = example.images[2:, :1, :1, ::-1] * 0.7
        assert terms["mask_unlabeled"] == pytest.approx(both(example.labels(example.images)[2:, :1, :1], first), 1e-4)
    views = pixels.views_of(example.model, example.inputs, example.targets)
    kernel = pixels.kernel_of(example.model.network)
    for name in terms:
        slope = pixels.slope(kernel, lambda name=name: example.model.terms(*views).terms[name])
        assert np.isfinite(slope).all() and (case != "nothing inside" or not slope.any())


def test_the_truth_takes_the_place_of_every_label_that_is_learnt(monkeypatch):
    monkeypatch.setattr(diffrect, "LabelRectifier", Answers)
    views = {"vertical_flip": True, "scale": (1.0, 1.0), "shift": 0.0}
    model = pixels.pixelwise(DiffRect, pseudo_labels="truth", rectification_start=0, views=views)
    monkeypatch.setattr(model.views, "strong", lambda images: images)
    true, false = pixels.oracle_losses(model)
    right, wrong = numbers(true.terms), numbers(false.terms)
    assert right["mask_rectified"] < 1e-6 < 5 < wrong["mask_rectified"]
    assert right["mask_unlabeled"] < wrong["mask_unlabeled"] - 5
    first, second, _ = model.rectifier.log["asked"][:3]
    for guide in (first[3], second[3]):  # images show their masks by their brightest channel, 0 where unknown
        images = array(first[2])[2:]
        wanted = np.where(images.max(-1) > 0, images.argmax(-1), 0)
        np.testing.assert_array_equal(array(guide)[2:], PALETTE[wanted])


def test_the_rectifier_learns_and_stays_out_of_predictions(small):
    model = made(DiffRect, rectification_start=0)
    start = [numpy(v.value) for v in model.rectifier.trainable_variables]
    eager_step(model, *batch())
    ends = [numpy(v.value) for v in model.rectifier.trainable_variables]
    assert all((one != two).any() for one, two in zip(start, ends, strict=True) if one.ndim > 1)
    images = batch()[0]["unlabeled"]
    before = numpy(model.infer(images)["mask"])
    for variable in model.rectifier.variables:
        if variable.name != "random_state":
            variable.assign(np.full(variable.shape, np.nan))
    np.testing.assert_array_equal(numpy(model.infer(images)["mask"]), before)
    assert inference_model(model).count_params() == model.network.network.count_params()
    assert not {id(v) for v in model.predictor.variables} & {id(v) for v in model.rectifier.variables}


def test_a_step_that_overflows_leaves_the_rectifier_s_statistics(small):
    model = made(DiffRect, dtype="mixed_float16")
    assert model.rectifier.contraction.blocks[0].compute_dtype == "float16"
    assert model.rectifier.denoiser.enlargements[1].block.compute_dtype == "float16"
    moving = {id(v) for v in model.rectifier.variables if v.name.startswith("moving_")}
    assert moving and moving <= {id(v) for v in model.running_state}
    assert {id(v) for v in model.network.variables if v.name.startswith("moving_")} <= {
        id(v) for v in model.running_state
    }


@pytest.mark.parametrize("network", ["unet", "deeplab"])
def test_three_classes_grey_images_and_padding(small, network):
    model = made(DiffRect, network=network, num_classes=3, rectification_start=0)
    x, y = batch(classes=3, channels=1)
    x["unlabeled_area"] = np.tile(np.array([0, 0, 20, 32], "int32"), (2, 1))
    model.step.assign(3)
    assert_finite(model, eager_step(model, x, y))
    paths = [v.path for v in model.rectifier.trainable_variables]
    owners = {
        optimizer.name: {v.path for v in optimizer._trainable_variables} for optimizer in model.optimizer.optimizers
    }
    (owner,) = [name for name, owned in owners.items() if set(paths) & owned]
    assert set(paths) <= owners[owner] and owner == {"unet": "adam_segmentation", "deeplab": "sgd_head"}[network]


def test_defaults():
    model = made(DiffRect)
    assert (model.margin, model.diffusion_steps, model.sampled_steps, model.schedule) == (0.8, 10, 2, "cosine")
    assert (model.ramp_maximum, model.lambda_unlabeled, model.lambda_rectified) == (0.1, 0.5, 0.5)
    assert model.rectification_start is None and model.mask_loss == "ce_dice" and not model.selects
    rectifier = model.rectifier
    assert (rectifier.widths, rectifier.denoiser_widths) == ((16, 32, 64, 128, 256), (384, 512))
    assert (rectifier.num_classes, rectifier.diffusion.steps, rectifier.diffusion.sampled) == (2, 10, (9, 0))
    assert rectifier.diffusion.clip and rectifier.image_channels == 3
    other = made(DiffRect, num_classes=4, diffusion_steps=30, sampled_steps=3, schedule="linear").rectifier
    assert (other.num_classes, other.diffusion.steps, other.diffusion.schedule) == (4, 30, "linear")
    assert other.diffusion.sampled == (29, 14, 0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tasks": "both"}, "`tasks` of DiffRect can only be 'segmentation', found 'both'"),
        ({"margin": 1.5}, "`margin` must be .*found 1.5"),
        ({"margin": -0.1}, "`margin` must be .*found -0.1"),
        ({"diffusion_steps": 0}, "`diffusion_steps` must be .*found 0"),
        ({"diffusion_steps": 2.5}, "`diffusion_steps` must be .*found 2.5"),
        ({"sampled_steps": 0}, "`sampled_steps` must be .*found 0"),
        ({"sampled_steps": 11}, "`sampled_steps` must be at most `diffusion_steps`, 10, found 11"),
        ({"schedule": "sine"}, "`schedule` must be one of .*found 'sine'"),
        ({"schedule": "linear"}, "`diffusion_steps` must be above 20 .*found 10"),
        ({"ramp_maximum": -1}, "`ramp_maximum` must be a number of at least 0, found -1"),
        ({"lambda_unlabeled": -1}, "`lambda_unlabeled` must be .*found -1"),
        ({"lambda_rectified": float("inf")}, "`lambda_rectified` must be .*found inf"),
        ({"rectification_start": -1}, "`rectification_start` must be .*found -1"),
        ({"rectification_start": 1.5}, "`rectification_start` must be .*found 1.5"),
        ({"rectification_start": 50, "total_steps": 50}, "`rectification_start` must be below 50, found 50"),
    ],
)
def test_errors_name_argument_and_value(wrong, message):
    with pytest.raises(ValueError, match=message):
        made(DiffRect, **wrong)
