"""tqshim.turbo_queue: what comes out is what was put in, though a process dies, forks, rolls back, runs out of disk."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import multiprocessing
import os
import pickle
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sampling import examples

from tqshim import turbo_queue
from tqshim.engine import tuning
from tqshim.turbo_queue import batching, emptying, sqlite_files, states

needs_open_files = pytest.mark.skipif(
    sqlite_files._open_now() is None,
    reason="this system does not tell who has a file open: an empty one may be in use, and stays",
)

FORK: Final = multiprocessing.get_context("fork")
PATIENCE: Final = 30.0
VALUES: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
"""All that JSON knows, and the numbers that Python's JSON knows beyond it."""


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for what does not come, nor for files to settle: these tests say when something has happened."""
    monkeypatch.setattr(emptying, "EMPTY_PATIENCE", 0.0)
    monkeypatch.setattr(sqlite_files, "SETTLED", 0.01)


def on(folder: Path, queue: Any, **attributes: Any) -> Any:
    queue.root_path, queue.queue_name = str(folder), "queue"
    for name, value in attributes.items():
        setattr(queue, name, value)
    return queue


def producer(folder: Path, most: int = 1000) -> turbo_queue.Enqueue:
    return on(folder, turbo_queue.Enqueue(), max_events_per_file=most)  # type: ignore[no-any-return]


def consumer(folder: Path, number: int | None = None) -> turbo_queue.Dequeue:
    return on(folder, turbo_queue.Dequeue(number))  # type: ignore[no-any-return]


def put(folder: Path, *events: Any, most: int = 1000) -> None:
    with producer(folder, most) as enqueue:
        for event in events:
            enqueue.add(event)


def get_all(folder: Path) -> list[Any]:
    with consumer(folder) as dequeue:
        events = dequeue.get()
        return list(iter(lambda: next(events), None))


def clean_up(folder: Path) -> None:
    on(folder, turbo_queue.Startup()).on_start_cleanup()


def names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder / "queue"))
    except FileNotFoundError:
        return []


def state_of(folder: Path) -> list[str]:
    """The states of all batches there."""
    found = [states.parse(name) for name in names(folder)]
    return [parsed.state if parsed else "?" for parsed in found]


# -- events


def same(one: Any, other: Any) -> bool:
    return json.dumps(one) == json.dumps(other)  # NaN is not equal to itself


@settings(deadline=None, max_examples=examples(50))
@given(st.lists(VALUES.filter(lambda event: event is not None), max_size=30), st.integers(1, 10))
def test_events_come_out_as_they_went_in(events: list[Any], most: int) -> None:
    with tempfile.TemporaryDirectory(prefix="turbo-queue-") as name:
        folder = Path(name)
        put(folder, *events, most=most)
        assert same(get_all(folder), json.loads(json.dumps(events)))
        assert names(folder) == []


@given(VALUES)
def test_events_are_written_as_json_writes_them(event: Any) -> None:
    assert "".join(turbo_queue._encode(event, 0)) == json.dumps(event)


def circle() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    ("event", "error"), [({1, 2}, TypeError), (b"bytes", TypeError), (circle(), ValueError), ({(1,): 2}, TypeError)]
)
def test_what_json_can_not_say_is_refused_and_the_queue_goes_on(
    event: Any, error: type[Exception], tmp_path: Path
) -> None:
    with producer(tmp_path) as enqueue:
        enqueue.add("before")
        with pytest.raises(error):
            enqueue.add(event)
        enqueue.add("after")
    assert get_all(tmp_path) == ["before", "after"]


def test_what_is_changed_after_add_does_not_arrive(tmp_path: Path) -> None:
    event = {"number": 0}
    with producer(tmp_path) as enqueue:
        enqueue.add(event)
        event["number"] = 1
    assert get_all(tmp_path) == [{"number": 0}]


@pytest.mark.parametrize("row", [5, 2.5, "[1]", b"[1]", " [1] ", "5"])
def test_rows_that_others_wrote_are_read(row: Any, tmp_path: Path) -> None:
    put(tmp_path, "first")
    (name,) = names(tmp_path)
    with contextlib.closing(sqlite3.connect(tmp_path / "queue" / name)) as database:
        database.execute("INSERT INTO logs VALUES (?)", (row,))
        database.commit()
    assert get_all(tmp_path) == ["first", json.loads(row) if isinstance(row, (str, bytes)) else row]


# -- one producer, one consumer, all that they can do


class Model(RuleBasedStateMachine):
    """Events of one producer come once and in order, whatever the consumer does with its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: deque[int] = deque()
        self.partial: deque[int] = deque()
        self.hand: list[int] = []
        self.number = 0

    @initialize(most=st.integers(1, 5))
    def begin(self, most: int) -> None:
        self.stack = contextlib.ExitStack()
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="turbo-queue-")))
        self.most = most
        self.enqueue = producer(self.folder, most)
        self.renew()

    def renew(self) -> None:
        self.dequeue = consumer(self.folder, 3)
        self.events = self.dequeue.get()

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            self.enqueue.close()
            self.dequeue.close()
            self.stack.close()

    @rule(count=st.integers(1, 8))
    def add(self, count: int) -> None:
        for _ in range(count):
            self.enqueue.add(self.number)
            self.partial.append(self.number)
            self.number += 1
            if len(self.partial) == self.most:
                self.waiting += self.partial
                self.partial.clear()

    @rule()
    def flush(self) -> None:
        self.enqueue.flush()
        self.waiting += self.partial
        self.partial.clear()

    @rule(count=st.integers(1, 8))
    def get(self, count: int) -> None:
        for _ in range(count):
            got = next(self.events)
            assert got == (self.waiting.popleft() if self.waiting else None)

    @rule()
    def another_generator(self) -> None:
        self.events = self.dequeue.get()

    @rule()
    def close(self) -> None:
        self.dequeue.close()

    @rule()
    def another_consumer(self) -> None:
        self.dequeue.close()
        self.renew()

    @rule()
    def clean_up(self) -> None:
        """Everybody lives: nothing happens."""
        before = self.batches()
        clean_up(self.folder)
        assert self.batches() == before

    @precondition(lambda self: hasattr(self, "folder"))
    @invariant()
    def nothing_is_set_aside(self) -> None:
        assert all(map(states.parse, self.batches()))

    def batches(self) -> list[str]:
        """Without what is SQLite's own while the producer's thread stores."""
        return [name for name in names(self.folder) if not name.endswith("-journal")]


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)


