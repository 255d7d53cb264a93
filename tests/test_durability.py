"""A durable queue keeps what was put through a power cut.

Programs use a durable queue, in one process that stands for several, while ``power_cut`` notes what reaches the disk.
Then the power goes at some moment, the disk keeps any legal part of what it was not told to keep, and the next process
that opens the queue there must find it as promised.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import multiprocessing
import os
import pickle
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Optional

import pytest
import sampling
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from power_cut import Disk, Recorder, Said
from watching import newcomer

import tqshim.engine.tuning
from tqshim import Empty, FolderError, Full, JoinableTurboQueue, ShutDown, TurboQueue, monitor
from tqshim.engine import supply
from tqshim.engine.engine import Engine
from tqshim.engine.registry import Use
from tqshim.protocol import events, snapshot
from tqshim.storage import hardening
from tqshim.storage.folder import LogFolder
from tqshim.sync import cells as words_of

pytestmark = pytest.mark.skipif(
    not os.path.isdir("/proc/self/fd"), reason="mapped cells are found with the help of /proc"
)

SMALL, LARGE, GIANT = 10, 5000, 30000
"""Bytes of an item: of one among many, of a large one, of one that finds no room in the file of another."""


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Journals and batch files so small that a few items fill them; nobody waits for what a power cut has taken, nor
    before looking for members that have died of it."""
    monkeypatch.setattr(tqshim.engine.tuning, "LIMITS", (16, 32))
    monkeypatch.setattr(tqshim.engine.tuning, "FILE_BYTES", 4096)
    monkeypatch.setattr(tqshim.engine.tuning, "BLOCK_BYTES", 4096)
    monkeypatch.setattr(tqshim.engine.tuning, "LARGE_FILE_BYTES", 8192)
    monkeypatch.setattr(supply, "FIRST_BYTES", 4096)
    monkeypatch.setattr(tqshim.engine.tuning, "UNSEEN_PATIENCE", 0.0)
    monkeypatch.setattr(tqshim.engine.tuning, "SCAN_EVERY", 0.0)


Item = tuple[int, int, bytes]
"""Who put it, the how many-th of its own that was, and what makes it as long as it is."""


class Program:
    """Processes that use one durable queue: each has an engine of its own."""

    def __init__(self, maxsize: int = 0, disk: Optional[Disk] = None, former: Optional[Program] = None) -> None:
        """``disk``: what a power cut has left, after that former program."""
        self.root = tempfile.mkdtemp(dir=os.environ["TQSHIM_DIR"], prefix="program-")
        if disk is not None:
            disk.write_to(Path(self.root))
        self.path = os.path.join(self.root, "deep", "queue")
        self.recorder = Recorder(self.root)
        self.queues: dict[int, Any] = {}
        self.counts: dict[int, int] = former.counts if former else {}
        self.maxsize = maxsize

    @contextmanager
    def recorded(self) -> Iterator[Program]:
        try:
            with self.recorder.standing_in():
                yield self
                self.recorder.without = ""
                for queue in self.queues.values():
                    queue._engine.close()
                self.queues.clear()
        finally:
            shutil.rmtree(self.root)

    def queue(self, process: int) -> Any:
        """The handle of that process, which opens the queue if it has not yet."""
        if process not in self.queues:
            queue: Any = JoinableTurboQueue.__new__(JoinableTurboQueue)
            folder = LogFolder.open(self.path, self.maxsize, tqshim.engine.tuning.LIMITS, True)
            queue._attach(Use(Engine(folder)), None)
            self.queues[process] = queue
        return self.queues[process]

    # -- what a process does, and what it then knows

    def _begin(self) -> int:
        """Something begins that hardens what has been got until now."""
        self.recorder.say("begins")
        return len(self.recorder.steps)

    def _end(self, begun: int) -> None:
        self.recorder.say("hardens", begun)

    def put(self, process: int, size: int = SMALL, count: int = 1) -> None:
        queue = self.queue(process)
        items = []
        for _ in range(count):
            number = self.counts[process] = self.counts.get(process, 0) + 1
            items.append((process, number, bytes([number % 256]) * size))
        begun = self._begin()
        self.recorder.say("puts", items)
        try:
            if count == 1:
                queue.put_nowait(items[0])
            else:
                queue.put_many_nowait(items)
        except Full:
            return
        self._end(begun)
        self.recorder.say("has put", items)

    def get(self, process: int, count: int = 1) -> None:
        queue = self.queue(process)
        self.recorder.say("gets", (process, count))
        try:
            got = [queue.get_nowait()] if count == 1 else queue.get_many_nowait(count)
        except Empty:
            got = []
        self.recorder.say("has got", (process, got))

    def claim(self, process: int, well: bool = True) -> None:
        """Until its block ends well the item is nobody's."""
        queue = self.queue(process)
        got = []
        try:
            with queue.claimed(False) as item:
                if not well:
                    raise KeyError
                self.recorder.say("gets", (process, 1))
                got = [item]
        except (Empty, KeyError):
            pass
        self.recorder.say("has got", (process, got))

    def done(self, process: int) -> None:
        queue = self.queue(process)
        begun = self._begin()
        try:
            queue.task_done()
        except ValueError:
            return
        self._end(begun)

    def shut(self, process: int) -> None:
        queue = self.queue(process)
        begun = self._begin()
        queue.shutdown()
        self._end(begun)
        self.recorder.say("shut")

    def leave(self, process: int) -> None:
        queue = self.queue(process)
        del self.queues[process]
        begun = self._begin()
        queue._engine.close()
        self._end(begun)

    def meanwhile(self, seam: str, act: Callable[[], Any]) -> None:
        """That is done while the next ``fsync`` there is under way."""
        self.recorder.inside[seam] = act


