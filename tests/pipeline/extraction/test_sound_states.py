"""Rows of an encoder's states, through the real decoder: each where the sound of its frame is, and flat in memory."""

import tracemalloc
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from avfuse.encoders.contract import EncoderFailed
from avfuse.encoders.engine import StateMaker, make_engine
from avfuse.encoders.loading import LoadedEncoder
from avfuse.encoders.table import TABLE, Feature
from avfuse.pipeline.config import ExtractConfig
from avfuse.pipeline.extraction import audio
from avfuse.pipeline.extraction.consumers import KeptSound, SoundTask, consume_states
from avfuse.pipeline.extraction.jobs import Job
from avfuse.pipeline.extraction.row_buffer import RowBuffer
from avfuse.pipeline.extraction.session import Networks, Session
from avfuse.pipeline.extraction.streams import Clock, Reading
from avfuse.pipeline.media.probe import probe

RATE_HZ = 16_000
FLAC = ("-c:a", "flac")


class Energy:
    """States are the power of 25 ms every 20 ms, and the number of windows in their batch."""

    dim, sample_rate, window_s, context_s, hop_s, first_s = 2, RATE_HZ, 20.0, 5.0, 0.02, 0.0125
    level = False

    def __init__(self, rate_hz=RATE_HZ, level=False):
        self.sample_rate, self.level = rate_hz, level
        self.windows = []

    def states(self, samples):
        self.windows.append(samples.shape)
        length, hop = self.sample_rate // 40, self.sample_rate // 50
        parts = np.lib.stride_tricks.sliding_window_view(samples, length, axis=1)[:, ::hop]
        power = np.square(parts, dtype=np.float64).mean(axis=2).astype(np.float32)
        return np.stack([power, np.full_like(power, samples.mean())], axis=2)


@pytest.fixture
def read_states(tmp_path, monkeypatch):
    """The rows and flags of encoders by name, at times, of a file's sound; what there was to say; all decodes."""

    def do(path, time_s, *, on_gpu=False, plain=(), **encoders: Any):
        for name in encoders:
            view: Any = "states"
            monkeypatch.setitem(TABLE, name, Feature(name, "audio", view, None, name, ()))
        opened: list[tuple[int, ...]] = []
        whole = audio.open_sound

        def counted(reading, *rate_hz):
            opened.append(rate_hz)
            return whole(reading, *rate_hz)

        monkeypatch.setattr(audio, "open_sound", counted)
        loaded = {name: LoadedEncoder(name, "audio", each) for name, each in encoders.items()}
        engine = make_engine({name: StateMaker(each) for name, each in loaded.items()}, torch.device("cpu"), 2)
        networks = Networks({}, engine, None, on_gpu, loaded)
        session = Session(ExtractConfig(features=("mfcc",)), {}, {}, 60.0, networks)
        scratch = tmp_path / f"scratch{len(list(tmp_path.iterdir()))}"
        scratch.mkdir()
        job = Job(path, path.name, "c", "largest", path.stat().st_size)
        clock = Clock(time_s, len(time_s), len(time_s))
        reading = Reading(probe(path), job, session, scratch, lambda *words: None, None, clock, "sound")
        try:
            sound = audio.read_sound(reading, (*encoders, *plain))
        finally:
            engine.close()
        monkeypatch.setattr(audio, "open_sound", whole)
        rows = {name: buffer.read(0, len(buffer)) for name, buffer in sound.buffers.items()}
        return rows, sound.valid, sound.said, opened

    return do


def independent_rows(power, time_s) -> np.ndarray:
    """Means of the states centred in each frame, by a loop; the nearest where there is none."""
    centres = 0.0125 + 0.02 * np.arange(len(power))
    ends = [*time_s[1:], 2 * time_s[-1] - time_s[-2]]
    rows = []
    for begin_s, end_s in zip(time_s, ends, strict=True):
        within = np.flatnonzero((centres >= begin_s - 1e-6) & (centres < end_s - 1e-6))
        if not len(within):
            within = np.abs(centres - (begin_s + end_s) / 2).round(9).argmin()
        rows.append(np.mean(power[within], dtype=np.float64))
    return np.array(rows)