# -- batches


def test_with_auto_cleanup_off_each_batch_ends_and_stays_until_it_is_done(tmp_path: Path) -> None:
    put(tmp_path, 0, 1, 2, 3, most=2)
    dequeue = consumer(tmp_path)
    dequeue.auto_cleanup = False
    events = dequeue.get()
    assert [next(events) for _ in range(4)] == [0, 1, None, None]
    assert state_of(tmp_path) == ["ready", "unload"]
    dequeue.roll_back()
    assert [next(events) for _ in range(3)] == [0, 1, None]
    dequeue.clean_up()
    assert [next(events) for _ in range(3)] == [2, 3, None]
    dequeue.clean_up()
    assert (next(events), names(tmp_path)) == (None, [])
    assert (dequeue.total_gets(), dequeue.total_batch()) == (6, 3)


def test_a_batch_is_rolled_back_in_the_middle(tmp_path: Path) -> None:
    put(tmp_path, 0, 1, 2)
    dequeue = consumer(tmp_path)
    events = dequeue.get()
    assert [next(events), next(events)] == [0, 1]
    dequeue.roll_back()
    assert [next(events) for _ in range(4)] == [0, 1, 2, None]


def test_a_batch_can_be_rolled_back_after_none(tmp_path: Path) -> None:
    put(tmp_path, 0, 1)
    dequeue = consumer(tmp_path)
    events = dequeue.get()
    assert [next(events) for _ in range(3)] == [0, 1, None]
    dequeue.roll_back()  # what was collected could not be sent
    assert [next(events) for _ in range(3)] == [0, 1, None]
    assert next(events) is None
    assert names(tmp_path) == []


def test_a_block_that_raises_gives_back_all_of_its_batch(tmp_path: Path) -> None:
    put(tmp_path, 0, 1, 2)
    with pytest.raises(RuntimeError), consumer(tmp_path) as dequeue:
        assert next(dequeue.get()) == 0
        raise RuntimeError
    assert get_all(tmp_path) == [0, 1, 2]


def test_close_gives_back_what_was_not_handed_out(tmp_path: Path) -> None:
    put(tmp_path, *range(2500), most=2500)  # more than is read at a time
    with consumer(tmp_path) as dequeue:
        events = dequeue.get()
        assert [next(events) for _ in range(1100)] == list(range(1100))
    assert state_of(tmp_path) == ["ready"]
    assert get_all(tmp_path) == list(range(1100, 2500))


def test_a_batch_rolls_by_its_age_without_anybody_asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emptying, "EMPTY_PATIENCE", PATIENCE)
    enqueue = producer(tmp_path)
    enqueue.max_batch_age = 1
    enqueue.add("event")
    assert state_of(tmp_path) in (["load"], ["ready"])  # the second, if this took a second
    assert next(consumer(tmp_path).get()) == "event"


def test_a_consumer_that_waits_is_given_what_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emptying, "EMPTY_PATIENCE", PATIENCE)
    slept = threading.Event()
    sleep = batching.time.sleep

    def say(seconds: float) -> None:
        slept.set()
        sleep(seconds)

    monkeypatch.setattr(batching.time, "sleep", say)
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(next(consumer(tmp_path).get())))
    thread.start()
    assert slept.wait(PATIENCE)
    put(tmp_path, "event")
    thread.join(PATIENCE)
    assert got == ["event"]


def test_producer_is_told_to_pause_at_its_bound_and_to_go_on_below(tmp_path: Path) -> None:
    enqueue = producer(tmp_path, 2)
    enqueue.max_ready_files = 2
    assert not enqueue.enqueue_active
    added = 0
    enqueue.update_enqueue_active_state()
    while enqueue.enqueue_active:
        enqueue.add(added)
        added += 1
        enqueue.update_enqueue_active_state()
    assert (added, enqueue.get_ready_length()) == (4, 2)
    enqueue.add(4)  # it is advice
    assert enqueue.row_count == 1
    events = consumer(tmp_path).get()
    assert [next(events) for _ in range(3)] == [0, 1, 2]
    enqueue.update_enqueue_active_state()
    assert enqueue.enqueue_active
    enqueue.enqueue_active = False
    enqueue.drop_overflow = True
    enqueue.add("dropped")
    enqueue.close()
    assert [next(events) for _ in range(3)] == [3, 4, None]


def test_slow_batches_are_rolled_when_one_asks(tmp_path: Path) -> None:
    enqueue = producer(tmp_path)
    enqueue._filling.oldest = 0.0
    enqueue.add(0)
    enqueue.check_time()
    enqueue.add(1)
    asyncio.run(enqueue.check_slow_batch())
    assert state_of(tmp_path) == ["ready", "ready"]


