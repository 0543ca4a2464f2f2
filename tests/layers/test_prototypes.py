"""Prototypes of classes against an independent reading, over several steps."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.layers import PrototypeMemory
from tests.gradients import gradient
from tests.layers.compiled import compiled


def state(memory):
    return ops.convert_to_numpy(memory.prototypes.value), ops.convert_to_numpy(memory.filled.value)


def update(memory, embeddings, scores, members):
    step = compiled(memory.update, memory.variables)
    step(*(ops.convert_to_tensor(np.asarray(x, "float32")) for x in (embeddings, scores, members)))


def by_hand(before, embeddings, scores, members, size, order="highest"):
    """Rows of each class; those of `before` where a class has no member."""
    found = []
    for c, rows in enumerate(before):
        chosen = np.flatnonzero(members[c]) if c else []
        if len(chosen):
            best = sorted(chosen, key=lambda i: scores[c][i], reverse=order == "highest")[:size]
            rows = embeddings[best]
        found.append(rows)
    return found


def rows_of(memory):
    prototypes, filled = state(memory)
    assert set(np.unique(filled)) <= {0, 1}
    for row, flags in zip(prototypes, filled, strict=True):
        assert (np.diff(flags) <= 0).all() and not row[flags == 0].any()
    return [row[flags > 0] for row, flags in zip(prototypes, filled, strict=True)]


@pytest.mark.parametrize(("order", "first", "last"), [("highest", 9, 40), ("lowest", 1, 32)])
def test_candidates_of_the_specification(order, first, last):
    memory = PrototypeMemory(2, dim=2, order=order)
    embeddings = np.stack([np.arange(1, 41), -np.arange(1, 41)], 1).astype("float32")
    scores = np.stack([np.zeros(40), np.arange(1, 41) / 100])
    members = np.stack([np.zeros(40), np.ones(40)])
    shuffle = np.random.default_rng(0).permutation(40)
    update(memory, embeddings[shuffle], scores[:, shuffle], members)
    assert sorted(rows_of(memory)[1][:, 0]) == list(range(first, last + 1))
    before = state(memory)
    update(memory, 7 * embeddings, scores, 0 * members)
    np.testing.assert_array_equal(state(memory)[0], before[0])
    members[1, 3:] = 0
    update(memory, 7 * embeddings, scores, members)
    assert sorted(rows_of(memory)[1][:, 0]) == [7, 14, 21]
    assert state(memory)[1][1].sum() == 3 and not state(memory)[1][0].any()


@pytest.mark.parametrize("order", ["highest", "lowest"])
def test_steps_with_several_classes(order):
    random = np.random.default_rng(1)
    memory, rows = PrototypeMemory(4, 5, 3, order), [np.zeros((0, 3))] * 4
    for step in range(6):
        embeddings = random.normal(size=(20, 3)).astype("float32")
        scores = random.permutation(80).reshape(4, 20) / 80
        members = random.uniform(size=(4, 20)) < (0.6, 0.4, 0.1, 0.02)[step % 4]
        update(memory, embeddings, scores, members)
        rows = by_hand(rows, embeddings, scores, members, 5, order)
        for mine, expected in zip(rows_of(memory), rows, strict=True):
            np.testing.assert_array_equal(mine, np.asarray(expected, "float32"))
        means, counts = (ops.convert_to_numpy(x) for x in memory.means())
        for c, expected in enumerate(rows):
            assert counts[c] == len(expected)
            units = [row / np.linalg.norm(row) for row in expected]
            np.testing.assert_allclose(means[c], np.mean(units, axis=0) if units else np.zeros(3), atol=1e-6)
    assert len({len(each) for each in rows}) > 1 and not len(rows[0])


def test_fewer_embeddings_than_places():
    memory = PrototypeMemory(3, 8, 2)
    embeddings = np.array([[1, 2], [3, 4]], "float32")
    update(memory, embeddings, [[0, 0], [0.2, 0.9], [0, 0]], [[1, 1], [1, 1], [0, 0]])
    rows = rows_of(memory)
    np.testing.assert_array_equal(rows[1], embeddings[::-1])
    assert len(rows[0]) == len(rows[2]) == 0


def test_what_is_not_finite_never_enters():
    memory = PrototypeMemory(2, 4, 2)
    embeddings = np.array([[1, 2], [np.inf, 0], [np.nan, 1], [3, 4]], "float32")
    update(memory, embeddings, [[0] * 4, [0.5, 0.9, 0.8, np.nan]], [[0] * 4, [1] * 4])
    np.testing.assert_array_equal(rows_of(memory)[1], [[1, 2]])
    assert np.isfinite(ops.convert_to_numpy(memory.means()[0])).all()


def test_no_gradient_and_float32_under_mixed_precision():
    memory = PrototypeMemory(2, 3, 2, dtype="mixed_float16")
    assert {variable.dtype for variable in memory.variables} == {"float32"} and not memory.trainable_variables
    scores, members = np.array([[0, 0], [0.2, 0.9]], "float32"), np.array([[0, 0], [1, 1]], "float32")

    def means(x, s):  # in a scope, as JAX assigns no weight while it differentiates
        with keras.StatelessScope(state_mapping=[(v, v.value) for v in memory.variables]):
            memory.update(x, s, members)
            return ops.sum(memory.means()[0])

    embeddings = np.array([[1, 2], [3, 4]], "float32")
    assert float(ops.convert_to_numpy(means(embeddings, scores))) == pytest.approx(1.3708, abs=1e-3)
    assert not gradient(lambda x: means(x, scores), embeddings).any()
    assert not gradient(lambda s: means(embeddings, s), scores).any()


def test_round_trip(tmp_path):
    memory = PrototypeMemory(3, 4, 2, "lowest")
    update(memory, np.ones((5, 2)), np.ones((3, 5)), np.ones((3, 5)))
    copy = keras.saving.deserialize_keras_object(json.loads(json.dumps(keras.saving.serialize_keras_object(memory))))
    assert copy.get_config() == memory.get_config()
    copy.set_weights(memory.get_weights())
    for a, b in zip(state(copy), state(memory), strict=True):
        np.testing.assert_array_equal(a, b)
    assert state(copy)[1].sum() == 8


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_classes": 1}, "`num_classes` must be a whole number of at least 2, found 1"),
        ({"size": 0}, "`size` must be a whole number of at least 1, found 0"),
        ({"dim": 0}, "`dim` must be a whole number of at least 1, found 0"),
        ({"order": "best"}, "`order` must be one of 'highest', 'lowest', found 'best'"),
    ],
)
def test_errors_name_argument_and_value(wrong, message):
    with pytest.raises(ValueError, match=message):
        PrototypeMemory(**{"num_classes": 2, **wrong})
