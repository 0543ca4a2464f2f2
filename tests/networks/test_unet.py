"""U-Net, its decoder and the normalisation: values, shapes, policies, saving."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.networks import ImageNormalization, UNet, UNetDecoder, encoder, encoder_config, pyramid, stages

FILTERS = (16, 8, 8, 8, 4)


def images(channels=3, size=64, batch=2):
    return np.random.default_rng(0).integers(0, 256, (batch, size, size, channels)).astype("uint8")


def random_features(batch=1):
    generator = np.random.default_rng(1)
    return {
        f"P{level}": generator.normal(size=(batch, 64 >> level, 64 >> level, 2 * level)).astype("float32")
        for level in range(1, 6)
    }


def randomize(layer, seed=0):
    """Weights at which every branch matters: no zero bias, no trivial statistics."""
    generator = np.random.default_rng(seed)
    layer.set_weights(
        [generator.uniform(0.1, 0.6, weight.shape) - 0.1 * (weight.ndim == 4) for weight in layer.weights]
    )


def enlarge(x):
    """Bilinear enlargement by two, half-pixel centres: quarter and three quarters of the neighbours."""
    for axis in (1, 2):
        x = np.moveaxis(x, axis, 0)
        before, after = np.concatenate([x[:1], x[:-1]]), np.concatenate([x[1:], x[-1:]])
        pairs = np.stack([0.25 * before + 0.75 * x, 0.75 * x + 0.25 * after], axis=1)
        x = np.moveaxis(pairs.reshape(-1, *x.shape[1:]), 0, axis)
    return x


def conv_norm_relu(x, kernel, gamma, beta, mean, variance):
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = x.shape[1:3]
    total = sum(
        padded[:, i : i + height, j : j + width] @ kernel[i, j].astype("float64") for i in range(3) for j in range(3)
    )
    return np.maximum((total - mean) / np.sqrt(variance + 1e-5) * gamma + beta, 0)


def oracle(decoder, features, extra):
    x = features["P5"].astype("float64")
    for level, block in zip(("P4", "P3", "P2", "P1", None), decoder.blocks, strict=True):
        x = enlarge(x)
        x = np.concatenate([x] + [maps[level] for maps in (features, extra) if level in maps], axis=-1)
        for convolution, normalization in zip(block.convolutions, block.normalizations, strict=True):
            x = conv_norm_relu(x, *convolution.get_weights(), *normalization.get_weights())
    return x


def test_decoder_is_upsample_concatenate_convolve():
    features = random_features()
    extra = {"P2": np.random.default_rng(2).normal(size=(1, 16, 16, 3)).astype("float32")}
    decoder = UNetDecoder(FILTERS)
    decoder.build({k: v.shape for k, v in features.items()}, {k: v.shape for k, v in extra.items()})
    randomize(decoder)
    found = ops.convert_to_numpy(decoder(features, extra=extra, training=False))
    expected = oracle(decoder, features, extra)
    assert found.shape == (1, 64, 64, 4)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_decoder_batch_statistics_follow_training():
    features = random_features()
    decoder = UNetDecoder(FILTERS)
    decoder(features, training=False)
    before = decoder.blocks[0].normalizations[0].get_weights()[2]
    np.testing.assert_array_equal(before, 0)
    decoder(features, training=True)
    x = np.concatenate([enlarge(features["P5"]), features["P4"]], axis=-1)
    convolution = decoder.blocks[0].convolutions[0]
    mean = ops.convert_to_numpy(convolution(x)).mean((0, 1, 2))
    np.testing.assert_allclose(decoder.blocks[0].normalizations[0].get_weights()[2], 0.1 * mean, atol=1e-5)


def test_decoder_on_a_dilated_encoder_and_without_the_finest_levels():
    decoder = UNetDecoder(FILTERS)
    dilated = encoder("resnet_tiny", output_stride=16)
    x = np.zeros((1, 64, 64, 3), "float32")
    assert tuple(dilated(x)["P5"].shape[1:3]) == (4, 4)
    assert tuple(decoder(dilated(x)).shape) == (1, 64, 64, 4)
    features = random_features()
    coarse = {level: features[level] for level in ("P3", "P4", "P5")}
    assert tuple(UNetDecoder(FILTERS)(coarse).shape) == (1, 64, 64, 4)


def test_decoder_refuses_levels_it_has_not():
    with pytest.raises(ValueError, match=r"`features` must hold P5, found \['P4'\]"):
        UNetDecoder(FILTERS).build({"P4": (None, 4, 4, 8)})
    with pytest.raises(ValueError, match=r"`extra` must name levels among .*, found \['P7'\]"):
        UNetDecoder(FILTERS).build({"P5": (None, 2, 2, 8)}, {"P7": (None, 2, 2, 8)})


def test_normalization_is_imagenets_and_repeats_one_channel():
    x = images()
    found = ops.convert_to_numpy(ImageNormalization()(x))
    expected = (x / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    grey = x[..., :1]
    np.testing.assert_array_equal(
        ops.convert_to_numpy(ImageNormalization()(grey)),
        ops.convert_to_numpy(ImageNormalization()(np.repeat(grey, 3, axis=-1).astype("float32"))),
    )
    with pytest.raises(ValueError, match=r"1 or 3 channels last, found the shape \(2, 64, 64, 2\)"):
        ImageNormalization()(x[..., :2])


def test_normalization_keeps_neighbouring_grey_values_apart_in_half_precision():
    x = np.arange(256, dtype="float32").reshape(1, 16, 16, 1)
    found = ops.convert_to_numpy(ImageNormalization(dtype="mixed_float16")(x))
    assert found.dtype == np.float16
    exact = ops.convert_to_numpy(ImageNormalization()(x))
    np.testing.assert_array_equal(found, exact.astype("float16"))


def test_normalization_config():
    layer = ImageNormalization(mean=(0.1, 0.2, 0.3), deviation=(1.0, 2.0, 3.0))
    again = ImageNormalization.from_config(layer.get_config())
    assert (again.mean, again.deviation) == (layer.mean, layer.deviation)


def test_unet_gives_logits_of_the_image_size_and_refuses_other_sizes():
    model = UNet("resnet_tiny", num_classes=3, decoder_filters=FILTERS)
    assert model.built and len(model.trainable_weights) > 0
    assert tuple(model(images(1)).shape) == (2, 64, 64, 3)
    assert tuple(model(keras.Input((None, None, 1))).shape) == (None, None, None, 3)
    with pytest.raises(ValueError, match=r"`image_size` must be a positive multiple of 32, found \(64, 40\)"):
        model(images()[:, :, :40])


def test_unet_initial_weights_and_config(shared_weights):
    path = shared_weights / "resnet18_imagenet_pqf.npz"
    model = UNet("resnet18", weights=path, decoder_filters=FILTERS)
    stem = model.encoder.get_layer("conv1_conv").get_weights()[0]
    np.testing.assert_array_equal(stem.transpose(3, 2, 0, 1), np.load(path)["conv1.weight"])
    config = model.get_config()
    assert config["encoder"] == "resnet18" and "weights" not in config


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_unet_logits_are_float32_under_mixed_precision(policy):
    model = UNet("resnet_tiny", decoder_filters=FILTERS, dtype=policy)
    model = UNet.from_config(model.get_config())
    logits = model(images())
    features = model.encoder(model.normalization(images()))
    half = policy.removeprefix("mixed_")
    assert {keras.backend.standardize_dtype(x.dtype) for x in [*features.values(), model.decoder(features)]} == {half}
    assert keras.backend.standardize_dtype(logits.dtype) == model(keras.Input((64, 64, 3))).dtype == "float32"
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
    assert np.isfinite(ops.convert_to_numpy(logits)).all()


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="XLA is compiled in on the others")
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_decoder_gradient_compiles_with_xla(policy):
    import tensorflow as tf

    decoder = UNetDecoder((4, 4), dtype=policy)
    features = {"P2": tf.ones((1, 2, 2, 3)), "P1": tf.ones((1, 4, 4, 2))}
    decoder(features)

    @tf.function(jit_compile=True)
    def gradients():
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(tf.cast(decoder(features, training=True), "float32") ** 2)
        return tape.gradient(value, [v.value for v in decoder.trainable_variables])

    assert all(np.isfinite(value).all() for value in gradients())


def test_unet_with_its_encoder_given_as_a_model_loads_where_keras_hub_is_missing(tmp_path):
    model = UNet(encoder("resnet_tiny"), decoder_filters=FILTERS)
    randomize(model.decoder)
    x = images()
    model.save(tmp_path / "unet.keras")
    np.save(tmp_path / "images.npy", x)
    script = (
        "import sys; sys.modules['keras_hub'] = None\n"
        "import keras, numpy, keras_semimed.networks\n"
        f"folder = {str(tmp_path)!r}\n"
        "model = keras.saving.load_model(folder + '/unet.keras')\n"
        "logits = model(numpy.load(folder + '/images.npy'))\n"
        "numpy.save(folder + '/logits.npy', keras.ops.convert_to_numpy(logits))\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), ops.convert_to_numpy(model(x)), rtol=1e-5, atol=1e-5)


@keras.saving.register_keras_serializable(package="tests")
class TwoEncoders(keras.Model):
    """The shape of a joint model: two encoders of one kind, the stages of both, a decoder that needs the second."""

    def __init__(self, encoder="resnet_tiny", **kwargs):
        super().__init__(**kwargs)
        self.normalization = ImageNormalization()
        self.segmentation_encoder = pyramid(encoder)
        self.classification_encoder = pyramid(encoder)
        self.classification_stages = stages(self.classification_encoder)
        self.decoder = UNetDecoder(FILTERS)
        self.score = keras.layers.Dense(1)
        shapes = {level: tensor.shape for level, tensor in self.segmentation_encoder.output.items()}
        self.decoder.build(shapes, {"P2": (None, None, None, 1)})
        self.score.build((None, shapes["P5"][-1]))
        self.built = True
        self.encoder = encoder

    def call(self, inputs, training=None):
        x = self.normalization(inputs)
        features = self.segmentation_encoder(x, training=training)
        for level, stage in enumerate(self.classification_stages, start=1):
            x = stage(x, training=training)
            x = x + features[f"P{level}"]
        score = self.score(ops.mean(x, axis=(1, 2)))
        extra = ops.ones_like(features["P2"][..., :1]) * score[:, None, None]
        return self.decoder(features, extra={"P2": extra}, training=training)

    def get_config(self):
        return {**super().get_config(), "encoder": encoder_config(self.encoder)}


def test_two_encoders_in_a_subclassed_model_train_save_and_load(tmp_path):
    model = TwoEncoders()
    parts = (model.segmentation_encoder, model.classification_encoder, model.decoder, model.score)
    assert len(model.weights) == sum(len(part.weights) for part in parts)
    before = [part.get_weights() for part in parts]
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.fit(images(), np.ones((2, 64, 64, 4)), verbose=0)
    for part, old in zip(parts, before, strict=True):
        changed = [np.any(a != b) for a, b in zip(old, part.get_weights(), strict=True)]
        assert np.mean(changed) > 0.9
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for old, new in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    found, expected = (ops.convert_to_numpy(which(images(), training=False)) for which in (again, model))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    again.set_weights([np.zeros_like(weight) for weight in again.get_weights()])
    model.save_weights(tmp_path / "model.weights.h5")
    again.load_weights(tmp_path / "model.weights.h5")
    for old, new in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
