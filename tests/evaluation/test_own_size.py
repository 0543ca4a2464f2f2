"""Scores at the images' own size."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from keras_semimed.data import EvaluationBatches, ImageSet, concatenate, masks_by_class, read_image_folder
from keras_semimed.data.images.packed_masks import pack_mask
from keras_semimed.evaluation import evaluate_images
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
