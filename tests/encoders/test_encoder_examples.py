"""Encoders of the user's own through `extract`: the examples' rows are right, and what is wrong is one line."""

import json
import runpy
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision.models import mobilenet_v3_small

from avfuse.features_store.store import FeatureStore
from avfuse.pipeline.media.probe import probe
from avfuse.pipeline.media.readers import AudioReader

EXAMPLES = Path(__file__).parents[2] / "examples" / "encoders"
CLIP = "derived/grid_bbaf2n_truncated.mpg"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Seeded random weights of the two networks."""
    folder = tmp_path_factory.mktemp("weights")
    layers = (nn.Conv1d(1, 8, 10, 5), nn.GELU(), nn.Conv1d(8, 16, 8, 8), nn.GELU(), nn.Conv1d(16, 24, 8, 8))
    for name, network in (("face_net", mobilenet_v3_small()), ("voice_net", nn.Sequential(*layers))):
        state = network.state_dict()
        rng = np.random.default_rng(0)
        for key, tensor in state.items():
            if tensor.ndim > 1:
                drawn = rng.standard_normal(tuple(tensor.shape)) / np.sqrt(tensor[0].numel())
                state[key] = torch.from_numpy(drawn.astype(np.float32))
        save_file(state, folder / f"{name}.safetensors")
    return folder


@pytest.fixture(scope="module")
def extracted(media, weights, avfuse, tmp_path_factory):
    """One real clip through all three examples, next to avfuse's own crops."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "videos").mkdir()
    (folder / "videos" / Path(CLIP).name).symlink_to((media / CLIP).resolve())
    own = [word for name in ("face_net", "voice_net") for word in ("--encoder", f"{name}={EXAMPLES / name}.py")]
    files = [
        word for name in ("face_net", "voice_net") for word in ("--weights", f"{name}={weights / name}.safetensors")
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        features = "face_net,voice_net,hear:hear_bands,crop112"
        result = avfuse(
            *("extract", "--videos", folder / "videos", "--store", folder / "s.zarr", "--device", "cpu"),
            *("--features", features, *own, *files),
        )
    assert result.exit_code == 0, result.stderr
    store = FeatureStore(folder / "s.zarr")
    return store[store.trials()[0]]


def test_a_face_network(extracted, weights):
    module = runpy.run_path(str(EXAMPLES / "face_net.py"))
    network = module["load"](weights / "face_net.safetensors", torch.device("cpu"), "fp32", {})
    valid = extracted.read("face_net_valid")
    assert valid.mean() > 0.9
    np.testing.assert_allclose(
        extracted.read("face_net")[valid][:40:4], network.rows(extracted.read("crop112")[valid][:40:4]), atol=1e-5
    )


def rows_of(states, first_s, hop_s, time_s):
    """The mean of the states centred in each frame's time, the nearest where there is none: in plain NumPy."""
    centres_s = first_s + hop_s * np.arange(len(states))
    edges_s = np.append(time_s, 2 * time_s[-1] - time_s[-2])
    rows = []
    for start_s, stop_s in pairwise(edges_s):
        within = (centres_s >= start_s - 1e-6) & (centres_s < stop_s - 1e-6)
        nearest = np.abs(centres_s - (start_s + stop_s) / 2).argmin()
        rows.append(states[within].mean(axis=0) if within.any() else states[nearest])
    return np.array(rows)


@pytest.mark.parametrize("name", ["voice_net", "hear:hear_bands"])
def test_a_model_of_sound(extracted, weights, media, name):
    with AudioReader(probe(media / CLIP)) as audio:
        samples = torch.from_numpy(np.concatenate(list(audio))[None])
    if name == "voice_net":
        module = runpy.run_path(str(EXAMPLES / "voice_net.py"))
        made = module["load"](weights / "voice_net.safetensors", torch.device("cpu"), "fp32", {})
        states, first_s, hop_s = made.states(samples.numpy())[0], made.first_s, made.hop_s
    else:
        module = runpy.run_path(str(EXAMPLES / "hear_bands.py"))
        found, times = module["get_timestamp_embeddings"](samples, module["load_model"]())
        states, first_s, hop_s = found[0].numpy(), float(times[0, 0]) / 1000, float(times[0, 1] - times[0, 0]) / 1000
    valid = extracted.read(f"{name}_valid")
    assert valid.mean() > 0.8
    wanted = rows_of(states, first_s, hop_s, extracted.time_s)
    np.testing.assert_allclose(extracted.read(name)[valid], wanted[valid], atol=1e-4)


def test_what_made_them_is_recorded(extracted, avfuse):
    made = extracted.attributes["features"]["face_net"]
    assert made["licence"] == "BSD-3-Clause (torchvision)"
    assert made["encoder"] == {"kind": "face", "input_px": 112}
    assert extracted.attributes["features"]["voice_net"]["encoder"]["hop_s"] == 0.02
    assert {"torchvision", "safetensors", "torch"} <= set(made["versions"])
    assert len(made["weights"]["sha256"]) == len(made["settings"]["encoder"]) == 64


# --- what goes wrong

SOUND = """
import numpy as np
KIND, REVISION, LICENCE, NEEDS = "audio", 1, "MIT", ()
class Loudness:
    dim, sample_rate, window_s, context_s, hop_s, first_s = 1, 16000, 20.0, 0.0, 0.02, 0.01
    def states(self, samples):
        found = samples[:, :samples.shape[1] // 320 * 320].reshape(len(samples), -1, 320).std(axis=2)[:, :, None]
        CHANGE
        return found
def load(weights, device, precision, options):
    return Loudness()
"""
FACE = """
import numpy as np
KIND, REVISION, LICENCE, NEEDS = "face", 1, "MIT", ()
class Colours:
    dim = 3
    def rows(self, faces):
        found = faces.mean(axis=(1, 2)).astype(np.float32)
        CHANGE
        return found
def load(weights, device, precision, options):
    return Colours()
"""


@pytest.fixture(scope="module")
def dark(make_clip, tmp_path_factory):
    """Four frames with sound, and a crop for each: no face has to be found."""
    folder = tmp_path_factory.mktemp("dark")
    clip = make_clip(
        "dark.mp4", np.zeros((4, 64, 64, 3), np.uint8), samples=np.sin(np.arange(8000) / 9), rate_hz=16_000
    )
    (folder / "videos").mkdir()
    clip.rename(folder / "videos" / "dark.mp4")
    crops = folder / "crops" / "dark"
    crops.mkdir(parents=True)
    for number in range(4):
        Image.fromarray(np.full((112, 112, 3), 50 * number, np.uint8)).save(crops / f"{number + 1:05}.jpg")
    return folder


@pytest.fixture
def extract(dark, avfuse, tmp_path):
    """Extract the dark clip with this file as the encoder `mine`."""

    def run(text, *more):
        path = tmp_path / "mine.py"
        path.write_text(text)
        words = ("extract", "--videos", dark / "videos", "--aligned", dark / "crops", "--store", tmp_path / "s.zarr")
        return avfuse(
            *words, "--features", "mine,mfcc", "--encoder", f"mine={path}", "--device", "cpu", "--json", *more
        )

    return run


@pytest.mark.parametrize("text", [FACE, SOUND], ids=["face", "sound"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("found = found[..., :0]", "gave float32 ["),
        ("found = found.astype(np.float64)", "gave float64 ["),
        ("found[:] = np.nan", "gave NaN or infinity"),
        ("found = list(found)", "gave a list, not a NumPy array"),
        ("raise KeyError('key')", "KeyError: 'key'"),
        ("found = np.concatenate([found, found])", "is due"),
    ],
)
def test_a_lie_is_one_failure_that_names_the_encoder(extract, text, change, said):
    result = extract(text.replace("CHANGE", change))
    assert result.exit_code == 3
    (failure,) = json.loads(result.stdout)["failed"]
    assert "encoder mine: " in failure["reason"]
    assert said in failure["reason"]
    assert "\n" not in failure["reason"]


@pytest.mark.parametrize("text", [FACE, SOUND], ids=["face", "sound"])
def test_the_truth_passes_and_is_kept(extract, text):
    whole = text.replace("CHANGE", "")
    assert extract(whole).exit_code == 0
    again = json.loads(extract(whole).stdout)
    assert (len(again["extracted"]), again["done_before"]) == (0, 1)
    changed = extract(whole + "# another\n")
    assert changed.exit_code == 1
    assert "encoder: " in changed.stderr
    assert extract(whole + "# another\n", "--replace").exit_code == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1/0", "ZeroDivisionError"),
        (FACE.replace("CHANGE", "").replace('"face"', '"smell"'), "KIND must be"),
        (FACE.replace("CHANGE", "").replace("dim = 3", "dim = None"), "encoder mine: dim must be a whole number"),
        (
            FACE.replace("CHANGE", "").replace("return Colours()", "raise OSError('no\\\\nfile')"),
            "encoder mine: OSError",
        ),
        (
            FACE.replace("CHANGE", "").replace("()\nclass", "('nope-nope',)\nclass"),
            "mine needs nope-nope: pip install nope-nope",
        ),
    ],
)
def test_a_file_that_cannot_start_starts_nothing(extract, text, said):
    result = extract(text)
    assert result.exit_code in (1, 2)
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_what_is_damaged_is_made_again_with_the_file(extract, avfuse, tmp_path):
    assert extract(SOUND.replace("CHANGE", "")).exit_code == 0
    for chunk in (tmp_path / "s.zarr" / "dark" / "mine" / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(b"damaged")
    result = avfuse("verify", "--store", tmp_path / "s.zarr")
    assert result.exit_code != 0
    assert "--encoder mine=….py" in result.output
    assert "--features mine" in result.output or "mine" in result.output.split("--features ")[1]


@pytest.mark.parametrize("path", sorted((EXAMPLES.parent / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_settings_of_the_papers_name_what_there_is(path, dark, avfuse, tmp_path):
    (tmp_path / "dark.csv").write_text("word,start_s,end_s,confidence\n")
    words = ("--words", tmp_path) if "bert" in path.read_text() else ()
    store = tmp_path / "s.zarr"
    result = avfuse("extract", "--videos", dark / "videos", "--store", store, "--config", path, "--dry-run", *words)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.split() == ["dark"]
