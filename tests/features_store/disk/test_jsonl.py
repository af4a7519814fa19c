import json
import os
import resource

import pytest

from avfuse.features_store.disk.jsonl import append_line, fix_lines


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lines.jsonl"


@pytest.mark.parametrize(
    ("before", "kept"),
    [
        (b"", b""),
        (b'{"a": 1}\n', b'{"a": 1}\n'),
        (b'{"a": 1}\n{"b', b'{"a": 1}\n'),
        (b'{"b', b""),
        (b'{"a": 1}', b'{"a": 1}\n'),
        (b"x" * 200_000, b""),
        (b"1\n" + b"x" * 200_000, b"1\n"),
    ],
)
def test_half_a_line_is_cut_off(path, before, kept):
    path.write_bytes(before)
    append_line(path, b"2\n")
    assert path.read_bytes() == kept + b"2\n"
    path.write_bytes(before)
    fix_lines(path)
    assert path.read_bytes() == kept


def test_nothing_is_made_by_fixing(path):
    fix_lines(path)
    assert not path.exists()


def test_a_full_disk_leaves_no_half_line(path):
    append_line(path, b'{"a": 1}\n')
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (14, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            append_line(path, b'{"b": 2}\n')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b'{"a": 1}\n'


def test_a_disk_without_locks(path, monkeypatch):
    def refuse(*_args):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    append_line(path, b"1\n")
    append_line(path, b"2\n")
    assert path.read_bytes() == b"1\n2\n"


def test_the_next_run_fixes_what_a_kill_has_left(store):
    path = store.files.root / "failures.jsonl"
    path.write_bytes(b'{"video": "a.mp4"}\n{"vid')
    assert store.sweep() == []
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"video": "a.mp4"}]
    assert sorted(os.listdir(store.path)) == ["failures.jsonl", "zarr.json"]
