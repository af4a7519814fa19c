"""Folds times seeds as jobs: on workers the same numbers, shards, two calls at once, lost workers, signals."""

import csv
import io
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from avfuse.batch.cluster import connect
from avfuse.batch.protocols import Cancelled, JobContext, WorkerLost
from avfuse.features_store.disk.owner import Owner
from avfuse.features_store.labels.corpus import open_corpus
from avfuse.fusion.artifacts.folder import is_locked, run_lock
from avfuse.fusion.artifacts.state import load_state
from avfuse.fusion.config import RunConfig
from avfuse.fusion.data.runtime import alone_in_process, room_of, threads
from avfuse.fusion.folds.split import make_folds
from avfuse.fusion.runs.crossval import RunSpec, pending_runs, plan_runs, shard_of
from avfuse.fusion.runs.loggers import make_watchers
from avfuse.fusion.runs.monitor import RunMonitor
from avfuse.fusion.runs.work import Failed, Trained, TrainTask
from avfuse.fusion.settings import preset

WHOLE = ("--fold", 1, "--seeds", 3, "--epochs", 2)
NAMES = [f"fold1/seed{seed}" for seed in range(3)]
PATIENCE_S = 300
JOB = RunSpec(1, preset("concat"), Path("runs/fold1/seed0"))


@pytest.fixture(scope="module")
def serial(small, fit, tmp_path_factory):
    """Three seeds of one fold, one after the other in this process, on one thread."""
    folder = tmp_path_factory.mktemp("serial") / "runs"
    fit(small, folder, *WHOLE)
    return folder


