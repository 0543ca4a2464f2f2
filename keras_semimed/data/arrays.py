"""Image sets in memory and the batches that `fit` and `evaluate` take; works without TensorFlow."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import keras
import numpy as np

from keras_semimed.data import array_checks as checks
from keras_semimed.data.argument_checks import (
    MOST_BATCHES,
    check_batch,
    check_class_names,
    check_count,
    check_num_classes,
)
from keras_semimed.data.cache import DiskRows
from keras_semimed.data.images.packed_masks import PackedMask
from keras_semimed.data.images.rules import ReadingRules
from keras_semimed.text import CONTROL, one_line, shortened


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one size with the targets they have.

    Args:
        names: One unique name an image, e.g. the file stem.
        images: `(N, H, W, C)` uint8 in 0..255, C = 1 (grey) or 3; an array, or rows on disk.
        masks: `(N, H, W)` uint8 class indices, 255 = ignore; or None.
        labels: `(N,)` int32 image classes; or None.
        groups: One group name an image (patient, sequence, near-duplicates) or None.
        class_names: Names of the image classes; label `i` is `class_names[i]`.
        num_classes: Number of mask classes, background included.
        areas: `(N, 4)` int32, the part of each image that is no padding: top, left, bottom, right in pixels; or
            None where all of it is the image. A mask is 255 outside.
        present: `(N, K)` bool, the mask classes that each image holds at its own size, before it was resized, so that
            a lesion that vanished is still one; or None where that is not known.
        rules: How the images were read from files; None where they were not.
        own_masks: The masks at the size of the files; None where they are not known.
        spacing: `(N, 2)` floats, height and width of a pixel of each file in mm, before it was resized; NaN where it is
            not known, None where it is known of no image.

    Raises:
        ValueError: If lengths, shapes, dtypes or values do not fit; the message names the image.
    """

    names: Sequence[str]
    images: np.ndarray | DiskRows
    masks: np.ndarray | None = None
    labels: np.ndarray | None = None
    groups: Sequence[str] | None = None
    class_names: Sequence[str] = field(default=())
    num_classes: int = 2
    areas: np.ndarray | None = None
    present: np.ndarray | None = None
    rules: ReadingRules | None = None
    own_masks: Sequence[PackedMask] | None = None
    spacing: np.ndarray | None = None

    def __post_init__(self):
        check_num_classes(self.num_classes)
        checks.check_names(self.names)
        _check_texts("names", self.names)
        _check_texts("groups", self.groups or ())
        check_class_names("class_names", self.class_names)
        checks.check_images(self.images, self.names)
        if self.masks is not None:
            checks.check_masks(self.masks, self.images, self.names, self.num_classes)
        if self.labels is not None:
            checks.check_labels(self.labels, self.names, self.class_names)
        if self.groups is not None and len(self.groups) != len(self.names):
            raise ValueError(f"groups has {len(self.groups)} entries for {len(self.names)} images; give one each")
        if self.areas is not None:
            checks.check_areas(self.areas, self.images, self.names)
        if self.own_masks is not None and len(self.own_masks) != len(self.names):
            raise ValueError(f"own_masks has {len(self.own_masks)} entries for {len(self.names)} images; give one each")
        if self.spacing is not None:
            checks.check_spacing(self.spacing, self.names)
        if self.present is not None and self.present.shape != (len(self.names), self.num_classes):
            expected = (len(self.names), self.num_classes)
            raise ValueError(f"`present` must be {expected}, images and mask classes, found shape {self.present.shape}")

    def __len__(self) -> int:
        return len(self.names)

    def select(self, names: Iterable[str]) -> ImageSet:
        """Returns the images called `names`, in that order.

        Raises:
            ValueError: If a name is not in the set.
        """
        position = {name: index for index, name in enumerate(self.names)}
        names = list(names)
        missing = [name for name in names if name not in position]
        if missing:
            raise ValueError(f"{len(missing)} of {len(names)} names are not in this image set, e.g. {missing[0]!r}")
        index = np.array([position[name] for name in names], "int64")
        return ImageSet(
            names=names,
            images=_select(self.images, index),
            masks=None if self.masks is None else self.masks[index],
            labels=None if self.labels is None else self.labels[index],
            groups=None if self.groups is None else [self.groups[i] for i in index],
            class_names=self.class_names,
            num_classes=self.num_classes,
            areas=None if self.areas is None else self.areas[index],
            present=None if self.present is None else self.present[index],
            rules=self.rules,
            own_masks=None if self.own_masks is None else [self.own_masks[i] for i in index],
            spacing=None if self.spacing is None else self.spacing[index],
        )

    @functools.cached_property
    def digest(self) -> str:
        """Hexadecimal SHA-256 of names, images, masks and labels, so that two sets can be told apart."""
        found = hashlib.sha256(self.images_digest.encode())
        for targets in (self.masks, self.labels):
            found.update(b"none" if targets is None else np.ascontiguousarray(targets).data)
        return found.hexdigest()

    @functools.cached_property
    def images_digest(self) -> str:
        """The same of names and images alone, whatever is known of them."""
        found = hashlib.sha256()
        for name, image in zip(self.names, self.images, strict=True):
            found.update(f"{name}\0{image.shape}\0".encode())
            found.update(np.ascontiguousarray(image).data)
        return found.hexdigest()

    def vanished(self) -> list[str]:
        """Returns the names of images with a class that resizing left no pixel of."""
        if self.masks is None or self.present is None:
            return []
        left = np.stack([(self.masks == index).any((1, 2)) for index in range(self.num_classes)], axis=1)
        return [name for name, lost in zip(self.names, (self.present & ~left)[:, 1:].any(1), strict=True) if lost]


