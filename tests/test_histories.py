"""Concurrent histories: each item exactly once, in order, visible at once; no process sits on what others may take."""

from __future__ import annotations

import multiprocessing
import pickle
import queue
import subprocess
import sys
import threading
from itertools import product
from typing import Any, Callable

import pytest
from programs import histories
from programs.crew import Crew
from programs.histories import LONG, check
from programs.lockstep import configure
from sampling import sampled

from tqshim import TurboQueue

GetCrew = Callable[[int], Crew]

SHAPES = [(1, 1), (3, 3), (2, 8)]
METHODS = multiprocessing.get_all_start_methods()
WITHOUT = ["", "leases", "reservations", "short_ways", "spinning", "leases,reservations,short_ways,spinning,dozing"]


def run_history(crew: Crew, producers: int, consumers: int, maxsize: int, styles: tuple[str, str], count: int) -> None:
    """So many producer and consumer processes on one queue; then an end for each consumer."""
    q: Any = TurboQueue(maxsize)
    putting = range(producers)
    getting = range(producers, producers + consumers)
    for worker in getting:
        crew.start(worker, histories.consume, q, styles[1], worker)
    for worker in putting:
        crew.start(worker, histories.produce, q, worker, count, styles[0], worker)
    crew.results(putting)
    for _ in getting:
        q.put(None, True, LONG)
    check(crew.results(getting), dict.fromkeys(putting, count))
    assert q.qsize() == 0 and q.empty()


@pytest.mark.parametrize(
    ("producers", "consumers", "maxsize", "method"),
    sampled("histories", [(*shape, *more) for shape in SHAPES for more in product((0, 1, 10, 1000), METHODS)], 8),
)
def test_every_item_comes_once_and_in_order(crew: GetCrew, producers: int, consumers: int, maxsize: int) -> None:
    """Processes of every start method, put and get one by one and mixed with all other calls."""
    count = 60 if maxsize == 1 else 400
    team = crew(producers + consumers)
    run_history(team, producers, consumers, maxsize, ("put", "get"), count)
    run_history(team, producers, consumers, maxsize, ("mixed", "mixed"), count)


@pytest.mark.parametrize("styles", [("many", "get"), ("put", "many"), ("many", "many"), ("mixed", "timeout")])
def test_batches_come_once_and_in_order(crews: Any, styles: tuple[str, str], many_rolls: None) -> None:
    """Batch calls on either side, while the journal rolls every few events."""
    for maxsize in (0, 10, 5000):
        run_history(crews("fork", 5), 2, 3, maxsize, styles, 600)


@pytest.mark.parametrize("without", sampled("without", WITHOUT, 2), indirect=True)
def test_histories_hold_without_each_optimisation(crews: Any, without: str) -> None:
    """Workers of a crew of their own, which read the switches when they start."""
    crew = Crew("spawn" if sys.platform == "darwin" else "forkserver")
    try:
        # A fork server, once it runs, has its own environment: workers are told in words.
        crew.grow(4)
        for worker in range(4):
            crew.call(worker, switch_off, without)
        for maxsize in (0, 40, 3000):
            run_history(crew, 2, 2, maxsize, ("put", "get"), 400)
    finally:
        crew.close()


def switch_off(names: str) -> None:
    configure({name.upper(): False for name in filter(None, names.split(","))})


@pytest.mark.parametrize("maxsize", [0, 1, 10, 1000])
def test_threads_with_one_handle_get_every_item_once(maxsize: int) -> None:
    q: Any = TurboQueue(maxsize)
    count = 300
    jobs: list[Any] = [(histories.consume, (q, "mixed", thread)) for thread in range(3)]
    jobs.append((produce_then_end, (q, 4, 3, count)))
    *got, _ = histories.in_threads(jobs)
    check(got, dict.fromkeys(range(4), count))


def produce_then_end(q: Any, producers: int, consumers: int, count: int) -> None:
    histories.many_produce(q, list(range(producers)), count, "mixed", 7)
    for _ in range(consumers):
        q.put(None, True, LONG)