def test_events_beyond_the_count_are_stored_all_the_same(tmp_path: Path) -> None:
    with producer(tmp_path, 2) as enqueue:
        enqueue.insert_load_db(0)
        enqueue.insert_load_db(1)
        enqueue.add(2)
        assert state_of(tmp_path) == ["load"]
        enqueue.add(3)
        assert state_of(tmp_path) == ["ready"]
    assert get_all(tmp_path) == [0, 1, 2, 3]


def test_a_relative_root_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    enqueue = on(Path("relative"), turbo_queue.Enqueue())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    enqueue.add(0)
    enqueue.close()
    assert get_all(tmp_path / "relative") == [0]


def test_a_path_with_odd_characters_is_a_path(tmp_path: Path) -> None:
    folder = tmp_path / "a?b#c%20d e\u00fc"
    put(folder, 0)
    assert get_all(folder) == [0]


# -- threads, forks, journeys


@pytest.mark.skipif(not tuning.GIL, reason="what threads share here, the GIL guards")
def test_threads_share_a_producer_and_a_consumer(tmp_path: Path) -> None:
    enqueue, dequeue = producer(tmp_path, 50), consumer(tmp_path)
    got: list[list[int]] = [[] for _ in range(4)]
    done = threading.Event()

    def add(first: int) -> None:
        for number in range(first, first + 500):
            enqueue.add(number)

    def get(mine: list[int]) -> None:
        events = dequeue.get()
        while True:
            ended = done.is_set()
            event = next(events)
            if event is not None:
                mine.append(event)
            elif ended:
                break

    adding = [threading.Thread(target=add, args=(first,)) for first in range(0, 2000, 500)]
    getting = [threading.Thread(target=get, args=(mine,)) for mine in got]
    for thread in (*adding, *getting):
        thread.start()
    for thread in adding:
        thread.join(PATIENCE)
    enqueue.close()
    done.set()
    for thread in getting:
        thread.join(PATIENCE)
    assert sorted(chain(*got)) == list(range(2000))


def batches(folder: Path) -> list[list[Any]]:
    """The events of all batches that are ready, oldest first."""
    found = []
    for name in sqlite_files.ready_names(str(folder / "queue")):
        with contextlib.closing(sqlite3.connect(folder / "queue" / name)) as database:
            found.append([json.loads(row) for (row,) in database.execute("SELECT log_data FROM logs ORDER BY rowid")])
    return found


def test_events_that_others_add_while_a_batch_is_stored_go_into_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are added without the lock, which the one that stores has."""
    enqueue = producer(tmp_path, 3)
    store = sqlite_files.Loading.store
    others = [threading.Thread(target=enqueue.add, args=([number],)) for number in (3, 4)]

    def crowded(self: Any, rows: Any) -> bool:
        monkeypatch.undo()
        for other in others:
            other.start()
        while enqueue.row_count < 5:
            threading.Event().wait(0.001)
        return store(self, rows)

    monkeypatch.setattr(sqlite_files.Loading, "store", crowded)
    for number in range(3):
        enqueue.add([number])
    for other in others:
        other.join(PATIENCE)
    assert batches(tmp_path) == [[[0], [1], [2]]]
    assert enqueue.row_count == 2
    enqueue.flush()
    assert [sorted(events) for events in batches(tmp_path)] == [[[0], [1], [2]], [[3], [4]]]


@pytest.mark.parametrize("step", ["store", "seal"])
@pytest.mark.parametrize("flush", [False, True])
def test_a_signal_handler_may_add_while_a_batch_is_stored_or_made_ready(
    flush: bool, step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here it is called where a handler may run: in the thread that has the lock."""
    enqueue = producer(tmp_path, 4 if flush else 3)
    does = getattr(sqlite_files.Loading, step)

    def interrupted(self: Any, *arguments: Any) -> Any:
        monkeypatch.undo()
        enqueue.add([3])
        return does(self, *arguments)

    monkeypatch.setattr(sqlite_files.Loading, step, interrupted)
    for number in range(3):
        enqueue.add([number])
    if flush:
        enqueue.flush()
    enqueue.close()
    assert batches(tmp_path) == [[[0], [1], [2]], [[3]]]


