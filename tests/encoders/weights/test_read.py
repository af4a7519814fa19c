"""Weight files of every layout and format are read, and nothing in them is run."""

import os
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from avfuse.encoders.networks.layouts import EVOLVE, INSIGHTFACE, SUZHANG, VGGISH, empty
from avfuse.encoders.weights.registry import PCA
from avfuse.encoders.weights.resolve import WeightsInvalid, WeightSource, load_network, load_pca


def source_of(path, feature="iresnet50"):
    return WeightSource(feature, path.name, path, "0" * 64, "a licence")


def tiny_state(layout, value=0.5):
    """A state dict of full shapes whose tensors are one number each, so that its file is small."""
    state = empty(layout).state_dict()
    return {key: torch.full((), value).to(t.dtype).expand(t.shape) for key, t in state.items()}


@pytest.mark.parametrize(
    ("layout", "input_px"),
    [(INSIGHTFACE, 112), (EVOLVE, 112), (SUZHANG, 40)],
    ids=["insightface", "evolve", "suzhang"],
)
def test_face_layouts_load(layout, input_px, tmp_path):
    path = tmp_path / "face.pth"
    torch.save({"state_dict": {f"module.{k}": t for k, t in tiny_state(layout).items()}, "epoch": 1}, path)
    network = load_network(source_of(path))
    assert (network.input_px, network.dim) == (input_px, 512)
    assert isinstance(network.module, layout.build)
    assert not network.module.training
    assert all(parameter.mean() == 0.5 for parameter in list(network.module.parameters())[:3])


def test_the_backbones_of_a_run_of_abaw3_load(tmp_path):
    """Both out of one file: docs/sources.md (Fine-tuning)."""
    path = tmp_path / "model_state_dict.pth"
    run = {f"spatial.visual.{key}": tensor for key, tensor in tiny_state(SUZHANG).items()}
    run |= {f"spatial.audio.backbone.{key}": tensor for key, tensor in tiny_state(VGGISH, 0.25).items()}
    torch.save(run | {"temporal.video.network.0.conv1.bias": torch.zeros(2), "fc2.bias": torch.zeros(1)}, path)
    assert load_network(source_of(path)).input_px == 40
    assert load_network(source_of(path, "logmel_vgg")).module.get_parameter("embeddings.4.bias")[0] == 0.25
    torch.save({key: tensor for key, tensor in run.items() if ".audio." not in key}, path)
    with pytest.raises(WeightsInvalid, match=r"model_state_dict\.pth: a run of ABAW3 without spatial\.audio\."):
        load_network(source_of(path, "logmel_vgg"))


def test_safetensors_load(tmp_path):
    path = tmp_path / "face.safetensors"
    save_file({key: t.contiguous() for key, t in tiny_state(SUZHANG, 0.25).items()}, path)
    assert load_network(source_of(path)).input_px == 40
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(WeightsInvalid, match="safetensors"):
        load_network(source_of(path))


def test_wrong_keys_name_file_layout_and_keys(tmp_path):
    path = tmp_path / "backbone.pth"
    state = tiny_state(INSIGHTFACE)
    del state["fc.bias"]
    torch.save(state | {"head.weight": torch.zeros(1)}, path)
    with pytest.raises(WeightsInvalid) as caught:
        load_network(source_of(path))
    for part in (str(path), "insightface IResNet-50", "missing: fc.bias", "unexpected: head.weight"):
        assert part in str(caught.value)


def test_another_features_file(tmp_path):
    path = tmp_path / "vggish.pth"
    torch.save(tiny_state(VGGISH), path)
    with pytest.raises(WeightsInvalid, match=r"iresnet50 needs .*insightface.* this is VGGish"):
        load_network(source_of(path))
    torch.save({"classifier.weight": torch.zeros(1)}, path)
    with pytest.raises(WeightsInvalid, match=r"unexpected: classifier\.weight"):
        load_network(source_of(path, "vggish"))


class Hostile:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (os.mkdir, (str(self.target),))


@pytest.mark.parametrize("save", [torch.save, lambda held, path: path.write_bytes(pickle.dumps(held, 2))])
def test_a_pickle_with_code_is_refused_and_not_run(save, tmp_path):
    path, target = tmp_path / "hostile.pth", tmp_path / "created"
    save({"conv1.weight": Hostile(target)}, path)
    with pytest.raises(WeightsInvalid, match=r"hostile\.pth.*would run code \((os|posix)\.mkdir\)"):
        load_network(source_of(path))
    with pytest.raises(WeightsInvalid, match="would run code"):
        load_pca(source_of(path, PCA))
    assert not target.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>not found</html>",
        b"PK\x03\x04" + bytes(300),
        pickle.dumps({"a": 1}, 4)[:9],
        b"version https://git-lfs",
    ],
)
def test_what_is_not_a_checkpoint(content, tmp_path):
    path = tmp_path / "broken.pth"
    path.write_bytes(content)
    with pytest.raises(
        WeightsInvalid, match=rf"broken\.pth: not a checkpoint of torch.*{len(content)} bytes"
    ) as caught:
        load_network(source_of(path))
    assert "weights_only" not in str(caught.value), "torch's advice to switch the protection off"


def test_truncated_checkpoint(tmp_path):
    path = tmp_path / "cut.pth"
    torch.save(tiny_state(SUZHANG), path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(WeightsInvalid, match="cut short"):
        load_network(source_of(path))


def test_a_checkpoint_of_something_else(tmp_path):
    path = tmp_path / "list.pth"
    torch.save([1, 2], path)
    with pytest.raises(WeightsInvalid, match="holds a list, not a state dict"):
        load_network(source_of(path))


@pytest.mark.parametrize("kind", ["f4", "f8", "torch"])
@pytest.mark.parametrize("old_numpy", [False, True])
def test_pca_file(kind, old_numpy, tmp_path):
    path = tmp_path / "vggish_pca_params-970ea276.pth"
    arrays = {"pca_eigen_vectors": np.eye(128), "pca_means": np.arange(128.0)[:, None]}
    held = {key: torch.tensor(a) if kind == "torch" else a.astype(kind) for key, a in arrays.items()}
    torch.save(held, path, _use_new_zipfile_serialization=False)
    if old_numpy:  # as written before numpy 2; the legacy format is one plain pickle
        path.write_bytes(path.read_bytes().replace(b"numpy._core.", b"numpy.core."))
    pca = load_pca(source_of(path, PCA))
    assert pca.eigen_vectors.dtype == pca.means.dtype == np.float32
    np.testing.assert_array_equal(pca.eigen_vectors, np.eye(128))
    np.testing.assert_array_equal(pca.means, np.arange(128))


@pytest.mark.parametrize(
    "held", [{"pca_means": np.zeros(3)}, {"pca_eigen_vectors": np.eye(3), "pca_means": np.zeros(3)}]
)
def test_no_pca(held, tmp_path):
    path = tmp_path / "pca.pth"
    torch.save(held, path)
    with pytest.raises(WeightsInvalid, match=r"pca\.pth.*(PCA|array)"):
        load_pca(source_of(path, PCA))
