"""DiffRect's rectifier against its layers written out in NumPy, and what carries a gradient."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.layers import LatentDiffusion
from keras_semimed.networks import LabelRectifier, RectifierBlock
from tests.layers.test_latent_diffusion import alpha_bar, sampled_by_hand
from tests.losses.helpers import assert_config_round_trip
from tests.models.pixelwise import slope

WIDTHS, DEEPER = (2, 3, 2, 3, 4), (5, 6)


@pytest.fixture(autouse=True)
def same_start():
    keras.utils.set_random_seed(0)


def numpy(value):
    return keras.tree.map_structure(ops.convert_to_numpy, value)


def shaken(layer, seed=0):
    """Weights at which everything matters: no zero bias, no trivial statistics."""
    random = np.random.default_rng(seed)
    for variable in layer.variables:
        if variable.name != "random_state":
            size = 0.5 if len(variable.shape) < 2 else 1 / np.sqrt(np.prod(variable.shape[:-1]))
            noise = size * random.normal(size=variable.shape)
            variable.assign(1 + np.abs(noise) if variable.name in ("gamma", "moving_variance") else noise)
    return layer


def leaky(x):
    return np.where(x > 0, x, 0.01 * x)


def swish(x):
    return x / (1 + np.exp(-x))


def dense(layer, x):
    return x @ numpy(layer.kernel.value).astype("float64") + numpy(layer.bias.value)


def convolution(layer, x):
    """Zeros around the image, one tap of the kernel after the other."""
    kernel = numpy(layer.kernel.value).astype("float64")
    side, (height, width) = len(kernel) // 2, x.shape[1:3]
    padded = np.pad(x, [(0, 0), (side, side), (side, side), (0, 0)])
    taps = np.ndindex(*kernel.shape[:2])
    return sum(padded[:, i : i + height, j : j + width] @ kernel[i, j] for i, j in taps) + numpy(layer.bias.value)


def norm(layer, x, batch=False):
    gamma, beta, mean, variance = (
        numpy(v.value) for v in (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance)
    )
    if batch:
        mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta


def block(layer, x, code, batch=False):
    x = leaky(norm(layer.norm_1, convolution(layer.convolution_1, x), batch))
    x = x + dense(layer.time, swish(code))[:, None, None]
    return leaky(norm(layer.norm_2, convolution(layer.convolution_2, x), batch))


def pool(x):
    rows, columns = (range(0, side, 2) for side in x.shape[1:3])
    return np.stack([np.stack([x[:, i : i + 2, j : j + 2].max((1, 2)) for j in columns], 1) for i in rows], 1)


def enlarge(x, size):
    """Bilinear with half-pixel centres, one axis after the other."""
    for axis, side in ((1, size[0]), (2, size[1])):
        places = np.clip((np.arange(side) + 0.5) * x.shape[axis] / side - 0.5, 0, x.shape[axis] - 1)
        low = places.astype(int)
        high = np.minimum(low + 1, x.shape[axis] - 1)
        share = (places - low).reshape([-1 if a == axis else 1 for a in range(4)])
        x = (1 - share) * np.take(x, low, axis) + share * np.take(x, high, axis)
    return x


def time_code(layer, values):
    angles = np.asarray(values, "float64")[:, None] * 10000.0 ** (-np.arange(64) / 63)
    first, second = layer.layers
    return dense(second, swish(dense(first, np.concatenate([np.sin(angles), np.cos(angles)], -1))))


def contraction(layer, x, code, added=None):
    found = []
    for level, each in enumerate(layer.blocks):
        x = block(each, x if level == 0 else pool(x), code) + (0 if added is None else added[level])
        found.append(x)
    return found


def enlargement(layer, x, skip, code):
    x = enlarge(convolution(layer.convolution, x), skip.shape[1:3])
    return block(layer.block, np.concatenate([x, skip], -1), code)


def denoise(layer, x, s, condition):
    code = time_code(layer.time_code, s)
    first = block(layer.blocks[0], pool(x), code)
    deepest = block(layer.blocks[1], pool(first), code)
    return enlargement(
        layer.enlargements[1], enlargement(layer.enlargements[0], deepest, first, code), x + condition, code
    )


def rectified(layer, colours, time, images, guide, steps, noise, latent=None):
    """Logits, latent loss and x_0; `latent`: x_0, where it is to stay."""
    images = (images / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    code = time_code(layer.time_code, [time])
    embedded = contraction(layer.embedder, images, code)
    levels = contraction(layer.contraction, np.concatenate([images, colours], -1), code, embedded)
    kept, loss = alpha_bar(10), 0.0
    if guide is None:
        count = len(images)
        x = sampled_by_hand(lambda x, s: denoise(layer.denoiser, x, [s] * count, levels[-1]), noise, (9, 0), kept)[-1]
    else:
        if latent is None:
            latent = contraction(layer.contraction, np.concatenate([images, guide], -1), code, embedded)[-1]
        share = kept[steps][:, None, None, None]
        x = denoise(layer.denoiser, np.sqrt(share) * latent + np.sqrt(1 - share) * noise, steps, levels[-1])
        loss = np.mean((x - latent) ** 2)
    for each, skip in zip(layer.expansion, levels[-2::-1], strict=True):
        x = enlargement(each, x, skip, code)
    return convolution(layer.head, x), loss, latent


def small(**changes):
    return LabelRectifier(**{"num_classes": 3, "widths": WIDTHS, "denoiser_widths": DEEPER, **changes})


def example(seed=0, side=40, count=2):
    """A side whose latent is odd: 40, 20, 10, 5, 3, then 2 and 1 in the denoiser."""
    random = np.random.default_rng(seed)
    colours, guide = (np.eye(3)[random.integers(0, 3, (count, side, side))] for _ in range(2))
    images = random.uniform(0, 255, (count, side, side, 3))
    latent = -(-side // 16)
    steps, noise = random.integers(0, 10, count), random.normal(size=(count, latent, latent, WIDTHS[-1]))
    return colours, 266.4, images, guide, steps, noise


def tensors(colours, time, images, guide, steps, noise):
    floats = (None if x is None else ops.convert_to_tensor(x, "float32") for x in (colours, time, images, guide, noise))
    colours, time, images, guide, noise = floats
    return colours, time, images, guide, ops.convert_to_tensor(steps, "int32"), noise


@pytest.mark.parametrize("training", [False, True])
def test_block(training):
    layer, random = RectifierBlock(4), np.random.default_rng(0)
    x, code = random.normal(size=(2, 5, 6, 3)), random.normal(size=(2, 7))
    layer(x, code)
    shaken(layer)
    found = numpy(layer(x.astype("float32"), code.astype("float32"), training=training))
    np.testing.assert_allclose(found, block(layer, x, code, training), atol=2e-5)
    one = numpy(layer(x.astype("float32"), code[:1].astype("float32"), training=training))
    np.testing.assert_allclose(one, block(layer, x, code[[0, 0]], training), atol=2e-5)
    assert not [v for v in layer.variables if v.name == "random_state"]
    assert (layer.norm_1.epsilon, layer.norm_2.epsilon) == (1e-5, 1e-5)


def test_dropout_of_a_block_is_a_stored_stream_and_acts_in_training_alone():
    layer = RectifierBlock(30, dropout=0.3, seed=4)
    x, code = np.zeros((3, 8, 8, 2), "float32"), np.zeros((3, 4), "float32")
    layer(x, code)
    layer.norm_1.beta.assign(np.full(30, 2.0))
    kernel = np.zeros((3, 3, 30, 30))
    kernel[1, 1] = np.eye(30)
    layer.convolution_2.kernel.assign(kernel)
    state = layer.get_weights()
    seen, plain = [], type(layer.norm_2).call

    def watch(self, inputs, training=None, mask=None):
        seen.append(numpy(inputs))
        return plain(self, inputs, training=training, mask=mask)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(layer.norm_2), "call", watch)
        layer(x, code, training=True)
        first, between = layer.get_weights(), seen[1]
        np.testing.assert_allclose(np.unique(between), [0, 2 / 0.7], rtol=1e-5)
        assert abs((between == 0).mean() - 0.3) < 0.03
        layer(x, code, training=True)
        assert (seen[3] != between).any()
        copy = RectifierBlock.from_config(layer.get_config())
        copy.build(x.shape, code.shape)
        for start, expected in ((state, between), (first, seen[3])):
            copy.set_weights(start)
            copy(x, code, training=True)
            np.testing.assert_array_equal(seen[-1], expected)
        layer(x, code)
        np.testing.assert_allclose(seen[-1], 2 * np.ones_like(between), rtol=1e-2)


@pytest.mark.parametrize("seed", [0, 1])
def test_training_pass(seed):
    layer, given = shaken(small(), seed), example(seed)
    found = numpy(layer(*tensors(*given)))
    logits, loss, _ = rectified(layer, *given)
    assert np.abs(logits).mean() > 0.1 and loss > 0.1
    np.testing.assert_allclose(found["mask_logits"], logits, atol=5e-4)
    np.testing.assert_allclose(found["latent_loss"], loss, rtol=1e-4)


def test_sampling_pass():
    layer, (colours, time, images, _, steps, noise) = shaken(small(), 2), example(2, 32)
    given = (colours, time, images, None, steps, noise)
    found = numpy(layer(*tensors(*given)))
    logits, loss, _ = rectified(layer, *given)
    np.testing.assert_allclose(found["mask_logits"], logits, atol=2e-3)
    assert loss == found["latent_loss"] == 0


def test_each_input_matters():
    layer, given = shaken(small(), 3), example(3, 16)
    before = numpy(layer(*tensors(*given)))
    others = (given[0][::-1], 500.0, given[2][::-1], 30 * given[3][::-1], given[4][::-1], given[5][::-1])
    for place, other in enumerate(others):
        changed = [*given[:place], other, *given[place + 1 :]]
        after = numpy(layer(*tensors(*changed)))
        assert max(np.abs(after[name] - before[name]).max() for name in before) > 3e-5, place


@pytest.mark.parametrize(
    ("part", "reached"),
    [
        (lambda layer: layer.contraction.blocks[4].time.bias, True),
        (lambda layer: layer.contraction.blocks[1].norm_1.beta, True),
        (lambda layer: layer.embedder.blocks[3].time.bias, True),
        (lambda layer: layer.denoiser.blocks[1].time.bias, True),
        (lambda layer: layer.time_code.layers[1].bias, True),
        (lambda layer: layer.expansion[0].block.time.bias, False),
        (lambda layer: layer.head.bias, False),
    ],
)
def test_the_latent_loss_moves_the_condition_and_not_what_is_to_be_found(part, reached):
    layer, given = shaken(small(), 4), example(4, 32)
    latent, variable = rectified(layer, *given)[2], part(layer)
    values = tensors(*given)
    found = slope(variable, lambda: layer(*values)["latent_loss"])
    start = numpy(variable.value).astype("float64")
    for index in range(min(len(start), 3)):
        losses = []
        for sign in (1, -1):
            moved = start.copy()
            moved[index] += sign * 2e-3
            variable.assign(moved)
            losses.append(rectified(layer, *given, latent=latent)[1])
        variable.assign(start)
        np.testing.assert_allclose(found[index], (losses[0] - losses[1]) / 4e-3, atol=3e-3, rtol=2e-2)
    assert np.any(found) == reached


def test_logits_move_every_part_but_no_input_and_a_sample_only_what_comes_behind_it():
    layer, given = shaken(small(), 5), tensors(*example(5, 16))
    inputs = {name: keras.Variable(given[place]) for name, place in (("colours", 0), ("time", 1), ("images", 2))}

    def total(guide):
        colours, time, images = (each.value for each in inputs.values())
        return ops.sum(layer(colours, time, images, guide, *given[4:])["mask_logits"] ** 2)

    for variable in inputs.values():
        assert not slope(variable, lambda: total(given[3])).any()
    for guide, moved in ((given[3], True), (None, False)):
        for variable in (layer.denoiser.blocks[0].time.bias, layer.denoiser.time_code.layers[0].bias):
            assert slope(variable, lambda guide=guide: total(guide)).any() == moved
        assert slope(layer.embedder.blocks[0].time.bias, lambda guide=guide: total(guide)).any()


@pytest.mark.parametrize("guided", [True, False])
def test_statistics_move_in_training_all_of_them_and_else_none(guided):
    layer, (colours, time, images, guide, *rest) = shaken(small(), 9), tensors(*example(9, 32))
    moving = [v for v in layer.variables if v.name.startswith("moving_")]
    start = [numpy(v.value) for v in moving]
    layer(colours, time, images, guide if guided else None, *rest)
    for variable, before in zip(moving, start, strict=True):
        np.testing.assert_array_equal(numpy(variable.value), before, err_msg=variable.path)
    layer(colours, time, images, guide if guided else None, *rest, training=True)
    still = [v.path for v, before in zip(moving, start, strict=True) if (numpy(v.value) == before).any()]
    assert len(moving) == 4 * 18 and not still


def test_statistics_keep_nine_tenths():
    layer, x = RectifierBlock(4), np.random.default_rng(0).normal(size=(2, 5, 6, 3)).astype("float32")
    code = np.zeros((1, 7), "float32")
    layer(x, code)
    shaken(layer)
    first, means = convolution(layer.convolution_1, x), numpy(layer.norm_1.moving_mean.value)
    layer(x, code, training=True)
    found = numpy(layer.norm_1.moving_mean.value)
    np.testing.assert_allclose(found, 0.9 * means + 0.1 * first.mean((0, 1, 2)), atol=1e-5)


def test_number_of_weights():
    layer = LabelRectifier(2)
    assert sum(int(np.prod(v.shape)) for v in layer.trainable_variables) == 17_468_498
    assert not [v.path for v in layer.variables if "encoder" in v.path or "classification" in v.path]
    assert [each.dropout for each in layer.contraction.blocks] == [0.05, 0.1, 0.2, 0.3, 0.5]
    assert [each.dropout for each in layer.embedder.blocks] == [0.05, 0.1, 0.2, 0.3, 0.5]
    others = [*layer.denoiser.blocks, *(e.block for e in (*layer.denoiser.enlargements, *layer.expansion))]
    assert [each.dropout for each in others] == [0.0] * 8
    assert [each.filters for each in others] == [384, 512, 384, 256, 128, 64, 32, 16]


def test_draws_are_weights_and_no_two_streams_are_alike():
    layer = small(seed=3)
    colours, time, images, guide, *_ = tensors(*example(6, 16))
    streams = [v for v in layer.variables if v.name == "random_state"]
    assert len({tuple(numpy(v.value)) for v in streams}) == len(streams) == 11
    start = layer.get_weights()

    def run(each, given):
        found = numpy(each(colours, time, images, given, training=True))
        return found["mask_logits"], found["latent_loss"]

    first, second = run(layer, guide), run(layer, None)
    copy = LabelRectifier.from_config(json.loads(json.dumps(layer.get_config())))
    copy.set_weights(start)
    for given, expected in ((guide, first), (None, second)):
        for ours, theirs in zip(run(copy, given), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert np.abs(run(layer, guide)[0] - first[0]).max() > 1e-3
    assert [(numpy(v.value)[1]) for v in streams] == [6, *[3] * 5, *[5] * 5]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_is_near_and_gives_float32(policy):
    layer, half = shaken(small(), 7), small(dtype=policy)
    half.set_weights(layer.get_weights())
    given = tensors(*example(7, 32))
    exact, found = layer(*given), half(*given)
    for name in exact:
        assert keras.backend.standardize_dtype(found[name].dtype) == "float32"
        np.testing.assert_allclose(numpy(found[name]), numpy(exact[name]), atol=0.25, rtol=0.1)
    assert half.contraction.blocks[0].compute_dtype == policy.removeprefix("mixed_")
    assert not [v.path for v in half.variables if "float16" in str(v.dtype)]


def test_grey_images_go_in_as_three_channels_or_as_one():
    colours, time, images, guide, steps, noise = tensors(*example(8, 16))
    grey = images[..., :1]
    layer = shaken(small(), 8)
    repeated = ops.concatenate([grey] * 3, axis=-1)
    for each in (None, guide):
        one, three = (numpy(layer(colours, time, x, each, steps, noise)["mask_logits"]) for x in (grey, repeated))
        np.testing.assert_allclose(one, three, atol=1e-4)
    alone = small(image_channels=1)
    assert alone.embedder.blocks[0].convolution_1.kernel.shape[2] == 1
    assert alone.contraction.blocks[0].convolution_1.kernel.shape[2] == 4
    assert np.isfinite(numpy(alone(colours, time, grey, guide, steps, noise)["mask_logits"])).all()


@pytest.mark.parametrize(
    ("place", "shape", "message"),
    [
        (0, (2, 16, 8, 3), r"`colours` must be \(2, 16, 16, 3\), like the images, found \(2, 16, 8, 3\)"),
        (0, (1, 16, 16, 3), r"`colours` must be \(2, 16, 16, 3\), like the images, found \(1, 16, 16, 3\)"),
        (3, (2, 16, 16), r"`guide` must be \(2, 16, 16, 3\), like the images, found \(2, 16, 16\)"),
        (2, (2, 16, 16, 3), "`images` must have 1 channel or `image_channels`, 1, found 3"),
        (2, (2, 16, 16, 2), "`images` must have 1 channel or `image_channels`, 3, found 2"),
    ],
)
def test_inputs_that_do_not_fit_are_named(place, shape, message):
    given = [*tensors(*example(0, 16))]
    given[place] = ops.zeros(shape)
    with pytest.raises(ValueError, match=message):
        small(image_channels=1 if "`, 1, found" in message else 3)(*given)


def test_config_round_trip():
    layer = small(image_channels=1, diffusion=LatentDiffusion(30, 3, "linear", seed=9), seed=2)
    copy = LabelRectifier.from_config(json.loads(json.dumps(layer.get_config())))
    assert json.loads(json.dumps(copy.get_config())) == json.loads(json.dumps(layer.get_config()))
    assert (copy.widths, copy.denoiser_widths, copy.image_channels, copy.seed) == (WIDTHS, DEEPER, 1, 2)
    assert (copy.diffusion.steps, copy.diffusion.schedule, copy.diffusion.seed) == (30, "linear", 9)
    assert_config_round_trip(RectifierBlock(3, 0.2, seed=4))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RectifierBlock(0), "`filters` must be a whole number of at least 1, found 0"),
        (lambda: RectifierBlock(2, dropout=1.0), r"`dropout` must be within \[0, 1\), found 1.0"),
        (lambda: RectifierBlock(2.5), "`filters` must be a whole number of at least 1, found 2.5"),
        (lambda: RectifierBlock(2, seed=-1), "`seed` must be a whole number of at least 0, found -1"),
        (lambda: small(seed=-1, diffusion=LatentDiffusion()), "`seed` must be a whole number of at least 0, found -1"),
        (lambda: small(num_classes=1), "`num_classes` must be a whole number of at least 2, found 1"),
        (lambda: small(widths=(1, 2, 3)), r"`widths` must be 5 positive numbers, found \(1, 2, 3\)"),
        (lambda: small(denoiser_widths=(0, 3)), r"`denoiser_widths` must be 2 positive numbers, found \(0, 3\)"),
        (lambda: small(image_channels=2), "`image_channels` must be 1 or 3, found 2"),
    ],
)
def test_errors_name_argument_and_value(make, message):
    with pytest.raises(ValueError, match=message):
        make()
