"""The report: an index of trials, one page per trial, one of runs; written trial by trial, so that memory stays flat.

    OUT/index.html     runs.html
    OUT/trials/NAME-HASH.html     NAME-HASH.jpg (faces)
    OUT/assets/        plotly.min.js, our own JavaScript and style: once for all pages
    OUT/videos/        with --copy-videos; else pages link to the videos where they are

Every name goes through jinja2's escaping. Tested by tests/apps/report/test_report.py and test_browser.py.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import jinja2
import numpy as np
from numpy.typing import NDArray

from ...features_store.disk.atomic import replace_file
from ...features_store.interchange.result_files import made
from ...features_store.labels.kinds import VA
from ...features_store.records.provenance import read_inputs
from ...features_store.records.status import TrialState, summarise, trial_states
from ...features_store.schema import FACE_SCORE, TIME, StoreMismatch
from ...features_store.store import FeatureStore
from ...features_store.trial import Trial
from ...pipeline.media.probe import probe
from ...pipeline.media.streams import Choice
from ...pipeline.media.types import MediaError, VideoInfo
from ...pipeline.runs.discover import find_video, videos_by_name, why_other_file
from ...shell.progress import shown
from ...shell.text import counted, escaped, flat, one_line, preview
from ..qc.commands import Thresholds
from ..qc.measures import UNREADABLE
from ..qc.mouth_and_voice import quick_sync
from .sheet import Sheet, contact_sheet
from .signals import Lane, Line, frames_json, gaps_of, lanes_json, loudness_of_patches, loudness_of_sound

if TYPE_CHECKING:
    from ..qc.sync import Incomparable, Offset
    from .systems import System
    from .truth import Truth, TruthOf

_LETTERS = re.compile(r"[^A-Za-z0-9._-]+")
_NAME_LETTERS, _HASH_LETTERS, _WARNING_LETTERS = 60, 8, 200
_OWN_ASSETS = ("report.css", "table.js", "plots.js")


@dataclass(frozen=True)
class ReportRequest:
    """What `avfuse report` is asked to do; `systems` are opened already, `runs` are the folders that they came from."""

    store: FeatureStore
    out: Path
    trials: tuple[str, ...]
    videos: Path | None = None
    copy_videos: bool = False
    crops: bool = True
    truth: Truth | None = None
    systems: Sequence[System] = ()
    runs_page: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class _ReportedTrial:
    """What is read of one trial on the way to its page: what could not be read goes to its `problems`."""

    trial: Trial
    state: TrialState
    slug: str
    video: Path | None = None
    info: VideoInfo | None = None
    problems: list[str] = field(default_factory=list)
    lanes: list[Lane] = field(default_factory=list)
    scores: list[list[tuple[float | None, str]]] = field(default_factory=list)
    frames: dict[str, Any] | None = None
    sheet: Sheet | None = None
    sync: Offset | Incomparable | None = None


def write_report(request: ReportRequest, folder: Path, tell: Callable[[str], None]) -> list[str]:
    """Write all pages below `folder`, which then becomes `request.out`; returns the trials that cannot be read.

    Raises ValueError where `videos` is not a folder; OSError where the disk is full, or a video cannot be copied.
    """
    store, names = request.store, set(request.trials)
    summary = summarise(store)
    states = [state for state in trial_states(store, summary["features"]) if state.trial in names]
    videos = {} if request.videos is None else videos_by_name(request.videos)
    pages = templates()
    about: dict[str, Any] = {
        "made": made(store=store.path),
        "untrained": sorted({*summary["untrained"], *_learned(request)}),
    }
    about |= {"has_runs": bool(request.systems)}
    (folder / "trials").mkdir()
    (folder / "assets").mkdir()
    shutil.copyfile(str(files("plotly") / "package_data" / "plotly.min.js"), folder / "assets" / "plotly.min.js")
    for name in _OWN_ASSETS:
        shutil.copyfile(Path(__file__).with_name("templates") / name, folder / "assets" / name)
    slugs = [_slug(state.trial) for state in states]
    rows, broken, without = [], [], []
    lacking: dict[str, list[str]] = {}
    for number in shown(range(len(states)), "report"):
        found = _ReportedTrial(store[states[number].trial], states[number], slugs[number])
        try:
            with found.trial.unchanged():
                _read_trial(request, found, videos)
        except UNREADABLE as error:
            found.problems.append(f"cannot be read: {one_line(error)}; `avfuse verify` says how to fix it")
            broken.append(found.trial.name)
        if request.videos is not None and found.video is None:
            without.append(found.trial.name)
        for system in request.systems:
            if missing := system.lacks(found.trial):
                lacking.setdefault(f"{system.name}: it takes {', '.join(missing)}", []).append(found.trial.name)
        around = [slugs[at] if 0 <= at < len(slugs) else "" for at in (number - 1, number + 1)]
        content = _trial_content(request, found, folder) | {"before": around[0], "after": around[1]}
        _write(folder / "trials" / f"{found.slug}.html", pages.get_template("trial.html").render(content, **about))
        rows.append(_index_row(found))
        for problem in found.problems:
            tell(f"note: {found.trial.name}: {problem}")
    if without:
        tell(f"note: {request.videos} does not have the video of {preview(without)}")
    for what, trials in lacking.items():
        tell(f"note: nothing is predicted by {what}, which {counted(len(trials), 'trial')} lack: {preview(trials)}")
    whole = {"rows": rows, "summary": summary, "systems": _columns(request), "chosen": len(states)}
    _write(folder / "index.html", pages.get_template("index.html").render(whole, **about))
    if request.systems:
        _write(folder / "runs.html", pages.get_template("runs.html").render(request.runs_page, **about))
    return broken


def templates() -> jinja2.Environment:
    """The pages' templates: whatever a name holds is escaped, and what is missing is an error."""
    pages = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters["plain"] = flat
    return pages


