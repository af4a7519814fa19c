import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from avfuse.features_store.labels.corpus import open_corpus
from avfuse.features_store.schema import StoreMismatch
from avfuse.features_store.store import FeatureStore
from avfuse.features_store.torch_dataset import WindowDataset
from avfuse.fusion.data.dataset import load
from avfuse.fusion.data.matching import match_trials
from avfuse.fusion.data.runtime import Room
from avfuse.fusion.settings import preset

NAMES = ["face", "voice"]


@pytest.fixture(scope="module")
def small(plant_small, tmp_path_factory):
    return plant_small(tmp_path_factory.mktemp("small"))


@pytest.fixture
def windows(small):
    return WindowDataset(small.store, NAMES, 60, 40, annotations=small.annotations)


def same(one, other):
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert torch.equal(value, other[key]) if isinstance(value, torch.Tensor) else value == other[key], key


def test_windows_are_those_of_the_trainer(small, windows):
    """Rows, flags and labels of every window: equal to what `avfuse train` takes out of its table."""
    store, corpus = FeatureStore(small.store), open_corpus(small.annotations)
    match = match_trials(store, corpus, corpus.files, NAMES)
    table = load(store, match.trials, NAMES, Room(torch.device("cpu"), 0, 0))
    config = replace(preset("concat"), modalities=tuple(NAMES), window_frames=60, hop_frames=40)
    planned = table.windows(windows.trials, config)
    assert len(windows) == len(planned)
    rows = table.rows.gather(planned, 60)
    for at, item in enumerate(windows):
        first, length = int(planned.start[at]), int(planned.length[at])
        assert item["start"] == first - table.spans[item["trial"]][0]
        assert item["mask"].tolist() == [True] * length + [False] * (60 - length)
        for modality, of_table, valid in zip(NAMES, rows, table.valid, strict=True):
            assert torch.equal(item[modality], of_table[at])
            assert torch.equal(item[f"{modality}_valid"][:length], valid[first : first + length])
        assert torch.equal(item["labels"][:length], table.labels[first : first + length])
        assert torch.equal(item["labelled"][:length], table.labelled[first : first + length])
        time_s = store[item["trial"]].time_s[item["start"] : item["start"] + length]
        assert np.array_equal(item["time_s"][:length], time_s)


def test_a_short_trial_is_padded_and_masked(small):
    item = WindowDataset(small.store, ["face"], trials=["clip0"])[0]
    assert item["face"].shape == (300, 6)
    assert (item["face"].dtype, item["time_s"].dtype) == (torch.float32, torch.float64)
    for flags in (item["mask"], item["face_valid"]):
        assert flags[:100].all()
        assert not flags[100:].any()
    assert not item["face"][100:].any()
    assert (torch.diff(item["time_s"]) > 0).all()
    assert not item["labelled"].any()
    assert item["labels"].shape == (300, 2)


def test_rows_of_any_shape_and_type(store):
    rng = np.random.default_rng(0)
    crops, half = rng.integers(0, 256, (30, 4, 4, 3), np.uint8), rng.standard_normal((30, 5)).astype(np.float16)
    half[7, 2] = np.nan
    valid = np.arange(30) != 3
    arrays = {"crops": crops, "half": half, "crops_valid": valid, "half_valid": valid}
    store.write("a", {"time": np.arange(30) / 25, **arrays}, {})
    item = WindowDataset(store.path, ["crops", "half"], 20, 10)[-1]
    assert item["start"] == 10
    assert np.array_equal(item["crops"], crops[10:])
    item = WindowDataset(store.path, ["crops", "half"], 20, 10)[0]
    assert item["half"].dtype == torch.float32
    assert np.flatnonzero(~item["half_valid"].numpy()).tolist() == [3, 7]
    assert np.flatnonzero(~item["crops_valid"].numpy()).tolist() == [3]
    assert not item["half"][7].any()


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_read_the_same_however_they_are_started(windows, start):
    first = windows[0]  # opened here, before the workers are
    loader = DataLoader(windows, batch_size=4, num_workers=2, multiprocessing_context=start)
    batches = list(loader)
    assert sum(len(batch["trial"]) for batch in batches) == len(windows)
    assert batches[0]["face"].shape == (4, 60, 6)
    same(first, {key: value[0] for key, value in batches[0].items()})
    for at in range(4, 8):
        assert torch.equal(batches[1]["voice"][at - 4], windows[at]["voice"])


