"""What is measured.

Lives here: the list of measurements, each with the run that takes it.  Not here: how often and in what order they are
taken (``rounds``).

How it is measured: each run has new processes and a new queue.  Where it is a throughput, it lasts from the moment at
which the first process leaves a common gate until the last item has been received.

Invariant: a figure comes only from a run in which every item arrived exactly once and each consumer saw each producer's
items in order; every other run raises ``RunError``.
"""

from __future__ import annotations

import ctypes
import dataclasses
import enum
import importlib.util
import math
import multiprocessing
import os
import pickle
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from tqshim.bench import workloads
from tqshim.bench.crew import Crew, RunError
from tqshim.bench.kinds import FASTER_FIFO, PICKLE, SIMPLE, STDLIB, TURBO, Kind, many, queues
from tqshim.queues import TurboQueue
from tqshim.systems import processors

__all__ = [
    "BOUND",
    "CONSUMERS",
    "Level",
    "Measurement",
    "Metric",
    "Setting",
    "do_tasks",
    "exit_unread",
    "measurements",
    "roundtrip",
    "task_turns",
    "throughput",
]

BOUND: Final = 100_000
"""The published bound."""
CONFIGURATIONS: Final = (
    (1, 1, 200_000),
    (1, 10, 200_000),
    (10, 1, 1_000_000),
    (3, 20, 300_000),
    (20, 3, 1_000_000),
    (20, 20, 1_000_000),
)
"""Producers, consumers, items in all: the published counts (200,000 to 50,000 a producer)."""
QUICK_ITEMS: Final = 20_000
DEFAULT_ITEMS: Final = 60_000
"""Items that are moved to measure a throughput: fewer, and it is the start of so many processes that is measured."""
RECORD_ROOM: Final = 64
"""Bytes: more than faster-fifo needs for one small pickled item with its length."""
ROUND_TRIPS: Final = 50_000
BUSY_PROCESSES: Final = 3
LARGE: Final = (("100KB", 100_000), ("1MB", 1_000_000), ("10MB", 10_000_000))
LARGE_TOTAL: Final = 2_000_000_000
"""Bytes that are moved in large items."""
LARGE_LEAST: Final = 8
"""Large items of one run at least."""
ITEMS: Final[tuple[tuple[str, Any], ...]] = (
    ("tuple", (1,) * 5),
    ("dict", {"id": 17, "name": "seventeen", "size": 1.5, "tags": ("a", "b"), "done": False, "next": None}),
    ("str", "x" * 200),
)
"""Items whose processor time is compared with pickle's."""
CPU_ITEMS: Final = 1_000_000
SMALL_BOUNDS: Final = (1000, 10)
SMALL_BOUND_ITEMS: Final = 1_000_000
WAITING_ITEMS: Final = 10_000_000
WAITING_WINDOW: Final = 100_000
"""Items at the beginning and at the end whose rates are compared."""
WORK_SECONDS: Final = 1e-3
WORK_CONSUMERS: Final = 2
WORK_ROWS: Final = 100
WORK_ROW: Final = 100
CONSUMERS: Final = (1, 2, 4, 8, 16, 24, 32, 40)
CONSUMERS_ITEMS: Final = 200_000
FEW, MANY_CONSUMERS = 4, 40
TASKS: Final = (("10us", 10e-6), ("100us", 100e-6), ("1ms", 1e-3), ("10ms", 10e-3))
TASK_CONSUMERS: Final = (2, 10, 40)
TASK_PROCESSOR_SECONDS: Final = 10.0
"""Seconds of processor time that the tasks of one run take in all."""
IDLE_CONSUMERS: Final = 40
IDLE_SECONDS: Final = 20.0
EXIT_ITEMS: Final = 1_000_000
EXIT_PATIENCE: Final = 10.0
"""Seconds: a producer that takes longer is taken to wait for a reader."""
EXIT_PATIENCE_LEAST: Final = 3.0
"""However few the items: the machine may be busy."""
MADE: Final = 2000
"""Queues that are made and closed, one after another."""
OPEN: Final = 1000
"""Queues that are open at once, but for runs that are meant to be short."""


class Level(enum.IntEnum):
    """How much of a run's time a measurement is worth."""

    QUICK = 0
    """Always taken."""
    DEFAULT = 1
    """Left out by ``--quick``."""
    FULL = 2
    """Only taken with ``--full``, or when named."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all runs have in common."""

    context: Any
    scale: float
    """Of item counts and idle time."""
    limit: float
    """Seconds for one run."""

    def count(self, full: int, least: int = 1) -> int:
        """How many there are, of so many in full."""
        return max(least, round(full * self.scale))


