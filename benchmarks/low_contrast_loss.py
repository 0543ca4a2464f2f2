"""What the low-contrast loss costs in its exact low-resolution form, and with one embedding a pixel.

The straightforward form upsamples the projected features to the image, sorts for its thresholds, and takes the dot
products of all pixels with their neighbours: in a compiled loop, one neighbour at a time, which spares memory, or with
`--unrolled` in a Python loop, as it is mostly written. Both forms are compiled and compute the same loss; what they
differ by is printed. Parts, each from ready inputs:

similarities  from features to the maps of cosines with the class embeddings; forward and backward
inter-class   from these maps to the ICE selection
boundary      from features (embeddings) to the BCE selection
loss          from maps and selections to the loss; forward and backward
all           from features to the loss; forward and backward

Times are medians, measured in turn (exact, straightforward, exact, ...) in one process. Memory is what a compiled run
adds at its peak to the resident size of a process of its own, which idles before with libraries, code and inputs in
place (on Linux; the allocator is told to give freed memory back).

    KERAS_BACKEND=jax python -m benchmarks.low_contrast_loss
    KERAS_BACKEND=jax python -m benchmarks.low_contrast_loss --grow

`--grow` runs all of it for sides from 160 to 384 and fits `time ~ side^exponent`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from benchmarks.steps import in_turn, medians, resident
from keras_semimed.losses import LowContrastLoss, LowContrastMaps
from keras_semimed.losses.low_resolution import Upsampling
from keras_semimed.losses.neighbourhood import boundary_pixels, boundary_scores, nearest_offsets

PARTS = ("similarities", "inter-class", "boundary", "loss", "all")
GROWTH = (160, 224, 288, 384)


class Batch(NamedTuple):
    """Arguments of the loss."""

    labeled: np.ndarray
    masks: np.ndarray
    unlabeled: np.ndarray
    pseudo_masks: np.ndarray
    kept: np.ndarray


class Exact(LowContrastLoss):
    """The package's loss, taken apart."""

    def prepare(self, features: Any, target: tuple[int, int]) -> Any:
        """What the boundary part starts from."""
        return features, Upsampling(features.shape[1:3], target).inverse_norms(features)

    def similarity_maps(self, features: Any, labels: Any, split: int) -> tuple[Any, Any]:
        """Similarities `(K, N, H, W)` and which classes are present."""
        upsampling = Upsampling(features.shape[1:3], labels.shape[1:])
        embeddings, present = self._class_embeddings(features[:split], labels[:split], upsampling)
        products = ops.transpose(ops.matmul(features, ops.transpose(embeddings)), (3, 0, 1, 2))
        return upsampling.enlarge(products) * upsampling.inverse_norms(features), present

    def select_inter_class(self, similarities: Any, labels: Any, present: Any, split: int) -> Any:
        """ICE."""
        return self._select_inter_class(similarities, labels, present, split)

    def select_boundary(self, prepared: Any, labels: Any, split: int) -> Any:
        """BCE."""
        features, inverse_norms = prepared
        upsampling = Upsampling(features.shape[1:3], labels.shape[1:])
        edges = boundary_pixels(labels, self.neighbours)
        scores = boundary_scores(features, inverse_norms, edges, upsampling, self.neighbours)
        return self._select_boundary(scores, edges, labels, split)


