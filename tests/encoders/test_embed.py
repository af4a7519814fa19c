"""The border between NumPy and torch: what goes in, what comes out, and that batches do not matter."""

import numpy as np
import pytest
import torch
from torch import nn

from avfuse.encoders.embed import Embedder, faces_to_input, load_embedders
from avfuse.encoders.networks.layouts import EVOLVE, INSIGHTFACE, SUZHANG, empty, fill_untrained
from avfuse.encoders.networks.vgg import apply_pca
from avfuse.encoders.weights.read import Network, Pca, untrained_network
from avfuse.encoders.weights.registry import PCA
from avfuse.encoders.weights.resolve import resolve
from avfuse.pipeline.config import ExtractConfig


class Seen(nn.Module):
    """A fake network: remembers its inputs, answers with their mean and the batch size."""

    def __init__(self):
        super().__init__()
        self.inputs = []

    def forward(self, x):
        self.inputs.append(x)
        return torch.stack([x.float().mean((1, 2, 3)) - 0.5, torch.full((len(x),), float(len(x)))], 1)


def fake(input_px):
    return Network(Seen(), input_px, 2)


@pytest.fixture(scope="module")
def faces():
    """Smooth pictures, uint8 [5, 112, 112, 3]."""
    coarse = torch.from_numpy(np.random.default_rng(0).uniform(0, 255, (5, 3, 8, 8)).astype(np.float32))
    fine = nn.functional.interpolate(coarse, (112, 112), mode="bilinear")
    return fine.permute(0, 2, 3, 1).numpy().astype(np.uint8)


@pytest.fixture(scope="module")
def patches():
    return np.random.default_rng(1).uniform(-4.6, 2, (5, 96, 64)).astype(np.float32)


@pytest.fixture(scope="module")
def iresnet():
    """The one for faces of 40 px: an eighth of the work."""
    module = empty(SUZHANG)
    fill_untrained(module, 0, "iresnet50")
    return Network(module.eval(), 40, 512)


@pytest.mark.parametrize(
    "layout",
    [SUZHANG, *(pytest.param(each, marks=pytest.mark.slow) for each in (EVOLVE, INSIGHTFACE))],
    ids=lambda layout: layout.name,
)
def test_the_last_map_is_what_the_embedding_is_made_of(faces, layout):
    """float16 of the map before the head, for every network of faces; the head makes the embedding of it."""
    count = 2 if layout is SUZHANG else 1

    def module():
        built = empty(layout)
        fill_untrained(built, 0, "iresnet50")
        for name, parameter in built.named_parameters():
            if name.endswith("res_layer.4.weight"):  # else 24 residual sums grow beyond float16
                parameter.data *= 0.35
        return built.eval()

    rows = Embedder(Network(module(), layout.input_px, 512), "cpu").rows(faces[:count])
    embedder = Embedder(Network(module(), layout.input_px, 512), "cpu", output="map")
    maps = embedder.rows(faces[:count])
    side = 5 if layout is SUZHANG else 7
    assert (maps.shape, maps.dtype.name) == ((count, 512, side, side), "float16")
    assert embedder.row_shape == maps.shape[1:]
    assert embedder.rows(faces[:0]).shape == (0, 512, side, side)
    x, network = torch.from_numpy(maps).float(), module()
    with torch.inference_mode():
        if layout is INSIGHTFACE:
            again = network.features(network.fc(network.bn2(x).flatten(1)))
        else:
            again = (network.backbone if layout is SUZHANG else network).output_layer(x)
        again = nn.functional.normalize(again) if layout is SUZHANG else again
    assert np.corrcoef(again.numpy().ravel(), rows.ravel())[0, 1] > 0.9999


def test_faces_are_scaled_rgb_first(faces):
    network = fake(112)
    Embedder(network, "cpu").rows(faces)
    (seen,) = network.module.inputs
    expected = (faces.transpose(0, 3, 1, 2) / 255 - 0.5) / 0.5
    np.testing.assert_allclose(seen.numpy(), expected, atol=1e-6)
    assert seen.dtype == torch.float32


def test_faces_at_40_px_are_the_middle_of_48(faces):
    inputs = faces_to_input(torch.tensor(faces), 40)
    assert inputs.shape == (5, 3, 40, 40)
    # Half a pixel's blur apart: pixel (20, 20) of the middle lies at (24 + 0.5) · 112 / 48 of the crop.
    plain = faces_to_input(torch.tensor(faces), 112)
    centre = int((24 + 0.5) * 112 / 48)
    np.testing.assert_allclose(inputs[:, :, 20, 20], plain[:, :, centre, centre], atol=0.05)
    flat = faces_to_input(torch.full((1, 112, 112, 3), 255, dtype=torch.uint8), 40)
    np.testing.assert_allclose(flat, 1, atol=1e-6)


def test_downscaling_is_antialiased():
    stripes = torch.zeros(1, 112, 112, 3, dtype=torch.uint8)
    stripes[:, :, ::2] = 255
    assert faces_to_input(stripes, 40).abs().max() < 0.3


def test_sub_batches(patches):
    network = fake(None)
    rows = Embedder(network, "cpu", batch_size=2).rows(patches)
    assert [tuple(seen.shape) for seen in network.module.inputs] == [(2, 1, 96, 64)] * 2 + [(1, 1, 96, 64)]
    np.testing.assert_allclose(rows[:, 0], patches.mean((1, 2)) - 0.5, atol=1e-5)
    assert rows[:, 1].tolist() == [2, 2, 2, 2, 1]
    assert (rows.dtype, rows.shape) == (np.dtype(np.float32), (5, 2))


