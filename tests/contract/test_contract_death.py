"""Who is killed loses what it had in its hand and no more; who is stopped keeps nobody from anything; who ends leaves
all to the others."""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from contract_tools import PATIENCE, all_of, within
from signalling import lost_in_return, signalled_before

import tqshim


class Unloadable:
    """Can be put, and not be unpickled."""

    def __reduce__(self) -> Any:
        return int, ("no number",)


@pytest.mark.parametrize("ends", ["kill", "end"])
@pytest.mark.parametrize("maxsize", [0, 1000])
def test_what_was_put_is_there_whatever_became_of_its_producer(ends: str, maxsize: int, other: Any) -> None:
    with tqshim.Queue(maxsize) as q:
        for turn in range(3):
            putter = other(q)
            for number in range(5):
                putter.do("put", (turn, number))
            getattr(putter, ends)()
            if turn == 1:
                q.put((turn, 5))
                continue  # what two have left is got at once
            got = all_of(q)
            assert got[-5:] == [(turn, number) for number in range(5)]
            assert len(got) == (5 if turn == 0 else 11)


def test_a_killed_producer_keeps_no_place(other: Any) -> None:
    with tqshim.Queue(300) as q:
        for _ in range(3):
            putter = other(q)
            for number in range(10):
                putter.do("put", number)
            putter.kill()
            assert q.qsize() == 10
            for number in range(290):
                q.put_nowait(number)
            with pytest.raises(tqshim.Full):
                q.put_nowait("too many")
            assert len(all_of(q)) == 300


def test_a_killed_consumer_takes_nothing_along(other: Any) -> None:
    """It had begun with a backlog."""
    with tqshim.Queue() as q:
        for _ in range(3):
            q.put_many(range(100))
            reader = other(q)
            assert [reader.do("get") for _ in range(5)] == list(range(5))
            reader.kill()
            assert q.qsize() == 95
            assert all_of(q) == list(range(5, 100))


