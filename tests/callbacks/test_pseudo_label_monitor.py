from __future__ import annotations

import json

import keras
import numpy as np
import pytest

from keras_semimed.callbacks import PseudoLabelMonitor
from keras_semimed.callbacks.pseudo_label_monitor import passes
from keras_semimed.evaluation.pseudo_masks import PseudoMasks


class Given:
    """Stands in for a model: the probability of class 1 is a hundredth of the first channel; batches of 2 only."""

    selection = "dual"

    def predict_on_batch(self, images):
        assert len(images) == 2
        one = images[..., 0] / 100
        mask = np.stack([1 - one, one], -1).astype("float32")
        label = mask[:, 0, 0]
        return {name: keras.ops.convert_to_tensor(value) for name, value in (("mask", mask), ("label", label))}


def monitored(logs, epochs=1, first=0, **options):
    """Three images of one row with four pixels, as `fit` shows them to the monitor."""
    images = np.array([[90, 60, 10, 40], [90, 90, 90, 90], [20, 20, 20, 95]])[:, None, :, None]
    masks = np.array([[1, 0, 0, 255], [1, 1, 0, 1], [0, 0, 0, 0]])[:, None]
    monitor = PseudoLabelMonitor(images, masks, np.array([1, 1, 1]), batch_size=2, **options)
    monitor.set_model(Given())
    monitor.on_train_begin()
    for epoch in range(first, first + epochs):
        monitor.on_epoch_end(epoch, logs)
    return monitor


def test_accuracy_of_all_and_of_those_that_pass():
    monitor = monitored({"mask_selected": 0.5, "tau": 0.85, "kappa": 0.4})
    # Of 11 known pixels three are wrong, 0.6, 0.9 and 0.95 on background. 0.85 lets 7 pass, of which two are wrong; the
    # entropy of 0.9, 0.33, passes too.
    (row,) = monitor.history
    assert row["epoch"] == 1
    assert row["mask_accuracy"] == pytest.approx(8 / 11)
    assert row["mask_selected_accuracy"] == pytest.approx(5 / 7)
    assert row["label_accuracy"] == pytest.approx(2 / 3) and row["label_selected_accuracy"] == 1


def test_histograms_are_of_the_first_epoch(tmp_path):
    monitor = monitored({"mask_selected": 0.5}, epochs=2, path=tmp_path / "watched.json")
    confidence, entropy = (monitor.first_epoch["mask"][name] for name in ("confidence", "entropy"))
    assert (confidence["edges"][0], confidence["edges"][-1]) == (0.5, 1.0)
    assert entropy["edges"][-1] == pytest.approx(np.log(2))
    assert sum(confidence["counts"]) == sum(entropy["counts"]) == 12
    # Two of 0.6, three of 0.8, six of 0.9, one of 0.95.
    assert [count for count in confidence["counts"] if count] == [2, 3, 6, 1]
    assert [count for count in entropy["counts"] if count] == [1, 6, 3, 2]
    assert json.loads((tmp_path / "watched.json").read_text())["history"] == monitor.history
    # A training that goes on keeps them and drops what it does again.
    later = monitored({"mask_selected": 0.5}, first=1, path=tmp_path / "watched.json")
    assert later.first_epoch == monitor.first_epoch and [row["epoch"] for row in later.history] == [1, 2]


def test_pseudo_masks_of_the_first_and_the_last_epoch_are_kept(tmp_path):
    logs = {"mask_selected": 0.5, "tau": 0.85, "kappa": 0.4}
    monitor = monitored(logs, epochs=3, path=tmp_path / "watched.json")
    loaded = PseudoMasks.load(tmp_path / "watched.npz")
    assert {key[0] for key in loaded.kept} == {1, 3} and loaded.images.shape == (3, 1, 4, 1)
    found = {name: kept[:, 0].tolist() for name, kept in loaded.epochs()[3].items()}
    # The first pixel's 0.9 passes both tests, 0.6 neither.
    assert found["none"][0] == [1, 1, 0, 0] and found["dual"][0] == [1, 0, 0, 0]
    assert found["confidence"][2] == found["uncertainty"][2] == [0, 0, 0, 1]
    later = monitored({"mask_selected": 0.5, "threshold_class_1": 0.85}, first=3, path=tmp_path / "watched.json")
    assert set(later.pseudo_masks.kept) == {*((1, name) for name in found), (4, "none"), (4, "confidence")}
    np.testing.assert_array_equal(later.pseudo_masks.kept[1, "dual"], monitor.pseudo_masks.kept[3, "dual"])


def test_thresholds_are_those_in_the_logs():
    sure = np.array([[0.2, 0.8], [0.1, 0.9], [0.7, 0.3]])
    assert passes("mask", sure, {"mask_tau": 0.85, "tau": 0.0}).tolist() == [False, True, False]
    assert passes("label", sure, {"mask_tau": 0.85}).tolist() == [True, True, True]
    by_class = {"threshold_class_0": 0.6, "threshold_class_1": 0.85}
    assert passes("mask", sure, by_class).tolist() == [False, True, True]
    logs = {"tau": 0.75, "kappa": 0.4}  # nats; 0.9 against 0.1 has 0.33, 0.8 against 0.2 has 0.50
    expected = {"none": [1, 1, 1], "confidence": [1, 1, 0], "uncertainty": [0, 1, 0], "dual": [0, 1, 0]}
    for selection, chosen in expected.items():
        assert passes("mask", sure, logs, selection).tolist() == [bool(value) for value in chosen]
    assert passes("mask", sure, logs, "dual", "any").tolist() == [True, True, False]


def test_nothing_is_done_without_pseudo_labels_and_nothing_selected_has_no_accuracy(tmp_path):
    assert monitored({"loss": 1.0}, path=tmp_path / "watched.json").history == []
    assert list(tmp_path.iterdir()) == []
    (row,) = monitored({"mask_selected": 0.0, "tau": 0.99}).history
    assert "mask_selected_accuracy" not in row and "mask_accuracy" in row
    with pytest.raises(ValueError, match="targets for all of them"):
        PseudoLabelMonitor(np.zeros((2, 4, 4, 3)), labels=np.zeros(3))
