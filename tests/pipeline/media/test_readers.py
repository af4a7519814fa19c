import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import threading
import time
import tracemalloc
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from avfuse.pipeline.media.probe import probe, video_info
from avfuse.pipeline.media.process import MOST_MEMORY_BYTES, decoders, ffmpeg_version
from avfuse.pipeline.media.readers import AudioReader, FrameReader
from avfuse.pipeline.media.streams import Streams
from avfuse.pipeline.media.types import MediaError

H264 = ("-c:v", "libx264", "-preset", "ultrafast")


def noise(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


def read_frames(info, **settings):
    with FrameReader(info, **settings) as frames:
        batches = list(frames)
    return (
        np.concatenate([batch.pixels for batch in batches]),
        np.concatenate([batch.time_s for batch in batches]),
        frames.ending,
    )


def read_audio(info):
    with AudioReader(info) as audio:
        blocks = list(audio)
    return np.concatenate(blocks), audio.real_spans(), audio.ending


def children() -> list[int]:
    """Processes started by this one, zombies included."""
    mine = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == os.getpid():
            mine.append(int(stat.parent.name))
    return mine


@pytest.fixture
def nothing_left():
    """No process and no thread outlives a test."""
    before = set(children()), set(threading.enumerate())
    yield
    assert set(children()) == before[0]
    assert set(threading.enumerate()) <= before[1]  # one of an earlier test may have ended meanwhile


@pytest.fixture(scope="session")
def plain(make_clip) -> Path:
    """Two seconds with sound."""
    samples = np.sin(np.arange(88_200) * 0.05)
    return make_clip("plain.mp4", noise(50, 120, 160), samples=samples, options=(*H264, "-c:a", "aac"))


@pytest.mark.media
def test_rows_and_times_are_the_decoded_frames(clip, media):
    path = media / clip["file"]
    info = probe(path)
    with FrameReader(info) as frames:
        seen = [(batch.pixels.shape, batch.time_s) for batch in frames]
    time_s, ending = np.concatenate([times_s for _, times_s in seen]), frames.ending
    assert len(time_s) == clip["decoded_frames"]
    assert {shape[1:] for shape, _ in seen} == {(info.height_px, info.width_px, 3)}
    np.testing.assert_allclose(time_s, probed_times_s(path), atol=1e-6, rtol=0)
    assert (np.diff(time_s) > 0).all()
    assert ending.truncated == ("truncated" in clip["file"])
    assert bool(ending.warnings) == ending.truncated
    np.testing.assert_array_equal(read_frames(info, pixels=False)[1], time_s)


def probed_times_s(path) -> np.ndarray:
    """ffprobe's best-effort PTS of each frame less the earlier of the streams' starts, in exact arithmetic."""
    words = ("-show_frames", "-show_entries", "frame=best_effort_timestamp:stream=codec_type,start_pts,time_base")
    command = ["ffprobe", "-v", "error", "-select_streams", "v:0", *words, "-of", "json", path]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    sound = ffprobe(path, "-select_streams", "a:0", "-show_entries", "stream=start_pts,time_base")
    (picture,) = found["streams"]
    time_base = Fraction(picture["time_base"])
    starts = [picture["start_pts"] * time_base]
    starts += [Fraction(int(each.split(",")[1])) * Fraction(each.split(",")[0]) for each in sound]
    return np.array([float(int(frame["best_effort_timestamp"]) * time_base - min(starts)) for frame in found["frames"]])


def ffprobe(path, *words) -> list[str]:
    command = ["ffprobe", "-v", "error", *words, "-of", "csv=p=0", path]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [line.rstrip(",") for line in said.splitlines() if line.rstrip(",")]


@pytest.mark.media
def test_sound_of_the_real_clips(clip, media):
    info = probe(media / clip["file"])
    if info.audio_stream is None:
        assert clip["audio"] is None
        with pytest.raises(ValueError, match="no audio stream"):
            AudioReader(info)
        return
    samples, spans, ending = read_audio(info)
    assert info.audio_start_s is not None
    start_s = info.audio_start_s - info.origin_s
    # Opus drops its first 6.5 ms, in a container that counts in ms
    assert abs(spans[0][0] - start_s) < (0.0075 if "opus" in clip["audio"] else 1 / 16_000)
    assert spans[-1][1] == len(samples) / 16_000
    assert len(spans) == 1
    assert not samples[: int(spans[0][0] * 16_000)].any()
    assert not ending.truncated


@pytest.mark.media
def test_rotation_is_applied(media):
    turned, _, _ = read_frames(probe(media / "derived/grid_bbaf2n_rot_displaymatrix.mp4"))
    straight, _, _ = read_frames(probe(media / "derived/grid_bbaf2n_noaudio.mp4"))
    assert turned.shape == straight.shape == (75, 288, 360, 3)
    assert np.abs(turned[::5].astype(int) - straight[::5]).mean() < 4


def test_pixels_are_those_of_ffmpeg(plain):
    pixels, _, _ = read_frames(probe(plain))
    command = ["ffmpeg", "-v", "error", "-i", plain, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    shown = subprocess.run(command, capture_output=True, check=True).stdout
    assert pixels.tobytes() == shown


@pytest.mark.parametrize("batch_frames", [1, 7, pytest.param(1000, marks=pytest.mark.slow)])
def test_batches_do_not_change_anything(plain, batch_frames):
    info = probe(plain)
    pixels, time_s, _ = read_frames(info)
    again, times_again_s, _ = read_frames(info, batch_frames=batch_frames)
    np.testing.assert_array_equal(pixels, again)
    np.testing.assert_array_equal(time_s, times_again_s)


@pytest.mark.parametrize("size", [(1, 1), pytest.param((8, 8), marks=pytest.mark.slow), (37, 53)])
def test_small_and_odd_sizes(make_clip, size):
    frames = noise(5, *size)
    info = probe(make_clip("a.mkv", frames, options=("-c:v", "ffv1", "-pix_fmt", "bgr0")))
    pixels, time_s, _ = read_frames(info)
    assert (info.height_px, info.width_px) == size
    np.testing.assert_array_equal(pixels, frames)
    np.testing.assert_allclose(time_s, np.arange(5) / 25, atol=1e-9)
    assert len(read_frames(info, pixels=False)[1]) == 5


def test_ten_bits(make_clip):
    options = ("-c:v", "libx264", "-preset", "ultrafast", "-qp", "0", "-pix_fmt", "yuv420p10le")
    frames = np.full((4, 48, 64, 3), 200, np.uint8)
    pixels, _, _ = read_frames(probe(make_clip("a.mp4", frames, options=options)))
    assert pixels.shape == frames.shape
    assert np.abs(pixels.astype(int) - 200).max() <= 2


def test_a_size_change_in_mid_stream_keeps_rows_and_shape(make_clip, tmp_path):
    options = ("-c:v", "mpeg2video", "-f", "mpegts")
    one = make_clip("a.ts", noise(25, 120, 160), options=options)
    other = make_clip("b.ts", noise(25, 48, 64), options=("-output_ts_offset", "1", *options))
    (tmp_path / "both.ts").write_bytes(one.read_bytes() + other.read_bytes())
    pixels, time_s, _ = read_frames(probe(tmp_path / "both.ts"))
    # The decoder itself loses the frame that it holds back when the size changes.
    assert len(ffprobe(tmp_path / "both.ts", "-select_streams", "v:0", "-show_entries", "frame=width")) == 49
    assert pixels.shape == (49, 120, 160, 3)
    assert (np.diff(time_s) > 0.03).all()


def test_a_new_clock_in_mid_stream_goes_on(make_clip, tmp_path):
    """Two recordings in one file: the second one's times start anew, which must not crush its rows."""
    one = make_clip("a.ts", noise(100, 48, 64), options=("-c:v", "mpeg2video", "-f", "mpegts"))
    (tmp_path / "both.ts").write_bytes(2 * one.read_bytes())
    _, time_s, ending = read_frames(probe(tmp_path / "both.ts"))
    assert len(time_s) == 200
    np.testing.assert_allclose(np.diff(time_s), 0.04, atol=1e-3)
    assert any("times repaired" in warning for warning in ending.warnings)


def test_raw_stream_without_times_counts_frames(make_clip):
    path = make_clip("a.h264", noise(30, 48, 64), options=(*H264, "-bf", "0"))
    _, time_s, _ = read_frames(probe(path))
    assert len(time_s) == 30
    np.testing.assert_allclose(time_s, np.arange(30) / 25, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "share", "sign"),
    [
        ("a.mp4", ("-c:v", "mpeg4", "-movflags", "+faststart"), 0.6, True),
        pytest.param("a.mkv", H264, 0.6, True, marks=pytest.mark.slow),
        pytest.param("a.webm", ("-c:v", "libvpx", "-deadline", "realtime"), 0.6, True, marks=pytest.mark.slow),
        ("a.avi", ("-c:v", "mjpeg"), 0.6, True),
        pytest.param("a.flv", ("-c:v", "flv"), 0.6, True, marks=pytest.mark.slow),
        ("a.mpg", ("-c:v", "mpeg1video"), 0.6, True),
    ],
)
def test_a_cut_file_is_truncated_and_a_whole_one_is_not(make_clip, tmp_path, name, options, share, sign):
    whole = make_clip(name, noise(75, 120, 160), options=options)
    _, whole_s, ending = read_frames(probe(whole))
    assert not ending.truncated
    data = whole.read_bytes()
    cut = tmp_path / name
    cut.write_bytes(data[: int(len(data) * share)])
    _, time_s, ending = read_frames(probe(cut))
    assert ending.truncated == sign
    assert 20 < len(time_s) < 70
    np.testing.assert_allclose(time_s[:-2], whole_s[: len(time_s) - 2], atol=1e-6)


def test_ffmpeg_that_crashes_in_mid_frame_leaves_whole_frames(make_clip, nothing_left):
    info = probe(make_clip("a.mkv", noise(400, 120, 160), options=("-c:v", "ffv1")))
    before = set(children())
    with FrameReader(info, batch_frames=8) as frames:
        batches = iter(frames)
        count = len(next(batches).time_s)
        (ffmpeg,) = set(children()) - before
        os.kill(ffmpeg, signal.SIGSEGV)
        rest = list(batches)
    count += sum(len(batch.time_s) for batch in rest)
    assert 8 <= count < 400
    assert frames.ending.truncated
    assert "ffmpeg ended with -11" in frames.ending.warnings


def test_early_close_leaves_nothing(plain, nothing_left):
    info = probe(plain)
    with FrameReader(info, batch_frames=2) as frames:
        next(iter(frames))
    with AudioReader(info) as audio:
        pass
    with pytest.raises(RuntimeError, match="not read to its end"):
        _ = frames.ending
    with pytest.raises(RuntimeError, match="not read to its end"):
        audio.real_spans()
    with pytest.raises(KeyError), FrameReader(info) as frames:
        raise KeyError(next(iter(frames)))


def test_memory_of_sound_is_that_of_a_block(make_clip):
    """Five minutes: 19 MB of samples are never all there."""
    options = ("-c:v", "mpeg4", "-c:a", "pcm_s16le")
    samples = np.zeros(300 * 16_000)
    info = probe(make_clip("a.mkv", noise(5, 16, 16), samples=samples, rate_hz=16_000, options=options))
    tracemalloc.start()
    with AudioReader(info) as audio:
        total = sum(len(block) for block in audio)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == len(samples)
    assert peak < 4e6


def test_a_slow_consumer_is_not_a_stall(plain, nothing_left):
    with FrameReader(probe(plain), batch_frames=10, stall_timeout_s=2.0) as frames:
        count = 0
        for batch in frames:
            count += len(batch.time_s)
            time.sleep(2.5 if count == 10 else 0)
    assert count == 50


def test_a_stalled_input_is_ended(make_clip, tmp_path, nothing_left):
    """A pipe that gives the beginning of a clip and then nothing, as a network disk that hangs."""
    samples = np.zeros(3 * 16_000)
    options = ("-c:v", "ffv1", "-c:a", "pcm_s16le")
    clip = make_clip("a.mkv", noise(75, 48, 64), samples=samples, rate_hz=16_000, options=options)
    for reader, stage in ((FrameReader, "video"), (AudioReader, "audio")):
        pipe = tmp_path / f"{stage}.mkv"
        os.mkfifo(pipe)
        done = threading.Event()
        feeder = threading.Thread(target=feed_beginning, args=(clip, pipe, done))
        feeder.start()
        began_s = time.monotonic()
        info = replace(probe(clip), path=pipe)
        with (
            pytest.raises(MediaError, match=r"nothing for 0.5 s") as error,
            reader(info, stall_timeout_s=0.5) as opened,
        ):
            list(opened)
        assert time.monotonic() - began_s < 10
        assert error.value.stage == stage
        done.set()
        feeder.join()


@pytest.fixture(scope="module")
def long_one(make_clip):
    """Longer than what ffmpeg has written before it is ended."""
    samples = np.zeros(60 * 16_000)
    return probe(make_clip("a.mkv", noise(900, 48, 64), samples=samples, rate_hz=16_000, options=("-c:v", "ffv1")))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["asked to end", "killed"])
