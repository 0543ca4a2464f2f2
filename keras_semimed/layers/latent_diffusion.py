"""Diffusion of latents: noise that is added in steps, and taken away again (DiffRect)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_semimed.configuration import check_choice, check_whole
from keras_semimed.layers.random_state import StoredSeedGenerator, add_random_state


@keras.saving.register_keras_serializable(package="keras_semimed")
class LatentDiffusion(keras.Layer):
    """Noises latents, and samples them back with a denoiser that predicts what they were (Song et al., DDIM, 2021).

    A latent of step s is `sqrt(alpha_bar_s) x_0 + sqrt(1 - alpha_bar_s) noise`. All in float32, without gradient. The
    layer has no weight but the state of its random stream.

    Attributes, beside the arguments:
        betas: share of noise that each step adds. Shape: `(steps,)`, NumPy.
        alpha_bar: products of `1 - betas`. Shape: `(steps,)`, NumPy.
        sampled: the steps that sampling goes through, from the last one to 0.

    Args:
        steps: T.
        sampled_steps: how many of them sampling goes through, at equal distances.
        schedule: `"cosine"` (Nichol and Dhariwal, 2021), or `"linear"`, from 0.1 / T to 20 / T.
        clip: whether sampling clips each estimate to [-1, 1].
        seed: non-negative integer.

    Raises:
        ValueError: for an argument out of its range; 20 / T of the linear schedule must be below 1.
    """

    def __init__(
        self,
        steps: int = 10,
        sampled_steps: int = 2,
        schedule: str = "cosine",
        clip: bool = True,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        check_diffusion(steps, sampled_steps, schedule)
        check_whole("seed", seed, 0)
        self.steps = steps
        self.sampled_steps = sampled_steps
        self.schedule = schedule
        self.clip = clip
        self.seed = seed
        betas = _betas(steps, schedule)
        self.betas, self.alpha_bar = betas.astype("float32"), np.cumprod(1.0 - betas).astype("float32")
        self.sampled = tuple(int(step) for step in np.round(np.linspace(steps - 1, 0, sampled_steps)))
        self.random_state = add_random_state(self, seed)
        self.built = True

    def draw(self, latent: Any) -> tuple[Any, Any]:
        """Draws a step and noise for each latent.

        Args:
            latent: what is to be noised. Shape: `(N, h, w, D)`.

        Returns:
            Steps from 0 to T - 1, `(N,)` int32, and standard normal numbers, `(N, h, w, D)` float32.
        """
        generator = StoredSeedGenerator(self.random_state)
        shape = ops.shape(latent)
        steps = keras.random.randint((shape[0],), 0, self.steps, dtype="int32", seed=generator)
        return steps, keras.random.normal(shape, dtype="float32", seed=generator)

    def noised(self, latent: Any, steps: Any, noise: Any) -> Any:
        """Noises latents.

        Args:
            latent: x_0. Shape: `(N, h, w, D)`.
            steps: s of each. Shape: `(N,)`, integers.
            noise: standard normal numbers. Shape: `(N, h, w, D)`.

        Returns:
            Shape: `(N, h, w, D)`, float32, without gradient.
        """
        latent, noise = (ops.cast(values, "float32") for values in (latent, noise))
        kept = ops.take(ops.convert_to_tensor(self.alpha_bar), ops.cast(steps, "int32"))
        kept = ops.reshape(kept, (-1,) + (1,) * (len(latent.shape) - 1))
        return ops.stop_gradient(ops.sqrt(kept) * latent + ops.sqrt(1.0 - kept) * noise)

    def sample(self, denoiser: Callable[[Any, Any], Any], noise: Any) -> list[Any]:
        """Samples latents from noise, without new noise on the way.

        Args:
            denoiser: gives an estimate of x_0 for noised latents and the step of each, `(N,)` int32.
            noise: standard normal numbers. Shape: `(N, h, w, D)`.

        Returns:
            The estimates of the steps in `sampled`, the last of which counts. Each of the shape of `noise`, float32,
            without gradient.
        """
        latent = ops.stop_gradient(ops.cast(noise, "float32"))
        count, found = ops.shape(latent)[0], []
        for step, following in zip(self.sampled, (*self.sampled[1:], None), strict=True):
            estimate = ops.stop_gradient(ops.cast(denoiser(latent, step * ops.ones((count,), "int32")), "float32"))
            found.append(ops.clip(estimate, -1.0, 1.0) if self.clip else estimate)
            if following is not None:
                kept, next_kept = float(self.alpha_bar[step]), float(self.alpha_bar[following])
                noise = (latent - math.sqrt(kept) * found[-1]) / math.sqrt(1.0 - kept)
                latent = math.sqrt(next_kept) * found[-1] + math.sqrt(1.0 - next_kept) * noise
        return found

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build this layer again."""
        return {
            **super().get_config(),
            "steps": self.steps,
            "sampled_steps": self.sampled_steps,
            "schedule": self.schedule,
            "clip": self.clip,
            "seed": self.seed,
        }


def check_diffusion(steps: Any, sampled_steps: Any, schedule: Any, name: str = "steps") -> None:
    """Raises a ValueError for arguments that `LatentDiffusion` cannot take.

    Args:
        steps: as there.
        sampled_steps: as there.
        schedule: as there.
        name: what the first one is called.
    """
    check_whole(name, steps, 1)
    check_whole("sampled_steps", sampled_steps, 1)
    check_choice("schedule", schedule, ("cosine", "linear"))
    if sampled_steps > steps:
        raise ValueError(f"`sampled_steps` must be at most `{name}`, {steps}, found {sampled_steps!r}.")
    if schedule == "linear" and steps <= 20:
        raise ValueError(
            f"`{name}` must be above 20 with the linear schedule, whose last beta is 20 / T, found {steps}."
        )


def _betas(steps: int, schedule: str) -> np.ndarray:
    if schedule == "linear":
        return np.linspace(0.1 / steps, 20 / steps, steps)
    places = np.arange(steps + 1) / steps
    left = np.cos((places + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.minimum(1.0 - left[1:] / left[:-1], 0.999)
