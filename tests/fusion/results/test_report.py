import numpy as np
import pytest

from avfuse.fusion.data.matching import TrialSource
from avfuse.fusion.results.report import report, report_lines
from avfuse.fusion.tasks.ccc import ccc
from avfuse.fusion.tasks.table import TASKS
from avfuse.fusion.tasks.va import regression

VA = TASKS["va"]

COUNTS = {"a": 60, "b": 40, "c": 25}


@pytest.fixture
def sources():
    """Three trials; some rows of `b` have no label."""
    rng = np.random.default_rng(0)
    made: list[TrialSource] = []
    for name, count in COUNTS.items():
        labelled = rng.random(count) < 0.8 if name == "b" else np.ones(count, bool)
        values = rng.uniform(-1, 1, (count, 2)) + 0.3 * len(made)
        made.append(TrialSource(name, name, np.where(labelled[:, None], values, -5).astype(np.float32), labelled))
    return made


@pytest.fixture
def predictions(sources):
    """Predictions of both tasks, half right."""
    rng = np.random.default_rng(1)
    return {s.name: (s.labels + rng.uniform(-0.8, 0.8, s.labels.shape)).astype(np.float32) for s in sources}


def test_the_score_is_over_all_valid_frames_together(sources, predictions):
    found = report(sources, predictions, VA)
    valid = np.concatenate([s.labelled for s in sources])
    truth = np.concatenate([s.labels for s in sources])[valid]
    rows = np.concatenate([predictions[s.name] for s in sources])[valid]
    assert found.scores["ccc_valence"] == pytest.approx(ccc(rows[:, 0], truth[:, 0]), abs=1e-12)
    assert found.scores["ccc_arousal"] == pytest.approx(ccc(rows[:, 1], truth[:, 1]), abs=1e-12)
    assert found.scores["ccc_valence"] is not None
    assert found.scores["ccc_arousal"] is not None
    assert found.p == (found.scores["ccc_valence"] + found.scores["ccc_arousal"]) / 2
    assert found.rows == valid.sum() < sum(COUNTS.values())


def test_the_mean_of_the_trials_stands_beside_it(sources, predictions):
    found = report(sources, predictions, VA)
    each = [ccc(predictions[s.name][:, 0], s.labels[:, 0], s.labelled) for s in sources]
    assert found.mean_trial["ccc_valence"] == pytest.approx(np.mean(each), abs=1e-12)
    assert found.mean_trial["ccc_valence"] != pytest.approx(found.scores["ccc_valence"], abs=1e-3)
    assert [trial.trial for trial in found.trials] == list(COUNTS)
    assert [trial.scores["ccc_valence"] for trial in found.trials] == pytest.approx(each)
    assert [trial.rows for trial in found.trials] == [60, sources[1].labelled.sum(), 25]


def test_masked_rows_do_not_count(sources, predictions):
    spoiled = {**predictions, "b": np.where(sources[1].labelled[:, None], predictions["b"], 1e6).astype(np.float32)}
    assert report(sources, spoiled, VA) == report(sources, predictions, VA)


@pytest.mark.parametrize(("task", "column"), [("valence", 0), ("arousal", 1)])
def test_one_task_alone(sources, predictions, task, column):
    both = report(sources, predictions, VA)
    alone = report(sources, {name: rows[:, [column]] for name, rows in predictions.items()}, TASKS[task])
    other = {"valence": "arousal", "arousal": "valence"}[task]
    assert alone.p == alone.scores[f"ccc_{task}"] == both.scores[f"ccc_{task}"]
    assert alone.scores[f"ccc_{other}"] is None
    assert alone.mean_trial[f"ccc_{other}"] is None
    assert alone.mean_trial[f"ccc_{task}"] == both.mean_trial[f"ccc_{task}"]
    assert all(trial.scores[f"ccc_{other}"] is None for trial in alone.trials)


def test_columns_are_found_by_name(sources, predictions):
    turned = {name: rows[:, ::-1] for name, rows in predictions.items()}
    found = report(sources, turned, regression("turned", VA.labels, ("arousal", "valence")))
    expected = report(sources, predictions, VA)
    assert (found.scores, found.mean_trial, found.trials) == (expected.scores, expected.mean_trial, expected.trials)


