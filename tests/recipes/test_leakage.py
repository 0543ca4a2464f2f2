"""Where the near-duplicates of test images are found to be, and the intervals of their scores."""

import pytest

from keras_semimed.data import Split
from keras_semimed.files import write_table
from recipes import leakage


def test_twins_are_found_by_group_and_part(tmp_path):
    Split(("a",), ("b",), ("c",), ("t1", "t2", "t3", "t4")).save(tmp_path / "split.txt")
    groups = {"a": "A", "t1": "A", "b": "B", "t2": "B", "c": "C", "t3": "C", "t4": "D"}
    scores = {"dice": 0.5, "label": 1, "prediction": 1}
    rows = [{"weights": weights, "name": f"t{i}", **scores} for weights in ("last", "teacher") for i in (1, 2, 3, 4)]
    write_table(tmp_path / "images.csv", [*rows[:3], {**rows[3], "dice": 0.25, "prediction": 0}, *rows[4:]])
    found = leakage.scored_images(tmp_path, groups)
    assert [row["twin"] for row in found] == ["labelled", "unlabelled", "unlabelled", "none"]
    assert [row["dice"] for row in found] == [0.5, 0.5, 0.5, 0.25]
    assert [row["right"] for row in found] == [1, 1, 1, 0]


def test_interval_draws_the_rows_of_an_image_together():
    two = [{"name": name, "dice": float(name == "a")} for name in "ab"]
    many = [row for row in two for _ in range(50)]
    assert leakage.mean_and_interval(two, "dice") == leakage.mean_and_interval(many, "dice") == "50.0 [0.0, 100.0]"
    assert leakage.mean_and_interval([{"name": "a", "dice": 0.25}], "dice") == "25.0"
    assert leakage.mean_and_interval([], "dice") == "-"


def test_one_draw_is_refused(capsys):
    with pytest.raises(SystemExit) as end:
        leakage.main(["--draws", "1", "--manual-dir", "nowhere"])
    assert end.value.code == 2 and "--draws must be at least 2" in capsys.readouterr().err


def test_flags_that_the_recipe_sets_are_refused(capsys):
    with pytest.raises(SystemExit) as end:
        leakage.main(["--manual-dir", "nowhere", "--seed", "7"])
    assert end.value.code == 2 and "--seed is set by this recipe" in capsys.readouterr().err