@dataclasses.dataclass(frozen=True)
class Metric:
    """One figure of a measurement."""

    name: str
    unit: str
    decimals: int
    divisor: float = 1.0
    """From what is measured to what people read."""
    compared: bool = True
    """Ratios to other kinds of queues are worth printing."""


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One row of what is measured."""

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
    """What must be importable for the items, if not only built-in types."""
    shares: tuple[float, float] = (0.02, 0.04)
    """Of the full counts: how much is measured by ``--quick``, and by default."""
    most: int = 0
    """How often it is taken at most; 0: in each round."""

    def share(self, level: Level) -> float:
        """Of the full counts, how much is measured on that level."""
        return (*self.shares, 1.0)[level]

    def is_called(self, name: str) -> bool:
        """Whether ``name`` is this measurement's or its group's."""
        return self.name == name or self.name.startswith(f"{name}/")

    def possible(self) -> bool:
        """Whether the module is there that its items need."""
        return not self.module or importlib.util.find_spec(self.module) is not None


# -- runs


def _produce_and_consume(
    kind: Kind, setting: Setting, producers: int, consumers: int, total: int, bound: int
) -> tuple[float, list[workloads.Cost]]:
    """Move about ``total`` items; return items a second, and what each process used up."""
    each = max(1, total // producers)
    context = setting.context
    room = each * producers * RECORD_ROOM
    with queues(kind, context, 1, bound=bound, room=room) as (queue,), Crew(context, setting.limit) as crew:
        gate = context.Barrier(producers + consumers, timeout=setting.limit)
        sent = context.RawValue(ctypes.c_bool, False)
        putting = [
            crew.start(workloads.produce, queue, kind.batch, number, producers, each, gate)
            for number in range(producers)
        ]
        getting = [crew.start(workloads.consume, queue, kind.batch, sent, gate) for _ in range(consumers)]
        put = [crew.result(member) for member in putting]
        for member in putting:  # what a process has put may be on its way until the process has gone
            crew.join(member)
        sent.value = True
        shares: list[workloads.Share] = [crew.result(member) for member in getting]
    workloads.check_delivery([share.numbers for share in shares], producers, each)
    begin = min([began for began, _ in put] + [share.began for share in shares])
    rate = each * producers / (max(share.last for share in shares) - begin)
    return rate, [cost for _, cost in put] + [share.cost for share in shares]


def throughput(kind: Kind, setting: Setting, producers: int, consumers: int, total: int, bound: int) -> list[float]:
    """Return items a second."""
    return [_produce_and_consume(kind, setting, producers, consumers, setting.count(total), bound)[0]]


def _forty(kind: Kind, setting: Setting) -> list[float]:
    """Return the throughput of 40 consumers over that of 4, and per item of the 40: microseconds of processor time, and
    context switches by waiting and by being interrupted."""
    total = setting.count(CONSUMERS_ITEMS)
    few, _ = _produce_and_consume(kind, setting, 1, FEW, total, BOUND)
    rate, costs = _produce_and_consume(kind, setting, 1, MANY_CONSUMERS, total, BOUND)
    return [
        rate / few,
        1e6 * sum(cost.processor for cost in costs) / total,
        sum(cost.voluntary for cost in costs) / total,
        sum(cost.involuntary for cost in costs) / total,
    ]


def roundtrip(kind: Kind, setting: Setting, busy: int) -> list[float]:
    """Return the median and the 99th percentile of a trip there and back, in microseconds."""
    context = setting.context
    trips = setting.count(ROUND_TRIPS, 10)
    room = trips * RECORD_ROOM
    with queues(kind, context, 2, room=room) as (there, back), Crew(context, setting.limit) as crew:
        gate = context.Barrier(2 + busy, timeout=setting.limit)
        stop = context.RawValue(ctypes.c_bool, False)
        crew.start(workloads.echo, there, back, gate)
        player = crew.start(workloads.ping, there, back, trips, gate)
        for _ in range(busy):
            crew.start(workloads.spin, stop, gate)
        taken = sorted(crew.result(player))
        stop.value = True
        for member in crew.members:
            crew.join(member)
    return [taken[len(taken) // 2] / 1000, taken[len(taken) * 99 // 100] / 1000]


def _large(kind: Kind, setting: Setting, make: Callable[[int], Any], size: int) -> list[float]:
    """Return bytes a second of large items, one producer, one consumer, unbounded."""
    context = setting.context
    count = setting.count(LARGE_TOTAL // size, LARGE_LEAST)
    item = make(size)
    with queues(kind, context, 1, room=(count + 1) * (size + 4096)) as (queue,), Crew(context, setting.limit) as crew:
        gate = context.Barrier(2, timeout=setting.limit)
        sender = crew.start(workloads.send, queue, item, count, gate)
        receiver = crew.start(workloads.receive, queue, item, count, gate, kind.endless)
        began, last = crew.result(sender), crew.result(receiver)
        crew.join(sender)
    return [count * size / (last - began)]


def _make_bytes(size: int) -> Any:
    return os.urandom(size)


def _make_array(size: int) -> Any:
    import numpy  # an optional extra

    return numpy.arange(size // 8, dtype=numpy.float64)


def _processor_time(kind: Kind, setting: Setting, item: Any) -> list[float]:
    """Return microseconds of processor time of one put and one get: in rows, and one after the other."""
    count = setting.count(CPU_ITEMS, workloads.ROW)
    with Crew(setting.context, setting.limit) as crew:
        if kind.name == PICKLE:
            seconds = crew.result(crew.start(workloads.processor_time_of_pickle, item, count))
            return [1e6 * seconds, 1e6 * seconds]
        with queues(kind, setting.context, 1, room=count * 1024) as (queue,):
            member = crew.start(workloads.processor_time_of_queue, queue, item, count, kind.batch)
            return [1e6 * seconds for seconds in crew.result(member)]


def _waiting(kind: Kind, setting: Setting) -> list[float]:
    """Return rates of putting and of getting at the end over those at the beginning, seconds of a newcomer's first get,
    and bytes by which producer and consumer grew."""
    context = setting.context
    window = setting.count(WAITING_WINDOW, 100)
    count = setting.count(WAITING_ITEMS, 4 * window)
    with TurboQueue(ctx=context) as queue, Crew(context, setting.limit) as crew:
        producer = crew.start(workloads.fill_and_watch, queue, count, window)
        put: workloads.WaitingPut = crew.result(producer)
        crew.join(producer)
        # A new interpreter that gets a pickled handle: it has inherited nothing.
        spawning = multiprocessing.get_context("spawn")
        newcomer, number = crew.result(crew.start(workloads.first_get, pickle.dumps(queue), context=spawning))
        if number != 0:
            raise RunError(f"the newcomer got item {number} instead of the oldest")
        got: workloads.WaitingGot = crew.result(crew.start(workloads.drain_and_watch, queue, 1, count - 1, window))
        if not queue.empty():
            raise RunError("items are left over")
    return [put.first / put.last, got.first / got.last, newcomer, put.grown, got.grown]


def _sharing(kind: Kind, setting: Setting) -> list[float]:
    """Return the time to the last results of rows over that of perfect sharing: waiting work, and computing work."""
    context = setting.context
    rows = setting.count(WORK_ROWS, 2)
    room = WORK_ROW * RECORD_ROOM
    figures = []
    for computing in (False, True):
        with queues(kind, context, 2, room=room) as (tasks, results), Crew(context, setting.limit) as crew:
            gate = context.Barrier(WORK_CONSUMERS + 1, timeout=setting.limit)
            for _ in range(WORK_CONSUMERS):
                crew.start(workloads.consume_working, tasks, results, WORK_SECONDS, computing, gate, kind.endless)
            arguments = (tasks, results, rows, WORK_ROW, WORK_CONSUMERS, gate, setting.limit)
            figures.append(crew.result(crew.start(workloads.serve, *arguments)))
    return figures


def task_turns(seconds: float) -> int:
    """How many turns a task of so many seconds has."""
    turns = 10_000
    taken = []
    for _ in range(20):
        began = time.process_time()
        workloads.burn(turns)
        taken.append(time.process_time() - began)
    return max(1, round(turns * seconds / min(taken)))


def do_tasks(kind: Kind, setting: Setting, turns: int, consumers: int, count: int) -> list[workloads.Work]:
    """Let consumers do so many tasks of so many turns, fed by one producer; return what each has to tell."""
    context = setting.context
    room = (count + consumers) * RECORD_ROOM
    with queues(kind, context, 1, room=room) as (queue,), Crew(context, setting.limit) as crew:
        gate = context.Barrier(consumers + 1, timeout=setting.limit)
        crew.start(workloads.feed, queue, count, consumers, gate)
        working = [crew.start(workloads.work, queue, turns, gate, kind.endless) for _ in range(consumers)]
        done: list[workloads.Work] = [crew.result(member) for member in working]
    if sum(one.items for one in done) != count:
        raise RunError(f"{sum(one.items for one in done):,} of {count:,} tasks were done")
    return done


def _tasks(kind: Kind, setting: Setting, seconds: float) -> list[float]:
    """Return, for each number of consumers, microseconds of processor time an item in ``get``, and at last the percent
    of the processors' time that the most consumers spent in their tasks."""
    turns = task_turns(seconds)
    figures = []
    busy = 0.0
    for consumers in TASK_CONSUMERS:
        count = max(2 * consumers, setting.count(round(TASK_PROCESSOR_SECONDS / seconds)))
        done = do_tasks(kind, setting, turns, consumers, count)
        elapsed = max(one.last for one in done) - min(one.began for one in done)
        figures.append(1e6 * sum(one.queueing for one in done) / count)
        busy = 100 * sum(one.working for one in done) / (elapsed * min(processors(), consumers))
    return [*figures, busy]


