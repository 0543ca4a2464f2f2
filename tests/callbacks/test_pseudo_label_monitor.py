from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.callbacks import PseudoLabelMonitor
from keras_semimed.evaluation.pseudo_masks import SELECTIONS, PseudoMasks
from keras_semimed.layers.pseudo_labels import PseudoLabels, hard_labels
from keras_semimed.models import CPS, FixMatch, Hermes, LoCo, SemiSupervisedModel, Supervised, View
from keras_semimed.thresholds import DualThreshold
from tests.models import common, test_loco
from tests.models.common import batches, image_set

SHARE = {"mask_selected": 0.5}
ONE_TASK = common.arguments(tasks="segmentation")


class Given(SemiSupervisedModel):
    """Labels as the first channel says, the probability of class 1 in hundredths, 0 = no label; batches of 2 only."""

    def __init__(self, threshold=0.0, weighted=False, tells=True):
        super().__init__(image_size=32)
        self.threshold, self.weighted, self.tells = threshold, weighted, tells
        self.traces = []
        self.built = True

    def label(self, view, other=None):
        self.traces.append(1)
        assert view.images.shape[0] == other.images.shape[0] == 2
        pixels = self.found(ops.stack([1 - view.images[..., 0] / 100, view.images[..., 0] / 100], -1), view.inside)
        return {"mask": pixels, "label": PseudoLabels(*(None if x is None else x[:, 0, 0] for x in pixels))}

    def found(self, probabilities, inside):
        confidence = ops.max(probabilities, axis=-1)
        kept = ops.cast(confidence >= self.threshold, "float32")
        kept = kept * confidence if self.weighted else kept
        labels = ops.cast(ops.argmax(probabilities, axis=-1), "int32")
        labels = ops.where(probabilities[..., 1] == 0, 255, labels)
        return PseudoLabels(labels, confidence, kept, inside, probabilities if self.tells else None)


def monitored(logs, epochs=1, first=0, model=None, **options):
    """Three images of one row with four pixels, as `fit` shows them to the monitor."""
    images = np.array([[91, 61, 9, 39], [91, 91, 91, 91], [19, 19, 19, 95]])[:, None, :, None]
    masks = np.array([[1, 0, 0, 255], [1, 1, 0, 1], [0, 0, 0, 0]])[:, None]
    monitor = PseudoLabelMonitor(images, masks, np.array([1, 1, 1]), batch_size=2, **options)
    monitor.set_model(Given(0.85) if model is None else model)
    monitor.on_train_begin()
    for epoch in range(first, first + epochs):
        monitor.on_epoch_end(epoch, logs)
    return monitor


def test_accuracy_of_all_and_of_those_that_are_kept():
    (row,) = monitored(SHARE).history
    # Of 11 known pixels three are wrong, 0.61, 0.91 and 0.95 on background. 0.85 keeps 7, of which two are wrong.
    assert row["epoch"] == 1
    assert row["mask_accuracy"] == pytest.approx(8 / 11)
    assert row["mask_selected_accuracy"] == pytest.approx(5 / 7)
    assert row["label_accuracy"] == pytest.approx(2 / 3) and row["label_selected_accuracy"] == 1


def test_a_weight_counts_as_a_weight_and_what_has_no_label_not_at_all():
    (row,) = monitored(SHARE, model=Given(0.85, weighted=True)).history
    # Kept are 0.91 (right), 0.91 (right, from 0.09), three 0.91 (right), and 0.91 and 0.95 (wrong).
    assert row["mask_selected_accuracy"] == pytest.approx(5 * 0.91 / (6 * 0.91 + 0.95))
    images = np.array([[0, 90], [0, 10]])[:, None, :, None]
    monitor = PseudoLabelMonitor(images, np.ones((2, 1, 2), int))
    monitor.set_model(Given())
    monitor.on_train_begin()
    monitor.on_epoch_end(0, SHARE)
    assert monitor.history == [{"epoch": 1, "mask_accuracy": 0.5, "mask_selected_accuracy": 0.5}]


