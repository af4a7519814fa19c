"""Which trials there are: features in the store, labels in the annotations, and what has only one of both.

Tested by tests/fusion/data/test_matching.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...features_store.clock import are_others, differ_much, fit_time
from ...features_store.labels.corpus import Corpus, labels_of
from ...features_store.labels.text import TIMED_HEADER
from ...features_store.labels.timed import is_timed, read_timed
from ...features_store.schema import TIME, plain_name
from ...features_store.store import FeatureStore
from ...features_store.trial import Trial
from ...shell.text import counted, preview

# Labels of a part of a video are right, and look like times in minutes or of another clock: that is asked.
LEAST_REACH = 0.5
LENGTH_FLAG = "--allow-length-difference"


@dataclass(frozen=True)
class TrialSource:
    """One trial: its name in the labels and in the store, its T rows, labels [T, 2] and which rows have some."""

    name: str
    stored: str
    labels: NDArray[np.float32]
    labelled: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if self.labels.shape != (len(self.labelled), 2):
            raise ValueError(f"{self.name}: labels {self.labels.shape} but {len(self.labelled)} flags")

    @property
    def rows(self) -> int:
        """T: label rows; for a trial without labels the rows of its features."""
        return len(self.labelled)


@dataclass(frozen=True)
class Match:
    """Labelled trials whose features are there, and what is not: `notes` are lines for the user.

    `ambiguous`: labels whose name several trials of the store have, with those trials.
    """

    trials: Mapping[str, TrialSource]
    without_features: tuple[str, ...]
    without_labels: tuple[str, ...]
    notes: tuple[str, ...]
    ambiguous: Mapping[str, tuple[str, ...]]


def match_trials(
    store: FeatureStore,
    corpus: Corpus,
    names: Iterable[str],
    modalities: Sequence[str],
    allow_length_difference: bool = False,
) -> Match:
    """The trials `names` of the corpus with features of every modality.

    Raises ValueError on bad labels, where two label files mean one trial of the store and, unless
    `allow_length_difference`, where label rows and frames differ by more than 5 and more than 1 %.
    """
    everything = store.trials()
    stored, several = _by_name(everything)
    trials: dict[str, TrialSource] = {}
    notes: list[str] = []
    missing: list[str] = []
    ambiguous: dict[str, tuple[str, ...]] = {}
    far: list[str] = []
    short: dict[str, str] = {}
    for name in names:
        if name in several:
            ambiguous[name] = tuple(several[name])
            notes.append(f"{name}: the store has several of this name: {', '.join(several[name])}; it is left out")
            continue
        if name not in stored:
            missing.append(name)
            notes += _look_alike(name, everything)
            continue
        trial = store[stored[name]]
        lacking = sorted({TIME, *modalities} - set(trial)) if trial.rows else ["row"]
        if lacking:
            missing.append(name)
            notes.append(f"{name}: the store has no {', '.join(lacking)}; it is left out")
            continue
        trials[name] = _labelled(corpus, name, trial)
        if not trials[name].labelled.any():
            notes.append(f"{name}: {_why_unlabelled(corpus, name, trial)}")
        elif trials[name].labelled.mean() < LEAST_REACH and (told := _short_reach(corpus, name, trial)):
            short[name] = told
        if told := _length_difference(trials[name], trial):
            far += [told] if are_others(trials[name].rows, _frames(trial)) else []
            notes.append(told)
    if short:
        notes.append(
            f"timed labels of {preview(short)} reach less than half of the frames ({next(iter(short.values()))}): "
            "is `time` in seconds, from the beginning of the video?"
        )
    _check_different(trials)
    if far and not allow_length_difference:
        raise ValueError(
            f"labels must have a row a frame, and {len(far)} of {len(trials)} do not: {preview(far)}; "
            f"labels at a rate of their own need times ({TIMED_HEADER}); {LENGTH_FLAG} cuts features, or repeats the "
            "last row"
        )
    known = {stored[name] for name in corpus.files if name in stored}
    known.update(each for name in corpus.files for each in several.get(name, ()))
    left = sorted(set(everything) - known)
    return Match(trials, tuple(missing), tuple(left), tuple(notes), ambiguous)


def named_by_store(trials: Mapping[str, TrialSource]) -> dict[str, TrialSource]:
    """The same trials by their names in the store: the one naming of all results."""
    return {source.stored: replace(source, name=source.stored) for source in trials.values()}


def frame_times(store: FeatureStore, source: TrialSource) -> NDArray[np.float64]:
    """Times of a trial's T rows, s; those beyond the video go on at its mean step.

    Raises ValueError where the trial, or its times, are not in the store.
    """
    try:
        time_s = store[source.stored].time_s
    except KeyError as error:  # removed since its rows were read, or without times
        raise ValueError(error.args[0]) from error
    return fit_time(time_s, source.rows)


def unlabelled(store: FeatureStore, modalities: Sequence[str]) -> tuple[dict[str, TrialSource], list[str]]:
    """Every trial of the store with these modalities, without labels; and the names of the others."""
    trials, others = {}, []
    for name, trial in store.items():
        if {TIME, *modalities} <= set(trial):
            rows = trial.rows
            trials[name] = TrialSource(name, name, np.zeros((rows, 2), np.float32), np.zeros(rows, np.bool_))
        else:
            others.append(name)
    return trials, others


def _labelled(corpus: Corpus, name: str, trial: Trial) -> TrialSource:
    times = trial.time_s if is_timed(corpus.files[name]) else None
    track = labels_of(corpus, name, times, ends_early=bool(trial.attributes.get("truncated")))
    return TrialSource(name, trial.name, track.values, track.valid)


def _frames(trial: Trial) -> int:
    """Decoded frames of a trial: its rows are as many as the labels it was extracted with."""
    frames = trial.attributes.get("frames_decoded")
    return frames if isinstance(frames, int) and not isinstance(frames, bool) else trial.rows


def _length_difference(source: TrialSource, trial: Trial) -> str:
    """What to say of label rows that are not the trial's frames; empty where they are, or nearly."""
    frames = _frames(trial)
    if differ_much(source.rows, frames):
        early = ", where decoding ended early" if trial.attributes.get("truncated") else ""
        what = "frames" if "frames_decoded" in trial.attributes else "rows of features"
        return f"{source.name}: {counted(source.rows, 'label row')} but {frames} {what}{early}"
    if differ_much(source.rows, trial.rows):
        return f"{source.name}: {counted(source.rows, 'label row')} but {counted(trial.rows, 'row')} of features"
    return ""


