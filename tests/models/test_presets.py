"""Presets: what they set, of the constructor and of the optimizer, and that an argument counts before them."""

from __future__ import annotations

import pytest

from keras_semimed.experiments.command_line.command import read_settings
from keras_semimed.models import METHODS, DCNet, DiffRect, Hermes, LoCo
from tests.models.common import made


def rates(model):
    model.compile()
    return [float(optimizer.learning_rate) for optimizer in model.optimizer.optimizers]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_preset_for_few_labels_and_short_runs(method):
    small, paper = (made(METHODS[method], preset=preset) for preset in ("small", "paper"))
    assert {type(optimizer).__name__ for optimizer in small.default_optimizer().optimizers} == {"Adam"}
    assert rates(small) == pytest.approx([5e-4 if method == "hermes" else 1e-3] * 2)
    assert rates(paper) != pytest.approx(rates(small))
    assert float(small.default_optimizer(learning_rate=0.5).optimizers[0].learning_rate) == 0.5
    copy = METHODS[method].from_config(small.get_config())
    assert copy.preset == "small" and copy.get_config() == small.get_config()
    with pytest.raises(ValueError, match="`preset` must be .*found 'large'"):
        made(METHODS[method], preset="large")


def test_small_is_the_first_preset_with_changes():
    small, paper = (made(Hermes, preset=preset) for preset in ("small", "paper"))
    changed = {name for name, value in Hermes.presets["paper"].items() if getattr(small, name) != value}
    assert changed == {"selection", "confidence", "unlabeled_mask_loss", "unlabeled_ramp", "beta", "gamma"}
    assert (small.selection, small.confidence, small.unlabeled_mask_loss) == ("confidence", 0.9, "ce")
    assert paper.selection == "dual" and paper.alpha == small.alpha == 0.8
    assert made(Hermes, preset="small", alpha=0.5).alpha == 0.5
    assert made(LoCo, preset="small").filter.momentum == 0.98
    assert made(DCNet, preset="small").loss_weights["feature"] == 0 and made(DCNet).lambda_feature == 1000
    rectified, printed = made(DiffRect, preset="small", total_steps=300), made(DiffRect, total_steps=300)
    assert (rectified.margin, rectified.rectification_step) == (0, 100)
    assert (printed.margin, printed.rectification_step) == (0.8, 10)


def test_a_ramp_below_one_is_a_share_of_the_run():
    long = made(Hermes, preset="small", total_steps=50)
    assert long.unlabeled_ramp == 0.2 and long.unlabeled_steps == 10
    assert made(Hermes, unlabeled_ramp=7).unlabeled_steps == 7
    with pytest.raises(ValueError, match="`unlabeled_ramp` must be"):
        made(Hermes, unlabeled_ramp=1.5)


def test_the_shell_takes_presets_of_optimizers_too(capsys):
    def settings(*words, command="hermes_busi"):
        return read_settings(command, ["--image-size", "64", *words])

    small = settings("--preset", "small")
    assert small.optimizer["learning_rate"] == 5e-4 and small.optimizer["classifier"] == "adam"
    assert small.arguments["selection"] == "confidence" and small.arguments["beta"] == 0.0
    given = settings("--preset", "small", "--learning-rate", "1e-2", "--alpha", "0.3")
    assert given.optimizer["learning_rate"] == 1e-2 and given.arguments["alpha"] == 0.3
    # A preset of the command's own method is none of the baseline's.
    assert settings("--preset", "release", "--method", "supervised").arguments["preset"] == "paper"
    assert "no part of supervised: --preset release" in capsys.readouterr().out
    staged = settings("--preset", "small", "--stages", "supervised:60,hermes:40@0.5")
    assert staged.earlier[0].optimizer["learning_rate"] == 1e-3 and staged.optimizer["learning_rate"] == 2.5e-4
    staged = settings("--preset", "release", "--stages", "supervised:60,hermes:40")
    assert staged.earlier[0].arguments["preset"] == "paper" and staged.arguments["preset"] == "release"
