from dataclasses import replace

import numpy as np

from avfuse.features_store.records.failures import FailureRecord, append_failure, outstanding, read_failures

RECORD = FailureRecord("b/ä.mp4", "decode", "moov atom\nnot found", "2026-11-21T10:00:00Z", "b/ä", 12, 34)


def test_round_trip(store):
    assert read_failures(store) == []
    append_failure(store, RECORD)
    append_failure(store, replace(RECORD, size=None))
    assert read_failures(store) == [RECORD, replace(RECORD, size=None)]
    assert len((store.files.root / "failures.jsonl").read_text().splitlines()) == 2


def test_half_line_of_a_kill(store):
    append_failure(store, RECORD)
    path = store.files.root / "failures.jsonl"
    with path.open("ab") as file:
        file.write(b'{"video": "half')
    append_failure(store, replace(RECORD, reason="second"))
    with path.open("ab") as file:
        file.write(b'\n[]\n{"video": 3}\n\xff\xfe\n')
    assert [record.reason for record in read_failures(store)] == [RECORD.reason, "second"]


def test_outstanding_is_the_last_of_what_is_not_done(store, arrays):
    for record in (
        RECORD,
        replace(RECORD, reason="last"),
        replace(RECORD, video="c.mp4", trial="c"),
        replace(RECORD, video="d.mp4", trial="d_left"),
        replace(RECORD, video="d.mp4", trial="d_right"),
    ):
        append_failure(store, record)
    store.write("c", arrays, {})
    assert [(record.trial, record.reason) for record in outstanding(store)] == [
        ("b/ä", "last"),
        ("d_left", RECORD.reason),
        ("d_right", RECORD.reason),
    ]


def test_store_opens_with_failures_only(tmp_path, store):
    append_failure(store, RECORD)
    assert type(store)(store.path, mode="a").trials() == []


def test_a_failed_addition_is_outstanding_until_the_feature_is_there(store, arrays):
    store.write("d", arrays, {})
    record = FailureRecord("d.mp4", "video", "other times", "2026", "d", 3, 4, ["crop48"])
    append_failure(store, record)
    assert outstanding(store) == [record]
    rows = {"crop48": np.ones((40, 2), np.uint8), "crop48_valid": np.ones(40, bool)}
    store.add("d", rows, {"crop48": {"fingerprint": "f"}})
    assert outstanding(store) == []
