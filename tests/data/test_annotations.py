"""Annotations from and to COCO, CVAT, LabelMe and Label Studio."""

import base64
import copy
import io
import json

import numpy as np
import pytest
from matplotlib.path import Path as Outline
from PIL import Image

from keras_semimed import data
from keras_semimed.data.convert import main
from keras_semimed.data.exchange import export_annotations, import_annotations, read_export
from keras_semimed.data.exchange.brush import decode_brush, encode_brush
from keras_semimed.data.exchange.outlines import MAX_CHANGE, regions, simplified
from keras_semimed.data.exchange.runs import from_lengths, lengths, lengths_of_text
from keras_semimed.data.exchange.shapes import Ellipse, fill, turned
from keras_semimed.data.phantoms import endoscopy_phantoms, ultrasound_phantoms
from tests.data.annotation_files import (
    BOX,
    HEIGHT,
    WIDTH,
    coco,
    coco_polygon,
    cvat,
    cvat_polygon,
    expected_box,
    labelme,
    percent_box,
    result,
    save,
    save_images,
    task,
)
from tests.data.dicom_files import dicom
from tests.data.image_files import encoded

TOOLS = ("coco", "cvat", "labelme", "labelstudio")


@pytest.fixture
def scans(tmp_path):
    return save_images(tmp_path / "scans", "a.png", "b.png")


def mask_of(folder, name="a"):
    return np.asarray(Image.open(folder / f"labeled/masks/{name}.png"))


def converted(tmp_path, export, **options):
    """The folder that an export becomes."""
    output = tmp_path / f"made{len(list(tmp_path.iterdir()))}"
    import_annotations([export], output, tmp_path / "scans", **options)
    return output


# Pixels


