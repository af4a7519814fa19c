"""A video with what was found in it: the face's box, and under the picture the traces that move with it.

    ┌──────────────┐
    │   ┌──┐       │  the picture, upright, of square pixels
    │   └──┘       │
    ├──────────────┤
    │ ▪ valence    │  the columns with their values now, and the time
    │ ──∿──│──∿──  │  5 s before and after now; grey where no feature comes from real media
    └──────────────┘

Tested by tests/apps/run/test_drawing.py.
"""

from __future__ import annotations

import wave
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ...features_store.clock import usual_step_s
from ...features_store.records.failures import Stage
from ...pipeline.media.readers import AudioReader, FrameReader, prefetch
from ...pipeline.media.types import MediaError, VideoInfo
from ...pipeline.media.writer import PictureWriter

_AROUND_S = 5.0
_NARROWEST_PX, _WIDEST_PX = 480, 1920
_JOINED_HZ = 48_000
# A container that is read anew gives the same stamps.
_SAME_TIME_S = 1e-6
# Okabe and Ito's colours, which colour-blind readers can distinguish, the light ones first: they lie on black.
_COLOURS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#D55E00", "#0072B2", "#FFFFFF")
_BACKGROUND, _GRID, _TEXT, _MASKED, _BOX = "#15181D", "#4A505A", "#E8E8E8", "#3A3F47", "#F0E442"
_FAINT = "#9AA1AB"


@dataclass(frozen=True)
class Drawn:
    """What is drawn over a video, frame by frame: all arrays have T rows, as many as the video has frames.

    `time_s` [T], s; `boxes` [T, 4] px of the displayed frame, NaN without a face (None: no boxes are known);
    `prediction` [T, C] of the `columns` within `limits`; `valid` bool [T]; `mark`: a word of warning, or nothing.
    """

    time_s: NDArray[np.float64]
    boxes: NDArray[np.float32] | None
    columns: Sequence[str]
    prediction: NDArray[np.float32]
    valid: NDArray[np.bool_]
    limits: tuple[float, float]
    mark: str = ""


def draw_video(
    info: VideoInfo,
    drawn: Drawn,
    out: Path,
    tell: Callable[[int], None] = lambda rows: None,
    stall_timeout_s: float = 60.0,
) -> None:
    """Write `out`, an MP4 with the frames of a video at their own times, and its sound. `tell`: rows so far.

    Raises MediaError where the video cannot be read or is another than the rows are of, or `out` cannot be written;
    it is removed then.
    """
    canvas = Canvas(info, drawn)
    last_s = usual_step_s(drawn.time_s) or 1 / 25
    durations_s = np.append(np.diff(drawn.time_s), last_s)
    row = 0
    try:
        sound = _joined_sound(info, out.with_name(f"{out.name}.wav"), stall_timeout_s)
        with (
            FrameReader(info, stall_timeout_s=stall_timeout_s) as reader,
            PictureWriter(out, canvas.size_px, info, last_s, stall_timeout_s, sound) as writer,
            closing(prefetch(reader, reader.kill)) as batches,
        ):
            for batch in batches:
                known = drawn.time_s[row : row + len(batch.time_s)]
                if len(known) < len(batch.time_s) or np.abs(batch.time_s - known).max() > _SAME_TIME_S:
                    raise MediaError(
                        str(info.path), Stage.VIDEO, f"its frames from {row} on are not those of the store"
                    )
                for pixels in batch.pixels:
                    writer.write(canvas.paint(pixels, row), float(drawn.time_s[row]), float(durations_s[row]))
                    row += 1
                tell(row)
            if row != len(drawn.time_s):
                words = f"{row} frames decode now, but the store has {len(drawn.time_s)}"
                raise MediaError(str(info.path), Stage.VIDEO, words)
    except BaseException:
        out.unlink(missing_ok=True)
        raise
    finally:
        out.with_name(f"{out.name}.wav").unlink(missing_ok=True)


def _joined_sound(info: VideoInfo, path: Path, stall_timeout_s: float) -> Path | None:
    """The sound of recordings that were joined in one file, on the one clock that its frames have; None of others."""
    if info.audio_stream is None or not (info.video_parts or info.audio_parts):
        return None
    with (
        AudioReader(info, stall_timeout_s=stall_timeout_s, rate_hz=_JOINED_HZ) as audio,
        wave.open(str(path), "wb") as file,
    ):
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_JOINED_HZ)
        for block in audio:
            file.writeframes((np.clip(block, -1, 1) * 32767).astype("<i2").tobytes())
    return path


