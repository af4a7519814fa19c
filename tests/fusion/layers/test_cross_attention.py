import math

import pytest
import torch
from torch import nn

from avfuse.fusion.layers.cross_attention import CrossAttention


def rows(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 0.5


@pytest.fixture
def attention():
    torch.manual_seed(0)
    return CrossAttention(query_width=12, key_width=6, width=8, heads=4).double()


def by_hand(attention, asking, answering, valid):
    """softmax(Q Kᵀ / √d) V of one window, head by head, over the valid frames alone."""
    if not valid.any():
        return torch.zeros(len(asking), 8, dtype=asking.dtype)
    query, key, value = attention.query(asking), attention.key(answering)[valid], attention.value(answering)[valid]
    answers = []
    for q, k, v in zip(*(part.chunk(attention.heads, -1) for part in (query, key, value)), strict=True):
        answers.append(torch.softmax(q @ k.T / math.sqrt(q.shape[-1]), -1) @ v)
    return torch.cat(answers, -1)


def test_is_its_formula_over_the_valid_frames(attention):
    asking, answering = rows(3, 20, 12), rows(3, 20, 6, seed=1)
    valid = torch.rand((3, 20), generator=torch.Generator().manual_seed(2)) < 0.5
    with torch.inference_mode():
        found = attention(asking, answering, valid)
        for window in range(3):
            expected = by_hand(attention, asking[window], answering[window], valid[window])
            torch.testing.assert_close(found[window], expected, rtol=0, atol=1e-14)


def test_is_torchs_own_attention():
    """With one width for all three and the output's projection taken away."""
    torch.manual_seed(0)
    ours = CrossAttention(8, 8, 8, 2).double()
    theirs = nn.MultiheadAttention(8, 2, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([part.weight for part in (ours.query, ours.key, ours.value)]))
        theirs.in_proj_bias.copy_(torch.cat([part.bias for part in (ours.query, ours.key, ours.value)]))
        theirs.out_proj.weight.copy_(torch.eye(8))
        theirs.out_proj.bias.zero_()
        asking, answering = rows(2, 15, 8), rows(2, 15, 8, seed=1)
        valid = torch.arange(15).expand(2, 15) < torch.tensor([[15], [9]])
        expected, _ = theirs(asking, answering, answering, key_padding_mask=~valid)
        torch.testing.assert_close(ours(asking, answering, valid), expected, rtol=0, atol=1e-14)


def test_the_shape_is_its_width_at_each_asking_frame(attention):
    assert attention(rows(2, 20, 12), rows(2, 20, 6), torch.ones(2, 20, dtype=torch.bool)).shape == (2, 20, 8)


@pytest.mark.parametrize("garbage", [1e3, -1e30])
def test_frames_that_are_not_valid_are_never_attended_to(attention, garbage):
    asking, answering = rows(2, 20, 12), rows(2, 20, 6, seed=1)
    valid = torch.rand((2, 20), generator=torch.Generator().manual_seed(2)) < 0.5
    spoiled = torch.where(valid[..., None], answering, garbage).requires_grad_()
    found = attention(asking, spoiled, valid)
    assert torch.equal(found, attention(asking, answering, valid))
    found.square().sum().backward()
    assert spoiled.grad is not None
    assert not spoiled.grad[~valid].any()
    assert spoiled.grad[valid].abs().sum(-1).min() > 0


def test_one_valid_frame_gets_all_the_attention(attention):
    asking, answering = rows(1, 20, 12), rows(1, 20, 6, seed=1)
    found = attention(asking, answering, torch.arange(20)[None] == 7)
    torch.testing.assert_close(found[0], attention.value(answering)[0, 7].expand(20, 8))


def test_a_window_without_a_valid_frame_answers_zeros_and_has_finite_gradients(attention):
    asking, answering = rows(2, 20, 12).requires_grad_(), rows(2, 20, 6, seed=1).requires_grad_()
    valid = torch.tensor([[True], [False]]).expand(2, 20)
    found = attention(asking, answering, valid)
    assert not found[1].any()
    assert found[0].abs().min() > 0
    found.square().sum().backward()
    gradients = [asking.grad, answering.grad, *(parameter.grad for parameter in attention.parameters())]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert not asking.grad[1].any()
    assert not answering.grad[1].any()


def test_one_window_does_not_see_another(attention):
    asking, answering, valid = rows(2, 20, 12), rows(2, 20, 6, seed=1), torch.ones(2, 20, dtype=torch.bool)
    other = answering.clone()
    other[1] += 1
    assert torch.equal(attention(asking, other, valid)[0], attention(asking, answering, valid)[0])


@pytest.mark.parametrize("reach", [1, 4, 100])
def test_a_reach_leaves_out_what_is_further_away(reach):
    torch.manual_seed(0)
    attention = CrossAttention(12, 6, 8, 4, reach).double()
    asking, answering = rows(1, 20, 12), rows(1, 20, 6, seed=1)
    valid = (torch.arange(20) < 12)[None]
    with torch.inference_mode():
        found = attention(asking, answering, valid)[0]
        for frame in range(20):
            near = valid[0] & ((torch.arange(20) - frame).abs() <= reach)
            expected = by_hand(attention, asking[0, frame, None], answering[0], near)[0]
            torch.testing.assert_close(found[frame], expected, rtol=0, atol=1e-14)
    assert found[-1].any() == (reach == 100)


def test_heads_share_the_width_evenly():
    with pytest.raises(ValueError, match="width 30 is not a multiple of its 4 heads"):
        CrossAttention(12, 6, 30, 4)


@pytest.mark.parametrize("reach", [0, 4])
def test_causal_attention_asks_nobody_who_is_later(reach):
    torch.manual_seed(0)
    attention = CrossAttention(12, 6, 8, 4, reach, causal=True).double()
    asking, answering = rows(1, 20, 12), rows(1, 20, 6, seed=1)
    valid = (torch.arange(20) > 2)[None]
    with torch.inference_mode():
        found = attention(asking, answering, valid)[0]
        for frame in range(20):
            before = frame - torch.arange(20)
            near = valid[0] & (before >= 0) & (before <= (reach or 20))
            expected = by_hand(attention, asking[0, frame, None], answering[0], near)[0]
            torch.testing.assert_close(found[frame], expected, rtol=0, atol=1e-14)
    assert not found[:3].any()


def test_offsets_are_added_to_the_scores_of_each_head():
    """A large number at one offset makes every frame hear the one that is so far away, whatever it says."""
    torch.manual_seed(0)
    attention = CrossAttention(12, 6, 8, 4, reach=3, offsets=True).double()
    asking, answering, valid = rows(1, 20, 12), rows(1, 20, 6, seed=1), torch.ones(1, 20, dtype=torch.bool)
    plain = CrossAttention(12, 6, 8, 4, reach=3).double()
    plain.load_state_dict({k: v for k, v in attention.state_dict().items() if k != "offsets"})
    assert attention.offsets is not None
    with torch.no_grad():
        assert torch.equal(attention(asking, answering, valid), plain(asking, answering, valid))
        attention.offsets[0, 3 - 2] = 1e3  # the first head, two frames ago
        found, value = attention(asking, answering, valid)[0], attention.value(answering)[0]
    torch.testing.assert_close(found[2:, :2], value[:-2, :2], rtol=0, atol=1e-12)
    torch.testing.assert_close(found[:, 2:], plain(asking, answering, valid)[0, :, 2:].detach(), rtol=0, atol=1e-14)


def test_offsets_need_a_reach():
    with pytest.raises(ValueError, match="offsets are learned within a reach"):
        CrossAttention(12, 6, 8, 4, offsets=True)