def test_a_pixel_belongs_to_a_polygon_if_its_centre_does():
    """Against Matplotlib's test of points, corners anywhere and beyond the image."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:30, :40] + 0.5
    centres = np.stack([columns.ravel(), rows.ravel()], -1)
    for _ in range(40):
        ring = rng.uniform(-8, 45, (rng.integers(3, 9), 2))
        inside = Outline([*ring, ring[0]], closed=True).contains_points(centres).reshape(30, 40)
        np.testing.assert_array_equal(fill([ring], 30, 40).whole(30, 40), inside)


def test_areas_side_by_side_share_no_pixel_and_leave_none():
    left, right = ([(x0, 0.5), (x0 + 3, 0.5), (x0 + 3, 4.5), (x0, 4.5)] for x0 in (1.5, 4.5))
    masks = [fill([np.array(ring)], 6, 9).whole(6, 9) for ring in (left, right)]
    assert not (masks[0] & masks[1]).any()
    np.testing.assert_array_equal(np.argwhere(masks[0] | masks[1]), np.argwhere(np.pad(np.ones((4, 6)), 1)) + [[-1, 0]])


def test_ellipses_and_turned_boxes():
    window = Ellipse(10.5, 8.5, 4.1, 2.1, 90).window(20, 20)
    mask = window.whole(20, 20)
    assert mask[8, 10] and mask[12, 10] and not mask[13, 10] and mask[8, 12] and not mask[8, 13]
    np.testing.assert_allclose(turned(np.array([(3.0, 1.0)]), 90, 1, 1), [(1, 3)], atol=1e-12)  # clockwise: down
    assert abs(Ellipse(50, 50, 30, 20, 33).window(100, 100).pixels.sum() - np.pi * 600) < 0.01 * np.pi * 600


def test_brush_strokes_are_the_documented_bits():
    """Twelve values: four of 0 and eight of 255, the stream written by hand."""
    stream = f"{12:032b}" + f"{7:05b}" + "0010" + "0011" + "0111" + "1111"
    stream += "1" + "00" + f"{3:03b}" + f"{0:08b}" + "0" + "00" + f"{7:03b}" + f"{255:08b}" * 8
    stream += "0" * (-len(stream) % 8)
    rle = [int(stream[i : i + 8], 2) for i in range(0, len(stream), 8)]
    np.testing.assert_array_equal(decode_brush(rle, 1, 3, "x"), [[False, True, True]])
    with pytest.raises(ValueError, match="x: its brush strokes cannot be decoded .it ends too early"):
        decode_brush(rle[:-4], 1, 3, "x")
    with pytest.raises(ValueError, match="12 values, an image of 2 x 2"):
        decode_brush(rle, 2, 2, "x")
    with pytest.raises(ValueError, match="x: its brush strokes"):
        decode_brush([300, "a"], 1, 3, "x")


def test_runs_and_brush_strokes_keep_every_pixel():
    rng = np.random.default_rng(1)
    masks = [rng.random((9, 13)) < share for share in (0, 0.1, 0.5, 0.9, 1)] + [np.ones((300, 300), bool)]
    for mask in masks:
        np.testing.assert_array_equal(from_lengths(lengths(mask.ravel()), mask.size, "").reshape(mask.shape), mask)
        np.testing.assert_array_equal(decode_brush(encode_brush(mask), *mask.shape, ""), mask)
    assert lengths(np.array([True, True, False])) == [0, 2, 1] and lengths(np.array([False, True])) == [1, 1]


def test_an_outline_gives_its_mask_again():
    rng = np.random.default_rng(2)
    masks = [rng.random((12, 15)) < share for share in (0.05, 0.4, 0.7, 1)]
    masks += [mask > 0 for mask in ultrasound_phantoms(3, 64)[1]]
    for mask in masks:
        again, exact = np.zeros_like(mask), np.zeros_like(mask)
        for region in regions(mask):
            again |= region.window.whole(*mask.shape)
            if len(region.rings) == 1:
                exact |= fill([simplified(region, 0, *mask.shape)], *mask.shape).whole(*mask.shape)
            else:
                exact |= region.window.whole(*mask.shape)
        np.testing.assert_array_equal(again, mask)
        np.testing.assert_array_equal(exact, mask)


def test_a_simpler_outline_changes_few_pixels_and_needs_half_the_corners():
    """What docs/data.md says of the default."""
    kept, all_corners = 0, 0
    for mask in (*ultrasound_phantoms(6, 96)[1], *endoscopy_phantoms(4, 96)[1]):
        for region in regions(mask > 0):
            assert len(region.rings) == 1
            ring, pixels = simplified(region, 0.75, *mask.shape), region.window.whole(*mask.shape)
            changed = (fill([ring], *mask.shape).whole(*mask.shape) != pixels).sum()
            assert changed <= MAX_CHANGE * pixels.sum()
            kept, all_corners = kept + len(ring), all_corners + len(simplified(region, 0, *mask.shape))
    assert kept < 0.55 * all_corners


# Each format in


def test_coco_polygons_and_runs(tmp_path, scans):
    second = [0.0, 6.0, 2.0, 6.0, 2.0, 8.0, 0.0, 8.0]
    polygon = coco_polygon()
    polygon["segmentation"].append(second)
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[5:8, 9:] = True
    runs = {"segmentation": {"size": [HEIGHT, WIDTH], "counts": lengths(mask.T.ravel())}, "iscrowd": 1, "image_id": 8}
    file = save(tmp_path / "annotations/instances_default.json", coco(polygon, runs, images=("a.png", "b.png")))
    folder = converted(tmp_path, file)
    expected = expected_box()
    expected[6:, :2] = 1
    np.testing.assert_array_equal(mask_of(folder), expected)
    np.testing.assert_array_equal(mask_of(folder, "b"), mask)
    assert (folder / "labeled/images/a.png").read_bytes() == (scans / "a.png").read_bytes()
    assert (folder / "classes.txt").read_text() == "lesion\n"


def test_compressed_runs_of_coco(tmp_path, scans):
    """The texts are what pycocotools makes of the box, and of another one with a hole, cut off here."""

    def read(text):
        segmentation = {"size": [HEIGHT, WIDTH], "counts": text}
        return mask_of(converted(tmp_path, save(tmp_path / "export.json", coco({"segmentation": segmentation}))))

    np.testing.assert_array_equal(read("a035000000000o0"), expected_box())
    with pytest.raises(ValueError, match=r"annotations\[0\] in a.png: its runs are of 57 pixels, its size is of 96"):
        read("a03500000000")
    with pytest.raises(ValueError, match="its run lengths end within a number"):
        read("a035000000000o")
    with pytest.raises(ValueError, match="its run lengths hold ' '"):
        read("a03 5")
    runs = lengths_of_text("Tl5P5X1000000000000000000nKROj2n0VMROj2n0VMROj2n0VM", "")
    assert runs[:3] == [6020, 160, 40] and runs[18:25] == [40, 160, 40, 30, 10, 120, 40]


def test_cvat_shapes(tmp_path, scans):
    mask = '<mask label="polyp" rle="0, 2, 1, 1" left="10" top="6" width="2" height="2" z_order="0"></mask>'
    box = '<box label="polyp" xtl="0.00" ytl="5.00" xbr="2.00" ybr="8.00" z_order="0"></box>'
    line = '<polyline label="lesion" points="1.0,1.0;5.0,5.0" z_order="0"></polyline><tag label="lesion"></tag>'
    folder = converted(tmp_path, save(tmp_path / "annotations.xml", cvat(cvat_polygon() + box + mask + line)))
    expected = expected_box()
    expected[5:, :2] = 2
    expected[6, 10:], expected[7, 11] = 2, 2
    np.testing.assert_array_equal(mask_of(folder), expected)
    ellipse = '<ellipse label="lesion" cx="6.00" cy="4.00" rx="3.00" ry="2.00" z_order="0"></ellipse>'
    folder = converted(tmp_path, save(tmp_path / "annotations.xml", cvat(ellipse)))
    assert mask_of(folder).sum() == 20 and (mask_of(folder)[3:5, 3:9] == 1).all()
    turned_box = '<box label="lesion" xtl="4.00" ytl="3.00" xbr="8.00" ybr="5.00" rotation="90.00" z_order="0"></box>'
    folder = converted(tmp_path, save(tmp_path / "annotations.xml", cvat(turned_box)))
    assert set(map(tuple, np.argwhere(mask_of(folder)))) == {(row, column) for row in range(2, 6) for column in (5, 6)}


def test_the_highest_of_overlapping_classes_counts_and_is_mentioned(tmp_path, scans, capsys):
    shapes = cvat_polygon("polyp", z_order=1, dx=3) + cvat_polygon("lesion")
    file = save(tmp_path / "annotations.xml", cvat(shapes))
    assert main([str(file), "--images", str(scans), "--output", str(tmp_path / "made")]) == 0
    expected = expected_box()
    expected[1:4, 5:11] = 2
    np.testing.assert_array_equal(mask_of(tmp_path / "made"), expected)
    printed = capsys.readouterr().out
    assert "classes overlap in 9 pixels of a.png" in printed and "num_classes=3" in printed
    assert "1 = lesion (in 1), 2 = polyp (in 1) of the masks" in printed


def test_masks_of_cvat(tmp_path, scans):
    export = tmp_path / "export"
    colours = np.zeros((HEIGHT, WIDTH, 3), "uint8")
    colours[1:4, 2:8] = (250, 50, 83)
    (export / "SegmentationClass").mkdir(parents=True)
    Image.fromarray(colours).save(export / "SegmentationClass/a.png")
    save(export / "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\nlesion:250,50,83::\n")
    np.testing.assert_array_equal(mask_of(converted(tmp_path, export)), expected_box())
    save(export / "labelmap.txt", "background:0,0,0::\nlesion:1,2,3::\n")
    with pytest.raises(ValueError, match=r"a.png: holds \(250, 50, 83\), which labelmap.txt does not name"):
        converted(tmp_path, export)
    save(export / "labelmap.txt", "lesion\n")
    with pytest.raises(ValueError, match="labelmap.txt: expected lines 'name:red,green,blue::', found 'lesion'"):
        converted(tmp_path, export)


def test_labelme_shapes(tmp_path, scans, capsys):
    picture = base64.b64encode(encoded(np.array([[1, 0], [0, 1]], "uint8"))).decode()
    shapes = [
        {"shape_type": "rectangle", "points": [[8.0, 4.0], [2.0, 1.0]]},
        {"shape_type": "mask", "points": [[10.0, 6.0], [11.0, 7.0]], "mask": picture},
        {"shape_type": "circle", "points": [[1.5, 6.5], [1.5, 7.5]]},
        {"shape_type": "point", "points": [[1.0, 1.0]]},
    ]
    save(scans / "a.json", labelme(*shapes))
    save(scans / "b.json", labelme({}, path="..\\scans\\b.png"))
    assert main([str(scans), "--output", str(tmp_path / "made")]) == 0
    expected = expected_box()
    expected[6, 10] = expected[7, 11] = 1
    expected[6, :3] = expected[5, 1] = expected[7, 1] = 1
    np.testing.assert_array_equal(mask_of(tmp_path / "made"), expected)
    np.testing.assert_array_equal(mask_of(tmp_path / "made", "b"), expected_box())
    assert "not read, no areas: 1 point" in capsys.readouterr().out


def test_label_studio_regions(tmp_path, scans):
    rectangle = result("rectanglelabels", {"x": 0, "y": 75, "width": 100 / 6, "height": 25, "rotation": 0})
    ellipse = result("ellipselabels", {"x": 75, "y": 75, "radiusX": 100 / 12, "radiusY": 100 / 8, "rotation": 0})
    tasks = [task(percent_box(), rectangle, ellipse), task(image="/data/upload/3/1a2b3c4d-b.png")]
    expected = expected_box()
    expected[6:, :2] = 1
    expected[5:7, 8:10] = 1
    np.testing.assert_array_equal(mask_of(converted(tmp_path, save(tmp_path / "tasks.json", tasks))), expected)
    brush = result("brushlabels", {"format": "rle", "rle": encode_brush(expected > 0)})
    local = [task(brush, image="/data/local-files/?d=work/scans/a.png")]
    np.testing.assert_array_equal(mask_of(converted(tmp_path, save(tmp_path / "tasks.json", local))), expected)
    quarter = result("rectanglelabels", {"x": 50, "y": 25, "width": 25, "height": 12.5, "rotation": 90})
    folder = converted(tmp_path, save(tmp_path / "tasks.json", [task(quarter)]))
    assert set(map(tuple, np.argwhere(mask_of(folder)))) == {(2, 5), (3, 5), (4, 5)}  # turned about its corner


def test_label_studio_annotations_that_count(tmp_path, scans, capsys):
    """Cancelled ones and predictions are none; of several the ground truth is one."""
    two = task(percent_box())
    two["annotations"].append({"id": 12, "result": [], "was_cancelled": False, "ground_truth": False})
    file = save(tmp_path / "tasks.json", [two])
    with pytest.raises(ValueError, match="task 5: 1a2b3c4d-a.png has 2 annotations, 0 of them the ground truth"):
        converted(tmp_path, file)
    two["annotations"][0]["ground_truth"] = True
    cancelled = task(percent_box(), image="/data/upload/3/1a2b3c4d-b.png", was_cancelled=True)
    cancelled["predictions"] = [{"result": [percent_box()]}]
    save(file, [two, cancelled])
    arguments = [str(file), "--images", str(scans), "--output", str(tmp_path / "made"), "--empty", "background"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "cancelled annotations that were left out: 1" in printed
    assert "images with predictions that nobody has made annotations: 1" in printed
    assert [file.name for file in (tmp_path / "made/labeled/masks").iterdir()] == ["a.png"]


def test_label_studio_regions_with_the_label_beside_them(tmp_path, scans, capsys):
    value = percent_box()["value"] | {"labels": ["lesion"]}
    del value["polygonlabels"]
    bare = {**percent_box(), "type": "polygon", "value": {"points": value["points"]}}
    choice = {"id": "c", "type": "choices", "from_name": "view", "to_name": "image", "value": {"choices": ["good"]}}
    file = save(tmp_path / "tasks.json", [task(bare, {**percent_box(), "type": "labels", "value": value}, choice)])
    assert main([str(file), "--images", str(scans), "--output", str(tmp_path / "made")]) == 0
    np.testing.assert_array_equal(mask_of(tmp_path / "made"), expected_box())
    assert "not read, no areas: 1 choices\n" in capsys.readouterr().out


# Which file is meant


@pytest.mark.parametrize(
    ("there", "named", "found"),
    [
        ("benign (1).png", "/data/upload/3/1a2b3c4d-benign_1.png", "benign (1)"),
        ("P1/a.png", "work/scans/P1/a.png", "P1__a"),
        ("P1/a.png", "P1__a.png", "P1__a"),
        ("P1/a.png", "a.png", "P1__a"),
        ("ä b.png", "https://host/x/%C3%A4%20b.png?token=1", "ä b"),
        ("deadbeef-a.png", "/data/local-files/?d=deadbeef-a.png", "deadbeef-a"),
    ],
)
def test_names_of_images(tmp_path, there, named, found):
    save_images(tmp_path / "scans", there, "other.png")
    folder = converted(tmp_path, save(tmp_path / "tasks.json", [task(percent_box(), image=named)]))
    assert [file.stem for file in (folder / "labeled/images").iterdir()] == [found]
    np.testing.assert_array_equal(mask_of(folder, found), expected_box())


def test_names_that_fit_no_file_or_two(tmp_path):
    scans = save_images(tmp_path / "scans", "P1/a.png", "P2/a.png", "P1/b.png")

    def fails(name, kind, match):
        file = save(tmp_path / "annotations.xml", cvat(cvat_polygon(), name=name))
        with pytest.raises(kind, match=match):
            converted(tmp_path, file)

    fails("a.png", ValueError, "'a.png' may be P1/a.png or P2/a.png")
    fails("P3/b.png", FileNotFoundError, "P3/b.png is not in")  # another patient's
    fails("../../etc/b.png", ValueError, "names '../../etc/b.png', which lies outside of .*scans")
    second = f'<image id="1" name="P1__b.png" width="{WIDTH}" height="{HEIGHT}">{cvat_polygon()}</image>'
    file = save(tmp_path / "annotations.xml", cvat(cvat_polygon(), name="P1/b.png", images=second))
    with pytest.raises(ValueError, match="P1__b.png is the image P1/b.png, and so is P1/b.png of .*; keep one"):
        converted(tmp_path, file)
    Image.open(scans / "P1/b.png").save(scans / "P1/b.bmp")
    second = f'<image id="1" name="P1/b.bmp" width="{WIDTH}" height="{HEIGHT}">{cvat_polygon()}</image>'
    save(file, cvat(cvat_polygon(), name="P1/b.png", images=second))
    with pytest.raises(ValueError, match="P1/b.bmp and P1/b.png would have the same name but for the suffix"):
        converted(tmp_path, file)
    assert not list(tmp_path.glob("made*")) and not list(tmp_path.glob(".partial*"))


# What is wrong with an export


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.json", "{", "a.json: is damaged, or no JSON"),
        ("a.json", '{"x": 1}', "is the JSON of no tool that is read; expected COCO"),
        ("a.json", "[" * 100000, "a.json: is damaged, or no JSON"),
        ("a.xml", "<annotations><image", "a.xml: is damaged, or no XML"),
        ("a.xml", '<!DOCTYPE a [<!ENTITY b "c">]><annotations>&b;</annotations>', "a.xml: declares a document type"),
        ("a.xml", "<osm></osm>", "begins with <osm>, not <annotations>"),
        ("a.xml", "<annotations><track/></annotations>", "holds tracks of a video"),
        ("a.json", coco(coco_polygon(image_id=1)), r"annotations\[0\]: image_id 1 is no image of the file"),
        ("a.json", coco(coco_polygon(category_id=1)), r"annotations\[0\]: category_id 1 is no category"),
        ("a.json", coco({"segmentation": [[1, 2, 3]]}), "a polygon has 3 numbers, not pairs"),
        ("a.json", coco({"segmentation": [[1, 2, 3, float("nan"), 5, 6]]}), "`points` must be a number .* found nan"),
        ("a.json", coco({"segmentation": {"size": [8, 11], "counts": [88]}}), r"\[8, 11\] .*, its image \[8, 12\]"),
        ("a.json", coco({"segmentation": {"size": [8, 12], "counts": [90]}}), "runs are of 90 pixels, .* of 96"),
        ("a.json", coco(images=("a.png",), categories=((3, "x"), (3, "y"))), "id 3 is 'x' and 'y'"),
        ("a.xml", cvat('<polygon label="lesion" points="1,2;3"/>'), "polygon 1: its points must be written x,y;x,y"),
        ("a.xml", cvat('<box label="lesion" xtl="1" ytl="1" xbr="2"/>'), "box 1: <box> must have the attribute `ybr`"),
        ("a.xml", cvat('<polygon points="1,2;3,4;5,5"/>'), "<polygon> must have the attribute `label`"),
        (
            "a.xml",
            cvat('<mask label="lesion" rle="1, 2" left="0" top="0" width="2" height="2"/>'),
            "mask 1: its runs are of 3 pixels, its size is of 4",
        ),
        ("a.json", labelme({"shape_type": "circle"}), r"shapes\[0\]: a circle must have 2 points, found 4"),
        ("a.json", labelme({"points": [[1, 2], [3]]}), "its points must be a list of pairs"),
        (
            "a.json",
            labelme({"shape_type": "mask", "points": [[1, 1], [2, 2]], "mask": "????"}),
            "its mask cannot be decoded",
        ),
        ("a.json", [task(percent_box(image_rotation=90))], "was drawn on the turned image"),
        ("a.json", [task(percent_box(original_width=None))], "`original_width` must be a number"),
        ("a.json", [{**task(), "data": {"x": "1"}}], "which of {'x': '1'} is the image is not clear"),
        ("a.json", [task({**percent_box(), "value": {"points": BOX, "labels": ["a", "b"]}})], "must have one label"),
        ("a.json", coco(), "holds no annotation of an area; nothing was written|there must be 1 to 254 classes"),
    ],
)
def test_a_broken_export_is_one_sentence_and_nothing_is_written(tmp_path, scans, capsys, name, content, match):
    file = save(tmp_path / name, content)
    assert main([str(file), "--images", str(scans), "--output", str(tmp_path / "made")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    with pytest.raises(ValueError, match=match):
        raise ValueError(error)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "scans"])


def test_whatever_is_missing_in_json_is_a_sentence(tmp_path, scans):
    """Every entry in turn is left out, or of another kind."""
    brush = result("brushlabels", {"format": "rle", "rle": encode_brush(expected_box() > 0)})
    exports = [
        coco(coco_polygon(), {"segmentation": {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}}),
        labelme({}, {"shape_type": "circle", "points": [[1, 2], [2, 2]]}),
        [task(percent_box(), brush)],
    ]

    def places(content, path=()):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield (*path, key)
            if isinstance(value, dict | list) and len(value) < 9:
                yield from places(value, (*path, key))

    wrong = 0
    for export in exports:
        for *path, last in places(export):
            for value in (None, "x", -1, [], 1e30):
                broken = copy.deepcopy(export)
                inner = broken
                for key in path:
                    inner = inner[key]
                inner[last] = value
                try:
                    made = converted(tmp_path, save(tmp_path / "export.json", broken))
                    assert (made / "labeled/masks/a.png").is_file()
                except (ValueError, FileNotFoundError, ImportError) as error:
                    assert "\n" not in str(error)
                    wrong += 1
    assert wrong > 100


def test_sizes_that_differ_are_both_named(tmp_path, scans):
    save_images(scans, "a.png", size=(9, WIDTH))
    file = save(tmp_path / "export.json", coco(coco_polygon()))
    with pytest.raises(ValueError, match=r"a.png: its image has \(8, 12\) .* and .*a.png has \(9, 12\)"):
        converted(tmp_path, file)
    assert not list(tmp_path.glob("made*"))


# Labels


def test_labels_and_classes(tmp_path, scans, capsys):
    shapes = cvat_polygon("benign") + cvat_polygon("malignant", dx=3) + cvat_polygon("unsure", dx=4)
    file = save(tmp_path / "annotations.xml", cvat(shapes, labels=("never", "malignant", "benign", "unsure")))
    with pytest.raises(ValueError, match="the label 'unsure' is none of 'background', 'benign', 'malignant'; name it"):
        converted(tmp_path, file, classes=["lesion=benign,malignant"])
    mask = mask_of(converted(tmp_path, file, classes=["lesion=benign,malignant"], ignore="unsure"))
    expected = expected_box()
    expected[1:4, 5:11], expected[1:4, 6:12] = 1, 255
    np.testing.assert_array_equal(mask, expected)
    folder = converted(tmp_path, file, leave_out=["unsure"])  # in the order of the export, unused ones apart
    assert (folder / "classes.txt").read_text() == "malignant\nbenign\n"
    assert mask_of(folder)[1, 2] == 2 and mask_of(folder)[1, 10] == 1
    command = [str(file), "--images", str(scans), "--output", str(tmp_path / "z"), "--classes", "benign", "malignant"]
    assert main([*command, "--leave-out", "unsure"]) == 0
    assert "left out by their label: 1 unsure" in capsys.readouterr().out and mask_of(tmp_path / "z")[1, 2] == 1
    with pytest.raises(ValueError, match="'benign' stands for two things"):
        converted(tmp_path, file, classes=["benign", "x=benign"])


def test_a_label_called_background_cuts_holes(tmp_path, scans):
    hole = '<box label="background" xtl="3" ytl="2" xbr="5" ybr="3" z_order="0"></box>'
    folder = converted(tmp_path, save(tmp_path / "annotations.xml", cvat(cvat_polygon() + hole)))
    expected = expected_box()
    expected[2, 3:5] = 0
    np.testing.assert_array_equal(mask_of(folder), expected)
    assert (folder / "classes.txt").read_text() == "lesion\n"


# Images without areas


def test_images_on_which_nothing_is_drawn(tmp_path, capsys):
    scans = save_images(tmp_path / "scans", "a.png", "b.png", "c.png", "d.png")
    point = {"segmentation": [], "image_id": 9}
    file = save(tmp_path / "x.json", coco(coco_polygon(), point, images=("a.png", "b.png", "c.png")))
    command = [str(file), "--images", str(scans), "--output"]
    assert main([*command, str(tmp_path / "skip"), "--unlabeled"]) == 0
    printed = capsys.readouterr().out
    assert "nothing is drawn on b.png: taken as not annotated; --empty background" in printed
    assert "left out, as only what is no area is drawn on them: c.png" in printed
    assert sorted(file.name for file in (tmp_path / "skip/unlabeled").iterdir()) == ["b.png", "c.png", "d.png"]
    assert main([*command, str(tmp_path / "background"), "--empty", "background"]) == 0
    printed = capsys.readouterr().out
    assert "images with nothing drawn on them, taken as background: 1" in printed
    assert "other images of" in printed and ": 2 were left; --unlabeled" in printed
    assert sorted(file.name for file in (tmp_path / "background/labeled/masks").iterdir()) == ["a.png", "b.png"]
    assert not mask_of(tmp_path / "background", "b").any()


def test_annotations_without_a_pixel_are_named(tmp_path, scans, capsys):
    line = {"segmentation": [[1.0, 1.0, 5.0, 1.0]]}
    outside = {"segmentation": [[50, 50, 60, 50, 60, 60]], "image_id": 8}
    file = save(tmp_path / "x.json", coco(coco_polygon(), line, outside, images=("a.png", "b.png")))
    assert main([str(file), "--images", str(scans), "--output", str(tmp_path / "made"), "--unlabeled"]) == 0
    printed = capsys.readouterr().out
    assert "annotations that cover no pixel, left out: 2, such as" in printed and "annotations[1] in a.png" in printed
    assert "left out, as no annotation of them covers a pixel: b.png" in printed
    assert [file.name for file in (tmp_path / "made/unlabeled").iterdir()] == ["b.png"]


# The folder that is written


def test_the_output_is_whole_or_not_there(tmp_path, scans):
    file = save(tmp_path / "x.json", coco(coco_polygon(), coco_polygon(image_id=8), images=("a.png", "b.png")))
    (scans / "b.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="b.png: cannot be decoded|b.png: no known format"):
        converted(tmp_path, file)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scans", "x.json"]
    save_images(scans, "b.png")
    (tmp_path / ".partial-made/labeled").mkdir(parents=True)  # left by a process that was killed
    import_annotations([file], tmp_path / "made", scans)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "scans", "x.json"]
    with pytest.raises(FileExistsError, match="made.labeled is there already"):
        import_annotations([file], tmp_path / "made", scans)
    with pytest.raises(FileExistsError, match="scans is not empty and no folder of images"):
        import_annotations([file], scans, scans)


def test_a_test_part_is_added_with_the_same_classes(tmp_path, scans):
    train = save(tmp_path / "train.json", coco(coco_polygon()))
    test = save(tmp_path / "test.json", coco(coco_polygon(), images=("b.png",)))
    import_annotations([train], tmp_path / "made", scans)
    with pytest.raises(ValueError, match="made has the classes lesion, these are polyp; name the same"):
        import_annotations([test], tmp_path / "made", scans, classes=["polyp=lesion"], part="test")
    import_annotations([test], tmp_path / "made", scans, part="test")
    save_images(tmp_path / "made/unlabeled", "c.png")
    folder = data.read_folder(tmp_path / "made", image_size=16)
    assert list(folder.labeled.names) == ["a"] and list(folder.test.names) == ["b"]


def test_exif_orientation(tmp_path):
    """Tools show images turned; one that does not is found by the size that it gives."""
    exif = Image.Exif()
    rng = np.random.default_rng(3)
    for orientation in range(1, 9):
        exif[0x0112] = orientation
        sideways = orientation >= 5
        stored = rng.integers(0, 255, (WIDTH, HEIGHT) if sideways else (HEIGHT, WIDTH), "uint8")
        (tmp_path / f"{orientation}/scans").mkdir(parents=True)
        Image.fromarray(stored).save(tmp_path / f"{orientation}/scans/a.png", exif=exif)
        file = save(tmp_path / f"{orientation}/x.json", coco(coco_polygon()))
        folder = converted(tmp_path / str(orientation), file)
        save_images(folder / "unlabeled", "c.png")
        read = data.read_folder(folder, image_size=WIDTH, keep_aspect=True)
        np.testing.assert_array_equal(read.labeled.masks[0][2:10], expected_box(), err_msg=str(orientation))
        export_annotations(folder, tmp_path / f"{orientation}/out", "coco", tolerance=0)  # upright again
        image = json.loads((tmp_path / f"{orientation}/out/instances.json").read_text())["images"][0]
        assert (image["height"], image["width"]) == (HEIGHT, WIDTH)
    content = coco(coco_polygon())  # drawn on the stored pixels
    save_images(tmp_path / "scans", "x.png")
    Image.fromarray(rng.integers(0, 255, (HEIGHT, WIDTH), "uint8")).save(tmp_path / "scans/a.png", exif=exif)
    folder = converted(tmp_path, save(tmp_path / "y.json", content))
    save_images(folder / "unlabeled", "c.png")
    read = data.read_folder(folder, image_size=WIDTH, keep_aspect=True)
    np.testing.assert_array_equal(read.labeled.masks[0][:, 2:10], np.rot90(expected_box()))


# Out again


def folder_of_masks(tmp_path, masks, stems=None):
    """A folder as `from_folder` reads it."""
    for index, mask in enumerate(masks):
        stem = stems[index] if stems else f"case {index}"
        save_images(tmp_path / "given/labeled/images", f"{stem}.png", size=mask.shape)
        (tmp_path / "given/labeled/masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(tmp_path / f"given/labeled/masks/{stem}.png")
    return tmp_path / "given"


def masks_with_holes():
    """Three classes with holes, several parts, parts that touch at a corner, and the border of the image."""
    rng = np.random.default_rng(4)
    ring = np.zeros((20, 31), "uint8")
    ring[2:12, 3:15], ring[5:9, 6:11] = 1, 0
    ring[6:8, 7:9] = 2
    ring[12:, 15:] = 2
    ring[0, 30] = ring[15:, 0] = 1
    return [ring, (rng.random((17, 23)) < 0.4).astype("uint8") * 2, np.ones((5, 9), "uint8"), np.zeros((6, 7), "uint8")]


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("how", ["mask", "polygon"])
def test_every_pixel_comes_back(tmp_path, tool, how):
    """As masks, and as outlines that are not simplified: with holes, parts and classes side by side."""
    given, masks = folder_of_masks(tmp_path, masks_with_holes()), masks_with_holes()
    out, back = tmp_path / "out", tmp_path / "back"
    arguments = [str(given), "--to", tool, "--output", str(out), "--classes", "lesion", "polyp", "--shapes", how]
    assert main([*arguments, "--tolerance", "0"]) == 0
    images = ["--images", str(out if tool == "labelme" else out / "images")]
    classes = ["--classes", "lesion", "polyp", "--empty", "background"]
    named = {"coco": "instances.json", "cvat": "annotations.xml", "labelme": "", "labelstudio": "tasks.json"}[tool]
    if tool == "labelstudio":  # what the tool exports once the predictions were accepted
        tasks = json.loads((out / named).read_text())
        accepted = [{**task, "annotations": task["predictions"], "predictions": []} for task in tasks]
        save(out / named, accepted)
    assert main([str(out / named), *images, *classes, "--output", str(back)]) == 0
    for index, mask in enumerate(masks):
        np.testing.assert_array_equal(mask_of(back, f"case {index}"), mask, err_msg=f"{index}")
    kinds = (out / (named or "case 1.json")).read_text()
    assert ("polygon" in kinds) == (how == "polygon" and tool != "coco")


def test_outlines_stay_near_and_holes_exact(tmp_path):
    masks = [(mask > 0).astype("uint8") for mask in ultrasound_phantoms(4, 96)[1]]
    masks[0][30:60, 30:60], masks[0][40:50, 40:50] = 1, 0
    given = folder_of_masks(tmp_path, masks)
    export_annotations(given, tmp_path / "out", "labelme")
    import_annotations([tmp_path / "out"], tmp_path / "back")
    total = 0
    for index, mask in enumerate(masks):
        again = mask_of(tmp_path / "back", f"case {index}")
        changed = (again != mask).sum()
        assert changed <= MAX_CHANGE * mask.sum()
        total += changed
    assert total > 0
    assert not mask_of(tmp_path / "back", "case 0")[40:50, 40:50].any()


def test_files_for_the_tools_are_as_they_want_them(tmp_path, capsys):
    mask = np.zeros((10, 16), "uint8")
    mask[2:6, 3:9], mask[4, 5] = 1, 0
    given = folder_of_masks(tmp_path, [mask], ["b ä (1)"])
    for tool in TOOLS:
        export_annotations(given, tmp_path / tool, tool)
    coco_file = json.loads((tmp_path / "coco/instances.json").read_text())
    assert coco_file["categories"] == [{"id": 1, "name": "lesion", "supercategory": ""}]
    annotation = coco_file["annotations"][0]
    assert (annotation["area"], annotation["bbox"], annotation["iscrowd"]) == (23, [3, 2, 6, 4], 1)
    assert annotation["segmentation"]["size"] == [10, 16] and sum(annotation["segmentation"]["counts"]) == 160
    export = read_export(tmp_path / "cvat")
    assert export.labels == ["lesion"] and export.images[0].size == (10, 16)
    assert 'rle="0, 14, 1, 9" left="3" top="2" width="6" height="4"' in (tmp_path / "cvat/annotations.xml").read_text()
    shape = json.loads((tmp_path / "labelme/b ä (1).json").read_text())["shapes"][0]
    assert shape["points"] == [[3, 2], [8, 5]] and shape["shape_type"] == "mask"
    assert np.asarray(Image.open(io.BytesIO(base64.b64decode(shape["mask"])))).shape == (4, 6)
    assert (tmp_path / "labelme/b ä (1).png").is_file() and (tmp_path / "cvat/images/b ä (1).png").is_file()
    made = json.loads((tmp_path / "labelstudio/tasks.json").read_text())[0]
    assert made["data"]["image"] == "/data/local-files/?d=b%20%C3%A4%20%281%29.png"
    region = made["predictions"][0]["result"][0]
    assert (region["type"], region["from_name"], region["original_width"]) == ("brushlabels", "brush", 16)
    assert '<BrushLabels name="brush" toName="image">' in (tmp_path / "labelstudio/label_config.xml").read_text()


def test_masks_that_predict_wrote(tmp_path):
    """Without a folder of images beside them, in sub-folders, called with or without suffix."""
    scans = save_images(tmp_path / "scans", "P1/a.png", "P2/a.png")
    for name in ("P1/a.png", "P2/a.png.png"):
        (tmp_path / "predicted/masks" / name).parent.mkdir(parents=True)
        Image.fromarray(expected_box()).save(tmp_path / "predicted/masks" / name)
    with pytest.raises(FileNotFoundError, match="images is missing; say where the images are with --images"):
        export_annotations(tmp_path / "predicted", tmp_path / "out", "labelme")
    export_annotations(tmp_path / "predicted", tmp_path / "out", "labelme", scans)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("P1__a.json", "P1__a.png", "P2__a.json", "P2__a.png")
    ]
    save(tmp_path / "names.txt", "P2/a.png\n")
    command = [
        str(tmp_path / "predicted"),
        "--to",
        "labelme",
        "--images",
        str(scans),
        "--output",
        str(tmp_path / "one"),
    ]
    assert main([*command, "--only", str(tmp_path / "names.txt")]) == 0
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["P2__a.json", "P2__a.png"]
    # The flat names of the tool's files are found again in the sub-folders.
    import_annotations([tmp_path / "one"], tmp_path / "made", scans, unlabeled=True)
    np.testing.assert_array_equal(mask_of(tmp_path / "made", "P2__a"), expected_box())
    assert [path.name for path in (tmp_path / "made/unlabeled").iterdir()] == ["P1__a.png"]


@pytest.mark.parametrize(
    ("masks", "options", "match"),
    [
        ([expected_box(2)], {}, "case 0.png: holds 2, a class without a name; name the classes with --classes"),
        ([expected_box(3)], {"classes": ["a", "b"]}, r"case 0.png: holds \[3\]; expected classes 0..2"),
        (
            [expected_box(255)],
            {"classes": ["a", "b"]},
            "holds pixels that are ignored .255.; name a label",
        ),
        ([expected_box()], {"only": ["x.png"]}, "--only names x.png, which has no mask in"),
        ([expected_box()], {"tool": "paint"}, "`tool` must be one of coco, cvat, labelme, labelstudio, found 'paint'"),
        ([expected_box()], {"tolerance": -1}, "`tolerance` must be from 0 to 10 pixels, found -1"),
    ],
)
def test_masks_that_cannot_be_written(tmp_path, masks, options, match):
    given = folder_of_masks(tmp_path, [mask.astype("uint8") for mask in masks])
    with pytest.raises((ValueError, FileNotFoundError), match=match):
        export_annotations(given, tmp_path / "out", **{"tool": "coco", **options})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["given"]


def test_ignored_pixels_go_there_and_back(tmp_path):
    mask = expected_box()
    mask[6:, :3] = 255
    given = folder_of_masks(tmp_path, [mask])
    rule = {0: 0, 1: 1, 255: 255}
    export_annotations(given, tmp_path / "out", "cvat", ignore="unsure", mask_values=rule, tolerance=0)
    import_annotations([tmp_path / "out"], tmp_path / "back", tmp_path / "out/images", ignore="unsure")
    np.testing.assert_array_equal(mask_of(tmp_path / "back", "case 0"), mask)
    assert (tmp_path / "back/classes.txt").read_text() == "lesion\n"


def test_flags_of_the_other_way_are_refused(tmp_path, capsys):
    for arguments, match in ((["--shapes", "mask"], "--shapes goes with --to"), (["--only", "x"], "--only goes with")):
        with pytest.raises(SystemExit) as stop:
            main(["x", "--output", "y", *arguments])
        assert stop.value.code == 2 and match in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["x", "--to", "cvat", "--output", "y", "--empty", "skip"])
    assert "--empty does not go with --to" in capsys.readouterr().err


# A round of annotation


def test_a_round_of_annotation(tmp_path):
    """Phantoms annotated in LabelMe, read; a model's masks corrected in Label Studio, read together with the first."""
    images, masks = ultrasound_phantoms(5, 64)[:2]
    masks = (masks > 0).astype("uint8")
    (tmp_path / "scans").mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image.squeeze()).save(tmp_path / f"scans/scan ({index}).png")
    for index in range(2):
        shapes = [
            {"points": simplified(region, 0, 64, 64).tolist(), "shape_type": "polygon"}
            for region in regions(masks[index] > 0)
        ]
        content = labelme(*shapes, path=f"../scans/scan ({index}).png") | {"imageHeight": 64, "imageWidth": 64}
        save(tmp_path / f"first/{index}.json", content)
    import_annotations([tmp_path / "first"], tmp_path / "round 1", tmp_path / "scans", unlabeled=True)
    read = data.from_folder(tmp_path / "round 1", image_size=64)
    np.testing.assert_array_equal(read.labeled.masks, masks[:2])
    assert len(read.unlabeled) == 3
    (tmp_path / "predicted/masks").mkdir(parents=True)
    for index in (2, 4):
        Image.fromarray(np.roll(masks[index], 3)).save(tmp_path / f"predicted/masks/scan ({index}).png")
    export_annotations(tmp_path / "predicted", tmp_path / "out", "labelstudio", tmp_path / "round 1/unlabeled")
    tasks = json.loads((tmp_path / "out/tasks.json").read_text())
    for number, corrected in zip((2, 4), tasks, strict=True):
        rle = encode_brush(masks[number] > 0)
        region = corrected["predictions"][0]["result"][0]
        region |= {"type": "brushlabels", "value": {"format": "rle", "rle": rle, "brushlabels": ["lesion"]}}
        corrected["annotations"] = [{"result": [region], "was_cancelled": False}]
    second = save(tmp_path / "second.json", tasks)
    import_annotations([tmp_path / "first", second], tmp_path / "round 2", tmp_path / "scans", unlabeled=True)
    read = data.from_folder(tmp_path / "round 2", image_size=64)
    assert list(read.labeled.names) == [f"scan ({index})" for index in (0, 1, 2, 4)]
    np.testing.assert_array_equal(read.labeled.masks, masks[[0, 1, 2, 4]])
    assert list(read.unlabeled.names) == ["scan (3)"]


