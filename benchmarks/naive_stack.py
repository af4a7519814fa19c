"""What people do today, written straight: one frame, one face, one patch at a time, every frame searched.

    python benchmarks/naive_stack.py CLIP OUT.npz

ffmpeg frames, `facenet_pytorch.MTCNN` on each, alignment to the ArcFace template, the face network on each face,
torchvggish's patches at each frame's time through two VGGish networks; the same random weights as `--untrained 0`.
Prints {"frames": N, "seconds": s} (networks loaded before) as JSON; OUT holds boxes and embeddings to compare.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ffmpeg
import numpy as np
import soundfile
import torch
from facenet_pytorch import MTCNN
from torchvggish import vggish_input

from avfuse.encoders.weights.read import untrained_network
from avfuse.pipeline.faces.align import TEMPLATE_PX

SIDE_PX = 112
PATCH_S = 0.96


def frames_of(clip: Path) -> Iterator[np.ndarray]:
    """The frames as RGB arrays, from a pipe."""
    video = next(stream for stream in ffmpeg.probe(str(clip))["streams"] if stream["codec_type"] == "video")
    width, height = video["width"], video["height"]
    process = (
        ffmpeg.input(str(clip))
        .output("pipe:", format="rawvideo", pix_fmt="rgb24")
        .run_async(pipe_stdout=True, quiet=True)
    )
    while len(picture := process.stdout.read(width * height * 3)) == width * height * 3:
        yield np.frombuffer(picture, np.uint8).reshape(height, width, 3)
    process.wait()


def rate_of(clip: Path) -> float:
    """Frames/s as the header says, which is the clock of such scripts."""
    video = next(stream for stream in ffmpeg.probe(str(clip))["streams"] if stream["codec_type"] == "video")
    num, den = video["avg_frame_rate"].split("/")
    return int(num) / int(den)


def align(frame: np.ndarray, landmarks: np.ndarray) -> torch.Tensor:
    """The face on the template (Umeyama, bilinear), [1, 3, 112, 112] in [−1, 1]."""
    ones = np.ones((5, 1))
    x, y = landmarks[:, :1], landmarks[:, 1:]
    rows = np.concatenate([np.hstack([x, -y, ones, 0 * ones]), np.hstack([y, x, 0 * ones, ones])])
    a, b, tx, ty = np.linalg.lstsq(rows, TEMPLATE_PX.T.reshape(-1), rcond=None)[0]
    inverse = np.linalg.inv(np.array([[a, -b, tx], [b, a, ty], [0, 0, 1]]))
    grid = np.mgrid[0:SIDE_PX, 0:SIDE_PX][::-1].reshape(2, -1)
    points = (inverse @ np.vstack([grid, np.ones(SIDE_PX**2)]))[:2].T.reshape(1, SIDE_PX, SIDE_PX, 2)
    size = np.array([frame.shape[1] - 1, frame.shape[0] - 1])
    picture = torch.from_numpy(frame.copy()).permute(2, 0, 1)[None].float()
    sampled = torch.nn.functional.grid_sample(
        picture, torch.from_numpy(points / size * 2 - 1).float(), align_corners=True
    )
    return sampled / 127.5 - 1


def faces_of(clip: Path, mtcnn: MTCNN, network: torch.nn.Module) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Box and embedding of the largest face of each frame, NaN without one."""
    boxes, rows = [], []
    for frame in frames_of(clip):
        found, _, points = mtcnn.detect(frame, landmarks=True)
        if found is None:
            boxes.append(np.full(4, np.nan))
            rows.append(np.full(512, np.nan))
            continue
        boxes.append(found[0])
        rows.append(network(align(frame, points[0].astype(float)))[0].numpy())
    return boxes, rows


def sounds_of(clip: Path, frames: int, networks: list[torch.nn.Module]) -> list[list[np.ndarray]]:
    """The embeddings of the patch that begins at each frame, for each network."""
    wav = Path(f"{clip}.naive.wav")
    command = ["ffmpeg", "-v", "error", "-y", "-i", str(clip), "-ac", "1", "-ar", "16000", str(wav)]
    subprocess.run(command, check=True)
    samples, hz = soundfile.read(wav)
    wav.unlink()
    samples = np.pad(samples, (0, 2 * hz), "edge")
    rows: list[list[np.ndarray]] = [[] for _ in networks]
    for frame in range(frames):
        first = round(frame / rate_of_clip * 100) * 160
        patch = vggish_input.waveform_to_examples(samples[first : first + round((PATCH_S + 0.02) * hz)], hz)
        patch = torch.as_tensor(np.asarray(patch.detach() if hasattr(patch, "detach") else patch)).float()
        for row, network in zip(rows, networks, strict=True):
            row.append(network(patch.reshape(-1, 1, 96, 64)[:1])[0].numpy())
    return rows


if __name__ == "__main__":
    clip, out = Path(sys.argv[1]), Path(sys.argv[2])
    detector = MTCNN(keep_all=True, device="cpu")
    face, *voices = (untrained_network(name, 0).module for name in ("iresnet50", "vggish", "logmel_vgg"))
    rate_of_clip = rate_of(clip)
    began_s = time.monotonic()
    with torch.inference_mode():
        boxes, iresnet50 = faces_of(clip, detector, face)
        vggish, logmel_vgg = sounds_of(clip, len(boxes), voices)
    found = {"face_box": boxes, "iresnet50": iresnet50, "vggish": vggish, "logmel_vgg": logmel_vgg}
    arrays: dict[str, Any] = {name: np.array(rows, np.float32) for name, rows in found.items()}
    np.savez(out, **arrays)
    print(json.dumps({"frames": len(boxes), "seconds": time.monotonic() - began_s}))
