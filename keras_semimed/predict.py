"""Predicts image files, folders of them and DICOM files with a saved model.

    semimed predict MODEL PATH... --output DIR

MODEL is a `.keras` file, of a run or made by `export`, or a `.onnx` file that `export` made, which needs ONNX Runtime
and no Keras. DIR gets masks/ (PNG in the image's own size, a palette image
whose values are the classes), overlays/, predictions.csv (class probabilities, lesion areas and
uncertainty) and predict.json. A run that was interrupted goes on; files that cannot be predicted are listed at the end
and do not stop the others. The environment variable KERAS_BACKEND chooses tensorflow, jax or torch.

Research software, not a medical device: its output must not guide the care of a patient.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_semimed.parsing import command_parser


def main(arguments: Sequence[str] | None = None, prog: str = "python -m keras_semimed.predict") -> int:
    """Runs the command; returns 0, 1 where files could not be predicted, 2 where nothing more could be."""
    parser = command_parser(prog, "semimed predict", __doc__)
    parser.add_argument("model", type=Path, metavar="MODEL", help="a saved model, *.keras or *.onnx")
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="images, or folders of images")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where masks and table go")
    parser.add_argument("--batch-size", type=int, default=8, help="images a batch (default: %(default)s)")
    parser.add_argument("--flip", action="store_true", help="average each prediction with that of the mirror image")
    parser.add_argument(
        "--labels", nargs="+", default=[], metavar="NAME", help="names of the image classes (default: the model's)"
    )
    parser.add_argument(
        "--keep-aspect",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="pad instead of stretching (default: as the model says that it was trained)",
    )
    parser.add_argument(
        "--intensity-range",
        nargs=2,
        type=float,
        metavar=("BLACK", "WHITE"),
        help="in images of more than 8 bits that do not say it (default: as the model was trained)",
    )
    parser.add_argument(
        "--as-labels",
        action="store_true",
        help="write masks/ and labels.csv as a folder of labelled images has them, to be corrected and trained on",
    )
    parser.add_argument("--no-overlays", action="store_true", help="write masks and table only")
    parser.add_argument("--overwrite", action="store_true", help="begin anew where there are predictions already")
    options = parser.parse_args(arguments)
    if options.batch_size < 1:
        parser.error(f"--batch-size must be at least 1, found {options.batch_size}")
    # Imported late: Keras starts its backend, for which `--help` should not wait.
    from keras_semimed.prediction import OnnxPredictor, Options, find_files, predict_files
    from keras_semimed.text import one_line

    try:
        found = find_files(options.paths, options.output)
        model = OnnxPredictor(options.model) if options.model.suffix == ".onnx" else _keras_model(options.model)
        start = time.perf_counter()
        how = Options(
            options.batch_size,
            options.flip,
            options.keep_aspect,
            None if options.intensity_range is None else tuple(options.intensity_range),
            not options.no_overlays,
            tuple(options.labels),
            options.as_labels,
        )
        report = predict_files(model, found.images, options.output, how, options.overwrite)
    except (OSError, ValueError, ImportError, MemoryError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    seconds = time.perf_counter() - start
    before = f", {report.done_before} were there before" if report.done_before else ""
    rate = f" ({report.predicted / seconds:.1f} images/s)" if report.predicted else ""
    print(f"{report.predicted} images predicted in {seconds:.0f} s{rate}{before}; see {options.output}")
    if report.problems:
        print(f"{len(report.problems)} files could not be predicted:")
        for name, problem in report.problems.items():
            print(one_line(f"  {name}: {problem}"))
    if found.masks:
        shown = one_line(found.masks[0].name)
        print(f"{len(found.masks)} masks beside their images were left out, such as {shown}; name a file to predict it")
    if found.others:
        kinds = sorted({file.suffix.lower() or "no suffix" for file in found.others})
        kinds[9:] = ["..."] if len(kinds) > 9 else []
        print(one_line(f"{len(found.others)} other files were left out: {', '.join(kinds)}"))
    print("Research software, not a medical device.")
    return 1 if report.problems else 0


def _keras_model(path: Path) -> Any:
    from keras_semimed.prediction import KerasPredictor
    from keras_semimed.saved import load_model, reading_of

    model = load_model(path)
    return KerasPredictor(model, reading_of(path))


if __name__ == "__main__":
    sys.exit(main())
