"""Hundreds of broken files and bombs: each is done or is one named failure, within a bound of memory and time.

The harness runs as a process of its own, so that its memory and that of its children can be measured. More of it:
`python tests/faults/zoo/soak.py --help`, or AVFUSE_ZOO_FILES=5000 and AVFUSE_ZOO_SEED=7 for these tests. `make
test-slow` draws some more than `make test`, `make soak` thousands.
"""

import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from avfuse.features_store.store import FeatureStore
from avfuse.pipeline.media.probe import probe
from avfuse.pipeline.media.process import MOST_MEMORY_BYTES
from avfuse.pipeline.media.readers import FrameReader
from avfuse.pipeline.media.types import MediaError

SOAK = Path(__file__).parent / "zoo" / "soak.py"
FILES = int(os.environ.get("AVFUSE_ZOO_FILES", "0"))  # the bombs among them
MORE_FILES = 40
SEED = int(os.environ.get("AVFUSE_ZOO_SEED", "0"))
# Two batches of the largest picture (2^26 px), NumPy and the library.
MOST_OWN_MIB = 640
MOST_SECONDS_A_FILE = 60

REASONS = {
    "size_raw.y4m": "30000 × 30000 px: more than",
    "size_tall.y4m": "1 × 60000000 px",
    "size_bitmap.avi": "without a frame size",
    "size_vp8.webm": "not one frame",
    "frames_table.mp4": "not one frame",
    "streams_1000.mp4": "more than 128 streams",
    "rate_zero.avi": "Invalid sample rate",
    "starts_negative.mp4": "not one frame",
}
# These bombs are thrown in every run of the tests, the others in `make test-slow`.
ROWS = {
    "size_header.avi": 8,
    "frames_header.avi": 8,
    "frames_again.mp4": 3000,
    "edits.mp4": 16_000,
    "years_picture.nut": 8,
    "years_once.mkv": 8,
    "steps_zero.mp4": 8,
    "length_zero.mp4": 8,
    "turned_huge.mp4": 8,
    "hours_sound.avi": 5,
    "hours_picture.mkv": 600,
    "one_px.mkv": 2,
}
QUICK = [*REASONS, *(name for name, rows in ROWS.items() if rows < 600)]


def soak(*words) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SOAK), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=240 + 2 * FILES)


@pytest.fixture(scope="module", params=["some", pytest.param("all", marks=pytest.mark.slow)])
def verdict(request, media, tmp_path_factory) -> dict[str, Any]:
    """What came of some bombs, and of all bombs and files."""
    words = ("--seed", SEED, "--media", media, "--keep", tmp_path_factory.mktemp("zoo"))
    done = soak(
        *words, *(("--files", 0, "--bombs", ",".join(QUICK)) if request.param == "some" else ("--files", FILES))
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


@pytest.mark.media
def test_each_file_is_done_or_one_named_failure(verdict):
    assert verdict["crashes"] == []
    assert verdict["files"] >= len(QUICK)
    assert verdict["done"] + sum(verdict["failed"].values()) == verdict["files"]
    assert set(verdict["failed"]) <= {"probe", "video"}
    assert verdict["done"] > verdict["files"] // 4, "mutations so wild that nothing of the readers is tried"


@pytest.mark.slow
@pytest.mark.media
def test_more_files_are_done_or_named_failures(media):
    done = soak("--files", MORE_FILES, "--seed", SEED + 2, "--media", media, "--only-mutants")
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    assert found["crashes"] == []
    assert found["done"] + sum(found["failed"].values()) == found["files"] >= MORE_FILES
    assert set(found["failed"]) <= {"probe", "video"}
    assert all(seconds < MOST_SECONDS_A_FILE for seconds in found["slowest"].values()), found["slowest"]
    assert found["peak_mib"]["self"] < MOST_OWN_MIB


@pytest.mark.media
def test_no_file_takes_for_ever(verdict):
    assert all(seconds < MOST_SECONDS_A_FILE for seconds in verdict["slowest"].values()), verdict["slowest"]


@pytest.mark.media
def test_memory_is_bounded(verdict):
    assert verdict["peak_mib"]["self"] < MOST_OWN_MIB
    assert verdict["peak_mib"]["child"] * 2**20 < MOST_MEMORY_BYTES


@pytest.mark.media
@pytest.mark.parametrize("name", REASONS)
def test_a_bomb_is_refused_in_words(verdict, name):
    assert re.search(REASONS[name], verdict["bombs"][f"bomb_{name}"])


@pytest.mark.media
def test_a_bomb_that_decodes_has_its_rows(verdict):
    found = {name: verdict["bombs"][f"bomb_{name}"] for name in ROWS if f"bomb_{name}" in verdict["bombs"]}
    assert found == {name: f"{ROWS[name]} rows" for name in found}
    assert len(found) == len(ROWS if len(verdict["bombs"]) > len(QUICK) else set(ROWS) & set(QUICK))


@pytest.mark.parametrize(
    ("files", "words"), [(6, ("--few-clips",)), pytest.param(10, (), marks=pytest.mark.slow)], ids=["few", "more"]
)
def test_the_command_line_names_every_failure(cli, invoke, tiny, tmp_path, failures, files, words):
    """Of broken files; a good one shows that the run went on."""
    folder, store = tmp_path / "videos", tmp_path / "s.zarr"
    done = soak("--files", files, "--seed", SEED + 1, "--only-mutants", "--write", folder, *words)
    assert done.returncode == 0, done.stderr
    (folder / "~good.mp4").write_bytes(tiny().read_bytes())
    with cli.start("extract", "--videos", folder, "--store", store, "--features", "mfcc,logmel") as process:
        said = process.communicate(timeout=MOST_SECONDS_A_FILE * files)[1].decode()
    assert process.returncode == 3, said
    assert "Traceback" not in said
    records = failures(store)
    bad, good = {record["video"] for record in records}, set(FeatureStore(store).trials())
    assert len(bad) == len(records)
    assert all(record["stage"] and len(record["reason"].splitlines()) == 1 for record in records)
    failed = {Path(video).stem for video in bad}
    assert failed | good == {path.stem for path in folder.iterdir()}
    assert failed.isdisjoint(good)
    assert "~good" in good
    assert not [path for path in store.iterdir() if path.name in (".tmp", ".claims")]
    assert invoke("verify", "--store", store).exit_code == 0


def test_a_decoder_that_never_ends_is_ended(make_endless, monkeypatch):
    """A file that grows faster than it is read, as an endless stream."""
    monkeypatch.setattr("avfuse.pipeline.media.readers.MAX_FRAMES", 400)
    info = probe(make_endless)
    began_s = time.monotonic()
    with FrameReader(info, stall_timeout_s=10) as frames, pytest.raises(MediaError, match="more than 400 frames"):
        list(frames)
    assert time.monotonic() - began_s < 50


@pytest.fixture
def make_endless(tiny, tmp_path):
    """A recording that another process is still writing, a clip of ten frames again and again."""
    clip = tiny(".ts", "-c:v", "mpeg2video", "-r", "25").read_bytes()
    path, stop = tmp_path / "live.ts", threading.Event()
    path.write_bytes(clip * 100)  # 1,000 frames are there however fast it is read

    def grow() -> None:
        with path.open("ab") as file:
            while not stop.wait(0.005) and file.tell() < 1 << 27:
                file.write(clip)
                file.flush()

    writer = threading.Thread(target=grow)
    writer.start()
    yield path
    stop.set()
    writer.join()
