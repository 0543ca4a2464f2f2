"""Everything that a run depends on, and what can be checked of it before any data are read."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from keras_semimed.experiments.command_line.bundles import COMMANDS, DATA_SETS
from keras_semimed.experiments.console import RecipeError, did_you_mean
from keras_semimed.source import members
from keras_semimed.text import install

Names = Mapping[str, Any]

# Titles of the help's sections and what they hold; what is in none of them is no part of the command line.
GROUPS = {
    "data": (
        *(
            "data",
            "manual_dir",
            "cvc_dir",
            "data_dir",
            "labeled",
            "split",
            "split_file",
            "test",
            "validation",
            "folds",
            "fold",
        ),
        *("intersect", "seed"),
        *("image_size", "classes", "mask_classes", "validate", "test_on", "test_on_dir"),
        *("mask_name", "mask_value", "intensity_range", "keep_aspect", "class_names", "mask_class_names"),
    ),
    "training": (
        *("method", "stages", "control", "steps", "epoch_steps", "batch_size", "labeled_batch_size", "mixed_precision"),
        *("start_from", "deterministic"),
    ),
    "optimizer": ("optimizer_groups",),
    "output": (
        *("output", "resume", "recompute_statistics", "track", "tensorboard", "threshold_figure", "panels"),
        *("pseudo_labels", "demo"),
    ),
}
# Where a run reads and writes, how it was asked for, and what only looks on: nothing that makes two runs differ.
PLACES = ("manual_dir", "cvc_dir", "data_dir", "test_on_dir")
"""Where data lie; the same data may lie elsewhere tomorrow."""
NOT_CONFIGURATION = (
    *("recipe", *PLACES, "split_file", "output", "resume", "demo"),
    *("track", "tensorboard", "threshold_figure", "panels", "pseudo_labels"),
)
SEVERAL = ("mask_value", "intensity_range", "class_names", "mask_class_names")
"""Flags that take several words, or are given once for each: words that may hold commas themselves."""
MOST_STEPS = 2**31 - 1
"""Steps are counted in 32 bits."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """A run. Its fields are flags, and so are the arguments of its method, views and optimizer.

    Args:
        recipe: name of the command
        given: the flags that were given, by name
        earlier: the trainings before this one, whose network it goes on from
        data: data set, or a folder with labeled/, unlabeled/ and test/ (docs/data.md); polyp: Kvasir-SEG and
            CVC-ClinicDB together, scored apart
        method: the method that is trained
        stages: several trainings in one run, each from the network of the one before: METHOD:STEPS or
            METHOD:STEPS@FACTOR with commas between, FACTOR of the learning rate; in the place of --steps. A supervised
            one takes as many images a step as the last
        output: folder of the run
        arguments: of the method's class, by their names, but for those that stand here
        views: arguments of the weak and strong views
        optimizer: arguments of the optimizer
        optimizer_groups: which variables share a learning rate: branch (segmentation, classification) or encoder (and
            the rest)
        variants: chosen variants of the method, such as a rung
        unused: flags of the command that the method does not have
        manual_dir: the downloaded archive, its folder, or the folder that holds either (polyp: Kvasir-SEG's)
        cvc_dir: CVC-ClinicDB's place, where polyp does not find it in --manual-dir
        data_dir: where TFDS keeps prepared data; by default where it always does
        labeled: labelled training images: a number, or a share of the training part
        split: how images are split: paper, 7:3 at random within each class; leak_safe, with near-duplicates (bus_bra:
            patients) never on two sides; pranet, PraNet's lists and LoCo's labelled ones; official, of Kvasir-SEG's
            authors; sequence_safe, no sequence of CVC-ClinicDB on two sides; random; folder, the parts of a folder
        split_file: the split itself, as split.txt has it: lines part<TAB>name, the parts labeled, unlabeled, validation
            and test; in the place of --split, --labeled and --test
        test: test images, a number or a share, where they are drawn; by default 0.3. Of a folder without a test part:
            of the annotated images, no patient of labels.csv on two sides
        validation: of a folder: annotated images to cut off and score after each epoch, a number or a share
        folds: of a folder: cut the annotated images into so many folds, in the place of --test
        fold: the fold to test on, from 0
        intersect: with published lists: use the images that are both in them and in the data
        seed: seed of split, start weights, order and views
        image_size: side of the images and of the views in pixels
        classes: image classes of the data set to take, with commas between, such as benign,malignant,normal; by
            default those that papers use
        mask_classes: lesion, the masks as they are, or type: the lesion of an image has the class of the image
        test_on: data set or folder of another hospital, on whose images the finished model is scored as well, by image
            class and by what labels.csv says of them
        test_on_dir: where the data set of --test-on lies, as --manual-dir
        mask_name: of a folder: what masks are called, such as {}_mask or mask_{}, or {file} for case.tif.png
        mask_value: of a folder: class of a grey value, range or colour in masks, such as 255=1, 128..255=1 or
            255,0,0=1, several with spaces between; 255 as a class is ignored
        intensity_range: of a folder: the values of black and white in images of more than 8 bits that do not say them
        keep_aspect: of a folder: pad images instead of stretching them
        class_names: of a folder: all image classes, in the order of their labels, with spaces between
        mask_class_names: of a folder: names of the mask classes, background first, with spaces between
        validate: score the validation part, which then is not trained on, not the test part
        control: the method's step with every unlabelled weight at 0
        steps: training steps
        epoch_steps: steps an epoch (a row of metrics.csv, a point to resume from); must divide --steps; by default
            about one pass over the unlabelled images
        batch_size: labelled and, as many again, unlabelled images a step
        labeled_batch_size: labelled images a step, if another number; twice --batch-size gives a supervised run as
            many images
        mixed_precision: none (float32), mixed_bfloat16 or mixed_float16
        start_from: folder of a finished run on the same split, such as a supervised one, whose network this run goes
            on with; it needs the same network flags (for Hermes: --exchange both)
        deterministic: the same bits from every run with one seed, more slowly
        resume: go on from the last finished epoch of the run in --output, if there is one
        recompute_statistics: score the weights a second time, with BatchNorm statistics taken anew from the plain
            training images
        track: send the figures of each epoch to tensorboard, wandb, mlflow, or several with commas between; on this
            machine, below OUTPUT, unless the environment says otherwise
        tensorboard: short for --track tensorboard
        threshold_figure: draw thresholds and shares of pseudo-labels used into thresholds.png after each epoch
        panels: draw the predictions on the same 4 unlabelled images every so many epochs into panels/
        pseudo_labels: unlabelled images on which the report compares pseudo-labels with the truth after each epoch, or
            0 (to learn from the truth instead, an oracle: --pseudo-labels-from truth)
        demo: made images, a small encoder: minutes on two cores; flags that are given still apply
    """

    recipe: str
    data: str
    method: str
    output: Path
    arguments: Names
    views: Names = dataclasses.field(default_factory=dict)
    optimizer: Names = dataclasses.field(default_factory=dict)
    optimizer_groups: Literal["branch", "encoder"] | None = None
    variants: Mapping[str, str] = dataclasses.field(default_factory=dict)
    unused: tuple[str, ...] = ()
    earlier: tuple[Settings, ...] = ()
    given: Names = dataclasses.field(default_factory=dict, compare=False, repr=False)
    stages: str | None = None
    manual_dir: Path | None = None
    cvc_dir: Path | None = None
    data_dir: Path | None = None
    labeled: int | float = 72
    split: Literal["paper", "leak_safe", "pranet", "official", "sequence_safe", "random", "folder"] = "random"
    split_file: Path | None = None
    test: int | float | None = None
    validation: int | float | None = None
    folds: int | None = None
    fold: int | None = None
    intersect: bool = False
    seed: int = 0
    image_size: int = 224
    classes: tuple[str, ...] | None = None
    mask_classes: Literal["lesion", "type"] = "lesion"
    mask_name: str | None = None
    mask_value: tuple[str, ...] | None = None
    intensity_range: tuple[float, ...] | None = None
    keep_aspect: bool | None = None
    class_names: tuple[str, ...] | None = None
    mask_class_names: tuple[str, ...] | None = None
    validate: bool = False
    test_on: str | None = None
    test_on_dir: Path | None = None
    control: bool = False
    steps: int = 3000
    epoch_steps: int | None = None
    batch_size: int = 8
    labeled_batch_size: int | None = None
    mixed_precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] | None = "float32"
    start_from: Path | None = None
    deterministic: bool = False
    resume: bool = False
    recompute_statistics: bool = False
    track: tuple[str, ...] | None = None
    tensorboard: bool = False
    threshold_figure: bool = False
    panels: int | None = None
    pseudo_labels: int = 32
    demo: bool = False

    @property
    def data_set(self) -> str:
        """Name of the data set; `phantom` is the command's."""
        return COMMANDS[self.recipe].phantom or self.data if self.data == "phantom" else self.data

    @property
    def trackers(self) -> tuple[str, ...]:
        """Where the figures are sent, each once."""
        return tuple(dict.fromkeys((*(self.track or ()), *(("tensorboard",) if self.tensorboard else ()))))

    @property
    def parts(self) -> tuple[str, ...]:
        """The data sets that are joined, trained on together and scored apart; none for one set or a folder."""
        return DATA_SETS[self.data_set].parts if self.data_set in DATA_SETS else ()


FLAG_NAMES = {"scale": "zoom", "classifier": "classifier_optimizer", "pseudo_labels": "pseudo_labels_from"}
"""Arguments of methods, views and optimizers whose flag has another name."""


def flag_names(arguments: Names) -> dict[str, Any]:
    """Arguments by the names of their flags."""
    return {FLAG_NAMES.get(name, name): value for name, value in arguments.items()}


def check(settings: Settings) -> None:
    """Refuses what is wrong whatever the data are, before anything is read.

    Raises:
        RecipeError: If a number is out of range, a name unknown or a path missing; the message names the flag.
    """
    for name in ("steps", "batch_size", "labeled_batch_size", "epoch_steps", "panels"):
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise RecipeError(f"--{name.replace('_', '-')} must be at least 1, found {value}")
    if settings.steps > MOST_STEPS:
        raise RecipeError(f"--steps must be at most {MOST_STEPS:,}, found {settings.steps}")
    if settings.pseudo_labels < 0:
        raise RecipeError(f"--pseudo-labels must be at least 0, found {settings.pseudo_labels}")
    if settings.labeled <= 0:
        raise RecipeError(f"--labeled must be positive, found {settings.labeled}")
    for name in ("labeled", "test", "validation"):
        value = getattr(settings, name)
        whole = name == "labeled" and value == 1.0  # all of a folder's
        if isinstance(value, int) and value < 1:
            raise RecipeError(f"--{name} {value} is no image; ask for at least one")
        if isinstance(value, float) and not whole and not 0 < value < 1:
            raise RecipeError(f"--{name} {value} is no share between 0 and 1; give a number of images as an integer")
    if (settings.folds is None) != (settings.fold is None) or settings.folds is not None and settings.test is not None:
        raise RecipeError("--folds and --fold must be given together, and without --test")
    if settings.folds is not None and settings.folds < 2:
        raise RecipeError(f"--folds must be at least 2, found {settings.folds}")
    if settings.folds is not None and not 0 <= settings.fold < settings.folds:  # type: ignore[operator]
        raise RecipeError(f"--fold must be within 0 and {settings.folds - 1}, found {settings.fold}")
    if settings.stages is None and settings.epoch_steps is not None:
        _epoch_steps(settings, 1)
    if not 0 <= settings.seed < 2**32:
        raise RecipeError(f"--seed must be within 0 and 2^32 - 1, found {settings.seed}")
    # Imported late: NumPy comes with it, for which help and typing errors should not wait.
    from keras_semimed.data.argument_checks import MAX_SIDE, check_batch

    if not 32 <= settings.image_size <= MAX_SIDE:
        least = "at least 32" if settings.image_size < 32 else f"at most {MAX_SIDE:,}"
        raise RecipeError(f"--image-size must be {least}, found {settings.image_size}")
    for name in ("batch_size", "labeled_batch_size"):
        try:
            check_batch(name, getattr(settings, name) or 1, (settings.image_size, settings.image_size, 3))
        except ValueError as error:
            raise RecipeError(str(error).replace(f"`{name}`", f"--{name.replace('_', '-')}")) from error
    encoders = tuple(members("keras_semimed.networks.encoders:ARCHITECTURES"))
    encoder, weights = settings.arguments["encoder"], settings.arguments["weights"]
    if encoder not in encoders:
        raise RecipeError(f"--encoder {encoder} is none of {', '.join(encoders)}{did_you_mean(encoder, encoders)}")
    trackers = members("keras_semimed.callbacks.trackers:TRACKERS")
    for name in settings.trackers:
        if name not in trackers:
            raise RecipeError(f"--track {name} is none of {', '.join(trackers)}{did_you_mean(name, trackers)}")
        if importlib.util.find_spec(name) is None:
            raise RecipeError(f"--track {name} needs the package {name}: {install(name)}")
    for name in ("manual_dir", "cvc_dir", "start_from", "split_file", "test_on_dir"):
        path = getattr(settings, name)
        if path is not None and not path.exists():
            raise RecipeError(f"--{name.replace('_', '-')} {path} does not exist")
    if weights is not None and weights.endswith((".npz", ".safetensors")) and not Path(weights).is_file():
        raise RecipeError(f"--weights {weights} is not a file")


def with_epochs(settings: Settings, unlabeled_images: int) -> Settings:
    """Fills in `labeled_batch_size`, `epoch_steps` and ADMT's `max_period`, half a pass, where they were left open.

    Args:
        settings: The flags.
        unlabeled_images: Number of unlabelled training images; sets the default length of an epoch.

    Raises:
        RecipeError: If `steps` cannot be divided into epochs.
    """
    half_pass = {}
    if "max_period" in settings.arguments and settings.arguments["max_period"] is None:
        half_pass["max_period"] = max(1, round(unlabeled_images / settings.batch_size / 2))
    return dataclasses.replace(
        settings,
        arguments={**settings.arguments, **half_pass},
        labeled_batch_size=settings.labeled_batch_size or settings.batch_size,
        epoch_steps=_epoch_steps(settings, unlabeled_images),
    )


def _epoch_steps(settings: Settings, unlabeled_images: int) -> int:
    """A divisor of `steps`: the given one, or the one nearest to a pass over the unlabelled images."""
    steps = settings.steps
    wanted = settings.epoch_steps or min(max(1.0, unlabeled_images / settings.batch_size), steps)

    def distance(number: int) -> float:
        return max(number / wanted, wanted / number)

    small = [number for number in range(1, math.isqrt(steps) + 1) if steps % number == 0]
    nearest = min((*small, *(steps // number for number in reversed(small))), key=distance)
    if settings.epoch_steps not in (None, nearest):
        raise RecipeError(f"--epoch-steps {wanted} does not divide --steps {steps}; try {nearest}")
    if distance(nearest) > 4:
        length = round(wanted)
        raise RecipeError(
            f"--steps {steps} cannot be divided into epochs of about {length} steps, which a run resumes from; "
            f"try {steps // length * length} or {(steps // length + 1) * length}"
        )
    return nearest


def configuration(settings: Settings) -> dict[str, Any]:
    """What makes two runs the same experiment, by the names of flags, ready for JSON.

    Raises:
        RecipeError: If the run to start from is not finished.
    """
    names = [name for group in GROUPS.values() for name in group if name not in NOT_CONFIGURATION]
    values = {name: getattr(settings, name) for name in names} | dict(settings.variants)
    values |= flag_names(settings.arguments) | flag_names(settings.views)
    values |= flag_names(settings.optimizer) | dict.fromkeys(settings.unused)
    if settings.start_from is not None:
        values["start_from"] = model_digest(settings.start_from)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def model_digest(folder: Path) -> str:
    """What tells the model of a finished run from any other: the SHA-256 of its file.

    Raises:
        RecipeError: If the folder holds no finished run.
    """
    try:
        return hashlib.sha256((folder / "model.keras").read_bytes()).hexdigest()
    except OSError as error:
        raise RecipeError(f"--start-from {folder} is not the folder of a finished run ({error})") from error
