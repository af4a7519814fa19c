"""VGGish on patches that overlap: the rows of the network on each patch alone, whatever the patches' times."""

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike
from torch import nn

from avfuse.encoders.embed import Embedder
from avfuse.encoders.engine import BatchingEngine, CpuEngine
from avfuse.encoders.networks import vgg
from avfuse.encoders.networks.vgg import OverlappingVggish, sum_of_products, vggish
from avfuse.encoders.views import Patches
from avfuse.encoders.weights.read import untrained_network
from avfuse.features_store.clock import patch_start_frames

TIMES_S = {
    "25": np.arange(64) / 25,
    "29.97": np.arange(64) * 1001 / 30_000,
    "30": np.arange(64) / 30,
    "VFR": np.cumsum(np.random.default_rng(5).uniform(0.01, 0.08, 64)) - 0.4,
}


def patches_at(starts: ArrayLike, seed: int = 0) -> Patches:
    """Patches of noise as loud as log-mel, at these frames of a track."""
    starts = np.array(starts, np.int64)
    starts -= starts[0]
    frames = np.random.default_rng(seed).uniform(-4.6, 2, (int(starts[-1]) + 96, 64)).astype(np.float32)
    return Patches(frames, starts)


def one_by_one(network: Any, patches: Patches) -> np.ndarray:
    with torch.inference_mode():
        dtype = next(network.parameters()).dtype
        rows: np.ndarray = network(torch.tensor(np.asarray(patches))[:, None].to(dtype)).double().numpy()
        return rows


def together(network: Any, patches: Patches) -> np.ndarray:
    with torch.inference_mode():
        dtype = next(network.parameters()).dtype
        return OverlappingVggish(network)(torch.tensor(patches.frames).to(dtype), patches.firsts).double().numpy()


@pytest.fixture(scope="module")
def real():
    """VGGish at its real size, and the same in float64."""
    network = untrained_network("vggish", 0)
    return network, deepcopy(network.module).double()


@pytest.fixture(scope="module")
def small():
    """VGGish with maps of 4 to 8 channels in place of 64 to 512, in float64."""
    torch.manual_seed(0)
    network: Any = vggish()
    channels = iter([(1, 4), (4, 5), (5, 6), (6, 6), (6, 8), (8, 8)])
    for at, layer in enumerate(network.features):
        if isinstance(layer, nn.Conv2d):
            network.features[at] = nn.Conv2d(*next(channels), kernel_size=3, padding=1)
    network.embeddings = nn.Sequential(nn.Linear(6 * 4 * 8, 16), nn.ReLU(), nn.Linear(16, 128))
    return network.double().eval()


@pytest.mark.parametrize(
    "rate", [pytest.param(each, marks=() if each in ("25", "VFR") else pytest.mark.slow) for each in TIMES_S]
)
def test_rows_are_those_of_the_network_patch_by_patch(real, rate):
    """Within 1e-5 of the largest number, against float64, at real size and in float32."""
    network, exact = real
    patches = patches_at(patch_start_frames(TIMES_S[rate], "center"))[:6]
    rows = Embedder(network, "cpu").rows(patches)
    expected = one_by_one(exact, patches)
    assert np.abs(rows - expected).max() <= 1e-5 * np.abs(expected).max()


