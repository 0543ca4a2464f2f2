"""AD-MT on made outputs, against an independent NumPy reading of its equations."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.models import ADMT
from tests.losses.helpers import finite_difference, softmax
from tests.models import pixelwise as pixels
from tests.models.common import made
from tests.models.methods import batch as pictures
from tests.models.methods import eager_step, shaken
from tests.models.pixelwise import (
    CLASSES,
    array,
    batch,
    cross_entropies,
    losses_of,
    mean_cross_entropy,
    mixed,
    numbers,
)

TAU = 0.6


class Example:
    """A random batch of logits, with strong view and boxes; both teachers and the student see other things in it."""

    def __init__(self, monkeypatch, seed, active=0, unlabeled=3, **arguments):
        self.inputs, self.targets = batch(seed, unlabeled=unlabeled)
        self.weak = self.inputs["unlabeled"].astype("float64")
        self.strong = batch(seed + 100, unlabeled=unlabeled)[0]["unlabeled"]
        self.boxes = pixels.random_boxes(seed + 1, unlabeled)
        self.inside = pixels.area_mask(self.inputs["unlabeled_area"], 5)
        self.active, self.tau = active, arguments.get("threshold", TAU)
        self.form = arguments.get("unlabeled_loss", "dice")
        self.model = pixels.pixelwise(ADMT, **{"threshold": TAU, "mask_loss": "ce", **arguments})
        random = np.random.default_rng(seed)
        self.kernels = [np.eye(CLASSES) + random.normal(0, 0.7, (CLASSES, CLASSES)) for _ in range(3)]
        self.kernels = [kernel.astype("float32").astype("float64") for kernel in self.kernels]
        for network, kernel in zip((*self.model.teacher_networks, self.model.network), self.kernels, strict=True):
            pixels.kernel_of(network).assign(kernel)
        self.model.turns.active.assign(active)
        monkeypatch.setattr(self.model.cutmix, "boxes", lambda *_: ops.convert_to_tensor(self.boxes))
        monkeypatch.setattr(self.model.views, "strong", lambda images: ops.convert_to_tensor(self.strong))

    def views(self):
        return pixels.views_of(self.model, self.inputs, self.targets)

    def labels(self):
        """Labels, confidences, conflicts and who was overruled, on the weak view, pixel by pixel."""
        first, second, student = (softmax(self.weak @ kernel) for kernel in self.kernels)
        found = [np.zeros(self.inside.shape) for _ in range(4)]
        for place in np.ndindex(*self.inside.shape):
            q_1, q_2, q_s = first[place], second[place], student[place]
            sure = [np.exp(np.sum(q * np.log2(q + 1e-10))) for q in (q_1, q_2)]
            psi = (sure[0] * q_1 + sure[1] * q_2) / sum(sure)
            label, confidence = psi.argmax(), psi.max()
            conflict = q_1.argmax() != q_2.argmax()
            overruled = conflict and q_s.argmax() != label and q_s.max() > confidence
            if overruled:
                label, confidence = q_s.argmax(), q_s.max()
            for field, value in zip(found, (label, confidence, conflict, overruled), strict=True):
                field[place] = value
        return found

    def learnt(self):
        """Labels, confidence, inside and kept of the view that the student learns from."""
        labels, confidence = self.labels()[:2]
        fields = [labels.astype(int), confidence, self.inside]
        if self.active == 1:
            fields = [mixed(field, self.boxes) for field in fields]
        return (*fields, (fields[1] >= self.tau) * fields[2])

    def images(self):
        return mixed(self.weak, self.boxes) if self.active == 1 else self.strong.astype("float64")

    def unlabeled_term(self, kernel=None):
        logits = self.images() @ (self.kernels[2] if kernel is None else kernel)
        labels, _, _, kept = self.learnt()
        if self.form == "ce":
            return np.sum(kept * cross_entropies(labels, logits)) / max(kept.sum(), 1)
        p, total = softmax(logits), 0.0
        for k in range(CLASSES):
            y = labels == k
            overlap, size = np.sum(kept * p[..., k] * y), np.sum(kept * p[..., k] ** 2) + np.sum(kept * y)
            total += 1 - (2 * overlap + 1e-5) / (size + 1e-5)
        return total / CLASSES


@pytest.mark.parametrize("form", ["dice", "ce"])
@pytest.mark.parametrize("active", [0, 1])
@pytest.mark.parametrize("seed", range(2))
def test_loss_in_either_turn(monkeypatch, seed, active, form):
    example = Example(monkeypatch, seed, active, unlabeled_loss=form)
    model = example.model
    found = losses_of(model, example.inputs, example.targets)
    known = mean_cross_entropy(example.targets["mask"], example.inputs["labeled"] @ example.kernels[2])
    hidden = example.unlabeled_term()
    terms = numbers(found.terms)
    assert list(terms) == ["mask_supervised", "mask_unlabeled"] and hidden > 0.05
    np.testing.assert_allclose(list(terms.values()), [known, hidden], rtol=1e-4)
    fields = (found.pseudo["mask"].labels, found.pseudo["mask"].confidence, found.pseudo["mask"].inside)
    for ours, expected in zip((*fields, found.pseudo["mask"].kept), example.learnt(), strict=True):
        np.testing.assert_allclose(array(ours), expected, rtol=1e-5)
    assert 0 < array(found.pseudo["mask"].kept).mean() < 1
    _, _, conflict, overruled = example.labels()
    figures = numbers(found.figures)
    assert set(figures) == {"mask_conflict", "mask_overruled"} and 0 < overruled.mean() < conflict.mean() < 1
    for name, part in (("mask_conflict", conflict), ("mask_overruled", overruled)):
        np.testing.assert_allclose(figures[name], (part * example.inside).sum() / example.inside.sum(), rtol=1e-6)
    model.step.assign(1)
    total = pixels.total_of(model, example.inputs, example.targets)
    np.testing.assert_allclose(total, known + 2 * np.exp(-5 * (1 - 0.1 * 4) ** 2) * hidden, rtol=1e-4)
    logged = numbers(model.epoch_figures.result())
    labels, _, inside, kept = example.learnt()
    np.testing.assert_allclose(logged["mask_selected"], kept.sum() / inside.sum(), rtol=1e-6)


@pytest.mark.parametrize("active", [0, 1])
def test_what_each_network_sees(monkeypatch, active):
    example = Example(monkeypatch, 3, active)
    losses_of(example.model, example.inputs, example.targets)
    for teacher in example.model.teacher_networks:
        ((weak, training),) = pixels.seen(teacher)
        assert training is False
        np.testing.assert_array_equal(weak, example.inputs["unlabeled"])
    ((images, training),) = pixels.seen(example.model.network)
    assert training is True
    expected = example.inputs["labeled"], example.inputs["unlabeled"], example.images()
    np.testing.assert_allclose(images, np.concatenate(expected), rtol=1e-6)


def test_teachers_by_the_statistics_of_the_batch_where_these_are_asked_for(monkeypatch):
    example = Example(monkeypatch, 3, teacher_statistics="own")
    _, unlabeled = example.views()
    losses_of(example.model, example.inputs, example.targets)
    assert [[t for _, t in pixels.seen(each)] for each in example.model.teacher_networks] == [[True], [True]]
    example.model.label(unlabeled)
    assert [[t for _, t in pixels.seen(each)] for each in example.model.teacher_networks] == [[False], [False]]


@pytest.mark.parametrize("form", ["dice", "ce"])
@pytest.mark.parametrize("active", [0, 1])
def test_slopes_reach_the_student_by_what_it_learns_alone(monkeypatch, active, form):
    example = Example(monkeypatch, 4, active, unlabeled_loss=form)
    model, views = example.model, example.views()

    def term(name="mask_unlabeled"):
        return model.terms(*views).terms[name]

    found = pixels.slope(pixels.kernel_of(model.network), term)
    # Labels and confidences are constants, though they are in part the student's.
    expected = finite_difference(example.unlabeled_term, example.kernels[2], step=1e-6)
    assert np.abs(expected).max() > 0.05
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-3)
    for teacher in model.teacher_networks:
        for variable in (pixels.kernel_of(teacher), teacher.network.gain):
            assert not pixels.slope(variable, term).any()
    slope = pixels.slope_by_images(model, views, "mask_unlabeled")
    assert slope.any() == (active == 1)  # the weak view as such is learnt from in the second turn alone
    known = pixels.slope(pixels.kernel_of(model.network), lambda: term("mask_supervised"))
    expected = finite_difference(
        lambda kernel: mean_cross_entropy(example.targets["mask"], example.inputs["labeled"] @ kernel),
        example.kernels[2],
    )
    np.testing.assert_allclose(known, expected, atol=1e-4, rtol=1e-3)


def test_dice_of_two_pixels():
    model = pixels.pixelwise(ADMT, num_classes=2)
    p = np.array([[[[0.9, 0.1], [0.4, 0.6]]]], "float32")
    for kept, expected in (([1, 1], 0.5622758), ([1, 0], 0.5022629), ([0, 0], 0)):
        found = array(model.dice_loss(np.zeros((1, 1, 2), "int32"), p, np.array([[kept]], "float32")))
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_weights_through_the_run():
    model = pixels.pixelwise(ADMT, total_steps=8)
    for step, expected in ((0, 0.0134759), (1, 0.5730096), (2, 2), (8, 2)):
        model.step.assign(step)
        weights = model.loss_weights
        assert weights["mask_supervised"] == 1
        np.testing.assert_allclose(array(weights["mask_unlabeled"]), expected, rtol=1e-5)
    model = pixels.pixelwise(ADMT, total_steps=8, lambda_unlabeled=3.0, ramp_share=0.5)
    model.step.assign(1)
    np.testing.assert_allclose(array(model.loss_weights["mask_unlabeled"]), 3 * np.exp(-5 * 0.75**2), rtol=1e-5)
    at_once = pixels.pixelwise(ADMT, ramp_share=0)
    assert at_once.loss_weights["mask_unlabeled"] == 2.0


def test_teachers_take_turns_of_two_three_and_one_step(monkeypatch):
    model = pixels.pixelwise(ADMT)
    lengths = iter((9, 3, 9, 9, 1, 4))  # 9 comes where no turn ends
    monkeypatch.setattr(model.turns, "draw", lambda: ops.convert_to_tensor(next(lengths), "int32"))
    model.turns.period.assign(2)
    kernels = [pixels.kernel_of(teacher) for teacher in model.teacher_networks]
    kernels[1].assign(np.zeros((3, 3)))
    found = []
    for student in range(1, 7):
        pixels.kernel_of(model.network).assign(np.full((3, 3), student, "float32"))
        model.after_step()
        found.append([array(kernel.value)[0, 0].item() for kernel in kernels])
    np.testing.assert_allclose(found, [(1, 0), (1.5, 0), (1.5, 3), (1.5, 3.5), (1.5, 4), (3, 4)], rtol=1e-6)
    assert [int(array(count.value)) for count in model.teacher_updates] == [3, 3]
    assert int(array(model.step.value)) == 6 and int(array(model.turns.active.value)) == 1


@pytest.mark.parametrize("own", [False, True])
def test_one_teacher_moves_a_step_behind_the_updated_student_with_its_statistics(own):
    model = shaken(made(ADMT, max_period=1, **({"teacher_statistics": "own"} if own else {})))
    networks = [model.network, *model.teacher_networks]
    for step in range(4):
        before = [network.get_weights() for network in networks]
        eager_step(model, *pictures(step))
        student, *teachers = [network.get_weights() for network in networks]
        moving = step % 2
        share = 1 - 1 / (step // 2 + 1)
        rows = zip(networks[0].variables, student, before[1 + moving], teachers[moving], strict=True)
        for variable, new, old, found in rows:
            statistic = variable.name.startswith("moving_")
            if own and statistic:
                continue
            np.testing.assert_allclose(found, share * old + (1 - share) * new, atol=1e-5, err_msg=variable.path)
        for variable, old, new in zip(networks[0].variables, before[2 - moving], teachers[1 - moving], strict=True):
            if not (own and variable.name.startswith("moving_")):
                np.testing.assert_array_equal(old, new)
        assert any((a != b).any() for a, b in zip(before[0], student, strict=True))
    assert [int(array(count.value)) for count in model.teacher_updates] == [2, 2]


def test_both_teachers_start_as_copies_and_the_student_predicts(monkeypatch):
    fresh = pixels.pixelwise(ADMT)
    for teacher in fresh.teacher_networks:
        for ours, its in zip(fresh.network.get_weights(), teacher.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, its)
    example = Example(monkeypatch, 5)
    predicted = array(example.model.infer(ops.convert_to_tensor(example.inputs["unlabeled"]))["mask"])
    np.testing.assert_allclose(predicted, softmax(example.weak @ example.kernels[2]), rtol=1e-4)
    assert example.model.use_teacher is False


@pytest.mark.parametrize("active", [0, 1])
def test_labels_are_those_of_all_three_and_of_the_weak_view(monkeypatch, active):
    example = Example(monkeypatch, 6, active)
    _, unlabeled = example.views()
    before = example.model.get_weights()
    found = example.model.label(unlabeled)["mask"]
    labels, confidence = example.labels()[:2]
    np.testing.assert_array_equal(array(found.labels), labels)
    np.testing.assert_allclose(array(found.confidence), confidence, rtol=1e-5)
    np.testing.assert_array_equal(array(found.kept), example.inside * (confidence >= TAU))
    assert [training for _, training in pixels.seen(example.model.network)] == [False]
    for old, new in zip(before, example.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("form", ["dice", "ce"])
@pytest.mark.parametrize("case", ["above one", "nothing inside", "zero", "one class", "no labels", "sure", "unsure"])
def test_degenerate_batches(monkeypatch, case, form):
    tau = {"above one": 1.01, "zero": 0.0}.get(case, TAU)
    example = Example(monkeypatch, 7, 1, threshold=tau, unlabeled_loss=form)
    if case == "nothing inside":
        example.inputs["unlabeled_area"] = np.ones_like(example.inputs["unlabeled_area"])
        example.inside = np.zeros_like(example.inside)
    if case == "one class":
        example.inputs["unlabeled"] = 0.01 * example.inputs["unlabeled"] + np.eye(3, dtype="float32")[0]
    if case == "no labels":
        example.targets["mask"][:] = 255
    if case in ("sure", "unsure"):
        example.inputs["unlabeled"] = {"sure": 1e4, "unsure": 0}[case] * example.inputs["unlabeled"]
    example.weak = example.inputs["unlabeled"].astype("float64")
    views = example.views()
    found = numbers(example.model.terms(*views).terms)
    np.testing.assert_allclose(found["mask_unlabeled"], example.unlabeled_term(), rtol=1e-4, atol=1e-6)
    slope = pixels.slope(
        pixels.kernel_of(example.model.network), lambda: example.model.terms(*views).terms["mask_unlabeled"]
    )
    assert np.isfinite(slope).all()
    if case in ("above one", "nothing inside", "unsure"):
        assert found["mask_unlabeled"] == 0 and not slope.any()
    assert (found["mask_supervised"] == 0) == (case == "no labels")
    assert np.isfinite(pixels.total_of(example.model, example.inputs, example.targets))
    assert np.isfinite(list(numbers(example.model.epoch_figures.result()).values())).all()


@pytest.mark.parametrize("unlabeled", [1, 4])
def test_other_numbers_of_unlabelled_images(monkeypatch, unlabeled):
    example = Example(monkeypatch, 8, 1, unlabeled=unlabeled)
    found = numbers(losses_of(example.model, example.inputs, example.targets).terms)
    np.testing.assert_allclose(found["mask_unlabeled"], example.unlabeled_term(), rtol=1e-4)


@pytest.mark.parametrize("form", ["dice", "ce"])
@pytest.mark.parametrize("active", [0, 1])
def test_the_truth_is_moved_and_mixed_as_its_image_is(monkeypatch, active, form):
    views = {"vertical_flip": True, "scale": (1.0, 1.0), "shift": 0.0}
    model = pixels.pixelwise(ADMT, pseudo_labels="truth", threshold=1.01, unlabeled_loss=form, views=views)
    model.turns.active.assign(active)
    monkeypatch.setattr(model.views, "strong", lambda images: images)
    monkeypatch.setattr(model.cutmix, "boxes", lambda *_: ops.convert_to_tensor(pixels.random_boxes(3, 3)))
    true, false = pixels.oracle_losses(model)
    assert numbers(true.terms)["mask_unlabeled"] < 1e-4 < 0.3 < numbers(false.terms)["mask_unlabeled"]


def test_a_strong_view_from_the_host_is_the_first_turn_s(monkeypatch):
    for active in (0, 1):
        example = Example(monkeypatch, 9, active)
        given = {**example.inputs, "unlabeled_strong": example.strong}
        monkeypatch.setattr(example.model.views, "strong", lambda images: pytest.fail("made although it was there"))
        losses_of(example.model, given, example.targets)
        ((images, _),) = pixels.seen(example.model.network)
        np.testing.assert_allclose(images[5:], example.images(), rtol=1e-6)


def test_a_compiled_run_alternates(monkeypatch):
    example = Example(monkeypatch, 10, max_period=1)
    model = example.model
    model.compile(keras.optimizers.SGD(0.01))
    kernels = [pixels.kernel_of(network) for network in (model.network, *model.teacher_networks)]
    second = array(kernels[2].value).copy()
    model.train_on_batch(example.inputs, example.targets)
    student = array(kernels[0].value).copy()
    assert np.abs(student - example.kernels[2]).max() > 1e-4
    np.testing.assert_allclose(array(kernels[1].value), student, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(array(kernels[2].value), second)
    model.train_on_batch(example.inputs, example.targets)
    np.testing.assert_allclose(array(kernels[1].value), student, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(array(kernels[2].value), array(kernels[0].value), rtol=1e-5, atol=1e-7)
    assert np.abs(array(kernels[2].value) - student).max() > 1e-4


def test_defaults():
    model = made(ADMT)
    assert (model.threshold, model.lambda_unlabeled, model.ramp_share) == (0.95, 2.0, 0.25)
    assert (model.unlabeled_loss, model.max_period, model.turns.max_period) == ("dice", 50, 50)
    assert (model.teacher_momentum, model.teacher_statistics, model.mask_loss) == (0.99, "average", "ce_dice")
    assert (model.tasks, model.turns.turns, len(model.teacher_networks)) == ("segmentation", 2, 2)
    assert (model.cutmix.probability, model.dice_loss.include_background) == (1.0, True)
    assert int(array(model.turns.active.value)) == int(array(model.turns.counter.value)) == 0
    assert 1 <= int(array(model.turns.period.value)) <= 50


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tasks": "classification"}, "`tasks` of ADMT can only be 'segmentation', found 'classification'"),
        ({"threshold": -0.1}, "`threshold` must be a number of at least 0, found -0.1"),
        ({"lambda_unlabeled": -1}, "`lambda_unlabeled` must be a number of at least 0, found -1"),
        ({"ramp_share": 1.2}, r"`ramp_share` must be within \[0, 1\], found 1.2"),
        ({"unlabeled_loss": "mse"}, "`unlabeled_loss` must be one of 'dice', 'ce', found 'mse'"),
        ({"max_period": 0}, "`max_period` must be a whole number of at least 1, found 0"),
        ({"teacher_momentum": None}, r"`teacher_momentum` must be a number in \[0, 1\), found None.*ADMT"),
    ],
)
def test_errors_name_argument_and_value(wrong, message):
    with pytest.raises(ValueError, match=message):
        made(ADMT, **wrong)