class Keep:
    """Keeps the newest of each thing, or the oldest; but of one, in the order in which it asks for them, the other."""

    def __init__(self, newest: bool, one: int) -> None:
        self.newest = newest
        self.one = one
        self.kinds: list[str] = []
        """What it was asked for."""

    def __call__(self, kind: str, versions: int) -> int:
        newest = self.newest != (len(self.kinds) == self.one)
        self.kinds.append(kind)
        return versions - 1 if newest else 0


class Known:
    """What is known when the power goes, for the last time."""

    def __init__(self, disks: Sequence[Disk]) -> None:
        self.tried: list[Item] = []
        """What puts have begun to put."""
        self.put: list[Item] = []
        """What they had put when they returned."""
        self.got: list[Item] = []
        self.surely: set[Item] = set()
        """Those of them that had been got when a put began that has returned."""
        self.in_hand = 0
        """How many items gets may have taken that have not returned."""
        self.shut = False
        for disk in disks:
            self._go_on(disk.said)

    def _go_on(self, said: list[tuple[int, Said]]) -> None:
        before = len(self.got)
        got_then = {}
        in_hand = {}
        for at, (what, value) in said:
            if what == "begins":
                got_then[at + 1] = len(self.got)
            elif what == "hardens":
                self.surely.update(self.got[before : got_then[value]])
            elif what == "puts":
                self.tried += value
            elif what == "has put":
                self.put += value
            elif what == "gets":
                in_hand[value[0]] = value[1]
            elif what == "has got":
                in_hand[value[0]] = 0
                self.got += value[1]
            elif what == "shut":
                self.shut = True
        self.in_hand += sum(in_hand.values())


def check(*disks: Disk) -> None:
    """On the last of these disks, each left by a power cut, the queue is as it is promised."""
    known = Known(disks)
    root = tempfile.mkdtemp(dir=os.environ["TQSHIM_DIR"], prefix="disk-")
    queue: Any = None
    try:
        disks[-1].write_to(Path(root))
        queue = TurboQueue(path=os.path.join(root, "deep", "queue"), durable=True if known.put else None)
        found: list[Item] = []
        while len(found) <= len(known.tried):
            try:
                found.append(queue.get_nowait())
            except (Empty, ShutDown):
                break
        check_items(known, found)
        assert queue.is_shutdown or not known.shut
        if not queue.is_shutdown:
            queue.put("probe")
            assert queue.get_nowait() == "probe"
    finally:
        if queue is not None:
            queue.close()
        shutil.rmtree(root)


def check_items(known: Known, found: list[Item]) -> None:
    assert set(found) <= set(known.tried), "nothing comes that was not put"
    assert len(set(found)) == len(found), "nothing comes twice"
    assert not set(found) & known.surely, "nothing comes back that was got before a later put returned"
    missing = [item for item in known.put if item not in known.got and item not in found]
    assert len(missing) <= known.in_hand, "what was put is there, or was got"
    for process in {item[0] for item in found}:
        numbers = [item[1] for item in found if item[0] == process]
        assert numbers == sorted(numbers), "each producer's items come in their order"
    back = set(known.got) & set(found)
    # Items that nobody had got are behind them, or were put earlier and held: their block has ended, and not well.
    put = {item: number for number, item in enumerate(known.tried)}
    for at, item in enumerate(found):
        earlier = [one for one in found[:at] if one not in back and put[one] > put[item]]
        assert item not in back or not earlier, "what comes back comes first"


