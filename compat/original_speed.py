"""tqshim.turbo_queue beside turbo-queue 0.8.0, and TurboQueue with batch calls beside both.

    python -m compat.original_speed                     everything, about two minutes
    python -m compat.original_speed --scale 0.1 --rounds 1
    python -m compat.original_speed --only 3x10/1000 --only 3x10/1000/tight

The workload: producers x consumers, JSON objects of 100 and of 1,000 bytes, batches of 1,000, and the bound of the
original's quickstart, five batches that are ready. Producers run the quickstart's loop, which looks for room after each
event; in the tight workloads they look after each batch. Without room they look again every millisecond. Consumers
ask for the next event. The code is the same for both implementations; TurboQueue moves the same objects, a thousand
at each call, through a queue of the same bound.

How it is measured. Each run has new processes and a new folder, on the file system on which queues lie by default. It
lasts from the moment the first process leaves a common barrier until the last event has been received. The kinds take
turns, and every ratio is between two runs of one round.

The invariant: a figure comes only from a run in which every event arrived exactly once. 0.8.0 does not keep the order
of batches that were begun in one second; the other kinds must keep the order, too.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import multiprocessing
import os
import shlex
import shutil
import sys
import tempfile
import time
from array import array
from collections.abc import Sequence
from queue import Empty
from typing import Any, Final

from tqshim.bench.command import positive, say
from tqshim.bench.crew import Crew, RunError
from tqshim.bench.machine import describe, file_system
from tqshim.bench.report import shown
from tqshim.bench.rounds import spread
from tqshim.bench.runs import Setting
from tqshim.bench.workloads import check_delivery

THEIRS: Final = "turbo-queue 0.8.0"
OURS: Final = "tqshim.turbo_queue"
BATCHED: Final = "TurboQueue/many"
MODULES: Final = {THEIRS: "turbo_queue", OURS: "tqshim.turbo_queue"}
KINDS: Final = (THEIRS, OURS, BATCHED)

BATCH: Final = 1000
READY: Final = 5  # batches: the quickstart's bound
PAUSE: Final = 0.001  # seconds between a paused producer's looks
SHAPES: Final = ((1, 1), (3, 10))  # producers, consumers
SIZES: Final = (100, 1000)  # bytes of an event's JSON text
LOOPS: Final = {"": 30, "/tight": 200}  # batches in all
CASES: Final = {
    f"{producers}x{consumers}/{size}{loop}": (producers, consumers, size, loop)
    for loop in LOOPS
    for producers, consumers in SHAPES
    for size in SIZES
}


def filling(size: int) -> str:
    """Return the text that gives an event's JSON this length, if the event's number has six digits."""
    return "x" * (size - len(json.dumps(event(100_000, ""))))


def event(number: int, text: str) -> dict[str, Any]:
    return {"number": number, "source": "sensor-07", "level": "info", "text": text}


def load(kind: str, folder: str) -> Any:
    """Import an implementation; 0.8.0's import makes a log file in the working directory and logs to stderr."""
    os.chdir(folder)
    module = importlib.import_module(MODULES[kind])
    multiprocessing.get_logger().setLevel(logging.ERROR)
    return module


def settle(queue: Any, folder: str) -> Any:
    queue.root_path = folder
    queue.queue_name = "events"
    queue.max_ready_files = READY
    queue.max_events_per_file = BATCH
    queue.setup_logging(log_file=os.path.join(folder, "log"))
    return queue


def produce(kind: str, folder: str, numbers: range, size: int, loop: str, gate: Any) -> float:
    """Add events while the queue has room; return when it began."""
    enqueue = settle(load(kind, folder).Enqueue(), folder)
    enqueue.start()
    text = filling(size)
    gate.wait()
    began = time.monotonic()
    enqueue.update_enqueue_active_state()
    for number in numbers:
        while not enqueue.enqueue_active:
            enqueue.update_enqueue_active_state()
            if not enqueue.enqueue_active:
                time.sleep(PAUSE)
        enqueue.add(event(number, text))
        if not loop:
            enqueue.update_enqueue_active_state()
    return began


def consume(kind: str, folder: str, size: int, counts: Any, place: int, gate: Any) -> tuple[float, array[int]]:
    """Get until told to stop; return the time of the last event and all numbers."""
    dequeue = settle(load(kind, folder).Dequeue(), folder)
    numbers: list[int] = []
    keep = numbers.append
    last = 0.0
    gate.wait()
    while counts[-1] == 0:
        events = dequeue.get()
        got = next(events)
        while got:
            keep(got["number"])
            got = next(events)
        if len(numbers) > counts[place]:
            last = time.monotonic()
            counts[place] = len(numbers)
    return last, array("q", numbers)


def put_many(queue: Any, numbers: range, size: int, gate: Any) -> float:
    """Do as ``produce``, through a TurboQueue."""
    text = filling(size)
    gate.wait()
    began = time.monotonic()
    for first in range(0, len(numbers), BATCH):
        queue.put_many([event(number, text) for number in numbers[first : first + BATCH]])
    return began


