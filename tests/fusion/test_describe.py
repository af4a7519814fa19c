"""What `train --describe` says of a preset: counted and probed, not claimed."""

import json
from dataclasses import fields, replace

import pytest
import torch
from torch import nn

from avfuse.fusion.config import TrainConfig
from avfuse.fusion.describe import RUN_SOURCES, Reach, describe, probe, shapes_of, sources_of
from avfuse.fusion.models.concat import ConcatSettings
from avfuse.fusion.models.crossattn import CrossAttentionSettings
from avfuse.fusion.models.table import HEADS, Output, head_settings
from avfuse.fusion.settings import preset

SMALL = CrossAttentionSettings(
    lead_channels=(8, 6), other_channels=(5, 4), kernels=(3, 5), attention_width=8, heads=2, hidden=7
)
SHAPES = [(5,), (3,)]


def small(**changes):
    config = replace(preset("crossattn"), modalities=("face", "voice"), window_frames=60, hop_frames=60)
    return replace(config, model=replace(SMALL, **changes))


@pytest.mark.parametrize("name", HEADS)
def test_every_setting_of_every_head_says_where_it_comes_from(name):
    sources = sources_of(head_settings(name))
    assert sources.keys() == {each.name for each in fields(head_settings(name))}
    assert [setting for setting, source in sources.items() if not source] == []


def test_so_does_every_setting_of_a_run():
    assert {each.name for each in fields(TrainConfig)} - {"preset", "model", "finetune"} <= RUN_SOURCES.keys()


def test_of_s1_what_is_known_of_it(avfuse):
    result = avfuse("train", "--preset", "crossattn", "--describe", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["parameters"]["total"] == 4_579_714
    assert sum(found["parameters"]["parts"].values()) == 4_579_714
    assert found["shapes"] == {"iresnet50": [512], "vggish": [128], "logmel_vgg": [128]}
    whole = {"past_frames": None, "future_frames": None, "frames": None}
    face = {"past_frames": 180, "future_frames": 0, "frames": 181}  # four levels of kernel 7
    assert found["receptive_field"] == {"iresnet50": face, "vggish": whole, "logmel_vgg": whole}
    assert found["causal"] is False
    assert found["settings"]["kernels"] == {"value": [3, 5, 7], "source": "S1"}


@pytest.mark.parametrize(
    ("changes", "face", "voice"),
    [
        ({"kernels": (3,)}, Reach(12, 0), Reach(None, None)),
        ({"attention_reach": 7}, Reach(24, 0), Reach(31, 7)),
        ({"attention_reach": 7, "causal": False}, Reach(12, 12), Reach(19, 19)),
    ],
    ids=str,
)
def test_the_receptive_field_is_that_of_the_arithmetic(changes, face, voice):
    found = describe(small(**changes), SHAPES)
    assert found.reach == {"face": face, "voice": voice}
    assert not found.causal


def test_a_head_of_one_modality_with_causal_tcns_is_causal():
    config = replace(small(), modalities=("face",))
    assert describe(config, SHAPES[:1]).causal
    assert not describe(replace(config, model=replace(SMALL, causal=False)), SHAPES[:1]).causal


class Shifted(nn.Module):
    """Says the row `lag` frames ago, of the first modality alone; adds to the loss."""

    def __init__(self, lag):
        super().__init__()
        self.lag = lag

    def forward(self, features, valid, mask):
        return Output(torch.roll(features[0], self.lag, dims=1)[..., :1], torch.zeros(()))


def test_the_probe_finds_a_modality_that_moves_nothing():
    reach = probe(Shifted(0), SHAPES, 20)
    assert reach == [Reach(0, 0), None]


@pytest.mark.parametrize("frames", [10, 40])
def test_a_reach_that_fills_the_window_is_not_known(frames):
    found = describe(replace(small(), window_frames=frames, hop_frames=frames), SHAPES)
    assert found.reach["face"] == Reach(None if frames == 10 else 24, 0)


def test_it_needs_no_store_and_makes_nothing(avfuse, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = avfuse("train", "--describe", "--preset", "concat", "--modalities", "mfcc", "--set", "dropout=0.5")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[:2] == ["concat: The baseline: features → Linear.", "rows: mfcc 39; windows of 300 frames"]
    assert ["together", "80"] in [line.split() for line in lines]
    assert "causal: yes" in lines
    assert ["dropout", "0.5", "given"] in [line.split() for line in lines]
    assert ["hop_frames", "200", "S3"] in [line.split() for line in lines]
    assert list(tmp_path.iterdir()) == []


def test_what_the_preset_changes_is_the_presets():
    settings = describe(replace(preset("su-zhang"), model=SMALL), [(5,), (3,), (3,)]).settings
    assert settings["lr"] == (1e-5, "this preset")
    assert settings["hidden"] == (7, "given")


def test_widths_are_those_of_the_store(avfuse, small, tmp_path):
    words = ("train", "--describe", "--json", "--preset", "concat", "--store", small.store)
    result = avfuse(*words, "--modalities", "face,voice")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["shapes"] == {"face": [6], "voice": [4]}
    result = avfuse(*words, "--modalities", "face,vggish")
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"{small.store} does not hold vggish; extract it, or choose --modalities" in result.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vgish", r"vgish is not a feature of avfuse \(did you mean vggish\?\); --store tells its width"),
        ("iresnet50_map", "how wide iresnet50_map is depends on its network; --store tells it"),
    ],
)
def test_a_feature_of_unknown_width_is_named(name, message):
    with pytest.raises(ValueError, match=message):
        shapes_of([name], None)


def test_without_it_a_fold_must_be_named(avfuse):
    result = avfuse("train", "--preset", "concat")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, "Error: Missing option '--fold'.")


def test_describing_leaves_torchs_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    describe(replace(preset("concat"), modalities=("face",), model=ConcatSettings()), [(4,)])
    assert torch.equal(torch.rand(1), expected)
