"""What is measured.

Lives here: the list of measurements, each with the run that takes it.  Not here: the runs (``runs``), how often and in
what order they are taken (``rounds``).

Invariant: each measurement has a name of its own, and its metrics are what its run returns, in that order.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from tqshim.bench import costs, paced, runs, workloads
from tqshim.bench.kinds import (
    AT_PATH,
    DURABLE,
    FASTER_FIFO,
    FILES,
    KEYED,
    PICKLE,
    SIMPLE,
    STDLIB,
    TURBO,
    Kind,
    many,
)
from tqshim.bench.runs import Setting

__all__ = ["CONSUMERS", "Level", "Measurement", "Metric", "measurements"]

CONFIGURATIONS: Final = (
    (1, 1, 200_000),
    (1, 10, 200_000),
    (10, 1, 1_000_000),
    (3, 20, 300_000),
    (20, 3, 1_000_000),
    (20, 20, 1_000_000),
)
"""Producers, consumers, items in all, as in faster-fifo's published comparison (50,000 to 200,000 a producer)."""
PLAIN: Final = ((1, 1, 1_000_000), (1, 10, 1_000_000), (10, 1, 1_000_000), (3, 20, 1_000_000))
"""The same for puts and gets without timeouts, which is how most programs put and get."""
PLAIN_BOUNDS: Final = (1, 2, 10, 100, 1000)
QUICK_ITEMS: Final = 20_000
DEFAULT_ITEMS: Final = 60_000
"""Items that are moved to measure a throughput, if no option says otherwise.  With fewer items the figure would show
how long the processes take to start."""
BUSY_PROCESSES: Final = 3
LARGE: Final = (("100KB", 100_000), ("1MB", 1_000_000), ("10MB", 10_000_000))
ITEMS: Final[tuple[tuple[str, Any], ...]] = (
    ("tuple", (1,) * 5),
    ("dict", {"id": 17, "name": "seventeen", "size": 1.5, "tags": ("a", "b"), "done": False, "next": None}),
    ("str", "x" * 200),
)
"""Items whose processor time is compared with pickle's."""
SMALL_BOUNDS: Final = (1000, 10)
SMALL_BOUND_ITEMS: Final = 1_000_000
CONSUMERS: Final = (1, 2, 4, 8, 16, 24, 32, 40)
TASKS: Final = (("10us", 10e-6), ("100us", 100e-6), ("1ms", 1e-3), ("10ms", 10e-3))


class Level(enum.IntEnum):
    """How much the command measures; of a measurement: from which level on it is taken, unless options name it."""

    QUICK = 0
    """With ``--quick``, and on both other levels."""
    DEFAULT = 1
    """Without ``--quick``."""
    FULL = 2
    """Only with ``--full``."""


@dataclasses.dataclass(frozen=True)
class Metric:
    """One figure of a measurement."""

    name: str
    unit: str
    decimals: int
    divisor: float = 1.0
    """What a run returns is divided by this, to give the figure that people read."""
    compared: bool = True
    """Ratios to other kinds of queues are worth printing."""


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One entry in the list of measurements."""

    name: str
    """A group, or a group and a member: ``bounded/1x1``."""
    title: str
    kinds: tuple[str, ...]
    metrics: tuple[Metric, ...]
    """What ``run`` returns, in this order."""
    run: Callable[[Kind, Setting], list[float]]
    level: Level = Level.DEFAULT
    base: str = STDLIB
    """The kind to which ratios are taken, beside each kind's own rival."""
    module: str = ""
    """The module that must be importable to make the items; empty: built-in types do."""
    shares: tuple[float, float] = (0.02, 0.04)
    """Shares of the full counts that are measured with ``--quick``, and by default."""
    most: int = 0
    """How often it is taken at most; 0: in each round."""

    def share(self, level: Level) -> float:
        """Return the share of the full counts that is measured on that level."""
        return (*self.shares, 1.0)[level]

    def is_called(self, name: str) -> bool:
        """Whether ``name`` is this measurement's or its group's."""
        return self.name == name or self.name.startswith(f"{name}/")

    def possible(self) -> bool:
        """Whether the module that the items need is installed."""
        return not self.module or importlib.util.find_spec(self.module) is not None


# -- the list

