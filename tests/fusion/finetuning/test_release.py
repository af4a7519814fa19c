"""Which parameters learn in which epoch, what stays as it is, and that a resumed run learns the same."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from toys import GROUPS, description, equal_tensors, face_backbone, sound_backbone, views

from avfuse.features_store.store import FeatureStore
from avfuse.fusion.artifacts.state import load_state, read_metrics, read_weights
from avfuse.fusion.config import FinetuneConfig, RunConfig, TrainConfig
from avfuse.fusion.data.dataset import load
from avfuse.fusion.data.matching import TrialSource
from avfuse.fusion.data.runtime import Room
from avfuse.fusion.data.views import View
from avfuse.fusion.finetuning import learner as tuned
from avfuse.fusion.finetuning.learner import TunedLearner, init_tuned
from avfuse.fusion.models.concat import ConcatSettings
from avfuse.fusion.training.learner import Watcher, warm_up
from avfuse.fusion.training.train import train, why_stop

CPU = torch.device("cpu")
TRAIN, VALIDATION = ("a", "b", "c"), ("d",)
VIEWS = {"iresnet50": View("crop48", 6), "logmel_vgg": View("logmel", 5)}
# Every epoch without a better P is a reduction, and one of them falls below the floor.
FAST = {
    "window_frames": 20,
    "hop_frames": 15,
    "batch_size": 2,
    "warmup_epochs": 1,
    "plateau_patience": 0,
    "lr": 1e-3,
    "min_lr": 1e-3,
    "early_stop": 100,
    "max_epochs": 30,
}
RUN = RunConfig(device="cpu", micro_batch_rows=16)


def config(finetune=None, **more):
    tuning = FinetuneConfig(**{"backbone_lr": 2e-3, "release_epochs": 1, **(finetune or {})})
    settings = {**FAST, **more}
    names = ("iresnet50", "voice", "logmel_vgg")
    return TrainConfig(preset="concat", modalities=names, finetune=tuning, model=ConcatSettings(), **settings)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    rng = np.random.default_rng(4)
    store = FeatureStore(tmp_path_factory.mktemp("release") / "features.zarr", mode="a")
    sources = {}
    for name in (*TRAIN, *VALIDATION):
        rows = 40
        arrays, flags = views(rng, rows)
        store.write(name, {**arrays, **flags}, {"fingerprint": "release"})
        labels = rng.uniform(-1, 1, (rows, 2)).astype(np.float32)
        sources[name] = TrialSource(name, name, labels, np.ones(rows, bool))
    return load(store, sources, ("iresnet50", "voice", "logmel_vgg"), Room(CPU, 1 << 40, 1 << 40), views=VIEWS)


def describe(data, settings):
    described = description(settings, TRAIN, VALIDATION)
    return replace(described, statistics=data.statistics(TRAIN, settings))


def init(described, kept=None):
    """What makes the learner, with new backbones; `kept` gets it."""

    def make(*words):
        backbones = {"iresnet50": face_backbone(), "logmel_vgg": sound_backbone()}
        made = init_tuned(*words, described=described, backbones=backbones)
        if kept is not None:
            kept.append(made)
        return made

    return make


class Tensors(Watcher):
    """The tensors of both backbones and the head after each epoch, and how many groups were released in it."""

    def __init__(self, kept):
        self.kept, self.states, self.rows = kept, [], []

    def epoch(self, row, best):
        """After each epoch, before the next may begin from better weights."""
        (learner,) = self.kept
        state = {f"head.{name}": value.clone() for name, value in learner.model.state_dict().items()}
        for modality, backbone in learner.backbones.items():
            state |= {f"{modality}.{n}": value.clone() for n, value in backbone.network.state_dict().items()}
        self.states.append(state)
        self.rows.append(dict(row))


def run(data, settings, folder, watch=True):
    kept: list[TunedLearner] = []
    described = describe(data, settings)
    watcher = Tensors(kept)
    folder.mkdir(exist_ok=True)
    outcome = train(described, data, RUN, folder, [watcher] if watch else [], init(described, kept))
    return outcome, watcher, kept[0]


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A run through every release, where the state after an epoch is never taken back."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return *run(data, config(restore_best=False), folder), folder


def test_what_moves_in_which_epoch_is_the_schedules(whole):
    """Of every group; what is frozen is bit-equal, and batch norms never move, those of released layers' neither."""
    outcome, watcher, learner, _ = whole
    members = {f"iresnet50.{n}": at for at, names in enumerate(learner.backbones["iresnet50"].members()) for n in names}
    members |= {
        f"logmel_vgg.{n}": at for at, names in enumerate(learner.backbones["logmel_vgg"].members()) for n in names
    }
    begin = {f"iresnet50.{n}": v for n, v in face_backbone().network.state_dict().items()}
    begin |= {f"logmel_vgg.{n}": v for n, v in sound_backbone().network.state_dict().items()}
    before = {**watcher.states[0], **begin}
    seen = set()
    best = dict(before)
    for row, state in zip(watcher.rows, watcher.states, strict=True):
        released = int(row["released"])
        if released not in seen:  # from the best state until then
            best_epoch = max(watcher.rows[: row["epoch"] - 1], key=lambda each: each["P"], default=None)
            before = before if best_epoch is None else watcher.states[best_epoch["epoch"] - 1]
        seen.add(released)
        still = equal_tensors(state, before)
        moving = {name for name, at in members.items() if at < released}
        assert not moving & still, row["epoch"]
        frozen = {name for name in state if not name.startswith("head.")} - moving
        assert frozen <= still
        assert frozen <= equal_tensors(state, {**state, **begin})
        before = state
    assert seen == {1, 2, 3}
    statistics = [name for name in begin if "running" in name or "num_batches" in name]
    assert statistics
    assert all(torch.equal(watcher.states[-1][name], begin[name]) for name in statistics)
    assert best.keys() == watcher.states[-1].keys()
    assert outcome.reason == "the learning rate fell below 0.001, and no group is left to release"


