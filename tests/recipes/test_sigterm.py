"""SIGTERM: the state of the next step is saved, and what follows has the same bits, on every backend."""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.recipes.made import assert_same_run
from tests.recipes.test_runs_that_last import ending, one_go, train

__all__ = ["one_go"]

pytestmark = pytest.mark.usefixtures("made_images")


@pytest.mark.parametrize("step", [2, 9])
def test_sigterm_ends_at_the_next_step_and_nothing_is_lost(step, one_go, tmp_path, capsys):
    folder = tmp_path / "run"
    assert train(folder, record=ending(step, lambda _: os.kill(os.getpid(), signal.SIGTERM))) == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    message = capsys.readouterr().err
    assert "ended by SIGTERM" in message and "--resume" in message
    assert not (folder / "lock.json").exists()
    (state,) = sorted(folder.glob("checkpoint-*.json"))[-1:]
    assert json.loads(state.read_text())["step"] == step
    assert train(folder, "--resume") == 0
    assert f"resuming after epoch {step // 3}" in capsys.readouterr().out
    assert_same_run(folder, one_go)
