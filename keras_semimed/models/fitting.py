"""What `fit` does beside Keras: the order of the data, and warnings about what would not be learnt."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_semimed.models.progress_line import ProgressLine


class EpochOfData(keras.callbacks.Callback):
    """Tells a data set that has an `epoch` which one begins; Keras itself looks at batches beforehand.

    Data go on where they stand, so that ten times one epoch are one time ten. Where the run begins with another epoch
    than its first, because `initial_epoch` was given or a callback restored a state, theirs is the same.

    Args:
        data: what is trained on.
        initial_epoch: that was given; None for none.
    """

    def __init__(self, data: Any, initial_epoch: int | None = None) -> None:
        super().__init__()
        self.data = data if hasattr(data, "epoch") else None
        self.stands = 0 if self.data is None or initial_epoch is not None else data.epoch
        self.ahead: int | None = None

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Sets the epoch."""
        del logs
        if self.ahead is None:
            self.ahead = self.stands if epoch == 0 else 0
        if self.data is not None:
            self.data.epoch = self.ahead + epoch

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Moves on."""
        del logs
        if self.data is not None and self.ahead is not None:
            self.data.epoch = self.ahead + epoch + 1


class TotalStepsWarning(keras.callbacks.Callback):
    """Warns once about a run that goes on behind the model's `total_steps`, where schedules have come to their end."""

    def __init__(self) -> None:
        super().__init__()
        self.looked = False

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Looks at the first epoch, when a state that a callback restores is there."""
        del logs
        if self.looked:
            return
        self.looked = True
        done, total = int(ops.convert_to_numpy(self.model.step)), self.model.total_steps
        last = done + (self.params.get("epochs", 0) - epoch) * (self.params.get("steps") or 0)
        if done >= total or last > total:
            warnings.warn(
                f"the model was made with total_steps={total}, has done {done} and is to do {max(last, done + 1)}: "
                f"from step {total} on the learning rate of the default optimizers is 0 and the method's schedules "
                "stand still. Make a model with the `total_steps` of the whole run; `start_from` takes over what this "
                "one has learnt.",
                stacklevel=2,
            )


def check_callbacks(callbacks: Sequence[Any], optimizer: keras.optimizers.Optimizer) -> None:
    """Refuses callbacks that set a learning rate which the optimizer does not offer: they would fail in mid-run.

    Raises:
        ValueError: that names the callback and what to compile with.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if isinstance(optimizer.get_config().get("learning_rate"), int | float):
        return
    for callback in callbacks:
        if isinstance(callback, keras.callbacks.ReduceLROnPlateau | keras.callbacks.LearningRateScheduler):
            raise ValueError(
                f"{type(callback).__name__} sets the optimizer's learning rate, but this one has a schedule or is made "
                "of several; the default optimizers have both. Leave the callback out, or compile with an optimizer "
                "that has a number: model.compile(keras.optimizers.Adam(1e-4))."
            )


def joined(given: Any, own: list[keras.callbacks.Callback], optimizer: keras.optimizers.Optimizer, verbose: Any) -> Any:
    """The callbacks of a run, those of the model last; `ProgressLine` where Keras would show a bar of its own.

    Args:
        given: what `fit` was given: callbacks, a `CallbackList`, or None.
        own: the model's.
        optimizer: the model's.
        verbose: of `fit`.

    Raises:
        ValueError: as `check_callbacks`.
    """
    if isinstance(given, keras.callbacks.CallbackList):
        check_callbacks(given.callbacks, optimizer)
        for callback in own:
            given.append(callback)
        return given
    callbacks = keras.tree.flatten(given) if given is not None else []
    check_callbacks(callbacks, optimizer)
    bar = any(isinstance(callback, keras.callbacks.ProgbarLogger) for callback in callbacks)
    return [*callbacks, *([ProgressLine()] if verbose and not bar else []), *own]