@pytest.fixture(scope="module")
def scheduler():
    """The address of a cluster of two workers of this machine, on one thread each; those that are killed come back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connect, "cores", lambda: 2)
        with connect.local_client(2, at_once=1, on_gpus=False) as client:
            assert client.scheduler is not None
            yield client.scheduler.address


@pytest.fixture
def on_cluster(avfuse, train_words, small, scheduler):
    """Call `train` with its runs on the cluster."""
    return lambda out, *words: avfuse(*train_words(small, out, *words, "--scheduler", scheduler))


@pytest.fixture
def runs(serial, tmp_path):
    """A copy of the three, to be changed."""
    return shutil.copytree(serial, tmp_path / "runs")


def seeds_in(folder):
    with (folder / "crossval.csv").open() as file:
        return next(row["seeds"] for row in csv.DictReader(file))


class TestOnWorkers:
    @pytest.mark.slow
    def test_the_same_numbers(self, serial, on_cluster, same_run, tmp_path):
        result = on_cluster(tmp_path / "runs", *WHOLE)
        assert result.exit_code == 0, result.stderr
        for name in NAMES:
            same_run(tmp_path / "runs" / name, serial / name)
            for one in (serial / name / "predictions").iterdir():
                assert (tmp_path / "runs" / name / "predictions" / one.name).read_bytes() == one.read_bytes()
            assert json.loads((tmp_path / "runs" / name / "environment.json").read_text())["threads"] == 1
            assert f"{name.replace('/seed', ' seed ').replace('fold', 'fold ')}: best epoch" in result.stderr
        assert result.stdout == (serial / "crossval.txt").read_text()
        assert result.stderr.count("rows of face 6, voice 4, on cpu") == 1

    def test_one_that_fails_does_not_hold_up_the_others(self, serial, runs, on_cluster, same_run):
        (runs / NAMES[0] / "finished.json").unlink()
        (runs / NAMES[0] / "training.pt").write_bytes(b"not whole")
        shutil.rmtree(runs / NAMES[2])
        result = on_cluster(runs, *WHOLE)
        assert result.exit_code == 1
        assert result.stderr.splitlines()[-1].startswith(f"Error: 1 of 3 runs failed: {runs / NAMES[0]}: ")
        same_run(runs / NAMES[2], serial / NAMES[2])
        assert seeds_in(runs) == "2"

    def test_what_is_wrong_before_anything_is_read(self, on_cluster, tmp_path):
        result = on_cluster(tmp_path / "runs", *WHOLE, "--modalities", "face,smell")
        assert result.exit_code == 1
        assert "has no smell, only face, voice" in result.stderr.splitlines()[-1]

    @pytest.mark.slow
    def test_a_lost_workers_run_goes_on_elsewhere(self, small, on_cluster, fit, same_run, tmp_path):
        words = ("--fold", 1, "--epochs", 30)
        fit(small, tmp_path / "whole", *words)
        run = tmp_path / "run"
        killed: list[int] = []
        killer = threading.Thread(target=kill_who_trains, args=(run, killed))
        killer.start()
        result = on_cluster(run, *words)
        killer.join()
        assert killed
        assert result.exit_code == 0, result.stderr
        assert "fold 1 seed 0 is tried again, from its last saved epoch: its worker on" in result.stderr
        same_run(run, tmp_path / "whole")
        assert not (run / ".claims").exists()


def kill_who_trains(run, killed):
    until_s = time.monotonic() + PATIENCE_S
    while not (run / "metrics.json").exists() and time.monotonic() < until_s:
        time.sleep(0.002)
    (claim,) = (run / ".claims").glob("*.json")
    killed.append(json.loads(claim.read_text())["pid"])
    os.kill(killed[0], signal.SIGKILL)


@pytest.mark.slow
def test_sigterm_on_workers(small, train_words, fit, tmp_path):
    """Within 10 s, one line, exit code 143; what is saved is sound and a second call goes on from it."""
    folder = tmp_path / "runs"
    words = train_words(small, folder, "--fold", 1, "--seeds", 2, "--epochs", 2000, "--set", "early_stop=2000")
    command = [sys.executable, "-m", "avfuse", *map(str, words), "--workers", "2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            until_s = time.monotonic() + PATIENCE_S
            while not all((folder / name / "metrics.json").exists() for name in NAMES[:2]):
                assert process.stderr is not None
                assert process.poll() is None, process.stderr.read().decode()
                assert time.monotonic() < until_s
                time.sleep(0.01)
        finally:
            process.send_signal(signal.SIGTERM)
        since_s = time.monotonic()
        _, said = process.communicate(timeout=60)
    assert time.monotonic() - since_s < 10
    assert process.returncode == 143
    last = said.decode().splitlines()[-1]
    assert last.startswith("Error: stopped by SIGTERM with 2 runs to do: fold 1 seed 0, fold 1 seed 1; ")
    assert "Traceback" not in said.decode()
    for name in NAMES[:2]:
        saved = load_state(folder / name)
        assert saved is not None
        assert saved.history
        assert not (folder / name / "finished.json").exists()
        assert not is_locked(folder / name)
    fit(small, folder, "--fold", 1, "--seeds", 2, "--epochs", 1, "--set", "early_stop=2000")
    assert all((folder / name / "finished.json").exists() for name in NAMES[:2])


class TestShards:
    def test_disjoint_and_complete(self, tmp_path):
        runs = plan_runs(tmp_path, range(6), range(11), preset("concat"))
        parts = [shard_of(runs, index, 4) for index in range(4)]
        assert sorted(run.name for part in parts for run in part) == sorted(run.name for run in runs)
        assert {len(part) for part in parts} == {16, 17}

    def test_each_leaves_the_table_for_what_is_there(self, small, serial, runs, fit, same_run):
        shutil.rmtree(runs / NAMES[1])
        (runs / "crossval.csv").unlink()
        result = fit(small, runs, *WHOLE, "--shard", "0/2")
        assert "0 runs to do, 2 done before" in result.stderr
        assert seeds_in(runs) == "2"
        result = fit(small, runs, *WHOLE, "--shard", "1/2")
        assert "1 run to do, 0 done before" in result.stderr
        same_run(runs / NAMES[1], serial / NAMES[1])
        assert (runs / "crossval.csv").read_bytes() == (serial / "crossval.csv").read_bytes()

    def test_a_part_without_runs(self, small, fit, tmp_path):
        result = fit(small, tmp_path / "runs", *WHOLE, "--shard", "3/4", "--json")
        assert result.stdout == "[]\n"
        assert not (tmp_path / "runs").exists()


class TestTwoCalls:
    def test_a_run_being_trained_by_another_call_is_left_alone(self, small, runs, fit):
        (runs / NAMES[1] / "finished.json").unlink()
        before = (runs / NAMES[1] / "training.pt").stat().st_mtime_ns
        with run_lock(runs / NAMES[1]) as mine:
            assert mine
            assert is_locked(runs / NAMES[1])
            result = fit(small, runs, *WHOLE)
        assert f"fold 1 seed 1: left to another call, which is training it or has done it: {runs}" in result.stderr
        assert (runs / NAMES[1] / "training.pt").stat().st_mtime_ns == before
        assert seeds_in(runs) == "2"
        fit(small, runs, *WHOLE)
        assert seeds_in(runs) == "3"

    def test_a_lone_run(self, small, serial, tmp_path, fit):
        """It is not said to go on by --resume while another call does it."""
        run = shutil.copytree(serial / NAMES[0], tmp_path / "run")
        (run / "finished.json").unlink()
        with run_lock(run):
            result = fit(small, run, "--fold", 1, "--epochs", 2, "--json")
        assert "left to another call" in result.stderr
        assert result.stdout == "[]\n"
        assert not (run / ".claims").exists()

    def test_what_was_done_since_counts(self, small, runs, fit, monkeypatch):
        """The other call ends between this one's plan and its turn."""
        done = runs / NAMES[1] / "finished.json"
        finished = done.read_text()
        done.unlink()
        monkeypatch.setattr("avfuse.fusion.runs.work.run_lock", partial(finished_by_another, done, finished))
        result = fit(small, runs, *WHOLE, "--json")
        assert "left to another call" in result.stderr
        assert [run["seed"] for run in json.loads(result.stdout)] == [0, 1, 2]

    def test_a_folder_whose_claim_is_left_over_is_new(self, tmp_path):
        (tmp_path / "run/.claims").mkdir(parents=True)
        assert pending_runs([replace(JOB, folder=tmp_path / "run")], resume=False)


