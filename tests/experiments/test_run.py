"""Runs in a notebook: the folder that a command leaves, resumed to the bit, compared, and refused in a sentence."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_semimed import data, experiments
from keras_semimed.cli import export as export_command
from keras_semimed.evaluation import evaluate_images, report, summarize
from keras_semimed.experiments.runs import experiment, keeping, scores
from keras_semimed.files import read_sealed, read_table
from keras_semimed.models import ADMT, CPS, FixMatch, MeanTeacher, Supervised, recompute_statistics
from keras_semimed.saved import load_model
from recipes import train as command
from tests.models.common import image_set
from tests.recipes.test_folders import make_folder

EPOCHS, STEPS, SIZE = 3, 2, 32
NETWORK = {"image_size": SIZE, "encoder": "resnet_tiny", "decoder_filters": (8, 8, 8, 8, 8)}
FLAGS = (
    f"--method fixmatch --preset small --test 0.3 --image-size {SIZE} --steps {EPOCHS * STEPS} --epoch-steps {STEPS} "
    "--batch-size 2 --encoder resnet_tiny --weights none --decoder-filters 8,8,8,8,8"
).split()
RECORDED = ("metrics.csv", "images.csv", "images_own_size.csv", "split.txt")


@pytest.fixture(scope="module", autouse=True)
def without_report():
    """Reports and embeddings take seconds; the test of the report makes its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "report", lambda folder: None)
        patch.setattr(keeping, "collect_embeddings", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """12 images with masks, 8 without; no test part."""
    return make_folder(tmp_path_factory.mktemp("images") / "mine", masks=True, labels=False, test=False)


def batches(images: Path, seed: int = 0, **more):
    return data.from_folder(
        images, SIZE, test=0.3, batch_size=2, unlabeled_batch_size=2, steps_per_epoch=STEPS, seed=seed, **more
    )


def made(method=FixMatch, seed: int = 0, compiled: bool = True, **more):
    keras.utils.set_random_seed(seed)
    arguments = {"tasks": "segmentation", "total_steps": EPOCHS * STEPS, "preset": "small", "seed": seed, **more}
    model = method(**NETWORK, **arguments)
    if compiled:
        model.compile()
    return model


def fitted(folder: Path, images: Path, resume: bool = False, model=None, **more):
    train, test = batches(images)
    run = experiments.Run(folder, resume)
    return run.fit(made() if model is None else model, train, test, EPOCHS, verbose=0, **more)


@pytest.fixture(scope="module")
def one_go(images, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "one_go"
    fitted(folder, images)
    return folder


@pytest.fixture(scope="module")
def of_the_command(images, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "command"
    assert command.main([str(images), *FLAGS, "--output", str(folder)]) == 0
    return folder


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    return read_table(folder / name)


def assert_same(folder: Path, expected: Path) -> None:
    for name in RECORDED:
        assert (folder / name).read_bytes() == (expected / name).read_bytes(), name
    weights = [load_model(each / "model.keras").get_weights() for each in (folder, expected)]
    for found, wanted in zip(*weights, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_a_run_leaves_what_the_command_leaves(one_go, of_the_command):
    assert_same(one_go, of_the_command)
    left = [{path.name for path in folder.iterdir()} for folder in (of_the_command, one_go)]
    assert left[0] - left[1] == {"config.yaml"} and not left[1] - left[0]
    mine, its = (read_sealed(folder / "config.json") for folder in (one_go, of_the_command))
    assert mine["result"] == its["result"] and mine["split"] == its["split"]
    mine, its = mine["configuration"], its["configuration"]
    shared = mine.keys() & its.keys()
    # The command is told where the images are and which share to label, and leaves to the model what is not given; the
    # rest is the same by the same name.
    assert {name for name in shared if its[name] not in (None, mine[name])} == {"data", "labeled"}
    assert len(shared) > 30


def test_an_export_takes_statistics_anew_from_the_images_of_the_run(
    images, one_go, of_the_command, tmp_path, capsys, monkeypatch
):
    flags = ["--recompute-statistics"]
    assert export_command.main([str(of_the_command), str(tmp_path / "plain.keras")]) == 0
    assert export_command.main([str(of_the_command), str(tmp_path / "new.keras"), *flags]) == 0
    model, (train, test) = load_model(of_the_command / "model.keras"), batches(images)
    plain = np.concatenate([np.asarray(part.images[:]) for part in (train.labeled, train.unlabeled)])
    picture = np.asarray(test.image_set.images[:2])
    before = model.predict(picture, verbose=0)["mask"]
    recompute_statistics(model, plain)
    expected = model.predict(picture, verbose=0)["mask"]
    assert np.abs(expected - before).max() > 1e-3
    for name, wanted in (("plain", before), ("new", expected)):
        found = keras.saving.load_model(tmp_path / f"{name}.keras").predict(picture, verbose=0)["mask"]
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert "dice" in (tmp_path / "plain.keras.md").read_text()  # the scores of that model, not of the other
    assert "Scores: none noted" in (tmp_path / "new.keras.md").read_text()
    capsys.readouterr()
    for where, said in (
        (of_the_command / "model.keras", "needs the folder of a run, found the file"),
        (one_go, "config.yaml is not there; the images are read anew for a run of `semimed train` alone"),
    ):
        assert export_command.main([str(where), str(tmp_path / "none.keras"), *flags]) == 2
        assert said in capsys.readouterr().err
    picture_file = next((images / "unlabeled").iterdir())
    kept = picture_file.read_bytes()
    picture_file.write_bytes(next((images / "labeled" / "images").iterdir()).read_bytes())
    try:
        assert export_command.main([str(of_the_command), str(tmp_path / "none.keras"), *flags]) == 2
    finally:
        picture_file.write_bytes(kept)
    assert "are not those that the run has learnt from" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    moved = shutil.copytree(of_the_command, tmp_path / "moved")
    text = (moved / "config.yaml").read_text()
    (moved / "config.yaml").write_text(text.replace(str(images), "gone"))
    assert export_command.main([str(moved), str(tmp_path / "none.keras"), *flags]) == 2
    assert "seen from the folder that the run was started in: data: 'gone' is none of" in capsys.readouterr().err
    assert not (tmp_path / "none.keras").exists()


def test_a_result_holds_history_and_scores(images, one_go):
    model = made()
    found = fitted(one_go, images, resume=True, model=model)
    table = rows(one_go, "metrics.csv")
    assert found.history["loss"] == [float(row["loss"]) for row in table] and len(table) == EPOCHS
    own = read_sealed(one_go / "config.json")["result_own_size"]["last"]
    assert found.scores == own and 0 <= own["dice"] <= 1
    assert repr(found) == f"Result(path={one_go!r})"
    # The model that was handed in is the one that was trained before.
    for weight, saved in zip(model.get_weights(), load_model(one_go / "model.keras").get_weights(), strict=True):
        np.testing.assert_array_equal(weight, saved)


class Interrupting(keras.callbacks.Callback):
    def __init__(self, step: int) -> None:
        super().__init__()
        self.left = step

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def test_an_interrupted_run_goes_on_to_the_same_bits(images, one_go, tmp_path, capsys):
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        fitted(folder, images, callbacks=[Interrupting(2 * STEPS)])
    assert len(rows(folder, "metrics.csv")) == 1 and "resume=True" in capsys.readouterr().out
    with pytest.raises(
        ValueError, match="holds an unfinished run of this configuration; add resume=True to go on with it"
    ):
        fitted(folder, images)
    fitted(folder, images, resume=True)
    assert "resuming after epoch 1" in capsys.readouterr().out
    assert_same(folder, one_go)
    assert not list(folder.glob("checkpoint-*"))


def test_a_teacher_and_a_validation_part_are_scored_too(images, tmp_path):
    train, test = batches(images)
    half = len(test.image_set) // 2
    validation, rest = (
        data.EvaluationBatches(test.image_set.select(names))
        for names in (test.image_set.names[:half], test.image_set.names[half:])
    )
    folder = tmp_path / "run"
    found = experiments.Run(folder).fit(made(MeanTeacher), train, rest, 1, validation=validation, verbose=0)
    assert {row["weights"] for row in rows(folder, "images.csv")} == {"last", "teacher"}
    config = read_sealed(folder / "config.json")
    assert found.scores == config["result_own_size"]["teacher"]
    assert config["split"]["sizes"]["validation"] == half and "val_dice" in found.history
    assert f"validation\t{validation.image_set.names[0]}\n" in (folder / "split.txt").read_text()
    assert load_model(folder / "model.keras").provenance.split == config["split"]["hash"]


def test_the_scores_are_those_of_the_model_that_is_saved(images, tmp_path):
    """AD-MT predicts with its student, whatever its teachers score."""
    found = fitted(tmp_path, images, model=made(ADMT, teacher_momentum=0.5))
    weights = list(dict.fromkeys(row["weights"] for row in rows(tmp_path, "images.csv")))
    assert weights == ["teacher", "last"]  # those that count stand last
    saved = load_model(tmp_path / "model.keras")
    test = batches(images)[1]
    dice = summarize(evaluate_images(saved, test))["dice"]
    assert dice == pytest.approx(read_sealed(tmp_path / "config.json")["result"]["last"]["dice"], abs=1e-6)
    assert found.scores == read_sealed(tmp_path / "config.json")["result_own_size"]["last"]
    assert saved.provenance.scores == pytest.approx(found.scores)
    model = made(ADMT, teacher_momentum=0.5)
    fitted(tmp_path, images, resume=True, model=model)
    assert not model.use_teacher and not saved.use_teacher


@pytest.mark.parametrize("names", [(), ("benign", "malignant")])
def test_image_classes_without_names_and_unknown_ones_are_scored_and_drawn(names, tmp_path):
    """Of six test images one has an unknown class."""

    def images(count, first):
        found = image_set(count, first)
        labels = np.where(np.arange(count) == 2, 255, found.labels).astype("int32")
        return dataclasses.replace(found, labels=labels, class_names=names)

    train = data.SemiSupervisedBatches(images(6, 0), images(6, 1), batch_size=2, steps_per_epoch=STEPS)
    model = made(tasks="both", num_labels=2)
    found = experiments.Run(tmp_path / "run").fit(model, train, data.EvaluationBatches(images(6, 2)), 1, verbose=0)
    told = [row["label"] for row in rows(tmp_path / "run", "images.csv")]
    assert told == ["0", "1", "", "1", "0", "1"] and 0 <= found.scores["accuracy"] <= 1
    assert list((tmp_path / "run" / "overlays").iterdir())


def test_images_are_scored_so_many_at_once_as_the_batches_say(images, tmp_path, monkeypatch):
    sizes = []
    monkeypatch.setattr(scores, "EvaluationBatches", lambda data, size: sizes.append(size) or given(data, size))
    train, test = batches(images)
    given = type(test)
    experiments.Run(tmp_path / "run").fit(made(Supervised), train, given(test.image_set, 3), 1, verbose=0)
    assert sizes == [3]


def test_the_report_is_written(images, one_go, monkeypatch):
    monkeypatch.setattr(experiment, "report", report)
    fitted(one_go, images, resume=True)
    page = (one_go / "report.html").read_text(encoding="utf-8")
    assert "notebook: fixmatch" in page and "optimizer.optimizer_map.default_optimizer" in page
    (one_go / "report.html").unlink()


def test_runs_and_commands_are_paired(images, one_go, of_the_command, tmp_path, capsys):
    folder = tmp_path / "supervised"
    fitted(folder, images, model=made(Supervised))
    run, files = experiments.Run(folder), {"csv": tmp_path / "table.csv"}
    table = run.compare([one_go, of_the_command], files=files)
    assert [row["group"] for row in table] == ["supervised", "one_go", "command"]
    assert "paired_images" not in table[0]
    first, second = ({name: value for name, value in row.items() if name != "group"} for row in table[1:])
    assert first == second and first["paired_images"] == len(batches(images)[1].image_set)
    assert "one_go" in capsys.readouterr().out and len(rows(tmp_path, "table.csv")) == 3
    by_name = experiments.compare({"a": run, "b": [one_go]}, baseline="b")
    assert by_name[0]["dice_difference"] == pytest.approx(-first["dice_difference"])


def test_arrays_that_share_names_are_called_by_their_part(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (6, SIZE, SIZE, 3)).astype("uint8")
    masks = np.zeros((6, SIZE, SIZE), "uint8")
    masks[:, 5:20, 5:20] = 1
    train = data.from_arrays(pixels[:4], masks[:4], batch_size=2, steps_per_epoch=STEPS)
    test = data.EvaluationBatches(data.from_arrays(pixels[4:], masks[4:]).labeled)
    experiments.Run(tmp_path / "run").fit(made(), train, test, 1, verbose=0, data="squares")
    assert {row["name"] for row in rows(tmp_path / "run", "images.csv")} == {"test/images[0]", "test/images[1]"}
    text = (tmp_path / "run" / "split.txt").read_text()
    assert "unlabeled\tunlabeled/images[3]" in text and "labeled\tlabeled/images[3]" in text
    assert read_sealed(tmp_path / "run" / "config.json")["configuration"]["data"] == "squares"
    with pytest.raises(ValueError, match=r"`test` holds 4 images that `train` has too, such as 'images\[0\]'"):
        experiments.Run(tmp_path / "other").fit(made(), train, data.EvaluationBatches(train.labeled), 1)


def test_a_split_of_a_data_set_is_the_command_s(tmp_path):
    train, test, split = data.load("phantom_ultrasound", labeled=8, image_size=SIZE, batch_size=2)
    train.steps_per_epoch = STEPS
    model = made(Supervised)
    experiments.Run(tmp_path / "run").fit(model, train, test, 1, split=split, verbose=0)
    config = read_sealed(tmp_path / "run" / "config.json")
    assert config["split"]["hash"] == split.hash and config["split"]["sizes"]["validation"] == len(split.validation)
    other = data.Split(split.labeled, split.unlabeled, split.test, split.validation)
    with pytest.raises(ValueError, match="`split` .* is not that of `train` and `test`"):
        experiments.Run(tmp_path / "other").fit(made(Supervised), train, test, 1, split=other)


def wrong(images: Path, **changed):
    """Calls `fit` with something wrong."""
    train, test = batches(images)
    folder = changed.pop("folder", images.parent / "never")
    given = {"model": made(), "train": train, "test": test, "epochs": 1, "verbose": 0, **changed}
    experiments.Run(folder).fit(**given)


def test_what_is_wrong_is_said_in_a_sentence_and_nothing_is_written(images, one_go):
    train, test = batches(images)
    bare = data.EvaluationBatches(data.ImageSet(test.image_set.names, test.image_set.images))
    small = data.EvaluationBatches(
        data.ImageSet(test.image_set.names, test.image_set.images[:, :16, :16], test.image_set.masks[:, :16, :16])
    )
    trained = made()
    trained.fit(train, epochs=1, verbose=0)
    cases = {
        "`model` must be a method of keras_semimed.models, .* found Sequential": {"model": keras.Sequential()},
        r"`model` is not compiled; call model.compile\(\) first": {"model": made(compiled=False)},
        "`model` has been trained for 2 steps": {"model": trained},
        "`train` must be a SemiSupervisedBatches, found tuple": {"train": (train, test)},
        "`test` must be an EvaluationBatches, found SemiSupervisedBatches": {"test": train},
        "`test` has no masks to score by": {"test": bare},
        r"`test` has images of \(16, 16, 3\), `train` of \(32, 32, 3\)": {"test": small},
        "`validation` must be an EvaluationBatches, found int": {"validation": 1},
        "`validation` has no masks": {"validation": bare},
        "`epochs` must be": {"epochs": 0},
        "`train` brings no truth": {"model": made(pseudo_labels="truth")},
        "belongs to another configuration.*method: 'fixmatch' there, 'cps' now.*settings that this folder": {
            "model": made(CPS),
            "epochs": EPOCHS,
            "folder": one_go,
        },
        "holds a finished run of this configuration; add resume=True to see its result, or choose another folder": {
            "epochs": EPOCHS,
            "folder": one_go,
        },
        "is a file, not the folder of a run": {"folder": one_go / "images.csv"},
    }
    before = {path: path.read_bytes() for path in one_go.rglob("*") if path.is_file()}
    for sentence, changed in cases.items():
        with pytest.raises(ValueError, match=sentence) as error:
            wrong(images, **changed)
        assert "--" not in str(error.value)
    assert not (images.parent / "never").exists()
    assert {path: path.read_bytes() for path in one_go.rglob("*") if path.is_file()} == before


def test_what_cannot_be_compared_is_said_in_a_sentence(images, one_go, tmp_path):
    run = experiments.Run(one_go)
    for runs, sentence in (
        ([], "`runs` has no run"),
        ([one_go, one_go], "two folders have one name"),
        ([one_go, 3], "must hold runs or their folders, found int"),
        ({"a": []}, "a group without one"),
        ([one_go, tmp_path / "none"], "is not the output folder of a run"),
    ):
        with pytest.raises(ValueError, match=sentence):
            experiments.compare(runs)
    with pytest.raises(ValueError, match="`baseline` 'b' is none of the groups"):
        experiments.compare([run], baseline="b")
    with pytest.raises(ValueError, match="`files` can be of"):
        experiments.compare([run], files={"html": "a.html"})
    train, test = batches(images, seed=1)
    experiments.Run(tmp_path / "other").fit(made(Supervised), train, test, 1, seed=0, verbose=0)
    with pytest.raises(ValueError, match="differ in their split hash"):
        run.compare(tmp_path / "other")


def test_a_training_that_diverges_is_named(images, tmp_path):
    model = made(compiled=False)
    model.compile(model.default_optimizer(learning_rate=1e30))
    with pytest.raises(ValueError, match="diverged at step .* Try a lower learning rate, with another folder$"):
        fitted(tmp_path / "run", images, model=model)
