"""Toy jobs, and someone who hears what becomes of them."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # spawned workers look where this process does

from batch_toys import Toys


class Heard:
    """All that a run tells."""

    def __init__(self):
        self.results, self.tries_again, self.begun, self.words, self.dropped = {}, [], [], [], []
        self.on_told = lambda: None

    def started(self, job):
        self.begun.append(job)

    def progressed(self, job, words):
        self.words.append((job, *words))
        self.on_told()

    def ended(self, job, result):
        self.results[job] = result

    def retried(self, job, result):
        self.tries_again.append((job, result))

    def interrupted(self, job):
        self.dropped.append(job)

    def tick(self):
        pass


@pytest.fixture
def heard():
    return Heard()


@pytest.fixture
def toys(tmp_path):
    return Toys(str(tmp_path))
