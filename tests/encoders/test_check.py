"""`avfuse encoder`: what it lists, and that each lie of an encoder fails the check that is for it."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from avfuse.encoders.check import check_encoder
from avfuse.encoders.loading import LoadedEncoder

FACE = """
import numpy as np
KIND, REVISION, LICENCE, NEEDS = "face", 1, "MIT", {needs}
class Colours:
    dim = 3
    def rows(self, faces):
        return faces.mean(axis=(1, 2), dtype=np.float64).astype(np.float32)
def load(weights, device, precision, options):
    return Colours()
"""


def means(faces):
    return faces.mean(axis=(1, 2), dtype=np.float64).astype(np.float32)


def failed(make):
    """{what: word} of all that is not ok, from an object that is made anew each time it is loaded."""

    def load():
        made = make()
        return LoadedEncoder("mine", getattr(made, "kind", "face"), made)

    return {each.what: each.word for each in check_encoder(load) if each.word != "ok"}


def test_half_floats_that_lose_much_are_noted():
    def load(shift):
        return lambda: LoadedEncoder("mine", "face", a_face(rows=lambda faces: means(faces) * np.float32(shift)))

    (near,) = [each for each in check_encoder(load(1.001), load(1)) if "fp32" in each.what]
    (far,) = [each for each in check_encoder(load(1.2), load(1)) if "fp32" in each.what]
    assert (near.word, near.found) == ("ok", "off by 0.10% on average")
    assert far.word == "note"
    assert far.found.startswith("off by 20.00% on average; ")
    assert not [each for each in check_encoder(load(1)) if "fp32" in each.what]


def a_face(**parts):
    return SimpleNamespace(**{"dim": 3, "rows": means, **parts})


def test_an_encoder_that_keeps_its_word():
    assert failed(a_face) == {}


def test_one_that_answers_otherwise_the_second_time():
    rng = np.random.default_rng(0)
    found = failed(lambda: a_face(rows=lambda faces: means(faces) + rng.random(3, np.float32)))
    assert found["the same twice"] == "FAILED"


def test_one_whose_rows_depend_on_the_batch():
    found = failed(lambda: a_face(rows=lambda faces: means(faces) - means(faces).mean(axis=0)))
    assert found == {"a batch as one by one": "FAILED"}


def test_one_that_sees_nothing():
    found = failed(lambda: a_face(rows=lambda faces: np.ones((len(faces), 3), np.float32)))
    assert found == {"tells faces apart": "FAILED"}


def test_one_that_writes_into_its_input():
    def rows(faces):
        faces[0, 0, 0] += 1
        return means(faces)

    assert failed(lambda: a_face(rows=rows)) == {"answers": "FAILED"}


def test_one_that_is_another_each_time_it_is_loaded():
    seeds = iter(range(9))

    def make():
        shift = np.float32(next(seeds))
        return a_face(rows=lambda faces: means(faces) + shift)

    assert failed(make) == {"the same when loaded anew": "FAILED"}


def test_one_whose_width_changes():
    found = failed(lambda: a_face(rows=lambda faces: means(faces)[:, : 3 if len(faces) > 1 else 2]))
    assert found == {"answers": "FAILED"}


def test_one_of_words():
    def rows(words):
        return np.array([[len(word), ord(word[0])] for word in words], np.float32)

    assert failed(lambda: SimpleNamespace(kind="words", dim=2, rows=rows)) == {}


def a_sound(hop=320, said_hop=320, late=0, ramp=0.0):
    """Loudness in parts of `hop` samples, heard `late` samples late; a place in the window shows by `ramp`."""

    def states(samples):
        heard = np.roll(samples, late, axis=1)
        count = samples.shape[1] // hop
        parts = heard[:, : count * hop].reshape(len(samples), count, hop)
        found = np.square(parts, dtype=np.float64).mean(axis=2) + ramp * np.arange(count)
        return found[:, :, None].astype(np.float32)

    times = {"sample_rate": 16_000, "window_s": 2.0, "context_s": 0.5}
    return SimpleNamespace(
        **times, kind="audio", dim=1, hop_s=said_hop / 16_000, first_s=said_hop / 32_000, states=states
    )


CLICK, DRIFT, MORE = "a click is seen where its state lies", "no drift over an hour", "a state more a hop"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, {}),
        ({"late": 2000}, {CLICK: "FAILED"}),
        ({"hop": 325}, {CLICK: "FAILED", DRIFT: "FAILED"}),
        ({"hop": 640}, {CLICK: "FAILED", DRIFT: "FAILED", MORE: "FAILED"}),
        ({"ramp": 0.1}, {"one moment in two windows": "note"}),
    ],
    ids=["right", "late", "drifts", "half as many", "knows its place"],
)
def test_times_of_sound_are_measured(wrong, said):
    found = failed(lambda: a_sound(**wrong))
    assert said.items() <= found.items()
    assert bool(found) == bool(said)


# --- the commands


def test_check_ends_with_what_it_found(avfuse, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FACE.format(needs=()))
    words = ("encoder", "check", "mine", "--encoder", f"mine={path}", "--device", "cpu")
    right = avfuse(*words)
    assert right.exit_code == 0
    assert "the same twice" in right.stdout
    path.write_text(FACE.format(needs=()).replace("astype(np.float32)", "astype(np.float64)"))
    wrong = avfuse(*words, "--json")
    assert wrong.exit_code == 1
    assert json.loads(wrong.stdout)[-1] == {
        "what": "answers",
        "word": "FAILED",
        "found": "encoder mine: gave float64 [5, 3] where float32 [5, 3] is due",
    }
    taken = avfuse("encoder", "check", "egemaps", "--weights", path)
    assert taken.exit_code == 1
    assert "no weights are used for 'egemaps'" in taken.stderr
    unknown = avfuse("encoder", "check", "vggish")
    assert unknown.exit_code == 1
    assert "avfuse encoder list" in unknown.stderr


def test_to_list_encoders_loads_no_library_of_theirs():
    code = (
        "import sys; from click.testing import CliRunner; from avfuse.cli import main\n"
        "result = CliRunner().invoke(main, ['encoder', 'list', '--json'], catch_exceptions=False)\n"
        "libraries = {'timm', 'transformers', 'opensmile', 'silero_vad', 'faster_whisper', 'ctranslate2'}\n"
        "print(result.exit_code, sorted(libraries & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "0 []"


def test_list_says_what_is_missing(avfuse, tmp_path):
    (tmp_path / "mine.py").write_text(FACE.format(needs=("not-there-at-all",)))
    (tmp_path / "broken.py").write_text("KIND = 'face'\n1/0\n")
    given = [word for name in ("mine", "broken") for word in ("--encoder", f"{name}={tmp_path / name}.py")]
    found = {each["name"]: each for each in json.loads(avfuse("encoder", "list", "--json", *given).stdout)}
    assert found["mine"]["install"] == "pip install not-there-at-all"
    assert (found["mine"]["licence"], found["mine"]["stream"]) == ("MIT", "visual")
    assert found["broken"]["error"].startswith(f"{tmp_path / 'broken.py'}: ZeroDivisionError")
    assert found["iresnet50"]["dim"] == [512]
    assert {"hear:MODULE", "timm:NAME"} <= set(found)
    text = avfuse("encoder", "list", *given)
    assert text.exit_code == 0
    assert "pip install not-there-at-all" in text.stdout