def test_a_release_begins_anew(whole):
    """Optimiser, warm-up and plateau rule; the next is due when the learning rate has fallen below min_lr."""
    _, watcher, _, folder = whole
    rows = watcher.rows
    for before, after in pairwise(rows):
        if after["released"] != before["released"]:
            assert after["released"] == before["released"] + 1
            assert after["lr"] == pytest.approx(1e-3)  # the warm-up of one epoch has ended there
            assert after["backbone_lr"] == pytest.approx(2e-3)
            # Not a better P than any before: the plateau rule has reduced after it.
            assert before["P"] <= max(row["P"] for row in rows[: before["epoch"]])
    state = load_state(folder)
    assert state is not None
    last = [row["released"] for row in rows].index(3)
    steps = int(next(iter(state.optimizer["state"].values()))["step"])
    assert steps == (len(rows) - last) * 5  # nine windows, two a step


def test_best_p_is_inherited(whole):
    """The plateau rule of a release does not take a worse P for a better one."""
    _, watcher, _, folder = whole
    state = load_state(folder)
    assert state is not None
    assert state.plateau["best"] == max(row["P"] for row in watcher.rows)


def test_the_folder_holds_the_best_epoch(whole):
    _, watcher, _, folder = whole
    best = read_metrics(folder)
    assert best["P"] == max(row["P"] for row in watcher.rows)
    assert best["released"] == watcher.rows[best["epoch"] - 1]["released"]
    assert "lr" not in best
    assert "backbone_lr" not in best
    head = read_weights(folder)
    state = watcher.states[best["epoch"] - 1]
    assert all(torch.equal(value, state[f"head.{name}"]) for name, value in head.items())
    for modality in ("iresnet50", "logmel_vgg"):
        written = load_file(folder / f"{modality}.safetensors")
        assert equal_tensors(written, {n.removeprefix(f"{modality}."): v for n, v in state.items()}) == set(written)


@pytest.mark.parametrize(
    "stop_at", [pytest.param(1, marks=pytest.mark.slow), 4, pytest.param(7, marks=pytest.mark.slow)]
)
def test_a_run_that_goes_on_is_the_uninterrupted_one(data, whole, tmp_path, stop_at):
    """Also where a release is due, or has been: bit for bit."""
    outcome, watcher, _, folder = whole
    settings = config(restore_best=False)
    run(data, replace(settings, max_epochs=stop_at), tmp_path / "run")
    again, later, _ = run(data, settings, tmp_path / "run")
    assert len(later.rows) == len(watcher.rows) - stop_at
    for one, other in zip(later.states, watcher.states[stop_at:], strict=True):
        assert equal_tensors(one, other) == set(one)
    drop = ("seconds",)
    assert [{k: v for k, v in row.items() if k not in drop} for row in again.history] == [
        {k: v for k, v in row.items() if k not in drop} for row in outcome.history
    ]
    assert again.reason == outcome.reason
    assert read_metrics(tmp_path / "run") == read_metrics(folder)


