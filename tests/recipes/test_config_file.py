"""config.yaml of a run, read again by `--config`, is the same run."""

from __future__ import annotations

import dataclasses

import pytest

from keras_semimed.experiments.command_line import config_file
from keras_semimed.experiments.command_line.command import read_settings
from keras_semimed.experiments.command_line.flags import methods
from keras_semimed.experiments.console import RecipeError

pytestmark = pytest.mark.backend_free

COMMANDS = [
    *(("train", f"busi --method {method} --preset small") for method in methods()),
    *(("train", f"phantom_ultrasound --method {method} --demo") for method in methods()),
    ("train", "kvasir_seg --method loco --rung M3 --network deeplab --steps 700 --learning-rate 0.1234567890123"),
    ("train", "busi --method cps --control --tasks segmentation --optimizer-groups encoder --head-factor 3"),
    ("train", "busi --stages supervised:300,hermes:300@0.5 --manual-dir . --seed 3"),
    ("train", "busi --stages supervised:300,hermes:300@0.3 --preset small --tasks segmentation --start-from ."),
    ("train", "kvasir_seg --stages hermes:300,supervised:200@0.3,loco:400 --learning-rate 0.0007 --epoch-steps 50"),
    ("train", "busi --stages hermes:30,supervised:20,mean_teacher:40 --demo"),
    ("train", "busi --stages mean_teacher:30,supervised:40,infomatch:40 --teacher-momentum none --preset small"),
    ("train", "busi --stages mean_teacher:30,mean_teacher:40@0.7 --control --labeled-batch-size 4"),
    ("train", "busi --stages supervised:30,hermes:40 --preset release --labeled-batch-size none"),
    ("train", "busi --stages hermes:30,hermes:40 --control --alpha 0.5"),
    ("train", "busi --stages hermes:40@0.5 --preset small"),
    ("train", "busi --method infomatch --teacher-momentum none"),
    ("train", "busi --method cps --learning-rate 0.3333333333333333"),
    ("train", "kvasir_seg --method abd --test none --demo"),
    ("train", "busi --method fixmatch --classes benign,malignant,normal --label-weights 1,2,0.5 --no-train-encoder"),
    ("train", "busi --method fixmatch --mixed-precision mixed_bfloat16 --zoom 0.7,1.3 --validate --weights none"),
    ("hermes_busi", "--labeled 0.2 --split leak_safe --test 0.25"),
    ("loco_polyp", "--rung M2"),
]


@pytest.mark.parametrize("name, words", COMMANDS)
def test_a_run_is_read_again(name, words, tmp_path):
    settings = read_settings(name, words.split())
    file = tmp_path / "config.yaml"
    file.write_text(config_file.as_yaml(settings), encoding="utf-8")
    again = read_settings(name, ["--config", str(file)])
    again = dataclasses.replace(again, output=settings.output)  # which a demo has of its own
    assert again == dataclasses.replace(settings, data=settings.data_set, resume=False)
    if not settings.earlier:
        changed = read_settings(name, ["--config", str(file), "--seed", "77", "--batch-size=5"])
        assert changed.seed == 77 and changed.batch_size == 5 and changed.arguments == settings.arguments


def test_the_file_of_one_method_gives_another_what_both_have(tmp_path, capsys):
    file = tmp_path / "config.yaml"
    words = ["kvasir_seg", "--method", "fixmatch", "--threshold", "0.7", "--image-size", "96", "--batch-size", "3"]
    file.write_text(config_file.as_yaml(read_settings("train", words)), encoding="utf-8")
    found = read_settings("train", ["--config", str(file), "--method=ad_mt"])
    assert (found.method, found.image_size, found.batch_size, found.arguments["threshold"]) == ("ad_mt", 96, 3, 0.95)
    assert "--config: no part of ad_mt: --threshold" in capsys.readouterr().out
    assert read_settings("train", ["--config", str(file), "--method", "fixmatch"]).arguments["threshold"] == 0.7


READING = (
    "--mask-name={}_mask --mask-value 0..127=0 128..255=1 --mask-value 255,0,0=2 --intensity-range 0.5 4095 "
    "--keep-aspect --num-classes 3 --mask-class-names background cyst tumour"
)


CLASSIFIED = "busi --method supervised --network deeplab --tasks classification"


def written(path, words, name="train"):
    path.write_text(config_file.as_yaml(read_settings(name, words.split())), encoding="utf-8")
    return str(path)


def arguments_of(words, name="train"):
    settings = read_settings(name, words.split())
    return settings.arguments, settings.optimizer


