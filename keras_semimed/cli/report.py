"""Writes the report of a finished run again: report.html in its folder, one page without any other file.

semimed report runs/hermes
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from keras_semimed.experiments.console import RecipeError, run_main
from keras_semimed.parsing import command_parser


def main(arguments: Sequence[str] | None = None, prog: str = "semimed report") -> int:
    """Writes the pages and returns the exit code: 0, or 2 for a folder that holds no finished run."""
    parser = command_parser(prog, "semimed report", __doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", type=Path, help="output folder of a recipe")
    options = parser.parse_args(arguments)
    return run_main(lambda: _run(options.runs))


def _run(folders: Sequence[Path]) -> None:
    # Imported late: Keras starts its backend, for which `--help` should not wait.
    from keras_semimed.evaluation import report

    for folder in folders:
        if not (folder / "images.csv").exists() and (folder / "config.yaml").exists():
            raise RecipeError(f"{folder} is not finished: the command of the run with --resume goes on")
        try:
            print(report(folder))
        except ValueError as error:
            raise RecipeError(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
