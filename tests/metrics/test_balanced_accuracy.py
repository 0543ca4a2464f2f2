from __future__ import annotations

import numpy as np
import pytest
from keras import ops
from sklearn.metrics import balanced_accuracy_score

from keras_semimed.metrics import BalancedAccuracy
from tests.losses.helpers import assert_config_round_trip, compiled, value


def probabilities_of(predicted: np.ndarray, classes: int) -> np.ndarray:
    return 0.1 + np.eye(classes, dtype="float32")[predicted]


@pytest.mark.parametrize("classes", [2, 4])
def test_over_batches_it_is_the_mean_recall_of_the_classes_that_occur(classes):
    rng = np.random.default_rng(classes)
    labels = rng.choice(classes - 1, 40, p=np.array([5, 2, 1])[: classes - 1] / sum([5, 2, 1][: classes - 1]))
    labels[:3] = classes - 1
    predicted = rng.integers(0, classes, 40)
    metric = BalancedAccuracy(classes)
    assert value(metric.result()) == 0
    for part in (slice(0, 25), slice(25, 40)):
        metric.update_state(labels[part, None], probabilities_of(predicted[part], classes))
    assert value(metric.result()) == pytest.approx(balanced_accuracy_score(labels, predicted), rel=1e-6)
    metric.reset_state()
    assert value(metric.result()) == 0


def test_unknown_labels_and_absent_classes_do_not_count():
    metric = BalancedAccuracy(3)
    metric.update_state(np.array([0, 0, 0, 1, 255]), probabilities_of(np.array([0, 0, 2, 0, 1]), 3))
    assert value(metric.result()) == pytest.approx((2 / 3 + 0) / 2)
    metric.update_state(np.array([255, 255]), probabilities_of(np.array([2, 2]), 3))
    assert value(metric.result()) == pytest.approx(1 / 3)


def test_it_is_compiled_and_comes_back_from_its_configuration():
    assert_config_round_trip(BalancedAccuracy(3, ignore_value=9, name="own"))
    metric = BalancedAccuracy(2)

    def function(*batch):
        return metric.stateless_result(metric.stateless_update_state([ops.zeros(2), ops.zeros(2)], *batch))

    result = compiled(function, np.array([0, 1, 1], "int32"), probabilities_of(np.array([0, 1, 0]), 2))
    assert value(result) == pytest.approx(0.75)
    with pytest.raises(ValueError, match="`num_classes` must be a whole number of at least 1, found 0"):
        BalancedAccuracy(0)
