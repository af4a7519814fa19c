"""The rules that make the repository root the package `avfuse`."""

import ast
import re
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("shell", "features_store", "batch", "encoders", "pipeline", "fusion", "apps")
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
# Names that modules, classes, functions and variables had, and that are nobody's in this field; whatever their case.
RETIRED = set(
    re.findall(
        r"\w+",
        """
        telling hearing found faces joined without_nested in_hand inhand one_process follow tracks leaving leave detect
        averages cuts trouble gone blaming_store lines nodes reading files disk ahead child decoding spool arrivals
        where here spread toolbox networks place work pulse lost told began grid patches stopping stop filler
        fillingengine linger_s checkpoint planned still_to_do stops_short sources matched inside counted useful
        without_some learn close_epoch make_learner may_pass mend some
        """,
    )
)
# Names that are allowed all the same: everyday words that say what is meant where they stand (what was found, a place
# in a list, recordings that were joined), and words that have a meaning of their own here (nodes of a graph, files,
# networks, patches, the grid of a comparison, the spread of some numbers).
EVERYDAY = set(
    re.findall(
        r"\w+",
        """
        found faces joined follow tracks detect cuts lines nodes reading files disk decoding spread networks place work
        lost began grid patches stop checkpoint planned sources matched counted learn
        """,
    )
)
RETIRED_CLASSES = {"Began", "Faces", "Lost", "Matched", "Place", "Planned", "Spread", "Stop", "Work"}


def packages_on_disk() -> set[str]:
    inits = [ROOT / "__init__.py", *(path for room in ROOMS for path in (ROOT / room).rglob("__init__.py"))]
    return {".".join(["avfuse", *path.parent.relative_to(ROOT).parts]) for path in inits}


def setup_cfg() -> ConfigParser:
    config = ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg")
    return config


def test_setup_cfg_lists_every_package():
    assert set(setup_cfg()["options"]["packages"].split()) == packages_on_disk()


def test_the_lowest_versions_are_those_that_were_tested_together():
    config = setup_cfg()
    extras = [
        line
        for name, lines in config["options.extras_require"].items()
        if name not in ("check", "docs")
        for line in lines.split()
    ]
    bounds = dict(
        re.findall(
            r"^([\w-]+)(?:\[\w+\])?>=([\d.]+)",
            "\n".join([*config["options"]["install_requires"].split(), *extras]),
            re.M,
        )
    )
    tested = dict(re.findall(r"^([\w-]+)==([\d.]+)$", (ROOT / "constraints-lowest.txt").read_text(), re.M))
    del tested["distributed"]  # comes with dask[distributed]
    del tested["pyparsing"]  # comes with matplotlib, which newer ones warn of
    assert {name.lower() for name in bounds} == tested.keys()
    for name, bound in bounds.items():
        parts = [[int(part) for part in printed.split(".")] for printed in (tested[name.lower()], bound)]
        assert parts[0][: len(parts[1])] == parts[1], name
        assert not any(parts[0][len(parts[1]) :]), name


def test_the_demo_is_set_up_without_what_tests_and_checks_need():
    rules = dict(re.findall(r"^([^#\t\n:]+): ?([^\n=]*)$", (ROOT / "Makefile").read_text(), re.M))
    assert "$(VENV)/.ready-demo" in rules["demo"].split()
    assert not {"setup", "$(VENV)/.ready"} & set(rules["demo"].split())
    assert rules["soak"] == "test-slow"
    assert all(rules[target] == "setup" for target in ("test", "test-slow", "check", "mutants"))
    demo = (ROOT / "Makefile").read_text().split("$(VENV)/.ready-demo: ")[1].split("ffmpeg:\n")[0]
    assert "'.[demo]'" in demo
    assert "test" not in demo


def test_what_is_cited_has_the_version_of_today():
    found = re.search(r'__version__ = "(.+)"', (ROOT / "__init__.py").read_text())
    assert found is not None
    version = found[1]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"version = {{{version}}}" in (ROOT / "README.md").read_text()