def test_who_lives_is_not_taken_for_dead(other: Any) -> None:
    """Others look for the dead whenever one joins, and each second: a producer that does nothing meanwhile goes on."""
    with tqshim.Queue() as q:
        putter, reader = other(q), other(q)
        putter.do("put", 0)
        assert reader.do("get") == 0
        reader.begin("get")
        for one in (q, other(q)):
            with pytest.raises(tqshim.Empty):
                one.get_nowait() if one is q else one.do("get", timeout=0.01)
        time.sleep(1.2)
        for number in range(1, 6):
            putter.do("put", number)
        assert [reader.answer(), *all_of(q)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("role", ["producer", "consumer", "holder"])
def test_who_is_stopped_keeps_nobody_waiting(role: str, other: Any) -> None:
    with tqshim.Queue(20) as q:
        stopped = other(q)
        q.put_many(range(10))
        if role == "producer":
            stopped.do("put", 10)
        elif role == "consumer":
            assert stopped.do("get") == 0
        else:
            stopped.begin(_hold_for_ever)
            assert within(PATIENCE, lambda: q.qsize() == 9)
        stopped.stop()
        began = time.monotonic()
        left = all_of(q)
        assert left == {"producer": list(range(11)), "consumer": list(range(1, 10)), "holder": list(range(1, 10))}[role]
        count = 0
        with pytest.raises(tqshim.Full):
            for count in range(100):
                q.put_nowait(count)
        assert count == (19 if role == "holder" else 20)
        assert time.monotonic() - began < 1
        stopped.go_on()


def _hold_for_ever(q: Any) -> None:
    with q.claimed():
        time.sleep(1000)


@pytest.mark.parametrize("waits", [False, True])
def test_an_item_comes_back_whose_holder_was_killed(waits: bool, other: Any) -> None:
    """Within seconds, to who waits; at once, to who finds nothing after a second."""
    with tqshim.Queue() as q:
        q.put("for us")
        assert q.get() == "for us"
        holder = other(q)
        q.put_many(["held", "next"])
        holder.begin(_hold_for_ever)
        assert within(PATIENCE, lambda: q.qsize() == 1)
        holder.kill()
        if not waits:
            time.sleep(1.1)
        began = time.monotonic()
        with q.claimed(timeout=PATIENCE) as first:
            second = q.get(timeout=PATIENCE)
            assert {first, second} == {"held", "next"}
        assert time.monotonic() - began < (2.5 if waits else 1)
        assert q.empty()


@pytest.mark.parametrize("ends", ["close", "end"])
@pytest.mark.parametrize("then", ["unbounded", "full", "shut"])
def test_who_ends_leaves_what_a_get_had_taken_to_others(then: str, ends: str, other: Any) -> None:
    """Items behind one that could not be unpickled are in nobody's hand when their process ends, be there places for
    them or not."""
    with tqshim.Queue(0 if then == "unbounded" else 6) as q:
        reader = other(q)
        q.put_many([0, 1, Unloadable(), 3, 4, 5])
        assert reader.do("get_many") == [0, 1]
        q.put_many(range(6, 12))
        if then == "shut":
            q.shutdown()
        if ends == "close":
            reader.do("close")
        else:
            reader.end()
        if then == "full":
            for beyond in range(4, 0, -1):
                assert q.qsize() == 6 + beyond
                with pytest.raises(tqshim.Full):
                    q.put_nowait("too much")
                q.get()
        got = []
        while True:
            try:
                got.append(q.get(timeout=0.2))
            except ValueError:
                got.append("unloadable")
            except (tqshim.Empty, tqshim.ShutDown):
                break
        left = [one for one in got if one != "unloadable"]
        assert sorted(left) == [3, 4, 5, *range(6 if then != "full" else 10, 12)]
        if then == "full":
            q.put_many_nowait(range(6))
            assert q.full()
            with pytest.raises(tqshim.Full):
                q.put_nowait("too much")


def test_items_behind_one_that_cannot_be_unpickled_keep_their_order() -> None:
    with tqshim.Queue() as q:
        q.put_many([0, 1, Unloadable(), 3, 4, Unloadable(), 6, 7, 8])
        assert q.get_many() == [0, 1]
        assert q.qsize() == 7
        with pytest.raises(ValueError, match="no number"):
            q.get_many()
        assert q.qsize() == 6
        assert q.get() == 3
        assert q.get_many(max_messages_to_get=3) == [4]
        with pytest.raises(ValueError, match="no number"):
            q.get()
        assert all_of(q) == [6, 7, 8]


def test_an_item_that_cannot_be_unpickled_is_gone_and_all_others_arrive() -> None:
    with tqshim.Queue() as q:
        for put in (q.put_many, lambda items: [q.put(item) for item in items]):
            put([Unloadable(), "good"] * 3)
            for _ in range(3):
                with pytest.raises(ValueError, match="no number"):
                    q.get_nowait()
                assert q.get_nowait() == "good"
            q.put(Unloadable())
            with pytest.raises(ValueError, match="no number"), q.claimed():
                pass
            assert q.empty()


def test_more_processes_than_a_page_has_slots(other: Any) -> None:
    """Seventy that live at once, and each of them has put something."""
    with tqshim.Queue() as q:
        children = []
        read, write = os.pipe()
        for name in range(70):
            child = os.fork()
            if not child:
                try:
                    q.put(name)
                    os.write(write, b".")
                    signal.pause()
                finally:
                    os._exit(1)
            children.append(child)
        try:
            for _ in children:
                os.read(read, 1)
            assert q.qsize() == 70
            assert sorted(all_of(q)) == list(range(70))
        finally:
            for child in children:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            os.close(read)
            os.close(write)


def test_slots_are_used_again(other: Any) -> None:
    """Each of many processes, one after another, is a producer or a consumer of its own."""
    with tqshim.Queue(10) as q:
        for turn in range(30):
            one = other(q)
            one.do("put", turn)
            one.do("put", turn)
            assert one.do("get") == turn
            one.kill() if turn % 3 else one.end()
            assert q.get_nowait() == turn
            assert q.empty()


class Interrupted(Exception):
    pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a weak reference has swallowed it
@pytest.mark.parametrize("way", ["get", "get alone", "get_many", "claimed", "put"])
def test_interruptions_lose_and_double_nothing(way: str, other: Any) -> None:
    """A signal handler raises at any moment of an act: what was not returned is there, what was, is not."""
    with tqshim.Queue() as q:
        reader = other(q)
        if way != "get alone":
            q.put("first")
            assert reader.do("get") == "first"  # it might want some more, so items are taken one by one
        armed = [False]

        def handler(*_: object) -> None:
            if armed[0]:
                armed[0] = False
                raise Interrupted

        former = signal.signal(signal.SIGALRM, handler)
        choice = random.Random(7)
        got: list[Any] = []
        put: list[int] = []
        unsure: set[int] = set()
        interrupted = 0
        numbers = itertools.count()
        held: list[Any] = []

        def act(batch: list[int]) -> None:
            armed[0] = True
            # By C code where items are got: nothing runs between a call's return and the note of it.
            if way.startswith("get") and way != "get_many":
                got.extend(map(q.get, [False] * 3))
            elif way == "get_many":
                got.extend(itertools.chain.from_iterable(map(q.get_many, [False] * 3, [None] * 3, [2] * 3)))
            for number in batch:
                if way == "put":
                    unsure.add(number)
                    q.put(number)
                    put.append(number)
                    unsure.discard(number)
                elif way == "claimed":
                    with q.claimed(False) as item:
                        held.append(item)
                    got.extend(held)
                    held.clear()

        try:
            deadline = time.monotonic() + 5.0
            while interrupted < 600 and time.monotonic() < deadline:
                batch = list(itertools.islice(numbers, 3))
                if way != "put":
                    q.put_many(batch)
                    put += batch
                signal.setitimer(signal.ITIMER_REAL, choice.random() * (2e-5 if way == "put" else 25e-5) + 1e-6)
                held.clear()
                try:
                    # A function: some Pythons leave jumps of a try block out of what its except clauses cover.
                    with contextlib.suppress(tqshim.Empty):
                        act(batch)
                    armed[0] = False
                    returned = True
                except Interrupted as error:
                    interrupted += 1
                    unsure.update(held)
                    returned = not lost_in_return(error, q.get_many if way == "get_many" else q.get)
                signal.setitimer(signal.ITIMER_REAL, 0)
                armed[0] = False
                if way != "put":
                    got += all_of(q)
                if not returned:
                    missing = set(batch).difference(got)
                    assert len(missing) <= (2 if way == "get_many" else 1)
                    unsure |= missing
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, former)
        got += all_of(q)
        assert interrupted > 20
        assert len(got) == len(set(got)), sorted(one for one in set(got) if got.count(one) > 1)
        lost = set(put) - set(got) - unsure
        assert not lost, f"{len(lost)} of {len(put)} are lost, after {interrupted} interruptions"
        assert set(got) <= set(put) | unsure


