"""Clips with random faults of their clocks, and what is right for each.

    python tests/pipeline/media/sweep.py --clips 200

    true clock    flash and click at one moment            the picture's stamps are right, but for outliers
    sound         drifts, has a gap, begins late           its samples are cut and stretched accordingly
    stamps        true time of the packet + jitter         U(0, J), never falling, as recorders write them

A summary is printed; the exit code is 1 where a clip falls short.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from avfuse.pipeline.audio.logmel import patch_valid
from avfuse.pipeline.media.probe import probe
from avfuse.pipeline.media.readers import AudioReader, FrameReader

# Codecs, and the tick in which a bitstream filter counts (its own `TB` is that of the file it came from).
CONTAINERS = {
    "mkv": ("mpeg4", "aac", "0.001"),
    "mp4": ("mpeg4", "aac", "TB"),
    "ts": ("mpeg2video", "mp2", "(1/90000)"),
    "flv": ("flv1", "aac", "0.001"),
    "webm": ("libvpx", "libvorbis", "0.001"),
}
SECONDS = 14
CLICK_S = 0.005
CLICK_AT_S = (1.0, 2.4, 4.8, 7.2, 9.6, 12.0)
TOLERANCE_S = 0.012


@dataclass(frozen=True)
class Recipe:
    """One combination of faults; times in s."""

    number: int
    container: str
    fps: int
    rate_hz: int
    jitter_s: float
    drift: float
    late_s: float
    gap_at_s: float
    gap_s: float
    outliers: tuple[int, ...]
    ahead_s: float
    sound_outlier: bool
    joined: bool


@dataclass
class Finding:
    """What a clip gave: faults in words, empty where it is right."""

    recipe: Recipe
    faults: list[str] = field(default_factory=list)
    apart_s: float = 0.0


def recipes(seed: int, clips: int) -> list[Recipe]:
    """Random combinations; each fault is in about half of them."""
    rng = np.random.default_rng(seed)

    def maybe(value, share=0.5):
        return value if rng.random() < share else type(value)()

    made = []
    for number in range(clips):
        container = list(CONTAINERS)[number % len(CONTAINERS)]
        fps = int(rng.choice([10, 15, 20, 25]))
        rates = [16_000, 32_000, 44_100, 48_000] if container == "ts" else [16_000, 22_050, 44_100, 48_000]
        outliers = tuple(sorted(int(each) for each in rng.choice(np.arange(20, SECONDS * fps - 20), 3, replace=False)))
        joined = container == "ts" and bool(rng.random() < 0.5)
        made.append(
            Recipe(
                number,
                container,
                fps,
                int(rng.choice([22_050, 44_100] if container == "flv" else rates)),
                maybe(float(rng.uniform(0, 0.06))),
                0.0 if joined else maybe(float(rng.uniform(-0.01, 0.01))),
                maybe(float(rng.uniform(0, 0.8))),
                float(rng.uniform(5.2, 6.4)),
                maybe(float(rng.uniform(0.15, 0.7))),
                maybe(outliers if container in ("mkv", "mp4") else ()),
                float(rng.choice([0.3, 3.0, 20.0, 7200.0])),
                bool(rng.random() < 0.3) and container in ("mkv", "mp4"),
                joined,
            )
        )
    return made


def run(*words) -> None:
    """ffmpeg, quietly."""
    command = ["ffmpeg", "-nostdin", "-hide_banner", "-loglevel", "error", "-y", *map(str, words)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.decode())


def make(recipe: Recipe, folder: Path) -> tuple[Path, float]:
    """Write the clip; returns it and the mean of its jitter, s."""
    video, audio, tick = CONTAINERS[recipe.container]
    count = SECONDS * recipe.fps
    frames = np.full((count, 32, 32), 16, np.uint8)
    frames[[round(at * recipe.fps) for at in CLICK_AT_S]] = 235
    # Where the true clock's moments lie in what the drifting device sampled.
    length = round((SECONDS - recipe.late_s - recipe.gap_s) / (1 + recipe.drift) * recipe.rate_hz)
    samples = np.zeros(length)
    for moment_s in CLICK_AT_S:
        at_s = moment_s - recipe.late_s - (recipe.gap_s if moment_s > recipe.gap_at_s else 0)
        centre = at_s / (1 + recipe.drift) * recipe.rate_hz
        at = np.arange(int(centre - 0.003 * recipe.rate_hz), int(centre + 0.003 * recipe.rate_hz))
        off_s = (at - centre) / recipe.rate_hz
        shape = np.where(np.abs(off_s) < CLICK_S / 2, np.cos(np.pi * off_s / CLICK_S) ** 2, 0)
        samples[at] = 0.8 * np.cos(2 * np.pi * 2000 * off_s) * shape
    raw, plain, out = folder / "a.raw", folder / "a.nut", folder / f"{recipe.number:03}.{recipe.container}"
    (folder / "a.gray").write_bytes(frames.tobytes())
    raw.write_bytes((samples * 32767).astype("<i2").tobytes())
    picture = ["-f", "rawvideo", "-pix_fmt", "gray", "-s", "32x32", "-r", recipe.fps, "-i", folder / "a.gray"]
    sound = ["-f", "s16le", "-ar", recipe.rate_hz, "-ac", 1, "-i", raw]
    run(*picture, *sound, "-c:v", video, "-g", recipe.fps, "-bf", 0, "-c:a", audio, "-b:a", "64k", plain)
    stamps_s = packet_times_s(plain)
    true_s = recipe.late_s + stamps_s * (1 + recipe.drift)
    true_s += np.where(true_s >= recipe.gap_at_s, recipe.gap_s, 0)
    stamped_s = np.maximum.accumulate(true_s + jitter_s(recipe, len(true_s)))
    # The same in ffmpeg's words; what follows is each packet of the sound with its own time.
    moved = f"({recipe.late_s}+PTS*{tick}*{1 + recipe.drift})"
    moved = f"({moved}+gte({moved},{recipe.gap_at_s})*{recipe.gap_s}+{_unit(recipe)}*{recipe.jitter_s})"
    stamps = f"max({moved}/{tick},if(N,PREV_OUTDTS+1,-1e9))"
    words = ["-bsf:a", f"setts=ts='{stamps}'"]
    if recipe.sound_outlier:
        words = ["-bsf:a", f"setts=dts='{stamps}':pts='{stamps}+eq(N,70)*{recipe.ahead_s}/{tick}'"]
    if recipe.outliers:
        outliers = "+".join(f"eq(N,{row})" for row in recipe.outliers)
        words += ["-bsf:v", f"setts=pts='PTS+({outliers})*{recipe.ahead_s}/{tick}':dts=DTS"]
    if recipe.container == "ts":
        words += ["-pes_payload_size", "0"]
    run("-i", plain, "-map", 0, "-c", "copy", *words, "-max_interleave_delta", 0, out)
    if recipe.joined:
        out.write_bytes(out.read_bytes() * 2)
    return out, float(np.mean(stamped_s - true_s))


def _unit(recipe: Recipe) -> str:
    return f"abs(mod(sin((N+{recipe.number * 7.5})*12.9898)*43758.5453,1))"


def jitter_s(recipe: Recipe, count: int) -> np.ndarray:
    """What is added to each packet's time, s."""
    return recipe.jitter_s * np.abs(np.fmod(np.sin((np.arange(count) + recipe.number * 7.5) * 12.9898) * 43758.5453, 1))


