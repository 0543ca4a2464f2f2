"""The published polyp splits: what the lists say, on whole data, on parts of them and on other data."""

import csv
import hashlib
from collections import Counter
from pathlib import Path

import pytest

from keras_semimed.data.splits import published as published_splits
from keras_semimed.data.splits.parts import PARTS
from keras_semimed.data.splits.published import SHARES, official_split, pranet_split, published_parts
from tests.conftest import SHARED

FOLDER = Path(published_splits.__file__).parents[1] / "published"
KVASIR = sorted(published_parts("pranet")["kvasir_seg"])
CVC = [str(frame) for frame in range(1, 613)]
BOTH = [f"kvasir_seg/{name}" for name in KVASIR] + [f"cvc_clinicdb/{name}" for name in CVC]
SIZES = {"kvasir_seg": (KVASIR, 900, 100, (90, 270, 450)), "cvc_clinicdb": (CVC, 550, 62, (55, 165, 275))}


def test_lists_are_those_with_the_published_hash_and_say_whose_they_are():
    content = (FOLDER / "polyp_splits.csv").read_bytes().replace(b"\r\n", b"\n")
    assert hashlib.sha256(content).hexdigest() == published_splits.SHA256
    assert published_splits.SHA256 == "2e3d1002b5df9906c23f93b2bf7c8422549b7909a2618053afd9b9d4a0d5fe34"
    notice = (FOLDER / "NOTICE.md").read_text(encoding="utf-8")
    for word in ("AnoK3111/LoCo", "MIT", "DebeshJha/Kvasir-SEG", "Bernal"):
        assert word in notice
    assert {file.name for file in FOLDER.iterdir()} == {"NOTICE.md", "cvc_clinicdb_sequences.csv", "polyp_splits.csv"}


def test_a_changed_list_is_refused(monkeypatch):
    monkeypatch.setattr(published_splits, "SHA256", "0" * 64)
    published_parts.cache_clear()
    with pytest.raises(ValueError, match="polyp_splits.csv was changed"):
        published_parts("pranet")
    published_parts.cache_clear()


