"""Files of words: what is read of them, what is refused and how, and whose they are."""

import os
import re

import pytest

from avfuse.pipeline.words.transcript import TranscriptFolder, Word, read_transcript, write_transcript


@pytest.fixture
def reading(tmp_path):
    """Read these bytes as a file of words."""

    def read(content: bytes | str):
        path = tmp_path / "clip.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_transcript(path)

    return read


def test_what_is_written_is_read(tmp_path):
    words = (
        Word("Today,", 0.0, 0.25, 0.5),
        Word('he said "no"', 1.5, 1.5, 1.0),
        Word("Zürich\nein", 2.0, 3.125, 0.125),
    )
    path = tmp_path / "batch" / "clip.csv"
    write_transcript(path, words)
    assert path.read_text().splitlines()[:2] == ["word,start_s,end_s,confidence", '"Today,",0.000,0.250,0.500']
    found = read_transcript(path)
    assert [(each.text, each.start_s, each.end_s) for each in found.words] == [
        (each.text, each.start_s, each.end_s) for each in words
    ]
    assert os.listdir(path.parent) == ["clip.csv"]
    write_transcript(path, ())
    assert read_transcript(path).words == ()


@pytest.mark.parametrize(
    "content",
    [
        "word,start_s,end_s\na,0.1,0.2\nb,0.3,0.4\n",
        "word,start,end\nb,0.3,0.4\na,0.1,0.2\n",
        "\ufeffstart,end,text\r\n.1,2e-1,a\r\n\r\n0.3,0.40,b",
        'speaker, Word ,START_S,end_s\nx,"a",0.1,0.2\ny, b ,+0.3,0.4\n,,,\n',
        "word,start_s,end_s\nb,0.3,0.4\n,0.2,0.3\na,0.1,0.2\n",
    ],
    ids=["plain", "unsorted", "BOM, CRLF and other names", "more columns", "silence"],
)
def test_the_same_words_in_other_files(reading, content):
    found = reading(content)
    assert [(word.text, word.start_s, word.end_s) for word in found.words] == [("a", 0.1, 0.2), ("b", 0.3, 0.4)]
    assert found.remarks == ()


def test_words_of_one_start_stay_in_their_order(reading):
    assert [word.text for word in reading("word,start,end\nb,1,2\nc,0,3\na,1,4\nd,1,1\n").words] == list("cbad")


def test_words_without_times_are_left_out_and_named(reading):
    found = reading("word,start,end\na,0,1\n1984,,\nb,1,2\n")
    assert [word.text for word in found.words] == ["a", "b"]
    assert found.remarks == ("1 word without times: left out",)


@pytest.mark.parametrize("content", ["", "\n\n", "word,start_s,end_s", "word,start_s,end_s,confidence\n\n"])
def test_a_file_without_rows_has_no_words(reading, content):
    assert reading(content).words == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("word,start,end\na,nan,1\n", "clip.csv:2: 'nan' is not a time in s"),
        ("word,start,end\na,0,inf\n", "clip.csv:2: 'inf' is not a time in s"),
        ("word,start,end\na,0,1e999\n", "clip.csv:2: 'a' ends at 1e999 s, but starts at 0 s"),
        ("word,start,end\na,0:01,0:02\n", "'0:01' is not a time in s"),
        ("word,start,end\na,0x1,2\n", "'0x1' is not a time in s"),
        ("word,start,end\na,1_0,20\n", "'1_0' is not a time in s"),
        ("word,start,end\na,0,\n", "clip.csv:2: '' is not a time in s"),
        ("word,start,end\nok,0,1\na,2,1.5\n", "clip.csv:3: 'a' ends at 1.5 s, but starts at 2 s"),
        ("word,start,end\na,0\n", "clip.csv:2: 2 cells, but the first line has 3"),
        ("word,start,end\nYes, sir,0,1\n", "clip.csv:2: 4 cells, but the first line has 3"),
        ("word;start;end\na;0;1\n", "clip.csv:1: the first line names the columns word,start_s,end_s"),
        ("a,0.1,0.2\nb,0.3,0.4\n", "clip.csv:1: the first line names the columns"),
        (
            "word,start_ms,end_ms\na,100,200\n",
            "times are in s here, in columns start_s and end_s; the file has start_ms",
        ),
        ("word,start,start_s,end\na,0,0,1\n", "more than one column is called start_s or start"),
        ('word,start,end\n"a,0,1\nb,1,2\n', "not CSV"),
        ('word,start,end\n"a"b,0,1\n', "not CSV"),
        (b"word,start,end\n\xff\xfea,0,1\n", "is not UTF-8, at byte 15"),
        ("word,start,end\na,0,1\n".encode("utf-16"), "is not UTF-8, at byte 0"),
        ('word,start,end\n"' + "a" * 200_000 + '",0,1\n', "not CSV (field larger than field limit"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_place(reading, content, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        reading(content)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_what_is_not_a_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(ValueError, match="is not a file but a pipe"):
        read_transcript(tmp_path / "pipe.csv")
    with pytest.raises(IsADirectoryError):
        read_transcript(tmp_path)
    with (tmp_path / "huge.csv").open("wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(ValueError, match="more than 64 MiB"):
        read_transcript(tmp_path / "huge.csv")


def test_files_are_found_by_their_trials_names(tmp_path):
    names = ("batch1/clip.csv", "flat.csv", "video59.csv", "video60.csv", "video60_left.CSV", "Ame\u0301lie.csv")
    for name in (*names, ".hidden.csv", "notes.txt", ".git/flat2.csv"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    folder = TranscriptFolder(tmp_path)
    for trial, video, file in (
        ("batch1/clip", "batch1/clip", "batch1/clip.csv"),
        ("batch2/flat", "batch2/flat", "flat.csv"),
        ("batch2/clip", "batch2/clip", None),
        ("video59_left", "video59", "video59.csv"),
        ("b/video60_left", "b/video60", "video60_left.CSV"),
        ("b/video60_right", "b/video60", "video60.csv"),
        ("Am\u00e9lie", "Am\u00e9lie", "Ame\u0301lie.csv"),
        ("notes", "notes", None),
        (".hidden", ".hidden", None),
    ):
        assert folder.find(trial, video) == (tmp_path / file if file else None), trial
    with pytest.raises(ValueError, match="nowhere is not a folder"):
        TranscriptFolder(tmp_path / "nowhere")
