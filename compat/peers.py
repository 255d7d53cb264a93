"""TurboQueue beside multiprocessing.Queue and faster-fifo, on faster-fifo's published comparison and a few more.

    python -m compat.peers                       everything, some minutes
    python -m compat.peers --quick               a tenth of the items, for a first look
    python -m compat.peers --only bounded/1x1 --only idle

The workload is that of `cpp_faster_fifo/tests/comparison_tests.py` in github.com/alex-petrenko/faster-fifo: six
configurations of producers x consumers, tuples of five equal numbers, a bound of 100,000, `put` and `get` one by one
with timeouts of 10 ms and a new try on `Full` and `Empty`. faster-fifo is optional: without it its rows are missing.

How it is measured. Each run has new processes and a new queue. It lasts from the moment the first process leaves a
common barrier until the last item has been received. The kinds of queue take turns (A B C A B C ...), and every ratio
is between two runs of one round, so that a machine that becomes slower for a while slows both sides of it.

The invariant: a figure comes only from a run in which every item arrived exactly once and each consumer saw each
producer's items in order. A run that loses, doubles or reorders items, or hangs, is reported and makes the exit
status 1.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import dataclasses
import importlib.metadata
import importlib.util
import json
import math
import multiprocessing
import os
import platform
import shlex
import statistics
import sys
import time
import traceback
from array import array
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, Full
from typing import Any, Final

ITEM_WIDTH: Final = 5  # the published item is a tuple of five equal numbers
BOUND: Final = 100_000  # the published bound
PATIENCE: Final = 0.01  # seconds: the published timeout of each put and get
BATCH: Final = 100  # the published size of a batch
FOREVER: Final = 3600.0  # seconds, where a queue's own default timeout is short
RECORD_ROOM: Final = 64  # bytes: more than faster-fifo needs for one pickled item with its length

# producers, consumers, items in all: the published counts (200,000 to 50,000 a producer).
CONFIGURATIONS: Final = (
    (1, 1, 200_000),
    (1, 10, 200_000),
    (10, 1, 1_000_000),
    (3, 20, 300_000),
    (20, 3, 1_000_000),
    (20, 20, 1_000_000),
)
ROUND_TRIPS: Final = 10_000
BUSY_PROCESSES: Final = 3
IDLE_CONSUMERS: Final = 40
IDLE_SECONDS: Final = 10.0
EXIT_ITEMS: Final = 1_000_000
EXIT_PATIENCE: Final = 10.0  # seconds: a producer that takes longer is taken to wait for a reader
EXIT_PATIENCE_LEAST: Final = 3.0  # seconds, however few the items: the machine may be busy


class RunError(Exception):
    """A run that gives no figure: items lost, doubled or out of order, a process dead or stuck."""


# --- the queues ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of queue and how it is used."""

    name: str
    module: str  # what must be importable
    make: Callable[[Any, int, int], Any]  # (context, bound or 0, items that an unbounded queue must hold) -> queue
    batch: int = 1  # 1: put and get; more: put_many and get_many of so many
    endless: float | None = None  # the timeout that stands for "wait for ever"
    rival: str = ""  # the kind of faster-fifo that is used in the same way


def make_stdlib(context: Any, bound: int, room: int) -> Any:
    return context.Queue(bound)


def make_simple(context: Any, bound: int, room: int) -> Any:
    return context.SimpleQueue()


def make_faster_fifo(context: Any, bound: int, room: int) -> Any:
    import faster_fifo  # type: ignore[import-untyped,import-not-found,unused-ignore]  # optional, without type hints

    # Its first argument is bytes, not items, and 100,000 is what its own comparison passes there.
    return faster_fifo.Queue(bound) if bound else faster_fifo.Queue(max(room * RECORD_ROOM, BOUND))


def make_turbo(context: Any, bound: int, room: int) -> Any:
    from tqshim import TurboQueue  # here, so that a run without it says so in one line

    return TurboQueue(bound, ctx=context)


