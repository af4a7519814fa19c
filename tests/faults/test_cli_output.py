"""What `extract` says, where it says it, and what it leaves alone."""

import json
import os

import pytest

from avfuse.features_store.store import FeatureStore


@pytest.fixture
def three(videos):
    folder = videos("a.mp4", "b/c.mp4", "d.mp4")
    (folder / "bad.mp4").write_text("no film")
    return folder


def test_json_and_plain_lines(cli, three, tmp_path):
    words = ("extract", "--videos", three, "--store", tmp_path / "s.zarr", "--features", "mfcc", "--verbose")
    done = cli.run(*words, "--json")
    assert done.returncode == 3
    (line,) = done.stdout.splitlines()
    summary = json.loads(line)
    assert [receipt["trial"] for receipt in summary["extracted"]] == ["a", "b/c", "d"]
    assert summary["extracted"][0].items() >= {"rows": 10, "frames": 10, "audio": True, "truncated": False}.items()
    assert [failure["video"] for failure in summary["failed"]] == ["bad.mp4"]
    assert summary["done_before"] == 0
    assert "\r" not in done.stderr
    assert "\x1b" not in done.stderr
    assert "it/s" not in done.stderr
    printed = done.stderr.splitlines()
    assert len([line for line in printed if line.startswith("done: ")]) == 3
    assert any(line.startswith("failed: bad.mp4: ") for line in printed)


def test_every_run_of_a_process_tells_its_warnings(invoke, videos, tiny, tmp_path):
    """A stream that is chosen when a module is loaded is the wrong one from the second run on."""
    words = ("--videos", videos("silent.mp4", source=tiny(sound=False)), "--features", "mfcc", "--store")
    for store in ("one.zarr", "two.zarr"):
        assert "warning: silent: no audio" in invoke("extract", *words, tmp_path / store).stderr


def test_nothing_to_do(invoke, tmp_path):
    (tmp_path / "videos").mkdir()
    words = ("extract", "--videos", tmp_path / "videos", "--store", tmp_path / "s.zarr", "--features", "mfcc")
    result = invoke(*words, "--json")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "nothing here is a video by its suffix" in result.stderr


def test_a_dry_run_makes_no_store(invoke, three, tmp_path, snapshot):
    before = snapshot(tmp_path)
    words = ("extract", "--videos", three, "--store", tmp_path / "s.zarr", "--features", "mfcc", "--dry-run")
    result = invoke(*words)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == ["a", "b/c", "bad", "d"]
    assert json.loads(invoke(*words, "--json").stdout) == {"todo": ["a", "b/c", "bad", "d"], "done": []}
    assert snapshot(tmp_path) == before


def test_a_dry_run_leaves_a_store_alone(invoke, three, tmp_path, snapshot):
    words = ("extract", "--videos", three, "--store", tmp_path / "s.zarr", "--features", "mfcc")
    assert invoke(*words, "--limit", "1").exit_code == 0
    (tmp_path / "s.zarr" / ".tmp" / "other.1.1.00").mkdir(parents=True)
    (three / "folder.mp4").mkdir()
    before = snapshot(tmp_path)
    result = invoke(*words, "--dry-run", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["done"] == ["a"]
    assert snapshot(tmp_path) == before


def test_limit(invoke, three, tmp_path):
    words = ("extract", "--videos", three, "--store", tmp_path / "s.zarr", "--features", "mfcc")
    assert invoke(*words, "--limit", "2").exit_code == 0
    assert FeatureStore(tmp_path / "s.zarr").trials() == ["a", "b/c"]
    assert invoke(*words, "--limit", "1").exit_code == 3
    assert invoke(*words, "--limit", "1").exit_code == 3
    assert FeatureStore(tmp_path / "s.zarr").trials() == ["a", "b/c", "d"]


def test_flags_win_over_the_configuration(invoke, videos, tmp_path):
    folder = videos("a.mp4", "b.mp4")
    settings = tmp_path / "c.yaml"
    settings.write_text(
        f"videos: {folder}\nstore: {tmp_path / 'one.zarr'}\nfeatures: [mfcc, logmel]\naudio-align: end\nlimit: 1\n"
    )
    assert invoke("extract", "--config", settings).exit_code == 0
    (trial,) = FeatureStore(tmp_path / "one.zarr").values()
    assert trial.features == ["logmel", "mfcc"]
    assert {trial.entries[name]["settings"]["audio_align"] for name in trial.features} == {"end"}
    flags = ("--store", tmp_path / "two.zarr", "--features", "mfcc", "--limit", "2")
    assert invoke("extract", *flags, "--config", settings).exit_code == 0
    two = FeatureStore(tmp_path / "two.zarr")
    assert two.trials() == ["a", "b"]
    assert two["a"].features == ["mfcc"]
    assert two["a"].entries["mfcc"]["settings"]["audio_align"] == "end"


@pytest.mark.parametrize("text", ["- a list\n", "features: [\n", "\x00"], ids=["list", "broken", "binary"])
def test_a_configuration_that_is_none(invoke, tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    result = invoke("extract", "--videos", tmp_path, "--config", tmp_path / "c.yaml")
    assert result.exit_code == 2
    assert "c.yaml" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_default_store_is_beside_the_videos(invoke, videos, tmp_path, monkeypatch):
    videos("a.mp4")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert invoke("extract", "--videos", os.path.join("..", "videos"), "--features", "mfcc").exit_code == 0
    assert FeatureStore(tmp_path / "features.zarr").trials() == ["a"]