def power_of(samples) -> np.ndarray:
    parts = np.lib.stride_tricks.sliding_window_view(samples, 400)[::320]
    return np.square(parts, dtype=np.float64).mean(axis=1)


CLIPS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "25": ("a.mp4", "-c:v libx264 -preset ultrafast -c:a aac", {}),
    "29.97": (
        "a.mp4",
        "-c:v libx264 -preset ultrafast -c:a aac",
        {"rate": "30000/1001", "rows": (37, 90, 135), "rate_hz": 48_000},
    ),
    "60": ("a.mp4", "-c:v libx264 -preset ultrafast -c:a aac", {"rate": "60", "rows": (66, 180, 301)}),
    "audio late": ("a.mp4", "-c:v libx264 -preset ultrafast -c:a aac", {"late_audio_s": 0.244}),
    "video late": ("a.mp4", "-c:v libx264 -preset veryfast -bf 3 -c:a aac", {"late_video_s": 0.852}),
    "vfr": (
        "a.mp4",
        "-vf select=not(eq(mod(n\\,5)\\,3))*not(between(n\\,40\\,52)) -fps_mode vfr "
        "-c:v libx264 -preset ultrafast -c:a aac",
        {},
    ),
}


@pytest.mark.parametrize(
    "case", [pytest.param(each, marks=() if each in ("audio late", "vfr") else pytest.mark.slow) for each in CLIPS]
)
def test_clicks_are_in_the_rows_of_their_flashes(case, synced, decode, read_states):
    """A row is the sound of its own frame: the loudest one is that of the flash, or shares its click with the next."""
    name, options, settings = CLIPS[case]
    path = synced(name, options, **settings)
    clip = decode(path)
    rows, valid, said, opened = read_states(path, clip.time_s, plain=("mfcc",), energy=Energy())
    made = rows["energy"][:, 0]
    np.testing.assert_allclose(made, independent_rows(power_of(clip.samples), clip.time_s)[: len(made)], rtol=1e-5)
    assert len(opened) == 1  # one decode for both
    steps = np.diff(clip.time_s, append=clip.time_s[-1] + 0.04)
    for row in clip.flash_rows:
        # The click is centred on the frame's time; its states are centred up to 12.5 ms from it, and a hop apart.
        near = np.abs(clip.time_s[: len(made)] - clip.time_s[row]) < 0.3
        loudest = np.flatnonzero(near)[made[near].argmax()]
        off_s = min(
            abs(clip.time_s[loudest] - clip.time_s[row]), abs(clip.time_s[loudest] + steps[loudest] - clip.time_s[row])
        )
        assert off_s <= 0.0125 + 0.01, (row, loudest)
    real = [
        any(a <= max(t - 0.013, 0) and t + s + 0.013 <= b for a, b in clip.spans)
        for t, s in zip(clip.time_s, steps, strict=True)
    ]
    assert valid["energy"][np.flatnonzero(real)].all()
    assert not valid["energy"][clip.time_s + steps < clip.spans[0][0]].any()
    assert not said or "moved" in said[0]


def test_two_minutes_in_windows_are_the_whole_sound(make_clip, flashes, read_states, decode):
    """Batches are of windows of one length, and neither they nor the windows' places show in a row."""
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, RATE_HZ * 125)
    path = make_clip("a.mkv", flashes(250, [3], (16, 16)), rate="2", samples=samples, rate_hz=RATE_HZ, options=FLAC)
    clip = decode(path)
    encoder, other = Energy(), Energy()
    rows, valid, _, _ = read_states(path, clip.time_s, energy=encoder)
    expected = independent_rows(power_of(clip.samples), clip.time_s)
    np.testing.assert_allclose(rows["energy"][:, 0], expected, rtol=1e-5)
    assert valid["energy"].all()
    assert sorted(encoder.windows) == [(1, 25 * RATE_HZ), *[(1, 30 * RATE_HZ)] * 5]
    batched, _, _, _ = read_states(path, clip.time_s, on_gpu=True, energy=other)
    np.testing.assert_array_equal(batched["energy"][:, 0], rows["energy"][:, 0])
    assert sorted(other.windows) == [(1, 25 * RATE_HZ), (1, 30 * RATE_HZ), (4, 30 * RATE_HZ)]


