"""The videos below a folder and the trials they make: names, lengths, sides, crops. Decodes nothing.

Tested by tests/pipeline/runs/test_plan.py.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from ...features_store.interchange.result_files import MADE_FILE, is_result_folder
from ...features_store.labels.annotations import count_rows, folder_levels
from ...features_store.labels.corpus import Corpus, label_name, open_any_corpus
from ...features_store.labels.timed import is_timed
from ...features_store.records.failures import Stage
from ...features_store.schema import check_trial_name, plain_name, whole_trial
from ...shell.text import counted, one_line, preview
from ..config import ExtractConfig, FacePolicy
from ..extraction.jobs import Failure, Job
from ..extraction.provenance import has_crops
from ..words.transcript import TranscriptFolder

# Listed in docs/store.md; what of these ffmpeg cannot read is a named failure.
_BROADCAST = (
    ".mpg .mpeg .mpe .m1v .m2v .mpv .mp2v .m2p .vob .vro .evo .ts .trp .tp .mts .m2ts .m2t .mxf .gxf .wtv .dvr-ms"
)
_CAMERA = ".mod .tod .dv .dif .lrv .lrf .insv .360 .dav .amv .braw .r3d .crm"
_PHONE_AND_WEB = (
    ".mp4 .m4v .mp4v .mov .qt .3gp .3gpp .3g2 .3gp2 .k3g .f4v .f4p .flv .mkv .mk3d .webm .ogv .ogm .ogx .ismv"
)
_RAW = ".264 .h264 .avc .265 .h265 .hevc .h263 .h261 .av1 .obu .ivf .mjpg .mjpeg .y4m"
_OTHER = ".avi .divx .xvid .wmv .asf .rm .rmvb .nut .nsv .gif"
SOUND_SUFFIXES = (".wav", ".flac")
VIDEO_SUFFIXES = frozenset(f"{_BROADCAST} {_CAMERA} {_PHONE_AND_WEB} {_RAW} {_OTHER}".split())
# Playlists name other files or addresses: they are reported as refused, and never opened.
PLAYLIST_SUFFIXES = frozenset([".m3u8", ".m3u", ".mpd", ".ffconcat", ".concat"])
# Folders that misplaced crops are looked for in, and trials that are looked for there.
_LOOKED_INTO, _LOOKED_FOR = 50, 20
_SIDES: dict[str, FacePolicy] = {"_left": "left", "_right": "right"}


@dataclass(frozen=True)
class Sources:
    """Where trials come from: the videos' folder, the corpus of labels, folders of crops, sound files and words."""

    videos: Path
    corpus: Corpus | None
    crops: Path | None
    sounds: Path | None = None
    words: TranscriptFolder | None = None


def find_sources(
    videos: Path,
    annotations: Path | None,
    crops: Path | None,
    sounds: Path | None = None,
    words: Path | None = None,
) -> Sources:
    """Check the folders and index the annotations. Raises ValueError or OSError naming the folder."""
    for folder in (videos, crops, sounds):
        if folder is not None and not folder.is_dir():
            raise ValueError(f"{folder} is not a folder")
    corpus = open_any_corpus(annotations) if annotations is not None else None
    return Sources(videos, corpus, crops, sounds, TranscriptFolder(words) if words is not None else None)


