"""The real polyp images through their builders, compared with what was measured on them."""

import csv

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="TFDS builders need TensorFlow")
pytest.importorskip("tensorflow_datasets", reason="TFDS builders need tensorflow-datasets")

from keras_semimed.data.tfds import tfds_examples  # noqa: E402
from tests.conftest import SHARED  # noqa: E402

# Smallest, median and largest polyp as a part of the image.
MEASURED = {"Kvasir-SEG-256x256": (0.0058, 0.1203, 0.8121), "CVC-ClinicDB": (0.0095, 0.0756, 0.3576)}


def manifest(folder):
    """Names of the images that the folder should hold, with their sequences where they have any."""
    if folder == "CVC-ClinicDB":
        with (SHARED / "data/manifests/CVC-ClinicDB_sequences.csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["in_subset"] == "1"]
        return {row["frame"]: f"sequence_{int(row['sequence']):02d}" for row in rows}
    column = "original_in_subset" if folder == "Kvasir-SEG" else "resized_in_subset"
    with (SHARED / "data/manifests/Kvasir-SEG_original_sha256.csv").open(newline="") as file:
        rows = [row["path"] for row in csv.DictReader(file) if row[column] == "1" and row["path"].startswith("images/")]
    names = [row.removeprefix("images/").removesuffix(".jpg") for row in rows]
    return dict(zip(names, names, strict=True))


@pytest.mark.parametrize(
    "name, folder, count",
    [("kvasir_seg", "Kvasir-SEG-256x256", 300), ("kvasir_seg", "Kvasir-SEG", 5), ("cvc_clinicdb", "CVC-ClinicDB", 58)],
)
def test_prepared_images_have_the_names_groups_and_fractions_of_the_manifests(tmp_path, name, folder, count):
    if not (SHARED / "data" / folder).is_dir():
        pytest.skip(f"needs {folder} in shared/data, which is not on this machine")
    rows = list(tfds_examples(name, SHARED / "data" / folder, tmp_path))
    assert {row.name: row.group for row in rows} == manifest(folder) and len(rows) == count
    assert all(row.label is None and set(np.unique(row.mask)) == {0, 1} for row in rows)
    if folder in MEASURED:
        fractions = [row.mask.mean() for row in rows]
        found = [min(fractions), np.median(fractions), max(fractions)]
        np.testing.assert_allclose(found, MEASURED[folder], atol=6e-5)
