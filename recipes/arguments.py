"""The flags of the Hermes recipe: one field of `Settings` each, with its default, its choices and its help."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

METHODS = ("hermes", "supervised", "control")
LEVELS = ("P1", "P2", "P3", "P4", "P5")

# Titles of two sections of the help.
UNLABELED = "unlabelled part (hermes and control)"
WEIGHTS = "loss weights (control: all but the lambdas are 0)"

DEMO: dict[str, Any] = {
    "data": "phantom",
    "image_size": 64,
    "encoder": "resnet_tiny",
    "weights": None,
    "decoder_filters": (64, 48, 32, 16, 16),
    "labeled": 120,
    "steps": 400,
    "learning_rate": 2e-3,
    "classifier_optimizer": "adam",
    "teacher_momentum": 0.99,
    "unlabeled_mask_loss": "ce",
    "unlabeled_start": 100,
    "unlabeled_ramp": 100,
    "output": Path("runs/demo"),
}

# Flags that are arguments of the models, under the same names.
SHARED_ARGUMENTS = (
    "image_size",
    "encoder",
    "weights",
    "decoder_filters",
    "tasks",
    "exchange",
    "saliency_level",
    "lambda_seg",
    "lambda_cls",
    "teacher_momentum",
    "seed",
)
HERMES_ARGUMENTS = (
    "preset",
    "contrast_level",
    "selection",
    "confidence",
    "uncertainty",
    "unlabeled_mask_loss",
    "unlabeled_start",
    "unlabeled_ramp",
    "unlabeled_weight",
    "alpha",
    "beta",
    "gamma",
)

# Where a run reads and writes, and how it was asked for: no part of what makes two runs the same experiment.
NOT_CONFIGURATION = ("manual_dir", "data_dir", "output", "resume", "demo")


def _weights(text: str) -> str | None:
    return None if text == "none" else text


def _threshold(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


def _filters(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _range(text: str) -> tuple[float, float]:
    low, high = (float(part) for part in text.split(","))
    return low, high


def _policy(text: str) -> str:
    return "float32" if text == "none" else text


def _flag(
    group: str,
    default: Any,
    text: str,
    parse: Callable[[str], Any] = str,
    choices: Sequence[str] | None = None,
    shown: str | None = None,
) -> Any:
    """A field that becomes the flag `--name` in the help's section `group`."""
    metadata = {"group": group, "help": text, "parse": parse, "choices": choices, "shown": shown}
    return dataclasses.field(default=default, metadata=metadata)


