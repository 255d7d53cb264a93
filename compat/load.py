"""What many processes, many items, many queues, many queues one after another, and many leftovers take.

    python -m compat.load [NAME ...] [--scale SHARE]

Each run checks its work and says how long it took; the exit status is 1 if something was lost, doubled or left, or if
memory grew. ``--scale 0.01`` does a hundredth of the work.

    processes   200 processes on one queue, ten million items through it, each marked once
    waiting     ten million items wait in one queue before anybody reads them
    in_turn     the same, put by four processes in turn, one by one; how long a newcomer's first get takes
    queues      1,000 queues at once in one process, on 64 MB
    cycles      100,000 queues made, used and dropped, one after another
    leftovers   ten million batch files that dead producers have left in one folder
"""

from __future__ import annotations

import argparse
import gc
import mmap
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tqshim import Empty, TurboQueue
from tqshim.engine.engine import Engine
from tqshim.storage.places import anonymous_root

MB: Final = 1 << 20
PATIENCE: Final = 300.0
"""Seconds without any progress after which a run has failed."""
WAITING: Final = 5 * MB
"""Bytes that items which wait may take of the memory of a process."""
GROWTH: Final = 4 * MB
"""Bytes by which the memory of a process may grow from a quarter of its work to the end: pools of the interpreter's."""


class Failed(Exception):
    """What a run has found."""


def check(holds: bool, finding: str) -> None:
    if not holds:
        raise Failed(finding)


