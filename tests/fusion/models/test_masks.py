"""What must hold of every head that takes rows which are not real out of its numbers."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from avfuse.fusion.config import HeadSettings
from avfuse.fusion.models.can import CANSettings
from avfuse.fusion.models.expr_transformer import ExprTransformerSettings
from avfuse.fusion.models.lfan import LFANSettings
from avfuse.fusion.models.table import build
from avfuse.fusion.models.tcn_transformer import TCNTransformerSettings
from avfuse.fusion.settings import preset

CHANNELS: dict[str, Any] = {"lead_channels": (8, 6), "other_channels": (5, 4), "kernel": 3}
BY_WIDTH: dict[str, Any] = {**CHANNELS, "narrow_channels": (5, 4), "dropout": 0.0}
ENCODER: dict[str, Any] = {"layers": 2, "heads": 2, "feed_forward": 8, "dropout": 0.0}
S2: dict[str, Any] = {**CHANNELS, **ENCODER, "tcn_dropout": 0.0, "hidden": 6}
HEADS: dict[str, HeadSettings] = {
    "lfan": LFANSettings(**BY_WIDTH, attention_width=8),
    "lfan, to both sides": LFANSettings(**BY_WIDTH, attention_width=8, causal=False),
    "can": CANSettings(**BY_WIDTH, attention_width=8),
    "tcn-transformer": TCNTransformerSettings(**S2),
    "tcn-transformer, maps": TCNTransformerSettings(**S2),
    "tcn-transformer, without TCNs": TCNTransformerSettings(**S2, tcn=False),
    "expr-transformer": ExprTransformerSettings(**ENCODER, head_width=4),
}
CAUSAL = ("lfan", "can")
each_head = pytest.mark.parametrize("head", HEADS)
in_both_modes = pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])


def shapes_of(head, modalities=3):
    return [(6, 3, 2) if head.endswith("maps") else (6,), (5,), (3,), (4,)][:modalities]


def made(head, training=False, outputs=2, modalities=3):
    torch.manual_seed(0)
    config = replace(
        preset(head.partition(",")[0]),
        model=HEADS[head],
        modalities=("face", "voice", "mfcc", "words")[:modalities],
        task="va" if outputs == 2 else "arousal",
    )
    return build(config, shapes_of(head, modalities)).double().train(training)


def inputs(head, windows=2, count=30, modalities=3):
    generator = torch.Generator().manual_seed(0)
    shapes = shapes_of(head, modalities)
    features = [torch.randn((windows, count, *s), generator=generator, dtype=torch.float64) for s in shapes]
    there = torch.ones(windows, count, dtype=torch.bool)
    return features, [there.clone() for _ in shapes], there


def spoiled(features, flags, value):
    """The features with `value` where their flag is false."""
    return [
        rows.masked_fill(~f.view(*f.shape, *[1] * (rows.dim() - 2)), value)
        for rows, f in zip(features, flags, strict=True)
    ]


@each_head
@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("modalities", [2, 4])
def test_any_number_of_modalities_and_outputs(head, outputs, modalities):
    model = made(head, outputs=outputs, modalities=modalities)
    assert model(*inputs(head, modalities=modalities)).shape == (2, 30, outputs)


@each_head
@in_both_modes
def test_padding_moves_nothing(head, training):
    features, valid, there = inputs(head)
    expected = made(head, training)(features, valid, there)
    padded = [nn.functional.pad(rows, (*[0] * (2 * (rows.dim() - 2)), 0, 25), value=9.0) for rows in features]
    mask = (torch.arange(55) < 30).expand(2, 55)
    for flags in (mask, torch.ones_like(mask)):  # what `valid` says of padding does not matter
        model = made(head, training)
        found = model(padded, [flags] * 3, mask)
        torch.testing.assert_close(found[:, :30], expected, rtol=0, atol=1e-11)
    again = made(head, training)
    again(features, valid, there)
    for name, tensor in model.state_dict().items():  # the running numbers of batch norm, too
        torch.testing.assert_close(tensor, again.state_dict()[name], rtol=0, atol=1e-11)


@each_head
@in_both_modes
def test_rows_that_are_not_valid_move_nothing(head, training):
    features, valid, there = inputs(head)
    valid[0][0, 3:9] = False
    valid[1][1] = False
    valid[2][:, 20:] = False
    for flags in valid:
        flags[0, 25] = False  # nothing is real here
    expected = made(head, training)(features, valid, there)
    found = made(head, training)(spoiled(features, valid, 9.0), valid, there)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)
    everything = made(head, training)(features, inputs(head)[1], there)
    assert (expected - everything).abs().max() > 1e-6


@each_head
@in_both_modes
def test_a_batch_without_anything_real_is_finite(head, training):
    model = made(head, training)
    features, _, there = inputs(head)
    found = model(features, [torch.zeros_like(there)] * 3, there)
    found.square().sum().backward()
    assert torch.isfinite(found).all()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())


@each_head
def test_the_order_of_the_batch_does_not_matter(head):
    model = made(head)
    features, valid, there = inputs(head, windows=4)
    order = torch.tensor([2, 0, 3, 1])
    with torch.inference_mode():
        expected = model(features, valid, there)[order]
        found = model([rows[order] for rows in features], [flags[order] for flags in valid], there)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@each_head
def test_what_is_to_come_is_not_seen_where_the_docs_say_so(head):
    model = made(head)
    features, valid, there = inputs(head)
    later = [rows.clone() for rows in features]
    for rows in later:
        rows[:, 20] += 5
    with torch.inference_mode():
        moved = (model(features, valid, there) - model(later, valid, there)).abs().amax((0, 2))
    assert moved[20] > 1e-6
    assert (moved[:20] == 0).all() == (head in CAUSAL)


@each_head
def test_gradients_reach_every_parameter_and_every_modality(head):
    model = made(head, training=True)
    features, valid, there = inputs(head)
    for rows in features:
        rows.requires_grad_()
    model(features, valid, there).pow(3).sum().backward()
    # A bias before batch norm, or of the keys under a softmax, moves nothing: its gradient is rounding.
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    for rows in features:
        assert rows.grad.flatten(2).abs().amax((0, 2)).min() > 0
