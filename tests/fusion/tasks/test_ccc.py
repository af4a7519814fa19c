import math

import audmetric
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from avfuse.fusion.tasks.ccc import ccc, ccc_loss

LENGTHS = array_shapes(min_dims=1, max_dims=1, min_side=2, max_side=50)
ANY = arrays(np.float64, LENGTHS, elements=st.floats(allow_nan=False, allow_infinity=False))
GRID = st.integers(-1000, 1000).map(lambda number: number / 1000)
PAIRS = LENGTHS.flatmap(lambda shape: arrays(np.float64, (2, *shape), elements=GRID))


def constant(x) -> bool:
    return bool(np.all(x == x[0]))


def as_batch(x: np.ndarray, y: np.ndarray, valid: np.ndarray | None = None, dtype=torch.float64):
    """Sequences [T] as prediction and target [1, T, 1] and flags [1, T]; the prediction wants its gradient."""
    flags = np.ones(len(x), bool) if valid is None else valid
    prediction = torch.tensor(x, dtype=dtype)[None, :, None].requires_grad_()
    return prediction, torch.tensor(y, dtype=dtype)[None, :, None], torch.tensor(flags)[None]


@given(ANY)
def test_a_sequence_agrees_with_itself(x):
    assert ccc(x, x) == (0 if constant(x) else 1)


@pytest.mark.parametrize(
    "x",
    [
        [-1.7e308, 1.7e308],
        [5e-324, 0.0],
        [1e-200, 2e-200, 3e-200],
        [1e16, 1e16 + 2, 1e16 + 4],
        [1e300, 1e-300],
        [0.1] * 999 + [0.1 + 2**-56],
    ],
)
def test_a_sequence_agrees_with_itself_at_the_ends_of_the_range(x):
    assert ccc(x, x) == 1


@given(ANY, st.floats(allow_nan=False, allow_infinity=False))
def test_with_a_constant_it_is_zero(x, value):
    level = np.full(len(x), value)
    assert ccc(x, level) == ccc(level, x) == ccc(level, level) == 0


@given(
    LENGTHS.flatmap(lambda s: arrays(np.float64, (2, *s), elements=st.floats(allow_nan=False, allow_infinity=False)))
)
def test_it_lies_between_minus_one_and_one(pair):
    found = ccc(*pair)
    assert abs(found) <= 1 + 1e-12


@given(PAIRS)
def test_the_order_does_not_matter(pair):
    x, y = pair
    assert ccc(x, y) == pytest.approx(ccc(y, x), abs=1e-12)


@given(PAIRS)
def test_both_signs_may_change(pair):
    x, y = pair
    assert ccc(-x, -y) == ccc(x, y)


@given(PAIRS)
def test_around_zero_one_sign_turns_it(pair):
    x, y = pair
    x, y = np.concatenate([x, -x]), np.concatenate([y, -y])  # both means are 0
    assert ccc(-x, y) == pytest.approx(-ccc(x, y), abs=1e-12)


@given(PAIRS, st.floats(-100, 100), st.floats(1e-3, 1e3))
def test_a_common_shift_and_scale_do_not_matter(pair, shift, scale):
    x, y = pair
    moved = scale * x + shift, scale * y + shift
    assume(constant(x) == constant(moved[0]) and constant(y) == constant(moved[1]))
    assert ccc(*moved) == pytest.approx(ccc(x, y), abs=1e-6)


@given(PAIRS, st.integers(-900, 900))
def test_a_power_of_two_changes_no_bit(pair, exponent):
    x, y = pair
    assert ccc(np.ldexp(x, exponent), np.ldexp(y, exponent)) == ccc(x, y)


@given(PAIRS, st.data())
def test_the_order_of_the_frames_does_not_matter(pair, data):
    order = data.draw(st.permutations(range(pair.shape[1])))
    assert ccc(*pair[:, order]) == pytest.approx(ccc(*pair), abs=1e-12)


@given(PAIRS)
def test_equals_audmetric(pair):
    x, y = pair
    found, expected = ccc(x, y), audmetric.concordance_cc(x, y)
    if math.isnan(expected) or constant(x) or constant(y):  # audmetric correlates rounding noise of constants
        assert found == 0
    else:
        assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("correlation", [-0.9, 0.0, 0.5, 0.99])
