"""A kill before and after each file-system step of each path of the protocol leaves what crash_table.py says.

Every such step is a call of ``os`` or ``fcntl`` in ``tqshim.folder``.  A forked child, the victim, walks a path with a
seam in their place that ends it at the Nth call which changes something; this process then looks at what is left, as
the other user of the queue that it is.
"""

from __future__ import annotations

import ast
import collections
import contextlib
import fcntl
import gc
import json
import os
import pathlib
import pickle
import re
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from itertools import groupby
from typing import Any, Callable, Optional

import pytest
from crash_table import TABLE

import tqshim.core
import tqshim.engine
import tqshim.folder
import tqshim.tuning
from tqshim import CorruptBatchError, Empty, Full, ShutDown, TurboQueue, events, mappings, names, systems, waiting
from tqshim.engine import Engine, Use

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="steps are named with the help of /proc")

KILLED = 99
PATIENCE = 60.0
TYPES = "CLAIM JOIN LEAVE OPEN PUBLISH LEASE REVOKE RESERVE TRIM CLAIM_MANY SEAL TASK_DONE SHUTDOWN PUBLISH_LATE"
TYPES += " HOLD GOT RETURN"
NAMES = {getattr(events, name): name for name in TYPES.split()}


# --- the seam --------------------------------------------------------------------------------------------------------


def kind(path: str) -> str:
    """What kind of file that is: its name up to where it becomes its own."""
    name = os.path.basename(path)
    if name.startswith("dead_"):
        return "dead_"
    found = re.match(r"[a-z]+_|[a-z]+$", name)
    return found[0] if found else "folder"


def name_of(fd: int) -> str:
    return os.readlink(f"/proc/self/fd/{fd}")


class Seam:
    """Stands in for the modules by which ``tqshim.folder`` changes something: names the calls, exits at the Nth."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.lines: set[int] = set()
        """Those of ``folder`` that the steps stand in."""
        self.armed = False
        self.at = -1
        self.after = False
        self.stop = False

    def arm(self, at: int, after: bool, stop: bool) -> None:
        self.at, self.after, self.stop, self.armed = at, after, stop, True
        tqshim.folder.os = Stand(os, self)  # type: ignore[assignment]
        tqshim.folder.fcntl = Stand(fcntl, self)  # type: ignore[assignment]
        tqshim.folder.mappings = Stand(mappings, self)  # type: ignore[assignment]

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        armed, self.armed = self.armed, False
        yield
        self.armed = armed

    def call(self, function: Callable[..., Any], arguments: Any, keywords: Any) -> Any:
        step = label(function.__name__, arguments, keywords) if self.armed else None
        if step is None:
            return function(*arguments, **keywords)
        if len(self.steps) == self.at and self.stop:
            self.at = -1
            os.kill(os.getpid(), signal.SIGSTOP)
        elif len(self.steps) == self.at and not self.after:
            os._exit(KILLED)
        found = function(*arguments, **keywords)  # a call that fails has changed nothing, and is no step
        if len(self.steps) == self.at and self.after:
            os._exit(KILLED)
        self.steps.append(step)
        self.lines.add(sys._getframe(2).f_lineno)
        return found


class Stand:
    def __init__(self, module: Any, seam: Seam) -> None:
        self.__dict__.update(_module=module, _seam=seam)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        if name == "path" or not callable(found) or isinstance(found, type):
            return found
        return lambda *arguments, **keywords: self._seam.call(found, arguments, keywords)


def label(function: str, arguments: Any, keywords: Any) -> Optional[str]:
    """The name of a step, or ``None`` for a call that changes nothing on disk."""
    first = arguments[0] if arguments else None
    if function in ("mkdir", "makedirs"):
        return "make folder"
    if function == "rmdir":
        return "remove folder"
    if function == "symlink":
        return "symlink " + kind(arguments[1])
    if function == "mkfifo":
        return "make " + kind(first)
    if function == "open":
        return "create " + kind(first) if arguments[1] & os.O_CREAT else None
    if function == "pwritev":
        return "write " + kind(name_of(first))
    if function == "store":
        return "write load_"
    if function in ("write", "pwrite"):
        file = kind(name_of(first))
        return "append " + NAMES[arguments[1][0]] if file == "journal_" else "write " + file
    if function in ("rename", "link"):
        return f"{function} {kind(first)} to {kind(arguments[1])}"
    if function == "unlink":
        home = name_of(keywords["dir_fd"])
        if home.endswith("-spill"):
            return "unlink in spill"
        return "unlink in dead_" if kind(home) == "dead_" else "unlink " + kind(first)
    if function == "lockf":
        return "unlock slot" if arguments[1] == fcntl.LOCK_UN else "lock slot"
    if function == "flock":
        return "lock folder alone" if arguments[1] & fcntl.LOCK_EX else "hold folder"
    if function == "ioctl" and arguments[1] == systems.UNRESVSP:
        return None
    if function in ("ioctl", "posix_fallocate"):
        return "reserve " + kind(name_of(first))
    if function in ("ftruncate", "truncate", "replace", "remove", "removedirs", "renames", "sendfile"):
        raise AssertionError(f"os.{function}: a step that has no name yet")
    return None


# --- the paths -------------------------------------------------------------------------------------------------------

PATHS: dict[str, type[Path]] = {}


class Path:
    """One path of the protocol.  ``done``: the steps that the victim has taken; they alone decide the outcome."""

    title = ""
    maxsize = 0
    items = 0
    """Items that this process puts beforehand: 0, 1, 2 …"""
    limits = (80, 80)
    """Events of the queue's journals."""
    wanted: tuple[Any, ...] = ()
    """Items that the victim gets on the path if nobody comes in between."""
    needs: tuple[str, ...] = ()
    """Optimisations that it leads through, by their switches."""
    hungry = False
    """The victim may wait for an item, though it gets none if nobody comes in between."""

    def __init_subclass__(cls) -> None:
        if cls.title:
            PATHS[cls.title] = cls

    def __init__(self, seam: Seam, root: str, spill: str) -> None:
        self.seam = seam
        self.root = root
        self.spill = spill
        self.queue: Any = None
        self.helper = -1
        self.got: list[Any] = []
        """What the victim got on the path."""
        self.more: list[Any] = []
        """What this process put while a victim that had been stopped went on."""
        self.ended = False
        """The victim was not killed on the path, but right after it."""
        self.stopped: Optional[list[str]] = None
        """The steps that a victim had taken when it was stopped."""

    @property
    def engine(self) -> Engine:
        engine: Engine = self.queue._engine
        return engine

    def set_up(self) -> None:
        """In this process, before the victim is forked."""
        self.queue = TurboQueue(self.maxsize)
        if self.items:
            self.queue.put_many(range(self.items))

    def prepare(self) -> None:
        """In the victim, before it can be killed."""

    def act(self) -> None:
        """In the victim: the path."""
        raise NotImplementedError

    def expected(self, done: list[str]) -> list[Any]:
        """What then is in the queue."""
        return list(range(self.items))

    def total(self, steps: list[str]) -> list[Any]:
        """All that anybody gets after the victim was set on its path."""
        return [*self.expected(steps), *self.wanted]

    def release(self) -> None:
        """Let a helper go."""

    def drain(self) -> list[Any]:
        """All that can be got now."""
        return drain(self.queue)

    def check(self, done: list[str]) -> None:
        assert drain(self.queue) == self.expected(done)
        check_queue(self.queue, self.maxsize)

    def tear_down(self) -> None:
        if self.queue is not None:
            self.queue.close()
            self.queue = None

    # -- for the paths

    def fill_journal(self, share: float) -> None:
        """Void events, up to so much of the journal."""
        engine = self.engine
        with engine._lock:
            while engine.ledger.index < share * engine.ledger.limit:
                engine._append(events.revoke(0, 0))


