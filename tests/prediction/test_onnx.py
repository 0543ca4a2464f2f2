"""Prediction with an exported ONNX file, on ONNX Runtime and without Keras."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from keras_semimed.data.images.rules import ReadingRules
from keras_semimed.export import export
from keras_semimed.models import Supervised
from keras_semimed.prediction import OnnxPredictor, Options, find_images, predict_files
from keras_semimed.provenance import PROVENANCE, Provenance
from keras_semimed.saved import load_model
from tests.models.common import UNET_WIDTHS, tiny_encoder
from tests.prediction.test_predict import rows

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
SIZE = 32

ALONE = """
import sys
for name in ("keras", "tensorflow", "torch", "jax"):
    sys.modules[name] = None
from keras_semimed.predict import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model that knows how it was trained, exported, and two images of 12 bits."""
    if keras.backend.backend() == "jax":
        pytest.skip("an ONNX file cannot be made on this backend")
    root = tmp_path_factory.mktemp("onnx")
    keras.utils.set_random_seed(0)
    model = Supervised(image_size=SIZE, encoder=tiny_encoder(), decoder_filters=UNET_WIDTHS, num_labels=3)
    model.reading = ReadingRules(SIZE, 3, True, (0.0, 4095.0), "", ("good", "odd", "ill"))
    model.provenance = Provenance(3, 5, "0123", "made", "4567", "test", {"dice": 0.75})
    export(model, root / "model.onnx")
    (root / "images").mkdir()
    for index, (height, width) in enumerate(((40, 60), (70, 30))):
        deep = np.random.default_rng(index).integers(0, 4096, (height, width)).astype("uint16")
        Image.fromarray(deep).save(root / f"images/{index}.png")
    predict_files(model, find_images([root / "images"]), root / "keras", Options(2))
    return root


def test_without_keras_it_predicts_what_the_model_predicts(exported):
    words = [exported / "model.onnx", exported / "images", "--output", exported / "onnx", "--batch-size", "2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *map(str, words)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    tables = [rows(exported / kind) for kind in ("keras", "onnx")]
    assert tables[0].keys() == tables[1].keys() == {"0.png", "1.png"}
    for name, row in tables[0].items():
        assert row.keys() == tables[1][name].keys() and row["prediction"] == tables[1][name]["prediction"]
        for column in ("probability_good", "probability_odd", "probability_ill", "mask_uncertainty"):
            assert float(row[column]) == pytest.approx(float(tables[1][name][column]), abs=1e-4)
        masks = [np.asarray(Image.open(exported / kind / "masks" / f"{name}.png")) for kind in ("keras", "onnx")]
        assert (masks[0] != masks[1]).mean() < 0.01


def test_it_holds_what_the_model_was_trained_and_scored_on(exported):
    import onnx

    said = {each.key: each.value for each in onnx.load(exported / "model.onnx").metadata_props}
    assert json.loads(said[PROVENANCE]) == {
        "labeled": 3, "unlabeled": 5, "data": "0123", "data_set": "made", "split": "4567", "scored": "test",
        "scores": {"dice": 0.75},
    }  # fmt: skip
    card = (exported / "model.onnx.md").read_text()
    assert "- Trained on: 3 labelled and 5 unlabelled images of made (digest 0123, split 4567).\n" in card
    assert "- Scores: test: dice 0.75.\n" in card


def test_it_knows_how_files_were_read_and_other_files_are_refused(exported, tmp_path):
    assert OnnxPredictor(exported / "model.onnx").reading == ReadingRules(
        SIZE, 3, True, (0.0, 4095.0), "", ("good", "odd", "ill")
    )
    with pytest.raises(FileNotFoundError, match=r"none.onnx does not exist"):
        OnnxPredictor(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(ValueError, match=r"text.onnx cannot be loaded as an ONNX model"):
        OnnxPredictor(tmp_path / "text.onnx")
    import onnx
    from onnx import TensorProto, helper

    for side, node, kind, found, message in (
        (9, "Identity", TensorProto.FLOAT, ["N", 8, 9, 3], "o.onnx must take images .* of a known size"),
        (8, "Shape", TensorProto.INT64, [4], r"o.onnx must give .* or both, found outputs of \[1\] dimensions"),
    ):
        given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8, side, 3])
        made = helper.make_node(node, ["x"], ["y"])
        graph = helper.make_graph([made], "g", [given], [helper.make_tensor_value_info("y", kind, found)])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(model, tmp_path / "o.onnx")
        with pytest.raises(ValueError, match=message):
            OnnxPredictor(tmp_path / "o.onnx")
    with pytest.raises(ValueError, match="only .keras files are loaded"):
        load_model(exported / "model.onnx")
