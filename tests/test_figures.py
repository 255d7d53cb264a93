"""compat/figures.py: the table of docs/performance.md is made of what the benchmark measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from compat import figures
from tqshim.bench.kinds import STDLIB, TURBO
from tqshim.bench.measurements import measurements

NONE = "\N{EN DASH}"


def document(name: str, metric: str, failures: dict[str, str] | None = None, **medians: float | None) -> dict[str, Any]:
    of_kinds = {
        kind: {"median": value, "ratios": {STDLIB: {"median": 0.5}} if kind == "TurboQueue" else {}}
        for kind, value in medians.items()
    }
    result = {"name": name, "metrics": {metric: {"kinds": of_kinds}}, "failures": failures or {}}
    return {"measurements": [result]}


def test_every_row_names_a_figure_of_the_benchmark() -> None:
    known = {(one.name, metric.name) for one in measurements() for metric in one.metrics}
    assert {(row.measurement, row.metric) for row in figures.ROWS} <= known
    assert len({row.label for row in figures.ROWS}) == len(figures.ROWS)


def test_figures_are_told_in_units_with_ratios_and_later_documents_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    documents = [
        document("making", "used", TurboQueue=1.0),
        document("making", "used", TurboQueue=40.4),
        document("exit", "time", **{STDLIB: None, TURBO: 0.002}),
    ]
    paths = []
    for number, one in enumerate(documents):
        paths.append(str(tmp_path / f"{number}.json"))
        Path(paths[-1]).write_text(json.dumps(one), "utf-8")
    assert figures.main(paths) == 0
    assert capsys.readouterr().out.splitlines() == [
        *figures.HEAD.splitlines(),
        f"| making, using once and closing a queue | {NONE} | {NONE} | 40 µs (0.50) | {NONE} | {NONE} |",
        f"| exit after unread items | never | {NONE} | 2 ms (0.50) | {NONE} | {NONE} |",
    ]


@pytest.mark.parametrize("measured", [{"measurements": []}, document("cpu/tuple", "used", TurboQueue=1.0)])
def test_documents_without_a_figure_make_no_table(tmp_path: Path, measured: dict[str, Any]) -> None:
    path = tmp_path / "figures.json"
    path.write_text(json.dumps(measured), "utf-8")
    with pytest.raises(SystemExit, match="none of these documents has a figure; measurements: bounded/1x1, "):
        figures.main([str(path)])


def test_a_failed_measurement_makes_no_table() -> None:
    with pytest.raises(SystemExit, match="roundtrip failed for TurboQueue: lost"):
        list(figures.table([document("roundtrip", "p50", {TURBO: "lost"})]))
