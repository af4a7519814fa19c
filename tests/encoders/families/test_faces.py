"""Encoders of faces through `extract` on a real clip: the library's rows of the crops that the landmarks give."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from transformers import CLIPImageProcessor, CLIPModel

from avfuse.encoders.families.timm_models import load
from avfuse.features_store.records.verify import verify
from avfuse.features_store.store import FeatureStore
from avfuse.pipeline.extraction import visual
from avfuse.pipeline.faces.align import align
from avfuse.pipeline.media.probe import probe
from avfuse.pipeline.media.readers import FrameReader

TRIAL = "pyfeat_single_face"
# Two of 224 px share a view; beside them 160 px, and 112 of a network whose folder says 224.
FEATURES = ("clip_large", "eva02_large", "timm:test_resnet", "mobilenetv3_large")


@pytest.fixture(scope="module")
def videos(tmp_path_factory, media, ffmpeg_run):
    folder: Path = tmp_path_factory.mktemp("faces") / "videos"
    folder.mkdir()
    ffmpeg_run("-i", media / f"real/{TRIAL}.mp4", "-t", "0.7", "-c", "copy", folder / f"{TRIAL}.mp4")
    return folder


@pytest.fixture(scope="module")
def folders(timm_folder, clip_folder):
    return {
        "clip_large": clip_folder,
        "eva02_large": timm_folder("eva02_large_patch14_224", embed_dim=48, depth=2, num_heads=3, num_classes=5),
        "timm:test_resnet": timm_folder("test_resnet"),
        "mobilenetv3_large": timm_folder("mobilenetv3_large_100", num_classes=5),
    }


@pytest.fixture(scope="module")
def extract(avfuse, videos, folders):
    """`extract` of these features, each from its folder."""

    def run(store: Path, names, *words):
        given = [word for name in names if name in folders for word in ("--weights", f"{name}={folders[name]}")]
        common = ("--videos", videos, "--store", store, "--device", "cpu", "--json")
        result = avfuse("extract", *common, "--features", ",".join(names), *given, *words)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return run


@pytest.fixture(scope="module")
def at_once(extract, tmp_path_factory):
    store = tmp_path_factory.mktemp("stores") / "s.zarr"
    extract(store, (*FEATURES, "crop112", "mfcc"))
    return FeatureStore(store)


@pytest.fixture(scope="module")
def views(at_once, videos):
    """Crops by side, cut anew out of the decoded frames at the stored landmarks."""
    with FrameReader(probe(videos / f"{TRIAL}.mp4")) as reader:
        frames = np.concatenate([batch.pixels for batch in reader])
    marks = at_once[TRIAL].read("face_landmarks")
    assert len(frames) == len(marks) > 10
    found = {px: [align(*pair, px) for pair in zip(frames, marks, strict=True)] for px in (112, 160, 224)}
    return {px: np.stack([crop for crop in crops if crop is not None]) for px, crops in found.items()}


def test_rows_are_the_libraries_own(at_once, views, folders):
    trial = at_once[TRIAL]
    np.testing.assert_array_equal(trial.read("crop112"), views[112])
    assert trial.valid("clip_large").all()
    expected = {}
    clip = CLIPModel.from_pretrained(folders["clip_large"], local_files_only=True).eval()
    processor = CLIPImageProcessor.from_pretrained(folders["clip_large"])
    pixels = processor(images=[*map(Image.fromarray, views[224])], return_tensors="pt")
    with torch.inference_mode():
        expected["clip_large"] = clip.get_image_features(**pixels).pooler_output.numpy()
        for name, side_px in (("eva02_large", 224), ("timm:test_resnet", 160), ("mobilenetv3_large", 112)):
            network = timm.create_model(f"local-dir:{folders[name]}", pretrained=True, num_classes=0).eval()
            described = json.loads((folders[name] / "config.json").read_text())["pretrained_cfg"]
            mean, std = (torch.tensor(described[key])[:, None, None] for key in ("mean", "std"))
            inputs = (torch.from_numpy(views[side_px]).permute(0, 3, 1, 2) / 255 - mean) / std
            expected[name] = network.to(memory_format=torch.channels_last)(inputs).numpy()
    for name, rows in expected.items():
        found = trial.read(name)
        assert (found.dtype, found.shape) == (np.float32, rows.shape)
        np.testing.assert_allclose(found, rows, atol=1e-5 * max(1, np.abs(rows).max()), err_msg=name)
    entry = trial.entries["timm:test_resnet"]
    assert entry["made_from"] == "faces"
    assert entry["weights"]["licence"] == "apache-2.0"


@pytest.mark.slow
def test_one_after_the_other_looks_for_no_face_again(extract, at_once, tmp_path, monkeypatch):
    """Bit for bit, whatever else is asked for, and in whatever order."""
    store = tmp_path / "s.zarr"
    extract(store, ["mobilenetv3_large"])

    def refused(*words):
        raise AssertionError("faces were looked for again")

    monkeypatch.setattr(visual, "detected_faces", refused)
    for names in (["timm:test_resnet", "mfcc"], ["clip_large"], ["crop112", "eva02_large"]):
        assert extract(store, names)["failed"] == []
    later = FeatureStore(store)[TRIAL]
    assert dict(later.checksums) == dict(at_once[TRIAL].checksums)
    prints = [{key: entry["fingerprint"] for key, entry in each.entries.items()} for each in (later, at_once[TRIAL])]
    assert prints[0] == prints[1]
    assert list(verify(FeatureStore(store))) == []


def test_the_organisers_crops_are_enlarged_as_pil_does(extract, views, folders, tmp_path):
    crops = tmp_path / "crops" / TRIAL
    crops.mkdir(parents=True)
    for row, pixels in enumerate(views[112]):
        Image.fromarray(pixels).save(crops / f"{row + 1:05d}.jpg", quality=95)
    extract(tmp_path / "s.zarr", ["eva02_large"], "--aligned", tmp_path / "crops")
    pictures = [Image.open(crops / f"{row + 1:05d}.jpg") for row in range(len(views[112]))]
    large = np.stack([np.asarray(each.resize((224, 224), Image.Resampling.BICUBIC)) for each in pictures])
    rows = load(folders["eva02_large"], torch.device("cpu"), "fp32", {"feature": "eva02_large"}).rows(large)
    np.testing.assert_allclose(FeatureStore(tmp_path / "s.zarr")[TRIAL].read("eva02_large"), rows, atol=1e-5)


def test_other_weights_under_the_same_name_are_made_anew(avfuse, extract, videos, timm_folder, tmp_path):
    store, other = tmp_path / "s.zarr", timm_folder("test_resnet", num_classes=3)
    extract(store, ["timm:test_resnet"])
    words = ("--features", "timm:test_resnet", "--weights", f"timm:test_resnet={other}", "--device", "cpu")
    refused = avfuse("extract", "--videos", videos, "--store", store, *words)
    assert refused.exit_code == 1
    assert "weights of timm:test_resnet" in refused.stderr
    wrong = avfuse(
        "extract", "--videos", videos, "--store", tmp_path / "t.zarr", *words[2:], "--features", "eva02_base"
    )
    assert wrong.exit_code == 1
    assert "no weights for eva02_base" in wrong.stderr or "no weights are used" in wrong.stderr