def test_the_best_state_comes_back_after_a_worse_epoch(data, tmp_path):
    outcome, watcher, learner = run(data, config({"releases": 2}), tmp_path / "run")
    best = outcome.history[0]["P"]
    for row, state, before in zip(watcher.rows[1:], watcher.states[1:], watcher.states, strict=False):
        if row["P"] <= best:
            assert equal_tensors(state, before) == set(state)
        best = max(best, row["P"])
    assert {row["released"] for row in watcher.rows} == {1, 2}
    assert not any(p.requires_grad for p in learner.backbones["iresnet50"].network[2].parameters())


def test_nothing_is_released_without_releases(data, tmp_path):
    """A frozen network, under the same protocol."""
    outcome, watcher, learner = run(data, config({"releases": 0}, max_epochs=3), tmp_path / "run")
    assert {row["released"] for row in watcher.rows} == {0}
    assert outcome.parameters == sum(each.numel() for each in learner.model.parameters())
    same = equal_tensors(watcher.states[0], watcher.states[-1])
    assert {name for name in watcher.states[0] if name.startswith(("iresnet50", "logmel_vgg"))} <= same


def test_the_next_release_waits(data, tmp_path):
    """At least `release_epochs` after the last, however soon the learning rate has fallen."""
    _, watcher, _ = run(data, config({"release_epochs": 4, "releases": 2}, max_epochs=7), tmp_path / "run")
    assert [row["released"] for row in watcher.rows][:4] == [1] * 4
    assert {row["released"] for row in watcher.rows} == {1, 2}


def learner_of(data, settings):
    described = describe(data, settings)
    return init(described)(settings, RUN, data.shapes, CPU)


def test_warm_up_has_two_learning_rates(data):
    settings = config(warmup_epochs=2)
    learner = learner_of(data, settings)
    assert isinstance(learner, TunedLearner)
    for step, wanted in ((0, 0.25), (3, 1.0)):
        warm_up(settings, learner.optimizer, step, 2)
        assert learner.columns()["lr"] == pytest.approx(1e-3 * wanted)
        assert learner.columns()["backbone_lr"] == pytest.approx(2e-3 * wanted)


def test_s3s_schedule_releases_after_four_reductions(data):
    """lr 1e-5, 5 epochs of warm-up, patience 5, floor 1e-8: 5 + 4 · 6 epochs without a better P."""
    usual = TrainConfig(preset="concat", modalities=config().modalities, model=ConcatSettings()).warmup_epochs
    settings = replace(
        config({"release_epochs": 5}), lr=1e-5, min_lr=1e-8, plateau_patience=5, warmup_epochs=usual, early_stop=50
    )
    learner = learner_of(data, settings)
    history: list[dict[str, Any]] = []
    best = learner.weights()
    while learner.released == 1:
        history.append({"epoch": len(history) + 1, "P": 0.5 - 0.001 * len(history), "released": 1})
        learner.step_scheduler(history[-1]["P"], warming_up=len(history) <= usual)
        best = learner.begin_epoch(history, best)
        assert len(history) < 100
    assert len(history) == 5 + 4 * 6
    assert learner.plateau.best == 0.5
    assert learner.lr == 1e-5
    assert {name for name in best if ":" in name} == set(learner._tensors())


def test_a_release_begins_a_new_count_of_epochs_without_a_better_p():
    settings = config(early_stop=3)
    rows = [{"epoch": 1, "P": 0.5, "released": 1}, *({"epoch": e, "P": 0.1, "released": 1} for e in (2, 3))]
    assert why_stop(settings, rows) == ""
    rows.append({"epoch": 4, "P": 0.1, "released": 2})
    assert why_stop(settings, rows) == ""
    rows += [{"epoch": e, "P": 0.1, "released": 2} for e in (5, 6)]
    assert why_stop(settings, rows) == "no better P in 3 epochs"


def test_weights_of_another_release_are_refused(data):
    learner = learner_of(data, config())
    saved = learner.weights()
    learner.release(2, 1)
    with pytest.raises(RuntimeError, match="released tensors"):
        learner.load(saved)


def test_a_network_with_fewer_groups_stays_released(data):
    """Two groups of sound, three of faces: the third release is the face's alone."""
    learner = learner_of(data, config())
    assert learner.most_released == len(GROUPS) == 3
    learner.release(3, 0)
    assert all(p.requires_grad for n, p in learner.backbones["logmel_vgg"].network.named_parameters())


def test_files_of_networks(tmp_path):
    assert tuned.network_file(tmp_path, "iresnet50") == tmp_path / "iresnet50.safetensors"
    assert tuned.network_file(tmp_path, "timm:test_vit") == tmp_path / "timm" / "test_vit"
