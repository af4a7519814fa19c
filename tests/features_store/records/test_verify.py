import json
import random

import numpy as np
import pytest

from avfuse.features_store.records.provenance import Inputs, record_inputs
from avfuse.features_store.records.verify import fix_commands, verify


@pytest.fixture
def chunked(store, monkeypatch):
    """One trial of 100 rows in chunks of 16 rows, shards of 64."""
    monkeypatch.setattr("avfuse.features_store.schema.CHUNK_BYTES", 16 * 32)
    monkeypatch.setattr("avfuse.features_store.schema.SHARD_BYTES", 64 * 32)
    rng = np.random.default_rng(0)
    arrays = {"time": np.arange(100.0), "x": rng.standard_normal((100, 8)).astype(np.float32)}
    store.write("b/a", arrays, {"fps": "25"})
    return store


def test_a_missing_face_is_named(chunked, arrays):
    chunked.write("b/face0", arrays, {})
    chunked.write("b", {}, {"faces": 2})
    assert [str(problem) for problem in verify(chunked)] == ["b: a face of it is missing; extract it again"]


def test_nothing_to_say(chunked, arrays):
    chunked.write("b/face0", arrays, {})
    chunked.write("b/face1", arrays, {})
    chunked.write("b", {}, {"faces": 2})
    chunked.write("none", {"time": np.zeros(0)}, {})
    assert list(verify(chunked)) == []


def test_flipped_byte_is_named(chunked, flip):
    file = chunked.files.root / "b/a/x/c/1/0"
    flip(file, 40)
    (problem,) = verify(chunked)
    assert (problem.trial, problem.array, problem.rows, problem.file) == ("b/a", "x", (64, 80), str(file))
    assert "b/a/x rows 64–80: broken chunk" in str(problem)


def test_flipped_index_names_the_shard(chunked, flip):
    file = chunked.files.root / "b/a/x/c/0/0"
    flip(file, file.stat().st_size - 10)
    (problem,) = verify(chunked)
    assert (problem.rows, problem.file) == ((0, 64), str(file))


def test_any_flipped_byte_is_found(chunked, flip):
    file = chunked.files.root / "b/a/x/c/0/0"
    whole = file.read_bytes()
    quiet = 0
    for offset in random.Random(0).sample(range(len(whole)), 90):
        flip(file, offset)
        quiet += not list(verify(chunked))
        file.write_bytes(whole)
    assert quiet <= 2  # zstd's frame header holds bits that mean nothing


def test_a_shard_with_a_piece_cut_out(chunked):
    """The index at its end is whole, and says that a chunk goes on where the file has ended."""
    file = chunked.files.root / "b/a/x/c/0/0"
    whole = file.read_bytes()
    for start in range(0, len(whole) - 200, 40):
        file.write_bytes(whole[:start] + whole[start + 150 :])
        assert [problem.array for problem in verify(chunked)][:1] == ["x"]


def test_any_flipped_byte_of_metadata_raises_nothing(chunked, flip):
    for name in ("b/a/x/zarr.json", "b/a/zarr.json", "b/zarr.json"):
        file = chunked.files.root / name
        whole = file.read_bytes()
        for offset in random.Random(0).sample(range(len(whole)), min(40, len(whole))):
            flip(file, offset)
            list(verify(chunked))
            file.write_bytes(whole)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("100", "101", "101"),
        ('"float32"', '"floot32"', "broken metadata"),
        ('"frame"', '"franc"', "axes"),
        ('"units"', '"unitz"', "attributes"),
        ('"endian"', '"indian"', "broken metadata"),
        ('"data_type"', '"data_typo"', "broken metadata"),
        ("{", "", "broken metadata"),
    ],
)
def test_broken_array_metadata(chunked, old, new, words):
    file = chunked.files.root / "b/a/x/zarr.json"
    file.write_text(file.read_text().replace(old, new, 1))
    (problem,) = verify(chunked)
    assert words in problem.what
    assert problem.file == str(file)


