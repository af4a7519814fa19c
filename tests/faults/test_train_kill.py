"""A run of training that is stopped at any moment goes on as if it had not been."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import termios
import time
from dataclasses import replace
from functools import cache

import pytest
from safetensors.torch import load_file

from avfuse.fusion.artifacts.state import load_state

TEMPORARY = re.compile(r"\.\d+\.[0-9a-f]{12}")
EPOCHS = 12

# What takes long, once for all runs that are killed.
LOADS = """
import torch, zarr
import avfuse.fusion.commands, avfuse.fusion.runs.crossval, avfuse.fusion.inference.evaluate
parameter = torch.zeros(1, requires_grad=True)
parameter.grad = torch.zeros(1)
torch.optim.Adam([parameter]).step()
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, plant_small):
    return plant_small(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def uninterrupted(corpus, fit, tmp_path_factory):
    """What a run of so many epochs gives."""

    @cache
    def make(epochs):
        run = tmp_path_factory.mktemp("whole") / str(epochs)
        fit(corpus, run, "--epochs", epochs)
        return run

    return make


@pytest.fixture(scope="module")
def alone(cli):
    """The command line on one thread: two wait for each other on a busy machine."""
    return replace(cli, environment={**cli.environment, "OMP_NUM_THREADS": "1"})


@pytest.fixture
def whole_again(corpus, fit, same_run, uninterrupted):
    """Go on with a run; what comes out is what an uninterrupted one gives, and nothing else lies there."""

    def check(run, epochs):
        fit(corpus, run, "--epochs", epochs, "--resume")
        same_run(run, uninterrupted(epochs))
        for one in (uninterrupted(epochs) / "predictions").iterdir():
            assert (run / "predictions" / one.name).read_bytes() == one.read_bytes()
        assert json.loads((run / "finished.json").read_text())["epochs"] == epochs
        assert [path for path in run.rglob("*") if TEMPORARY.fullmatch(path.name)] == []

    return check


def epochs_in(run):
    path = run / "history.csv"
    return len(path.read_text().splitlines()) - 1 if path.is_file() else 0


def wait_for_epoch(run, epoch, process):
    until_s = time.monotonic() + 60
    while epochs_in(run) < epoch:
        assert process.poll() is None, "the run ended before it was to be stopped"
        assert time.monotonic() < until_s
        time.sleep(0.002)


@pytest.fixture(scope="module", params=[8, pytest.param(2, marks=pytest.mark.slow)], ids=["some", "all"])
def killed(request, dying, corpus, train_words, tmp_path_factory):
    """Runs of two epochs, killed at every second, or eighth, flush of a file in turn: before it gets its name."""
    folder = tmp_path_factory.mktemp("killed")
    with dying(LOADS) as run:

        def end_of(last):
            return run(last, [*map(str, train_words(corpus, folder / str(last), "--epochs", 2))])

        flushes = int(end_of(0))
        # A file is flushed, then its folder: 1 to 10 describe the run, 11 to 18 are the first epoch's.
        flushes_of_files = [1, 9, 11, *range(19, flushes, request.param)]
        assert {end_of(last) for last in flushes_of_files} == {"killed"}
    return [folder / str(last) for last in flushes_of_files]


def test_killed_while_any_file_is_written(killed, whole_again):
    """Description, state, weights, scores, history, predictions, the mark of the end: it goes on from each."""
    saved = []
    for run in killed:
        left = [path for path in run.rglob("*") if TEMPORARY.fullmatch(path.name)]
        assert len(left) == 1
        state = load_state(run)
        saved.append(0 if state is None else len(state.history))
        if (run / "model.safetensors").exists():
            load_file(run / "model.safetensors")
        assert not (run / "finished.json").exists()
        whole_again(run, 2)
    assert saved == sorted(saved)
    assert set(saved) == {0, 1, 2}


@pytest.mark.slow
def test_killed_from_outside(corpus, alone, train_words, avfuse, whole_again, tmp_path):
    """With all its pictures and events; without --resume a second call touches nothing."""
    words = train_words(corpus, tmp_path / "run", "--epochs", EPOCHS, "--plots", "--tensorboard")
    with alone.start(*map(str, words)) as process:
        wait_for_epoch(tmp_path / "run", 3, process)
        process.kill()
        _, said = process.communicate(timeout=10)
    assert process.returncode == -signal.SIGKILL
    assert b"1 run to do" in said
    assert b"\r" not in said
    before = (tmp_path / "run" / "training.pt").read_bytes()
    saved = load_state(tmp_path / "run")
    assert saved is not None
    assert 3 <= len(saved.history) < EPOCHS
    result = avfuse(*words)
    assert result.exit_code == 1
    message = f"Error: {tmp_path / 'run'} holds a run that has not ended: --resume goes on, or name another --out"
    assert result.stderr.splitlines()[-1] == message
    assert (tmp_path / "run" / "training.pt").read_bytes() == before
    whole_again(tmp_path / "run", EPOCHS)


@pytest.mark.slow
def test_a_run_killed_while_it_gets_more_epochs_has_not_finished(
    corpus, alone, fit, train_words, whole_again, tmp_path
):
    fit(corpus, tmp_path / "run", "--epochs", 2)
    with alone.start(*map(str, train_words(corpus, tmp_path / "run", "--epochs", EPOCHS, "--resume"))) as process:
        wait_for_epoch(tmp_path / "run", 3, process)
        process.kill()
        process.communicate(timeout=10)
    assert not (tmp_path / "run" / "finished.json").exists()
    whole_again(tmp_path / "run", EPOCHS)


@pytest.mark.slow
def test_ctrl_c_on_a_terminal(corpus, alone, train_words, whole_again, tmp_path, read_terminal):
    """A bar while it runs, one line at the end, exit code 130."""
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("4H", 24, 120, 0, 0))
    streams = {"stdin": end, "stdout": end, "stderr": end}

    def own_terminal():
        os.setsid()
        fcntl.ioctl(end, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a suite started in the background ignores it

    words = train_words(corpus, tmp_path / "run", "--epochs", EPOCHS)
    try:
        with alone.start(*map(str, words), preexec_fn=own_terminal, **streams) as process:
            os.close(end)
            wait_for_epoch(tmp_path / "run", 2, process)
            os.write(terminal, b"\x03")
            said = read_terminal(terminal)
    finally:
        os.close(terminal)
    assert process.returncode == 130
    assert "Traceback" not in said
    last = said.rstrip().splitlines()[-1]
    message = f"1 run to do: fold 0 seed 0 (--resume goes on in {tmp_path / 'run'})"
    assert last == f"Error: stopped by SIGINT with {message}; what is done is safe, run again to go on"
    assert f"fold 0 seed 0 epoch 2/{EPOCHS}:" in said
    assert said.replace("\r\n", "\n").count("\r") > 2
    saved = load_state(tmp_path / "run")
    assert saved is not None
    assert 2 <= len(saved.history) < EPOCHS
    whole_again(tmp_path / "run", EPOCHS)


@pytest.mark.slow
def test_a_comparison_killed_from_outside(corpus, alone, avfuse, same_run, tmp_path):
    """In the second of its runs: the first is not done again, and all comes out as if nothing had been."""
    place = ("compare", "--store", corpus.store, "--annotations", corpus.annotations, "--modalities", "face,voice")
    settings = ("--set", "window_frames=60", "--set", "hop_frames=40", "--set", "warmup_epochs=1", "--device", "cpu")
    what = ("--presets", "concat", "--seeds", 2, "--fold", 0, "--epochs", EPOCHS, "--no-tensorboard")
    words = (*place, *settings, *what)
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert avfuse(*words, "--out", whole).exit_code == 0
    runs = [f"concat_face+voice/fold0/seed{seed}" for seed in (0, 1)]
    with alone.start(*map(str, words), "--out", str(out)) as process:
        wait_for_epoch(out / runs[1], 3, process)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    state = load_state(out / runs[1])
    assert state is not None
    assert 3 <= len(state.history) < EPOCHS
    assert not (out / "compare.json").exists()
    first = {path: path.stat().st_mtime_ns for path in (out / runs[0]).rglob("*") if path.is_file()}
    result = avfuse(*words, "--out", out)
    assert result.exit_code == 0, result.stderr
    assert "1 run to do, 1 done before" in result.stderr
    assert {path: path.stat().st_mtime_ns for path in first} == first
    for run in runs:
        same_run(out / run, whole / run)
    one, other = (json.loads((folder / "compare.json").read_text()) for folder in (out, whole))
    assert [each["scores"] for each in one["runs"]] == [each["scores"] for each in other["runs"]]
