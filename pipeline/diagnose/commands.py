"""`avfuse bench` and `avfuse doctor`: how fast this machine is on a video of yours, and what works on it."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import click

from ...batch.torch_errors import torch_errors
from ...encoders.contract import Precision
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