@pytest.mark.parametrize("reader", [FrameReader, AudioReader])
def test_an_ffmpeg_that_somebody_ends_says_nothing_of_the_file(long_one, nothing_left, reader, number):
    """As a system short of memory does: the rows so far are not a truncated video."""
    info = long_one
    before = set(children())
    with reader(info) as opened:
        blocks = iter(opened)
        next(blocks)
        (ffmpeg,) = set(children()) - before
        os.kill(ffmpeg, number)
        with pytest.raises(MediaError, match=rf"from outside by {number.name}") as error:
            list(blocks)
    assert error.value.is_transient


def feed_beginning(clip: Path, pipe: Path, done: threading.Event) -> None:
    """As much as a pipe holds, opened in a way that waits for no reader: it may be ended before it comes to open it."""
    with open(os.open(pipe, os.O_RDWR), "wb", buffering=0) as out:
        out.write(clip.read_bytes()[:60_000])
        done.wait(20)


def test_a_picture_that_cannot_be_decoded(plain, tmp_path, nothing_left):
    data = plain.read_bytes()
    begin = data.index(b"mdat") + 4
    (tmp_path / "a.mp4").write_bytes(data[:begin] + bytes(len(data) - begin))
    with pytest.raises(MediaError, match="not one frame could be decoded") as error:
        read_frames(replace(probe(plain), path=tmp_path / "a.mp4"))
    assert (error.value.stage, error.value.path) == ("video", str(tmp_path / "a.mp4"))


