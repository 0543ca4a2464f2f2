"""One run from data to result: load, train, score, write."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from keras_semimed import backend
from keras_semimed.data import EvaluationBatches, ImageSet, SemiSupervisedBatches, Split, load
from keras_semimed.data.splits import PARTS
from keras_semimed.evaluation import evaluate_images, save_overlays, summarize
from keras_semimed.evaluation.files import whole_file, write_table
from keras_semimed.evaluation.images import Row
from keras_semimed.models import Hermes, SemiSupervisedModel, Supervised
from recipes.arguments import HERMES_ARGUMENTS, SHARED_ARGUMENTS, Settings
from recipes.console import NOTICE, RecipeError, input_errors, print_result, print_section
from recipes.resolve import check, configuration, resolve
from recipes.run_folder import RunFolder, RunRecord

DATA_SETS = {"busi": "busi", "phantom": "phantom_ultrasound"}
OVERLAYS = 6


class Data(NamedTuple):
    """The images by what a run does with them."""

    labeled: ImageSet
    unlabeled: ImageSet
    held_out: ImageSet
    split: Split
    scored: str
    """Name of the part that is held out and scored."""


def run(settings: Settings) -> None:
    """Trains and scores one model; see `recipes.hermes_busi`.

    Raises:
        RecipeError: For input that the user can mend.
    """
    check(settings)
    if settings.deterministic:
        backend.enable_determinism()
    keras.utils.set_random_seed(settings.seed)
    keras.config.set_dtype_policy(settings.mixed_precision)
    runtime = backend.describe_runtime()
    print_section("runtime", runtime)
    with input_errors():
        data = load_data(settings)
    settings = resolve(settings, len(data.unlabeled))
    description = describe(settings, data, runtime)
    folder = RunFolder(settings.output, description, settings.resume)
    print_section("configuration", description["configuration"])
    print_section("split", {**description["split"]["sizes"], "hash": data.split.hash, "scored": data.scored})
    if folder.result is None:
        with input_errors():
            model = build_model(settings, data.labeled)
            if settings.start_from is not None:
                start_from(settings.start_from, model, data.split)
        train(model, settings, data, folder)
        score(model, data, folder)
    print_result(folder.content["result"], data.scored)
    cost = folder.content["cost"]
    memory = "unknown" if cost["peak_memory_mib"] is None else f"{cost['peak_memory_mib']} MiB"
    print(f"\ntraining {cost['training_seconds']:.0f} s, peak memory of the process {memory}")
    print(f"files in {settings.output}\n{NOTICE}")


def load_data(settings: Settings) -> Data:
    """Reads and splits the images."""
    train, evaluation, split = load(
        DATA_SETS[settings.data],
        settings.labeled,
        settings.split,
        settings.seed,
        settings.image_size,
        validate=settings.validate,
        manual_dir=settings.manual_dir,
        data_dir=settings.data_dir,
    )
    scored = "validation" if settings.validate else "test"
    return Data(train.labeled, train.unlabeled, evaluation.image_set, split, scored)


def describe(settings: Settings, data: Data, runtime: dict) -> dict:
    """Content of config.json that is known before training."""
    sizes = {part: len(getattr(data.split, part)) for part in PARTS}
    return {
        "recipe": "hermes_busi",
        # What was computed with is as much a part of the experiment as the flags.
        "configuration": {
            **configuration(settings),
            "backend": runtime["backend"],
            "split_hash": data.split.hash,
        },
        "runtime": runtime,
        "split": {"hash": data.split.hash, "sizes": sizes, "scored": data.scored},
    }


def build_model(settings: Settings, images: ImageSet) -> SemiSupervisedModel:
    """Makes and compiles the model of `settings`, which must be resolved, for the classes of `images`."""
    names = SHARED_ARGUMENTS + (HERMES_ARGUMENTS if settings.method != "supervised" else ())
    arguments = {name: getattr(settings, name) for name in names}
    arguments |= {
        "num_classes": images.num_classes,
        "num_labels": len(images.class_names),
        "total_steps": settings.steps,
        "views": {"scale": settings.zoom, "shift": settings.shift},
    }
    model = Supervised(**arguments) if settings.method == "supervised" else Hermes(**arguments)
    optimizer = model.default_optimizer(learning_rate=settings.learning_rate, classifier=settings.classifier_optimizer)
    model.compile(optimizer)
    return model


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


def train(model: SemiSupervisedModel, settings: Settings, data: Data, folder: RunFolder) -> None:
    """Trains to the end, from the last finished epoch where there is one; the last weights count."""
    assert settings.epoch_steps is not None and settings.labeled_batch_size is not None  # resolved
    dataset = SemiSupervisedBatches(
        data.labeled,
        data.unlabeled,
        batch_size=settings.labeled_batch_size,
        # The supervised baseline leaves the unlabelled images alone: one is enough to fill its place in the batch.
        unlabeled_batch_size=1 if settings.method == "supervised" else settings.batch_size,
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
        callbacks=[RunRecord(folder, done)],
        # Without a terminal, one line an epoch instead of one a step.
        verbose=1 if sys.stdout.isatty() else 2,
    )


def score(model: SemiSupervisedModel, data: Data, folder: RunFolder) -> None:
    """Scores the last weights, and the teacher's where there is one, and writes what is left to write."""
    started = time.perf_counter()
    batches = EvaluationBatches(data.held_out)
    result: dict[str, dict[str, float]] = {}
    table: list[Row] = []
    rows: list[Row] = []
    for weights in ("last", "teacher") if model.teacher is not None else ("last",):
        model.use_teacher = weights == "teacher"
        rows = evaluate_images(model, batches)
        result[weights] = summarize(rows)
        table += [{"name": row["name"], "weights": weights, **row} for row in rows]
    write_table(folder.path / "images.csv", table)
    draw_cases(model, data.held_out, rows, folder)
    folder.save_model(model)
    cost = {
        "training_seconds": folder.seconds,
        "scoring_seconds": round(time.perf_counter() - started, 1),
        "peak_memory_mib": peak_memory_mib(),
    }
    folder.finish(result=result, cost=cost)


def draw_cases(model: SemiSupervisedModel, images: ImageSet, rows: list[Row], folder: RunFolder) -> None:
    """Pictures from the worst to the best Dice in equal steps of rank, for the weights that `rows` belong to."""
    if images.masks is None or "dice" not in rows[0]:
        return
    order = np.argsort([row["dice"] for row in rows], kind="stable")
    chosen = [int(index) for index in order[np.linspace(0, len(order) - 1, min(OVERLAYS, len(order))).astype(int)]]
    # As many images as in the evaluation's batches, so that nothing is compiled again.
    filled = np.resize(chosen, min(EvaluationBatches(images).batch_size, len(images)))
    masks = np.asarray(model.predict_on_batch(images.images[filled])["mask"]).argmax(-1)
    captions = []
    for index in chosen:
        row, classes = rows[index], images.class_names
        label = f", {classes[row['label']]}, predicted {classes[row['prediction']]}" if "prediction" in row else ""
        captions.append(f"{row['name']}: Dice {row['dice']:.2f}{label}")
    names = [rows[index]["name"] for index in chosen]
    save_overlays(
        folder.path / "overlays", images.images[chosen], images.masks[chosen], masks[: len(chosen)], names, captions
    )


def peak_memory_mib() -> int | None:
    """Largest resident size of this process so far, without an accelerator's memory; None where it is unknown."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 2**20 if sys.platform == "darwin" else peak / 2**10)
