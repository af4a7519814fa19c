"""No name of a video, a trial or a label leads out of the store, and links among the videos end."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avfuse.features_store.store import FeatureStore
from avfuse.pipeline.runs.discover import walk_videos

LEADING_OUT = (
    "",
    ".",
    "..",
    "../a",
    "a/../../b",
    "a/./b",
    "a/..",
    "/a",
    "//a",
    "a//b",
    "a/",
    "a\\..\\b",
    "a\0b",
    ".tmp",
    ".tmp/x",
    ".claims",
    "a/.claims/x",
    "zarr.json",
    "a/zarr.json",
    "zarr.json/a",
    "failures.jsonl",
    "failures.jsonl/a",
    "a" * 256,
    "é" * 128,
    "a/" + "b" * 300,
)
NAMES = ("a\nb", "a\tb", "\x1b[2Ja", "a b", "-a", "~", "$HOME", "a:b", "%s", "a" * 255, "\u202eabc", "caf\udce9", "CON")


def outside(tmp_path: Path) -> set[Path]:
    return {path for path in tmp_path.rglob("*") if not path.is_relative_to(tmp_path / "in" / "s.zarr")}


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    (tmp_path / "in").mkdir()
    return FeatureStore(tmp_path / "in" / "s.zarr", mode="a")


@pytest.mark.parametrize("name", LEADING_OUT, ids=repr)
def test_a_name_that_leads_out_is_refused(store, tmp_path, name):
    before = outside(tmp_path)
    for do in (lambda: store.write(name, {"time": np.zeros(2)}, {}), lambda: store.remove(name)):
        with pytest.raises(ValueError, match="cannot name a trial"):
            do()
    assert name not in store
    assert store.attributes(name) is None
    assert store.trials() == []
    assert outside(tmp_path) == before


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_any_other_name_stays_inside(store, tmp_path, name):
    before = outside(tmp_path)
    store.write(name, {"time": np.arange(2.0)}, {})
    assert store.trials() == [name]
    assert store[name].read("time").tolist() == [0, 1]
    store.remove(name)
    assert store.trials() == []
    assert outside(tmp_path) == before


@given(name=st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.text("./\\a\0", max_size=8))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_name_is_refused_or_stays_inside(store, tmp_path, name):
    before = outside(tmp_path)
    try:
        store.write(name, {"time": np.arange(2.0)}, {})
    except ValueError:
        assert store.trials() == []
    else:
        assert store.trials() == [name]
        store.remove(name)
    assert outside(tmp_path) == before


@pytest.mark.parametrize("name", ["../x", "/x", ".x", "a/b", "..", "", "a\\b", "a\0b"])
def test_an_array_stays_in_its_trial(store, tmp_path, name):
    before = outside(tmp_path)
    with pytest.raises(ValueError, match="cannot name an array"):
        store.write("a", {name: np.zeros((2, 2), np.float32)}, {})
    assert store.trials() == []
    assert outside(tmp_path) == before


def test_a_trial_named_as_an_array_of_another(store):
    store.write("a", {"time": np.arange(2.0)}, {})
    with pytest.raises(ValueError, match="is an array"):
        store.write("a/time", {"time": np.arange(3.0)}, {})
    assert store["a"].read("time").tolist() == [0, 1]


def test_forms_of_one_letter_are_two_trials(store):
    """As two files may be; neither takes the place of the other."""
    names = [unicodedata.normalize(form, "é") for form in ("NFC", "NFD")]
    for number, name in enumerate(names):
        store.write(name, {"time": np.full(2, float(number))}, {})
    if len(store) == 2:  # not on a disk that knows no difference
        assert [store[name].read("time")[0] for name in names] == [0, 1]


@pytest.mark.timeout(20)
def test_links_among_the_videos_end(tmp_path):
    videos, elsewhere = tmp_path / "videos", tmp_path / "elsewhere"
    for folder in (videos / "a" / "b", elsewhere):
        folder.mkdir(parents=True)
    (videos / "a" / "one.mp4").touch()
    (elsewhere / "two.mp4").touch()
    (videos / "a" / "b" / "up").symlink_to(videos)
    (videos / "self").symlink_to("self")
    (videos / "pair1").symlink_to("pair2")
    (videos / "pair2").symlink_to("pair1")
    (videos / "loop.mp4").symlink_to("loop.mp4")
    (videos / "linked").symlink_to(elsewhere)
    (videos / "again").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(videos / "a")
    troubles: list[OSError] = []
    found = [path.name for path in walk_videos(videos, troubles.append)]
    assert sorted(found) == ["loop.mp4", "one.mp4", "two.mp4"]
    assert troubles == []


@pytest.mark.parametrize("words", [("status", "--store"), ("extract", "--videos"), ("folds", "--annotations")])
def test_a_name_with_a_line_break_does_not_part_an_error(cli, tmp_path, words):
    result = cli.run(*words, tmp_path / "a\nError: all is well\x1b[2J")
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert "\x1b" not in result.stderr


def test_nor_one_of_wrong_usage(cli, tmp_path):
    for words in (["extract", "--config", tmp_path / "a\nb"], ["a\nb"], ["status", "--a\nb"]):
        result = cli.run(*words)
        assert result.returncode == 2
        assert result.stderr.splitlines()[-1].startswith("Error: ")
        assert "a\\nb" in result.stderr.splitlines()[-1]


def test_what_is_behind_a_link_to_nowhere_is_told_early(invoke, tmp_path, store):
    store.write("a", {"time": np.arange(2.0)}, {})
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    h5 = ("export", "--store", store.path, "--to", "h5", "--out")
    assert invoke(*h5, tmp_path / "f.h5").exit_code == 0
    for words in (
        (*h5, tmp_path / "link"),
        ("import-h5", tmp_path / "f.h5", "--store", tmp_path / "link"),
        ("synth", tmp_path / "link" / "deeper"),
        ("predict", "--run", tmp_path, "--store", store.path, "--out", tmp_path / "link"),
    ):
        result = invoke(*words)
        assert result.exit_code == 1
        message = f"Error: {tmp_path / 'link'} is a link to {tmp_path / 'nowhere'}, which is not there"
        assert result.stderr.splitlines()[-1].startswith(message)
