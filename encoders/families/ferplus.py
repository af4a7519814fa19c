"""S. Albanie's ResNet-50 and SENet-50 of FER+, read into timm's networks by their tensors' names.

    conv3_1_1x1_reduce, …_3x3, …_1x1_increase, …_1x1_proj (…_bn) ─► layer2.0.conv1, conv2, conv3, downsample (bn)
    conv3_1_1x1_down, …_1x1_up ─► layer2.0.se_module.fc1, fc2            classifier ─► fc, last_linear

    RGB 224², in grey levels less their mean ── … ── the 512 maps before the last expansion ── averaged ── [N, 512]

Caffe's layout: strides in the first 1×1 convolution of a stage, a max-pool without padding. Source: docs/sources.md
(Visual encoders). Tested by tests/encoders/families/test_ferplus.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..contract import Precision

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .images import ImageEncoder

KIND = "face"
REVISION = 1
LICENCE = "none stated for the weights; the conversions' code is MIT"
NEEDS = ("timm",)

_SIDE_PX = 224
_MEAN = tuple(level / 255 for level in (131.0912, 103.8827, 91.4953))
_EMOTIONS = 8
_IN_BLOCK = re.compile(r"conv([2-5])_(\d+)_(1x1_reduce|3x3|1x1_increase|1x1_proj|1x1_down|1x1_up)(_bn)?\.(\w+)")
_PARTS = {"1x1_reduce": "1", "3x3": "2", "1x1_increase": "3"}


def load(weights: Path | None, device: torch.device, precision: Precision, options: Mapping[str, str]) -> ImageEncoder:
    """The network of a file, or, where `weights` is None, one of seeded random weights (`untrained`).

    `options`: `feature`, `resnet50_ferplus` or `senet50_ferplus`. Raises ValueError where the file holds another.
    """
    from torch import nn  # noqa: PLC0415

    from ..networks.layouts import assign_strictly, fill_untrained, unwrap  # noqa: PLC0415
    from ..weights.read import read_checkpoint  # noqa: PLC0415
    from .images import ImageEncoder, Preprocessing  # noqa: PLC0415

    feature = options["feature"]
    with_gates = feature == "senet50_ferplus"
    network = _empty(with_gates)
    if weights is None:
        fill_untrained(network, int(options["untrained"]), feature)
    else:
        state = unwrap(read_checkpoint(weights))
        assign_strictly(network, renamed(state, with_gates), f"{'SENet' if with_gates else 'ResNet'}-50 of FER+")
    stem = [network.layer0, network.pool0] if with_gates else [network.conv1, network.bn1, nn.ReLU(), network.maxpool]
    first, second, last = network.layer4
    # What S4 took: the map after the last 3×3 convolution, its norm and ReLU.
    tap = [last.conv1, last.bn1, nn.ReLU(), last.conv2, last.bn2, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    layers = (*stem, network.layer1, network.layer2, network.layer3, first, second, *tap)
    return ImageEncoder(
        nn.Sequential(*layers), Preprocessing(_SIDE_PX, _MEAN, (1 / 255,) * 3, bicubic=False), device, precision
    )


def _empty(with_gates: bool) -> Any:
    """timm's network of that layout, on the `meta` device; all its buffers are in the file."""
    import timm  # noqa: PLC0415
    import torch  # noqa: PLC0415

    with torch.device("meta"):
        if with_gates:  # timm's own is Caffe's layout already
            return timm.create_model("legacy_seresnet50", pretrained=False, num_classes=_EMOTIONS)
        resnet: Any = timm.create_model("resnet50", pretrained=False, num_classes=_EMOTIONS)
    resnet.maxpool = torch.nn.MaxPool2d(3, stride=2, ceil_mode=True)
    for stage in (resnet.layer2, resnet.layer3, resnet.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    return resnet


def renamed(state: Mapping[str, Tensor], with_gates: bool) -> dict[str, Tensor]:
    """The weights of a file under timm's names; names of neither network stay as they are.

    The classifier is a 1×1 convolution there, a linear layer here. Counters of batches, which files of before torch
    0.4.1 lack and nobody reads, are 0.
    """
    import torch  # noqa: PLC0415

    stem = {"conv1_7x7_s2": "conv1", "conv1_7x7_s2_bn": "bn1"}
    found: dict[str, Tensor] = {}
    for key, tensor in state.items():
        layer, _, kind = key.rpartition(".")
        match = _IN_BLOCK.fullmatch(key)
        if layer in stem:
            found[f"{'layer0.' if with_gates else ''}{stem[layer]}.{kind}"] = tensor
        elif layer == "classifier":
            found[f"{'last_linear' if with_gates else 'fc'}.{kind}"] = tensor.flatten(1) if tensor.ndim > 1 else tensor
        elif match:
            stage, block, part, norm, kind = match.groups()
            named = {
                "1x1_proj": f"downsample.{1 if norm else 0}",
                "1x1_down": "se_module.fc1",
                "1x1_up": "se_module.fc2",
            }
            name = named.get(part) or f"{'bn' if norm else 'conv'}{_PARTS[part]}"
            found[f"layer{int(stage) - 1}.{int(block) - 1}.{name}.{kind}"] = tensor
        else:
            found[key] = tensor
    for key in [key for key in found if key.endswith(".running_var")]:
        found.setdefault(f"{key.removesuffix('running_var')}num_batches_tracked", torch.zeros((), dtype=torch.int64))
    return found
