"""Tells what a data set is, prepares or packs it, or brings annotations from and to annotation tools.

    semimed data list
    semimed data describe busi
    semimed data prepare busi --manual-dir Dataset_BUSI_with_GT
    semimed data pack busi --manual-dir Dataset_BUSI_with_GT --output busi_224.npz
    semimed data convert EXPORT --images scans --output my_images

`semimed data pack --help` and `semimed data convert --help` tell more.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from keras_semimed.cli import pack
from keras_semimed.data.cards import CARDS, describe
from keras_semimed.experiments.console import RecipeError, naming_flags, run_main
from keras_semimed.parsing import command_parser


def main(arguments: Sequence[str] | None = None, prog: str = "semimed data") -> int:
    """Runs the command and returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["pack"]:
        return pack.main(words[1:], f"{prog} pack")
    if words[:1] == ["convert"]:
        from keras_semimed.data import convert

        return convert.main(words[1:], f"{prog} convert")
    parser = command_parser(prog, "semimed data", __doc__)
    parser.add_argument("action", choices=("list", "describe", "prepare", "pack", "convert"), help="what to do")
    parser.add_argument("name", nargs="?", choices=tuple(CARDS), metavar="NAME", help=", ".join(CARDS))
    parser.add_argument("--manual-dir", type=Path, help="prepare: folder or zip that was downloaded by hand")
    parser.add_argument("--data-dir", type=Path, help="prepare: where TFDS keeps it (default: TFDS' own)")
    options = parser.parse_args(words)
    if options.action == "list":
        for name, facts in CARDS.items():
            print(f"{name:<{max(map(len, CARDS))}}  {facts.title}")
        return 0
    if options.name is None:
        parser.error(f"NAME is missing: one of {', '.join(CARDS)}")
    if options.action == "describe":
        describe(options.name)
        return 0
    return run_main(lambda: _prepare(options.name, options.manual_dir, options.data_dir))


def _prepare(name: str, manual_dir: Path | None, data_dir: Path | None) -> None:
    from keras_semimed.data import tfds

    if not tfds.available():
        raise RecipeError("preparing a data set needs TensorFlow and tensorflow-datasets; without them it is read anew")
    with naming_flags(name, "--manual-dir"):
        builder = tfds.prepared_builder(name, manual_dir, data_dir)
    count = sum(split.num_examples for split in builder.info.splits.values())
    print(f"{name}: {count} images are prepared in {builder.data_dir}")


if __name__ == "__main__":
    sys.exit(main())
