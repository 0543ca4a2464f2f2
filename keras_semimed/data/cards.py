"""Short data cards: what a data set is, where it comes from, what to know before using it."""

from __future__ import annotations

from typing import NamedTuple


class Card(NamedTuple):
    """The facts about one data set."""

    title: str
    class_names: tuple[str, ...]
    """The classes of images; none where a set has masks only."""
    study_classes: tuple[str, ...]
    """The classes that papers use, the default of `load`."""
    mask_names: tuple[str, ...]
    """What the values of a mask mean, from 0."""
    splits: tuple[str, ...]
    """The named splits that `load` takes for this set."""
    content: str
    licence: str
    source: str
    caution: str
    citation: str

    @property
    def num_classes(self) -> int:
        """Number of mask classes, background included."""
        return len(self.mask_names)


SPLIT_MEANINGS = {
    "paper": "7:3 at random within each class, as in the Hermes paper; images of one group lie on both sides",
    "leak_safe": "the same sizes with every group (patient or near-duplicates) on one side",
    "random": "at random, 7:3 unless `test` says otherwise; images of one group lie on both sides",
    "pranet": "PraNet's lists, with the labelled images of the LoCo experiments at 10, 30 and 50 %",
    "official": "the authors' 880 training and 120 test images",
    "sequence_safe": "at random with every sequence on one side",
}
"""What the named splits of `load` are."""

