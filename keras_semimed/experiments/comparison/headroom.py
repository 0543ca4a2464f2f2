"""Whether runs are long enough to tell methods apart: what the truth would gain, and what more steps would."""

from __future__ import annotations

import math
from collections.abc import Sequence

from keras_semimed.evaluation.compare import Difference, paired_scores
from keras_semimed.experiments.comparison.finished_runs import Groups, Run, pair_runs
from keras_semimed.experiments.console import RecipeError

SCORES = {"dice": "Dice", "accuracy": "accuracy"}
LAST = "last"
TOO_SHORT = "the interval includes 0: too short to tell methods apart"


def headroom(groups: Groups) -> list[str]:
    """Sentences about the groups: oracle minus supervised, and supervised training twice as long minus once.

    Args:
        groups: Runs by group. An oracle learns from the true targets of the unlabelled images.

    Returns:
        A sentence a pair of groups that has common seeds and steps; none without such groups.
    """
    supervised = {name: runs for name, runs in groups.items() if all(run.method == "supervised" for run in runs)}
    oracles = {name: runs for name, runs in groups.items() if all(run.oracle for run in runs)}
    found = []
    for name, runs in oracles.items():
        for other, base in supervised.items():
            if _steps(runs) == _steps(base) and (gain := _difference(runs, base, name, other)):
                text = f"headroom, {name} - {other}: {_shown(gain)}"
                if not gain[1].low > 0:
                    text += f"; {TOO_SHORT}"
                found.append(text)
    for name, runs in supervised.items():
        for other, base in supervised.items():
            twice = _steps(base) and _steps(runs) == 2 * (_steps(base) or 0)
            if twice and (gain := _difference(runs, base, name, other)):
                full = not (gain[1].low > 0 or gain[1].high < 0)
                state = "no sign that it is not saturated" if full else "not saturated"
                found.append(f"saturation, {name} - {other}, twice the steps: {_shown(gain)}; {state}")
    return found


def _steps(runs: Sequence[Run]) -> int | None:
    """The number of steps that all of them have."""
    steps = {run.steps for run in runs}
    return steps.pop() if len(steps) == 1 else None


def _difference(runs: Sequence[Run], base: Sequence[Run], name: str, other: str) -> tuple[str, Difference] | None:
    try:
        pairs = pair_runs(runs, base, name, other)
    except RecipeError:
        return None
    found = paired_scores([(run.rows[LAST], twin.rows[LAST]) for run, twin in pairs])
    return next(((title, found[key]) for key, title in SCORES.items() if key in found), None)


def _shown(gain: tuple[str, Difference]) -> str:
    mean, low, high = (100 * value for value in gain[1])
    return f"{mean:+.1f} {gain[0]}" + ("" if math.isnan(low) else f" [{low:+.1f}, {high:+.1f}]")
