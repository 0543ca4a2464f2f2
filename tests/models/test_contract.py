"""What every method has to hold, whatever it learns from its unlabelled images."""

from __future__ import annotations

import json
from typing import Any, NamedTuple
from unittest import mock

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.data.arrays import SemiSupervisedBatches
from keras_semimed.experiments.command_line.defaults import control_of
from keras_semimed.export import inference_model
from keras_semimed.models import METHODS, SemiSupervisedModel, View
from keras_semimed.parameters import parameters
from tests.models.common import arguments, assert_finite, batches, image_set, made
from tests.models.methods import (
    BATCHES,
    JAX,
    NOTHING_KEPT,
    VARIANTS,
    batch,
    eager_step,
    numpy,
    restore,
    state_of,
    traced_step,
    variant,
)

EPOCHS, STEPS = 3, 2
EAGER = pytest.mark.skipif(JAX, reason="JAX compiles each operation of an eager step; its compiled steps are tested")
# With everything that has to last from step to step: teachers, banks, thresholds.
LASTING = {
    "supervised": {"teacher_momentum": 0.9},
    "ad_mt": {"max_period": 2},
    "infomatch": {"threshold_momentum": 0.9},
    "shrinkmatch": {"num_labels": 3, "distribution_alignment": 4},
    "hermes": {"teacher_momentum": 0.9, "confidence": 0.5, "uncertainty": 0.7},
}
STATE = {
    "corrmatch": {"filter"},
    "ss_net": {"memory"},
    "ad_mt": {"turns"},
    "dcnet": {"filter"},
    "diffrect": {"rectifier", "diffusion"},
    "pefat": {"mixture"},
    "infomatch": {"filter"},
    "shrinkmatch": {"ratio", "alignment"},
    "hermes": {"bank"},
    "loco": {"filter"},
}
# What trains beside the networks that segment.
BESIDE = {"diffrect": ("rectifier",)}


class Trained(NamedTuple):
    """A training in one go, and its last epoch once more from a file."""

    name: str
    model: SemiSupervisedModel
    start: list[np.ndarray]
    history: dict[str, list[float]]
    traces: int
    end: list[np.ndarray]
    saved: SemiSupervisedModel
    rest: dict[str, list[float]]


class SavedAfter(keras.callbacks.Callback):
    """Saves the model when so many epochs have gone by."""

    def __init__(self, epochs: int, path: Any) -> None:
        super().__init__()
        self.epochs, self.path = epochs, path

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if epoch + 1 == self.epochs:
            self.model.save(self.path)


def data_of(name: str) -> SemiSupervisedBatches:
    """Data for a training of a method."""
    labels = LASTING.get(name, {}).get("num_labels", 2)
    return batches(steps=STEPS, labels=labels, **BATCHES.get(name, {}))


@pytest.fixture(scope="module", params=METHODS)
def trained(request, tmp_path_factory) -> Trained:
    """The two compiled trainings that there are of each method."""
    path = tmp_path_factory.mktemp(request.param) / "model.keras"
    method = METHODS[request.param]
    # As in two programs: TensorFlow orders sums by the layers' names, which are counted from the first one on.
    keras.backend.clear_session()
    model = made(method, total_steps=EPOCHS * STEPS - 1, **LASTING.get(request.param, {}))
    model.compile()
    start, traces, terms = state_of(model), [], method.terms

    def counted(self, labeled, unlabeled):
        traces.append(1)
        return terms(self, labeled, unlabeled)

    with mock.patch.object(method, "terms", counted):
        history = model.fit(
            data_of(request.param), epochs=EPOCHS, verbose=0, callbacks=[SavedAfter(EPOCHS - 1, path)]
        ).history
    end = state_of(model)
    keras.backend.clear_session()
    saved = keras.saving.load_model(path)
    data = data_of(request.param)
    data.epoch = EPOCHS - 1
    rest = saved.fit(data, epochs=EPOCHS, initial_epoch=EPOCHS - 1, verbose=0).history
    return Trained(request.param, model, start, history, len(traces), end, saved, rest)