def get_many(queue: Any, counts: Any, place: int, gate: Any) -> tuple[float, array[int]]:
    """Do as ``consume``, through a TurboQueue."""
    numbers: list[int] = []
    keep = numbers.append
    last = 0.0
    gate.wait()
    while counts[-1] == 0:
        try:
            events = queue.get_many(timeout=0.1, max_messages_to_get=BATCH)
        except Empty:
            continue
        for got in events:
            keep(got["number"])
        last = time.monotonic()
        counts[place] = len(numbers)
    return last, array("q", numbers)


def run(kind: str, name: str, setting: Setting, root: str) -> float:
    """Return events a second of one run."""
    producers, consumers, size, loop = CASES[name]
    each = BATCH * max(1, round(LOOPS[loop] * setting.scale / producers))
    context = setting.context
    folder = tempfile.mkdtemp(prefix="original-speed-", dir=root)
    queue = None
    try:
        if kind == BATCHED:
            from tqshim import TurboQueue

            queue = TurboQueue(READY * BATCH, path=os.path.join(folder, "events"))
        with Crew(context, setting.limit) as crew:
            gate = context.Barrier(producers + consumers, timeout=setting.limit)
            counts = context.RawArray("q", consumers + 1)
            getting = []
            for place in range(consumers):
                if queue is None:
                    getting.append(crew.start(consume, kind, folder, size, counts, place, gate))
                else:
                    getting.append(crew.start(get_many, queue, counts, place, gate))
            putting = []
            for producer in range(producers):
                numbers = range(producer, producers * each, producers)
                if queue is None:
                    putting.append(crew.start(produce, kind, folder, numbers, size, loop, gate))
                else:
                    putting.append(crew.start(put_many, queue, numbers, size, gate))
            began = min(crew.result(member) for member in putting)
            while sum(counts[:consumers]) < producers * each and time.monotonic() < crew.deadline:
                if not all(member.process.is_alive() for member in getting):
                    break
                time.sleep(0.01)
            counts[consumers] = 1
            answers = [crew.result(member) for member in getting]
        shares = [numbers for _, numbers in answers]
        if kind == THEIRS:  # once, in any order
            shares = [sorted(share) for share in shares]
        check_delivery(shares, producers, each)
        return producers * each / (max(last for last, _ in answers) - began)
    finally:
        if queue is not None:
            queue.close()
        shutil.rmtree(folder)


def measure(name: str, setting: Setting, rounds: int, root: str) -> dict[str, Any]:
    """Run the kinds in turn, as often as there are rounds; return rates and ratios, ready for JSON."""
    runs: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for number in range(rounds):
        for kind in KINDS:
            say(f"{name}: round {number + 1} of {rounds}, {kind}")
            runs[kind].append(run(kind, name, setting, root))
    return {
        kind: {**spread(values), "ratio": spread([value / base for value, base in zip(values, runs[THEIRS])])}
        for kind, values in runs.items()
    }


def default_root() -> str:
    from tqshim.storage.places import anonymous_root

    return anonymous_root()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m compat.original_speed", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--scale", type=positive, default=1.0, help="multiply the number of batches (default: 1)")
    parser.add_argument("--rounds", type=int, default=3, help="how often the kinds take their turn (default: 3)")
    parser.add_argument("--only", action="append", choices=list(CASES), help="a workload; repeatable")
    parser.add_argument("--root", default=default_root(), help="where queues lie (default: where TurboQueue's do)")
    parser.add_argument("--limit", type=positive, default=120.0, help="seconds for one run (default: 120)")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    args = parser.parse_args(argv)
    if args.rounds < 1:
        parser.error("--rounds must be 1 or more")
    setting = Setting(multiprocessing.get_context(), args.scale, args.limit)
    described = {**describe(setting.context.get_start_method(), ()), "queue_file_system": file_system(args.root)}
    command = shlex.join(["python", "-m", "compat.original_speed", *(sys.argv[1:] if argv is None else argv)])
    if not args.json:
        print(command)
        print(", ".join(f"{name} {value}" for name, value in described.items()))
    results: dict[str, Any] = {}
    failed = False
    for name in args.only or CASES:
        try:
            results[name] = measure(name, setting, args.rounds, args.root)
        except RunError as failure:
            failed = True
            results[name] = {"failure": str(failure)}
        if sys.stderr.isatty():
            say("")
        if not args.json:
            print(f"\n{name}: producers x consumers / bytes of an event")
            print(f"  {'thousand events/s':24}{'median (min-max)':>26}{'x ' + THEIRS:>28}")
            for kind, figure in results[name].items():
                if kind == "failure":
                    print(f"  FAILED: {figure}")
                else:
                    print(f"  {kind:24}{shown(figure, 0, 1000):>26}{shown(figure['ratio'], 2):>28}")
            sys.stdout.flush()
    if args.json:
        document = {"command": command, "machine": described, "rounds": args.rounds, "scale": args.scale}
        json.dump({**document, "cases": results}, sys.stdout, indent=1)
        print()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
