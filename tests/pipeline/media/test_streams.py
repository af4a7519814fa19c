"""Which streams of a file are decoded, from what ffprobe says about them."""

import struct
from pathlib import Path

import numpy as np
import pytest

from avfuse.pipeline.media.probe import probe
from avfuse.pipeline.media.readers import AudioReader, FrameReader
from avfuse.pipeline.media.streams import Choice, choose, lacks_parameters
from avfuse.pipeline.media.types import MediaError

KNOWN = frozenset(["h264", "aac", "mp2", "mjpeg", "png"])


def test_the_streams_that_a_trial_was_made_of():
    assert Choice.recorded({"video_stream": "v:1", "audio_stream": "a:2"}) == Choice(1, 2)
    assert Choice.recorded({"video_stream": "v:0", "audio_stream": None}) == Choice(0, None)
    assert Choice.recorded({}) == Choice()


def video(index, codec="h264", title="", size=64, **flags):
    return {
        "index": index,
        "codec_type": "video",
        "codec_name": codec,
        "width": size,
        "height": size,
        "disposition": dict.fromkeys(flags, 1),
        "tags": {"title": title},
    }


def audio(index, codec="aac", title="", channels=2, **flags):
    return {
        "index": index,
        "codec_type": "audio",
        "codec_name": codec,
        "channels": channels,
        "sample_rate": "48000" if channels else "0",
        "disposition": dict.fromkeys(flags, 1),
        "tags": {"title": title},
    }


def chosen(*streams, packets=None, programmes=(), **choice):
    """Places of the picture and the sound in the file."""
    found = {"streams": streams, "programs": [{"streams": [{"index": at} for at in one]} for one in programmes]}
    packets = packets or dict.fromkeys(range(len(streams)), 250)
    counts = {"streams": [{"index": at, "nb_read_packets": str(count)} for at, count in packets.items()]}
    pair = choose(Path("/a.mkv"), found, Choice(**choice), lambda: KNOWN, lambda: counts)
    return pair.video["index"], pair.audio["index"] if pair.audio else None


@pytest.mark.parametrize("flag", ["comment", "descriptions", "visual_impaired", "hearing_impaired", "dub", "karaoke"])
def test_sound_that_is_made_to_go_with_another(flag):
    assert chosen(video(0), audio(1, **{flag: 1}), audio(2)) == (0, 2)
    assert chosen(video(0), audio(1, **{flag: 1, "default": 1}), audio(2)) == (0, 2)
    assert chosen(video(0), audio(1, **{flag: 1})) == (0, 1)  # there is no other


@pytest.mark.parametrize("title", ["Director's Commentary", "Audio Description", "English AD", "Kommentar", "Hörfilm"])
def test_a_title_counts_where_no_flag_is_set(title):
    assert chosen(video(0), audio(1, title=title, default=1), audio(2, title="Stereo", default=1)) == (0, 2)


@pytest.mark.parametrize("title", ["English", "Radio", "ADR mix", "SoundHandler", "Main"])
def test_other_titles_mean_nothing(title):
    assert chosen(video(0), audio(1, title=title), audio(2)) == (0, 1)


def test_the_default_one_or_else_the_first():
    assert chosen(video(0), audio(1), audio(2), audio(3, default=1)) == (0, 3)
    assert chosen(video(0), audio(1), audio(2)) == (0, 1)
    assert chosen(video(0), video(1, default=1)) == (1, None)
    assert chosen(video(0), video(1)) == (0, None)


def test_what_has_no_decoder_or_no_packet_comes_last():
    assert chosen(video(0), audio(1, codec="ac4", default=1), audio(2)) == (0, 2)
    assert chosen(video(0), audio(1, channels=0), audio(2)) == (0, 2)
    assert chosen(video(0, codec="vvc", default=1), video(1)) == (1, None)
    assert chosen(video(0), audio(1, codec="ac4")) == (0, 1)  # what is wrong is said when it is decoded
    nameless = {**audio(1), "codec_name": None}
    assert chosen(video(0), nameless, audio(2)) == (0, 2)


def test_no_still_image_beside_a_video():
    cover, still = video(0, "mjpeg", attached_pic=1), video(0, "png", default=1)
    assert chosen(cover, video(1)) == (1, None)
    assert chosen(still, video(1), packets={0: 1, 1: 250}) == (1, None)
    assert chosen(video(0, "mjpeg", default=1), video(1), packets={0: 10, 1: 250}) == (1, None)
    assert chosen(video(0, "mjpeg"), video(1), packets={0: 250, 1: 250}) == (0, None)  # a camera's two pictures
    assert chosen(still, packets={0: 1}) == (0, None)


