"""AugSeg's adaptive CutMix (Zhao et al., CVPR 2023): labelled boxes for the images that the teacher is unsure of."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_semimed.configuration import check_whole, is_number
from keras_semimed.layers.cutmix import clipped_boxes, mix_boxes
from keras_semimed.layers.random_state import StoredSeedGenerator, add_random_state


class AdaptiveBoxes(NamedTuple):
    """What `AdaptiveCutMix` drew for a batch of U unlabelled images.

    Attributes:
        partners: the image that each is mixed with, a permutation of 0..U-1; one for both rounds. Shape: `(U,)`, int32.
        injected: 1 where the image gets a labelled box, else 0. Shape: `(U,)`, float32.
        injection_boxes: 1 inside the box of the first round, drawn for every image. Shape: `(U, S, S)`, float32.
        mixing_boxes: 1 inside the box of the second round. Shape: `(U, S, S)`, float32.
    """

    partners: Any
    injected: Any
    injection_boxes: Any
    mixing_boxes: Any


def image_confidence(probabilities: Any, inside: Any = None) -> Any:
    """How sure a prediction is of an image: the mean of c (1 - H / ln K) over its pixels.

    c is the largest probability of a pixel and H = -sum_k p_k ln p_k; 0 for uniform and 1 for one-hot predictions.

    Args:
        probabilities: p, adding up to 1. Shape: `(N, H, W, K)`.
        inside: 1 where a pixel shows image, else 0; None for all. Shape: `(N, H, W)`.

    Returns:
        `(N,)` float32 in [0, 1], without gradient; 0 for an image with nothing inside.

    Raises:
        ValueError: for fewer than two classes.
    """
    num_classes = probabilities.shape[-1]
    if num_classes < 2:
        raise ValueError(f"`probabilities` must have at least 2 classes in their last dimension, found {num_classes}.")
    probabilities = ops.stop_gradient(ops.cast(probabilities, "float32"))
    logarithms = ops.log(ops.maximum(probabilities, 1e-30))  # 0 ln 0 = 0
    entropy = -ops.sum(probabilities * logarithms, axis=-1) / math.log(num_classes)
    confidence = ops.max(probabilities, axis=-1) * (1.0 - entropy)
    inside = ops.ones_like(confidence) if inside is None else ops.stop_gradient(ops.cast(inside, "float32"))
    mean = ops.sum(inside * confidence, axis=(1, 2)) / ops.maximum(ops.sum(inside, axis=(1, 2)), 1.0)
    return ops.clip(mean, 0.0, 1.0)


@keras.saving.register_keras_serializable(package="keras_semimed")
class AdaptiveCutMix(keras.Layer):
    """Mixes unlabelled images with one another, after labelled boxes went into those of low confidence.

    Two rounds, both from copies, so that nothing is mixed twice:

    - injection: an image is injected with probability 1 - confidence. Inside its injection box it then shows what
      the labelled image in the place of its partner shows there.
    - mixing: inside its mixing box every image shows what its partner shows there after the injection; outside it is as
      it came, without injection.

    `draw` draws, `mix` applies: to the images, then to pseudo-labels, confidence and whatever else belongs to them. The
    area of a box is a share 1 - ratio of the image, ratio ~ Beta(a, b); its centre is uniform from an eighth of the
    side on, row and column alike, and the box is cut at the edge. The state of the random stream is a weight,
    saved and restored with the layer.

    Args:
        injection_beta: a and b of the injection box, whole numbers from 1 on; (8, 2) covers a fifth on average.
        mixing_beta: a and b of the mixing box; (4, 4) covers half on average.
        per_image: whether each image has a ratio of its own, rather than the batch one for each kind of box.
        seed: non-negative integer.

    Raises:
        ValueError: where an argument is out of its range.
    """

    def __init__(
        self,
        injection_beta: tuple[int, int] = (8, 2),
        mixing_beta: tuple[int, int] = (4, 4),
        per_image: bool = False,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        check_whole("seed", seed, 0)
        self.injection_beta = _check_beta("injection_beta", injection_beta)
        self.mixing_beta = _check_beta("mixing_beta", mixing_beta)
        self.per_image = bool(per_image)
        self.seed = seed
        self.random_state = add_random_state(self, seed)
        self.built = True

    def draw(self, size: int, confidence: Any) -> AdaptiveBoxes:
        """Draws partners, boxes and who is injected.

        Args:
            size: height and width S of the images, in pixels.
            confidence: of each unlabelled image, see `image_confidence`. Shape: `(U,)`, in [0, 1].

        Returns:
            `AdaptiveBoxes`.
        """
        confidence = ops.stop_gradient(ops.cast(confidence, "float32"))
        count = ops.shape(confidence)[0]
        order, chance, *centres = ops.unstack(self._uniform(count, 6), 6, axis=1)
        return AdaptiveBoxes(
            partners=ops.cast(ops.argsort(order), "int32"),
            injected=ops.cast(chance > confidence, "float32"),
            injection_boxes=self._boxes(self.injection_beta, count, centres[:2], size),
            mixing_boxes=self._boxes(self.mixing_beta, count, centres[2:], size),
        )

    def mix(self, unlabeled: Any, labeled: Any, boxes: AdaptiveBoxes) -> Any:
        """Puts what belongs to the images together as the boxes say.

        Args:
            unlabeled: `(U, S, S)` or `(U, S, S, C)`, any dtype: strong views, pseudo-labels, their confidence, ...
            labeled: `(B, S, S)` or `(B, S, S, C)`: the same of the labelled images: weak views, labels, ones, ... Where
                there are fewer of them than unlabelled ones, partners count modulo B.
            boxes: what `draw` returned for this batch.

        Returns:
            The shape and dtype of `unlabeled`, without gradient.
        """
        unlabeled = ops.stop_gradient(ops.convert_to_tensor(unlabeled))
        labeled = ops.stop_gradient(ops.cast(labeled, keras.backend.standardize_dtype(unlabeled.dtype)))
        shown = ops.take(labeled, ops.mod(boxes.partners, ops.shape(labeled)[0]), axis=0)
        injected = mix_boxes(unlabeled, shown, boxes.injected[:, None, None] * boxes.injection_boxes)
        return mix_boxes(unlabeled, ops.take(injected, boxes.partners, axis=0), boxes.mixing_boxes)

    def _uniform(self, rows: Any, columns: int) -> Any:
        generator = StoredSeedGenerator(self.random_state)
        return keras.random.uniform((rows, columns), dtype="float32", seed=generator)

    def _boxes(self, beta: tuple[int, int], count: Any, centres: list[Any], size: int) -> Any:
        """`(U, S, S)` float32: boxes of a random area around centres drawn from uniform numbers `(U,)`."""
        # The a-th smallest of a + b - 1 uniform numbers is distributed as Beta(a, b).
        ratio = ops.sort(self._uniform(count if self.per_image else 1, sum(beta) - 1), axis=-1)[:, beta[0] - 1]
        first = math.ceil(size / 8)
        places = first + ops.floor(ops.stack(centres, axis=-1) * (size - first))
        places = ops.cast(ops.minimum(places, size - 1), "int32")  # a product may be rounded up to `size`
        return clipped_boxes(1.0 - (ratio if self.per_image else ratio[0]), places, size, size)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build this layer again."""
        return {
            **super().get_config(),
            "injection_beta": self.injection_beta,
            "mixing_beta": self.mixing_beta,
            "per_image": self.per_image,
            "seed": self.seed,
        }


def _check_beta(name: str, value: tuple[int, int]) -> tuple[int, int]:
    pair = isinstance(value, tuple | list) and len(value) == 2
    if not pair or any(not is_number(number) or number < 1 or int(number) != number for number in value):
        raise ValueError(f"`{name}` must be two whole numbers from 1 on, found {value!r}.")
    first, second = (int(number) for number in value)
    return first, second