def test_an_event_that_another_adds_while_a_batch_is_made_ready_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked for after the next one was told to say that it came; here it came before that."""
    enqueue = producer(tmp_path)
    enqueue.max_batch_age = 1
    seal = sqlite_files.Loading.seal

    def crowded(self: Any) -> None:
        monkeypatch.undo()
        enqueue._filling.rows.append("[1]")
        seal(self)

    monkeypatch.setattr(sqlite_files.Loading, "seal", crowded)
    enqueue.add([0])
    enqueue.flush()
    while len(batches(tmp_path)) < 2:  # the clock does it, or this hangs
        threading.Event().wait(0.01)
    assert batches(tmp_path) == [[[0]], [[1]]]


@pytest.mark.in_turn
def test_no_batch_has_more_events_than_it_may_however_many_threads_add(tmp_path: Path) -> None:
    enqueue = producer(tmp_path, 7)
    each = 700

    def add(first: int) -> None:
        for number in range(first, first + each):
            enqueue.add([number])

    threads = [threading.Thread(target=add, args=(first,)) for first in range(0, 6 * each, each)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
    finally:
        sys.setswitchinterval(interval)
    enqueue.flush()
    found = batches(tmp_path)
    assert sorted(number for events in found for (number,) in events) == list(range(6 * each))
    assert {len(events) for events in found} == {7}


def test_a_bound_that_changes_counts_at_the_next_event(tmp_path: Path) -> None:
    enqueue = producer(tmp_path, 10)
    for number in range(4):
        enqueue.add([number])
    enqueue.max_events_per_file = 2
    enqueue.add([4])
    enqueue.insert_load_db([5])
    enqueue.flush()
    assert [len(events) for events in batches(tmp_path)] == [2, 2, 2]


def test_threads_that_look_for_a_batch_at_once_finish_none_that_another_has_just_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, 0, 1, 2, 3, most=2)
    together = threading.Barrier(2, timeout=PATIENCE)
    look = emptying.Emptying._next

    def look_at_once(self: Any) -> bool:
        together.wait()
        return look(self)

    monkeypatch.setattr(emptying.Emptying, "_next", look_at_once)
    dequeue = consumer(tmp_path)
    got: list[Any] = []
    threads = [threading.Thread(target=lambda: got.append(next(dequeue.get()))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    monkeypatch.undo()
    dequeue.close()
    assert sorted(got + get_all(tmp_path)) == [0, 1, 2, 3]


def echo(enqueue: turbo_queue.Enqueue, dequeue: turbo_queue.Dequeue) -> None:
    enqueue.add(next(dequeue.get()))


@pytest.mark.in_turn
def test_both_ends_go_to_a_child_that_is_given_them(context: Any, tmp_path: Path) -> None:
    put(tmp_path / "there", {"number": 0})
    back = producer(tmp_path / "back")
    process = context.Process(target=echo, args=(back, consumer(tmp_path / "there", 1)))
    process.start()
    process.join(PATIENCE)
    assert process.exitcode == 0
    assert get_all(tmp_path / "back") == [{"number": 0}]
    assert get_all(tmp_path / "there") == [{"number": 0}]  # the child never came back for more: at least once


def test_a_pickled_end_keeps_its_attributes(tmp_path: Path) -> None:
    enqueue = producer(tmp_path, 7)
    enqueue.max_batch_age = 3
    enqueue.add("stays here")
    copied = pickle.loads(pickle.dumps(enqueue))
    assert (copied.max_events_per_file, copied.max_batch_age, copied.row_count) == (7, 3, 0)
    assert (copied._filling.most, copied._filling.oldest) == (7, 3)


def test_a_fork_leaves_the_batch_with_the_parent_and_the_child_has_its_own(tmp_path: Path) -> None:
    put(tmp_path / "in", 0, 1, 2)
    put(tmp_path / "in", 3)
    events = consumer(tmp_path / "in").get()
    assert next(events) == 0
    enqueue = producer(tmp_path / "out")
    enqueue.add("parent")

    def work() -> None:
        enqueue.add(next(events))

    process = FORK.Process(target=work)
    process.start()
    process.join(PATIENCE)
    assert process.exitcode == 0
    assert get_all(tmp_path / "out") == [3]
    assert [next(events), next(events)] == [1, 2]
    enqueue.add("still here")
    enqueue.close()
    assert get_all(tmp_path / "out") == ["parent", "still here"]


def test_a_bare_fork_stores_what_its_child_added(tmp_path: Path) -> None:
    program = (
        "import os, sys\nfrom tqshim import turbo_queue\n"
        "enqueue = turbo_queue.Enqueue()\nenqueue.root_path, enqueue.queue_name = sys.argv[1], 'queue'\n"
        "enqueue.add('parent')\n"
        "pid = os.fork()\n"
        "if not pid:\n    enqueue.add('child')\n    sys.exit()\n"
        "os.waitpid(pid, 0)\n"
        "enqueue.add('more')\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=PATIENCE
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(get_all(tmp_path)) == ["child", "more", "parent"]


def test_the_clock_keeps_no_producer_that_is_dropped(tmp_path: Path) -> None:
    """Its thread has looked at it, and waits: what was added is another's at once, and not when it looks again."""
    enqueue = producer(tmp_path)
    ticked = threading.Event()
    tick = batching.Filling.tick
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batching.Filling, "tick", lambda self: (tick(self), ticked.set())[0] and False)
        enqueue.add(0)
        assert ticked.wait(PATIENCE)
        time.sleep(batching.STORE_EVERY)  # now it waits
    filling = weakref.ref(enqueue._filling)
    del enqueue
    assert filling() is None
    assert next(consumer(tmp_path).get()) == 0


def test_nobody_needs_to_close(tmp_path: Path) -> None:
    enqueue = producer(tmp_path)
    enqueue.add(0)
    enqueue.add(1)
    del enqueue
    dequeue = consumer(tmp_path)
    events = dequeue.get()
    assert next(events) == 0
    del events, dequeue
    assert get_all(tmp_path) == [0, 1]  # the consumer never came back for more


def test_threads_end_before_a_fork_and_start_again(tmp_path: Path) -> None:
    enqueue = producer(tmp_path)
    enqueue.add(0)
    assert batching._clock._thread is not None
    process = FORK.Process(target=os.getpid)
    process.start()
    process.join(PATIENCE)
    assert process.exitcode == 0
    enqueue.max_batch_age = 1
    while "ready" not in state_of(tmp_path):  # the clock goes on, or this hangs
        threading.Event().wait(0.01)


# -- crashes


def run_and_kill(work: Callable[[Any], None]) -> Any:
    """Run ``work`` in a child until it says something; kill it there; return what it said."""
    receiver, sender = FORK.Pipe(duplex=False)
    process = FORK.Process(target=work, args=(sender,))
    process.start()
    sender.close()
    assert receiver.poll(PATIENCE)
    said = receiver.recv()
    process.kill()
    process.join()
    return said