def test_histograms_are_of_the_first_epoch(tmp_path):
    monitor = monitored(SHARE, epochs=2, path=tmp_path / "watched.json")
    confidence, entropy = (monitor.first_epoch["mask"][name] for name in ("confidence", "entropy"))
    assert (confidence["edges"][0], confidence["edges"][-1]) == (0.5, 1.0)
    assert entropy["edges"][-1] == pytest.approx(np.log(2))
    assert sum(confidence["counts"]) == sum(entropy["counts"]) == 12
    # Two of 0.61, three of 0.81, six of 0.91, one of 0.95.
    assert [count for count in confidence["counts"] if count] == [2, 3, 6, 1]
    assert [count for count in entropy["counts"] if count] == [1, 6, 3, 2]
    assert json.loads((tmp_path / "watched.json").read_text())["history"] == monitor.history
    # A training that goes on keeps them and drops what it does again.
    later = monitored(SHARE, first=1, path=tmp_path / "watched.json")
    assert later.first_epoch == monitor.first_epoch and [row["epoch"] for row in later.history] == [1, 2]


def test_without_probabilities_there_is_no_entropy():
    found = monitored(SHARE, model=Given(tells=False)).first_epoch
    assert set(found) == {"mask", "label"}
    assert all(list(measured) == ["confidence"] for measured in found.values())


def binned(found, probabilities):
    """Whether a histogram is that of the entropies of probabilities, but for values on an edge."""
    entropies = -np.sum(probabilities * np.log(np.maximum(probabilities, 1e-9)), -1)
    counts, _ = np.histogram(entropies, bins=found["edges"])
    return np.abs(counts - np.array(found["counts"])).sum() < 0.02 * counts.sum()


@pytest.mark.parametrize("method", [CPS, FixMatch])
def test_the_entropy_is_that_of_the_network_that_labels_not_of_the_one_that_predicts(method):
    model = scattered(method(**ONE_TASK, teacher_momentum=None if method is CPS else 0.9))
    labels, predicts = (probabilities(network, DATA.images) for network in (model.labeler, model.predictor))
    found = watched(model).first_epoch["mask"]["entropy"]
    assert binned(found, labels) and not binned(found, predicts)


def test_pseudo_masks_of_the_first_and_the_last_epoch_are_kept(tmp_path):
    monitor = monitored(SHARE, epochs=3, path=tmp_path / "watched.json")
    loaded = PseudoMasks.load(tmp_path / "watched.npz")
    assert {key[0] for key in loaded.kept} == {1, 3} and loaded.images.shape == (3, 1, 4, 1)
    found = {name: kept[:, 0].tolist() for name, kept in loaded.epochs()[3].items()}
    # Of the first image 0.91 is kept, 0.61 is not; 0.95 is kept in the last one.
    assert found == {
        "none": [[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 1]],
        "kept": [[1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 1]],
    }
    later = monitored(SHARE, first=3, path=tmp_path / "watched.json", model=Given(0.99))
    assert set(later.pseudo_masks.kept) == {(epoch, name) for epoch in (1, 4) for name in ("none", "kept")}
    np.testing.assert_array_equal(later.pseudo_masks.kept[1, "kept"], monitor.pseudo_masks.kept[3, "kept"])
    assert not later.pseudo_masks.kept[4, "kept"].any()


def test_a_training_compiles_what_it_asks_once():
    model = Given()
    monitored(SHARE, epochs=3, model=model)
    # Label and variants, which ask for the label again; PyTorch runs both for each of two batches.
    assert len(model.traces) == (12 if keras.backend.backend() == "torch" else 2)


def test_nothing_is_done_without_pseudo_labels_and_nothing_kept_has_no_accuracy(tmp_path):
    for model, logs in ((Given(), {"loss": 1.0}), (keras.Sequential(), SHARE)):
        monitor = monitored(logs, model=model, path=tmp_path / "watched.json")
        assert monitor.history == [] and list(tmp_path.iterdir()) == []
    (row,) = monitored(SHARE, model=Given(1.1)).history
    assert "mask_selected_accuracy" not in row and "mask_accuracy" in row
    with pytest.raises(ValueError, match="`images` must each have a target"):
        PseudoLabelMonitor(np.zeros((2, 4, 4, 3)), labels=np.zeros(3))