# -- programs


def ordinary(program: Program) -> None:
    for _ in range(3):
        program.put(1)
    program.get(2)
    program.put(1, count=5)
    program.claim(2)
    program.claim(2, well=False)
    program.get(2)
    program.put(3)


def reclaiming(program: Program) -> None:
    """Batch files go, and large ones come back under new names."""
    for _ in range(3):
        program.put(1, LARGE)
        program.put(1, SMALL)
        program.get(2)
        program.get(2)
    program.put(1, GIANT)
    program.put(1, LARGE)
    program.get(2, 3)


def rolling(program: Program) -> None:
    """Two take turns through several journals."""
    for turn in range(10):
        program.put(turn % 2 + 1)
        program.get(2 - turn % 2)
        program.put(1, count=3)
    program.get(2, 8)


def full(program: Program) -> None:
    for turn in range(6):
        program.put(turn % 2 + 1, count=turn % 3 + 1)
        program.get(3, turn % 3 + 1)
    program.get(1)


def until_roll(program: Program, act: Callable[[], None]) -> None:
    """One process puts until it has rolled; then, while it makes the new name sure, another does something."""
    program.meanwhile("finish_roll: names", act)
    while program.recorder.inside:
        program.put(1)


def rolling_beside_a_put(program: Program) -> None:
    program.put(2)
    until_roll(program, lambda: program.put(2))


def rolling_beside_a_newcomer(program: Program) -> None:
    """Who comes finds the new name, and makes sure of something without a batch file of its own."""

    def come() -> None:
        program.get(3)
        program.done(3)

    program.put(2)
    until_roll(program, come)


def killed_while_rolling(program: Program) -> None:
    """The next journal is decided, and has no name yet, when the next process comes."""
    program.put(1, count=3)
    replica = program.queue(1)._engine.parts.replica
    ledger = replica.ledger
    while ledger.position.index < ledger.position.limit:
        replica.append(events.revoke(0, 0))
    key = replica.folder.prepare_roll(1, partial(snapshot.dump, ledger, True), ledger.next_limit)
    replica.journal.append(events.seal(int(key, 16)))
    program.put(2)
    program.get(1)


def making_beside_a_newcomer(program: Program) -> None:
    """The process that makes the folders has not come to make sure of them when another has put already."""
    program.meanwhile("open_surely: names", lambda: program.put(2))
    program.put(1)


def making_beside_another(program: Program) -> None:
    """Of two who make the queue the second has done so, and used it, when the first comes to it."""

    def make() -> None:
        program.put(2)
        program.claim(2)

    program.meanwhile("prepare_roll: bytes", make)
    program.put(1)


def draining(program: Program) -> None:
    """So much waits for one alone that it would take a lease of a queue that is not durable."""
    program.put(1, count=12)
    for _ in range(5):
        program.get(2)
    program.put(1)
    program.get(2)


def finishing(program: Program) -> None:
    program.put(1, count=3)
    program.get(2)
    program.done(2)
    program.get(3)
    program.leave(3)
    program.get(2)
    program.shut(2)


PROGRAMS: dict[str, Callable[[Program], None]] = {
    program.__name__: program
    for program in (
        ordinary,
        reclaiming,
        rolling,
        full,
        rolling_beside_a_put,
        rolling_beside_a_newcomer,
        killed_while_rolling,
        making_beside_a_newcomer,
        making_beside_another,
        draining,
        finishing,
    )
}


def recorded(name: str, without: str = "") -> Recorder:
    program = Program(maxsize=5 if name == "full" else 0)
    program.recorder.without = without
    with program.recorded():
        PROGRAMS[name](program)
    return program.recorder


SHARE = 0.15
"""Of the disks on which one piece of a file is there, or all but one, so many are looked at in each run."""


def disks(recorder: Recorder, choose: Optional[random.Random] = None) -> Iterator[Disk]:
    """After each step: all is there that need not be, or nothing of that, or all but one thing, or one thing only.

    Where ``choose`` is given, that one thing is a name, or one of some others."""
    seen = set()
    for cut in range(len(recorder.steps) + 1):
        for policy in ("all", "none"):
            kinds: list[str] = []
            one = -1
            while one < len(kinds):
                if one >= 0 and choose is not None and kinds[one] != "name" and choose.random() > SHARE:
                    one += 1
                    continue
                keep = Keep(policy == "all", one)
                disk = Disk(recorder, cut, keep)
                kinds = keep.kinds
                one += 1
                key = hash((disk.likeness(), len(disk.said)))
                if key not in seen:
                    seen.add(key)
                    yield disk


