from __future__ import annotations

import json

import numpy as np
import pytest

from keras_semimed.cli.compare import main
from keras_semimed.evaluation.intervals import jackknife_interval
from keras_semimed.experiments.comparison.compare import compare_folders
from keras_semimed.files import read_table, write_table
from tests.recipes.made import run_folder

ALL_RIGHT = dict.fromkeys("abcd", True)


@pytest.fixture
def groups(tmp_path):
    """Two seeds of two methods on four images; the second method is 0.1 and 0.2 Dice better on each image."""
    for seed, gain in ((0, 0.1), (1, 0.2)):
        base = {"a": 0.1 * seed, "b": 0.2, "c": 0.3, "d": 0.4}
        run_folder(tmp_path / f"base{seed}", base, {**ALL_RIGHT, "a": False}, seed, f"hash{seed}")
        better = {name: value + gain for name, value in base.items()}
        run_folder(tmp_path / f"better{seed}", better, ALL_RIGHT, seed, f"hash{seed}")
    return [f"{name}={tmp_path}/{name}0,{tmp_path}/{name}1" for name in ("base", "better")]


def test_means_over_seeds_and_paired_differences(groups, tmp_path, capsys):
    assert main([*groups, "--csv", str(tmp_path / "table.csv")]) == 0
    base, better = read_table(tmp_path / "table.csv")
    # Dice of the seeds: (0 + 0.2 + 0.3 + 0.4) / 4 and (0.1 + 0.2 + 0.3 + 0.4) / 4.
    assert float(base["dice"]) == pytest.approx((0.225 + 0.25) / 2)
    assert float(base["dice_std"]) == pytest.approx(0.025 / 2**0.5)
    assert float(base["accuracy"]) == 0.75
    # Classes alternate: a and c are class 0, of which one is wrong.
    assert float(base["balanced_accuracy"]) == 0.75
    assert base["dice_difference"] == ""
    # Every image has gains 0.1 and 0.2: whichever is left out, it is 0.15.
    for key in ("dice_difference", "dice_low", "dice_high"):
        assert float(better[key]) == pytest.approx(0.15)
    assert float(better["accuracy_difference"]) == 0.25
    # One image of four has an accuracy gain: 0 without it, 1 / 3 without another one.
    expected = jackknife_interval(0.25, np.array([0, 1, 1, 1]) / 3, (-1, 1))
    assert (float(better["accuracy_low"]), float(better["accuracy_high"])) == pytest.approx(expected)
    assert expected[0] < 0 and expected[1] == 1 and better["paired_images"] == "4"
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("| group") and "23.8 ± 1.8" in printed[2]
    assert "counts 1 in Dice" in "".join(printed)
    second = next(place for place, line in enumerate(printed) if "Dice - base" in line)
    assert [cell.strip() for cell in printed[second + 2].split("|")[1:4]] == ["better", "last", "0, 1"]
    # All four images gain: 2 of 16 sign flips are as extreme. One accuracy gain: all of them.
    assert printed[second + 2].split("|")[4].strip() == "+15.0 [+15.0, +15.0], p 0.125"
    assert float(better["dice_p"]) == 0.125 and float(better["accuracy_p"]) == 1
    assert "sign-flip permutation test over images" in printed[-1] and "auroc_p" not in better
    assert printed[-2].startswith("- Fewer than 60 images stand behind an interval (4): it can be too narrow")


def test_tables_of_many_images_have_no_warning(tmp_path, capsys):
    for count, warned in ((59, True), (60, False)):
        dice = {str(index): index / count for index in range(count)}
        folders = [run_folder(tmp_path / f"{name}{count}", dice, dict.fromkeys(dice, True)) for name in "ab"]
        assert main([*map(str, folders), "--latex", str(tmp_path / "table.tex")]) == 0
        text = "Fewer than 60 images stand behind an interval (59)"
        assert (text in capsys.readouterr().out) == (text in (tmp_path / "table.tex").read_text()) == warned


def with_columns(folder, **columns):
    """Gives the rows of a run more columns; an empty cell is none."""
    rows = read_table(folder / "images.csv")
    added = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    write_table(folder / "images.csv", [row | new for row, new in zip(rows, added, strict=True)])


