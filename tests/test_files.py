from __future__ import annotations

import re

import numpy as np
import pytest

from keras_semimed.evaluation.cases import Cases
from keras_semimed.evaluation.embeddings import Embeddings
from keras_semimed.evaluation.images import read_rows
from keras_semimed.evaluation.pseudo_masks import PseudoMasks
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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1,\xff\n", "t.csv is damaged: it is no CSV table in UTF-8"),
        (b"a,b\n" + b"1" * 200_000, "t.csv is damaged: it is no CSV table in UTF-8"),
        (b"a,b\n1,2\n1\n", "t.csv has a cell too many or too few in line 3"),
        (b"a,b\n1,2,3\n", "t.csv has a cell too many or too few in line 2"),
    ],
)
def test_a_damaged_table_is_named(content, message, tmp_path):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_table(tmp_path / "t.csv")


def test_a_table_of_words_in_the_place_of_numbers_is_named(tmp_path):
    (tmp_path / "t.csv").write_text("name,dice\na,good\n")
    with pytest.raises(ValueError, match="t.csv holds what is no number .*'good'"):
        read_rows(tmp_path / "t.csv")


def test_another_file_of_arrays_is_named(tmp_path):
    (tmp_path / "a.npz").write_text("words")
    with pytest.raises(ValueError, match="a.npz is damaged, or no .npz file: its end is missing"):
        Cases.load(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", images=np.zeros(3))
    for kind, missing in ((Cases, "groups, names, class_names"), (Embeddings, "vectors"), (PseudoMasks, "truths")):
        with pytest.raises(ValueError, match=f"a.npz is another .npz file: it has no array {missing}"):
            kind.load(tmp_path / "a.npz")


FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "@SUM(A1)", "-x", "'=x", "''@", "\tx", "\uff1d1", "\uff20x", "=new\nline"]
TEXTS = [*FORMULAS, "plain", "'quoted", "-1.5", "+3", "1e-5", "-inf"]


def test_a_table_holds_no_formula_and_gives_back_what_was_written(tmp_path):
    write_table(tmp_path / "t.csv", [{"name": text, "=head": 1} for text in TEXTS])
    content = (tmp_path / "t.csv").read_text()
    assert not re.search(r"(^|[,\n])\"?[=@\t\uff1d\uff20]|(^|[,\n])\"?[+-](?![\d.]|inf)", content)
    assert [row["name"] for row in read_table(tmp_path / "t.csv")] == TEXTS
    assert list(read_table(tmp_path / "t.csv")[0]) == ["name", "=head"]
    assert {"-1.5", "+3", "1e-5", "-inf"} <= set(content.replace(",", "\n").split("\n"))
