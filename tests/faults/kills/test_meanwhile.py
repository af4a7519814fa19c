"""What is done to a store, or to the videos, while a run decodes: one line, the right exit code, and work to go on."""

import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pytest

from avfuse.features_store.records.verify import verify
from avfuse.features_store.store import FeatureStore

TRIALS = ["a", "c", "slow"]
SOUND = ("--features", "mfcc", "--device", "cpu")
PATIENCE_S = 300


def empty(root):
    shutil.rmtree(root)
    root.mkdir()


def to_file(root):
    shutil.rmtree(root)
    root.write_text("a file")


# What happens to the store, and what its owner does before the next run.
TROUBLES: dict[str, tuple[Callable[[Path], object], Callable[[Path], object]]] = {
    "removed": (shutil.rmtree, lambda root: None),
    "emptied": (empty, lambda root: None),
    "a file": (to_file, lambda root: root.unlink()),
    "scratch removed": (lambda root: shutil.rmtree(root / ".tmp"), lambda root: None),
}


@pytest.fixture
def paused(shim, tmp_path):
    """An `ffmpeg` that waits with slow.mp4 until the file `go` is there."""
    go = tmp_path / "go"
    made = shim(f'case "$*" in *slow.mp4*) while [ ! -e "{go}" ]; do sleep 0.02; done;; esac')

    @contextmanager
    def run_of(begin):
        """Between the begin of that video and its pictures."""
        run = begin(str(made.folder))
        until_s = time.monotonic() + PATIENCE_S
        while not (made.log.is_file() and "slow.mp4" in made.log.read_text()):
            assert time.monotonic() < until_s
            time.sleep(0.01)
        yield run
        go.touch()
        run.wait()

    return run_of


@pytest.fixture
def words(videos, tmp_path):
    return ("--videos", videos("a.mp4", "c.mp4", "slow.mp4"), "--store", tmp_path / "s.zarr", *SOUND)


@pytest.fixture
def finishes(runs):
    """The next run does what is left."""

    def check(words, root):
        again = runs.extract(*words)
        assert again.wait() == 0, again.said("err")
        store = FeatureStore(root)
        assert store.trials() == TRIALS
        assert list(verify(store)) == []
        assert {path.name for path in root.iterdir() if path.name.startswith(".")} == {".planned.json"}

    return check


@pytest.mark.parametrize(
    "fault",
    [pytest.param(each, marks=() if each == "removed" else pytest.mark.slow) for each in TROUBLES],
)
def test_something_happens_to_the_store(runs, paused, words, finishes, reason, nothing_half, tmp_path, fault):
    root = tmp_path / "s.zarr"
    happens, fix = TROUBLES[fault]
    with paused(lambda path: runs.extract(*words, path=path)) as run:
        happens(root)
    assert run.wait() == 1, run.said("err")
    assert str(root) in reason(run.said("err"))
    assert "run again" in reason(run.said("err"))
    assert not (root / "failures.jsonl").exists()
    fix(root)
    nothing_half(root)
    finishes(words, root)


def test_claims_that_are_removed_stop_nobody(runs, paused, words, finishes, tmp_path):
    with paused(lambda path: runs.extract(*words, path=path)) as run:
        shutil.rmtree(tmp_path / "s.zarr" / ".claims")
    assert run.wait() == 0, run.said("err")
    finishes(words, tmp_path / "s.zarr")


def test_the_videos_are_removed(runs, paused, words, finishes, failures, tmp_path):
    """Those that are gone have failed; back again they are other files, and done."""
    folder, away = tmp_path / "videos", tmp_path / "away"
    with paused(lambda path: runs.extract(*words, path=path)) as run:
        folder.rename(away)
    assert run.wait() == 3, run.said("err")
    assert "Traceback" not in run.said("err")
    (record,) = failures(tmp_path / "s.zarr")
    assert record["video"] == "slow.mp4"
    away.rename(folder)
    finishes(words, tmp_path / "s.zarr")


@pytest.mark.slow
def test_rights_are_lost(cli, paused, words, finishes, reason, plain_user, failures, tmp_path):
    root = tmp_path / "s.zarr"
    with paused(lambda path: cli.start("extract", *words, prefix=plain_user, path=path)) as run:
        for folder in (root, root / ".tmp", *(root / ".tmp").iterdir()):
            folder.chmod(0o555)
    said = run.communicate()[1].decode()
    for folder in (root, root / ".tmp", *(root / ".tmp").iterdir()):
        folder.chmod(0o755)
    assert run.returncode == 1, said
    assert str(root) in reason(said)
    assert "Permission denied" in said
    assert failures(root) == []
    finishes(words, root)


@pytest.mark.slow
def test_the_disk_becomes_read_only(runs, paused, videos, finishes, reason, make_disk):
    """As after an error of the disk."""
    disk = make_disk()
    words = ("--videos", videos("a.mp4", "c.mp4", "slow.mp4"), "--store", disk / "s.zarr", *SOUND)
    # A second mount of the same files: one may be made read-only while files of it are open.
    with paused(lambda path: runs.extract(*words, path=path)) as run:
        subprocess.run(("mount", "-o", "remount,ro", disk), capture_output=True, check=False)
    assert run.wait() == 1, run.said("err")
    assert "Read-only file system" in reason(run.said("err"))
    subprocess.run(("mount", "-o", "remount,rw", disk), check=True)
    finishes(words, disk / "s.zarr")
