import io
import os
import pickle
import struct
import tracemalloc
import zipfile

import h5py
import numpy as np
import pytest

from avfuse.features_store.interchange.feature_files import FeatureFileError, read_blocks

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

ROWS = np.random.default_rng(0).standard_normal((50, 3))
TIME_S = np.arange(50) / 10


def read(path):
    """Rows, times and columns of a whole file."""
    blocks = list(read_blocks(path))
    times = None if blocks[0].time_s is None else np.concatenate([block.time_s for block in blocks])
    return np.concatenate([block.rows for block in blocks]), times, blocks[0].columns


def write(path, rows=ROWS, time_s=TIME_S, names=("a", "b", "c")):
    """The same rows in the format of the path's suffix; npy has no times."""
    timed = {} if time_s is None else {"time": time_s}
    if path.suffix == ".npy":
        np.save(path, rows)
    elif path.suffix == ".npz":
        np.savez_compressed(path, features=rows, **timed)
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file.create_dataset("features", data=rows, chunks=(5, *rows.shape[1:]), compression="gzip", fletcher32=True)
            if time_s is not None:
                file["time"] = time_s
    elif path.suffix == ".csv":
        table = rows if time_s is None else np.column_stack([rows[:, :1], time_s, rows[:, 1:]])
        header = names if time_s is None else (names[0], " time_s ", *names[1:])
        lines = [", ".join(header), *(",".join(map(repr, row)) for row in table.tolist())]
        path.write_text("\n".join(lines) + "\n")
    else:
        columns = {**timed, **{name: rows[:, at] for at, name in enumerate(names)}}
        parquet.write_table(pyarrow.table(columns), path)
    return path


SUFFIXES = (".npy", ".npz", ".h5", ".csv", ".parquet")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("timed", [True, False])
def test_every_format_gives_its_rows(tmp_path, suffix, timed):
    rows, time_s, columns = read(write(tmp_path / f"a{suffix}", time_s=TIME_S if timed else None))
    assert np.array_equal(rows, ROWS)
    assert (time_s is not None) == (timed and suffix != ".npy")
    assert time_s is None or np.array_equal(time_s, TIME_S)
    assert columns == (("a", "b", "c") if suffix in (".csv", ".parquet") else ())


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5"])
@pytest.mark.parametrize(
    "rows", [ROWS[:, 0], ROWS.astype(">f2"), np.asfortranarray(ROWS), np.ones((5, 2, 3), np.uint8)]
)
def test_other_shapes_types_and_orders(tmp_path, suffix, rows):
    found = read(write(tmp_path / f"a{suffix}", rows, None))[0]
    assert np.array_equal(found, rows[:, None] if rows.ndim == 1 else rows)
    assert (found.dtype.kind, found.dtype.itemsize) == (rows.dtype.kind, rows.dtype.itemsize)


def test_one_array_needs_no_name_and_times_have_several(tmp_path):
    np.savez(tmp_path / "a.npz", embedding=ROWS, TIMES=TIME_S[:, None])
    rows, time_s, _ = read(tmp_path / "a.npz")
    assert np.array_equal(rows, ROWS)
    assert np.array_equal(time_s, TIME_S)
    np.savez(tmp_path / "b.npz", one=ROWS, two=ROWS)
    with pytest.raises(FeatureFileError, match=r"b\.npz has one, two; call the rows 'features', and the times 'time'"):
        read(tmp_path / "b.npz")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file.create_group("inner")["x"] = ROWS
    with pytest.raises(FeatureFileError, match="has no array at its top, only inner"):
        read(tmp_path / "c.h5")
    np.savez(tmp_path / "d.npz", features=ROWS, time=TIME_S[:-1])
    with pytest.raises(FeatureFileError, match="has 49 times, and another number of rows"):
        read(tmp_path / "d.npz")


