"""Smoothness of a prediction in the direction that changes it most (SS-Net)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_semimed.backend import input_gradient
from keras_semimed.configuration import check_whole, is_number
from keras_semimed.losses.dice import DiceLoss

EPSILON, XI = 6 / 256 * 255, 10 / 256 * 255
"""Root mean squares of the perturbation and of the step that its direction is looked for with, in grey levels."""
# So that the gradient of a mean over all pixels does not vanish in float16; a power of 2 changes no digit.
_SCALE = 4096.0


def unit_per_image(values: Any) -> Any:
    """Scales each image to length 1 over all of its values: `v / (|v| + 1e-8)`.

    Args:
        values: any float dtype. Shape: `(N, ...)`.

    Returns:
        Shape: `(N, ...)`, float32, without gradient; an image of zeros stays zero.
    """
    values = ops.stop_gradient(ops.cast(values, "float32"))
    axes = tuple(range(1, len(values.shape)))
    return values / (ops.sqrt(ops.sum(ops.square(values), axis=axes, keepdims=True)) + 1e-8)


@keras.saving.register_keras_serializable(package="keras_semimed")
class AdversarialSmoothness(keras.losses.Loss):
    """Distance of the prediction for a perturbed image to that for the clean one (SS-Net, L_lds).

    Wu et al., "Exploring Smoothness and Class-Separation for Semi-supervised Medical Image Segmentation", MICCAI 2022.
    `D(a, b) = mean over all classes of 1 - (2 sum(a b) + smooth) / (sum(a^2) + sum(b^2) + smooth)`, where the sums run
    over the pixels of the batch. The perturbation has the length epsilon in each image and the direction in which D
    rises most, which one step of the power method finds at the distance xi (Miyato et al., 2018).

    Args:
        epsilon: length of the perturbation of an image, in the images' units; None: a root mean square of 6/256 of the
            range 0..255.
        xi: length of the step that the direction is looked for with; None: a root mean square of 10/256.
        iterations: how often the direction is improved.
        smooth: positive constant in numerator and denominator.
        name: name of the loss.

    Raises:
        ValueError: for an argument out of its range; the message names it.
    """

    def __init__(
        self,
        epsilon: float | None = None,
        xi: float | None = None,
        iterations: int = 1,
        smooth: float = 1e-10,
        name: str = "adversarial_smoothness",
    ) -> None:
        super().__init__(name=name)
        for argument, value in (("epsilon", epsilon), ("xi", xi)):
            if value is not None and not (is_number(value) and 0 < value < float("inf")):
                raise ValueError(f"`{argument}` must be a positive number or None, found {value!r}.")
        check_whole("iterations", iterations, 1)
        self.epsilon = epsilon
        self.xi = xi
        self.iterations = iterations
        self.smooth = smooth
        self.dice = DiceLoss(smooth, include_background=True)

    def __call__(self, probabilities: Any, clean: Any, inside: Any = None) -> Any:
        """D; gradient flows into `probabilities` alone.

        Args:
            probabilities: for the perturbed images, any float dtype. Shape: `(N, H, W, K)`.
            clean: for the images as they are. Shape: `(N, H, W, K)`.
            inside: 1 where a pixel lies inside its image, else 0; 1 by default. Shape: `(N, H, W)`.

        Returns:
            Scalar float32; 0 where nothing is inside.
        """
        return self.dice(clean, probabilities, inside)

    def perturbation(
        self, predict: Callable[[Any], Any], images: Any, clean: Any, noise: Any, inside: Any = None
    ) -> Any:
        """What to add to the images.

        Args:
            predict: maps images to probabilities `(N, H, W, K)`; it must not update state.
            images: Shape: `(N, H, W, C)`.
            clean: their probabilities. Shape: `(N, H, W, K)`.
            noise: where the direction starts, of any length. Shape: `(N, H, W, C)`.
            inside: as in `__call__`.

        Returns:
            Shape: `(N, H, W, C)`, float32, without gradient; 0 for an image whose prediction does not move.
        """
        images = ops.stop_gradient(ops.cast(images, "float32"))
        height, width, channels = ops.shape(images)[1:]
        size = ops.sqrt(ops.cast(height * width * channels, "float32"))
        xi, epsilon = (
            default * size if given is None else given for given, default in ((self.xi, XI), (self.epsilon, EPSILON))
        )
        direction = ops.stop_gradient(unit_per_image(noise))
        for _ in range(self.iterations):
            slope = input_gradient(lambda d: _SCALE * self(predict(images + xi * d), clean, inside), direction) / _SCALE
            # Half precision may overflow.
            direction = unit_per_image(ops.where(ops.isfinite(slope), slope, 0.0))
        return epsilon * direction

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "epsilon": self.epsilon,
            "xi": self.xi,
            "iterations": self.iterations,
            "smooth": self.smooth,
            "name": self.name,
        }
