"""InterLUDE on made outputs, against an independent NumPy reading of its equations."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.export import inference_model
from keras_semimed.layers import EmbeddingFusion
from keras_semimed.models import InterLUDE
from tests.gradients import gradient
from tests.layers.test_interleaving import by_hand as interleaved
from tests.losses.helpers import finite_difference, softmax
from tests.losses.test_delta_consistency import by_hand as delta
from tests.models import pixelwise as pixels
from tests.models.common import batches, image_set, made
from tests.models.methods import batch as pictures
from tests.models.methods import eager_step, shaken
from tests.models.pixelwise import array, mean_cross_entropy, number, numbers

TAU, SIZE, FUSION = 0.5, 4, 0.2
TERMS = ("label_supervised", "label_unlabeled", "label_delta")


class Staged(pixels.Pixelwise):
    """A network of three levels, each a multiple of the one before it, that something can be put between."""

    levels = ("P1", "P2", "P3")
    factors = (1.0, 2.0, 0.5)

    def encode(self, images, training=None, between=None):
        self.log.passes.append((images, training))
        x, features = images * self.gain, {}
        for level, factor in zip(self.levels, self.factors, strict=True):
            x = factor * x
            x = x if between is None else between(level, x)
            features[level] = x
        return features

    def represent(self, features, training=None):
        return super().represent({"P1": features["P3"]}, training)


class Example:
    """A random batch of mu unlabelled images for each labelled one; logits are means of pixels, fused or not."""

    def __init__(self, seed, classes=3, labeled=3, beside=2, padded=True):
        random = np.random.default_rng(seed)

        def images(count):
            means = random.normal(0, 1.5, (count, 1, 1, classes))
            return (means + random.normal(0, 1, (count, SIZE, SIZE, classes))).astype("float32")

        self.beside = beside
        self.inputs = {"labeled": images(labeled), "unlabeled": images(labeled * beside)}
        self.strong = [images(labeled), images(labeled * beside)]
        self.inside = np.ones((labeled, beside))
        if padded:  # nothing is left of the last image
            self.inside[-1, -1] = 0
            area = np.tile([0, 0, SIZE, SIZE], (labeled * beside, 1))
            area[-1] = 0
            self.inputs["unlabeled_area"] = area.astype("int32")
        labels = random.integers(0, classes, labeled)
        labels[0] = 255
        self.targets = {"label": labels.astype("int32")}

    def model(self, monkeypatch, **arguments):
        monkeypatch.setattr(pixels, "Pixelwise", Staged)
        classes = self.inputs["labeled"].shape[-1]
        given = {"num_labels": classes, "threshold": TAU, "fusion": FUSION, **arguments}
        model = pixels.pixelwise(InterLUDE, size=SIZE, channels=classes, **given)
        strong = dict(zip((len(each) for each in self.strong), self.strong, strict=True))
        monkeypatch.setattr(model.views, "strong", lambda images: ops.convert_to_tensor(strong[images.shape[0]]))
        return model

    @property
    def views(self):
        return [self.inputs["labeled"], self.strong[0], self.inputs["unlabeled"], self.strong[1]]

    def logits(self, views=None, fusion=FUSION, kernel=None):
        """Of the four sets of views, unlabelled ones beside their labelled one."""
        rows = interleaved(*(np.asarray(view, "float64") for view in (views or self.views))).mean((1, 2))
        rows = (1 - fusion) * rows + fusion * np.concatenate([rows[1:], rows[:1]])
        rows = rows if kernel is None else rows @ kernel
        labeled = len(self.inputs["labeled"])
        groups = rows.reshape(labeled, 2, 1 + self.beside, -1)
        return [groups[:, 0, 0], groups[:, 1, 0], groups[:, 0, 1:], groups[:, 1, 1:]]

    def terms(self, logits, fixed=None, pairs="all", tau=TAU):
        """The three terms; pseudo-labels and the labelled change come from `fixed`, where a slope is taken."""
        fixed = logits if fixed is None else fixed
        p = softmax(fixed[2])
        unlabeled = 0.0
        for place in zip(*np.nonzero(self.inside), strict=True):
            if p[place].max() >= tau:
                unlabeled -= pixels.log_softmax(logits[3][place])[p[place].argmax()]
        return {
            "label_supervised": mean_cross_entropy(self.targets["label"], logits[0]),
            "label_unlabeled": unlabeled / max(self.inside.sum(), 1),
            "label_delta": delta(logits, pairs, self.targets["label"], self.inside, fixed),
        }


def assert_terms(found, expected):
    assert tuple(found) == TERMS
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("pairs", ["all", "class"])
@pytest.mark.parametrize("fusion", [0.0, 0.1, 0.5])
@pytest.mark.parametrize(("classes", "beside"), [(2, 1), (3, 2), (5, 3)])
def test_loss(monkeypatch, classes, beside, fusion, pairs):
    example = Example(classes, classes, 3 if beside > 1 else 4, beside)
    if beside == 1:  # as many of both: the strong views cannot be told by their number
        example.strong[0] = example.strong[1]
    model = example.model(monkeypatch, fusion=fusion, delta_pairs=pairs, lambda_unlabeled=2.0, lambda_delta=3.0)
    expected = example.terms(example.logits(fusion=fusion), pairs=pairs)
    found = pixels.losses_of(model, example.inputs, example.targets)
    assert_terms(numbers(found.terms), expected)
    if pairs == "all" or classes == 3:
        assert min(expected.values()) > 1e-4
    total = expected["label_supervised"] + 2 * expected["label_unlabeled"] + 3 * expected["label_delta"]
    np.testing.assert_allclose(pixels.total_of(model, example.inputs, example.targets), total, rtol=1e-4)
    # What training's accuracy is of, and the pseudo-labels, in the order of the images.
    np.testing.assert_allclose(array(found.labeled["label_logits"]), example.logits(fusion=fusion)[0], rtol=1e-4)
    weak = softmax(example.logits(fusion=fusion)[2]).reshape(-1, classes)
    np.testing.assert_array_equal(array(found.pseudo["label"].labels), weak.argmax(-1))
    kept = example.inside.ravel() * (weak.max(-1) >= TAU)
    np.testing.assert_array_equal(array(found.pseudo["label"].kept), kept)


def test_one_pass_over_all_views_in_their_order(monkeypatch):
    example = Example(0)
    model = example.model(monkeypatch, teacher_momentum=0.9)
    pixels.losses_of(model, example.inputs, example.targets)
    ((images, training),) = pixels.seen(model.network)
    assert training is True and not pixels.seen(model.teacher)
    np.testing.assert_allclose(images, interleaved(*example.views), rtol=1e-6)


def test_strong_views_are_of_the_very_views_that_are_learnt_from(monkeypatch):
    """The same geometry, so that only colours change between weak and strong."""
    example, asked = Example(0), []
    model = example.model(monkeypatch)
    labeled, unlabeled = pixels.views_of(model, example.inputs, example.targets)
    strong = model.strong
    monkeypatch.setattr(model, "strong", lambda view: asked.append(view) or strong(view))
    model.terms(labeled, unlabeled)
    assert len(asked) == 2 and asked[0] is labeled and asked[1] is unlabeled


@pytest.mark.parametrize("pairs", ["all", "class"])
def test_slopes_by_the_network(monkeypatch, pairs):
    example = Example(1)
    model = example.model(monkeypatch, delta_pairs=pairs)
    views, fixed = pixels.views_of(model, example.inputs, example.targets), example.logits()
    for name in TERMS:
        found = pixels.slope(
            pixels.kernel_of(model.network, "label"), lambda name=name: model.terms(*views).terms[name]
        )
        expected = finite_difference(
            lambda kernel, name=name: example.terms(example.logits(kernel=kernel), fixed, pairs)[name], np.eye(3)
        )
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=name)
        assert np.abs(expected).max() > 1e-3


@pytest.mark.parametrize("fusion", [0.0, FUSION])
def test_slopes_by_the_images(monkeypatch, fusion):
    """Without fusion each term learns from its own views; with it from their next images too."""
    example = Example(2)
    model = example.model(monkeypatch, fusion=fusion)
    labeled, unlabeled = pixels.views_of(model, example.inputs, example.targets)
    fixed = example.logits(fusion=fusion)
    for index, own in enumerate([{"label_supervised"}, set(), {"label_delta"}, {"label_unlabeled", "label_delta"}]):
        for name in TERMS:

            def term(images, index=index, name=name):
                given = [labeled, labeled._replace(images=ops.convert_to_tensor(example.strong[0]))]
                given += [unlabeled, unlabeled._replace(images=ops.convert_to_tensor(example.strong[1]))]
                given[index] = given[index]._replace(images=images)
                with pytest.MonkeyPatch.context() as patch, keras.StatelessScope():
                    strong = iter((given[1], given[3]))
                    patch.setattr(model, "strong", lambda view: next(strong))
                    return model.terms(given[0], given[2]).terms[name]

            found = gradient(term, example.views[index])
            moved = [*example.views[:index], None, *example.views[index + 1 :]]

            def reading(shift, index=index, name=name, moved=moved):
                views = [*moved[:index], example.views[index] + shift[:, None, None], *moved[index + 1 :]]
                return example.terms(example.logits(views, fusion), fixed)[name]

            expected = finite_difference(reading, np.zeros((len(example.views[index]), 3)))
            np.testing.assert_allclose(found.sum((1, 2)), expected, atol=1e-5, err_msg=f"{name} {index}")
            if fusion == 0:
                assert bool(np.abs(found).max() > 1e-4) == (name in own), (name, index)


def test_the_truth_of_image_classes(monkeypatch):
    example = Example(3, padded=False)
    model = example.model(monkeypatch, pseudo_labels="truth", threshold=1.1)
    truth = np.array([2, 255, 0, 1, 1, 255], "int32")
    found = pixels.terms_of(model, example.inputs, {**example.targets, "unlabeled_label": truth})
    expected = mean_cross_entropy(truth, example.logits()[3].reshape(-1, 3))
    np.testing.assert_allclose(found["label_unlabeled"], expected, rtol=1e-5)
    np.testing.assert_allclose(found["label_delta"], example.terms(example.logits())["label_delta"], rtol=1e-4)


@pytest.mark.parametrize("case", ["above one", "zero", "nothing labelled", "nothing inside"])
@pytest.mark.parametrize("pairs", ["all", "class"])
def test_degenerate_batches(monkeypatch, case, pairs):
    example = Example(4)
    if case == "nothing labelled":
        example.targets["label"][:] = 255
    if case == "nothing inside":
        example.inputs["unlabeled_area"][:] = 0
        example.inside[:] = 0
    tau = {"above one": 1.1, "zero": 0.0}.get(case, TAU)
    model = example.model(monkeypatch, threshold=tau, delta_pairs=pairs)
    found = pixels.terms_of(model, example.inputs, example.targets)
    assert_terms(found, example.terms(example.logits(), pairs=pairs, tau=tau))
    zeros = {
        "above one": {"label_unlabeled"},
        "nothing inside": {"label_unlabeled", "label_delta"},
        "nothing labelled": {"label_supervised"} | ({"label_delta"} if pairs == "class" else set()),
    }
    assert {name for name in TERMS if found[name] == 0} == zeros.get(case, set())


def test_a_labelled_image_that_shows_nothing_is_compared_with_none(monkeypatch):
    example = Example(5, padded=False)
    example.inputs["labeled_area"] = np.array([[0, 0, SIZE, SIZE], [0, 0, 0, 0], [0, 0, SIZE, SIZE]], "int32")
    logits = example.logits()
    found = pixels.terms_of(example.model(monkeypatch), example.inputs, example.targets)["label_delta"]
    example.inside[1] = 0
    expected = example.terms(logits)["label_delta"]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert abs(expected - delta(logits)) > 1e-4


def test_the_features_before_the_last_stage_are_fused():
    model = shaken(made(InterLUDE, fusion=0.3))
    images = ops.cast(image_set(6, 3).images, "float32")
    network = model.network.network
    (plain,) = model.run(images, training=False)
    (found,) = model.run(images, training=False, **model._fused())
    for level in ("P1", "P2", "P3"):
        np.testing.assert_array_equal(array(found[level]), array(plain[level]))
    before = array(plain["P4"])
    fused = 0.7 * before + 0.3 * np.roll(before, -1, axis=0)
    np.testing.assert_allclose(array(found["P4"]), fused, rtol=1e-4, atol=1e-5)
    last = array(network.stages[-1](ops.convert_to_tensor(fused), training=False))
    np.testing.assert_allclose(array(found["P5"]), last, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(array(found["pooled"]), last.mean((1, 2)), rtol=1e-3, atol=1e-4)
    assert np.abs(array(found["label_logits"]) - array(plain["label_logits"])).max() > 1e-3


def test_nothing_is_fused_in_inference():
    model = shaken(made(InterLUDE, fusion=0.3))
    images = image_set(6, 3).images
    predicted = model.predict_on_batch(images)["label"]
    for index in (0, 3):
        alone = model.predict_on_batch(images[index : index + 1])["label"]
        np.testing.assert_allclose(alone[0], predicted[index], atol=1e-5)
    other = made(InterLUDE, fusion=0.0)
    other.set_weights(model.get_weights())
    np.testing.assert_allclose(other.predict_on_batch(images)["label"], predicted, atol=1e-6)
    labels = model.label(images)["label"]
    np.testing.assert_array_equal(array(labels.labels), predicted.argmax(-1))
    exported = inference_model(model)
    np.testing.assert_allclose(array(exported(ops.cast(images, "float32"))["label"]), predicted, atol=1e-5)
    assert not [each for each in exported._flatten_layers() if isinstance(each, EmbeddingFusion)]


@pytest.mark.parametrize(("labeled", "unlabeled"), [(3, 2), (2, 1), (2, 3), (4, 6)])
def test_a_batch_without_whole_groups_is_refused_before_anything_is_learnt(labeled, unlabeled):
    model = made(InterLUDE)
    model.compile()
    before = model.get_weights()
    message = rf"\(`unlabeled_batch_size`\) must be a multiple of the {labeled} labelled ones, found {unlabeled}"
    with pytest.raises(ValueError, match=message):
        model.fit(batches(batch_size=labeled, unlabeled=unlabeled), verbose=0)
    with pytest.raises(ValueError, match=message):
        model.train_on_batch(*pictures(batch_size=labeled, unlabeled=unlabeled))
    for first, second in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("channels", [1, 3])
def test_three_classes_and_several_images_beside_each(channels):
    model = made(InterLUDE, num_labels=3, delta_pairs="class", threshold=0.4, teacher_momentum=0.9)
    x, y = pictures(batch_size=2, unlabeled=6, labels=3, channels=channels)
    before = model.get_weights()
    logs = eager_step(model, x, y)
    assert np.isfinite(list(logs.values())).all() and number(model.step) == 1
    assert any((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))


def test_defaults():
    model = made(InterLUDE)
    assert (model.threshold, model.fusion, model.delta_pairs) == (0.95, 0.1, "all")
    assert model.embedding_fusion.strength == 0.1 and model.delta_loss.pairs == "all" and model.teacher is None
    assert dict(model.loss_weights) == dict.fromkeys(TERMS, 1.0) and not model.heads
    model = made(InterLUDE, lambda_unlabeled=0.5, lambda_delta=0.1)
    assert list(model.loss_weights.values()) == [1.0, 0.5, 0.1]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"threshold": -0.1}, "`threshold` must be a number of at least 0, found -0.1"),
        ({"fusion": 1.5}, r"`fusion` must be within \[0, 1\], found 1.5"),
        ({"lambda_unlabeled": float("nan")}, "`lambda_unlabeled` must be a number of at least 0, found nan"),
        ({"lambda_delta": -1}, "`lambda_delta` must be a number of at least 0, found -1"),
        ({"delta_pairs": "clas"}, "`delta_pairs` must be one of 'all', 'class', found 'clas'. Did you mean 'class'"),
        ({"tasks": "both"}, "`tasks` of InterLUDE can only be 'classification', found 'both'"),
    ],
)
def test_errors_name_argument_and_value(wrong, message):
    with pytest.raises(ValueError, match=message):
        InterLUDE(**wrong)
