"""Published weights into the cache: https only, resumed, checked before they get their name.

    <download>.part ── size and sha256 ── (zip: one member ── size and sha256) ── rename to <file>

Tested by tests/encoders/weights/test_download.py against a local https server.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

from ...features_store.disk.atomic import sha256_of
from .http import DownloadError, Progress, no_progress, pull, refuse_plain_http
from .registry import Archive, WeightFile

__all__ = ["DownloadError", "address", "fetch", "is_whole"]


def fetch(file: WeightFile, cache: Path, progress: Progress = no_progress) -> Path:
    """Download `file` into the folder `cache`, unless it is there already; returns its path.

    `progress` is called with the bytes that are there and the bytes in all (None: unknown). Raises
    DownloadError (offline, refused, wrong content; nothing bears the final name then), OSError of the disk.
    """
    target = cache / file.file_name
    if is_whole(file, target):
        return target
    url = address(file, target)
    cache.mkdir(parents=True, exist_ok=True)
    part = cache / f"{url.rpartition('/')[2]}.part"
    size, sha256 = file.size_bytes, file.sha256_prefix
    if file.archive is not None:
        size, sha256 = file.archive.size_bytes, file.archive.sha256
    while True:
        resumed = part.exists()
        if resumed and size is not None and part.stat().st_size > size:
            part.unlink()
        pull(url, part, size, progress)
        complaint = _complaint(part, size, sha256)
        if complaint is None:
            break
        part.unlink()
        if not resumed:
            raise DownloadError(f"{url} is not {file.name}: {complaint}. Nothing was kept")
        # What was there may have been the beginning of another file: once more, from zero.
    whole = part if file.archive is None else _member(file, file.archive, part)
    whole.replace(target)
    part.unlink(missing_ok=True)
    return target


def is_whole(file: WeightFile, path: Path) -> bool:
    """Whether `path` is there and has the size and the hash of the registry, as far as they are known."""
    return path.is_file() and _complaint(path, file.size_bytes, file.sha256_prefix) is None


def address(file: WeightFile, target: Path) -> str:
    """The https address to fetch from: `$AVFUSE_WEIGHTS_MIRROR/<file>` where it is set, else the publisher's.

    Raises DownloadError with what to do by hand (`target`: where to put it) when nothing can be fetched.
    """
    if file.url is None:
        raise DownloadError(f"{file.name} has no address to fetch from; {file.note}. Save it as {target}")
    mirror, published = os.environ.get("AVFUSE_WEIGHTS_MIRROR"), file.url
    url = f"{mirror.rstrip('/')}/{published.rpartition('/')[2]}" if mirror else published
    refuse_plain_http(url)
    if os.environ.get("AVFUSE_OFFLINE", "0") not in ("", "0"):
        take = f", take {file.archive.member} out of it" if file.archive else ""
        raise DownloadError(f"AVFUSE_OFFLINE is set. By hand: fetch {url}{take}, save it as {target}")
    return url


def _complaint(path: Path, size_bytes: int | None, sha256: str | None) -> str | None:
    """What is wrong with a file; `sha256` may be the beginning of its hash."""
    if size_bytes not in (None, path.stat().st_size):
        return f"{path.stat().st_size} bytes, expected {size_bytes}"
    if sha256 is None or (found := sha256_of(path)).startswith(sha256):
        return None
    return f"sha256 {found}, expected {sha256}"


def _member(file: WeightFile, archive: Archive, packed: Path) -> Path:
    """The file out of the archive that was downloaded to `packed`; both are removed where it is not as published."""
    whole = packed.with_name(f"{file.file_name}.part")
    try:
        with zipfile.ZipFile(packed) as opened, whole.open("wb") as out:
            info = opened.getinfo(archive.member)
            # Neither the stated size nor a bomb behind a false one may fill the disk.
            if file.size_bytes not in (None, info.file_size):
                raise zipfile.BadZipFile(f"{info.filename} has {info.file_size} bytes, expected {file.size_bytes}")
            with opened.open(info) as member:
                shutil.copyfileobj(member, out)
        complaint = _complaint(whole, file.size_bytes, file.sha256)
    except (zipfile.BadZipFile, KeyError) as error:
        complaint = str(error)
    if complaint:
        packed.unlink()
        whole.unlink(missing_ok=True)
        raise DownloadError(f"{packed.stem} does not hold {file.file_name} as published: {complaint}. Nothing was kept")
    return whole
