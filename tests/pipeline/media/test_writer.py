"""Pictures at times of their own into an MP4; what ffmpeg cannot do is said in its own words."""

import json
import os
import signal
import subprocess

import numpy as np
import pytest

from avfuse.pipeline.media.probe import probe
from avfuse.pipeline.media.readers import FrameReader
from avfuse.pipeline.media.types import MediaError
from avfuse.pipeline.media.writer import PictureWriter

TIMES_S = (0.0, 0.04, 0.2, 0.2333333, 1.001, 1.7)


@pytest.fixture
def info(make_clip):
    return probe(make_clip("clip.mp4", np.zeros((2, 32, 32, 3), np.uint8), options=("-pix_fmt", "yuv420p")))


def picture(shade):
    return np.full((48, 64, 3), shade, np.uint8)


def test_each_picture_at_its_time(info, tmp_path):
    shades = range(20, 20 + 40 * len(TIMES_S), 40)
    with PictureWriter(tmp_path / "out.mp4", (64, 48), info, 0.1) as writer:
        for time_s, shade in zip(TIMES_S, shades, strict=True):
            writer.write(picture(shade), time_s, 0.1)
    with FrameReader(probe(tmp_path / "out.mp4")) as reader:
        batches = list(reader)
    np.testing.assert_allclose(np.concatenate([batch.time_s for batch in batches]), TIMES_S, atol=1e-5)
    means = np.concatenate([batch.pixels for batch in batches]).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(means, list(shades), atol=4)


@pytest.mark.parametrize(("size_px", "count"), [((64, 48), 1), ((64, 48), 6), ((1280, 720), 6)])
@pytest.mark.parametrize("last_s", [0.02, 0.1])
def test_the_last_picture_is_shown_as_long_as_is_said(info, tmp_path, size_px, count, last_s):
    """Of large pictures ffmpeg looks at too few to find their rate; a variable one says nothing about the last."""
    out = tmp_path / "out.mp4"
    with PictureWriter(out, size_px, info, last_s) as writer:
        for at in range(count):
            picture = np.full((size_px[1], size_px[0], 3), 9 * at, np.uint8)
            writer.write(picture, 0.04 * at, last_s if at == count - 1 else 0.04)
    asked = ["-count_frames", "-select_streams", "v", "-show_entries", "stream=nb_read_frames,duration", "-of", "json"]
    said = subprocess.run(["ffprobe", "-v", "error", *asked, out], capture_output=True, check=True).stdout
    (stream,) = json.loads(said)["streams"]
    assert int(stream["nb_read_frames"]) == count
    assert float(stream["duration"]) == pytest.approx(0.04 * (count - 1) + last_s, abs=1e-3)


def write(path, info, shades, size_px=(64, 48), end=False):
    """Write pictures; `end`: an ffmpeg that somebody ends meanwhile."""
    with PictureWriter(path, size_px, info, 0.1) as writer:
        if end:
            os.kill(writer._process.pid, signal.SIGKILL)
        for at, shade in enumerate(shades):
            writer.write(picture(shade), at / 25, 0.04)


def test_what_is_no_picture(info, tmp_path):
    with pytest.raises(ValueError, match="even, got 63 × 48"):
        write(tmp_path / "out.mp4", info, [], (63, 48))
    with pytest.raises(ValueError, match=r"a picture is uint8 \(46, 64, 3\)"):
        write(tmp_path / "out.mp4", info, [0], (64, 46))


def test_a_place_that_cannot_be_written(info, tmp_path):
    with pytest.raises(MediaError, match="No such file or directory"):
        write(tmp_path / "nowhere" / "out.mp4", info, [7] * 1000)


def test_an_ffmpeg_that_is_ended_from_outside_may_be_tried_again(info, tmp_path):
    with pytest.raises(MediaError, match="ended from outside") as error:
        write(tmp_path / "out.mp4", info, [7] * 1000, end=True)
    assert error.value.is_transient
