"""Joinable and simple queues, draining and shutting down: as the standard library's, and across processes."""

from __future__ import annotations

import collections
import copy
import inspect
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import queues
from pathlib import Path
from typing import Any

import pytest
from programs import family
from programs.things import Unpicklable
from watching import AWAITS_DONE, AWAITS_PLACE, SLEEPS, no_naps, until_asleep

import tqshim
from tqshim import Empty, Full, JoinableTurboQueue, ShutDown, SimpleTurboQueue, TurboQueue
from tqshim.protocol import events

PATIENCE = 60.0


def started(context: Any, target: Callable[..., Any], *arguments: Any) -> Any:
    process = context.Process(target=target, args=arguments)
    process.start()
    return process


def ended(process: Any, code: int = 0) -> None:
    process.join(PATIENCE)
    assert process.exitcode == code


# -- the names


def test_aliases_are_the_classes_and_exceptions_are_the_stdlibs() -> None:
    assert (tqshim.Queue, tqshim.JoinableQueue, tqshim.SimpleQueue) == (
        TurboQueue,
        JoinableTurboQueue,
        SimpleTurboQueue,
    )
    assert (Empty, Full) == (queue.Empty, queue.Full)
    assert getattr(queue, "ShutDown", ShutDown) is ShutDown
    assert pickle.loads(pickle.dumps(ShutDown("why"))).args == ("why",)


@pytest.mark.parametrize("name", ["Queue", "JoinableQueue", "SimpleQueue"])
def test_signatures_are_the_stdlibs(name: str) -> None:
    """Each public method takes what the standard library's takes; extras stand behind, and have defaults."""
    ours, theirs = getattr(tqshim, name), getattr(queues, name)
    assert issubclass(ours, theirs)
    for method in (method for method in vars(theirs) if not method.startswith("_")):
        told = list(inspect.signature(getattr(theirs, method)).parameters.values())
        found = list(inspect.signature(getattr(ours, method)).parameters.values())
        assert [(p.name, p.kind, p.default) for p in found[: len(told)]] == [(p.name, p.kind, p.default) for p in told]
        assert all(p.default is not p.empty for p in found[len(told) :]), method


# -- joinable


def test_join_waits_for_all_items_of_all_processes(context: Any) -> None:
    tasks, results = JoinableTurboQueue(), SimpleTurboQueue()
    workers = [started(context, family.count_off, tasks, results, 20) for _ in range(3)]
    for item in range(60):
        tasks.put(item)
    tasks.join()
    assert tasks.empty()
    for worker in workers:
        ended(worker)
    assert sorted(results.get() for _ in range(60)) == list(range(60))
    with pytest.raises(ValueError, match=r"task_done\(\) called too many times"):
        tasks.task_done()


def test_items_that_a_worker_puts_count_before_it_is_done(context: Any) -> None:
    """A tree of items: were one called off before its children count, a join would return in the middle."""
    tasks = JoinableTurboQueue()
    workers = [started(context, family.branch, tasks) for _ in range(2)]
    for depth in (4, 6, 8):
        tasks.put(depth)
        assert tasks.join(timeout=PATIENCE)
        assert tasks.empty()
    for _ in workers:
        tasks.put(None)
    assert tasks.join(timeout=PATIENCE)
    for worker in workers:
        ended(worker)


