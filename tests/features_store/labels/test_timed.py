import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avfuse.features_store.labels import timed as timed_labels
from avfuse.features_store.labels.timed import (
    BEYOND_S,
    BEYOND_SHARE,
    TimedLabels,
    at_frames,
    check_reach,
    is_timed,
    read_timed,
)

HEADER = "time,valence,arousal\n"
fuzz = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
labels_in_range = st.floats(-1, 1)


def write(folder, rows, header=HEADER):
    path = folder / "clip.csv"
    path.write_bytes(rows if isinstance(rows, bytes) else (header + rows).encode())
    return path


def timed(time_s, values, masked=()):
    values = np.array(values, float).reshape(len(time_s), -1) * np.ones((1, 2))
    valid = ~np.isin(np.arange(len(time_s)), masked)
    return TimedLabels("clip", np.array(time_s, float), np.where(valid[:, None], values, -5), valid)


def test_a_file(tmp_path):
    path = write(tmp_path, "0,0.5,-1\n0.04, .25 ,1\n0.08,-5,0\n0.12,,0\n1e0,0,\n")
    labels = read_timed(path)
    assert labels.trial == "clip"
    assert labels.time_s.tolist() == [0, 0.04, 0.08, 0.12, 1]
    assert labels.values.tolist() == [[0.5, -1], [0.25, 1], [-5, 0], [-5, 0], [0, -5]]
    assert labels.valid.tolist() == [True, True, False, False, False]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbftime,valence,arousal\r\n0,0,0\r\n1,1,1\r\n",
        b"time, valence, arousal\n0, 0, 0\n1, 1, 1",
        b"time,valence,arousal\n0,0,0\n1,1,1\n\n\r\n",
    ],
)
def test_tolerated(tmp_path, content):
    path = write(tmp_path, content)
    assert is_timed(path)
    assert read_timed(path).values.tolist() == [[0, 0], [1, 1]]


@pytest.mark.parametrize(
    ("rows", "line", "word"),
    [
        ("", 1, "no row follows"),
        ("0,0,0\n0,0,0\n", 3, "does not rise"),
        ("0,0,0\n1,0,0\n0.5,0,0\n", 4, "does not rise; the row before has 1.0 s"),
        ("0,0\n", 2, "three numbers 'time,valence,arousal'"),
        ("0,0,0,0\n", 2, "three numbers"),
        (",0,0\n", 2, "three numbers"),
        ("0,0,0\n\n1,0,0\n", 3, "three numbers"),
        ("nan,0,0\n", 2, "three numbers"),
        ("inf,0,0\n", 2, "three numbers"),
        ("1e999,0,0\n", 2, "not a time of a video"),
        ("-1e999,0,0\n", 2, "not a time of a video"),
        ("0,nan,0\n", 2, "three numbers"),
        ("0,0,1.01\n", 2, "neither in"),
        ("0,-5,3\n", 2, "neither in"),
        ("0,x,\n", 2, "three numbers"),
    ],
)
def test_errors_name_file_and_line(tmp_path, rows, line, word):
    with pytest.raises(ValueError, match=rf"clip\.csv:{line}: .*{word}"):
        read_timed(write(tmp_path, rows))


@pytest.mark.parametrize("header", ["time,arousal,valence", "Time,valence,arousal", "t,valence,arousal", "", "0,0,0"])
def test_headers_that_are_accepted_are_named(tmp_path, header):
    with pytest.raises(ValueError, match=r"clip\.csv:1: .*'valence,arousal' or 'time,valence,arousal'"):
        is_timed(write(tmp_path, "\n0,0,0\n", header))


def test_frame_labels_are_not_timed(tmp_path):
    assert not is_timed(write(tmp_path, "0,0\n", "valence,arousal\r\n"))


@settings(deadline=None)
@given(
    slope=st.floats(-0.5, 0.5),
    rate_hz=st.floats(4, 120),
    frames=st.lists(st.floats(0, 1), min_size=1, max_size=40),
)
def test_linear_functions_are_reproduced(slope, rate_hz, frames):
    time_s = np.arange(80) / rate_hz
    line = 0.25 + slope * time_s / time_s[-1]
    frames_s = np.sort(frames) * time_s[-1]
    track = at_frames(timed(time_s, line), frames_s)
    assert track.valid.all()
    assert track.values.dtype == np.float32
    np.testing.assert_allclose(track.values[:, 0], 0.25 + slope * frames_s / time_s[-1], atol=2e-6)


@settings(deadline=None)
@given(
    samples=st.lists(
        st.tuples(st.integers(-999, 999).map(lambda ms: ms / 1000), labels_in_range, st.booleans()),
        min_size=1,
        unique_by=lambda sample: sample[0],
    ),
    frames=st.lists(
        st.floats(-1, 1) | st.sampled_from([1e300, -1e300]) | st.integers(-999, 999).map(lambda ms: ms / 1000),
        max_size=30,
    ),
)
def test_values_lie_between_valid_neighbours(samples, frames):
    time_s, values, masked = zip(*sorted(samples), strict=True)
    labels = timed(time_s, values, masked=np.flatnonzero(masked))
    track = at_frames(labels, np.array(frames))
    assert (track.values[~track.valid] == -5).all()
    known = dict(zip(time_s, zip(values, masked, strict=True), strict=True))
    for frame, (value, _), valid in zip(frames, track.values, track.valid, strict=True):
        if frame in known:
            assert valid == (not known[frame][1])
            assert not valid or value == np.float32(known[frame][0])
        elif valid:
            before = [sample for sample in known if sample < frame + 1e-6][-1:]
            after = [sample for sample in known if sample > frame - 1e-6][:1]
            near = np.array([known[sample][0] for sample in (*before, *after) if not known[sample][1]], np.float32)
            assert near.min() <= value <= near.max()


