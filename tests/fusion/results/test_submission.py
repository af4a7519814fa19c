import time
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avfuse.fusion.results.submission import match_trials, read_sample, write_submission
from avfuse.fusion.tasks.table import TASKS

HEADER = TASKS["va"].submission_header

fuzz = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)


@pytest.fixture
def sample(tmp_path):
    """Write a sample of these lines; returns its path."""

    def write(*lines, header="image_location", end="\n"):
        path = tmp_path / "sample.txt"
        path.write_bytes(end.join([header, *lines, ""]).encode("utf-8", "surrogateescape"))
        return path

    return write


def rows_of(trial, numbers, more=""):
    return [f"{trial}/{number:05d}.jpg{more}" for number in numbers]


def ramp(rows, sign=1):
    return np.stack([np.arange(rows) / 1000, -sign * np.arange(rows) / 1000], axis=1)


def test_the_text(tmp_path, sample):
    path = sample(*rows_of("b", [1, 3]), *rows_of("a", [1, 2]))
    predictions = {"a": np.array([[0.1234567, -0.1], [2.0, -3.0]]), "b": np.array([[0, -1e-9], [0.5, 0.5], [1, 1]])}
    report = write_submission(tmp_path / "new" / "out.txt", path, predictions)
    assert (tmp_path / "new" / "out.txt").read_bytes() == (
        b"image_location,valence,arousal\n"
        b"b/00001.jpg,0.000000,0.000000\nb/00003.jpg,1.000000,1.000000\n"
        b"a/00001.jpg,0.123457,-0.100000\na/00002.jpg,1.000000,-1.000000\n"
    )
    assert (report.rows, report.trials, report.padded, report.trimmed, report.unused) == (4, 2, {}, {}, ())
    assert report.lines() == ["4 rows of 2 trials"]


