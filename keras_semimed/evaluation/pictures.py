"""Pictures inside a page: data URIs of arrays and figures."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any

import numpy as np

SMALLEST_SIDE = 192
SMALLEST_SPREAD = 0.02


def figure_uri(draw: Callable[[Any], None], size: tuple[float, float] = (5.2, 3.6)) -> str:
    """An SVG picture of one axis, which stays sharp on every screen and in print.

    Args:
        draw: Draws on a Matplotlib axis.
        size: Width and height in inches; legends below the axis make it higher.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=size)
    FigureCanvasSVG(figure)
    axis = figure.subplots()
    axis.grid(color="0.92")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    draw(axis)
    file = io.BytesIO()
    # The same bytes for the same run: no date, no random identifiers.
    with matplotlib.rc_context({"svg.hashsalt": "keras_semimed"}):
        figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None})
    return _uri("svg+xml", file.getvalue())


def sheet_uri(figure: Any) -> str:
    """A PNG picture of a figure of `matplotlib.pyplot`, which is closed."""
    from matplotlib import pyplot

    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=90, bbox_inches="tight", metadata={"Software": None})
    pyplot.close(figure)
    return _uri("png", file.getvalue())


def image_uri(pixels: np.ndarray) -> str:
    """A JPEG picture of an RGB array `(H, W, 3)` uint8; small ones are enlarged pixel by pixel."""
    from PIL import Image

    factor = max(1, -(-SMALLEST_SIDE // min(pixels.shape[:2])))
    picture = Image.fromarray(pixels.repeat(factor, axis=0).repeat(factor, axis=1))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=88, subsampling=0)
    return _uri("jpeg", file.getvalue())


def heat(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Lays a map over an image: `(H, W, 3)` uint8.

    Args:
        image: RGB. Shape: `(H, W, 3)`, uint8.
        values: From 0 to 1, stretched from their smallest to their largest; a map that is all but flat is not, because
            that would show rounding errors as structure. Shape: `(h, w)`.
    """
    from matplotlib import colormaps
    from PIL import Image

    values = values.astype("float32")
    spread = float(values.max() - values.min())
    scaled = (values - values.min()) / spread if spread >= SMALLEST_SPREAD else values
    large = Image.fromarray(scaled).resize(image.shape[1::-1], Image.Resampling.BILINEAR)
    colours = colormaps["inferno"](np.asarray(large))[..., :3] * 255
    return np.rint(0.4 * image + 0.6 * colours).astype("uint8")


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