def no_burst() -> None:
    """The next put is not part of a burst: this process has found a queue empty in the meantime."""
    tqshim.core.looked[0] += 1


def drain(queue: Any) -> list[Any]:
    got = []
    while True:
        try:
            got.append(queue.get_nowait())
        except (Empty, ShutDown):
            break
    with pytest.raises((Empty, ShutDown)):
        queue.get(timeout=0.001)  # it sleeps, and looks for what the dead have left
    return got


def check_queue(queue: Any, maxsize: int) -> None:
    """A drained queue works, has all its places, and its folder holds nothing but what it needs."""
    over = queue.is_shutdown
    if over:
        with pytest.raises(ShutDown):
            queue.put("probe")
    else:
        queue.put("probe", timeout=PATIENCE)
        assert queue.get(timeout=PATIENCE) == "probe"
    if maxsize and not over:
        for item in range(maxsize):
            queue.put_nowait(item)
        with pytest.raises(Full):
            queue.put_nowait(None)
        assert drain(queue) == list(range(maxsize))
    engine = queue._engine
    roll_twice(queue)
    with engine._lock:
        engine._scan()
    own = {f"load_{engine._file.member:x}_{engine._file.serial:x}"} if engine._file else set()
    path = engine.folder.path
    left = [name for name in os.listdir(path) if name.startswith(("load_", "ready_"))]
    with contextlib.suppress(FileNotFoundError):
        left += [name for name in os.listdir(f"{path}/spill") if name != "home"]
    assert set(left) <= own, engine.ledger.members
    journals = sorted(name for name in os.listdir(path) if name.startswith(("journal_", "roll_", "spare_", "corrupt_")))
    number = engine.journal.number
    assert set(journals) <= {f"journal_{number - 1}", f"journal_{number}", f"spare_{number + 1}"}
    assert set(engine.ledger.members) <= {engine._consumer, engine._producer}
    assert not engine.ledger.res or set(engine.ledger.res) <= {engine._producer}


def bury(engine: Engine) -> None:
    """Find out who has died, with the engine's lock held."""
    engine._begin()
    engine._sync()
    engine._scan()
    engine._unsure = False


def roll_twice(queue: Any) -> None:
    engine = queue._engine
    with engine._lock:
        engine._begin()
        number = engine.journal.number
        while engine.journal.number < number + 2:
            engine._append(events.revoke(0, 0))
        engine._unsure = False


class CreateAnonymous(Path):
    title = "create an anonymous queue"

    def set_up(self) -> None:
        pass

    def act(self) -> None:
        tqshim.folder.Folder.create_anonymous(0, tqshim.tuning.LIMITS)

    def check(self, done: list[str]) -> None:
        pass


class OpenAtPath(CreateAnonymous):
    title = "open a queue at a path"

    def act(self) -> None:
        TurboQueue(path=self.root + "/shared/queue")

    def check(self, done: list[str]) -> None:
        self.queue = TurboQueue(path=self.root + "/shared/queue")
        check_queue(self.queue, 0)

    def tear_down(self) -> None:
        self.queue = None
        gc.collect()
        folder = pathlib.Path(self.root, "shared/queue")
        for file in folder.iterdir() if folder.exists() else ():
            file.unlink()
        if folder.exists():
            folder.rmdir()
        if folder.parent.exists():
            folder.parent.rmdir()