_SINGLE: Final = (STDLIB, FASTER_FIFO, TURBO)
_SEVERAL: Final = (*_SINGLE, many(FASTER_FIFO), many(TURBO))
_QUICK: Final = {(1, 1), (10, 1), (3, 20)}
"""Producers and consumers of a first look."""
_RATE: Final = (Metric("rate", "thousand items/s", 0, 1e3),)
_TRIP: Final = (Metric("p50", "µs", 1), Metric("p99", "µs", 1))


def _throughputs(
    group: str,
    shapes: tuple[tuple[int, int, int], ...],
    bound: int,
    plainly: bool = False,
    level: Level = Level.DEFAULT,
) -> list[Measurement]:
    # faster-fifo has no place here: its bound is in bytes, and each of its gets has a timeout.
    kinds = (STDLIB, TURBO) if plainly or bound not in (0, runs.BOUND) else _SEVERAL
    size = (f"maxsize={bound:,}" if bound else "unbounded") + (", put and get without timeouts" if plainly else "")
    return [
        Measurement(
            f"{group}/{producers}x{consumers}",
            f"{producers} producers x {consumers} consumers, 5-tuples, {size}",
            kinds,
            _RATE,
            partial(
                runs.throughput, producers=producers, consumers=consumers, total=total, bound=bound, plainly=plainly
            ),
            Level.QUICK if bound == runs.BOUND and (producers, consumers) in _QUICK else level,
            # Half as many items by default for an unbounded queue, which says much the same again, and for a small
            # bound, near which a queue is slow.
            shares=(QUICK_ITEMS / total, DEFAULT_ITEMS / (1 if plainly or bound >= DEFAULT_ITEMS else 2) / total),
        )
        for producers, consumers, total in shapes
    ]


