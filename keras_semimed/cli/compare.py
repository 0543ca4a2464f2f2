"""Compares finished runs on the same images: means over seeds, and paired differences with 95 % intervals.

    semimed compare supervised=runs/s0,runs/s1,runs/s2 hermes=runs/h0,runs/h1,runs/h2 --baseline supervised

A run is the output folder of a recipe; a group NAME=RUN,RUN,... holds the seeds of one configuration; a run on its own
is a group called like its folder. Runs are paired by seed, as far as both groups have it, images by name, weights by
kind (last with last, teacher with teacher). The interval is over images: what all seeds scored on one image is one
piece of evidence. It says how far the choice of test images moves the difference, and so does p, of a sign-flip
permutation test over images; the standard deviation over seeds says how far training does.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from keras_semimed.experiments.console import run_main
from keras_semimed.parsing import command_parser
from keras_semimed.source import constant


def main(arguments: Sequence[str] | None = None, prog: str = "semimed compare") -> int:
    """Prints the comparison and returns the exit code: 0, or 2 for runs that cannot be compared."""
    parser = command_parser(prog, "semimed compare", __doc__)
    parser.add_argument("groups", nargs="+", metavar="RUN", help="a run's folder, or NAME=RUN,RUN,... (its seeds)")
    parser.add_argument("--baseline", help="name of the group to compare with (default: the first one)")
    parser.add_argument(
        "--published",
        choices=constant("keras_semimed.evaluation.published_results:PAPERS"),
        help="also show what this paper reports on the same data",
    )
    parser.add_argument(
        "--size",
        choices=("own", "network"),
        help="compare masks at the files' own size or at the network's (default: own where all runs have it)",
    )
    parser.add_argument("--csv", type=Path, help="also write all scores, unrounded, to this file")
    parser.add_argument("--markdown", type=Path, help="also write the printed tables to this file")
    parser.add_argument("--latex", type=Path, help="also write the printed tables to this file, for booktabs")
    options = parser.parse_args(arguments)
    files = {kind: path for kind in ("csv", "markdown", "latex") if (path := getattr(options, kind))}

    def run() -> None:
        # Imported late: Keras comes with it, for which help and typing errors should not wait.
        from keras_semimed.experiments.comparison.compare import compare_folders, parse_groups

        groups = parse_groups(options.groups)
        compare_folders(groups, options.baseline, options.published, files=files, size=options.size)

    return run_main(run)


if __name__ == "__main__":
    sys.exit(main())