@settings(max_examples=40)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=12), st.integers(0, 100), st.sampled_from([0, 1]))
def test_any_patches_in_any_order_of_phases(small, steps, seed, jump):
    """Any steps, two patches at one time and patches that do not meet among them."""
    starts = np.cumsum(steps) + 200 * jump * (np.arange(len(steps)) > len(steps) // 2)
    patches = patches_at(starts, seed)
    np.testing.assert_allclose(together(small, patches), one_by_one(small, patches), rtol=0, atol=1e-12)


def test_a_row_does_not_depend_on_where_the_sound_was_cut(real):
    embedder = Embedder(real[0], "cpu")
    patches = patches_at(patch_start_frames(TIMES_S["30"], "start")[:24])
    whole = embedder.rows(patches)
    cut = np.concatenate([embedder.rows(patches[at : at + 7]) for at in range(0, 24, 7)])
    assert np.abs(whole - cut).max() <= 1e-5 * np.abs(whole).max()
    np.testing.assert_array_equal(embedder.rows(patches), whole)
    assert embedder.rows(patches[:0]).shape == (0, 128)


@pytest.mark.parametrize(
    ("times_s", "most"), [(TIMES_S["25"], 0.30), (TIMES_S["29.97"], 0.45), (TIMES_S["30"], 0.45), (np.arange(5.0), 1)]
)
def test_what_patches_have_in_common_is_multiplied_once(small, monkeypatch, times_s, most):
    """Multiplications of the convolutions, in parts of those patch by patch; never more."""
    bands, counted = [64, 32, 16, 16, 8, 8], []

    def counting(rows, kernel, below):
        counted.append(sum(len(np.unique(places)) for places in below.T))
        return sum_of_products(rows, kernel, below)

    monkeypatch.setattr(vgg, "sum_of_products", counting)
    patches = patches_at(patch_start_frames(times_s, "start"))
    together(small, patches)
    channels = [(1, 64), (64, 128), (128, 256), (256, 256), (256, 512), (512, 512)]
    each = [3 * below * above * band for (below, above), band in zip(channels, bands, strict=True)]
    plain = sum(3 * length * cost for length, cost in zip([96, 48, 24, 24, 12, 12], each, strict=True)) * len(patches)
    assert sum(rows * cost for rows, cost in zip(counted, each, strict=True)) <= most * plain


def test_bf16_is_nearly_as_close_as_patch_by_patch(small):
    """The three products of a convolution are rounded before they are summed: 1.3 times the noise at real size."""
    patches = patches_at(patch_start_frames(TIMES_S["25"], "start"))
    exact, rough = one_by_one(small, patches), deepcopy(small).bfloat16()
    noise = np.std(one_by_one(rough, patches) - exact)
    assert 0 < np.std(together(rough, patches) - exact) <= 1.5 * noise < 0.1 * exact.std()


class Noting:
    """Rows are the patches' first numbers; notes what came."""

    batch_size = 32

    def __init__(self):
        self.seen = []

    def rows(self, batch):
        self.seen.append(batch)
        return np.asarray(batch)[:, 0, :1]


@pytest.mark.parametrize("on_cpu", [True, False])
def test_the_cpu_takes_patches_together_and_a_gpu_takes_each_by_itself(on_cpu):
    network = Noting()
    engine = CpuEngine({"a": network}, 1) if on_cpu else BatchingEngine({"a": network}, torch.device("cpu"))
    patches = patches_at(np.arange(0, 400, 4))
    rows = np.concatenate([future.result() for future in engine.submit("a", patches)])
    engine.close()
    np.testing.assert_array_equal(rows, np.asarray(patches)[:, 0, :1])
    assert [len(batch) for batch in network.seen] == ([64, 36] if on_cpu else [32] * 4)
    assert all(isinstance(batch, Patches) == on_cpu for batch in network.seen)


def test_another_network_gets_each_patch(real):
    """What is not VGGish takes what arrays of patches are."""

    class Means(nn.Module):
        def forward(self, x):
            return x.mean((1, 2, 3))[:, None]

    network = type(real[0])(Means(), None, 1)
    patches = patches_at([0, 3, 7])
    rows = Embedder(network, "cpu").rows(patches)
    np.testing.assert_allclose(rows[:, 0], np.asarray(patches).mean((1, 2)), atol=1e-5)


def test_what_are_no_patches():
    with pytest.raises(ValueError, match="a log-mel frame has 64 bands, got"):
        Patches(np.zeros((96, 96), np.float32), np.array([0]))
    with pytest.raises(ValueError, match="patches of 96 frames from 0 to 5 do not lie on 100 frames"):
        Patches(np.zeros((100, 64), np.float32), np.array([0, 5]))