def test_windows_that_no_row_needs_are_not_computed(make_clip, flashes, read_states):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, RATE_HZ * 70)
    path = make_clip("a.mkv", flashes(140, [3], (16, 16)), rate="2", samples=samples, rate_hz=RATE_HZ, options=FLAC)
    encoder = Energy()
    rows, valid, _, _ = read_states(path, np.arange(40) / 2, energy=encoder)
    assert encoder.windows == [(1, 30 * RATE_HZ)]
    assert len(rows["energy"]) == 40
    assert valid["energy"].all()


def test_another_rate_is_decoded_once_for_all_that_want_it(make_clip, flashes, clicks, read_states):
    samples = clicks(6.0, 48_000, [1.2, 3.0])
    path = make_clip("a.mkv", flashes(150, [30, 75], (16, 16)), samples=samples, rate_hz=48_000, options=FLAC)
    time_s = np.arange(150) / 25
    encoders = {"high": Energy(48_000), "too": Energy(48_000), "low": Energy()}
    rows, valid, _, opened = read_states(path, time_s, **encoders)
    assert opened == [(), (48_000,)]
    assert encoders["high"].windows == [(1, 6 * 48_000)]
    np.testing.assert_array_equal(rows["high"], rows["too"])
    np.testing.assert_allclose(rows["high"][:, 0], rows["low"][:, 0], atol=1e-3)  # less above 8 kHz
    assert set(np.argsort(rows["high"][:, 0])[-4:]) <= {29, 30, 31, 74, 75, 76}
    assert valid["high"].all()


def test_sound_is_levelled_over_the_whole_file(make_clip, flashes, read_states, decode):
    """Loud in its first half: the level is that of the file, not of a window."""
    samples = np.random.default_rng(0).normal(0.05, 0.02, RATE_HZ * 64)
    samples[: RATE_HZ * 32] *= 4
    path = make_clip("a.mkv", flashes(128, [3], (16, 16)), rate="2", samples=samples, rate_hz=RATE_HZ, options=FLAC)
    clip = decode(path)
    rows, _, said, _ = read_states(path, clip.time_s, energy=Energy(level=True))
    whole = (clip.samples - clip.samples.mean()) / np.sqrt(clip.samples.var() + 1e-7)
    np.testing.assert_allclose(rows["energy"][:, 0], independent_rows(power_of(whole), clip.time_s), rtol=1e-4)
    assert said == ()


def test_digital_silence_is_said_and_has_rows(make_clip, flashes, read_states):
    path = make_clip("a.mkv", flashes(50, [3], (16, 16)), samples=np.zeros(RATE_HZ * 2), rate_hz=RATE_HZ, options=FLAC)
    rows, valid, said, _ = read_states(path, np.arange(50) / 25, energy=Energy(level=True))
    assert np.isfinite(rows["energy"]).all()
    assert valid["energy"].all()
    assert "digital silence" in said[0]
    assert read_states(path, np.arange(50) / 25, energy=Energy())[2] == ()


def test_sound_shorter_than_a_state_has_no_row(make_clip, flashes, read_states):
    path = make_clip("a.mkv", flashes(50, [3], (16, 16)), samples=np.full(300, 0.3), rate_hz=RATE_HZ, options=FLAC)
    rows, valid, said, _ = read_states(path, np.arange(50) / 25, energy=Energy())
    assert rows["energy"].shape == (0, 2)
    assert not valid["energy"].any()
    assert "no row has sound" in said[-1]


def test_after_the_sound_ends_rows_are_the_last_one_and_invalid(make_clip, flashes, read_states):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, RATE_HZ)
    path = make_clip("a.mkv", flashes(50, [3], (16, 16)), samples=samples, rate_hz=RATE_HZ, options=FLAC)
    rows, valid, _, _ = read_states(path, np.arange(50) / 25, energy=Energy())
    assert len(rows["energy"]) == 25
    assert valid["energy"][:25].all()
    assert not valid["energy"][25:].any()