def _idle(kind: Kind, setting: Setting) -> list[float]:
    """Return the processor time that all waiting consumers took, in percent of one core."""
    context = setting.context
    seconds = IDLE_SECONDS * setting.scale
    room = IDLE_CONSUMERS * RECORD_ROOM
    with queues(kind, context, 1, room=room) as (queue,), Crew(context, setting.limit) as crew:
        gate = context.Barrier(IDLE_CONSUMERS + 1, timeout=setting.limit)
        waiting = [crew.start(workloads.wait_for_one, queue, kind.endless, gate) for _ in range(IDLE_CONSUMERS)]
        crew.start(workloads.hand_out_later, queue, IDLE_CONSUMERS, seconds, gate)
        for _ in range(IDLE_CONSUMERS):
            queue.put(None)
        answers = [crew.result(member) for member in waiting]
    workloads.check_delivery([[number] for _, number in answers], 1, IDLE_CONSUMERS)
    return [100 * sum(share for share, _ in answers)]


def _exit_patience(setting: Setting) -> float:
    return max(EXIT_PATIENCE_LEAST, EXIT_PATIENCE * setting.scale)


def exit_unread(kind: Kind, setting: Setting) -> list[float]:
    """Return the seconds from a producer's last put to its exit, infinite if it waits for a reader."""
    context = setting.context
    count = setting.count(EXIT_ITEMS)
    with queues(kind, context, 1, room=count * RECORD_ROOM) as (queue,), Crew(context, setting.limit) as crew:
        producer = crew.start(workloads.fill, queue, count)
        finished = crew.result(producer)
        producer.process.join(_exit_patience(setting))
        seconds = math.inf if producer.process.is_alive() else time.monotonic() - finished
        numbers = crew.result(crew.start(workloads.drain, queue, count, setting.limit))
        crew.join(producer)
    workloads.check_delivery([numbers], 1, count)
    return [seconds]


