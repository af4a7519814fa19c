"""The JSON files of a run's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..features_store.disk import replace_file


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a file of a run. Raises OSError naming it."""
    replace_file(path, (json.dumps(content, indent=1) + "\n").encode())


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """The object in a file of a run. Raises ValueError naming the file where it is missing or no such thing."""
    path = folder / name
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ValueError(
            f"{folder} holds no run: there is no {name}; name a folder that `avfuse train` made"
        ) from error
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} is not a JSON object")
    return found
