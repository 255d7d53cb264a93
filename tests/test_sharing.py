"""Items whose pickling makes descriptors, as that of torch's tensors does: put where few are left."""

from __future__ import annotations

import asyncio
import errno
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tqshim import Full, TurboQueue
from tqshim.queues import pickling

LIMIT = 256
MOST = LIMIT // 4
PATIENCE = 60.0


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
        queue.put_many([1, 2], timeout=0.01)
    assert [get_one(queue) for _ in range(MOST)] == list(range(MOST))
    put_one(queue, 7, block=False)
    assert get_one(queue) == 7


def test_a_put_into_an_event_loop_waits_and_lets_others_run(limit: None) -> None:
    queue: Any = TurboQueue()
    fill(queue)

    async def put_and_get() -> bool:
        putting = asyncio.ensure_future(queue.put_async("last"))
        await asyncio.sleep(0.1)
        waited = not putting.done()
        assert get_one(queue) == 0
        await asyncio.wait_for(putting, PATIENCE)
        return waited

    assert asyncio.run(put_and_get())
    assert [get_one(queue) for _ in range(1, MOST)] == list(range(1, MOST))
    assert queue.get() == "last"


def test_a_put_that_waits_for_nobody_says_what_to_do(limit: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """And takes part in no harm: all that was put arrives."""
    monkeypatch.setattr(pickling, "PATIENCE", 0.3)
    queue: Any = TurboQueue()
    fill(queue)
    with pytest.raises(OSError, match=f"{MOST} descriptors .* maxsize") as raised:
        put_one(queue, -1)
    assert raised.value.errno == errno.EMFILE
    assert [get_one(queue) for _ in range(MOST)] == list(range(MOST))


def test_a_put_waits_as_long_as_somebody_fetches(limit: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickling, "PATIENCE", 1.0)
    queue: Any = TurboQueue()
    fill(queue)
    monkeypatch.setattr(pickling, "SHARE", 5)
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


def test_a_process_without_descriptors_says_what_to_do() -> None:
    """It has them all in use itself."""
    code = f"""
import multiprocessing, os, resource, sys
from tqshim import TurboQueue
resource.setrlimit(resource.RLIMIT_NOFILE, ({LIMIT}, {LIMIT}))
q = TurboQueue()
q.put(1)
assert q.get() == 1
here, there = multiprocessing.Pipe()
taken = []
try:
    while True:
        taken.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
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
    queue.put(multiprocessing.Pipe()[1])


@pytest.mark.skipif(sys.version_info < (3, 11), reason="errors carry no notes")
def test_what_an_ended_process_had_for_an_item_is_missed_and_the_error_says_why() -> None:
    """It has deleted the socket at which its descriptors were to be fetched."""
    queue: Any = TurboQueue()
    child = multiprocessing.get_context("fork").Process(target=put_and_leave, args=(queue,))
    child.start()
    child.join()
    with pytest.raises((OSError, EOFError)) as raised:
        queue.get(timeout=PATIENCE)
    assert "must live until" in raised.value.__notes__[0]  # type: ignore[attr-defined]
