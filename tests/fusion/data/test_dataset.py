import os
import re
import shutil
import uuid
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from avfuse.features_store.arrays.zarr_array import create_array
from avfuse.features_store.arrays.zarr_json import group_json
from avfuse.features_store.schema import StoreMismatch
from avfuse.features_store.store import FeatureStore
from avfuse.fusion.artifacts import state
from avfuse.fusion.config import TrainConfig
from avfuse.fusion.data.batches import Batches, drop_modalities
from avfuse.fusion.data.dataset import load
from avfuse.fusion.data.matching import TrialSource
from avfuse.fusion.data.runtime import Room
from avfuse.fusion.data.windows import ResidentRows, StreamedRows
from avfuse.fusion.models.table import check_shapes
from avfuse.fusion.settings import preset

COUNTS = {"a": 50, "b": 1, "c": 23}
ROOM = Room(torch.device("cpu"), 1 << 40, 1 << 40)


@pytest.fixture
def rows():
    """{trial: {feature: rows}} of three trials and two features."""
    rng = np.random.default_rng(0)
    widths = {"face": 5, "voice": 3}
    return {
        name: {f: rng.standard_normal((count, width)).astype(np.float32) for f, width in widths.items()}
        for name, count in COUNTS.items()
    }


def config(**more) -> TrainConfig:
    return replace(
        preset("concat"),
        **{"modalities": ("face", "voice"), "window_frames": 20, "hop_frames": 15, "batch_size": 3, **more},
    )


def replace_array(store: FeatureStore, name: str, array: str, values: np.ndarray) -> None:
    """Put another array in a trial's place, as damage or another program would."""
    folder = Path(store.path, name, array)
    shutil.rmtree(folder)
    create_array(str(folder), array, values)[:] = values


def source(name: str, labels: int) -> dict[str, TrialSource]:
    return {name: TrialSource(name, name, np.zeros((labels, 2), np.float32), np.ones(labels, bool))}


def whole_table(data, modality: int) -> np.ndarray:
    return data.rows.tables[modality].numpy()


def batches_of(data, order=None, **more):
    """Every batch of every trial's windows, standardised with the statistics of `a` and `c`."""
    wanted = config(**more)
    windows = data.windows(data.spans, wanted)
    order = None if order is None else torch.randperm(len(windows), generator=torch.Generator().manual_seed(order))
    return list(Batches(data, data.statistics(["a", "c"], wanted), wanted).all(windows, order))


def tensors_of(batch):
    return [*batch.features, *batch.valid, batch.mask, batch.labels, batch.loss_mask, batch.index]


def test_trials_lie_side_by_side(make_data, rows):
    data = make_data(rows)
    assert dict(data.spans) == {"a": (0, 50), "b": (50, 1), "c": (51, 23)}
    assert data.shapes == ((5,), (3,))
    assert data.place == "cpu"
    assert isinstance(data.rows, ResidentRows)
    assert data.notes == ()
    for number, feature in enumerate(("face", "voice")):
        table = whole_table(data, number)
        assert np.array_equal(table[:-1], np.concatenate([rows[name][feature] for name in COUNTS]))
        assert not table[-1].any()
        assert data.valid[number].tolist() == [True] * 74 + [False]
    assert data.labels.shape == (75, 2)
    assert np.array_equal(data.labels[:-1], np.concatenate([data.sources[name].labels for name in COUNTS]))
    assert data.labelled.tolist() == [True] * 74 + [False]


@pytest.mark.parametrize("order", [None, 1, 2])
@pytest.mark.parametrize("spoiled", [False, True])
def test_streamed_batches_are_those_of_memory_bit_for_bit(make_data, make_store, rows, order, spoiled):
    labels = {}
    if spoiled:
        rows["a"]["face"][[0, 7, 49]] = [[np.nan], [np.inf], [-np.inf]]
        rows["c"]["voice"][11] = np.nan
        rows["c"]["voice_valid"] = np.arange(23) % 3 > 0
        labels = {"a": np.zeros((63, 2)), "c": np.zeros((20, 2))}
    store = make_store(rows)
    resident, streamed = (make_data(rows, labels, streamed=each, store=store) for each in (False, True))
    assert isinstance(streamed.rows, StreamedRows)
    assert streamed.place == "store"
    assert streamed.notes == resident.notes
    ours, theirs = batches_of(resident, order), batches_of(streamed, order)
    assert len(ours) == len(theirs) > 1
    for one, other in zip(ours, theirs, strict=True):
        for first, second in zip(tensors_of(one), tensors_of(other), strict=True):
            assert first.dtype == second.dtype
            assert torch.equal(
                first.view(torch.int32) if first.is_floating_point() else first,
                second.view(torch.int32) if second.is_floating_point() else second,
            )


