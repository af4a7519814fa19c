"""Weights are found in the promised order, named by their hash, and read without running anything in them."""

import hashlib
import os
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from avfuse.pipeline.config import ExtractConfig
from avfuse.pipeline.models.layouts import EVOLVE, INSIGHTFACE, SUZHANG, VGGISH, empty
from avfuse.pipeline.registry import PCA, REGISTRY, WeightFile, entry
from avfuse.pipeline.weights import (
    WeightsInvalid,
    WeightSource,
    WeightsMissing,
    cache_folder,
    load_network,
    load_pca,
    resolve,
    weight_names,
)

FEATURES = ("iresnet50", "vggish", "logmel_vgg")


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("AVFUSE_WEIGHTS", raising=False)


def put(path, content=b"weights"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def source_of(path, feature="iresnet50"):
    return WeightSource(feature, path.name, path, "0" * 64, "a licence")


def tiny_state(layout, value=0.5):
    """A state dict of full shapes whose tensors are one number each, so that its file is small."""
    state = empty(layout).state_dict()
    return {key: torch.full((), value).to(t.dtype).expand(t.shape) for key, t in state.items()}


# --- the registry


def test_registry_is_sane():
    for name, file in REGISTRY.items():
        assert name == file.name
        assert file.licence
        assert file.url is not None or file.note.startswith("by hand")
        assert file.url is None or file.url.startswith("https://")
        assert file.sha256 is None or len(file.sha256) == 64
        assert file.url is None or file.sha256_prefix is not None, "nothing is fetched unchecked"
    assert len({file.file_name for file in REGISTRY.values()}) == len(REGISTRY)


def test_hash_of_the_hub_name_is_a_prefix():
    assert entry(PCA).sha256_prefix == "970ea276"
    assert entry(PCA).matches("970ea276" + 56 * "0")
    assert not entry(PCA).matches(64 * "0")
    assert not entry("suzhang-ir50").matches(64 * "0")
    with pytest.raises(ValueError, match="'resnet'; there are vggish"):
        entry("resnet")


# --- which file


def test_order_given_folder_cache(tmp_path, monkeypatch):
    cached = put(cache_folder() / "iresnet50.pth", b"cached")
    assert resolve(["iresnet50"], {}, None)["iresnet50"].path == cached
    monkeypatch.setenv("AVFUSE_WEIGHTS", str(tmp_path / "mine"))
    mine = put(tmp_path / "mine" / "iresnet50.safetensors", b"mine")
    assert resolve(["iresnet50"], {}, None)["iresnet50"].path == mine
    given = put(tmp_path / "given.pth", b"given")
    source = resolve(["iresnet50"], {"iresnet50": given}, 0)["iresnet50"]
    assert source == WeightSource(
        "iresnet50", "given.pth", given, sha256(b"given"), "not known to avfuse (your own file)"
    )
    assert source.identity == sha256(b"given")


def test_published_file_name_in_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("AVFUSE_WEIGHTS", str(tmp_path))
    path = put(tmp_path / "res50_ir_0.887.pth")
    source = resolve(["iresnet50"], {}, None)["iresnet50"]
    assert (source.path, source.name, source.licence) == (path, "suzhang-ir50", "none stated by its author")


def test_known_by_its_hash_under_any_name(tmp_path, monkeypatch):
    file = replace(entry("vggish"), sha256=sha256(b"weights"))
    monkeypatch.setitem(REGISTRY, "vggish", file)
    source = resolve(["vggish"], {"vggish": put(tmp_path / "renamed.pth")}, None)["vggish"]
    assert (source.name, source.licence) == ("vggish", "Apache-2.0")


def test_damaged_published_file_in_the_cache():
    path = put(cache_folder() / "vggish-10086976.pth", b"half of it")
    with pytest.raises(WeightsInvalid, match="weights fetch vggish") as caught:
        resolve(["vggish"], {}, None)
    for part in (str(path), sha256(b"half of it"), "10086976245803799d"):
        assert part in str(caught.value)


def test_missing_weights_are_one_error_with_the_ways():
    with pytest.raises(WeightsMissing) as caught:
        resolve(FEATURES, {}, None)
    message = str(caught.value)
    for part in (
        "no weights for iresnet50, vggish, logmel_vgg.",
        "avfuse weights fetch NAME",
        "vggish, w600k_r50",
        "--weights FEATURE=FILE",
        "AVFUSE_WEIGHTS=FOLDER",
        "--untrained SEED",
        "Apache-2.0",
        "non-commercial",
    ):
        assert part in message
    assert PCA not in message


def test_only_the_missing_are_named(tmp_path):
    with pytest.raises(WeightsMissing, match=r"no weights for iresnet50\."):
        resolve(FEATURES, {"vggish": put(tmp_path / "v.pth")}, None)


def test_logmel_vgg_falls_back_to_vggish(tmp_path):
    sources = resolve(["vggish", "logmel_vgg"], {"vggish": put(tmp_path / "v.pth")}, None)
    assert sources["logmel_vgg"].same_as == "vggish"
    assert sources["vggish"].same_as is None
    assert sources["logmel_vgg"].sha256 == sources["vggish"].sha256
    alone = resolve(["logmel_vgg"], {"vggish": tmp_path / "v.pth"}, None)
    assert alone == {"logmel_vgg": sources["logmel_vgg"]}
    own = put(tmp_path / "own.pth", b"own")
    given = {"vggish": tmp_path / "v.pth", "logmel_vgg": own}
    assert resolve(["logmel_vgg"], given, None)["logmel_vgg"].same_as is None


def test_untrained_fills_what_is_not_given(tmp_path):
    sources = resolve(FEATURES, {"vggish": put(tmp_path / "v.pth")}, 7)
    assert [sources[name].identity for name in ("iresnet50", "logmel_vgg")] == ["untrained:7"] * 2
    assert sources["vggish"].identity == sha256(b"weights")
    assert sources["logmel_vgg"].same_as is None
    assert sources["logmel_vgg"].as_attributes() == {
        "name": "untrained",
        "sha256": None,
        "licence": "none: random numbers",
        "untrained_seed": 7,
        "same_as": None,
        "untrained": True,
    }
    assert sources["vggish"].as_attributes()["untrained"] is False


def test_unknown_names_are_refused(tmp_path):
    for name in ("resnet", "mfcc"):
        with pytest.raises(ValueError, match=f"'{name}', only for iresnet50, vggish, logmel_vgg, vggish-pca"):
            resolve(["vggish"], {name: tmp_path}, 0)
    with pytest.raises(ValueError, match="'resnet'"):
        resolve(["resnet"], {}, 0)
    assert resolve(["mfcc", "logmel"], {}, None) == {}


def test_a_folder_that_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("AVFUSE_WEIGHTS", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="nowhere is no folder"):
        resolve(["vggish"], {}, None)


def test_a_given_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.pth"):
        resolve(["vggish"], {"vggish": tmp_path / "gone.pth"}, None)


def test_pca_is_asked_for_where_it_is_used():
    assert weight_names(ExtractConfig(("vggish", "mfcc"))) == ("vggish",)
    assert weight_names(ExtractConfig(("vggish", "mfcc"), vggish_output="pca")) == ("vggish", PCA)
    assert weight_names(ExtractConfig(("iresnet50",), vggish_output="pca")) == ("iresnet50",)


def test_torch_is_not_imported_before_a_network_is_loaded():
    code = "import sys, avfuse.pipeline.weights as w; w.resolve(['vggish'], {}, 0); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/")


# --- what is in the file


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
    assert isinstance(network.module, layout.build) and not network.module.training
    assert all(parameter.mean() == 0.5 for parameter in list(network.module.parameters())[:3])


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
def test_what_is_no_checkpoint(content, tmp_path):
    path = put(tmp_path / "broken.pth", content)
    with pytest.raises(
        WeightsInvalid, match=rf"broken\.pth: no checkpoint of torch.*{len(content)} bytes"
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
    with pytest.raises(WeightsInvalid, match="but a list"):
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


# --- untrained


def test_untrained_networks_are_the_seeds():
    sources = resolve((*FEATURES, PCA), {}, 0)
    first, again = (load_network(sources["iresnet50"]).module.state_dict() for _ in range(2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    rotation = load_pca(sources[PCA]).eigen_vectors
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(128), atol=1e-5)


def test_a_weight_file_cannot_be_changed():
    with pytest.raises(AttributeError):
        entry("vggish").licence = "mine"
    assert isinstance(entry("vggish"), WeightFile)
