"""Views of the store that stand where the rows of a tuned backbone will be: crops as they are, and log-mel patches.

Patches of neighbouring rows overlap by 92 or 93 of their 96 frames. They are put back to the 100 Hz spectrogram that
they were cut from, a seventeenth of the memory at 30 frames/s, and are cut out of it again on the device:

    patch i      ├──────────────┤                  frames [firsts[i], firsts[i] + 96)
    patch i+1       ├──────────────┤               adds the frames past the end of patch i, if the rest is the same
    frames       ─────────────────────             bit for bit; a patch that does not agree is kept whole

Tested by tests/fusion/data/test_views.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...features_store.clock import LOGMEL_RATE_HZ, PATCH_FRAMES, fit_time
from ...features_store.trial import Trial, fill_rows

LOGMEL = "logmel"
_BLOCK_ROWS = 512


@dataclass(frozen=True)
class View:
    """The array of the store that a backbone makes a modality's rows of, and how many numbers per row then has."""

    stored: str
    dim: int


@dataclass(frozen=True)
class PatchTable:
    """Log-mel patches [*firsts.shape, 96, 64]: patch i is `frames` float32 [F, 64] from `firsts[i]` on, 96 of them."""

    frames: Tensor
    firsts: Tensor

    def __len__(self) -> int:
        return len(self.firsts)

    def to(self, device: torch.device) -> PatchTable:
        """The same patches on a device."""
        return PatchTable(
            self.frames.to(device, non_blocking=True),
            self.firsts.to(device, non_blocking=True),
        )

    def take(self, rows: Tensor) -> Tensor:
        """Patches float32 [n, 96, 64] at `rows` int64 [n] of the flattened table."""
        firsts = self.firsts.flatten().index_select(0, rows)
        return self.frames[firsts[:, None] + torch.arange(PATCH_FRAMES, device=firsts.device)]

    def gather(self, starts: Tensor, lengths: Tensor, window: int) -> PatchTable:
        """Patches [B, window] of windows of consecutive rows, with no more frames than these windows have.

        Where a window is longer than its trial, any of its patches follow.
        """
        frames, firsts, held = [], torch.zeros(len(starts), window, dtype=torch.int64), 0
        for at, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
            own = self.firsts[start : start + length]
            begin, end = int(own.min()), int(own.max()) + PATCH_FRAMES
            firsts[at] = held
            firsts[at, :length] += own.cpu() - begin
            frames.append(self.frames[begin:end])
            held += end - begin
        together = torch.cat(frames)
        return PatchTable(together, firsts.to(together.device))


def take_rows(view: Tensor | PatchTable, rows: Tensor) -> Tensor:
    """What a view [B, W, ...] holds at `rows` int64 [n] of its B · W rows, on the device of both."""
    return view.take(rows) if isinstance(view, PatchTable) else view.flatten(0, 1).index_select(0, rows)


def patch_steps(trial: Trial, count: int) -> NDArray[np.int64]:
    """By how many frames of the spectrogram each row's patch begins after the one before, [count]; the first: 0.

    Wherever a patch lies about its row's time, it is at the nearest frame: docs/sources.md (Audio rows).
    """
    starts = np.rint(fit_time(trial.time_s, count) * LOGMEL_RATE_HZ).astype(np.int64)
    return np.diff(starts, prepend=starts[:1])


def spectrogram_bytes(trial: Trial, array: str, count: int) -> int:
    """About how much memory the spectrogram of a trial's patches takes."""
    frames = PATCH_FRAMES + int(patch_steps(trial, count).clip(0, PATCH_FRAMES).sum())
    return frames * int(trial[array].shape[-1]) * 4


def join_patches(
    trial: Trial, array: str, count: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_]]:
    """A trial's patches as `frames` float32 [F, 64] and the first frame of each, int64 [count]; which are not finite.

    Cut again, they are the stored patches bit for bit. Raises StoreMismatch if rows are broken or missing.
    """
    steps = patch_steps(trial, count)
    frames: list[NDArray[np.float32]] = []
    firsts, broken = np.zeros(count, np.int64), np.zeros(count, np.bool_)
    before: NDArray[np.float32] | None = None
    held = 0
    for begin in range(0, count, _BLOCK_ROWS):
        stop = min(begin + _BLOCK_ROWS, count)
        block = np.zeros((stop - begin + 1, *trial[array].shape[1:]), np.float32)  # the row before it first
        broken[begin:stop] = fill_rows(trial, array, begin, block[1:])
        added = _frames_added(block, steps[begin:stop], before)
        ends = held + np.cumsum(added)
        firsts[begin:stop] = ends - PATCH_FRAMES
        frames += [patch[PATCH_FRAMES - new :] for patch, new in zip(block[1:], added, strict=True) if new]
        held, before = int(ends[-1]), block[-1].copy()
        frames = [np.concatenate(frames)]
    return frames[0], firsts, broken


def _frames_added(
    block: NDArray[np.float32], steps: NDArray[np.int64], before: NDArray[np.float32] | None
) -> NDArray[np.int64]:
    """How many frames each patch of block[1:] adds to those before it: its step, none if it is the same, or all 96."""
    added = np.full(len(steps), PATCH_FRAMES, np.int64)
    if before is not None:
        block[0] = before
    follows = np.ones(len(steps), np.bool_)
    follows[0] = before is not None
    for step in np.unique(steps):
        if 0 <= step < PATCH_FRAMES:
            rows = np.flatnonzero((steps == step) & follows)
            overlap = block[rows + 1, : PATCH_FRAMES - step] == block[rows, step:]
            added[rows[overlap.all(axis=(1, 2))]] = step
    unlike = np.flatnonzero((added == PATCH_FRAMES) & follows)
    added[unlike[(block[unlike + 1] == block[unlike]).all(axis=(1, 2))]] = 0
    return added


def empty_rows(view: Tensor | PatchTable, rows: Tensor, at_once: int) -> Tensor:
    """Which of `rows` int64 [n] of a view hold nothing but zeros, bool [n]: there was no face, or no sound.

    `extract` gives such rows zeros in place of an embedding, so a backbone is not asked.
    """
    parts = [(take_rows(view, part) == 0).flatten(1).all(1) for part in torch.split(rows, at_once)]
    return torch.cat(parts)
