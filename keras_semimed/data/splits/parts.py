"""Who is labelled, unlabelled, validation and test: pure functions of names, classes, groups and a seed."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_semimed.text import shortened

PARTS = ("labeled", "unlabeled", "validation", "test")
_HEADER = "keras_semimed split"


@dataclass(frozen=True)
class Split:
    """Names of the images of each part, each sorted; no name is in two parts.

    The validation part is cut from the training images, whether it is used or not, so that the labelled images and
    the test part are the same in both cases.
    """

    labeled: tuple[str, ...]
    unlabeled: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self):
        counts = Counter(name for part in PARTS for name in getattr(self, part))
        if twice := [name for name, count in counts.items() if count > 1]:
            parts = [part for part in PARTS for name in getattr(self, part) if name == twice[0]]
            raise ValueError(
                f"{twice[0]!r} appears twice in the split ({', '.join(parts)}); an image belongs to one part, once"
            )

    @property
    def hash(self) -> str:
        """First 12 hex digits of the SHA-256 of all parts: equal hashes mean equal splits."""
        return hashlib.sha256("".join(self._lines()).encode()).hexdigest()[:12]

    def train_unlabeled(self, validate: bool = False) -> tuple[str, ...]:
        """Returns the unlabelled training images; the validation images are among them unless `validate`."""
        return self.unlabeled if validate else tuple(sorted(self.unlabeled + self.validation))

    def summary(self) -> str:
        """Returns one line with the size of each part and the hash."""
        sizes = ", ".join(f"{part} {len(getattr(self, part))}" for part in PARTS)
        return f"{sizes}, hash {self.hash}"

    def save(self, path: str | Path) -> None:
        """Writes a text file: a header with the hash, then one `part<TAB>name` a line.

        A name that would take more than a line is written as JSON, with a second tab in front.
        """
        lines = [f"{part}\t{_written(name)}\n" for part in PARTS for name in getattr(self, part)]
        with Path(path).open("w", encoding="utf-8", newline="\n") as file:
            file.writelines([f"# {_HEADER} {self.hash}\n", *lines])

    @classmethod
    def load(cls, path: str | Path) -> Split:
        """Reads what `save` wrote, or a list made by hand, whose header has no hash: `# keras_semimed split`.

        Raises:
            OSError: If the file cannot be read.
            ValueError: If it is no split, names an image twice, or was changed after it was written; it names the file.
        """
        try:
            header, *lines = Path(path).read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is no text in UTF-8 ({error}); save it as UTF-8") from error
        if not header.startswith(f"# {_HEADER}"):
            raise ValueError(
                f"{path} is no list of a split: it begins with {header[:40]!r}; begin it with '# {_HEADER}', and then "
                "a line part<TAB>name for each image"
            )
        parts: dict[str, list[str]] = {part: [] for part in PARTS}
        for number, line in enumerate(lines, start=2):
            part, tab, name = line.partition("\t")
            if not tab or part not in parts:
                raise ValueError(
                    f"{path}, line {number}: expected 'part<TAB>name' with a part of {PARTS}, found {shortened(line)}"
                )
            try:
                parts[part].append(str(json.loads(name)) if name.startswith("\t") else name)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {shortened(name)} is no name in JSON; correct it") from error
        try:
            split = cls(**{part: tuple(names) for part, names in parts.items()})
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        if header not in (f"# {_HEADER} {split.hash}", f"# {_HEADER}"):
            raise ValueError(
                f"{path}: the header is {header!r}, but the names hash to {split.hash}; save it again, or begin a list "
                f"made by hand with '# {_HEADER}'"
            )
        return split

    def _lines(self) -> list[str]:
        return [f"{part}\t{name}\n" for part in PARTS for name in getattr(self, part)]


def _written(name: str) -> str:
    """A name as a line holds it."""
    return f"\t{json.dumps(name)}" if "\n" in name or name.startswith("\t") else name


def paper_split(
    names: Sequence[str],
    labels: Sequence[int] | np.ndarray,
    seed: int,
    labeled: int | float = 72,
    test_fraction: float = 0.3,
    validation_fraction: float = 0.15,
    balanced: bool = False,
) -> Split:
    """Splits at random within each class, as the Hermes paper does (7:3).

    Test and validation take the rounded fraction of each class; the labelled images come from the rest, in
    proportion to the classes, and a smaller labelled part is contained in a larger one. Only the seed and the names
    decide: the order of `names` does not matter, and no random generator is involved.

    Args:
        names: Unique image names.
        labels: Class of each image.
        seed: Seed; another seed gives another split.
        labeled: Number of labelled images, or their share of the training images, below 1.
        test_fraction: Part of all images that is test.
        validation_fraction: Part of the training images that is cut off for validation.
        balanced: Label as many images of one class as of another instead of in proportion.

    Raises:
        ValueError: If more labelled images are asked for than there are, or fewer than classes.
    """
    return leak_safe_split(names, labels, names, seed, labeled, test_fraction, validation_fraction, balanced)


def leak_safe_split(
    names: Sequence[str],
    labels: Sequence[int] | np.ndarray,
    groups: Sequence[str],
    seed: int,
    labeled: int | float = 72,
    test_fraction: float = 0.3,
    validation_fraction: float = 0.15,
    balanced: bool = False,
) -> Split:
    """Splits like `paper_split`, with no group on two sides of test, validation and the rest.

    The parts get the same sizes where the groups allow it, else a few images fewer (see `Split.summary`).

    Args:
        names: Unique image names.
        labels: Class of each image.
        groups: Group of each image: patient, sequence or near-duplicates.
        seed: As in `paper_split`.
        labeled: As in `paper_split`.
        test_fraction: As in `paper_split`.
        validation_fraction: As in `paper_split`.
        balanced: As in `paper_split`.

    Raises:
        ValueError: As `paper_split`.
    """
    check_arguments(names, labels, groups, test_fraction, validation_fraction)
    classes = dict(zip(names, labels, strict=True))
    members = members_of(names, groups)
    test = take_groups(members.values(), classes, seed, "test", test_fraction)
    return split_rest(members.values(), classes, test, seed, labeled, validation_fraction, balanced)


def split_rest(
    groups: Iterable[list[str]],
    classes: Mapping[str, int],
    test: set[str],
    seed: int,
    labeled: int | float,
    validation_fraction: float,
    balanced: bool,
) -> Split:
    """The split of `groups` of names, each with its class, whose test part is `test`; other arguments as above."""
    train = [group for group in groups if group[0] not in test]
    validation = take_groups(train, classes, seed, "validation", validation_fraction)
    rest = [name for group in train for name in group if name not in validation]
    wanted = count_of(labeled, sum(len(group) for group in train), "labeled")
    chosen = _choose_labeled(rest, classes, seed, wanted, balanced)
    return Split(
        labeled=tuple(sorted(chosen)),
        unlabeled=tuple(sorted(set(rest) - chosen)),
        validation=tuple(sorted(validation)),
        test=tuple(sorted(test)),
    )


def random_split(
    names: Sequence[str],
    seed: int,
    labeled: int | float,
    test: int | float = 0.3,
    groups: Sequence[str] | None = None,
    validation_fraction: float = 0.15,
) -> Split:
    """Splits at random by seed, without regard to classes; with `groups`, each group is on one side.

    A smaller labelled part lies in a larger one. With groups, parts can be a few images smaller than asked for.

    Args:
        names: Unique image names.
        seed: Seed; another seed gives another split.
        labeled: Number of labelled images, or their share of the training images (all but the test part).
        test: Number of test images, or their share of all images.
        groups: Group of each image, such as the sequence of a frame, or None.
        validation_fraction: Part of the training images that is cut off for validation.

    Raises:
        ValueError: If a part gets no image or more are asked for than there are.
    """
    wanted = count_of(test, len(names), "test")
    if not 1 <= wanted < len(names):
        raise ValueError(f"test={test} of {len(names)} images leaves none to test or none to train on")
    groups = names if groups is None else groups
    fraction = wanted / len(names)
    split = leak_safe_split(names, [0] * len(names), groups, seed, labeled, fraction, validation_fraction)
    if not split.test:
        raise ValueError(f"test={test} is smaller than every group of these {len(names)} images; ask for more")
    return split


def count_of(value: int | float, whole: int, argument: str) -> int:
    """Number of images that `value` means: itself if it is whole, else its share of `whole` images.

    Raises:
        ValueError: If `value` is a number below 1 or a share that is not between 0 and 1.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer):
        raise ValueError(f"{argument}={value!r} is neither a number of images nor a share; give an integer or a float")
    if isinstance(value, float) and not 0 < value < 1:
        raise ValueError(f"{argument}={value} is no share between 0 and 1; give a number of images as an integer")
    count = int(value * whole + 0.5) if isinstance(value, float) else value
    if count < 1:
        raise ValueError(f"{argument}={value} of {whole} images is no image; ask for at least one")
    return count


