"""What `fit` writes: one line an epoch, of a few figures, while History and files have all of them."""

import io
import sys

import keras
import pytest

from keras_semimed.callbacks import ProgressLine
from keras_semimed.models import FixMatch, Hermes, Supervised
from tests.models.common import batches, image_set, made

JOINT = {
    **{"loss": 12.3456, "dice": 0.8421, "accuracy": 0.91, "balanced_accuracy": 0.8, "mask_supervised": 1.5},
    **{"mask_selected": 0.934, "label_selected": 1.0, "mask_selected_class_0": 0.3, "tau": 0.2, "val_loss": 1.0},
    **{"val_dice": 0.7712, "val_accuracy": 0.7},
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def written(line: ProgressLine, verbose: int, epochs: int = 100, steps: int | None = 3, logs: dict = JOINT) -> str:
    """What two epochs leave on a screen of which every write is kept."""
    line.set_params({"verbose": verbose, "epochs": epochs, "steps": steps})
    line.on_train_begin()
    for epoch in (epochs - 2, epochs - 1):
        line.on_epoch_begin(epoch)
        for step in range(3):
            line._shown_at = 0.0
            line.on_train_batch_end(step, {key: value for key, value in logs.items() if not key.startswith("val_")})
        line.on_epoch_end(epoch, logs)
    return sys.stdout.getvalue()


def test_a_file_gets_one_short_line_an_epoch(monkeypatch):
    for verbose in (1, 2):
        monkeypatch.setattr(sys, "stdout", io.StringIO())
        figures = "loss 12.35 dice 0.842 accuracy 0.910 kept 93%/100% val_dice 0.771"
        assert written(ProgressLine(), verbose) == f"99/100 0s {figures}\n100/100 0s {figures}\n"
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert written(ProgressLine(), 0) == ""


def test_a_terminal_gets_one_line_that_moves_and_never_breaks(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "stdout", Terminal())
    text = written(ProgressLine(), "auto")
    assert text.count("\n") == 2
    *lines, rest = [line.split("\r") for line in text.split("\n")]
    states = [state for line in lines for state in line]
    assert len(states) == 8 and max(map(len, states)) < 80
    assert states[5].startswith("100/100 [======    ] 0s loss 12.35 ") and "val" not in states[5]
    assert rest == [""] and all(len(line[-1]) >= len(line[-2]) for line in lines)  # nothing of before is left

    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys, "stdout", Terminal())
    moving = [state for line in written(ProgressLine(), 1).split("\n") for state in line.split("\r")[:-1]]
    assert moving and max(map(len, moving)) < 40

    monkeypatch.setattr(sys, "stdout", Terminal())
    assert "99/100 step 2 0s loss" in written(ProgressLine(), 1, steps=None)


@pytest.mark.parametrize(
    ("logs", "text"),
    [
        ({"loss": 1.0, "accuracy": 0.5, "label_selected": 0.25, "val_accuracy": 0.75, "x": 1.0}, "kept 25%"),
        ({"loss": float("nan"), "dice": 0.0}, "loss nan dice 0.000"),
        ({"loss": 123456.0}, "loss 1.235e+05"),
    ],
)
def test_the_line_has_what_there_is(logs, text):
    assert text in ProgressLine().text(logs)
    assert "x" not in ProgressLine().text(logs) and ProgressLine(("x", "none")).text({"x": 2.0}) == "x 2.000"


def test_where_keras_logs_to_a_file_each_epoch_is_one_message(monkeypatch, caplog):
    monkeypatch.setattr(sys, "stdout", Terminal())
    keras.config.disable_interactive_logging()
    try:
        with caplog.at_level("INFO", logger="absl"):
            assert written(ProgressLine(), 1) == ""
    finally:
        keras.config.enable_interactive_logging()
    assert [message.partition(" ")[0] for message in caplog.messages] == ["99/100", "100/100"]


@pytest.mark.parametrize(
    ("method", "tasks", "names"),
    [
        (Hermes, "both", ["loss", "dice", "accuracy", "kept", "val_dice"]),
        (FixMatch, "classification", ["loss", "accuracy", "kept", "val_accuracy"]),
        (Supervised, "segmentation", ["loss", "dice", "val_dice"]),
    ],
)
@pytest.mark.filterwarnings("ignore:Epoch")
def test_fit_shows_the_line_and_keeps_the_rest(method, tasks, names, monkeypatch, tmp_path):
    model = made(method, tasks=tasks)
    model.compile()
    held = image_set(2, 5)
    targets = {"mask": held.masks, "label": held.labels}
    targets = {head: targets[head] for head in model.learnt_heads}
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    table = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    history = model.fit(batches(), epochs=2, validation_data=(held.images, targets), callbacks=[table]).history
    lines = sys.stdout.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["1/2", "2/2"]
    assert [word for word in lines[0].split()[2:] if word[0].isalpha()] == names
    assert f"loss {history['loss'][1]:.3f} " in lines[1] and max(map(len, lines)) < 80
    more = {name for name in model.loss_weights} | {"val_loss"}
    assert more <= set(history) and more <= set((tmp_path / "log.csv").read_text().splitlines()[0].split(","))


def test_keras_own_bar_takes_its_place_and_verbose_0_shows_nothing(capsys):
    model = made(Supervised, tasks="segmentation")
    model.compile()
    model.fit(batches(), verbose=2, callbacks=[keras.callbacks.ProgbarLogger()])
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 1 and "- mask_supervised: " in lines[0]
    model.fit(batches(), verbose=0)
    assert capsys.readouterr().out == ""
