"""Flags, defaults and errors of every command, without a training."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from keras_semimed.data.cards import CARDS, SPLIT_MEANINGS
from keras_semimed.experiments.command_line import command, defaults, flags
from keras_semimed.experiments.command_line.bundles import COMMANDS, DATA_SETS, DEMO, RUNGS
from keras_semimed.experiments.command_line.command import main, read_settings
from keras_semimed.experiments.command_line.flags import OPTIMIZERS, VIEWS, default_groups, flags_of
from keras_semimed.experiments.command_line.settings import FLAG_NAMES, Settings, configuration, with_epochs
from keras_semimed.experiments.console import RecipeError
from keras_semimed.models import METHODS
from keras_semimed.models.hermes import PRESETS
from keras_semimed.parameters import parameters

ALWAYS = (
    "--data --manual-dir --data-dir --labeled --split --seed --image-size --validate --steps --epoch-steps "
    "--batch-size --labeled-batch-size --learning-rate --zoom --shift --mixed-precision --start-from --deterministic "
    "--encoder --weights --output --resume --tensorboard --threshold-figure --panels --pseudo-labels --demo --preset "
    "--teacher-momentum --teacher-statistics --decoder-filters "
)
# What the commands took when their flags were written by hand.
TAKEN = {
    "hermes": ALWAYS + "--method --classifier-optimizer --tasks --exchange --contrast-level --saliency-level "
    "--selection --confidence --uncertainty --unlabeled-mask-loss --unlabeled-start --unlabeled-ramp "
    "--unlabeled-weight --alpha --beta --gamma --lambda-seg --lambda-cls",
    "loco": ALWAYS + "--cvc-dir --test --intersect --rung --head-factor --optimizer --output-stride --fixed-threshold "
    "--threshold-start --threshold-momentum --threshold-gamma --cutmix-probability --lambda-unlabeled "
    "--lambda-contrast --neighbours --temperature",
}
FIVE = [name for name in COMMANDS if name != "train"]


def read(words: str = "", name: str = "hermes_busi") -> Settings:
    return read_settings(name, words.split())


def printed_help(capsys, name: str, words: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(name, words.split(), "head")
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", FIVE)
def test_help_all_lists_what_the_command_always_had_with_its_defaults(name, capsys):
    words = printed_help(capsys, name, "--help-all").split()
    assert "head" in words
    assert [flag for flag in TAKEN[COMMANDS[name].method].split() if flag not in words] == []
    shown = " ".join(printed_help(capsys, name, "--help").split())
    for flag in ("split", "labeled", "data", "output"):
        assert f"(default: {COMMANDS[name].defaults[flag]})" in shown


@pytest.mark.parametrize("method", METHODS)
def test_every_argument_of_a_method_is_a_flag_with_a_text(method, capsys):
    words = printed_help(capsys, "train", f"busi --method {method} --help-all").split()
    names = {**parameters(METHODS[method]), **parameters(VIEWS)}
    for source in OPTIMIZERS.values():
        names |= parameters(source)
    for name in names.keys() - {"views"}:
        flag = {"total_steps": "steps"}.get(name, FLAG_NAMES.get(name, name))
        assert f"--{flag.replace('_', '-')}" in " ".join(words), name
    assert all(flag.parameter.text for flag in flags_of(method).values())


def test_the_short_help_is_short_and_offers_the_long_one_and_the_methods(capsys):
    short, long = (printed_help(capsys, "train", words) for words in ("--help", "busi --method hermes --help-all"))
    assert short.count("\n  --") < 25 < 75 < long.count("\n  --")
    assert "--help-all" in short and all(f"\n  {method} " in short for method in METHODS)
    long = " ".join(long.split())
    assert "(default: paper 1, release 1.1, small 1)" in long and "(default: 3000)" in long


def test_help_shows_defaults_of_what_is_asked_for(capsys):
    printed = " ".join(printed_help(capsys, "loco_kvasir", "--demo --steps 50 --help").split())
    assert "(default: 0.002)" in printed and "(default: resnet_tiny)" in printed and "(default: 50)" in printed


def test_help_and_typing_errors_do_not_wait_for_keras():
    program = """
import sys
from recipes import train
for words in (["--help"], ["busi", "--method", "hermes", "--help-all"], ["busi", "--method", "hermess"]):
    try:
        print(train.main(words))
    except SystemExit:
        pass
