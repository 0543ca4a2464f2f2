"""The tables of the papers, for comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keras_semimed.files import read_table

PAPERS = {"hermes": "Hermes", "loco": "LoCo"}
_AVERAGED = "it is not said whether Dice and IoU are means over images or of the pixels of all images"
UNDEFINED = {
    "hermes": {"dice": _AVERAGED, "iou": _AVERAGED},
    "loco": {"dice": "Dice (its DSC) is not defined", "nsd": "NSD is not defined and its tolerance not given"},
}
"""What a paper leaves open about its metrics."""
PRIVATE = {"fahsyu_lc": "the data set is private"}


def published_results(paper: str) -> list[dict[str, Any]]:
    """Reads what a paper reports.

    Args:
        paper: `"hermes"` or `"loco"`.

    Returns:
        One dict a method, data set and number of labels: `table`, `data`, `labels` (a number, or a share as a float),
        `method`, `notes` (strings: what the paper leaves open, where it contradicts itself), and its metrics from 0 to
        1 under the keys of `summarize`, such as `dice` and `dice_std` (over runs). `nsd` has no tolerance in its name,
        because none is given.

    Raises:
        ValueError: If the paper is unknown.
    """
    if paper not in PAPERS:
        raise ValueError(f"`paper` must be one of {', '.join(PAPERS)}, found {paper!r}")
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for line in read_table(Path(__file__).parent / "published" / f"{paper}.csv"):
        key = (line["table"], line["data"], line["labels"], line["method"])
        labels = float(line["labels"]) if "." in line["labels"] else int(line["labels"])
        row = found.setdefault(key, {**line, "labels": labels, "notes": []})
        row[line["metric"]] = float(line["value"]) / 100
        if line["std"]:
            row[f"{line['metric']}_std"] = float(line["std"]) / 100
        if line["note"]:
            row["notes"].append(line["note"])
    for row in found.values():
        for name in ("metric", "value", "std", "note"):
            del row[name]
        row["notes"] += [note for metric, note in UNDEFINED[paper].items() if metric in row]
        row["notes"] += [note for data, note in PRIVATE.items() if data == row["data"]]
        row["notes"] = list(dict.fromkeys(row["notes"]))
    return list(found.values())
