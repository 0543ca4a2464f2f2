"""One self-contained page about a finished run."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_semimed.evaluation.cases import GROUPS, Cases
from keras_semimed.evaluation.embeddings import Embeddings
from keras_semimed.evaluation.figures import overlay, rgb
from keras_semimed.evaluation.gallery import sheet
from keras_semimed.evaluation.gates import gate_figures, gate_sentences
from keras_semimed.evaluation.images import Row, read_rows
from keras_semimed.evaluation.masks import HD95_MM, NSD
from keras_semimed.evaluation.pictures import heat, image_uri
from keras_semimed.evaluation.pseudo_masks import SELECTIONS, PseudoMasks
from keras_semimed.evaluation.report_figures import (
    calibration_figure,
    confusion_figure,
    embedding_figure,
    learning_figures,
    pseudo_label_figures,
    score_figures,
    truth_figures,
)
from keras_semimed.evaluation.report_result import result_content
from keras_semimed.evaluation.sizes import RESULTS, TABLES, Size
from keras_semimed.evaluation.tables import titles
from keras_semimed.evaluation.threshold_figure import epoch_columns
from keras_semimed.files import check_digests, read_sealed, read_table, whole_file

NAME = "report.html"
CASES = "cases.npz"
EMBEDDINGS = "embeddings.npz"
PSEUDO_LABELS = "pseudo_labels.json"
PSEUDO_MASKS = "pseudo_labels.npz"
ATTENTION = "attention.json"
SHOWN = (TABLES["own"], CASES, EMBEDDINGS, PSEUDO_LABELS, PSEUDO_MASKS, ATTENTION)
"""What the page shows where it is there."""


def report(folder: str | Path) -> Path:
    """Writes `report.html` into the folder of a finished run: everything about it on one page, without any other file.

    It shows what the folder holds: `config.json` (configuration, versions, split, result, cost), `metrics.csv` (a row
    an epoch), `images.csv` (rows of `evaluate_images`, with a column `weights`), and, where they are there,
    `images_own_size.csv` (the same at the images' own size, which then stands first), `cases.npz`
    (`Cases`), `embeddings.npz` (`Embeddings`), `pseudo_labels.json` and `pseudo_labels.npz` (`PseudoLabelMonitor`), and
    `attention.json` (`AttentionMonitor`). Neither the model nor the data are read. A file of these that the run wrote
    and that is gone is named, by a warning and on the page.

    Args:
        folder: Output folder of a recipe.

    Returns:
        Path of the page.

    Raises:
        ValueError: If the folder is not that of a finished run; it says what is missing.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    folder = Path(folder)
    config, history, rows = _read_run(folder)
    if gone := ", ".join(_gone(folder, config)):
        warnings.warn(f"{folder} has lost {gone}; the report does without", stacklevel=2)
    environment = Environment(
        loader=PackageLoader("keras_semimed.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.jinja").render(_content(folder, config, history, rows), gone=gone)
    with whole_file(folder / NAME) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return folder / NAME


def _read_run(folder: Path) -> tuple[dict[str, Any], dict[str, list[float]], dict[Size, list[Row]]]:
    """Content of `config.json`, of `metrics.csv` and of the tables of rows."""
    try:
        config = read_sealed(folder / "config.json", sealed=False)
        check_digests(folder, config.get("files", {}), list(config.get("files", {})))
        history = _history(folder / "metrics.csv")
        rows: dict[Size, list[Row]] = {"network": read_rows(folder / TABLES["network"])}
        if RESULTS["own"] in config and (folder / TABLES["own"]).exists():
            rows["own"] = read_rows(folder / TABLES["own"])
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} is not the folder of a run ({error})") from error
    if not isinstance(config, dict) or not {"recipe", "configuration", "runtime", "split"} <= config.keys():
        raise ValueError(
            f"{folder / 'config.json'} is not that of a run: it lacks recipe, configuration, runtime or split"
        )
    if "result" not in config:
        raise ValueError(f"{folder} holds a run that is not finished; go on with it first")
    if not history:
        raise ValueError(f"{folder / 'metrics.csv'} holds no epoch")
    for size, found in rows.items():
        if not found or "weights" not in found[0]:
            raise ValueError(f"{folder / TABLES[size]} holds no rows of images with the column 'weights'")
    return config, history, rows


def _gone(folder: Path, config: Mapping[str, Any]) -> list[str]:
    """Files that the run wrote, the page would show, and are not there any more."""
    return [name for name in SHOWN if name in config.get("files", {}) and not (folder / name).exists()]


def _history(path: Path) -> dict[str, list[float]]:
    table = read_table(path)
    try:
        return epoch_columns(table)
    except ValueError as error:
        raise ValueError(f"{path} holds what is no number ({error})") from error


def _content(
    folder: Path, config: dict[str, Any], history: dict[str, list[float]], rows: dict[Size, list[Row]]
) -> dict[str, Any]:
    """What the template shows."""
    shown, scores = result_content(config, rows)
    cases = Cases.load(folder / CASES) if (folder / CASES).exists() else None
    embeddings = Embeddings.load(folder / EMBEDDINGS) if (folder / EMBEDDINGS).exists() else None
    pseudo_labels = pseudo_label_figures(history)
    try:
        if (folder / PSEUDO_LABELS).exists():
            pseudo_labels += truth_figures(read_sealed(folder / PSEUDO_LABELS, sealed=False))
        pseudo_masks = pseudo_mask_rows(folder / PSEUDO_MASKS)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{PSEUDO_LABELS} or {PSEUDO_MASKS} in {folder} is not what PseudoLabelMonitor wrote ({error!r})"
        ) from error
    figures = score_figures(shown)
    class_names = () if cases is None else cases.class_names
    of_classes = (confusion_figure(shown, class_names), calibration_figure(shown))
    figures += [figure for figure in of_classes if figure is not None]
    figures += [] if embeddings is None else [embedding_figure(embeddings)]
    configuration = config["configuration"]
    return {
        "title": f"{config['recipe']}: {_what_ran(configuration)}",
        "subtitle": ", ".join(
            f"{name} {_text(configuration[key])}"
            for key, name in {"data": "data", "labeled": "labelled", "steps": "steps", "seed": "seed"}.items()
            if key in configuration
        ),
        "configuration": {name: _text(value) for name, value in configuration.items()},
        "runtime": config["runtime"],
        "split": {name.replace("_", " "): _text(value) for name, value in _split(config).items()},
        "scored": config["split"]["scored"],
        **scores,
        "leaks": _leaks(config["split"]),
        "learning": learning_figures(history),
        "gates": gates(folder / ATTENTION),
        "pseudo_labels": pseudo_labels,
        "pseudo_masks": pseudo_masks,
        "figures_of_scores": figures,
        "gallery": {} if cases is None else gallery(cases, shown),
        "sheet": None if cases is None else sheet(cases),
        "maps": [] if cases is None else map_rows(cases),
        "cost": _cost(config),
    }


