from __future__ import annotations

import numpy as np
import pytest

from keras_semimed.evaluation import paired_p_values, paired_scores, summarize
from keras_semimed.evaluation.groups import clusters_of, group_columns, parts_of
from keras_semimed.evaluation.images import read_rows
from keras_semimed.evaluation.intervals import jackknife_interval
from keras_semimed.files import write_table

PATIENTS = ["p", "p", "p", "q", "r", "r"]


def rows_of(dice, groups=PATIENTS):
    return [
        {"name": str(index), "dice": value} | ({} if group is None else {"group": group})
        for index, (value, group) in enumerate(zip(dice, groups, strict=True))
    ]


def test_columns_say_the_group_and_what_the_parts_are():
    parts = {"class": {"a": "benign", "b": "malignant"}, "scanner": {"b": "GE"}}
    assert group_columns(["a", "b"], ["p", "p"], parts) == {
        "a": {"group": "p", "group_class": "benign"},
        "b": {"group": "p", "group_class": "malignant", "group_scanner": "GE"},
    }
    assert group_columns(["a", "b"], ["a", "b"], {}) == group_columns(["a", "b"], None, {}) == {"a": {}, "b": {}}
    # One image each here, others in the test part of another seed.
    assert group_columns(["a", "b"], ["p", "q"], {}) == {"a": {"group": "p"}, "b": {"group": "q"}}


def test_rows_by_part_come_back_from_a_table(tmp_path):
    rows = [
        {"name": "a", "weights": "last", "group": "007", "group_class": "1", "group_scanner": "GE", "dice": 0.5},
        {"name": "b", "weights": "last", "group": "007", "group_class": "2", "group_scanner": "GE", "dice": 1.0},
        {"name": "c", "weights": "last", "group": "8", "group_class": "1", "dice": 0.25},
    ]
    write_table(tmp_path / "images.csv", rows)
    read = read_rows(tmp_path / "images.csv")
    assert read == rows
    parts = {title: [row["name"] for row in part] for title, part in parts_of(read).items()}
    assert parts == {"1": ["a", "c"], "2": ["b"], "scanner GE": ["a", "b"]}
    assert parts_of([{"name": "a", "group": "p", "dice": 0.5}]) == {}
    assert list(parts_of([{"name": "a", "group_scanner": "\x1b[2J"}])) == ["scanner \\x1b[2J"]


def test_the_group_of_an_image_needs_to_stand_in_one_run():
    found = clusters_of([*rows_of([0.0] * 6, [None] * 6), *rows_of([0.0] * 6), {"name": "p"}])
    assert list(found) == ["0", "1", "2", "3", "4", "5", "p"] and len(set(found.values())) == 4


def test_a_summary_leaves_out_groups_as_a_whole():
    summary = summarize(rows_of([1.0, 1.0, 1.0, 0.0, 0.5, 0.5]))
    assert (summary["images"], summary["groups"], summary["dice"]) == (6, 3, pytest.approx(4 / 6))
    # Without p: 1 / 3; without q: 4 / 5; without r: 3 / 4.
    expected = jackknife_interval(4 / 6, np.array([1 / 3, 4 / 5, 3 / 4]), (0, 1))
    assert (summary["dice_low"], summary["dice_high"]) == pytest.approx(expected)
    # Images that are all their own are as without groups.
    alone = summarize(rows_of([1.0, 0.5, 0.0], "pqr"))
    assert alone == summarize(rows_of([1.0, 0.5, 0.0], [None] * 3)) and "groups" not in alone
    one = summarize(rows_of([1.0, 0.5], "pp"))
    assert one["groups"] == 1 and "dice_low" not in one


def test_differences_leave_out_groups_as_a_whole():
    base = rows_of([0.0] * 6, [None] * 6)
    better = rows_of([1.0, 1.0, 1.0, 0.0, 0.5, 0.5])
    expected = jackknife_interval(4 / 6, np.array([1 / 3, 4 / 5, 3 / 4]), (-1, 1))
    for pair in ((better, base), (better, rows_of([0.0] * 6))):
        found = paired_scores([pair])["dice"]
        assert found.mean == pytest.approx(4 / 6) and found[1:] == pytest.approx(expected)
    assert paired_scores([(rows_of([1.0, 0.5], "pp"), rows_of([0.0, 0.0], "pp"))])["dice"][:1] == (0.75,)


def test_signs_of_a_group_flip_together():
    base = rows_of([0.0] * 6)
    # All gain: 2 of 64 flips of images, 2 of 8 of patients.
    gains = [0.5, 0.5, 0.5, 0.5, 0.25, 0.25]
    assert paired_p_values([(rows_of(gains), base)]) == {"dice": 0.25}
    assert paired_p_values([(rows_of(gains, [None] * 6), rows_of([0.0] * 6, [None] * 6))]) == {"dice": 2 / 64}
    assert paired_p_values([(rows_of([1.0, 0.5], "pp"), rows_of([0.0, 0.0], "pp"))]) == {}


def test_two_columns_of_the_same_values_do_not_double_images():
    rows = [{"name": name, "group_class": value, "group_set": value} for name, value in (("a", "x"), ("b", "y"))]
    assert {title: len(part) for title, part in parts_of(rows).items()} == {"x": 1, "y": 1, "set x": 1, "set y": 1}
