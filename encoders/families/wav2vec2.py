"""wav2vec 2.0 and its kin, HuBERT and WavLM: hidden states every 20 ms of sound, of the layers that are asked for.

    samples ── level over the whole file, if the folder says so ── 7 convolutions ── transformer ── --layers ── states

    --layers   last4   the sum of the last four, as MERBench and S4 take it (default)
               last    the last one, after the network's last norm
               N       of layer N, 0: what enters the first one
               A-B     the mean of layers A to B

The last layer is always meant after the last norm: transformers 4 and 5 list it with and without. Base models
begin with a norm over time, so that a window is never padded. Sources: docs/sources.md (Audio states).
Tested by tests/encoders/families/test_wav2vec2.py.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..contract import Precision

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .speech import SpeechEncoder

KIND = "audio"
REVISION = 1
LICENCE = (
    "as the folder says; HuBERT, wav2vec 2.0: Apache-2.0; WavLM: CC BY-SA 3.0; the emotion model of audEERING: "
    "CC BY-NC-SA 4.0, for research only"
)
NEEDS = ("transformers",)

WINDOW_S, CONTEXT_S = 20.0, 5.0
_TYPES = {"wavlm": "WavLM", "hubert": "Hubert", "wav2vec2": "Wav2Vec2"}
# What checkpoints hold beside the network: what they were pretrained with, and the heads of their tasks.
_FOREIGN = (
    *("quantizer.", "project_q.", "project_hid.", "lm_head.", "classifier.", "projector.", "layer_weights"),
    *("masked_spec_embed", "feature_extractor_head.", "final_proj.", "label_embs_concat"),
)
_LARGE: dict[str, Any] = {
    **{"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
    **{"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True},
}
# What is drawn for --untrained, in the published sizes.
_UNTRAINED: dict[str, dict[str, Any]] = {
    "wavlm_large": {"model_type": "wavlm", **_LARGE, "conv_bias": False},
    "wavlm_base": {"model_type": "wavlm"},
    "hubert_large": {"model_type": "hubert", **_LARGE},
    "wav2vec2_large": {"model_type": "wav2vec2", **_LARGE},
    "wav2vec2_emotion": {"model_type": "wav2vec2", **_LARGE, "num_hidden_layers": 12},
}


def load(weights: Path | None, device: torch.device, precision: Precision, options: Mapping[str, str]) -> SpeechEncoder:
    """The network of a folder, giving the layers of `options`; `weights` None: random numbers of `untrained`.

    Raises ValueError where the folder holds another network, or does not say whether sound is brought to one level.
    """
    import transformers  # noqa: PLC0415
    from torch import nn  # noqa: PLC0415

    from ..weights.folder import read_json, settings_of  # noqa: PLC0415
    from .speech import SpeechEncoder, build  # noqa: PLC0415

    name = options.get("feature", "")
    drawn = _UNTRAINED.get(name, _UNTRAINED["wavlm_base"])
    config = drawn if weights is None else read_json(weights / "config.json")
    kind = config.get("model_type")
    if kind not in _TYPES or (name in _UNTRAINED and kind != drawn["model_type"]):
        wanted = drawn["model_type"] if name in _UNTRAINED else " or ".join(_TYPES)
        raise ValueError(f"config.json is that of a {kind}, and not of a {wanted}")
    level, rate_hz = config.get("feat_extract_norm") == "layer", 16_000
    if weights is not None:
        level, rate_hz = _of_preprocessor(weights)
    with settings_of(f"a {_TYPES[kind]}"):
        settings = getattr(transformers, f"{_TYPES[kind]}Config")(**config)
        count = operator.index(settings.num_hidden_layers)
        strides, kernels = list(settings.conv_stride), list(settings.conv_kernel)
    chosen = parse_layers(options.get("layers", "last4"), count)

    def create() -> nn.Module:
        # Its mask is for training alone, and not in every file.
        model: nn.Module = getattr(transformers, f"{_TYPES[kind]}Model")(settings)
        if hasattr(model, "masked_spec_embed"):
            del model.masked_spec_embed
        return model

    network = build(create, weights, options.get("untrained"), lambda key: _renamed(key, kind), _FOREIGN)
    if max(chosen) < count - 1:  # one layer more than is asked for, so that none of them is the last
        layers: Any = network.get_submodule("encoder.layers")
        del layers[max(chosen) + 1 :]

    def forward(samples: Tensor) -> Tensor:
        dtype = next(network.parameters()).dtype
        given: Any = network(samples.to(dtype), output_hidden_states=True)
        states: list[Tensor] = [*given.hidden_states[:count], given.last_hidden_state]
        picked = [states[each].float() for each in chosen]
        total: Tensor = sum(picked[1:], start=picked[0])
        return total if options.get("layers", "last4") == "last4" else total / len(picked)

    # Each state is made from one stretch of samples, its receptive field, and lies in the middle of it.
    field = 1 + sum((kernel - 1) * prod(strides[:at]) for at, kernel in enumerate(kernels))
    return SpeechEncoder(
        *(network, forward, device, precision),
        sample_rate=rate_hz,
        window_s=WINDOW_S,
        context_s=CONTEXT_S,
        hop_s=prod(strides) / rate_hz,
        first_s=field / 2 / rate_hz,
        level=level,
    )


def parse_layers(text: str, count: int) -> tuple[int, ...]:
    """Numbers of the hidden states that `--layers` means of a network of `count` layers; `count` is the last one.

    Raises ValueError for what is neither last4, last, N nor A-B, and for layers that the network does not have.
    """
    if text == "last4":
        chosen = range(count - 3, count + 1)
    elif text == "last":
        chosen = range(count, count + 1)
    else:
        found = re.fullmatch(r"(\d{1,3})(?:-(\d{1,3}))?", text)
        if found is None:
            raise ValueError(f"layers are last4, last, N or A-B, got {text!r}")
        first, last = int(found[1]), int(found[2] or found[1])
        if first > last:
            raise ValueError(f"layers are A-B with A not above B, got {text!r}")
        chosen = range(first, last + 1)
    if chosen.start < 0 or chosen[-1] > count:
        raise ValueError(f"there are no layers {text}: the network has {count}, of which 0 is what enters the first")
    return tuple(chosen)


def _of_preprocessor(folder: Path) -> tuple[bool, int]:
    """Whether sound is brought to one level, and its rate: what a checkpoint's preprocessor_config.json says."""
    from ..weights.folder import read_json  # noqa: PLC0415

    path = folder / "preprocessor_config.json"
    if not path.is_file():
        raise ValueError(
            "has no preprocessor_config.json, which says whether sound is brought to one level (do_normalize): copy it "
            "from where the weights are from"
        )
    said = read_json(path)
    level, rate_hz = said.get("do_normalize", True), said.get("sampling_rate", 16_000)
    if not isinstance(level, bool) or not isinstance(rate_hz, int) or not 1000 <= rate_hz <= 192_000:
        raise ValueError(f"preprocessor_config.json: do_normalize {level!r}, sampling_rate {rate_hz!r}")
    return level, rate_hz


def _renamed(key: str, kind: str) -> str:
    """A key of a checkpoint as the network has it: without the name of the network in a larger one.

    Older files have torch's old names of a weight norm's two parts.
    """
    key = key.removeprefix(f"{kind}.")
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        if key.endswith(f"conv.{old}"):
            return f"{key.removesuffix(old)}parametrizations.weight.{new}"
    return key
