"""Image sets and batches: checks, order over several epochs of `fit`, resuming."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.data import EvaluationBatches, ImageSet, SemiSupervisedBatches, from_arrays

SIZE = 4


def numbered_set(count, prefix="image", masks=True, labels=True):
    """Images whose every pixel is the number of the image."""
    numbers = np.arange(count, dtype="uint8")
    images = np.broadcast_to(numbers[:, None, None, None], (count, SIZE, SIZE, 1)).copy()
    return ImageSet(
        names=[f"{prefix} {i}" for i in range(count)],
        images=images,
        masks=images[..., 0] % 2 if masks else None,
        labels=(numbers % 3).astype("int32") if labels else None,
        groups=[str(i // 2) for i in range(count)],
        class_names=("a", "b", "c"),
    )


def test_select_takes_every_field_in_the_order_asked_for():
    chosen = numbered_set(6).select(["image 4", "image 1"])
    assert list(chosen.names) == ["image 4", "image 1"]
    np.testing.assert_array_equal(chosen.images[:, 0, 0, 0], [4, 1])
    np.testing.assert_array_equal(chosen.masks[:, 0, 0], [0, 1])
    np.testing.assert_array_equal(chosen.labels, [1, 1])
    assert list(chosen.groups) == ["2", "0"]
    assert chosen.class_names == ("a", "b", "c")
    with pytest.raises(ValueError, match="'image 9'"):
        numbered_set(6).select(["image 1", "image 9"])


def changed(field, value):
    fields = {name: getattr(numbered_set(3), name) for name in ("names", "images", "masks", "labels", "groups")}
    fields[field] = value
    return lambda: ImageSet(**fields, class_names=("a", "b", "c"))


def nan_image():
    images = numbered_set(3).images.astype("float32")
    images[1, 0, 0, 0] = np.nan
    return images


def bad_mask():
    masks = numbered_set(3).masks.copy()
    masks[2, 0, 0] = 7
    return masks


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("images", nan_image(), "'image 1' holds NaN"),
        ("images", np.zeros((3, SIZE, SIZE, 1)), "uint8.*float64"),
        ("images", np.zeros((2, SIZE, SIZE, 1), "uint8"), "2 images for 3 names"),
        ("images", np.zeros((3, SIZE, SIZE), "uint8"), r"\(N, H, W, 1 or 3\)"),
        ("masks", bad_mask(), r"'image 2' holds \[7\]; expected classes 0..1 or 255"),
        ("masks", np.zeros((3, SIZE, SIZE + 1), "uint8"), r"`masks` must be \(3, 4, 4\)"),
        ("masks", np.zeros((3, SIZE, SIZE), "int32"), "uint8.*int32"),
        ("labels", np.array([0, 1], "int32"), r"`labels` must have shape \(3,\)"),
        ("labels", np.array([0, 1, 2]), "int32.*int64"),
        ("labels", np.array([0, 3, 0], "int32"), r"'image 1' is 3; expected 0..2"),
        ("groups", ["a"], "1 entries for 3 images"),
        ("names", ["x", "y", "x"], "two images are called 'x'"),
    ],
)
def test_a_wrong_field_is_an_error_that_names_the_image(field, value, message):
    with pytest.raises(ValueError, match=message):
        changed(field, value)()


def test_ignore_value_is_a_valid_mask_value():
    masks = numbered_set(3).masks.copy()
    masks[0, 0, 0] = 255
    assert changed("masks", masks)().masks[0, 0, 0] == 255


def test_batches_have_the_contract_shapes_and_matching_targets():
    dataset = SemiSupervisedBatches(numbered_set(5), numbered_set(7, masks=False, labels=False), 2, 3)
    assert len(dataset) == 3  # ceil(7 / 3)
    inputs, targets = dataset[1]
    assert inputs["labeled"].shape == (2, SIZE, SIZE, 1) and inputs["unlabeled"].shape == (3, SIZE, SIZE, 1)
    assert inputs["labeled"].dtype == targets["mask"].dtype == np.uint8 and targets["label"].dtype == np.int32
    numbers = inputs["labeled"][:, 0, 0, 0]
    np.testing.assert_array_equal(targets["label"], numbers % 3)
    np.testing.assert_array_equal(targets["mask"][:, 0, 0], numbers % 2)


def test_only_existing_targets_are_yielded():
    unlabeled = numbered_set(4)
    assert set(SemiSupervisedBatches(numbered_set(4, masks=False), unlabeled, 2)[0][1]) == {"label"}
    assert set(SemiSupervisedBatches(numbered_set(4, labels=False), unlabeled, 2)[0][1]) == {"mask"}
    with pytest.raises(ValueError, match="neither masks nor labels"):
        SemiSupervisedBatches(numbered_set(4, masks=False, labels=False), unlabeled, 2)


def test_each_pass_shows_every_image_once_and_passes_differ():
    dataset = SemiSupervisedBatches(numbered_set(5), numbered_set(9), batch_size=2, steps_per_epoch=4, seed=3)
    steps = [dataset.indices(step) for step in range(45)]
    for stream, count in ((0, 5), (1, 9)):
        order = np.concatenate([step[stream] for step in steps])  # 90 positions
        passes = order.reshape(-1, count)
        for row in passes:
            assert sorted(row) == list(range(count))
        assert len({tuple(row) for row in passes}) > 1
    other = SemiSupervisedBatches(numbered_set(5), numbered_set(9), batch_size=2, steps_per_epoch=4, seed=4)
    assert any(not np.array_equal(other.indices(s)[1], steps[s][1]) for s in range(5))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"batch_size": 0}, "`batch_size` must be at least 1, found 0"),
        ({"unlabeled_batch_size": -1}, "`unlabeled_batch_size` must be at least 1"),
        ({"steps_per_epoch": 0}, "`steps_per_epoch` must be at least 1"),
        ({"seed": -1}, "`seed` must be 0 or more"),
        ({"unlabeled": ImageSet([], np.zeros((0, SIZE, SIZE, 1), "uint8"))}, "unlabeled has no images"),
        ({"unlabeled": ImageSet(["a"], np.zeros((1, 2, 2, 1), "uint8"))}, "bring them to one size"),
    ],
)
def test_wrong_arguments_of_batches(change, message):
    with pytest.raises(ValueError, match=message):
        SemiSupervisedBatches(**{"labeled": numbered_set(3), "unlabeled": numbered_set(3), **change})


def test_evaluation_shows_every_image_once_in_order():
    batches = [EvaluationBatches(numbered_set(7), 3)[i] for i in range(3)]
    assert [len(images) for images, _ in batches] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate([images for images, _ in batches])[:, 0, 0, 0], np.arange(7))
    np.testing.assert_array_equal(np.concatenate([t["label"] for _, t in batches]), np.arange(7) % 3)
    with pytest.raises(ValueError, match="no images"):
        EvaluationBatches(ImageSet([], np.zeros((0, 2, 2, 1), "uint8")))


class Code(keras.layers.Layer):
    """Packs the numbers of a batch's two labelled and two unlabelled images into one number a row."""

    def build(self, input_shape):
        self.unused = self.add_weight(shape=())

    def call(self, inputs):
        labeled, unlabeled = (ops.cast(inputs[key][:, 0, 0, 0], "float32") for key in ("labeled", "unlabeled"))
        places = ops.convert_to_tensor([1.0, 16.0])
        code = ops.sum(labeled * places) + 256 * ops.sum(unlabeled * places)
        return ops.zeros_like(labeled) + code + 0 * self.unused


