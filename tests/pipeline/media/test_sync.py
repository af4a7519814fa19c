"""Picture and sound of every row belong together: flashes and clicks of one moment meet in one row."""

import subprocess
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from avfuse.features_store.schema import AudioAlign
from avfuse.pipeline.audio.logmel import patches
from avfuse.pipeline.audio.states import StateGrid, state_rows
from avfuse.pipeline.extraction.row_buffer import RowBuffer
from avfuse.pipeline.media.probe import probe
from avfuse.pipeline.media.readers import AudioReader, FrameReader

H264_AAC = "-c:v libx264 -preset ultrafast -c:a aac"
B_FRAMES = "-c:v libx264 -preset veryfast -bf 3 -c:a aac"
SHIFT_S: dict[AudioAlign, float] = {"start": 0.0, "center": -0.48, "end": -0.96}
GRID_S = 0.005
LOCATING_S = 0.0015


def click_places(logmel: np.ndarray, threshold: float = 5.0) -> np.ndarray:
    """Where in each patch [N, 96, 64] the click is, s from its begin, by centre of mass; NaN near the ends."""
    loud = (np.exp(logmel.astype(np.float64)) - 0.01).sum(axis=2)
    peak = loud.argmax(axis=1)
    places = np.full(len(logmel), np.nan)
    for row in np.flatnonzero((loud.max(axis=1) > threshold) & (peak >= 4) & (peak < 92)):
        near = np.arange(peak[row] - 4, peak[row] + 5)
        places[row] = (loud[row, near] * near).sum() / loud[row, near].sum() * 0.01 + 0.0125
    return places


def all_patches(samples: np.ndarray, time_s: np.ndarray, align: AudioAlign) -> np.ndarray:
    return np.concatenate([np.asarray(batch) for batch in patches([samples], time_s, align, 64)])


def sync_errors(clip, align: AudioAlign) -> np.ndarray:
    """For every row that contains one click: where the click is, less where the flash of that click is, s."""
    logmel = all_patches(clip.samples, clip.time_s, align)
    clicks_s = clip.time_s[: len(logmel)] + SHIFT_S[align] + click_places(logmel)
    seen_s = clip.time_s[clip.flash_rows]
    errors = clicks_s[:, None] - seen_s
    nearest = np.abs(errors).argmin(axis=1)
    return errors[np.arange(len(errors)), nearest][~np.isnan(clicks_s)]


def check(clip, num_flashes: int, muxer_s: float) -> None:
    """Every patch with a click says the moment of the flash; and the click's row is the flash's row."""
    assert len(clip.flash_rows) == num_flashes
    for align in SHIFT_S:
        errors = sync_errors(clip, align)
        assert len(errors) > 25
        assert np.abs(errors).max() <= GRID_S + LOCATING_S + muxer_s, align
    logmel = all_patches(clip.samples, clip.time_s, "start")
    clicks_s = clip.time_s[: len(logmel)] + click_places(logmel)
    half_frame_s = np.median(np.diff(clip.time_s)) / 2
    for row in clip.flash_rows:
        moments = clicks_s[np.abs(clicks_s - clip.time_s[row]) < 0.1]
        first = np.abs(clip.time_s - np.median(moments)).argmin()
        assert abs(clip.time_s[first] - clip.time_s[row]) <= GRID_S + half_frame_s


# (name, encoders, settings of the clip, what the file itself is off: rounding to ms, an encoder delay)
CLIPS: dict[str, tuple[str, str, dict[str, Any], float]] = {
    "25": ("a.mp4", H264_AAC, {}, 0),
    "29.97": ("a.mp4", H264_AAC, {"rate": "30000/1001", "rows": (37, 90, 135), "rate_hz": 48_000}, 0),
    "b-frames, stereo": ("a.mp4", B_FRAMES, {"channels": 2}, 0),
    "audio late": ("a.mp4", H264_AAC, {"late_audio_s": 0.244}, 0),
    "video late": ("a.mp4", B_FRAMES, {"late_video_s": 0.852}, 0),
    "video late, mkv": (
        "a.mkv",
        "-c:v libx264 -preset ultrafast -c:a libvorbis",
        {"late_video_s": 0.852},
        0.001,
    ),
    "5.1": ("a.mkv", "-c:v libx264 -preset ultrafast -c:a ac3", {"channels": 6, "rate_hz": 48_000}, 0.001),
    "aac without priming": ("a.mkv", H264_AAC, {}, 0.001),
    "opus": ("a.webm", "-c:v libvpx -deadline realtime -c:a libopus", {"rate_hz": 48_000}, 0.0075),
    "mp3 in mp4": ("a.mp4", "-c:v libx264 -preset ultrafast -c:a libmp3lame", {"channels": 2}, 0),
    "mp3 in avi": ("a.avi", "-c:v mpeg4 -c:a libmp3lame", {}, 0.016),
    "pcm in avi": ("a.avi", "-c:v mpeg4 -c:a pcm_s16le", {"rate_hz": 24_000, "channels": 2}, 0),
    "pcm in mov": ("a.mov", "-c:v mjpeg -c:a pcm_s16le", {"rate_hz": 16_000}, 0),
    "aac 8 kHz": ("a.mp4", H264_AAC, {"rate_hz": 8_000}, 0),
    "mpeg": ("a.mpg", "-c:v mpeg2video -c:a mp2", {"channels": 2}, 0),
    "ts": ("a.ts", H264_AAC, {"rate_hz": 48_000}, 0),
    "vfr": (
        "a.mp4",
        f"-vf select=not(eq(mod(n\\,5)\\,3))*not(between(n\\,40\\,52)) -fps_mode vfr {H264_AAC}",
        {},
        0,
    ),
}


