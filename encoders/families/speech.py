"""What the families of speech networks share: a folder's weights in, strictly; windows of samples to states.

    network on the `meta` device ── tensors of the folder, by their keys, or drawn ── nothing left empty
    float32 [B, n] ── network ── float32 [B, K, dim]

It loads torch: families import it when they load. Tested by tests/encoders/families/test_wav2vec2.py and
test_whisper.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..contract import Precision
from ..networks.layouts import CANNOT_BUILD, dtype_on, fill_untrained
from ..weights.folder import load_tensors, strict


class SpeechEncoder:
    """A network over windows of samples, on one device. `dim`: width of a state, probed.

    `forward` makes float32 windows [B, n] on the device states [B, K, dim]. `level`: whether it wants samples of mean
    0 and variance 1 over the whole file. Raises ValueError where the network does not give states.
    """

    def __init__(
        self,
        network: nn.Module,
        forward: Callable[[Tensor], Tensor],
        device: torch.device,
        precision: Precision,
        *,
        sample_rate: int,
        context_s: float,
        window_s: float,
        hop_s: float,
        first_s: float,
        level: bool,
    ) -> None:
        dtype = dtype_on(precision, device)
        self.sample_rate, self.window_s, self.context_s = sample_rate, window_s, context_s
        self.hop_s, self.first_s, self.level = hop_s, first_s, level
        self._device, self._forward = device, forward
        network.eval().requires_grad_(requires_grad=False).to(device, dtype)
        try:
            blank = self.states(np.zeros((1, sample_rate), np.float32))
        except CANNOT_BUILD as error:
            raise ValueError(f"the network does not take a second of sound: {error}") from error
        if blank.ndim != 3 or not blank.shape[1]:
            raise ValueError(f"states [B, K, dim] are needed; of a second the network gives {list(blank.shape)}")
        self.dim = blank.shape[2]

    def states(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """States float32 [B, K, dim] of windows float32 [B, n]."""
        with torch.inference_mode():
            windows = torch.from_numpy(np.array(samples, np.float32)).to(self._device)
            return self._forward(windows).float().cpu().numpy()


def build(
    create: Callable[[], nn.Module],
    weights: Path | None,
    seed: str | None,
    renamed: Callable[[str], str],
    foreign: tuple[str, ...],
) -> nn.Module:
    """The network that `create` makes, with a folder's weights, none of its tensors missing; float32.

    `renamed`: a key of the folder as the network has it; `foreign`: how keys begin of what the network has no part of,
    as heads; `weights` None: seeded random numbers. Raises ValueError where it cannot be built, or the weights differ.
    """
    try:
        with torch.device("meta"):
            network = create()
    except CANNOT_BUILD as error:
        raise ValueError(f"the network cannot be built as config.json says: {error}") from error
    if weights is None:
        network = network.to_empty(device="cpu")
        fill_untrained(network, int(seed or 0), type(network).__name__)
        return network
    tensors = {renamed(key): tensor for key, tensor in load_tensors(weights).items()}
    wanted: Mapping[str, Tensor] = network.state_dict()
    strict([key for key in wanted if key not in tensors], (key for key in tensors if key not in wanted), foreign)
    for key, tensor in wanted.items():
        if tensors[key].shape != tensor.shape:
            raise ValueError(f"{key} is {list(tensors[key].shape)}, and config.json asks for {list(tensor.shape)}")
    network.load_state_dict({key: tensors[key].float() for key in wanted}, assign=True)
    if empty := [name for name, tensor in (*network.named_buffers(), *network.named_parameters()) if tensor.is_meta]:
        raise ValueError(f"{', '.join(empty)}: nothing in the weights fills this part of the network")
    return network
