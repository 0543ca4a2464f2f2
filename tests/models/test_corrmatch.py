"""CorrMatch on made outputs, against an independent NumPy reading of its equations."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.layers import CorrelationMap
from keras_semimed.losses import SoftmaxConsistency
from keras_semimed.models import CorrMatch
from keras_semimed.networks.contract import Head
from tests.gradients import gradient, jacobian
from tests.layers.test_adaptive_threshold import moved_by_hand
from tests.layers.test_correlation_map import dense, map_by_hand, spread_by_hand
from tests.layers.test_region_propagation import filled_by_hand, region_by_hand
from tests.losses.helpers import finite_difference, softmax
from tests.models import pixelwise as pixels
from tests.models.common import made, tiny_encoder
from tests.models.pixelwise import array, batch, cross_entropies, losses_of, mean_cross_entropy, mixed, number, numbers
from tests.networks.test_deeplab import enlarge

SIZE, GRID = 6, (3, 3)
TERMS = (
    "mask_supervised", "mask_correlation_supervised", "mask_hard", "mask_soft", "mask_feature", "mask_correlation",
)  # fmt: skip


class Coarse(keras.layers.Layer):
    """The correlation map of every second pixel of the features."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.map = CorrelationMap(4)

    def build(self, input_shape):
        self.map.build(input_shape)

    def call(self, features):
        return self.map(features[:, 1::2, 1::2])


class OnFeatures(CorrMatch):
    """The map is of the features themselves."""

    @property
    def heads(self):
        return {"correlation": Head("decoded", lambda width, **named: Coarse(**named))}


