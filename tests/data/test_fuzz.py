"""A fixed part of the damaged and odd files of `benchmarks/fuzz_files.py`, one or so of each kind."""

import os

import pytest

pytest.importorskip("pydicom")

from benchmarks.fuzz_cases import MAKERS  # noqa: E402
from benchmarks.fuzz_files import run_case  # noqa: E402


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes links and pipes as POSIX has them")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("index", range(len(MAKERS)), ids=lambda index: list(MAKERS)[index])
def test_a_file_is_read_rightly_or_reported_by_name(index, tmp_path):
    _, result = run_case(index, 0, tmp_path / "folder")
    assert result in ("read", "reported")