def _why_unlabelled(corpus: Corpus, name: str, trial: Trial) -> str:
    path = corpus.files[name]
    if not is_timed(path):
        return "no frame has a label: every row is masked (-5)"
    return f"its labels touch no frame ({_both_spans(read_timed(path).time_s, trial.time_s)})"


def _short_reach(corpus: Corpus, name: str, trial: Trial) -> str:
    """Where the labels and the frames lie if most of the frames lie before or after all labels, else nothing."""
    if not is_timed(corpus.files[name]):
        return ""
    labels_s, frames_s = read_timed(corpus.files[name]).time_s, trial.time_s
    reached = np.mean((frames_s >= labels_s[0]) & (frames_s <= labels_s[-1]))
    return _both_spans(labels_s, frames_s) if reached < LEAST_REACH else ""


def _both_spans(labels_s: NDArray[np.float64], frames_s: NDArray[np.float64]) -> str:
    labels, frames = (f"from {time_s[0]:.6g} to {time_s[-1]:.6g} s" for time_s in (labels_s, frames_s))
    return f"labels {labels}, frames {frames}"


def _look_alike(name: str, stored: Iterable[str]) -> list[str]:
    """A note where the store has the name in other upper and lower case."""
    wanted = name.casefold()
    alike = [each for each in stored if wanted in (plain_name(each).casefold(), _last(plain_name(each)).casefold())]
    return [f"{name}: the store has {preview(alike)}, other upper and lower case; rename one of them"] if alike else []


def _check_different(trials: Mapping[str, TrialSource]) -> None:
    """Raise ValueError where two label files mean one trial: it could stand on both sides of a fold."""
    first: dict[str, str] = {}
    for name, source in trials.items():
        if first.setdefault(source.stored, name) != name:
            told = (
                f"the label files {first[source.stored]!r} and {name!r} both mean trial {source.stored!r} of the store"
            )
            raise ValueError(f"{told}; remove one")


def _by_name(names: Sequence[str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """{name a label file may have: name in the store}: whole, and the last part where only one has it.

    Names are compared as `plain_name` has them; one that is the same to the letter goes first. Also {name: the
    names of the store that share it}.
    """
    whole: dict[str, list[str]] = defaultdict(list)
    short: dict[str, list[str]] = defaultdict(list)
    for name in names:
        plain = plain_name(name)
        whole[plain].append(name)
        short[_last(plain)].append(name)
    found = {plain: [plain] if plain in each else each for plain, each in {**short, **whole}.items()}
    return (
        {plain: each[0] for plain, each in found.items() if len(each) == 1},
        {plain: each for plain, each in found.items() if len(each) > 1},
    )


def _last(name: str) -> str:
    return name.rpartition("/")[2]