def pause() -> None:
    while True:
        signal.pause()


def test_a_killed_consumer_leaves_its_batch_whole(tmp_path: Path) -> None:
    put(tmp_path, 0, 1, 2)

    def work(sender: Any) -> None:
        events = consumer(tmp_path, 5).get()
        sender.send([next(events), next(events)])
        pause()

    assert run_and_kill(work) == [0, 1]
    assert names(tmp_path)[0].startswith("unload_") and names(tmp_path)[0].endswith(".db_5")
    assert get_all(tmp_path) == []
    clean_up(tmp_path)
    assert get_all(tmp_path) == [0, 1, 2]


def test_a_consumer_killed_after_none_leaves_the_last_batch(tmp_path: Path) -> None:
    put(tmp_path, 0, 1, 2, most=2)

    def work(sender: Any) -> None:
        events = consumer(tmp_path).get()
        sender.send([next(events) for _ in range(4)])
        pause()

    assert run_and_kill(work) == [0, 1, 2, None]
    clean_up(tmp_path)
    assert get_all(tmp_path) == [2]  # the first batch was done when the consumer came for the second


def test_a_killed_producer_loses_nothing_that_was_stored(tmp_path: Path) -> None:
    def work(sender: Any) -> None:
        enqueue = producer(tmp_path)
        for number in range(3):
            enqueue.add(number)
        while not enqueue._filling._file or enqueue._filling._file.stored < 3:  # the clock does it
            threading.Event().wait(0.01)
        sender.send(None)
        pause()

    run_and_kill(work)
    assert state_of(tmp_path) == ["load"]
    clean_up(tmp_path)
    assert get_all(tmp_path) == [0, 1, 2]
    assert names(tmp_path) == []


@needs_open_files
def test_killed_before_anything_was_stored_leaves_nothing(tmp_path: Path) -> None:
    def work(sender: Any) -> None:
        enqueue = producer(tmp_path)
        enqueue.start()
        sender.send(None)
        pause()

    run_and_kill(work)
    assert state_of(tmp_path) == ["load"]
    clean_up(tmp_path)
    assert names(tmp_path) == []


def test_a_stopped_process_is_alive(tmp_path: Path) -> None:
    receiver, sender = FORK.Pipe(duplex=False)

    def work() -> None:
        enqueue = producer(tmp_path, 3)
        enqueue.add(0)
        enqueue.flush()
        events = consumer(tmp_path).get()
        got = [next(events)]
        enqueue.add(1)
        sender.send(None)
        os.kill(os.getpid(), signal.SIGSTOP)
        enqueue.flush()
        got += [next(events), next(events)]
        sender.send(got)

    process = FORK.Process(target=work)
    process.start()
    assert receiver.poll(PATIENCE)
    receiver.recv()
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    before = names(tmp_path)
    assert [name.partition("_")[0] for name in before] == ["load", "unload"]
    clean_up(tmp_path)
    assert names(tmp_path) == before
    os.kill(process.pid, signal.SIGCONT)
    assert receiver.poll(PATIENCE)
    assert receiver.recv() == [0, 1, None]
    process.join(PATIENCE)


def flood(folder: Path, sender: Any) -> None:
    enqueue = producer(folder, 100)
    number = 0
    while True:
        for _ in range(37):
            enqueue.add(number)
            number += 1
        enqueue.flush()
        sender.send(number)


@needs_open_files
@pytest.mark.parametrize("kills", [8, pytest.param(200, marks=pytest.mark.stress)])
def test_producers_killed_anywhere_leave_a_beginning_of_what_they_added(kills: int, tmp_path: Path) -> None:
    """All that a flush has made ready, at least; nothing twice, nothing that can't be read."""
    for kill in range(kills):
        folder = tmp_path / str(kill)
        receiver, sender = FORK.Pipe(duplex=False)
        process = FORK.Process(target=flood, args=(folder, sender))
        process.start()
        sender.close()
        said = 0
        for _ in range(1 + kill % 4):
            assert receiver.poll(PATIENCE)
            said = receiver.recv()
        process.kill()
        process.join()
        while receiver.poll():
            try:
                said = receiver.recv()
            except EOFError:
                break
        clean_up(folder)
        got = get_all(folder)
        assert got == list(range(len(got)))
        assert len(got) >= said
        assert names(folder) == []


STEPS: Final = {"os.mkdir", "os.rename", "os.remove", "sqlite3.connect"}
"""What a process does to files, as Python's audit hooks tell it; what SQLite does within is left to kills at random."""


def dies_at(step: int, work: Callable[[Callable[[Any], None]], None]) -> tuple[bool, list[Any]]:
    """Run ``work`` in a child that dies just before its step of that number; whether it did, and what it said."""
    receiver, sender = FORK.Pipe(duplex=False)

    def run() -> None:
        left = step

        def hook(event: str, arguments: Any) -> None:
            nonlocal left
            if event in STEPS:
                if not left:
                    os._exit(9)
                left -= 1

        sys.addaudithook(hook)
        work(sender.send)
        os._exit(0)

    process = FORK.Process(target=run)
    process.start()
    sender.close()
    said = []
    with contextlib.suppress(EOFError):
        while True:
            said.append(receiver.recv())
    process.join()
    assert process.exitcode in (0, 9)
    return process.exitcode == 9, said


