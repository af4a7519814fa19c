"""Jobs in threads of this process: order, tries, words, errors, stopping."""

import os
import signal
import threading

import pytest

from avfuse.batch.loop import run_jobs
from avfuse.batch.signals import StopRequest
from avfuse.batch.threads import open_thread_executor


def run(toys, heard, jobs, slots=1, stop=None, retries=1):
    stop = stop or StopRequest("toys")
    with open_thread_executor(toys, slots, stop) as here:
        run_jobs(toys, jobs, here, stop, heard, retries)
    return stop


@pytest.mark.parametrize("slots", [1, 3])
def test_all_jobs_are_done_in_order(toys, heard, slots):
    jobs = [f"toy{number}" for number in range(20)]
    stop = run(toys, heard, jobs, slots)
    assert heard.begun == jobs
    assert set(heard.results) == set(jobs)
    assert stop.left == []
    assert toys.count("prepared") == toys.count("closed") == 1


def test_without_jobs(toys, heard):
    run(toys, heard, [])
    assert heard.results == {}


def test_what_may_pass_is_tried_again_after_the_others(toys, heard):
    run(toys, heard, ["flaky a", "fail b", "c"], retries=2)
    assert heard.begun == ["flaky a", "fail b", "c", "flaky a", "fail b", "fail b"]
    assert heard.results["flaky a"].startswith("flaky a done")
    assert heard.results["fail b"] == "may pass"
    assert heard.tries_again == [("flaky a", "may pass"), ("fail b", "may pass"), ("fail b", "may pass")]


def test_no_retries(toys, heard):
    run(toys, heard, ["flaky a"], retries=0)
    assert heard.results == {"flaky a": "may pass"}


@pytest.mark.parametrize("slots", [1, 2])
def test_an_error_ends_the_run_and_stops_the_others(toys, heard, slots):
    jobs = ["a", *(["wait"] if slots > 1 else []), "raise", "b"]
    with pytest.raises(ValueError, match="the whole run is wrong"):
        run(toys, heard, jobs, slots)
    assert set(heard.results) == {"a"}
    assert toys.count("closed") == 1


def test_jobs_that_wait_are_stopped_and_named(toys, heard):
    stop = StopRequest("toys")
    heard.on_told = lambda: stop.is_set() or stop.receive(signal.SIGTERM)
    try:
        run(toys, heard, ["a", "wait 1", "wait 2", "b"], slots=2, stop=stop)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert stop.is_set()
    assert set(heard.results) == {"a"}
    assert stop.left == ["wait 1", "wait 2", "b"]
    assert set(heard.dropped) == {"wait 1", "wait 2"}
    assert toys.count("begun b") == 0


def test_jobs_do_not_run_in_the_thread_that_takes_signals(toys, heard):
    class ExecutionTarget(type(toys)):
        def do(self, job, context):
            return threading.current_thread() is threading.main_thread(), context.where, os.getpid()

    run(ExecutionTarget(toys.folder), heard, ["a"])
    assert heard.results == {"a": (False, None, os.getpid())}
