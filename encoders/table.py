"""Settings: what changes the numbers (`ExtractConfig`) apart from how to run (`RunConfig`)."""

from __future__ import annotations

from typing import Literal

Precision = Literal["fp32", "bf16", "fp16"]
VggishOutput = Literal["raw", "relu", "pca"]

VISUAL_FEATURES = ("iresnet50",)
PATCH_FEATURES = ("vggish", "logmel_vgg")
AUDIO_FEATURES = (*PATCH_FEATURES, "mfcc", "logmel")
FEATURES = (*VISUAL_FEATURES, *AUDIO_FEATURES)
NETWORK_FEATURES = (*VISUAL_FEATURES, *PATCH_FEATURES)
DEFAULT_FEATURES = NETWORK_FEATURES

# Side of an aligned face: what `faces` cuts out is what `embed` takes in.
CROP_PX = 112
