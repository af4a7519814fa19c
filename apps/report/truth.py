"""Labels of a store's trials, one trial at a time.

Tested by tests/apps/report/test_systems.py.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...features_store.clock import fit_time
from ...features_store.labels.corpus import Corpus, label_name, labels_of, open_any_corpus
from ...features_store.labels.timed import is_timed
from ...features_store.schema import TIME, plain_name
from ...features_store.store import FeatureStore
from ...features_store.trial import Trial


@dataclass(frozen=True)
class TruthOf:
    """Labels [N, L] of one trial, which rows are `labelled` bool [N], and the times of the rows, s [N]."""

    labels: NDArray[np.float32]
    labelled: NDArray[np.bool_]
    time_s: NDArray[np.float64]


class Truth:
    """The labels of a corpus for the trials of a store; a label file that several trials could mean is nobody's."""

    def __init__(self, corpus: Corpus, store: FeatureStore) -> None:
        self.corpus = corpus
        self._uses = Counter(label_name(corpus, name) for name in store.trials())

    def of(self, trial: Trial) -> TruthOf | None:
        """The labels of a trial; None without. Raises ValueError on bad ones."""
        name = label_name(self.corpus, trial.name)
        if name is None or TIME not in trial or not trial.rows:
            return None
        if self._uses[name] > 1 and plain_name(trial.name) != name:
            return None
        time_s = trial.time_s
        timed = is_timed(self.corpus.files[name], self.corpus.kind)
        ends_early = bool(trial.attributes.get("truncated"))
        track = labels_of(self.corpus, name, time_s if timed else None, ends_early=ends_early)
        return TruthOf(track.values, track.valid, fit_time(time_s, len(track.valid)))


def open_truth(annotations: Path | None, remembered: str | None, store: FeatureStore) -> Truth | None:
    """The labels below a folder, else below the one that the store remembers, while it is there; None without.

    Raises ValueError and OSError where the folder that is given does not hold labels.
    """
    if annotations is not None:
        return Truth(open_any_corpus(annotations), store)
    if remembered is None or not Path(remembered).is_dir():
        return None
    return Truth(open_any_corpus(Path(remembered)), store)
