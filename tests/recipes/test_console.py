from __future__ import annotations

import pytest

from keras_semimed.experiments.console import RecipeError, print_result, run_main
from keras_semimed.experiments.runs.scores import print_results


def test_result_shows_the_columns_that_are_there(capsys):
    scores = {
        "images": 100,
        "dice": 0.8,
        "dice_std": 0.1,
        "miou_with_background": 0.87654,
        "pooled_iou_class_1": 0.7,
        "lesion_images": 97,
        "missed_lesions": 3,
        "nsd_at_2": 0.5,
        "nsd_at_2_std": 0.25,
        "hd95": 12.0,
    }
    print_result({"last": {"images": 100, "dice": 0.7}, "teacher": scores}, "test")
    _, head, columns, _, last, teacher, note = capsys.readouterr().out.splitlines()
    assert "on the test part (100 images" in head
    split = [[cell.strip() for cell in line.strip("|").split("|")] for line in (columns, last, teacher)]
    assert split[0] == ["weights", "Dice", "mIoU with background", "NSD at 2 px", "missed lesions"]
    assert split[1] == ["last", "0.700", "-", "-", "-"]
    assert split[2] == ["teacher", "0.800 ± 0.100", "0.877", "0.500 ± 0.250", "3 of 97"]
    assert "mIoU and pooled Dice: of the pixels of all images" in note


def test_a_classifier_s_result_has_no_word_of_masks(capsys):
    print_result({"last": {"images": 5, "accuracy": 0.8, "balanced_accuracy": 0.75}}, "test")
    printed = capsys.readouterr().out
    assert "| weights | accuracy | balanced accuracy |" in printed and "lesion" not in printed


def test_a_run_without_own_sizes_says_so_once(capsys):
    scores = {"images": 5, "dice": 0.8, "lesion_images": 5, "missed_lesions": 1}
    print_results({"result": {"last": scores, "teacher": scores}}, "test", 64)
    printed = capsys.readouterr().out
    assert "result on the test part at the network's size, 64 x 64 pixels (5 images" in printed
    assert printed.count("Masks are compared at the network's size alone") == 1
    print_results({"result": {"last": {"images": 5, "accuracy": 0.8}}}, "test", 64)
    printed = capsys.readouterr().out
    assert "result on the test part (5 images" in printed and "size" not in printed


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RecipeError("a\nb \x1b[2J"), "error: a\\nb \\x1b[2J"),
        (OSError("disk\nfull"), "error: disk\\nfull; when that is mended, run it again"),
        (MemoryError("9 GiB"), "error: there is not enough memory (9 GiB); take smaller images, batches or networks"),
        (MemoryError(), "error: there is not enough memory; take smaller images, batches or networks"),
    ],
)
def test_an_error_is_one_line_that_does_nothing_to_the_screen(error, message, capsys):
    def fail() -> None:
        raise error

    assert run_main(fail) == 2
    assert capsys.readouterr().err == f"{message}\n"
