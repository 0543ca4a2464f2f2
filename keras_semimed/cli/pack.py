"""Packs a data set into one small file: decoded and resized once, to be moved to another machine.

    semimed data pack busi --manual-dir Dataset_BUSI_with_GT --image-size 224 --output busi_224.npz
    semimed train busi --manual-dir busi_224.npz --image-size 224 ...

Training from the file gives what training from the folder gives. It needs neither TensorFlow nor image readers.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from keras_semimed.data.cards import CARDS
from keras_semimed.experiments.console import RecipeError, naming_flags, run_main
from keras_semimed.parsing import command_parser


def main(arguments: Sequence[str] | None = None, prog: str = "semimed data pack") -> int:
    """Packs a data set and returns the exit code."""
    parser = command_parser(prog, "semimed data pack", __doc__)
    parser.add_argument("data", choices=tuple(CARDS), help="data set")
    parser.add_argument("--manual-dir", type=Path, help="where the images lie")
    parser.add_argument("--data-dir", type=Path, help="where TFDS keeps prepared data")
    parser.add_argument("--image-size", type=int, default=224, help="height and width of the images in pixels (224)")
    parser.add_argument("--output", type=Path, required=True, help="file to write, NAME.npz")
    options = parser.parse_args(arguments)

    def run() -> None:
        from keras_semimed.data import loading
        from keras_semimed.data.packed import is_packed, pack

        if not is_packed(options.output):
            raise RecipeError(f"--output {options.output} must end with .npz")
        with naming_flags(options.data, "--manual-dir"):
            images = loading.load_image_set(options.data, options.image_size, options.manual_dir, options.data_dir)
        pack(images, options.data, options.output)
        print(f"{options.output}: {len(images)} images, {options.output.stat().st_size / 2**20:.1f} MiB")

    return run_main(run)


if __name__ == "__main__":
    sys.exit(main())
