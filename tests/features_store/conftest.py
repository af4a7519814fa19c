import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avfuse.features_store.claims.claims import claim
from avfuse.features_store.disk.owner import Owner
from avfuse.features_store.store import FeatureStore

Arrays = dict[str, np.ndarray[Any, Any]]


def _arrays(rows: int = 40, seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    box = rng.uniform(0, 500, (rows, 4)).astype(np.float32)
    box[1:3] = np.nan
    return {
        "time": np.arange(rows) / 29.97,
        "iresnet50": rng.standard_normal((rows, 12)).astype(np.float32),
        "iresnet50_valid": rng.random(rows) < 0.8,
        "vggish": rng.standard_normal((rows, 5)).astype(np.float32),
        "vggish_valid": np.ones(rows, np.bool_),
        "face_box": box,
        "face_landmarks": rng.uniform(0, 500, (rows, 5, 2)).astype(np.float32),
        "face_score": np.zeros(rows, np.float32),
    }


@pytest.fixture
def make_arrays() -> Callable[..., Arrays]:
    return _arrays


@pytest.fixture
def arrays() -> Arrays:
    return _arrays()


@pytest.fixture
def attributes() -> dict[str, Any]:
    return {
        "fingerprint": "f1",
        "fps": "30000/1001",
        "frames_decoded": 40,
        "vfr": False,
        "source": {"name": "ä b.mp4", "size": 12, "sha256": None},
        "weights": {
            "iresnet50": {"name": "w", "untrained": None},
            "vggish": {"name": "u", "untrained": 0},
        },
        "video_start_s": 0.1 + 0.2,
    }


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "features.zarr", mode="a")


@pytest.fixture
def flip() -> Callable[[Path, int], None]:
    def change(path: Path, offset: int) -> None:
        content = bytearray(path.read_bytes())
        content[offset] ^= 0x55
        path.write_bytes(content)

    return change


@pytest.fixture
def claim_file() -> Callable[..., Path]:
    """The path of a claim, which has been released by then."""

    def make(store: Path, trial: str = "a") -> Path:
        before = set(store.glob(".claims/*"))
        with claim(store, trial) as mine:
            assert mine
            (path,) = set(store.glob(".claims/*")) - before
            return path

    return make


@pytest.fixture
def plant() -> Callable[..., None]:
    """A claim, or a right to remove one, of `owner` (host, process, start), last touched `age_s` ago."""

    def make(path: Path, owner: tuple[str, int, int], token: str = "t", age_s: float = 0.0) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"host": owner[0], "pid": owner[1], "started": owner[2], "token": token}))
        os.utime(path, (time.time() - age_s,) * 2)

    return make


@pytest.fixture
def dead_owner() -> tuple[str, int, int]:
    """Host, process and start of one that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return (Owner.current().host, process.pid, 0)
