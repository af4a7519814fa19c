"""`avfuse extract --aligned` against its networks alone, in batches, on tensors that are in memory.

    python benchmarks/aligned_speed.py CLIP [--rounds 3] [--precision fp32] [--device cpu] [--keep DIR]

The crops are cut from the clip by `avfuse` itself first. Bare: the same folded networks, channels last, 32 at a time,
torch with all cores, nothing else. Target: at least 0.9 × the bare networks. DIR gets the crops.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from extract_speed import ours
from measure import machine
from PIL import Image

from avfuse.encoders.contract import Precision
from avfuse.encoders.embed import Embedder
from avfuse.encoders.table import CROP_PX
from avfuse.encoders.weights.read import untrained_network
from avfuse.pipeline.faces.crops import follow_faces
from avfuse.pipeline.faces.mtcnn import FaceDetector
from avfuse.pipeline.faces.search import FaceSearch
from avfuse.pipeline.faces.tracking import Followers
from avfuse.pipeline.media.probe import probe
from avfuse.pipeline.media.readers import FrameReader


def save_crops(clip: Path, folder: Path) -> int:
    """The clip's aligned crops as the organiser's JPEGs; returns how many frames there are."""
    folder.mkdir(parents=True)
    info, frame = probe(clip), 0
    search = FaceSearch(FaceDetector(), Followers("largest", (info.width_px, info.height_px)), 30)
    with FrameReader(info) as reader:
        for (crops,) in follow_faces(reader, search):
            for number, pixels in zip(np.flatnonzero(crops.seen.found), crops.views[CROP_PX], strict=True):
                Image.fromarray(pixels).save(folder / f"{frame + number + 1:05d}.jpg", quality=95)
            frame += len(crops.seen.scores)
    return frame


def bare(device: str, precision: Precision, frames: int) -> float:
    """Frames/s of the three networks in turn on batches of 32."""
    faces = np.random.default_rng(0).integers(0, 255, (32, 112, 112, 3), dtype=np.uint8)
    patches = np.random.default_rng(1).standard_normal((32, 96, 64)).astype(np.float32)
    seconds = 0.0
    for name, inputs in (("iresnet50", faces), ("vggish", patches), ("logmel_vgg", patches)):
        network = Embedder(untrained_network(name, 0), device, precision)
        network.rows(inputs)
        began_s = time.perf_counter()
        for _ in range(max(1, frames // 32)):
            network.rows(inputs)
        seconds += time.perf_counter() - began_s
    return max(1, frames // 32) * 32 / seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("clip", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--keep", type=Path)
    asked = parser.parse_args()
    print(machine(), f"torch threads {torch.get_num_threads()}")
    with tempfile.TemporaryDirectory() as scratch:
        videos, crops = Path(scratch, "videos"), asked.keep or Path(scratch, "crops")
        videos.mkdir()
        clip = videos / asked.clip.name
        clip.symlink_to(asked.clip.resolve())
        frames = save_crops(clip, crops / clip.stem)
        ratios = []
        for _ in range(asked.rounds):
            alone = bare(asked.device, asked.precision, frames)
            how = ("--precision", asked.precision, "--device", asked.device)
            whole = ours(clip, Path(scratch, "s.zarr"), "--aligned", str(crops), *how)
            ratios.append(whole / alone)
            print(f"{asked.precision}: bare {alone:.2f}, --aligned {whole:.2f} frames/s, {ratios[-1]:.3f}", flush=True)
        print(f"{frames} frames: {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f}) × bare")


if __name__ == "__main__":
    main()
