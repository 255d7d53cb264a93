"""The pictures of docs/performance.md, drawn from docs/figures.json, from which the tables are made, too.

    python -m compat.pictures       # python tests/documents.py draws them, too

Equal figures give equal files, and the drawing needs no other package. A picture has bars, each with its least and
greatest figure, and below them the command, the commit and the day.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Iterator
from html import escape
from typing import Final, NamedTuple

from compat.figures import MAIN, ROOT, Figures, kept, program, program_names, source, two_digits
from tqshim.bench.kinds import FASTER_FIFO, STDLIB, TURBO, many

LABELS, BARS, RIGHT = 320, 480, 60
"""Pixels across: what is measured, the longest bar, its figure."""
WIDTH: Final = LABELS + BARS + RIGHT
BAR: Final = 12
GAP: Final = 8
LINE: Final = 15
STEPS: Final = 8
"""Of an axis, at most."""
COLOURS: Final = {STDLIB: "#8c8c8c", FASTER_FIFO: "#d98200", TURBO: "#1f77b4", many(TURBO): "#7fb8e0"}
"""Told apart with any eyes."""


SPREAD: Final = ("median", "min", "max")


class Bar(NamedTuple):
    kind: str
    median: float
    least: float
    greatest: float
    told: str


STYLES: Final = """
text { font: 12px sans-serif; fill: #222 }
.title { font-weight: bold }
.label { text-anchor: end }
.axis { text-anchor: middle; font-size: 10px }
.value { font-size: 10px }
.caption { font-size: 10px; fill: #555 }
.grid { stroke: #ddd }
.line { stroke: #c00 }
.spread { stroke: #222 }
"""

Rows = list[tuple[str, list[Bar]]]


def rates(figures: Figures) -> str:
    """Items a second over producers x consumers, and over bounds."""
    rows: Rows = []
    names = []
    for row in MAIN:
        if row.metric == "rate" and row.factor == 1e-3:
            names.append(row.measurement)
            kinds = figures[row.measurement]["metrics"]["rate"]
            found = {kind: [kinds[kind][each] / 1e3 for each in SPREAD] for kind in COLOURS if kind in kinds}
            rows.append((row.label, [Bar(kind, *values, f"{values[0]:,.0f}") for kind, values in found.items()]))
    title = "Thousand items a second, producers \N{MULTIPLICATION SIGN} consumers; the longer the better"
    return _drawn(title, rows, source(figures, names), {many(TURBO): f"{TURBO}, in batches of 100"})


def programs(figures: Figures) -> str:
    """The time of whole programs over their time with the standard library's queue."""
    rows: Rows = []
    names = program_names(figures)
    for name in names:
        ratio = figures[name]["metrics"]["wall"][TURBO]["ratios"][STDLIB]
        bar = Bar(TURBO, *(ratio[each] for each in SPREAD), two_digits(ratio["median"]))
        rows.append((program(name), [bar]))
    title = f"Whole programs: time from start to end, over that with {STDLIB}; the shorter the better"
    return _drawn(title, rows, source(figures, names), {TURBO: f"{TURBO}; the line: as long as with {STDLIB}"}, 1.0)


PICTURES: Final = {"docs/rates.svg": rates, "docs/programs.svg": programs}


# -- drawing


def _drawn(title: str, rows: Rows, source: str, names: dict[str, str], line: float | None = None) -> str:
    """A picture. ``names``: how it calls the kinds; ``line``: the value at which bars end if nothing differs."""
    shown = list(dict.fromkeys(bar.kind for _, bars in rows for bar in bars))
    step, end = _axis(max(bar.greatest for _, bars in rows for bar in bars))
    scale = BARS / end
    top = 3 * LINE + GAP
    bottom = top + sum(GAP + BAR * len(bars) for _, bars in rows) + GAP
    lines = list(_text(10, LINE, title, "title"))
    lines += _legend(shown, names)
    for number in range(round(end / step) + 1):
        across = LABELS + number * step * scale
        lines.append(_path(across, top, across, bottom, "grid"))
        lines += _text(across, bottom + LINE, f"{number * step:g}", "axis")
    down = float(top)
    for label, bars in rows:
        down += GAP
        lines += _text(LABELS - 8, down + BAR * len(bars) / 2 + 4, label.replace("`", ""), "label")
        for bar in bars:
            lines += _bar(bar, down, scale)
            down += BAR
    if line is not None:
        lines.append(_path(LABELS + line * scale, top, LABELS + line * scale, bottom, "line"))
    caption = textwrap.wrap(source.replace("`", ""), 150, break_on_hyphens=False)
    for number, words in enumerate(["Medians, and thin: least to greatest of the rounds.", *caption]):
        lines += _text(10, bottom + (number + 2.5) * LINE, words, "caption")
    return _picture(lines, round(bottom + (len(caption) + 3.5) * LINE))


def _picture(lines: Iterable[str], height: int) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">'
    ground = f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>'
    return "\n".join([head, f"<style>{STYLES}</style>", ground, *lines, "</svg>\n"])


def _legend(kinds: Iterable[str], names: dict[str, str]) -> Iterator[str]:
    across = 10.0
    for kind in kinds:
        name = names.get(kind, kind)
        yield f'<rect x="{across:g}" y="{2 * LINE - 9}" width="10" height="10" fill="{COLOURS[kind]}"/>'
        yield from _text(across + 14, 2 * LINE, name, "name")
        across += 34 + 6.5 * len(name)


def _bar(bar: Bar, down: float, scale: float) -> Iterator[str]:
    """A bar, a thin line from the least to the greatest, and the figure."""
    middle = down + BAR / 2
    size = f'width="{bar.median * scale:.1f}" height="{BAR - 2}"'
    yield f'<rect x="{LABELS}" y="{down + 1:g}" {size} fill="{COLOURS[bar.kind]}"/>'
    yield _path(LABELS + bar.least * scale, middle, LABELS + bar.greatest * scale, middle, "spread")
    yield from _text(LABELS + max(bar.median, bar.greatest) * scale + 4, middle + 3.5, bar.told, "value")


def _axis(greatest: float) -> tuple[float, float]:
    """The step of an axis, 1, 2 or 5 times a power of ten, and the value at its end."""
    power = 10.0 ** math.floor(math.log10(greatest / STEPS))
    step = next(power * times for times in (1, 2, 5, 10) if greatest <= power * times * STEPS)
    return step, math.ceil(greatest / step) * step


def _text(across: float, down: float, words: str, kind: str) -> Iterator[str]:
    yield f'<text x="{across:.1f}" y="{down:.1f}" class="{kind}">{escape(words)}</text>'


def _path(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def draw() -> list[str]:
    """Bring the pictures up to date; return which ones have changed."""
    changed = []
    for name, make in PICTURES.items():
        path, text = ROOT / name, make(kept())
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
            changed.append(path.name)
    return changed


if __name__ == "__main__":
    print(f"changed: {', '.join(draw()) or 'nothing'}")
