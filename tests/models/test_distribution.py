"""Several devices: the same loss as on one, or a refusal."""

from __future__ import annotations

import os
import subprocess
import sys

import keras
import pytest

ON_JAX = """
import keras, numpy as np
from keras_semimed.models import FixMatch, Hermes, LoCo
from tests.models.common import batches, made

def losses(method):
    keras.utils.set_random_seed(0)
    model = made(method, total_steps=10)
    model.compile(keras.optimizers.SGD(0.01))
    data = batches(steps=1, batch_size=2, unlabeled=4)
    return [model.fit(data, verbose=0).history["loss"][0] for _ in range(2)]

methods = (Hermes, LoCo, FixMatch)
alone = {method: losses(method) for method in methods}
devices = keras.distribution.list_devices()
assert len(devices) == 2, devices
keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
for method in methods:
    together = losses(method)
    print(method.__name__, alone[method], together)
    np.testing.assert_allclose(together, alone[method], rtol=1e-4)
"""

ON_TENSORFLOW = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from keras_semimed.models import Supervised
from tests.models.common import arguments, batches

with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    model = Supervised(**arguments(tasks="segmentation"))
    model.compile()
for call in (lambda: model.fit(batches(), verbose=0), lambda: model.train_on_batch(*batches()[0])):
    try:
        call()
    except ValueError as error:
        assert "strategy with 2 replicas" in str(error), error
    else:
        raise AssertionError("was not refused")
"""


def run(script: str, **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="data parallelism of Keras is JAX's")
def test_two_devices_give_the_loss_of_one():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    run(ON_JAX, XLA_FLAGS=flags, JAX_PLATFORMS="cpu")


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the strategies are TensorFlow's")
def test_a_strategy_with_replicas_is_refused():
    run(ON_TENSORFLOW, CUDA_VISIBLE_DEVICES="")