def test_missing_files(chunked):
    root = chunked.files.root / "b/a"
    (root / "x/c/1/0").unlink()
    (problem,) = verify(chunked)
    assert (problem.rows, problem.what) == ((64, 100), "the file is missing")
    (root / "x/zarr.json").unlink()
    (problem,) = verify(chunked)
    assert (problem.array, problem.what) == ("x", "the array is missing")


@pytest.mark.parametrize("size", [0, 1, 50])
def test_cut_off_file(chunked, size):
    file = chunked.files.root / "b/a/x/c/0/0"
    file.write_bytes(file.read_bytes()[:size])
    assert [problem.array for problem in verify(chunked)] == ["x"]


def test_other_values_under_a_right_crc(chunked):
    import zarr

    zarr.open_array(f"{chunked.path}/b/a/x", mode="r+")[3, 3] = 7
    (problem,) = verify(chunked)
    assert problem.what == "wrong checksum"


def test_broken_and_unfinished_groups(chunked):
    file = chunked.files.root / "b/a/zarr.json"
    node = json.loads(file.read_text())
    node["attributes"]["complete"] = False
    file.write_text(json.dumps(node))
    assert [problem.what for problem in verify(chunked)] == ["incomplete; extract it again"]
    file.write_text("{")
    (problem,) = verify(chunked)
    assert problem.file == str(file)


def test_a_broken_folder_is_made_anew_with_a_trial_in_it(chunked, arrays):
    """Without its zarr.json no list shows the trials below: neither may be left so."""
    file = chunked.files.root / "b/zarr.json"
    file.write_text("{")
    (problem,) = verify(chunked)
    assert fix_commands(chunked, [problem.trial])[0].endswith(" --overwrite --trials b/a")
    chunked.write("b/a", arrays, {})
    assert list(verify(chunked)) == []
    for content in (None, "{"):
        file.unlink() if content is None else file.write_text(content)
        chunked.repair_groups(["b/a"])
        assert chunked.trials() == ["b/a"]
        assert list(verify(chunked)) == []


def test_commands_of_what_the_store_does_not_remember(chunked, arrays):
    """Folders that are unknown, or not on this machine, are left open; names that commas part go by a file."""
    chunked.write(
        "x,y",
        arrays,
        {"features": {"iresnet50": {"settings": {"aligned": True}}}, "trial_length_from": "annotations"},
    )
    chunked.write("z", arrays, {"features": {"vggish": {"settings": {}, "weights": {"name": "v 1.pth"}}}})
    record_inputs(chunked.files, Inputs(videos="/nowhere"))
    with_comma, plain = sorted(fix_commands(chunked, ["x,y", "z"]), reverse=True)
    options = "--videos … --annotations … --features iresnet50 --aligned …"
    assert with_comma == (
        f"printf '%s\\n' x,y | avfuse extract {options} --store {chunked.path} --overwrite --trials-from /dev/stdin"
    )
    assert plain == (
        f"avfuse extract --videos … --features vggish --weights vggish=…/'v 1.pth' --store {chunked.path} "
        "--overwrite --trials z"
    )


def test_weights_that_are_still_the_same_are_named(chunked, arrays, tmp_path):
    file = tmp_path / "my own.pth"
    file.touch()
    source = {"name": "my own.pth", "sha256": "ab", "untrained_seed": None}
    weights = {"vggish": source, "iresnet50": {"sha256": "cd"}}
    chunked.write(
        "z", arrays, {"features": {name: {"settings": {}, "weights": each} for name, each in weights.items()}}
    )
    given = {"vggish": {"path": str(file), "sha256": "ab"}, "iresnet50": None}  # the one was found without --weights
    record_inputs(chunked.files, Inputs(weight_files=given))
    start = "avfuse extract --videos … --features vggish,iresnet50 --weights "
    assert fix_commands(chunked, ["z"])[0].startswith(f"{start}'vggish={file}' --store ")
    record_inputs(chunked.files, Inputs(weight_files={"vggish": {"path": str(file), "sha256": "of another run"}}))
    assert fix_commands(chunked, ["z"])[0].startswith(f"{start}vggish=…/'my own.pth' --store ")