def find_jobs(sources: Sources, config: ExtractConfig) -> tuple[list[Job], list[Failure], list[str]]:
    """Every trial of every video below the folder in a fixed order, what cannot be one, and notes.

    Raises ValueError where nothing in it is a video.
    """
    unreadable: list[OSError] = []
    paths = list(walk_videos(sources.videos, unreadable.append))
    if not paths and not unreadable:
        raise ValueError(_no_videos(sources.videos))
    jobs: dict[str, Job] = {}
    failures: list[Failure] = []
    for error in unreadable:
        folder = Path(error.filename)
        name = folder.relative_to(sources.videos).as_posix()
        failures.append(Failure(name, name, Stage.PLAN, f"the folder cannot be read: {error.strerror}", folder))

    # Video name → names of the trials cut from it, as the annotations and crop folders have them.
    known = set(sources.corpus.files) if sources.corpus is not None else set()
    if sources.crops is not None:
        known.update(plain_name(entry.name) for entry in sources.crops.iterdir() if entry.is_dir())
    names: dict[str, list[str]] = {}
    for trial in sorted(known):
        names.setdefault(video_of(trial), []).append(trial)

    sounds = _sound_files(sources.sounds) if sources.sounds is not None and config.audio else None
    for path in paths:
        for job in _jobs_of(path, sources, names, config):
            try:
                jobs[job.trial] = _checked(_with_sound(job, sources, sounds), jobs, sources)
            except ValueError as problem:
                # Its own name as the trial's: the trial may well be done, by the video that has it by right.
                failures.append(Failure(job.name, job.name, Stage.PLAN, one_line(problem), path))

    if sounds is not None and not any(job.sound for job in jobs.values()):
        raise ValueError(
            f"{sources.sounds} has sound for none of the trials ({preview(sorted(each.trial for each in failures))}), "
            f"{f'only for {preview(sorted(sounds))}' if sounds else 'no wav or flac file at all'}: is --audio right?"
        )

    # What the annotations and the videos do not agree on.
    notes = []
    if sources.corpus is not None:
        uses = Counter(label_name(sources.corpus, job.trial) for job in jobs.values())  # as training looks for them
        if without := [trial for trial in sources.corpus.files if not uses[trial]]:
            notes.append(f"no video for {counted(len(without), 'annotated trial')}: {preview(without)}")
        if shared := [trial for trial in sources.corpus.files if uses[trial] > 1]:
            notes.append(f"videos in more than one folder for {counted(len(shared), 'annotation')}: {preview(shared)}")
    return list(jobs.values()), failures, notes


def walk_videos(folder: Path, on_error: Callable[[OSError], None] | None = None) -> Iterator[Path]:
    """Files, and folders that look like files, with a video's or playlist's suffix; hidden names are skipped.

    So are results of our own below it (`run --draw`, `report --copy-videos`): they would be taken for new videos.
    `on_error` is called for folders that cannot be read.
    """
    suffixes = VIDEO_SUFFIXES | PLAYLIST_SUFFIXES
    visited: set[tuple[int, int]] = set()
    for parent, folders, files in os.walk(folder, onerror=on_error, followlinks=True):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in visited:  # a link that leads back up
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        if MADE_FILE in files and Path(parent) != folder and is_result_folder(Path(parent)):
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted([*folders, *files]):
            if not name.startswith(".") and Path(name).suffix.lower() in suffixes:
                yield Path(parent, name)


