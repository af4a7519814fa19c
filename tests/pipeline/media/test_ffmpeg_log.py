import io
import threading

import pytest

from avfuse.pipeline.media.ffmpeg_log import END_FRAMES, Log, Stamp

SHOWINFO = "[Parsed_showinfo_0 @ 0x55bd97c23ec0] [info] "
CONFIG = SHOWINFO + "config in time_base: 1/12800, frame_rate: 25/1"
FRAME_5_1 = SHOWINFO + "n:{n:4d} pts:{pts:>7} pts_time:0.28    pos:    32501 fmt:yuv420p sar:0/1 s:96x54 i:P"
FRAME_7 = SHOWINFO + "n:{n:4d} pts:{pts:>7} pts_time:0.28    duration:    512 duration_time:0.04 fmt:yuv420p"
SOUND = "[Parsed_ashowinfo_1 @ 0x55] [info] n:{n} pts:{pts} pts_time:1 pos:4 fmt:fltp channels:2 chlayout:stereo "
SOUND += "rate:44100 nb_samples:1024 checksum:469E48F8 plane_checksums: [ B8DD288A ]"


def log_of(*lines: str) -> Log:
    log = Log()
    log.follow(io.BytesIO("\n".join([*lines, ""]).encode()))
    return log


def test_times_beyond_all_clocks_are_no_times():
    assert Stamp(1 << 62, 1 << 30, 1).time_s is None
    assert Stamp(1_700_000_000, 1, 1).time_s == 1.7e9  # a wall clock


@pytest.mark.parametrize("frame", [FRAME_5_1, FRAME_7])
def test_integer_times_of_frames(frame):
    log = log_of(CONFIG, frame.format(n=0, pts=-512), frame.format(n=1, pts="NOPTS"), frame.format(n=2, pts=10**12))
    assert list(log.stamps) == [Stamp(-512, 1, 12800), Stamp(None, 1, 12800), Stamp(10**12, 1, 12800)]
    assert [stamp.time_s for stamp in log.stamps] == [-0.04, None, 78125000.0]
    assert log.ended


def test_audio_frames_carry_their_length():
    (stamp,) = log_of(SOUND.format(n=0, pts=107164)).stamps
    assert stamp == Stamp(107164, 1, 44100, 1024)
    assert stamp.num_samples * stamp.tick_s == pytest.approx(1024 / 44100)


def sound(n: int, pts: int, rate_hz: int) -> str:
    return SOUND.format(n=n, pts=pts).replace("rate:44100", f"rate:{rate_hz}").replace("samples:1024", "samples:1152")


@pytest.mark.parametrize("shift_s", [0, 1])
@pytest.mark.parametrize("begins", [115871, 115973])  # the reader may guess the next time from the former rate
def test_a_rate_that_is_noticed_a_frame_late(shift_s, begins):
    """MP2's decoder: the first frame of 48 kHz is still called one of 44.1 kHz, its time is in ticks of 48 kHz."""
    log = Log(shift_s)
    for line in (sound(0, 191759, 44100), sound(1, 114719, 44100), sound(0, begins, 48000)):
        log.feed(line.encode())
    times = [stamp.time_s for stamp in log.stamps]
    assert times == pytest.approx(
        [191759 / 44100 - shift_s, 114719 / 48000 - shift_s, begins / 48000 - shift_s], abs=2e-5
    )
    assert log.stamps[1].num_samples * log.stamps[1].tick_s == pytest.approx(1152 / 44100)  # as the resampler takes it


def test_a_rate_that_is_noticed_in_time():
    frames = [(0, 88200, 44100), (0, round((88200 + 1152) / 44100 * 48000), 48000), (0, 90000, 44100)]
    log = log_of(*(sound(*frame) for frame in frames))
    assert [stamp.pts for stamp in log.stamps] == [pts for _, pts, _ in frames]


def test_the_newest_stamp_of_sound_waits_for_the_line_after_it():
    log = Log()
    for n in range(3):
        log.feed(SOUND.format(n=n, pts=1024 * n).encode())
    assert [stamp.pts for stamp in log.take()] == [0, 1024]
    assert log.take() == []
    log.ended = True
    assert [stamp.pts for stamp in log.take()] == [2048]
    log = Log()
    log.feed(CONFIG.encode())
    log.feed(FRAME_5_1.format(n=0, pts=0).encode())
    assert len(log.take()) == 1


def test_filters_built_anew_count_from_zero_again():
    frames = [FRAME_5_1.format(n=n, pts=n) for n in (0, 1)]
    log = log_of(CONFIG, *frames, CONFIG.replace("12800", "90000"), *frames)
    assert [(stamp.pts, stamp.den) for stamp in log.stamps] == [(0, 12800), (1, 12800), (0, 90000), (1, 90000)]


