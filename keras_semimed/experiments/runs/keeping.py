"""What a run keeps of a model that is trained and scored: the model, tables, cases and embeddings, and what it cost."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from keras_semimed.data import ImageSet
from keras_semimed.evaluation import save_overlays
from keras_semimed.evaluation.cases import Cases, collect_cases
from keras_semimed.evaluation.embeddings import collect_embeddings
from keras_semimed.evaluation.images import Row
from keras_semimed.evaluation.report import ATTENTION, CASES, EMBEDDINGS, PSEUDO_LABELS, PSEUDO_MASKS
from keras_semimed.evaluation.sizes import TABLES
from keras_semimed.experiments.runs.run_folder import METRICS, RunFolder
from keras_semimed.experiments.runs.scores import Scored
from keras_semimed.models import SemiSupervisedModel

FILES = (
    *(METRICS, "split.txt", *TABLES.values(), "model.keras"),
    *(CASES, EMBEDDINGS, PSEUDO_LABELS, PSEUDO_MASKS, ATTENTION),
)
"""What reports and comparisons are made of."""


class Cost(NamedTuple):
    """What a run took."""

    training_seconds: float
    """Of all sittings."""
    scoring_since: float
    """When scoring began, by `time.perf_counter`."""


def sets_of(model: SemiSupervisedModel) -> tuple[str, ...]:
    """Names of the weights that are scored, those that count last: what the saved model predicts with."""
    if model.teacher is None:
        return ("last",)
    return ("last", "teacher") if model.teacher_predicts else ("teacher", "last")


def keep(
    model: SemiSupervisedModel,
    images: ImageSet,
    scored: Scored,
    rows: list[Row],
    folder: RunFolder,
    noted: Mapping[str, str],
    cost: Cost,
) -> None:
    """Writes all that a run leaves but its report, and notes its result.

    Args:
        model: Predicts with the weights that count.
        images: What it was scored on.
        scored: The scores of all weights.
        rows: Of the weights that count.
        folder: The run's.
        noted: What the saved model says of its data: `data_set`, `split` and `scored`, see `Provenance`.
        cost: What the run took so far.
    """
    scored.write(folder.path)
    assert model.provenance is not None  # noted before training
    shown = scored.shown(sets_of(model)[-1])
    model.provenance = dataclasses.replace(model.provenance, **noted, scores=shown)  # type: ignore[arg-type]
    folder.save_model(model)
    keep_for_the_report(model, images, rows, folder, scored.batch_size)
    took = {
        "training_seconds": round(cost.training_seconds, 1),
        "scoring_seconds": round(time.perf_counter() - cost.scoring_since, 1),
        "peak_memory_mib": peak_memory_mib(),
    }
    folder.finish(list(FILES), **scored.content(), cost=took)


def keep_for_the_report(
    model: SemiSupervisedModel, images: ImageSet, rows: list[Row], folder: RunFolder, size: int
) -> None:
    """Pictures of the worst, median and best cases and embeddings, by the weights of `rows`, `size` images at once."""
    cases = collect_cases(model, images.images, images.masks, rows, images.class_names, size)
    if cases is not None:
        cases.save(folder.path / CASES)
        draw_cases(cases, rows, folder.path / "overlays")
    found = collect_embeddings(model, images.images, images.masks, images.labels, images.class_names, size)
    if found is not None:
        found.save(folder.path / EMBEDDINGS)


def draw_cases(cases: Cases, rows: list[Row], folder: Path) -> None:
    """One file a case."""
    if cases.truths is None or cases.predictions is None:
        return
    by_name, classes = {row["name"]: row for row in rows}, dict(enumerate(cases.class_names))
    captions = []
    for name in cases.names:
        row = by_name[name]
        facts = [f"{name}: Dice {row['dice']:.2f}"]
        facts += [classes.get(row["label"], f"class {row['label']}")] if "label" in row else []
        facts += [f"predicted {classes.get(row['prediction'], row['prediction'])}"] if "prediction" in row else []
        captions.append(", ".join(facts))
    save_overlays(folder, cases.images, cases.truths, cases.predictions, cases.names, captions)


def peak_memory_mib() -> int | None:
    """Largest resident size of this process so far, without an accelerator's memory; None where it is unknown."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 2**20 if sys.platform == "darwin" else peak / 2**10)
