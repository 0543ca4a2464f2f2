"""Sweeps: rows and flags of tables and grids, resuming, refusals. Runs are replaced by a stand-in."""

import json
from pathlib import Path

import pytest

from keras_semimed.evaluation import published_results
from keras_semimed.experiments.command_line.bundles import COMMANDS
from keras_semimed.experiments.command_line.flags import flags_of
from keras_semimed.experiments.comparison import compare, sweep
from keras_semimed.files import read_table
from tests.recipes.made import run_folder


@pytest.fixture
def runs(monkeypatch):
    """Commands that were run; each leaves a finished folder, and the comparison notes what it is given."""
    commands = []

    def run(command):
        commands.append(command)
        folder = Path(command[command.index("--output") + 1])
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"result": {}}))
        return 0

    monkeypatch.setattr(sweep, "run_child", run)
    monkeypatch.setattr(compare, "compare_folders", lambda folders, **options: commands.append((folders, options)))
    return commands


def test_tables_use_flags_that_their_recipes_have():
    for recipe, _, rows, published in sweep.TABLES.values():
        if published:
            paper, name = published
            assert name in {row["table"] for row in published_results(paper)}
        names = {flag.word for flag in flags_of(COMMANDS[recipe].method).values()}
        for flags in rows.values():
            assert len(flags) % 2 == 0 and set(flags[::2]) <= names
    assert sweep.TABLES["hermes_table_3"].rows["4_exchange_itcl"] == (
        "--unlabeled-weight",
        "0",
        "--alpha",
        "0",
        "--beta",
        "0",
    )
    assert list(sweep.TABLES["loco_table_4"].rows) == [f"M{number}" for number in range(1, 8)]


def test_grid_runs_each_combination_and_seed_once(runs, tmp_path):
    command = ["hermes", "--grid", "alpha=0.2,0.8", "selection=dual", "--seeds", "0", "3", "--output", str(tmp_path)]
    assert sweep.main([*command, "--", "--demo", "--steps", "4"]) == 0
    *trainings, comparison = runs
    assert len(trainings) == 4
    assert trainings[0][2:] == [
        *("keras_semimed.experiments", "hermes_busi", "--demo", "--steps", "4"),
        *("--alpha", "0.2", "--selection", "dual"),
        *("--seed", "0", "--output", str(tmp_path / "alpha-0.2_selection-dual" / "0"), "--resume"),
    ]
    folders, options = comparison
    assert folders == {
        f"alpha-{alpha}_selection-dual": [tmp_path / f"alpha-{alpha}_selection-dual" / seed for seed in "03"]
        for alpha in ("0.2", "0.8")
    }
    assert options["files"] == {
        kind: tmp_path / f"table.{end}" for kind, end in (("csv", "csv"), ("markdown", "md"), ("latex", "tex"))
    }
    assert options["published"] is None
    runs.clear()
    assert sweep.main([*command, "--", "--demo", "--steps", "4"]) == 0
    assert len(runs) == 1  # nothing but the comparison


def test_a_grid_over_methods_trains_them_on_one_data_set(runs, tmp_path):
    command = ["train", "--grid", "method=supervised,fixmatch", "--output", str(tmp_path), "--", "busi", "--demo"]
    assert sweep.main(command) == 0
    assert [run[2:7] for run in runs[:2]] == [["keras_semimed.experiments", "train", "busi", "--demo", "--method"]] * 2
    assert [run[7] for run in runs[:2]] == ["supervised", "fixmatch"]


def test_finished_runs_of_other_flags_are_not_mixed_in(runs, tmp_path, capsys):
    command = ["loco_table_4", "--rows", "M1", "--output", str(tmp_path), "--"]
    assert sweep.main([*command, "--steps", "4", "--manual-dir", "here", "--data-dir=here", "--test-on-dir", "a"]) == 0
    assert sweep.main([*command, "--manual-dir", "elsewhere", "--steps", "4"]) == 0  # the data were moved
    assert len(runs) == 3  # one training, two comparisons
    assert sweep.main([*command, "--steps", "8"]) == 2
    assert "made with 'loco_kvasir --steps 4 --rung M1', now it is 'loco_kvasir --steps 8" in capsys.readouterr().err


