"""A step of fine-tuning on a GPU: loss, gradients and rows of the CPU, and the same numbers again."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from avfuse.encoders.engine import whole_float32
from avfuse.encoders.weights.resolve import WeightSource
from avfuse.features_store.store import FeatureStore
from avfuse.fusion.artifacts.folder import Description, Features
from avfuse.fusion.config import FinetuneConfig, RunConfig, TrainConfig
from avfuse.fusion.data.batches import Batches
from avfuse.fusion.data.dataset import load
from avfuse.fusion.data.matching import TrialSource
from avfuse.fusion.data.runtime import Room, deterministic
from avfuse.fusion.data.views import View
from avfuse.fusion.finetuning.learner import init_tuned, open_backbones
from avfuse.fusion.folds.manifest import Fold
from avfuse.fusion.models.concat import ConcatSettings
from avfuse.fusion.training.learner import seed_epoch

pytestmark = pytest.mark.gpu
CPU = torch.device("cpu")
NAMES = ("iresnet50", "logmel_vgg", "voice")
CONFIG = TrainConfig(
    preset="concat",
    modalities=NAMES,
    finetune=FinetuneConfig(),
    window_frames=24,
    hop_frames=16,
    batch_size=3,
    warmup_epochs=0,
    model=ConcatSettings(),
)
VIEWS = {"iresnet50": View("crop48", 512), "logmel_vgg": View("logmel", 128)}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two trials; of one the first faces are missing."""
    rng = np.random.default_rng(0)
    made = FeatureStore(tmp_path_factory.mktemp("gpu") / "features.zarr", mode="a")
    for name, rows in (("a", 40), ("b", 30)):
        starts = np.rint(np.arange(rows) / 30 * 100).astype(int)
        frames = rng.standard_normal((starts[-1] + 96, 64)).astype(np.float32)
        arrays = {
            "time": np.arange(rows) / 30,
            "crop48": rng.integers(0, 256, (rows, 48, 48, 3), np.uint8),
            "logmel": np.stack([frames[start : start + 96] for start in starts]),
            "voice": rng.standard_normal((rows, 3)).astype(np.float32),
        }
        flags = {f"{each}_valid": np.ones(rows, bool) for each in ("crop48", "logmel", "voice")}
        if name == "b":
            arrays["crop48"][:3], flags["crop48_valid"][:3] = 0, False
        made.write(name, {**arrays, **flags}, {"fingerprint": "gpu"})
    return made


def opened(store, device, device_bytes=1 << 40):
    rng = np.random.default_rng(1)
    sources = {
        name: TrialSource(name, name, rng.uniform(-1, 1, (rows, 2)).astype(np.float32), np.ones(rows, bool))
        for name, rows in (("a", 40), ("b", 30))
    }
    return load(store, sources, NAMES, Room(device, device_bytes, 1 << 40), views=VIEWS)


def stepped(store, device, precision="fp32", device_bytes=1 << 40):
    """Loss and gradients of one step with two groups released."""
    data = opened(store, device, device_bytes)
    sources = {n: WeightSource(n, "untrained", None, None, "none", untrained_seed=0) for n in VIEWS}
    described = Description(CONFIG, Fold(0, ("a",), ("b",)), {}, Features("", {}, (), {}), "", "")
    backbones = open_backbones(CONFIG, sources, device)
    run = RunConfig(device=str(device), precision=precision, micro_batch_rows=32)
    with deterministic(), whole_float32(precision):
        learner = init_tuned(CONFIG, run, data.shapes, device, described=described, backbones=backbones)
        learner.release(2, 0)
        batches = Batches(data, data.statistics(["a", "b"], CONFIG), CONFIG)
        batch = next(batches.all(data.windows(["a", "b"], CONFIG)))
        learner.model.train()
        seed_epoch(0, 1)
        loss = float(learner.step(batch))
        seen = learner.seen(data, ["b"])
    rows = [each.cpu() for each in seen.rows.gather(seen.windows(["b"], replace(CONFIG, window_frames=30)), 30)]
    return loss, [p.grad.float().cpu() for p in learner.parameters() if p.grad is not None], rows, data.place


def test_a_step_is_that_of_the_cpu(gpu, store):
    loss, gradients, rows, _ = stepped(store, CPU)
    own_loss, own, own_rows, place = stepped(store, gpu)
    assert place == str(gpu)
    assert own_loss == pytest.approx(loss, rel=1e-3)
    assert len(own) == len(gradients) > 10
    for one, other in zip(own, gradients, strict=True):
        assert (one - other).norm() <= 5e-3 * other.norm() + 1e-6
    for one, other in zip(own_rows, rows, strict=True):
        assert (one - other).norm() <= 1e-3 * other.norm()
    assert not own_rows[0][0, :3].any()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_numbers_again_wherever_the_views_lie(gpu, store, precision):
    """On the device, and in memory, from where each batch travels."""
    loss, gradients, rows, _ = stepped(store, gpu, precision)
    again, same, same_rows, place = stepped(store, gpu, precision, device_bytes=0)
    assert place == "cpu"
    assert again == loss
    assert all(torch.equal(one, other) for one, other in zip(gradients, same, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(rows, same_rows, strict=True))
    assert np.isfinite(loss)
