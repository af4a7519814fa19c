"""Our VGG and its PCA compute what torchvggish does with the same weights."""

import numpy as np
import pytest
import torch
from torchvggish import torchvggish as reference

from avfuse.encoders.embed import Embedder
from avfuse.encoders.weights.read import Network, Pca, untrained_network


@pytest.fixture(scope="module")
def ours():
    return untrained_network("vggish", 0)


@pytest.fixture(scope="module")
def theirs(ours):
    with torch.device("meta"):
        network = reference._vgg(postprocess=False)
    network.load_state_dict(ours.module.state_dict(), assign=True)
    return network.eval()


@pytest.fixture(scope="module")
def patches():
    return np.random.default_rng(0).uniform(-4.6, 2, (3, 96, 64)).astype(np.float32)


def test_counts(ours):
    assert len(ours.module.state_dict()) == 18
    assert sum(parameter.numel() for parameter in ours.module.parameters()) == 72_141_184


def test_relu_of_ours_is_torchvggish(ours, theirs, patches):
    with torch.inference_mode():
        expected = theirs(torch.tensor(patches)[:, None]).numpy()
    rows = Embedder(ours, "cpu", output="relu").rows(patches)
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    raw = Embedder(ours, "cpu").rows(patches)
    assert raw.min() < 0
    np.testing.assert_allclose(np.maximum(raw, 0), expected, atol=1e-5)


def test_pca_is_torchvggish(ours, theirs, patches, monkeypatch):
    rng = np.random.default_rng(1)
    vectors, means = rng.standard_normal((128, 128)) / 11, rng.standard_normal((128, 1)) / 9
    monkeypatch.setattr(
        reference.hub,
        "load_state_dict_from_url",
        lambda url: {"pca_eigen_vectors": vectors, "pca_means": means},
    )
    with torch.inference_mode():
        expected = reference.Postprocessor().postprocess(theirs(torch.tensor(patches)[:, None])).numpy()
    pca = Pca(vectors.astype(np.float32), means.astype(np.float32).reshape(-1))
    rows = Embedder(ours, "cpu", output="pca", pca=pca).rows(patches)
    assert rows.dtype == np.float32
    assert set(np.unique(rows)) <= set(range(256))
    # A value that lies on the edge between two levels may round either way.
    assert np.abs(rows - expected).max() <= 1
    assert np.mean(rows != expected) < 0.01


def test_one_row_keeps_its_axis(ours, patches):
    pca = Pca(np.eye(128, dtype=np.float32), np.zeros(128, np.float32))
    assert Embedder(ours, "cpu", output="pca", pca=pca).rows(patches[:1]).shape == (1, 128)


def test_network_is_what_it_says(ours):
    assert isinstance(ours, Network)
    assert (ours.input_px, ours.dim) == (None, 128)
    assert not any(parameter.requires_grad for parameter in ours.module.parameters())
