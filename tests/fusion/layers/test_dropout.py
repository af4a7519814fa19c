import pytest
import torch

from avfuse.fusion.layers.dropout import Dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_a_share_is_dropped_and_the_mean_kept(p):
    torch.manual_seed(0)
    x = torch.ones(401, 997)
    y = Dropout(p)(x)
    assert float((y == 0).float().mean()) == pytest.approx(p, abs=0.004)
    assert y[y != 0].unique().tolist() == pytest.approx([1 / (1 - p)], rel=1e-4)
    assert float(y.mean()) == pytest.approx(1, abs=0.03)


def test_neighbours_are_dropped_independently():
    """One random number makes four masks: any two of them agree as often as chance has it."""
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(400_000)) != 0).view(-1, 4).float()
    together = torch.corrcoef(kept.T) - torch.eye(4)
    assert together.abs().max() < 0.01


def test_gradients_pass_where_numbers_do():
    x = torch.randn(7, 5, 3, requires_grad=True)
    torch.manual_seed(1)
    y = Dropout(0.4)(x)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad == 0, y == 0)
    torch.testing.assert_close(x.grad[y != 0], torch.full_like(x.grad[y != 0], 1 / 0.6), rtol=1e-4, atol=0)


def test_the_seed_decides():
    drawn = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        drawn.append(Dropout(0.3)(torch.ones(100)))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_nothing_is_dropped_in_evaluation_or_at_zero():
    x = torch.randn(10)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_half_precision_stays():
    assert Dropout(0.2)(torch.ones(64, dtype=torch.bfloat16)).dtype is torch.bfloat16
