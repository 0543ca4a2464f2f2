"""The figures of a report, each one axis wide, so that they can be read on a phone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_semimed.evaluation.classes import calibration_bins, classified, confusion_matrix
from keras_semimed.evaluation.embeddings import Embeddings, plane
from keras_semimed.evaluation.figures import plain
from keras_semimed.evaluation.images import Row
from keras_semimed.evaluation.pictures import figure_uri
from keras_semimed.evaluation.threshold_figure import draw_curves, epoch_columns, share_names, threshold_names

# Curves by the scores that a training reports beside its loss.
SCORES = {"dice": "Dice", "accuracy": "accuracy", "balanced_accuracy": "balanced accuracy"}
HEADS = {"mask": "pixels", "label": "images"}


class Figure(NamedTuple):
    """A picture with what it says."""

    uri: str
    title: str
    text: str


def learning_figures(history: Mapping[str, Sequence[float]]) -> list[Figure]:
    """Total loss, its terms, and scores on the training images, over the epochs.

    Args:
        history: Columns of a run's `metrics.csv`.
    """
    health = {*threshold_names(history), *share_names(history)}
    of_loss = [name for name in ("loss", "val_loss") if name in history]
    of_scores = [name for name in history if name.removeprefix("val_") in SCORES]
    known = {"epoch", "step", *of_loss, *of_scores, *health}
    terms = [name for name in history if name not in known and np.nanmax(np.abs(history[name]), initial=0) > 0]
    terms = [name for name in terms if not (name.startswith("val_") or "selected" in name)]
    figures = []
    for names, title, text in (
        (of_loss, "Loss", "The weighted sum of all terms, mean over each epoch's steps."),
        (terms, "Terms of the loss", "Before they are weighted; terms that were 0 throughout are left out."),
        (of_scores, "On the training images", "On the augmented labelled images of each step; no measure of success."),
    ):
        if names:
            figures.append(Figure(_curves(history, names), title, text))
    return figures


def pseudo_label_figures(
    history: Mapping[str, Sequence[float]], class_names: Sequence[str] | None = None
) -> list[Figure]:
    """Thresholds and shares of pseudo-labels used over the epochs (LoCo's Fig. 6), of those there are."""
    epochs = _epochs(history)
    figures = []
    for names, title, text in (
        (threshold_names(history), "Thresholds", "What a pseudo-label must reach to be used; kappa is an entropy."),
        (share_names(history), "Pseudo-labels used", "Share that passes: of all, and of each predicted class."),
    ):
        if names:
            curves = {name: history[name] for name in names}

            def draw(axis: Any, curves: Mapping[str, Sequence[float]] = curves) -> None:
                draw_curves(axis, epochs, curves, class_names)

            figures.append(Figure(over_epochs(draw, (0, 1.02) if title == "Pseudo-labels used" else None), title, text))
    return figures


def truth_figures(watched: Mapping[str, Any]) -> list[Figure]:
    """Accuracy of pseudo-labels (Hermes' Fig. 1), and confidence and entropy after one epoch (Fig. 10 and 11).

    Args:
        watched: `images` (their number), `history` and `first_epoch` of a `PseudoLabelMonitor`.
    """
    figures = []
    watch = f"{watched.get('images', 'some')} unlabelled images"
    columns = epoch_columns(watched["history"])
    for head, what in HEADS.items():
        names = {f"{head}_accuracy": "all", f"{head}_selected_accuracy": "those that pass the thresholds"}
        curves = {label: columns[name] for name, label in names.items() if name in columns}
        if curves:
            text = f"Share of {what} that are right, on {watch} whose truth is known and not trained on."
            uri = _curves({"epoch": columns["epoch"], **curves}, list(curves))
            figures.append(Figure(uri, f"Accuracy of the {what}' pseudo-labels", text))
    for head, what in HEADS.items():
        for kind, unit in (("confidence", "largest probability"), ("entropy", "entropy (nats)")):
            if bins := watched["first_epoch"].get(head, {}).get(kind):
                text = "After the first epoch, on the same images: where a first threshold makes sense."
                figures.append(Figure(_bars(bins, unit), f"First {kind} of the {what}", text))
    return figures


def _bars(bins: Mapping[str, Sequence[float]], title: str) -> str:
    def draw(axis: Any) -> None:
        shares = np.array(bins["counts"]) / max(sum(bins["counts"]), 1)
        axis.bar(bins["edges"][:-1], shares, width=np.diff(bins["edges"]), align="edge", edgecolor="white")
        axis.set(xlabel=title, ylabel="share")

    return figure_uri(draw)


def score_figures(rows: Sequence[Row]) -> list[Figure]:
    """How the scores of single images are spread, and how they depend on the size of the lesion."""
    dice = np.array([row.get("dice", np.nan) for row in rows], "float64")
    figures = []
    if not np.isnan(dice).all():

        def histogram(axis: Any) -> None:
            axis.hist(dice[~np.isnan(dice)], bins=np.linspace(0, 1, 21), color="C0", edgecolor="white")
            axis.set(xlabel="Dice of an image", ylabel="images", xlim=(0, 1))

        figures.append(Figure(figure_uri(histogram), "Dice of the images", "A mean hides who is left behind."))
    sizes = np.array([row.get("lesion_size", np.nan) for row in rows], "float64")
    shown = (sizes > 0) & ~np.isnan(dice)
    if shown.any():

        def scatter(axis: Any) -> None:
            axis.scatter(2 * np.sqrt(sizes[shown] / np.pi), dice[shown], s=14, alpha=0.6, linewidths=0)
            axis.set(xlabel="diameter of a disc of the lesion's true size (pixels)", ylabel="Dice", ylim=(-0.03, 1.03))

        figures.append(Figure(figure_uri(scatter), "Dice by lesion size", "One point an image with a lesion."))
    return figures


def calibration_figure(rows: Sequence[Row]) -> Figure | None:
    """How often the predicted class is right, by its probability; None without classes."""
    images = classified(rows)
    if images is None or images.probabilities is None:
        return None
    bins = calibration_bins(rows)

    def draw(axis: Any) -> None:
        lower = 1 / images.probabilities.shape[1]  # type: ignore[union-attr]
        axis.plot([lower, 1], [lower, 1], color="0.6", linestyle="--", linewidth=1, label="perfectly calibrated")
        known = bins.counts > 0
        sizes = 20 + 180 * bins.counts[known] / bins.counts.max()
        axis.plot(bins.confidence[known], bins.accuracy[known], color="C0", linewidth=1)
        axis.scatter(bins.confidence[known], bins.accuracy[known], s=sizes, color="C0", alpha=0.7, linewidths=0)
        axis.set(xlabel="probability of the predicted class", ylabel="share that is right")
        axis.set(xlim=(lower - 0.03, 1.03), ylim=(-0.05, 1.05))
        axis.legend(frameon=False)

    text = "Below the dashed line the model is too sure of itself. Larger points hold more images."
    return Figure(figure_uri(draw), "Calibration", text)


def confusion_figure(rows: Sequence[Row], class_names: Sequence[str] = ()) -> Figure | None:
    """Which classes are taken for which, as numbers of images; None without classes."""
    if classified(rows) is None:
        return None
    counts = confusion_matrix(rows)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [plain(class_names[index]) if index < len(class_names) else str(index) for index in range(len(counts))]

    def draw(axis: Any) -> None:
        axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (true, predicted), number in np.ndenumerate(counts):
            color = "white" if shares[true, predicted] > 0.6 else "black"
            axis.text(predicted, true, f"{number}", ha="center", va="center", color=color)
        axis.set(xlabel="predicted class", ylabel="true class")
        turned = {"rotation": 30, "ha": "right"} if sum(map(len, names)) > 40 else {}  # or they overlap
        axis.set_xticks(range(len(names)), names, **turned)
        axis.set_yticks(range(len(names)), names)

    text = "Images of each true class (a row) by the class that they were given; darker is a larger share of the row."
    return Figure(figure_uri(draw), "Confusion matrix", text)


def embedding_figure(embeddings: Embeddings) -> Figure:
    """t-SNE, coloured by the true class."""
    points = plane(embeddings)

    def draw(axis: Any) -> None:
        for index, value in enumerate(np.unique(embeddings.classes)):
            names = embeddings.class_names
            label = names[value] if value < len(names) else ("background" if value == 0 else f"class {value}")
            members = points[embeddings.classes == value]
            axis.scatter(*members.T, s=14, alpha=0.7, linewidths=0, label=plain(label), color=f"C{index}")
        axis.set(xticks=[], yticks=[])
        axis.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=3)

    text = f"t-SNE of the {embeddings.source}, coloured by the true class. Only neighbourhoods carry meaning."
    return Figure(figure_uri(draw), "Embeddings", text)


def _curves(history: Mapping[str, Sequence[float]], names: Sequence[str]) -> str:
    epochs = _epochs(history)

    def draw(axis: Any) -> None:
        for name in names:
            label = SCORES.get(name, name.replace("_", " "))
            axis.plot(epochs, history[name], label=label, marker="." if len(epochs) <= 30 else "")

    return over_epochs(draw)


def over_epochs(draw: Callable[[Any], None], limits: tuple[float, float] | None = None) -> str:
    """A picture of curves over the epochs, with their legend; the y-axis has `limits` in per cent, where given."""

    def finished(axis: Any) -> None:
        draw(axis)
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        if limits is not None:
            axis.set_ylim(*limits)
            axis.yaxis.set_major_formatter("{x:.0%}")
        if len(axis.lines) == 1:
            axis.set_ylabel(axis.lines[0].get_label())
        else:
            axis.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2, handlelength=2.5)

    return figure_uri(finished)


def _epochs(history: Mapping[str, Sequence[float]]) -> Sequence[float]:
    return history.get("epoch", range(1, 1 + len(next(iter(history.values())))))
