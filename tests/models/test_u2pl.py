"""U2PL on made outputs, against an independent NumPy reading of its equations."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.models import U2PL, u2pl
from keras_semimed.networks.contract import Head
from tests.losses.helpers import finite_difference, softmax
from tests.losses.test_entropy_partition import by_hand
from tests.losses.test_unreliable_contrast import loss_by_hand, masks_by_hand
from tests.models import pixelwise as pixels
from tests.models.common import made
from tests.models.pixelwise import array, batch, cross_entropies, losses_of, mean_cross_entropy, mixed, numbers

SCALE = 0.02
"""Logits by grey level."""


class OnFeatures(U2PL):
    """Embeddings are the features themselves, at the size of the image."""

    @property
    def heads(self):
        return {"representation": Head("decoded", lambda width, **named: keras.layers.Identity(**named))}


class Example:
    """A random batch in grey levels, with its boxes and random numbers; the teacher takes classes one further."""

    def __init__(self, monkeypatch, seed, labeled=2, unlabeled=3, share=0.3, **arguments):
        monkeypatch.setattr(u2pl, "WIDTH", 3)
        self.inputs, self.targets = batch(seed, labeled, unlabeled)
        for half in ("labeled", "unlabeled"):
            self.inputs[half] = np.clip(128 + 60 * self.inputs[half], 1, 250)
        self.boxes = pixels.random_boxes(seed + 1, unlabeled)
        self.inside = pixels.area_mask(self.inputs["unlabeled_area"], 5)
        self.share = share
        given = {"unreliable_share": share, "samples": (6, 4), "bank_size": 20, "warmup_share": 0.0, "ranks": (1, 3)}
        self.model = pixels.pixelwise(OnFeatures, **{**given, **arguments})
        pixels.kernel_of(self.model.network).assign(SCALE * np.eye(3))
        pixels.kernel_of(self.model.teacher).assign(SCALE * np.roll(np.eye(3), 1, axis=1))
        monkeypatch.setattr(self.model.cutmix, "boxes", lambda *_: ops.convert_to_tensor(self.boxes))
        monkeypatch.setattr(self.model.views, "strong", lambda images: images * 0.9)
        self.drawn = []
        monkeypatch.setattr(self.model, "uniform", self.uniform)

    def uniform(self, shape):
        self.drawn.append(np.random.default_rng(len(self.drawn) % 3).uniform(size=shape).astype("float32"))
        return ops.convert_to_tensor(self.drawn[-1])

    @staticmethod
    def taught(images):
        return softmax(SCALE * np.roll(images.astype("float64"), 1, axis=-1))

    def mixed_images(self):
        return mixed(0.9 * self.inputs["unlabeled"].astype("float64"), self.boxes)

    def labels(self):
        own = np.where(self.inside > 0, self.taught(self.inputs["unlabeled"]).argmax(-1), 255)
        return mixed(own, self.boxes)

    def parts(self):
        p = mixed(self.taught(self.inputs["unlabeled"]), self.boxes)
        return by_hand(p, (self.labels() != 255).astype("float32"), self.share)

    def unmixed_parts(self):
        return by_hand(self.taught(self.inputs["unlabeled"]), self.inside, self.share)

    def unlabeled_term(self, logits=None):
        logits = SCALE * self.mixed_images() if logits is None else logits
        labels, reliable = self.labels(), self.parts()[0]
        count = max(reliable.sum(), 1)
        return (labels != 255).sum() * (reliable * cross_entropies(labels, logits)).sum() / count**2

    def maps(self):
        """Anchors and negatives; the teacher's embeddings, which are the images."""
        p = np.concatenate(
            [self.taught(self.inputs["labeled"]), mixed(self.taught(self.inputs["unlabeled"]), self.boxes)]
        )
        labels = np.concatenate([self.targets["mask"], self.labels()])
        reliable = np.concatenate([np.zeros(self.targets["mask"].shape), self.parts()[0]])
        labeled = np.array([1] * len(self.inputs["labeled"]) + [0] * len(self.inputs["unlabeled"]))
        stored = np.concatenate([self.inputs["labeled"], mixed(self.inputs["unlabeled"], self.boxes)])
        return (*masks_by_hand(p, labels, reliable, labeled, 1, 3), stored)

    def bank(self):
        """What the bank holds after one step: of each class its negatives, without a pixel twice."""
        _, negatives, stored = self.maps()
        return [{tuple(row) for row in stored[negatives[..., c] > 0]} for c in range(3)]


