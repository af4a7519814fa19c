"""The same jobs on the workers of a cluster: lost workers, wrong workers, errors, stopping, many small jobs."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import click
import dask
import pytest
from distributed import SpecCluster

from avfuse.batch.cluster import executor as executor_module
from avfuse.batch.cluster.connect import local_client, remote_client
from avfuse.batch.cluster.executor import DaskExecutor
from avfuse.batch.cluster.worker import versions
from avfuse.batch.loop import run_jobs
from avfuse.batch.options import target_of
from avfuse.batch.protocols import WorkerLost, WorkerUnfit
from avfuse.batch.signals import StopRequest
from avfuse.batch.target import ExecutionTarget, open_executor

# What an older avfuse looks like to us.
WITHOUT_BATCH = """
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "avfuse.batch":
            raise ModuleNotFoundError("No module named 'avfuse.batch'")
sys.meta_path.insert(0, Finder())
"""


def test_a_busy_machine_has_its_time_to_start_workers():
    """What connects a worker's process to this one is not given up while the machine is slow (here: in 1 ms)."""
    connect = "distributed.comm.timeouts.connect"
    with dask.config.set({connect: "1ms"}), local_client(1, at_once=1, on_gpus=False) as client:
        dask.config.set({connect: "30s"})  # till the end of this `with`
        assert list(client.nthreads().values()) == [1]


def test_a_worker_that_is_slow_to_end_takes_nothing_back(monkeypatch):
    """Ending it is given up after some seconds, when all is done: that is no failure of the call."""
    really_close = SpecCluster.close

    def close(cluster, timeout=None):
        really_close(cluster, timeout)
        raise TimeoutError

    monkeypatch.setattr(SpecCluster, "close", close)
    with local_client(1, at_once=1, on_gpus=False) as client:
        assert len(client.nthreads()) == 1
    assert client.status == "closed"


@pytest.fixture(scope="module")
def client():
    """Two workers of this machine, shared by these tests; those that are killed come back."""
    with local_client(2, at_once=2, on_gpus=False) as client:
        yield client


@pytest.fixture
def run(client, toys, recorder):
    def do(*jobs, at_once=1, stop=None, retries=1, toys=toys):
        stop = stop or StopRequest("toys")
        client.wait_for_workers(2, timeout=60)
        with closing(DaskExecutor(client, toys, at_once, stop, print)) as executor:
            run_jobs(toys, jobs, executor, stop, recorder, retries)
        return stop

    return do


def test_jobs_are_done_by_both_workers_which_prepare_once(run, toys, recorder):
    jobs = [f"slow {number}" for number in range(12)]
    stop = run(*jobs)
    assert set(recorder.results) == set(jobs)
    assert stop.left == []
    processes = {result.split()[-1] for result in recorder.results.values()}
    assert len(processes) == 2
    assert str(os.getpid()) not in processes
    assert toys.count("prepared") == toys.count("closed") == 2


def test_at_most_so_many_jobs_at_once_in_a_process(run, toys, recorder):
    run(*(f"slow {number}" for number in range(8)), at_once=2)
    assert toys.count("prepared") == 2
    assert len(recorder.results) == 8


def test_what_may_pass_is_tried_again(run, recorder):
    run("flaky a", "fail b", "c")
    assert recorder.results["flaky a"].startswith("flaky a done")
    assert recorder.results["fail b"] == "may pass"
    assert sorted(recorder.tried_again) == [("fail b", "may pass"), ("flaky a", "may pass")]


def test_a_lost_workers_jobs_are_done_elsewhere(run, toys, recorder):
    run("kill-once a", *(f"slow {number}" for number in range(4)))
    assert recorder.results["kill-once a"].startswith("kill-once a done")
    ((job, lost),) = recorder.tried_again
    assert job == "kill-once a"
    assert lost.owner.is_dead()
    assert len(recorder.results) == 5


def test_who_kills_two_workers_is_left_and_takes_no_other_job_with_it(run, toys, recorder):
    """Its neighbours in the first process are tried again, and it is alone the second time."""
    others = [f"slow {number}" for number in range(9)]
    run("slow x", "kill a", *others, at_once=2, retries=0)
    assert isinstance(recorder.results.pop("kill a"), WorkerLost)
    assert toys.count("begun kill a") == 2
    assert set(recorder.results) == {"slow x", *others}
    assert not [job for job, result in recorder.results.items() if isinstance(result, WorkerLost)]


def test_an_error_ends_the_run_and_stops_the_others(run, toys, recorder):
    with pytest.raises(ValueError, match="the whole run is wrong"):
        run("wait", "raise", "b")
    assert recorder.results == {}
    assert set(recorder.dropped) == {"raise", "wait"}


def test_a_worker_that_cannot_prepare_is_named(run, toys, recorder):
    with pytest.raises(WorkerUnfit, match=r"the worker on .*: /there/weights\.pth: No such file"):
        run("a", "b", toys=type(toys)(toys.folder, broken="/there/weights.pth"))


def test_a_worker_with_other_versions_is_refused(run, monkeypatch):
    mine = {**versions(), "torch": "0.1"}
    monkeypatch.setattr(executor_module, "versions", lambda: mine)
    with pytest.raises(WorkerUnfit, match=r"the worker at tcp://.* has other versions: torch 0\.1 here, .* there"):
        run("a")


def test_jobs_that_wait_are_stopped_and_named(run, toys, recorder):
    stop = StopRequest("toys")

    def started(job):
        if job == "wait 2":
            stop.receive(signal.SIGTERM)

    recorder.started = started
    since_s = time.monotonic()
    try:
        run("wait 1", "wait 2", "b", stop=stop)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert stop.left == ["wait 1", "wait 2", "b"]
    assert time.monotonic() - since_s < 10
    assert toys.count("begun b") == 0