assert not {"keras", "numpy"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


def test_demo_changes_defaults_and_not_what_is_given():
    settings = read("--demo --steps 7 --encoder resnet18")
    assert (settings.steps, settings.arguments["encoder"]) == (7, "resnet18")
    assert settings.data == "phantom" and settings.data_set == "phantom_ultrasound"
    assert settings.image_size == DEMO["image_size"] and settings.arguments["weights"] is None
    settings = read()
    assert (settings.data, settings.labeled, settings.steps, settings.arguments["weights"]) == (
        *("busi", 72, 3000),
        "imagenet",
    )


def test_the_demos_are_what_they_were():
    hermes, loco = read("--demo"), read("--demo", "loco_cvc")
    assert (hermes.labeled, hermes.steps, hermes.output, hermes.views["scale"]) == (
        *(120, 600, Path("runs/demo")),
        (0.8, 1.2),
    )
    wanted = {
        "teacher_momentum": 0.99,
        "unlabeled_mask_loss": "ce",
        "unlabeled_start": 225,
        "unlabeled_ramp": 75,
        "decoder_filters": (64, 48, 32, 16, 16),
    }
    assert {name: hermes.arguments[name] for name in wanted} == wanted
    assert (hermes.optimizer["learning_rate"], hermes.optimizer["classifier"]) == (2e-3, "adam")
    assert (loco.data_set, loco.split, loco.test, loco.labeled, loco.steps) == (
        *("phantom_endoscopy", "random", 0.3),
        *(100, 500),
    )
    wanted = {"teacher_momentum": 0.99, "threshold_momentum": 0.99, "decoder_filters": 32, "encoder": "resnet_tiny"}
    assert {name: loco.arguments[name] for name in wanted} == wanted
    rates = {"learning_rate": 2e-3, "head_factor": 1.0, "optimizer": "adam"}
    assert {name: loco.optimizer[name] for name in rates} == rates


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("data", "phantom"), [("busi", "phantom_ultrasound"), ("polyp", "phantom_endoscopy")])
def test_any_method_has_a_demo_on_made_images_of_the_data_s_kind(method, data, phantom):
    settings = read(f"{data} --method {method} --demo", "train")
    assert (settings.data, settings.image_size, settings.arguments["encoder"]) == (phantom, 64, "resnet_tiny")
    assert settings.steps in (500, 600) and settings.output == Path("runs") / f"{phantom}_{method}"
    assert (settings.arguments["teacher_momentum"] or 0) <= 0.99


def test_a_command_is_a_bundle_of_defaults():
    one = configuration(read("--demo --output here", "loco_kvasir"))
    other = configuration(read("kvasir_seg --method loco --demo --output there", "train"))
    assert {name for name in one if one[name] != other[name]} == {"data"}
    assert read("", "loco_polyp").views["scale"] == (0.5, 2.0) and read("", "loco_polyp").steps == 16000