@pytest.mark.parametrize("waiting", ["one by one", "at once"])
@pytest.mark.parametrize("way", ["get", "get_many"])
def test_a_handler_may_raise_at_any_instruction_of_a_get(way: str, waiting: str) -> None:
    """What was not returned is there, also where it was about to be returned."""

    def handler(*_: object) -> None:
        raise Interrupted

    former = signal.signal(signal.SIGUSR1, handler)
    try:
        for instruction in itertools.count(1):
            with tqshim.Queue() as q:
                if waiting == "at once":
                    q.put_many(range(20))
                else:
                    for number in range(5):
                        q.put(number)
                items = list(range(q.qsize()))
                got = [q.get_nowait()]
                take = getattr(q, way)
                # By C code, as above.
                gets = map(take, [False] * 3)
                if way == "get_many":
                    gets = itertools.chain.from_iterable(map(take, [False] * 3, [None] * 3, [1] * 3))
                returned = True
                try:
                    if not signalled_before(instruction, take, signal.SIGUSR1, functools.partial(got.extend, gets)):
                        break
                except Interrupted as error:
                    returned = not lost_in_return(error, take)
                got += all_of(q)
                lost = [item for item in items if item not in got]
                assert sorted(got + lost) == items
                assert len(lost) == (not returned), f"{lost} of {items} at instruction {instruction}"
    finally:
        signal.signal(signal.SIGUSR1, former)
    assert instruction > 50


def test_a_child_that_is_forked_takes_nothing_of_its_parents(other: Any) -> None:
    """The parent was in the middle of a backlog, and of a log: both go on, each with its own."""
    with tqshim.Queue() as q, tqshim.Queue() as told:
        q.put_many(range(100))
        assert [q.get() for _ in range(5)] == list(range(5))
        child = os.fork()
        if not child:
            try:
                mine = [q.get() for _ in range(20)]
                q.put("child")
                told.put(mine)
            finally:
                os._exit(0)
        mine = told.get(timeout=PATIENCE)
        os.waitpid(child, 0)
        q.put("parent")
        got = all_of(q)
        assert sorted(mine + got[:-2]) == list(range(5, 100))
        assert got[-2:] == ["child", "parent"]


def test_children_that_are_forked_beside_busy_threads_go_on() -> None:
    """At the fork another thread may be in the middle of an act: its lock is not the child's."""
    with tqshim.Queue() as q, tqshim.Queue() as told:
        stop = threading.Event()

        def work() -> None:
            while not stop.is_set():
                q.put_many([bytes(50_000)] * 4)
                with contextlib.suppress(tqshim.Empty):
                    q.get_many_nowait()

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        children = []
        try:
            for name in range(25):
                child = os.fork()
                if not child:
                    try:
                        q.put(b"child")
                        told.put(name)
                    finally:
                        os._exit(0)
                children.append(child)
            assert sorted(told.get(timeout=PATIENCE) for _ in children) == list(range(25))
        finally:
            stop.set()
            for child in children:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            for thread in threads:
                thread.join()


