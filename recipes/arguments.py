"""The flags that all recipes share: one field of `Settings` each, with its default, its choices and its help."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

# Where a run reads and writes, and how it was asked for: no part of what makes two runs the same experiment.
NOT_CONFIGURATION = (
    *("manual_dir", "cvc_dir", "data_dir", "output", "resume", "demo"),
    # What only looks on, neither.
    *("tensorboard", "threshold_figure", "panels", "pseudo_labels"),
)


def weights_or_none(text: str) -> str | None:
    """`none` means random start weights."""
    return None if text == "none" else text


def threshold(text: str) -> str | float:
    """A number, or the name of a schedule."""
    try:
        return float(text)
    except ValueError:
        return text


def count_or_share(text: str) -> int | float:
    """`72` images, or `0.1` of them."""
    return float(text) if "." in text else int(text)


def widths(text: str) -> tuple[int, ...]:
    """Numbers between commas."""
    return tuple(int(part) for part in text.split(","))


def low_high(text: str) -> tuple[float, float]:
    """Two numbers with a comma between."""
    low, high = (float(part) for part in text.split(","))
    return low, high


def policy(text: str) -> str:
    """`none` means float32."""
    return "float32" if text == "none" else text


_EXPECTED: dict[Callable[[str], Any], str] = {
    int: "a whole number",
    float: "a number",
    count_or_share: "a number such as 72 or a share such as 0.1",
    widths: "whole numbers with commas between",
    low_high: "two numbers with a comma between",
}


def flag(
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


def switch(group: str, text: str) -> Any:
    """A field that is False unless the flag is given."""
    return dataclasses.field(default=False, metadata={"group": group, "help": text})


@dataclasses.dataclass(frozen=True)
class Settings:
    """What every run depends on. None: decided by the preset, the method or the data."""

    data: str = flag("data", "", "data set")
    manual_dir: Path | None = flag(
        "data", None, "the downloaded archive, its folder, or the folder that holds either", Path
    )
    data_dir: Path | None = flag("data", None, "where TFDS keeps prepared data", Path, shown="TFDS' own")
    labeled: int | float = flag("data", 72, "number of labelled training images", int)
    split: str = flag("data", "", "how images are split")
    seed: int = flag("data", 0, "seed of split, start weights, order and views", int)
    image_size: int = flag("data", 224, "side of the images in pixels", int)
    validate: bool = switch("data", "score the validation part, which then is not trained on, not the test part")
    steps: int = flag("training", 3000, "training steps", int)
    epoch_steps: int | None = flag(
        "training",
        None,
        "steps an epoch (a row of metrics.csv, a point to resume from); must divide --steps",
        int,
        shown="about one pass over the unlabelled images",
    )
    batch_size: int = flag("training", 8, "labelled and, as many again, unlabelled images a step", int)
    labeled_batch_size: int | None = flag(
        "training",
        None,
        "labelled images a step, if another number; twice --batch-size gives a supervised run as many images",
        int,
        shown="--batch-size",
    )
    learning_rate: float = flag("training", 1e-4, "start value; falls polynomially to 0 (power 0.9)", float)
    zoom: tuple[float, float] = flag(
        "training", (0.8, 1.2), "range of the views' zoom, 1 fits the image", low_high, shown="0.8,1.2"
    )
    shift: float = flag("training", 0.1, "largest displacement of the views, as a share of the image's side", float)
    mixed_precision: str = flag(
        "training",
        "float32",
        "none, mixed_bfloat16 or mixed_float16",
        policy,
        choices=("none", "mixed_bfloat16", "mixed_float16"),
        shown="none",
    )
    start_from: Path | None = flag(
        "training",
        None,
        "folder of a finished run on the same split, such as a supervised one, whose network this run goes on with; it "
        "needs the same network flags (for Hermes: --exchange both)",
        Path,
        shown="the start weights of the encoders",
    )
    deterministic: bool = switch("training", "the same bits from every run with one seed, more slowly")
    encoder: str = flag("network", "resnet18", "resnet18, resnet34, resnet50, resnet101, resnet152 or resnet_tiny")
    weights: str | None = flag(
        "network",
        "imagenet",
        "start weights of the encoders: a preset name, an .npz or .safetensors file with torchvision's names, or none",
        weights_or_none,
    )
    output: Path = flag("output", Path("runs/run"), "folder of the run", Path)
    resume: bool = switch("output", "go on from the last finished epoch of the run in --output, if there is one")
    tensorboard: bool = switch("output", "also log to TensorBoard, into OUTPUT/tensorboard")
    threshold_figure: bool = switch(
        "output", "draw thresholds and shares of pseudo-labels used into thresholds.png after each epoch"
    )
    panels: int | None = flag(
        "output", None, "draw the predictions on the same 4 unlabelled images every so many epochs into panels/", int
    )
    pseudo_labels: int = flag(
        "output",
        32,
        "unlabelled images on which the report compares pseudo-labels with the truth after each epoch, or 0",
        int,
    )
    demo: bool = switch(
        "output", "phantoms, a small encoder, small images: minutes on two cores; flags that are given still apply"
    )


AnySettings = TypeVar("AnySettings", bound=Settings)


def parse(
    settings: type[AnySettings],
    arguments: Sequence[str] | None,
    recipe: str,
    description: str | None,
    demo: Mapping[str, Any],
    defaults: Mapping[str, Any] | None = None,
) -> AnySettings:
    """Reads the command line; `--demo` changes defaults, not what was given.

    Args:
        settings: The class whose fields are the flags.
        arguments: The command line's words, or None for the process' own.
        recipe: Name of the module in `recipes`.
        description: Head of the help text.
        demo: Defaults under `--demo`.
        defaults: Defaults of this recipe where they differ from those of the class.
    """
    defaults = defaults or {}
    parser = argparse.ArgumentParser(
        prog=f"python -m recipes.{recipe}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    groups: dict[str, Any] = {}
    # Shared groups stand where the method's own fields leave them: data, training, network first, output last.
    fields = sorted(dataclasses.fields(settings), key=lambda field: field.metadata["group"] == "output")
    for field in fields:
        title = field.metadata["group"]
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        _add(groups[title], field, defaults.get(field.name, field.default))
    given = vars(parser.parse_args(arguments))
    return settings(**{**defaults, **(demo if given.get("demo") else {}), **given})


def _add(group: Any, field: dataclasses.Field, default: Any) -> None:
    name, metadata = f"--{field.name.replace('_', '-')}", field.metadata
    if "parse" not in metadata:
        group.add_argument(name, action="store_true", help=metadata["help"])
        return
    changed = default is not field.default
    shown = default if metadata["shown"] is None or changed else metadata["shown"]
    text = "" if shown is None else f" (default: {shown})"
    group.add_argument(
        name,
        type=_checked(metadata["parse"], metadata["choices"]),
        metavar="{" + ",".join(metadata["choices"]) + "}" if metadata["choices"] else field.name.upper(),
        help=metadata["help"] + text,
    )


def _checked(parse_value: Callable[[str], Any], choices: Sequence[str] | None) -> Callable[[str], Any]:
    """`parse_value` behind a check of the word itself: argparse compares `choices` with the parsed value."""

    def convert(text: str) -> Any:
        if choices is not None and text not in choices:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(choices)}")
        try:
            return parse_value(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"expected {_EXPECTED[parse_value]}, got {text!r}") from error

    return convert
