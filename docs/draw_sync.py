"""Draw docs/sync.svg: which sound a frame's row is made from, by the code that places it.

python docs/draw_sync.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from avfuse.features_store.clock import patch_start_frames

PAGE = Path(__file__).with_name("sync.svg")
_LEFT, _PX_A_SECOND, _PATCH_S = 172, 455, 0.96
_SOUND_S = (0.22, 1.58)  # it starts late, as a stream of a phone may, and ends before the picture
# A phone's picture: 10 frames/s, less in the dark, two frames dropped.
_TIMES_S = np.array([0.0, 0.1, 0.2, 0.34, 0.48, 0.78, 0.88, 0.98, 1.08, 1.22, 1.36, 1.46, 1.56, 1.66])
_SHOWN = (0, 4, 5, 13)
_HEAD = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 392" font-family="Helvetica, Arial, sans-serif"
  font-size="13" fill="#1d2b38">
  <title>Each row's patch of sound begins at its own frame's time; what has no real sound is flagged</title>
  <rect width="960" height="392" fill="#ffffff"/>
"""


def x(time_s: float) -> float:
    """Where a time is drawn, px from the left."""
    return round(_LEFT + _PX_A_SECOND * float(time_s), 1)


def drawing() -> str:
    """The text of docs/sync.svg."""
    parts = [_HEAD]
    for tenth in range(0, 17, 2):
        parts.append(f'  <path d="M{x(tenth / 10)} 30 V372" stroke="#e3e8ee"/>')
        parts.append(
            f'  <text x="{x(tenth / 10)}" y="20" text-anchor="middle" font-size="11">{tenth / 10:.1f} s</text>'
        )
    parts.append(
        '  <text x="12" y="62">picture</text><text x="12" y="78" font-size="11">each frame at its own PTS</text>'
    )
    for number, time_s in enumerate(_TIMES_S):
        shown = "#2f6db3" if number in _SHOWN else "#c9d9ea"
        parts.append(f'  <rect x="{x(time_s)}" y="46" width="30" height="34" rx="4" fill="{shown}" stroke="#ffffff"/>')
        colour = "#ffffff" if number in _SHOWN else "#1d2b38"
        parts.append(f'  <text x="{x(time_s) + 15}" y="68" text-anchor="middle" fill="{colour}">{number}</text>')
    even_s = np.arange(len(_TIMES_S)) * (_TIMES_S[-1] / (len(_TIMES_S) - 1))
    parts.append('  <text x="12" y="104" fill="#a33a2a">i / fps</text>')
    parts.append('  <text x="12" y="119" font-size="11" fill="#a33a2a">where it would be taken</text>')
    for number, (time_s, wrong_s) in enumerate(zip(_TIMES_S, even_s, strict=True)):
        width = 2.5 if number in _SHOWN else 1
        line = f"M{x(time_s) + 1} 84 L{x(wrong_s) + 1} 112"
        parts.append(f'  <path d="{line}" stroke="#c4604f" stroke-width="{width}"/>')
        parts.append(f'  <circle cx="{x(wrong_s) + 1}" cy="113" r="{1.5 + width / 2}" fill="#a33a2a"/>')
    start_s, stop_s = _SOUND_S
    parts.append('  <text x="12" y="152">sound</text><text x="12" y="168" font-size="11">on the same clock</text>')
    for left_s, right_s in ((0.0, start_s), (stop_s, 1.7)):
        parts.append(
            f'  <rect x="{x(left_s)}" y="134" width="{x(right_s) - x(left_s):.1f}" height="44" fill="#ececec"/>'
            f'<text x="{x((left_s + right_s) / 2)}" y="160" text-anchor="middle" font-size="10">none</text>'
        )
    at_s = np.arange(start_s, stop_s, 0.004)
    swing = 19 * np.sin(61 * at_s) * np.sin(1 + 3.1 * at_s) * np.sin(190 * at_s)
    wave = " ".join(f"{x(time_s)},{156 - y:.1f}" for time_s, y in zip(at_s, swing, strict=True))
    parts.append(f'  <polyline points="{wave}" fill="none" stroke="#8a6d1f"/>')
    parts.append(
        '  <text x="12" y="212">patches</text><text x="12" y="228" font-size="11">0.96 s from the log-mel</text>'
    )
    parts.append('  <text x="12" y="242" font-size="11">frame nearest to t</text>')
    for place, number in enumerate(_SHOWN):
        begin_s = float(patch_start_frames(_TIMES_S, "start")[number]) / 100
        is_real = start_s <= begin_s and begin_s + _PATCH_S <= stop_s
        top, width = 200 + 40 * place, min(_PATCH_S, 1.7 - begin_s) * _PX_A_SECOND
        fill, edge = ("#dcebdd", "#3f7d47") if is_real else ("#ececec", "#8a8a8a")
        parts.append(f'  <path d="M{x(_TIMES_S[number])} 80 V{top}" stroke="#2f6db3" stroke-dasharray="3 3"/>')
        parts.append(
            f'  <rect x="{x(begin_s)}" y="{top}" width="{width:.1f}" height="26" fill="{fill}" stroke="{edge}"/>'
        )
        text = f"row {number}: " + ("valid" if is_real else "flagged: not all of it is real sound")
        anchor, at = ("start", x(begin_s) + 8) if begin_s < 1.4 else ("end", x(begin_s) - 8)
        parts.append(f'  <text x="{at}" y="{top + 18}" text-anchor="{anchor}">{text}</text>')
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    PAGE.write_text(drawing(), encoding="utf-8")
