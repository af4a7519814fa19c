"""Weight files read without running anything in them: .pth, .safetensors, .onnx → network, or VGGish's PCA.

Errors are ValueErrors without the file's name, which `weights` puts in front.
Tested by tests/encoders/weights/test_read.py.
"""

from __future__ import annotations

import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ..networks import layouts
from .registry import PCA

_LAYOUTS = {"iresnet50": layouts.FACE_LAYOUTS, "vggish": (layouts.VGGISH,), "logmel_vgg": (layouts.VGGISH,)}
_PCA_DIM = layouts.VGGISH.dim
# What torch's restricted unpickler raises on files that are cut short or not checkpoints at all.
_UNREADABLE = (
    RuntimeError,
    pickle.UnpicklingError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    OverflowError,
    MemoryError,
    struct.error,
    zipfile.BadZipFile,
)
_FOREIGN = re.compile(r"GLOBAL (\S+)")
# The rest of torch's own message advises to switch the protection off.
_TORCH_REASON = re.compile(r"WeightsUnpickler error: (.*)")


@dataclass(frozen=True)
class Network:
    """A network in eval mode, float32, on the CPU; `input_px` is the side of a face, None for audio."""

    module: nn.Module
    input_px: int | None
    dim: int


@dataclass(frozen=True)
class Pca:
    """VGGish's PCA: `eigen_vectors` float32 [128, 128] (rows are components), `means` float32 [128]."""

    eigen_vectors: NDArray[np.float32]
    means: NDArray[np.float32]


def read_network(path: Path, feature: str) -> Network:
    """The feature's network in a checkpoint of any layout that it may have, or in that of a whole run of ABAW3.

    Raises ValueError when the file holds anything but the feature's network; OSError when it cannot be read.
    """
    expected = _LAYOUTS[feature]
    layout, state = layouts.recognise(layouts.part_of_run(layouts.unwrap(read_checkpoint(path)), feature))
    if layout is not None and layout not in expected:
        names = " or ".join(known.name for known in expected)
        raise ValueError(f"{feature} needs the weights of {names}, this is {layout.name}")
    layout = layout or expected[0]
    return Network(layouts.network_of(layout, state), layout.input_px, layout.dim)


def untrained_network(feature: str, seed: int, layout: layouts.Layout | None = None) -> Network:
    """The feature's network with seeded random weights: its first one, or the one of a layout."""
    layout = layout or _LAYOUTS[feature][0]
    module = layouts.empty(layout)
    layouts.fill_untrained(module, seed, feature)
    return Network(module.eval().requires_grad_(requires_grad=False), layout.input_px, layout.dim)


def read_pca(path: Path) -> Pca:
    """The PCA of torchvggish's file. Raises ValueError for another file."""
    loaded = read_checkpoint(path)
    arrays = [loaded.get(key) for key in ("pca_eigen_vectors", "pca_means")]
    if not all(isinstance(array, (np.ndarray, torch.Tensor)) for array in arrays):
        raise ValueError("it does not hold a PCA: a dict with the arrays pca_eigen_vectors and pca_means is needed")
    vectors, means = (np.asarray(array, dtype=np.float32) for array in arrays)
    if vectors.shape != (_PCA_DIM, _PCA_DIM) or means.size != _PCA_DIM:
        raise ValueError(f"a PCA of {vectors.shape} and {means.shape}, not (128, 128) and (128, 1)")
    return Pca(vectors, means.reshape(_PCA_DIM))


def untrained_pca(seed: int) -> Pca:
    """A seeded random rotation [128, 128] and zero means [128]."""
    rotation, _ = np.linalg.qr(layouts.untrained_matrix((_PCA_DIM, _PCA_DIM), seed, PCA, "pca_eigen_vectors").numpy())
    return Pca(rotation.astype(np.float32), np.zeros(_PCA_DIM, np.float32))


def read_checkpoint(path: Path) -> Mapping[str, object]:
    """What a weight file holds. Raises ValueError where it is damaged, or would run code."""
    if path.suffix == ".onnx":
        try:
            from .onnx import read_onnx  # noqa: PLC0415 - onnx is an extra
        except ImportError as error:
            raise ValueError("reading .onnx needs the package onnx: pip install 'avfuse[onnx]'") from error
        return read_onnx(path)
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"not a safetensors file, or cut short ({error})") from error
    # A checkpoint is a pickle, which can run anything: weights_only builds tensors and plain containers, and arrays of
    # plain numbers (the PCA file); files written before numpy 2 call their home numpy.core.
    reconstruct: Any = np.zeros(0).__reduce__()[0]
    homes = [(reconstruct, f"{home}.multiarray._reconstruct") for home in ("numpy.core", "numpy._core")]
    allowed: list[Any] = [*homes, np.ndarray, np.dtype, *map(type, map(np.dtype, ("f4", "f8")))]
    size_bytes = path.stat().st_size
    with path.open("rb") as file, torch.serialization.safe_globals(allowed), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of old pickle protocols; the reader can do nothing about them
        try:
            # torch packs nothing: an archive of more bytes than the file has would fill the memory.
            if zipfile.is_zipfile(file):
                with zipfile.ZipFile(file) as archive:
                    held = sum(info.file_size for info in archive.infolist())
                if held > size_bytes:
                    raise ValueError(f"an archive of {held} bytes in a file of {size_bytes}")
            file.seek(0)
            loaded = torch.load(file, map_location="cpu", weights_only=True)
        except _UNREADABLE as error:
            raise ValueError(_why(error, size_bytes)) from error
    if not isinstance(loaded, dict):
        raise ValueError(f"it holds a {type(loaded).__name__}, not a state dict")
    return loaded


def _why(error: BaseException, size_bytes: int) -> str:
    foreign = _FOREIGN.search(str(error))
    if foreign:
        return (
            f"loading it would run code ({foreign[1]}), which avfuse refuses. Where you trust the file, save "
            f"its weights alone: torch.save(model.state_dict(), FILE)"
        )
    own_words = _TORCH_REASON.search(str(error))
    reason = own_words[1] if own_words else f"{type(error).__name__}: {str(error).partition(chr(10))[0][:120]}"
    return f"not a checkpoint of torch: cut short, or another kind of file ({size_bytes} bytes; {reason})"
