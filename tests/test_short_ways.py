"""The short ways of put and get, which take no lock: what others do in the middle of them."""

from __future__ import annotations

import contextlib
import linecache
import os
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Optional

import pytest

import tqshim
from tqshim import TurboQueue, events, queues, tuning, waiting
from tqshim.putting import Putting

LONG = 60.0
PUTS = pytest.mark.skipif(not (tuning.SHORT_WAYS and tuning.BURSTS), reason="there is no short way to put")
GETS = pytest.mark.skipif(
    not (tuning.STEPS and tuning.LEASES and waiting.barrier_works()), reason="there is no short way to get"
)
BOUNDED = pytest.mark.skipif(
    not (tuning.RESERVATIONS and waiting.barrier_works()), reason="there is no short way to put into a bounded queue"
)


@pytest.fixture(params=[0, pytest.param(1000, marks=BOUNDED)])
def q(request: pytest.FixtureRequest) -> Iterator[Any]:
    queue: Any = TurboQueue(request.param)
    yield queue
    queue._engine.close()


@pytest.fixture
def no_flusher(monkeypatch: pytest.MonkeyPatch) -> None:
    """A burst ends where the test wants it to."""
    monkeypatch.setattr(Putting, "_start_flusher", lambda engine: setattr(engine, "_flusher_busy", True))


@contextlib.contextmanager
def meanwhile(line: str, act: Callable[[], Any]) -> Iterator[list[Any]]:
    """Do something when this line of ``queues`` is next about to run in this thread.

    Yields a list of what that returned."""
    done: list[Any] = []

    def trace(frame: FrameType, event: str, argument: Any) -> Optional[Callable[..., Any]]:
        if frame.f_code.co_filename != queues.__file__:
            return None
        if event == "line" and not done and linecache.getline(queues.__file__, frame.f_lineno).strip() == line:
            done.append(None)
            done[0] = act()
        return trace

    sys.settrace(trace)
    try:
        yield done
    finally:
        sys.settrace(None)
    assert done, f"no line {line!r} was run"


def start_burst(q: Any) -> list[int]:
    """Put so many that the next put takes the short way; returns what was put."""
    engine = q._engine
    put: list[int] = []
    while not engine._tickets:
        put.append(len(put))
        q.put(put[-1])
        assert len(put) < 500, "no burst has begun"
    return put


def start_window(q: Any) -> list[int]:
    """Have items of which the next get takes the short way; returns which."""
    q.put_many(range(200))
    engine = q._engine
    for number in range(200):
        assert q.get(True, LONG) == number
        if engine._window:
            return list(range(number + 1, 200))
    raise AssertionError("no lease was taken")


def drained(q: Any) -> list[Any]:
    found = []
    with contextlib.suppress(tqshim.Empty):
        while True:
            found.append(q.get(True, 0.05))
    return found


@pytest.mark.usefixtures("no_flusher")
@PUTS
def test_what_others_do_between_place_and_record(q: Any) -> None:
    """Another thread publishes the burst, takes its items, puts, or asks: the record is neither lost nor put twice."""
    engine = q._engine
    acts: dict[str, Callable[[], Any]] = {
        "flush": engine.flush,
        "put": lambda: q.put("other"),
        "put_many": lambda: q.put_many(["other"]),
        "qsize": q.qsize,
        "get": lambda: q.get(True, LONG),
    }
    for name, act in acts.items():
        put: list[Any] = start_burst(q)
        with meanwhile("engine.records.append(record)", act) as done:
            q.put("mine")
        put += ["other"] * name.startswith("put") + ["mine"]
        got = done * (name == "get") + drained(q)
        assert sorted(map(str, got)) == sorted(map(str, put)), name
        assert got[: len(put) - 2] == put[: len(put) - 2]
        if name == "qsize":
            assert done == [len(put) - 1]


@pytest.mark.usefixtures("no_flusher")
@PUTS
@BOUNDED
def test_a_place_that_went_in_that_moment_is_waited_for() -> None:
    """The queue fills up between the place and its record: put waits, or raises ``Full``, and the bound holds."""
    for block in (False, True):
        q: Any = TurboQueue(400)
        put = start_burst(q)

        def fill(q: Any = q) -> None:
            q._engine.flush()
            with contextlib.suppress(tqshim.Full):
                while True:
                    q.put("other", False)

        with meanwhile("engine.records.append(record)", fill):
            if block:
                threading.Timer(0.05, q.get).start()
                q.put("mine", True, LONG)
            else:
                with pytest.raises(tqshim.Full):
                    q.put("mine", False)
        assert q.qsize() == 400
        assert q.full()
        got = drained(q)
        assert got.count("mine") == block
        assert got[: len(put) - 1] == put[block : len(put) - 1 + block]
        q._engine.close()


