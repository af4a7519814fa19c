"""A run here and on workers: the same store, failures that may pass, limits of time, stopping, a full store."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from avfuse.batch.protocols import Cancelled, WorkerLost
from avfuse.encoders.weights.resolve import WeightsInvalid, WeightSource
from avfuse.features_store.claims.claims import claim
from avfuse.features_store.disk.owner import Owner
from avfuse.features_store.disk.unwritable import StoreUnwritable
from avfuse.features_store.records.failures import Stage
from avfuse.features_store.store import FeatureStore
from avfuse.pipeline.config import ExtractConfig, RunConfig
from avfuse.pipeline.extraction.jobs import Job
from avfuse.pipeline.media.types import MediaError
from avfuse.pipeline.runs import attempt as attempt_module
from avfuse.pipeline.runs.progress import Reporter
from avfuse.pipeline.runs.summary import Summary
from avfuse.pipeline.runs.work import ExtractTask, _RunMonitor

FEATURES = ("--features", "mfcc,logmel", "--device", "cpu")


class JobContext:
    """What a job is given; `checks`: how often it may ask before it is stopped."""

    def __init__(self, host=None, checks=10**9):
        self.host, self.checks, self.reports = host, checks, []

    def check(self):
        self.checks -= 1
        if self.checks < 0:
            raise Cancelled

    def tell(self, *words):
        self.reports.append(words)


@pytest.fixture(scope="module")
def clips(tmp_path_factory, make_clip, flashes):
    """Four short clips with sound, the first one the longest, and a file that is not a video."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(4):
        seconds = 4 - number
        samples = np.random.default_rng(number).uniform(-0.5, 0.5, 16_000 * seconds)
        clip = make_clip("c.mp4", flashes(10 * seconds, [3], (64, 64)), rate="10", samples=samples, rate_hz=16_000)
        clip.rename(folder / f"c{number}.mp4")
    (folder / "bad.mp4").write_text("no film")
    return folder


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path / "s.zarr", mode="a")


def job_of(path):
    return Job(path, path.name, path.stem, "largest", path.stat().st_size if path.exists() else 0)


def work_of(store, run=None, **more):
    config = ExtractConfig(features=("mfcc",))
    return ExtractTask(store.path, config, run or RunConfig(device="cpu"), {}, False, 0, **more)


@pytest.fixture
def one(store, monkeypatch):
    """One try at a video, or at what stands in for the extraction."""

    def do(path, run=None, context=None, raising=None):
        if raising is not None:

            def fail(*_):
                raise raising

            monkeypatch.setattr(attempt_module, "extract_video", fail)
        with work_of(store, run).prepare() as function:
            return function(job_of(path), context or JobContext())

    return do


