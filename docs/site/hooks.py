"""What MkDocs needs to show the repository's own pages: no page is copied, and links work here as they do on GitHub.

    README.md, CONTRIBUTING.md …, docs/*.md, benchmarks/README.md, examples/README.md      each at its own path
    files that these pages link to (LICENSE, Dockerfile, an example)                       beside them, as they are

mkdocs.yml names this file under `hooks`. Tested by tests/test_site.py.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).parents[2]
_LINK = re.compile(r"\]\(([^)\s#]+)")
_WORD = re.compile(r"<code>(?=[^<\s]{1,32}</code>)")  # an option, a file's name: short, and without a blank
_FOLDERS = ("benchmarks", "examples")
_LISTED = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "THIRD_PARTY_NOTICES.md")


def pages() -> list[Path]:
    """Every page of the site, relative to the repository's root."""
    found = [*(ROOT / name for name in _LISTED), *(ROOT / folder / "README.md" for folder in _FOLDERS)]
    return [path.relative_to(ROOT) for path in (*found, *sorted((ROOT / "docs").rglob("*.md")))]


def linked_files() -> list[Path]:
    """What the pages link to that is no page, relative to the repository's root; drawings among it."""
    found = set()
    for page in pages():
        for target in _LINK.findall((ROOT / page).read_text(encoding="utf-8")):
            path = Path(os.path.normpath(page.parent / target))
            if ":" not in target and path.suffix != ".md" and (ROOT / path).is_file():
                found.add(path)
    return sorted(found)


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """The site's files in place of what lies below docs/ alone."""
    own = [*pages(), *linked_files(), *(path.relative_to(ROOT) for path in (ROOT / "docs" / "site").glob("*.[cj]s*"))]
    kept = [file for file in files if not Path(file.abs_src_path or "/").is_relative_to(ROOT / "docs")]  # the theme's
    made = [File.generated(config, path.as_posix(), abs_src_path=os.fspath(ROOT / path)) for path in own]
    for file in made:
        file.inclusion = InclusionLevel.INCLUDED
    return Files([*kept, *made])


@event_priority(100)  # before mkdocstrings reads where packages are
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The API reference is made from this checkout, whatever `avfuse` is installed where MkDocs runs."""
    folder = Path(tempfile.mkdtemp(prefix="avfuse-site-"))
    (folder / "avfuse").symlink_to(ROOT, target_is_directory=True)
    config.extra["packages"] = os.fspath(folder)
    config.plugins["mkdocstrings"].config["handlers"]["python"]["paths"] = [os.fspath(folder)]
    return config


def on_page_content(html: str, **_: Any) -> str:
    """Code of one word gets a class of its own, so that a phone breaks no line between `--` and `store`."""
    return _WORD.sub('<code class="word">', html)


def on_post_build(config: MkDocsConfig) -> None:
    """Take the link away again."""
    folder = Path(config.extra["packages"])
    (folder / "avfuse").unlink()
    folder.rmdir()