@pytest.mark.in_turn
@pytest.mark.parametrize("name", sampling.sampled("programs", list(PROGRAMS), 2, rest=False))
def test_a_power_cut_after_any_step_takes_nothing_that_a_put_has_put(name: str) -> None:
    for disk in disks(recorded(name), sampling.chooser(name)):
        check(disk)


@pytest.mark.stress
@pytest.mark.parametrize("name", PROGRAMS)
def test_no_power_cut_after_any_step_takes_what_a_put_has_put(name: str) -> None:
    for disk in disks(recorded(name)):
        check(disk)


SEAMS = {
    "grow_cells: bytes": "ordinary",
    "prepare_roll: bytes": "rolling",
    "prepare_roll: names": "rolling",
    "harden_path: names": "making_beside_a_newcomer",
    "open_surely: names": "rolling_beside_a_newcomer",
    "finish_roll: names": "rolling",
    "has_rolled: names": "rolling_beside_a_put",
    "harden_records: bytes": "ordinary",
    "harden_records: names": "ordinary",
    "_put_all: bytes": "ordinary",
    "lets_remove: bytes": "reclaiming",
    "task_done: bytes": "finishing",
    "_leave: bytes": "finishing",
    "shutdown: bytes": "finishing",
}
"""Every place that hardens something, and the program that can't do without."""


def test_all_seams_are_known() -> None:
    assert set().union(*(recorded(name).seams for name in PROGRAMS)) == set(SEAMS)


@pytest.mark.in_turn
@pytest.mark.parametrize("seam", sampling.sampled("seams", list(SEAMS), 2))
def test_without_any_seam_something_is_lost(seam: str) -> None:
    """The mutants: an fsync is left out, and some power cut is found that breaks the promise."""
    recorder = recorded(SEAMS[seam], without=seam)
    assert seam in recorder.seams
    with pytest.raises((AssertionError, OSError, ValueError)):
        for disk in disks(recorder):
            check(disk)


# -- without a power cut


def synced(monkeypatch: pytest.MonkeyPatch, instead: Callable[[int], None]) -> None:
    """That is done in the place of each ``fsync`` of a queue."""
    monkeypatch.setattr(hardening, "harden", instead)


def kinds(*queues: Any) -> list[bool]:
    return [queue._engine.durable for queue in queues]


def test_durable_is_a_property_of_the_queue(tmp_path: Path) -> None:
    """Every handle keeps to it, however it has come; one that says otherwise is refused."""
    path, plain = str(tmp_path / "durable"), str(tmp_path / "plain")
    first = TurboQueue(5, path=path, durable=True)
    copied = pickle.loads(pickle.dumps(first))
    assert kinds(first, TurboQueue(path=path), TurboQueue(path=path, durable=True), copied) == [True] * 4
    with pytest.raises(ValueError, match="made with durable=True"):
        TurboQueue(path=path, durable=False)
    assert kinds(TurboQueue(path=plain), TurboQueue(path=plain, durable=False)) == [False] * 2
    with pytest.raises(ValueError, match="made with durable=False"):
        JoinableTurboQueue(path=plain, durable=True)
    assert (monitor.status(path).durable, monitor.status(plain).durable) == (True, False)
    first.put("item")
    first.close()
    copied.close()
    gc.collect()
    again = JoinableTurboQueue(path=path)
    assert kinds(again) == [True]
    assert (again.get(), again._maxsize) == ("item", 5)


def test_a_queue_without_a_path_is_not_durable() -> None:
    with pytest.raises(ValueError, match="needs a path"):
        TurboQueue(durable=True)
    assert kinds(TurboQueue(durable=False)) == [False]


def test_a_queue_that_is_not_durable_never_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced(monkeypatch, lambda fd: pytest.fail("an fsync"))
    with TurboQueue(path=str(tmp_path / "queue")) as queue:
        for number in range(100):
            queue.put(number)
        assert queue.get_many() == [*range(100)]


def published(path: Path) -> list[int]:
    """What the PUBLISHes say in the first journal of a queue."""
    data = (path / "journal_0").read_bytes()
    words = memoryview(data[snapshot.size_of(data) :]).cast("Q")
    return [word >> 24 for word in words if word & 0xFF == events.PUBLISH]