@pytest.mark.parametrize(
    "before, changed, after",
    [
        ("kvasir_seg --method loco --rung M7", "--rung M1", "kvasir_seg --method loco --rung M1"),
        ("busi --method hermes --preset small", "--preset paper", "busi --method hermes --preset paper"),
        ("busi --method hermes --alpha 0.3", "--preset small", "busi --method hermes --alpha 0.3 --preset small"),
        ("kvasir_seg --method loco", "--optimizer-groups branch", "kvasir_seg --method loco --optimizer-groups branch"),
        ("busi --method hermes --demo", "--steps 3000", "phantom_ultrasound --method hermes --demo --steps 3000"),
        ("busi --method hermes --demo", "--network deeplab", "busi --method hermes --demo --network deeplab"),
        ("kvasir_seg --method loco", "--demo", "kvasir_seg --method loco --demo"),
        ("busi --method supervised --network deeplab", "--tasks classification", CLASSIFIED),
        ("kvasir_seg --method loco", "--network unet", "kvasir_seg --method loco --network unet"),
        ("busi --method hermes --preset small", "--steps 900", "busi --method hermes --preset small --steps 900"),
    ],
)
def test_defaults_that_a_typed_flag_decides_about_are_not_those_of_the_file(before, changed, after, tmp_path):
    file = written(tmp_path / "c.yaml", before)
    assert arguments_of(f"--config {file} {changed}") == arguments_of(after)


def test_another_method_keeps_what_is_shared_beside_other_flags(tmp_path):
    file = written(tmp_path / "c.yaml", "kvasir_seg --method loco")
    for more in ([], ["--steps", "500"]):
        found = read_settings("train", ["--config", file, "--method", "mean_teacher", *more])
        assert (found.image_size, found.arguments["encoder"]) == (384, "resnet50")


def test_what_is_typed_takes_the_place_of_what_it_excludes(tmp_path, capsys):
    one = written(tmp_path / "one.yaml", "busi --method hermes --preset small --steps 300")
    staged = read_settings("train", ["--config", one, "--stages", "supervised:30,hermes:40"])
    assert (staged.method, staged.steps, [stage.steps for stage in staged.earlier]) == ("hermes", 40, [30])
    assert "--config: no part beside --stages: --steps, --method\n" in capsys.readouterr().out
    other = read_settings("train", ["--config", one, "--stages", "supervised:30,fixmatch:40"])
    assert other.method == "fixmatch"
    split = tmp_path / "split.txt"
    split.write_text("# keras_semimed split\n")
    file = written(tmp_path / "split.yaml", f"busi --method cps --split-file {split}")
    assert read_settings("train", ["--config", file, "--labeled", "20"]).split_file is None
    assert read_settings("train", ["--config", one, "--split-file", str(split)]).split_file == split
    folded = written(tmp_path / "part.yaml", f"{tmp_path} --method cps --test 0.3")
    assert read_settings("train", ["--config", folded, "--folds", "5", "--fold", "1"]).test is None
    folds = written(tmp_path / "folds.yaml", f"{tmp_path} --method cps --folds 5 --fold 1")
    assert read_settings("train", ["--config", folds, "--test", "0.3"]).folds is None
    file = written(tmp_path / "staged.yaml", "busi --stages supervised:30,hermes:40 --alpha 0.5 --labeled-batch-size 4")
    longer = read_settings("train", ["--config", file, "--stages", "supervised:60,hermes:40"])
    assert (longer.labeled_batch_size, longer.arguments["alpha"]) == (4, 0.5)
    for words in (["--stages", "supervised:30,fixmatch:40"], ["--method", "fixmatch"], ["--config", one]):
        assert read_settings("train", ["--config", file, *words]).method in ("fixmatch", "hermes")
    assert not read_settings("train", ["--config", file, "--config", one]).earlier


def test_words_that_are_no_flags_take_nothing_out_of_a_file(tmp_path, capsys):
    file = written(tmp_path / "c.yaml", f"{tmp_path} --method cps --folds 5 --fold 1")
    settings = read_settings("train", ["--config", file, "--output", "test"])
    assert (settings.folds, settings.fold) == (5, 1) and capsys.readouterr().out == ""


def test_a_row_of_a_recipe_is_left_for_another_one(tmp_path):
    files = {row: written(tmp_path / f"{row}.yaml", f"--method {row}", "hermes_busi") for row in ("control", "oracle")}
    files["fixmatch"] = written(tmp_path / "fixmatch.yaml", "--method fixmatch", "hermes_busi")
    for file in files.values():
        for row in ("hermes", "control", "oracle", "supervised"):
            found = read_settings("hermes_busi", ["--config", file, "--method", row])
            assert found.control == (row == "control")
            assert found.arguments["pseudo_labels"] == ("truth" if row == "oracle" else "method")


