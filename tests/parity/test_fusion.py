"""S3's fusion and its CAN compute what the published ones do (tests/data/golden_fusion.npz)."""

import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from avfuse.fusion.models.can import CAN, CANSettings
from avfuse.fusion.models.lfan import ModalityAttention

GOLDEN = Path(__file__).parents[1] / "data" / "golden_fusion.npz"
MODALITIES = ("cnn", "vggish", "bert")
# Our names to the reference's.
OF_FUSION = (
    (r"^qkv\.(\d)", lambda m: f"layers.self_attn.qkv_proj.{MODALITIES[int(m[1])]}"),
    (r"^out", "layers.self_attn.o_proj"),
    (r"^norm", "layers.norm1"),
)
OF_CAN = (
    (r"^temporal\.(\d)\.tcn", lambda m: f"temporal.{MODALITIES[int(m[1])]}"),
    (r"^temporal\.(\d)\.bn", lambda m: f"bn.{MODALITIES[int(m[1])]}"),
    (r"parametrizations\.weight\.original0", "weight_g"),
    (r"parametrizations\.weight\.original1", "weight_v"),
    (r"^(attn\.\d|weights)", r"fuse.\1"),
)


def formula(key, shape):
    n = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
    if key.endswith(("running_mean", "bias")):
        return 0.1 * n
    if key.endswith(("running_var", "weight_g")):
        return 1 + 0.1 * np.abs(n)
    return 0.5 + 0.1 * n if len(shape) < 2 else n / np.sqrt(np.prod(shape[1:]))


def fill(network, names):
    """Every tensor by the formula of its name in the reference."""
    state = {}
    for key, value in network.state_dict().items():
        name = key
        for pattern, replacement in names:
            name = re.sub(pattern, replacement, name)
        state[key] = torch.tensor(formula(name, tuple(value.shape)))
    network.double().eval().load_state_dict(state)
    return network


def rows(seed, frames, width):
    return torch.tensor(np.random.default_rng(seed).uniform(-1, 1, (2, frames, width)))


@pytest.fixture(scope="module")
def fusion():
    return fill(ModalityAttention((128, 32, 128), 32, 2, 0.1), OF_FUSION)


@pytest.fixture(scope="module")
def can():
    settings = CANSettings(lead_channels=(256, 256, 128, 128), other_channels=(128, 128, 64, 64))
    return fill(CAN(settings, [(512,), (128,)], 1), OF_CAN)


def test_golden_output_of_the_leader_follower_attention(fusion):
    streams = [rows(seed, 20, width) for seed, width in ((1, 128), (2, 32), (3, 128))]
    with torch.inference_mode():
        ours = fusion(streams, torch.ones(2, 20, 3, dtype=torch.bool)).numpy()
        heard = torch.tensor([True, False, True]).expand(2, 20, 3)
        without = fusion(streams, heard).numpy()
    golden = np.load(GOLDEN)["lfan_fusion"]
    np.testing.assert_allclose(ours, golden, rtol=1e-9, atol=1e-12)
    assert np.abs(without - golden).max() > 0.1


def test_golden_output_of_can(can):
    there = torch.ones(2, 30, dtype=torch.bool)
    with torch.inference_mode():
        ours = can([rows(1, 30, 512), rows(2, 30, 128)], [there, there], there).numpy()
    golden = np.load(GOLDEN)["can"]
    np.testing.assert_allclose(ours, golden, rtol=1e-9, atol=1e-12)
    assert golden.std() > 1e-4
