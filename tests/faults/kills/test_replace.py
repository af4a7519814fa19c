"""A run that replaces done trials is killed at any step, and goes on: nothing is lost, and nothing done twice."""

import json
import shutil

import pytest

from avfuse.features_store.store import FeatureStore

TRIALS = ["a", "b", "batch1/c"]


@pytest.mark.slow
def test_killed_and_resumed(runs, videos, contents, nothing_half, tmp_path):
    before, whole = tmp_path / "before.zarr", tmp_path / "whole.zarr"
    common = ("--videos", videos(*(f"{trial}.mp4" for trial in TRIALS)), "--device", "cpu", "--json", "--store")
    assert runs.extract(*common, before, "--features", "mfcc,logmel").wait() == 0

    def replace(root, **death):
        return runs.extract(*common, root, "--features", "mfcc", "--audio-align", "end", "--replace", **death)

    shutil.copytree(before, whole)
    note = tmp_path / "note"
    assert replace(whole, death={"root": str(whole), "note": str(note)}).wait() == 0
    steps = len(note.read_text().splitlines())
    for share in (0.3, 0.7):
        root = tmp_path / f"{share}.zarr"
        shutil.copytree(before, root)
        killed = replace(root, death={"root": str(root), "at": round(share * steps), "how": "session"})
        assert killed.wait() == -9
        nothing_half(root)
        store = FeatureStore(root)
        ends = {trial: store[trial].entries.get("mfcc", {}).get("settings", {}) for trial in TRIALS if trial in store}
        done = [trial for trial in TRIALS if ends.get(trial, {}).get("audio_align") == "end"]
        made = {trial: (root / trial / "zarr.json").stat().st_mtime_ns for trial in done}

        run = replace(root)
        assert run.wait() == 0, run.said("err")
        summary = json.loads(run.said("out"))
        assert [each["trial"] for each in summary["extracted"]] == [trial for trial in TRIALS if trial not in done]
        assert summary["done_before"] == len(done)
        assert {trial: (root / trial / "zarr.json").stat().st_mtime_ns for trial in done} == made
        assert contents(root) == contents(whole)
