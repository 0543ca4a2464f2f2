"""FixMatch on made outputs, against an independent NumPy reading of its equations."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from keras_semimed.models import FixMatch
from tests.losses.helpers import finite_difference, softmax
from tests.models import pixelwise as pixels
from tests.models.pixelwise import batch, cross_entropies, losses_of, mean_cross_entropy, mixed, numbers, terms_of

TAU = 0.6


def model_with(monkeypatch, strong, boxes=None, **arguments):
    """With the given strong views and boxes."""
    model = pixels.pixelwise(FixMatch, **{"tasks": "segmentation", "threshold": TAU, **arguments})
    monkeypatch.setattr(model.views, "strong", lambda images: ops.convert_to_tensor(strong))
    if boxes is not None:
        monkeypatch.setattr(model.cutmix, "boxes", lambda *sizes: ops.convert_to_tensor(boxes))
    return model


def unlabeled_term(weak, strong, inside, boxes=None, tau=TAU, fixed=None):
    """L_u; labels come from `fixed`, where a slope is taken by the other logits."""
    p = softmax(np.asarray(weak if fixed is None else fixed, "float64"))
    fields = [p.argmax(-1), p.max(-1), inside]
    labels, confidence, valid = fields if boxes is None else (mixed(field, boxes) for field in fields)
    losses = cross_entropies(labels, strong)
    return np.sum(valid * (confidence >= tau) * losses) / max(np.sum(valid), 1)


def image_means(images):
    return np.asarray(images, "float64").mean((1, 2))


def pair(weak, strong, area, tau=0.95, boxes=None):
    """L_u of two classes on 2 x 2 pixels: probabilities of the weak and logits of the strong view, a row an image."""
    with pytest.MonkeyPatch.context() as patch:
        count = len(weak)
        boxes = np.zeros((count, 2, 2), "float32") if boxes is None else boxes
        model = model_with(patch, pixels.with_zeros(strong), boxes, size=2, num_classes=2, threshold=tau)
        inputs = {
            "labeled": np.zeros((1, 2, 2, 3), "float32"),
            "unlabeled": pixels.with_zeros(np.log(weak)),
            "unlabeled_area": np.array(area, "int32"),
        }
        return terms_of(model, inputs, {"mask": np.zeros((1, 2, 2), "int32")})["mask_unlabeled"]


def test_the_numbers_of_the_specification():
    sure, unsure, other = (0.96, 0.04), (0.6, 0.4), (0.4, 0.6)
    top_row = [(0, 0, 1, 2)]
    even = np.zeros((1, 2, 2, 2))
    np.testing.assert_allclose(pair([[[sure, other]] * 2], even, top_row), np.log(2) / 2, rtol=1e-5)
    strong = np.log([[[(0.8, 0.2), (0.5, 0.5)], [(0.1, 0.9)] * 2]])  # the lower row is padding
    second = pair([[[(0.99, 0.01), unsure], [sure, sure]]], strong, top_row)
    np.testing.assert_allclose(second, -np.log(0.8) / 2, rtol=1e-5)
    np.testing.assert_allclose(0.5 * (0.7 + second), 0.40579, rtol=1e-4)
    # One pixel, inside the box of the first image alone.
    one_pixel, box = [(0, 0, 1, 1)] * 2, np.zeros((2, 2, 2), "float32")
    box[0, 0, 0] = 1
    own, its, even = np.full((2, 2, 2), 0.5), np.full((2, 2, 2), 0.5), np.zeros((2, 2, 2, 2))
    own[0, 0], its[0, 0] = (0.99, 0.01), (0.45, 0.55)
    assert pair([own, np.full((2, 2, 2), 0.5)], even, one_pixel, boxes=box) == 0
    assert pair([own, its], even, [(0, 0, 1, 1), (0, 0, 1, 1)], boxes=box) == 0
    np.testing.assert_allclose(pair([its, own], even, one_pixel, boxes=box), np.log(2), rtol=1e-5)
    # The partner's pixel is padding: of the first image's two pixels one is left, at a loss of 0.3.
    weak, strong = np.full((2, 2, 2, 2), (0.99, 0.01)), np.log(np.full((2, 2, 2, 2), (np.exp(-0.3), 1 - np.exp(-0.3))))
    np.testing.assert_allclose(pair(weak, strong, [(0, 0, 1, 2), (1, 1, 1, 1)], boxes=box), 0.3, rtol=1e-5)


def test_the_numbers_of_the_specification_for_image_classes(monkeypatch):
    confidence, losses = np.array([0.99, 0.97, 0.6, 0.5]), np.array([0.2, 0.4, 1, 2])

    def images(p):
        return pixels.with_zeros(np.tile(np.log(np.stack([p, 1 - p], -1))[:, None, None, :], (1, 2, 2, 1)))

    given = {"size": 2, "num_labels": 2, "tasks": "classification", "threshold": 0.95}
    model = model_with(monkeypatch, images(np.exp(-losses)), **given)
    inputs = {"labeled": images(np.array([0.5])), "unlabeled": images(confidence)}
    targets = {"label": np.array([0], "int32")}
    np.testing.assert_allclose(terms_of(model, inputs, targets)["label_unlabeled"], 0.15, rtol=1e-5)
    assert dict(model.loss_weights) == {"label_supervised": 1.0, "label_unlabeled": 1.0}
    np.testing.assert_allclose(pixels.total_of(model, inputs, targets), np.log(2) + 0.15, rtol=1e-5)


def example(seed=0, unlabeled=3):
    inputs, targets = batch(seed, unlabeled=unlabeled)
    strong = batch(seed + 100, unlabeled=unlabeled)[0]["unlabeled"]
    inside = pixels.area_mask(inputs["unlabeled_area"], 5)
    return inputs, targets, strong, pixels.random_boxes(seed, unlabeled), inside


@pytest.mark.parametrize("seed", range(3))
def test_loss_of_masks(monkeypatch, seed):
    inputs, targets, strong, boxes, inside = example(seed)
    model = model_with(monkeypatch, strong, boxes, lambda_unlabeled=2.0)
    on_strong = mixed(strong, boxes)
    known = mean_cross_entropy(targets["mask"], inputs["labeled"])
    hidden = unlabeled_term(inputs["unlabeled"], on_strong, inside, boxes)
    found = losses_of(model, inputs, targets)
    assert list(found.terms) == ["mask_supervised", "mask_unlabeled"]
    np.testing.assert_allclose(list(numbers(found.terms).values()), [known, hidden], rtol=1e-5)
    assert 0 < hidden < unlabeled_term(inputs["unlabeled"], on_strong, inside, boxes, tau=0)
    np.testing.assert_allclose(pixels.total_of(model, inputs, targets), 0.5 * (known + 2 * hidden), rtol=1e-5)


def test_loss_of_both_tasks_has_boxes_for_the_masks_alone(monkeypatch):
    inputs, targets, strong, boxes, inside = example(3)
    model = model_with(monkeypatch, strong, boxes, tasks=None, lambda_seg=0.25, lambda_cls=3.0, threshold=0.4)
    terms = {
        "mask_supervised": mean_cross_entropy(targets["mask"], inputs["labeled"]),
        "mask_unlabeled": unlabeled_term(inputs["unlabeled"], mixed(strong, boxes), inside, boxes, 0.4),
        "label_supervised": mean_cross_entropy(targets["label"], image_means(inputs["labeled"])),
        "label_unlabeled": unlabeled_term(image_means(inputs["unlabeled"]), image_means(strong), np.ones(3), tau=0.4),
    }
    found = terms_of(model, inputs, targets)
    assert found.keys() == terms.keys()
    for name, expected in terms.items():
        assert expected > 0
        np.testing.assert_allclose(found[name], expected, rtol=1e-5, err_msg=name)
    mask, label = (terms[f"{head}_supervised"] + terms[f"{head}_unlabeled"] for head in ("mask", "label"))
    np.testing.assert_allclose(pixels.total_of(model, inputs, targets), 0.5 * (0.25 * mask + 3 * label), rtol=1e-5)
    ((images, _),) = pixels.seen(model.network)[:1]
    expected = np.concatenate([inputs["labeled"], inputs["unlabeled"], mixed(strong, boxes), strong])
    np.testing.assert_allclose(images, expected, rtol=1e-6)


def test_loss_of_image_classes(monkeypatch):
    inputs, targets, strong, _, _ = example(4)
    model = model_with(monkeypatch, strong, tasks="classification", threshold=0.4, lambda_unlabeled=2.0)
    known = mean_cross_entropy(targets["label"], image_means(inputs["labeled"]))
    hidden = unlabeled_term(image_means(inputs["unlabeled"]), image_means(strong), np.ones(3), tau=0.4)
    np.testing.assert_allclose(pixels.total_of(model, inputs, targets), known + 2 * hidden, rtol=1e-5)
    scaled = model_with(monkeypatch, strong, tasks="classification", threshold=0.4, loss_scale=0.5)
    np.testing.assert_allclose(pixels.total_of(scaled, inputs, targets), 0.5 * (known + hidden), rtol=1e-5)


@pytest.mark.parametrize("head", ["mask", "label"])
def test_slopes_by_the_network(monkeypatch, head):
    inputs, targets, strong, boxes, inside = example(5)
    model = model_with(monkeypatch, strong, boxes, tasks=None, threshold=0.4)
    views = pixels.views_of(model, inputs, targets)

    def reading(kernel):
        weak, known = inputs["unlabeled"].astype("float64"), inputs["labeled"].astype("float64")
        if head == "label":
            return {
                "supervised": mean_cross_entropy(targets["label"], image_means(known) @ kernel),
                "unlabeled": unlabeled_term(
                    None, image_means(strong) @ kernel, np.ones(3), tau=0.4, fixed=image_means(weak)
                ),
            }
        return {
            "supervised": mean_cross_entropy(targets["mask"], known @ kernel),
            "unlabeled": unlabeled_term(None, mixed(strong, boxes) @ kernel, inside, boxes, 0.4, fixed=weak),
        }

    for name in ("supervised", "unlabeled"):
        found = pixels.slope(
            pixels.kernel_of(model.network, head), lambda name=name: model.terms(*views).terms[f"{head}_{name}"]
        )
        expected = finite_difference(lambda kernel, name=name: reading(kernel)[name], np.eye(3))
        assert np.abs(expected).max() > 0.002
        np.testing.assert_allclose(found, expected, atol=5e-6, err_msg=name)
        assert not pixels.slope_by_images(model, views, f"{head}_{name}").any()  # of the weak view


@pytest.mark.parametrize("case", ["above one", "nothing inside", "at equality", "zero", "one class"])
def test_thresholds(monkeypatch, case):
    inputs, targets, strong, boxes, inside = example(6)
    if case == "nothing inside":
        inputs["unlabeled_area"] = np.ones_like(inputs["unlabeled_area"])
    if case == "at equality":
        inputs["unlabeled"][:] = 0
    if case == "one class":
        inputs["unlabeled"][..., 0] += 50
    threshold = {"above one": 1.01, "at equality": float(np.float32(1 / 3)), "one class": 0.95}.get(case, 0.0)
    model = model_with(monkeypatch, strong, boxes, threshold=threshold)
    views = pixels.views_of(model, inputs, targets)
    found = numbers(model.terms(*views).terms)["mask_unlabeled"]
    if case in ("at equality", "zero", "one class"):
        expected = unlabeled_term(inputs["unlabeled"], mixed(strong, boxes), inside, boxes, tau=0)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        return
    assert found == 0
    kernel = pixels.kernel_of(model.network)
    assert not pixels.slope(kernel, lambda: model.terms(*views).terms["mask_unlabeled"]).any()
    assert np.isfinite(pixels.total_of(model, inputs, targets))


def test_nothing_is_labelled(monkeypatch):
    inputs, targets, strong, boxes, inside = example(7)
    model = model_with(monkeypatch, strong, boxes)
    targets["mask"][:] = 255
    hidden = unlabeled_term(inputs["unlabeled"], mixed(strong, boxes), inside, boxes)
    assert terms_of(model, inputs, targets)["mask_supervised"] == 0
    np.testing.assert_allclose(pixels.total_of(model, inputs, targets), 0.5 * hidden, rtol=1e-5)


def test_the_network_sees_both_weak_views_and_the_mixed_strong_one_in_one_pass(monkeypatch):
    inputs, targets, strong, boxes, _ = example(8)
    model = model_with(monkeypatch, strong, boxes, teacher_momentum=0.9)
    losses_of(model, inputs, targets)
    ((images, training),) = pixels.seen(model.network)
    assert training is True and not pixels.seen(model.teacher)
    expected = np.concatenate([inputs["labeled"], inputs["unlabeled"], mixed(strong, boxes)])
    np.testing.assert_allclose(images, expected, rtol=1e-6)


def test_the_strong_view_is_of_the_weak_view(monkeypatch):
    inputs, targets, *_ = example(8)
    model = pixels.pixelwise(FixMatch, tasks="segmentation", cutmix_probability=0.0)
    monkeypatch.setattr(model.views, "strong", lambda images: 255 - images)
    losses_of(model, inputs, targets)
    ((images, _),) = pixels.seen(model.network)
    np.testing.assert_allclose(images[5:], 255 - inputs["unlabeled"], rtol=1e-6)


def test_labels_come_from_the_network_although_the_average_predicts(monkeypatch):
    inputs, targets, strong, boxes, inside = example(9)
    model = model_with(monkeypatch, strong, boxes, teacher_momentum=0.9)
    kernel = pixels.kernel_of(model.teacher)
    kernel.assign(pixels.array(kernel.value)[::-1].copy())
    _, unlabeled = pixels.views_of(model, inputs, targets)
    found = model.label(unlabeled)["mask"]
    p = softmax(inputs["unlabeled"].astype("float64"))
    np.testing.assert_array_equal(pixels.array(found.labels), p.argmax(-1))
    np.testing.assert_array_equal(pixels.array(found.kept), inside * (p.max(-1) >= TAU))
    predicted = pixels.array(model.infer(ops.convert_to_tensor(inputs["unlabeled"]))["mask"])
    np.testing.assert_array_equal(predicted.argmax(-1), softmax(inputs["unlabeled"][..., ::-1]).argmax(-1))


def test_figures_are_of_the_pseudo_labels_before_mixing(monkeypatch):
    inputs, targets, strong, boxes, inside = example(10)
    pseudo = losses_of(model_with(monkeypatch, strong, boxes), inputs, targets).pseudo["mask"]
    p = softmax(inputs["unlabeled"].astype("float64"))
    np.testing.assert_array_equal(pixels.array(pseudo.kept), inside * (p.max(-1) >= TAU))
    np.testing.assert_array_equal(pixels.array(pseudo.inside), inside)


def test_the_truth_is_moved_and_mixed_as_its_image_is(monkeypatch):
    model = pixels.pixelwise(
        FixMatch, tasks="segmentation", pseudo_labels="truth", threshold=1.01, cutmix_probability=1.0,
        views={"vertical_flip": True, "scale": (1.0, 1.0), "shift": 0.0},
    )  # fmt: skip
    monkeypatch.setattr(model.views, "strong", lambda images: images)
    true, false = pixels.oracle_losses(model)
    assert numbers(true.terms)["mask_unlabeled"] < 1e-6 < 5 < numbers(false.terms)["mask_unlabeled"]
    unknown = pixels.array(true.pseudo["mask"].labels) == 255
    assert 0.02 < unknown.mean() < 0.2
    np.testing.assert_array_equal(pixels.array(true.pseudo["mask"].kept), ~unknown)


def test_the_truth_of_image_classes(monkeypatch):
    inputs, targets, strong, _, _ = example(11)
    model = model_with(monkeypatch, strong, tasks="classification", pseudo_labels="truth", threshold=1.01)
    targets["unlabeled_label"] = np.array([2, 255, 0], "int32")
    expected = mean_cross_entropy(targets["unlabeled_label"], image_means(strong))
    np.testing.assert_allclose(terms_of(model, inputs, targets)["label_unlabeled"], expected, rtol=1e-5)


def test_defaults():
    model = pixels.pixelwise(FixMatch)
    assert (model.threshold, model.lambda_unlabeled, model.loss_scale) == (0.95, 1.0, 0.5)
    assert (model.cutmix_probability, model.lambda_seg, model.lambda_cls, model.mask_loss) == (0.5, 0.5, 1.0, "ce")
    assert model.teacher is None and model.cutmix.probability == 0.5
    weights = {"mask_supervised": 0.25, "mask_unlabeled": 0.25, "label_supervised": 0.5, "label_unlabeled": 0.5}
    assert dict(model.loss_weights) == weights


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"threshold": -0.1}, r"`threshold` must be a number of at least 0, found -0.1"),
        ({"threshold": float("nan")}, "`threshold` must be a number"),
        ({"lambda_unlabeled": -1}, "`lambda_unlabeled` must be a number of at least 0, found -1"),
        ({"loss_scale": float("inf")}, r"`loss_scale` must be at most 3.4e\+38, found inf"),
        ({"cutmix_probability": 1.5}, r"`cutmix_probability` must be within \[0, 1\], found 1.5"),
        ({"tasks": "segmentatoin"}, "`tasks` must be .* Did you mean 'segmentation'"),
    ],
)
def test_errors_name_argument_and_value(wrong, message):
    with pytest.raises(ValueError, match=message):
        FixMatch(**wrong)
