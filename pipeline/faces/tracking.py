"""Which of the faces in each frame is the trial's: one face followed over time.

Every face is tracked, and each track has a presence: the share of the last second or so in which it was seen.

    presence of the followed ≥ ½   it stays; while it is not seen there is no face (nobody jumps in)
    below ½                        the policy chooses anew: among the steady ones, else among the confident ones
                                   (not for one frame alone, which may be a flash: at 1 frame/s)
    a cut                          all tracks end, the policy chooses at once

So neither a second person nor a flickering find (a face on a T-shirt) makes the choice jump back and forth.
The rules and their numbers are ours. Tested by tests/pipeline/faces/test_tracking.py.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..config import FacePolicy
from .detections import Detections, overlaps

PRESENCE_S = 1.0  # time constant: a face not seen for 0.7 s falls from 1 to ½
STEADY = 0.5
START_SCORE = 0.9  # to be chosen; a face already followed is kept at the detector's own threshold
MAX_SLOTS = 8  # people of one video under `all`
_FORGOTTEN_S = 3.0  # a track not seen for this long ends,
_FORGOTTEN_FRAMES = 3  # and in so many frames: at 1 frame/s three seconds are a flash and the frame after it
_MIN_OVERLAP = 0.3
_NEAR_SIDES = 0.75  # a fast face may move out of its own box: this near, in sides, and of like size, it is the same
_LIKE_SIZE = 2.0
_SIDE_MIN_AREA = 0.25  # a face this much smaller than the largest is background, not the person on that side


@dataclass(eq=False)
class Track:
    """One face over time: last box [4] px, when last seen, and its index in this frame if it is seen.

    `presence` in [0, 1]. `looked_s`: when it was last looked for; what is not looked for does not fade. `missed`: in
    how many frames since it was seen.
    """

    box: NDArray[np.float32]
    presence: float
    seen_s: float
    looked_s: float
    face: int | None
    missed: int = 0


@dataclass
class Tracks:
    """All faces of a video; `advance` takes one frame after the other."""

    tracks: list[Track] = field(default_factory=list)
    time_s: float | None = None

    def advance(self, faces: Detections, time_s: float, cut: bool, watched: Collection[Track] | None = None) -> None:
        """Give each face of the frame to the track it continues, or to a new one.

        `watched`: the tracks that were looked for in this frame; None: all of it was searched.
        """
        start = cut or self.time_s is None
        # Whoever is there from the start of a shot need not prove first that they stay.
        presence = STEADY if start or self.time_s is None else 1 - _fade(time_s - self.time_s)
        self.time_s = time_s
        self.tracks = [
            track
            for track in self.tracks
            if not start and (time_s - track.seen_s < _FORGOTTEN_S or track.missed < _FORGOTTEN_FRAMES)
        ]
        # Continue tracks, the best fitting pair first.
        fits = np.zeros((len(self.tracks), len(faces)))
        for row, track in enumerate(self.tracks):
            track.face = None
            fits[row] = affinity(track.box, faces.boxes)
        left = list(range(len(faces)))
        while fits.size and fits.max() > 0:
            row, face = (int(index) for index in np.unravel_index(int(fits.argmax()), fits.shape))
            track = self.tracks[row]
            track.box, track.seen_s, track.face = faces.boxes[face], time_s, face
            left.remove(face)
            fits[row], fits[:, face] = 0, 0
        for track in self.tracks:
            if watched is None or track in watched or track.face is not None:
                fade = _fade(time_s - track.looked_s)
                track.presence = track.presence * fade + (0.0 if track.face is None else 1 - fade)
                track.looked_s = time_s
                track.missed = track.missed + 1 if track.face is None else 0
        self.tracks += [Track(faces.boxes[face], presence, time_s, time_s, face) for face in left]


def _fade(seconds: float) -> float:
    return math.exp(-seconds / PRESENCE_S)


class Followers:
    """The faces of a trial: one under a policy, or under `all` every person at a slot of their own."""

    def __init__(self, policy: FacePolicy, size_px: tuple[int, int]) -> None:
        self._policy, self._size_px = policy, size_px  # width, height
        self._tracks = Tracks()
        self._slots: list[Track | None] = [None]

    @property
    def watched(self) -> list[Track]:
        """The followed faces that the last frame had."""
        return [slot for slot in self._slots if slot is not None and slot.face is not None]

    @property
    def missing(self) -> bool:
        """Whether nobody was seen in the last frame, or somebody who was there a moment ago was not."""
        unseen = [slot for slot in self._slots if slot is not None and slot.face is None]
        return not self.watched or any(slot.presence >= STEADY for slot in unseen)

    def __call__(self, faces: Detections, time_s: float, cut: bool, *, whole: bool = True) -> list[int | None]:
        """Index of each slot's face in this frame; under `all` the list grows when another person appears.

        `whole`: the whole frame was searched, not only where the watched faces were.
        """
        self._tracks.advance(faces, time_s, cut, None if whole else self.watched)
        alive = set(map(id, self._tracks.tracks))
        self._slots = [slot if slot is not None and id(slot) in alive else None for slot in self._slots]
        for number, slot in enumerate(self._slots):
            if slot is not None and slot.missed == 1 and _fade(time_s - slot.seen_s) < STEADY:
                continue  # one frame alone may be a flash, however long it lasts
            if slot is None or slot.presence < STEADY:
                self._slots[number] = self._choose(faces, slot)
        while self._policy == "all" and len(self._slots) < MAX_SLOTS:
            new = self._choose(faces, None)
            if new is None or new.presence < STEADY:  # a slot is for good: not for what is found once
                break
            self._slots.append(new)
        return [None if slot is None else slot.face for slot in self._slots]

    def _choose(self, faces: Detections, former: Track | None) -> Track | None:
        """A track that nobody has: by the policy among the steady ones seen, else the former, else a confident one."""
        owned = {id(slot) for slot in self._slots if slot is not None and slot is not former}
        seen = {track.face: track for track in self._tracks.tracks if track.face is not None and id(track) not in owned}
        confident, steady = np.zeros((2, len(faces)), np.bool_)
        for face, track in seen.items():
            confident[face] = faces.scores[face] >= START_SCORE
            steady[face] = track.presence >= STEADY
        chosen = select(faces, steady & confident, self._policy, self._size_px)
        if chosen is None and former is not None and former.face is not None:
            return former
        if chosen is None:
            chosen = select(faces, confident, self._policy, self._size_px)
        return former if chosen is None else seen[chosen]


def select(faces: Detections, free: NDArray[np.bool_], policy: FacePolicy, size_px: tuple[int, int]) -> int | None:
    """The face that a policy names in one frame of `size_px` (width, height) among those `free` (bool [F]), or None.

    `left` and `right` are sides as seen on the screen: of two people the one on that side; of one person only
    where the middle of the face lies in that half. `all` takes people from the left, one after the other.
    """
    which = np.flatnonzero(free)
    if not len(which):
        return None
    boxes = faces.boxes[which]
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    middle = np.array(size_px) / 2
    if policy == "central":
        return int(which[np.linalg.norm(centres - middle, axis=1).argmin()])
    if policy == "all":
        return int(which[centres[:, 0].argmin()])
    if policy == "largest":
        return int(which[areas.argmax()])
    outward = (-1 if policy == "left" else 1) * (centres[:, 0] - middle[0])
    large = areas >= _SIDE_MIN_AREA * areas.max()
    outward = np.where(large, outward, -np.inf)
    best = int(outward.argmax())
    return int(which[best]) if large.sum() > 1 or outward[best] > 0 else None


def affinity(box: NDArray[np.float32], boxes: NDArray[np.float32]) -> NDArray[np.float64]:
    """How well each of `boxes` [F, 4] continues `box` [4]: the overlap, a little for near ones of like size, or 0."""
    shared = overlaps(box, boxes)
    sides = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1, dtype=np.float64).clip(1e-9))
    side = math.sqrt(max(float(np.prod(box[2:] - box[:2], dtype=np.float64)), 1e-9))
    apart = np.linalg.norm((boxes[:, :2] + boxes[:, 2:] - box[:2] - box[2:]) / 2, axis=1)
    like = (sides < side * _LIKE_SIZE) & (side < sides * _LIKE_SIZE)
    near = like & (apart < _NEAR_SIDES * (side + sides) / 2)
    return np.where(shared >= _MIN_OVERLAP, 1 + shared, np.where(near, 1 - apart / (side + sides), 0.0))