def videos_by_name(folder: Path) -> dict[str, list[Path]]:
    """The videos below a folder, by the plain names that their trials have: folders and all, without a suffix.

    Raises ValueError where it is not a folder.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    found: dict[str, list[Path]] = {}
    for path in walk_videos(folder):
        found.setdefault(plain_name(path.relative_to(folder).with_suffix("").as_posix()), []).append(path)
    return found


def find_video(trial: str, attributes: Mapping[str, object], videos: Mapping[str, Sequence[Path]]) -> Path | None:
    """A trial's video among `videos_by_name`: of its name, in its folder or, moved elsewhere, of its file's name.

    A side (`video59_left`) or a face (`clip/face0`) has the whole picture's. `attributes`: the trial's, which remember
    what its video was called: that decides between several; None where more than one is left.
    """
    file = _source_in(attributes).get("name")
    names = [plain_name(name) for name in (trial, whole_trial(trial), video_of(whole_trial(trial)))]
    found = [list(videos.get(name, ())) for name in names]
    for last in (name.rpartition("/")[2] for name in names):
        moved = [path for stem, paths in videos.items() if stem.rpartition("/")[2] == last for path in paths]
        found.append([path for path in moved if file in (None, path.name)])
    for paths in found:
        named = [path for path in paths if path.name == file] or paths
        if len(named) == 1:
            return named[0]
    return None


def why_other_file(video: Path, attributes: Mapping[str, object]) -> str:
    """Why a video that has a trial's name is not the file that the trial was made of; nothing where it may be.

    `attributes`: the trial's. Raises OSError where the video cannot be looked at.
    """
    size = _source_in(attributes).get("size")
    if size in (None, video.stat().st_size):
        return ""
    return f"{video} is not the file that was extracted: it has another size"


def _source_in(attributes: Mapping[str, object]) -> Mapping[str, object]:
    source = attributes.get("source")
    return source if isinstance(source, dict) else {}


def _no_videos(folder: Path) -> str:
    seen = Counter(
        Path(name).suffix.lower() or "without a suffix"
        for _, _, files in os.walk(folder)
        for name in files
        if not name.startswith(".")
    )
    there = ", ".join(f"{count} {suffix}" for suffix, count in seen.most_common(5))
    others = f"its files: {there}{', …' if len(seen) > 5 else ''}" if seen else "it has no files"
    return f"{folder}: nothing here is a video by its suffix ({others}); the suffixes are listed in docs/store.md"


def _jobs_of(path: Path, sources: Sources, names: Mapping[str, list[str]], config: ExtractConfig) -> list[Job]:
    """A video's trials: itself, or the annotated (or cropped) ones that bear its name, sides included."""
    name = path.relative_to(sources.videos)
    stem = name.with_suffix("").as_posix()
    jobs = []
    for known in names.get(plain_name(stem)) or names.get(plain_name(Path(stem).name), [stem]):
        # A trial keeps the letters of its video's name, however the labels' or crops' write them.
        trial = stem + known.removeprefix(video_of(known)) if known != stem else stem
        face: FacePolicy = config.face if config.visual else "largest"
        for side, of_side in _SIDES.items():
            if config.visual and trial.endswith(side) and not stem.endswith(side):
                face = of_side
        crops = _crops_folder(trial, sources) if config.visual else None
        words = sources.words.find(trial, stem) if sources.words is not None and config.text else None
        jobs.append(Job(path, name.as_posix(), trial, face, file_identity(path)[0], crops=crops, words=words))
    return jobs


def video_of(trial: str) -> str:
    """The name of a trial's video: `video59_left` and `video59_right` share `video59`."""
    for side in _SIDES:
        trial = trial.removesuffix(side)
    return trial


def _crops_folder(trial: str, sources: Sources) -> Path | None:
    if sources.crops is None:
        return None
    whole, named = sources.crops / trial, sources.crops / Path(trial).name
    if whole.is_dir() or named.is_dir():
        return whole if whole.is_dir() else named
    wanted = plain_name(named.name)
    return next((entry for entry in sources.crops.iterdir() if plain_name(entry.name) == wanted), named)


def _sound_files(folder: Path) -> dict[str, list[Path]]:
    """The sound files below a folder by the plain names of their trials; several may share one."""
    found: dict[str, list[Path]] = {}
    for parent, _, files in os.walk(folder):
        for name in sorted(files):
            path = Path(parent, name)
            if path.suffix.lower() in SOUND_SUFFIXES and not name.startswith("."):
                found.setdefault(plain_name(path.relative_to(folder).with_suffix("").as_posix()), []).append(path)
    return found


def _with_sound(job: Job, sources: Sources, sounds: Mapping[str, Sequence[Path]] | None) -> Job:
    """The job with the file of its trial's sound, which lies as the trial's name says, or straight in the folder.

    Raises ValueError where there is none: the video's own sound in its place could hold everybody's voice.
    """
    if sounds is None:
        return job
    names = dict.fromkeys(plain_name(name) for name in (job.trial, Path(job.trial).name))
    files = next((sounds[name] for name in names if name in sounds), [])
    if not files:
        raise ValueError(f"there is no {Path(job.trial).name}.wav or .flac in {sources.sounds} (--audio)")
    if len(files) > 1:
        raise ValueError(f"{files[0]} and {files[1].name} are both its sound; remove one")
    return replace(job, sound=files[0])


