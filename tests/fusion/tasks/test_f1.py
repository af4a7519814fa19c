"""F1 as metric and as loss: against definitions written out, scikit-learn's and torch's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from avfuse.fusion.tasks.au import binary_cross_entropy, flag_scores, positive_weights
from avfuse.fusion.tasks.expr import class_scores
from avfuse.fusion.tasks.f1 import class_f1, confusion, cross_entropy, f1, soft_f1

NAMES = tuple("abcdefgh")


def plain_f1(truth, given):
    """F1 of the true values, by precision and recall; 0 where it is not defined."""
    hits = np.sum(truth & given)
    precision, recall = hits / max(given.sum(), 1), hits / max(truth.sum(), 1)
    return 0.0 if hits == 0 else 2 * precision * recall / (precision + recall)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=40))
def test_f1_of_classes(pairs):
    truth, predicted = np.array(pairs, int).reshape(-1, 2).T
    labels, rows = truth[:, None].astype(np.float32), np.eye(8, dtype=np.float32)[predicted]
    scores = class_scores(NAMES, rows, labels, np.ones(len(truth), bool))
    each = [plain_f1(truth == number, predicted == number) for number in range(8)]
    assert [scores[f"f1_{name}"] for name in NAMES] == pytest.approx(each)
    assert scores["f1_macro"] == pytest.approx(np.mean(each))
    assert scores["accuracy"] == pytest.approx(np.mean(truth == predicted) if len(truth) else 0)


def test_f1_is_scikit_learn_s():
    metrics = pytest.importorskip("sklearn.metrics", reason="of the extra `test`")
    rng = np.random.default_rng(0)
    for classes in (8, 3):  # of three classes five are neither true nor predicted
        truth, predicted = rng.integers(0, classes, 500), rng.integers(0, classes, 500)
        expected = metrics.f1_score(truth, predicted, average="macro", labels=range(8), zero_division=0)
        assert class_f1(confusion(truth, predicted, 8)).mean() == pytest.approx(expected, abs=1e-12)
    truth, rows = rng.integers(0, 2, (500, 8)), rng.random((500, 8))
    truth[:, 3] = 0
    expected = metrics.f1_score(truth, rows >= 0.5, average="macro", zero_division=0)
    assert flag_scores(NAMES, rows, truth, np.ones(500, bool))["f1_macro"] == pytest.approx(expected, abs=1e-12)


def test_a_masked_flag_is_in_no_other_s_way():
    rng = np.random.default_rng(1)
    truth, rows = rng.integers(-1, 2, (300, 8)), rng.random((300, 8))
    valid = rng.random(300) < 0.8
    scores = flag_scores(NAMES, rows, truth, valid)
    for at, name in enumerate(NAMES):
        known = valid & (truth[:, at] >= 0)
        assert scores[f"f1_{name}"] == pytest.approx(plain_f1(truth[known, at] == 1, rows[known, at] >= 0.5))


def test_the_soft_f1_of_certain_predictions_is_the_f1():
    rng = np.random.default_rng(2)
    truth, predicted = rng.integers(0, 8, (4, 50)), rng.integers(0, 8, (4, 50))
    logits = 200.0 * torch.eye(8)[torch.from_numpy(predicted)]
    mask = torch.from_numpy(rng.random((4, 50)) < 0.7)
    loss = soft_f1(logits, torch.from_numpy(truth).float().unsqueeze(-1), mask)
    chosen = mask.numpy()
    assert loss.item() == pytest.approx(1 - class_f1(confusion(truth[chosen], predicted[chosen], 8)).mean(), abs=1e-6)


def test_the_soft_f1_equation_by_equation():
    rng = np.random.default_rng(3)
    logits, truth = rng.standard_normal((2, 30, 8)), rng.integers(0, 8, (2, 30))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    y = np.eye(8)[truth]
    hits, false_alarms, misses = (p * y).sum((0, 1)), (p * (1 - y)).sum((0, 1)), ((1 - p) * y).sum((0, 1))
    precision, recall = hits / (hits + false_alarms), hits / (hits + misses)
    loss = soft_f1(torch.from_numpy(logits), torch.from_numpy(truth).unsqueeze(-1), torch.ones(2, 30, dtype=torch.bool))
    assert loss.item() == pytest.approx(1 - np.mean(2 * precision * recall / (precision + recall)), abs=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_torch_s(smoothing):
    torch.manual_seed(0)
    logits, truth, mask = torch.randn(3, 20, 8), torch.randint(0, 8, (3, 20)), torch.rand(3, 20) < 0.7
    loss = cross_entropy(logits, truth.float().unsqueeze(-1), mask, label_smoothing=smoothing)
    assert loss.item() == pytest.approx(
        functional.cross_entropy(logits[mask], truth[mask], label_smoothing=smoothing).item(), abs=1e-6
    )


def test_the_focal_loss_by_its_definition():
    torch.manual_seed(1)
    logits, truth = torch.randn(2, 20, 8), torch.randint(0, 8, (2, 20))
    loss = cross_entropy(logits, truth.float().unsqueeze(-1), torch.ones(2, 20, dtype=torch.bool), focal_gamma=2.0)
    p = logits.softmax(-1).gather(-1, truth.unsqueeze(-1))
    assert loss.item() == pytest.approx((-((1 - p) ** 2) * p.log()).mean().item(), abs=1e-6)


def test_binary_cross_entropy_is_torch_s():
    torch.manual_seed(2)
    logits, truth = 3 * torch.randn(3, 20, 4), torch.randint(-1, 2, (3, 20, 4)).float()
    mask, weights = torch.rand(3, 20) < 0.7, [1.0, 2.0, 0.5, 7.0]
    loss = binary_cross_entropy(logits, truth, mask, weights=weights)
    each = functional.binary_cross_entropy_with_logits(
        logits, truth.clamp(min=0), pos_weight=torch.tensor(weights), reduction="none"
    )
    assert loss.item() == pytest.approx(each[mask.unsqueeze(-1) & (truth >= 0)].mean().item(), abs=1e-6)
    assert binary_cross_entropy(1000 * logits, truth, mask).isfinite()


def test_weights_are_zeros_over_ones():
    labels = np.array([[1, 0, 1, 0], [0, 0, 1, 1], [0, -1, 1, -1], [0, 0, -1, -1]])
    assert positive_weights(labels) == [3, 1, 1, 1]
    assert positive_weights(np.array([[1]] + [[0]] * 5000)) == [100]


def test_f1_of_nothing_is_0():
    assert f1(np.zeros(2), np.zeros(2), np.zeros(2)).tolist() == [0, 0]
