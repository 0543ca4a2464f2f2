from __future__ import annotations

import keras
import numpy as np
import pytest
from PIL import Image

from keras_semimed.callbacks import ThresholdMonitor
from keras_semimed.models import Hermes, LoCo
from tests.models import common, test_loco
from tests.models.common import batches, weights_of


def observe(monitor: ThresholdMonitor, shares: list[float], first_epoch: int = 0) -> ThresholdMonitor:
    """Calls the monitor as `fit` does."""
    if monitor.model is None:
        monitor.set_model(keras.Sequential())
    monitor.on_train_begin()
    for epoch, share in enumerate(shares, first_epoch):
        monitor.on_epoch_end(epoch, {"loss": 1.0, "mask_selected": share, "val_mask_selected": 9.0})
    monitor.on_train_end()
    return monitor


def test_loco_s_thresholds_and_shares_by_epoch(tmp_path):
    path = tmp_path / "figures" / "thresholds.png"
    monitor = ThresholdMonitor(path, class_names=("ground", "square", "other square"))
    changes = {"inter_class": False, "boundary": False}  # compiles faster, and is not what is looked at
    model = LoCo(**test_loco.arguments(num_classes=3, threshold_momentum=0.5, fixed_threshold=0.4, **changes))
    model.compile()
    history = model.fit(batches(steps=2, classes=3), epochs=3, verbose=0, callbacks=[monitor]).history
    expected = {"epoch", "global_threshold", "mask_selected"}
    for kind in ("threshold", "mask_selected", "fixed_selected"):
        expected |= {f"{kind}_class_{index}" for index in range(3)}
    assert set(monitor.history) == expected
    assert monitor.history["epoch"] == [1, 2, 3]
    for name in expected - {"epoch"}:
        np.testing.assert_allclose(monitor.history[name], history[name], rtol=1e-6, err_msg=name)
    assert len(set(monitor.history["global_threshold"])) == 3
    with Image.open(path) as picture:
        assert picture.format == "PNG"
    before = weights_of(model)
    monitor.on_epoch_end(3, {name: values[-1] for name, values in history.items()})
    monitor.on_train_end()
    for a, b in zip(before, weights_of(model), strict=True):
        np.testing.assert_array_equal(a, b)


def test_hermes_has_two_heads(tmp_path):
    model = Hermes(**common.arguments(exchange="none"))
    model.compile()
    monitor = ThresholdMonitor(tmp_path / "thresholds.png")
    history = model.fit(batches(steps=2), epochs=2, verbose=0, callbacks=[monitor]).history
    shares = {f"{head}_selected{of}" for head in ("mask", "label") for of in ("", "_class_0", "_class_1")}
    assert set(monitor.history) == {"epoch", "kappa", "tau", *shares}
    assert monitor.history["kappa"] == pytest.approx(history["kappa"])
    assert monitor.history["kappa"][0] > monitor.history["kappa"][1]
    assert (tmp_path / "thresholds.png").exists()


def test_a_continued_training_is_appended_and_a_new_one_starts_over():
    monitor = observe(ThresholdMonitor(), [0.1, 0.2])
    assert monitor.history == {"epoch": [1, 2], "mask_selected": [0.1, 0.2]}
    observe(monitor, [0.3], first_epoch=2)
    assert monitor.history == {"epoch": [1, 2, 3], "mask_selected": [0.1, 0.2, 0.3]}
    observe(monitor, [0.4], first_epoch=1)
    assert monitor.history == {"epoch": [1, 2], "mask_selected": [0.1, 0.4]}
    observe(monitor, [0.5])
    assert monitor.history == {"epoch": [1], "mask_selected": [0.5]}


def test_a_training_that_is_cut_off_leaves_its_picture_if_asked_to(tmp_path):
    for every_epoch in (False, True):
        monitor = ThresholdMonitor(tmp_path / "thresholds.png", every_epoch)
        monitor.set_model(keras.Sequential())
        monitor.on_train_begin()
        monitor.on_epoch_end(0, {"tau": 0.8})
        assert (tmp_path / "thresholds.png").exists() == every_epoch


def test_without_pseudo_labels_there_is_no_picture_but_a_word(tmp_path):
    monitor = ThresholdMonitor(tmp_path / "thresholds.png")
    monitor.set_model(keras.Sequential())
    monitor.on_train_begin()
    monitor.on_epoch_end(0, {"loss": 1.0, "dice": 0.5})
    with pytest.warns(UserWarning, match="ThresholdMonitor found neither thresholds nor selected shares"):
        monitor.on_train_end()
    assert list(tmp_path.iterdir()) == [] and monitor.history == {"epoch": [1]}


def test_a_folder_that_cannot_be_made_shows_before_the_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        ThresholdMonitor(tmp_path / "file" / "thresholds.png").on_train_begin()
