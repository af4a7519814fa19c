"""`avfuse extract` against the naive stack, end to end, taking turns on the same clips.

    python benchmarks/extract_speed.py CLIP ... [--rounds 3] [--precisions fp32,bf16] [--seconds 6]

Each turn is a process of its own; networks are loaded before the clock starts on both sides. `--seconds` cuts the
clips first (the naive stack takes minutes). Prints frames/s, the ratios of each round, and how far the rows agree:
cosines of embeddings on frames whose boxes agree within 0.5 px.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from measure import avfuse, machine

from avfuse.features_store.store import FeatureStore

SAME_BOX_PX = 0.5


def cut(clip: Path, seconds: float, folder: Path) -> Path:
    """The clip's first seconds, encoded anew so that both sides read the same frames; alone in a folder."""
    target = folder / clip.stem / f"{clip.stem}.mp4"
    target.parent.mkdir()
    words = ["-t", str(seconds), "-c:v", "libx264", "-crf", "18", "-c:a", "aac"]
    subprocess.run(["ffmpeg", "-v", "error", "-i", str(clip), *words, str(target)], check=True)
    return target


def printed(command: list[str]) -> dict[str, Any]:
    """The JSON that a command prints last."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def naive(clip: Path, out: Path) -> float:
    """Frames/s of the naive stack."""
    found = printed([sys.executable, str(Path(__file__).parent / "naive_stack.py"), str(clip), str(out)])
    return float(found["frames"] / found["seconds"])


def ours(clip: Path, store: Path, *words: str) -> float:
    """Frames/s of `avfuse extract`, everything new."""
    base = ("extract", "--videos", str(clip.parent), "--store", str(store), "--untrained", "0", "--overwrite", "--json")
    (receipt,) = printed(avfuse(*base, *words))["extracted"]
    return float(receipt["frames"] / receipt["seconds"])


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.asarray((one * other).sum(axis=1) / np.maximum(lengths, 1e-12))


def agreement(clip: Path, npz: Path, store: Path) -> str:
    """Share of frames with the same box, and the least cosine of each feature on those."""
    naive_rows, trial = np.load(npz), FeatureStore(store)[clip.stem]
    boxes = trial.read("face_box")
    same = np.abs(boxes - naive_rows["face_box"]).max(axis=1) <= SAME_BOX_PX
    parts = [f"{same.mean():.1%} of the boxes within {SAME_BOX_PX} px"]
    for name in ("iresnet50", "vggish", "logmel_vgg"):
        real = trial.valid(name) & (same if name == "iresnet50" else True)
        least = cosines(trial.read(name)[real], naive_rows[name][real])
        parts.append(f"{name} cosine ≥ {least.min():.5f} (median {np.median(least):.6f})")
    return "; ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--seconds", type=float, default=6.0)
    asked = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as scratch:
        for original in asked.clips:
            clip = cut(original, asked.seconds, Path(scratch))
            speeds: dict[str, list[float]] = {}
            for _ in range(asked.rounds):
                speeds.setdefault("naive", []).append(naive(clip, Path(scratch, "naive.npz")))
                for precision in asked.precisions.split(","):
                    store = Path(scratch, f"{precision}.zarr")
                    speeds.setdefault(precision, []).append(ours(clip, store, "--precision", precision))
            print(
                original.name, *(f"{name} {statistics.median(each):.2f}" for name, each in speeds.items()), "frames/s"
            )
            for precision in asked.precisions.split(","):
                ratios = [mine / theirs for mine, theirs in zip(speeds[precision], speeds["naive"], strict=True)]
                span = f"{min(ratios):.2f}–{max(ratios):.2f}"
                print(f"  {precision}: {statistics.median(ratios):.2f} ({span}) × the naive stack")
                print(
                    f"    {agreement(clip, Path(scratch, 'naive.npz'), Path(scratch, f'{precision}.zarr'))}", flush=True
                )


if __name__ == "__main__":
    main()