class Last(keras.metrics.Metric):
    """The value of the last batch."""

    def __init__(self):
        super().__init__(name="last")
        self.value = self.add_weight(shape=(), initializer="zeros", name="value")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.value.assign(y_pred[0])

    def result(self):
        return self.value + 0.0


class Recorder(keras.callbacks.Callback):
    """Codes of the batches that were trained on; may stop with an error after some."""

    def __init__(self, fail_after=None):
        super().__init__()
        self.codes, self.fail_after = [], fail_after

    def on_train_batch_end(self, batch, logs=None):
        self.codes.append(int(logs["last"]))
        if len(self.codes) == self.fail_after:
            raise KeyboardInterrupt


def code_model():
    inputs = {key: keras.Input((SIZE, SIZE, 1), batch_size=2, name=key) for key in ("labeled", "unlabeled")}
    model = keras.Model(inputs, {"label": Code()(inputs)})
    model.compile(
        optimizer=keras.optimizers.SGD(0.0),
        loss={"label": lambda y_true, y_pred: 0 * y_pred},
        metrics={"label": [Last()]},
    )
    return model


def small_batches():
    return SemiSupervisedBatches(numbered_set(5, masks=False), numbered_set(9), batch_size=2, steps_per_epoch=4, seed=1)


def expected_codes(first, last):
    dataset = small_batches()
    pairs = [dataset.indices(step) for step in range(first, last)]
    return [int(a[0] + 16 * a[1] + 256 * (b[0] + 16 * b[1])) for a, b in pairs]


