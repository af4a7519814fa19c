"""Which word is spoken at a frame, and which words are read together.

    words     |— today, —|     |two|years|of|         start < t ≤ end
    frames  |   |   |   |   |   |   |   |   |
    word      .   0   0   .   .   1   2   2   3       `.`: nothing is said: a zero row, invalid

Tested by tests/pipeline/words/test_spoken.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ...features_store.clock import NO_ROW
from .transcript import Word

_END = re.compile(r"[.!?…。！？]+[\"'”’»)\]}]*$")
# What ends with a dot and ends nothing: titles and initials (`J.`, `U.S.`).
_NO_END = re.compile(r"(?:mr|mrs|ms|dr|prof|sr|jr|vs|[^\W\d_](?:\.[^\W\d_])*)\.", re.IGNORECASE)
_PAUSE_S = 0.5
_MOST_WORDS = 128


def words_at(words: Sequence[Word], time_s: NDArray[np.float64]) -> NDArray[np.int64]:
    """Number of the word that is spoken at each of the times [T], NO_ROW where none is: int64 [T].

    `words` in order of their starts; the first of several that overlap. One without length has the first frame after
    its start. Numbers rise. Source: docs/sources.md (Words).
    """
    spoken = np.full(len(time_s), NO_ROW, np.int64)
    starts_s = np.array([word.start_s for word in words], np.float64)
    ends_s = np.array([word.end_s for word in words], np.float64)
    first = np.searchsorted(time_s, starts_s, side="right")
    last = np.searchsorted(time_s, ends_s, side="right")
    last = np.where(ends_s > starts_s, last, first + 1)
    for number in range(len(words) - 1, -1, -1):
        spoken[first[number] : last[number]] = number
    return spoken


def segments(words: Sequence[Word]) -> list[slice]:
    """Stretches of words that are read together: sentences, or what lies between pauses where nothing ends one.

    A stretch of more than 128 words is cut at the longest pause of its middle half.
    """
    ends = [
        bool(_END.search(word.text)) and not (_NO_END.fullmatch(word.text) and number + 1 < len(words))
        for number, word in enumerate(words)
    ]
    pauses_s = np.array([after.start_s - word.end_s for word, after in pairwise(words)], np.float64)
    if not any(ends):
        ends = [*(pauses_s >= _PAUSE_S), False]
    cuts = [0, *(number + 1 for number, is_end in enumerate(ends) if is_end and number + 1 < len(words)), len(words)]
    waiting = [slice(start, stop) for start, stop in pairwise(cuts) if stop > start][::-1]
    found: list[slice] = []
    while waiting:
        part = waiting.pop()
        if part.stop - part.start <= _MOST_WORDS:
            found.append(part)
            continue
        quarter = (part.stop - part.start) // 4  # no piece is tiny, however even the pauses are
        cut = part.start + quarter + 1 + int(np.argmax(pauses_s[part.start + quarter : part.stop - quarter]))
        waiting += [slice(cut, part.stop), slice(part.start, cut)]
    return found
