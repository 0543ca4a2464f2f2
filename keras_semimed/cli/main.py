"""The command `semimed`: its first word chooses, the module that it stands for reads the others."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

from keras_semimed import __version__
from keras_semimed.experiments.console import did_you_mean


class Command(NamedTuple):
    """What a word stands for."""

    module: str
    """Has `main(words, prog)`; imports Keras only where there is something to do."""
    text: str


COMMANDS = {
    "train": Command("keras_semimed.cli.train", "train any method on a folder of images or a data set"),
    "check": Command("keras_semimed.data.check", "look for faults in a folder of images"),
    "predict": Command("keras_semimed.predict", "masks, classes and a table of image files"),
    "report": Command("keras_semimed.cli.report", "write the report of finished runs again"),
    "compare": Command("keras_semimed.cli.compare", "finished runs on the same images, with intervals"),
    "sweep": Command("keras_semimed.experiments.comparison.sweep", "a table of a paper, or a grid, over seeds"),
    "export": Command("keras_semimed.cli.export", "a model for prediction alone: Keras, ONNX, SavedModel, LiteRT"),
    "data": Command("keras_semimed.cli.data", "describe, prepare, pack or convert data"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code; 2 for wrong usage."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's log says nothing that a user could mend
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        return 0 if words else 2
    if words[0] == "--version":
        print(f"semimed {__version__}")
        return 0
    chosen, *rest = words
    if chosen not in COMMANDS:
        known = ", ".join(COMMANDS)
        print(f"error: {chosen!r} is none of {known}{did_you_mean(chosen, COMMANDS)}", file=sys.stderr)
        return 2
    return importlib.import_module(COMMANDS[chosen].module).main(rest, f"semimed {chosen}")


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.text}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: semimed COMMAND [words]",
            "",
            "Semi-supervised segmentation and classification of medical images.",
            "",
            *lines,
            "",
            "semimed COMMAND --help tells more; KERAS_BACKEND chooses tensorflow, jax or torch.",
            "",
            "Research software, not a medical device: its output must not guide the care of a patient.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
