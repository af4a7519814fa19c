"""A run's folder: what lies in it, that others can read it, and what is said of broken files."""

import json
import os
import shutil
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from avfuse.encoders.table import entries_for
from avfuse.fusion.artifacts.folder import features_from, is_empty, read_description
from avfuse.fusion.artifacts.state import (
    State,
    is_finished,
    load_state,
    read_metrics,
    read_weights,
    save_network,
    save_state,
    write_results,
)
from avfuse.fusion.models.table import build
from avfuse.fusion.settings import preset, with_settings
from avfuse.pipeline.config import ExtractConfig

EPOCHS = 3


class RunsCode:
    """A pickle of this leaves a folder behind where loading runs code."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the trained run, to be changed."""
    return shutil.copytree(trained, tmp_path / "run")


def test_what_lies_in_a_run_s_folder(trained):
    assert {path.relative_to(trained).as_posix() for path in trained.rglob("*") if path.is_file()} == {
        "config.json",
        "fold.json",
        "features.json",
        "statistics.json",
        "environment.json",
        "training.pt",
        "model.safetensors",
        "history.csv",
        "metrics.json",
        "finished.json",
        "predictions/clip3.txt",
        "predictions/clip7.txt",
        "plots/learning_curves.png",
        "plots/all_frames.png",
        "plots/predictions/clip3.png",
        "plots/predictions/clip7.png",
        *(path.relative_to(trained).as_posix() for path in (trained / "tensorboard").glob("events.out.tfevents.*")),
    }
    assert len(list((trained / "tensorboard").iterdir())) == 1


def test_settings_fold_and_features(trained, small):
    found = read_description(trained)
    changes = {"lead_channels": "8,8", "other_channels": "8,8", "attention_width": "8", "heads": "2", "hidden": "8"}
    changes |= {"window_frames": "60", "hop_frames": "40", "lr": "0.003", "warmup_epochs": "1"}
    changes |= {"modalities": "face,voice", "max_epochs": "3"}
    assert found.config == with_settings(preset("crossattn"), changes)
    assert json.loads((trained / "config.json").read_text())["model"]["lead_channels"] == [8, 8]
    assert found.fold.number == 0
    assert set(found.fold.train) == {"clip0", "clip1", "clip2", "clip4", "clip5", "clip6"}
    assert set(found.fold.validation) == {"clip3", "clip7"}
    assert found.features.fingerprints == {"face": {"planted": 8}, "voice": {"planted": 8}}
    assert list(found.features.shapes.items()) == [("face", (6,)), ("voice", (4,))]
    assert json.loads((trained / "features.json").read_text())["widths"] == {"face": 6, "voice": 4}
    assert found.features.store == str(small.store)
    assert found.annotations == str(small.annotations)
    environment = json.loads((trained / "environment.json").read_text())
    assert environment["versions"]["torch"] == version("torch")
    assert environment["device"] == "cpu"


def test_a_run_of_before_knows_its_features_one_by_one():
    """Runs over stores of format 1 had one fingerprint for all modalities of a trial, and what it was the hash of."""
    settings = {"features": ["iresnet50", "vggish"], "audio_align": "end", "precision": "bf16"}
    weights: Any = {name: {"sha256": "ab"} for name in ("iresnet50", "vggish")}
    found = features_from(
        {
            "store": "s.zarr",
            "fingerprints": {"f": 8},
            "untrained": [],
            "widths": {"iresnet50": 512, "vggish": 128},
            "trials": {"clip0": {"fingerprint": "f", "sha256": "cd"}},
            "made": {"f": {"settings": settings, "weights": weights, "algorithm": 3}},
        }
    )
    config = ExtractConfig(features=("iresnet50", "vggish"), audio_align="end", precision="bf16")
    wanted = entries_for(config.features, asdict(config), weights)
    both = {name: str(wanted[name]["fingerprint"]) for name in ("iresnet50", "vggish")}
    assert found.fingerprints == {name: {fingerprint: 8} for name, fingerprint in both.items()}
    assert found.trials == {"clip0": {"fingerprints": both, "sha256": "cd"}}
    assert found.made[both["vggish"]]["audio_align"] == "end"
    assert "audio_align" not in found.made[both["iresnet50"]]


def test_statistics_are_those_of_the_training_trials(trained, small):
    found = read_description(trained)
    for name in ("face", "voice"):
        rows = np.concatenate([small.rows(trial)[name] for trial in found.fold.train]).astype(float)
        assert found.statistics[name].mean == pytest.approx(np.full(rows.shape[1], rows.mean()), abs=1e-6)
        assert found.statistics[name].std == pytest.approx(np.full(rows.shape[1], rows.std()), rel=1e-6)


