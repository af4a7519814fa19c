"""The fast recurrences are torch's own cells, step by step, and padding is not read."""

import pytest
import torch
from torch import nn

from avfuse.fusion.layers.recurrence import BiLSTM, LSTMs, real_rows


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def stepped(cell, rows):
    """States and cells [B, T, h] of an LSTMCell over rows [B, T, D], one step after the other."""
    state = cell_state = rows.new_zeros(len(rows), cell.hidden_size)
    states, cells = [], []
    for t in range(rows.shape[1]):
        state, cell_state = cell(rows[:, t], (state, cell_state))
        states.append(state)
        cells.append(cell_state)
    return torch.stack(states, 1), torch.stack(cells, 1)


@pytest.fixture
def lstms():
    torch.manual_seed(0)
    return LSTMs((5, 3), 4).double()


@pytest.mark.parametrize("count", [1, 2, 9])
def test_states_cells_and_gradients_are_those_of_the_cells(lstms, count):
    rows = [drawn(2, count, width, seed=width).requires_grad_() for width in (5, 3)]
    weight = drawn(2, 2, 2, count, 4)  # states and cells, modalities
    states, cells = lstms(rows)
    found = torch.stack([states, cells]).transpose(2, 3)
    each = [stepped(cell, one) for cell, one in zip(lstms.cells, rows, strict=True)]
    expected = torch.stack([torch.stack(kind) for kind in zip(*each, strict=True)])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    wanted = [*rows, *lstms.parameters()]
    ours, theirs = (torch.autograd.grad((out * weight).sum(), wanted) for out in (found, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kept", [0, 1], ids=["states", "cells"])
def test_gradients_of_one_of_both_alone(lstms, kept):
    rows = [drawn(2, 6, width, seed=width) for width in (5, 3)]
    ours = torch.autograd.grad(lstms(rows)[kept].square().sum(), list(lstms.parameters()), allow_unused=True)
    cells = [stepped(cell, each)[kept] for cell, each in zip(lstms.cells, rows, strict=True)]
    theirs = torch.autograd.grad(torch.stack(cells).square().sum(), list(lstms.parameters()))
    for one, other in zip(ours, theirs, strict=True):
        assert one is not None
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


def test_both_ways_are_those_of_torch_over_the_real_rows():
    torch.manual_seed(0)
    ours, theirs = BiLSTM(5, 4).double(), nn.LSTM(5, 4, batch_first=True, bidirectional=True).double()
    for cell, suffix in zip(ours.directions.cells, ("_l0", "_l0_reverse"), strict=True):
        cell.load_state_dict({name: theirs.state_dict()[name + suffix] for name in cell.state_dict()})
    rows, lengths = drawn(3, 7, 5), torch.tensor([7, 4, 1])
    mask = torch.arange(7) < lengths[:, None]
    packed = nn.utils.rnn.pack_padded_sequence(rows, lengths, batch_first=True)
    expected, _ = nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], batch_first=True)
    found = torch.cat(ours(rows, mask), -1)
    torch.testing.assert_close(found[mask], expected[mask], rtol=0, atol=1e-9)
    ours_back = torch.autograd.grad(found[mask].square().sum(), list(ours.parameters()))
    theirs_back = torch.autograd.grad(expected[mask].square().sum(), list(theirs.parameters()))
    for one, other in zip(ours_back, theirs_back, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_steps_keep_their_format_under_autocast(precision):
    torch.manual_seed(0)
    lstm, mask = BiLSTM(5, 4), torch.ones(2, 30, dtype=torch.bool)
    rows = drawn(2, 30, 5).float()
    whole = torch.cat(lstm(rows, mask), -1)
    with torch.autocast("cpu", dtype=precision):
        halved = torch.cat(lstm(rows, mask), -1)
    halved.square().sum().backward()
    assert halved.dtype == torch.float32
    torch.testing.assert_close(halved, whole, rtol=0, atol=0.02)
    assert all(parameter.grad is not None and torch.isfinite(parameter.grad).all() for parameter in lstm.parameters())


def test_rows_that_are_not_real_are_zeros_whatever_they_hold():
    rows = torch.full((1, 3, 2), float("nan"))
    rows[0, 1] = 5.0
    valid, mask = torch.tensor([[False, True, True]]), torch.tensor([[True, True, False]])
    assert real_rows([rows], [valid], mask)[0].tolist() == [[[0, 0], [5, 5], [0, 0]]]
