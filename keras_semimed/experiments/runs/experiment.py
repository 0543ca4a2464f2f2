"""One run from data to result: load, train, score, write."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras

from keras_semimed import backend
from keras_semimed.data import EvaluationBatches, SemiSupervisedBatches
from keras_semimed.data.splits.parts import PARTS
from keras_semimed.evaluation import report
from keras_semimed.evaluation.images import Row
from keras_semimed.evaluation.report import NAME
from keras_semimed.experiments.command_line import config_file
from keras_semimed.experiments.command_line.settings import Settings, configuration, with_epochs
from keras_semimed.experiments.console import NOTICE, RecipeError, input_errors, print_section
from keras_semimed.experiments.inputs.data_sets import Data, check_data, count_leaks, groups_of, read, tasks_of
from keras_semimed.experiments.runs.building import build, start_from
from keras_semimed.experiments.runs.checkpoints import Checkpoint
from keras_semimed.experiments.runs.commits import source_commit
from keras_semimed.experiments.runs.keeping import Cost, keep, sets_of
from keras_semimed.experiments.runs.observers import observers
from keras_semimed.experiments.runs.plan import ExpectedTime, plan
from keras_semimed.experiments.runs.run_folder import RunFolder, RunRecord, open_run
from keras_semimed.experiments.runs.scores import Scored, print_results
from keras_semimed.experiments.runs.training import begin, fit
from keras_semimed.experiments.termination import Termination
from keras_semimed.files import whole_file
from keras_semimed.models import METHODS, SemiSupervisedModel, recompute_statistics


def run(settings: Settings) -> None:
    """Trains and scores one model.

    Args:
        settings: Checked ones, see `settings.check`.

    Raises:
        RecipeError: For input that the user can mend.
    """
    check_data(settings)
    check_batches(settings)
    settings = with_tasks(settings)
    if settings.deterministic:
        backend.enable_determinism()
    keras.config.set_dtype_policy(settings.mixed_precision)
    runtime = backend.describe_runtime()
    print_section("runtime", runtime)
    with input_errors():
        data = read(settings)
    settings = with_epochs(settings, len(data.unlabeled))
    description = describe(settings, data, runtime)
    termination = Termination()
    with termination.watched(), open_run(settings.output, description, settings.resume) as folder:
        say_split(description)
        if folder.result is None:
            model, seconds = train_stages(settings, data, folder, termination)
            score(model, settings, data, folder, seconds)
        conclude(folder)
    say_result(folder, data.scored, settings.image_size)


def say_split(description: Mapping[str, Any]) -> None:
    """Prints how many images each part has, which split it is, and how files were read."""
    split = description["split"]
    print_section("split", {**split["sizes"], **{name: split[name] for name in ("hash", "scored", "leaks")}})
    if description["reading"] is not None:
        print(f"files: {description['reading']['in_words']}")


def conclude(folder: RunFolder) -> None:
    """What is left to do when a run is scored."""
    folder.checkpoints.clear()  # not needed any more; here, so that a run killed meanwhile leaves none either
    if not (folder.path / NAME).exists():
        report(folder.path)


def say_result(folder: RunFolder, scored: str, image_size: int) -> None:
    """Prints the scores of a finished run, what it cost and where its files are."""
    print_results(folder.content, scored, image_size)
    cost = folder.content["cost"]
    memory = "unknown" if cost["peak_memory_mib"] is None else f"{cost['peak_memory_mib']} MiB"
    print(f"\ntraining {cost['training_seconds']:.0f} s, peak memory of the process {memory}")
    print(f"files in {folder.path}, to begin with {NAME}\n{NOTICE}")


def write_flags(settings: Settings, folder: RunFolder) -> None:
    """Writes config.yaml, which `--config` reads."""
    folder.path.mkdir(parents=True, exist_ok=True)
    with whole_file(folder.path / config_file.NAME) as temporary:
        temporary.write_text(config_file.as_yaml(settings), encoding="utf-8")
    print(f"every flag of the run: {folder.path / config_file.NAME}", flush=True)


def check_batches(settings: Settings) -> None:
    """Refuses numbers of images in a batch that a method of the run cannot learn from, in every stage.

    Raises:
        RecipeError: Which names the flags.
    """
    for stage in (*settings.earlier, settings):
        labeled, unlabeled = stage.labeled_batch_size or stage.batch_size, stage.batch_size
        try:
            METHODS[stage.method].check_batch(labeled, unlabeled)
        except ValueError as error:
            raise RecipeError(f"--labeled-batch-size {labeled} with --batch-size {unlabeled}: {error}") from error


def with_tasks(settings: Settings) -> Settings:
    """Fills in what is learnt: all that was asked for, that the method can do, and that the data have targets for.

    Raises:
        RecipeError: If that is nothing, or not what was asked for.
    """
    method, asked = METHODS[settings.method], settings.arguments["tasks"]
    has = tasks_of(settings)
    possible = [task for task in method.supports if task in has]
    able = (
        f"{settings.method} can do {' and '.join(method.supports)}, {settings.data} has targets for {' and '.join(has)}"
    )
    if not possible:
        raise RecipeError(f"--method {settings.method} with --data {settings.data}: {able}; take another of the two")
    wanted = {None: possible, "both": ["segmentation", "classification"]}.get(asked, [asked])
    if not set(wanted) <= set(possible):
        raise RecipeError(f"--tasks {asked}: {able}; leave --tasks out, or take another method or data set")
    if settings.panels is not None and "segmentation" not in wanted:
        raise RecipeError("--panels draws masks, which are not learnt here; leave it out")
    tasks = "both" if len(wanted) == 2 else wanted[0]
    return dataclasses.replace(settings, arguments={**settings.arguments, "tasks": tasks})


def describe(settings: Settings, data: Data, runtime: dict) -> dict:
    """Content of config.json that is known before training."""
    return describe_run(settings.recipe, configuration(settings), data, runtime)


def describe_run(recipe: str, what: Mapping[str, Any], data: Data, runtime: Mapping[str, Any]) -> dict:
    """Content of config.json that is known before training.

    Args:
        recipe: What made the run.
        what: Tells it from others.
        data: Its images.
        runtime: What it is computed with.
    """
    sizes = {part: len(getattr(data.split, part)) for part in PARTS}
    rules = data.labeled.rules
    return {
        "recipe": recipe,
        "commit": source_commit(),
        # What was computed with is as much a part of the experiment as the flags.
        "configuration": {**what, "backend": runtime["backend"], "split_hash": data.split.hash},
        "runtime": dict(runtime),
        "split": {"hash": data.split.hash, "sizes": sizes, "scored": data.scored, "leaks": count_leaks(data)},
        "reading": None if rules is None else {**rules.get_config(), "in_words": str(rules)},
    }


def train_stages(
    settings: Settings, data: Data, folder: RunFolder, termination: Termination
) -> tuple[SemiSupervisedModel, float]:
    """Trains what is not done yet, one stage after the other.

    Returns:
        The last model, and the seconds that all stages took, over all sittings.
    """
    stages = [with_tasks(stage) for stage in settings.earlier]
    stages = [*(with_epochs(stage, len(data.unlabeled)) for stage in stages), settings]
    start = folder.newest()
    record = RunRecord(folder, start, termination)
    model: SemiSupervisedModel | None = None
    for number, stage in enumerate(stages[record.stage :], start=record.stage):
        # Behind the reading: preparing data draws random numbers, and is done only once.
        keras.utils.set_random_seed(stage.seed)
        made = build(stage, data.labeled)
        if len(stages) > 1:
            print(f"\nstage {number + 1} of {len(stages)}: {stage.method}, {stage.steps} steps", flush=True)
        with input_errors():
            if model is not None:
                made.start_from(model)
            elif stage.start_from is not None and (start is None or number > start.stage):
                start_from(stage.start_from, made, data.split)
        if number == record.first_stage:  # not before the model is made: a refused run leaves nothing
            write_flags(settings, folder)
        record.begin(number, stages)
        train(made, stage, data, folder, termination, record, start if number == record.first_stage else None)
        model = made
    assert model is not None
    return model, record.seconds


def train(
    model: SemiSupervisedModel,
    settings: Settings,
    data: Data,
    folder: RunFolder,
    termination: Termination,
    record: RunRecord,
    start: Checkpoint | None,
) -> None:
    """Trains to the end, from a state where there is one; the last weights count.

    Raises:
        RecipeError: If the training diverged.
        Terminated: If the run was asked to end; its state is saved.
    """
    assert settings.epoch_steps is not None and settings.labeled_batch_size is not None  # resolved
    dataset = SemiSupervisedBatches(
        data.labeled,
        data.unlabeled,
        batch_size=settings.labeled_batch_size,
        # Where they are left alone, one fills their place in the batch.
        unlabeled_batch_size=1 if model.supervised_only else settings.batch_size,
        steps_per_epoch=settings.epoch_steps,
        seed=settings.seed,
        unlabeled_targets=model.pseudo_labels == "truth",
    )
    begin(model, dataset, data.split, folder)
    print_section("plan", plan(model, settings, data))
    watching = observers(settings, data.unlabeled, folder.path, folder.content["configuration"])
    callbacks = [*watching, ExpectedTime(settings.steps, 0 if start is None else start.step)]
    fit(
        model,
        dataset,
        settings.steps // settings.epoch_steps,
        start,
        record,
        termination,
        callbacks=callbacks,
        validation=None if data.watched is None else EvaluationBatches(data.watched),
        # Without a terminal, one line an epoch instead of one a step.
        verbose=1 if sys.stdout.isatty() else 2,
    )


def score(model: SemiSupervisedModel, settings: Settings, data: Data, folder: RunFolder, seconds: float) -> None:
    """Scores the last weights, and the teacher's where there is one, and writes what is left to write."""
    started = time.perf_counter()
    scored = Scored()
    rows: list[Row] = []
    groups = {"set": groups_of(settings, tuple(data.held_out.names))}
    sets = sets_of(model)
    if settings.recompute_statistics:
        # First: the weights that end up in model.keras and in the report are scored last, as they are.
        for weights in sets:
            with new_statistics(model, weights == "teacher", data):
                score_weights(model, f"{weights}, new statistics", data, {}, scored)
    for weights in sets:
        model.use_teacher = weights == "teacher"
        rows = score_weights(model, weights, data, groups, scored)
    noted = {
        "data_set": Path(settings.data).name,
        "split": data.split.hash,
        "scored": scored.described(sets[-1], data.scored),
    }
    keep(model, data.held_out, scored, rows, folder, noted, Cost(seconds, started))


def score_weights(
    model: SemiSupervisedModel, weights: str, data: Data, groups: Mapping[str, Mapping[str, str]], scored: Scored
) -> list[Row]:
    """Scores what the model predicts with now, on the images of another hospital too."""
    if (other := data.external) is not None:
        scored.add(model, other.images, f"{weights} on {other.name}", other.groups)
    return scored.add(model, data.held_out, weights, groups)


@contextlib.contextmanager
def new_statistics(model: SemiSupervisedModel, teacher: bool, data: Data) -> Iterator[None]:
    """While it lasts the network predicts with BatchNorm statistics of the plain training images."""
    model.use_teacher = teacher
    kept = model.predictor.get_weights()
    try:
        recompute_statistics(model, data.plain_images)
        yield
    finally:
        model.predictor.set_weights(kept)