def test_one_trace_and_a_counter_that_is_the_optimizer_s(trained):
    assert trained.traces == (EPOCHS * STEPS if keras.backend.backend() == "torch" else 1)
    for model in (trained.model, trained.saved):
        assert int(numpy(model.step)) == int(numpy(model.optimizer.iterations)) == EPOCHS * STEPS
    assert_finite(trained.model, trained.history)
    assert set(trained.model.loss_weights) <= set(trained.history)


def test_saved_and_resumed_equals_in_one_go_to_the_bit(trained):
    assert {name: values[-1:] for name, values in trained.history.items()} == trained.rest
    variables = (*trained.model.weights, *trained.model.optimizer.variables)
    for variable, whole, resumed in zip(variables, trained.end, state_of(trained.saved), strict=True):
        np.testing.assert_array_equal(whole, resumed, err_msg=variable.path)


def test_same_state_same_data_same_bits(trained):
    """Whatever a step depends on is a weight: put back, it gives the same run."""
    restore(trained.model, trained.start)
    again = trained.model.fit(data_of(trained.name), epochs=EPOCHS, verbose=0).history
    assert again == trained.history
    variables = (*trained.model.weights, *trained.model.optimizer.variables)
    for variable, first, second in zip(variables, trained.end, state_of(trained.model), strict=True):
        np.testing.assert_array_equal(first, second, err_msg=variable.path)
    moved = {
        v.path.split("/")[0] for v, a, b in zip(variables, trained.start, trained.end, strict=True) if (a != b).any()
    }
    networks = {network.name for network in (*trained.model.networks, *trained.model.teacher_networks)}
    assert networks | STATE.get(trained.name, set()) <= moved


@pytest.mark.skipif(not JAX, reason="eager steps are tested on this backend")
def test_the_compiled_step_stays_finite_without_a_label_and_with_one_class(trained):
    x, y = batch(name=trained.name)
    for value in (255, 0):
        restore(trained.model, trained.start)
        logs = trained.model.train_on_batch(
            x, {head: np.full_like(each, value) for head, each in y.items()}, return_dict=True
        )
        assert_finite(trained.model, logs)
        terms = [float(logs[name]) for name in trained.model.loss_weights if name.endswith("supervised")]
        assert all(term == 0 for term in terms) if value == 255 else any(term > 0 for term in terms)
    restore(trained.model, trained.end)


def test_the_exported_network_and_a_loaded_model_give_what_predict_gives(trained):
    images = image_set(3, 2).images
    predicted = trained.model.predict_on_batch(images)
    exported = inference_model(trained.model)(ops.convert_to_tensor(images, "float32"))
    inferred, loaded = trained.model.infer(images), trained.saved.infer(images)
    assert set(predicted) == set(exported) == set(inferred) == set(trained.model.learnt_heads)
    for head, probabilities in predicted.items():
        np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-5)
        np.testing.assert_allclose(probabilities, numpy(exported[head]), atol=1e-5)
        np.testing.assert_allclose(probabilities, numpy(inferred[head]), atol=1e-5)
        np.testing.assert_array_equal(numpy(inferred[head]), numpy(loaded[head]))
    # Heads, teachers, banks and second decoders stay behind.
    parts = trained.model.network.network.parts.items()
    left = {id(v) for name, layers in parts if name.startswith("second_") for layer in layers for v in layer.variables}
    students = [v for v in trained.model.network.network.variables if id(v) not in left]
    assert inference_model(trained.model).count_params() == sum(int(np.prod(v.shape)) for v in students)


