"""One suite over all tasks: what a loss, a score and a prediction of each must keep; and expr and au end to end."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from avfuse.features_store.labels.corpus import labels_of, open_corpus
from avfuse.features_store.labels.kinds import AU, EXPR, LabelKind
from avfuse.fusion.artifacts.state import read_metrics
from avfuse.fusion.models.crossattn import CrossAttentionSettings
from avfuse.fusion.models.table import build
from avfuse.fusion.settings import preset
from avfuse.fusion.tasks.au import detection
from avfuse.fusion.tasks.expr import classification
from avfuse.fusion.tasks.table import TASKS, joint_task, make_loss
from avfuse.fusion.tasks.va import regression

ROOT = Path(__file__).parents[3]
LOSSES = [(task, loss) for task in TASKS for loss in TASKS[task].losses]
VALIDATION = [f"clip{number}" for number in range(20) if number % 4 == 3]


def drawn_labels(task, rows, rng):
    """Labels [rows, L] as a file of this kind may have them, none of them masked."""
    kind = task.labels
    if kind.values == "real":
        return rng.uniform(kind.lowest, kind.highest, (rows, kind.width)).astype(np.float32)
    return rng.integers(0, len(kind.names) if kind.values == "class" else 2, (rows, kind.width)).astype(np.float32)


@pytest.fixture(params=list(TASKS))
def task(request):
    return TASKS[request.param]


class TestEveryTask:
    def test_is_called_as_in_the_table(self, task):
        assert TASKS[task.name] is task
        assert set(task.columns) <= set(task.labels.names)
        assert {*task.primary} <= {score.key for score in task.scores}
        assert task.tabled

    def test_perfect_predictions_score_1(self, task):
        labels = drawn_labels(task, 400, np.random.default_rng(0))
        scores = task.scorer(task.targets(labels), labels, np.ones(400, bool))
        assert list(scores) == [score.key for score in task.scores]
        assert {round(score, 9) for score in scores.values() if score is not None} == {1.0}
        assert task.p(scores) == pytest.approx(1)

    def test_masked_rows_change_no_score(self, task):
        rng = np.random.default_rng(1)
        labels, valid = drawn_labels(task, 300, rng), rng.random(300) < 0.7
        given = rng.random((300, len(task.columns))).astype(np.float32)
        spoiled = np.where(valid[:, None], labels, task.labels.masked)
        assert task.scorer(given, spoiled, valid) == task.scorer(
            given[valid], labels[valid], np.ones(valid.sum(), bool)
        )

    def test_nothing_labelled_scores_0(self, task):
        labels = np.full((9, task.labels.width), task.labels.masked, np.float32)
        scores = task.scorer(np.full((9, len(task.columns)), 0.5, np.float32), labels, np.zeros(9, bool))
        assert {score for score in scores.values() if score is not None} == {0.0}

    def test_predictions_are_decided_as_labels(self, task):
        labels = drawn_labels(task, 50, np.random.default_rng(2))
        assert np.array_equal(task.decide(task.targets(labels)), labels[:, task.label_columns()])

    def test_finished_predictions_are_within_their_limits(self, task):
        rows = task.finish(np.linspace(-3, 3, 40, dtype=np.float32).reshape(-1, 1).repeat(len(task.columns), 1))
        assert (rows.min(), rows.max()) == task.limits


@pytest.mark.parametrize(("name", "loss"), LOSSES)
class TestEveryLoss:
    def made(self, name, loss):
        """Loss, prediction, labels and mask of three windows, one of them padded, and what does not count."""
        rng = np.random.default_rng(3)
        task, config = TASKS[name], replace(preset("concat"), task=name, loss=loss)
        rows = [drawn_labels(task, 40, rng) for _ in range(3)]
        labels = torch.from_numpy(np.stack(rows))[..., task.label_columns()]
        mask = torch.from_numpy(rng.random((3, 40)) < 0.8)
        mask[2, 25:] = False
        prediction = torch.from_numpy(rng.standard_normal((3, 40, len(task.columns))).astype(np.float32))
        return make_loss(config, rows), prediction, labels, mask

    def test_what_does_not_count_changes_neither_loss_nor_gradient(self, name, loss):
        function, prediction, labels, mask = self.made(name, loss)
        outcomes = []
        for filling, label in ((0.0, 0.0), (1e30, TASKS[name].labels.masked)):
            given = prediction.where(mask.unsqueeze(-1), torch.tensor(filling)).requires_grad_()
            value = function(given, labels.where(mask.unsqueeze(-1), torch.tensor(label)), mask)
            value.backward()
            assert given.grad is not None
            assert given.grad[~mask].abs().max() == 0
            assert given.grad[mask].abs().max() > 0
            outcomes.append((value.item(), given.grad[mask]))
        assert outcomes[0][0] == outcomes[1][0]
        assert torch.equal(outcomes[0][1], outcomes[1][1])

    def test_nothing_that_counts_is_no_loss(self, name, loss):
        function, prediction, labels, mask = self.made(name, loss)
        given = prediction.requires_grad_()
        value = function(given, labels, torch.zeros_like(mask))
        value.backward()
        assert value.item() == 0
        assert given.grad is not None
        assert given.grad.abs().max() == 0

    def test_the_order_of_windows_does_not_matter(self, name, loss):
        function, prediction, labels, mask = self.made(name, loss)
        turned = function(prediction[[2, 0, 1]], labels[[2, 0, 1]], mask[[2, 0, 1]])
        assert turned.item() == pytest.approx(function(prediction, labels, mask).item(), rel=1e-6)

    def test_it_falls_to_what_is_right(self, name, loss):
        function, prediction, labels, mask = self.made(name, loss)
        given = prediction.clone().requires_grad_()
        optimizer = torch.optim.Adam([given], lr=0.2)
        values = []
        for _ in range(150):
            optimizer.zero_grad()
            value = function(given, labels, mask)
            value.backward()
            optimizer.step()
            values.append(value.item())
        assert values[-1] < 0.2 * values[0]
        task = TASKS[name]
        rows = given.detach()
        if task.activation != "none":
            rows = rows.softmax(-1) if task.activation == "softmax" else rows.sigmoid()
            assert np.array_equal(task.decide(rows[mask].numpy()), labels[mask].numpy())


class TestTable:
    def test_valence_and_arousal_apart_are_both(self):
        assert joint_task([TASKS["arousal"], TASKS["valence"]]) is TASKS["va"]
        assert joint_task([TASKS["arousal"]]) is TASKS["arousal"]
        with pytest.raises(ValueError, match=r"different tasks \(va, expr\); name runs of one"):
            joint_task([TASKS["va"], TASKS["expr"]])

    def test_makers_refuse_labels_of_another_sort(self):
        with pytest.raises(ValueError, match="real numbers"):
            regression("x", AU, ("AU1",))
        with pytest.raises(ValueError, match="numbers of classes, and AU labels are not"):
            classification("x", AU)
        with pytest.raises(ValueError, match="flags, and EXPR labels are not"):
            detection("x", EXPR)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"loss": "ce"}, "loss 'ce': the task va has auto, ccc"),
            ({"task": "expr", "loss": "bce"}, "the task expr has auto, soft-f1, ce, focal"),
            ({"focal_gamma": 1.0}, "focal_gamma changes nothing under the task va and its loss ccc"),
            ({"task": "expr", "label_smoothing": 0.1}, "label_smoothing changes nothing .* loss soft-f1"),
            ({"task": "au", "label_smoothing_frames": 5}, "label_smoothing_frames changes nothing .* au"),
            ({"task": "expr", "class_weights": False}, "class_weights changes nothing"),
            ({"label_smoothing_frames": 4}, "label_smoothing_frames must be odd"),
            ({"task": "expr", "loss": "ce", "label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\)"),
        ],
    )
    def test_settings_are_checked_against_the_task(self, changes, message):
        with pytest.raises(ValueError, match=message):
            replace(preset("concat"), **changes)


def test_logits_do_not_end_in_tanh():
    settings = CrossAttentionSettings(
        lead_channels=(8,), other_channels=(8,), attention_width=8, hidden=8, tanh=True, heads=2
    )
    for name, tanh in (("va", True), ("expr", False), ("au", False)):
        config = replace(preset("crossattn"), task=name, model=settings)
        network = build(config, [(4,), (3,)])
        assert any(isinstance(each, torch.nn.Tanh) for each in network.modules()) == tanh


@pytest.mark.parametrize("name", ["expr", "au"])
class TestLearned:
    """A law on the planted features is learned on unseen trials, and nothing where labels are another trial's."""

    def test_it_is_learned(self, learned, name):
        metrics = json.loads((learned[name] / "metrics.json").read_text())
        assert metrics["P"] == metrics["f1_macro"] >= 0.8
        own = [metrics[score.key] for score in TASKS[name].scores if not score.short]
        assert metrics["f1_macro"] == pytest.approx(np.mean(own))
        assert metrics["trials"] == len(VALIDATION)
        assert 0 < metrics["mean_trial_f1_macro"] <= 1

    def test_labels_of_other_trials_teach_nothing(self, shuffled, learn, name, tmp_path):
        run = learn(shuffled, tmp_path / "run", "--task", name, "--epochs", 4, "--no-plots")
        metrics = json.loads((run / "metrics.json").read_text())
        corpus = open_corpus(shuffled.annotations, TASKS[name].labels)
        truth = np.concatenate([labels_of(corpus, trial).values for trial in VALIDATION])
        share = [np.mean(column[column >= 0] > 0) for column in truth.T]
        # Of units, F1 of saying yes always; of classes, no more than by guessing.
        chance = np.mean([2 * each / (1 + each) for each in share]) if name == "au" else 1 / 8
        assert metrics["f1_macro"] < chance + 0.1

    def test_the_files(self, learned, name):
        run, task = learned[name], TASKS[name]
        with (run / "history.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == ["epoch", "lr", "loss", "P", *(score.key for score in task.scores), "seconds"]
        lines = (run / "predictions" / "clip3.txt").read_text().splitlines()
        assert lines[0] == ",".join(["time_s", *task.columns, "valid"])
        values = np.array([line.split(",") for line in lines[1:]], float)[:, 1:-1]
        assert values.min() >= 0
        assert values.max() <= 1
        if name == "expr":
            assert values.sum(axis=1) == pytest.approx(np.ones(len(values)), abs=1e-5)
        for picture in ("learning_curves.png", "all_frames.png", "predictions/clip3.png"):
            with Image.open(run / "plots" / picture) as opened:
                opened.load()

    def test_scores_are_those_of_the_prediction_files(self, learned, planted, name):
        task = TASKS[name]
        corpus = open_corpus(planted.annotations, task.labels)
        given, truth, valid = [], [], []
        for trial in VALIDATION:
            track = labels_of(corpus, trial)
            rows = np.loadtxt(learned[name] / "predictions" / f"{trial}.txt", delimiter=",", skiprows=1)
            given.append(rows[:, 1:-1])
            truth.append(track.values)
            valid.append(track.valid)
        scores = task.scorer(np.concatenate(given), np.concatenate(truth), np.concatenate(valid))
        metrics = json.loads((learned[name] / "metrics.json").read_text())
        assert scores == pytest.approx({key: metrics[key] for key in scores}, abs=0.002)

    def test_evaluate(self, learned, avfuse, name):
        words = ("evaluate", "--run", learned[name], "--device", "cpu", "--smooth", "ma:3")
        result = avfuse(*words)
        assert result.exit_code == 0, result.stderr
        titles = [score.title for score in TASKS[name].tabled]
        lines = result.stdout.splitlines()
        assert lines[0].split() == titles
        assert lines[1].startswith("F1, all frames")
        assert f"F1 of {TASKS[name].columns[0]} 0." in result.stdout
        report = json.loads(avfuse(*words, "--json").stdout)
        assert report["f1_macro"] >= 0.8
        assert list(report["by_trial"][0]) == ["trial", "rows", *(score.key for score in TASKS[name].tabled)]

    def test_a_submission_has_the_rows_of_the_sample(self, learned, planted, avfuse, name, tmp_path):
        task = TASKS[name]
        rows = [f"clip7/{number:05d}.jpg" for number in range(3, 200)] + [f"clip0/{n:05d}.jpg" for n in range(1, 220)]
        sample = tmp_path / "sample.txt"
        sample.write_text("\n".join([task.submission_header, *(f"{row}{',0' * task.labels.width}" for row in rows)]))
        words = ("predict", "--run", learned[name], "--store", planted.store, "--device", "cpu")
        more = ("--submission", tmp_path / "out.txt", "--sample", sample, "--allow-length-difference")
        result = avfuse(*words, *more, "--out", tmp_path / "predictions")
        assert result.exit_code == 0, result.stderr
        lines = (tmp_path / "out.txt").read_text().splitlines()
        assert lines[0] == task.submission_header == f"image_location,{task.labels.header}"
        assert [line.split(",")[0] for line in lines[1:]] == rows
        predicted = np.loadtxt(tmp_path / "predictions" / "clip7.txt", delimiter=",", skiprows=1)[:, 1:-1]
        cells = np.array([line.split(",")[1:] for line in lines[1:198]], int)
        assert np.array_equal(cells, task.decide(predicted)[2:199])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["expr", "au"])
