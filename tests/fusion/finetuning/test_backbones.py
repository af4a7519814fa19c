"""Backbones: the same rows when cut in two, groups as the schedule has them, and files that are read."""

import numpy as np
import pytest
import torch
from torch import nn

from avfuse.encoders.loading import load_encoder
from avfuse.encoders.networks.ir50 import Unit
from avfuse.encoders.weights.resolve import WeightSource, load_network, resolve
from avfuse.fusion.finetuning.backbones import Backbone, Group, open_backbone, parse_groups, steps_of, write_weights

CPU = torch.device("cpu")
OURS = ("suzhang40", "iresnet112", "logmel_vgg")
SOME_LARGE = [pytest.param(each, marks=pytest.mark.slow if each == "iresnet112" else ()) for each in OURS]


def untrained(feature):
    return WeightSource(feature, "untrained", None, None, "none: random numbers", untrained_seed=0)


@pytest.fixture(scope="module")
def opened():
    made = {}

    def make(name):
        if name not in made:
            made[name] = open_backbone(name, untrained("logmel_vgg" if name == "logmel_vgg" else "iresnet50"), CPU)
        made[name].release(0)
        return made[name]

    return make


def rows_for(backbone, num_rows=1):
    rng = np.random.default_rng(3)
    if backbone.view == "logmel":
        return torch.from_numpy(rng.normal(size=(num_rows, 96, 64)).astype(np.float32))
    side_px = int(backbone.view.removeprefix("crop"))
    return torch.from_numpy(rng.integers(0, 256, (num_rows, side_px, side_px, 3), np.uint8))


@pytest.mark.parametrize("name", SOME_LARGE)
def test_two_parts_are_the_whole_bit_for_bit(name, opened):
    backbone = opened(name)
    inputs = backbone.inputs(rows_for(backbone))
    with torch.no_grad():
        whole = backbone.network(inputs)
        assert whole.shape == (1, backbone.dim)
        for released in range(len(backbone.groups) + 1):
            prefix, suffix = backbone.split(released)
            kept = prefix(inputs)
            before = kept.clone()
            assert torch.equal(suffix(kept), whole)
            assert torch.equal(kept, before)  # what is kept serves twice
        assert torch.equal(backbone.split(0)[0](inputs), whole)


@pytest.mark.parametrize("name", OURS)
def test_the_prefix_ends_at_the_first_released_layer(name, opened):
    backbone = opened(name)
    places = {id(step): place for place, (_, step) in enumerate(steps_of(backbone.network))}
    firsts = {
        "suzhang40": ("backbone.output_layer.0", "backbone.body.21", "backbone.body.18"),
        "iresnet112": ("bn2", "layer4.0", "layer3.11"),
        "logmel_vgg": ("embeddings.4", "embeddings.2", "embeddings.0"),
    }[name]
    for released, first in enumerate(firsts, start=1):
        moving = {n for names in backbone.members()[:released] for n in names}
        layer = backbone.network.get_submodule(first)
        assert {f"{first}.{n}" for n, _ in layer.named_parameters()} <= moving
        before = list(steps_of(backbone.network))[: places[id(layer)]]
        prefixed = [n for n, _ in before if n != "-"]
        assert not [n for n in moving for p in prefixed if n.removeprefix("backbone.").startswith(f"{p}.")]


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        # Parameters of each group, as published for his: docs/sources.md (Fine-tuning).
        ("suzhang40", (6_556_160, 13_118_464, 3_543_552)),
        ("logmel_vgg", (524_416, 16_781_312, 50_335_744)),
        ("iresnet112", (12_847_616, 13_120_000, 3_542_784)),
    ],
)
def test_groups_are_those_of_the_schedule(name, sizes, opened):
    backbone = opened(name)
    by_name = dict(backbone.network.named_parameters())
    found = [sum(by_name[n].numel() for n in names) for names in backbone.members()]
    assert found[0] == sizes[0]
    assert found == pytest.approx(sizes, rel=2e-3)
    for count in (1, 3, 2, 0):
        released = backbone.release(count)
        assert sum(p.numel() for p in released) == sum(found[:count])
        moving = {n for n, p in by_name.items() if p.requires_grad}
        assert moving == {n for names in backbone.members()[:count] for n in names}
    assert not backbone.network.training
    with pytest.raises(ValueError, match="has 3 groups, 4 cannot be released"):
        backbone.release(4)


