"""What one queue would do on machines with more processors than this one: measured costs, and a model fed by them.

    python -m compat.scale_model                       measure, check the model here, predict
    python -m compat.scale_model --places              only what shared places cost, with 1 to 200 processes
    python -m compat.scale_model --costs costs.json    predict from costs that --json has written elsewhere

**Measured**, on this machine (``measure``): what a put and a get cost a process, the get by how many claims of others
came in between; how long an append holds the journal's lock, from how much two processes on two processors hinder each
other; and what all shared places cost with up to 200 processes.

**Modelled** (``simulate``): processors, processes and the journal's lock, as a discrete simulation.  A producer
appends one event that reserves places for a row of items, and puts them one by one.  A consumer appends its claim, with
a cut where that is due, reads what others have claimed meanwhile, delivers its item and does its task.  Whoever waits
for the lock keeps its processor, as the kernel does.  Who finds nothing sleeps; a put rings for one sleeper where none
is waking up, and that one for the next.  Left out: processes that take each other's processors and caches, memory
bandwidth, sockets.  How dear it is to hand the lock from one processor to another grows with the machine: so the model
is also run with a lock that is held three times as long.

**Checked** (``check``): the same shapes run here, pinned to one and to two processors, beside what the model says.

Only claims of single items are modelled: costs are measured, and the model is checked, with leases switched off.
Consumers that spend less than 10 µs on an item lease rows of them where that helps, and a sole consumer always does:
such queues may do better than the model says.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Final

import simpy

from tqshim import TurboQueue
from tqshim.bench.crew import Crew
from tqshim.bench.kinds import KINDS, TURBO
from tqshim.bench.runs import BOUND, Setting, do_tasks, task_turns, throughput
from tqshim.bench.workloads import ITEM_WIDTH, PATIENCE
from tqshim.engine import tuning
from tqshim.engine.tuning import NAP
from tqshim.runtime.systems import processors
from tqshim.storage.places import anonymous_root

PROCESSES: Final = (1, 2, 5, 10, 20, 50, 100, 200)
"""Processes that use one shared place at once."""
BETWEEN: Final = (0, 1, 3, 7, 15, 31, 63, 127)
"""Claims of others between two gets of one consumer: about as many as there are other consumers."""
CORES: Final = (8, 16, 32, 64, 128)
TASKS: Final = (0.0, 10e-6, 100e-6, 1e-3)
"""Seconds of processor time that a consumer spends on an item."""
LONE_EVERY: Final = 1.5e-3
"""Seconds between two items that each find their consumer asleep."""
DEARER: Final = 3.0
"""How much longer the lock may be held where many processors pass it on: an assumption."""
SATURATED: Final = 0.85
"""Share of the time from which something counts as used up."""
QUIET: Final = 0.9
"""Share of two processors from which a machine counts as quiet."""
LIMIT: Final = 60.0
"""Seconds after which a measurement counts as stuck."""


# -- what is measured


@dataclasses.dataclass(frozen=True)
class Costs:
    """Seconds of processor time, as measured with nobody else at work, and of holding the journal's lock."""

    put: float
    """One put in a row of them, its part of reserving places included."""
    gets: tuple[tuple[int, float], ...]
    """One get after so many claims of others: pairs, the claims ascending."""
    lock: float
    """Of an append: for how long it keeps other appends from going on."""
    append: float
    """The whole append, the lock included."""
    ring: float
    """What a put takes longer when it comes alone and wakes somebody."""
    wake: float
    """What a get takes longer when it had to look, sleep and be woken."""
    had: float = 1.0
    """Share of two processors that was to be had: on a busy machine it is less, and then nothing of this counts."""

    def get(self, others: int) -> float:
        """One get after so many claims of others, on straight lines between what was measured, and beyond."""
        points = self.gets
        if len(points) == 1:
            return points[0][1]
        at = next((place for place, (claims, _) in enumerate(points[1:-1], 1) if claims >= others), len(points) - 1)
        (left, low), (right, high) = points[at - 1], points[at]
        return low + (high - low) * (others - left) / (right - left)