SLOW = (
    *("5.1", "aac 8 kHz", "aac without priming", "b-frames, stereo", "mp3 in avi", "mp3 in mp4", "mpeg"),
    *("pcm in avi", "pcm in mov", "video late, mkv"),
)


@pytest.mark.parametrize("case", [pytest.param(each, marks=pytest.mark.slow if each in SLOW else ()) for each in CLIPS])
def test_clicks_meet_flashes(case, synced, decode):
    name, options, settings, muxer_s = CLIPS[case]
    check(decode(synced(name, options, **settings)), 3, muxer_s)


def test_clicks_meet_flashes_after_an_edit_list(synced, decode, ffmpeg_run, tmp_path):
    source = synced("a.mp4", B_FRAMES)
    ffmpeg_run("-ss", "0.52", "-i", source, "-c", "copy", tmp_path / "cut.mp4")
    said = subprocess.run(
        ["ffmpeg", "-i", tmp_path / "cut.mp4", "-v", "trace", "-t", "0", "-f", "null", "-"],
        capture_output=True,
        check=True,
    )
    assert b"type:'elst'" in said.stderr
    check(decode(tmp_path / "cut.mp4"), 3, 0)


def naive_errors(path, decode) -> np.ndarray:
    """The usual script: `ffmpeg -i x.mp4 x.wav`, frames counted at r_frame_rate, an integer hop."""
    command = [
        "ffprobe",
        "-v",
        "error",
        "-select_streams",
        "v:0",
        "-show_entries",
        "stream=r_frame_rate",
        "-of",
        "csv=p=0",
    ]
    said = subprocess.run([*command, path], capture_output=True, text=True, check=True).stdout
    rate = float(Fraction(said.strip()))
    wav = ["ffmpeg", "-v", "error", "-i", path, "-ac", "1", "-ar", "16000", "-f", "f32le", "-"]
    samples = np.frombuffer(subprocess.run(wav, capture_output=True, check=True).stdout, np.float32)
    clip = decode(path)
    hop_s = round(100 / rate) / 100
    logmel = all_patches(samples, np.arange(len(clip.time_s)) * hop_s, "start")
    rows = np.arange(len(logmel))
    # A patch's place is taken for its frame's own time, as everyone does who pairs row i with frame i.
    clicks_s = clip.time_s[rows] + click_places(logmel)
    errors = clicks_s[:, None] - clip.time_s[clip.flash_rows]
    return np.nanmin(np.abs(errors), axis=0)


@pytest.mark.parametrize(
    ("case", "bites"),
    [
        ("25", False),
        ("29.97", True),
        pytest.param("audio late", True, marks=pytest.mark.slow),
        pytest.param("video late", True, marks=pytest.mark.slow),
        pytest.param("vfr", True, marks=pytest.mark.slow),
    ],
)
def test_these_tests_would_catch_a_naive_clock(case, bites, synced, decode):
    name, options, settings, _ = CLIPS[case]
    errors = naive_errors(synced(name, options, **settings), decode)
    assert (errors.max() > GRID_S + LOCATING_S) == bites


@pytest.fixture(
    scope="module", params=[0.2, pytest.param(1, marks=pytest.mark.slow)], ids=["twelve minutes", "an hour"]
)
def hours(request):
    return request.param


