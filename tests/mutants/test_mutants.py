"""The table of changes that tests must notice stays in step with the code; `try_mutants.py` tries them, in minutes."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
MUTANTS = tomllib.loads(Path(__file__).with_name("mutants.toml").read_text())["mutant"]


def test_each_change_can_be_made_and_its_tests_are_there():
    assert len({mutant["name"] for mutant in MUTANTS}) == len(MUTANTS) > 60
    for mutant in MUTANTS:
        text = (ROOT / mutant["file"]).read_text()
        assert text.count(mutant["old"]) == 1, f"{mutant['name']}: {mutant['old']!r} in {mutant['file']}"
        assert mutant["new"] != mutant["old"], mutant["name"]
        compile(text.replace(mutant["old"], mutant["new"]), mutant["file"], "exec")
        assert mutant["tests"]
        for path, _, test in (tests.partition("::") for tests in mutant["tests"]):
            assert f"def {test}" in (ROOT / path).read_text(), mutant["name"]
