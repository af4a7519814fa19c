"""The pictures of a run: learning curves, each validation trial over time, all frames at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...features_store.store import FeatureStore
from ..config import COLUMNS
from ..data.matching import TrialSource, frame_times
from .plots import learning_curves, overview, prediction_plot
from .prediction_files import trial_path
from .report import Report

_DRAWN = ("epoch", "loss", "P", "ccc_valence", "ccc_arousal", "lr")


def draw_history(folder: Path, history: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> None:
    """plots/learning_curves.png of a run; `about`: how it was made, for the picture's metadata."""
    columns = {name: [row[name] for row in history] for name in _DRAWN if history[-1][name] is not None}
    learning_curves(columns, folder / "plots" / "learning_curves.png", about)


def draw_predictions(
    folder: Path,
    store: FeatureStore,
    sources: Sequence[TrialSource],
    predictions: Mapping[str, NDArray[np.float32]],
    outputs: Sequence[str],
    scored: Report,
    about: Mapping[str, Any],
) -> None:
    """predictions/<trial>.png over time, and all_frames.png, below `folder`."""
    columns = [COLUMNS.index(name) for name in outputs]
    scores = {trial.trial: trial for trial in scored.trials}
    for source in sources:
        prediction_plot(
            trial_path(folder / "predictions", source.name, ".png"),
            source.name,
            outputs,
            frame_times(store, source),
            predictions[source.name],
            source.labels[:, columns],
            source.labelled,
            {name: getattr(scores[source.name], name) for name in outputs},
            about,
        )
    valid = np.concatenate([source.labelled for source in sources])
    truth = np.concatenate([source.labels[:, columns] for source in sources])
    told = np.concatenate([predictions[source.name] for source in sources])
    whole = {name: getattr(scored, name) for name in outputs}
    overview(folder / "all_frames.png", outputs, truth[valid], told[valid], whole, about)