def test_every_folder_with_modules_is_a_package():
    folders = {path.parent for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    assert all((folder / "__init__.py").is_file() for folder in folders)


def test_no_other_module_at_the_root():
    assert {path.name for path in ROOT.glob("*.py")} == {"__init__.py", "__main__.py", "cli.py"}


def test_what_a_module_says_it_is_tested_by_is_there():
    tests = {path.name for path in (ROOT / "tests").rglob("*.py")}
    wrong = []
    for path in (path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        _, said, rest = path.read_text().partition("Tested by ")
        named = re.findall(r"tests/[\w/]*(?:\.py)?|test_\w+\.py", rest.partition('"""')[0]) if said else []
        wrong += [(path.name, name) for name in named if name not in tests and not (ROOT / name).exists()]
    assert wrong == []


def test_tests_are_no_package():
    assert not list((ROOT / "tests").rglob("__init__.py"))


@pytest.mark.parametrize(
    "door", [path for path in MODULES if path.name == "__init__.py"], ids=lambda path: path.parent.name
)
def test_package_doors_import_nothing(door):
    text = door.read_text()
    assert "import" not in text.split('"""')[2]


def test_one_leaf_does_not_load_torch_or_dask():
    code = (
        "import sys, avfuse.cli, avfuse.features_store.store, avfuse.pipeline.commands, avfuse.pipeline.runs.plan\n"
        "print([name for name in ('torch', 'dask', 'torchvision', 'h5py') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_built_wheel_holds_every_module(tmp_path):
    """A forgotten subpackage is missing from the wheel alone, while the editable install works."""
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    source = tmp_path / "checkout"
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in tracked.splitlines():
        if not name.startswith("tests/"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([*pip, "--wheel-dir", tmp_path, source], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if not name.split("/")[0].endswith(".dist-info")}
    modules = {f"avfuse/{name}" for name in tracked.splitlines() if name.endswith(".py") and "/" in name}
    modules = {name for name in modules if name.split("/")[1] in ROOMS}
    modules |= {f"avfuse/{name}" for name in tracked.splitlines() if name.startswith("apps/report/templates/")}
    modules |= {"avfuse/__init__.py", "avfuse/__main__.py", "avfuse/cli.py", "avfuse/py.typed"}
    assert packed == modules


def names_of(path: Path) -> set[str]:
    """Names that a module gives: to itself, functions, classes, arguments, variables and fields."""
    names = {path.stem}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
    return {name.strip("_") for name in names}


class TestFigures:
    """The house in figures: what a reader can hold in the head."""

    def test_a_folder_has_at_most_16_modules(self):
        crowded = {
            str(folder.relative_to(ROOT)): count
            for folder in {path.parent for path in MODULES}
            if (count := len([path for path in folder.glob("*.py") if path.name != "__init__.py"])) > 16
        }
        assert crowded == {}

    def test_code_is_not_chopped_into_functions(self):
        functions = sum(
            isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            for path in MODULES
            for node in ast.walk(ast.parse(path.read_text()))
        )
        lines = sum(len(path.read_text().splitlines()) for path in MODULES)
        assert 100 * functions / lines <= 5

    def test_few_files_are_shorter_than_60_lines(self):
        short = [path for path in MODULES if path.name != "__init__.py" and len(path.read_text().splitlines()) < 60]
        assert len(short) <= 12, sorted(map(str, short))

    def test_retired_words_are_no_names(self):
        found = {
            f"{path.relative_to(ROOT)}: {name}"
            for path in (*MODULES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py"))
            for name in names_of(path)
            if name.lower() in RETIRED - EVERYDAY or name in RETIRED_CLASSES
        }
        assert found == set()

    def test_every_module_is_under_a_contract(self):
        config = setup_cfg()
        layered = [config[name] for name in config.sections() if config[name].get("type") == "layers"]
        containers = {
            name for each in layered if each.get("exhaustive") == "True" for name in each["containers"].split()
        }
        floors = next(each["layers"] for each in layered if "avfuse.cli" in each["layers"])
        assert {f"avfuse.{room}" for room in ROOMS} <= set(floors.replace("|", " ").split())
        assert containers == {f"avfuse.{room}" for room in ROOMS}

    def test_nobody_is_told(self):
        found = subprocess.run(["git", "grep", "-lwI", "told"], cwd=ROOT, capture_output=True, text=True, check=False)
        assert found.stdout.split() in ([], ["tests/test_house.py"]), found.stderr
