"""ONNX exports of IResNet-50, with BN folded into the convolutions and without, load into the network.

The graphs are built in this file, node by node, as torch's exporter writes an eval-mode IResNet-50; no published file
is needed.
"""

import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from avfuse.encoders.networks.iresnet import STAGES
from avfuse.encoders.weights.read import untrained_network
from avfuse.encoders.weights.registry import entry
from avfuse.encoders.weights.resolve import WeightsInvalid, WeightSource, load_network

onnx = pytest.importorskip("onnx", reason="the extra avfuse[onnx] is not installed")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

EPS = 1e-5


@pytest.fixture(scope="module")
def network():
    """Seeded weights with norms that do something: every tensor of at most one dimension is random."""
    module = untrained_network("iresnet50", 0).module
    rng = np.random.default_rng(0)
    for tensor in module.state_dict().values():
        if tensor.ndim == 1:
            tensor.add_(torch.from_numpy(rng.uniform(-0.1, 0.1, len(tensor)).astype(np.float32)))
    return module


@dataclass
class Exporter:
    """Writes the graph of a state dict; `folded` puts every BN behind a convolution into it."""

    state: dict[str, np.ndarray]
    folded: bool
    epsilon: float = EPS
    nodes: list[Any] = field(default_factory=list)
    initializers: list[Any] = field(default_factory=list)

    def graph(self, num_blocks=None):
        x = self.conv_norm("image", "conv1", "bn1")
        x = self.prelu(x, "prelu")
        for number, (_, blocks) in enumerate(STAGES, start=1):
            for index in range(num_blocks or blocks):
                x = self.block(x, f"layer{number}.{index}", number)
        x = self.add("Flatten", [self.add("Dropout", [self.norm(x, "bn2")])], axis=1)
        x = self.add("Gemm", [x, self.value("fc.weight"), self.value("fc.bias")], transB=1)
        self.nodes.append(helper.make_node("Identity", [self.norm(x, "features")], ["embedding"]))
        return self.nodes

    def block(self, x, name, number):
        y = self.conv_norm(self.norm(x, f"{name}.bn1"), f"{name}.conv1", f"{name}.bn2")
        stride = 2 if name.endswith(".0") else 1
        y = self.conv_norm(self.prelu(y, f"{name}.prelu"), f"{name}.conv2", f"{name}.bn3", stride)
        shortcut = x
        if stride == 2:
            shortcut = self.conv_norm(x, f"{name}.downsample.0", f"{name}.downsample.1", 2)
        return self.add("Add", [y, shortcut])

    def conv_norm(self, x, key, norm_key, stride=1):
        weight = self.state[f"{key}.weight"]
        side = weight.shape[-1]
        sizes = {"kernel_shape": [side, side], "strides": [stride, stride], "pads": [side // 2] * 4}
        if not self.folded:
            return self.norm(self.add("Conv", [x, self.value(f"{key}.weight")], **sizes), norm_key)
        gain, bias = self.affine(norm_key)
        inputs = [x, self.new(weight * gain[:, None, None, None]), self.new(bias)]
        return self.add("Conv", inputs, **sizes)

    def affine(self, key):
        weight, bias, mean, var = (self.state[f"{key}.{name}"] for name in NORM)
        gain = weight / np.sqrt(var + EPS)
        return gain, bias - mean * gain

    def norm(self, x, key):
        values = {name: self.state[f"{key}.{name}"] for name in NORM}
        values["running_var"] = values["running_var"] + np.float32(EPS - self.epsilon)
        inputs = [x, *(self.new(values[name]) for name in NORM)]
        return self.add("BatchNormalization", inputs, epsilon=self.epsilon)

    def prelu(self, x, key):
        slopes = numpy_helper.from_array(self.state[f"{key}.weight"][:, None, None])
        return self.add("PRelu", [x, self.add("Constant", [], value=slopes)])

    def value(self, key):
        return self.new(self.state[key])

    def new(self, array):
        name = f"value{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def add(self, op_type, inputs, **attributes):
        output = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [output], **attributes))
        return output

    def save(self, path):
        picture = helper.make_tensor_value_info("image", TensorProto.FLOAT, [None, 3, 112, 112])
        rows = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [None, 512])
        graph = helper.make_graph(self.nodes, "iresnet50", [picture], [rows], self.initializers)
        onnx.save(helper.make_model(graph), path)
        return WeightSource("iresnet50", path.name, path, "0" * 64, "a licence")


NORM = ("weight", "bias", "running_mean", "running_var")


def exporter(network, **options):
    return Exporter({key: tensor.numpy() for key, tensor in network.state_dict().items()}, **options)


@pytest.mark.parametrize(
    "options",
    [pytest.param({"folded": True}, marks=pytest.mark.slow), {"folded": False, "epsilon": 2e-3}],
    ids=["folded", "plain"],
)
def test_the_same_rows(network, options, tmp_path):
    export = exporter(network, **options)
    export.graph()
    loaded = load_network(export.save(tmp_path / "r50.onnx"))
    faces = torch.from_numpy(np.random.default_rng(1).uniform(-1, 1, (2, 3, 112, 112)).astype(np.float32))
    with torch.inference_mode():
        expected, ours = network(faces), loaded.module(faces)
    assert (ours - expected).abs().max() < 1e-4 * expected.std()
    assert (loaded.input_px, loaded.dim) == (112, 512)


def test_another_depth_is_refused(network, tmp_path):
    export = exporter(network, folded=True)
    export.graph(num_blocks=2)
    with pytest.raises(WeightsInvalid, match=r"shallow\.onnx: not the graph of an IResNet-50: layer1\.2"):
        load_network(export.save(tmp_path / "shallow.onnx"))


def test_a_normalising_head_is_refused(network, tmp_path):
    """A graph that scales the picture itself would get it scaled twice."""
    export = exporter(network, folded=True)
    export.add("Sub", ["image", export.new(np.zeros(1))])
    with pytest.raises(WeightsInvalid, match="'image' goes into Sub, expected one Conv"):
        load_network(export.save(tmp_path / "sub.onnx"))


@pytest.mark.parametrize("content", [b"", b"<html>", bytes(200)])
def test_no_onnx_file(content, tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(WeightsInvalid, match=r"broken\.onnx"):
        load_network(WeightSource("iresnet50", "broken", path, "0" * 64, "a licence"))


def test_without_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "avfuse.encoders.weights.onnx", raising=False)
    path = tmp_path / entry("w600k_r50").file_name
    path.write_bytes(b"")
    with pytest.raises(WeightsInvalid, match=r"needs the package onnx: pip install 'avfuse\[onnx\]'"):
        load_network(WeightSource("iresnet50", "w600k_r50", path, "0" * 64, "a licence"))