def test_streamed_statistics_are_those_of_memory(make_data, make_store, rows):
    store = make_store(rows)
    resident, streamed = (make_data(rows, streamed=each, store=store) for each in (False, True))
    for kind in ("scalar", "feature"):
        one, other = (data.statistics(["a", "b"], config(statistics=kind)) for data in (resident, streamed))
        for feature in ("face", "voice"):
            assert np.array_equal(one[feature].mean, other[feature].mean)
            assert np.array_equal(one[feature].std, other[feature].std)


@pytest.mark.parametrize("streamed", [False, True])
def test_rows_that_are_not_finite_become_zeros_that_are_not_valid(make_data, rows, streamed):
    rows["a"]["face"][3, 1] = np.nan
    rows["a"]["face"][[17, 18], 4] = [np.inf, -np.inf]
    rows["c"]["voice"][22] = np.nan
    data = make_data(rows, streamed=streamed)
    assert data.notes == (
        "a: 3 rows of face are not finite (the first is row 3); they count as missing",
        "c: row 22 of voice is not finite; it counts as missing",
    )
    face, voice = (
        data.rows.gather(data.windows(["a"], config()), 20),
        data.rows.gather(data.windows(["c"], config()), 20),
    )
    assert not face[0][0, [3, 17, 18]].any()
    assert not voice[1][-1, 19].any()
    assert torch.isfinite(face[0]).all()
    assert np.array_equal(face[0][0, 4].numpy(), rows["a"]["face"][4])
    expected = np.ones(75, bool)
    expected[[3, 17, 18, 74]] = False
    assert np.array_equal(data.valid[0].numpy(), expected)
    assert data.valid[1].tolist() == [True] * 73 + [False, False]
    moments = data.moments["a"][0]
    assert moments.count == 47
    np.testing.assert_allclose(moments.mean, np.delete(rows["a"]["face"], [3, 17, 18], 0).mean(0), atol=1e-6)


@pytest.mark.parametrize("streamed", [False, True])
def test_opposite_infinities_and_too_large_numbers_are_not_finite(make_data, streamed):
    wide = np.random.default_rng(0).standard_normal((30, 2))
    wide[[4, 5, 6]] = [[np.inf, -np.inf], [1e300, 0], [-1e300, 1e300]]
    data = make_data({"a": {"face": wide}}, streamed=streamed)
    assert data.notes == ("a: 3 rows of face are not finite (the first is row 4); they count as missing",)
    (gathered,) = data.rows.gather(data.windows(["a"], config()), 20)
    assert torch.isfinite(gathered).all()