def test_a_pattern_that_matches_nothing_names_what_there_is(opened):
    network = opened("suzhang40").network
    with pytest.raises(ValueError, match=r"'body\.24\.\*' matches no parameter of iresnet50; there are .*body\.0\.\*"):
        Backbone("iresnet50", "crop48", network, 512, 40, parse_groups("output_layer.*; body.24.*"))
    with pytest.raises(ValueError, match="the groups before it have all"):
        Backbone("iresnet50", "crop48", network, 512, 40, parse_groups("body.*;body.2[123].*"))
    for empty in ("", ";", "a.*;"):
        with pytest.raises(ValueError, match="patterns of names such as"):
            parse_groups(empty)
    own = Backbone("iresnet50", "crop48", network, 512, 40, parse_groups("body.2[123].*, backbone.output_layer.*"))
    assert len(own.groups) == 1
    assert len(own.release(1)) == sum(1 for n in network.state_dict() if n in set(own.members()[0]))
    assert {n.split(".")[1] for n in own.members()[0]} == {"body", "output_layer"}
    own.release(0)


def test_a_network_of_ones_own_in_turn():
    torch.manual_seed(0)
    network = nn.Sequential(Unit(3, 8, 1), Unit(8, 16, 2), nn.Flatten(), nn.Linear(16 * 20 * 20, 4)).eval()
    backbone = Backbone("iresnet50", "crop48", network, 4, 40, (Group("head", ("3.*",)), Group("unit", ("1.*",))))
    rows = torch.randint(0, 256, (3, 48, 48, 3), dtype=torch.uint8)
    inputs = backbone.inputs(rows)
    prefix, suffix = backbone.split(1)
    assert prefix(inputs).shape == (3, 16 * 20 * 20)
    assert torch.equal(suffix(prefix(inputs)), network(inputs))
    assert torch.equal(backbone.inputs(rows[:, 4:-4, 4:-4]), inputs)  # the middle, cut by somebody else


@pytest.mark.parametrize("name", SOME_LARGE)
def test_its_rows_are_those_that_extract_makes(name, opened, tmp_path):
    """A file that was written, found by --weights, gives the tuned rows, and says what they were tuned on."""
    backbone = opened(name)
    with torch.no_grad():
        backbone.release(1)[0].mul_(1.5)
        rows = backbone.network(backbone.inputs(rows_for(backbone)))
    path = tmp_path / f"{backbone.feature}.safetensors"
    write_weights(backbone, path, {"fold": 0, "trials": ["b", "a"], "validation": ["c"], "epoch": 3, "score": 0.25})
    source = resolve([backbone.feature], {backbone.feature: path}, None)[backbone.feature]
    network = load_network(source)
    with torch.no_grad():
        # The same numbers, bit for bit; products differ in the last place by where in memory they lie.
        own = backbone.network.state_dict()
        assert all(torch.equal(value, own[name]) for name, value in network.module.state_dict().items())
        torch.testing.assert_close(network.module(backbone.inputs(rows_for(backbone))), rows, atol=1e-5, rtol=1e-5)
        backbone.release(1)[0].div_(1.5)
    assert source.licence == "none: random numbers"
    assert source.tuning is not None
    assert source.tuning["trials"] == ["a", "b"]
    assert source.tuning["base"] == {"name": "untrained", "licence": "none: random numbers"} | {
        "untrained_seed": 0,
        "untrained": True,
    }
    assert source.as_attributes()["tuning"] == source.tuning
    assert source.tuning["groups"] == [{"name": g.name, "patterns": list(g.patterns)} for g in backbone.groups]
    again = open_backbone(name, source, CPU)
    if name != "suzhang40":
        return
    # Tuned further, the trials of before count on.
    write_weights(again, path, {"fold": 1, "trials": ["d"]})
    further = resolve([backbone.feature], {backbone.feature: path}, None)[backbone.feature].tuning
    assert further is not None
    assert further["trials"] == ["a", "b", "d"]
    assert "logits.weight" in dict(again.network.state_dict())


