"""One run from data to result: load, train, score, write."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import keras
import numpy as np

from keras_semimed import backend
from keras_semimed.data import EvaluationBatches, ImageSet, SemiSupervisedBatches, Split
from keras_semimed.data.splits.parts import PARTS
from keras_semimed.evaluation import report, save_overlays
from keras_semimed.evaluation.cases import Cases, collect_cases
from keras_semimed.evaluation.embeddings import collect_embeddings
from keras_semimed.evaluation.images import Row
from keras_semimed.evaluation.report import ATTENTION, CASES, EMBEDDINGS, NAME, PSEUDO_LABELS, PSEUDO_MASKS
from keras_semimed.evaluation.sizes import TABLES
from keras_semimed.experiments.command_line import config_file
from keras_semimed.experiments.command_line.settings import Settings, configuration, flag_names, with_epochs
from keras_semimed.experiments.console import NOTICE, RecipeError, input_errors, print_section
from keras_semimed.experiments.inputs.data_sets import Data, check_data, count_leaks, groups_of, read, tasks_of
from keras_semimed.experiments.runs.checkpoints import Checkpoint
from keras_semimed.experiments.runs.commits import source_commit
from keras_semimed.experiments.runs.observers import observers
from keras_semimed.experiments.runs.plan import ExpectedTime, plan
from keras_semimed.experiments.runs.run_folder import METRICS, RunFolder, RunRecord, open_run
from keras_semimed.experiments.runs.scores import Scored, print_results
from keras_semimed.experiments.termination import Termination
from keras_semimed.files import check_digests, read_sealed, whole_file
from keras_semimed.models import METHODS, SemiSupervisedModel, recompute_statistics
from keras_semimed.models.value_checks import check_image_set
from keras_semimed.optimizers import branch_optimizer, encoder_optimizer

FILES = (
    *(METRICS, "split.txt", *TABLES.values(), "model.keras"),
    *(CASES, EMBEDDINGS, PSEUDO_LABELS, PSEUDO_MASKS, ATTENTION),
)
"""What reports and comparisons are made of."""


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
        split = description["split"]
        print_section("split", {**split["sizes"], **{name: split[name] for name in ("hash", "scored", "leaks")}})
        if description["reading"] is not None:
            print(f"files: {description['reading']['in_words']}")
        if folder.result is None:
            model, seconds = train_stages(settings, data, folder, termination)
            score(model, settings, data, folder, seconds)
        folder.checkpoints.clear()  # not needed any more; here, so that a run killed meanwhile leaves none either
        if not (folder.path / NAME).exists():
            report(folder.path)
    print_results(folder.content, data.scored, settings.image_size)
    cost = folder.content["cost"]
    memory = "unknown" if cost["peak_memory_mib"] is None else f"{cost['peak_memory_mib']} MiB"
    print(f"\ntraining {cost['training_seconds']:.0f} s, peak memory of the process {memory}")
    print(f"files in {settings.output}, to begin with {NAME}\n{NOTICE}")


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


def build(settings: Settings, images: ImageSet) -> SemiSupervisedModel:
    """Makes and compiles the model for the classes of `images`.

    Raises:
        RecipeError: If an argument does not fit; the message names it and its flag.
    """
    counts = {"num_classes": images.num_classes, "num_labels": len(images.class_names)}
    given = {name: value for name, value in settings.arguments.items() if value is not None}
    arguments = {name: count for name, count in counts.items() if count > 1} | given
    arguments |= {"image_size": settings.image_size, "seed": settings.seed, "total_steps": settings.steps}
    make = encoder_optimizer if settings.optimizer_groups == "encoder" else branch_optimizer
    try:
        model = METHODS[settings.method](views=dict(settings.views), **arguments)
        if settings.control:
            check_control(settings, model)
        if isinstance(images, ImageSet):  # or the counts alone
            check_image_set(images, model.num_classes, model.num_labels, model.learnt_heads, learn=True)
        model.compile(make(settings.steps, **settings.optimizer))
    except (ValueError, OSError, RuntimeError) as error:
        named = {f"`{name}`": word for name in (*arguments, *settings.optimizer) for word in flag_names({name: None})}
        words = sorted({f"--{word.replace('_', '-')}" for name, word in named.items() if name in str(error)})
        raise RecipeError(f"{error}" + (f" ({', '.join(words)})" if words else "")) from error
    return model


def check_control(settings: Settings, model: SemiSupervisedModel) -> None:
    """Refuses a control in which something is learnt without labels at some time.

    Raises:
        RecipeError: Which names the terms.
    """
    left: dict[str, None] = {}
    for step in (0, settings.steps // 2, settings.steps - 1):
        model.step.assign(step)
        weights = {name: float(keras.ops.convert_to_numpy(weight)) for name, weight in model.loss_weights.items()}
        left |= {name: None for name, weight in weights.items() if weight and not name.endswith("supervised")}
    model.step.assign(0)
    if left:
        raise RecipeError(f"--control: no argument of {settings.method} sets the weight of {', '.join(left)} to 0")


def describe(settings: Settings, data: Data, runtime: dict) -> dict:
    """Content of config.json that is known before training."""
    sizes = {part: len(getattr(data.split, part)) for part in PARTS}
    rules = data.labeled.rules
    return {
        "recipe": settings.recipe,
        "commit": source_commit(),
        # What was computed with is as much a part of the experiment as the flags.
        "configuration": {**configuration(settings), "backend": runtime["backend"], "split_hash": data.split.hash},
        "runtime": runtime,
        "split": {"hash": data.split.hash, "sizes": sizes, "scored": data.scored, "leaks": count_leaks(data)},
        "reading": None if rules is None else {**rules.get_config(), "in_words": str(rules)},
    }


def start_from(path: Path, model: SemiSupervisedModel, split: Split) -> None:
    """Gives the model what the run in the folder `path` has learnt, from the same training images.

    Raises:
        RecipeError: If that run had another split: what it trained on could be what this one is scored on; or if its
            model is damaged.
        ValueError: If the networks do not fit.
    """
    files = read_sealed(path / "config.json", sealed=False).get("files", {})
    check_digests(path, files, ["split.txt", "model.keras"])
    found = Split.load(path / "split.txt")
    if found.hash != split.hash:
        raise RecipeError(f"--start-from {path} was trained on the split {found.hash}, this run has {split.hash}")
    try:
        other = keras.saving.load_model(path / "model.keras", compile=False)
    except Exception as error:  # zipfile, h5py and Keras have a dozen kinds for damaged bytes
        raise RecipeError(
            f"--start-from {path}: its model.keras is damaged, or not of this version ({error})"
        ) from error
    model.start_from(other)


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
    with input_errors():
        # Every argument of the model, those that a preset fills in too.
        config = keras.saving.serialize_keras_object(model)["config"]
    folder.update(model=config)
    model.note_data(
        data.labeled, data.unlabeled
    )  # as `fit` does, which a run that was trained to its end calls no more
    with whole_file(folder.path / "split.txt") as temporary:
        data.split.save(temporary)
    print_section("plan", plan(model, settings, data))
    done_steps = 0 if start is None else start.step
    if keras.backend.backend() != "torch":
        print("compiling the step, this takes a minute or two", flush=True)
    done, within = 0, 0
    if start is not None:
        start.restore(model)
        done, within = divmod(start.step, settings.epoch_steps)
        print(f"resuming after epoch {done}" + (f", step {start.step}" if within else ""), flush=True)
    # The record comes last: when it has noted an epoch, the others have done theirs.
    watching = observers(settings, data.unlabeled, folder.path, folder.content["configuration"])
    callbacks = [*watching, ExpectedTime(settings.steps, done_steps), record]
    # Without a terminal, one line an epoch instead of one a step.
    arguments = {"shuffle": False, "callbacks": callbacks, "verbose": 1 if sys.stdout.isatty() else 2}
    if data.watched is not None:
        arguments["validation_data"] = EvaluationBatches(data.watched)
    first, epochs = record.epochs_before, settings.steps // settings.epoch_steps
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


def score(model: SemiSupervisedModel, settings: Settings, data: Data, folder: RunFolder, seconds: float) -> None:
    """Scores the last weights, and the teacher's where there is one, and writes what is left to write."""
    started = time.perf_counter()
    scored = Scored()
    rows: list[Row] = []
    groups: dict[str, set[str]] = {}
    for name, group in groups_of(settings, tuple(data.held_out.names)).items():
        groups.setdefault(group, set()).add(name)
    sets = ("last", "teacher") if model.teacher is not None else ("last",)
    if settings.recompute_statistics:
        # First: the weights that end up in model.keras and in the report are scored last, as they are.
        for weights in sets:
            with new_statistics(model, weights == "teacher", data):
                score_weights(model, f"{weights}, new statistics", data, {}, scored)
    for weights in sets:
        model.use_teacher = weights == "teacher"
        rows = score_weights(model, weights, data, groups, scored)
    scored.write(folder.path)
    assert model.provenance is not None  # noted before training
    model.provenance = dataclasses.replace(
        model.provenance,
        data_set=Path(settings.data).name,
        split=data.split.hash,
        scored=scored.described(data.scored),
        scores=scored.shown(sets[-1]),
    )
    folder.save_model(model)
    keep_for_the_report(model, data.held_out, rows, folder)
    cost = {
        "training_seconds": round(seconds, 1),
        "scoring_seconds": round(time.perf_counter() - started, 1),
        "peak_memory_mib": peak_memory_mib(),
    }
    folder.finish(list(FILES), **scored.content(), cost=cost)


def score_weights(
    model: SemiSupervisedModel, weights: str, data: Data, groups: Mapping[str, Collection[str]], scored: Scored
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
    images = np.concatenate([np.asarray(part.images[:]) for part in (data.labeled, data.unlabeled)])
    try:
        recompute_statistics(model, images)
        yield
    finally:
        model.predictor.set_weights(kept)


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
