"""Ended before every single step that a run makes on the disk, in the middle of every file, refused every step."""

import json
import re
import shutil
import signal

import pytest

HALF = 7  # bytes of a file that a kill cuts off
AT_ONCE = 4
SCENARIOS = ("fresh", "replace", "remove")
IN_A_BUCKET = tuple(f"{scenario} in a bucket" for scenario in SCENARIOS)
REFUSED = re.compile(r"(OSError|PermissionError|\S+\.StoreUnwritable): .*(No space left on device|Permission denied)")


@pytest.fixture(scope="module")
def prepared(stores, tmp_path_factory):
    """The store on which a scenario begins."""
    old = tmp_path_factory.mktemp("old") / "s"
    stores.finish(scenario="old", root=str(old))

    def make(scenario, root):
        if "fresh" not in scenario:
            shutil.copytree(old, root)
        return root

    return make


@pytest.fixture(scope="module")
def uninterrupted(stores, prepared, tmp_path_factory, contents):
    """All steps of a scenario, and what it leaves."""
    made = {}

    def run(scenario):
        if scenario not in made:
            folder = tmp_path_factory.mktemp("whole")
            root, note = prepared(scenario, folder / "s"), folder / "note"
            stores.finish(scenario=scenario, root=str(root), death={"root": str(root), "note": str(note)})
            found = contents(root, folders=scenario in SCENARIOS)
            made[scenario] = [json.loads(line) for line in note.read_text().splitlines()], found
        return made[scenario]

    return run


@pytest.fixture
def ended(stores, prepared, uninterrupted, contents, nothing_half, tmp_path):
    """Runs with these deaths, several at once; each must leave nothing half done, and the next run finishes."""

    def run(scenario, deaths):
        for first in range(0, len(deaths), AT_ONCE):
            several = deaths[first : first + AT_ONCE]
            roots = [prepared(scenario, tmp_path / f"{death}") for death in several]
            yield from zip(several, start(scenario, roots, several), strict=True)
            for root in roots:
                nothing_half(root)
            again = start(scenario, roots, [None] * len(roots))
            assert [each.wait() for each in again] == [0] * len(again), [each.said("err") for each in again]
            found = [contents(root, folders=scenario in SCENARIOS) for root in roots]
            whole = uninterrupted(scenario)[1]
            assert [death for death, each in zip(several, found, strict=True) if each != whole] == []

    def start(scenario, roots, deaths):
        request = [{"root": str(root), **death} if death else {} for root, death in zip(roots, deaths, strict=True)]
        pairs = zip(roots, request, strict=True)
        runs = [stores.start(scenario=scenario, root=str(root), death=death) for root, death in pairs]
        for each in runs:
            each.wait()
        return runs

    return run


@pytest.mark.parametrize("scenario", [*SCENARIOS, *IN_A_BUCKET])
def test_killed_at_every_step(uninterrupted, ended, every_step, scenario):
    steps, _ = uninterrupted(scenario)
    assert len(steps) > 20
    deaths = [{"at": at, "how": "alone"} for at in range(1, len(steps) + 1, (every_step + 1) // 2)]
    # Objects are put whole: in a bucket no half a file can be left.
    opened = [at for at, step in enumerate(steps, 1) if step == "open" and scenario in SCENARIOS][::every_step]
    deaths += [{"at": at, "how": "cut", "keep": keep} for at in opened for keep in (0, HALF)]
    for death, run in ended(scenario, deaths):
        assert run.code in (-signal.SIGKILL, -signal.SIGXFSZ), (steps[death["at"] - 1], death, run.said("err"))


@pytest.mark.parametrize("how", ["full", "locked"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_refused_every_step(uninterrupted, ended, every_step, scenario, how):
    """The disk is full, or the rights are lost, from some step on: an error says so, and no other does."""
    steps, _ = uninterrupted(scenario)
    refused = 0
    for death, run in ended(scenario, [{"at": at, "how": how} for at in range(1, len(steps) + 1, every_step)]):
        last = run.said("err").strip().rpartition("\n")[2]
        assert run.code == 0 or REFUSED.match(last), (steps[death["at"] - 1], death, run.said("err"))
        refused += run.code != 0
    assert refused > 2
