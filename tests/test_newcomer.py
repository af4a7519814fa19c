"""A newcomer's walk: README and every guide, typed as they stand, in a copy of the checkout.

docs/trying.md says how: what to make first, what to type also and in place of what, and what needs more. Its tables are
read here, so that the page is the walk's only recipe. Commands come out of the pages.
"""

import copy
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TRYING = ROOT / "docs" / "trying.md"
# Guides that follow each other in one folder, as a reader goes from one to the next.
WALKS = {
    "first hour": ("README.md", "docs/quick-start.md", "docs/weights.md", "docs/gpu.md"),
    "training": ("docs/training.md", "docs/comparing.md", "docs/figures.md"),
    "your own": ("docs/heads.md", "docs/adding-a-head.md", "docs/adding-a-task.md"),
    "in and out": ("docs/own-videos.md", "docs/report.md", "docs/interop.md"),
    "fine-tuning": ("docs/finetuning.md",),
    "Aff-Wild2": ("docs/affwild2.md",),
    "store": ("docs/store.md", "docs/encoders.md", "docs/own-encoder.md", "docs/cluster.md"),
}
ALONE = ("examples/README.md",)  # in a checkout, with a corpus of its own
ELSEWHERE = {"CONTRIBUTING.md", "benchmarks/README.md", "docs/trying.md"}  # for developers; followed by every walk


def section(title):
    return TRYING.read_text().partition(f"## {title}")[2].partition("\n## ")[0]


def rows(text):
    """Cells of a table's rows, the code in them alone."""
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith(("| of", "| in place", "| guide", "| where")):
            yield [re.findall(r"`([^`]+)`", cell) for cell in line.strip("|").split(" | ")], line


def commands(page):
    """What a page has its reader type: the lines of its console blocks that begin with `$`."""
    for block in re.findall(r"```console\n(.*?)```", (ROOT / page).read_text(), re.DOTALL):
        yield from (line[2:] for line in block.splitlines() if line.startswith("$ "))


@dataclass(frozen=True)
class Recipe:
    """What docs/trying.md says."""

    also: dict[str, str]
    instead: dict[str, str]
    before: dict[str, list[str]]
    needs_more: tuple[str, ...]

    def typed(self, command):
        """A command as it is to be typed, or None where it needs more than there is here."""
        plain = re.sub(r"\s+# .*$", "", command)
        if any(word in plain for word in self.needs_more):
            return None
        for old, new in self.instead.items():
            plain = plain.replace(old, new)
        for name, words in self.also.items():
            if re.match(rf"{name}(\s|$)", plain):
                for given, value in re.findall(r"(--set \w+|--\S+)([ =]\S+)", words):  # of settings, that one
                    plain += "" if given in plain else f" {given}{value}"
        return plain


def read_recipe():
    changes = section("Make the files that the guides speak of")
    also, instead = changes.split("| in place of")
    before = {}
    for _, line in rows(section("Before a guide")):
        (page,) = re.findall(r"^\| \[[^]]+\]\(([\w-]+\.md)\)", line)
        before[f"docs/{page}"] = [code for code in re.findall(r"`([^`]+)`", line) if " " in code]
    return Recipe(
        {name: words[0] for (names, words), _ in rows(also) for name in names},
        {old: new for ((old, *_), (new, *_)), _ in rows(f"| in place of{instead}")},
        before,
        tuple(word for (words, *_), _ in rows(section("What needs more than that")) for word in words),
    )


RECIPE = read_recipe()


