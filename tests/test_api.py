"""Every public function, method and class says what a caller must know: shapes, units, errors, sources.

The rule, over the whole package; docs/api.md shows a part of it:

- it has a docstring;
- where an array or a tensor goes in or comes out, the docstring has a shape in brackets; tensors by name, as a state
  dict has them, are of any shape, and the docstring says that they are weights;
- a float has its unit in its name (`_s`, `_hz`, `_px` …) or is a share or a factor by its name, or the docstring
  speaks of it by name, or of where it does;
- where the function itself raises, the docstring says `Raises` and what: the class, or one that it is derived from;
- where a function may give None, the docstring says when;
- where numbers are computed by a formula (`FORMULAS`), the docstring or that of its module names the source.

What is said elsewhere counts where a reader is led to it: a method may leave to its class what the class says, an
override to what it overrides, and any docstring to the class or function that it names in "as `NAME`". A command's
docstring is its help; the options have theirs, and errors end in an exit code.
"""

import ast
import builtins
import importlib.util
import re
from functools import cache
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("apps", "batch", "encoders", "features_store", "fusion", "pipeline", "shell")
FORMULAS = (
    *("fusion/tasks", "fusion/layers", "fusion/models", "pipeline/audio", "pipeline/faces"),
    *(f"fusion/results/{name}" for name in ("bootstrap", "comparison", "fold_scores", "report", "smoothing")),
)
ARRAY = re.compile(r"NDArray|Tensor|ArrayLike|\bArray\b|RowSource")
SHAPE = re.compile(r"\[(?!0, 1\])[\w*.…][^\[\])]*\](?!\()|\barray\b.*\bas\b|those of `\w+`")  # no range, no link
BY_NAME = re.compile(r"\b(?:dict|Mapping)\[str, (?:torch\.)?Tensor\]")
WEIGHTS = re.compile(r"\b[Ww]eights?\b|\b[Ss]tate dict\b")
UNIT = re.compile(r"(?:^|_)(?:s|seconds|hz|px|db|gb|bytes|frames|rows|share|factor)$")
SOURCE = re.compile(r"[Ss]ource|docs/sources\.md|\bS[1-4]\b|et al\.|\b[Oo]urs\b|\bSu Zhang\b|template")
ELSEWHERE = re.compile(r"docs/training\.md|options by their names")
LED_TO = re.compile(r"\b[Aa]s `(\w+)`")
COMMAND = re.compile(r"\b(?:command|group)\b")


@cache
def parsed(file):
    return ast.parse(file.read_text())


def modules():
    """Every module of the package."""
    return [*ROOT.glob("*.py"), *(file for room in ROOMS for file in sorted((ROOT / room).rglob("*.py")))]


@cache
def definitions():
    """Every class and function of the package by name: what a docstring may lead to, or a class be made from."""
    found: dict[str, list[ast.ClassDef | ast.FunctionDef]] = {}
    for file in modules():
        for node in parsed(file).body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                found.setdefault(node.name, []).append(node)
    return found


def public(file):
    """Each public function, class and method of a module: where it is, its node, the docstrings that speak with it."""
    tree = parsed(file)
    label = file.relative_to(ROOT).as_posix()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name[0] != "_":
            yield from walk(label, node, (ast.get_docstring(tree) or "",))


def walk(label, node, above):
    yield label, node, above
    if isinstance(node, ast.ClassDef):
        of_class = ast.get_docstring(node) or ""
        for each in node.body:
            if isinstance(each, ast.FunctionDef) and not each.name.startswith("_"):
                said = "\n".join((of_class, *overridden(node, each.name)))
                yield from walk(f"{label}: {node.name}", each, (*above, said))


def overridden(node, name):
    """What the classes of the package that a class is made from say of themselves and of their method of this name."""
    for base in node.bases:
        # `nn.GRU` is not the package's `GRU`
        for parent in definitions().get(ast.unparse(base).partition("[")[0], ()):
            methods = [each for each in getattr(parent, "body", ()) if getattr(each, "name", None) == name]
            yield from (ast.get_docstring(each) or "" for each in (parent, *methods))
            if isinstance(parent, ast.ClassDef):
                yield from overridden(parent, name)