class Example:
    """A random batch in blocks, with what is drawn for it; logits are the images."""

    def __init__(self, monkeypatch, seed, unlabeled=3, **arguments):
        self.inputs, self.targets = batch(seed, unlabeled=unlabeled, size=SIZE)
        random = np.random.default_rng(seed)
        # Blocks of one class, so that regions can be of one class.
        blocks = 3 * np.eye(3)[random.integers(0, 3, (unlabeled, 2, 2))]
        self.inputs["unlabeled"] += np.repeat(np.repeat(blocks, 3, 1), 3, 2).astype("float32")
        self.boxes = pixels.random_boxes(seed + 1, unlabeled, SIZE)
        self.factors = 2.0 * random.integers(0, 2, (unlabeled, 3)).astype("float32")
        self.uniform = random.uniform(size=(12,)).astype("float32")
        self.inside = pixels.area_mask(self.inputs["unlabeled_area"], SIZE)
        given = {"threshold_start": 0.5, "threshold_momentum": 0.9, "regions": 12}
        self.model = pixels.pixelwise(OnFeatures, size=SIZE, **{**given, **arguments})
        self.start, self.momentum = self.model.threshold_start, self.model.threshold_momentum
        for variable in self.head.variables:
            variable.assign(random.normal(size=tuple(variable.shape)))
        monkeypatch.setattr(self.model.cutmix, "boxes", lambda *_: ops.convert_to_tensor(self.boxes))
        monkeypatch.setattr(self.model.views, "strong", lambda images: images * 0.9)
        monkeypatch.setattr(self.model.dropout, "draw", lambda *_: ops.convert_to_tensor(self.factors))
        monkeypatch.setattr(self.model, "uniform", lambda shape: ops.convert_to_tensor(self.uniform[: shape[0]]))

    @property
    def head(self):
        return self.model.network.head_layers["correlation"].map

    @property
    def logits(self):
        """z_x, z_w, z_s, z_fp."""
        weak = self.inputs["unlabeled"].astype("float64")
        strong = mixed(0.9 * weak, self.boxes)
        return [self.inputs["labeled"].astype("float64"), weak, strong, weak * self.factors[:, None, None, :]]

    def maps(self):
        """C of the labelled, the weak and the mixed views."""
        sent, received = ((lambda x, d=d: dense(d, x)) for d in (self.head.sender, self.head.receiver))
        return [map_by_hand(images[:, 1::2, 1::2], sent, received, 4) for images in self.logits[:3]]

    @property
    def tau(self):
        return moved_by_hand(self.start, softmax(self.inputs["unlabeled"]), self.inside, self.momentum)

    def pseudo(self):
        """q, k, v, p of the weak view."""
        p = softmax(self.logits[1])
        return p.argmax(-1), self.inside * (p.max(-1) >= self.tau), self.inside, p

    def propagated(self):
        """q*, k*."""
        labels, kept, inside, _ = (mixed(field, self.boxes) for field in self.pseudo())
        places = np.floor(self.uniform.astype("float64") * 9).astype(int)
        weak = self.maps()[1]
        regions = [[region_by_hand(c[place], GRID, (SIZE, SIZE)) for c in weak] for place in places]
        return filled_by_hand(labels, kept, np.array(regions), (1 - self.boxes) * inside, self.tau, 3)

    def terms(self, logits=None, maps=None, names=TERMS):
        """Of given logits and maps; what the maps spread are always the example's own logits."""
        given = self.logits
        logits, maps = given if logits is None else logits, self.maps() if maps is None else maps
        labels, kept, inside, p = self.pseudo()
        some, some_kept, valid, target = (mixed(field, self.boxes) for field in (labels, kept, inside, p))

        def of(entries, counted, whole):
            return (counted * entries).sum() / max(whole.sum(), 1)

        def spread(view):
            return enlarge(spread_by_hand(given[view], maps[view], GRID), (SIZE, SIZE))

        def correlation():
            best, best_kept = self.propagated()
            strong = of(cross_entropies(best, spread(2)), best_kept, valid)
            return (strong + of(cross_entropies(labels, spread(1)), kept, inside)) / 2

        def hard():
            best, best_kept = self.propagated()
            return of(cross_entropies(best, logits[2]), best_kept, valid)

        divergence = (target * (np.log(target) - pixels.log_softmax(logits[2]))).sum(-1)
        found = {
            "mask_supervised": lambda: mean_cross_entropy(self.targets["mask"], logits[0]),
            "mask_correlation_supervised": lambda: mean_cross_entropy(self.targets["mask"], spread(0)),
            "mask_hard": hard,
            "mask_soft": lambda: of(divergence, some_kept, valid),
            "mask_feature": lambda: of(cross_entropies(labels, logits[3]), kept, inside),
            "mask_correlation": correlation,
        }
        return {name: found[name]() for name in names}


@pytest.mark.parametrize("seed", range(4))
def test_loss(monkeypatch, seed):
    example = Example(monkeypatch, seed, unlabeled=1 if seed == 3 else 3)
    found = losses_of(example.model, example.inputs, example.targets)
    terms, expected = numbers(found.terms), example.terms()
    assert tuple(terms) == TERMS and min(expected.values()) > 1e-3
    np.testing.assert_allclose(list(terms.values()), list(expected.values()), rtol=5e-4)
    labels, kept, inside, _ = example.pseudo()
    np.testing.assert_array_equal(array(found.pseudo["mask"].labels), labels)
    np.testing.assert_array_equal(array(found.pseudo["mask"].kept), kept)
    assert 0 < kept.sum() < inside.sum()
    best, best_kept = example.propagated()
    assert seed == 3 or ((best != mixed(labels, example.boxes)) | (best_kept != mixed(kept, example.boxes))).any()
    figures = numbers(found.figures)
    np.testing.assert_allclose(figures["threshold"], example.tau, rtol=1e-6)
    valid = mixed(inside, example.boxes)
    np.testing.assert_allclose(figures["mask_propagated"], best_kept.sum() / valid.sum(), rtol=1e-6)