def test_the_same_weights_are_the_same_bytes(opened, tmp_path):
    for number in range(2):
        write_weights(opened("suzhang40"), tmp_path / f"{number}.safetensors", {"trials": ["a"], "fold": 1})
    assert (tmp_path / "0.safetensors").read_bytes() == (tmp_path / "1.safetensors").read_bytes()


def test_another_network_than_the_one_named_is_refused(opened, tmp_path):
    path = tmp_path / "w.safetensors"
    write_weights(opened("suzhang40"), path, {"trials": []})
    source = resolve(["iresnet50"], {"iresnet50": path}, None)["iresnet50"]
    assert open_backbone("iresnet50", source, CPU).view == "crop48"
    with pytest.raises(ValueError, match="a network of 40 px, and iresnet112 is one of 112 px"):
        open_backbone("iresnet112", source, CPU)
    with pytest.raises(ValueError, match="bert cannot be tuned"):
        open_backbone("bert", untrained("bert"), CPU)


@pytest.mark.parametrize("name", ["timm:test_resnet", "timm:test_vit", "mobilenetv3_large"])
def test_a_network_of_timm_comes_out_as_a_folder(name, tmp_path):
    pytest.importorskip("timm")
    backbone = open_backbone(name, untrained(name), CPU)
    assert (backbone.feature, backbone.view) == (name, "crop112")
    inputs = backbone.inputs(rows_for(backbone))
    assert 1 <= len(backbone.groups) <= 3
    for released in range(len(backbone.groups) + 1):
        prefix, suffix = backbone.split(released)
        parameters = backbone.release(released)
        assert all(p.requires_grad for p in parameters)
        with torch.no_grad():
            assert torch.equal(suffix(prefix(inputs)), backbone.network(inputs))
    with torch.no_grad():
        backbone.release(1)[0].add_(0.1)
        rows = backbone.network(inputs)
    write_weights(backbone, tmp_path / "tuned", {"trials": ["a"]})
    source = resolve([name], {name: tmp_path / "tuned"}, None)[name]
    assert source.tuning is not None
    assert (source.tuning["trials"], source.licence) == (["a"], "none: random numbers")
    again = open_backbone(name, source, CPU)
    with torch.no_grad():
        torch.testing.assert_close(again.network(inputs), rows, atol=1e-5, rtol=1e-5)
    encoder = load_encoder(name, {}, source, CPU, "fp32", 2)
    if encoder.made.input_px == 112:
        np.testing.assert_allclose(encoder.rows(rows_for(backbone).numpy()), rows.numpy(), atol=1e-5)


def test_a_frozen_beginning_keeps_no_activations():
    """Why the whole of a network of timm is the suffix: autograd saves nothing before the first released layer."""
    pytest.importorskip("timm")
    backbone = open_backbone("timm:test_resnet", untrained("timm:test_resnet"), CPU)
    inputs = backbone.inputs(rows_for(backbone))
    saved = []

    def keep(tensor):
        saved.append(tensor.numel())
        return tensor

    sizes = []
    for released in (0, 1, len(backbone.groups)):
        backbone.release(released)
        saved.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            backbone.network(inputs)
        sizes.append(sum(saved))
    assert sizes[0] == 0
    assert sizes[1] < sizes[2]