DATA = image_set(5, 3)


def watched(model, images=DATA.images, masks=DATA.masks, labels=DATA.labels):
    """The monitor's row of one epoch, and its pseudo-masks."""
    monitor = PseudoLabelMonitor(images, masks, labels)
    monitor.set_model(model)
    monitor.on_train_begin()
    monitor.on_epoch_end(0, {**SHARE, "label_selected": 0.5})
    return monitor


def scattered(model):
    """The same weights on every backend, far enough from where they start that predictions differ."""
    random = np.random.default_rng(1)
    for variable in model.trainable_variables:
        shape = tuple(variable.shape)
        width = (2 / np.prod(shape[:-1])) ** 0.5 if len(shape) > 1 else 0.2
        variable.assign(random.normal(variable.name == "gamma", width, shape))
    return model


def probabilities(network, images, head="mask"):
    """What a network gives for images, in NumPy."""
    logits = ops.convert_to_numpy(network(images, training=False)[f"{head}_logits"]).astype("float64")
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def accuracies(found, chosen, truth):
    """Share of the labels that are right, of all and of the chosen ones; both kinds of them occur."""
    right = found.argmax(-1) == truth
    assert 0.1 < chosen.mean() < 0.9 and right.mean() != right[chosen].mean()
    return {"all": pytest.approx(right.mean(), abs=1e-3), "kept": pytest.approx(right[chosen].mean(), abs=5e-3)}


def test_a_method_whose_threshold_the_logs_do_not_name():
    # Larger images than the views: they are looked at as they are.
    images, masks = np.tile(DATA.images, (1, 2, 2, 1)), np.tile(DATA.masks, (1, 2, 2))
    model = scattered(FixMatch(**common.arguments(tasks="segmentation")))
    found = probabilities(model.network, images)
    model.threshold = float(np.median(found.max(-1)))
    expected = accuracies(found, found.max(-1) >= model.threshold, masks)
    (row,) = watched(model, images, masks).history
    assert {"all": row["mask_accuracy"], "kept": row["mask_selected_accuracy"]} == expected
    assert set(row) == {"epoch", "mask_accuracy", "mask_selected_accuracy"}


def test_a_method_with_two_students():
    class Sure(CPS):
        def select(self, head, logits, inside, other=None, training=False):
            return hard_labels(logits, inside, self.threshold)

    model = scattered(Sure(**common.arguments()))
    first, second = (probabilities(network, DATA.images) for network in model.networks)
    assert (first.argmax(-1) != second.argmax(-1)).mean() > 0.1
    model.threshold = float(np.median(second.max(-1)))
    # The second one teaches the first, which predicts.
    expected = accuracies(second, second.max(-1) >= model.threshold, DATA.masks)
    (row,) = watched(model).history
    assert {"all": row["mask_accuracy"], "kept": row["mask_selected_accuracy"]} == expected


