"""Mixed work of three processes, each act of which may be interrupted at any instant; descriptors that tqshim
neither uses nor closes once their numbers may be those of another file.

The program is ``programs.mixed``: its docstring says what is checked.
"""

from __future__ import annotations

import contextlib
import dis
import itertools
import json
import linecache
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from multiprocessing import reduction
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Callable, Optional

import pytest
from interrupting import BLOCKS, PACKAGE, Interrupted, interrupt_at, word_of
from sampling import sampled
from signalling import signalled_before

import tqshim.engine.tuning
from tqshim import Empty, Full, JoinableTurboQueue, TurboQueue
from tqshim.engine.consumer import Consumer
from tqshim.engine.engine import Engine
from tqshim.engine.hand import Hand
from tqshim.engine.producer import Producer
from tqshim.protocol import events
from tqshim.runtime import locks
from tqshim.storage.folder import LogFolder
from tqshim.storage.journal import Journal
from tqshim.storage.member_locks import Members
from tqshim.sync import cells as words_of
from tqshim.sync import membarrier
from tqshim.sync.bell import Bell
from tqshim.sync.cells import Cells

LIMIT = 200
WRONG = ("missing", "doubled", "strange", "parts", "late", "errors", "corrupt")
CALLS = "calls" if sys.version_info >= (3, 11) else "lines"
"""Where just after a call one can raise as the interpreter does, is known from 3.11 on."""

raised = pytest.mark.skipif(
    sys.version_info < (3, 10),
    reason="3.9 may run a handler between the end of a with block and the release of its lock, which stays taken then",
)


