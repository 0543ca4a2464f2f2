"""The flags of the LoCo recipes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from recipes.arguments import Settings, count_or_share, flag, low_high, switch

# Titles of two sections of the help.
UNLABELED = "unlabelled part"
CONTRAST = "low-contrast loss"

# Table IV of the paper: what each rung switches on.
RUNGS: dict[str, dict[str, Any]] = {
    "M1": {"lambda_unlabeled": 0.0, "dynamic_filter": False, "inter_class": False, "boundary": False},
    "M2": {"dynamic_filter": False, "inter_class": False, "boundary": False},
    "M3": {"dynamic_filter": True, "inter_class": False, "boundary": False},
    "M4": {"dynamic_filter": False, "inter_class": False, "boundary": True},
    "M5": {"dynamic_filter": False, "inter_class": True, "boundary": False},
    "M6": {"dynamic_filter": False, "inter_class": True, "boundary": True},
    "M7": {"dynamic_filter": True, "inter_class": True, "boundary": True},
}
SPLITS = ("pranet", "official", "sequence_safe", "random")

DEMO: dict[str, Any] = {
    "data": "phantom",
    "split": "random",
    "test": 0.3,
    "labeled": 100,
    "image_size": 64,
    "encoder": "resnet_tiny",
    "weights": None,
    "decoder_filters": 32,
    "batch_size": 8,
    "steps": 500,
    "learning_rate": 2e-3,
    "head_factor": 1.0,
    "optimizer": "adam",
    "teacher_momentum": 0.99,
    "threshold_momentum": 0.99,
    "zoom": (0.8, 1.2),
    "shift": 0.1,
    "output": Path("runs/loco_demo"),
}

# Flags that are arguments of LoCo, under the same names.
LOCO_ARGUMENTS = (
    "image_size",
    "encoder",
    "output_stride",
    "weights",
    "preset",
    "fixed_threshold",
    "threshold_start",
    "threshold_momentum",
    "threshold_gamma",
    "neighbours",
    "temperature",
    "lambda_unlabeled",
    "lambda_contrast",
    "cutmix_probability",
    "decoder_filters",
    "teacher_momentum",
    "teacher_statistics",
    "seed",
)


@dataclasses.dataclass(frozen=True)
class LoCoSettings(Settings):
    """Everything a run of LoCo or of a rung of its ladder depends on."""

    data: str = flag(
        "data",
        "kvasir_seg",
        "data set; polyp: Kvasir-SEG and CVC-ClinicDB together, scored apart; phantom: made images",
        choices=("kvasir_seg", "cvc_clinicdb", "polyp", "phantom"),
    )
    manual_dir: Path | None = flag(
        "data", None, "the downloaded archive, its folder, or the folder that holds either (polyp: Kvasir-SEG's)", Path
    )
    cvc_dir: Path | None = flag(
        "data", None, "CVC-ClinicDB's place, where polyp does not find it in --manual-dir", Path, shown="--manual-dir"
    )
    labeled: int | float = flag(
        "data", 0.1, "labelled training images: a number, or a share of the training part", count_or_share
    )
    split: str = flag(
        "data",
        "pranet",
        "pranet: PraNet's lists, LoCo's labelled ones; official: of Kvasir-SEG's authors; sequence_safe: no sequence "
        "of CVC-ClinicDB on two sides; random",
        choices=SPLITS,
    )
    test: int | float | None = flag(
        "data", None, "test images, a number or a share, where they are drawn", count_or_share, shown="0.3"
    )
    intersect: bool = switch("data", "with published lists: use the images that are both in them and in the data")
    image_size: int = flag("data", 384, "side of the images and of the views in pixels, at least 32", int)

    rung: str = flag(
        "training",
        "M7",
        "rung of Table IV: M1 supervised; M2 pseudo-labels above --fixed-threshold; M3 M2 with dynamic filter; M4 M2 "
        "with boundary contrast; M5 M2 with inter-class contrast; M6 M2 with both; M7 all",
        choices=tuple(RUNGS),
    )
    preset: str = flag(
        "training", "paper", "LoCo as the paper prints it or as its authors' code does it", choices=("paper", "release")
    )
    steps: int = flag("training", 16000, "training steps", int)
    learning_rate: float = flag(
        "training", 1e-3, "start value for the encoder; falls polynomially to 0 (power 0.9)", float
    )
    head_factor: float = flag("training", 10.0, "factor of the learning rate outside the encoder", float)
    optimizer: str = flag("training", "sgd", "sgd (momentum 0.9, weight decay) or adam", choices=("sgd", "adam"))
    teacher_momentum: float = flag("training", 0.999, "of the teacher's moving average", float)
    teacher_statistics: str = flag(
        "training",
        "average",
        "BatchNorm statistics of the teacher: average (of the network's) or own (of its weights, from what it labels)",
        choices=("average", "own"),
    )
    zoom: tuple[float, float] = flag(
        "training", (0.5, 2.0), "range of the views' zoom, 1 fits the image", low_high, shown="0.5,2"
    )
    shift: float = flag("training", 0.25, "largest displacement of the views, as a share of the image's side", float)

    encoder: str = flag("network", "resnet50", "resnet18, resnet34, resnet50, resnet101, resnet152 or resnet_tiny")
    output_stride: int = flag("network", 16, "stride of the encoder's last features: 8, 16 or 32", int)
    decoder_filters: int = flag("network", 256, "channels of the decoder", int)

    fixed_threshold: float = flag(UNLABELED, 0.95, "confidence without the dynamic filter (M2, M4 to M6)", float)
    threshold_start: float | None = flag(UNLABELED, None, "global threshold at the start", float, shown="preset's")
    threshold_momentum: float = flag(UNLABELED, 0.999, "of the thresholds' moving averages (Eq. 15, 16)", float)
    threshold_gamma: float = flag(UNLABELED, 0.25, "how far the classes' thresholds differ (Eq. 18)", float)
    cutmix_probability: float = flag(UNLABELED, 0.5, "share of strong views with a box of another image", float)
    lambda_unlabeled: float | None = flag(UNLABELED, None, "weight of Eq. 6", float, shown="0.5; M1: 0")
    lambda_contrast: float = flag(CONTRAST, 0.1, "weight of Eq. 11", float)
    neighbours: int = flag(CONTRAST, 64, "pixels of a neighbourhood (Eq. 13)", int)
    temperature: float = flag(CONTRAST, 0.1, "temperature (Eq. 11)", float)
