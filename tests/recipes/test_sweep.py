"""Sweeps: rows and flags of tables and grids, resuming, refusals. Runs are replaced by a stand-in."""

import json
import subprocess
from pathlib import Path

import pytest

from recipes import compare, sweep
from recipes.hermes_arguments import HermesSettings
from recipes.loco_arguments import LoCoSettings


@pytest.fixture
def runs(monkeypatch):
    """Commands that were run; each leaves a finished folder, and the comparison notes its groups."""
    commands = []

    def run(command):
        commands.append(command)
        folder = Path(command[command.index("--output") + 1])
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"result": {}}))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(compare, "main", lambda arguments: commands.append(arguments) or 0)
    return commands


def test_tables_use_flags_that_their_recipes_have():
    for recipe, _, rows in sweep.TABLES.values():
        settings = LoCoSettings if recipe.startswith("loco") else HermesSettings
        names = {f"--{name.replace('_', '-')}" for name in settings.__dataclass_fields__}
        for flags in rows.values():
            assert len(flags) % 2 == 0 and set(flags[::2]) <= names
    assert sweep.TABLES["hermes_table_3"][2]["4_exchange_itcl"] == (
        "--unlabeled-weight",
        "0",
        "--alpha",
        "0",
        "--beta",
        "0",
    )
    assert list(sweep.TABLES["loco_table_4"][2]) == [f"M{number}" for number in range(1, 8)]


def test_grid_runs_each_combination_and_seed_once(runs, tmp_path):
    command = ["hermes", "--grid", "alpha=0.2,0.8", "selection=dual", "--seeds", "0", "3", "--output", str(tmp_path)]
    assert sweep.main([*command, "--", "--demo", "--steps", "4"]) == 0
    *trainings, comparison = runs
    assert len(trainings) == 4
    assert trainings[0][2:] == [
        *("recipes.hermes_busi", "--demo", "--steps", "4", "--alpha", "0.2", "--selection", "dual"),
        *("--seed", "0", "--output", str(tmp_path / "alpha-0.2_selection-dual" / "0"), "--resume"),
    ]
    first = f"alpha-0.2_selection-dual={tmp_path}/alpha-0.2_selection-dual/0,{tmp_path}/alpha-0.2_selection-dual/3"
    assert comparison[0] == first and len(comparison[:-4]) == 2
    runs.clear()
    assert sweep.main([*command, "--", "--demo", "--steps", "4"]) == 0
    assert len(runs) == 1  # nothing but the comparison


def test_finished_runs_of_other_flags_are_not_mixed_in(runs, tmp_path, capsys):
    command = ["loco_table_4", "--rows", "M1", "--output", str(tmp_path), "--"]
    assert sweep.main([*command, "--steps", "4", "--manual-dir", "here", "--data-dir=here"]) == 0
    assert sweep.main([*command, "--manual-dir", "elsewhere", "--steps", "4"]) == 0  # the data were moved
    assert len(runs) == 3  # one training, two comparisons
    assert sweep.main([*command, "--steps", "8"]) == 2
    assert "made with 'loco_kvasir --steps 4 --rung M1', now it is 'loco_kvasir --steps 8" in capsys.readouterr().err


def test_a_failed_run_stops_the_sweep_and_keeps_the_rest(runs, tmp_path, monkeypatch, capsys):
    run = subprocess.run
    monkeypatch.setattr(
        subprocess, "run", lambda command: run(command) if "M1" in command else subprocess.CompletedProcess(command, 3)
    )
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
    ],
)
def test_wrong_usage(arguments, message, capsys):
    assert sweep.main(arguments) == 2
    assert message in capsys.readouterr().err
