"""Networks of timm out of folders: the library's own rows, and nothing of what a folder must not have."""

import json
import shutil
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data.transforms_factory import create_transform

from avfuse.encoders.families.images import Preprocessing
from avfuse.encoders.families.timm_models import load

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {"embed_dim": 48, "depth": 2, "num_heads": 3, "num_classes": 5}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "eva02_large": ("eva02_large_patch14_224", SMALL),
    "eva02_base": ("eva02_base_patch14_224", SMALL),
    "mobilenetv3_large": ("mobilenetv3_large_100", {"num_classes": 5}),
    "efficientnetv2_t": ("efficientnetv2_rw_t", {"num_classes": 5}),
    "timm:test_vit.r160_in1k": ("test_vit", {}),
    "timm:test_resnet": ("test_resnet", {}),
    "timm:convnext_atto": ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}),
    # Its classifier is of several layers; and one whose positions are in no file.
    "timm:levit_128s": ("levit_128s", {}),
    "timm:vit_small_patch16_dinov3": ("vit_small_patch16_dinov3", {"embed_dim": 64, "depth": 2, "num_heads": 2}),
}
DIMS = {"eva02_large": 48, "mobilenetv3_large": 1280, "efficientnetv2_t": 1024, "timm:test_resnet": 96}


def with_config(folder, tmp_path, **changes):
    """A copy of a folder with other words in its config.json."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    for key, value in changes.items():
        if key in ("architecture", "model_args"):
            config[key] = value
        else:
            config["pretrained_cfg"][key] = value
    (copy / "config.json").write_text(json.dumps(config))
    return copy


@pytest.fixture(scope="module")
def small(timm_folder):
    return timm_folder(*["test_resnet"])


@pytest.mark.parametrize(
    "feature", [pytest.param(each, marks=pytest.mark.slow if each == "efficientnetv2_t" else ()) for each in NETWORKS]
)
def test_rows_are_timms_own(feature, timm_folder, pictures):
    """Against timm's reader, transform (without its crop) and network."""
    architecture, arguments = NETWORKS[feature]
    folder = timm_folder(architecture, **arguments)
    theirs: Any = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    theirs = theirs.to(memory_format=torch.channels_last)
    side_px = 112 if feature in ("mobilenetv3_large", "efficientnetv2_t") else theirs.pretrained_cfg["input_size"][1]
    faces = pictures(3, side_px)
    described = theirs.pretrained_cfg
    transform = create_transform(
        (3, side_px, side_px), mean=described["mean"], std=described["std"], crop_pct=1.0, interpolation="bicubic"
    )
    with torch.inference_mode():
        inputs = torch.stack([transform(Image.fromarray(face)) for face in faces])
        expected = theirs(inputs.contiguous(memory_format=torch.channels_last)).numpy()
    encoder = load(folder, CPU, "fp32", {"feature": feature})
    assert (encoder.input_px, encoder.dim) == (side_px, expected.shape[1])
    assert encoder.dim == DIMS.get(feature, encoder.dim)
    rows = encoder.rows(faces)
    assert rows.dtype == np.float32
    assert np.abs(expected).mean() > 0.01
    np.testing.assert_allclose(rows, expected, atol=1e-5 * max(1, np.abs(expected).max()))
    assert np.abs(rows[0] - rows[1]).max() > 1e-4


def test_one_by_one_and_again(timm_folder, pictures):
    folder = timm_folder("eva02_large_patch14_224", **SMALL)
    encoder = load(folder, CPU, "fp32", {"feature": "eva02_large"})
    faces = pictures(5, 224)
    rows = encoder.rows(faces)
    np.testing.assert_array_equal(rows, encoder.rows(faces))
    np.testing.assert_array_equal(rows, load(folder, CPU, "fp32", {"feature": "eva02_large"}).rows(faces))
    np.testing.assert_allclose(rows, np.concatenate([encoder.rows(faces[[n]]) for n in range(5)]), atol=1e-5)
    assert encoder.rows(faces[:0]).shape == (0, 48)


def test_half_precision_is_close(timm_folder, pictures):
    folder, faces = timm_folder("eva02_large_patch14_224", **SMALL), pictures(4, 224)
    exact, half = (load(folder, CPU, kind, {"feature": "eva02_large"}).rows(faces) for kind in ("fp32", "bf16"))
    assert 0 < np.abs(half - exact).max() < 0.05 * np.abs(exact).max()
    with pytest.raises(ValueError, match="fp16 needs a GPU"):
        load(folder, CPU, "fp16", {"feature": "eva02_large"})