def test_equals_audmetric_on_a_long_sequence(correlation):
    rng = np.random.default_rng(0)
    y = 0.3 * rng.standard_normal(300_000) + 0.2
    x = correlation * y + math.sqrt(1 - correlation**2) * 0.3 * rng.standard_normal(300_000)
    assert ccc(x, y) == pytest.approx(audmetric.concordance_cc(y, x), abs=1e-6)


def test_by_hand():
    # means 1 and 2/3, variances 2/3 and 2/9, covariance 1/3: (2/3) / (2/3 + 2/9 + 1/9)
    assert ccc([0, 1, 2], [0, 1, 1]) == pytest.approx(2 / 3, abs=1e-15)


@given(PAIRS, st.data())
def test_masked_rows_do_not_count(pair, data):
    x, y = pair
    valid = data.draw(arrays(np.bool_, len(x)))
    spoiled = np.where(valid, x, np.nan), np.where(valid, y, data.draw(st.sampled_from([np.inf, -5, np.nan])))
    assert ccc(*spoiled, valid) == ccc(x[valid], y[valid])


def test_what_is_too_short_is_zero():
    assert ccc([], []) == ccc([1], [1]) == ccc([1, 2, 3], [1, 2, 3], [False, True, False]) == 0


def test_a_number_that_is_none_shows():
    assert math.isnan(ccc([0.0, np.nan, 1.0], [0.0, 0.5, 1.0]))


@pytest.mark.parametrize(
    ("x", "y", "valid"),
    [([1, 2], [1, 2, 3], None), ([[1, 2]], [[1, 2]], None), ([1, 2], [1, 2], [True]), (1.0, 1.0, None)],
)
def test_other_shapes_are_refused(x, y, valid):
    with pytest.raises(ValueError, match="sequences of one length, got"):
        ccc(x, y, valid)


@settings(deadline=None)
@given(PAIRS, st.data())
def test_the_loss_is_one_minus_the_metric(pair, data):
    valid = data.draw(arrays(np.bool_, pair.shape[1]))
    assume(valid.sum() >= 2)
    x, y = pair
    loss = ccc_loss(*as_batch(x, y, valid))
    assert float(loss.detach()) == pytest.approx(1 - ccc(x, y, valid), abs=1e-6)


@settings(deadline=None)
@given(LENGTHS.flatmap(lambda s: arrays(np.float32, (2, *s), elements=st.floats(-1, 1, width=32))))
def test_the_loss_of_float32_is_one_minus_the_metric(pair):
    x, y = pair
    loss = ccc_loss(*as_batch(x, y, dtype=torch.float32))
    assert float(loss.detach()) == pytest.approx(1 - ccc(*pair), abs=1e-6)


def test_the_loss_adds_tasks_and_averages_windows():
    rng = np.random.default_rng(0)
    prediction, target = rng.uniform(-1, 1, (2, 3, 40, 2))
    valid = rng.random((3, 40)) < 0.7
    expected = np.mean(
        [sum(1 - ccc(p[:, c], t[:, c], v) for c in (0, 1)) for p, t, v in zip(prediction, target, valid, strict=True)]
    )
    loss = ccc_loss(*map(torch.tensor, (prediction, target, valid)))
    assert float(loss) == pytest.approx(expected, abs=1e-6)
    single = ccc_loss(*map(torch.tensor, (prediction[..., :1], target[..., :1], valid)))
    expected = np.mean([1 - ccc(p[:, 0], t[:, 0], v) for p, t, v in zip(prediction, target, valid, strict=True)])
    assert float(single) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("masked_side", ["prediction", "target", "both"])
@pytest.mark.parametrize("spoiled", [math.nan, math.inf, -math.inf, -5.0, 3e38])
def test_masked_frames_change_neither_loss_nor_gradient(masked_side, spoiled):
    rng = np.random.default_rng(1)
    predicted, truth = (rng.uniform(-1, 1, (4, 30, 2)).astype(np.float32) for _ in range(2))
    valid = rng.random((4, 30)) < 0.6
    results = []
    for value in (0.0, spoiled):
        p, t = (
            torch.tensor(np.where(valid[..., None] | (masked_side not in (name, "both")), rows, np.float32(value)))
            for name, rows in (("prediction", predicted), ("target", truth))
        )
        p.requires_grad_()
        loss = ccc_loss(p, t, torch.tensor(valid))
        loss.backward()
        assert p.grad is not None
        results.append((loss.detach(), p.grad))
    (clean, clean_grad), (loss, grad) = results
    assert torch.isfinite(loss)
    assert torch.equal(loss, clean)
    assert torch.equal(grad, clean_grad)
    assert not grad[torch.tensor(~valid)].any()
    assert grad[torch.tensor(valid)].abs().min() > 0


