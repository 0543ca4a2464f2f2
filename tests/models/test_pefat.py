"""PEFAT on made outputs, against an independent NumPy reading of its equations."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.experiments.command_line.defaults import control_of
from keras_semimed.models import PEFAT
from keras_semimed.models.view import View
from tests.gradients import gradient, jacobian
from tests.layers.test_loss_mixture import ByHand
from tests.layers.test_mixture import fit_by_hand, scores_by_hand
from tests.losses.helpers import finite_difference, softmax
from tests.losses.test_feature_adversarial import (
    logits_by_hand,
    trusted_by_hand,
    trusted_loss_by_hand,
    uncertain_by_hand,
    uncertain_loss_by_hand,
)
from tests.losses.test_pseudo_losses import crossed_by_hand
from tests.losses.test_view_contrast import contrast_by_hand
from tests.models import pixelwise as pixels
from tests.models.common import batches, made
from tests.models.methods import batch, watched
from tests.models.pixelwise import array, cross_entropies, mean_cross_entropy, number, numbers

TERMS = ("label_supervised", "label_contrast", "label_trusted", "label_adversarial", "label_uncertain")
WIDTH = 4
# A mixture under which about half of the images are trusted.
FITTED = {"shares": (0.6, 0.4), "means": (0.2, 0.7), "variances": (0.03, 0.05)}


class Example:
    """A batch of which the pooled features are given, a head of its own, and what is drawn."""

    def __init__(self, monkeypatch, seed=0, classes=3, labeled=3, unlabeled=4, step=5, fitted=True, **arguments):
        random = np.random.default_rng(seed)
        self.features = [
            random.normal(0, 1.5, (count, WIDTH)).astype("float32")
            for count in (labeled, labeled, unlabeled, unlabeled)
        ]
        self.kernel = random.normal(0, 1, (WIDTH, classes)).astype("float32")
        self.bias = random.normal(0, 0.3, classes).astype("float32")
        self.labels = random.integers(0, classes, labeled).astype("int32")
        self.noise = [
            random.normal(size=(2 * (labeled + unlabeled), WIDTH)).astype("float32"),
            random.normal(size=(2, unlabeled, WIDTH)).astype("float32"),
        ]
        self.model = made(PEFAT, num_labels=classes, **{"total_steps": 10, "iterations": 3, "window": 6, **arguments})
        self.model.step.assign(step)
        self.stage = float(step >= self.model.warmup_steps)
        self.mixture = self.model.mixture
        if fitted:
            for name, value in FITTED.items():
                getattr(self.mixture, name).assign(np.array(value, "float32"))
        inside = [np.ones((count, 2, 2), "float32") for count in (labeled, unlabeled)]
        self.views = [
            View(np.zeros((len(each), 2, 2, 3), "float32"), ops.convert_to_tensor(each), None, labels)
            for each, labels in zip(inside, (ops.convert_to_tensor(self.labels), None), strict=True)
        ]
        monkeypatch.setattr(self.model, "weak", lambda view: view)
        monkeypatch.setattr(self.model, "strong", lambda view: view)
        self.patch = monkeypatch

    def inside(self, *values):
        """Only these unlabelled images show anything."""
        self.views[1] = self.views[1]._replace(
            inside=ops.convert_to_tensor(np.array(values, "float32"))[:, None, None] * self.views[1].inside
        )

    @property
    def shown(self):
        return array(self.views[1].inside)[:, 0, 0]

    def losses(self, features=None, kernel=None, bias=None):
        """What the method makes of features and a head."""
        features = self.features if features is None else features
        kernel, bias = (ops.convert_to_tensor(own if x is None else x) for own, x in
                        ((self.kernel, kernel), (self.bias, bias)))  # fmt: skip
        outputs = [
            {"pooled": ops.convert_to_tensor(x), "label_logits": ops.matmul(ops.convert_to_tensor(x), kernel) + bias}
            for x in features
        ]
        head = SimpleNamespace(kernel=kernel, bias=bias)
        left = list(self.noise)
        with self.patch.context() as patch:
            patch.setattr(self.model, "run", lambda *views, **arguments: outputs)
            patch.setattr(self.model, "normal", lambda shape: ops.convert_to_tensor(left.pop(0)))
            patch.setattr(type(self.model.network.network), "label_head", head)
            return self.model.terms(*self.views)

    def logits(self, features=None, kernel=None, bias=None):
        kernel, bias = (own if x is None else x for own, x in ((self.kernel, kernel), (self.bias, bias)))
        return [logits_by_hand(f, kernel, bias) for f in (self.features if features is None else features)]

    def judged(self, hand=None):
        """Posterior and trust of each unlabelled image."""
        losses, _ = crossed_by_hand(*self.logits()[2:])
        scaled = (hand or ByHand(1, 6)).scale(losses, self.shown)
        mixture = [array(state.value) for state in (self.mixture.shares, self.mixture.means, self.mixture.variances)]
        scores = np.exp(scores_by_hand(scaled.mean(0), *mixture))
        posterior = scores[0] / scores.sum(0)
        return posterior, self.stage * self.shown * (posterior > self.model.threshold)

    def constants(self, trusted):
        """Labels, weights and noise, which stay whatever a slope is taken by."""
        _, (y_1, y_2) = crossed_by_hand(*self.logits()[2:])
        labels = np.concatenate([self.labels, self.labels, y_2, y_1])
        weights = np.concatenate([self.labels != 255] * 2 + [trusted] * 2).astype("float64")
        doubtful = self.shown * (1 - trusted)
        rows, iterations = np.concatenate(self.features), self.model.iterations
        away = trusted_by_hand(rows, labels, weights, self.kernel, self.bias, self.noise[0], iterations)
        pairs = np.stack(self.features[2:])
        apart = uncertain_by_hand(pairs, doubtful, self.kernel, self.bias, self.noise[1], iterations, self.model.xi)
        return labels, weights, doubtful, away, apart, [np.asarray(f, "float64") for f in self.features]

    def terms(self, constants, features=None, kernel=None, bias=None):
        labels, weights, doubtful, away, apart, start = constants
        features = self.features if features is None else features
        kernel, bias = (own if x is None else x for own, x in ((self.kernel, kernel), (self.bias, bias)))
        logits = self.logits(features, kernel, bias)
        known = np.where(weights > 0, labels, 255)
        first, second = np.concatenate(features[::2]), np.concatenate(features[1::2])
        inside = np.concatenate([np.ones(len(self.labels)), self.shown])
        return {
            "label_supervised": sum(mean_cross_entropy(self.labels, z) for z in logits[:2]),
            "label_contrast": contrast_by_hand(first, second, self.model.temperature, inside),
            "label_trusted": mean_cross_entropy(known, np.concatenate(logits)),
            "label_adversarial": trusted_loss_by_hand(np.concatenate(start), labels, weights, kernel, bias, away),
            "label_uncertain": uncertain_loss_by_hand(
                np.stack(features[2:]), doubtful, kernel, bias, apart, np.stack(start[2:])
            ),
        }


@pytest.mark.parametrize(("seed", "classes", "step"), [(0, 3, 5), (1, 2, 5), (2, 4, 2), (3, 3, 1), (4, 2, 0)])
def test_loss(monkeypatch, seed, classes, step):
    example = Example(monkeypatch, seed, classes, step=step, temperature=0.5)
    posterior, trusted = example.judged()
    expected = example.terms(example.constants(trusted))
    found = example.losses()
    terms = numbers(found.terms)
    assert tuple(terms) == TERMS
    np.testing.assert_allclose(list(terms.values()), list(expected.values()), rtol=2e-3)
    pseudo = found.pseudo["label"]
    np.testing.assert_array_equal(array(pseudo.kept), trusted)
    assert 0 < trusted.sum() < 4 if step >= 2 else not trusted.any()
    logits = example.logits()
    np.testing.assert_array_equal(array(pseudo.labels), logits[3].argmax(-1))  # of the weak view
    np.testing.assert_allclose(array(pseudo.confidence), softmax(logits[3]).max(-1), rtol=1e-5)
    figures = numbers(found.figures)
    np.testing.assert_allclose(figures["label_posterior"], posterior.mean(), rtol=1e-4)
    names = ("mixture_low_share", "mixture_low_mean", "mixture_high_mean")
    np.testing.assert_allclose([figures[name] for name in names], [0.6, 0.2, 0.7], rtol=1e-6)


def test_missing_labels_and_images_without_anything_leave_every_mean(monkeypatch):
    example = Example(monkeypatch, 5, temperature=0.5)
    example.labels[0] = 255
    example.views[0] = example.views[0]._replace(labels=ops.convert_to_tensor(example.labels))
    example.inside(1, 0, 1, 1)
    _, trusted = example.judged()
    assert trusted[1] == 0 < trusted.sum()
    expected = example.terms(example.constants(trusted))
    found = example.losses()
    np.testing.assert_allclose(list(numbers(found.terms).values()), list(expected.values()), rtol=2e-3)
    assert int(number(example.mixture.recent_count)) == 3


def test_weights_of_the_stages(monkeypatch):
    model = made(PEFAT, total_steps=10)
    assert model.warmup_steps == 2
    for step in range(5):
        model.step.assign(step)
        weights = [float(array(weight)) for weight in model.loss_weights.values()]
        np.testing.assert_allclose(weights, [1, 1, 0, 0, 0] if step < 2 else [0, 0, 1, 0.3, 0.1], rtol=1e-6)
        assert model.selects == (step > 2)  # since a step that was no warm-up
    assert tuple(model.loss_weights) == TERMS


def test_where_nothing_can_be_trusted_the_labelled_mean_has_its_own_name(monkeypatch):
    example = Example(monkeypatch, 6, threshold=1.0)
    terms = numbers(example.losses().terms)
    np.testing.assert_allclose(terms["label_supervised"] / 2, terms["label_trusted"], rtol=1e-6)
    weights = numbers(example.model.loss_weights)
    np.testing.assert_allclose(list(weights.values()), [0.5, 0, 0, 0.3, 0.1], rtol=1e-6)
    assert not example.model.selects
    oracle = made(PEFAT, threshold=1.0, pseudo_labels="truth", total_steps=10)
    oracle.step.assign(5)
    assert numbers(oracle.loss_weights)["label_trusted"] == 1 and oracle.selects


def test_factors_of_the_classes_weigh_labels_and_trusted_labels(monkeypatch):
    factors = np.array([0.5, 2.0, 3.0])
    example = Example(monkeypatch, 14, label_weights=tuple(factors))
    labels, weights, *_ = example.constants(example.judged()[1])
    counted = weights > 0
    assert counted[-4:].any()
    entries = factors[labels] * cross_entropies(labels, np.concatenate(example.logits()))
    terms = numbers(example.losses().terms)
    np.testing.assert_allclose(terms["label_trusted"], entries[counted].mean(), rtol=1e-5)
    np.testing.assert_allclose(terms["label_supervised"], 2 * entries[:6].mean(), rtol=1e-5)


def test_a_control_learns_the_labelled_views_alone_all_the_time():
    model = made(PEFAT)
    control = made(PEFAT, **control_of("pefat", model.get_config()))
    for step in (0, 3, 5):
        control.step.assign(step)
        assert list(numbers(control.loss_weights).values()) == [0.5, 0, 0, 0, 0]


@pytest.mark.parametrize("step", [0, 5])
def test_slopes_by_the_features_and_by_the_head(monkeypatch, step):
    """Noise, labels and trust are constants; noisy features are too."""
    example = Example(monkeypatch, 7, step=step, temperature=0.5)
    constants = example.constants(example.judged()[1])
    given = {"kernel": example.kernel, "bias": example.bias, **dict(zip("abcd", example.features, strict=True))}

    def split(values):
        return [values[name] for name in "abcd"], values["kernel"], values["bias"]

    def entries(values):
        with keras.StatelessScope():
            terms = example.losses(*split(values)).terms
        return ops.stack([terms[name] for name in TERMS])

    found = jacobian(entries, given)
    for index, term in enumerate(TERMS):
        for name, x in given.items():
            expected = finite_difference(
                lambda v, name=name, term=term: example.terms(constants, *split({**given, name: v}))[term], x
            )
            np.testing.assert_allclose(found[name][index], expected, rtol=5e-3, atol=2e-4, err_msg=f"{term} {name}")
    moved = {term: {name for name in given if found[name][index].any()} for index, term in enumerate(TERMS)}
    head, trusted = {"kernel", "bias"}, {"c", "d"} if step else set()
    assert moved == {
        "label_supervised": {"a", "b"} | head,
        "label_contrast": {"a", "b", "c", "d"},
        "label_trusted": {"a", "b"} | trusted | head,
        "label_adversarial": head,
        "label_uncertain": {"c", "d"} | head,
    }


def test_views_are_crossed(monkeypatch):
    """Where the views disagree, each learns the other's label."""
    example = Example(monkeypatch, 8, classes=2, unlabeled=1, labeled=1, threshold=0.0)
    example.features[2:] = [np.array([(3.0, 0, 0, 0)], "float32"), np.array([(0, 3.0, 0, 0)], "float32")]
    example.kernel[:] = [(1, 0), (0, 1), (0, 0), (0, 0)]
    example.bias[:] = 0
    found = numbers(example.losses().terms)
    z_1, z_2 = np.array([(3.0, 0)]), np.array([(0, 3.0)])
    known = [cross_entropies(example.labels, z)[0] for z in example.logits()[:2]]
    crossed = [cross_entropies(np.array([1]), z_1)[0], cross_entropies(np.array([0]), z_2)[0]]
    np.testing.assert_allclose(found["label_trusted"], np.mean([*known, *crossed]), rtol=1e-5)  # n_T = 4
    assert found["label_uncertain"] == 0
    slope = gradient(lambda k: example.losses(kernel=k).terms["label_uncertain"], example.kernel)
    np.testing.assert_array_equal(slope, 0)


