from __future__ import annotations

import json
import warnings
from html.parser import HTMLParser

import numpy as np
import pytest

from keras_semimed.cli.report import main
from keras_semimed.data.tfds import available
from keras_semimed.evaluation import report, summarize
from keras_semimed.evaluation.cases import Cases
from keras_semimed.evaluation.embeddings import Embeddings
from keras_semimed.evaluation.gates import gate_scores
from keras_semimed.evaluation.pseudo_masks import PseudoMasks
from keras_semimed.files import file_digest, write_json, write_table

COUNT = 12


class Page(HTMLParser):
    """What a page refers to, and its text."""

    def __init__(self, text: str):
        super().__init__()
        self.images, self.links, self.ids, self.tags, self.words = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append(tag)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values[key] for key in ("href", "action", "data") if key in values]
        if tag == "img":
            assert values["alt"]
            self.images.append(values["src"])
        else:
            assert "src" not in values and "srcset" not in values

    def handle_data(self, data):
        self.words += data.split()

    @property
    def text(self):
        return " ".join(self.words)


def image_rows():
    rows = []
    for index in range(COUNT):
        scores = {"dice": index / COUNT, "iou": index / COUNT / 2, "lesion_size": 20.0 + index, "hd95": 3.0}
        pixels = {
            "intersection_0": 50,
            "union_0": 60,
            "intersection_1": index,
            "union_1": 20,
            "missed": int(index == 0),
        }
        label = {"label": index % 2, "prediction": 1, "probability_0": 0.3, "probability_1": 0.7}
        rows.append({"name": f"image <{index}>", "weights": "teacher", **scores, **pixels, "nsd_at_2": 0.5, **label})
    return rows


@pytest.fixture
def run(tmp_path):
    """A finished run with everything a report can show."""
    rows = image_rows()
    write_table(tmp_path / "images.csv", rows)
    epochs = [
        {"epoch": epoch, "step": 2 * epoch, "loss": 1 / epoch, "mask_contrast": 0.5, "consistency": 0.0, "dice": 0.6}
        | {"tau": 0.8, "kappa": 0.7, "mask_selected": 0.25}
        for epoch in (1, 2, 3)
    ]
    write_table(tmp_path / "metrics.csv", epochs)
    write_json(
        tmp_path / "config.json",
        {
            "recipe": "hermes_busi",
            "configuration": {"data": "phantom", "method": "hermes", "steps": 6, "seed": 3, "zoom": [0.8, 1.2]},
            "runtime": {"backend": "torch", "keras": "3.15.1"},
            "split": {"hash": "abc123", "sizes": {"labeled": 5, "test": COUNT}, "scored": "test"},
            "result": {"last": {"images": COUNT, "dice": 0.4}, "teacher": summarize(rows)},
            "cost": {"training_seconds": 3.0, "scoring_seconds": 1.0, "peak_memory_mib": 1234},
        },
    )
    masks = np.zeros((3, 16, 16), "uint8")
    masks[:, 4:9, 4:9] = 1
    names = [rows[index]["name"] for index in (0, 5, 11)]
    images = np.random.default_rng(0).integers(0, 255, (3, 16, 16, 1), dtype="uint8")
    maps = {"saliency": np.ones((3, 16, 16), "float32"), "attention, 1/4": np.zeros((3, 4, 4), "float32")}
    cases = Cases(["worst", "median", "best"], names, images, masks, masks, maps, ["benign", "malignant"])
    cases.save(tmp_path / "cases.npz")
    vectors = np.random.default_rng(1).normal(size=(COUNT, 4)).astype("float16")
    Embeddings(vectors, np.arange(COUNT) % 2, ["benign", "malignant"], "image embeddings").save(
        tmp_path / "embeddings.npz"
    )
    bins = {"edges": [0.5, 0.75, 1.0], "counts": [3, 1]}
    watched = {
        "images": 32,
        "history": [
            {"epoch": 1, "mask_accuracy": 0.5},
            {"epoch": 2, "mask_accuracy": 0.6, "mask_selected_accuracy": 0.9},
        ],
        "first_epoch": {"mask": {"confidence": bins, "entropy": bins}},
    }
    write_json(tmp_path / "pseudo_labels.json", watched)
    kept = {(epoch, name): masks for epoch in (1, 3) for name in ("none", "dual")}
    PseudoMasks(images, masks, kept).save(tmp_path / "pseudo_labels.npz")
    scores = gate_scores([np.array([[0.001, 0.5], [0.003, 0.7]])], [np.full((2, 3, 3, 1), 0.9)])
    write_json(tmp_path / "attention.json", {"images": 8, "history": [{"epoch": epoch, **scores} for epoch in (1, 2)]})
    return tmp_path


