"""How thresholds and the use of pseudo-labels develop over a training: LoCo's Fig. 6."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_semimed.evaluation.figures import plain
from keras_semimed.files import whole_file

# `kappa`, `tau`, `mask_tau`, `global_threshold`, `threshold_class_0`; `mask_selected`, `fixed_selected_class_0`.
_THRESHOLD = re.compile(r"(?!val_)(?:\w+_)?(?:kappa|tau|threshold)(?:_class_(?P<index>\d+))?")
_SHARE = re.compile(r"(?!val_)(?P<head>\w+)_selected(?:_class_(?P<index>\d+))?")
_STYLES = {"mask": "-", "fixed": "--", "label": ":"}
_LABELS = {"kappa": "kappa (entropy)", "mask_selected": "all pixels", "label_selected": "all images"}


def threshold_names(names: Iterable[str]) -> list[str]:
    """Of the names in a model's logs, those of thresholds."""
    return [name for name in names if _THRESHOLD.fullmatch(name)]


def share_names(names: Iterable[str]) -> list[str]:
    """Of the names in a model's logs, those of shares of pseudo-labels that are used; by head, all classes first."""
    found = {name: match for name in names if (match := _SHARE.fullmatch(name))}
    heads = {head: place for place, head in enumerate(_STYLES)}
    return sorted(
        found, key=lambda name: (heads.get(found[name]["head"], len(heads)), found[name]["index"] is not None)
    )


def save_threshold_figure(
    path: str | Path,
    history: Mapping[str, Sequence[float]],
    fixed: float | None = None,
    class_names: Sequence[str] | None = None,
) -> None:
    """Writes `threshold_figure` as a PNG.

    Args:
        path: File to write or replace; its folder must be there.
        history: See `threshold_figure`.
        fixed: See `threshold_figure`.
        class_names: See `threshold_figure`.

    Raises:
        ValueError: If there is nothing to draw.
    """
    figure = threshold_figure(history, fixed, class_names)
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=130)


def threshold_figure(
    history: Mapping[str, Sequence[float]], fixed: float | None = None, class_names: Sequence[str] | None = None
) -> Any:
    """Draws thresholds on the left and shares of pseudo-labels used on the right, as Fig. 6 of the LoCo paper.

    Colours are classes, black is all of them. On the right, solid lines are pixels, dotted ones whole images, and
    dashed ones what a fixed threshold would use.

    Args:
        history: Values by epoch under the names of a model's logs, such as `kappa`, `threshold_class_0`,
            `mask_selected` or `fixed_selected_class_1`; NaN where an epoch has none. `epoch` holds the epochs' numbers
            (without it: 1, 2, ...). Other names are left alone.
        fixed: A fixed threshold to compare with, drawn dashed.
        class_names: Names of the mask's classes, background included.

    Returns:
        A Matplotlib figure.

    Raises:
        ValueError: If there is nothing to draw.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    thresholds, shares = threshold_names(history), share_names(history)
    if not (thresholds or shares):
        raise ValueError(f"history has neither thresholds nor shares of pseudo-labels, only {list(history)}")
    epochs = history.get("epoch", range(1, 1 + len(history[(thresholds or shares)[0]])))
    figure = Figure(figsize=(12, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for axis, names in ((left, thresholds), (right, shares)):
        draw_curves(axis, epochs, {name: history[name] for name in names}, class_names)
    if fixed is not None:
        left.axhline(fixed, color="black", linestyle="--", linewidth=1, label=f"fixed, {fixed:g}")
    left.set_title("(a) thresholds", fontsize=10)
    right.set_title("(b) share of the pseudo-labels that is used", fontsize=10)
    right.set_ylim(-0.02, 1.02)
    right.yaxis.set_major_formatter("{x:.0%}")
    for axis in (left, right):
        _finish(axis)
    return figure


def draw_curves(
    axis: Any, epochs: Sequence[float], curves: Mapping[str, Sequence[float]], class_names: Sequence[str] | None
) -> None:
    """Plots thresholds or shares over the epochs, by their names in the logs, in the looks of Fig. 6."""
    for name, values in curves.items():
        axis.plot(epochs, values, marker="." if len(epochs) <= 30 else "", **_look(name, class_names))


def _finish(axis: Any) -> None:
    axis.set_xlabel("epoch")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.grid(color="0.9")
    axis.spines[["top", "right"]].set_visible(False)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8, frameon=False, handlelength=3, loc="center left", bbox_to_anchor=(1, 0.5))


def _look(name: str, class_names: Sequence[str] | None) -> dict[str, Any]:
    """Colour, line and label of a curve."""
    found = _SHARE.fullmatch(name)
    head = found["head"] if found else None
    found = found or _THRESHOLD.fullmatch(name)
    assert found is not None
    index = found["index"]
    look: dict[str, Any] = {
        "linestyle": _STYLES.get(head or "mask", "-."),
        "color": "0.55" if name == "kappa" else "black",
    }
    if index is None:
        label = _LABELS.get(name, name.replace("_", " "))
        return {**look, "label": label, "linewidth": 2}
    look["color"] = f"C{int(index)}"
    names = class_names if class_names is not None and head != "label" else ()
    label = names[int(index)] if int(index) < len(names) else f"class {index}"
    kind = {"label": "images, ", "mask": "pixels, ", "fixed": "fixed threshold, ", None: ""}.get(head, f"{head}, ")
    return {**look, "label": plain(kind + label)}


def epoch_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Turns rows of epochs, such as those of a run's `metrics.csv`, into columns; what a row lacks is NaN."""
    columns = dict.fromkeys(name for row in rows for name in row)
    return {name: [np.nan if row.get(name, "") == "" else float(row[name]) for row in rows] for name in columns}