def makers(node):
    """The functions whose arguments and errors a docstring answers for: of a class those that make one."""
    if isinstance(node, ast.FunctionDef):
        return [node]
    return [
        each for each in node.body if isinstance(each, ast.FunctionDef) and each.name in ("__init__", "__post_init__")
    ]


def raised(node, caught=False):
    """Of each error that a function raises and does not catch: the names of its class, and of those it is derived from.

    Empty for one that it was given, which is another function's to name.
    """
    if isinstance(node, ast.Raise) and node.exc is not None and not caught:
        name = ast.unparse(node.exc.func if isinstance(node.exc, ast.Call) else node.exc).rpartition(".")[2]
        made = next((each for each in definitions().get(name, ()) if isinstance(each, ast.FunctionDef)), None)
        if isinstance(node.exc, ast.Call) and made is not None and made.returns is not None:
            name = ast.unparse(made.returns)
        yield ancestors(name) if name[0].isupper() else set()
    for part, value in ast.iter_fields(node):
        handled = caught or (isinstance(node, ast.Try) and part == "body" and bool(node.handlers))
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, ast.AST):
                yield from raised(each, handled)


def ancestors(name):
    """The names of a class and of all that it is derived from, but for those that every error is."""
    found = {name}
    for each in definitions().get(name, ()):
        for base in getattr(each, "bases", ()):
            found |= ancestors(ast.unparse(base).rpartition(".")[2])
    known = getattr(builtins, name, getattr(click, name, None))
    if isinstance(known, type):
        found |= {each.__name__ for each in known.__mro__}
    return found - {"object", "BaseException", "Exception"}


def lacks(label, node, above):
    """What a docstring does not say and should."""
    own = ast.get_docstring(node) or ""
    if not own:
        return ["a docstring"]
    if any(COMMAND.search(ast.unparse(each).partition("(")[0]) for each in node.decorator_list):
        return []
    of_class = above[1] if len(above) > 1 else ""
    led_to = [each for name in LED_TO.findall(own) for each in definitions().get(name, ())]
    said = "\n".join((own, of_class, *(ast.get_docstring(each) or "" for each in led_to)))
    arguments = [
        each for maker in makers(node) for each in (*maker.args.posonlyargs, *maker.args.args, *maker.args.kwonlyargs)
    ]
    if isinstance(node, ast.ClassDef):
        fields = [each for each in node.body if isinstance(each, ast.AnnAssign)]
        typed = [(ast.unparse(each.target), ast.unparse(each.annotation)) for each in fields]
    else:
        typed = [("return", ast.unparse(node.returns))] if node.returns is not None else []
    typed += [(each.arg, ast.unparse(each.annotation)) for each in arguments if each.annotation is not None]
    typed = [(name, kind) for name, kind in typed if not name.startswith("_")]
    missing = []
    has_arrays = any(ARRAY.search(BY_NAME.sub("", kind)) for _, kind in typed)
    has_weights = any(BY_NAME.search(kind) for _, kind in typed)
    if (has_arrays or (has_weights and not WEIGHTS.search(said))) and not SHAPE.search(said):
        missing.append("shapes")
    for name, kind in typed:
        is_float = kind in ("float", "float | None") and name != "return"
        if is_float and not UNIT.search(name) and f"`{name}`" not in said and not ELSEWHERE.search(said):
            missing.append(f"the unit of {name}")
    words = {*re.findall(r"\w+", said)}
    errors = [each for maker in makers(node) for each in raised(maker)]
    if (errors and not re.search(r"[Rr]aise", said)) or not all(words & kinds for kinds in errors if kinds):
        missing.append("errors")
    returned = next((kind for name, kind in typed if name == "return"), "")
    if returned.endswith("| None") and not re.search(r"\bNone\b|\b[Nn]othing\b", said):
        missing.append("when it is None")
    is_formula = (
        label.startswith(FORMULAS) and has_arrays and re.search(rf"{ARRAY.pattern}|\bfloat\b|\bAny\b", returned)
    )
    if is_formula and not SOURCE.search(f"{said}\n{above[0]}"):
        missing.append("a source")
    return missing


@pytest.mark.parametrize("room", [".", *ROOMS])
def test_what_others_may_call_says_what_a_caller_must_know(room):
    files = [file for file in modules() if file.relative_to(ROOT).parts[:-1][:1] == ((room,) if room != "." else ())]
    asked = [each for file in files for each in public(file)]
    assert asked
    gaps = {f"{label}: {node.name}": missing for label, node, above in asked if (missing := lacks(label, node, above))}
    assert gaps == {}


