"""Our TCN computes what the published one does (tests/data/golden_tcn.npz, every fifth frame)."""

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from avfuse.fusion.layers.tcn import TCN

GOLDEN = Path(__file__).parents[1] / "data" / "golden_tcn.npz"
KERNELS = [3, 5, 7]
# In the reference each convolution appears twice in the state dict; these names fill them.
CONV_SHAPES = {"weight_g": (128, 1, 1), "bias": (128,)}


def formula(key, shape):
    n = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
    if key.endswith("bias"):
        return 0.1 * n
    return 1 + 0.1 * np.abs(n) if key.endswith("weight_g") else n / np.sqrt(np.prod(shape[1:]))


def reference_state(kernel):
    """The reference's own names and shapes: `network.{i}.conv1.weight_g` …"""
    shapes = {"network.0.downsample.weight": (128, 512, 1), "network.0.downsample.bias": (128,)}
    for level in range(4):
        for conv, channels in (("conv1", 128 if level else 512), ("conv2", 128)):
            for part, shape in {**CONV_SHAPES, "weight_v": (128, channels, kernel)}.items():
                shapes[f"network.{level}.{conv}.{part}"] = shape
    return {key: torch.tensor(formula(key, shape)) for key, shape in shapes.items()}


@pytest.fixture(params=KERNELS, ids="k{}".format)
def loaded(request):
    """A kernel and the network with the reference's tensors, none missing and none left over."""
    network = TCN(512, [128] * 4, request.param).double().eval()
    assert len(network.state_dict()) == len(reference_state(request.param)) == 26
    network.load_state_dict(reference_state(request.param))
    return request.param, network


def frames():
    return torch.tensor(np.random.default_rng(0).uniform(-1, 1, (2, 512, 80)))


def test_golden_output(loaded):
    kernel, network = loaded
    with torch.inference_mode():
        ours = network(frames()).numpy()
    assert ours.shape == (2, 128, 80)
    np.testing.assert_allclose(ours[..., 4::5], np.load(GOLDEN)[f"tcn_k{kernel}"], rtol=1e-9, atol=1e-12)


def test_golden_output_in_float32(loaded):
    kernel, network = loaded
    with torch.inference_mode():
        ours = network.float()(frames().float()).numpy()
    golden = np.load(GOLDEN)[f"tcn_k{kernel}"]
    assert np.abs(ours[..., 4::5] - golden).max() < 1e-4 * golden.std()


def test_another_weight_gives_another_output(loaded):
    kernel, network = loaded
    state = reference_state(kernel)
    state["network.3.conv2.weight_g"] *= 1.001
    network.load_state_dict(state)
    with torch.inference_mode():
        ours = network(frames()).numpy()
    golden = np.load(GOLDEN)[f"tcn_k{kernel}"]
    assert not np.allclose(ours[..., 4::5], golden, rtol=1e-6, atol=1e-9)