@pytest.mark.parametrize("header", ["image_location", HEADER, "\ufeff" + HEADER, "image_location, valence, arousal"])
@pytest.mark.parametrize("more", ["", ",", ",,", ",-5,-5", ",0.1,0.2,x"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_forms_of_the_sample(tmp_path, sample, header, more, end):
    path = sample(*rows_of("a", [1, 2], more), "", header=header, end=end)
    report = write_submission(tmp_path / "out", path, {"a": ramp(2)})
    assert report.rows == 2
    assert (
        tmp_path / "out"
    ).read_text() == f"{HEADER}\na/00001.jpg,0.000000,0.000000\na/00002.jpg,0.001000,-0.001000\n"


@fuzz
@given(
    rows=st.lists(st.tuples(st.sampled_from(["a", "b/c", "ü é", "d\udcff"]), st.integers(1, 30)), min_size=1),
    digits=st.sampled_from([1, 5, 8]),
)
def test_rows_and_order_are_the_sample_s(tmp_path, sample, rows, digits):
    path = sample(*(f"{trial}/{number:0{digits}d}.jpg" for trial, number in rows))
    predictions = {trial: ramp(30, sign) for trial, sign in [("a", 1), ("b/c", -1), ("ü é", 1), ("d\udcff", -1)]}
    report = write_submission(tmp_path / "out", path, predictions, allow_length_difference=True)
    written = (tmp_path / "out").read_bytes().decode("utf-8", "surrogateescape").split("\n")
    expected = [
        f"{trial}/{number:0{digits}d}.jpg,{predictions[trial][number - 1, 0]:.6f},"
        f"{predictions[trial][number - 1, 1] + 0.0:.6f}"
        for trial, number in rows
    ]
    assert written[1:-1] == expected
    assert report.rows == len(rows)


@pytest.mark.parametrize(("rows", "padded", "trimmed"), [(8, 2, 0), (9, 1, 0), (10, 0, 0), (11, 0, 1), (12, 0, 2)])
def test_two_rows_more_or_less_are_fitted(tmp_path, sample, rows, padded, trimmed):
    path = sample(*rows_of("a", range(1, 11)))
    report = write_submission(tmp_path / "out", path, {"a": ramp(rows)})
    assert report.padded == ({"a": padded} if padded else {})
    assert report.trimmed == ({"a": trimmed} if trimmed else {})
    valence = [float(line.split(",")[1]) for line in (tmp_path / "out").read_text().splitlines()[1:]]
    assert valence == [min(i, rows - 1) / 1000 for i in range(10)]


@pytest.mark.parametrize("rows", [1, 7, 13, 500])
def test_more_needs_the_flag(tmp_path, sample, rows):
    path = sample(*rows_of("batch/a", range(1, 11)))
    with pytest.raises(ValueError, match=rf"batch/a \({rows} rows?, 10 in the sample\).*--allow-length-difference"):
        write_submission(tmp_path / "out", path, {"batch/a": ramp(rows)})
    assert not (tmp_path / "out").exists()
    report = write_submission(tmp_path / "out", path, {"batch/a": ramp(rows)}, allow_length_difference=True)
    assert report.rows == 10
    assert report.lines()[1].endswith(f"batch/a (+{10 - rows})" if rows < 10 else f"batch/a (-{rows - 10})")


def test_nothing_cannot_be_repeated(tmp_path, sample):
    path = sample(*rows_of("a", [1]))
    with pytest.raises(ValueError, match=r"predictions without a row to repeat: a \(0 rows, 1 in the sample\)"):
        write_submission(tmp_path / "out", path, {"a": np.zeros((0, 2))}, allow_length_difference=True)


def test_a_large_number_takes_no_memory(tmp_path, sample):
    path = sample("a/00001.jpg", "a/999999999.jpg")
    report = write_submission(tmp_path / "out", path, {"a": ramp(2)}, allow_length_difference=True)
    assert report.padded == {"a": 999_999_997}


def test_the_length_is_the_largest_number(tmp_path, sample):
    """Rows may be missing, and a trial's rows may lie apart."""
    path = sample(*rows_of("a", [7, 2]), *rows_of("b", [1]), *rows_of("a", [4]))
    write_submission(tmp_path / "out", path, {"a": ramp(7), "b": ramp(1)})
    valence = [float(line.split(",")[1]) for line in (tmp_path / "out").read_text().splitlines()[1:]]
    assert valence == [0.006, 0.001, 0, 0.003]


def test_missing_trials_are_counted_and_named(tmp_path, sample):
    path = sample(*(f"t{i}/00001.jpg" for i in range(9)))
    with pytest.raises(
        ValueError, match=r"no prediction for 8 of the sample's 9 trials: t1, t2, t3, t4, t5 and 3 more"
    ):
        write_submission(tmp_path / "out", path, {"t0": ramp(1)})
    assert not (tmp_path / "out").exists()


def test_matching():
    assert match_trials(["a"], ["batch1/a", "b"]) == {"a": "batch1/a"}
    assert match_trials(["a"], ["batch1/a", "a"]) == {"a": "a"}
    assert match_trials(["x/a"], ["x/a", "y/a"]) == {"x/a": "x/a"}
    with pytest.raises(ValueError, match=r"trial a fits 2 predictions: x/a, y/a"):
        match_trials(["a"], ["y/a", "x/a"])
    with pytest.raises(ValueError, match=r"no prediction for 1 .*: x/a"):
        match_trials(["x/a"], ["a"])


def test_matching_goes_by_the_last_part_of_a_path_alone():
    assert match_trials(["c"], ["a/b/c", "c/d"]) == {"c": "a/b/c"}
    with pytest.raises(ValueError, match=r"no prediction for 1 .*: b/c"):
        match_trials(["b/c"], ["a/b/c"])


def test_predictions_that_fit_alike_are_named_in_order():
    names = [f"{letter}/a" for letter in "hgfedcba"]
    with pytest.raises(ValueError, match=r"trial a fits 8 predictions: a/a, b/a, c/a, d/a, e/a and 3 more"):
        match_trials(["a"], names)


def test_five_names_are_shown_whole():
    with pytest.raises(ValueError, match=r"trial a fits 5 predictions: a/a, b/a, c/a, d/a, e/a$"):
        match_trials(["a"], [f"{letter}/a" for letter in "edcba"])


def test_the_folders_above_the_submission_are_made(tmp_path, sample):
    write_submission(tmp_path / "new" / "deep" / "out.txt", sample(*rows_of("a", [1])), {"a": ramp(1)})
    assert (tmp_path / "new" / "deep" / "out.txt").read_text() == f"{HEADER}\na/00001.jpg,0.000000,0.000000\n"


def test_unused_predictions_are_reported(tmp_path, sample):
    predictions = {"batch1/a": ramp(1), **{f"z{i}": ramp(4) for i in range(7)}}
    report = write_submission(tmp_path / "out", sample(*rows_of("a", [1])), predictions)
    assert report.unused == tuple(f"z{i}" for i in range(7))
    assert report.lines()[1] == "not in the sample, left out: z0, z1, z2, z3, z4 and 2 more"


def test_what_is_not_a_number_is_refused(tmp_path, sample):
    values = ramp(3)
    values[1] = np.nan
    with pytest.raises(ValueError, match="a: 1 of 3 rows not finite, the first is row 1"):
        write_submission(tmp_path / "out", sample(*rows_of("a", [1, 2, 3])), {"a": values})
    with pytest.raises(ValueError, match=r"an array \[T, 2\]"):
        write_submission(tmp_path / "out", sample(*rows_of("a", [1, 2, 3])), {"a": ramp(3)[:, :1]})


@pytest.mark.parametrize(
    "line",
    [
        "a/x.jpg",
        "a/00000.jpg",
        "00001.jpg",
        "a/-1.jpg",
        "/00001.jpg",
        "a/00001.jpg.bak",
        "",
        ",0,0",
        "a/1_0.jpg",
        "a/²",
    ],
)
def test_what_is_not_a_row(sample, line):
    path = sample("a/00001.jpg", line, "a/00003.jpg")
    with pytest.raises(ValueError, match=rf"{path}:3: a row is '<trial>/<number>.jpg'"):
        read_sample(path)


@pytest.mark.parametrize(
    "header", ["", "a/00001.jpg", "image_location,Neutral,Anger", "image_location,arousal,valence"]
)
def test_what_is_not_a_header(sample, header):
    path = sample("a/00001.jpg", header=header)
    with pytest.raises(ValueError, match=rf"{path}:1: the first line of a sample is"):
        read_sample(path)


@pytest.mark.parametrize("content", [b"", b"\n", HEADER.encode(), f"{HEADER}\n\n".encode()])
def test_an_empty_sample(tmp_path, content):
    path = tmp_path / "sample.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{path}:1: "):
        read_sample(path)


def test_the_sample_is_not_overwritten(tmp_path, sample):
    path = sample(*rows_of("a", [1]))
    with pytest.raises(ValueError, match="is the organiser's sample"):
        write_submission(path, path, {"a": ramp(1)})
    with pytest.raises(FileNotFoundError):
        write_submission(tmp_path / "out", tmp_path / "none.txt", {"a": ramp(1)})


class Lazy(Mapping[str, np.ndarray]):
    """Predictions that are read when they are asked for."""

    def __init__(self, rows):
        self.rows, self.asked = rows, []

    def __getitem__(self, trial):
        self.asked.append(trial)
        return np.zeros((self.rows[trial], 2), np.float32)

    def __iter__(self):
        return iter(self.rows)

    def __len__(self):
        return len(self.rows)


def test_real_size(tmp_path, sample):
    lengths = {f"{i}-30-1280x720": 1000 for i in range(100)}
    path = sample(*(row for trial, rows in lengths.items() for row in rows_of(trial, range(1, rows + 1))))
    predictions = Lazy({f"batch1/{trial}": rows + 1 for trial, rows in lengths.items()})
    start_s = time.perf_counter()
    report = write_submission(tmp_path / "out", path, predictions)
    assert time.perf_counter() - start_s < 5
    assert report.rows == 100_000
    assert len(report.trimmed) == 100
    assert sorted(predictions.asked) == sorted(predictions)


def test_names_in_other_unicode_are_the_same():
    assert match_trials(["caf\u00e9"], ["batch1/cafe\u0301"]) == {"caf\u00e9": "batch1/cafe\u0301"}
