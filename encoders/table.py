"""The table of features: what each is made from, and what its rows are. Nothing in this file loads torch.

A feature is an entry of `TABLE`; one with a network has its layouts in `weights/read.py` and its files in
`weights/registry.py`. Units and long names are the store's own: `features_store/schema.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["fp32", "bf16", "fp16"]
VggishOutput = Literal["raw", "relu", "pca"]

# Side of an aligned face: what `faces` cuts out is what `embed` takes in.
CROP_PX = 112


@dataclass(frozen=True)
class Feature:
    """A kind of row: float32 `row_shape` a frame, from a `view` of the stream.

    `has_network`: whether an encoder makes it; `default`: whether it is extracted unless --features says otherwise;
    `else_weights_of`: the feature whose weights serve where it has none of its own.
    """

    name: str
    stream: Literal["visual", "audio"]
    view: Literal["crop", "patch", "samples"]
    row_shape: tuple[int, ...]
    has_network: bool
    default: bool
    else_weights_of: str | None = None


TABLE = {
    feature.name: feature
    for feature in (
        Feature("iresnet50", "visual", "crop", (512,), has_network=True, default=True),
        Feature("vggish", "audio", "patch", (128,), has_network=True, default=True),
        Feature("logmel_vgg", "audio", "patch", (128,), has_network=True, default=True, else_weights_of="vggish"),
        Feature("mfcc", "audio", "samples", (39,), has_network=False, default=False),
        Feature("logmel", "audio", "patch", (96, 64), has_network=False, default=False),
    )
}

FEATURES = tuple(TABLE)
VISUAL_FEATURES = tuple(name for name, feature in TABLE.items() if feature.stream == "visual")
AUDIO_FEATURES = tuple(name for name, feature in TABLE.items() if feature.stream == "audio")
NETWORK_FEATURES = tuple(name for name, feature in TABLE.items() if feature.has_network)
# Those whose network is fed with patches.
PATCH_FEATURES = tuple(name for name in NETWORK_FEATURES if TABLE[name].view == "patch")
DEFAULT_FEATURES = tuple(name for name, feature in TABLE.items() if feature.default)
