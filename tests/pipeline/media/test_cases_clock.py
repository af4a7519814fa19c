"""Recordings whose clocks are not what they seem: each was a fault once. Read as `extract` reads them."""

import json
from pathlib import Path

import numpy as np
import pytest

from avfuse.pipeline.audio.logmel import patch_valid
from avfuse.pipeline.media.joins import find_parts
from avfuse.pipeline.media.probe import probe
from avfuse.pipeline.media.readers import AudioReader, FrameReader

FOLDER = Path(__file__).parent / "cases" / "clock"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())


def click_times_s(samples: np.ndarray) -> np.ndarray:
    """Centres of what is half as loud as the loudest, s."""
    loud = np.convolve(np.abs(samples), np.ones(80) / 80, "same")
    at = np.flatnonzero(loud > loud.max() / 2)
    return np.array([each.mean() / 16_000 for each in np.split(at, np.flatnonzero(np.diff(at) > 800) + 1)])


SLOW = ("avi_mp3_wrong_rate.avi", "chrome52_audio16s.webm", "pts_one_3s_ahead.mkv", "ts0_late_audio.ts")


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=pytest.mark.slow if each in SLOW else ()) for each in EXPECTED]
)
def test_clicks_meet_flashes_whatever_the_stamps_say(name, decode):
    right = EXPECTED[name]
    clip = decode(FOLDER / name)
    assert len(clip.time_s) == right["rows"]
    assert (np.diff(clip.time_s) > 0).all()
    if right["flashes"]:
        clicks_s = click_times_s(clip.samples)
        flash_s = clip.time_s[right["flashes"]]
        apart_s = np.abs(clicks_s[:, None] - flash_s).min(axis=0)
        assert apart_s.max() * 1000 <= right["click_ms"]
    assert patch_valid(clip.time_s, "start", clip.spans).sum() >= right.get("valid_min", 0)
    keep = ~np.isin(np.arange(right["rows"]), right.get("but", []))
    if "time0" in right:
        steps_s = right["time0"] + right["step"] * np.arange(right["rows"])
        np.testing.assert_allclose(clip.time_s[keep], steps_s[keep], atol=0.0015)


def test_of_two_frames_at_one_time_one_moves(decode):
    time_s = decode(FOLDER / "two_same_times_25.mp4").time_s
    given_s = (np.arange(200) - (np.arange(200) >= 50) - (np.arange(200) >= 100)) / 25
    np.testing.assert_allclose(np.delete(time_s, [50, 100]), np.delete(given_s, [50, 100]), atol=1e-9)


def test_impossible_times_are_a_warning():
    with AudioReader(probe(FOLDER / "avi_mp3_wrong_rate.avi")) as audio:
        list(audio)
    assert any("of sound: its samples were counted" in warning for warning in audio.ending.warnings)


def test_a_join_is_a_warning():
    info = probe(FOLDER / "joined4.ts")
    with FrameReader(info, pixels=False) as frames:
        list(frames)
    assert frames.ending.warnings == ("4 recordings joined in one file: times repaired, they go on",)
    offsets_s = [part.offset_s for part in info.video_parts]
    assert offsets_s == [part.offset_s for part in info.audio_parts]
    np.testing.assert_allclose(offsets_s, np.arange(4) * 2.030067, atol=1e-6)


def packets(begins_s, length_s=2.0, sound_s=1.9):
    """Packets of two streams, interleaved, of recordings whose clocks begin at `begins_s`."""
    for begin_s in begins_s:
        both = [(0, at, at, 0.04) for at in begin_s + np.arange(0, length_s, 0.04)]
        both += [(1, at, at, 0.02) for at in begin_s + np.arange(0, sound_s, 0.02)]
        yield from sorted(both, key=lambda packet: packet[1])


@pytest.mark.parametrize("length_s", [1.0, 2.0])
def test_both_streams_of_a_part_move_by_one_amount(length_s):
    picture, sound = find_parts(packets([5.0, 0.0, 0.0], length_s, length_s - 0.1), (0, 1))
    assert [part.offset_s for part in picture] == pytest.approx([0.0, 5.0 + length_s, 5.0 + 2 * length_s])
    assert [part.offset_s for part in sound] == [part.offset_s for part in picture]


@pytest.mark.parametrize("ahead_s", [-3.0, 0.7, 3.0, 1e5])
def test_one_packet_out_of_line_is_not_a_join(ahead_s):
    given = list(packets([5.0], 4.0, 4.0))
    for row in (60, 90, 91, 200):
        stream, pts_s, dts_s, length_s = given[row]
        given[row] = (stream, pts_s + ahead_s, dts_s + ahead_s, length_s)
    assert [len(parts) for parts in find_parts(given, (0, 1))] == [1, 1]


def test_a_pause_is_not_a_join():
    assert [len(parts) for parts in find_parts(packets([0.0, 60.0, 600.0]), (0, 1))] == [1, 1]
