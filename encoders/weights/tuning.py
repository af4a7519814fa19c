"""What a weight file says of its own making: the metadata that `avfuse finetune` writes into safetensors.

    __metadata__  {"avfuse": JSON}    feature, base {name, sha256, licence, …}, fold, trials, validation, epoch, score …

`trials`: all that the weights have learned from, those of the weights that they began from among them. What features
of these weights say of them is no test. Tested by tests/encoders/weights/test_tuning.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...features_store.records.leaks import trials_of
from ...features_store.schema import JsonValue
from .folder import METADATA, read_header, weight_files

if TYPE_CHECKING:
    from .resolve import WeightSource

KEY = "avfuse"


def read_tuning(path: Path) -> dict[str, JsonValue] | None:
    """What a safetensors file, or a folder with one, says of its tuning; None where it is not a tuned one's.

    Raises ValueError where it says so in words that avfuse does not write; OSError.
    """
    file = weight_files(path)[0] if path.is_dir() else path
    if file.suffix != ".safetensors":
        return None
    try:
        words = read_header(file)[0].get(METADATA)
    except ValueError:  # whoever reads the tensors says what is wrong with them
        return None
    said = words.get(KEY) if isinstance(words, dict) else None
    if said is None:
        return None
    try:
        found: Any = json.loads(said)
    except (TypeError, ValueError, RecursionError):
        found = None
    trials = found.get("trials") if isinstance(found, dict) else None
    if not isinstance(trials, list) or not all(isinstance(each, str) for each in trials):
        raise ValueError(f"its metadata {KEY!r} do not say which trials the weights were tuned on; write them again")
    kept: dict[str, JsonValue] = found
    return kept


def record_of(source: WeightSource) -> dict[str, JsonValue]:
    """What weights that are tuned from a source say of it: name, sha256, licence or seed, and its own tuning."""
    return {key: value for key, value in source.as_attributes().items() if value is not None and key != "same_as"}


def with_base(provenance: Mapping[str, JsonValue], base: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """What a weight file says of its tuning: the trials of the weights that it began from count as its own."""
    own = provenance.get("trials")
    trials = {*trials_of(base.get("tuning")), *(map(str, own) if isinstance(own, list) else ())}
    return {**provenance, "trials": list[JsonValue](sorted(trials)), "base": dict(base), "licence": base.get("licence")}
