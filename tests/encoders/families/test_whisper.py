"""Whisper's encoder from a folder of the whole network that transformers makes: the library's own numbers."""

import json
import shutil
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from avfuse.encoders.families import whisper
from avfuse.pipeline.audio.states import StateGrid

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def make_folder(speech_folder):
    """A folder of a tiny network of so many mel bands, as the library saves it, and its encoder."""

    def make(bands=128, head="WhisperForConditionalGeneration"):
        folder, model = speech_folder("whisper_large", head, num_mel_bins=bands)
        return folder, (model if head == "WhisperModel" else model.model).encoder

    return make


def load(folder, precision="fp32", **options):
    return whisper.load(folder, CPU, precision, options)


def library(encoder, bands, samples) -> np.ndarray:
    extractor = transformers.WhisperFeatureExtractor(feature_size=bands)
    features = extractor(list(samples), sampling_rate=16_000, return_tensors="pt").input_features
    with torch.inference_mode():
        states: np.ndarray = encoder(features).last_hidden_state.numpy()
    return states


def noise(seconds, batch=1) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal((batch, round(seconds * 16_000)))).astype(np.float32)


@pytest.mark.parametrize("bands", [pytest.param(80, marks=pytest.mark.slow), 128])
def test_states_are_those_of_the_library_within_the_sound(bands, make_folder):
    folder, model = make_folder(bands)
    encoder = load(folder)
    times = (encoder.sample_rate, encoder.window_s, encoder.context_s, encoder.hop_s, encoder.first_s, encoder.level)
    assert times == (16_000, 20.0, 5.0, 0.02, 0.0, False)
    for seconds, states in ((30, 1500), (7.03, 352), (0.02, 1)):
        samples = noise(seconds, 2)
        made = encoder.states(samples)
        assert made.shape == (2, states, 32)
        np.testing.assert_allclose(made, library(model, bands, samples)[:, :states], atol=1e-5)
        np.testing.assert_array_equal(encoder.states(samples), made)
        np.testing.assert_allclose(encoder.states(samples[:1])[0], made[0], atol=1e-5)


def test_windows_of_a_long_sound_are_whole_thirty_seconds(make_folder):
    encoder = load(make_folder()[0])
    grid = StateGrid(16_000, encoder.window_s, encoder.context_s, encoder.hop_s, encoder.first_s)
    num_samples = 61 * 16_000
    windows = list(grid.windows(num_samples))
    assert [each.stop - each.start for each in windows] == [480_000, 480_000, 21 * 16_000]
    kept = [
        grid.kept(each, encoder.states(noise((each.stop - each.start) / 16_000))[0], num_samples) for each in windows
    ]
    assert [len(each) for each in kept] == [1250, 1000, 800]


def test_the_network_without_its_language_head_is_as_good(make_folder):
    folder, model = make_folder(80, "WhisperModel")
    np.testing.assert_allclose(load(folder).states(noise(1)), library(model, 80, noise(1))[:, :50], atol=1e-5)


def test_folders_that_do_not_fit_are_refused(make_folder, tmp_path):
    folder, _ = make_folder(80)
    tensors = load_file(folder / "model.safetensors")

    def changed(name, tensors=tensors, config=None, **said):
        to = tmp_path / name
        shutil.copytree(folder, to)
        save_file(tensors, to / "model.safetensors")
        for file, values in (("config.json", config or {}), ("preprocessor_config.json", said)):
            (to / file).write_text(json.dumps({**json.loads((to / file).read_text()), **values}))
        return to

    half = {key: tensor for key, tensor in tensors.items() if "encoder.layers.1" not in key}
    for case, named in (
        (changed("half", half), "missing: "),
        (changed("bands", feature_size=128), "num_mel_bins 80, preprocessor_config.json feature_size 128"),
        (changed("hop", hop_length="many"), "hop_length"),
        (changed("bert", config={"model_type": "bert"}), "that of a bert, and not of a whisper"),
        (changed("positions", config={"max_source_positions": "many"}), "not that of a Whisper"),
        (changed("short", config={"max_source_positions": 100}), "too few for windows"),
    ):
        with pytest.raises(ValueError, match=named):
            load(case)
    bare = changed("bare")
    (bare / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match="copy it from where the weights are from"):
        load(bare)


def test_half_floats_are_near(make_folder):
    folder, _ = make_folder()
    exact, made = (load(folder, each).states(noise(3)) for each in ("fp32", "bf16"))
    assert 0 < np.abs(made - exact).mean() < 0.05 * np.abs(exact).mean()


def test_what_is_drawn_has_the_published_size():
    sizes: dict[str, Any] = {"num_mel_bins": 128, **whisper._UNTRAINED}
    with torch.device("meta"):
        network = transformers.models.whisper.modeling_whisper.WhisperEncoder(transformers.WhisperConfig(**sizes))
    assert sum(each.numel() for each in network.parameters()) / 1e6 == pytest.approx(637.0, abs=0.06)
