"""Hermes' terms on made outputs, against an independent NumPy reading of the paper."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.models import Hermes
from tests.gradients import gradient
from tests.models.common import SIZE, arguments

U = 3


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
    return {"labeled": {}, "weak": view(), "strong": view(), "inside": inside, "geometry": {}}


def normalized(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype("float32")


def selection(logits: np.ndarray, progress: float) -> tuple[np.ndarray, np.ndarray]:
    """Eq. 7, 8, 16 and 17 as printed."""
    p = softmax(logits.astype("float64"))
    kappa = 0.25 + 0.5 * (0.75 - 0.25) * (np.cos(progress * np.pi) + 1)
    tau = 0.75 + 0.25 * np.exp(-0.5 * (1 - progress) ** 2) * np.log(2)
    entropy = -(p * np.log(p)).sum(-1)
    return p.argmax(-1), (entropy <= kappa) & (p.max(-1) >= tau)


def stateless_terms(model: Hermes, outputs: dict) -> dict:
    """The terms without the sampling state moving on, as a traced gradient needs it."""
    with keras.StatelessScope():
        return model.loss_terms(outputs, {})[0]


def tensors(part):
    return keras.tree.map_structure(ops.convert_to_tensor, part)


def terms_of(model: Hermes, outputs: dict, step: int) -> tuple[dict, dict]:
    model.step.assign(step)
    terms, health = model.loss_terms({name: tensors(part) for name, part in outputs.items()}, {})
    return {k: float(ops.convert_to_numpy(v)) for k, v in terms.items()}, {
        k: float(ops.convert_to_numpy(getattr(v, "value", v))) for k, v in health.items()
    }


@pytest.mark.parametrize("step", [0, 5, 10])
def test_equation_9(model, step):
    outputs = made_outputs(step)
    labels, keep = selection(outputs["weak"]["mask_logits"], step / 10)
    keep = keep & (outputs["inside"] > 0)
    lesion = softmax(outputs["strong"]["mask_logits"].astype("float64"))[..., 1]
    overlap = np.sum(keep * lesion * labels)
    squares = np.sum(keep * lesion**2) + np.sum(keep * labels)
    terms, health = terms_of(model, outputs, step)
    np.testing.assert_allclose(terms["mask_unlabeled"], 1 - (2 * overlap + 1e-5) / (squares + 1e-5), rtol=1e-5)
    inside = outputs["inside"] > 0
    np.testing.assert_allclose(health["mask_selected"], keep.sum() / inside.sum(), rtol=1e-5)
    for c in (0, 1):
        of_class = inside & (labels == c)
        np.testing.assert_allclose(health[f"mask_selected_class_{c}"], keep[of_class].mean(), rtol=1e-5)


@pytest.mark.parametrize("step", [0, 5, 10])
def test_equation_10(model, step):
    outputs = made_outputs(step + 20, sharp=3.0)
    labels, keep = selection(outputs["weak"]["label_logits"], step / 10)
    predicted = softmax(outputs["strong"]["label_logits"].astype("float64"))
    losses = [-np.log(predicted[i, labels[i]]) if keep[i] else 0.0 for i in range(U)]
    terms, _ = terms_of(model, outputs, step)
    np.testing.assert_allclose(terms["label_unlabeled"], np.mean(losses), rtol=1e-5, atol=1e-7)


def test_equation_14(model):
    outputs = made_outputs(3)
    strong = outputs["strong"]
    expected = [
        1 - c @ s / np.linalg.norm(c) / np.linalg.norm(s)
        for c, s in zip(strong["consistency_classification"], strong["consistency_segmentation"], strict=True)
    ]
    terms, _ = terms_of(model, outputs, 0)
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
    terms, _ = terms_of(model, outputs, 5)
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
    terms, _ = terms_of(model, outputs, 5)
    np.testing.assert_allclose(terms["mask_contrast"], np.mean(losses), rtol=1e-4)


def test_unlabelled_terms_wait_for_their_start_and_ramp():
    model = Hermes(**arguments(total_steps=100, bank_size=0, unlabeled_start=10, unlabeled_ramp=4, contrast_delay=0.2))
    outputs = made_outputs(6, sharp=5.0)
    shares = {}
    for step in (9, 10, 13, 19, 20, 23):
        terms, _ = terms_of(model, outputs, step)
        shares[step] = (terms["consistency"], terms["label_contrast"])
    full = shares[23][0]
    assert shares[9] == (0.0, 0.0)
    np.testing.assert_allclose(shares[10][0], full / 4, rtol=1e-5)
    np.testing.assert_allclose(shares[13][0], full, rtol=1e-5)
    assert shares[19][1] == 0.0 and shares[20][1] > 0.0


def test_embeddings_of_zero_give_finite_gradients(model):
    outputs = {name: tensors(part) for name, part in made_outputs(8, sharp=6.0).items()}
    zeros = np.zeros((U, SIZE // 8, SIZE // 8, 256), "float32")

    def loss(embeddings):
        views = {name: {**outputs[name], "pixel_embeddings": embeddings} for name in ("weak", "strong")}
        return stateless_terms(model, {**outputs, **views})["mask_contrast"]

    assert np.isfinite(gradient(loss, zeros)).all()


def test_pseudo_labels_carry_no_gradient_into_the_weak_view(model):
    made = made_outputs(7)
    outputs = {name: tensors(part) for name, part in made.items()}

    def loss(weak_logits):
        weak = {**outputs["weak"], "mask_logits": weak_logits}
        terms = stateless_terms(model, {**outputs, "weak": weak})
        return terms["mask_unlabeled"] + terms["mask_contrast"]

    assert not gradient(loss, made["weak"]["mask_logits"]).any()

    def strong_loss(strong_logits):
        strong = {**outputs["strong"], "mask_logits": strong_logits}
        return stateless_terms(model, {**outputs, "strong": strong})["mask_unlabeled"]

    assert np.abs(gradient(strong_loss, made["strong"]["mask_logits"])).max() > 0
