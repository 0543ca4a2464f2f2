from __future__ import annotations

import pytest

from keras_semimed.evaluation import published_results


def row(paper, table, method, labels, data="busi"):
    found = [r for r in published_results(paper) if (r["table"], r["method"], r["labels"]) == (table, method, labels)]
    (one,) = [r for r in found if r["data"] == data]
    return one


def test_figures_are_those_of_the_tables():
    assert row("hermes", "Table 1", "ABD", 20, "udiat")["dice"] == pytest.approx(0.8173)
    assert row("hermes", "Table 1", "ABD", 20, "udiat")["dice_std"] == pytest.approx(0.0043)
    assert row("hermes", "Table 2", "InfoMatch", 60, "sz_tus")["accuracy"] == pytest.approx(0.7797)
    assert row("hermes", "Table 5", "Hermes, contrast at Conv_3, 14x14", 144)["iou"] == pytest.approx(0.7254)
    assert row("loco", "Table II", "LoCo", 0.5, "kvasir_seg")["nsd"] == pytest.approx(0.8808)
    assert row("loco", "Table IV", "M4", 0.1, "fahsyu_lc")["iou_benign"] == pytest.approx(0.4749)
    # 8 methods on 3 + 3 + 2 settings, 6 on 4, 3 + 7 rows of Tables 3 and 4 and more.
    assert len([r for r in published_results("hermes") if r["table"] == "Table 1"]) == 64
    assert len([r for r in published_results("loco") if r["table"] == "Table I"]) == 21


def test_the_accuracy_at_72_labels_contradicts_itself_and_says_so():
    one, other = (
        row("hermes", "Table 3", "joint, DTCL, SM/ITA, ITCL", 72),
        row("hermes", "Table 4", "Hermes, learning rate 1e-4", 72),
    )
    assert (one["dice"], other["dice"]) == (0.7568, 0.7568) and one["accuracy"] != other["accuracy"]
    assert one["notes"] == other["notes"]
    assert one["notes"][0] == "Table 3 has 84.77 and Table 4 83.19 for the same setting"


def test_undefined_metrics_and_private_data_are_noted_where_they_are():
    for found in published_results("hermes"):
        assert ("means over images" in " ".join(found["notes"])) == ("dice" in found)
    for found in published_results("loco"):
        assert {"Dice (its DSC) is not defined", "NSD is not defined and its tolerance not given"} <= set(
            found["notes"]
        )
        assert ("the data set is private" in found["notes"]) == (found["data"] == "fahsyu_lc")


def test_loco_s_tables_agree_with_each_other():
    for variant, method in (("M1", "Supervised"), ("M7", "LoCo")):
        ladder, comparison = (
            row("loco", "Table IV", variant, 0.1, "fahsyu_lc"),
            row("loco", "Table I", method, 0.1, "fahsyu_lc"),
        )
        keys = ("iou_malignant", "iou_benign", "miou_foreground", "dice", "nsd")
        assert [ladder[key] for key in keys] == [comparison[key] for key in keys]
    for found in published_results("loco"):
        if found["data"] == "fahsyu_lc":
            mean = (found["iou_malignant"] + found["iou_benign"]) / 2
            assert found["miou_foreground"] == pytest.approx(mean, abs=1.01e-4)


def test_an_unknown_paper_is_refused():
    with pytest.raises(ValueError, match="hermes, loco, found 'unimatch'"):
        published_results("unimatch")
