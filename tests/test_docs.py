"""What the guides say is so: their commands and options exist, their Python runs, their files are there."""

import re
import shlex
from pathlib import Path

import click
import numpy as np
import pytest

from avfuse.cli import main
from avfuse.features_store.store import FeatureStore

ROOT = Path(__file__).parents[1]
GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks" / "README.md"]


def blocks(path, language):
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), re.DOTALL)


def console_lines():
    for path in GUIDES:
        for block in blocks(path, "console"):
            for line in block.splitlines():
                if line.startswith("$ avfuse "):
                    yield pytest.param(line[2:], id=f"{path.name}: {line[2:60]}")


@pytest.mark.parametrize("line", list(console_lines()))
def test_commands_and_options_exist(line):
    words = shlex.split(line, comments=True)[1:]
    command, context = main, click.Context(main)
    while isinstance(command, click.Group):
        found = command.get_command(context, words.pop(0))
        assert found is not None
        command = found
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_inline_options_exist():
    known = {"--help", "--version"}
    for name in main.list_commands(click.Context(main)):
        command = main.get_command(click.Context(main), name)
        subcommands = command.commands.values() if isinstance(command, click.Group) else [command]
        known |= {option for each in subcommands for parameter in each.params for option in parameter.opts}
    for path in GUIDES:
        prose = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
        for code in re.findall(r"`([^`\n]+)`", prose):
            options = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", code)) - {
                "--strict",
                "--array",
                "--constraint",
            }  # of git, Slurm and pip
            assert options <= known, f"{path.name}: {options - known}"


@pytest.fixture
def a_store(tmp_path, monkeypatch):
    """The store that the guides' snippets open."""
    rows, rng = 72, np.random.default_rng(0)
    arrays = {"time": np.arange(rows) / 30}
    for name, width in (("iresnet50", 512), ("vggish", 128)):
        arrays[name] = rng.standard_normal((rows, width)).astype(np.float32)
        arrays[f"{name}_valid"] = np.ones(rows, bool)
    attributes = {"fps": "30", "weights": {"iresnet50": {"name": "untrained"}}}
    FeatureStore(tmp_path / "features.zarr", mode="a").write("single_face", arrays, attributes)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("path", [ROOT / "README.md", ROOT / "docs" / "store.md"], ids=lambda path: path.name)
def test_python_snippets_run(path, a_store):
    snippets = blocks(path, "python")
    assert snippets
    for snippet in snippets:
        names: dict = {}
        exec(compile(snippet, str(path), "exec"), names)
        if "data" in names:
            names["data"].close()


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text()):
        assert target.startswith("https://") or (path.parent / target).exists(), target


def test_every_module_is_in_the_architecture():
    text = (ROOT / "docs" / "architecture.md").read_text()
    for room in ("batch", "features_store", "pipeline", "fusion"):
        modules = {path.stem for path in (ROOT / room).glob("*.py")} - {"__init__"}
        missing = {name for name in modules if f"`{name}`" not in text}
        assert not missing, room


def test_no_placeholder_is_left():
    words = re.compile(r"PLACEHOLDER|DEMO_OUTPUT|MEM\d|MEMRATIO|TODO|FIXME")
    assert not [path.name for path in GUIDES if words.search(path.read_text())]
