"""Pictures of a run: its learning curves, each validation trial over time, all frames at once.

    learning curves                 a column of a two-column page wide, 3.5 in
    trials, scatter, comparison     a page wide, 7.16 in; letters of 7 and 8 pt

The suffix of a path is the format: `.png`, `.pdf` with its font embedded, or `.svg` with letters as outlines. What is
drawn twice from the same numbers is the same file. docs/figures.md shows them.
Tested by tests/fusion/results/test_plots.py.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ... import __version__
from ...features_store.disk.atomic import replace_file
from ...shell.text import flat
from ..config import Figures
from ..data.matching import TrialSource, frame_times
from ..tasks.f1 import confusion
from ..tasks.task import Task
from .prediction_files import trial_path
from .report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

    from ...features_store.store import FeatureStore
    from .comparison import CellScores, Difference

DPI = 200  # of png, and of the shades within pdf and svg
COLUMN_IN, PAGE_IN = 3.5, 7.16  # of IEEE's two-column pages
Column = NDArray[np.float64]
_RATE = "learning rate"
# After Tol's high-contrast scheme, with a darker yellow: each is of another lightness (L* 0, 29, 50, 65), so that they
# differ in grey print, to colour-blind readers, and from white. With four dashes that makes twelve kinds of lines.
_COLOURS = ("#004488", "#BB5566", "#C99700")
_DASHES = ("-", "--", "-.", ":")
_TRUTH, _PREDICTED = "#000000", "#BB5566"
_GREY, _LIGHT, _MASKED = "#777777", "#DDDDDD", "#E3E3E3"
_LEAST_SHADE = 0.42  # of matplotlib's Blues, for a single frame: L* 75, which is seen on white
_MOST_POINTS = 4000
_MOST_LETTERS = 80
_NAME_LETTERS = 38  # of a line of a cell's name
_FEW_EPOCHS = 30
# What a format calls who has drawn a picture, what it is of, and the dates that matplotlib would put in.
_METADATA: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "png": ("Software", "Description", ()),
    "pdf": ("Creator", "Subject", ("CreationDate",)),
    "svg": ("Creator", "Description", ("Date",)),
}


@contextmanager
def _own_style() -> Iterator[None]:
    """Our own letters and lines: no LaTeX, no font that may be missing, whatever a user has set for other pictures."""
    import matplotlib  # noqa: PLC0415 - slow to load

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        # TrueType is embedded, which publishers ask for; without a salt each svg would have other names inside.
        own: dict[Any, Any] = {"font.size": 8, "axes.titlesize": 8, "pdf.fonttype": 42, "svg.hashsalt": "avfuse"}
        own |= dict.fromkeys(("legend.fontsize", "xtick.labelsize", "ytick.labelsize"), 7)
        own |= dict.fromkeys(("axes.linewidth", "xtick.major.width", "ytick.major.width"), 0.6)
        matplotlib.rcParams.update(own)
        yield


def draw_history(
    folder: Path,
    history: Sequence[Mapping[str, Any]],
    task: Task,
    about: Mapping[str, Any],
    figures: Figures = "png",
) -> None:
    """plots/learning_curves.png of a run, or `figures`; `about`: how it was made, for the picture's metadata."""
    names = ("epoch", "loss", "P", *(score.key for score in task.tabled), "lr")
    columns = {name: [row[name] for row in history] for name in names if history[-1][name] is not None}
    learning_curves(columns, folder / "plots" / f"learning_curves.{figures}", about, task.measure)


def draw_predictions(
    folder: Path,
    store: FeatureStore,
    sources: Sequence[TrialSource],
    predictions: Mapping[str, NDArray[np.float32]],
    scored: Report,
    about: Mapping[str, Any],
    figures: Figures = "png",
) -> None:
    """predictions/<trial>.png over time, and all_frames.png, below `folder`; or those of `figures`."""
    task = scored.task
    scores = {trial.trial: trial.scores for trial in scored.trials}
    for source in sources:
        path = trial_path(folder / "predictions", source.name, f".{figures}")
        time_s, rows, truth = frame_times(store, source), predictions[source.name], task.targets(source.labels)
        if task.labels.values == "real":
            ccc = task.of_columns(scores[source.name])
            prediction_plot(
                path, source.name, task.columns, time_s, rows, truth, source.labelled, ccc, about, task.limits
            )
        else:
            probability_plot(path, source.name, task.columns, time_s, rows, truth, source.labelled, about)
    valid = np.concatenate([source.labelled for source in sources])
    labels = np.concatenate([source.labels for source in sources])[valid]
    predicted = np.concatenate([predictions[source.name] for source in sources])[valid]
    path, whole = folder / f"all_frames.{figures}", task.of_columns(scored.scores)
    if task.labels.values == "real":
        overview(path, task.columns, task.targets(labels), predicted, whole, about, task.limits)
    else:
        f1_overview(path, task, labels, predicted, whole, about)


