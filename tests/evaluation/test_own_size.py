"""Scores at the images' own size."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from keras_semimed.data import EvaluationBatches, ImageSet, concatenate, masks_by_class, read_image_folder
from keras_semimed.data.images.packed_masks import pack_mask
from keras_semimed.evaluation import evaluate_images, evaluate_sizes, paired_p_values, paired_scores, summarize
from tests.data.image_files import encoded


class Truth:
    """Finds what is bright, at the size of the network."""

    def predict_on_batch(self, images: np.ndarray) -> dict[str, np.ndarray]:
        bright = np.asarray(images)[..., :1].astype("float32") / 255
        return {"mask": np.concatenate([1 - bright, bright], -1)}


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (40, 60)])
@pytest.mark.parametrize("values", [1, 2, 256])
def test_a_packed_mask_is_the_same_again(shape, values):
    mask = np.random.default_rng(0).integers(0, values, shape).astype("uint8")
    np.testing.assert_array_equal(pack_mask(mask).unpacked(), mask)


def folder(root, sizes):
    for place in ("images", "masks"):
        (root / place).mkdir(parents=True)
    for index, (height, width) in enumerate(sizes):
        mask = np.zeros((height, width), "uint8")
        mask[height // 4 : height // 2, width // 3 : width // 2] = 1
        mask[-1, -1] = 255
        Image.fromarray(255 * (mask == 1).astype("uint8")).save(root / f"images/{index}.png")
        (root / f"masks/{index}.png").write_bytes(encoded(mask))
    (root / "labels.csv").write_text("file,class\n" + "".join(f"{i}.png,{'ab'[i % 2]}\n" for i in range(len(sizes))))
    return root


@pytest.mark.parametrize("keep_aspect", [False, True])
def test_predictions_are_sent_up_again_and_compared_with_what_was_annotated(tmp_path, keep_aspect):
    sizes = [(90, 150), (200, 80), (32, 32)]
    images = read_image_folder(folder(tmp_path, sizes), 32, keep_aspect=keep_aspect)
    assert [mask.shape for mask in images.own_masks] == sizes
    rows = evaluate_images(Truth(), EvaluationBatches(images, 2), size="own")
    small = evaluate_images(Truth(), EvaluationBatches(images, 2))
    for row, other, (height, width) in zip(rows, small, sizes, strict=True):
        lesion = (height // 2 - height // 4) * (width // 2 - width // 3)
        assert row["lesion_size"] == lesion and row["union_0"] + row["intersection_1"] == height * width - 1
        assert 0.85 < row["dice"] <= 1 and 0.8 < other["dice"] <= 1
    assert rows[2]["dice"] == 1 and rows[0]["dice"] < 1
    both = concatenate({"x": images, "y": images})
    assert evaluate_images(Truth(), EvaluationBatches(both), size="own")[4] == {**rows[1], "name": "y/1"}
    typed = masks_by_class(images.select(["1", "0"]))
    assert [sorted(set(mask.values.tolist())) for mask in typed.own_masks] == [[0, 2, 255], [0, 1, 255]]


def test_arrays_have_no_own_size():
    images = ImageSet(["a"], np.zeros((1, 8, 8, 3), "uint8"), np.zeros((1, 8, 8), "uint8"))
    with pytest.raises(ValueError, match="`size` can be 'own' only for images that were read from files"):
        evaluate_images(Truth(), EvaluationBatches(images), size="own")
    with pytest.raises(ValueError, match="`size` must be"):
        evaluate_images(Truth(), EvaluationBatches(images), size="large")
    (row,) = evaluate_sizes(Truth(), EvaluationBatches(images))["network"]
    assert row == evaluate_images(Truth(), EvaluationBatches(images))[0]
    assert set(evaluate_sizes(Truth(), EvaluationBatches(images))) == {"network"}


def square(shape, top, left, side):
    mask = np.zeros(shape, "uint8")
    mask[top : top + side, left : left + side] = 1
    return mask


def moved(rows, columns, spacing):
    """Images whose predicted squares of 20 pixels of the file lie some pixels beside the true ones.

    A pixel of the network is two of the file.
    """
    count = len(rows)
    truths = [square((64, 64), 20, 20, 20) for _ in range(count)]
    found = [square((32, 32), 10 + r // 2, 10 + c // 2, 10) for r, c in zip(rows, columns, strict=True)]
    return ImageSet(
        names=[str(index) for index in range(count)],
        images=255 * np.stack(found)[..., None],
        masks=np.stack([truth[::2, ::2] for truth in truths]),
        own_masks=[pack_mask(truth) for truth in truths],
        spacing=None if spacing is None else np.array(spacing, "float64"),
    )


def test_distances_in_mm_are_those_of_the_file_s_pixels():
    unknown = (np.nan, np.nan)
    images = moved([4, 0, 4, 0], [0, 4, 0, 0], [(0.25, 1.0), (0.25, 1.0), unknown, (3, 3)])
    rows = evaluate_images(Truth(), EvaluationBatches(images), size="own")
    for row in rows[:3]:
        # 4 of 20 rows or columns are apart: 4 pixels of the file.
        assert row["dice"] == 0.8 and row["hd95"] == 4 and row["nsd_at_2"] < 1
    # 4 rows of 0.25 mm are 1 mm, 4 columns of 1 mm are 4 mm.
    assert rows[0]["hd95_mm"] == 1 and rows[0]["nsd_at_1_mm"] == 1
    assert rows[1]["hd95_mm"] == 4 and rows[1]["nsd_at_1_mm"] < 1
    assert "hd95_mm" not in rows[2] and "nsd_at_1_mm" not in rows[2]
    assert rows[3]["hd95_mm"] == 0 and rows[3]["nsd_at_1_mm"] == rows[3]["dice"] == 1
    # Network: 2 of 10 rows, and no mm.
    small = evaluate_images(Truth(), EvaluationBatches(images))
    assert small[0]["hd95"] == 2 and small[0]["dice"] == 0.8 and "hd95_mm" not in small[0]
    assert evaluate_sizes(Truth(), EvaluationBatches(images)) == {"network": small, "own": rows}
    for tolerance, inside in ((0.99, False), (4.0, True)):
        row = evaluate_images(Truth(), EvaluationBatches(images), size="own", tolerance_mm=tolerance)[0]
        assert (row[f"nsd_at_{tolerance:g}_mm"] == 1) == inside
    without = evaluate_images(Truth(), EvaluationBatches(images), size="own", tolerance_mm=None)
    assert not [key for key in without[0] if key.endswith("_mm")] and without[0]["hd95"] == 4
    with pytest.raises(ValueError, match="`tolerance_mm` must be a distance of at least 0, found -1"):
        evaluate_images(Truth(), EvaluationBatches(images), size="own", tolerance_mm=-1)


def test_means_in_mm_are_over_the_images_that_have_it():
    images = moved([4, 2, 4], [0, 0, 0], [(0.5, 1), (0.5, 1), (np.nan, np.nan)])
    rows = evaluate_images(Truth(), EvaluationBatches(images), size="own")
    summary = summarize(rows)
    assert (summary["images"], summary["images_in_mm"]) == (3, 2)
    assert summary["hd95_mm"] == 1.5 and summary["hd95_mm_std"] == pytest.approx(0.5**0.5)
    assert summary["hd95"] == pytest.approx(10 / 3) and summary["hd95_mm_high"] > 2
    assert rows[0]["nsd_at_1_mm"] < rows[1]["nsd_at_1_mm"] == 1
    assert summary["nsd_at_1_mm"] == pytest.approx((rows[0]["nsd_at_1_mm"] + 1) / 2)
    assert "images_in_mm" not in summarize(evaluate_images(Truth(), EvaluationBatches(images)))
    exact = moved([0, 0, 0], [0, 0, 0], images.spacing)
    pair = [(rows, evaluate_images(Truth(), EvaluationBatches(exact), size="own"))]
    assert paired_scores(pair)["hd95_mm"].mean == 1.5
    # Two images: the 2 of 4 flips that give both one sign are as extreme.
    assert paired_p_values(pair)["hd95_mm"] == 0.5


def test_a_lesion_that_vanished_is_missed_at_either_size():
    images = ImageSet(
        names=["a"],
        images=np.zeros((1, 8, 8, 1), "uint8"),
        masks=np.zeros((1, 8, 8), "uint8"),
        present=np.array([[True, True]]),
        own_masks=[pack_mask(square((30, 40), 9, 9, 2))],
        spacing=np.array([[0.5, 0.5]]),
    )
    found = evaluate_sizes(Truth(), EvaluationBatches(images))
    for size, diagonal in (("network", 8 * 2**0.5), ("own", 50.0)):
        (row,) = found[size]
        assert (row["missed"], row["dice"], row["nsd_at_2"]) == (1, 0, 0)
        assert row["hd95"] == pytest.approx(diagonal)
    assert found["network"][0]["lesion_size"] == 0 and found["own"][0]["lesion_size"] == 4
    assert (found["own"][0]["hd95_mm"], found["own"][0]["nsd_at_1_mm"]) == (25, 0)


class Classifier:
    """Predicts classes alone."""

    def predict_on_batch(self, images: np.ndarray) -> dict[str, np.ndarray]:
        return {"label": np.tile([[0.25, 0.75]], (len(images), 1))}


def test_image_classes_have_no_size(tmp_path):
    images = read_image_folder(folder(tmp_path, [(20, 30), (40, 20)]), 16)
    found = evaluate_sizes(Classifier(), EvaluationBatches(images))
    assert set(found) == {"network"} and [row["prediction"] for row in found["network"]] == [1, 1]
