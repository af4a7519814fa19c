"""A run that cannot start or go on: one line, exit code 1, a sound store; the next run finishes the work."""

import fcntl
import io
import json
import os
import pty
import resource
import signal
import struct
import subprocess
import termios
import time

import numpy as np
import pytest
import torch

from avfuse.batch.signals import LAST_RESORT_S, StopRequest
from avfuse.batch.target import ExecutionTarget
from avfuse.features_store.store import FeatureStore
from avfuse.pipeline.config import ExtractConfig, RunConfig
from avfuse.pipeline.media.process import ffmpeg_version
from avfuse.pipeline.runs.discover import find_sources
from avfuse.pipeline.runs.plan import Selection, make_plan
from avfuse.pipeline.runs.progress import Reporter
from avfuse.pipeline.runs.summary import begin_summary
from avfuse.pipeline.runs.work import ExtractTask, run_plan

MB = 1 << 20
# How long a run waits for what hangs when it is stopped.
LATEST_END = "import avfuse.batch.signals as signals; signals.LAST_RESORT_S = {}"


class RunsCode:
    """A pickle of this leaves a file behind where loading runs code."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def sound(invoke, store):
    """No chunk is broken, and nothing is half done."""
    result = invoke("verify", "--store", store)
    assert result.exit_code == 0, result.output
    return FeatureStore(store).trials()


def finished(store, trials):
    """These trials, and nothing that a run makes for itself."""
    assert FeatureStore(store).trials() == sorted(trials)
    hidden = {name for name in os.listdir(store) if name.startswith(".")}
    assert hidden <= {".planned.json"}  # what `status` knows of the last plan
    assert list(store.rglob("*.tmp")) == []


def equal_stores(one, other):
    """The same trials with the same settings and the same numbers."""
    one, other = FeatureStore(one), FeatureStore(other)
    assert one.trials() == other.trials()
    for name in one:
        kept = [{**trial.attributes, "source": None} for trial in (one[name], other[name])]
        assert kept[0] == kept[1]
        assert list(one[name]) == list(other[name])
        for array in one[name]:
            assert np.array_equal(one[name][array][:], other[name][array][:], equal_nan=True)


class TestStart:
    """Before the first video."""

    def test_no_videos_folder(self, cli, tmp_path, reason):
        done = cli.run("extract", "--videos", tmp_path / "nowhere", "--features", "mfcc")
        assert done.returncode == 1
        assert "nowhere" in reason(done.stderr)
        assert list(tmp_path.iterdir()) == []

    def test_missing_weights(self, cli, videos, tmp_path, reason):
        done = cli.run("extract", "--videos", videos("a.mp4"), "--store", tmp_path / "s.zarr")
        assert done.returncode == 1
        message = reason(done.stderr)
        for words in ("avfuse weights fetch", "--weights", "AVFUSE_WEIGHTS"):
            assert words in message
        for words in ("iresnet50", "vggish", "Apache-2.0", "non-commercial"):
            assert words in message
        assert len(done.stderr.strip().splitlines()) == 1
        assert not (tmp_path / "s.zarr").exists()

    def test_weights_of_another_network(self, invoke, videos, tmp_path, reason):
        torch.save({f"layer{i}.weight": torch.zeros(2) for i in range(9)}, tmp_path / "other.pth")
        result = self.with_weights(invoke, videos, tmp_path / "other.pth")
        assert result.exit_code == 1
        message = reason(result.stderr)
        assert "other.pth" in message
        for i in range(3):
            assert f"layer{i}.weight" in message
        assert "layer3.weight" not in message

    def test_weights_that_run_code(self, invoke, videos, tmp_path, reason):
        torch.save({"features.0.weight": RunsCode(tmp_path / "ran")}, tmp_path / "evil.pth")
        result = self.with_weights(invoke, videos, tmp_path / "evil.pth")
        assert result.exit_code == 1
        assert "run code" in reason(result.stderr)
        assert not (tmp_path / "ran").exists()

    def test_weights_that_are_no_checkpoint(self, invoke, videos, tmp_path, reason):
        (tmp_path / "page.pth").write_text("<html>404</html>")
        result = self.with_weights(invoke, videos, tmp_path / "page.pth")
        assert result.exit_code == 1
        assert "page.pth" in reason(result.stderr)

    def test_weights_that_are_not_there(self, invoke, videos, tmp_path, reason):
        result = self.with_weights(invoke, videos, tmp_path / "none.pth")
        assert result.exit_code == 1
        assert "none.pth" in reason(result.stderr)

    @staticmethod
    def with_weights(invoke, videos, file):
        words = ("--features", "vggish", "--weights", f"vggish={file}", "--device", "cpu")
        return invoke("extract", "--videos", videos("a.mp4"), *words)

    @pytest.mark.parametrize(
        ("words", "named"),
        [
            (("--features", "mfcc,faces"), "faces"),
            (("--shard", "2/2"), "2/2"),
            (("--shard", "-1/2"), "-1/2"),
            (("--shard", "half"), "half"),
            (("--weights", "vggish"), "vggish"),
            (("--limit", "0"), "0"),
            (("--no-such-option",), "--no-such-option"),
        ],
    )
    def test_wrong_usage(self, invoke, tmp_path, words, named):
        result = invoke("extract", "--videos", tmp_path, *words)
        assert result.exit_code == 2
        assert named in result.stderr.splitlines()[-1]

    def test_no_videos_named(self, cli):
        done = cli.run("extract")
        assert done.returncode == 2
        assert "--videos" in done.stderr

    def test_unknown_key_in_the_configuration(self, invoke, tmp_path):
        (tmp_path / "c.yaml").write_text("features: mfcc\nfeatuers: mfcc\nbatch_sizes: 3\n")
        result = invoke("extract", "--videos", tmp_path, "--config", tmp_path / "c.yaml")
        assert result.exit_code == 2
        assert "batch_sizes, featuers" in result.stderr
        assert result.stdout == ""

    def test_the_store_is_another_folder(self, invoke, videos, tmp_path, snapshot, reason):
        folder = tmp_path / "photos"
        folder.mkdir()
        (folder / "mine.jpg").write_text("mine")
        before = snapshot(folder)
        result = invoke("extract", "--videos", videos("a.mp4"), "--store", folder, "--features", "mfcc")
        assert result.exit_code == 1
        assert "photos" in reason(result.stderr)
        assert snapshot(folder) == before

    def test_the_store_is_a_file(self, invoke, videos, tmp_path, reason):
        (tmp_path / "file").write_text("mine")
        words = ("--store", tmp_path / "file", "--features", "mfcc")
        result = invoke("extract", "--videos", videos("a.mp4"), *words)
        assert result.exit_code == 1
        assert "file" in reason(result.stderr)

    def test_a_store_in_a_folder_without_rights(self, cli, videos, tmp_path, plain_user, reason):
        folder = tmp_path / "locked"
        folder.mkdir(mode=0o555)
        words = ("--videos", videos("a.mp4"), "--store", folder / "s.zarr", "--features", "mfcc")
        done = cli.run("extract", *words, prefix=plain_user)
        assert done.returncode == 1
        assert "locked" in reason(done.stderr)
        assert "Permission denied" in done.stderr

    def test_a_store_that_may_only_be_read(self, cli, invoke, videos, tmp_path, plain_user, reason, snapshot):
        store = tmp_path / "s.zarr"
        words = ("extract", "--store", store, "--features", "mfcc", "--videos")
        assert invoke(*words, videos("a.mp4")).exit_code == 0
        before = snapshot(store)
        store.chmod(0o555)
        done = cli.run(*words, videos("b.mp4"), prefix=plain_user)
        store.chmod(0o755)
        assert done.returncode == 1
        assert "s.zarr" in reason(done.stderr)
        assert "Permission denied" in done.stderr
        assert snapshot(store) == before

    def test_without_ffmpeg_no_video_is_to_blame(self, invoke, videos, tmp_path, monkeypatch, reason, failures):
        folder, store = videos("a.mp4", "b.mp4"), tmp_path / "s.zarr"
        with monkeypatch.context() as patched:
            patched.setenv("PATH", str(tmp_path))
            ffmpeg_version.cache_clear()  # as in a new process
            result = invoke("extract", "--videos", folder, "--store", store, "--features", "mfcc")
        assert result.exit_code == 1
        assert "ffmpeg is not installed" in reason(result.stderr)
        assert failures(store) == []


class TestFullDisk:
    """The disk has no room left."""

    WORDS = ("--features", "logmel", "--device", "cpu")

    @pytest.fixture
    def mixed(self, videos, tiny):
        """One row of `logmel` is 24 kB: b.mp4 does not go into 1 MB, the others do."""
        videos("b.mp4", source=tiny(seconds=6))
        return videos("a.mp4", "c.mp4")

    def test_no_file_may_grow(self, cli, invoke, mixed, tmp_path, reason, failures):
        store = tmp_path / "s.zarr"
        words = ("extract", "--videos", mixed, "--store", store, *self.WORDS)
        message = []
        for limit in (MB, 100):  # in the middle of a trial, and before it: at its claim
            done = cli.run(*words, preexec_fn=lambda limit=limit: limit_files(limit))
            assert done.returncode == 1, done.stderr
            message.append(reason(done.stderr))
            assert "File too large" in message[-1]
            assert sound(invoke, store) == ["a"]
            assert failures(store) == []
        assert invoke(*words).exit_code == 0
        finished(store, ["a", "b", "c"])
        assert [line for line in message if str(store) not in line] == []

    @pytest.mark.parametrize(
        "filled", [pytest.param(False, marks=pytest.mark.slow), True], ids=["while writing", "from the start"]
    )
    def test_no_space_left(self, invoke, mixed, make_disk, reason, failures, filled):
        small_disk = make_disk("size=1m")
        store = small_disk / "s.zarr"
        words = ("extract", "--videos", mixed, "--store", store, *self.WORDS)
        if filled:
            FeatureStore(store, mode="a")
            fill(small_disk / "filler")
        result = invoke(*words)
        assert result.exit_code == 1, result.stderr
        assert "No space left" in reason(result.stderr)
        assert sound(invoke, store) == ([] if filled else ["a"])
        assert failures(store) == []
        subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
        assert invoke(*words).exit_code == 0
        finished(store, ["a", "b", "c"])
        assert str(store) in reason(result.stderr)

    @pytest.mark.slow
    def test_no_space_left_for_what_is_added(self, invoke, mixed, make_disk, reason, failures):
        """Each trial has the feature or not, and what it had before; the next run with room adds the rest."""
        disk = make_disk("size=2m")
        store = disk / "s.zarr"
        words = ("extract", "--videos", mixed, "--store", store, "--device", "cpu", "--features")
        assert invoke(*words, "mfcc").exit_code == 0
        before = {path: (path.stat().st_ino, path.read_bytes()) for path in store.rglob("mfcc*/**/*") if path.is_file()}
        (disk / "filler").write_bytes(bytes(MB))
        result = invoke(*words, "logmel")
        assert result.exit_code == 1, result.stderr
        assert "No space left" in reason(result.stderr)
        assert str(store) in reason(result.stderr)
        assert sound(invoke, store) == ["a", "b", "c"]
        assert [name for name, trial in FeatureStore(store).items() if "logmel" in trial] == ["a"]
        assert failures(store) == []
        subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
        assert invoke(*words, "logmel").exit_code == 0
        finished(store, ["a", "b", "c"])
        assert [trial.features for trial in FeatureStore(store).values()] == [["logmel", "mfcc"]] * 3
        after = {path: (path.stat().st_ino, path.read_bytes()) for path in before}
        assert after == before
        assert sound(invoke, store) == ["a", "b", "c"]


def limit_files(num_bytes):
    """No file of this process may grow beyond this; Python turns the signal into an error."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))