def test_fit_feeds_every_step_once_and_in_order_over_several_epochs():
    dataset, recorder = small_batches(), Recorder()
    code_model().fit(dataset, epochs=3, shuffle=False, verbose=0, callbacks=[recorder])
    assert recorder.codes == expected_codes(0, 12)
    assert dataset.epoch == 3


def test_fit_goes_on_where_the_last_fit_or_a_resumed_run_stopped():
    dataset, recorder, model = small_batches(), Recorder(), code_model()
    model.fit(dataset, epochs=1, shuffle=False, verbose=0, callbacks=[recorder])
    model.fit(dataset, epochs=1, shuffle=False, verbose=0, callbacks=[recorder])
    assert recorder.codes == expected_codes(0, 8)

    resumed, recorder = small_batches(), Recorder()
    resumed.epoch = 2
    code_model().fit(resumed, initial_epoch=2, epochs=4, shuffle=False, verbose=0, callbacks=[recorder])
    assert recorder.codes == expected_codes(8, 16)


def test_an_interrupted_epoch_can_be_repeated_from_its_start():
    dataset, model = small_batches(), code_model()
    with pytest.raises(KeyboardInterrupt):
        model.fit(dataset, epochs=3, shuffle=False, verbose=0, callbacks=[Recorder(fail_after=6)])
    dataset.epoch, recorder = 1, Recorder()
    model.fit(dataset, epochs=1, shuffle=False, verbose=0, callbacks=[recorder])
    assert recorder.codes == expected_codes(4, 8)