def test_more_padding_changes_neither_loss_nor_gradient():
    rng = np.random.default_rng(2)
    x, y = rng.uniform(-1, 1, (2, 25))
    short = as_batch(x, y)
    long = as_batch(np.pad(x, (0, 75)), np.pad(y, (0, 75)), np.arange(100) < 25)
    losses = [ccc_loss(*each) for each in (short, long)]
    for loss in losses:
        loss.backward()
    assert float(losses[0].detach()) == pytest.approx(float(losses[1].detach()), abs=1e-7)
    torch.testing.assert_close(long[0].grad[:, :25], short[0].grad)


@pytest.mark.parametrize("rows", [0, 1])
def test_windows_with_fewer_than_two_valid_frames_are_left_out(rows):
    rng = np.random.default_rng(3)
    predicted, truth = rng.uniform(-1, 1, (2, 3, 20, 2))
    valid = np.ones((3, 20), bool)
    valid[1, rows:] = False
    prediction = torch.tensor(predicted, requires_grad=True)
    loss = ccc_loss(prediction, torch.tensor(truth), torch.tensor(valid))
    loss.backward()
    alone = ccc_loss(*(torch.tensor(each[[0, 2]]) for each in (predicted, truth, valid)))
    assert torch.equal(loss.detach(), alone)
    assert prediction.grad is not None
    assert not prediction.grad[1].any()
    assert prediction.grad[[0, 2]].abs().min() > 0


@pytest.mark.parametrize("rows", [0, 1])
def test_a_batch_without_a_window_that_counts_is_zero(rows):
    prediction = torch.rand((2, 20, 2), requires_grad=True)
    loss = ccc_loss(prediction, torch.rand(2, 20, 2), (torch.arange(20) < rows).expand(2, 20))
    loss.backward()
    assert float(loss.detach()) == 0
    assert prediction.grad is not None
    assert not prediction.grad.any()


@settings(deadline=None)
@given(st.floats(-1, 1, width=32), st.floats(-1, 1, width=32), st.integers(2, 300))
def test_constants_give_finite_losses_and_gradients(predicted, truth, rows):
    varying = np.linspace(-1, 1, rows)
    levels = np.full(rows, predicted), np.full(rows, truth)
    for x, y in (levels, (levels[0], varying), (varying, levels[1]), (levels[0], levels[0])):
        prediction, target, valid = as_batch(x, y, dtype=torch.float32)
        loss = ccc_loss(prediction, target, valid)
        loss.backward()
        assert float(loss.detach()) == pytest.approx(1, abs=1e-6)
        assert torch.isfinite(prediction.grad).all()


def test_the_gradient_is_that_of_the_formula():
    rng = np.random.default_rng(4)
    x, y = rng.uniform(-1, 1, (2, 12))
    valid = rng.random(12) < 0.8
    batch = as_batch(x, y, valid)
    ccc_loss(*batch).backward()
    step = 1e-5
    for row in range(12):
        moved = [x + sign * step * (np.arange(12) == row) for sign in (1, -1)]
        slope = -(ccc(moved[0], y, valid) - ccc(moved[1], y, valid)) / (2 * step)
        assert float(batch[0].grad[0, row, 0]) == pytest.approx(slope, abs=1e-6)


def test_following_the_gradient_leads_to_agreement():
    rng = np.random.default_rng(5)
    target = torch.tensor(rng.uniform(-1, 1, (2, 50, 2)), dtype=torch.float32)
    prediction = (0.01 * torch.tensor(rng.standard_normal((2, 50, 2)), dtype=torch.float32)).requires_grad_()
    optimizer = torch.optim.Adam([prediction], lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        loss = ccc_loss(prediction, target, torch.ones(2, 50, dtype=torch.bool))
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.01


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_is_not_summed_in_half_precision(dtype):
    rng = np.random.default_rng(6)
    truth = rng.uniform(-1, 1, 300)
    predicted = torch.tensor(0.5 * truth + 0.9)[None, :, None].to(dtype)
    loss = ccc_loss(predicted, torch.tensor(truth)[None, :, None], torch.ones(1, 300, dtype=torch.bool))
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(1 - ccc(predicted[0, :, 0].double().numpy(), truth), abs=1e-6)
