"""The optimizer of the Hermes paper (Sec. 4.1): one for each branch, in one object that `compile` takes."""

from __future__ import annotations

import keras


def branch_optimizer(
    total_steps: int,
    learning_rate: float = 1e-4,
    classifier: str = "sgd",
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
        ValueError: if `classifier` is neither.
    """
    if classifier not in ("sgd", "adam"):
        raise ValueError(f"`classifier` must be 'sgd' or 'adam'. Received: {classifier!r}.")

    def schedule() -> keras.optimizers.schedules.LearningRateSchedule:
        return keras.optimizers.schedules.PolynomialDecay(
            learning_rate, total_steps, end_learning_rate=0.0, power=power
        )

    if classifier == "sgd":
        classification = keras.optimizers.SGD(schedule(), momentum=0.9, weight_decay=10 * weight_decay)
    else:
        classification = keras.optimizers.Adam(schedule(), name="adam_classification")
    segmentation = keras.optimizers.Adam(schedule(), name="adam_segmentation")
    optimizers = keras.optimizers.OptimizerMap(segmentation, {".*classification.*": classification})
    return keras.optimizers.MultiOptimizer(optimizers)