class PickleHandle(Path):
    title = "pickle a handle"
    items = 1

    def act(self) -> None:
        pickle.dumps(self.queue)


class UnpickleHandle(Path):
    title = "unpickle a handle"
    items = 1

    def set_up(self) -> None:
        super().set_up()
        self.data = pickle.dumps(self.queue)

    def prepare(self) -> None:
        Use._all.clear()  # as in a program that meets this queue for the first time

    def act(self) -> None:
        pickle.loads(self.data)


class FirstPut(Path):
    title = "first put"
    items = 1

    def act(self) -> None:
        self.queue.put("put")

    def expected(self, done: list[str]) -> list[Any]:
        return [0] + ["put"] * done.count("append PUBLISH")


class Put(FirstPut):
    title = "put"

    def prepare(self) -> None:
        self.queue.put("before")
        no_burst()

    def expected(self, done: list[str]) -> list[Any]:
        return [0, "before"] + ["put"] * done.count("append PUBLISH")


class SpillOver(FirstPut):
    title = "put to a full disk: spill over"

    def prepare(self) -> None:
        tqshim.folder.Folder.wants_spill = lambda folder: True  # type: ignore[method-assign]
        tqshim.folder.spill_root = lambda path: self.spill


class PutLarge(Put):
    title = "put of a large item"

    def act(self) -> None:
        self.queue.put(b"large" * 200_000)

    def expected(self, done: list[str]) -> list[Any]:
        return [0, "before"] + [b"large" * 200_000] * done.count("append PUBLISH")


class PutToFullFile(Put):
    title = "put to a full batch file"

    def prepare(self) -> None:
        tqshim.tuning.FILE_BYTES = 16  # type: ignore[misc]
        super().prepare()


class PutAfterAnInterruptedOne(Put):
    title = "put after an interrupted one"

    def prepare(self) -> None:
        super().prepare()
        def interrupted(*_: Any) -> Any:
            raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tqshim.folder.Journal, "write", interrupted)
            with pytest.raises(KeyboardInterrupt):
                self.queue.put("interrupted")
        no_burst()


class GetOfSpilledFilesLast(Path):
    title = "get of a spilled file's last item"
    items = 0
    wanted = ("a",)

    def prepare(self) -> None:
        tqshim.folder.Folder.wants_spill = lambda folder: True  # type: ignore[method-assign]
        tqshim.folder.spill_root = lambda path: self.spill
        tqshim.tuning.FILE_BYTES = 16  # type: ignore[misc]
        self.queue.put_many("x")
        assert self.queue.get() == "x"
        self.queue.put_many("a")
        self.queue.put_many("b")
        self.queue.qsize()  # publishes

    def act(self) -> None:
        self.got.append(self.queue.get())

    def expected(self, done: list[str]) -> list[Any]:
        return ["b"] if "append CLAIM" in done else ["a", "b"]


class PutMany(FirstPut):
    title = "put of several to a bounded queue"
    maxsize = 20

    def prepare(self) -> None:
        self.queue.put("before")
        no_burst()
        events.PUBLISH_MOST = 4  # type: ignore[misc]

    def act(self) -> None:
        self.queue.put_many("abcdef")

    def expected(self, done: list[str]) -> list[Any]:
        return [0, "before", *"abcdef"[: 4 * done.count("append PUBLISH")]]


class PutVeryMany(PutMany):
    title = "put of very many to a bounded queue"
    maxsize = 2000
    limits = (4000, 4000)

    def prepare(self) -> None:
        super().prepare()
        events.PUBLISH_MOST = 600  # type: ignore[misc]

    def act(self) -> None:
        self.queue.put_many(range(1200))

    def expected(self, done: list[str]) -> list[Any]:
        return [0, "before", *range(600 * done.count("append PUBLISH"))]


class JoinBeyondCells(Path):
    title = "join beyond the cells"
    items = 1
    limits = (1000, 1000)

    def set_up(self) -> None:
        super().set_up()
        with self.engine._lock:
            for _ in range(waiting.SLOTS):
                self.engine._append(events.join(False))

    def act(self) -> None:
        with self.engine._lock:
            self.engine._begin()
            self.engine._slot()


class Burst(Path):
    title = "burst to a bounded queue"
    needs = ("BURSTS", "RESERVATIONS")
    maxsize = 1500

    def prepare(self) -> None:
        self.queue.put("before")

    def act(self) -> None:
        self.queue.put("a")
        self.queue.put("b")
        self.engine.flush()

    def expected(self, done: list[str]) -> list[Any]:
        return ["before"] + ["a", "b"] * done.count("append PUBLISH")


class ContestedReservation(Burst):
    title = "reservation that somebody contests"

    def prepare(self) -> None:
        super().prepare()
        self.queue.put("a")
        assert self.engine._producer is not None
        assert self.engine.ledger.res
        self.engine.cells.words[waiting.Cells.place(waiting.USED_FLAG, self.engine._producer)] = 1

    def act(self) -> None:
        self.queue.put("b")
        self.engine.flush()


