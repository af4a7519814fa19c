"""`avfuse synth`: the planted corpus."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ...features_store.disk.unwritable import naming_place
from ...shell.errors import clean_errors
from ...shell.options import FOLDER, Number
from ...shell.streams import shows_bars
from ...shell.text import counted, text_table
from ..media.types import MediaError


@click.command()
@click.argument("out", type=FOLDER)
@click.option(
    "--trials",
    metavar="N",
    default=12,
    show_default=True,
    help="How many trials, 6 or more; each special kind is there.",
)
@click.option(
    "--seconds",
    type=Number(min=1, max=600),
    metavar="S",
    default=8.0,
    show_default=True,
    help="Length of every clip, in s.",
)
@click.option(
    "--seed", metavar="N", default=0, show_default=True, help="The same seed makes the same labels and frames."
)
@click.option(
    "--lag",
    "lag_s",
    type=Number(min=0, max=2),
    metavar="S",
    default=0.3,
    show_default=True,
    help="How far the voice leads the face, in s.",
)
@click.option("--overwrite", is_flag=True, help="Replace an earlier planted corpus in OUT. [default: off]")
@click.option("--json", "as_json", is_flag=True, help="What was planted as JSON on stdout. [default: off]")
@clean_errors(MediaError)
def synth(out: Path, trials: int, seconds: float, seed: int, lag_s: float, overwrite: bool, as_json: bool) -> None:
    """A corpus with planted valence and arousal in OUT, in the Aff-Wild2 layout.

    The mouth shows a part of valence, the voice's effort a part of arousal; a part of both can only be had from
    face and voice together. Two thirds of the trials are for training. A face picture comes with scikit-image:
    pip install 'avfuse[demo]'.
    """
    from .corpus import make_corpus
    from .planning import SynthConfig

    config = SynthConfig(trials, seconds, seed, lag_s)
    with naming_place(out), _bar(out) as tell:
        planted = make_corpus(out, config, overwrite=overwrite, on_clip=tell)
    click.echo(json.dumps(planted) if as_json else _table(planted["planted"]))
    click.echo(f"videos, annotations, cropped_aligned, truth and planted.json are in {out}", err=True)


@contextmanager
def _bar(out: Path) -> Iterator[Callable[[str], None]]:
    from tqdm import tqdm

    # On a pipe or in a log a redrawn bar is noise.
    with tqdm(desc=str(out), unit="clip", disable=not shows_bars(sys.stderr)) as bar:

        def tell(_: str) -> None:
            bar.update()

        yield tell


def _table(planted: dict[str, dict[str, Any]]) -> str:
    heads = ("trial", "set", "subject", "frames", "fps", "VFR", "audio", "no face", "-5")
    rows = [heads, *(_cells(name, trial) for name, trial in planted.items())]
    total = sum(trial["frames"] for trial in planted.values())
    size = f"{counted(len(planted), 'trial')}, {counted(total, 'frame')}"
    return "\n".join([*text_table(rows, words=len(heads)), size])


def _cells(name: str, trial: dict[str, Any]) -> tuple[str, ...]:
    audio = f"from {trial['audio_start_s']:g} s" if trial["audio"] else "none"
    counts = (str(len(trial["faceless"])), str(len(trial["masked"])))
    fps, vfr = trial["fps"], "yes" if trial["vfr"] else "no"
    return (name, trial["set"], str(trial["subject"]), str(trial["frames"]), fps, vfr, audio, *counts)
