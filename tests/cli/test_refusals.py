"""Ways to call the commands wrongly that only show beside a folder: one sentence, exit code 2, nothing written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_semimed.cli.main import main

pytestmark = pytest.mark.backend_free

TRAIN = "train FOLDER --method fixmatch --encoder resnet_tiny --weights none --image-size 32 --steps 4 --output OUT"
WRONG = {
    f"{TRAIN}": "has no folder test/; cut a test part off the annotated images with --test 0.3",
    f"{TRAIN} --test 1.5": "--test 1.5 is no share between 0 and 1",
    f"{TRAIN} --test 0": "--test 0 is no image",
    f"{TRAIN} --test 6": "error: --test 6 of 6 annotated images gives none, or all; ask for another number",
    f"{TRAIN} --test 0.3 --validation 5": "error: --validation 5 of 4 annotated images gives none",
    f"{TRAIN} --folds 3": "--folds and --fold must be given together",
    f"{TRAIN} --folds 3 --fold 3": "--fold must be within 0 and 2, found 3",
    f"{TRAIN} --folds 9 --fold 0": "--folds 9: 6 groups of images can be cut into 2 to 6 folds",
    f"{TRAIN} --test 0.3 --labeled 50": "--labeled 50",
    f"{TRAIN} --test 0.3 --validate": "--validate: a folder has no validation part; cut one off with --validation",
    f"{TRAIN} --test 0.3 --split paper": "is a folder of your own, which has no --split",
    f"{TRAIN} --test 0.3 --manual-dir FOLDER": "is a folder of your own, which has no --manual-dir",
    f"{TRAIN} --test 0.3 --tasks classification": "--tasks classification: fixmatch can do",
    f"{TRAIN} --test 0.3 --network pspnet": "--network",
    f"{TRAIN} --test 0.3 --encoder resnet19": "--encoder resnet19 is none of",
    f"{TRAIN} --test 0.3 --weights nowhere.npz": "--weights nowhere.npz is not a file",
    f"{TRAIN} --test 0.3 --epoch-steps 3": "--epoch-steps 3 does not divide --steps 4",
    f"{TRAIN} --test 0.3 --config nowhere.yaml": "--config nowhere.yaml cannot be read",
    f"{TRAIN} --test 0.3 --config LABELS": "is no table of flags",
    f"{TRAIN} --test 0.3 --start-from FOLDER": "is not the folder of a finished run",
    f"{TRAIN} --test 0.3 --test-on FOLDER": "is the data that the run learns from",
    f"{TRAIN} --test 0.3 --test-on nowhere": "--test-on nowhere is neither a data set",
    f"{TRAIN} --test 0.3 --track wanb": "did you mean wandb?",
    f"{TRAIN} --test 0.3 --mask-value 1=1": "which mask_values does not declare",
    f"{TRAIN} --test 0.3 --num-classes 300": "--num-classes must be at most 255",
    f"{TRAIN} --test 0.3 --class-names a a": "--class-names: 'a' and 'a' are one name",
    f"{TRAIN} --test 0.3 --output LABELS": "is a file, not the folder of a run",
    f"{TRAIN} --test 0.3 --output FOLDER": "is not the folder of a run, or not as the run left it",
    "train FOLDER/labeled --method fixmatch --output OUT": "has no folder labeled/; a run needs labeled/ and",
    "train FOLDER --method u2pl --stages supervised:2 --output OUT": "--stages supervised:2 ends with supervised",
    "check FOLDER --mask-value 255": "'255' is no mask value",
    "check FOLDER --mask-name mask": "--mask-name must hold {}",
    "check FOLDER --intensity-range 9 1": "--intensity-range must be",
    "report FOLDER": "is not the folder of a run",
    "compare FOLDER other=FOLDER": "is not the output folder of a run",
    "predict LABELS FOLDER/unlabeled --output OUT": "labels.txt is no Keras model",
    "predict FOLDER FOLDER/unlabeled --output OUT": "only .keras files are loaded",
    "export FOLDER OUT": "model.keras is not there",
    "export LABELS OUT": "labels.txt is no Keras model",
    "sweep train --grid steps --output OUT -- FOLDER": "--grid 'steps': expected FLAG=VALUE",
    "sweep train --grid seed=1 --output OUT -- FOLDER": "--seed belongs to the sweep",
    "data pack busi --manual-dir FOLDER --output OUT": "must end with .npz",
    "data convert FOLDER --output OUT": "holds no export: no annotations.xml",
    "data convert FOLDER --to cvta --output OUT": "invalid choice: 'cvta'",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """6 images with masks, 4 without; no part test, no classes."""
    path, random = tmp_path_factory.mktemp("wrong") / "mine", np.random.default_rng(0)
    for part, count in {"labeled/images": 6, "labeled/masks": 6, "unlabeled": 4}.items():
        (path / part).mkdir(parents=True)
        for index in range(count):
            pixels = random.integers(0, 200, (40, 40)).astype("uint8")
            if part.endswith("masks"):
                pixels = np.where(pixels > 90, 255, 0).astype("uint8")
            Image.fromarray(pixels).save(path / part / f"{part[0]}{index}.png")
    (path.parent / "labels.txt").write_text("just words\n")
    return path


def files_below(place: Path) -> dict[Path, int]:
    """Files and when they were written, and folders, in which a lock may have come and gone."""
    return {path: path.is_file() and path.stat().st_mtime_ns for path in place.rglob("*")}


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_call_is_one_sentence_and_writes_nothing(words, folder, monkeypatch, capfd):
    place = folder.parent
    monkeypatch.chdir(place)
    before = files_below(place)
    named = words.replace("FOLDER", "mine").replace("LABELS", "labels.txt").replace("OUT", "out")
    try:
        code = main(named.split())
    except SystemExit as ended:
        code = ended.code
    error = capfd.readouterr().err
    assert code == 2, error
    sentences = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(sentences) == 1 and WRONG[words].replace("FOLDER", "mine") in sentences[0], error
    assert "Traceback" not in error
    assert files_below(place) == before
