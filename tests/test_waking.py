"""The process that brings what a waiter waits for wakes it: no nap ends here, so a waiter that is not woken hangs."""

from __future__ import annotations

import asyncio
import errno
import multiprocessing
import os
import random
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sampling import sampled
from watching import AWAITS_PLACE, SLEEPS, newcomer, no_naps, sleepers, until, until_asleep

from tqshim import ShutDown, TurboQueue
from tqshim.engine import tuning, wait_policy
from tqshim.engine.wait_policy import Waiter
from tqshim.protocol.records import Lease
from tqshim.queues import asynchronous
from tqshim.runtime import systems
from tqshim.sync import bell as bells
from tqshim.sync.bell import Bell
from tqshim.sync.cells import LEASE_POSITION, SLOTS, Cells

PATIENCE = 60.0
FORK = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def nobody_looks_by_itself(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    no_naps(monkeypatch)
    yield
    while CHILDREN:  # of a test that has failed one may sleep for ever
        child = CHILDREN.pop()
        child.kill()
        child.join()


CHILDREN: list[Any] = []


def started(target: Callable[..., Any], *arguments: Any) -> Any:
    child = FORK.Process(target=target, args=arguments)
    child.start()
    CHILDREN.append(child)
    return child


def ended(*children: Any) -> None:
    for child in children:
        child.join(PATIENCE)
        if child.exitcode is None:
            child.kill()
            pytest.fail("a child sleeps on")
        assert child.exitcode == 0


def in_thread(act: Callable[..., Any], *arguments: Any) -> tuple[threading.Thread, list[Any]]:
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(act(*arguments))
        except Exception as error:
            found.append(type(error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, found


def joined(*threads: threading.Thread) -> None:
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "a thread sleeps on"


def tell_gets(q: Any, says: Any, count: int, threads: int) -> None:
    """Get so many items in each of so many threads, and say which."""
    them = [in_thread(lambda: [says.send(q.get()) for _ in range(count)])[0] for _ in range(threads)]
    joined(*them)


def say_last(q: Any, last: Any) -> None:
    while item := q.get():
        last.value = item


@pytest.mark.parametrize("count", [3000, pytest.param(300_000, marks=[pytest.mark.stress, pytest.mark.timeout(300)])])
def test_who_falls_asleep_just_as_something_is_put_finds_it_or_is_rung_for(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first nap begins without a barrier.  Each put comes at a random moment, 30 us at most behind the last get: in
    the middle of falling asleep, one in five.  One that is missed is enough to hang."""
    monkeypatch.setattr(tuning, "SPINNING", False)
    q = TurboQueue()
    last = FORK.RawValue("Q", 0)
    child = started(say_last, q, last)
    clock, chance = time.perf_counter, random.Random(count)
    for item in range(1, count):
        begin = clock() + chance.random() * 30e-6
        while clock() < begin:
            pass
        q.put(item)
        patience = begin + PATIENCE
        while last.value != item:
            assert clock() < patience, f"a child sleeps on, and {item} of {count} is there"
    q.put(None)
    ended(child)


@pytest.mark.parametrize("first", ["many", "one"])
def test_who_wants_many_places_keeps_none_from_who_wants_one(first: str) -> None:
    """It is rung for when there are too few for it: then the next is."""
    q: Any = TurboQueue(20)
    q.put_many(range(20))
    waiters = {"many": lambda: q.put_many(["many"] * 15), "one": lambda: q.put("one")}
    threads = []
    for name in (first, *({"many", "one"} - {first})):
        threads.append(in_thread(waiters[name])[0])
        until_asleep(q, AWAITS_PLACE, 1, len(threads))
    assert q.get() == 0
    joined(threads[0 if first == "one" else 1])
    got = [q.get() for _ in range(35)]
    assert got == [*range(1, 20), "one", *["many"] * 15]
    joined(*threads)


def test_many_who_want_many_places_do_not_wake_each_other_for_ever() -> None:
    q: Any = TurboQueue(20)
    q.put_many(range(20))
    threads = [in_thread(q.put_many, [name] * 15)[0] for name in "abc"]
    until_asleep(q, AWAITS_PLACE, 1, 3)
    assert q.get_many(max_messages_to_get=5) == list(range(5))
    got = [q.get() for _ in range(15 + 45)]
    assert got[:15] == list(range(5, 20))
    assert sorted(got[15:]) == sorted("abc" * 15)
    joined(*threads)


def test_one_in_each_process_is_rung_for_at_a_shutdown_and_wakes_the_others_there() -> None:
    for kind in (SLEEPS, AWAITS_PLACE):
        q: Any = TurboQueue(1)
        if kind == AWAITS_PLACE:
            q.put(0)
        act = q.get if kind == SLEEPS else lambda q=q: q.put(1)
        children = [started(expect_shutdowns, act, 3) for _ in range(2)]
        waiters = [in_thread(act) for _ in range(3)]
        until_asleep(q, kind, 3, 3)
        q.shutdown()
        joined(*(thread for thread, _ in waiters))
        assert [found for _, found in waiters] == [[ShutDown]] * 3
        ended(*children)


def expect_shutdowns(act: Callable[[], Any], threads: int) -> None:
    waiters = [in_thread(act) for _ in range(threads)]
    joined(*(thread for thread, _ in waiters))
    assert [found for _, found in waiters] == [[ShutDown]] * threads


@pytest.mark.parametrize("round", range(5))
def test_who_is_interrupted_in_its_sleep_passes_the_ring_on(round: int) -> None:
    """It may have been rung for just then, and does not come back for the item."""
    q: Any = TurboQueue()
    ours, theirs = FORK.Pipe(False)
    interrupted = [started(get_until_interrupted, q) for _ in range(3)]
    child = started(tell_gets, q, theirs, 1, 1)
    until_asleep(q, SLEEPS, 4)
    for one in interrupted:
        os.kill(one.pid, signal.SIGUSR1)
    q.put("item")
    assert ours.recv() == "item"
    for one in interrupted:
        while one.is_alive():  # a signal just before a system call is heard after it only
            os.kill(one.pid, signal.SIGUSR1)
            one.join(0.01)
    ended(child, *interrupted)


class Interrupted(Exception):
    pass


def get_until_interrupted(q: Any) -> None:
    """What it has got, or has in its hand because it was interrupted too late, it puts back."""
    items: list[Any] = []

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        raise Interrupted

    signal.signal(signal.SIGUSR1, interrupt)
    try:
        items.append(q.get())
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    except Interrupted:
        pass
    q.qsize()  # asks the journal what is ours
    if q._engine.parts.hand.state[1]:
        items.append(q.get_nowait())
    q.put_many(items)


@pytest.mark.parametrize("batch", [False, True])
def test_one_who_is_killed_when_it_was_rung_for_keeps_nobody_asleep(batch: bool, tmp_path: Path) -> None:
    """The next put that finds that nobody has cut for a millisecond rings for another."""
    q: Any = TurboQueue()
    told, says = multiprocessing.Pipe(False)
    sleep = Bell.sleep

    def die_first(self: Bell, seconds: float) -> bool:
        rung = sleep(self, seconds)
        if rung:
            try:
                (tmp_path / "killed").touch(exist_ok=False)
                os.kill(os.getpid(), signal.SIGKILL)
            except FileExistsError:
                pass
        return rung

    def get() -> None:
        Bell.sleep = die_first  # type: ignore[method-assign]
        says.send(q.get())

    children = [started(get) for _ in range(2)]
    until_asleep(q, SLEEPS, 2)
    q.put(1)
    while all(child.exitcode is None for child in children):
        time.sleep(0.001)
    time.sleep(0.005)
    q.put_many([2, 3]) if batch else q.put(2)
    assert told.poll(PATIENCE)
    assert told.recv() == 1
    assert sorted(child.exitcode or child.join(PATIENCE) or 0 for child in children) == [-signal.SIGKILL, 0]
    CHILDREN.clear()


def test_a_stopped_sleeper_keeps_nobody_asleep() -> None:
    q: Any = TurboQueue()
    ours, theirs = FORK.Pipe(False)
    children = [started(tell_gets, q, theirs, 5, 1) for _ in range(2)]
    until_asleep(q, SLEEPS, 2)
    os.kill(children[0].pid, signal.SIGSTOP)
    os.waitpid(children[0].pid, os.WUNTRACED)
    for item in range(5):
        q.put(item)
        assert ours.recv() == item
    ended(children[1])
    os.kill(children[0].pid, signal.SIGCONT)
    q.put_many(range(5))
    assert [ours.recv() for _ in range(5)] == list(range(5))
    ended(children[0])


def stress_get(q: Any, says: Any, seed: int) -> None:
    choose = random.Random(seed)
    got = []
    while (item := q.get(True, PATIENCE)) is not None:
        got.append(item)
        if choose.random() < 0.3:
            time.sleep(choose.random() * 3e-4)  # so that it is awake or asleep when the next comes
    says.send(got)


def stress_put(q: Any, number: int, count: int) -> None:
    choose = random.Random(number)
    for item in range(count):
        q.put((number, item), True, PATIENCE)
        if choose.random() < 0.3:
            time.sleep(choose.random() * 3e-4)


@pytest.mark.parametrize("maxsize", sampled("asleep", [0, 1, 3, 40], 2))
def test_whenever_one_falls_asleep_it_is_woken(maxsize: int) -> None:
    q: Any = TurboQueue(maxsize)
    ours, theirs = FORK.Pipe(False)
    consumers = [started(stress_get, q, theirs, seed) for seed in range(3)]
    producers = [started(stress_put, q, number, 700) for number in range(3)]
    ended(*producers)
    for _ in consumers:
        q.put(None, True, PATIENCE)
    got = [item for _ in consumers for item in ours.recv()]
    ended(*consumers)
    assert sorted(got) == [(number, item) for number in range(3) for item in range(700)]


@pytest.mark.in_turn
@pytest.mark.parametrize("looks", [False, True], ids=["", "another thread has read of it"])
@pytest.mark.parametrize("got", [0, 1, 2])
@pytest.mark.parametrize("maxsize", [2, 300])
def test_a_place_that_nobody_rang_for_is_found_at_the_deadline(
    maxsize: int, got: int, looks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be in a cell alone, and in no event: what a lease has delivered; or another thread has read the event."""
    with TurboQueue(maxsize) as queue:
        connection, theirs = FORK.Pipe()

        def get() -> None:
            connection.send("get")
            connection.recv()

        def serve() -> None:
            while theirs.recv():
                theirs.send(queue.get(timeout=60.0))

        child = FORK.Process(target=serve)
        child.start()
        try:
            queue.put_many(range(maxsize))
            for number in range(got):
                get()
                queue.put(number)

            def rest(self: Waiter, kind: int, me: object, bell: Bell, seconds: float) -> bool:
                get()
                if looks:
                    assert queue.qsize() == maxsize - 1
                time.sleep(max(0.0, seconds))
                return False

            monkeypatch.setattr(Waiter, "rest", rest)
            monkeypatch.setattr(tuning, "SPINNING", False)
            queue.put("last", timeout=0.3)  # a busy machine may keep it from falling asleep for some of that
            assert queue.get_many()[-1] == "last"
        finally:
            connection.send("")
            child.join()


@pytest.mark.parametrize("error", [OSError(errno.EBADF, "closed"), ValueError("released")])
def test_who_looks_for_a_place_may_meet_a_journal_that_is_just_closed(error: Exception) -> None:
    """It has not the lock: another thread, or a signal handler that came in between, goes on in the next journal."""
    with TurboQueue(1) as queue:
        queue.put("item")
        replica = queue._engine.parts.replica
        journal = replica.journal

        class Closed:
            def read(self, at: int, size: int) -> bytes:
                raise error

        replica.journal = Closed()
        try:
            assert queue._engine.parts.waiter.spin_for_place(None)
        finally:
            replica.journal = journal
        assert queue.get(timeout=PATIENCE) == "item"


def test_who_looks_for_a_place_may_meet_a_lease_that_another_thread_just_begins() -> None:
    """It stands already, and the cell and the count are as the lease before it has left them."""
    with TurboQueue(1) as queue:
        queue.put("item")
        assert queue.get(timeout=PATIENCE) == "item"
        parts = queue._engine.parts
        ledger, slot = parts.replica.ledger, parts.consumer.slot
        words, cell = parts.members.cells.words, Cells.place(LEASE_POSITION, slot)
        before = ledger.leases.standing, ledger.leases.passed, words[cell]
        ledger.leases.standing, ledger.leases.passed, words[cell] = (
            Lease(slot, 10, 15, 7, parts.members.slots[slot]),
            0,
            5,
        )
        try:
            assert not parts.waiter.is_still(parts.waiter.seen(parts.members.cells.given()))
        finally:
            ledger.leases.standing, ledger.leases.passed, words[cell] = before


def test_who_has_no_bell_of_its_own_is_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those for whom a process opens a bell anew each time, and for whom it is opened just to ring."""
    monkeypatch.setattr(tuning, "BELLS", 0)
    asked, answers = TurboQueue(1), TurboQueue(1)
    child = started(echo_all, asked, answers, 300)
    for number in range(300):
        if number % 3 == 0:
            until_asleep(asked)
        asked.put(number)
        assert answers.get(timeout=PATIENCE) == number
    ended(child)


def echo_all(asked: Any, answers: Any, count: int) -> None:
    for _ in range(count):
        answers.put(asked.get())


def many_join(path: str) -> list[Any]:
    """So many members that the next has its cells on another page; who was there before does not know it."""
    them = [newcomer(path) for _ in range(SLOTS)]
    for one in them:
        one._engine.act(one._engine.parts.members.join, False)
    return them


def test_a_sleeper_whom_the_producer_has_not_heard_of_is_rung_for(path: str) -> None:
    """It puts by the short way, and reads no journal: 64 members have joined since."""
    with TurboQueue(path=path) as q:
        q.put("first")
        assert q.get() == "first"
        q.put("second")
        assert q.get() == "second"
        them = many_join(path)
        late = newcomer(path)
        thread, found = in_thread(late.get)
        until_asleep(them[0])
        q.put("third")
        joined(thread)
        assert found == ["third"]


def test_a_producer_whom_the_consumer_has_not_heard_of_is_rung_for(path: str) -> None:
    """It gets from its lease, and reads no journal."""
    with TurboQueue(20, path=path) as q:
        q.put_many(range(20))
        reader = newcomer(path)
        assert [reader.get() for _ in range(3)] == [0, 1, 2]
        q.put_many(range(3))
        many_join(path)
        thread, _ = in_thread(newcomer(path).put, "late")
        until_asleep(newcomer(path), AWAITS_PLACE)
        assert reader.get() == 3
        joined(thread)


def test_who_wakes_up_says_that_others_sleep_whom_it_has_not_heard_of(path: str) -> None:
    with TurboQueue(2, path=path) as q:
        them = [newcomer(path), newcomer(path)]
        first, found = in_thread(lambda: [them[0].get() for _ in range(3)])
        for number in range(2):
            until_asleep(q)
            q.put(number)
            until(lambda: q.qsize() == 0)
        until_asleep(q)
        many_join(path)
        second, other = in_thread(them[1].get)
        until_asleep(newcomer(path), processes=2)
        q.put_many("xy")
        joined(first, second)
        assert sorted([found[0][-1], other[0]]) == ["x", "y"]


@pytest.mark.parametrize("is_async", [True, False])
def test_a_coroutine_that_is_cancelled_when_it_was_rung_for_passes_the_ring_on(is_async: bool) -> None:
    q = TurboQueue()
    here, there = FORK.Pipe(False)
    child = started(tell_one, q, there, is_async)

    async def cancel_one() -> None:
        getting = asyncio.create_task(q.get_async())
        while sleepers(q) < 2:
            await asyncio.sleep(0.005)
        os.kill(child.pid, signal.SIGSTOP)
        os.waitpid(child.pid, os.WUNTRACED)
        q.put("item")
        (watcher,) = asynchronous._watchers[asyncio.get_running_loop()].values()
        while not watcher._woken:
            await asyncio.sleep(0)
        getting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await getting
        os.kill(child.pid, signal.SIGCONT)

    asyncio.run(cancel_one())
    assert here.poll(PATIENCE), "a child sleeps on"
    assert here.recv() == "item"
    ended(child)


def test_who_was_rung_for_and_finds_something_when_it_looks_once_more_passes_the_ring_on(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another had been faster; two items come before it has said again that it sleeps."""
    no_naps(monkeypatch)
    with TurboQueue(path=path) as q:
        first, second = newcomer(path), newcomer(path)
        say, sleep = Waiter.fall_asleep, Bell.sleep
        told, held = threading.Event(), threading.Event()

        def says_late(waiter: Waiter, *arguments: Any) -> None:
            if waiter is first._engine.parts.waiter and told.is_set():
                monkeypatch.setattr(Waiter, "fall_asleep", say)
                q.put_many([2, 3])
            say(waiter, *arguments)

        def sleeps(bell: Bell, seconds: float) -> bool:
            if bell is not first._engine.parts.waiter.bell(SLEEPS):
                held.wait(PATIENCE)  # the ring is the first one's
            rung = sleep(bell, seconds)
            if rung and not told.is_set():
                assert q.get_nowait() == 1
                told.set()
            return rung

        monkeypatch.setattr(Bell, "sleep", sleeps)
        monkeypatch.setattr(Waiter, "fall_asleep", says_late)
        threads = []
        found: list[Any] = []
        for processes, other in enumerate((first, second), 1):
            thread, got = in_thread(other.get)
            threads.append(thread)
            found.append(got)
            until_asleep(q, processes=processes)
        q.put(1)
        joined(threads[0])
        held.set()
        joined(threads[1])
        assert found == [[2], [3]]


def tell_one(q: Any, says: Any, is_async: bool) -> None:
    says.send(asyncio.run(q.get_async()) if is_async else q.get())


@pytest.mark.parametrize("name", ["_ring", "ring"])
def test_a_put_that_is_interrupted_when_its_item_is_there_rings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    q = TurboQueue()
    q.put("first")
    assert q.get() == "first"
    here, there = FORK.Pipe(False)
    child = started(tell_one, q, there, False)
    until_asleep(q)
    q.empty()
    do = getattr(Waiter, name)

    def interrupted(*arguments: Any) -> None:
        monkeypatch.setattr(Waiter, name, do)
        raise Interrupted

    monkeypatch.setattr(Waiter, name, interrupted)
    with pytest.raises(Interrupted):
        q.put("second")
    assert here.poll(PATIENCE), "a child sleeps on"
    assert here.recv() == "second"
    ended(child)


@pytest.mark.parametrize("kind", [SLEEPS, AWAITS_PLACE])
def test_who_is_interrupted_when_it_says_that_it_is_awake_says_it_again(
    kind: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    q = TurboQueue(maxsize=1)
    if kind == AWAITS_PLACE:
        q.put("first")
    wake = Waiter.wake

    def interrupted(*arguments: Any) -> None:
        monkeypatch.setattr(Waiter, "wake", wake)
        raise Interrupted

    def act() -> Any:
        return q.get() if kind == SLEEPS else q.put("second")

    monkeypatch.setattr(Waiter, "wake", interrupted)
    other = newcomer(q._engine.folder.path)
    thread, found = in_thread(act)
    until_asleep(q, kind)
    other.put("first") if kind == SLEEPS else other.get()
    joined(thread)
    assert found == [Interrupted]
    assert not q._engine.parts.waiter.waiting[kind] and sleepers(other, kind) == 0


@pytest.mark.parametrize("processors", [1, 2])
def test_on_one_processor_nobody_looks_for_a_place_before_it_sleeps(
    processors: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who could free one does not run meanwhile."""
    monkeypatch.setattr(wait_policy, "PROCESSORS", processors)
    monkeypatch.setattr(tuning, "SPINNING", True)
    with TurboQueue(1) as queue:
        queue.put(0)
        assert queue._engine.parts.waiter.may_spin(AWAITS_PLACE) == (processors > 1)


def test_a_process_that_cannot_listen_anew_hears_the_next_ring(tmp_path: Path) -> None:
    """It has an item in its hand when it gives up its place in the row: that may not raise."""

    class Short:
        """An epoll that has no memory for one more."""

        def __init__(self, real: Any) -> None:
            self.real = real
            self.refused = False

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

        def register(self, *arguments: Any) -> None:
            self.refused = True
            raise OSError(errno.ENOSPC, "no space")

    os.mkfifo(tmp_path / "bell")
    bell = Bell(os.open(tmp_path / "bell", os.O_RDWR | os.O_NONBLOCK))
    try:
        assert not bell.sleep(0)
        short = Short(bell._poll)
        if systems.EPOLL:  # else nobody has a place in a row
            bell._poll = short
        bell.stand_last()
        bell.ring()
        assert bell.sleep(5)
        assert short.refused == systems.EPOLL
    finally:
        bell.close()


@pytest.mark.skipif(not systems.EPOLL, reason="without epoll no thread listens for another")
def test_two_threads_that_begin_to_sleep_at_once_are_both_woken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both make what listens; the second does so when the first sleeps already."""
    both = threading.Barrier(2)
    sleeps = threading.Event()

    class Epoll:
        def __init__(self) -> None:
            self.real = select.epoll()
            if both.wait(5):
                assert sleeps.wait(5)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

        def poll(self, seconds: float) -> Any:
            sleeps.set()
            return self.real.poll(seconds)

    monkeypatch.setattr(bells, "_system", lambda: SimpleNamespace(epoll=Epoll, select=select.select))
    os.mkfifo(tmp_path / "bell")
    bell = Bell(os.open(tmp_path / "bell", os.O_RDWR | os.O_NONBLOCK))
    found: list[bool] = []
    threads = [threading.Thread(target=lambda: found.append(bell.sleep(5))) for _ in range(2)]
    try:
        for thread in threads:
            thread.start()
        assert sleeps.wait(5)
        time.sleep(0.2)
        for _ in threads:
            bell.ring()
        began = time.monotonic()
        for thread in threads:
            thread.join()
        assert time.monotonic() - began < 2, "one has not listened"
        assert found == [True, True]
    finally:
        bell.close()
