"""What the processes of a run do.

Lives here: functions that run in processes of their own, and the check that all items arrived.  Not here: starting
these processes, and the figures that follow from what they return (``runs``); consumers that work (``workers``).

The workload of ``produce`` and ``consume`` is that of ``cpp_faster_fifo/tests/comparison_tests.py`` in
github.com/alex-petrenko/faster-fifo: tuples of five equal numbers, ``put`` and ``get`` one by one with timeouts of
10 ms and a new try on ``Full`` and ``Empty``.

Invariant: item number i of producer p out of n carries the number ``i * n + p``: no two items have the same number.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import resource
import time
from array import array
from collections.abc import Callable, Sequence
from queue import Empty, Full
from typing import Any, Final, NamedTuple, Optional

from tqshim.bench.crew import RunError
from tqshim.bench.kinds import Kind, folder_of
from tqshim.runtime.systems import PROC

__all__ = [
    "ITEM_WIDTH",
    "PATIENCE",
    "Cost",
    "Share",
    "WaitingGot",
    "WaitingPut",
    "check_delivery",
    "consume",
    "drain",
    "drain_and_watch",
    "echo",
    "fill",
    "fill_and_watch",
    "first_get",
    "hand_out_later",
    "make_and_close",
    "open_many",
    "ping",
    "private_memory",
    "processor_time_of_pickle",
    "processor_time_of_queue",
    "produce",
    "receive",
    "send",
    "spin",
    "wait_for_one",
]

ITEM_WIDTH: Final = 5
"""The published item is a tuple of five equal numbers."""
PATIENCE: Final = 0.01
"""Seconds: the published timeout of each put and get."""
ROW: Final = 500
"""Puts in a row, and then as many gets, where the processor time of both is measured.  The pipe of a standard library's
queue holds so many items: so no get waits for the feeder thread to be scheduled twice."""


# -- producers x consumers


class Cost(NamedTuple):
    """What a process has used up since it passed the gate."""

    processor: float
    """Seconds, of all its threads."""
    voluntary: int
    """Context switches because it waited: each is a sleep and a wake."""
    involuntary: int
    """Context switches because its time slice was up, or a more urgent process was ready to run."""


def _cost_since(before: resource.struct_rusage) -> Cost:
    after = resource.getrusage(resource.RUSAGE_SELF)
    return Cost(
        after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        after.ru_nvcsw - before.ru_nvcsw,
        after.ru_nivcsw - before.ru_nivcsw,
    )


class Share(NamedTuple):
    """What one consumer has got, and what that cost."""

    began: float
    last: float
    """The time when the consumer's last item had come."""
    numbers: array[int]
    cost: Cost


def produce(
    queue: Any, batch: int, producer: int, producers: int, each: int, gate: Any, plainly: bool = False
) -> tuple[float, Cost]:
    """Put ``each`` items; return the time when that began, and its cost.  ``plainly``: without timeouts."""
    numbers = range(producer, producer + producers * each, producers)
    gate.wait()
    before = resource.getrusage(resource.RUSAGE_SELF)
    began = time.monotonic()
    if plainly:
        put = queue.put
        for number in numbers:
            put((number,) * ITEM_WIDTH)
    elif batch == 1:
        put = queue.put
        for number in numbers:
            item = (number,) * ITEM_WIDTH
            while True:
                try:
                    put(item, timeout=PATIENCE)
                    break
                except Full:
                    pass
    else:
        put_many = queue.put_many
        for first in range(0, each, batch):
            items = [(number,) * ITEM_WIDTH for number in numbers[first : first + batch]]
            while True:
                try:
                    put_many(items, timeout=PATIENCE)
                    break
                except Full:
                    pass
    return began, _cost_since(before)


def consume(queue: Any, batch: int, sent: Any, gate: Any) -> Share:
    """Get until nothing comes although all has been sent."""
    numbers: list[int] = []
    gate.wait()
    before = resource.getrusage(resource.RUSAGE_SELF)
    began = last = time.monotonic()
    now = time.monotonic
    if batch == 1:
        get, keep = queue.get, numbers.append
        while True:
            try:
                item = get(timeout=PATIENCE)
            except Empty:
                if sent.value:
                    break
            else:
                last = now()
                keep(item[0])
    else:
        get_many, extend = queue.get_many, numbers.extend
        while True:
            try:
                items = get_many(timeout=PATIENCE, max_messages_to_get=batch)
            except Empty:
                if sent.value:
                    break
            else:
                last = now()
                extend([item[0] for item in items])
    return Share(began, last, array("q", numbers), _cost_since(before))


def consume_plainly(queue: Any, gate: Any) -> Share:
    """Get as most programs do: ``get()``, until ``None`` comes."""
    numbers: list[int] = []
    gate.wait()
    before = resource.getrusage(resource.RUSAGE_SELF)
    began = last = time.monotonic()
    now, keep = time.monotonic, numbers.append
    for item in iter(queue.get, None):
        last = now()
        keep(item[0])
    return Share(began, last, array("q", numbers), _cost_since(before))


