"""SIGTERM and SIGINT: a line that names what is left, the exit code, 10 s at most."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from avfuse.batch.signals import LAST_RESORT_S

SCRIPT = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite started in the background ignores it
sys.path.append({folder!r})
import click
from batch_toys import Toys
from avfuse.batch.target import ExecutionTarget, open_executor
from avfuse.batch.loop import run_jobs
import avfuse.batch.signals
from avfuse.batch.signals import listening
avfuse.batch.signals.LAST_RESORT_S = {resort_s}

class Silent:
    def nothing(self, *_): pass
    started = progressed = ended = retried = interrupted = tick = nothing

@click.command()
@click.argument("jobs", nargs=-1)
def main(jobs):
    toys = Toys({notes!r})
    with listening("toys") as stop:
        if not jobs:
            toys.note("ready")
            time.sleep(60)
        stop.on_abandon = lambda: toys.note("abandoned")
        with open_executor(ExecutionTarget(), toys, 2, False, stop) as executor:
            run_jobs(toys, jobs, executor, stop, Silent())
        stop.raise_if_set()

main()
"""


@pytest.fixture
def start(tmp_path):
    def begin(*jobs, resort_s=LAST_RESORT_S):
        code = SCRIPT.format(folder=str(Path(__file__).parent), notes=str(tmp_path), resort_s=resort_s)
        return subprocess.Popen([sys.executable, "-c", code, *jobs], stderr=subprocess.PIPE, text=True)

    return begin


def wait_for(path, process):
    until_s = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until_s
        time.sleep(0.02)


def ended(process):
    """The last line, with how long the end took."""
    since_s = time.monotonic()
    _, stderr = process.communicate(timeout=30)
    assert "Traceback" not in stderr
    return stderr.strip().splitlines()[-1], time.monotonic() - since_s


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_jobs_that_listen(start, toys, number, code):
    process = start("a", "wait b", "wait c", "d")
    wait_for(Path(toys.folder, "waiting wait c"), process)
    process.send_signal(number)
    line, took_s = ended(process)
    assert process.returncode == code
    assert line == (
        f"Error: stopped by {number.name} with 3 toys to do: wait b, wait c, d; what is done is safe, "
        "run again to go on"
    )
    assert took_s < 10
    assert toys.count("closed") == 1
    assert toys.count("abandoned") == 0


@pytest.mark.parametrize("resort_s", [2.0, pytest.param(LAST_RESORT_S, marks=pytest.mark.slow)])
def test_a_job_in_a_long_call_is_left(start, toys, resort_s):
    process = start("wait a", "hang b", resort_s=resort_s)
    wait_for(Path(toys.folder, "waiting hang b"), process)
    process.terminate()
    line, took_s = ended(process)
    assert process.returncode == 143
    assert "with 2 toys to do: wait a, hang b" in line
    assert took_s < 10
    assert toys.count("abandoned") == 1


def test_a_second_signal_does_not_wait(start, toys):
    process = start("hang a")
    wait_for(Path(toys.folder, "waiting hang a"), process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    line, took_s = ended(process)
    assert process.returncode == 130
    assert "hang a" in line
    assert took_s < 5


def test_before_anything_is_begun(start, toys):
    process = start()
    wait_for(Path(toys.folder, "notes"), process)
    process.terminate()
    line, took_s = ended(process)
    assert process.returncode == 143
    assert line == "Error: stopped by SIGTERM before anything was begun; run again to begin"
    assert took_s < 5


def test_who_ignores_a_signal_goes_on_ignoring_it(toys):
    code = "import signal\nfrom avfuse.batch.signals import listening\n"
    code += "with listening('toys'):\n    print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    ignore = ["bash", "-c", 'trap "" INT; exec "$@"', "bash", sys.executable, "-c", code]
    assert subprocess.run(ignore, capture_output=True, text=True, check=True, env=os.environ).stdout == "True\n"
