"""A put that has returned is in the queue: with pools that end, producers that die at once, looks from other processes.

``python tests/survival_run.py`` measures all cases in full, with our queues and with the standard library's, and
prints a table; the exit status is 1 where one of our queues has lost, doubled, delayed or misplaced an item.
``--runs 10`` is shorter.  ``test_survival.py`` runs the same functions, fewer times.

These functions wait only for processes to end, and for the standard library's queue, whose items need time to come out
of a pipe.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import faulthandler
import multiprocessing
import os
import pathlib
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any, Callable, NamedTuple, Optional

sys.path.insert(0, str(pathlib.Path(__file__).absolute().parent.parent))

import own_folder

from tqshim import Empty, Full, JoinableTurboQueue, SimpleTurboQueue, TurboQueue

STANDARD = "multiprocessing.Queue"
KINDS: dict[str, Callable[[Any, int], Any]] = {
    "TurboQueue": lambda context, places: TurboQueue(ctx=context),
    "JoinableTurboQueue": lambda context, places: JoinableTurboQueue(ctx=context),
    "SimpleTurboQueue": lambda context, places: SimpleTurboQueue(ctx=context),
    "bounded TurboQueue": lambda context, places: TurboQueue(places, ctx=context),
    STANDARD: lambda context, places: context.Queue(),
}
"""How queues are made that have so many places at least."""
OURS = tuple(kind for kind in KINDS if kind != STANDARD)
COUNTS = (1, 3, 20, 1000)
TASKS = (20, 300)
LARGE = 200_000
"""Bytes of a large item."""
LARGE_MOST = 20
"""Items of one producer that are large, at most."""
PATIENCE = 60.0
"""Seconds after which something hangs."""
STANDARD_PATIENCE = 0.05
"""Seconds for which an item of the standard library's queue may be under way."""
APART = 0.002
"""Seconds between two puts from which their order is that of time."""


def drain(queue: Any, kind: str) -> list[Any]:
    """What is in the queue, which nobody puts to any more: at once in ours."""
    got = []
    if kind == STANDARD:
        with contextlib.suppress(Empty):
            while True:
                got.append(queue.get(timeout=STANDARD_PATIENCE))
        return got
    while not queue.empty():
        got.append(queue.get())
    return got


def close(queue: Any) -> None:
    queue.close()
    if hasattr(queue, "join_thread"):
        queue.join_thread()


# --- pools that end --------------------------------------------------------------------------------------------------

_queue: Any = None


def remember(queue: Any) -> None:
    global _queue
    _queue = queue


def put_result(number: int) -> None:
    _queue.put(number)


def pool_block(method: str, kind: str, tasks: int) -> list[Any]:
    """The results that so many tasks have put, once the block of their pool has ended, which terminates its workers."""
    context = multiprocessing.get_context(method)
    queue = KINDS[kind](context, tasks)
    with context.Pool(2, remember, (queue,)) as pool:
        pool.map(put_result, range(tasks))
    pool.join()
    got = drain(queue, kind)
    close(queue)
    return sorted(got)


# --- producers that die ----------------------------------------------------------------------------------------------


def _terminate() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


def _segfault() -> None:
    faulthandler.disable()
    ctypes.string_at(0)


DEATHS: dict[str, Callable[[], object]] = {
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "SIGTERM": _terminate,
    "os._exit": lambda: os._exit(0),
    "segfault": _segfault,
}
EXIT_CODES = {"SIGKILL": -signal.SIGKILL, "SIGTERM": -signal.SIGTERM, "os._exit": 0, "segfault": -signal.SIGSEGV}


def _put_each(queue: Any, items: list[Any]) -> None:
    for item in items:
        queue.put(item)


WAYS: dict[str, Callable[[Any, list[Any]], None]] = {
    "put": _put_each,
    "put_many": lambda queue, items: queue.put_many(items),
    "large items": _put_each,
    "large put_many": lambda queue, items: queue.put_many(items),
}