def test_the_page_needs_no_other_file_and_no_network(run):
    path = report(run)
    assert path == run / "report.html" and not list(run.glob(".partial*"))
    page = Page(path.read_text(encoding="utf-8"))
    # Three curves, two of the gates, two of pseudo-labels and three of their truth; histogram, size, confusion,
    # calibration and t-SNE; 3 x 4 panels; 3 x 3 maps; pseudo-masks of 2 epochs, 3 images and 2 selections, beside the
    # image; and the sheet of keras-cv.
    sheets = path.read_text(encoding="utf-8").count('alt="all cases: image, truth and prediction"')
    assert sheets == available()  # TensorFlow
    assert len(page.images) == 3 + 2 + 2 + 3 + 5 + 12 + 9 + 2 * 3 * 3 + sheets
    assert all(image.startswith("data:image/") for image in page.images)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert "http" not in page.text and "@import" not in page.text and "url(" not in path.read_text()


def test_the_page_says_what_the_run_was_and_found(run):
    text = Page(report(run).read_text(encoding="utf-8")).text
    for part in (
        "hermes_busi: hermes",
        "data phantom, steps 6, seed 3",
        "abc123",
        "zoom 0.8, 1.2",
        "backend torch",
        "Research software, not a medical device",
        "1 of 12",
        "NSD at 2 px",
        "[0.",
        "0.50 s a step",
        "1,234 MiB",
        "image <11> Dice 0.92",
        "predicted malignant (70%), truly benign",
        "attention, 1/4: 0.00 to 0.00",
        "P1: channels 0.001 to 0.700, spread between images 0.0505",
        "Of the channels 50% are closed for every image. It hardly differs between places.",
        "Range of the gates. Mean, smallest and largest on 8 unlabelled images after epoch 2.",
        "Confusion matrix. Images of each true class",
        "Accuracy of the pixels' pseudo-labels. Share of pixels that are right, on 32 unlabelled images",
        "First entropy of the pixels.",
        "After epoch 3 image no threshold dual threshold image",
    ):
        assert part in text, part
    # A term that was 0 throughout is no curve, and thresholds are none of the loss.
    assert "image &lt;11&gt;" in (run / "report.html").read_text(encoding="utf-8")


def test_few_images_behind_an_interval_are_said(run):
    config = json.loads((run / "config.json").read_text())
    for images, warned in ((59, True), (60, False)):
        config["result"]["teacher"]["images"] = images
        write_json(run / "config.json", config)
        text = Page(report(run).read_text(encoding="utf-8")).text
        assert ("Fewer than 60 images stand behind an interval (59)" in text) == warned
    assert "stay together" not in text
    config["result"]["teacher"]["groups"] = 19
    write_json(run / "config.json", config)
    text = Page(report(run).read_text(encoding="utf-8")).text
    assert "Fewer than 20 groups stand behind an interval (19)" in text
    assert "Images of one group (patient, sequence, near-duplicates) stay together in intervals" in text
    # Without intervals there is nothing to warn about.
    config["result"] = {"last": {"images": 1, "dice": 0.5}, "teacher": {"images": 1, "dice": 0.5}}
    write_json(run / "config.json", config)
    assert "Fewer than" not in Page(report(run).read_text(encoding="utf-8")).text


def test_the_same_run_gives_the_same_page(run):
    assert report(run).read_bytes() == report(run).read_bytes()


def test_what_a_run_did_not_keep_is_not_shown(run):
    for name in ("cases.npz", "embeddings.npz", "pseudo_labels.json", "pseudo_labels.npz", "attention.json"):
        (run / name).unlink()
    write_table(run / "metrics.csv", [{"epoch": 1, "loss": 1.0}])
    rows = [{key: row[key] for key in ("name", "weights", "dice")} for row in image_rows()]
    write_table(run / "images.csv", rows)
    page = Page(report(run).read_text(encoding="utf-8"))
    assert len(page.images) == 2 and not {"cases", "maps", "gates", "pseudo"} & set(page.ids)
    assert all(link[1:] in page.ids for link in page.links)


def test_files_that_the_run_wrote_and_that_are_gone_are_named(run):
    content = json.loads((run / "config.json").read_text(encoding="utf-8"))
    content["files"] = {name: file_digest(run / name) for name in ("images.csv", "cases.npz", "attention.json")}
    (run / "config.json").write_text(json.dumps(content))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main([str(run)]) == 0
    (run / "cases.npz").unlink()
    (run / "embeddings.npz").unlink()  # of which nothing was noted
    with pytest.warns(UserWarning, match=r"has lost cases.npz; the report does without"):
        assert main([str(run)]) == 0
    assert "The folder has lost cases.npz;" in Page((run / "report.html").read_text(encoding="utf-8")).text


def test_leaks_are_shown_where_the_run_counted_them(run):
    content = (run / "config.json").read_text(encoding="utf-8")
    for leaks, warned in (("7 pairs, 3 of 9 scored images", True), ("0 pairs, 0 of 9 scored images", False)):
        (run / "config.json").write_text(content.replace('"scored": "test"', f'"scored": "test", "leaks": "{leaks}"'))
        text = Page(report(run).read_text(encoding="utf-8")).text
        assert f"leaks {leaks}" in text and ("are both trained on and scored" in text) == warned