def test_a_torn_line_leaves_its_frame_without_a_time():
    torn = "[h264 @ 0x55] [error] half a word n:   1 pts:  512 pts_time:0.04"
    log = log_of(CONFIG, FRAME_5_1.format(n=0, pts=0), torn, FRAME_5_1.format(n=2, pts=1024))
    assert [stamp.pts for stamp in log.stamps] == [0, None, 1024]


def test_metadata_cannot_speak_for_a_filter():
    log = log_of(
        "[info]     title           : " + FRAME_5_1.format(n=0, pts=1), "    : " + FRAME_5_1.format(n=0, pts=1)
    )
    assert not log.stamps


def test_damage_belongs_to_the_end_or_it_does_not():
    damage = "[mov,mp4 @ 0x55] [error] stream 0, offset 0x3cb4b: partial file"
    frames = [FRAME_5_1.format(n=n, pts=n) for n in range(END_FRAMES + 20)]
    assert log_of(CONFIG, *frames, damage).ended_in_damage()
    assert log_of(CONFIG, *frames[:-5], damage, *frames[-5:]).ended_in_damage()
    assert not log_of(CONFIG, *frames[:10], damage, *frames[10:]).ended_in_damage()
    assert not log_of(damage, CONFIG, *frames[:3]).ended_in_damage()
    assert log_of(CONFIG, *frames[:10], damage, *frames[10:]).damage() == (
        "mov,mp4: stream 0, offset 0x3cb4b: partial file",
    )


def test_complaints_about_our_own_output_are_not_damage():
    ours = "[null @ 0x55] [error] Application provided invalid, non monotonically increasing dts to muxer"
    log = log_of(CONFIG, FRAME_5_1.format(n=0, pts=0), ours, "[swscaler @ 0x5] [warning] deprecated pixel format used")
    assert not log.ended_in_damage()
    assert log.damage() == ()


def test_words_are_bounded_and_without_addresses():
    log = log_of(*(f"[h264 @ 0x{n:x}] [error] broken {n}" for n in range(10_000)))
    assert log.words().endswith("h264: broken 9999")
    assert "0x" not in log.words()
    assert len(log.damage()) < 100


def test_a_line_without_an_end_is_cut():
    log = Log()
    log.follow(io.BytesIO(b"x" * (1 << 18)))
    assert log.ended


def test_a_waiting_reader_is_woken_at_the_end():
    log = Log()
    thread = threading.Thread(target=log.follow, args=(io.BytesIO(b""),))
    with log.changed:
        thread.start()
        assert log.changed.wait_for(lambda: log.ended, timeout=5)
    thread.join()


@pytest.mark.parametrize(
    ("words", "good_after", "ended"),
    [
        ("[h264 @ 0x55] [error] error while decoding MB 5 6, bytestream -5", 1, True),
        ("[h264 @ 0x55] [error] error while decoding MB 5 6, bytestream -5", 6, False),
        ("[warning] a.ts: corrupt decoded frame in stream 0", 1, True),
        ("[warning] a.ts: corrupt decoded frame in stream 0", 6, False),
        ("[mpegts @ 0x55] [warning] Packet corrupt (stream = 0, dts = 39).", 6, False),  # one that was lost
        ("[avi @ 0x55] [warning] Packet corrupt (stream = 0, dts = 39).", 6, True),  # the file's last
        ("[matroska,webm @ 0x55] [error] File ended prematurely", 20, True),
        ("[h264 @ 0x55] [error] missing picture in access unit with size 10", 0, False),
        ("[mjpeg @ 0x55] [error] No JPEG data found in image", 0, False),
    ],
)
def test_only_an_early_end_is_one(words, good_after, ended):
    frames = [FRAME_5_1.format(n=n, pts=n) for n in range(80)]
    assert log_of(CONFIG, *frames[: 80 - good_after], words, *frames[80 - good_after :]).ended_in_damage() == ended


def test_shapes_of_frames_each_once():
    said = [
        f"n:{n:4d} pts:{n:>7} pts_time:1 pos:9 fmt:yuv420p {shape} i:P"
        for n, shape in enumerate(
            ["sar:0/1 s:96x54", "sar:1/1 s:96x54", "sar:4/3 s:96x54", "sar:1/1 s:54x96", "sar:1/1 s:96x54"]
        )
    ]
    assert list(log_of(CONFIG, *(SHOWINFO + each for each in said)).shapes) == [
        (96, 54, 1),
        (96, 54, 4 / 3),
        (54, 96, 1),
    ]


def test_how_loud_the_channels_were_part_by_part():
    loud = "[Parsed_astats_2 @ 0x55] [info] "
    log = log_of(
        loud + "RMS level dB: -20.0",
        loud + "Number of samples: 300",
        loud + "RMS level dB: -inf",
        loud + "Number of samples: 100",
    )
    assert log.channels_energy / log.channels_samples == pytest.approx(0.01 * 0.75)
