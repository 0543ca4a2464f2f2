from __future__ import annotations

import dataclasses

import pytest

from keras_semimed.models.hermes import PRESETS
from recipes.arguments import parse as parse_flags
from recipes.console import RecipeError
from recipes.hermes import HermesExperiment
from recipes.hermes_arguments import DEMO, HermesSettings
from recipes.resolve import configuration


def parse(words, description=None):
    return parse_flags(HermesSettings, words, "hermes_busi", description, DEMO)


def resolve(settings, images):
    return HermesExperiment(settings).resolve(images)


def test_every_flag_is_in_the_help_with_its_default(capsys):
    with pytest.raises(SystemExit):
        parse(["--help"], "head")
    printed = capsys.readouterr().out
    for field in dataclasses.fields(HermesSettings):
        assert f"--{field.name.replace('_', '-')}" in printed
        assert field.metadata["help"]
    assert "(default: 3000)" in " ".join(printed.split())


def test_demo_changes_defaults_and_not_what_is_given():
    settings = parse(["--demo", "--steps", "7", "--encoder", "resnet18"])
    assert (settings.steps, settings.encoder) == (7, "resnet18")
    assert settings.data == DEMO["data"] and settings.image_size == DEMO["image_size"] and settings.weights is None
    assert parse([]) == HermesSettings()


def test_words_become_values():
    settings = parse(
        "--weights none --confidence 0.9 --uncertainty release --decoder-filters 8,4 --mixed-precision none".split(),
        None,
    )
    assert settings.weights is None
    assert (settings.confidence, settings.uncertainty) == (0.9, "release")
    assert settings.decoder_filters == (8, 4)
    assert settings.mixed_precision == "float32"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--method", "magic"], "'magic' is none of hermes, "),
        (["--steps", "many"], "expected a whole number, got 'many'"),
        (["--learning-rate", "1e"], "expected a number, got '1e'"),
        (["--zoom", "1"], "expected two numbers with a comma between, got '1'"),
        (["--decoder-filters", "8,x"], "expected whole numbers with commas between, got '8,x'"),
        (["--step", "3"], "--step"),
    ],
)
def test_a_word_that_does_not_fit_ends_with_code_2(flags, message, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(flags)
    assert stop.value.code == 2
    printed = capsys.readouterr().err
    assert flags[0] in printed and message in printed


def test_each_preset_can_be_chosen_and_fills_in_what_was_not_given():
    for preset, values in PRESETS.items():
        settings = resolve(parse(["--preset", preset, "--gamma", "0.5"]), 384)
        assert (settings.lambda_cls, settings.confidence) == (values["lambda_cls"], values["confidence"])
        assert settings.gamma == 0.5


def test_control_is_hermes_with_unlabelled_weights_at_zero():
    hermes, control = (configuration(resolve(parse(["--method", m]), 384)) for m in ("hermes", "control"))
    changed = {name: control[name] for name in control if control[name] != hermes[name]}
    assert changed == {"method": "control", "unlabeled_weight": 0.0, "alpha": 0.0, "beta": 0.0, "gamma": 0.0}


@pytest.mark.parametrize(("steps", "images", "expected"), [(3000, 384, 50), (384, 384, 48), (7, 384, 7), (4, 8, 1)])
def test_an_epoch_is_about_one_pass(steps, images, expected):
    assert resolve(HermesSettings(steps=steps), images).epoch_steps == expected


def test_an_epoch_that_does_not_divide_the_run_is_refused_with_a_proposal():
    with pytest.raises(RecipeError, match="try 50"):
        resolve(HermesSettings(steps=300, epoch_steps=48), 384)
    assert resolve(HermesSettings(steps=300, epoch_steps=60), 384).epoch_steps == 60
    with pytest.raises(RecipeError, match="--steps 293 .*about 48 steps.*try 288 or 336"):
        resolve(HermesSettings(steps=293), 384)