def test_masks_that_are_called_otherwise_go_out_and_come_back(tmp_path):
    """Names as a published set has them: `bus_1` and `mask_1`."""
    for place in ("images", "masks"):
        (tmp_path / "mine" / place).mkdir(parents=True)
    lesion = np.zeros((HEIGHT, WIDTH), "uint8")
    lesion[3:9, 4:12] = 255
    Image.fromarray(lesion // 2).save(tmp_path / "mine/images/bus_1.png")
    Image.fromarray(lesion).save(tmp_path / "mine/masks/mask_1.png")
    with pytest.raises(FileNotFoundError, match="mask_1.png: the mask has no image"):
        export_annotations(tmp_path / "mine", tmp_path / "out", "labelme")
    words = [str(tmp_path / "mine"), "--to", "labelme", "--mask-name", "bus_{} -> mask_{}"]
    assert main([*words, "--output", str(tmp_path / "out")]) == 0
    import_annotations([tmp_path / "out"], tmp_path / "back")
    np.testing.assert_array_equal(mask_of(tmp_path / "back", "bus_1"), lesion // 255)
    with pytest.raises(ValueError, match="`mask_name` must hold {}"):
        export_annotations(tmp_path / "mine", tmp_path / "again", "labelme", mask_name="mask")


def test_names_that_end_in_numbers_are_images_of_their_own(tmp_path):
    """As DICOM files are called without a suffix; the last number is none."""
    for part in ("images", "masks"):
        (tmp_path / "given/labeled" / part).mkdir(parents=True)
    mask = np.zeros((20, 20), "uint8")
    mask[5:10, 5:10] = 1
    for name in ("1.2.3.1", "1.2.3.2"):
        (tmp_path / "given/labeled/images" / name).write_bytes(dicom(np.full((20, 20), 90, "uint8")))
        Image.fromarray(mask).save(tmp_path / f"given/labeled/masks/{name}_mask.png")
    for tool in TOOLS:
        export_annotations(tmp_path / "given", tmp_path / tool, tool, mask_name="{}_mask")
    assert sorted(file.name for file in (tmp_path / "labelme").glob("*.json")) == ["1.2.3.1.json", "1.2.3.2.json"]
    for name in ("1.2.3.1", "1.2.3.2"):  # masks that are DICOM files, too
        (tmp_path / f"given/labeled/masks/{name}_mask.png").unlink()
        (tmp_path / f"given/labeled/masks/{name}").write_bytes(dicom(mask))
    export_annotations(tmp_path / "given", tmp_path / "again", "labelme")
    assert sorted(file.name for file in (tmp_path / "again").glob("*.json")) == ["1.2.3.1.json", "1.2.3.2.json"]
    import_annotations([tmp_path / "labelme"], tmp_path / "back", empty="background")
    assert sorted(file.name for file in (tmp_path / "back/labeled/masks").iterdir()) == ["1.2.3.1.png", "1.2.3.2.png"]
