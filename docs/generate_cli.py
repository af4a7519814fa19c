"""Write docs/cli.md: what every command answers to `--help`. Run it after an option has changed.

python docs/generate_cli.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from avfuse.cli import main

PAGE = Path(__file__).with_name("cli.md")
_WIDTH = 100
_HEAD = """# Commands

What `avfuse COMMAND --help` prints. This page is generated: `python docs/generate_cli.py`.
"""


def page() -> str:
    """The text of docs/cli.md."""
    sections = (f"\n## `{name}`\n\n```text\n{text}\n```\n" for name, text in helps(main, "avfuse", None))
    return _HEAD + "".join(sections)


def helps(command: click.Command, name: str, parent: click.Context | None) -> Iterator[tuple[str, str]]:
    """Full name and help of a command, then of those below it."""
    context = click.Context(command, parent, name, terminal_width=_WIDTH, max_content_width=_WIDTH, color=False)
    context.help_option_names = ["-h", "--help"]
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            assert found is not None
            yield from helps(found, below, context)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