def test_data_bring_their_own_defaults_wherever_they_stand(tmp_path):
    file = written(tmp_path / "c.yaml", "kvasir_seg --method hermes --learning-rate 0.3")
    for words in (["busi", "--config", file], ["--config", file, "busi"], ["--seed", "1", "--config", file, "busi"]):
        settings = read_settings("train", words)
        assert (settings.data, settings.split, settings.labeled) == ("busi", "paper", 72)
        assert settings.optimizer["learning_rate"] == 0.3
    for place in ("old", "new"):
        (tmp_path / place).mkdir()
    old = written(tmp_path / "old.yaml", f"{tmp_path}/old --method cps --test 0.3 --labeled 30")
    (tmp_path / "old").rmdir()
    settings = read_settings("train", [f"{tmp_path}/new", "--config", old])
    assert (settings.test, settings.labeled) == (0.3, 30)


def test_recipes_take_folders_from_files_and_files_of_folders(tmp_path):
    own = written(tmp_path / "own.yaml", f"--data {tmp_path} --test 0.3", "hermes_busi")
    for name in ("hermes_busi", "train"):
        settings = read_settings(name, ["--config", own])
        assert (settings.data, settings.split, settings.labeled, settings.test) == (str(tmp_path), "folder", 1.0, 0.3)
    busi = written(tmp_path / "busi.yaml", "--classes benign,malignant", "hermes_busi")
    settings = read_settings("hermes_busi", ["--config", busi, "--data", str(tmp_path)])
    assert (settings.split, settings.classes) == ("folder", None)


def test_how_a_folder_is_read_is_read_again_and_replaced_as_a_whole(tmp_path):
    words = [str(tmp_path), "--method", "fixmatch", *READING.split(), "--class-names", "sehr viel, größer", "none"]
    settings = read_settings("train", words)
    assert settings.mask_value == ("0..127=0", "128..255=1", "255,0,0=2") and settings.keep_aspect
    assert settings.intensity_range == (0.5, 4095) and settings.class_names == ("sehr viel, größer", "none")
    assert settings.mask_class_names == ("background", "cyst", "tumour") and settings.mask_name == "{}_mask"
    file = tmp_path / "config.yaml"
    file.write_text(config_file.as_yaml(settings), encoding="utf-8")
    assert dataclasses.replace(read_settings("train", ["--config", str(file)]), output=settings.output) == settings
    other = read_settings("train", ["busi", "--config", str(file)])
    assert (other.data, other.mask_value, other.class_names) == ("busi", None, None) and not other.keep_aspect
    of_busi = tmp_path / "busi.yaml"
    words = ["busi", "--method", "fixmatch", "--manual-dir", str(tmp_path), "--labeled", "72", "--split", "leak_safe"]
    of_busi.write_text(config_file.as_yaml(read_settings("train", [*words, "--learning-rate=0.3"])), encoding="utf-8")
    own = read_settings("train", [str(tmp_path), "--config", str(of_busi)])
    assert (own.manual_dir, own.split, own.labeled) == (None, "folder", 1.0) and own.optimizer["learning_rate"] == 0.3
    changed = read_settings("train", ["--config", str(file), "--intensity-range=0,255", "--class-names", "a", "b"])
    assert changed.intensity_range == (0, 255) and changed.class_names == ("a", "b")
    assert changed.mask_value == settings.mask_value and changed.arguments["num_classes"] == 3


@pytest.mark.parametrize(
    "content, said",
    [
        ("stesp: 3", "there is no flag stesp; did you mean steps?"),
        ("- 3", "is no table of flags"),
        ("steps: [", "is no YAML"),
        ("steps: many", "--steps"),
        ("deterministic: maybe", "deterministic must be true or false, found 'maybe'"),
        ("seed: -1", "--seed must be within 0"),
        ("!!python/object/apply:os.system [ls]", "is no YAML"),
    ],
)
def test_what_is_no_configuration_is_said(content, said, tmp_path):
    (tmp_path / "c.yaml").write_text(content)
    with pytest.raises(RecipeError, match=said.replace("?", r"\?").replace("[", r"\[")):
        read_settings("train", ["busi", "--method", "cps", "--config", str(tmp_path / "c.yaml")])


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(RecipeError, match="--config .*none.yaml cannot be read: No such file"):
        read_settings("train", ["busi", "--method", "cps", f"--config={tmp_path}/none.yaml"])
    with pytest.raises(RecipeError, match="--config needs a file"):
        read_settings("train", ["busi", "--config"])