STDLIB: Final = "multiprocessing.Queue"
KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(STDLIB, "multiprocessing", make_stdlib),
        Kind("SimpleQueue", "multiprocessing", make_simple),
        Kind("faster-fifo", "faster_fifo", make_faster_fifo, endless=FOREVER),
        Kind("TurboQueue", "tqshim", make_turbo, rival="faster-fifo"),
        Kind("faster-fifo/many", "faster_fifo", make_faster_fifo, batch=BATCH, endless=FOREVER),
        Kind("TurboQueue/many", "tqshim", make_turbo, batch=BATCH, rival="faster-fifo/many"),
    )
}


@contextlib.contextmanager
def queues(kind: Kind, context: Any, count: int, *, bound: int = 0, room: int = 0) -> Iterator[list[Any]]:
    """Make count queues and close them in the end."""
    made = [kind.make(context, bound, room) for _ in range(count)]
    try:
        yield made
    finally:
        for queue in made:
            queue.close()


# --- processes -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Member:
    process: Any
    answer: Any  # the end of the pipe on which the result of its function comes


class Crew:
    """The processes of one run; whatever happens, none outlives it."""

    def __init__(self, context: Any, limit: float) -> None:
        self.context = context
        self.limit = limit
        self.deadline = time.monotonic() + limit
        self.members: list[Member] = []

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for member in self.members:
            if member.process.is_alive():
                member.process.kill()
            member.process.join()
            member.process.close()
            member.answer.close()

    def start(self, function: Callable[..., object], *args: object) -> Member:
        answer, sender = self.context.Pipe(duplex=False)
        process = self.context.Process(target=answer_with, args=(sender, function, args), name=function.__name__)
        process.start()
        sender.close()  # before the next fork, or the end of this process could not be seen
        member = Member(process, answer)
        self.members.append(member)
        return member

    def result(self, member: Member) -> Any:
        """Return what the member's function returned."""
        name = member.process.name
        if not member.answer.poll(max(0.0, self.deadline - time.monotonic())):
            raise RunError(f"{name} has not finished within {self.limit:g} s")
        try:
            value, error = member.answer.recv()
        except EOFError:
            member.process.join(1)
            raise RunError(f"{name} died with exit code {member.process.exitcode}") from None
        if error:
            raise RunError(f"{name} raised\n{error}")
        return value

    def join(self, member: Member) -> None:
        """Wait until the member has left."""
        member.process.join(max(0.0, self.deadline - time.monotonic()))
        if member.process.is_alive():
            raise RunError(f"{member.process.name} has not exited within {self.limit:g} s")


def answer_with(sender: Any, function: Callable[..., object], args: tuple[Any, ...]) -> None:
    """Run function in a process of a crew and send back its result or its traceback."""
    try:
        value, error = function(*args), ""
    except BaseException:
        value, error = None, traceback.format_exc()
    sender.send((value, error))
    sender.close()


# --- what the processes do -------------------------------------------------------------------------------------------
# Item number i of producer p out of n carries the number i * n + p, so that each number comes exactly once.


def produce(queue: Any, batch: int, producer: int, producers: int, each: int, gate: Any) -> float:
    """Put each items; return when it began."""
    numbers = range(producer, producer + producers * each, producers)
    gate.wait()
    began = time.monotonic()
    if batch == 1:
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
    return began


def consume(queue: Any, batch: int, sent: Any, gate: Any) -> tuple[float, float, array[int]]:
    """Get until nothing comes although all has been sent; return begin, time of the last item, and all numbers."""
    numbers: list[int] = []
    gate.wait()
    began = last = time.monotonic()
    if batch == 1:
        get, keep, now = queue.get, numbers.append, time.monotonic
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
        get_many, extend, now = queue.get_many, numbers.extend, time.monotonic
        while True:
            try:
                items = get_many(timeout=PATIENCE, max_messages_to_get=batch)
            except Empty:
                if sent.value:
                    break
            else:
                last = now()
                extend([item[0] for item in items])
    return began, last, array("q", numbers)