class SemiSupervisedBatches(keras.utils.PyDataset):
    """Full batches of labelled and unlabelled images for `fit`.

    Yields `({"labeled": (B, H, W, C), "unlabeled": (U, H, W, C)}, {"mask": (B, H, W), "label": (B,)})`, all uint8
    but the int32 labels, with only the targets that the labelled set has. Where the images of a half have `areas`, the
    inputs also hold `"labeled_area"` `(B, 4)` or `"unlabeled_area"` `(U, 4)`, int32.

    Labelled and unlabelled images are two endless streams, each a new permutation a pass, so the smaller set repeats
    against the larger one. A batch is a pure function of `seed` and the global step
    `epoch * steps_per_epoch + index`: training that resumes with `dataset.epoch = k` goes on exactly where it
    stopped. `epoch` moves on when `fit` finishes an epoch, so a second `fit` goes on where the first one ended; the
    models of this package move it to the `initial_epoch` that their `fit` is given. The order is already shuffled: call
    `fit(dataset, shuffle=False)`, because Keras otherwise mixes the batches of an epoch by a generator of its own,
    and leave `steps_per_epoch` of `fit` alone.

    Args:
        labeled: Images with masks, labels or both.
        unlabeled: Images whose targets, if any, are not used unless `unlabeled_targets` says so.
        batch_size: Labelled images a batch, B.
        unlabeled_batch_size: Unlabelled images a batch, U. None means B.
        steps_per_epoch: Batches an epoch. None means one pass over the unlabelled images, rounded up.
        seed: Seed of the order.
        shard: `(index, count)` of this process among several that train together: of every batch it reads the
            images index, index + count, ... The batch sizes are those of all processes together.
        unlabeled_targets: Whether the targets also hold what is known of the unlabelled images, `"unlabeled_mask"`
            `(U, H, W)`, 255 where unknown, and `"unlabeled_label"` `(U,)`: for an oracle,
            `pseudo_labels="truth"`, never for a method that is to be compared.

    Raises:
        ValueError: If a set is empty, the labelled one has no targets, image sizes differ, a size is not positive, or
            the batches cannot be dealt out to the processes; if the unlabelled images' targets are asked for and there
            are none.
    """

    def __init__(
        self,
        labeled: ImageSet,
        unlabeled: ImageSet,
        batch_size: int = 8,
        unlabeled_batch_size: int | None = None,
        steps_per_epoch: int | None = None,
        seed: int = 0,
        shard: tuple[int, int] = (0, 1),
        unlabeled_targets: bool = False,
    ):
        super().__init__()
        unlabeled_batch_size = batch_size if unlabeled_batch_size is None else unlabeled_batch_size
        _check_positive(batch_size=batch_size, unlabeled_batch_size=unlabeled_batch_size)
        _check_shard(shard, batch_size=batch_size, unlabeled_batch_size=unlabeled_batch_size)
        check_count("seed", seed, 0)
        for argument, images in (("labeled", labeled), ("unlabeled", unlabeled)):
            if len(images) == 0:
                raise ValueError(f"{argument} has no images; give at least one")
        if labeled.masks is None and labeled.labels is None:
            raise ValueError("labeled has neither masks nor labels; give at least one of them")
        if labeled.images.shape[1:] != unlabeled.images.shape[1:]:
            raise ValueError(
                f"labeled images are {labeled.images.shape[1:]} and unlabeled ones {unlabeled.images.shape[1:]} "
                "(height, width, channels); bring them to one size"
            )
        if labeled.rules is not None:
            labeled.rules.check_images(unlabeled, "the unlabelled images")
        if unlabeled_targets and unlabeled.masks is None and unlabeled.labels is None:
            raise ValueError(
                "unlabeled_targets=True: the unlabelled images have neither masks nor labels; give a set whose truth "
                "is known, or leave it out"
            )
        if steps_per_epoch is None:
            steps_per_epoch = -(-len(unlabeled) // unlabeled_batch_size)
        check_count("steps_per_epoch", steps_per_epoch, most=MOST_BATCHES)
        check_batch("batch_size", batch_size, labeled.images.shape[1:])
        check_batch("unlabeled_batch_size", unlabeled_batch_size, unlabeled.images.shape[1:])
        self.labeled = labeled
        self.unlabeled = unlabeled
        self.batch_size = batch_size
        self.unlabeled_batch_size = unlabeled_batch_size
        self.steps_per_epoch = steps_per_epoch
        self.seed = seed
        self.shard = shard
        self.unlabeled_targets = unlabeled_targets
        self._epoch = 0
        self._begun = self._complete = False

    @property
    def epoch(self) -> int:
        """Index of the epoch that the next batches belong to; set it to resume."""
        return self._epoch

    @epoch.setter
    def epoch(self, value: int) -> None:
        self._epoch = int(value)
        self._begun = self._complete = False

    def on_epoch_begin(self) -> None:
        """Notes that an epoch runs (called by Keras)."""
        self._begun, self._complete = True, False

    def on_epoch_end(self) -> None:
        """Moves on to the next epoch (called by Keras).

        Keras also calls this before the first epoch of a `fit`, on some backends after a look at the first batch to
        build the model: an epoch counts only if its last batch was taken. (In an epoch of one or two batches that
        look can take the last one; a callback that sets `epoch` in its own `on_epoch_begin` is exact there too.)
        """
        if self._complete:
            self.epoch += 1

    def __len__(self) -> int:
        return self.steps_per_epoch

    def indices(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns which labelled `(B,)` and unlabelled `(U,)` images the batch of a global step holds.

        Of several processes each holds its share of both.
        """
        labeled = _stream(self.seed, "labeled", len(self.labeled), step, self.batch_size)
        unlabeled = _stream(self.seed, "unlabeled", len(self.unlabeled), step, self.unlabeled_batch_size)
        index, count = self.shard
        return labeled[index::count], unlabeled[index::count]

    def at(self, step: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Returns the batch of a global step, whatever the epoch."""
        labeled, unlabeled = self.indices(step)
        inputs = {"labeled": self.labeled.images[labeled], "unlabeled": self.unlabeled.images[unlabeled]}
        if self.labeled.areas is not None:
            inputs["labeled_area"] = self.labeled.areas[labeled]
        if self.unlabeled.areas is not None:
            inputs["unlabeled_area"] = self.unlabeled.areas[unlabeled]
        targets = _targets(self.labeled, labeled)
        if self.unlabeled_targets:
            targets |= {f"unlabeled_{name}": value for name, value in _targets(self.unlabeled, unlabeled).items()}
        return inputs, targets

    def __getitem__(self, index: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        self._complete |= self._begun and index == len(self) - 1
        return self.at(self.epoch * self.steps_per_epoch + index)


class EvaluationBatches(keras.utils.PyDataset):
    """Every image of a set once, in order, for `evaluate`, `predict` and `validation_data`.

    Yields `(images (B, H, W, C), {"mask": (B, H, W), "label": (B,)})` with the targets the set has; the last batch
    may be smaller.

    Args:
        image_set: The images, with or without targets.
        batch_size: Images a batch.

    Raises:
        ValueError: If the set is empty or `batch_size` is not positive.
    """

    def __init__(self, image_set: ImageSet, batch_size: int = 16):
        super().__init__()
        _check_positive(batch_size=batch_size)
        if len(image_set) == 0:
            raise ValueError("image_set has no images; give at least one")
        self.image_set = image_set
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.image_set) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        rows = slice(index * self.batch_size, (index + 1) * self.batch_size)
        return self.image_set.images[rows], _targets(self.image_set, rows)


def from_arrays(
    images: np.ndarray,
    masks: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    unlabeled: np.ndarray | None = None,
    batch_size: int = 8,
    unlabeled_batch_size: int | None = None,
    steps_per_epoch: int | None = None,
    num_classes: int = 2,
    seed: int = 0,
) -> SemiSupervisedBatches:
    """Turns plain arrays into batches for `fit`.

    Args:
        images: `(N, H, W, C)` or grey `(N, H, W)`, values in 0..255 of any real dtype.
        masks: `(N, H, W)` or `(N, H, W, 1)` class indices, 255 = ignore; or None. With two classes, 0 and 255 alone in
            all of them are background and lesion.
        labels: `(N,)` image classes; or None.
        unlabeled: `(M, H, W, C)` or `(M, H, W)`. None takes the labelled images, without their targets.
        batch_size: Labelled images a batch.
        unlabeled_batch_size: Unlabelled images a batch. None means `batch_size`.
        steps_per_epoch: Batches an epoch. None means one pass over the unlabelled images.
        num_classes: Number of mask classes, background included.
        seed: Seed of the order.

    Raises:
        ValueError: If an array has a wrong shape, NaN, values outside 0..255 or mask values that are not classes, or if
            no mask shows a lesion.
    """
    check_num_classes(num_classes)
    images = checks.to_uint8(images, "images")
    labeled = ImageSet(
        names=[f"images[{i}]" for i in range(len(images))],
        images=images,
        masks=None if masks is None else checks.to_masks(masks, num_classes),
        labels=None if labels is None else checks.to_labels(labels),
        num_classes=num_classes,
    )
    if unlabeled is None:
        rest = ImageSet(labeled.names, labeled.images)
    else:
        unlabeled = checks.to_uint8(unlabeled, "unlabeled")
        rest = ImageSet([f"unlabeled[{i}]" for i in range(len(unlabeled))], unlabeled)
    return SemiSupervisedBatches(labeled, rest, batch_size, unlabeled_batch_size, steps_per_epoch, seed)


def mention_vanished(images: ImageSet, part: str = "") -> None:
    """Prints how many images have a class that resizing left no pixel of, and which."""
    if lost := images.vanished():
        size, shown = images.images.shape[1], ", ".join(map(one_line, lost[:3])) + (", …" if len(lost) > 3 else "")
        where = f"{part}: " if part else ""
        print(f"{where}at {size} pixels {len(lost)} of {len(images)} images lose a class that they have ({shown})")


def _select(images: np.ndarray | DiskRows, index: np.ndarray) -> np.ndarray | DiskRows:
    return images.select(index) if isinstance(images, DiskRows) else images[index]


def _targets(images: ImageSet, rows: np.ndarray | slice) -> dict[str, np.ndarray]:
    targets = {}
    if images.masks is not None:
        targets["mask"] = images.masks[rows]
    if images.labels is not None:
        targets["label"] = images.labels[rows]
    return targets


def _stream(seed: int, name: str, count: int, step: int, batch_size: int) -> np.ndarray:
    """Positions `step * batch_size …` of an endless stream of permutations of `range(count)`."""
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    passes, offsets = np.divmod(positions, count)
    return np.array([_permutation(seed, name, count, int(p))[o] for p, o in zip(passes, offsets, strict=True)])


@functools.lru_cache(maxsize=16)
def _permutation(seed: int, name: str, count: int, pass_index: int) -> np.ndarray:
    return np.random.default_rng([seed, *name.encode(), pass_index]).permutation(count)


def _check_texts(argument: str, texts: Iterable[str]) -> None:
    """Raises ValueError for names that would do something to the screen they are shown on."""
    for text in texts:
        if CONTROL.search(str(text)):
            raise ValueError(f"`{argument}`: {shortened(text)} holds control characters; give another one")


def _check_positive(**arguments: int) -> None:
    for argument, value in arguments.items():
        check_count(argument, value)


def _check_shard(shard: tuple[int, int], **sizes: int) -> None:
    index, count = shard
    if not 0 <= index < count:
        raise ValueError(f"`shard` must be (index, count) with 0 <= index < count, found {shard}")
    for argument, size in sizes.items():
        if size % count:
            raise ValueError(f"{argument}={size} cannot be dealt out evenly to {count} processes; give a multiple")