class OthersReservation(Path):
    title = "put to a queue full of others' reservations"
    needs = ("BURSTS", "RESERVATIONS")
    maxsize = 1100

    def set_up(self) -> None:
        super().set_up()
        ready, self.end = os.pipe(), os.pipe()

        def help() -> None:
            os.close(self.end[1])
            self.queue.put("helper's first")
            self.queue.put("helper's second")
            os.write(ready[1], b"!" if self.engine.ledger.res else b"?")
            os.read(self.end[0], 1)
            self.engine.close()

        self.helper = in_child(help)
        assert os.read(ready[0], 1) == b"!"
        for fd in (*ready, self.end[0]):
            os.close(fd)

    def prepare(self) -> None:
        size = self.engine.qsize() + self.engine.ledger.reserved
        self.queue.put_many(range(self.maxsize - size))
        # This runs in the victim's process: it makes no reservation of its own.
        tqshim.tuning.PLACES_LEAST = self.maxsize  # type: ignore[misc]

    def act(self) -> None:
        self.queue.put("put", timeout=PATIENCE)

    def release(self) -> None:
        os.close(self.end[1])
        os.waitpid(self.helper, 0)

    def total(self, steps: list[str]) -> list[Any]:
        return ["helper's first", "helper's second", *range(self.maxsize - 257), "put"]

    def check(self, done: list[str]) -> None:
        self.release()
        got = drain(self.queue)
        assert got.pop(0) == "helper's first"
        got.remove("helper's second")
        assert got == [*range(self.maxsize - 257), *["put"] * done.count("append PUBLISH")]
        check_queue(self.queue, self.maxsize)


class GetFromDamagedFile(Path):
    title = "get from a damaged batch file"
    hungry = True

    def set_up(self) -> None:
        super().set_up()
        self.errors = 0
        self.aside: list[str] = []

        def put_and_leave() -> None:
            for item in range(3):
                self.queue.put(item)
                self.engine.flush()
            self.engine.close()

        os.waitpid(in_child(put_and_leave), 0)
        (self.file,) = pathlib.Path(self.engine.folder.path).glob("ready_*")
        data = bytearray(self.file.read_bytes())
        data[1:3] = b"\xff\xff"  # the first record reaches beyond its block
        self.file.write_bytes(data)

    def act(self) -> None:
        with contextlib.suppress(CorruptBatchError):
            self.got.append(self.queue.get())

    def expected(self, done: list[str]) -> list[Any]:
        return [1, 2]

    def drain(self) -> list[Any]:
        got: list[Any] = []
        while True:
            try:
                got += drain(self.queue)
                break
            except CorruptBatchError:
                self.errors += 1
        for file in pathlib.Path(self.engine.folder.path).glob("corrupt_*"):  # kept for a person to look at
            self.aside.append(file.name)
            file.unlink()
        return got

    def check(self, done: list[str]) -> None:
        assert self.drain() == self.expected(done)
        # Else the killed process had the damaged item in its hand, and all that is left is whole.
        assert self.errors == ("append CLAIM" not in done)
        name = names.corrupt(self.file.name)
        assert (name in self.aside) == (self.errors or "rename ready_ to corrupt_" in done)
        assert (names.reason(self.file.name) in self.aside) == (self.errors or "create corrupt_" in done)
        check_queue(self.queue, 0)


class FirstGet(Path):
    title = "first get"
    items = 3
    wanted = (0,)

    def act(self) -> None:
        self.got.append(self.queue.get())

    def expected(self, done: list[str]) -> list[Any]:
        return list(range(self.items))[done.count("append CLAIM") :]


class Get(FirstGet):
    title = "get"
    wanted = (1,)

    def prepare(self) -> None:
        self.queue.get()

    def expected(self, done: list[str]) -> list[Any]:
        return super().expected(done)[1:]


class GetMany(Get):
    title = "get of several"
    items = 5
    wanted = (1, 2, 3)

    def act(self) -> None:
        self.got += self.queue.get_many(max_messages_to_get=3)

    def expected(self, done: list[str]) -> list[Any]:
        return [4] if done else [1, 2, 3, 4]


class GetLastOfFile(Get):
    title = "get of a file's last item"
    items = 1
    wanted = ("a",)

    def prepare(self) -> None:
        tqshim.tuning.FILE_BYTES = 16  # type: ignore[misc]
        self.queue.put_many("a")
        self.queue.put_many("b")
        self.queue.get()

    def expected(self, done: list[str]) -> list[Any]:
        return ["b"] if done else ["a", "b"]


class GetLastOfLargeFile(GetLastOfFile):
    title = "get of a large file's last item"

    def prepare(self) -> None:
        tqshim.tuning.BLOCK_BYTES = 1  # type: ignore[misc]
        tqshim.tuning.LARGE_FILE_BYTES = 16  # type: ignore[misc]
        super().prepare()


class PutToRefilledFile(GetLastOfLargeFile):
    title = "put of a large item, to a batch file that is refilled"
    needs = ("REFILLING",)
    wanted = ()

    def prepare(self) -> None:
        super().prepare()
        assert self.queue.get() == "a"

    def act(self) -> None:
        self.queue.put("c")

    def expected(self, done: list[str]) -> list[Any]:
        return ["b", *["c"] * done.count("append PUBLISH")]


class Claimed(Path):
    title = "claimed, and its block"
    items = 3
    wanted = (0,)

    def act(self) -> None:
        with self.queue.claimed() as item:
            self.got.append(item)

    def expected(self, done: list[str]) -> list[Any]:
        return list(range(self.items))[done.count("append GOT") :]

    def check(self, done: list[str]) -> None:
        with self.engine._lock:
            bury(self.engine)
            back = "append HOLD" in done and "append GOT" not in done
            assert [one.times for one in self.engine.ledger.returned] == [1] * back
            assert not self.engine.ledger.held
        super().check(done)