def test_the_command_writes_it_again_and_refuses_what_is_no_finished_run(run, tmp_path, capsys):
    assert main([str(run)]) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    assert main([str(tmp_path / "nothing")]) == 2
    assert "nothing is not the folder of a run" in capsys.readouterr().err
    for name, content_now, message in (
        ("images.csv", "name,weights\n", "images.csv holds no rows"),
        ("metrics.csv", "epoch,loss\n", "metrics.csv holds no epoch"),
        ("pseudo_labels.json", "[]", "is not what PseudoLabelMonitor wrote"),
        ("pseudo_labels.npz", "PK", "is not what PseudoLabelMonitor wrote"),
        ("attention.json", '{"history": []}', "is not what AttentionMonitor wrote"),
        ("config.json", "{}", "config.json is not that of a run"),
    ):
        before = (run / name).read_bytes()
        (run / name).write_text(content_now)
        assert main([str(run)]) == 2 and message in capsys.readouterr().err
        (run / name).write_bytes(before)
    (run / "report.html").unlink()
    content = (run / "config.json").read_text(encoding="utf-8")
    (run / "config.json").write_text(content.replace('"result"', '"results"'))
    assert main([str(run)]) == 2
    assert "not finished" in capsys.readouterr().err and not (run / "report.html").exists()


@pytest.mark.parametrize(
    ("configuration", "title"),
    [
        ({"method": "hermes", "control": False}, "hermes_busi: hermes"),
        ({"method": "hermes", "control": True}, "hermes_busi: hermes control"),
        ({"method": "loco", "rung": "M3", "control": False}, "hermes_busi: loco M3"),
    ],
)
def test_the_title_says_what_ran(run, configuration, title):
    config = json.loads((run / "config.json").read_text())
    config["configuration"] |= configuration
    write_json(run / "config.json", config)
    assert f"<title>{title}</title>" in report(run).read_text(encoding="utf-8")


def at_own_size(run, **changes):
    """Gives the run scores at the images' own size: Dice 0.5 throughout, mm on 4 of the 12 images."""
    rows = [{**row, "dice": 0.5, "hd95": 30.0, **changes} for row in image_rows()]
    for row in rows[:4]:
        row |= {"nsd_at_1_mm": 0.25, "hd95_mm": 6.125}
    write_table(run / "images_own_size.csv", rows)
    config = json.loads((run / "config.json").read_text())
    config["configuration"]["image_size"] = 64
    config["result_own_size"] = {"teacher": summarize(rows)}
    write_json(run / "config.json", config)


def test_scores_at_the_images_own_size_stand_first_and_every_table_names_its_size(run):
    before = report(run).read_text(encoding="utf-8")
    assert before.count("<caption>") == 1 and "<caption>at the network&#39;s size</caption>" in before
    assert "with the teacher weights, at the network&#39;s size; no epoch" in before
    assert "own size" not in before and "mm" not in Page(before).words
    at_own_size(run)
    page = report(run).read_text(encoding="utf-8")
    own, network = (
        page.index(f"<caption>{name}") for name in ("at the files&#39; own size", "at the network&#39;s size")
    )
    assert own < network and "at the network&#39;s size, 64 x 64 pixels</caption>" in page
    text = Page(page).text
    assert "with the teacher weights, at the files' own size; no epoch" in text
    assert "Figures and cases: at the files' own size." in text
    # The head, and what stands below a case.
    assert "0.500 Dice" in text and "0.250 NSD at 1 mm" in text and "6.12 HD95, mm" in text
    assert "image <11> Dice 0.50, NSD at 2 px 0.50, HD95 30.0 px, predicted" in text
    assert "image <0> Dice 0.50, NSD at 2 px 0.50, NSD at 1 mm 0.25, HD95 30.0 px, HD95 6.1 mm, missed" in text
    assert "In mm: the 4 of 12 images whose pixels' size is known." in text
    assert "Fewer than 60 images stand behind an interval (4)" in text
    # What has no size stands in one table only.
    assert page.count("<tr><th>Dice</th>") == 2 and page.count("<tr><th>accuracy</th>") == 1


def test_a_run_that_lost_its_rows_at_the_own_size_is_still_read(run):
    at_own_size(run)
    (run / "images_own_size.csv").unlink()
    page = report(run).read_text(encoding="utf-8")
    assert page.count("<caption>") == 1 and "own size" not in page
    (run / "images_own_size.csv").write_text("name,weights\n")
    with pytest.raises(ValueError, match="images_own_size.csv holds no rows of images with the column 'weights'"):
        report(run)


def test_own_sizes_of_another_hospital_alone_do_not_stand_first(run):
    at_own_size(run, weights="teacher on elsewhere")
    config = json.loads((run / "config.json").read_text())
    config["result_own_size"] = {"teacher on elsewhere": config["result_own_size"]["teacher"]}
    write_json(run / "config.json", config)
    page = report(run).read_text(encoding="utf-8")
    assert page.index("<caption>at the network") < page.index("<caption>at the files")
    assert 'image &lt;11&gt;</b> <span class="soft">Dice 0.92' in page
