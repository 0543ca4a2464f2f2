"""Scores of a run at both sizes at which masks can be compared: the network's, and that of the images' files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from keras_semimed.data import EvaluationBatches, ImageSet
from keras_semimed.evaluation import evaluate_sizes, summarize
from keras_semimed.evaluation.groups import group_columns, parts_of
from keras_semimed.evaluation.images import Row
from keras_semimed.evaluation.sizes import RESULTS, TABLES, Size, size_in_words
from keras_semimed.experiments.console import print_result
from keras_semimed.files import write_table

SURFACE_TOLERANCE = 2.0  # pixels of the size at which masks are compared
TOLERANCE_MM = 1.0


class Scored:
    """Results and rows of a run by the size at which masks were compared.

    Args:
        batch_size: Images a forward pass.

    Attributes:
        results: what `summarize` returned, by the name of the weights, for each size.
    """

    def __init__(self, batch_size: int = 16) -> None:
        self.batch_size = batch_size
        self.results: dict[Size, dict[str, dict[str, float]]] = {}
        self._rows: dict[Size, list[Row]] = {}

    def add(self, model: Any, images: ImageSet, name: str, groups: Mapping[str, Mapping[str, str]]) -> list[Row]:
        """Scores a model on images, all and by what they have in common; their rows say what that is.

        Args:
            model: Predicts with the weights that are to be scored.
            images: What it is scored on.
            name: What the weights are called.
            groups: What they are scored by, such as `class`: values by the images' names.

        Returns:
            The rows of the images, at their own size where that is known.
        """
        found = evaluate_sizes(
            model,
            EvaluationBatches(images, self.batch_size),
            surface_tolerance=SURFACE_TOLERANCE,
            tolerance_mm=TOLERANCE_MM,
        )
        known = group_columns(images.names, images.groups, groups)
        found = {
            size: [{"name": row["name"], **known[row["name"]], **row} for row in rows] for size, rows in found.items()
        }
        for size, rows in found.items():
            result = self.results.setdefault(size, {})
            result[name] = summarize(rows)
            for title, part in parts_of(rows).items():
                result[f"{name}, {title}"] = summarize(part)
            self._rows.setdefault(size, []).extend({"name": row["name"], "weights": name, **row} for row in rows)
        return found.get("own", found["network"])

    def write(self, folder: Path) -> None:
        """Writes a table a size."""
        for size, rows in self._rows.items():
            write_table(folder / TABLES[size], rows)

    def shown(self, name: str) -> dict[str, float]:
        """The scores of some weights, masks at the files' own size where that is known."""
        return self.results[self._shown_size(name)][name]

    def described(self, name: str, part: str) -> str:
        """What `shown` are the scores of: the part and, of masks, the size at which they were compared."""
        masks = "dice" in self.shown(name)
        return f"{part}, masks {size_in_words(self._shown_size(name))}" if masks else part

    def _shown_size(self, name: str) -> Size:
        """Other images, such as another hospital's, may have an own size where those of the run have none."""
        return "own" if name in self.results.get("own", {}) else "network"

    def content(self) -> dict[str, dict[str, dict[str, float]]]:
        """For config.json; what is asked first stands first: the weights as they are, on the run's own images."""
        return {
            RESULTS[size]: {name: result[name] for name in _ordered(result)} for size, result in self.results.items()
        }


def _ordered(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: (" on " in name, "new statistics" in name))


def print_results(content: Mapping[str, Any], part: str, image_size: int) -> None:
    """Prints the scores of a run: where there are masks, at both sizes.

    Args:
        content: Of its config.json.
        part: Part of the split that was scored.
        image_size: Of the network, in pixels.
    """
    network, own = content[RESULTS["network"]], content.get(RESULTS["own"])
    if own:
        print_result(own, part, size_in_words("own"), explained=False)
    masks = any("dice" in scores for scores in network.values())
    print_result(network, part, size_in_words("network", [image_size]) if masks else "")
    if masks and not own:
        print("Masks are compared at the network's size alone: this run does not know the files' own.")