def test_all_who_join_wake_up_at_once(context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In several processes, and several threads of one: each is rung for, no nap ends."""
    no_naps(monkeypatch)
    tasks, says = JoinableTurboQueue(), SimpleTurboQueue()
    tasks.put("task")
    joiners = [started(context, family.wait_for_all, tasks, says) for _ in range(2)]
    threads = [threading.Thread(target=tasks.join) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert [says.get() for _ in joiners] == ["waits", "waits"]
    until_asleep(tasks, AWAITS_DONE, 3, 4)
    tasks.get()
    tasks.task_done()
    for thread in threads:
        thread.join(timeout=PATIENCE)
        assert not thread.is_alive()
    assert [says.get() for _ in joiners] == ["joined", "joined"]
    for joiner in joiners:
        ended(joiner)


@pytest.mark.in_turn
def test_items_that_nobody_has_cut_yet_count_for_join_and_task_done(context: Any) -> None:
    """Another process's put has returned: its item is to be waited for, whether a process has looked at it or not."""
    tasks, says = JoinableTurboQueue(), SimpleTurboQueue()
    for _ in range(10):
        assert tasks.join(timeout=0) is True
        producer = started(context, family.put_then_say, tasks, says, 3)
        assert says.get() == "all put"
        assert tasks.join(timeout=0) is False
        for left in (2, 1, 0):
            tasks.task_done()  # of items that nobody has got
            assert tasks.join(timeout=0) is (left == 0)
        with pytest.raises(ValueError, match="too many times"):
            tasks.task_done()
        producer.kill()
        ended(producer, -signal.SIGKILL)
        assert tasks.get_many() == [0, 1, 2]


def test_join_with_a_timeout_ends_although_a_consumer_was_killed(context: Any) -> None:
    """Its item is its user's business, as in the standard library: nobody else's count changes."""
    tasks = JoinableTurboQueue()
    tasks.put("lost")
    tasks.put("kept")
    ended(started(context, family.die_with_an_item, tasks), -signal.SIGKILL)
    assert tasks.get() == "kept"
    tasks.task_done()
    assert tasks.join(timeout=0.01) is False
    tasks.task_done()
    assert tasks.join() is True
    with pytest.raises(ValueError, match="too many times"):
        tasks.task_done()


def test_counts_outlive_rolls_processes_and_close(many_rolls: None, tmp_path: Path) -> None:
    """At a path the count stays with the items; and a closed handle can still call off and join."""
    tasks = JoinableTurboQueue(path=str(tmp_path / "tasks"))
    for item in range(300):
        tasks.put(item)
    for _ in range(299):
        tasks.get()
        tasks.task_done()
    tasks.close()
    del tasks
    tasks = JoinableTurboQueue(path=str(tmp_path / "tasks"))
    assert tasks.join(timeout=0) is False
    assert tasks.get() == 299
    tasks.close()
    tasks.task_done()
    tasks.join()


def test_an_item_that_was_refused_does_not_count() -> None:
    tasks = JoinableTurboQueue(2)
    tasks.put(1)
    with pytest.raises(TypeError, match="stays here"):
        tasks.put(Unpicklable())
    tasks.put_many([2])
    with pytest.raises(Full):
        tasks.put_nowait(3)
    for _ in range(2):
        tasks.task_done()
    tasks.join()


# -- simple


def test_simple_queue_carries_calls_and_answers(context: Any) -> None:
    calls, answers = SimpleTurboQueue(), SimpleTurboQueue()
    assert calls.empty()
    child = started(context, family.echo, calls, answers)
    for item in ("a", 1, [calls.empty]):
        calls.put(item)
    assert [answers.get(), answers.get()] == ["a", 1]
    assert answers.get()[0]() is True  # a bound method travels with its queue
    calls.put(None)
    ended(child)


def test_simple_queue_takes_more_than_a_pipe_holds_without_a_reader() -> None:
    simple = SimpleTurboQueue()
    for item in range(50):
        simple.put(bytes(10_000))
        assert not simple.empty(), item
    assert sum(len(simple.get()) for _ in range(50)) == 500_000


@pytest.mark.parametrize("make", [TurboQueue, JoinableTurboQueue, SimpleTurboQueue])
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda handle: pickle.loads(pickle.dumps(handle))])
def test_a_copy_is_a_handle_of_its_own(make: Any, copied: Callable[[Any], Any]) -> None:
    first = make()
    second = copied(first)
    second.close()
    first.put("item")
    assert first.get() == "item"


@pytest.mark.parametrize("make", [SimpleTurboQueue, multiprocessing.SimpleQueue])
def test_a_closed_simple_queue_raises_what_the_stdlibs_raises(make: Callable[[], Any]) -> None:
    simple = make()
    simple.close()
    simple.close()
    for act in (simple.get, simple.empty, lambda: simple.put(1)):
        with pytest.raises(OSError, match="handle is closed"):
            act()


# -- draining


def test_drain_yields_what_is_there_and_ends(many_rolls: None) -> None:
    """Also where more is put meanwhile; and what it has not come to stays."""
    turbo = TurboQueue()
    assert list(turbo.drain()) == []
    turbo.put_many(range(10))
    seen = []
    for item in turbo.drain():
        seen.append(item)
        turbo.put(item + 10)
    assert seen == list(range(10))
    for item in turbo.drain():
        if item == 14:
            break
    assert turbo.get_many() == [15, 16, 17, 18, 19]


# -- shutting down