def test_each_view_has_a_geometry_of_its_own():
    model = made(PEFAT)
    with watched(model) as found:
        model.compute_loss(*batch(), {})
    strong, strong_labeled = found.strong
    for one, two in ((strong, found.unlabeled), (strong_labeled, found.labeled)):
        assert len(one.images) == len(two.images)
        assert (array(one.geometry["rows"]) != array(two.geometry["rows"])).any(axis=1).all()


def test_losses_of_labelled_weak_views_fill_the_queue_in_the_warm_up_alone(monkeypatch):
    example = Example(monkeypatch, 9, step=1)
    example.labels[1] = 255
    example.views[0] = example.views[0]._replace(labels=ops.convert_to_tensor(example.labels))
    example.losses()
    count = int(number(example.mixture.count))
    expected = cross_entropies(example.labels, example.logits()[1])[[0, 2]]
    assert count == 2 and int(number(example.mixture.recent_count)) == 0
    np.testing.assert_allclose(array(example.mixture.queue)[:2], expected, rtol=1e-5)
    example.model.step.assign(2)
    example.losses()
    assert int(number(example.mixture.count)) == 2 and int(number(example.mixture.recent_count)) == 4
    losses, _ = crossed_by_hand(*example.logits()[2:])
    np.testing.assert_allclose(array(example.mixture.recent)[:, :4], losses, rtol=1e-4, atol=1e-6)


