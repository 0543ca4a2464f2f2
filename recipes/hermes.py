"""How the flags of the Hermes recipe become data and a model."""

from __future__ import annotations

import dataclasses
from typing import Any

from keras_semimed.data import ImageSet
from keras_semimed.models import Hermes, SemiSupervisedModel, Supervised
from keras_semimed.models.hermes import PRESETS
from keras_semimed.networks.encoders import check_image_size
from recipes.console import RecipeError
from recipes.experiment import Data, Experiment, load_one
from recipes.hermes_arguments import HERMES_ARGUMENTS, SHARED_ARGUMENTS, HermesSettings
from recipes.resolve import batch_and_epoch

PHANTOM = "phantom_ultrasound"


class HermesExperiment(Experiment[HermesSettings]):
    """Hermes, its control and the supervised baseline on one ultrasound data set.

    Args:
        settings: The flags.
        name: Name of the recipe.
    """

    def __init__(self, settings: HermesSettings, name: str = "hermes_busi"):
        super().__init__(settings)
        self.name = name

    def check(self) -> None:
        """Refuses an image size that the networks cannot take, and panels of masks without masks."""
        try:
            check_image_size(self.settings.image_size)
        except ValueError as error:
            raise RecipeError(f"--image-size {self.settings.image_size}: {error}") from error
        if self.settings.panels is not None and self.settings.tasks == "classification":
            raise RecipeError("--panels draws masks, which --tasks classification does not predict")

    def load(self) -> Data:
        """Reads and splits the images."""
        return load_one(self.settings, PHANTOM if self.settings.data == "phantom" else self.settings.data)

    def resolve(self, unlabeled_images: int) -> HermesSettings:
        """Fills in what the preset and the method decide."""
        settings = self.settings
        values: dict[str, Any] = batch_and_epoch(settings, unlabeled_images)
        if settings.method == "supervised":
            values |= dict.fromkeys(HERMES_ARGUMENTS)
            values |= {
                "exchange": settings.exchange or "none",
                "lambda_cls": 1.0 if settings.lambda_cls is None else settings.lambda_cls,
            }
            return dataclasses.replace(settings, **values)
        values["exchange"] = settings.exchange or "both"
        preset = PRESETS[str(settings.preset)]
        for name in ("lambda_cls", "unlabeled_weight", "confidence", "uncertainty", "gamma"):
            if getattr(settings, name) is None:
                values[name] = preset[name]
        if settings.method == "control":
            values |= dict.fromkeys(("unlabeled_weight", "alpha", "beta", "gamma"), 0.0)
        return dataclasses.replace(settings, **values)

    def build(self, images: ImageSet) -> SemiSupervisedModel:
        """Makes and compiles the model for the classes of `images`."""
        settings = self.settings
        names = SHARED_ARGUMENTS + (HERMES_ARGUMENTS if settings.method != "supervised" else ())
        arguments = {name: getattr(settings, name) for name in names}
        arguments |= {
            "num_classes": images.num_classes,
            "num_labels": len(images.class_names),
            "total_steps": settings.steps,
            "views": {"scale": settings.zoom, "shift": settings.shift},
        }
        model = Supervised(**arguments) if settings.method == "supervised" else Hermes(**arguments)
        optimizer = model.default_optimizer(
            learning_rate=settings.learning_rate, classifier=settings.classifier_optimizer
        )
        model.compile(optimizer)
        return model

    def unlabeled_batch_size(self) -> int:
        """The supervised baseline leaves the unlabelled images alone: one fills its place in the batch."""
        return 1 if self.settings.method == "supervised" else self.settings.batch_size