def test_compare_is_over_the_task_s_own_scores(planted, avfuse, name, tmp_path):
    """Two cells, one of which sees the voice alone: scores, table and differences are those of the task."""
    place = ("compare", "--store", planted.store, "--annotations", planted.annotations, "--out", tmp_path / "out")
    words = (*place, "--task", name, "--presets", "concat", "--modalities", "face,voice; voice", "--fold", 0)
    settings = ("statistics=feature", "window_frames=60", "hop_frames=40", "lr=0.03", "warmup_epochs=1")
    more = (*(f"--set={each}" for each in settings), "--epochs", 6, "--device", "cpu", "--no-tensorboard")
    result = avfuse(*words, *more)
    assert result.exit_code == 0, result.stderr
    found = json.loads((tmp_path / "out" / "compare.json").read_text())
    both, voice = (run["scores"] for run in found["runs"])
    task = TASKS[name]
    assert both["P"] == pytest.approx(np.mean([both[score] for score in task.primary]))
    assert both["P"] > voice["P"] + 0.1
    (pair,) = found["differences"]
    scores = pair["scores"]
    assert scores["P"]["high"] < 0
    assert scores["P"]["difference"] == pytest.approx(voice["P"] - both["P"], abs=1e-5)
    alone = read_metrics(tmp_path / "out" / "concat_face+voice/fold0/seed0")
    assert {key: alone[key] for key in both if key in alone} == pytest.approx(both)


