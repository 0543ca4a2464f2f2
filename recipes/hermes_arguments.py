"""The flags of the Hermes recipe."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from recipes.arguments import Settings, flag, threshold, widths

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
    "steps": 600,
    "learning_rate": 2e-3,
    "classifier_optimizer": "adam",
    "teacher_momentum": 0.99,
    "unlabeled_mask_loss": "ce",
    "unlabeled_start": 225,
    "unlabeled_ramp": 75,
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
    "teacher_statistics",
)


@dataclasses.dataclass(frozen=True)
class HermesSettings(Settings):
    """Everything a run of Hermes or of its baselines depends on."""

    data: str = flag("data", "busi", "data set", choices=("busi", "udiat", "bus_bra", "phantom"))
    labeled: int = flag("data", 72, "number of labelled training images", int)
    split: str = flag(
        "data",
        "paper",
        "7:3 at random within each class, or with near-duplicates (bus_bra: patients) never on two sides",
        choices=("paper", "leak_safe"),
    )
    method: str = flag(
        "training",
        "hermes",
        "hermes; supervised (labelled images alone); control (Hermes' step with every unlabelled weight at 0)",
        choices=METHODS,
    )
    preset: str | None = flag(
        "training",
        "paper",
        "Hermes as the paper prints it or as its authors' code does it",
        choices=("paper", "release"),
    )
    classifier_optimizer: str = flag(
        "training", "sgd", "optimizer of the classification branch (segmentation: Adam)", choices=("sgd", "adam")
    )
    teacher_momentum: float | None = flag(
        "training", None, "keep a moving-average teacher, which makes the pseudo-labels", float, shown="no teacher"
    )
    teacher_statistics: str = flag(
        "training",
        "average",
        "BatchNorm statistics of the teacher: average (of the network's) or own (of its weights, from what it labels)",
        choices=("average", "own"),
    )
    decoder_filters: tuple[int, ...] = flag(
        "network",
        (256, 128, 64, 32, 16),
        "channels of the decoder's five blocks, deepest first",
        widths,
        shown="256,128,64,32,16",
    )
    tasks: str = flag("network", "both", "tasks to train (Table 3)", choices=("both", "segmentation", "classification"))
    exchange: str | None = flag(
        "network",
        None,
        "between the branches: attention and saliency, attention only, saliency only, or nothing (Table 3)",
        choices=("both", "seg_to_cls", "cls_to_seg", "none"),
        shown="both; supervised: none",
    )
    contrast_level: str | None = flag(
        "network", "P3", "encoder level of the pixel contrast, P1 = 1/2 to P5 = 1/32 (Table 5)", choices=LEVELS
    )
    saliency_level: str = flag(
        "network", "P2", "decoder level that the saliency map enters (Table 6)", choices=LEVELS[:-1]
    )
    selection: str | None = flag(
        UNLABELED, "dual", "which pseudo-labels count (Eq. 7)", choices=("none", "confidence", "uncertainty", "dual")
    )
    confidence: str | float | None = flag(
        UNLABELED,
        None,
        "tau: scheduled (Eq. 17), class_wise, or a fixed number in [0, 1]",
        threshold,
        shown="preset's",
    )
    uncertainty: str | float | None = flag(
        UNLABELED, None, "kappa: scheduled (Eq. 16), release, or a fixed number in nats", threshold, shown="preset's"
    )
    unlabeled_mask_loss: str | None = flag(
        UNLABELED, "dice", "masked Dice (Eq. 9) or cross-entropy", choices=("dice", "ce")
    )
    unlabeled_start: int | None = flag(UNLABELED, 0, "step at which the unlabelled terms start", int)
    unlabeled_ramp: int | None = flag(UNLABELED, 0, "steps over which their weight then rises", int)
    unlabeled_weight: float | None = flag(WEIGHTS, None, "factor of Eq. 9 and Eq. 10", float, shown="preset's")
    alpha: float | None = flag(WEIGHTS, 0.8, "pixel contrast (Eq. 11)", float)
    beta: float | None = flag(WEIGHTS, 0.2, "image contrast (Eq. 12)", float)
    gamma: float | None = flag(WEIGHTS, None, "inter-task consistency (Eq. 14)", float, shown="preset's")
    lambda_seg: float = flag(WEIGHTS, 0.5, "segmentation branch (Eq. 15)", float)
    output: Path = flag("output", Path("runs/hermes_busi"), "folder of the run", Path)
    image_size: int = flag("data", 224, "side of the images in pixels, a multiple of 32", int)
    lambda_cls: float | None = flag(
        WEIGHTS, None, "classification branch (Eq. 15)", float, shown="preset's; supervised: 1"
    )
