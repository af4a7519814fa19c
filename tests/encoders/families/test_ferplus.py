"""FER+ networks out of files with S. Albanie's names, against their layers written out one by one."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from avfuse.encoders.families.ferplus import load

CPU = torch.device("cpu")
BLOCKS = {2: (3, 64), 3: (4, 128), 4: (6, 256), 5: (3, 512)}


def planted(with_gates: bool) -> dict[str, Tensor]:
    """Random tensors under the names of `senet50_ferplus_dag.pth` or `resnet50_ferplus_dag.pth`."""
    rng = np.random.default_rng(3)
    state: dict[str, Tensor] = {}

    def conv(name: str, width: int, inputs: int, side: int, bias: bool = False) -> None:
        scale = (2 / (inputs * side * side)) ** 0.5
        values = rng.standard_normal((width, inputs, side, side), np.float32) * scale
        state[f"{name}.weight"] = torch.from_numpy(values.astype(np.float32))
        if bias:
            state[f"{name}.bias"] = torch.from_numpy(rng.standard_normal(width, np.float32))
            return
        for kind, low, high in (("weight", 0.5, 1.0), ("bias", -0.1, 0.1), ("running_mean", -0.1, 0.1)):
            state[f"{name}_bn.{kind}"] = torch.from_numpy(rng.uniform(low, high, width).astype(np.float32))
        state[f"{name}_bn.running_var"] = torch.from_numpy(rng.uniform(0.5, 2, width).astype(np.float32))

    conv("conv1_7x7_s2", 64, 3, 7)
    inputs = 64
    for stage, (blocks, width) in BLOCKS.items():
        for block in range(1, blocks + 1):
            name = f"conv{stage}_{block}"
            conv(f"{name}_1x1_reduce", width, inputs, 1)
            conv(f"{name}_3x3", width, width, 3)
            conv(f"{name}_1x1_increase", 4 * width, width, 1)
            if with_gates:
                conv(f"{name}_1x1_down", width // 4, 4 * width, 1, bias=True)
                conv(f"{name}_1x1_up", 4 * width, width // 4, 1, bias=True)
            if block == 1:
                conv(f"{name}_1x1_proj", 4 * width, inputs, 1)
            inputs = 4 * width
    conv("classifier", 8, 2048, 1, bias=True)
    return state


def written_out(state: dict[str, Tensor], faces: np.ndarray) -> np.ndarray:
    """Mean of ReLU of conv5_3_3x3, from faces uint8 [N, 224, 224, 3]."""

    def layer(name: str, maps: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
        found = F.conv2d(maps, state[f"{name}.weight"], stride=stride, padding=padding)
        mean, var, weight, bias = (
            state[f"{name}_bn.{kind}"] for kind in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(found, mean, var, weight, bias, eps=1e-5)

    maps = (
        torch.from_numpy(faces).float().permute(0, 3, 1, 2) - torch.tensor([131.0912, 103.8827, 91.4953])[:, None, None]
    )
    maps = F.max_pool2d(layer("conv1_7x7_s2", maps, 2, 3).relu(), 3, 2, ceil_mode=True)
    for stage, (blocks, _) in BLOCKS.items():
        for block in range(1, blocks + 1):
            name, stride = f"conv{stage}_{block}", 2 if block == 1 and stage > 2 else 1
            inner = layer(f"{name}_1x1_reduce", maps, stride).relu()
            inner = layer(f"{name}_3x3", inner, padding=1).relu()
            if name == "conv5_3":
                return inner.mean((2, 3)).numpy()
            inner = layer(f"{name}_1x1_increase", inner)
            if f"{name}_1x1_down.weight" in state:
                gates = inner.mean((2, 3), keepdim=True)
                gates = F.conv2d(gates, state[f"{name}_1x1_down.weight"], state[f"{name}_1x1_down.bias"]).relu()
                gates = F.conv2d(gates, state[f"{name}_1x1_up.weight"], state[f"{name}_1x1_up.bias"]).sigmoid()
                inner = inner * gates
            maps = (inner + (layer(f"{name}_1x1_proj", maps, stride) if block == 1 else maps)).relu()
    raise AssertionError


@pytest.mark.parametrize("feature", [pytest.param("resnet50_ferplus", marks=pytest.mark.slow), "senet50_ferplus"])
def test_rows_are_those_of_the_layers(feature, tmp_path, pictures):
    state, faces = planted(feature == "senet50_ferplus"), pictures(2, 224)
    sizes = {"resnet50_ferplus": (320, 23_524_424), "senet50_ferplus": (384, 26_055_416)}
    counted = {key: tensor for key, tensor in state.items() if not key.endswith(("running_mean", "running_var"))}
    num_counters = sum(key.endswith("running_mean") for key in state)
    assert (len(state) + num_counters, sum(tensor.numel() for tensor in counted.values())) == sizes[feature]
    if feature == "senet50_ferplus":
        path = tmp_path / "senet50_ferplus_dag.pth"
        torch.save(state, path)
    else:
        path = tmp_path / "resnet50_ferplus_dag.safetensors"
        save_file(state, path)
    with torch.inference_mode():
        expected = written_out(state, faces)
    encoder = load(path, CPU, "fp32", {"feature": feature})
    assert (encoder.dim, encoder.input_px) == (512, 224)
    rows = encoder.rows(faces)
    assert np.abs(expected).mean() > 0.01
    np.testing.assert_allclose(rows, expected, atol=1e-5 * np.abs(expected).max())
    assert not np.allclose(rows[0], rows[1], atol=1e-3)

    other = "resnet50_ferplus" if feature == "senet50_ferplus" else "senet50_ferplus"
    with pytest.raises(ValueError, match=r"not the tensors of (Res|SE)Net-50 of FER"):
        load(path, CPU, "fp32", {"feature": other})


def test_files_that_are_not_these_networks(tmp_path):
    torch.save({"conv1_7x7_s2.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "half.pth")
    with pytest.raises(ValueError, match=r"ResNet-50 of FER\+ \(missing: bn1.weight"):
        load(tmp_path / "half.pth", CPU, "fp32", {"feature": "resnet50_ferplus"})
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(ValueError, match="would run code"):
        load(tmp_path / "module.pth", CPU, "fp32", {"feature": "resnet50_ferplus"})
