"""Plurals, columns, suggestions, and the one line about random networks."""

import pytest

from avfuse.shell.text import columns_of, counted, did_you_mean, preview, text_table, untrained_line


@pytest.mark.parametrize(("number", "words"), [(0, "0 videos"), (1, "1 video"), (2, "2 videos")])
def test_counts(number, words):
    assert counted(number, "video") == words


def test_a_plural_of_its_own():
    assert [counted(n, "entry", "entries") for n in (1, 2)] == ["1 entry", "2 entries"]


def test_tables():
    cells = [("name", "of", "rows"), ("a", "b", "7"), ("longer", "", "12")]
    assert text_table(cells) == ["name    of  rows", "a        b     7", "longer        12"]
    assert text_table(cells, words=3) == ["name    of  rows", "a       b   7", "longer      12"]


def test_tables_of_wide_letters():
    """Columns are those of a terminal: names in Chinese and emoji are two wide, an accent of its own is none."""
    cells = [("name", "rows"), ("视频一", "7"), ("cafe\u0301", "12"), ("🎬 a", "3")]
    assert [columns_of(name) for name, _ in cells] == [4, 6, 4, 4]
    assert text_table(cells) == ["name    rows", "视频一     7", "cafe\u0301      12", "🎬 a       3"]
    assert {columns_of(line) for line in text_table(cells)} == {12}


def test_the_first_names():
    lines = ["", "a", "a, b, c, d, e", "a, b, c, d, e and 1 more"]
    assert [preview("abcdefg"[:count]) for count in (0, 1, 5, 6)] == lines
    assert preview(iter("abc"), most=1) == "a and 2 more"


def test_suggestions():
    assert did_you_mean("trian", ["train", "status"]) == " (did you mean train?)"
    assert did_you_mean("xyzzy", ["train"]) == ""


def test_untrained():
    assert untrained_line(["vggish", "voice", "vggish"]) == "UNTRAINED WEIGHTS: vggish, voice: for tests and demos only"
    assert untrained_line([]) is None