@pytest.fixture(scope="module")
def long_clip(hours, tmp_path_factory, ffmpeg_run, clicks):
    """9.99 frames/s (a third of 29.97) in 16 × 16 px, with a flash and a click every 67 frames."""
    folder = tmp_path_factory.mktemp("long")
    count, every, rate_hz = round(hours * 35_964), 67, 8_000
    moments_s = [Fraction(row * 1001, 10_000) for row in range(33, count, every)]
    samples = clicks(3600 * hours + 0.1, rate_hz, moments_s)
    mulaw = folder / "sound.s16"
    mulaw.write_bytes((samples * 32767).astype("<i2").tobytes())
    flash = f"drawbox=t=fill:c=white:enable=eq(mod(n\\,{every})\\,33)"
    picture = f"color=c=black:s=16x16:r=10000/1001,trim=end_frame={count},{flash}"
    sound = ["-f", "s16le", "-ar", rate_hz, "-ac", 1, "-i", mulaw]
    ffmpeg_run("-f", "lavfi", "-i", picture, *sound, "-c:v", "mpeg4", "-c:a", "pcm_mulaw", folder / "long.mov")
    mulaw.unlink()
    yield folder / "long.mov"
    (folder / "long.mov").unlink()


@pytest.fixture(scope="module")
def long_picture(long_clip):
    """Of every frame of the long clip: its time, s, and whether it is bright."""
    with FrameReader(probe(long_clip), batch_frames=1024) as frames:
        seen = [(batch.time_s, batch.pixels.mean(axis=(1, 2, 3)) > 128) for batch in frames]
    return [np.concatenate(each) for each in zip(*seen, strict=True)]


def test_hours_do_not_drift(hours, long_clip, long_picture):
    info, (time_s, bright) = probe(long_clip), long_picture
    assert len(time_s) == round(hours * 35_964)
    flash_s = time_s[bright]
    assert len(flash_s) == len(range(33, len(time_s), 67))
    wanted = np.flatnonzero((time_s < 60) | (time_s > time_s[-1] - 60))
    with AudioReader(info) as audio:
        logmel = np.concatenate([np.asarray(batch) for batch in patches(audio, time_s[wanted], "start", 256)])
    clicks_s = time_s[wanted][: len(logmel)] + click_places(logmel)
    rows = ~np.isnan(clicks_s)
    errors = np.abs(clicks_s[rows][:, None] - flash_s).min(axis=1)
    early = time_s[wanted][: len(logmel)][rows] < 60
    assert early.sum() > 50
    assert (~early).sum() > 50
    assert errors.max() <= GRID_S + LOCATING_S
    assert abs(errors[early].max() - errors[~early].max()) < 0.001
    # Rows of the naive clock (a hop of 10 patch frames of 10 ms) would be far away by then, after an hour seconds.
    assert time_s[-1] - (len(time_s) - 1) * 0.1 > 3.5 * hours


@pytest.mark.slow
def test_hours_of_states_do_not_drift(long_clip, long_picture, tmp_path):
    """Power of 25 ms every 20 ms, in windows with context: each click is in the state that is nearest to its flash."""
    info, (time_s, bright) = probe(long_clip), long_picture
    samples = RowBuffer(tmp_path / "samples", ())
    with AudioReader(info) as audio:
        for block in audio:
            samples.append(block)
        spans = audio.real_spans()
    grid = StateGrid(16_000, 20.0, 5.0, 0.02, 0.0125)

    def pieces():
        for window in grid.windows(len(samples)):
            parts = sliding_window_view(samples.read(window.start, window.stop), 400)[::320]
            power = np.square(parts).mean(axis=1)[:, None]
            yield grid.kept(window, power, len(samples))

    every_20_ms = np.arange(0, len(samples) / 16_000, 0.02)  # rows of which each is one state
    states = np.concatenate(list(state_rows(pieces(), *grid.of_rows(every_20_ms))))[:, 0]
    for flash_s in time_s[bright]:
        near = np.flatnonzero(np.abs(every_20_ms + 0.0125 - flash_s) < 1)
        loudest_s = every_20_ms[near[states[near].argmax()]] + 0.0125
        assert abs(loudest_s - flash_s) <= 0.0125 + LOCATING_S
    rows = np.concatenate(list(state_rows([states[:, None]], *grid.of_rows(time_s))))[:, 0]
    for row in map(int, np.flatnonzero(bright)):
        # The click's middle is the begin of its row: some of it is in the last state of the row before.
        assert rows[row - 5 : row + 6].argmax() in (4, 5)
    assert grid.valid(time_s, len(states), spans)[1:-1].all()
