"""Speech encoders through `extract` on real clips, the network refused: the library's numbers where NumPy puts them."""

import shutil

import numpy as np
import pytest
import torch
import transformers
from click.testing import CliRunner

from avfuse.cli import main
from avfuse.features_store.store import FeatureStore
from avfuse.pipeline.media.probe import probe
from avfuse.pipeline.media.readers import AudioReader

# 25 frames/s, and others dropped from time to time: up to 0.32 s from one to the next.
CLIPS = ("real/grid_bbaf2n.mpg", "derived/aoc_vfr_dropped.mp4")
NAMES = ("wavlm_base", "wavlm_large", "hubert_large", "wav2vec2_large", "wav2vec2_emotion", "whisper_large")


pytestmark = pytest.mark.usefixtures("no_network")


def run(*words: object) -> str:
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.output


def library_states(name, model, samples, spans) -> tuple[np.ndarray, np.ndarray]:
    """States of the whole sound by the library's own forward pass, and where they are centred, s."""
    with torch.inference_mode():
        if name.startswith("whisper"):
            extractor = transformers.WhisperFeatureExtractor(feature_size=128)
            features = extractor(samples, sampling_rate=16_000, return_tensors="pt").input_features
            states = model.encoder(features).last_hidden_state[0].numpy()
            at_s = 0.02 * np.arange(len(states))
            return states[at_s < len(samples) / 16_000], at_s[at_s < len(samples) / 16_000]
        real = np.concatenate([samples[round(start * 16_000) : round(stop * 16_000)] for start, stop in spans])
        even = ((samples - real.mean(dtype=np.float64)) / np.sqrt(real.var(dtype=np.float64) + 1e-7)).astype(np.float32)
        given = model(torch.from_numpy(even)[None], output_hidden_states=True)
        states = (sum(given.hidden_states[-4:-1]) + given.last_hidden_state)[0].numpy()
    return states, 0.0125 + 0.02 * np.arange(len(states))


def aligned(states, at_s, time_s) -> np.ndarray:
    """Rows by an alignment of its own: the mean of the states of each frame, the nearest where it has none."""
    rows = []
    for number, begin_s in enumerate(time_s):
        end_s = time_s[number + 1] if number + 1 < len(time_s) else 2 * begin_s - time_s[number - 1]
        within = (at_s >= begin_s - 1e-6) & (at_s < end_s - 1e-6)
        if not within.any():
            within = np.arange(len(at_s)) == np.abs(at_s - (begin_s + end_s) / 2).argmin()
        rows.append(states[within].mean(axis=0, dtype=np.float64))
    return np.array(rows)


@pytest.mark.parametrize(
    "names", [("wavlm_large", "whisper_large"), pytest.param(NAMES, marks=pytest.mark.slow)], ids=["two", "all"]
)
def test_each_encoder_beside_the_others_equals_its_library(media, speech_folder, tmp_path, names):
    videos = tmp_path / "videos"
    videos.mkdir()
    for clip in CLIPS:
        shutil.copy(media / clip, videos)
    made = {name: speech_folder(name) for name in names}
    weights = [word for name, (folder, _) in made.items() for word in ("--weights", f"{name}={folder}")]
    features = ",".join(("mfcc", *names))
    extract = ("extract", "--videos", videos, *weights, "--device", "cpu")
    run(*extract, "--features", features, "--store", tmp_path / "store")
    run(*extract, "--features", ",".join(names[::-1]), "--store", tmp_path / "again")
    for clip in CLIPS:
        name = (media / clip).stem
        trial, again = (FeatureStore(tmp_path / store)[name] for store in ("store", "again"))
        info = probe(media / clip)
        with AudioReader(info) as audio:
            samples, spans = np.concatenate(list(audio)), None
            spans = audio.real_spans()
        length_s = len(samples) / 16_000
        assert length_s < 30  # one window
        for encoder in names:
            states, at_s = library_states(encoder, made[encoder][1], samples, spans)
            expected = aligned(states, at_s, trial.time_s)
            rows, valid = trial.read(encoder), trial.read(f"{encoder}_valid")
            first = trial.time_s + 0.02 < length_s - 0.025
            np.testing.assert_allclose(rows[first], expected[first], atol=1e-5)
            assert rows.dtype == np.float32
            real = (trial.time_s > spans[0][0] + 0.01) & (trial.time_s < spans[-1][1] - 0.4)
            assert valid[real].all(), encoder
            assert not valid[trial.time_s > spans[-1][1]].any()
            np.testing.assert_array_equal(again.read(encoder), rows)  # two runs, bit by bit
        assert trial.read("mfcc").shape[1] == 39


def test_another_choice_of_layers_is_another_feature(media, speech_folder, tmp_path):
    (tmp_path / "videos").mkdir()
    shutil.copy(media / CLIPS[0], tmp_path / "videos")
    folder, _ = speech_folder("wavlm_base")
    common = ("extract", "--videos", tmp_path / "videos", "--store", tmp_path / "store", "--device", "cpu")
    extract = (*common, "--features", "wavlm_base", "--weights", f"wavlm_base={folder}")
    run(*extract)
    before = FeatureStore(tmp_path / "store")["grid_bbaf2n"].read("wavlm_base")
    assert "1 done before" in run(*extract, "--audio-align", "center")
    refused = CliRunner().invoke(main, [str(word) for word in (*extract, "--layers", "last")])
    assert refused.exit_code != 0
    assert "layers: last4 in the store, last now" in refused.output
    run(*extract, "--layers", "last", "--replace")
    after = FeatureStore(tmp_path / "store")["grid_bbaf2n"].read("wavlm_base")
    assert np.abs(after - before).max() > 0.1


def test_layers_that_a_network_does_not_have_are_one_line(media, speech_folder, tmp_path):
    (tmp_path / "videos").mkdir()
    shutil.copy(media / CLIPS[0], tmp_path / "videos")
    folder, _ = speech_folder("wavlm_base")
    words = (
        "extract",
        "--videos",
        tmp_path / "videos",
        "--features",
        "wavlm_base",
        "--layers",
        "40",
        "--device",
        "cpu",
    )
    done = CliRunner().invoke(main, [str(word) for word in (*words, "--weights", f"wavlm_base={folder}")])
    assert done.exit_code != 0
    assert "there are no layers 40: the network has 5" in done.output
    assert "Traceback" not in done.output
