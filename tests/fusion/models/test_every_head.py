"""One suite over all heads of the table: what each must do whatever it is made of.

A new head is in it by its entry in HEADS. Where its defaults are too slow for tests, SMALL says how to make it small;
what it cannot do is an exception here, which docs/heads.md must give in its section, in these words.
"""

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avfuse.features_store.labels.corpus import open_corpus
from avfuse.features_store.store import FeatureStore
from avfuse.fusion.artifacts.folder import write_description
from avfuse.fusion.artifacts.state import load_state
from avfuse.fusion.config import RunConfig
from avfuse.fusion.data.batches import Batches
from avfuse.fusion.describe import probe
from avfuse.fusion.folds.split import make_folds
from avfuse.fusion.models.table import HEADS, Output, build
from avfuse.fusion.runs.experiment import open_experiment
from avfuse.fusion.settings import preset
from avfuse.fusion.tasks.table import TASKS
from avfuse.fusion.training.learner import init_learner, train_epoch
from avfuse.fusion.training.stitch import predict
from avfuse.fusion.training.train import train

GUIDE = Path(__file__).parents[3] / "docs" / "heads.md"
MODALITIES = ("iresnet50", "vggish", "logmel_vgg")
RUN = RunConfig(device="cpu")
EVERY = list({head.network: name for name, head in reversed(HEADS.items())}.values())[::-1]  # one name a network

# Settings that make a head small; what is not named is as the preset has it.
SMALL: dict[str, dict[str, Any]] = {
    "avfuse": {"channels": (16, 16, 16), "hidden": 16, "heads": 2},
    "crossattn": {
        **{"lead_channels": (32, 32), "other_channels": (16, 16), "kernels": (3,)},
        **{"attention_width": 32, "hidden": 32},
    },
    "lfan": {"lead_channels": (32, 32), "other_channels": (16, 16), "narrow_channels": (16, 16), "kernel": 3},
    "can": {"lead_channels": (32, 32), "other_channels": (16, 16), "narrow_channels": (16, 16), "kernel": 3},
    "tcn-transformer": {
        **{"lead_channels": (32, 32), "other_channels": (16, 16), "kernel": 3, "layers": 1, "feed_forward": 64},
        **{"dropout": 0.1, "hidden": 32},
    },
    "expr-transformer": {"layers": 1, "heads": 4, "head_width": 16, "feed_forward": 64, "dropout": 0.1},
    "attention": {"hidden": 32, "dropout": 0.1},
    "mfn": {"hidden": 32, "memory": 32, "dropout": 0.1},
    "mctn": {"hidden": 16},
}
# What docs/heads.md says of heads that take rows which are not valid as the store has them.
AS_STORED = {
    "crossattn": "Rows that are not valid go through the TCNs as they are in the store",
    "concat": "Rows that are not valid are taken as they are in the store",
}
# What docs/heads.md says of heads that do not learn the planted law, which is `lag`.
DOES_NOT_LEARN = {
    "concat": "nor anything of the frames around",
    "crossattn": "**Cannot see** when the voice said something",
    "expr-transformer": "when a frame is | not known: no position code",
    "mctn": "cannot see what only another modality says",
}
# Epochs of heads that need more than the others to learn it.
EPOCHS = {"can": 10, "mfn": 10}
# Heads that take their time for it. Of most of these, too, `make test` asks that they overfit.
LEARN_SLOWLY = ("attention", "can", "crossattn", "gru", "lfan", "mctn", "mfn", "tcn-transformer")
OVERFIT_SLOWLY = ("can", "mctn", "tcn-transformer")


def some_slow(names):
    """Every head; those of these names are slow."""
    return [pytest.param(each, marks=pytest.mark.slow if each in names else ()) for each in EVERY]


@pytest.fixture(scope="module", params=EVERY)
def name(request):
    return request.param


def small_of(name, dropout=None, widths=(9, 5, 4), **training):
    """Settings of a head made small, and its modalities' shapes; `dropout` for all of its settings that are one."""
    config = preset(name)
    names = {each.name for each in fields(config.model)}
    changes = {key: value for key, value in SMALL.get(name, {}).items() if key in names}
    if dropout is not None:
        changes |= {key: dropout for key in names if "dropout" in key}
    training = {"task": "va", "batch_size": 4, "grad_clip": 0.0, **training}
    config = replace(config, modalities=MODALITIES, model=replace(config.model, **changes), **training)
    return config, [(width,) for width in widths]


def network_of(name, outputs=2, seed=0, **words):
    """A small network in float64, without dropout."""
    config, shapes = small_of(name, dropout=0.0, task="va" if outputs == 2 else "valence", **words)
    torch.manual_seed(seed)
    return build(config, shapes).double(), shapes


