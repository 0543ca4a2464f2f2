"""Words of the command line by the annotation of what they are for."""

from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from keras_semimed.experiments.command_line.words import choices, kinds, read_word


@pytest.mark.parametrize(
    ("annotation", "word", "value"),
    [
        ("int", "-3", -3),
        ("float", "3", 3.0),
        ("int | float", "72", 72),
        ("int | float", "0.1", 0.1),
        ("str | float | None", "scheduled", "scheduled"),
        ("str | float | None", "0.9", 0.9),
        ("str | None", "none", None),
        ("str | keras.Model", "resnet18", "resnet18"),
        ("Path | None", "a/b", Path("a/b")),
        ("int | tuple[int, ...] | None", "8,4", (8, 4)),
        ("int | tuple[int, ...] | None", "8", 8),
        ("tuple[str, ...] | None", "benign,normal", ("benign", "normal")),
        ("tuple[float, float]", "0.5,2", (0.5, 2.0)),
        ("dict | WeakStrongViews | None", '{"shift": 0.1}', {"shift": 0.1}),
        ("Literal['none', 'both'] | None", "none", "none"),
        ("Literal[8, 16, 32]", "16", 16),
        ("Literal['class_wise'] | float", "class_wise", "class_wise"),
        ("", "anything", "anything"),
    ],
)
def test_a_word_is_read_by_the_strictest_part_that_takes_it(annotation, word, value):
    found = read_word(annotation, word)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("annotation", "word", "message"),
    [
        ("int", "many", "expected a whole number, found 'many'"),
        ("float", "1e", "expected a number, found '1e'"),
        ("int | float", "half", "expected a number, found 'half'"),
        ("float", "nan", "expected a number, found 'nan'"),
        ("tuple[float, float]", "0,inf", "expected two numbers"),
        ("tuple[float, float]", "1", "expected two numbers with commas between, found '1'"),
        ("tuple[float, float]", "1,2,3", "expected two numbers"),
        ("int | tuple[int, ...]", "8,x", "expected a whole number or whole numbers with commas between, found '8,x'"),
        ("Literal['paper', 'release']", "relase", "'relase' is none of paper, release; did you mean release?"),
        ("Literal['scheduled'] | float", "often", "expected a number or one of scheduled, found 'often'"),
        ("dict | None", "[1]", "expected a JSON object"),
        ("Path | None", "", "expected a file or folder, found ''"),
        ("Path", "a\0b", "expected a file or folder, found 'a\\x00b'"),
        ("int", "9" * 5000, "expected a whole number, found '9999"),
        ("int", "1e400", "expected a whole number, found '1e400'"),
        ("float", "1e400", "expected a number, found '1e400'"),
        ("float", "\x1b[2J", "expected a number, found '\\x1b[2J'"),
    ],
)
def test_a_word_that_nothing_takes_is_named_with_what_is_expected(annotation, word, message):
    with pytest.raises(ArgumentTypeError) as error:
        read_word(annotation, word)
    assert message in str(error.value) and len(str(error.value)) < 250


def test_parts_and_choices_of_an_annotation():
    annotation = "Literal['a', 'b'] | Literal['c'] | tuple[int, ...] | None"
    assert kinds(annotation) == ["Literal['a', 'b']", "Literal['c']", "tuple[int, ...]", "None"]
    assert list(choices(annotation)) == ["a", "b", "c"]
