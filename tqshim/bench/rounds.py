"""The order in which measurements are taken, and what their runs come to.

Lives here: rounds, ratios, medians and spread.  Not here: what a run does (``runs``).

Each round takes every measurement once (but for long ones, which sit out later rounds), and of each measurement one run
of every kind of queue, one after the other.  Every ratio is between two runs of one round, a moment apart, so that a
machine which becomes slower for a while slows both sides.

Invariant: no run begins after the time is up.  How long a run may last is not decided here (``crew``).
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from tqshim.bench.crew import RunError
from tqshim.bench.kinds import Kind
from tqshim.bench.measurements import Measurement
from tqshim.bench.runs import Setting

__all__ = ["SCHEMA", "Runs", "spread", "take"]

SCHEMA: Final = 1
"""The version of the JSON document; it grows when a key changes its meaning or goes."""
OUT_OF_TIME: Final = "not measured: the time was up before its turn"


@dataclasses.dataclass
class Runs:
    """The runs of one measurement."""

    measurement: Measurement
    kinds: Sequence[Kind]
    setting: Setting
    values: dict[str, list[dict[str, float]]] = dataclasses.field(default_factory=dict)
    """By kind, a dictionary for each run: figures by the names of the metrics.  A kind without a run has no entry."""
    failures: dict[str, str] = dataclasses.field(default_factory=dict)
    """By kind: what went wrong.  A kind that has failed takes no further turns, and its figures don't count."""
    seconds: float = 0.0

    def take_turns(self, until: float, say: Callable[[str], None]) -> bool:
        """Run every kind once.  ``False``: the time was up before all had their turn."""
        for kind in self.kinds:
            if kind.name in self.failures:
                continue
            began = time.monotonic()
            if began >= until:
                return False
            say(f"{self.measurement.name}, {kind.name}")
            try:
                values = self.measurement.run(kind, self.setting)
            except RunError as failure:
                self.failures[kind.name] = str(failure)
                say(f"{self.measurement.name}, {kind.name} FAILED: {failure}")
            else:
                names = [metric.name for metric in self.measurement.metrics]
                self.values.setdefault(kind.name, []).append(dict(zip(names, values)))
            self.seconds += time.monotonic() - began
        return True

    def result(self) -> dict[str, Any]:
        """Return figures, ratios and failures, ready for JSON but for infinite figures."""
        measurement = self.measurement
        metrics = {}
        failures = dict(self.failures)
        for kind in self.kinds:
            if kind.name not in self.values:
                failures.setdefault(kind.name, OUT_OF_TIME)
        for metric in measurement.metrics:
            columns = {
                kind.name: [values[metric.name] for values in self.values[kind.name]]
                for kind in self.kinds
                if kind.name not in failures
            }
            figures: dict[str, Any] = {}
            for kind in self.kinds:
                if kind.name in failures:
                    continue
                values = columns[kind.name]
                ratios = {
                    # Both runs of a ratio belong to the same round; the last round may lack one.
                    other: spread([_ratio(value, base) for value, base in zip(values, columns[other])])
                    for other in (measurement.base, kind.rival)
                    if metric.compared and other != kind.name and other in columns
                }
                figures[kind.name] = {"runs": values, **spread(values), "ratios": ratios}
            metrics[metric.name] = {"unit": metric.unit, "divisor": metric.divisor, "kinds": figures}
        return {
            "name": measurement.name,
            "title": measurement.title,
            "scale": self.setting.scale,
            "seconds": round(self.seconds, 3),
            "base": measurement.base,
            "metrics": metrics,
            "failures": failures,
        }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median, the least and the greatest value."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def _ratio(value: float, base: float) -> float:
    return value / base if base else math.inf


def take(
    all_runs: Sequence[Runs],
    rounds: int,
    seconds: float,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Take all measurements in so many rounds, as long as there is time; return a result for each.

    ``say`` is called before each run, and where one fails.  A kind for which there was no time has that as its failure
    in the result."""
    began = time.monotonic()
    until = began + seconds
    for number in range(1, rounds + 1):
        for place, runs in enumerate(all_runs, 1):
            if 0 < runs.measurement.most < number:
                continue

            def progress(text: str, number: int = number, place: int = place) -> None:
                passed = time.monotonic() - began
                say(f"{passed:4.0f} s  round {number} of {rounds}, {place:2} of {len(all_runs)}: {text}")

            if not runs.take_turns(until, progress):
                return [one.result() for one in all_runs]
    return [one.result() for one in all_runs]
