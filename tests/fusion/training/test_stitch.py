from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from avfuse.fusion.config import TrainConfig
from avfuse.fusion.data.batches import Batches
from avfuse.fusion.data.dataset import Dataset
from avfuse.fusion.data.matching import TrialSource
from avfuse.fusion.data.statistics import Statistics
from avfuse.fusion.data.windows import ResidentRows
from avfuse.fusion.settings import preset
from avfuse.fusion.tasks.table import TASKS
from avfuse.fusion.training.stitch import by_trial, predict

VA = TASKS["va"]
VA = TASKS["va"]
AS_IT_IS = {"number": Statistics(np.zeros(2), np.ones(2))}
SIZES = st.integers(2, 30).flatmap(lambda window: st.tuples(st.just(window), st.integers(1, window)))


class GivesItsRow(nn.Module):
    """A network whose prediction depends on nothing but the frame itself: it gives back its features."""

    def forward(self, features, valid, mask):
        return features[0]


class GivesItsPlace(nn.Module):
    """A network whose prediction depends on where in its window a frame lies."""

    def forward(self, features, valid, mask):
        place = torch.arange(mask.shape[1], dtype=torch.float32) / mask.shape[1]
        return place[None, :, None].expand(len(mask), -1, 1)


def numbers(total: int) -> np.ndarray:
    """A number of its own for each row [N, 2], in [-1, 1], which sums of many represent exactly."""
    return (np.arange(2 * total).reshape(total, 2) / 4096 - 0.5).astype(np.float32)


def table_of(counts: list[int]) -> Dataset:
    """Trials of so many rows, side by side; features are the rows' numbers."""
    total = sum(counts)
    ends = np.cumsum(counts).tolist()
    names = [f"trial{i}" for i in range(len(counts))]
    sources = [
        TrialSource(n, n, np.zeros((c, 2), np.float32), np.ones(c, bool)) for n, c in zip(names, counts, strict=True)
    ]
    table = torch.zeros(total + 1, 2)
    table[:total] = torch.from_numpy(numbers(total))
    there = torch.arange(total + 1) < total
    return Dataset(
        modalities=("number",),
        shapes=((2,),),
        sources={source.name: source for source in sources},
        spans={name: (end - count, count) for name, end, count in zip(names, ends, counts, strict=True)},
        rows=ResidentRows([table]),
        valid=(there,),
        labels=torch.zeros(total + 1, 2),
        labelled=there,
        moments={},
        place="cpu",
        notes=(),
    )


def config_of(window, hop, batch_size=12) -> TrainConfig:
    return replace(
        preset("concat"), modalities=("number",), window_frames=window, hop_frames=hop, batch_size=batch_size
    )


@settings(deadline=None)
@given(st.lists(st.integers(0, 90), min_size=1, max_size=4), SIZES, st.integers(1, 7))
def test_stitching_gives_each_row_its_own_prediction(counts, sizes, batch_size):
    window, hop = sizes
    data, config = table_of(counts), config_of(window, hop, batch_size)
    batches = Batches(data, AS_IT_IS, config)
    rows = predict(GivesItsRow(), data, batches, data.windows(data.spans, config), VA, "fp32")
    assert np.array_equal(rows, numbers(sum(counts)))
    trials = by_trial(data, data.spans, rows)
    assert [len(trials[name]) for name in data.spans] == counts
    assert np.array_equal(np.concatenate(list(trials.values())), rows)


@pytest.mark.parametrize("rows", [1, 299, 300, 301, 500, 501, 1234])
def test_with_the_windows_of_the_contract(rows):
    data, config = table_of([rows]), config_of(300, 200)
    predicted = predict(
        GivesItsRow(), data, Batches(data, AS_IT_IS, config), data.windows(data.spans, config), VA, "fp32"
    )
    assert np.array_equal(predicted, numbers(rows))


def test_trials_that_are_not_asked_for_stay_zero():
    data, config = table_of([40, 50, 60]), config_of(30, 20)
    windows = data.windows(["trial1"], config)
    rows = predict(GivesItsRow(), data, Batches(data, AS_IT_IS, config), windows, VA, "fp32")
    assert not rows[:40].any()
    assert not rows[90:].any()
    assert np.array_equal(rows[40:90], numbers(150)[40:90])
    assert np.array_equal(by_trial(data, ["trial1"], rows)["trial1"], rows[40:90])


@settings(deadline=None)
@given(st.integers(1, 90), SIZES)
def test_overlaps_are_averaged(rows, sizes):
    window, hop = sizes
    data, config = table_of([rows]), config_of(window, hop)
    windows = data.windows(data.spans, config)
    predicted = predict(GivesItsPlace(), data, Batches(data, AS_IT_IS, config), windows, TASKS["valence"], "fp32")
    for row in range(rows):
        places = [(row - s) / window for s in windows.start.tolist() if s <= row < s + window]
        assert predicted[row, 0] == pytest.approx(np.mean(places), abs=1e-6)


def test_predictions_are_clipped():
    data, config = table_of([5]), config_of(3, 2)
    twice = {"number": Statistics(np.zeros(2), np.full(2, 0.25))}  # features, and so predictions, times 4
    predicted = predict(GivesItsRow(), data, Batches(data, twice, config), data.windows(data.spans, config), VA, "fp32")
    assert np.array_equal(predicted, (4 * numbers(5)).clip(-1, 1))
    assert (predicted == -1).any()


def test_predictions_are_clipped_at_both_ends():
    rows = np.array([[-3, 1.5], [-1, 1], [0.5, -0.5]], np.float32)
    data, config = table_of([3]), config_of(3, 2)
    assert isinstance(data.rows, ResidentRows)
    data.rows.tables[0][:3] = torch.from_numpy(rows)
    predicted = predict(
        GivesItsRow(), data, Batches(data, AS_IT_IS, config), data.windows(data.spans, config), VA, "fp32"
    )
    assert predicted.tolist() == [[-1, 1], [-1, 1], [0.5, -0.5]]


@pytest.mark.parametrize("bad", [np.nan, -np.nan])
@pytest.mark.parametrize("at", [(0, 0), (4, 1)])
def test_a_prediction_that_is_no_number_is_an_error(bad, at):
    data, config = table_of([5]), config_of(5, 5)
    assert isinstance(data.rows, ResidentRows)
    data.rows.tables[0][at] = bad
    batches, windows = Batches(data, AS_IT_IS, config), data.windows(data.spans, config)
    with pytest.raises(ValueError, match="the network predicts values that are not numbers: try a smaller lr"):
        predict(GivesItsRow(), data, batches, windows, VA, "fp32")


def test_what_padding_is_given_is_dropped():
    class SpoilsPadding(GivesItsRow):
        def forward(self, features, valid, mask):
            return features[0].where(mask.unsqueeze(-1), torch.nan)

    data, config = table_of([4]), config_of(10, 5)
    windows = data.windows(data.spans, config)
    rows = predict(SpoilsPadding(), data, Batches(data, AS_IT_IS, config), windows, VA, "fp32")
    assert np.array_equal(rows, numbers(4))


def test_nothing_is_learned_while_predicting():
    """Dropout is off, and the network stays as it was."""

    class Drops(GivesItsRow):
        def forward(self, features, valid, mask):
            return nn.functional.dropout(features[0], 0.5, self.training)

    data, config = table_of([40]), config_of(30, 20)
    model = Drops().train()
    predicted = predict(model, data, Batches(data, AS_IT_IS, config), data.windows(data.spans, config), VA, "fp32")
    assert np.array_equal(predicted, numbers(40))
