"""insightface's `w600k_r50.onnx` (and other eval-mode exports of IResNet-50) as the network's 475 tensors.

An export in eval mode folds the BN behind a convolution into it: the convolution gets a bias, the BN is left out.

    network   conv1 ── bn2 ── prelu ── conv2 ── bn3 ── +
    exported  Conv(bias) ──── PRelu ── Conv(bias) ──── Add

The folded bias becomes that of a BN which changes nothing else: weight 1, mean 0, var 1 − eps.
The graph is walked from its input along the network's own structure, so names in the file do not matter.
Source: docs/sources.md (IResNet-50, Weight files). Tested by tests/encoders/weights/test_onnx.py.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx.external_data_helper import uses_external_data
from onnx.helper import get_attribute_value
from onnx.numpy_helper import to_array

from ...shell.text import counted
from ..networks.iresnet import STAGES

_EPS = 1e-5  # of torch's BatchNorm, which the network uses
# What nodes and tensors with the wrong number, type or kind of things in them raise.
_NO_GRAPH = (TypeError, LookupError, AttributeError, ArithmeticError)
_PASSED_ON = ("Identity", "Dropout", "Flatten", "Reshape", "Cast")


def read_onnx(path: Path) -> dict[str, torch.Tensor]:
    """State dict of an IResNet-50 from its ONNX graph.

    Raises ValueError when the graph is another network's, or no graph at all.
    """
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except DecodeError as error:
        raise ValueError(f"not an ONNX file, or cut short ({error})") from error
    try:
        state = _Walk(graph).state()
        return {
            key: torch.from_numpy(np.array(value, np.int64 if key.endswith("num_batches_tracked") else np.float32))
            for key, value in state.items()
        }
    except _NO_GRAPH as error:
        raise ValueError(f"not the graph of an IResNet-50 ({type(error).__name__}: {error})") from error


class _Walk:
    """Follows a graph from its input and collects tensors under the network's names."""

    def __init__(self, graph: Any) -> None:
        self._values = {tensor.name: _array(tensor) for tensor in graph.initializer}
        self._inputs = [value.name for value in graph.input if value.name not in self._values]
        self._alias: dict[str, str] = {}
        self._consumers: dict[str, list[Any]] = defaultdict(list)
        for node in graph.node:  # ONNX demands topological order
            if node.op_type == "Constant":
                self._values[node.output[0]] = _array(_attribute(node, "value", None))
            elif node.op_type == "Identity" and node.input[0] in self._values:
                self._values[node.output[0]] = self._values[node.input[0]]
            elif node.op_type in _PASSED_ON:
                self._alias[node.output[0]] = self._alias.get(node.input[0], node.input[0])
            else:
                for name in {self._alias.get(name, name) for name in node.input if name not in self._values}:
                    self._consumers[name].append(node)
        self._state: dict[str, NDArray[Any]] = {}

    def state(self) -> dict[str, NDArray[Any]]:
        """All 475 tensors. Raises ValueError at the first node that an IResNet-50 does not have there."""
        if len(self._inputs) != 1:
            raise ValueError(f"an ONNX graph of {counted(len(self._inputs), 'input')}, not of one picture")
        x = self._conv(self._inputs[0], "conv1", "bn1", "prelu")
        for number, (_, num_blocks) in enumerate(STAGES, start=1):
            for index in range(num_blocks):
                name = f"layer{number}.{index}"
                y = self._norm(x, f"{name}.bn1")
                y = self._conv(y, f"{name}.conv1", f"{name}.bn2", f"{name}.prelu")
                y = self._conv(y, f"{name}.conv2", f"{name}.bn3")
                if index == 0:
                    x = self._conv(x, f"{name}.downsample.0", f"{name}.downsample.1")
                added = self._follow(y, "Add")
                if x not in (self._alias.get(source, source) for source in added.input):
                    raise ValueError(f"not the graph of an IResNet-50: {name} has another shortcut")
                x = str(added.output[0])
        x = self._norm(x, "bn2")
        gemm = self._follow(x, "Gemm")
        weight = self._value(gemm, 1)
        self._state["fc.weight"] = weight if _attribute(gemm, "transB", 0) else weight.T
        self._state["fc.bias"] = self._value(gemm, 2)
        self._norm(gemm.output[0], "features", np.zeros(len(self._state["fc.bias"])))
        return self._state

    def _conv(self, x: str, key: str, norm_key: str, prelu_key: str | None = None) -> str:
        conv = self._follow(x, "Conv")
        weight = self._value(conv, 1)
        self._state[f"{key}.weight"] = weight
        bias = self._value(conv, 2) if len(conv.input) > 2 else np.zeros(len(weight))
        x = self._norm(conv.output[0], norm_key, bias)
        if prelu_key is not None:
            prelu = self._follow(x, "PRelu")
            self._state[f"{prelu_key}.weight"] = self._value(prelu, 1).reshape(-1)
            x = str(prelu.output[0])
        return x

    def _norm(self, x: str, key: str, bias: NDArray[Any] | None = None) -> str:
        """The BN behind x, less the bias in front of it; where it was folded, one that only adds the bias."""
        if bias is None or any(node.op_type == "BatchNormalization" for node in self._consumers[x]):
            node = self._follow(x, "BatchNormalization")
            weight, shift, mean, var = (self._value(node, index) for index in range(1, 5))
            var = var + (_attribute(node, "epsilon", _EPS) - _EPS)
            x = str(node.output[0])
            mean = mean if bias is None else mean - bias
        else:
            ones = np.ones(len(bias))
            weight, shift, mean, var = ones, bias, np.zeros(len(bias)), ones - _EPS
        self._state |= {
            f"{key}.weight": weight,
            f"{key}.bias": shift,
            f"{key}.running_mean": mean,
            f"{key}.running_var": var,
            f"{key}.num_batches_tracked": np.zeros(()),
        }
        return x

    def _follow(self, x: str, op_type: str) -> Any:
        found = [node for node in self._consumers[x] if node.op_type == op_type]
        if len(found) != 1:
            found_types = ", ".join(node.op_type for node in self._consumers[x]) or "nothing"
            raise ValueError(f"not the graph of an IResNet-50: {x!r} goes into {found_types}, expected one {op_type}")
        return found[0]

    def _value(self, node: Any, index: int) -> NDArray[Any]:
        name = node.input[index] if index < len(node.input) else ""
        if name not in self._values:
            raise ValueError(f"input {index} of its {node.op_type} {node.name!r} is not a constant")
        return self._values[name]


def _array(tensor: Any) -> NDArray[Any]:
    # onnx would look for the numbers in any file that the tensor names.
    if uses_external_data(tensor):
        raise ValueError(f"the numbers of {tensor.name!r} are in another file; save the model as one file")
    values: NDArray[Any] = to_array(tensor)
    return values


def _attribute(node: Any, name: str, default: Any) -> Any:
    return next((get_attribute_value(held) for held in node.attribute if held.name == name), default)
