"""What docs/api.md shows is documented: shapes, units, errors, sources.

The rule, for each public function, method and class that the page shows:

- it has a docstring;
- where an array or a tensor goes in or comes out, the docstring has a shape in brackets;
- a float has its unit in its name (`_s`, `_hz`, `_px` …), or the docstring speaks of it by name, or of where it does;
- where the function itself raises, the docstring says `Raises`;
- where numbers are computed by a formula (`FORMULAS`), the docstring or that of its module names the source.

A method may leave to its class what the class says, and an argument to a function that its docstring names.
"""

import ast
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORMULAS = (
    "fusion/tasks/ccc",
    "fusion/tasks/f1",
    "fusion/tasks/au",
    "fusion/layers",
    "fusion/results",
    "pipeline/audio",
    "pipeline/faces",
)
ARRAY = re.compile(r"NDArray|Tensor|ArrayLike|\bArray\b|RowSource")
SHAPE = re.compile(r"\[(?:[A-Z]|\d|\.\.\.|…)[^\]]*\]|\barray\b.*\bas\b|those of `\w+`")
UNIT = re.compile(r"_(?:s|hz|px|db|gb|bytes|frames|rows)$")
SOURCE = re.compile(r"[Ss]ource|docs/sources\.md|\bS[1-4]\b|et al\.|\b[Oo]urs\b|\bSu Zhang\b|template")


def shown():
    """Each public function and class of the page: its name, its node, and the docstrings that stand above it."""
    for target in re.findall(r"^::: avfuse\.(.+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE):
        path, _, only = target.replace(".", "/").rpartition("/")
        file = ROOT / f"{target.replace('.', '/')}.py"
        wanted = None
        if not file.is_file():
            file, wanted = ROOT / f"{path}.py", only
        tree = ast.parse(file.read_text())
        where = file.relative_to(ROOT).as_posix()
        public = [
            each for each in tree.body if isinstance(each, (ast.FunctionDef, ast.ClassDef)) and each.name[0] != "_"
        ]
        for node in public:
            if wanted in (None, node.name):
                yield from walk(where, node, (ast.get_docstring(tree) or "",))


def walk(where, node, above):
    yield where, node, above
    if isinstance(node, ast.ClassDef):
        for each in node.body:
            if isinstance(each, ast.FunctionDef) and not each.name.startswith("_"):
                yield from walk(f"{where}: {node.name}", each, (*above, ast.get_docstring(node) or ""))


def makers(node):
    """The functions whose arguments and errors a docstring answers for: of a class those that make one."""
    if isinstance(node, ast.FunctionDef):
        return [node]
    return [
        each for each in node.body if isinstance(each, ast.FunctionDef) and each.name in ("__init__", "__post_init__")
    ]


def lacks(where, node, above):
    """What a docstring does not say and should."""
    own = ast.get_docstring(node) or ""
    if not own:
        return ["a docstring"]
    of_class = above[1] if len(above) > 1 else ""
    said, missing = f"{own}\n{of_class}", []
    arguments = [
        each for maker in makers(node) for each in (*maker.args.posonlyargs, *maker.args.args, *maker.args.kwonlyargs)
    ]
    if isinstance(node, ast.ClassDef):
        fields = [each for each in node.body if isinstance(each, ast.AnnAssign)]
        typed = [(ast.unparse(each.target), ast.unparse(each.annotation)) for each in fields]
    else:
        typed = [("return", ast.unparse(node.returns))] if node.returns is not None else []
    typed += [(each.arg, ast.unparse(each.annotation)) for each in arguments if each.annotation is not None]
    has_arrays = any(ARRAY.search(kind) for name, kind in typed if not name.startswith("_"))
    if has_arrays and not SHAPE.search(said):
        missing.append("shapes")
    for name, kind in typed:
        if (
            kind in ("float", "float | None")
            and name != "return"
            and not UNIT.search(name)
            and f"`{name}`" not in said
            and "docs/training.md" not in said
        ):
            missing.append(f"the unit of {name}")
    raises = any(
        isinstance(each, ast.Raise) and each.exc is not None for maker in makers(node) for each in ast.walk(maker)
    )
    if raises and not re.search(r"[Rr]aise", said):
        missing.append("errors")
    is_formula = isinstance(node, ast.FunctionDef) and has_arrays and where.startswith(FORMULAS)
    if is_formula and not SOURCE.search(f"{said}\n{above[0]}"):
        missing.append("a source")
    return missing


SHOWN = list(shown())


@pytest.mark.parametrize(("where", "node", "above"), SHOWN, ids=[f"{where}: {node.name}" for where, node, _ in SHOWN])
def test_what_the_api_reference_shows_says_what_a_caller_must_know(where, node, above):
    assert lacks(where, node, above) == []


def test_the_page_shows_the_api():
    names = {node.name for _, node, _ in SHOWN}
    assert {"FeatureStore", "Trial", "WindowDataset", "ccc", "ccc_loss", "FaceEncoder", "Task", "FrameReader"} <= names
    assert len(SHOWN) > 100


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("def f(x: int) -> int: ...", ["a docstring"]),
        ("def f(x: NDArray[np.float32]) -> int:\n '''Words.'''", ["shapes"]),
        ("def f(x: NDArray[np.float32]) -> int:\n '''Rows [T, D].'''", []),
        ("def f(limit: float) -> int:\n '''Words.'''", ["the unit of limit"]),
        ("def f(limit_s: float) -> int:\n '''Words.'''", []),
        ("def f(x: int) -> int:\n '''Words.'''\n raise ValueError(x)", ["errors"]),
        (
            "class F:\n '''Words. Raises ValueError.'''\n def __init__(self, x: Tensor) -> None:\n  raise ValueError",
            ["shapes"],
        ),
    ],
)
def test_what_is_missing_is_seen(text, missing):
    assert lacks("features_store/clock.py", ast.parse(text).body[0], ("",)) == missing


def test_a_formula_without_a_source_is_seen():
    node = ast.parse("def f(x: Tensor) -> Tensor:\n '''Rows [T, D].'''").body[0]
    assert lacks("fusion/tasks/ccc.py", node, ("",)) == ["a source"]
    assert lacks("fusion/tasks/ccc.py", node, ("Source: S1.",)) == []


def test_the_page_names_modules_that_can_be_imported():
    for target in re.findall(r"^::: (avfuse\..+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE):
        module = (
            target
            if (ROOT / f"{target.partition('.')[2].replace('.', '/')}.py").is_file()
            else target.rpartition(".")[0]
        )
        assert importlib.util.find_spec(module) is not None, target
