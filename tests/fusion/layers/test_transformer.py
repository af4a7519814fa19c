import math
from typing import Any

import pytest
import torch
from torch import nn

from avfuse.fusion.layers.transformer import Encoder, EncoderLayer, sinusoid

WIDTH, HEADS, HIDDEN = 12, 3, 20


def theirs(layer: EncoderLayer) -> nn.TransformerEncoderLayer:
    """Torch's own layer with the same numbers."""
    activation = "gelu" if layer.norm_first else "relu"
    made = nn.TransformerEncoderLayer(
        WIDTH, HEADS, HIDDEN, 0.0, activation, batch_first=True, norm_first=layer.norm_first
    )
    parts = [layer.attention.query, layer.attention.key, layer.attention.value]
    state: dict[str, Any] = {
        f"self_attn.in_proj_{kind}": torch.cat([getattr(p, kind) for p in parts]) for kind in ("weight", "bias")
    }
    names = {"self_attn.out_proj": layer.out, "linear1": layer.feed[0], "linear2": layer.feed[3]}
    for name, part in {**names, "norm1": layer.norm1, "norm2": layer.norm2}.items():
        state |= {f"{name}.weight": part.weight, f"{name}.bias": part.bias}
    made.double().load_state_dict(state)
    return made


@pytest.fixture
def rows():
    x = torch.randn(2, 15, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x, torch.arange(15) < torch.tensor([[15], [8]])


@pytest.mark.parametrize("norm_first", [True, False])
def test_a_layer_is_torchs_own(rows, norm_first):
    x, real = rows
    torch.manual_seed(0)
    activation = nn.GELU() if norm_first else nn.ReLU()
    layer = EncoderLayer(WIDTH, HEADS, WIDTH // HEADS, HIDDEN, 0.3, norm_first, activation).double()
    with torch.no_grad():
        for norm in (layer.norm1, layer.norm2):
            norm.weight.uniform_(0.5, 2)
            norm.bias.uniform_(-1, 1)
    layer.eval()
    expected = theirs(layer)(x, src_key_padding_mask=~real)
    torch.testing.assert_close(layer(x, real), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm_first", [True, False])
def test_frames_that_are_not_real_are_never_attended_to(rows, norm_first):
    x, real = rows
    torch.manual_seed(0)
    encoder = Encoder(2, WIDTH, HEADS, 8, HIDDEN, 0.0, norm_first, positions=True).double()
    expected = encoder(x, real)
    found = encoder(x.masked_fill(~real[..., None], 50.0), real)
    torch.testing.assert_close(found[real], expected[real], rtol=0, atol=1e-12)
    torch.testing.assert_close(encoder(x[1:, :8], real[1:, :8])[0], expected[1, :8], rtol=0, atol=1e-12)


@pytest.mark.parametrize("positions", [True, False])
def test_only_positions_tell_when(rows, positions):
    x, _ = rows
    torch.manual_seed(0)
    encoder = Encoder(1, WIDTH, HEADS, 8, HIDDEN, 0.0, True, positions).double()
    real, order = torch.ones(2, 15, dtype=torch.bool), torch.randperm(15)
    same = torch.allclose(encoder(x, real)[:, order], encoder(x[:, order], real), rtol=0, atol=1e-12)
    assert same != positions


@pytest.mark.parametrize("width", [6, 7])
def test_sines_and_cosines_of_the_place(width):
    found = sinusoid(50, width)
    assert found.shape == (50, width)
    for place in (0, 1, 49):
        for column in range(width):
            angle = place / 10000 ** (2 * (column // 2) / width)
            assert float(found[place, column]) == pytest.approx([math.sin, math.cos][column % 2](angle))