def check_delivery(shares: Sequence[Sequence[int]], producers: int, each: int) -> None:
    """Raise RunError unless the consumers' shares hold every item once, each producer's in order.

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


def echo(incoming: Any, outgoing: Any, gate: Any) -> None:
    gate.wait()
    item = incoming.get()
    while item is not None:
        outgoing.put(item)
        item = incoming.get()


def ping(outgoing: Any, incoming: Any, trips: int, gate: Any) -> array[int]:
    """Send small items there and back; return the nanoseconds of each trip, without the first tenth."""
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
    gate.wait()
    while not stop.value:
        pass


def wait_for_one(queue: Any, endless: float | None, gate: Any) -> tuple[float, int]:
    """Get one item; return the share of a core that waiting for it took, and its number."""
    gate.wait()
    began, used = time.monotonic(), time.process_time()
    item = queue.get(True, endless)
    return (time.process_time() - used) / (time.monotonic() - began), item[0]


def hand_out_later(queue: Any, count: int, seconds: float, gate: Any) -> None:
    gate.wait()
    time.sleep(seconds)
    for number in range(count):
        queue.put((number,) * ITEM_WIDTH)


def fill(queue: Any, count: int) -> float:
    """Put count items; return when the last put had returned."""
    for number in range(count):
        queue.put((number,) * ITEM_WIDTH)
    return time.monotonic()


def drain(queue: Any, count: int, limit: float) -> array[int]:
    """Get count items, and another if there is one too many."""
    numbers = array("q", (queue.get(True, limit)[0] for _ in range(count)))
    with contextlib.suppress(Empty):
        numbers.append(queue.get(True, 10 * PATIENCE)[0])
    return numbers


# --- the measurements ------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all runs have in common."""

    context: Any
    scale: float  # of item counts and idle time
    limit: float  # seconds for one run

    def count(self, full: int) -> int:
        return max(1, round(full * self.scale))


