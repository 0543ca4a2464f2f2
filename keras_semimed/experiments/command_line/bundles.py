"""What data sets, commands, demos and rungs start from: plain data, by the names of flags.

A method needs nothing here. Whatever is given on the command line counts before any of this.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

ULTRASOUND, ENDOSCOPY = "phantom_ultrasound", "phantom_endoscopy"


class DataSet(NamedTuple):
    """How a data set is used if nothing else is said."""

    labeled: int | float
    split: str
    phantom: str
    """The made images that stand in for it under `--demo`."""
    parts: tuple[str, ...] = ()
    """The data sets that are joined, trained on together and scored apart."""


DATA_SETS = {
    "busi": DataSet(72, "paper", ULTRASOUND),
    "bus_bra": DataSet(72, "paper", ULTRASOUND),
    "udiat": DataSet(20, "paper", ULTRASOUND),
    "kvasir_seg": DataSet(0.1, "official", ENDOSCOPY),
    "cvc_clinicdb": DataSet(0.1, "sequence_safe", ENDOSCOPY),
    "polyp": DataSet(0.1, "pranet", ENDOSCOPY, ("kvasir_seg", "cvc_clinicdb")),
    ULTRASOUND: DataSet(72, "paper", ULTRASOUND),
    ENDOSCOPY: DataSet(0.1, "random", ENDOSCOPY),
}


def is_folder(data: str) -> bool:
    """Whether a value of `--data` is a folder of somebody's own, and no data set's name."""
    return data not in DATA_SETS and Path(data).is_dir()


SPLITTING = ("split", "labeled", "test", "intersect")
OF_FOLDERS = ("validation", "folds", "fold")
"""What parts the annotated images of a folder."""
OF_READING = ("mask_name", "mask_value", "intensity_range", "keep_aspect", "class_names", "mask_class_names")
"""What is said about the files of a folder."""
OF_DATA_SETS = ("split_file", "manual_dir", "cvc_dir")
"""What else says which images a run has, but where a folder holds them."""
OF_CLASSES = ("classes", "mask_classes")
"""What chooses among the classes of a data set."""

# Small images and networks, and a fast optimizer: minutes on two cores.
DEMO: dict[str, Any] = {
    "image_size": 64,
    "encoder": "resnet_tiny",
    "weights": None,
    "learning_rate": 2e-3,
    "classifier_optimizer": "adam",
    "optimizer": "adam",
    "head_factor": 1.0,
    "zoom": (0.8, 1.2),
    "shift": 0.1,
}
DEMO_OF_DATA: dict[str, dict[str, Any]] = {
    ULTRASOUND: {"labeled": 120, "steps": 600},
    ENDOSCOPY: {"split": "random", "test": 0.3, "labeled": 100, "steps": 500},
}
DEMO_OF_NETWORK = {"unet": (64, 48, 32, 16, 16), "deeplab": 32}
DEMO_MOMENTUM = 0.99
"""What larger defaults of moving averages become in a demo: their memory must be short beside the run."""
DEMO_OF_METHOD: dict[str, dict[str, Any]] = {
    "loco": {"threshold_momentum": DEMO_MOMENTUM},
    "hermes": {
        "teacher_momentum": 0.99,
        "unlabeled_mask_loss": "ce",
        "unlabeled_start": 225,
        "unlabeled_ramp": 75,
    },
}

RUNGS: dict[str, dict[str, Any]] = {
    "M1": {"use_unlabeled": False, "dynamic_filter": False, "inter_class": False, "boundary": False},
    "M2": {"dynamic_filter": False, "inter_class": False, "boundary": False},
    "M3": {"dynamic_filter": True, "inter_class": False, "boundary": False},
    "M4": {"dynamic_filter": False, "inter_class": False, "boundary": True},
    "M5": {"dynamic_filter": False, "inter_class": True, "boundary": False},
    "M6": {"dynamic_filter": False, "inter_class": True, "boundary": True},
    "M7": {"dynamic_filter": True, "inter_class": True, "boundary": True},
}
"""Table IV of the LoCo paper: what each rung switches on."""


class Variants(NamedTuple):
    """Named sets of a method's arguments, and the flag that chooses among them."""

    flag: str
    text: str
    default: str
    choices: Mapping[str, Mapping[str, Any]]


VARIANTS = {
    "loco": Variants(
        "rung",
        "rung of Table IV: M1 supervised; M2 pseudo-labels above --fixed-threshold; M3 M2 with dynamic filter; M4 M2 "
        "with boundary contrast; M5 M2 with inter-class contrast; M6 M2 with both; M7 all",
        "M7",
        RUNGS,
    ),
}

CONTROL: dict[str, dict[str, float]] = {
    "hermes": dict.fromkeys(("unlabeled_weight", "alpha", "beta", "gamma"), 0.0),
    "u2pl": {"warmup_share": 1.0},
    # No step of the contrast, then nothing trusted: the labelled views alone.
    "pefat": {"warmup_share": 1e-9, "threshold": 1.0, "lambda_adversarial": 0.0, "lambda_uncertain": 0.0},
}
"""What takes the unlabelled terms away, of methods that weigh them by more than arguments called `lambda_…`."""
LABELED_WEIGHTS = ("lambda_seg", "lambda_cls")
"""Arguments called `lambda_…` that weigh labelled terms as well."""


class Command(NamedTuple):
    """Defaults of `python -m recipes.NAME`."""

    method: str | None = None
    defaults: Mapping[str, Any] = {}
    phantom: str | None = None
    """What `--data phantom` stands for; None: there is no such value."""
    demo: Mapping[str, Any] = {}


def _hermes(name: str, data: str, labeled: int) -> Command:
    defaults = {"data": data, "labeled": labeled, "split": "paper", "output": Path("runs") / name}
    return Command("hermes", defaults, ULTRASOUND, {"data": "phantom", "output": Path("runs/demo")})


def _loco(name: str, data: str, split: str) -> Command:
    defaults = {"data": data, "labeled": 0.1, "split": split, "output": Path("runs") / name}
    return Command("loco", defaults, ENDOSCOPY, {"data": "phantom", "output": Path("runs/loco_demo")})


COMMANDS = {
    "train": Command(),
    "hermes_busi": _hermes("hermes_busi", "busi", 72),
    "hermes_udiat": _hermes("hermes_udiat", "udiat", 20),
    "loco_kvasir": _loco("loco_kvasir", "kvasir_seg", "official"),
    "loco_cvc": _loco("loco_cvc", "cvc_clinicdb", "sequence_safe"),
    "loco_polyp": _loco("loco_polyp", "polyp", "pranet"),
}