class Rounds:
    """``fsync``s of a queue into which threads put: the first waits until so many wait behind it; from then on what
    ``instead`` does with the number of each is done in its place."""

    def __init__(self, queue: Any, instead: Callable[[int], object] = lambda count: None) -> None:
        self.crowd = queue._engine.parts.crowd
        self.waits, self.on = threading.Event(), threading.Event()
        self.count = 0
        self.instead = instead

    def fsync(self, fd: int) -> None:
        self.count += 1
        if self.count == 1:
            self.waits.set()
            assert self.on.wait(30)
        self.instead(self.count)

    def run(self, puts: Sequence[Callable[[], object]]) -> None:
        """The first of these puts, and the others behind it."""
        threads = [threading.Thread(target=put) for put in puts]
        with pytest.MonkeyPatch.context() as patched:
            synced(patched, self.fsync)
            threads[0].start()
            assert self.waits.wait(30)
            for count, thread in enumerate(threads[1:], 2):
                thread.start()
                while len(self.crowd.waiting) < count:
                    time.sleep(0.001)
            self.on.set()
            for thread in threads:
                thread.join(30)


def test_threads_that_put_at_once_share_what_they_wait_for(tmp_path: Path) -> None:
    """While one waits for the disk, seven others come: they are put as one, with no more fsyncs than for one."""
    queue: Any = TurboQueue(path=str(tmp_path / "queue"), durable=True)
    queue.put("first")
    rounds = Rounds(queue)
    rounds.run([partial(queue.put, number) for number in range(8)])
    assert rounds.count == 4  # of the batch file and of the journal, for the first and for all others
    assert published(tmp_path / "queue") == [1, 2, 9]
    assert queue.get_many() == ["first", *range(8)]


@pytest.mark.parametrize("fails_at", [3, 4])
def test_what_an_interrupted_thread_has_put_for_others_is_put_once(fails_at: int, tmp_path: Path) -> None:
    """It is interrupted before its PUBLISH, or after it: another goes on, and what the first has put it leaves."""
    queue: Any = TurboQueue(path=str(tmp_path / "queue"), durable=True)
    queue.put("first")
    interrupted = []

    def fail(count: int) -> None:
        if count == fails_at:
            raise KeyboardInterrupt

    def put(number: int) -> None:
        try:
            queue.put(number)
        except KeyboardInterrupt:
            interrupted.append(number)

    rounds = Rounds(queue, fail)
    rounds.run([partial(put, number) for number in range(8)])
    assert rounds.count == 5  # the first's two, the interrupted one, and what it takes to make sure of the others
    assert len(interrupted) == 1 and interrupted != [0]
    wanted = [number for number in range(8) if fails_at == 4 or number not in interrupted]
    assert queue.get_many() == ["first", *wanted]


def test_threads_that_put_at_once_share_the_places_of_a_bounded_queue(tmp_path: Path) -> None:
    """All of what each puts, or nothing of it; what finds no place keeps no smaller one out."""
    queue: Any = TurboQueue(6, path=str(tmp_path / "queue"), durable=True)
    queue.put("first")
    full = []

    def put(number: int, count: int) -> None:
        try:
            queue.put_many_nowait([number] * count)
        except Full:
            full.append(number)

    Rounds(queue).run([partial(put, number, count) for number, count in enumerate([1, 2, 3, 1, 2])])
    assert sorted(full) == [2, 4]
    assert queue.get_many() == ["first", 0, 1, 1, 3]


def test_what_found_no_place_is_not_told_as_put_when_the_one_that_tells_is_interrupted(tmp_path: Path) -> None:
    """Though another thread's put, behind it, has brought the log to where it would have."""
    queue: Any = TurboQueue(6, path=str(tmp_path / "queue"), durable=True)
    queue.put("first")
    not_put = []
    made_room: list[int] = []

    def fail(count: int) -> None:
        if count == 4 and not made_room:  # of what the third behind the first puts: there was no place for the second
            made_room.append(0)
            assert queue.get() == "first"
            made_room[0] = rounds.count
        elif made_room and count == made_room[0] + 2:  # of the journal, when all that had come are put
            raise KeyboardInterrupt

    def put(number: int, count: int) -> None:
        try:
            queue.put_many_nowait([number] * count)
        except (Full, KeyboardInterrupt):
            not_put.append(number)

    rounds = Rounds(queue, fail)
    rounds.run([partial(put, number, count) for number, count in enumerate([1, 2, 3, 2, 1])])
    assert made_room[0] + 2 <= rounds.count
    assert 2 in not_put and len(not_put) <= 2
    assert queue.get_many() == [0, 1, 1, 3, 3, 4]


