"""What `avfuse run` writes and prints of each video: its predictions, a plot, the drawn video, a line of the table.

Tested by tests/apps/run/test_run.py.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...features_store.clock import usual_step_s
from ...features_store.disk.atomic import sha256_of, write_json
from ...features_store.schema import FACE_SCORE, whole_trial
from ...fusion.data.matching import frame_times
from ...fusion.inference.evaluate import Results
from ...fusion.results.folder import Part, growing_folder
from ...fusion.results.plots import prediction_plot, probability_plot
from ...fusion.results.prediction_files import trial_path, write_prediction
from ...fusion.runs.loggers import usable
from ...fusion.tasks.task import Task
from ...pipeline.media.probe import probe
from ...pipeline.media.streams import Choice
from ...pipeline.media.types import MediaError
from ...shell.progress import shown
from ...shell.text import counted, text_table

if TYPE_CHECKING:
    from ...batch.signals import StopRequest
    from .commands import PredictVideosRequest

_SUMMARY = "summary.json"
_MOST_FLAGS = 3  # more are too many for a line


@dataclass(frozen=True)
class VideoResult:
    """A trial's line of the table: `faces`, `valid`: shares of its rows; mean and spread (sd) of each column.

    `often`: the share of the rows in which a class is the likeliest one, or a flag is 1; empty of real numbers.
    """

    trial: str
    video: str
    frames: int
    seconds: float
    faces: float | None
    audio: bool
    valid: float
    mean: Mapping[str, float]
    sd: Mapping[str, float]
    often: Mapping[str, float]
    files: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The result for `--json`."""
        numbers = {"mean": dict(self.mean), "sd": dict(self.sd), "often": dict(self.often)}
        return {**vars(self), **numbers, "files": list(self.files)}


def write_results(
    found: Results,
    videos: Mapping[str, Path],
    failed: Mapping[str, str],
    request: PredictVideosRequest,
    stop: StopRequest,
) -> tuple[list[VideoResult], dict[str, str]]:
    """A CSV a trial, with plots and drawn videos where they are wanted, and summary.json, into the request's `out`.

    A trial's files appear together, as soon as they are made; plots and videos that an earlier call has made from the
    same stay. `stop.left` becomes the videos that are still to do. `failed` {video: reason} are those that could not be
    extracted, for the summary. Also returns {video: reason} of those that could not be drawn.
    """
    with_plots = request.plots and usable("matplotlib.backends.backend_agg", "pictures")
    task, done, undrawn = found.predictions.task, list[VideoResult](), dict[str, str]()
    names = list(found.predictions.trials)
    of_trial = {name: videos.get(video_name(name, videos)) for name in names}
    parts = _parts(found, of_trial, with_plots, request.draw)
    with growing_folder(request.out, "run", found.made, parts, [_SUMMARY]) as folder:
        for at, name in enumerate(shown(names, "writing")):
            stop.left = list(dict.fromkeys(video_name(each, videos) for each in names[at:]))
            stop.raise_if_set()  # a library's own `except Exception` may have swallowed what the signal raised
            rows, valid, video = found.predictions.trials[name], found.predictions.valid[name], of_trial[name]
            trial, time_s = found.store[found.sources[name].stored], frame_times(found.store, found.sources[name])
            files, is_whole = parts[name].files, True
            write_prediction(folder.scratch, name, task.columns, rows, time_s, valid, task.limits, ".csv")
            if with_plots and not folder.has(name):
                path = trial_path(folder.scratch, name, ".png")
                if task.labels.values == "real":
                    about = (None, valid, None, found.made, task.limits)
                    prediction_plot(path, name, task.columns, time_s, rows, *about)
                else:
                    probability_plot(path, name, task.columns, time_s, rows, None, valid, found.made)
            if request.draw and video is not None and not folder.has(name):
                try:
                    _draw(trial_path(folder.scratch, name, ".mp4"), found, name, video, request.stall_timeout, stop)
                except MediaError as error:
                    undrawn[video.relative_to(request.videos).as_posix()] = f"not drawn: {error.stage}: {error.words}"
                    files, is_whole = tuple(file for file in files if file != f"{name}.mp4"), False
            done.append(
                VideoResult(
                    trial=name,
                    video="" if video is None else video.relative_to(request.videos).as_posix(),
                    frames=len(rows),
                    seconds=float(time_s[-1] - time_s[0]) + usual_step_s(time_s),
                    faces=float((trial.read(FACE_SCORE) > 0).mean()) if FACE_SCORE in trial else None,
                    audio=trial.attributes.get("audio") == "present",
                    valid=float(valid.mean()),
                    mean={column: float(rows[:, at].mean()) for at, column in enumerate(task.columns)},
                    sd={column: float(rows[:, at].std()) for at, column in enumerate(task.columns)},
                    often=how_often(rows, task),
                    files=files,
                )
            )
            videos_done, all_failed = [each.as_json() for each in done], {**failed, **undrawn}
            summary = {"videos": videos_done, "failed": all_failed, "made": dict(found.made)}
            write_json(folder.scratch / _SUMMARY, summary)
            folder.publish(name, parts[name].digest if is_whole else None)
    return done, undrawn