def test_shutdown_ends_put_at_once_and_get_when_nothing_is_left(without: str) -> None:
    turbo = TurboQueue()
    for item in range(1000):
        turbo.put(item)
    turbo.shutdown()
    for put in (lambda: turbo.put(1), lambda: turbo.put_nowait(1), lambda: turbo.put_many([1])):
        with pytest.raises(ShutDown):
            put()
    with pytest.raises(ShutDown):
        turbo.put(1, timeout=PATIENCE)
    assert turbo.qsize() == 1000
    assert [turbo.get() for _ in range(997)] == list(range(997))
    assert turbo.get_many() == [997, 998, 999]
    for get in (turbo.get, turbo.get_nowait, lambda: turbo.get(timeout=PATIENCE), turbo.get_many):
        with pytest.raises(ShutDown):
            get()


def test_shutdown_at_once_drops_what_waits(without: str) -> None:
    for maxsize in (0, 1000):
        tasks = JoinableTurboQueue(maxsize)
        for item in range(500):
            tasks.put(item)
        assert [tasks.get() for _ in range(20)] == list(range(20))
        tasks.shutdown(immediate=True)
        assert tasks.empty()
        assert not tasks.full()
        with pytest.raises(ShutDown):
            tasks.get()
        assert not tasks.join(timeout=0)  # twenty were got, and are not done
        for _ in range(20):
            tasks.task_done()
        tasks.join()
        tasks.shutdown(immediate=True)
        tasks.shutdown()


