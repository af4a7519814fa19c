"""Drawn videos: the source's times, length and sound; the box where the face is; no file of another video."""

import numpy as np
import pytest

from avfuse.apps.run.drawing import Canvas, Drawn, draw_video
from avfuse.pipeline.media.probe import probe
from avfuse.pipeline.media.readers import AudioReader, FrameReader
from avfuse.pipeline.media.types import MediaError

VFR = ("-vf", "select=not(eq(mod(n\\,5)\\,3))*not(between(n\\,20\\,27))", "-fps_mode", "vfr", "-pix_fmt", "yuv444p")


def read(path):
    info = probe(path)
    with FrameReader(info) as reader:
        batches = list(reader)
    samples = np.zeros(0)
    if info.audio_stream is not None:
        with AudioReader(info) as audio:
            samples = np.concatenate(list(audio))
    pixels = np.concatenate([batch.pixels for batch in batches])
    return info, np.concatenate([batch.time_s for batch in batches]), pixels, samples


def drawn_for(time_s, columns=("valence", "arousal"), boxes=None, mark=""):
    prediction = np.sin(time_s[:, None] * np.arange(1, 1 + len(columns))).astype(np.float32)
    valid = np.arange(len(time_s)) % 20 < 15
    return Drawn(time_s, boxes, columns, prediction, valid, (-1.0, 1.0), mark)


@pytest.fixture
def odd_clip(make_clip):
    """A clip of odd size with a click at 1 s."""

    def make(name="clip.mkv", *, options=("-pix_fmt", "yuv444p"), sound=True, **late):
        frames = np.full((50, 33, 65, 3), 120, np.uint8)
        samples = np.zeros(2 * 16_000)
        samples[16_000:16_080] = 0.8
        return make_clip(
            name, frames, rate="25", samples=samples if sound else None, rate_hz=16_000, options=options, **late
        )

    return make


def moment_s(samples):
    """When a click sounds: the middle of its energy."""
    power = samples.astype(np.float64) ** 2
    return (np.arange(len(power)) * power).sum() / power.sum() / 16_000


@pytest.mark.parametrize(
    ("options", "late"),
    [
        pytest.param(("-pix_fmt", "yuv444p"), {"late_video_s": 0.2}, marks=pytest.mark.slow),
        pytest.param(VFR, {}, marks=pytest.mark.slow),
        (VFR, {"late_audio_s": 0.3}),
    ],
    ids=["late picture", "variable", "variable, late sound"],
)
def test_times_and_sound_are_those_of_the_source(odd_clip, tmp_path, options, late):
    _, time_s, _, samples = read(path := odd_clip("clip.mkv", options=options, **late))
    out = tmp_path / "drawn.mp4"
    draw_video(probe(path), drawn_for(time_s), out)
    info, after_s, pixels, sound = read(out)
    np.testing.assert_allclose(after_s, time_s, atol=2e-5)
    assert pixels.shape[1] % 2 == pixels.shape[2] % 2 == 0
    assert moment_s(sound) == pytest.approx(moment_s(samples), abs=0.001)
    assert info.duration_s is not None
    assert abs(len(sound) - len(samples)) / 16_000 <= 0.065  # AAC comes in frames of 64 ms at 16 kHz


def test_recordings_joined_in_one_file(odd_clip, tmp_path):
    """Their second clock goes on where the first one ended, and so does the drawn sound."""
    one = odd_clip("clip.ts", options=("-pix_fmt", "yuv444p", "-c:v", "libx264", "-c:a", "aac", "-f", "mpegts"))
    path = tmp_path / "joined.ts"
    path.write_bytes(one.read_bytes() * 2)
    info, time_s, _, samples = read(path)
    assert info.video_parts
    draw_video(info, drawn_for(time_s), tmp_path / "drawn.mp4")
    _, after_s, _, sound = read(tmp_path / "drawn.mp4")
    np.testing.assert_allclose(after_s, time_s, atol=1e-3)
    assert moment_s(sound) == pytest.approx(moment_s(samples), abs=0.002)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["drawn.mp4", "joined.ts"]


def test_without_sound(odd_clip, tmp_path):
    _, time_s, _, _ = read(path := odd_clip(sound=False))
    draw_video(probe(path), drawn_for(time_s), tmp_path / "drawn.mp4")
    info, after_s, _, _ = read(tmp_path / "drawn.mp4")
    assert info.audio_stream is None
    assert len(after_s) == len(time_s)


def test_the_box_is_where_the_face_is(odd_clip, tmp_path):
    info, time_s, pixels, _ = read(odd_clip())
    boxes = np.full((len(time_s), 4), np.nan, np.float32)
    boxes[10] = (13, 8, 39, 24)
    canvas = Canvas(info, drawn_for(time_s, boxes=boxes))
    picture = canvas.paint(pixels[10], 10).astype(int)
    scale = canvas.size_px[0] / info.width_px
    is_box = (picture[:, :, 0] > 200) & (picture[:, :, 1] > 200) & (picture[:, :, 2] < 120)
    rows, columns = np.flatnonzero(is_box.any(axis=1)), np.flatnonzero(is_box[: round(24 * scale)].any(axis=0))
    assert rows[0] == pytest.approx(8 * scale, abs=2)
    assert (columns[0], columns[-1]) == (pytest.approx(13 * scale, abs=2), pytest.approx(39 * scale, abs=2))
    nobody = canvas.paint(pixels[11], 11).astype(int)
    assert (nobody != picture).any()


def test_the_traces_move(odd_clip):
    info, time_s, pixels, _ = read(odd_clip())
    canvas = Canvas(info, drawn_for(time_s, mark="UNTRAINED WEIGHTS"))
    below = round(info.height_px * canvas.size_px[0] / info.width_px) + 4
    one, other = (canvas.paint(pixels[row], row)[below:] for row in (5, 30))
    assert (one != other).any()
    many = Canvas(info, drawn_for(time_s, columns=tuple(f"class {number}" for number in range(8))))
    assert many.size_px[1] > canvas.size_px[1]  # more names take more lines


def test_another_video_is_refused_and_leaves_no_file(odd_clip, tmp_path):
    _, time_s, _, _ = read(path := odd_clip())
    for wrong_s in (time_s[:-3], time_s + 0.01, np.append(time_s, 3.0)):
        with pytest.raises(MediaError, match="store"):
            draw_video(probe(path), drawn_for(wrong_s), tmp_path / "drawn.mp4")
        assert not list(tmp_path.iterdir())