def test_differences_by_what_images_have_in_common(tmp_path, capsys):
    gains = {"base": [0, 0, 0, 0, 0], "better": [0.1, 0.2, 0.3, 0.4, 0.5]}
    for name, dice in gains.items():
        folder = run_folder(tmp_path / name, dict(zip("abcde", dice, strict=True)), dict.fromkeys("abcde", True))
        parts = {"group_class": ["benign"] * 2 + ["malignant"] * 3, "group_scanner": ["A", "A", "A", "A", "B"]}
        with_columns(folder, **parts)
    folders = [str(tmp_path / name) for name in gains]
    assert main([*folders, "--csv", str(tmp_path / "table.csv")]) == 0
    lines = [[cell.strip() for cell in line.split("|")] for line in capsys.readouterr().out.splitlines()]
    first = next(place for place, line in enumerate(lines) if "part" in line)
    assert lines[first][1:-1] == ["group", "weights", "part", "images", "Dice - base", "accuracy - base"]
    shown = {line[3]: line[4:-1] for line in lines[first + 2 : first + 5]}
    # Two values: Student's t of one degree of freedom, 12.706, times half of their distance.
    assert {part: cells[0] for part, cells in shown.items()} == {"benign": "2", "malignant": "3", "scanner A": "4"}
    assert shown["benign"][1:] == ["+15.0 [-48.5, +78.5]", "+0.0 [+0.0, +0.0]"]
    assert shown["malignant"][1] == "+40.0 [+15.2, +64.8]" and shown["scanner A"][1].startswith("+25.0 [")
    assert lines[first + 5] == [""] and lines[first + 7][0].startswith("- Fewer than 60 images stand behind")
    assert "(2)" in lines[first + 7][0] and len(lines) == first + 8
    table = read_table(tmp_path / "table.csv")
    names = ["last", "last", "last, benign", "last, malignant", "last, scanner A"]
    assert [row["weights"] for row in table] == names and [row["group"] for row in table[1:]] == ["better"] * 4
    assert float(table[2]["dice_difference"]) == pytest.approx(0.15) and table[2]["dice"] == table[2]["dice_p"] == ""


@pytest.mark.parametrize("columns", [None, {"group_class": ["x", "x", "y", "y"]}])
def test_parts_that_not_all_runs_know_with_the_same_images_are_left_out(columns, tmp_path, capsys):
    for name in ("old", "new"):
        run_folder(tmp_path / name, dict.fromkeys("abcd", 0.5), ALL_RIGHT)
    with_columns(tmp_path / "new", group_class=["x", "y", "y", "x"])
    if columns:
        with_columns(tmp_path / "old", **columns)
    assert main([str(tmp_path / "old"), str(tmp_path / "new")]) == 0
    printed = capsys.readouterr().out
    assert "+0.0 [+0.0, +0.0]" in printed and "| part" not in printed


def test_images_of_a_patient_stay_together(tmp_path, capsys):
    for name, dice in {"base": [0, 0, 0, 0], "better": [0.1, 0.3, 0.5, 0.5]}.items():
        folder = run_folder(tmp_path / name, dict(zip("abcd", dice, strict=True)), ALL_RIGHT)
        with_columns(folder, group=["p", "p", "q", "q"])
    assert main([str(tmp_path / "base"), str(tmp_path / "better"), "--csv", str(tmp_path / "table.csv")]) == 0
    better = read_table(tmp_path / "table.csv")[1]
    expected = jackknife_interval(0.35, np.array([0.5, 0.2]), (-1, 1))
    assert (float(better["dice_low"]), float(better["dice_high"])) == pytest.approx(expected)
    # Both patients gain: 2 of 4 flips.
    assert (better["paired_images"], better["paired_groups"], better["dice_p"]) == ("4", "2", "0.5")
    printed = capsys.readouterr().out
    assert "Fewer than 60 images and 20 groups stand behind an interval (4 and 2)" in printed
    assert "- Images of one group (patient, sequence, near-duplicates) stay together" in printed


def test_one_image_has_a_difference_and_no_interval(tmp_path, capsys):
    folders = [run_folder(tmp_path / name, {"x": dice}, {"x": True}) for name, dice in (("a", 0.5), ("b", 0.75))]
    assert main([*map(str, folders), "--csv", str(tmp_path / "table.csv")]) == 0
    assert "| b     | last    | 0             | +25.0    |" in capsys.readouterr().out
    assert "dice_low" not in read_table(tmp_path / "table.csv")[1]


def test_the_baseline_can_be_any_group(groups, capsys):
    assert main([*groups, "--baseline", "better"]) == 0
    assert "-15.0 [-15.0, -15.0]" in capsys.readouterr().out


def test_a_run_alone_is_a_group_called_like_its_folder(groups, tmp_path, capsys):
    assert main([str(tmp_path / "base0"), str(tmp_path / "better0")]) == 0
    assert "+10.0 [+10.0, +10.0], p 0.125" in capsys.readouterr().out


