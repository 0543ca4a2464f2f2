"""The diffusion of latents against its equations and the numbers of the specification (DiffRect)."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.layers import LatentDiffusion
from tests.gradients import gradient
from tests.layers.compiled import compiled


def numpy(value):
    return keras.tree.map_structure(ops.convert_to_numpy, value)


def alpha_bar(steps, schedule="cosine"):
    """One step after the other, in float64."""
    found, left = [], 1.0
    for i in range(steps):
        beta = 0.1 / steps + (20 - 0.1) / steps * i / (steps - 1) if schedule == "linear" else None
        if beta is None:
            now, following = (np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2 for u in (i / steps, (i + 1) / steps))
            beta = min(1 - following / now, 0.999)
        left *= 1 - beta
        found.append(left)
    return np.array(found)


def sampled_by_hand(denoise, x, steps, kept, clip=True):
    found = []
    for place, s in enumerate(steps):
        estimate = np.clip(denoise(x, s), -1, 1) if clip else denoise(x, s)
        found.append(estimate)
        noise = (x - np.sqrt(kept[s]) * estimate) / np.sqrt(1 - kept[s])
        following = kept[steps[place + 1]] if place + 1 < len(steps) else 1.0
        x = np.sqrt(following) * estimate + np.sqrt(1 - following) * noise
    return found


def test_the_schedule_of_the_specification():
    layer = LatentDiffusion()
    found = numpy(layer.alpha_bar)
    np.testing.assert_allclose(found[[0, 4]], [0.9720927, 0.4938436], atol=1e-7)
    np.testing.assert_allclose(found[9], 2.409172e-5, rtol=1e-5)
    np.testing.assert_allclose(found, alpha_bar(10), rtol=1e-5)
    np.testing.assert_allclose(numpy(layer.betas), 1 - np.array([*alpha_bar(10)]) / [1, *alpha_bar(10)[:-1]], rtol=1e-4)
    assert layer.sampled == (9, 0)
    x = numpy(layer.noised(np.ones((1, 1, 1, 1)), np.array([9]), np.ones((1, 1, 1, 1))))
    np.testing.assert_allclose(x, 0.0049083 + 0.9999880, rtol=1e-6)


def test_the_linear_schedule():
    layer = LatentDiffusion(40, schedule="linear")
    np.testing.assert_allclose(numpy(layer.betas)[[0, -1]], [0.1 / 40, 0.5], rtol=1e-6)
    np.testing.assert_allclose(numpy(layer.alpha_bar), alpha_bar(40, "linear"), rtol=1e-4)


@pytest.mark.parametrize(("start", "expected"), [(1.0, [0.5, 0.3298103]), (3.0, [1.0, 0.7431489])])
def test_the_samples_of_the_specification(start, expected):
    seen = []

    def denoiser(x, steps):
        seen.append(numpy((x, steps)))
        return x / 2

    found = numpy(LatentDiffusion().sample(denoiser, np.full((2, 1, 1, 1), start)))
    np.testing.assert_allclose(np.ravel([each[1] for each in found]), expected, rtol=1e-5)
    assert [steps.tolist() for _, steps in seen] == [[9, 9], [0, 0]] and seen[0][1].dtype == "int32"
    np.testing.assert_allclose(seen[1][0][0], 2 * found[1][0], rtol=1e-6)
    assert found[0].dtype == "float32"


@pytest.mark.parametrize(("count", "steps"), [(1, (9,)), (4, (9, 6, 3, 0)), (10, tuple(range(9, -1, -1)))])
@pytest.mark.parametrize("clip", [True, False])
def test_samples_of_any_number_of_steps(count, steps, clip):
    layer, noise = LatentDiffusion(10, count, clip=clip), np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    assert layer.sampled == steps
    found = numpy(layer.sample(lambda x, s: 1.2 * ops.sin(x) + 0.05 * ops.cast(s[0], "float32"), noise))
    expected = sampled_by_hand(lambda x, s: 1.2 * np.sin(x) + 0.05 * s, noise, steps, alpha_bar(10), clip)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-3)
    assert (np.abs(found[0]).max() <= 1) == clip


def test_noised_latents():
    random = np.random.default_rng(1)
    latent, noise = random.normal(size=(2, 4, 3, 2, 5))
    steps, kept = np.array([0, 3, 9, 3]), alpha_bar(10)
    found = numpy(compiled(LatentDiffusion().noised, [])(latent.astype("float16"), steps, noise.astype("float32")))
    for n, s in enumerate(steps):
        expected = np.sqrt(kept[s]) * latent[n].astype("float16") + np.sqrt(1 - kept[s]) * noise[n]
        np.testing.assert_allclose(found[n], expected, atol=1e-5)
    assert found.dtype == "float32"


def test_no_gradient_passes():
    layer, x = LatentDiffusion(), np.ones((1, 2, 2, 1), "float32")
    assert not gradient(lambda v: ops.sum(layer.noised(v, np.array([1]), v)), x).any()
    assert not gradient(lambda v: ops.sum(layer.sample(lambda latent, _: latent * v, v)[-1]), x).any()


def test_draws_are_uniform_steps_and_normal_noise_of_a_stored_stream():
    layer = LatentDiffusion(4, seed=3)
    draw = compiled(layer.draw, layer.variables)
    latent = np.zeros((800, 2, 3, 4), "float16")
    steps, noise = numpy(draw(latent))
    assert steps.dtype == "int32" and noise.dtype == "float32" and noise.shape == latent.shape
    assert set(np.unique(steps)) == {0, 1, 2, 3} and np.bincount(steps).min() > 150
    assert abs(noise.mean()) < 0.03 and abs(noise.std() - 1) < 0.03
    again = numpy(draw(latent))
    assert (again[0] != steps).any() and (again[1] != noise).any()
    copy = keras.saving.deserialize_keras_object(json.loads(json.dumps(keras.saving.serialize_keras_object(layer))))
    for ours, theirs in zip(numpy(copy.draw(latent)), (steps, noise), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    copy.set_weights(layer.get_weights())
    for ours, theirs in zip(numpy(copy.draw(latent)), numpy(draw(latent)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert [v.name for v in layer.variables] == ["random_state"] and not layer.trainable_variables


def test_config_round_trip():
    layer = LatentDiffusion(30, 3, "linear", False, seed=5)
    copy = LatentDiffusion.from_config(json.loads(json.dumps(layer.get_config())))
    assert copy.get_config() == layer.get_config()
    assert (copy.steps, copy.sampled_steps, copy.schedule, copy.clip, copy.seed) == (30, 3, "linear", False, 5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "`steps` must be a whole number of at least 1, found 0"),
        ({"sampled_steps": 0}, "`sampled_steps` must be a whole number of at least 1, found 0"),
        ({"sampled_steps": 11}, "`sampled_steps` must be at most `steps`, 10, found 11"),
        ({"schedule": "sine"}, "`schedule` must be one of 'cosine', 'linear', found 'sine'"),
        ({"schedule": "linear"}, "`steps` must be above 20 .*found 10"),
        ({"schedule": "linear", "steps": 20}, "`steps` must be above 20 .*found 20"),
        ({"seed": -1}, "`seed` must be .*found -1"),
    ],
)
def test_errors_name_argument_and_value(wrong, message):
    with pytest.raises(ValueError, match=message):
        LatentDiffusion(**wrong)
