"""Reading through the TensorFlow Datasets builders; TensorFlow is imported only when a function is called."""

from __future__ import annotations

import contextlib
import importlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_semimed.data.progress import progress
from keras_semimed.data.readers.examples import Example, fingerprint


def available() -> bool:
    """Whether TensorFlow and TensorFlow Datasets can be imported."""
    try:
        importlib.import_module("tensorflow")
        importlib.import_module("tensorflow_datasets")
    except ImportError:
        return False
    return True


def prepared_builder(name: str, manual_dir: str | Path | None = None, data_dir: str | Path | None = None) -> Any:
    """Returns the TFDS builder of a data set, prepared under `data_dir` if that was not done before.

    After an error nothing half-written stays behind.

    Args:
        name: Name of a builder of this package.
        manual_dir: Folder or archive with the files that had to be downloaded by hand; needed only once.
        data_dir: Where TFDS keeps prepared data; its default when None.

    Raises:
        FileNotFoundError: If `manual_dir` does not exist or is empty, or is None and needed.
        ValueError: If the data were prepared from other files before.
    """
    import tensorflow_datasets as tfds

    module = importlib.import_module(f"keras_semimed.data.builders.{name}.{name}_dataset_builder")

    def made() -> Any:
        return module.Builder(data_dir=None if data_dir is None else str(data_dir))

    with _as_folder(manual_dir) as folder:
        # Looked at under its own name first: errors shall not name a temporary folder.
        found = None if manual_dir is None else fingerprint(name, manual_dir)
        if not (builder := made()).is_prepared():
            if folder is None and builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
                raise FileNotFoundError(
                    f"manual_dir is missing, and {name} was not prepared under {builder.data_dir} before; "
                    f"{builder.MANUAL_DOWNLOAD_INSTRUCTIONS}"
                )
            try:
                builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=folder))
            except OSError:
                # Another process may have been done first, as where several trainings begin at once.
                if not made().is_prepared():
                    raise
        builder = made()  # as it is on the disk, whoever prepared it
        _check_same_files(builder, found)
    return builder


def _check_same_files(builder: Any, found: str | None) -> None:
    """Refuses prepared data that were made from other files than the given ones."""
    prepared = (builder.info.metadata or {}).get("files")
    if found is not None and found != prepared:
        raise ValueError(
            f"manual_dir holds other files than those that {builder.data_dir} was prepared from; "
            "delete that folder, or give another data_dir"
        )


def tfds_examples(
    name: str, manual_dir: str | Path | None = None, data_dir: str | Path | None = None
) -> Iterator[Example]:
    """Yields the examples of a data set through its TFDS builder; arguments as `prepared_builder`."""
    import tensorflow_datasets as tfds

    builder = prepared_builder(name, manual_dir, data_dir)
    dataset = builder.as_dataset(split="all", read_config=tfds.ReadConfig(try_autocache=False))
    total = sum(split.num_examples for split in builder.info.splits.values())
    for row in progress(tfds.as_numpy(dataset), f"reading {name}", total):
        yield Example(
            name=Path(row["file_name"].decode()).stem,
            image=row["image"],
            mask=row["mask"][..., 0],
            label=int(row["label"]) if "label" in row else None,
            group=row["group"].decode().removesuffix(".png"),
        )


@contextlib.contextmanager
def _as_folder(path: str | Path | None) -> Iterator[str | None]:
    """A folder for TFDS, which takes no file: an archive is linked into a temporary one."""
    if path is None:
        yield None
        return
    path = Path(path).resolve()
    if not path.exists():
        raise FileNotFoundError(f"manual_dir {path} does not exist; give the folder or archive with the files")
    if path.is_dir():
        if not any(path.iterdir()):
            raise FileNotFoundError(f"manual_dir {path} is empty; put the downloaded files there")
        yield str(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / path.name).symlink_to(path)
        yield folder
