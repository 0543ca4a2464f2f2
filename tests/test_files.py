from __future__ import annotations

import pytest

from keras_semimed.files import read_table, whole_file, write_table


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "model.keras"
    path.write_text("old")
    with pytest.raises(RuntimeError), whole_file(path) as temporary:
        assert temporary.suffix == ".keras"
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.keras"]


def test_a_table_has_every_column_that_occurs(tmp_path):
    write_table(tmp_path / "t.csv", [{"a": 1, "b": "x, y"}, {"a": 2, "c": 0.5}])
    assert read_table(tmp_path / "t.csv") == [{"a": "1", "b": "x, y", "c": ""}, {"a": "2", "b": "", "c": "0.5"}]
