"""Low-contrast-enhanced contrastive loss between pixels and class embeddings (LoCo Eq. 7-13)."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_semimed.configuration import check_choice
from keras_semimed.embeddings import l2_normalize
from keras_semimed.losses.low_resolution import Upsampling
from keras_semimed.losses.neighbourhood import NOT_COUNTED, boundary_pixels, boundary_scores
from keras_semimed.losses.reductions import NEVER, safe_divide, weighted_mean
from keras_semimed.losses.selection import lowest, share_of


class LowContrastMaps(NamedTuple):
    """What the loss sees of B labelled and, behind them, U unlabelled images, N = B + U; for figures too.

    Attributes:
        similarities: cosine of each pixel's embedding with each class embedding (Eq. 12), with gradient; 0 for a class
            without one. Shape: `(K, N, H, W)`, float32.
        present: 1.0 for a class that has an embedding, else 0.0. Shape: `(K,)`, float32.
        labels: (pseudo-)label of each pixel that counts, else -1. Shape: `(N, H, W)`, float32.
        inter_class: the pixels that ICE selects. Shape: `(N, H, W)`, bool.
        boundary_pixels: the pixels near another class. Shape: `(N, H, W)`, bool.
        boundary_scores: minimum cosine of a boundary pixel with its neighbours (Eq. 13), 0 elsewhere. Shape:
            `(N, H, W)`, float32.
        boundary: the boundary pixels that BCE selects. Shape: `(N, H, W)`, bool.
    """

    similarities: keras.KerasTensor
    present: keras.KerasTensor
    labels: keras.KerasTensor
    inter_class: keras.KerasTensor
    boundary_pixels: keras.KerasTensor
    boundary_scores: keras.KerasTensor
    boundary: keras.KerasTensor


@keras.saving.register_keras_serializable(package="keras_semimed")
class LowContrastLoss(keras.losses.Loss):
    """Pulls low-contrast pixels to their class embedding, away from those of the other classes (LoCo Eq. 7-13).

    Cai et al., "Low-Contrast-Enhanced Contrastive Learning for Semi-Supervised Endoscopic Image Segmentation".
    The embedding z of a pixel is the projected feature map, bilinearly upsampled to the image (Eq. 7, 8). A class
    embedding is the mean of z over the labelled pixels of the class, normalised afterwards (Eq. 9). With s_ic the
    cosine of z_i and class embedding c, H the selected pixels and H_c those of class c, the loss is

    `mean over c of mean over i in H_c of -log(exp(s_ic / t) / (exp(s_ic / t) + sum_j exp(s_jc / t)))`

    with j over the pixels of H outside of H_c (Eq. 11, which is printed without the logarithm), over the classes that
    have an embedding and a selected pixel. Without one, or with pixels of one class only, it is 0. H is the union of
    two selections, made for labelled and unlabelled images apart and without gradient:

    - ICE, inter-class: of every class, the share k of its n pixels that are least like their class embedding (Eq. 12);
    - BCE, boundary: of the pixels with another class among their `neighbours` nearest, all classes together, the share
      k whose least similar neighbour is most similar (Eq. 13). "Nearest" goes by squared distance, then dy, then dx;
      what lies outside the image is left out, and the label of an ignored or filtered pixel is no evidence.

    A selection takes `floor(k n)` pixels, and those that tie with the last of them to within 1e-9.

    Everything is exact, yet no embedding is upsampled: dot products are taken between features and only then enlarged,
    so the cost hardly depends on D at the image's size. All of it is float32.

    Args:
        k: share of the pixels that is selected, in (0, 1]; a fraction with a denominator of at most 10,000.
        neighbours: h, the pixels that make up a neighbourhood.
        temperature: t, divides the cosines.
        inter_class: whether H holds the ICE selection.
        boundary: whether H holds the BCE selection.
        num_classes: K.
        ignore: label of the pixels to leave out.
        inter_class_quota: `"class"`, floor(k n) pixels of each class with n pixels (the text), or `"equal"`, the same
            number of every class, floor(k n / K) with n the pixels of all classes, or all that it has (the authors'
            code).
        boundary_share: k of BCE; None: the same `k`.
        boundary_order: `"highest"` score first (the text), or `"lowest"` (the authors' code).
        boundary_classes: boundary pixels of `"all"` classes (the text), or of the `"foreground"`, classes above 0 (the
            authors' code).
        name: name of the loss.

    Raises:
        ValueError: an argument is out of its range; the message names it.
    """

    def __init__(
        self,
        k: float = 0.3,
        neighbours: int = 64,
        temperature: float = 0.1,
        inter_class: bool = True,
        boundary: bool = True,
        num_classes: int = 2,
        ignore: int = 255,
        inter_class_quota: str = "class",
        boundary_share: float | None = None,
        boundary_order: str = "highest",
        boundary_classes: str = "all",
        name: str = "low_contrast_loss",
    ) -> None:
        super().__init__(name=name)
        for argument, share in (("k", k), ("boundary_share", boundary_share)):
            if share is not None and not 0 < share <= 1:
                raise ValueError(f"`{argument}` must be a share above 0 and at most 1, found {share!r}.")
        if neighbours < 1:
            raise ValueError(f"`neighbours` must be at least 1, found {neighbours!r}.")
        if temperature <= 0:
            raise ValueError(f"`temperature` must be positive, found {temperature!r}.")
        if num_classes < 2:
            raise ValueError(f"`num_classes` must be at least 2, background included, found {num_classes!r}.")
        if 0 <= ignore < num_classes:
            raise ValueError(f"`ignore` must not be one of the classes 0 to {num_classes - 1}, found {ignore!r}.")
        for argument, choice, choices in (
            ("inter_class_quota", inter_class_quota, ("class", "equal")),
            ("boundary_order", boundary_order, ("highest", "lowest")),
            ("boundary_classes", boundary_classes, ("all", "foreground")),
        ):
            check_choice(argument, choice, choices)
        self.k = k
        self.neighbours = neighbours
        self.temperature = temperature
        self.inter_class = inter_class
        self.boundary = boundary
        self.num_classes = num_classes
        self.ignore = ignore
        self.inter_class_quota = inter_class_quota
        self.boundary_share = boundary_share
        self.boundary_order = boundary_order
        self.boundary_classes = boundary_classes

    def __call__(self, labeled: Any, masks: Any, unlabeled: Any, pseudo_masks: Any, kept: Any) -> Any:
        """Computes the loss of one batch.

        Args:
            labeled: projected features of the labelled images, any float dtype. Shape: `(B, h, w, D)`; all but B are
                static, here and below.
            masks: their classes, or `ignore`. Shape: `(B, H, W)`, integers.
            unlabeled: projected features of the unlabelled images' weak view. Shape: `(U, h, w, D)`.
            pseudo_masks: their pseudo-labels, or `ignore`. Shape: `(U, H, W)`, integers.
            kept: 1 where a pseudo-label counts, else 0. Shape: `(U, H, W)`.

        Returns:
            Scalar float32.

        Raises:
            ValueError: shapes that do not fit together or are not static; the message names the argument.
        """
        if not (self.inter_class or self.boundary):
            return ops.zeros((), "float32")
        maps = self.maps(labeled, masks, unlabeled, pseudo_masks, kept)
        return self.contrast(maps)

    def maps(self, labeled: Any, masks: Any, unlabeled: Any, pseudo_masks: Any, kept: Any) -> LowContrastMaps:
        """Computes similarities, boundary scores and both selections; a selection that is off is empty.

        With `boundary=True` these are the maps of the paper's Fig. 4 and 5; the mean of `similarities` over pixels of
        other classes is what Fig. 3 shows.

        Args and errors as those of the call itself.
        """
        arrays = {"labeled": labeled, "masks": masks, "unlabeled": unlabeled, "pseudo_masks": pseudo_masks}
        source, target = _sizes({**arrays, "kept": kept})
        upsampling = Upsampling(source, target)
        split = ops.shape(labeled)[0]
        features = ops.concatenate([ops.cast(labeled, "float32"), ops.cast(unlabeled, "float32")])
        labels = ops.concatenate([self._counted(masks), self._counted(pseudo_masks, kept)])
        inverse_norms = upsampling.inverse_norms(features)
        embeddings, present = self._class_embeddings(features[:split], labels[:split], upsampling)
        products = ops.transpose(ops.matmul(features, ops.transpose(embeddings)), (3, 0, 1, 2))  # (K, N, h, w)
        similarities = upsampling.enlarge(products) * inverse_norms
        inter_class = edges = boundary = ops.zeros_like(labels, dtype="bool")
        scores = ops.zeros_like(labels)
        if self.inter_class:
            inter_class = self._select_inter_class(similarities, labels, present, split)
        if self.boundary:
            edges = boundary_pixels(labels, self.neighbours)
            scores = boundary_scores(features, inverse_norms, edges, upsampling, self.neighbours)
            boundary = self._select_boundary(scores, edges, labels, split)
        return LowContrastMaps(similarities, present, labels, inter_class, edges, scores, boundary)

    def contrast(self, maps: LowContrastMaps) -> Any:
        """Computes Eq. 11 over the pixels that `maps` select: scalar float32."""
        classes = self.num_classes
        chosen = ops.reshape(ops.logical_or(maps.inter_class, maps.boundary), (1, -1))
        members = ops.logical_and(self._members(maps.labels), chosen)  # (K, pixels)
        others = ops.logical_and(chosen, ops.logical_not(members))
        logits = ops.reshape(maps.similarities, (classes, -1)) / self.temperature
        negative = ops.logsumexp(ops.where(others, logits, NEVER), axis=1, keepdims=True)
        # -log(e^p / (e^p + e^n)) = softplus(n - p), which is 0 where there are no negatives.
        members = ops.cast(members, "float32")
        count = ops.sum(members, axis=1)
        per_class = safe_divide(ops.sum(ops.softplus(negative - logits) * members, axis=1), count)
        return weighted_mean(per_class, maps.present * ops.cast(count > 0, "float32"))

    def _counted(self, masks: Any, kept: Any = None) -> Any:
        """Labels of the pixels that count, -1 elsewhere: `(N, H, W)`, float32, which devices compare fastest."""
        masks = ops.cast(masks, "int32")
        counts = ops.logical_and(masks >= 0, masks < self.num_classes)
        counts = ops.logical_and(counts, ops.not_equal(masks, self.ignore))
        if kept is not None:
            counts = ops.logical_and(counts, ops.cast(kept, "float32") > 0)
        return ops.where(counts, ops.cast(masks, "float32"), NOT_COUNTED)

    def _members(self, labels: Any) -> Any:
        """Whether a pixel is of each class: `(K, pixels)`, bool."""
        return ops.equal(ops.arange(self.num_classes, dtype="float32")[:, None], ops.reshape(labels, (1, -1)))

    def _class_embeddings(self, features: Any, labels: Any, upsampling: Upsampling) -> tuple[Any, Any]:
        """Eq. 9, normalised: `(K, D)` with gradient, zeros for an absent class; and which are present: `(K,)`."""
        height, width = upsampling.target
        one_hot = ops.reshape(ops.cast(self._members(labels), "float32"), (self.num_classes, -1, height, width))
        weights = ops.reshape(upsampling.gather(one_hot), (self.num_classes, -1))  # (K, B * h * w)
        count = ops.sum(one_hot, axis=(1, 2, 3))
        total = ops.matmul(weights, ops.reshape(features, (-1, features.shape[-1])))
        return l2_normalize(safe_divide(total, count[:, None])), ops.cast(count > 0, "float32")

    def _select_inter_class(self, similarities: Any, labels: Any, present: Any, split: Any) -> Any:
        """ICE: `(N, H, W)`, bool. A class without an embedding has no lowest similarity: none of its pixels."""

        def select(similarities: Any, labels: Any) -> Any:
            members = self._members(labels)
            sizes = ops.sum(ops.cast(members, "float32"), axis=1)
            if self.inter_class_quota == "class":
                counts = share_of(self.k, sizes)
            else:
                counts = share_of(Fraction(self.k).limit_denominator(10_000) / self.num_classes, ops.sum(sizes)[None])
            counts = ops.cast(counts, "float32") * present
            chosen = lowest(ops.reshape(similarities, (self.num_classes, -1)), members, counts)
            return ops.reshape(ops.any(chosen, axis=0), ops.shape(labels))

        sources = (similarities[:, :split], labels[:split]), (similarities[:, split:], labels[split:])
        return ops.concatenate([select(*source) for source in sources])

    def _select_boundary(self, scores: Any, edges: Any, labels: Any, split: Any) -> Any:
        """BCE among the boundary pixels `edges`: `(N, H, W)`, bool."""
        share = self.k if self.boundary_share is None else self.boundary_share
        allowed = edges if self.boundary_classes == "all" else ops.logical_and(edges, labels > 0)
        values = scores if self.boundary_order == "lowest" else -scores

        def select(values: Any, allowed: Any) -> Any:
            members = ops.reshape(allowed, (1, -1))
            counts = share_of(share, ops.sum(ops.cast(members, "float32"), axis=1))
            return ops.reshape(lowest(ops.reshape(values, (1, -1)), members, counts), ops.shape(allowed))

        return ops.concatenate([select(values[:split], allowed[:split]), select(values[split:], allowed[split:])])

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "k": self.k,
            "neighbours": self.neighbours,
            "temperature": self.temperature,
            "inter_class": self.inter_class,
            "boundary": self.boundary,
            "num_classes": self.num_classes,
            "ignore": self.ignore,
            "inter_class_quota": self.inter_class_quota,
            "boundary_share": self.boundary_share,
            "boundary_order": self.boundary_order,
            "boundary_classes": self.boundary_classes,
            "name": self.name,
        }


def _sizes(arrays: dict[str, Any]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns `(h, w)` and `(H, W)` after checking that the arguments' shapes fit together."""
    shapes = {name: tuple(array.shape) for name, array in arrays.items()}
    for name, like in (("labeled", "labeled"), ("unlabeled", "labeled")):
        if len(shapes[name]) != 4 or None in shapes[name][1:] or shapes[name][1:] != shapes[like][1:]:
            raise ValueError(
                f"`{name}` must have shape (N, h, w, D) with static h, w and D, the same for labelled and unlabelled "
                f"images, found {shapes[name]}, and {shapes['labeled']} of the labelled ones."
            )
    for name in ("masks", "pseudo_masks", "kept"):
        if len(shapes[name]) != 3 or None in shapes[name][1:] or shapes[name][1:] != shapes["masks"][1:]:
            raise ValueError(
                f"`{name}` must have shape (N, H, W) with static H and W, the same for labelled and unlabelled images, "
                f"found {shapes[name]}, and {shapes['masks']} of the masks."
            )
    return shapes["labeled"][1:3], shapes["masks"][1:]