def test_valid_flags_of_the_store_are_kept(make_data, rows):
    flags = np.arange(50) % 4 > 0
    rows["a"]["voice_valid"] = flags
    data = make_data(rows)
    assert np.array_equal(data.valid[1][:50].numpy(), flags)
    assert data.valid[0][:50].all()
    assert data.moments["a"][1].count == flags.sum()
    assert data.moments["a"][0].count == 50


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("labels", [51, 75, 200])
def test_labels_beyond_the_features_get_the_last_row_not_valid(make_data, rows, labels, streamed):
    data = make_data(rows, {"a": np.zeros((labels, 2))}, streamed=streamed)
    first, count = data.spans["a"]
    assert (first, count) == (0, labels)
    assert data.spans["b"] == (labels, 1)
    windows = data.windows(["a"], config())
    face, voice = data.rows.gather(windows, 20)
    for number, (start, length) in enumerate(zip(windows.start.tolist(), windows.length.tolist(), strict=True)):
        there = np.minimum(np.arange(start, start + length), 49)
        assert np.array_equal(face[number, :length].numpy(), rows["a"]["face"][there])
        assert np.array_equal(voice[number, :length].numpy(), rows["a"]["voice"][there])
    assert data.valid[0][:labels].tolist() == [True] * 50 + [False] * (labels - 50)
    assert data.moments["a"][0].count == 50


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("labels", [1, 30, 49])
def test_features_beyond_the_labels_are_cut(make_data, rows, labels, streamed):
    data = make_data(rows, {"a": np.zeros((labels, 2))}, streamed=streamed)
    assert data.spans["a"] == (0, labels)
    face, _ = data.rows.gather(data.windows(["a"], config()), 20)
    assert np.array_equal(face[-1, : min(labels, 20)].numpy(), rows["a"]["face"][max(labels - 20, 0) : labels])
    assert not face[-1, min(labels, 20) :].any()
    assert data.valid[0][:labels].all()
    assert data.moments["a"][0].count == labels


def test_a_broken_last_row_is_not_counted_again_where_it_is_repeated(make_data, rows):
    rows["a"]["face"][49] = np.nan
    data = make_data(rows, {"a": np.zeros((60, 2))})
    assert data.notes == ("a: row 49 of face is not finite; it counts as missing",)
    assert not whole_table(data, 0)[49:60].any()


def test_a_file_that_marks_rows_with_minus_five(make_data, rows):
    labels = np.zeros((23, 2))
    labels[[2, 20], [0, 1]] = -5
    data = make_data(rows, {"c": labels})
    expected = np.ones(23, bool)
    expected[[2, 20]] = False
    assert np.array_equal(data.labelled[51:74].numpy(), expected)
    assert data.labelled[:51].all()


@pytest.mark.parametrize("rows_there", [49, 51, 1])
def test_an_array_of_another_length_than_its_trial(make_store, rows, rows_there):
    store = make_store(rows)
    replace_array(store, "a", "voice", np.zeros((rows_there, 3), np.float32))
    message = f"trial 'a' has 50 rows, but its voice has {rows_there}; extract it again"
    with pytest.raises(ValueError, match=message):
        load(store, source("a", 50), ["face", "voice"], ROOM)
    assert load(store, source("a", 50), ["face"], ROOM).shapes == ((5,),)


@pytest.mark.parametrize("rows_there", [49, 51, 1])
def test_flags_of_another_length_than_their_trial(make_store, rows, rows_there):
    store = make_store(rows)
    replace_array(store, "a", "voice_valid", np.ones(rows_there, bool))
    message = f"trial 'a' has 50 rows, but its voice_valid has {rows_there}; extract it again"
    with pytest.raises(ValueError, match=message):
        load(store, source("a", 50), ["face", "voice"], ROOM)


def test_features_of_another_width_than_those_of_other_trials(make_data, rows):
    rows["c"]["voice"] = np.zeros((23, 4), np.float32)
    with pytest.raises(ValueError, match="voice differs in width between trials: 3 in 'a', 4 in 'c'; extract them"):
        make_data(rows)


def test_what_is_no_feature_is_refused(make_store, rows):
    store = make_store({"a": {**rows["a"], "face_score": np.zeros(50, np.float32)}})
    with pytest.raises(ValueError, match="face_score has one number per row; the trainer needs features"):
        load(store, source("a", 50), ["face", "face_score"], ROOM)