def _read_trial(request: ReportRequest, found: _ReportedTrial, videos: Mapping[str, Sequence[Path]]) -> None:
    """Everything that a trial's page shows, read from store, video and runs; what cannot be read is a problem."""
    trial = found.trial
    found.video = find_video(trial.name, trial.attributes, videos)
    is_own = True
    if found.video is not None:
        if why := why_other_file(found.video, trial.attributes):
            is_own = False
            found.problems.append(why)
        try:
            found.info = probe(found.video, Choice.recorded(trial.attributes))
        except MediaError as error:
            found.problems.append(f"the video cannot be read: {one_line(error)}")
    if TIME not in trial or not trial.rows:
        found.problems.append("has no times of frames: there is nothing to draw")
        return
    time_s = trial.time_s
    scores = trial.read(FACE_SCORE) if FACE_SCORE in trial else None
    boxes = trial.read("face_box") if "face_box" in trial else None
    found.frames = frames_json(time_s, boxes, scores, trial.attributes.get("video_start_s"))
    if scores is not None:
        seen = np.where(scores > 0, scores, np.nan)
        face = Line("face score", "signal", time_s, seen)
        found.lanes.append(Lane("Face score", 0.0, 1.0, (face,), gaps_of(scores > 0, time_s), "no face"))
    if (loudness := _loudness(found, time_s)) is not None:
        line = Line("loudness", "signal", time_s, loudness)
        there = np.isfinite(loudness)
        low, high = (float(np.nanmin(loudness)), float(np.nanmax(loudness))) if there.any() else (-80.0, 0.0)
        found.lanes.append(Lane("Loudness, dB", low - 3, high + 3, (line,), gaps_of(there, time_s), "no sound"))
    found.lanes += _prediction_lanes(request, found)
    if request.crops and scores is not None:
        try:
            organisers = read_inputs(request.store.files).aligned
            aligned = Path(organisers) if organisers else None
            found.sheet = contact_sheet(trial, time_s, scores > 0, found.info, aligned)
        except MediaError as error:
            found.problems.append(f"no faces could be cut out of the video: {one_line(error)}")
    try:
        found.sync = quick_sync(trial, found.info if request.crops and is_own else None, found.problems)
    except MediaError as error:
        found.problems.append(f"its sound could not be compared with the picture: {one_line(error)}")


