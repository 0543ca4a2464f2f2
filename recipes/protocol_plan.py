"""The experiments of docs/protocol.md as flags of `recipes.train`: plain data, fixed before the first run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

FIRST = "first"
"""Name of the training that all arms of a draw start from."""


class Table(NamedTuple):
    """The runs of one table: flags by the name of each arm.

    Attributes:
        question: what it is to answer.
        data: data set.
        test: seed and share of the fixed test part.
        labeled: labelled images of a draw.
        draws: seeds of the labelled images.
        common: flags of all runs.
        first: flags of the training that the arms start from.
        arms: flags of what follows, by name; the first is what the others are compared with.
        primary: the score that decides.
        decided: the weights that decide, `last` or `teacher`.
        pairs: arms whose difference is shown in every score, for the question; the primary one is shown beside the
            first arm and beside `control` in any case.
    """

    question: str
    data: str
    test: tuple[int, float]
    labeled: int | float
    draws: range
    common: str
    first: str
    arms: Mapping[str, str]
    primary: str = "dice"
    decided: str = "last"
    pairs: tuple[tuple[str, str], ...] = ()


SMALL = (
    "--image-size 64 --network unet --encoder resnet18_p4 --decoder-filters 128,64,32,16,16 --optimizer-groups branch "
    "--classifier-optimizer adam --epoch-steps 100 --recompute-statistics --test-on bus_bra "
)
LATER = "--steps 400 --learning-rate 5e-4 --teacher-momentum 0.99 "
HERMES = (
    f"--method hermes {LATER}--batch-size 4 --selection confidence --confidence 0.9 --unlabeled-mask-loss ce "
    "--unlabeled-start 0 --unlabeled-ramp 80 --beta 0 --gamma 0 --no-teacher-labels "
)
SOFT = (
    f"--method hermes {LATER}--batch-size 4 --selection none --unlabeled-mask-loss soft --student-view strong "
    "--unlabeled-start 0 --unlabeled-ramp 80 --alpha 0 --beta 0 --gamma 0"
)
LOCO = f"--method loco {LATER}--batch-size 4 --threshold-momentum 0.98 "
POLYPS = (
    "--image-size 96 --network unet --encoder resnet18 --optimizer-groups branch --classifier-optimizer adam "
    "--epoch-steps 100 --recompute-statistics "
)

TABLES = {
    "S": Table(
        "segmentation: do pseudo-labels pay once supervised training is saturated?",
        "busi",
        (0, 0.5),
        72,
        range(200, 210),
        SMALL + "--tasks segmentation ",
        "--method supervised --steps 600 --batch-size 8 --learning-rate 1e-3",
        {
            "supervised": f"--method supervised {LATER}--batch-size 8",
            "supervised_strong": f"--method supervised {LATER}--batch-size 8 --strong",
            "control": f"{HERMES}--alpha 0 --control",
            "hermes": f"{HERMES}--alpha 0",
            "hermes_contrast": f"{HERMES}--alpha 0.8",
            "soft": SOFT,
            "oracle": f"{HERMES}--alpha 0 --pseudo-labels-from truth",
        },
        pairs=(
            ("hermes_contrast", "hermes"),
            *(
                (arm, to)
                for arm in ("hermes_contrast", "soft")
                for to in ("supervised", "supervised_strong", "control")
            ),
            ("soft", "hermes_contrast"),
        ),
    ),
    "J": Table(
        "both tasks: does the exchange between them help?",
        "busi",
        (0, 0.5),
        72,
        range(200, 206),
        SMALL + "--tasks both ",
        "--method supervised --steps 600 --batch-size 8 --learning-rate 1e-3",
        {
            "supervised": f"--method supervised {LATER}--batch-size 8",
            "supervised_exchange": f"--method supervised {LATER}--batch-size 8 --exchange both",
            "hermes": f"{HERMES}--alpha 0 --exchange none",
            "hermes_exchange": f"{HERMES}--alpha 0 --exchange both",
        },
        "auroc",
        pairs=(("supervised_exchange", "supervised"), ("hermes_exchange", "hermes"), ("hermes", "supervised")),
    ),
    "T": Table(
        "three mask classes: do two thresholds, LoCo's filter and its contrast between classes help?",
        "busi",
        (0, 0.5),
        72,
        range(200, 206),
        SMALL + "--tasks segmentation --mask-classes type ",
        "--method supervised --steps 600 --batch-size 8 --learning-rate 1e-3",
        {
            "supervised": f"--method supervised {LATER}--batch-size 8",
            "control": f"{HERMES}--alpha 0 --control",
            "hermes_confidence": f"{HERMES}--alpha 0",
            "hermes_dual": f"{HERMES}--alpha 0 --selection dual",
            "loco_m2": f"{LOCO}--rung M2",
            "loco_m3": f"{LOCO}--rung M3",
            "loco_m5": f"{LOCO}--rung M5",
            "loco_m7": f"{LOCO}--rung M7",
        },
        pairs=(
            ("hermes_dual", "hermes_confidence"),
            ("loco_m3", "loco_m2"),
            ("loco_m5", "loco_m2"),
            ("loco_m7", "loco_m2"),
        ),
    ),
    "L": Table(
        "polyps: does LoCo pay once supervised training is saturated?",
        "kvasir_seg",
        (0, 0.5),
        0.1,
        range(200, 206),
        POLYPS,
        "--method loco --rung M1 --steps 600 --batch-size 12 --learning-rate 1e-3 --teacher-momentum 0",
        {
            "m1": "--method loco --rung M1 --steps 600 --batch-size 12 --learning-rate 5e-4 --teacher-momentum 0.99",
            "control": f"{LOCO}--rung M7 --steps 600 --control",
            "m2": f"{LOCO}--rung M2 --steps 600",
            "m7": f"{LOCO}--rung M7 --steps 600",
            "oracle": f"{LOCO}--rung M2 --steps 600 --pseudo-labels-from truth",
        },
        decided="teacher",
        pairs=(("m7", "m2"),),
    ),
}

GPU = {
    "--image-size 64": "--image-size 224",
    "--encoder resnet18_p4 --decoder-filters 128,64,32,16,16": "--encoder resnet18",
    "--epoch-steps 100": "--epoch-steps 250",
    "--steps 600": "--steps 2000",
    "--steps 400": "--steps 1000",
    "--unlabeled-ramp 80": "--unlabeled-ramp 200",
}
"""What the larger tables have in the place of the smaller ones' flags."""


def _on_a_gpu(of: Table) -> Table:
    """The same at 224 pixels, with the whole encoder and the default decoder, 2,000 and 1,000 steps."""

    def larger(flags: str) -> str:
        for old, new in GPU.items():
            flags = flags.replace(old, new)
        return flags

    return of._replace(
        common=larger(of.common), first=larger(of.first), arms={arm: larger(flags) for arm, flags in of.arms.items()}
    )


TABLES |= {f"{name}_224": _on_a_gpu(TABLES[name]) for name in ("S", "J")}