def test_producer_that_dies_at_any_step_leaves_a_beginning_of_what_it_added(tmp_path: Path) -> None:
    steps = 0
    died = True
    while died:
        folder = tmp_path / str(steps)

        def work(say: Callable[[Any], None], folder: Path = folder) -> None:
            enqueue = producer(folder, 3)
            for number in range(7):
                enqueue.add(number)
                say(number + 1 - enqueue.row_count)
            enqueue.close()
            say(7)

        died, said = dies_at(steps, work)
        clean_up(folder)
        got = get_all(folder)
        assert got == list(range(len(got)))
        assert len(got) >= max(said, default=0)
        assert names(folder) == []
        steps += 1
    assert got == list(range(7))
    assert steps > 6


def test_consumer_that_dies_at_any_step_loses_nothing_and_doubles_only_its_own_batch(tmp_path: Path) -> None:
    steps = 0
    died = True
    while died:
        folder = tmp_path / str(steps)
        put(folder, *range(9), most=3)

        def work(say: Callable[[Any], None], folder: Path = folder) -> None:
            dequeue = consumer(folder, 1)
            events = dequeue.get()
            for _ in range(4):
                say(next(events))
            dequeue.roll_back()
            say("rolled back")
            for _ in range(2):
                say(next(events))
            dequeue.close()

        died, said = dies_at(steps, work)
        if "rolled back" in said:  # all of its batch comes again, as was wished
            said = [number for number in said[: said.index("rolled back")] if number < 3] + said[5:]
        clean_up(folder)
        rest = get_all(folder)
        assert sorted({*said, *rest}) == list(range(9))
        assert len(said) + len(rest) - 9 <= (3 if died else 0)
        assert names(folder) == []
        steps += 1
    assert steps > 6


def test_cleanup_that_dies_at_any_step_is_done_by_the_next(tmp_path: Path) -> None:
    steps = 0
    died = True
    while died:
        folder = tmp_path / str(steps)
        put(folder, 0, 1, most=1)
        for name in names(folder):
            os.rename(folder / "queue" / name, folder / "queue" / name.replace("ready_", "unload_"))
        died, _ = dies_at(steps, lambda say, folder=folder: clean_up(folder))  # type: ignore[misc]
        clean_up(folder)
        assert get_all(folder) == [0, 1]
        assert names(folder) == []
        steps += 1
    assert steps > 3


def test_where_the_system_does_not_tell_open_files_locks_are_enough_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_files, "_open_now", lambda: None)
    put(tmp_path, 0, 1)
    enqueue, dequeue = producer(tmp_path), consumer(tmp_path)
    enqueue.start()
    events = dequeue.get()
    assert next(events) == 0

    def work(sender: Any) -> None:
        dead = producer(tmp_path)
        dead.add(2)
        dead._filling.tick()
        idle = producer(tmp_path)
        idle.start()
        sender.send(None)
        pause()

    run_and_kill(work)
    clean_up(tmp_path)
    assert next(events) == 1
    assert next(events) == 2
    enqueue.add(3)
    enqueue.close()
    assert [next(events), next(events)] == [3, None]
    dequeue.close()
    assert state_of(tmp_path) == ["load"]  # a living one on 0.8.0 that has added nothing would look the same


def add_and_flush(folder: Path, first: int, sender: Any) -> None:
    """Add numbers; say which ones were made ready."""
    enqueue = producer(folder, 20)
    for number in range(first, first + 1_000_000):
        enqueue.add(number)
        if number % 50 == 49:
            enqueue.flush()
            sender.send(number)


def handle(folder: Path, log: Path) -> None:
    """Write down each event before asking for the next one."""
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    events = consumer(folder).get()
    while True:
        event = next(events)
        if event is not None:
            os.write(fd, b"%d\n" % event)
        else:
            threading.Event().wait(0.001)


def clean_again_and_again(folder: Path) -> None:
    while True:
        clean_up(folder)


@pytest.mark.in_turn
@needs_open_files
@pytest.mark.parametrize("kills", [12, pytest.param(400, marks=pytest.mark.stress)])
def test_kills_on_both_sides_lose_nothing_that_was_ready(kills: int, tmp_path: Path) -> None:
    """Beside a clean-up that never stops.  Twice comes only what a killed consumer had in its batch."""
    chance = random.Random(kills)
    made = 0
    dead_consumers = 0
    ready: list[range] = []
    running: list[tuple[Any, Any, int]] = []

    def begin(kind: str) -> None:
        nonlocal made
        made += 1
        receiver, sender = FORK.Pipe(duplex=False)
        if kind == "producer":
            process = FORK.Process(target=add_and_flush, args=(tmp_path, made * 1_000_000, sender), name=kind)
        else:
            process = FORK.Process(target=handle, args=(tmp_path, tmp_path / f"log_{made}"), name=kind)
        process.start()
        sender.close()
        running.append((process, receiver, made * 1_000_000))

    def end(place: int) -> str:
        process, receiver, first = running.pop(place)
        process.kill()
        process.join()
        last = first - 1
        with contextlib.suppress(EOFError):
            while True:
                last = receiver.recv()
        receiver.close()
        ready.append(range(first, last + 1))
        return str(process.name)

    cleaner = FORK.Process(target=clean_again_and_again, args=(tmp_path,))
    cleaner.start()
    try:
        for kind in ("producer", "producer", "consumer", "consumer", "consumer"):
            begin(kind)
        for _ in range(kills):
            threading.Event().wait(chance.random() * 0.05)
            kind = end(chance.randrange(len(running)))
            dead_consumers += kind == "consumer"
            begin(kind)
    finally:
        dead_consumers += sum([end(0) == "consumer" for _ in range(len(running))])
        cleaner.kill()
        cleaner.join()
    clean_up(tmp_path)
    got = [int(line) for log in tmp_path.glob("log_*") for line in log.read_text().split()] + get_all(tmp_path)
    wanted = set(chain(*ready))
    assert wanted
    assert not wanted - set(got)
    assert len(got) - len(set(got)) <= 20 * dead_consumers
    assert names(tmp_path) == []


