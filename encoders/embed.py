"""The border between NumPy and torch: pictures and patches in, embeddings out.

    uint8 [N, 112, 112, 3] ── (x/255 − 0.5)/0.5 ── [n, 3, 112, 112] ─┐
                                                                     ├─ network ─ float32 [N, D]
    float32 [N, 96, 64] ────────────────────────── [n, 1, 96, 64] ───┘

Tested by tests/encoders/test_embed.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..shell.text import counted
from .networks.folding import fold
from .networks.ir50 import SUZHANG_PX
from .networks.vgg import PATCH_BANDS, PATCH_FRAMES
from .table import CROP_PX, Precision, VggishOutput
from .weights.read import Network, Pca
from .weights.registry import PCA
from .weights.resolve import WeightSource, load_network, load_pca

_SUZHANG_STORED_PX = 48  # he stored faces at 48 px and cut the middle 40 out of them: docs/sources.md (IR-50)
_KINDS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_PCA_CLIP = 2.0
_PCA_LEVELS = 255


class Embedder:
    """One network on one device; `dim` is the width of its rows.

    `output` is what becomes of VGGish's embedding: as it is, after a ReLU, or after ReLU and PCA (of `pca`).
    """

    def __init__(
        self,
        network: Network,
        device: torch.device | str,
        precision: Precision = "fp32",
        batch_size: int = 32,
        *,
        output: VggishOutput = "raw",
        pca: Pca | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"the batch size is 1 or more, got {batch_size}")
        if output == "pca" and pca is None:
            raise ValueError("the output `pca` needs the weights vggish-pca")
        self.dim, self.batch_size = network.dim, batch_size
        self._device, self._precision = torch.device(device), precision
        refuse_precision(self._device, precision)
        self._input_px, self._output = network.input_px, output
        self._pca = _to_device(pca, self._device) if output == "pca" and pca else None
        self._kind, self._format = _KINDS[precision], _memory_format(network, self._device, precision)
        self._module = fold(network.module).to(self._device, self._kind).to(memory_format=self._format)

    def rows(self, batch: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
        """Embeddings float32 [N, dim] of RGB faces uint8 [N, 112, 112, 3] or patches float32 [N, 96, 64].

        Raises ValueError for anything else.
        """
        self._refuse(batch)
        parts = [batch[start : start + self.batch_size] for start in range(0, len(batch), self.batch_size)]
        with torch.inference_mode(), _exact_convolutions(self._precision):
            done = [self._embed(_moved(part, self._device)) for part in parts]
            return torch.cat(done).cpu().numpy() if done else np.zeros((0, self.dim), np.float32)

    def _embed(self, part: Tensor) -> Tensor:
        inputs = part[:, None] if self._input_px is None else faces_to_input(part, self._input_px)
        return self._postprocess(self._module(inputs.to(self._kind).contiguous(memory_format=self._format)).float())

    def _postprocess(self, rows: Tensor) -> Tensor:
        if self._output == "raw":
            return rows
        return rows.relu() if self._pca is None else apply_pca(rows.relu(), *self._pca)

    def _refuse(self, batch: NDArray[np.uint8] | NDArray[np.float32]) -> None:
        shape = (PATCH_FRAMES, PATCH_BANDS) if self._input_px is None else (CROP_PX, CROP_PX, 3)
        kind = np.float32 if self._input_px is None else np.uint8
        if batch.shape[1:] != shape or batch.dtype != kind:
            wanted = f"{np.dtype(kind).name} [N, {', '.join(map(str, shape))}]"
            raise ValueError(f"this network takes {wanted}, got {batch.dtype.name} {list(batch.shape)}")


def load_embedders(
    networks: Sequence[str],
    vggish_output: VggishOutput,
    precision: Precision,
    sources: Mapping[str, WeightSource],
    device: torch.device | str,
    batch_size: int,
) -> dict[str, Embedder]:
    """An embedder for every network feature; features with equal weights share one.

    `sources` are the weights of `weight_names`. `vggish_output` concerns `vggish` alone: `logmel_vgg`
    stays raw, and shares `vggish`'s network only where that is raw too. Raises WeightsInvalid, ValueError.
    """
    pca = load_pca(sources[PCA]) if PCA in sources else None
    loaded: dict[tuple[object, VggishOutput], Embedder] = {}
    embedders: dict[str, Embedder] = {}
    for feature in networks:
        output: VggishOutput = vggish_output if feature == "vggish" else "raw"
        key = (sources[feature].path or feature, output)
        if key not in loaded:
            network = load_network(sources[feature])
            loaded[key] = Embedder(network, device, precision, batch_size, output=output, pca=pca)
        embedders[feature] = loaded[key]
    return embedders


def choose_device(name: str) -> torch.device:
    """The device called `auto`, `cpu`, `cuda` or `cuda:N`; `auto` is the GPU where there is one.

    Raises ValueError for another name or a GPU that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if name == "cpu" or (kind == "cuda" and (number.isdecimal() or name == "cuda")):
        return _present(torch.device(name))
    raise ValueError(f"the device is auto, cpu, cuda or cuda:N, got {name!r}")


