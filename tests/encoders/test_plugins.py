"""Encoders of other people: found by name, asked what they are, and held to what they say."""

import importlib
import pickle
import subprocess
import sys
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from avfuse.encoders import plugins
from avfuse.encoders.contract import EncoderFailed, about, check_needs, pip_command
from avfuse.encoders.loading import LoadedEncoder, load_encoder
from avfuse.encoders.plugins import encoder_file, use_files
from avfuse.encoders.table import entries_for, feature
from avfuse.features_store.disk.atomic import sha256_of
from avfuse.pipeline.config import ExtractConfig

HEAD = "KIND, REVISION, LICENCE, NEEDS = 'face', 3, 'MIT', ()\n"
COLOURS = """
import numpy as np
class Colours:
    dim = 3
    def rows(self, faces):
        return faces.mean(axis=(1, 2), dtype=np.float64).astype(np.float32)
def load(weights, device, precision, options):
    return Colours()
"""
FACES = np.arange(2 * 112 * 112 * 3, dtype=np.uint32).astype(np.uint8).reshape(2, 112, 112, 3)


@pytest.fixture(autouse=True)
def _no_files_are_left():
    yield
    use_files([])


@pytest.fixture
def own(tmp_path):
    """A file of this text becomes the encoder `mine` of this process."""

    def write(text, name="mine"):
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        use_files([encoder_file(name, path)])
        return path

    return write


def load(name):
    return load_encoder(name, {"precision": "fp32"}, None, torch.device("cpu"), "fp32", 4)


# --- names


def test_a_file_is_a_feature_of_its_own_name(own):
    path = own(HEAD + COLOURS)
    made = feature("mine")
    assert (made.stream, made.view, made.row_shape, made.revision) == ("visual", "crop", None, 3)
    assert made.code_sha256 == sha256_of(path)
    rows = load("mine").rows(FACES)
    np.testing.assert_allclose(rows, FACES.mean(axis=(1, 2)), rtol=1e-6)


