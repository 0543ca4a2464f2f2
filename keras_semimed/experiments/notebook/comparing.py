"""Comparisons of finished runs in a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_semimed.evaluation.sizes import Size
from keras_semimed.experiments.comparison.compare import compare_folders
from keras_semimed.experiments.notebook.arguments import naming_arguments


def compare(
    runs: Mapping[str, Any] | Sequence[Any],
    baseline: str | None = None,
    published: str | None = None,
    size: Size | None = None,
    require_pairs: bool = True,
    files: Mapping[str, str | Path] | None = None,
) -> list[dict[str, Any]]:
    """Compares finished runs on the same test images, as `semimed compare` does: means, and paired differences.

    ```python
    table = compare(["runs/supervised", "runs/fixmatch"])
    table = compare({"supervised": ["runs/s0", "runs/s1"], "fixmatch": ["runs/f0", "runs/f1"]})  # over seeds
    ```

    Args:
        runs: Each a `Run` or its folder. By the name of a group: one, or those of several seeds. Without names the
            folders' own are taken.
        baseline: Name of the group that the others are compared with; None takes the first one.
        published: Paper whose rows to show beside, `"hermes"` or `"loco"`.
        size: At which masks are compared, `"network"` or `"own"`; None takes the images' own where all runs have it.
        require_pairs: Refuse runs that cannot be paired with the baseline's; False shows their means, with a note.
        files: Files to write by `"csv"`, `"markdown"` and `"latex"`.

    Returns:
        The rows of the printed tables: a dict a group and kind of weights, with `dice`, `dice_difference`, `dice_low`,
        `dice_high`, `dice_p` and so on.

    Raises:
        ValueError: If there is no run, one is not finished, or runs cannot be compared; the message says why.
    """
    written = {kind: Path(path) for kind, path in (files or {}).items()}
    if strange := sorted(written.keys() - {"csv", "markdown", "latex"}):
        raise ValueError(f"`files` can be of 'csv', 'markdown' and 'latex', found {strange[0]!r}")
    with naming_arguments():
        return compare_folders(groups_of(runs), baseline, published, None, written, require_pairs, size)


def groups_of(runs: Mapping[str, Any] | Sequence[Any]) -> dict[str, list[Path]]:
    """Folders of runs by the name of their group.

    Args:
        runs: As in `compare`.

    Raises:
        ValueError: If there is none, or two groups have one name.
    """
    if isinstance(runs, Mapping):
        groups = {str(name): [_folder(run) for run in _several(some)] for name, some in runs.items()}
    else:
        folders = [_folder(run) for run in _several(runs)]
        groups = {folder.resolve().name: [folder] for folder in folders}
        if len(groups) < len(folders):
            raise ValueError("`runs`: two folders have one name; give names, compare({'first': ..., 'second': ...})")
    if not groups or not all(groups.values()):
        raise ValueError("`runs` has no run, or a group without one; give at least one each")
    return groups


def _several(runs: Any) -> list[Any]:
    return list(runs) if isinstance(runs, list | tuple) else [runs]


def _folder(run: Any) -> Path:
    try:
        return Path(run)
    except TypeError:
        raise ValueError(f"`runs` must hold runs or their folders, found {type(run).__name__}") from None
