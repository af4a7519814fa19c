"""Features without a network: the crops and patches themselves, and means of them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from avfuse.encoders.embed import faces_to_input
from avfuse.encoders.networks.ir50 import SUZHANG_PX
from avfuse.encoders.table import TABLE
from avfuse.encoders.views import VIEWS


@pytest.fixture
def crops():
    rng = np.random.default_rng(0)
    smooth = rng.integers(0, 256, (5, 14, 14, 3), np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    return np.clip(smooth.astype(int) + rng.integers(-20, 20, smooth.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", [name for name in VIEWS if TABLE[name].view == "crop"])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_rows_of_crops_are_what_the_table_says(crops, name, count):
    rows = VIEWS[name](crops[:count])
    assert (rows.shape, rows.dtype) == ((count, *(TABLE[name].row_shape or ())), np.dtype(TABLE[name].dtype))
    assert count < 2 or not np.array_equal(rows[0], rows[1])


@pytest.mark.parametrize("name", [name for name in VIEWS if TABLE[name].view == "patch"])
def test_rows_of_patches_are_what_the_table_says(name):
    patches = np.random.default_rng(0).standard_normal((3, 96, 64), np.float32)
    rows = VIEWS[name](patches)
    assert (rows.shape, rows.dtype) == ((3, *(TABLE[name].row_shape or ())), np.dtype(TABLE[name].dtype))
    assert len(VIEWS[name](patches[:0])) == 0


def test_small_crops_are_what_an_ir50_of_40_px_sees(crops):
    """Within a grey level: fine-tuning on stored crops sees the pictures that `extract` will feed the network."""
    seen = faces_to_input(torch.from_numpy(crops), SUZHANG_PX)
    stored = torch.from_numpy(VIEWS["crop48"](crops)).permute(0, 3, 1, 2).float()
    edge = (48 - SUZHANG_PX) // 2
    middle = (stored[:, :, edge:-edge, edge:-edge] / 255 - 0.5) / 0.5
    assert float((seen - middle).abs().max()) <= 1.01 / 127.5
    plain = F.interpolate(torch.from_numpy(crops).permute(0, 3, 1, 2).float(), (48, 48), mode="bilinear")
    assert float((plain - stored).abs().max()) > 10  # without antialiasing it would be another picture


def test_means_are_those_of_quarters_and_bands():
    crop = np.zeros((1, 112, 112, 3), np.uint8)
    crop[:, :56, 56:, 1] = 255
    assert VIEWS["fake_face"](crop)[0].tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
    patch = np.repeat(np.arange(8, dtype=np.float32), 8)[None, None].repeat(96, axis=1)
    assert VIEWS["fake_sound"](patch)[0].tolist() == list(range(8))
