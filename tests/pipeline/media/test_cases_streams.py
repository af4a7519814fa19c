"""Files of the field that were read wrongly once: which tracks, which way up, how many channels, where it ends.

`cases/streams`: generated pictures and sound (white frames and 5 ms bursts of 2 kHz at one moment), and the face of
scikit-image's astronaut (NASA, public domain).
"""

from pathlib import Path

import numpy as np
import pytest

from avfuse.pipeline.faces.mtcnn import FaceDetector
from avfuse.pipeline.faces.search import FaceSearch
from avfuse.pipeline.faces.shots import with_cuts
from avfuse.pipeline.faces.tracking import Followers
from avfuse.pipeline.media.probe import probe
from avfuse.pipeline.media.readers import AudioReader, FrameReader

CASES = Path(__file__).parent / "cases" / "streams"


def decoded(name):
    """The file's info, mean level and time of each frame, its samples, and how both ended."""
    info = probe(CASES / name)
    with FrameReader(info) as frames:
        batches = list(frames)
    levels = np.concatenate([batch.pixels.mean(axis=(1, 2, 3)) for batch in batches])
    with AudioReader(info) as audio:
        samples = np.concatenate(list(audio))
    return info, levels, np.concatenate([batch.time_s for batch in batches]), samples, frames.ending, audio.ending


def click_s(samples, near_s):
    """The loudest moment within half a second, and how much louder it is than what is about it."""
    first = max(0, round((near_s - 0.4) * 16_000))
    part = np.abs(samples[first : first + 12_800])
    return (first + int(part.argmax())) / 16_000, float(part.max() / max(1e-9, np.median(part) + 1e-4))


@pytest.mark.parametrize(
    ("name", "rows", "flashes", "within_s", "picture", "sound"),
    [
        ("ten_channels.mov", 40, [10, 25], 0.015, "v:0", "a:0"),
        ("commentary_first.mkv", 150, [30, 75, 110], 0.075, "v:0", "a:1"),
        ("still_track_first.mkv", 150, [30, 75, 110], 0.02, "v:1", "a:0"),
        ("first_sound_undecodable.mkv", 150, [30, 75, 110], 0.075, "v:0", "a:1"),
        ("mid_gop.ts", 60, [10, 30, 54], 0.065, "v:0", "a:0"),
        ("screen_still_at_end.avi", 100, [30, 75], 0.02, "v:0", "a:0"),
    ],
)
def test_flashes_and_clicks_of_the_right_tracks(name, rows, flashes, within_s, picture, sound):
    info, levels, time_s, samples, ending, _ = decoded(name)
    assert (info.video_name, info.audio_name) == (picture, sound)
    assert len(levels) == rows
    assert set(flashes) <= set(np.flatnonzero(levels > 180).tolist())
    for flash in flashes:
        at_s, louder = click_s(samples, time_s[flash])
        assert abs(at_s - time_s[flash]) < within_s
        assert louder > 5
    assert not ending.truncated


def test_ten_channels_are_their_mean():
    """The bursts are in one channel of the ten; by position it would be an effects channel, or dropped."""
    info, _, _, samples, _, ending = decoded("ten_channels.mov")
    assert info.audio_channels == 10
    assert np.abs(samples).max() > 0.05
    assert ending.warnings == ()


@pytest.fixture(scope="module")
def boxes():
    """The followed face's box in each frame of a case, NaN without one; its landmarks; the warnings."""
    detector = FaceDetector("cpu")

    def find(name):
        info = probe(CASES / name)
        search = FaceSearch(detector, Followers("largest", (info.width_px, info.height_px)), 30)
        rows = []
        with FrameReader(info) as reader:
            for batch, cuts in with_cuts(reader):
                for faces, (chosen,) in search(batch, cuts):
                    nothing = np.full(14, np.nan)
                    seen = chosen is not None
                    rows.append(np.r_[faces.boxes[chosen], faces.landmarks[chosen].ravel()] if seen else nothing)
        found = np.array(rows)
        return found[:, :4], found[:, 4:].reshape(-1, 5, 2), reader.ending.warnings

    return find


def test_orientation_that_only_the_pictures_state(boxes):
    upright, _, _ = boxes("upright.mp4")
    turned, _, _ = boxes("sei_rotated.ts")
    assert upright.shape == turned.shape == (20, 4)
    assert np.isfinite(turned[:, 0]).sum() >= 19
    assert np.nanmax(np.abs(upright - turned)) < 8


def test_a_face_keeps_its_shape_when_the_phone_is_turned(boxes):
    _, marks, warnings = boxes("turned_mid_call.webm")
    assert np.isfinite(marks).all()
    down = np.linalg.norm((marks[:, 3] + marks[:, 4] - marks[:, 0] - marks[:, 1]) / 2, axis=1)
    ratio = down / np.linalg.norm(marks[:, 1] - marks[:, 0], axis=1)
    assert np.median(ratio[:15]) == pytest.approx(np.median(ratio[-15:]), rel=0.1)
    (warning,) = warnings
    assert warning.startswith("the picture changes its size or shape (320×240, then 240×320)")


def test_a_photographers_flash_does_not_change_who_is_followed(boxes):
    found, _, _ = boxes("photo_flash.mp4")
    seen = np.isfinite(found[:, 0])
    assert seen.sum() >= 133
    assert len(set((found[seen, 0] + found[seen, 2] > 400).tolist())) == 1