def members_of(names: Sequence[str], groups: Sequence[str]) -> dict[str, list[str]]:
    """The names of each group, sorted."""
    members: dict[str, list[str]] = {}
    for name, group in sorted(zip(names, groups, strict=True)):
        members.setdefault(group, []).append(name)
    return members


def cut_validation(names: Sequence[str], seed: int, count: int) -> set[str]:
    """The first `count` of `names` in the order of a seed."""
    return set(sorted(names, key=lambda name: hashed(seed, "validation", name))[:count])


def take_labeled(names: Sequence[str], seed: int, labeled: int | float, train: int) -> set[str]:
    """Names of the labelled images among `names`: a number of them, or a share of `train` images."""
    return _choose_labeled(list(names), dict.fromkeys(names, 0), seed, count_of(labeled, train, "labeled"), False)


def take_groups(groups, classes: Mapping[str, int], seed: int, purpose: str, fraction: float) -> set[str]:
    """Names of the groups, in hashed order, that still fit into the rounded fraction of each class."""
    groups = sorted(groups, key=lambda group: hashed(seed, purpose, group[0]))
    counts = Counter(classes[name] for group in groups for name in group)
    room = {label: int(fraction * count + 0.5) for label, count in counts.items()}
    taken: set[str] = set()
    for group in groups:
        needed = Counter(classes[name] for name in group)
        if all(room[label] >= count for label, count in needed.items()):
            taken.update(group)
            for label, count in needed.items():
                room[label] -= count
    return taken