def test_the_weights_of_the_specification():
    model = pixels.pixelwise(OnFeatures, size=SIZE)
    values = dict(zip(TERMS, (1.0, 0.8, 0.4, 0.2, 0.6, 0.8), strict=True))
    assert model.loss_weights.keys() == values.keys()
    np.testing.assert_allclose(sum(model.loss_weights[name] * value for name, value in values.items()), 0.7)
    given = pixels.pixelwise(OnFeatures, size=SIZE, lambda_unlabeled=3.0, loss_scale=2.0).loss_weights
    assert list(given.values()) == [1.0, 1.0, 1.5, 1.5, 1.5, 1.5]


def test_the_divergence_of_the_specification():
    model = pixels.pixelwise(OnFeatures, size=SIZE)
    assert isinstance(model.soft_loss, SoftmaxConsistency)
    targets = np.array([[[(0.9, 0.1), (0.3, 0.7), (0.5, 0.5)]]], "float32")
    kept, inside = np.array([[[1.0, 0.0, 1.0]]], "float32"), np.array([[[1.0, 1.0, 0.0]]], "float32")
    found = number(model.soft_loss(np.zeros((1, 1, 3, 2), "float32"), targets, kept, inside))
    np.testing.assert_allclose(found, 0.18403, atol=1e-5)
    sure = np.array([[[(1.0, 0.0), (1e-40, 1.0), (0.0, 1.0)]]], "float32")
    assert np.isfinite(number(model.soft_loss(np.zeros((1, 1, 3, 2), "float32"), sure, kept, inside)))


def test_slopes_by_logits_and_maps(monkeypatch):
    """Those of the weak logits, and of whatever the maps spread, are constants."""
    example = Example(monkeypatch, 4)
    model = example.model
    views = pixels.views_of(model, example.inputs, example.targets)
    logits, maps = (
        [each.astype("float32") for each in values] for values in (example.logits, [*example.maps(), np.zeros((1, 1))])
    )

    def total(place, values, name):
        outputs = [{"mask_logits": z, "correlation": c} for z, c in zip(logits, maps, strict=True)]
        outputs[place] = {**outputs[place], name: values}
        tensors = [{key: ops.convert_to_tensor(value) for key, value in each.items()} for each in outputs]
        with monkeypatch.context() as patch, keras.StatelessScope():
            patch.setattr(model, "decode", lambda *features, **arguments: tensors)
            terms = model.terms(*views).terms
        return sum(weight * terms[name] for name, weight in model.loss_weights.items())

    parts = {0: ["mask_supervised"], 2: ["mask_hard", "mask_soft"], 3: ["mask_feature"]}
    best = example.propagated()
    monkeypatch.setattr(example, "propagated", lambda: best)
    for place, values in enumerate(logits):
        found = gradient(lambda x, place=place: total(place, x, "mask_logits"), values)
        if place == 1:
            assert not found.any()
            continue

        def reading(x, place=place):
            given = [x if index == place else each for index, each in enumerate(example.logits)]
            terms = example.terms(given, maps, parts[place])
            return sum(model.loss_weights[name] * value for name, value in terms.items())

        expected = finite_difference(reading, values, step=1e-4)
        assert np.abs(expected).max() > 3e-4
        np.testing.assert_allclose(found, expected, atol=1e-6, rtol=1e-3)
    for place, values in enumerate(maps[:3]):
        found = gradient(lambda x, place=place: total(place, x, "correlation"), values)
        name = "mask_correlation" if place else "mask_correlation_supervised"

        def spread_reading(x, place=place, name=name):
            given = [x if index == place else each for index, each in enumerate(maps)]
            return model.loss_weights[name] * example.terms(maps=given, names=(name,))[name]

        # One image is enough, and every fourth pair of places.
        chosen = [(0, *pair) for pair in np.ndindex(9, 9)][::4]
        expected = finite_difference_at(spread_reading, values, chosen)
        assert np.abs(expected).max() > 3e-4
        np.testing.assert_allclose([found[index] for index in chosen], expected, atol=1e-6, rtol=1e-3)


