"""What is shown of a run: a bar or lines, and two things it can do without, TensorBoard's events and pictures.

Tested by tests/fusion/runs/test_loggers.py and tests/faults/test_environment.py.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from tqdm import tqdm

from ...features_store.disk.atomic import check_fence
from ...shell.progress import LineClock, say, shows_bars
from ..results.tables import number
from ..tasks.table import TASKS
from ..tasks.task import Task
from ..training.learner import Watcher

if TYPE_CHECKING:
    from ...batch.protocols import JobContext

LOSS_EVERY_S = 0.5


def usable(module: str, what: str, asked: bool | None = None, tell: Callable[[str], None] = say) -> bool:
    """Whether `what` is to be written: if it was asked for or, by default (None), if its module can be loaded.

    If it cannot, a note says so. Raises ValueError if it was asked for.
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


def wants_tensorboard(asked: bool | None) -> bool:
    """Whether to write events: as asked, else if tensorboard works. Raises ValueError if it was asked for in vain."""
    if asked is not False and importlib.util.find_spec("tensorboard") is None:
        if asked:
            raise ValueError("TensorBoard is missing: pip install 'avfuse[tensorboard]', or --no-tensorboard")
        return False
    return usable("torch.utils.tensorboard.writer", "TensorBoard's events", asked)


def make_watchers(
    name: str,
    epochs: int,
    folder: Path,
    tensorboard: bool,
    stream: TextIO | None = None,
    context: JobContext | None = None,
    task: Task = TASKS["va"],
) -> list[Watcher]:
    """What watches the run `name` of at most `epochs`: the screen (stderr) and, if asked for, TensorBoard.

    `context`: that of the run as a job, which can be stopped; on another host it replaces the screen.
    """
    watchers: list[Watcher] = [Reports(epochs, context)] if context is not None else []
    if context is None or context.host is None:
        stream = stream or sys.stderr
        watchers.append(Bar(name, epochs, stream) if shows_bars(stream) else Lines(name, epochs, stream, task))
    return [*watchers, *([TensorBoard(folder / "tensorboard", task)] if tensorboard else [])]


class Bar(Watcher):
    """A bar over the epoch's batches, with the loss and the best P so far."""

    def __init__(self, name: str, epochs: int, stream: TextIO) -> None:
        self._name, self._epochs = name, epochs
        shape: dict[str, Any] = {"unit": "batch", "dynamic_ncols": True, "leave": False, "smoothing": 0}
        self._bar: tqdm[NoReturn] = tqdm(desc=f"{name}: starting", bar_format="{desc}", file=stream, **shape)
        self._scores = ""
        self._loss_s = 0.0

    def step(self, epoch: int, step: int, steps: int, loss: Callable[[], float]) -> None:
        """Move the bar; the loss is asked for twice a second, since that waits for the device."""
        if step == 0:
            self._bar.bar_format = None
            self._bar.reset(total=steps)
            # The clock starts now, at the end of the first batch, which therefore does not count for the rate.
            self._bar.initial = self._bar.n = 1
            self._bar.set_description(f"{self._name} epoch {epoch}/{self._epochs}")
        else:
            self._bar.update()
        if time.monotonic() - self._loss_s > LOSS_EVERY_S:
            self._loss_s = time.monotonic()
            self._bar.set_postfix_str(f"loss {loss():.3f}{self._scores}")

    def epoch(self, row: Mapping[str, Any], best: Mapping[str, Any]) -> None:
        """Show the epoch's scores."""
        self._scores = f", P {row['P']:.3f}, best {best['P']:.3f} (epoch {best['epoch']})"
        self._bar.set_postfix_str(f"loss {row['loss']:.3f}{self._scores}")

    def close(self) -> None:
        """Close the bar."""
        self._bar.close()


@dataclass
class Lines(Watcher):
    """A plain line after an epoch, or within a long one, but not more often than every 30 s."""

    name: str
    epochs: int
    stream: TextIO
    task: Task = TASKS["va"]
    clock: LineClock = field(default_factory=LineClock)

    def step(self, epoch: int, step: int, steps: int, loss: Callable[[], float]) -> None:
        """Say which batch a long epoch has reached."""
        if self.clock.is_due():
            self._say(f"epoch {epoch}/{self.epochs}: batch {step + 1}/{steps}, loss {loss():.3f}")

    def epoch(self, row: Mapping[str, Any], best: Mapping[str, Any]) -> None:
        """Say the epoch's scores."""
        if self.clock.is_due():
            scores = ", ".join(f"{each.short.split()[-1]} {number(row[each.key])}" for each in self.task.tabled)
            self._say(
                f"epoch {row['epoch']}/{self.epochs}: loss {row['loss']:.3f}, P {row['P']:.3f} ({scores}), "
                f"best {best['P']:.3f} (epoch {best['epoch']})"
            )

    def _say(self, line: str) -> None:
        print(f"{self.name} {line}", file=self.stream, flush=True)


@dataclass(frozen=True)
class Reports(Watcher):
    """Stops the run between two batches if that is asked for, and reports its epochs to the host that waits for it."""

    epochs: int
    context: JobContext

    def step(self, epoch: int, step: int, steps: int, loss: Callable[[], float]) -> None:
        """Raises Cancelled."""
        self.context.check()

    def epoch(self, row: Mapping[str, Any], best: Mapping[str, Any]) -> None:
        """Report the epoch and the best P so far. Raises Cancelled."""
        self.context.check()
        if self.context.host is not None:
            self.context.tell(row["epoch"], self.epochs, best["P"], best["epoch"])


class TensorBoard(Watcher):
    """Events below the run's folder."""

    def __init__(self, folder: Path, task: Task = TASKS["va"]) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter  # noqa: PLC0415 - an extra, and slow to load

        check_fence()
        self._writer = SummaryWriter(str(folder))
        self._scalars = ("loss", "lr", "P", *(score.key for score in task.scores))

    def epoch(self, row: Mapping[str, Any], best: Mapping[str, Any]) -> None:
        """Write the epoch's numbers."""
        check_fence()
        for name in self._scalars:
            if row[name] is not None:
                self._writer.add_scalar(name, row[name], row["epoch"])
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()
