"""An MP4 as a tree of boxes, and an AVI's header, to put absurd numbers into."""

import struct
from collections.abc import Callable, Iterator
from typing import Any

_HOLDS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"dinf"}
Box = list[Any]  # [type, bytes or boxes]


def parse(data: bytes) -> list[Box]:
    """Boxes of a whole, sound file."""
    boxes, at = [], 0
    while at + 8 <= len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + size]
        boxes.append([kind, parse(body) if kind in _HOLDS else body])
        at += size
    return boxes


def build(boxes: list[Box]) -> bytes:
    """The bytes of boxes."""
    bodies = ((kind, build(body) if isinstance(body, list) else body) for kind, body in boxes)
    return b"".join(struct.pack(">I4s", 8 + len(body), kind) + body for kind, body in bodies)


def walk(boxes: list[Box]) -> Iterator[Box]:
    """Every box below."""
    for box in boxes:
        yield box
        if isinstance(box[1], list):
            yield from walk(box[1])


def tracks(boxes: list[Box]) -> list[Box]:
    """Track boxes in order."""
    return [box for box in walk(boxes) if box[0] == b"trak"]


def changed(data: bytes, track: int | None, **bodies: bytes | Callable[[bytes], bytes] | None) -> bytes:
    """An MP4 with the boxes of these names in a track (None: everywhere) replaced; None makes them `free`."""
    boxes = parse(data)
    for box in walk(boxes if track is None else tracks(boxes)[track][1]):
        name = box[0].decode("latin-1")
        if name in bodies:
            new = bodies[name]
            if new is None:
                box[0] = b"free"
            else:
                box[1] = new(box[1]) if callable(new) else new
    return build(boxes)


def put(at: int, form: str, *values: float) -> Callable[[bytes], bytes]:
    """A change of a body: `values` packed at a place of it."""
    packed = struct.pack(form, *values)
    return lambda body: body[:at] + packed + body[at + len(packed) :]


def numbers(*values: int) -> bytes:
    """Big-endian numbers of four bytes."""
    return struct.pack(f">{len(values)}I", *values)


def in_avi(data: bytes, after: bytes, at: int, form: str, *values: int, nth: int = 0) -> bytes:
    """An AVI with `values` at a place of the body of its `nth` chunk named `after`."""
    start = -1
    for _ in range(nth + 1):
        start = data.index(after, start + 1)
    packed = struct.pack(form, *values)
    begin = start + 8 + at
    return data[:begin] + packed + data[begin + len(packed) :]
