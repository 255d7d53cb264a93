"""A handle goes anywhere, by every start method and every way that objects take between processes."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from typing import Any

import pytest
from programs import travel
from programs.things import Labelled

from tqshim import TurboQueue

LONG = 60.0


def finish(*processes: Any) -> None:
    for process in processes:
        process.join(LONG)
        assert process.exitcode == 0


def test_as_an_argument_of_a_process(context: Any) -> None:
    there, back = TurboQueue(), TurboQueue(3)
    process = context.Process(target=travel.echo, args=(there,), kwargs={"back": back, "count": 10})
    process.start()
    for number in range(10):
        there.put(number)
        assert back.get(True, LONG) == ("echo", number)
    finish(process)


def test_as_an_attribute_of_a_process(context: Any) -> None:
    """A subclass of Process that keeps its queue, with Process of the default context where it can."""
    q: Any = TurboQueue()
    process = context.Process(target=travel.Caller(q))
    process.start()
    assert q.get(True, LONG) == "called"
    finish(process)


def test_as_an_argument_of_a_pools_initializer(context: Any) -> None:
    q: Any = TurboQueue()
    with context.Pool(2, travel.keep, (q,)) as pool:
        pool.map(travel.put_kept, range(20), 3)
        pool.close()
        pool.join()
    assert sorted(q.get(True, LONG) for _ in range(20)) == list(range(20))


def test_as_a_task_argument_of_a_pool(context: Any) -> None:
    """Where the standard library's queue refuses to go."""
    q: Any = TurboQueue()
    with context.Pool(2) as pool:
        pool.map(travel.put_pid, [q] * 6)
        pool.starmap(travel.put_both, [(q, number) for number in range(6)])
        pool.apply(travel.put_both, (q, "apply"))
        pool.apply_async(travel.put_both, (), {"q": q, "item": "async"}).get(LONG)
        list(pool.imap_unordered(travel.put_pid, [q] * 2))
        pool.close()
        pool.join()
    got = [q.get(True, LONG) for _ in range(16)]
    assert q.empty()
    assert set(range(6)) < set(got) and "apply" in got and "async" in got


def test_as_a_result_of_a_task(context: Any) -> None:
    """A queue made in a worker outlives the worker."""
    with context.Pool(1) as pool:
        q = pool.apply(travel.make_and_fill, (5,))
        pool.close()
        pool.join()
    assert [q.get(True, LONG) for _ in range(5)] == list(range(5))


def test_as_an_argument_of_submit(context: Any) -> None:
    q: Any = TurboQueue()
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
        futures = [executor.submit(travel.put_both, q, number) for number in range(8)]
        for future in futures:
            future.result(LONG)
    assert sorted(q.get(True, LONG) for _ in range(8)) == list(range(8))


def test_as_an_argument_of_an_executors_initializer(context: Any) -> None:
    q: Any = TurboQueue()
    with concurrent.futures.ProcessPoolExecutor(1, context, travel.keep, (q,)) as executor:
        list(executor.map(travel.put_kept, range(4)))
    assert [q.get(True, LONG) for _ in range(4)] == [0, 1, 2, 3]


def test_inside_another_queue_and_inside_itself(context: Any) -> None:
    outer: Any = TurboQueue()
    process = context.Process(target=travel.answer_on_the_queue_inside, args=(outer,))
    process.start()
    inner: Any = TurboQueue()
    outer.put({"answer": [inner]})
    outer.put(outer)
    assert inner.get(True, LONG) == "inside"
    assert inner.get(True, LONG) == "itself"
    assert outer.empty()
    finish(process)