def fits(kind: str, way: str, count: int) -> bool:
    """There is such a case: a ``SimpleTurboQueue`` has no ``put_many``, and many large items are a lot of memory."""
    return (kind != "SimpleTurboQueue" or "put_many" not in way) and ("large" not in way or count <= LARGE_MOST)


def item_of(way: str, number: int) -> tuple[int, bytes]:
    return number, bytes([number & 255]) * (LARGE if "large" in way else 0)


def put_and_die(queue: Any, way: str, count: int, death: str) -> None:
    """Put so many items; the last thing before the end is the return of the last put."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    items = [item_of(way, number) for number in range(count)]
    put, die = WAYS[way], DEATHS[death]
    put(queue, items)
    die()


def survivors(method: str, kind: str, way: str, count: int, death: str) -> list[int]:
    """The numbers of the items that are there after their producer's death, in the order in which they come.

    Raises ``AssertionError`` where it died of something else, where an item is not as it was put, and where a bounded
    queue has not all of its places again."""
    context: Any = multiprocessing.get_context(method)
    queue = KINDS[kind](context, count)
    process = context.Process(target=put_and_die, args=(queue, way, count, death))
    process.start()
    process.join(PATIENCE)
    code = process.exitcode
    assert code == EXIT_CODES[death], f"the producer ended with {code}"
    process.close()
    if kind in OURS and hasattr(queue, "qsize"):
        assert queue.qsize() == count
    got = drain(queue, kind)
    assert all(item == item_of(way, item[0]) for item in got)
    if kind == "bounded TurboQueue":
        assert places_of(queue) == count
    close(queue)
    return [number for number, _ in got]


def places_of(queue: Any) -> int:
    """Places of an empty queue: puts until it is full."""
    places = 0
    with contextlib.suppress(Full):
        while True:
            queue.put_nowait(places)
            places += 1
    return places


# --- others that look ------------------------------------------------------------------------------------------------

LOOKS = ("qsize", "empty", "get_nowait")


def _look(queue: Any, connection: Connection) -> None:
    """Look at the queue each time we are told that an item has been put; say whether that was late."""
    while look := connection.recv():
        if look == "qsize":
            late = queue.qsize() != 1
        elif look == "empty":
            late = queue.empty()
        else:
            late = False
        if hasattr(queue, "get_nowait"):
            try:
                item = queue.get_nowait()
            except Empty:
                late = True
                item = queue.get(timeout=PATIENCE)
        else:
            late |= queue.empty()
            item = queue.get()
        connection.send((late, item[0]))


def late_looks(method: str, kind: str, count: int) -> int:
    """How many of so many looks of another process did not see the item that had been put right before."""
    context: Any = multiprocessing.get_context(method)
    queue = KINDS[kind](context, 1)
    ours, theirs = context.Pipe()
    process = context.Process(target=_look, args=(queue, theirs))
    process.start()
    theirs.close()
    looks = [look for look in LOOKS if hasattr(queue, look)]
    ways = [way for way in WAYS if kind != STANDARD and fits(kind, way, 1)] or ["put"]
    usual, rare = [way for way in ways if "large" not in way], ways
    late = 0
    for number in range(count):
        way = (rare if number % 20 == 0 else usual)[number // 20 % len(usual)]
        items = [item_of(way, number)]
        put = WAYS[way]
        put(queue, items)
        ours.send(looks[number % len(looks)])
        if not ours.poll(PATIENCE):
            process.kill()
            raise AssertionError(f"item {number} does not come")
        missed, found = ours.recv()
        assert found == number, f"item {found} came, it should be {number}"
        late += missed
    ours.send("")
    process.join(PATIENCE)
    assert process.exitcode == 0
    close(queue)
    return late


# --- order in time ---------------------------------------------------------------------------------------------------


class Order(NamedTuple):
    """What became of items that several producers put."""

    items: int
    apart: int
    """Of these so many were put ``APART`` or more after one of another producer."""
    misplaced: int
    """So many of them came before an item that was put ``APART`` or more before them."""
    worst: float
    """Seconds by which one was too early, at most; below 0: none was."""


def _put_in_time(queue: Any, me: int, count: int, seed: int, connection: Connection) -> None:
    rng = random.Random(seed * 1000 + me)
    times = []
    for number in range(count):
        item = (me, number, bytes(100_000 if rng.random() < 0.002 else 0))
        begin = time.monotonic()
        queue.put(item)
        times.append((begin, time.monotonic()))
        if rng.random() < 0.1:
            time.sleep(rng.uniform(0, 2 * APART))
    connection.send(times)


def order(
    method: str, places: int, count: int, producers: int = 4, later: bool = False, stops: bool = False, seed: int = 1
) -> Order:
    """Let producers put ``count`` items in all, at random instants, and get them, ``later``: when all are put.

    ``stops``: now and then one of the producers is stopped, wherever it is, until later, or the others' are got."""
    context: Any = multiprocessing.get_context(method)
    queue = TurboQueue(places, ctx=context)
    rng = random.Random(seed)
    each = count // producers
    crew = []
    for me in range(producers):
        ours, theirs = context.Pipe()
        process = context.Process(target=_put_in_time, args=(queue, me, each, seed, theirs))
        crew.append((process, ours, theirs))
    for process, _, theirs in crew:
        process.start()
        theirs.close()
    got: list[tuple[int, int]] = []
    times = [ours.recv() for _, ours, _ in crew] if later else []
    stopped: Optional[int] = None
    left = [each] * producers
    while any(left):
        me, number, _ = queue.get(timeout=PATIENCE)
        got.append((me, number))
        left[me] -= 1
        # Not reaped before the end, so its number is nobody else's.
        if stopped is not None and (rng.random() < 0.02 or not sum(left) - left[stopped]):
            os.kill(crew[stopped][0].pid, signal.SIGCONT)
            stopped = None
        if stops and stopped is None and rng.random() < 0.1:
            chosen = rng.randrange(producers)
            if sum(left) - left[chosen]:  # else nobody is left to put what the next get waits for
                stopped = chosen
                os.kill(crew[chosen][0].pid, signal.SIGSTOP)
    times = times or [ours.recv() for _, ours, _ in crew]
    for process, _, _ in crew:
        process.join(PATIENCE)
        assert process.exitcode == 0
    assert queue.empty()
    close(queue)
    return _judge(got, times)


