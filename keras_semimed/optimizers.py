"""The optimizers of the papers, with their schedules, each in one object that `compile` takes."""

from __future__ import annotations

import math
from typing import Any, Literal

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_semimed")
class PolynomialDecayToZero(keras.optimizers.schedules.LearningRateSchedule):
    """`learning_rate * (1 - step / total_steps) ** power`, and 0 after `total_steps`.

    Keras' `PolynomialDecay` raises a rounding error below zero to a power there when XLA compiles it: NaN.

    Args:
        learning_rate: value at step 0.
        total_steps: step at which it reaches 0.
        power: exponent.

    Raises:
        ValueError: if the learning rate is negative or not finite.
    """

    def __init__(self, learning_rate: float, total_steps: int, power: float = 0.9) -> None:
        if not 0 <= learning_rate < math.inf:
            raise ValueError(f"`learning_rate` must be a number of at least 0, found {learning_rate!r}.")
        self.learning_rate = learning_rate
        self.total_steps = total_steps
        self.power = power

    def __call__(self, step: Any) -> Any:
        """Learning rate at `step`, a float32 scalar."""
        left = ops.maximum(1.0 - ops.cast(step, "float32") / self.total_steps, 0.0)
        return self.learning_rate * ops.power(left, self.power)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"learning_rate": self.learning_rate, "total_steps": self.total_steps, "power": self.power}


def branch_optimizer(
    total_steps: int,
    learning_rate: float = 1e-4,
    classifier: Literal["sgd", "adam"] = "sgd",
    weight_decay: float = 1e-4,
    power: float = 0.9,
) -> keras.optimizers.MultiOptimizer:
    """Adam for the segmentation branch, SGD (or Adam) for the classification branch.

    Both learning rates fall as `learning_rate * (1 - step / total_steps) ** power`. The paper's weight decay is
    L2 in the gradient, where momentum 0.9 multiplies it by 1 / (1 - 0.9); Keras' is decoupled, so that the same
    effect takes ten times the value, and that is what is set here.

    Args:
        total_steps: steps of the whole run.
        learning_rate: start value, for both branches.
        classifier: `"sgd"` (as printed: momentum 0.9 and weight decay) or `"adam"` (short runs).
        weight_decay: the paper's L2 coefficient, for SGD only.
        power: exponent of the polynomial decay.

    Returns:
        A `keras.optimizers.MultiOptimizer` that tells the branches apart by the path of a variable.

    Raises:
        ValueError: if `classifier` is neither, or the learning rate is negative.
    """
    if classifier not in ("sgd", "adam"):
        raise ValueError(f"`classifier` must be 'sgd' or 'adam', found {classifier!r}.")

    schedule = PolynomialDecayToZero(learning_rate, total_steps, power)
    if classifier == "sgd":
        classification = keras.optimizers.SGD(schedule, momentum=0.9, weight_decay=10 * weight_decay)
    else:
        classification = keras.optimizers.Adam(schedule, name="adam_classification")
    segmentation = keras.optimizers.Adam(schedule, name="adam_segmentation")
    optimizers = keras.optimizers.OptimizerMap(segmentation, {".*classification.*": classification})
    return keras.optimizers.MultiOptimizer(optimizers)


def encoder_optimizer(
    total_steps: int,
    learning_rate: float = 1e-3,
    head_factor: float = 10.0,
    optimizer: Literal["sgd", "adam"] = "sgd",
    weight_decay: float = 1e-4,
    power: float = 0.9,
) -> keras.optimizers.MultiOptimizer:
    """One learning rate for the encoder, a higher one for what is trained from scratch (LoCo, Sec. IV-A).

    Both fall as `learning_rate * (1 - step / total_steps) ** power`. Weight decay as in `branch_optimizer`.

    Args:
        total_steps: steps of the whole run.
        learning_rate: start value for the encoder.
        head_factor: factor of everything outside the encoder.
        optimizer: `"sgd"` (as printed: momentum 0.9 and weight decay) or `"adam"` (short runs).
        weight_decay: the paper's L2 coefficient, for SGD only.
        power: exponent of the polynomial decay.

    Returns:
        A `keras.optimizers.MultiOptimizer` that tells the encoder by the path of a variable.

    Raises:
        ValueError: if `optimizer` is neither, or the learning rate or its factor is negative.
    """
    if optimizer not in ("sgd", "adam"):
        raise ValueError(f"`optimizer` must be 'sgd' or 'adam', found {optimizer!r}.")
    if not 0 <= head_factor < math.inf:
        raise ValueError(f"`head_factor` must be a number of at least 0, found {head_factor!r}.")

    def make(name: str, factor: float) -> keras.optimizers.Optimizer:
        schedule = PolynomialDecayToZero(factor * learning_rate, total_steps, power)
        if optimizer == "sgd":
            return keras.optimizers.SGD(schedule, momentum=0.9, weight_decay=10 * weight_decay, name=f"sgd_{name}")
        return keras.optimizers.Adam(schedule, name=f"adam_{name}")

    optimizers = keras.optimizers.OptimizerMap(make("head", head_factor), {".*encoder.*": make("encoder", 1.0)})
    return keras.optimizers.MultiOptimizer(optimizers)