def _switch(group: str, text: str) -> Any:
    """A field that is False unless the flag is given."""
    return dataclasses.field(default=False, metadata={"group": group, "help": text})


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything a run depends on. None: decided by the preset, the method or the data."""

    data: str = _flag("data", "busi", "data set", choices=("busi", "phantom"))
    manual_dir: Path | None = _flag("data", None, "BUSI's zip, its folder, or the folder that holds either", Path)
    data_dir: Path | None = _flag("data", None, "where TFDS keeps prepared data", Path, shown="TFDS' own")
    labeled: int = _flag("data", 72, "number of labelled training images", int)
    split: str = _flag(
        "data",
        "paper",
        "7:3 at random within each class, or with near-duplicates never on two sides",
        choices=("paper", "leak_safe"),
    )
    seed: int = _flag("data", 0, "seed of split, start weights, order and views", int)
    image_size: int = _flag("data", 224, "side of the images in pixels, a multiple of 32", int)
    validate: bool = _switch("data", "score the validation part, which then is not trained on, not the test part")

    method: str = _flag(
        "training",
        "hermes",
        "hermes; supervised (labelled images alone); control (Hermes' step with every unlabelled weight at 0)",
        choices=METHODS,
    )
    preset: str | None = _flag(
        "training",
        "paper",
        "Hermes as the paper prints it or as its authors' code does it",
        choices=("paper", "release"),
    )
    steps: int = _flag("training", 3000, "training steps", int)
    epoch_steps: int | None = _flag(
        "training",
        None,
        "steps an epoch (a row of metrics.csv, a point to resume from); must divide --steps",
        int,
        shown="about one pass over the unlabelled images",
    )
    batch_size: int = _flag("training", 8, "labelled and, as many again, unlabelled images a step", int)
    labeled_batch_size: int | None = _flag(
        "training",
        None,
        "labelled images a step, if another number; twice --batch-size gives 'supervised' as many images as Hermes",
        int,
        shown="--batch-size",
    )
    learning_rate: float = _flag("training", 1e-4, "start value; falls polynomially to 0 (power 0.9)", float)
    classifier_optimizer: str = _flag(
        "training", "sgd", "optimizer of the classification branch (segmentation: Adam)", choices=("sgd", "adam")
    )
    teacher_momentum: float | None = _flag(
        "training", None, "keep a moving-average teacher, which makes the pseudo-labels", float, shown="no teacher"
    )
    zoom: tuple[float, float] = _flag(
        "training", (0.8, 1.2), "range of the views' zoom, 1 fits the image", _range, shown="0.8,1.2"
    )
    shift: float = _flag("training", 0.1, "largest displacement of the views, as a share of the image's side", float)
    mixed_precision: str = _flag(
        "training",
        "float32",
        "none, mixed_bfloat16 or mixed_float16",
        _policy,
        choices=("none", "mixed_bfloat16", "mixed_float16"),
        shown="none",
    )
    start_from: Path | None = _flag(
        "training",
        None,
        "folder of a finished run on the same split, such as one of 'supervised', whose network this run goes on with",
        Path,
        shown="the start weights of the encoders",
    )
    deterministic: bool = _switch("training", "the same bits from every run with one seed, more slowly")

    encoder: str = _flag("network", "resnet18", "resnet18, resnet34, resnet50, resnet101, resnet152 or resnet_tiny")
    weights: str | None = _flag(
        "network",
        "imagenet",
        "start weights of the encoders: a preset name, an .npz or .safetensors file with torchvision's names, or none",
        _weights,
    )
    decoder_filters: tuple[int, ...] = _flag(
        "network",
        (256, 128, 64, 32, 16),
        "channels of the decoder's five blocks, deepest first",
        _filters,
        shown="256,128,64,32,16",
    )
    tasks: str = _flag(
        "network", "both", "tasks to train (Table 3)", choices=("both", "segmentation", "classification")
    )
    exchange: str | None = _flag(
        "network",
        None,
        "between the branches: attention and saliency, attention only, saliency only, or nothing (Table 3)",
        choices=("both", "seg_to_cls", "cls_to_seg", "none"),
        shown="both; supervised: none",
    )
    contrast_level: str | None = _flag(
        "network", "P3", "encoder level of the pixel contrast, P1 = 1/2 to P5 = 1/32 (Table 5)", choices=LEVELS
    )
    saliency_level: str = _flag(
        "network", "P2", "decoder level that the saliency map enters (Table 6)", choices=LEVELS[:-1]
    )

    selection: str | None = _flag(
        UNLABELED, "dual", "which pseudo-labels count (Eq. 7)", choices=("none", "confidence", "uncertainty", "dual")
    )
    confidence: str | float | None = _flag(
        UNLABELED,
        None,
        "tau: scheduled (Eq. 17), class_wise, or a fixed number in [0, 1]",
        _threshold,
        shown="preset's",
    )
    uncertainty: str | float | None = _flag(
        UNLABELED, None, "kappa: scheduled (Eq. 16), release, or a fixed number in nats", _threshold, shown="preset's"
    )
    unlabeled_mask_loss: str | None = _flag(
        UNLABELED, "dice", "masked Dice (Eq. 9) or cross-entropy", choices=("dice", "ce")
    )
    unlabeled_start: int | None = _flag(UNLABELED, 0, "step at which the unlabelled terms start", int)
    unlabeled_ramp: int | None = _flag(UNLABELED, 0, "steps over which their weight then rises", int)

    unlabeled_weight: float | None = _flag(WEIGHTS, None, "factor of Eq. 9 and Eq. 10", float, shown="preset's")
    alpha: float | None = _flag(WEIGHTS, 0.8, "pixel contrast (Eq. 11)", float)
    beta: float | None = _flag(WEIGHTS, 0.2, "image contrast (Eq. 12)", float)
    gamma: float | None = _flag(WEIGHTS, None, "inter-task consistency (Eq. 14)", float, shown="preset's")
    lambda_seg: float = _flag(WEIGHTS, 0.5, "segmentation branch (Eq. 15)", float)
    lambda_cls: float | None = _flag(
        WEIGHTS, None, "classification branch (Eq. 15)", float, shown="preset's; supervised: 1"
    )

    output: Path = _flag("output", Path("runs/hermes_busi"), "folder of the run", Path)
    resume: bool = _switch("output", "go on from the last finished epoch of the run in --output, if there is one")
    demo: bool = _switch(
        "output", "phantoms, a small encoder, 64 pixels: minutes on two cores; flags that are given still apply"
    )


def parse(arguments: Sequence[str] | None, description: str | None) -> Settings:
    """Reads the command line; `--demo` changes defaults, not what was given.

    Args:
        arguments: The command line's words, or None for the process' own.
        description: Head of the help text.
    """
    parser = argparse.ArgumentParser(
        prog="python -m recipes.hermes_busi",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    groups: dict[str, Any] = {}
    for field in dataclasses.fields(Settings):
        title = field.metadata["group"]
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        _add(groups[title], field)
    given = vars(parser.parse_args(arguments))
    return Settings(**{**(DEMO if given.get("demo") else {}), **given})


def _add(group: Any, field: dataclasses.Field) -> None:
    name, metadata = f"--{field.name.replace('_', '-')}", field.metadata
    if "parse" not in metadata:
        group.add_argument(name, action="store_true", help=metadata["help"])
        return
    shown = field.default if metadata["shown"] is None else metadata["shown"]
    default = "" if shown is None else f" (default: {shown})"
    group.add_argument(
        name,
        type=_checked(metadata["parse"], metadata["choices"]),
        metavar="{" + ",".join(metadata["choices"]) + "}" if metadata["choices"] else field.name.upper(),
        help=metadata["help"] + default,
    )


def _checked(parse_value: Callable[[str], Any], choices: Sequence[str] | None) -> Callable[[str], Any]:
    """`parse_value` behind a check of the word itself: argparse compares `choices` with the parsed value."""

    def convert(text: str) -> Any:
        if choices is not None and text not in choices:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(choices)}")
        return parse_value(text)

    convert.__name__ = parse_value.__name__.strip("_")
    return convert
