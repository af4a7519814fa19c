"""A package with the HEAR API, in one module: log energies of 32 mel bands, every 50 ms.

PYTHONPATH=examples/encoders avfuse extract --videos clips --features hear:hear_bands
"""

import torch
from torchaudio.transforms import MelSpectrogram

HOP_MS = 50


class Bands(torch.nn.Module):
    """What the API asks a model to say of itself."""

    sample_rate, timestamp_embedding_size, scene_embedding_size = 16_000, 32, 32

    def __init__(self):
        super().__init__()
        hop = self.sample_rate * HOP_MS // 1000
        self.mel = MelSpectrogram(self.sample_rate, n_fft=1024, hop_length=hop, n_mels=32)


def load_model(model_file_path=""):
    """There are no weights to read."""
    return Bands()


def get_timestamp_embeddings(audio, model):
    """Sound [n, samples] → embeddings [n, T, 32], and the centres of their windows in ms [n, T]."""
    bands = (model.mel(audio) + 1e-6).log().transpose(1, 2)
    times = torch.arange(bands.shape[1], dtype=torch.float32) * HOP_MS
    return bands, times.expand(len(bands), -1)


def get_scene_embeddings(audio, model):
    """One a sound [n, 32]; avfuse asks for none."""
    return get_timestamp_embeddings(audio, model)[0].mean(dim=1)
