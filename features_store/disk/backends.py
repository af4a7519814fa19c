"""The small files of a store and its folders, on a local disk or behind a URL.

Tested by tests/features_store/test_store.py and test_url.py.
"""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from .atomic import check_fence, fsync_path, link_file, remove_file, replace_file
from .scratch import scratch_directory, scratch_file
from .unwritable import naming


@dataclass(frozen=True)
class LocalFiles:
    """A folder of this machine's file system."""

    root: Path

    def location(self, key: str) -> str:
        """Path of a key, for zarr and for messages."""
        return str(self.root / key)

    def read(self, key: str) -> bytes | None:
        """Content of a file; None where there is none."""
        try:
            return (self.root / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, key: str, content: bytes) -> None:
        """Replace a file at once and safely: the old content or the new one, whatever happens."""
        path = self.root / key
        with naming(path), scratch_file(self.root, content) as temporary:
            check_fence()
            try:
                temporary.replace(path)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                replace_file(path, content)  # the key's folder lies on another disk than the store's
            fsync_path(path.parent)

    def create(self, key: str, content: bytes) -> None:
        """Write a file whole unless there is one; another process may try the same at the same time."""
        path = self.root / key
        if path.exists():
            return
        with naming(path):
            if "/" not in key:  # the root's own; below it a store that was removed does not come back
                self.root.mkdir(parents=True, exist_ok=True)
            with scratch_file(self.root, content) as temporary:
                while not path.exists():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    try:
                        link_file(temporary, path)
                        fsync_path(path.parent)
                    except FileNotFoundError:
                        if not temporary.exists():
                            raise  # else another process has found the folder empty, and removed it
                    except OSError as error:
                        if error.errno != errno.EXDEV:
                            raise
                        replace_file(path, content, replace=False)

    def folders(self, key: str) -> list[str]:
        """Names of the visible folders directly below a key, sorted."""
        try:
            with os.scandir(self.root / key) as entries:
                return sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def is_file(self, key: str) -> bool:
        """Whether there is a file."""
        return (self.root / key).is_file()

    def remove(self, key: str) -> None:
        """Remove a file or a folder with all that is in it; a folder vanishes at once."""
        path = self.root / key
        if not path.is_dir():
            remove_file(path)
            return
        with scratch_directory(self.root) as scratch:
            check_fence()
            try:
                path.rename(scratch / "removed")
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                shutil.rmtree(path)

    def remove_folder(self, key: str) -> bool:
        """Remove a folder unless something is in it; returns whether it is gone."""
        check_fence()
        try:
            (self.root / key).rmdir()
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            return False
        return True


@dataclass(frozen=True)
class UrlFiles:
    """A store behind a URL that fsspec knows (`s3://`, `memory://` …); the URL ends without a slash."""

    url: str

    def _fs(self, key: str) -> tuple[Any, str]:
        # Opened for every use: fsspec keeps the connection, and this object stays small enough to pickle.
        import fsspec  # noqa: PLC0415

        try:
            fs, path = fsspec.core.url_to_fs(self.location(key))
        except ImportError as error:
            raise ValueError(f"{self.url}: {error}") from error
        return fs, path

    def location(self, key: str) -> str:
        """URL of a key, for zarr and for messages."""
        return f"{self.url}/{key}".rstrip("/")

    def read(self, key: str) -> bytes | None:
        """Content of a file; None where there is none."""
        fs, path = self._fs(key)
        try:
            return bytes(fs.cat_file(path))
        except (FileNotFoundError, IsADirectoryError):
            return None

    def write(self, key: str, content: bytes) -> None:
        """Write a file whole, as one object."""
        fs, path = self._fs(key)
        fs.pipe_file(path, content)

    def create(self, key: str, content: bytes) -> None:
        """Write an object unless there is one; of two writers at once both write it."""
        if not self.is_file(key):
            self.write(key, content)

    def folders(self, key: str) -> list[str]:
        """Names of the visible folders directly below a key, sorted."""
        fs, path = self._fs(key)
        fs.invalidate_cache()
        try:
            entries = fs.ls(path, detail=True)
        except FileNotFoundError:
            return []
        names = (e["name"].rstrip("/").rpartition("/")[2] for e in entries if e["type"] == "directory")
        return sorted(name for name in names if not name.startswith("."))

    def is_file(self, key: str) -> bool:
        """Whether there is an object."""
        fs, path = self._fs(key)
        return bool(fs.isfile(path))

    def remove(self, key: str) -> None:
        """Remove an object, or all below a prefix."""
        fs, path = self._fs(key)
        if fs.exists(path):
            fs.rm(path, recursive=True)

    def remove_folder(self, key: str) -> bool:
        """Whether no other folder is in it: an empty one is not there."""
        return not self.folders(key)


# Bytes by key (`batch1/trial/zarr.json`) and the folders below a key.
Files = LocalFiles | UrlFiles


def open_files(path: str | os.PathLike[str]) -> Files:
    """The files of a store at a folder or a URL (`file:///absolute` is a folder).

    Raises ValueError on a `file://` URL of a relative path or of another host.
    """
    text = os.fspath(path)
    if "://" not in text:
        return LocalFiles(Path(text))
    if not text.startswith("file://"):
        return UrlFiles(text.rstrip("/"))
    if not text.startswith("file:///"):
        raise ValueError(f"{text}: a file:// URL names an absolute path, file:///…; give a plain path instead")
    return LocalFiles(Path(unquote(text.removeprefix("file://"))))