def test_sound_that_cannot_be_decoded(make_clip, tmp_path, nothing_left):
    samples = np.random.default_rng(0).standard_normal(44_100) * 0.1
    options = ("-c:v", "mpeg4", "-c:a", "flac")
    clip = make_clip("a.mkv", noise(25, 48, 64), samples=samples, options=options)
    data = clip.read_bytes()
    info = probe(clip)
    broken = tmp_path / "a.mkv"
    broken.write_bytes(data.replace(b"\xff\xf8", b"\x00\x00"))
    with pytest.raises(MediaError, match="not one frame could be decoded") as error:
        read_audio(replace(info, path=broken))
    assert error.value.stage == "audio"


@pytest.mark.parametrize(
    "name",
    [
        *("-v.mp4", "a:b.mp4", "two\nlines.mp4"),
        *(
            pytest.param(each, marks=pytest.mark.slow)
            for each in ("with space.mp4", "日本 é.mp4", "%05d.mp4", "a'\".mp4")
        ),
    ],
)
def test_awkward_names(plain, tmp_path, name, monkeypatch):
    shutil.copy(plain, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert len(read_frames(probe(name))[1]) == 50


def test_a_name_that_is_not_utf8(plain, tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4")
    shutil.copy(plain, path)
    assert len(read_frames(probe(path))[1]) == 50
    assert len(read_audio(probe(path))[0]) > 30_000


def test_probe_says_what_the_file_says(plain):
    info = probe(plain)
    assert (info.path, info.container, info.width_px, info.height_px) == (plain, "mov", 160, 120)
    assert (info.fps, info.video_start_s, info.audio_start_s, info.origin_s) == (Fraction(25), 0.0, 0.0, 0.0)
    assert info.duration_s == pytest.approx(2.0)


def test_cover_pictures_are_not_video(plain, ffmpeg_run, tmp_path):
    ffmpeg_run("-i", plain, "-frames:v", 1, tmp_path / "cover.jpg")
    cover = ["-i", tmp_path / "cover.jpg", "-map", 1, "-map", 0, "-c", "copy", "-disposition:v:0", "attached_pic"]
    ffmpeg_run("-i", plain, *cover, tmp_path / "both.mp4")
    assert len(read_frames(probe(tmp_path / "both.mp4"))[1]) == 50
    only = ["-i", tmp_path / "cover.jpg", "-map", 0, "-map", "1:a", "-c", "copy", "-disposition:v:0", "attached_pic"]
    ffmpeg_run(*only[:2], "-i", plain, *only[2:], tmp_path / "song.mp4")
    with pytest.raises(MediaError, match="no video stream"):
        probe(tmp_path / "song.mp4")


def test_what_is_not_a_video_is_refused(tmp_path, write_wav):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("hello\n" * 50)
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "folder.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    write_wav(tmp_path / "sound.wav", np.zeros(1000), 16_000)
    for name, words in {
        "empty.mp4": "is empty",
        "text.mp4": "cannot be read as a video|not a video container",
        "noise.mp4": "cannot be read as a video|not a video container",
        "folder.mp4": "is not a file|Is a directory",
        "missing.mp4": "No such file",
        "sound.wav": "no video stream",
    }.items():
        with pytest.raises(MediaError, match=words) as error:
            probe(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)
        assert error.value.stage == "probe"
        again = pickle.loads(pickle.dumps(error.value))
        assert (again.path, again.stage, again.words) == (error.value.path, error.value.stage, error.value.words)


@pytest.mark.parametrize(
    ("width", "height", "words"), [(8193, 8193, "more than 2.26 px"), (0, 0, "without a frame size")]
)
def test_absurd_frame_sizes_are_refused(width, height, words):
    stream = {"index": 0, "codec_type": "video", "width": width, "height": height, "time_base": "1/25"}
    with pytest.raises(MediaError, match=words):
        video_info(Path("/a.mp4"), {}, Streams(stream, None, "v:0", None), {}, hard_to_probe=False, from_key=False)


@pytest.fixture
def listener():
    """A local server that counts who calls."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize("target", ["/etc/hostname", "http://127.0.0.1:{port}/a.ts", "file:/etc/hostname"])
@pytest.mark.parametrize("suffix", ["m3u8", "avi", "mp4", "mkv"])
def test_playlists_reach_nothing(tmp_path, listener, suffix, target):
    url = target.format(port=listener.getsockname()[1])
    head = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:5\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:5,"
    hls = f"{head}\n{url}\n#EXT-X-ENDLIST\n"
    for name, text in (("hls", hls), ("concat", f"ffconcat version 1.0\nfile '{url}'\n")):
        path = tmp_path / f"{name}.{suffix}"
        path.write_text(text)
        with pytest.raises(MediaError, match=r"playlists are refused|cannot be read|not a video container"):
            probe(path)


def test_a_playlist_is_called_one(tmp_path):
    (tmp_path / "a.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n/etc/hostname\n#EXT-X-ENDLIST\n")
    (tmp_path / "b.txt").write_text("ffconcat version 1.0\nfile /etc/hostname\n")
    for name in ("a.m3u8", "b.txt"):
        with pytest.raises(MediaError, match="playlists are refused, give the media file itself"):
            probe(tmp_path / name)


def test_missing_ffmpeg_says_how_to_get_it(plain, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MediaError, match="apt-get install ffmpeg"):
        probe(plain)


def test_a_gap_in_the_sound_is_silence(make_clip, ffmpeg_run, tmp_path):
    """Packets of one second are lost: what follows stays at its time."""
    samples = np.sin(np.arange(6 * 16_000) * 0.3) * 0.5
    options = ("-c:v", "mpeg4", "-c:a", "aac")
    clip = make_clip("a.mkv", noise(150, 48, 64), samples=samples, rate_hz=16_000, options=options)
    lossy = ["-bsf:a", "noise=drop=gt(pts\\,2000)*lt(pts\\,3000)", "-c", "copy"]
    ffmpeg_run("-i", clip, *lossy, tmp_path / "gap.mkv")
    _, whole_spans, _ = read_audio(probe(clip))
    sound, spans, ending = read_audio(probe(tmp_path / "gap.mkv"))
    assert len(whole_spans) == 1
    assert len(spans) == 2
    assert spans[0][1] == pytest.approx(2.0, abs=0.08)
    assert spans[1][0] == pytest.approx(3.0, abs=0.08)
    quiet = sound[int(spans[0][1] * 16_000) + 100 : int(spans[1][0] * 16_000) - 100]
    assert not quiet.any()
    assert any("moved" in warning for warning in ending.warnings)
    assert len(sound) / 16_000 == pytest.approx(whole_spans[0][1], abs=0.005)


def test_left_and_right_are_averaged_for_every_codec(make_clip):
    loud = np.sin(np.arange(32_000) * 0.2) * 0.8
    for codec in ("pcm_s16le", "pcm_f32le", "aac"):
        options = ("-c:v", "mpeg4", "-c:a", codec)
        samples = np.stack([loud, loud], axis=1)
        clip = make_clip("a.mkv", noise(50, 48, 64), samples=samples, rate_hz=16_000, options=options)
        sound, _, _ = read_audio(probe(clip))
        assert np.abs(sound[4000:-4000]).max() == pytest.approx(0.8, abs=0.02)


def test_samples_that_are_not_numbers_are_zero(make_clip, tmp_path):
    samples = np.full(16_000, 0.25)
    options = ("-c:v", "mpeg4", "-c:a", "pcm_f32le")
    clip = make_clip("a.avi", noise(25, 48, 64), samples=samples, rate_hz=16_000, options=options)
    quarter = np.float32(8191 / 32768).tobytes()
    data = clip.read_bytes()
    (tmp_path / "nan.avi").write_bytes(data.replace(quarter * 100, np.float32(np.nan).tobytes() * 100, 1))
    sound, _, ending = read_audio(probe(tmp_path / "nan.avi"))
    assert np.isfinite(sound).all()
    assert any("not a number" in warning for warning in ending.warnings)


def test_the_program_in_use():
    assert ffmpeg_version()[0].isalnum()
    assert "h264" in decoders()


def test_sound_is_read_as_far_as_it_is_wanted(make_clip, nothing_left):
    samples = np.sin(np.arange(60 * 16_000) * 0.3)
    options = ("-c:v", "mpeg4", "-c:a", "pcm_s16le")
    info = probe(make_clip("a.mkv", noise(5, 16, 16), samples=samples, rate_hz=16_000, options=options))
    whole, _, _ = read_audio(info)
    with AudioReader(info, until_s=5.0) as audio:
        sound = np.concatenate(list(audio))
    assert 5 * 16_000 <= len(sound) < 20 * 16_000
    np.testing.assert_array_equal(sound, whole[: len(sound)])
    assert audio.real_spans() == [(0.0, len(sound) / 16_000)]
    assert not audio.ending.truncated


def test_what_a_child_may_take_is_bounded(plain):
    resource = pytest.importorskip("resource")
    if not hasattr(resource, "prlimit"):
        pytest.skip("only Linux limits a process from outside")
    before = set(children())
    with FrameReader(probe(plain)) as frames:
        (pid,) = set(children()) - before
        assert resource.prlimit(pid, resource.RLIMIT_DATA) == (MOST_MEMORY_BYTES, MOST_MEMORY_BYTES)
        assert sum(len(batch.time_s) for batch in frames) == 50


def test_an_endless_answer_is_cut(monkeypatch, tmp_path):
    """A program that never stops talking, on both pipes."""
    script = tmp_path / "ffprobe"
    script.write_text("#!/bin/sh\nwhile :; do echo $PATH$PATH$PATH$PATH; echo complaint >&2; done\n")
    script.chmod(0o755)
    (tmp_path / "a.mp4").write_bytes(b"x")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(MediaError, match="printed more than 16 MiB"):
        probe(tmp_path / "a.mp4")


def test_a_disk_that_hangs_while_packets_are_looked_through(make_clip, monkeypatch, tmp_path, nothing_left):
    """An ffprobe that answers what the file is and then waits for its packets for ever."""
    clip = make_clip("a.mkv", noise(25, 48, 64), samples=np.zeros(16_000), rate_hz=16_000, options=("-c:v", "mpeg4"))
    script = tmp_path / "ffprobe"
    script.write_text(f'#!/bin/sh\ncase "$*" in *packet=*) exec sleep 60;; esac\nexec {shutil.which("ffprobe")} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(MediaError, match=r"gave nothing for 0.5 s") as error:
        probe(clip, stall_timeout_s=0.5)
    assert error.value.is_transient


def test_a_probe_that_hangs_is_ended(monkeypatch, tmp_path):
    script = tmp_path / "ffprobe"
    script.write_text("#!/bin/sh\nexec sleep 60\n")
    script.chmod(0o755)
    (tmp_path / "a.mp4").write_bytes(b"x")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("avfuse.pipeline.media.process._TIMEOUT_S", 0.5)
    with pytest.raises(MediaError, match=r"ffprobe took more than 0.5 s"):
        probe(tmp_path / "a.mp4")