def test_other_weights_than_the_baseline_s_are_not_compared(tmp_path, capsys):
    dice = dict.fromkeys("abcd", 0.5)
    run_folder(tmp_path / "last", dice, ALL_RIGHT)
    run_folder(tmp_path / "teacher", dice, ALL_RIGHT, weights="teacher")
    assert main([str(tmp_path / "last"), str(tmp_path / "teacher")]) == 0
    printed = capsys.readouterr().out
    assert "| teacher | teacher |" in printed and "teacher - last" not in printed and "95 %" not in printed


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"seed": 1}, "at least one seed in common"),
        ({"split_hash": "other"}, "split hash"),
        ({"finished": False}, "not finished"),
    ],
)
def test_runs_that_cannot_be_paired_are_refused_by_name(other, message, tmp_path, capsys):
    dice = dict.fromkeys("abcd", 0.5)
    run_folder(tmp_path / "first", dice, ALL_RIGHT)
    run_folder(tmp_path / "second", dice, ALL_RIGHT, **other)
    assert main([str(tmp_path / "first"), str(tmp_path / "second")]) == 2
    printed = capsys.readouterr()
    assert message in printed.err and "second" in printed.err and printed.out == ""


def test_one_seed_twice_an_unknown_baseline_and_no_run_are_refused(groups, tmp_path, capsys):
    assert main([f"base={tmp_path}/base0,{tmp_path}/better0"]) == 2
    assert "both have seed 0" in capsys.readouterr().err
    assert main([*groups, "--baseline", "best"]) == 2
    assert "best" in capsys.readouterr().err
    assert main([str(tmp_path / "nothing")]) == 2
    assert "nothing is not the output folder of a run" in capsys.readouterr().err


def test_scores_of_pixels_surfaces_and_missed_lesions_are_compared_too(tmp_path, capsys):
    scores = {"base": (0, 4, 0.25, 1), "better": (2, 4, 0.75, 0)}
    for name, (common, union, nsd, missed) in scores.items():
        folder = run_folder(tmp_path / name, dict.fromkeys("abcd", 0.5), ALL_RIGHT)
        pixels = {"intersection_0": 10, "union_0": 12, "intersection_1": common, "union_1": union}
        rows = [
            {**row, **pixels, "nsd_at_2": nsd, "hd95": 3.0, "missed": missed}
            for row in read_table(folder / "images.csv")
        ]
        write_table(folder / "images.csv", rows)
    files = {kind: tmp_path / f"table.{kind}" for kind in ("csv", "markdown", "latex")}
    flags = [word for kind, path in files.items() for word in (f"--{kind}", str(path))]
    assert main([str(tmp_path / "base"), str(tmp_path / "better"), *flags]) == 0
    printed = capsys.readouterr().out
    assert files["markdown"].read_text() == printed
    _, better = read_table(files["csv"])
    assert float(better["miou_foreground_difference"]) == 0.5
    assert float(better["nsd_at_2_low"]) == 0.5 and float(better["missed_rate_difference"]) == -1
    for cell in ("mIoU foreground - base", "NSD at 2 px - base", "missed lesions - base", "-100.0 [-100.0, -100.0]"):
        assert cell in printed
    assert "missed_rate_p" in better and "miou_foreground_p" not in better
    latex = files["latex"].read_text()
    assert latex.count(r"\begin{tabular}") == latex.count(r"\bottomrule") == 2 and r"95 \%" in latex
    assert all(line.count("&") == 9 for line in latex.splitlines() if line.startswith(("base &", "better & last & 1")))


def test_published_rows_stand_beside_with_their_contradictions(groups, tmp_path, capsys):
    path = tmp_path / "base0" / "config.json"
    config = json.loads(path.read_text())
    config["configuration"] |= {"data": "busi", "labeled": 72}
    path.write_text(json.dumps(config))
    assert main([str(tmp_path / "base0"), "--published", "hermes", "--csv", str(tmp_path / "table.csv")]) == 0
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if "Hermes (Hermes, Table 1: busi, 72 labelled) [" in line)
    assert "75.7 ± 0.2" in row and "published" in row
    assert "udiat" not in printed and "144 labelled" not in printed
    assert printed.count("Table 3 has 84.77 and Table 4 83.19") == 1  # though it stands at two rows
    (number,) = [line[2:5] for line in printed.splitlines() if "Table 3 has 84.77" in line]
    assert sum(number in line for line in printed.splitlines() if line.startswith("|")) == 2
    assert printed.count("whether Dice and IoU are means over images or of the pixels") == 1
    assert "Rows of runs: Dice, IoU" in printed and "follow the definitions of their paper" in printed
    assert "on other data" not in printed
    rows = read_table(tmp_path / "table.csv")
    assert {row["accuracy"] for row in rows if "84.77" in row["notes"]} == {"0.8477", "0.8319"}
    # On other data: everything, whatever the number of labels.
    path = tmp_path / "base1" / "config.json"
    config = json.loads(path.read_text())
    config["configuration"] |= {"data": "phantom", "labeled": 0.1}
    path.write_text(json.dumps(config))
    assert main([str(tmp_path / "base1"), "--published", "loco"]) == 0
    printed = capsys.readouterr().out
    assert "fahsyu_lc, 0.5 labelled" in printed and printed.count("its tolerance not given") == 1
    assert printed.count("whether mIoU counts the background") == 1
    assert printed.count("on other data than the runs (phantom)") == 1
    assert "LoCo (LoCo, Table II: kvasir_seg, 0.1 labelled)" in printed and "Table IV" in printed


