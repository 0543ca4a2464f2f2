"""The splits that can be asked for by name, and which data set has which."""

from __future__ import annotations

from keras_semimed.data.arrays import ImageSet
from keras_semimed.data.cards import card
from keras_semimed.data.splits.parts import Split, leak_safe_split, random_split
from keras_semimed.data.splits.published import official_split, pranet_split

TEST_SHARE = 0.3
_DRAWN = ("random", "sequence_safe")
_PUBLISHED = ("pranet", "official")
_OF_SEVERAL_SETS = ("pranet", "sequence_safe", "random")


def split_image_set(
    images: ImageSet,
    name: str | None,
    split: str,
    seed: int = 0,
    labeled: int | float = 72,
    test: int | float | None = None,
    intersect: bool = False,
) -> Split:
    """Splits a data set by the name of a split.

    - `"paper"`: at random within each image class, 7:3 (`paper_split`).
    - `"leak_safe"`: the same with no near-duplicates on two sides (`leak_safe_split`).
    - `"pranet"`: PraNet's lists with the labelled images of LoCo; `labeled` is 0.1, 0.3, 0.5 or such a list's number of
      images (`pranet_split`).
    - `"official"`: the authors' 880 and 120 images of Kvasir-SEG (`official_split`).
    - `"sequence_safe"`: drawn by seed, each sequence on one side (`random_split` with the groups of the images).
    - `"random"`: drawn by seed (`random_split`).

    Args:
        images: A whole data set as `load_image_set` reads it, or several as `concatenate` joins them.
        name: Name of the data set; None for several joined ones.
        split: One of the above that the data set has; `describe(name)` tells. Joined sets have `"pranet"`,
            `"sequence_safe"` and `"random"`.
        seed: Seed of what is drawn, the validation part of a published split too.
        labeled: Number of labelled images, or their share of the training images.
        test: Number of test images, or their share of all, for `"random"` and `"sequence_safe"`; None means 0.3.
        intersect: With a published list, keep the images that are both in it and in the data, and print how many;
            without it a difference is an error. Another set of images means another hash.

    Raises:
        ValueError: If the data set has no such split, or sizes and lists do not fit the data.
    """
    check_split(name, split, test, intersect)
    names = images.names
    if split in ("paper", "leak_safe"):
        assert images.labels is not None and images.groups is not None  # sets with these splits have both
        return leak_safe_split(
            names, images.labels.tolist(), names if split == "paper" else images.groups, seed, labeled
        )
    if split == "pranet":
        return pranet_split(names, labeled, seed, name, intersect)
    if split == "official":
        return official_split(names, labeled, seed, name, intersect)
    groups = images.groups if split == "sequence_safe" else None
    return random_split(names, seed, labeled, TEST_SHARE if test is None else test, groups)


def check_split(name: str | None, split: str, test: int | float | None = None, intersect: bool = False) -> None:
    """Raises ValueError, before any data are read, if a data set has no split of that name or takes no such options."""
    known = _OF_SEVERAL_SETS if name is None else card(name).splits
    if split not in known:
        options = ", ".join(repr(value) for value in known)
        raise ValueError(f"`split` must be {options} or a Split for {name or 'joined sets'}, found {split!r}")
    if test is not None and split not in _DRAWN:
        raise ValueError(f"test={test}, but split={split!r} fixes the test part; leave test out, or use 'random'")
    if intersect and split not in _PUBLISHED:
        raise ValueError(f"intersect=True is for the published lists {_PUBLISHED}, not for split={split!r}")
