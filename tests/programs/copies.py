"""Programs in which one process has the package twice: in two interpreters, or as two copies in one."""

from __future__ import annotations

import contextlib
import importlib
import os
import random
import signal
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import tqshim

WAIT = 60.0


class Copy:
    """The package, imported anew: it knows nothing of what another copy has.  So it is in a program that empties
    ``sys.modules`` while it has queues."""

    lock = threading.Lock()

    def __init__(self) -> None:
        self.modules: dict[str, ModuleType] = {}

    def make(self, *values: Any, **named: Any) -> Any:
        """A queue of this copy."""
        with self.lock:
            others = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "tqshim"}
            for name in others:
                del sys.modules[name]
            sys.modules.update(self.modules)
            try:
                return importlib.import_module("tqshim").TurboQueue(*values, **named)
            finally:
                self.modules = {name: module for name, module in sys.modules.items() if name.startswith("tqshim")}
                for name in self.modules:
                    del sys.modules[name]
                sys.modules.update(others)


def scan(queue: Any) -> None:
    """Bury the dead, as this handle's copy finds them."""
    queue._engine.act(lambda: queue._engine.parts.members.bury_the_dead())


def members(queue: Any) -> int:
    stats = queue.stats()
    return int(stats.consumers + stats.producers)


def bury_nobody(path: str) -> None:
    """Each copy holds an item, has places reserved, and waits for nobody; the other one looks for the dead."""
    queues = [copy.make(10, path=path) for copy in (Copy(), Copy())]
    assert type(queues[0]._engine) is not type(queues[1]._engine)
    for number, queue in enumerate(queues):
        queue.put(number)
    with queues[0].claimed() as one, queues[1].claimed() as other:
        for queue in queues:
            scan(queue)
            assert members(queue) == 4, queue.stats()
            assert queue.stats().held == 2 and queue.empty()
        assert [one, other] == [0, 1]
    # One that goes leaves the other's locks where they are.
    queues.pop().close()
    for _ in range(3):
        if not os.fork():
            stranger = tqshim.TurboQueue(path=path)
            scan(stranger)
            os._exit(members(stranger))
        assert os.waitstatus_to_exitcode(os.wait()[1]) == 2


def killed(path: str, how: str) -> None:
    """A process with two copies is killed; a child that it has forked lives on, and keeps none of its members alive."""
    ready, told = os.pipe()
    child = os.fork()
    if not child:
        queues = [copy.make(path=path) for copy in (Copy(), Copy())]
        queues[0].put(os.getpid())
        with contextlib.ExitStack() as stack:
            if how == "born meanwhile":
                stack.enter_context(forking_once_opened("members", told))
            queues[1].put(os.getpid())
        if how != "born meanwhile" and not os.fork():
            if how == "used":
                for queue in queues:
                    queue.put(os.getpid())
            live_on(told)
        os.write(told, b"done ")
        signal.pause()
    said = b""
    while b"done" not in said or b"lives" not in said:
        said += os.read(ready, 100)
    grandchild = int(said.replace(b"done", b"").replace(b"lives", b""))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    try:
        queue = tqshim.TurboQueue(path=path)
        scan(queue)
        assert members(queue) == (2 if how == "used" else 0), queue.stats()
    finally:
        os.kill(grandchild, signal.SIGKILL)


def live_on(told: int) -> None:
    os.write(told, b"lives %d " % os.getpid())
    signal.pause()


@contextlib.contextmanager
def forking_once_opened(name: str, told: int) -> Iterator[None]:
    """Another thread forks just after the file of that name was opened, before its own thread knows that it is."""
    opens, opened = os.open, []

    def fork() -> None:
        warnings.simplefilter("ignore")  # from 3.12 on it warns in the parent, where an error would hide the child
        if not os.fork():
            live_on(told)

    def open_and_fork(what: Any, *values: Any, **named: Any) -> int:
        fd = opens(what, *values, **named)
        if what == name and not opened:
            opened.append(fd)  # before the fork: it is opened again after that
            thread = threading.Thread(target=fork)
            thread.start()
            thread.join()
        return fd

    os.open = open_and_fork  # type: ignore[assignment]
    yield
    os.open = opens
    assert opened


def work(make: Callable[[], Any], worker: int, count: int, seed: int) -> list[tuple[int, int]]:
    """Put so many items, and get as many, in some order; what was got."""
    queue, put, chance = make(), 0, random.Random(seed)
    got: list[tuple[int, int]] = []
    while put < count or len(got) < count:
        if put < count and (chance.random() < 0.5 or len(got) == count):
            with unless("Full"):
                # A process that may still get does so rather than wait for a place, which all might.
                queue.put((worker, put), len(got) == count, WAIT)
                put += 1
        else:
            # Items of others, too: there are always as many as all have put.
            with unless("Empty"):
                got.append(queue.get(put == count, WAIT))
        if chance.random() < 0.02:
            scan(queue)
            time.sleep(chance.random() / 1000)
    queue.close()
    return got


@contextlib.contextmanager
def unless(name: str) -> Iterator[None]:
    """That exception is no matter; where it waited, what follows does it again."""
    try:
        yield
    except Exception as error:  # each copy has classes of its own
        if type(error).__name__ != name:
            raise


def check(got: Sequence[Sequence[tuple[int, int]]], workers: int, count: int) -> None:
    """Nothing is lost or doubled, and each consumer sees each producer's items in their order."""
    amounts = Counter(item for items in got for item in items)
    assert amounts == Counter((worker, number) for worker in range(workers) for number in range(count))
    for items in got:
        for worker in range(workers):
            mine = [number for who, number in items if who == worker]
            assert mine == sorted(mine)


def copies_at_once(path: str, count: int, rounds: int) -> None:
    """Threads that put and get, half of them with one copy, half with the other."""
    copies = Copy(), Copy()
    for turn in range(rounds):
        got: list[list[tuple[int, int]]] = [[] for _ in range(4)]

        def run(worker: int, got: list[list[tuple[int, int]]] = got, turn: int = turn) -> None:
            copy = copies[worker % 2]
            got[worker] += work(lambda: copy.make(path=f"{path}-{turn}"), worker, count, turn)

        threads = [threading.Thread(target=run, args=(worker,)) for worker in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        check(got, 4, count)


def interpreters_at_once(path: str, count: int, rounds: int) -> None:
    """As many interpreters that put and get, with handles that were pickled, and by path."""
    from concurrent.futures import InterpreterPoolExecutor  # type: ignore[attr-defined,unused-ignore]

    for turn in range(rounds):
        anonymous = tqshim.TurboQueue(0 if turn % 2 else 50)
        with InterpreterPoolExecutor(3) as pool:
            futures = [pool.submit(in_interpreter, anonymous, worker, count, turn) for worker in range(3)]
            check([future.result(WAIT) for future in futures], 3, count)
        assert members(anonymous) == 0, anonymous.stats()
        name = f"{path}-{turn}"
        with InterpreterPoolExecutor(3) as pool:
            futures = [pool.submit(in_interpreter, name, worker, count, turn) for worker in range(3)]
            mine = in_interpreter(name, 3, count, turn)
            check([*(future.result(WAIT) for future in futures), mine], 4, count)


def in_interpreter(given: Any, worker: int, count: int, seed: int) -> list[tuple[int, int]]:
    def make() -> Any:
        return tqshim.TurboQueue(path=given) if isinstance(given, str) else given

    return work(make, worker, count, seed)
