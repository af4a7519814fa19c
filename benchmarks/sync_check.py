"""How often `avfuse qc` is sure of an offset: of sound that belongs to the picture, and of sound that does not.

The threshold is chosen anew for each clip, without it, so that at most 2.5 % of the wrong pairs of the others are sure;
counted is what it then makes of the pairs with this clip. At the end: the threshold of all together.

    python benchmarks/sync_check.py STORE --talking NAME,...

STORE holds crop48 and logmel of clips; those that are `--talking` have their own sound, at the right time, and make the
right pairs, as they are and moved by 0.2 s. Every picture with the sound of another clip is a wrong pair, and so is a
clip with its own sound of more than 1.2 s later or earlier. A sound file becomes a clip by
`ffmpeg -f lavfi -i color=black:r=25 -i FILE -shortest OUT.mkv`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avfuse.apps.qc.mouth_and_voice import stored_mouth, stored_sound
from avfuse.apps.qc.sync import LEAST_CONFIDENCE, LEAST_R, Column, Offset, find_offset
from avfuse.features_store.store import FeatureStore

LENGTHS_S = (2.5, 4.0, 6.0, 8.0, 12.0, 16.0)
PLANTED_S = (-0.2, 0.0, 0.2)
CUTS, RIGHT_S, WRONG_SHARE = 12, 0.06, 0.025
THRESHOLDS = np.arange(2.0, 8.0, 0.05)


@dataclass(frozen=True)
class Clip:
    """Mouth [T, 2] and sound of a trial by their times, s; empty where there is none."""

    name: str
    mouth_s: Column
    mouth: Column
    sound_s: Column
    level: Column
    heard: NDArray[np.bool_]

    def against(self, other: Clip, mouth_at_s: float, sound_at_s: float, long_s: float) -> Offset | None:
        """The offset of a piece of this picture and a piece of the other's sound, both as if they began at 0."""
        seen = (self.mouth_s >= mouth_at_s) & (self.mouth_s < mouth_at_s + long_s)
        real = (other.sound_s >= sound_at_s) & (other.sound_s < sound_at_s + long_s)
        picture = self.mouth_s[seen] - mouth_at_s, self.mouth[seen]
        found = find_offset(*picture, other.sound_s[real] - sound_at_s, other.level[real], other.heard[real])
        return found if isinstance(found, Offset) else None


@dataclass(frozen=True)
class Pair:
    """What was found in a piece of `picture` with a piece of `sound`; `planted_s`: None of a wrong pair."""

    picture: str
    sound: str
    long_s: float
    planted_s: float | None
    found: Offset

    def is_sure(self, threshold: float) -> bool:
        return self.found.confidence >= threshold and self.found.correlation >= LEAST_R


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("--talking", required=True, help="trials with their own sound, separated by commas")
    arguments = parser.parse_args()
    clips = [clip_of(FeatureStore(arguments.store), name) for name in FeatureStore(arguments.store).trials()]
    pairs = list(all_pairs(clips, arguments.talking.split(",")))
    left_out = {clip.name: threshold_of([p for p in pairs if clip.name not in (p.picture, p.sound)]) for clip in clips}
    print("| length | wrong pairs | sure | right pairs | sure | of these within 0.06 s |\n|---|---|---|---|---|---|")
    for long_s in [*LENGTHS_S, float("inf")]:
        # A pair is judged by a threshold that has seen neither its picture nor its sound.
        alike = [(p, p.is_sure(max(left_out[p.picture], left_out[p.sound]))) for p in pairs if p.long_s == long_s]
        wrong = [sure for p, sure in alike if p.planted_s is None]
        right = [(p, sure) for p, sure in alike if p.planted_s is not None]
        near = [abs(p.found.offset_s - (p.planted_s or 0)) <= RIGHT_S for p, sure in right if sure]
        found = f"{len(near) / max(1, len(right)):.0%} | {sum(near)} of {len(near)}"
        share = f"{len(wrong)} | {np.mean(wrong):.1%}" if wrong else "0 | –"
        words = f"{long_s:g} s" if np.isfinite(long_s) else "whole clips"
        print(f"| {words} | {share} | {len(right)} | {found} |")
    print("thresholds without each clip:", sorted({round(value, 2) for value in left_out.values()}))
    print(f"of all: {threshold_of(pairs):.2f}; in use: {LEAST_CONFIDENCE}")
    for p in pairs:
        if p.planted_s is not None and not np.isfinite(p.long_s):
            print(f"{p.picture} moved by {p.planted_s:+.1f} s: {p.found.offset_s:+.2f} s, {p.found.in_words()}")


def clip_of(store: FeatureStore, name: str) -> Clip:
    trial = store[name]
    time_s = trial.time_s
    mouth = stored_mouth(trial, "crop48", [(0, trial.rows)])
    seen = np.isfinite(mouth).all(axis=1).any()
    mouth_s = time_s + np.median(np.diff(time_s)) / 2
    sound = stored_sound(trial, [(0, trial.rows)])
    heard = sound.real & (trial.attributes.get("audio") != "absent")
    return Clip(name, mouth_s, mouth if seen else mouth[:0], sound.time_s, sound.level, heard)


def all_pairs(clips: list[Clip], talking: list[str]) -> Iterator[Pair]:
    rng = np.random.default_rng(0)
    pictures = [clip for clip in clips if len(clip.mouth)]
    sounds = [clip for clip in clips if clip.heard.any()]
    for picture in pictures:
        for sound in sounds:
            own = picture.name == sound.name
            ends_s = picture.mouth_s[-1], sound.sound_s[-1]
            for long_s in (each for each in LENGTHS_S if each <= min(ends_s) + 0.05):
                # Pieces that are nearly the whole clip are nearly the same.
                for _ in range(1 + int(min(CUTS - 1, sum(ends_s) - 2 * long_s))):
                    mouth_at_s, sound_at_s = (rng.uniform(0, each + 0.05 - long_s) for each in ends_s)
                    if own and picture.name in talking:
                        yield from right_pairs(picture, mouth_at_s, long_s)
                    if own and abs(mouth_at_s - sound_at_s) < 1.2:
                        continue
                    if found := picture.against(sound, mouth_at_s, sound_at_s, long_s):
                        yield Pair(picture.name, sound.name, long_s, None, found)
            if own and picture.name in talking:
                yield from right_pairs(picture, 0.0, float("inf"))


def right_pairs(clip: Clip, at_s: float, long_s: float) -> Iterator[Pair]:
    for planted_s in PLANTED_S:
        if found := clip.against(clip, at_s, at_s - planted_s, long_s):
            yield Pair(clip.name, clip.name, long_s, planted_s, found)


def threshold_of(pairs: list[Pair]) -> float:
    """The least threshold at which at most 2.5 % of the wrong pairs are sure."""
    wrong = [pair for pair in pairs if pair.planted_s is None]
    return float(next(each for each in THRESHOLDS if np.mean([p.is_sure(each) for p in wrong]) <= WRONG_SHARE))


if __name__ == "__main__":
    main()