def _making(kind: Kind, setting: Setting) -> list[float]:
    """Return the microseconds of making and closing a queue: unused, and used once."""
    with Crew(setting.context, setting.limit) as crew:
        method = setting.context.get_start_method()
        member = crew.start(workloads.make_and_close, kind, method, setting.count(MADE, 20))
        return [1e6 * seconds for seconds in crew.result(member)]


def _open_at_once(kind: Kind, setting: Setting) -> list[float]:
    """Return what each of many open queues costs: descriptors new and used, bytes of memory and of files."""
    count = min(OPEN, setting.count(50 * OPEN, 10))
    with Crew(setting.context, setting.limit) as crew:
        method = setting.context.get_start_method()
        figures: list[float] = crew.result(crew.start(workloads.open_many, kind, method, count))
    return figures


# -- the list

_SINGLE: Final = (STDLIB, FASTER_FIFO, TURBO)
_SEVERAL: Final = (*_SINGLE, many(FASTER_FIFO), many(TURBO))
_QUICK: Final = {(1, 1), (10, 1), (3, 20)}
"""Producers and consumers of a first look."""
_RATE: Final = (Metric("rate", "thousand items/s", 0, 1e3),)
_TRIP: Final = (Metric("p50", "µs", 1), Metric("p99", "µs", 1))