def test_no_rows_at_all(patches):
    assert Embedder(fake(None), "cpu").rows(patches[:0]).shape == (0, 2)


def test_read_only_and_strided_batches(patches, faces):
    frozen = patches[::-1]
    frozen.flags.writeable = False
    np.testing.assert_array_equal(
        Embedder(fake(None), "cpu").rows(frozen), Embedder(fake(None), "cpu").rows(frozen.copy())
    )
    assert Embedder(fake(112), "cpu").rows(faces[::2]).shape == (3, 2)


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
def test_batch_size_does_not_matter(iresnet, faces, precision):
    rows = {size: Embedder(iresnet, "cpu", precision, size).rows(faces[:3]) for size in (1, 2, 3)}
    tolerance = (1e-4 if precision == "fp32" else 0.05) * rows[3].std()
    for size in (1, 2):
        np.testing.assert_allclose(rows[size], rows[3], atol=tolerance)
    assert all(made.dtype == np.float32 for made in rows.values())


@pytest.mark.parametrize(
    ("is_large", "share"), [(False, 0.2), pytest.param(True, 0.1, marks=pytest.mark.slow)], ids=["40 px", "112 px"]
)
def test_bf16_is_close_to_fp32(faces, iresnet, is_large, share):
    network = untrained_network("iresnet50", 0) if is_large else iresnet
    exact, rough = (Embedder(network, "cpu", precision).rows(faces[:2]) for precision in ("fp32", "bf16"))
    assert not np.array_equal(exact, rough)
    assert np.abs(exact - rough).max() < share * exact.std()


def test_memory_format_does_not_matter(iresnet, faces):
    """The embedder's channels-last order computes what the plain network does."""
    rows = Embedder(iresnet, "cpu").rows(faces)
    with torch.inference_mode():
        plain = iresnet.module(faces_to_input(torch.tensor(faces), 40)).numpy()
    np.testing.assert_allclose(rows, plain, atol=1e-4 * plain.std())


def test_suzhang_end_to_end(iresnet, faces):
    rows = Embedder(iresnet, "cpu").rows(faces)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert rows.std(0).mean() > 0.005


def test_relu_output(patches):
    raw, relu = (Embedder(fake(None), "cpu", output=output).rows(patches) for output in ("raw", "relu"))
    assert raw[:, 0].max() < 0
    np.testing.assert_array_equal(relu, np.maximum(raw, 0))


def test_pca_levels():
    rows = torch.tensor([[-9.0, 0.0, 1.0, 9.0]])
    quantised = apply_pca(rows, torch.eye(4), torch.tensor([0.0, 0.0, 1.0, 0.0]))
    assert quantised.tolist() == [[0, 128, 128, 255]]  # 127.5 rounds to the even number


def test_what_is_refused(faces, patches):
    with pytest.raises(ValueError, match=r"takes uint8 \[N, 112, 112, 3\], got float32 \[5, 96, 64\]"):
        Embedder(fake(112), "cpu").rows(patches)
    with pytest.raises(ValueError, match=r"takes float32 \[N, 96, 64\], got float64"):
        Embedder(fake(None), "cpu").rows(patches.astype(np.float64))
    with pytest.raises(ValueError, match="fp16 needs a GPU"):
        Embedder(fake(112), "cpu", "fp16")
    with pytest.raises(ValueError, match="batch size is 1 or more, got 0"):
        Embedder(fake(112), "cpu", batch_size=0)
    with pytest.raises(ValueError, match="vggish-pca"):
        Embedder(fake(None), "cpu", output="pca")


@pytest.fixture
def _fakes(monkeypatch):
    monkeypatch.setattr("avfuse.encoders.embed.load_network", lambda source: fake(None))


@pytest.mark.usefixtures("_fakes")
def test_equal_weights_share_one_network(tmp_path, patches):
    given = {name: tmp_path / f"{name}.pth" for name in ("iresnet50", "vggish")}
    for path in given.values():
        path.write_bytes(b"weights")
    config = ExtractConfig(("logmel_vgg", "iresnet50", "vggish"))
    embedders = load_embedders(
        config.networks, config.vggish_output, config.precision, resolve(config.networks, given, None), "cpu", 4
    )
    assert list(embedders) == ["logmel_vgg", "iresnet50", "vggish"]
    assert embedders["vggish"] is embedders["logmel_vgg"]
    assert embedders["iresnet50"] is not embedders["vggish"]
    untrained = load_embedders(
        config.networks, config.vggish_output, config.precision, resolve(config.networks, {}, 0), "cpu", 4
    )
    assert untrained["vggish"] is not untrained["logmel_vgg"]


@pytest.mark.usefixtures("_fakes")
def test_vggish_output_is_vggish_s_alone(tmp_path, patches, monkeypatch):
    monkeypatch.setattr("avfuse.encoders.embed.load_pca", lambda source: Pca(np.eye(2, dtype="f4"), np.zeros(2, "f4")))
    config = ExtractConfig(("vggish", "logmel_vgg"), vggish_output="pca")
    sources = resolve((*config.networks, PCA), {}, 0)
    embedders = load_embedders(config.networks, config.vggish_output, config.precision, sources, "cpu", 4)
    assert (embedders["vggish"].rows(patches) == embedders["vggish"].rows(patches).round()).all()
    assert embedders["logmel_vgg"].rows(patches).min() < 0
