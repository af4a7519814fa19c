"""Files of results: what they were made from, how and when; where they may be put, and which files they may replace.

    OUT/made.json             of a folder of files whose format has no place for it
    FILE.made.json            of one such file, with the file's sha256

Tested by tests/features_store/interchange/test_result_files.py.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ... import __version__
from ...shell.text import command_line
from ..disk.atomic import check_link, replace_file, sha256_of, write_json
from ..schema import FORMAT_KEY, NODE_FILE

MADE_FILE = "made.json"


def made(**of: Any) -> dict[str, Any]:
    """Who made a result, when, and what it is `of`: runs, store, annotations, smoothing, UNTRAINED features …"""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"avfuse": __version__, "command": command_line(), "time": now, **of}


def side_car(path: Path) -> Path:
    """The file beside `path` that says how it was made."""
    return path.with_name(f"{path.name}.{MADE_FILE}")


def check_place(out: Path) -> None:
    """Raise ValueError where `out` is a store, or lies in one, or behind a link to nowhere."""
    check_link(out)
    folder = out.absolute()
    for above in (folder, *folder.parents):
        node = above / NODE_FILE
        if node.is_file() and FORMAT_KEY.encode() in node.read_bytes():
            raise ValueError(f"{out} lies in the store {above}; name another place")


def is_result_folder(folder: Path) -> bool:
    """Whether a command has written its results into this folder, as made.json there says."""
    try:
        said = json.loads((folder / MADE_FILE).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(said, dict) and {"results", "made"} <= said.keys()


def check_truth(folder: Path) -> None:
    """Raise ValueError where the labels of a folder are pseudo-labels, as its made.json says."""
    try:
        pseudo = json.loads((folder / MADE_FILE).read_bytes())["made"]["pseudo"]
    except (OSError, ValueError, LookupError, TypeError):
        return
    if pseudo:
        raise ValueError(
            f"{folder} holds pseudo-labels, which say what runs agree on and not what is true: nothing is validated on "
            "them. Name people's annotations here; `train --extra-annotations` trains on these as well"
        )


def check_file(path: Path) -> None:
    """Raise ValueError where there is a file that avfuse has not written, or that was changed since."""
    check_place(path)
    if not path.exists():
        return
    try:
        ours = json.loads(side_car(path).read_bytes())["sha256"] == sha256_of(path)
    except (OSError, ValueError, LookupError, TypeError):
        ours = False
    if not ours:
        raise ValueError(f"{path} is there already, and is not as avfuse wrote it; remove it, or name another file")


def write_with_side_car(path: Path, content: bytes, about: Mapping[str, Any]) -> None:
    """Replace a file and its side-car, which says by its sha256 which content it is of. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sha256 = hashlib.sha256(content).hexdigest()
    write_json(side_car(path), {"file": path.name, "sha256": sha256, "made": dict(about)})
    replace_file(path, content)
