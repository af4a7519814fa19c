"""Jobs that are words; workers import this file by its name."""

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Toys:
    """What a job does is in its name; notes are left in `folder`."""

    folder: str
    broken: str = ""

    def name(self, job):
        return job

    def is_transient(self, result):
        return result == "may pass"

    @contextlib.contextmanager
    def prepare(self):
        self.note("prepared")
        if self.broken:
            raise FileNotFoundError(2, "No such file or directory", self.broken)
        try:
            yield self.do
        finally:
            self.note("closed")

    def do(self, job, context):
        self.note(f"begun {job}")
        what = job.split()[0]
        if what == "wait":
            Path(self.folder, f"waiting {job}").touch()
            while True:
                time.sleep(0.02)
                context.check()
                context.tell("waited")
        while what == "until" and not Path(self.folder, "go").exists():
            time.sleep(0.02)
            context.check()
        if what == "hang":  # as a network in a long call
            Path(self.folder, f"waiting {job}").touch()
            time.sleep(60)
        if what == "kill" or (what == "kill-once" and self.count(f"begun {job}") == 1):
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "slow":
            time.sleep(0.1)
        if what == "fail" or (what == "flaky" and self.count(f"begun {job}") == 1):
            return "may pass"
        if what == "raise":
            raise ValueError("the whole run is wrong")
        if what == "environment":
            return {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")}
        return f"{job} done in {os.getpid()}"

    def note(self, words):
        with Path(self.folder, "notes").open("a") as file:
            file.write(f"{os.getpid()} {words}\n")

    def notes(self):
        path = Path(self.folder, "notes")
        return path.read_text().splitlines() if path.exists() else []

    def count(self, words):
        return sum(line.split(maxsplit=1)[1] == words for line in self.notes())