def _judge(got: list[tuple[int, int]], times: list[list[tuple[float, float]]]) -> Order:
    first = [own[0][1] for own in times]
    apart = misplaced = 0
    worst = ended = float("inf")
    worst = -worst
    following = [0] * len(times)
    for me, number in got:
        assert number == following[me], f"item {number} of producer {me} came, it should be {following[me]}"
        following[me] += 1
    for me, number in reversed(got):
        begin, end = times[me][number]
        apart += begin > APART + min(first[:me] + first[me + 1 :])
        early = begin - ended - APART  # ``ended``: the first end of what came later
        misplaced += early > 0
        worst = max(worst, early)
        ended = min(ended, end)
    return Order(len(got), apart, misplaced, worst)


# --- the table -------------------------------------------------------------------------------------------------------


class Tally(NamedTuple):
    """Runs that lost items, items that were lost, and runs in which something came twice, or out of order."""

    runs: int
    losing: int
    lost: int
    wrong: int

    @classmethod
    def of(cls, wanted: list[Any], found: list[list[Any]]) -> Tally:
        losses = [len(wanted) - len(set(got)) for got in found]
        # Of what is there: in its order, each once.
        wrong = sum(got != sorted(set(got)) for got in found)
        return cls(len(found), sum(map(bool, losses)), sum(losses), wrong)

    def __str__(self) -> str:
        said = f"{self.losing} of {self.runs} runs lost items, {self.lost} in all"
        return said + (f", {self.wrong} doubled or misplaced some" if self.wrong else "")


