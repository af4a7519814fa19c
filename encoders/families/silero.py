"""The probability of speech by Silero VAD, whose weights come with the package: one number every 32 ms.

    chunk k    |64 of the one before|512 samples|       16 kHz
                    └── spectrum ── 4 convolutions ── LSTM ── probability       the LSTM remembers the whole file

The package runs chunk after chunk; here the convolutions see many chunks at once, and the LSTM all of them in one call:
the same numbers within 1e-5, four times as fast. Source: docs/sources.md (Speech).
Tested by tests/encoders/families/test_silero.py.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

if TYPE_CHECKING:
    from ..contract import Precision

KIND = "audio"
REVISION = 1
LICENCE = "MIT (Silero VAD, weights included)"
NEEDS = ("silero-vad",)

CHUNK_SAMPLES = 512
_CONTEXT_SAMPLES = 64
_RATE_HZ = 16_000
# Always so many at once, and fewer at the end only: no number depends on how the sound arrives.
_CHUNKS_AT_ONCE = 512
_SPECTRUM_STEP, _BINS = 128, 129
_STRIDES = (1, 2, 2, 1)
_UNITS = 128
Memory = tuple[Tensor, Tensor, NDArray[np.float32]]


class SpeechDetector:
    """Probabilities of speech in whole chunks of 512 samples, from the weights of the package silero-vad.

    On the CPU in float32, whatever the other encoders run on.
    """

    dim = 1
    sample_rate = _RATE_HZ
    window_s = 30.0
    context_s = 5.0
    hop_s = CHUNK_SAMPLES / _RATE_HZ
    first_s = CHUNK_SAMPLES / _RATE_HZ / 2
    field_s = CHUNK_SAMPLES / _RATE_HZ

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        own = {name.removeprefix("_model."): tensor.float() for name, tensor in weights.items()}
        self._spectrum = own["stft.forward_basis_buffer"]
        self._layers = [
            (own[f"encoder.{at}.reparam_conv.weight"], own[f"encoder.{at}.reparam_conv.bias"], stride)
            for at, stride in enumerate(_STRIDES)
        ]
        self._lstm = nn.LSTM(_UNITS, _UNITS).requires_grad_(False).eval()
        self._lstm.load_state_dict({f"{name}_l0": own[f"decoder.rnn.{name}"] for name in _LSTM_NAMES})
        self._last_weight, self._last_bias = own["decoder.decoder.2.weight"].flatten(), own["decoder.decoder.2.bias"]

    def states(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Samples float32 [B, n] of ±1 at 16 kHz → float32 [B, ⌊n / 512⌋, 1], each window with a memory of its own."""
        rows = [np.concatenate([np.zeros(0, np.float32), *self.stream([window])]) for window in samples]
        return np.asarray(rows, np.float32).reshape(len(samples), -1, 1)

    def stream(self, blocks: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """Yield the probabilities, float32 [K], of a sound that arrives in blocks; what is left of a chunk has none."""
        hidden = torch.zeros(1, 1, _UNITS)
        memory: Memory = hidden, hidden, np.zeros(_CONTEXT_SAMPLES, np.float32)
        held, at_once = np.zeros(0, np.float32), _CHUNKS_AT_ONCE * CHUNK_SAMPLES
        for block in blocks:
            held = np.concatenate([held, block])
            while len(held) >= at_once:
                found, memory = self._probabilities(held[:at_once], memory)
                yield found
                held = held[at_once:]
        if whole := len(held) - len(held) % CHUNK_SAMPLES:
            yield self._probabilities(held[:whole], memory)[0]

    def _probabilities(self, samples: NDArray[np.float32], memory: Memory) -> tuple[NDArray[np.float32], Memory]:
        hidden, cell, before = memory
        whole = np.concatenate([before, samples])
        width = _CONTEXT_SAMPLES + CHUNK_SAMPLES
        chunks = np.lib.stride_tricks.sliding_window_view(whole, width)[::CHUNK_SAMPLES]
        with torch.inference_mode():
            x = F.pad(torch.from_numpy(np.array(chunks))[:, None], (0, _CONTEXT_SAMPLES), mode="reflect")
            x = F.conv1d(x, self._spectrum, stride=_SPECTRUM_STEP)
            x = (x[:, :_BINS] ** 2 + x[:, _BINS:] ** 2).sqrt()
            for weight, bias, stride in self._layers:
                x = F.conv1d(x, weight, bias, stride=stride, padding=1).relu()
            heard, (hidden, cell) = self._lstm(x.transpose(1, 2), (hidden, cell))
            found = (heard[:, 0].relu() @ self._last_weight + self._last_bias).sigmoid()
        return found.numpy(), (hidden, cell, samples[-_CONTEXT_SAMPLES:])


_LSTM_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def load(
    weights: Path | None, device: torch.device, precision: Precision, options: Mapping[str, str]
) -> SpeechDetector:
    """The detector with the weights of the installed package. Raises ValueError without it, or with another model."""
    if weights is not None:
        raise ValueError(f"speech takes the weights of the package silero-vad, got {weights}")
    # The package itself is not imported: it sets the number of torch's threads for the whole process.
    found = find_spec("silero_vad")
    if found is None or not found.submodule_search_locations:
        raise ValueError("speech needs silero-vad: pip install 'avfuse[speech-activity]'")
    path = Path(found.submodule_search_locations[0], "data", "silero_vad.jit")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of torch, that it would rather read another format
            model = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
        return SpeechDetector(cast(Mapping[str, Tensor], model.state_dict()))
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path} is not the model of silero-vad 6 ({str(error).splitlines()[0]}): install another version of it"
        ) from error