def measurements() -> Iterator[Measurement]:
    """Yield all measurements of queues, in the order in which they are taken."""
    yield from _throughputs("bounded", CONFIGURATIONS, runs.BOUND)
    yield from _throughputs("unbounded", CONFIGURATIONS, 0)
    yield from _throughputs("plain", PLAIN, 0, plainly=True)
    for bound in PLAIN_BOUNDS:
        yield from _throughputs(f"plain-{bound}", PLAIN, bound, plainly=True, level=Level.FULL)
    for bound in SMALL_BOUNDS:
        shapes = tuple((producers, consumers, SMALL_BOUND_ITEMS) for producers, consumers in ((1, 1), (3, 20)))
        yield from _throughputs(f"bound-{bound}", shapes, bound)
    for name, busy in (("roundtrip", 0), ("roundtrip-busy", BUSY_PROCESSES)):
        beside = f", beside {busy} busy processes" if busy else ""
        yield Measurement(
            name,
            f"a 5-tuple through two queues, there and back{beside}",
            (*_SINGLE, SIMPLE),
            _TRIP,
            partial(runs.roundtrip, busy=busy),
            Level.DEFAULT if busy else Level.QUICK,
        )
    megabytes = (Metric("rate", "MB/s", 0, 1e6),)
    for group, make, module in (("bytes", runs.make_bytes, ""), ("numpy", runs.make_array, "numpy")):
        for label, size in LARGE if group == "bytes" else LARGE[1:]:
            yield Measurement(
                f"{group}/{label}",
                f"{'bytes' if group == 'bytes' else 'numpy arrays'} of {label}, 1 producer, 1 consumer, unbounded",
                _SINGLE,
                megabytes,
                partial(runs.move_large, make=make, size=size),
                Level.QUICK if (group, label) == ("bytes", "1MB") else Level.DEFAULT,
                module=module,
            )
    for label, item in ITEMS:
        yield Measurement(
            f"cpu/{label}",
            f"processor time of one put and one get of a {label} in one process; rows: {workloads.ROW} puts, then as"
            " many gets; turns: a get after each put (or batch)",
            (PICKLE, *_SEVERAL),
            (Metric("rows", "µs", 2), Metric("turns", "µs", 2)),
            partial(runs.processor_time, item=item),
            Level.QUICK if label == "tuple" else Level.DEFAULT,
            base=PICKLE,
            shares=(0.01, 0.01),
        )
    growth = (
        Metric("put", "x the first items' rate", 2, compared=False),
        Metric("get", "x the first items' rate", 2, compared=False),
        Metric("newcomer's first get", "ms", 1, 1e-3, compared=False),
        Metric("producer grows by", "MB", 1, 1e6, compared=False),
        Metric("consumer grows by", "MB", 1, 1e6, compared=False),
    )
    yield Measurement("waiting", "many items wait", (TURBO,), growth, runs.waiting_items, shares=(0.005, 0.03))
    yield Measurement(
        "sharing",
        f"{runs.WORK_CONSUMERS} consumers that work 1 ms an item, rows of {runs.WORK_ROW}: time to the last result,"
        " where they wait for something and where they compute",
        _SINGLE,
        (
            Metric("waiting work", "x perfect sharing", 3, compared=False),
            Metric("computing work", "x perfect sharing", 3, compared=False),
        ),
        runs.share_work,
    )
    yield Measurement(
        "forty",
        f"{runs.MANY_CONSUMERS} consumers against {runs.FEW}, 1 producer, maxsize={runs.BOUND:,}; the costs are those"
        f" of the {runs.MANY_CONSUMERS}",
        _SINGLE,
        (
            Metric("rate", f"x {runs.FEW} consumers", 2, compared=False),
            Metric("processor time", "µs an item", 2, compared=False),
            Metric("sleeps", "an item", 3, compared=False),
            Metric("interruptions", "an item", 3, compared=False),
        ),
        runs.forty_consumers,
        shares=(0.1, 0.2),
    )
    for consumers in CONSUMERS:
        yield Measurement(
            f"consumers/{consumers}",
            f"1 producer x {consumers} consumers, 5-tuples, maxsize={runs.BOUND:,}",
            _SEVERAL,
            _RATE,
            partial(runs.throughput, producers=1, consumers=consumers, total=runs.CONSUMERS_ITEMS, bound=runs.BOUND),
            Level.FULL,
            shares=(0.1, 0.5),
        )
    for label, seconds in TASKS:
        yield Measurement(
            f"tasks/{label}",
            f"consumers that use {label} of processor time an item: what the queue itself uses beside it",
            (STDLIB, TURBO),
            (
                *(Metric(f"{consumers} consumers", "µs an item", 1) for consumers in runs.TASK_CONSUMERS),
                Metric("in tasks", "% of the processors", 1, compared=False),
            ),
            partial(runs.task_rates, seconds=seconds),
            Level.FULL,
            shares=(0.1, 0.2),
        )
    for label, seconds in paced.WORK:
        yield Measurement(
            f"pace/{label}",
            f"{label} of work before each put of an object of {paced.ATTRIBUTES} attributes, one consumer that waits:"
            " an item with the work, until the last was got, and until it was put",
            _SINGLE,
            (Metric("got", "µs", 1), Metric("put", "µs", 1)),
            partial(paced.pace, work=seconds),
            Level.FULL,
        )
    yield Measurement(
        "idle",
        f"{runs.IDLE_CONSUMERS} consumers wait: processor time of all",
        _SINGLE,
        (Metric("time", "% of a core", 2, compared=False),),
        runs.idle,
    )
    yield Measurement(
        "exit",
        "nobody reads: from the last put to the producer's exit (never: not within"
        f" {runs.EXIT_PATIENCE_LEAST:g} s or more, then somebody read)",
        _SINGLE,
        (Metric("time", "s", 3, compared=False),),
        runs.exit_unread,
        Level.FULL,
    )
    yield Measurement(
        "making",
        "making and closing a queue: unused, and with one put and get",
        _SINGLE,
        (Metric("unused", "µs", 0), Metric("used", "µs", 0)),
        runs.make_queues,
    )
    yield Measurement(
        "open",
        "many queues open at once in one process, each used once and empty again; figures of one queue",
        (STDLIB, TURBO),
        (
            Metric("descriptors, new", "", 1, compared=False),
            Metric("descriptors, used", "", 1, compared=False),
            Metric("memory", "KB", 1, 1e3, compared=False),
            Metric("files", "KB", 1, 1e3, compared=False),
        ),
        runs.open_at_once,
    )
    for label, way in costs.WAYS.items():
        yield Measurement(
            f"costs/{label}",
            f"{way.title}, on the disk of the temporary folder",
            (AT_PATH, DURABLE, KEYED, *((FILES,) if label == "put" else ())),
            (Metric("time", "µs an item", 1),),
            partial(costs.cost, way=label),
            Level.FULL,
            base=AT_PATH,
            shares=(0.1, 1.0),
        )
