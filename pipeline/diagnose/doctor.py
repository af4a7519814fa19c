"""What works on this machine, and how to fix what does not."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ...batch.torch_errors import compute_error
from ...encoders.table import DEFAULT_FEATURES
from ...encoders.weights.registry import REGISTRY
from ...encoders.weights.resolve import (
    WeightsInvalid,
    WeightsMissing,
    is_damaged,
    load_network,
    local_path,
    resolve,
    weight_folders,
    weight_names,
)
from ...shell.text import counted, one_line
from ..config import LESS_MEMORY
from ..media.process import decoders, ffmpeg_version

_DECODERS = (
    "h264",
    "hevc",
    "mpeg4",
    "mpeg1video",
    "vp8",
    "vp9",
    "av1",
    "mjpeg",
    "aac",
    "mp3",
    "mp2",
    "opus",
    "vorbis",
)
_LOW_DISK_BYTES = 10 << 30
# extra → (its module, what it is for)
_EXTRAS = {
    "onnx": ("onnx", "weights in .onnx files"),
    "parquet": ("pyarrow", "export to parquet"),
    "tensorboard": ("tensorboard", "training curves in TensorBoard"),
    "xarray": ("xarray", "a store as xarray datasets"),
    "jobqueue": ("dask_jobqueue", "--jobqueue: workers as jobs of SLURM, PBS, SGE"),
    "demo": ("skimage", "synth and demo"),
}


@dataclass(frozen=True)
class Finding:
    """One thing looked at: `ok`, or if not whether avfuse can do without it, and how to fix it."""

    what: str
    ok: bool
    found: str
    fix: str = ""
    needed: bool = False

    @property
    def word(self) -> str:
        """`ok`, `MISSING` where avfuse cannot work without it, else `note`."""
        return "ok" if self.ok else "MISSING" if self.needed else "note"


def examine(folder: Path) -> Iterator[Finding]:
    """Look at everything a run needs; `folder` is where the store would be."""
    yield Finding("python", True, platform.python_version())
    yield from _ffmpeg()
    yield from _torch()
    yield from _weights()
    yield from _extras()
    yield from _disk(folder)


def _ffmpeg() -> Iterator[Finding]:
    install = "install it: sudo apt-get install ffmpeg (or conda install ffmpeg)"
    for program in ("ffmpeg", "ffprobe"):
        path = shutil.which(program)
        yield Finding(program, path is not None, path or "not on the PATH", install, needed=True)
        if path is None:
            return
    yield Finding("ffmpeg version", True, ffmpeg_version())
    lacking = [name for name in _DECODERS if name not in decoders()]
    yield Finding(
        "decoders",
        not lacking,
        f"lacks {', '.join(lacking)}" if lacking else ", ".join(_DECODERS),
        "videos with these codecs will fail; use a full build of ffmpeg",
    )


def _torch() -> Iterator[Finding]:
    import torch

    yield Finding(
        "torch",
        True,
        f"{torch.__version__}, {counted(torch.get_num_threads(), 'thread')}, {counted(os.cpu_count() or 1, 'core')}",
    )
    if torch.cuda.is_available():
        try:
            names = ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
        except RuntimeError as error:  # held by another job, or a driver that does not fit
            yield Finding("cuda", False, str(compute_error(error, LESS_MEMORY)), "until then the CPU does")
        else:
            yield Finding("cuda", True, names)
    else:
        reason = "no CUDA in this torch" if torch.version.cuda is None else "torch sees no GPU"
        yield Finding("cuda", False, reason, "runs on the CPU; for a GPU install its driver (see nvidia-smi)")


def _weights() -> Iterator[Finding]:
    """Every published file: where it lies, or how to get it; then whether a plain `extract` can read what it needs."""
    told = os.environ.get("AVFUSE_WEIGHTS")
    try:
        places = " or ".join(map(str, weight_folders())) or "any folder: set HOME, or AVFUSE_WEIGHTS"
    except ValueError as error:
        yield Finding("AVFUSE_WEIGHTS", False, str(error), "name a folder that is there, or unset it", needed=True)
        return
    if told:
        yield Finding("AVFUSE_WEIGHTS", True, told)
    for file in REGISTRY.values():
        path, fetch = (
            local_path(file),
            f"avfuse weights fetch {file.name}" if file.url else "by hand: see avfuse weights list",
        )
        if path is not None and is_damaged(path, file):
            yield Finding(f"weights {file.name}", False, f"{path} is damaged, or another file", f"remove it; {fetch}")
        else:
            yield Finding(f"weights {file.name}", path is not None, str(path or f"not in {places}"), fetch)
    wanting = list(dict.fromkeys(filter(None, map(_wanting, weight_names(DEFAULT_FEATURES, "raw")))))
    fix = "avfuse weights fetch, --weights or AVFUSE_WEIGHTS; --untrained 0 tries things out without"
    yield Finding("usual features", not wanting, "; ".join(wanting) or "have their weights", fix, needed=True)


def _wanting(feature: str) -> str | None:
    """What keeps a feature from its network; None where it can be read."""
    try:
        load_network(resolve([feature], {}, None)[feature])
    except WeightsMissing:
        return f"no weights for {feature}"
    except (WeightsInvalid, OSError) as error:
        return one_line(error)
    return None


def _extras() -> Iterator[Finding]:
    for extra, (module, use) in _EXTRAS.items():
        there = find_spec(module) is not None
        yield Finding(f"extra {extra}", there, use if there else f"not installed; {use}", _pip(extra))


def _pip(extra: str) -> str:
    return f"pip install 'avfuse[{extra}]'"


def summed_up(findings: Sequence[Finding]) -> str:
    """One line: `extract cannot start: …` with everything that is missing, or that nothing is."""
    missing = [f"{each.what}: {each.found}" for each in findings if not each.ok and each.needed]
    return f"extract cannot start: {'; '.join(missing)}" if missing else "everything extract needs is here"


def _disk(folder: Path) -> Iterator[Finding]:
    existing = next(parent for parent in (folder.resolve(), *folder.resolve().parents) if parent.exists())
    free_bytes = shutil.disk_usage(existing).free
    found = f"{free_bytes / 2**30:.1f} GiB free at {existing}"
    fix = "a store takes about 3.3 KB a frame (10 GB for the 3 million frames of Aff-Wild2)"
    yield Finding("disk", free_bytes >= _LOW_DISK_BYTES, found, fix)
    writable = os.access(existing, os.W_OK)
    yield Finding("writable", writable, str(existing), "choose another --store", needed=True)
