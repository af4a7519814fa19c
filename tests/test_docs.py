"""What the guides say is so: their commands, options and messages exist, their Python runs, their files are there."""

import ast
import json
import re
import runpy
import shlex
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import yaml

from avfuse.cli import main
from avfuse.encoders.table import FEATURES, TABLE
from avfuse.encoders.weights.registry import FOLDERS, REGISTRY
from avfuse.features_store.schema import JsonValue
from avfuse.features_store.store import FeatureStore

ROOT = Path(__file__).parents[1]
FRONT = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "THIRD_PARTY_NOTICES.md")]
GUIDES = [
    *FRONT,
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / room / "README.md" for room in ("benchmarks", "examples")),
]

# Documents that no reader has: notes of how the project was made, and their numbered sections.
FOREIGN = re.compile(
    r"\b[Rr]eferences? \d|\b(?:peers|encoders) \d|\bR \d+\.\d|[Tt]he contract\b|\bspec, section"
    r"|\b(?:spec|house|style|references|peers)\.md|\.\./shared\b(?!/media)"
)
FILE = re.compile(
    r"(?<![\w/.*-])(?:docs|tests|benchmarks|examples|cli|apps|batch|encoders|features_store|fusion|pipeline|shell)"
    r"/[\w./-]*\.(?:cfg|md|npz|py|sh|svg|toml|webm)\b"
)
FOLDER = re.compile(r"`((?:docs|tests|benchmarks|examples)/[\w/-]+)`")
RESULTS = {"crossval.md", "compare.md"}  # what avfuse writes
# Files that documents name and that are made by the next steps. What is there, leaves this list.
STILL_TO_COME: set[str] = set()
ROOMS = ("shell", "features_store", "batch", "encoders", "pipeline", "fusion", "apps")


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
    command: click.Command = main
    context = click.Context(main)
    while isinstance(command, click.Group):
        found = command.get_command(context, words.pop(0))
        assert found is not None
        command = found
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize("line", list(console_lines()))
def test_commands_leave_out_nothing_that_is_required(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = shlex.split(re.split(r" \|\| | > ", line)[0], comments=True)[1:]
    command: click.Command = main
    context = click.Context(main)
    while isinstance(command, click.Group):
        found = command.get_command(context, words.pop(0))
        assert found is not None
        command = found
    try:
        command.make_context(command.name, words, parent=context)
    except click.MissingParameter as error:
        pytest.fail(f"{line}: {error.format_message()}")
    except (click.ClickException, click.exceptions.Exit):
        pass  # the files that it names are not here


def test_inline_options_exist():
    known = {"--help", "--version"}
    for name in main.list_commands(click.Context(main)):
        command = main.get_command(click.Context(main), name)
        assert command is not None
        subcommands = command.commands.values() if isinstance(command, click.Group) else [command]
        known |= {
            option
            for each in subcommands
            for parameter in each.params
            for option in (*parameter.opts, *parameter.secondary_opts)
        }
    for path in GUIDES:
        prose = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
        for code in re.findall(r"`([^`\n]+)`", prose):
            options = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", code)) - {
                "--strict",
                "--array",
                "--constraint",
                "--gpus",
            }  # of git, Slurm, pip and Docker
            assert options <= known, f"{path.name}: {options - known}"


@pytest.fixture
def a_store(tmp_path, monkeypatch):
    """The store that the guides' snippets open."""
    rows, rng = 72, np.random.default_rng(0)
    arrays = {"time": np.arange(rows) / 30}
    for name, width in (("iresnet50", 512), ("vggish", 128)):
        arrays[name] = rng.standard_normal((rows, width)).astype(np.float32)
        arrays[f"{name}_valid"] = np.ones(rows, bool)
    attributes: dict[str, JsonValue] = {"fps": "30", "weights": {"iresnet50": {"name": "untrained"}}}
    FeatureStore(tmp_path / "features.zarr", mode="a").write("single_face", arrays, attributes)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("path", [ROOT / "README.md", ROOT / "docs" / "store.md"], ids=lambda path: path.name)