def test_words_become_values():
    settings = read(
        "--weights none --confidence 0.9 --uncertainty release --decoder-filters 8,4 --mixed-precision none "
        "--zoom 0.5,2 --classifier-optimizer adam --no-saliency-image --pseudo-labels 3 --pseudo-labels-from truth"
    )
    arguments = settings.arguments
    assert arguments["weights"] is None
    assert (arguments["confidence"], arguments["uncertainty"]) == (0.9, "release")
    assert (arguments["decoder_filters"], arguments["saliency_image"]) == ((8, 4), False)
    assert (settings.pseudo_labels, arguments["pseudo_labels"]) == (3, "truth")
    assert settings.mixed_precision == "float32"
    assert (settings.views["scale"], settings.optimizer["classifier"]) == ((0.5, 2.0), "adam")


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        ("--method magic", ["--method", "'magic' is none of hermes, "]),
        ("--method hermess", ["did you mean hermes?"]),
        ("--steps many", ["--steps", "expected a whole number, found 'many'"]),
        ("--learning-rate 1e", ["--learning-rate", "expected a number, found '1e'"]),
        ("--zoom 1", ["--zoom", "expected two numbers with commas between, found '1'"]),
        ("--decoder-filters 8,x", ["--decoder-filters", "whole numbers with commas between, found '8,x'"]),
        ("--step 3", ["there is no flag --step", "did you mean --steps?"]),
        ("--rung M3", ["--rung is no flag of hermes, but of loco"]),
        ("--preset relase", ["'relase' is none of paper, release", "did you mean release?"]),
        ("--network unnet", ["--network", "did you mean unet?"]),
        ("--encoder resnet19", ["--encoder resnet19", "did you mean resnet"]),
        ("--data busy", ["'busy' is none of", "phantom", "did you mean busi?"]),
        ("--head-factor 3", ["--head-factor is no part of --optimizer-groups branch"]),
        ("busi", ["'busi' is one word too many"]),
        ("--unlabeled-start 3000", ["--unlabeled-start 3000 lies beyond the end of the run (--steps 3000)"]),
        ("--unlabeled-ramp 5 --steps 4", ["--unlabeled-ramp 5 lies beyond the end"]),
        (
            "--unlabeled-start 10 --unlabeled-ramp 15 --steps 20",
            ["--unlabeled-start 10 and --unlabeled-ramp 15 end beyond"],
        ),
        ("--contrast-delay 1.5", ["--contrast-delay 1.5 lies beyond the end"]),
        ("--labeled 0", ["--labeled must be positive"]),
        ("--method supervised --control", ["--control: supervised has no argument"]),
        ("--steps 1e400", ["--steps: expected a whole number, found '1e400'"]),
        ("--steps 99999999999999999999", ["--steps must be at most 2,147,483,647"]),
        ("--image-size 99999999999999999999", ["--image-size must be at most 7,071"]),
        ("--image-size -1", ["--image-size must be at least 32"]),
        ("--batch-size 1000000000000000000", ["--batch-size: 1000000000000000000 images of 224 x 224 pixels take"]),
        ("--labeled-batch-size 1000000000", ["--labeled-batch-size: 1000000000 images of 224 x 224 pixels take"]),
        ("--labeled nan", ["--labeled: expected a number, found 'nan'"]),
        ("--labeled -1", ["--labeled must be positive, found -1"]),
        ("--seed -1", ["--seed must be within 0 and 2^32 - 1"]),
        ("--seed 99999999999999999999", ["--seed must be within 0 and 2^32 - 1"]),
        ("--alpha nan", ["--alpha: expected a number, found 'nan'"]),
        ("--output=", ["--output: expected a file or folder, found ''"]),
    ],
)
def test_a_word_that_does_not_fit_ends_with_code_2(words, messages, capsys):
    assert main("hermes_busi", words.split(), None) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and all(message in printed for message in messages)
    assert printed.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("busi", "--method is missing: one of supervised"),
        ("busi --method control", "--method hermes --control"),
        ("busi --method oracle", "--method hermes --pseudo-labels-from truth"),
        ("--method loco", "DATA is missing: one of busi"),
        ("phantom --method loco", "did you mean phantom"),
        ("busi --method supervised --confidence 0.4", "--confidence is no flag of supervised, but of u2pl, hermes"),
    ],
)
def test_train_wants_data_and_a_method_and_the_method_s_own_flags(words, message, capsys):
    assert main("train", words.split(), None) == 2
    assert message in capsys.readouterr().err


def test_a_command_names_the_flags_of_its_method_that_another_one_lacks(capsys):
    settings = read("--method supervised --confidence 0.4")
    assert "no part of supervised: --confidence" in capsys.readouterr().out
    assert "confidence" not in settings.arguments and configuration(settings)["confidence"] is None
    assert settings.arguments["exchange"] == "none" and read().arguments["exchange"] == "both"


def test_each_preset_can_be_chosen_and_fills_in_what_was_not_given():
    for preset, values in PRESETS.items():
        arguments = read(f"--preset {preset} --gamma 0.5").arguments
        assert {name: arguments[name] for name in values} == {**values, "gamma": 0.5}


def test_oracle_is_the_method_with_the_truth():
    hermes, oracle = (configuration(read(f"--method {method}")) for method in ("hermes", "oracle"))
    assert {name: oracle[name] for name in oracle if oracle[name] != hermes[name]} == {"pseudo_labels_from": "truth"}
    assert read("--method oracle") == read("--pseudo-labels-from truth")


def test_a_start_without_a_ramp_and_no_groups_are_taken():
    assert read("busi --method hermes --unlabeled-start 100", "train").arguments["unlabeled_start"] == 100
    assert read("busi --method hermes --preset small --steps 400 --unlabeled-start 320", "train").steps == 400
    with pytest.raises(RecipeError, match="--unlabeled-start 321 and --unlabeled-ramp 0.2 end beyond the run"):
        read("busi --method hermes --preset small --steps 400 --unlabeled-start 321", "train")
    assert read("busi --method hermes --optimizer-groups none", "train").optimizer_groups == "branch"


def test_a_control_says_what_it_takes_in_the_place_of_what_was_given(capsys):
    given = "busi --method pefat --tasks classification --control --threshold 0.9 --lambda-uncertain 0"
    assert read(given, "train").arguments["threshold"] == 1.0
    assert capsys.readouterr().out == "a control takes --threshold 1\n"


def test_control_is_the_method_with_unlabelled_weights_at_zero():
    hermes, control = (configuration(read(f"--method {method}")) for method in ("hermes", "control"))
    changed = {name: control[name] for name in control if control[name] != hermes[name]}
    assert changed == {"control": True, "unlabeled_weight": 0.0, "alpha": 0.0, "beta": 0.0, "gamma": 0.0}
    assert read("--control") == read("--method control") == read("--control --alpha 0.5")
    fixmatch = read("busi --method fixmatch --control", "train").arguments
    assert (fixmatch["lambda_unlabeled"], fixmatch["lambda_seg"]) == (0.0, 0.5)


