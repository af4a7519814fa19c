"""A process that slept for longer than its claim lives finds that it is another's, and writes nothing more."""

import json
import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from avfuse.features_store.claims.claims import ClaimLost, claim
from avfuse.features_store.disk.atomic import remove_file, remove_tree, replace_file
from avfuse.features_store.store import FeatureStore

PATIENCE_S = 120
MORE_EPOCHS = 3


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, plant_small):
    return plant_small(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def alone(cli):
    return replace(cli, environment={**cli.environment, "OMP_NUM_THREADS": "1"})


def age(folder):
    """What is claimed in a folder was last touched a long time ago."""
    for path in (folder / ".claims").iterdir():
        os.utime(path, (time.time() - 700,) * 2)


@contextmanager
def suspended(process, ready):
    """Stop a process when it is `ready`, wake it at the end."""
    until_s = time.monotonic() + PATIENCE_S
    while not ready():
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < until_s
        time.sleep(0.01)
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


class TestTraining:
    @pytest.fixture
    def words(self, corpus, train_words, tmp_path):
        return train_words(corpus, tmp_path / "run", "--epochs", 2000, "--set", "early_stop=2000")

    @pytest.mark.slow
    def test_who_was_suspended_leaves_the_run_as_its_new_owner_made_it(
        self, corpus, alone, words, train_words, avfuse, snapshot, reason, tmp_path
    ):
        """The other one goes on, with epochs of its own to the end, while the first one sleeps."""
        run = tmp_path / "run"
        with alone.start(*map(str, words)) as process:
            with suspended(process, (run / "metrics.json").is_file):
                age(run)
                epochs = MORE_EPOCHS + len((run / "history.csv").read_text().splitlines())
                end = ("--epochs", epochs, "--set", "early_stop=2000", "--resume")
                result = avfuse(*train_words(corpus, run, *end))
                assert result.exit_code == 0, result.stderr
                assert json.loads((run / "finished.json").read_text())["epochs"] == epochs
                before = snapshot(run)
            _, said = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 1
        message = "its claim is gone: taken over and finished by another process, or removed by hand"
        assert reason(said.decode()) == f"Error: {run}: {message}; this call has stopped, and writes nothing more there"
        assert snapshot(run) == before

    @pytest.mark.slow
    def test_the_new_owner_is_named(self, alone, words, reason, tmp_path):
        run = tmp_path / "run"
        with alone.start(*map(str, words)) as process:
            with suspended(process, (run / "metrics.json").is_file):
                age(run)
                other = claim(run, "run")
                assert other.__enter__()
            _, said = process.communicate(timeout=PATIENCE_S)
        other.__exit__(None, None, None)
        assert process.returncode == 1
        assert f"{run}: its claim was taken over by process {os.getpid()} on " in reason(said.decode())
        assert not (run / "finished.json").exists()


class TestExtraction:
    def test_who_was_suspended_leaves_the_trial_to_its_new_owner(self, cli, invoke, videos, shim, snapshot, tmp_path):
        store, go = tmp_path / "s.zarr", tmp_path / "go"
        slow = shim(f'case "$*" in *slow.mp4*) while [ ! -e "{go}" ]; do sleep 0.02; done;; esac')
        words = ("extract", "--videos", videos("slow.mp4"), "--store", store, "--features", "mfcc", "--device", "cpu")
        with cli.start(*words, path=slow.folder) as process:
            slow.wait_for_call(process, "slow.mp4")
            with suspended(process, lambda: True):
                go.touch()
                age(store)
                assert invoke(*words).exit_code == 0
                before = snapshot(store / "slow")
            _, said = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, said
        assert b"1 trial left to another run" in said
        assert snapshot(store / "slow") == before

    def test_a_trial_whose_claim_was_removed_is_done_again(self, cli, videos, shim, tmp_path):
        store, go = tmp_path / "s.zarr", tmp_path / "go"
        slow = shim(f'case "$*" in *slow.mp4*) while [ ! -e "{go}" ]; do sleep 0.02; done;; esac')
        words = ("extract", "--videos", videos("slow.mp4"), "--store", store, "--features", "mfcc", "--device", "cpu")
        with cli.start(*words, path=slow.folder) as process:
            slow.wait_for_call(process, "slow.mp4")
            shutil.rmtree(store / ".claims")
            go.touch()
            _, said = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, said
        assert b"1 extracted, 0 done before, 0 failed" in said
        assert FeatureStore(store).trials() == ["slow"]


class TestFence:
    @pytest.fixture
    def lost(self, tmp_path):
        """In a folder with a file, and a store, whose claims are both lost."""
        store = FeatureStore(tmp_path / "s.zarr", mode="a")
        store.write("a", {"time": np.arange(3.0)}, {"fingerprint": "theirs"})
        (tmp_path / "file").write_bytes(b"theirs")
        with claim(tmp_path, "run"), claim(store.path, "a"):
            shutil.rmtree(tmp_path / ".claims")
            shutil.rmtree(tmp_path / "s.zarr/.claims")
            yield tmp_path

    @pytest.mark.parametrize(
        "write",
        [
            lambda folder: replace_file(folder / "file", b"ours"),
            lambda folder: remove_file(folder / "file"),
            lambda folder: remove_tree(folder / "s.zarr/a"),
            lambda folder: FeatureStore(folder / "s.zarr", mode="a").write("a", {"time": np.zeros(3)}, {}),
            lambda folder: FeatureStore(folder / "s.zarr", mode="a").write("b", {"time": np.zeros(3)}, {}),
            lambda folder: FeatureStore(folder / "s.zarr", mode="a").remove("a"),
        ],
        ids=[
            "replace a file",
            "remove a file",
            "remove a folder",
            "replace a trial",
            "write a trial",
            "remove a trial",
        ],
    )
    def test_nothing_is_written(self, lost, write, snapshot):
        before = {name: content for name, (_, content) in snapshot(lost).items()}
        with pytest.raises(ClaimLost):
            write(lost)
        assert {name: content for name, (_, content) in snapshot(lost).items()} == before

    def test_other_threads_and_later_work_are_not_fenced(self, lost):
        with ThreadPoolExecutor(1) as other:
            other.submit(replace_file, lost / "file", b"another's").result()
        assert (lost / "file").read_bytes() == b"another's"

    def test_the_fence_ends_with_the_claim(self, tmp_path):
        with claim(tmp_path, "run"):
            shutil.rmtree(tmp_path / ".claims")
        replace_file(tmp_path / "file", b"new")
        assert (tmp_path / "file").read_bytes() == b"new"
