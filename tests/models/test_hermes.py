from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.data.arrays import EvaluationBatches, ImageSet, SemiSupervisedBatches
from keras_semimed.models import Hermes, Supervised
from keras_semimed.models.hermes import PRESETS
from keras_semimed.thresholds import confidence_threshold, uncertainty_threshold
from tests.gradients import gradient
from tests.models.common import (
    SIZE,
    arguments,
    assert_finite,
    batches,
    fitted,
    image_set,
    made,
    tiny_encoder,
    weights_of,
)
from tests.models.methods import JAX, traced_step


def test_thresholds_over_several_epochs_and_beyond_the_end():
    model, history = fitted(Hermes, epochs=3, data=batches(steps=3))
    for epoch, steps in enumerate(([0, 1, 2], [3, 4, 5], [6, 6, 6])):
        kappa = np.mean([float(uncertainty_threshold(s / 6)) for s in steps])
        tau = np.mean([float(confidence_threshold(s / 6)) for s in steps])
        np.testing.assert_allclose(history["kappa"][epoch], kappa, rtol=1e-5)
        np.testing.assert_allclose(history["tau"][epoch], tau, rtol=1e-5)
    assert_finite(model, history)


def test_loss_is_equation_15():
    _, history = fitted(
        Hermes,
        data=batches(steps=1),
        lambda_seg=0.7,
        lambda_cls=1.3,
        alpha=0.4,
        beta=0.6,
        gamma=0.9,
        unlabeled_weight=0.5,
    )
    h = {name: values[0] for name, values in history.items()}
    segmentation = h["mask_supervised"] + 0.5 * h["mask_unlabeled"] + 0.4 * h["mask_contrast"]
    classification = h["label_supervised"] + 0.5 * h["label_unlabeled"] + 0.6 * h["label_contrast"]
    np.testing.assert_allclose(h["loss"], 0.7 * segmentation + 1.3 * classification + 0.9 * h["consistency"], rtol=1e-5)
    assert h["consistency"] > 0 and h["mask_supervised"] > 0 and h["label_supervised"] > 0


def test_paper_preset_has_the_printed_weights():
    model = Hermes(**arguments())
    assert model.loss_weights == {
        "mask_supervised": 0.5,
        "mask_unlabeled": 0.5,
        "mask_contrast": 0.5 * 0.8,
        "label_supervised": 1.0,
        "label_unlabeled": 1.0,
        "label_contrast": 0.2,
        "consistency": 0.1,
    }
    assert model.bank.size == 256


def test_teacher_is_the_average_of_the_updated_network():
    model = Hermes(**arguments(teacher_momentum=0.6))
    model.compile()
    average = None
    for step in range(5):
        data = batches(steps=1)
        data.epoch = step
        model.fit(data, verbose=0)
        network = [ops.convert_to_numpy(v.value).astype("float64") for v in model.network.variables]
        momentum = min(1 - 1 / (step + 1), 0.6)
        average = (
            network
            if average is None
            else [momentum * a + (1 - momentum) * n for a, n in zip(average, network, strict=True)]
        )
    for variable, expected in zip(model.teacher.variables, average, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(variable.value), expected, rtol=1e-5, atol=1e-6)
    images = image_set(2, 3).images
    teacher = model.predict(images, verbose=0)["label"]
    model.use_teacher = False
    assert np.abs(teacher - model.predict(images, verbose=0)["label"]).max() > 0


