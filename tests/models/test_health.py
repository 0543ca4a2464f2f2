import numpy as np
import pytest
from keras import ops

from keras_semimed.models import LoCo, Losses
from keras_semimed.models.figures import EpochFigures
from keras_semimed.models.health import Share, share_by_class
from tests.models.common import batches, made


def test_share_by_class_against_counting():
    labels = np.array([[0, 0, 1], [1, 1, 2]])
    weight = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.0]], "float32")
    present = np.array([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]], "float32")
    shares = share_by_class("kept", *map(ops.convert_to_tensor, (weight, labels, present)), num_classes=3)
    assert [float(shares[f"kept_class_{c}"].part) for c in range(3)] == [1.0, 1.5, 0.0]
    assert [float(shares[f"kept_class_{c}"].whole) for c in range(3)] == [2.0, 3.0, 0.0]
    assert [float(shares[f"kept_class_{c}"].value) for c in range(3)] == [0.5, 0.5, 0.0]


def test_an_epochs_share_is_that_of_all_its_pixels():
    figures = EpochFigures(capacity=2)
    for share in (Share(3.0, 4.0), Share(0.0, 0.0), Share(1.0, 16.0)):  # the second without a pixel of the class
        figures.update_state({"mask_selected_class_1": Share(*map(ops.convert_to_tensor, share)), "tau": 0.5})
    means = {name: float(ops.convert_to_numpy(value)) for name, value in figures.result().items()}
    assert means == {"mask_selected_class_1": pytest.approx(4 / 20), "tau": pytest.approx(0.5)}
    figures.reset_state()
    figures.update_state({"mask_selected_class_1": Share(ops.ones(()), ops.ones(())), "tau": 1.0})
    assert float(ops.convert_to_numpy(figures.result()["mask_selected_class_1"])) == 1
    with pytest.raises(ValueError, match="3 figures are more than the 2"):
        figures.update_state({"kappa": 1.0})


def test_a_model_s_log_is_the_epoch_s_share(monkeypatch):
    model = made(LoCo)
    shares = iter((Share(3.0, 4.0), Share(0.0, 0.0), Share(1.0, 16.0)))
    x, y = batches()[0]

    def terms(labeled, unlabeled):
        figures = {"mask_selected_class_1": Share(*map(ops.convert_to_tensor, next(shares)))}
        return Losses(dict.fromkeys(model.loss_weights, ops.zeros(())), {}, figures)

    monkeypatch.setattr(model, "terms", terms)
    for _ in range(3):
        model.compute_loss(x, y, {})
    logs = model.epoch_figures.result()
    assert float(ops.convert_to_numpy(logs["mask_selected_class_1"])) == pytest.approx(4 / 20)
