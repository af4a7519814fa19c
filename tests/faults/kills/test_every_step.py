"""Ended before every single step that a run makes on the disk, in the middle of every file, refused every step."""

import json
import re
import shutil
import signal

import pytest

from avfuse.features_store.store import FeatureStore

HALF = 7  # bytes of a file that a kill cuts off
AT_ONCE = 4
GROWING = ("add", "replace_feature", "remove_feature")
SCENARIOS = ("fresh", "replace", "remove", *GROWING)
IN_A_BUCKET = tuple(f"{scenario} in a bucket" for scenario in SCENARIOS)
QUICK = ("fresh", "replace", "add", "replace in a bucket")  # a trial that is new, one that is there, one that grows
REFUSED = re.compile(r"(OSError|PermissionError|\S+\.StoreUnwritable): .*(No space left on device|Permission denied)")


@pytest.fixture(scope="module")
def prepared(stores, tmp_path_factory):
    """The store on which a scenario begins."""
    folder = tmp_path_factory.mktemp("before")
    for name in ("old", "grown"):
        stores.finish(scenario=name, root=str(folder / name))

    def make(scenario, root):
        if "fresh" not in scenario:
            shutil.copytree(folder / ("grown" if scenario.split()[0] in GROWING else "old"), root)
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
            before = [untouched(scenario, root) for root in roots]
            yield from zip(several, start(scenario, roots, several), strict=True)
            for root, kept in zip(roots, before, strict=True):
                nothing_half(root)
                all_or_nothing(scenario, root)
                assert untouched(scenario, root) == kept
            again = start(scenario, roots, [None] * len(roots))
            assert [each.wait() for each in again] == [0] * len(again), [each.said("err") for each in again]
            found = [contents(root, folders=scenario in SCENARIOS) for root in roots]
            whole = uninterrupted(scenario)[1]
            assert [death for death, each in zip(several, found, strict=True) if each != whole] == []
            assert [untouched(scenario, root) for root in roots] == before

    def start(scenario, roots, deaths):
        request = [{"root": str(root), **death} if death else {} for root, death in zip(roots, deaths, strict=True)]
        pairs = zip(roots, request, strict=True)
        runs = [stores.start(scenario=scenario, root=str(root), death=death) for root, death in pairs]
        for each in runs:
            each.wait()
        return runs

    return run


def sample(steps, each, scenario):
    """Every so many of them, of a growing store's a third: it makes three times as many; in the soak all."""
    return steps[:: each * 3 if each > 1 and scenario.split()[0] in GROWING else each]


def untouched(scenario, root):
    """Inode and bytes of the files of arrays that a scenario has nothing to do with."""
    if scenario.split()[0] not in GROWING:
        return {}
    files = (path for name in ("time", "x", "face", "face_valid") for path in root.rglob(f"{name}/**/*"))
    return {path: (path.stat().st_ino, path.read_bytes()) for path in files if path.is_file()}


def all_or_nothing(scenario, root):
    """Of a growing store all trials are there, each with all other features; the one at stake is old, new or absent."""
    if scenario.split()[0] not in GROWING:
        return
    store = FeatureStore(root)
    assert store.trials() == ["a", "a/below", "many/face0", "many/face1"]
    name, former = ("extra", set()) if scenario.startswith("add") else ("voice", {2.0})
    for trial in ("a", "many/face0", "many/face1"):
        entries, arrays = store[trial].entries, {"time", "x", "face", "face_valid"}
        other = {"voice": "old"} if name == "extra" else {}
        there = {"extra", "extra_valid", "voice", "voice_valid"} & set(store[trial])
        assert (name in there) == (f"{name}_valid" in there) == (name in entries)
        assert arrays <= set(store[trial])
        assert {each: entries[each]["fingerprint"] for each in ("clock", "face", *other)} == {
            "clock": "c",
            "face": "old",
            **other,
        }
        if name in there:
            values, made = set(store[trial].read(name).ravel().tolist()), entries[name]["fingerprint"]
            assert (values, made) in [({7.0}, "new"), (former, "old")]


@pytest.mark.parametrize(
    "scenario",
    [pytest.param(each, marks=() if each in QUICK else pytest.mark.slow) for each in (*SCENARIOS, *IN_A_BUCKET)],
)
def test_killed_at_every_step(uninterrupted, ended, every_step, scenario):
    steps, _ = uninterrupted(scenario)
    assert len(steps) > 20
    each = (every_step + 1) // 2
    deaths = [{"at": at, "how": "alone"} for at in sample(range(1, len(steps) + 1), each, scenario)]
    # Objects are put whole: in a bucket no half a file can be left.
    opened = [at for at, step in enumerate(steps, 1) if step == "open" and scenario in SCENARIOS]
    cut = sample(opened, every_step, scenario)
    deaths += [{"at": at, "how": "cut", "keep": keep} for at in cut for keep in (0, HALF)]
    for death, run in ended(scenario, deaths):
        assert run.code in (-signal.SIGKILL, -signal.SIGXFSZ), (steps[death["at"] - 1], death, run.said("err"))


@pytest.mark.parametrize("how", ["full", pytest.param("locked", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "scenario", [pytest.param(each, marks=() if each in QUICK else pytest.mark.slow) for each in SCENARIOS]
)
def test_refused_every_step(uninterrupted, ended, every_step, scenario, how):
    """The disk is full, or the rights are lost, from some step on: an error says so, and no other does."""
    steps, _ = uninterrupted(scenario)
    refused = 0
    refusals = [{"at": at, "how": how} for at in sample(range(1, len(steps) + 1), every_step, scenario)]
    for death, run in ended(scenario, refusals):
        last = run.said("err").strip().rpartition("\n")[2]
        assert run.code == 0 or REFUSED.match(last), (steps[death["at"] - 1], death, run.said("err"))
        refused += run.code != 0
    assert refused > 2