@settings(deadline=None)
@given(
    samples=st.lists(st.tuples(st.floats(0, 10), labels_in_range, st.booleans()), min_size=1, unique_by=lambda s: s[0])
)
def test_samples_give_themselves(samples):
    time_s, values, masked = zip(*sorted(samples), strict=True)
    track = at_frames(timed(time_s, values, masked=np.flatnonzero(masked)), np.array(time_s))
    assert track.valid.tolist() == [not each for each in masked]
    assert (track.values[track.valid, 0] == np.array(values, np.float32)[track.valid]).all()


def test_outside_of_the_samples_is_masked():
    track = at_frames(timed([1, 1.1, 1.2], [0, 0, 0]), np.array([0.9, 0.999, 1, 1.2, 1.2000005, 1.21]))
    assert track.valid.tolist() == [False, False, True, True, True, False]


def test_a_masked_sample_masks_up_to_its_valid_neighbours():
    labels = timed(np.arange(5) / 10, [0.1, 0.2, 0, 0.4, 0.5], masked=[2])
    track = at_frames(labels, np.array([0.05, 0.1, 0.11, 0.2, 0.29, 0.3, 0.35]))
    assert track.valid.tolist() == [True, True, False, False, False, True, True]


@pytest.mark.parametrize(
    ("step_s", "gap_s", "masked"), [(0.04, 0.25, False), (0.04, 0.26, True), (1, 2.5, False), (1, 2.6, True)]
)
def test_gaps_are_masked(step_s, gap_s, masked):
    first = np.arange(20) * step_s
    time_s = np.concatenate([first, first[-1] + gap_s + first])
    within_s = np.linspace(first[-1], first[-1] + gap_s, 5)
    track = at_frames(timed(time_s, np.zeros(40)), within_s)
    assert track.valid.tolist() == [True, *[not masked] * 3, True]


def test_one_sample():
    assert at_frames(timed([0.5], [0.3]), np.array([0, 0.5, 1])).valid.tolist() == [False, True, False]


def test_what_is_checked():
    with pytest.raises(ValueError, match="not a finite number"):
        at_frames(timed([0], [0]), np.array([0, np.nan]))
    with pytest.raises(ValueError, match="must rise"):
        timed([0, 0], [0, 0])
    with pytest.raises(ValueError, match="2 times"):
        TimedLabels("a", np.arange(2.0), np.zeros((3, 2)), np.ones(2, bool))


def outcome(path):
    """What a reader makes of a file: its numbers, or its words."""
    try:
        labels = read_timed(path)
    except ValueError as error:
        assert f"{path}:" in str(error)  # noqa: PT017 - either is right
        return str(error)
    assert (np.abs(labels.values[labels.valid]) <= 1).all()
    return labels.time_s.tolist(), labels.values.tolist(), labels.valid.tolist()


@fuzz
@given(content=st.binary(max_size=200))
def test_fuzz_bytes(tmp_path, content):
    outcome(write(tmp_path, content))
    outcome(write(tmp_path, HEADER.encode() + content))


@settings(fuzz, max_examples=300)
@given(
    rows=st.lists(
        st.lists(
            st.sampled_from(["0", "-5", "1", "", ".5", " 0.25", "1e9", "1e999", "nan"])
            | st.floats().map(repr)
            | st.text("0123456789.+-eE \t\r_,", max_size=4),
            min_size=3,
            max_size=3,
        ),
        max_size=5,
    ),
    rising=st.booleans(),
)
def test_the_quick_way_is_the_slow_way(tmp_path, rows, rising):
    if rising:
        rows = [[str(index), *row[1:]] for index, row in enumerate(rows)]
    path = write(tmp_path, "\n".join(map(",".join, rows)))
    quick = outcome(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timed_labels, "plain_numbers", lambda *_: None)
        assert outcome(path) == quick


class TestReach:
    """Labels far beyond the video are of another clock."""

    TIMES_S = np.arange(150) / 25  # to 5.96 s

    def labels(self, time_s, valid=None):
        count = len(time_s)
        return TimedLabels(
            "clip", np.asarray(time_s, float), np.zeros((count, 2)), np.ones(count, bool) if valid is None else valid
        )

    @pytest.mark.parametrize(
        ("time_s", "message"),
        [
            (np.arange(12) * 500.0, "labels reach 5500 s, the video ends at 5.96 s"),  # ms
            (np.arange(150.0), "labels reach 149 s, the video ends at 5.96 s"),  # frame numbers
            (np.arange(12) / 2 + 100, "labels reach 105.5 s, the video ends at 5.96 s"),
            (np.arange(12) / 2 - 100, "labels begin at -100 s, the video begins at 0 s"),
        ],
    )
    def test_is_an_error_with_both_numbers(self, time_s, message):
        with pytest.raises(ValueError, match=f"clip: {message}: is `time` in seconds"):
            check_reach(self.labels(time_s), self.TIMES_S)

    def test_a_little_beyond_is_as_it_should_be(self):
        check_reach(self.labels([0, 5, 5.96 + BEYOND_S]), self.TIMES_S)
        hour_s = np.arange(0, 3600, 0.5)
        check_reach(self.labels([0, 3599.5 * (1 + 0.99 * BEYOND_SHARE)]), hour_s)
        with pytest.raises(ValueError, match=r"labels reach 3700 s, the video ends at 3599\.5 s"):
            check_reach(self.labels([100, 3700]), hour_s)

    def test_masked_samples_and_videos_that_end_early_do_not_count(self):
        check_reach(self.labels([0, 5, 5500], np.array([True, True, False])), self.TIMES_S)
        check_reach(self.labels([0, 5, 60]), self.TIMES_S, ends_early=True)