def test_starting_from_a_supervised_model_copies_what_both_have():
    encoder = tiny_encoder()
    trained = Supervised(**arguments(encoder=encoder, exchange="seg_to_cls", teacher_momentum=0.9))
    trained.compile()
    trained.fit(batches(), verbose=0)
    model = Hermes(**arguments(encoder=encoder, exchange="seg_to_cls", teacher_momentum=0.99))
    projector = weights_of(model.network.head_layers["pixel_embeddings"])
    model.start_from(trained)
    images = image_set(3, 2).images
    np.testing.assert_array_equal(model.predict(images, verbose=0)["mask"], trained.predict(images, verbose=0)["mask"])
    for a, b in zip(projector, weights_of(model.network.head_layers["pixel_embeddings"]), strict=True):
        np.testing.assert_array_equal(a, b)
    before = weights_of(model.network)
    with pytest.raises(ValueError, match="`decoder` of the model to start from"):
        model.start_from(Supervised(**arguments(encoder=encoder, decoder_filters=(8, 8, 8, 4, 8))))
    for a, b in zip(before, weights_of(model.network), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_decoder_with_a_saliency_map_starts_without_its_influence():
    encoder = tiny_encoder()
    trained = Supervised(**arguments(encoder=encoder))
    model = Hermes(**arguments(encoder=encoder))
    trained.compile()
    trained.fit(batches(), verbose=0)
    model.start_from(trained)
    images = image_set(3, 2).images
    found, expected = (each.predict(images, verbose=0)["mask"] for each in (model, trained))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="`decoder` of the model to start from"):
        trained.start_from(model)


def test_round_trip_keeps_the_preset_s_values_and_the_views(tmp_path):
    model = Hermes(**arguments(preset="release", selection="confidence", views={"scale": (0.9, 1.1)}))
    model.compile()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.views.scale == (0.9, 1.1)
    config, again = model.get_config(), loaded.get_config()
    assert config["selection"] == again["selection"] == "confidence"
    assert {k: again[k] for k in PRESETS["release"]} == {**PRESETS["release"], "selection": "confidence"}


def test_predict_gives_probabilities_of_the_plain_images():
    model, _ = fitted(Hermes)
    images = image_set(3, 2).images
    predictions = model.predict(images, verbose=0)
    assert predictions["mask"].shape == (3, SIZE, SIZE, 2) and predictions["label"].shape == (3, 2)
    np.testing.assert_allclose(predictions["mask"].sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(predictions["label"].sum(-1), 1, rtol=1e-5)
    # One image alone is predicted as in a batch: BatchNorm runs on its moving statistics.
    alone = model.predict(images[1:2], verbose=0)
    np.testing.assert_allclose(alone["mask"][0], predictions["mask"][1], atol=2e-5)


def test_explain_returns_saliency_and_attention_maps():
    model = Hermes(**arguments())
    maps = model.explain(image_set(2, 2).images)
    assert maps["saliency"].shape == (2, SIZE, SIZE, 1)
    np.testing.assert_allclose(maps["saliency"].max(axis=(1, 2, 3)), 1, rtol=1e-5)
    assert [m.shape for m in maps["spatial_attention"]] == [(2, SIZE // s, SIZE // s, 1) for s in (2, 4, 8, 16)]
    assert [m.shape for m in maps["channel_attention"]] == [(2, 4 * level) for level in (1, 2, 3, 4)]
    assert "saliency" not in Hermes(**arguments(exchange="seg_to_cls")).explain(image_set(1, 2).images)


def test_explain_follows_the_weights_and_the_network_that_predicts():
    images = image_set(2, 2).images
    model = Hermes(**arguments(teacher_momentum=0.9))
    first = model.explain(images)["saliency"]
    for weight in model.teacher.weights:
        weight.assign(weight + 0.1 * keras.random.uniform(weight.shape, seed=0))
    moved = model.explain(images)["saliency"]
    assert np.abs(moved - first).max() > 0.01
    model.use_teacher = False
    np.testing.assert_allclose(model.explain(images)["saliency"], first, atol=1e-4)


def test_exchange_carries_information_one_way_each():
    model = Hermes(**arguments())
    for attention in model.network.network.attentions:  # its gates are constant before training
        attention.excite.kernel.assign(ops.ones(attention.excite.kernel.shape))
    image = ops.convert_to_tensor(image_set(1, 2).images)
    before = model.infer(image)
    for variable in model.network.parts["classifier_stages"][0].trainable_variables:
        variable.assign(variable * 1.5)
    changed_classifier = model.infer(image)
    assert np.abs(ops.convert_to_numpy(before["mask"] - changed_classifier["mask"])).max() > 0, "no saliency"
    for variable in model.network.encoders[0].trainable_variables:
        variable.assign(variable * 1.5)
    changed_both = model.infer(image)
    assert np.abs(ops.convert_to_numpy(changed_both["label"] - changed_classifier["label"])).max() > 0, "no attention"

    alone = Hermes(**arguments(exchange="none"))
    before = alone.infer(image)
    for variable in alone.network.parts["classifier_stages"][0].trainable_variables:
        variable.assign(variable * 1.5)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(before["mask"]), ops.convert_to_numpy(alone.infer(image)["mask"])
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"preset": "release", "total_steps": 4},
        {"num_classes": 3, "num_labels": 4, "unlabeled_mask_loss": "ce", "uncertainty_of": "disagreement"},
        {"exchange": "none", "contrast_level": "P4", "bank_size": 0, "selection": "none", "uncertainty_of": "mean"},
        {"tasks": "segmentation", "saliency_level": "P3"},
        {"tasks": "classification", "image_weighting": "anchor"},
        {"exchange": "cls_to_seg", "saliency_level": "P4", "saliency_image": False, "teacher_momentum": 0.99},
    ],
    ids=["release", "three_classes_grey", "no_exchange", "segmentation", "classification", "saliency_with_teacher"],
)
def test_every_switch_trains(changes):
    grey = changes.get("num_classes") == 3
    shape = {
        "classes": changes.get("num_classes", 2),
        "labels": changes.get("num_labels", 2),
        "channels": 1 if grey else 3,
    }
    data = batches(steps=2, **shape)
    if JAX:  # compiling each takes longer than all else here
        traced_step(made(Hermes, **changes), *data[0])
        return
    model, history = fitted(Hermes, data=data, **changes)
    assert_finite(model, history)
    # Class-wise thresholds come from each head's own predictions, scheduled ones are shared.
    taus = {name for name in history if name.endswith("tau")}
    assert taus == ({"label_tau", "mask_tau"} if model.confidence == "class_wise" else {"tau"})
    predictions = model.predict(image_set(2, 4, channels=shape["channels"]).images, verbose=0)
    heads = {"segmentation": {"mask"}, "classification": {"label"}}.get(changes.get("tasks"), {"mask", "label"})
    assert set(predictions) == heads


