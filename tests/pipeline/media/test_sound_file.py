"""A file in place of a video's sound lies where that sound lay."""

import numpy as np
import pytest
import soundfile

from avfuse.pipeline.media.probe import probe
from avfuse.pipeline.media.readers import AudioReader
from avfuse.pipeline.media.sound_file import open_sound_file
from avfuse.pipeline.media.types import MediaError

LOSSLESS = ("-c:v", "ffv1", "-c:a", "pcm_s16le")


def heard(info):
    with AudioReader(info) as audio:
        return np.concatenate(list(audio)), audio.real_spans()


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).uniform(-0.5, 0.5, 32_000)


@pytest.fixture(scope="module")
def film(make_clip, flashes, noise):
    """Two seconds of picture and of noise."""
    return lambda **late: make_clip(
        "a.mkv", flashes(50, [3], (16, 16)), samples=noise, rate_hz=16_000, options=LOSSLESS, **late
    )


@pytest.mark.parametrize(
    "late", [{}, {"late_audio_s": 0.244}, pytest.param({"late_video_s": 0.852}, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("suffix", ["wav", pytest.param("flac", marks=pytest.mark.slow)])
def test_what_ffmpeg_takes_out_of_a_video_lies_where_it_lay(film, ffmpeg_run, tmp_path, late, suffix):
    video = film(**late)
    ffmpeg_run("-i", video, tmp_path / f"t.{suffix}")
    info = probe(video)
    file = open_sound_file(tmp_path / f"t.{suffix}", info)
    assert file.warning is None
    assert file.info.audio_start_s == 0
    samples, spans = heard(info)
    assert spans[0][0] == pytest.approx(max(0, late.get("late_audio_s", 0)), abs=0.001)
    instead, spans_instead = heard(file.info)
    assert np.array_equal(instead, samples)
    assert spans_instead == spans


def test_a_video_without_sound_has_it_from_its_first_frame_on(media, tmp_path, noise):
    info = probe(media / "derived/grid_bbaf2n_noaudio.mp4")
    soundfile.write(tmp_path / "t.wav", np.tile(noise, 2)[:48_000], 16_000)
    samples, spans = heard(open_sound_file(tmp_path / "t.wav", info).info)
    assert (len(samples), spans) == (48_000, [(0.0, 3.0)])


def test_other_rates_and_channels_are_read_as_those_of_videos(film, tmp_path, noise):
    soundfile.write(tmp_path / "t.wav", np.stack([noise, np.zeros_like(noise)], axis=1), 8_000, subtype="FLOAT")
    samples, spans = heard(open_sound_file(tmp_path / "t.wav", probe(film())).info)
    assert spans == [(0.0, 4.0)]
    assert len(samples) == 64_000
    assert np.sqrt(np.mean(np.square(samples))) == pytest.approx(
        np.sqrt(np.mean(np.square(noise))) / 2, rel=0.05
    )  # the mean


@pytest.mark.parametrize(("seconds", "is_warned"), [(1.0, True), (1.7, False), (2.3, False), (3.0, True)])
@pytest.mark.parametrize("name", ["a.mov", pytest.param("a.mkv", marks=pytest.mark.slow)])
def test_another_length_is_a_warning_with_both(make_clip, flashes, tmp_path, noise, name, seconds, is_warned):
    clip = make_clip(name, flashes(50, [3], (16, 16)), samples=noise, rate_hz=16_000,
                     options=("-c:v", "mjpeg", "-c:a", "pcm_s16le"))  # fmt: skip
    soundfile.write(tmp_path / "t.wav", np.tile(noise, 2)[: round(16_000 * seconds)], 16_000)
    warning = open_sound_file(tmp_path / "t.wav", probe(clip)).warning
    if not is_warned or (name == "a.mkv" and seconds < 2):  # Matroska does not say how long its sound is
        assert warning is None
    else:
        whose = "the video's own sound" if name == "a.mov" else "the video"
        assert (warning or "").startswith(f"t.wav is {seconds:.2f} s long, {whose} 2.00 s: is it of this recording")


def test_what_is_no_sound_file_is_named(film, ffmpeg_run, tmp_path, noise):
    info = probe(film())
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 16_000)
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("words\n" * 50)
    (tmp_path / "folder.wav").mkdir()
    soundfile.write(tmp_path / "ogg.wav", noise, 16_000, format="OGG")
    for name, words in (
        ("none.wav", "has no samples"),
        ("empty.wav", "is empty"),
        ("text.wav", "is not a readable sound file"),
        ("folder.wav", "is not a file"),
        ("gone.wav", "cannot be opened"),
        ("ogg.wav", "only wav and flac are read"),
    ):
        with pytest.raises(MediaError, match=words) as error:
            open_sound_file(tmp_path / name, info)
        assert error.value.stage == "audio"
        assert name in str(error.value)


def test_a_video_is_never_opened_as_a_sound_file(film, tmp_path, noise):
    """The one list of containers has grown by nothing that a video may claim to be."""
    soundfile.write(tmp_path / "a.mp4", noise, 16_000, format="WAV")
    with pytest.raises(MediaError):
        probe(tmp_path / "a.mp4")
