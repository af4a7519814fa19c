"""CLIP's image tower out of folders of both libraries: their own embeddings, projected and not normalised."""

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
from transformers import CLIPImageProcessor, CLIPModel, CLIPVisionConfig, CLIPVisionModelWithProjection

from avfuse.encoders.families.clip import load

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {"embed_dim": 48, "depth": 2, "num_heads": 3, "num_classes": 20}


@pytest.mark.parametrize("stored", ["whole", "tower alone", "one processor of everything", "of transformers 4.16"])
def test_a_folder_of_transformers(stored, clip_folder, tmp_path, pictures):
    """Against the whole model's image features, in which transformers finds the projection by itself."""
    model = CLIPModel.from_pretrained(clip_folder, local_files_only=True).eval()
    folder = shutil.copytree(clip_folder, tmp_path / "copy")
    if stored == "tower alone":
        described = CLIPVisionConfig(**{**model.config.vision_config.to_dict(), "projection_dim": 24})
        tower = CLIPVisionModelWithProjection(described)
        wanted = tower.state_dict()
        tower.load_state_dict({key: value for key, value in model.state_dict().items() if key in wanted})
        tower.save_pretrained(folder)
    elif stored == "one processor of everything":
        (folder / "preprocessor_config.json").rename(folder / "moved.json")
        nested = {
            "image_processor": json.loads((folder / "moved.json").read_text()),
            "processor_class": "CLIPProcessor",
        }
        (folder / "processor_config.json").write_text(json.dumps(nested))
    elif stored == "of transformers 4.16":  # as OpenAI's folder on the hub
        config = json.loads((folder / "config.json").read_text())
        config["vision_config"] |= {"dropout": 0.0, "max_length": 20, "num_beams": 1, "return_dict": False, "top_k": 50}
        config["vision_config"] |= {"torch_dtype": None, "pruned_heads": {}, "attn_implementation": "flash_attention_2"}
        (folder / "config.json").write_text(json.dumps(config))
        former = {"feature_extractor_type": "CLIPFeatureExtractor", "crop_size": 224, "size": 224, "resample": 3}
        described = json.loads((folder / "preprocessor_config.json").read_text())
        former |= {key: described[key] for key in ("image_mean", "image_std")}
        (folder / "preprocessor_config.json").write_text(json.dumps(former))
        state = load_file(folder / "model.safetensors")
        for tower_name, count in (("vision", 50), ("text", 77)):
            state[f"{tower_name}_model.embeddings.position_ids"] = torch.arange(count)[None]
        save_file(state, folder / "model.safetensors")
    faces = pictures(3, 224)
    pixels = CLIPImageProcessor.from_pretrained(clip_folder)(images=[*map(Image.fromarray, faces)], return_tensors="pt")
    with torch.inference_mode():
        found = model.get_image_features(**pixels)
    expected = getattr(found, "pooler_output", found).numpy()  # transformers 4: the rows themselves
    encoder = load(folder, CPU, "fp32", {"feature": "clip_large"})
    assert (encoder.dim, encoder.input_px) == (24, 224)
    rows = encoder.rows(faces)
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    assert np.abs(np.linalg.norm(rows, axis=1) - 1).min() > 1e-3
    np.testing.assert_allclose(rows, np.concatenate([encoder.rows(faces[[n]]) for n in range(3)]), atol=1e-5)
    np.testing.assert_array_equal(rows, encoder.rows(faces))


@pytest.mark.parametrize(
    ("architecture", "tag", "run"),
    [
        ("vit_large_patch14_clip_quickgelu_224", "openai", "vit_large_patch14_clip_quickgelu_224"),
        ("vit_large_patch14_clip_224", "laion2b", "vit_large_patch14_clip_224"),
        ("vit_large_patch14_clip_224", "openai", "vit_large_patch14_clip_quickgelu_224"),
    ],
    ids=["as it was trained", "of others", "OpenAI's under the other name"],
)
def test_a_folder_of_timm(architecture, tag, run, timm_folder, pictures):
    folder, faces = timm_folder(architecture, tag, **SMALL), pictures(2, 224)
    theirs = timm.create_model(run, pretrained=False, **SMALL).eval()
    theirs.load_state_dict(load_file(folder / "model.safetensors"))
    mean, std = (json.loads((folder / "config.json").read_text())["pretrained_cfg"][key] for key in ("mean", "std"))
    transform = create_transform((3, 224, 224), mean=mean, std=std, crop_pct=1.0, interpolation="bicubic")
    with torch.inference_mode():
        expected = torch.stack([transform(Image.fromarray(face)) for face in faces])
        expected = theirs(expected).numpy()
    encoder = load(folder, CPU, "fp32", {"feature": "clip_large"})
    assert encoder.dim == 20
    np.testing.assert_allclose(encoder.rows(faces), expected, atol=1e-5)


def test_half_a_checkpoint(clip_folder, tmp_path):
    copy = shutil.copytree(clip_folder, tmp_path / "copy")
    state = load_file(copy / "model.safetensors")
    for name in [name for name in state if ".layers.1." in name]:
        del state[name]
    save_file(state, copy / "model.safetensors")
    with pytest.raises(ValueError, match=r"not the tensors of CLIP's image tower \(missing: .* and 13 more\)"):
        load(copy, CPU, "fp32", {"feature": "clip_large"})


# transformers 5 looks at the settings, transformers 4 leaves it to the network.
WRONG = "not that of an image tower|CLIP's image tower cannot be built as config.json says"


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", {"model_type": "bert"}, "model_type 'bert', not 'clip'"),
        ("config.json", {"vision_config": 3}, "no vision_config"),
        ("config.json", {"vision_config": {"hidden_size": "wide"}}, WRONG),
        ("config.json", {"vision_config": {"hidden_size": 32, "num_attention_heads": 3}}, WRONG),
        ("config.json", {"projection_dim": 25}, r"is \[24, 32\], not \[25, 32\]"),
        ("preprocessor_config.json", {"image_mean": None}, "does not say image_mean and image_std"),
    ],
    ids=str,
)
def test_a_configuration_that_cannot_be(file, changes, message, clip_folder, tmp_path):
    copy = shutil.copytree(clip_folder, tmp_path / "copy")
    found = json.loads((copy / file).read_text())
    (copy / file).write_text(json.dumps({**found, **changes}))
    with pytest.raises(ValueError, match=message):
        load(copy, CPU, "fp32", {"feature": "clip_large"})


def test_a_folder_without_what_says_how_pixels_are_brought_in(clip_folder, tmp_path):
    copy = shutil.copytree(clip_folder, tmp_path / "copy")
    (copy / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match=r"has no preprocessor_config\.json"):
        load(copy, CPU, "fp32", {"feature": "clip_large"})


def test_timm_s_tower_without_its_projection(timm_folder):
    folder = timm_folder("vit_large_patch14_clip_quickgelu_224", **{**SMALL, "num_classes": 0})
    with pytest.raises(ValueError, match="with 0 outputs is not an image tower of CLIP with its projection"):
        load(folder, CPU, "fp32", {"feature": "clip_large"})
    with pytest.raises(ValueError, match="test_resnet with 1000 outputs is not an image tower"):
        load(timm_folder("test_resnet"), CPU, "fp32", {"feature": "clip_large"})
