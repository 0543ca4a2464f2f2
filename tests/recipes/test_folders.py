"""One's own folder in the place of a data set, from the shell."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_semimed.data.check import main as check
from keras_semimed.evaluation import report
from keras_semimed.files import read_sealed, read_table
from keras_semimed.saved import load_model
from recipes import train

CLASSES = ("much", "none", "some")  # sorted, as their labels are


def make_folder(path: Path, masks: bool = False, labels: bool = True, test: bool = True) -> Path:
    """12 labelled, 8 unlabelled and 6 test images of three classes: how far down a bright square stands."""
    rng, rows = np.random.default_rng(0), []
    parts = {"labeled/images": 12, "unlabeled": 8, **({"test/images": 6} if test else {})}
    for part, count in parts.items():
        (path / part).mkdir(parents=True)
        for index in range(count):
            image, mask = rng.integers(0, 60, (40, 40)).astype("uint8"), np.zeros((40, 40), "uint8")
            place = slice(4 + 8 * (index % 3), 18 + 8 * (index % 3)), slice(5, 25)
            image[place] += 120
            mask[place] = 255
            Image.fromarray(image).save(path / part / f"{index}.png")
            if part != "unlabeled":
                rows.append((f"{part}/{index}.png", CLASSES[index % 3]))
                if masks:
                    (path / part).with_name("masks").mkdir(exist_ok=True)
                    Image.fromarray(mask).save((path / part).with_name("masks") / f"{index}.png")
    if labels:
        with open(path / "labels.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("file", "class"), *rows])
    return path


def run(folder: Path, *words: str) -> int:
    small = "--encoder resnet_tiny --weights none --image-size 32 --steps 2 --batch-size 3 --pseudo-labels 0".split()
    return train.main([str(folder), *small, "--output", str(folder / "run"), *words])


def test_images_with_a_class_and_no_masks_are_trained_on_and_scored(tmp_path, capsys):
    folder = make_folder(tmp_path / "mine")
    assert run(folder, "--method", "fixmatch", "--label-weights", "balanced") == 0
    config = read_sealed(folder / "run" / "config.json", sealed=False)
    chosen = config["configuration"]
    assert (chosen["tasks"], chosen["split"], chosen["label_weights"]) == ("classification", "folder", "balanced")
    assert config["split"]["sizes"] == {"labeled": 12, "unlabeled": 8, "validation": 0, "test": 6}
    assert {"accuracy", "balanced_accuracy", "auroc"} <= set(config["result"]["last"])
    assert "dice" not in config["result"]["last"]
    split = (folder / "run" / "split.txt").read_text()
    assert "test\ttest/0" in split and "labeled\tlabeled/0" in split  # the parts share names
    printed = capsys.readouterr().out
    assert "3 classes" in printed or "much" in printed
    assert "balanced_accuracy" in read_table(folder / "run" / "metrics.csv")[0] and "| balanced accuracy |" in printed


def test_where_all_images_are_annotated_hidden_ones_are_learnt_from_without_targets(tmp_path, capsys):
    folder = make_folder(tmp_path / "mine", masks=True, labels=False)
    shutil.rmtree(folder / "unlabeled")
    assert check([str(folder)]) == 0
    assert "give --labeled 0.5" in capsys.readouterr().out
    assert run(folder, "--method", "fixmatch") == 2
    assert "has no folder unlabeled/" in capsys.readouterr().err and not (folder / "run").exists()
    assert run(folder, "--method", "fixmatch", "--labeled", "5") == 0
    config = read_sealed(folder / "run" / "config.json", sealed=False)
    assert config["split"]["sizes"] == {"labeled": 5, "unlabeled": 7, "validation": 0, "test": 6}
    assert run(folder, "--method", "supervised", "--output", str(folder / "all")) == 0  # which looks at no others
    config = read_sealed(folder / "all" / "config.json", sealed=False)
    assert config["split"]["sizes"] == {"labeled": 12, "unlabeled": 0, "validation": 0, "test": 6}


def test_masks_alone_and_both_are_found(tmp_path):
    folder = make_folder(tmp_path / "masks", masks=True, labels=False)
    assert run(folder, "--method", "supervised") == 0
    config = read_sealed(folder / "run" / "config.json", sealed=False)
    assert config["configuration"]["tasks"] == "segmentation" and "dice" in config["result"]["last"]


@pytest.mark.parametrize(
    "words, said",
    [
        ("--method u2pl", "u2pl can do segmentation, .* has targets for classification"),
        ("--method fixmatch --labeled 50", "--labeled 50, but only 12 training images can be labelled"),
        ("--method fixmatch --split paper", "is a folder of your own, which has no --split; leave it out"),
        ("--method fixmatch --test 0.2", "--test must be left out: the folder has a part test/ of its own"),
        ("--method fixmatch --folds 3 --fold 0", "--folds must be left out: the folder has a part test/"),
        ("--method fixmatch --manual-dir . --cvc-dir .", "has no --manual-dir, --cvc-dir"),
        (
            "--method interlude --labeled-batch-size 2",
            "--labeled-batch-size 2 with --batch-size 3: the unlabelled .* multiple of the 2 labelled ones, found 3",
        ),
        ("--method fixmatch --validate", "--validate: .* has no validation part"),
        ("--method fixmatch --mask-classes type", "--mask-classes type: .* leave it out"),
        ("--method fixmatch --num-labels 4", r"`num_labels`=4, but no labelled image has the class 3"),
        (
            "--method fixmatch --label-weights 1,2",
            "`label_weights` must be .* 3 image classes, found .*--label-weights",
        ),
        ("--method fixmatch --label-weights even", "--label-weights: expected numbers with commas between or one of"),
    ],
)
def test_what_does_not_fit_a_folder_is_named_before_training(tmp_path, capsys, words, said):
    folder = make_folder(tmp_path / "mine")
    assert run(folder, *words.split()) == 2
    error = capsys.readouterr().err
    assert re.search(said, error), error
    assert not (folder / "run").exists()


def painted(folder: Path) -> Path:
    """The same with masks called NAME_mask that hold 0, 100 and 200."""
    for part in ("labeled", "test"):
        for file in sorted((folder / part / "masks").iterdir()):
            mask = np.asarray(Image.open(file)) // 255 * 200
            mask[20:, :10] //= 2
            Image.fromarray(mask).save(file.with_name(f"{file.stem}_mask.png"))
            file.unlink()
    return folder


def test_what_is_said_about_the_files_of_a_folder_counts_in_training_and_elsewhere(tmp_path, capsys):
    folder = painted(make_folder(tmp_path / "mine", masks=True))
    place = painted(make_folder(tmp_path / "elsewhere", masks=True))
    for file in (place / "test" / "images").iterdir():  # other pixels, of another shape
        Image.fromarray(255 - np.asarray(Image.open(file))[4:]).save(file)
        mask = file.parents[1] / "masks" / f"{file.stem}_mask.png"
        Image.fromarray(np.asarray(Image.open(mask))[4:]).save(mask)
    assert run(folder, "--method", "supervised", "--mask-name", "{}_mask") == 2
    assert "which value is which class with mask_values (here: --mask-value 255=1)" in capsys.readouterr().err
    words = ["--method", "supervised", "--mask-name", "{}_mask", "--mask-value", "0=0", "100=1", "200=2"]
    words += ["--keep-aspect", "--mask-class-names", "background", "cyst", "tumour", "--class-names", *CLASSES[::-1]]
    assert run(folder, *words, "--num-classes", "3", "--test-on", str(place)) == 0
    config = read_sealed(folder / "run" / "config.json", sealed=False)
    chosen = config["configuration"]
    assert chosen["mask_value"] == ["0=0", "100=1", "200=2"] and chosen["num_classes"] == 3
    rules = config["reading"]
    assert rules["class_names"] == list(CLASSES[::-1]) and rules["keep_aspect"]
    assert rules["mask_class_names"] == ["background", "cyst", "tumour"]
    assert config["result"]["last on elsewhere"]["images"] == 6
    assert run(folder, "--config", str(folder / "run" / "config.yaml"), "--resume") == 0
    assert run(folder, "--config", str(folder / "run" / "config.yaml"), "--resume", "--mask-value", "0=0", "100=1") == 2
    assert "which mask_values does not declare" in capsys.readouterr().err


def test_what_is_said_about_files_is_refused_before_they_are_read(tmp_path, capsys):
    folder = make_folder(tmp_path / "mine", masks=True)
    for words, said in {
        "--mask-name mask": "--mask-name must hold {}",
        "--mask-value white=1": "'white=1' is no mask value; expected 255=1",
        "--mask-value 255=1 255=0": "mask_values: 255 is class 1 and 0; give one class (here: --mask-value 255=1)",
        "--mask-value 255=2 --num-classes 2": "mask_values: 255 is class 2; expected 0..1",
        "--intensity-range 0": "--intensity-range must be (value of black, larger value of white)",
        "--intensity-range 0 much": "--intensity-range: expected a number, found 'much'",
        "--num-classes 1": "--num-classes must be at least 2",
        "--mask-class-names cyst": "--mask-class-names must be 2 different names",
        "--class-names much Much": "--class-names: 'much' and 'Much' are one name",
    }.items():
        assert run(folder, "--method", "fixmatch", *words.split()) == 2
        assert said in capsys.readouterr().err, words
    assert train.main("busi --method fixmatch --keep-aspect --mask-value 0=0".split()) == 2
    assert "--keep-aspect, --mask-value is for the files of a folder of one's own" in capsys.readouterr().err
    assert not (folder / "run").exists()


def test_a_batch_that_a_later_stage_cannot_learn_from_is_named_before_the_first(tmp_path, capsys):
    folder = make_folder(tmp_path / "mine")
    words = "--encoder resnet_tiny --weights none --image-size 32 --stages supervised:2,interlude:2 --batch-size 3"
    output = ["--output", str(folder / "run")]
    assert train.main([str(folder), *words.split(), *output, "--labeled-batch-size", "2"]) == 2
    assert "multiple of the 2 labelled ones, found 3" in capsys.readouterr().err
    assert not (folder / "run").exists()


def relabel(folder: Path, old: str, new: str) -> None:
    text = (folder / "labels.csv").read_text(encoding="utf-8")
    (folder / "labels.csv").write_text(re.sub(old, new, text, flags=re.MULTILINE), encoding="utf-8")


def test_one_class_is_too_few_to_learn_and_no_obstacle_to_masks(tmp_path, capsys):
    folder = make_folder(tmp_path / "mine", masks=True)
    relabel(folder, ",(much|some)$", ",none")
    assert run(folder, "--method", "fixmatch") == 2
    error = capsys.readouterr().err
    assert "labels.csv has the one class 'none'; give images of at least two, or learn the masks alone" in error
    assert not (folder / "run").exists() and check([str(folder)]) == 0
    assert run(folder, "--method", "supervised", "--tasks", "segmentation") == 0
    bare = make_folder(tmp_path / "bare")
    relabel(bare, ",(much|some)$", ",none")
    assert check([str(bare)]) == 1
    assert "labels.csv: the one class is 'none'; image classes are learnt from two on" in capsys.readouterr().out


def test_a_class_of_test_images_alone_is_named_by_the_check_and_by_the_run(tmp_path, capsys):
    folder = make_folder(tmp_path / "mine")
    relabel(folder, "^test/images/0.png,much$", "test/images/0.png,rare")
    assert check([str(folder)]) == 1
    assert "labels.csv: no labelled image has the class rare; label at least one" in capsys.readouterr().out
    assert run(folder, "--method", "fixmatch") == 2
    assert "no labelled image has the class 2 (rare)" in capsys.readouterr().err
    masks = make_folder(tmp_path / "masks", masks=True)
    relabel(masks, "^test/images/0.png,much$", "test/images/0.png,rare")
    assert check([str(masks)]) == 0  # its masks can be learnt


def untested(folder: Path) -> None:
    shutil.rmtree(folder / "test")
    unlisted(folder)


def unscored(folder: Path) -> None:
    shutil.rmtree(folder / "test" / "masks")


def blackened(folder: Path) -> None:
    for file in (folder / "labeled" / "masks").iterdir():
        Image.fromarray(np.zeros((40, 40), "uint8")).save(file)


def unlisted(folder: Path) -> None:
    relabel(folder, "^test/.*\n", "")


@pytest.mark.parametrize(
    "masks, labels, spoil, needs",
    [
        (True, True, untested, ["--test 0.3"]),
        (True, True, blackened, ["--tasks classification"]),
        (True, True, unlisted, ["--tasks segmentation"]),
        (True, True, unscored, ["--tasks classification"]),
        (True, False, blackened, None),
        (False, True, unlisted, None),
    ],
    ids=["no test", "empty masks", "no test classes", "no test masks", "empty masks alone", "no test classes alone"],
)
def test_what_the_check_asks_for_is_what_a_run_needs(tmp_path, capsys, masks, labels, spoil, needs):
    folder = make_folder(tmp_path / "mine", masks=masks, labels=labels)
    spoil(folder)
    assert check([str(folder)]) == (0 if needs else 1)
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith("training can start; give " if needs else "training cannot start")
    assert re.findall(r"give (--\w+ [\w.]+)", said) == (needs or [])
    assert run(folder, "--method", "supervised") == 2
    assert "error: " in capsys.readouterr().err and not (folder / "run").exists()
    if needs:
        assert run(folder, "--method", "supervised", *" ".join(needs).split()) == 0


def test_names_in_any_script_and_with_spaces_get_into_the_report(tmp_path):
    folder = make_folder(tmp_path / "mine")
    relabel(folder, "much", '"sehr viel, <größer>"')
    assert run(folder, "--method", "shrinkmatch", "--label-weights", "balanced") == 0
    report(folder / "run")
    page = (folder / "run" / "report.html").read_text(encoding="utf-8")
    assert "sehr viel, &lt;größer&gt;" in page and "Confusion matrix" in page
    assert run(folder, "--method", "shrinkmatch", "--label-weights", "balanced", "--resume") == 0


def test_another_hospital_with_classes_and_no_masks_is_scored(tmp_path, capsys):
    folder, place = make_folder(tmp_path / "mine"), make_folder(tmp_path / "elsewhere")
    for file in (place / "test" / "images").iterdir():  # other pixels
        Image.fromarray(255 - np.asarray(Image.open(file))).save(file)
    table = (place / "labels.csv").read_text().splitlines()
    lines = [f"{line};{'scanner' if not index else 'AB'[index % 2]}" for index, line in enumerate(table)]
    (place / "labels.csv").write_text("\n".join(["sep=;", *lines]).replace(",", ";"))  # as Excel writes it
    assert run(folder, "--method", "interlude", "--test-on", str(place)) == 0
    result = read_sealed(folder / "run" / "config.json", sealed=False)["result"]
    assert result["last on elsewhere"]["images"] == 6 and "accuracy" in result["last on elsewhere, much"]
    assert sum(result[f"last on elsewhere, scanner {name}"]["images"] for name in "AB") == 6
    (place / "labels.csv").unlink()
    (place / "test" / "masks").mkdir()
    for index in range(6):
        Image.fromarray(np.zeros((40, 40), "uint8")).save(place / "test" / "masks" / f"{index}.png")
    assert run(folder, "--method", "interlude", "--test-on", str(place), "--seed", "1") == 2
    assert "elsewhere has no image classes to score by" in capsys.readouterr().err


def make_declared(path: Path) -> Path:
    """Images of 12 bits with masks of two lesions, 120 and 240, called otherwise than the images."""
    for part, count in {"labeled/images": 6, "unlabeled": 4, "test/images": 3}.items():
        (path / part).mkdir(parents=True)
        for index in range(count):
            image = np.random.default_rng([len(part), index]).integers(0, 400, (40, 60)).astype("uint16")
            mask = np.zeros((40, 60), "uint8")
            mask[5:20, 5 + index : 30], mask[25:35, 10:50] = 120, 240
            image[mask == 120] += 3000
            Image.fromarray(image).save(path / part / f"img_{index}.png")
            if part != "unlabeled":
                (path / part).with_name("masks").mkdir(exist_ok=True)
                Image.fromarray(mask).save((path / part).with_name("masks") / f"mask_{index}.png")
    return path


NAMED = ("--mask-name", "img_{} -> mask_{}")
VALUED = ("--mask-value", "0=0", "120=1", "240=2", "--mask-class-names", "background", "cyst", "solid")


def test_how_the_files_are_read_is_declared_by_flags_and_kept(tmp_path, capsys):
    folder, place = make_declared(tmp_path / "mine"), make_declared(tmp_path / "elsewhere")
    for file in (place / "test" / "images").iterdir():  # other pixels
        Image.fromarray(np.asarray(Image.open(file))[::-1]).save(file)
    declared = (*NAMED, *VALUED, "--intensity-range", "0", "4095")
    words = ("--method", "supervised", "--keep-aspect", "--test-on", str(place))
    assert run(folder, *words, *declared) == 0
    config = read_sealed(folder / "run" / "config.json", sealed=False)
    expected = {"keep_aspect": True, "intensity_range": [0, 4095], "mask_class_names": ["background", "cyst", "solid"]}
    assert expected.items() <= config["reading"].items() and config["result"]["last on elsewhere"]["images"] == 3
    assert (
        expected["intensity_range"]
        == load_model(folder / "run" / "model.keras").get_config()["reading"]["intensity_range"]
    )
    again = ("--config", str(folder / "run" / "config.yaml"), "--output", str(folder / "again"))
    assert train.main(list(again)) == 0
    found = read_sealed(folder / "again" / "config.json", sealed=False)
    assert found["reading"] == config["reading"] and found["split"] == config["split"]
    assert check([str(folder), *NAMED, *VALUED[:4], "--intensity-range", "0", "4095"]) == 0


@pytest.mark.parametrize(
    "words, said",
    [
        ((), "img_0.png: the image has no mask"),
        (NAMED, r"holds \[120, 240\]; .*--mask-value"),
        ((*NAMED, "--num-classes", "3"), r"holds \[120, 240\]; expected classes 0..2"),
        ((*NAMED, *VALUED), r"give intensity_range=.*--intensity-range"),
        ((*NAMED, "--mask-value", "0=0", "120:1"), "'120:1' is no mask value; expected 255=1"),
        ((*NAMED, *VALUED[:4], "--mask-class-names", "a", "b"), "--mask-class-names must be 3 different names"),
        (("--intensity-range", "5", "5"), "--intensity-range"),
        (("--mask-name", "mask"), "--mask-name must hold {} for the image's name"),
    ],
)
def test_what_is_declared_wrongly_names_the_flag(tmp_path, capsys, words, said):
    folder = make_declared(tmp_path / "mine")
    assert run(folder, "--method", "supervised", *words) == 2
    error = capsys.readouterr().err
    assert re.search(said, error) and len(error.splitlines()) == 1, error
    assert not (folder / "run").exists()


def test_a_data_set_is_read_as_it_is(capsys):
    assert train.main(["phantom_ultrasound", "--method", "supervised", "--keep-aspect", *NAMED]) == 2
    assert "--keep-aspect, --mask-name is for the files of a folder of one's own" in capsys.readouterr().err


def test_parts_that_are_missing_are_named(tmp_path, capsys):
    folder = make_folder(tmp_path / "mine", test=False)
    assert run(folder, "--method", "fixmatch") == 2
    assert (
        f"{folder} has no folder test/; cut a test part off the annotated images with --test 0.3"
        in capsys.readouterr().err
    )
    bare = make_folder(tmp_path / "bare", labels=False)
    assert run(bare, "--method", "fixmatch") == 2
    assert "has neither labeled/masks/ nor labels.csv" in capsys.readouterr().err
    unscored = make_folder(tmp_path / "unscored")
    rows = (unscored / "labels.csv").read_text().splitlines()
    (unscored / "labels.csv").write_text("\n".join(row for row in rows if not row.startswith("test/")))
    assert run(unscored, "--method", "fixmatch") == 2
    assert "has no rows of labels.csv for the images in test; nothing could be scored" in capsys.readouterr().err
    outside = make_folder(tmp_path / "outside")
    text = (outside / "labels.csv").read_text().replace("none", " ", 1)
    (outside / "labels.csv").write_text(text)
    assert run(outside, "--method", "fixmatch") == 2
    assert "labels.csv" in capsys.readouterr().err


def test_masks_are_scored_at_the_network_s_size_and_at_the_files_own(tmp_path, capsys):
    folder = make_folder(tmp_path / "mine", masks=True)
    table = (folder / "labels.csv").read_text().splitlines()
    measured = [f"{row},{'0.5' if index % 2 else ''}" for index, row in enumerate(table[1:])]
    (folder / "labels.csv").write_text("\n".join([f"{table[0]},spacing_mm", *measured]))
    words = ["--method", "supervised", "--tasks", "segmentation", "--network", "unet", "--decoder-filters", "8,8,8,8,8"]
    assert run(folder, *words) == 0
    printed, output = capsys.readouterr().out, folder / "run"
    small, own = (read_table(output / name) for name in ("images.csv", "images_own_size.csv"))
    assert [row["name"] for row in small] == [row["name"] for row in own]
    # A lesion of 14 x 20 pixels of a file of 40 x 40, of which the network sees 32 x 32.
    assert [float(row["lesion_size"]) for row in own] == [280] * 6
    assert all(160 < float(row["lesion_size"]) < 200 for row in small)
    assert [row["hd95_mm"] != "" for row in own] == [False, True] * 3 and "hd95_mm" not in small[0]
    for row in own[1::2]:
        assert float(row["hd95_mm"]) == pytest.approx(float(row["hd95"]) / 2)
    config = read_sealed(output / "config.json", sealed=False)
    result = config["result_own_size"]["last"]
    assert result["dice"] == pytest.approx(np.mean([float(row["dice"]) for row in own]))
    assert (result["images_in_mm"], result["images"]) == (3, 6) and "nsd_at_1_mm" not in config["result"]["last"]
    assert "images_own_size.csv" in config["files"]
    places = [
        printed.index(f"result on the test part {name} (6 images")
        for name in ("at the files' own size", "at the network's size, 32 x 32 pixels")
    ]
    assert places == sorted(places) and "NSD at 1 mm" in printed and printed.count("An image that is empty") == 1
    assert "In mm: the 3 of 6 images" in printed and "network's size alone" not in printed
    page = report(output).read_text(encoding="utf-8")
    assert page.index("<caption>at the files&#39; own size<") < page.index("size, 32 x 32 pixels</caption>")
    # The cases that the report shows are those of its first table.
    cases = np.load(output / "cases.npz")
    worst = min(own, key=lambda row: float(row["dice"]))
    assert cases["names"][0] == worst["name"]
    # What is finished says the same again.
    assert run(folder, *words, "--resume") == 0
    assert printed[places[0] : places[1]] in capsys.readouterr().out
    (output / "images_own_size.csv").write_text("name,weights\n")
    with pytest.raises(ValueError, match="images_own_size.csv is damaged or was changed by hand"):
        report(output)


def test_a_test_and_a_validation_part_are_cut_off_and_watched(tmp_path, capsys):
    folder = make_folder(tmp_path / "mine", masks=True, test=False)
    words = ["--method", "fixmatch", "--test", "0.25", "--validation", "3", "--seed", "4", "--labeled", "4"]
    assert run(folder, *words) == 0
    config = read_sealed(folder / "run" / "config.json", sealed=False)
    assert config["split"]["sizes"] == {"labeled": 4, "unlabeled": 10, "validation": 3, "test": 3}
    assert config["split"]["scored"] == "test" and config["configuration"]["test"] == 0.25
    rows = read_table(folder / "run" / "metrics.csv")
    assert all(float(row["val_dice"]) >= 0 and float(row["val_accuracy"]) >= 0 for row in rows)
    assert "near-duplicates on two sides of the split" in capsys.readouterr().out
    assert run(folder, *words, "--validate", "--output", str(tmp_path / "validated")) == 0
    config = read_sealed(tmp_path / "validated" / "config.json", sealed=False)
    assert config["split"]["scored"] == "validation" and config["result"]["last"]["images"] == 3
    assert train.main("busi --method fixmatch --folds 3 --fold 0".split()) == 2
    assert "--folds, --fold parts a folder of one's own; busi has --split" in capsys.readouterr().err