def finite_difference_at(function, x, places, step=1e-4):
    """Central differences by some entries."""
    found = []
    for place in places:
        moved = [x.astype("float64") for _ in range(2)]
        moved[0][place] += step
        moved[1][place] -= step
        found.append((function(moved[0]) - function(moved[1])) / (2 * step))
    return np.array(found)


def slopes_of(example, views):
    """Slopes of each term by the kernel of the logits, by the gain of the features and by the map's sender."""
    network, model = example.model.network, example.model
    variables = {
        "kernel": pixels.kernel_of(network),
        "gain": network.network.gain,
        "sender": example.head.sender.kernel,
    }

    def values(arrays):
        mapping = [(variable, arrays[name]) for name, variable in variables.items()]
        with keras.StatelessScope(state_mapping=mapping):
            terms = model.terms(*views).terms
        return ops.stack([terms[name] for name in TERMS])

    found = jacobian(values, {name: array(variable.value) for name, variable in variables.items()})
    return {term: {name: found[name][index] for name in variables} for index, term in enumerate(TERMS)}


def test_which_term_trains_what(monkeypatch):
    example = Example(monkeypatch, 5)
    found = slopes_of(example, pixels.views_of(example.model, example.inputs, example.targets))
    for name, slopes in found.items():
        spread = name in ("mask_correlation_supervised", "mask_correlation")
        trained = {"gain", "sender"} if spread else {"gain", "kernel"}  # the head that makes logits gets nothing of r
        assert {variable for variable, slope in slopes.items() if slope.any()} == trained, name


def test_one_pass_of_the_encoder_one_of_the_decoder_and_no_map_of_dropped_features(monkeypatch):
    example = Example(monkeypatch, 6, teacher_momentum=0.9)
    model, seen = example.model, []
    call = Coarse.call
    monkeypatch.setattr(Coarse, "call", lambda self, x: seen.append(array(x)) or call(self, x))
    losses_of(model, example.inputs, example.targets)
    log = model.network.network.log
    ((decoded, training),) = log.decoded
    assert training is True and not model.teacher.network.log.passes
    np.testing.assert_allclose(array(decoded), np.concatenate(example.logits), rtol=1e-5)
    ((images, training),) = pixels.seen(model.network)
    assert training is True
    np.testing.assert_allclose(images, np.concatenate(example.logits[:3]), rtol=1e-5)
    np.testing.assert_allclose(np.concatenate(seen), images, rtol=1e-5)


def test_threshold_moves_in_a_step_alone_and_before_it_filters(monkeypatch):
    example = Example(monkeypatch, 7, threshold_momentum=0.2)
    model = example.model
    p = softmax(example.inputs["unlabeled"])
    _, unlabeled = pixels.views_of(model, example.inputs, example.targets)
    np.testing.assert_array_equal(array(model.label(unlabeled)["mask"].kept), example.inside * (p.max(-1) >= 0.5))
    assert number(model.filter.threshold) == 0.5
    tau = example.tau
    assert ((p.max(-1) >= 0.5) != (p.max(-1) >= tau)).any()
    found = losses_of(model, example.inputs, example.targets)
    np.testing.assert_allclose(number(model.filter.threshold), tau, rtol=1e-6)
    np.testing.assert_array_equal(array(found.pseudo["mask"].kept), example.inside * (p.max(-1) >= tau))
    oracle = Example(monkeypatch, 7, pseudo_labels="truth")
    oracle.targets["unlabeled_mask"] = np.zeros((3, SIZE, SIZE), "int32")
    losses_of(oracle.model, oracle.inputs, oracle.targets)
    assert number(oracle.model.filter.threshold) == 0.5