def test_a_put_that_interrupts_one_that_leads_goes_its_own_way(tmp_path: Path) -> None:
    """As a signal handler's: while the lock is held, and before."""
    queue: Any = TurboQueue(path=str(tmp_path / "queue"), durable=True)
    crowd = type(queue._engine.parts.crowd)
    lead = crowd._lead
    inner = ["before", "within"]

    def interrupted(self: Any, *arguments: Any) -> None:
        if inner == ["before", "within"]:
            queue.put(inner.pop(0))
        lead(self, *arguments)

    def fsync(fd: int) -> None:
        if inner == ["within"] and queue._engine.lock._is_owned():
            queue.put(inner.pop())

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(crowd, "_lead", interrupted)
        synced(patched, fsync)
        queue.put("outer")
    assert inner == []
    assert queue.get_many() == ["before", "within", "outer"]


def test_a_child_that_is_forked_while_a_thread_leads_puts_by_itself(tmp_path: Path) -> None:
    queue: Any = TurboQueue(path=str(tmp_path / "queue"), durable=True)
    queue.put("first")
    parent = os.getpid()
    statuses = []

    def fork(count: int) -> None:
        if count == 1 and os.getpid() == parent:
            child = os.fork()
            if not child:
                with contextlib.suppress(BaseException):
                    queue.put("of a child")
                    queue._engine.close()
                    os._exit(0)
                os._exit(1)
            statuses.append(os.waitpid(child, 0)[1])

    rounds = Rounds(queue, fork)
    rounds.on.set()
    rounds.run([partial(queue.put, "of the parent")])
    assert statuses == [0]
    assert queue.get_many() == ["first", "of a child", "of the parent"]


def test_a_child_that_is_forked_above_the_thread_that_leads_does_not_put_what_is_its_parents(tmp_path: Path) -> None:
    """In a signal handler: the child goes on in the very frame that was interrupted."""
    queue: Any = TurboQueue(path=str(tmp_path / "queue"), durable=True)
    queue.put("first")
    parent = os.getpid()
    children = []

    def fsync(fd: int) -> None:
        if not children:
            children.append(os.fork())

    try:
        with pytest.MonkeyPatch.context() as patched:
            synced(patched, fsync)
            queue.put("of the parent")
        if os.getpid() != parent:
            queue.put("of a child")
            queue._engine.close()
            os._exit(0)
    finally:
        if os.getpid() != parent:
            os._exit(1)
    assert os.waitpid(children[0], 0)[1] == 0
    got = queue.get_many()
    assert got[0] == "first" and sorted(got[1:]) == ["of a child", "of the parent"]


