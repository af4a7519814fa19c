"""Any installed package with the HEAR API as an encoder of sound: `hear:MODULE`.

    MODULE.load_model(file?) → model with sample_rate, timestamp_embedding_size
    MODULE.get_timestamp_embeddings(sound [n, samples], model) → embeddings [n, T, D], their centres in ms [n, T]

The centres are the module's own: its hop is measured on a window of silence, and each answer is held to it. Source:
docs/sources.md (HEAR). Tested by tests/encoders/families/test_hear.py.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..contract import Kind, Precision

KIND: Kind = "audio"
REVISION = 1
LICENCE = "not known to avfuse: the package's own"
NEEDS: tuple[str, ...] = ()

_WINDOW_S, _CONTEXT_S = 20.0, 5.0
_SAME_TIME_MS = 1.0


class HearModel:
    """A HEAR module's model, presented as `AudioEncoder` says.

    `hop_s` and `first_s` are measured on silence. Raises ValueError where the times of its states are not regular.
    """

    window_s, context_s = _WINDOW_S, _CONTEXT_S

    def __init__(self, module: Any, model: Any, device: torch.device) -> None:
        self._module, self._model, self._device = module, model, device
        self.sample_rate, self.dim = int(model.sample_rate), int(model.timestamp_embedding_size)
        blank = np.zeros((1, round((_WINDOW_S + 2 * _CONTEXT_S) * self.sample_rate)), np.float32)
        _, centres_ms = self._embed(blank)
        if len(centres_ms) < 2:
            raise ValueError(f"gives {len(centres_ms)} states for {blank.shape[1] / self.sample_rate:g} s of sound")
        self.hop_s = float(centres_ms[-1] - centres_ms[0]) / (len(centres_ms) - 1) / 1000
        self.first_s = float(centres_ms[0]) / 1000
        if self.hop_s <= 0:
            raise ValueError("the times of its states do not rise")
        self._check(centres_ms)

    def states(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Windows float32 [B, n] → states [B, K, dim]. Raises ValueError where their times are not regular to 1 ms."""
        found, centres_ms = self._embed(samples)
        self._check(centres_ms)
        return found

    def _embed(self, samples: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        with torch.inference_mode():
            sound = torch.from_numpy(np.ascontiguousarray(samples)).to(self._device)
            found, times = self._module.get_timestamp_embeddings(sound, self._model)
            states = found.detach().float().cpu().numpy()
            centres_ms = np.asarray(torch.as_tensor(times).detach().cpu(), np.float64)
        if centres_ms.shape != states.shape[:2]:
            raise ValueError(f"gives times {list(centres_ms.shape)} of states {list(states.shape)}")
        if len(centres_ms) and np.ptp(centres_ms, axis=0).max(initial=0) > _SAME_TIME_MS:
            raise ValueError("the times of its states differ between sounds of one length")
        return states, centres_ms[0] if len(centres_ms) else np.zeros(0)

    def _check(self, centres_ms: NDArray[np.float64]) -> None:
        due_ms = (self.first_s + self.hop_s * np.arange(len(centres_ms))) * 1000
        wrong = np.flatnonzero(np.abs(centres_ms - due_ms) > _SAME_TIME_MS)
        if len(wrong):
            state = int(wrong[0])
            raise ValueError(
                f"the times of its states are not regular: state {state} lies at {centres_ms[state]:.1f} ms, where "
                f"{due_ms[state]:.1f} ms is due"
            )


def load(weights: Path | None, device: torch.device, precision: Precision, options: Mapping[str, str]) -> HearModel:
    """The model of the module that `options["feature"]` names, from the file of --weights or as the module has it.

    It computes in its own precision. Raises ValueError where there is no such module, or where it lacks the API.
    """
    name = options["feature"].removeprefix("hear:")
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"there is no module {name} ({error}): install the package that has it") from error
    lacking = [each for each in ("load_model", "get_timestamp_embeddings") if not callable(getattr(module, each, None))]
    if lacking:
        raise ValueError(f"{name} does not have HEAR's API: {' and '.join(lacking)} missing")
    model = module.load_model(str(weights)) if weights is not None else module.load_model()
    if isinstance(model, torch.nn.Module):
        model = model.to(device).eval()
    return HearModel(module, model, device)