def serial_part(whole: float, together: float) -> float:
    """Seconds of an act of ``whole`` seconds that exclude others, if two processes on two processors do ``together``
    acts a second.

    Exact mean value analysis of two customers who compute and then queue at one server: the second to come finds the
    first there with the probability ``part / whole``, so that ``together = 2 / (whole + part ** 2 / whole)``.

    >>> serial_part(2.0, 1.0)           # as fast as if they did not know of each other
    0.0
    >>> serial_part(2.0, 0.5)           # no faster than one alone
    2.0
    """
    return whole * math.sqrt(max(0.0, 2 / (whole * together) - 1))


Act = Callable[[str], Callable[[], object]]
"""Opens a shared place in a folder, and returns one use of it."""


def _journal(folder: str) -> Callable[[], object]:
    fd = os.open(os.path.join(folder, "journal"), os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    return lambda: os.write(fd, b"\1\0\0\0\0\0\0\0")


def _own_file(folder: str) -> Callable[[], object]:
    fd = os.open(os.path.join(folder, f"own_{os.getpid()}"), os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    return lambda: os.write(fd, b"\1\0\0\0\0\0\0\0")


def _bell(folder: str) -> Callable[[], object]:
    path = os.path.join(folder, "bell")
    with contextlib.suppress(FileExistsError):
        os.mkfifo(path, 0o600)
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def ring_and_hear() -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(fd, b"!")
        with contextlib.suppress(BlockingIOError):
            os.read(fd, 1)

    return ring_and_hear


def _directory(folder: str) -> Callable[[], object]:
    first, second = (os.path.join(folder, f"{state}_{os.getpid()}") for state in ("load", "ready"))

    def make_rename_remove() -> None:
        os.close(os.open(first, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        os.rename(first, second)
        os.unlink(second)

    return make_rename_remove


PLACES: Final[dict[str, tuple[Act, str]]] = {
    "journal": (_journal, "one append: a claim of each item, a reservation of each row"),
    "directory": (_directory, "make, rename and remove a batch file: once a megabyte"),
    "bell": (_bell, "ring and hear: once a wake"),
    "own file": (_own_file, "one append where nobody else appends, for comparison"),
}
"""What all processes of a queue share, and how often an item uses it."""


def _use(place: str, folder: str, count: int, gate: Any) -> tuple[float, float, float]:
    """Use a place so often; return when it began and ended, and seconds of processor time."""
    act = PLACES[place][0](folder)
    gate.wait()
    began = time.monotonic()
    before = time.process_time()
    for _ in range(count):
        act()
    used = time.process_time() - before
    return began, time.monotonic(), used


@dataclasses.dataclass(frozen=True)
class Use:
    """What one use of a place costs while so many processes use it."""

    place: str
    processes: int
    processor: float
    """Seconds of processor time."""
    rate: float
    """Uses a second, of all together."""


def use_together(place: str, number: int, total: int, limit: float = LIMIT) -> Use:
    """Let so many processes use a place about ``total`` times."""
    context = multiprocessing.get_context("fork")
    each = max(1, total // number)
    with tempfile.TemporaryDirectory(dir=anonymous_root()) as folder, Crew(context, limit) as crew:
        gate = context.Barrier(number, timeout=limit)
        users = [crew.start(_use, place, folder, each, gate) for _ in range(number)]
        answers = [crew.result(user) for user in users]
    elapsed = max(ended for _, ended, _ in answers) - min(began for began, _, _ in answers)
    return Use(place, number, sum(used for _, _, used in answers) / (each * number), each * number / elapsed)


# Items and calls are those of the benchmark's workload, whose loops cost something, too.


def _put_row(queue: Any, count: int) -> float:
    """Seconds of processor time of one put in a row of them."""
    before = time.process_time()
    for number in range(count):
        queue.put((number,) * ITEM_WIDTH, timeout=PATIENCE)
    return (time.process_time() - before) / count


def _put_lone(queue: Any, count: int) -> float:
    """Seconds of processor time of one put, each a while after the one before it; waiting itself is taken off."""
    before = time.process_time()
    for _ in range(count):
        time.sleep(LONE_EVERY)
    waiting = time.process_time() - before
    for number in range(count):
        time.sleep(LONE_EVERY)
        queue.put((number,) * ITEM_WIDTH, timeout=PATIENCE)
    queue.put(None)
    return (time.process_time() - before - 2 * waiting) / count


def _get_lone(queue: Any) -> float:
    """Seconds of processor time of one get that waits for its item."""
    queue.get(True, LIMIT)
    count = 0
    before = time.process_time()
    while queue.get(True, LIMIT) is not None:
        count += 1
    return (time.process_time() - before) / count


def _get_between(queue: Any, turn: Any, others: int, samples: int) -> float:
    """Seconds of one get, each after the other consumer's ``others`` claims; the slowest twentieth left out.

    Both keep a processor and look at whose turn it is: nobody is put to sleep, and caches stay as they are."""
    taken = []
    numbers: list[int] = []
    for number in range(samples):
        while turn[0] != 2 * number + 1:
            pass
        before = time.perf_counter()
        item = queue.get(timeout=PATIENCE)
        time.monotonic()
        numbers.append(item[0])
        taken.append(time.perf_counter() - before)
        turn[0] = 2 * number + 2
    taken.sort()
    return statistics.mean(taken[: max(1, len(taken) * 19 // 20)])


def _claim_between(queue: Any, turn: Any, others: int, samples: int) -> None:
    """The other consumer of ``_get_between``."""
    queue.get(True, LIMIT)  # a consumer from now on
    for number in range(samples):
        for _ in range(others):
            queue.get(True, LIMIT)
        turn[0] = 2 * number + 1
        while turn[0] != 2 * number + 2:
            pass


def _get_after(others: int, samples: int) -> float:
    samples = min(samples, (BOUND - 1) // (others + 1))
    context = multiprocessing.get_context("fork")
    with TurboQueue(BOUND, ctx=context) as queue, Crew(context, LIMIT) as crew:
        filler = crew.start(_put_row, queue, (others + 1) * samples + 1)
        crew.result(filler)
        crew.join(filler)
        turn = context.RawArray("q", 1)
        crew.start(_claim_between, queue, turn, others, samples)
        seconds: float = crew.result(crew.start(_get_between, queue, turn, others, samples))
    return seconds


def _put_cost(count: int) -> float:
    context = multiprocessing.get_context("fork")
    with TurboQueue(BOUND, ctx=context) as queue, Crew(context, LIMIT) as crew:
        seconds: float = crew.result(crew.start(_put_row, queue, min(count, BOUND)))
    return seconds


def _lone_costs(count: int) -> tuple[float, float]:
    """Seconds of a put that wakes a consumer, and of a get that is woken."""
    context = multiprocessing.get_context("fork")
    with TurboQueue(BOUND, ctx=context) as queue, Crew(context, LIMIT) as crew:
        consumer = crew.start(_get_lone, queue)
        producer = crew.start(_put_lone, queue, count)
        return crew.result(producer), crew.result(consumer)


@contextlib.contextmanager
def without_leases() -> Iterator[None]:
    """Switch leases off in processes that are forked meanwhile."""
    before = tuning.LEASES
    tuning.LEASES = False  # type: ignore[misc]
    try:
        yield
    finally:
        tuning.LEASES = before  # type: ignore[misc]


@without_leases()
def measure(effort: float, rounds: int) -> Costs:
    """Measure the costs on this machine, the median of some rounds; ``effort``: 1 takes some 15 seconds."""
    if not hasattr(os, "sched_setaffinity"):
        raise SystemExit(f"scale_model: {sys.platform} can't pin processes to processors; use --costs, or Linux")
    if processors() < 2:
        raise SystemExit("scale_model: two processors are needed to see how processes hinder each other; use --costs")
    appends = max(2000, round(200_000 * effort))
    samples = max(20, round(400 * effort))
    alone, lock, had = [], [], []
    for _ in range(rounds):
        # The same two processes on files of their own: what slows them there is not the lock.
        apart = [use_together("own file", number, appends) for number in (1, 2)]
        one, two = (use_together("journal", number, appends) for number in (1, 2))
        unhindered = apart[1].rate / (2 * apart[0].rate)
        had.append(unhindered)
        alone.append(1 / one.rate)
        lock.append(serial_part(1 / one.rate, two.rate / unhindered))
    put = statistics.median(_put_cost(max(2000, round(BOUND * effort))) for _ in range(rounds))
    gets = tuple((others, statistics.median(_get_after(others, samples) for _ in range(rounds))) for others in BETWEEN)
    lone = [_lone_costs(samples) for _ in range(rounds)]
    return Costs(
        put=put,
        gets=gets,
        lock=statistics.median(lock),
        append=statistics.median(alone),
        ring=max(0.0, statistics.median(lone_put for lone_put, _ in lone) - put),
        wake=max(0.0, statistics.median(lone_get for _, lone_get in lone) - gets[0][1]),
        had=statistics.median(had),
    )


# -- what is modelled


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a simulation came to."""

    rate: float
    """Items a second."""
    busy: dict[str, float]
    """Share of the time in which each was used: the producers, the journal's lock, the consumers, the processors."""

    def first(self) -> str:
        """What is used up first, or the one that is nearest to it."""
        # The narrower place first: whoever waits for the lock is busy, too.
        for name in ("journal", "producers", "consumers", "processors"):
            if self.busy[name] >= SATURATED:
                return name
        return max(self.busy, key=lambda name: self.busy[name])


def simulate(
    costs: Costs, cores: int, producers: int, consumers: int, task: float, items: int, row: int = 0
) -> Prediction:
    """Simulate ``items`` items on their way through a bounded queue; ``task``: seconds of work on each, ``row``: places
    of one reservation, by default as many as the queue's."""
    row = row or min(tuning.PLACES, max(tuning.PLACES_FEW, BOUND // 64))
    environment = simpy.Environment()
    core = simpy.Resource(environment, capacity=cores)
    lock = simpy.Resource(environment, capacity=1)
    waiting: list[Any] = []
    blocked: list[Any] = []
    used = {"journal": 0.0, "producers": 0.0, "consumers": 0.0, "processors": 0.0}
    state = {"there": 0, "taken": 0, "rung": 0, "left": items, "put": items}
    outside = max(0.0, costs.append - costs.lock)
    # The claim's own append is a part of what a get was measured to take.
    claim = max(0.0, costs.get(consumers - 1) - costs.lock)

    def compute(seconds: float, who: str) -> Generator[Any, Any, None]:
        with core.request() as place:
            yield place
            yield environment.timeout(seconds)
        used["processors"] += seconds
        used[who] += seconds

    def append(seconds: float, who: str) -> Generator[Any, Any, None]:
        """Compute, and append: whoever waits for the lock keeps its processor."""
        with core.request() as place:
            yield place
            began = environment.now
            yield environment.timeout(seconds)
            with lock.request() as turn:
                yield turn
                yield environment.timeout(costs.lock)
                used["journal"] += costs.lock
        used["processors"] += environment.now - began
        used[who] += environment.now - began

    def ring() -> float:
        """Wake one who sleeps, unless one is waking up; returns the seconds that this takes."""
        if not waiting or state["rung"]:
            return 0.0
        state["rung"] = 1
        waiting.pop(0).succeed()
        return costs.ring

    def produce() -> Generator[Any, Any, None]:
        while state["put"] > 0:
            count = min(row, state["put"])
            state["put"] -= count
            while state["taken"] + count > BOUND:
                room = environment.event()
                blocked.append(room)
                yield room
            state["taken"] += count
            yield from append(outside, "producers")
            # A row takes about as long as the kernel leaves the processor to one process.
            with core.request() as place:
                yield place
                began = environment.now
                for _ in range(count):
                    yield environment.timeout(max(0.0, costs.put - costs.append / count))
                    state["there"] += 1
                    cost = ring()
                    if cost:
                        yield environment.timeout(cost)
            used["processors"] += environment.now - began
            used["producers"] += environment.now - began

    def consume() -> Generator[Any, Any, None]:
        woken = False
        while state["left"] > 0:
            if state["there"] == 0:
                sleeper = environment.event()
                waiting.append(sleeper)
                state["rung"] = 0
                yield sleeper | environment.timeout(NAP * consumers)
                woken = sleeper not in waiting
                if not woken:
                    waiting.remove(sleeper)
                yield from compute(costs.wake, "consumers")
                state["rung"] = 0
                continue
            state["there"] -= 1
            state["left"] -= 1
            if state["left"] == 0:  # nothing more will come for those who wait
                for sleeper in waiting:
                    sleeper.succeed()
                waiting.clear()
            yield from append(claim, "consumers")
            cost = ring() if woken and state["there"] else 0.0
            woken = False
            if cost:
                yield from compute(cost, "consumers")
            state["taken"] -= 1
            if blocked and state["taken"] + row <= BOUND:
                blocked.pop().succeed()
            if task:
                yield from compute(task, "consumers")

    for _ in range(producers):
        environment.process(produce())
    finished = [environment.process(consume()) for _ in range(consumers)]

    environment.run(until=environment.all_of(finished))
    seconds = environment.now
    available = {"journal": 1, "producers": producers, "consumers": consumers, "processors": cores}
    return Prediction(items / seconds, {name: used[name] / (seconds * available[name]) for name in used})


# -- both, side by side


@dataclasses.dataclass(frozen=True)
class Check:
    """One shape, measured and modelled."""

    cores: int
    producers: int
    consumers: int
    task: float
    measured: float
    """Items a second."""
    modelled: float

    @property
    def ratio(self) -> float:
        """Modelled over measured."""
        return self.modelled / self.measured


SHAPES: Final = ((1, 2, 0.0), (1, 4, 0.0), (1, 10, 0.0), (3, 20, 0.0), (1, 4, 10e-6), (1, 10, 100e-6), (1, 40, 1e-3))
"""Producers, consumers and seconds of a task."""


@contextlib.contextmanager
def only_processors(count: int) -> Iterator[None]:
    """Pin this process, and those that it starts, to so many processors."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def run_here(cores: int, producers: int, consumers: int, task: float, items: int, limit: float = LIMIT) -> float:
    """Items a second of such a shape on so many of this machine's processors."""
    setting = Setting(multiprocessing.get_context("fork"), 1.0, limit)
    turns = task_turns(task) if task else 0
    with only_processors(cores):
        if not task:
            return throughput(KINDS[TURBO], setting, producers, consumers, items, BOUND)[0]
        done = do_tasks(KINDS[TURBO], setting, turns, consumers, items)
    return items / (max(one.last for one in done) - min(one.began for one in done))


@without_leases()
def check(costs: Costs, effort: float, rounds: int) -> list[Check]:
    """Run the shapes on one and on two processors of this machine, and the model of each."""
    found = []
    for cores in (1, 2):
        for producers, consumers, task in SHAPES:
            items = max(5 * consumers, round(effort * min(60_000, 2.0 / (task or 1e-9))))
            measured = statistics.median(run_here(cores, producers, consumers, task, items) for _ in range(rounds))
            modelled = simulate(costs, cores, producers, consumers, task, items).rate
            found.append(Check(cores, producers, consumers, task, measured, modelled))
    return found


@dataclasses.dataclass(frozen=True)
class Row:
    """What the model says of one machine and task."""

    task: float
    cores: int
    producers: int
    consumers: int
    as_measured: Prediction
    dearer: Prediction
    """The same with the lock held so much longer."""

    @property
    def share(self) -> float:
        """Of the rate that consumers would have whose items cost nothing but their tasks; 0 without tasks."""
        return self.as_measured.rate * self.task / self.consumers


def predict(costs: Costs, cores: Sequence[int], tasks: Sequence[float], items: int) -> list[Row]:
    """A process for each processor: one producer, or one in four."""
    longer = costs.lock * (DEARER - 1)
    dearer = dataclasses.replace(
        costs,
        lock=costs.lock + longer,
        append=costs.append + longer,
        gets=tuple((others, seconds + longer) for others, seconds in costs.gets),
    )
    rows = []
    for task in tasks:
        for number in cores:
            for producers in (1, number // 4):
                shape = (number, producers, number - producers, task, items)
                rows.append(Row(task, *shape[:3], simulate(costs, *shape), simulate(dearer, *shape)))
    return rows


# -- the command


def _micro(seconds: float) -> str:
    return f"{1e6 * seconds:.2f}"


def _task(seconds: float) -> str:
    return f"{1e6 * seconds:g} µs" if seconds else "none"


def show_costs(costs: Costs) -> Iterator[str]:
    """The lines about what was measured."""
    yield "MEASURED on this machine, µs of processor time with nobody else at work, medians"
    if costs.had < QUIET:
        yield f"  DOES NOT COUNT: only {100 * costs.had:.0f} % of two processors were to be had; end what else runs"
    yield f"  put, its part of a reservation included      {_micro(costs.put)}"
    yield f"  append to the journal                        {_micro(costs.append)}"
    yield f"    of which it holds the lock                 {_micro(costs.lock)}"
    yield f"  waking a consumer: its producer              {_micro(costs.ring)}"
    yield f"    the consumer, which looked and slept       {_micro(costs.wake)}"
    for others, seconds in costs.gets:
        yield f"  get after {others:3} claims of others               {_micro(seconds)}"


def show_places(uses: Sequence[Use]) -> Iterator[str]:
    """The table of shared places."""
    yield f"MEASURED: shared places, used by 1 to {PROCESSES[-1]} processes at once on {processors()} processors"
    for place, (_, what) in PLACES.items():
        yield f"  {place}: {what}"
        for use in uses:
            if use.place == place:
                cost = f"{_micro(use.processor):>7} µs of processor time"
                yield f"    {use.processes:3} processes  {cost}  {use.rate:12,.0f} a second"


def show_checks(checks: Sequence[Check]) -> Iterator[str]:
    """The table of measured and modelled rates."""
    yield "MEASURED AND MODELLED: items a second on processors of this machine"
    yield "  processors  shape    task        measured   modelled   modelled/measured"
    for one in checks:
        shape = f"{one.producers}x{one.consumers}"
        yield (
            f"  {one.cores:10}  {shape:7}  {_task(one.task):8} {one.measured:11,.0f} {one.modelled:10,.0f}"
            f"   {one.ratio:.2f}"
        )


def show_rows(rows: Sequence[Row]) -> Iterator[str]:
    """The table of predictions."""
    yield "MODELLED, not measured: items a second with a process for each processor, and what is used up first;"
    yield f"in the last two columns the lock is held {DEARER:g} times as long as measured here"
    yield "  task      processors  shape     items a second  of the ideal  first       items a second  first"
    for row in rows:
        ideal = f"{100 * row.share:.0f} %" if row.task else "-"
        shape = f"{row.producers}x{row.consumers}"
        yield (
            f"  {_task(row.task):9} {row.cores:10}  {shape:8} {row.as_measured.rate:15,.0f} {ideal:>13}"
            f"  {row.as_measured.first():10} {row.dearer.rate:15,.0f}  {row.dearer.first()}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, check and predict; print tables, or JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m compat.scale_model", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--places", action="store_true", help="only measure shared places, with 1 to 200 processes")
    parser.add_argument("--costs", metavar="FILE", help="costs that --json has written: nothing is measured then")
    parser.add_argument(
        "--effort", type=float, default=1.0, help="of the measurements and the simulations (default: 1)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="measurements of which the median counts (default: 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    options = parser.parse_args(arguments)
    if not 0 < options.effort < math.inf:
        parser.error(f"--effort {options.effort} is not above 0")
    if options.rounds < 1:
        parser.error(f"--rounds {options.rounds} is not 1 or more")
    document: dict[str, Any] = {}
    lines: list[str] = []
    if options.costs:
        with open(options.costs, encoding="utf-8") as file:
            read = json.load(file)["costs"]
        costs = Costs(**{**read, "gets": tuple(map(tuple, read["gets"]))})
    if options.places or not options.costs:
        total = max(400, round(100_000 * options.effort))
        uses = [
            use_together(place, number, total if place != "directory" else total // 4)
            for place in PLACES
            for number in PROCESSES
        ]
        document["places"] = [dataclasses.asdict(use) for use in uses]
        lines += [*show_places(uses), ""]
    if not options.places:
        if not options.costs:
            costs = measure(options.effort, options.rounds)
            checks = check(costs, options.effort, options.rounds)
            document["checks"] = [{**dataclasses.asdict(one), "ratio": one.ratio} for one in checks]
            lines += [*show_costs(costs), "", *show_checks(checks), ""]
        rows = predict(costs, CORES, TASKS, max(500, round(30_000 * options.effort)))
        document["costs"] = dataclasses.asdict(costs)
        document["predictions"] = [dataclasses.asdict(row) for row in rows]
        lines += [*show_rows(rows)]
    if options.json:
        json.dump(document, sys.stdout, indent=1)
        print()
    else:
        print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
