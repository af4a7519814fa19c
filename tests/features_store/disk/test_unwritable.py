"""The store is removed, replaced, on two disks: an error that names it, nothing half there, and no empty shell."""

import errno
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from avfuse.features_store.claims.claims import claim
from avfuse.features_store.disk.unwritable import StoreUnwritable, is_stores_fault
from avfuse.features_store.records.failures import FailureRecord, append_failure
from avfuse.features_store.records.status import note_planned
from avfuse.features_store.records.verify import verify
from avfuse.features_store.store import FeatureStore

ROWS = np.zeros((9, 2), np.float32)


class Rows:
    """Rows during whose reading something happens."""

    shape, dtype = ROWS.shape, ROWS.dtype

    def __init__(self, happens):
        self.happens = happens

    def __getitem__(self, rows):
        self.happens()
        return ROWS[rows]


def empty(root):
    shutil.rmtree(root)
    root.mkdir()


def to_file(root):
    shutil.rmtree(root)
    root.write_text("a file")


REMOVALS: dict[str, Callable[[Path], object]] = {
    "removed": shutil.rmtree,
    "emptied": empty,
    "a file": to_file,
    "another folder": lambda root: (root / "zarr.json").unlink(),
}


@pytest.mark.parametrize("removal", REMOVALS)
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_store_that_goes_away_does_not_come_back(store, removal, when):
    def happens():
        if store.files.is_file("zarr.json"):
            REMOVALS[removal](store.files.root)

    if when == "before":
        happens()
    with pytest.raises(StoreUnwritable) as caught:
        store.write("b/a", {"x": Rows(happens)}, {})
    assert str(caught.value.filename).startswith(store.path)
    assert not store.files.is_file("zarr.json")
    assert not (store.files.root / "b").exists()
    assert not (Path(store.path).is_dir() and os.listdir(store.path))


def test_scratch_that_is_cleaned_away_gives_no_half_trial(store, arrays):
    """zarr makes the folder anew, and what was written before is missing."""
    cleaned = Rows(lambda: shutil.rmtree(store.files.root / ".tmp"))
    with pytest.raises(StoreUnwritable):
        store.write("a", {"time": np.arange(9.0), "x": cleaned}, {})
    assert store.trials() == store.incomplete() == []
    store.write("a", arrays, {})
    assert sorted(os.listdir(store.path)) == ["a", "zarr.json"]


@pytest.mark.parametrize("act", ["failure", "plan", "claim", "scratch", "group"])
def test_nothing_makes_a_removed_store_anew(store, act):
    shutil.rmtree(store.path)
    with pytest.raises(OSError, match=r"features\.zarr|removed") as caught:
        {
            "failure": lambda: append_failure(store, FailureRecord("a.mp4", "probe", "bad", "now", "a")),
            "plan": lambda: note_planned(store, ["a"]),
            "claim": claim(store.path, "a").__enter__,
            "scratch": store.temporary_directory().__enter__,
            "group": lambda: store.files.create("b/zarr.json", b"{}"),
        }[act]()
    assert is_stores_fault(caught.value, store.files.root)
    assert not Path(store.path).exists()


def test_a_claim_on_a_store_that_goes_away_is_let_go(store):
    with claim(store.path, "a") as mine:
        assert mine
        shutil.rmtree(store.path)
    assert not Path(store.path).exists()


def test_what_is_the_stores_fault(tmp_path):
    root = tmp_path / "s.zarr"
    assert is_stores_fault(OSError(errno.ENOSPC, "No space left on device"), root)
    assert is_stores_fault(FileNotFoundError(errno.ENOENT, "No such file", str(root / ".tmp" / "x")), root)
    assert is_stores_fault(OSError(errno.EXDEV, "Other disk", "elsewhere", None, os.fsencode(root / "a")), root)
    assert is_stores_fault(StoreUnwritable(errno.EIO, "Input/output error", str(root)), None)
    assert not is_stores_fault(FileNotFoundError(errno.ENOENT, "No such file", str(tmp_path / "a.mp4")), root)
    assert not is_stores_fault(PermissionError(errno.EACCES, "Permission denied", f"{root}2"), root)
    assert not is_stores_fault(OSError(errno.EIO, "Input/output error"), None)


def test_a_name_that_is_taken_is_left_to_its_owner(store, monkeypatch):
    """Two processes draw the same name for their scratch."""
    fixed = uuid.uuid4()
    drawn = [fixed, fixed, uuid.uuid4()]
    monkeypatch.setattr(uuid, "uuid4", lambda: drawn.pop(0))
    with store.temporary_directory() as first:
        (first / "mine").touch()
        with store.temporary_directory() as second:
            assert first != second
        assert (first / "mine").exists()
    assert drawn == []


@pytest.mark.parametrize("feature", ["mfcc", "vggish"], ids=["added", "replaced"])
def test_a_disk_that_is_full_keeps_what_a_trial_had(arrays, make_disk, feature):
    """Also the former rows of a feature that is made anew: they go when the new ones are all there."""
    disk = make_disk("size=2m")
    store = FeatureStore(disk / "s.zarr", mode="a")
    store.write("a", arrays, {"features": {"vggish": {"fingerprint": "old"}}})
    before = {path: path.read_bytes() for path in (disk / "s.zarr").rglob("*") if path.is_file()}
    (disk / "filler").write_bytes(bytes(1_500_000))
    rows = np.random.default_rng(0).standard_normal((40, 5000)).astype(np.float32)  # 0.8 MB that do not compress
    added = {feature: rows, f"{feature}_valid": np.ones(40, np.bool_)}
    with pytest.raises(StoreUnwritable, match="No space left on device") as caught:
        store.add("a", added, {feature: {"fingerprint": "new"}})
    assert str(caught.value.filename).startswith(store.path)
    assert {path: path.read_bytes() for path in (disk / "s.zarr").rglob("*") if path.is_file()} == before
    (disk / "filler").unlink()
    store.add("a", added, {feature: {"fingerprint": "new"}})
    assert list(verify(store)) == []
    assert (store["a"].read(feature) == rows).all()
    assert sorted(os.listdir(store.path)) == ["a", "zarr.json"]


def test_a_folder_of_the_store_on_another_disk(store, make_arrays, make_disk):
    """Nothing can be renamed to there: it is copied, and complete last."""
    other_disk = make_disk("size=8m")
    (store.files.root / "far").symlink_to(other_disk)
    for rows, fingerprint in ((9, "old"), (5, "new")):
        store.write("far/b/a", make_arrays(rows), {"fingerprint": fingerprint})
        assert store["far/b/a"].rows == rows
    assert list(verify(store)) == []
    store.remove("far/b/a")
    assert store.trials() == []
    assert sorted(path.name for path in other_disk.rglob("*")) == ["b", "zarr.json", "zarr.json"]
    assert sorted(os.listdir(store.path)) == ["far", "zarr.json"]