class ClaimedThatRaises(Claimed):
    title = "claimed, and its block raises"
    wanted = ()

    def act(self) -> None:
        with contextlib.suppress(KeyError, Empty):
            with self.queue.claimed(False):
                raise KeyError


class GetOfReturned(Claimed):
    title = "get of what has come back"

    def set_up(self) -> None:
        super().set_up()
        with contextlib.suppress(KeyError):
            with self.queue.claimed():
                raise KeyError

    def act(self) -> None:
        self.got.append(self.queue.get())

    def check(self, done: list[str]) -> None:
        with self.engine._lock:
            bury(self.engine)
        Path.check(self, done)


class LeaveInBlock(Path):
    title = "leave out of a block"
    items = 3

    def prepare(self) -> None:
        self.claim = self.queue.claimed()
        assert self.claim.__enter__() == 0

    def act(self) -> None:
        self.engine.close()

    def check(self, done: list[str]) -> None:
        with self.engine._lock:
            bury(self.engine)
            assert [one.times for one in self.engine.ledger.returned] == [1]
        super().check(done)


class BuryHolder(LeaveInBlock):
    title = "bury a killed member that holds an item"

    def set_up(self) -> None:
        super().set_up()
        self.queue.qsize()
        os.waitpid(in_child(self.queue.claimed().__enter__), 0)

    def prepare(self) -> None:
        pass

    def act(self) -> None:
        with self.engine._lock:
            self.engine._begin()
            self.engine._scan()


class GetThatWaits(Path):
    title = "first get that waits"

    def act(self) -> None:
        with contextlib.suppress(Empty):
            self.queue.get(timeout=0.3)


class Counted(Path):
    """Afterwards as many items are unfinished as were put and not counted off, and whoever counts those off has all."""

    def check(self, done: list[str]) -> None:
        finished = done.count("append TASK_DONE")
        left = len(self.expected(done)) - finished
        self.engine.qsize()
        assert (self.engine.ledger.finished, self.engine.ledger.unfinished) == (finished, left)
        assert self.engine.join(0.0) == (not left)
        for _ in range(left):
            assert self.engine.task_done()
        assert not self.engine.task_done()
        assert self.engine.join(PATIENCE)
        super().check(done)


class TaskDone(Counted):
    title = "task_done"
    items = 3

    def act(self) -> None:
        assert self.engine.task_done()


class TaskDoneOfLast(TaskDone):
    title = "task_done of the last item"
    items = 1


class TaskDoneBehindBurst(Counted):
    title = "task_done behind a burst"
    needs = ("BURSTS",)
    items = 1

    def prepare(self) -> None:
        self.queue.put("a")
        self.queue.put("b")

    def act(self) -> None:
        assert self.engine.task_done()

    def expected(self, done: list[str]) -> list[Any]:
        return [0, "a"] + ["b"] * done.count("append PUBLISH")


class JoinThatWaits(Counted):
    title = "first join that waits"
    items = 1

    def act(self) -> None:
        assert not self.engine.join(0.3)  # so long that even a slow machine comes to wait


class PutThatWaits(Path):
    title = "first put that waits"
    maxsize = 2
    items = 2

    def act(self) -> None:
        with contextlib.suppress(Full):
            self.queue.put("put", timeout=PATIENCE if self.seam.stop else 0.3)

    def total(self, steps: list[str]) -> list[Any]:
        return [0, 1, "put"]  # while it was stopped somebody has made room


class ShutTheQueueDown(Path):
    title = "shutdown"
    items = 3

    def act(self) -> None:
        self.queue.shutdown()

    def check(self, done: list[str]) -> None:
        assert self.queue.is_shutdown == ("append SHUTDOWN" in done)
        super().check(done)


class ShutdownBehindBurst(ShutTheQueueDown):
    title = "shutdown behind a burst"
    needs = ("BURSTS",)
    items = 1

    def prepare(self) -> None:
        self.queue.put("a")
        self.queue.put("b")

    def expected(self, done: list[str]) -> list[Any]:
        return [0, "a"] + ["b"] * done.count("append PUBLISH")


class ShutdownAtOnce(ShutTheQueueDown):
    title = "shutdown at once, with a burst"
    needs = ("BURSTS",)

    def prepare(self) -> None:
        tqshim.tuning.FILE_BYTES = 16  # type: ignore[misc]
        self.queue.put_many("a")
        self.queue.put_many("b")

    def act(self) -> None:
        self.queue.shutdown(immediate=True)

    def expected(self, done: list[str]) -> list[Any]:
        return [] if "append SHUTDOWN" in done else [0, 1, 2, "a", *["b"] * done.count("append PUBLISH")]

    def total(self, steps: list[str]) -> list[Any]:
        assert self.stopped is not None
        return self.expected(self.stopped)  # what was there was taken while it was stopped; what came later is dropped


class ShutdownAtOnceWithLease(ShutTheQueueDown):
    title = "shutdown at once, with a lease"
    needs = ("LEASES",)
    items = 20

    def prepare(self) -> None:
        for item in range(3):
            assert self.queue.get() == item
        assert self.engine._lease is not None

    def act(self) -> None:
        self.queue.shutdown(immediate=True)

    def expected(self, done: list[str]) -> list[Any]:
        return [] if "append SHUTDOWN" in done else list(range(3, 20))

    def total(self, steps: list[str]) -> list[Any]:
        return list(range(3, 20))  # taken while it was stopped