def _checked(job: Job, jobs: Mapping[str, Job], sources: Sources) -> Job:
    """The job with its length, or ValueError with why it cannot be done, as far as names and labels show."""
    if job.video.is_dir():
        raise ValueError("is a directory, not a video")
    if job.video.suffix.lower() in PLAYLIST_SUFFIXES:
        raise ValueError("is a playlist; playlists can point at other files or the network and are refused")
    if job.trial in jobs:
        raise ValueError(f"makes the same trial {job.trial!r} as {jobs[job.trial].name}; rename one of them")
    whole = whole_trial(job.trial)
    if whole != job.trial and jobs.get(whole, job).face == "all":
        raise ValueError(f"makes the trial {job.trial!r}, which is the name of a face of another video; rename it")
    check_trial_name(job.trial)
    label = label_name(sources.corpus, job.trial) if sources.corpus is not None else None
    if label is None or sources.corpus is None:
        return job
    path = sources.corpus.files[label]
    rows = count_rows(path, sources.corpus.kind)
    if not rows:
        raise ValueError(f"{path} has no label rows")
    # Labels with times of their own are laid on the frames that there are, so they say nothing about how many.
    return job if is_timed(path, sources.corpus.kind) else replace(job, length=rows)


def check_sources(sources: Sources, jobs: Sequence[Job], config: ExtractConfig) -> list[str]:
    """Notes on trials without crops or labels where others have some; one line each, before anything is decoded.

    Raises ValueError where no trial has any: the folder is the wrong one, or the names are others.
    """
    notes = []
    trials = counted(len(jobs), "trial")
    if jobs and sources.crops is not None and config.visual:
        without = [job.trial for job in jobs if not has_crops(job.crops)]
        if len(without) == len(jobs):
            raise ValueError(f"crops for 0 of {trials}: {_where_crops_are(sources.crops, jobs)}")
        if without:
            notes.append(f"no crops for {len(without)} of {trials}: {preview(without)}")
    if jobs and sources.words is not None and config.text:
        without = [job.trial for job in jobs if job.words is None]
        if len(without) == len(jobs):
            there = preview(sources.words.files) or "(none)"
            raise ValueError(
                f"words for 0 of {trials}: {sources.words.folder} has the files of {there}, the trials are "
                f"{preview(without)}: is --words of these videos?"
            )
        if without:
            notes.append(f"no words for {len(without)} of {trials}: {preview(without)}")
    if jobs and sources.corpus is not None:
        without = [job.trial for job in jobs if label_name(sources.corpus, job.trial) is None]
        if len(without) == len(jobs):
            raise ValueError(
                f"labels for 0 of {trials}: the annotations are of {preview(sources.corpus.files)}, "
                f"the videos are {preview(without)}: is --annotations of these videos?"
            )
        if without:
            notes.append(f"no labels for {len(without)} of {trials}, which get one row per frame: {preview(without)}")
    return notes


def _where_crops_are(folder: Path, jobs: Sequence[Job]) -> str:
    """Where the crops may be instead: one or two levels down, or up."""
    names = {f"{Path(job.trial).name}{side}" for job in jobs[:_LOOKED_FOR] for side in ("", *_SIDES)}
    names |= {job.trial for job in jobs[:_LOOKED_FOR]}
    levels = list(islice(folder_levels(folder), 2))
    down, up = ("one level down", "two levels down"), ("one level up", "two levels up")
    places = [(each, at) for each, level in zip(down, levels, strict=False) for at in level[:_LOOKED_INTO]]
    for distance, place in [*places, *zip(up, folder.absolute().parents, strict=False)]:
        if any(has_crops(place / name) for name in names):
            below = f", in `{place.relative_to(folder).as_posix()}/`" if distance in down else ""
            return f"is it {distance}{below}? (--aligned {place})"
    subfolders = sorted(place.name for place in levels[0]) if levels else []
    trials = preview([job.trial for job in jobs])
    return f"{folder} has the folders {preview(subfolders) or '(none)'}, the trials are {trials}"


def file_identity(path: Path | None) -> tuple[int, int]:
    """Size in bytes and modification time in ns; zeros for a link to nowhere, which fails when it is opened."""
    try:
        status = os.stat(path) if path is not None else None
    except OSError:
        return 0, 0
    return (status.st_size, status.st_mtime_ns) if status else (0, 0)
