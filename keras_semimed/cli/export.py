"""Makes a trained model into one for prediction alone, and writes a model card beside it.

    semimed export runs/x model.onnx
    semimed export runs/x/model.keras small.keras

The suffix says the format: .keras, .onnx, .tflite, or none for a TensorFlow SavedModel. What was written is run on
random images and compared with the model before it is kept.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from keras_semimed.experiments.console import RecipeError, input_errors, run_main
from keras_semimed.parsing import command_parser
from keras_semimed.source import members


def main(arguments: Sequence[str] | None = None, prog: str = "semimed export") -> int:
    """Writes the file and returns the exit code: 0, or 2 where it cannot be made."""
    parser = command_parser(prog, "semimed export", __doc__)
    parser.add_argument("model", type=Path, metavar="MODEL", help="a run's folder, or its model.keras")
    parser.add_argument("output", type=Path, metavar="FILE", help="file or folder to write; it must not be there yet")
    formats = tuple(members("keras_semimed.export:FORMATS"))
    parser.add_argument("--format", choices=formats, help="default: by the suffix of FILE")
    parser.add_argument(
        "--no-saliency",
        action="store_true",
        help="zeros in the place of Hermes' saliency map, a gradient, which ONNX and LiteRT cannot express",
    )
    parser.add_argument(
        "--recompute-statistics",
        action="store_true",
        help="with BatchNorm statistics taken anew from the plain training images; MODEL must then be a run's folder",
    )
    options = parser.parse_args(arguments)

    def run() -> None:
        path = options.model / "model.keras" if options.model.is_dir() else options.model
        if not path.is_file():
            raise RecipeError(f"{path} is not there; give the folder of a finished run, or a saved model")
        if options.recompute_statistics and not options.model.is_dir():
            raise RecipeError(f"--recompute-statistics needs the folder of a run, found the file {options.model}")
        # Imported late: Keras starts its backend, for which help and typing errors should not wait.
        from keras_semimed.export import export
        from keras_semimed.saved import load_model

        with input_errors():
            model = load_model(path)
            if options.recompute_statistics:
                from keras_semimed.experiments.runs.training_images import training_images
                from keras_semimed.models import recompute_statistics

                if model.provenance is None:
                    raise RecipeError(f"{path} does not say which images it has learnt from; train it again")
                recompute_statistics(model, training_images(options.model, model.provenance.data))
                # Its scores are those of the statistics before.
                model.provenance = dataclasses.replace(model.provenance, scored="", scores={})
            try:
                export(model, options.output, options.format, saliency=not options.no_saliency)
            except (TypeError, ImportError) as error:
                raise RecipeError(str(error)) from error
        print(f"{options.output}\n{options.output}.md")

    return run_main(run)


if __name__ == "__main__":
    sys.exit(main())
