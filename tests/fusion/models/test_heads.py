from dataclasses import replace

import pytest
import torch
from torch import nn

from avfuse.fusion.models.concat import ConcatSettings
from avfuse.fusion.models.crossattn import CrossAttentionSettings
from avfuse.fusion.models.table import HEADS, build, head_settings
from avfuse.fusion.settings import preset

WIDTHS = (512, 128, 128)
SMALL = CrossAttentionSettings(
    lead_channels=(8, 6), other_channels=(5, 4), kernels=(3, 5), attention_width=8, heads=2, hidden=7
)


def made(settings, widths, outputs=2):
    torch.manual_seed(0)
    name = next(name for name in HEADS if type(head_settings(name)) is type(settings))
    config = replace(preset(name), model=settings, task="va" if outputs == 2 else "valence")
    return build(config, [(width,) for width in widths]).double().eval()


def inputs(widths, windows=2, count=30, seed=0):
    """Features, all valid, no padding."""
    generator = torch.Generator().manual_seed(seed)
    features = [torch.randn((windows, count, width), generator=generator, dtype=torch.float64) for width in widths]
    flags = torch.ones(windows, count, dtype=torch.bool)
    return features, [flags.clone() for _ in widths], flags


def shapes_within(model, *batch):
    """{module: shape of its output} of one pass."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, module in model.named_modules():
        module.register_forward_hook(lambda _, __, out, name=name: shapes.__setitem__(name, tuple(out.shape)))
    with torch.inference_mode():
        model(*batch)
    return shapes


@pytest.fixture(scope="module")
def whole():
    """S1 with its default settings."""
    return made(preset("crossattn").model, WIDTHS)


def test_shape_of_every_part(whole):
    shapes = shapes_within(whole, *inputs(WIDTHS, count=40))
    parts = {"temporal.0": 384, "temporal.1": 192, "temporal.2": 192, "attention.0": 256, "attention.1": 256}
    head = {"head.0": 896, "head.1": 128, "head.2": 128, "head.3": 128, "head": 2}
    assert {name: shapes[name] for name in parts | head} == {n: (2, 40, w) for n, w in (parts | head).items()}
    assert [type(module).__name__ for module in whole.head[:5]] == ["LayerNorm", "Linear", "GELU", "Dropout", "Linear"]
    assert "attention.2" not in shapes


def test_parameter_counts(whole):
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in whole.named_children()}
    tcns = 2_906_496 + 2 * 580_800
    attention = 2 * (384 * 256 + 256 + 2 * (192 * 256 + 256))
    assert counts == {"temporal": tcns, "attention": attention, "head": 2 * 896 + 896 * 128 + 128 + 128 * 2 + 2}
    assert [sum(p.numel() for p in tcn.parameters()) for tcn in whole.temporal] == [2_906_496, 580_800, 580_800]


def test_dropout_is_where_the_contract_has_it(whole):
    rates = {name: module.p for name, module in whole.named_modules() if isinstance(module, nn.Dropout)}
    assert set(rates.values()) == {0.1}
    assert len(rates) == 3 * 3 * 4 + 1  # modalities, kernels, levels; the head


@pytest.mark.parametrize(
    ("change", "part", "width"),
    [
        ({"lead_channels": (16, 10)}, "temporal.0", 20),
        ({"other_channels": (9, 9, 9)}, "temporal.2", 18),
        ({"kernels": (2, 3, 9)}, "temporal.0", 18),
        ({"kernels": (4,)}, "temporal.1", 4),
        ({"attention_width": 12, "heads": 3}, "attention.1", 12),
        ({"attention_width": 24}, "head.0", 12 + 2 * 24),
        ({"attention_reach": 2}, "attention.1", 8),
        ({"hidden": 31}, "head.1", 31),
        ({"causal": False}, "head", 2),
    ],
)
def test_every_width_is_a_setting(change, part, width):
    shapes = shapes_within(made(replace(SMALL, **change), (5, 3, 4)), *inputs((5, 3, 4)))
    assert shapes[part] == (2, 30, width)
    assert shapes["head"] == (2, 30, 2)


@pytest.mark.parametrize("widths", [(5,), (5, 3), (5, 3, 4, 2)])
@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("settings", [SMALL, ConcatSettings()], ids=["crossattn", "concat"])
def test_any_number_of_modalities_and_outputs(settings, widths, outputs):
    model = made(settings, widths, outputs)
    assert model(*inputs(widths)).shape == (2, 30, outputs)


def test_a_single_modality_has_no_attention():
    model = made(SMALL, (5,))
    assert len(model.attention) == 0
    assert model.head[0].normalized_shape == (12,)


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("settings", [SMALL, ConcatSettings()], ids=["crossattn", "concat"])
def test_every_modality_is_used(settings, number):
    model = made(settings, (5, 3, 4))
    features, valid, mask = inputs((5, 3, 4))
    features[number].requires_grad_()
    model(features, valid, mask).square().sum().backward()
    assert features[number].grad.abs().amax((0, 2)).min() > 0


@pytest.mark.parametrize("causal", [True, False])
def test_padded_rows_change_nothing_at_real_rows(causal):
    model = made(replace(SMALL, causal=causal), (5, 3, 4))
    features, valid, mask = inputs((5, 3, 4))
    with torch.inference_mode():
        expected = model(features, valid, mask)
        padded = [nn.functional.pad(rows, (0, 0, 0, 25)) for rows in features]
        flags = (torch.arange(55) < 30).expand(2, 55)
        for there in (flags, torch.ones_like(flags)):  # what `valid` says of padding does not matter
            found = model(padded, [there] * 3, flags)[:, :30]
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)


def test_numbers_in_the_padding_change_nothing_at_real_rows():
    model = made(SMALL, (5, 3, 4))
    features, valid, _ = inputs((5, 3, 4))
    mask = torch.arange(30).expand(2, 30) < torch.tensor([[30], [12]])
    spoiled = [torch.where(mask[..., None], rows, 100.0) for rows in features]
    with torch.inference_mode():
        clean, found = model(features, valid, mask), model(spoiled, valid, mask)
    assert torch.equal(found[mask], clean[mask])
    assert not torch.equal(found, clean)


def test_rows_that_are_not_valid_are_not_attended_to():
    """A voice that is not there tells nothing at its own rows; later ones see it through their TCN."""
    model = made(SMALL, (5, 3))
    features, valid, mask = inputs((5, 3))
    valid[1][:, 10:] = False
    other = [features[0], features[1].clone()]
    other[1][:, 10:] += 5
    with torch.inference_mode():
        assert torch.equal(model(features, valid, mask), model(other, valid, mask))
        valid[1][:] = True
        assert not torch.equal(model(features, valid, mask), model(other, valid, mask))


def test_a_window_without_a_voice_is_finite_and_leaves_the_others_alone():
    model = made(SMALL, (5, 3, 4))
    features, valid, mask = inputs((5, 3, 4))
    with torch.inference_mode():
        expected = model(features, valid, mask)
    valid[1][1], valid[2][1] = False, False
    for rows in features:
        rows.requires_grad_()
    found = model(features, valid, mask)
    found.square().sum().backward()
    assert torch.isfinite(found).all()
    assert torch.equal(found[0], expected[0])
    assert not torch.equal(found[1], expected[1])
    assert all(torch.isfinite(rows.grad).all() for rows in features)
    assert not features[1].grad[1].any()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_the_voice_is_heard_at_every_frame_of_the_window():
    """Attention is over the whole window: a change in the voice moves frames before it, too."""
    model = made(SMALL, (5, 3))
    features, valid, mask = inputs((5, 3))
    other = [features[0], features[1].clone()]
    other[1][:, 25] += 5
    with torch.inference_mode():
        moved = (model(features, valid, mask) - model(other, valid, mask)).abs().amax(-1)
    assert moved.min() > 0


def test_the_voice_is_heard_as_far_as_the_reach():
    model = made(replace(SMALL, attention_reach=3), (5, 3))
    features, valid, mask = inputs((5, 3))
    other = [features[0], features[1].clone()]
    other[1][:, 20] += 5
    field = 1 + 2 * (5 - 1) * 3  # of the voice's own TCN
    with torch.inference_mode():
        moved = (model(features, valid, mask) - model(other, valid, mask)).abs().amax((0, 2))
    assert moved.nonzero().flatten().tolist() == list(range(17, min(20 + field + 3, 30)))


def test_the_face_is_heard_from_its_own_row_on():
    model = made(SMALL, (5,))
    features, valid, mask = inputs((5,))
    other = [features[0].clone()]
    other[0][:, 20] += 5
    with torch.inference_mode():
        found, moved = model(features, valid, mask), model(other, valid, mask)
    assert torch.equal(found[:, :20], moved[:, :20])
    assert not torch.equal(found[:, 20], moved[:, 20])


def test_tanh_bounds_the_output():
    features, valid, mask = inputs((5, 3), seed=1)
    plain, bounded = made(SMALL, (5, 3)), made(replace(SMALL, tanh=True), (5, 3))
    for model in (plain, bounded):
        with torch.no_grad():
            model.head[4].weight.mul_(100)
    with torch.inference_mode():
        found, expected = bounded(features, valid, mask), plain(features, valid, mask)
    assert expected.abs().max() > 1
    assert found.abs().max() <= 1
    torch.testing.assert_close(found, expected.tanh())


def test_concat_is_one_linear_layer():
    model = made(ConcatSettings(), (5, 3))
    features, valid, mask = inputs((5, 3))
    expected = torch.cat(features, -1) @ model.linear.weight.T + model.linear.bias
    torch.testing.assert_close(model(features, valid, mask), expected)
    assert sum(parameter.numel() for parameter in model.parameters()) == 8 * 2 + 2


@pytest.mark.parametrize("settings", [replace(SMALL, dropout=0.5), ConcatSettings(dropout=0.5)])
def test_dropout_is_there_in_training_only(settings):
    model, batch = made(settings, (5, 3)), inputs((5, 3))
    with torch.inference_mode():
        assert torch.equal(model(*batch), model(*batch))
        model.train()
        assert not torch.equal(model(*batch), model(*batch))
