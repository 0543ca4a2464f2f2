"""Tables, folders, names and arguments that make no sense: one sentence each, soon, and nothing is written."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import numpy as np
import pytest

from keras_semimed.data import ImageSet, Split, from_arrays, from_folder, leak_report, read_folder, read_image_folder
from keras_semimed.data.argument_checks import check_batch, check_class_names, check_count
from keras_semimed.data.check import Declarations, check_folder, main
from keras_semimed.data.images import read_image
from keras_semimed.data.images.rules import ReadingRules
from keras_semimed.data.readers import BusBraSource, BusiSource, KvasirSegSource
from tests.data.image_files import encoded
from tests.data.test_reported_files import GREY, LESION, folder, published

NAN, INF = float("nan"), float("inf")
DEEP = encoded(np.arange(2400).reshape(40, 60).astype("uint16"))


def said(call, *errors) -> str:
    """What a call says is wrong, which is one line of bearable length."""
    with pytest.raises(errors or ValueError) as error:
        call()
    text = str(error.value)
    assert "\n" not in text and len(text) < 600, text
    return text


TABLES = {
    "two million rows": (lambda: b"file,class\na.png,x\n" + b"n.png,x\n" * 2_000_000, "has 2,000,002 lines"),
    "sixty million lines": (lambda: b"file,class\na.png,x\n" + b"\n" * 60_000_000, "has 60,000,002 lines"),
    "a million columns": (lambda: b"file,class" + b",c" * 1_000_000 + b"\na.png,x\n", "has 1,000,002 columns"),
    "a field of 100 MB": (
        lambda: b"file,class\na.png," + b"x" * 100_000_000,
        "is 95 MiB, more than a row an image makes",
    ),
    "a field of 60 MB": (lambda: b"file,class\na.png," + b"x" * 60_000_000, "cannot be read as CSV .field larger than"),
    "a field of 100 kB": (lambda: b"file,class\na.png," + b"x" * 100_000, "line 2 holds a value of 100,000 characters"),
    "a long column": (
        lambda: b"file,class," + b"y" * 2000 + b"\na.png,x,1\n",
        "a column is longer than 1,000 characters",
    ),
    "NUL": (lambda: b"file,class\na.png,x\0y\n", "line 2 holds control characters"),
    "UTF-16": (lambda: "file,class\na.png,x\n".encode("utf-16"), "not a text file in UTF-8"),
    "an escape in the header": (
        lambda: b"file,class,\x1b[31m\na.png,x,1\n",
        r"a column holds control .*rename '.x1b\[31m'",
    ),
    "text that runs backwards": (lambda: "file,class\na.png,\u202ex\n".encode(), "line 2 holds control characters"),
    "a class of two lines": (
        lambda: b'file,class\na.png,"x\ny"\n',
        r"line 2: 'x.ny' holds control characters or line breaks",
    ),
    "two columns of one name": (lambda: b"file,class,class\na.png,x,y\n", "has two columns 'class'; keep one"),
    "two files of one row": (lambda: b"file,file,class\na.png,b.png,y\n", "has two columns 'file'; keep one"),
    "nothing": (lambda: b"", "expected a header 'file,class'"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_read_soon_or_refused_in_a_sentence(tmp_path, name):
    make, message = TABLES[name]
    root = folder(tmp_path, **{"labels.csv": make()})
    start = time.perf_counter()
    text = said(lambda: read_folder(root, 16))
    report = check_folder(root)
    assert time.perf_counter() - start < 20
    assert text.startswith(f"{root}/labels.csv: ") and report.problems == [text]
    assert re.search(message, text), text


@pytest.mark.parametrize("other", ["Benign", "benign ", "b  enign", "bénign", "BENIGN", "ｂenign"])
def test_classes_that_differ_in_case_blanks_or_letters_alone_are_refused(tmp_path, other):
    first = "be\u0301nign" if "é" in other else "b enign" if "  " in other else "benign"
    rows = f"file,class\na.png,{first}\nb.png,{other}\n".encode()
    mask = encoded(LESION.astype("uint8"))
    more = {"labeled/images/b.png": encoded(GREY // 2), "labeled/masks/b.png": mask}
    root = folder(tmp_path, **{"labels.csv": rows}, **more)
    if other in ("benign ", "bénign"):  # one class, written in two ways
        assert len(read_folder(root, 16).class_names) == 1
        return
    assert "differ in case, blanks or the form of letters alone" in said(lambda: read_folder(root, 16))
    assert any("differ in case" in problem for problem in check_folder(root).problems)


@pytest.mark.parametrize(
    "limits",
    [
        *((NAN, 1), (0, INF), (5, 1), (5, 5), (0, 1, 2), (1,), (), 5, "ab", b"ab", ("0", "4095"), ("a", "b")),
        *((False, True), (True, False), (0j, 1), (None, 1), ((0,), 1), {0: 1, 5: 2}, iter([0, 1])),
        *((0, 10**400), (0, 1e-320), (-3e38, 3e38), (0, 1e39)),
    ],
    ids=lambda limits: str(limits)[:20],
)
def test_an_intensity_range_that_is_none_is_refused_wherever_it_enters(tmp_path, limits):
    root = folder(tmp_path, **{"unlabeled/d.png": DEEP})
    for call in (
        lambda: read_folder(root, 16, intensity_range=limits),
        lambda: from_folder(root, 16, intensity_range=limits),
        lambda: read_image_folder(root, 16, intensity_range=limits),
        lambda: read_image(root / "unlabeled/d.png", intensity_range=limits),
        lambda: check_folder(root, Declarations(intensity_range=limits)),
        lambda: ReadingRules(16, intensity_range=limits),
    ):
        assert said(call).startswith("`intensity_range` must be (value of black, larger value of white), found ")


@pytest.mark.parametrize("limits", [(0, 4095), [0, 4095], np.array([0, 4095]), (np.int16(0), np.float32(4095))])
def test_an_intensity_range_may_be_any_two_numbers(tmp_path, limits):
    root = folder(tmp_path, **{"unlabeled/d.png": DEEP})
    found = read_folder(root, 40, intensity_range=limits)
    assert found.unlabeled.rules.intensity_range == (0, 4095) and found.unlabeled.images[0].max() in range(140, 151)
    assert found.unlabeled.rules.get_config()["intensity_range"] == [0.0, 4095.0]


WRONG = {
    "image_size": (0, -1, 2.5, NAN, INF, "32", None, True, 10**18, 10**30, 100_000),
    "num_classes": (0, 1, -1, 2.5, NAN, "3", True, 256, 10**20),
    "batch_size": (0, -1, 2.5, NAN, "8", True, 10**18, 10**7),
    "unlabeled_batch_size": (0, -1, 2.5, 10**18),
    "steps_per_epoch": (0, -1, 2.5, NAN, 10**30),
    "seed": (-1, 2.5, NAN, "1"),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_numbers_that_make_no_sense_are_named(tmp_path, name, value):
    root = folder(tmp_path)
    assert f"`{name}`" in said(lambda: from_folder(root, **({"image_size": 64} | {name: value})))
    if name != "image_size":
        images = np.zeros((2, 64, 64, 3), "uint8")
        masks = np.ones((2, 64, 64), "uint8")
        assert f"`{name}`" in said(lambda: from_arrays(images, masks, **{name: value}))


@pytest.mark.parametrize(
    "values",
    [
        *({0: 0, 1: 10**9}, {0: 0, 1: 300}, {0: 0, 1: -1}, {0: 0, 1: 2.5}, {0: 0, 1: NAN}, {0: 0, 1: True}),
        *({0: 0, -1: 1}, {0: 0, 10**30: 1}, {0: 0, 2.5: 1}, {0: 0, "1": 1}, {0: 0, range(10**12): 1}),
        *({0: 0, (1, 2): 1}, {0: 0, (1, 2, NAN): 1}, {0: 0, (1, 2, 300): 1}, {}, 5, [(0, 0), (1, 1)]),
    ],
    ids=str,
)
def test_mask_values_that_are_none(tmp_path, values):
    root = folder(tmp_path)
    assert "mask_values" in said(lambda: read_folder(root, 16, mask_values=values))
    assert "mask_values" in said(lambda: check_folder(root, Declarations(mask_values=values)))


@pytest.mark.parametrize(
    "words",
    [
        *(["--intensity-range", "nan", "1"], ["--intensity-range", "0", "1e400"], ["--intensity-range", "5", "5"]),
        *(["--num-classes", "99999999999999999999"], ["--num-classes", "-1"], ["--num-classes", "256"]),
        *(["--mask-value", "1=1000000000"], ["--mask-value", "0..99999999999=1"], ["--mask-value", "1" * 5000 + "=1"]),
        *(["--mask-value", "1=1" * 5000], ["--class-names", "x", "X"], ["--class-names", "x", ""]),
        *(["--class-names", "x\x1b[2J", "y"], ["--mask-name", "{}\x1b[2J{}"]),
    ],
    ids=lambda words: " ".join(words)[:40].encode("unicode_escape").decode(),
)
def test_the_check_ends_with_2_and_a_sentence(tmp_path, capsys, words):
    root = folder(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as ended:
        main([str(root), *words])
    error = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 2 and "error: " in error and len(error) < 400 and "\x1b" not in error
    assert sorted(tmp_path.rglob("*")) == before


IMAGES = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype("uint8")
MASKS = (IMAGES[..., 0] > 128).astype("uint8")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"labels": [0, -1, 0, 1]}, r"label of 'images\[1\]' is -1"),
        ({"labels": [0, 10**9, 0, 1]}, r"label of 'images\[1\]' is 1000000000; expected 0..254"),
        ({"labels": [0, 2.5, 0, 1]}, "`labels` must be whole numbers"),
        ({"labels": [0, NAN, 0, 1]}, "`labels` must be whole numbers"),
        ({"labels": [0, 10**30, 0, 1]}, "`labels` must be whole numbers"),
        ({"masks": MASKS * 7}, r"mask of 'images\[0\]' holds \[7\]"),
        ({"masks": MASKS * NAN}, r"mask of 'images\[0\]' holds values that are not classes"),
        ({"masks": MASKS.astype("int64") * 2**40}, r"mask of 'images\[0\]' holds values that are not classes"),
        ({"masks": MASKS.astype(str)}, "`masks` must be an array of numbers, found <U"),
        ({"images": IMAGES.astype(object)}, "`images` must be an array of numbers, found object"),
        ({"images": IMAGES.astype("complex64")}, "`images` must be an array of numbers, found complex64"),
        ({"images": IMAGES.astype("float64") * 1e300}, r"images\[0\] holds values in"),
        ({"images": IMAGES * NAN}, "holds NaN or infinity"),
        ({"images": "abc"}, "`images` must be an array of numbers, found str"),
        ({"images": None}, "`images` must be an array of numbers, found NoneType"),
        ({"images": [IMAGES[0], IMAGES[1][:9]]}, "`images` must be one array, found arrays of several sizes"),
        ({"images": np.zeros((4, 0, 0, 3), "uint8"), "masks": MASKS[:, :0, :0]}, "`images` must have pixels"),
        ({"unlabeled": 5}, "`unlabeled` must be an array of numbers, found int"),
    ],
)
def test_arrays_that_are_no_images_masks_or_classes(given, message):
    text = said(lambda: from_arrays(**({"images": IMAGES, "masks": MASKS} | given)))
    assert re.search(message, text), text


def test_names_of_classes():
    assert check_class_names("names", [" b ", "e\u0301"]) == ("b", "é")
    for names in (
        "ab",
        5,
        ("a", "A"),
        ("a", " a"),
        ("a", ""),
        ("a", 1),
        ("a\n", "b\nc"),
        ("a", "\x1b[2J"),
        ("x" * 2000,),
    ):
        assert "`names`" in said(lambda names=names: check_class_names("names", names))
    with pytest.raises(ValueError, match="`class_names`: 'a' and 'A' are one name"):
        ReadingRules(16, class_names=("a", "A"))


def test_a_batch_that_no_machine_holds():
    check_batch("batch_size", 8, (224, 224, 3))
    assert "8000000 images of 224 x 224 pixels take" in said(
        lambda: check_batch("batch_size", 8_000_000, (224, 224, 3))
    )
    assert said(lambda: check_count("n", 10**4000, most=7)) == "`n` must be at most 7, found a number of 4001 digits"


@pytest.fixture
def locked(monkeypatch):
    """Makes a folder or file one that nobody may read, whoever runs this."""

    def lock(place: Path) -> None:
        scandir, opened, listdir = os.scandir, Path.open, os.listdir

        def refuse(path, function, *arguments, **named):
            if Path(path) == place:
                raise PermissionError(13, "Permission denied", str(path))
            return function(path, *arguments, **named)

        monkeypatch.setattr(os, "scandir", lambda path=".", *rest: refuse(path, scandir, *rest))
        monkeypatch.setattr(os, "listdir", lambda path=".", *rest: refuse(path, listdir, *rest))
        monkeypatch.setattr(Path, "open", lambda path, *rest, **named: refuse(path, opened, *rest, **named))

    return lock


@pytest.mark.parametrize("place", ["labeled/images", "labeled/masks", "unlabeled"])
def test_a_folder_without_permission_is_named(tmp_path, locked, place):
    root = folder(tmp_path)
    locked(root / place)
    text = f"{root / place}: cannot be read (Permission denied); change its permissions"
    assert said(lambda: read_folder(root, 16), PermissionError) == text
    assert text in check_folder(root).problems and main([str(root)]) == 1


@pytest.mark.parametrize("place", ["labels.csv", "labeled/masks/a.png", "unlabeled/u.png"])
def test_a_file_without_permission_is_named(tmp_path, locked, place):
    root = folder(tmp_path, **{"labels.csv": b"file,class\na.png,x\n"})
    locked(root / place)
    text = f"{root / place}: cannot be read (Permission denied); change its permissions"
    assert said(lambda: read_folder(root, 16), PermissionError, ValueError) == text
    assert text in check_folder(root).problems


@pytest.mark.parametrize(("kind", "place"), [("busi", "benign"), ("busi", "."), ("kvasir", "masks"), ("kvasir", ".")])
def test_a_published_set_without_permission_is_not_read_in_part(tmp_path, locked, kind, place):
    root = published(tmp_path, encoded(LESION.astype("uint8")), kind)
    locked(root / place)
    reader = {"busi": BusiSource, "kvasir": KvasirSegSource}[kind]
    assert said(lambda: reader(root), PermissionError).startswith(f"{root / place} cannot be read (Permission denied)")


def test_new_lines_in_names_are_kept_and_do_nothing_to_the_screen(tmp_path, capsys):
    small = np.zeros((400, 400), "uint8")
    small[9, 9] = 1
    shade = np.tile(np.arange(400) // 2, (400, 1)).astype("uint8")
    parts = {"labeled/images/x\ny.png": encoded(shade), "labeled/masks/x\ny.png": encoded(small)}
    table = b'file,class,patient\na.png,x,P0\n"x\ny.png",z,P1\n'
    root = folder(tmp_path, **parts, **{"labels.csv": table, "unlabeled/n\nn.txt": b""})
    found = read_folder(root, 32)
    assert list(found.labeled.names) == ["a", "x\ny"] and found.class_names == ("x", "z")
    printed = capsys.readouterr().out
    assert "lose a class that they have (x\\ny)" in printed and "x\ny" not in printed and "n\nn" not in printed
    (root / "labeled/masks/x\ny.png").unlink()
    assert "x\\ny.png: the image has no mask" in said(lambda: read_folder(root, 32), FileNotFoundError)
    assert "x\ny" not in check_folder(root).table
    (root / "labeled/masks/x\ny.png").write_bytes(b"nothing")
    assert "x\\ny.png: cannot be decoded" in said(lambda: read_folder(root, 32))


def test_a_split_keeps_names_of_several_lines(tmp_path):
    split = Split(("a", "b\nunlabeled\tc"), ("\\n", "c\u2028d"), (), ("\te", '"f"'))
    split.save(tmp_path / "split.txt")
    assert Split.load(tmp_path / "split.txt") == split
    plain = Split(("a",), ("b c",), (), ("d\\n",))
    plain.save(tmp_path / "plain.txt")
    text = f"# keras_semimed split {plain.hash}\nlabeled\ta\nunlabeled\tb c\ntest\td\\n\n"
    assert (tmp_path / "plain.txt").read_text() == text
    (tmp_path / "bad.txt").write_text('# keras_semimed split\nlabeled\t\t"a\n')
    assert "bad.txt, line 2: '.t\"a' is no name in JSON" in said(lambda: Split.load(tmp_path / "bad.txt")).replace(
        "\\", "."
    )


def test_names_that_would_do_something_to_a_screen_get_into_no_image_set():
    pixels = np.zeros((1, 8, 8, 3), "uint8")
    for given in ({"names": ["\x1b[2J"]}, {"names": ["\u202ea"]}, {"names": ["a"], "groups": ["\x07"]}):
        assert "holds control characters" in said(lambda given=given: ImageSet(images=pixels, **given))
    report = leak_report(Split(("a\nb",), (), (), ("c",)), {"a\nb": "P", "c": "P"})
    assert "a\\nb (labeled) ~ c (test)" in str(report)


def test_masks_beside_their_images_are_left_out_with_a_line(tmp_path, capsys):
    names = ("u_mask", "u_mask_1", "v_mask")
    files = {f"unlabeled/{name}.png": encoded(GREY // (2 + index)) for index, name in enumerate(names)}
    root = folder(tmp_path, **files)
    assert list(read_folder(root, 16).unlabeled.names) == ["u", "v_mask"]  # v_mask belongs to no image
    line = "unlabeled: not read, 2 masks beside their images by their names, such as u_mask.png"
    assert line in capsys.readouterr().out and line in check_folder(root).table


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'ID,kFold\n"a', "5-fold-cv.csv: cannot be read as CSV"),
        (b"ID,kFold\n" + b"x" * 200_000, "5-fold-cv.csv: cannot be read as CSV .field larger than"),
        (b"ID,kFold\n" + b"a,1\n" * 200_000, "5-fold-cv.csv: has 200,001 lines"),
        (b"ID,kFold\na\n", "5-fold-cv.csv: line 2 has not as many columns"),
        (b"", "5-fold-cv.csv has no column 'ID'"),
    ],
)
def test_a_table_of_a_published_set_is_refused_in_a_sentence(tmp_path, content, message):
    for place, name in (("Images", "bus_0001-l.png"), ("Masks", "mask_0001-l.png")):
        (tmp_path / place).mkdir()
        (tmp_path / place / name).write_bytes(encoded(LESION.astype("uint8")))
    (tmp_path / "5-fold-cv.csv").write_bytes(content)
    assert re.search(message, said(lambda: BusBraSource(tmp_path)))
