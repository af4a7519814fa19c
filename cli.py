"""The table of commands, each loaded when it is called, so that `avfuse --help` answers at once."""

from __future__ import annotations

import importlib

import click

from avfuse import __version__

# name → (module, attribute, one line for the list of commands)
COMMANDS = {
    "extract": (
        "pipeline.commands",
        "extract",
        "Videos below a folder → frame-synchronised features in a store.",
    ),
    "status": ("features_store.commands", "status", "What a store holds: done, incomplete, failed."),
    "verify": (
        "features_store.commands",
        "verify",
        "Read every chunk of a store again and check every checksum.",
    ),
    "export": ("features_store.commands", "export", "A store as HDF5, npy, parquet or csv."),
    "import-h5": (
        "features_store.commands",
        "import_h5",
        "An exported HDF5 file back into a store, bit for bit.",
    ),
    "weights": ("pipeline.weights_commands", "weights", "Pretrained weights: list, fetch, verify, path."),
    "doctor": ("pipeline.commands", "doctor", "What works on this machine, and the mend for what does not."),
    "demo": ("pipeline.commands", "demo", "Real clips through the whole pipeline, in minutes."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported only when they are called."""

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

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_line) for name, (_, _, help_line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="avfuse")
def main() -> None:
    """Valence and arousal from video: frame-synchronised features, and a fusion head that learns from them."""