class Straightforward(Exact):
    """The same loss from one embedding a pixel."""

    unrolled = False

    def maps(self, labeled: Any, masks: Any, unlabeled: Any, pseudo_masks: Any, kept: Any) -> LowContrastMaps:
        """Similarities and selections."""
        split = labeled.shape[0]
        labels = ops.concatenate([self._counted(masks), self._counted(pseudo_masks, kept)])
        embeddings = self.embeddings(ops.concatenate([labeled, unlabeled]), labels.shape[1:])
        similarities, present = self._from_embeddings(embeddings, labels, split)
        inter_class = self.select_inter_class(similarities, labels, present, split)
        boundary = self.select_boundary(_unit(ops.stop_gradient(embeddings)), labels, split)
        return LowContrastMaps(similarities, present, labels, inter_class, None, None, boundary)

    def embeddings(self, features: Any, target: tuple[int, int]) -> Any:
        """One embedding a pixel."""
        return ops.image.resize(features, target, "bilinear", data_format="channels_last")

    def prepare(self, features: Any, target: tuple[int, int]) -> Any:
        """What the boundary part starts from."""
        return _unit(self.embeddings(features, target))

    def similarity_maps(self, features: Any, labels: Any, split: int) -> tuple[Any, Any]:
        """Similarities `(K, N, H, W)` and which classes are present."""
        return self._from_embeddings(self.embeddings(features, labels.shape[1:]), labels, split)

    def _from_embeddings(self, embeddings: Any, labels: Any, split: int) -> tuple[Any, Any]:
        members = ops.cast(self._members(labels[:split]), "float32")
        total = ops.matmul(members, ops.reshape(embeddings[:split], (members.shape[1], -1)))
        similarities = ops.matmul(_unit(embeddings), ops.transpose(_unit(total)))  # (N, H, W, K)
        return ops.transpose(similarities, (3, 0, 1, 2)), ops.cast(ops.any(members > 0, axis=1), "float32")

    def select_inter_class(self, similarities: Any, labels: Any, present: Any, split: int) -> Any:
        """ICE."""
        sources = (similarities[:, :split], labels[:split]), (similarities[:, split:], labels[split:])
        chosen = []
        for values, own in sources:
            of_class = [_lowest(values[c], own == c, self.k) for c in range(self.num_classes)]
            chosen.append(ops.any(ops.stack(of_class), axis=0))
        return ops.concatenate(chosen)

    def select_boundary(self, prepared: Any, labels: Any, split: int) -> Any:
        """BCE."""
        (height, width), radius = labels.shape[1:], int(np.abs(nearest_offsets(self.neighbours)).max())
        around = [(0, 0), (radius, radius), (radius, radius)]
        padded_labels = ops.pad(labels, around, constant_values=-1.0)
        padded = ops.pad(prepared, [*around, (0, 0)])
        inside = ops.pad(ops.ones_like(labels), around)
        offsets = nearest_offsets(self.neighbours).astype("int32") + radius

        def shifted(x: Any, dy: Any, dx: Any) -> Any:
            extra = (0,) * (len(x.shape) - 3)
            return ops.slice(x, (0, dy, dx, *extra), (x.shape[0], height, width, *x.shape[3:]))

        def visit(dy: Any, dx: Any, edges: Any, scores: Any) -> tuple[Any, Any]:
            other = shifted(padded_labels, dy, dx)
            edges = ops.logical_or(edges, ops.logical_and(other >= 0, ops.not_equal(other, labels)))
            cosines = ops.sum(prepared * shifted(padded, dy, dx), axis=-1)
            cosines = ops.where(shifted(inside, dy, dx) > 0, cosines, 2.0)
            return edges, ops.minimum(scores, cosines)

        state = (ops.zeros_like(labels, dtype="bool"), ops.full_like(labels, 2.0))
        if self.unrolled:
            for dy, dx in offsets.tolist():
                state = visit(dy, dx, *state)
        else:
            dys, dxs = ops.convert_to_tensor(offsets[:, 0]), ops.convert_to_tensor(offsets[:, 1])
            state = ops.fori_loop(0, self.neighbours, lambda i, state: visit(dys[i], dxs[i], *state), state)
        edges, scores = state
        edges = ops.logical_and(edges, labels >= 0)
        sources = (scores[:split], edges[:split]), (scores[split:], edges[split:])
        return ops.concatenate([_lowest(-values, members, self.k) for values, members in sources])


def _unit(x: Any) -> Any:
    return x * ops.rsqrt(ops.maximum(ops.sum(ops.square(x), axis=-1, keepdims=True), 1e-24))


def _lowest(values: Any, members: Any, k: float) -> Any:
    """The floor(k n) members of lowest value, by sorting."""
    values = ops.where(members, ops.stop_gradient(values), 2.0)
    count = ops.cast(ops.floor(k * ops.sum(ops.cast(members, "float32")) + 1e-3), "int32")
    threshold = ops.take(ops.sort(ops.reshape(values, (-1,))), ops.maximum(count - 1, 0))
    return ops.logical_and(members, ops.logical_and(values <= threshold, count > 0))


FORMS = {"exact": Exact, "straightforward": Straightforward}


