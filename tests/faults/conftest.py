"""Tiny clips, the command line as a process of its own or in this one, and an ffmpeg that waits."""

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from avfuse.cli import main

PATIENCE_S = 180  # on a busy machine; nothing here is about speed


# Each run in a process of its own, which dies at its n-th flush of a file or folder to the disk. LOADS is what takes
# long, once for all children.
DIES = """
import json, os, signal, sys
LOADS
from avfuse.cli import main

flush = os.fsync
for line in sys.stdin:
    last, words = json.loads(line)
    child = os.fork()
    if not child:
        torch.set_num_threads(1)
        done = 0
        def fsync(handle):
            global done
            done += 1
            if done == last:
                os.kill(os.getpid(), signal.SIGKILL)
            flush(handle)
        os.fsync = fsync
        answers, sys.stdout = sys.stdout, sys.stderr  # where the run prints its table
        try:
            main(words, standalone_mode=False)
        finally:
            print(done, file=answers, flush=True)
            os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL:
        print("killed", flush=True)
"""


@pytest.fixture(scope="session")
def dying() -> Callable[[str], AbstractContextManager[Callable[[int, list[str]], str]]]:
    """A process for runs, after its `loads`: run(n, words) is `killed` at its n-th flush, or says how many it had."""

    @contextmanager
    def start(loads: str) -> Iterator[Callable[[int, list[str]], str]]:
        command = [sys.executable, "-c", DIES.replace("LOADS", loads)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
            stdin, stdout = process.stdin, process.stdout
            assert stdin is not None
            assert stdout is not None

            def run(last: int, words: list[str]) -> str:
                print(json.dumps([last, words]), file=stdin, flush=True)
                return stdout.readline().strip()

            yield run
            stdin.close()
        assert process.returncode == 0

    return start


@dataclass(frozen=True)
class Cli:
    """`python -m avfuse` as a process, with no weights on this machine but those that a test names."""

    environment: dict[str, str]

    def start(
        self, *words, prefix=(), path: Path | None = None, before: str = "", **options
    ) -> subprocess.Popen[bytes]:
        """Begin a run, after the code `before`; `path` is looked through for programs first."""
        search = {"PATH": f"{path}{os.pathsep}{os.environ['PATH']}"} if path else {}
        begin = ("-c", f"{before}; from avfuse.cli import main; main()") if before else ("-m", "avfuse")
        command = [*prefix, sys.executable, *begin, *map(os.fspath, words)]
        kept = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.Popen(command, env={**self.environment, **search}, **kept)

    def run(self, *words, **options) -> subprocess.CompletedProcess[str]:
        """Run to the end."""
        with self.start(*words, **options) as process:
            out, err = (said.decode("utf-8", "surrogateescape") for said in process.communicate(timeout=PATIENCE_S))
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture(scope="session")
def cli(tmp_path_factory) -> Cli:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AVFUSE_", "SLURM_"))}
    return Cli({**kept, "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))})


@pytest.fixture
def invoke(tmp_path, monkeypatch) -> Callable[..., Result]:
    """The same in this process, where torch is loaded once for all tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("AVFUSE_WEIGHTS", raising=False)

    def run(*words) -> Result:
        result = CliRunner().invoke(main, [*map(os.fspath, words)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture(scope="session")
def plain_user() -> tuple[str, ...]:
    """Words before a command that take root's right to read and write everything away."""
    if os.geteuid() != 0:
        return ()
    if shutil.which("setpriv") is None:
        pytest.skip("root may read every file, and there is no setpriv to give that right up")
    rights = "-dac_override,-dac_read_search"
    return ("setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory, ffmpeg_run) -> Callable[..., Path]:
    """A clip of 64 × 64 px at 10 frames/s with a tone; made once for the same words."""
    made: dict[tuple[object, ...], Path] = {}

    def make(suffix: str = ".mp4", *options: str, seconds: float = 1, size: str = "64x64", sound: bool = True):
        key = (suffix, *options, seconds, size, sound)
        if key not in made:
            path = tmp_path_factory.mktemp("tiny") / f"clip{suffix}"
            words = ["-f", "lavfi", "-i", f"testsrc=s={size}:r=10:d={seconds}"]
            words += ["-f", "lavfi", "-i", f"sine=440:d={seconds}:r=16000"] if sound else []
            pixels = [] if "-pix_fmt" in options else ["-pix_fmt", "yuv420p"]
            ffmpeg_run(*words, *pixels, *options, path)
            made[key] = path
        return made[key]

    return make


@pytest.fixture
def videos(tmp_path, tiny) -> Callable[..., Path]:
    """A folder of one clip under many names."""

    def fill(*names: str, source: Path | None = None) -> Path:
        for name in names:
            target = tmp_path / "videos" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source or tiny(), target)
        return tmp_path / "videos"

    return fill


@dataclass(frozen=True)
class Shim:
    """An `ffmpeg` in `folder` that notes how it is called in `log`, then is the real one."""

    folder: Path
    log: Path

    def wait_for_call(self, process: subprocess.Popen[bytes], name: str) -> None:
        """Wait until the run decodes the file `name`."""
        until_s = time.monotonic() + PATIENCE_S
        while not (self.log.is_file() and name in self.log.read_text()):
            assert process.poll() is None, "the run ended before it was to be stopped"
            assert time.monotonic() < until_s
            time.sleep(0.02)


@pytest.fixture
def shim(tmp_path) -> Callable[[str], Shim]:
    def make(body: str) -> Shim:
        folder = tmp_path / "bin"
        folder.mkdir()
        script = folder / "ffmpeg"
        log = folder / "log"
        script.write_text(
            f'#!/bin/bash\nLOG="{log}"\necho "$PPID $*" >> "$LOG"\n{body}\nexec {shutil.which("ffmpeg")} "$@"\n'
        )
        script.chmod(0o755)
        return Shim(folder, log)

    return make


@pytest.fixture
def stuck(shim) -> Shim:
    """An `ffmpeg` that gives nothing for the file slow.mp4."""
    return shim('case "$*" in *slow.mp4*) exec sleep 30;; esac')


@pytest.fixture(scope="session")
def failures() -> Callable[[Path], list[dict[str, Any]]]:
    """The lines of a store's failures.jsonl, each of which must be whole."""

    def read(store: Path) -> list[dict[str, Any]]:
        path = store / "failures.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    return read


@pytest.fixture(scope="session")
def reason() -> Callable[[str], str]:
    """The last line on stderr, which must be the reason; there is no traceback."""

    def read(err: str) -> str:
        assert "Traceback" not in err
        lines = err.strip().splitlines()
        assert lines
        assert lines[-1].startswith("Error: ")
        return lines[-1]

    return read


@pytest.fixture(scope="session")
def snapshot() -> Callable[[Path], dict[str, tuple[int, bytes]]]:
    """Every file below a folder: when it was written, and what is in it."""

    def take(folder: Path) -> dict[str, tuple[int, bytes]]:
        return {
            str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
            for path in folder.rglob("*")
        }

    return take


@pytest.fixture(scope="session")
def read_terminal() -> Callable[[int], str]:
    """Read all that comes from a terminal until its other end is closed."""

    def read(terminal: int) -> str:
        said, until_s = b"", time.monotonic() + 20
        while time.monotonic() < until_s:
            if not select.select([terminal], [], [], 0.2)[0]:
                continue
            try:
                said += os.read(terminal, 1 << 16)
            except OSError:  # nobody has it open any more
                return said.decode(errors="replace")
        raise AssertionError(f"still running: {said!r}")

    return read