class TestMaps:
    """Rows that are maps [C, H, W]: a feature map of the face network, float16 in the store."""

    @pytest.fixture
    def maps(self, rows):
        rng = np.random.default_rng(1)
        for name, count in COUNTS.items():
            rows[name]["map"] = rng.standard_normal((count, 4, 3, 2)).astype(np.float16)
        return rows

    @pytest.mark.parametrize("streamed", [False, True])
    def test_they_are_kept_as_they_are_stored_and_batched_as_float32(self, make_data, maps, streamed):
        maps["a"]["map"][3, 1, 2, 0] = np.inf
        data = make_data(maps, streamed=streamed)
        assert data.shapes == ((5,), (3,), (4, 3, 2))
        assert data.notes == ("a: row 3 of map is not finite; it counts as missing",)
        gathered = data.rows.gather(data.windows(["a"], config()), 20)
        assert [rows.dtype for rows in gathered] == [torch.float32, torch.float32, torch.float16]
        expected = np.where(np.arange(20)[:, None, None, None] == 3, 0, maps["a"]["map"][:20])
        assert np.array_equal(gathered[2][0].numpy(), expected)
        wanted = config(modalities=("face", "voice", "map"))
        statistics = data.statistics(["a", "c"], wanted)
        windows = data.windows(["b"], wanted)  # one row, then padding
        (batch,) = Batches(data, statistics, wanted).all(windows)
        assert batch.features[2].dtype == torch.float32
        assert batch.features[2].shape == (1, 20, 4, 3, 2)
        assert not batch.features[2][:, 1:].any()
        found = batch.features[2][0, 0].numpy() * statistics["map"].std[0] + statistics["map"].mean[0]
        np.testing.assert_allclose(found, maps["b"]["map"][0], atol=1e-5)

    def test_streamed_batches_are_those_of_memory(self, make_data, make_store, maps):
        store = make_store(maps)
        resident, streamed = (make_data(maps, streamed=each, store=store) for each in (False, True))
        for kind in ("scalar", "feature"):
            modalities = ("face", "voice", "map")
            ours, theirs = (batches_of(d, 1, modalities=modalities, statistics=kind) for d in (resident, streamed))
            for one, other in zip(ours, theirs, strict=True):
                assert all(map(torch.equal, tensors_of(one), tensors_of(other)))

    @pytest.mark.parametrize("kind", ["scalar", "feature"])
    def test_their_statistics_are_one_number_or_one_a_channel(self, make_data, maps, kind):
        found = make_data(maps).statistics(["a", "c"], config(statistics=kind))["map"]
        rows = np.concatenate([maps["a"]["map"], maps["c"]["map"]]).astype(np.float64)
        axes = (0, 1, 2, 3) if kind == "scalar" else (0, 2, 3)
        np.testing.assert_allclose(found.mean, np.broadcast_to(rows.mean(axes), 4), atol=1e-6)
        np.testing.assert_allclose(found.std, np.broadcast_to(rows.std(axes), 4), rtol=1e-5)

    def test_a_map_takes_half_the_room_of_float32(self, make_store, maps):
        store = make_store(maps)
        sources = {name: source(name, count)[name] for name, count in COUNTS.items()}
        needed = 74 * 4 * 3 * 2 * 2
        for host_bytes, place in ((needed, "cpu"), (needed - 1, "store")):
            assert load(store, sources, ["map"], Room(torch.device("cpu"), 0, host_bytes)).place == place

    def test_a_modality_is_dropped_whole(self, make_data, maps):
        batch = batches_of(make_data(maps), modalities=("face", "voice", "map"))[0]
        dropped = drop_modalities(batch, 1.0, torch.Generator().manual_seed(0))
        for rows, valid in zip(dropped.features, dropped.valid, strict=True):
            assert torch.equal(rows.flatten(1).any(1), valid.any(1))

    def test_other_sizes_of_the_map_in_other_trials(self, make_data, maps):
        maps["c"]["map"] = np.zeros((23, 4, 5, 5), np.float16)
        with pytest.raises(ValueError, match="map differs in width between trials: 4×3×2 in 'a', 4×5×5 in 'c'"):
            make_data(maps)

    def test_a_check_is_made_before_a_row_is_read(self, make_store, maps):
        store = make_store(maps)
        shard(store, "a", "map").unlink()
        wanted = replace(preset("crossattn"), modalities=("face", "map"))
        with pytest.raises(ValueError, match=r"map has rows of shape \(4, 3, 2\); the head crossattn takes features"):
            load(store, source("a", 50), wanted.modalities, ROOM, check=partial(check_shapes, wanted))