def test_no_slides_beside_a_video():
    for codec, seconds in (("h264", 1), ("hevc", 5), ("mjpeg", 1), ("vp9", 2)):
        packets = {0: 10 // seconds, 1: 250}
        for flags in ({}, {"default": 1}):  # muxers make the first track the default one by themselves
            slides = video(0, codec, **flags)
            assert chosen(slides, video(1), packets=packets) == (1, None)
            assert chosen(slides, video(1, default=1), packets=packets) == (1, None)
            assert chosen(video(1), slides, packets=packets) == (1, None)
    assert chosen(slides, video(1), packets=packets, video=0) == (0, None)  # asked for by its number
    assert chosen(slides, packets={0: 5}) == (0, None)  # alone it is the video
    assert chosen(video(0, default=1), video(1), packets={0: 250, 1: 600}) == (0, None)  # two cameras
    assert chosen(video(0), video(1, default=1), packets={0: 10, 1: 10}) == (1, None)


@pytest.mark.parametrize("name", ["a.mp4", *(pytest.param(each, marks=pytest.mark.slow) for each in ("a.mkv", "a.ts"))])
def test_slides_come_first_in_the_file_and_are_its_default(ffmpeg_run, tmp_path, name):
    sources = [["-f", "lavfi", "-i", f"testsrc2=s=64x48:r={rate}:d=4"] for rate in (1, 25)]
    tracks = ["-map", "0", "-map", "1", "-c:v", "mpeg4", "-disposition:v:0", "default", "-disposition:v:1", "0"]
    ffmpeg_run(*sources[0], *sources[1], *tracks, tmp_path / name)
    info = probe(tmp_path / name)
    pixels, _ = seen(info)
    assert (info.video_name, len(pixels)) == ("v:1", 100)


def test_the_sound_of_the_pictures_programme():
    two = (audio(0), video(1), audio(2), audio(3))
    assert chosen(*two, programmes=[[0], [1, 2, 3]]) == (1, 2)
    assert chosen(*two, programmes=[[0, 3], [1]]) == (1, 2)  # that belongs to none
    assert chosen(audio(0), video(1), programmes=[[0], [1]]) == (1, None)  # another programme's is none of it
    assert chosen(audio(0, default=1), video(1), audio(2), programmes=[[0], [1, 2]]) == (1, 2)


def test_numbers_count_the_streams_of_a_kind_as_ffmpeg_does():
    streams = video(0, "mjpeg", attached_pic=1), audio(1), video(2), audio(3, comment=1)
    assert chosen(*streams) == (2, 1)
    assert chosen(*streams, audio=1) == (2, 3)
    assert chosen(*streams, video=0) == (0, 1)
    with pytest.raises(MediaError, match=r"no audio stream a:2 \(only a:0 to a:1\): see --audio-stream"):
        chosen(*streams, audio=2)
    with pytest.raises(MediaError, match=r"no video stream v:1 \(only v:0\)"):
        chosen(video(0), video=1)
    with pytest.raises(MediaError, match=r"no audio stream a:0 \(none at all\)"):
        chosen(video(0), audio=0)


def test_when_to_look_longer():
    assert lacks_parameters({"streams": [video(0, size=0), audio(1)]})
    assert lacks_parameters({"streams": [video(0), audio(1, channels=0)]})
    assert not lacks_parameters({"streams": [video(0), audio(1), audio(2, channels=0)]})
    assert not lacks_parameters({"streams": [audio(0)]})


def seen(info):
    with FrameReader(info) as frames:
        pixels = np.concatenate([batch.pixels for batch in frames])
    return pixels, frames.ending


def read_sound(info):
    with AudioReader(info) as sound:
        samples = np.concatenate(list(sound))
    return samples, sound.ending


@pytest.fixture
def loud(make_clip):
    """A short clip with these channels [S, C] at 48 kHz, as PCM without a layout."""

    def make(channels, name="a.mov", codec="pcm_s16le"):
        frames = np.zeros((25, 48, 64, 3), np.uint8)
        options = ("-c:v", "mpeg4", "-c:a", codec)
        return make_clip(name, frames, samples=channels, rate_hz=48_000, options=options)

    return make


@pytest.mark.parametrize("count", [3, 8, *(pytest.param(each, marks=pytest.mark.slow) for each in (6, 16, 24))])
def test_many_channels_are_their_mean(loud, count):
    channels = np.zeros((48_000, count))
    channels[:, 3 % count] = 0.6 * np.sin(np.arange(48_000) * 0.05)  # the place of a 5.1's effects
    samples, ending = read_sound(probe(loud(channels)))
    assert np.abs(samples[2000:-2000]).max() == pytest.approx(0.6 / count, rel=0.02)
    assert ending.warnings == ()


def test_channels_that_cancel_are_a_warning(loud):
    tone = 0.5 * np.sin(np.arange(48_000) * 0.05)
    for channels, warned in (
        ([tone, -tone], True),
        ([tone, -0.9 * tone], True),
        ([tone, tone], False),
        ([tone, 0 * tone], False),
        ([0 * tone, 0 * tone], False),
    ):
        _, ending = read_sound(probe(loud(np.stack(channels, axis=1), "a.mkv")))
        assert any("2 channels cancel each other" in words for words in ending.warnings) == warned


@pytest.mark.parametrize("change", ["size", "aspect"])
def test_a_shape_that_changes_is_fitted_in(ffmpeg_run, tmp_path, change):
    """Two parts of a broadcast: the second stands upright, or goes from 4:3 to 16:9 as DVDs and broadcasts do."""
    parts = {"size": (("96x48", "1"), ("24x48", "1")), "aspect": (("96x48", "2/3"), ("96x48", "8/9"))}[change]
    for name, start_s, (part_size, part_aspect) in zip("ab", (0, 1), parts, strict=True):
        source = ["-f", "lavfi", "-i", f"color=white:s={part_size}:r=25:d=1"]
        words = ["-vf", f"setsar={part_aspect}", "-c:v", "mpeg2video", "-output_ts_offset", start_s]
        ffmpeg_run(*source, *words, tmp_path / f"{name}.ts")
    path = tmp_path / "both.ts"
    path.write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    pixels, ending = seen(probe(path))
    assert pixels.shape[1:] == (48, 96, 3)
    assert (pixels[0] > 200).all()
    bright = pixels[-2].mean(axis=2) > 128
    across, down = int(bright.any(axis=0).sum()), int(bright.any(axis=1).sum())
    assert (across, down) == ((24, 48) if change == "size" else (96, 36))
    assert sum("changes its size or shape" in words for words in ending.warnings) == 1


def test_the_end_of_an_avi_is_its_own(make_clip, tmp_path):
    """Chunks without anything in them, as a screen recorder writes for a still picture; and the same file cut."""
    frames = np.random.default_rng(0).integers(0, 256, (75, 48, 64, 3), np.uint8)
    data = make_clip("a.avi", frames, options=("-c:v", "mjpeg")).read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) // 2])
    _, ending = seen(probe(tmp_path / "cut.avi"))
    assert ending.truncated
    case = Path(__file__).parent / "cases" / "streams" / "screen_still_at_end.avi"
    pixels, ending = seen(probe(case))
    assert (len(pixels), ending.truncated) == (100, False)