def test_pseudo_losses_are_scaled_with_those_of_earlier_steps(monkeypatch):
    example, hand = Example(monkeypatch, 10), ByHand(1, 6)
    hand.remember([[0.0, 9.0, 0.1], [0.0, 1.0, 8.0]], [1, 1, 1])
    example.mixture.remember(np.array([[0.0, 9.0, 0.1], [0.0, 1.0, 8.0]], "float32"))
    posterior, trusted = example.judged(hand)
    found = example.losses()
    np.testing.assert_allclose(numbers(found.figures)["label_posterior"], posterior.mean(), rtol=1e-4)
    np.testing.assert_array_equal(array(found.pseudo["label"].kept), trusted)
    assert abs(posterior.mean() - example.judged()[0].mean()) > 1e-2


def test_the_mixture_is_fitted_once_at_the_end_of_the_warm_up():
    model = made(PEFAT, total_steps=15)  # three steps of warm-up
    losses = np.random.default_rng(0).exponential(size=40).astype("float32")
    model.mixture.update(losses)
    scaled = (losses - losses.min()) / (losses.max() - losses.min())
    expected, _ = fit_by_hand(scaled)
    for step in range(1, 7):
        model.after_step()
        assert int(number(model.step)) == step
        if step < 3:
            assert array(model.mixture.means).tolist() == [0.5, 0.5]
        else:
            np.testing.assert_allclose(array(model.mixture.means), expected[1], rtol=1e-3)
            np.testing.assert_allclose(array(model.mixture.shares), expected[0], rtol=1e-3)
            model.mixture.update(losses[:5] + step)  # what comes later changes nothing