def test_python_snippets_run(path, a_store):
    snippets = blocks(path, "python")
    assert snippets
    for snippet in snippets:
        names: dict[str, Any] = {}
        exec(compile(snippet, str(path), "exec"), names)
        if "data" in names:
            names["data"].close()


# Which test runs, loads or makes each kind of block, beside those of this file; text is a drawing or generated.
KINDS = {
    "console": "tests/test_newcomer.py",
    "bash": "tests/test_cluster_guide.py",
    "python": "here",
    "yaml": "here",
    "json": "here",
    "toml": "here",
    "bibtex": "tests/test_house.py",
    "latex": "",
    "matlab": "tests/features_store/interchange/test_training_sets.py",
    "text": "",
}


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.name)
def test_every_block_is_of_a_kind_that_a_test_knows(path):
    kinds = re.findall(r"^```(\S*)\n.*?^```$", path.read_text(), re.DOTALL | re.MULTILINE)
    assert set(kinds) <= KINDS.keys()
    for snippet in blocks(path, "python"):
        ast.parse(f"{{{snippet}}}" if snippet.startswith('"smoothed": ') else textwrap.dedent(snippet))
    for snippet in blocks(path, "json"):
        assert json.loads(snippet)
    for snippet in blocks(path, "toml"):
        assert tomllib.loads(snippet)


def test_settings_files_of_the_guides_have_known_keys():
    """Of `avfuse extract`, `train` or `compare`, or of a grid."""
    context = click.Context(main)
    found = 0
    for path in GUIDES:
        for snippet in blocks(path, "yaml"):
            content = yaml.safe_load(snippet)
            keys = {key.replace("_", "-") for key in content}
            options = {}
            for name in ("extract", "train", "compare"):
                command = main.get_command(context, name)
                assert command is not None
                options[name] = {option.lstrip("-") for each in command.params for option in each.opts}
            assert keys <= {"cells", "product"} or any(keys <= known for known in options.values()), (path.name, keys)
            found += 1
    assert found >= 3


def test_outputs_of_the_readme_look_like_those_of_today():
    """Their words are in the code; their figures are renewed with each release (CONTRIBUTING.md)."""
    shown, _ = blocks(ROOT / "README.md", "text")  # the other is the tree
    texts = " ".join(literals())
    for words in ("all frames", "mean of trials", "learning curves, predictions against truth: ", "frames/s"):
        assert words in shown
        assert words in texts
    assert "the backbones are UNTRAINED: random networks; what was learned is the fusion head alone" in shown
    assert "the backbones are UNTRAINED: random networks; what was learned is the fusion head alone" in texts


def anchors(path):
    """The names that GitHub gives to a document's headings."""
    prose = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        document = path.parent / name if name else path
        assert document.exists(), target
        assert not anchor or anchor in anchors(document), target