def test_lists_hold_every_image_once():
    with (FOLDER / "polyp_splits.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert Counter(row["data_set"] for row in rows) == {"kvasir_seg": 1000, "cvc_clinicdb": 612}
    assert len({(row["data_set"], row["image"]) for row in rows}) == 1612
    assert sorted(published_parts("pranet")["cvc_clinicdb"], key=int) == CVC
    assert list(published_parts("official")) == ["kvasir_seg"]


@pytest.mark.parametrize("name", SIZES)
def test_pranet_split_has_the_published_sizes_and_nested_labelled_parts(name):
    names, train, test, counts = SIZES[name]
    splits = [pranet_split(names, share, data_set=name) for share in SHARES]
    for split, count in zip(splits, counts, strict=True):
        assert sorted(name for part in PARTS for name in getattr(split, part)) == sorted(names)
        assert len(split.labeled) == count and len(split.test) == test
        assert len(split.labeled + split.unlabeled + split.validation) == train
        assert len(split.validation) == round(0.15 * train)
        assert split == pranet_split(names[::-1], count, data_set=name)  # by number, in any order
        assert split.test == splits[0].test and split.validation == splits[0].validation
    assert set(splits[0].labeled) < set(splits[1].labeled) < set(splits[2].labeled)


def test_joined_sets_are_split_as_each_alone():
    joined = pranet_split(BOTH, 145)
    assert [len(getattr(joined, part)) for part in ("labeled", "test")] == [145, 162]
    for name, (names, *_) in SIZES.items():
        alone = pranet_split(names, 0.1, data_set=name)
        for part in ("labeled", "test"):
            found = [entry.removeprefix(f"{name}/") for entry in getattr(joined, part) if entry.startswith(f"{name}/")]
            assert found == list(getattr(alone, part))


def test_the_seed_draws_the_validation_part_and_nothing_else():
    first, second = (pranet_split(CVC, 0.3, seed, "cvc_clinicdb") for seed in (0, 1))
    assert first.labeled == second.labeled and first.test == second.test
    assert first.train_unlabeled() == second.train_unlabeled() and first.validation != second.validation


def test_official_split_has_the_published_sizes_and_draws_labelled_images_by_seed():
    splits = [official_split(KVASIR, labeled, 3) for labeled in (88, 0.1, 0.3, 264)]
    assert splits[0] == splits[1] and splits[2] == splits[3]
    assert [len(split.labeled) for split in splits] == [88, 88, 264, 264]
    assert {len(split.test) for split in splits} == {120} and {len(split.validation) for split in splits} == {132}
    assert set(splits[0].labeled) < set(splits[2].labeled)
    assert official_split(KVASIR, 88, 4).labeled != splits[0].labeled
    assert official_split(KVASIR, 88, 4).test == splits[0].test


def test_splits_never_change():
    found = [pranet_split(BOTH, 0.1).hash, official_split(KVASIR, 0.1).hash]
    assert found == ["22818626e547", "ba459740eaec"]


def test_missing_images_are_named_and_counted():
    with pytest.raises(
        ValueError, match=r"3 of its 612 images are not in the data \(.*\), e.g. '1', '10', '100';.*inter"
    ):
        pranet_split([name for name in CVC if name not in ("1", "10", "100")], data_set="cvc_clinicdb")
    with pytest.raises(ValueError, match="2 images of the data are not in it, e.g. 'new', 'other'"):
        official_split([*KVASIR, "new", "other"], 0.1)
    test = [name for name, part in published_parts("official")["kvasir_seg"].items() if part == "test"]
    with pytest.raises(
        ValueError, match=r"5 of its 1000 images are not in the data \(0 of the training, 5 of the test"
    ):
        official_split([name for name in KVASIR if name not in test[:5]], 0.1)


def test_the_intersection_is_kept_printed_and_has_another_hash(capsys):
    whole = pranet_split(CVC, 0.1, data_set="cvc_clinicdb", intersect=True)
    assert whole == pranet_split(CVC, 0.1, data_set="cvc_clinicdb") and not capsys.readouterr().out
    part = pranet_split([*CVC[:300], "other"], 0.1, data_set="cvc_clinicdb", intersect=True)
    test = [name for name in whole.test if int(name) <= 300]
    assert part.test == tuple(test) and set(part.labeled) == {name for name in whole.labeled if int(name) <= 300}
    assert part.hash != whole.hash and "other" not in part.unlabeled
    kept = f"kept {300 - len(test)} of 550 training and {len(test)} of 62 test images; 1 other images"
    assert kept in capsys.readouterr().out


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: pranet_split(CVC, 0.2, data_set="cvc_clinicdb"), r"labeled=0.2, but .*\(55, 165, 275\) images"),
        (lambda: pranet_split(CVC, 145, data_set="cvc_clinicdb"), "labeled=145, but the pranet split"),
        (lambda: pranet_split(CVC, data_set="busi"), "no images of 'busi'; it is one of kvasir_seg, cvc_clinicdb"),
        (lambda: official_split(CVC, 0.1, data_set="cvc_clinicdb"), "official split has no images of 'cvc_clinicdb'"),
        (lambda: pranet_split(CVC), "no name begins with kvasir_seg/ or cvc_clinicdb/"),
        (lambda: pranet_split([*CVC, "1"], data_set="cvc_clinicdb"), "holds a name twice"),
        (lambda: pranet_split(["5"], data_set="cvc_clinicdb", intersect=True), "leaves no (labelled|test) image"),
        (lambda: official_split(KVASIR, 800), "labeled=800, but only 748 training images can be labelled"),
        (lambda: official_split(KVASIR, 1.5), "labeled=1.5 is no share between 0 and 1"),
    ],
)
def test_what_does_not_fit_is_an_error(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def listed(path):
    """Ids of a published list, whatever its folder and ending."""
    return {Path(line).stem for line in (SHARED / "data/splits" / path).read_text().split()}


@pytest.fixture
def lists():
    if not (SHARED / "data/splits").is_dir():
        pytest.skip("needs the published lists in shared/data, which are not on this machine")
    return listed


def test_real_lists_say_the_same(lists):
    for share, file in ((0.1, "labeled_10.txt"), (0.3, "labeled_30.txt"), (0.5, "labeled_50.txt")):
        split = pranet_split(BOTH, share)
        assert {name.partition("/")[2] for name in split.labeled} == lists(f"polyp/{file}")
        assert {name.partition("/")[2] for name in split.test} == lists("polyp/test.txt")
        assert {name.partition("/")[2] for name in split.labeled + split.train_unlabeled()} == lists("polyp/train.txt")
    official = official_split(KVASIR, 0.1)
    assert set(official.test) == lists("Kvasir-SEG/val.txt")
    assert set(official.labeled + official.train_unlabeled()) == lists("Kvasir-SEG/train.txt")