def throughput(kind: Kind, setting: Setting, producers: int, consumers: int, total: int, bound: int) -> list[float]:
    """Return items a second."""
    each = max(1, setting.count(total) // producers)
    context = setting.context
    with queues(kind, context, 1, bound=bound, room=each * producers) as (queue,), Crew(context, setting.limit) as crew:
        gate = context.Barrier(producers + consumers, timeout=setting.limit)
        sent = context.RawValue(ctypes.c_bool, False)
        putting = [crew.start(produce, queue, kind.batch, number, producers, each, gate) for number in range(producers)]
        getting = [crew.start(consume, queue, kind.batch, sent, gate) for _ in range(consumers)]
        begins = [crew.result(member) for member in putting]
        for member in putting:  # what a process has put may be on its way until the process has gone
            crew.join(member)
        sent.value = True
        answers = [crew.result(member) for member in getting]
    check_delivery([numbers for _, _, numbers in answers], producers, each)
    begin = min(begins + [began for began, _, _ in answers])
    return [each * producers / (max(last for _, last, _ in answers) - begin)]


def roundtrip(kind: Kind, setting: Setting, busy: int) -> list[float]:
    """Return the median and the 99th percentile of a trip there and back, in microseconds."""
    context = setting.context
    with queues(kind, context, 2, room=ROUND_TRIPS) as (there, back), Crew(context, setting.limit) as crew:
        gate = context.Barrier(2 + busy, timeout=setting.limit)
        stop = context.RawValue(ctypes.c_bool, False)
        crew.start(echo, there, back, gate)
        player = crew.start(ping, there, back, setting.count(ROUND_TRIPS), gate)
        for _ in range(busy):
            crew.start(spin, stop, gate)
        taken = sorted(crew.result(player))
        stop.value = True
        for member in crew.members:
            crew.join(member)
    return [taken[len(taken) // 2] / 1000, taken[len(taken) * 99 // 100] / 1000]


def idle(kind: Kind, setting: Setting) -> list[float]:
    """Return the processor time that all waiting consumers took, in percent of one core."""
    context = setting.context
    seconds = IDLE_SECONDS * setting.scale
    with queues(kind, context, 1, room=IDLE_CONSUMERS) as (queue,), Crew(context, setting.limit) as crew:
        gate = context.Barrier(IDLE_CONSUMERS + 1, timeout=setting.limit)
        waiting = [crew.start(wait_for_one, queue, kind.endless, gate) for _ in range(IDLE_CONSUMERS)]
        crew.start(hand_out_later, queue, IDLE_CONSUMERS, seconds, gate)
        answers = [crew.result(member) for member in waiting]
    check_delivery([[number] for _, number in answers], 1, IDLE_CONSUMERS)
    return [100 * sum(share for share, _ in answers)]


def exit_patience(setting: Setting) -> float:
    return max(EXIT_PATIENCE_LEAST, EXIT_PATIENCE * setting.scale)


def exit_unread(kind: Kind, setting: Setting) -> list[float]:
    """Return the seconds from a producer's last put to its exit, infinite if it waits for a reader."""
    context = setting.context
    count = setting.count(EXIT_ITEMS)
    with queues(kind, context, 1, room=count) as (queue,), Crew(context, setting.limit) as crew:
        producer = crew.start(fill, queue, count)
        finished = crew.result(producer)
        producer.process.join(exit_patience(setting))
        seconds = math.inf if producer.process.is_alive() else time.monotonic() - finished
        numbers = crew.result(crew.start(drain, queue, count, setting.limit))
        crew.join(producer)
    check_delivery([numbers], 1, count)
    return [seconds]


@dataclasses.dataclass(frozen=True)
class Metric:
    name: str
    unit: str
    decimals: int
    divisor: float = 1.0  # from what is measured to what people read
    compared: bool = True


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    title: str
    kinds: tuple[str, ...]
    metrics: tuple[Metric, ...]  # what run returns, in this order
    run: Callable[[Kind, Setting], list[float]]

    def is_called(self, name: str) -> bool:
        """Tell whether name is this measurement's or its group's."""
        return self.name == name or self.name.startswith(f"{name}/")


def cases(setting: Setting) -> list[Case]:
    """List all measurements; names are group or group/member."""
    several = (STDLIB, "faster-fifo", "TurboQueue", "faster-fifo/many", "TurboQueue/many")
    single = (STDLIB, "faster-fifo", "TurboQueue")
    rate = (Metric("rate", "thousand items/s", 0, 1000.0),)
    times = (Metric("p50", "µs", 1), Metric("p99", "µs", 1))
    listed = []
    for group, bound in (("bounded", BOUND), ("unbounded", 0)):
        for producers, consumers, total in CONFIGURATIONS:
            title = (
                f"producers x consumers {producers} x {consumers}, {setting.count(total):,} 5-tuples, "
                + (f"maxsize={bound:,}" if bound else "unbounded")
                + f"; many: in batches of {BATCH}"
            )

            # The loop's variables are bound as defaults: each case keeps its own.
            def run(
                kind: Kind,
                setting: Setting,
                shape: tuple[int, int, int, int] = (producers, consumers, total, bound),
            ) -> list[float]:
                return throughput(kind, setting, *shape)

            listed.append(Case(f"{group}/{producers}x{consumers}", title, several, rate, run))
    trips = f"round trip of a 5-tuple through two queues, {setting.count(ROUND_TRIPS):,} times"
    listed += [
        Case("roundtrip", trips, (*single, "SimpleQueue"), times, lambda kind, setting: roundtrip(kind, setting, 0)),
        Case(
            "roundtrip-busy",
            f"{trips}, beside {BUSY_PROCESSES} busy processes",
            (*single, "SimpleQueue"),
            times,
            lambda kind, setting: roundtrip(kind, setting, BUSY_PROCESSES),
        ),
        Case(
            "idle",
            f"{IDLE_CONSUMERS} consumers wait for {IDLE_SECONDS * setting.scale:g} s, processor time of all",
            single,
            (Metric("cpu", "% of a core", 2, compared=False),),
            idle,
        ),
        Case(
            "exit",
            f"{setting.count(EXIT_ITEMS):,} items put, nobody reads: from the last put to the producer's exit"
            f" (never: not within {exit_patience(setting):g} s, then somebody read)",
            single,
            (Metric("exit", "s", 3, compared=False),),
            exit_unread,
        ),
    ]
    return listed


# --- rounds and results ----------------------------------------------------------------------------------------------


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def measure(case: Case, kinds: Sequence[Kind], setting: Setting, rounds: int) -> dict[str, Any]:
    """Run the kinds in turn, rounds times; return figures, ratios and failures, ready for JSON."""
    runs: dict[str, list[list[float]]] = {kind.name: [] for kind in kinds}
    failures: dict[str, str] = {}
    for number in range(rounds):
        for kind in kinds:
            if kind.name in failures:
                continue
            say(f"{case.name}: round {number + 1} of {rounds}, {kind.name}")
            try:
                runs[kind.name].append(case.run(kind, setting))
            except RunError as failure:
                failures[kind.name] = str(failure)
                say(f"{case.name}: {kind.name} FAILED: {failure}")
    metrics = {}
    for place, metric in enumerate(case.metrics):
        figures: dict[str, Any] = {}
        for kind in kinds:
            if kind.name in failures:
                continue
            values = [run[place] for run in runs[kind.name]]
            figures[kind.name] = {"runs": values, **spread(values), "ratios": {}}
            for other in (STDLIB, kind.rival):
                # Both runs of a ratio belong to the same round.
                if metric.compared and other != kind.name and runs.get(other) and other not in failures:
                    pairs = zip(values, (run[place] for run in runs[other]))
                    figures[kind.name]["ratios"][other] = spread([value / base for value, base in pairs])
        metrics[metric.name] = {"unit": metric.unit, "divisor": metric.divisor, "kinds": figures}
    return {"name": case.name, "title": case.title, "metrics": metrics, "failures": failures}


def say(text: str) -> None:
    """Show progress on stderr, each line in place of the last one on a terminal."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    else:
        print(text, file=sys.stderr, flush=True)


def table(case: Case, result: dict[str, Any]) -> Iterator[str]:
    """Yield the lines that a person reads."""
    yield f"{case.name}: {case.title}"
    for metric in case.metrics:
        head = f"{metric.name}, {metric.unit}"
        yield f"  {head:24}{'median (min-max)':>26}" + (
            f"{'x multiprocessing.Queue':>28}{'x faster-fifo':>24}" if metric.compared else ""
        )
        for name, figure in result["metrics"][metric.name]["kinds"].items():
            line = f"  {name:24}{shown(figure, metric.decimals, metric.divisor):>26}"
            ratios = figure["ratios"]
            line += f"{shown(ratios[STDLIB], 2) if STDLIB in ratios else '':>28}"
            line += f"{shown(ratios[KINDS[name].rival], 2) if KINDS[name].rival in ratios else '':>24}"
            yield line.rstrip()
    for name, failure in result["failures"].items():
        yield f"  {name:24}FAILED: {failure}"
    yield ""


def shown(figure: dict[str, float], decimals: int, divisor: float = 1.0) -> str:
    def one(value: float) -> str:
        return "never" if math.isinf(value) else f"{value / divisor:,.{decimals}f}"

    return f"{one(figure['median'])} ({one(figure['min'])}-{one(figure['max'])})"


def without_infinity(value: Any) -> Any:
    """Replace infinity, which JSON does not know, by None."""
    if isinstance(value, dict):
        return {key: without_infinity(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_infinity(inner) for inner in value]
    return None if isinstance(value, float) and math.isinf(value) else value


# --- the machine -----------------------------------------------------------------------------------------------------


def version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"  # or used from a checkout


def file_system(path: str) -> str:
    """Return the type of the file system that path is on, where the kernel tells."""
    path = os.path.realpath(path)
    best, kind = "", "unknown"
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
            for line in mounts:
                mount, _, rest = line.partition(" - ")
                point = mount.split()[4]
                if len(point) >= len(best) and (path + "/").startswith(point.rstrip("/") + "/"):
                    best, kind = point, rest.split()[0]
    except FileNotFoundError:
        pass  # no Linux
    return kind


def machine(setting: Setting, kinds: Sequence[Kind]) -> dict[str, Any]:
    """Describe where the figures come from."""
    described: dict[str, Any] = {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load": round(os.getloadavg()[0], 2),
        "start_method": setting.context.get_start_method(),
        "faster-fifo": version("faster-fifo"),
        "tqshim": version("tqshim"),
    }
    if any(kind.make is make_turbo for kind in kinds):
        queue = make_turbo(setting.context, 0, 0)
        described["queue_file_system"] = file_system(queue._engine.folder.path)
        queue.close()
    return described


# --- the command -----------------------------------------------------------------------------------------------------


def positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m compat.peers", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the items (the same as --scale 0.1)")
    parser.add_argument("--scale", type=positive, help="multiply item counts and idle time by this (default: 1)")
    parser.add_argument("--rounds", type=int, default=3, help="how often the kinds take their turn (default: 3)")
    parser.add_argument("--only", action="append", metavar="NAME", help="a measurement or group of them; repeatable")
    parser.add_argument("--kind", action="append", choices=list(KINDS), help="a kind of queue; repeatable")
    parser.add_argument("--limit", type=positive, default=120.0, help="seconds for one run (default: 120)")
    parser.add_argument("--start-method", choices=multiprocessing.get_all_start_methods())
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    args = parser.parse_args(argv)
    if args.rounds < 1:
        parser.error("--rounds must be 1 or more")
    if args.scale is None:
        args.scale = 0.1 if args.quick else 1.0
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    setting = Setting(multiprocessing.get_context(args.start_method), args.scale, args.limit)

    listed = cases(setting)
    chosen = [case for case in listed if not args.only or any(case.is_called(name) for name in args.only)]
    for name in args.only or ():
        if not any(case.is_called(name) for case in listed):
            known = " ".join(case.name for case in listed)
            print(f"peers: no measurement is called {name}; choose of {known}, or a group of them", file=sys.stderr)
            return 2
    wanted = [kind for kind in KINDS.values() if not args.kind or kind.name in args.kind]
    usable = [kind for kind in wanted if importlib.util.find_spec(kind.module)]
    skipped = [kind.name for kind in wanted if kind not in usable]

    document: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "compat.peers", *(sys.argv[1:] if argv is None else argv)]),
        "machine": machine(setting, usable),
        "rounds": args.rounds,
        "scale": args.scale,
        "skipped": skipped,
        "cases": [],
    }
    if not args.json:
        print(document["command"])
        print(", ".join(f"{name} {value}" for name, value in document["machine"].items()))
        print(f"rounds {args.rounds}, scale {args.scale:g}")
        print(f"not installed, skipped: {', '.join(skipped)}\n" if skipped else "")
    for case in chosen:
        result = measure(case, [kind for kind in usable if kind.name in case.kinds], setting, args.rounds)
        document["cases"].append(result)
        if sys.stderr.isatty():
            say("")
        if not args.json:
            print("\n".join(table(case, result)), flush=True)
    if args.json:
        json.dump(without_infinity(document), sys.stdout, indent=1, allow_nan=False)
        print()
    return 1 if any(result["failures"] for result in document["cases"]) else 0


if __name__ == "__main__":
    sys.exit(main())