def test_inside_a_standard_queue_and_a_pipe(context: Any) -> None:
    standard = context.Queue()
    ours, theirs = context.Pipe()
    process = context.Process(target=travel.receive_and_answer, args=(standard, theirs))
    process.start()
    one, two = TurboQueue(), TurboQueue()
    standard.put(one)
    ours.send(two)
    assert one.get(True, LONG) == "by queue"
    assert two.get(True, LONG) == "by pipe"
    finish(process)
    standard.close()
    ours.close()
    theirs.close()


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_in_plain_pickles_also_to_an_unrelated_program(protocol: int) -> None:
    q: Any = TurboQueue(7)
    again = pickle.loads(pickle.dumps(q, protocol))
    again.put("here")
    program = "import pickle, sys; q = pickle.load(sys.stdin.buffer); q.put(q.get() + ' and there'); print(q.full())"
    done = subprocess.run(
        [sys.executable, "-c", program], input=pickle.dumps(q, protocol), capture_output=True, timeout=LONG
    )
    assert done.returncode == 0, done.stderr
    assert q.get(True, LONG) == "here and there"


def test_a_pickle_keeps_the_queue_although_all_its_handles_have_gone() -> None:
    """Somebody may still be about to load it."""
    q: Any = TurboQueue()
    q.put("item")
    data = pickle.dumps(q)
    q.close()
    del q
    TurboQueue().close()  # sweeps
    again = pickle.loads(data)
    assert again.get_nowait() == "item"


def test_a_pickle_of_a_queue_that_is_gone_says_so() -> None:
    q: Any = TurboQueue()
    data = pickle.dumps(q)
    again = pickle.loads(data)
    again.close()
    q.close()
    del q, again
    with pytest.raises(FileNotFoundError, match="gone"):
        pickle.loads(data)


@pytest.mark.in_turn
def test_to_grandchildren(context: Any) -> None:
    q: Any = TurboQueue()
    process = context.Process(target=travel.descend, args=(q, 2, context.get_start_method()))
    process.start()
    finish(process)
    assert sorted(q.get(True, LONG) for _ in range(3)) == [0, 1, 2]
    assert q.empty()


@pytest.mark.in_turn
def test_the_first_thing_a_child_does_with_its_handle_may_be_to_pass_it_on(context: Any) -> None:
    """To a child of its own, of each start method, or in a pickle."""
    q: Any = TurboQueue()
    mine = context.get_start_method()
    for method in multiprocessing.get_all_start_methods():
        if (mine, method) == ("fork", "forkserver"):
            continue  # a forked child waits for its parent's fork server, if there is one, and fails
        process = context.Process(target=travel.spawn_first, args=(q, method))
        process.start()
        finish(process)
        assert q.get_nowait() == method
    ours, theirs = context.Pipe(False)
    process = context.Process(target=travel.pickle_first, args=(q, theirs))
    process.start()
    data = ours.recv_bytes()
    finish(process)
    q.put("kept")
    q.close()
    del q
    TurboQueue().close()  # sweeps
    assert pickle.loads(data).get_nowait() == "kept"


def test_a_subclass_keeps_its_attributes(context: Any) -> None:
    q = Labelled(3, "left", batch_size=2)
    q.count = 41
    again = pickle.loads(pickle.dumps(q))
    assert (type(again), again.label, again.count) == (Labelled, "left", 41)
    process = context.Process(target=travel.use_labelled, args=(q,))
    process.start()
    assert q.get(True, LONG) == ("left", 42)
    finish(process)


def test_the_parents_last_reference_may_vanish_right_after_start(context: Any) -> None:
    """Nobody but the child, which has not run a line yet, has the queue then."""
    results: Any = TurboQueue()
    processes = []
    for turn in range(3):
        q: Any = TurboQueue()
        q.put_many(range(turn, turn + 10))
        process = context.Process(target=travel.sum_ten, args=(q, results))
        process.start()
        del q
        TurboQueue().close()  # sweeps
        processes.append(process)
    assert sorted(results.get(True, LONG) for _ in range(3)) == [45, 55, 65]
    finish(*processes)


def test_the_parent_may_close_its_handle_right_after_start(context: Any) -> None:
    q, results = TurboQueue(), TurboQueue()
    q.put_many(range(10))
    process = context.Process(target=travel.sum_ten, args=(q, results))
    process.start()
    q.close()
    assert results.get(True, LONG) == 45
    finish(process)


def test_two_handles_of_one_queue_go_to_one_child(context: Any) -> None:
    q: Any = TurboQueue()
    other = pickle.loads(pickle.dumps(q))
    process = context.Process(target=travel.alternate, args=(q, other, [q, other, q]))
    process.start()
    finish(process)
    assert [q.get(True, LONG) for _ in range(100)] == list(range(100))
    assert q.empty()


