import csv
import io
from pathlib import Path

import numpy as np
import pytest

from avfuse.fusion.results.bootstrap import Interval, Paired
from avfuse.fusion.results.comparison import (
    Difference,
    RunOutcome,
    comparison_cells,
    comparison_csv,
    difference_cells,
    scores_in,
    sum_up_cell,
)
from avfuse.fusion.results.plots import comparison_plot

P = {(0, 0): 0.1, (0, 1): 0.3, (1, 0): 0.5, (1, 1): 0.6}


def outcome(key, p, cell="a"):
    fold, seed = key
    scores = {"P": p, "ccc_valence": p + 0.1, "mean_trial_ccc_valence": 0.0}
    return RunOutcome(cell, fold, seed, Path(f"{cell}/fold{fold}/seed{seed}"), scores, 3, 5, 1.0 + seed, 1234)


@pytest.fixture
def row():
    return sum_up_cell("a", [outcome(key, p) for key, p in P.items()], 4, "P")


def test_mean_sd_and_best(row):
    assert row.mean["P"] == pytest.approx((0.2 + 0.55) / 2)
    assert row.sd["P"] == pytest.approx(np.std([0.3, 0.45], ddof=1))
    assert row.best["P"] == pytest.approx((0.3 + 0.6) / 2)
    assert row.best["ccc_valence"] == pytest.approx((0.4 + 0.7) / 2)
    assert (row.parameters, row.seconds, row.leaky) == (1234, 1.5, None)


def test_runs_that_are_missing():
    """The sd is over the seeds that every fold has."""
    row = sum_up_cell("a", [outcome(key, p) for key, p in P.items() if key != (1, 1)], 4, "P", [outcome((0, 0), 0.9)])
    assert row.mean["P"] == pytest.approx((0.2 + 0.5) / 2)
    assert (row.sd["P"], row.leaky) == (None, 0.9)
    (header, cells) = comparison_cells([row], "P", {"ccc_valence": "CCC valence", "ccc_arousal": "CCC arousal"})
    assert dict(zip(header, cells, strict=True)) == {
        "": "a",
        "P ± sd": "0.350       ",
        "best P": "0.400",
        "CCC valence": "0.450",
        "parameters": "1,234",
        "s an epoch": "1",
        "runs": "3 of 4",
        "S4's windows (leaky)": "0.900",
    }


def test_no_run_is_there():
    row = sum_up_cell("a", [], 4, "P")
    assert comparison_cells([row], "P", {"ccc_valence": "CCC valence", "ccc_arousal": "CCC arousal"})[1] == [
        "a",
        "–       ",
        "–",
        "–",
        "–",
        "0 of 4",
    ]


def test_csv(row):
    (found,) = csv.DictReader(io.StringIO(comparison_csv([row])))
    assert float(found["mean_P"]) == row.mean["P"]
    assert float(found["sd_ccc_valence"]) == row.sd["ccc_valence"]
    assert (found["cell"], found["runs"], found["seconds_per_epoch"]) == ("a", "4", "1.5")


def test_scores_among_the_metrics():
    metrics = {"P": 0.5, "ccc_arousal": None, "f1_fear": 1, "frames": 10, "trials": 2, "epoch": 7, "protocol": "x"}
    assert scores_in(metrics) == {"P": 0.5, "f1_fear": 1.0}


def test_differences():
    paired = Paired({"P": Interval(-0.05, -0.101, 0.0)}, 4, 12)
    assert difference_cells([Difference("b", "a", paired)], "P")[1:] == [
        ["b − a", "-0.050", "[-0.101, +0.000]", "12", "4"]
    ]


def test_chart(row, tmp_path):
    rows = [row, sum_up_cell("b_$x$", [outcome((0, 0), 0.2, "b")], 4, "P", [outcome((0, 0), 0.8)])]
    differences = [Difference("b_$x$", "a", Paired({"P": Interval(-0.05, -0.1, 0.0)}, 1, 12))]
    comparison_plot(tmp_path / "c.png", rows, {"a": list(P.values()), "b_$x$": [0.2]}, differences, "P")
    assert (tmp_path / "c.png").read_bytes()[:4] == b"\x89PNG"
