"""How scores are called and written, and tables of them as Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from keras_semimed.evaluation.masks import HD95_MM, MM, NSD

TITLES = {
    "dice": "Dice",
    "iou": "IoU",
    "pooled_dice_foreground": "pooled Dice",
    "miou_with_background": "mIoU with background",
    "miou_foreground": "mIoU foreground",
    "iou_malignant": "IoU malignant",
    "iou_benign": "IoU benign",
    NSD: "NSD at {} {}",
    "nsd": "NSD, tolerance not given",
    "hd95": "HD95, px",
    HD95_MM: "HD95, mm",
    "missed_lesions": "missed lesions",
    "missed_rate": "missed lesions",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "auroc": "AUROC",
    "expected_calibration_error": "calibration error",
}
"""Titles by the keys of `summarize`, in the order of columns; the key of the surface distance ends in its tolerance."""

OF_CLASSES = tuple(TITLES)[list(TITLES).index("accuracy") :]
"""Keys of scores of image classes, which no size of masks changes."""

EXPLANATION = (
    "Dice, IoU, NSD and HD95: means over images. mIoU and pooled Dice: of the pixels of all images. Missed: images "
    "with a lesion on which no predicted pixel lies. An image that is empty in truth and prediction counts 1 in Dice, "
    "IoU and NSD and 0 in HD95; one that is empty in one of them counts 0 and, in HD95, the image's diagonal."
)


def titles(keys: Iterable[str], wanted: Iterable[str] = tuple(TITLES)) -> dict[str, str]:
    """Of `keys`, those of the `wanted` scores, in their order and with their titles."""
    keys = list(keys)
    found = {}
    for begin in wanted:
        for key in keys:
            tolerance = key.removeprefix(NSD).removesuffix(MM)
            if key == begin:
                found[key] = TITLES[begin]
            elif begin == NSD and key.startswith(NSD) and tolerance.replace(".", "").isdigit():
                found[key] = TITLES[begin].format(tolerance, "mm" if key.endswith(MM) else "px")
    return found


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns."""
    header, *lines = [[cell.replace("|", r"\|") for cell in line] for line in (header, *lines)]
    widths = [max(len(line[column]) for line in (header, *lines)) for column in range(len(header))]
    rows = [header, ["-" * width for width in widths], *lines]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    )


def latex(header: Sequence[str], lines: Sequence[Sequence[str]], caption: str, notes: Sequence[str] = ()) -> str:
    """A LaTeX table for the package booktabs, notes below; the first column is left-aligned, the others centred."""
    below = [r"\begin{flushleft}\footnotesize", "\n\n".join(map(_escape, notes)), r"\end{flushleft}"] if notes else []
    rows = [" & ".join(map(_escape, line)) + r" \\" for line in (header, *lines)]
    return "\n".join(
        (
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_escape(caption)}}}",
            rf"\begin{{tabular}}{{l{'c' * (len(header) - 1)}}}",
            r"\toprule",
            rows[0],
            r"\midrule",
            *rows[1:],
            r"\bottomrule",
            r"\end{tabular}",
            *below,
            r"\end{table}",
        )
    )


def _escape(text: str) -> str:
    special: Mapping[str, str] = {
        "\\": r"\textbackslash{}",
        "±": r"$\pm$",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{character: f"${character}$" for character in "<>|"},
        **{character: "\\" + character for character in "&%$#_{}"},
    }
    return "".join(special.get(character, character) for character in text)
