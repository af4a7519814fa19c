"""Whether an encoder does what it declares: what `avfuse encoder check` looks at, one line each.

    all     what load gives · shape, type, finite · the same twice · a batch as one by one · the same when loaded anew
    face    tells faces apart
    audio   a state more a hop · a click is seen where the state lies · no drift · what the context is worth

Where a click is in the sound is known to the sample, so that times are measured and not believed.
Tested by tests/encoders/test_check.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..shell.text import counted, one_line
from .loading import LoadedEncoder

Word = Literal["ok", "note", "FAILED"]
_ROUNDING = 1e-4  # of a batch, relative to the rows
_MUCH = 0.1  # of what bf16 and fp16 may lose: twelve layers of random weights lose 0.046 on average, 0.06 in a batch
_CONTEXT = 0.02  # of the state of one moment in two windows
_CLICK_S = 0.002
# Loud where it is, and next to nothing of the whole: base models begin with a norm over all of it.
_CLICK, _NOISE = 0.5, 0.05
_HOPS = 10
_WORDS = ["ask", "not", "what", "your", "country", "can", "do", "for", "you"]


@dataclass(frozen=True)
class Check:
    """One thing looked at, and what was found; a `note` is no failure, but should be known."""

    what: str
    word: Word
    found: str


def check_encoder(
    load: Callable[[], LoadedEncoder], load_exact: Callable[[], LoadedEncoder] | None = None
) -> Iterator[Check]:
    """Load an encoder, ask it all there is to ask, and load it again. What it raises is the end, and a failure.

    `load_exact` loads it in fp32, where `load` does not.
    """
    try:
        encoder = load()
        yield Check("loads", "ok", f"{encoder.kind}, {encoder.dim} numbers per row{_times(encoder)}")
        inputs = _inputs(encoder)
        rows = _ask(encoder, inputs)
        yield Check("shape, type, finite", "ok", f"float32 {list(rows.shape)} of {len(inputs)} inputs")
        yield _same("the same twice", rows, _ask(encoder, inputs), 0.0)
        if encoder.kind == "words":  # the words of a segment are each other's context
            yield from _deviation(rows, "words")
        else:
            singly = np.concatenate([_ask(encoder, inputs[number : number + 1]) for number in range(len(inputs))])
            yield _same("a batch as one by one", rows, singly, _ROUNDING if load_exact is None else _MUCH)
            yield from _deviation(rows, "faces" if encoder.kind == "face" else "sounds")
        if encoder.kind == "audio":
            yield from _of_sound(encoder)
        yield _same("the same when loaded anew", rows, _ask(load(), inputs), 0.0)
        if load_exact is not None:
            exact = _ask(load_exact(), inputs)
            off = float(np.abs(rows - exact).mean() / (np.abs(exact).mean() or 1.0))
            much = "" if off <= _MUCH else "; this network, or this machine, is not made for this precision"
            yield Check("near its rows in fp32", "note" if much else "ok", f"off by {off:.2%} on average{much}")
    except (ValueError, OSError) as error:
        yield Check("answers", "FAILED", one_line(error))


def _times(encoder: LoadedEncoder) -> str:
    if encoder.kind == "face":
        return f", from faces of {encoder.input_px} px"
    if encoder.kind == "words":
        return ""
    return (
        f", a state every {encoder.hop_s * 1000:g} ms from {encoder.first_s * 1000:g} ms on, at {encoder.sample_rate} "
        f"Hz, in windows of {encoder.window_s:g} s with {encoder.context_s:g} s of context"
    )


def _inputs(encoder: LoadedEncoder) -> NDArray[np.uint8] | NDArray[np.float32] | list[str]:
    """Smooth pictures of noise, blank ones among them; bursts of noise; words."""
    rng = np.random.default_rng(0)
    if encoder.kind == "words":
        return _WORDS
    if encoder.kind == "audio":
        sound = rng.standard_normal((3, _length(encoder))).astype(np.float32) * 0.05
        sound[1] *= np.sin(np.arange(sound.shape[1]) * 2 * np.pi / encoder.sample_rate).astype(np.float32)
        sound[2] = 0
        return sound
    side = encoder.input_px
    coarse = rng.integers(0, 256, (5, -(-side // 8), -(-side // 8), 3), dtype=np.uint8)
    faces = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :side, :side].copy()
    faces[3], faces[4] = 0, 255
    return faces


def _length(encoder: LoadedEncoder, windows: float = 1.0) -> int:
    return round((encoder.window_s * windows + 2 * encoder.context_s) * encoder.sample_rate)


def _ask(encoder: LoadedEncoder, inputs: NDArray[np.uint8] | NDArray[np.float32] | list[str]) -> NDArray[np.float32]:
    """Rows, or states. Raises EncoderFailed, as where the inputs are written to."""
    before = None if isinstance(inputs, list) else inputs.copy()
    if encoder.kind == "audio" and isinstance(inputs, np.ndarray):
        found = encoder.states(inputs)  # type: ignore[arg-type]
    else:
        found = encoder.rows(inputs)
    if before is not None and not np.array_equal(before, inputs):
        raise ValueError(f"encoder {encoder.name}: writes to what it is given")
    return found


def _difference(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Largest difference, as a part of the root mean square of `one`."""
    if one.shape != other.shape:
        return float("inf")
    scale = float(np.sqrt(np.mean(np.square(one, dtype=np.float64)))) or 1.0
    return float(np.abs(one.astype(np.float64) - other).max(initial=0)) / scale


