import csv
import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avfuse.fusion.results.fold_scores import (
    RunScore,
    cross_validation,
    cross_validation_cells,
    cross_validation_csv,
    cross_validation_json,
)
from avfuse.fusion.results.tables import TrialScore, latex_table, markdown_table, number, screen, trial_cells
from avfuse.fusion.tasks.table import TASKS
from avfuse.shell.text import text_table

# S1's table (8th ABAW): validation CCC of folds 0 to 5, and the means that the paper draws from it.
PAPER = [(0.3672, 0.6633), (0.4793, 0.6159), (0.5968, 0.6682), (0.5692, 0.6228), (0.6045, 0.6528), (0.4046, 0.6184)]
VA = TASKS["va"]
score = st.floats(-1, 1)
maybe = st.none() | score


def run_score(fold, seed, pair, epoch):
    return RunScore(fold, seed, dict(zip(("ccc_valence", "ccc_arousal"), pair, strict=True)), epoch)


def trial_score(name, rows, *pair):
    return TrialScore(name, rows, dict(zip(("ccc_valence", "ccc_arousal"), pair, strict=True)))


@pytest.fixture
def paper():
    return [run_score(fold, 0, pair, 10 + fold) for fold, pair in enumerate(PAPER)]


@pytest.fixture
def seeds():
    """Two folds of three seeds; the best of fold 0 is seed 2, that of fold 1 seed 1."""
    table = {0: [(0.1, 0.3), (0.2, 0.4), (0.6, 0.2)], 1: [(0.3, 0.3), (0.5, 0.7), (-0.1, 0.1)]}
    return [run_score(fold, seed, pair, seed) for fold, pairs in table.items() for seed, pair in enumerate(pairs)]


def test_the_paper_s_table(paper):
    result = cross_validation(paper, VA)
    assert result.mean.best["valence"] == pytest.approx(0.5036, abs=5e-5)
    assert result.mean.best["arousal"] == pytest.approx(0.6402, abs=5e-5)
    assert result.folds[0].best["P"] == pytest.approx(0.515, abs=5e-4)
    assert text_table(cross_validation_cells(result)) == [
        "fold  Valence  Arousal   Mean",
        "0       0.367    0.663  0.515",
        "1       0.479    0.616  0.548",
        "2       0.597    0.668  0.633",
        "3       0.569    0.623  0.596",
        "4       0.605    0.653  0.629",
        "5       0.405    0.618  0.511",
        "mean    0.504    0.640  0.572",
    ]
    assert result.title == "CCC on the validation set of each fold (one seed)"


def test_best_mean_and_sd(seeds):
    result = cross_validation(reversed(seeds), VA)
    first, second = result.folds
    assert (first.fold, first.seeds, first.seed, first.epoch) == (0, 3, 2, 2)
    assert first.best == {"valence": 0.6, "arousal": 0.2, "P": pytest.approx(0.4)}
    assert first.mean == pytest.approx({"valence": 0.3, "arousal": 0.3, "P": 0.3})
    assert first.sd == pytest.approx({"valence": np.std([0.1, 0.2, 0.6], ddof=1), "arousal": 0.1, "P": 0.1})
    assert second.seed == 1
    assert second.best["P"] == pytest.approx(0.6)


def test_over_all_folds(seeds):
    """The sd is that of the seeds' means over the folds, as one would compare two systems."""
    mean = cross_validation(seeds, VA).mean
    assert (mean.fold, mean.seed, mean.epoch, mean.seeds) == (None, None, None, 3)
    assert mean.best == pytest.approx({"valence": 0.55, "arousal": 0.45, "P": 0.5})
    assert mean.mean["P"] == pytest.approx((0.3 + 0.9 / 3) / 2)
    assert mean.sd["valence"] == pytest.approx(np.std([0.2, 0.35, 0.25], ddof=1))


