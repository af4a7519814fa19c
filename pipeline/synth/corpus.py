"""The planted corpus on disk, in Aff-Wild2's layout; `planted.json` is written last.

    OUT/videos/batch1/video01.mp4 …
    OUT/annotations/VA_Estimation_Challenge/{Train_Set,Validation_Set}/video01.txt …
    OUT/cropped_aligned/video01/00001.jpg …
    OUT/truth/video01.csv …              labels and their parts with nothing masked, what face and voice do
    OUT/planted.json                     beside it planted.json.made.json: command line and version

Tested by tests/pipeline/synth/test_synth.py.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...features_store.interchange.result_files import check_place, made, side_car, write_with_side_car
from ...features_store.labels.kinds import VA
from ..faces.align import align
from .encode import encode
from .face import load_picture
from .filming import Shot, film, record
from .law import Law
from .planning import QUICK_RAD, QUICK_S, SLOW_RAD, SLOW_S, ClipPlan, SynthConfig, plan_corpus

PLANTED = "planted.json"
_MARK = ".avfuse-synth"
_PARTS = ("videos", "annotations", "cropped_aligned", "truth")
_JPEG_QUALITY = 95
Summary = dict[str, Any]


def make_corpus(
    out: Path, config: SynthConfig, *, overwrite: bool = False, on_clip: Callable[[str], object] = lambda name: None
) -> Summary:
    """Make the whole corpus in `out`, clip by clip, and return what `planted.json` holds.

    The same settings give the same labels and frames. `on_clip` is called with the name of each finished video.
    Raises ValueError for a folder that holds something else, or without scikit-image; MediaError.
    """
    picture = load_picture()
    _clear(out, overwrite)
    clips = plan_corpus(config)
    for clip in clips:
        recipe = clip.recipe
        path = out / "videos" / (recipe.video + recipe.suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        folders = [out / "cropped_aligned" / trial.name for trial in clip.trials]
        for folder in folders:
            folder.mkdir(parents=True)
        # `planning.frame_times_s` in ffmpeg's words
        times = f"N*{1 / recipe.fps}+{SLOW_S}*sin({SLOW_RAD}*N)+{QUICK_S}*sin({QUICK_RAD}*N)" if recipe.vfr else ""
        frames = _saving_crops(film(clip, picture), folders)
        encode(path, frames, clip.size_px, recipe.fps, record(clip), times)
        _write_labels(out, clip)
        on_clip(recipe.video + recipe.suffix)
    summary = _summary(config, clips)
    write_with_side_car(out / PLANTED, (json.dumps(summary, indent=1) + "\n").encode(), made())
    return summary


def _clear(out: Path, overwrite: bool) -> None:
    """Make `out` an empty, marked folder. Only what an earlier corpus wrote is ever removed."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is not a folder")
    earlier = (out / _MARK).exists()
    if out.exists() and any(out.iterdir()) and not (earlier and overwrite):
        what = "holds a planted corpus: replace it with --overwrite" if earlier else "is not empty: name a new folder"
        raise ValueError(f"{out} {what}")
    check_place(out)
    for name in (PLANTED, side_car(out / PLANTED).name):
        (out / name).unlink(missing_ok=True)
    for part in _PARTS if earlier else ():
        shutil.rmtree(out / part, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    (out / _MARK).touch()


def _saving_crops(shots: Iterator[Shot], folders: list[Path]) -> Iterator[NDArray[np.uint8]]:
    """The frames on their way to ffmpeg; each person's crop of the frame goes to the person's folder."""
    for number, shot in enumerate(shots, start=1):
        for folder, points in zip(folders, shot.landmarks, strict=True):
            crop = None if points is None else align(shot.pixels, points)
            if crop is not None:
                Image.fromarray(crop).save(folder / f"{number:05d}.jpg", quality=_JPEG_QUALITY)
        yield shot.pixels


def _write_labels(out: Path, clip: ClipPlan) -> None:
    """Each trial's labels as the organiser writes them, and the truth behind them."""
    for trial in clip.trials:
        truth = trial.script.truth(clip.time_s)
        labels = [VA.header]
        for masked, valence, arousal in zip(trial.masked, truth.valence, truth.arousal, strict=True):
            labels.append(f"{VA.masked:g},{VA.masked:g}" if masked else f"{valence:.6f},{arousal:.6f}")
        names = [each.name for each in fields(truth)]
        columns = [getattr(truth, name) for name in names]
        columns += [*trial.script.face(clip.time_s).T, *trial.script.voice(clip.time_s).T]
        parts = [",".join([*names, "mouth", "brow", "effort", "vowel"])]
        parts += [",".join(f"{value:.9f}" for value in row) for row in zip(*columns, strict=True)]
        label_file = out / "annotations" / VA.folder / clip.recipe.label_set / f"{trial.name}.txt"
        for path, lines in ((label_file, labels), (out / "truth" / f"{trial.name}.csv", parts)):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(lines) + "\n", newline="\n")


def _summary(config: SynthConfig, clips: list[ClipPlan]) -> Summary:
    """What `planted.json` holds: the settings, the law, and each trial by its name."""
    trials: dict[str, Summary] = {}
    for clip in clips:
        recipe = clip.recipe
        for trial in clip.trials:
            trials[trial.name] = {
                "video": recipe.video + recipe.suffix,
                "set": recipe.label_set,
                "subject": trial.subject.number,
                "frames": len(clip.time_s),
                "fps": str(recipe.fps),
                "vfr": recipe.vfr,
                "size_px": list(clip.size_px),
                "audio": recipe.audio_late_s is not None,
                "audio_start_s": recipe.audio_late_s,
                "offsets": list(trial.script.offsets),
                "faceless": np.flatnonzero(trial.hidden).tolist(),
                "masked": np.flatnonzero(trial.masked).tolist(),
            }
    law = asdict(Law(lag_s=config.lag_s))
    return {"avfuse_synth": 1, **asdict(config), "law": law, "planted": trials}