def test_an_array_that_does_not_say_which_rows_are_real(tmp_path):
    store = FeatureStore(tmp_path / "boxes.zarr", mode="a")
    arrays: dict[str, np.ndarray] = {"time": np.arange(9) / 25, "face_box": np.zeros((9, 4), np.float32)}
    store.write("a", arrays, {"fingerprint": "small"})
    with pytest.raises(ValueError, match="face_box is not a feature: trial 'a' does not say which rows are real"):
        load(store, source("a", 9), ["face_box"], ROOM)


def test_nothing_to_read(make_store, rows):
    with pytest.raises(ValueError, match="no trial has both labels and features"):
        load(make_store(rows), {}, ["face"], ROOM)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_trial_without_a_row_of_features(make_data, rows, streamed):
    rows["b"] = {"face": np.zeros((0, 5), np.float32), "voice": np.zeros((0, 3), np.float32)}
    data = make_data(rows, {"b": np.zeros((30, 2))}, streamed=streamed)
    face, voice = data.rows.gather(data.windows(["b"], config()), 20)
    assert face.shape == (2, 20, 5)
    assert not face.any()
    assert not voice.any()
    assert not data.valid[0][50:80].any()
    assert data.moments["b"][0].count == 0


@pytest.mark.parametrize(
    ("device_bytes", "host_bytes", "place"),
    [(75 * 8 * 4, 75 * 8 * 4, "cpu"), (0, 75 * 8 * 4, "cpu"), (75 * 8 * 4, 0, "store"), (0, 74 * 8 * 4 - 1, "store")],
)
def test_features_lie_where_there_is_room(make_store, rows, device_bytes, host_bytes, place):
    store = make_store(rows)
    sources = {name: source(name, count)[name] for name, count in COUNTS.items()}
    data = load(store, sources, ["face", "voice"], Room(torch.device("cpu"), device_bytes, host_bytes))
    assert data.place == place


def test_damage_in_a_chunk_is_an_error_not_numbers(make_store, rows):
    store = make_store(rows)
    shard = next(path for path in Path(store.path, "a", "face", "c").rglob("*") if path.is_file())
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 0xFF
    shard.write_bytes(bytes(content))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises((ValueError, RuntimeError)):
            load(store, source("a", 50), ["face"], ROOM)


@pytest.mark.parametrize("labels", [49, 50, 52])
@pytest.mark.parametrize("array", ["face", "face_valid"])
def test_a_missing_file_is_an_error_not_zeros(make_store, rows, array, labels):
    """Whether features are as long as the labels, longer or shorter."""
    store = make_store(rows)
    for path in Path(store.path, "a", array, "c").rglob("*"):
        if path.is_file():
            path.unlink()
    with pytest.raises(StoreMismatch, match=rf"a/{array} are broken"):
        load(store, source("a", labels), ["face"], ROOM)


def test_the_store_is_read_as_it_is(make_data, make_store, rows):
    """Loading changes nothing on disk."""
    store = make_store(rows)
    before = {path: path.read_bytes() for path in Path(store.path).rglob("*") if path.is_file()}
    batches_of(make_data(rows, store=store))
    batches_of(make_data(rows, streamed=True, store=store))
    assert {path: path.read_bytes() for path in Path(store.path).rglob("*") if path.is_file()} == before
    assert zarr.open_group(store.path, mode="r").attrs


def shard(store: FeatureStore, name: str, array: str) -> Path:
    return next(path for path in Path(store.path, name, array, "c").rglob("*") if path.is_file())


