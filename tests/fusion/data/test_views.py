"""Views of the store: log-mel patches put back to their spectrogram and cut again, bit for bit; crops as they are."""

import numpy as np
import pytest
import torch

from avfuse.features_store.store import FeatureStore
from avfuse.fusion.config import FinetuneConfig, TrainConfig
from avfuse.fusion.data.batches import Batches, drop_modalities
from avfuse.fusion.data.dataset import load
from avfuse.fusion.data.matching import TrialSource
from avfuse.fusion.data.runtime import Room
from avfuse.fusion.data.views import PatchTable, View, join_patches, spectrogram_bytes, take_rows
from avfuse.fusion.data.windows import ResidentRows, StreamedRows
from avfuse.fusion.models.concat import ConcatSettings

CPU = torch.device("cpu")
COUNTS = {"a": 70, "b": 40, "c": 1}
VIEWS = {"iresnet50": View("crop48", 6), "logmel_vgg": View("logmel", 5)}


def cut(frames, starts):
    return np.stack([frames[start : start + 96] for start in starts])


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    rng = np.random.default_rng(0)
    made = FeatureStore(tmp_path_factory.mktemp("views") / "features.zarr", mode="a")
    for name, rows in COUNTS.items():
        time_s = 0.4 + np.arange(rows) / 30
        starts = np.rint(time_s * 100).astype(int) - 40
        arrays = {
            "time": time_s,
            "crop48": rng.integers(0, 256, (rows, 48, 48, 3), np.uint8),
            "logmel": cut(rng.standard_normal((starts[-1] + 96, 64)).astype(np.float32), starts),
            "voice": rng.standard_normal((rows, 3)).astype(np.float32),
        }
        flags = {f"{each}_valid": np.ones(rows, bool) for each in ("crop48", "logmel", "voice")}
        if name == "b":  # no face at first, and the last patch repeated at the end, as where the sound ends
            arrays["crop48"][:3], flags["crop48_valid"][:3] = 0, False
            arrays["logmel"][30:] = arrays["logmel"][29]
            flags["logmel_valid"][30:] = False
        made.write(name, {**arrays, **flags}, {"fingerprint": "views"})
    return made


def opened(store, room=1 << 40, **lengths):
    sources = {}
    for name, rows in {**COUNTS, **lengths}.items():
        sources[name] = TrialSource(name, name, np.zeros((rows, 2), np.float32), np.ones(rows, bool))
    modalities = ("iresnet50", "voice", "logmel_vgg")
    return load(store, sources, modalities, Room(CPU, room, room), views=VIEWS)


def config(**more):
    finetune = FinetuneConfig()
    names = ("iresnet50", "voice", "logmel_vgg")
    settings = {"window_frames": 16, "hop_frames": 11, "batch_size": 4, **more}
    return TrainConfig(preset="concat", modalities=names, finetune=finetune, model=ConcatSettings(), **settings)


@pytest.mark.parametrize("name", COUNTS)
def test_patches_come_back_bit_for_bit(store, name):
    trial = store[name]
    frames, firsts, broken = join_patches(trial, "logmel", COUNTS[name])
    assert np.array_equal(cut(frames, firsts), trial.read("logmel"))
    assert not broken.any()


def test_one_second_of_patches_is_one_second_of_frames(store):
    frames, _, _ = join_patches(store["a"], "logmel", 70)
    assert len(frames) == round(69 / 30 * 100) + 96
    assert spectrogram_bytes(store["a"], "logmel", 70) == frames.nbytes
    # Of those that repeat the last patch nothing is added.
    repeated, firsts, _ = join_patches(store["b"], "logmel", 40)
    assert len(repeated) == round(29 / 30 * 100) + 96
    assert (firsts[29:] == firsts[29]).all()


