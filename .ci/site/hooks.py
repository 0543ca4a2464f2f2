"""Adds to the site what lies outside of docs/, and turns links between files of the repository into its own links."""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from keras_semimed.source import constant  # noqa: E402  reads source files; Keras is not imported

MODULES = (
    "callbacks",
    "data",
    "evaluation",
    "experiments",
    "export",
    "layers",
    "losses",
    "metrics",
    "models",
    "networks",
    "optimizers",
    "prediction",
    "thresholds",
)
# Where files of the repository are on the site; those of docs/ not named here keep their place below it.
PLACES = {
    "README.md": "index.md",
    "docs/index.md": "contents.md",
    "CHANGELOG.md": "changelog.md",
    "CITATION.cff": "CITATION.cff",
    "recipes/own_folder.ipynb": "recipes/own_folder.ipynb",
    "recipes/quickstart.ipynb": "recipes/quickstart.ipynb",
}
SOURCES = {place: source for source, place in PLACES.items()}
LINK = re.compile(r"(?<=\]\()([^)#:\s]+)(?=[)#])")


def on_config(config: MkDocsConfig) -> None:
    """Completes the navigation by the methods that have a page and by the public modules."""
    methods = sorted((ROOT / "docs" / "methods").glob("*.md"))
    found = {
        "Methods": [f"methods/{page.name}" for page in methods],
        "API reference": [{f"keras_semimed.{name}": f"api/{name}.md"} for name in MODULES],
    }
    for entry in config.nav or ():
        for title, pages in entry.items():
            if title in found:
                pages.extend(found[title])


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Adds the files from outside of docs/ and the pages of the API reference."""
    files.remove(files.get_file_from_path("index.md"))
    for source, place in PLACES.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / source)))
    for name in MODULES:
        files.append(File.generated(config, f"api/{name}.md", content=reference(name)))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links as GitHub follows them, from file to file, into links as the site's pages lie."""
    place = page.file.src_uri
    source = SOURCES.get(place, f"docs/{place}")

    def moved(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        there = PLACES.get(target, target.removeprefix("docs/"))
        return posixpath.relpath(there, posixpath.dirname(place) or ".")

    return markdown if place.startswith("api/") else LINK.sub(moved, markdown)


def reference(name: str) -> str:
    """The page of a public module: its text, and everything that it offers."""
    module = f"keras_semimed.{name}"
    offered = public(module)
    if not offered:
        return f"::: {module}\n    options:\n      heading_level: 1\n      show_root_full_path: true\n"
    parts = [
        f"::: {module}\n    options:\n      heading_level: 1\n      show_root_full_path: true\n      members: false\n"
    ]
    for each in offered:
        below = f"{module}.{each}"
        if not module_file(below):
            parts.append(f"::: {below}\n")
        elif each in public(below) or not public(below):
            # A function that is called like the file it lies in.
            parts.append(f"::: {below}.{each}\n")
        else:
            more = [other for other in public(below) if other not in offered]
            parts.append(f"::: {below}\n    options:\n      members: {more}\n")
    return "\n".join(parts)


def public(module: str) -> list[str]:
    """The names in the `__all__` of a module; empty where it has none."""
    try:
        return sorted(constant(f"{module}:__all__"), key=str.lower)
    except ValueError:
        return []


def module_file(name: str) -> Path | None:
    """The file of a module; None where the name is that of something else."""
    place = ROOT / name.replace(".", "/")
    return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()), None)
