"""One step of the whole against plain autograd over all rows; windows that are cut alike; what is left out."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toys import description, face_backbone, sound_backbone, views

from avfuse.features_store.store import FeatureStore
from avfuse.fusion.config import FinetuneConfig, RunConfig, TrainConfig
from avfuse.fusion.data.batches import Batches, drop_modalities
from avfuse.fusion.data.dataset import load
from avfuse.fusion.data.matching import TrialSource
from avfuse.fusion.data.runtime import Room
from avfuse.fusion.data.views import View, take_rows
from avfuse.fusion.finetuning.learner import init_tuned
from avfuse.fusion.models.concat import ConcatSettings
from avfuse.fusion.settings import as_json, from_json, preset, with_settings

CPU = torch.device("cpu")
VIEWS = {"iresnet50": View("crop48", 6), "logmel_vgg": View("logmel", 5)}


def config(finetune=None, **more):
    settings = {"window_frames": 20, "hop_frames": 15, "batch_size": 4, "warmup_epochs": 0, **more}
    tuning = FinetuneConfig(**(finetune or {}))
    names = ("iresnet50", "voice", "logmel_vgg")
    return TrainConfig(preset="concat", modalities=names, finetune=tuning, model=ConcatSettings(), **settings)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    rng = np.random.default_rng(4)
    store = FeatureStore(tmp_path_factory.mktemp("step") / "features.zarr", mode="a")
    sources = {}
    for name, rows in (("a", 40), ("b", 12)):
        arrays, flags = views(rng, rows)
        if name == "b":
            arrays["crop48"][:3], flags["crop48_valid"][:5] = 0, False
        store.write(name, {**arrays, **flags}, {"fingerprint": "step"})
        sources[name] = TrialSource(name, name, rng.uniform(-1, 1, (rows, 2)).astype(np.float32), np.ones(rows, bool))
    return load(store, sources, ("iresnet50", "voice", "logmel_vgg"), Room(CPU, 1 << 40, 1 << 40), views=VIEWS)


def learner_of(data, settings, at_once=7, precision="fp32"):
    backbones = {"iresnet50": face_backbone(), "logmel_vgg": sound_backbone()}
    described = description(settings, ("a",), ("b",))
    run = RunConfig(device="cpu", micro_batch_rows=at_once, precision=precision)
    return init_tuned(settings, run, data.shapes, CPU, described=described, backbones=backbones)


def batch_of(data, settings):
    batches = Batches(data, data.statistics(list(data.sources), settings), settings)
    return next(batches.all(data.windows(data.sources, settings)))


@pytest.mark.parametrize("released", [0, 1, 2, 3])
@pytest.mark.parametrize("at_once", [7, 1000])
def test_the_step_is_that_of_plain_autograd(data, released, at_once):
    """The middle of the faces, nothing mirrored: rows of all windows in one pass, head, loss, backward."""
    settings = config({"flip": False, "crop": False})
    learner, plain = (learner_of(data, settings, at_once) for _ in range(2))
    batch = batch_of(data, settings)
    losses = []
    for each in (learner, plain):
        each.release(released, 0)
        each.model.train()
    torch.manual_seed(1)
    losses.append(learner.step(batch))
    torch.manual_seed(1)
    features = list(batch.features)
    for at, modality in ((0, "iresnet50"), (2, "logmel_vgg")):
        backbone, view = plain.backbones[modality], batch.views[modality]
        flat = torch.arange(batch.mask.numel())
        kept = batch.mask.clone()
        if at == 0:  # rows without a face have no picture, and no row
            shown = (take_rows(view, flat) != 0).flatten(1).any(1).view(batch.mask.shape)
            kept &= shown | batch.valid[0]
        rows = backbone.network(backbone.inputs(take_rows(view, flat)))
        features[at] = rows.view(*batch.mask.shape, -1) * kept[..., None]
    prediction = plain.model(features, batch.valid, batch.mask)
    loss = plain.loss(prediction, batch.labels, batch.loss_mask)
    plain.optimizer.zero_grad()
    loss.backward()
    assert torch.allclose(losses[0], loss, rtol=1e-5)
    found = {n: p.grad for n, p in enumerate(learner.parameters())}
    wanted = {n: p.grad for n, p in enumerate(plain.parameters())}
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        own = found[name]
        assert own is not None
        assert gradient is not None
        assert (own - gradient).norm() <= 1e-5 * gradient.norm() + 1e-8, name


def test_each_window_has_a_cut_of_its_own(data):
    """What the network is fed of one window is one cut of its faces; over the epochs they differ."""
    settings = config()
    learner, batch = learner_of(data, settings, at_once=1000), batch_of(data, settings)
    fed = []

    def prepared(faces):
        fed.append(faces)
        return faces.permute(0, 3, 1, 2).float() / 127.5 - 1

    learner.backbones = {
        "iresnet50": replace(learner.backbones["iresnet50"], prepare=prepared),
        "logmel_vgg": learner.backbones["logmel_vgg"],
    }
    torch.manual_seed(0)
    for _ in range(3):
        learner.see(batch)
    assert all(each.shape[1:] == (40, 40, 3) for each in fed)
    view = batch.views["iresnet50"]
    assert isinstance(view, torch.Tensor)
    places = []
    for each in fed:
        first = each[:20]  # the first window's
        cuts = [
            (y, x, flip)
            for y in range(9)
            for x in range(9)
            for flip in (False, True)
            if torch.equal(
                first, view[0, :, y : y + 40, x : x + 40].flip(2) if flip else view[0, :, y : y + 40, x : x + 40]
            )
        ]
        assert len(cuts) == 1
        places += cuts
    assert len(set(places)) == 3


def test_padding_and_dropped_windows_are_not_asked(data):
    settings = config(modality_dropout=0.9)
    learner = learner_of(data, settings)
    batch = drop_modalities(batch_of(data, settings), 0.99, torch.Generator().manual_seed(3))
    seen, _ = learner.see(batch)
    for at, dim in ((0, 6), (2, 5)):
        rows = seen.features[at]
        assert rows.shape == (*batch.mask.shape, dim)
        assert not rows[batch.features[at][..., 0] == 0].any()
    assert not seen.views


def test_bf16_keeps_float32_rows(data):
    settings = config()
    learner, batch = learner_of(data, settings, precision="bf16"), batch_of(data, settings)
    learner.model.train()
    loss = learner.step(batch)
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert all(p.dtype == torch.float32 and p.grad is not None for p in learner.parameters())


class TestSettings:
    """Those of the backbones beside those of the run and of its head."""

    def test_they_are_written_and_read(self):
        settings = config({"visual_groups": "a.*;b.*,c.*", "weights": ("iresnet50=ab12", "logmel_vgg=untrained 0")})
        assert from_json(as_json(settings)) == settings
        assert "finetune" not in as_json(preset("concat"))
        assert settings.untrained_networks == ["logmel_vgg"]

    def test_they_are_set_by_name(self):
        changed = with_settings(config(), {"backbone_lr": "1e-6", "flip": "false", "lr": "0.01"})
        assert changed.finetune is not None
        assert (changed.finetune.backbone_lr, changed.finetune.flip, changed.lr) == (1e-6, False, 0.01)
        with pytest.raises(ValueError, match="there is no setting 'backbone_lr'"):
            with_settings(preset("concat"), {"backbone_lr": "1"})
        with pytest.raises(ValueError, match="there is no setting 'weights'"):
            with_settings(config(), {"weights": "x"})

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"visual": "none", "audio": "none"}, "nothing is left to tune"),
            ({"visual": "resnet"}, "there are suzhang40, iresnet112, timm:NAME and none"),
            ({"audio": "wav"}, "there are vgg and none"),
            ({"backbone_lr": 0.0}, "backbone_lr must be above 0"),
            ({"audio": "none", "audio_groups": "x.*"}, "for a network that is 'none'"),
        ],
    )
    def test_wrong_ones_are_refused(self, changes, said):
        with pytest.raises(ValueError, match=said):
            FinetuneConfig(**changes)

    def test_what_is_tuned_is_a_modality(self):
        with pytest.raises(ValueError, match="logmel_vgg is tuned and must be among the modalities"):
            replace(config(), modalities=("iresnet50", "voice"))

    def test_views_are_read_in_their_place(self):
        assert config().inputs == ("crop48", "voice", "logmel")
        assert FinetuneConfig(visual="iresnet112", audio="none").views == {"iresnet50": "crop112"}
        assert FinetuneConfig(visual="timm:test_vit", audio="none").views == {"timm:test_vit": "crop112"}
