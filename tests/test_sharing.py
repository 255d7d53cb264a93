"""Items whose pickling makes descriptors, as with torch's tensors, are put where few descriptors are left."""

from __future__ import annotations

import asyncio
import errno
import multiprocessing
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing import reduction
from typing import Any

import pytest

from tqshim import Empty, Full, ShutDown, TurboQueue
from tqshim.engine import tuning
from tqshim.queues import pickling, sharing

LIMIT = 256
MOST = LIMIT // 4
PATIENCE = 60.0


@pytest.fixture(autouse=True)
def nobody_waits() -> None:
    """What other tests have put, and nobody has fetched."""
    waiting = sharing._waiting()
    while waiting:
        waiting.popitem()[1][1]()


@pytest.fixture
def limit() -> Iterator[None]:
    former = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, former[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, former)


def put_one(queue: Any, number: int, **how: Any) -> None:
    """One end of a pipe, in which the number stands already."""
    here, there = multiprocessing.Pipe()
    here.send(number)
    queue.put(there, **how)


def get_one(queue: Any) -> int:
    with queue.get(timeout=PATIENCE) as connection:
        number: int = connection.recv()
        return number


def fill(queue: Any) -> None:
    for number in range(MOST):
        put_one(queue, number)


def nothing_is_left() -> bool:
    """No descriptor waits here to be fetched."""
    return not sharing._waiting() and not pickling.pending


def get_all(queue: Any, count: int, found: Any) -> None:
    found.put([get_one(queue) for _ in range(count)])


def test_a_put_waits_while_many_descriptors_wait_and_all_arrive(limit: None) -> None:
    queue, found = TurboQueue(), TurboQueue()
    child = multiprocessing.get_context("fork").Process(target=get_all, args=(queue, 3 * LIMIT, found))
    child.start()
    for number in range(3 * LIMIT):
        put_one(queue, number)
    assert found.get(timeout=PATIENCE) == list(range(3 * LIMIT))
    child.join(PATIENCE)


def test_a_put_that_may_not_wait_finds_no_place(limit: None) -> None:
    queue: Any = TurboQueue()
    fill(queue)
    with pytest.raises(Full):
        put_one(queue, -1, block=False)
    began = time.monotonic()
    with pytest.raises(Full):
        put_one(queue, -1, timeout=0.2)
    assert 0.2 <= time.monotonic() - began < 5
    with pytest.raises(Full):
        queue.put_many([1, multiprocessing.Pipe()[0]], timeout=0.01)
    assert [get_one(queue) for _ in range(MOST)] == list(range(MOST))
    put_one(queue, 7, block=False)
    assert get_one(queue) == 7
    assert nothing_is_left()


def test_items_that_take_none_do_not_wait(limit: None) -> None:
    queue, other = TurboQueue(), TurboQueue()
    fill(queue)
    other.put_nowait("one")
    other.put_many_nowait(["two", "three"])
    queue.put_nowait("four")
    assert other.get_many() == ["one", "two", "three"]
    assert [get_one(queue) for _ in range(MOST)] == list(range(MOST))
    assert queue.get() == "four"


def test_a_put_into_an_event_loop_waits_and_lets_others_run(limit: None) -> None:
    queue: Any = TurboQueue()
    fill(queue)

    async def put_and_get() -> bool:
        here, there = multiprocessing.Pipe()
        here.send(MOST)
        putting = asyncio.ensure_future(queue.put_async(there))
        await asyncio.sleep(0.1)
        waited = not putting.done()
        assert get_one(queue) == 0
        await asyncio.wait_for(putting, PATIENCE)
        return waited

    assert asyncio.run(put_and_get())
    assert [get_one(queue) for _ in range(MOST)] == list(range(1, MOST + 1))


