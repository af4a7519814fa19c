"""Make every change of `mutants.toml` in a copy of the checkout, one at a time: its tests must fail on it.

    python tests/mutants/try_mutants.py [WORD ...]        only entries whose name or file holds one of the words

Exit code 1 where one survives, or where its tests fail without it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENCE_S = 900


def main(words: list[str]) -> int:
    """Try the chosen entries; returns the exit code."""
    table = tomllib.loads(Path(__file__).with_name("mutants.toml").read_text())["mutant"]
    chosen = [each for each in table if not words or any(word in f"{each['name']} {each['file']}" for word in words)]
    with tempfile.TemporaryDirectory() as folder:
        copy = copied(Path(folder))
        tests = sorted({path for each in chosen for path in each["tests"]})
        spoiled = {path for path in tests if failing(copy, path)} if failing(copy, *tests) else set()
        fates: Counter[str] = Counter()
        for number, each in enumerate(chosen, 1):
            fate = "its tests fail without it" if spoiled & {*each["tests"]} else tried(copy, each)
            fates[fate] += 1
            print(f"{number}/{len(chosen)} {each['file']}: {each['name']}: {fate}", flush=True)
    print(", ".join(f"{count} {fate}" for fate, count in sorted(fates.items())))
    return int(set(fates) != {"noticed"})


def copied(folder: Path) -> Path:
    """A copy of what git knows, as the package `avfuse`; the real clips stay where tests look for them."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / "avfuse" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "avfuse" / name)
    (folder / "shared").symlink_to(ROOT.parent / "shared")
    return folder / "avfuse"


def tried(copy: Path, mutant: dict[str, str]) -> str:
    """What becomes of one entry; the copy is as before then."""
    path = copy / mutant["file"]
    text = path.read_text()
    if text.count(mutant["old"]) != 1:
        return f"its old text is there {text.count(mutant['old'])} times"
    path.write_text(text.replace(mutant["old"], mutant["new"]))
    try:
        return "noticed" if any(failing(copy, tests) for tests in mutant["tests"]) else "SURVIVED"
    finally:
        path.write_text(text)


def failing(copy: Path, *tests: str) -> bool:
    """Whether one of these files of tests, or tests, fails on the copy as it is. Raises RuntimeError without any."""
    environment = {**os.environ, "PYTHONPATH": os.fspath(copy.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return True  # a loop without an end is noticed too
    if done.returncode not in (0, 1, 2):  # 2: the module cannot even be imported any more
        raise RuntimeError(f"{' '.join(tests)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.returncode != 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