def gallery(cases: Cases, rows: Sequence[Row]) -> dict[str, list[dict[str, Any]]]:
    """Cards by group: panels (title and picture) and lines of text."""
    by_name = {row["name"]: row for row in rows}
    found: dict[str, list[dict[str, Any]]] = {group: [] for group in GROUPS}
    for index, (group, name) in enumerate(zip(cases.groups, cases.names, strict=True)):
        image = rgb(cases.images[index])
        panels = [("image", image_uri(image))]
        if cases.truths is not None and cases.predictions is not None:
            truth, prediction = cases.truths[index], cases.predictions[index]
            nothing = np.zeros_like(truth)
            panels += [
                ("truth", image_uri(overlay(image, truth, nothing))),
                ("prediction", image_uri(overlay(image, nothing, prediction))),
                ("both", image_uri(overlay(image, truth, prediction))),
            ]
        row = by_name.get(name, {})
        found[group].append({"name": name, "panels": panels, "facts": _facts(row, cases.class_names)})
    return {group: cards for group, cards in found.items() if cards}


def map_rows(cases: Cases) -> list[dict[str, Any]]:
    """The first case of each group with its saliency and attention maps."""
    if not cases.maps:
        return []
    found = []
    for group in dict.fromkeys(cases.groups):
        index = list(cases.groups).index(group)
        image = rgb(cases.images[index])
        panels = [("image", image_uri(image))]
        for title, values in cases.maps.items():
            low, high = values[index].min(), values[index].max()
            panels.append((f"{title}: {low:.2f} to {high:.2f}", image_uri(heat(image, values[index]))))
        found.append({"name": cases.names[index], "panels": panels})
    return found


