from dataclasses import replace
from typing import Any

import pytest
import torch

from avfuse.fusion.layers.tcn import TCN
from avfuse.fusion.models.can import CANSettings
from avfuse.fusion.models.lfan import LFANSettings, ModalityAttention
from avfuse.fusion.models.table import build
from avfuse.fusion.settings import preset

NAMES: dict[str, Any] = {"lfan": LFANSettings(), "can": CANSettings()}
WIDTHS = (512, 128, 88, 39, 768)
FEATURES = ("iresnet50", "vggish", "egemaps", "mfcc", "bert")


def made(name, widths=WIDTHS, **settings):
    torch.manual_seed(0)
    config = replace(preset(name), modalities=FEATURES[: len(widths)], model=replace(NAMES[name], **settings))
    return build(config, [(width,) for width in widths])


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


# Of the published networks: face, log-mel or VGGish, eGeMAPS, MFCC, BERT (None: not published).
COUNTS = {
    "lfan": (2_215_296, 139_104, 53_280, None, 2_608_512),
    "can": (2_379_648, 481_088, 123_744, None, 2_608_512),
}


@pytest.mark.parametrize("name", NAMES)
def test_parameters_of_the_tcns_are_those_published(name):
    tcns = [part.tcn for part in made(name).temporal]
    found = [count(tcn) for tcn in tcns]
    assert [one for one, known in zip(found, COUNTS[name], strict=True) if known] == [
        known for known in COUNTS[name] if known
    ]
    narrow = (32,) * 4 if name == "lfan" else (64, 64, 32, 32)
    assert found[3] == count(TCN(39, narrow, 5))


def test_parameters_of_the_fusions():
    """Face and one sound, one emotion, as S3 trained them."""
    lfan, can = (replace(preset(name), task="valence", modalities=FEATURES[:2]) for name in NAMES)
    networks = [build(config, [(512,), (128,)]) for config in (lfan, can)]
    attention = 128 * 96 + 96 + 32 * 96 + 96 + 64 * 64 + 64 + 2 * 64
    norms = 2 * (128 + 32)
    assert count(networks[0]) == 2_215_296 + 139_104 + norms + attention + (128 + 64 + 1)
    linear = 256 * 256 + 256
    rest = (128 * 128 + 128) + (64 * 128 + 128) + 2 * linear + 2 * 256 + 257
    assert count(networks[1]) == 2_379_648 + 481_088 + 2 * (128 + 64) + rest


@pytest.mark.parametrize("name", NAMES)
def test_one_modality_has_nothing_to_fuse(name):
    with pytest.raises(ValueError, match=f"{name} .*two modalities or more.*--modalities"):
        made(name, (512,))


@pytest.mark.parametrize("name", NAMES)
def test_maps_are_refused_by_name(name):
    config = replace(preset(name), modalities=("iresnet50_map", "vggish"))
    with pytest.raises(ValueError, match=f"iresnet50_map has rows of shape .512, 7, 7.; the head {name} takes"):
        build(config, [(512, 7, 7), (128,)])


def test_attention_by_hand():
    """Two modalities, one head: softmax over modalities, the values added, one linear layer, LayerNorm."""
    torch.manual_seed(0)
    fusion = ModalityAttention((3, 5), 4, 1, 0.0).double().eval()
    streams = [torch.randn(1, 1, width, dtype=torch.float64) for width in (3, 5)]
    q, k, v = zip(*[linear(each)[0, 0].chunk(3) for linear, each in zip(fusion.qkv, streams, strict=True)], strict=True)
    rows = []
    for asking, own in zip(q, v, strict=True):
        weights = torch.stack([asking @ key / 2 for key in k]).softmax(0)
        rows.append(weights[0] * v[0] + weights[1] * v[1] + own)
    expected = fusion.norm(fusion.out(torch.cat(rows)))
    both = torch.ones(1, 1, 2, dtype=torch.bool)
    torch.testing.assert_close(fusion(streams, both)[0, 0], expected)
    alone = fusion.norm(fusion.out(torch.cat([v[0] + v[0], v[0] + v[1]])))  # the second is not attended to
    torch.testing.assert_close(fusion(streams, torch.tensor([[[True, False]]]))[0, 0], alone)
    torch.testing.assert_close(fusion(streams, ~both)[0, 0], expected)  # none is valid: all may answer


@pytest.mark.parametrize("name", NAMES)
def test_settings_that_cannot_be(name):
    with pytest.raises(ValueError, match="narrow_channels must be above 0"):
        replace(NAMES[name], narrow_channels=())
    if name == "lfan":
        with pytest.raises(ValueError, match="attention_width 30 is not a multiple of heads 4"):
            LFANSettings(attention_width=30, heads=4)
