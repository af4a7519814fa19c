"""What a run can do without: TensorBoard's events, pictures. Tested by tests/faults/test_environment.py."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import click
from tqdm import tqdm

from ...features_store.disk.atomic import check_fence
from ...shell.progress import LINE_EVERY_S, shows_bars
from ..results.tables import number

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

    from ...batch.protocols import JobContext
    from ..training.train import Watcher


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


LOSS_EVERY_S = 0.5
_SCALARS = ("loss", "lr", "P", "ccc_valence", "ccc_arousal")


def make_watcher(
    name: str,
    epochs: int,
    folder: Path,
    tensorboard: bool,
    stream: TextIO | None = None,
    context: JobContext | None = None,
) -> Watchers:
    """Who watches the run `name` of at most `epochs`: the screen (stderr) and, where asked for, TensorBoard.

    `context`: that of the run as a job, which can be stopped; done elsewhere, it has no screen but that.
    """
    watchers: list[Watcher] = [Pulsed(epochs, context)] if context is not None else []
    if context is None or context.host is None:
        stream = stream or sys.stderr
        watchers.append(Bar(name, epochs, stream) if shows_bars(stream) else Lines(name, epochs, stream))
    return Watchers([*watchers, *([TensorBoard(folder / "tensorboard")] if tensorboard else [])])


class Watchers:
    """Several watchers as one."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self._watchers = watchers

    def step(self, epoch: int, step: int, steps: int, loss: Callable[[], float]) -> None:
        """Tell each of a step."""
        for watcher in self._watchers:
            watcher.step(epoch, step, steps, loss)

    def epoch(self, row: Mapping[str, Any], best: Mapping[str, Any]) -> None:
        """Tell each of an epoch."""
        for watcher in self._watchers:
            watcher.epoch(row, best)

    def close(self) -> None:
        """End the bar and flush the files."""
        for watcher in self._watchers:
            watcher.close()


class Bar:
    """A bar over the epoch's batches, with the loss and the best P so far."""

    def __init__(self, name: str, epochs: int, stream: TextIO) -> None:
        self._name, self._epochs = name, epochs
        shape: dict[str, Any] = {"unit": "batch", "dynamic_ncols": True, "leave": False, "smoothing": 0}
        self._bar: tqdm[NoReturn] = tqdm(desc=f"{name}: starting", bar_format="{desc}", file=stream, **shape)
        self._told = ""
        self._loss_s = 0.0

    def step(self, epoch: int, step: int, steps: int, loss: Callable[[], float]) -> None:
        """Move the bar; the loss is asked for twice a second, since that waits for the device."""
        if step == 0:
            self._bar.bar_format = None
            self._bar.reset(total=steps)
            # The clock starts here, at the end of the first batch, which therefore does not count for the rate.
            self._bar.initial = self._bar.n = 1
            self._bar.set_description(f"{self._name} epoch {epoch}/{self._epochs}")
        else:
            self._bar.update()
        if time.monotonic() - self._loss_s > LOSS_EVERY_S:
            self._loss_s = time.monotonic()
            self._bar.set_postfix_str(f"loss {loss():.3f}{self._told}")

    def epoch(self, row: Mapping[str, Any], best: Mapping[str, Any]) -> None:
        """Show what the epoch came to."""
        self._told = f", P {row['P']:.3f}, best {best['P']:.3f} (epoch {best['epoch']})"
        self._bar.set_postfix_str(f"loss {row['loss']:.3f}{self._told}")

    def close(self) -> None:
        """Close the bar."""
        self._bar.close()


class Lines:
    """A plain line after an epoch, but not more often than every 30 s."""

    def __init__(self, name: str, epochs: int, stream: TextIO) -> None:
        self._name, self._epochs, self._stream = name, epochs, stream
        self._told_s = time.monotonic()

    def step(self, epoch: int, step: int, steps: int, loss: Callable[[], float]) -> None:
        """Tell where a long epoch is."""
        if time.monotonic() - self._told_s >= LINE_EVERY_S:
            self._tell(f"{self._name} epoch {epoch}/{self._epochs}: batch {step + 1}/{steps}, loss {loss():.3f}")

    def epoch(self, row: Mapping[str, Any], best: Mapping[str, Any]) -> None:
        """Tell what the epoch came to."""
        if time.monotonic() - self._told_s >= LINE_EVERY_S:
            self._tell(
                f"{self._name} epoch {row['epoch']}/{self._epochs}: loss {row['loss']:.3f}, P {row['P']:.3f} "
                f"(V {number(row['ccc_valence'])}, A {number(row['ccc_arousal'])}), "
                f"best {best['P']:.3f} (epoch {best['epoch']})"
            )

    def close(self) -> None:
        """Nothing is open."""

    def _tell(self, line: str) -> None:
        self._told_s = time.monotonic()
        print(line, file=self._stream, flush=True)


class Pulsed:
    """Stops the run between two batches when that is asked for, and tells who waits for it how far it is."""

    def __init__(self, epochs: int, context: JobContext) -> None:
        self._epochs, self._context = epochs, context

    def step(self, epoch: int, step: int, steps: int, loss: Callable[[], float]) -> None:
        """Raises batch.work.Cancelled."""
        self._context.check()

    def epoch(self, row: Mapping[str, Any], best: Mapping[str, Any]) -> None:
        """Tell the epoch and the best P so far. Raises batch.work.Cancelled."""
        self._context.check()
        if self._context.host is not None:
            self._context.tell(row["epoch"], self._epochs, best["P"], best["epoch"])

    def close(self) -> None:
        """Nothing is open."""


class TensorBoard:
    """Events below the run's folder."""

    def __init__(self, folder: Path) -> None:
        check_fence()
        self._writer = open_writer(folder)

    def step(self, epoch: int, step: int, steps: int, loss: Callable[[], float]) -> None:
        """Nothing is written between epochs."""

    def epoch(self, row: Mapping[str, Any], best: Mapping[str, Any]) -> None:
        """Write the epoch's numbers."""
        check_fence()
        for name in _SCALARS:
            if row[name] is not None:
                self._writer.add_scalar(name, row[name], row["epoch"])
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


def wants_tensorboard(told: bool | None) -> bool:
    """Whether to write events: as told, else where tensorboard works. Raises ValueError where it was asked for."""
    if told is not False and importlib.util.find_spec("tensorboard") is None:
        if told:
            raise ValueError("TensorBoard is missing: pip install 'avfuse[tensorboard]', or --no-tensorboard")
        return False
    return usable("torch.utils.tensorboard.writer", "TensorBoard's events", told)


def open_writer(folder: Path) -> SummaryWriter:
    """A writer of TensorBoard events."""
    from torch.utils.tensorboard.writer import SummaryWriter  # noqa: PLC0415 - an extra, and slow to load

    return SummaryWriter(str(folder))
