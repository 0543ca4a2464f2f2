"""How the flags of the LoCo recipes become data and a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from keras_semimed.data import ImageSet, concatenate, load_image_set, split_image_set
from keras_semimed.data.named_splits import check_split
from keras_semimed.models import LoCo, SemiSupervisedModel
from recipes.console import RESUME, RecipeError, run_main
from recipes.experiment import Data, Experiment, load_one, run, scored_part
from recipes.loco_arguments import LOCO_ARGUMENTS, RUNGS, LoCoSettings
from recipes.resolve import batch_and_epoch

PHANTOM = "phantom_endoscopy"
TOGETHER = ("kvasir_seg", "cvc_clinicdb")


class LoCoExperiment(Experiment[LoCoSettings]):
    """LoCo, or a rung of its ladder, on polyps or endoscopy phantoms.

    Args:
        settings: The flags.
        name: Name of the recipe.
    """

    def __init__(self, settings: LoCoSettings, name: str):
        super().__init__(settings)
        self.name = name

    def check(self) -> None:
        """Refuses splits that the data do not have, and sizes and strides that the network cannot take."""
        settings = self.settings
        if settings.image_size < 32:
            raise RecipeError(f"--image-size must be at least 32, got {settings.image_size}")
        if settings.output_stride not in (8, 16, 32):
            raise RecipeError(f"--output-stride must be 8, 16 or 32, got {settings.output_stride}")
        try:
            check_split(self._data_set(), settings.split, settings.test, settings.intersect)
        except ValueError as error:
            raise RecipeError(f"--split {settings.split} with --data {settings.data}: {error}") from error

    def _data_set(self) -> str | None:
        """Name of the data set; None for several."""
        names = {"phantom": PHANTOM, "polyp": None}
        return names.get(self.settings.data, self.settings.data)

    def load(self) -> Data:
        """Reads and splits the images."""
        settings, name = self.settings, self._data_set()
        if name is not None:
            return load_one(settings, name, test=settings.test, intersect=settings.intersect)
        places = (settings.manual_dir, settings.cvc_dir or settings.manual_dir)
        sets = {
            part: load_image_set(part, settings.image_size, place, settings.data_dir)
            for part, place in zip(TOGETHER, places, strict=True)
        }
        images = concatenate(sets)
        split = split_image_set(
            images, None, settings.split, settings.seed, settings.labeled, settings.test, settings.intersect
        )
        held_out = split.validation if settings.validate else split.test
        return Data(
            images.select(split.labeled),
            images.select(split.train_unlabeled(settings.validate)),
            images.select(held_out),
            split,
            scored_part(settings),
        )

    def groups(self, names: tuple[str, ...]) -> Mapping[str, str]:
        """Images of joined sets are scored apart."""
        return {} if self._data_set() is not None else {name: name.partition("/")[0] for name in names}

    def unlabeled_batch_size(self) -> int:
        """Supervised training leaves the unlabelled images alone: one fills its place in the batch."""
        return 1 if self.settings.rung == "M1" and not self.settings.lambda_unlabeled else self.settings.batch_size

    def resolve(self, unlabeled_images: int) -> LoCoSettings:
        """Fills in what the rung decides."""
        settings = self.settings
        weight = settings.lambda_unlabeled
        if weight is None:
            weight = RUNGS[settings.rung].get("lambda_unlabeled", 0.5)
        return dataclasses.replace(settings, lambda_unlabeled=weight, **batch_and_epoch(settings, unlabeled_images))

    def build(self, images: ImageSet) -> SemiSupervisedModel:
        """Makes and compiles LoCo for the classes of `images`."""
        settings = self.settings
        arguments = {
            **RUNGS[settings.rung],
            **{name: getattr(settings, name) for name in LOCO_ARGUMENTS},
            "num_classes": images.num_classes,
            "total_steps": settings.steps,
            "views": {"scale": settings.zoom, "shift": settings.shift},
        }
        model = LoCo(**arguments)
        optimizer = model.default_optimizer(
            learning_rate=settings.learning_rate, head_factor=settings.head_factor, optimizer=settings.optimizer
        )
        model.compile(optimizer)
        return model


def run_recipe(settings: LoCoSettings, name: str) -> int:
    """Runs LoCo with the flags of a recipe; returns the exit code."""
    return run_main(lambda: run(LoCoExperiment(settings, name)), RESUME)
