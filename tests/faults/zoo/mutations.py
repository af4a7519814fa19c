"""Whole clips to broken ones, seeded: number n of a seed is the same file on every machine."""

import random
from collections.abc import Callable, Mapping

ABSURD = (0, 1, 0x7F, 0x80, 0xFF)
ABSURD_WORDS = (0, 1, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 0xFFFF_FFF7, 30_000, 1 << 24)
HEAD_BYTES = 600


def flips(rng: random.Random, data: bytearray, others: list[bytes]) -> None:
    """Single bits anywhere."""
    for _ in range(1 << rng.randrange(8)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def head(rng: random.Random, data: bytearray, others: list[bytes]) -> None:
    """Bytes of the header to absurd ones."""
    for _ in range(1 << rng.randrange(5)):
        data[rng.randrange(min(HEAD_BYTES, len(data)))] = rng.choice(ABSURD)


def words(rng: random.Random, data: bytearray, others: list[bytes]) -> None:
    """Numbers of four bytes to absurd ones, in the header, or where an MP4 keeps its tables."""
    tables = [data.find(name) for name in (b"moov", b"stbl", b"stts", b"stsz", b"elst", b"mvhd", b"tkhd", b"mdhd")]
    near = rng.choice([0, *(place for place in tables if place >= 0)])
    for _ in range(1 << rng.randrange(4)):
        at = near + rng.randrange(min(200, max(1, len(data) - near - 4)))
        data[at : at + 4] = rng.choice(ABSURD_WORDS).to_bytes(4, rng.choice(["big", "little"]))


def cut(rng: random.Random, data: bytearray, others: list[bytes]) -> None:
    """The file ends early."""
    del data[rng.randrange(1, len(data)) :]


def zeros(rng: random.Random, data: bytearray, others: list[bytes]) -> None:
    """A block that the disk has lost."""
    at = rng.randrange(len(data))
    size = min(rng.choice([16, 512, 4096]), len(data) - at)
    data[at : at + size] = bytes(size)


def removed(rng: random.Random, data: bytearray, others: list[bytes]) -> None:
    """A block is missing."""
    at = rng.randrange(len(data))
    del data[at : at + rng.choice([1, 7, 188, 4096])]


def again(rng: random.Random, data: bytearray, others: list[bytes]) -> None:
    """A block comes many times."""
    at = rng.randrange(len(data))
    block = bytes(data[at : at + rng.choice([8, 188, 2048])])
    data[at:at] = block * rng.randrange(1, 20)


def splice(rng: random.Random, data: bytearray, others: list[bytes]) -> None:
    """The head of one file on the body of another."""
    other = rng.choice(others)
    data[rng.randrange(len(data)) :] = other[rng.randrange(len(other)) :]


KINDS: tuple[Callable[[random.Random, bytearray, list[bytes]], None], ...] = (
    flips,
    flips,
    head,
    words,
    words,
    cut,
    zeros,
    removed,
    again,
    splice,
)


def mutant(clips: Mapping[str, bytes], seed: int, number: int) -> tuple[str, bytes]:
    """Name and bytes of the `number`-th broken file of a seed."""
    rng = random.Random(f"{seed}/{number}")
    name = sorted(clips)[number % len(clips)]
    data = bytearray(clips[name])
    kinds = rng.choices(KINDS, k=rng.choice([1, 1, 2, 3]))
    for kind in kinds:
        if len(data) > 8:
            kind(rng, data, list(clips.values()))
    kinds_named = "+".join(kind.__name__ for kind in kinds)
    stem, _, suffix = name.rpartition(".")
    return f"{number:06d}_{stem}_{kinds_named}.{suffix}", bytes(data)
