"""Workers as jobs of a queueing system: settings, the job script, errors. No real queue is needed."""

import os
from pathlib import Path

import click
import pytest

from avfuse.batch.cluster.connect import queue_client
from avfuse.batch.cluster.jobqueue import make_cluster, read_jobqueue
from avfuse.batch.loop import run_jobs
from avfuse.batch.options import target_of
from avfuse.batch.protocols import WorkerUnfit
from avfuse.batch.signals import StopRequest
from avfuse.batch.target import ExecutionTarget, open_executor

# A cluster that fails in its making is warned of by dask when it is collected.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

PAIRS = ("cores=4", "memory=16GB", "walltime=12:00:00", "queue=gpu", "jobs=8")


@pytest.mark.parametrize(
    ("kind", "lines"),
    [
        ("slurm", ["#SBATCH -p gpu", "#SBATCH --cpus-per-task=4", "#SBATCH -t 12:00:00", "#SBATCH --gres=gpu:1"]),
        ("pbs", ["#PBS -q gpu", "#PBS -l walltime=12:00:00", "#PBS --gres=gpu:1"]),
        ("sge", ["#$ -q gpu", "#$ -l h_rt=12:00:00", "#$ --gres=gpu:1"]),
    ],
)
def test_the_job_script(kind, lines):
    queue = read_jobqueue((f"kind={kind}", *PAIRS, "job_extra_directives=['--gres=gpu:1']"))
    assert queue is not None
    assert (queue.jobs, queue.threads) == (8, 4)
    with make_cluster(queue) as cluster:
        script = cluster.job_script()
    for line in lines:
        assert line in script
    assert "distributed.cli.dask_worker tcp://" in script
    assert "--nthreads 4" in script


def test_none():
    assert read_jobqueue(()) is None


@pytest.mark.parametrize(
    ("pairs", "reason"),
    [
        (("kind=slurm", "jobs=1"), "it must say cores and memory of a worker"),
        (("kind=slurm", *PAIRS[:-1]), "jobs is how many workers to ask for, got 0"),
        (PAIRS, "kind is one of slurm, pbs, sge, got ''"),
        (("slurm",), "'slurm' is not KEY=VALUE"),
    ],
)
def test_settings_that_will_not_do(pairs, reason):
    with pytest.raises(ValueError, match=reason):
        read_jobqueue(pairs)
    with pytest.raises(click.UsageError, match=reason):
        target_of(1, None, pairs)


def test_a_setting_that_dask_jobqueue_does_not_know():
    queue = read_jobqueue(("kind=slurm", *PAIRS, "colour=red"))
    assert queue is not None
    with pytest.raises(ValueError, match="colour"):
        make_cluster(queue)


def test_without_the_extra(monkeypatch):
    monkeypatch.setattr("avfuse.batch.cluster.jobqueue.importlib.util.find_spec", lambda name: None)
    queue = read_jobqueue(("kind=slurm", *PAIRS))
    assert queue is not None
    with pytest.raises(WorkerUnfit, match=r"pip install 'avfuse\[jobqueue\]'"):
        make_cluster(queue)


def test_a_machine_without_the_queue(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    queue = read_jobqueue(("kind=slurm", *PAIRS))
    assert queue is not None
    with pytest.raises(WorkerUnfit, match=r"cannot be put into the slurm queue: .*sbatch"), queue_client(queue, print):
        pass


def test_a_queue_that_refuses(monkeypatch, tmp_path):
    (tmp_path / "sbatch").write_text("#!/bin/bash\necho invalid partition >&2\nexit 1\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    queue = read_jobqueue(("kind=slurm", *PAIRS))
    assert queue is not None
    with pytest.raises(WorkerUnfit, match="invalid partition"), queue_client(queue, print):
        pass


def test_a_queue_that_runs_jobs(monkeypatch, tmp_path, toys, recorder):
    """`sbatch` starts the script at once; `scancel` ends it."""
    copied = f'cp "$1" {tmp_path}/job.sh'  # dask-jobqueue removes its script at once
    started = f"setsid bash {tmp_path}/job.sh > {tmp_path}/log 2>&1 < /dev/null &"
    (tmp_path / "sbatch").write_text(f"#!/bin/bash\n{copied}\n{started}\necho Submitted batch job $!\n")
    (tmp_path / "scancel").write_text('#!/bin/bash\nkill -- "-$1"\n')
    for name in ("sbatch", "scancel"):
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]), prepend=os.pathsep)
    queue = read_jobqueue(("kind=slurm", "jobs=1", "cores=1", "memory=1GB", "interface=lo"))
    stop = StopRequest("toys")
    with open_executor(ExecutionTarget(jobqueue=queue), toys, 1, False, stop) as executor:
        run_jobs(toys, ["a", "b"], executor, stop, recorder)
    assert set(recorder.results) == {"a", "b"}
