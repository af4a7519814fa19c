"""`avfuse synth`: the planted corpus."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from ...features_store.disk.unwritable import naming_place
from ...shell.errors import clean_errors
from ...shell.options import FOLDER, Number
from ...shell.progress import shows_bars
from ...shell.text import counted, text_table
from ..media.types import MediaError


@click.command()
@click.argument("out", type=FOLDER)
@click.option(
    "--trials",
    metavar="N",
    default=12,
    show_default=True,
    help="Number of trials, at least 6; every special kind is among them.",
)
@click.option(
    "--seconds",
    type=Number(min=1, max=600),
    metavar="S",
    default=8.0,
    show_default=True,
    help="Length of each clip, in s.",
)
@click.option(
    "--seed", metavar="N", default=0, show_default=True, help="The same seed gives the same labels and frames."
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
@click.option("--json", "as_json", is_flag=True, help="Print what was planted as JSON. [default: off]")
@clean_errors(MediaError)
def synth(out: Path, trials: int, seconds: float, seed: int, lag_s: float, overwrite: bool, as_json: bool) -> None:
    """Make a corpus with planted valence and arousal in OUT, in the Aff-Wild2 layout.

    The mouth shows part of valence, the effort of the voice part of arousal; another part of both can only be
    recovered from face and voice together. Two thirds of the trials are for training. The picture of the face comes
    with scikit-image: pip install 'avfuse[demo]'.
    """
    from tqdm import tqdm

    from .corpus import make_corpus
    from .planning import SynthConfig

    config = SynthConfig(trials, seconds, seed, lag_s)
    # In a pipe or a log a bar that redraws itself is noise.
    with naming_place(out), tqdm(desc=str(out), unit="clip", disable=not shows_bars(sys.stderr)) as bar:
        summary = make_corpus(out, config, overwrite=overwrite, on_clip=lambda _: bar.update())
    click.echo(json.dumps(summary) if as_json else _table(summary["planted"]))
    click.echo(f"videos, annotations, cropped_aligned, truth and planted.json are in {out}", err=True)


def _table(planted: dict[str, dict[str, Any]]) -> str:
    rows = [("trial", "set", "subject", "frames", "fps", "VFR", "audio", "no face", "-5")]
    for name, trial in planted.items():
        vfr = "yes" if trial["vfr"] else "no"
        audio = f"from {trial['audio_start_s']:g} s" if trial["audio"] else "none"
        counts = (str(len(trial["faceless"])), str(len(trial["masked"])))
        rows.append(
            (name, trial["set"], str(trial["subject"]), str(trial["frames"]), trial["fps"], vfr, audio, *counts)
        )
    total = sum(trial["frames"] for trial in planted.values())
    size = f"{counted(len(planted), 'trial')}, {counted(total, 'frame')}"
    return "\n".join([*text_table(rows, words=len(rows[0])), size])