def _throughputs(group: str, shapes: tuple[tuple[int, int, int], ...], bound: int) -> list[Measurement]:
    kinds = _SEVERAL if bound in (0, BOUND) else (STDLIB, TURBO)  # a bound of faster-fifo's is one of bytes
    size = f"maxsize={bound:,}" if bound else "unbounded"
    return [
        Measurement(
            f"{group}/{producers}x{consumers}",
            f"{producers} producers x {consumers} consumers, 5-tuples, {size}",
            kinds,
            _RATE,
            partial(throughput, producers=producers, consumers=consumers, total=total, bound=bound),
            Level.QUICK if bound == BOUND and (producers, consumers) in _QUICK else Level.DEFAULT,
            # Unbounded says much the same again, and near its bound a queue is slow.
            shares=(QUICK_ITEMS / total, DEFAULT_ITEMS / (1 if bound >= DEFAULT_ITEMS else 2) / total),
        )
        for producers, consumers, total in shapes
    ]


def measurements() -> Iterator[Measurement]:
    """All of them, in the order in which they are taken."""
    yield from _throughputs("bounded", CONFIGURATIONS, BOUND)
    yield from _throughputs("unbounded", CONFIGURATIONS, 0)
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
            partial(roundtrip, busy=busy),
            Level.DEFAULT if busy else Level.QUICK,
        )
    megabytes = (Metric("rate", "MB/s", 0, 1e6),)
    for group, make, module in (("bytes", _make_bytes, ""), ("numpy", _make_array, "numpy")):
        for label, size in LARGE if group == "bytes" else LARGE[1:]:
            yield Measurement(
                f"{group}/{label}",
                f"{'bytes' if group == 'bytes' else 'numpy arrays'} of {label}, 1 producer, 1 consumer, unbounded",
                _SINGLE,
                megabytes,
                partial(_large, make=make, size=size),
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
            partial(_processor_time, item=item),
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
    yield Measurement("waiting", "many items wait", (TURBO,), growth, _waiting, shares=(0.005, 0.03))
    yield Measurement(
        "sharing",
        f"{WORK_CONSUMERS} consumers that work 1 ms an item, rows of {WORK_ROW}: time to the last result, where"
        " they wait for something and where they compute",
        _SINGLE,
        (
            Metric("waiting work", "x perfect sharing", 3, compared=False),
            Metric("computing work", "x perfect sharing", 3, compared=False),
        ),
        _sharing,
    )
    yield Measurement(
        "forty",
        f"{MANY_CONSUMERS} consumers against {FEW}, 1 producer, maxsize={BOUND:,}; the costs are those of the"
        f" {MANY_CONSUMERS}",
        _SINGLE,
        (
            Metric("rate", f"x {FEW} consumers", 2, compared=False),
            Metric("processor time", "µs an item", 2, compared=False),
            Metric("sleeps", "an item", 3, compared=False),
            Metric("interruptions", "an item", 3, compared=False),
        ),
        _forty,
        shares=(0.1, 0.2),
    )
    for consumers in CONSUMERS:
        yield Measurement(
            f"consumers/{consumers}",
            f"1 producer x {consumers} consumers, 5-tuples, maxsize={BOUND:,}",
            _SEVERAL,
            _RATE,
            partial(throughput, producers=1, consumers=consumers, total=CONSUMERS_ITEMS, bound=BOUND),
            Level.FULL,
            shares=(0.1, 0.5),
        )
    for label, seconds in TASKS:
        yield Measurement(
            f"tasks/{label}",
            f"consumers that use {label} of processor time an item: what the queue itself uses beside it",
            (STDLIB, TURBO),
            (
                *(Metric(f"{consumers} consumers", "µs an item", 1) for consumers in TASK_CONSUMERS),
                Metric("in tasks", "% of the processors", 1, compared=False),
            ),
            partial(_tasks, seconds=seconds),
            Level.FULL,
            shares=(0.1, 0.2),
        )
    yield Measurement(
        "idle",
        f"{IDLE_CONSUMERS} consumers wait: processor time of all",
        _SINGLE,
        (Metric("time", "% of a core", 2, compared=False),),
        _idle,
    )
    yield Measurement(
        "exit",
        "nobody reads: from the last put to the producer's exit (never: not within"
        f" {EXIT_PATIENCE_LEAST:g} s or more, then somebody read)",
        _SINGLE,
        (Metric("time", "s", 3, compared=False),),
        exit_unread,
        Level.FULL,
    )
    yield Measurement(
        "making",
        "making and closing a queue: unused, and with one put and get",
        _SINGLE,
        (Metric("unused", "µs", 0), Metric("used", "µs", 0)),
        _making,
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
        _open_at_once,
    )
