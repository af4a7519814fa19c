"""Jobs in threads of this process: order, tries, words, errors, stopping."""

import os
import signal
import threading

import pytest
from batch_toys import Toys

from avfuse.batch.loop import run_jobs
from avfuse.batch.signals import StopRequest
from avfuse.batch.target import ExecutionTarget, open_executor


def run(toys, recorder, jobs, slots=1, stop=None, retries=1):
    stop = stop or StopRequest("toys")
    with open_executor(ExecutionTarget(), toys, slots, False, stop) as executor:
        run_jobs(toys, jobs, executor, stop, recorder, retries)
    return stop


@pytest.mark.parametrize("slots", [1, 3])
def test_all_jobs_are_done_in_order(toys, recorder, slots):
    jobs = [f"toy{number}" for number in range(20)]
    stop = run(toys, recorder, jobs, slots)
    assert recorder.begun == jobs
    assert set(recorder.results) == set(jobs)
    assert stop.left == []
    assert toys.count("prepared") == toys.count("closed") == 1


def test_without_jobs(toys, recorder):
    run(toys, recorder, [])
    assert recorder.results == {}


def test_what_may_pass_is_tried_again_after_the_others(toys, recorder):
    run(toys, recorder, ["flaky a", "fail b", "c"], retries=2)
    assert recorder.begun == ["flaky a", "fail b", "c", "flaky a", "fail b", "fail b"]
    assert recorder.results["flaky a"].startswith("flaky a done")
    assert recorder.results["fail b"] == "may pass"
    assert recorder.tried_again == [("flaky a", "may pass"), ("fail b", "may pass"), ("fail b", "may pass")]


def test_no_retries(toys, recorder):
    run(toys, recorder, ["flaky a"], retries=0)
    assert recorder.results == {"flaky a": "may pass"}


@pytest.mark.parametrize("slots", [1, 2])
def test_an_error_ends_the_run_and_stops_the_others(toys, recorder, slots):
    jobs = ["a", *(["wait"] if slots > 1 else []), "raise", "b"]
    with pytest.raises(ValueError, match="the whole run is wrong"):
        run(toys, recorder, jobs, slots)
    assert set(recorder.results) == {"a"}
    assert toys.count("closed") == 1


def test_jobs_that_wait_are_stopped_and_named(toys, recorder):
    stop = StopRequest("toys")

    def stop_once():
        if not stop.is_set():
            stop.receive(signal.SIGTERM)

    recorder.on_progress = stop_once
    try:
        run(toys, recorder, ["a", "wait 1", "wait 2", "b"], slots=2, stop=stop)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert stop.is_set()
    assert set(recorder.results) == {"a"}
    assert stop.left == ["wait 1", "wait 2", "b"]
    assert set(recorder.dropped) == {"wait 1", "wait 2"}
    assert toys.count("begun b") == 0


def test_jobs_do_not_run_in_the_thread_that_takes_signals(toys, recorder):
    class WhoDoesIt(Toys):
        def do(self, job, context):
            return threading.current_thread() is threading.main_thread(), context.host, os.getpid()

    run(WhoDoesIt(toys.folder), recorder, ["a"])
    assert recorder.results == {"a": (False, None, os.getpid())}