def packet_times_s(path: Path) -> np.ndarray:
    """PTS of the packets of the sound, s."""
    command = ["ffprobe", "-v", "error", "-select_streams", "a", "-show_entries", "packet=pts_time", "-of", "csv=p=0"]
    said = subprocess.run([*command, path], capture_output=True, text=True, check=True).stdout
    return np.array([float(each.rstrip(",")) for each in said.split()])


def check(recipe: Recipe, folder: Path) -> Finding:
    """Make a clip, read it as `extract` does, and say where it falls short."""
    path, mean_s = make(recipe, folder)
    info = probe(path)
    with FrameReader(info, stall_timeout_s=30) as frames:
        batches = list(frames)
    with AudioReader(info, stall_timeout_s=30) as audio:
        samples = np.concatenate(list(audio))
    path.unlink()
    time_s = np.concatenate([batch.time_s for batch in batches])
    bright = np.concatenate([batch.pixels.mean(axis=(1, 2, 3)) > 128 for batch in batches])
    parts = 1 + recipe.joined
    finding = Finding(recipe)
    if len(time_s) != parts * SECONDS * recipe.fps:
        finding.faults.append(f"{len(time_s)} rows of {parts * SECONDS * recipe.fps}")
        return finding
    flash_s = time_s[bright & ~np.concatenate([[False], bright[:-1]])]
    loud = np.convolve(np.abs(samples), np.ones(80) / 80, "same")
    at = np.flatnonzero(loud > loud.max() / 2)
    clicks_s = np.array([each.mean() / 16_000 for each in np.split(at, np.flatnonzero(np.diff(at) > 800) + 1)])
    off_s = [min((each - at_s for each in clicks_s), key=abs) for at_s in flash_s]
    finding.apart_s = float(max(map(abs, off_s)))
    if len(flash_s) != parts * len(CLICK_AT_S) or finding.apart_s > TOLERANCE_S + mean_s:
        away = " ".join(f"{1000 * each:.0f}" for each in off_s)
        finding.faults.append(f"clicks {away} ms from {len(flash_s)} flashes, jitter's mean {1000 * mean_s:.0f}")
    steps = np.abs(time_s - time_s[0] - np.arange(len(time_s)) / recipe.fps)[: SECONDS * recipe.fps]
    steps[list(recipe.outliers)] = 0
    if steps.max() > 0.0015 or (np.diff(time_s) <= 0).any():
        finding.faults.append(f"rows off by up to {1000 * steps.max():.1f} ms")
    valid = patch_valid(time_s, "start", audio.real_spans()).sum()
    true = [(recipe.late_s, recipe.gap_at_s), (recipe.gap_at_s + recipe.gap_s, SECONDS)]
    if not recipe.gap_s:
        true = [(recipe.late_s, SECONDS)]
    right = parts * patch_valid(np.arange(SECONDS * recipe.fps) / recipe.fps, "start", true).sum()
    if valid < 0.95 * right:
        finding.faults.append(f"{valid} valid rows of {right}")
    return finding


def main() -> None:
    """The sweep as a program."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, default=None, help="number of one clip")
    given = parser.parse_args()
    short = 0
    with tempfile.TemporaryDirectory() as folder:
        for recipe in recipes(given.seed, given.clips):
            if given.only in (None, recipe.number):
                finding = check(recipe, Path(folder))
                short += bool(finding.faults)
                if finding.faults:
                    print("; ".join(finding.faults), recipe, flush=True)
    print(f"{short} of {given.clips} clips fall short")
    sys.exit(bool(short))


if __name__ == "__main__":
    main()