def test_every_place_can_be_drawn_the_same_for_all_images(monkeypatch):
    example = Example(monkeypatch, 8)
    model, asked = example.model, []
    example.uniform = ((np.arange(12) + 0.5) / 12).astype("float32")
    example.uniform[-1] = np.nextafter(np.float32(1), np.float32(0))
    from keras_semimed.models import corrmatch

    region = corrmatch.correlation_region
    monkeypatch.setattr(corrmatch, "correlation_region", lambda *x: asked.append(x[0]) or region(*x))
    if keras.backend.backend() == "torch":  # elsewhere the loop is traced
        losses_of(model, example.inputs, example.targets)
        places = [0, 1, 1, 2, 3, 4, 4, 5, 6, 7, 7, 8]
        expected = np.stack([example.maps()[1][:, place] for place in places])
        np.testing.assert_allclose(np.stack([array(rows) for rows in asked]), expected, rtol=1e-3, atol=1e-6)
    else:
        np.testing.assert_allclose(
            numbers(losses_of(model, example.inputs, example.targets).terms)["mask_hard"],
            example.terms(names=("mask_hard",))["mask_hard"],
            rtol=5e-4,
        )


@pytest.mark.parametrize(
    "case", ["nothing inside", "one class", "no labels", "nothing kept", "sure of everything", "constant maps"]
)
def test_degenerate_batches(monkeypatch, case):
    arguments = {"threshold_start": 1.0, "threshold_momentum": 1.0} if case == "nothing kept" else {}
    example = Example(monkeypatch, 9, **arguments)
    model = example.model
    if case == "nothing inside":
        example.inputs["unlabeled_area"] = np.ones_like(example.inputs["unlabeled_area"])
        example.inside = np.zeros_like(example.inside)
    if case == "one class":
        example.inputs["unlabeled"][..., 0] += 50
        example.targets["mask"][:] = 0
    if case == "no labels":
        example.targets["mask"][:] = 255
    if case == "sure of everything":
        example.inputs["unlabeled"] *= 1000
    if case == "constant maps":
        constant = np.ones((len(example.inputs["unlabeled"]), 1, 1, 3), "float32") * (0.0, 2.0, 4.0)
        example.inputs["unlabeled"] = np.broadcast_to(constant, example.inputs["unlabeled"].shape).astype("float32")
    views = pixels.views_of(model, example.inputs, example.targets)
    found = numbers(model.terms(*views).terms)
    assert np.isfinite(list(found.values())).all()
    for name, slopes in slopes_of(example, views).items():
        assert all(np.isfinite(slope).all() for slope in slopes.values())
        if case in ("nothing inside", "nothing kept") and name in TERMS[2:]:
            assert found[name] == 0 and not any(slope.any() for slope in slopes.values())
    for name in TERMS[:2]:
        assert (found[name] == 0) == (case == "no labels")
    if case == "nothing inside":
        assert number(model.filter.threshold) == 0.5
    assert np.isfinite(pixels.total_of(model, example.inputs, example.targets))


def test_regions_lie_outside_the_boxes_and_the_padding(monkeypatch):
    """A map that likes every pixel: what is filled is all the rest."""
    example = Example(monkeypatch, 10, threshold_start=0.0, threshold_momentum=1.0)
    from keras_semimed.models import corrmatch

    monkeypatch.setattr(corrmatch, "correlation_region", lambda rows, *_: ops.ones((3, SIZE, SIZE)))
    found = []
    propagate = corrmatch.propagate_regions
    monkeypatch.setattr(corrmatch, "propagate_regions", lambda *x: found.append((x, propagate(*x))) or found[-1][1])
    losses_of(example.model, example.inputs, example.targets)
    ((given, (labels, kept)),) = found
    before, valid = (mixed(field, example.boxes) for field in (example.pseudo()[0], example.inside))
    filled = (example.boxes == 0) & (valid > 0)
    np.testing.assert_array_equal(array(given[4]) > 0, filled)
    for n in range(3):
        np.testing.assert_array_equal(array(labels)[n][~filled[n]], before[n][~filled[n]])
        assert len(np.unique(array(labels)[n][filled[n]])) == 1
    np.testing.assert_array_equal(array(kept), valid)