@pytest.mark.parametrize("way", ["put", "qsize", "join"])
def test_who_forks_in_a_handler_while_it_waits_for_a_thread_goes_on(way: str) -> None:
    """The child's frame below the handler waits for what a thread had that the child has not."""
    package = str(Path(inspect.getfile(tqshim)).parent)
    with tqshim.JoinableQueue() as q, tqshim.Queue() as told:
        act = {"put": lambda: q.put(b"x"), "qsize": q.qsize, "join": lambda: q.join(timeout=0)}[way]
        stop = threading.Event()
        is_child: list[bool] = []
        children: list[int] = []

        def work() -> None:
            # Slowly, on a busy machine, too: it mostly has what the other thread waits for.
            sys.settrace(lambda frame, *_: time.sleep(0.0005) if frame.f_code.co_filename.startswith(package) else None)
            while not stop.is_set():
                q.put_many([b"y"] * 4)
                q.get_many()

        def handler(*_: object) -> None:
            child = os.fork()
            if child:
                children.append(child)
            else:
                is_child.append(True)

        former = signal.signal(signal.SIGALRM, handler)
        thread = threading.Thread(target=work)
        thread.start()
        try:
            for _ in range(50):
                count = len(children)
                signal.setitimer(signal.ITIMER_REAL, 0.004)
                said = "child"
                while len(children) == count and not is_child:
                    try:
                        act()
                    except Exception as error:
                        said = repr(error)
                if is_child:
                    told.put(said)
                    os._exit(0)
            assert [told.get(timeout=PATIENCE) for _ in children] == ["child"] * len(children)
        finally:
            stop.set()
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, former)
            for child in children:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            thread.join()


def test_what_went_through_a_queue_takes_no_space(tmp_path: Path, other: Any) -> None:
    """Files go when their items were got, by whichever processes they were put and got."""
    with tqshim.Queue(path=tmp_path / "q") as q:
        putter = other(q)
        for _ in range(60):
            putter.do("put_many", [bytes(5000)] * 40)
            q.put_many([bytes(5000)] * 40)
            assert sum(len(q.get_many()) for _ in range(1) if not q.empty()) > 0
            all_of(q)
        time.sleep(0.01)
        taken = sum(one.stat().st_size for one in (tmp_path / "q").iterdir() if one.is_file())
        assert taken < 8_000_000, sorted(one.name for one in (tmp_path / "q").iterdir())


def test_a_queue_whose_memory_is_collected_first_leaves_in_an_orderly_way(tmp_path: Path) -> None:
    """Finalizers of what is collected together run in the order in which the collector has met it: here the memory
    lies nearer than the queue, so it comes first."""
    code = (
        "import gc, sys, tqshim\n"
        "gc.disable()\n"
        "before = {id(thing) for thing in gc.get_objects()}\n"
        "queue = tqshim.Queue(path=sys.argv[1])\n"
        "queue.put_many([0, 1, 2])\n"
        "queue.get()\n"
        "queue.put(3)\n"
        "views = [thing for thing in gc.get_objects() if type(thing) is memoryview and id(thing) not in before]\n"
        "deep = [queue]\n"
        "for _ in range(50):\n"
        "    deep = [deep]\n"
        "cycle = [views, deep]\n"
        "cycle.append(cycle)\n"
        "del queue, deep, before\n"
        "seen = len(views)\n"
        "del views\n"
        "gc.collect()\n"
        "del cycle\n"
        "gc.collect()\n"
        "print(seen > 1)"
    )
    path = tmp_path / "q"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")
    with tqshim.Queue(path=path) as q:
        assert all_of(q) == [1, 2, 3]


@pytest.mark.parametrize("ends", ["get", "end", "kill"])
def test_what_get_many_has_taken_behind_an_item_that_cannot_be_unpickled_is_kept_by_its_process(
    ends: str, other: Any
) -> None:
    """For its next get; others get it when the process has ended by itself, and nobody does when it was killed."""
    with tqshim.Queue() as q:
        taker = other(q)
        q.put_many([0, Unloadable(), 2, 3])
        assert taker.do("get_many") == [0]
        with pytest.raises(tqshim.Empty):
            q.get(timeout=0.1)
        with pytest.raises(ValueError, match="no number"):
            taker.do("get")
        if ends == "get":
            assert [taker.do("get"), taker.do("get")] == [2, 3]
        elif ends == "end":
            taker.end()
            assert [q.get(timeout=PATIENCE), q.get(timeout=PATIENCE)] == [2, 3]
        else:
            taker.kill()
        assert all_of(q) == []