def inputs(shapes, windows=3, count=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = [torch.randn((windows, count, *shape), generator=generator, dtype=torch.float64) for shape in shapes]
    return features, [torch.ones(windows, count, dtype=torch.bool) for _ in shapes], torch.ones(windows, count).bool()


def answer(network, *batch):
    """Prediction and extra loss; what is drawn is drawn from the same numbers each time."""
    torch.manual_seed(7)
    found = network(*batch)
    return (found.prediction, found.extra_loss) if isinstance(found, Output) else (found, torch.zeros(()))


@pytest.mark.parametrize("outputs", [1, 2])
def test_the_shape_is_one_row_of_outputs_a_frame(name, outputs):
    network, shapes = network_of(name, outputs)
    for training in (True, False):
        found, extra = answer(network.train(training), *inputs(shapes))
        assert found.shape == (3, 20, outputs)
        assert extra.shape == ()
        assert found.isfinite().all()
        assert extra.isfinite()


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_padding_moves_nothing(name, training):
    """Neither how much of it there is, nor what is in it, nor what is said of its validity."""
    network, shapes = network_of(name)
    network.train(training)
    features, valid, mask = inputs(shapes)
    mask = torch.arange(20) < torch.tensor([[20], [13], [6]])
    clean = [rows * mask.unsqueeze(-1) for rows in features]
    expected, extra = answer(network, clean, [flags & mask for flags in valid], mask)
    longer = [torch.nn.functional.pad(rows, (0, 0, 0, 11)) for rows in clean]
    beyond = [torch.nn.functional.pad(flags & mask, (0, 11)) for flags in valid]
    after = torch.nn.functional.pad(mask, (0, 11))
    spoiled = [torch.where(after.unsqueeze(-1), rows, 50.0) for rows in longer]
    if "teacher_forcing" not in {each.name for each in fields(preset(name).model)} or not training:  # drawn a frame
        for rows in (longer, spoiled):
            for there in (beyond, [torch.ones_like(after) for _ in beyond]):
                found, also = answer(network, rows, there, after)
                torch.testing.assert_close(found[:, :20][mask], expected[mask], rtol=0, atol=1e-10)
                torch.testing.assert_close(also, extra, rtol=0, atol=1e-10, check_dtype=False)
    other = [torch.where(mask.unsqueeze(-1), rows, 50.0) for rows in clean]
    found, also = answer(network, other, valid, mask)
    torch.testing.assert_close(found[mask], expected[mask], rtol=0, atol=1e-10)
    torch.testing.assert_close(also, extra, rtol=0, atol=1e-10, check_dtype=False)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_what_is_in_rows_that_are_not_valid_moves_nothing(name, training):
    network, shapes = network_of(name)
    network.train(training)
    features, valid, mask = inputs(shapes)
    valid = [torch.rand(3, 20, generator=torch.Generator().manual_seed(5 + m)) < 0.6 for m, _ in enumerate(valid)]
    valid[-1][2] = False  # and a modality that is not there at all
    other = [torch.where(there.unsqueeze(-1), rows, 50.0) for rows, there in zip(features, valid, strict=True)]
    expected, extra = answer(network, features, valid, mask)
    found, also = answer(network, other, valid, mask)
    assert expected.isfinite().all()
    if name in AS_STORED:
        assert (found - expected).abs().max() > 1e-6
        assert AS_STORED[name] in section(name)
        return
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(also, extra, rtol=0, atol=1e-10)


def test_windows_do_not_see_each_other(name):
    """In another order, and alone, each gets what it got."""
    network, shapes = network_of(name)
    features, valid, mask = inputs(shapes)
    order = [2, 0, 1]
    for training in (True, False):  # statistics of a batch are the same in any order
        expected, _ = answer(network.train(training), features, valid, mask)
        drawn = training and "teacher_forcing" in {each.name for each in fields(preset(name).model)}
        if not drawn:
            found, _ = answer(network, [r[order] for r in features], [v[order] for v in valid], mask[order])
            torch.testing.assert_close(found, expected[order], rtol=0, atol=1e-10)
    for window in range(3):
        at = slice(window, window + 1)
        found, _ = answer(network.eval(), [r[at] for r in features], [v[at] for v in valid], mask[at])
        torch.testing.assert_close(found, expected[at], rtol=0, atol=1e-10)


def test_an_output_is_moved_by_what_the_probe_says(name):
    """Rows that are changed move outputs as far as the gradient says, before and after, and no further."""
    network, shapes = network_of(name)
    network.eval().requires_grad_(False)
    frames, at = 64, 32
    reaches = probe(network, shapes, frames)
    features, valid, mask = inputs(shapes, windows=1, count=frames)
    expected, _ = answer(network, features, valid, mask)
    for number, reach in enumerate(reaches):
        other = [rows.clone() for rows in features]
        other[number][:, at] += 3
        found, _ = answer(network, other, valid, mask)
        moved = (found != expected)[0].any(-1).nonzero().flatten().tolist()
        if reach is None:
            assert moved == []
            continue
        past = frames if reach.past_frames is None else reach.past_frames
        future = frames if reach.future_frames is None else reach.future_frames
        assert moved
        assert moved[0] >= at - future
        assert moved[-1] <= at + past


def test_gradient_reaches_every_parameter(name):
    network, shapes = network_of(name)
    prediction, extra = answer(network.train(), *inputs(shapes))
    (prediction.square().sum() + extra).backward()
    without = [key for key, each in network.named_parameters() if each.grad is None or not each.grad.any()]
    assert without == []
    assert all(each.grad.isfinite().all() for each in network.parameters() if each.grad is not None)


def run_of(planted, folder, config):
    """Train fold 0 in a folder, on from what is there; how it ended."""
    store, corpus = FeatureStore(planted.store), open_corpus(planted.annotations)
    opened = open_experiment(store, corpus, make_folds(corpus), [0], config, RUN, allow_other_features=False)
    described = opened.describe(config, 0)
    if not folder.exists():
        write_description(folder, described, {})
    return train(described, opened.data, RUN, folder)


@pytest.mark.parametrize("name", some_slow(OVERFIT_SLOWLY))
def test_overfits_two_trials(name, make_data, plain_ccc):
    """Noise, and labels that have nothing to do with it, by the steps of training itself."""
    config, shapes = small_of(name, dropout=0.0, widths=(64, 32, 32))
    config = replace(config, lr=1e-2, weight_decay=0.0, window_frames=30, hop_frames=30, modality_dropout=0.0)
    rng = np.random.default_rng(0)
    trials = {
        trial: {
            m: rng.standard_normal((30, *shape)).astype("f4")
            for m, shape in zip(config.modalities, shapes, strict=True)
        }
        for trial in ("one", "two")
    }
    labels = {trial: np.sin(rng.uniform(1, 3, 2) + np.arange(30)[:, None] / rng.uniform(3, 6, 2)) for trial in trials}
    data = make_data(trials, labels)
    batches, windows = Batches(data, data.statistics(list(trials), config), config), data.windows(trials, config)
    learner, best = init_learner(replace(config, warmup_epochs=0), RUN, shapes, torch.device("cpu")), 0.0
    truth = np.concatenate(list(labels.values()))
    for epoch in range(1, 301):
        train_epoch(learner, batches, windows, epoch)
        if epoch % 20 == 0:
            found = predict(learner.model, data, batches, windows, TASKS["va"], "fp32")
            best = np.mean([plain_ccc(found[:, column], truth[:, column]) for column in range(2)])
            if best > 0.98:
                break
    assert best > 0.98


@pytest.fixture(scope="module")
def planted(make_planted):
    return make_planted(law="lag", widths=(64, 32, 32), trials=32, rows=(500, 600))


@pytest.mark.parametrize("name", some_slow(LEARN_SLOWLY))
def test_learns_what_is_planted(name, planted, tmp_path):
    schedule = {"lr": 5e-3, "warmup_epochs": 1, "plateau_patience": 0, "plateau_factor": 0.3}
    schedule["max_epochs"] = 3 if name in DOES_NOT_LEARN else EPOCHS.get(name, 7)
    config, _ = small_of(name, **schedule, batch_size=8, window_frames=100, hop_frames=100)
    p = run_of(planted, tmp_path / "run", config).report.p
    if name in DOES_NOT_LEARN:
        assert p < 0.9  # else it is no exception any more
        assert DOES_NOT_LEARN[name] in section(name)
    else:
        assert p >= 0.85


@pytest.mark.parametrize("name", some_slow((*LEARN_SLOWLY, "expr-transformer")))
def test_a_run_that_goes_on_is_the_run_that_never_stopped(name, make_planted, tmp_path):
    planted = make_planted(widths=(9, 5, 4), trials=6, rows=(40, 60))
    config, _ = small_of(name, window_frames=30, hop_frames=20, batch_size=3, warmup_epochs=1)
    run_of(planted, tmp_path / "whole", replace(config, max_epochs=3))
    for epochs in (1, 3):
        run_of(planted, tmp_path / "parts", replace(config, max_epochs=epochs))
    whole, parts = (load_state(tmp_path / folder) for folder in ("whole", "parts"))
    assert whole is not None
    assert parts is not None
    assert [{**row, "seconds": 0} for row in whole.history] == [{**row, "seconds": 0} for row in parts.history]
    assert len(whole.history) == 3
    for one, other in ((whole.model, parts.model), (whole.best, parts.best)):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    moments = [
        [value for each in state.optimizer["state"].values() for value in each.values()] for state in (whole, parts)
    ]
    assert len(moments[0]) > 0
    assert all(torch.equal(one, other) for one, other in zip(*moments, strict=True))


def section(name):
    """What docs/heads.md says of a head."""
    found = re.search(rf"^## `{re.escape(name)}`.*?(?=^## |\Z)", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None, f"docs/heads.md has no section ## `{name}`: …"
    return " ".join(found[0].split())
