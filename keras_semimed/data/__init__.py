"""Data: image sets in memory, splits, readers and the batches that `fit` takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_semimed.lazy import lazy

if TYPE_CHECKING:
    from keras_semimed.data import splits
    from keras_semimed.data.arrays import EvaluationBatches, ImageSet, SemiSupervisedBatches, from_arrays
    from keras_semimed.data.cards import describe
    from keras_semimed.data.exchange import export_annotations, import_annotations, read_export
    from keras_semimed.data.folder import Folder, FolderParts, from_folder, part_folder, read_folder, read_image_folder
    from keras_semimed.data.joining import concatenate, separate
    from keras_semimed.data.loading import load, load_image_set
    from keras_semimed.data.mask_types import masks_by_class
    from keras_semimed.data.pipeline import as_tf_data, rand_augment
    from keras_semimed.data.splits.duplicates import near_duplicate_groups
    from keras_semimed.data.splits.folds import fold_split, k_fold_splits
    from keras_semimed.data.splits.leaks import leak_report
    from keras_semimed.data.splits.named import split_image_set
    from keras_semimed.data.splits.parts import Split, leak_safe_split, paper_split, random_split
    from keras_semimed.data.splits.published import official_split, pranet_split

__all__ = [
    "EvaluationBatches",
    "Folder",
    "FolderParts",
    "ImageSet",
    "SemiSupervisedBatches",
    "Split",
    "as_tf_data",
    "concatenate",
    "describe",
    "export_annotations",
    "fold_split",
    "from_arrays",
    "from_folder",
    "import_annotations",
    "k_fold_splits",
    "leak_report",
    "leak_safe_split",
    "load",
    "load_image_set",
    "masks_by_class",
    "near_duplicate_groups",
    "official_split",
    "paper_split",
    "part_folder",
    "pranet_split",
    "read_export",
    "rand_augment",
    "random_split",
    "read_folder",
    "read_image_folder",
    "separate",
    "split_image_set",
    "splits",
]

__getattr__ = lazy(
    __name__,
    {
        "EvaluationBatches": "arrays",
        "Folder": "folder",
        "FolderParts": "folder",
        "ImageSet": "arrays",
        "SemiSupervisedBatches": "arrays",
        "Split": "splits.parts",
        "as_tf_data": "pipeline",
        "concatenate": "joining",
        "describe": "cards",
        "export_annotations": "exchange",
        "fold_split": "splits.folds",
        "from_arrays": "arrays",
        "from_folder": "folder",
        "import_annotations": "exchange",
        "k_fold_splits": "splits.folds",
        "leak_report": "splits.leaks",
        "leak_safe_split": "splits.parts",
        "load": "loading",
        "load_image_set": "loading",
        "masks_by_class": "mask_types",
        "near_duplicate_groups": "splits.duplicates",
        "official_split": "splits.published",
        "paper_split": "splits.parts",
        "part_folder": "folder",
        "pranet_split": "splits.published",
        "read_export": "exchange",
        "rand_augment": "pipeline",
        "random_split": "splits.parts",
        "read_folder": "folder",
        "read_image_folder": "folder",
        "separate": "joining",
        "split_image_set": "splits.named",
        "splits": "",
    },
)