def test_a_hevc_capture_begins_with_its_first_key_frame(ffmpeg_run, tmp_path):
    """HEVC's decoder shows what it lacks the beginning of, in grey; H.264's and MPEG-2's wait."""
    whole, cut = tmp_path / "whole.ts", tmp_path / "cut.ts"
    coding = "keyint=50:min-keyint=50:scenecut=0:log-level=error"
    ffmpeg_run(
        *("-f", "lavfi", "-i", "testsrc2=s=128x96:r=25:d=5", "-f", "lavfi", "-i", "sine=d=5"),
        *("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", coding, "-c:a", "mp2", whole),
    )
    packets = whole.read_bytes()
    cut.write_bytes(packets[len(packets) // 8 // 188 * 188 :])
    info = probe(cut)
    with FrameReader(info) as reader:
        batches = list(reader)
    time_s = np.concatenate([batch.time_s for batch in batches])
    with FrameReader(probe(whole)) as reader:
        right = np.concatenate([batch.pixels for batch in reader])
    assert info.from_key
    assert not probe(whole).from_key
    np.testing.assert_allclose(np.diff(time_s), 0.04, atol=1e-4)
    np.testing.assert_array_equal(np.concatenate([batch.pixels for batch in batches]), right[-len(time_s) :])
    assert len(time_s) == 75
    assert time_s[0] > 1  # the sound is earlier, and time 0 its start


LONG = {  # key frames 6 s apart, which is more than 300 packets
    "hevc": ("cut.ts", "libx265", "-x265-params", "keyint=360:min-keyint=360:scenecut=0:open-gop=1:log-level=error"),
    "h264": ("cut.ts", "libx264", "-x264-params", "keyint=360:min-keyint=360:scenecut=0:open-gop=1:bframes=2"),
    "mpeg2": ("cut.ts", "mpeg2video", "-g", "360", "-bf", "2", "-sc_threshold", "1000000000"),
    "mpeg4": ("cut.avi", "mpeg4", "-g", "360", "-sc_threshold", "1000000000"),
}


@pytest.mark.parametrize(
    "coding", ["h264", *(pytest.param(each, marks=pytest.mark.slow) for each in ("hevc", "mpeg2", "mpeg4"))]
)
def test_a_long_gop_without_its_beginning(make_clip, flashes, clicks, ffmpeg_run, tmp_path, coding):
    """Rows from the first key frame on, in sync with the sound, which is there before it."""
    name, codec, *words = LONG[coding]
    flash_s = 8 + 1 / 4, 10 + 1 / 2
    samples = clicks(12, 48_000, [2, *flash_s])
    words = ["-c:v", codec, "-preset", "ultrafast", *words] if codec.startswith("lib") else ["-c:v", codec, *words]
    frames = flashes(720, [round(at_s * 60) for at_s in flash_s], (48, 64))
    whole = make_clip(name, frames, rate="60", samples=samples, rate_hz=48_000, options=(*words, "-c:a", "mp2"))
    cut = tmp_path / name
    if cut.suffix == ".ts":
        data = whole.read_bytes()
        cut.write_bytes(data[len(data) // 20 // 188 * 188 :])
    else:
        ffmpeg_run("-i", whole, "-ss", 0.5, "-c", "copy", "-copyinkf", cut)
    info = probe(cut)
    with FrameReader(info) as reader:
        batches = list(reader)
    time_s = np.concatenate([batch.time_s for batch in batches])
    levels = np.concatenate([batch.pixels.mean(axis=(1, 2, 3)) for batch in batches])
    sound, _ = read_sound(info)
    assert len(levels) == 360
    assert info.from_key == (coding in ("hevc", "mpeg4"))
    assert time_s[0] > 4  # time 0 is where the sound begins
    rows = np.flatnonzero(levels > 128)
    np.testing.assert_array_equal(rows, [round((at_s - 6) * 60) for at_s in flash_s])
    for row in rows:
        first = round((time_s[row] - 0.2) * 16_000)
        click_s = (first + np.abs(sound[first : first + 6400]).argmax()) / 16_000
        assert click_s == pytest.approx(time_s[row], abs=0.025)


# A quarter turn to the left, a half turn, one to the right: SEI messages count in 2^16 of a turn to the left.
TURNS = {1: (0, -1, 1, 0), 2: (-1, 0, 0, -1), 3: (0, 1, -1, 0)}


def with_matrix(path, quarters):
    """The same MP4 with that display matrix in its only track's header."""
    data = bytearray(path.read_bytes())
    a, b, c, d = (number << 16 for number in TURNS[quarters])
    struct.pack_into(">9i", data, data.index(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def with_message(path, quarters, every):
    """The same H.264 or HEVC byte stream with an SEI message of orientation before its first picture or every one."""
    hevc = path.suffix == ".hevc"
    head, *units = path.read_bytes().split(b"\0\0\1")
    turn = (quarters << 14) << 5 | 0x18
    message = (b"\x4e\x01" if hevc else b"\x06") + b"\x2f\x03" + turn.to_bytes(3, "big") + b"\x80"
    parts = [head]
    for unit in units:
        is_picture = (unit[0] >> 1 & 63) < 32 if hevc else unit[0] & 31 in (1, 5)
        if is_picture and (every or message not in parts):
            parts.append(message)
        parts.append(unit)
    path.write_bytes(b"\0\0\1".join(parts))


@pytest.mark.parametrize(
    ("pictures", "container", "upright"),
    [
        *((1, None, 1), (2, None, 2), (None, 3, 3), (3, 1, 1), (2, 3, 3)),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in ((3, None, 3), (None, 1, 1), (1, 1, 1), (1, 2, 2))),
    ],
)
@pytest.mark.parametrize(
    ("codec", "every"), [("libx264", False), pytest.param("libx265", True, marks=pytest.mark.slow)]
)
def test_orientation_in_pictures_and_container(make_clip, ffmpeg_run, codec, every, pictures, container, upright):
    """All frames are turned by one: the container's where it says one, and never twice."""
    frames = np.zeros((4, 64, 96, 3), np.uint8)
    frames[:, :32, :48] = 200
    frames[:, 32:, :48] = 100
    name, quiet = ("a.hevc", "-x265-params") if codec == "libx265" else ("a.h264", "-x264-params")
    words = ("-c:v", codec, "-preset", "ultrafast", "-bf", "0", quiet, "log-level=error" if every else "slices=1")
    raw = make_clip(name, frames, options=words)
    if pictures:
        with_message(raw, pictures, every)
    path = raw.with_suffix(".mp4")
    ffmpeg_run("-i", raw, "-c", "copy", path)
    if container:
        with_matrix(path, container)
    pixels, ending = seen(probe(path))
    right = np.rot90(frames, upright, axes=(1, 2))
    assert pixels.shape == right.shape
    assert np.abs(pixels.astype(int) - right).mean(axis=(1, 2, 3)).max() < 5
    assert ending.warnings == ()
