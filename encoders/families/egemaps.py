"""eGeMAPSv02 by openSMILE: 88 functionals of each second of sound. Licence: non-commercial, see `LICENCE`.

    samples   |0 ── 16000 ── 32000 ──            one row per second; `extract` cuts a second for each frame
    states    |  0.5 s  |  1.5 s  |

Set and source: docs/sources.md (eGeMAPS). Tested by tests/encoders/families/test_egemaps.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...batch.resources import cores

if TYPE_CHECKING:
    import torch

    from ..contract import Precision

KIND = "audio"
REVISION = 1
LICENCE = "audEERING Research License (openSMILE): non-commercial use only"
NEEDS = ("opensmile",)

_RATE_HZ = 16_000
_LARGEST = 32767 / 32768  # openSMILE takes 16 bits; what is louder would begin again at the lowest number


class Egemaps:
    """Functionals of whole seconds; each second is computed by itself, exactly as openSMILE does for a cut file.

    A second takes about 35 ms on one core, most of it openSMILE's own; as many are computed at once as there are cores.
    """

    sample_rate = _RATE_HZ
    window_s = 20.0  # each second is computed by itself: windows of any whole number of them give the same
    context_s = 0.0
    hop_s = 1.0
    first_s = 0.5
    field_s = 1.0

    def __init__(self, smile: Any) -> None:
        self._smile = smile
        self.names: tuple[str, ...] = tuple(smile.feature_names)
        self.dim = len(self.names)

    def states(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Samples float32 [B, n] of ±1 at 16 kHz → functionals float32 [B, ⌊n / 16000⌋, 88]."""
        count = samples.shape[1] // _RATE_HZ
        seconds = samples[:, : count * _RATE_HZ].reshape(-1, _RATE_HZ).clip(-1.0, _LARGEST)
        with ThreadPoolExecutor(max(1, min(cores(), len(seconds)))) as pool:
            rows = [*pool.map(self._functionals, seconds)]
        return np.asarray(rows, np.float32).reshape(len(samples), count, self.dim)

    def _functionals(self, second: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(self._smile(second, _RATE_HZ), np.float32).reshape(self.dim)


def load(weights: Path | None, device: torch.device, precision: Precision, options: Mapping[str, str]) -> Egemaps:
    """The extractor; it has no weights and runs on the CPU alone. Raises ValueError without openSMILE."""
    if weights is not None:
        raise ValueError(f"egemaps takes no weights, got {weights}")
    try:
        import opensmile  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise ValueError("egemaps needs opensmile: pip install 'avfuse[egemaps]'") from error
    return Egemaps(
        opensmile.Smile(feature_set=opensmile.FeatureSet.eGeMAPSv02, feature_level=opensmile.FeatureLevel.Functionals)
    )
