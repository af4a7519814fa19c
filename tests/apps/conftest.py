"""Arrays of somebody who talks, as a store has them: a mouth that opens and shuts, and a voice that fits it."""

from collections.abc import Callable

import numpy as np
import pytest


@pytest.fixture(scope="session")
def plant_talk() -> Callable[..., dict[str, np.ndarray]]:
    """Make times, crop48 and logmel of `long_s` s at 12 frames/s, with the voice `late_s` later than the mouth.

    `voice`: the seed of the syllables that are heard, those that are seen unless another is named.
    """

    def opened(at_s: np.ndarray, long_s: float, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        starts_s = np.sort(rng.uniform(0, long_s, round(3 * long_s)))
        near = np.searchsorted(starts_s, at_s).clip(1, len(starts_s) - 1)
        around_s = starts_s[np.stack([near - 1, near], axis=1)]
        return np.minimum(np.exp(-(((at_s[:, None] - around_s) / 0.12) ** 2)).sum(axis=1), 1)

    def plant(long_s: float = 20, late_s: float = 0, voice: int = 5) -> dict[str, np.ndarray]:
        time_s = np.arange(12 * long_s) / 12
        logmel = np.full((len(time_s), 96, 64), np.log(0.01), np.float32)
        logmel[:, :, 12:32] = np.log(0.01 + opened(time_s - late_s, long_s, voice))[:, None, None]
        crops = np.full((len(time_s), 48, 48, 3), 150, np.uint8)
        crops[:, 38:44, 20:28] = (150 - 120 * opened(time_s, long_s, 5)).round()[:, None, None, None]
        flags = np.ones(len(time_s), np.bool_)
        return {"time": time_s, "crop48": crops, "crop48_valid": flags, "logmel": logmel, "logmel_valid": flags}

    return plant
