"""The bank against a list per class that is pushed at the front and cut at the end."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.layers import MemoryBank
from tests.gradients import gradient
from tests.layers.compiled import compiled


class _Lists:
    """What a bank must hold, in plain Python."""

    def __init__(self, num_classes, size, per_update):
        self.queues = [[] for _ in range(num_classes)]
        self.size, self.per_update = size, per_update

    def update(self, embeddings, labels, valid):
        for k, queue in enumerate(self.queues):
            new = [e for e, label, ok in zip(embeddings, labels, valid, strict=True) if ok and label == k]
            queue[:] = (new[: self.per_update] + queue)[: self.size]


def _assert_holds(bank, lists):
    embeddings, filled = (ops.convert_to_numpy(tensor) for tensor in bank.negatives())
    assert embeddings.dtype == filled.dtype == "float32"
    for k, queue in enumerate(lists.queues):
        np.testing.assert_array_equal(filled[k], np.arange(bank.size) < len(queue))
        if queue:
            np.testing.assert_array_equal(embeddings[k, : len(queue)], np.stack(queue))


def _batch(step, count=9, dim=4):
    random = np.random.default_rng(step)
    embeddings = random.normal(size=(count, dim)).astype("float32")
    return embeddings, random.integers(0, 3, count).astype("int32"), random.uniform(size=count) < 0.7


@pytest.mark.parametrize("size, per_update, count", [(7, 2, 9), (3, 5, 9), (6, 4, 2)])
def test_queue_order_limits_and_overflow(size, per_update, count):
    bank, lists = MemoryBank(2, size, 4, per_update), _Lists(2, size, per_update)  # label 2 is no class of this bank
    update = compiled(bank.update, bank.weights)
    for step in range(9):
        batch = _batch(step, count)
        update(*(ops.convert_to_tensor(array) for array in batch))
        lists.update(*batch)
        _assert_holds(bank, lists)
    assert max(len(queue) for queue in lists.queues) == size


def test_nothing_valid_changes_nothing():
    bank, lists = MemoryBank(3, 5, 4, 3), _Lists(3, 5, 3)
    batch = _batch(0)
    bank.update(*batch)
    lists.update(*batch)
    bank.update(batch[0] + 1, batch[1], np.zeros(9))
    bank.update(batch[0] + 1, np.full(9, 255, "int32"), np.ones(9))
    bank.update(batch[0] * np.nan, batch[1], np.ones(9))
    _assert_holds(bank, lists)


def test_no_gradient_flows_in_or_out():
    bank = MemoryBank(3, 5, 4)
    embeddings, labels, _ = _batch(0)
    bank.update(embeddings, labels, np.ones(9))

    def total(x):
        return ops.sum(bank.negatives()[0]) * ops.sum(x) * 0.0 + ops.sum(bank.negatives()[0])

    np.testing.assert_array_equal(gradient(total, embeddings), 0.0)
    assert not bank.trainable_weights


@keras.saving.register_keras_serializable(package="keras_semimed_tests")
class Remembering(keras.Model):
    """A model whose step fills a bank with its outputs."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(4)
        self.bank = MemoryBank(3, 8, 4, 2)

    def call(self, inputs):
        return self.dense(inputs)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = ops.mean(ops.square(ops.cast(y_pred, "float32"))) + 0.0 * ops.sum(self.bank.negatives()[0])
        self.bank.update(y_pred, y, ops.ones_like(y))
        return loss


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_filled_by_fit_and_saved_with_the_model(policy, tmp_path):
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = Remembering()
        model.compile("sgd")
        inputs = np.random.default_rng(0).normal(size=(12, 5)).astype("float32")
        model.fit(inputs, np.tile([0, 1, 0], 4).astype("int32"), batch_size=3, shuffle=False, verbose=0)
    finally:
        keras.config.set_dtype_policy(previous)
    embeddings, filled = (ops.convert_to_numpy(tensor) for tensor in model.bank.negatives())
    assert embeddings.dtype == "float32"
    assert filled.sum(axis=1).tolist() == [8.0, 4.0, 0.0]
    model.save(tmp_path / "bank.keras")
    loaded = keras.saving.load_model(tmp_path / "bank.keras")
    assert loaded.bank.get_config() == model.bank.get_config() | {"name": loaded.bank.name}
    np.testing.assert_array_equal(ops.convert_to_numpy(loaded.bank.negatives()[0]), embeddings)
    np.testing.assert_array_equal(ops.convert_to_numpy(loaded.bank.negatives()[1]), filled)


@pytest.mark.parametrize("argument", ["num_classes", "size", "dim", "per_update"])
def test_sizes_must_be_positive(argument):
    with pytest.raises(ValueError, match=argument):
        MemoryBank(**({"num_classes": 2} | {argument: 0}))
