"""What results name beside the numbers: the runs, store, labels and smoothing they are of, and who made them.

Tested by tests/fusion/test_provenance.py.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from .. import __version__


def command_line() -> str:
    """The command line of this process, as it could be typed again."""
    context = click.get_current_context(silent=True)
    return shlex.join(["avfuse", *(context.meta.get("avfuse.words", ()) if context is not None else ())])


def made(untrained: Sequence[str], **of: Any) -> Mapping[str, Any]:
    """Who made a result and what it is of (`runs`, `store`, `annotations` …), for `made` in its JSON.

    `untrained`: features that come from random networks, for tests and demos only.
    """
    return {
        "avfuse": __version__,
        "command": command_line(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "UNTRAINED": list(untrained),
        **of,
    }