@pytest.mark.in_turn
def test_many_queues_go_to_one_child(context: Any) -> None:
    queues = [TurboQueue(number % 3) for number in range(30)]
    process = context.Process(target=travel.number_them, args=(queues,))
    process.start()
    finish(process)
    assert [q.get(True, LONG) for q in queues] == list(range(30))


@pytest.mark.in_turn
def test_one_queue_goes_to_many_children_one_after_the_other(context: Any) -> None:
    """And no descriptors pile up."""
    q: Any = TurboQueue()
    opened = []
    for number in range(8 if context.get_start_method() == "spawn" else 15):
        process = context.Process(target=travel.put_both, args=(q, number))
        process.start()
        finish(process)
        process.close()
        assert q.get(True, LONG) == number
        if os.path.isdir("/proc/self/fd"):
            opened.append(len(os.listdir("/proc/self/fd")))
    assert q.empty()
    assert max(opened[5:], default=0) <= max(opened[:5], default=0) + 2, opened


@pytest.mark.in_turn
def test_fork_while_other_threads_put_and_get() -> None:
    """Children forked at any instant can use the queue; nothing is lost or doubled."""
    q, own = TurboQueue(), TurboQueue(50)
    stop = threading.Event()
    put = [0, 0]

    def produce(place: int) -> None:
        while not stop.is_set() and put[place] < 20_000:
            q.put((place, put[place]))
            put[place] += 1

    def turn() -> None:
        while not stop.is_set():
            own.put(1)
            own.get()

    threads = [threading.Thread(target=produce, args=(0,)), threading.Thread(target=produce, args=(1,))]
    threads.append(threading.Thread(target=turn))
    for thread in threads:
        thread.start()
    try:
        for number in range(25):
            child = os.fork()
            if child == 0:
                try:
                    q.put((2, number))
                    own.qsize()
                    q.close()
                    own.close()
                finally:
                    os._exit(0)
            wait(child)
    finally:
        stop.set()
    for thread in threads:
        thread.join(LONG)
    got: list[Any] = []
    while not q.empty():
        got += q.get_many(True, LONG)
    assert sorted(got) == [(place, n) for place, count in enumerate([*put, 25]) for n in range(count)]
    for place in range(3):
        mine = [number for who, number in got if who == place]
        assert mine == sorted(mine)


def wait(child: int) -> None:
    """Wait for a forked child, which must not hang."""
    import time

    deadline = time.monotonic() + LONG
    while time.monotonic() < deadline:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            assert status == 0, status
            return
        time.sleep(0.001)
    os.kill(child, 9)
    os.waitpid(child, 0)
    pytest.fail("a forked child hangs")


def test_children_of_a_bare_fork_put_and_get() -> None:
    q, back = TurboQueue(), TurboQueue()
    q.put_many(range(10))
    assert q.get() == 0
    child = os.fork()
    if child == 0:
        try:
            items = [q.get(True, LONG) for _ in range(5)]
            back.put(items)
            q.put("from the child")
            q.close()
            back.close()
        finally:
            os._exit(0)
    wait(child)
    assert back.get(True, LONG) == [1, 2, 3, 4, 5]
    assert [q.get(True, LONG) for _ in range(5)] == [6, 7, 8, 9, "from the child"]


def test_a_handle_that_was_closed_is_not_pickled() -> None:
    q: Any = TurboQueue()
    q.close()
    with pytest.raises((ValueError, OSError)):
        pickle.dumps(q)


def test_a_queue_made_by_a_context_goes_through_another_ones_process() -> None:
    """`ctx` is taken for compatibility and binds the handle to nothing."""
    q: Any = TurboQueue(ctx=multiprocessing.get_context("spawn"))
    for name in multiprocessing.get_all_start_methods():
        process = multiprocessing.get_context(name).Process(target=travel.put_both, args=(q, name))
        process.start()
        finish(process)
        assert q.get(True, LONG) == name