@pytest.mark.usefixtures("no_flusher")
@PUTS
@BOUNDED
def test_a_record_whose_place_is_cut_down_goes_the_long_way() -> None:
    q: Any = TurboQueue(1000)
    engine = q._engine
    put = start_burst(q)
    granted = engine.ledger.res[engine._producer]
    engine._words[engine._used_flag] = 1  # as a producer does that finds no place
    for number in range(len(put), len(put) + 50):
        q.put(number)
        assert engine.ledger.res.get(engine._producer) != granted
    assert drained(q) == list(range(len(put) + 50))
    engine.close()


@GETS
def test_what_others_do_while_a_get_takes_the_short_way(q: Any) -> None:
    engine = q._engine

    def work() -> Any:
        with q.claimed(True, LONG) as item:
            return item

    acts: dict[str, Callable[[], Any]] = {
        "get": lambda: q.get(True, LONG),
        "get_many": lambda: q.get_many(True, LONG, 3),
        "claimed": work,
        "put": lambda: q.put(200),
        "qsize": q.qsize,
        "interrupted": engine._recover,
    }
    for name, act in acts.items():
        left = start_window(q)
        with meanwhile("loading = 1", act) as done:
            assert q.get(True, LONG) == left[0]
        also = done if name in ("get", "claimed") else done[0] if name == "get_many" else []
        left += [200] * (name == "put")
        assert [*also, *drained(q)] == left[1:], name
        if name == "qsize":
            assert done == [len(left) - 1]


@GETS
@pytest.mark.parametrize("ours", [False, True])
def test_a_step_that_somebody_objects_to_asks_the_journal(q: Any, ours: bool) -> None:
    """Another consumer ends the lease before, or after, it can see that this item is taken."""
    engine = q._engine
    left = start_window(q)
    lease = engine.ledger.lease
    flag = engine._lease_flag
    engine._words[flag] = 1

    def end_lease() -> None:
        engine.journal.append(events.revoke(left[0] + ours - lease.first, lease.number))

    with meanwhile("generation = engine.generation", end_lease):
        assert q.get(True, LONG) == left[0]
    # Its own lease ended; the item was got by a step, or by the claim that followed.
    assert engine.ledger.kept[lease.slot] == (lease.number, left[0] + ours)
    assert not engine._lost
    assert drained(q) == left[1:]


@GETS
def test_steps_beyond_the_end_of_a_lease_find_out_each(q: Any) -> None:
    """Three threads have taken a step each when the lease ends before the second: one item is theirs."""
    engine = q._engine
    left = start_window(q)
    lease = engine.ledger.lease
    engine._words[engine._lease_flag] = 1
    steps = [next(engine.steps) for _ in range(3)]
    assert [item for _, item, _, _ in steps] == left[:3]
    assert all(contested for *_, contested in steps)
    engine.journal.append(events.revoke(left[1] - lease.first, lease.number))
    generation = engine.generation
    assert [engine.confirm(item, generation) for _, item, _, _ in reversed(steps)] == [False, False, True]
    assert not engine.confirm(left[0], generation - 1), "a forked child's"
    assert drained(q) == left[1:]


@GETS
def test_an_interrupt_before_the_journal_has_answered_loses_nothing(q: Any) -> None:
    engine = q._engine
    left = start_window(q)
    engine._words[engine._lease_flag] = 1

    def interrupt() -> None:
        raise KeyboardInterrupt

    for line in ("if not engine.confirm(item, generation):", "contested = 0"):
        with pytest.raises(KeyboardInterrupt), meanwhile(line, interrupt):
            q.get(True, LONG)
        assert q.get(True, LONG) == left.pop(0)
        if not engine._window:
            break
        engine._words[engine._lease_flag] = 1
    assert drained(q) == left


@GETS
@PUTS
def test_threads_that_are_traced_share_a_queue_with_other_processes() -> None:
    """A tracer lets other threads run between any two lines, as nothing else does."""
    context: Any = tqshim.get_context("fork")
    count, threads = 400, 3
    q: Any = context.Queue(150)
    found: Any = context.SimpleQueue()

    def trace(frame: FrameType, event: str, argument: Any) -> Optional[Callable[..., Any]]:
        if not frame.f_code.co_filename.startswith(os.path.dirname(queues.__file__)):
            return None
        with contextlib.suppress(AttributeError):
            os.sched_yield()
        return trace

    def run() -> None:
        got: list[list[int]] = [[] for _ in range(threads)]

        def put(number: int) -> None:
            for item in range(count):
                q.put((os.getpid(), number, item), True, LONG)

        def get(number: int) -> None:
            for _ in range(count):
                got[number].append(q.get(True, LONG))

        sys.setswitchinterval(1e-6)
        threading.settrace(trace)
        them = [threading.Thread(target=what, args=(number,)) for number in range(threads) for what in (put, get)]
        for thread in them:
            thread.start()
        for thread in them:
            thread.join()
        found.put([item for items in got for item in items])

    children = [context.Process(target=run) for _ in range(2)]
    for child in children:
        child.start()
    items = sorted(found.get() + found.get())
    for child in children:
        child.join()
    assert items == sorted(
        (child.pid, number, item) for child in children for number in range(threads) for item in range(count)
    )
    assert q.empty()
