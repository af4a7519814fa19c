"""The text stream: words of a file on the frames of real clips, whose file it was, and what comes of other files."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from avfuse.features_store.records.verify import verify
from avfuse.features_store.store import FeatureStore
from avfuse.pipeline.extraction import audio, visual
from avfuse.pipeline.words.transcript import Word, write_transcript

CLIPS = ("derived/aoc_vfr_dropped.mp4", "real/grid_bbaf2n.mpg")
# Overlapping, without length, between two frames, before the first frame, after the last one; two sentences.
WORDS = (
    *(Word("Bin", 0.0, 0.2), Word("blue", 0.2, 0.5), Word("at.", 0.45, 0.46), Word("F", 0.5, 0.5)),
    *(Word("two", 0.9, 1.5), Word("overlaps,", 1.2, 1.9), Word("now", 1.95, 1.951), Word("late", 100.0, 101.0)),
)
SEGMENTS = (WORDS[:3], WORDS[3:])


@pytest.fixture
def given(media, tmp_path):
    """Real clips, one of them VFR, with a file of words each."""
    videos, words = tmp_path / "videos", tmp_path / "words"
    videos.mkdir()
    for clip in CLIPS:
        shutil.copy(media / clip, videos)
        write_transcript(words / f"{Path(clip).stem}.csv", WORDS)
    return videos, words


@pytest.fixture
def extract(avfuse, given, tmp_path):
    videos, words = given

    def run(*more, features="fake_words", code=0, folder=words):
        common = ("--videos", videos, "--store", tmp_path / "s.zarr", "--features", features, "--device", "cpu")
        result = avfuse("extract", *common, *(("--words", folder) if folder else ()), "--json", *more)
        assert result.exit_code == code, result.output
        return result

    return run


def rows_by_hand(time_s):
    """What `fake_words` is at each moment, and whether a word is spoken."""
    rows, valid = np.zeros((len(time_s), 4), np.float32), np.zeros(len(time_s), bool)
    for row, now_s in enumerate(time_s):
        for word in WORDS:
            segment = next(part for part in SEGMENTS if word in part)
            next_frame = time_s[time_s > word.start_s][:1]
            at_once = word.start_s == word.end_s and now_s in next_frame
            if word.start_s < now_s <= word.end_s or at_once:
                place = segment.index(word)
                rows[row] = len(word.text), sum(map(ord, word.text)), place, len(segment)
                valid[row] = True
                break
    return rows, valid


def test_words_lie_where_they_are_spoken(extract, tmp_path):
    result = extract(features="fake_words,mfcc")
    store = FeatureStore(tmp_path / "s.zarr")
    assert len(store.trials()) == len(CLIPS)
    for trial in store.values():
        rows, valid = rows_by_hand(trial.time_s)
        assert valid.any()
        assert not valid.all()
        np.testing.assert_array_equal(trial.valid("fake_words"), valid)
        np.testing.assert_array_equal(trial["fake_words"][:], rows)
        entry = trial.entries["fake_words"]
        assert entry["made_from"] == "words"
        assert len(entry["words"]) == 64
        assert "words" not in trial.entries["mfcc"]
    assert list(verify(store)) == []
    warnings = [receipt["warnings"] for receipt in json.loads(result.stdout)["extracted"]]
    assert all("1 word after the last frame" in " ".join(each) for each in warnings)


def test_words_are_added_without_decoding(extract, tmp_path, monkeypatch):
    extract(features="mfcc")
    before = {name: dict(trial.checksums) for name, trial in FeatureStore(tmp_path / "s.zarr").items()}

    def refuse(*_, **__):
        raise AssertionError("a video was decoded")

    monkeypatch.setattr(visual, "FrameReader", refuse)
    monkeypatch.setattr(audio, "AudioReader", refuse)
    extract()
    for name, trial in FeatureStore(tmp_path / "s.zarr").items():
        assert before[name].items() <= dict(trial.checksums).items()
        np.testing.assert_array_equal(trial["fake_words"][:], rows_by_hand(trial.time_s)[0])


def test_other_words_are_another_feature(extract, given, tmp_path):
    extract(features="fake_words,mfcc")
    store = FeatureStore(tmp_path / "s.zarr")
    kept = {name: trial.checksums["mfcc"] for name, trial in store.items()}
    assert "0 to do, 2 done before" in extract().stderr.replace("0 videos", "0")
    path = given[1] / "grid_bbaf2n.csv"
    write_transcript(path, WORDS[:2])
    refused = extract(code=1).stderr
    assert "fake_words for 1 done trial" in refused
    assert "words: " in refused
    assert "in the store" in refused
    assert json.loads(extract("--replace").stdout)["extracted"][0]["trial"] == "grid_bbaf2n"
    store = FeatureStore(tmp_path / "s.zarr")
    assert store["grid_bbaf2n"].valid("fake_words").sum() == 12
    assert {name: trial.checksums["mfcc"] for name, trial in store.items()} == kept
    path.unlink()
    assert "None now" in extract(code=1).stderr


def test_a_trial_without_words_has_none_until_they_come(extract, given, tmp_path):
    path = given[1] / "grid_bbaf2n.csv"
    path.rename(tmp_path / "later.csv")
    result = extract()
    assert "note: no words for 1 of 2 trials: grid_bbaf2n" in result.stderr
    assert "there is no file of words: fake_words: zero rows, all invalid" in result.stderr
    trial = FeatureStore(tmp_path / "s.zarr")["grid_bbaf2n"]
    assert not trial.valid("fake_words").any()
    assert not np.any(trial["fake_words"][:])
    assert trial.entries["fake_words"]["words"] is None
    assert "0 videos to do, 2 done before" in extract().stderr
    (tmp_path / "later.csv").rename(path)
    assert "1 video to do, 1 done before" in extract().stderr
    assert FeatureStore(tmp_path / "s.zarr")["grid_bbaf2n"].valid("fake_words").sum() > 20
    path.write_text("word,start_s,end_s\n")
    assert "no words in its file" in extract("--replace").stderr


def test_a_file_that_cannot_be_read_fails_its_video(extract, given, tmp_path):
    (given[1] / "grid_bbaf2n.csv").write_text("word,start_s,end_s\nbin,0,nan\n")
    failed = json.loads(extract(code=3).stdout)["failed"]
    assert [(each["trial"], each["stage"]) for each in failed] == [("grid_bbaf2n", "words")]
    assert "grid_bbaf2n.csv:2: 'nan' is not a time in s" in failed[0]["reason"]
    assert FeatureStore(tmp_path / "s.zarr").trials() == ["aoc_vfr_dropped"]


def test_words_of_other_videos_or_none_at_all_are_refused(extract, tmp_path):
    assert "fake_words needs --words DIR" in extract(code=2, folder=None).stderr
    other = tmp_path / "other"
    write_transcript(other / "clip9.csv", WORDS)
    assert "words for 0 of 2 trials" in extract(code=1, folder=other).stderr
    assert "nowhere is not a folder" in extract(code=1, folder=tmp_path / "nowhere").stderr
    assert not (tmp_path / "s.zarr").exists()


def test_both_sides_of_a_video_have_its_words_or_their_own(avfuse, given, tmp_path):
    videos, words = given
    write_transcript(words / "grid_bbaf2n_left.csv", WORDS[:1])
    labels = tmp_path / "labels" / "VA_Estimation_Challenge" / "Train_Set"
    labels.mkdir(parents=True)
    for side in ("left", "right"):
        (labels / f"grid_bbaf2n_{side}.txt").write_text("valence,arousal\n" + "0,0\n" * 80)
    made = ("--features", "fake_words", "--words", words, "--annotations", tmp_path / "labels")
    result = avfuse("extract", "--videos", videos, "--store", tmp_path / "s.zarr", *made)
    assert result.exit_code == 0, result.output
    store = FeatureStore(tmp_path / "s.zarr")
    left, right = store["grid_bbaf2n_left"], store["grid_bbaf2n_right"]
    assert left.valid("fake_words").sum() == 5
    rows, valid = rows_by_hand(right.time_s[:75])
    np.testing.assert_array_equal(right["fake_words"][:75], rows)
    np.testing.assert_array_equal(right.valid("fake_words"), [*valid, *[False] * 5])  # rows past the video


OWN = """
import numpy as np
KIND, REVISION, LICENCE, NEEDS = "words", 1, "MIT", ()
class Lengths:
    dim = 1
    def rows(self, words):
        return np.array([[len(word)] for word in words], np.float32)[: {kept}]
