"""Which images are labelled, unlabelled, for validation and for the test; and whether the parts know each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_semimed.lazy import lazy

if TYPE_CHECKING:
    from keras_semimed.data.splits.duplicates import near_duplicate_groups
    from keras_semimed.data.splits.folds import fold_split, k_fold_splits
    from keras_semimed.data.splits.leaks import leak_report
    from keras_semimed.data.splits.named import split_image_set
    from keras_semimed.data.splits.parts import PARTS, Split, leak_safe_split, paper_split, random_split
    from keras_semimed.data.splits.published import official_split, pranet_split

__all__ = [
    "PARTS",
    "Split",
    "fold_split",
    "k_fold_splits",
    "leak_report",
    "leak_safe_split",
    "near_duplicate_groups",
    "official_split",
    "paper_split",
    "pranet_split",
    "random_split",
    "split_image_set",
]

__getattr__ = lazy(
    __name__,
    {
        "PARTS": "parts",
        "Split": "parts",
        "fold_split": "folds",
        "k_fold_splits": "folds",
        "leak_report": "leaks",
        "leak_safe_split": "parts",
        "near_duplicate_groups": "duplicates",
        "official_split": "published",
        "paper_split": "parts",
        "pranet_split": "published",
        "random_split": "parts",
        "split_image_set": "named",
    },
)