def test_groups_are_paired_on_the_seeds_they_have_in_common(groups, tmp_path, capsys):
    assert main([groups[0], f"better={tmp_path}/better1", "--csv", str(tmp_path / "table.csv")]) == 0
    base, better = read_table(tmp_path / "table.csv")
    assert (base["seeds"], better["seeds"], better["paired_seeds"]) == ("2", "1", "1")
    assert float(better["dice_difference"]) == pytest.approx(0.2)
    assert "| better | last    | 1             | +20.0" in capsys.readouterr().out


def test_weights_that_not_all_seeds_have_are_shown_and_noted(tmp_path, capsys):
    dice = dict.fromkeys("abcd", 0.5)
    for seed, weights in enumerate(("last", "teacher")):
        run_folder(tmp_path / str(seed), dice, ALL_RIGHT, seed, f"hash{seed}", weights=weights)
    assert main([f"mixed={tmp_path}/0,{tmp_path}/1"]) == 0
    printed = capsys.readouterr().out
    assert "| mixed [1] | last    | 1 " in printed and "| mixed [2] | teacher | 1 " in printed
    assert "[2] of mixed, only these seeds have the weights 'teacher': 1" in printed


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", '{"result": {}}', "no 'configuration'"),
        ("config.json", '{"result": {}, "configuration": {"seed": 0}, "split": {}}', "no 'hash'"),
        ("config.json", "[]", "no JSON object"),
        ("config.json", "{", "no JSON file"),
        ("images.csv", "name,dice\na,0.5\n", "without 'weights'"),
        ("images.csv", "name,weights,dice\n", "no rows"),
        ("images.csv", "name,weights,dice\na,last\n", "a cell"),
    ],
)
def test_broken_folders_are_named(name, content, message, tmp_path, capsys):
    folder = run_folder(tmp_path / "broken", {"a": 0.5}, {"a": True})
    (folder / name).write_text(content)
    assert main([str(folder)]) == 2
    printed = capsys.readouterr().err
    assert message in printed and "broken is not the output folder of a run" in printed


@pytest.mark.parametrize("kind", ["csv", "markdown", "latex"])
def test_files_that_cannot_be_written_are_named_before_anything_is_read(kind, tmp_path, capsys):
    for path, message in ((tmp_path / "missing" / "x", "no folder"), (tmp_path, "is a folder")):
        assert main(["no_run", f"--{kind}", str(path)]) == 2
        printed = capsys.readouterr().err
        assert f"--{kind} {path}" in printed and message in printed


def test_a_sweep_over_other_splits_shows_means_without_differences(groups, tmp_path, capsys):
    run_folder(tmp_path / "other", {"a": 0.5}, {"a": True}, 0, "other")
    folders = {"base": [tmp_path / "base0"], "other": [tmp_path / "other"], "better": [tmp_path / "better0"]}
    compare_folders(folders, require_pairs=False)
    printed = capsys.readouterr().out
    assert "| other [1] | last    | 1     | 50.0" in printed and "[1] no differences: " in printed
    assert "| better | last    | 0" in printed


def test_headroom_and_saturation(tmp_path, capsys):
    images = [f"{index}" for index in range(20)]

    def group(name, gain, **flags):
        for seed in (0, 1):
            dice = {image: 0.4 + gain + 0.02 * (index % 2) for index, image in enumerate(images)}
            run_folder(tmp_path / f"{name}{seed}", dice, dict.fromkeys(images, True), seed, **flags)
        return f"{name}={tmp_path}/{name}0,{tmp_path}/{name}1"

    short = group("short", 0.0, method="supervised", steps=100)
    long = group("long", 0.05, method="supervised", steps=200)
    oracle = group("oracle", 0.1, method="hermes", steps=200, pseudo_labels_from="truth")
    level = group("level", 0.0, method="hermes", steps=100, pseudo_labels_from="truth")
    assert main([short, long, oracle, level]) == 0
    printed = capsys.readouterr().out
    assert "headroom, oracle - long: +5.0 Dice [+5.0, +5.0]\n" in printed
    assert "headroom, level - short: +0.0 Dice [+0.0, +0.0]; the interval includes 0: too short to tell" in printed
    assert "saturation, long - short, twice the steps: +5.0 Dice [+5.0, +5.0]; not saturated" in printed
    assert "oracle - short" not in printed


