"""How fast each stage is alone on one video, and all of them together.

    decode   frames out of ffmpeg                     embed    the faces and patches of those frames, networks alone
    detect   faces found, followed and cut out        write    the trial's arrays into a store
    sound    log-mel patches at the frames' times     end to end   `extract` on the same video, stages overlapped

Tested by tests/pipeline/diagnose/test_bench.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...encoders.table import CROP_PX, DEFAULT_FEATURES, of_stream
from ...encoders.views import Patches
from ...features_store.store import FeatureStore
from ..audio.logmel import patches
from ..extraction.jobs import Job
from ..extraction.session import Session
from ..extraction.video import extract_video
from ..extraction.visual import detected_faces
from ..media.ffmpeg_args import to_cut
from ..media.probe import probe
from ..media.process import ask
from ..media.readers import AudioReader, FrameReader
from ..media.types import FrameBatch

_FRAMES_IN_MEMORY_BYTES = 1 << 30
_PATCHES_AT_ONCE = 64


@dataclass(frozen=True)
class StageSpeed:
    """A stage's name and its speed alone, video frames/s."""

    stage: str
    frames_per_s: float


@dataclass(frozen=True)
class Speeds:
    """What was measured on a video of `frames` frames: each stage alone, then `end_to_end`; video frames/s."""

    frames: int
    stages: tuple[StageSpeed, ...]
    end_to_end: float
    on_gpu: bool

    @property
    def bound(self) -> float:
        """What the stages allow, frames/s: on a GPU the slowest one's speed, on shared cores that of their sum."""
        times = [1 / stage.frames_per_s for stage in self.stages]
        return 1 / (max(times) if self.on_gpu else sum(times))

    @property
    def limit(self) -> StageSpeed:
        """The slowest stage."""
        return min(self.stages, key=lambda stage: stage.frames_per_s)


def beginning_of(video: Path, seconds: float, folder: Path) -> Path:
    """A copy of a video's first seconds with its packets as they are, or the video itself if it is no longer.

    Raises MediaError.
    """
    info = probe(video)
    if info.duration_s is not None and info.duration_s <= seconds:
        return video
    cut = folder / f"beginning{video.suffix}"
    ask(to_cut(info, seconds, str(cut)), str(video))
    return cut


def measure(video: Path, session: Session, store: FeatureStore) -> Speeds:
    """Every stage alone, one after the other, then `extract_video` into the store. Raises MediaError."""
    info = probe(video)
    job = Job(video, video.name, "bench", session.config.face, video.stat().st_size)
    extract_video(job, store, session, lambda *_: None)  # warm: files cached, memory taken, kernels chosen

    began_s = time.perf_counter()
    with FrameReader(info) as reader:
        times_s = np.concatenate([batch.time_s for batch in reader])
    frames = len(times_s)
    stages = [StageSpeed("decode", frames / (time.perf_counter() - began_s))]

    # Faces are looked for in the first frames, as many as may be in memory.
    batches: list[FrameBatch] = []
    with FrameReader(info) as reader:
        for batch in reader:
            batches.append(batch)
            if sum(each.pixels.nbytes for each in batches) > _FRAMES_IN_MEMORY_BYTES:
                break
    searched = sum(len(batch.time_s) for batch in batches)
    began_s = time.perf_counter()
    crops = [group[0].views[CROP_PX] for group in detected_faces(batches, info, session.config.face, session)]
    stages.append(StageSpeed("detect", searched / (time.perf_counter() - began_s)))

    blocks: list[Patches] = []
    if info.audio_stream is not None:
        began_s = time.perf_counter()
        with AudioReader(info) as audio:
            found = patches(audio, times_s, session.config.audio_align, _PATCHES_AT_ONCE)
            blocks = list(found)
        if blocks:
            stages.append(StageSpeed("sound", frames / (time.perf_counter() - began_s)))

    # A frame's face goes through one network, its patch through the others.
    face_s = _embedding_s(session, "iresnet50", crops) / searched
    voices = of_stream(DEFAULT_FEATURES, "audio")
    voice_s = sum(_embedding_s(session, name, blocks) for name in voices) / frames
    stages.append(StageSpeed("embed", 1 / (face_s + voice_s)))

    # The trial that has been extracted is written once more.
    trial = store["bench"]
    arrays = {name: trial.read(name) for name in trial}
    began_s = time.perf_counter()
    store.write("bench", arrays, trial.attributes)
    stages.append(StageSpeed("write", frames / (time.perf_counter() - began_s)))

    began_s = time.perf_counter()
    extract_video(job, store, session, lambda *_: None)
    return Speeds(frames, tuple(stages), frames / (time.perf_counter() - began_s), session.networks.on_gpu)


def _embedding_s(session: Session, name: str, batches: Sequence[NDArray[np.uint8] | Patches]) -> float:
    """Seconds that a feature's network takes for these batches."""
    began_s = time.perf_counter()
    futures = [future for batch in batches for future in session.networks.engine.submit(name, batch)]
    for future in futures:
        future.result()
    return time.perf_counter() - began_s


def speed_lines(speeds: Speeds) -> Iterator[str]:
    """The table, and what limits the speed."""
    total = sum(1 / stage.frames_per_s for stage in speeds.stages)
    for stage in speeds.stages:
        yield f"{stage.stage:11}{stage.frames_per_s:10.1f} frames/s  {1 / stage.frames_per_s / total:5.0%} of the work"
    yield f"{'end to end':11}{speeds.end_to_end:10.1f} frames/s"
    rule = "the slowest stage alone" if speeds.on_gpu else "the stages one after the other"
    yield f"limited by {speeds.limit.stage}; end to end is {speeds.end_to_end / speeds.bound:.2f} of {rule}"
