"""A run that tunes a network, on videos or pictures, and is killed goes on as if it had not been, bit for bit."""

import json
import signal
import time

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from avfuse.features_store.store import FeatureStore
from avfuse.fusion.artifacts.state import load_state

EPOCHS = 5
NETWORK = "timm:test_resnet"

# What takes long, once for all runs of a test that kills them.
LOADS = """
import timm, torch
import avfuse.fusion.commands, avfuse.fusion.runs.work
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, plant_small):
    """Faces of 112 px beside a feature of the sound; what is bright in a face is its valence."""
    corpus = plant_small(tmp_path_factory.mktemp("corpus"), trials=4)
    rng = np.random.default_rng(0)
    for number in range(4):
        rows = corpus.rows(f"clip{number}")
        count = 30
        faces = rng.integers(0, 256, (count, 112, 112, 3)).astype(np.uint8)
        kept = {name: rows[name][:count] for name in ("time", "voice", "voice_valid")}
        arrays = {**kept, "crop112": faces, "crop112_valid": np.ones(count, bool)}
        FeatureStore(corpus.store, mode="a").write(f"clip{number}", arrays, {"fingerprint": "planted"})
        labels = corpus.labels(f"clip{number}")
        labels.write_text("\n".join(labels.read_text().splitlines()[: count + 1]) + "\n")
    return corpus


@pytest.fixture(scope="module")
def words(corpus, timm_network):
    """`finetune` of that network, whose groups are released one soon after the other."""
    settings: dict[str, float] = {
        "window_frames": 16,
        "hop_frames": 12,
        "batch_size": 3,
        "warmup_epochs": 0,
        "plateau_patience": 0,
    }
    settings |= {"lr": 1e-3, "min_lr": 1e-3, "release_epochs": 1, "backbone_lr": 1e-3}

    def make(out, *more):
        given = ("finetune", "--store", corpus.store, "--annotations", corpus.annotations, "--out", out)
        tuned = (
            "--visual",
            NETWORK,
            "--audio",
            "none",
            "--modalities",
            "voice",
            "--weights",
            f"{NETWORK}={timm_network}",
        )
        pairs = [f"--set={key}={value}" for key, value in settings.items()]
        what = ("--preset", "concat", "--fold", 0, "--epochs", EPOCHS, "--device", "cpu", "--micro-batch", 20)
        return [*map(str, (*given, *tuned, *pairs, *what, "--no-plots", "--no-tensorboard", *more))]

    return make


@pytest.fixture(scope="module")
def whole(words, avfuse, tmp_path_factory):
    """The run that nobody stops."""
    run = tmp_path_factory.mktemp("whole") / "run"
    result = avfuse(*words(run))
    assert result.exit_code == 0, result.stderr
    return run


def tuned_file(run):
    return run / "timm" / "test_resnet" / "model.safetensors"


def same_again(run, whole, same_run):
    same_run(run, whole)
    one, other = (load_file(tuned_file(each)) for each in (run, whole))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    records = []
    for each in (run, whole):
        with safe_open(tuned_file(each), "pt") as opened:
            records.append(opened.metadata())
    assert records[0] == records[1]


def test_all_groups_are_released_in_it(whole):
    """What follows is about a run that goes through its schedule."""
    rows = [line.split(",") for line in (whole / "history.csv").read_text().splitlines()]
    at = rows[0].index("released")
    assert {row[at] for row in rows[1:]} >= {"1", "2"}
    assert json.loads((whole / "finished.json").read_text())["epochs"] <= EPOCHS


@pytest.mark.slow
def test_killed_while_any_file_is_written(dying, words, whole, avfuse, same_run, tmp_path):
    """State, tuned weights, head, scores, history: it goes on from each, and ends in the same weights."""
    with dying(LOADS) as run:

        def end_of(last):
            return run(last, words(tmp_path / str(last)))

        flushes = int(end_of(0))
        chosen = [1, *range(11, flushes, max(1, (flushes - 11) // 7))]
        assert {end_of(last) for last in chosen} == {"killed"}
    saved = set()
    for last in chosen:
        folder = tmp_path / str(last)
        state = load_state(folder)
        saved.add(0 if state is None else len(state.history))
        if tuned_file(folder).exists():
            load_file(tuned_file(folder))  # whole, whichever epoch's it is
        result = avfuse(*words(folder, "--resume"))
        assert result.exit_code == 0, result.stderr
        same_again(folder, whole, same_run)
    assert len(saved) > 3


@pytest.fixture(scope="module")
def on_pictures(tmp_path_factory, timm_network):
    """`finetune --images` of the same network: what is bright in a picture is its class."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    rows = ["path,label,split"]
    for number in range(18):
        pixels = rng.integers(0, 128, (48, 48, 3)) + 127 * (number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
        rows.append(f"{number}.png,{number % 2},{'val' if number % 3 == 0 else 'train'}")
    (folder / "labels.csv").write_text("\n".join(rows))
    settings = {"batch_size": 6, "warmup_epochs": 0, "plateau_patience": 0, "lr": 0.05, "min_lr": 0.05}
    settings |= {"release_epochs": 1, "backbone_lr": 1e-3}

    def make(out, *more):
        given = ("finetune", "--images", folder, "--csv", folder / "labels.csv", "--out", out, "--device", "cpu")
        tuned = ("--visual", NETWORK, "--weights", f"{NETWORK}={timm_network}", "--epochs", EPOCHS)
        return [*map(str, (*given, *tuned)), *(f"--set={key}={value}" for key, value in settings.items()), *more]

    return make


@pytest.mark.slow
def test_killed_while_it_learns_from_pictures(dying, on_pictures, avfuse, tmp_path):
    """At any file that it writes: it goes on, and ends in the same files, with nothing beside them."""
    whole = tmp_path / "whole"
    assert avfuse(*on_pictures(whole)).exit_code == 0
    released = [line.split(",")[3] for line in (whole / "history.csv").read_text().splitlines()]
    assert {*released} == {"released", "1", "2", "3"}  # it goes through its schedule
    with dying(f"{LOADS}import avfuse.fusion.finetuning.on_pictures\n") as run:

        def end_of(last):
            return run(last, on_pictures(tmp_path / str(last)))

        flushes = int(end_of(0))
        chosen = [*range(1, 7), *range(7, flushes, max(1, (flushes - 7) // 7))]
        assert {end_of(last) for last in chosen} == {"killed"}
    saved = set()
    for last in (0, *chosen):
        folder = tmp_path / str(last)
        state = load_state(folder)
        saved.add(0 if state is None else len(state.history))
        result = avfuse(*on_pictures(folder, "--resume"))
        assert result.exit_code == 0, result.stderr
        files, as_whole = ({path.relative_to(each): path for path in each.rglob("*")} for each in (folder, whole))
        assert files.keys() == as_whole.keys()
        for name in ("finetune.json", "metrics.json", "finished.json", "timm/test_resnet/model.safetensors"):
            assert (folder / name).read_bytes() == (whole / name).read_bytes(), (last, name)
        cut, uncut = ((each / "history.csv").read_text().splitlines() for each in (folder, whole))
        assert [line.rpartition(",")[0] for line in cut] == [line.rpartition(",")[0] for line in uncut]  # seconds aside
    assert len(saved) > 3


def test_a_second_call_leaves_it_alone(words, whole, avfuse):
    before = tuned_file(whole).stat().st_mtime_ns
    result = avfuse(*words(whole))
    assert result.exit_code == 0, result.stderr
    assert "0 runs to do, 1 done before" in result.stderr
    assert tuned_file(whole).stat().st_mtime_ns == before


def test_other_weights_are_another_run(words, whole, avfuse, timm_network, tmp_path):
    """Named by their sha256, as another setting would be."""
    other = tmp_path / "test_resnet"
    other.mkdir()
    for file in timm_network.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    state = load_file(other / "model.safetensors")
    save_file(
        {name: value + 0.01 if "conv" in name else value for name, value in state.items()}, other / "model.safetensors"
    )
    result = avfuse(*words(whole, "--weights", f"{NETWORK}={other}"))
    assert result.exit_code == 1
    assert "weights: timm:test_resnet=" in result.stderr
    assert "--replace trains anew" in result.stderr


def test_its_folder_predicts_with_its_own_network(whole, corpus, avfuse, tmp_path):
    """`evaluate` gives the scores of its metrics.json from stored crops; without its network it says so."""
    result = avfuse(
        "evaluate", "--run", whole.parent, "--device", "cpu", "--json"
    )  # its network is not a run of its own
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["P"] == pytest.approx(json.loads((whole / "metrics.json").read_text())["P"], abs=1e-4)
    tuned_file(whole).rename(tmp_path / "kept")
    try:
        result = avfuse("evaluate", "--run", whole, "--device", "cpu")
        assert result.exit_code == 1
        assert "model.safetensors" in result.stderr
    finally:
        (tmp_path / "kept").rename(tuned_file(whole))


def test_a_run_that_goes_on_is_the_uninterrupted_one(words, whole, same_run, avfuse, tmp_path):
    """Two of its epochs, and the others by a second call."""
    run = tmp_path / "run"
    assert avfuse(*words(run), "--epochs", 2).exit_code == 0
    assert avfuse(*words(run, "--resume")).exit_code == 0
    same_again(run, whole, same_run)


@pytest.mark.slow
def test_stopped_by_a_signal(words, whole, cli, same_run, avfuse, tmp_path):
    """One line that says how to go on, exit code 143; and it does."""
    run = tmp_path / "run"
    with cli.start(*words(run)) as process:
        until_s = time.monotonic() + 90
        while not (run / "history.csv").is_file():
            assert process.poll() is None
            assert time.monotonic() < until_s
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert b"run again to go on" in said.splitlines()[-1]
    assert avfuse(*words(run, "--resume")).exit_code == 0
    same_again(run, whole, same_run)