def load(weights, device, precision, options):
    return Lengths()
"""


def test_an_encoder_of_ones_own_reads_words(extract, tmp_path):
    file = tmp_path / "lengths.py"
    file.write_text(OWN.format(kept=None))
    extract("--encoder", f"lengths={file}", features="fake_words,lengths")
    for trial in FeatureStore(tmp_path / "s.zarr").values():
        np.testing.assert_array_equal(np.asarray(trial["lengths"])[:, 0], np.asarray(trial["fake_words"])[:, 0])
        np.testing.assert_array_equal(trial.valid("lengths"), trial.valid("fake_words"))
    file.write_text(OWN.format(kept=1))
    failed = json.loads(extract("--encoder", f"lengths={file}", "--replace", features="lengths", code=3).stdout)
    assert all("encoder lengths: gave float32 [1, 1] where" in each["reason"] for each in failed["failed"])


@pytest.mark.slow
def test_everybody_in_a_video_has_its_words(extract, given, media, tmp_path):
    for clip in CLIPS:
        (given[0] / Path(clip).name).unlink()
    shutil.copy(media / "derived/obama_speech_vp9_opus.webm", given[0])
    write_transcript(given[1] / "obama_speech_vp9_opus.csv", WORDS)
    extract("--face", "all", features="fake_face,fake_words")
    store = FeatureStore(tmp_path / "s.zarr")
    faces = store.trials()
    assert len(faces) > 1
    for name in faces:
        np.testing.assert_array_equal(store[name].valid("fake_words"), rows_by_hand(store[name].time_s)[1])
    write_transcript(given[1] / "obama_speech_vp9_opus.csv", WORDS[:2])
    assert "fake_words for 1 done trial" in extract("--face", "all", features="fake_words", code=1).stderr
    extract("--face", "all", "--replace", features="fake_words")
    store = FeatureStore(tmp_path / "s.zarr")
    assert {int(store[name].valid("fake_words").sum()) for name in faces} == {6}
    assert list(verify(store)) == []


def test_no_word_is_spoken_after_the_sound(avfuse, make_clip, tmp_path):
    """Of a word that a recogniser let go on, what lies beyond the sound's second is nobody's."""
    pixels, samples = np.zeros((50, 64, 64, 3), np.uint8), np.zeros(44_100, np.float32)
    videos = tmp_path / "videos"
    videos.mkdir()
    shutil.move(make_clip("clip.mp4", pixels, samples=samples), videos)
    write_transcript(tmp_path / "words" / "clip.csv", [Word("on", 0.5, 1.9), Word("late", 1.5, 1.6)])
    common = ("--videos", videos, "--store", tmp_path / "s.zarr", "--words", tmp_path / "words")
    result = avfuse("extract", *common, "--features", "fake_words", "--device", "cpu", "--json")
    assert result.exit_code == 0, result.output
    trial = FeatureStore(tmp_path / "s.zarr")["clip"]
    spoken_s = trial.time_s[trial.valid("fake_words")]
    assert spoken_s[0] == pytest.approx(0.52)
    assert 0.9 <= spoken_s[-1] <= 1.1  # sound is coded in frames of some length
    assert "1 word after" in json.dumps(json.loads(result.stdout)["extracted"][0]["warnings"])
