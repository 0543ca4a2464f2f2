"""BatchNorm statistics taken anew."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.models import Hermes, MeanTeacher, Supervised, recompute_statistics
from tests.models.common import arguments, image_set, made

IMAGES = image_set(8, 1).images


def norms(network):
    return [layer for layer in network._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]


def numpy(value):
    return ops.convert_to_numpy(value)


def test_the_first_layer_gets_the_mean_over_batches_of_what_it_sees():
    model = made(Supervised, tasks="segmentation")
    network, first = model.network, norms(model.network)[0]
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        call = type(first).call
        patch.setattr(
            type(first), "call", lambda self, x, **kw: (seen.append((self, numpy(x))), call(self, x, **kw))[1]
        )
        before = [numpy(weight) for weight in network.trainable_weights]
        recompute_statistics(model, IMAGES, batch_size=4)
    batches = [x.astype("float64") for layer, x in seen if layer is first]
    assert [len(x) for x in batches] == [4, 4]
    means, variances = (np.mean([of(x, (0, 1, 2)) for x in batches], 0) for of in (np.mean, np.var))
    np.testing.assert_allclose(numpy(first.moving_mean), means, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(numpy(first.moving_variance), variances, rtol=1e-4)
    assert all(layer.momentum > 0 for layer in norms(network))
    for weight, old in zip(network.trainable_weights, before, strict=True):
        np.testing.assert_array_equal(numpy(weight), old)


@pytest.mark.parametrize("method", [MeanTeacher, Hermes])
def test_it_is_the_predictor_whose_statistics_change(method):
    model = made(method, teacher_momentum=0.9)
    student = [numpy(layer.moving_mean) for layer in norms(model.network)]
    recompute_statistics(model, IMAGES)
    changed = [numpy(layer.moving_mean).any() for layer in norms(model.teacher)]
    assert sum(changed) >= len(changed) - 3  # heads, which do not predict, stay
    for layer, old in zip(norms(model.network), student, strict=True):
        np.testing.assert_array_equal(numpy(layer.moving_mean), old)


def test_images_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match="`images` must hold at least one image"):
        recompute_statistics(Supervised(**arguments()), IMAGES[:0])
