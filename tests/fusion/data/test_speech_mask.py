"""`audio_rows=speech`: rows of sound count where somebody speaks, all others stay; and without it nothing changes."""

import json
import re

import numpy as np
import pytest
import torch

from avfuse.features_store.schema import JsonValue
from avfuse.features_store.store import FeatureStore
from avfuse.fusion.data.dataset import load
from avfuse.fusion.data.matching import TrialSource
from avfuse.fusion.data.runtime import Room

MADE: dict[str, JsonValue] = {
    "face": {"fingerprint": "f", "made_from": "faces"},
    "voice": {"fingerprint": "v", "made_from": "audio"},
}
HEARD: dict[str, JsonValue] = {"speech": {"fingerprint": "s", "made_from": "audio"}}


def add_speech(store, flat=False):
    """Speech in the second half of each trial, and in row 1; of the last row it is not known."""
    writable = FeatureStore(store, mode="a")
    for name in writable.trials():
        rows = {array: np.asarray(stored[:]) for array, stored in writable[name].items()}
        count = len(rows["time"])
        probability = np.where(np.arange(count) * 2 >= count, 0.9, 0.1).astype(np.float32)
        probability[1] = 0.5
        known = np.arange(count) < count - 1
        rows |= {"speech": probability if flat else probability[:, None], "speech_valid": known}
        writable.write(name, rows, {"features": {**MADE, **HEARD}})
    return FeatureStore(store)


def read(store, modalities, speech_above, streamed=False):
    sources = {
        name: TrialSource(name, name, np.zeros((trial.rows + extra, 2), np.float32), np.ones(trial.rows + extra, bool))
        for extra, (name, trial) in enumerate(store.items())
    }
    bytes_free = 0 if streamed else 1 << 40
    room = Room(torch.device("cpu"), bytes_free, bytes_free)
    return load(store, sources, modalities, room, speech_above=speech_above)


@pytest.fixture
def corpus(plant_small, tmp_path):
    return plant_small(tmp_path / "c", trials=4)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("flat", [False, True])
def test_rows_of_sound_count_where_somebody_speaks(corpus, streamed, flat):
    store = add_speech(corpus.store, flat)
    modalities = ("face", "voice") if flat else ("face", "voice", "speech")
    plain, masked = (read(store, modalities, above, streamed) for above in (None, 0.5))
    for at, name in enumerate(modalities):
        for trial, (first, count) in masked.spans.items():
            rows = slice(first, first + count)
            before, after = plain.valid[at][rows].numpy(), masked.valid[at][rows].numpy()
            if name != "voice":
                assert np.array_equal(before, after)
                continue
            stored = store[trial].rows
            speaks = np.arange(count) * 2 >= stored
            speaks[1] = True
            speaks[stored - 1 :] = False
            assert np.array_equal(after, before & speaks)
    if not streamed:
        assert all(torch.equal(one, other) for one, other in zip(plain.rows.tables, masked.rows.tables, strict=True))
    half = sum(int((~masked.valid[1][first : first + count]).sum()) for first, count in masked.spans.values())
    assert masked.notes == (f"no speech in {half} of {len(masked.labels) - 1} rows: voice count as missing there",)
    assert plain.notes == ()
    # Statistics are of the rows that count.
    moments, of_all = (sum(each[1].count for each in data.moments.values()) for data in (masked, plain))
    assert moments == of_all - half + sum(range(4))  # rows beyond the trial count in neither


def test_a_threshold_of_its_own(corpus):
    store = add_speech(corpus.store)
    lenient, strict = (read(store, ("voice",), above).valid[0].sum() for above in (0.05, 0.95))
    assert strict == 0 < lenient


def test_without_speech_or_without_sound_there_is_one_line(corpus):
    store = FeatureStore(corpus.store)
    with pytest.raises(ValueError, match=r"audio_rows=speech needs the feature speech, which is not in clip0"):
        read(store, ("face", "voice"), 0.5)
    store = add_speech(corpus.store)
    with pytest.raises(ValueError, match=r"audio_rows=speech changes nothing: none of face is made from sound"):
        read(store, ("face",), 0.5)


def test_a_run_trains_and_predicts_with_it_and_says_so(avfuse, corpus, fit, train_words, tmp_path, same_run):
    fit(corpus, tmp_path / "before")
    result = avfuse(*train_words(corpus, tmp_path / "none", "--set", "audio_rows=speech"))
    assert (result.exit_code, "speech" in result.stderr.splitlines()[-1]) == (1, True)
    add_speech(corpus.store)
    fit(corpus, tmp_path / "all")
    same_run(tmp_path / "before", tmp_path / "all")
    said = fit(corpus, tmp_path / "speech", "--set", "audio_rows=speech", "--set", "speech_threshold=0.6").stderr
    assert re.search(r"note: no speech in \d+ of \d+ rows: voice count as missing there", said)
    config = json.loads((tmp_path / "speech/config.json").read_text())
    assert (config["audio_rows"], config["speech_threshold"]) == ("speech", 0.6)
    weights = [(tmp_path / run / "model.safetensors").read_bytes() for run in ("all", "speech")]
    assert weights[0] != weights[1]
    # Validated with the same masks: what evaluate finds is what the best epoch had.
    words = ("evaluate", "--run", tmp_path / "speech", "--device", "cpu", "--json")
    found = json.loads(avfuse(*words).stdout)
    metrics = json.loads((tmp_path / "speech/metrics.json").read_text())
    assert json.dumps(found).find(str(round(metrics["ccc_valence"], 4))[:5]) >= 0
    out = tmp_path / "predictions"
    result = avfuse("predict", "--run", tmp_path / "speech", "--store", corpus.store, "--out", out, "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    # Other speech is another input: the run notices.
    writable = FeatureStore(corpus.store, mode="a")
    for name in writable.trials():
        rows = {array: np.asarray(stored[:]) for array, stored in writable[name].items()}
        writable.write(name, rows, {"features": {**MADE, "speech": {"fingerprint": "t", "made_from": "audio"}}})
    result = avfuse(*words)
    assert result.exit_code == 1
    assert "has learned from speech s, but" in result.stderr


def test_a_threshold_without_the_mask_is_refused(avfuse, corpus, train_words, tmp_path):
    result = avfuse(*train_words(corpus, tmp_path / "run", "--set", "speech_threshold=0.7"))
    assert (result.exit_code, "speech_threshold changes nothing without audio_rows=speech" in result.stderr) == (
        2,
        True,
    )