def test_reports_are_sent_every_few_seconds(run, toys, recorder):
    stop = StopRequest("toys")

    def stop_once():
        if not stop.is_set():
            stop.receive(signal.SIGTERM)

    recorder.on_progress = stop_once
    try:
        run("wait", stop=stop)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert recorder.words == [("wait", "waited")]


def test_many_small_jobs(run, recorder):
    jobs = [f"toy{number}" for number in range(100)]
    run(*jobs, at_once=2)
    assert set(recorder.results) == set(jobs)


def test_threads_are_shared_out(toys, recorder, monkeypatch):
    """In processes of their own, one GPU each; this process keeps its own environment."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    monkeypatch.setattr("avfuse.batch.cluster.connect.cores", lambda: 6)
    before = dict(os.environ)
    stop = StopRequest("toys")
    with open_executor(ExecutionTarget(2), toys, 1, True, stop) as executor:
        run_jobs(toys, ["environment a", "environment b"], executor, stop, recorder)
    assert os.environ == before
    found = sorted(recorder.results.values(), key=lambda each: each["CUDA_VISIBLE_DEVICES"])
    assert found == [{"OMP_NUM_THREADS": "3", "CUDA_VISIBLE_DEVICES": gpu} for gpu in "46"]


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "tcp://nowhere.invalid:8786", "rubbish://x:1"])
def test_no_scheduler(address, monkeypatch):
    monkeypatch.setattr("avfuse.batch.cluster.connect._CONNECT_S", 1)
    with pytest.raises(WorkerUnfit, match=f"no dask scheduler answers at {address}: "), remote_client(address, print):
        pass


def test_one_way_at_a_time():
    assert target_of(1, None, ()).in_process
    with pytest.raises(click.UsageError, match="give one of them"):
        target_of(2, "tcp://x:1", ())


def test_a_run_in_this_process_imports_no_dask():
    code = (
        "import sys, avfuse.batch.target, avfuse.batch.options, avfuse.batch.loop, avfuse.batch.signals\n"
        "print([name for name in ('dask', 'distributed', 'numpy', 'yaml') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


class TestScheduler:
    """A scheduler and workers as processes of their own, as `dask scheduler` and `dask worker` start them."""

    @pytest.fixture
    def start(self, tmp_path):
        """Begin a dask program with the words of its command; all are ended after the test."""
        begun: list[subprocess.Popen[bytes]] = []
        of: dict[str, subprocess.Popen[bytes]] = {}

        def begin(what, *words, path=str(Path(__file__).parents[1])):
            command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *map(str, words)]
            searched = os.pathsep.join([path, *filter(None, [os.environ.get("PYTHONPATH")])])
            environment = {**os.environ, "PYTHONPATH": searched}
            with (tmp_path / f"{what}{len(begun)}.log").open("wb") as log:
                begun.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=tmp_path))
            of[what] = begun[-1]
            return begun[-1]

        begin.of = of  # type: ignore[attr-defined]  # the last of each program
        yield begin
        for process in reversed(begun):
            process.terminate()
        for process in begun:
            process.wait(30)

    @pytest.fixture
    def address(self, start, tmp_path):
        file = tmp_path / "scheduler.json"
        start("scheduler", "--host", "127.0.0.1", "--port", 0, "--no-dashboard", "--scheduler-file", file)
        until_s = time.monotonic() + 60
        while not (file.exists() and (found := file.read_text())):
            assert time.monotonic() < until_s
            time.sleep(0.05)
        return found.split('"address": "')[1].split('"')[0]

    @pytest.fixture
    def worker(self, start, address):
        """Begin a worker; it finds the toys unless `path` says otherwise."""
        return lambda: start("worker", address, "--nthreads", 1, "--no-dashboard")

    @pytest.fixture
    def run(self, address, toys, recorder):
        def do(*jobs):
            stop = StopRequest("toys")
            with open_executor(ExecutionTarget(scheduler=address), toys, 1, False, stop) as executor:
                run_jobs(toys, jobs, executor, stop, recorder)

        return do

    @pytest.mark.slow
    def test_a_preempted_worker_is_no_jobs_fault(self, worker, run, toys, recorder):
        first = worker()

        def tick():
            if toys.count("begun until a") == 1 and first.poll() is None:
                first.terminate()
                first.wait(30)
                Path(toys.folder, "go").touch()
                worker()

        recorder.tick = tick
        run("until a", "b")
        assert set(recorder.results) == {"until a", "b"}
        assert recorder.dropped == ["until a"]
        assert recorder.tried_again == []

    @pytest.mark.slow
    def test_a_scheduler_that_ends_ends_the_run(self, worker, start, run, toys, recorder):
        worker()
        recorder.tick = lambda: toys.count("begun wait") and start.of["scheduler"].kill()
        with pytest.raises(WorkerUnfit, match="the scheduler has ended"):
            run("wait")

    @pytest.mark.slow
    def test_a_worker_with_another_avfuse_is_refused(self, start, address, run, tmp_path):
        (tmp_path / "sitecustomize.py").write_text(WITHOUT_BATCH)
        start("worker", address, "--nthreads", 1, "--no-dashboard", path=str(tmp_path))
        with pytest.raises(
            WorkerUnfit, match=r"does not know this version of avfuse: .*No module named 'avfuse\.batch'"
        ):
            run("a")
