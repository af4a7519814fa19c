"""ONNX graphs that name other files, or are none."""

import random

import numpy as np
import pytest

from avfuse.encoders.weights.resolve import WeightsInvalid, WeightSource, load_network

onnx = pytest.importorskip("onnx", reason="the extra avfuse[onnx] is not installed")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402


def load(path):
    return load_network(WeightSource("iresnet50", path.name, path, "0" * 64, "a licence"))


def graph_of(nodes, tensors):
    picture = helper.make_tensor_value_info("image", TensorProto.FLOAT, [None, 3, 112, 112])
    rows = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [None, 512])
    return helper.make_model(helper.make_graph(nodes, "g", [picture], [rows], tensors))


def elsewhere(location):
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "weight")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    return tensor


@pytest.mark.parametrize("location", ["secret.bin", "../secret.bin", "/etc/hostname", "./secret.bin", ""])
@pytest.mark.parametrize("kind", ["initializer", "constant"])
def test_numbers_in_another_file_are_not_read(location, kind, tmp_path, monkeypatch):
    """onnx would read a file of the current folder."""
    (tmp_path / "secret.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    monkeypatch.chdir(tmp_path)
    tensor = elsewhere(location)
    constant = [helper.make_node("Constant", [], ["weight"], value=tensor)]
    model = graph_of(*(([], [tensor]) if kind == "initializer" else (constant, [])))
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(WeightsInvalid, match=r"a\.onnx: the numbers of 'weight' are in another file"):
        load(tmp_path / "a.onnx")


def test_onnx_itself_would_read_it(tmp_path, monkeypatch):
    """What the test above rests on."""
    (tmp_path / "secret.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    monkeypatch.chdir(tmp_path)
    assert numpy_helper.to_array(elsewhere("secret.bin")).tolist() == [0, 1, 2, 3]


def wrong_tensor(**fields):
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "weight")
    for name, value in fields.items():
        if name == "dims":
            del tensor.dims[:]
            tensor.dims.extend(value)
        else:
            setattr(tensor, name, value)
    return tensor


@pytest.mark.parametrize(
    ("nodes", "tensors"),
    [
        ([], [wrong_tensor(data_type=0)]),
        ([], [wrong_tensor(data_type=99)]),
        ([], [wrong_tensor(dims=[1 << 40, 1 << 20])]),
        ([], [wrong_tensor(dims=[-1, -1])]),
        ([helper.make_node("Constant", [], ["c"])], []),
        ([helper.make_node("Constant", [], [])], []),
        ([helper.make_node("Identity", [], ["c"])], []),
        ([helper.make_node("Conv", ["image"], [])], []),
        ([helper.make_node("Conv", ["image", "weight"], ["y"])], [wrong_tensor()]),
        ([helper.make_node("Identity", ["image"], ["image"])], []),
        ([helper.make_node("Conv", ["image", "weight"], ["image"])], [wrong_tensor()]),
    ],
)
def test_nodes_that_are_none(nodes, tensors, tmp_path):
    (tmp_path / "a.onnx").write_bytes(graph_of(nodes, tensors).SerializeToString())
    with pytest.raises(WeightsInvalid, match=r"a\.onnx"):
        load(tmp_path / "a.onnx")


def test_any_broken_byte(tmp_path):
    nodes = [helper.make_node("Conv", ["image", "weight"], ["y"], kernel_shape=[3, 3])]
    nodes.append(helper.make_node("PRelu", ["y", "weight"], ["z"]))
    whole = graph_of(nodes, [numpy_helper.from_array(np.zeros((2, 2), np.float32), "weight")]).SerializeToString()
    rng = random.Random(0)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 3, 9])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        (tmp_path / "a.onnx").write_bytes(data)
        with pytest.raises(WeightsInvalid, match=r"a\.onnx"):
            load(tmp_path / "a.onnx")
