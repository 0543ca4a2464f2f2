"""Inter-task attention: segmentation features steer the classifier (Hermes, Eq. 3-5)."""

from __future__ import annotations

import math
from typing import Any, Literal

import keras
from keras import ops

from keras_semimed.configuration import check_choice


def _window_sums(features: Any) -> Any:
    """Sums what each tap of a zero-padded 3x3 window sees as it moves over a map.

    Args:
        features: `(N, H, W, C)`.

    Returns:
        `(N, 3, 3, C)` float32: entry (a, b) is the sum over the map shifted by (a - 1, b - 1). The tap that looks
        back misses the last line, the one that looks ahead misses the first.
    """
    features = ops.cast(features, "float32")
    total = ops.sum(features, axis=1)  # (N, W, C)
    rows = ops.stack([total - features[:, -1], total, total - features[:, 0]], axis=1)  # (N, 3, W, C)
    total = ops.sum(rows, axis=2)  # (N, 3, C)
    return ops.stack([total - rows[:, :, -1], total, total - rows[:, :, 0]], axis=2)


@keras.saving.register_keras_serializable(package="keras_semimed")
class InterTaskAttention(keras.Layer):
    """Gates classifier features by channel and by place, led by segmentation features (Hermes, Eq. 3-5).

    Eq. 3: `M_c = sigmoid(W_1 relu(W_0 AvgPool(conv3x3([x_cls; x_seg]))))`.
    Eq. 4: `M_s = sigmoid(conv3x3([mean; max]))`, over the channels of `x_m = M_c x_cls`.
    Eq. 5: `x_out = M_s x_m`.
    Segmentation features of another width than the classifier's are first projected to it by a 1x1 convolution
    without bias.

    The convolution of Eq. 3 is averaged over the whole map with nothing between, and convolution, projection
    and mean are linear. So the mean is taken first, over the nine shifted windows, and the kernel applied to
    nine vectors per image: the same numbers up to rounding, at the cost of a pooling.

    Before training both gates are constant and nearly open, for which W_1 has a bias. The paper says nothing about
    the start. Random gates, together 0.25 on the average, would shrink what a pre-trained residual network carries
    along its shortcuts.

    Args:
        ratio: width of the features divided by the width of the hidden layer of Eq. 3.
        initial_gate: value of both gates before training where their kernels are zero, between 0 and 1.
        gate_kernel: start of the kernels of W_1 and of Eq. 4's convolution: `"zeros"`, for constant gates, or
            `"glorot_uniform"`, for gates that differ from the first step on.
        slope: factor of what both sigmoids are taken of; with a larger one, the same step of the weights moves a gate
            further. The bias makes up for it at the start.

    Raises:
        ValueError: where an argument is out of range, or the two maps differ in height or width.
    """

    def __init__(
        self,
        ratio: int = 4,
        initial_gate: float = 0.95,
        gate_kernel: Literal["zeros", "glorot_uniform"] = "zeros",
        slope: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if ratio < 1:
            raise ValueError(f"`ratio` must be at least 1, found {ratio!r}.")
        if not 0 < initial_gate < 1:
            raise ValueError(f"`initial_gate` must lie between 0 and 1, found {initial_gate!r}.")
        check_choice("gate_kernel", gate_kernel, ("zeros", "glorot_uniform"))
        if not slope > 0:
            raise ValueError(f"`slope` must be positive, found {slope!r}.")
        self.ratio = ratio
        self.initial_gate = initial_gate
        self.gate_kernel = gate_kernel
        self.slope = slope

    def build(self, x_cls_shape: tuple, x_seg_shape: tuple) -> None:
        """Makes the weights for features of the given shapes `(N, H, W, C)`."""
        for axis, name in ((1, "height"), (2, "width")):
            ours, theirs = x_cls_shape[axis], x_seg_shape[axis]
            if ours is not None and theirs is not None and ours != theirs:
                raise ValueError(
                    f"x_cls and x_seg must be maps of one size, but their {name} is {ours} and {theirs}: "
                    "take segmentation features of the same stride or resize them."
                )
        width, policy = x_cls_shape[-1], self.dtype_policy
        self.projection = None
        if x_seg_shape[-1] != width:
            self.projection = keras.layers.Dense(width, use_bias=False, dtype=policy, name="projection")
            self.projection.build((None, 3, 3, x_seg_shape[-1]))
        self.kernel = self.add_weight(name="kernel", shape=(3, 3, 2 * width, width), initializer="glorot_uniform")
        self.bias = self.add_weight(name="bias", shape=(width,), initializer="zeros")
        hidden = max(width // self.ratio, 1)
        self.squeeze = keras.layers.Dense(hidden, activation="relu", use_bias=False, dtype=policy, name="squeeze")
        self.squeeze.build((None, width))
        start = math.log(self.initial_gate / (1 - self.initial_gate)) / self.slope
        gate = {
            "activation": self._sigmoid,
            "kernel_initializer": self.gate_kernel,
            "bias_initializer": keras.initializers.Constant(start),
        }
        self.excite = keras.layers.Dense(width, name="excite", dtype=policy, **gate)
        self.excite.build((None, hidden))
        # In half precision PyTorch cannot differentiate a convolution with one filter on every processor.
        self.place = keras.layers.Conv2D(1, 3, padding="same", name="place", dtype="float32", **gate)
        self.place.build((None, x_cls_shape[1], x_cls_shape[2], 2))
        self.built = True

    def _sigmoid(self, x: Any) -> Any:
        return ops.sigmoid(x if self.slope == 1 else self.slope * x)

    def _pooled_convolution(self, x_cls: Any, x_seg: Any) -> Any:
        """Returns `AvgPool(conv3x3([x_cls; x_seg]))` of Eq. 3, `(N, C)`."""
        _, height, width, _ = ops.shape(x_cls)
        area = ops.cast(height * width, "float32")
        windows = [ops.cast(_window_sums(x) / area, self.compute_dtype) for x in (x_cls, x_seg)]  # (N, 3, 3, C)
        if self.projection is not None:
            windows[1] = self.projection(windows[1])
        pooled = ops.einsum("nabc,abcd->nd", ops.concatenate(windows, axis=-1), ops.convert_to_tensor(self.kernel))
        return pooled + self.bias

    def call(self, x_cls: Any, x_seg: Any, return_maps: bool = False) -> Any:
        """Applies the attention.

        Args:
            x_cls: `(N, H, W, C)` classifier features.
            x_seg: `(N, H, W, D)` segmentation features.
            return_maps: whether to return the two gates as well.

        Returns:
            `(N, H, W, C)`, or this, the channel gate `(N, C)` and the spatial gate `(N, H, W, 1)`.
        """
        channel = self.excite(self.squeeze(self._pooled_convolution(x_cls, x_seg)))  # (N, C)
        gated = x_cls * channel[:, None, None, :]
        summary = [ops.mean(gated, axis=-1, keepdims=True), ops.max(gated, axis=-1, keepdims=True)]
        spatial = ops.cast(self.place(ops.concatenate(summary, axis=-1)), self.compute_dtype)  # (N, H, W, 1)
        gated = gated * spatial
        return (gated, channel, spatial) if return_maps else gated

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build this layer again."""
        names = ("ratio", "initial_gate", "gate_kernel", "slope")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