def test_two_runs_of_different_tasks_are_refused(learned, avfuse):
    result = avfuse("evaluate", "--run", learned["expr"], "--run", learned["au"], "--device", "cpu")
    assert result.exit_code == 1
    assert "the runs have learned different tasks (expr, au)" in result.stderr


def test_an_ensemble_averages_probabilities(learned, planted, learn, avfuse, tmp_path):
    other = learn(planted, tmp_path / "ce", "--task", "expr", "--epochs", 1, "--set", "loss=focal", "--no-plots")
    words = ("predict", "--store", planted.store, "--device", "cpu")
    for name, runs in (("one", [learned["expr"]]), ("two", [other]), ("both", [learned["expr"], other])):
        result = avfuse(*words, *(word for run in runs for word in ("--run", run)), "--out", tmp_path / name)
        assert result.exit_code == 0, result.stderr
    one, two, both = (
        np.loadtxt(tmp_path / name / "clip3.txt", delimiter=",", skiprows=1)[:, 1:-1] for name in ("one", "two", "both")
    )
    assert both == pytest.approx((one + two) / 2, abs=2e-6)


def test_the_worked_example_of_the_guide(planted, learn, monkeypatch, tmp_path):
    """docs/adding-a-task.md adds a regression of one column: its code is run, and its labels are learned."""
    (code, *_) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "adding-a-task.md").read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(code, "adding-a-task.md", "exec"), names)
    labels = names["PAIN"]
    assert isinstance(labels, LabelKind)
    monkeypatch.setitem(TASKS, "pain", names["PAIN_TASK"])
    valence = open_corpus(planted.annotations)
    for trial in valence.files:
        track = labels_of(valence, trial)
        pain = np.where(track.valid, (track.values[:, 0] + 1) / 2, -5)
        rows = [f"{value:.4f}" for value in pain]
        (tmp_path / f"{trial}.csv").write_text("\n".join([labels.header, *rows, ""]))
    run = learn(
        replace(planted, annotations=tmp_path),
        tmp_path.parent / "pain",
        "--set",
        "task=pain",
        "--folds",
        4,
        "--no-plots",
    )
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["P"] == metrics["ccc_pain"] >= 0.8
    assert next(run.glob("predictions/*.txt")).read_text().startswith("time_s,pain,valid\n")