def test_the_network_s_tensors_are_read_without_avfuse(trained):
    tensors = load_file(trained / "model.safetensors")
    network = build(read_description(trained).config, [(6,), (4,)])
    network.load_state_dict(tensors)
    state = torch.load(trained / "training.pt", weights_only=True)
    assert set(state) == {"history", "model", "best", "optimizer", "plateau", "scaler"}
    assert [row["epoch"] for row in state["history"]] == [1, 2, 3]
    assert all(torch.equal(state["best"][name], value) for name, value in tensors.items())


def test_metrics_history_and_the_end(trained):
    metrics = read_metrics(trained)
    assert {"P", "ccc_valence", "ccc_arousal", "epoch"} <= set(metrics)
    assert metrics["P"] == (metrics["ccc_valence"] + metrics["ccc_arousal"]) / 2
    lines = (trained / "history.csv").read_text().splitlines()
    assert lines[0] == "epoch,lr,loss,P,ccc_valence,ccc_arousal,seconds"
    assert len(lines) == 1 + EPOCHS
    assert is_finished(trained)
    assert json.loads((trained / "finished.json").read_text()) == {
        "reason": "all 3 epochs done",
        "epochs": 3,
        "parameters": 8578,
    }


def test_pictures_open(trained):
    for path in (trained / "plots").rglob("*.png"):
        with Image.open(path) as picture:
            picture.load()
            assert picture.format == "PNG"
            assert min(picture.size) > 100
            assert len(set(picture.convert("L").resize((64, 64)).tobytes())) > 8


def test_tensorboard_s_numbers_are_the_history_s(trained):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="an extra")
    events = reader.EventAccumulator(str(trained / "tensorboard")).Reload()
    history = torch.load(trained / "training.pt", weights_only=True)["history"]
    for name in ("P", "loss", "lr", "ccc_valence", "ccc_arousal"):
        scalars = events.Scalars(name)
        assert [scalar.step for scalar in scalars] == [1, 2, 3]
        assert [scalar.value for scalar in scalars] == pytest.approx([row[name] for row in history], rel=1e-6)


def make_state(value=0.0):
    tensors = {"layer.weight": torch.full((2, 3), value)}
    return State([{"epoch": 1, "P": value}], tensors, tensors, {"state": {}}, {"best": value}, {})


class TestState:
    def test_what_is_saved_comes_back(self, tmp_path):
        save_state(tmp_path, make_state(0.1))
        save_state(tmp_path, make_state(0.5))
        found = load_state(tmp_path)
        assert found is not None
        assert found.history == [{"epoch": 1, "P": 0.5}]
        assert torch.equal(found.best["layer.weight"], torch.full((2, 3), 0.5))
        assert os.listdir(tmp_path) == ["training.pt"]

    def test_none_was_saved(self, tmp_path):
        assert load_state(tmp_path) is None

    @pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.99])
    def test_a_part_of_a_file(self, tmp_path, kept):
        save_state(tmp_path, make_state())
        whole = (tmp_path / "training.pt").read_bytes()
        (tmp_path / "training.pt").write_bytes(whole[: int(kept * len(whole))])
        with pytest.raises(ValueError, match=r"training\.pt is broken .*train again"):
            load_state(tmp_path)

    @pytest.mark.parametrize("content", [b"<html>404</html>", b"\x80\x04.", b"PK\x03\x04"])
    def test_another_file(self, tmp_path, content):
        (tmp_path / "training.pt").write_bytes(content)
        with pytest.raises(ValueError, match=r"training\.pt is broken"):
            load_state(tmp_path)

    def test_a_wrong_bit_anywhere(self, tmp_path):
        """What is read is what was saved, or it is refused."""
        save_state(tmp_path, make_state(0.25))
        whole = (tmp_path / "training.pt").read_bytes()
        refused = 0
        for at in range(0, len(whole), 31):
            (tmp_path / "training.pt").write_bytes(whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1 :])
            try:
                found = load_state(tmp_path)
            except ValueError:
                refused += 1
            else:
                assert found is not None
                assert found.history == make_state(0.25).history
                assert torch.equal(found.best["layer.weight"], make_state(0.25).best["layer.weight"])
        assert refused > 10

    @pytest.mark.parametrize("content", [{"epoch": 3}, [1, 2], torch.zeros(3), None])
    def test_another_content(self, tmp_path, content):
        torch.save(content, tmp_path / "training.pt")
        with pytest.raises(ValueError, match=r"training\.pt is broken"):
            load_state(tmp_path)

    def test_nothing_that_it_holds_is_run(self, tmp_path):
        torch.save({"history": RunsCode(tmp_path / "ran")}, tmp_path / "training.pt")
        with pytest.raises(ValueError, match=r"training\.pt is broken"):
            load_state(tmp_path)
        assert not (tmp_path / "ran").exists()


