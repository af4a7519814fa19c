"""Intervals on cases whose answer is known."""

from dataclasses import replace

import numpy as np
import pytest

from avfuse.fusion.results.bootstrap import AnyScorer, ConcordanceScorer, CountScorer, paired_differences, scorer_of
from avfuse.fusion.tasks.ccc import ccc
from avfuse.fusion.tasks.table import TASKS

BOTH = ConcordanceScorer(("valence", "arousal"), draws=500)


def plain_scores(prediction, labels, valid):
    """As the challenge scores: CCC of each column over all frames, and their mean."""
    valence, arousal = (ccc(prediction[:, column], labels[:, column], valid) for column in range(2))
    return {"P": (valence + arousal) / 2, "ccc_valence": valence, "ccc_arousal": arousal}


def draw_trials(rng, count, noises):
    """Trials of their own level and length: labels, which rows have one, and a prediction of each noise."""
    trials = []
    for _ in range(count):
        rows = int(rng.integers(20, 60))
        labels = 0.3 * rng.standard_normal(2) + 0.2 * rng.standard_normal((rows, 2))
        shift = 0.2 * rng.standard_normal(2)  # of this trial: what makes its frames alike
        predictions = [labels + noise * (shift + rng.standard_normal((rows, 2))) for noise in noises]
        trials.append((labels, rng.random(rows) < 0.9, predictions))
    return trials


def kept_of(scorer, trials, system):
    return {f"t{at:03d}": scorer.of_trial(p[system], labels, valid) for at, (labels, valid, p) in enumerate(trials)}


def test_two_identical_systems_do_not_differ():
    trials = draw_trials(np.random.default_rng(0), 12, [0.1])
    runs = {(fold, seed): kept_of(BOTH, trials, 0) for fold in range(2) for seed in range(2)}
    found = paired_differences(runs, runs, BOTH)
    assert found is not None
    assert {(each.difference, each.low, each.high) for each in found.scores.values()} == {(0.0, 0.0, 0.0)}
    assert (found.runs, found.trials) == (4, 24)


def test_out_of_sums_as_over_the_frames_themselves():
    """The product of matrices gives what scoring the frames of each draw anew gives."""
    trials = draw_trials(np.random.default_rng(1), 9, [0.1, 0.3])
    found = [
        paired_differences({(0, 0): kept_of(scorer, trials, 0)}, {(0, 0): kept_of(scorer, trials, 1)}, scorer)
        for scorer in (BOTH, AnyScorer(plain_scores, draws=500))
    ]
    for one, other in zip(*(of.scores.items() for of in found if of is not None), strict=True):
        assert one[0] == other[0]
        numbers = [(each.difference, each.low, each.high) for _, each in (one, other)]
        assert numbers[0] == pytest.approx(numbers[1], abs=1e-12)
        assert numbers[0][1] < numbers[0][0] < numbers[0][2]


@pytest.mark.parametrize("name", ["expr", "au"])
def test_f1_out_of_counts(name):
    """Of classes and of units, some of them masked: as the task scores the frames of each draw anew."""
    rng = np.random.default_rng(8)
    task = TASKS[name]
    classes, columns = task.labels.values == "class", len(task.columns)
    trials = []
    for _ in range(7):
        rows = int(rng.integers(20, 60))
        labels = rng.integers(0, 8, (rows, 1)) if classes else rng.integers(-1, 2, (rows, columns))
        trials.append((labels, rng.random(rows) < 0.9, [rng.random((rows, columns)) for _ in range(2)]))
    by_counts = scorer_of(task)
    assert isinstance(by_counts, CountScorer)
    anew = AnyScorer(lambda *of: {"P": task.p(task.scorer(*of)) or 0.0, **task.scorer(*of)}, draws=200)
    found = []
    for scorer in (replace(by_counts, draws=200), anew):
        one, other = ({(0, 0): kept_of(scorer, trials, system)} for system in range(2))
        pair = paired_differences(one, other, scorer)
        assert pair is not None
        found.append(pair.scores)
    assert {"P", *(f"f1_{column.lower()}" for column in task.columns)} == found[0].keys() <= found[1].keys()
    for key, each in found[0].items():
        expected = found[1][key]
        numbers = [(of.difference, of.low, of.high) for of in (each, expected)]
        assert numbers[0] == pytest.approx(numbers[1], abs=1e-12)


def test_each_task_has_its_scorer():
    assert scorer_of(TASKS["va"]) == ConcordanceScorer(("valence", "arousal"))
    assert scorer_of(TASKS["arousal"]) == ConcordanceScorer(("arousal",), (1,))
    other = replace(TASKS["va"], primary=("mse",), scorer=lambda x, y, valid: {"mse": 0.5, "none": None})
    scorer = scorer_of(other)
    labels = np.zeros((3, 2))
    kept = [scorer.of_trial(labels, labels, np.ones(3, bool))]
    assert {key: values.tolist() for key, values in scorer.over(kept, np.ones((2, 1))).items()} == {
        "P": [0.5, 0.5],
        "mse": [0.5, 0.5],
    }


