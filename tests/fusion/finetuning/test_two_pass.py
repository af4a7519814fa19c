"""Two passes over micro-batches have the gradients of one pass over all rows, dropout too, on the real networks."""

import numpy as np
import pytest
import torch
from torch import nn
from toys import face_backbone

from avfuse.encoders.weights.resolve import WeightSource
from avfuse.fusion.finetuning.backbones import open_backbone
from avfuse.fusion.finetuning.two_pass import TwoPass

CPU = torch.device("cpu")


def loss_of(rows):
    """Every row's gradient depends on every row, as a head's does."""
    return (rows.std(0) * torch.linspace(0.5, 2, rows.shape[1])).sum() + (rows.mean(0) ** 2).sum()


def gradients(backbone):
    found = {n: p.grad.clone() for n, p in backbone.network.named_parameters() if p.grad is not None}
    backbone.network.zero_grad()
    return found


def one_pass(backbone, released, views):
    rows = backbone.network(backbone.inputs(views))
    loss_of(rows).backward()
    return rows.detach(), gradients(backbone)


def two_passes(backbone, released, views, at_once):
    made = TwoPass(backbone, released, lambda begin, end: views[begin:end], len(views), at_once, "fp32", CPU)
    rows = made.rows().requires_grad_()
    loss_of(rows).backward()
    assert rows.grad is not None
    made.carry_on(rows.grad)
    return rows.detach(), gradients(backbone)


def same(found, wanted, relative=1e-5):
    assert found.keys() == wanted.keys()
    assert wanted
    for name, gradient in wanted.items():
        assert (found[name] - gradient).norm() <= relative * gradient.norm(), name


@pytest.mark.parametrize(
    ("network", "released"),
    [
        pytest.param("suzhang40", 1, marks=pytest.mark.slow),
        ("suzhang40", 3),
        ("logmel_vgg", 1),
        pytest.param("logmel_vgg", 3, marks=pytest.mark.slow),
    ],
)
def test_gradients_of_the_real_networks(network, released):
    name = "logmel_vgg" if network == "logmel_vgg" else "iresnet50"
    source = WeightSource(name, "untrained", None, None, "none", untrained_seed=0)
    backbone = open_backbone(network, source, CPU)
    rng = np.random.default_rng(0)
    shape = (5, 96, 64) if backbone.input_px is None else (5, 48, 48, 3)
    views = torch.from_numpy(rng.integers(0, 256, shape).astype(np.float32 if len(shape) == 3 else np.uint8))
    views = views / 64 - 2 if len(shape) == 3 else views
    backbone.release(released)
    rows, wanted = one_pass(backbone, released, views)
    again, found = two_passes(backbone, released, views, 2)
    assert (again - rows).norm() <= 1e-5 * rows.norm()
    same(found, wanted)
    assert len(found) == len(backbone.release(released))


@pytest.mark.parametrize("released", [1, 2, 3])
def test_dropout_draws_the_same_masks_in_both_passes(released):
    """A micro-batch as large as all rows, so that one pass draws what both passes draw."""
    backbone = face_backbone(dropout=0.5)
    for layer in backbone.network.modules():
        layer.train(isinstance(layer, nn.Dropout))
    backbone.release(released)
    views = torch.randint(256, (9, 48, 48, 3), dtype=torch.uint8)
    torch.manual_seed(5)
    rows, wanted = one_pass(backbone, released, views)
    torch.manual_seed(5)
    again, found = two_passes(backbone, released, views, 9)
    assert torch.equal(again, rows)
    same(found, wanted)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    one_pass(backbone, released, views)
    assert torch.equal(torch.rand(3), drawn)  # what is drawn next is what one pass leaves


def test_dropout_in_several_micro_batches():
    """Each part of the second pass draws what its own part of the first has drawn, not what came last."""
    backbone = face_backbone(dropout=0.5)
    for layer in backbone.network.modules():
        layer.train(isinstance(layer, nn.Dropout))
    backbone.release(3)
    views = torch.randint(256, (10, 48, 48, 3), dtype=torch.uint8)
    torch.manual_seed(6)
    rows = torch.cat([backbone.network(backbone.inputs(part)) for part in views.split(3)])
    loss_of(rows).backward()
    wanted = gradients(backbone)
    torch.manual_seed(6)
    again, found = two_passes(backbone, 3, views, 3)
    assert torch.equal(again, rows.detach())
    same(found, wanted)


def test_frozen_layers_get_no_gradient_and_norms_do_not_move():
    backbone = face_backbone()
    before = {name: value.clone() for name, value in backbone.network.state_dict().items()}
    backbone.release(1)
    _, found = two_passes(backbone, 1, torch.randint(256, (6, 48, 48, 3), dtype=torch.uint8), 4)
    assert set(found) == {"5.weight", "5.bias"}
    assert all(torch.equal(value, before[name]) for name, value in backbone.network.state_dict().items())


def test_nothing_is_kept_of_a_network_without_a_prefix():
    """All that is released at the very beginning: the views are taken again, in place of keeping what they become."""
    backbone = face_backbone()
    taken = []

    def take(begin, end):
        taken.append((begin, end))
        return torch.zeros((end - begin, 48, 48, 3), dtype=torch.uint8)

    whole = type(backbone)(**{**vars(backbone), "groups": (type(backbone.groups[0])("all", ("*",)),)})
    whole.release(1)
    made = TwoPass(whole, 1, take, 5, 2, "fp32", CPU)
    rows = made.rows().requires_grad_()
    rows.sum().backward()
    assert rows.grad is not None
    made.carry_on(rows.grad)
    assert taken == [(0, 2), (2, 4), (4, 5)] * 2


def test_without_rows_nothing_is_asked():
    backbone = face_backbone()
    made = TwoPass(backbone, 1, lambda begin, end: pytest.fail("asked"), 0, 2, "fp32", CPU)
    assert made.rows().shape == (0, 6)
