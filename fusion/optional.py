"""What a run can do without: TensorBoard's events, pictures. Tested by tests/faults/test_environment.py."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial

import click

_say = partial(click.echo, err=True)


def usable(module: str, what: str, asked: bool | None = None, tell: Callable[[str], None] = _say) -> bool:
    """Whether `what` is to be written: where it was asked for or, by default (None), where its module can be loaded.

    One that cannot is a note then. Raises ValueError where somebody has asked for it.
    """
    if asked is False:
        return False
    try:
        importlib.import_module(module)
    except Exception as error:  # a broken installation may raise anything
        why = " ".join(f"{type(error).__name__}: {error}".split())
        if asked:
            raise ValueError(f"{what} cannot be written: {why}") from error
        tell(f"note: the run is without {what}, which cannot be written here ({why})")
        return False
    return True
