from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.data.arrays import EvaluationBatches
from keras_semimed.models import Supervised
from keras_semimed.optimizers import branch_optimizer
from tests.models.common import arguments, batches, image_set, weights_of


def test_learns_squares_and_reports_only_supervised_figures():
    model = Supervised(**arguments(total_steps=60, views={"scale": (1.0, 1.0), "shift": 0.0}))
    model.compile(optimizer=keras.optimizers.Adam(0.01))
    test = EvaluationBatches(image_set(8, 9), 4)
    before = model.evaluate(test, verbose=0, return_dict=True)
    history = model.fit(batches(steps=60, batch_size=6), verbose=0, validation_data=test).history
    assert set(before) == {"loss", "dice", "accuracy", "balanced_accuracy"}
    assert history["val_dice"][0] > max(0.6, before["dice"] + 0.2)


def test_unlabelled_images_do_not_matter():
    start = Supervised(**arguments())
    results = []
    for seed in (1, 2):
        model = Supervised.from_config(start.get_config())
        model.set_weights(start.get_weights())
        model.compile()
        data = batches()
        data.unlabeled = image_set(8, seed)
        model.fit(data, verbose=0)
        results.append(weights_of(model))
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_evaluates_ignored_pixels_masks_with_a_channel_and_training_batches():
    model = Supervised(**arguments())
    model.compile()
    plain = image_set(4, 9)
    reference = model.evaluate(EvaluationBatches(plain, 2), verbose=0, return_dict=True)
    targets = {"mask": plain.masks[..., None], "label": plain.labels}
    model.compile()  # TensorFlow keeps one function for both ranks otherwise, of unknown rank
    with_channel = model.evaluate(plain.images, targets, batch_size=2, verbose=0, return_dict=True)
    for name, expected in reference.items():
        np.testing.assert_allclose(with_channel[name], expected, rtol=1e-5)
    ignored = {**targets, "mask": np.full_like(targets["mask"], 255)}
    result = model.evaluate(plain.images, ignored, batch_size=4, verbose=0, return_dict=True)
    assert np.isfinite(result["loss"]) and result["loss"] < reference["loss"]
    model.compile()
    assert set(model.evaluate(batches(), verbose=0, return_dict=True)) == set(reference)


def test_fit_on_plain_images_says_what_it_takes():
    model = Supervised(**arguments())
    model.compile()
    images = image_set(2, 0)
    with pytest.raises(ValueError, match='fit takes inputs {"labeled": images, "unlabeled": images}'):
        model.fit(images.images, {"mask": images.masks, "label": images.labels}, verbose=0)
    with pytest.raises(ValueError, match="`views` of 64 pixels do not fit `image_size` 32"):
        Supervised(**arguments(views={"image_size": 64}))


def test_targets_that_are_no_classes_of_the_model_are_refused():
    model = Supervised(**arguments())
    model.compile()
    with pytest.raises(ValueError, match="num_labels=4"):
        model.fit(batches(labels=4), verbose=0)
    with pytest.raises(ValueError, match="3 mask classes"):
        model.fit(batches(classes=3), verbose=0)


def test_predicting_a_size_that_the_network_cannot_take_is_named():
    with pytest.raises(ValueError, match="multiple of 32"):
        Supervised(**arguments()).predict(np.zeros((1, 40, 48, 3), "uint8"), verbose=0)