class ShutdownAtOnceOfAnothersLease(ShutdownAtOnceWithLease):
    title = "shutdown at once, with another's lease"

    def set_up(self) -> None:
        super().set_up()
        super().prepare()

    def prepare(self) -> None:
        pass


class OvertakenBurst(Path):
    title = "burst that a shutdown overtakes"
    needs = ("BURSTS",)

    def prepare(self) -> None:
        self.queue.put("before")
        self.queue.put("a")
        self.queue.put("b")
        assert len(self.engine.records) == 2
        self.engine.journal.append(events.shutdown(False))

    def act(self) -> None:
        self.engine.flush()

    def expected(self, done: list[str]) -> list[Any]:
        return ["before"] + ["a", "b"] * done.count("append PUBLISH_LATE")

    def check(self, done: list[str]) -> None:
        assert self.queue.is_shutdown
        super().check(done)


class TakeLease(Path):
    title = "lease"
    needs = ("LEASES",)
    items = 20
    wanted = (0,)

    def act(self) -> None:
        self.got.append(self.queue.get())

    def expected(self, done: list[str]) -> list[Any]:
        # An item is the holder's as soon as the position cell is beyond it; right after the LEASE it is not yet.
        return list(range(self.ended, 20))


class ContestedLease(TakeLease):
    title = "lease that somebody contests"
    wanted = (3,)

    def prepare(self) -> None:
        for item in range(3):
            assert self.queue.get() == item
        assert self.engine._lease is not None
        self.engine.cells.words[waiting.Cells.place(waiting.LEASE_FLAG, self.engine._lease.slot)] = 1

    def expected(self, done: list[str]) -> list[Any]:
        return list(range(4, 20))  # item 3 is in the hand: the cell said so before the first step


class GetOfAnothersLease(TakeLease):
    title = "get of another's lease"
    wanted = (3,)

    def set_up(self) -> None:
        super().set_up()
        assert [self.queue.get() for _ in range(3)] == [0, 1, 2]
        assert self.engine._lease is not None

    def expected(self, done: list[str]) -> list[Any]:
        return list(range(3 + done.count("append CLAIM"), 20))


class PutAtHalf(FirstPut):
    title = "put at half of a journal"

    def prepare(self) -> None:
        self.queue.put("before")
        no_burst()
        self.fill_journal(0.5)

    def expected(self, done: list[str]) -> list[Any]:
        return [0, "before"] + ["put"] * done.count("append PUBLISH")


ROLLED = "rename roll_ to journal_"


class Roll(PutAtHalf):
    title = "roll"

    def prepare(self) -> None:
        super().prepare()
        for _ in range(2):
            self.fill_journal(1.0)
            with self.engine._lock:
                self.engine._append(events.revoke(0, 0))
        self.fill_journal(1.0)

    def expected(self, done: list[str]) -> list[Any]:
        return [0, "before"] + ["put"] * (ROLLED in done and "append PUBLISH" in done[done.index(ROLLED) :])


class LostRoll(Roll):
    title = "roll that somebody else wins"

    def prepare(self) -> None:
        super().prepare()
        folder = self.engine.folder
        prepare_roll = folder.prepare_roll

        def slow(number: int, snapshot: bytes, *limits: int) -> str:
            key = prepare_roll(number, snapshot, *limits)
            with self.seam.paused():
                self.engine.journal.append(events.seal(int(prepare_roll(number, snapshot, *limits), 16)))
            return key

        folder.prepare_roll = slow  # type: ignore[method-assign]
        for name in os.listdir(folder.path):
            if name.startswith("spare_"):
                os.unlink(f"{folder.path}/{name}")


class Leave(Path):
    title = "leave with a lease and a burst"
    needs = ("BURSTS", "LEASES")
    items = 20

    def prepare(self) -> None:
        for item in range(3):
            assert self.queue.get() == item
        self.queue.put("a")
        self.queue.put("b")

    def act(self) -> None:
        self.engine.close()

    def expected(self, done: list[str]) -> list[Any]:
        return [*range(3, 20), "a", *["b"] * done.count("append PUBLISH")]


class Bury(Path):
    title = "bury a killed member"
    items = 1

    def set_up(self) -> None:
        super().set_up()
        self.queue.get()
        os.waitpid(in_child(lambda: self.queue.put("killed one's")), 0)
        assert self.queue.get_nowait() == "killed one's"

    def act(self) -> None:
        with self.engine._lock:
            self.engine._begin()
            self.engine._scan()

    def expected(self, done: list[str]) -> list[Any]:
        return []


class ProgramEnds(Path):
    title = "a program ends, others go on"
    items = 1

    def prepare(self) -> None:
        self.queue.put("put")
        self.engine.flush()

    def act(self) -> None:
        self.engine.retire()

    def expected(self, done: list[str]) -> list[Any]:
        return [0, "put"]


class Scan(Path):
    title = "scan of what the dead have left"

    def set_up(self) -> None:
        super().set_up()
        roll_twice(self.queue)
        number = self.engine.journal.number
        folder = pathlib.Path(self.engine.folder.path)
        for name in ("load_1_2", "free_1_0", f"roll_{number}_00000000aa"):
            (folder / name).touch(0o600)

    def prepare(self) -> None:
        with self.engine._lock:
            self.engine._begin()
            self.engine._sync()

    def act(self) -> None:
        with self.engine._lock:
            self.engine._scan()
            self.engine._unsure = False


