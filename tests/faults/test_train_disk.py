"""Training on a disk that is full or may not be written: one line, and the last saved epoch survives."""

import os
import resource
import shutil
import subprocess
import time
from dataclasses import replace

import pytest

from avfuse.fusion.artifacts.state import load_state

EPOCHS = 12


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, plant_small):
    return plant_small(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def whole(corpus, fit, tmp_path_factory):
    """A run that nothing has stopped."""
    run = tmp_path_factory.mktemp("whole") / "run"
    fit(corpus, run, "--epochs", EPOCHS)
    return run


@pytest.fixture(scope="module")
def alone(cli):
    """The command line on one thread: two wait for each other on a busy machine."""
    return replace(cli, environment={**cli.environment, "OMP_NUM_THREADS": "1"})


def epochs_in(run):
    state = load_state(run)
    return 0 if state is None else len(state.history)


def test_no_space_left(corpus, fit, avfuse, train_words, make_disk, same_run, reason, tmp_path):
    """There is room for the files of a run, but not for a second state beside the first one."""
    fit(corpus, tmp_path / "run")
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "run").rglob("*") if path.is_file()}
    room = sum(-(-size // 4096) * 4096 for size in sizes.values()) + sizes["training.pt"] // 2
    disk = make_disk(f"size={room}")
    result = avfuse(*train_words(corpus, disk / "run"))
    assert result.exit_code == 1
    assert reason(result.stderr).startswith(f"Error: {disk / 'run'}/")
    assert "No space left" in reason(result.stderr)
    assert 1 <= epochs_in(disk / "run") < 3
    assert not [name for name in os.listdir(disk / "run") if name.startswith(".")]
    subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
    fit(corpus, disk / "run", "--resume")
    same_run(disk / "run", tmp_path / "run")


@pytest.mark.slow
def test_the_disk_is_full_in_the_middle(corpus, whole, alone, train_words, fit, same_run, reason, tmp_path):
    """From the third epoch on no file may grow beyond 1 kB."""
    run = tmp_path / "run"
    words = train_words(corpus, run, "--epochs", EPOCHS, "--tensorboard")
    with alone.start(*map(str, words)) as process:
        until_s = time.monotonic() + 60
        while not (run / "history.csv").is_file() or len((run / "history.csv").read_text().splitlines()) < 3:
            assert process.poll() is None, "the run ended before its disk was full"
            assert time.monotonic() < until_s
            time.sleep(0.002)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1000, 1000))
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert reason(said.decode()) in [
        f"Error: {run / name}: File too large" for name in ("training.pt", "model.safetensors")
    ]
    assert not [name for name in os.listdir(run) if name.startswith(".")]
    assert 2 <= epochs_in(run) < EPOCHS
    fit(corpus, run, "--epochs", EPOCHS, "--resume")
    same_run(run, whole)


@pytest.mark.slow
def test_the_disk_is_full_from_the_start(corpus, whole, alone, train_words, fit, same_run, reason, tmp_path):
    """Not one file is written; a second call begins, without --resume."""
    run = tmp_path / "run"
    words = train_words(corpus, run, "--epochs", EPOCHS)
    done = alone.run(*map(str, words), preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20)))
    assert done.returncode == 1
    assert reason(done.stderr) == f"Error: {run / 'fold.json'}: File too large"
    assert list(run.iterdir()) == []
    fit(corpus, run, "--epochs", EPOCHS)
    same_run(run, whole)


@pytest.mark.slow
def test_a_folder_that_may_not_be_written(corpus, whole, alone, train_words, plain_user, reason, snapshot, tmp_path):
    """A run to go on with: what it holds stays as it is."""
    run = shutil.copytree(whole, tmp_path / "run")
    (run / "finished.json").unlink()
    before = snapshot(run)
    run.chmod(0o555)
    words = train_words(corpus, run, "--epochs", EPOCHS, "--resume")
    done = alone.run(*map(str, words), prefix=plain_user)
    run.chmod(0o755)
    assert done.returncode == 1
    assert reason(done.stderr) == f"Error: {run / 'fold.json'}: Permission denied"
    assert snapshot(run) == before
