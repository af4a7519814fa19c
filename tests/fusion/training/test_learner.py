from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.optim import Adam, AdamW

from avfuse.fusion.config import RunConfig, TrainConfig
from avfuse.fusion.data.batches import Batches
from avfuse.fusion.settings import preset
from avfuse.fusion.training.learner import Watcher, init_learner, train_epoch, warm_up
from avfuse.fusion.training.train import best_row, why_stop

SMALL = replace(preset("concat"), modalities=("face",), window_frames=10, hop_frames=10, batch_size=2, lr=1e-3)


def learner_of(config: TrainConfig):
    return init_learner(config, RunConfig(device="cpu"), [(3,)], torch.device("cpu"))


def rates(config: TrainConfig, scores: list[float], steps: int = 4) -> list[float]:
    """Learning rate of the last step of each epoch, whose validation P were `scores`."""
    learner, found = learner_of(config), []
    for epoch, p in enumerate(scores, 1):
        for step in range(steps):
            warm_up(config, learner.optimizer, (epoch - 1) * steps + step, steps)
        found.append(learner.lr)
        learner.step_scheduler(p, warming_up=epoch <= config.warmup_epochs)
    return found


def history_of(scores: list[float]) -> list[dict[str, float]]:
    return [{"epoch": epoch, "P": p} for epoch, p in enumerate(scores, 1)]


def test_warm_up_is_linear_step_by_step_and_reaches_lr(make_data):
    """As training itself does it: 7 steps an epoch, 5 epochs of warm-up, 2 after it."""
    data = make_data({"a": {"face": np.random.default_rng(0).standard_normal((140, 3)).astype(np.float32)}})
    batches = Batches(data, data.statistics(["a"], SMALL), SMALL)
    learner, seen = learner_of(SMALL), []

    class Steps(Watcher):
        def step(self, epoch, step, steps, loss):
            seen.append((steps, learner.lr))

    for epoch in range(1, 8):
        train_epoch(learner, batches, data.windows(["a"], SMALL), epoch, [Steps()])
        learner.step_scheduler(float(epoch), warming_up=epoch <= SMALL.warmup_epochs)
    assert {steps for steps, _ in seen} == {7}
    expected = [1e-3 * min(step, 35) / 35 for step in range(1, 50)]
    assert [lr for _, lr in seen] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("epochs", [0, 1, 3])
def test_warm_up_is_as_long_as_it_is_set(epochs):
    found = rates(replace(SMALL, warmup_epochs=epochs), [float(n) for n in range(5)])
    assert found == pytest.approx([1e-3 * min(epoch / max(epochs, 1), 1) if epochs else 1e-3 for epoch in range(1, 6)])


def test_the_rate_falls_after_the_sixth_epoch_without_a_better_p():
    scores = [0.1, 0.2, 0.3, 0.4, 0.5, *[0.4] * 12]  # five of warm-up, then none is better
    found = rates(SMALL, scores)
    assert found[4:11] == pytest.approx([1e-3] * 7)  # the last of warm-up, and epochs 6 to 11
    assert found[11:17] == pytest.approx([1e-4] * 6)  # 6 bad epochs: 12 to 17
    assert rates(SMALL, [*scores, 0.4])[17] == pytest.approx(1e-5)


def test_the_best_of_the_warm_up_is_to_be_beaten_but_its_bad_epochs_do_not_count():
    scores = [0.5, *[0.1] * 4, *[0.4] * 6]
    assert rates(SMALL, [*scores, 0.4])[-1] == pytest.approx(1e-4)
    assert rates(SMALL, scores)[-1] == pytest.approx(1e-3)


def test_a_better_epoch_starts_the_count_again():
    scores = [0.1] * 5 + [0.05] * 5 + [0.11] + [0.1] * 6
    found = rates(SMALL, [*scores, 0.1])
    assert found[:17][5:] == pytest.approx([1e-3] * 12)
    assert found[17] == pytest.approx(1e-4)


def test_the_same_p_is_not_better():
    assert rates(SMALL, [0.3] * 12)[-1] == pytest.approx(1e-4)


def test_scores_below_zero_are_compared_as_they_are():
    scores = [-0.9 + 0.01 * epoch for epoch in range(30)]
    assert rates(SMALL, scores)[-1] == pytest.approx(1e-3)


def test_the_floor_of_the_rate():
    config = replace(SMALL, warmup_epochs=0)
    found = rates(config, [0.5, *[0.4] * 80])
    assert found[0] == 1e-3
    assert min(found) == found[-1] == 1e-8
    assert {float(f"{rate:.6g}") for rate in found} == {1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8}
    assert min(rates(replace(config, min_lr=3e-5), [0.5, *[0.4] * 80])) == 3e-5


@pytest.mark.parametrize(("patience", "factor"), [(0, 0.5), (2, 0.3)])
def test_patience_and_factor_are_settings(patience, factor):
    config = replace(SMALL, warmup_epochs=0, plateau_patience=patience, plateau_factor=factor)
    found = rates(config, [0.5] * (patience + 3))
    assert found == pytest.approx([1e-3] * (patience + 2) + [1e-3 * factor])


@pytest.mark.parametrize(("name", "kind"), [("adam", Adam), ("adamw", AdamW)])
def test_optimizer(name, kind):
    config = replace(SMALL, optimizer=name, lr=0.02, weight_decay=0.5)
    made = learner_of(config).optimizer
    assert type(made) is kind
    assert (made.param_groups[0]["lr"], made.param_groups[0]["weight_decay"]) == (0.02, 0.5)


def test_presets_have_the_contracts_schedule():
    s1 = preset("crossattn")
    assert (s1.optimizer, s1.lr, s1.weight_decay, s1.batch_size, s1.warmup_epochs) == ("adam", 1e-4, 1e-3, 12, 5)
    assert (s1.plateau_factor, s1.plateau_patience, s1.min_lr, s1.max_epochs, s1.early_stop) == (0.1, 5, 1e-8, 100, 20)
    assert (s1.window_frames, s1.hop_frames, s1.restore_best) == (300, 200, True)
    assert preset("su-zhang") == replace(s1, preset="su-zhang", lr=1e-5)


def test_training_stops_after_twenty_epochs_without_a_better_p():
    scores = [0.1, 0.4, *[0.3] * 19]
    assert why_stop(preset("crossattn"), history_of(scores)) == ""
    assert why_stop(preset("crossattn"), history_of([*scores, 0.4])) == "no better P in 20 epochs"
    assert why_stop(preset("crossattn"), history_of([*scores, 0.41])) == ""


def test_training_stops_at_the_last_epoch():
    rising = [epoch / 1000 for epoch in range(100)]
    assert why_stop(preset("crossattn"), history_of(rising[:99])) == ""
    assert why_stop(preset("crossattn"), history_of(rising)) == "all 100 epochs done"
    assert why_stop(replace(SMALL, max_epochs=3), history_of(rising[:3])) == "all 3 epochs done"
    assert why_stop(replace(SMALL, early_stop=1), history_of([0.2, 0.2])) == "no better P in 1 epoch"
    assert why_stop(SMALL, []) == ""


def test_the_best_epoch_is_the_first_of_equals():
    assert best_row(history_of([0.1, 0.5, 0.5, 0.2]))["epoch"] == 2
