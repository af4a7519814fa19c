"""Faces cut and mirrored once a window; in evaluation each row as `extract` makes it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toys import crops, face_backbone, sound_backbone, views

from avfuse.encoders.embed import Embedder
from avfuse.encoders.weights.read import Network
from avfuse.features_store.store import FeatureStore
from avfuse.fusion.config import FinetuneConfig
from avfuse.fusion.data.dataset import load
from avfuse.fusion.data.matching import TrialSource
from avfuse.fusion.data.runtime import Room
from avfuse.fusion.data.views import View
from avfuse.fusion.finetuning.rows import draw_augmentation, embed_trials

CPU = torch.device("cpu")


def test_all_frames_of_a_window_are_cut_alike():
    backbone, config = face_backbone(), FinetuneConfig()
    torch.manual_seed(0)
    drawn = draw_augmentation(backbone, 48, 500, config)
    assert drawn.px == 40
    assert set(drawn.row.tolist()) == set(drawn.column.tolist()) == set(range(9))
    assert 0.4 < drawn.mirrored.float().mean() < 0.6
    faces = torch.from_numpy(crops(np.random.default_rng(0), 6))
    window = torch.tensor([0, 0, 1, 1, 2, 499])
    cut = drawn.cut(faces, window)
    for face, found, at in zip(faces, cut, window, strict=True):
        y, x = int(drawn.row[at]), int(drawn.column[at])
        wanted = face[y : y + 40, x : x + 40]
        assert torch.equal(found, wanted.flip(1) if drawn.mirrored[at] else wanted)


def test_the_middle_and_not_mirrored_without_either():
    config = FinetuneConfig(crop=False, flip=False)
    drawn = draw_augmentation(face_backbone(), 48, 3, config)
    faces = torch.from_numpy(crops(np.random.default_rng(0), 3))
    assert torch.equal(drawn.cut(faces, torch.arange(3)), faces[:, 4:44, 4:44])


def test_faces_of_112_px_are_only_mirrored():
    backbone = replace(face_backbone(), view="crop112", input_px=112)
    drawn = draw_augmentation(backbone, 112, 40, FinetuneConfig())
    assert drawn.px == 112
    assert not drawn.row.any()
    assert drawn.mirrored.any()
    other = draw_augmentation(replace(backbone, input_px=160), 112, 1, FinetuneConfig())  # timm enlarges them itself
    assert other.px == 112


@pytest.fixture
def store(tmp_path):
    rng = np.random.default_rng(2)
    made = FeatureStore(tmp_path / "features.zarr", mode="a")
    for name, rows in (("a", 30), ("b", 21), ("c", 10)):
        arrays, flags = views(rng, rows)
        flags["crop48_valid"][4:7] = False  # repeated, as by default
        if name == "b":
            arrays["crop48"][4:6] = 0  # as with --missing-face zero
            arrays["logmel"][:], flags["logmel_valid"][:] = 0, False  # and without sound
        made.write(name, {**arrays, **flags}, {"fingerprint": "rows"})
    return made


@pytest.mark.parametrize("room", [1 << 40, 0], ids=["in memory", "streamed"])
def test_rows_are_those_that_extract_makes(store, room):
    """But for rounding: it folds batch norms into the convolutions before them."""
    sources = {
        name: TrialSource(name, name, np.full((rows, 2), at, np.float32), np.ones(rows, bool))
        for at, (name, rows) in enumerate((("a", 30), ("b", 21), ("c", 12)))
    }
    views = {"iresnet50": View("crop48", 6), "logmel_vgg": View("logmel", 5)}
    modalities = ("iresnet50", "voice", "logmel_vgg")
    data = load(store, sources, modalities, Room(CPU, room, room), views=views)
    backbones = {"iresnet50": face_backbone(), "logmel_vgg": sound_backbone()}
    found = embed_trials(data, backbones, ["c", "b"], 8, "fp32")
    assert found.shapes == ((6,), (3,), (5,))
    assert found.spans == {"c": (0, 12), "b": (12, 21)}
    assert found.labels[:12].unique().tolist() == [2.0]
    assert not found.views
    tables = list(found.rows.gather(found.windows(["c", "b"], _whole()), 21))
    sound = Embedder(Network(sound_backbone().network, None, 5), CPU)
    face = face_backbone()
    with torch.no_grad():
        for at, name in enumerate(("c", "b")):
            rows = store[name].read("crop48")
            wanted = face.network(face.inputs(torch.from_numpy(rows))).numpy()
            spoken = sound.rows(store[name].read("logmel"))
            if name == "b":
                wanted[4:6], spoken[:] = 0, 0
            wanted, spoken = (
                np.concatenate([each, each[-1:], each[-1:]])[: sources[name].rows] for each in (wanted, spoken)
            )
            count = sources[name].rows
            np.testing.assert_allclose(tables[0][at, :count].numpy(), wanted, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(tables[2][at, :count].numpy(), spoken, rtol=1e-4, atol=1e-5)
            np.testing.assert_array_equal(tables[1][at, :10].numpy(), store[name].read("voice")[:10])
    assert not found.valid[0][12 + 4 : 12 + 7].any()
    assert found.valid[0][12 + 7 : 12 + 21].all()


def _whole():
    from avfuse.fusion.settings import preset

    return replace(preset("concat"), window_frames=21, hop_frames=21)