@_own_style()
def learning_curves(
    history: Mapping[str, Sequence[float | None]],
    path: Path,
    about: Mapping[str, Any] | None = None,
    measure: str = "CCC",
) -> None:
    """Draw a run's history, one panel each for losses, scores, which are a `measure`, and learning rates (log axis).

    `history` {column: one value per epoch}, None or NaN without one; `epoch` is the axis (else 1, 2 …). The
    epoch of the largest `P` is marked. `about`: how it was made, kept in the picture's metadata. Raises ValueError
    if there is nothing to draw.
    """
    columns = {name: np.array(values, dtype=np.float64) for name, values in history.items()}
    drawable = {name: values for name, values in columns.items() if np.isfinite(values).any()}
    losses = {name: values for name, values in drawable.items() if "loss" in name}
    rates = {name: values for name, values in drawable.items() if name in ("lr", "learning_rate")}
    scores = {name: values for name, values in drawable.items() if name not in {*losses, *rates, "epoch", "seconds"}}
    panels = {name: lines for name, lines in (("loss", losses), (measure, scores), (_RATE, rates)) if lines}
    if not panels:
        raise ValueError(f"{path.name}: the history holds no epoch to draw")
    epochs = columns.get("epoch", np.arange(1.0, 1 + max(map(len, columns.values()))))
    marker = "o" if len(epochs) <= _FEW_EPOCHS else ""
    figure = _figure(COLUMN_IN, 0.4 + 1.4 * len(panels))
    all_axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (panel, lines) in zip(all_axes, panels.items(), strict=True):
        for i, (name, values) in enumerate(lines.items()):
            label = name.replace("_", " ").replace("ccc", "CCC").replace("f1", "F1")
            (line,) = axes.plot(
                epochs[: len(values)], values, marker=marker, markersize=2.5, linewidth=1.1, label=label
            )
            line.set(color=_COLOURS[i % len(_COLOURS)], linestyle=_DASHES[i % len(_DASHES)])
        axes.grid(color=_LIGHT, linewidth=0.6)
        if len(lines) > 1 and axes is all_axes[0]:  # above it stands the best epoch
            axes.legend(loc="best", frameon=False)
        elif len(lines) > 1:
            axes.legend(loc="lower left", bbox_to_anchor=(0.0, 0.98), ncols=3, frameon=False, borderpad=0.1)
        axes.set_ylabel(panel)
        if panel == _RATE and all((values > 0).any() for values in lines.values()):
            axes.set_yscale("log")
    all_axes[-1].set_xlabel("epoch")
    all_axes[-1].locator_params("x", integer=True)
    if "P" in scores:
        best = int(np.nanargmax(scores["P"]))
        for axes in all_axes:
            axes.axvline(epochs[best], color=_GREY, linewidth=1.0, zorder=1)
        all_axes[0].set_title(f"best epoch {epochs[best]:.0f}, P {scores['P'][best]:z.3f}")
    _save(figure, path, about)


