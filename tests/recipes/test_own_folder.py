"""The notebook on one's own folder: its cells run one after the other on made images, smaller and shorter."""

import json
from pathlib import Path

import matplotlib

from keras_semimed.experiments.comparison.compare import compare_folders
from keras_semimed.files import read_sealed

NOTEBOOK = Path(__file__).resolve().parents[2] / "recipes" / "own_folder.ipynb"
SHORTER = {
    "EPOCHS, STEPS, SIZE = 6, 25, 64": "EPOCHS, STEPS, SIZE = 1, 2, 32",
    "WORK = Path(tempfile.mkdtemp())": "WORK = HERE",
    "made.images[:320]": "made.images[:100]",
    "if index < 80:": "if index < 12:",
    "if index < 300 else": "if index < 96 else",
    "rows[:10]": "rows[:3]",
}


def code_cells():
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_every_cell_was_run_without_an_error():
    outputs = [output for cell in code_cells() for output in cell["outputs"]]
    assert all(cell["execution_count"] for cell in code_cells()) and len(code_cells()) < 10
    assert not any(output["output_type"] == "error" for output in outputs)
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    texts = "".join("".join(output.get("text", "")) for output in outputs)
    assert "problems: none" in texts and "Dice - supervised" in texts


def test_the_cells_run(tmp_path):
    matplotlib.use("Agg")
    source = "\n".join("".join(cell["source"]) for cell in code_cells())
    for long, short in SHORTER.items():
        assert long in source, long
        source = source.replace(long, short)
    names = {"__name__": "__main__", "HERE": tmp_path}
    exec(compile(source, str(NOTEBOOK), "exec"), names)
    matplotlib.pyplot.close("all")
    groups = [row["group"] for row in names["table"]]
    assert [group for group in dict.fromkeys(groups)] == ["supervised", "fixmatch", "loco"]
    assert all("dice_low" in row for row in names["table"] if row["weights"] == "last" and row["group"] != "supervised")
    assert names["report"].predicted == 4 and len(names["learnt"]) == len(names["train"].labeled) + 3
    sizes = read_sealed(names["second"].path / "config.json")["split"]["sizes"]
    assert sizes["labeled"] == len(names["learnt"]) and sizes["test"] == len(names["test"].image_set)
    again = compare_folders({name: [result.path] for name, result in names["results"].items()})
    assert again == names["table"]