def make_batch(side: int, stride: int, depth: int, images: int) -> Batch:
    """Made features and masks: a round lesion an image, a tenth of the pseudo-labels filtered."""
    rng = np.random.default_rng(0)
    coarse = -(-side // stride)

    def half() -> tuple[np.ndarray, np.ndarray]:
        y, x = (np.arange(side)[:, None], np.arange(side)[None, :])
        centres, radii = rng.uniform(0.3, 0.7, (images, 2)) * side, rng.uniform(0.15, 0.25, images) * side
        masks = [np.hypot(y - cy, x - cx) < r for (cy, cx), r in zip(centres, radii, strict=True)]
        masks = np.stack(masks).astype("int32")
        features = rng.normal(size=(images, coarse, coarse, depth)) + 1
        features[..., 0] += 2 * masks[:, ::stride, ::stride][:, :coarse, :coarse]
        return features.astype("float32"), masks

    kept = (rng.random((images, -(-side // 16), -(-side // 16))) > 0.1).repeat(16, 1).repeat(16, 2)
    return Batch(*half(), *half(), kept[:, :side, :side].astype("float32"))


def compiled(function: Callable[..., Any], backward: bool, xla: bool) -> Callable[..., Any]:
    """Compiles a function of tensors; with `backward`, to its value and gradients by the first argument."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        run = jax.jit(jax.value_and_grad(function) if backward else function)
        return lambda *inputs: jax.block_until_ready(run(*inputs))
    if backend != "tensorflow":
        raise SystemExit(f"This benchmark compiles with TensorFlow or JAX, not {backend!r}: set KERAS_BACKEND.")
    import tensorflow as tf

    @tf.function(jit_compile=xla)
    def graph(first: Any, *others: Any) -> Any:
        if not backward:
            return function(first, *others)
        with tf.GradientTape() as tape:
            tape.watch(first)
            value = function(first, *others)
        return value, tape.gradient(value, first)

    def run_and_wait(*inputs: Any) -> Any:
        result = graph(*inputs)
        tf.nest.map_structure(lambda x: x.numpy(), result)
        return result

    return run_and_wait


def make_step(form: str, part: str, batch: Batch, arguments: argparse.Namespace) -> Callable[[], Any]:
    """Returns a function that runs one part of one form. All arrays are arguments, so none is folded when compiling."""
    loss = FORMS[form](neighbours=arguments.neighbours)
    split = len(batch.labeled)
    labeled, masks, unlabeled, pseudo_masks, kept = (ops.convert_to_tensor(x) for x in batch)
    features = ops.concatenate([labeled, unlabeled])
    labels = ops.concatenate([loss._counted(masks), loss._counted(pseudo_masks, kept)])
    backward, inputs = True, ()
    if part == "all":
        inputs = ([labeled, unlabeled], masks, pseudo_masks, kept)

        def function(features: Any, masks: Any, pseudo_masks: Any, kept: Any) -> Any:
            return loss(features[0], masks, features[1], pseudo_masks, kept)
    elif part == "similarities":
        inputs = (features, labels)

        def function(features: Any, labels: Any) -> Any:
            return ops.mean(loss.similarity_maps(features, labels, split)[0])
    elif part == "boundary":
        backward, inputs = False, (loss.prepare(features, batch.masks.shape[1:]), labels)

        def function(prepared: Any, labels: Any) -> Any:
            return loss.select_boundary(prepared, labels, split)
    elif part == "inter-class":
        backward, inputs = False, (*Exact().similarity_maps(features, labels, split), labels)

        def function(similarities: Any, present: Any, labels: Any) -> Any:
            return loss.select_inter_class(similarities, labels, present, split)
    else:
        similarities, present = Exact().similarity_maps(features, labels, split)
        inputs = (similarities, present, labels, Exact()._select_inter_class(similarities, labels, present, split))

        def function(similarities: Any, present: Any, labels: Any, chosen: Any) -> Any:
            return loss.contrast(LowContrastMaps(similarities, present, labels, chosen, None, None, chosen))

    step = compiled(function, backward, arguments.xla)
    return lambda: step(*inputs)


def added_memory(step: Callable[[], Any]) -> float:
    """What a second run of a step adds at its peak to the resident memory, in MiB."""
    step()
    time.sleep(1)  # JAX frees behind the caller's back
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    idle = resident("VmRSS")
    step()
    return resident("VmHWM") - idle


def memory_of(form: str, part: str) -> float:
    """Memory in MiB that one part of one form adds to a process of its own."""
    command = [sys.executable, "-m", "benchmarks.low_contrast_loss", *sys.argv[1:], "--only", form, part]
    # Without oneDNN, whose allocator in TensorFlow keeps what it once had.
    allocator = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "TF_ENABLE_ONEDNN_OPTS": "0"}
    result = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **allocator})
    return float(result.stdout.split()[-1])


def compare(batch: Batch, arguments: argparse.Namespace) -> None:
    """Prints how far the forms differ, and time and memory of every part."""
    results = [make_step(form, "all", batch, arguments)() for form in FORMS]
    values = [float(value) for value, _ in results]
    slopes = [np.concatenate([ops.convert_to_numpy(x).ravel() for x in gradients]) for _, gradients in results]
    difference = np.abs(slopes[0] - slopes[1]).max() / np.abs(slopes[1]).max()
    chosen = []
    for form in FORMS.values():
        maps = form(neighbours=arguments.neighbours).maps(*map(ops.convert_to_tensor, batch))
        chosen.append(ops.convert_to_numpy(ops.logical_or(maps.inter_class, maps.boundary)))
    print(
        f"loss {values[0]:.6f} and {values[1]:.6f}, gradients differ by {difference:.1e} of the largest, selections in "
        f"{(chosen[0] != chosen[1]).sum()} of {chosen[0].sum()} pixels (float32 cannot rank the closest)"
    )
    print(f"{'':14s}{'exact':>20s}{'straightforward':>22s}{'faster':>10s}{'memory':>10s}")
    for part in PARTS:
        median = medians(in_turn({form: make_step(form, part, batch, arguments) for form in FORMS}, arguments.repeats))
        used = {form: 0.0 if arguments.no_memory else memory_of(form, part) for form in FORMS}
        exact, straight = (f"{1e3 * median[form]:8.0f} ms{used[form]:6.0f} MiB" for form in FORMS)
        faster = median["straightforward"] / median["exact"]
        memory = "" if arguments.no_memory else f"{used['exact'] / used['straightforward']:10.3f}"
        print(f"{part:14s}{exact:>20s}{straight:>22s}{faster:9.1f}x{memory}", flush=True)


def grow(arguments: argparse.Namespace) -> None:
    """Prints the time of both forms by side, and the exponents."""
    by_side: dict[str, list[float]] = {form: [] for form in FORMS}
    for side in GROWTH:
        batch = make_batch(side, arguments.stride, arguments.depth, arguments.images)
        median = medians(in_turn({form: make_step(form, "all", batch, arguments) for form in FORMS}, arguments.repeats))
        for form in FORMS:
            by_side[form].append(median[form])
        print(f"side {side}: " + ", ".join(f"{form} {1e3 * median[form]:.0f} ms" for form in FORMS), flush=True)
    for form, times in by_side.items():
        exponent = np.polyfit(np.log(GROWTH), np.log(times), 1)[0]
        print(f"{form}: time ~ side^{exponent:.2f}")


def main() -> None:
    """Parses the arguments and runs the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=384, help="side of the images in pixels (384)")
    parser.add_argument("--stride", type=int, default=4, help="image pixels a feature, 4 behind the decoder (4)")
    parser.add_argument("--images", type=int, default=2, help="labelled images, and unlabelled ones (2)")
    parser.add_argument("--depth", type=int, default=64, help="channels D of the projector (64)")
    parser.add_argument("--neighbours", type=int, default=64, help="h (64)")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each form after a warm-up (5)")
    parser.add_argument("--grow", action="store_true", help="time against side instead of the parts")
    parser.add_argument("--no-memory", action="store_true", help="skip the processes that measure peak memory")
    parser.add_argument("--xla", action="store_true", help="let TensorFlow compile with XLA, as Keras does on a GPU")
    parser.add_argument(
        "--unrolled", action="store_true", help="Python loop over neighbours in the straightforward form"
    )
    parser.add_argument("--only", nargs=2, metavar=("FORM", "PART"), help="run one part, print the memory it adds")
    arguments = parser.parse_args()
    batch = make_batch(arguments.side, arguments.stride, arguments.depth, arguments.images)
    Straightforward.unrolled = arguments.unrolled
    if arguments.only:
        print(added_memory(make_step(*arguments.only, batch, arguments)))
        return
    size = "x".join(str(n) for n in batch.labeled.shape[1:])
    print(
        f"backend {keras.backend.backend()}{' with XLA' if arguments.xla else ''}, {arguments.images} + "
        f"{arguments.images} images at {arguments.side}, features {size}, {arguments.neighbours} neighbours"
    )
    grow(arguments) if arguments.grow else compare(batch, arguments)


if __name__ == "__main__":
    main()
