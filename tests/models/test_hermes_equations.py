"""Hermes' terms on made outputs, against an independent NumPy reading of the paper."""

from __future__ import annotations

from unittest import mock

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.models import Hermes, View
from tests.gradients import gradient
from tests.layers.test_attention import _by_hand as attended
from tests.models.common import SIZE, arguments, image_set, outputs_given

B, U = 2, 3


@pytest.fixture(scope="module")
def model() -> Hermes:
    return Hermes(**arguments(total_steps=10, bank_size=0))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def made_outputs(seed: int, sharp: float = 2.0) -> dict:
    rng = np.random.default_rng(seed)

    def view():
        return {
            "mask_logits": rng.normal(0, sharp, (U, SIZE, SIZE, 2)).astype("float32"),
            "label_logits": rng.normal(0, sharp, (U, 2)).astype("float32"),
            "pixel_embeddings": rng.normal(size=(U, SIZE // 8, SIZE // 8, 256)).astype("float32"),
            "image_embeddings": normalized(rng.normal(size=(U, 128))),
            "consistency_segmentation": rng.normal(size=(U, 128)).astype("float32"),
            "consistency_classification": rng.normal(size=(U, 128)).astype("float32"),
        }

    inside = np.ones((U, SIZE, SIZE), "float32")
    inside[0, :5] = 0
    return {"labeled": {name: values[:B] for name, values in view().items()}, "weak": view(), "strong": view()} | {
        "inside": inside
    }


def normalized(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype("float32")


def selection(logits: np.ndarray, progress: float) -> tuple[np.ndarray, np.ndarray]:
    """Eq. 7, 8, 16 and 17 as printed."""
    p = softmax(logits.astype("float64"))
    kappa = 0.25 + 0.5 * (0.75 - 0.25) * (np.cos(progress * np.pi) + 1)
    tau = 0.75 + 0.25 * np.exp(-0.5 * (1 - progress) ** 2) * np.log(2)
    entropy = -(p * np.log(p)).sum(-1)
    return p.argmax(-1), (entropy <= kappa) & (p.max(-1) >= tau)


def losses(model: Hermes, outputs: dict, taught: dict | None = None):
    """What the method makes of made outputs in the place of its networks'."""
    labeled = View(ops.zeros((B, SIZE, SIZE, 3)))
    unlabeled = View(ops.zeros((U, SIZE, SIZE, 3)), ops.convert_to_tensor(outputs["inside"]))
    with (
        mock.patch.object(model, "strong", lambda view: view),
        outputs_given(model, outputs["labeled"], outputs["weak"], outputs["strong"], taught=taught),
    ):
        return model.terms(labeled, unlabeled)


def stateless_terms(model: Hermes, outputs: dict) -> dict:
    """The terms without the sampling state moving on, as a traced gradient needs it."""
    with keras.StatelessScope():
        return losses(model, outputs).terms


def terms_of(model: Hermes, outputs: dict, step: int, taught: dict | None = None) -> dict:
    model.step.assign(step)
    return {k: float(ops.convert_to_numpy(v)) for k, v in losses(model, outputs, taught).terms.items()}


@pytest.mark.parametrize("step", [0, 5, 10])
def test_equation_9(model, step):
    outputs = made_outputs(step)
    labels, keep = selection(outputs["weak"]["mask_logits"], step / 10)
    keep = keep & (outputs["inside"] > 0)
    lesion = softmax(outputs["strong"]["mask_logits"].astype("float64"))[..., 1]
    overlap = np.sum(keep * lesion * labels)
    squares = np.sum(keep * lesion**2) + np.sum(keep * labels)
    terms = terms_of(model, outputs, step)
    np.testing.assert_allclose(terms["mask_unlabeled"], 1 - (2 * overlap + 1e-5) / (squares + 1e-5), rtol=1e-5)
    pseudo = losses(model, outputs).pseudo["mask"]
    np.testing.assert_array_equal(ops.convert_to_numpy(pseudo.labels), labels)
    np.testing.assert_array_equal(ops.convert_to_numpy(pseudo.kept), keep)


@pytest.mark.parametrize("step", [0, 5, 10])
def test_equation_10(model, step):
    outputs = made_outputs(step + 20, sharp=3.0)
    labels, keep = selection(outputs["weak"]["label_logits"], step / 10)
    predicted = softmax(outputs["strong"]["label_logits"].astype("float64"))
    losses = [-np.log(predicted[i, labels[i]]) if keep[i] else 0.0 for i in range(U)]
    terms = terms_of(model, outputs, step)
    np.testing.assert_allclose(terms["label_unlabeled"], np.mean(losses), rtol=1e-5, atol=1e-7)


def test_equation_14(model):
    outputs = made_outputs(3)
    strong = outputs["strong"]
    expected = [
        1 - c @ s / np.linalg.norm(c) / np.linalg.norm(s)
        for c, s in zip(strong["consistency_classification"], strong["consistency_segmentation"], strict=True)
    ]
    terms = terms_of(model, outputs, 0)
    np.testing.assert_allclose(terms["consistency"], np.mean(expected), rtol=1e-5)


def test_equations_12_and_13_take_the_weak_view_s_pseudo_labels(model):
    outputs = made_outputs(4, sharp=3.0)
    labels, keep = selection(outputs["weak"]["label_logits"], 0.5)
    v = np.concatenate([outputs["weak"]["image_embeddings"], outputs["strong"]["image_embeddings"]]).astype("float64")
    image = np.concatenate([np.arange(U), np.arange(U)])
    losses = []
    for i in range(2 * U):
        denominator = sum(np.exp(v[i] @ v[j] / 0.07) for j in range(2 * U) if j != i)
        positives = [p for p in range(2 * U) if p != i and labels[image[p]] == labels[image[i]]]
        total = 0.0
        for p in positives:
            weight = 1.0 if image[p] == image[i] else float(keep[image[i]] and keep[image[p]])
            total -= weight * np.log(np.exp(v[i] @ v[p] / 0.07) / denominator)
        losses.append(total / len(positives))
    terms = terms_of(model, outputs, 5)
    np.testing.assert_allclose(terms["label_contrast"], np.mean(losses), rtol=1e-4)


def test_equation_11_on_the_mean_of_both_views(model):
    outputs = made_outputs(5, sharp=4.0)
    # Few pixels and many slots: every certain pixel is an anchor, so sampling leaves nothing to chance.
    labels, keep = selection(outputs["weak"]["mask_logits"], 0.5)
    keep = keep & (outputs["inside"] > 0)
    centre = slice(4, None, 8)
    labels, keep = labels[:, centre, centre].ravel(), keep[:, centre, centre].ravel()
    z = outputs["weak"]["pixel_embeddings"] + outputs["strong"]["pixel_embeddings"]
    z = z.reshape(-1, 256).astype("float64")[keep]
    z /= np.linalg.norm(z, axis=-1, keepdims=True)
    labels = labels[keep]
    losses = []
    for i in range(len(z)):
        negatives = sum(np.exp(z[i] @ z[j] / 0.07) for j in range(len(z)) if labels[j] != labels[i])
        positives = [np.exp(z[i] @ z[j] / 0.07) for j in range(len(z)) if j != i and labels[j] == labels[i]]
        if positives:
            losses.append(-np.mean([np.log(p / (p + negatives)) for p in positives]))
    terms = terms_of(model, outputs, 5)
    np.testing.assert_allclose(terms["mask_contrast"], np.mean(losses), rtol=1e-4)


def test_unlabelled_terms_wait_for_their_start_and_ramp():
    model = Hermes(**arguments(total_steps=100, bank_size=0, unlabeled_start=10, unlabeled_ramp=4, contrast_delay=0.2))
    outputs = made_outputs(6, sharp=5.0)
    shares = {}
    for step in (9, 10, 13, 19, 20, 23):
        terms = terms_of(model, outputs, step)
        shares[step] = (terms["consistency"], terms["label_contrast"])
    full = shares[23][0]
    assert shares[9] == (0.0, 0.0)
    np.testing.assert_allclose(shares[10][0], full / 4, rtol=1e-5)
    np.testing.assert_allclose(shares[13][0], full, rtol=1e-5)
    assert shares[19][1] == 0.0 and shares[20][1] > 0.0


def test_embeddings_of_zero_give_finite_gradients(model):
    outputs = made_outputs(8, sharp=6.0)
    zeros = np.zeros((U, SIZE // 8, SIZE // 8, 256), "float32")

    def loss(embeddings):
        views = {name: {**outputs[name], "pixel_embeddings": embeddings} for name in ("weak", "strong")}
        return stateless_terms(model, {**outputs, **views})["mask_contrast"]

    assert np.isfinite(gradient(loss, zeros)).all()


def test_pseudo_labels_carry_no_gradient_into_the_weak_view(model):
    outputs = made_outputs(7)

    def loss(weak_logits):
        weak = {**outputs["weak"], "mask_logits": weak_logits}
        terms = stateless_terms(model, {**outputs, "weak": weak})
        return terms["mask_unlabeled"] + terms["mask_contrast"]

    assert not gradient(loss, outputs["weak"]["mask_logits"]).any()

    def strong_loss(strong_logits):
        strong = {**outputs["strong"], "mask_logits": strong_logits}
        return stateless_terms(model, {**outputs, "strong": strong})["mask_unlabeled"]

    assert np.abs(gradient(strong_loss, outputs["strong"]["mask_logits"])).max() > 0


def test_hard_anchors_are_those_on_which_the_views_disagree(model):
    outputs, drawn = made_outputs(9, sharp=3.0), []
    select = model.pixel_contrast.select

    def recorded(embeddings, labels, certain, hard, noise):
        drawn.append([ops.convert_to_numpy(x) for x in (labels, certain, hard)])
        return select(embeddings, labels, certain, hard, noise)

    with mock.patch.object(model.pixel_contrast, "select", recorded):
        terms_of(model, outputs, 5)
    centre = slice(4, None, 8)
    weak, keep = (x[:, centre, centre] for x in selection(outputs["weak"]["mask_logits"], 0.5))
    strong = outputs["strong"]["mask_logits"].argmax(-1)[:, centre, centre]
    ((labels, certain, hard),) = drawn
    np.testing.assert_array_equal(labels, weak)
    np.testing.assert_array_equal(certain, keep & (outputs["inside"][:, centre, centre] > 0))
    np.testing.assert_array_equal(hard, weak != strong)
    assert 0 < hard.mean() < 1


def test_the_bank_is_contrasted_with_before_it_takes_the_batch_in():
    model = Hermes(**arguments(total_steps=10, bank_size=8))
    for seed in (11, 12):
        outputs = made_outputs(seed, sharp=4.0)
        labels, keep = selection(outputs["weak"]["mask_logits"], 0.5)
        keep = keep & (outputs["inside"] > 0)
        centre = slice(4, None, 8)
        labels, keep = labels[:, centre, centre].ravel(), keep[:, centre, centre].ravel()
        z = (outputs["weak"]["pixel_embeddings"] + outputs["strong"]["pixel_embeddings"]).reshape(-1, 256)[keep]
        z, labels = normalized(z).astype("float64"), labels[keep]
        bank, filled = (ops.convert_to_numpy(values) for values in model.bank.negatives())
        assert filled.any() == (seed == 12), "the bank was not filled by the step before"
        values = []
        for i in range(len(z)):
            negatives = sum(np.exp(z[i] @ z[j] / 0.07) for j in range(len(z)) if labels[j] != labels[i])
            negatives += sum(np.exp(z[i] @ entry / 0.07) for entry in bank[1 - labels[i]][filled[1 - labels[i]] > 0])
            positives = [np.exp(z[i] @ z[j] / 0.07) for j in range(len(z)) if j != i and labels[j] == labels[i]]
            if positives:
                values.append(-np.mean([np.log(p / (p + negatives)) for p in positives]))
        terms = terms_of(model, outputs, 5)
        np.testing.assert_allclose(terms["mask_contrast"], np.mean(values), rtol=1e-4)
        # The newest entries of each class are certain pixels of this batch.
        bank, filled = (ops.convert_to_numpy(values) for values in model.bank.negatives())
        for c in (0, 1):
            assert filled[c].sum() == min(8, (labels == c).sum())
            newest = bank[c, : int(filled[c].sum())]
            assert np.abs(newest[:, None] - z[labels == c][None]).max(-1).min(1).max() < 1e-6


def test_a_teacher_labels_and_the_network_s_own_weak_view_does_not():
    model = Hermes(**arguments(total_steps=10, bank_size=0, teacher_momentum=0.9))
    outputs, taught = made_outputs(13, sharp=3.0), made_outputs(14, sharp=3.0)["weak"]
    pseudo = losses(model, outputs, taught).pseudo
    for head in ("mask", "label"):
        labels, keep = selection(taught[f"{head}_logits"], 0.0)
        inside = outputs["inside"] if head == "mask" else np.ones(U)
        np.testing.assert_array_equal(ops.convert_to_numpy(pseudo[head].labels), labels)
        np.testing.assert_array_equal(ops.convert_to_numpy(pseudo[head].kept), keep * inside)
    # The disagreement of the views that makes anchors hard is with the teacher's labels too.
    assert (selection(outputs["weak"]["mask_logits"], 0.0)[0] != selection(taught["mask_logits"], 0.0)[0]).any()


def test_soft_labels_are_the_weak_views_probabilities_with_the_selections_weights():
    model = Hermes(**arguments(total_steps=10, bank_size=0, unlabeled_mask_loss="soft"))
    outputs = made_outputs(7)
    _, keep = selection(outputs["weak"]["mask_logits"], 0.5)
    inside = outputs["inside"] > 0
    wanted = softmax(outputs["weak"]["mask_logits"].astype("float64"))
    logarithms = np.log(softmax(outputs["strong"]["mask_logits"].astype("float64")))
    expected = -np.sum((keep & inside)[..., None] * wanted * logarithms) / inside.sum()
    np.testing.assert_allclose(terms_of(model, outputs, 5)["mask_unlabeled"], expected, rtol=1e-5)


def test_losses_without_weight_are_not_computed_and_have_no_projector():
    model = Hermes(**arguments(total_steps=10, alpha=0.0, beta=0.0, gamma=0.0, unlabeled_weight=0.0))
    assert list(model.heads) == [] and model.bank is None
    outputs = made_outputs(8)
    for view in ("weak", "strong"):
        outputs[view] = {name: value for name, value in outputs[view].items() if name.endswith("logits")}
    terms = terms_of(model, outputs, 5)
    assert {name for name, value in terms.items() if value} <= {"mask_supervised", "label_supervised"}


def test_the_student_may_leave_out_the_weak_view_that_its_teacher_labels():
    off = {"alpha": 0.0, "beta": 0.0, "gamma": 0.0, "student_view": "strong"}
    model = Hermes(**arguments(total_steps=10, teacher_momentum=0.9, **off))
    outputs = made_outputs(9)
    labeled, unlabeled = View(ops.zeros((B, SIZE, SIZE, 3))), View(ops.zeros((U, SIZE, SIZE, 3)), outputs["inside"])
    seen = [{name: outputs[view][name] for name in ("mask_logits", "label_logits")} for view in ("labeled", "strong")]
    with mock.patch.object(model, "strong", lambda view: view), outputs_given(model, *seen, taught=outputs["weak"]):
        found = model.terms(labeled, unlabeled).pseudo["mask"]
    np.testing.assert_array_equal(ops.convert_to_numpy(found.labels), outputs["weak"]["mask_logits"].argmax(-1))
    for wrong in ({"teacher_momentum": None}, {"alpha": 0.8}, {"beta": 0.2}):
        with pytest.raises(ValueError, match="`student_view` can be 'strong' only with `teacher_momentum`"):
            Hermes(**arguments(**{"teacher_momentum": 0.9, **off, **wrong}))


def test_a_teacher_that_only_predicts_leaves_the_labels_to_the_network():
    model = Hermes(**arguments(total_steps=10, bank_size=0, teacher_momentum=0.9, teacher_labels=False))
    assert model.labeler is model.network and model.predictor is model.teacher
    outputs = made_outputs(10)
    found = losses(model, outputs).pseudo["mask"]
    np.testing.assert_array_equal(ops.convert_to_numpy(found.labels), outputs["weak"]["mask_logits"].argmax(-1))


def label_logits(model: Hermes, image: np.ndarray, steering: dict[str, np.ndarray]) -> np.ndarray:
    """The classifier in double precision, from an image `(H, W, 3)` in 0..255 and the segmentation's features."""
    classifier = model.network.network.classification
    x = (image / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    for level, stage in enumerate(classifier.stages, start=1):
        kernel, bias, gamma, beta, mean, variance = (
            ops.convert_to_numpy(weight).astype("float64") for weight in stage.weights
        )
        padded = np.pad(x, ((0, 1), (0, 1), (0, 0)))  # stride 2, "same"
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))[::2, ::2]
        x = np.maximum(np.einsum("ijcab,abcd->ijd", windows, kernel) + bias, 0)
        x = gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta
        if level < 5:
            x = attended(model.network.network.attentions[level - 1], x, steering[f"P{level}"])[0]
    weight, bias = map(ops.convert_to_numpy, classifier.head.weights)
    return x.mean(axis=(0, 1)) @ weight.astype("float64") + bias


def test_equation_6_is_the_derivative_of_the_largest_logit_while_the_segmentation_features_stay():
    model, random = Hermes(**arguments()), np.random.default_rng(5)
    for variable in model.network.trainable_variables:
        shape = tuple(variable.shape)
        width = (2 / np.prod(shape[:-1])) ** 0.5 if len(shape) > 1 else 0.1
        variable.assign(random.normal(variable.name == "gamma", width, shape))
    images = image_set(1, 4).images
    found = model.explain(images)["saliency"][0, :, :, 0]
    features = model.network.encode(ops.convert_to_tensor(images), training=False)
    steering = {name: ops.convert_to_numpy(features[name])[0].astype("float64") for name in ("P1", "P2", "P3", "P4")}
    image = images[0].astype("float64")
    winner = label_logits(model, image, steering).argmax()

    def slope(place: tuple[int, ...]) -> float:
        slopes = []
        for channel in range(3):
            ends = []
            for sign in (1, -1):
                moved = image.copy()
                moved[(*place, channel)] += sign * 1e-4
                ends.append(label_logits(model, moved, steering)[winner])
            slopes.append(abs(ends[0] - ends[1]) / 2e-4)
        return max(slopes)

    peak = np.unravel_index(found.argmax(), found.shape)
    assert found[peak] == pytest.approx(1) and found.min() >= 0
    places = [(0, 0), (7, 21), (16, 16), (25, 3), *np.argwhere((found > 0.3) & (found < 0.9))[:3].tolist()]
    assert len(places) == 7
    np.testing.assert_allclose(
        [found[tuple(place)] for place in places], [slope(tuple(place)) / slope(peak) for place in places], atol=2e-3
    )
