"""What stands before the networks: the normalisation that lets a saved model take images as they are."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


@keras.saving.register_keras_serializable(package="keras_semimed")
class ImageNormalization(keras.layers.Layer):
    """Turns images in 0..255 into what the encoders take: RGB, scaled to 0..1, minus a mean, divided by a deviation.

    Input: `(N, H, W, 1)` or `(N, H, W, 3)`, any dtype; one channel is repeated to three. Output: `(N, H, W, 3)` in the
    layer's compute dtype; the arithmetic is float32.

    Args:
        mean: of each channel, on the scale 0..1; default ImageNet's.
        deviation: of each channel, on the scale 0..1; default ImageNet's.

    Raises:
        ValueError: the images have neither one channel nor three.
    """

    def __init__(
        self,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        deviation: tuple[float, float, float] = IMAGENET_DEVIATION,
        **kwargs: Any,
    ) -> None:
        # float16 cannot tell neighbouring grey values apart after scaling, so nothing is cast before the arithmetic.
        super().__init__(autocast=False, **kwargs)
        self.mean = tuple(mean)
        self.deviation = tuple(deviation)
        self.built = True  # it has no weights; on JAX Keras calls what is not built, operation by operation

    def call(self, images: Any) -> Any:
        """Normalises images `(N, H, W, 1 or 3)` to `(N, H, W, 3)`."""
        self.compute_output_shape(images.shape)  # refuses other channels
        images = ops.cast(images, "float32") / 255.0
        images = (images - ops.convert_to_tensor(self.mean, "float32")) / ops.convert_to_tensor(
            self.deviation, "float32"
        )  # one channel becomes three by broadcasting
        return ops.cast(images, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns `(N, H, W, 3)`."""
        if input_shape[-1] not in (1, 3, None):  # None: TensorFlow has seen both
            raise ValueError(f"`images` must have 1 or 3 channels last, found the shape {tuple(input_shape)}.")
        return (*input_shape[:-1], 3)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "mean": self.mean, "deviation": self.deviation}