def mixed(acts: int, maxsize: int, seed: int, how: str, *words: str, limit: float = LIMIT) -> dict[str, Any]:
    """Run the program; what it found, which must be nothing wrong."""
    command = [sys.executable, "-X", "faulthandler", "-m", "programs.mixed", str(acts), str(maxsize), str(seed), how]
    child = subprocess.Popen(
        [*command, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        out, err = child.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGABRT)  # faulthandler writes where each of its processes hangs
        _, err = child.communicate()
        pytest.fail(f"hangs: {err[-6000:]}")
    assert child.returncode == 0, err[-3000:]
    assert "Traceback" not in err and "Exception ignored" not in err, err[-3000:]
    report: dict[str, Any] = json.loads(out.splitlines()[-1])
    assert not any(report[what] for what in WRONG), json.dumps(report)  # whole: a report of pytest's is cut short
    assert report["codes"] == [0, 0, 0], report
    # Most acts are over before a timer of milliseconds.
    assert sum(report["hits"].values()) > acts / (10 if how == "timer" else 4), report
    assert all(report["hits"].get(way, 0) > acts / 100 for way in how.split(",")), report
    assert report["arrived"] > acts / 4, report
    return report


@pytest.mark.in_turn
@raised
@pytest.mark.parametrize(
    ("maxsize", "how", "words"),
    sampled(
        "acts",
        [
            (0, "lines", "joinable"),
            (20, f"lines,{CALLS}", "claims rolls"),
            (2000, "timer,lines", "claims joinable rolls"),
            (0, "timer,use", "nested"),
            (500, f"use,{CALLS}", "rolls nested"),
            (3, f"use,lines,{CALLS},timer", "claims joinable"),
        ],
        3,
    ),
)
def test_interrupted_acts_lose_double_and_damage_nothing(maxsize: int, how: str, words: str) -> None:
    report = mixed(300, maxsize, 1, how, *words.split())
    assert report["processes"] > 4, "children have put and got, too"


@pytest.mark.in_turn
@raised
@pytest.mark.parametrize("words", ["durable", "authkey"])
def test_interrupted_acts_do_no_harm_to_queues_of_other_kinds(words: str) -> None:
    mixed(100, 0, 2, f"lines,{CALLS},timer,use", "claims", words)


@raised
@pytest.mark.stress
@pytest.mark.parametrize("seed", range(200))
def test_ten_thousand_acts_lose_double_and_damage_nothing(seed: int) -> None:
    how = ["lines", CALLS, "timer", "use", f"use,lines,{CALLS},timer"][seed % 5]
    words = [word for at, word in enumerate(("claims", "joinable", "rolls", "nested")) if seed >> at & 1]
    mixed(10_000, [0, 20, 0, 2000, 3, 500, 0][seed % 7], seed, how, *words, limit=3 * LIMIT)


# -- what is interrupted


class WithALock:
    """What most acts are."""

    def __init__(self) -> None:
        self.lock = locks.Lock()

    def act(self) -> None:
        with self.lock:
            self.name = repr(self)


@raised
def test_a_lock_is_not_left_taken_by_a_handler_but_by_what_a_tracer_raises() -> None:
    """So where blocks begin and end a walk by lines sends a signal, and raises nothing."""

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code is not WithALock.act.__code__:
            return None
        if event == "line":
            lines.append(frame.f_lineno)
            if len(lines) == line:
                raise Interrupted
        return trace

    left_taken = []
    for line in (1, 2, 3):
        one, lines = WithALock(), list[int]()
        sys.settrace(trace)
        with contextlib.suppress(Interrupted):
            one.act()
        sys.settrace(None)
        if one.lock.locked():
            left_taken.append(line)
    assert left_taken == [3], "where the block ends"

    def handle(*_: object) -> None:
        raise Interrupted

    former, interrupted = signal.signal(signal.SIGUSR1, handle), 0
    try:
        for instruction in itertools.count(1):
            one = WithALock()
            try:
                if not signalled_before(instruction, WithALock.act, signal.SIGUSR1, one.act):
                    break
            except Interrupted:
                interrupted += 1
            assert not one.lock.locked(), f"at instruction {instruction}"
    finally:
        signal.signal(signal.SIGUSR1, former)
    assert interrupted > 5


def first_put(queue: TurboQueue[int]) -> None:
    queue.put(1)


def put_what_cant_be_pickled(queue: TurboQueue[Any]) -> None:
    with contextlib.suppress(AttributeError, pickle.PicklingError):
        queue.put(lambda: None)


def get_and_look(queue: TurboQueue[int]) -> None:
    queue.put(1)
    queue.put(2)
    queue.get()
    queue.qsize()


def get_nothing(queue: TurboQueue[int]) -> None:
    with contextlib.suppress(Empty):
        queue.get(timeout=SHORT)


def fail_in_a_block(queue: TurboQueue[int]) -> None:
    queue.put(1)
    with contextlib.suppress(KeyError), queue.claimed():
        raise KeyError


SHORT = 0.001
SOME = 6
"""Lines of each kind in an act, or up to twice as many."""


@pytest.mark.in_turn
def test_lines_where_blocks_begin_and_end_are_interrupted_too() -> None:
    """A walk by lines comes to lines of each kind, and leaves none out."""
    seen: list[str] = []
    interrupted, tried = Counter[str](), Counter[str]()
    for act in (first_put, put_what_cant_be_pickled, get_and_look, get_nothing, fail_in_a_block):

        def at(line: int, act: Callable[[TurboQueue[int]], None] = act) -> Any:
            seen.clear()
            with TurboQueue[int](3) as queue:
                found = interrupt_at(line, lambda: act(queue), see)[0]
            assert sys.exc_info()[1] is None, "it would stay, with all that its frames refer to"
            return found

        def see(frame: FrameType) -> None:
            seen.append(word_of(frame.f_code.co_filename, frame.f_lineno))

        at(10**9)
        ordinals = {word: [line for line, one in enumerate(seen, 1) if one == word] for word in ("", *BLOCKS)}
        for of_a_kind in ordinals.values():
            for line in of_a_kind[:: max(1, len(of_a_kind) // SOME)]:
                found = at(line)
                tried[seen[-1]] += 1
                interrupted[seen[-1]] += found is Interrupted
    # To no ``pass`` on 3.9, which jumps over it; to a ``continue`` where a folder's bell had to be made.
    assert {"", *BLOCKS} - set(tried) <= {"continue"} | ({"pass"} if sys.version_info < (3, 10) else set())
    # Some handlers run where the package's code has been left.
    assert all(interrupted[word] > of_them / 3 for word, of_them in tried.items()), (interrupted, tried)


def test_no_interpreter_comes_to_a_line_that_says_else_or_finally() -> None:
    """So ``BLOCKS`` has no such word."""
    said, reached = Counter[str](), Counter[str]()
    for path in Path(PACKAGE).rglob("*.py"):
        codes = [compile(path.read_text(), str(path), "exec")]
        for code in codes:
            codes += [one for one in code.co_consts if isinstance(one, CodeType)]
        lines = {line for code in codes for _, line in dis.findlinestarts(code)}
        for line, text in enumerate(path.read_text().splitlines(), 1):
            word = text.split("#")[0].strip()
            said[word] += 1
            reached[word] += line in lines
    for word in ("else:", "finally:"):
        assert said[word] > 20 and not reached[word]
    assert reached["pass"] == said["pass"] > 20


# -- descriptors: forgotten first, then closed


class Interrupt(BaseException):
    pass


class Own:
    """Files of the program's own, which take all numbers that are free."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "own"
        self.path.write_bytes(b"")
        self.files: list[tuple[int, int]] = []

    def take(self, count: int = 12) -> None:
        for _ in range(count):
            fd = os.open(self.path, os.O_RDWR)
            self.files.append((fd, os.fstat(fd).st_ino))

    def check(self) -> None:
        """They are still open, and the program's own, and nobody has written to them."""
        while self.files:
            fd, inode = self.files.pop()
            assert os.fstat(fd).st_ino == inode
            os.close(fd)
        assert not self.path.stat().st_size


@pytest.mark.in_turn
@pytest.mark.parametrize("stride", [43, pytest.param(1, marks=pytest.mark.stress)])
def test_no_descriptor_is_used_when_its_number_may_be_another_files(stride: int, tmp_path: Path) -> None:
    """A forked child's first put is interrupted at each of its lines, while it closes what its parent had open; then
    the program opens files of its own, puts and gets go on, and the child leaves."""
    queue: Any = TurboQueue(batch_size=100)
    large = b"x" * 100_000
    queue.put_many([0, 1, large, 2])
    assert queue.get() == 0
    with pytest.raises(Empty):
        TurboQueue().get(timeout=0.01)
    step = lines = 0
    while not lines:
        step += 1 if step < 100 else stride
        child = os.fork()
        if not child:
            try:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(60)
                own = Own(tmp_path)

                def go_on(own: Own = own) -> None:
                    own.take()
                    for _ in range(2):
                        queue.put(large)
                        queue.put(1)
                        assert queue.get() in (1, 2, 3, large)
                        queue.qsize()
                    own.check()

                count = one_interruption(lambda: queue.put(3), step, go_on)
                queue._engine.close()
                own.take()
                queue._engine.close()
                own.check()
                os._exit(77 if count else 0)
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(1)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, 77), f"interrupted at line {step}"
        lines = step if status == 77 else 0
        while queue.qsize() > 20:
            queue.get()
    assert lines > 60


def one_interruption(call: Callable[[], object], step: int, go_on: Callable[[], None]) -> bool:
    """Interrupt the call at that line.  ``True``: it has fewer."""
    _, came = interrupt_at(step, call)
    go_on()
    return not came


@pytest.mark.parametrize("what", ["journal", "bell", "folder", "delete", "engine"])
def test_what_is_closed_is_forgotten_first(what: str, tmp_path: Path) -> None:
    """A close that is interrupted just behind ``os.close`` and made again closes nobody else's file."""
    queue: Any = TurboQueue(path=None if what == "delete" else str(tmp_path / "queue"))
    queue.put(1)
    folder: Any = LogFolder.meet(queue._engine.folder.path)
    journal, _ = folder.open_newest()
    bell = Bell(folder.open_fifo("bell"))
    engine = Engine(folder) if what == "engine" else None
    if engine is not None:
        assert engine.put(b"N.", True, None)
    act: dict[str, Callable[[], object]] = {
        "journal": journal.close,
        "bell": bell.close,
        "folder": folder.close,
        "delete": folder.delete_unless_used,
        "engine": engine.close if engine is not None else folder.close,
    }
    own = Own(tmp_path)
    real, me = os.close, threading.get_ident()
    closed = []

    def close_and_raise(fd: int) -> None:
        real(fd)
        if threading.get_ident() != me:
            return
        closed.append(fd)
        own.take(1)  # which gets that number
        raise Interrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "close", close_and_raise)
        for _ in range(3):
            with contextlib.suppress(Interrupt):
                act[what]()
    assert closed and len(set(closed)) == len(closed), "nothing was closed twice"
    own.check()
    assert isinstance(journal, Journal) and isinstance(folder, LogFolder)
    assert {queue.get() for _ in range(queue.qsize())} == ({1, None} if what == "engine" else {1})
    if what != "journal":
        journal.close()
    folder.close()


# -- what is ours though the journal has been rolled since


@pytest.mark.in_turn
@pytest.mark.parametrize("before", range(3))
@pytest.mark.parametrize("after", range(3))
@pytest.mark.parametrize("how", ["interrupted", "recovered", "claimed"])
@pytest.mark.parametrize("what", ["ends", "passes", "passes and ends"])
def test_what_an_interrupted_get_had_taken_of_a_lease_is_not_lost(
    before: int, after: int, how: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where another has ended the lease, or given its places away, and the journals that say so are gone."""
    if not tqshim.engine.tuning.LEASES:
        pytest.skip("leases are switched off")
    monkeypatch.setattr(tqshim.engine.tuning, "LIMITS", (16, 64))
    queue: Any = TurboQueue()
    queue.put_many(range(40))
    engine = queue._engine
    got = [queue.get() for _ in range(3)]
    queue.qsize()
    lease = engine.parts.leasing.lease
    assert lease is not None
    # As a get leaves it that is interrupted behind its store.
    cell = Cells.place(words_of.LEASE_POSITION, lease.slot)
    engine.parts.members.cells.words[cell] += 10
    engine.unsure = True
    if how == "recovered":
        queue.qsize()
    other = Engine(LogFolder.meet(engine.folder.path))
    replica = other.parts.replica

    def roll(count: int) -> None:
        first = replica.journal.number
        while replica.journal.number < first + count:
            other.act(lambda: replica.append(events.trim(5, 1, 1)))

    roll(before)
    if what.startswith("passes"):
        assert other.act(lambda: other.parts.make_room()) == (how != "recovered")  # which ends it
    if what.endswith("ends"):
        other.act(lambda: other.parts.consumer.end_any_lease())
    roll(after)
    if how == "claimed":
        with queue.claimed() as item:
            got.append(item)
    while queue.qsize():
        got += queue.get_many()
    assert got == list(range(40))
    other.close()


@pytest.mark.parametrize("late", [0, 1, 2, 5])
@pytest.mark.parametrize("get", [TurboQueue.get, TurboQueue.get_many])
def test_what_an_interrupted_get_had_claimed_in_the_next_journal_is_not_lost(
    late: int, get: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though others had written so many events to the former one that came too late, and count for nothing."""
    monkeypatch.setattr(tqshim.engine.tuning, "LIMITS", (16, 64))
    monkeypatch.setattr(tqshim.engine.tuning, "LEASES", False)
    monkeypatch.setattr(tqshim.engine.tuning, "SOLE", False)
    queue: Any = TurboQueue()
    queue.put_many(range(6))
    got = [queue.get()]
    engine = queue._engine
    replica = engine.parts.replica
    number = replica.journal.number
    while replica.ledger.position.index < replica.ledger.position.limit + late:
        replica.journal.append(events.trim(5, 1, 1))
        engine.act(replica.sync)

    def interrupted(*_: Any) -> int:
        raise Interrupted

    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        for name in ("deliver", "deliver_one"):
            patched.setattr(Hand, name, interrupted)
        get(queue)
    assert replica.journal.number == number + 1
    while queue.qsize():
        got.append(queue.get())
    assert got == list(range(6))


@pytest.mark.parametrize("most", [1, 19])
def test_what_a_get_had_read_before_it_was_interrupted_is_not_lost_with_its_file(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others have taken what follows and deleted the file: nothing has told them that somebody may still read it."""
    if not tqshim.engine.tuning.LEASES:
        pytest.skip("leases are switched off")
    queue: Any = TurboQueue(batch_size=20)
    queue.put_many(range(40))
    engine = queue._engine
    got = [queue.get()]
    deliver = Hand.deliver

    def interrupted(*_: Any) -> int:
        raise Interrupt

    queue.qsize()
    monkeypatch.setattr(Hand, "deliver", interrupted)
    with pytest.raises(Interrupt):
        queue.get_many(True, 5, most)
    monkeypatch.setattr(Hand, "deliver", deliver)
    other = Engine(LogFolder.meet(engine.folder.path))
    theirs: list[Any] = []
    while other.get(theirs, 100, False, None) and other.qsize():
        pass
    assert len(engine.folder.batches()) == 1, "that of the first 20 is gone"
    got += [queue.get() for _ in range(queue.qsize())]
    assert got == list(range(1 + most))
    assert len(theirs) == 39 - most
    other.close()


def deprived() -> tuple[Any, Engine, list[int]]:
    """A queue of 40 items, another engine that has ended the lease there, and the 4 items that were got off it."""
    if not (tqshim.engine.tuning.LEASES and tqshim.engine.tuning.SHORT_WAYS):
        pytest.skip("leases, or their short way, are switched off")
    queue: Any = TurboQueue()
    queue.put_many(range(40))
    got = [queue.get() for _ in range(4)]
    other = Engine(LogFolder.meet(queue._engine.folder.path))
    other.act(lambda: other.parts.consumer.end_any_lease())
    return queue, other, got


@pytest.mark.parametrize("most", [1, 3])
def test_an_item_that_was_not_ours_does_not_become_so_by_an_interruption(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A get takes it of a lease that another has ended, asks whose it is, and is interrupted with the answer."""
    queue, other, got = deprived()
    engine = queue._engine
    theirs: list[Any] = []
    other.get(theirs, most, False, None)
    confirm = type(engine).confirm

    def interrupted(self: Any, *given: Any) -> bool:
        monkeypatch.undo()
        assert not confirm(self, *given)
        raise Interrupt

    monkeypatch.setattr(type(engine), "confirm", interrupted)
    with pytest.raises(Interrupt):
        queue.get()
    got += [queue.get() for _ in range(queue.qsize())]
    assert len(theirs) == most
    assert got == [*range(4), *range(4 + most, 40)]
    other.close()


def test_items_of_which_a_handler_was_told_that_they_are_not_ours_may_become_so_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has taken them by steps of the engine that it has interrupted, whose lease had ended."""
    queue, other, got = deprived()
    engine = queue._engine

    def interrupt(*_: Any) -> Any:
        raise Interrupt

    with engine.lock:  # an act that has just begun
        for _ in range(2):
            with monkeypatch.context() as patch, pytest.raises(Interrupt):
                patch.setattr(Engine, "get", interrupt)  # once it was told
                queue.get()
    got.append(queue.get())
    slot = engine.parts.consumer.slot
    other.act(lambda: other.parts.members.raise_flag(words_of.LEASE_FLAG, slot))
    got += [queue.get(timeout=5) for _ in range(35)]
    assert got == list(range(40))
    other.close()


def test_what_was_delivered_of_a_lease_stays_so_when_its_end_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each act that is interrupted later asks the journal again."""
    queue: Any = TurboQueue()
    queue.put_many(range(40))
    engine = queue._engine
    got = [queue.get() for _ in range(10)]
    leasing = engine.parts.leasing
    forget = type(leasing).forget

    def interrupted(self: Any) -> None:
        monkeypatch.undo()
        sys.settrace(trace)
        forget(self)

    def trace(frame: Any, event: str, _: Any) -> Any:
        if event == "line" and "self.at = 0" in linecache.getline(frame.f_code.co_filename, frame.f_lineno):
            sys.settrace(None)
            raise Interrupt
        return trace

    monkeypatch.setattr(type(leasing), "forget", interrupted)
    former = sys.gettrace()
    with pytest.raises(Interrupt):
        engine.act(lambda: engine.parts.consumer.end_lease())
    sys.settrace(former)
    for _ in range(2):
        queue.qsize()
        engine.unsure = True
    assert queue.qsize() == 30
    got += [queue.get() for _ in range(30)]
    assert got == list(range(40))
    assert queue.empty()


def test_a_file_that_was_opened_by_an_interrupted_put_is_not_written_past(monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal says that the log goes on there, and this process still has the former one."""
    queue: Any = TurboQueue()
    queue.put(0)
    parts = queue._engine.parts
    seal = LogFolder.seal_batch

    def interrupt(*_: Any) -> None:
        raise Interrupt

    former = parts.producer.log
    monkeypatch.setattr(LogFolder, "seal_batch", interrupt)
    with pytest.raises(Interrupt):
        queue.put(b"x" * (former.size // 2 + 100_000))
    monkeypatch.setattr(LogFolder, "seal_batch", seal)
    parts.producer.log = former  # as if it had not come to the store
    queue.qsize()
    for number in range(1, 5):
        queue.put(number)
    assert [queue.get() for _ in range(queue.qsize())] == [0, 1, 2, 3, 4]


def test_an_item_of_the_hand_comes_back_whose_block_was_interrupted_at_its_end() -> None:
    queue: Any = TurboQueue()
    queue.put_many([1, 2])
    engine = queue._engine
    engine.give_back([*_take(engine)])
    claim = queue.claimed()
    assert claim.__enter__() == 1
    assert claim._hold.number is None, "it was in the hand"
    claim._hold = None  # as an interrupted end leaves it
    assert queue.qsize() == 2
    with queue.claimed() as item:
        assert item == 1
    assert queue.get() == 2
    assert queue.empty()


def _take(engine: Any) -> list[Any]:
    got: list[Any] = []
    engine.get(got, 1, False, None)
    return got


# -- engines of interrupted engines


def in_a_handler(queue: Any, use: Callable[[], Any]) -> Any:
    """What a signal handler does that has interrupted an act of this queue."""
    return queue._engine.act(use)


def test_what_a_handler_has_put_comes_before_what_is_put_after_it() -> None:
    queue: Any = TurboQueue()
    with TurboQueue():
        for turn in range(0, 60, 3):
            queue.put(turn)
            in_a_handler(queue, lambda turn=turn: queue._engine.put_many([_dumped(turn + 1)], 0, True, None))
            queue.put(turn + 2)
        assert [queue.get() for _ in range(60)] == list(range(60))


@pytest.fixture(params=["alone", "reserved"])
def bounded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Engine]]:
    """A bounded queue with items 0 to 4 and places for more, its only producer's or reserved, and another's engine."""
    monkeypatch.setattr(tqshim.engine.tuning, "ALONE", request.param == "alone")
    if not (tqshim.engine.tuning.RESERVATIONS and membarrier.barrier_works()):
        pytest.skip("no places are reserved")
    monkeypatch.setattr(tqshim.engine.tuning, "MARK_EVERY", 1 << 40)  # no cut comes in between
    queue: Any = TurboQueue(300)
    for number in range(5):
        queue.put(number)
    other = Engine(LogFolder.meet(queue._engine.folder.path))
    yield queue, other
    other.close()
    queue._engine.close()


def interrupted_undecided(
    way: str,
    queue: Any,
    other: Engine,
    monkeypatch: pytest.MonkeyPatch,
    then: Callable[[], Any],
    fill: bool = False,
    engine: Optional[Engine] = None,
) -> None:
    """Put 5 by that engine, where another ends its reservation just before the store, or joins it that was alone, and
    takes all other places if it is to fill it; then do that when the counter has got it and nobody has asked yet
    whether it counts."""
    producer = (engine or queue._engine).parts.producer
    has_place, limit, settle, has_put = Producer._has_place, Producer._limit, Producer.settle, Engine.has_put

    def takes_places() -> None:
        assert other.act(lambda: other.parts.producer.trim(producer.slot) or other.parts.producer.end())
        while fill and other.put(_dumped("theirs"), False, None):
            pass

    def taken_at_once(self: Producer) -> bool:
        found = has_place(self)
        if self is producer:
            monkeypatch.setattr(Producer, "_has_place", has_place)
            takes_places()
            monkeypatch.setattr(Producer, "settle", settle_then)
        return found

    def limited(self: Producer) -> None:
        limit(self)
        if self is producer:
            monkeypatch.setattr(Producer, "_limit", limit)
            takes_places()
            monkeypatch.setattr(Producer, "settle", settle_then)

    def undecided(*_: Any) -> Any:
        monkeypatch.setattr(Producer, "settle", settle)
        monkeypatch.setattr(Engine, "has_put", has_put)
        return then()

    def settle_then(self: Producer, total: int, owner: Producer) -> None:
        if owner is producer:
            undecided()
        settle(self, total, owner)

    if way == "short":
        if not tqshim.engine.tuning.SHORT_WAYS:
            pytest.skip("there is no short way")
        takes_places()
        monkeypatch.setattr(Engine, "has_put", undecided)
        queue.put(5, False)
        return
    if way == "short again" and tqshim.engine.tuning.ALONE and tqshim.engine.tuning.SHORT_WAYS:
        monkeypatch.setattr(Producer, "_limit", limited)
    else:
        monkeypatch.setattr(Producer, "_put_alone", lambda self, record: None)
        monkeypatch.setattr(Producer, "_has_place", taken_at_once)
    queue.put_many([5], False)


@pytest.mark.parametrize("way", ["short", "short again", "long"])
def test_what_a_bounded_put_left_undecided_comes_before_what_a_handler_puts(
    way: str, bounded: tuple[Any, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it does not come at all."""
    queue, other = bounded

    def interrupt() -> None:
        raise Interrupt

    with pytest.raises(Interrupt):
        interrupted_undecided(way, queue, other, monkeypatch, interrupt)
    in_a_handler(queue, lambda: queue.put_many([6]))
    queue.put(7)
    assert [queue.get(timeout=5) for _ in range(queue.qsize())] in ([*range(8)], [*range(5), 6, 7])


@pytest.mark.parametrize("way", ["short", "short again", "long"])
def test_what_a_bounded_put_left_undecided_comes_before_what_a_handler_puts_in_a_handler(
    way: str, bounded: tuple[Any, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In which the next act of the interrupted engine looks into the handler's."""
    queue, other = bounded
    above = queue._engine.above()

    def interrupt() -> None:
        raise Interrupt

    with pytest.raises(Interrupt):
        interrupted_undecided(way, queue, other, monkeypatch, interrupt, True)
    # Places that are free, as only the cells say.
    found = [queue.get(timeout=5) for _ in range(5)]
    in_a_handler(queue, lambda: above.act(lambda: queue.put_many([6])))
    queue.put(7)
    while queue.qsize():
        found.append(queue.get(timeout=5))
    assert [item for item in found if item != "theirs"] in ([*range(8)], [*range(5), 6, 7])


@pytest.mark.parametrize("twice", [False, True])
def test_what_a_handlers_bounded_put_left_undecided_comes_before_what_is_put_after_it(
    twice: bool, bounded: tuple[Any, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``twice``: the cut behind it, which would decide it, is interrupted as well."""
    queue, other = bounded
    for _ in range(2):
        in_a_handler(queue, lambda: queue.put_many(["handler's"]))
    cut_for_below = Engine.cut_for_below

    def interrupt() -> None:
        if twice:
            monkeypatch.setattr(Engine, "cut_for_below", interrupted_cut)
        raise Interrupt

    def interrupted_cut(self: Engine) -> None:
        monkeypatch.setattr(Engine, "cut_for_below", cut_for_below)
        raise Interrupt

    def use() -> None:
        with pytest.raises(Interrupt):
            interrupted_undecided("long", queue, other, monkeypatch, interrupt, True, queue._engine.beside)

    in_a_handler(queue, use)
    found = [queue.get(timeout=5) for _ in range(7)]
    queue.put(6)
    found += [queue.get(timeout=5) for _ in range(queue.qsize())]
    in_a_handler(queue, lambda: queue.put_many([7]))
    found += [queue.get(timeout=5) for _ in range(queue.qsize())]
    assert [item for item in found if item not in ("theirs", "handler's")] in ([*range(8)], [*range(5), 6, 7])


@pytest.mark.parametrize("way", ["short again", "long"])
@pytest.mark.parametrize("full", [False, True])
def test_a_bounded_put_learns_what_a_handler_in_it_has_decided(
    full: bool, way: str, bounded: tuple[Any, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, other = bounded
    refused = []

    def use() -> None:
        try:
            queue.put_many([6], False)
        except Full:
            refused.append(6)

    with contextlib.nullcontext() if not full else pytest.raises(Full):
        interrupted_undecided(way, queue, other, monkeypatch, use, full)
    assert refused == [6] * full
    found = [queue.get(timeout=5) for _ in range(queue.qsize())]
    assert [item for item in found if item != "theirs"] == [*range(5), *([] if full else [5, 6])]
    assert len(found) == (300 if full else 7)


def _dumped(item: Any) -> bytes:
    import pickle

    return pickle.dumps(item)


@pytest.mark.parametrize("what", ["put", "put_many", "get", "qsize", "claimed", "stats"])
def test_a_handler_may_interrupt_what_another_handler_does(what: str) -> None:
    """Each has an engine of its own; none is entered while an act of it is under way."""
    queue: Any = TurboQueue()
    queue.put_many([1, 2, 3])
    states = []

    def look() -> Any:
        if what == "claimed":
            with queue.claimed() as item:
                return item
        return {"put": lambda: queue.put(4), "put_many": lambda: queue.put_many([4])}.get(what, getattr(queue, what))()

    def in_the_second() -> None:
        above = queue._engine.beside
        states.append((above.unsure, above.parts.replica.ledger))
        found.append(look())
        states.append((above.unsure, above.parts.replica.ledger))

    found: list[Any] = []
    in_a_handler(queue, lambda: queue._engine.above().act(in_the_second))
    assert states[0] == states[1] and states[0][0]
    assert found[0] == {"get": 1, "claimed": 1, "qsize": 3}.get(what, found[0])
    rest = [1, 2, 3, 4] if "put" in what else [2, 3] if what in ("get", "claimed") else [1, 2, 3]
    assert [queue.get(timeout=5) for _ in range(queue.qsize())] == rest


def test_an_engine_that_another_handler_has_made_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have taken something, and been interrupted."""
    queue: Any = TurboQueue()
    queue.put_many([1, 2, 3])
    meet = LogFolder.meet
    others = []

    def met(path: str) -> Any:
        monkeypatch.setattr(LogFolder, "meet", meet)
        others.append(queue._engine.above())
        others[0].give_back(_take(queue._engine))
        return meet(path)

    monkeypatch.setattr(LogFolder, "meet", met)
    in_a_handler(queue, lambda: queue.put_many([4]))
    assert queue._engine.beside is others[0] and not others[0].closed
    assert [queue.get(timeout=5) for _ in range(4)] == [1, 2, 3, 4]


def test_the_members_file_is_open_though_a_handler_has_closed_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that interrupts the first join may be its first user, and its last."""
    queue: Any = TurboQueue()

    class Opened(dict[Any, Any]):
        uses = 0

        def setdefault(self, *arguments: Any) -> Any:
            found = super().setdefault(*arguments)
            self.uses += 1
            if self.uses == 1:
                other = Engine(LogFolder.meet(queue._engine.folder.path))
                other.put(_dumped("other"), True, None)
                other.close()
            return found

    monkeypatch.setattr(Members, "opened", Opened(Members.opened))
    queue.put("mine")
    assert [queue.get(timeout=5) for _ in range(2)] == ["other", "mine"]
    assert Members.opened.uses == 2
    queue.close()


def test_a_members_file_that_a_collection_closes_as_somebody_looks_at_it_is_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who makes or joins a queue looks at all that this process has opened, and the last user of one may go then."""
    going: list[Any] = [TurboQueue(), TurboQueue()]
    for queue in going:
        queue.put("used")

    class Opened(dict[Any, Any]):
        def get(self, *arguments: Any) -> Any:
            found = super().get(*arguments)
            while going:
                going.pop().close()
            return found

    monkeypatch.setattr(Members, "opened", Opened(Members.opened))
    queue = TurboQueue()
    queue.put("mine")
    assert queue.get(timeout=5) == "mine"
    queue.close()
    assert not going


def test_a_handler_in_the_first_import_of_the_figures_gets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    queue: Any = TurboQueue()
    queue.put_many([1, 2, 3])
    monkeypatch.delitem(sys.modules, "tqshim.protocol.figures", raising=False)
    found: list[Any] = []

    def trace(frame: Any, event: str, _: Any) -> Any:
        if frame.f_code.co_name == "<module>" and frame.f_code.co_filename.endswith("figures.py"):
            if event == "line":
                found.append(queue.stats())
            return trace
        return None

    former = sys.gettrace()
    sys.settrace(trace)
    try:
        figures = queue.stats()
    finally:
        sys.settrace(former)
    assert len(found) > 3
    assert {(one.items, one.put, one.maxsize) for one in [*found, figures]} == {(3, 3, 0)}
    assert set(vars(found[0])) == set(vars(figures))


@pytest.mark.parametrize("where", ["put_many", "cut"])
def test_what_a_handler_has_put_comes_before_what_is_put_after_it_though_it_was_interrupted(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it was put, or at the cut behind it."""
    monkeypatch.setattr(tqshim.engine.tuning, "MARK_EVERY", 1 << 40)  # no cut comes in between
    queue: Any = TurboQueue()
    queue.put(0)
    put_many, cut = Engine.put_many, Engine.cut

    def interrupted_put(self: Any, *arguments: Any) -> int:
        count = put_many(self, *arguments)
        if self is not queue._engine:
            monkeypatch.setattr(Engine, "put_many", put_many)
            if where == "put_many":
                raise Interrupt
            monkeypatch.setattr(Engine, "cut", interrupted_cut)
        return count

    def interrupted_cut(*_: Any) -> None:
        monkeypatch.setattr(Engine, "cut", cut)
        raise Interrupt

    def use() -> None:
        monkeypatch.setattr(Engine, "put_many", interrupted_put)
        with pytest.raises(Interrupt):
            queue.put_many([1, 2])

    in_a_handler(queue, use)
    queue.put(3)
    assert [queue.get(timeout=5) for _ in range(4)] == [0, 1, 2, 3]


def test_what_an_interrupted_handler_had_taken_comes_with_the_next_get() -> None:
    """It is not left with an engine that nobody asks."""
    queue: Any = TurboQueue()
    queue.put_many([1, 2, 3])

    def use() -> None:
        got = queue._engine.above()
        taken: list[Any] = []
        got.get(taken, 1, False, None)
        got.give_back(taken)

    in_a_handler(queue, use)
    assert queue.qsize() == 3
    assert [queue.get(timeout=5) for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize("had", [False, True])
def test_what_an_interrupted_handler_had_taken_is_not_overtaken_by_the_short_way(
    had: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the get that the handler has interrupted leaves for the next ones."""
    if not (tqshim.engine.tuning.LEASES and tqshim.engine.tuning.SHORT_WAYS):
        pytest.skip("leases, or their short way, are switched off")
    queue: Any = TurboQueue()
    queue.put_many(range(40))
    monkeypatch.setattr(Consumer, "_wants_lease", lambda self, cuts: True)
    take, deliver = Consumer.take, Hand.deliver

    def take_later(self: Any, got: list[Any], most: int) -> None:
        monkeypatch.setattr(Consumer, "take", take)
        monkeypatch.setattr(Hand, "deliver", interrupted)
        with pytest.raises(Interrupt):
            queue.get()
        take(self, got, most)

    def interrupted(self: Any, *arguments: Any) -> int:
        monkeypatch.setattr(Hand, "deliver", deliver)
        if had:
            deliver(self, *arguments)
        raise Interrupt

    monkeypatch.setattr(Consumer, "take", take_later)
    assert [queue.get(timeout=5) for _ in range(40)] == [1, 0, *range(2, 40)]


@pytest.mark.parametrize("ends", ["in the handler", "after it"])
@pytest.mark.parametrize("good", [False, True])
def test_a_block_may_end_in_another_frame_than_it_began(ends: str, good: bool) -> None:
    """One of a handler after it, one that a handler has interrupted in it."""
    queue: Any = TurboQueue()
    queue.put(1)
    claim = queue.claimed(timeout=5)
    end = (None, None, None) if good else (KeyError, KeyError(), None)
    if ends == "after it":
        assert in_a_handler(queue, claim.__enter__) == 1
        claim.__exit__(*end)
    else:
        assert claim.__enter__() == 1
        in_a_handler(queue, lambda: claim.__exit__(*end))
    assert queue.qsize() == (not good)
    if not good:
        again = queue.claimed(timeout=5)
        with again as item:
            assert (item, again.redelivered) == (1, 1)
    assert queue.empty()
    assert queue.stats().held == 0


def test_a_folder_goes_with_its_last_handle_though_handlers_have_used_the_queue() -> None:
    root = os.environ["TQSHIM_DIR"]
    before = set(os.listdir(root))
    descriptors = len(os.listdir("/dev/fd"))
    queue: Any = TurboQueue()
    in_a_handler(queue, lambda: (queue.put(1), queue.get()))
    assert queue._engine.beside is not None
    queue.close()
    assert set(os.listdir(root)) == before
    assert len(os.listdir("/dev/fd")) == descriptors


def test_a_folder_goes_at_exit_though_handlers_have_used_the_queue() -> None:
    root = os.environ["TQSHIM_DIR"]
    before = set(os.listdir(root))
    code = """
from tqshim import TurboQueue
queue = TurboQueue()
queue._engine.act(lambda: (queue.put(1), queue.get()))
assert queue._engine.beside is not None
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(os.listdir(root)) == before


@pytest.mark.parametrize("where", ["handler", "handler above", "later"])
def test_a_child_forked_beside_an_engine_above_has_its_own(where: str) -> None:
    """It works on in the frames of its parent's act, in the handler's, and afterwards."""
    queue: Any = TurboQueue()
    queue.put("parent")
    main = os.getpid()

    def fork() -> None:
        child = os.fork()
        if not child:
            queue.put("handler")
        else:
            assert os.waitpid(child, 0)[1] == 0

    def use() -> None:
        queue._engine.above()
        if where == "handler":
            fork()
        elif where == "handler above":
            queue._engine.beside.act(fork)

    try:
        with contextlib.suppress(OSError, ValueError):  # the rest of an act that is the parent's
            in_a_handler(queue, use)
        if where == "later":
            fork()
        if os.getpid() != main:
            queue.put("child")
            in_a_handler(queue, lambda: queue.put_many(["child's handler"]))
            assert queue.get(timeout=5) == "parent"
            queue.close()
            os._exit(0)
    finally:
        if os.getpid() != main:
            os._exit(1)
    assert [queue.get(timeout=5) for _ in range(3)] == ["handler", "child", "child's handler"]
    assert queue.empty()


# -- what a process has taken that leaves


class Broken:
    """What can't be unpickled."""

    def __reduce__(self) -> Any:
        return _fails, ()


def _fails() -> None:
    raise RuntimeError("not to be unpickled")


LEAVING: dict[str, Callable[[Any], Any]] = {
    "a get of a lease": lambda queue: queue.get(),
    "a block": lambda queue: queue.claimed().__enter__(),
    "an interrupted get": lambda queue: interrupted_at_loads(queue, queue.get),
    "an interrupted get_many": lambda queue: interrupted_at_loads(queue, lambda: queue.get_many(True, None, 25)),
    "an interrupted block": lambda queue: interrupted_at_loads(queue, lambda: queue.claimed().__enter__()),
}


def interrupted_at_loads(queue: Any, act: Callable[[], Any]) -> None:
    """As Ctrl-C does while an item is unpickled."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reduction.ForkingPickler, "loads", interrupt)
        with contextlib.suppress(KeyboardInterrupt):
            act()


@pytest.mark.in_turn
@pytest.mark.parametrize("how", ["close", "exit", "_exit in a block", "SystemExit"])
@pytest.mark.parametrize("what", LEAVING)
@pytest.mark.parametrize("maxsize", [0, 100])
def test_what_a_leaving_process_had_taken_and_not_got_others_get(maxsize: int, what: str, how: str) -> None:
    """Once each, and no join waits for more than that."""
    if how == "_exit in a block" and what != "a block":
        pytest.skip("what a killed process had in its hand is lost, but for blocks")
    queue: Any = JoinableTurboQueue(maxsize)
    queue.put_many(range(40))
    context = multiprocessing.get_context("fork")

    def leave() -> None:
        LEAVING[what](queue)
        if how == "close":
            queue.close()
        elif how == "_exit in a block":
            os._exit(0)
        elif how == "SystemExit":
            sys.exit(3)

    child = context.Process(target=leave)
    child.start()
    child.join(LIMIT)
    assert child.exitcode == (3 if how == "SystemExit" else 0)
    wanted = [*range(1 if what == "a get of a lease" else 0, 40)]
    got = []
    with contextlib.suppress(Empty):
        while True:
            got.append(queue.get(True, 2 if len(got) < len(wanted) else 0.05))
    assert sorted(got) == wanted
    for _ in got:
        queue.task_done()
    if what == "a get of a lease":
        queue.task_done()
    assert queue.join(timeout=5)
    with pytest.raises(ValueError):
        queue.task_done()


def test_items_behind_one_that_cannot_be_unpickled_are_not_lost_with_their_process() -> None:
    queue: Any = TurboQueue()
    queue.put_many([0, Broken(), 2, 3])

    def leave() -> None:
        assert queue.get_many(True, 5) == [0]

    child = multiprocessing.get_context("fork").Process(target=leave)
    child.start()
    child.join(LIMIT)
    found: list[Any] = []
    while queue.qsize():
        try:
            found.append(queue.get(timeout=5))
        except RuntimeError:
            found.append("broken")
    assert sorted(map(str, found)) == ["2", "3", "broken"]


def test_a_full_queue_takes_back_all_that_had_been_taken() -> None:
    """Beyond its bound: a process that leaves waits for nobody, and loses nothing."""
    queue: Any = TurboQueue(10)
    queue.put_many(range(10))
    other = Engine(LogFolder.meet(queue._engine.folder.path))
    got: list[Any] = []
    other.get(got, 4, False, None)
    other.give_back(got)
    for number in range(10, 12):
        queue.put(number, False)
    other.close()
    assert queue.qsize() == 12
    assert queue.full()
    assert queue.get_many(True, 5) == [*range(4, 12), *range(4)]