class OpenAfterPowerCut(OpenAtPath):
    title = "open a durable queue whose journal ends in a hole"

    def set_up(self) -> None:
        os.waitpid(in_child(self.make), 0)

    def make(self) -> None:
        queue = TurboQueue(path=self.root + "/shared/queue", durable=True)
        queue.put("put")
        queue._engine.close()
        with open(self.root + "/shared/queue/journal_0", "ab") as journal:
            journal.write(bytes(8) + events.revoke(0, 0))

    def check(self, done: list[str]) -> None:
        self.queue = TurboQueue(path=self.root + "/shared/queue")
        assert drain(self.queue) == ["put"]
        check_queue(self.queue, 0)


class LastUserLeaves(CreateAnonymous):
    title = "last user leaves"

    def prepare(self) -> None:
        self.queue = TurboQueue()

    def act(self) -> None:
        self.engine.close()


class Sweep(CreateAnonymous):
    title = "sweep"

    def set_up(self) -> None:
        def spill_and_be_killed() -> None:
            tqshim.folder.Folder.wants_spill = lambda folder: True  # type: ignore[method-assign]
            tqshim.folder.spill_root = lambda path: self.spill
            queue = TurboQueue()
            queue.put("spilled")
            os._exit(0)

        os.waitpid(in_child(spill_and_be_killed), 0)

    def act(self) -> None:
        tqshim.folder.sweep(self.root, ())


# --- the tests -------------------------------------------------------------------------------------------------------


def in_child(act: Callable[[], None]) -> int:
    """Fork a child that does that and ends at once, whatever happens."""
    pid = os.fork()
    if not pid:
        try:
            act()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    return pid


def walk(path: Path, at: int, after: bool, meanwhile: Optional[Callable[[], None]] = None) -> Optional[list[str]]:
    """Fork a victim that walks the path and is killed at a step: its steps, if it came to the end, else ``None``.

    ``meanwhile``: it is stopped before the step instead; what to do until it goes on."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.close(read)
            # Nothing but the path's own steps, however slow the machine is.
            tqshim.tuning.LINGER = 1000.0  # type: ignore[misc]
            tqshim.tuning.SCAN_EVERY = 1000.0  # type: ignore[misc]
            if path.queue is not None:
                path.queue.qsize()  # this process is a user of its own from here on
            path.prepare()
            path.seam.arm(at, after, meanwhile is not None)
            path.act()
            path.seam.armed = False
            if meanwhile is not None and path.queue is not None:
                path.engine.flush()  # with nobody near the bound any more its put was a burst
            os.write(write, json.dumps([path.seam.steps, path.got, sorted(path.seam.lines)]).encode())
            code = 0
        except BaseException:
            os.write(write, traceback.format_exc().encode()[-4000:])
        finally:
            os._exit(code)
    os.close(write)
    status = os.waitpid(pid, os.WUNTRACED)[1]
    if meanwhile is not None and os.WIFSTOPPED(status):
        try:
            meanwhile()
        finally:
            os.kill(pid, signal.SIGCONT)
        status = go_on(path, pid)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    code = os.waitstatus_to_exitcode(status)
    if code == KILLED:
        return None
    assert code == 0, said
    steps, path.got, lines = json.loads(said)
    path.seam.lines.update(lines)
    return list(steps)


def go_on(path: Path, pid: int) -> int:
    """Wait for a victim that goes on; this process may have taken what it is about to get, so put more."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return status
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            return os.waitpid(pid, 0)[1]
        time.sleep(0.01)
        if path.wanted or path.hungry:
            path.more.append(f"more {len(path.more)}")
            path.queue.put(path.more[-1])


@contextlib.contextmanager
def made(cls: type[Path]) -> Iterator[Path]:
    """A path that is set up, and torn down without anything left."""
    with contextlib.ExitStack() as stack:
        root = stack.enter_context(tempfile.TemporaryDirectory(dir=os.environ["TQSHIM_DIR"], prefix="crash-"))
        spill = stack.enter_context(tempfile.TemporaryDirectory(prefix="crash-"))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("TQSHIM_DIR", root)
        patch.setenv("TQSHIM_SPILL_DIR", spill)
        patch.setattr(tqshim.tuning, "LIMITS", cls.limits)
        patch.setattr(tqshim.tuning, "LINGER", 1000.0)
        path = cls(Seam(), root, spill)
        path.set_up()
        patch.setattr(tqshim.tuning, "LINGER", 1e-3)
        patch.setattr(tqshim.tuning, "SCAN_EVERY", 0.0)
        patch.setattr(tqshim.folder, "MARKER_LIFE", 0.0)
        try:
            yield path
        finally:
            path.tear_down()
        gc.collect()
        deadline = time.monotonic() + PATIENCE
        while True:
            TurboQueue().close()
            left = os.listdir(root) + os.listdir(spill)
            if not left or time.monotonic() > deadline:
                break
            time.sleep(0.001)  # a flusher thread of this process holds an engine for a moment
        assert left == [], "after the next creation nothing is left"


def unable(cls: type[Path]) -> str:
    """Why the path can't be walked here; empty where it can."""
    off = [need for need in cls.needs if not getattr(tqshim.tuning, need)]
    if off:
        return f"switched off: {off}"
    if {"LEASES", "RESERVATIONS"}.intersection(cls.needs) and not waiting.barrier_works():
        return "no leases and no reservations: this system has no barrier for them, or is not to use it"
    return ""


