"""What it costs to add a feature to a store, and to ask a store of a thousand trials what is missing.

    python benchmarks/growth.py CLIP [--rounds 3] [--trials 1000]

Adding mfcc to a store with iresnet50, against `extract --features mfcc` into an empty one (target: at most 1.1 ×).
Adding iresnet50 to a store with a face track, against decoding the frames and running that network, one after the other
in this process, on the same crops (target: at most 1.15 ×). Then `status` (3 s), `extract` with nothing to do (5 s, and
twice what listing the store and reading its small files takes) and the start of `train` on a generated store of six
features a trial.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from measure import avfuse, machine, run

from avfuse.encoders.embed import Embedder
from avfuse.encoders.table import TABLE, entries_for
from avfuse.encoders.weights.read import untrained_network
from avfuse.encoders.weights.resolve import resolve
from avfuse.features_store.store import FeatureStore
from avfuse.pipeline.config import ExtractConfig, RunConfig
from avfuse.pipeline.extraction.jobs import Job
from avfuse.pipeline.extraction.provenance import source_attributes
from avfuse.pipeline.extraction.session import open_session
from avfuse.pipeline.extraction.video import extract_video
from avfuse.pipeline.media.probe import probe
from avfuse.pipeline.media.readers import FrameReader

FEATURES = ("iresnet50", "vggish", "logmel_vgg", "mfcc", "fake_face", "fake_sound")
ROWS = 300


def timed(work: Callable[[], object]) -> float:
    """Seconds that something takes."""
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s


def adding(clip: Path, folder: Path, rounds: int) -> None:
    """Both additions, `rounds` times in turn; prints medians and their ratio."""
    job = Job(clip, clip.name, clip.stem, "largest", clip.stat().st_size)
    every = ExtractConfig(features=("iresnet50", "crop112", "mfcc"))
    weights = resolve(("iresnet50",), {}, 0)
    info, sound, faces = probe(clip), [], []
    with open_session(every, RunConfig(device="cpu"), weights) as session:

        def extract(store: FeatureStore, adds: bool, *features: str) -> float:
            track = adds and "faces" in store[clip.stem].entries
            wanted = Job(**{**vars(job), "features": features, "adds": adds, "keeps_track": track})
            return timed(lambda: extract_video(wanted, store, session, lambda *_: None))

        network = Embedder(untrained_network("iresnet50", 0), "cpu", "fp32", 16)
        for number in range(rounds):
            grown = FeatureStore(folder / f"grown{number}.zarr", mode="a")
            extract(grown, False, "crop112")
            empty = extract(FeatureStore(folder / f"empty{number}.zarr", mode="a"), False, "mfcc")
            sound.append(extract(grown, True, "mfcc") / empty)
            crops = grown[clip.stem].read("crop112")[grown[clip.stem].valid("crop112")]

            began_s = time.perf_counter()
            with FrameReader(info) as reader:
                for _ in reader:
                    pass
            for first in range(0, len(crops), 16):
                network.rows(crops[first : first + 16])
            alone = time.perf_counter() - began_s
            faces.append(extract(grown, True, "iresnet50") / alone)
    for what, ratios in (("mfcc, against an empty store", sound), ("iresnet50, against decoding and network", faces)):
        print(f"adding {what}: {statistics.median(ratios):.2f} × ({min(ratios):.2f}–{max(ratios):.2f})")


def generate(folder: Path, trials: int) -> None:
    """Videos of a few bytes, a store that holds all of them, and labels of all."""
    config, rng = ExtractConfig(features=FEATURES), np.random.default_rng(0)
    found = resolve(("iresnet50", "vggish", "logmel_vgg"), {}, 0)
    entries = entries_for(FEATURES, asdict(config), {name: each.as_attributes() for name, each in found.items()})
    store = FeatureStore(folder / "features.zarr", mode="a")
    arrays: dict[str, np.ndarray] = {"time": np.arange(ROWS) / 25}
    for name in FEATURES:
        arrays[name] = rng.standard_normal((ROWS, *(TABLE[name].row_shape or ()))).astype(np.float32)
        arrays[f"{name}_valid"] = np.ones(ROWS, bool)
    for name, width in (("face_box", (4,)), ("face_landmarks", (5, 2)), ("face_score", ())):
        arrays[name] = np.ones((ROWS, *width), np.float32)
    labels = folder / "labels" / "VA_Estimation_Challenge"
    for part in ("Train_Set", "Validation_Set"):
        (labels / part).mkdir(parents=True)
    (folder / "videos").mkdir()
    first = folder / "features.zarr" / "trial0000"
    for number in range(trials):
        video = folder / "videos" / f"trial{number:04d}.mp4"
        video.write_bytes(b"%d" % number)
        source = source_attributes(video)
        if number == 0:
            facts: dict[str, Any] = {"frames_decoded": ROWS, "fps": "25", "face": "largest", "features": entries}
            store.write(video.stem, arrays, {**facts, "source": source})
        else:  # the arrays are the same: copied, they are there in a tenth of the time
            shutil.copytree(first, first.with_name(video.stem))
            node = json.loads((first / "zarr.json").read_text())
            node["attributes"]["source"] = source
            (first.with_name(video.stem) / "zarr.json").write_text(json.dumps(node, indent=2))
        part = "Validation_Set" if number % 5 == 0 else "Train_Set"
        rows = "0.1,0.2\n" * ROWS
        (labels / part / f"{video.stem}.txt").write_text(f"valence,arousal\n{rows}")


def asking(folder: Path, rounds: int) -> None:
    """Each command over the generated store as a process of its own; prints medians."""
    store, videos = folder / "features.zarr", folder / "videos"

    def read() -> None:
        for trial in os.listdir(store):
            path = store / trial / "zarr.json"
            if path.is_file():
                path.read_bytes()

    reading = statistics.median(timed(read) for _ in range(rounds))
    everything = ("--videos", str(videos), "--store", str(store), "--untrained", "0", "--features", ",".join(FEATURES))
    one_epoch = (
        "--fold",
        "0",
        "--epochs",
        "1",
        "--preset",
        "concat",
        "--device",
        "cpu",
        "--no-plots",
        "--no-tensorboard",
    )
    commands = {
        "status": ["status", "--store", str(store)],
        "extract, nothing to do": ["extract", *everything],
        "extract --dry-run, one feature missing": ["extract", *everything[:-1], "logmel", "--dry-run"],
        "help, which loads nothing": ["extract", "--help"],
    }
    print(f"listing the store and reading its small files: {reading:.2f} s")
    for what, words in commands.items():
        print(f"{what}: {statistics.median(run(avfuse(*words)).seconds for _ in range(rounds)):.2f} s", flush=True)
    labels = ("--annotations", str(folder / "labels"))
    train = ["train", "--store", str(store), *labels, *one_epoch, "--out", str(folder / "run")]
    print(f"train, one epoch of the baseline, start to end: {run(avfuse(*train)).seconds:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("clip", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=1000)
    asked = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as scratch:
        adding(asked.clip, Path(scratch), asked.rounds)
        folder = Path(scratch, "many")
        folder.mkdir()
        generate(folder, asked.trials)
        asking(folder, asked.rounds)


if __name__ == "__main__":
    main()
