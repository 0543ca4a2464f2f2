"""Pictures of single cases: image, truth, prediction and both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_semimed.files import whole_file

RED = (255, 0, 0)
GREEN = (0, 255, 0)
YELLOW = (255, 255, 0)
_LONGEST = 230
"""Bytes of a name: a file's has 255, with its suffix and what stands before it while it is written."""


def overlay(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray, opacity: float = 0.45) -> np.ndarray:
    """Paints truth red, prediction green and where they agree yellow, the colours of the Hermes paper's figures.

    Args:
        image: 0..255. Shape: `(H, W)`, `(H, W, 1)` or `(H, W, 3)`.
        truth: Foreground where above 0 and not 255 (ignored). Shape: `(H, W)`.
        prediction: Foreground where above 0. Shape: `(H, W)`.
        opacity: 0 shows the image alone, 1 the colours alone.

    Returns:
        `(H, W, 3)` uint8.

    Raises:
        ValueError: If the heights or widths differ.
    """
    if not np.shape(image)[:2] == np.shape(truth) == np.shape(prediction):
        raise ValueError(
            f"image {np.shape(image)[:2]}, truth {np.shape(truth)} and prediction {np.shape(prediction)} must have one "
            "height and width"
        )
    painted = rgb(image).astype("float64")
    true = (truth > 0) & (truth != 255)
    predicted = prediction > 0
    for region, colour in ((true & ~predicted, RED), (predicted & ~true, GREEN), (true & predicted, YELLOW)):
        painted[region] = (1 - opacity) * painted[region] + opacity * np.array(colour)
    return np.rint(painted).astype("uint8")


def save_overlays(
    folder: str | Path,
    images: np.ndarray,
    truths: np.ndarray,
    predictions: np.ndarray,
    names: Sequence[str],
    captions: Sequence[str] | None = None,
) -> list[Path]:
    """Writes one PNG an image, four panels side by side: image, truth, prediction, both.

    Args:
        folder: Made where it is missing.
        images: 0..255. Shape: `(N, H, W)`, `(N, H, W, 1)` or `(N, H, W, 3)`.
        truths: Class indices. Shape: `(N, H, W)`.
        predictions: Class indices. Shape: `(N, H, W)`.
        names: One a picture; the file is called like it, `_` for what is neither letter, digit, `-`, `_` nor `.`, with
            its position before where two would be called alike.
        captions: One a picture, its title; the names by default.

    Returns:
        The paths written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stems = ["".join(c if c.isalnum() or c in "-_." else "_" for c in name) for name in names]
    files = [f"{stem.encode()[:_LONGEST].decode(errors='ignore')}.png" for stem in stems]
    if len(set(files)) < len(files):
        files = [f"{index}_{file}" for index, file in enumerate(files)]
    paths = []
    for index, name in enumerate(names):
        figure = Figure(figsize=(10, 3), layout="constrained")
        FigureCanvasAgg(figure)
        _draw(figure, images[index], truths[index], predictions[index])
        figure.suptitle(plain(name if captions is None else captions[index]), fontsize=10)
        paths.append(folder / files[index])
        with whole_file(paths[-1]) as temporary:
            figure.savefig(temporary, dpi=110)
    return paths


def _draw(figure: Any, image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> None:
    nothing = np.zeros_like(truth)
    panels = {
        "image": rgb(image),
        "truth": overlay(image, truth, nothing),
        "prediction": overlay(image, nothing, prediction),
        "red truth, green prediction, yellow both": overlay(image, truth, prediction),
    }
    for axis, (title, panel) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        axis.imshow(panel)
        axis.set_title(title, fontsize=8)
        axis.set_axis_off()


def plain(text: str) -> str:
    """Text that Matplotlib takes as it is, not as a formula between dollar signs."""
    return text.replace("$", r"\$")


def rgb(image: np.ndarray) -> np.ndarray:
    """An image `(H, W)`, `(H, W, 1)` or `(H, W, 3)` in 0..255 as `(H, W, 3)` uint8."""
    image = np.asarray(image)
    image = image[..., None] if image.ndim == 2 else image
    return np.clip(np.broadcast_to(image, (*image.shape[:2], 3)), 0, 255).astype("uint8")