def test_it_may_be_pickled(windows):
    windows[0]
    content = pickle.dumps(windows)
    again = pickle.loads(content)
    assert len(again) == len(windows)
    for at in (0, -1):
        same(windows[at], again[at])
    with pytest.raises(IndexError, match=rf"window {len(windows)} of {len(windows)}"):
        windows[len(windows)]


def test_labels_of_another_length_cut_or_repeat(plant_small, tmp_path):
    small = plant_small(tmp_path)
    lines = small.labels("clip0").read_text().splitlines()  # 100 rows
    small.labels("clip0").write_text("\n".join([*lines, *lines[-3:]]) + "\n")
    small.labels("clip1").write_text("\n".join(lines[:104]) + "\n")
    windows = WindowDataset(small.store, ["face"], 60, 40, annotations=small.annotations, trials=["clip0", "clip1"])
    last = [item for item in windows if item["trial"] == "clip0"][-1]
    assert (last["start"], int(last["mask"].sum())) == (43, 60)
    assert last["face_valid"].tolist() == [True] * 57 + [False] * 3
    assert torch.equal(last["face"][57], last["face"][56])
    small.labels("clip0").write_text("\n".join(lines[:80]) + "\n")
    with pytest.raises(ValueError, match="trial 'clip0' has 79 label rows, but 100 frames"):
        WindowDataset(small.store, ["face"], annotations=small.annotations)
    windows = WindowDataset(small.store, ["face"], annotations=small.annotations, allow_length_difference=True)
    assert int(windows[0]["mask"].sum()) == 79


def test_what_cannot_be_used_is_named(plant_small, tmp_path):
    small = plant_small(tmp_path)
    small.labels("clip2").unlink()
    small.rewrite("clip1", voice=None, voice_valid=None)
    store = FeatureStore(small.store, mode="a")
    for folder in ("one", "two"):
        store.write(f"{folder}/clip4", small.rows("clip4"), {})
    store.write("b/clip5", small.rows("clip5"), {})
    store.remove("clip4")
    windows = WindowDataset(small.store, NAMES, annotations=small.annotations)
    assert windows.trials == ("clip0", "clip3", "clip5", "clip6", "clip7")
    assert windows.left_out == {
        "b/clip5": "its labels may be of b/clip5, clip5",
        "clip1": "the store has no voice, voice_valid of it",
        "clip2": f"{small.annotations} has no labels of it",
        "one/clip4": "its labels may be of one/clip4, two/clip4",
        "two/clip4": "its labels may be of one/clip4, two/clip4",
    }
    with pytest.raises(ValueError, match="1 trial cannot be used: clip1: the store has no voice"):
        WindowDataset(small.store, NAMES, trials=["clip0", "clip1"])
    with pytest.raises(ValueError, match=r"no trial is called clip99: did you mean clip\d\?"):
        WindowDataset(small.store, NAMES, trials=["clip99"])
    with pytest.raises(ValueError, match="cannot be used: b/clip5: the store has no faces"):
        WindowDataset(small.store, ["faces"])
    for wrong in ([], "face", ["face", "face"]):
        with pytest.raises(ValueError, match="modalities are a list of different features"):
            WindowDataset(small.store, wrong)
    with pytest.raises(ValueError, match="0 < hop_frames <= window_frames"):
        WindowDataset(small.store, NAMES, 100, 200)


def test_rows_of_two_makings_are_not_mixed(plant_small, tmp_path):
    small = plant_small(tmp_path)
    windows = WindowDataset(small.store, ["face"])
    windows[0]
    small.rewrite("clip0", voice=small.rows("clip0")["voice"] + 1)
    windows[0]  # not of its features
    small.rewrite("clip0", face=small.rows("clip0")["face"] + 1)
    with pytest.raises(StoreMismatch, match="made anew"):
        windows[0]
    FeatureStore(small.store, mode="a").remove("clip1")
    with pytest.raises(StoreMismatch, match=r"no complete trial 'clip1'.*was there when the data set was made"):
        windows[1]


def test_nothing_else_of_the_store_loads_torch():
    code = (
        "import sys, pkgutil, importlib, avfuse.features_store as room\n"
        "for module in pkgutil.walk_packages(room.__path__, room.__name__ + '.'):\n"
        "    if module.name != room.__name__ + '.torch_dataset':\n"
        "        importlib.import_module(module.name)\n"
        "print({'torch', 'xarray', 'pandas'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