def test_hermes_with_the_uncertainty_of_two_views_and_its_four_selections():
    model = scattered(Hermes(**common.arguments(tasks="segmentation", uncertainty_of="mean")))
    # The colours of a model whose streams have not moved, while this one's have.
    strong = Hermes.from_config(model.get_config()).views.strong(ops.convert_to_tensor(DATA.images))
    model.strong(View(ops.convert_to_tensor(DATA.images, "float32")))
    weak, other = probabilities(model.network, DATA.images), probabilities(model.network, strong)
    mean = (weak + other) / 2
    uncertainty = -(mean * np.log(mean)).sum(-1)
    tau, kappa = float(np.quantile(weak.max(-1), 0.3)), float(np.quantile(uncertainty, 0.7))
    model.mask_threshold = DualThreshold("dual", confidence=tau, uncertainty=kappa)
    monitor = watched(model)
    kept = {
        "none": np.ones(uncertainty.shape, bool),
        "confidence": weak.max(-1) >= tau,
        "uncertainty": uncertainty <= kappa,
        "dual": (weak.max(-1) >= tau) & (uncertainty <= kappa),
    }
    expected = accuracies(weak, kept["dual"], DATA.masks)
    (row,) = monitor.history
    assert {"all": row["mask_accuracy"], "kept": row["mask_selected_accuracy"]} == expected
    # The strong view has its say: the weak one alone is certain elsewhere.
    assert (kept["uncertainty"] != (-(weak * np.log(weak)).sum(-1) <= kappa)).mean() > 0.01
    found = monitor.pseudo_masks.epochs()[1]
    assert list(found) == list(kept) and set(found) < set(SELECTIONS)
    for name, chosen in kept.items():
        assert (found[name] == np.where(chosen, weak.argmax(-1), 0)[:3]).mean() > 0.999, name


def test_classes_alone_have_no_pseudo_masks():
    monitor = watched(Hermes(**common.arguments(tasks="classification")))
    assert monitor.pseudo_masks is None
    assert set(monitor.history[0]) <= {"epoch", "label_accuracy", "label_selected_accuracy"}


@pytest.mark.parametrize("make", [Hermes, LoCo, CPS, FixMatch])
def test_to_label_moves_nothing(make):
    given = {
        Hermes: {"tasks": "segmentation", "uncertainty_of": "disagreement", "teacher_momentum": 0.9},
        FixMatch: {"tasks": "classification", "teacher_momentum": 0.9},
    }
    arguments = test_loco.arguments if make is LoCo else common.arguments
    model = make(**arguments(**given.get(make, {})))
    model.compile()
    before = state_of(model)
    watched(model)
    for old, new in zip(before, state_of(model), strict=True):
        np.testing.assert_array_equal(old, new)


def state_of(model):
    return [ops.convert_to_numpy(variable) for variable in (*model.variables, *model.optimizer.variables)]


def test_a_training_goes_on_as_without_it(tmp_path):
    model = LoCo(**test_loco.arguments(inter_class=False, boundary=False, threshold_momentum=0.5))
    model.compile()
    start = state_of(model)
    histories, ends = [], []
    monitor = PseudoLabelMonitor(DATA.images, DATA.masks, DATA.labels, tmp_path / "watched.json", batch_size=4)
    for callbacks in ([], [monitor]):
        for variable, value in zip((*model.variables, *model.optimizer.variables), start, strict=True):
            variable.assign(value)
        histories.append(model.fit(batches(steps=2), epochs=2, verbose=0, callbacks=callbacks).history)
        ends.append(state_of(model))
    assert histories[0] == histories[1]
    for old, new in zip(*ends, strict=True):
        np.testing.assert_array_equal(old, new)
    assert [row["epoch"] for row in monitor.history] == [1, 2]
    # Each epoch is looked at with the weights and the thresholds of its end.
    labels = model.label(View(ops.convert_to_tensor(DATA.images, "float32"), ops.ones(DATA.masks.shape)))["mask"]
    right, kept = ops.convert_to_numpy(labels.labels) == DATA.masks, ops.convert_to_numpy(labels.kept) > 0
    assert monitor.history[-1]["mask_accuracy"] == pytest.approx(right.mean(), abs=1e-3)
    assert ("mask_selected_accuracy" in monitor.history[-1]) == kept.any()
    if kept.any():
        assert monitor.history[-1]["mask_selected_accuracy"] == pytest.approx(right[kept].mean(), abs=1e-2)


def test_supervised_training_is_not_asked():
    model = Supervised(**common.arguments(tasks="segmentation"))
    model.compile()
    monitor = PseudoLabelMonitor(DATA.images, DATA.masks)
    model.fit(batches(steps=1), verbose=0, callbacks=[monitor])
    assert monitor.history == [] and monitor.pseudo_masks is None