def finished_by_another(done, content, folder):
    done.write_text(content)
    return run_lock(folder)


def halted() -> JobContext:
    """What a job on another machine is given when it is to stop."""
    event = threading.Event()
    event.set()
    return JobContext("there", event, send=lambda words: None)


class TestParts:
    def test_what_travels_is_small(self, small):
        corpus = open_corpus(small.annotations)
        config, run = preset("crossattn"), RunConfig()
        work = TrainTask(str(small.store), corpus, make_folds(corpus), (1,), config, run, False, True, True, False)
        assert len(pickle.dumps(work)) < 8000
        assert len(pickle.dumps(JOB)) < 2000
        assert work.name(JOB) == "fold 1 seed 0"
        assert replace(work, alone=True).name(JOB) == "fold 1 seed 0 (--resume goes on in runs/fold1/seed0)"

    def test_processes_share_the_memory(self):
        one, two = (room_of(RunConfig("cpu", processes=count)).host_bytes for count in (1, 2))
        assert one / two == pytest.approx(2, rel=0.3)

    def test_threads_are_given_back(self):
        before = torch.get_num_threads()
        with threads(before + 1):
            assert torch.get_num_threads() == before + 1
        with threads(0):
            assert torch.get_num_threads() == before
        assert torch.get_num_threads() == before

    def test_who_waits_for_its_turn_can_be_stopped(self):
        with pytest.raises(Cancelled), alone_in_process(halted()):
            raise AssertionError

    def test_a_run_elsewhere_stops_at_a_batch_and_has_no_screen(self, tmp_path):
        stream = io.StringIO()
        (watcher,) = make_watchers("fold 1", 9, tmp_path, False, stream, halted())
        with pytest.raises(Cancelled):
            watcher.step(1, 0, 3, lambda: 0.0)
        assert stream.getvalue() == ""

    def test_what_is_said(self, monkeypatch):
        said: list[str] = []
        monitor = RunMonitor(3, said.append, ["note: known"])
        monitor.progressed(JOB, (3, 9, 0.5, 2))
        monitor.tick()
        monitor.tick()  # the first line comes at once, the next one after 30 s
        assert said == ["0 of 3 runs over; fold 1 seed 0 epoch 3/9, best P 0.500 (epoch 2)"]
        said.clear()
        monkeypatch.setattr("avfuse.shell.progress.LINE_EVERY_S", 0)
        monitor.tick()
        monitor.retried(JOB, Failed("no room", is_transient=True))
        monitor.ended(JOB, Trained(2, 9, "all done", ("table",), ("note: known", "note: new")))
        monitor.tick()
        assert said == [
            "0 of 3 runs over; fold 1 seed 0 epoch 3/9, best P 0.500 (epoch 2)",
            "note: fold 1 seed 0 is tried again, from its last saved epoch: no room",
            "note: new",
            "fold 1 seed 0: best epoch 2 of 9 (all done): runs/fold1/seed0",
            "  table",
        ]

    def test_who_lost_two_workers_has_failed(self, tmp_path):
        """The claim of a dead worker, on whatever host, keeps nobody off the run."""
        job, owner = replace(JOB, folder=tmp_path / "run"), Owner("elsewhere", 1, 2)
        with run_lock(job.folder):
            (claim,) = (job.folder / ".claims").glob("*.json")
            claim.write_text(json.dumps({**json.loads(claim.read_text()), "host": owner.host, "pid": 1, "started": 2}))
            monitor = RunMonitor(1, print)
            monitor.ended(job, WorkerLost("tcp://there", "there", owner))
            assert not claim.exists()
        assert monitor.failed == {job: "its worker on there died: out of memory, or a crash inside a library"}
