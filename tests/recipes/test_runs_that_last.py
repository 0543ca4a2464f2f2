"""Runs that are ended, killed, short of room or damaged: nothing is lost, and nothing damaged is trusted."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import pytest

from benchmarks.broken_runs import DAMAGES, damage
from keras_semimed import files
from keras_semimed.cli.report import main as report_main
from keras_semimed.evaluation import report
from keras_semimed.experiments.console import RecipeError
from keras_semimed.experiments.runs import experiment, lock
from recipes.train import main
from tests.recipes.made import Kept, assert_same_run

FLAGS = (
    "phantom_ultrasound --method fixmatch --image-size 32 --labeled 8 --batch-size 2 --steps 9 --epoch-steps 3 "
    "--encoder resnet_tiny --weights none --decoder-filters 8,8,8,8,8 --learning-rate 1e-3 --pseudo-labels 3"
).split()


pytestmark = pytest.mark.usefixtures("made_images")


def ending(step: int, how) -> type:
    """A record that does something at the end of a step, counted from 1 in this sitting."""

    class Ending(Kept):
        steps = 0

        def on_train_batch_end(self, batch, logs=None):
            self.steps += 1
            if self.steps == step:
                how(self)
            super().on_train_batch_end(batch, logs)

    return Ending


def train(folder: Path, *more: str, record: type = Kept, flags: Sequence[str] = FLAGS) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "RunRecord", record)
        return main([*flags, "--output", str(folder), *more])


@pytest.fixture(scope="module")
def one_go(made_images, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "one_go"
    assert train(folder) == 0
    return folder


@pytest.fixture(scope="module")
def interrupted(made_images, tmp_path_factory) -> Path:
    """A run that was interrupted in its third epoch: two states are there."""
    folder = tmp_path_factory.mktemp("runs") / "interrupted"

    def interrupt(record):
        raise KeyboardInterrupt

    assert train(folder, record=ending(8, interrupt)) == 130
    return folder


@pytest.fixture
def copy(interrupted, tmp_path) -> Path:
    return Path(shutil.copytree(interrupted, tmp_path / "run"))


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", ["checkpoint-00000006.weights.h5", "checkpoint-00000006.json", "metrics.csv"])
def test_damaged_states_are_named_and_the_one_before_is_taken(name, how, copy, one_go, capsys):
    damage(copy / name, how)
    assert train(copy, "--resume") == 0
    printed = capsys.readouterr().out
    gone_record = name.endswith(".json") and how == "lose"  # then the state was never finished
    assert name in printed or gone_record
    assert f"resuming after epoch {2 if name == 'metrics.csv' else 1}" in printed
    assert_same_run(copy, one_go)


def test_without_a_whole_state_a_run_begins_again(copy, one_go, capsys):
    for path in copy.glob("checkpoint-*.weights.h5"):
        damage(path, "flip")
    assert train(copy, "--resume") == 0
    printed = capsys.readouterr().out
    assert printed.count("is damaged") == 2 and "resuming" not in printed
    assert_same_run(copy, one_go)


@pytest.mark.parametrize("how", ["flip", "zero", "cut"])
def test_a_damaged_configuration_is_refused_by_name(how, copy, capsys):
    damage(copy / "config.json", how)
    assert train(copy, "--resume") == 2
    assert "config.json" in capsys.readouterr().err


def test_damaged_figures_of_pseudo_labels_are_begun_anew(copy):
    damage(copy / "pseudo_labels.json", "flip")
    with pytest.warns(UserWarning, match="pseudo_labels.json .* anew"):
        assert train(copy, "--resume") == 0
    assert [row["epoch"] for row in files.read_sealed(copy / "pseudo_labels.json")["history"]] == [3]


@pytest.mark.parametrize("name", ["images.csv", "cases.npz", "model.keras"])
def test_results_that_are_not_what_the_run_wrote_are_not_shown(name, one_go, tmp_path, capsys):
    folder = Path(shutil.copytree(one_go, tmp_path / "run"))
    damage(folder / name, "flip")
    assert report_main([str(folder)]) == 2
    assert name in capsys.readouterr().err
    assert train(folder, "--resume") == 2
    assert name in capsys.readouterr().err


def test_two_runs_never_write_into_one_folder(copy, capsys):
    (copy / lock.LOCK).write_text(json.dumps({"pid": os.getppid(), "host": lock.socket.gethostname(), "started": None}))
    assert train(copy, "--resume") == 2
    message = capsys.readouterr().err
    assert f"process {os.getppid()}" in message and str(copy / lock.LOCK) in message
    (copy / lock.LOCK).write_text(json.dumps({"pid": 1, "host": "elsewhere", "started": None}))
    assert train(copy, "--resume") == 2
    assert "on elsewhere" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, '{"pid"', "", '{"pid": 0, "host": "elsewhere", "started": null}'])
def test_a_lock_that_was_left_behind_is_replaced(content, copy, one_go):
    path = copy / lock.LOCK
    if content is None:  # this process is another one than that which had its number
        content = json.dumps({"pid": os.getpid(), "host": lock.socket.gethostname(), "started": -1})
    path.write_text(content)
    os.utime(path, (0, 0))
    assert train(copy, "--resume") == 0
    assert not path.exists()
    assert_same_run(copy, one_go)


def test_a_lock_that_is_just_being_written_counts(copy, capsys):
    (copy / lock.LOCK).write_text("")
    assert train(copy, "--resume") == 2
    assert "starts just now" in capsys.readouterr().err


def left_behind(folder: Path) -> Path:
    """The lock of a process that had the number of this one."""
    folder.mkdir(exist_ok=True)
    content = {"pid": os.getpid(), "host": lock.socket.gethostname(), "started": -1}
    (folder / lock.LOCK).write_text(json.dumps(content))
    return folder


def test_a_lock_that_another_takes_over_between_look_and_removal_is_left_to_it(tmp_path, monkeypatch):
    folder, look = left_behind(tmp_path / "run"), lock._holder
    other = lock.locked(folder)

    def slow_look(path):
        holder = look(path)
        monkeypatch.setattr(lock, "_holder", look)
        other.__enter__()
        return holder

    monkeypatch.setattr(lock, "_holder", slow_look)
    with pytest.raises(RecipeError, match=f"another run \\(process {os.getpid()} on "), lock.locked(folder):
        pass
    assert [path.name for path in folder.iterdir()] == [lock.LOCK]
    other.__exit__(None, None, None)
    assert not folder.exists()


def test_a_link_to_nothing_in_the_place_of_a_lock_is_replaced(tmp_path):
    (tmp_path / lock.LOCK).symlink_to(tmp_path / "nothing")
    with lock.locked(tmp_path):
        assert not (tmp_path / lock.LOCK).is_symlink()


def test_of_several_that_take_a_lock_over_at_once_one_gets_it(tmp_path):
    count, got, refused = 6, [], []
    together = threading.Barrier(count, timeout=60)

    def take(folder):
        together.wait()
        try:
            with lock.locked(folder):
                got.append(folder)
                together.wait()
        except RecipeError as error:
            refused.append(str(error))
            together.wait()

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for number in range(40):
            folder = left_behind(tmp_path / str(number))
            takers = [threading.Thread(target=take, args=(folder,)) for _ in range(count)]
            for taker in takers:
                taker.start()
            for taker in takers:
                taker.join()
            assert len(got) == number + 1 and len(refused) == (count - 1) * (number + 1)
            assert not folder.exists()
    finally:
        sys.setswitchinterval(before)
    assert all("is being written by another run" in message for message in refused)


def test_a_takeover_that_was_killed_is_taken_over_itself(tmp_path):
    folder = left_behind(tmp_path / "run")
    (folder / f"{files.PARTIAL}{lock.LOCK}").write_bytes((folder / lock.LOCK).read_bytes())
    with lock.locked(folder):
        assert [path.name for path in folder.iterdir()] == [lock.LOCK]
    assert not folder.exists()


def test_leftovers_alone_do_not_make_a_folder_foreign(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".partial-config.json").write_text("{")
    assert train(folder, "--steps", "3") == 0
    assert not list(folder.glob(".partial-*"))


@pytest.mark.parametrize("write", [1, 4, 9])
def test_a_full_disk_is_one_sentence_and_the_run_goes_on_with_room(write, one_go, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    count = 0

    def full(path):
        nonlocal count
        count += 1
        if count >= write:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(files, "_flush", full)
        assert train(folder) == 2
    message = capsys.readouterr().err
    assert "No space left on device" in message and str(folder) in message and "--resume" in message
    assert not list(folder.glob(".partial-*")) and not (folder / lock.LOCK).exists()
    assert train(folder, "--resume") == 0
    assert_same_run(folder, one_go)


@pytest.mark.skipif(os.name == "nt", reason="limits of a process are POSIX'")
def test_weights_beyond_a_limit_leave_nothing_half_written(tmp_path):
    """HDF5, which writes weights, takes the process down where it cannot flush them: it is given no file."""
    import resource

    from keras_semimed.experiments.runs.checkpoints import Checkpoints

    network = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4096)])
    (tmp_path / "run").mkdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(OSError, match=r"File too large: '.*checkpoint-00000001.weights.h5'") as error:
            Checkpoints(tmp_path / "run").save(network, 0, 0, 1, 0.0, [], within=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "run").iterdir())


def test_a_run_to_start_from_whose_model_is_damaged_is_refused(one_go, tmp_path, capsys):
    for sealed in (True, False):
        other = Path(shutil.copytree(one_go, tmp_path / f"other {sealed}"))
        damage(other / "model.keras", "zero")
        if not sealed:  # as of an earlier version
            files.write_sealed(other / "config.json", {**files.read_sealed(other / "config.json"), "files": {}})
        assert train(tmp_path / "run", "--start-from", str(other)) == 2
        assert "model.keras is damaged" in capsys.readouterr().err


def test_a_loss_that_is_no_number_stops_the_run_and_names_step_and_term(tmp_path, capsys):
    folder = tmp_path / "run"

    def poison(record):
        weight = record.model.network.trainable_variables[-2]
        weight.assign(np.full(weight.shape, np.nan))

    assert train(folder, record=ending(4, poison)) == 2
    message = capsys.readouterr().err
    assert "diverged at step 5" in message and "from label_supervised" in message and "--learning-rate" in message
    assert "after step 3 is kept" in message
    assert [path.name for path in folder.glob("checkpoint-*.json")] == ["checkpoint-00000003.json"]


def test_a_report_of_damaged_files_is_refused_in_a_sentence(one_go, tmp_path):
    folder = Path(shutil.copytree(one_go, tmp_path / "run"))
    content = files.read_sealed(folder / "config.json")
    for name in ("cases.npz", "embeddings.npz", "pseudo_labels.npz"):
        if (folder / name).exists():
            files.write_sealed(folder / "config.json", {**content, "files": {}})  # as of an earlier version
            before = (folder / name).read_bytes()
            damage(folder / name, "cut")
            with pytest.raises(ValueError, match=name):
                report(folder)
            (folder / name).write_bytes(before)


def test_a_run_that_was_killed_beside_its_result_leaves_no_states(copy, one_go, tmp_path):
    folder = Path(shutil.copytree(one_go, tmp_path / "finished"))
    for path in copy.glob("checkpoint-*"):
        shutil.copy(path, folder)
    assert train(folder, "--resume") == 0
    assert not list(folder.glob("checkpoint-*"))