def test_perfect_and_constant_predictions(sources):
    truth = {s.name: s.labels for s in sources}
    assert report(sources, truth, VA).p == 1
    level = {s.name: np.full(s.labels.shape, 0.3, np.float32) for s in sources}
    found = report(sources, level, VA)
    assert (found.scores["ccc_valence"], found.scores["ccc_arousal"], found.p, found.mean_trial["ccc_valence"]) == (
        0,
        0,
        0,
        0,
    )


@pytest.mark.parametrize("labelled_rows", [0, 1])
def test_a_trial_of_which_too_little_is_labelled_is_not_in_the_mean(sources, predictions, labelled_rows):
    flags = np.arange(25) < labelled_rows
    few = [*sources[:2], TrialSource("c", "c", sources[2].labels, flags)]
    found, without = (
        report(few, predictions, VA),
        report(few[:2], predictions, VA),
    )
    assert found.mean_trial["ccc_valence"] == without.mean_trial["ccc_valence"]
    assert found.trials[2].rows == labelled_rows
    assert found.rows == without.rows + labelled_rows


def test_a_trial_with_exactly_two_labelled_rows_is_in_the_mean(sources, predictions):
    few = [*sources[:2], TrialSource("c", "c", sources[2].labels, np.arange(25) < 2)]
    found = report(few, predictions, VA)
    each = [ccc(predictions[s.name][:, 1], s.labels[:, 1], s.labelled) for s in few]
    assert found.trials[2].rows == 2
    assert found.mean_trial["ccc_arousal"] == pytest.approx(np.mean(each), abs=1e-12)
    assert found.mean_trial["ccc_arousal"] != report(few[:2], predictions, VA).mean_trial["ccc_arousal"]


def test_nothing_labelled_is_zero_and_not_nan(sources, predictions):
    nothing = [TrialSource(s.name, s.name, s.labels, np.zeros(s.rows, bool)) for s in sources]
    found = report(nothing, predictions, VA)
    assert (found.rows, found.scores["ccc_valence"], found.p) == (0, 0, 0)
    assert found.mean_trial["ccc_arousal"] is None
    assert "0 labelled frames of 0 trials" in report_lines(found, 10)


def test_json(sources, predictions):
    found = report(sources, predictions, VA)
    assert found.as_json() == {
        "P": found.p,
        "ccc_valence": found.scores["ccc_valence"],
        "ccc_arousal": found.scores["ccc_arousal"],
        "mean_trial_ccc_valence": found.mean_trial["ccc_valence"],
        "mean_trial_ccc_arousal": found.mean_trial["ccc_arousal"],
        "frames": found.rows,
        "trials": 3,
    }


def test_lines(sources, predictions):
    found = report(sources, predictions, VA)
    lines = report_lines(found, 10)
    assert lines[0].split() == ["valence", "arousal", "P"]
    assert lines[1].split()[-3:] == [
        f"{v:.3f}" for v in (found.scores["ccc_valence"], found.scores["ccc_arousal"], found.p)
    ]
    assert found.mean_trial["ccc_valence"] is not None
    assert found.mean_trial["ccc_arousal"] is not None
    mean = (found.mean_trial["ccc_valence"] + found.mean_trial["ccc_arousal"]) / 2
    assert lines[2].split()[-3:] == [
        f"{v:.3f}" for v in (found.mean_trial["ccc_valence"], found.mean_trial["ccc_arousal"], mean)
    ]
    assert lines[3] == f"{found.rows} labelled frames of 3 trials"
    assert [line.split()[0] for line in lines[5:]] == ["trial", *(t for _, t in sorted(_means(found)))]
    assert report_lines(found, 0) == lines[:4]
    single = report_lines(report(sources, {n: r[:, :1] for n, r in predictions.items()}, TASKS["valence"]), 0)
    assert single[1].split()[-3:] == [f"{found.scores['ccc_valence']:.3f}", "–", f"{found.scores['ccc_valence']:.3f}"]


def _means(found):
    return [((trial.scores["ccc_valence"] + trial.scores["ccc_arousal"]) / 2, trial.trial) for trial in found.trials]