def _choose_labeled(names: list[str], classes: Mapping[str, int], seed: int, count: int, balanced: bool) -> set[str]:
    """The first `count` of one fixed order of `names`, so that smaller labelled parts lie in larger ones.

    The order starts with one image a class and then keeps the classes in proportion (or balanced).
    """
    by_class: dict[int, list[str]] = {}
    for name in sorted(names, key=lambda name: hashed(seed, "labeled", name)):
        by_class.setdefault(classes[name], []).append(name)
    if count > len(names):
        raise ValueError(f"labeled={count}, but only {len(names)} training images can be labelled; ask for fewer")
    known = len(set(classes.values()))
    if count < known:
        raise ValueError(f"labeled={count} is fewer than the {known} classes; label at least one image of each class")
    order = []
    for label, members in by_class.items():
        for rank, name in enumerate(members):
            share = rank if balanced else (rank + 0.5) / len(members)
            order.append((rank > 0, share, label, name))
    return {name for *_, name in sorted(order)[:count]}


def hashed(seed: int, purpose: str, name: str) -> str:
    """What puts names into the order of a seed, the same everywhere; another purpose gives another order."""
    return hashlib.sha256(f"{seed}/{purpose}/{name}".encode()).hexdigest()


def check_arguments(names, labels, groups, test_fraction: float, validation_fraction: float) -> None:
    """Raises ValueError unless each name is there once, with a label and a group, and fractions are fractions."""
    if not len(names) == len(labels) == len(groups):
        raise ValueError(f"names, labels and groups differ in length: {len(names)}, {len(labels)}, {len(groups)}")
    if len(set(names)) != len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise ValueError(f"names holds {twice!r} twice; names must be unique")
    for argument, value in (("test_fraction", test_fraction), ("validation_fraction", validation_fraction)):
        if not 0 <= value < 1:
            raise ValueError(f"`{argument}` must be at least 0 and below 1, found {value}")