def test_seeds_that_a_fold_lacks_have_no_mean(seeds):
    result = cross_validation([run for run in seeds if (run.fold, run.seed) not in {(1, 0), (1, 2)}], VA)
    assert result.mean.sd == {"valence": None, "arousal": None, "P": None}
    assert result.mean.seeds == 1
    assert result.folds[1].sd["P"] is None
    assert "over 1 to 3 seeds" in result.title
    assert text_table(cross_validation_cells(result))[2].endswith("0.500         0.700         0.600")


def test_text_and_markdown_of_seeds(seeds):
    cells = cross_validation_cells(cross_validation(seeds, VA))
    assert text_table(cells) == [
        "fold       Valence  Arousal   Mean  Valence ± sd  Arousal ± sd     Mean ± sd",
        "0            0.600    0.200  0.400  0.300 ±0.265  0.300 ±0.100  0.300 ±0.100",
        "1            0.500    0.700  0.600  0.233 ±0.306  0.367 ±0.306  0.300 ±0.300",
        "mean of 2    0.550    0.450  0.500  0.267 ±0.076  0.333 ±0.202  0.300 ±0.132",
    ]
    assert markdown_table(cells).splitlines()[:3] == [
        "| fold | Valence | Arousal | Mean | Valence ± sd | Arousal ± sd | Mean ± sd |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| 0 | 0.600 | 0.200 | 0.400 | 0.300 ±0.265 | 0.300 ±0.100 | 0.300 ±0.100 |",
    ]


def test_latex_of_seeds(seeds):
    cells = cross_validation_cells(cross_validation(seeds, VA))
    assert latex_table(cells, ["CCC of 100 % a_b"], foot=True).splitlines() == [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}[tb]",
        r"\centering",
        r"\caption{CCC of 100 \% a\_b.}",
        r"\begin{tabular}{lrrrrrr}",
        r"\toprule",
        r"fold & Valence & Arousal & Mean & Valence $\pm$ sd & Arousal $\pm$ sd & Mean $\pm$ sd \\",
        r"\midrule",
        r"0 & 0.600 & 0.200 & 0.400 & $0.300 \pm 0.265$ & $0.300 \pm 0.100$ & $0.300 \pm 0.100$ \\",
        r"1 & 0.500 & 0.700 & 0.600 & $0.233 \pm 0.306$ & $0.367 \pm 0.306$ & $0.300 \pm 0.300$ \\",
        r"\midrule",
        r"mean of 2 & 0.550 & 0.450 & 0.500 & $0.267 \pm 0.076$ & $0.333 \pm 0.202$ & $0.300 \pm 0.132$ \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]


@pytest.mark.parametrize(
    ("cell", "wanted"),
    [
        ("-0.050", "$-0.050$"),
        ("[-0.101, +0.000]", "$[-0.101, +0.000]$"),
        ("8,578", "8,578"),
        ("0.300       ", "0.300"),
        ("–", "--"),
        ("b_$x$ − a&~^\\{}", r"b\_\$x\$ $-$ a\&\textasciitilde{}\textasciicircum{}\textbackslash{}\{\}"),
        ("a\nb", "a b"),
    ],
)
def test_cells_of_latex(cell, wanted):
    lines = latex_table([["x", "y"], [cell, cell]], []).splitlines()
    assert f"{wanted} & {wanted} \\\\" in lines
    assert not any("caption" in line for line in lines)


def test_a_single_task():
    result = cross_validation([run_score(0, 0, (0.4, None), 3), run_score(1, 0, (0.6, None), 3)], TASKS["valence"])
    assert result.mean.best == {"valence": 0.5, "arousal": None, "P": 0.5}
    assert text_table(cross_validation_cells(result))[1] == "0            0.400        –  0.400"


def test_a_single_fold_has_no_mean_line(paper):
    assert len(cross_validation_cells(cross_validation(paper[:1], VA))) == 2


def test_of_two_alike_the_lower_seed():
    runs = [run_score(0, seed, (0.5, 0.5), seed) for seed in (7, 3, 5)]
    assert cross_validation(runs, VA).folds[0].seed == 3


