"""Builds the API reference into build/docs: a page a public module. A warning of the docs tool is an error."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import typing
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "build" / "docs"
MODULES = (
    "callbacks",
    "data",
    "evaluation",
    "export",
    "layers",
    "losses",
    "metrics",
    "models",
    "networks",
    "optimizers",
    "prediction",
    "thresholds",
)


def main() -> None:
    """Renders the pages and prints where they begin."""
    # pdoc refuses commands while it imports; h5py asks for the processor's name that way.
    os.environ["PDOC_ALLOW_EXEC"] = "1"
    sys.path.insert(0, str(ROOT))
    import pdoc

    warnings.filterwarnings("error", module=r"pdoc\b")
    shutil.rmtree(OUTPUT, ignore_errors=True)
    pdoc.render.configure(
        docformat="google",
        footer_text="keras_semimed: research software, not a medical device",
        template_directory=ROOT / ".ci" / "pdoc",
    )
    evaluate_named_tuples()
    # Without the modules that a function of the package has the name of.
    hidden = ("!keras_semimed.evaluation.report", "!keras_semimed.evaluation.published_results")
    pdoc.pdoc(*(f"keras_semimed.{name}" for name in MODULES), *hidden, output_directory=OUTPUT)
    print(OUTPUT / "index.html")


def evaluate_named_tuples() -> None:
    """Puts types for the names of types in named tuples' constructors, which no namespace that pdoc looks in has."""
    for name in MODULES:
        for value in vars(importlib.import_module(f"keras_semimed.{name}")).values():
            if isinstance(value, type) and issubclass(value, tuple) and hasattr(value, "_fields"):
                value.__new__.__annotations__ = typing.get_type_hints(value)


if __name__ == "__main__":
    main()
