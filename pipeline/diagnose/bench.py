"""How fast each stage is alone on one video, and all of them together.

    decode   frames out of ffmpeg                     embed    the faces and patches of those frames, networks alone
    detect   faces found, followed and cut out        write    the trial's arrays into a store
    sound    log-mel patches at the frames' times     end to end   `extract` on the same video, stages overlapped

Tested by tests/pipeline/diagnose/test_bench.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ...encoders.table import DEFAULT_FEATURES, PATCH_FEATURES
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
from ..media.types import FrameBatch, VideoInfo

_FRAMES_IN_MEMORY_BYTES = 1 << 30
_PATCHES_AT_ONCE = 64
Result = TypeVar("Result")


@dataclass(frozen=True)
class StageSpeed:
    """A stage's name and its speed alone, video frames/s."""

    stage: str
    frames_per_s: float


@dataclass(frozen=True)
class Speeds:
    """What was measured on a video of `frames` frames: each stage alone, then end to end."""

    frames: int
    stages: tuple[StageSpeed, ...]
    end_to_end: float
    on_gpu: bool

    @property
    def bound(self) -> float:
        """What the stages allow, frames/s: on a GPU the slowest one's speed, on shared cores that of their sum."""
        times = [1 / stage.frames_per_s for stage in self.stages]
        return 1 / (max(times) if self.on_gpu else sum(times))

    def share(self, stage: StageSpeed) -> float:
        """A stage's share of the work."""
        return 1 / stage.frames_per_s / sum(1 / each.frames_per_s for each in self.stages)

    @property
    def limit(self) -> StageSpeed:
        """The slowest stage."""
        return min(self.stages, key=lambda stage: stage.frames_per_s)


def beginning_of(video: Path, seconds: float, folder: Path) -> Path:
    """A copy of a video's first seconds (no longer than it is), packets as they are. Raises MediaError."""
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
    times, decode_s = _timed(lambda: _decoded(info))
    batches = _held(info)
    held = sum(len(batch.time_s) for batch in batches)
    crops, detect_s = _timed(lambda: _crops(batches, info, session))
    blocks, sound_s = _timed(lambda: _patches(info, times, session))
    embed_s = _embedding_s(session, crops, held, blocks, len(times))
    stages = [
        StageSpeed("decode", len(times) / decode_s),
        StageSpeed("detect", held / detect_s),
        *([StageSpeed("sound", len(times) / sound_s)] if blocks else []),
        StageSpeed("embed", 1 / embed_s),
        StageSpeed("write", len(times) / _writing_s(store)),
    ]
    _, whole_s = _timed(lambda: extract_video(job, store, session, lambda *_: None))
    return Speeds(len(times), tuple(stages), len(times) / whole_s, session.networks.on_gpu)


def speed_lines(speeds: Speeds) -> Iterator[str]:
    """The table, and what limits."""
    for stage in speeds.stages:
        yield f"{stage.stage:11}{stage.frames_per_s:10.1f} frames/s  {speeds.share(stage):5.0%} of the work"
    yield f"{'end to end':11}{speeds.end_to_end:10.1f} frames/s"
    rule = "the slowest stage alone" if speeds.on_gpu else "the stages one after the other"
    yield f"limited by {speeds.limit.stage}; end to end is {speeds.end_to_end / speeds.bound:.2f} of {rule}"


def _timed(work: Callable[[], Result]) -> tuple[Result, float]:
    began_s = time.perf_counter()
    result = work()
    return result, time.perf_counter() - began_s


def _decoded(info: VideoInfo) -> NDArray[np.float64]:
    with FrameReader(info) as reader:
        return np.concatenate([batch.time_s for batch in reader])


def _held(info: VideoInfo) -> list[FrameBatch]:
    """The first frames, as many as may be in memory."""
    batches: list[FrameBatch] = []
    with FrameReader(info) as reader:
        for batch in reader:
            batches.append(batch)
            if sum(each.pixels.nbytes for each in batches) > _FRAMES_IN_MEMORY_BYTES:
                break
    return batches


def _crops(batches: Sequence[FrameBatch], info: VideoInfo, session: Session) -> list[NDArray[np.uint8]]:
    return [group[0].pixels for group in detected_faces(batches, info, session.config.face, session)]


def _patches(info: VideoInfo, time_s: NDArray[np.float64], session: Session) -> list[NDArray[np.float32]]:
    if info.audio_stream is None:
        return []
    with AudioReader(info) as audio:
        found = patches(audio, time_s, session.config.audio_align, _PATCHES_AT_ONCE)
        return [block.logmel for block in found]


def _embedding_s(
    session: Session, crops: list[NDArray[np.uint8]], held: int, blocks: list[NDArray[np.float32]], frames: int
) -> float:
    """Seconds a frame of the video: its face through one network, its patch through the others."""
    face_s = _through(session, "iresnet50", crops) / held
    voices = [name for name in DEFAULT_FEATURES if name in PATCH_FEATURES]
    return face_s + sum(_through(session, name, blocks) for name in voices) / frames


def _through(session: Session, name: str, batches: Sequence[NDArray[np.uint8] | NDArray[np.float32]]) -> float:
    def embed() -> None:
        futures = [future for batch in batches for future in session.networks.engine.submit(name, batch)]
        for future in futures:
            future.result()

    return _timed(embed)[1]


def _writing_s(store: FeatureStore) -> float:
    """Seconds to write the trial that is there once more."""
    trial = store["bench"]
    arrays = {name: trial.read(name) for name in trial}
    return _timed(lambda: store.write("bench", arrays, trial.attributes))[1]
