"""How a comparison is written: means over seeds, then paired differences, as Markdown or LaTeX."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from keras_semimed.evaluation.tables import EXPLANATION, latex, markdown, titles


class Section(NamedTuple):
    """A table and what stands below it."""

    header: list[str]
    lines: list[list[str]]
    caption: str
    notes: Sequence[str] = ()


def comparison_sections(
    table: Sequence[dict[str, Any]], baseline: str, shown: Iterable[str], notes: Sequence[str]
) -> list[Section]:
    """Two tables in per cent, of what `recipes.compare.compare` returned and of published rows.

    Args:
        table: One row a group and kind of weights.
        baseline: Name of the group that the others are compared with.
        shown: Keys of the scores to show, of those there are.
        notes: On published rows.
    """
    columns = titles(dict.fromkeys(key for row in table for key in row), shown)
    names = [[row["group"], row["weights"]] for row in table]
    means = [
        [*name, str(row.get("seeds", "-")), *(_percent(row.get(key), row.get(f"{key}_std")) for key in columns)]
        for name, row in zip(names, table, strict=True)
    ]
    text = f"In per cent: mean ± standard deviation over seeds. {EXPLANATION}"
    sections = [Section(["group", "weights", "seeds", *columns.values()], means, text, notes)]
    compared = [key for key in columns if any(f"{key}_difference" in row for row in table)]
    if compared:
        lines = [
            [*name, *(_interval(row, key) for key in compared)]
            for name, row in zip(names, table, strict=True)
            if any(f"{key}_difference" in row for key in compared)
        ]
        header = ["group", "weights", *(f"{columns[key]} - {baseline}" for key in compared)]
        caption = "In percentage points: paired difference with a 95 % bootstrap interval over images."
        sections.append(Section(header, lines, caption))
    return sections


def as_markdown(sections: Sequence[Section]) -> str:
    """Tables with their captions and notes below."""
    return "\n\n".join(
        "\n".join((markdown(section.header, section.lines), "", section.caption, *(f"- {n}" for n in section.notes)))
        for section in sections
    )


def as_latex(sections: Sequence[Section]) -> str:
    """Tables for booktabs; the notes become part of the captions."""
    return "\n\n".join(
        latex(section.header, section.lines, " ".join((section.caption, *section.notes))) for section in sections
    )


def _percent(mean: float | None, deviation: float | None) -> str:
    if mean is None:
        return "-"
    return f"{100 * mean:.1f}" + (f" ± {100 * deviation:.1f}" if deviation is not None else "")


def _interval(row: dict[str, Any], metric: str) -> str:
    if f"{metric}_difference" not in row:
        return "-"
    mean, low, high = (100 * row[f"{metric}_{name}"] for name in ("difference", "low", "high"))
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"
