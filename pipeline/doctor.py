"""What works on this machine, and the mend for what does not."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..batch.torch_errors import compute_error
from . import media
from .config import LESS_MEMORY
from .registry import REGISTRY
from .weights import cache_folder, cached_path

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


@dataclass(frozen=True)
class Finding:
    """One thing looked at: `ok`, or if not whether avfuse can do without it, and the mend."""

    what: str
    ok: bool
    found: str
    mend: str = ""
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
    yield from _disk(folder)


def _ffmpeg() -> Iterator[Finding]:
    install = "install it: sudo apt-get install ffmpeg (or conda install ffmpeg)"
    for program in ("ffmpeg", "ffprobe"):
        path = shutil.which(program)
        yield Finding(program, path is not None, path or "not on the PATH", install, needed=True)
        if path is None:
            return
    yield Finding("ffmpeg version", True, media.ffmpeg_version())
    lacking = [name for name in _DECODERS if name not in media.decoders()]
    yield Finding(
        "decoders",
        not lacking,
        f"lacks {', '.join(lacking)}" if lacking else ", ".join(_DECODERS),
        "videos with these codecs will fail; use a full build of ffmpeg",
    )


def _torch() -> Iterator[Finding]:
    import torch

    yield Finding("torch", True, f"{torch.__version__}, {torch.get_num_threads()} threads, {os.cpu_count()} cores")
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
    for file in REGISTRY.values():
        path = cached_path(file)
        mend = f"avfuse weights fetch {file.name}" if file.url else "by hand: see avfuse weights list"
        yield Finding(f"weights {file.name}", path is not None, str(path or f"not in {cache_folder()}"), mend)


def _disk(folder: Path) -> Iterator[Finding]:
    existing = next(parent for parent in (folder.resolve(), *folder.resolve().parents) if parent.exists())
    free_bytes = shutil.disk_usage(existing).free
    found = f"{free_bytes / 2**30:.1f} GiB free at {existing}"
    mend = "a store takes about 3.3 KB a frame (10 GB for the 3 million frames of Aff-Wild2)"
    yield Finding("disk", free_bytes >= _LOW_DISK_BYTES, found, mend)
    writable = os.access(existing, os.W_OK)
    yield Finding("writable", writable, str(existing), "choose another --store", needed=True)