def test_threads_with_a_handle_each_get_every_item_once() -> None:
    q: Any = TurboQueue(50)
    count = 300
    handles = [pickle.loads(pickle.dumps(q)) for _ in range(6)]
    jobs: list[Any] = [(histories.consume, (handle, "mixed", n)) for n, handle in enumerate(handles[:3])]
    jobs.append((three_produce_then_end, (handles[3:], count)))
    *got, _ = histories.in_threads(jobs)
    check(got, dict.fromkeys(range(3), count))


def three_produce_then_end(handles: list[Any], count: int) -> None:
    histories.in_threads([(histories.produce, (handle, n, count, "mixed", n)) for n, handle in enumerate(handles)])
    for handle in handles:
        handle.put(None, True, LONG)


@pytest.mark.parametrize("maxsize", [0, 30])
def test_threads_in_several_processes_get_every_item_once(crew: GetCrew, maxsize: int) -> None:
    q: Any = TurboQueue(maxsize)
    team = crew(4)
    count = 200
    for worker in (0, 1):
        team.start(worker, histories.many_consume, q, 3, "mixed", worker)
    for worker in (2, 3):
        team.start(worker, histories.many_produce, q, [3 * worker + n for n in range(3)], count, "mixed", worker)
    team.results([2, 3])
    for _ in range(6):
        q.put(None, True, LONG)
    got = [history for process in team.results([0, 1]) for history in process]
    check(got, {3 * worker + n: count for worker in (2, 3) for n in range(3)})


def test_a_single_consumer_sees_each_producers_order_while_others_come_and_go(crew: GetCrew) -> None:
    """Its lease is revoked again and again."""
    q: Any = TurboQueue()
    team = crew(4)
    count = 3000
    team.start(0, histories.consume, q, "get", 0)
    team.start(1, histories.produce, q, 1, count, "put", 1)
    taken: list[Any] = []
    for turn in range(30):
        taken += team.call(2 + turn % 2, get_some, q, 5)
    team.result(1)
    q.put(None)
    check([team.result(0), taken], {1: count})


def get_some(q: Any, most: int) -> list[Any]:
    got = []
    for _ in range(most):
        try:
            got.append(q.get(True, 0.01))
        except queue.Empty:
            break
    return got


# -- one get, one item


@pytest.mark.parametrize("batch", [False, True], ids=["put", "put_many"])
def test_no_worker_sits_on_another_workers_end(crew: GetCrew, batch: bool) -> None:
    """100 items and 4 ends in one go; each worker stops at its end and waits for the others, holding its handle."""
    team = crew(4)
    for turn in range(15):
        q: Any = TurboQueue()
        for worker in range(4):
            team.start(worker, histories.get_to_the_end_and_stay, "queue", q)
        items = [*range(100), None, None, None, None]
        if batch:
            q.put_many(items)
        else:
            for item in items:
                q.put(item)
        got = team.results(range(4))
        assert sorted(item for one in got for item in one) == list(range(100)), f"turn {turn}"
        assert all(one == sorted(one) for one in got)


def test_no_worker_sits_on_another_workers_end_when_the_items_were_there_first(crew: GetCrew) -> None:
    """The first worker comes alone, gets its lease of everything, and then the others come."""
    team = crew(4)
    for _ in range(8):
        q: Any = TurboQueue()
        q.put_many([*range(100), None, None, None, None])
        for worker in range(4):
            team.start(worker, histories.get_to_the_end_and_stay, "queue", q)
        got = team.results(range(4))
        assert sorted(item for one in got for item in one) == list(range(100))


