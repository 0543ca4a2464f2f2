"""Which optimizer each variable is under, and what that optimizer is."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_semimed.models import METHODS, Hermes, LoCo, Supervised
from keras_semimed.optimizers import branch_optimizer, encoder_optimizer
from tests.models.common import batches, copy_of, made
from tests.models.methods import numpy, variant

# The optimizer of each part of a network, heads included.
BRANCHES = {
    "segmentation_encoder": "adam_segmentation",
    "decoder": "adam_segmentation",
    "mask_head": "adam_segmentation",
    "pixel_embeddings": "adam_segmentation",
    "consistency_segmentation": "adam_segmentation",
    "classifier_stages": "SGD",
    "label_head": "SGD",
    "attentions": "SGD",
    "image_embeddings": "SGD",
    "consistency_classification": "SGD",
}
ENCODERS = {
    "segmentation_encoder": "sgd_encoder",
    "decoder": "sgd_head",
    "mask_head": "sgd_head",
    "projection": "sgd_head",
}


def kind_of(optimizer: keras.optimizers.Optimizer) -> str:
    return type(optimizer).__name__  # PyTorch has classes of its own


def optimizers_of(model: keras.Model) -> dict[str, set[str]]:
    """Names of the optimizers of the variables of each part of the first network; every variable has one."""
    model.compile()
    owner = {}
    for optimizer in model.optimizer.optimizers:
        for variable in optimizer._trainable_variables:
            assert id(variable) not in owner, f"{variable.path} is under two optimizers"
            owner[id(variable)] = optimizer.name if "_" in optimizer.name.rstrip("_0123456789") else kind_of(optimizer)
    assert set(owner) == {id(variable) for variable in model.trainable_variables}
    return {
        part: {owner[id(variable)] for layer in layers for variable in layer.trainable_variables}
        for part, layers in model.network.parts.items()
    }


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({}, ()),
        ({"teacher_momentum": 0.9, "exchange": "cls_to_seg"}, ("attentions",)),
        ({"network": "deeplab", "exchange": "seg_to_cls"}, ()),
        (
            {"tasks": "segmentation"},
            [part for part, name in BRANCHES.items() if name == "SGD"] + ["consistency_segmentation"],
        ),
        (
            {"tasks": "classification"},
            [part for part, name in BRANCHES.items() if name != "SGD"] + ["consistency_classification", "attentions"],
        ),
    ],
    ids=["unet", "teacher", "deeplab", "segmentation", "classification"],
)
def test_hermes_classifies_with_sgd_and_segments_with_adam(changes, missing):
    expected = {part: {name} for part, name in BRANCHES.items() if part not in missing}
    assert optimizers_of(made(Hermes, **changes)) == expected


@pytest.mark.parametrize("network", ["deeplab", "unet"])
@pytest.mark.parametrize("contrast", [True, False])
def test_loco_s_encoder_is_under_its_own_optimizer(network, contrast):
    model = made(LoCo, network=network, inter_class=contrast, boundary=contrast)
    expected = {part: {name} for part, name in ENCODERS.items() if contrast or part != "projection"}
    assert optimizers_of(model) == expected
    if network == "deeplab":
        rates = {each.name: float(numpy(each.learning_rate)) for each in model.optimizer.optimizers}
        assert rates == {"sgd_encoder": pytest.approx(1e-3), "sgd_head": pytest.approx(1e-2)}


@pytest.mark.parametrize(
    ("network", "name"), [(network, name) for name, method in METHODS.items() for network in method.able_networks]
)
def test_sgd_has_the_papers_momentum_and_weight_decay(name, network):
    """Weight decay 1e-4 in the gradient is 1e-3 decoupled, because momentum multiplies it by ten."""
    changes = {"exchange": "seg_to_cls"} if name == "hermes" else {}
    model = made(METHODS[name], network=network, **changes)
    optimizer = model.default_optimizer()
    for each in optimizer.optimizers:
        if kind_of(each) == "SGD":
            assert (each.momentum, each.nesterov) == (0.9, False) and each.weight_decay == pytest.approx(1e-3)
        else:
            assert kind_of(each) == "Adam" and each.weight_decay is None
        assert each.get_config()["learning_rate"]["config"]["total_steps"] == model.total_steps
    masks = "segmentation" in METHODS[name].supports
    encoders = name == "loco" or (network == "deeplab" and name != "hermes" and masks)
    assert sorted(map(kind_of, optimizer.optimizers)) == (["SGD", "SGD"] if encoders else ["Adam", "SGD"])


@pytest.mark.parametrize("make", [branch_optimizer, encoder_optimizer])
def test_sgd_s_steps_are_momentum_and_decoupled_decay(make):
    """Three steps of the classification branch, and of the encoder, by hand."""
    optimizer = make(10, learning_rate=0.1)
    variable = keras.Variable(np.array([1.0, -2.0], "float32"), name="classification_encoder")
    optimizer.build([variable])
    value, velocity = np.array([1.0, -2.0]), np.zeros(2)
    for step, gradient in enumerate(([0.5, 0.25], [-1.0, 0.0], [0.0, 2.0])):
        optimizer.apply([keras.ops.convert_to_tensor(np.array(gradient, "float32"))], [variable])
        rate = 0.1 * (1 - step / 10) ** 0.9
        value = value - rate * 1e-3 * value
        velocity = 0.9 * velocity - rate * np.array(gradient)
        value = value + velocity
        np.testing.assert_allclose(numpy(variable.value), value, rtol=1e-5)


def test_supervised_with_loco_s_settings_is_loco_m1_to_the_bit():
    changes = {"total_steps": 5, "teacher_momentum": 0.999, "network": "deeplab"}
    supervised = made(
        Supervised, tasks="segmentation", mask_loss="ce", lambda_seg=1, views=LoCo.default_views, **changes
    )
    off = {"use_unlabeled": False, "inter_class": False, "boundary": False, "dynamic_filter": False}
    loco = made(LoCo, **off, **changes)
    for ours, theirs in ((supervised.network, loco.network), (supervised.teacher, loco.teacher)):
        ours.set_weights(theirs.get_weights())
    supervised.compile(encoder_optimizer(5))
    loco.compile()
    histories = [model.fit(batches(steps=2), epochs=2, verbose=0).history for model in (supervised, loco)]
    for name in ("loss", "mask_supervised", "dice"):
        assert histories[0][name] == histories[1][name], name
    for ours, theirs in ((supervised.network, loco.network), (supervised.teacher, loco.teacher)):
        for variable, first, second in zip(ours.variables, ours.get_weights(), theirs.get_weights(), strict=True):
            np.testing.assert_array_equal(first, second, err_msg=variable.path)
    assert histories[0]["loss"][0] != histories[0]["loss"][1]


def test_two_students_that_start_from_one_model_do_not_become_twins():
    start = made(Supervised, tasks="segmentation")
    for variable in start.network.variables:
        if len(variable.shape) > 1:
            variable.assign(keras.random.normal(variable.shape, seed=1))
    model = variant("cps")
    model.start_from(start)
    first, second = model.networks
    for part in first.parts:
        pairs = [
            (numpy(a.value), numpy(b.value))
            for one, two in zip(first.parts[part], second.parts[part], strict=True)
            for a, b in zip(one.variables, two.variables, strict=True)
        ]
        given = [numpy(v.value) for layer in start.network.parts[part] for v in layer.variables]
        for (ours, _), theirs in zip(pairs, given, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        twins = all((a == b).all() for a, b in pairs)
        assert twins == (part == "segmentation_encoder"), part
    # A pair that goes on from a pair: still two.
    again = copy_of(model)
    again.start_from(model)
    decoders = [[numpy(v.value) for v in network.parts["decoder"][0].variables] for network in again.networks]
    assert any((a != b).any() for a, b in zip(*decoders, strict=True))


def test_teachers_start_from_what_the_network_starts_from():
    start = made(Supervised, tasks="segmentation", network="deeplab")
    for name in ("loco", "augseg", "mean_teacher"):
        changes = {"tasks": "segmentation"} if name == "mean_teacher" else {}
        model = variant(name, network="deeplab", **changes)
        model.start_from(start)
        for teacher in model.teacher_networks:
            for ours, theirs in zip(teacher.get_weights(), model.network.get_weights(), strict=True):
                np.testing.assert_array_equal(ours, theirs)
        for part in ("segmentation_encoder", "decoder", "mask_head"):
            for mine, given in zip(model.teacher.parts[part], start.network.parts[part], strict=True):
                for ours, theirs in zip(mine.get_weights(), given.get_weights(), strict=True):
                    np.testing.assert_array_equal(ours, theirs, err_msg=f"{name} {part}")
