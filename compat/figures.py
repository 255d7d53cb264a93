"""The table of figures of docs/performance.md, from what the benchmark has measured.

    python -m tqshim bench --json > figures.json
    python -m tqshim bench --only exit --json > exit.json
    python -m compat.figures figures.json exit.json

Prints Markdown: medians, and in brackets the ratio to ``multiprocessing.Queue`` in the same round.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from tqshim.bench.kinds import FASTER_FIFO, KINDS, STDLIB, TURBO, many

COLUMNS: Final = (STDLIB, FASTER_FIFO, TURBO, many(FASTER_FIFO), many(TURBO))
HEAD: Final = (
    f"| what | `{STDLIB}` | {FASTER_FIFO} | `{TURBO}` | in batches of {KINDS[many(TURBO)].batch}: {FASTER_FIFO}"
    f" | `{TURBO}` |\n|---|---|---|---|---|---|"
)


class Row(NamedTuple):
    """One row: where its figures stand, and how they are told."""

    measurement: str
    metric: str
    label: str
    unit: str = ""
    factor: float = 1.0
    decimals: int = 0


def _shape(producers: int, consumers: int, unbounded: bool = False) -> Row:
    name = f"{producers}x{consumers}"
    label = f"{producers} \N{MULTIPLICATION SIGN} {consumers}"
    if unbounded:
        return Row(f"unbounded/{name}", "rate", f"{label}, unbounded", "", 1e-3)
    return Row(f"bounded/{name}", "rate", label, "", 1e-3)


ROWS: Final = (
    *(_shape(*shape) for shape in ((1, 1), (1, 10), (10, 1), (3, 20), (20, 3), (20, 20))),
    _shape(1, 1, True),
    _shape(3, 20, True),
    Row("roundtrip", "p50", "round trip, p50", "µs"),
    Row("roundtrip", "p99", "round trip, p99", "µs"),
    Row("roundtrip-busy", "p50", "the same beside three busy processes, p50", "µs"),
    Row("bytes/100KB", "rate", "`bytes` of 100 KB", "MB/s", 1e-6),
    Row("bytes/1MB", "rate", "`bytes` of 1 MB", "MB/s", 1e-6),
    Row("bytes/10MB", "rate", "`bytes` of 10 MB", "MB/s", 1e-6),
    Row("numpy/1MB", "rate", "numpy arrays of 1 MB", "MB/s", 1e-6),
    Row("numpy/10MB", "rate", "numpy arrays of 10 MB", "MB/s", 1e-6),
    Row("idle", "time", "idle: 40 consumers, % of a core", "", 1.0, 1),
    Row("making", "used", "making, using once and closing a queue", "µs"),
    Row("exit", "time", "exit after unread items", "ms", 1e3),
)


MEASURED: Final = tuple(dict.fromkeys(row.measurement for row in ROWS))


def _told(value: float | None, row: Row) -> str:
    if value is None:
        return "never"
    return f"{value * row.factor:,.{row.decimals}f} {row.unit}".strip()


def _two_digits(ratio: float) -> str:
    return f"{ratio:#.2g}".rstrip(".")


def _cell(result: dict[str, Any], row: Row, kind: str) -> str:
    if kind in result["failures"]:
        raise SystemExit(f"figures: {row.measurement} failed for {kind}: {result['failures'][kind]}")
    figure = result["metrics"][row.metric]["kinds"].get(kind)
    if figure is None:
        return "\N{EN DASH}"
    ratio = figure["ratios"].get(STDLIB)
    told = _told(figure["median"], row)
    return f"{told} ({_two_digits(ratio['median'])})" if ratio else told


def table(documents: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The lines of the table: rows that were measured, from the last document that has them."""
    results = {result["name"]: result for document in documents for result in document["measurements"]}
    yield HEAD
    for row in ROWS:
        if row.measurement in results:
            cells = (_cell(results[row.measurement], row, kind) for kind in COLUMNS)
            yield f"| {row.label} | {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table of the documents that are named."""
    parser = argparse.ArgumentParser(prog="python -m compat.figures", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("documents", nargs="+", metavar="FILE", help="what python -m tqshim bench --json has printed")
    documents = []
    for path in parser.parse_args(arguments).documents:
        with open(path, encoding="utf-8") as file:
            documents.append(json.load(file))
    lines = list(table(documents))
    if lines == [HEAD]:
        raise SystemExit(f"figures: none of these documents has a figure; measurements: {', '.join(MEASURED)}")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
