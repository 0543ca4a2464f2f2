"""SIGTERM: the state of the next step is saved, and what follows has the same bits, on every backend.

Commands that run others hand it on, and wait.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from keras_semimed.experiments import termination
from keras_semimed.experiments.comparison import sweep
from recipes import protocol
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


CHILD = """#!{python}
import pathlib, signal, sys, time
def end(number, frame):
    time.sleep(0.3)
    pathlib.Path({folder!r}, "saved").write_text(str(number))
    sys.exit(143)
signal.signal(signal.SIGTERM, end)
pathlib.Path({folder!r}, "ready").touch()
time.sleep(60)
"""


@pytest.fixture
def child(tmp_path, monkeypatch) -> Iterator[Path]:
    """A folder; what commands run takes a while to save there at SIGTERM, and notes that it did."""
    script = tmp_path / "python"
    script.write_text(CHILD.format(python=sys.executable, folder=str(tmp_path)))
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    monkeypatch.setattr(protocol, "write_splits", lambda *_: None)
    monkeypatch.setattr(termination, "GRACE", 0.1)
    # What a shell starts in the background is made to ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield tmp_path
    signal.signal(signal.SIGINT, before)


def send(folder: Path, number: signal.Signals) -> None:
    """Sends this process a signal once the child listens, and SIGTERM again while it saves."""
    while not (folder / "ready").exists():
        time.sleep(0.02)
    os.kill(os.getpid(), number)
    if number == signal.SIGTERM:
        time.sleep(0.6)
        os.kill(os.getpid(), number)


@pytest.mark.skipif(os.name == "nt", reason="signals between processes are POSIX'")
@pytest.mark.parametrize(
    ("number", "code", "sentence"),
    [(signal.SIGTERM, 143, "ended by SIGTERM; "), (signal.SIGINT, 130, "interrupted; ")],
)
@pytest.mark.parametrize("main", [protocol.main, sweep.main])
def test_commands_that_run_others_hand_it_on_and_wait(main, number, code, sentence, child, capsys):
    places = ["--output", str(child / "output"), *(["--work", str(child)] if main is protocol.main else [])]
    sender = threading.Thread(target=send, args=(child, number), daemon=True)
    sender.start()
    assert main(["S" if main is protocol.main else "loco_table_4", *places]) == code
    sender.join()
    assert (child / "saved").read_text() == str(int(signal.SIGTERM))
    assert capsys.readouterr().err == f"\n{sentence}the same command goes on where it stopped\n"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_child_that_ends_by_itself_gives_its_code():
    assert termination.run_child([sys.executable, "-c", "raise SystemExit(3)"]) == 3
