"""Which trials there are: features in the store, labels in the annotations, and what has only one of both.

Tested by tests/fusion/data/test_matching.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...features_store.clock import are_others, differ_much, fit_time
from ...features_store.labels.corpus import Corpus, by_label_name, label_names, labels_of
from ...features_store.labels.timed import is_timed, read_timed
from ...features_store.schema import TIME
from ...features_store.store import FeatureStore
from ...features_store.trial import Trial
from ...shell.text import counted, preview

# Labels of less than this share of the frames may be right, or may have times in minutes or of another clock.
LEAST_REACH = 0.5
LENGTH_FLAG = "--allow-length-difference"


@dataclass(frozen=True)
class TrialSource:
    """One trial: its name in the labels and in the store, its T rows, labels [T, L] and which rows are labelled.

    Raises ValueError where there is not one flag a row of labels.
    """

    name: str
    stored: str
    labels: NDArray[np.float32]
    labelled: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if self.labels.ndim != 2 or len(self.labels) != len(self.labelled):
            raise ValueError(f"{self.name}: labels {self.labels.shape} but {len(self.labelled)} flags")

    @property
    def rows(self) -> int:
        """T: label rows; for a trial without labels the rows of its features."""
        return len(self.labelled)


@dataclass(frozen=True)
class Match:
    """Labelled trials that have features, and what has only one of both: `notes` are lines for the user.

    `ambiguous`: names of labels that several trials of the store have, with those trials.
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

    Raises ValueError on bad labels, if two label files mean one trial of the store and, unless
    `allow_length_difference`, if label rows and frames differ by more than 5 and more than 1 %.
    """
    everything = store.trials()
    stored, several = by_label_name(everything)
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
            alike = [each for each in everything if name.casefold() in (s.casefold() for s in label_names(each))]
            if alike:
                notes.append(f"{name}: the store has {preview(alike)}, which differs in case; rename one of them")
            continue
        trial = store[stored[name]]
        if lacking := sorted({TIME, *modalities} - set(trial)) if trial.rows else ["row"]:
            missing.append(name)
            notes.append(f"{name}: the store has no {', '.join(lacking)}; it is left out")
            continue
        timed = is_timed(corpus.files[name], corpus.kind)
        ends_early = bool(trial.attributes.get("truncated"))
        track = labels_of(corpus, name, trial.time_s if timed else None, ends_early=ends_early)
        source = trials[name] = TrialSource(name, trial.name, track.values, track.valid)
        if not source.labelled.any():
            why = f"no frame has a label: every row is masked ({corpus.kind.masked:g})"
            why = f"its labels touch no frame ({_reach(corpus, name, trial)[1]})" if timed else why
            notes.append(f"{name}: {why}")
        elif timed and source.labelled.mean() < LEAST_REACH:
            reached, both = _reach(corpus, name, trial)
            short |= {name: both} if reached < LEAST_REACH else {}
        difference, is_far = _length_difference(source, trial)
        notes += [difference] if difference else []
        far += [difference] if is_far else []
    if short:
        notes.append(
            f"timed labels of {preview(short)} reach less than half of the frames ({next(iter(short.values()))}): "
            "is `time` in seconds, from the beginning of the video?"
        )
    first: dict[str, str] = {}
    for name, source in trials.items():  # else one trial could stand on both sides of a fold
        if first.setdefault(source.stored, name) != name:
            twins = f"the label files {first[source.stored]!r} and {name!r} both mean trial {source.stored!r}"
            raise ValueError(f"{twins} of the store; remove one")
    if far and not allow_length_difference:
        times = f"labels at a rate of their own need times ({corpus.kind.timed_header}); "
        raise ValueError(
            f"labels must have one row per frame, and {len(far)} of {len(trials)} do not: {preview(far)}; "
            f"{times if corpus.kind.timed_header else ''}{LENGTH_FLAG} cuts features, or repeats the last row"
        )
    known = {stored[name] for name in corpus.files if name in stored}
    known.update(each for name in corpus.files for each in several.get(name, ()))
    unlabelled_names = sorted(set(everything) - known)
    return Match(trials, tuple(missing), tuple(unlabelled_names), tuple(notes), ambiguous)


def named_by_store(trials: Mapping[str, TrialSource]) -> dict[str, TrialSource]:
    """The same trials by their names in the store: the one naming of all results."""
    return {source.stored: replace(source, name=source.stored) for source in trials.values()}


def frame_times(store: FeatureStore, source: TrialSource) -> NDArray[np.float64]:
    """Times [T] of a trial's rows, s; those beyond the video go on at its mean step.

    Raises ValueError if the trial, or its times, are not in the store.
    """
    try:
        time_s = store[source.stored].time_s
    except KeyError as error:  # removed since its rows were read, or without times
        raise ValueError(error.args[0]) from error
    return fit_time(time_s, source.rows)


def unlabelled(
    store: FeatureStore, modalities: Sequence[str], width: int = 2
) -> tuple[dict[str, TrialSource], list[str]]:
    """Every trial of the store with these modalities, with label rows of `width` numbers that are not labels.

    Also the names of the other trials.
    """
    trials, others = {}, []
    for name, trial in store.items():
        if {TIME, *modalities} <= set(trial):
            rows = trial.rows
            trials[name] = TrialSource(name, name, np.zeros((rows, width), np.float32), np.zeros(rows, np.bool_))
        else:
            others.append(name)
    return trials, others


def _length_difference(source: TrialSource, trial: Trial) -> tuple[str, bool]:
    """What to say of label rows that do not match the trial's frames (empty if they do), and whether to refuse them.

    A trial's rows are as many as the labels it was extracted with, so its decoded frames count, if they are recorded.
    """
    frames = trial.attributes.get("frames_decoded")
    if not isinstance(frames, int) or isinstance(frames, bool):
        frames = trial.rows
    rows = f"{source.name}: {counted(source.rows, 'label row')}"
    if differ_much(source.rows, frames):
        early = ", where decoding ended early" if trial.attributes.get("truncated") else ""
        what = "frames" if "frames_decoded" in trial.attributes else "rows of features"
        return f"{rows} but {frames} {what}{early}", are_others(source.rows, frames)
    if differ_much(source.rows, trial.rows):
        return f"{rows} but {counted(trial.rows, 'row')} of features", are_others(source.rows, frames)
    return "", False


def _reach(corpus: Corpus, name: str, trial: Trial) -> tuple[float, str]:
    """The share of the frames between the first and the last timed label, and the times of both as text."""
    labels_s, frames_s = read_timed(corpus.files[name], corpus.kind).time_s, trial.time_s
    reached = np.mean((frames_s >= labels_s[0]) & (frames_s <= labels_s[-1]))
    labels, frames = (f"from {time_s[0]:.6g} to {time_s[-1]:.6g} s" for time_s in (labels_s, frames_s))
    return float(reached), f"labels {labels}, frames {frames}"