def test_a_table_as_openface_and_pandas_write_it(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfframe, timestamp, AU01_r\r\n1, 0.000, 0.5\r\n\r\n2, 0.033, \r\n")
    rows, time_s, columns = read(tmp_path / "a.csv")
    assert columns == ("frame", "AU01_r")
    assert time_s.tolist() == [0, 0.033]
    assert np.array_equal(rows, np.array([[1, 0.5], [2, np.nan]]), equal_nan=True)
    table = pyarrow.table({"time": [0.0, 1.0], "x": pyarrow.array([1, None]), "__index_level_0__": [5, 6]})
    parquet.write_table(table, tmp_path / "a.parquet")
    rows, time_s, columns = read(tmp_path / "a.parquet")
    assert columns == ("x",)
    assert np.array_equal(rows[:, 0], [1, np.nan], equal_nan=True)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty; a line of names"),
        ("1.0,2.0\n3,4\n", "has no header: its first line is 1.0, 2.0"),
        (",a\n0,1\n", "has no name for column 1; an index of pandas"),
        ("a,b,a\n1,2,3\n", "has two columns called a"),
        ("time,timestamp,a\n1,2,3\n", "has 2 columns of times: time, timestamp"),
        ("time\n1\n", "has no column besides its times"),
        ("time;a\n1;2\n", "is '1;2', not a number"),
        ("a,b\n1,2\n3\n", ":3: 1 value under 2 names"),
        ("a,b\n1,2\n\n3,high\n", ":4: b is 'high', not a number"),
        ("a,b\n1,\0\n", "not a number"),
        ("a\n" + "1" * (17 << 20), "has a line of more than"),
    ],
)
def test_what_is_no_table(tmp_path, text, reason):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(FeatureFileError) as error:
        read(tmp_path / "a.csv")
    assert reason in str(error.value)
    assert str(tmp_path / "a.csv") in str(error.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_cut_off_anywhere_is_refused_by_name(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}")
    whole = path.read_bytes()
    for size in (0, 1, 7, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        # A shorter table is a table: only half a line shows.
        path.write_bytes(whole[: whole.rfind(b",", 0, max(size, 100)) if suffix == ".csv" and size else size])
        with pytest.raises(FeatureFileError, match=f"a{suffix}"):
            read(path)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5", ".parquet"])
def test_whatever_byte_is_broken_nothing_but_an_error_or_rows_come(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}")
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    refused = []
    for at in rng.integers(0, len(whole), 150):
        content = bytearray(whole)
        content[at] ^= int(rng.integers(1, 256))
        path.write_bytes(content)
        try:
            read(path)
        except FeatureFileError as error:
            refused.append(str(error))
    assert len(refused) > 5
    assert all(str(path) in reason for reason in refused)


class Evil:
    """Runs code where it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("evil",)


def test_nothing_is_unpickled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.array([Evil()], object), allow_pickle=True)
    np.savez("a.npz", features=np.array([Evil()], object))
    (tmp_path / "b.npy").write_bytes(pickle.dumps(Evil()))
    reasons = {"a.npy": "a pickle can run any code", "a.npz": "a pickle can run any code", "b.npy": "is a pickle"}
    for name, reason in reasons.items():
        with pytest.raises(FeatureFileError, match=reason):
            read(tmp_path / name)
    assert not (tmp_path / "evil").exists()


def npy_of(header):
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize(
    "shape",
    ["(1000000000000, 512)", "(5, 10000000000000)", "(0, 4)", "()", "(1000000, 1000000)", "(-1, 4)", "(10**9,)"],
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_what_a_header_claims_is_not_allocated(tmp_path, shape, suffix):
    content = npy_of(f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}") + bytes(64)
    path = tmp_path / f"a{suffix}"
    if suffix == ".npy":
        path.write_bytes(content)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("features.npy", content)
    tracemalloc.start()
    try:
        with pytest.raises(FeatureFileError, match=f"a{suffix}"):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f8'",
        "[" * 5000,
        "{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (2,)}",
        "{'descr': '<U4', 'fortran_order': False, 'shape': (4,)}",
        "{'descr': '<c16', 'fortran_order': False, 'shape': (4,)}",
        "{'descr': '<M8[s]', 'fortran_order': False, 'shape': (8,)}",
        "{'descr': '<f8', 'fortran_order': 3, 'shape': (8,)}",
        "x" * 60000,
    ],
)
def test_headers_that_are_none(tmp_path, header):
    (tmp_path / "a.npy").write_bytes(npy_of(header) + bytes(64))
    with pytest.raises(FeatureFileError, match=r"a\.npy"):
        read(tmp_path / "a.npy")


def test_a_bomb_of_zeros_takes_no_memory(tmp_path):
    """200 MB in 200 KB, which deflate can do: read block by block, or refused by what the header says."""
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("features.npy", "w") as member:
        member.write(npy_of("{'descr': '<f4', 'fortran_order': False, 'shape': (100000, 500), }"))
        for _ in range(200):
            member.write(bytes(1_000_000))
    tracemalloc.start()
    try:
        assert sum(len(block.rows) for block in read_blocks(path)) == 100_000
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()
    whole = io.BytesIO(path.read_bytes())
    with zipfile.ZipFile(whole) as archive:
        info = archive.infolist()[0]
    lied = whole.getvalue().replace(struct.pack("<I", info.file_size), struct.pack("<I", 1000))
    path.write_bytes(lied)
    with pytest.raises(FeatureFileError, match="Bad CRC"):
        read(path)


def test_hdf5_that_claims_or_hides(tmp_path):
    outside = tmp_path / "secret"
    outside.write_bytes(bytes(800))
    makers = {
        "empty": lambda file: file.create_dataset("features", (10_000_000, 100), "f4", chunks=(100, 100)),
        "external": lambda file: file.create_dataset("features", (10, 10), "f8", external=[(str(outside), 0, 800)]),
        "linked": lambda file: file.__setitem__("features", h5py.ExternalLink("other.h5", "x")),
        "soft": lambda file: file.__setitem__("features", h5py.SoftLink("/nowhere")),
        "texts": lambda file: file.create_dataset("features", data=["a", "b"]),
        "records": lambda file: file.create_dataset("features", data=np.zeros(3, [("a", "f4")])),
        "number": lambda file: file.create_dataset("features", data=3.0),
        "chunky": lambda file: file.create_dataset("features", (100_000, 3000), "f8", chunks=(100_000, 3000)),
    }
    for name, make in makers.items():
        path = tmp_path / f"{name}.h5"
        with h5py.File(path, "w") as file:
            make(file)
        with pytest.raises(FeatureFileError, match=f"{name}.h5"):
            read(path)


def test_parquet_of_other_things(tmp_path):
    for name, column in {
        "texts": ["a", "b"],
        "lists": [[1.0], [2.0]],
        "days": pyarrow.array([1, 2], pyarrow.timestamp("s")),
    }.items():
        parquet.write_table(pyarrow.table({"time": [0.0, 1.0], "x": column}), tmp_path / f"{name}.parquet")
        with pytest.raises(FeatureFileError, match=r"x holds .*, not numbers"):
            read(tmp_path / f"{name}.parquet")