def test_from_arrays_converts_and_reuses_labeled_images_when_there_are_no_others():
    images = np.random.default_rng(0).uniform(0, 255, (3, SIZE, SIZE)).astype("float32")
    dataset = from_arrays(images, masks=np.ones((3, SIZE, SIZE, 1), bool), labels=[0, 1, 1], batch_size=3)
    inputs, targets = dataset[0]
    order = dataset.indices(0)[0]
    np.testing.assert_array_equal(inputs["labeled"][..., 0], np.rint(images)[order].astype("uint8"))
    assert targets["mask"].dtype == np.uint8 and targets["mask"].max() == 1
    assert len(dataset.unlabeled) == 3 and dataset.unlabeled.masks is None


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"images": np.full((2, 3, 3, 3), np.nan)}, r"'images\[0\]' holds NaN"),
        ({"images": np.full((2, 3, 3, 3), 300.0)}, r"images\[0\] holds values in 300.0..300.0; expected 0..255"),
        ({"images": np.full((2, 3, 3, 3), 0.5)}, "values in 0..1; expected 0..255"),
        ({"images": np.stack([np.full((3, 3, 3), v) for v in (200.0, 0.7)])}, r"images\[1\] holds values in 0..1"),
        ({"images": np.stack([np.full((3, 3, 3), v) for v in (0.0, -1.0)])}, r"images\[1\] holds values in -1.0..-1.0"),
        ({"images": np.zeros((2, 3, 3, 3)), "masks": np.zeros((2, 3, 3))}, "no pixel of the 2 masks"),
        ({"images": np.zeros((2, 3, 3, 3)), "masks": np.full((2, 3, 3), 0.5)}, "not classes"),
        ({"images": np.zeros((2, 3, 3, 3)), "masks": np.full((2, 3, 3), 9)}, r"'images\[0\]' holds \[9\]"),
        ({"images": np.zeros((2, 3, 3, 3)), "labels": [0.5, 1]}, "whole numbers"),
        ({"images": np.zeros((2, 3, 3, 3)), "labels": ["benign", "normal"]}, "`labels` must be whole numbers.*benign"),
    ],
)
def test_from_arrays_refuses_bad_values(arguments, message):
    with pytest.raises(ValueError, match=message):
        from_arrays(**{"labels": np.array([0, 1]), **arguments})


def with_areas(count, areas):
    images = numbered_set(count)
    return ImageSet(images.names, images.images, areas=np.array(areas, "int32"))


def test_areas_of_the_unlabelled_images_go_with_them():
    areas = [[0, 0, 4, i + 1] for i in range(3)]
    dataset = SemiSupervisedBatches(numbered_set(2), with_areas(3, areas).select(["image 2", "image 0"]), 1, 2)
    inputs, _ = dataset[0]
    right = {
        int(image[0, 0, 0]): area[3] for image, area in zip(inputs["unlabeled"], inputs["unlabeled_area"], strict=True)
    }
    assert right == {2: 3, 0: 1}
    with pytest.raises(ValueError, match="area of 'image 1' is"):
        with_areas(2, [[0, 0, 4, 4], [0, 0, 5, 4]])


def test_processes_share_out_the_batches_of_one():
    sets = numbered_set(5), numbered_set(7)
    whole = SemiSupervisedBatches(*sets, 4, 6, seed=1)
    shards = [SemiSupervisedBatches(*sets, 4, 6, seed=1, shard=(index, 2)) for index in range(2)]
    for step in range(5):
        for kind in range(2):
            dealt = np.sort(np.concatenate([shard.indices(step)[kind] for shard in shards]))
            np.testing.assert_array_equal(dealt, np.sort(whole.indices(step)[kind]))
    assert shards[1][0][0]["labeled"].shape[0] == 2 and shards[1][0][0]["unlabeled"].shape[0] == 3
    with pytest.raises(ValueError, match="batch_size=5"):
        SemiSupervisedBatches(*sets, 5, 6, shard=(0, 2))
    with pytest.raises(ValueError, match="shard"):
        SemiSupervisedBatches(*sets, 4, 4, shard=(2, 2))


def test_masks_of_0_and_255_alone_are_read_by_their_set(capsys):
    images, masks = np.zeros((3, 8, 8, 3), "uint8"), np.zeros((3, 8, 8), "uint8")
    masks[0, 2:5, 3:6] = 1
    np.testing.assert_array_equal(from_arrays(images, masks * 255).labeled.masks, masks)
    assert "read as background and lesion" in capsys.readouterr().out
    padded = masks.copy()
    padded[:, :2] = 255  # beside a lesion, 255 is what is unknown
    np.testing.assert_array_equal(from_arrays(images, padded).labeled.masks, padded)
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match="no pixel of the 3 masks"):
        from_arrays(images, masks * 255, num_classes=3)
    np.testing.assert_array_equal(from_arrays(images, masks > 0).labeled.masks, masks)