def fill(path):
    with path.open("wb", buffering=0) as file:
        for block in (1 << 16, 1):
            try:
                while True:
                    file.write(bytes(block))
            except OSError:
                continue


class TestInTheMiddle:
    """A run is stopped while it decodes the second of three videos."""

    TRIALS = ("a", "b slow/slow", "c")

    @pytest.fixture
    def three(self, videos):
        return videos("a.mp4", "b slow/slow.mp4", "c.mp4")

    @pytest.fixture
    def words(self, three, tmp_path):
        return ("extract", "--videos", three, "--store", tmp_path / "s.zarr", "--features", "mfcc,logmel")

    def finish(self, invoke, words, tmp_path):
        """A second run does the rest, and what comes out is what one run gives."""
        store = tmp_path / "s.zarr"
        assert sound(invoke, store) == ["a"]
        first = (store / "a" / "zarr.json").stat().st_mtime_ns
        result = invoke(*words)
        assert result.exit_code == 0
        assert "2 videos to do, 1 done before, 0 failed" in result.stderr
        assert (store / "a" / "zarr.json").stat().st_mtime_ns == first
        finished(store, self.TRIALS)
        assert invoke(*words, "--store", tmp_path / "whole.zarr").exit_code == 0
        equal_stores(store, tmp_path / "whole.zarr")
        assert sound(invoke, store) == sorted(self.TRIALS)

    @pytest.mark.slow
    def test_killed(self, cli, invoke, words, stuck, tmp_path):
        with cli.start(*words, path=stuck.folder, start_new_session=True) as process:
            stuck.wait_for_call(process, "slow.mp4")
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate(timeout=10)
        assert process.returncode == -signal.SIGKILL
        assert os.listdir(tmp_path / "s.zarr" / ".tmp")
        self.finish(invoke, words, tmp_path)

    @pytest.mark.parametrize(
        ("more", "resort_s"),
        [
            ((), 2.0),
            pytest.param((), LAST_RESORT_S, marks=pytest.mark.slow),
            pytest.param(("--workers", "2"), LAST_RESORT_S, marks=pytest.mark.slow),
        ],
        ids=["here, soon", "here", "workers"],
    )
    def test_sigterm(self, cli, invoke, three, stuck, tmp_path, failures, more, resort_s):
        """One video is being decoded, by an ffmpeg that gives nothing, when the system asks for the end."""
        store = tmp_path / "s.zarr"
        words = ("extract", "--videos", three, "--store", store, "--features", "mfcc,logmel")
        assert invoke(*words, "--limit", "1").exit_code == 0
        with cli.start(*words, *more, path=stuck.folder, before=LATEST_END.format(resort_s)) as process:
            stuck.wait_for_call(process, "slow.mp4")
            since_s = time.monotonic()
            process.terminate()
            err = process.communicate(timeout=30)[1].decode()
        assert time.monotonic() - since_s < 10
        assert process.returncode == 143
        line = err.strip().splitlines()[-1]
        assert "stopped by SIGTERM with " in line
        assert "b slow/slow" in line
        assert "Traceback" not in err
        assert failures(store) == []
        assert invoke(*words).exit_code == 0
        finished(store, self.TRIALS)

    @pytest.mark.slow
    def test_ctrl_c_on_a_terminal(self, cli, invoke, words, stuck, tmp_path, failures, read_terminal):
        terminal, end = pty.openpty()
        fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
        streams = {"stdin": end, "stdout": end, "stderr": end}

        def own_terminal():
            os.setsid()
            fcntl.ioctl(end, termios.TIOCSCTTY, 0)
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a suite started in the background ignores it

        try:
            with cli.start(*words, path=stuck.folder, preexec_fn=own_terminal, **streams) as process:
                os.close(end)
                stuck.wait_for_call(process, "slow.mp4")
                os.write(terminal, b"\x03")
                said = read_terminal(terminal)
        finally:
            os.close(terminal)
        assert process.returncode == 130
        assert "Traceback" not in said
        assert "1/3 [" in said
        assert "stopped by SIGINT with 2 videos to do: b slow/slow, c; what is done is safe" in said
        assert "b slow/slow picture: " in said
        assert "\r" in said.replace("\r\n", "")
        assert said.rstrip().splitlines()[-1].strip()
        assert failures(tmp_path / "s.zarr") == []
        finished(tmp_path / "s.zarr", ["a"])
        self.finish(invoke, words, tmp_path)


