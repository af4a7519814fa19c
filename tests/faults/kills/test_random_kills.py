"""Kills at moments drawn by a seed, of every kind of run; what goes on afterwards gives the same bits.

Ten kills in `make test-slow`, of every kind of run; `AVFUSE_KILLS=300 pytest tests/faults/kills`, in `make soak`, makes
these and others, AVFUSE_SEED=1000 only others. Runs with workers are killed there only, since three processes that load
torch take longer than all other kills together.
The number of a kill is its seed: `AVFUSE_KILLS=1 AVFUSE_SEED=1234` makes that one again.
"""

import os
import random
import shutil
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

# Of 20 kills so many of each kind.
KINDS = ["serial", "adding", "workers", "replacing", "visual", "shards", "adding", "replacing", "serial", "faces"]
KINDS += ["adding", "serial", "replacing", "shards", "track", "adding", "adding", "replacing", "shards", "serial"]
# In the suite: each kind once, and those that people run most by a moment and by a step on the disk.
FEW = (0, 1, 3, 4, 5, 9, 10, 11, 14, 17)
PATIENCE_S = 900  # on a busy machine three processes take minutes to load torch
SOUND = ("--features", "mfcc,logmel", "--device", "cpu")
VISUAL = ("--features", "fake_face,mfcc", "--device", "cpu")
# What a store has before a run that adds to it, or makes something of it anew; what that run is asked for.
BEFORE = {"adding": "mfcc", "replacing": "mfcc,logmel,fake_sound", "faces": "crop48,mfcc", "track": "mfcc"}
GROWING = {
    "adding": ("--features", "logmel,fake_sound,mfcc"),
    "replacing": ("--features", "mfcc,fake_sound", "--audio-align", "end", "--replace"),
    "faces": ("--features", "fake_face,fake_sound"),
    "track": ("--features", "fake_face,crop48"),
}
STAYS = {
    "adding": ("time", "mfcc"),
    "replacing": ("time", "logmel"),
    "faces": ("crop48", "face_box"),
    "track": ("mfcc",),
}
SHARDS = (("--shard", "0/2"), ("--shard", "1/2"))


def pytest_generate_tests(metafunc):
    """`kill_number`: the kills of this session; a failure names the one to do again."""
    if "kill_number" in metafunc.fixturenames:
        kills, seed = int(os.environ.get("AVFUSE_KILLS", "0")), int(os.environ.get("AVFUSE_SEED", "0"))
        numbers = range(seed, seed + kills) if kills else [seed + number for number in FEW]
        metafunc.parametrize("kill_number", numbers)


def kind_of(number):
    return KINDS[number % len(KINDS)]


@dataclass
class Whole:
    """An uninterrupted run: where it begins, what it leaves, how long it takes, how many steps it makes on the disk."""

    before: Path | None
    contents: dict[str, bytes]
    seconds: float
    steps: int


@dataclass
class Draw:
    """What one kill is: drawn by its number alone."""

    number: int
    kind: str = ""
    alone: bool = False
    aimed: bool = False
    times: int = 1
    rng: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.number)
        self.kind = kind_of(self.number)
        self.alone, self.aimed = self.rng.random() < 0.5, self.rng.random() < 0.6
        self.times = self.rng.choice([1, 1, 1, 2])

    def death(self, root: Path, steps: int) -> dict[str, object]:
        """A step on the disk at which the run ends itself; for the others a moment is drawn."""
        how = "alone" if self.alone else "session"
        return {"root": str(root), "at": self.rng.randint(1, steps), "how": how} if self.aimed else {}


@pytest.fixture(scope="module")
def clips(tmp_path_factory, tiny) -> Path:
    """Three clips of different lengths and sizes; one without sound and in a folder."""
    folder = tmp_path_factory.mktemp("clips")
    (folder / "batch1").mkdir()
    for name, clip in (
        ("a.mp4", tiny()),
        ("b.mp4", tiny(seconds=2, size="32x48")),
        ("batch1/c.mp4", tiny(seconds=1.5, sound=False)),
    ):
        shutil.copy(clip, folder / name)
    return folder


@pytest.fixture(scope="module")
def words(clips):
    def make(root, kind):
        asked = (*GROWING[kind], "--device", "cpu") if kind in GROWING else VISUAL if kind == "visual" else SOUND
        return ("--videos", clips, "--store", root, *asked, "--json")

    return make


