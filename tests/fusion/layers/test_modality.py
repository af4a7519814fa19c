import pytest
import torch
from torch import nn

from avfuse.fusion.layers.modality import MaskedBatchNorm, ModalityTCN, channels_by_width

WIDTH = 6


@pytest.fixture
def frames():
    """Rows [3, 20, 6], of which the first windows' 20, 13 and 4 are real."""
    x = 3 * torch.randn(3, 20, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1
    return x, torch.arange(20) < torch.tensor([[20], [13], [4]])


@pytest.fixture
def norm():
    made = MaskedBatchNorm(WIDTH).double()
    with torch.no_grad():
        made.weight.copy_(torch.linspace(0.5, 2, WIDTH))
        made.bias.copy_(torch.linspace(-1, 1, WIDTH))
    return made


def test_it_is_torchs_batch_norm_of_the_real_frames(frames, norm):
    x, real = frames
    torchs = nn.BatchNorm1d(WIDTH).double()
    torchs.load_state_dict({**norm.state_dict(), "num_batches_tracked": torch.tensor(0)})
    for _ in range(3):
        torch.testing.assert_close(norm(x, real)[real], torchs(x[real]), rtol=0, atol=1e-12)
        x = x * 1.5 + 0.2
    torch.testing.assert_close(norm.running_mean, torchs.running_mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(norm.running_var, torchs.running_var, rtol=0, atol=1e-12)
    norm.eval()
    torchs.eval()
    torch.testing.assert_close(norm(x, real), torchs(x.flatten(0, 1)).view_as(x), rtol=0, atol=1e-12)


def test_frames_that_are_not_real_move_nothing(frames, norm):
    x, real = frames
    expected, numbers = norm(x, real), norm.running_var.clone()
    norm.running_var.fill_(1)
    norm.running_mean.zero_()
    torch.testing.assert_close(norm(x.masked_fill(~real[..., None], 1e6), real)[real], expected[real])
    torch.testing.assert_close(norm.running_var, numbers)
    with torch.no_grad():
        longer = norm(nn.functional.pad(x, (0, 0, 0, 9), value=7.0), nn.functional.pad(real, (0, 9)))
    torch.testing.assert_close(longer[:, :20][real], expected[real])


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_frames_for_a_variance(frames, norm, count):
    x, _ = frames
    norm.running_mean.fill_(2.0)
    real = torch.zeros(3, 20, dtype=torch.bool)
    real[0, :count] = True
    found = norm(x, real)
    torch.testing.assert_close(found, (x - 2.0) / (1 + 1e-5) ** 0.5 * norm.weight + norm.bias)
    assert norm.running_mean.tolist() == [2.0] * WIDTH
    assert norm.running_var.tolist() == [1.0] * WIDTH
    found.sum().backward()
    assert norm.bias.grad.tolist() == [60.0] * WIDTH


def test_sums_of_bfloat16_are_taken_in_float32(frames):
    x, real = frames
    found = MaskedBatchNorm(WIDTH)(x.bfloat16(), real)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[real].mean(0), torch.zeros(WIDTH), rtol=0, atol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_a_modality_whose_rows_are_not_real_is_zeros(frames, causal, training):
    x, mask = frames
    torch.manual_seed(0)
    network = ModalityTCN(WIDTH, (5, 4), 3, 0.0, causal).double().train(training)
    valid = mask.clone()
    valid[:, 5:9] = False
    found = network(x, valid, mask)
    assert found.shape == (3, 20, 4)
    assert torch.equal(found, network(x.masked_fill(~valid[..., None], 100.0), valid, mask))
    assert not torch.equal(found[0, 9:], network(x, mask, mask)[0, 9:])


def test_channels_by_width():
    found = channels_by_width((40, 768, 512, 511, 128, 127, 39), (1,), (2,), (3,), (4,))
    assert found == [(1,), (2,), (2,), (3,), (3,), (4,), (4,)]
