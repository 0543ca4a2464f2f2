"""The experiments of docs/protocol.md: flags that fit, draws that are gone on with, and tables by hand."""

from __future__ import annotations

import gzip
import json
import random
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.broken_runs import damage
from keras_semimed.data import Split, loading
from keras_semimed.experiments.command_line.command import read_settings
from keras_semimed.files import write_json, write_sealed, write_table
from recipes import protocol
from recipes.packed_tables import pack_table, packed_table, unpack_table
from recipes.protocol_tables import NEW_STATISTICS, crossed_difference, mean_scores, read_draws
from tests.recipes.made import image_set

ARMS = [(key, arm) for key, table in protocol.TABLES.items() for arm in (protocol.FIRST, *table.arms)]


@pytest.mark.parametrize(("table", "arm"), ARMS)
def test_the_flags_of_every_arm_fit_its_method(table, arm):
    of = protocol.TABLES[table]
    flags = of.first if arm == protocol.FIRST else of.arms[arm]
    settings = read_settings("train", [of.data, *of.common.split(), *flags.split()])
    large = table.endswith("_224")
    steps = (2000, 1000) if large else (600, 600) if table == "L" else (600, 400)
    assert settings.steps == steps[arm != protocol.FIRST]
    assert settings.image_size == (224 if large else 96 if table == "L" else 64) and settings.unused == ()
    page = (Path(protocol.__file__).parents[1] / "docs" / "protocol.md").read_text(encoding="utf-8")
    assert arm == protocol.FIRST or f"`{arm}`" in page or f"`_{arm.rpartition('_')[2]}`" in page


def write_arm(folder: Path, rows: list[dict]) -> None:
    folder.mkdir(parents=True)
    write_sealed(folder / "config.json", {"configuration": {}})
    (folder / "metrics.csv").write_text("x\n")
    write_table(folder / "images.csv", rows)
    pack_table(folder / "images.csv", folder / "images.csv")


def scores(values: dict[str, float]) -> list[dict]:
    return [{"name": name, "weights": "last", "dice": value} for name, value in values.items()]


def test_draws_share_the_test_part_and_choose_their_own_labels(monkeypatch, tmp_path):
    monkeypatch.setattr(loading, "load_image_set", image_set)
    table = protocol.TABLES["S"]._replace(labeled=6)
    monkeypatch.setitem(protocol.TABLES, "S", table)
    protocol.write_splits("S", [200, 201], None, None, tmp_path)
    one, two = (Split.load(protocol.split_path("S", draw, tmp_path)) for draw in (200, 201))
    assert (
        one.test == two.test
        and len(one.test) == 20
        and one.validation == ()
        and one.labeled != two.labeled
        and len(one.labeled) == 6
    )
    monkeypatch.setattr(loading, "load_image_set", None)  # those that are there are not made again
    protocol.write_splits("S", [200, 201], None, None, tmp_path)


def test_images_that_are_not_there_are_named_by_their_flag(tmp_path, capsys):
    gone = tmp_path / "gone"
    words = ["--manual-dir", str(gone), "--data-dir", str(tmp_path / "data"), "--output", str(tmp_path)]
    assert protocol.main(["S", *words]) == 2
    assert f"error: busi: --manual-dir {gone} does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("minutes", ["nan", "-1", "inf"])