# Nobody goes on before two runs have called ffmpeg.
TOGETHER = 'while [ "$(cut -d" " -f1 "$LOG" | sort -u | wc -l)" -lt 2 ]; do sleep 0.05; done'


@pytest.mark.slow
def test_two_runs_share_the_work(cli, invoke, videos, shim, tmp_path, failures):
    names = [f"clip{i}" for i in range(6)]
    folder, store = videos(*(f"{name}.mp4" for name in names)), tmp_path / "s.zarr"
    (folder / "bad.mp4").write_text("no film")
    together = shim(TOGETHER)
    words = ("extract", "--videos", folder, "--store", store, "--features", "mfcc", "--json")
    runs = [cli.start(*words, path=together.folder) for _ in range(2)]
    said = []
    for run in runs:
        with run:
            said.append(run.communicate(timeout=60))
    summaries = [json.loads(out) for out, _ in said]
    done = [receipt["trial"] for summary in summaries for receipt in summary["extracted"]]
    assert sorted(done) == names
    decoded = [line for line in together.log.read_text().splitlines() if "rawvideo" in line]
    assert len(decoded) == len(names)
    assert {line.split()[0] for line in decoded} == {str(run.pid) for run in runs}
    assert 3 in [run.returncode for run in runs]
    assert sound(invoke, store) == names
    finished(store, names)
    assert {record["video"] for record in failures(store)} == {"bad.mp4"}


def test_what_the_other_run_found_bad_is_not_tried_again(videos, tmp_path, failures):
    """Both runs planned before either of them came to the bad file."""
    folder, store = videos("a.mp4"), FeatureStore(tmp_path / "s.zarr", mode="a")
    (folder / "bad.mp4").write_text("no film")
    config = ExtractConfig(features=("mfcc",))
    sources = find_sources(folder, None, None)
    plans = [make_plan(sources, config, store, Selection(), {}) for _ in range(2)]
    for plan in plans:
        work = ExtractTask(store.path, config, RunConfig(device="cpu"), {}, False, plan.failures_known)
        reporter = Reporter(io.StringIO(), verbose=False)
        run_plan(plan, work, ExecutionTarget(), 1, StopRequest("videos"), reporter, begin_summary(plan, store))
    finished(tmp_path / "s.zarr", ["a"])
    assert [record["video"] for record in failures(tmp_path / "s.zarr")] == ["bad.mp4"]
