"""Our face networks compute what the published ones do (tests/data/golden_networks.npz)."""

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from avfuse.encoders.networks.layouts import EVOLVE, INSIGHTFACE, SUZHANG, empty

GOLDEN = Path(__file__).parents[1] / "data" / "golden_networks.npz"
# layout, golden array, tensors of the state dict, parameters
NETWORKS = [
    pytest.param(INSIGHTFACE, "iresnet50_insightface", 475, 43_590_848, id="insightface"),
    pytest.param(EVOLVE, "ir50_evolve", 349, 43_574_976, id="evolve", marks=pytest.mark.slow),
    pytest.param(SUZHANG, "ir50_suzhang", 351, 37_287_624, id="suzhang"),
]


def formula(key, shape):
    n = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if key.endswith("running_var"):
        return 1 + 0.1 * np.abs(n)
    if key.endswith(("running_mean", "bias")):
        return 0.1 * n
    return 0.5 + 0.1 * n if len(shape) < 2 else n / np.sqrt(np.prod(shape[1:]))


@pytest.mark.parametrize(("layout", "name", "num_tensors", "num_parameters"), NETWORKS)
def test_counts(layout, name, num_tensors, num_parameters):
    network = empty(layout)
    assert len(network.state_dict()) == num_tensors
    assert sum(parameter.numel() for parameter in network.parameters()) == num_parameters


@pytest.mark.parametrize(("layout", "name", "num_tensors", "num_parameters"), NETWORKS)
def test_golden_output(layout, name, num_tensors, num_parameters):
    network = empty(layout).double()
    state = {key: torch.as_tensor(formula(key, tuple(t.shape))) for key, t in network.state_dict().items()}
    network.load_state_dict(state, assign=True)
    px = layout.input_px
    faces = torch.tensor(np.random.default_rng(0).uniform(-1, 1, (2, 3, px, px)))
    with torch.inference_mode():
        ours = network.eval()(faces).numpy()
    np.testing.assert_allclose(ours, np.load(GOLDEN)[name], rtol=1e-9, atol=1e-12)


def test_suzhang_rows_have_norm_one():
    np.testing.assert_allclose(np.linalg.norm(np.load(GOLDEN)["ir50_suzhang"], axis=1), 1, rtol=1e-12)
