"""Decode thousands of broken files and say what came of each: `python tests/faults/zoo/soak.py --files 3000`.

Each ends as done or as one MediaError (file, stage, one line). Anything else is in `crashes`, with the file kept in
--keep. The summary on stdout is JSON, with the largest memory of this process and of any ffmpeg.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from bombs import bombs, many_large_streams
from mutations import mutant
from seeds import BASES, CLIPS, generated, real

from avfuse.pipeline.media.probe import probe
from avfuse.pipeline.media.readers import AudioReader, FrameReader
from avfuse.pipeline.media.types import MediaError, VideoInfo

STALL_S = 20.0
MARGIN_S = 3.0


# A file's name and content, made when it is wanted: hundreds of them would fill the memory that is measured.
Maker = Callable[[], tuple[str, bytes]]


@dataclass(frozen=True)
class Verdict:
    """What a file gave: its rows, or the stage and the reason of its one failure."""

    name: str
    rows: int
    stage: str
    reason: str
    seconds: float


def judge(path: Path) -> Verdict:
    """Decode a file to its end, as extraction does."""
    began_s = time.monotonic()
    try:
        info = probe(path)
        rows, last_s = picture(info)
        if info.audio_stream is not None:
            sound(info, last_s)
        stage = reason = ""
    except MediaError as error:
        rows, stage, reason = 0, error.stage, error.words
        if error.path != str(path) or not reason or len(reason.splitlines()) != 1:
            raise AssertionError(f"no one-line reason with the file in it: {error!r}") from error
    return Verdict(path.name, rows, stage, reason, time.monotonic() - began_s)


def picture(info: VideoInfo) -> tuple[int, float]:
    """Rows and the last one's time; times must rise and the size must stay."""
    rows, last_s = 0, -np.inf
    with FrameReader(info, stall_timeout_s=STALL_S) as frames:
        for batch in frames:
            assert batch.pixels.shape[1:] == (info.height_px, info.width_px, 3)
            assert np.isfinite(batch.time_s).all()
            assert (np.diff(batch.time_s, prepend=last_s) > 0).all(), "times do not rise"
            rows, last_s = rows + len(batch.time_s), float(batch.time_s[-1])
    assert isinstance(frames.ending.truncated, bool)
    return rows, last_s


def sound(info: VideoInfo, last_s: float) -> None:
    """Sound as far as there are rows; a sound that does not decode is no failure of the file."""
    heard = 0
    with AudioReader(info, until_s=last_s + MARGIN_S, stall_timeout_s=STALL_S) as audio:
        try:
            for block in audio:
                assert np.isfinite(block).all()
                heard += len(block)
            spans = audio.real_spans()
        except MediaError as error:
            if error.stage == "audio":
                return
            raise
    assert all(0 <= begin < end for begin, end in spans)
    assert not spans or spans[-1][1] * 16_000 <= heard + 0.5


def try_all(makers: list[Maker], folder: Path, keep: Path | None) -> tuple[list[Verdict], list[str]]:
    """Verdicts, and the tracebacks of what should never have happened."""
    verdicts, crashes = [], []
    with ThreadPoolExecutor(2) as pool:
        for make, future in [(make, pool.submit(written, folder, make)) for make in makers]:
            if (error := future.exception()) is None:
                verdicts.append(future.result())
                continue
            name, data = make()
            crashes.append(f"{name}: {''.join(traceback.format_exception(error))}")
            if keep:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / name).write_bytes(data)
    return verdicts, crashes


def written(folder: Path, make: Maker) -> Verdict:
    name, data = make()
    path = folder / name
    path.write_bytes(data)
    del data
    verdict = judge(path)
    path.unlink()
    return verdict


def peak_mib() -> dict[str, float]:
    """Largest memory so far, MiB: of this process, and of the largest of its children.

    Not `ru_maxrss` for this one: that begins with the memory of the process that started it.
    """
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {"self": int(status["VmHWM"].split()[0]) / 1024, "child": children / 1024}


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--files", type=int, default=300, help="so many with the bombs; 0: the bombs alone")
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--minutes", type=float, help="go on with further seeds for so long")
    words.add_argument("--media", type=Path, help="folder of real clips")
    words.add_argument("--keep", type=Path, help="where to keep files that crash")
    words.add_argument("--only-mutants", action="store_true", help="no bombs")
    words.add_argument("--few-clips", action="store_true", help="mutants of those clips alone that bombs are made of")
    words.add_argument("--bombs", help="of the bombs, only these, with commas between them")
    words.add_argument("--write", type=Path, help="only write the files, into this folder")
    given = words.parse_args()
    with tempfile.TemporaryDirectory(prefix="avfuse-zoo-") as name:
        return run(given, Path(name))


def run(given: argparse.Namespace, folder: Path) -> int:
    clips = generated(folder / "clips", CLIPS if given.files and not given.few_clips else BASES)
    hand_made = {} if given.only_mutants else bombs(clips, folder / "bombs")
    if given.bombs:
        hand_made = {f"bomb_{name}": hand_made[f"bomb_{name}"] for name in given.bombs.split(",")}
    if given.minutes:
        hand_made["bomb_streams_4k.mp4"] = many_large_streams(folder / "bombs")
    if given.media and given.files:
        clips |= real(given.media, folder / "real", most=8)
    makers: list[Maker] = [partial(lambda made: made, item) for item in hand_made.items()]
    makers += [partial(mutant, clips, given.seed, number) for number in range(max(0, given.files - len(hand_made)))]
    if given.write:
        given.write.mkdir(parents=True, exist_ok=True)
        for name, data in (make() for make in makers):
            (given.write / name).write_bytes(data)
        return 0
    began_s = time.monotonic()
    verdicts, crashes = try_all(makers, folder, given.keep)
    while given.minutes and time.monotonic() - began_s < given.minutes * 60:
        given.seed += 1
        more: list[Maker] = [partial(mutant, clips, given.seed, number) for number in range(given.files)]
        more_verdicts, more_crashes = try_all(more, folder, given.keep)
        verdicts += more_verdicts
        crashes += more_crashes
        print(f"seed {given.seed}: {len(verdicts)} files, {len(crashes)} crashes", file=sys.stderr, flush=True)
    print(json.dumps(summary(verdicts, crashes, time.monotonic() - began_s), indent=1))
    return 1 if crashes else 0


def summary(verdicts: list[Verdict], crashes: list[str], seconds: float) -> dict[str, object]:
    slow = sorted(verdicts, key=lambda verdict: -verdict.seconds)[:5]
    return {
        "files": len(verdicts) + len(crashes),
        "done": sum(not verdict.reason for verdict in verdicts),
        "failed": dict(Counter(verdict.stage for verdict in verdicts if verdict.reason)),
        "crashes": crashes,
        "seconds": round(seconds, 1),
        "slowest": {verdict.name: round(verdict.seconds, 1) for verdict in slow},
        "peak_mib": peak_mib(),
        "bombs": {v.name: v.reason or f"{v.rows} rows" for v in verdicts if v.name.startswith("bomb_")},
    }


if __name__ == "__main__":
    sys.exit(main())