def _parts(found: Results, of_trial: Mapping[str, Path | None], with_plots: bool, draw: bool) -> dict[str, Part]:
    """The files of each trial, and what they are made from: where that is the same, no picture is made again."""
    runs = {run: _digest_of_run(Path(run)) for run in found.made["runs"]}
    # The least that says whether a picture would be another one: not when it was made, nor what else the store holds.
    same = {key: found.made.get(key) for key in ("avfuse", "smoothing", "UNTRAINED")}
    parts = {}
    for name, video in of_trial.items():
        suffixes = [".csv", *([".png"] if with_plots else []), *([".mp4"] if draw and video is not None else [])]
        stat = video.stat() if video is not None and video.is_file() else None
        of_video = None if stat is None else [stat.st_size, stat.st_mtime_ns]
        made_from = [same, runs, found.store[found.sources[name].stored].checksums, of_video]
        digest = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()
        parts[name] = Part(digest, tuple(f"{name}{suffix}" for suffix in suffixes))
    return parts


def video_name(trial: str, videos: Mapping[str, Path]) -> str:
    """The name under which a trial's video is known, if it is: of a face (`clip/face0`) that of the whole picture."""
    return trial if trial in videos else whole_trial(trial)


def _digest_of_run(run: Path) -> str:
    """What a run predicts with: its settings, statistics and networks, as one sha256."""
    files = sorted(path for path in run.rglob("*") if path.suffix in (".json", ".safetensors") and path.is_file())
    whole = [[path.relative_to(run).as_posix(), sha256_of(path)] for path in files]
    return hashlib.sha256(json.dumps(whole).encode()).hexdigest()


def _draw(out: Path, found: Results, name: str, video: Path, stall_timeout_s: float, stop: StopRequest) -> None:
    from .drawing import Drawn, draw_video  # noqa: PLC0415 - Pillow's letters, where they are used

    trial, task = found.store[found.sources[name].stored], found.predictions.task
    mark = "UNTRAINED WEIGHTS" if found.made.get("UNTRAINED") else ""
    boxes = trial.read("face_box") if "face_box" in trial else None
    rows, valid = found.predictions.trials[name], found.predictions.valid[name]
    out.parent.mkdir(parents=True, exist_ok=True)
    info = probe(video, Choice.recorded(trial.attributes), stall_timeout_s=stall_timeout_s)
    drawn = Drawn(trial.time_s, boxes, task.columns, rows, valid, task.limits, mark)
    draw_video(info, drawn, out, lambda rows: stop.raise_if_set(), stall_timeout_s)


def how_often(rows: NDArray[np.floating], task: Task) -> dict[str, float]:
    """The share of the rows [T, C] in which each class is the likeliest one, or each flag is 1; none of numbers."""
    if task.labels.values == "real":
        return {}
    decided = task.decide(rows)
    if task.labels.values == "class":
        decided = decided == np.arange(len(task.columns))
    return dict(zip(task.columns, decided.mean(axis=0).tolist(), strict=True))


def table_lines(done: Sequence[VideoResult], task: Task) -> list[str]:
    """The table of all videos: how much there was to see and to hear, and what is predicted.

    That is mean and spread of each number, the most frequent class, or the flags that are 1 most often.
    """
    columns = {"real": task.columns, "class": ("most frequent",), "flags": ("active most often",)}[task.labels.values]
    most = 1 if task.labels.values == "class" else _MOST_FLAGS
    cells = [["trial", "frames", "seconds", "face", "sound", "valid", *columns]]
    for each in done:
        if task.labels.values == "real":
            said = [f"{each.mean[column]:+z.3f} ± {each.sd[column]:.3f}" for column in columns]
        else:
            first = sorted(each.often, key=lambda column: -each.often[column])[:most]
            said = [", ".join(f"{name} {each.often[name]:.1%}" for name in first if each.often[name]) or "none"]
        faces = "-" if each.faces is None else f"{each.faces:.1%}"
        sound = "yes" if each.audio else "no"
        cells.append([each.trial, str(each.frames), f"{each.seconds:.2f}", faces, sound, f"{each.valid:.1%}", *said])
    total = counted(sum(each.frames for each in done), "frame")
    return [*text_table(cells), f"{counted(len(done), 'trial')}, {total}"]
