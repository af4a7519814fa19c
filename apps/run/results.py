"""What `avfuse run` writes and prints of each video: its predictions, a plot, the drawn video, a line of the table.

Tested by tests/apps/run/test_run.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...features_store.disk.atomic import write_json
from ...features_store.schema import FACE_SCORE
from ...fusion.data.matching import frame_times
from ...fusion.inference.evaluate import Results
from ...fusion.results.plots import prediction_plot, probability_plot
from ...fusion.results.prediction_files import trial_path
from ...fusion.runs.loggers import usable
from ...pipeline.media.probe import probe
from ...pipeline.media.streams import Choice
from ...pipeline.media.types import MediaError
from ...shell.progress import shown
from ...shell.text import counted, text_table

if TYPE_CHECKING:
    from .commands import PredictVideosRequest

_MOST_COLUMNS = 3  # more are too many for a line: the likeliest one is named


@dataclass(frozen=True)
class VideoResult:
    """A trial's line of the table: `faces`, `valid`: shares of its rows; mean and spread (sd) of each column."""

    trial: str
    video: str
    frames: int
    seconds: float
    faces: float | None
    audio: bool
    valid: float
    mean: Mapping[str, float]
    sd: Mapping[str, float]
    files: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The result for `--json`."""
        return {**vars(self), "mean": dict(self.mean), "sd": dict(self.sd), "files": list(self.files)}


def write_results(
    folder: Path,
    found: Results,
    videos: Mapping[str, Path],
    request: PredictVideosRequest,
) -> tuple[list[VideoResult], dict[str, str]]:
    """A CSV a trial into `folder`, with plots and drawn videos where they are wanted, and summary.json.

    Also {video: reason} of those that could not be drawn.
    """
    from .commands import video_of  # noqa: PLC0415 - it loads this file

    found.write(folder, ".csv")
    with_plots = request.plots and usable("matplotlib.backends.backend_agg", "pictures")
    task, done, failed = found.predictions.task, list[VideoResult](), dict[str, str]()
    for name in shown(list(found.predictions.trials), "writing"):
        rows, valid = found.predictions.trials[name], found.predictions.valid[name]
        trial, time_s = found.store[found.sources[name].stored], frame_times(found.store, found.sources[name])
        files = [f"{name}.csv"]
        if with_plots:
            files.append(f"{name}.png")
            path = trial_path(folder, name, ".png")
            if task.labels.values == "real":
                about = (None, valid, None, found.made, task.limits)
                prediction_plot(path, name, task.columns, time_s, rows, *about)
            else:
                unknown = np.full(rows.shape, np.nan, np.float32)
                probability_plot(path, name, task.columns, time_s, rows, unknown, valid, found.made)
        video = video_of(name, videos)
        if request.draw and video is not None:
            try:
                _draw(trial_path(folder, name, ".mp4"), found, name, video, request.stall_timeout)
                files.append(f"{name}.mp4")
            except MediaError as error:
                failed[video.relative_to(request.videos).as_posix()] = f"not drawn: {error.stage}: {error.words}"
        step_s = float(np.median(np.diff(time_s))) if len(time_s) > 1 else 0.0
        done.append(
            VideoResult(
                trial=name,
                video="" if video is None else video.relative_to(request.videos).as_posix(),
                frames=len(rows),
                seconds=float(time_s[-1] - time_s[0]) + step_s,
                faces=float((trial.read(FACE_SCORE) > 0).mean()) if FACE_SCORE in trial else None,
                audio=trial.attributes.get("audio") == "present",
                valid=float(valid.mean()),
                mean={column: float(rows[:, at].mean()) for at, column in enumerate(task.columns)},
                sd={column: float(rows[:, at].std()) for at, column in enumerate(task.columns)},
                files=tuple(files),
            )
        )
    write_json(folder / "summary.json", {"videos": [each.as_json() for each in done], "made": dict(found.made)})
    return done, failed


def _draw(out: Path, found: Results, name: str, video: Path, stall_timeout_s: float) -> None:
    from .drawing import Drawn, draw_video  # noqa: PLC0415 - Pillow's letters, where they are used

    trial, task = found.store[found.sources[name].stored], found.predictions.task
    mark = "UNTRAINED WEIGHTS" if found.made.get("UNTRAINED") else ""
    boxes = trial.read("face_box") if "face_box" in trial else None
    rows, valid = found.predictions.trials[name], found.predictions.valid[name]
    out.parent.mkdir(parents=True, exist_ok=True)
    info = probe(video, Choice.recorded(trial.attributes), stall_timeout_s=stall_timeout_s)
    drawn = Drawn(trial.time_s, boxes, task.columns, rows, valid, task.limits, mark)
    draw_video(info, drawn, out, stall_timeout_s=stall_timeout_s)


def table_lines(done: Sequence[VideoResult]) -> list[str]:
    """The table of all videos: how much there was to see and to hear, mean and spread of what is predicted."""
    columns = list(done[0].mean)
    few = len(columns) <= _MOST_COLUMNS
    cells = [["trial", "frames", "seconds", "face", "sound", "valid", *(columns if few else ["most of the time"])]]
    for each in done:
        said = [f"{each.mean[column]:+z.3f} ± {each.sd[column]:.3f}" for column in columns]
        if not few:
            most = max(each.mean, key=lambda column: each.mean[column])
            said = [f"{most} {each.mean[most]:.2f}"]
        faces = "-" if each.faces is None else f"{each.faces:.1%}"
        sound = "yes" if each.audio else "no"
        cells.append([each.trial, str(each.frames), f"{each.seconds:.2f}", faces, sound, f"{each.valid:.1%}", *said])
    total = counted(sum(each.frames for each in done), "frame")
    return [*text_table(cells), f"{counted(len(done), 'trial')}, {total}"]
