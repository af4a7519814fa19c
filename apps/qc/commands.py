"""`avfuse qc`: the trials of a store against thresholds; exit code 3 where one falls short.

Tested by tests/apps/qc/test_qc.py.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...shell.errors import clean_errors
from ...shell.options import FOLDER, Number, config_option, store_option, store_or_default, trial_options, with_options
from ...shell.progress import say
from ...shell.text import check_known, counted, escaped, flat, one_line, preview, text_table

if TYPE_CHECKING:
    from ...features_store.store import FeatureStore
    from .measures import Measured


@dataclass(frozen=True)
class Thresholds:
    """What a trial must keep.

    `min_faces`, `max_silence`: shares of its frames in [0, 1]; `max_gap`, `max_offset`: s.
    """

    min_faces: float = 0.5
    max_gap: float = 10.0
    max_silence: float = 0.9
    max_length_difference: int = 5
    max_offset: float = 0.12

    def shortfalls(self, measured: Measured) -> Iterator[str]:
        """In what a trial falls short, in words; what was not measured, or is not sure, is no shortfall."""
        yield from (f"{what} cannot be read" for what in measured.unreadable)
        if not measured.frames:
            yield "no frames"
        if measured.faces is not None and measured.faces < self.min_faces:
            yield f"faces {measured.faces:.1%} < {self.min_faces:.1%}"
        if measured.gap_s is not None and measured.gap_s > self.max_gap:
            yield f"gap {measured.gap_s:.1f} s > {self.max_gap:g} s"
        if measured.silence is not None and measured.silence > self.max_silence:
            yield f"silence {measured.silence:.1%} > {self.max_silence:.1%}"
        if measured.length_difference is not None and abs(measured.length_difference) > self.max_length_difference:
            yield f"length {measured.length_difference:+d} rows, more than {self.max_length_difference}"
        late_s = None if measured.sync is None else measured.sync.late_s
        if late_s is not None and abs(late_s) > self.max_offset:
            yield f"sound {abs(late_s):.2f} s {'late' if late_s > 0 else 'early'}"


_DEFAULTS = Thresholds()
_SHARE = Number(min=0, max=1)
_OPTIONS = (
    store_option,
    click.option(
        "--videos",
        type=FOLDER,
        help="Folder of the videos, for what the store does not hold: sound without `logmel`, mouths without `crop48` "
        "or `crop112`. [default: only the store]",
    ),
    *trial_options("check"),
    click.option(
        "--min-faces",
        type=_SHARE,
        metavar="X",
        default=_DEFAULTS.min_faces,
        show_default=True,
        help="Least share of the frames with a face.",
    ),
    click.option(
        "--max-gap",
        type=Number(min=0),
        metavar="S",
        default=_DEFAULTS.max_gap,
        show_default=True,
        help="Longest time without a face, in s.",
    ),
    click.option(
        "--max-silence",
        type=_SHARE,
        metavar="X",
        default=_DEFAULTS.max_silence,
        show_default=True,
        help="Largest share of the frames with nothing to be heard; 1: trials need no sound.",
    ),
    click.option(
        "--max-length-difference",
        type=click.IntRange(min=0),
        metavar="N",
        default=_DEFAULTS.max_length_difference,
        show_default=True,
        help="Most rows by which labels and frames may differ.",
    ),
    click.option(
        "--max-offset",
        type=Number(min=0),
        metavar="S",
        default=_DEFAULTS.max_offset,
        show_default=True,
        help="Largest offset between sound and picture, in s, where it is sure.",
    ),
    click.option("--sync/--no-sync", default=True, show_default=True, help="Compare mouths and voices."),
    click.option("--json", "as_json", is_flag=True, help="Print the measures as JSON. [default: off]"),
    config_option,
)


@click.command()
@partial(with_options, options=_OPTIONS)
@clean_errors()
def qc(
    store: str | None,
    videos: Path | None,
    trials: str | None,
    trials_from: Path | None,
    sync: bool,
    as_json: bool,
    **limits: Any,
) -> None:
    """Check the trials of a store: faces, gaps, silence, lengths, and whether sound and picture fit each other.

    The offset of the sound is found by how dark the mouth is inside and how loud the voice is; where chance could have
    made it, it is `not sure`. Exit codes: 0 all trials pass; 1 could not start; 2 wrong usage; 3 some fall short.
    """
    from ...features_store.store import FeatureStore
    from ...pipeline.runs.discover import videos_by_name
    from ...shell.options import chosen_trials
    from ...shell.progress import shown

    thresholds = Thresholds(**limits)
    opened = FeatureStore(store_or_default(store))
    names = opened.trials()
    if (chosen := chosen_trials(trials, trials_from)) is not None:
        check_known("trial", chosen, names)
        names = [name for name in names if name in chosen]
    if not names:
        raise ValueError(f"{opened.path} does not hold a trial; `avfuse extract` fills it")
    known = videos_by_name(videos) if videos is not None else None
    measured = [_measured(opened, name, known, sync) for name in shown(names, "checking")]
    short = {each.trial: list(thresholds.shortfalls(each)) for each in measured}
    bad = [name for name, lines in short.items() if lines]
    if as_json:
        each_trial = [{**each.as_json(), "short_of": short[each.trial]} for each in measured]
        # JSON does not have an infinite number: no limit is null.
        limited = {name: limit if math.isfinite(limit) else None for name, limit in asdict(thresholds).items()}
        click.echo(json.dumps({"thresholds": limited, "trials": each_trial, "short": bad}))
    else:
        click.echo("\n".join(table_lines(measured, short)))
    for each in measured:
        for what, why in each.unreadable.items():
            say(flat(f"{each.trial}: its {what} cannot be read: {why}; `avfuse verify` says how to fix it"))
        for note in each.notes:
            say(flat(f"note: {each.trial}: {note}"))
        if each.sync is not None and each.silence != 1 and (why := each.sync.reason):
            say(flat(f"note: {each.trial}: sync not sure: {why}"))
    if thresholds.max_silence < 1 and (unmeasured := [each.trial for each in measured if _misses_sound(each)]):
        which = f"{counted(len(unmeasured), 'trial')} ({preview(unmeasured)})"
        say(escaped(f"note: silence not measured in {which}: it needs logmel in the store, or --videos DIR"))
    if sync and (unchecked := [each.trial for each in measured if each.sync is None and each.silence != 1]):
        needs = "it needs crop48 or crop112, and logmel, in the store, or --videos DIR"
        say(escaped(f"note: sync not checked in {counted(len(unchecked), 'trial')} ({preview(unchecked)}): {needs}"))
    say(f"{counted(len(measured), 'trial')} checked, {len(bad)} short of a threshold")
    sys.exit(3 if bad else 0)


def _misses_sound(measured: Measured) -> bool:
    """Whether nothing says how loud a trial is, although what the store has of it can be read."""
    return measured.silence is None and measured.frames > 0 and not {"times", "sound"} & measured.unreadable.keys()


def _measured(store: FeatureStore, name: str, videos: Mapping[str, Sequence[Path]] | None, sync: bool) -> Measured:
    """A trial's measures; one that is gone, or being made anew, is one that cannot be read."""
    from ...features_store.schema import StoreMismatch
    from .measures import Measured, measure

    try:
        trial = store[name]
        with trial.unchanged():
            return measure(trial, videos, sync)
    except (KeyError, StoreMismatch) as error:
        return Measured(name, 0, unreadable={"rows": one_line(error)})


def table_lines(measured: Sequence[Measured], short: dict[str, list[str]]) -> list[str]:
    """One line per trial; `-` stands for what could not be measured."""
    cells = [
        ["trial", "frames", "seconds", "faces", "gap s", "silence", "rows - frames", "sound late s", "falls short"]
    ]
    for each in measured:
        late: str = "-" if each.sync is None else each.sync.verdict
        if each.sync is not None and each.sync.late_s is not None:
            late = f"{each.sync.late_s:+z.2f}"
        cells.append(
            [
                escaped(each.trial),
                str(each.frames),
                "-" if each.seconds is None else f"{each.seconds:.2f}",
                "-" if each.faces is None else f"{each.faces:.1%}",
                "-" if each.gap_s is None else f"{each.gap_s:.1f}",
                "-" if each.silence is None else f"{each.silence:.1%}",
                "-" if each.length_difference is None else f"{each.length_difference:+d}",
                late,
                "; ".join(short[each.trial]),
            ]
        )
    return text_table(cells)
