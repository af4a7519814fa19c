"""Whisper's encoder: states every 20 ms of sound, of one fixed plan of windows, since they carry their place in it.

    samples ── zeros up to 30 s ── log-mel [80 or 128, 3000] ── encoder ── [1500, dim] ── those within the sound

Sources: docs/sources.md (Audio states). Tested by tests/encoders/families/test_whisper.py.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..contract import Precision

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .speech import SpeechEncoder

KIND = "audio"
REVISION = 1
LICENCE = "as the folder says; OpenAI's weights: MIT (their repository), Apache-2.0 (their folders on the hub)"
NEEDS = ("transformers",)

CONTEXT_S = 5.0
_DYNAMIC_RANGE = 8.0  # powers of ten below the loudest band of a window
_FLOOR = 1e-10
_HOPS_A_STATE = 2  # the second convolution's stride
_UNTRAINED = {"d_model": 1280, "encoder_layers": 32, "encoder_attention_heads": 20, "encoder_ffn_dim": 5120}
_UNTRAINED_BANDS = 128
# A checkpoint is that of the whole network, of which this is the half that hears.
_PREFIX = "model.encoder."
_FOREIGN = ("model.decoder.", "decoder.", "proj_out.")


def load(weights: Path | None, device: torch.device, precision: Precision, options: Mapping[str, str]) -> SpeechEncoder:
    """The encoder of a folder that holds a whole Whisper; `weights` None: random numbers of `untrained`.

    Raises ValueError where the folder holds another network.
    """
    import torch  # noqa: PLC0415
    from transformers import WhisperConfig  # noqa: PLC0415
    from transformers.audio_utils import mel_filter_bank  # noqa: PLC0415
    from transformers.models.whisper.modeling_whisper import WhisperEncoder  # noqa: PLC0415

    from ..weights.folder import read_json, settings_of  # noqa: PLC0415
    from .speech import SpeechEncoder, build  # noqa: PLC0415

    config: dict[str, Any] = {"model_type": "whisper", "num_mel_bins": _UNTRAINED_BANDS, **_UNTRAINED}
    said: dict[str, Any] = {"feature_size": _UNTRAINED_BANDS}
    if weights is not None:
        config = read_json(weights / "config.json")
        path = weights / "preprocessor_config.json"
        if not path.is_file():
            raise ValueError("has no preprocessor_config.json: copy it from where the weights are from")
        said = read_json(path)
    if config.get("model_type") != "whisper":
        raise ValueError(f"config.json is that of a {config.get('model_type')}, and not of a whisper")
    usual = {"feature_size": 80, "sampling_rate": 16_000, "hop_length": 160, "n_fft": 400}
    bands, rate_hz, hop, n_fft = (said.get(name, value) for name, value in usual.items())
    if not all(isinstance(each, int) and 0 < each <= 1 << 16 for each in (bands, rate_hz, hop, n_fft)):
        raise ValueError(f"preprocessor_config.json: {', '.join(usual)} are {bands}, {rate_hz}, {hop}, {n_fft}")
    with settings_of("a Whisper"):
        settings = WhisperConfig(**config)
        positions = operator.index(settings.max_source_positions)
    if settings.num_mel_bins != bands:
        raise ValueError(
            f"config.json has num_mel_bins {settings.num_mel_bins}, preprocessor_config.json feature_size {bands}"
        )
    state_samples = _HOPS_A_STATE * hop
    whole = positions * state_samples
    window_s = whole / rate_hz - 2 * CONTEXT_S
    if window_s <= 0:
        raise ValueError(f"config.json: {positions} positions are too few for windows with context")
    network = build(
        lambda: WhisperEncoder(settings),
        weights,
        options.get("untrained"),
        lambda key: key.removeprefix(_PREFIX).removeprefix("encoder."),
        _FOREIGN,
    )
    bank = mel_filter_bank(1 + n_fft // 2, bands, 0.0, rate_hz / 2, rate_hz, norm="slaney", mel_scale="slaney")
    mel = torch.tensor(bank.T, dtype=torch.float32, device=device)
    hann = torch.hann_window(n_fft, device=device)

    def forward(samples: Tensor) -> Tensor:
        num_states = -(-samples.shape[1] // state_samples)
        padded = torch.nn.functional.pad(samples, (0, whole - samples.shape[1]))
        spectrum = torch.stft(padded, n_fft, hop, window=hann, return_complex=True)[..., :-1].abs() ** 2
        logs = (mel @ spectrum.contiguous()).clamp(min=_FLOOR).log10()
        logs = torch.maximum(logs, logs.amax((1, 2), keepdim=True) - _DYNAMIC_RANGE)
        dtype = next(network.parameters()).dtype
        given: Any = network(((logs + 4) / 4).to(dtype))
        states: Tensor = given.last_hidden_state
        return states[:, :num_states]

    return SpeechEncoder(
        *(network, forward, device, precision),
        sample_rate=rate_hz,
        window_s=window_s,
        context_s=CONTEXT_S,
        hop_s=state_samples / rate_hz,
        first_s=0.0,
        level=False,
    )
