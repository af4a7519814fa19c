"""One file over https into a `.part` file that a cut connection, or the next run, goes on with.

    .part of n bytes ── Range: bytes=n- ── 206 from n: append │ 200: begin again │ 416: it is all there

Tested by tests/encoders/weights/test_download.py.
"""

from __future__ import annotations

import http.client
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO

from ...shell.text import counted

Progress = Callable[[int, int | None], None]

_TIMEOUT_S = 60
_BLOCK_BYTES = 1 << 20
_ATTEMPTS = 5
# No published file comes near it: a server that never ends must not fill the disk.
_MOST_BYTES = 2 << 30
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_NETWORK_ERRORS = (
    urllib.error.URLError,
    http.client.HTTPException,
    ConnectionError,
    TimeoutError,
    ssl.SSLError,
)


class DownloadError(RuntimeError):
    """A weight file could not be fetched; the message says from where and what to do."""


def no_progress(done_bytes: int, total_bytes: int | None) -> None:
    """Nothing is shown."""


def refuse_plain_http(url: str) -> None:
    """Raises DownloadError for any address that is not https."""
    if not url.startswith("https://"):
        raise DownloadError(f"{url} is not an https address; weights are fetched over https only")


def pull(url: str, part: Path, size_bytes: int | None, progress: Progress) -> None:
    """Download `url` into `part`, going on after the bytes that it holds already.

    A connection cut on the way is taken up again; what was received stays in `part` for the next run. Whether
    it is the right content is not looked at, only that it ends at `size_bytes` (None: unknown). Raises
    DownloadError.
    """
    for _ in range(_ATTEMPTS):
        before = _size(part)
        try:
            if _pull_once(url, part, size_bytes, progress):
                return
        except urllib.error.HTTPError as error:
            with error:
                raise DownloadError(f"{url}: the server says {error.code} {error.reason}") from error
        except _NETWORK_ERRORS as error:
            if _size(part) <= before:
                reason = getattr(error, "reason", None) or str(error) or type(error).__name__
                raise DownloadError(
                    f"{url} cannot be reached ({reason}). Try again, set AVFUSE_WEIGHTS_MIRROR to an https folder with "
                    f"the file in it, or fetch it on another machine and give it with --weights"
                ) from error
    raise DownloadError(
        f"{url}: the connection was cut {_ATTEMPTS} times, {counted(_size(part), 'byte')} in; run it again to go on"
    )


def _pull_once(url: str, part: Path, size_bytes: int | None, progress: Progress) -> bool:
    """One request; true when the file is all there."""
    have = _size(part)
    if size_bytes is not None and have == size_bytes:
        return True
    headers = {"User-Agent": "avfuse", **({"Range": f"bytes={have}-"} if have else {})}
    request = urllib.request.Request(url, headers=headers)
    response: http.client.HTTPResponse
    try:
        response = urllib.request.build_opener(_HttpsOnly).open(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE or not have:
            raise
        error.close()
        # Nothing after what we have: it is all there, or (then the hash shows it) it is something else.
        return True
    with response:
        # First byte of the answer in the file, and the file's size where the server gives it.
        start, length = 0, response.headers.get("Content-Length")
        total = int(length) if length else None
        if response.status == http.client.PARTIAL_CONTENT:
            placed = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
            start = int(placed[1]) if placed else -1
            total = int(placed[2]) if placed and placed[2] != "*" else None
        if start not in (0, have):
            part.unlink()
            return False
        if size_bytes is not None and total is not None and total != size_bytes:
            raise DownloadError(f"{url} has {total} bytes, expected {size_bytes}: another file, or an error page")
        if total is not None and total > _MOST_BYTES:
            raise DownloadError(f"{url} has {total} bytes; no weight file is that large")
        with part.open("r+b" if start else "wb") as out:
            out.seek(start)
            return _copy(response, out, total, size_bytes or _MOST_BYTES, progress)


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Release files are redirected to another host; that one must be https too."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        refuse_plain_http(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _copy(response: http.client.HTTPResponse, out: IO[bytes], total: int | None, most: int, progress: Progress) -> bool:
    done = out.tell()
    progress(done, total)
    while block := response.read(_BLOCK_BYTES):
        done += len(block)
        if done > (total or most):
            raise DownloadError(f"{response.url} sends more than {total or most} bytes")
        out.write(block)
        progress(done, total)
    # A connection that is cut looks like the end of the file; only the announced size distinguishes them.
    return total is None or done == total


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