def test_sums_give_the_ccc_itself():
    (labels, valid, (prediction,)), *_ = trials = draw_trials(np.random.default_rng(2), 4, [0.2])
    kept = list(kept_of(BOTH, trials, 0).values())
    alone = BOTH.over(kept, np.eye(4)[:1])
    assert {name: values[0] for name, values in alone.items()} == pytest.approx(plain_scores(prediction, labels, valid))
    whole = BOTH.over(kept, np.ones((1, 4)))
    together = (np.concatenate(part) for part in zip(*((p[0], y, v) for y, v, p in trials), strict=True))
    assert {name: values[0] for name, values in whole.items()} == pytest.approx(plain_scores(*together))


@pytest.mark.parametrize("prediction", [0.3, 0.1], ids=["a constant", "the labels' own constant"])
def test_constants_score_nothing(prediction):
    labels = np.full((30, 2), 0.1)
    kept = [BOTH.of_trial(np.full((30, 2), prediction), labels, np.ones(30, bool))]
    assert BOTH.over(kept, np.ones((1, 1)))["P"] == pytest.approx(0, abs=1e-12)


def test_rows_without_a_label_do_not_count():
    rng = np.random.default_rng(3)
    labels, prediction, valid = rng.random((50, 2)), rng.random((50, 2)), rng.random(50) < 0.5
    spoiled = np.where(valid[:, None], prediction, 9.0)
    assert (BOTH.of_trial(prediction, labels, valid) == BOTH.of_trial(spoiled, labels, valid)).all()


def test_the_mean_over_folds_of_the_mean_over_seeds():
    """Fold 0 has two seeds and fold 1 one: each fold counts once."""
    rng = np.random.default_rng(4)
    noises = [0.1, 0.2, 0.3, 0.4]
    folds = [draw_trials(rng, 6, noises), draw_trials(rng, 3, noises)]
    one = {(0, 0): kept_of(BOTH, folds[0], 0), (0, 1): kept_of(BOTH, folds[0], 1), (1, 0): kept_of(BOTH, folds[1], 0)}
    other = {(0, 0): kept_of(BOTH, folds[0], 2), (0, 1): kept_of(BOTH, folds[0], 3), (1, 0): kept_of(BOTH, folds[1], 2)}
    found = paired_differences(one, {**other, (2, 0): other[1, 0]}, BOTH)

    def p(trials):
        return BOTH.over(list(trials.values()), np.ones((1, len(trials))))["P"][0]

    of_runs = {key: p(one[key]) - p(other[key]) for key in one}
    assert found is not None
    expected = np.mean([np.mean([of_runs[0, 0], of_runs[0, 1]]), of_runs[1, 0]])
    assert found.scores["P"].difference == pytest.approx(expected)
    assert (found.runs, found.trials) == (3, 9)


def test_only_what_both_have():
    trials = draw_trials(np.random.default_rng(5), 8, [0.1, 0.3])
    one, other = (kept_of(BOTH, trials, system) for system in range(2))
    fewer = {name: kept for name, kept in other.items() if name != "t003"}
    found = paired_differences({(0, 0): one}, {(0, 0): fewer, (0, 1): fewer}, BOTH)
    same = {name: kept for name, kept in one.items() if name != "t003"}
    assert found == paired_differences({(0, 0): same}, {(0, 0): fewer}, BOTH)
    assert found is not None
    assert (found.trials, found.runs) == (7, 1)
    assert paired_differences({(0, 0): one}, {(1, 0): other}, BOTH) is None


def test_the_same_seed_gives_the_same_interval():
    trials = draw_trials(np.random.default_rng(6), 10, [0.1, 0.3])
    one, other = ({(0, 0): kept_of(BOTH, trials, system)} for system in range(2))
    assert paired_differences(one, other, BOTH) == paired_differences(one, other, BOTH)
    assert paired_differences(one, other, BOTH) != paired_differences(one, other, BOTH, seed=1)


def test_the_interval_holds_the_difference_as_often_as_it_says():
    """Of 200 samples of 40 trials: the difference over 3000 trials of the same kind lies in about 95 % of them.

    An interval over frames would hold it far less often: frames of a trial share its shift.
    """
    noises = [0.3, 0.5]
    rng = np.random.default_rng(7)
    everybody = draw_trials(rng, 3000, noises)
    one, other = (kept_of(BOTH, everybody, system) for system in range(2))
    whole = paired_differences({(0, 0): one}, {(0, 0): other}, ConcordanceScorer(BOTH.columns, draws=1))
    assert whole is not None
    truth = whole.scores["P"].difference
    covered = 0
    for _ in range(200):
        chosen = [f"t{at:03d}" for at in rng.choice(3000, 40, replace=False)]
        first, second = ({(0, 0): {name: of[name] for name in chosen}} for of in (one, other))
        found = paired_differences(first, second, ConcordanceScorer(BOTH.columns, draws=300))
        assert found is not None
        covered += found.scores["P"].low <= truth <= found.scores["P"].high
    assert 0.88 <= covered / 200 <= 0.99
