"""The scores on a report: what stands at its head, and a table for each size at which masks were compared."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from keras_semimed.evaluation.groups import TOGETHER
from keras_semimed.evaluation.images import Row
from keras_semimed.evaluation.intervals import FEWEST_IMAGES, few_behind
from keras_semimed.evaluation.masks import HD95_MM, NSD
from keras_semimed.evaluation.sizes import OWN_SIZE, RESULTS, Size, measured_in_mm, size_in_words
from keras_semimed.evaluation.tables import EXPLANATION, OF_CLASSES, TITLES, titles

OF_MASKS = tuple(key for key in TITLES if key not in OF_CLASSES)

Result = Mapping[str, Mapping[str, float]]
"""What `summarize` returned, by the name of the weights."""


def result_content(config: Mapping[str, Any], rows: Mapping[Size, list[Row]]) -> tuple[list[Row], dict[str, Any]]:
    """What the template shows of the scores of a run; those at the images' own size stand first where there are any.

    Args:
        config: Content of its `config.json`.
        rows: Rows of its images by the size at which masks were compared, those of the weights that count last.

    Returns:
        The rows that cases and figures are of, and the values of the template.
    """
    weights = rows["network"][-1]["weights"]
    first: Size = "own" if "own" in rows and weights in config[RESULTS["own"]] else "network"
    results: dict[Size, Result] = {size: config[RESULTS[size]] for size in sorted(rows, key=lambda size: size != first)}
    captions = {size: _caption(config, size) for size in results}
    measured = dict.fromkeys(measured_in_mm(scores) for scores in results.get("own", {}).values())
    summaries = [scores for result in results.values() for scores in result.values()]
    together = TOGETHER if any("groups" in scores for scores in summaries) else ""
    notes = [EXPLANATION, OWN_SIZE if "own" in results else "", *measured, together]
    return [row for row in rows[first] if row["weights"] == weights], {
        "weights": weights,
        "size": captions[first],
        "headline": headline(results[first], weights),
        "results": [
            {"caption": captions[size], **result_table(result, TITLES if size == first else OF_MASKS)}
            for size, result in results.items()
        ],
        "explanation": " ".join(note for note in notes if note),
        "few": _few(summaries),
    }


def headline(result: Result, weights: str) -> list[tuple[str, str]]:
    """The few scores to begin with, as title and value."""
    scores = result[weights]
    wanted = ("dice", NSD, HD95_MM, "missed_lesions", "accuracy", "balanced_accuracy", "auroc")
    return [(title, _cell(scores, key)[0]) for key, title in titles(scores, wanted).items()]


def result_table(result: Result, wanted: Iterable[str] = tuple(TITLES)) -> dict[str, Any]:
    """A score a line and a kind of weights a column: the value and, below it, what is known of its spread."""
    lines = []
    for key, title in titles(dict.fromkeys(key for scores in result.values() for key in scores), wanted).items():
        if key != "missed_rate":
            lines.append((title, [_cell(scores, key) for scores in result.values()]))
    return {"columns": list(result), "lines": lines}


def _caption(config: Mapping[str, Any], size: Size) -> str:
    """The size in words; empty for a run that compared no masks."""
    if not any("dice" in scores for scores in config[RESULTS[size]].values()):
        return ""
    return size_in_words(size, [config["configuration"].get("image_size")])


def _cell(scores: Mapping[str, float], key: str) -> tuple[str, str]:
    """A score as text, and its interval and standard deviation."""
    if key not in scores:
        return "-", ""
    if key == "missed_lesions":
        return f"{scores[key]:.0f} of {scores['lesion_images']:.0f}", ""
    digits = {"hd95": 1, HD95_MM: 2}.get(key, 3)
    spread = []
    if f"{key}_low" in scores:
        spread.append(f"[{scores[f'{key}_low']:.{digits}f}, {scores[f'{key}_high']:.{digits}f}]")
    if f"{key}_std" in scores:
        spread.append(f"±\N{NO-BREAK SPACE}{scores[f'{key}_std']:.{digits}f}")
    return f"{scores[key]:.{digits}f}", " ".join(spread)


def _few(summaries: Iterable[Mapping[str, float]]) -> str:
    """A sentence where few images, or groups of them, stand behind any of the intervals."""
    behind = [scores for scores in summaries if any(key.endswith("_low") for key in scores)]
    images = [min(scores["images"], scores.get("images_in_mm", math.inf)) for scores in behind]
    groups = [int(scores["groups"]) for scores in behind if "groups" in scores]
    return few_behind(int(min(images, default=FEWEST_IMAGES)), min(groups, default=None))