def check_delivery(shares: Sequence[Sequence[int]], producers: int, each: int) -> None:
    """Raise ``RunError`` unless the consumers' shares hold every item once, each producer's in order.

    >>> check_delivery([[0, 1], [2, 3]], producers=2, each=2)
    """
    times = array("q", bytes(8 * producers * each))
    for share in shares:
        newest = [-1] * producers
        for number in share:
            if not 0 <= number < len(times):
                raise RunError(f"item {number} was received but never put")
            times[number] += 1
            if number <= newest[number % producers]:
                raise RunError(f"item {number} came after {newest[number % producers]} of the same producer")
            newest[number % producers] = number
    lost = times.count(0)
    doubled = sum(1 for count in times if count > 1)
    if lost or doubled:
        raise RunError(f"{lost:,} of {len(times):,} items lost, {doubled:,} received more than once")


# -- there and back


def echo(incoming: Any, outgoing: Any, gate: Any) -> None:
    """Send back every item, until ``None`` comes."""
    gate.wait()
    item = incoming.get()
    while item is not None:
        outgoing.put(item)
        item = incoming.get()


def ping(outgoing: Any, incoming: Any, trips: int, gate: Any) -> array[int]:
    """Send small items there and back; return the nanoseconds of each trip, after a tenth as many that don't count."""
    clock = time.perf_counter_ns
    taken = array("q")
    gate.wait()
    for number in range(-trips // 10, trips):
        item = (number,) * ITEM_WIDTH
        sent = clock()
        outgoing.put(item)
        back = incoming.get()
        came = clock()
        if back != item:
            raise RunError(f"{item} was sent and {back} came back")
        if number >= 0:
            taken.append(came - sent)
    outgoing.put(None)
    return taken


def spin(stop: Any, gate: Any) -> None:
    """Keep a processor busy until told to stop."""
    gate.wait()
    while not stop.value:
        pass


# -- large items


def send(queue: Any, item: Any, count: int, gate: Any) -> float:
    """Put the item so many times; return the time when that began."""
    gate.wait()
    began = time.monotonic()
    for _ in range(count):
        queue.put(item)
    return began


def receive(queue: Any, item: Any, count: int, gate: Any, endless: Optional[float]) -> float:
    """Get so many items, each equal to ``item``; return the time when the last had come."""
    gate.wait()
    last = 0.0
    same = _sameness(item)
    for number in range(count):
        got = queue.get(True, endless)
        last = time.monotonic()
        if not same(got):
            raise RunError(f"large item {number} came changed, or can't be written to")
    return last


def _sameness(item: Any) -> Callable[[Any], bool]:
    """Return a quick test of both ends and the middle: comparing all of an item would cost as much as moving it."""
    places = [0, len(item) // 2, len(item) - 1]
    wanted = [item[place] for place in places]

    def same(got: Any) -> bool:
        flags = getattr(got, "flags", None)
        return (
            len(got) == len(item)
            and [got[place] for place in places] == wanted
            and (flags is None or bool(flags.writeable))
        )

    return same


# -- processor time in one process


def processor_time_of_pickle(item: Any, count: int) -> float:
    """Return the seconds of processor time that one ``dumps`` and one ``loads`` of the item take."""
    dumps, loads = pickle.dumps, pickle.loads
    before = time.process_time()
    for _ in range(count // ROW):
        records = [dumps(item) for _ in range(ROW)]
        for record in records:
            loads(record)
    return (time.process_time() - before) / (count // ROW * ROW)


def processor_time_of_queue(queue: Any, item: Any, count: int, batch: int) -> tuple[float, float]:
    """Return the seconds of processor time, that of all threads, that one put and one get take: first with puts in a
    row and then gets in a row, second with a get after each put (of batches, for a kind that takes batches).

    The items that come are compared once for each of the two, before the time is taken."""
    if batch == 1:

        def put_row(many: int) -> None:
            for _ in range(many):
                queue.put(item)

        def get_row(many: int) -> list[Any]:
            return [queue.get(True, 10) for _ in range(many)]
    else:

        def put_row(many: int) -> None:
            for first in range(0, many, batch):
                queue.put_many([item] * min(batch, many - first))

        def get_row(many: int) -> list[Any]:
            got: list[Any] = []
            while len(got) < many:
                got += queue.get_many(True, 10, max_messages_to_get=min(batch, many - len(got)))
            return got

    def taken(row: int) -> float:
        put_row(row)
        if get_row(row) != [item] * row:
            raise RunError("items came changed")
        before = time.process_time()
        for _ in range(count // row):
            put_row(row)
            get_row(row)
        return (time.process_time() - before) / (count // row * row)

    return taken(ROW), taken(batch)


# -- many items waiting


class WaitingPut(NamedTuple):
    """What putting many items took."""

    first: float
    """Seconds for the first window of items."""
    last: float
    """Seconds for the last window."""
    grown: int
    """Bytes by which the process's own memory grew from the end of the first window to the end of the last."""


class WaitingGot(NamedTuple):
    """What getting many items took; the fields are those of ``WaitingPut``."""

    first: float
    last: float
    grown: int


def private_memory() -> int:
    """Return the bytes of memory that this process shares with no file; where no kernel tells, its peak so far."""
    try:
        with open(f"{PROC}/self/statm", encoding="ascii") as file:
            _, resident, shared, *_ = map(int, file.read().split())
        return (resident - shared) * resource.getpagesize()
    except FileNotFoundError:  # no Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _watched(act: Callable[[int], None], count: int, window: int) -> tuple[float, float, int]:
    """Do ``act`` for each number below ``count``; return what ``WaitingPut`` says of it."""
    began = time.monotonic()
    for number in range(window):
        act(number)
    first = time.monotonic() - began
    memory = private_memory()
    for number in range(window, count - window):
        act(number)
    began = time.monotonic()
    for number in range(count - window, count):
        act(number)
    return first, time.monotonic() - began, private_memory() - memory


def fill_and_watch(queue: Any, count: int, window: int) -> WaitingPut:
    """Put ``count`` items that nobody gets yet."""
    put = queue.put
    return WaitingPut(*_watched(lambda number: put((number,) * ITEM_WIDTH), count, window))


def first_get(handle: bytes) -> tuple[float, int]:
    """Meet the queue of a pickled handle; return the seconds until its oldest item had come, and that item's number."""
    began = time.monotonic()
    queue = pickle.loads(handle)
    item = queue.get(True, 60)
    seconds = time.monotonic() - began
    queue.close()
    return seconds, item[0]


def drain_and_watch(queue: Any, first: int, count: int, window: int) -> WaitingGot:
    """Get ``count`` items, numbered from ``first`` on in their order."""
    get = queue.get

    def act(number: int) -> None:
        item = get(True, 10)
        if item[0] != first + number:
            raise RunError(f"item {item[0]} came instead of {first + number}")

    return WaitingGot(*_watched(act, count, window))


# -- waiting, leaving, making


def wait_for_one(queue: Any, endless: Optional[float], gate: Any) -> tuple[float, int]:
    """Get an item, because the first get does more than wait; then wait for another.  Return the share of a processor
    that this wait took, and the number of the second item."""
    queue.get(True, endless)
    gate.wait()
    began, used = time.monotonic(), time.process_time()
    item = queue.get(True, endless)
    return (time.process_time() - used) / (time.monotonic() - began), item[0]


def hand_out_later(queue: Any, count: int, seconds: float, gate: Any) -> None:
    """Put ``count`` items after so many seconds."""
    gate.wait()
    time.sleep(seconds)
    for number in range(count):
        queue.put((number,) * ITEM_WIDTH)


def fill(queue: Any, count: int) -> float:
    """Put ``count`` items; return the time when the last put had returned."""
    for number in range(count):
        queue.put((number,) * ITEM_WIDTH)
    return time.monotonic()


def drain(queue: Any, count: int, limit: float) -> array[int]:
    """Get ``count`` items, and one more if there are too many; return their numbers."""
    numbers = array("q", (queue.get(True, limit)[0] for _ in range(count)))
    with contextlib.suppress(Empty):
        numbers.append(queue.get(True, 10 * PATIENCE)[0])
    return numbers


def make_and_close(kind: Kind, method: str, count: int) -> tuple[float, float]:
    """Return the seconds for making and closing one queue: unused, and with one item put and got in between."""
    context = multiprocessing.get_context(method)
    taken = []
    for used in (False, True):
        began = time.monotonic()
        for number in range(count):
            queue = kind.make(context, 0, 0)
            if used:
                queue.put(number)
                if queue.get(True, 10) != number:
                    raise RunError("another item came than was put")
            queue.close()
            if used and hasattr(queue, "join_thread"):
                queue.join_thread()
        taken.append((time.monotonic() - began) / count)
    return taken[0], taken[1]


def open_many(kind: Kind, method: str, count: int) -> list[float]:
    """Open so many queues; return, for one queue: descriptors while the queues are new and once they are used, bytes of
    the process's memory, and bytes of files, both once the queues are used and empty again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    context = multiprocessing.get_context(method)
    kind.make(context, 0, 0).close()  # what the first queue loads belongs to none of those that count
    descriptors, memory = _descriptors(), private_memory()
    opened: list[Any] = []
    try:
        for _ in range(count):
            opened.append(kind.make(context, 0, 0))
        new = _descriptors() - descriptors
        for number, queue in enumerate(opened):
            queue.put(number)
            if queue.get(True, 10) != number:
                raise RunError("another item came than was put")
        used = _descriptors() - descriptors
        grown = private_memory() - memory
        files = sum(map(_bytes_below, filter(None, map(folder_of, opened))))
    except OSError as error:
        raise RunError(f"{len(opened):,} queues are open, with {_descriptors():,} descriptors: {error}") from None
    finally:
        for queue in opened:
            queue.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return [new / count, used / count, grown / count, files / count]


def _descriptors() -> int:
    return len(os.listdir("/dev/fd"))


def _bytes_below(folder: str) -> int:
    """Return the bytes that the files of a folder take up, however long the files claim to be."""
    return sum(entry.stat(follow_symlinks=False).st_blocks * 512 for entry in os.scandir(folder))
