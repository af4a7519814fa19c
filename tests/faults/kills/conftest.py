"""Runs that can be killed: processes of one server that has loaded everything, and what a kill must leave."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from avfuse.features_store.records.verify import verify
from avfuse.features_store.store import FeatureStore

SERVER = Path(__file__).with_name("server.py")
PATIENCE_S = 120
SOAK = "AVFUSE_KILLS" in os.environ


@dataclass
class Run:
    """A run of the server, in a session of its own."""

    server: "Server"
    pid: int
    log: Path
    code: int | None = None

    def wait(self) -> int:
        """Exit code, or minus the signal."""
        if self.code is None:
            self.code = self.server.ask({"wait": self.pid})["code"]
        return self.code

    def said(self, kind: str) -> str:
        return Path(f"{self.log}.{kind}").read_text(errors="surrogateescape")


class Server:
    """Starts runs as forks of a process that has loaded everything."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self.process, self.folder, self.started = process, folder, 0

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        print(json.dumps(question), file=self.process.stdin, flush=True)
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def start(self, **request) -> Run:
        self.started += 1
        log = self.folder / str(self.started)
        return Run(self, self.ask({"start": {**request, "log": str(log)}})["pid"], log)

    def extract(self, *words, **request) -> Run:
        return self.start(words=["extract", *map(os.fspath, words)], **request)

    def finish(self, **request) -> Run:
        """A run that must end well."""
        run = self.start(**request)
        assert run.wait() == 0, run.said("err")
        return run


@contextmanager
def serving(what: str, tmp_path_factory) -> Iterator[Server]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AVFUSE_", "SLURM_"))}
    # On one thread: two wait for each other on a busy machine.
    kept |= {"XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache")), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SERVER), what]
    with subprocess.Popen(
        command, env=kept, start_new_session=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Server(process, tmp_path_factory.mktemp("said"))
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture(scope="session")
def stores(tmp_path_factory) -> Iterator[Server]:
    """Runs of what writes a store."""
    with serving("store", tmp_path_factory) as server:
        yield server


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> Iterator[Server]:
    """Runs of the whole command line."""
    with serving("everything", tmp_path_factory) as server:
        yield server


@pytest.fixture(scope="session")
def contents() -> Callable[..., dict[str, bytes]]:
    """Every file of a store, and every folder: object storage has none."""

    def read(store: Path, folders: bool = True) -> dict[str, bytes]:
        found = {str(path.relative_to(store)): path for path in store.rglob("*") if folders or path.is_file()}
        return {name: path.read_bytes() if path.is_file() else b"" for name, path in found.items()}

    return read


@pytest.fixture(scope="session")
def nothing_half() -> Callable[[Path], None]:
    """Right after a kill: what is listed is whole, to the last checksum; what is not whole is not listed."""

    def check(root: Path) -> None:
        if not (root / "zarr.json").exists():
            assert not root.exists() or {path.name[0] for path in root.iterdir()} <= {"."}
            return
        store = FeatureStore(root)
        wrong = [problem for problem in verify(store) if not problem.what.startswith("incomplete")]
        assert wrong == []
        assert not set(store.trials()) & set(store.incomplete())

    return check


@pytest.fixture(scope="session")
def nobody_left() -> Callable[[int], None]:
    """All processes of a session end by themselves: no decoder goes on without its run."""

    def wait(session: int) -> None:
        until_s = time.monotonic() + PATIENCE_S
        while (left := living(session)) and time.monotonic() < until_s:
            time.sleep(0.01)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert left == {}

    return wait


def living(session: int) -> dict[int, str]:
    """Command lines of the processes of a session, but for those that have ended and wait for their parent."""
    found = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            fields = status.read_text(errors="replace").rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] not in "ZX":
                command = (status.parent / "cmdline").read_text(errors="replace")
                found[int(status.parent.name)] = command.replace("\0", " ")
    return found


@pytest.fixture(scope="session")
def every_step() -> int:
    """In the suite every ninth step (of kills every fifth) is enough; the soak makes them all."""
    return 1 if SOAK else 9
