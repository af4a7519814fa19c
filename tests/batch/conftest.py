"""Toy jobs, and a listener that records what becomes of them."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # spawned workers search the same path

from batch_toys import Toys


class Recorder:
    """All that a run reports."""

    def __init__(self):
        self.results, self.tried_again, self.begun, self.words, self.dropped = {}, [], [], [], []
        self.on_progress = lambda: None

    def started(self, job):
        self.begun.append(job)

    def progressed(self, job, words):
        self.words.append((job, *words))
        self.on_progress()

    def ended(self, job, result):
        self.results[job] = result

    def retried(self, job, result):
        self.tried_again.append((job, result))

    def interrupted(self, job):
        self.dropped.append(job)

    def tick(self):
        pass


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def toys(tmp_path):
    return Toys(str(tmp_path))