def test_a_damaged_file_is_removed_only_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "queue").mkdir()
    (tmp_path / "queue" / "load_1_a.db").write_bytes(b"no database" * 100)
    on(tmp_path, turbo_queue.Startup(), remove_invalid=True).on_start_cleanup()
    assert names(tmp_path) == []


def test_damage_in_the_middle_sets_the_file_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path, *("x" * 1000 for _ in range(100)))
    (name,) = names(tmp_path)
    path = tmp_path / "queue" / name
    content = bytearray(path.read_bytes())
    content[3 * sqlite_files.PAGE :] = b"\xff" * (len(content) - 3 * sqlite_files.PAGE)
    path.write_bytes(content)
    put(tmp_path, "other")
    assert get_all(tmp_path)[-1] == "other"
    assert [name.partition("_1")[0] for name in names(tmp_path)] == ["invalid_file"]
    assert "set aside" in caplog.text


@pytest.mark.parametrize("crash", [False, True])
def test_a_batch_that_comes_back_replaces_no_other_of_its_name(crash: bool, tmp_path: Path) -> None:
    put(tmp_path, "taken")
    (name,) = names(tmp_path)
    dequeue = consumer(tmp_path)
    assert next(dequeue.get()) == "taken"
    put(tmp_path / "copy", "copied")
    os.rename(tmp_path / "copy" / "queue" / names(tmp_path / "copy")[0], tmp_path / "queue" / name)
    if crash:
        dequeue._emptying._forget()._database.close()
        clean_up(tmp_path)
    else:
        dequeue.roll_back()
    assert sorted(get_all(tmp_path)) == ["copied", "taken"]


# -- what others do to our files


def take_away(folder: Path) -> None:
    """As 0.8.0's clean-up does it, which asks for no living user."""
    for name in names(folder):
        if name.startswith("load_"):
            os.rename(folder / "queue" / name, folder / "queue" / f"ready_1_{name}")


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("read", [False, True])
def test_a_batch_that_is_taken_away_while_it_is_filled_loses_nothing(stored: bool, read: bool, tmp_path: Path) -> None:
    enqueue = producer(tmp_path)
    enqueue.add(0)
    if stored:
        enqueue._filling.tick()
    take_away(tmp_path)
    got = get_all(tmp_path) if read else []
    enqueue.add(1)
    enqueue.close()
    got += get_all(tmp_path)
    assert sorted(got) == [0, 1]  # the name that 0.8.0 gives it is a younger one's
    assert names(tmp_path) == []


def test_a_batch_that_is_taken_away_before_it_is_sealed_is_all_in_the_file_that_was_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal = sqlite_files.Loading.seal

    def late(self: Any) -> None:
        take_away(tmp_path)
        seal(self)

    monkeypatch.setattr(sqlite_files.Loading, "seal", late)
    put(tmp_path, 0, 1)
    assert get_all(tmp_path) == [0, 1]


def test_a_batch_that_somebody_else_takes_first_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, 0)
    put(tmp_path, 1)
    rename = os.rename
    lost: list[str] = []

    def slow(source: Any, target: Any) -> None:
        if not lost and "ready_" in str(source):
            lost.append(source)
            os.unlink(source)
        rename(source, target)

    monkeypatch.setattr(sqlite_files.os, "rename", slow)
    assert get_all(tmp_path) == [1]
    assert lost


# -- a full disk


@contextlib.contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """A disk that is full once a file has that many bytes: the system says no to all that goes beyond."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limit for files")
def test_what_finds_no_space_is_refused_and_the_rest_stays(tmp_path: Path) -> None:
    enqueue = producer(tmp_path, 10)
    text = "x" * 20_000
    accepted = []
    with no_file_beyond(6 * sqlite_files.PAGE):
        for number in range(30):
            try:
                enqueue.add({"number": number, "text": text})
            except sqlite3.Error:
                continue
            accepted.append(number)
    assert 0 < len(accepted) < 30
    enqueue.close()
    assert [event["number"] for event in get_all(tmp_path)] == accepted
    assert names(tmp_path) == []


def test_a_batch_that_can_not_be_made_ready_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enqueue = producer(tmp_path, 2)
    rename = os.rename

    def refused(source: Any, target: Any) -> None:
        raise PermissionError(source)

    monkeypatch.setattr(sqlite_files.os, "rename", refused)
    enqueue.add(0)
    enqueue.add(1)  # it is stored: the error is logged, the next one is told
    with pytest.raises(PermissionError):
        enqueue.add(2)
    monkeypatch.setattr(sqlite_files.os, "rename", rename)
    enqueue.add(2)
    enqueue.close()
    assert get_all(tmp_path) == [0, 1, 2]


def test_an_exception_while_events_are_stored_neither_loses_nor_doubles_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by Ctrl-C: before and after all was stored."""
    store = sqlite_files.Loading.store
    calls: list[int] = []

    def interrupted(self: Any, rows: Any) -> bool:
        calls.append(len(rows))
        if len(calls) == 1:
            raise KeyboardInterrupt
        stored = store(self, rows)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return stored

    monkeypatch.setattr(sqlite_files.Loading, "store", interrupted)
    monkeypatch.setattr(batching.Filling, "tick", lambda self: False)
    enqueue = producer(tmp_path)
    enqueue.add(0)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            enqueue.flush()
    enqueue.add(1)
    enqueue.close()
    assert get_all(tmp_path) == [0, 1]


