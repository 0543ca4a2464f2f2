"""From data and a method to a finished run with a report, and comparisons between runs.

The command `semimed` works with what is below; in a notebook `Run` and `compare` do the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_semimed.lazy import lazy

if TYPE_CHECKING:
    from keras_semimed.experiments.notebook.comparing import compare
    from keras_semimed.experiments.notebook.run import Result, Run

__all__ = ["Result", "Run", "compare"]

__getattr__ = lazy(__name__, {"Result": "notebook.run", "Run": "notebook.run", "compare": "notebook.comparing"})