@pytest.mark.parametrize("seed", range(3))
def test_loss(monkeypatch, seed):
    example = Example(monkeypatch, seed, lambda_contrast=0.5)
    model = example.model
    found = losses_of(model, example.inputs, example.targets)
    terms = numbers(found.terms)
    anchors, _, stored = example.maps()
    prototypes = np.stack(
        [stored[anchors[..., c] > 0].mean(0) if anchors[..., c].any() else np.zeros(3) for c in range(3)]
    )
    bank, filled = (array(x) for x in model.bank.negatives())
    student = np.concatenate([example.inputs["labeled"], example.mixed_images()])
    expected = {
        "mask_supervised": mean_cross_entropy(example.targets["mask"], SCALE * example.inputs["labeled"]),
        "mask_unlabeled": example.unlabeled_term(),
        "mask_contrast": loss_by_hand(student, anchors, prototypes, bank, filled, *example.drawn[1:3]),
    }
    assert list(terms) == list(expected) and min(expected.values()) > 0.01
    np.testing.assert_allclose(list(terms.values()), list(expected.values()), rtol=2e-4)
    np.testing.assert_allclose(numbers(found.figures)["entropy_threshold"], example.parts()[3], rtol=1e-4)
    np.testing.assert_array_equal(array(found.pseudo["mask"].kept), example.unmixed_parts()[0])


def test_the_bank_takes_in_the_step_s_negatives_before_they_are_drawn(monkeypatch):
    example = Example(monkeypatch, 5, bank_size=200)
    example.boxes[:] = 0  # no pixel is shown twice
    losses_of(example.model, example.inputs, example.targets)
    bank, filled = (array(x) for x in example.model.bank.negatives())
    for c, expected in enumerate(example.bank()):
        rows = bank[c][filled[c] > 0]
        assert expected and len(rows) == len(expected)
        assert {tuple(row) for row in rows.astype("float32")} == {tuple(np.float32(row)) for row in expected}


def test_with_more_negatives_than_room_all_come_from_different_pixels(monkeypatch):
    example = Example(monkeypatch, 6, bank_size=4)
    example.boxes[:] = 0  # no pixel is shown twice
    losses_of(example.model, example.inputs, example.targets)
    bank, filled = (array(x) for x in example.model.bank.negatives())
    sizes = [len(expected) for expected in example.bank()]
    assert max(sizes) > 4
    for c, expected in enumerate(example.bank()):
        rows = {tuple(np.float32(row)) for row in bank[c][filled[c] > 0]}
        assert len(rows) == min(4, len(expected)) and rows <= {tuple(np.float32(row)) for row in expected}


def test_what_each_network_sees(monkeypatch):
    example = Example(monkeypatch, 7)
    losses_of(example.model, example.inputs, example.targets)
    ((weak, training),) = pixels.seen(example.model.teacher)
    assert training is False
    np.testing.assert_allclose(
        weak, np.concatenate([example.inputs["labeled"], example.inputs["unlabeled"]]), rtol=1e-6
    )
    ((images, training),) = pixels.seen(example.model.network)
    assert training is True
    np.testing.assert_allclose(images, np.concatenate([example.inputs["labeled"], example.mixed_images()]), rtol=1e-5)


def test_weights_through_the_run():
    model = made(U2PL, total_steps=80, warmup_share=0.1, lambda_contrast=0.3)
    for step, warm in ((0, 0), (7, 0), (8, 1), (79, 1)):
        model.step.assign(step)
        weights = numbers({name: ops.convert_to_tensor(weight) for name, weight in model.loss_weights.items()})
        assert weights == pytest.approx({"mask_supervised": 1, "mask_unlabeled": warm, "mask_contrast": 0.3 * warm})
    assert float(numbers({"t": model._share})["t"]) == pytest.approx(0.2 / 80)


def test_slopes_reach_the_student_alone(monkeypatch):
    example = Example(monkeypatch, 8)
    model = example.model
    views = pixels.views_of(model, example.inputs, example.targets)
    found = pixels.slope(pixels.kernel_of(model.network), lambda: model.terms(*views).terms["mask_unlabeled"])
    expected = finite_difference(
        lambda kernel: example.unlabeled_term(example.mixed_images() @ kernel), SCALE * np.eye(3), step=1e-7
    )
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(found, expected, atol=1e-3, rtol=1e-4)
    for name in ("mask_unlabeled", "mask_contrast"):
        for variable in (pixels.kernel_of(model.teacher), model.teacher.network.gain):
            assert not pixels.slope(variable, lambda name=name: model.terms(*views).terms[name]).any()
    assert pixels.slope(model.network.network.gain, lambda: model.terms(*views).terms["mask_contrast"]).any()
    assert not pixels.slope(pixels.kernel_of(model.network), lambda: model.terms(*views).terms["mask_contrast"]).any()


