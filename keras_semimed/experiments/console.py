"""What the recipes print, and how they end."""

from __future__ import annotations

import contextlib
import difflib
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from keras_semimed.experiments.termination import Terminated
from keras_semimed.text import one_line

NOTICE = "Research software, not a medical device: its output must not guide the care of a patient."
GO_ON = "the same command goes on where it stopped"
RESUME = "the same command with --resume goes on from the last state that was saved"
# The result's columns.
COLUMNS = (
    *("dice", "iou", "miou_with_background", "miou_foreground", "nsd_at_", "missed_lesions"),
    *("accuracy", "balanced_accuracy", "auroc"),
)


class RecipeError(Exception):
    """Something the user can mend; shown without a traceback."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`"; did you mean …?"` with the nearest known word; empty where none is near."""
    names = list(known)
    small = word.lower()
    near = difflib.get_close_matches(small, names, n=1) or [name for name in names if word and name.startswith(small)]
    return f"; did you mean {near[0]}?" if near else ""


@contextlib.contextmanager
def input_errors() -> Iterator[None]:
    """Turns what data readers and model constructors say about bad input into a `RecipeError`."""
    try:
        yield
    except (ValueError, OSError, RuntimeError) as error:
        raise RecipeError(str(error)) from error


@contextlib.contextmanager
def naming_flags(data: str, place: str) -> Iterator[None]:
    """Says in what data readers say about bad input which flags it came from.

    Args:
        data: The flag that chose the data.
        place: The flag for where they lie, `manual_dir` of the readers.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        text = str(error).replace("`manual_dir`", place).replace("manual_dir ", f"{place} ")
        raise RecipeError(f"{data}: {text}") from error


def run_main(main: Callable[[], None], when_interrupted: str = "run it again") -> int:
    """Runs a command; bugs keep their traceback.

    Args:
        main: The command.
        when_interrupted: What to do then.

    Returns:
        0 if it ended well, 2 after a `RecipeError` or where a file cannot be read or written, 130 when interrupted from
        the keyboard, 143 by SIGTERM.
    """
    usual, warnings.formatwarning = warnings.formatwarning, _warning  # type: ignore[assignment]
    try:
        main()
    except RecipeError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except MemoryError as error:
        lacks = f" ({one_line(error)})" if str(error) else ""
        print(f"error: there is not enough memory{lacks}; take smaller images, batches or networks", file=sys.stderr)
        return 2
    except Terminated:
        print(f"\nended by SIGTERM; {when_interrupted}", file=sys.stderr)
        return 143
    except OSError as error:  # a disk that is full or read-only, a file that is gone
        print(f"error: {one_line(error)}; when that is mended, {when_interrupted}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\ninterrupted; {when_interrupted}", file=sys.stderr)
        return 130
    finally:
        warnings.formatwarning = usual
    return 0


def _warning(message: Warning | str, *where: Any) -> str:
    """A warning without the line of code that gave it."""
    del where
    return f"warning: {one_line(message)}\n"


def print_section(title: str, values: Mapping[str, Any]) -> None:
    """Prints a title and one `name value` line each, aligned."""
    width = max(map(len, values), default=0)
    print(f"{title}\n" + "".join(f"  {name:<{width}}  {_shown(value)}\n" for name, value in values.items()), flush=True)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a Markdown table with aligned columns."""
    # Imported late, as below: Keras comes with it, for which help and typing errors should not wait.
    from keras_semimed.evaluation.tables import markdown

    print(markdown(header, rows))


def print_result(result: Mapping[str, Mapping[str, float]], part: str, size: str = "", explained: bool = True) -> None:
    """Prints the scores of each set of weights.

    Args:
        result: What `summarize` returned, by the name of the weights.
        part: Part of the split that was scored.
        size: At which masks were compared, in words; empty without masks.
        explained: Whether a sentence below says what the scores of masks are.
    """
    from keras_semimed.evaluation.sizes import measured_in_mm
    from keras_semimed.evaluation.tables import EXPLANATION, titles

    counts = {f"{scores['images']:.0f} images" for scores in result.values()}
    told = f"{counts.pop()}; " if len(counts) == 1 else ""
    where = f"{part} part {size}".rstrip()
    print(f"\nresult on the {where} ({told}mean ± standard deviation over images)")
    columns = titles(dict.fromkeys(key for scores in result.values() for key in scores), COLUMNS)
    columns = columns if told else {"images": "images", **columns}
    rows = [(name, *(_score(scores, key) for key in columns)) for name, scores in result.items()]
    print_table(("weights", *columns.values()), rows)
    for sentence in dict.fromkeys(measured_in_mm(scores) for scores in result.values()):
        if sentence:
            print(sentence)
    if explained and "missed_lesions" in columns:
        print(EXPLANATION)


def _score(scores: Mapping[str, float], key: str) -> str:
    if key not in scores:
        return "-"
    if key == "images":
        return f"{scores[key]:.0f}"
    if key == "missed_lesions":
        return f"{scores[key]:.0f} of {scores['lesion_images']:.0f}"
    deviation = f" ± {scores[f'{key}_std']:.3f}" if f"{key}_std" in scores else ""
    return f"{scores[key]:.3f}{deviation}"


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return "-" if value is None else str(value)
