"""Weights are found in the promised order, and named by their hash."""

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from avfuse.encoders.weights.registry import PCA, REGISTRY, WeightFile, entry
from avfuse.encoders.weights.resolve import (
    WeightsInvalid,
    WeightsMissing,
    WeightSource,
    cache_folder,
    files_given,
    load_network,
    load_pca,
    resolve,
    weight_names,
)
from avfuse.features_store.entries import weights_identity

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
    assert weights_identity(source.as_attributes()) == sha256(b"given")


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
    assert [weights_identity(sources[name].as_attributes()) for name in ("iresnet50", "logmel_vgg")] == [
        "untrained:7"
    ] * 2
    assert weights_identity(sources["vggish"].as_attributes()) == sha256(b"weights")
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
        with pytest.raises(ValueError, match=f"'{name}', only for iresnet50, vggish, logmel_vgg, .*vggish-pca"):
            resolve(["vggish"], {name: tmp_path}, 0)
    with pytest.raises(ValueError, match="'resnet'"):
        resolve(["resnet"], {}, 0)
    assert resolve(["mfcc", "logmel"], {}, None) == {}


def test_a_folder_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("AVFUSE_WEIGHTS", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="nowhere is not a folder"):
        resolve(["vggish"], {}, None)


def test_a_given_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.pth"):
        resolve(["vggish"], {"vggish": tmp_path / "missing.pth"}, None)


def test_pca_is_asked_for_where_it_is_used():
    assert weight_names(("vggish",), "raw") == ("vggish",)
    assert weight_names(("vggish",), "pca") == ("vggish", PCA)
    assert weight_names(("iresnet50",), "pca") == ("iresnet50",)


def test_torch_is_not_imported_before_a_network_is_loaded():
    code = "import sys; from avfuse.encoders.weights import resolve as weights; weights.resolve(['vggish'], {}, 0); "
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/")


def test_untrained_networks_are_the_seeds():
    sources = resolve((*FEATURES, PCA), {}, 0)
    first, again = (load_network(sources["iresnet50"]).module.state_dict() for _ in range(2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    rotation = load_pca(sources[PCA]).eigen_vectors
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(128), atol=1e-5)


def test_a_weight_file_cannot_be_changed():
    with pytest.raises(AttributeError):
        entry("vggish").licence = "mine"  # type: ignore[misc]  # is refused
    assert isinstance(entry("vggish"), WeightFile)


def test_which_files_were_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.pth").write_bytes(b"mine")
    (tmp_path / "iresnet50.pth").write_bytes(b"found")
    monkeypatch.setenv("AVFUSE_WEIGHTS", str(tmp_path))
    sources = resolve(["iresnet50", "logmel_vgg"], {"vggish": Path("mine.pth")}, None)
    sha256 = hashlib.sha256(b"mine").hexdigest()
    files = {"iresnet50": None, "vggish": {"path": str(tmp_path / "mine.pth"), "sha256": sha256}}
    assert files_given(sources, {"vggish"}) == files
    assert files_given(resolve(["vggish"], {}, 3), set()) == {}
