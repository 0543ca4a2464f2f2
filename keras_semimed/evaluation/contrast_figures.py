"""Pictures of LoCo's contrast: similarity of classes over epochs and of boundaries, Fig. 3 to 5 of the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_semimed.evaluation.contrast import ContrastMaps
from keras_semimed.evaluation.figures import overlay
from keras_semimed.files import whole_file

NAMES = {"truth": "truth", "predicted": "prediction"}


def save_class_similarity(path: str | Path, maps: ContrastMaps, class_names: Sequence[str] | None = None) -> None:
    """Draws the similarity between pixels and class embeddings, and between class embeddings, as two tables.

    Args:
        path: PNG file to write or replace.
        maps: What `contrast_maps` returned.
        class_names: Names of the classes, background included.
    """
    classes = len(maps.class_similarity)
    names = [f"class {index}" for index in range(classes)] if class_names is None else list(class_names)
    tables = {
        "pixels (row) and class embeddings": maps.pixel_similarity,
        "class embeddings": maps.class_similarity,
    }
    figure = _figure(7.5, 3.6)
    for axis, (title, table) in zip(figure.subplots(1, 2), tables.items(), strict=True):
        drawn = axis.imshow(table, cmap="coolwarm", vmin=-1, vmax=1)
        axis.set_title(title, fontsize=10)
        axis.set_xticks(range(classes), names)
        axis.set_yticks(range(classes), names, rotation=90, va="center")
        for (row, column), value in np.ndenumerate(table):
            colour = "white" if abs(value) > 0.7 else "black"
            axis.text(column, row, "-" if np.isnan(value) else f"{value:.2f}", ha="center", va="center", color=colour)
    figure.colorbar(drawn, ax=figure.axes, label="mean cosine", shrink=0.8)
    _write(figure, path)


def save_similarity_curves(
    path: str | Path, curves: Mapping[str, Sequence[float]], epochs: Sequence[int] | None = None
) -> None:
    """Draws inter-class similarity over the epochs, one curve a model, as Fig. 3.

    Args:
        path: PNG file to write or replace.
        curves: One value an epoch, `ContrastMaps.inter_class_similarity`, by the model's name. Compare models in one
            `space`.
        epochs: The epochs' numbers; None: 1, 2, ...
    """
    figure = _figure(6, 4)
    axis = figure.subplots()
    for name, values in curves.items():
        axis.plot(range(1, 1 + len(values)) if epochs is None else epochs, values, label=name, marker=".")
    axis.set_xlabel("epoch")
    axis.set_ylabel("cosine of pixels and other classes' embeddings", fontsize=9)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.grid(color="0.9")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    _write(figure, path)


def save_boundary_figure(
    path: str | Path,
    images: np.ndarray,
    masks: np.ndarray,
    maps: ContrastMaps | Mapping[str, ContrastMaps],
    boundary: str = "truth",
) -> None:
    """Draws how similar boundary pixels are to their neighbourhood: bright where the contrast is low.

    With the maps of one model, Fig. 4: truth, predicted boundary, similarity. With those of several, such as epochs of
    one training, Fig. 5: truth, then the similarity in each. One row an image, one scale for all.

    Args:
        path: PNG file to write or replace.
        images: 0..255. Shape: `(N, H, W, 3)`, the images of `maps`.
        masks: True classes. Shape: `(N, H, W)`.
        maps: What `contrast_maps` returned, or several of them by name.
        boundary: Whose boundary to look at, the `"truth"`'s, which is the same for all, or the `"predicted"` one.

    Raises:
        ValueError: If `boundary` is unknown, or there is no image or no map.
    """
    if boundary not in NAMES:
        raise ValueError(f"`boundary` must be 'truth' or 'predicted', found {boundary!r}.")
    if len(images) == 0 or len(maps) == 0:
        raise ValueError("images and maps must not be empty; give at least one of each")
    alone = maps if isinstance(maps, ContrastMaps) else None
    several = {f"similarity, boundary of the {NAMES[boundary]}": alone} if alone is not None else dict(maps)  # type: ignore[arg-type]
    found = {name: getattr(each, boundary) for name, each in several.items()}
    scores = np.concatenate([each.scores[each.pixels] for each in found.values()])
    low, high = np.quantile(scores, [0.02, 1]) if scores.size else (0.0, 1.0)
    columns = 1 + (alone is not None) + len(found)
    figure = _figure(2.6 * columns + 0.8, 2.6 * len(images) + 0.2)
    axes = figure.subplots(len(images), columns, squeeze=False)
    for index, row in enumerate(axes):
        image, nothing = np.asarray(images[index]), np.zeros_like(masks[index])
        panels = {"ground truth": overlay(image, masks[index], nothing)}
        if alone is not None:
            panels["predicted boundary"] = overlay(image, nothing, alone.predicted.pixels[index], opacity=0.8)
        for axis, panel in zip(row, panels.values(), strict=False):
            axis.imshow(panel)
        for axis, each in zip(row[len(panels) :], found.values(), strict=True):
            axis.imshow(_dimmed(image), cmap="gray", vmin=0, vmax=255)
            shown = np.ma.masked_where(~each.pixels[index], each.scores[index])
            drawn = axis.imshow(shown, cmap="inferno", vmin=low, vmax=high, interpolation="nearest")
        for axis, title in zip(row, (*panels, *found), strict=True):
            axis.set_title(title if index == 0 else "", fontsize=9)
            axis.set_axis_off()
    figure.colorbar(drawn, ax=axes, label="lowest cosine in the neighbourhood", shrink=0.8)
    _write(figure, path)


def _dimmed(image: np.ndarray) -> np.ndarray:
    """Grey and dark, so that colours stand out."""
    return 0.4 * (image if image.ndim == 2 else image.mean(axis=-1))


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _write(figure: Any, path: str | Path) -> None:
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=130)
