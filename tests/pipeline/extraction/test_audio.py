"""The sound of a video is decoded once for all its features, and their rows do not depend on which are asked for."""

import numpy as np
import pytest

from avfuse.encoders.table import of_stream
from avfuse.pipeline.config import ExtractConfig
from avfuse.pipeline.extraction import audio
from avfuse.pipeline.extraction.jobs import Job
from avfuse.pipeline.extraction.session import Session
from avfuse.pipeline.extraction.streams import Clock, Reading
from avfuse.pipeline.media.probe import probe
from avfuse.pipeline.media.readers import AudioReader


@pytest.fixture(scope="module")
def recording(make_clip, flashes):
    """Eight frames a second for 50 s, with 13 s of sound more."""
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000 * 63).astype(np.float32)
    return make_clip("c.mkv", flashes(400, [3], (16, 16)), rate="8", samples=samples, rate_hz=16_000)


@pytest.fixture
def read(recording, tmp_path, monkeypatch):
    """The sound of the recording, what was reported, and how often it was decoded."""

    def do(*features):
        opened, reports = [], []

        class Counted(AudioReader):
            def __enter__(self):
                opened.append(self)
                return super().__enter__()

        monkeypatch.setattr(audio, "AudioReader", Counted)
        scratch = tmp_path / "-".join(features)
        scratch.mkdir()
        session = Session(ExtractConfig(features=features), {}, {}, 60.0, None)
        job = Job(recording, recording.name, "c", "largest", recording.stat().st_size)
        report = lambda *words: reports.append(words)  # noqa: E731
        clock = Clock(np.arange(400) / 8, 400, 400)
        reading = Reading(probe(recording), job, session, scratch, report, None, clock, "sound")
        sound = audio.read_sound(reading, of_stream(features, "audio"))
        return sound, reports, len(opened)

    return do


def test_one_decode_gives_what_one_for_each_feature_gives(read):
    both, reports, decodes = read("logmel", "mfcc")
    assert decodes == 1
    for name in ("logmel", "mfcc"):
        alone, _, _ = read(name)
        assert len(both.buffers[name]) == 400
        assert both.buffers[name].path.read_bytes() == alone.buffers[name].path.read_bytes()
        assert np.array_equal(both.valid[name], alone.valid[name])
    assert both.valid["mfcc"][1:].all()
    rows = [row for stage, row, _, _ in reports]
    assert rows == [*range(64, 400, 64), 400, 400, *range(64, 400, 64), 400]
    assert all(time_s == (row - 1) / 8 for _, row, time_s, _ in reports)


def test_samples_are_kept_only_where_they_are_read_again(read):
    for features in (("logmel",), ("mfcc",)):
        sound, _, decodes = read(*features)
        assert decodes == 1
        samples = sound.buffers[features[0]].path.with_name("samples.rows")
        assert not samples.exists() or samples.stat().st_size == 0


def test_without_audio_features_nothing_is_decoded(read):
    sound, reports, decodes = read("iresnet50")
    assert (sound.present, dict(sound.buffers), reports, decodes) == (True, {}, [], 0)
