"""S4's protocol: which windows are drawn, and what their score is."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from avfuse.fusion.data.batches import Batches
from avfuse.fusion.data.windows import Windows, plan_windows
from avfuse.fusion.settings import preset
from avfuse.fusion.tasks.table import TASKS
from avfuse.fusion.training.s4_window import draw_windows, s4_settings, score_windows

CONFIG = replace(preset("concat"), modalities=("face",), window_frames=50, hop_frames=50, batch_size=3)


def starts(windows):
    return windows.start.tolist()


class TestDraw:
    WINDOWS = plan_windows([(0, 1000), (1000, 500)], 50, 10)

    def test_a_quarter_is_validated_on(self):
        learned, held = draw_windows(self.WINDOWS, 0)
        assert len(held) == round(len(self.WINDOWS) / 4)
        assert sorted(starts(learned) + starts(held)) == starts(self.WINDOWS)
        assert (held.length == 50).all()

    def test_its_frames_are_in_windows_that_are_learned_from(self):
        """The leak itself: hardly a frame of the validation windows has not been seen."""
        learned, held = draw_windows(self.WINDOWS, 0)
        seen = {frame for start in starts(learned) for frame in range(start, start + 50)}
        frames = [frame for start in starts(held) for frame in range(start, start + 50)]
        assert np.mean([frame in seen for frame in frames]) > 0.95

    def test_it_depends_on_the_seed_alone(self):
        assert starts(draw_windows(self.WINDOWS, 1)[1]) == starts(draw_windows(self.WINDOWS, 1)[1])
        assert starts(draw_windows(self.WINDOWS, 1)[1]) != starts(draw_windows(self.WINDOWS, 2)[1])

    def test_one_window(self):
        with pytest.raises(ValueError, match="have one window"):
            draw_windows(Windows(torch.tensor([0]), torch.tensor([9])), 0)


def test_windows_overlap_by_80_percent():
    changed = s4_settings(preset("crossattn"))
    assert (changed.window_frames, changed.hop_frames, changed.protocol) == (300, 60, "s4-window")
    assert s4_settings(replace(CONFIG, window_frames=3, hop_frames=3)).hop_frames == 1


class Echo(torch.nn.Module):
    """Predicts its features."""

    def forward(self, features, valid, mask):
        return features[0]


def test_the_mean_of_the_windows_own_scores(make_data, plain_ccc):
    """Masked rows do not count; a window whose CCC is not defined counts as 0."""
    rng = np.random.default_rng(0)
    labels = rng.uniform(-0.9, 0.9, (150, 2)).astype(np.float32)
    rows = (labels + 0.3 * rng.standard_normal((150, 2))).clip(-1, 1).astype(np.float32)
    labels[60:70] = -5
    labels[100:] = 0.25
    data = make_data({"t": {"face": rows}}, {"t": labels})
    statistics = data.statistics(["t"], CONFIG)["face"]
    plain = {"face": replace(statistics, mean=np.zeros(2), std=np.ones(2))}
    windows = data.windows(["t"], CONFIG)
    found = score_windows(Echo(), data, Batches(data, plain, CONFIG), windows, TASKS["va"], "fp32")
    kept = [np.arange(50), np.r_[50:60, 70:100]]
    expected = [
        [plain_ccc(rows[of, column].astype(float), labels[of, column].astype(float)) for of in kept]
        for column in range(2)
    ]
    assert found.scores["ccc_valence"] == pytest.approx(sum(expected[0]) / 3, abs=1e-6)
    assert found.scores["ccc_arousal"] == pytest.approx(sum(expected[1]) / 3, abs=1e-6)
    assert found.rows == 140
