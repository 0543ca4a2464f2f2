"""The experiments of docs/protocol.md: flags that fit, draws that are gone on with, and tables by hand."""

from __future__ import annotations

import gzip
import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from keras_semimed.data import Split, loading
from keras_semimed.experiments.command_line.command import read_settings
from keras_semimed.files import write_json, write_table
from recipes import protocol
from recipes.packed_tables import pack_table, packed_table, unpack_table
from recipes.protocol_tables import crossed_difference
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
    write_json(folder / "config.json", {"configuration": {}})
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


def test_a_draw_goes_on_where_it_was_stopped_and_is_not_run_twice(monkeypatch, tmp_path):
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
    protocol.run_draw("S", 200, [], tmp_path / "work", output)
    assert len(commands) == count


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