def tracked_texts():
    """Every text file of the repository: its name and its text."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        content = (ROOT / name).read_bytes() if (ROOT / name).is_file() else b"\0"
        if b"\0" not in content:
            yield name, content.decode()


def test_nothing_cites_a_document_that_readers_do_not_have():
    cited = [(name, found[0]) for name, text in tracked_texts() for found in FOREIGN.finditer(text)]
    assert cited == []


@pytest.mark.parametrize("words", [("references", "1.9"), ("peers", "4.2"), ("the", "contract"), ("R", "1.2")], ids=str)
def test_such_a_citation_would_be_seen(words):
    assert FOREIGN.search(f"Source: {' '.join(words)}.")


def test_files_that_are_named_are_there():
    texts = dict(tracked_texts())
    known = {Path(name).name for name in texts} | RESULTS
    missing = set()
    for name, text in texts.items():
        if name.endswith((".py", ".md", ".cfg", ".toml", ".yml", ".yaml", "Makefile")):
            found_here = FILE.findall(text) + FOLDER.findall(text)
            missing |= {(name, found) for found in found_here if not (ROOT / found).exists()}
        if name.startswith(("docs/", "README", "CONTRIBUTING")):
            missing |= {(name, found) for found in re.findall(r"\b[\w-]+\.md\b", text) if found not in known}
    assert {(name, found) for name, found in missing if found not in STILL_TO_COME} == set()
    assert [name for name in STILL_TO_COME if (ROOT / name).exists()] == [], "there now: take it off STILL_TO_COME"


def test_sections_of_the_sources_that_are_cited_are_there():
    prose = (ROOT / "docs" / "sources.md").read_text()
    sections = set(re.findall(r"^##? (.+)$", prose, re.MULTILINE))
    cited = set()
    for name, text in tracked_texts():
        if name.endswith(".py") and name != "tests/test_docs.py":
            plain = re.sub(r"\s*\n\s*(?:# )?", " ", text)
            assert plain.count("docs/sources.md") == len(re.findall(r"docs/sources\.md \(", plain)), name
            for names in re.findall(r"docs/sources\.md \(([^)]*)\)", plain):
                cited |= set(names.split(", "))
    assert cited
    assert cited - sections == set()


def test_the_page_of_commands_is_that_of_today():
    """In a process of its own: click keeps the help option of a command that was once called alone."""
    code = f"import runpy; print(runpy.run_path({str(ROOT / 'docs' / 'generate_cli.py')!r})['page'](), end='')"
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == made, "run: python docs/generate_cli.py"


def test_the_table_of_weights_is_that_of_the_registry():
    made = runpy.run_path(str(ROOT / "docs" / "generate_weights.py"))["page"]
    text = (ROOT / "docs" / "weights.md").read_text(encoding="utf-8")
    assert text == made(text), "run: python docs/generate_weights.py"
    assert all(f"| `{name}" in text for name in (*REGISTRY, *FOLDERS))


def test_the_drawing_of_sync_is_that_of_the_code():
    made = runpy.run_path(str(ROOT / "docs" / "draw_sync.py"))["drawing"]()
    assert (ROOT / "docs" / "sync.svg").read_text(encoding="utf-8") == made, "run: python docs/draw_sync.py"
    assert made.count("row ") == 4
    assert "row 4: valid" in made


def literals():
    """Every text in the code, docstrings aside, with … for what is put into it."""
    for path in (ROOT / "cli.py", *(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def troubles():
    """The messages of docs/troubleshooting.md and of the GPU's page: the first cells of their tables."""
    for page in ("troubleshooting.md", "gpu.md"):
        for cell in re.findall(r"^\| `(.+?)` \| ", (ROOT / "docs" / page).read_text(), re.MULTILINE):
            yield page, cell


def shown_lines():
    """Every line of the report's pages, with … for what is put into it."""
    for path in (ROOT / "apps").rglob("*.html"):
        yield from re.sub(r"\{\{.*?\}\}", "…", path.read_text()).splitlines()


def test_messages_of_the_pages_are_those_of_the_program():
    """Each stands in one text of the code, or line of a report: its words in their order, `…` for anything."""
    texts = [*literals(), *shown_lines()]
    unknown = []
    for page, message in troubles():
        words = [re.escape(part) for part in re.split("…|(?<=there is no )cuda:1", message) if part]
        pattern = re.compile(".*".join(words), re.DOTALL)
        if not any(pattern.search(text) for text in texts):
            unknown.append((page, message))
    assert unknown == []
    assert len(list(troubles())) > 50


def provoked(small, folder):
    """Command lines on a small store that fail, each with a message of the page."""
    (folder / "empty").mkdir()
    (folder / "empty" / "note.txt").write_text("no video")
    (folder / "clip.mp4").write_bytes(b"")
    (folder / "run").mkdir()
    (folder / "run" / "note.txt").write_text("no run")
    features = ("--modalities", "face,voice", "--device", "cpu")
    store, labels = ("--store", small.store), ("--annotations", small.annotations)
    other = folder / "labels"
    other.mkdir()
    for name in ("somebody", "else"):
        (other / f"{name}.csv").write_text("valence,arousal\n0.1,0.2\n0.2,0.3\n")
    return {
        "nothing here is a video by its suffix": ("extract", "--videos", folder / "empty", "--features", "mfcc"),
        "or run `avfuse extract --videos DIR` first": ("train", "--fold", 0),
        "is not an avfuse store": ("status", "--store", folder / "empty"),
        "holds other files and is not an avfuse store; name a new folder": (
            *("extract", "--videos", folder, "--store", folder / "empty", "--features", "mfcc", "--device", "cpu"),
        ),
        "remembers no folder of labels, since it was extracted without --annotations": ("train", "--fold", 0, *store),
        "has no official split": ("train", "--fold", 0, *store, "--annotations", other, *features),
        "extract it, or choose --modalities": ("train", "--fold", 0, *store, *labels, "--device", "cpu"),
        "the names differ": ("train", "--fold", 0, "--folds", 2, *store, "--annotations", other, *features),
        "does not hold a run; name a folder that `avfuse train` made": ("evaluate", "--run", folder / "run"),
        "has finished; give --run": ("evaluate",),
        "there is no cuda:7": ("train", "--fold", 0, *store, *labels, *features[:2], "--device", "cuda:7"),
    }