@pytest.mark.parametrize("case", ["nothing inside", "one class", "no labels", "sure of everything"])
def test_degenerate_batches(monkeypatch, case):
    example = Example(monkeypatch, 9)
    if case == "nothing inside":
        example.inputs["unlabeled_area"] = np.ones_like(example.inputs["unlabeled_area"])
    if case == "one class":
        for half in ("labeled", "unlabeled"):
            example.inputs[half][..., :2] *= 0.02
            example.inputs[half][..., 2] = 240
        example.targets["mask"][:] = 0
    if case == "no labels":
        example.targets["mask"][:] = 255
    if case == "sure of everything":
        example.inputs["unlabeled"] = 50 * example.inputs["unlabeled"]
    found = numbers(losses_of(example.model, example.inputs, example.targets).terms)
    assert np.isfinite(list(found.values())).all()
    assert (found["mask_unlabeled"] == 0) == (case == "nothing inside")
    if case == "one class":
        assert found["mask_contrast"] == 0
    assert (found["mask_supervised"] == 0) == (case == "no labels")
    assert np.isfinite(pixels.total_of(example.model, example.inputs, example.targets))


def test_labels_are_the_teacher_s_and_kept_by_entropy(monkeypatch):
    example = Example(monkeypatch, 10)
    _, unlabeled = pixels.views_of(example.model, example.inputs, example.targets)
    p = example.taught(example.inputs["unlabeled"])
    found = example.model.label(unlabeled)["mask"]
    np.testing.assert_array_equal(array(found.labels), p.argmax(-1))
    np.testing.assert_array_equal(array(found.kept), by_hand(p, example.inside, 0.3)[0])


def test_the_truth_is_moved_and_mixed_as_its_image_is(monkeypatch):
    monkeypatch.setattr(u2pl, "WIDTH", 3)
    views = {"vertical_flip": True, "scale": (1.0, 1.0), "shift": 0.0}
    model = pixels.pixelwise(OnFeatures, pseudo_labels="truth", warmup_share=0.0, views=views)
    monkeypatch.setattr(model.views, "strong", lambda images: images)
    true, false = pixels.oracle_losses(model)
    assert numbers(true.terms)["mask_unlabeled"] < 1e-6 < 5 < numbers(false.terms)["mask_unlabeled"]


@pytest.mark.parametrize("network", ["unet", "deeplab"])
def test_embeddings_are_at_a_quarter_of_the_size(network):
    model = made(U2PL, network=network, image_size=64)
    (outputs,) = model.run(np.zeros((1, 64, 64, 3), "float32"))
    assert tuple(outputs["representation"].shape) == (1, 16, 16, 256)


def test_defaults():
    model = made(U2PL)
    assert (model.unreliable_share, model.warmup_share, model.lambda_contrast) == (0.2, 1 / 80, 0.1)
    assert (model.confidence, model.temperature, model.ranks, model.samples) == (0.3, 0.5, None, (256, 50))
    assert (model.bank_size, model.teacher_momentum, model.mask_loss) == (4096, 0.99, "ce") and not model.selects
    assert (model.contrast_loss.low, model.contrast_loss.high) == (1, 2) and model.use_teacher
    assert (model.bank.size, model.bank.per_update, model.cutmix.per_batch) == (4096, 512, True)
    assert (model.cutmix.probability, model.cutmix.area, model.cutmix.aspect) == (0.5, (0.5, 0.5), (0.5, 2.0))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tasks": "classification"}, "`tasks` of U2PL can only be 'segmentation', found 'classification'"),
        ({"unreliable_share": 1.2}, "`unreliable_share` must be .*found 1.2"),
        ({"warmup_share": -0.1}, "`warmup_share` must be .*found -0.1"),
        ({"lambda_contrast": -1}, "`lambda_contrast` must be a number of at least 0, found -1"),
        ({"confidence": 2}, "`confidence` must be .*found 2"),
        ({"temperature": 0}, "`temperature` must be a finite number above 0, found 0"),
        ({"ranks": (2, 3)}, r"`ranks` must be .*found \(2, 3\)"),
        ({"ranks": (1.5, 2)}, r"`ranks` must be two whole numbers of at least 0, found \(1.5, 2\)"),
        ({"ranks": 1}, "`ranks` must be two whole numbers of at least 0, found 1"),
        ({"samples": (0, 5)}, r"`samples` must be two whole numbers of at least 1, found \(0, 5\)"),
        ({"samples": (5,)}, r"`samples` must be two whole numbers of at least 1, found \(5,\)"),
        ({"samples": 256}, "`samples` must be two whole numbers of at least 1, found 256"),
        ({"bank_size": 0}, "`bank_size` must be .*found 0"),
    ],
)
def test_errors_name_argument_and_value(wrong, message):
    with pytest.raises(ValueError, match=message):
        made(U2PL, **wrong)


def test_a_size_that_is_no_multiple_of_the_embeddings_cells():
    model = made(U2PL, network="deeplab", image_size=33, decoder_filters=8, warmup_share=0.0)
    images = np.random.default_rng(0).integers(0, 256, (2, 33, 33, 3), dtype=np.uint8)
    views = model.training_views({"labeled": images, "unlabeled": images[:1]}, {"mask": images[..., 0] // 128})
    terms = numbers(model.terms(*views).terms)
    assert np.isfinite(list(terms.values())).all() and terms["mask_unlabeled"] > 0
