import random
from concurrent.futures import ThreadPoolExecutor
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avfuse.features_store.arrays import shard_reader
from avfuse.features_store.arrays.shard_reader import read_into
from avfuse.features_store.arrays.zarr_array import open_array, write_array
from avfuse.features_store.schema import StoreMismatch
from avfuse.features_store.store import FeatureStore

BROKEN = "rows .* are broken .*`avfuse verify` names every broken chunk"


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of 512 bytes, four of them a shard."""
    monkeypatch.setattr("avfuse.features_store.schema.CHUNK_BYTES", 512)
    monkeypatch.setattr("avfuse.features_store.schema.SHARD_BYTES", 2048)


@pytest.fixture
def no_zarr(monkeypatch):
    """Reading through zarr fails."""

    def refuse(array, rows):
        raise AssertionError(f"zarr read {rows}")

    monkeypatch.setattr(shard_reader, "rows_by_zarr", refuse)


def features(rows, width=8, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)


def filled(array):
    out = np.full(array.shape, 77, array.dtype)
    read_into(array, out)
    return out


def test_every_array_of_a_trial(store, arrays, no_zarr):
    store.write("b/a", arrays, {})
    for name, values in arrays.items():
        out = np.full_like(values, 77)
        store["b/a"].read_into(name, out)
        assert out.tobytes() == values.tobytes()


@given(
    rows=st.one_of(st.integers(0, 140), st.sampled_from([63, 64, 65, 127, 128, 129])),
    width=st.sampled_from([1, 2, 7, 8, 128, 600]),
    kind=st.sampled_from([np.float32, np.float64, np.uint8]),
    zeros=st.booleans(),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_same_bits_as_zarr(small_chunks, no_zarr, rows, width, kind, zeros):
    values = (features(rows, width) * 100 * (not zeros)).astype(kind)
    values[:1] = 0
    with TemporaryDirectory() as folder:
        write_array(f"{folder}/x", "x", values)
        array = open_array(f"{folder}/x")
        found, by_zarr = filled(array), np.asarray(array[:])
    assert found.tobytes() == by_zarr.tobytes() == values.tobytes()


@pytest.mark.parametrize("shape", [(100,), (33, 5, 2), (9, 96, 64)])
def test_other_numbers_of_axes(store, small_chunks, no_zarr, shape):
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    store.write("a", {"x": values}, {})
    assert (filled(store["a"]["x"]) == values).all()


def test_a_part_of_a_larger_array_by_several_threads(store, small_chunks, no_zarr):
    parts = [features(rows, seed=rows) for rows in (100, 1, 64, 300)]
    for number, part in enumerate(parts):
        store.write(str(number), {"x": part}, {})
    whole = np.concatenate(parts)
    out = np.zeros_like(whole)
    starts = np.cumsum([0, *map(len, parts)])

    def read(number):
        store[str(number)].read_into("x", out[starts[number] : starts[number + 1]])

    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            out[:] = 0
            list(pool.map(read, range(len(parts))))
            assert (out == whole).all()


def test_a_store_packed_at_another_level(store, small_chunks, monkeypatch, no_zarr):
    monkeypatch.setattr("avfuse.features_store.arrays.zarr_array.ZSTD_LEVEL", 3)  # as avfuse 0.1 did
    store.write("a", {"x": features(200)}, {})
    assert (filled(store["a"]["x"]) == features(200)).all()


def test_behind_a_url(small_chunks):
    store = FeatureStore("memory://reading/features.zarr", mode="a")
    store.write("a", {"x": features(200)}, {})
    assert (filled(store["a"]["x"]) == features(200)).all()


@pytest.mark.parametrize(
    "words",
    [
        {"chunks": (16, 8)},
        {"chunks": (16, 4), "shards": (64, 8)},
        {"chunks": (16, 8), "shards": (64, 8), "compressors": None},
        {"chunks": (16, 8), "shards": (64, 8), "serializer": zarr.codecs.BytesCodec(endian="big")},
        {"chunks": (16, 8), "shards": (64, 8), "filters": [zarr.codecs.TransposeCodec(order=(1, 0))]},
        {"chunks": (16, 8), "shards": {"shape": (64, 8), "index_location": "start"}},
        {"chunks": (16, 8), "shards": (64, 8), "compressors": [zarr.codecs.Crc32cCodec(), zarr.codecs.BloscCodec()]},
    ],
)
def test_what_our_writer_did_not_lay_out_is_read_by_zarr(tmp_path, words):
    array = zarr.create_array(store=str(tmp_path / "x"), shape=(200, 8), dtype="f4", **words)
    array[:] = features(200)
    assert (filled(array) == features(200)).all()


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((199, 8), np.float32),
        np.zeros((200, 8), np.float64),
        np.zeros((200, 8), np.float32, order="F"),
        np.zeros((200, 16), np.float32)[:, ::2],
        np.broadcast_to(np.float32(0), (200, 8)),
    ],
)
def test_where_it_does_not_fit(store, out):
    store.write("a", {"x": features(200)}, {})
    with pytest.raises(ValueError, match="C-contiguous array of their shape and type, got"):
        read_into(store["a"]["x"], out)


@pytest.fixture
def shard(store, small_chunks):
    """First file of an array of 200 rows: chunks of 16 rows, shards of 64."""
    store.write("a", {"x": features(200)}, {})
    return store.files.root / "a/x/c/0/0"


def test_the_broken_rows_are_named(store, shard, flip):
    flip(shard, 700)
    with pytest.raises(StoreMismatch, match=f"{BROKEN}") as caught:
        filled(store["a"]["x"])
    assert "rows 16–32 of" in str(caught.value)
    assert "a/x" in str(caught.value)


def test_any_flipped_byte_raises_or_changes_nothing(store, shard, flip):
    array, whole, quiet = store["a"]["x"], shard.read_bytes(), []
    for offset in [*range(600), *range(len(whole) - 80, len(whole))]:
        flip(shard, offset)
        try:
            assert (filled(array) == features(200)).all()
            quiet.append(offset)
        except StoreMismatch:
            pass
        shard.write_bytes(whole)
    assert len(quiet) <= 2  # zstd's frame header holds bits that mean nothing


def test_any_other_damage_raises(store, shard):
    array, whole, chance = store["a"]["x"], shard.read_bytes(), random.Random(0)
    for _ in range(300):
        start, length = chance.randrange(len(whole)), chance.randrange(1, 600)
        middle = chance.choice([b"", bytes(length), chance.randbytes(length), whole[:length]])
        damaged = whole[:start] + middle + whole[start + length :]
        shard.write_bytes(damaged)
        if damaged != whole:
            with pytest.raises(StoreMismatch, match=BROKEN):
                filled(array)


def test_a_missing_file_and_a_missing_chunk(store, shard):
    array = store["a"]["x"]
    zarr.open_array(f"{store.path}/a/x", mode="r+")[16:32] = 0  # zarr leaves out chunks of zeros
    with pytest.raises(StoreMismatch, match=r"rows 0–64 .*a chunk is missing"):
        filled(array)
    shard.unlink()
    with pytest.raises(StoreMismatch, match=r"rows 0–64 .*No such file"):
        filled(array)
