"""What changes in mid-stream, and channels whose places say little: files made here, read as they are."""

import struct

import numpy as np
import pytest

from avfuse.pipeline.media.probe import probe
from avfuse.pipeline.media.readers import AudioReader, FrameReader

RATE_HZ = 16_000  # no resampling: the samples are compared one by one


def labelled_wav(path, samples, mask):
    """A WAV of float samples [S, C] whose header says in which loudspeaker each channel is meant to be."""
    data, channels = (samples * 32767).round().astype("<i2").tobytes(), samples.shape[1]
    form = struct.pack("<HHIIHHHHI", 0xFFFE, channels, RATE_HZ, RATE_HZ * channels * 2, channels * 2, 16, 22, 16, mask)
    form += bytes.fromhex("0100000000001000800000aa00389b71")
    parts = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", len(parts)) + parts)


def read_sound(path):
    with AudioReader(probe(path)) as audio:
        samples = np.concatenate(list(audio))
    return samples, audio.real_spans(), audio.ending.warnings


@pytest.mark.parametrize(
    ("mask", "channels"),
    [
        *((0x3, 2), (0x9, 2), (0x3F, 6), (0, 16)),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in ((0xC, 2), (0x30, 2), (0x600, 2), (0xB, 3), (0x33, 4), (0x63F, 8), (0, 24))
        ),
    ],
    ids=["stereo", "FL+LFE", "5.1", "16", "FC+LFE", "BL+BR", "SL+SR", "2.1", "quad", "7.1", "24"],
)
def test_channels_are_their_mean_whatever_their_places_are_called(mask, channels, tmp_path, ffmpeg_run):
    rng = np.random.default_rng(channels)
    samples = np.clip(rng.normal(0, 0.1, (RATE_HZ, channels)), -1, 1)
    labelled_wav(tmp_path / "sound.wav", samples, mask)
    picture = ["-f", "lavfi", "-i", "color=s=32x32:r=5:d=1"]
    words = ["-guess_layout_max", "0", "-i", tmp_path / "sound.wav", "-c:v", "mpeg4", "-c:a", "pcm_s16le"]
    ffmpeg_run(*picture, *words, tmp_path / "clip.mov")
    mono, _, warnings = read_sound(tmp_path / "clip.mov")
    assert np.abs(mono[:RATE_HZ] - samples.mean(axis=1)).max() < 1e-4
    assert warnings == ()


@pytest.mark.parametrize(
    ("suffix", "own_clocks"), [("ts", False), ("ts", True), pytest.param("mpg", True, marks=pytest.mark.slow)]
)
def test_a_rate_that_the_decoder_notices_a_frame_late(suffix, own_clocks, flashes, clicks, make_clip, decode, tmp_path):
    """MP2 in another rate from each 2 s to the next; with clocks of their own they are recordings that were joined."""
    whole = tmp_path / f"whole.{suffix}"
    with whole.open("wb") as out:
        for number, rate_hz in enumerate((48_000, 44_100, 32_000)):
            samples = clicks(2.0, rate_hz, [0.6, 1.4])[:, None].repeat(1 + number % 2, axis=1)
            start = "1.4" if own_clocks else f"{1.4 + 2 * number}"
            words = "-c:v mpeg2video -bf 0 -c:a mp2 -b:a 128k -muxdelay 0 -muxpreload 0 -output_ts_offset"
            part = make_clip(
                f"part.{suffix}",
                flashes(50, [15, 35], (48, 64)),
                samples=samples,
                rate_hz=rate_hz,
                options=(*words.split(), start),
            )
            out.write(part.read_bytes())
    seen = decode(whole)
    assert len(seen.flash_rows) == 6
    energy = np.convolve(np.square(seen.samples), np.ones(80), "same")
    for flash_s in seen.time_s[seen.flash_rows]:
        near = slice(round((flash_s - 0.1) * RATE_HZ), round((flash_s + 0.1) * RATE_HZ))
        assert abs(energy[near].argmax() / RATE_HZ - 0.1) < 0.0065
        assert energy[near].max() > 1
    assert sum(stop - start for start, stop in seen.spans) == pytest.approx(6.0, abs=0.15)


def test_pixels_of_another_shape_are_a_warning(ffmpeg_run, tmp_path):
    """A broadcast goes from 4:3 to 16:9, both of 720 x 576 px."""
    parts = []
    for number, aspect in enumerate(("16/15", "64/45")):
        words = ["-f", "lavfi", "-i", "testsrc=s=720x576:r=25:d=0.4", "-vf", f"setsar={aspect}", "-c:v", "mpeg2video"]
        part = tmp_path / f"{number}.ts"
        ffmpeg_run(*words, "-bf", "0", "-output_ts_offset", str(1 + 0.4 * number), part)
        parts.append(part.read_bytes())
    whole = tmp_path / "whole.ts"
    whole.write_bytes(b"".join(parts))
    with FrameReader(probe(whole)) as reader:
        pixels = np.concatenate([batch.pixels for batch in reader])
    shapes = "(720×576 of 1.07:1 pixels, then 720×576 of 1.42:1 pixels)"
    assert (
        f"the picture changes its size or shape {shapes}: all fitted into 720×576, undistorted"
        in reader.ending.warnings
    )
    black = (pixels[-1].max(axis=(1, 2)) < 20).sum()
    assert black == pytest.approx(576 / 4, abs=4)  # wider pixels in the shape of the first: rows stay free
    assert (pixels[0].max(axis=(1, 2)) < 20).sum() < 4
