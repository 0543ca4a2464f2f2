"""The site of the documents, as `make docs` builds it, opened in a real browser as wide as a desk and as a phone."""

from __future__ import annotations

import contextlib
import functools
import http.server
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keras_semimed.source import constant

ROOT = Path(__file__).resolve().parents[1]
BUILT = ROOT / "build" / "docs"
INDEX = Path("search") / "search_index.json"
# Everything that the pages are made from.
SOURCES = ("README.md", "CHANGELOG.md", "docs/**/*.md", "keras_semimed/**/*.py", ".ci/build_docs.py", ".ci/site/**/*")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DESK, PHONE = 1280, 390
WORD = "unlabeled_area"
SECONDS = 240

# Opens page after page in a frame of a screen's width, and sends what it saw to the server.
VISIT = """
<!DOCTYPE html><iframe id="frame" style="height: 844px; border: 0"></iframe><script>
const frame = document.getElementById("frame"), wait = time => new Promise(done => setTimeout(done, time))
async function visit(page, width) {
  frame.style.width = width + "px"
  await new Promise(done => { frame.onload = done; frame.src = page })
  await wait(50)
  return frame.contentDocument
}
async function search(word, width) {
  const found = () => [...frame.contentDocument.querySelectorAll("a.md-search-result__link")]
  await visit("/index.html?q=" + word, width)
  for (let turn = 0; turn < 300 && !found().length; turn++) await wait(100)
  await wait(300)
  return found().map(link => ({ href: link.href, text: link.textContent }))
}
async function look() {
  const seen = { wide: [], foreign: [], results: {}, places: [] }
  for (const page of PAGES) {
    const root = (await visit(page, WIDTHS[0])).documentElement, view = frame.contentWindow
    for (const width of WIDTHS) {
      frame.style.width = width + "px"
      if (root.scrollWidth > view.innerWidth) seen.wide.push([page, width, root.scrollWidth])
    }
    for (const { name } of view.performance.getEntriesByType("resource"))
      if (!name.startsWith(location.origin)) seen.foreign.push([page, name])
  }
  for (const width of WIDTHS) seen.results[width] = await search("WORD", width)
  for (const { href } of seen.results[WIDTHS[0]]) {
    const url = new URL(href), there = await visit(url.pathname, WIDTHS[0])
    const heading = there.getElementById(decodeURIComponent(url.hash.slice(1)))
    seen.places.push([url.pathname, !url.hash || heading !== null])
  }
  return seen
}
const tell = seen => fetch("/-/seen", { method: "POST", body: JSON.stringify(seen) })
look().catch(error => ({ error: String(error) })).then(tell)
</script>
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site: that of `make docs` where nothing was changed since, otherwise a new one."""
    if importlib.util.find_spec("material") is None or importlib.util.find_spec("mkdocstrings") is None:
        pytest.skip("needs mkdocs-material and mkdocstrings: pip install -e '.[dev]'")
    newest = max(path.stat().st_mtime for pattern in SOURCES for path in ROOT.glob(pattern))
    if (BUILT / INDEX).is_file() and (BUILT / INDEX).stat().st_mtime > newest:
        return BUILT
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, str(ROOT / ".ci" / "build_docs.py"), str(folder)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the site, the page that visits it, and takes what that page saw."""

    server: Server

    def do_GET(self) -> None:
        if self.path != "/-/visit":
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(self.server.visit.encode())

    def do_POST(self) -> None:
        self.server.seen = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()
        self.server.done.set()

    def log_message(self, *arguments: Any) -> None:
        """Nothing: 200 requests would bury what a test says."""


class Server(http.server.ThreadingHTTPServer):
    """The site at a port of this machine.

    Args:
        site: Its folder.
        visit: The page that visits it.
    """

    def __init__(self, site: Path, visit: str) -> None:
        super().__init__(("127.0.0.1", 0), functools.partial(Handler, directory=str(site)))
        self.visit, self.done = visit, threading.Event()
        self.seen: dict[str, Any] = {}


@contextlib.contextmanager
def browser(address: str, profile: Path) -> Iterator[None]:
    """A headless Chromium that opens an address, and ends with the block."""
    assert BROWSER is not None
    options = ["--headless", "--disable-gpu", "--no-first-run", f"--user-data-dir={profile}"]
    options += ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"]
    if os.geteuid() == 0:  # as in a container, where Chromium refuses to run otherwise
        options.append("--no-sandbox")
    command = [BROWSER, *options, address]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


def visited(site: Path, profile: Path) -> dict[str, Any]:
    """What a browser sees of all pages, and finds."""
    pages = sorted(f"/{page.relative_to(site).as_posix()}" for page in site.rglob("*.html"))
    content = {"PAGES": json.dumps(pages), "WIDTHS": json.dumps([DESK, PHONE]), "WORD": WORD}
    visit = re.sub("|".join(content), lambda name: content[name[0]], VISIT)
    with Server(site, visit) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with browser(f"http://127.0.0.1:{server.server_port}/-/visit", profile):
            in_time = server.done.wait(SECONDS)
        server.shutdown()
    assert in_time, f"the browser did not end its visit of {len(pages)} pages within {SECONDS} s"
    assert "error" not in server.seen, server.seen
    return server.seen


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium, as of apt-get install chromium")
def test_in_a_browser_pages_fit_the_screen_and_the_search_finds_guide_and_reference(site, tmp_path):
    seen = visited(site, tmp_path)
    assert seen["wide"] == []  # no page is wider than the screen
    assert seen["foreign"] == []  # nothing is fetched from another host
    for width, results in seen["results"].items():
        pages = {re.sub(r".*127\.0\.0\.1:\d+/|[?#].*", "", result["href"]) for result in results}
        assert "data.html" in pages, f"{width} pixels wide: {pages}"
        assert {"api/data.html", "api/models.html"} <= pages, f"{width} pixels wide: {pages}"
    assert seen["places"] and all(there for _, there in seen["places"]), seen["places"]


def test_every_public_name_is_in_the_reference_under_its_public_module(site):
    files = sorted((ROOT / "keras_semimed").glob("*/__init__.py"))
    # Commands offer no names.
    packages = [file.parent.name for file in files if "__all__" in file.read_text(encoding="utf-8")]
    assert {"models", "data"} <= set(packages)
    for package in packages:
        page = (site / "api" / f"{package}.html").read_text(encoding="utf-8")
        anchors = set(re.findall(r'id="(keras_semimed\.[\w.]+)"', page))
        for name in constant(f"keras_semimed.{package}:__all__"):
            public = f"keras_semimed.{package}.{name}"
            assert public in anchors or f"{public}.{name}" in anchors, public


def test_arguments_of_the_reference_have_their_types_defaults_and_texts(site):
    page = (site / "api" / "models.html").read_text(encoding="utf-8")
    hermes = page[page.index('id="keras_semimed.models.Hermes"') :]
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", hermes[: hermes.index("<h2")]))
    assert re.search(
        r"selection \(Literal\[.*?default: None \) – ★ none, confidence", re.sub(r'["“”]|&quot;', "", text)
    )


def test_the_front_page_is_the_readme_with_links_that_lead_to_pages_of_the_site(site):
    page = (site / "index.html").read_text(encoding="utf-8")
    for link in ('"data.html"', '"methods/cps.html"', '"changelog.html"', '"recipes/quickstart.ipynb"'):
        assert f"href={link}" in page
    assert 'src="images/report.jpg"' in page
    assert "docs/methods/cps" not in page