def test_workers_meet_at_a_barrier(context: Any) -> None:
    """The same as programs do it: processes, their queue as an argument, a barrier."""
    q: Any = TurboQueue()
    barrier = context.Barrier(4)
    ours, theirs = context.Pipe(False)
    workers = [
        context.Process(target=histories.work_and_wait, args=(q, theirs, barrier), daemon=True) for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for item in [*range(100), None, None, None, None]:
        q.put(item)
    for worker in workers:
        worker.join(LONG)
        assert worker.exitcode == 0
    assert sum(ours.recv() for _ in workers) == 100


def test_an_idle_lease_holder_leaves_everything_to_others(crew: GetCrew) -> None:
    """A consumer that got one item of many and then does something else holds nothing back."""
    team = crew(2)
    q: Any = TurboQueue()
    q.put_many(list(range(1000)))
    assert q.get() == 0
    team.call(0, keep_handle, q)
    got = [team.call(0, histories.act, "queue", "get", True, LONG) for _ in range(10)]
    assert got == list(range(1, 11))
    assert q.get() == 11
    assert team.call(0, histories.act, "queue", "get_many_nowait", 10**6) == list(range(12, 1000))
    assert q.empty()


def keep_handle(q: Any) -> None:
    histories.KEPT["queue"] = q


# -- visible at once


@pytest.mark.parametrize("maxsize", [0, 2000])
def test_what_was_put_can_be_got_at_once(maxsize: int) -> None:
    """However many, through the same handle and another, `empty`, `qsize` and `get_nowait` agree."""
    q: Any = TurboQueue(maxsize)
    other = pickle.loads(pickle.dumps(q))
    for length in [1, 2, 3, 7, 255, 256, 257, 600] * 3:
        for number in range(length):
            q.put(number)
        assert not other.empty()
        assert other.qsize() == length
        assert [other.get_nowait() for _ in range(length)] == list(range(length))
        assert q.empty() and q.qsize() == 0
        with pytest.raises(queue.Empty):
            q.get_nowait()


def test_put_then_get_nowait_never_finds_it_empty_while_others_put_and_wait(crew: GetCrew) -> None:
    """Another process puts too, so there is never less than one item."""
    q: Any = TurboQueue()
    team = crew(1)
    team.start(0, histories.put_range, q, 0, 3000)
    for number in range(3000):
        q.put(number)
        q.get_nowait()
    team.result(0)
    for _ in range(3000):
        q.get(True, LONG)
    assert q.empty()


@pytest.mark.parametrize("maxsize", [0, 100])
@pytest.mark.parametrize("turns", [400, pytest.param(10_000, marks=pytest.mark.stress)])
def test_each_single_put_of_another_process_is_seen_at_once(crews: Any, maxsize: int, turns: int) -> None:
    """By all kinds of looks, in the process that has made the queue and in a third one."""
    q: Any = TurboQueue(maxsize)
    team = crews("fork", 2)
    for worker in (0, 1):
        team.call(worker, keep_handle, q)
    for turn in range(turns):
        team.call(0, histories.act, "queue", "put", turn)
        if turn % 4 == 0:
            assert q.qsize() == 1
        elif turn % 4 == 1:
            assert not q.empty()
        elif turn % 4 == 2:
            assert team.call(1, histories.sizes, "queue") == (1, False, False)
        if turn % 8 < 6:
            assert q.get_nowait() == turn
        else:
            assert team.call(1, histories.act, "queue", "get_nowait") == turn
    assert q.empty()
    team.forget()


def test_each_place_that_another_process_frees_is_seen_at_once(crews: Any) -> None:
    q: Any = TurboQueue(1)
    team = crews("fork", 1)
    team.call(0, keep_handle, q)
    for turn in range(400):
        q.put_nowait(turn)
        assert q.full()
        assert team.call(0, histories.act, "queue", "get_nowait") == turn
        assert not q.full()
    team.forget()


def test_a_waiting_consumer_gets_all_that_is_put(crew: GetCrew) -> None:
    q: Any = TurboQueue()
    team = crew(1)
    for count in [1, 3, 10, 100] * 5:
        team.start(0, histories.get_to_the_end_and_stay, "queue", q)
        for number in range(count):
            q.put(number)
        q.put(None)
        assert team.result(0) == list(range(count))


@pytest.mark.parametrize(
    "ending",
    [
        "pass",
        "sys.exit(3)",
        "raise SystemExit",
        "1/0",
        "threading.Thread(target=more).start()",
        "os._exit(0)",
        "os.abort()",
        "os.kill(os.getpid(), signal.SIGTERM)",
    ],
)
def test_all_that_was_put_is_there_however_a_program_exits(ending: str, tmp_path: Any) -> None:
    path = str(tmp_path / "queue")
    program = f"""
import os, resource, signal, sys, threading
from tqshim import TurboQueue
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
q = TurboQueue(path={path!r})
def more():
    threading.main_thread().join()
    for number in range(100, 150):
        q.put(number)
for number in range(100):
    q.put(number)
{ending}
"""
    subprocess.run([sys.executable, "-c", program], timeout=LONG, stderr=subprocess.DEVNULL)
    q: Any = TurboQueue(path=path)
    count = 150 if "more" in ending else 100
    assert q.qsize() == count
    assert q.get_many_nowait() == list(range(count))


# -- exit never needs a reader


@pytest.mark.parametrize(
    "count",
    [50_000, pytest.param(1_000_000, marks=pytest.mark.stress)],
)
@pytest.mark.parametrize("bounded", [False, True])
def test_a_process_exits_although_nobody_reads(method: str, count: int, bounded: bool) -> None:
    if method != "spawn" and count > 100_000:
        pytest.skip("once is enough")
    q: Any = TurboQueue(count + 5 if bounded else 0)
    context = multiprocessing.get_context(method)
    process = context.Process(target=histories.put_range, args=(q, 0, count))
    process.start()
    process.join(20 * LONG)
    assert process.exitcode == 0
    assert q.qsize() == count
    got: list[int] = []
    while len(got) < count:
        got += q.get_many(True, LONG, 10_000)
    assert got == list(range(count))
    assert q.empty()


# -- qsize


@pytest.mark.parametrize("maxsize", [0, 40, 4000])
def test_qsize_is_exact_in_every_process_when_all_are_quiet(crew: GetCrew, maxsize: int) -> None:
    """After puts and gets here and there, with leases and reservations standing."""
    q: Any = TurboQueue(maxsize)
    team = crew(3)
    for worker in range(3):
        team.call(worker, keep_handle, q)
    size = 0
    steps = [(0, 12, 3), (1, 9, 4), (0, 0, 10), (2, 25, 0), (2, 0, 9), (1, 0, 5), (0, 30, 1), (2, 0, 46), (0, 8, 8)]
    for turn, (worker, puts, gets) in enumerate(steps):
        puts = min(puts, maxsize - size) if maxsize else puts
        gets = min(gets, size + puts)
        for number in range(puts):
            team.call(worker, histories.act, "queue", "put", number)
        for _ in range(gets):
            team.call(worker, histories.act, "queue", "get_nowait")
        size += puts - gets
        assert q.qsize() == size, turn
        assert q.empty() == (size == 0)
        assert q.full() == (size == maxsize > 0)
        for other in range(3):
            assert team.call(other, histories.sizes, "queue") == (size, size == 0, size == maxsize > 0), turn


def test_qsize_counts_what_another_thread_has_put() -> None:
    q: Any = TurboQueue()
    done = threading.Event()
    thread = threading.Thread(target=lambda: (histories.put_range(q, 0, 77), done.set()))
    thread.start()
    assert done.wait(LONG)
    assert q.qsize() == 77
    thread.join()
    q.get_many_nowait()


# -- stress


@pytest.mark.stress
@pytest.mark.parametrize("styles", [("put", "get"), ("mixed", "mixed"), ("many", "many")])
@pytest.mark.parametrize("maxsize", [0, 1, 10, 1000, 5000])
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (4, 4), (2, 8)], ids=lambda shape: f"{shape[0]}x{shape[1]}")
def test_long_histories(crew: GetCrew, shape: tuple[int, int], maxsize: int, styles: tuple[str, str]) -> None:
    run_history(crew(sum(shape)), *shape, maxsize, styles, 500 if maxsize == 1 else 10_000)


@pytest.mark.stress
def test_no_worker_sits_on_another_workers_end_a_thousand_times(crew: GetCrew) -> None:
    team = crew(4)
    for turn in range(1000):
        q: Any = TurboQueue(0 if turn % 2 else 1000)
        for worker in range(4):
            team.start(worker, histories.get_to_the_end_and_stay, "queue", q)
        for item in [*range(100), None, None, None, None]:
            q.put(item)
        got = team.results(range(4))
        assert sorted(item for one in got for item in one) == list(range(100)), f"turn {turn}"
