"""Encoders that avfuse's own table does not have: packages with an entry point, and files given by --encoder.

    [project.entry-points."avfuse.encoders"]
    mynet = "mypackage.mynet"              ← a module as encoders/contract.py says

A file is code that its user names: nothing is ever run that merely lies beside weights. Which files there are travels
with the settings (`ExtractConfig.encoders`), and each process takes them on by `use_files`.
Tested by tests/encoders/test_plugins.py.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from ..features_store.disk.atomic import sha256_of
from ..shell.text import one_line
from .contract import About, about

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "avfuse.encoders"
NAME = re.compile(r"[A-Za-z_]\w*(?:-\w+)*")


@dataclass(frozen=True)
class EncoderFile:
    """A user's own encoder: its name as a feature, the file, and the hash that tells whether it is still the same."""

    name: str
    path: Path
    sha256: str


@dataclass(frozen=True)
class PlugIn:
    """An encoder that was found: what it says of itself, where it is, and the hash where it is a file."""

    about: About
    source: str
    sha256: str | None


# The files that this process has been given, and their modules once they are loaded, by hash and path.
_files: dict[str, EncoderFile] = {}
_modules: dict[tuple[str, str], ModuleType] = {}


def encoder_file(name: str, path: Path) -> EncoderFile:
    """The file of --encoder NAME=FILE.py, hashed. Raises ValueError for a name that cannot be, OSError."""
    if not NAME.fullmatch(name) or name.endswith("_valid"):
        raise ValueError(f"--encoder {name}=…: a name has letters, digits, _ and -, and does not end with _valid")
    if path.suffix != ".py":
        raise ValueError(f"--encoder {name}={path}: not a .py file")
    return EncoderFile(name, path.absolute(), sha256_of(path))


def use_files(files: Iterable[EncoderFile]) -> None:
    """Make these, and no others, the files that this process knows as encoders.

    Raises ValueError for a name given twice, and where a file is not what it was on the machine that named it.
    """
    given: dict[str, EncoderFile] = {}
    for file in files:
        if given.setdefault(file.name, file) != file:
            raise ValueError(f"--encoder {file.name} is given twice: {given[file.name].path} and {file.path}")
        if sha256_of(file.path) != file.sha256:
            raise ValueError(f"{file.path} has changed, or is not the same file as on the machine that started the run")
    _files.clear()
    _files.update(given)


def files_in_use() -> tuple[EncoderFile, ...]:
    """The files that this process knows as encoders."""
    return tuple(_files.values())


def installed() -> dict[str, EntryPoint]:
    """Entry points of installed packages, by name."""
    return _installed(tuple(sys.path))


@functools.cache
def _installed(_path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """The same on this path: the metadata of all packages are read once, and not for each trial of a plan."""
    from importlib.metadata import entry_points  # noqa: PLC0415 - a tenth of what help takes

    return {entry.name: entry for entry in entry_points(group=GROUP)}


def find(name: str) -> PlugIn | None:
    """The encoder of this name; None where there is none.

    Raises ValueError, naming the file or the package, where it cannot be loaded or does not say what it must.
    """
    if name in _files:
        file = _files[name]
        return PlugIn(about(module_of(name), str(file.path)), str(file.path), file.sha256)
    if (entry := installed().get(name)) is None:
        return None
    source = f"{entry.dist.name} {entry.dist.version}, {entry.value}" if entry.dist else entry.value
    return PlugIn(about(module_of(name), source), source, None)


def module_of(name: str) -> ModuleType:
    """The module of an encoder that `find` finds; its code runs here for the first time. Raises ValueError."""
    file = _files.get(name)
    source = str(file.path) if file else f"the entry point {name} of {GROUP}"
    try:
        if file is None:
            found = installed()[name].load()
            if not isinstance(found, ModuleType):
                raise ValueError(f"must name a module, not {type(found).__name__}")
            return found
        key = (file.sha256, str(file.path))
        if key not in _modules:
            label = f"avfuse_encoder_{file.sha256[:16]}"
            module = ModuleType(label)
            module.__file__ = str(file.path)
            sys.modules[label] = module  # where dataclasses and pickle look for it
            try:
                # Never from Python's cache, which takes a file of the same size and second for the same.
                exec(compile(file.path.read_bytes(), str(file.path), "exec"), vars(module))
            except BaseException:
                del sys.modules[label]
                raise
            _modules[key] = module
        return _modules[key]
    except (Exception, SystemExit) as error:
        what = one_line(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {one_line(error)}"
        raise ValueError(f"{source}: {what}") from error