def test_a_run_that_is_too_short_for_a_warm_up_warns():
    with pytest.warns(UserWarning, match=r"`warmup_share`=0.02 of total_steps=4 is no step: the mixture, .* never is"):
        made(PEFAT, total_steps=4, warmup_share=0.02)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        made(PEFAT, total_steps=4, warmup_share=0.3)
        made(PEFAT, **control_of("pefat", made(PEFAT).get_config()))


def test_a_run_passes_through_both_stages():
    model = made(PEFAT, total_steps=6, warmup_share=0.5, threshold=0.5, num_labels=3)
    model.compile()
    history = model.fit(batches(steps=3, labels=3), epochs=2, verbose=0).history
    assert int(number(model.mixture.count)) == 9 and int(number(model.mixture.recent_count)) == 6
    assert history["mixture_low_mean"] == [0.5, pytest.approx(number(model.mixture.means[0]))]
    assert history["label_selected"][0] == 0 <= history["label_selected"][1]
    assert number(model.mixture.means[0]) < number(model.mixture.means[1])


def test_a_run_that_goes_on_before_the_fit_is_the_run_in_one_go(tmp_path):
    model = made(PEFAT, total_steps=6, warmup_share=0.5)  # the mixture is fitted behind the third step
    model.compile()
    data = batches(steps=2)
    model.fit(data, epochs=1, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert int(number(again.mixture.count)) == 6 and array(again.mixture.means).tolist() == [0.5, 0.5]
    for each in (model, again):
        data.epoch = 1
        each.fit(data, epochs=3, initial_epoch=1, verbose=0)
    assert array(model.mixture.means).tolist() != [0.5, 0.5] and int(number(model.mixture.recent_count)) == 6
    for variable, other in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(array(variable.value), array(other.value), err_msg=variable.path)


@pytest.mark.parametrize("steps", [2, 3])
def test_the_warm_up_leaves_the_selected_share_and_warns_of_nothing(monkeypatch, steps):
    """Whether it ends with an epoch or within one."""
    model = made(PEFAT, total_steps=6, warmup_share=0.5)
    monkeypatch.setattr(model.mixture, "call", lambda scaled: (ops.ones(2), ops.convert_to_tensor([1.0, 0.0])))
    model.compile()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*of the pseudo-labels", UserWarning)
        history = model.fit(batches(steps=steps), epochs=2, verbose=0).history
    assert history["label_selected"] == [0.0, 0.5]


def test_label_looks_at_both_views_and_moves_nothing(monkeypatch):
    example = Example(monkeypatch, 11)
    logits = example.logits()
    monkeypatch.setattr(
        example.model, "run", lambda view, training: [{"label_logits": ops.convert_to_tensor(logits.pop(), "float32")}]
    )
    before = [array(v.value) for v in example.mixture.variables]
    _, trusted = example.judged()
    weak = example.logits()[3]
    found = example.model.label(example.views[1], example.views[1])["label"]
    np.testing.assert_array_equal(array(found.kept), trusted)
    np.testing.assert_array_equal(array(found.labels), weak.argmax(-1))
    for variable, value in zip(example.mixture.variables, before, strict=True):
        np.testing.assert_array_equal(array(variable.value), value)


def test_the_truth_is_learnt_by_both_views(monkeypatch):
    example = Example(monkeypatch, 12, pseudo_labels="truth")
    truth = np.array([0, 255, 2, 1], "int32")
    example.views[1] = example.views[1]._replace(labels=ops.convert_to_tensor(truth))
    found = numbers(example.losses().terms)
    labels = np.concatenate([example.labels, example.labels, truth, truth])
    expected = mean_cross_entropy(labels, np.concatenate(example.logits()))
    np.testing.assert_allclose(found["label_trusted"], expected, rtol=1e-5)


@pytest.mark.parametrize("case", ["all trusted", "none trusted", "no labels", "nothing inside", "sure", "one image"])
@pytest.mark.parametrize("step", [0, 5])
def test_degenerate_batches_stay_finite(monkeypatch, case, step):
    one = {"labeled": 1, "unlabeled": 1} if case == "one image" else {}
    threshold = {"all trusted": 0.0, "none trusted": 1.0}.get(case, 0.7)
    example = Example(monkeypatch, 13, step=step, threshold=threshold, **one)
    if case == "no labels":
        example.labels[:] = 255
        example.views[0] = example.views[0]._replace(labels=ops.convert_to_tensor(example.labels))
    elif case == "nothing inside":
        example.inside(0, 0, 0, 0)
    elif case == "sure":
        example.kernel *= 300
    found = numbers(example.losses().terms)
    assert np.isfinite(list(found.values())).all()
    if case == "nothing inside" or (case == "all trusted" and step):
        assert found["label_uncertain"] == 0
    if case == "no labels":
        assert found["label_supervised"] == 0
    slope = gradient(lambda k: sum(example.losses(kernel=k).terms.values()), example.kernel)
    assert np.isfinite(slope).all()


def test_defaults():
    model = made(PEFAT, total_steps=100)
    assert (model.warmup_share, model.warmup_steps, model.temperature, model.threshold) == (0.2, 20, 0.05, 0.7)
    assert (model.iterations, model.xi, model.window) == (8, 1e-3, 96)
    assert (model.lambda_adversarial, model.lambda_uncertain, model.teacher) == (0.3, 0.1, None)
    assert (model.mixture.size, model.mixture.window, model.mixture.threshold) == (256, 96, 0.7)
    assert model.contrast_loss.temperature == 0.05 and model.tasks == "classification"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tasks": "segmentation"}, "`tasks` of PEFAT can only be 'classification', found 'segmentation'"),
        ({"warmup_share": 0}, "`warmup_share` must be between 0 and 1, found 0"),
        ({"warmup_share": 1.0}, "`warmup_share` must be between 0 and 1, found 1.0"),
        ({"warmup_share": float("nan")}, "`warmup_share` must be between 0 and 1, found nan"),
        ({"temperature": 0.0}, "`temperature` must be a positive number, found 0.0"),
        ({"threshold": -0.1}, "`threshold` must be a number of at least 0, found -0.1"),
        ({"iterations": 0}, "`iterations` must be a whole number of at least 1, found 0"),
        ({"xi": -1e-3}, "`xi` must be a number of at least 0, found -0.001"),
        ({"lambda_adversarial": -1}, "`lambda_adversarial` must be a number of at least 0, found -1"),
        ({"lambda_uncertain": float("inf")}, r"`lambda_uncertain` must be at most 3.4e\+38, found inf"),
        ({"window": 0}, "`window` must be a whole number of at least 1, found 0"),
    ],
)
def test_errors_name_argument_and_value(wrong, message):
    with pytest.raises(ValueError, match=message):
        made(PEFAT, **wrong)


@pytest.mark.parametrize("labels", [2, 5])
def test_grey_images_and_other_batches_train(labels):
    model = made(PEFAT, num_labels=labels, total_steps=4, warmup_share=0.5)
    model.compile()
    data = batches(steps=4, batch_size=2, unlabeled=5, labels=labels, channels=1)
    history = model.fit(data, verbose=0).history
    assert np.isfinite([values for values in history.values()]).all()
    assert tuple(pixels.array(model.infer(data.at(0)[0]["labeled"])["label"]).shape) == (2, labels)