def test_a_patch_that_does_not_agree_is_kept_whole(tmp_path):
    rng = np.random.default_rng(1)
    time_s = np.arange(600) / 25
    patches = cut(rng.standard_normal((2600, 64)).astype(np.float32), np.rint(time_s * 100).astype(int))
    patches[100] += 1e-3  # of other numbers
    patches[512, 50, 3] = np.nan  # at the beginning of a block
    patches[300] = patches[299]  # what other programs may repeat
    store = FeatureStore(tmp_path / "s.zarr", mode="a")
    flags = {"logmel_valid": np.ones(600, bool)}
    store.write("a", {"time": time_s, "logmel": patches, **flags}, {"fingerprint": "odd"})
    frames, firsts, broken = join_patches(store["a"], "logmel", 600)
    wanted = patches.copy()
    wanted[512] = 0
    assert np.array_equal(cut(frames, firsts), wanted)
    assert np.flatnonzero(broken).tolist() == [512]
    assert len(frames) < 600 * 4 + 96 * 8


@pytest.mark.parametrize("room", [1 << 40, 0], ids=["in memory", "streamed"])
def test_windows_of_views_are_the_stored_rows(store, room):
    data = opened(store, room, b=44)  # four label rows more than there are rows
    assert isinstance(data.rows, StreamedRows if room == 0 else ResidentRows)
    assert data.shapes == ((6,), (3,), (5,))
    windows = data.windows(COUNTS, config())
    batches = list(Batches(data, data.statistics(list(COUNTS), config()), config()).all(windows))
    starts = windows.start.split(4)
    assert sum(len(batch.mask) for batch in batches) == len(windows) > 8
    for batch, first in zip(batches, starts, strict=True):
        assert batch.features[0].shape == (*batch.mask.shape, 1)
        assert torch.equal(batch.features[0][..., 0], batch.mask.float())
        assert batch.features[1].shape == (*batch.mask.shape, 3)
        for window, start in enumerate(first.tolist()):
            name = next(n for n, (begin, rows) in data.spans.items() if begin <= start < begin + rows)
            at = start - data.spans[name][0]
            for modality, view in batch.views.items():
                stored = store[name].read(VIEWS[modality].stored)
                rows = torch.arange(int(batch.mask[window].sum()))
                found = take_rows(view, rows + window * batch.mask.shape[1])
                assert found.numpy().tobytes() == stored[np.minimum(at + rows.numpy(), len(stored) - 1)].tobytes()


def test_patches_take_a_fraction_of_their_memory(store):
    data = opened(store)
    assert isinstance(data.rows, ResidentRows)
    table = data.rows.tables[2]
    assert isinstance(table, PatchTable)
    assert table.frames.numel() < sum(COUNTS.values()) * 96 * 64 / 10
    # Enough memory for the spectrogram is enough, though it is not for the patches.
    needed = sum(COUNTS.values()) * (48 * 48 * 3 + 3 * 4) + table.frames.numel() * 4
    assert opened(store, needed).place == "cpu"
    assert opened(store, 4 * needed // 5).place == "store"


def test_a_view_has_the_statistics_that_change_nothing(store):
    statistics = opened(store).statistics(["a", "b"], config())
    assert statistics["iresnet50"].mean.tolist() == [0.0] * 6
    assert statistics["logmel_vgg"].std.tolist() == [1.0] * 5
    assert statistics["voice"].std[0] == pytest.approx(1.0, abs=0.2)


def test_flags_of_views_are_those_of_the_store(store):
    data = opened(store)
    first = data.spans["b"][0]
    assert (~data.valid[0]).nonzero().flatten().tolist() == [first, first + 1, first + 2, len(data.labels) - 1]
    assert data.valid[2][first : first + 40].sum() == 30


def test_a_modality_that_is_dropped_is_not_to_be_made(store):
    data = opened(store)
    batches = Batches(data, data.statistics(list(COUNTS), config()), config())
    batch = next(batches.all(data.windows(COUNTS, config())))
    dropped = drop_modalities(batch, 0.99, torch.Generator().manual_seed(0))
    assert dropped.views is batch.views
    missing = [(~flags.any(1) & batch.mask.any(1)) for flags in dropped.valid]
    for features, windows in zip(dropped.features, missing, strict=True):
        assert not features[windows].any()
    assert any(windows.any() for windows in missing)