def refuse_precision(device: torch.device, precision: Precision) -> None:
    """Raises ValueError for fp16 without a GPU."""
    if precision == "fp16" and device.type == "cpu":
        raise ValueError("the precision fp16 needs a GPU; on the CPU take fp32 (exact) or bf16")


def faces_to_input(faces: Tensor, input_px: int) -> Tensor:
    """RGB faces uint8 [N, 112, 112, 3] → float32 [N, 3, px, px] in [−1, 1].

    Source: docs/sources.md (IResNet-50, IR-50).
    """
    inputs = (faces.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    if input_px != SUZHANG_PX:
        return inputs
    size = (_SUZHANG_STORED_PX, _SUZHANG_STORED_PX)
    small = F.interpolate(inputs, size, mode="bilinear", antialias=True)
    edge = (_SUZHANG_STORED_PX - SUZHANG_PX) // 2
    return small[:, :, edge:-edge, edge:-edge]


def apply_pca(rows: Tensor, eigen_vectors: Tensor, means: Tensor) -> Tensor:
    """VGGish's PCA, clipped to [−2, 2] and quantised to whole numbers 0 to 255, as float32 [N, 128].

    Source: torchvggish's Postprocessor, docs/sources.md (VGGish), less its squeeze, which drops a lone row's axis.
    """
    clipped = ((rows - means) @ eigen_vectors.T).clamp(-_PCA_CLIP, _PCA_CLIP)
    return ((clipped + _PCA_CLIP) * (_PCA_LEVELS / (2 * _PCA_CLIP))).round()


def _present(device: torch.device) -> torch.device:
    num_gpus = torch.cuda.device_count() if device.type == "cuda" else 0
    if device.type == "cuda" and (device.index or 0) >= num_gpus:
        raise ValueError(
            f"there is no {device}: torch {torch.__version__} sees {counted(num_gpus, 'GPU')}; try --device cpu"
        )
    return device


def _moved(part: NDArray[np.uint8] | NDArray[np.float32], device: torch.device) -> Tensor:
    # Copied: torch takes neither read-only arrays nor negative strides. From pinned memory a GPU takes it by itself.
    tensor = torch.from_numpy(np.array(part))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _to_device(pca: Pca, device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.tensor(pca.eigen_vectors, device=device), torch.tensor(pca.means, device=device)


def _memory_format(network: Network, device: torch.device, precision: Precision) -> torch.memory_format:
    # Measured on 2 CPU cores, 16 and 32 faces: 1.2 times as fast. Tensor cores too want half floats this way.
    faces_first = network.input_px is not None and (device.type == "cpu" or precision != "fp32")
    return torch.channels_last if faces_first else torch.contiguous_format


def _exact_convolutions(precision: Precision) -> AbstractContextManager[None]:
    # On a GPU torch computes float32 convolutions in TF32 unless told otherwise: off by 1e-3.
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=precision != "fp32")