def test_a_failed_run_stops_the_sweep_and_keeps_the_rest(runs, tmp_path, monkeypatch, capsys):
    run = sweep.run_child
    monkeypatch.setattr(sweep, "run_child", lambda command: run(command) if "M1" in command else 3)
    assert sweep.main(["loco_table_4", "--rows", "M1", "M2", "--output", str(tmp_path)]) == 2
    assert "M2, seed 0 ended with exit code 3" in capsys.readouterr().err
    assert (tmp_path / "M1" / "0" / "config.json").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["table_99"], "no table"),
        (["hermes_table_3", "--rows", "7"], "'7' is no row"),
        (["busi", "--grid", "alpha=1"], "no recipe for --grid"),
        (["hermes", "--grid", "alpha"], "FLAG=VALUE"),
        (["hermes", "--grid", "alpha=1", "alpha=2"], "twice"),
        (["hermes", "--grid", "seed=0,1"], "the sweep's --seeds"),
        (["loco_table_4", "--", "--demo", "--seed", "7"], "the sweep's --seeds"),
        (["loco_table_4", "--", "--se=7"], "the sweep's --seeds"),
        (["loco_table_4", "--", "--output", "elsewhere"], "the sweep's --output"),
        (["loco_table_4", "--", "--resume"], "leave it out"),
        (["loco_table_4", "--seeds", "0", "1", "0"], "the seed 0 stands there twice"),
        (["loco_table_4", "--seeds", "-1"], "--seeds must be within 0 and 2^32 - 1, found -1"),
        (["loco_table_4", "--seeds", "99999999999999999999"], "--seeds must be within 0 and 2^32 - 1"),
        (["hermes", "--grid", "weights=../../x"], "no folder of --output can be called so"),
        (["hermes", "--grid", "weights=\x1b[2J"], "'weights=\\x1b[2J': no folder of --output"),
    ],
)
def test_wrong_usage(arguments, message, runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert sweep.main(arguments) == 2
    assert message in capsys.readouterr().err
    assert runs == [] and not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name, content",
    [("sweep.json", "{"), ("sweep.json", '{"M1": 5}'), ("M2/0/config.json", "{"), ("M2/0/config.json", "[]")],
)
def test_broken_files_are_named_before_any_run(name, content, runs, tmp_path, capsys):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(content)
    assert sweep.main(["loco_table_4", "--rows", "M1", "M2", "--output", str(tmp_path)]) == 2
    assert name in capsys.readouterr().err and runs == []


def test_an_output_that_is_a_file_is_refused_before_any_run(runs, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert sweep.main(["loco_table_4", "--output", str(tmp_path / "file")]) == 2
    assert "file" in capsys.readouterr().err and runs == []


def test_the_list_says_that_loco_s_table_is_of_other_data(capsys):
    assert sweep.main(["list"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("loco_table_4")]
    assert "on Kvasir-SEG; the paper's Table IV is on its private FAHSYU-LC" in line


def test_a_paper_s_table_ends_with_its_published_rows_in_a_folder_of_any_name(tmp_path, monkeypatch, capsys):
    def run(command):
        rung = command[command.index("--rung") + 1]
        folder = Path(command[command.index("--output") + 1])
        run_folder(folder, {"a": 0.25, "b": 0.5 if rung == "M1" else 0.75}, dict.fromkeys("ab", True))
        return 0

    monkeypatch.setattr(sweep, "run_child", run)
    output = tmp_path / "alpha=1,2"
    assert sweep.main(["loco_table_4", "--rows", "M1", "M2", "--output", str(output)]) == 0
    assert "+12.5" in capsys.readouterr().out
    text = (output / "table.md").read_text()
    assert "M7 (LoCo, Table IV: fahsyu_lc, 0.1 labelled)" in text and "Table II:" not in text
    assert "the data set is private" in text and "on other data than the runs" in text
    assert r"\toprule" in (output / "table.tex").read_text()
    assert len(read_table(output / "table.csv")) == 2 + 7
