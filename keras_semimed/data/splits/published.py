"""The polyp splits that papers share: PraNet's with the labelled lists of LoCo, and the official one of Kvasir-SEG.

The lists are in `published/polyp_splits.csv`; `published/NOTICE.md` says whose they are.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import importlib.resources
from collections.abc import Iterable, Mapping, Sequence

from keras_semimed.data.splits.parts import Split, cut_validation, take_labeled

SHA256 = "2e3d1002b5df9906c23f93b2bf7c8422549b7909a2618053afd9b9d4a0d5fe34"
SHARES = (0.1, 0.3, 0.5)

_SHOWN = 3  # names that an error gives as examples


def pranet_split(
    names: Sequence[str],
    labeled: int | float = 0.1,
    seed: int = 0,
    data_set: str | None = None,
    intersect: bool = False,
    validation_fraction: float = 0.15,
) -> Split:
    """Splits as PraNet does, 1,450 to train and 162 to test, with the labelled images of the LoCo experiments.

    On Kvasir-SEG alone that is 900 and 100, on CVC-ClinicDB 550 and 62. Frames of one CVC-ClinicDB sequence lie on
    both sides: 26 of the 29 sequences have frames in the test part. Validation images are cut from those that are
    unlabelled at 50 %, so that they are the same at each share.

    Args:
        names: Names of the images: ids and frame numbers of `data_set`, or with None names of several data sets as
            `concatenate` makes them, such as `"kvasir_seg/cju0qkwl35piu0993l0dewei2"` and `"cvc_clinicdb/12"`.
        labeled: 0.1, 0.3 or 0.5 of the training images, or the number of images of one of these lists.
        seed: Seed of the validation part; the lists fix the rest.
        data_set: `"kvasir_seg"` or `"cvc_clinicdb"`.
        intersect: Keep the images that are both in the lists and in `names`, and print how many, instead of raising.
        validation_fraction: Part of the training images that is cut off for validation.

    Raises:
        ValueError: If images of the lists are missing or others are there, or `labeled` is none of the lists.
    """
    part = _parts("pranet", names, data_set)
    share = _share(labeled, part)
    kept = _match("pranet", names, part, intersect)
    train = [name for name in kept if part[name] != "test"]
    chosen = {name for name in train if part[name].isdigit() and int(part[name]) <= round(100 * share)}
    never_labeled = [name for name in train if part[name] == "train"]
    validation = cut_validation(never_labeled, seed, round(validation_fraction * len(train)))
    return _split("pranet", kept, chosen, validation, {name for name in kept if part[name] == "test"})


def official_split(
    names: Sequence[str],
    labeled: int | float,
    seed: int = 0,
    data_set: str | None = "kvasir_seg",
    intersect: bool = False,
    validation_fraction: float = 0.15,
) -> Split:
    """Splits Kvasir-SEG as its authors do, 880 to train and 120 to test; which images are labelled is drawn by seed.

    Args:
        names: Ids of Kvasir-SEG; with `data_set` None as in `pranet_split`.
        labeled: Number of labelled images, or their share of the training images.
        seed: Seed of the validation part and of the labelled images; a smaller labelled part lies in a larger one.
        data_set: As in `pranet_split`.
        intersect: As in `pranet_split`.
        validation_fraction: As in `pranet_split`.

    Raises:
        ValueError: As `pranet_split`, and if more labelled images are asked for than there are.
    """
    part = _parts("official", names, data_set)
    kept = _match("official", names, part, intersect)
    train = [name for name in kept if part[name] == "train"]
    validation = cut_validation(train, seed, round(validation_fraction * len(train)))
    chosen = take_labeled([name for name in train if name not in validation], seed, labeled, len(train))
    return _split("official", kept, chosen, validation, {name for name in kept if part[name] == "test"})


@functools.cache
def published_parts(split: str) -> Mapping[str, Mapping[str, str]]:
    """Returns, for each data set of the published split `"pranet"` or `"official"`, the part of each image.

    Parts of `"pranet"` are `"10"`, `"30"`, `"50"` (labelled from that share on), `"train"` and `"test"`; of
    `"official"` they are `"train"` and `"test"`.

    Raises:
        ValueError: If the file of the lists was changed.
    """
    file = importlib.resources.files("keras_semimed.data") / "published" / "polyp_splits.csv"
    content = file.read_bytes().replace(b"\r\n", b"\n")
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise ValueError(f"{file} was changed: its SHA-256 is not {SHA256}; install the package again")
    parts: dict[str, dict[str, str]] = {}
    for row in csv.DictReader(content.decode().splitlines()):
        if row[split]:
            parts.setdefault(row["data_set"], {})[row["image"]] = row[split]
    return parts


def _parts(split: str, names: Iterable[str], data_set: str | None) -> dict[str, str]:
    """Part of each image of the lists, under the name that it has among `names`."""
    lists = published_parts(split)
    if data_set is not None:
        if data_set not in lists:
            raise ValueError(f"the {split} split has no images of {data_set!r}; it is one of {', '.join(lists)}")
        return dict(lists[data_set])
    found = {name.partition("/")[0] for name in names if "/" in name}
    used = [key for key in lists if key in found]
    if not used:
        raise ValueError(f"no name begins with {' or '.join(f'{key}/' for key in lists)}; give data_set")
    return {f"{key}/{image}": part for key in used for image, part in lists[key].items()}


def _share(labeled: int | float, part: Mapping[str, str]) -> float:
    """The share of `SHARES` that `labeled` means, by itself or as a number of images."""
    train = [value for value in part.values() if value != "test"]
    counts = {sum(value.isdigit() and int(value) <= round(100 * share) for value in train): share for share in SHARES}
    if labeled in SHARES:
        return float(labeled)
    if labeled in counts:
        return counts[int(labeled)]
    raise ValueError(
        f"labeled={labeled}, but the pranet split has labelled lists for {SHARES} of its training images only, which "
        f"are {tuple(counts)} images; give one of these, or use split='random'"
    )


def _match(split: str, names: Sequence[str], part: Mapping[str, str], intersect: bool) -> list[str]:
    """The images that are both in the data and in the lists; an error, or a line with `intersect`, if not all are."""
    present = set(names)
    if len(present) != len(names):
        raise ValueError("names holds a name twice; names must be unique")
    missing = sorted(name for name in part if name not in present)
    unknown = sorted(present - part.keys())
    kept = sorted(present & part.keys())
    if not missing and not unknown:
        return kept
    if not intersect:
        problems = []
        if missing:
            of = sum(part[name] == "test" for name in missing)
            problems.append(
                f"{len(missing)} of its {len(part)} images are not in the data ({len(missing) - of} of the training, "
                f"{of} of the test part), e.g. {_examples(missing)}"
            )
        if unknown:
            problems.append(f"{len(unknown)} images of the data are not in it, e.g. {_examples(unknown)}")
        raise ValueError(
            f"the {split} split does not fit these data: {'; '.join(problems)}; get the whole data set, or keep the "
            "images that are in both with intersect=True"
        )
    of = sum(value == "test" for value in part.values())
    test = sum(part[name] == "test" for name in kept)
    print(
        f"{split} split: kept {len(kept) - test} of {len(part) - of} training and {test} of {of} test images; "
        f"{len(unknown)} other images of the data are left out"
    )
    return kept


def _examples(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:_SHOWN])


def _split(split: str, kept: Iterable[str], labeled: set[str], validation: set[str], test: set[str]) -> Split:
    for argument, part in (("labelled", labeled), ("test", test)):
        if not part:
            raise ValueError(f"the {split} split leaves no {argument} image of these data; get the whole data set")
    unlabeled = set(kept) - labeled - validation - test
    return Split(*(tuple(sorted(part)) for part in (labeled, unlabeled, validation, test)))