@_own_style()
def prediction_plot(
    path: Path,
    trial: str,
    columns: Sequence[str],
    time_s: NDArray[np.float64],
    prediction: NDArray[Any],
    truth: NDArray[Any] | None = None,
    valid: NDArray[np.bool_] | None = None,
    ccc: Mapping[str, float] | None = None,
    about: Mapping[str, Any] | None = None,
    limits: tuple[float, float] = (-1.0, 1.0),
) -> None:
    """Draw one panel a column over time: truth black, prediction in colour, masked rows on grey without truth.

    `columns` are the C columns, all within `limits`; `time_s` [T], s; `prediction` and `truth` [T, C]; `valid` bool [T]
    (all rows if it is not given); `ccc` {column: CCC} stands in the titles. Long trials are drawn by the least and the
    largest row of each stretch. Raises ValueError if a shape differs.
    """
    masked = np.zeros(len(time_s), np.bool_) if valid is None else ~valid
    true = np.full(prediction.shape, np.nan) if truth is None else truth
    if not prediction.shape == true.shape == (len(time_s), len(columns)) or len(masked) != len(time_s):
        raise ValueError(f"{trial}: {len(time_s)} times, {true.shape} true and {prediction.shape} predicted values")
    # Grey behind each stretch of masked rows, from its first row to the next valid one.
    spans = _stretches(masked, np.append(time_s, time_s[-1:]))
    seen = np.where(masked[:, None], np.nan, true)
    low, high = limits[0] - 0.05, limits[1] + 0.05
    figure = _figure(PAGE_IN, 0.5 + 1.5 * len(columns))
    all_axes = figure.subplots(len(columns), 1, sharex=True, squeeze=False)[:, 0]
    for i, (axes, task) in enumerate(zip(all_axes, columns, strict=True)):
        if spans:
            axes.broken_barh(spans, (low, high - low), facecolors=_MASKED, edgecolors=_MASKED, zorder=0, label="masked")
        if truth is not None:
            axes.plot(*_envelope(time_s, seen[:, i]), color=_TRUTH, linewidth=1.1, zorder=3, label="truth")
        axes.plot(*_envelope(time_s, prediction[:, i]), color=_PREDICTED, linewidth=0.9, label="prediction")
        axes.axhline(0.0, color=_GREY, linewidth=0.6, zorder=1)
        axes.set(ylim=(low, high), ylabel=task, title=_title(task, ccc))
        axes.margins(x=0.005)
    all_axes[-1].set_xlabel("time / s")
    _name(figure, trial)
    handles, labels = all_axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper right", ncols=3, frameon=False)
    _save(figure, path, about)


@_own_style()
def overview(
    path: Path,
    columns: Sequence[str],
    truth: NDArray[Any],
    prediction: NDArray[Any],
    ccc: Mapping[str, float],
    about: Mapping[str, Any] | None = None,
    limits: tuple[float, float] = (-1.0, 1.0),
) -> None:
    """Draw one square a column: how many valid frames have which truth and prediction (both [N, C], in `limits`)."""
    figure = _figure(PAGE_IN / 2 * len(columns), 3.0)
    figure.set_layout_engine("constrained", wspace=0.06)  # the left bar's label is not the right axis's
    low, high = limits
    edges = np.linspace(low, high, 61)
    for i, task in enumerate(columns):
        axes = figure.add_subplot(1, len(columns), i + 1)
        frames, _, _ = np.histogram2d(truth[:, i], np.clip(prediction[:, i], low, high), bins=(edges, edges))
        shades = {"norm": "log", "vmin": 1, "vmax": max(10.0, frames.max()), "cmap": _shades(), "rasterized": True}
        picture = axes.pcolormesh(edges, edges, np.ma.masked_equal(frames.T, 0), **shades)
        axes.plot(limits, limits, color=_TRUTH, linewidth=0.8, linestyle="--")
        axes.set(xlabel=f"true {task}", ylabel=f"predicted {task}", title=_title(task, ccc), aspect="equal")
        axes.set(xticks=edges[::15], yticks=edges[::15])
        figure.colorbar(picture, ax=axes, label="frames", fraction=0.045, pad=0.02)
    _save(figure, path, about)


