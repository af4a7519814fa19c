"""Every snippet of docs/cluster.md is run, as far as a machine without a queueing system and a bucket allows."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from avfuse.batch.cluster.jobqueue import make_cluster, read_jobqueue
from avfuse.cli import main
from avfuse.features_store.store import FeatureStore
from avfuse.shell.settings_file import load_settings

GUIDE = Path(__file__).parents[1] / "docs" / "cluster.md"
OPTIONS = "--features mfcc --device cpu --json"


def snippets(language):
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(), re.DOTALL)


@pytest.fixture
def videos(tmp_path, ffmpeg_run):
    folder = tmp_path / "my videos"
    folder.mkdir()
    for seconds in (1, 2, 3):
        words = ["-f", "lavfi", "-i", f"testsrc=s=64x64:r=10:d={seconds}", "-f", "lavfi", "-i", f"sine=d={seconds}"]
        ffmpeg_run(*words, "-pix_fmt", "yuv420p", folder / f"c{seconds}.mp4")
    return folder


@pytest.fixture
def environment(tmp_path, videos):
    """What the snippets leave to their user, with the programs of this environment in the path."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "srun").write_text('#!/bin/bash\nexec "$@"\n')
    (programs / "srun").chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**kept, "PATH": path, "VIDEOS": str(videos), "STORE": str(tmp_path / "s.zarr"), "OPTIONS": OPTIONS}


def run(script, environment, folder):
    (folder / "script.sh").write_text(script)
    command = ["bash", "-eu", str(folder / "script.sh")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)


def test_the_array(environment, tmp_path):
    script = snippets("bash")[0]
    done = []
    for index in range(2):
        place = {"SLURM_ARRAY_TASK_ID": str(index), "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_MIN": "0"}
        ended = run(script, {**environment, **place}, tmp_path)
        assert ended.returncode == 0, ended.stderr
        done.append([receipt["trial"] for receipt in json.loads(ended.stdout)["extracted"]])
    assert sorted(map(sorted, done)) == [["c1", "c2"], ["c3"]]
    assert FeatureStore(tmp_path / "s.zarr").trials() == ["c1", "c2", "c3"]


def test_the_directives_end_before_the_time_does():
    """SIGTERM must come to the steps (not to the shell alone), earlier than the 10 s that a run needs."""
    assert "#SBATCH --signal=TERM@60" in snippets("bash")[0].splitlines()


@pytest.mark.slow
def test_the_cluster(environment, tmp_path):
    """A scheduler and two workers as processes of their own, over TCP."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = "trap 'kill $(jobs -p); wait' EXIT\n" + snippets("bash")[1]
    ended = run(script, {**environment, "HOST": "127.0.0.1", "PORT": str(port)}, tmp_path)
    assert ended.returncode == 0, ended.stderr
    (line,) = [line for line in ended.stdout.splitlines() if line.startswith("{")]
    assert sorted(receipt["trial"] for receipt in json.loads(line)["extracted"]) == ["c1", "c2", "c3"]
    assert FeatureStore(tmp_path / "s.zarr").trials() == ["c1", "c2", "c3"]


def test_the_queue(tmp_path):
    (settings,) = snippets("yaml")
    (tmp_path / "videos").mkdir()
    (tmp_path / "c.yaml").write_text(settings.replace("/data", str(tmp_path)))
    extract = main.get_command(click.Context(main), "extract")
    assert extract is not None
    context = click.Context(extract)
    load_settings(context, extract.params[0], tmp_path / "c.yaml")
    assert context.default_map is not None
    queue = read_jobqueue(context.default_map["jobqueue"])
    assert queue is not None
    with make_cluster(queue) as cluster:
        script = cluster.job_script()
    for words in ("-p gpu", "--cpus-per-task=4", "-t 08:00:00", "--gres=gpu:1", "--requeue"):
        assert f"#SBATCH {words}" in script
    result = CliRunner().invoke(main, ["extract", "--config", str(tmp_path / "c.yaml"), "--features", "mfcc"])
    assert result.exit_code == 1  # without videos no worker is asked for
    assert "nothing here is a video" in result.stderr, result.output


def test_an_object_store(avfuse, tmp_path, videos, monkeypatch):
    """Two shards over one URL, where nothing is renamed and nobody has claims."""
    (line,) = [line for block in snippets("console") for line in block.splitlines() if "s3://" in line]
    url = f"memory://{tmp_path.name}/features.zarr"
    there = {"s3://bucket/features.zarr": url, "videos": videos}
    words = [there.get(word, word) for word in line.split()[2:]]
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "2")
    for index in range(2):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(index))
        result = avfuse(*words, *OPTIONS.split())
        assert result.exit_code == 0, result.stderr
    assert FeatureStore(url).trials() == ["c1", "c2", "c3"]


@pytest.mark.slow
def test_preempted_and_requeued(environment, tmp_path, videos, ffmpeg_run):
    """SIGTERM to the step of the array's script in the middle of a video; the same script does the rest."""
    long = ["-f", "lavfi", "-i", "testsrc=s=320x240:r=25:d=60", "-f", "lavfi", "-i", "sine=d=60"]
    ffmpeg_run(*long, "-preset", "ultrafast", "-pix_fmt", "yuv420p", videos / "a long one.mp4")
    script = snippets("bash")[0].replace("srun", "exec srun")
    (tmp_path / "script.sh").write_text(script)
    slow = {**environment, "OPTIONS": "--features mfcc,logmel --device cpu"}
    command = ["bash", str(tmp_path / "script.sh")]
    with subprocess.Popen(command, env=slow, stderr=subprocess.PIPE, text=True) as process:
        until_s = time.monotonic() + 60
        while not list(Path(environment["STORE"]).glob(".claims/*.json")):
            assert process.stderr is not None
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < until_s
            time.sleep(0.02)
        process.terminate()
        said = process.communicate(timeout=15)[1]
    assert process.returncode == 143
    assert "stopped by SIGTERM with 4 videos to do: a long one, c1, c2, c3" in said
    store = Path(environment["STORE"])
    assert not list(store.glob(".tmp/*"))
    assert not list(store.glob(".claims/*"))
    (videos / "a long one.mp4").unlink()
    assert run(script, slow, tmp_path).returncode == 0
    assert FeatureStore(store).trials() == ["c1", "c2", "c3"]
