"""The faults of turbo-queue 0.8.0, each shown by a program that fails there and runs with tqshim.turbo_queue.

    python -m compat.original_faults                         all programs, with both
    python -m compat.original_faults --only order --only numbers
    python -m compat.original_faults --implementation 0.8.0 --json

A program gets the module of one implementation and an empty folder, and raises ``AssertionError``, or the exception of
what goes wrong. Each program runs in a process of its own. The exit code is 0 if all programs fail with 0.8.0 in the
way that is described, and run with tqshim.turbo_queue.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import importlib
import io
import json
import logging
import multiprocessing
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

MODULES: Final = {"0.8.0": "turbo_queue", "tqshim": "tqshim.turbo_queue"}
PATIENCE: Final = {"turbo_queue": 2.5, "tqshim.turbo_queue": 30.0}
"""Seconds for what must happen by itself: with 0.8.0 it does not, and with us it does, however busy the machine is."""
LIMIT: Final = 60.0  # seconds for one program
AT_ONCE: Final = 4  # programs
BODY: Final = "00000000-0000-4000-a000-000000000000"

Program = Callable[[types.ModuleType, Path], None]


@dataclasses.dataclass(frozen=True)
class Fault:
    """A fault of 0.8.0. ``sign``: what the message of the failure there contains; alternatives between ``|``."""

    name: str
    title: str
    sign: str
    program: Program


FAULTS: Final[dict[str, Fault]] = {}


def fault(title: str, sign: str) -> Callable[[Program], Program]:
    def register(program: Program) -> Program:
        FAULTS[program.__name__] = Fault(program.__name__, title, sign, program)
        return program

    return register


# --- what the programs share -----------------------------------------------------------------------------------------


def expect(found: object, wanted: object) -> None:
    """Fail, and say what is there instead."""
    if found != wanted:
        raise AssertionError(f"{found!r}, not {wanted!r}")


def settled(queue: Any, folder: Path) -> Any:
    queue.setup_logging(log_file=os.devnull)
    queue.root_path = str(folder / "root")
    queue.queue_name = "queue"
    return queue


def producer(module: types.ModuleType, folder: Path, most: int = 1000) -> Any:
    enqueue = settled(module.Enqueue(), folder)
    enqueue.max_events_per_file = most
    enqueue.start()
    return enqueue


def consumer(module: types.ModuleType, folder: Path, number: int | None = None) -> Any:
    return settled(module.Dequeue(number), folder)


def clean_up(module: types.ModuleType, folder: Path) -> None:
    """The clean-up of a start-up, in another process."""
    program = (
        f"import {module.__name__} as module\nfrom pathlib import Path\n"
        "from compat.original_faults import settled\n"
        f"settled(module.Startup(), Path({str(folder)!r})).on_start_cleanup()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def all_there(dequeue: Any, most: int = 1000) -> list[Any]:
    """Get until the queue is empty, batch by batch, as a patient program for 0.8.0 does."""
    got: list[Any] = []
    while len(got) < most:
        events = dequeue.get()
        first = next(events)
        if first is None:
            break
        while first is not None:
            got.append(first)
            first = next(events)
    return got


def batch(folder: Path, name: str, *rows: str) -> Path:
    """A batch file as 0.8.0 writes it."""
    queue = folder / "root" / "queue"
    queue.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(queue / name)) as database:
        database.execute("CREATE TABLE logs (log_data json)")
        database.executemany("INSERT INTO logs (log_data) VALUES (?)", ((row,) for row in rows))
        database.commit()
    return queue / name


def names(folder: Path, state: str = "") -> list[str]:
    return sorted(path.name for path in (folder / "root" / "queue").glob(f"{state}*"))


def child(function: Callable[..., None], *arguments: Any) -> Any:
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    return process


# --- import, construction, logging -----------------------------------------------------------------------------------


@fault("its import needs confluent-kafka, which it does not declare", "confluent_kafka")
def undeclared_import(module: types.ModuleType, folder: Path) -> None:
    program = f"import sys; sys.modules['confluent_kafka'] = None; import {module.__name__}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    expect((done.returncode, done.stderr), (0, ""))


@fault("its import writes a log file into the working directory and sets up the root logger", "test_multi.log")
def import_side_effects(module: types.ModuleType, folder: Path) -> None:
    program = f"import os, logging, {module.__name__}; print(os.listdir(), logging.root.handlers)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=folder)
    expect(done.stdout.strip(), "[] []")


@fault("the quickstart crashes, for there is no logger before setup_logging", "no attribute 'logger'")
def no_logger(module: types.ModuleType, folder: Path) -> None:
    enqueue = module.Enqueue()
    enqueue.root_path = str(folder)
    enqueue.update_enqueue_active_state()
    expect(enqueue.enqueue_active, True)


@fault("a second setup_logging writes each line twice", "2, not 1")
def doubled_log(module: types.ModuleType, folder: Path) -> None:
    log = folder / "log"
    for queue in (module.Enqueue(), module.Dequeue()):
        queue.setup_logging(log_file=str(log))
    queue.logger.warning("once")
    expect(len(log.read_text().splitlines()), 1)


@fault("Startup prints on stdout", "recover_stale")
def prints(module: types.ModuleType, folder: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        settled(module.Startup(), folder).on_start_cleanup()
    expect(said.getvalue(), "")


@fault("Enqueue takes the place of the thread's event loop", "event loop")
def event_loop(module: types.ModuleType, folder: Path) -> None:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    module.Enqueue()
    with contextlib.closing(loop):
        if asyncio.get_event_loop() is not loop:
            raise AssertionError("another event loop")


@fault("it says that it is another version", "0.7.5.0")
def version(module: types.ModuleType, folder: Path) -> None:
    expect(module.Dequeue().version, "0.8.0")


# --- producers -------------------------------------------------------------------------------------------------------


@fault("a batch that is not full waits for the next add, however old it is", "0, not 1")
def old_batch(module: types.ModuleType, folder: Path) -> None:
    enqueue = producer(module, folder)
    enqueue.max_batch_age = 1
    enqueue.add({"number": 0})
    deadline = time.monotonic() + PATIENCE[module.__name__]
    while not enqueue.get_ready_length() and time.monotonic() < deadline:
        time.sleep(0.02)
    enqueue.check_time()
    expect(enqueue.get_ready_length(), 1)


def add_three(module: types.ModuleType, folder: Path, wait: bool) -> None:
    enqueue = producer(module, folder)
    for number in range(3):
        enqueue.add({"number": number})
    while wait:
        signal.pause()


@fault("a producer that ends loses its last batch", "[], not [0, 1, 2]")
def ended_producer(module: types.ModuleType, folder: Path) -> None:
    child(add_three, module, folder, False).join()
    clean_up(module, folder)
    expect([event["number"] for event in all_there(consumer(module, folder))], [0, 1, 2])


@fault("a producer that is killed loses all of its last batch", "[], not [0, 1, 2]")
def killed_producer(module: types.ModuleType, folder: Path) -> None:
    process = child(add_three, module, folder, True)
    deadline = time.monotonic() + PATIENCE[module.__name__]
    stored = 0
    while stored < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
        for path in (folder / "root" / "queue").glob("load_*.db"):
            with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(sqlite3.connect(path)) as database:
                (stored,) = database.execute("SELECT count(*) FROM logs").fetchone()
    process.kill()
    process.join()
    clean_up(module, folder)
    expect([event["number"] for event in all_there(consumer(module, folder))], [0, 1, 2])


@fault("batches that were begun in one second come in any order", ", not [0, 1, 2, 3, 4,")
def order(module: types.ModuleType, folder: Path) -> None:
    enqueue = producer(module, folder, most=1)
    for number in range(40):
        enqueue.add({"number": number})
    expect([event["number"] for event in all_there(consumer(module, folder))], list(range(40)))


@fault("events that are numbers crash the consumer, long ones are changed", "TypeError")
def numbers(module: types.ModuleType, folder: Path) -> None:
    events = [5, -1.5, 10**25, {"a": 1}, "12"]
    enqueue = producer(module, folder, most=len(events))
    for event in events:
        enqueue.add(event)
    expect(all_there(consumer(module, folder)), events)


@fault("None is taken for an event, and reads as an empty queue", "was taken")
def none(module: types.ModuleType, folder: Path) -> None:
    with contextlib.suppress(ValueError):
        producer(module, folder).add(None)
        raise AssertionError("None was taken")


@fault("add before start crashes", "NoneType")
def not_started(module: types.ModuleType, folder: Path) -> None:
    enqueue = settled(module.Enqueue(), folder)
    enqueue.max_events_per_file = 1
    enqueue.add({"number": 0})
    expect(len(all_there(consumer(module, folder))), 1)


@fault("an Enqueue works in one thread only", "ProgrammingError")
def threads(module: types.ModuleType, folder: Path) -> None:
    enqueue = producer(module, folder, most=3)
    raised: list[str] = []

    def add() -> None:
        try:
            enqueue.add({"number": 0})
        except Exception as error:
            raised.append(repr(error))

    for _ in range(3):
        thread = threading.Thread(target=add)
        thread.start()
        thread.join()
    expect(raised, [])
    expect(len(all_there(consumer(module, folder))), 3)


@fault("a forked child goes on in its parent's batch: events are lost", ", not ['child 0', 'child 1'")
def forked_producer(module: types.ModuleType, folder: Path) -> None:
    enqueue = producer(module, folder, most=2)
    enqueue.add("parent 0")

    def add_two() -> None:
        enqueue.add("child 0")
        enqueue.add("child 1")

    child(add_two).join()
    enqueue.add("parent 1")
    expect(sorted(all_there(consumer(module, folder))), ["child 0", "child 1", "parent 0", "parent 1"])


@fault("nothing can be sent to another process", "pickle|local object")
def pickled(module: types.ModuleType, folder: Path) -> None:
    sent = pickle.dumps((settled(module.Enqueue(), folder), settled(module.Dequeue(1), folder)))
    enqueue, dequeue = pickle.loads(sent)
    enqueue.max_events_per_file = 1
    enqueue.start()
    enqueue.add({"number": 0})
    expect(len(all_there(dequeue)), 1)


@fault("its check of slow batches publishes empty ones", "1, not 0")
def slow_and_empty(module: types.ModuleType, folder: Path) -> None:
    enqueue = producer(module, folder)
    enqueue._create_epoch = 0  # long ago
    asyncio.run(enqueue.check_slow_batch())
    expect(enqueue.get_ready_length(), 0)


# --- consumers -------------------------------------------------------------------------------------------------------


@fault("a generator ends after one batch", "2, not 6")
def one_batch(module: types.ModuleType, folder: Path) -> None:
    enqueue = producer(module, folder, most=2)
    for number in range(6):
        enqueue.add({"number": number})
    events = consumer(module, folder).get()
    got = 0
    while next(events):
        got += 1
    expect(got, 6)


@fault("to ask again after None crashes", "NoneType")
def asked_again(module: types.ModuleType, folder: Path) -> None:
    events = consumer(module, folder).get()
    expect([next(events), next(events)], [None, None])


@fault("a batch without events reads as an empty queue", "None, not 'event'")
def empty_batch(module: types.ModuleType, folder: Path) -> None:
    batch(folder, f"ready_1000000000_{BODY}.db")
    batch(folder, f"ready_1000000001_{BODY}.db", '"event"')
    expect(next(consumer(module, folder).get()), "event")


@fault("two generators of one consumer hand out the same events", ", not [0, 1, 2, 3]")
def two_generators(module: types.ModuleType, folder: Path) -> None:
    batch(folder, f"ready_1000000000_{BODY}.db", '{"n": 0}', '{"n": 1}', '{"n": 2}', '{"n": 3}')
    dequeue = consumer(module, folder)
    first, second = dequeue.get(), dequeue.get()
    got = [next(events)["n"] for events in (first, second, first, second)]
    expect(got, [0, 1, 2, 3])


@fault("a forked child hands out its parent's batch a second time", "[1], not None")
def forked_consumer(module: types.ModuleType, folder: Path) -> None:
    batch(folder, f"ready_1000000000_{BODY}.db", "[0]", "[1]", "[2]")
    events = consumer(module, folder).get()
    next(events)
    ours, theirs = os.pipe()

    def ask() -> None:
        os.write(theirs, json.dumps(next(events)).encode())

    child(ask).join()
    expect(json.loads(os.read(ours, 100)), None)
    expect([next(events), next(events)], [[1], [2]])


@fault("a batch's file is deleted when its last event has been handed out, whether or not it was handled", "0, not 1")
def deleted_early(module: types.ModuleType, folder: Path) -> None:
    batch(folder, f"ready_1000000000_{BODY}.db", "[0]", "[1]")
    events = consumer(module, folder).get()
    collected = list(iter(lambda: next(events), None))
    expect(len(names(folder, "unload_")), 1)  # here the program deals with all that it has collected
    expect(len(collected), 2)
    next(events)
    expect(names(folder), [])


def get_one(module: types.ModuleType, folder: Path) -> None:
    next(consumer(module, folder).get())


@fault("a consumer that ends strands its batch", "[], not [[0], [1]]")
def ended_consumer(module: types.ModuleType, folder: Path) -> None:
    batch(folder, f"ready_1000000000_{BODY}.db", "[0]", "[1]")
    child(get_one, module, folder).join()
    expect(all_there(consumer(module, folder)), [[0], [1]])


@fault("roll_back and clean_up crash without a batch", "NoneType")
def nothing_to_roll_back(module: types.ModuleType, folder: Path) -> None:
    dequeue = consumer(module, folder)
    expect(next(dequeue.get()), None)
    dequeue.roll_back()
    dequeue.clean_up()


@fault("a batch that is rolled back comes after all others", "1, not 0")
def rolled_back_last(module: types.ModuleType, folder: Path) -> None:
    batch(folder, f"ready_1000000000_{BODY}.db", '{"n": 0}')
    batch(folder, f"ready_1000000001_{BODY}.db", '{"n": 1}')
    dequeue = consumer(module, folder)
    next(dequeue.get())
    dequeue.roll_back()
    expect(next(dequeue.get())["n"], 0)


@fault("a name grows with each roll_back, until nobody can take the batch, nor any other", "not found after")
def growing_name(module: types.ModuleType, folder: Path) -> None:
    batch(folder, f"ready_1000000000_{BODY}.db", '{"n": 0}')
    for count in range(30):
        dequeue = consumer(module, folder, 7)
        if next(dequeue.get()) is None:
            raise AssertionError(f"not found after {count} times")
        dequeue.roll_back()


@fault("the number 0 of a consumer is not in the names of its files", f"not ['unload_1000000000_{BODY}.db_0']")
def number_zero(module: types.ModuleType, folder: Path) -> None:
    batch(folder, f"ready_1000000000_{BODY}.db", '"event"')
    dequeue = consumer(module, folder, 0)
    next(dequeue.get())
    expect(names(folder, "unload_"), [f"unload_1000000000_{BODY}.db_0"])


@fault("a file without events' table stops a consumer for good", "[], not ['event']")
def no_table(module: types.ModuleType, folder: Path) -> None:
    batch(folder, f"ready_1000000001_{BODY}.db", '"event"')
    with contextlib.closing(sqlite3.connect(folder / "root" / "queue" / f"ready_1000000000_{BODY}.db")) as database:
        database.execute("CREATE TABLE other (log_data json)")
    dequeue = consumer(module, folder)
    got = []
    for _ in range(4):
        with contextlib.suppress(sqlite3.Error):
            got.append(next(dequeue.get()))
    expect([event for event in got if event is not None], ["event"])


@fault("a damaged file reads as an empty queue", "[], not ['event']")
def damaged_file(module: types.ModuleType, folder: Path) -> None:
    batch(folder, f"ready_1000000001_{BODY}.db", '"event"')
    damaged = folder / "root" / "queue" / f"ready_1000000000_{BODY}.db"
    damaged.write_bytes(b"no database" * 100)
    expect(all_there(consumer(module, folder)), ["event"])
    (aside,) = names(folder, "invalid_file_")
    expect((folder / "root" / "queue" / aside).read_bytes(), b"no database" * 100)


@fault("an event that is no JSON ends the generator, and is gone", "json.decoder.JSONDecodeError")
def damaged_event(module: types.ModuleType, folder: Path) -> None:
    batch(folder, f"ready_1000000000_{BODY}.db", "[0]", "[1", "[2]")
    events = consumer(module, folder).get()
    expect([next(events) for _ in range(4)], [[0], [2], None, None])
    (aside,) = names(folder, "invalid_file_")
    with contextlib.closing(sqlite3.connect(folder / "root" / "queue" / aside)) as database:
        expect(database.execute("SELECT log_data FROM logs").fetchall(), [("[1",)])


@fault("errors are swallowed: a folder that can't be read passes for an empty queue", "was said")
def swallowed(module: types.ModuleType, folder: Path) -> None:
    (folder / "root").write_text("no folder")
    for look in (lambda: next(consumer(module, folder).get()), settled(module.Enqueue(), folder).get_ready_length):
        with contextlib.suppress(OSError), contextlib.redirect_stdout(io.StringIO()):
            raise AssertionError(f"{look()} was said")


# --- start-up --------------------------------------------------------------------------------------------------------


@fault("start-up takes a batch away from a living producer", "disk I/O error|FileNotFoundError|readonly")
def living_producer(module: types.ModuleType, folder: Path) -> None:
    enqueue = producer(module, folder, most=4)
    enqueue.add({"number": 0})
    enqueue.add({"number": 1})
    clean_up(module, folder)
    enqueue.add({"number": 2})
    enqueue.add({"number": 3})
    expect([event["number"] for event in all_there(consumer(module, folder))], [0, 1, 2, 3])


@fault("start-up deletes a living producer's batch of some megabytes", "disk I/O error|FileNotFoundError|readonly")
def living_big_producer(module: types.ModuleType, folder: Path) -> None:
    enqueue = producer(module, folder, most=4000)
    for number in range(3999):
        enqueue.add({"number": number, "text": "x" * 1000})
    clean_up(module, folder)
    enqueue.add({"number": 3999})
    expect(len(all_there(consumer(module, folder), 4000)), 4000)


@fault("start-up gives a living consumer's batch to another: events come twice", "[0], not None")
def living_consumer(module: types.ModuleType, folder: Path) -> None:
    batch(folder, f"ready_1000000000_{BODY}.db", "[0]", "[1]")
    events = consumer(module, folder).get()
    next(events)
    clean_up(module, folder)
    other = next(consumer(module, folder).get())
    expect(other, None)
    expect(next(events), [1])


@fault("a batch that is recovered comes after younger ones", "[1, 0], not [0, 1]")
def recovered_last(module: types.ModuleType, folder: Path) -> None:
    batch(folder, f"unload_1000000000_{BODY}.db_7", '{"n": 0}')
    batch(folder, f"ready_1000000001_{BODY}.db", '{"n": 1}')
    clean_up(module, folder)
    got = [event["n"] for event in all_there(consumer(module, folder))]
    expect(got, [0, 1])


@fault("start-up deletes what it can't read", "0, not 1")
def removed_invalid(module: types.ModuleType, folder: Path) -> None:
    path = batch(folder, f"load_1000000000_{BODY}.db")
    path.write_bytes(b"no database" * 100)
    clean_up(module, folder)
    expect(len(names(folder, "invalid_file_")), 1)


@fault("start-up does not look at what its integrity check says", "ready_")
def integrity(module: types.ModuleType, folder: Path) -> None:
    path = batch(folder, f"load_1000000000_{BODY}.db", *(json.dumps("x" * 1000) for _ in range(100)))
    content = bytearray(path.read_bytes())
    content[5 * 4096 : 6 * 4096] = b"\xff" * 4096
    path.write_bytes(content)
    clean_up(module, folder)
    expect(names(folder, "ready_"), [])


# --- running them ----------------------------------------------------------------------------------------------------


def run_here(implementation: str, name: str, folder: Path) -> str:
    """Run one program; return "" or what went wrong."""
    os.chdir(folder)
    empty = folder / "empty"
    empty.mkdir()
    try:
        module = importlib.import_module(MODULES[implementation])
        multiprocessing.get_logger().setLevel(logging.CRITICAL)
        logging.getLogger("tqshim").setLevel(logging.CRITICAL)
        FAULTS[name].program(module, empty)
    except BaseException:
        return traceback.format_exc()
    return ""


@contextlib.contextmanager
def apart(implementation: str, name: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process that runs one program, and its folder; both are gone in the end."""
    with tempfile.TemporaryDirectory(prefix="original-faults-") as folder:
        process = subprocess.Popen(
            [sys.executable, "-m", "compat.original_faults", "--run", implementation, name, folder],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
        )
        try:
            yield process, Path(folder)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def run(implementation: str, name: str) -> str:
    """Run one program in a process of its own; return "" or what went wrong."""
    with apart(implementation, name) as (process, _):
        try:
            said, _ = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            return f"hangs for {LIMIT:g} s"
    return "" if process.returncode == 0 else said