@_own_style()
def comparison_plot(
    path: Path,
    rows: Sequence[CellScores],
    of_runs: Mapping[str, Sequence[float]],
    differences: Sequence[Difference],
    primary: str,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Draw one line per cell: on the left its mean ± sd and each run's score {cell: [R]}; on the right how much it
    differs from the first cell, with the interval. A hollow mark is S4's leaky number.
    """
    figure = _figure(PAGE_IN, 1.1 + 0.32 * len(rows))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    heights = {row.cell: -float(at) for at, row in enumerate(rows)}
    reference = rows[0].cell
    for row in rows:
        height, spread = heights[row.cell], row.sd.get(primary) or 0.0
        scores = list(of_runs.get(row.cell, ()))
        left.plot(scores, [height] * len(scores), "o", color=_GREY, markersize=2.5, alpha=0.6, label="runs")
        if primary in row.mean:
            bar = {"xerr": spread, "fmt": "D", "color": _COLOURS[0], "markersize": 4, "capsize": 2}
            left.errorbar(row.mean[primary], height, label="mean ± sd over seeds", **bar)
        if row.leaky is not None:
            mark = {"color": _COLOURS[1], "markersize": 5, "fillstyle": "none", "label": "S4's windows (leaky)"}
            left.plot([row.leaky], [height], "s", **mark)
    right.axvline(0.0, color=_GREY, linewidth=1.0, zorder=1)
    right.plot([0.0], [0.0], "D", color=_COLOURS[0], markersize=4, fillstyle="none")
    for each in differences:
        if each.other == reference and (found := each.paired.scores.get(primary)) is not None:
            bounds = [[found.difference - found.low], [found.high - found.difference]]
            bar = {"fmt": "D", "color": _COLOURS[0], "markersize": 4, "capsize": 2}
            right.errorbar(found.difference, heights[each.one], xerr=bounds, **bar)
    names = []
    for row in rows:
        lines = [row.cell[at : at + _NAME_LETTERS] for at in range(0, len(row.cell), _NAME_LETTERS)]
        names.append("\n".join(lines[:2]) + ("…" if lines[2:] else ""))
    left.set_yticks(list(heights.values()), names, parse_math=False)
    left.set(xlabel=primary, ylim=(-len(rows) + 0.4, 0.6))
    right.set(xlabel=f"difference of {primary} from the first row,\n95 % interval over trials")
    for axes in (left, right):
        axes.grid(axis="x", color=_LIGHT, linewidth=0.6)
    handles, labels = left.get_legend_handles_labels()
    named = dict(zip(labels, handles, strict=True))
    figure.legend(named.values(), named.keys(), loc="outside upper left", ncols=3, frameon=False)
    _save(figure, path, about)


@_own_style()
def probability_plot(
    path: Path,
    trial: str,
    columns: Sequence[str],
    time_s: NDArray[np.float64],
    prediction: NDArray[Any],
    truth: NDArray[Any] | None,
    valid: NDArray[np.bool_],
    about: Mapping[str, Any] | None = None,
) -> None:
    """Draw what is true and how likely each column is held to be, a line of the picture a column, frame after frame.

    `prediction` and `truth` [T, C] in [0, 1], NaN where nothing is known; `valid` bool [T]; `time_s` [T], s, begins and
    ends the axis. What is not known is hatched. Without `truth` there is one panel, and rows that are not valid are
    marked by a grey bar above it. Raises ValueError if a shape differs.
    """
    true = np.full(prediction.shape, np.nan) if truth is None else truth
    if not prediction.shape == true.shape == (len(time_s), len(columns)) or len(valid) != len(time_s):
        raise ValueError(f"{trial}: {len(time_s)} times, {true.shape} true and {prediction.shape} predicted values")
    panels = {"truth": np.where(valid[:, None], true, np.nan), "prediction": prediction}
    if truth is None:
        del panels["truth"]
    figure = _figure(PAGE_IN, 0.9 + 0.16 * len(columns) * len(panels))
    extent = (float(time_s[0]), float(time_s[-1]), len(columns) - 0.5, -0.5) if len(time_s) > 1 else None
    all_axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (title, rows) in zip(all_axes, panels.items(), strict=True):
        shown = np.ma.masked_invalid(rows.T)
        shades = {"vmin": 0, "vmax": 1, "cmap": "Blues", "interpolation": "nearest"}
        picture = axes.imshow(shown, aspect="auto", extent=extent, **shades)
        axes.patch.set(
            facecolor="white", edgecolor=_GREY, hatch="////", linewidth=0
        )  # a shade of grey would be a share
        axes.set_yticks(range(len(columns)), columns, fontsize="x-small")
        axes.set_title(title, fontsize="medium")
    if truth is None and not valid.all():
        _mark_masked(axes, ~valid, picture.get_extent())
    axes.set_xlabel("time / s, frames evenly spaced")
    figure.colorbar(picture, ax=figure.axes, fraction=0.02, pad=0.01)
    _name(figure, trial)
    _save(figure, path, about)


@_own_style()
def f1_overview(
    path: Path,
    task: Task,
    labels: NDArray[Any],
    prediction: NDArray[Any],
    f1: Mapping[str, float],
    about: Mapping[str, Any] | None = None,
) -> None:
    """Draw the F1 of each class or flag as a bar and, of classes, which are taken for which.

    `labels` [N, L] and `prediction` [N, C] are of the labelled frames; a row of the confusion adds up to 1.
    """
    classes = task.labels.values == "class"
    figure = _figure(PAGE_IN if classes else PAGE_IN / 2, 2.9)
    axes = figure.add_subplot(1, 1 + classes, 1)
    axes.bar(task.columns, [f1.get(name, 0.0) for name in task.columns], color=_COLOURS[0])
    axes.set(ylim=(0, 1), ylabel="F1", title=f"macro F1 {np.mean(list(f1.values()) or [0.0]):z.3f}")
    axes.tick_params("x", rotation=60)
    if classes:
        frames = confusion(labels[:, 0], prediction.argmax(axis=1), len(task.columns))
        shares = frames / np.maximum(frames.sum(axis=1, keepdims=True), 1)
        axes = figure.add_subplot(1, 2, 2)
        picture = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
        places = range(len(task.columns))
        axes.set_xticks(places, task.columns, rotation=60)
        axes.set_yticks(places, task.columns)
        axes.set(xlabel="predicted", ylabel="true")
        figure.colorbar(picture, ax=axes, label="share of the true frames", fraction=0.045, pad=0.02)
    _save(figure, path, about)


def _stretches(masked: NDArray[np.bool_], ends: Column) -> list[tuple[float, float]]:
    """Begin and width of each stretch of masked rows [T], by where each row begins and the last one ends [T + 1]."""
    edges = np.flatnonzero(np.diff(masked.astype(np.int8), prepend=0, append=0))
    return [(begin, end - begin) for begin, end in ends[edges].reshape(-1, 2)]


def _mark_masked(axes: Axes, masked: NDArray[np.bool_], extent: tuple[float, float, float, float]) -> None:
    """A grey bar above a picture of rows, evenly spaced over its `extent`, where they are masked."""
    left, right, bottom, top = extent
    spans = _stretches(masked, np.linspace(left, right, len(masked) + 1))
    axes.axhspan(top - 0.9, top, color="white")  # nothing is unknown up there
    axes.broken_barh(spans, (top - 0.7, 0.5), facecolors=_GREY, label="masked")
    axes.set_ylim(bottom, top - 0.9)
    axes.figure.legend(loc="upper right", frameon=False)


def _name(figure: Figure, trial: str) -> None:
    """Head a picture with the trial: on one line, not too long; letters that matplotlib's font lacks become `?`."""
    from matplotlib.font_manager import findfont, get_font  # noqa: PLC0415 - slow to load

    font = get_font(findfont("DejaVu Sans"))
    name = "".join(letter if font.get_char_index(ord(letter)) else "?" for letter in flat(trial)[:_MOST_LETTERS])
    figure.suptitle(name, x=0.01, ha="left", fontsize="large", parse_math=False)


def _title(task: str, ccc: Mapping[str, float] | None) -> str:
    return f"{task}: CCC {ccc[task]:z.3f}" if ccc and task in ccc else task


def _envelope(time_s: Column, values: NDArray[Any]) -> tuple[Column, Column]:
    """At most about 4000 points of a line [T] that look like it: each stretch by its least and largest row."""
    values = np.asarray(values, dtype=np.float64)
    step = -(-2 * len(values) // _MOST_POINTS)
    if len(values) <= _MOST_POINTS:
        return time_s, values
    rows = np.minimum(np.arange(-(-len(values) // step) * step), len(values) - 1).reshape(-1, step)
    low = np.where(np.isnan(values), np.inf, values)[rows].argmin(axis=1)
    high = np.where(np.isnan(values), -np.inf, values)[rows].argmax(axis=1)
    shown = np.take_along_axis(rows, np.sort(np.stack([low, high], axis=1), axis=1), axis=1).ravel()
    return time_s[shown], values[shown]


def _shades() -> ListedColormap:
    """Shades of blue, one way from light to dark, of which the lightest is seen on white."""
    from matplotlib import colormaps  # noqa: PLC0415 - slow to load
    from matplotlib.colors import ListedColormap  # noqa: PLC0415

    return ListedColormap(colormaps["Blues"](np.linspace(_LEAST_SHADE, 1.0, 256)))


def _figure(width_in: float, height_in: float) -> Figure:
    """A figure of its own: no pyplot, no window, nothing shared with the caller's figures."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(width_in, height_in), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path, about: Mapping[str, Any] | None) -> None:
    """Write the picture; its metadata say which avfuse has drawn it and, as JSON, what it is of, but not when."""
    figures = path.suffix[1:]
    who, what, when = _METADATA[figures]
    kept = {key: value for key, value in (about or {}).items() if key != "time"}
    metadata = {who: f"avfuse {__version__}", **({what: json.dumps(kept)} if kept else {}), **dict.fromkeys(when)}
    picture = io.BytesIO()
    figure.savefig(picture, format=figures, dpi=DPI, metadata=metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, picture.getvalue())
