"""Tables of text, Markdown and LaTeX, cut to fit a screen; and that of an evaluation's trials.

Numbers have three decimals. Tested by tests/fusion/results/test_tables.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter

from ..tasks.task import Scores, Task

_NONE = "–"
_NAME_WIDTH = 48


@dataclass(frozen=True)
class TrialScore:
    """Scores of one trial over its `rows` valid rows, by their keys; None for what was not trained."""

    trial: str
    rows: int
    scores: Scores


def trial_cells(scores: Iterable[TrialScore], task: Task) -> list[list[str]]:
    """Header and one row per trial, the worst P first, those without a score last; long names lose their middle."""
    rows = []
    for score in scores:
        name, half = score.trial, (_NAME_WIDTH - 1) // 2
        short = name if len(name) <= _NAME_WIDTH else f"{name[:half]}…{name[-half:]}"
        p = task.p(score.scores)
        numbers = [number(score.scores[each.key]) for each in task.tabled]
        rows.append((math.inf if p is None else p, name, [short, str(score.rows), *numbers]))
    rows.sort(key=itemgetter(0, 1))
    return [["trial", "rows", *(each.short for each in task.tabled)], *(cells for *_, cells in rows)]


def number(value: float | None) -> str:
    """Three decimals of a score `value`; a dash for none."""
    return _NONE if value is None else f"{value:z.3f}"


def markdown_table(cells: Sequence[Sequence[str]]) -> str:
    """A Markdown table; a `|` in a cell is escaped."""
    rows = [[cell.strip().replace("|", "\\|") for cell in row] for row in cells]
    rule = ["---", *["---:"] * (len(cells[0]) - 1)]
    return "".join(f"| {' | '.join(row)} |\n" for row in [rows[0], rule, *rows[1:]])


_LATEX = {
    "\\": r"\textbackslash{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "…": r"\dots{}",
    **{quote: f"{{{quote}}}" for quote in "\"'`"},
}
_SIGNED = re.compile(r"(\[?[-+]?\d[\d.,]*(?: ±\d[\d.]*|, [-+]?\d[\d.]*\])?|[-+]\d[\d.]*)")


def latex_table(cells: Sequence[Sequence[str]], caption: Sequence[str], foot: bool = False) -> str:
    """A table of LaTeX with the rules of booktabs; the last row stands under a rule of its own where it is the `foot`.

    Numbers with a sign, a spread or an interval become formulas; what LaTeX reads as its own in other cells is escaped.
    """

    def escaped_for_latex(text: str) -> str:
        return "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))

    lines = []
    for row in cells:
        words = []
        for cell in map(str.strip, row):
            is_formula = _SIGNED.fullmatch(cell) and set(cell) & set("+-±")
            formula = cell.replace("±", r"\pm ")
            words.append(f"${formula}$" if is_formula else escaped_for_latex(cell))
        lines.append(f"{' & '.join(words)} \\\\")
    body = [*lines[1:-1], r"\midrule", lines[-1]] if foot else lines[1:]
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}[tb]",
            r"\centering",
            *([f"\\caption{{{' '.join(f'{escaped_for_latex(line)}.' for line in caption)}}}"] if caption else []),
            f"\\begin{{tabular}}{{l{'r' * (len(cells[0]) - 1)}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def screen(lines: Sequence[str], max_lines: int, header_lines: int = 1) -> list[str]:
    """At most `max_lines` lines: the header, the first and last rows alike, and how many are left out between."""
    if len(lines) <= max_lines:
        return list(lines)
    kept = max(max_lines - header_lines - 1, 0)
    first = header_lines + (kept + 1) // 2
    last = len(lines) - kept // 2
    return [*lines[:first], f"… {last - first} of {len(lines) - header_lines} left out …", *lines[last:]]