def _loudness(found: _ReportedTrial, time_s: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Loudness from the video's sound, if the rows are from it too, else from stored log-mel patches, else None."""
    own = not any("audio_file" in entry for entry in found.trial.entries.values())  # extract --audio
    if own and found.info is not None and found.info.audio_stream is not None:
        try:
            return loudness_of_sound(found.info, time_s)
        except MediaError as error:
            found.problems.append(f"the sound cannot be read: {one_line(error)}")
    return loudness_of_patches(found.trial) if "logmel" in found.trial else None


def _prediction_lanes(request: ReportRequest, found: _ReportedTrial) -> list[Lane]:
    """A lane for each thing that is labelled or predicted: its labels, and a line for each system."""
    lanes: dict[str, tuple[tuple[float, float], list[Line]]] = {}

    def draw(column: str, limits: tuple[float, float], line: Line) -> None:
        lanes.setdefault(column, (limits, []))[1].append(line)

    def label(names: Sequence[str], limits: tuple[float, float], truth: TruthOf, values: NDArray[Any]) -> None:
        for at, column in enumerate(names):
            if not any(line.kind == "truth" for line in lanes.get(column, (limits, []))[1]):
                known = np.where(truth.labelled, values[:, at], np.nan)
                draw(column, limits, Line("label", "truth", truth.time_s, known))

    def labels_of(of: Truth | None) -> TruthOf | None:
        try:
            return None if of is None else of.of(found.trial)
        except StoreMismatch:
            raise
        except ValueError as error:
            found.problems.append(f"its labels cannot be used: {one_line(error)}")
            return None

    truth = labels_of(None if request.systems else request.truth)
    if truth is not None and request.truth is not None and request.truth.corpus.kind.values == "real":
        kind = request.truth.corpus.kind
        label(kind.names, (kind.lowest, kind.highest), truth, truth.labels)
    for number, system in enumerate(request.systems):
        task, own = system.task, labels_of(system.truth)
        if own is not None:
            label(task.columns, task.limits, own, task.targets(own.labels))
        said = system.say(found.trial, own)
        scores, how = (said.scores, said.how) if said else ({}, "")
        found.scores.append([(scores.get(score.key), how) for score in task.tabled])
        if said is not None:
            time_s = found.trial.time_s if own is None else own.time_s
            for at, column in enumerate(task.columns):
                draw(column, task.limits, Line(f"{system.name} ({how})", "run", time_s, said.values[:, at], number))
    order = [name for name in VA.names if name in lanes] + [name for name in lanes if name not in VA.names]
    return [Lane(column[:1].upper() + column[1:], *lanes[column][0], tuple(lanes[column][1])) for column in order]


def _trial_content(request: ReportRequest, found: _ReportedTrial, folder: Path) -> dict[str, Any]:
    """What the template of a trial's page is given; writes its picture of faces, and copies its video."""
    trial, slug = found.trial, found.slug
    data: dict[str, Any] = {"lanes": lanes_json(found.lanes), "frames": found.frames, "video": None}
    video: dict[str, Any] | None = None
    if found.video is not None:
        link = quote(os.fsencode(os.path.relpath(found.video.absolute(), (request.out / "trials").absolute())))
        if request.copy_videos:
            (folder / "videos").mkdir(exist_ok=True)
            copied = f"{slug}{found.video.suffix.lower()}"
            shutil.copyfile(found.video, folder / "videos" / copied)
            link = f"../videos/{copied}"
        video = {"link": link, "name": found.video.name}
    if found.info is not None:
        data["video"] = {"width_px": found.info.width_px, "height_px": found.info.height_px}
    tiles = []
    if found.sheet is not None:
        if found.sheet.faces:
            found.sheet.write(folder / "trials" / f"{slug}.jpg")
        tiles = [{"tile": tile, "x": tile.at[0], "y": tile.at[1]} for tile in found.sheet.tiles]
    entries = [
        {"name": name, "made_from": entry.get("made_from", ""), "rest": _flattened(entry)}
        for name, entry in trial.entries.items()
    ]
    skipped = ("checksums", "features", "warnings", "complete", "coordinates")
    attributes = {name: value for name, value in trial.attributes.items() if name not in skipped}
    return {
        "name": trial.name,
        "slug": slug,
        "facts": _facts(found),
        "warnings": [*found.state.warnings, *found.problems],
        "video": video,
        "data": data,
        "drawn": bool(found.lanes),
        "tiles": tiles,
        "sheet": found.sheet,
        "entries": entries,
        "attributes": _flattened(attributes),
    }


def _facts(found: _ReportedTrial) -> list[tuple[str, str]]:
    """What stands at the head of a trial's page, in words."""
    state, attributes = found.state, found.trial.attributes
    picture, sound = (attributes.get(key) for key in ("video_start_s", "audio_start_s"))
    offset_s = sound - picture if isinstance(sound, float | int) and isinstance(picture, float | int) else None
    audio = str(attributes.get("audio", "not known"))
    rate_hz = _rate_hz(attributes)
    rate = "not known" if rate_hz is None else f"{rate_hz:.5g} frames/s"
    share = "" if state.sound is None else f", {state.sound:.1%} of the rows"
    rows = [
        ("Frames", str(attributes.get("frames_decoded", state.rows))),
        ("Rows", str(state.rows)),
        ("Length", "not known" if state.length_s is None else f"{state.length_s:.2f} s"),
        ("Rate", f"{rate}{', variable' if attributes.get('vfr') else ''}"),
        ("Faces", "not looked for" if state.faces is None else f"in {state.faces:.1%} of the rows"),
        (
            "Longest gap without a face",
            "–" if state.face_gap_s is None else f"{state.face_gap_s:.2f} s" if state.face_gap_s else "none",
        ),
        ("Sound", f"{audio}{share if audio == 'present' else ''}"),
        ("Sound starts", "–" if offset_s is None else f"{offset_s:+.3f} s from the picture"),
        ("Offset of the sound", "not compared" if found.sync is None else found.sync.in_words()),
        ("Source", str(_source(found.trial).get("name", "not recorded"))),
    ]
    return [*rows, ("Cut short", "decoding ended in an error")] if attributes.get("truncated") else rows


def _index_row(found: _ReportedTrial) -> dict[str, Any]:
    """A trial's line of the index: numbers to sort by, None where something is not known."""
    state, attributes = found.state, found.trial.attributes
    starts = [attributes.get(key) for key in ("video_start_s", "audio_start_s")]
    numbers = [float(each) for each in starts if isinstance(each, int | float)]
    warnings = [*state.warnings, *found.problems]
    late_s = None if found.sync is None else found.sync.late_s
    is_late = late_s is not None and abs(late_s) > Thresholds().max_offset
    has_sound = attributes.get("audio") == "present"
    # What can be searched for beside the name and the warnings.
    words = {
        "vfr": attributes.get("vfr"),
        "no sound": not has_sound,
        "cut short": attributes.get("truncated"),
        "out of sync": is_late,
    }
    return {
        "name": state.trial,
        "slug": found.slug,
        "frames": attributes.get("frames_decoded", state.rows),
        "length_s": state.length_s,
        "rate_hz": _rate_hz(attributes),
        "vfr": bool(attributes.get("vfr")),
        "faces": state.faces,
        "gap_s": state.face_gap_s,
        "audio": has_sound,
        "sound": state.sound,
        "starts_s": numbers[1] - numbers[0] if len(numbers) == 2 else None,
        "sync": found.sync,
        "late": is_late,
        "words": " ".join(word for word, is_so in words.items() if is_so),
        "warnings": len(warnings),
        "said": "; ".join(warnings)[:_WARNING_LETTERS],
        "scores": [score for of_system in found.scores for score in of_system],
    }


def _rate_hz(attributes: Mapping[str, Any]) -> float | None:
    try:
        return float(Fraction(str(attributes.get("fps"))))
    except (ValueError, ZeroDivisionError):
        return None  # not recorded


def _columns(request: ReportRequest) -> list[dict[str, Any]]:
    """The systems, and over which scores of theirs the index has columns."""
    return [
        {"name": system.name, "scores": [score.short for score in system.task.tabled]} for system in request.systems
    ]


def _learned(request: ReportRequest) -> list[str]:
    return [name for system in request.systems for name in system.untrained]


def _slug(name: str) -> str:
    """A file name for a trial's pages that any system takes, the same in every report."""
    short = _LETTERS.sub("-", name).strip("-.")[:_NAME_LETTERS]
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:_HASH_LETTERS]
    return f"{short}-{digest}" if short else digest


def _flattened(values: Mapping[str, Any], above: str = "") -> list[tuple[str, str]]:
    """Names and values of nested settings, a line each: `weights.sha256`."""
    lines: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{above}.{key}" if above else str(key)
        if isinstance(value, dict):
            lines += _flattened(value, name)
        else:
            lines.append(
                (
                    name,
                    "none" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value),
                )
            )
    return lines


def _write(path: Path, text: str) -> None:
    """Write a page; whatever a name holds, no control character is left in it but line breaks."""
    replace_file(path, "\n".join(map(escaped, text.split("\n"))).encode("utf-8", "replace"))


def _source(trial: Trial) -> Mapping[str, Any]:
    """What a trial records of its video file; empty where it does not."""
    source = trial.attributes.get("source")
    return source if isinstance(source, dict) else {}
