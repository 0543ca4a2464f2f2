from __future__ import annotations

from keras_semimed.evaluation.tables import EXPLANATION, latex, markdown


def test_bars_in_cells_do_not_end_them():
    assert markdown(["a|b", "c"], [["1", "x|y|z"]]).splitlines() == [
        r"| a\|b | c       |",
        "| ---- | ------- |",
        r"| 1    | x\|y\|z |",
    ]


def test_latex_has_a_short_caption_and_its_notes_below():
    text = latex(["group", "p"], [["a_b", "p < 0.001"]], "In per cent.", ["one & two", "three"])
    assert r"\caption{In per cent.}" in text and r"a\_b & p $<$ 0.001 \\" in text
    below = text.partition(r"\end{tabular}")[2]
    assert r"\footnotesize" in below and "one \\& two\n\nthree" in below and below.endswith(r"\end{table}")
    assert "flushleft" not in latex(["group"], [["a"]], "In per cent.")


def test_the_explanation_says_what_empty_masks_count():
    assert "empty in truth and prediction counts 1 in Dice" in EXPLANATION
