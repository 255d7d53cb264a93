"""The picture: throughput over the number of consumers.

Lives here: all that needs matplotlib, an optional extra that is imported only to draw.
"""

from __future__ import annotations

import importlib.util
from typing import Any, Final

from tqshim.bench.kinds import FASTER_FIFO, KINDS, STDLIB, TURBO, many

__all__ = ["GROUP", "SUFFIX", "draw", "why_not"]

GROUP: Final = "consumers"
"""The measurements whose figures are drawn."""
SUFFIX: Final = ".svg"
_LOOKS: Final = {
    # Colours that people with any colour vision can tell apart, on white and on black.
    STDLIB: ("#8c8c8c", "o", "-"),
    FASTER_FIFO: ("#d98200", "s", "-"),
    many(FASTER_FIFO): ("#d98200", "s", "--"),
    TURBO: ("#1f77b4", "D", "-"),
    many(TURBO): ("#1f77b4", "D", "--"),
}


def why_not(path: str) -> str:
    """Return why no picture can be drawn to that path; an empty text: one can be."""
    if not path.endswith(SUFFIX):
        return f"{path}: a picture is drawn as {SUFFIX}; give it such a name"
    if importlib.util.find_spec("matplotlib") is None:
        return "drawing needs matplotlib, which is not installed; pip install 'tqshim[plot]'"
    return ""


def draw(path: str, document: dict[str, Any]) -> None:
    """Draw the figures of a document to an SVG file.

    Raises ``ValueError`` if the document has no figures of ``GROUP``, ``OSError`` if the file can't be written."""
    results = [result for result in document["measurements"] if result["name"].startswith(f"{GROUP}/")]
    lines = {name: _line(name, results) for name in KINDS}
    if not any(lines.values()):
        raise ValueError(f"the picture shows {GROUP}, and none of them was measured")

    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as pyplot

    # Text is stored as text, not as outlines: it is small, and can be read aloud and searched.  The file has no date,
    # so that equal figures give equal files.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": GROUP, "font.family": "sans-serif"}):
        figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
        shown: set[int] = set()
        highest = 0.0
        for name, points in lines.items():
            if not points:
                continue
            counts, medians, least, greatest = zip(*points)
            shown |= set(counts)
            highest = max(highest, *greatest)
            colour, marker, style = _LOOKS[name]
            axes.plot(counts, medians, color=colour, marker=marker, linestyle=style, markersize=4, label=_label(name))
            axes.fill_between(counts, least, greatest, color=colour, alpha=0.15, linewidth=0)
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted(shown), [str(count) for count in sorted(shown)])
        axes.minorticks_off()
        axes.set_ylim(0, highest * 1.08)
        axes.set_xlabel("consumers (1 producer, 5-tuples, maxsize=100,000)")
        axes.set_ylabel("thousand items a second")
        machine = document["machine"]
        axes.set_title(
            f"Throughput, {machine['processors']} processors, {machine['python']}; bands: least to greatest of"
            f" {document['rounds']} rounds",
            fontsize=9,
        )
        axes.grid(axis="y", alpha=0.3)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.legend(frameon=False, fontsize=8, loc="upper right")
        figure.savefig(path, format="svg", metadata={"Date": None})
        pyplot.close(figure)


def _label(name: str) -> str:
    return name if "/" not in name else f"{name.partition('/')[0]}, batches of 100"


def _line(name: str, results: list[dict[str, Any]]) -> list[tuple[int, float, float, float]]:
    """Return a kind's points: number of consumers; median, least and greatest thousands of items a second."""
    points = []
    for result in results:
        figure = result["metrics"]["rate"]["kinds"].get(name)
        if figure:
            consumers = int(result["name"].partition("/")[2])
            points.append((consumers, figure["median"] / 1000, figure["min"] / 1000, figure["max"] / 1000))
    return sorted(points)
