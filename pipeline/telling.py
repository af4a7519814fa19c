"""How a run's videos are told of: a line for an end, how far one in hand is."""

from __future__ import annotations

from dataclasses import dataclass

from ..features_store.errors import flat
from ..features_store.text import counted
from .jobs import Failure, Job, Receipt, Stage


def result_line(result: Receipt | Failure) -> str:
    """One line for one video's end."""
    if isinstance(result, Failure):
        return flat(f"failed: {result.video}: {result.reason}")
    rate = result.frames / max(result.seconds, 1e-9)
    return f"done: {flat(result.trial)}: {counted(result.rows, 'row')} in {result.seconds:.1f} s ({rate:.1f} frames/s)"


def worth_telling(result: Receipt | Failure | None, verbose: bool) -> list[str]:
    """Failures and warnings always, a plain success only when asked for."""
    if result is None:
        return []
    lines = [result_line(result)] if verbose or isinstance(result, Failure) else []
    if isinstance(result, Receipt):
        lines += [flat(f"warning: {result.trial}: {warning}") for warning in result.warnings]
    return lines


def again_line(job: Job, reason: str) -> str:
    """One line for a video that will be tried again."""
    return flat(f"trying again: {job.name}: {reason}")


@dataclass
class InHand:
    """How far a video is: its frames, the stage and its rows, and the share of the duration."""

    frames: int = 0
    stage: Stage = "picture"
    rows: int = 0
    share: float | None = None

    def move(self, stage: Stage, rows: int, time_s: float, duration_s: float | None) -> None:
        """Rows of a stage so far, the time they have come to and the whole's length, in s."""
        self.stage, self.rows = stage, rows
        self.share = min(time_s / duration_s, 1) if duration_s else None
        if stage == "picture":
            self.frames = rows

    def percent(self, form: str) -> str:
        """The share in a form with one `{}`; nothing where it is not known."""
        return form.format(f"{self.share:.0%}") if self.share is not None else ""
