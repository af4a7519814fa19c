"""An audio model of your own as a feature: three convolutions on the samples, a state every 20 ms.

avfuse extract --videos clips --features voice_net --encoder voice_net=voice_net.py --weights voice_net=FILE.safetensors
"""

import torch
from safetensors.torch import load_file
from torch import nn

KIND, REVISION, LICENCE, NEEDS = "audio", 1, "MIT", ("safetensors",)


class VoiceNet:
    """Windows float32 [B, n] → states float32 [B, K, 24]; windows, their context, gaps and frames are avfuse's."""

    dim, sample_rate = 24, 16_000
    window_s, context_s = 20.0, 1.0  # kept of each window, and heard on either side of it
    hop_s = 320 / 16_000  # 5 · 8 · 8 samples from one state to the next
    first_s = field_s = 325 / 16_000  # a state sees 10 + 5 · 7 + 40 · 7 samples
    first_s /= 2  # and lies in their middle

    def __init__(self, network, device):
        self.network, self.device = network.eval().to(device), device

    def states(self, samples):
        """One pass over all windows, which are of one length."""
        with torch.inference_mode():
            found = self.network(torch.from_numpy(samples).to(self.device)[:, None])
        return found.transpose(1, 2).contiguous().cpu().numpy()


def load(weights, device, precision, options):
    """Strict, as every loader should be: `load_state_dict` says what is missing."""
    layers = nn.Conv1d(1, 8, 10, 5), nn.GELU(), nn.Conv1d(8, 16, 8, 8), nn.GELU(), nn.Conv1d(16, 24, 8, 8)
    network = nn.Sequential(*layers)
    if weights is None:
        raise ValueError("give its weights: --weights voice_net=FILE.safetensors")
    network.load_state_dict(load_file(weights))
    return VoiceNet(network, device)
