"""The same rows on a GPU as on the CPU. Skipped where there is none, unless AVFUSE_REQUIRE=gpu asks for one."""

import numpy as np
import pytest
import torch

from avfuse.encoders.embed import Embedder
from avfuse.encoders.engine import BatchingEngine, whole_float32
from avfuse.encoders.families import clip, ferplus, timm_models
from avfuse.encoders.weights.read import untrained_network
from avfuse.features_store.store import FeatureStore
from avfuse.pipeline.faces.mtcnn import FaceDetector
from avfuse.pipeline.media.probe import probe
from avfuse.pipeline.media.readers import FrameReader

pytestmark = pytest.mark.gpu


def inputs_of(name: str, count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    if name == "iresnet50":
        return rng.integers(0, 255, (count, 112, 112, 3), dtype=np.uint8)
    return rng.standard_normal((count, 96, 64)).astype(np.float32)


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


@pytest.mark.parametrize("name", ["iresnet50", "vggish"])
@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.99999), ("bf16", 0.999), ("fp16", 0.999)])
def test_rows_of_a_gpu_are_those_of_the_cpu(gpu, name, precision, least):
    inputs = inputs_of(name, 48)
    reference = Embedder(untrained_network(name, 0), "cpu").rows(inputs)
    with whole_float32(precision):
        rows = Embedder(untrained_network(name, 0), gpu, precision).rows(inputs)
    assert cosines(reference, rows).min() >= least


@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.9999), ("bf16", 0.99), ("fp16", 0.999)])
@pytest.mark.parametrize(
    ("family", "feature", "side_px"),
    [(clip, "clip_large", 224), (timm_models, "mobilenetv3_large", 112), (ferplus, "senet50_ferplus", 224)],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_encoders_of_libraries_give_the_rows_of_the_cpu(gpu, family, feature, side_px, precision, least):
    y, x = np.mgrid[0:side_px, 0:side_px] / side_px
    waves = [127 + 120 * np.sin(20 * x * k + 9 * y + np.arange(3)[:, None, None]) for k in range(1, 5)]
    faces = np.stack(waves).transpose(0, 2, 3, 1).astype(np.uint8)
    options = {"feature": feature, "untrained": "0"}
    encoder = family.load(None, torch.device("cpu"), "fp32", options)
    reference = encoder.rows(faces)
    with whole_float32(precision):
        rows = family.load(None, gpu, precision, options).rows(faces)
    if precision != "fp32":  # a deep network of random weights may amplify what is less than a grey level
        nudge = np.random.default_rng(0).integers(-1, 2, faces.shape)
        nudged = encoder.rows(np.clip(faces.astype(int) + nudge, 0, 255).astype(np.uint8))
        least = min(least, cosines(reference, nudged).min())
    assert cosines(reference, rows).min() >= least


def test_a_row_does_not_depend_on_what_fills_its_batch(gpu):
    network = Embedder(untrained_network("iresnet50", 0), gpu, batch_size=32)
    engine = BatchingEngine({"iresnet50": network}, gpu)
    faces = inputs_of("iresnet50", 40)
    with whole_float32("fp32"):
        together = [engine.submit("iresnet50", faces[start : start + 5]) for start in range(0, 40, 5)]
        rows = np.concatenate([future.result() for asked in together for future in asked])
        alone = np.concatenate([engine.submit("iresnet50", face[None])[0].result() for face in faces])
    np.testing.assert_array_equal(rows, alone)
    engine.close()


def test_faces_are_found_where_the_cpu_finds_them(gpu, media):
    with FrameReader(probe(media / "real" / "pyfeat_single_face.mp4")) as reader:
        frames = next(iter(reader)).pixels
    for ours, reference in zip(FaceDetector(gpu)(frames), FaceDetector("cpu")(frames), strict=True):
        assert len(ours) == len(reference)
        assert np.abs(ours.boxes - reference.boxes).max() <= 0.5


def test_extract_gives_the_same_store(gpu, media, tmp_path, avfuse):
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("grid_brbk7n.mpg", "grid_bbaf2n.mpg", "pyfeat_single_face.mp4"):
        (videos / name).symlink_to(media / "real" / name)
    for device in ("cpu", "cuda"):
        avfuse("extract", "--videos", videos, "--store", tmp_path / device, "--untrained", 0, "--device", device)
    on_cpu, on_gpu = FeatureStore(tmp_path / "cpu"), FeatureStore(tmp_path / "cuda")
    assert list(on_cpu) == list(on_gpu)
    for trial in on_cpu:
        for feature in on_cpu[trial].features:
            real = on_cpu[trial].valid(feature)
            assert real.any()
            one, other = (store[trial].read(feature)[real] for store in (on_cpu, on_gpu))
            assert np.median(cosines(one, other)) >= 0.9999
