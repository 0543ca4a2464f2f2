from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.callbacks import AttentionMonitor
from keras_semimed.evaluation.gates import gate_scores
from keras_semimed.files import read_sealed
from keras_semimed.models import Hermes, Supervised
from tests.models import common
from tests.models.common import batches, image_set

IMAGES = image_set(3, 3).images


def about(expected):
    """The same up to the order in which a backend's threads add up."""
    return pytest.approx(expected, abs=1e-6)


def watched(model, epochs=1, first=0, **options):
    """A monitor after some epochs in which nothing is trained."""
    monitor = AttentionMonitor(IMAGES, **options)
    monitor.set_model(model)
    monitor.on_train_begin()
    for epoch in range(first, first + epochs):
        monitor.on_epoch_end(epoch)
    return monitor


def test_it_notes_the_gates_that_the_model_explains():
    model, random = Supervised(**common.arguments(exchange="seg_to_cls")), np.random.default_rng(0)
    for attention in model.network.network.attentions:  # its gates are constant before training
        for weight in (attention.excite.kernel, attention.place.kernel):
            weight.assign(random.normal(size=weight.shape))
        for weight in (attention.kernel, attention.squeeze.kernel):  # features are positive: the ReLU lets them pass
            weight.assign(np.abs(random.normal(size=weight.shape)))
    (row,) = watched(model).history
    maps = model.explain(IMAGES)
    assert row == about({"epoch": 1, **gate_scores(maps["channel_attention"], maps["spatial_attention"])})
    channel, spatial = maps["channel_attention"][1], maps["spatial_attention"][1]
    assert row["P2_channel_high"] == about(channel.max()) and row["P2_spatial_low"] == about(spatial.min())
    assert row["P2_channel_spread"] == about(channel.astype("float64").std(axis=0).mean()) and channel.std() > 0.01
    assert {name.partition("_")[0] for name in row} == {"epoch", "P1", "P2", "P3", "P4"}


def test_gates_before_training_are_constant():
    (row,) = watched(Hermes(**common.arguments())).history
    for level in ("P1", "P2", "P3", "P4"):
        for gate in ("channel", "spatial"):
            assert row[f"{level}_{gate}_low"] == pytest.approx(0.95, abs=1e-6)
            assert row[f"{level}_{gate}_spread"] == pytest.approx(0, abs=1e-7)


def test_a_training_that_goes_on_takes_the_history_up(tmp_path):
    model, path = Supervised(**common.arguments(exchange="seg_to_cls")), tmp_path / "attention.json"
    monitor = watched(model, epochs=2, path=path)
    assert read_sealed(path) == {"images": 3, "history": monitor.history}
    later = watched(model, first=1, path=path)
    assert [row["epoch"] for row in later.history] == [1, 2] and later.history[0] == monitor.history[0]
    path.write_text(path.read_text().replace('"images": 3', '"images": 4'))
    with pytest.warns(UserWarning, match="attention.json is damaged .* watched anew"):
        anew = watched(model, first=2, path=path)
    assert [row["epoch"] for row in anew.history] == [3]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Supervised(**common.arguments()),
        lambda: Hermes(**common.arguments(exchange="cls_to_seg")),
        lambda: Hermes(**common.arguments(attention_on="labeled")),
        lambda: Hermes(**common.arguments(tasks="segmentation")),
        keras.Sequential,
    ],
    ids=["no exchange", "saliency only", "labelled images only", "one task", "another model"],
)
def test_nothing_is_left_where_there_is_no_attention(make, tmp_path):
    monitor = watched(make(), path=tmp_path / "attention.json")
    assert monitor.history == [] and list(tmp_path.iterdir()) == []


def test_it_needs_images():
    with pytest.raises(ValueError, match="`images` must hold at least one image, found none"):
        AttentionMonitor(IMAGES[:0])


def state_of(model):
    return [ops.convert_to_numpy(variable) for variable in (*model.variables, *model.optimizer.variables)]


def test_a_training_goes_on_as_without_it(tmp_path):
    model = Supervised(**common.arguments(exchange="both"))
    model.compile()
    start = state_of(model)
    histories, ends = [], []
    monitor = AttentionMonitor(IMAGES, tmp_path / "attention.json")
    for callbacks in ([], [monitor]):
        for variable, value in zip((*model.variables, *model.optimizer.variables), start, strict=True):
            variable.assign(value)
        histories.append(model.fit(batches(steps=2), epochs=2, verbose=0, callbacks=callbacks).history)
        ends.append(state_of(model))
    assert histories[0] == histories[1]
    for old, new in zip(*ends, strict=True):
        np.testing.assert_array_equal(old, new)
    # Each epoch is looked at with the weights of its end.
    maps = model.explain(IMAGES)
    expected = gate_scores(maps["channel_attention"], maps["spatial_attention"])
    assert monitor.history[-1] == about({"epoch": 2, **expected})
    assert monitor.history[0] != about({"epoch": 1, **expected})