class TestAttempt:
    def test_progress_is_reported(self, clips, one, store):
        context = JobContext()
        receipt = one(clips / "c0.mp4", context=context)
        assert receipt.rows == 40
        assert {words[0] for words in context.reports} == {"picture", "sound"}
        assert "c0" in store

    @pytest.mark.parametrize("checks", [0, 1])
    def test_stopped_in_the_picture_or_in_the_sound(self, clips, one, store, checks):
        with pytest.raises(Cancelled):
            one(clips / "c0.mp4", context=JobContext(checks=checks))
        assert store.trials() == store.incomplete() == []
        assert not [name for name in os.listdir(store.path) if name in (".tmp", ".claims")]

    def test_a_video_may_not_take_for_ever(self, clips, one, store):
        failure = one(clips / "c0.mp4", RunConfig(device="cpu", timeout_factor=1e-9, timeout_floor_s=0))
        assert failure.stage == "timeout"
        assert failure.is_transient
        assert "times its 4.0 s" in failure.reason
        assert "--timeout-factor" in failure.reason
        assert store.trials() == []

    @pytest.mark.parametrize(
        ("error", "stage", "is_transient"),
        [
            (MediaError("x", Stage.VIDEO, "gave nothing", is_transient=True), "video", True),
            (MediaError("x", Stage.VIDEO, "moov atom not found"), "video", False),
            (MediaError("x", Stage.VIDEO, "x.mp4: Input/output error"), "video", True),
            (torch.OutOfMemoryError("2 GB"), "embed", True),
            (MemoryError(), "extract", True),
            (ValueError("odd"), "extract", False),
            (OSError(5, "Input/output error", "/videos/x.mp4"), "read", True),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_what_may_pass(self, clips, one, error, stage, is_transient):
        failure = one(clips / "c0.mp4", raising=error)
        assert (failure.stage, failure.is_transient) == (stage, is_transient)

    @pytest.mark.parametrize("error", [OSError(28, "No space left on device"), StoreUnwritable(2, "removed", "s.zarr")])
    def test_a_store_that_cannot_be_written_ends_the_run(self, clips, one, error):
        with pytest.raises(OSError, match="cannot go on with"):
            one(clips / "c0.mp4", raising=error)

    def test_a_file_that_a_worker_does_not_see_is_named_with_the_worker(self, tmp_path, one):
        failure = one(tmp_path / "away.mp4", context=JobContext(host="node7"))
        assert f"{tmp_path / 'away.mp4'} cannot be opened: No such file or directory" in failure.reason
        assert failure.reason.endswith("(by the worker on node7)")
        assert failure.is_transient  # on another worker
        assert "node" not in one(tmp_path / "away.mp4").reason

    def test_what_another_run_is_processing_is_left_to_it(self, clips, one, store):
        with claim(store.path, "c0") as mine:
            assert mine
            assert one(clips / "c0.mp4") is None


def test_weights_that_differ_on_the_workers_machine(tmp_path, store):
    (tmp_path / "w.pth").write_bytes(b"other")
    source = WeightSource("vggish", "w.pth", tmp_path / "w.pth", "0" * 64, "mine")
    work = ExtractTask(store.path, ExtractConfig(("vggish",)), RunConfig(), {"vggish": source}, False, 0, foreign=True)
    with pytest.raises(WeightsInvalid, match=r"w\.pth is not the same file as on the machine that started the run"):
        work.prepare().__enter__()
    (tmp_path / "w.pth").unlink()
    with pytest.raises(FileNotFoundError, match=r"w\.pth"):
        work.prepare().__enter__()


class Silent(Reporter):
    """A reporter of nothing but what is tried again."""

    def __init__(self):
        super().__init__(io.StringIO(), verbose=False)
        self.reasons: list[tuple[str, str]] = []

    def retried(self, job, reason):
        self.reasons.append((job.trial, reason))


def test_a_dead_workers_claims_and_scratch_are_removed_at_once(clips, store):
    """On another host its claim would keep everybody off its video for ten minutes."""
    code = f"""
import os, signal, sys
from avfuse.features_store.claims.claims import claim
from avfuse.features_store.store import FeatureStore
store = FeatureStore({store.path!r}, mode="a")
with claim(store.path, "c0"), store.temporary_directory() as scratch:
    print(os.getpid(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    claim_file = next(Path(store.path, ".claims").glob("*.json"))
    found = json.loads(claim_file.read_text())
    owner = Owner(found["host"], found["pid"], found["started"])
    reporter, summary = Silent(), Summary(0)
    monitor = _RunMonitor(store, reporter, summary)
    lost = WorkerLost("tcp://10.0.0.7:1", "node7", owner)
    monitor.retried(job_of(clips / "c0.mp4"), lost)
    assert not claim_file.exists()
    assert not Path(store.path, ".tmp").exists()
    ((trial, reason),) = reporter.reasons
    assert trial == "c0"
    assert "its worker on node7 died" in reason
    monitor.ended(job_of(clips / "c0.mp4"), lost)
    assert [(each.stage, each.video) for each in summary.failures] == [("worker", "c0.mp4")]


def contents(store):
    """Every file of a store but what holds times."""
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in Path(store).rglob("*")
        if path.is_file() and path.name != "failures.jsonl"
    }


@pytest.fixture(scope="module")
def serial(clips, tmp_path_factory, avfuse):
    """The store of a run in this process."""
    store = tmp_path_factory.mktemp("serial") / "s.zarr"
    result = avfuse("extract", "--videos", clips, "--store", store, *FEATURES, "--json")
    assert result.exit_code == 3
    return store, json.loads(result.stdout)


@pytest.mark.parametrize(
    "more",
    [pytest.param(("--workers", 2), marks=pytest.mark.slow), ("--videos-at-once", 3)],
    ids=["workers", "threads"],
)
def test_the_same_bytes_as_one_after_the_other(clips, serial, tmp_path, avfuse, more):
    store, summary = serial
    result = avfuse("extract", "--videos", clips, "--store", tmp_path / "s.zarr", *FEATURES, "--json", *more)
    assert result.exit_code == 3, result.stderr
    other = json.loads(result.stdout)
    assert other.keys() == summary.keys()
    assert {each["trial"] for each in other["extracted"]} == {each["trial"] for each in summary["extracted"]}
    assert [each["video"] for each in other["failed"]] == ["bad.mp4"]
    assert contents(tmp_path / "s.zarr") == contents(store)
    lines = (tmp_path / "s.zarr" / "failures.jsonl").read_text().splitlines()
    assert [json.loads(line)["video"] for line in lines] == ["bad.mp4"]


@pytest.fixture
def short(clips, tmp_path):
    """The shortest clip, and the file that is not a video."""
    (tmp_path / "short").mkdir()
    for name in ("c3.mp4", "bad.mp4"):
        shutil.copy(clips / name, tmp_path / "short")
    return tmp_path / "short"


def test_without_networks_torch_is_not_loaded(short, tmp_path):
    words = ["extract", "--videos", str(short), "--store", str(tmp_path / "s.zarr"), "--features", "mfcc,logmel"]
    at_exit = "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules))"
    code = f"{at_exit}; from avfuse.cli import main; main({words!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "False\n", done.stderr
    assert FeatureStore(tmp_path / "s.zarr").trials() == ["c3"]


def test_shards_are_balanced_by_duration_and_do_not_depend_on_what_is_done(clips, tmp_path, avfuse):
    words = ("extract", "--videos", clips, "--store", tmp_path / "s.zarr", *FEATURES, "--dry-run", "--shard")
    parts = [avfuse(*words, f"{index}/2").stdout.split() for index in range(2)]
    assert sorted(parts[0] + parts[1]) == ["bad", "c0", "c1", "c2", "c3"]
    assert [name for name in parts[0] if name != "bad"] == ["c0", "c3"]  # 4 s + 1 s, and 3 s + 2 s
    assert avfuse(*words[:-2], "--limit", 2).exit_code == 3
    left = [avfuse(*words, f"{index}/2").stdout.split() for index in range(2)]
    assert all(set(after) <= set(before) for after, before in zip(left, parts, strict=True))


@pytest.mark.parametrize(
    ("form", "retries"), [pytest.param("rawvideo", 2, marks=pytest.mark.slow), ("f32le", 1)], ids=["picture", "sound"]
)
def test_retries_are_counted_and_only_the_last_failure_is_kept(short, tmp_path, form, retries):
    """An ffmpeg that gives nothing: the disk may be slow, so it is asked once more. No sound is no silence."""
    shim = tmp_path / "bin"
    shim.mkdir()
    real = subprocess.run(["bash", "-c", "command -v ffmpeg"], capture_output=True, text=True, check=True).stdout
    log = tmp_path / "log"
    (shim / "ffmpeg").write_text(
        f'#!/bin/bash\ncase "$*" in *c3.mp4*{form}*) echo x >> {log}; exec sleep 30;; esac\nexec {real.strip()} "$@"\n'
    )
    (shim / "ffmpeg").chmod(0o755)
    store = tmp_path / "s.zarr"
    command = [sys.executable, "-m", "avfuse", "extract", "--videos", short, "--store", store, *FEATURES]
    environment = {**os.environ, "PATH": f"{shim}{os.pathsep}{os.environ['PATH']}"}
    words = [*command, "--stall-timeout", "1.5", "--retries", str(retries)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 3, done.stderr
    assert log.read_text().split() == ["x"] * (1 + retries)
    assert done.stderr.count("trying again: c3.mp4: ffmpeg gave nothing for 1.5 s") == retries
    lines = [json.loads(line) for line in (store / "failures.jsonl").read_text().splitlines()]
    assert sorted(line["video"] for line in lines) == ["bad.mp4", "c3.mp4"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--workers", "2", "--scheduler", "tcp://x:1"), "give one of them"),
        (("--jobqueue", "kind=moon", "--jobqueue", "jobs=1"), "kind is one of slurm, pbs, sge, got 'moon'"),
        (("--jobqueue", "kind"), "is not KEY=VALUE"),
        (("--workers", "0"), "0"),
        (("--timeout-factor", "0"), "0"),
    ],
)
def test_wrong_usage(clips, tmp_path, avfuse, words, complaint):
    result = avfuse("extract", "--videos", clips, "--store", tmp_path / "s.zarr", *FEATURES, *words)
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert not (tmp_path / "s.zarr").exists()


def test_a_scheduler_that_does_not_answer(clips, tmp_path, avfuse, monkeypatch):
    monkeypatch.setattr("avfuse.batch.cluster.connect._CONNECT_S", 1)
    words = ("--store", tmp_path / "s.zarr", *FEATURES, "--scheduler", "tcp://127.0.0.1:9")
    result = avfuse("extract", "--videos", clips, *words)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("Error: no dask scheduler answers at tcp://127.0.0.1:9: ")
