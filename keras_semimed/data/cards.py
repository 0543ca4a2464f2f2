"""Short data cards: what a data set is, where it comes from, what to know before using it."""

from __future__ import annotations

from typing import NamedTuple


class Card(NamedTuple):
    """The facts about one data set."""

    title: str
    class_names: tuple[str, ...]
    study_classes: tuple[str, ...]
    """The classes that papers use, the default of `load`."""
    content: str
    licence: str
    source: str
    caution: str
    citation: str


CARDS = {
    "busi": Card(
        title="BUSI: breast ultrasound images",
        class_names=("benign", "malignant", "normal"),
        study_classes=("benign", "malignant"),
        content="780 images of 600 patients (Baheya Hospital, Cairo, 2018): 437 benign, 210 malignant, 133 normal; "
        "lesion masks, 190x310 to 1048x719 pixels",
        licence="CC BY 4.0 (article), CC0 (Kaggle copy); check at the source",
        source="download Dataset_BUSI_with_GT (Kaggle: aryashah2k/breast-ultrasound-images-dataset) and give the zip "
        "or the extracted folder as manual_dir",
        caution="no patient ids and many near-duplicates, some of them across classes: use split='leak_safe'; "
        "calipers and text are burnt in",
        citation="Al-Dhabyani W, Gomaa M, Khaled H, Fahmy A. Dataset of breast ultrasound images. Data in Brief 28 "
        "(2020) 104863. doi:10.1016/j.dib.2019.104863",
    ),
    "phantom_ultrasound": Card(
        title="Ultrasound phantoms: made images for tests and demonstrations",
        class_names=("benign", "malignant"),
        study_classes=("benign", "malignant"),
        content="computed breast ultrasound with one lesion each, 128x128 pixels, the same on every machine",
        licence="as this package",
        source="made locally, nothing to download",
        caution="a score on phantoms says that the software works, nothing about patients",
        citation="this package",
    ),
}


def card(name: str) -> Card:
    """Returns the card of a data set.

    Raises:
        ValueError: If there is no data set called `name`.
    """
    if name not in CARDS:
        raise ValueError(f"no data set is called {name!r}; known are {', '.join(sorted(CARDS))}")
    return CARDS[name]


def describe(name: str) -> None:
    """Prints a short data card: content, classes, licence, source, cautions and citation.

    Args:
        name: Name of a data set, e.g. `"busi"`.

    Raises:
        ValueError: If there is no data set called `name`.
    """
    facts = card(name)
    print(f"{facts.title} ({name})")
    print(f"  classes   {', '.join(facts.class_names)}")
    for key in ("content", "licence", "source", "caution", "citation"):
        print(f"  {key:<9} {getattr(facts, key)}")
