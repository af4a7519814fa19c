"""`extract` before its first video: settings, their file, a dry run, what is missing."""

import json

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from avfuse.cli import main
from avfuse.encoders.weights.tuning import KEY
from avfuse.pipeline.config import ExtractConfig


@pytest.mark.parametrize(
    "change", [{"features": ()}, {"features": ("vggish", "vggish")}, {"features": ("x",)}, {"face": "up"}]
)
def test_settings_are_checked_at_birth(change):
    with pytest.raises(ValueError, match=r"up|features"):
        ExtractConfig(**change)


def test_every_flag_can_stand_in_the_settings_file(tmp_path):
    """Under its own name; flags win; unknown keys and what is not YAML are refused."""
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"x")
    settings = tmp_path / "s.yaml"
    settings.write_text(
        f"videos: {tmp_path / 'videos'}\nfeatures: [mfcc, logmel]\njson: true\ndry-run: true\nmissing_face: zero\n"
        "weights: [vggish=a, iresnet50=b]\nshard: 0/2\nlimit: 3\n"
    )
    result = CliRunner().invoke(main, ["extract", "--config", str(settings)])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"todo": ["a"], "done": []}
    result = CliRunner().invoke(main, ["extract", "--config", str(settings), "--shard", "1/2"])
    assert json.loads(result.stdout) == {"todo": [], "done": []}
    settings.write_text(f"videos: {tmp_path / 'videos'}\nvideoz: 1\nas_json: true\n")
    result = CliRunner().invoke(main, ["extract", "--config", str(settings)])
    assert result.exit_code == 2
    assert "unknown keys: as_json, videoz" in result.stderr
    settings.write_text("a: [")
    assert CliRunner().invoke(main, ["extract", "--config", str(settings)]).exit_code == 2


def test_weights_that_were_tuned_on_what_is_extracted(tmp_path):
    """Said before the run: heads on these features must not be scored there."""
    (tmp_path / "videos").mkdir()
    for name in "abc":
        (tmp_path / "videos" / f"{name}.mp4").write_bytes(b"x")
    weights = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(1)}, weights, {KEY: json.dumps({"trials": ["a", "elsewhere/c", "d"]})})
    words = ["extract", "--videos", str(tmp_path / "videos"), "--dry-run", "--store", str(tmp_path / "s.zarr")]
    words += ["--features", "logmel_vgg", "--weights", f"logmel_vgg={weights}"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines()[0] == (
        "note: the weights of logmel_vgg were tuned on 2 of these trials (a, c): `evaluate` refuses to score heads on "
        "them"
    )


@pytest.mark.parametrize("address", ["new", "file://{}/new", "memory://new/one"])
def test_a_dry_run_over_a_store_that_is_not_there(tmp_path, address):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"x")
    store = str(tmp_path / address) if address == "new" else address.format(tmp_path)
    words = ["extract", "--videos", str(tmp_path / "videos"), "--features", "mfcc", "--dry-run", "--store", store]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert result.stdout == "a\n"
    assert not (tmp_path / "new").exists()


def test_extract_without_ffmpeg_does_not_start(monkeypatch, tmp_path):
    from avfuse.pipeline.media.process import ffmpeg_version

    ffmpeg_version.cache_clear()
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"x")
    monkeypatch.setenv("PATH", "/nowhere")
    words = ["extract", "--videos", str(tmp_path / "videos"), "--features", "mfcc"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1
    assert "ffmpeg is not installed" in result.output
    assert not (tmp_path / "features.zarr" / "failures.jsonl").exists()
