"""Figures for a person, and for a program.

Lives here: tables, and the replacement of what JSON does not know.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

from tqshim.bench.kinds import FASTER_FIFO, KINDS, STDLIB, TURBO
from tqshim.bench.measurements import Measurement

__all__ = ["head", "shown", "side_by_side", "table", "without_infinity"]

_NAME: Final = 26
_FIGURE: Final = 30
_RATIO: Final = 26
_SHORT: Final = 11


def head(document: dict[str, Any]) -> Iterator[str]:
    """Yield the lines above the tables: where the figures come from, and how they were taken."""
    yield document["command"]
    told = dict(document["machine"])
    versions = told.pop("versions")
    yield ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in told.items())
    yield ", ".join(f"{name} {value}" for name, value in versions.items())
    yield (f"rounds {document['rounds']}, none begins a run after {document['within']:g} s; median (least to greatest)")
    if document["skipped"]:
        yield f"not installed, skipped: {', '.join(document['skipped'])}"
    yield ""


def table(measurement: Measurement, result: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of one measurement."""
    yield f"{measurement.name}: {measurement.title} ({100 * result['scale']:.3g} % of the full counts)"
    for metric in measurement.metrics:
        figures = result["metrics"][metric.name]["kinds"]
        if figures:
            title = ", ".join(filter(None, (metric.name, metric.unit)))
            line = f"  {title:{_NAME}}{'':{_FIGURE}}"
            if metric.compared:
                line += f"{'x ' + measurement.base:>{_RATIO}}"
                if any(KINDS[name].rival in figure["ratios"] for name, figure in figures.items()):
                    line += f"{'x ' + FASTER_FIFO:>{_RATIO}}"
            yield line.rstrip()
        for name, figure in figures.items():
            line = f"    {name:{_NAME - 2}}{shown(figure, metric.decimals, metric.divisor):>{_FIGURE}}"
            for other in (measurement.base, KINDS[name].rival):
                ratio = figure["ratios"].get(other)
                line += f"{shown(ratio, 2) if ratio else '':>{_RATIO}}"
            yield line.rstrip()
    for name, failure in result["failures"].items():
        yield f"  {name:{_NAME}}FAILED: {failure}"
    yield ""


def side_by_side(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield a table of measurements that have the same metrics, a line each: medians of the standard library's queue
    and of ours, and the ratio of both within a round."""
    units = {name: metric["unit"] for result in results for name, metric in result["metrics"].items()}
    yield f"{'':{_NAME}}" + "".join(f"{f'{name}, {unit}':>{2 * _SHORT + _RATIO}}" for name, unit in units.items())
    yield f"{'':{_NAME}}" + f"{'stdlib':>{_SHORT}}{TURBO:>{_SHORT}}{'x stdlib':>{_RATIO}}" * len(units)
    for result in results:
        line = f"{result['name']:{_NAME}}"
        for metric in result["metrics"].values():
            figures = metric["kinds"]
            for kind in (STDLIB, TURBO):
                line += f"{_median(figures, kind):>{_SHORT}}"
            ratio = figures[TURBO]["ratios"].get(STDLIB) if TURBO in figures else None
            line += f"{shown(ratio, 2) if ratio else '':>{_RATIO}}"
        yield line.rstrip()
        for kind, failure in result["failures"].items():
            yield f"  {kind:{_NAME}}FAILED: {failure}"
    yield ""


def _median(figures: dict[str, Any], kind: str) -> str:
    return f"{figures[kind]['median']:.3f}" if kind in figures else ""


def shown(figure: dict[str, float], decimals: int, divisor: float = 1.0) -> str:
    """A median and its spread, as text."""

    def one(value: float) -> str:
        return "never" if math.isinf(value) else f"{value / divisor:,.{decimals}f}"

    return f"{one(figure['median'])} ({one(figure['min'])} to {one(figure['max'])})"


def without_infinity(value: Any) -> Any:
    """Return a copy of the value with ``None`` in place of infinity, which JSON does not know."""
    if isinstance(value, dict):
        return {key: without_infinity(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_infinity(inner) for inner in value]
    return None if isinstance(value, float) and math.isinf(value) else value
