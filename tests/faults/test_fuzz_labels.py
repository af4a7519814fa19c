"""Any annotation file and any folder of them: labels, or a ValueError or OSError that names the file (and the line)."""

import os
import resource
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avfuse.features_store.labels.annotations import annotation_files, count_rows, read_labels
from avfuse.features_store.labels.corpus import labels_of, open_corpus
from avfuse.features_store.labels.timed import at_frames, is_timed, read_timed

TIMES_S = np.arange(40) / 25
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
CELLS = st.one_of(
    st.sampled_from(
        ["", " ", "-5", "-5.0", "nan", "inf", "1e400", "-1e-400", "0x1", "1_0", "١", "1,1", "+.5", ".", "-", "1e", "\0"]
    ),
    st.floats(allow_nan=True).map(repr),
    st.integers(-(10**30), 10**30).map(str),
    st.text(max_size=5),
)
HEADERS = st.sampled_from(["valence,arousal", "time,valence,arousal", "\ufeffvalence,arousal", "valence;arousal", ""])
ENDS = st.sampled_from(["\n", "\r\n", "\r", "\n\n", "\0", "\u2028"])


def outcome(path: Path, read) -> Any:
    """What reading gave; None for a named error."""
    try:
        return read(path)
    except (ValueError, OSError) as error:
        assert_named(error, path)
        return None


def assert_named(error: Exception, path: Path) -> None:
    """The file is in the message; a ValueError is of the file as such, or of a line of it."""
    said = str(error)
    assert str(path) in said or (not isinstance(error, OSError) and said.startswith(path.stem)), said


READERS = (read_labels, read_timed, count_rows, is_timed)


@given(header=HEADERS, rows=st.lists(st.lists(CELLS, min_size=1, max_size=4), max_size=6), end=ENDS)
@FUZZ
def test_any_rows(tmp_path, header, rows, end):
    path = tmp_path / "clip.txt"
    path.write_text(end.join([header, *(",".join(row) for row in rows)]), encoding="utf-8", newline="")
    for read in READERS:
        outcome(path, read)
    labels = outcome(path, read_labels)
    if labels is not None:
        assert labels.values.shape == (count_rows(path), 2)
        assert (np.abs(labels.values[labels.valid]) <= 1).all()
    timed = outcome(path, read_timed)
    if timed is not None:
        track = at_frames(timed, TIMES_S)
        assert (np.abs(track.values[track.valid]) <= 1).all()


@given(content=st.binary(max_size=400))
@FUZZ
def test_any_bytes_behind_a_good_header(tmp_path, content):
    for header in (b"valence,arousal\n", b"time,valence,arousal\n"):
        path = tmp_path / "clip.csv"
        path.write_bytes(header + content)
        assert is_timed(path) == header.startswith(b"time")
        for read in READERS:
            outcome(path, read)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "content",
    [
        b"valence,arousal\n" + b"9" * 3_000_000 + b",0\n",
        b"valence,arousal\n" + b"," * 3_000_000,
        b"valence,arousal\n0." + b"0" * 2_000_000 + b"1,0\n",
        b"valence,arousal\n1e" + b"9" * 3_000_000 + b",0\n",
        b"valence,arousal" + b" " * 3_000_000,
        b"v" * 3_000_000,
        b"time,valence,arousal\n" + b"0,0,0\n" * 300_000,
        b"valence,arousal\n" + b"\n" * 3_000_000,
        b"valence,arousal\n" + b"\r" * 3_000_000,
        b"valence,arousal\n" + b"0,0\n" * 100_000 + b"x",
    ],
    ids=range(10),
)
def test_long_lines_and_many_take_no_time(tmp_path, content):
    path = tmp_path / "clip.txt"
    path.write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began_s = time.monotonic()
    for read in READERS:
        outcome(path, read)
    assert time.monotonic() - began_s < 30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20


def test_the_message_is_short(tmp_path):
    path = tmp_path / "clip.txt"
    path.write_bytes(b"valence,arousal\n" + b"x" * 1_000_000)
    with pytest.raises(ValueError, match=r"clip\.txt:2: ") as caught:
        read_labels(path)
    assert len(str(caught.value)) < 400


# --- what is no file


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "nowhere", "circle", "huge"])
def test_what_is_no_label_file_is_not_waited_for(tmp_path, kind):
    folder = tmp_path / "VA_Estimation_Challenge" / "Train_Set"
    folder.mkdir(parents=True)
    path = folder / "clip.txt"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "huge":
        path.write_bytes(b"valence,arousal\n")
        os.truncate(path, 1 << 40)  # takes no room on the disk
    else:
        path.symlink_to({"device": "/dev/zero", "nowhere": "gone.txt", "circle": "clip.txt"}[kind])
    assert annotation_files(tmp_path) == {"clip": path}
    for read in (read_labels, read_timed, count_rows):
        assert outcome(path, read) is None
    with pytest.raises((ValueError, OSError), match=r"clip\.txt"):
        labels_of(open_corpus(tmp_path), "clip", TIMES_S)


def test_a_root_that_is_a_circle(tmp_path):
    (tmp_path / "circle").symlink_to("circle")
    for find in (open_corpus, annotation_files):
        with pytest.raises((ValueError, OSError), match="circle"):
            find(tmp_path / "circle")


# --- folders

NAMES = st.one_of(
    st.sampled_from(
        ["VA_Estimation_Challenge", "Train_Set", "Validation_Set", "a", "a_left", "._a", ".a", "-a", "a b", "ä", "a\nb"]
    ),
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=6),
)
SUFFIXES = st.sampled_from([".txt", ".csv", ".TXT", "", ".txt.csv"])
TEXTS = st.sampled_from(
    ["valence,arousal\n0,0\n", "time,valence,arousal\n0,0,0\n", "trial,subject\na,b\n", "", "no labels\n"]
)


@given(tree=st.lists(st.tuples(st.lists(NAMES, max_size=3), NAMES, SUFFIXES, TEXTS), max_size=6))
@FUZZ
def test_any_folder(tmp_path, tree):
    root = tmp_path / "labels"
    for folders, name, suffix, text in tree:
        path = root.joinpath(*folders, name + suffix)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        except OSError:
            continue  # `.`, `..`, or a file where a folder is to be
    root.mkdir(exist_ok=True)
    try:
        corpus = open_corpus(root)
        assert list(corpus.files) == sorted(corpus.files)
        for trial, path in corpus.files.items():
            assert path.is_relative_to(root)
            try:
                assert labels_of(corpus, trial, TIMES_S).trial == trial
            except (ValueError, OSError) as error:
                assert_named(error, path)
    except (ValueError, OSError) as error:
        assert_named(error, root)
    finally:
        shutil.rmtree(root)