def test_a_put_that_waits_for_nobody_says_what_to_do(limit: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """And takes part in no harm: all that was put arrives."""
    monkeypatch.setattr(sharing, "PATIENCE", 0.3)
    queue: Any = TurboQueue()
    fill(queue)
    with pytest.raises(OSError, match=f"{MOST} descriptors .* maxsize") as raised:
        put_one(queue, -1)
    assert raised.value.errno == errno.EMFILE
    assert [get_one(queue) for _ in range(MOST)] == list(range(MOST))


@pytest.mark.in_turn
def test_a_put_waits_as_long_as_somebody_fetches(limit: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "PATIENCE", 1.0)
    queue: Any = TurboQueue()
    fill(queue)
    monkeypatch.setattr(sharing, "SHARE", 5)
    got: list[int] = []

    def slowly() -> None:
        for _ in range(MOST):
            time.sleep(0.15)
            got.append(get_one(queue))
            if len(got) > 16:
                return

    taking = threading.Thread(target=slowly)
    taking.start()
    put_one(queue, -1)  # after two seconds
    assert len(got) >= MOST - LIMIT // 5
    taking.join()


class Own:
    """Takes a descriptor with it by itself."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __reduce__(self) -> Any:
        return fetched, (reduction.DupFd(self.descriptor),)


def fetched(descriptor: Any) -> int:
    number: int = descriptor.detach()
    return number


def test_a_class_that_makes_descriptors_by_itself_waits_too(limit: None) -> None:
    queue: Any = TurboQueue()
    for _ in range(MOST):
        queue.put(Own(0))
    with pytest.raises(Full):
        queue.put_nowait(Own(0))
    for _ in range(MOST):
        os.close(queue.get())
    assert nothing_is_left()


def ends(connection: Any) -> bool:
    """All ends on the other side are closed."""
    try:
        connection.recv()
    except EOFError:
        return True
    return False


@pytest.mark.parametrize("how", ["nowait", "timeout", "many", "many_nowait", "shut", "async"])
def test_what_is_refused_leaves_no_descriptor(how: str) -> None:
    """Who has the other end sees that this one is closed, once its owner has closed it."""
    queue: Any = TurboQueue(maxsize=1)
    queue.put("first")
    if how == "shut":
        queue.shutdown()
    for _ in range(3):
        here, there = multiprocessing.Pipe()
        with pytest.raises((Full, ShutDown, asyncio.TimeoutError)):
            if how == "nowait":
                queue.put_nowait(there)
            elif how == "timeout":
                queue.put(there, timeout=0.01)
            elif how == "many":
                queue.put_many([there], timeout=0.01)
            elif how == "many_nowait":
                queue.put_many_nowait([there, there])
            elif how == "shut":
                queue.put(there)
            else:
                asyncio.run(asyncio.wait_for(queue.put_async(there), 0.05))
        there.close()
        assert nothing_is_left() and here.poll(PATIENCE) and ends(here)
    assert queue.get() == "first"


def test_a_descriptor_that_its_owner_has_made_is_put_once_more_where_it_was_refused() -> None:
    queue: Any = TurboQueue(maxsize=1)
    queue.put("first")
    reader, writer = os.pipe()
    descriptor = reduction.DupFd(writer)
    os.close(writer)
    for _ in range(2):
        with pytest.raises(Full):
            queue.put(descriptor, timeout=0.01)
    assert queue.get() == "first"
    queue.put(descriptor, timeout=0.01)
    with open(queue.get().detach(), "wb") as file:
        file.write(b"here")
    with open(reader, "rb") as file:
        assert file.read() == b"here"
    assert nothing_is_left()


@pytest.mark.parametrize("many", [False, True])
def test_what_can_not_be_pickled_leaves_no_descriptor(many: bool) -> None:
    queue: Any = TurboQueue()
    here, there = multiprocessing.Pipe()
    with pytest.raises((pickle.PicklingError, AttributeError)):
        if many:
            queue.put_many([there, (there, there), (there, lambda: None), there])
        else:
            queue.put((there, lambda: None))
    there.close()
    assert nothing_is_left() and here.poll(PATIENCE) and ends(here)
    assert queue.empty()


def test_a_batch_of_more_than_may_wait_goes_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "most", lambda: MOST)
    queue, found = TurboQueue(), TurboQueue()
    count = 3 * MOST
    pipes = [multiprocessing.Pipe() for _ in range(8)]
    for number in range(count):
        pipes[number % 8][0].send(number)
    child = multiprocessing.get_context("fork").Process(target=get_all, args=(queue, count, found))
    child.start()
    queue.put_many([there for _ in range(count // 8) for _, there in pipes], timeout=PATIENCE)
    assert found.get(timeout=PATIENCE) == list(range(count))
    child.join(PATIENCE)
    assert nothing_is_left()


def test_a_refused_item_is_not_even_pickled() -> None:
    """As in the standard library, where a place comes first: it costs nothing, and need not be one that pickles."""
    for queue in (TurboQueue(maxsize=2), multiprocessing.Queue(maxsize=2)):
        queue.put(1)
        queue.put(2)
        with pytest.raises(Full):
            queue.put_nowait(lambda: None)
        assert [queue.get(timeout=PATIENCE), queue.get(timeout=PATIENCE)] == [1, 2]
        queue.close()


def test_a_process_without_descriptors_says_what_to_do() -> None:
    """It has them all in use itself."""
    code = f"""
import multiprocessing, os, resource, sys
from programs.descriptors import use_up
from tqshim import TurboQueue
resource.setrlimit(resource.RLIMIT_NOFILE, ({LIMIT}, {LIMIT}))
q = TurboQueue()
q.put(1)
assert q.get() == 1
here, there = multiprocessing.Pipe()
taken = use_up()
try:
    q.put(there)
except OSError as error:
    print(error.errno, "ulimit -n" in str(error), type(error.__cause__).__name__)
os.close(taken.pop())
q.put(2)
print(q.get())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout == f"{errno.EMFILE} True OSError\n2\n", done.stderr


@pytest.mark.parametrize("bounded", [False, True])
def test_a_process_without_a_spare_descriptor_gets_and_puts(
    bounded: bool, limit: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks for members that died, and for files that nobody removed, once it has some again."""
    q: Any = TurboQueue(100 if bounded else 0)
    q.put_many(range(5))
    assert [q.get() for _ in range(5)] == list(range(5))
    with pytest.raises(Empty):
        q.get(timeout=0.01)  # it has its bell from here on
    q.put_many(range(1, 5))
    monkeypatch.setattr(tuning, "SCAN_EVERY", 0.0)
    taken: list[int] = []
    try:
        with pytest.raises(OSError):
            while True:
                taken.append(os.dup(0))
        for number in range(1, 5):
            assert q.get() == number
            q.put(number)
        with pytest.raises(Empty):
            for _ in range(5):
                q.get(timeout=0.01)
    finally:
        for fd in taken:
            os.close(fd)


@pytest.mark.parametrize("strategy", ["file_descriptor", "file_system"])
def test_more_tensors_than_descriptors_arrive(strategy: str) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    code = f"""
import resource, tqshim, torch, torch.multiprocessing
torch.multiprocessing.set_sharing_strategy({strategy!r})
torch.set_num_threads(1)
resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512))

