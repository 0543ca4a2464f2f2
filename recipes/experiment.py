"""One run from data to result: load, train, score, write."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import keras
import numpy as np

from keras_semimed import backend
from keras_semimed.data import EvaluationBatches, ImageSet, SemiSupervisedBatches, Split, load
from keras_semimed.data.leaks import leak_report
from keras_semimed.data.splits import PARTS
from keras_semimed.evaluation import evaluate_images, report, save_overlays, summarize
from keras_semimed.evaluation.cases import Cases, collect_cases
from keras_semimed.evaluation.embeddings import collect_embeddings
from keras_semimed.evaluation.files import whole_file, write_table
from keras_semimed.evaluation.images import Row
from keras_semimed.evaluation.report import CASES, EMBEDDINGS, NAME
from keras_semimed.models import SemiSupervisedModel
from recipes.arguments import Settings
from recipes.console import NOTICE, RecipeError, input_errors, print_result, print_section
from recipes.observers import observers
from recipes.resolve import check, configuration
from recipes.run_folder import RunFolder, RunRecord

SURFACE_TOLERANCE = 2.0  # pixels at --image-size
AnySettings = TypeVar("AnySettings", bound=Settings)


class Data(NamedTuple):
    """The images by what a run does with them."""

    labeled: ImageSet
    unlabeled: ImageSet
    held_out: ImageSet
    split: Split
    scored: str
    """Name of the part that is held out and scored."""


class Experiment(Generic[AnySettings]):
    """What a recipe decides: which data, which model. `run` does the rest.

    Args:
        settings: The flags.
    """

    name: str

    def __init__(self, settings: AnySettings):
        self.settings = settings

    def check(self) -> None:
        """Raises a RecipeError for flags that cannot work, before anything is read."""

    def load(self) -> Data:
        """Reads and splits the images."""
        raise NotImplementedError

    def resolve(self, unlabeled_images: int) -> AnySettings:
        """The settings with everything filled in that presets and data decide."""
        raise NotImplementedError

    def build(self, images: ImageSet) -> SemiSupervisedModel:
        """Makes and compiles the model of the resolved settings for the classes of `images`."""
        raise NotImplementedError

    def unlabeled_batch_size(self) -> int:
        """Unlabelled images a step."""
        return self.settings.batch_size

    def groups(self, names: tuple[str, ...]) -> Mapping[str, str]:
        """Which data set each held-out image belongs to, where several are scored apart; empty for one."""
        del names
        return {}


def load_one(settings: Settings, name: str, **options: object) -> Data:
    """Reads and splits one data set; further options as `keras_semimed.data.load` takes them."""
    train, evaluation, split = load(
        name,
        settings.labeled,
        settings.split,
        settings.seed,
        settings.image_size,
        validate=settings.validate,
        manual_dir=settings.manual_dir,
        data_dir=settings.data_dir,
        **options,  # type: ignore[arg-type]
    )
    return Data(train.labeled, train.unlabeled, evaluation.image_set, split, scored_part(settings))


def scored_part(settings: Settings) -> str:
    """Name of the part that is scored."""
    return "validation" if settings.validate else "test"


def run(experiment: Experiment) -> None:
    """Trains and scores one model.

    Raises:
        RecipeError: For input that the user can mend.
    """
    settings = experiment.settings
    check(settings)
    experiment.check()
    if settings.deterministic:
        backend.enable_determinism()
    keras.utils.set_random_seed(settings.seed)
    keras.config.set_dtype_policy(settings.mixed_precision)
    runtime = backend.describe_runtime()
    print_section("runtime", runtime)
    with input_errors():
        data = experiment.load()
    experiment.settings = settings = experiment.resolve(len(data.unlabeled))
    description = describe(experiment, data, runtime)
    folder = RunFolder(settings.output, description, settings.resume)
    print_section("configuration", description["configuration"])
    split = description["split"]
    print_section("split", {**split["sizes"], **{name: split[name] for name in ("hash", "scored", "leaks")}})
    if folder.result is None:
        with input_errors():
            model = experiment.build(data.labeled)
            if settings.start_from is not None:
                start_from(settings.start_from, model, data.split)
        train(model, experiment, data, folder)
        score(model, experiment, data, folder)
    if not (folder.path / NAME).exists():
        report(folder.path)
    print_result(folder.content["result"], data.scored)
    cost = folder.content["cost"]
    memory = "unknown" if cost["peak_memory_mib"] is None else f"{cost['peak_memory_mib']} MiB"
    print(f"\ntraining {cost['training_seconds']:.0f} s, peak memory of the process {memory}")
    print(f"files in {settings.output}, to begin with {NAME}\n{NOTICE}")


def describe(experiment: Experiment, data: Data, runtime: dict) -> dict:
    """Content of config.json that is known before training."""
    sizes = {part: len(getattr(data.split, part)) for part in PARTS}
    return {
        "recipe": experiment.name,
        # What was computed with is as much a part of the experiment as the flags.
        "configuration": {
            **configuration(experiment.settings),
            "backend": runtime["backend"],
            "split_hash": data.split.hash,
        },
        "runtime": runtime,
        "split": {"hash": data.split.hash, "sizes": sizes, "scored": data.scored, "leaks": count_leaks(data)},
    }


def count_leaks(data: Data) -> str:
    """How many pairs of one group (patient, sequence or near-duplicates) lie in training and in the scored part."""
    parts = (data.labeled, data.unlabeled, data.held_out)
    if any(part.groups is None for part in parts):
        return "unknown, the images have no groups"
    trained_and_scored = Split(tuple(data.labeled.names), tuple(data.unlabeled.names), (), tuple(data.held_out.names))
    groups = {name: group for part in parts for name, group in zip(part.names, part.groups or (), strict=True)}
    report = leak_report(trained_and_scored, groups)
    return f"{len(report.leaks)} pairs, {len(report.twins())} of {len(data.held_out)} scored images"


def start_from(path: Path, model: SemiSupervisedModel, split: Split) -> None:
    """Gives the model what the run in the folder `path` has learnt, from the same training images.

    Raises:
        RecipeError: If that run had another split: what it trained on could be what this one is scored on.
        ValueError: If the networks do not fit.
    """
    found = Split.load(path / "split.txt")
    if found.hash != split.hash:
        raise RecipeError(f"--start-from {path} was trained on the split {found.hash}, this run has {split.hash}")
    model.start_from(keras.saving.load_model(path / "model.keras", compile=False))


def train(model: SemiSupervisedModel, experiment: Experiment, data: Data, folder: RunFolder) -> None:
    """Trains to the end, from the last finished epoch where there is one; the last weights count.

    Raises:
        RecipeError: If the training diverged.
    """
    settings = experiment.settings
    assert settings.epoch_steps is not None and settings.labeled_batch_size is not None  # resolved
    dataset = SemiSupervisedBatches(
        data.labeled,
        data.unlabeled,
        batch_size=settings.labeled_batch_size,
        unlabeled_batch_size=experiment.unlabeled_batch_size(),
        steps_per_epoch=settings.epoch_steps,
        seed=settings.seed,
    )
    with input_errors():
        # Every argument of the model, those that a preset fills in too.
        folder.update(model=keras.saving.serialize_keras_object(model)["config"])
    with whole_file(folder.path / "split.txt") as temporary:
        data.split.save(temporary)
    done = 0
    if folder.restore(model):
        done = int(keras.ops.convert_to_numpy(model.step)) // settings.epoch_steps
        print(f"resuming after epoch {done}", flush=True)
    dataset.epoch = done
    model.fit(
        dataset,
        epochs=settings.steps // settings.epoch_steps,
        initial_epoch=done,
        shuffle=False,
        # The record comes last: when it has noted an epoch, the others have done theirs.
        callbacks=[*observers(settings, data.unlabeled, folder.path), RunRecord(folder, done)],
        # Without a terminal, one line an epoch instead of one a step.
        verbose=1 if sys.stdout.isatty() else 2,
    )
    if not all(np.isfinite(keras.ops.convert_to_numpy(weight)).all() for weight in model.network.weights):
        raise RecipeError(
            f"the training diverged: the model holds NaN or infinite weights (when, {folder.path}/metrics.csv says). "
            "Try a lower --learning-rate, or --mixed-precision none"
        )


def score(model: SemiSupervisedModel, experiment: Experiment, data: Data, folder: RunFolder) -> None:
    """Scores the last weights, and the teacher's where there is one, and writes what is left to write."""
    started = time.perf_counter()
    batches = EvaluationBatches(data.held_out)
    result: dict[str, dict[str, float]] = {}
    table: list[Row] = []
    rows: list[Row] = []
    groups = experiment.groups(tuple(data.held_out.names))
    for weights in ("last", "teacher") if model.teacher is not None else ("last",):
        model.use_teacher = weights == "teacher"
        rows = evaluate_images(model, batches, surface_tolerance=SURFACE_TOLERANCE)
        result[weights] = summarize(rows)
        for group in dict.fromkeys(groups.values()):
            result[f"{weights}, {group}"] = summarize([row for row in rows if groups[row["name"]] == group])
        table += [{"name": row["name"], "weights": weights, **row} for row in rows]
    write_table(folder.path / "images.csv", table)
    folder.save_model(model)
    keep_for_the_report(model, data.held_out, rows, folder)
    cost = {
        "training_seconds": folder.seconds,
        "scoring_seconds": round(time.perf_counter() - started, 1),
        "peak_memory_mib": peak_memory_mib(),
    }
    folder.finish(result=result, cost=cost)


