"""Four runs over one store at once: every trial is made exactly once, and as one run makes it."""

import json
import random
import shutil
import time

NAMES = [f"clip{number}" for number in range(6)]


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
