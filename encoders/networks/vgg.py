"""VGGish: torchvggish's network without its last ReLU, and its PCA. 18 tensors, 72,141,184 parameters.

    log-mel [N, 1, 96, 64] ── 6 convolutions, 4 halvings ── [N, 512, 6, 4] ── 3 linear layers ── [N, 128]

Source: docs/sources.md (VGGish). Tested by tests/parity/test_vgg.py.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from torch import Tensor, nn


def _torchvggish(name: str) -> Any:
    """A module of torchvggish by its file: the package's own `__init__` loads numba and soundfile (0.5 s, 70 MB)."""
    package = importlib.util.find_spec("torchvggish")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("No module named 'torchvggish'", name="torchvggish")
    spec = importlib.util.spec_from_file_location(
        f"avfuse_torchvggish_{name}", Path(package.origin).with_name(f"{name}.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_NETWORK, _PARAMS = _torchvggish("torchvggish"), _torchvggish("vggish_params")
PATCH_FRAMES: int = _PARAMS.NUM_FRAMES
PATCH_BANDS: int = _PARAMS.NUM_BANDS
DIM: int = _PARAMS.EMBEDDING_SIZE
_PCA_MIN: float = _PARAMS.QUANTIZE_MIN_VAL
_PCA_MAX: float = _PARAMS.QUANTIZE_MAX_VAL
_PCA_LEVELS = 255


def vggish() -> nn.Module:
    """Log-mel patches [N, 1, 96, 64] → embeddings [N, 128], up to the last linear layer: no final ReLU, no PCA."""
    network = _NETWORK.VGG(_NETWORK.make_layers(), postprocess=False)
    network.embeddings = network.embeddings[:-1]
    built: nn.Module = network
    return built


def apply_pca(rows: Tensor, eigen_vectors: Tensor, means: Tensor) -> Tensor:
    """VGGish's PCA, clipped to [−2, 2] and quantised to whole numbers 0 to 255, as float32 [N, 128].

    Source: torchvggish's Postprocessor, docs/sources.md (VGGish), less its squeeze, which drops a lone row's axis.
    """
    clipped = ((rows - means) @ eigen_vectors.T).clamp(_PCA_MIN, _PCA_MAX)
    return ((clipped - _PCA_MIN) * (_PCA_LEVELS / (_PCA_MAX - _PCA_MIN))).round()
