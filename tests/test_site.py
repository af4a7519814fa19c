"""The documentation as a site: it builds strictly, needs no other server, and no link in it leads nowhere."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

pytestmark = pytest.mark.slow  # `make check` builds the site too

pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
pytest.importorskip("mkdocstrings", reason="the extra `docs` is not installed")

ROOT = Path(__file__).parents[1]


class Page(HTMLParser):
    """What a page links to, what it loads, and the names that it can be entered by."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loads, self.names = set(), set(), {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.names |= {given[key] for key in ("id", "name") if given.get(key)}
        if tag == "a" and given.get("href"):
            self.links.add(given["href"])
        if tag in ("script", "img", "iframe", "source") and given.get("src"):
            self.loads.add(given["src"])
        if tag == "link" and given.get("rel") not in ("canonical", "prev", "next"):
            self.loads.add(given["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}


def test_every_page_of_the_repository_is_there(pages, site):
    names = {path.relative_to(site).with_suffix("").as_posix() for path in pages}
    own = {path.relative_to(ROOT).with_suffix("").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert own <= names
    assert {"index", "CONTRIBUTING", "CHANGELOG", "benchmarks/index", "examples/index"} <= names


def test_no_link_and_no_anchor_leads_nowhere(pages):
    wrong = []
    for path, page in pages.items():
        for link in page.links | page.loads:
            if re.match(r"https?:|mailto:|data:|javascript:", link):
                continue
            name, _, anchor = link.partition("#")
            target = (path.parent / unquote(name)).resolve() if name else path
            target = target / "index.html" if target.is_dir() else target
            is_there = target.is_file()
            if is_there and target in pages and not anchor.startswith("__"):
                is_there = unquote(anchor) in pages[target].names
            if not is_there:
                wrong.append((path.name, link))
    assert wrong == []


def test_nothing_is_loaded_from_another_server(pages, site):
    assert {load for page in pages.values() for load in page.loads if re.match(r"(https?:)?//", load)} == set()
    for path in site.rglob("*.css"):
        assert not re.search(r"url\(\s*['\"]?(https?:)?//", path.read_text(encoding="utf-8")), path.name


def test_search_works_from_disk(pages, site):
    """Its index is a script, since a page on disk may not read files, and so is the worker that reads it."""
    index = (site / "search" / "search_index.js").read_text(encoding="utf-8")
    assert index.startswith("var __index = ")
    for word in ("stitching", "concordance", "FeatureStore", "audio_align"):
        assert word in index
    assert any("iframe-worker" in load for load in pages[site / "index.html"].loads)


def test_the_reference_is_made_from_the_code_of_this_checkout(pages, site):
    names = pages[site / "docs" / "api.html"].names
    assert {"avfuse.features_store.store.FeatureStore.trials", "avfuse.fusion.tasks.ccc.ccc_loss"} <= names
    text = (site / "docs" / "api.html").read_text(encoding="utf-8")
    assert "Raises StoreMismatch where the path holds something else" in text


def test_the_name_of_an_option_is_one_word(site):
    """A narrow screen breaks no line within it; a command, which has blanks, may be broken."""
    text = (site / "docs" / "training.html").read_text(encoding="utf-8")
    assert '<code class="word">--store</code>' in text
    assert "<code>avfuse extract" in text
