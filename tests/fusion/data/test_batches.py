from dataclasses import replace

import numpy as np
import pytest
import torch

from avfuse.fusion.config import TrainConfig
from avfuse.fusion.data.batches import Batch, Batches, drop_modalities, smooth_labels
from avfuse.fusion.data.statistics import Statistics
from avfuse.fusion.data.windows import plan_windows
from avfuse.fusion.settings import preset

WINDOW = 20
PLAIN = {"face": Statistics(np.zeros(2), np.ones(2)), "voice": Statistics(np.zeros(3), np.ones(3))}
MOVED = {
    "face": Statistics(np.array([5.0, -3.0]), np.array([2.0, 0.5])),
    "voice": Statistics(np.full(3, 7.0), np.full(3, 4.0)),
}


@pytest.fixture
def rows():
    """Two trials: one of a few windows, one shorter than a window; some rows are not real."""
    rng = np.random.default_rng(0)
    made = {}
    for name, count in (("a", 50), ("b", 8)):
        made[name] = {
            "face": rng.uniform(1, 2, (count, 2)).astype(np.float32),
            "voice": rng.uniform(1, 2, (count, 3)).astype(np.float32),
            "face_valid": rng.random(count) < 0.7,
            "voice_valid": rng.random(count) < 0.7,
        }
    return made


@pytest.fixture
def labels():
    rng = np.random.default_rng(1)
    made = {name: rng.uniform(-1, 1, (count, 2)) for name, count in (("a", 50), ("b", 8))}
    for name, masked in (("a", [3, 4, 30]), ("b", [0])):
        made[name][masked, [0, 1, 0][: len(masked)]] = -5
    return made


def config(**more) -> TrainConfig:
    return replace(
        preset("concat"), modalities=("face", "voice"), window_frames=WINDOW, hop_frames=15, batch_size=2, **more
    )


def all_of(data, statistics=PLAIN, **more) -> list[Batch]:
    wanted = config(**more)
    return list(Batches(data, statistics, wanted).all(data.windows(["a", "b"], wanted)))


@pytest.mark.parametrize("streamed", [False, True])
def test_what_a_batch_holds(make_data, rows, labels, streamed):
    data = make_data(rows, labels, streamed=streamed)
    batches = all_of(data, MOVED)
    assert [len(batch.mask) for batch in batches] == [2, 2]
    windows = data.windows(["a", "b"], config())
    assert windows.length.tolist() == [20, 20, 20, 8]
    number = 0
    for batch in batches:
        for at in range(len(batch.mask)):
            name, start = [("a", 0), ("a", 15), ("a", 30), ("b", 0)][number]
            count = int(windows.length[number])
            there = slice(start, start + count)
            for features, modality in zip(batch.features, ("face", "voice"), strict=True):
                expected = (rows[name][modality][there] - MOVED[modality].mean) / MOVED[modality].std
                np.testing.assert_allclose(features[at, :count], expected, rtol=1e-6, atol=1e-6)
                assert features.dtype == torch.float32
            for flags, modality in zip(batch.valid, ("face", "voice"), strict=True):
                assert np.array_equal(flags[at, :count], rows[name][f"{modality}_valid"][there])
                assert not flags[at, count:].any()
            assert batch.mask[at].tolist() == [True] * count + [False] * (WINDOW - count)
            assert np.array_equal(batch.labels[at, :count], labels[name][there].astype(np.float32))
            number += 1


@pytest.mark.parametrize("streamed", [False, True])
def test_padding_is_zero_after_standardisation(make_data, rows, labels, streamed):
    last = all_of(make_data(rows, labels, streamed=streamed), MOVED)[-1]
    assert not last.mask[1, 8:].any()
    for features in last.features:
        assert not features[1, 8:].any()
        assert features[1, :8].abs().min() > 0
    assert not last.loss_mask[1, 8:].any()
    assert not last.labels[1, 8:].any()
    assert (last.index[1, 8:] == 58).all()


@pytest.mark.parametrize("policy", ["labelled", "any", "all"])
def test_which_rows_are_in_the_loss(make_data, rows, labels, policy):
    labelled = np.concatenate([(labels[name] != -5).all(1) for name in "ab"])
    face, voice = (np.concatenate([rows[n][f"{m}_valid"] for n in "ab"]) for m in ("face", "voice"))
    expected = labelled & {"labelled": np.ones(58, bool), "any": face | voice, "all": face & voice}[policy]
    seen = np.zeros(58, int)
    for batch in all_of(make_data(rows, labels), rows_in_loss=policy):
        index = batch.index[batch.mask].numpy()
        assert np.array_equal(batch.loss_mask[batch.mask].numpy(), expected[index])
        np.add.at(seen, index, 1)
    assert seen.min() >= 1
    assert len({labelled.sum(), (labelled & (face | voice)).sum(), (labelled & face & voice).sum()}) == 3


