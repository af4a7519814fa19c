import uuid

import numpy as np
import pytest

from avfuse.features_store.claims.claims import claim
from avfuse.features_store.records.failures import FailureRecord, append_failure, outstanding
from avfuse.features_store.records.verify import verify
from avfuse.features_store.schema import StoreMismatch
from avfuse.features_store.store import FeatureStore


@pytest.fixture
def remote():
    return FeatureStore(f"memory://{uuid.uuid4().hex}/features.zarr", mode="a")


def test_round_trip(remote, arrays, attributes):
    remote.write("b/a", arrays, attributes)
    again = FeatureStore(remote.path)
    assert again.trials() == ["b/a"]
    assert (again.attributes("b/a") or {}).get("fingerprint") == "f1"
    for name, values in arrays.items():
        assert np.asarray(again["b/a"][name][:]).tobytes() == values.tobytes()
    assert list(verify(again)) == []


def test_replace_remove_and_nested(remote, arrays, make_arrays):
    remote.write("a/b", arrays, {})
    remote.write("a", arrays, {})
    remote.write("a", {"time": np.zeros(3)}, {})
    assert list(remote["a"]) == ["time"]
    remote.remove("a")
    assert remote.trials() == ["a/b"]
    remote.remove("a/b")
    assert remote.trials() == []


def test_complete_is_written_last(remote, arrays):
    class Broken:
        shape, dtype = (40, 2), np.dtype(np.float32)

        def __getitem__(self, rows):
            raise OSError("disk on fire")

    remote.write("a", arrays, {"fingerprint": "f"})
    with pytest.raises(OSError, match="on fire"):
        remote.write("a", {**arrays, "x": Broken()}, {"fingerprint": "f"})
    assert (remote.attributes("a") or {}).get("fingerprint") != "f"
    assert remote.incomplete() == ["a"]


def test_no_store(remote):
    with pytest.raises(StoreMismatch, match="is not an avfuse store"):
        FeatureStore(f"{remote.path}/nothing")


def test_scratch_claims_and_failures(remote):
    with remote.temporary_directory() as scratch:
        assert scratch.is_dir()
    assert remote.sweep() == []
    with claim(remote.path, "a") as first, claim(remote.path, "a") as second:
        assert first
        assert second
    for number in range(2):
        append_failure(remote, FailureRecord("a.mp4", "decode", f"{number}", "2026-01-01", "a"))
    assert [record.reason for record in outstanding(remote)] == ["1"]


def test_file_url_is_a_folder(tmp_path, arrays):
    FeatureStore(f"file://{tmp_path}/s.zarr", mode="a").write("a", arrays, {})
    assert FeatureStore(tmp_path / "s.zarr").trials() == ["a"]


def test_file_url_with_escapes_and_without_a_root(tmp_path, arrays):
    FeatureStore(f"file://{tmp_path}/my%20store.zarr", mode="a").write("a", arrays, {})
    assert FeatureStore(tmp_path / "my store.zarr").trials() == ["a"]
    with pytest.raises(ValueError, match="absolute path"):
        FeatureStore("file://relative.zarr", mode="a")


def test_a_protocol_without_its_package_is_told(monkeypatch):
    def lacking(url):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", lacking)
    with pytest.raises(ValueError, match="Install s3fs"):
        FeatureStore("s3://bucket/store.zarr")
