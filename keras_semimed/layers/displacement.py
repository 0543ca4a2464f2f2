"""Bidirectional displacement of patches between two views of an image, by confidence (ABD, CVPR 2024)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_semimed.configuration import check_choice, check_whole, is_number
from keras_semimed.layers.random_state import StoredSeedGenerator, add_random_state
from keras_semimed.losses.reductions import shapes_agree


class Moves(NamedTuple):
    """Which patches change places between two views; patch number: row * grid + column.

    Attributes:
        weak_target: the patch of the weak view that is replaced first. Shape: `(N,)`, int32.
        strong_source: the patch of the strong view that it becomes. Shape: `(N,)`, int32.
        strong_target: the patch of the strong view that is replaced then. Shape: `(N,)`, int32.
        weak_source: the patch of the changed weak view that it becomes. Shape: `(N,)`, int32.
        drawn: 1 where an image is displaced, 0 where it stays as it is. Shape: `(N,)`, float32.
    """

    weak_target: Any
    strong_source: Any
    strong_target: Any
    weak_source: Any
    drawn: Any


@keras.saving.register_keras_serializable(package="keras_semimed")
class BidirectionalDisplacement(keras.Layer):
    """Moves a patch of the strong view into the weak one, then one back (Chi et al., ABD, CVPR 2024).

    A view is cut into grid x grid patches, each with a confidence, the mean over its pixels of the largest probability,
    and a distribution, the softmax of the mean of its logits. A source is pasted at the place of its target; its own
    place keeps what it shows.

    - `"reliable"`, for unlabelled images: the least confident patch of a view is replaced by that of the other view
      whose distribution q is most like its own p, by the lowest KL(p || q), among the most confident `candidates`.
    - `"inverse"`, for labelled images: the most confident patch of a view is replaced by the least confident one of the
      other, in a share of the images.

    All four patches are chosen before anything moves; the second move reads the weak view that the first one changed.
    Equally confident patches count from the first one on. `moves` chooses, `displace` applies: to the images, then to
    masks and whatever else belongs to a pixel. The state of the random stream is a weight, saved and restored with the
    layer.

    Args:
        kind: `"reliable"` or `"inverse"`.
        grid: patches a side.
        candidates: most confident patches of a view among which `"reliable"` looks, at most all; `"inverse"` does not.
        probability: share of the images that `"inverse"` displaces; `"reliable"` displaces all.
        seed: non-negative integer.

    Raises:
        ValueError: where an argument is out of its range.
    """

    def __init__(
        self,
        kind: str = "reliable",
        grid: int = 4,
        candidates: int = 4,
        probability: float = 0.5,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        check_choice("kind", kind, ("reliable", "inverse"))
        check_whole("grid", grid, 1)
        check_whole("candidates", candidates, 1)
        check_whole("seed", seed, 0)
        if kind == "reliable" and candidates > grid**2:
            raise ValueError(
                f"`candidates` must be at most `grid` squared, {grid**2}, found {candidates!r} with a `grid` of {grid}."
            )
        if not is_number(probability) or not 0 <= probability <= 1:
            raise ValueError(f"`probability` must be within [0, 1], found {probability!r}.")
        self.kind = kind
        self.grid = grid
        self.candidates = candidates
        self.probability = probability
        self.seed = seed
        self.random_state = add_random_state(self, seed)
        self.built = True

    def draw(self, batch_size: Any) -> Any:
        """Draws which images are displaced; `"reliable"` takes all, and draws nothing.

        Args:
            batch_size: number of images N.

        Returns:
            `(N,)` float32, 0 or 1.
        """
        if self.kind == "reliable":
            return ops.ones((batch_size,), dtype="float32")
        numbers = keras.random.uniform((batch_size,), dtype="float32", seed=StoredSeedGenerator(self.random_state))
        return ops.cast(numbers < self.probability, "float32")

    def moves(self, logits_weak: Any, logits_strong: Any, drawn: Any = None) -> Moves:
        """Chooses the patches, of every image whether it is drawn or not.

        Args:
            logits_weak: scores of the weak view before the softmax, any float dtype. Shape: `(N, S, S, K)`.
            logits_strong: those of the strong view of the same geometry. Shape: `(N, S, S, K)`.
            drawn: 1 for the images that are displaced, else 0; None: `draw`. Shape: `(N,)`.

        Returns:
            `Moves`, without gradient.

        Raises:
            ValueError: another rank, two shapes, or a side that the grid does not divide.
        """
        self._check("logits_", logits_weak, logits_strong, ranks=(4,))
        weak, strong = self._confidence(logits_weak), self._confidence(logits_strong)
        lowest = [_index(ops.argmin(confidence, axis=-1)) for confidence in (weak, strong)]
        if self.kind == "reliable":
            kinds = self._distribution(logits_weak), self._distribution(logits_strong)
            sources = [
                self._alike(_of_patch(kinds[view], lowest[view]), kinds[1 - view], (weak, strong)[1 - view])
                for view in (0, 1)
            ]
            targets = lowest
        else:
            targets = [_index(ops.argmax(confidence, axis=-1)) for confidence in (weak, strong)]
            sources = lowest[::-1]
        drawn = self.draw(ops.shape(weak)[0]) if drawn is None else ops.stop_gradient(ops.cast(drawn, "float32"))
        return Moves(targets[0], sources[0], targets[1], sources[1], drawn)

    def displace(self, weak: Any, strong: Any, moves: Moves) -> tuple[Any, Any]:
        """Moves what belongs to the pixels of both views.

        Args:
            weak: `(N, S, S)` or `(N, S, S, C)`, any dtype.
            strong: the same shape and dtype, of the strong view.
            moves: what `moves` returned.

        Returns:
            Weak and strong, of the same shape and dtype, without gradient.

        Raises:
            ValueError: another rank, two shapes, or a side that the grid does not divide.
        """
        weak, strong = (ops.stop_gradient(ops.convert_to_tensor(values)) for values in (weak, strong))
        self._check("", weak, strong, ranks=(3, 4))
        weak_target, strong_source, strong_target, weak_source = (ops.cast(places, "int32") for places in moves[:4])
        drawn = ops.cast(moves.drawn, "float32")
        shape = ops.shape(weak)
        weak, strong = self._lines(weak), self._lines(strong)
        weak = self._pasted(weak, weak_target, self._patch(strong, strong_source), drawn)
        strong = self._pasted(strong, strong_target, self._patch(weak, weak_source), drawn)
        return ops.reshape(weak, shape), ops.reshape(strong, shape)

    def _check(self, prefix: str, weak: Any, strong: Any, ranks: tuple[int, ...]) -> None:
        shape, other = tuple(weak.shape), tuple(strong.shape)
        if len(shape) not in ranks:
            wanted = " or ".join("(N, S, S, K)" if rank == 4 else "(N, S, S)" for rank in ranks)
            raise ValueError(f"`{prefix}weak` must be {wanted}, found {shape}.")
        if not shapes_agree(other, shape):
            raise ValueError(f"`{prefix}strong` must have the shape of `{prefix}weak`, {shape}, found {other}.")
        for name, sizes in (("weak", shape), ("strong", other)):
            if None in sizes[1:]:
                raise ValueError(f"`{prefix}{name}` must be of known sizes behind the batch's, found {sizes}.")
        if shape[1] % self.grid or shape[2] % self.grid:
            raise ValueError(f"`grid` must divide the sides, {shape[1]} and {shape[2]} pixels, found {self.grid!r}.")

    def _means(self, values: Any) -> Any:
        """`(N, grid**2, K)`: the means over the patches of `(N, S, S, K)`."""
        grid, (height, width, channels) = self.grid, values.shape[1:]
        cells = ops.reshape(values, (-1, grid, height // grid, grid, width // grid, channels))
        cells = ops.mean(cells, axis=(2, 4))
        return ops.reshape(cells, (-1, grid * grid, channels))

    def _confidence(self, logits: Any) -> Any:
        """`(N, grid**2)`: the mean over a patch of the largest probability."""
        probabilities = ops.softmax(ops.stop_gradient(ops.cast(logits, "float32")), axis=-1)
        return self._means(ops.max(probabilities, axis=-1, keepdims=True))[..., 0]

    def _distribution(self, logits: Any) -> Any:
        """`(N, grid**2, K)`: logarithms of the softmax of a patch's mean logits."""
        return ops.log_softmax(self._means(ops.stop_gradient(ops.cast(logits, "float32"))), axis=-1)

    def _alike(self, worst: Any, others: Any, confidence: Any) -> Any:
        """`(N,)`: of the most confident patches of a view the one with the lowest KL from `(N, K)` logarithms."""
        ranks = ops.argsort(ops.argsort(-confidence, axis=-1), axis=-1)
        worst = worst[:, None, :]
        divergence = ops.sum(ops.exp(worst) * (worst - others), axis=-1)  # (N, grid**2)
        return _index(ops.argmin(ops.where(ranks < self.candidates, divergence, math.inf), axis=-1))

    def _lines(self, values: Any) -> Any:
        """`(N, grid, s, grid, s * C)`, without moving anything: patches of s lines, a line of s pixels."""
        grid, (height, width, *channels) = self.grid, values.shape[1:]
        return ops.reshape(values, (-1, grid, height // grid, grid, width // grid * math.prod(channels)))

    def _patch(self, lines: Any, places: Any) -> Any:
        """`(N, s, s * C)`: one patch of each image, gathered line by line."""
        grid, height, length = self.grid, lines.shape[2], lines.shape[4]
        places = places[:, None]  # (N, 1)
        row = ops.arange(ops.shape(lines)[0], dtype="int32")[:, None] * grid + places // grid
        wanted = (row * height + ops.arange(height, dtype="int32")[None, :]) * grid + places % grid
        return ops.take(ops.reshape(lines, (-1, length)), wanted, axis=0)

    def _pasted(self, lines: Any, places: Any, patches: Any, drawn: Any) -> Any:
        """The views with one patch of each replaced, where the image is drawn."""
        cells = ops.arange(self.grid**2, dtype="int32")[None, :] == places[:, None]
        cells = ops.logical_and(cells, drawn[:, None] > 0)
        cells = ops.reshape(cells, (-1, self.grid, 1, self.grid, 1))
        return ops.where(cells, patches[:, None, :, None, :], lines)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build this layer again."""
        return {
            **super().get_config(),
            "kind": self.kind,
            "grid": self.grid,
            "candidates": self.candidates,
            "probability": self.probability,
            "seed": self.seed,
        }


def _index(values: Any) -> Any:
    return ops.cast(values, "int32")


def _of_patch(values: Any, places: Any) -> Any:
    """`(N, K)`: the values `(N, P, K)` of one patch of each image."""
    return ops.squeeze(ops.take_along_axis(values, places[:, None, None], axis=1), axis=1)
