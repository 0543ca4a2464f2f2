"""How far the attention gates of Hermes' Eq. 3 and 4 range, and how much they depend on the image and on the place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_semimed.evaluation.pictures import figure_uri
from keras_semimed.evaluation.report_figures import Figure, over_epochs
from keras_semimed.evaluation.threshold_figure import epoch_columns

CLOSED, OPEN = 0.01, 0.99
"""Below and above these a gate hardly learns any more: the slope of its sigmoid is less than 0.01."""
STILL = 0.01
"""A gate whose spread is smaller is all but the same for everything."""
GATES = {"channel": ("channels", "between images"), "spatial": ("places", "between places")}


def gate_scores(channel: Sequence[Any], spatial: Sequence[Any]) -> dict[str, float]:
    """Figures of the gates of some images, by level and gate.

    Args:
        channel: What `explain` returned as `channel_attention`: `(N, C)` a level, from P1 on.
        spatial: What it returned as `spatial_attention`: `(N, h, w, 1)` a level.

    Returns:
        `P1_channel_low`, `..._high` and `..._mean`, over images and channels; `P1_channel_spread`, the standard
        deviation between the images, mean over the channels; `P1_channel_closed` and `..._open`, the shares of the
        channels that are below 0.01, or above 0.99, for every image; `P1_spatial_low`, `..._high` and `..._mean`, over
        images and places; `P1_spatial_spread`, the standard deviation between the places of an image, mean over the
        images; and so on.

    Raises:
        ValueError: If the lists differ in length.
    """
    found: dict[str, float] = {}
    for level, gates in enumerate(zip(channel, spatial, strict=True), start=1):
        channels, places = (np.asarray(gate, "float64").reshape(len(gate), -1) for gate in gates)
        values = {"channel": channels, "spatial": places}
        spreads = {"channel": channels.std(axis=0), "spatial": places.std(axis=1)}
        for gate, each in values.items():
            figures = {"low": each.min(), "high": each.max(), "mean": each.mean(), "spread": spreads[gate].mean()}
            found |= {f"P{level}_{gate}_{name}": float(value) for name, value in figures.items()}
        found[f"P{level}_channel_closed"] = float((channels < CLOSED).all(axis=0).mean())
        found[f"P{level}_channel_open"] = float((channels > OPEN).all(axis=0).mean())
    return found


def gate_sentences(scores: Mapping[str, float]) -> list[str]:
    """What `gate_scores` found, a sentence or two a level."""
    found = []
    for level in _levels(scores):
        parts, still = [], []
        for gate, (what, between) in GATES.items():
            low, high, spread = (scores[f"{level}_{gate}_{name}"] for name in ("low", "high", "spread"))
            parts.append(f"{what} {low:.3f} to {high:.3f}, spread {between} {spread:.4f}")
            still += [between] if spread < STILL else []
        sentence = f"{level}: {'; '.join(parts)}."
        shares = {name: scores[f"{level}_channel_{name}"] for name in ("closed", "open")}
        if any(shares.values()):
            shown = " and ".join(f"{share:.0%} are {name}" for name, share in shares.items() if share)
            sentence += f" Of the channels {shown} for every image."
        if still:
            sentence += f" It hardly differs {' or '.join(still)}."
        found.append(sentence)
    return found


def gate_figures(watched: Mapping[str, Any]) -> list[Figure]:
    """Range of the gates after the last epoch, and their spread over the epochs.

    Args:
        watched: `images` (their number) and `history` of an `AttentionMonitor`.
    """
    history = watched["history"]
    last, columns = history[-1], epoch_columns(history)
    levels = _levels(last)

    def ranges(axis: Any) -> None:
        for shift, (gate, (what, _)) in zip((-0.12, 0.12), GATES.items(), strict=True):
            low, high, mean = (np.array([last[f"{level}_{gate}_{name}"] for level in levels]) for name in _RANGE)
            at = np.arange(len(levels)) + shift
            # Rounding can put the mean of equal gates outside of them.
            reach = np.maximum([mean - low, high - mean], 0)
            axis.errorbar(at, mean, reach, fmt="o", capsize=4, label=what)
        axis.set(xticks=range(len(levels)), xticklabels=levels, ylim=(-0.03, 1.03), ylabel="gate")
        axis.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2)

    def spreads(axis: Any) -> None:
        for line, (gate, (what, _)) in zip(("-", ":"), GATES.items(), strict=True):
            for index, level in enumerate(levels):
                values = columns[f"{level}_{gate}_spread"]
                marker = "." if len(values) <= 30 else ""
                axis.plot(columns["epoch"], values, line, color=f"C{index}", marker=marker, label=f"{level}, {what}")

    watch = f"{watched.get('images', 'some')} unlabelled images"
    return [
        Figure(
            figure_uri(ranges),
            "Range of the gates",
            f"Mean, smallest and largest on {watch} after epoch {last['epoch']:.0f}.",
        ),
        Figure(
            over_epochs(spreads),
            "Spread of the gates",
            "Standard deviation of channels between images, and of places within an image; at 0 there is no attention, "
            "only a factor.",
        ),
    ]


_RANGE = ("low", "high", "mean")


def _levels(scores: Mapping[str, float]) -> list[str]:
    return [name.partition("_")[0] for name in scores if name.endswith("_channel_low")]