Row = tuple[str, str, str, bool]
"""What was measured, of which queue, what came out, and whether that is as it should be."""
BESIDE = ("TurboQueue", STANDARD)


def judged(what: str, kind: str, tally: Tally) -> Row:
    return what, kind, str(tally), not (tally.lost or tally.wrong)


def pools(options: argparse.Namespace) -> Iterator[Row]:
    for method in options.methods:
        for tasks in TASKS:
            for kind in BESIDE:
                found = [pool_block(method, kind, tasks) for _ in range(options.runs)]
                yield judged(f"{method}: a Pool's block of {tasks} tasks", kind, Tally.of(list(range(tasks)), found))


def deaths(options: argparse.Namespace) -> Iterator[Row]:
    for method in options.methods:
        for death in DEATHS:
            for count in COUNTS:
                for kind in BESIDE:
                    found = [survivors(method, kind, "put", count, death) for _ in range(options.runs)]
                    what = f"{method}: {death} right after the last of {count} puts"
                    yield judged(what, kind, Tally.of(list(range(count)), found))


def ways(options: argparse.Namespace) -> Iterator[Row]:
    for kind in OURS:
        for way in WAYS:
            counts = [count for count in COUNTS if fits(kind, way, count)]
            for death in DEATHS if counts else ():
                tallies = [
                    Tally.of(
                        list(range(count)), [survivors("fork", kind, way, count, death) for _ in range(options.runs)]
                    )
                    for count in counts
                ]
                what = f"fork: {way}, {death} right after the last of {', '.join(map(str, counts))}"
                yield judged(what, kind, Tally(*map(sum, zip(*tallies))))


def looks(options: argparse.Namespace) -> Iterator[Row]:
    for kind in (*OURS, STANDARD):
        late = late_looks("fork", kind, options.looks)
        yield f"{options.looks} looks right after a put", kind, f"{late} late", not late


def orders(options: argparse.Namespace) -> Iterator[Row]:
    cases: list[tuple[str, int, dict[str, bool]]] = [
        ("while they are got", 0, {}),
        ("all got later", 0, {"later": True}),
        ("some stopped", 0, {"stops": True}),
        ("while they are got", 1000, {}),
        ("some stopped", 100, {"stops": True}),
    ]
    for name, places, how in cases:
        found = order("fork", places, options.order, **how)
        said = f"{found.misplaced} misplaced"
        if found.misplaced:
            said += f", one by {found.worst * 1000:.1f} ms"
        kind = f"TurboQueue({places or ''})"
        yield f"{found.apart} items put over 2 ms apart, {name}", kind, said, not found.misplaced


PARTS: dict[str, Callable[[argparse.Namespace], Iterator[Row]]] = {
    "looks": looks,
    "orders": orders,
    "pools": pools,
    "deaths": deaths,
    "ways": ways,
}


def at_least_one(text: str) -> int:
    """Of none nothing would be found."""
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return count


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--runs", type=at_least_one, default=100, help="runs of each case")
    parser.add_argument("--looks", type=at_least_one, default=10_000)
    parser.add_argument("--order", type=at_least_one, default=100_000, help="items that several producers put")
    methods = multiprocessing.get_all_start_methods()
    parser.add_argument("--methods", nargs="+", choices=methods, default=methods)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir()
    os.environ["TQSHIM_DIR"] = own_folder.make("survival-run-of-tqshim-", memory)
    bad = 0
    for what, kind, said, good in (row for part in options.parts for row in PARTS[part](options)):
        found = not good and kind != STANDARD
        bad += found
        print(f"{'FOUND: ' if found else ''}{what:<58} {kind:<22} {said}", flush=True)
    left = os.listdir(os.environ["TQSHIM_DIR"])
    if left:
        print(f"FOUND: folders are left: {left}")
    shutil.rmtree(os.environ["TQSHIM_DIR"], ignore_errors=True)
    return bool(bad or left)


if __name__ == "__main__":
    sys.exit(main())
