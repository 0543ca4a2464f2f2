from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.data.arrays import EvaluationBatches
from keras_semimed.models import Supervised
from keras_semimed.models.supervised import branch_optimizer
from tests.models.common import arguments, batches, image_set, weights_of


def test_learns_squares_and_reports_only_supervised_figures():
    model = Supervised(**arguments(total_steps=60, views={"scale": (1.0, 1.0), "shift": 0.0}))
    model.compile(optimizer=keras.optimizers.Adam(0.01))
    test = EvaluationBatches(image_set(8, 9), 4)
    before = model.evaluate(test, verbose=0, return_dict=True)
    history = model.fit(batches(steps=60, batch_size=6), verbose=0, validation_data=test).history
    assert set(before) == {"loss", "dice", "accuracy"}
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


@pytest.mark.parametrize("missing", ["mask", "label"])
def test_targets_that_are_missing_leave_their_head_alone(missing):
    model = Supervised(**arguments())
    x, y = batches()[0]
    y = {name: value for name, value in y.items() if name != missing}
    outputs = model(x, training=True)
    terms, _ = model.loss_terms(outputs, {k: ops.convert_to_tensor(v) for k, v in y.items()})
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
