"""A run in a notebook: the same folder, report and comparison as the command `semimed train` leaves."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_semimed import backend
from keras_semimed.data import EvaluationBatches, SemiSupervisedBatches, Split
from keras_semimed.evaluation.images import Row
from keras_semimed.evaluation.sizes import RESULTS
from keras_semimed.evaluation.threshold_figure import epoch_columns
from keras_semimed.experiments.console import print_section
from keras_semimed.experiments.notebook.arguments import naming_arguments
from keras_semimed.experiments.notebook.comparing import compare, groups_of
from keras_semimed.experiments.notebook.given import Given, check_batches, check_model, configuration_of, parted
from keras_semimed.experiments.runs.experiment import conclude, describe_run, say_result, say_split
from keras_semimed.experiments.runs.keeping import Cost, keep, sets_of
from keras_semimed.experiments.runs.observers import monitors
from keras_semimed.experiments.runs.plan import ExpectedTime, amounts, weights_of
from keras_semimed.experiments.runs.run_folder import METRICS, RunFolder, RunRecord, open_run
from keras_semimed.experiments.runs.scores import Scored
from keras_semimed.experiments.runs.training import begin, fit
from keras_semimed.experiments.termination import Termination
from keras_semimed.files import read_table
from keras_semimed.models import SemiSupervisedModel
from keras_semimed.saved import load_model


@dataclasses.dataclass(frozen=True)
class Result(os.PathLike):
    """What a finished run found.

    Attributes:
        path: its folder.
        history: figures of all epochs by name, those of earlier sittings too, as Keras' `History.history`.
        scores: of the test images by the weights that count, masks at the files' own size where that is known; see
            `summarize`.
    """

    path: Path
    history: Mapping[str, list[float]] = dataclasses.field(repr=False)
    scores: Mapping[str, float] = dataclasses.field(repr=False)

    def __fspath__(self) -> str:
        return str(self.path)


class Run(os.PathLike):
    """Trains and scores one model, and leaves a folder with a report that `compare` and the commands read.

    ```python
    train, test = data.from_folder("my_images", test=0.3)
    model = FixMatch(total_steps=20 * len(train), tasks="segmentation", preset="small")
    model.compile()
    result = Run("runs/fixmatch").fit(model, train, test, epochs=20)
    Run("runs/fixmatch").compare("runs/supervised")
    ```

    The folder holds what docs/runs.md says of the commands', but for `config.yaml`, which is a command's flags.

    Args:
        path: The folder; it is made.
        resume: Go on with the run in it that was interrupted, from its last epoch; show the result of a finished one.
    """

    def __init__(self, path: str | os.PathLike[str], resume: bool = False) -> None:
        self.path = Path(path)
        self.resume = resume

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def fit(
        self,
        model: SemiSupervisedModel,
        train: SemiSupervisedBatches,
        test: EvaluationBatches,
        epochs: int,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        validation: EvaluationBatches | None = None,
        seed: int | None = None,
        split: Split | None = None,
        data: str | None = None,
        verbose: Any = "auto",
    ) -> Result:
        """Trains a model to its end, scores the last weights on the test images, and writes all of it down.

        After each epoch a state is saved. When a training was interrupted, make the model again as it was made and call
        `Run(path, resume=True).fit(...)` with the same arguments; the result has the same bits as in one go.

        Args:
            model: A method of this package, compiled, that has not been trained; `start_from` may have been called.
            train: What it learns from.
            test: What it is scored on in the end.
            epochs: Passes of `train`; the model's `total_steps` should be `epochs * len(train)`.
            callbacks: What else looks on; they are not part of what tells two runs apart.
            validation: Images that are scored after each epoch and not trained on.
            seed: Runs of one seed are paired in comparisons; None takes that of `train`. It draws nothing: start
                weights follow `keras.utils.set_random_seed`, called before the model is made.
            split: The split that came with `train` and `test` from `data.load`, to pair the run with those of commands.
                None: they are the split, as those of `from_folder`.
            data: What the images are called in report and comparison; None: by their digest.
            verbose: As in Keras.

        Returns:
            History and scores.

        Raises:
            ValueError: If model and images do not fit together, the folder holds another run, or this one and `resume`
                is not set, or the training diverges; the message says what to do.
        """
        check_model(model)
        check_batches(model, train, test, validation, epochs)
        given = parted(train, test, validation, split)
        what = configuration_of(model, given, epochs, train.seed if seed is None else seed, data)
        described = describe_run("notebook", what, given.data, backend.describe_runtime())
        termination = Termination()
        with naming_arguments(), termination.watched(), open_run(self.path, described, self.resume) as folder:
            say_split(described)
            if folder.result is None:
                looking = (*callbacks, *monitors(given.data.unlabeled, self.path, model.tasks == "both"))
                seconds = _train(model, given, epochs, looking, folder, termination, verbose)
                _score(model, given, folder, seconds, data or "")
            else:
                _take(model, folder)
            conclude(folder)
        say_result(folder, given.data.scored, model.image_size)
        history = epoch_columns(read_table(self.path / METRICS))
        found = folder.content.get(RESULTS["own"], folder.content[RESULTS["network"]])
        return Result(
            self.path,
            {name: values for name, values in history.items() if name not in ("epoch", "step")},
            found[sets_of(model)[-1]],
        )

    def compare(self, others: Any, **arguments: Any) -> list[dict[str, Any]]:
        """Compares other finished runs with this one, paired image by image; see `compare`.

        Args:
            others: A run or its folder, several of them, or such by the name of a group.
            arguments: The others of `compare`.

        Returns:
            The rows of the printed tables.
        """
        return compare({self.path.resolve().name: self, **groups_of(others)}, **arguments)


def _train(
    model: SemiSupervisedModel,
    given: Given,
    epochs: int,
    callbacks: Sequence[keras.callbacks.Callback],
    folder: RunFolder,
    termination: Termination,
    verbose: Any,
) -> float:
    """Trains to the end; returns the seconds of all sittings."""
    data, train = given.data, given.train
    start = folder.newest()
    done = int(keras.ops.convert_to_numpy(model.step))
    if start is None and done:
        raise ValueError(
            f"`model` has been trained for {done} steps, and a run begins with the first; make it again (`start_from` "
            "gives it what another one has learnt)"
        )
    record = RunRecord(folder, start, termination)
    begin(model, train, data.split, folder)
    steps = epochs * len(train)
    sizes = (train.batch_size, train.unlabeled_batch_size)
    print_section("plan", {**amounts(model, data, steps, len(train), sizes), "weights": weights_of(model)})
    timed = [ExpectedTime(steps, 0 if start is None else start.step)] if verbose else []
    try:
        fit(model, train, epochs, start, record, termination, (*callbacks, *timed), given.watched, verbose)
    except KeyboardInterrupt:
        print(f"\ninterrupted; make the model again, and Run({str(folder.path)!r}, resume=True).fit(...) goes on")
        raise
    return record.seconds


def _score(model: SemiSupervisedModel, given: Given, folder: RunFolder, seconds: float, name: str) -> None:
    """Scores the last weights, and the teacher's where there is one, and writes what is left to write."""
    data, started = given.data, time.perf_counter()
    scored = Scored(given.scored_at_once)
    rows: list[Row] = []
    for weights in sets_of(model):
        model.use_teacher = weights == "teacher"
        rows = scored.add(model, data.held_out, weights, {})
    noted = {"data_set": name, "split": data.split.hash, "scored": scored.described(sets_of(model)[-1], data.scored)}
    keep(model, data.held_out, scored, rows, folder, noted, Cost(seconds, started))


def _take(model: SemiSupervisedModel, folder: RunFolder) -> None:
    """Gives a model what a finished run has learnt."""
    saved = load_model(folder.path / "model.keras")
    model.set_weights(saved.get_weights())
    model.reading, model.provenance = saved.reading, saved.provenance
    model.use_teacher = sets_of(model)[-1] == "teacher"
