"""What the documents name is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def anchors(document: Path) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_and_links_exist(document):
    text = document.read_text(encoding="utf-8")
    for name in re.findall(r"`([\w./]+\.py)`", text):
        places = [ROOT / name, ROOT / "keras_semimed" / name]
        places += [] if "/" in name else (ROOT / "tests").rglob(name)
        assert any(place.is_file() for place in places), f"{document.name} names {name}"
    for link, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", text):
        target = document.parent / link if link else document
        assert target.exists(), f"{document.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{document.name} links to {link}#{anchor}"
    for recipe in re.findall(r"python -m (recipes\.\w+|benchmarks\.\w+)", text):
        assert (ROOT / (recipe.replace(".", "/") + ".py")).is_file(), f"{document.name} runs {recipe}"


def test_public_names_of_the_readme_can_be_imported():
    import keras_semimed.layers
    import keras_semimed.losses
    import keras_semimed.models
    import keras_semimed.networks  # noqa: F401

    table = (ROOT / "README.md").read_text(encoding="utf-8")
    for module, names in re.findall(r"^\| `keras_semimed\.(models|layers|losses|networks)` \| (.*) \|$", table, re.M):
        for name in re.findall(r"`(\w+)`", names):
            assert hasattr(getattr(keras_semimed, module), name), f"{module}.{name}"


@pytest.mark.filterwarnings("ignore:Epoch 1. mask_selected")  # the page's threshold of 0 lets everything through
def test_the_method_of_the_page_passes_the_tests_of_the_page(tmp_path):
    page = (ROOT / "docs" / "adding_a_method.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {"__name__": "adding_a_method"}
    for block in re.findall(r"^```python\n(.*?)^```", page, re.M | re.S):
        exec(compile(block, "docs/adding_a_method.md", "exec"), names)
    names["test_only_confident_pixels_are_learnt"]()
    names["test_it_trains_and_comes_back_from_a_file"](tmp_path)