def pseudo_mask_rows(path: Path) -> dict[int, list[list[tuple[str, str]]]]:
    """Panels (title and picture) of the pseudo-masks under each selection, by epoch and image; none without a file."""
    if not path.exists():
        return {}
    masks = PseudoMasks.load(path)
    return {
        epoch: [
            [("image", image_uri(rgb(image)))]
            + [
                (SELECTIONS[name], image_uri(overlay(image, masks.truths[index], kept[index])))
                for name, kept in selections.items()
            ]
            for index, image in enumerate(masks.images)
        ]
        for epoch, selections in masks.epochs().items()
    }


def gates(path: Path) -> dict[str, Any]:
    """Figures and sentences about the attention gates; empty without a file.

    Raises:
        ValueError: If it is not what `AttentionMonitor` writes.
    """
    if not path.exists():
        return {}
    try:
        watched = read_sealed(path, sealed=False)
        return {"figures": gate_figures(watched), "sentences": gate_sentences(watched["history"][-1])}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"{path} is not what AttentionMonitor wrote ({error!r})") from error


def _facts(row: Row, class_names: Sequence[str]) -> list[str]:
    facts = []
    if "dice" in row:
        facts.append(f"Dice {row['dice']:.2f}")
    facts += [f"{title} {row[key]:.2f}" for key, title in titles(row, (NSD,)).items()]
    facts += [f"HD95 {row[key]:.1f} {unit}" for key, unit in (("hd95", "px"), (HD95_MM, "mm")) if key in row]
    if row.get("missed"):
        facts.append("missed")
    if "prediction" in row:
        names = dict(enumerate(class_names))
        predicted = names.get(row["prediction"], row["prediction"])
        probability = row.get(f"probability_{row['prediction']}")
        facts.append(f"predicted {predicted}" + ("" if probability is None else f" ({probability:.0%})"))
        if "label" in row:
            facts.append(f"truly {names.get(row['label'], row['label'])}")
    return facts


def _what_ran(configuration: dict[str, Any]) -> str:
    """The method, and which rung of it or that it is its control."""
    parts = [configuration.get("method", "run"), configuration.get("rung")]
    return " ".join(part for part in (*parts, "control" if configuration.get("control") else None) if part)


def _split(config: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes and hash, and what else the run knows about its split, such as leaks."""
    split = {"data": config["configuration"].get("data"), **config["split"]}
    return {**split.pop("sizes", {}), **split}


def _leaks(split: Mapping[str, Any]) -> str:
    """What the run counted of near-duplicates; empty where there are none, or it could not know."""
    counted = str(split.get("leaks", ""))
    return counted if counted[:1] in set("123456789") else ""


def _cost(config: Mapping[str, Any]) -> dict[str, str]:
    cost, steps = config.get("cost", {}), config["configuration"].get("steps")
    found = {}
    if "training_seconds" in cost:
        seconds = cost["training_seconds"]
        found["training"] = f"{seconds:.0f} s" + (f", {seconds / steps:.2f} s a step" if steps else "")
    if "scoring_seconds" in cost:
        found["scoring"] = f"{cost['scoring_seconds']:.0f} s"
    if cost.get("peak_memory_mib") is not None:
        found["peak memory of the process"] = f"{cost['peak_memory_mib']:,} MiB, without an accelerator's"
    return found


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return "-" if value is None else str(value)