def test_a_file_that_changed_within_a_second_is_not_taken_from_a_cache(own, monkeypatch):
    """Python's own cache of compiled files goes by size and second."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    own(HEAD + COLOURS)
    assert load("mine").dim == 3
    own(HEAD.replace("3", "4") + COLOURS)
    assert feature("mine").revision == 4


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("iresnet5", "did you mean iresnet50"),
        ("openface", "timm:NAME, hear:MODULE; your own: --encoder NAME=FILE.py"),
        ("timm:../net", "cannot be the name of a timm model"),
        ("timm:", "cannot be the name of a timm model"),
        ("hear:os; print", "cannot be the name of a hear model"),
    ],
)
def test_a_name_that_is_nobodys(name, said):
    with pytest.raises(ValueError, match=said):
        feature(name)


def test_names_with_a_prefix_say_what_they_are():
    timm, hear = feature("timm:resnet18.a1_in1k"), feature("hear:some.package")
    assert (timm.stream, timm.weights, timm.network) == ("visual", "folder", timm.name)
    assert (hear.stream, hear.view, hear.weights) == ("audio", "states", "optional")
    assert timm.spec.axes == ("feature_timm:resnet18.a1_in1k",)


def test_a_package_brings_an_encoder(tmp_path, monkeypatch):
    """As it is once installed: a module and the metadata beside it, found on the path."""
    (tmp_path / "colour_package.py").write_text(HEAD + COLOURS)
    info = tmp_path / "colour_package-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: colour-package\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[avfuse.encoders]\ncolours = colour_package\nbroken = not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    made = feature("colours")
    assert (made.load, made.code_sha256, made.is_own) == ("colour-package 1.2, colour_package", None, True)
    assert load("colours").rows(FACES).shape == (2, 3)
    with pytest.raises(ValueError, match=r"^the entry point broken of avfuse\.encoders: ModuleNotFoundError"):
        feature("broken")


@pytest.mark.parametrize("name", ["a b", "", "x/y", "mine_valid", "timm:x", "-x"])
def test_a_file_cannot_have_every_name(name, tmp_path):
    (tmp_path / "x.py").write_text(HEAD)
    with pytest.raises(ValueError, match="a name has letters"):
        encoder_file(name, tmp_path / "x.py")


def test_nothing_is_run_before_its_name_is_asked_for(own, tmp_path):
    own(f"import pathlib; pathlib.Path({str(tmp_path / 'ran')!r}).touch()\n" + HEAD + COLOURS)
    feature("mfcc")
    assert not (tmp_path / "ran").exists()
    feature("mine")
    assert (tmp_path / "ran").exists()


def test_another_process_takes_the_file_on_or_says_that_it_is_another(own, tmp_path):
    path = own(HEAD + COLOURS)
    config = ExtractConfig(features=("mine",), encoders=plugins.files_in_use())
    (tmp_path / "config").write_bytes(pickle.dumps(config))
    code = (
        "import pickle, sys; from avfuse.encoders.plugins import use_files; from avfuse.encoders.table import feature\n"
        "config = pickle.load(open(sys.argv[1], 'rb')); use_files(config.encoders); print(feature('mine').revision)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "config")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "3\n"
    path.write_text(HEAD + COLOURS + "# another\n")
    with pytest.raises(ValueError, match="has changed, or is not the same file"):
        use_files(config.encoders)


def test_the_code_is_part_of_the_identity(own):
    def entry():
        return entries_for(("mine",), asdict(ExtractConfig(features=("mine",))), {})["mine"]

    own(HEAD + COLOURS)
    one, again = entry(), entry()
    own(HEAD + COLOURS + "# another\n")
    other = entry()
    assert one == again
    assert one["fingerprint"] != other["fingerprint"]


# --- what a module says


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"KIND": "video"}, 'KIND must be "face" or "audio" or "words"; it is \'video\''),
        ({"REVISION": "1"}, "REVISION must be a whole number; it is '1'"),
        ({"LICENCE": " "}, "LICENCE must be a text"),
        ({"NEEDS": "numpy"}, "NEEDS must be a tuple"),
        ({"load": None}, "load must be a function"),
    ],
)
def test_a_module_says_what_it_must(change, said):
    module = {"KIND": "face", "REVISION": 1, "LICENCE": "MIT", "NEEDS": ("numpy",), "load": print}
    assert about(SimpleNamespace(**module), "x.py").needs == ("numpy",)
    with pytest.raises(ValueError, match=f"^x.py: {said}".replace("(", r"\(")):
        about(SimpleNamespace(**{**module, **change}), "x.py")


@pytest.mark.parametrize("text", ["1/0", "raise SystemExit(3)", "import not_there", "x ="])
def test_a_file_that_cannot_be_loaded_is_named(own, text):
    path = own(text)
    with pytest.raises(ValueError, match=f"^{path}: (?:\\w+Error|SystemExit): ") as caught:
        feature("mine")
    assert "\n" not in str(caught.value)


def test_what_is_missing_comes_with_its_command(own):
    own(HEAD.replace("()", "('not-there-at-all', 'numpy')") + COLOURS)
    with pytest.raises(ValueError, match=r"^mine needs not-there-at-all: pip install not-there-at-all$"):
        load("mine")
    assert pip_command(["timm"], "face") == "pip install 'avfuse[vision]'"
    assert pip_command(["transformers", "timm"], "words") == "pip install 'avfuse[text]' 'avfuse[vision]'"
    check_needs("x", about(SimpleNamespace(KIND="face", REVISION=1, LICENCE="x", NEEDS=(), load=print), "x"))


# --- what an encoder gives


def made(**parts):
    return SimpleNamespace(**{"dim": 3, "rows": lambda faces: np.zeros((len(faces), 3), np.float32), **parts})


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (lambda faces: np.zeros((len(faces), 4), np.float32), r"gave float32 \[2, 4\] where float32 \[2, 3\] is due"),
        (lambda faces: np.zeros((1, 3), np.float32), r"gave float32 \[1, 3\] where float32 \[2, 3\] is due"),
        (lambda faces: np.zeros((len(faces), 3)), r"gave float64 \[2, 3\] where float32 \[2, 3\] is due"),
        (lambda faces: torch.zeros(len(faces), 3), r"gave a Tensor, not a NumPy array"),
        (lambda faces: np.full((len(faces), 3), np.nan, np.float32), "gave NaN or infinity"),
        (lambda faces: {"a": 1}["x"], "KeyError: 'x'"),
        (lambda faces: sys.exit("done"), "SystemExit: done"),
    ],
)
def test_a_lie_is_named(rows, said):
    with pytest.raises(EncoderFailed, match=f"^encoder mine: {said}"):
        LoadedEncoder("mine", "face", made(rows=rows)).rows(FACES)


def test_lack_of_memory_is_not_the_encoders_lie():
    def rows(faces):
        raise RuntimeError("CUDA out of memory. Tried to allocate")

    with pytest.raises(RuntimeError, match="out of memory") as caught:
        LoadedEncoder("mine", "face", made(rows=rows)).rows(FACES)
    assert not isinstance(caught.value, EncoderFailed)


@pytest.mark.parametrize(
    "parts", [{"dim": 0}, {"dim": 3.0}, {"dim": True}, {"input_px": -1}, {"rows": None}, {"batch_size": "many"}]
)
def test_an_object_that_is_no_encoder(parts):
    with pytest.raises(EncoderFailed, match=r"^encoder mine: "):
        LoadedEncoder("mine", "face", made(**parts))


def sound(**parts):
    def states(samples):
        return np.zeros((len(samples), samples.shape[1] // 320, 3), np.float32)

    numbers = {"sample_rate": 16000, "window_s": 20.0, "context_s": 5.0, "hop_s": 0.02, "first_s": 0.01}
    return SimpleNamespace(**{"dim": 3, "states": states, **numbers, **parts})


def test_states_lie_within_their_sound():
    samples = np.zeros((2, 16000), np.float32)
    encoder = LoadedEncoder("mine", "audio", sound())
    assert encoder.states(samples).shape == (2, 50, 3)
    assert (encoder.sample_rate, encoder.level) == (16000, False)
    with pytest.raises(EncoderFailed, match=r"50 states of 1\.000 s: the last one would lie at 1\.480 s"):
        LoadedEncoder("mine", "audio", sound(hop_s=0.03)).states(samples)


@pytest.mark.parametrize("parts", [{"hop_s": 0}, {"first_s": -1}, {"context_s": None}, {"sample_rate": 1.5}])
def test_numbers_of_sound_are_asked_for(parts):
    with pytest.raises(EncoderFailed, match=f"{next(iter(parts))} must be "):
        LoadedEncoder("mine", "audio", sound(**parts))


def test_a_batch_is_no_larger_than_the_encoder_takes():
    assert LoadedEncoder("mine", "face", made(batch_size=8), 32).batch_size == 8
    assert LoadedEncoder("mine", "face", made(batch_size=64), 32).batch_size == 32


def test_settings_that_concern_no_plug_in_change_nothing(own):
    own(HEAD + COLOURS)
    config = ExtractConfig(features=("mine",))
    changed = replace(config, layers="last", vggish_output="relu", audio_align="end")
    entries = [entries_for(("mine",), asdict(each), {})["mine"] for each in (config, changed)]
    assert entries[0] == entries[1]


@pytest.mark.parametrize("layers", ["first", "4-2", "", "last5", "-1", "1-"])
def test_layers_that_there_are_not(layers):
    with pytest.raises(ValueError, match="layers are last4"):
        ExtractConfig(layers=layers)
    assert ExtractConfig(layers="6-12").layers == "6-12"
