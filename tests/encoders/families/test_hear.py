"""HEAR packages: their own times are taken, measured once, and held to."""

import sys
import types

import numpy as np
import pytest
import torch

from avfuse.encoders.loading import load_encoder
from avfuse.encoders.weights.resolve import WeightSource

CPU = torch.device("cpu")


@pytest.fixture
def package(monkeypatch):
    """Install a HEAR module: loudness in parts of 100 samples at 2 kHz; `times(ms [T])` may make them others."""

    def install(times=lambda ms: ms, width=1, **parts):
        def load_model(file=None):
            model = torch.nn.Linear(1, 1)
            model.sample_rate, model.timestamp_embedding_size, model.file = 2000, width, file  # type: ignore[assignment]
            return model

        def embed(audio, model):
            assert not torch.is_grad_enabled()
            loud = audio[:, : audio.shape[1] // 100 * 100].reshape(len(audio), -1, 100).square().mean(dim=2)
            ms = times(torch.arange(loud.shape[1]) * 50.0 + 25)
            return loud[:, :, None], ms.expand(len(audio), -1)

        module = types.ModuleType("hear_toy")
        vars(module).update({"load_model": load_model, "get_timestamp_embeddings": embed, **parts})
        monkeypatch.setitem(sys.modules, "hear_toy", module)

    return install


def load(source=None):
    return load_encoder("hear:hear_toy", {}, source, CPU, "fp32")


def test_states_and_times_are_the_packages_own(package):
    package()
    encoder = load()
    assert (encoder.sample_rate, encoder.hop_s, encoder.first_s, encoder.dim) == (2000, 0.05, 0.025, 1)
    samples = np.random.default_rng(0).standard_normal((2, 3000)).astype(np.float32)
    np.testing.assert_allclose(
        encoder.states(samples)[:, :, 0], np.square(samples).reshape(2, 30, 100).mean(axis=2), rtol=1e-5
    )


def test_weights_go_to_load_model(package, tmp_path):
    package()
    assert load(WeightSource("hear:hear_toy", "w", tmp_path / "w.pt", "00", "")).made._model.file == str(
        tmp_path / "w.pt"
    )
    assert load().made._model.file is None


@pytest.mark.parametrize(
    ("times", "said"),
    [
        (lambda ms: ms + (ms > 500) * 2.0, "the times of its states are not regular: state"),
        (lambda ms: ms * 0, "the times of its states do not rise"),
        (lambda ms: ms[:-1], r"gives times \[1, 599\] of states \[1, 600, 1\]"),
    ],
)
def test_times_that_are_none(package, times, said):
    package(times)
    with pytest.raises(ValueError, match=f"^encoder hear:hear_toy: {said}"):
        load()


def test_times_that_become_others_are_seen(package):
    package(lambda ms: ms if len(ms) == 600 else ms * 1.01)
    encoder = load()
    with pytest.raises(ValueError, match=r"state 2 lies at 126\.2 ms, where 125\.0 ms is due"):
        encoder.states(np.zeros((1, 2000), np.float32))


def test_what_is_not_a_hear_package(package, monkeypatch):
    package(load_model=None)
    with pytest.raises(ValueError, match="hear_toy does not have HEAR's API: load_model"):
        load()
    package(width=3)
    encoder = load()
    with pytest.raises(ValueError, match=r"gave float32 \[1, 20, 1\] where float32 \[1, K, 3\] is due"):
        encoder.states(np.zeros((1, 2000), np.float32))
    monkeypatch.delitem(sys.modules, "hear_toy")
    with pytest.raises(ValueError, match="there is no module hear_toy"):
        load()