@EAGER
@pytest.mark.parametrize("name", METHODS)
def test_the_same_seed_makes_the_same_model(name):
    models = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        models.append(made(METHODS[name], seed=5))
    for variable, first, second in zip(models[0].weights, *(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(first, second, err_msg=variable.path)
    models.append(variant(name, seed=6))
    states = [[numpy(v.value) for v in model.weights if "random_state" in v.path] for model in models[1:]]
    assert states[0] and not any((a == b).all() for a, b in zip(*states, strict=True))
    models[2].compute_loss(*batch(name=name), {})
    used = [tuple(numpy(v.value)) for v in models[2].weights if "random_state" in v.path]
    seeds = [seed for seed, draws in used if draws > 0]
    assert seeds and len(set(seeds)) == len(seeds), "two streams that a step draws from are the same"


@pytest.mark.backend_free
@pytest.mark.parametrize("name", VARIANTS)
def test_the_configuration_makes_the_same_model_again(name):
    model = variant(name, seed=4, views={"scale": (0.9, 1.1)})
    config = json.loads(json.dumps(model.get_config()))
    again = type(model).from_config(config)
    assert json.loads(json.dumps(again.get_config())) == json.loads(json.dumps(model.get_config()))
    assert set(parameters(type(model))) - {"weights"} <= set(model.get_config())
    assert [tuple(w.shape) for w in again.weights] == [tuple(w.shape) for w in model.weights]
    method, changes = VARIANTS[name]
    for argument, value in changes.items():
        assert model.get_config()[argument] == value, argument
    assert again.views.scale == (0.9, 1.1)
    # On JAX, Keras calls a model with a layer that is not built operation by operation before it predicts.
    assert not [layer.name for layer in model._flatten_layers() if not layer.built]


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("name", METHODS)
def test_mixed_precision_is_finite_and_predicts_float32(name, policy):
    model = variant(name, LASTING, dtype=policy)
    assert model.network.compute_dtype == policy.removeprefix("mixed_")
    if JAX:
        traced_step(model, *batch(name=name))
    else:
        assert_finite(model, eager_step(model, *batch(name=name)))
    for head, probabilities in model.infer(image_set(2, 4).images).items():
        assert numpy(probabilities).dtype == np.float32 and np.isfinite(numpy(probabilities)).all(), head
    assert not [v.path for v in model.weights if "float16" in str(v.dtype)], "what lasts is kept in float32"


@EAGER
@pytest.mark.parametrize("name", METHODS)
def test_a_float16_step_that_overflows_leaves_no_weight_infinite_and_none_that_trains_moved(name):
    model = variant(name, LASTING, dtype="mixed_float16")
    for network in model.networks:
        for kernel in network.trainable_variables:  # every one: TensorFlow's maximum pooling takes a NaN for a 0
            if kernel.name == "kernel":
                kernel.assign(1e30 * kernel.value)  # infinite in float16
    model.compile(run_eagerly=True)
    before = [numpy(v.value) for v in model.trainable_variables]
    model.train_on_batch(*batch(name=name))
    for variable, value in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(numpy(variable.value), value, err_msg=variable.path)
    for variable in model.weights:
        assert np.isfinite(numpy(variable.value)).all(), variable.path


@EAGER
@pytest.mark.parametrize("name", METHODS)
def test_a_step_that_the_loss_scale_leaves_out_leaves_all_that_runs_along(name):
    model = variant(name, LASTING, dtype="mixed_float16")
    model.compile(run_eagerly=True)
    model.optimizer.dynamic_scale.assign(2.0**60)  # the outputs are finite, the gradients are not
    # ADMT's turns count steps, which go by whether they are applied or not.
    running = [v for v in model.running_state if not v.path.startswith("turns/")]
    kept = [*model.trainable_variables, *running]
    before = [numpy(v.value) for v in kept]
    model.train_on_batch(*batch(name=name))
    for variable, value in zip(kept, before, strict=True):
        np.testing.assert_array_equal(numpy(variable.value), value, err_msg=variable.path)
    assert int(numpy(model.step)) == 1


def test_a_teacher_and_a_bank_stay_frozen_whatever_is_set_above_them():
    for name in VARIANTS:
        model = variant(name, LASTING)
        trainable = [v.path for v in model.trainable_variables]
        beside = [getattr(model, part) for part in BESIDE.get(VARIANTS[name][0], ())]
        students = [v.path for network in (*model.networks, *beside) for v in network.trainable_variables]
        assert sorted(trainable) == sorted(students) and students, name
        model.trainable = False
        assert not model.trainable_variables
        model.trainable = True
        for network in model.teacher_networks:
            network.trainable = True
        assert [v.path for v in model.trainable_variables] == trainable, name
        assert not any(v.trainable for network in model.teacher_networks for v in network.variables), name


# What stays although no unlabelled pixel counts: terms that need no pseudo-label.
WITHOUT_LABELS = {"hermes": {"label_contrast", "consistency"}, "dcnet": {"feature"}, "diffrect": {"rectifier"}}
# What also stays where there are images, but no label of them: what changes from view to view.
OF_IMAGES = {"interlude": {"label_delta"}}


@EAGER
@pytest.mark.parametrize("name", METHODS)
def test_a_batch_in_which_nothing_counts_adds_exactly_nothing(name):
    model = variant(name, LASTING)
    x, y = batch(name=name)
    y = {head: np.full_like(values, 255) for head, values in y.items()}
    areas = {f"{half}_area": np.zeros((len(x[half]), 4), "int32") for half in ("labeled", "unlabeled")}
    logs = eager_step(model, {**x, **areas}, y)
    assert_finite(model, logs)
    left = {term for term in model.loss_weights if logs[term] != 0}
    assert left == WITHOUT_LABELS.get(name, set())


@EAGER
@pytest.mark.parametrize("name", METHODS)
def test_batches_of_one_class_and_without_a_selected_pixel_stay_finite(name):
    model = variant(name, NOTHING_KEPT)
    x, y = batch(name=name)
    one_class = {head: np.zeros_like(values) for head, values in y.items()}
    ignored = {head: np.full_like(values, 255) for head, values in y.items()}
    for targets in (one_class, ignored):
        logs = eager_step(model, x, targets)
        assert_finite(model, logs)
        if name in NOTHING_KEPT:
            assert [logs[f"{head}_selected"] for head in model.learnt_heads] == [0] * len(model.learnt_heads)
    assert [logs[f"{head}_supervised"] for head in model.learnt_heads] == [0] * len(model.learnt_heads)
    if name in NOTHING_KEPT:
        kept = {term for term in model.loss_weights if logs[term] != 0}
        assert kept == WITHOUT_LABELS.get(name, set()) | OF_IMAGES.get(name, set())


@EAGER
def test_weights_and_terms_must_have_the_same_names():
    for name in METHODS:
        model = variant(name)
        terms = model.terms

        def more(labeled, unlabeled, terms=terms):
            losses = terms(labeled, unlabeled)
            return losses._replace(terms={**losses.terms, "mask_forgotten": ops.ones(())})

        with (
            mock.patch.object(model, "terms", more),
            pytest.raises(ValueError, match="`terms` gives .*mask_forgotten.*`loss_weights` has.*the same names"),
        ):
            model.compute_loss(*batch(name=name), {})


@EAGER
@pytest.mark.parametrize("name", VARIANTS)
def test_the_loss_is_the_weighted_sum_of_the_logged_terms(name):
    model = variant(name)
    loss = float(numpy(model.compute_loss(*batch(name=name), {})))
    logs = {term: float(numpy(value)) for term, value in model.epoch_figures.result().items()}
    expected = sum(float(numpy(weight)) * logs[term] for term, weight in model.loss_weights.items())
    assert loss == pytest.approx(expected, rel=1e-5) and loss > 0


@pytest.mark.backend_free
@pytest.mark.parametrize("name", METHODS)
def test_every_argument_is_documented_and_is_an_attribute_or_given(name):
    model = made(METHODS[name])
    for parameter in parameters(METHODS[name]).values():
        assert parameter.text, f"{parameter.name} is not documented"
        assert parameter.name in model.get_config() or parameter.name == "weights"


@pytest.mark.backend_free
@pytest.mark.parametrize("name", METHODS)
def test_a_wrong_value_is_named(name):
    encoder = arguments()["encoder"]
    for parameter in parameters(METHODS[name]).values():
        if parameter.annotation.startswith("Literal"):
            wrong = "nonsense"
        elif parameter.annotation.split(" |")[0] in ("int", "float"):
            wrong = -1
        else:
            continue
        with pytest.raises(ValueError, match=parameter.name) as error:
            made(METHODS[name], **{"encoder": encoder, parameter.name: wrong})
        assert repr(wrong) in str(error.value) or str(float(wrong)) in str(error.value), parameter.name


@pytest.mark.backend_free
@pytest.mark.parametrize("name", METHODS)
def test_an_argument_that_there_is_not_is_named(name):
    with pytest.raises((TypeError, ValueError), match="lambda_nonsense"):
        made(METHODS[name], lambda_nonsense=1.0)


@pytest.mark.backend_free
@pytest.mark.parametrize("name", METHODS)
def test_tasks_that_a_method_cannot_do_are_refused_before_anything_is_built(name):
    method = METHODS[name]
    for tasks in ("both", "segmentation", "classification"):
        if len(method.supports) == 2 or method.supports == (tasks,):
            model = made(method, tasks=tasks)
            assert model.learnt_heads == {"both": ("mask", "label"), "segmentation": ("mask",)}.get(tasks, ("label",))
            assert np.isfinite(float(numpy(model.compute_loss(*batch(name=name), {}))))
            assert set(model.infer(image_set(1, 2).images)) == set(model.learnt_heads)
        else:
            able = method.supports[0]
            with pytest.raises(ValueError, match=f"`tasks` of {method.__name__} .*{able!r}, found {tasks!r}"):
                made(method, tasks=tasks)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_on_either_network(name):
    # On JAX a U-Net was compiled for the trainings above.
    for network in ("deeplab",) if JAX else ("unet", "deeplab"):
        if network not in METHODS[name].able_networks:
            with pytest.raises(ValueError, match=f"`network` must be one of .*found '{network}'"):
                made(METHODS[name], network=network)
            continue
        # A saliency map needs a U-Net.
        model = made(METHODS[name], network=network, **({"exchange": "seg_to_cls"} if name == "hermes" else {}))
        if JAX:
            traced_step(model, *batch(name=name))
            continue
        before = state_of_students(model)
        assert_finite(model, eager_step(model, *batch(name=name)))
        after = state_of_students(model)
        assert all(any((a != b).any() for a, b in zip(*pair, strict=True)) for pair in zip(before, after, strict=True))


def state_of_students(model: SemiSupervisedModel) -> list[list[np.ndarray]]:
    return [[numpy(v.value) for v in network.trainable_variables] for network in model.networks]


def test_the_tests_know_every_method():
    assert {method for method, _ in VARIANTS.values()} == set(METHODS)


OTHER_VALUES = {
    **{"confidence": 0.7, "uncertainty": 0.3, "mixing_beta": [3, 3], "injection_beta": [6, 3], "grid": 8},
    "diffusion_steps": 25,  # the linear schedule needs more than 20
}
MUST_STAY = {"bank_size", "neighbours", "exchange", "student_view"}  # what others, or the size of the network, must fit


@pytest.mark.backend_free
@pytest.mark.parametrize("name", METHODS)
def test_every_argument_of_a_methods_own_comes_back_from_the_configuration(name):
    method, start, changes = METHODS[name], variant(name).get_config(), {}
    common = set(parameters(SemiSupervisedModel)) - {"teacher_momentum"}
    for argument, parameter in parameters(method).items():
        literal = str(parameter.annotation).partition("Literal[")[2].partition("]")[0]
        choices = [word.strip("\"' ") for word in literal.split(",")]
        if argument in common or argument in MUST_STAY:
            continue
        default = start[argument]
        if argument in OTHER_VALUES:
            changes[argument] = OTHER_VALUES[argument]
        elif choices != [""]:
            changes[argument] = next(choice for choice in choices if choice != default)
        elif isinstance(default, bool):
            changes[argument] = not default
        elif isinstance(default, int | float):
            changes[argument] = default + 1 if isinstance(default, int) else 0.5 * default + 0.125
    assert changes
    model = made(method, **changes)
    again = method.from_config(json.loads(json.dumps(model.get_config())))
    for each in (model, again):
        config = json.loads(json.dumps(each.get_config()))
        assert {argument: config[argument] for argument in changes} == changes


@pytest.mark.backend_free
@pytest.mark.parametrize("name", METHODS)
def test_own_statistics_need_a_teacher_that_labels(name):
    method = METHODS[name]
    if method.teachers:
        assert made(method, teacher_statistics="own").teacher_statistics == "own"
        return
    with pytest.raises(ValueError, match="`teacher_statistics` can be 'own' only where a teacher labels"):
        made(method, teacher_statistics="own")
    if method.teacher_may_label:
        assert made(method, teacher_statistics="own", teacher_momentum=0.9).teacher is not None
    else:
        with pytest.raises(ValueError, match="would stay as they start"):
            made(method, teacher_statistics="own", teacher_momentum=0.9)


def test_a_pass_refuses_outputs_and_views_that_it_has_not():
    model = variant("loco")
    labeled, unlabeled = model.training_views(*batch())
    with pytest.raises(
        ValueError, match="names 'mask_logit', which the network has not; it has mask_logits, projection"
    ):
        model.run(labeled, heads={"mask_logit": (labeled,)})
    with pytest.raises(ValueError, match="asks 'projection' for a view that is not in this pass"):
        model.run(labeled, heads={"projection": (unlabeled,)})
    with pytest.raises(ValueError, match="names 'projector'"):
        model.teach(labeled, heads=("projector",))


@EAGER
@pytest.mark.parametrize("name", METHODS)
def test_plain_images_are_labelled_as_a_view_that_is_all_image(name):
    model = variant(name)
    images = image_set(2, 4).images
    labels = model.label(images, View(ops.cast(images, "float32")) if name == "hermes" else None)
    shown = model.label(View(ops.cast(images, "float32"), ops.ones((2, *images.shape[1:3]))))
    for head in labels:
        assert numpy(labels[head].inside).min() == 1
        np.testing.assert_array_equal(numpy(labels[head].labels), numpy(shown[head].labels))


def test_an_error_in_terms_leaves_nothing_of_the_step_behind():
    model = variant("fixmatch")
    with mock.patch.object(model, "terms", side_effect=KeyError("slip")), pytest.raises(KeyError):
        model.compute_loss(*batch(), {})
    assert model._pass.labeled is None and model._pass.outputs is None


@EAGER
@pytest.mark.parametrize("name", METHODS)
def test_no_two_random_streams_that_are_drawn_from_begin_alike(name):
    model = variant(name)
    streams = [variable for variable in model.variables if variable.name == "random_state"]
    before = [numpy(stream) for stream in streams]
    eager_step(model, *batch(name=name))
    pairs = zip(before, map(numpy, streams), strict=True)
    begun = [tuple(start.ravel()) for start, now in pairs if (start != now).any()]
    assert begun and len(set(begun)) == len(begun)


def test_a_model_that_has_nothing_in_common_is_no_start():
    masks, classes = (made(METHODS["fixmatch"], tasks=tasks) for tasks in ("segmentation", "classification"))
    with pytest.raises(ValueError, match="no part in common"):
        masks.start_from(classes)


@pytest.mark.backend_free
@pytest.mark.parametrize("name", METHODS)
def test_plain_images_to_be_labelled_are_looked_at(name):
    model = variant(name)
    with pytest.raises(ValueError, match="0..255"):
        model.label(image_set(2).images[:2] / np.float32(255))
    with pytest.raises(ValueError, match=r"one image is"):
        model.label(image_set(2).images[0])


@EAGER
@pytest.mark.parametrize("name", [name for name in METHODS if name != "supervised"])
def test_a_control_takes_the_unlabelled_images_through_batch_norm_but_learns_nothing_from_them(name):
    model = variant(name)
    control = variant(name, **control_of(name, model.get_config()))
    assert all(term.endswith("supervised") for term, weight in control.loss_weights.items() if weight)
    start, found = control.get_weights(), []
    for seed in (0, 1):  # other unlabelled images
        control.set_weights(start)
        x, y = batch(name=name)
        x["unlabeled"] = np.random.default_rng(seed).integers(0, 256, x["unlabeled"].shape).astype(x["unlabeled"].dtype)
        control.compute_loss(x, y, {})
        found.append([numpy(v) for v in control.network.non_trainable_variables if v.name.startswith("moving_")])
    assert any((one != two).any() for one, two in zip(*found, strict=True))