class Canvas:
    """Paints frames of one video: `size_px`, even, is that of every picture."""

    def __init__(self, info: VideoInfo, drawn: Drawn) -> None:
        self._drawn = drawn
        width_px, height_px = info.width_px * float(info.pixel_aspect), float(info.height_px)
        scale = min(max(1.0, _NARROWEST_PX / width_px), _WIDEST_PX / max(width_px, height_px))
        # Both even: H.264 of common players has colours of 2 × 2 px.
        width, height = (max(2, 2 * round(side_px * scale / 2)) for side_px in (width_px, height_px))
        self._picture_px = width, height
        self._per_px = np.array([width / info.width_px, height / info.height_px] * 2)
        self._line_px = max(2, round(width / 320))
        self._font = font(max(13, round(width / 42)))
        self._legend, legend_px = self._lay_out(width)
        self._top_px = height + legend_px
        self._traces_px = max(90, width // 6)
        self.size_px = width, 2 * ((self._top_px + self._traces_px + 9) // 2)

    def paint(self, pixels: NDArray[np.uint8], row: int) -> NDArray[np.uint8]:
        """The frame [H, W, 3] of a row with its box and the traces around its time."""
        picture = Image.new("RGB", self.size_px, _BACKGROUND)
        frame = Image.fromarray(pixels)
        if frame.size != self._picture_px:
            frame = frame.resize(self._picture_px, Image.Resampling.BILINEAR)
        picture.paste(frame, (0, 0))
        draw = ImageDraw.Draw(picture)
        if self._drawn.boxes is not None:
            box = self._drawn.boxes[row] * self._per_px
            if np.isfinite(box).all():
                left, top, right, bottom = box.tolist()
                corners = (left, top, max(right, left), max(bottom, top))
                draw.rectangle(corners, outline=_BOX, width=self._line_px)
            else:
                self._write(draw, (8, 6), "no face", _BOX)
        # What lies over the edge of the picture is no part of the traces.
        draw.rectangle((0, self._picture_px[1], *self.size_px), fill=_BACKGROUND)
        self._paint_legend(draw, row)
        self._paint_traces(draw, row)
        return np.asarray(picture)

    def _lay_out(self, width: int) -> tuple[list[tuple[int, int]], int]:
        """Where each column's name stands, and then the time: x, and y below the picture; the height of all."""
        line_px = round(self._font.size * 1.5)
        places, x, y = [], 8, 4
        for text in (*(f"{name} −0.00" for name in self._drawn.columns), f"00:00:00.00 {self._drawn.mark}"):
            length_px = round(self._font.getlength(text) + 2.4 * self._font.size)
            if x + length_px > width and x > 8:
                x, y = 8, y + line_px
            places.append((x, y))
            x += length_px
        return places, y + line_px

    def _paint_legend(self, draw: ImageDraw.ImageDraw, row: int) -> None:
        size_px, below_px = round(self._font.size * 0.8), self._picture_px[1]
        for at, (name, (x, y)) in enumerate(zip(self._drawn.columns, self._legend, strict=False)):
            top = below_px + y + round(self._font.size * 0.25)
            draw.rectangle((x, top, x + size_px, top + size_px), fill=_COLOURS[at % len(_COLOURS)])
            value = f"{self._drawn.prediction[row, at]:+z.2f}".replace("-", "−")
            self._write(draw, (x + 1.3 * self._font.size, below_px + y), f"{name} {value}", _TEXT)
        time_s = self._drawn.time_s[row]
        clock = f"{int(time_s // 60)}:{time_s % 60:05.2f}"
        x, y = self._legend[-1]
        self._write(draw, (x, below_px + y), f"{clock}  {self._drawn.mark}".rstrip(), _TEXT)

    def _paint_traces(self, draw: ImageDraw.ImageDraw, row: int) -> None:
        drawn, (width, _) = self._drawn, self.size_px
        low, high = drawn.limits
        now_s, top_px, height_px = float(drawn.time_s[row]), self._top_px, self._traces_px
        first, stop = np.searchsorted(drawn.time_s, (now_s - _AROUND_S, now_s + _AROUND_S)).tolist()
        rows = slice(max(0, first - 1), min(len(drawn.time_s), stop + 1))
        across = (drawn.time_s[rows] - now_s + _AROUND_S) / (2 * _AROUND_S) * width

        def down(values: NDArray[np.float32] | float) -> NDArray[np.float64]:
            return np.asarray(top_px + 4 + (high - np.asarray(values, np.float64)) / (high - low) * (height_px - 8))

        # Grey behind each stretch of rows that no real media stand behind, up to the next row that has some.
        edges = np.flatnonzero(np.diff((~drawn.valid[rows]).astype(np.int8), prepend=0, append=0))
        for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            right = float(across[min(end, len(across) - 1)])
            draw.rectangle(
                (float(across[begin]), top_px, max(right, float(across[begin])), top_px + height_px), fill=_MASKED
            )
        for level in (low, (low + high) / 2, high):
            y = float(down(level))
            draw.line((0, y, width, y), fill=_GRID)
            self._write(draw, (4, y - 1.1 * self._font.size * (level < high)), f"{level:g}".replace("-", "−"), _FAINT)
        for at in range(len(drawn.columns)):
            points = np.stack([across, down(drawn.prediction[rows, at])], axis=1)
            colour = _COLOURS[at % len(_COLOURS)]
            if len(points) > 1:
                draw.line([tuple(point) for point in points.tolist()], fill=colour, width=self._line_px, joint="curve")
            y, radius = float(down(float(drawn.prediction[row, at]))), 1.6 * self._line_px
            draw.ellipse((width / 2 - radius, y - radius, width / 2 + radius, y + radius), fill=colour)
        draw.line((width / 2, top_px, width / 2, top_px + height_px), fill=_TEXT)

    def _write(self, draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, colour: str) -> None:
        draw.text(place, text, fill=colour, font=self._font)


@cache
def font(size_px: int) -> ImageFont.FreeTypeFont:
    """The letters that come with matplotlib: the same on every machine."""
    import matplotlib  # noqa: PLC0415 - slow to load

    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size_px)
