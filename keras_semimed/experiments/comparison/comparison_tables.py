"""How a comparison is written: means over seeds, then paired differences, as Markdown or LaTeX."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from keras_semimed.evaluation.groups import TOGETHER
from keras_semimed.evaluation.intervals import FEWEST_IMAGES, few_behind
from keras_semimed.evaluation.tables import EXPLANATION, latex, markdown, titles


class Section(NamedTuple):
    """A table and what stands below it."""

    header: list[str]
    lines: list[list[str]]
    caption: str
    notes: list[str]


PRIMARY = ("dice", "accuracy")
"""Scores that are shown of parts of the images."""
TEST = (
    "p: two-sided, of a paired sign-flip permutation test over images, for scores that are means over images (Dice, "
    "IoU, NSD, HD95, missed lesions, accuracy). The seeds' differences on an image are averaged first: p speaks about "
    "images, not about trainings. It is not corrected for several comparisons."
)


def comparison_sections(
    table: Sequence[dict[str, Any]], baseline: str, shown: Iterable[str], size: str = ""
) -> list[Section]:
    """Tables in per cent of what `compare` returned and of published rows: means, differences, and those by part.

    A note of several rows stands below once; its number stands behind the names of the rows.

    Args:
        table: One row a group and kind of weights.
        baseline: Name of the group that the others are compared with.
        shown: Keys of the scores to show, of those there are.
        size: At which masks were compared, in words.
    """
    at_size = f", {size}" if size else ""
    columns = titles(dict.fromkeys(key for row in table for key in row), shown)
    notes = list(dict.fromkeys(note for row in table for note in row.get("notes", ())))
    names = [[_name(row, notes), row["weights"]] for row in table]
    means = [
        [*name, str(row.get("seeds", "-")), *(_percent(row.get(key), row.get(f"{key}_std")) for key in columns)]
        for name, row in zip(names, table, strict=True)
    ]
    below = [EXPLANATION, *(f"[{number}] {note}" for number, note in enumerate(notes, start=1))]
    if any("seeds" not in row for row in table):
        below[0] = f"Rows of runs: {EXPLANATION} Published rows follow the definitions of their paper."
    caption = f"In per cent{at_size}: mean ± standard deviation over seeds."
    sections = [Section(["group", "weights", "seeds", *columns.values()], means, caption, below)]
    compared = [key for key in columns if any(f"{key}_difference" in row for row in table)]
    if compared:
        lines = [
            [*name, row["paired_seeds"], *(_interval(row, key) for key in compared)]
            for name, row in zip(names, table, strict=True)
            if any(f"{key}_difference" in row for key in compared)
        ]
        header = ["group", "weights", "seeds of both", *(f"{columns[key]} - {baseline}" for key in compared)]
        caption = f"In percentage points{at_size}: paired difference with a 95 % interval over images."
        tested = TEST if any(f"{key}_p" in row for row in table for key in compared) else ""
        below = _about_intervals([row for row in table if "paired_images" in row])
        sections.append(Section(header, lines, caption, [*below, tested] if tested else below))
    parted = [(name, row) for name, row in zip(names, table, strict=True) if "parts" in row]
    if parted:
        sections.append(_by_part(parted, columns, baseline, at_size))
    return sections


def _by_part(
    parted: Sequence[tuple[list[str], dict[str, Any]]], columns: Mapping[str, str], baseline: str, at_size: str
) -> Section:
    """Differences on each part of the images, of few scores.

    Args:
        parted: Names and rows of a group and kind of weights.
        columns: Titles of the scores there are.
        baseline: Name of the group that the others are compared with.
        at_size: At which masks were compared, behind a comma.
    """
    shown = [key for key in columns if key in PRIMARY]
    lines = [
        [*name, part, str(found["paired_images"]), *(_interval(found, key) for key in shown)]
        for name, row in parted
        for part, found in row["parts"].items()
    ]
    header = ["group", "weights", "part", "images", *(f"{columns[key]} - {baseline}" for key in shown)]
    caption = (
        f"In percentage points{at_size}: paired difference on parts of the images, with a 95 % interval over them."
    )
    return Section(
        header, lines, caption, _about_intervals([part for _, row in parted for part in row["parts"].values()])
    )


def _about_intervals(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What belongs below differences: that few images or groups stand behind them, and that groups stay together."""
    groups = [row["paired_groups"] for row in rows if "paired_groups" in row]
    behind = [row for row in rows if any(key.endswith("_low") for key in row)]
    images = min((row["paired_images"] for row in behind), default=FEWEST_IMAGES)
    few = few_behind(images, min((row["paired_groups"] for row in behind if "paired_groups" in row), default=None))
    return [note for note in (few, TOGETHER if groups else "") if note]


def as_markdown(sections: Sequence[Section]) -> str:
    """Tables with their captions and notes below."""
    return "\n\n".join(
        "\n".join((markdown(section.header, section.lines), "", section.caption, *(f"- {n}" for n in section.notes)))
        for section in sections
    )


def as_latex(sections: Sequence[Section]) -> str:
    """Tables for booktabs, with the notes below."""
    return "\n\n".join(latex(*section) for section in sections)


def _name(row: dict[str, Any], notes: Sequence[str]) -> str:
    """The group, with the numbers of its notes."""
    numbers = sorted(notes.index(note) + 1 for note in row.get("notes", ()))
    return " ".join((row["group"], *(f"[{number}]" for number in numbers)))


def _percent(mean: float | None, deviation: float | None) -> str:
    if mean is None:
        return "-"
    return f"{100 * mean:.1f}" + (f" ± {100 * deviation:.1f}" if deviation is not None else "")


def _interval(row: dict[str, Any], metric: str) -> str:
    if f"{metric}_difference" not in row:
        return "-"
    mean = f"{100 * row[f'{metric}_difference']:+.1f}"
    if f"{metric}_low" in row:
        mean += f" [{100 * row[f'{metric}_low']:+.1f}, {100 * row[f'{metric}_high']:+.1f}]"
    return mean + _p_value(row.get(f"{metric}_p"))


def _p_value(value: float | None) -> str:
    if value is None:
        return ""
    return f", p {value:.3f}" if value >= 0.001 else ", p < 0.001"