def test_threads_learn_that_the_queue_was_shut_down(tmp_path: Path) -> None:
    """Their items were not put, and are not kept for later."""
    path = str(tmp_path / "queue")
    queue: Any = TurboQueue(path=path, durable=True)
    other = Engine(LogFolder.meet(path))
    other.shutdown(False)
    raised = []

    def put(number: int) -> None:
        with pytest.raises(ShutDown):
            queue.put_many([number] * 3)
        raised.append(number)

    threads = [threading.Thread(target=put, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(raised) == [*range(4)]
    assert queue._engine.parts.crowd.waiting == []
    with pytest.raises(ShutDown):
        queue.get()


@pytest.mark.parametrize("maxsize", [0, 5])
def test_a_block_that_does_not_reach_the_disk_is_not_put(
    maxsize: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue: Any = TurboQueue(maxsize, path=str(tmp_path / "queue"), durable=True)
    queue.put(1)
    for number in (errno.EIO, errno.ENOSPC):
        with monkeypatch.context() as patched:

            def fail(fd: int, number: int = number) -> None:
                raise OSError(number, os.strerror(number))

            synced(patched, fail)
            with pytest.raises(OSError, match=os.strerror(number)):
                queue.put(2)
    queue.put(3)
    assert queue.get_many() == [1, 3]


@pytest.mark.parametrize("maxsize", [0, 5])
@pytest.mark.parametrize("broken", ["journal", "names"])
def test_a_journal_or_a_name_that_does_not_reach_the_disk_ends_all_puts(
    broken: str, maxsize: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second fsync might say that all is well.  What is there can still be got."""
    queue: Any = TurboQueue(maxsize, path=str(tmp_path / "queue"), durable=True)
    queue.put(1)
    engine = queue._engine
    with monkeypatch.context() as patched:

        def fail(fd: int) -> None:
            if fd == (engine.parts.replica.journal.fd if broken == "journal" else engine.folder.fd):
                raise OSError(errno.EIO, "broken")

        synced(patched, fail)
        with pytest.raises(FolderError, match="does not reach the disk"):
            queue.put(bytes(LARGE))  # to a new batch file
    for _ in range(2):
        with pytest.raises(FolderError, match="does not reach the disk"):
            queue.put(3)
    assert queue.get() == 1
    assert queue.qsize() == (broken == "journal")
    queue.close()


def put_one(queue: Any, item: Any) -> None:
    assert queue._engine.durable
    queue.put(item)


@pytest.mark.in_turn
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_handles_in_other_processes_are_durable(method: str, tmp_path: Path) -> None:
    queue: Any = TurboQueue(path=str(tmp_path / "queue"), durable=True)
    queue.put(0)
    context = multiprocessing.get_context(method)
    children = [context.Process(target=put_one, args=(queue, number)) for number in (1, 2)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    assert queue.get() == 0
    assert {queue.get(), queue.get()} == {1, 2}


def test_a_folder_above_that_nobody_here_can_write_to_needs_no_fsync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can't be opened then; one in which this user may have made the next can't be passed over."""
    (tmp_path / "above").mkdir()
    real = os.open

    def refuse(path: Any, *others: Any, **keywords: Any) -> int:
        if path == str(tmp_path / "above"):
            raise PermissionError(errno.EACCES, "not for you", path)
        return real(path, *others, **keywords)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionError):
        TurboQueue(path=str(tmp_path / "above" / "queue"), durable=True)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with TurboQueue(path=str(tmp_path / "above" / "queue"), durable=True) as queue:
        queue.put(1)
        assert queue.get() == 1


def test_check_takes_the_hole_that_a_power_cut_leaves_for_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "queue"
    with TurboQueue(path=str(path), durable=True) as queue:
        queue.put(1)
    gc.collect()
    with open(path / "journal_0", "ab") as journal:
        journal.write(bytes(8) + events.revoke(0, 0))
    (finding,) = [found for found in monitor.check(str(path)) if "hole" in found.finding]
    assert (finding.level, finding.status) == ("note", 0)
    with TurboQueue(path=str(path)) as queue:
        assert queue.get() == 1
    gc.collect()
    assert not [found for found in monitor.check(str(path)) if "hole" in found.finding]


def with_a_hole(path: Path) -> None:
    """A durable queue of one item, whose journal ends in a hole and an event behind it."""
    with TurboQueue(path=str(path), durable=True) as queue:
        queue.put("before")
    gc.collect()
    with open(path / "journal_0", "ab") as journal:
        journal.write(bytes(8) + events.revoke(0, 0))


NEVER = 1e9
"""Seconds of patience that no test waits for."""


def test_who_is_alone_knows_a_hole_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_a_hole(tmp_path / "queue")
    monkeypatch.setattr(tqshim.engine.tuning, "UNSEEN_PATIENCE", NEVER)
    with TurboQueue(path=str(tmp_path / "queue")) as queue:
        queue.put("after")
        assert queue.get_many() == ["before", "after"]
        # Its hold is one of many again: another can come in.
        pid = os.fork()
        if not pid:
            Use._all.clear()
            with TurboQueue(path=str(tmp_path / "queue")) as other:
                other.put("another's")
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert queue.get(timeout=60) == "another's"


@pytest.mark.in_turn
def test_of_many_who_open_a_queue_with_a_hole_none_waits_for_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a power cut, when all of a program's processes start at once."""
    path = tmp_path / "queue"
    monkeypatch.setattr(tqshim.engine.tuning, "UNSEEN_PATIENCE", NEVER)
    for _ in range(5):
        shutil.rmtree(path, ignore_errors=True)
        with_a_hole(path)
        fork = multiprocessing.get_context("fork")
        start = fork.Barrier(6)

        def put(number: int, start: Any = start) -> None:
            start.wait()
            with TurboQueue(path=str(path)) as queue:
                queue.put(number)

        children = [fork.Process(target=put, args=(number,)) for number in range(6)]
        for child in children:
            child.start()
        for child in children:
            child.join(60)
            assert child.exitcode == 0
        with TurboQueue(path=str(path)) as queue:
            got = queue.get_many()
            assert got[0] == "before"
            assert sorted(got[1:]) == list(range(6))
            assert queue.empty()
        del queue
        gc.collect()


def test_what_another_is_just_writing_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no hole while somebody else holds the folder; here a thread that stands for another process."""
    path = tmp_path / "queue"
    with_a_hole(path)
    monkeypatch.setattr(tqshim.engine.tuning, "UNSEEN_PATIENCE", NEVER)
    hold = os.open(path, os.O_RDONLY)
    fcntl.flock(hold, fcntl.LOCK_SH)
    size = (path / "journal_0").stat().st_size
    looks = []
    real = hardening.hold_alone

    def look(folder: LogFolder) -> bool:
        looks.append(real(folder))
        if len(looks) == 3:
            fd = os.open(path / "journal_0", os.O_WRONLY)
            os.pwrite(fd, events.revoke(0, 0), size - 16)
            os.close(fd)
        return looks[-1]

    monkeypatch.setattr(hardening, "hold_alone", look)
    with TurboQueue(path=str(path)) as queue:
        os.close(hold)
        assert looks == [False] * 3
        assert queue._engine.parts.replica.journal.number == 0
        assert queue.get() == "before"


def test_a_hold_that_others_share_says_nothing_about_being_alone(tmp_path: Path) -> None:
    path = tmp_path / "queue"
    with TurboQueue(path=str(path), durable=True) as queue:
        theirs = LogFolder.meet(str(path), os.dup(queue._engine.folder.fd))
        assert not hardening.hold_alone(theirs)
        hardening.hold_again(theirs)
        theirs.close()
        child = os.fork()
        if not child:
            queue.qsize()
            os._exit(hardening.hold_alone(queue._engine.folder))
        assert os.waitpid(child, 0)[1] == 0


def test_a_copy_of_a_durable_queue_is_durable(tmp_path: Path) -> None:
    with TurboQueue(path=str(tmp_path / "queue"), durable=True) as queue:
        queue.put(1)
    gc.collect()
    monitor.recover(str(tmp_path / "queue"), str(tmp_path / "copy"))
    assert monitor.status(str(tmp_path / "copy")).durable


def test_a_counter_that_outlives_what_the_journal_says_cuts_nothing(tmp_path: Path) -> None:
    """A power cut may keep the one, and not the other."""
    path = str(tmp_path / "queue")
    with TurboQueue(6, path=path, durable=True) as queue:
        other = newcomer(path)
        queue.put(1)
        parts: Any = queue._engine.parts
        parts.members.cells.words[words_of.COUNTER + parts.producer.slot] += 3
        queue.close()
        assert other.get_nowait() == 1
        with pytest.raises(Empty):
            other.get_nowait()
        other.put_many(range(6))
        other._use.engine.close()


# -- any program, any power cut


def acts(process: st.SearchStrategy[int]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.one_of(
        st.tuples(st.just("put"), process, st.sampled_from([SMALL, SMALL, SMALL, LARGE, GIANT])),
        st.tuples(st.just("put"), process, st.just(SMALL), st.integers(2, 6)),
        st.tuples(st.just("get"), process, st.integers(1, 4)),
        st.tuples(st.just("claim"), process, st.booleans()),
        st.tuples(st.just("done"), process),
        st.tuples(st.just("leave"), process),
    )


MEANWHILE = st.tuples(st.just("meanwhile"), st.sampled_from(sorted(SEAMS)), acts(st.just(3)))
ACTS = st.one_of(*[acts(st.integers(1, 2))] * 3, MEANWHILE)


def run(program: Program, acts: list[tuple[Any, ...]]) -> None:
    """Some of the acts are done by another process while an ``fsync`` of a later one is under way."""
    with program.recorded():
        for act, *arguments in acts:
            if act == "meanwhile":
                seam, (inner, *others) = arguments
                program.meanwhile(seam, partial(getattr(program, inner), *others))
            else:
                getattr(program, act)(*arguments)
        program.recorder.inside.clear()


@pytest.mark.in_turn
@settings(max_examples=sampling.examples(100), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_no_power_cut_takes_what_a_put_has_put(data: st.DataObject) -> None:
    """Nor does a second one, after others have gone on from what the first has left."""
    disks: list[Disk] = []
    program: Optional[Program] = None
    maxsize = data.draw(st.sampled_from([0, 0, 6]), label="maxsize")
    for _ in range(data.draw(st.integers(1, 2), label="power cuts")):
        program = Program(maxsize, disks[-1] if disks else None, program)
        run(program, data.draw(st.lists(ACTS, min_size=1, max_size=15), label="acts"))
        cut = data.draw(st.integers(program.recorder.begun, len(program.recorder.steps)), label="cut")
        disks.append(Disk(program.recorder, cut, lambda kind, versions: data.draw(st.integers(0, versions - 1), kind)))
    check(*disks)
