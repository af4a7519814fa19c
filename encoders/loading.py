"""From a feature's name to an encoder that can be called, and whose answers are looked at.

    feature ─► module ─► load(folder, device, precision, options) ─► object ─► LoadedEncoder

What it raises or gives wrongly, and a folder that its library cannot read, is one line that names it.
Tested by tests/encoders/test_plugins.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..batch.torch_errors import ComputeError, compute_error
from ..features_store.schema import JsonValue
from ..shell.text import one_line
from .contract import FIELD_S, EncoderFailed, Kind, Precision, check_needs
from .table import CROP_PX, feature, module_of
from .weights.resolve import WeightsInvalid, WeightSource


class LoadedEncoder:
    """An encoder in use: what it takes, and its answers, each checked.

    `row_shape`, `dtype`: of its rows; `dim`: their width; `input_px` and `batch_size` of faces; `sample_rate`,
    `window_s`, `context_s`, `hop_s`, `first_s`, `field_s`, `level` of sound, as `AudioEncoder` has them; `made`: the
    object. Raises EncoderFailed where that does not say one of them, or says it wrongly, or has no such method.
    """

    def __init__(self, name: str, kind: Kind, made: Any, batch_size: int = 32) -> None:
        self.name, self.kind, self.made = name, kind, made
        self.dim = int(self._number("dim", whole=True))
        self.row_shape, self.dtype = (self.dim,), np.dtype(np.float32)
        self.input_px = int(self._number("input_px", CROP_PX, whole=True))
        self.batch_size = min(batch_size, int(self._number("batch_size", batch_size, whole=True)))
        self.level = bool(getattr(made, "level", False))
        self.sample_rate = int(self._number("sample_rate", whole=True)) if kind == "audio" else 0
        self.field_s = self._number("field_s", FIELD_S)
        self.window_s, self.hop_s = (self._number(each) if kind == "audio" else 0.0 for each in ("window_s", "hop_s"))
        self.context_s, self.first_s = (
            self._number(each, least=0.0) if kind == "audio" else 0.0 for each in ("context_s", "first_s")
        )
        call = "states" if kind == "audio" else "rows"
        if not callable(getattr(made, call, None)):
            raise EncoderFailed(f"encoder {name}: what load gives has no method {call}")

    def as_attributes(self) -> dict[str, JsonValue]:
        """What a trial says of it beside its settings: what it is fed, and of sound where its states lie."""
        if self.kind != "audio":
            return {"kind": self.kind, **({"input_px": self.input_px} if self.kind == "face" else {})}
        numbers = ("sample_rate", "window_s", "context_s", "hop_s", "first_s", "field_s", "level")
        return {"kind": self.kind, **{each: getattr(self, each) for each in numbers}}

    def rows(self, batch: NDArray[Any] | Sequence[str]) -> NDArray[np.float32]:
        """Rows [N, dim] of faces uint8 [N, px, px, 3], or of N words. Raises EncoderFailed."""
        return self._checked(self.made.rows, batch, (len(batch), self.dim))

    def states(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """States [B, K, dim] of windows float32 [B, n]. Raises EncoderFailed."""
        found = self._checked(self.made.states, samples, (len(samples), None, self.dim))
        last_s, length_s = self.first_s + (found.shape[1] - 1) * self.hop_s, samples.shape[1] / self.sample_rate
        if found.shape[1] and last_s > length_s:
            raise EncoderFailed(
                f"encoder {self.name}: {found.shape[1]} states of {length_s:.3f} s: the last one would lie at "
                f"{last_s:.3f} s (first_s {self.first_s:g}, hop_s {self.hop_s:g})"
            )
        return found

    def _checked(self, call: Callable[[Any], Any], batch: Any, due: tuple[int | None, ...]) -> NDArray[np.float32]:
        with naming(self.name):
            found = call(batch)
        wanted = f"float32 [{', '.join('K' if each is None else str(each) for each in due)}]"
        if not isinstance(found, np.ndarray):
            raise EncoderFailed(f"encoder {self.name}: gave a {type(found).__name__}, not a NumPy array {wanted}")
        fits = found.ndim == len(due) and all(each in (None, have) for each, have in zip(due, found.shape, strict=True))
        if not fits or found.dtype != np.float32:
            raise EncoderFailed(f"encoder {self.name}: gave {found.dtype} {list(found.shape)} where {wanted} is due")
        if not np.isfinite(found).all():
            raise EncoderFailed(f"encoder {self.name}: gave NaN or infinity")
        return found

    def _number(
        self, what: str, usual: float | None = None, *, whole: bool = False, least: float | None = None
    ) -> float:
        value: Any = getattr(self.made, what, usual)
        is_number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if is_number and np.isfinite(value) and (value > 0 if least is None else value >= least):
            return float(value)
        kind = "a whole number of 1 or more" if whole else "a number above 0" if least is None else "0 or more"
        raise EncoderFailed(f"encoder {self.name}: {what} must be {kind}, got {value!r}")


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Make what an encoder raises an EncoderFailed that names it. Lack of memory stays ComputeError or MemoryError."""
    try:
        yield
    except (MemoryError, ComputeError, EncoderFailed):
        raise
    except (Exception, SystemExit) as error:  # somebody else's code may raise anything
        if isinstance(error, RuntimeError) and compute_error(error, "").is_transient:
            raise
        what = one_line(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {one_line(error)}"
        raise EncoderFailed(f"encoder {name}: {what}") from error


def load_encoder(
    name: str,
    settings: Mapping[str, Any],
    source: WeightSource | None,
    device: torch.device,
    precision: Precision,
    batch_size: int = 32,
) -> LoadedEncoder:
    """The encoder of a feature with these weights (None: it has none), under settings by name.

    Raises WeightsInvalid naming the folder, EncoderFailed, ValueError where a library is missing.
    """
    made = feature(name)
    module, said = module_of(made)
    check_needs(name, said)
    options = {option: str(settings[option]) for option in made.options if settings.get(option) is not None}
    options["feature"] = name
    if source is not None and source.untrained_seed is not None:
        options["untrained"] = str(source.untrained_seed)
    load = getattr(module, (made.load or "").rpartition(":")[2] or "load") if not made.is_own else module.load
    path = source.path if source is not None else None
    try:
        with naming(name):
            loaded = load(path, device, precision, options)
    except EncoderFailed as error:
        if path is None or made.is_own:
            raise
        raise WeightsInvalid(f"{path}: {str(error).removeprefix(f'encoder {name}: ')}") from error
    return LoadedEncoder(name, said.kind, loaded, batch_size)


def load_encoders(
    features: Sequence[str],
    settings: Mapping[str, Any],
    sources: Mapping[str, WeightSource],
    device: torch.device,
    precision: Precision,
    batch_size: int,
) -> dict[str, LoadedEncoder]:
    """Those of the features that are loaded from modules. Raises as `load_encoder`."""
    return {
        name: load_encoder(name, settings, sources.get(feature(name).network or ""), device, precision, batch_size)
        for name in features
        if feature(name).load is not None
    }