def test_an_encoder_that_gives_too_little_is_named(make_clip, flashes, read_states):
    class Short(Energy):
        def states(self, samples):
            return super().states(samples)[:, :900]

    samples = np.random.default_rng(0).uniform(-0.5, 0.5, RATE_HZ * 40)
    path = make_clip("a.mkv", flashes(80, [3], (16, 16)), rate="2", samples=samples, rate_hz=RATE_HZ, options=FLAC)
    with pytest.raises(EncoderFailed, match="encoder energy: gave 900 states for 30 s of sound"):
        read_states(path, np.arange(80) / 2, energy=Short())


def test_memory_is_that_of_windows_whatever_the_length(tmp_path):
    """An hour takes no more than two minutes: samples wait on disk, and states become rows as they come."""
    peaks = []
    for minutes in (2, 60):
        encoder = LoadedEncoder("energy", "audio", Energy())
        engine = make_engine({"energy": StateMaker(encoder)}, torch.device("cpu"), 1)
        session = Session(
            ExtractConfig(("mfcc",)), {}, {}, 60.0, Networks({}, engine, None, False, {"energy": encoder})
        )
        samples = RowBuffer(tmp_path / f"{minutes}.samples", ())
        for _ in range(6 * minutes):
            samples.append(np.ones(10 * RATE_HZ, np.float32))
        sound = KeptSound(RATE_HZ, samples, partial(list, [(0.0, 60.0 * minutes)]))
        time_s = np.arange(60 * minutes, dtype=np.float64)
        buffer = RowBuffer(tmp_path / f"{minutes}.rows", (2,))
        seen: list[int] = []
        tracemalloc.start()
        consumed = consume_states(
            SoundTask("energy", time_s, buffer, session, {RATE_HZ: sound}.__getitem__, seen.append)
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        engine.close()
        assert len(buffer) == 60 * minutes
        assert consumed.valid.all()
    assert peaks[1] <= peaks[0] + 6e6  # how many of a few windows wait is by chance; an hour of samples is 230 MB


def test_a_gap_in_the_sound_is_invalid_and_moves_nothing(make_clip, flashes, ffmpeg_run, read_states, decode, tmp_path):
    """Packets of a second are lost: rows there are invalid, what follows stays, and the level is that of the rest."""
    samples = np.random.default_rng(0).normal(0.1, 0.2, 6 * RATE_HZ)
    options = ("-c:v", "mpeg4", "-c:a", "aac")
    clip = make_clip("a.mkv", flashes(150, [3], (16, 16)), samples=samples, rate_hz=RATE_HZ, options=options)
    lossy = ["-bsf:a", "noise=drop=gt(pts\\,2000)*lt(pts\\,3000)", "-c", "copy"]
    ffmpeg_run("-i", clip, *lossy, tmp_path / "gap.mkv")
    whole, gap = decode(clip), decode(tmp_path / "gap.mkv")
    assert len(gap.spans) == 2
    rows, valid, said, _ = read_states(tmp_path / "gap.mkv", gap.time_s, energy=Energy(), level=Energy(level=True))
    made = rows["energy"][:, 0]
    np.testing.assert_allclose(made, independent_rows(power_of(gap.samples), gap.time_s)[: len(made)], rtol=1e-5)
    expected = independent_rows(power_of(whole.samples), gap.time_s)
    begin_s, end_s = gap.spans[0][1], gap.spans[1][0]
    after = (gap.time_s > end_s + 0.1) & (gap.time_s < 5.8)
    np.testing.assert_allclose(made[after], expected[after], rtol=0.05)
    within = (gap.time_s + 0.04 > begin_s + 0.013) & (gap.time_s < end_s - 0.013)
    assert not valid["energy"][within].any()
    assert valid["energy"][(gap.time_s > 0.05) & (gap.time_s + 0.053 < begin_s)].all()
    assert valid["energy"][after].all()
    assert any("moved" in each for each in said)
    real = np.concatenate([gap.samples[round(start * RATE_HZ) : round(stop * RATE_HZ)] for start, stop in gap.spans])
    even = (gap.samples - real.mean(dtype=np.float64)) / np.sqrt(real.var(dtype=np.float64) + 1e-7)
    np.testing.assert_allclose(
        rows["level"][:, 0], independent_rows(power_of(even), gap.time_s)[: len(made)], rtol=1e-4
    )