def test_a_saved_model_loads_in_a_fresh_process(tmp_path):
    model = Supervised(**arguments())
    model.save(tmp_path / "model.keras")
    script = (
        "import sys, keras, numpy, keras_semimed.models\n"
        "model = keras.saving.load_model(sys.argv[1])\n"
        "numpy.save(sys.argv[2], model.predict(numpy.full((1, 32, 32, 3), 90, 'uint8'), verbose=0)['label'])\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "model.keras"), str(tmp_path / "label.npy")]
    subprocess.run(command, check=True, capture_output=True)
    expected = model.predict(np.full((1, 32, 32, 3), 90, "uint8"), verbose=0)["label"]
    np.testing.assert_allclose(np.load(tmp_path / "label.npy"), expected, rtol=1e-5)


@pytest.mark.parametrize("missing", ["mask", "label"])
def test_targets_that_are_missing_leave_their_head_alone(missing):
    model = Supervised(**arguments())
    x, y = batches()[0]
    y = {name: value for name, value in y.items() if name != missing}
    terms = model.terms(*model.training_views(x, {k: ops.convert_to_tensor(v) for k, v in y.items()})).terms
    assert float(terms[f"{missing}_supervised"]) == 0
    other = "label" if missing == "mask" else "mask"
    assert float(terms[f"{other}_supervised"]) > 0


def test_branches_have_their_own_optimizer():
    model = Supervised(**arguments())
    optimizer = branch_optimizer(100)
    model.compile(optimizer=optimizer)
    model.optimizer.build(model.trainable_variables)
    adam, sgd = (
        next(o for o in optimizer.optimizers if isinstance(o, kind))
        for kind in (keras.optimizers.Adam, keras.optimizers.SGD)
    )
    of_sgd = {v.path for v in sgd._trainable_variables}
    of_adam = {v.path for v in adam._trainable_variables}
    assert of_sgd and of_adam and not of_sgd & of_adam
    assert all("classification" in path for path in of_sgd)
    assert all("segmentation" in path for path in of_adam)
    assert len(of_sgd | of_adam) == len({v.path for v in model.trainable_variables})
    np.testing.assert_allclose(float(sgd.learning_rate), 1e-4, rtol=1e-6)
    assert sgd.weight_decay == pytest.approx(1e-3) and sgd.momentum == 0.9
    with pytest.raises(ValueError, match="classifier"):
        branch_optimizer(100, classifier="lion")


def test_a_loss_in_compile_is_refused():
    with pytest.raises(ValueError, match="method's own"):
        Supervised(**arguments()).compile(loss="mse")


def test_teacher_needs_a_momentum():
    with pytest.raises(ValueError, match="teacher_momentum"):
        Supervised(**arguments()).use_teacher = True


class EverySecond(Supervised):
    """Its teacher follows at every second step."""

    def teacher_follows(self, index):
        return ops.cast(self.step % 2 == 1, "float32")


def test_a_teacher_that_follows_in_turn_rests_in_between_and_counts_its_own_updates():
    model = EverySecond(**arguments(teacher_momentum=0.9))
    model.compile()
    data, average = batches(steps=1), weights_of(model.teacher)
    for step in range(4):
        model.fit(data, verbose=0)
        network = weights_of(model.network)
        if step % 2:
            share = 1 - 1 / (step // 2 + 1)  # of its own updates: 1, 2
            average = [share * a + (1 - share) * n for a, n in zip(average, network, strict=True)]
        for ours, expected in zip(weights_of(model.teacher), average, strict=True):
            np.testing.assert_allclose(ours, expected, atol=1e-5)
    assert int(ops.convert_to_numpy(model.teacher_updates[0].value)) == 2


def test_an_exported_network_is_made_without_copies_of_whole_models(monkeypatch):
    model = Supervised(**arguments(tasks="segmentation"))

    def refused(self):
        raise AssertionError("a model was pickled")

    monkeypatch.setattr(keras.Model, "__reduce__", refused)
    monkeypatch.setattr(keras.Model, "__deepcopy__", refused, raising=False)
    network = model.inference_network()
    images = image_set(2, 3).images.astype("float32")
    expected = model.network(images, training=False)["mask_logits"]
    np.testing.assert_array_equal(ops.convert_to_numpy(network(images)), ops.convert_to_numpy(expected))


def test_a_view_made_by_hand_cannot_be_drawn_again():
    model = Supervised(**arguments())
    labeled, _ = model.training_views(*batches()[0])
    assert model.weak(labeled).images.shape == labeled.images.shape
    with pytest.raises(ValueError, match="no source to draw again"):
        model.weak(labeled.rolled())
