"""Rare image classes: their factors in the supervised loss, and classes that nobody labelled."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
from keras import ops
from sklearn.utils.class_weight import compute_class_weight

from keras_semimed.data.arrays import SemiSupervisedBatches
from keras_semimed.models import METHODS, FixMatch, Supervised
from keras_semimed.models.label_weights import balancing
from tests.models.common import image_set, made

LABELS = np.array([0, 2, 0, 1, 0, 255], "int32")


def data(labels: np.ndarray = LABELS, masks: bool = True, steps: int = 2) -> SemiSupervisedBatches:
    labeled = image_set(6, 0, labels=3)
    names = () if 255 in labels else labeled.class_names  # with names all classes must be known
    labeled = dataclasses.replace(labeled, labels=labels, class_names=names)
    if not masks:
        labeled = dataclasses.replace(labeled, masks=None)
    return SemiSupervisedBatches(labeled, image_set(8, 1, labels=3), 3, 3, steps, 0)


def classifier(method=Supervised, **changes):
    return made(method, **{"tasks": "classification", "num_labels": 3, **changes})


def expected(labels: np.ndarray, logits: np.ndarray, factors: np.ndarray) -> float:
    """Mean over the known labels of factor times cross-entropy."""
    log_softmax = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    known = labels != 255
    entries = -log_softmax[known, labels[known]] * factors[labels[known]]
    return entries.sum() / known.sum()


def test_balanced_weights_are_scikit_learn_s():
    known = LABELS[LABELS != 255]
    np.testing.assert_allclose(
        balancing(LABELS, 3), compute_class_weight("balanced", classes=np.arange(3), y=known), rtol=1e-6
    )
    assert balancing(np.array([0, 0, 1]), 3)[2] == 1.0  # finite for a class that is not there


@pytest.mark.parametrize("given", [(1.0, 3.0, 0.5), "balanced"])
def test_each_labelled_image_counts_by_its_class_and_the_mean_is_over_images(given):
    model = classifier(label_weights=given)
    model.compile()
    if given == "balanced":
        model.fit(data(), verbose=0)
        factors = balancing(LABELS, 3)
    else:
        factors = np.array(given)
    np.testing.assert_allclose(ops.convert_to_numpy(model.label_factors.value), factors, rtol=1e-6)
    logits = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")
    found = model.label_criterion(ops.convert_to_tensor(LABELS), ops.convert_to_tensor(logits))
    assert float(found) == pytest.approx(expected(LABELS, logits, factors), rel=1e-5)
    unknown = model.label_criterion(ops.full((6,), 255, "int32"), ops.convert_to_tensor(logits))
    assert float(unknown) == 0


def test_factors_of_two_double_the_term_of_a_training_step():
    """In a method's whole step, not in the function alone."""
    models = [classifier(FixMatch, label_weights=given) for given in (None, (1.0, 1.0, 1.0), (2.0, 2.0, 2.0))]
    start, terms = models[0].get_weights(), []
    for model in models:
        rest = iter(start)
        own = [v is model.label_factors for v in model.weights]
        values = [ops.convert_to_numpy(v.value) for v in model.weights]
        model.set_weights([value if factor else next(rest) for value, factor in zip(values, own, strict=True)])
        model.compile()
        terms.append(model.fit(data(steps=1), verbose=0).history["label_supervised"][0])
    assert terms[1] == pytest.approx(terms[0], rel=1e-5)
    assert terms[2] == pytest.approx(2 * terms[0], rel=1e-5)


def test_the_factors_are_saved_and_come_back(tmp_path):
    model = classifier(label_weights="balanced")
    model.compile()
    model.fit(data(), verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.label_weights == "balanced"
    np.testing.assert_array_equal(ops.convert_to_numpy(again.label_factors.value), balancing(LABELS, 3))
    assert classifier(label_weights=[1, 2, 3]).get_config()["label_weights"] == [1.0, 2.0, 3.0]
    again.train_on_batch(*data()[0])  # with the factors that came back
    assert classifier(label_weights=balancing(LABELS, 3)).label_weights == pytest.approx(tuple(balancing(LABELS, 3)))


@pytest.mark.parametrize(
    "given", ["balance", (1.0, 2.0), (1.0, -1.0, 1.0), (0, 0, 0), (1, 1, np.inf), 2.0, (True,) * 3]
)
def test_other_weights_are_named(given):
    with pytest.raises(
        ValueError, match="`label_weights` must be None, 'balanced' or a number .* 3 image classes, found"
    ):
        classifier(label_weights=given)


def test_weights_without_image_classes_and_of_labels_that_nobody_sees_are_named():
    with pytest.raises(ValueError, match="`label_weights` must be None where no image classes are learnt, found"):
        made(Supervised, tasks="segmentation", label_weights="balanced")
    model = classifier(label_weights="balanced")
    model.compile()
    with pytest.raises(ValueError, match="`label_weights`='balanced' needs the labels of all labelled images"):
        model.fit((batch for batch in [data()[0]]), verbose=0)
    with pytest.raises(ValueError, match="`label_weights`='balanced' needs the labels .* a single batch does not tell"):
        model.train_on_batch(*data()[0])
    assert int(model.step) == 0
    x, y = data()[0]
    model.fit(x, {"label": np.array([0, 1, 2])}, batch_size=3, verbose=0)  # arrays tell


@pytest.mark.parametrize("name", [name for name in METHODS if "classification" in METHODS[name].supports])
def test_a_class_that_no_labelled_image_has_is_named_before_training(name):
    model = classifier(METHODS[name])
    model.compile()
    with pytest.raises(
        ValueError, match=r"`num_labels`=3, but no labelled image has the class 1 \(class_1\), 2 \(class_2\)"
    ):
        model.fit(data(np.zeros(6, "int32")), verbose=0)
    with pytest.raises(ValueError, match=r"`num_labels`=3, but no labelled image has the class 0, 1, 2; label"):
        model.fit(data(np.full(6, 255, "int32")), verbose=0)
    assert int(model.step) == 0
    x, y = data()[0]
    with pytest.raises(ValueError, match=r"`num_labels`=3, but no labelled image has the class 2; label"):
        model.fit(x, {"label": np.array([0, 1, 0])}, verbose=0)
    model.evaluate(x["labeled"], {"label": np.array([0, 1, 0])}, verbose=0)  # nothing is learnt there


@pytest.mark.parametrize("name", [name for name in METHODS if "classification" in METHODS[name].supports])
def test_images_with_a_class_and_no_masks_are_enough(name):
    model = classifier(METHODS[name])
    model.compile()
    validation = (image_set(4, 9, labels=3).images, {"label": np.array([0, 1, 2, 255])})
    history = model.fit(data(masks=False), verbose=0, validation_data=validation).history
    assert {"accuracy", "balanced_accuracy", "val_balanced_accuracy"} <= set(history) and "dice" not in history
    predicted = model.predict(validation[0], verbose=0)["label"].argmax(-1)[:3]
    assert history["val_accuracy"][0] == pytest.approx((predicted == [0, 1, 2]).mean())
    assert history["val_balanced_accuracy"][0] == pytest.approx((predicted == [0, 1, 2]).mean())


def test_where_masks_are_learnt_as_well_a_missing_class_is_a_warning():
    model = made(Supervised, num_labels=3)
    model.compile()
    with pytest.warns(UserWarning, match="no labelled image has the class 1, 2"):
        model.fit(data(np.array([0, 0, 0, 0, 0, 255], "int32"), steps=1), verbose=0)
    assert int(model.step) == 1