class Shell:
    """A newcomer's terminal: bash in a copy of the checkout, whose `avfuse` is the one that runs."""

    def __init__(self, folder):
        self.checkout = folder / "avfuse"
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
        for name in filter(None, names):
            if (ROOT / name).is_file() and not name.startswith("tests/"):
                (self.checkout / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.checkout / name)
        programs = folder / "bin"
        programs.mkdir()
        # As pip writes it: processes that workers start import this file, and must not type the command again.
        start = "if __name__ == '__main__':\n    sys.argv[0] = 'avfuse'\n    main()\n"
        script = f"#!{sys.executable}\nimport sys\nfrom avfuse.cli import main\n{start}"
        for name, text in (("avfuse", script), ("python", f'#!/bin/sh\nexec {sys.executable} "$@"\n')):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "AVFUSE_", "XDG_"))}
        path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
        self.environment = {**kept, "HOME": str(folder), "PATH": path, "PYTHONPATH": str(folder), "COLUMNS": "200"}
        self.folder = self.checkout
        self.typed = 0

    def type(self, command, page):
        if found := re.fullmatch(r"cd (\S+)", command):
            self.folder = self.folder / found[1]
            return ""
        done = subprocess.run(
            *(["bash", "-eu", "-o", "pipefail", "-c", command],),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{page}: $ {command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        assert "Traceback" not in done.stderr, f"{page}: $ {command}\n{done.stderr[-3000:]}"
        self.typed += 1
        return done.stdout

    def follow(self, page):
        for command in commands(page):
            if (plain := RECIPE.typed(command)) is not None:
                self.type(plain, page)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The folder `try` of docs/trying.md, once."""
    shell = Shell(tmp_path_factory.mktemp("newcomer"))
    for command in commands("docs/trying.md"):
        shell.type(command, "docs/trying.md")
    assert shell.folder.name == "try"
    return shell


@pytest.mark.slow
@pytest.mark.walk
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("pages", WALKS.values(), ids=WALKS)
def test_guides_can_be_followed_literally(prepared, pages, tmp_path):
    shutil.copytree(prepared.folder, tmp_path / "try", symlinks=True)
    (tmp_path / "examples").symlink_to(prepared.checkout / "examples")  # beside it, as in the checkout
    shell = copy.copy(prepared)  # what one walk changes is not there in the next
    for page in pages:
        shell.folder = tmp_path / "try"
        for line in RECIPE.before.get(page, ()):
            shell.type(line, f"before {page}")
        if page == "docs/comparing.md":
            (grid,) = re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
            (shell.folder / "mine.yaml").write_text(grid)
        shell.follow(page)
    assert shell.typed > prepared.typed


@pytest.mark.slow
@pytest.mark.walk
@pytest.mark.timeout(7200)
def test_examples_can_be_followed_literally(tmp_path):
    shell = Shell(tmp_path)
    for page in ALONE:
        shell.follow(page)
    assert shell.typed > 4


def test_every_page_with_commands_is_walked():
    walked = {page for pages in WALKS.values() for page in pages} | set(ALONE) | ELSEWHERE
    pages = {path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"))}
    pages |= {"benchmarks/README.md", "examples/README.md"}
    assert {page for page in pages if any(commands(page))} <= walked
    assert all((ROOT / page).is_file() for page in walked)


def test_what_is_left_out_of_the_walk_is_named_for_a_reason():
    """Every word of the table leaves something out, and at least half of what guides have is typed."""
    pages = [page for each in WALKS.values() for page in each] + list(ALONE)
    every = [command for page in pages for command in commands(page)]
    assert [word for word in RECIPE.needs_more if not any(word in command for command in every)] == []
    assert len([command for command in every if RECIPE.typed(command) is not None]) > len(every) / 2


def test_the_recipe_is_applied():
    assert RECIPE.typed("avfuse extract --videos v    # a comment") == "avfuse extract --videos v --untrained 0"
    short = "--set window_frames=30 --set hop_frames=20"
    assert RECIPE.typed("avfuse train --fold 0 --epochs 1") == f"avfuse train --fold 0 --epochs 1 {short}"
    assert RECIPE.typed("avfuse train --set hop_frames=5") == f"avfuse train --set hop_frames=5 --epochs 2 {short[:22]}"
    assert RECIPE.typed("avfuse finetune --untrained 1") == "avfuse finetune --untrained 1 --epochs 2"
    assert RECIPE.typed("avfuse weights fetch vggish") is None
    assert RECIPE.typed("avfuse train --fold all --seeds 3") == f"avfuse train --fold all --seeds 1 --epochs 2 {short}"