CARDS = {
    "busi": Card(
        title="BUSI: breast ultrasound images",
        class_names=("benign", "malignant", "normal"),
        study_classes=("benign", "malignant"),
        mask_names=("background", "lesion"),
        splits=("paper", "leak_safe", "random"),
        content="780 images of 600 patients (Baheya Hospital, Cairo, 2018): 437 benign, 210 malignant, 133 normal; "
        "lesion masks, 190x310 to 1048x719 pixels",
        licence="CC BY 4.0 (article), CC0 (Kaggle copy); check at the source",
        source="download Dataset_BUSI_with_GT (Kaggle: aryashah2k/breast-ultrasound-images-dataset) and give the zip "
        "or the extracted folder as manual_dir",
        caution="no patient ids and many near-duplicates, some of them across classes (benign (433) and malignant "
        "(145) are one file): use split='leak_safe', which misses some; 17 images have two or three masks, here "
        "joined; calipers and text are burnt in",
        citation="Al-Dhabyani W, Gomaa M, Khaled H, Fahmy A. Dataset of breast ultrasound images. Data in Brief 28 "
        "(2020) 104863. doi:10.1016/j.dib.2019.104863",
    ),
    "bus_bra": Card(
        title="BUS-BRA: breast ultrasound images with BI-RADS categories",
        class_names=("benign", "malignant"),
        study_classes=("benign", "malignant"),
        mask_names=("background", "lesion"),
        splits=("paper", "leak_safe", "random"),
        content="1,875 images of 1,064 patients (National Institute of Cancer, Rio de Janeiro): 1,268 benign, 607 "
        "malignant, proven by biopsy; BI-RADS 2: 562, 3: 463, 4: 693, 5: 157; four scanners",
        licence="its own, permissive (LICENSE.txt in the archive); citing the article is a condition",
        source="download BUSBRA.zip (doi.org/10.5281/zenodo.8231412) and give the zip or the extracted folder as "
        "manual_dir; a part of the images will do",
        caution="two views of one lesion are two images: use split='leak_safe', whose groups are patients, or the "
        "published folds (BusBraSource.folds with fold_split); the fold files' own validation columns part the views "
        "of 642 patients; widths and heights in the table are wrong for four images; side, age and logo are burnt in",
        citation="Gomez-Flores W, Gregorio-Calas MJ, de Albuquerque Pereira WC. BUS-BRA: A breast ultrasound dataset "
        "for assessing computer-aided diagnosis systems. Medical Physics 51(4) (2024) 3110-3123. doi:10.1002/mp.16812",
    ),
    "udiat": Card(
        title="UDIAT: breast ultrasound images, Dataset B",
        class_names=("benign", "malignant"),
        study_classes=("benign", "malignant"),
        mask_names=("background", "lesion"),
        splits=("paper", "leak_safe", "random"),
        content="163 images (UDIAT Diagnostic Centre, Sabadell): 109 benign and 54 malignant as papers on "
        "semi-supervised learning count, 110 and 53 as others do; the list beside the images decides",
        licence="an agreement signed with the authors: research only",
        source="the authors send it on request (helward.mmu.ac.uk/STAFF/M.Yap/dataset.php: sign the agreement for "
        "Breast Ultrasound Dataset B); give the zip or the folder with original, GT and DatasetB.xlsx as manual_dir",
        caution="no patient ids: groups are near-duplicates; a test part of about 49 images gives wide intervals; the "
        "reader was tested on made files in this layout, not on the images",
        citation="Yap MH, Pons G, Marti J, Ganau S, Sentis M, Zwiggelaar R, Davison AK, Marti R. Automated breast "
        "ultrasound lesions detection using convolutional neural networks. IEEE Journal of Biomedical and Health "
        "Informatics 22(4) (2018) 1218-1226. doi:10.1109/JBHI.2017.2731873",
    ),
    "phantom_ultrasound": Card(
        title="Ultrasound phantoms: made images for tests and demonstrations",
        class_names=("benign", "malignant"),
        study_classes=("benign", "malignant"),
        mask_names=("background", "lesion"),
        splits=("paper", "leak_safe", "random"),
        content="computed breast ultrasound with one lesion each, 128x128 pixels, the same on every machine",
        licence="as this package",
        source="made locally, nothing to download",
        caution="a score on phantoms says that the software works, nothing about patients",
        citation="this package",
    ),
    "kvasir_seg": Card(
        title="Kvasir-SEG: colonoscopy images of polyps",
        class_names=(),
        study_classes=(),
        mask_names=("background", "polyp"),
        splits=("pranet", "official", "random"),
        content="1,000 images (Vestre Viken Health Trust, Norway), at least one polyp in each; 332x487 to 1920x1072 "
        "pixels",
        licence="research and education only, no commercial use without written permission",
        source="download kvasir-seg.zip (datasets.simula.no/kvasir-seg) and give the zip or the extracted folder as "
        "manual_dir; a copy resized by others has the same layout",
        caution="no patient ids; dates, text and a navigation inset are burnt into many images; masks are JPEG files, "
        "read as polyp above 127",
        citation="Jha D, Smedsrud PH, Riegler MA, Halvorsen P, de Lange T, Johansen D, Johansen HD. Kvasir-SEG: A "
        "segmented polyp dataset. MultiMedia Modeling (2020) 451-462. doi:10.1007/978-3-030-37734-2_37",
    ),
    "cvc_clinicdb": Card(
        title="CVC-ClinicDB: colonoscopy frames of polyps",
        class_names=(),
        study_classes=(),
        mask_names=("background", "polyp"),
        splits=("pranet", "sequence_safe", "random"),
        content="612 frames of 29 sequences from 25 examinations (Hospital Clinic, Barcelona), 384x288 pixels",
        licence="research and education only, no commercial use",
        source="download CVC-ClinicDB (polyp.grand-challenge.org/CVCClinicDB, or the copy with PNG files on Kaggle: "
        "balraj98/cvcclinicdb) and give the zip or the extracted folder as manual_dir",
        caution="frames of a sequence are nearly the same picture: use split='sequence_safe'; in 'pranet' most "
        "sequences lie on both sides",
        citation="Bernal J, Sanchez FJ, Fernandez-Esparrach G, Gil D, Rodriguez C, Vilarino F. WM-DOVA maps for "
        "accurate polyp highlighting in colonoscopy. Computerized Medical Imaging and Graphics 43 (2015) 99-111. "
        "doi:10.1016/j.compmedimag.2015.02.007",
    ),
    "phantom_endoscopy": Card(
        title="Endoscopy phantoms: made images for tests and demonstrations",
        class_names=(),
        study_classes=(),
        mask_names=("background", "adenomatous", "hyperplastic"),
        splits=("random",),
        content="300 computed colonoscopy pictures, 128x128 pixels, the same on every machine: 209 show an adenomatous "
        "polyp, 60 a hyperplastic one, 49 none",
        licence="as this package",
        source="made locally, nothing to download",
        caution="a score on phantoms says that the software works, nothing about patients",
        citation="this package",
    ),
}


def card(name: str) -> Card:
    """Returns the card of a data set.

    Raises:
        ValueError: If there is no data set called `name`.
    """
    if name not in CARDS:
        raise ValueError(f"no data set is called {name!r}; known are {', '.join(sorted(CARDS))}")
    return CARDS[name]


def describe(name: str) -> None:
    """Prints a short data card: classes, what its splits mean, counts, licence, source, known flaws and citation.

    Args:
        name: Name of a data set, e.g. `"busi"`.

    Raises:
        ValueError: If there is no data set called `name`.
    """
    facts = card(name)
    print(f"{facts.title} ({name})")
    print(f"  classes   {', '.join(facts.class_names) or 'none, masks only'}")
    print(f"  masks     {', '.join(f'{value} {name}' for value, name in enumerate(facts.mask_names))}")
    for split in facts.splits:
        print(f"  split     {split}: {SPLIT_MEANINGS[split]}")
    for key in ("content", "licence", "source", "caution", "citation"):
        print(f"  {key:<9} {getattr(facts, key)}")
