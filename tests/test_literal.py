"""`avfuse extract --videos dir --annotations labels && avfuse train --fold 2` as people type it, on every layout."""

import os
import shlex
import subprocess
import sys

import numpy as np
import pytest
import torch

from avfuse.encoders.networks import layouts
from avfuse.features_store.store import FeatureStore

FRAMES, EXTRA = 12, 2
CLIPS = ("batch1/a.mp4", "batch1/pair.mp4", "batch2/b.mp4", "batch2/c.mp4")
TRIALS = ("a", "b", "c", "pair_left", "pair_right")
LAYOUTS = {  # names of a trial's label file; whether its rows have times
    "official": ("6th ABAW/VA_Estimation_Challenge/{set}/{trial}.txt", False),
    "official, timed": ("VA_Estimation_Challenge/{set}/{trial}.csv", True),
    "the two sets alone": ("{set}/{trial}.txt", False),
    "one file per trial": ("{trial}.csv", False),
    "one file per trial, timed": ("{trial}.txt", True),
    "in folders": ("{batch}/{trial}.TXT", False),
    "in folders, timed": ("{batch}/{trial}.csv", True),
}


@pytest.fixture(scope="module")
def clips(make_clip, tmp_path_factory):
    """Four short clips in two folders, of 10 frames/s and with sound."""
    folder = tmp_path_factory.mktemp("clips") / "dir"
    rng = np.random.default_rng(0)
    for name in CLIPS:
        frames, samples = np.full((FRAMES, 32, 32, 3), 90, np.uint8), rng.uniform(-0.5, 0.5, 16_000 * FRAMES // 10)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        make_clip("clip.mp4", frames, rate="10", samples=samples, rate_hz=16_000).rename(folder / name)
    return folder


QUICK = ("official", "in folders, timed")


@pytest.mark.parametrize(
    "layout", [pytest.param(each, marks=() if each in QUICK else pytest.mark.slow) for each in LAYOUTS]
)
def test_extract_takes_the_labels_that_train_takes(clips, layout, avfuse, tmp_path, monkeypatch):
    """Their names, sides and lengths; a file of labels at a rate of its own leaves the length to the video."""
    monkeypatch.chdir(tmp_path)
    os.symlink(clips, "dir")
    name, timed = LAYOUTS[layout]
    rows = FRAMES + EXTRA
    for trial in TRIALS:
        part = "Validation_Set" if trial == "b" else "Train_Set"
        batch = "batch2" if trial in "bc" else "batch1"
        path = tmp_path / "labels" / name.format(set=part, batch=batch, trial=trial)
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.sin(np.arange(rows) + ord(trial[0]))
        lines = [f"{value:.6f},{-value:.6f}" for value in values]
        lines = [f"{at / 7:.6f},{line}" for at, line in enumerate(lines)] if timed else lines
        path.write_text("\n".join(["time,valence,arousal" if timed else "valence,arousal", *lines]))

    result = avfuse("extract", "--videos", "dir", "--annotations", "labels", "--features", "mfcc", "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    assert "annotat" not in result.stderr
    store = FeatureStore("features.zarr")
    assert {trial.rpartition("/")[2] for trial in store} == set(TRIALS)
    assert {trial.rows for trial in store.values()} == {FRAMES if timed else rows}
    origin = "video" if timed else "annotations"
    assert {trial.attributes["trial_length_from"] for trial in store.values()} == {origin}

    words = ["--modalities", "mfcc", "--preset", "concat", "--epochs", 1, "--no-plots", "--no-tensorboard"]
    words += ["--set", "window_frames=8", "--set", "hop_frames=8", "--device", "cpu"]
    result = avfuse("train", "--fold", 0, *([] if "{set}" in name else ["--folds", 2]), *words)
    assert result.exit_code == 0, result.stderr
    assert "left out, since" not in result.stderr
    assert f"5 trials, {5 * (FRAMES if timed else rows)} rows of mfcc 39" in result.stderr
    assert result.stdout.splitlines()[-1].split()[0] == "0"


@pytest.mark.parametrize(
    ("features", "modalities"),
    [("--features mfcc,fake_sound", "--modalities mfcc,fake_sound"), pytest.param("", "", marks=pytest.mark.slow)],
    ids=["of sound, one by one", "as they are"],
)
def test_the_two_commands_as_they_are_typed(avfuse, tmp_path, monkeypatch, features, modalities):
    """In a folder with the videos of a planted corpus and its labels, and with weights where they are looked for.

    One epoch in place of a hundred; what comes after them has its defaults too. Quicker with features of sound alone,
    and without a shell.
    """
    (tmp_path / "weights").mkdir()
    networks = () if features else (("iresnet50", layouts.SUZHANG), ("vggish", layouts.VGGISH))
    for name, layout in networks:  # the quick network of faces
        module = layouts.empty(layout)
        layouts.fill_untrained(module, 0, name)
        torch.save(module.state_dict(), tmp_path / "weights" / f"{name}.pth")
    assert avfuse("synth", tmp_path / "planted", "--trials", 8, "--seconds", 1).exit_code == 0
    working = tmp_path / "here"
    working.mkdir()
    (tmp_path / "planted/videos").rename(working / "dir")
    (tmp_path / "planted/annotations").rename(working / "labels")

    monkeypatch.chdir(working)
    monkeypatch.setenv("AVFUSE_WEIGHTS", str(tmp_path / "weights"))
    typed = f"avfuse extract --videos dir --annotations labels {features} && avfuse train --fold 2 {modalities}"
    typed = f"{typed} --epochs 1 --no-plots"
    if features:
        results = [avfuse(*command.split()[1:]) for command in typed.split(" && ")]
        assert [result.exit_code for result in results] == [0, 0], results[-1].stderr
        stdout, stderr = (
            "".join(words) for words in zip(*((each.stdout, each.stderr) for each in results), strict=True)
        )
    else:
        shell = f'avfuse() {{ {shlex.quote(sys.executable)} -m avfuse "$@"; }}; {typed}'
        done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        stdout, stderr = done.stdout, done.stderr
    assert stdout.splitlines()[1].split() == ["fold", "Valence", "Arousal", "Mean"]
    assert stdout.splitlines()[2].split()[0] == "2"
    notes = [line for line in stderr.splitlines() if line.startswith("note: --")]
    labels = shlex.quote(str(working / "labels"))
    assert notes == [
        "note: --store features.zarr",
        f"note: --annotations {labels} (remembered by features.zarr)",
        "note: --out runs/crossattn",
    ]
    assert {path.name for path in working.iterdir()} == {"dir", "labels", "features.zarr", "runs"}

    for words in (["status"], ["verify"], ["folds"], ["evaluate"], ["predict", "--out", "predictions"]):
        result = avfuse(*words)
        assert result.exit_code == 0, result.stderr
        assert "note: --" in result.stderr
    assert len(list((working / "predictions").rglob("*.txt"))) == 8
