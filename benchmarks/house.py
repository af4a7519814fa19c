"""The house in figures: what a reader of the rooms has to hold in the head.

    python benchmarks/house.py [COMMIT]

Without a commit, of the files as they lie in the checkout.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[1]
ROOMS = ("shell", "features_store", "batch", "encoders", "pipeline", "fusion", "apps")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def modules(commit: str | None) -> dict[PurePosixPath, str]:
    """Text of every Python file of the rooms, of a commit or of the checkout."""
    if commit is None:
        found = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
        return {PurePosixPath(path.relative_to(ROOT).as_posix()): path.read_text() for path in sorted(found)}
    names = git("ls-tree", "-r", "--name-only", commit, "--", *ROOMS).splitlines()
    return {PurePosixPath(name): git("show", f"{commit}:{name}") for name in names if name.endswith(".py")}


def figures(texts: dict[PurePosixPath, str]) -> dict[str, str]:
    """Counts over these files; doors (`__init__.py`) are no modules, and their lines and functions count."""
    trees = {path: ast.parse(text) for path, text in texts.items()}
    named = {path: text for path, text in texts.items() if path.name != "__init__.py"}
    folder, most = Counter(path.parent for path in named).most_common(1)[0]
    lines = sum(len(text.splitlines()) for text in texts.values())
    functions = sum(isinstance(node, FUNCTIONS) for tree in trees.values() for node in ast.walk(tree))
    short = sum(len(text.splitlines()) < 60 for text in named.values())
    helpers = [count for tree in trees.values() for count in uses_of_helpers(tree).values()]
    return {
        "modules": f"{len(named):,}",
        "lines": f"{lines:,}",
        "most modules in one folder": f"{most} ({folder})",
        "functions per 100 lines": f"{100 * functions / lines:.1f}",
        "modules under 60 lines": str(short),
        "private helpers used once, of all": f"{helpers.count(1)} of {len(helpers)}",
    }


def uses_of_helpers(tree: ast.Module) -> dict[str, int]:
    """How often a module uses each of its functions and methods whose name begins with one underscore."""
    nodes = list(ast.walk(tree))
    defined = [node.name for node in nodes if isinstance(node, FUNCTIONS)]
    used = Counter(node.id for node in nodes if isinstance(node, ast.Name))
    used += Counter(node.attr for node in nodes if isinstance(node, ast.Attribute))
    return {name: used[name] for name in defined if name.startswith("_") and not name.startswith("__")}


def main() -> None:
    for name, figure in figures(modules(sys.argv[1] if len(sys.argv) > 1 else None)).items():
        print(f"{name:36}{figure}")


if __name__ == "__main__":
    main()
