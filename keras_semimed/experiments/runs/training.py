"""One training of a run, written down epoch by epoch: from its start, or from a state that was saved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_semimed import backend
from keras_semimed.data import EvaluationBatches, SemiSupervisedBatches, Split
from keras_semimed.experiments.console import input_errors
from keras_semimed.experiments.runs.checkpoints import Checkpoint
from keras_semimed.experiments.runs.run_folder import RunFolder, RunRecord
from keras_semimed.experiments.termination import Termination
from keras_semimed.files import whole_file
from keras_semimed.models import SemiSupervisedModel


def begin(model: SemiSupervisedModel, dataset: SemiSupervisedBatches, split: Split, folder: RunFolder) -> None:
    """Writes down what is trained and on what."""
    with input_errors():
        # Every argument of the model, those that a preset fills in too.
        config = keras.saving.serialize_keras_object(model)["config"]
    folder.update(model=config)
    # As `fit` does, which a run that was trained to its end calls no more.
    model.note_data(dataset.labeled, dataset.unlabeled)
    with whole_file(folder.path / "split.txt") as temporary:
        split.save(temporary)


def fit(
    model: SemiSupervisedModel,
    dataset: SemiSupervisedBatches,
    epochs: int,
    start: Checkpoint | None,
    record: RunRecord,
    termination: Termination,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    validation: EvaluationBatches | None = None,
    verbose: Any = "auto",
) -> None:
    """Trains to the end, from a state where there is one; the last weights count.

    Args:
        model: A compiled one.
        dataset: What it learns from.
        epochs: Of the whole training.
        start: The state to go on from.
        record: Writes the epochs down.
        termination: Asks the training to end.
        callbacks: What else looks on.
        validation: Scored after each epoch.
        verbose: As in Keras.

    Raises:
        RecipeError: If the training diverged.
        Terminated: If the run was asked to end; its state is saved.
    """
    if backend.compiles_steps():
        print("compiling the step, this takes a minute or two", flush=True)
    done, within = 0, 0
    if start is not None:
        start.restore(model)
        done, within = divmod(start.step, len(dataset))
        print(f"resuming after epoch {done}" + (f", step {start.step}" if within else ""), flush=True)
    # The record comes last: when it has noted an epoch, the others have done theirs.
    arguments = {"shuffle": False, "callbacks": [*callbacks, record], "verbose": verbose}
    if validation is not None:
        arguments["validation_data"] = validation
    first = record.epochs_before
    with termination.put_off():
        if within:
            dataset.epoch = first + done
            model.fit(Rest(dataset, within), initial_epoch=first + done, epochs=first + done + 1, **arguments)
            done += 1
        if done < epochs:
            dataset.epoch = first + done
            model.fit(dataset, initial_epoch=first + done, epochs=first + epochs, **arguments)


class Rest(keras.utils.PyDataset):
    """The batches of an epoch from a step on.

    Args:
        batches: All of them.
        start: How many are left out.
    """

    def __init__(self, batches: SemiSupervisedBatches, start: int):
        super().__init__()
        self.batches = batches
        self.start = start

    def __len__(self) -> int:
        return len(self.batches) - self.start

    def __getitem__(self, index: int) -> tuple[dict, dict]:
        return self.batches[self.start + index]