def memory() -> int:
    """Bytes of this process that belong to no file, where the system tells; else the most that the process ever had."""
    try:
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Marks:
    """A byte for each item, in memory that all processes share."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.map = mmap.mmap(-1, max(1, count))

    def mark(self, items: Any) -> None:
        """Raises ``Failed`` for an item that was marked before."""
        seen = self.map
        for item in items:
            check(not seen[item], f"item {item} came twice")
            seen[item] = 1

    def check_all(self) -> None:
        missing = self.map[:].count(b"\0")
        check(not missing, f"{missing} of {self.count} items did not come")


def processes(scale: float) -> str:
    """Half of the processes put, half get, one by one and in batches."""
    pairs = max(2, int(100 * min(1.0, scale * 10)))
    each = max(100, int(10_000_000 * scale) // pairs)
    queue = TurboQueue()
    marks = Marks(pairs * each)
    fork = multiprocessing.get_context("fork")
    grown = fork.Array("q", pairs * 2)
    began = time.monotonic()
    workers = [
        fork.Process(target=_worker, args=(kind, queue, number, each, marks, grown))
        for number in range(pairs)
        for kind in (_put, _get)
    ]
    for worker in workers:
        worker.start()
    for worker in workers[::2]:
        worker.join()
    for _ in range(pairs):
        queue.put(None)
    for worker in workers:
        worker.join()
    took = time.monotonic() - began
    check(all(worker.exitcode == 0 for worker in workers), "a process failed")
    marks.check_all()
    check(queue.empty(), "more came than was put")
    queue.close()
    growth = max(grown)
    check(growth < GROWTH, f"a process grew by {growth / MB:.1f} MB")
    count = pairs * each
    return (
        f"{2 * pairs} processes, {count:,} items once each in {took:.0f} s; no process grew by more than "
        f"{growth >> 10} KB"
    )


def _worker(kind: Callable[..., int], queue: Any, number: int, each: int, marks: Marks, grown: Any) -> None:
    grown[2 * number + (kind is _get)] = kind(queue, number, each, marks)


def _put(queue: Any, number: int, each: int, marks: Marks) -> int:
    quarter = 0
    done = 0
    while done < each:
        items = range(number * each + done, number * each + min(each, done + 100))
        if done % 200:
            queue.put_many(items)
        else:
            for item in items:
                queue.put(item)
        done += len(items)
        while queue.qsize() > 100_000:  # what is measured is memory, not how much waits
            time.sleep(0.01)
        if not quarter and done >= each // 4:
            quarter = memory()
    return memory() - quarter


def _get(queue: Any, number: int, each: int, marks: Marks) -> int:
    quarter = 0
    done = 0
    last = [-1] * (marks.count // each)
    while True:
        items = queue.get_many(timeout=PATIENCE, max_messages_to_get=50) if done % 2 else [queue.get(timeout=PATIENCE)]
        ends = items.count(None)
        items = [item for item in items if item is not None]
        marks.mark(items)
        for item in items:
            check(item > last[item // each], f"item {item} of producer {item // each} came after {last[item // each]}")
            last[item // each] = item
        done += len(items) + (not items)
        if not quarter and done >= each // 4:
            quarter = memory()
        if ends:
            for _ in range(ends - 1):
                queue.put(None)
            return memory() - quarter if quarter else 0


def waiting(scale: float) -> str:
    """All items wait at once."""
    count = max(1000, int(10_000_000 * scale))
    queue = TurboQueue()
    before = memory()
    began = time.monotonic()
    for item in range(count):
        queue.put(item)
    put = time.monotonic() - began
    check(queue.qsize() == count, f"qsize() is {queue.qsize()}")
    held = memory() - before
    on_disk = _disk(queue._engine.folder.path)
    began = time.monotonic()
    for item in range(count):
        check(queue.get(timeout=PATIENCE) == item, f"not item {item}")
    got = time.monotonic() - began
    check(queue.empty(), "more came than was put")
    left = _disk(queue._engine.folder.path)
    queue.close()
    check(held < WAITING, f"{count} waiting items take {held / MB:.0f} MB of their producer's memory")
    check(left < 4 * MB, f"{left / MB:.0f} MB are left on disk")
    return (
        f"{count:,} items put in {put:.0f} s and got in {got:.0f} s; while they wait {held / MB:.1f} MB of memory, "
        f"{on_disk / MB:.0f} MB on disk; then {left >> 10} KB"
    )


def in_turn(scale: float) -> str:
    """Each item's neighbours are others' items."""
    count = max(1000, int(10_000_000 * scale)) // 4 * 4
    fork = multiprocessing.get_context("fork")
    queue = TurboQueue()
    turns = [fork.Semaphore(0) for _ in range(4)]
    grown = fork.Array("q", 5)
    tell, told = fork.Pipe()
    producers = [fork.Process(target=_put_in_turn, args=(queue, at, count, turns, grown)) for at in range(4)]
    newcomer = fork.Process(target=_first_get, args=(queue, told, grown))
    began = time.monotonic()
    for process in (*producers, newcomer):
        process.start()
    turns[0].release()
    for process in producers:
        process.join()
    put = time.monotonic() - began
    check(all(process.exitcode == 0 for process in producers), "a producer failed")
    on_disk = _disk(queue._engine.folder.path)
    tell.send(None)
    first, took = tell.recv()
    newcomer.join()
    began = time.monotonic()
    last = [-1] * 4
    last[first % 4] = first
    for _ in range(count - 1):
        item = queue.get(timeout=PATIENCE)
        check(item > last[item % 4], f"item {item} came after {last[item % 4]}")
        last[item % 4] = item
    got = time.monotonic() - began
    check(queue.empty() and last == [*range(count - 4, count)], "not all came")
    queue.close()
    held = max(grown)
    check(held < WAITING, f"{count} waiting items take {held / MB:.1f} MB of a process's memory")
    return (
        f"{count:,} items put in turn in {put:.0f} s and got in {got:.0f} s; while they wait {held / MB:.1f} MB of "
        f"memory a process at most, {on_disk / MB:.0f} MB on disk; a newcomer's first get took {took * 1000:.1f} ms"
    )


def _put_in_turn(queue: Any, at: int, count: int, turns: list[Any], grown: Any) -> None:
    before = memory()
    for item in range(at, count, len(turns)):
        turns[at].acquire()
        queue.put(item)
        turns[(at + 1) % len(turns)].release()
    queue.qsize()
    grown[at] = memory() - before


def _first_get(queue: Any, told: Any, grown: Any) -> None:
    told.recv()
    before = memory()
    began = time.monotonic()
    item = queue.get(timeout=PATIENCE)
    told.send((item, time.monotonic() - began))
    grown[4] = memory() - before


def _disk(path: str) -> int:
    return sum(os.lstat(os.path.join(path, name)).st_blocks * 512 for name in os.listdir(path))


def queues(scale: float) -> str:
    """All queues are there and used before the first one goes."""
    count = max(10, int(1000 * min(1.0, scale * 10)))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 16 * count + 100
    check(hard == resource.RLIM_INFINITY or hard >= wanted, f"ulimit -n is {hard}, {wanted} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        before, descriptors = memory(), len(os.listdir("/dev/fd"))
        began = time.monotonic()
        made = [TurboQueue() for _ in range(count)]
        for turn in range(3):
            for number, queue in enumerate(made):
                queue.put((turn, number))
            for number, queue in enumerate(made):
                check(queue.get(timeout=PATIENCE) == (turn, number), f"queue {number} gave another's item")
        took = time.monotonic() - began
        held = memory() - before
        opened = len(os.listdir("/dev/fd")) - descriptors
        paths = [queue._engine.folder.path for queue in made]
        on_disk = sum(map(_disk, paths))
        for queue in made:
            queue.close()
        del made, queue
        gc.collect()
        left = [path for path in paths if os.path.exists(path)]
        check(not left, f"{len(left)} folders are left")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    check(on_disk / count < 64 * MB / 1000, f"{count} queues take {on_disk / MB:.0f} MB on disk")
    return (
        f"{count:,} queues at once in {took:.1f} s: {on_disk / MB:.0f} MB on disk, {held / MB:.0f} MB of memory, "
        f"{opened / count:.1f} descriptors each"
    )


def cycles(scale: float) -> str:
    """Each queue is used; every second one is dropped without being closed."""
    count = max(200, int(100_000 * scale))
    root = tempfile.mkdtemp(prefix="load-of-tqshim-", dir=anonymous_root())
    former = os.environ.get("TQSHIM_DIR")
    os.environ["TQSHIM_DIR"] = root
    try:
        return _cycle(count, root)
    finally:
        del os.environ["TQSHIM_DIR"]
        if former is not None:
            os.environ["TQSHIM_DIR"] = former
        shutil.rmtree(root)


def _cycle(count: int, root: str) -> str:
    quarter = descriptors = 0
    began = time.monotonic()
    for number in range(count):
        queue = TurboQueue(number % 3 * 100)
        queue.put(number)
        queue.put_many([number, number])
        check(queue.get_many(timeout=PATIENCE, max_messages_to_get=3) == [number] * 3, f"cycle {number}")
        if number % 2:
            queue.close()
        del queue
        if number == count // 4:
            gc.collect()
            quarter, descriptors = memory(), len(os.listdir("/dev/fd"))
    took = time.monotonic() - began
    gc.collect()
    growth = memory() - quarter
    check(not Engine.all, f"{len(Engine.all)} engines are left")
    left = os.listdir(root)
    check(not left, f"{len(left)} folders are left")
    opened = len(os.listdir("/dev/fd")) - descriptors
    check(opened <= 0, f"{opened} descriptors are left")
    check(growth < GROWTH, f"memory grew by {growth / MB:.1f} MB")
    return f"{count:,} queues made, used and dropped in {took:.0f} s; nothing left, {growth >> 10} KB of memory more"


def leftovers(scale: float) -> str:
    """A producer and a consumer come, find all the leftovers, and remove them while items pass."""
    count = max(1000, int(10_000_000 * scale))
    root = anonymous_root()
    # In memory each name counts as a file.
    roomy = os.statvfs(root).f_favail > 1.1 * count
    home = tempfile.mkdtemp(prefix="load-of-tqshim-", dir=root if roomy else None)
    path = Path(home) / "queue"
    try:
        queue = TurboQueue(path=str(path))
        queue.put("item")
        queue._engine.close()
        del queue
        began = time.monotonic()
        leave(path, count)
        made = time.monotonic() - began
        before = memory()
        began = time.monotonic()
        queue = TurboQueue(path=str(path))
        check(queue.get(timeout=PATIENCE) == "item", "the item is lost")
        opened = time.monotonic() - began
        longest = most = 0.0
        turn = 0
        while any(name.startswith(("load_", "ready_")) for name in _some(path, 2)):
            started = time.monotonic()
            try:
                queue.get(timeout=0.05)
            except Empty:
                pass
            longest = max(longest, time.monotonic() - started - 0.05)
            queue.put(turn)
            check(queue.get(timeout=PATIENCE) == turn, "an item is lost")
            most = max(most, memory() - before)
            turn += 1
            check(time.monotonic() - began < 30 * PATIENCE, "it does not come to an end")
        took = time.monotonic() - began
        queue.close()
        del queue
        gc.collect()
    finally:
        shutil.rmtree(home, ignore_errors=True)
    check(most < 64 * MB, f"they take {most / MB:.0f} MB of memory")
    return (
        f"{count:,} files, made in {made:.0f} s, are gone after {took:.0f} s; the queue opened in {opened:.1f} s, a "
        f"get was {longest * 1000:.0f} ms late at most, {most / MB:.0f} MB of memory"
    )


def _some(path: Path, count: int) -> list[str]:
    """Names of batch files in that folder, so many at most, except the file that is being filled."""
    found = []
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith(("load_", "ready_")):
                found.append(entry.name)
                if len(found) >= count:
                    break
    return found if len(found) >= count else []


def leave(path: Path, count: int) -> None:
    """Leave so many batch files of members that were killed long ago, cheaply: as links to a few empty files."""
    folder = os.open(path, os.O_RDONLY)
    try:
        source = ""
        for number in range(count):
            name = f"load_{number % 3:x}_{number * 2 + (1 << 20):x}"  # beyond the files that members have begun there
            if number % 60_000:  # file systems allow only so many links to one file
                os.link(source, name, src_dir_fd=folder, dst_dir_fd=folder)
            else:
                source = name
                os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600, dir_fd=folder))
    finally:
        os.close(folder)


RUNS: Final[dict[str, Callable[[float], str]]] = {
    run.__name__: run for run in (processes, waiting, in_turn, queues, cycles, leftovers)
}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m compat.load", description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(RUNS)}; all by default")
    parser.add_argument("--scale", type=float, default=1.0, metavar="SHARE", help="of the counts (default: 1)")
    given = parser.parse_args(arguments)
    unknown = sorted(set(given.names) - set(RUNS))
    if unknown:
        parser.error(f"there is no {unknown[0]!r}; there are {', '.join(RUNS)}")
    failed: list[str] = []
    for name in given.names or RUNS:
        try:
            print(f"{name}: {RUNS[name](given.scale)}", flush=True)
        except Failed as finding:
            failed.append(f"{name}: {finding}")
            print(f"{name}: FAILED: {finding}", flush=True)
    if failed:  # once more, last
        print("; ".join(failed))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
