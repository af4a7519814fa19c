from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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
