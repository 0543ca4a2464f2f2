"""Where the saliency maps (Hermes, Eq. 6) of a finished run lie: on the lesions, on edges, or anywhere.

Each form of the map is asked how much brighter it is inside the true lesion than on the whole image (1: no preference),
how well it tells lesion pixels from others (area under the ROC curve, 50 %: not at all), how much neighbouring pixels
are alike, and how much it follows the edges of the image (correlation with the length of its gradient).

map      as `explain` returns it and the decoder's input begins with
cut      what the decoder gets at 1/4 (bilinear, which looks at 2x2 of 4x4 pixels), enlarged again
mean     the mean of each 4x4 pixels instead
smooth   the map after a Gaussian of 2 pixels
whole    the derivative with the way through the segmentation encoder and the attention as well
edges    no saliency: the edges themselves

    python -m benchmarks.saliency_maps RUN --manual-dir Dataset_BUSI_with_GT --picture saliency.png

The images are of the run's validation part, or of another.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from scipy import ndimage

from keras_semimed.backend import input_gradient
from keras_semimed.data import Split, loading
from keras_semimed.data.cards import card
from keras_semimed.data.splits.parts import PARTS
from keras_semimed.experiments.console import print_table
from keras_semimed.files import read_sealed, whole_file

FORMS = ("map", "cut", "mean", "smooth", "whole", "edges")


def parsed(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run with saliency")
    parser.add_argument("--manual-dir", type=Path, help="where the images lie")
    parser.add_argument("--data-dir", type=Path, help="where TFDS keeps prepared data")
    parser.add_argument("--part", choices=PARTS, default="validation", help="part of the split (validation)")
    parser.add_argument("--images", type=int, default=32, help="number of images (32)")
    parser.add_argument("--picture", type=Path, help="PNG of the first images with the forms of their maps")
    return parser.parse_args(argv)


def forms(model: Any, images: np.ndarray) -> dict[str, np.ndarray]:
    """The maps `(N, H, W)` of images `(N, H, W, C)` by form."""
    saliency = model.explain(images)["saliency"]
    height, width = saliency.shape[1:3]
    small = ops.image.resize(saliency, (height // 4, width // 4), interpolation="bilinear", data_format="channels_last")
    blocks = saliency.reshape(-1, height // 4, 4, width // 4, 4).mean(axis=(2, 4))
    network = model.predictor.network

    def score(x: Any) -> Any:
        return ops.max(network(x, training=False)["label_logits"], axis=-1)

    whole = ops.convert_to_numpy(input_gradient(score, ops.convert_to_tensor(images, "float32")))
    grey = images.astype("float32").mean(axis=-1)
    return {
        "map": saliency[..., 0],
        "cut": ops.convert_to_numpy(small)[..., 0].repeat(4, axis=1).repeat(4, axis=2),
        "mean": blocks.repeat(4, axis=1).repeat(4, axis=2),
        "smooth": ndimage.gaussian_filter(saliency[..., 0], (0, 2, 2)),
        "whole": np.abs(whole).max(axis=-1),
        "edges": np.stack([np.hypot(*np.gradient(ndimage.gaussian_filter(image, 1))) for image in grey]),
    }


def figures(values: np.ndarray, lesions: np.ndarray, edges: np.ndarray) -> list[float]:
    """Means over images: ratio, area under the ROC curve, likeness of neighbours, correlation with edges."""
    found = []
    for each, lesion, edge in zip(values, lesions, edges, strict=True):
        if not 0 < lesion.sum() < lesion.size:
            continue
        ranks = each.ravel().argsort().argsort().reshape(each.shape) + 1
        inside, outside = lesion.sum(), (~lesion).sum()
        area = (ranks[lesion].sum() - inside * (inside + 1) / 2) / (inside * outside)
        alike = np.corrcoef(each[:, 1:].ravel(), each[:, :-1].ravel())[0, 1]
        found.append(
            [each[lesion].mean() / each.mean(), 100 * area, alike, np.corrcoef(each.ravel(), edge.ravel())[0, 1]]
        )
    return np.nanmean(found, axis=0).tolist()


def save_picture(path: Path, images: np.ndarray, lesions: np.ndarray, maps: dict[str, np.ndarray]) -> None:
    """A row an image: image with the lesion's outline, then the forms."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2 * (1 + len(maps)), 2 * len(images)), layout="tight")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(images), 1 + len(maps), squeeze=False)
    for row, image, lesion, *values in zip(axes, images, lesions, *maps.values(), strict=True):
        for axis, title, picture in zip(row, ("image", *maps), (image, *values), strict=True):
            axis.imshow(picture, cmap="gray" if title == "image" else "inferno")
            axis.contour(lesion, [0.5], colors="cyan", linewidths=0.7)
            axis.set(xticks=[], yticks=[], title=title)
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=80)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table, and draws."""
    options = parsed(argv)
    configuration = read_sealed(options.run / "config.json", sealed=False)["configuration"]
    names = getattr(Split.load(options.run / "split.txt"), options.part)
    classes = card(configuration["data"]).study_classes or None
    size = configuration["image_size"]
    images = loading.load_image_set(configuration["data"], size, options.manual_dir, options.data_dir, classes)
    some = images.select(names[:: max(len(names) // options.images, 1)][: options.images])
    pixels, lesions = np.asarray(some.images[:]), np.asarray(some.masks[:]) == 1  # type: ignore[index]
    maps = forms(keras.saving.load_model(options.run / "model.keras", compile=False), pixels)
    rows = []
    for form in FORMS:
        ratio, area, alike, edges = figures(maps[form], lesions, maps["edges"])
        rows.append([form, f"{ratio:.2f}", f"{area:.1f}", f"{alike:.2f}", f"{edges:.2f}"])
    print_table(["form", "inside / image", "area", "neighbours", "edges"], rows)
    same = [
        np.corrcoef(one.ravel(), other.ravel())[0, 1] for one, other in zip(maps["map"], maps["whole"], strict=True)
    ]
    print(f"map and whole correlate by {np.mean(same):.3f}; median of the map {np.median(maps['map']):.3f}")
    if options.picture:
        save_picture(options.picture, pixels[:6], lesions[:6], {form: values[:6] for form, values in maps.items()})


if __name__ == "__main__":
    main()