def shown():
    """The names that docs/api.md shows."""
    for target in re.findall(r"^::: avfuse\.(.+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE):
        path, _, only = target.replace(".", "/").rpartition("/")
        file = ROOT / f"{target.replace('.', '/')}.py"
        if file.is_file():
            yield from (node.name for _, node, _ in public(file))
        else:
            yield from (
                node.name for label, node, _ in public(ROOT / f"{path}.py") if only in (node.name, label[-len(only) :])
            )


def test_the_page_shows_the_api():
    names = list(shown())
    assert {"FeatureStore", "Trial", "WindowDataset", "ccc", "ccc_loss", "FaceEncoder", "Task", "FrameReader"} <= {
        *names
    }
    assert len(names) > 100


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("def f(x: int) -> int: ...", ["a docstring"]),
        ("def f(x: NDArray[np.float32]) -> int:\n '''Words.'''", ["shapes"]),
        ("def f(x: NDArray[np.float32]) -> int:\n '''Rows [T, D].'''", []),
        ("def f(x: dict[str, Tensor]) -> int:\n '''Words.'''", ["shapes"]),
        ("def f(x: dict[str, Tensor]) -> int:\n '''Words on weights.'''", []),
        ("def f(x: dict[str, Tensor], y: Tensor) -> int:\n '''Words on weights.'''", ["shapes"]),
        ("def f(x: int) -> int | None:\n '''Words.'''", ["when it is None"]),
        ("def f(x: int) -> int | None:\n '''Words; None without any.'''", []),
        ("def f(limit: float) -> int:\n '''Words.'''", ["the unit of limit"]),
        ("def f(limit_s: float, seconds: float, share: float) -> int:\n '''Words.'''", []),
        ("def f(x: int) -> int:\n '''Words.'''\n raise ValueError(x)", ["errors"]),
        ("def f(x: int) -> int:\n '''Words. Raises OSError.'''\n raise ValueError(x)", ["errors"]),
        ("def f(x: int) -> int:\n '''Words. Raises OSError.'''\n raise FileNotFoundError(x)", []),
        ("def f(x: int) -> int:\n '''Words. Raises ValueError.'''\n raise StoreMismatch(x)", []),
        ("def f(x: int) -> int:\n '''Words. Raises OSError.'''\n raise store_removed(x)", []),
        ("def f(x: int) -> int:\n '''Words.'''\n try:\n  raise ValueError(x)\n except ValueError:\n  return 0", []),
        ("def f(x: Exception) -> int:\n '''Words. Raises it.'''\n raise x", []),
        ("@click.command('f')\ndef f(limit: float) -> int:\n '''Words.'''\n raise ValueError(limit)", []),
        ("@contextmanager\ndef f(x: int) -> int:\n '''Words.'''\n raise ValueError(x)", ["errors"]),
        (
            "class F:\n '''Words. Raises ValueError.'''\n def __init__(self, x: Tensor) -> None:\n  raise ValueError",
            ["shapes"],
        ),
    ],
)
def test_what_is_missing_is_seen(text, missing):
    assert lacks("features_store/clock.py", ast.parse(text).body[0], ("",)) == missing


def test_an_override_may_leave_it_to_its_parent(monkeypatch):
    tree = ast.parse(
        "class P:\n '''One.'''\n def f(self, x: Tensor) -> None:\n  '''Rows [T, D].'''\n"
        "class C(P):\n '''Two.'''\n def f(self, x: Tensor) -> None:\n  '''Words.'''\n"
        "class D:\n '''Three.'''\n def f(self, x: Tensor) -> None:\n  '''Words.'''\n"
        "def g(x: Tensor) -> None:\n '''Words, as `h`.'''\n"
        "def h(x: Tensor) -> None:\n '''Rows [T, D].'''\n"
    )
    nodes = [node for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
    monkeypatch.setattr(f"{__name__}.definitions", lambda: {node.name: [node] for node in nodes})
    found = {
        f"{node.name} {at}": lacks("x.py", *each[1:])
        for node in nodes
        for at, each in enumerate(walk("x.py", node, ("",)))
    }
    assert {name for name, missing in found.items() if missing} == {"D 1"}


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