def keep_for_the_report(model: SemiSupervisedModel, images: ImageSet, rows: list[Row], folder: RunFolder) -> None:
    """Pictures of the worst, median and best cases and embeddings, for the weights that `rows` belong to."""
    size = EvaluationBatches(images).batch_size
    cases = collect_cases(model, images.images, images.masks, rows, images.class_names, size)
    if cases is not None:
        cases.save(folder.path / CASES)
        draw_cases(cases, rows, folder.path / "overlays")
    found = collect_embeddings(model, images.images, images.masks, images.labels, images.class_names, size)
    if found is not None:
        found.save(folder.path / EMBEDDINGS)


def draw_cases(cases: Cases, rows: list[Row], folder: Path) -> None:
    """One file a case."""
    if cases.truths is None or cases.predictions is None:
        return
    by_name = {row["name"]: row for row in rows}
    captions = []
    for name in cases.names:
        row, classes = by_name[name], cases.class_names
        label = f", {classes[row['label']]}, predicted {classes[row['prediction']]}" if "prediction" in row else ""
        captions.append(f"{name}: Dice {row['dice']:.2f}{label}")
    save_overlays(folder, cases.images, cases.truths, cases.predictions, cases.names, captions)


def peak_memory_mib() -> int | None:
    """Largest resident size of this process so far, without an accelerator's memory; None where it is unknown."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 2**20 if sys.platform == "darwin" else peak / 2**10)
