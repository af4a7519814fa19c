"""Lines and bars of a run in progress, and what they count."""

import io
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from avfuse.features_store.records.failures import Stage
from avfuse.pipeline.config import ExtractConfig
from avfuse.pipeline.extraction.jobs import Failure, Job, Receipt
from avfuse.pipeline.extraction.row_buffer import settled
from avfuse.pipeline.extraction.visual import _People
from avfuse.pipeline.faces.crops import FaceCrops, unseen
from avfuse.pipeline.runs import progress

RECEIPT = Receipt("a", "a.mp4", 72, 72, "30", False, 1.0, True, False, 8.0, warnings=("a warning",))
FAILURE = Failure("b.mp4", "b", Stage.PROBE, "is empty")


@pytest.fixture
def now(monkeypatch):
    """The time of the clock, s, in a list: a test turns it on."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_lines_come_every_30_s_and_never_a_carriage_return(now):
    stream = io.StringIO()
    reporter = progress.make_reporter(verbose=False, stream=stream)
    reporter.begin(2)
    job = Job(Path("a.mp4"), "a.mp4", "a", "largest", 1)
    reporter.start(job)
    for frames in range(1, 101):
        now[0] += 1
        reporter.progress(job, "picture", frames, frames / 25, 8.0)
    for rows in (50, 100):
        now[0] += 15
        reporter.progress(job, "sound", rows, rows / 25, 4.0)
    for result in (RECEIPT, FAILURE, None):
        reporter.finish(job, result)
    reporter.end()
    lines = stream.getvalue().splitlines()
    assert "\r" not in stream.getvalue()
    pictures = [f"0/2 videos, a: picture row {frames} ({frames / 2:.0f}%), 1.0 rows/s" for frames in (30, 60, 90)]
    assert lines[:4] == [*pictures, "0/2 videos, a: sound row 100 (100%), 0.8 rows/s"]
    assert lines[4:] == ["warning: a: a warning", "failed: b.mp4: is empty"]


def test_a_line_names_all_videos_in_progress(now):
    stream = io.StringIO()
    reporter = progress.make_reporter(verbose=False, stream=stream)
    reporter.begin(9)
    jobs = [Job(Path(f"{name}.mp4"), f"{name}.mp4", name, "largest", 1) for name in "abcdef"]
    for job in jobs:
        reporter.start(job)
    reporter.progress(jobs[1], "picture", 60, 2.4, 8.0)
    reporter.retried(jobs[5], "the disk slept")
    now[0] += 30
    reporter.tick()
    reporter.finish(jobs[0], RECEIPT)
    for job in jobs[1:]:
        reporter.drop(job)
    now[0] += 30
    reporter.tick()
    assert stream.getvalue().splitlines() == [
        "trying again: f.mp4: the disk slept",
        "0/9 videos, a, b 30%, c, d, and 1 more, 2.0 rows/s",
        "warning: a: a warning",
        "1/9 videos, 1.2 rows/s",
    ]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_bars_on_a_terminal():
    stream = Terminal()
    reporter = progress.make_reporter(verbose=True, stream=stream)
    reporter.begin(1)
    job = Job(Path("a.mp4"), "a.mp4", "a", "largest", 1)
    reporter.start(job)
    reporter.progress(job, "picture", 36, 1.2, 2.4)
    reporter.progress(job, "sound", 36, 1.2, 2.4)
    reporter.finish(job, RECEIPT)
    reporter.end()
    assert "done: a: 72 rows in 8.0 s (9.0 rows/s)" in stream.getvalue()
    assert "1/1" in stream.getvalue()


def test_two_bars_for_many_videos():
    stream = Terminal()
    reporter = progress.make_reporter(verbose=False, stream=stream)
    reporter.begin(2)
    jobs = [Job(Path(f"{name}.mp4"), f"{name}.mp4", name, "largest", 1) for name in "ab"]
    for number, job in enumerate(jobs):
        reporter.start(job)
        reporter.progress(job, "picture", 20 + number, 1.2, 2.4)
    assert "2 videos in progress, 41 rows" in stream.getvalue()
    reporter.finish(jobs[0], RECEIPT)
    reporter.drop(jobs[1])
    reporter.end()
    assert "b picture:  50%" in stream.getvalue()


def test_rows_are_counted_where_they_are_made_and_over_the_whole_run(monkeypatch):
    """Without visual features decoding the picture makes no row; failed and dropped videos made none either."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    reporter = progress.make_reporter(verbose=False, stream=stream, counts="sound")
    reporter.begin(3, "starting 2 workers")
    assert stream.getvalue() == "starting 2 workers\n"  # at once
    now[0] += 100  # loading networks is no video's time
    jobs = [Job(Path(f"{name}.mp4"), f"{name}.mp4", name, "largest", 1) for name in "abc"]
    reporter.start(jobs[0])
    reporter.progress(jobs[0], "picture", 900, 30.0, 40.0)
    now[0] += 30
    reporter.progress(jobs[0], "sound", 120, 4.0, 40.0)
    reporter.progress(jobs[0], "sound", 60, 2.0, 40.0)  # once more, for the MFCCs
    now[0] += 30
    reporter.tick()
    assert stream.getvalue().splitlines()[1:] == [
        "0/3 videos, a: picture row 900 (75%)",
        "0/3 videos, a: sound row 120 (10%), 4.0 rows/s",
        "0/3 videos, a: sound row 60 (5%), 2.0 rows/s",
    ]


def test_a_bar_shows_its_life_before_the_first_video():
    stream = Terminal()
    reporter = progress.make_reporter(verbose=False, stream=stream)
    reporter.begin(2, "starting 2 workers")
    assert "0/2" in stream.getvalue()
    assert "starting 2 workers" in stream.getvalue()
    reporter.end()


def test_frames_count_when_they_are_embedded(tmp_path):
    """Decoding is ahead of the networks: a frame whose face is still on its way does not count."""
    asked: list[Future[np.ndarray]] = []

    def submit(name, pixels):
        asked.append(Future())
        return asked[-1:]

    faces = FaceCrops({112: np.zeros((4, 112, 112, 3), np.uint8)}, replace(unseen(4), scores=np.ones(4, np.float32)))
    embedder = SimpleNamespace(input_px=112)
    networks = SimpleNamespace(engine=SimpleNamespace(submit=submit), embedders={"iresnet50": embedder})
    session: Any = SimpleNamespace(
        config=ExtractConfig(), networks=networks, row_of=lambda name: ((2,), np.dtype(np.float32))
    )
    people = _People(("iresnet50",), session, tmp_path)
    with settled(people.pending):
        for _ in range(3):
            people.take([faces])
        assert people.embedded() == 0
        asked[0].set_result(np.zeros((4, 2), np.float32))
        people.take([faces])
        assert people.embedded() == 4
        for future in asked[1:]:
            future.set_result(np.zeros((4, 2), np.float32))
    assert people.embedded() == 16
