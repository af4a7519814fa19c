import pytest
import torch

from avfuse.fusion.layers.tcn import TCN, MultiScaleTCN

# kernel, levels, frames seen: docs/sources.md (TCN)
FIELDS = [
    *((3, 3, 29), (5, 3, 57), (7, 3, 85)),
    *((3, 4, 61), (5, 4, 121), (7, 4, 181)),
    *((3, 5, 125), (5, 5, 249), (7, 5, 373)),
]


def rows(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 0.5


def made(width, channels, kernel, causal=True, dropout=0.1):
    torch.manual_seed(0)
    return TCN(width, channels, kernel, dropout, causal).double().eval()


def frames_seen(network, count, at):
    """Frames whose change moves the output at `at`, of `count`."""
    x = rows(1, 2, count).requires_grad_()
    network(x)[..., at].sum().backward()
    return x.grad.abs().sum((0, 1)).nonzero().flatten().tolist()


@pytest.mark.parametrize(("kernel", "levels", "field"), FIELDS)
def test_receptive_field(kernel, levels, field):
    network = made(2, [2] * levels, kernel)
    count = field + 20
    assert frames_seen(network, count, count - 1) == list(range(20, count))


@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_receptive_field_of_the_form_that_looks_ahead(kernel):
    network = made(2, [2] * 3, kernel, causal=False)
    reach = (kernel - 1) * (1 + 2 + 4)  # of two convolutions a level, half to either side
    assert frames_seen(network, 2 * reach + 21, reach + 10) == list(range(10, 2 * reach + 11))


@pytest.mark.parametrize("at", [0, 1, 37, 79])
@pytest.mark.parametrize("kernel", [2, 3, 5, 7])
def test_a_change_moves_nothing_before_it(kernel, at):
    network = made(6, [8, 4, 4], kernel)
    before = rows(2, 6, 80)
    after = before.clone()
    after[..., at] += 3
    with torch.inference_mode():
        first, second = network(before), network(after)
    assert torch.equal(first[..., :at], second[..., :at])
    assert (first[..., at] != second[..., at]).any()


@pytest.mark.parametrize(("kernel", "causal"), [(3, True), (7, True), (2, False), (3, False), (4, False), (7, False)])
@pytest.mark.parametrize("count", [1, 2, 50])
def test_the_length_stays(kernel, causal, count):
    assert made(3, [5, 4], kernel, causal)(rows(2, 3, count)).shape == (2, 4, count)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kernel", [3, 4, 7])
def test_real_rows_are_independent_of_padding(kernel, causal):
    network = made(3, [5, 4, 4], kernel, causal)
    alone = rows(1, 3, 40)
    with torch.inference_mode():
        expected = network(alone)
        for padding in (1, 7, 100):
            padded = torch.nn.functional.pad(alone, (0, padding))
            mask = (torch.arange(40 + padding) < 40).double()[None, None]
            torch.testing.assert_close(network(padded, mask)[..., :40], expected, rtol=0, atol=1e-14)


def test_without_the_mask_padding_would_matter_where_rows_look_ahead():
    network = made(3, [5, 4, 4], 3, causal=False)
    alone = rows(1, 3, 40)
    with torch.inference_mode():
        padded = network(torch.nn.functional.pad(alone, (0, 20)))[..., :40]
        assert (padded - network(alone)).abs().max() > 1e-3


def test_the_way_around_is_a_convolution_only_where_widths_differ():
    names = set(made(3, [5, 5, 4], 3).state_dict())
    assert {name.rpartition(".")[0] for name in names if "downsample" in name} == {
        "network.0.downsample",
        "network.2.downsample",
    }


def test_dropout_is_there_in_training_only():
    network, x = made(3, [5, 4], 3, dropout=0.5), rows(1, 3, 50)
    with torch.inference_mode():
        assert torch.equal(network(x), network(x))
        network.train()
        assert not torch.equal(network(x), network(x))


@pytest.mark.parametrize(
    ("width", "channels", "single", "together"),
    [
        (512, 128, (608_384, 968_832, 1_329_280), 2_906_496),
        (128, 64, (119_872, 193_600, 267_328), 580_800),
        (39, 64, (97_088, 159_424, 221_760), 478_272),
    ],
)
def test_parameter_counts(width, channels, single, together):
    network = MultiScaleTCN(width, [channels] * 4, (3, 5, 7), 0.1, causal=True)
    assert tuple(sum(p.numel() for p in scale.parameters()) for scale in network.scales) == single
    assert sum(p.numel() for p in network.parameters()) == together


def test_parallel_tcns_lie_side_by_side():
    torch.manual_seed(0)
    network = MultiScaleTCN(6, [5, 4], (3, 5), 0.0, causal=True).double().eval()
    x, mask = rows(2, 30, 6), torch.ones(2, 30, dtype=torch.bool)
    with torch.inference_mode():
        out = network(x, mask)
        parts = [scale(x.transpose(1, 2)).transpose(1, 2) for scale in network.scales]
    assert out.shape == (2, 30, network.width) == (2, 30, 8)
    assert torch.equal(out, torch.cat(parts, -1))
