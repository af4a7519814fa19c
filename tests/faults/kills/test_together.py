"""Runs over one store at once: every feature of a trial is made exactly once, and as one run makes it."""

import json
import random
import shutil
import time

import pytest

from avfuse.features_store.records.verify import verify
from avfuse.features_store.store import FeatureStore, fingerprints_in

NAMES = [f"clip{number}" for number in range(6)]
FEWER = NAMES[:3]


@pytest.mark.slow
def test_four_runs_share_the_work(runs, tiny, contents, tmp_path):
    videos, rng = tmp_path / "videos", random.Random(4)
    videos.mkdir()
    for name in NAMES:
        shutil.copy(tiny(), videos / f"{name}.mp4")
    words = ("--videos", videos, "--features", "mfcc,logmel", "--device", "cpu", "--json")
    four = []
    for _ in range(4):
        four.append(runs.extract(*words, "--store", tmp_path / "s.zarr"))
        time.sleep(rng.uniform(0, 0.3))
    assert [run.wait() for run in four] == [0] * 4, [run.said("err") for run in four]
    summaries = [json.loads(run.said("out")) for run in four]
    assert sorted(each["trial"] for summary in summaries for each in summary["extracted"]) == NAMES
    assert sum(bool(summary["extracted"]) for summary in summaries) > 1
    alone = runs.extract(*words, "--store", tmp_path / "alone.zarr")
    assert alone.wait() == 0
    assert contents(tmp_path / "s.zarr") == contents(tmp_path / "alone.zarr")


@pytest.fixture(scope="module")
def of_one_run(runs, tiny, tmp_path_factory):
    """Videos, and the store of a run that makes all features of them alone."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "videos").mkdir()
    for name in FEWER:
        shutil.copy(tiny(), folder / "videos" / f"{name}.mp4")
    words = ("--videos", folder / "videos", "--device", "cpu", "--features", "mfcc,logmel,fake_sound")
    assert runs.extract(*words, "--store", folder / "s.zarr").wait() == 0
    return folder / "videos", FeatureStore(folder / "s.zarr")


@pytest.mark.parametrize("before", [pytest.param("", marks=pytest.mark.slow), "mfcc"], ids=["new", "growing"])
def test_two_runs_add_different_features(runs, of_one_run, tmp_path, before):
    """Neither leaves a trial to the other one, whoever is faster."""
    (videos, alone), root = of_one_run, tmp_path / "s.zarr"
    words = ("--videos", videos, "--device", "cpu", "--json")
    if before:
        assert runs.extract(*words, "--features", before, "--store", root).wait() == 0
    two = [runs.extract(*words, "--features", names, "--store", root) for names in ("logmel,mfcc", "fake_sound,mfcc")]
    assert [run.wait() for run in two] == [0, 0], [run.said("err") for run in two]
    for run in two:
        summary = json.loads(run.said("out"))
        assert [each["trial"] for each in summary["extracted"]] == FEWER
        assert summary["elsewhere"] == summary["failed"] == []
    store = FeatureStore(root)
    assert list(verify(store)) == []
    for name in FEWER:
        assert store[name].checksums == alone[name].checksums
        assert fingerprints_in(store[name].attributes) == fingerprints_in(alone[name].attributes)
    assert {path.name for path in root.iterdir() if path.name.startswith(".")} == {".planned.json"}