def steps_of(cls: type[Path], lines: Optional[set[int]] = None) -> list[str]:
    """The steps of a path on which nobody is killed; notes the ``lines`` of ``folder`` in which they stand."""
    if unable(cls):
        pytest.skip(unable(cls))
    with made(cls) as path:
        steps = walk(path, -1, False)
        assert steps is not None
        assert tuple(path.got) == cls.wanted
        path.ended = True
        path.check(steps)
        if lines is not None:
            lines |= path.seam.lines
    return steps


def rows_of(title: str) -> list[str]:
    """The steps of a path as the table has them; without the setting aside of disk space, where systems can't."""
    wanted = [row.name for row in TABLE[title]]
    return wanted if systems.RESVSP is not None else [step for step in wanted if not step.startswith("reserve ")]


@pytest.mark.parametrize("title", TABLE)
def test_kill_at_each_step_leaves_what_the_table_says(title: str) -> None:
    cls = PATHS[title]
    steps = steps_of(cls)
    assert [step for step, _ in groupby(steps)] == [step for step, _ in groupby(rows_of(title))]
    failures = []
    for at in range(len(steps)):
        for after in (False, True):
            try:
                with made(cls) as path:
                    assert walk(path, at, after) is None, "the path has not as many steps as it had"
                    path.check(steps[: at + after])
            except (AssertionError, OSError) as error:
                where = "after" if after else "before"
                failures.append(f"killed {where} step {at + 1}, {steps[at]!r}: {error}"[:1500])
    assert not failures, "\n".join(failures)


CHANGING = (
    "mkdir makedirs rmdir symlink mkfifo pwritev write pwrite store rename link unlink lockf flock ioctl ftruncate"
)
"""Calls that change what is on disk, or who holds what; and ``open``, where it may create."""
ELSEWHERE = {
    "_mkfifo_by_path: mkfifo": "where a FIFO can't be made relative to a folder: test_systems",
    "_delete_batch: ioctl": "of a file that has no name any more: test_large",
    "prepare_roll: ftruncate": "only a power cut leaves a file that long under a new name: test_durability",
    "refill_batch: unlink": "a file that is left in the place of the one taken, in that very moment: test_large",
    "write_at: pwrite": "the rest of a write that was cut short: test_space",
}
"""Steps that no path of the table leads to, and why."""


def changing_calls() -> dict[int, str]:
    """By line: the calls of ``folder`` that change something, as function and call."""
    source = pathlib.Path(tqshim.folder.__file__).read_text()
    found = {}
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in ast.walk(function):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if not isinstance(node.func.value, ast.Name) or node.func.value.id not in ("os", "fcntl", "mappings"):
                continue
            call = node.func.attr
            creates = call == "open" and "O_CREAT" in ast.unparse(node)
            if creates or call in CHANGING.split():
                found[node.lineno] = f"{function.name}: {call}"
    return found


@pytest.mark.skipif(systems.PORTABLE, reason="only where nothing is done without")
def test_each_call_that_changes_something_is_a_step_of_some_path() -> None:
    if any(map(unable, PATHS.values())):
        pytest.skip("not all paths can be walked here")
    lines: set[int] = set()
    for title in TABLE:
        steps_of(PATHS[title], lines)
    calls = changing_calls()
    assert len(calls) > 30
    assert lines <= set(calls), "a call that changing_calls does not know"
    missed = {call for line, call in calls.items() if line not in lines}
    assert missed == set(ELSEWHERE)


ALONE = {
    "create an anonymous queue",
    "open a queue at a path",
    "open a durable queue whose journal ends in a hole",
    "last user leaves",
    "sweep",
}
"""Paths on which nobody else uses the queue yet, or any more."""


@pytest.mark.parametrize("title", [title for title in TABLE if title not in ALONE])
def test_stop_at_each_step_keeps_nobody_waiting_and_loses_nothing(title: str) -> None:
    cls = PATHS[title]
    steps = steps_of(cls)
    failures = []
    for at in range(len(steps)):
        try:
            stop_at(cls, at, steps)
        except (AssertionError, OSError) as error:
            failures.append(f"stopped before step {at + 1}, {steps[at]!r}: {error}"[:1500])
    assert not failures, "\n".join(failures)


def stop_at(cls: type[Path], at: int, steps: list[str]) -> None:
    """Stop the victim before a step, use the queue, leave it two journals behind, let it go on, count everything."""
    taken: list[Any] = []
    with made(cls) as path:
        path.stopped = steps[:at]

        def meanwhile() -> None:
            taken.extend(path.drain())
            if not path.queue.is_shutdown:
                path.queue.put("probe", timeout=PATIENCE)
                assert path.queue.get(timeout=PATIENCE) == "probe"
            roll_twice(path.queue)

        assert walk(path, at, False, meanwhile) is not None
        path.ended = True
        path.release()
        taken += path.drain()
        everything = [*path.total(steps), *path.more]
        assert collections.Counter(map(str, [*taken, *path.got])) == collections.Counter(map(str, everything))
        check_queue(path.queue, cls.maxsize)


def test_each_path_has_its_rows_and_each_row_its_path() -> None:
    assert sorted(PATHS) == sorted(TABLE)


def test_each_row_says_what_is_left_and_who_repairs_it() -> None:
    for title, rows in TABLE.items():
        assert rows, title
        assert all(row.name and row.left and row.repaired for row in rows), title
        assert sum(row.commits for row in rows) <= 2, title