def test_a_group_whose_name_does_something_to_the_screen_is_refused(groups, capsys):
    assert main(["\x1b[2J=somewhere"]) == 2
    assert "the group '\\x1b[2J' holds control characters" in capsys.readouterr().err


@pytest.mark.parametrize("argument", ["a=", "a=x,,y", ""])
def test_a_group_without_a_run_is_named(argument, capsys):
    assert main([argument]) == 2
    assert f"{argument!r} lacks a run's folder" in capsys.readouterr().err


def own_rows(folder, dice, image_size=64, in_mm=0):
    """Gives a run scores at the images' own size."""
    config = json.loads((folder / "config.json").read_text())
    config["configuration"]["image_size"] = image_size
    config["result_own_size"] = {}
    (folder / "config.json").write_text(json.dumps(config))
    rows = [{**row, "dice": dice, "union_0": 1, "intersection_0": 1} for row in read_table(folder / "images.csv")]
    for row in rows[:in_mm]:
        row |= {"nsd_at_1_mm": 0.75, "hd95_mm": 2.0}
    write_table(folder / "images_own_size.csv", rows)


def test_runs_are_compared_at_the_images_own_size_where_all_have_it(groups, tmp_path, capsys):
    flags = ["--csv", str(tmp_path / "table.csv")]
    assert main([*groups, *flags]) == 0
    assert "In per cent, at the network's size: mean" in capsys.readouterr().out
    for seed in (0, 1):
        own_rows(tmp_path / f"base{seed}", 0.25, in_mm=3)
    assert main([*groups, *flags]) == 0
    printed = capsys.readouterr().out
    assert "In per cent, at the network's size, 64 x 64 pixels: mean" in printed and "23.8 ± 1.8" in printed
    assert {row["size"] for row in read_table(tmp_path / "table.csv")} == {"network"}
    assert main([*groups, *flags, "--size", "own"]) == 2
    assert "--size own: " in (error := capsys.readouterr().err) and "better0 has no images_own_size.csv" in error
    for seed in (0, 1):
        own_rows(tmp_path / f"better{seed}", 0.5, 128)
    assert main([*groups, *flags]) == 0
    printed = capsys.readouterr().out
    assert "In per cent, at the files' own size: mean" in printed and "| 25.0 ± 0.0 |" in printed
    assert "In percentage points, at the files' own size: paired" in printed and "+25.0 [+25.0, +25.0]" in printed
    assert "75.0 ± 0.0" in printed and "- [1] In mm: the 3 of 4 images whose pixels' size is known." in printed
    base, better = read_table(tmp_path / "table.csv")
    assert base["size"] == better["size"] == "own" and float(base["hd95_mm"]) == 2 and better["hd95_mm"] == ""
    assert main([*groups, "--size", "network"]) == 0
    printed = capsys.readouterr().out
    assert "at the network's size, 64 x 64 and 128 x 128 pixels: mean" in printed and "23.8 ± 1.8" in printed


def test_own_sizes_of_some_weights_only_do_not_decide(tmp_path, capsys):
    folder = run_folder(tmp_path / "run", dict.fromkeys("abcd", 0.5), ALL_RIGHT)
    own_rows(folder, 0.25)
    rows = read_table(folder / "images.csv")
    write_table(folder / "images.csv", [*rows, *({**row, "weights": "teacher"} for row in rows)])
    assert main([str(folder)]) == 0
    assert "at the network's size, 64 x 64 pixels" in capsys.readouterr().out
    assert main([str(folder), "--size", "own"]) == 0
    assert "at the files' own size" in (printed := capsys.readouterr().out) and "teacher" not in printed


def test_classes_alone_have_no_size(tmp_path, capsys):
    folder = run_folder(tmp_path / "run", dict.fromkeys("abcd", 0.5), ALL_RIGHT)
    rows = [{key: value for key, value in row.items() if key != "dice"} for row in read_table(folder / "images.csv")]
    write_table(folder / "images.csv", rows)
    assert main([str(folder)]) == 0
    assert "In per cent: mean" in capsys.readouterr().out
