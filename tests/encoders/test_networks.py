"""Checkpoints are recognised by their keys; untrained weights are seeded and of order 1."""

import numpy as np
import pytest
import torch
from torch import nn

from avfuse.encoders.embed import fold
from avfuse.encoders.networks.ir50 import IR50, SuZhangIR50
from avfuse.encoders.networks.iresnet import IResNet50
from avfuse.encoders.networks.layouts import (
    EVOLVE,
    INSIGHTFACE,
    SUZHANG,
    VGGISH,
    empty,
    fill_untrained,
    network_of,
    part_of_run,
    recognise,
    untrained_matrix,
    unwrap,
)

LAYOUTS = pytest.mark.parametrize(
    "layout", [INSIGHTFACE, EVOLVE, SUZHANG, VGGISH], ids=lambda layout: layout.name.split()[0]
)


@LAYOUTS
@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.backbone.", "backbone.module."])
def test_recognised_under_every_prefix(layout, prefix):
    state = empty(layout).state_dict()
    found, bare = recognise({prefix + key: tensor for key, tensor in state.items()})
    assert found is layout
    assert set(bare) == set(state)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_backbones_of_a_run_of_abaw3(prefix):
    """As its trainer saves them, in model_state_dict.pth: docs/sources.md (Fine-tuning)."""
    face, voice = empty(SUZHANG).state_dict(), empty(VGGISH).state_dict()
    run = {f"{prefix}spatial.visual.{key}": tensor for key, tensor in face.items()}
    run |= {f"{prefix}spatial.audio.backbone.{key}": tensor for key, tensor in voice.items()}
    run |= {f"{prefix}temporal.video.network.0.weight": torch.zeros(1), f"{prefix}regressor.weight": torch.zeros(1)}
    for feature, layout, state in (("iresnet50", SUZHANG, face), ("logmel_vgg", VGGISH, voice)):
        found, bare = recognise(part_of_run(run, feature))
        assert found is layout
        assert set(bare) == set(state)
    of_face = {key: tensor for key, tensor in run.items() if ".audio." not in key}
    with pytest.raises(
        ValueError, match=r"without spatial\.audio\.\*: it was trained without the network of logmel_vgg"
    ):
        part_of_run(of_face, "logmel_vgg")
    assert part_of_run(face, "iresnet50") == face


def test_suzhang_without_his_logits_is_still_his():
    state = {key: t for key, t in empty(SUZHANG).state_dict().items() if not key.startswith("logits")}
    assert recognise(state)[0] is SUZHANG


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state},
        lambda state: {"state_dict": {"model": state}},
        lambda state: {"epoch": 1, "state_dict_backbone": state, "state_optimizer": {}},
    ],
)
def test_unwrapped(wrap):
    state = {"a": torch.zeros(1)}
    assert unwrap(wrap(state)) == state


@pytest.mark.parametrize("loaded", [3, [torch.zeros(1)], {}, {"epoch": 3}, {"state_dict": {"a": 1}}])
def test_no_state_dict_is_refused(loaded):
    with pytest.raises(ValueError, match=r"it holds a .*not a state dict"):
        unwrap(loaded)


def test_half_precision_and_views_become_float32_of_their_own():
    state = {key: torch.zeros((), dtype=t.dtype).expand(t.shape) for key, t in empty(EVOLVE).state_dict().items()}
    half = {key: t.half() if t.is_floating_point() else t for key, t in state.items()}
    network = network_of(EVOLVE, half)
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert all(p.is_contiguous() and not p.requires_grad for p in network.parameters())
    assert not network.training


def test_wrong_keys_are_named_three_of_a_kind():
    state = empty(INSIGHTFACE).state_dict()
    for key in ("fc.bias", "fc.weight", "layer1.0.bn1.bias", "features.bias"):
        del state[key]
    state |= {f"extra.{number}": torch.zeros(1) for number in range(5)}
    state["conv1.weight"] = torch.zeros(64, 1, 3, 3)
    with pytest.raises(ValueError, match="insightface IResNet-50") as caught:
        network_of(INSIGHTFACE, state)
    message = str(caught.value)
    assert "missing: layer1.0.bn1.bias, fc.weight, fc.bias and 1 more" in message
    assert "unexpected: extra.0, extra.1, extra.2 and 2 more" in message
    assert "conv1.weight is [64, 1, 3, 3], not [64, 3, 3, 3]" in message


def test_unknown_keys_are_no_layout():
    assert recognise({"classifier.weight": torch.zeros(1)})[0] is None


def smooth_faces(num_faces):
    """Pictures with the coarse structure of faces: a few large blobs, in [−1, 1]."""
    coarse = torch.from_numpy(np.random.default_rng(3).uniform(-1, 1, (num_faces, 3, 7, 7)).astype(np.float32))
    return torch.nn.functional.interpolate(coarse, (112, 112), mode="bicubic").clamp(-1, 1)


def speechlike_patches(num_patches):
    """Log-mel patches: a quiet floor at ln 0.01 under smooth energy, up to 2."""
    rng = np.random.default_rng(4)
    coarse = torch.from_numpy(rng.uniform(-6, 4, (num_patches, 1, 12, 8)).astype(np.float32))
    return torch.nn.functional.interpolate(coarse, (96, 64), mode="bilinear").clamp(-4.6, 2)


@pytest.mark.parametrize(
    ("layout", "feature", "inputs"),
    [
        pytest.param(INSIGHTFACE, "iresnet50", smooth_faces(6), id="faces"),
        pytest.param(VGGISH, "vggish", speechlike_patches(6), id="patches"),
    ],
)
def test_untrained_features_are_of_order_one_and_vary(layout, feature, inputs):
    network = empty(layout)
    fill_untrained(network, 0, feature)
    with torch.inference_mode():
        rows = network.eval()(inputs)
    assert 0.3 < rows.pow(2).mean().sqrt() < 5
    assert rows.std(0).mean() > 0.3
    assert rows.std(0).min() > 0


def test_untrained_weights_depend_on_seed_feature_and_key_alone():
    def draw(seed=0, feature="vggish", key="a"):
        return untrained_matrix((3, 4), seed, feature, key)

    assert torch.equal(draw(), draw())
    for other in (draw(seed=1), draw(feature="logmel_vgg"), draw(key="b")):
        assert not torch.equal(draw(), other)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    draw()
    assert torch.equal(before, torch.get_rng_state())


def lively(module, seed=0):
    """A network in eval mode whose norms are no identities."""
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                assert tensor is not None
                tensor.data = torch.rand(tensor.shape, generator=generator) * 0.5 + 0.5
    return module.eval().requires_grad_(requires_grad=False)


@pytest.mark.parametrize(
    ("make", "px", "left"),
    [*(pytest.param(each, 112, 25, marks=pytest.mark.slow) for each in (IResNet50, IR50)), (SuZhangIR50, 40, 25)],
)
def test_folding_changes_no_number(make, px, left):
    """Only the norms before padded convolutions (24) and the one before the last layer stay."""
    network = lively(make())
    faces = torch.rand(2, 3, px, px, generator=torch.Generator().manual_seed(1)) * 2 - 1
    before = network(faces)
    folded = fold(network)
    assert sum(isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)) for layer in folded.modules()) == left
    torch.testing.assert_close(folded(faces), before, rtol=1e-4, atol=1e-4 * float(before.abs().max()))
