"""The images that a finished run has learnt from, read once more."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from keras_semimed.experiments.command_line import config_file
from keras_semimed.experiments.command_line.command import read_settings
from keras_semimed.experiments.command_line.flags import flags_of, methods
from keras_semimed.experiments.console import RecipeError, input_errors
from keras_semimed.experiments.inputs.data_sets import read
from keras_semimed.experiments.runs.experiment import with_tasks
from keras_semimed.provenance import data_digest

OF_TRAINING = ("--start-from", "--weights", "--test-on", "--test-on-dir")
"""Flags of a run that name files of which nothing is needed any more."""


def training_images(folder: Path, digest: str) -> np.ndarray:
    """The plain images, labelled and unlabelled, of a run of a command, by its `config.yaml`.

    Args:
        folder: Of the run.
        digest: Of what it has learnt from, `Provenance.data` of its model.

    Returns:
        0..255. Shape: `(N, H, W, C)`.

    Raises:
        RecipeError: If the folder is none of a command's run, or the images cannot be read or are other ones by now.
    """
    flags = folder / config_file.NAME
    if not flags.is_file():
        raise RecipeError(f"{flags} is not there; the images are read anew for a run of `semimed train` alone")
    known = {name: flag for method in methods() for name, flag in flags_of(method).items()}
    words = config_file.read_files([config_file.FLAG, str(flags)], known, positional=("data",)).of_files
    try:
        with input_errors():
            settings = read_settings("train", [word for word in words if word.partition("=")[0] not in OF_TRAINING])
            data = read(with_tasks(settings))
    except RecipeError as error:
        raise RecipeError(
            f"{flags} says where the images lie, seen from the folder that the run was started in: {error}"
        ) from error
    if data_digest(data.labeled, data.unlabeled) != digest:
        raise RecipeError(f"{flags}: the images that it names are not those that the run has learnt from")
    return data.plain_images
