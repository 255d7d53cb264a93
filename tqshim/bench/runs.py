"""One run of each measurement.

Lives here: starting the processes of a run, and the figures that follow from what they return.  Not here: which
measurements there are (``measurements``), what the processes do (``workloads``, ``workers``).

How it is measured: each run has new processes and a new queue.  A throughput counts from the moment at which the first
process leaves a common gate (for large items: the producer) until the last item has been received.

Invariant: a figure comes only from a run that has passed its check; every other run raises ``RunError``.  A
throughput's check is that every item arrived exactly once, and each consumer saw each producer's items in order; others
look at what came back, or count it.
"""

from __future__ import annotations

import ctypes
import dataclasses
import math
import multiprocessing
import os
import pickle
import time
from collections.abc import Callable
from typing import Any, Final

from tqshim.bench import workers, workloads
from tqshim.bench.crew import Crew, RunError
from tqshim.bench.kinds import PICKLE, Kind, queues
from tqshim.queues.queue import TurboQueue
from tqshim.runtime.systems import processors

__all__ = [
    "BOUND",
    "Setting",
    "do_tasks",
    "exit_unread",
    "forty_consumers",
    "idle",
    "make_array",
    "make_bytes",
    "make_queues",
    "move_large",
    "open_at_once",
    "processor_time",
    "roundtrip",
    "share_work",
    "task_rates",
    "task_turns",
    "throughput",
    "waiting_items",
]

BOUND: Final = 100_000
"""The bound of faster-fifo's published comparison."""
RECORD_ROOM: Final = 64
"""Bytes: more than faster-fifo needs for one small pickled item with its length."""
ROUND_TRIPS: Final = 50_000
LARGE_TOTAL: Final = 2_000_000_000
"""Bytes that are moved in large items."""
LARGE_LEAST: Final = 8
"""The least number of large items in one run."""
CPU_ITEMS: Final = 1_000_000
WAITING_ITEMS: Final = 10_000_000
WAITING_WINDOW: Final = 100_000
"""Items at the beginning and at the end whose rates are compared."""
WORK_SECONDS: Final = 1e-3
WORK_CONSUMERS: Final = 2
WORK_ROWS: Final = 100
WORK_ROW: Final = 100
CONSUMERS_ITEMS: Final = 200_000
FEW, MANY_CONSUMERS = 4, 40
TASK_CONSUMERS: Final = (2, 10, 40)
TASK_PROCESSOR_SECONDS: Final = 10.0
"""Seconds of processor time that the tasks of one run take in all."""
IDLE_CONSUMERS: Final = 40
IDLE_SECONDS: Final = 20.0
EXIT_ITEMS: Final = 1_000_000
EXIT_PATIENCE: Final = 10.0
"""Seconds at full scale: a producer that takes longer to exit is taken to wait for a reader."""
EXIT_PATIENCE_LEAST: Final = 3.0
"""The same at least, however few the items: the machine may be busy."""
MADE: Final = 2000
"""Queues that are made and closed at full scale, one after another."""
OPEN: Final = 1000
"""Queues that are open at once; fewer only below a fiftieth of the full scale."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all runs of one measurement have in common."""

    context: Any
    scale: float
    """The share of the full counts of items and of the full idle time."""
    limit: float
    """Seconds for one crew of processes; some runs have a few crews, one after the other."""

    def count(self, full: int, least: int = 1) -> int:
        """Return this scale's share of ``full``, and at least ``least``."""
        return max(least, round(full * self.scale))


