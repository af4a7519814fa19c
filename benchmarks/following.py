"""How far the boxes of a followed face are those of the detector in every frame.

    python benchmarks/following.py CLIP ...

For each clip: frames, share with an overlap (IoU) of at least 0.9 with the box of `--detect-every 1`, share with the
same box (0.02 px), and the time of both a frame. A face in one and none in the other counts as no overlap.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from measure import machine

from avfuse.pipeline.config import ExtractConfig
from avfuse.pipeline.faces.detections import overlaps
from avfuse.pipeline.faces.mtcnn import FaceDetector
from avfuse.pipeline.faces.search import FaceSearch
from avfuse.pipeline.faces.shots import CutFinder
from avfuse.pipeline.faces.tracking import Followers
from avfuse.pipeline.media.probe import probe
from avfuse.pipeline.media.readers import FrameReader


def boxes_of(clip: Path, detector: FaceDetector, every: int) -> tuple[np.ndarray, float]:
    """The followed face's box in each frame (NaN: none), and the seconds that finding it took."""
    info = probe(clip)
    search, find_cuts = FaceSearch(detector, Followers("largest", (info.width_px, info.height_px)), every), CutFinder()
    boxes, seconds = [], 0.0
    with FrameReader(info) as reader:
        for batch in reader:
            began_s = time.perf_counter()
            seen = list(search(batch, [change != 0 for change in find_cuts(batch.pixels)]))
            seconds += time.perf_counter() - began_s
            boxes += [np.full(4, np.nan) if who is None else faces.boxes[who] for faces, (who,) in seen]
    return np.array(boxes, np.float32), seconds


def main() -> None:
    print(machine())
    detector, total = FaceDetector(), np.zeros(3)
    for clip in map(Path, sys.argv[1:]):
        (exact, slow_s), (near, fast_s) = (boxes_of(clip, detector, each) for each in (1, ExtractConfig.detect_every))
        none = np.isnan(exact[:, 0]) & np.isnan(near[:, 0])
        iou = np.array([overlaps(one, other[None])[0] for one, other in zip(exact, near, strict=True)])
        good = none | (np.nan_to_num(iou) >= 0.9)
        same = none | (np.nan_to_num(np.abs(exact - near).max(axis=1), nan=np.inf) <= 0.02)
        total += [len(exact), good.sum(), same.sum()]
        times = f"{slow_s / len(exact) * 1e3:.1f} → {fast_s / len(exact) * 1e3:.1f} ms"
        print(
            f"{clip.name:34} {len(exact):5} frames  IoU ≥ 0.9 {good.mean():.4f}  same {same.mean():.4f}  {times}",
            flush=True,
        )
    print(f"all {total[0]:.0f} frames: IoU ≥ 0.9 {total[1] / total[0]:.4f}, same {total[2] / total[0]:.4f}")


if __name__ == "__main__":
    main()
