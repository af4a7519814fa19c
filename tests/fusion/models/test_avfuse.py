"""What is our own head's alone; what every head must do is in test_every_head.py."""

from dataclasses import replace

import pytest
import torch

from avfuse.fusion.describe import Reach, describe
from avfuse.fusion.models.avfuse import AvfuseSettings
from avfuse.fusion.models.table import build
from avfuse.fusion.settings import preset

SMALL = AvfuseSettings(channels=(8, 8), heads=2, attention_reach=3, hidden=6)


def made(settings=SMALL, widths=(5, 3, 4)):
    torch.manual_seed(0)
    return build(replace(preset("avfuse"), model=settings), [(width,) for width in widths]).double().eval()


def inputs(widths=(5, 3, 4), count=30):
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn((2, count, width), generator=generator, dtype=torch.float64) for width in widths]
    return features, [torch.ones(2, count, dtype=torch.bool) for _ in widths], torch.ones(2, count, dtype=torch.bool)


def test_it_is_what_the_guide_says():
    found = describe(preset("avfuse"), [(512,), (128,), (128,)])
    assert sum(found.parameters.values()) == 2_029_486
    assert set(found.reach.values()) == {Reach(74, 74)}
    causal = replace(preset("avfuse"), model=AvfuseSettings(causal=True))
    assert set(describe(causal, [(512,), (128,), (128,)]).reach.values()) == {Reach(136, 0)}
    assert preset("avfuse").modality_dropout == 0.1


@pytest.mark.parametrize("missing", [(0,), (2,), (0, 1), (0, 1, 2)], ids=str)
def test_any_modality_may_be_missing(missing):
    """The leading one too: the others are heard all the same, and nothing is not a number."""
    model, (features, valid, mask) = made(), inputs()
    for number in missing:
        valid[number][0] = False
    for rows in features:
        rows.requires_grad_()
    found = model(features, valid, mask)
    found[0].square().sum().backward()
    assert found.isfinite().all()
    for number, rows in enumerate(features):
        assert rows.grad is not None
        assert rows.grad.isfinite().all()
        assert rows.grad[0].any() == (number not in missing)


def test_a_row_of_zeros_is_not_a_row_that_is_missing():
    model, (features, valid, mask) = made(), inputs()
    zeros = [features[0], torch.zeros_like(features[1]), features[2]]
    missing = [valid[0], torch.zeros_like(valid[1]), valid[2]]
    with torch.inference_mode():
        assert (model(zeros, valid, mask) - model(zeros, missing, mask)).abs().max() > 1e-3


@pytest.mark.parametrize("widths", [(5,), (5, 3), (5, 3, 4, 2)])
def test_any_number_of_modalities(widths):
    assert made(widths=widths)(*inputs(widths)).shape == (2, 30, 2)


def test_tanh_bounds_the_output():
    plain, bounded = made(), made(replace(SMALL, tanh=True))
    features, valid, mask = inputs()
    with torch.inference_mode():
        for model in (plain, bounded):
            model.head.weight.mul_(30)
        found, expected = bounded(features, valid, mask), plain(features, valid, mask)
    assert expected.abs().max() > 1
    torch.testing.assert_close(found, expected.tanh())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 3}, "the last of channels, 8, is not a multiple of heads 3"),
        ({"attention_reach": 0}, "attention_reach must be above 0, got 0"),
        ({"channels": ()}, "channels must be above 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
    ],
)
def test_settings_are_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes)