def test_minutes_that_are_no_time_are_refused_before_anything_runs(minutes, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(protocol, "write_splits", None)
    assert protocol.main(["S", "--minutes", minutes, "--output", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert message == f"error: --minutes must be a finite number of at least 0, found {float(minutes)}\n"


def test_a_draw_goes_on_where_it_was_stopped_and_is_not_run_twice(monkeypatch, tmp_path, capsys):
    commands = []

    def run(command, end):
        assert end is None
        commands.append(command)
        folder = Path(command[command.index("--output") + 1])
        if folder.name == "control" and len(commands) < 5:
            return 3
        if not folder.exists():
            write_arm(folder, scores({"a": 0.5}))
        return 0

    monkeypatch.setattr(protocol, "run_until", run)
    output = tmp_path / "kept"
    with pytest.raises(protocol.RecipeError, match="control of draw 200 ended with exit code 3"):
        protocol.run_draw("S", 200, [], tmp_path / "work", output)
    assert not (output / "S").exists() and len(commands) == 4
    protocol.run_draw("S", 200, ["--weights", "w.npz"], tmp_path / "work", output)
    arms = protocol.TABLES["S"].arms
    assert {path.name for path in (output / "S" / "200").iterdir()} == {protocol.FIRST, *arms}
    assert all("--resume" in command and "--split-file" in command for command in commands)
    first, later = commands[4], commands[5]
    assert "--start-from" not in first and first[first.index("--weights") + 1] == "w.npz"
    assert later[later.index("--start-from") + 1] == str(tmp_path / "work" / "S" / "200" / protocol.FIRST)
    assert [word for word in later if word == "none"] and not (tmp_path / "work" / "S" / "200").exists()
    count = len(commands)
    capsys.readouterr()
    protocol.run_draw("S", 200, [], tmp_path / "work", output)
    assert len(commands) == count
    kept = output / "S" / "200"
    assert capsys.readouterr().out == f"S 200 is done, {kept} holds it; another --output runs it again\n"


def test_a_run_is_stopped_when_time_is_up(monkeypatch, tmp_path, capsys):
    wait = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(143)); time.sleep(60)"
    assert protocol.run_until([sys.executable, "-c", "raise SystemExit(3)"], None) == 3
    before = time.monotonic()
    with pytest.raises(protocol.TimeIsUp):
        protocol.run_until([sys.executable, "-c", wait], before + 0.5)
    assert time.monotonic() - before < 30
    monkeypatch.setattr(protocol, "write_splits", lambda *_: None)
    assert protocol.main(["S", "--minutes", "0", "--output", str(tmp_path), "--work", str(tmp_path / "work")]) == 75
    assert "0 minutes are over" in capsys.readouterr().out


def test_a_trial_runs_a_hundredth_and_keeps_nothing(monkeypatch, tmp_path):
    commands = []
    monkeypatch.setattr(protocol, "run_until", lambda command, end: commands.append(command) or 0)
    for arm in protocol.TABLES["S"].arms:  # a draw that is done can be tried, too
        write_arm(tmp_path / "done" / "S" / "200" / arm, scores({"a": 0.5}))
    protocol.run_draw("S", 200, [], tmp_path / "work", tmp_path / "done", trial=True)
    steps = [command[command.index("--steps") + 1] for command in commands]
    assert len(steps) == 8
    commands.clear()
    protocol.run_draw("S", 200, [], tmp_path / "work", tmp_path / "kept", trial=True)
    steps = [command[command.index("--steps") + 1] for command in commands]
    assert steps == ["6", *["4"] * len(protocol.TABLES["S"].arms)]
    assert all(command[command.index("--epoch-steps") + 1] == "1" for command in commands)
    assert not (tmp_path / "kept").exists()


def test_tables_are_made_from_what_is_kept_alone(tmp_path, capsys):
    random = np.random.default_rng(0)
    names = [f"{index}" for index in range(30)]
    gains = {"supervised": 0.0, "control": 0.01, "hermes": 0.05}
    for draw in (200, 201, 202):
        for arm in (protocol.FIRST, *protocol.TABLES["S"].arms):
            noise = random.normal(0, 0.01, 30)
            values = 0.5 + gains.get(arm, 0.0) + noise
            write_arm(tmp_path / "S" / str(draw) / arm, scores(dict(zip(names, values.tolist(), strict=True))))
    assert protocol.main(["S", "--table", "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "3 of 10 draws" in printed and "hermes - control" not in printed
    assert "headroom, oracle - supervised: " in printed and "too short to tell methods apart" in printed
    assert "saturation, supervised - what it started from: " in printed
    _, shown = (line.split("|") for line in printed.splitlines() if line.startswith("| hermes "))
    gains = [float(value) for value in shown[3].split()]
    assert len(gains) == 3 and np.mean(gains) == pytest.approx(float(shown[2].split()[0]), abs=0.1)
    assert protocol.main(["S", "--table", "--all", "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "over images and draws. Fewer than 60 images and 20 draws stand behind an interval (30 and 3)" in printed
    row = next(line for line in printed.splitlines() if "hermes - control" in line)
    mean, low, high = (
        float(value) for value in row.split("|")[2].replace("[", " ").replace("]", " ").replace(",", " ").split()
    )
    assert low < mean < high and 3 < mean < 5 and low > 0
    assert protocol.main(["J", "--table", "--output", str(tmp_path)]) == 2
    assert "no draw that is done" in capsys.readouterr().err


def test_the_arms_that_a_question_is_about_are_compared(tmp_path, capsys):
    levels = {"loco_m2": 0.50, "loco_m3": 0.53, "loco_m5": 0.48}
    for draw in (200, 201):
        for arm in (protocol.FIRST, *protocol.TABLES["T"].arms):
            here, elsewhere = levels.get(arm, 0.4), levels.get(arm, 0.4) / 2
            rows = [{"name": str(name), "weights": "last", "dice": here + draw % 2 / 100 * here} for name in range(8)]
            rows += [{"name": str(name), "weights": "last on bus_bra", "dice": elsewhere} for name in range(4)]
            write_arm(tmp_path / "T" / str(draw) / arm, rows)
    assert protocol.main(["T", "--table", "--output", str(tmp_path)]) == 0
    lines = [[cell.strip() for cell in line.split("|")] for line in capsys.readouterr().out.splitlines()]
    found = {cells[1]: cells[2:-1] for cells in lines if len(cells) > 3 and " - " in cells[1]}
    assert found["loco_m3 - loco_m2"] == ["+3.0 [3.0, 3.0]", "+3.0 +3.0"]
    assert found["loco_m3 - loco_m2 on bus_bra"] == ["+1.5 [1.5, 1.5]", "+1.5 +1.5"]
    assert found["loco_m5 - loco_m2"][0] == "-2.0 [-2.0, -2.0]"
    for of in protocol.TABLES.values():
        assert all(arm in of.arms for pair in of.pairs for arm in pair)


def test_all_kinds_of_weights_are_shown(tmp_path, capsys):
    levels = {"last": 0.5, "last, new statistics": 0.54, "teacher": 0.51, "teacher, new statistics": 0.52}
    for draw in (200, 201):
        for arm in (protocol.FIRST, *protocol.TABLES["T"].arms):
            gain = 0.03 if arm == "loco_m3" else 0.0
            rows = [
                {"name": str(name), "weights": f"{kind}{place}", "dice": level + gain - len(place) / 100}
                for kind, level in levels.items()
                for place in ("", " on bus_bra")
                for name in range(4)
            ]
            write_arm(tmp_path / "T" / str(draw) / arm, rows)
    assert protocol.main(["T", "--table", "--output", str(tmp_path)]) == 0
    tables = [part.strip().splitlines() for part in re.split(r"\n(?=Paired|\w+ weights)", capsys.readouterr().out)]
    cells = [[[cell.strip() for cell in line.split("|")[1:-1]] for line in table if "|" in line] for table in tables]
    of = {rows[0][0] if rows else "": rows for rows in cells}
    assert ["loco_m3 - loco_m2", "+3.0 [3.0, 3.0]", "+3.0 +3.0"] in of["what is asked, new statistics"]
    renewed = of["new statistics - those of the training"]
    assert ["supervised", "+4.0 [4.0, 4.0]", "+4.0 +4.0"] in renewed
    assert ["supervised on bus_bra", "+4.0 [4.0, 4.0]", "+4.0 +4.0"] in renewed
    averaged = {table[0]: rows for table, rows in zip(tables, cells, strict=True) if table[0].startswith("Averaged")}
    assert [rows[2][:2] for rows in averaged.values()] == [["supervised", "51.0 ± 0.0"], ["supervised", "52.0 ± 0.0"]]
    assert all("which decide nothing" in title for title in averaged)


def kept_draws(output: Path) -> Path:
    """Two draws of table S; returns the folder of an arm in the second one."""
    for draw in (200, 201):
        for arm in (protocol.FIRST, *protocol.TABLES["S"].arms):
            rows = [
                {"name": name, "weights": weights, "dice": 0.5, "iou": 0.25}
                for weights, names in (("last", "abc"), ("last on bus_bra", "de"))
                for name in names
            ]
            write_arm(output / "S" / str(draw) / arm, rows)
    return output / "S" / "201" / "hermes"


def packed_again(folder: Path, change) -> None:
    rows = unpack_table(folder / "images.csv")
    write_table(folder / "images.csv", change(rows))
    pack_table(folder / "images.csv", folder / "images.csv")


@pytest.mark.parametrize("how", ["flip", "cut", "empty", "text"])
def test_a_damaged_table_is_named(how, tmp_path, capsys):
    file = packed_table(kept_draws(tmp_path) / "images.csv")
    if how == "empty":
        file.write_bytes(b"")
    elif how == "text":
        file.write_bytes(gzip.compress(b"name,weights,dice\na,last,0.5,1\n"))
    else:
        damage(file, how, random.Random(1))
    assert protocol.main(["S", "--table", "--output", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: {file} is ") and message.count("\n") == 1


def test_a_configuration_that_was_changed_is_named(tmp_path, capsys):
    file = kept_draws(tmp_path) / "config.json"
    file.write_text(file.read_text().replace("configuration", "Configuration"))
    assert protocol.main(["S", "--table", "--output", str(tmp_path)]) == 2
    assert f"error: {file} is damaged or was changed by hand" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [row for row in rows if row["name"] != "b"], "scores of other images than {other}, such as 'b'"),
        (lambda rows: [*rows, rows[0]], "scores of other images than {other}, such as 'a' ('last' weights)"),
        (lambda rows: [row | {"name": f"{row['name']}2"} for row in rows], "other images than {other}, such as 'a'"),
        (lambda rows: rows[:3], "{file} has no scores of 'last on bus_bra' weights"),
        (lambda rows: [*rows, rows[0] | {"weights": "teacher"}], "{twin} has no scores of 'teacher' weights"),
        (lambda rows: [row | {"dice": ""} for row in rows], "{file} has no 'dice', which {other} has"),
        (lambda rows: [row | {"name": ""} for row in rows], "{file} has rows without 'name'"),
    ],
)
def test_files_that_cannot_be_paired_are_named(change, message, tmp_path, capsys):
    folder = kept_draws(tmp_path)
    packed_again(folder, change)
    assert protocol.main(["S", "--table", "--output", str(tmp_path)]) == 2
    file, twin, other = (
        packed_table(tmp_path / "S" / place / "images.csv") for place in ("201/hermes", "200/hermes", "200/supervised")
    )
    error = capsys.readouterr().err
    assert message.format(file=file, twin=twin, other=other) in error and error.count("\n") == 1
    if "rows without" not in message:
        assert "remove the draw that is at fault, and run it again" in error


def test_the_first_training_has_the_images_of_its_arms(tmp_path, capsys):
    folder = kept_draws(tmp_path).with_name(protocol.FIRST)
    packed_again(folder, lambda rows: rows[1:])
    assert protocol.main(["S", "--table", "--output", str(tmp_path)]) == 2
    assert f"{packed_table(folder / 'images.csv')} has scores of other images" in capsys.readouterr().err


def test_costs_that_lack_an_arm_are_named(tmp_path, capsys):
    kept_draws(tmp_path)
    file = tmp_path / "S" / protocol.COSTS
    times = dict.fromkeys(protocol.TABLES["S"].arms, 1.5)
    write_json(file, {"times": times})
    assert protocol.main(["S", "--table", "--output", str(tmp_path)]) == 0
    assert "a step costs" in capsys.readouterr().out
    write_json(file, {"times": {arm: time for arm, time in times.items() if arm != "soft"}})
    assert protocol.main(["S", "--table", "--output", str(tmp_path)]) == 2
    assert f"{file} has no time of soft; run benchmarks.protocol_steps again" in capsys.readouterr().err


def test_packed_tables_that_are_damaged_anywhere_are_named_or_unharmed(tmp_path):
    path = tmp_path / "images.csv"
    write_table(path, scores({f"image {index}": index / 7 for index in range(8)}))
    pack_table(path, path)
    whole, rows = packed_table(path).read_bytes(), unpack_table(path)
    broken = [whole[:size] for size in range(len(whole))]
    for place in range(len(whole)):
        for bit in range(8):
            broken.append(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
    for content in broken:
        packed_table(path).write_bytes(content)
        try:
            assert unpack_table(path) == rows
        except ValueError as error:
            assert str(error).startswith(f"{packed_table(path)} is ")


@pytest.mark.parametrize(
    ("table", "page"), [("S", "hermes.md"), ("J", "hermes.md"), ("T", "hermes.md"), ("L", "loco.md")]
)
def test_the_scores_in_the_documents_are_those_of_the_draws_that_are_kept(table, page):
    of, docs = protocol.TABLES[table], Path(protocol.__file__).parents[1] / "docs"
    draws = [docs / "measurements" / table / str(draw) for draw in of.draws]
    done = [draw for draw in draws if draw.is_dir()]
    _, begin, rest = (docs / page).read_text(encoding="utf-8").partition(f"<!-- table {table} -->")
    if not done:
        assert not begin
        return
    shown, end, _ = rest.partition(f"<!-- /table {table} -->")
    assert end and f" {len(done)} of {len(of.draws)} draws" in shown
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in shown.splitlines()]
    lines += [[line[0], *line[2:]] for line in lines if line]  # without what a step costs
    read, _ = read_draws(done, list(of.arms), protocol.FIRST, of.decided)
    for kind in (of.decided, of.decided + NEW_STATISTICS):
        for line in mean_scores(read, of.primary, kind)[1]:
            assert line in lines


def test_tables_are_put_into_a_page(tmp_path, capsys):
    page, head = tmp_path / "page.md", ["--output", str(tmp_path), "--page", str(tmp_path / "page.md")]
    for arm in (protocol.FIRST, *protocol.TABLES["L"].arms):
        write_arm(tmp_path / "L" / "200" / arm, [{"name": "a", "weights": w, "dice": 0.5} for w in ("last", "teacher")])
    page.write_text("before\n<!-- table L -->\nold\n<!-- /table L -->\nafter\n")
    for _ in range(2):  # what is there is replaced
        assert protocol.main(["L", "--table", *head]) == 0
    text = page.read_text()
    assert text.startswith("before\n<!-- table L -->\n\npolyps: ") and text.endswith("\n<!-- /table L -->\nafter\n")
    assert text.count("1 of 6 draws") == 1 and "old" not in text and "| m7 " in text
    page.write_text("nothing\n")
    assert protocol.main(["L", "--table", *head]) == 2
    assert "has no lines <!-- table L -->" in capsys.readouterr().err and page.read_text() == "nothing\n"


def test_packed_tables_are_the_same_to_five_digits(tmp_path):
    rows = [{"name": "0.123456789", "dice": 1 / 3, "union_0": 1234567}, {"name": "=b", "union_0": 5}]
    write_table(tmp_path / "images.csv", rows)
    pack_table(tmp_path / "images.csv", tmp_path / "kept.csv")
    assert unpack_table(tmp_path / "kept.csv") == [
        {"name": "0.123456789", "dice": "0.33333", "union_0": "1234567"},
        {"name": "=b", "dice": "", "union_0": "5"},
    ]
    assert b"\n'=b," in gzip.decompress(packed_table(tmp_path / "kept.csv").read_bytes())
    before = packed_table(tmp_path / "kept.csv").read_bytes()
    pack_table(tmp_path / "images.csv", tmp_path / "kept.csv")
    assert packed_table(tmp_path / "kept.csv").read_bytes() == before


def test_the_interval_is_over_images_and_draws():
    def rows(values):
        return [{"name": str(index), "dice": float(value)} for index, value in enumerate(values)]

    zeros = [rows(np.zeros(50))] * 2
    # Every image of a draw gains the same: only the draws are uncertain.
    found = crossed_difference([rows(np.full(50, 0.0)), rows(np.full(50, 0.1))], zeros, "dice")
    assert found == pytest.approx((0.05, 0.0, 0.1))
    # Both draws gain the same, some images 0.2, others nothing: only the images are.
    some = rows(np.tile([0.0, 0.2], 25))
    found = crossed_difference([some, some], zeros, "dice")
    assert found.mean == pytest.approx(0.1)
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.1 / np.sqrt(50), rel=0.15)


def test_draws_that_the_protocol_does_not_have_are_refused(tmp_path, capsys):
    assert protocol.main(["S", "--draws", "7", "--output", str(tmp_path)]) == 2
    assert "7 is not in 200 to 209" in capsys.readouterr().err
    assert json.dumps(protocol.TABLES["S"].arms)
