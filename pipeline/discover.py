"""The videos below a folder and the trials they make: names, lengths, sides, crops. Decodes nothing.

Tested by tests/pipeline/test_plan.py.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..features_store.errors import one_line
from ..features_store.labels import annotation_files, count_rows
from ..features_store.schema import check_trial_name
from ..features_store.text import counted
from .config import ExtractConfig, FacePolicy
from .jobs import Failure, Job

_BROADCAST = {".mpg", ".mpeg", ".m2v", ".vob", ".ts", ".mts", ".m2ts", ".mxf", ".dv"}
_PHONE_AND_WEB = {".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".f4v", ".flv", ".mkv", ".webm", ".ogv"}
_OTHER = {".avi", ".divx", ".wmv", ".asf", ".rm", ".rmvb", ".nut", ".y4m"}
VIDEO_SUFFIXES = frozenset(_BROADCAST | _PHONE_AND_WEB | _OTHER)
# Playlists name other files or addresses: they are reported as refused, and never opened.
PLAYLIST_SUFFIXES = frozenset([".m3u8", ".m3u", ".mpd", ".ffconcat", ".concat"])
_FACE = re.compile(r"/face\d+$")
_SIDES: dict[str, FacePolicy] = {"_left": "left", "_right": "right"}


@dataclass(frozen=True)
class Sources:
    """Where trials come from: the videos' folder, annotated trial → label file, folder of aligned crops."""

    videos: Path
    labels: Mapping[str, Path]
    crops: Path | None


def find_sources(videos: Path, annotations: Path | None, crops: Path | None) -> Sources:
    """Check the folders and index the annotations. Raises ValueError or OSError naming the folder."""
    for folder in (videos, crops):
        if folder is not None and not folder.is_dir():
            raise ValueError(f"{folder} is no folder")
    return Sources(videos, annotation_files(annotations) if annotations else {}, crops)


def find_jobs(sources: Sources, config: ExtractConfig) -> tuple[list[Job], list[Failure], list[str]]:
    """Every trial of every video below the folder in a fixed order, what cannot be one, and notes."""
    jobs: dict[str, Job] = {}
    failures: list[Failure] = []
    unreadable: list[OSError] = []
    paths = list(walk_videos(sources.videos, unreadable.append))
    failures += [_unreadable(sources.videos, error) for error in unreadable]
    names = _trial_names(sources)
    for path in paths:
        for job in _jobs_of(path, sources, names, config):
            try:
                jobs[job.trial] = _checked(job, jobs, sources)
            except ValueError as error:
                # Its own name as the trial's: the trial may well be done, by the video that has it by right.
                failures.append(Failure(job.name, job.name, "plan", one_line(error), path))
    return list(jobs.values()), failures, _notes(sources, jobs.values())


def walk_videos(folder: Path, on_error: Callable[[OSError], None] | None = None) -> Iterator[Path]:
    """Files, and folders that look like files, with a video's or playlist's suffix; hidden names are skipped.

    `on_error` is told of folders that cannot be read.
    """
    suffixes = VIDEO_SUFFIXES | PLAYLIST_SUFFIXES
    visited: set[tuple[int, int]] = set()
    for here, folders, files in os.walk(folder, onerror=on_error, followlinks=True):
        status = os.stat(here)
        if (status.st_dev, status.st_ino) in visited:  # a link that leads back up
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted([*folders, *files]):
            if not name.startswith(".") and Path(name).suffix.lower() in suffixes:
                yield Path(here, name)


def _unreadable(videos: Path, error: OSError) -> Failure:
    folder = Path(error.filename)
    name = folder.relative_to(videos).as_posix()
    return Failure(name, name, "plan", f"the folder cannot be read: {error.strerror}", folder)


def _jobs_of(path: Path, sources: Sources, names: Mapping[str, list[str]], config: ExtractConfig) -> list[Job]:
    """A video's trials: itself, or the annotated (or cropped) ones that bear its name, sides included."""
    name = path.relative_to(sources.videos)
    stem = name.with_suffix("").as_posix()
    trials = names.get(stem) or [
        str(Path(stem).parent / trial) for trial in names.get(Path(stem).name, [Path(stem).name])
    ]
    return [
        Job(
            video=path,
            name=name.as_posix(),
            trial=trial,
            face=_policy(trial, stem, config),
            size_bytes=file_identity(path)[0],
            crops=_crops_folder(trial, sources) if config.visual else None,
        )
        for trial in trials
    ]


def _trial_names(sources: Sources) -> dict[str, list[str]]:
    """Video name → names of the trials cut from it, as the annotations and crop folders have them."""
    known = set(sources.labels)
    if sources.crops is not None:
        known.update(entry.name for entry in sources.crops.iterdir() if entry.is_dir())
    names: dict[str, list[str]] = {}
    for trial in sorted(known):
        names.setdefault(video_of(trial), []).append(trial)
    return names


def video_of(trial: str) -> str:
    """The name of a trial's video: `video59_left` and `video59_right` share `video59`."""
    for side in _SIDES:
        trial = trial.removesuffix(side)
    return trial


def _policy(trial: str, stem: str, config: ExtractConfig) -> FacePolicy:
    if not config.visual:
        return "largest"
    sides = [face for side, face in _SIDES.items() if trial.endswith(side) and not stem.endswith(side)]
    return sides[0] if sides else config.face


def _label_rows(trial: str, sources: Sources) -> int | None:
    path = sources.labels.get(trial) or sources.labels.get(Path(trial).name)
    rows = count_rows(path) if path else None
    if rows == 0:
        raise ValueError(f"{path} has no label rows")
    return rows


def _crops_folder(trial: str, sources: Sources) -> Path | None:
    if sources.crops is None:
        return None
    whole = sources.crops / trial
    return whole if whole.is_dir() else sources.crops / Path(trial).name


def _checked(job: Job, jobs: Mapping[str, Job], sources: Sources) -> Job:
    """The job with its length, or ValueError with why it cannot be done, as far as names and labels tell."""
    if job.video.is_dir():
        raise ValueError("is a directory, not a video")
    if job.video.suffix.lower() in PLAYLIST_SUFFIXES:
        raise ValueError("is a playlist; playlists can point at other files or the network and are refused")
    if job.trial in jobs:
        raise ValueError(f"makes the same trial {job.trial!r} as {jobs[job.trial].name}; rename one of them")
    if jobs.get(_FACE.sub("", job.trial), job).face == "all" and _FACE.search(job.trial):
        raise ValueError(f"makes the trial {job.trial!r}, which is the name of a face of another video; rename it")
    check_trial_name(job.trial)
    return replace(job, length=_label_rows(job.trial, sources))


def _notes(sources: Sources, jobs: Iterable[Job]) -> list[str]:
    """What the annotations and the videos do not agree on."""
    uses = Counter(Path(job.trial).name for job in jobs)
    without = sorted(trial for trial in sources.labels if not uses[Path(trial).name])
    shared = sorted(trial for trial in sources.labels if uses[Path(trial).name] > 1)
    notes = []
    if without:
        notes.append(f"no video for {counted(len(without), 'annotated trial')}: {_some(without)}")
    if shared:
        notes.append(f"videos in more than one folder for {counted(len(shared), 'annotation')}: {_some(shared)}")
    return notes


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (" …" if len(names) > 5 else "")


def file_identity(path: Path | None) -> tuple[int, int]:
    """Size in bytes and modification time in ns; zeros for a link to nowhere, which fails when it is opened."""
    try:
        status = os.stat(path) if path is not None else None
    except OSError:
        return 0, 0
    return (status.st_size, status.st_mtime_ns) if status else (0, 0)
