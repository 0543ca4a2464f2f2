import numpy as np
import pytest
from keras import ops

from keras_semimed.models import LoCo
from keras_semimed.models.health import Share, share_by_class


def test_share_by_class_against_counting():
    labels = np.array([[0, 0, 1], [1, 1, 2]])
    weight = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.0]], "float32")
    present = np.array([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]], "float32")
    shares = share_by_class("kept", *map(ops.convert_to_tensor, (weight, labels, present)), num_classes=3)
    assert [float(shares[f"kept_class_{c}"].part) for c in range(3)] == [1.0, 1.5, 0.0]
    assert [float(shares[f"kept_class_{c}"].whole) for c in range(3)] == [2.0, 3.0, 0.0]
    assert [float(shares[f"kept_class_{c}"].value) for c in range(3)] == [0.5, 0.5, 0.0]


def test_an_epochs_share_is_that_of_all_its_pixels(monkeypatch):
    model = LoCo(num_classes=2, image_size=32, encoder="resnet_tiny", decoder_filters=8, total_steps=2)
    batches = [Share(3.0, 4.0), Share(0.0, 0.0), Share(1.0, 16.0)]  # the second without a pixel of the class
    for share in batches:
        health = {"mask_selected_class_1": Share(*map(ops.convert_to_tensor, share))}
        monkeypatch.setattr(model, "loss_terms", lambda outputs, targets, health=health: ({}, health))
        model.compute_loss({}, {}, {})
    assert float(model.term_trackers["mask_selected_class_1"].result()) == pytest.approx(4 / 20)