def test_rungs_are_those_of_the_papers_table():
    for name, rung in RUNGS.items():
        assert rung["dynamic_filter"] == (name in ("M3", "M7"))
        assert rung["boundary"] == (name in ("M4", "M6", "M7"))
        assert rung["inter_class"] == (name in ("M5", "M6", "M7"))
        settings = read(f"--rung {name}", "loco_kvasir")
        assert {key: settings.arguments[key] for key in rung} == rung
        assert settings.arguments["use_unlabeled"] == (name != "M1")
    settings = read("--rung M3 --boundary --lambda-unlabeled 0.25", "loco_kvasir")
    assert settings.arguments["boundary"] and settings.arguments["lambda_unlabeled"] == 0.25


def test_a_shorter_run_starts_and_ramps_earlier_in_proportion():
    def steps(words: str) -> tuple[int, int]:
        arguments = read(words).arguments
        return arguments["unlabeled_start"], arguments["unlabeled_ramp"]

    assert steps("--demo") == (225, 75)
    assert steps("--demo --steps 240") == (90, 30)
    assert steps("--demo --steps 1200 --unlabeled-ramp 5") == (450, 5)
    assert steps("--steps 240") == (0, 0)
    assert steps("--steps 240 --unlabeled-start 80 --unlabeled-ramp 40") == (80, 40)


def test_a_class_s_default_in_steps_follows_the_length_of_the_run(monkeypatch):
    def later(source):
        found = parameters(source)
        if "unlabeled_start" in found:
            found["unlabeled_start"] = found["unlabeled_start"]._replace(default=300)
        return found

    for module in (flags, defaults):
        monkeypatch.setattr(module, "parameters", later)
    assert read("").arguments["unlabeled_start"] == 300
    assert read("--steps 500").arguments["unlabeled_start"] == 50


@pytest.mark.parametrize(
    ("steps", "images", "expected"), [(3000, 384, 50), (384, 384, 48), (7, 384, 7), (4, 8, 1), (50, 1, 1)]
)
def test_an_epoch_is_about_one_pass(steps, images, expected):
    assert with_epochs(read(f"--steps {steps}"), images).epoch_steps == expected


def test_turns_of_ad_mt_last_half_a_pass():
    def period(words):
        settings = read_settings("train", ["kvasir_seg", "--method", "ad_mt", *words.split()])
        return with_epochs(settings, 380).arguments["max_period"]

    assert (period("--batch-size 8"), period("--batch-size 200"), period("--max-period 50")) == (24, 1, 50)


def test_an_epoch_that_does_not_divide_the_run_is_refused_with_a_proposal():
    with pytest.raises(RecipeError, match="try 50"):
        read("--steps 300 --epoch-steps 48")
    settings = read("--steps 300")
    assert with_epochs(dataclasses.replace(settings, epoch_steps=60), 384).epoch_steps == 60
    with pytest.raises(RecipeError, match="--steps 293 .*about 48 steps.*try 288 or 336"):
        with_epochs(read("--steps 293"), 384)


@pytest.mark.parametrize("network", ["unet", "deeplab"])
@pytest.mark.parametrize("method", METHODS)
def test_learning_rates_are_grouped_as_the_method_does_by_default(method, network, monkeypatch):
    for module in {sys.modules[cls.__module__] for cls in METHODS[method].__mro__ if cls.__module__ in sys.modules}:
        for key in OPTIMIZERS:
            if hasattr(module, f"{key}_optimizer"):
                monkeypatch.setattr(module, f"{key}_optimizer", lambda *_, key=key: key)
    stand_in = SimpleNamespace(total_steps=10, segments=True, given=SimpleNamespace(network=network))
    stand_in.optimizer_arguments = lambda kind, given: given
    assert METHODS[method].default_optimizer(stand_in) == default_groups(method, network)


def test_a_flag_that_two_things_have_is_refused(monkeypatch):
    monkeypatch.setitem(command.FLAG_NAMES, "scale", "shift")
    with pytest.raises(ValueError, match="--shift is of views and of views"):
        flags_of("hermes")


def test_names_of_data_sets_and_splits_are_the_package_s():
    assert set(DATA_SETS) == {*CARDS, "polyp"}
    assert set(flags.choices(parameters(Settings)["split"].annotation)) == {*SPLIT_MEANINGS, "folder"}
    assert all(data_set.split in CARDS[name].splits for name, data_set in DATA_SETS.items() if not data_set.parts)