class TestStreamedUnderWay:
    """What becomes of the store between two batches."""

    @pytest.fixture
    def streamed(self, make_data, make_store, rows):
        store = make_store(rows)
        data = make_data(rows, streamed=True, store=store)
        windows = data.windows(["a"], config())
        assert np.array_equal(data.rows.gather(windows, 20)[0][0].numpy(), rows["a"]["face"][:20])
        return store, partial(data.rows.gather, windows, 20)

    @pytest.mark.parametrize(
        "damage", [Path.unlink, lambda path: os.truncate(path, 40), lambda path: os.truncate(path, 0)]
    )
    def test_a_file_that_vanishes_or_shrinks(self, streamed, damage):
        store, gather = streamed
        damage(shard(store, "a", "voice"))
        with pytest.raises(
            StoreMismatch, match=r"^trial 'a': rows 0–\d+ of .*/a/voice are broken \(.*/a/voice/c/0/0: "
        ):
            gather()

    def test_a_trial_made_anew_with_other_settings(self, streamed, rows):
        """Of the same shape: its rows fit, and must not stand beside those of the making before."""
        store, gather = streamed
        arrays = {name: array[:] for name, array in store["a"].items()}
        store.write("a", {**arrays, "face": rows["a"]["face"] + 1}, {"fingerprint": "other"})
        with pytest.raises(StoreMismatch, match=r"^trial 'a' was made anew, .* since it was opened \(.*a/zarr.json\)"):
            gather()

    def test_a_trial_made_anew_that_has_come_to_the_same(self, streamed, rows):
        store, gather = streamed
        before = gather()
        store.write("a", {name: array[:] for name, array in store["a"].items()}, {"fingerprint": "small", "seconds": 3})
        assert all(map(torch.equal, gather(), before))

    def test_a_trial_that_is_being_made_anew(self, streamed):
        """Half of it is there: that is not damage."""
        store, gather = streamed
        store.files.write("a/zarr.json", group_json({"complete": False}))
        shutil.rmtree(Path(store.path, "a", "face"))
        with pytest.raises(StoreMismatch, match="trial 'a' was made anew, or is being made anew, since it was opened"):
            gather()

    def test_a_trial_that_is_removed(self, streamed):
        store, gather = streamed
        store.remove("a")
        with pytest.raises(StoreMismatch, match="trial 'a' was removed since it was opened"):
            gather()

    def test_the_run_ends_with_one_line(self, plant_small, tmp_path, avfuse, train_words, monkeypatch):
        """As a user meets it, and the last saved epoch is safe."""
        corpus, run = plant_small(tmp_path), tmp_path / "run"
        file = shard(FeatureStore(corpus.store), "clip5", "face")
        saved = state.save_state

        def save_and_lose(*words):
            saved(*words)
            file.unlink(missing_ok=True)

        monkeypatch.setattr(state, "save_state", save_and_lose)
        result = avfuse(*train_words(corpus, run, "--memory-gb", 0))
        assert result.exit_code == 1
        message = (
            rf"Error: {run}: trial 'clip5': rows \d+–\d+ of file://{file.parents[2]} are broken \({file}: No such file"
        )
        assert re.match(message, result.stderr.splitlines()[-1])
        found = state.load_state(run)
        assert found is not None
        assert len(found.history) == 1


@pytest.mark.parametrize("streamed", [False, True])
def test_behind_a_url_a_missing_file_is_an_error_too(rows, streamed):
    """There zarr reads, which fills in zeros by itself."""
    store = FeatureStore(f"memory://{uuid.uuid4().hex}/features.zarr", mode="a")
    flags = {"face_valid": np.ones(50, bool)}
    store.write("a", {"time": np.arange(50) / 25, "face": rows["a"]["face"], **flags}, {"fingerprint": "small"})
    lose = partial(store.files.remove, "a/face/c/0/0")
    if not streamed:
        lose()
        with pytest.raises(StoreMismatch, match=r"trial 'a': rows 0–50 of .* are broken .*c/0/0 is missing"):
            load(store, source("a", 50), ["face"], ROOM)
        return
    data = load(store, source("a", 50), ["face"], Room(torch.device("cpu"), 0, 0))
    windows = data.windows(["a"], replace(preset("concat"), modalities=("face",), window_frames=20, hop_frames=15))
    assert np.array_equal(data.rows.gather(windows, 20)[0][0].numpy(), rows["a"]["face"][:20])
    lose()
    with pytest.raises(StoreMismatch, match=r"trial 'a': rows 0–20 of .* are broken .*c/0/0 is missing"):
        data.rows.gather(windows, 20)


def test_a_trial_that_goes_before_it_is_read(make_store, rows):
    store = make_store(rows)
    store.remove("a")
    with pytest.raises(ValueError, match="has no complete trial 'a'"):
        load(store, source("a", 50), ["face"], ROOM)
