"""Any broken or made-up store: reading it gives values or a ValueError or OSError; verify gives problems.

Never another exception, never much memory or time.
"""

import json
import random
import resource
import shutil
import struct
import time
from pathlib import Path

import numcodecs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avfuse.features_store.records.verify import verify
from avfuse.features_store.schema import StoreMismatch
from avfuse.features_store.store import FeatureStore

ROWS, WIDTH = 100, 8
# Chunks of 16 rows of x, shards of 64.
CHUNK_BYTES, SHARD_BYTES = 512, 2048
MOST_GROWTH_KIB = 300 << 10


@pytest.fixture(autouse=True)
def bounded():
    """No test may take much memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_GROWTH_KIB


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> Path:
    """A store of one trial."""
    root = tmp_path_factory.mktemp("planted") / "s.zarr"
    values = np.random.default_rng(0).standard_normal((ROWS, WIDTH)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("avfuse.features_store.schema.CHUNK_BYTES", CHUNK_BYTES)
        patch.setattr("avfuse.features_store.schema.SHARD_BYTES", SHARD_BYTES)
        arrays: dict[str, np.ndarray] = {"time": np.arange(ROWS) / 25, "x": values, "x_valid": np.ones(ROWS, bool)}
        FeatureStore(root, mode="a").write("b/a", arrays, {"fingerprint": "f"})
    return root


@pytest.fixture
def root(planted, tmp_path) -> Path:
    return Path(shutil.copytree(planted, tmp_path / "s.zarr"))


def read_everything(root: Path) -> int:
    """How many arrays could be read; every error must be a named one."""
    read = 0
    try:
        store = FeatureStore(root)
        store.groups(), store.incomplete(), store.has_all_faces("b/a")
        trials = [store[name] for name in store]
    except (ValueError, OSError):
        return 0
    for trial in trials:
        assert trial.name in repr(trial)
        for name in trial:
            try:
                trial.read(name)
                trial.window(name, 0, min(20, max(0, trial.rows)))
                read += 1
            except (ValueError, OSError):
                continue
    return read


def problems(root: Path) -> list[str]:
    try:
        return [str(problem) for problem in verify(FeatureStore(root))]
    except (ValueError, OSError) as error:  # the root itself
        return [str(error)]


def test_whole_it_is_read(root):
    assert read_everything(root) == 3
    assert problems(root) == []


# --- metadata

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["float64", "<f4", "../../x", "bytes", "zstd", "object", 0, -1, 1 << 62]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NODES = ["zarr.json", "b/zarr.json", "b/a/zarr.json", "b/a/x/zarr.json", "b/a/time/zarr.json"]


def places(node: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """Every place in a JSON tree."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(place for key, value in items for place in places(value, (*path, key)))]


@given(data=st.data(), name=st.sampled_from(NODES), value=JSON)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_in_the_metadata(root, data, name, value):
    file = root / name
    whole = file.read_text()
    node = json.loads(whole)
    place = data.draw(st.sampled_from(places(node)))
    inner = node
    for key in place[:-1]:
        inner = inner[key]
    if place:
        inner[place[-1]] = value
    try:
        file.write_text(json.dumps(node if place else value))
        assert 0 <= read_everything(root) <= 3
        problems(root)
    finally:
        file.write_text(whole)


@pytest.mark.parametrize(
    "content",
    [b"", b"[" * 500_000, b'{"attributes":' * 100_000, b"1" * 5000, b'{"attributes":{"rows":' + b"9" * 5000 + b"}}"],
)
@pytest.mark.parametrize("name", NODES)
def test_json_bombs(root, name, content):
    (root / name).write_bytes(content)
    # `b` is a folder on the way: its trial is whole.
    assert (read_everything(root) == 3) == (name == "b/zarr.json")
    assert problems(root)


def test_huge_metadata_is_not_parsed(root):
    (root / "b/a/x/zarr.json").write_bytes(b"[" + b"[]," * 3_000_000 + b"1]")
    with pytest.raises(StoreMismatch, match=r"x/zarr\.json is not zarr metadata \(9000003 bytes\)"):
        FeatureStore(root)["b/a"].read("x")
    assert any("broken metadata" in problem for problem in problems(root))


def change(root: Path, name: str, *path: object, value: object) -> None:
    file = root / name
    node = inner = json.loads(file.read_text())
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    file.write_text(json.dumps(node))


@pytest.mark.parametrize("rows", [0, 99, 150, 10**9, 10**15, 1 << 62])
def test_more_rows_than_there_are(root, rows):
    change(root, "b/a/x/zarr.json", "shape", value=[rows, WIDTH])
    change(root, "b/a/zarr.json", "attributes", "rows", value=rows)
    trial = FeatureStore(root)["b/a"]
    if rows > ROWS:
        with pytest.raises(StoreMismatch):
            trial.read("x")
        with pytest.raises(ValueError, match="rows"):
            trial.window("x", rows - 10, rows)
    assert problems(root)


@pytest.mark.parametrize("shape", [[1 << 40, WIDTH], [64, 1 << 40], [0, WIDTH]])
def test_shards_that_nobody_wrote(root, shape):
    change(root, "b/a/x/zarr.json", "chunk_grid", "configuration", "chunk_shape", value=shape)
    with pytest.raises(StoreMismatch, match=r"x/zarr\.json is broken"):
        FeatureStore(root)["b/a"].read("x")
    assert any("broken metadata" in problem for problem in problems(root))