def take(queue, found):
    found.put(sum(int(queue.get(timeout=60)[0]) for _ in range(1500)))

if __name__ == "__main__":
    context = tqshim.get_context("fork")
    queue, found = context.Queue(), context.Queue()
    child = context.Process(target=take, args=(queue, found))
    child.start()
    for number in range(1500):
        queue.put(torch.full((3,), number))
    print(found.get(timeout=60))
    child.join()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout == f"{sum(range(1500))}\n", done.stderr


def put_and_die(queue: Any, told: Any) -> None:
    queue.put(multiprocessing.Pipe()[1])
    told.put(1)
    time.sleep(0.01 * (os.getpid() % 3))
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.in_turn
def test_what_a_killed_process_had_for_an_item_is_missed_when_it_is_seen_to_be_dead() -> None:
    """Who looks then whether its children live, as torch's DataLoader does, finds out why."""
    missed = 0
    for _ in range(20):
        queue, told = TurboQueue(), TurboQueue()
        child = multiprocessing.get_context("fork").Process(target=put_and_die, args=(queue, told))
        child.start()
        told.get(timeout=PATIENCE)
        try:
            queue.get(timeout=PATIENCE).close()
        except (ConnectionError, EOFError) as error:
            missed += 1
            assert not child.is_alive()
            if sys.version_info >= (3, 11):
                assert "must live until" in error.__notes__[0]
        child.join()
    assert missed


def put_and_leave(queue: Any) -> None:
    queue.put_many([1, multiprocessing.Pipe()[1]])


@pytest.mark.skipif(sys.version_info < (3, 11), reason="errors carry no notes")
@pytest.mark.parametrize("way", ["get", "get_many"])
def test_what_an_ended_process_had_for_an_item_is_missed_and_the_error_says_why(way: str) -> None:
    """It has deleted the socket at which its descriptors were to be fetched."""
    queue: Any = TurboQueue()
    child = multiprocessing.get_context("fork").Process(target=put_and_leave, args=(queue,))
    child.start()
    child.join()
    assert queue.get_many(timeout=PATIENCE, max_messages_to_get=2 if way == "get_many" else 1) == [1]
    with pytest.raises((OSError, EOFError)) as raised:
        queue.get(timeout=PATIENCE)
    assert "must live until" in raised.value.__notes__[-1]  # type: ignore[attr-defined]