def test_the_truth_is_moved_and_mixed_as_its_image_is(monkeypatch):
    views = {"vertical_flip": True, "scale": (1.0, 1.0), "shift": 0.0}
    model = pixels.pixelwise(
        OnFeatures, size=SIZE, pseudo_labels="truth", cutmix_probability=1.0, feature_dropout=0.0, regions=4,
        views=views,
    )  # fmt: skip
    monkeypatch.setattr(model.views, "strong", lambda images: images)
    true, false = pixels.oracle_losses(model)
    for name in ("mask_hard", "mask_soft", "mask_feature"):
        assert numbers(true.terms)[name] < 1e-6 < 5 < numbers(false.terms)[name]


@pytest.mark.parametrize(("network", "places"), [("unet", 2), ("deeplab", 4)])
def test_map_is_of_the_deepest_features(network, places):
    stride = {"output_stride": 16, "encoder": tiny_encoder(stride=16)} if network == "deeplab" else {}
    model = made(CorrMatch, network=network, image_size=64, num_classes=3, **stride)
    images = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 1)).astype("float32")  # grey
    (outputs,) = model.run(images, training=False)
    assert tuple(outputs["correlation"].shape) == (2, places**2, places**2)
    head = model.network.head_layers["correlation"]
    assert model.network.parts["correlation"] == [head] and head.projection.filters == 256
    np.testing.assert_allclose(array(outputs["correlation"]), array(head(outputs["P5"], training=False)), rtol=1e-5)


def test_defaults():
    model = made(CorrMatch, num_classes=4)
    assert (model.threshold_start, model.threshold_momentum, model.regions) == (0.85, 0.999, 128)
    assert (model.correlation_dim, model.feature_dropout, model.cutmix_probability) == (21, 0.5, 0.5)
    assert (model.lambda_unlabeled, model.loss_scale, model.mask_loss, model.teacher) == (1.0, 0.5, "ce", None)
    assert (model.filter.initial, model.filter.momentum, model.filter.num_classes) == (0.85, 0.999, 4)
    assert (model.cutmix.probability, model.dropout.rate, model.soft_loss.distance) == (0.5, 0.5, "kl")
    head = model.network.head_layers["correlation"]
    assert (head.dim, head.units, head.dropout.rate) == (21, 256, 0.1)
    assert made(CorrMatch, num_classes=4, correlation_dim=None).network.head_layers["correlation"].dim == 4


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tasks": "classification"}, "`tasks` of CorrMatch can only be 'segmentation', found 'classification'"),
        ({"threshold_start": 1.1}, r"`threshold_start` must be within \[0, 1\], found 1.1"),
        ({"threshold_momentum": -0.5}, r"`threshold_momentum` must be within \[0, 1\], found -0.5"),
        ({"regions": 0}, "`regions` must be a whole number of at least 1, found 0"),
        ({"correlation_dim": 0}, "`correlation_dim` must be a whole number of at least 1, found 0"),
        ({"feature_dropout": 1.0}, r"`feature_dropout` must be in \[0, 1\), found 1.0"),
        ({"cutmix_probability": 2}, r"`cutmix_probability` must be within \[0, 1\], found 2"),
        ({"lambda_unlabeled": -1}, "`lambda_unlabeled` must be a number of at least 0, found -1"),
        ({"loss_scale": float("nan")}, "`loss_scale` must be a number of at least 0, found nan"),
        ({"image_size": 1568}, "`image_size` must be at most 1536, 48 places of 32 pixels, found 1568"),
        (
            {"image_size": 400, "network": "deeplab", "encoder": "resnet_tiny", "output_stride": 8},
            "`image_size` must be at most 384, 48 places of 8 pixels, found 400",
        ),
    ],
)
def test_errors_name_argument_and_value(wrong, message):
    with pytest.raises(ValueError, match=message):
        made(CorrMatch, **wrong)
