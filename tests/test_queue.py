"""What each method does: the same as `multiprocessing.Queue`'s, and what the batch calls add."""

from __future__ import annotations

import contextlib
import gc
import inspect
import multiprocessing
import multiprocessing.reduction
import os
import pickle
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from multiprocessing.queues import Queue as StandardQueue
from pathlib import Path
from typing import Any, Callable, Optional

import pytest
from programs.things import BadAtLoading, Counting, Registered, Reporting, Unpicklable, reduce_registered
from sampling import sampled

import tqshim
import tqshim.engine.tuning
import tqshim.storage.journal
from tqshim import Empty, Full, TurboQueue
from tqshim.engine.engine import Engine
from tqshim.engine.replica import Replica
from tqshim.protocol import events
from tqshim.queues import pickling
from tqshim.sync import membarrier

LONG = 60.0
METHODS_OF_A_QUEUE = [
    "put",
    "get",
    "put_nowait",
    "get_nowait",
    "qsize",
    "empty",
    "full",
    "close",
    "join_thread",
    "cancel_join_thread",
    "_on_queue_feeder_error",
]


def eventually(condition: Callable[[], bool]) -> None:
    """The standard queue's feeder thread takes its time."""
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    return [(p.name, p.default, p.kind) for p in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize("name", METHODS_OF_A_QUEUE)
def test_every_methods_signature_is_the_standard_ones(name: str) -> None:
    assert parameters(getattr(TurboQueue, name)) == parameters(getattr(StandardQueue, name))


def test_it_has_all_public_names_of_the_standard_queue() -> None:
    assert {name for name in dir(StandardQueue) if not name.startswith("_")} <= set(dir(TurboQueue))
    assert isinstance(TurboQueue(), StandardQueue)


def test_exceptions_are_the_standard_ones() -> None:
    assert tqshim.Empty is queue.Empty
    assert tqshim.Full is queue.Full


def test_everything_returns_what_the_standard_queue_returns() -> None:
    for q in (TurboQueue(3), multiprocessing.Queue(3)):
        assert q.put("a") is None
        assert q.put_nowait("b") is None
        eventually(lambda q=q: q.qsize() == 2 and not q.empty())
        assert q.full() is False
        assert q.get() == "a"
        assert q.get(True, LONG) == "b"
        assert q.cancel_join_thread() is None
        assert q.close() is None
        assert q.join_thread() is None


@pytest.mark.parametrize("timeout", [0, -1, -0.5, 0.001])
def test_timeouts_are_the_standard_ones(timeout: float) -> None:
    """Zero and negative ones too: one look, no wait."""
    for q in (TurboQueue(1), multiprocessing.Queue(1)):
        with pytest.raises(queue.Empty):
            q.get(True, timeout)
        with pytest.raises(queue.Empty):
            q.get(False, timeout)
        q.put(1)
        with pytest.raises(queue.Full):
            q.put(2, True, timeout)
        with pytest.raises(queue.Full):
            q.put(2, False, timeout)
        with pytest.raises(queue.Full):
            q.put_nowait(2)
        assert q.get() == 1
        q.close()
        q.join_thread()


def test_a_queue_is_let_go_when_its_with_statement_ends() -> None:
    """Whatever it was about to do: cut, open its next batch file."""
    for number in range(300):
        with TurboQueue() as q:
            path = q._engine.folder.path  # type: ignore[union-attr]
            for _ in range(number):
                q.put(0)
        assert not os.path.exists(path)


CLOSED_CALLS: list[tuple[str, tuple[Any, ...]]] = [
    ("put", (1,)),
    ("put", (1, False)),
    ("put_nowait", (1,)),
    ("get", ()),
    ("get", (False,)),
    ("get", (True, 0.01)),
    ("get_nowait", ()),
]


@pytest.mark.parametrize("call", CLOSED_CALLS, ids=lambda call: f"{call[0]}{call[1]}")
def test_a_closed_queue_raises_as_the_standard_one(call: tuple[str, tuple[Any, ...]]) -> None:
    name, arguments = call
    for q in (TurboQueue(), multiprocessing.Queue()):
        q.close()
        with pytest.raises(ValueError, match="is closed"):
            getattr(q, name)(*arguments)


def test_looking_at_a_closed_queue_raises_os_error_where_the_standard_one_does() -> None:
    """That is, once its feeder thread has closed the pipe."""
    for q in (TurboQueue(), multiprocessing.Queue()):
        q.put(1)
        q.close()
        q.join_thread()
        with pytest.raises(OSError, match="is closed"):
            q.empty()


def test_closing_twice_is_allowed_and_joining_needs_a_close() -> None:
    for q in (TurboQueue(), multiprocessing.Queue()):
        with pytest.raises(AssertionError):
            q.join_thread()
        q.close()
        q.close()
        q.join_thread()


def test_batch_calls_of_a_closed_queue_raise() -> None:
    q: Any = TurboQueue()
    q.close()
    for call in (lambda: q.put_many([1]), lambda: q.put_many_nowait([1]), q.get_many, q.get_many_nowait):
        with pytest.raises(ValueError, match="is closed"):
            call()


@pytest.mark.parametrize("maxsize", [0, -1, -100])
def test_no_bound_is_a_bound_of_zero_or_less(maxsize: int) -> None:
    q: Any = TurboQueue(maxsize)
    for number in range(3000):
        q.put_nowait(number)
    assert not q.full()
    assert q.qsize() == 3000
    assert q.get_many() == list(range(1000))


@pytest.mark.parametrize("maxsize", [32_768, 100_000])
def test_a_bound_may_be_larger_than_a_semaphore_counts(maxsize: int) -> None:
    """And is exact: the last place, and no more."""
    q: Any = TurboQueue(maxsize)
    q.put_many_nowait(range(maxsize - 1))
    assert not q.full()
    q.put_nowait("last")
    assert q.full() and q.qsize() == maxsize
    with pytest.raises(queue.Full):
        q.put_nowait("more")
    assert q.get() == 0
    q.put_nowait("more")
    assert q.full()


# -- batch calls


def drain(q: Any) -> list[Any]:
    items = []
    while True:
        try:
            items += q.get_many_nowait()
        except queue.Empty:
            return items


def test_put_many_puts_all_in_order_and_takes_any_iterable() -> None:
    for items in ([], [1], range(5000), (n for n in range(10)), "abc", {"a": 1}):
        q: Any = TurboQueue()
        expected = list(items) if not inspect.isgenerator(items) else list(range(10))
        assert q.put_many(items) is None
        assert q.qsize() == len(expected)
        assert drain(q) == expected


def test_a_refused_put_many_leaves_nothing_behind() -> None:
    q: Any = TurboQueue(5)
    q.put_many_nowait([1, 2, 3])
    for refused in (lambda: q.put_many_nowait([4, 5, 6]), lambda: q.put_many([4, 5, 6], True, 0.01)):
        with pytest.raises(queue.Full):
            refused()
        assert q.qsize() == 3
    q.put_many_nowait([4, 5])
    assert q.full()
    assert drain(q) == [1, 2, 3, 4, 5]


def test_more_than_maxsize_is_refused_at_once_without_blocking() -> None:
    q: Any = TurboQueue(5)
    with pytest.raises(queue.Full):
        q.put_many_nowait(range(6))
    with pytest.raises(queue.Full):
        q.put_many(range(6), False)
    assert q.empty()


@pytest.mark.parametrize("maxsize", [1, 3, 10, 2000])
def test_more_than_maxsize_goes_in_pieces_while_it_blocks(maxsize: int) -> None:
    q: Any = TurboQueue(maxsize)
    count = 3 * maxsize + 50
    thread = threading.Thread(target=q.put_many, args=(range(count), True, LONG))
    thread.start()
    assert [q.get(True, LONG) for _ in range(count)] == list(range(count))
    thread.join(LONG)
    assert not thread.is_alive() and q.empty()


def test_put_many_in_pieces_says_how_many_went_when_time_runs_out() -> None:
    q: Any = TurboQueue(4)
    with pytest.raises(queue.Full) as caught:
        q.put_many(range(10), True, 0.05)
    size = q.qsize()
    assert drain(q) == list(range(size))
    assert str(size) in str(caught.value)


def test_get_many_returns_at_least_one_item_and_at_most_as_many_as_asked() -> None:
    q: Any = TurboQueue()
    with pytest.raises(queue.Empty):
        q.get_many_nowait()
    with pytest.raises(queue.Empty):
        q.get_many(True, 0.001)
    with pytest.raises(queue.Empty):
        q.get_many(False)
    q.put_many(range(10))
    assert q.get_many(max_messages_to_get=3) == [0, 1, 2]
    assert q.get_many_nowait(1) == [3]
    assert drain(q) == [4, 5, 6, 7, 8, 9]
    with pytest.raises(ValueError):
        q.get_many(max_messages_to_get=0)


def test_get_many_takes_all_that_is_there_whatever_other_threads_get_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It ends where a lease does and goes on: another thread that gets in between has a take of its own."""
    if not membarrier.barrier_works():
        pytest.skip("there are no leases here")
    monkeypatch.setattr(tqshim.engine.tuning, "LEASE_ITEMS", 64)
    q = TurboQueue()
    q.put_many(range(500))
    real = Engine.get
    taken: list[Any] = []

    def get(self: Engine, got: list[Any], most: int, block: bool, timeout: Optional[float]) -> Any:
        found = real(self, got, most, block, timeout)
        if most > 1 and got and len(got) < most:
            real(self, taken, 1, False, None)
        return found

    got = [q.get() for _ in range(10)]
    monkeypatch.setattr(Engine, "get", get)
    while not taken:
        more = q.get_many(False, max_messages_to_get=30)
        assert len(more) == 30, "it took less than there is"
        got += more
    got += [pickle.loads(bytes(record)) for record in taken]
    monkeypatch.undo()
    assert sorted([*got, *q.get_many(False)]) == list(range(500))


def test_get_many_waits_for_the_first_item_only() -> None:
    q: Any = TurboQueue()
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(q.get_many(True, LONG, 100)))
    thread.start()
    q.put("only")
    thread.join(LONG)
    assert got == [["only"]]


def test_put_many_and_put_keep_their_order() -> None:
    q: Any = TurboQueue()
    for turn in range(50):
        q.put((turn, 0))
        q.put_many([(turn, 1), (turn, 2)])
        q.put((turn, 3))
    assert drain(q) == [(turn, step) for turn in range(50) for step in range(4)]


# -- context manager, paths


def test_a_with_statement_closes() -> None:
    with TurboQueue() as q:
        q.put(1)
        other = pickle.loads(pickle.dumps(q))
    with pytest.raises(ValueError, match="is closed"):
        q.put(2)
    assert other.get_nowait() == 1


def test_unrelated_programs_meet_at_a_path_and_items_stay_when_all_have_gone(tmp_path: Path) -> None:
    path = str(tmp_path / "some" / "queue")
    run = "import sys; from tqshim import TurboQueue; q = TurboQueue(path=sys.argv[1]); "

    def program(code: str) -> str:
        done = subprocess.run([sys.executable, "-c", run + code, path], capture_output=True, timeout=LONG, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    program("[q.put(n) for n in range(10)]")
    assert program("print(q.get(), q.get())") == "0 1\n"
    program("q.put_many(range(10, 13))")
    assert program("print(q.qsize(), q.get_many())").startswith("11 [2, 3")
    q: Any = TurboQueue(path=path)
    assert q.empty()
    assert os.path.isdir(path)


def test_a_path_may_be_relative_or_a_symbolic_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    q: Any = TurboQueue(path="queue")
    os.symlink("queue", "link")
    link: Any = TurboQueue(path="link")
    absolute: Any = TurboQueue(path=str(tmp_path / "queue"))
    for number in range(30):
        (q, link, absolute)[number % 3].put(number)
    assert drain(absolute) == list(range(30))
    monkeypatch.chdir("/")
    q.put("still here")
    assert link.get_nowait() == "still here"


def test_joining_a_path_takes_its_maxsize_and_another_one_is_refused(tmp_path: Path) -> None:
    q: Any = TurboQueue(2, path=str(tmp_path / "queue"))
    same: Any = TurboQueue(2, path=str(tmp_path / "queue"))
    silent: Any = TurboQueue(path=str(tmp_path / "queue"))
    with pytest.raises(ValueError, match="maxsize=2"):
        TurboQueue(3, path=str(tmp_path / "queue"))
    same.put(1)
    silent.put(2)
    with pytest.raises(queue.Full):
        silent.put_nowait(3)
    assert q.full() and drain(q) == [1, 2]


def test_tqshim_dir_chooses_where_anonymous_queues_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TQSHIM_DIR", str(tmp_path))
    q: Any = TurboQueue()
    assert len(os.listdir(tmp_path)) == 1
    q.put(1)
    assert q.get() == 1
    q.close()
    del q
    assert os.listdir(tmp_path) == []
    monkeypatch.setenv("TQSHIM_DIR", str(tmp_path / "missing"))
    with pytest.raises(OSError, match="missing"):
        TurboQueue()


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_size_below_one_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="batch_size"):
        TurboQueue(batch_size=size)


@pytest.mark.in_turn
@pytest.mark.parametrize("size", sampled("batches", [1, 2, 7, 100_000], 2))
def test_any_batch_size_carries_everything_in_order(size: int) -> None:
    q: Any = TurboQueue(batch_size=size)
    for number in range(1000):
        q.put(number)
    assert drain(q) == list(range(1000))


# -- items


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 4095, 65_536, 1 << 20, (1 << 20) + 1, 50 << 20])
def test_items_of_any_size_arrive_whole(size: int) -> None:
    q: Any = TurboQueue()
    item = bytes(os.urandom(min(size, 4096)) * (size // 4096 + 1))[:size]
    q.put("before")
    q.put(item)
    q.put("after")
    assert q.get() == "before"
    assert q.get() == item
    assert q.get() == "after"


@pytest.mark.stress
def test_a_giant_of_more_than_256_mb_arrives_whole() -> None:
    q: Any = TurboQueue()
    item = os.urandom(1 << 20) * 300
    q.put_many(["before", item, "after"])
    assert q.get() == "before"
    assert q.get() == item
    assert q.get() == "after"


@pytest.mark.parametrize("item", [None, (), "", b"", 0, float("inf"), {"a": [1, {2}]}, "\ud800", 1 << 200, ...])
def test_any_picklable_item_arrives_equal(item: Any) -> None:
    q: Any = TurboQueue()
    q.put(item)
    q.put_many([item, item])
    assert [q.get(), *q.get_many()] == [item] * 3


def test_what_changes_after_put_does_not_change_what_arrives() -> None:
    q: Any = TurboQueue()
    item: list[Any] = [1]
    for number in range(10):
        q.put(item)
        item.append(number)
    q.put_many([item, item])
    item.clear()
    got = drain(q)
    assert [len(one) for one in got] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 11]
    assert got[-1] is not got[-2], "put twice, it comes out as two"


def test_many_threads_may_use_one_handle() -> None:
    q: Any = TurboQueue(100)
    threads = [threading.Thread(target=lambda: [q.put(n) for n in range(100)]) for _ in range(20)]
    got: list[int] = []
    takers = [threading.Thread(target=lambda: got.extend(q.get(True, LONG) for _ in range(200))) for _ in range(10)]
    for thread in threads + takers:
        thread.start()
    for thread in threads + takers:
        thread.join(LONG)
    assert sorted(got) == sorted(list(range(100)) * 20)
    assert q.empty()


def test_an_unpicklable_item_raises_in_put_and_the_queue_goes_on() -> None:
    q: Any = TurboQueue()
    q.put(1)
    with pytest.raises(TypeError, match="stays here"):
        q.put(Unpicklable())
    with pytest.raises(TypeError, match="stays here"):
        q.put([2, Unpicklable()])
    with pytest.raises((AttributeError, pickle.PicklingError)):
        q.put(lambda: None)
    q.put(3)
    assert drain(q) == [1, 3]


def test_an_unpicklable_item_takes_no_place_of_a_bounded_queue() -> None:
    q: Any = TurboQueue(1)
    for _ in range(3):
        with pytest.raises(TypeError):
            q.put_nowait(Unpicklable())
    q.put_nowait(1)
    assert q.full() and q.get() == 1


def test_put_many_with_an_unpicklable_item_puts_nothing() -> None:
    q: Any = TurboQueue()
    with pytest.raises(TypeError, match="stays here"):
        q.put_many([1, Unpicklable(), 2])
    assert q.empty()


def test_a_subclass_hears_of_unpicklable_items() -> None:
    q: Any = Reporting()
    bad = Unpicklable()
    q.put(1)
    q.put(bad)
    q.put(2)
    q.put_many([3, bad, 4])
    assert drain(q) == [1, 2, 3, 4]
    assert q.reported == [(TypeError, bad)] * 2


def test_a_batch_of_small_large_and_unpicklable_items_keeps_them_apart() -> None:
    """A large item is written in pieces by its pickler; one that fails may have written some before."""
    q: Any = Reporting()
    large = [bytes([number]) * 70_000 for number in range(4)]
    bad = Unpicklable()
    half_bad = [large[0], bad]
    q.put_many([1, large[1], half_bad, (large[2], "two", large[3]), bad, 2, half_bad])
    assert drain(q) == [1, large[1], (large[2], "two", large[3]), 2]
    assert [item for _, item in q.reported] == [half_bad, bad, half_bad]


class Spreading:
    """Puts a batch while it is pickled."""

    def __init__(self, q: Any) -> None:
        self.q = q

    def __reduce__(self) -> tuple[Any, ...]:
        self.q.put_many(["inner 1", b"." * 70_000, "inner 2"])
        return str, ("spread",)


def test_a_batch_put_while_another_is_pickled_keeps_its_items() -> None:
    q: Any = TurboQueue()
    q.put_many(["first", Spreading(q), "last"])
    assert drain(q) == ["inner 1", b"." * 70_000, "inner 2", "first", "spread", "last"]


def test_an_item_that_fails_to_unpickle_raises_in_its_get_and_all_others_arrive() -> None:
    q: Any = TurboQueue()
    for item in (1, BadAtLoading("first"), 2, 3, BadAtLoading("second"), 4):
        q.put(item)
    assert q.get() == 1
    with pytest.raises(ValueError, match="first can't be loaded"):
        q.get()
    assert q.get() == 2
    assert q.qsize() == 3
    assert q.get_nowait() == 3
    with pytest.raises(ValueError, match="second"):
        q.get_nowait()
    assert q.get(True, 0) == 4
    assert q.empty()


class Signals:
    """Unpickling it sends a signal to who does."""

    def __reduce__(self) -> tuple[Any, ...]:
        return signal.raise_signal, (signal.SIGUSR1,)


class Leaves:
    """Unpickling it ends the program."""

    def __reduce__(self) -> tuple[Any, ...]:
        return sys.exit, (3,)


@pytest.mark.parametrize("many", [False, True])
def test_an_item_that_exits_when_it_is_unpickled_is_gone_then(many: bool) -> None:
    q = TurboQueue()
    q.put_many([1, Leaves(), 2])
    assert q.get() == 1
    with pytest.raises(SystemExit):
        q.get_many() if many else q.get()
    assert q.get() == 2
    assert q.empty()


class Unusual(BaseException):
    """Of a kind that programs seldom raise."""


FAULTS = [ValueError("no"), SystemExit(3), Unusual("no")]


@pytest.mark.parametrize("error", [None, *FAULTS, MemoryError(), OSError(24, "too many")])
@pytest.mark.parametrize("way", ["get", "get_many", "claimed", "in its file"])
def test_an_item_is_unpickled_once(way: str, error: Optional[BaseException]) -> None:
    """Also if that fails: it may have had effects, as where descriptors are fetched for it."""
    q: Any = TurboQueue()
    q.put((bytes(1 << 20), Counting(error)) if way == "in its file" else Counting(error))
    Counting.count = 0
    with contextlib.nullcontext() if error is None else pytest.raises(type(error)):
        if way == "claimed":
            with q.claimed():
                pass
        else:
            q.get_many() if way == "get_many" else q.get()
    assert Counting.count == 1
    assert q.empty()


@pytest.mark.parametrize("error", FAULTS)
@pytest.mark.parametrize("large", [False, True])
def test_items_of_a_batch_are_unpickled_once(large: bool, error: BaseException) -> None:
    """Where the second fails, the first is returned, and the next call raises what that has raised."""
    q: Any = TurboQueue()
    one = Counting(None)
    q.put_many([(bytes(1 << 20), one) if large else one, Counting(error), one])
    Counting.count = 0
    assert len(q.get_many()) == 1
    with pytest.raises(type(error), match=str(error)):
        q.get() if large else q.get_many()
    assert Counting.count == 2
    assert len(q.get_many()) == 1
    assert Counting.count == 3
    assert q.empty()


@pytest.mark.parametrize("way", ["get", "get_many", "claimed"])
def test_what_was_unpickled_when_a_handler_raised_is_not_unpickled_again(way: str) -> None:
    """But for the item that was being unpickled, and for one that a block had, which may have changed it."""

    def interrupt(*_: object) -> None:
        raise TimeoutError("handler")

    q: Any = TurboQueue()
    former = signal.signal(signal.SIGUSR1, interrupt)
    try:
        q.put_many([Counting(None), Counting(None), Signals(), 4])
        Counting.count = 0
        with pytest.raises(TimeoutError):
            q.get_many()
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        if way == "claimed":
            for _ in range(2):
                with pytest.raises(KeyError), q.claimed() as first:
                    raise KeyError
            with q.claimed() as again:
                assert again is not first
        got = list(q.drain()) if way == "get" else q.get_many()
        assert got[-1] == 4 and len(got) == (3 if way == "claimed" else 4)
        assert Counting.count == (4 if way == "claimed" else 2)
    finally:
        signal.signal(signal.SIGUSR1, former)


def test_the_objects_of_a_large_item_are_not_remembered() -> None:
    """Else each later item pays for them."""
    q = TurboQueue()
    q.put("small")
    pens = pickling._pens[:]
    q.put([str(number) for number in range(1000)])
    q.put_many(["small", [str(number) for number in range(1000)]])
    assert not {id(pen[0]) for pen in pens} & {id(pen[0]) for pen in pickling._pens}
    q.put("small again")
    pens = pickling._pens[:]
    q.put("and again")
    assert pickling._pens == pens
    assert [q.get() for _ in range(5)][::4] == ["small", "small again"]


@pytest.mark.parametrize("maxsize", [0.0, -1, -1.5, False])
def test_any_number_below_one_is_no_bound(maxsize: Any) -> None:
    assert multiprocessing.Queue(maxsize).empty()
    assert TurboQueue(maxsize)._maxsize == 0


@pytest.mark.parametrize("years", [0, 8000, -40])
def test_timeouts_run_out_where_a_library_has_stopped_the_time(years: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As freezegun does: in all modules, but for some of the standard library."""
    for name in ("monotonic", "monotonic_ns", "time", "time_ns", "perf_counter"):
        real = getattr(time, name)
        frozen = real() + years * 31_557_600 * (10**9 if name.endswith("_ns") else 1)
        for module in [module for known, module in sys.modules.items() if known.startswith("tqshim")]:
            for attribute, value in list(vars(module).items()):
                if value is real:
                    monkeypatch.setattr(module, attribute, lambda frozen=frozen: frozen)
        monkeypatch.setattr(time, name, lambda frozen=frozen: frozen)
    q = TurboQueue(1)
    with pytest.raises(Empty):
        q.get(timeout=0.01)
    q.put(1)
    with pytest.raises(Full):
        q.put(2, timeout=0.01)
    assert q.get(timeout=0.01) == 1
    carrier = TurboQueue()
    carrier.put(q)  # its handle is on its way, and nobody else has it open
    del q
    gc.collect()
    TurboQueue().close()  # making one deletes abandoned ones
    assert carrier.get(timeout=0.01).empty()


@pytest.mark.parametrize("left", [("poll", "select"), ("select",)])
def test_sleeping_where_a_library_has_taken_system_calls_away(
    left: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """gevent and eventlet patch ``select`` for the whole program."""
    for name in {"epoll", "poll"} - set(left):
        monkeypatch.delattr(select, name, raising=False)
    q = TurboQueue()
    with pytest.raises(Empty):
        q.get(timeout=0.01)
    child = multiprocessing.get_context("fork").Process(target=q.put, args=("late",))
    child.start()
    assert q.get(timeout=LONG) == "late"
    child.join()


def test_an_item_that_fails_to_unpickle_loses_nothing_of_a_batch() -> None:
    q: Any = TurboQueue()
    q.put_many([1, 2, BadAtLoading("a"), BadAtLoading("b"), 3, BadAtLoading("c")])
    got: list[Any] = []
    errors: list[str] = []
    for _ in range(20):
        try:
            got += q.get_many(False)
        except ValueError as error:
            errors.append(str(error)[0])
        except queue.Empty:
            break
    assert got == [1, 2, 3]
    assert errors == ["a", "b", "c"]


def test_a_reducer_registered_with_multiprocessing_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from multiprocessing.reduction import ForkingPickler

    q: Any = TurboQueue()
    monkeypatch.setitem(ForkingPickler._extra_reducers, Registered, reduce_registered)  # type: ignore[attr-defined]
    q.put(Registered(1))
    q.put_many([Registered(2)])
    assert [q.get().value, q.get().value] == [1001, 1002]


class Shouting(pickle.Pickler):
    """A pickler of a program's own: with methods as those of ``ForkingPickler``."""

    @classmethod
    def dumps(cls, obj: Any) -> memoryview:
        return memoryview(b"!" + pickle.dumps(obj))

    @staticmethod
    def loads(data: Any) -> Any:
        assert type(data) is bytes
        return pickle.loads(data[1:]), "!"


class Mute(multiprocessing.reduction.ForkingPickler):
    """The standard library's, but for one thing."""

    def reducer_override(self, obj: Any) -> Any:
        return (str, ("mute",)) if obj is int else NotImplemented


@pytest.mark.parametrize("size", [1, 100_000, 3_000_000])
def test_another_pickler_in_the_place_of_multiprocessings_is_used(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As recipes do it for dill and cloudpickle, at any time."""
    q: Any = TurboQueue()
    item = bytes(size)
    q.put("before")
    assert q.get() == "before"
    with monkeypatch.context() as patch:
        patch.setattr(multiprocessing.queues, "_ForkingPickler", Shouting)
        q.put(item)
        q.put_many([item] * 6)
        assert q.get() == (item, "!")
        assert q.get() == (item, "!")
        assert q.get_many(max_messages_to_get=2) == [(item, "!")] * 2
        with q.claimed() as claimed:
            assert claimed == (item, "!")
        assert [q.get(), q.get()] == [(item, "!")] * 2
    with monkeypatch.context() as patch:
        patch.setattr(multiprocessing.reduction.ForkingPickler, "dumps", Shouting.dumps)
        patch.setattr(multiprocessing.reduction.ForkingPickler, "loads", Shouting.loads)
        q.put_many([item])
        q.put(item)
        assert [q.get(), q.get()] == [(item, "!")] * 2
    with monkeypatch.context() as patch:
        patch.setattr(multiprocessing.queues, "_ForkingPickler", Mute)
        q.put((int, item))
        q.put_many([(int, item)])
        assert [q.get(), q.get()] == [("mute", item)] * 2
    with monkeypatch.context() as patch:
        patch.setattr(multiprocessing.reduction.ForkingPickler, "reducer_override", Mute.reducer_override, False)
        q.put((int, item))
        q.put_many([(int, item)])
        assert [q.get(), q.get()] == [("mute", item)] * 2
    q.put(int)
    assert q.get() is int


def test_another_pickler_that_fails_is_heard_of(monkeypatch: pytest.MonkeyPatch) -> None:
    q: Any = TurboQueue()
    monkeypatch.setattr(multiprocessing.queues, "_ForkingPickler", Shouting)
    for put in (q.put, lambda item: q.put_many([1, item, 2])):
        with pytest.raises(TypeError, match="stays here"):
            put(Unpicklable())
    assert q.empty()


@pytest.mark.parametrize("place", ["reduction.ForkingPickler", "reduction.ForkingPickler.dumps"])
def test_another_pickler_may_be_there_first(place: str) -> None:
    """Before ``multiprocessing.queues`` and we are imported."""
    code = f"""
import multiprocessing.reduction, pickle, sys
class Mine(pickle.Pickler):
    loads = pickle.loads
    def dumps(obj):
        return pickle.dumps((obj, "mine"))
multiprocessing.{place} = Mine{".dumps" if "dumps" in place else ""}
from tqshim import TurboQueue
q = TurboQueue()
q.put(1)
q.put_many([2])
print(q.get(), q.get_many())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "(1, 'mine') [(2, 'mine')]\n", done.stderr


@pytest.mark.parametrize("kind", [TurboQueue, tqshim.SimpleTurboQueue, tqshim.JoinableTurboQueue])
def test_what_only_a_pipe_has_is_missing_and_says_how_to_wait(kind: Any) -> None:
    q = kind()
    for name in ("_reader", "_writer", "fileno"):
        assert not hasattr(q, name)
        with pytest.raises(AttributeError, match=f"{kind.__name__}' object has no attribute '{name}'.* get_async"):
            getattr(q, name)
    with pytest.raises(AttributeError, match=r"no attribute 'other'$"):
        _ = q.other
    with pytest.raises(TypeError):
        select.select([q], [], [], 0)
    copied = pickle.loads(pickle.dumps(q))
    copied.put(1)
    assert q.get() == 1


def test_connections_and_sockets_can_be_put() -> None:
    q: Any = TurboQueue()
    here, there = multiprocessing.Pipe()
    one, two = socket.socketpair()
    q.put(there)
    q.put(two)
    connection, other = q.get(), q.get()
    connection.send("hello")
    assert here.recv() == "hello"
    other.sendall(b"hello")
    assert one.recv(5) == b"hello"
    for thing in (here, there, one, two, connection, other):
        thing.close()


def test_a_handle_has_a_repr_and_is_hashable_and_a_second_one_is_another_object() -> None:
    q: Any = TurboQueue()
    other = pickle.loads(pickle.dumps(q))
    assert other is not q
    assert {q, other} == {other, q}
    assert "Queue" in repr(q)


@pytest.mark.parametrize("kind", [multiprocessing.get_context().Queue, TurboQueue])
def test_a_subclass_may_show_itself_before_it_is_made(kind: Any) -> None:
    cls = type(kind()) if kind is not TurboQueue else kind

    class Own(cls):  # type: ignore[misc, valid-type]
        def __init__(self, **options: Any) -> None:
            self.before = repr(self)
            super().__init__(**options)

    q = Own() if kind is TurboQueue else Own(ctx=multiprocessing.get_context())
    assert "Own object at" in q.before
    q.close()


def test_a_get_of_several_that_lags_by_more_than_a_journal_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its look and its claim another process takes all, puts more, and rolls the journal more than once."""
    monkeypatch.setattr(tqshim.engine.tuning, "LIMITS", (16, 16))
    monkeypatch.setattr(tqshim.engine.tuning, "LEASES", False)
    monkeypatch.setattr(tqshim.storage.journal, "reserve_space", lambda fd, size: True)  # else journals grow
    q: Any = TurboQueue()
    q.put_many(range(3))
    assert q.get() == 0
    append = Replica.append
    others: list[int] = []

    def roll() -> None:
        replica = q._engine.parts.replica
        number = replica.journal.number
        while replica.journal.number == number:
            append(replica, events.revoke(0, 0))

    def in_between(replica: Replica, data: bytes, again: Any = None) -> Any:
        if data[-events.SIZE] == events.CLAIM_MANY and not others:
            others.append(os.fork())
            if not others[0]:
                try:
                    assert q.get_many() == [1, 2]
                    q._engine.act(roll)
                    q.put_many("abc")
                    q._engine.act(roll)
                    q._engine.act(roll)
                    q._engine.close()
                    os._exit(0)
                finally:
                    os._exit(1)
            assert os.waitpid(others[0], 0)[1] == 0
        return append(replica, data, again)

    monkeypatch.setattr(Replica, "append", in_between)
    assert q.get_many(timeout=5.0) == ["a", "b", "c"]
    assert others
    monkeypatch.undo()
    q.close()
