"""Which word is spoken at a frame, against a loop over everything; and which words are read together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avfuse.features_store.clock import NO_ROW
from avfuse.pipeline.words.spoken import segments, words_at
from avfuse.pipeline.words.transcript import Word


def by_hand(words, time_s):
    """Start < t ≤ end, the first of several; a word without length at the first frame after its start."""
    found = []
    for row, now_s in enumerate(time_s):
        spoken = NO_ROW
        for number, word in enumerate(words):
            before_s = time_s[row - 1] if row else -np.inf
            is_only_frame = word.start_s == word.end_s and before_s <= word.start_s < now_s
            if word.start_s < now_s <= word.end_s or is_only_frame:
                spoken = number
                break
        found.append(spoken)
    return found


moments = st.integers(-20, 400).map(lambda hundredths: hundredths / 100)


@given(
    spans=st.lists(st.tuples(moments, st.sampled_from([0.0, 0.01, 0.04, 0.3, 2.0])), max_size=12),
    steps=st.lists(st.sampled_from([0.01, 0.04, 1 / 30, 0.5]), max_size=60),
    first_s=st.sampled_from([0.0, 0.02, 1.0]),
)
def test_every_frame_has_the_word_that_is_spoken(spans, steps, first_s):
    words = sorted((Word("a", start, start + length) for start, length in spans), key=lambda word: word.start_s)
    time_s = first_s + np.cumsum([0.0, *steps])
    found = words_at(words, time_s)
    assert found.tolist() == by_hand(words, time_s)
    spoken = found[found != NO_ROW]
    assert (np.diff(spoken) >= 0).all()  # so that a slice of rows reads one stretch of a file


def test_an_hour_does_not_drift():
    time_s = np.arange(3600 * 30) * 1001 / 30000
    rows = np.arange(0, len(time_s) - 10, 300)
    words = [Word("a", float(time_s[row] + 0.001), float(time_s[row + 4])) for row in rows]
    spoken = words_at(words, time_s)
    for number, row in enumerate(rows):
        assert spoken[row : row + 6].tolist() == [NO_ROW, *[number] * 4, NO_ROW]


def texts(words, parts):
    return [" ".join(word.text for word in words[part]) for part in parts]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("How are you? I am fine. Good!", ["How are you?", "I am fine.", "Good!"]),
        (
            "Mr. Smith met J. F. Kennedy in the U.S. today. Yes",
            ["Mr. Smith met J. F. Kennedy in the U.S. today.", "Yes"],
        ),
        ('He said "No." Then he left', ['He said "No."', "Then he left"]),
        ("so … and 3.5 more .", ["so …", "and 3.5 more ."]),
        ("私は。 はい！", ["私は。", "はい！"]),
        ("one Mr.", ["one Mr."]),
    ],
)
def test_sentences_end_where_their_marks_are(text, sentences):
    words = [Word(each, number, number + 0.9) for number, each in enumerate(text.split())]
    assert texts(words, segments(words)) == sentences


def test_without_marks_pauses_part_what_is_said():
    words = [Word("a", 0, 1), Word("b", 1.2, 2), Word("c", 2.6, 3), Word("d", 3.0, 4)]
    assert texts(words, segments(words)) == ["a b", "c d"]
    marked = [*words[:3], Word("done.", 3.0, 4), Word("e", 9, 10)]
    assert texts(marked, segments(marked)) == ["a b c done.", "e"]  # a pause within a sentence is one
    assert segments([]) == []
    assert segments(words[:1]) == [slice(0, 1)]


@pytest.mark.parametrize("pause_at", [None, 170])
def test_what_never_ends_is_cut_at_its_longest_pause(pause_at):
    gaps = np.full(400, 0.1)
    if pause_at:
        gaps[pause_at] = 0.3
    starts = np.cumsum(gaps + 0.2)
    words = [Word(str(number), start, start + 0.2) for number, start in enumerate(starts)]
    parts = segments(words)
    assert [number for part in parts for number in range(part.start, part.stop)] == list(range(400))
    assert all(25 <= part.stop - part.start <= 128 for part in parts)
    assert pause_at is None or pause_at in [part.start for part in parts]
