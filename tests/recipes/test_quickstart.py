"""The notebook's cells run one after the other, with one short epoch instead of ten."""

import json
from pathlib import Path

import matplotlib

NOTEBOOK = Path(__file__).resolve().parents[2] / "recipes" / "quickstart.ipynb"


def cells(kind):
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


def test_every_cell_keeps_its_output_without_an_error():
    outputs = [output for cell in cells("code") for output in cell["outputs"]]
    assert all(cell["execution_count"] for cell in cells("code"))
    assert not any(output["output_type"] == "error" for output in outputs)
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3


def test_the_cells_run(monkeypatch, capsys):
    matplotlib.use("Agg")
    names = {"__name__": "__main__"}
    for cell in cells("code"):
        source = "".join(cell["source"])
        if "epochs = 10" in source:
            source = source.replace("epochs = 10", "epochs = 1\ntrain.steps_per_epoch = 4")
            monkeypatch.setitem(names, "shortened", True)
        exec(compile(source, str(NOTEBOOK), "exec"), names)
    assert names["shortened"] and names["report"].predicted == 16
    assert set(names["summary"]) >= {"dice", "accuracy"}
    matplotlib.pyplot.close("all")