def raised(found: str) -> list[str]:
    """The lines of a traceback that say what was raised; a program's own lines are indented."""
    return [line for line in found.splitlines() if line and not line[0].isspace() and not line.startswith("Traceback")]


def verdict(implementation: str, name: str, found: str) -> bool:
    """Whether the program ended as its fault says."""
    if implementation == "tqshim":
        return not found
    return any(sign in line for sign in FAULTS[name].sign.split("|") for line in raised(found))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m compat.original_faults", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--only", action="append", choices=list(FAULTS), metavar="NAME", help="a fault; repeatable")
    parser.add_argument("--implementation", choices=list(MODULES), help="one of the two (default: both)")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    parser.add_argument("--run", nargs=3, metavar=("IMPLEMENTATION", "NAME", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.run:
        found = run_here(args.run[0], args.run[1], Path(args.run[2]))
        print(found, end="", flush=True)
        logging.shutdown()
        os._exit(1 if found else 0)  # whatever the program left: threads, loops, databases
    jobs = [
        (implementation, name)
        for name in args.only or FAULTS
        for implementation in ([args.implementation] if args.implementation else MODULES)
    ]
    from concurrent.futures import ThreadPoolExecutor

    results: dict[str, dict[str, str]] = {}
    good = True
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for (implementation, name), found in zip(jobs, pool.map(lambda job: run(*job), jobs)):
            results.setdefault(name, {})[implementation] = found
            as_said = verdict(implementation, name, found)
            good &= as_said
            if not args.json:
                said = raised(found)[-1][:70] if found else "runs"
                print(f"{'' if as_said else 'UNEXPECTED '}{name:22}{implementation:8}{said}", flush=True)
    if args.json:
        json.dump(results, sys.stdout, indent=1)
        print()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