@pytest.mark.parametrize("column", [0, 1])
def test_minus_five_in_either_column_is_not_counted(make_data, rows, column):
    labels = np.zeros((50, 2))
    labels[7, column] = -5
    for batch in all_of(make_data({"a": rows["a"], "b": rows["b"]}, {"a": labels}), rows_in_loss="labelled"):
        assert not batch.loss_mask[batch.index == 7].any()
        assert batch.loss_mask[(batch.index != 7) & batch.mask].all()


@pytest.mark.parametrize(("task", "columns"), [("va", [0, 1]), ("valence", [0]), ("arousal", [1])])
def test_labels_are_those_of_the_task(make_data, rows, labels, task, columns):
    first = all_of(make_data(rows, labels), task=task)[0]
    assert np.array_equal(first.labels[0], labels["a"][:WINDOW, columns].astype(np.float32))


def test_standardising_leaves_the_table_as_it_was(make_data, rows, labels):
    data = make_data(rows, labels)
    before = [table.clone() for table in data.rows.tables]
    first, second = all_of(data, MOVED), all_of(data, MOVED)
    assert all(torch.equal(*pair) for pair in zip(data.rows.tables, before, strict=True))
    assert all(
        torch.equal(*pair)
        for one, other in zip(first, second, strict=True)
        for pair in zip(one.features, other.features, strict=True)
    )


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 8])
def test_batches_hold_every_window_once_in_order(make_data, rows, labels, streamed, size):
    data = make_data(rows, labels, streamed=streamed)
    wanted = replace(config(), batch_size=size)
    windows = data.windows(["a", "b"], wanted)
    batches = Batches(data, PLAIN, wanted)
    for order in (None, torch.tensor([2, 0, 3, 1])):
        found = list(batches.all(windows, order))
        assert [len(batch.mask) for batch in found] == [size] * (4 // size) + [4 % size] * (4 % size > 0)
        expected = torch.arange(4) if order is None else order
        assert torch.equal(torch.cat([batch.index[:, 0] for batch in found]), windows.start[expected])
        assert torch.equal(torch.cat([batch.mask.sum(1) for batch in found]), windows.length[expected])


@pytest.mark.parametrize("streamed", [False, True])
def test_no_window_no_batch(make_data, rows, labels, streamed):
    batches = Batches(make_data(rows, labels, streamed=streamed), PLAIN, config())
    assert list(batches.all(plan_windows([], WINDOW, 15))) == []


def test_windows_with_fewer_than_two_rows_in_the_loss_are_of_no_use(make_data, rows, labels):
    flags = np.zeros(50, bool)
    flags[[2, 40, 41]] = True  # one in the first window of rows 0–19, none in the second, two in the third
    rows["a"] |= {"face_valid": flags, "voice_valid": flags}
    data = make_data(rows, {**labels, "a": np.zeros((50, 2))})
    wanted = config()
    windows = Batches(data, PLAIN, wanted).to_train_on(data.windows(["a", "b"], wanted), "training side")
    assert windows.start.tolist() == [30, 50]
    assert windows.length.tolist() == [20, 8]
    labelled = config(rows_in_loss="labelled")
    assert len(Batches(data, PLAIN, labelled).to_train_on(data.windows(["a", "b"], labelled), "training side")) == 4


def test_a_side_that_cannot_be_trained_on_says_why(make_data, rows, labels):
    def refused(rows, labels, **settings):
        data, wanted = make_data(rows, labels), config(**settings)
        with pytest.raises(ValueError, match="the training side of fold 3 has ") as refused:
            Batches(data, PLAIN, wanted).to_train_on(data.windows(["a"], wanted), "training side of fold 3")
        return str(refused.value)

    assert "no labelled frame: all its label rows are masked (-5)" in refused(
        rows, {**labels, "a": np.full((50, 2), -5)}
    )
    silent = {**rows, "a": rows["a"] | {"voice_valid": np.zeros(50, bool)}}
    assert "labelled frames, but none at which all features are real" in refused(silent, labels, rows_in_loss="all")
    lone = np.full((50, 2), -5.0)
    lone[25] = 0
    assert "no window with two frames in the loss" in refused(rows, {**labels, "a": lone}, rows_in_loss="labelled")


def test_two_labelled_rows_at_the_end_of_a_trial_are_enough(make_data, rows, labels):
    flags = np.arange(50) >= 48
    rows["a"] |= {"face_valid": flags, "voice_valid": flags}
    data = make_data(rows, {**labels, "a": np.zeros((50, 2))})
    windows = Batches(data, PLAIN, config()).to_train_on(data.windows(["a"], config()), "training side")
    assert (windows.start.tolist(), windows.length.tolist()) == ([30], [20])


def batch_of(windows: int, modalities: int) -> Batch:
    """Windows of ten frames, two of them padding; every number in them is 1."""
    mask = (torch.arange(10) < 8).expand(windows, 10)
    return Batch(
        features=tuple(torch.ones(windows, 10, 3) for _ in range(modalities)),
        valid=(mask,) * modalities,
        mask=mask,
        labels=torch.ones(windows, 10, 2),
        loss_mask=mask,
        index=torch.zeros(windows, 10, dtype=torch.int64),
    )


def missing_from(batch: Batch) -> torch.Tensor:
    """Which windows lack which modality, bool [modalities, windows]; a modality is missing as a whole or not at all."""
    kept = torch.stack([features.amax((1, 2)) for features in batch.features])
    assert torch.equal(kept, torch.stack([features.amin((1, 2)) for features in batch.features]))
    assert torch.equal(kept.bool(), torch.stack([flags.any(1) for flags in batch.valid]))
    assert all(torch.equal(f, batch.mask & k[:, None]) for f, k in zip(batch.valid, kept.bool(), strict=True))
    return ~kept.bool()


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_modality_dropout_takes_one_modality_of_a_share_of_the_windows(share, modalities):
    whole = batch_of(20_000, modalities)
    dropped = drop_modalities(whole, share, torch.Generator().manual_seed(0))
    missing = missing_from(dropped)
    assert missing.sum(0).max() == 1
    assert missing.any(0).double().mean() == pytest.approx(share, abs=0.02)
    assert missing.double().mean(1).tolist() == pytest.approx([share / modalities] * modalities, abs=0.02)
    for name in ("mask", "labels", "loss_mask", "index"):
        assert getattr(dropped, name) is getattr(whole, name)


def test_modality_dropout_draws_the_same_again():
    first, again, other = (
        missing_from(drop_modalities(batch_of(100, 3), 0.5, torch.Generator().manual_seed(seed))) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("share", "modalities"), [(0.0, 3), (0.9, 1)])
def test_nothing_is_dropped(share, modalities):
    whole, generator = batch_of(50, modalities), torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert drop_modalities(whole, share, generator) is whole
    assert torch.equal(generator.get_state(), before)


def test_a_smoothed_label_is_the_mean_of_the_labelled_ones_around_it():
    rng = np.random.default_rng(0)
    labels, labelled = rng.uniform(-1, 1, (40, 2)).astype(np.float32), rng.random(40) < 0.7
    labels[~labelled] = -5
    smoothed = smooth_labels(labels, labelled, 7)
    for row in range(40):
        around = slice(max(row - 3, 0), row + 4)
        expected = labels[around][labelled[around]].mean(axis=0) if labelled[row] else [-5, -5]
        assert smoothed[row] == pytest.approx(expected, abs=1e-6)
    assert np.array_equal(smooth_labels(labels, labelled, 1), labels)


def test_labels_smoothed_over_more_than_the_trial():
    labels = np.array([[0.0], [0.5], [1.0]], np.float32)
    assert smooth_labels(labels, np.ones(3, bool), 99) == pytest.approx(np.full((3, 1), 0.5))


def test_smoothed_labels_of_trials_do_not_run_into_each_other(make_data):
    features = {name: {"face": np.zeros((20, 1), np.float32)} for name in ("a", "b")}
    labels = {"a": np.full((20, 2), 0.2, np.float32), "b": np.full((20, 2), -0.8, np.float32)}
    data = make_data(features, labels)
    config = replace(preset("concat"), modalities=("face",), window_frames=20, hop_frames=20, batch_size=2,
                     label_smoothing_frames=9)  # fmt: skip
    statistics = {"face": Statistics(np.zeros(1), np.ones(1))}
    (batch,) = Batches(data, statistics, config).all(data.windows(data.spans, config))
    for window, value in zip(batch.labels, (0.2, -0.8), strict=True):
        assert window.numpy() == pytest.approx(np.full((20, 2), value), abs=1e-6)
    assert data.sources["a"].labels[0, 0] == np.float32(0.2)