def test_messages_of_the_page_are_really_printed(plant_small, avfuse, tmp_path, monkeypatch):
    small = plant_small(tmp_path)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    page = (ROOT / "docs" / "troubleshooting.md").read_text() + (ROOT / "docs" / "gpu.md").read_text()
    for message, words in provoked(small, tmp_path).items():
        result = avfuse(*words)
        assert result.exit_code in (1, 2), message
        assert message in " ".join(result.stderr.split()), result.stderr
        said = message.replace("cuda:7", "cuda:1").partition("`")[0].strip()
        assert said in page, message


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) < 200


def test_the_architecture_names_what_is_there_and_fits_two_screens():
    text = (ROOT / "docs" / "architecture.md").read_text()
    assert len(text.splitlines()) <= 100
    tree = text.partition("## Rooms")[2].partition("```text\n")[2].partition("```")[0]
    room, named = "", {}
    for line in tree.splitlines():
        if found := re.match(r"(?:  )?([a-z_]+)/ ", line):
            room = found[1] if line[0] != " " else f"{room.partition('/')[0]}/{found[1]}"
            assert room not in named, f"{room} is there twice"
            named[room] = line
        else:
            named[room] += line
    folders = {path.parent for top in ROOMS for path in (ROOT / top).rglob("*.py")}
    assert named.keys() - {"tests"} == {folder.relative_to(ROOT).as_posix() for folder in folders}
    in_a_word = {ROOT / room for room in ("encoders/families", "pipeline/synth", "fusion/models")}
    for folder in folders - in_a_word:
        line = named[folder.relative_to(ROOT).as_posix()]
        missing = {path.stem for path in folder.glob("*.py")} - {"__init__"} - set(re.findall(r"\w+", line))
        assert not missing, folder


def test_the_readme_names_what_is_at_the_root():
    tree = (ROOT / "README.md").read_text().partition("## Where things are\n\n```text\n")[2].partition("```")[0]
    named = [line.split(maxsplit=1)[0] for line in tree.splitlines()]
    assert all((ROOT / name).exists() for name in named)
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    folders = {name.partition("/")[0] + "/" for name in tracked.splitlines() if re.search(r"/.*\.(py|md)$", name)}
    assert sorted(name for name in named if name.endswith("/")) == sorted(
        name for name in folders if not name.startswith(".")
    )


def test_the_page_of_formats_has_every_feature_of_the_table():
    table = (ROOT / "docs" / "formats.md").read_text().partition("## The arrays of a trial")[2].partition("\n## ")[0]
    rows: dict[str, str] = {}
    for line in table.splitlines():
        if line.startswith("| `"):
            names, kind, _ = (cell.strip() for cell in line.strip("|").split("|", 2))
            rows |= dict.fromkeys(re.findall(r"`([^`]+)`", names), kind)
    for name in FEATURES:
        shape = TABLE[name].row_shape or (512, 7, 7)
        assert f"{TABLE[name].dtype} [T, " in rows[name]
        assert ", ".join(map(str, shape)) in rows[name]


def test_no_placeholder_is_left():
    words = re.compile(r"PLACEHOLDER|DEMO_OUTPUT|MEM\d|MEMRATIO|TODO|FIXME")
    assert not [path.name for path in GUIDES if words.search(path.read_text())]