def test_a_deeplab_contrasts_at_a_size_that_its_stride_does_not_divide():
    """60 pixels are 8 features of stride 8, the last one half outside."""
    masks = np.zeros((4, 60, 60), "uint8")
    masks[:, 10:40, 20:50] = 1
    images = ImageSet(list("abcd"), np.repeat(180 * masks[..., None], 3, axis=-1), masks)
    data = SemiSupervisedBatches(images, images, batch_size=2, steps_per_epoch=1, seed=0)
    changes = {"tasks": "segmentation", "network": "deeplab", "image_size": 60, "selection": "none"}
    if JAX:
        traced_step(made(Hermes, **changes), *data[0])
        return
    model, history = fitted(Hermes, data=data, **changes)
    assert_finite(model, history)
    assert history["mask_contrast"][0] > 0


def test_oblong_images_are_learnt_in_square_views():
    """Bright squares at the left or right of 32 x 64 pixels: views that mixed up the axes could not teach them."""

    def oblong(count: int, seed: int) -> ImageSet:
        square = image_set(count, seed)
        images = np.pad(square.images, ((0, 0), (0, 0), (0, 32), (0, 0)))
        masks = np.pad(square.masks, ((0, 0), (0, 0), (0, 32)))
        for array in (images, masks):
            array[1::2] = np.roll(array[1::2], 32, axis=2)
        return ImageSet(square.names, images, masks, square.labels, None, square.class_names)

    model = Hermes(**arguments(total_steps=60, unlabeled_start=60))
    model.compile(keras.optimizers.Adam(0.01))
    data = SemiSupervisedBatches(oblong(6, 0), oblong(8, 1), 6, 2, steps_per_epoch=60, seed=0)
    assert_finite(model, model.fit(data, verbose=0).history)
    result = model.evaluate(EvaluationBatches(oblong(8, 9), 8), verbose=0, return_dict=True)
    assert result["dice"] > 0.6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 33}, "image_size"),
        ({"preset": "published"}, "preset"),
        ({"exchange": "all"}, "exchange"),
        ({"tasks": "seg"}, "tasks"),
        ({"num_classes": 1}, "num_classes"),
        ({"num_classes": 256}, "num_classes.*255"),
        ({"num_labels": 256}, "num_labels.*255"),
        ({"num_labels": 10**20}, "`num_labels` must be at most 4,294,967,295"),
        ({"total_steps": 10**20}, "`total_steps` must be at most"),
        ({"seed": -1}, "`seed` must be a whole number of at least 0"),
        ({"alpha": 1e300}, "`alpha` must be at most 3.4e.38"),
        ({"alpha": 10**400}, "`alpha` must be at most 3.4e.38"),
        ({"num_labels": 1}, "num_labels"),
        ({"alpha": -0.1}, "`alpha` must be a number of at least 0"),
        ({"gamma": float("nan")}, "gamma"),
        ({"unlabeled_start": -1}, "unlabeled_start"),
        ({"decoder_filters": (8, 8)}, "saliency_level.*2 blocks"),
        ({"decoder_filters": (8, 8, 8, 8, 8, 8)}, "decoder_filters"),
        ({"encoder": "resnet17"}, "resnet17"),
        ({"selection": "both"}, "selection"),
        ({"teacher_momentum": 1.0}, "teacher_momentum"),
        ({"total_steps": 0}, "total_steps"),
        ({"unlabeled_mask_loss": "mse"}, "unlabeled_mask_loss"),
        ({"contrast_level": "P6"}, "contrast_level"),
    ],
)
def test_wrong_arguments_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        Hermes(**arguments(**changes))