@pytest.mark.in_turn
@pytest.mark.parametrize("immediate", [False, True])
def test_waiters_in_get_or_put_wake_up_in_every_process(
    context: Any, immediate: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_naps(monkeypatch)
    empty, full, says = TurboQueue(), TurboQueue(1), SimpleTurboQueue()
    full.put("first")
    getters = [started(context, family.report, says, empty.get) for _ in range(2)]
    putters = [started(context, family.report, says, full.put, 1) for _ in range(2)]
    outcomes: collections.Counter[str] = collections.Counter()

    def wait_here(act: Callable[..., Any], *arguments: Any) -> None:
        try:
            act(*arguments)
        except ShutDown:
            outcomes["ShutDown"] += 1

    threads = [threading.Thread(target=wait_here, args=(empty.get,)) for _ in range(3)]
    threads += [threading.Thread(target=wait_here, args=(full.put, 1)) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert [says.get() for _ in range(4)] == ["begins"] * 4
    until_asleep(empty, SLEEPS, 3, 3)
    until_asleep(full, AWAITS_PLACE, 3, 3)
    empty.shutdown(immediate)
    full.shutdown(immediate)
    for thread in threads:
        thread.join(timeout=PATIENCE)
    assert outcomes == {"ShutDown": 6}
    assert [says.get() for _ in range(4)] == [("raises", "ShutDown")] * 4
    for process in getters + putters:
        ended(process)


@pytest.mark.parametrize("immediate", [False, True])
def test_a_stopped_producer_keeps_no_shutdown_waiting_and_puts_nothing_after_it(context: Any, immediate: bool) -> None:
    """What it had put is there at once, what it puts when it goes on is refused, and nothing comes late."""
    tasks, says = TurboQueue(), SimpleTurboQueue()
    producer = started(context, family.put_and_be_stopped, tasks, says, 10)
    assert says.get() == "all put"
    os.kill(producer.pid, signal.SIGSTOP)
    tasks.shutdown(immediate)
    assert list(tasks.drain()) == ([] if immediate else list(range(10)))
    with pytest.raises(ShutDown):
        tasks.get()
    os.kill(producer.pid, signal.SIGCONT)
    assert says.get() == "too late"
    ended(producer)
    assert tasks.qsize() == 0
    with pytest.raises(ShutDown):
        tasks.get_nowait()


@pytest.mark.parametrize("immediate", [False, True])
@pytest.mark.parametrize("who", ["get", "get_nowait", "put", "put_nowait", "join", "is_shutdown"])
def test_a_shutdown_whose_process_was_killed_in_its_middle_is_finished_by_anybody(who: str, immediate: bool) -> None:
    """It had said that it wants to, and no more."""
    tasks = JoinableTurboQueue(10)
    tasks.put(0)
    child = os.fork()
    if child == 0:
        tasks.put(1)
        engine = tasks._engine
        engine.act(lambda: engine.parts.replica.append(events.closing(immediate)))
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    put = []
    if who.startswith("put"):
        with pytest.raises(ShutDown):  # the first of them may be there before it is known, and stays
            while len(put) < 3:
                getattr(tasks, who)(2 + len(put))
                put.append(2 + len(put))
    elif who == "join":
        assert tasks.join(timeout=0) is immediate
    elif who == "is_shutdown":
        assert tasks.is_shutdown
    found = []
    with pytest.raises(ShutDown):
        while True:
            found.append(tasks.get_nowait() if who == "get_nowait" else tasks.get())
    assert tasks.is_shutdown
    if immediate and who.startswith("get"):
        assert found == [0, 1][: len(found)]  # the finder of items need not finish it
    else:
        assert found == ([] if immediate else [0, 1, *put]) and len(put) < 2


@pytest.mark.parametrize("kind", ["get", "put", "join"])
def test_who_waits_finishes_a_shutdown_whose_process_was_killed_in_its_middle(kind: str) -> None:
    tasks = JoinableTurboQueue(1)
    if kind != "get":
        tasks.put(0)
    acts: dict[str, Callable[[], Any]] = {"get": tasks.get, "put": lambda: tasks.put(1), "join": tasks.join}
    outcome: list[str] = []

    def wait_here() -> None:
        try:
            outcome.append(str(acts[kind]()))
        except ShutDown:
            outcome.append("ShutDown")

    thread = threading.Thread(target=wait_here)
    thread.start()
    until_asleep(tasks, {"get": SLEEPS, "put": AWAITS_PLACE, "join": AWAITS_DONE}[kind])
    child = os.fork()
    if child == 0:
        engine = tasks._engine
        engine.act(lambda: engine.parts.replica.append(events.closing(True)))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    thread.join(PATIENCE)
    assert outcome == ["True" if kind == "join" else "ShutDown"]


@pytest.mark.parametrize("wait", ["get", "put", "join"])
def test_what_a_process_has_put_that_waits_elsewhere_is_there(context: Any, wait: str) -> None:
    """The process that is to answer it waits for that."""
    tasks, other = TurboQueue(), JoinableTurboQueue(1)
    if wait != "get":
        other.put("full")
    producer = started(context, family.put_and_wait, tasks, other, wait)
    until_asleep(other, {"get": SLEEPS, "put": AWAITS_PLACE, "join": AWAITS_DONE}[wait])
    assert tasks.qsize() == 10
    assert [tasks.get_nowait() for _ in range(10)] == list(range(10))
    if wait == "get":
        other.put("item")
    else:
        other.get()
        other.task_done()
    ended(producer)


def test_a_producer_that_goes_on_learns_of_a_shutdown() -> None:
    """By another process: one of its puts raises, and all those before it have put, no more and no less."""
    turbo = TurboQueue()
    child = os.fork()
    if child == 0:
        time.sleep(0.01)
        turbo.shutdown()
        os._exit(0)
    put = 0
    with pytest.raises(ShutDown):
        while True:
            turbo.put(put)
            put += 1
    assert os.waitpid(child, 0)[1] == 0
    found = []
    with pytest.raises(ShutDown):
        while True:
            found.append(turbo.get())
    assert found == list(range(put))


def test_put_many_says_how_many_were_put_before_the_shutdown() -> None:
    turbo = TurboQueue(4)
    thread = threading.Thread(target=lambda: (until_asleep(turbo, AWAITS_PLACE), turbo.shutdown()))
    thread.start()
    with pytest.raises(ShutDown, match="4 of 10 items were put"):
        turbo.put_many(range(10))
    thread.join()
    assert list(turbo.drain()) == [0, 1, 2, 3]


@pytest.mark.skipif(sys.version_info < (3, 13), reason="queue.Queue.shutdown is of Python 3.13")
@pytest.mark.parametrize("immediate", [False, True])
def test_shutdown_does_what_queue_queue_does(immediate: bool) -> None:
    def story(one: Any) -> list[Any]:
        told: list[Any] = []

        def tell(act: Callable[..., Any], *arguments: Any) -> None:
            try:
                told.append(act(*arguments))
            except Exception as error:
                told.append((type(error), str(error)))

        for item in range(3):
            tell(one.put, item)
        tell(one.get)
        tell(one.shutdown, immediate)
        tell(one.qsize)
        tell(one.put_nowait, 1)
        for _ in range(3):
            tell(one.get_nowait)
        for _ in range(4):
            tell(one.task_done)
        tell(one.shutdown, not immediate)
        tell(one.get)
        return told

    assert story(JoinableTurboQueue(5)) == story(queue.Queue(5))