class TestResults:
    """model.safetensors and metrics.json change with the best epoch only; history.csv with each."""

    HISTORY = ({"epoch": 1, "P": 0.2, "loss": 1.0}, {"epoch": 2, "P": 0.1, "loss": 0.9})

    def test_another_epoch_that_is_not_better(self, tmp_path):
        best = {"w": torch.ones(2)}
        write_results(tmp_path, self.HISTORY[:1], self.HISTORY[0], partial(save_network, tmp_path, best))
        before = (tmp_path / "model.safetensors").stat().st_ino
        write_results(tmp_path, self.HISTORY, self.HISTORY[0], partial(save_network, tmp_path, best))
        assert (tmp_path / "model.safetensors").stat().st_ino == before
        assert len((tmp_path / "history.csv").read_text().splitlines()) == 3
        assert read_metrics_of(tmp_path) == {"epoch": 1, "P": 0.2}

    def test_a_better_epoch(self, tmp_path):
        write_results(
            tmp_path, self.HISTORY[:1], self.HISTORY[0], partial(save_network, tmp_path, {"w": torch.ones(2)})
        )
        write_results(tmp_path, self.HISTORY, self.HISTORY[1], partial(save_network, tmp_path, {"w": torch.zeros(2)}))
        assert torch.equal(read_weights(tmp_path)["w"], torch.zeros(2))
        assert read_metrics_of(tmp_path) == {"epoch": 2, "P": 0.1}


def read_metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


class TestEmpty:
    """Where a run may begin."""

    def test_nothing_there(self, tmp_path):
        assert is_empty(tmp_path)
        assert is_empty(tmp_path / "nowhere")

    def test_what_a_run_leaves_that_was_killed_at_once(self, tmp_path):
        (tmp_path / "tensorboard").mkdir()
        (tmp_path / "fold.json").write_text("{}")
        (tmp_path / ".123.0123456789ab").write_text("{")
        assert is_empty(tmp_path)

    @pytest.mark.parametrize("name", ["config.json", "thesis.tex", "model.safetensors", "fold0", ".git"])
    def test_other_files(self, tmp_path, name):
        (tmp_path / "fold.json").write_text("{}")
        (tmp_path / name).write_text("mine")
        assert not is_empty(tmp_path)


class TestBroken:
    """What is said of a folder that does not hold a run, or a broken one."""

    @pytest.mark.parametrize("name", ["config.json", "fold.json", "features.json", "statistics.json"])
    def test_a_file_is_missing(self, run, name):
        (run / name).unlink()
        with pytest.raises(ValueError, match=rf"there is no {name}"):
            read_description(run)

    @pytest.mark.parametrize("name", ["config.json", "fold.json", "features.json", "statistics.json"])
    @pytest.mark.parametrize("content", [b"", b'{"a":', b"\xff\xfe", b"[]", b"null"])
    def test_a_file_is_no_json_object(self, run, name, content):
        (run / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}.* not (?:a )?JSON"):
            read_description(run)

    @pytest.mark.parametrize(
        ("name", "changed"),
        [
            ("config.json", {"preset": "transformer"}),
            ("config.json", {"model": 3}),
            ("config.json", {"model": {}, "heads": 2}),
            ("config.json", {"lr": "fast"}),
            ("config.json", {"batch_size": None}),
            ("config.json", {"hop_frames": 1000}),
            ("config.json", {"new_setting": 1}),
            ("fold.json", {"train": ["clip3"]}),
            ("fold.json", {"train": 5}),
            ("fold.json", {"validation": []}),
            ("features.json", {"place": "there"}),
            ("features.json", {"untrained": None}),
            ("features.json", {"widths": {"face": 6}}),
            ("statistics.json", {"face": 1}),
            ("statistics.json", {"face": {"mean": "x", "std": 1, "width": 6}}),
            ("statistics.json", {"face": {"mean": [1, 2], "std": 1, "width": 6}}),
        ],
    )
    def test_a_file_says_what_cannot_be(self, run, name, changed):
        content = json.loads((run / name).read_text())
        (run / name).write_text(json.dumps({**content, **changed}))
        with pytest.raises(ValueError, match="does not hold a run that this avfuse can read"):
            read_description(run)

    @pytest.mark.parametrize("found", [None, 2])
    def test_another_format(self, run, found):
        content = json.loads((run / "config.json").read_text())
        (run / "config.json").write_text(json.dumps({**content, "avfuse_run": found}))
        with pytest.raises(ValueError, match=f"format {found}, this avfuse reads 1"):
            read_description(run)

    def test_weights(self, run):
        path = run / "model.safetensors"
        whole = path.read_bytes()
        for content in (b"", whole[:7], whole[: len(whole) // 2], b"\x80\x04." * 9):
            path.write_bytes(content)
            with pytest.raises(ValueError, match=r"model\.safetensors is broken"):
                read_weights(run)
        path.unlink()
        with pytest.raises(ValueError, match="has not finished an epoch"):
            read_weights(run)

    @pytest.mark.parametrize("content", ["{}", '{"P": 1, "epoch": 2}', "3", ""])
    def test_metrics(self, run, content):
        (run / "metrics.json").write_text(content)
        with pytest.raises(ValueError, match=r"metrics\.json"):
            read_metrics(run, ("ccc_valence", "ccc_arousal"))
