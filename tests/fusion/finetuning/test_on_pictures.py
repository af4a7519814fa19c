"""A network learns from pictures, goes on where it was killed, and comes out as a file that says so."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from avfuse.encoders.loading import load_encoder
from avfuse.encoders.networks.ir50 import Unit, row_norm_1
from avfuse.encoders.weights.resolve import resolve
from avfuse.encoders.weights.tuning import read_tuning
from avfuse.fusion.artifacts import state
from avfuse.fusion.config import PictureConfig, RunConfig
from avfuse.fusion.finetuning import on_pictures
from avfuse.fusion.finetuning.backbones import Backbone, Group
from avfuse.fusion.finetuning.on_pictures import PictureLearner, train_on_pictures
from avfuse.fusion.finetuning.pictures import read_table

RUN = RunConfig("cpu", "fp32", False, None)
CPU = torch.device("cpu")
FAST = PictureConfig(lr=0.01, backbone_lr=0.01, batch_size=16, max_epochs=6, warmup_epochs=0, degrees=5)


class SmallFaces(nn.Module):
    """Two units of IR-50's kind, and `logits` of as many classes, as Su Zhang's has them."""

    def __init__(self, classes=8):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, 4, bias=False)
        self.body = nn.Sequential(Unit(8, 16, 2), nn.Flatten(), nn.Linear(16 * 25, 16))
        self.logits = nn.Linear(16, classes)

    def forward(self, x):
        return row_norm_1(self.body(self.stem(x))) * 4


def small(classes=8):
    network = SmallFaces(classes).eval().requires_grad_(requires_grad=False)
    groups = (Group("linear", ("body.2.*",)), Group("unit", ("body.0.*",)))
    return Backbone("iresnet50", "crop48", network, 16, 40, groups, {"name": "small", "licence": "mine"})


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """Pictures whose mouth, a bar below the middle, is as wide as the label says; a third is held out."""
    folder = tmp_path_factory.mktemp("faces")
    rng = np.random.default_rng(0)
    rows = {"classes": ["path,label,split"], "va": ["path,valence,arousal,split"], "soft": ["path,p_0,p_1,split"]}
    for number in range(72):
        pixels = rng.integers(60, 120, (48, 48, 3), np.uint8)
        label, side = number % 2, "val" if number % 3 == 0 else "train"
        pixels[30:38, 24 - 4 - 12 * label : 24 + 4 + 12 * label] = 230
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows["classes"].append(f"{number}.png,{7 * label},{side}")
        rows["va"].append(f"{number}.png,{1.6 * label - 0.8},{0.8 - 1.6 * label},{side}")
        rows["soft"].append(f"{number}.png,{9 - 8 * label},{1 + 8 * label},{side}")
    for name, lines in rows.items():
        (folder / f"{name}.csv").write_text("\n".join(lines))
    return folder


def pictures(faces, kind):
    return read_table(faces, faces / f"{kind}.csv", 0.1, 0)


@pytest.mark.parametrize(("kind", "score"), [("classes", "accuracy"), ("va", "ccc_valence"), ("soft", "f1")])
def test_it_learns(kind, score, faces, tmp_path):
    lines: list[str] = []
    found: dict[str, Any] = train_on_pictures(small(), pictures(faces, kind), FAST, RUN, tmp_path, lines.append)
    assert found[score] > 0.8
    of = {"classes": "8 classes", "soft": "2 classes", "va": "valence and arousal"}[kind]
    assert lines[0] == f"48 pictures to train on, 24 to validate on, of {of}"
    assert lines[-1].startswith("all 6 epochs done: epoch ")
    tuning: Any = read_tuning(tmp_path / "iresnet50.safetensors")
    assert (tuning["trials"], tuning["licence"], tuning["P"], tuning["released"]) == (
        [],
        "mine",
        found["P"],
        ["linear"],
    )
    assert tuning["pictures"]["count"] == 48
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["epoch"] == found["epoch"]
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 7
    assert not (tmp_path / ".pictures").exists()


def test_the_head_of_eight_classes_is_the_networks_own(faces):
    own, other = small(), small(classes=7)
    assert PictureLearner(own, pictures(faces, "classes"), FAST, CPU).head is own.network.logits
    assert PictureLearner(other, pictures(faces, "classes"), FAST, CPU).head is not other.network.logits
    assert PictureLearner(own, pictures(faces, "va"), FAST, CPU).head.out_features == 2


def test_groups_are_released_when_the_rate_has_fallen(faces, tmp_path):
    """Epoch by epoch: what moves is what the schedule says, frozen layers and batch norms not at all."""
    backbone = small()
    before = {name: value.clone() for name, value in backbone.network.state_dict().items()}
    config = replace(FAST, lr=1e-3, plateau_patience=0, min_lr=1e-3, release_epochs=2, max_epochs=12, early_stop=12)
    train_on_pictures(backbone, pictures(faces, "classes"), config, RUN, tmp_path, lambda line: None)
    rows = [line.split(",") for line in (tmp_path / "history.csv").read_text().splitlines()]
    released = [int(row[rows[0].index("released")]) for row in rows[1:]]
    assert released == sorted(released)
    assert set(released) == {1, 2}
    rates = [float(row[rows[0].index("lr")]) for row in rows[1:]]
    assert rates[0] == rates[released.index(2)] == 1e-3  # begun anew
    assert all(rate <= 1e-3 for rate in rates)
    after = backbone.network.state_dict()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    best = json.loads((tmp_path / "metrics.json").read_text())
    unit = {name for name in moved if name.startswith("body.0")}
    assert moved - unit <= {"body.2.weight", "body.2.bias", "logits.weight", "logits.bias"}
    assert bool(unit) == (best["released"] == 2)
    assert not [name for name in moved if "running" in name or "tracked" in name]


def test_without_a_release_the_linear_layer_learns_alone(faces, tmp_path):
    backbone = small(classes=7)
    before = {name: value.clone() for name, value in backbone.network.state_dict().items()}
    config = replace(FAST, releases=0, max_epochs=3)
    found = train_on_pictures(backbone, pictures(faces, "classes"), config, RUN, tmp_path, lambda line: None)
    assert (found["released"], found["backbone_lr"]) == (0, 0.0)
    assert all(torch.equal(value, before[name]) for name, value in backbone.network.state_dict().items())
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 4


def test_killed_and_resumed_it_is_the_same(faces, tmp_path, monkeypatch):
    config = replace(FAST, plateau_patience=0, min_lr=0.005, release_epochs=2)
    train_on_pictures(small(), pictures(faces, "classes"), config, RUN, tmp_path / "whole", lambda line: None)
    saved = state.save_state

    class Killed(BaseException):
        """Nothing catches it."""

    for last in (1, 3):

        def save(folder, reached, last=last):
            saved(folder, reached)
            if len(reached.history) == last:
                raise Killed

        monkeypatch.setattr(on_pictures, "save_state", save)
        with pytest.raises(Killed):
            train_on_pictures(
                small(), pictures(faces, "classes"), config, RUN, tmp_path / "cut", lambda line: None, resume=last > 1
            )
    monkeypatch.setattr(on_pictures, "save_state", saved)
    lines: list[str] = []
    with pytest.raises(ValueError, match="--resume goes on with it"):
        train_on_pictures(small(), pictures(faces, "classes"), config, RUN, tmp_path / "cut", lines.append)
    train_on_pictures(small(), pictures(faces, "classes"), config, RUN, tmp_path / "cut", lines.append, resume=True)
    for name in ("iresnet50.safetensors", "metrics.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    cut, whole = ((tmp_path / run / "history.csv").read_text().splitlines() for run in ("cut", "whole"))
    assert [line.rpartition(",")[0] for line in cut] == [line.rpartition(",")[0] for line in whole]  # seconds aside
    assert len(whole) > 4
    other = replace(config, lr=0.02)
    with pytest.raises(ValueError, match="holds a run of other lr; name another --out"):
        train_on_pictures(small(), pictures(faces, "classes"), other, RUN, tmp_path / "cut", lines.append, resume=True)
    half = replace(RUN, precision="bf16")
    with pytest.raises(ValueError, match="holds a run of other precision; name another --out"):
        train_on_pictures(
            small(), pictures(faces, "classes"), config, half, tmp_path / "cut", lines.append, resume=True
        )


def test_a_run_on_videos_is_left_alone(faces, tmp_path):
    """Both have the same --out unless one is named, and files of the same names."""
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="holds another run, or other files; name another --out"):
        train_on_pictures(small(), pictures(faces, "classes"), FAST, RUN, tmp_path, lambda line: None, resume=True)
    assert [path.name for path in tmp_path.iterdir() if path.suffix] == ["config.json"]


@pytest.mark.parametrize(
    ("setting", "match"),
    [
        ({"lr": 0.0}, "lr must be above 0"),
        ({"batch_size": 1}, "2 or more"),
        ({"validation_share": 1.0}, r"must be in \[0, 1\)"),
    ],
)
def test_settings_that_make_no_sense(setting, match):
    with pytest.raises(ValueError, match=match):
        PictureConfig(**setting)


def test_a_loss_that_is_no_number_ends_the_run(faces, tmp_path):
    config = replace(FAST, lr=1e30, backbone_lr=1e30)
    with pytest.raises(ValueError, match=r"the loss of epoch \d is (nan|inf): try a smaller lr"):
        train_on_pictures(small(), pictures(faces, "va"), replace(config, va_loss="mse"), RUN, tmp_path, print)


class TestCommand:
    def words(self, faces, out, *more):
        table = faces / "classes.csv"
        network = ("--visual", "timm:test_resnet", "--untrained", 0, "--device", "cpu", "--set", "batch_size=24")
        return ("finetune", "--images", faces, "--csv", table, "--out", out, *network, *more)

    def test_a_network_of_timm(self, faces, avfuse, tmp_path):
        """From the command to a folder that `extract` takes."""
        pytest.importorskip("timm")
        result = avfuse(*self.words(faces, tmp_path, "--epochs", 1, "--json"))
        assert result.exit_code == 0, result.stderr
        lines = result.stderr.splitlines()
        assert lines[0] == "UNTRAINED WEIGHTS: timm:test_resnet: for tests and demos only"
        assert lines[1] == "48 pictures to train on, 24 to validate on, of 8 classes"
        assert json.loads(result.stdout)["epoch"] == 1
        folder = tmp_path / "timm" / "test_resnet"
        source = resolve(["timm:test_resnet"], {"timm:test_resnet": folder}, None)["timm:test_resnet"]
        assert source.tuning is not None
        assert source.tuning["classes"] == list("01234567")
        assert (
            load_encoder("timm:test_resnet", {}, source, CPU, "fp32", 2)
            .rows(np.zeros((2, 160, 160, 3), np.uint8))
            .any()
        )
        again = avfuse(*self.words(faces, tmp_path, "--epochs", 2))
        assert again.stderr.splitlines()[-1] == f"Error: {tmp_path} holds this run already: --resume goes on with it"
        assert avfuse(*self.words(faces, tmp_path, "--epochs", 2, "--resume")).exit_code == 0
        assert len((tmp_path / "history.csv").read_text().splitlines()) == 3

    @pytest.mark.parametrize(
        ("more", "match"),
        [
            (("--fold", 0), "--fold does not go with --images"),
            (("--store", "s.zarr"), "--store does not go with --images"),
            (("--audio", "vgg"), "--audio does not go with --images"),
            (("--set", "hop_frames=3"), "there is no setting 'hop_frames'"),
            (("--set", "max_epochs=3", "--epochs", 2), "max_epochs: given twice"),
            (("--visual", "vgg19"), "visual=vgg19: there are suzhang40"),
            (("--precision", "fp16"), "fp32 or bf16"),
            (("--set", "visual_groups=head.*"), "'head.*' matches no parameter of timm:test_resnet"),
            (("--weights", "iresnet50=f.pth"), "--weights iresnet50: only timm:test_resnet can have weights here"),
        ],
    )
    def test_what_does_not_go_with_it(self, more, match, faces, avfuse, tmp_path):
        pytest.importorskip("timm")
        result = avfuse(*self.words(faces, tmp_path / "out", *more))
        assert result.exit_code in (1, 2)
        assert match in result.stderr
        assert not (tmp_path / "out").exists()

    def test_folder_and_table_go_together(self, faces, avfuse):
        assert "--images needs --csv FILE" in avfuse("finetune", "--images", faces).stderr
        alone = avfuse("finetune", "--csv", faces / "va.csv", "--fold", 0).stderr
        assert "--csv is the table of --images DIR" in alone