def _same(what: str, one: NDArray[np.float32], other: NDArray[np.float32], most: float) -> Check:
    off = _difference(one, other)
    found = "bit for bit" if off == 0 else f"off by {off:.1e} of a row's size"
    allowed = "" if off <= most else f"; {most:g} is allowed" if most else "; none is allowed"
    return Check(what, "ok" if off <= most else "FAILED", found + allowed)


def _deviation(rows: NDArray[np.float32], what: str) -> Iterator[Check]:
    """Rows that do not depend on the input are a network without weights, or one that is fed wrongly."""
    deviation = float(rows.reshape(-1, rows.shape[-1]).std(axis=0).mean())
    yield Check(f"tells {what} apart", "ok" if deviation > 0 else "FAILED", f"standard deviation {deviation:.2g}")


def _of_sound(encoder: LoadedEncoder) -> Iterator[Check]:
    """Times and context, measured. A state's place is that of the click that changes it most."""
    rate, hop = encoder.sample_rate, encoder.hop_s
    rng = np.random.default_rng(1)
    sound = (rng.standard_normal((1, _length(encoder))) * _NOISE).astype(np.float32)
    states = encoder.states(sound)[0]
    if len(states) <= _HOPS:
        few = counted(len(states), "state")
        yield Check("where its states lie", "note", f"not measured: a window has {few}")
        return
    # As many states more as hops.
    shorter = encoder.states(sound[:, : sound.shape[1] - round(_HOPS * hop * rate)])[0]
    more = len(states) - len(shorter)
    yield Check("a state more a hop", "ok" if more == _HOPS else "FAILED", f"{more} states for {_HOPS} hops of sound")
    off_s = []
    length_s = sound.shape[1] / rate
    for part in (0.1, 0.37, 0.63, 0.9):
        at = round((encoder.first_s + round(part * length_s / hop) * hop) * rate)
        clicked = sound.copy()
        half = max(1, round(_CLICK_S * rate / 2))
        clicked[0, at - half : at + half] += _CLICK
        change = np.linalg.norm(encoder.states(clicked)[0] - states, axis=1)
        most = int(change.argmax())
        off_s.append(encoder.first_s + most * hop - at / rate)
    allowed_s = max(1.5 * hop, 0.03)
    worst_s, drift_s = max(map(abs, off_s)), abs(off_s[-1] - off_s[0])
    yield Check(
        *("a click is seen where its state lies", "ok" if worst_s <= allowed_s else "FAILED"),
        f"off by {worst_s * 1000:.1f} ms at most; {allowed_s * 1000:.0f} ms is allowed",
    )
    # Each window begins on the sound's own clock: what an hour can be off, one window is.
    yield Check(
        *("no drift over an hour", "ok" if drift_s <= hop + 1e-9 else "FAILED"),
        f"{drift_s * 1000:.1f} ms from the beginning of a window to its end, and each begins anew",
    )
    shift = round(round(encoder.window_s / 2 / hop) * hop * rate)
    long = (rng.standard_normal((1, _length(encoder) + shift)) * 0.05).astype(np.float32)
    first, second = (encoder.states(long[:, start : start + sound.shape[1]])[0] for start in (0, shift))
    begin, moved = round(encoder.context_s / hop), round(shift / rate / hop)
    end = begin + int(encoder.window_s / hop)
    pair = first[begin + moved : end], second[begin : end - moved]
    off = _difference(*pair)
    yield Check(
        *("one moment in two windows", "ok" if off <= _CONTEXT else "note"),
        f"differs by {off:.1e} of a state's size" + ("" if off <= _CONTEXT else ": states know their place"),
    )