def test_a_selection_that_decides_nothing_warns_once():
    data = batches(steps=2)
    data.labeled.masks[:] = 255
    data.labeled.labels[:] = 1
    model = Hermes(**arguments(confidence=1.0, uncertainty=0.0))
    model.compile()
    with pytest.warns(UserWarning, match="of the pseudo-labels") as record:
        history = model.fit(data, epochs=2, verbose=0).history
    assert len([w for w in record if "of the pseudo-labels" in str(w.message)]) == 1
    assert_finite(model, history)
    assert history["mask_selected"][0] == 0 and history["label_selected"][0] == 0


def test_a_given_encoder_is_copied_not_shared():
    encoder = tiny_encoder()
    model = Hermes(**arguments(encoder=encoder))
    own = model.network.encoders[0]
    for a, b in zip(encoder.get_weights(), own.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not {id(v) for v in encoder.variables} & {id(v) for v in model.variables}


@pytest.mark.parametrize("stopped", [True, False])
@pytest.mark.parametrize("exchange", ["both", "seg_to_cls"])
def test_the_classification_loss_reaches_the_segmentation_encoder_unless_it_is_stopped(exchange, stopped):
    model = Hermes(**arguments(exchange=exchange, stop_gradient_between_tasks=stopped))
    for attention in model.network.network.attentions:  # its gates are constant before training
        # Small, or they are saturated; and its few hidden units must not all be off.
        attention.excite.kernel.assign(1e-3 * ops.ones(attention.excite.kernel.shape))
        for kernel in (attention.kernel, attention.squeeze.kernel):
            kernel.assign(ops.abs(kernel.value))
    images = ops.convert_to_tensor(image_set(2, 3).images.astype("float32"))
    features = model.network.encode(images, training=False)
    level = ops.convert_to_numpy(features["P2"])

    def loss(steering):
        outputs = model.network.decode({**features, "P2": steering}, (SIZE, SIZE), training=False)
        return ops.sum(outputs["label_logits"][:, 1] - outputs["label_logits"][:, 0])

    slopes = gradient(loss, level)
    assert bool(np.abs(slopes).max() > 0) != stopped

    def mask_loss(steering):
        outputs = model.network.decode({**features, "P2": steering}, (SIZE, SIZE), training=False)
        return ops.sum(outputs["mask_logits"][..., 1])

    assert np.abs(gradient(mask_loss, level)).max() > 0