def test_what_cannot_be_summed_up(paper):
    with pytest.raises(ValueError, match="fold 1, seed 2: a run has one of the scores ccc_valence, ccc_arousal"):
        run_score(1, 2, (None, None), 3)
    with pytest.raises(ValueError, match="no run to sum up"):
        cross_validation([], VA)
    with pytest.raises(ValueError, match="two runs of fold 4, seed 0"):
        cross_validation([*paper, paper[4]], VA)


def test_csv_holds_every_bit(seeds):
    result = cross_validation(seeds, VA)
    rows = list(csv.DictReader(io.StringIO(cross_validation_csv(result))))
    assert [row["fold"] for row in rows] == ["0", "1", "mean"]
    assert (rows[0]["seeds"], rows[0]["seed"], rows[0]["epoch"], rows[2]["seed"]) == ("3", "2", "2", "")
    for row, line in zip(rows, (*result.folds, result.mean), strict=True):
        assert float(row["best_valence"]) == line.best["valence"]
        assert float(row["sd_P"]) == line.sd["P"]


def test_json_holds_every_bit(seeds):
    result = cross_validation(seeds, VA)
    table = json.loads(json.dumps(cross_validation_json(result)))
    assert [row["fold"] for row in table["folds"]] == [0, 1]
    assert table["folds"][0]["best"] == result.folds[0].best
    assert table["mean"]["sd"] == result.mean.sd


runs = st.dictionaries(
    st.tuples(st.integers(0, 5), st.integers(0, 4)),
    st.tuples(maybe, maybe).filter(lambda pair: pair != (None, None)),
    min_size=1,
).map(lambda table: [run_score(*key, pair, 1) for key, pair in table.items()])


@given(runs)
def test_any_runs_fit_the_screen(scores):
    result = cross_validation(scores, VA)
    assert max(map(len, text_table(cross_validation_cells(result)))) <= 80
    for row in result.folds:
        of_fold = [VA.p(run.scores) or 0.0 for run in scores if run.fold == row.fold]
        assert row.best["P"] == max(of_fold)
        assert row.mean["P"] is not None
        assert min(of_fold) - 1e-9 <= row.mean["P"] <= max(of_fold) + 1e-9
    json.dumps(cross_validation_json(result), allow_nan=False)


@pytest.mark.parametrize(("value", "text"), [(0.3672, "0.367"), (-0.0001, "0.000"), (1, "1.000"), (None, "–")])
def test_numbers(value, text):
    assert number(value) == text


def test_markdown_escapes():
    assert markdown_table([["a|b", "c"], ["d", "  e "]]) == "| a\\|b | c |\n| --- | ---: |\n| d | e |\n"


def test_trials_from_worst_to_best():
    table = trial_cells(
        [
            trial_score("good", 900, 0.5, 0.7),
            trial_score("none", 0, None, None),
            trial_score("one", 47_000, -0.2, None),
            trial_score("b" * 30 + "/" + "c" * 60, 7, 0.1, 0.3),
        ],
        VA,
    )
    assert text_table(table) == [
        "trial                                             rows   CCC V  CCC A",
        "one                                              47000  -0.200      –",
        "bbbbbbbbbbbbbbbbbbbbbbb…ccccccccccccccccccccccc      7   0.100  0.300",
        "good                                               900   0.500  0.700",
        "none                                                 0       –      –",
    ]


@given(st.integers(0, 90), st.integers(1, 60))
def test_a_screen(rows, height):
    lines = ["header", *(f"row {i}" for i in range(rows))]
    shown = screen(lines, height)
    if len(lines) <= height:
        assert shown == lines
        return
    assert len(shown) == max(height, 2)
    (gap,) = (i for i, line in enumerate(shown) if "left out" in line)
    last = len(shown) - gap - 1
    assert shown[:gap] == lines[:gap]
    assert shown[gap + 1 :] == lines[len(lines) - last :]
    assert shown[gap] == f"… {len(lines) - gap - last} of {rows} left out …"
    assert abs((gap - 1) - last) <= 1