def _produce_and_consume(
    kind: Kind, setting: Setting, producers: int, consumers: int, total: int, bound: int, plainly: bool = False
) -> tuple[float, list[workloads.Cost]]:
    """Move about ``total`` items; return items a second, and what each process used up.  ``plainly``: puts and gets
    have no timeouts."""
    each = max(1, total // producers)
    context = setting.context
    room = each * producers * RECORD_ROOM
    with queues(kind, context, 1, bound=bound, room=room) as (queue,), Crew(context, setting.limit) as crew:
        gate = context.Barrier(producers + consumers, timeout=setting.limit)
        sent = context.RawValue(ctypes.c_bool, False)
        putting = [
            crew.start(workloads.produce, queue, kind.batch, number, producers, each, gate, plainly)
            for number in range(producers)
        ]
        consume = (workloads.consume_plainly, queue) if plainly else (workloads.consume, queue, kind.batch, sent)
        getting = [crew.start(*consume, gate) for _ in range(consumers)]
        put = [crew.result(member) for member in putting]
        for member in putting:  # what a process has put may be on its way until the process has gone
            crew.join(member)
        sent.value = True
        for _ in getting if plainly else ():
            queue.put(None)
        shares: list[workloads.Share] = [crew.result(member) for member in getting]
    workloads.check_delivery([share.numbers for share in shares], producers, each)
    begin = min([began for began, _ in put] + [share.began for share in shares])
    rate = each * producers / (max(share.last for share in shares) - begin)
    return rate, [cost for _, cost in put] + [share.cost for share in shares]


def throughput(
    kind: Kind, setting: Setting, producers: int, consumers: int, total: int, bound: int, plainly: bool = False
) -> list[float]:
    """Return items a second."""
    return [_produce_and_consume(kind, setting, producers, consumers, setting.count(total), bound, plainly)[0]]


def forty_consumers(kind: Kind, setting: Setting) -> list[float]:
    """Return the throughput with 40 consumers over that with 4, and what all processes of the run with 40 used an item:
    microseconds of processor time, and context switches by waiting and by being interrupted."""
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


def move_large(kind: Kind, setting: Setting, make: Callable[[int], Any], size: int) -> list[float]:
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


def make_bytes(size: int) -> Any:
    return os.urandom(size)


def make_array(size: int) -> Any:
    import numpy  # an optional extra

    return numpy.arange(size // 8, dtype=numpy.float64)


def processor_time(kind: Kind, setting: Setting, item: Any) -> list[float]:
    """Return microseconds of processor time of one put and one get: in rows of each, and in turns."""
    count = setting.count(CPU_ITEMS, workloads.ROW)
    with Crew(setting.context, setting.limit) as crew:
        if kind.name == PICKLE:
            seconds = crew.result(crew.start(workloads.processor_time_of_pickle, item, count))
            return [1e6 * seconds, 1e6 * seconds]
        with queues(kind, setting.context, 1, room=count * 1024) as (queue,):
            member = crew.start(workloads.processor_time_of_queue, queue, item, count, kind.batch)
            return [1e6 * seconds for seconds in crew.result(member)]


def waiting_items(kind: Kind, setting: Setting) -> list[float]:
    """Return rates of putting and of getting at the end over those at the beginning, seconds of a newcomer's first get,
    and bytes by which producer and consumer grew."""
    context = setting.context
    window = setting.count(WAITING_WINDOW, 100)
    count = setting.count(WAITING_ITEMS, 4 * window)
    with TurboQueue(ctx=context) as queue, Crew(context, setting.limit) as crew:
        producer = crew.start(workloads.fill_and_watch, queue, count, window)
        put: workloads.WaitingPut = crew.result(producer)
        crew.join(producer)
        # The newcomer is a new interpreter that is given a pickled handle: it has inherited nothing.
        spawning = multiprocessing.get_context("spawn")
        newcomer, number = crew.result(crew.start(workloads.first_get, pickle.dumps(queue), context=spawning))
        if number != 0:
            raise RunError(f"the newcomer got item {number} instead of the oldest")
        got: workloads.WaitingGot = crew.result(crew.start(workloads.drain_and_watch, queue, 1, count - 1, window))
        if not queue.empty():
            raise RunError("items are left over")
    return [put.first / put.last, got.first / got.last, newcomer, put.grown, got.grown]


def share_work(kind: Kind, setting: Setting) -> list[float]:
    """Return the time until all results have come, over that of perfect sharing: of work that waits, and of work that
    computes."""
    context = setting.context
    rows = setting.count(WORK_ROWS, 2)
    room = WORK_ROW * RECORD_ROOM
    figures = []
    for computing in (False, True):
        with queues(kind, context, 2, room=room) as (tasks, results), Crew(context, setting.limit) as crew:
            gate = context.Barrier(WORK_CONSUMERS + 1, timeout=setting.limit)
            for _ in range(WORK_CONSUMERS):
                crew.start(workers.consume_working, tasks, results, WORK_SECONDS, computing, gate, kind.endless)
            arguments = (tasks, results, rows, WORK_ROW, WORK_CONSUMERS, gate, setting.limit)
            figures.append(crew.result(crew.start(workers.serve, *arguments)))
    return figures


def task_turns(seconds: float) -> int:
    """Return how many turns of ``workers.burn`` take so many seconds of processor time."""
    turns = 10_000
    taken = []
    for _ in range(20):
        began = time.process_time()
        workers.burn(turns)
        taken.append(time.process_time() - began)
    return max(1, round(turns * seconds / min(taken)))


def do_tasks(kind: Kind, setting: Setting, turns: int, consumers: int, count: int) -> list[workers.Work]:
    """Let consumers do so many tasks of so many turns, fed by one producer; return what each consumer has measured."""
    context = setting.context
    room = (count + consumers) * RECORD_ROOM
    with queues(kind, context, 1, room=room) as (queue,), Crew(context, setting.limit) as crew:
        gate = context.Barrier(consumers + 1, timeout=setting.limit)
        crew.start(workers.feed, queue, count, consumers, gate)
        working = [crew.start(workers.work, queue, turns, gate, kind.endless) for _ in range(consumers)]
        done: list[workers.Work] = [crew.result(member) for member in working]
    if sum(one.items for one in done) != count:
        raise RunError(f"{sum(one.items for one in done):,} of {count:,} tasks were done")
    return done


def task_rates(kind: Kind, setting: Setting, seconds: float) -> list[float]:
    """Return, for each number of consumers, microseconds of processor time an item in ``get``; and last, the percent of
    the processors' time that the largest number of consumers spent in their tasks."""
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


def idle(kind: Kind, setting: Setting) -> list[float]:
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
    """Return the seconds from a producer's last put to its exit, infinite if the producer waits for a reader."""
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


def make_queues(kind: Kind, setting: Setting) -> list[float]:
    """Return the microseconds of making and closing a queue: an unused one, and one that was used once."""
    with Crew(setting.context, setting.limit) as crew:
        method = setting.context.get_start_method()
        member = crew.start(workloads.make_and_close, kind, method, setting.count(MADE, 20))
        return [1e6 * seconds for seconds in crew.result(member)]


def open_at_once(kind: Kind, setting: Setting) -> list[float]:
    """Return what each of many open queues costs: descriptors new and used, bytes of memory and of files."""
    count = min(OPEN, setting.count(50 * OPEN, 10))
    with Crew(setting.context, setting.limit) as crew:
        method = setting.context.get_start_method()
        figures: list[float] = crew.result(crew.start(workloads.open_many, kind, method, count))
    return figures
