"""The table of commands, each loaded when it is called, so that `avfuse --help` answers at once."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from avfuse import __version__
from avfuse.shell.errors import secure_streams
from avfuse.shell.text import TYPED, did_you_mean, escaped

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
        "Features made elsewhere, one file per trial, into a store.",
    ),
    "import-abaw3": (
        "features_store.commands",
        "import_abaw3",
        "A folder of ABAW3's preprocessing into a store; what is shifted in it.",
    ),
    "remove": ("features_store.commands", "remove", "Take a feature out of a store."),
    "weights": ("encoders.weights.commands", "weights", "Pretrained weights: list, fetch, verify, path."),
    "encoder": ("encoders.commands", "encoder", "Encoders: which there are, and whether one does what it declares."),
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
    "demo": (
        "pipeline.diagnose.commands",
        "demo",
        "Real clips and planted ones through everything there is, in minutes.",
    ),
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
            words.setdefault("terminal_width", _help_width_columns())
        return super().main(args, *rest, **words)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Remember the words as they were typed: results name the command line they are of."""
        TYPED.set(tuple(args))
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command; None where there is none of this name."""
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
        """As click's, with a suggestion for a mistyped command. Raises click.UsageError for one that there is not."""
        if args[0] not in COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise click.UsageError(f"There is no command {args[0]!r}{did_you_mean(args[0], COMMANDS)}.", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_line) for name, (_, _, help_line) in COMMANDS.items()])


def _help_width_columns() -> int:
    """As wide as click makes help, which loads `shutil` and its decompressors to find out."""
    try:
        columns = int(os.environ.get("COLUMNS", "0")) or os.get_terminal_size(1).columns or 80
    except (OSError, ValueError):  # no terminal
        columns = 80
    return max(min(columns, 80) - 2, 50)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="avfuse")
def main() -> None:
    """Valence and arousal from video: frame-synchronised features, and a fusion head that learns from them."""