@pytest.mark.parametrize("name", ["../../../outside", "/etc", "..", ".", "", ".tmp", "a\\b", "a/b"])
def test_an_array_is_never_outside_of_its_trial(root, name):
    values = FeatureStore(root)["b/a"].read("x")
    FeatureStore(root.parent / "other.zarr", mode="a").write("outside", {"x": values}, {})
    shutil.copytree(root / "b/a/x", root.parent / "outside")
    change(root, "b/a/zarr.json", "attributes", "checksums", name, value="0" * 64)
    trial = FeatureStore(root)["b/a"]
    assert name not in trial
    assert sorted(trial) == ["time", "x", "x_valid"]
    with pytest.raises(KeyError, match="has no array"):
        trial.read(name)
    assert [problem for problem in problems(root) if "no array can have this name" in problem]


def test_a_container_of_endless_faces(root):
    change(root, "b/zarr.json", "attributes", value={"complete": True, "faces": 10**12})
    began_s = time.monotonic()
    assert not FeatureStore(root).has_all_faces("b")
    assert problems(root) == ["b: a face of it is missing; extract it again"]
    assert time.monotonic() - began_s < 5


# --- shards


def crc(content: bytes) -> bytes:
    return bytes(numcodecs.CRC32C(location="end").encode(np.frombuffer(content, np.uint8)))


def forge(root: Path, chunks: list[bytes], pairs: list[tuple[int, int]] | None = None) -> None:
    """The first shard of x anew: these chunks, and an index of these offsets and lengths."""
    body = b"".join(chunks)
    if pairs is None:
        starts = np.cumsum([0, *map(len, chunks)])
        pairs = [(int(start), len(chunk)) for start, chunk in zip(starts, chunks, strict=False)]
    index = b"".join(struct.pack("<QQ", *pair) for pair in pairs)
    (root / "b/a/x/c/0/0").write_bytes(body + crc(index))


def streamed(size: int) -> bytes:
    """A zstd frame of zeros that does not say how long it is."""
    block = struct.pack("<I", (128 << 10) << 3 | 1 << 1)[:3] + b"\0"
    last = struct.pack("<I", 1 << 3 | 1 << 1 | 1)[:3] + b"\0"
    return b"\x28\xb5\x2f\xfd\x00\x58" + block * (size >> 17) + last


def announced(size: int) -> bytes:
    """The same, with its length."""
    frame = streamed(size)
    return frame[:4] + b"\xe0" + struct.pack("<Q", size + 1) + frame[6:]


BOMB_BYTES = 4 << 30


@pytest.mark.parametrize("bomb", [streamed, announced], ids=lambda bomb: bomb.__name__)
def test_bombs_in_chunks(root, bomb):
    """4 GB of zeros in 130 KB."""
    assert bytes(numcodecs.Zstd().decode(bomb(1 << 20))) == bytes((1 << 20) + 1)
    forge(root, [bomb(BOMB_BYTES)] * 4)
    trial = FeatureStore(root)["b/a"]
    for read in (lambda: trial.read("x"), lambda: trial.window("x", 0, 5), lambda: trial.window("x", 5, 60)):
        with pytest.raises(StoreMismatch, match=r"rows 0–.* are broken"):
            read()
    assert [problem for problem in problems(root) if "x rows 0–64: broken chunk" in problem]


@pytest.mark.parametrize("size", [1, 2, 64])
def test_a_frame_of_another_length(root, size):
    forge(root, [bytes(numcodecs.Zstd().encode(bytes(size)))] * 4)
    with pytest.raises(StoreMismatch):
        FeatureStore(root)["b/a"].read("x")


HUGE = [0, 1, 500, 1 << 31, 1 << 32, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 2, (1 << 64) - 1]


@given(pairs=st.lists(st.tuples(st.sampled_from(HUGE), st.sampled_from(HUGE)), min_size=4, max_size=4))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_index(root, pairs):
    forge(root, [b"\x28\xb5\x2f\xfd" * 200], pairs)
    with pytest.raises(StoreMismatch, match="are broken"):
        FeatureStore(root)["b/a"].read("x")
    assert problems(root)


def test_every_chunk_the_same(root):
    """An index that points to one chunk four times gives that chunk four times, and verify tells."""
    shard = root / "b/a/x/c/0/0"
    whole = shard.read_bytes()
    first = struct.unpack("<QQ", whole[-68:-52])
    forge(root, [whole[: first[1]]], [(0, first[1])] * 4)
    values = FeatureStore(root)["b/a"].read("x")
    assert (values[16:32] == values[:16]).all()
    assert any("wrong checksum" in problem for problem in problems(root))


def test_any_broken_shard(root):
    rng = random.Random(0)
    shards = [path for path in root.rglob("*") if path.is_file() and path.name != "zarr.json"]
    for _ in range(60):
        shard = rng.choice(shards)
        whole = shard.read_bytes()
        data = bytearray(whole)
        for _ in range(rng.choice([1, 4, 40])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        cut = rng.randrange(len(data)) if rng.random() < 0.3 else len(data)
        shard.write_bytes(bytes(data[:cut]) + rng.randbytes(rng.choice([0, 0, 50])))
        assert 2 <= read_everything(root) <= 3
        problems(root)
        shard.write_bytes(whole)
    assert problems(root) == []


@given(start=st.integers(0, ROWS), length=st.integers(0, ROWS))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_windows_are_the_rows(root, start, length):
    trial = FeatureStore(root)["b/a"]
    stop = min(ROWS, start + length)
    expected = trial["x"][start:stop]
    assert (trial.window("x", start, stop) == expected).all()
    assert trial.window("x", start, stop).shape == (stop - start, WIDTH)
