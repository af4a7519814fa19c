"""What is around a run and is none of its business: streams, settings of other programs, extras, compilers, GPUs."""

import fcntl
import os
import pty
import shlex
import struct
import subprocess
import sys
import termios
from dataclasses import replace
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch

from avfuse.fusion.data.runtime import find_compile_cache
from avfuse.fusion.results.plots import learning_curves, overview, prediction_plot
from avfuse.fusion.runs.loggers import make_watchers, usable
from avfuse.fusion.training import train as training
from avfuse.fusion.training.learner import train_epoch
from avfuse.pipeline.runs.progress import BarReporter, Reporter, make_reporter
from avfuse.shell.progress import shown

HISTORY = {"loss": [1.0, 0.8], "P": [0.1, 0.3], "lr": [1e-4, 1e-4]}
BUSY = "CUDA error: CUDA-capable device(s) is/are busy or unavailable\nSearch for `cudaErrorDevicesUnavailable' in …\n"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, plant_small):
    return plant_small(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def alone(cli, tmp_path):
    """The command line on one thread, in an environment with these changes."""

    def make(**changes):
        kept = {**cli.environment, "OMP_NUM_THREADS": "1", **changes}
        return replace(cli, environment={name: value for name, value in kept.items() if value is not None})

    return make


def is_whole(run):
    return (run / "finished.json").is_file() and (run / "plots/learning_curves.png").is_file()


class TestStreams:
    def test_all_are_closed_while_it_extracts(self, alone, invoke, videos, tmp_path):
        store = tmp_path / "s.zarr"
        words = ("extract", "--videos", videos("a.mp4"), "--store", store, "--features", "mfcc")
        command = shlex.join([sys.executable, "-m", "avfuse", *map(str, words)])
        done = subprocess.run(["bash", "-c", f"{command} <&- >&- 2>&-"], env=alone().environment, check=False)
        assert done.returncode == 0
        assert invoke("verify", "--store", store).stdout.startswith("1 trial")

    @pytest.mark.slow
    def test_all_are_closed(self, corpus, alone, train_words, tmp_path):
        """No file gets the number of one: what a library warns of is written into none. With a strange matplotlibrc."""
        (tmp_path / "matplotlibrc").write_bytes(b"text.usetex: True\nfont.family: NoSuchFont\nno.such.key: \xff\xfe\n")
        words = [sys.executable, "-m", "avfuse", *map(str, train_words(corpus, tmp_path / "run", "--plots"))]
        environment = alone(MATPLOTLIBRC=str(tmp_path / "matplotlibrc")).environment
        done = subprocess.run(["bash", "-c", f"{shlex.join(words)} <&- >&- 2>&-"], env=environment, check=False)
        assert done.returncode == 0
        assert is_whole(tmp_path / "run")

    @pytest.mark.slow
    def test_the_reader_of_stderr_has_gone(self, corpus, alone, train_words, tmp_path):
        """A terminal that hangs up, `2>&1 | head`."""
        words = map(str, train_words(corpus, tmp_path / "run", "--plots"))
        with alone(HOME="/proc/nowhere", XDG_CONFIG_HOME=None).start(*words) as process:
            process.stderr.close()
            assert process.stdout.read().startswith(b"CCC on the validation set")
        assert process.returncode == 0
        assert is_whole(tmp_path / "run")


class TestPictures:
    @pytest.fixture
    def drawn(self, tmp_path):
        def draw(name):
            time_s, rows = np.arange(9) / 25, np.linspace(-1, 1, 18).reshape(9, 2)
            learning_curves(HISTORY, tmp_path / name / "curves.png")
            prediction_plot(tmp_path / name / "clip.png", "clip_0", ("valence", "arousal"), time_s, rows)
            overview(tmp_path / name / "all.png", ("valence", "arousal"), rows, rows, {})
            return [path.read_bytes() for path in sorted((tmp_path / name).iterdir())]

        return draw

    def test_a_users_settings_change_nothing(self, drawn):
        plain = drawn("plain")
        theirs: dict[Any, Any] = {
            "text.usetex": True,
            "font.family": "NoSuchFont",
            "savefig.bbox": "tight",
            "axes.facecolor": "red",
        }
        with mpl.rc_context(theirs):
            assert drawn("theirs") == plain
            assert mpl.rcParams["font.family"] == ["NoSuchFont"]
            assert mpl.rcParams["text.usetex"]


class TestExtras:
    def test_one_that_is_broken(self, tmp_path, monkeypatch):
        (tmp_path / "broken_extra.py").write_text("raise TypeError('Descriptors cannot be\\ncreated directly.')")
        monkeypatch.syspath_prepend(tmp_path)
        said: list[str] = []
        assert not usable("broken_extra", "events", None, said.append)
        why = "(TypeError: Descriptors cannot be created directly.)"
        assert said == [f"note: the run is without events, which cannot be written here {why}"]
        with pytest.raises(ValueError, match=r"^events cannot be written: TypeError: Descriptors cannot be created d"):
            usable("broken_extra", "events", True, said.append)
        assert not usable("broken_extra", "events", False, said.append)
        assert len(said) == 1
        assert usable("json", "events", None, said.append)

    @pytest.mark.slow
    def test_a_broken_tensorboard_is_a_note_and_the_run(self, corpus, alone, train_words, tmp_path):
        """Nobody has asked for it. protobuf and tensorboard disagree like this after an upgrade."""
        (tmp_path / "broken/tensorboard/compat").mkdir(parents=True)
        (tmp_path / "broken/tensorboard/__init__.py").write_text("__version__ = '2.16.0'\n")
        (tmp_path / "broken/tensorboard/compat/__init__.py").write_text("raise TypeError('Descriptors cannot …')\n")
        path = os.pathsep.join([str(tmp_path / "broken"), *filter(None, [os.environ.get("PYTHONPATH")])])
        words = [word for word in train_words(corpus, tmp_path / "run") if word != "--no-tensorboard"]
        done = alone(PYTHONPATH=path).run(*map(str, words))
        assert done.returncode == 0, done.stderr
        (line,) = (line for line in done.stderr.splitlines() if "TensorBoard" in line)
        why = "(TypeError: Descriptors cannot …)"
        assert line == f"note: the run is without TensorBoard's events, which cannot be written here {why}"
        assert len(done.stderr.splitlines()) < 12
        assert (tmp_path / "run/finished.json").is_file()


class TestTorch:
    @pytest.mark.slow
    def test_no_compiler(self, corpus, alone, reason, tmp_path):
        (tmp_path / "bin").mkdir()
        bare = alone(PATH=str(tmp_path / "bin"), CXX="no-such-g++", TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "cache"))
        words = ["train", "--fold", "0", "--store", corpus.store, "--annotations", corpus.annotations, "--compile"]
        words += ["--out", tmp_path / "run", "--modalities", "face,voice", "--preset", "concat", "--device", "cpu"]
        command = [sys.executable, "-m", "avfuse", *map(str, words), "--no-plots", "--no-tensorboard"]
        done = subprocess.run(command, env=bare.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        message = (
            "--compile needs a C++ compiler: install g++, or leave out --compile (InvalidCxxCompiler: No working C++"
        )
        assert reason(done.stderr).startswith(f"Error: {tmp_path / 'run'}: {message}")
        assert len(done.stderr.splitlines()) < 5

    def test_compiled_work_is_kept_where_it_may_be_written(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "mine"))
        find_compile_cache()
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "mine")
        (tmp_path / "file").touch()
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "file/below"))
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        find_compile_cache()
        assert os.path.dirname(os.environ["TORCHINDUCTOR_CACHE_DIR"]) == str(tmp_path)

    def test_a_busy_gpu(self, corpus, avfuse, train_words, reason, monkeypatch, tmp_path):
        """In exclusive mode, held by another job: there is none here, so it is said to be."""

        def busy(*_):
            raise RuntimeError(BUSY)

        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "mem_get_info", busy)
        result = avfuse(*train_words(corpus, tmp_path / "run", "--device", "cuda"))
        assert result.exit_code == 1
        assert reason(result.stderr).startswith("Error: the GPU is held by another job: wait for it, or name another")
        assert len(result.stderr.splitlines()) == 2

    def test_a_busy_gpu_while_extract_loads_its_networks(self, invoke, videos, reason, monkeypatch, tmp_path):
        def busy(*_):
            raise RuntimeError(BUSY)

        monkeypatch.setattr("avfuse.encoders.embed.load_embedders", busy)
        words = (
            "--videos",
            videos("a.mp4"),
            "--store",
            tmp_path / "s.zarr",
            "--features",
            "vggish",
            "--untrained",
            "0",
        )
        result = invoke("extract", *words)
        assert result.exit_code == 1
        assert reason(result.stderr).startswith("Error: the GPU is held by another job: wait for it, or name another")

    def test_one_run_that_torch_fails_leaves_the_others_alone(
        self, corpus, avfuse, train_words, reason, monkeypatch, tmp_path
    ):
        def failing(learner, *words):
            if learner.config.seed == 1:
                raise RuntimeError("CUDA error: an illegal memory access was encountered\nand 20 lines more")
            return train_epoch(learner, *words)

        monkeypatch.setattr(training, "train_epoch", failing)
        result = avfuse(*train_words(corpus, tmp_path / "runs", "--seeds", 3))
        assert result.exit_code == 1
        message = "RuntimeError: CUDA error: an illegal memory access was encountered"
        assert reason(result.stderr) == f"Error: 1 of 3 runs failed: {tmp_path / 'runs/fold0/seed1'}: {message}"
        assert sorted(path.parent.name for path in tmp_path.rglob("finished.json")) == ["seed0", "seed2"]


@pytest.mark.parametrize("columns", [0, 80])
def test_a_terminal_without_a_width_gets_lines(columns, read_terminal, tmp_path):
    """As `script` and CI jobs open it: a bar of no columns would show nothing at all."""
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
    try:
        with open(end, "w") as stream:
            reporter = make_reporter(verbose=False, stream=stream)
            (watcher,) = make_watchers("run", 2, tmp_path, tensorboard=False, stream=stream)
            assert type(reporter) is (BarReporter if columns else Reporter)
            reporter.begin(3, "starting 2 workers")
            reporter.end()
            assert list(shown([1, 2], "reading", stream)) == [1, 2]
            watcher.close()
        said = read_terminal(terminal)
    finally:
        os.close(terminal)
    assert "starting 2 workers" in said
    assert ("0/3 [" in said) == ("\r" in said.replace("\r\n", "")) == bool(columns)
