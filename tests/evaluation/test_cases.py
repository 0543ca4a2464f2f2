from __future__ import annotations

import keras
import numpy as np

from keras_semimed.evaluation.cases import Cases, choose_cases, collect_cases, explanation_maps
from keras_semimed.models import Hermes, LoCo, SemiSupervisedModel
from tests.models import common, test_loco


def rows_of(dice):
    return [{"name": str(index), "dice": score} for index, score in enumerate(dice)]


def test_worst_median_and_best_by_dice():
    rows = rows_of([0.5, 0.1, 0.9, 0.3, 0.7, float("nan"), 0.2, 0.8])
    # In order: 1, 6, 3, 0, 4, 7, 2; the middle two of seven are 3 and 0.
    assert choose_cases(rows) == {1: "worst", 6: "worst", 3: "median", 0: "median", 7: "best", 2: "best"}
    assert choose_cases(rows, each=1) == {1: "worst", 0: "median", 2: "best"}
    assert choose_cases(rows_of([0.5, 0.6])) == {0: "worst", 1: "worst"}
    assert choose_cases(rows_of([float("nan")])) == {}


def test_without_masks_by_the_probability_of_the_true_class():
    rows = [
        {"name": str(i), "label": 1, "probability_0": 1 - p, "probability_1": p} for i, p in enumerate((0.9, 0.1, 0.5))
    ]
    assert choose_cases(rows, each=1) == {1: "worst", 2: "median", 0: "best"}


class Fixed(SemiSupervisedModel):
    """Predicts foreground where an image is bright, in batches of 7 only."""

    def predict_on_batch(self, images):
        assert len(images) == 7
        bright = images[..., 0] > 99
        return {"mask": np.stack([~bright, bright], -1)}

    def explain(self, images):
        shape = images.shape[:3]
        gates = [np.full((len(images), shape[1] // 2**level, shape[2] // 2**level, 1), level) for level in (1, 2)]
        return {"saliency": np.ones((*shape, 1)), "channel_attention": [], "spatial_attention": gates}


def test_cases_hold_images_predictions_and_maps_and_come_back_from_a_file(tmp_path):
    images = np.zeros((8, 8, 8, 3), "uint8")
    images[:, 2:4, 2:4] = 200
    images[3] = 0
    truths = np.ones((8, 8, 8), "uint8")
    cases = collect_cases(Fixed(), images, truths, rows_of([0.4, 0.5, 0.6, 0.1, *4 * [0.7]]), ["benign"], batch_size=7)
    assert dict(zip(cases.names, cases.groups, strict=True))["3"] == "worst"
    assert [int(mask.sum()) for mask in cases.predictions] == [0 if name == "3" else 4 for name in cases.names]
    assert list(cases.maps) == ["saliency", "attention, 1/2", "attention, 1/4"]
    assert cases.maps["attention, 1/4"].shape == (len(cases.names), 2, 2) and cases.maps["attention, 1/4"].max() == 2
    cases.save(tmp_path / "cases.npz")
    loaded = Cases.load(tmp_path / "cases.npz")
    assert (loaded.names, loaded.groups, loaded.class_names) == (cases.names, cases.groups, cases.class_names)
    for name in ("images", "truths", "predictions"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(cases, name))
    np.testing.assert_equal(loaded.maps, cases.maps)


def test_a_model_that_explains_nothing_has_no_maps():
    images = np.zeros((1, 32, 32, 3), "float32")
    for model in (Hermes(**common.arguments(exchange="none")), LoCo(**test_loco.arguments()), keras.Sequential()):
        assert explanation_maps(model, images) == {}
    assert list(explanation_maps(Hermes(**common.arguments(exchange="cls_to_seg")), images)) == ["saliency"]


def test_maps_are_those_of_all_images_whatever_is_asked_at_once():
    model = Hermes(**common.arguments())
    images = common.image_set(3).images
    whole, single = explanation_maps(model, images), explanation_maps(model, images, 2)
    assert list(whole) == list(single) and len(whole) > 1
    for title, values in whole.items():
        np.testing.assert_allclose(single[title], values, atol=1e-5)