@pytest.fixture(scope="module")
def whole(runs, clips, words, contents, tmp_path_factory):
    """The uninterrupted run of the same settings, in one process."""
    made = {}

    def run(kind):
        key = kind if kind in ("visual", *GROWING) else "sound"
        if key not in made:
            folder = tmp_path_factory.mktemp("whole")
            root, note, before = folder / "s.zarr", folder / "note", folder / "before.zarr"
            if kind in GROWING:
                features = ("--features", BEFORE[kind], "--device", "cpu")
                grown = runs.extract("--videos", clips, "--store", before, *features)
                assert grown.wait() == 0, grown.said("err")
                shutil.copytree(before, root)
            begun_s = time.monotonic()
            done = runs.extract(*words(root, kind), death={"root": str(root), "note": str(note)})
            assert done.wait() == 0, done.said("err")
            seconds = time.monotonic() - begun_s
            begins = before if kind in GROWING else None
            made[key] = Whole(begins, contents(root), seconds, len(note.read_text().splitlines()))
        return made[key]

    return run


class Processes:
    """A run of `--workers`: real processes, since each worker loads everything itself."""

    def __init__(self, cli, words, log: Path) -> None:
        self.log = log
        with log.open("wb") as file:
            words_of = {"stdout": file, "stderr": file, "start_new_session": True}
            self.process = cli.start("extract", *words, "--workers", "2", **words_of)
        self.pid: int = self.process.pid
        self.code: int | None = None

    def wait(self) -> int:
        code: int = self.process.wait()
        self.code = code
        return code

    def wait_for_work(self, root: Path) -> bool:
        """Until the first trial is begun: loading torch in three processes is long, and leaves nothing to kill.

        False where the run before, that was killed too late, has left nothing to do.
        """
        until_s = time.monotonic() + PATIENCE_S
        while not (root / ".claims").exists():
            if self.process.poll() is not None:
                assert "0 videos to do, 3 done before" in self.log.read_text(), self.log.read_text()
                return False
            assert time.monotonic() < until_s, self.log.read_text()
            time.sleep(0.005)
        return True


@pytest.fixture
def begun():
    """Runs that are under way; none of them outlives its test."""
    runs: list[Any] = []  # of the server, or `Processes`
    yield runs
    for run in runs:
        if run.code is None:  # not waited for, so that its number is still its own
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()


def begin(draw, whole, root, words, runs, cli):
    """The runs of one kill, one of them with a death drawn for it."""
    if draw.kind == "workers":
        return [Processes(cli, words, root.with_name("said"))]
    shards = SHARDS if draw.kind == "shards" else ((),)
    dying = draw.rng.randrange(len(shards))
    deaths = [draw.death(root, whole.steps // len(shards)) if each == dying else {} for each in range(len(shards))]
    return [runs.extract(*words, *shard, death=death) for shard, death in zip(shards, deaths, strict=True)]


def kill(draw, started, seconds, root):
    """At a moment drawn; a run that is aimed at a step ends by itself, or is done before it comes to it."""
    if not (started[0].wait_for_work(root) if draw.kind == "workers" else not draw.aimed):
        return
    time.sleep(draw.rng.uniform(0, seconds))
    for run in started:
        (os.kill if draw.alone else os.killpg)(run.pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.timeout(2 * PATIENCE_S)
def test_killed(kill_number, runs, cli, words, whole, contents, nothing_half, nobody_left, begun, tmp_path):
    draw, root = Draw(kill_number), tmp_path / "s.zarr"
    wanted, words_of = whole(draw.kind), words(root, draw.kind)
    if wanted.before:
        shutil.copytree(wanted.before, root)
    kept = (path for array in STAYS.get(draw.kind, ()) for path in root.rglob(f"{array}/**/*") if path.is_file())
    stays = {path: path.stat().st_ino for path in kept}
    for _ in range(draw.times):
        started = begin(draw, wanted, root, words_of, runs, cli)
        begun += started
        kill(draw, started, wanted.seconds, root)
        codes = [run.wait() for run in started]
        assert set(codes) <= {0, -signal.SIGKILL}, draw
        nothing_half(root)
        assert {path: path.stat().st_ino for path in stays} == stays, draw
        for run in started:
            nobody_left(run.pid)
    again = [runs.extract(*words_of, *shard) for shard in (SHARDS if draw.kind == "shards" else ((),))]
    begun += again
    assert [run.wait() for run in again] == [0] * len(again), (draw, [run.said("err") for run in again])
    found = contents(root)
    assert sorted(found) == sorted(wanted.contents), draw
    assert [name for name in found if found[name] != wanted.contents[name]] == [], draw
    assert {path: path.stat().st_ino for path in stays} == stays, draw
