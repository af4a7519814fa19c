from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch

from avfuse.fusion.layers.tcn import TCN
from avfuse.fusion.models.table import build
from avfuse.fusion.models.tcn_transformer import LASE, TCNTransformerSettings
from avfuse.fusion.settings import preset, with_settings

SHAPES = [(512,), (128,), (39,)]
MAPS = [(512, 7, 7), *SHAPES[1:]]
SWITCHES = list(product([False, True], repeat=3))


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def s2(shapes=SHAPES, **settings):
    torch.manual_seed(0)
    names = ("iresnet50_map" if len(shapes[0]) == 3 else "iresnet50", "vggish", "mfcc")
    wanted = replace(
        preset("tcn-transformer"), modalities=names[: len(shapes)], model=TCNTransformerSettings(**settings)
    )
    return build(wanted, shapes)


def test_the_presets_are_those_of_the_papers():
    assert preset("tcn-transformer").modalities == ("iresnet50", "vggish", "mfcc")
    expressions = preset("expr-transformer")
    assert (expressions.modalities, expressions.window_frames, expressions.hop_frames) == (("iresnet50",), 64, 64)


@pytest.mark.parametrize("shapes", [SHAPES, MAPS], ids=["rows", "maps"])
@pytest.mark.parametrize(("la_se", "tcn", "transformer"), SWITCHES)
def test_each_part_can_be_switched_off(shapes, la_se, tcn, transformer):
    """The eight rows of S2's Table 2, by their parameters."""
    head = 192 * 128 + 2 * 128 + 2 * 128 + 2
    rows = sum(c * w + w for c, w in ((512, 128), (128, 32), (39, 32)))
    tcns = count(TCN(512, (256, 256, 128, 128), 5)) + count(TCN(128, (32,) * 4, 5)) + count(TCN(39, (32,) * 4, 5))
    layer = 4 * (192 * 192 + 192) + 2 * 192 * 768 + 768 + 192 + 4 * 192
    channels = 512 * 32 + 32 + 32 * 512 + 512
    places = 512 * 32 + 32 + 32 + 1 if len(shapes[0]) == 3 else 0
    expected = head + (tcns if tcn else rows) + 4 * layer * transformer + (channels + places) * la_se
    assert count(s2(shapes, la_se=la_se, tcn=tcn, transformer=transformer)) == expected


def test_the_switches_are_settings():
    changed = with_settings(preset("tcn-transformer"), {"la_se": "false", "transformer": "false"}).model
    assert changed == TCNTransformerSettings(la_se=False, transformer=False)


def test_la_se_of_a_map_by_hand():
    """Two consecutive 1x1 convolutions weigh the places, two linear layers the channels; then the mean."""
    torch.manual_seed(0)
    la_se = LASE((32, 3, 2), 16).double()
    maps = torch.randn(2, 4, 32, 3, 2, dtype=torch.float64)
    places_of: Any = la_se.places
    squeeze, one = places_of[0], places_of[2]
    hidden = torch.einsum("btchw,oc->btohw", maps, squeeze.weight[:, :, 0, 0]) + squeeze.bias[:, None, None]
    places = (torch.einsum("btohw,xo->btxhw", hidden.relu(), one.weight[:, :, 0, 0]) + one.bias).sigmoid()
    weighed = maps * places
    channels = la_se.channels(weighed.mean((-2, -1)))
    expected = (weighed * channels[..., None, None]).mean((-2, -1))
    torch.testing.assert_close(la_se(maps), expected, rtol=0, atol=1e-12)
    assert hidden.shape[2] == 2


def test_la_se_of_a_vector_is_its_half_of_the_channels():
    torch.manual_seed(0)
    la_se = LASE((32,), 16).double()
    rows = torch.randn(2, 4, 32, dtype=torch.float64)
    torch.testing.assert_close(la_se(rows), rows * la_se.channels(rows))
    assert la_se.places is None


@pytest.mark.parametrize("la_se", [True, False])
def test_a_map_that_is_the_same_everywhere_is_its_vector(la_se):
    """Without LA-SE the map's mean is its row; the network of a map and that of a row have the same shapes after it."""
    model = s2([(32, 3, 3), (8,)], la_se=la_se).double().eval()
    rows = [torch.randn(2, 9, width, dtype=torch.float64) for width in (32, 8)]
    there = torch.ones(2, 9, dtype=torch.bool)
    maps = rows[0][..., None, None].expand(-1, -1, -1, 3, 3)
    other = s2([(32,), (8,)], la_se=la_se).double().eval()
    other.load_state_dict(model.state_dict(), strict=not la_se)
    with torch.inference_mode():
        found, expected = model([maps, rows[1]], [there] * 2, there), other(rows, [there] * 2, there)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12) != la_se


def test_shapes_that_s2_has_no_use_for():
    wanted = replace(preset("tcn-transformer"), modalities=("iresnet50", "logmel"))
    with pytest.raises(ValueError, match=r"logmel has rows of shape \(96, 64\); the head tcn-transformer takes"):
        build(wanted, [(512,), (96, 64)])


def test_heads_that_do_not_divide_the_channels():
    with pytest.raises(ValueError, match="channels, 192 in all, are not a multiple of heads 5"):
        s2(heads=5)


def test_parameters_of_s4s_code():
    """One layer and two heads of 64 on 1280 numbers; the published one has no biases in q, k and v."""
    wanted = with_settings(preset("expr-transformer"), {"layers": "1", "heads": "2"})
    attention = 3 * (1280 * 128 + 128) + 128 * 1280 + 1280
    expected = attention + 2 * 1280 * 512 + 512 + 1280 + 4 * 1280 + 2 * 1280 * 8 + 8
    assert count(build(wanted, [(1280,)])) == expected


def test_an_expressions_output_is_not_bounded():
    wanted = with_settings(preset("expr-transformer"), {"layers": "1", "heads": "2"})
    model = build(wanted, [(8,)]).eval()
    there = torch.ones(1, 5, dtype=torch.bool)
    assert model([torch.full((1, 5, 8), 100.0)], [there], there).abs().max() > 1