# -- attributes and logging


@pytest.mark.parametrize(
    "name", ["num_loaders", "num_queues", "max_ready_files", "max_events_per_file", "max_batch_age"]
)
def test_numbers_are_checked(name: str) -> None:
    queue = turbo_queue.Enqueue()
    setattr(queue, name, 3)
    assert getattr(queue, name) == 3
    for wrong in (0, -1, 1.5, "3", True, None):
        with pytest.raises(ValueError, match=name):
            setattr(queue, name, wrong)
    assert getattr(queue, name) == 3


@pytest.mark.parametrize("name", ["queue_name", "root_path"])
def test_texts_are_checked(name: str) -> None:
    queue = turbo_queue.Startup()
    for wrong in (1, None, b"x", Path("x")):
        with pytest.raises(ValueError, match=name):
            setattr(queue, name, wrong)


@pytest.mark.parametrize(
    "name", ["enqueue_active", "dequeue_active", "processing_hold", "drop_overflow", "remove_invalid", "auto_cleanup"]
)
def test_flags_are_checked(name: str) -> None:
    queue = turbo_queue.Dequeue()
    setattr(queue, name, True)
    assert getattr(queue, name) is True
    for wrong in (0, 1, None, "yes"):
        with pytest.raises(ValueError, match=name):
            setattr(queue, name, wrong)


def test_nothing_is_said_and_written_unless_asked(tmp_path: Path) -> None:
    program = (
        "import logging, sys\nfrom tqshim import turbo_queue\n"
        "for kind in (turbo_queue.Startup, turbo_queue.Enqueue, turbo_queue.Dequeue):\n"
        "    queue = kind()\n    queue.root_path = sys.argv[1]\n"
        "    getattr(queue, {'Startup': 'on_start_cleanup', 'Enqueue': 'update_enqueue_active_state',"
        " 'Dequeue': 'clean_up'}[kind.__name__])()\n"
        "assert not logging.root.handlers\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "root"], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert os.listdir(tmp_path) == ["root"]


def test_a_log_file_is_written_when_asked_for(tmp_path: Path) -> None:
    startup = on(tmp_path, turbo_queue.Startup())
    startup.setup_logging("log of a test", logging.INFO, str(tmp_path / "log"))
    startup.on_start_cleanup()
    assert "INFO : log of a test : queue: 0 batches" in (tmp_path / "log").read_text()
    for handler in list(startup.logger.handlers):
        startup.logger.removeHandler(handler)
        handler.close()


def test_small_helpers(tmp_path: Path) -> None:
    enqueue = producer(tmp_path)
    assert enqueue.get_next_ready_file() is None
    assert math.isclose(enqueue.get_current_epoch_int(), batching.time.time(), abs_tol=2)
    assert enqueue.get_uuid() != enqueue.get_uuid()
    enqueue.check_path_and_create(str(tmp_path / "a" / "b"))
    assert (tmp_path / "a" / "b").is_dir()
    with enqueue:
        enqueue.add(0)
        loop = enqueue.loop
        assert loop is enqueue.loop
    assert loop.is_closed()
    (name,) = names(tmp_path)
    assert enqueue.get_next_ready_file() == str(tmp_path / "queue" / name)
    assert (enqueue.db_state, enqueue.activate_check_batch_age()) == ("load", None)
    enqueue.max_batch_age = 1
    asyncio.run(enqueue.check_batch_age())
    assert consumer(tmp_path).check_state() is None  # type: ignore[func-returns-value]
    assert turbo_queue.Startup().migrate_queue() is None  # type: ignore[func-returns-value]


def test_halting_the_clock_just_as_it_stops_waiting_ends_it() -> None:
    reached = threading.Event()

    class Late:
        """Its first wait is over just before it is set."""

        def __init__(self, event: threading.Event) -> None:
            self.event = event

        def wait(self, timeout: Any = None) -> bool:
            first = not reached.is_set()
            reached.set()
            return self.event.wait(PATIENCE) and not first

    class Clock(batching._Clock):
        def _run(self, stop: Any) -> None:
            super()._run(Late(stop))  # type: ignore[arg-type]

    clock = Clock()
    clock.wake()
    assert reached.wait(PATIENCE)
    halting = threading.Thread(target=clock.halt, daemon=True)
    halting.start()
    halting.join(PATIENCE)
    assert not halting.is_alive()
    assert clock._thread is None


def test_a_number_that_would_be_a_folder_is_refused() -> None:
    """Each batch would seem to be another consumer's, and the queue empty."""
    with pytest.raises(ValueError, match="give a number"):
        turbo_queue.Dequeue("1/2")  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_set_aside_as_damaged_files_are(make: Callable[[str], None], tmp_path: Path) -> None:
    with turbo_queue.Enqueue() as enqueue:
        enqueue.root_path, enqueue.queue_name = str(tmp_path), "events"
        enqueue.add("a")
    (batch,) = (tmp_path / "events").glob("ready_*")
    make(str(batch.with_name(batch.name.replace(batch.stem[-4:], "zzzz"))))
    with turbo_queue.Dequeue() as dequeue:
        dequeue.root_path, dequeue.queue_name = str(tmp_path), "events"
        events = dequeue.get()
        assert [next(events) for _ in range(4)] == ["a", None, None, None]