@pytest.mark.parametrize(("from_px", "to_px", "bicubic"), [(112, 224, True), (112, 40, True), (224, 96, False)])
def test_another_size_is_what_pil_makes_of_it(from_px, to_px, bicubic, pictures):
    faces = pictures(2, from_px)
    kind = Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR
    theirs = np.stack([np.asarray(Image.fromarray(face).resize((to_px, to_px), kind)) for face in faces])
    ours = Preprocessing(to_px, (0, 0, 0), (1 / 255,) * 3, bicubic)(torch.from_numpy(faces)).permute(0, 2, 3, 1)
    off = np.abs(ours.numpy() - theirs)
    assert off.max() < 2.01
    assert (off > 1.01).mean() < 1e-3


def test_a_network_of_fewer_pixels_shrinks_its_view(timm_folder, pictures):
    folder = timm_folder("test_resnet", img_size=None)
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"]["input_size"] = [3, 64, 64]
    (folder / "config.json").write_text(json.dumps(config))
    encoder = load(folder, CPU, "fp32", {"feature": "timm:test_resnet"})
    assert encoder.input_px == 112
    faces = pictures(2, 112)
    small = np.stack([np.asarray(Image.fromarray(face).resize((64, 64), Image.Resampling.BICUBIC)) for face in faces])
    assert np.corrcoef(encoder.rows(faces).ravel(), encoder.rows(small).ravel())[0, 1] > 0.99


def test_untrained_weights_are_the_seed_s(pictures):
    faces, named = pictures(2, 112), {"feature": "mobilenetv3_large"}
    rows = [load(None, CPU, "fp32", {**named, "untrained": seed}).rows(faces) for seed in ("1", "1", "2")]
    np.testing.assert_array_equal(rows[0], rows[1])
    assert np.abs(rows[0] - rows[2]).mean() > 0.01
    assert rows[0].shape == (2, 1280)
    assert 0.1 < np.sqrt(np.square(rows[0]).mean()) < 100


@pytest.mark.parametrize("what", ["half", "another shape", "too much"])
def test_every_tensor_and_no_other(what, small, tmp_path):
    """Keys below the classifier are the only ones that nobody needs."""
    copy = shutil.copytree(small, tmp_path / "copy")
    state = load_file(copy / "model.safetensors")
    names = sorted(name for name in state if not name.startswith("fc."))
    if what == "half":
        state = {name: state[name] for name in names[::2]}
    elif what == "another shape":
        state["conv1.0.weight"] = torch.zeros(7, 3, 3, 3)
    else:
        state["lora.weight"] = torch.zeros(3)
    save_file(state, copy / "model.safetensors")
    expected = {"half": "missing: ", "another shape": r"is \[7, 3, 3, 3\], not", "too much": "unexpected: lora.weight"}
    with pytest.raises(ValueError, match=f"not the tensors of test_resnet .*{expected[what]}"):
        load(copy, CPU, "fp32", {"feature": "timm:test_resnet"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "hf-hub:timm/resnet18"}, "has no network 'hf-hub:timm/resnet18'"),
        ({"architecture": "../resnet18"}, "has no network"),
        ({"architecture": None}, "is not timm's"),
        ({"model_args": {"checkpoint_path": "/etc/passwd"}}, "checkpoint_path is not an argument"),
        ({"model_args": {"pretrained": True}}, "pretrained is not an argument"),
        ({"model_args": {"no_such_word": 3}}, "cannot be built as config.json says"),
        ({"model_args": {"global_pool": ""}}, r"one row per picture is needed; the network gives \[1, 96, 5, 5\]"),
        ({"input_size": [3, 160, 112]}, "three channels of a square"),
        ({"input_size": [1, 160, 160]}, "three channels of a square"),
        ({"input_size": [3, 99999, 99999]}, "1 to 1024"),
        ({"input_size": None}, "does not say input_size"),
        ({"mean": [0.5]}, "are not those of three channels"),
        ({"std": [0.5, 0.5, 0]}, "are not those of three channels"),
    ],
    ids=str,
)
def test_a_configuration_that_cannot_be(changes, message, small, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        load(with_config(small, tmp_path, **changes), CPU, "fp32", {"feature": "timm:test_resnet"})
    assert "\n" not in str(caught.value).strip()


def test_a_folder_of_another_network(small):
    for feature, wanted in (("eva02_large", "eva02_large_patch14_…"), ("timm:resnet50.a1_in1k", "resnet50")):
        with pytest.raises(ValueError, match=f"the folder holds test_resnet, not {wanted}"):
            load(small, CPU, "fp32", {"feature": feature})
    with pytest.raises(ValueError, match="has no network 'resnet5O'"):
        load(None, CPU, "fp32", {"feature": "timm:resnet5O", "untrained": "0"})


def test_faces_of_another_form_are_refused(small):
    encoder = load(small, CPU, "fp32", {"feature": "timm:test_resnet"})
    wrongs: tuple[Any, ...] = (np.zeros((1, 9, 9, 3), "f4"), np.zeros((1, 9, 8, 3), "u1"), np.zeros(3, "u1"))
    for wrong in wrongs:
        with pytest.raises(ValueError, match="faces are uint8"):
            encoder.rows(wrong)
