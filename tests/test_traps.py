"""Traps for whoever changes the engine: each test shows one of them, and fails if the engine falls into it."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from programs import histories, travel
from sampling import sampled

import tqshim.engine.engine
import tqshim.engine.tuning
import tqshim.runtime.systems
import tqshim.storage.places
from tqshim import CorruptBatchError, TurboQueue
from tqshim.engine.reader import Reader
from tqshim.protocol import events, index
from tqshim.runtime.ending import alive
from tqshim.sync import membarrier

LONG = 60.0

needs_reservations = pytest.mark.skipif(
    not (tqshim.engine.tuning.RESERVATIONS and membarrier.barrier_works()),
    reason="no reservations: they are switched off, or this system has no barrier for them",
)


def in_a_fork(work: Callable[[], Any]) -> Any:
    """Run it in a child of a bare fork; what it returned."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with open(writer, "wb") as out:
                pickle.dump(work(), out)
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with open(reader, "rb") as pipe:
        data = pipe.read()
    travelled = os.waitpid(child, 0)[1]
    assert travelled == 0
    return pickle.loads(data)


def program(code: str, *arguments: str, options: tuple[str, ...] = ()) -> str:
    done = subprocess.run(
        [sys.executable, *options, "-c", code, *arguments], capture_output=True, text=True, timeout=LONG
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def drain(q: Any) -> list[Any]:
    return [q.get(True, LONG) for _ in range(q.qsize())]


# -- after fork


def test_a_forked_child_has_a_journal_offset_of_its_own() -> None:
    """Parent and child act in turn; with one offset for both, each would take the other's verdicts for its own."""
    q: Any = TurboQueue()
    go, ready = os.pipe(), os.pipe()
    q.put_many(range(200))
    got = [q.get()]

    child = os.fork()
    if child == 0:
        try:
            mine = []
            for _ in range(50):
                os.read(go[0], 1)
                mine.append(q.get(True, LONG))
                os.write(ready[1], b"!")
            q.put(mine)
            q.close()
        finally:
            os._exit(0)
    for _ in range(50):
        os.write(go[1], b"!")
        os.read(ready[0], 1)
        got.append(q.get(True, LONG))
    assert os.waitpid(child, 0)[1] == 0
    rest = drain(q)
    mine = rest.pop()
    assert sorted(got + mine + rest) == list(range(200))
    assert got == sorted(got) and mine == sorted(mine)
    for fd in (*go, *ready):
        os.close(fd)


def test_a_forked_child_puts_into_a_log_of_its_own() -> None:
    """Else it would write over what its parent has put, or put that twice."""
    for maxsize in (0, 5000):
        q: Any = TurboQueue(maxsize)
        for turn in range(10):
            for number in range(20):
                q.put((turn, number))
            in_a_fork(lambda q=q, turn=turn: (q.put((turn, "child")), q.close()))
        got = drain(q)
        assert len(got) == len(set(got)) == 210
        assert [item for item in got if item[1] != "child"] == [(t, n) for t in range(10) for n in range(20)]


def test_a_forked_child_forgets_its_parents_lease() -> None:
    """What the parent has leased is delivered by one of them only."""
    q: Any = TurboQueue()
    q.put_many(range(100))
    got = [q.get() for _ in range(5)]
    got += in_a_fork(lambda: [q.get() for _ in range(10)])
    got += [q.get() for _ in range(5)]
    got += in_a_fork(lambda: [q.get() for _ in range(10)])
    assert got == list(range(30))
    assert q.qsize() == 70
    assert drain(q) == list(range(30, 100))


def test_a_forked_child_forgets_its_parents_reservation() -> None:
    """The parent's places stay the parent's, and the bound stays exact."""
    q: Any = TurboQueue(3000)
    for number in range(10):
        q.put(number)

    def fill() -> int:
        count = 0
        try:
            while True:
                q.put_nowait("child")
                count += 1
        except tqshim.Full:
            return count

    assert in_a_fork(fill) == 2990
    assert q.full()
    with pytest.raises(tqshim.Full):
        q.put_nowait("parent")
    assert len(drain(q)) == 3000


@needs_reservations
@pytest.mark.parametrize("maxsize", [5, 10, 1000])
def test_a_stopped_producers_reservation_keeps_no_put_waiting(maxsize: int) -> None:
    """Neither one that comes later, nor one that slept already; both without a timeout, and with all places hidden."""
    q: Any = TurboQueue(maxsize)
    q.put("another's")  # who puts alone reserves nothing
    q.get()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        q.put(0)
        q.put(1)  # with a reservation
        producer, ledger = q._engine.parts.producer, q._engine.parts.replica.ledger
        room = ledger.reservations.by_slot[producer.slot].stop - producer.end()[1]
        os.write(writer, bytes([room > 0]))
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    try:
        os.waitpid(child, os.WUNTRACED)
        assert os.read(reader, 1) == b"\1", "the second put reserves"
        put = threading.Thread(target=lambda: [q.put(number) for number in range(maxsize - 2)], daemon=True)
        put.start()
        put.join(LONG)
        assert not put.is_alive()
        assert q.full()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
        os.close(writer)


def test_a_reservation_left_by_an_interrupted_act_keeps_no_put_waiting() -> None:
    q: Any = TurboQueue(10)
    q.put(0)
    parts = q._engine.parts
    assert q._engine.act(lambda: parts.replica.append_one(events.reserve(parts.producer.slot, 9)))
    q._engine.unsure = True
    started = threading.Thread(target=lambda: [q.put(number) for number in range(9)], daemon=True)
    started.start()
    started.join(LONG)
    assert not started.is_alive()
    assert q.full()


def test_a_forked_child_meets_no_lock_that_another_thread_held() -> None:
    q: Any = TurboQueue()
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with q._engine.lock:
            held.set()
            release.wait(LONG)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(LONG)
    try:
        assert in_a_fork(lambda: (q.put(1), q.get(), q.qsize())) == (None, 1, 0)
    finally:
        release.set()
        thread.join()
    q.put(2)
    assert q.get() == 2


def test_a_forked_child_that_closes_does_not_unlock_its_parents_hold() -> None:
    """They share one open file; unlocking it for one would let a sweeper delete the queue of the other."""
    q: Any = TurboQueue()
    q.put("item")
    in_a_fork(lambda: q.close())
    in_a_fork(lambda: q._engine.close())
    program("from tqshim import TurboQueue; TurboQueue()")  # sweeps
    assert q.get_nowait() == "item"
    q.put("more")
    assert q.get_nowait() == "more"


def test_a_forked_child_wakes_for_what_is_put_after_the_fork() -> None:
    """Its epoll set is its own; the parent's waits go on as well."""
    q, back = TurboQueue(), TurboQueue()
    with pytest.raises(tqshim.Empty):
        q.get(True, 0.02)  # the parent has slept here: there is an epoll set to inherit
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            try:
                back.put(q.get(True, LONG))
                back.close()
            finally:
                os._exit(0)
        children.append(child)
    for number in range(4):
        q.put(number)
    got = [back.get(True, LONG) for _ in range(3)]
    got.append(q.get(True, LONG))
    assert sorted(got) == [0, 1, 2, 3]
    for child in children:
        assert os.waitpid(child, 0)[1] == 0


FORK_BESIDE_A_THREAD = """
import os, signal, sys, threading, time
from tqshim import TurboQueue
q = TurboQueue(path=sys.argv[1])
q.put(0)
has, go_on, forked = threading.Event(), threading.Event(), threading.Event()
parent = os.getpid()

def hold():
    with q._engine.lock:
        has.set()
        go_on.wait()

def handle(number, frame):
    if frame is None or "tqshim" not in frame.f_code.co_filename or forked.is_set():
        return  # not yet in the call that waits for the lock
    forked.set()
    os.fork()
    go_on.set()

def ring():
    while not forked.is_set():
        os.kill(parent, signal.SIGUSR1)
        time.sleep(0.001)

signal.signal(signal.SIGUSR1, handle)
threading.Thread(target=hold).start()
has.wait()
threading.Thread(target=ring).start()
q.put_many(["both"])
q.put("parent" if os.getpid() == parent else "child")
q.close()
if os.getpid() != parent:
    os._exit(0)
assert os.wait()[1] == 0
"""


def test_a_fork_in_a_handler_is_not_kept_waiting_by_a_thread_that_had_the_lock(tmp_path: Path) -> None:
    """The call below the handler waits for a lock that a thread had which the child does not have."""
    path = str(tmp_path / "queue")
    program(FORK_BESIDE_A_THREAD, path)
    got = drain(TurboQueue(path=path))
    assert [item for item in got if item not in ("both", "child")] == [0, "parent"]
    assert (got.count("child"), got.count("both")) == (1, 2), "the child has gone on with the call, too"


# -- one engine a process and folder


def test_two_handles_of_one_program_are_one_producer(tmp_path: Path) -> None:
    """However they came about; else what was put through one of them could come out after what was put later."""
    path = str(tmp_path / "queue")
    q: Any = TurboQueue(path=path)
    handles = [q, TurboQueue(path=path), pickle.loads(pickle.dumps(q))]
    os.symlink(path, tmp_path / "link")
    handles.append(TurboQueue(path=str(tmp_path / "link")))
    assert len({id(handle._engine) for handle in handles}) == 1
    for number in range(1000):
        handles[number % 4].put(number)
    assert [handles[number % 3].get() for number in range(1000)] == list(range(1000))


def test_closing_one_handle_leaves_the_others_open() -> None:
    q: Any = TurboQueue()
    other = pickle.loads(pickle.dumps(q))
    q.put(1)
    q.close()
    other.put(2)
    del q
    gc.collect()
    assert drain(other) == [1, 2]


@pytest.mark.in_turn
def test_threads_that_put_while_others_cut_and_open_files_lose_nothing() -> None:
    """A put without the lock, and one that needs another batch file, are of one log."""
    q: Any = TurboQueue(batch_size=5)
    threads = [threading.Thread(target=histories.produce, args=(q, n, 2000, "put", n)) for n in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        q.qsize()
    for thread in threads:
        thread.join()
    histories.check([drain(q)], dict.fromkeys(range(4), 2000))


# -- exceptions between append and delivery


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, MemoryError])
@pytest.mark.parametrize("waiting", [1, 3, 100])
def test_an_item_that_was_claimed_but_not_delivered_comes_with_the_next_get(
    monkeypatch: pytest.MonkeyPatch, error: type[BaseException], waiting: int, all_is_cut: None
) -> None:
    """The journal says it is ours; nobody else will ever get it."""
    q: Any = TurboQueue()
    q.put_many(range(waiting))
    failures = [error(), error()]

    def fails_at_first(read: Any) -> Any:
        def fail(self: Any, *arguments: Any) -> Any:
            if failures:
                raise failures.pop()
            return read(self, *arguments)

        return fail

    for way in ("open", "read", "read_many"):
        monkeypatch.setattr(Reader, way, fails_at_first(getattr(Reader, way)))
    got = []
    for _ in range(waiting + 2):
        try:
            got.append(q.get(True, LONG))
        except error:
            continue
    assert got == list(range(waiting))
    assert q.empty()


# -- exit


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_forked_producers_last_put_is_not_lost(depth: int) -> None:
    """Its child's child's neither: each clears the registry of finalizers, and must enter again."""
    context = multiprocessing.get_context("fork")
    q: Any = TurboQueue()
    q.put("parent")  # armed in the parent already
    process = context.Process(target=travel.descend, args=(q, depth, "fork"))
    process.start()
    process.join(LONG)
    assert q.qsize() == depth + 2
    assert drain(q) == ["parent", *range(depth, -1, -1)]


def test_threads_may_still_put_after_the_finalizers_ran(tmp_path: Path) -> None:
    """A daemon thread, and an atexit function that was registered before the package was imported."""
    code = """
import atexit, sys, threading
queues = []
def last():
    queues[0].put("atexit")
atexit.register(last)
from tqshim import TurboQueue
q = TurboQueue(path=sys.argv[1])
queues.append(q)
q.put("first")
"""
    path = str(tmp_path / "queue")
    program(code, path)
    assert drain(TurboQueue(path=path)) == ["first", "atexit"]


def test_an_anonymous_queue_is_there_until_the_end_of_a_program(root: Path) -> None:
    """Also for what ``atexit`` calls after multiprocessing's own function, and for destructors."""
    code = """
import atexit, queue
def last():
    q.put("late")
    found = []
    try:
        while True:
            found.append(q.get(timeout=0.1))
    except queue.Empty:
        print(*sorted(found))
atexit.register(last)
from multiprocessing import get_context
from tqshim import TurboQueue
class Late:
    def __del__(self, q=TurboQueue()):
        q.put("destructor's")
        print(q.get())
q, late = TurboQueue(), Late()
children = [get_context("fork").Process(target=q.put, args=("a child's",)) for _ in range(2)]
for child in children:
    child.start()
"""
    assert program(code) == "a child's a child's late\ndestructor's\n"
    assert not os.listdir(root)


@pytest.mark.parametrize(
    "kept",
    [
        "[threading.Thread(target=use, args=(q,), daemon=True).start() for use in uses]; time.sleep(0.02)",
        "sys.kept = q.kept = q",
        "gc.disable(); gc.freeze()",
        "[sys.modules.pop(name) for name in list(sys.modules) if name.startswith('tqshim')];"
        " threading.Thread(target=put, args=(q,), daemon=True).start()",
        "child.start(); child.join()",
    ],
)
def test_a_program_that_ends_leaves_no_folder(root: Path, kept: str) -> None:
    """Whatever refers to its queues: daemon threads, which are stopped in the middle of an act, ``sys``, a child."""
    code = f"""
import gc, sys, threading, time
from multiprocessing import get_context
from tqshim import TurboQueue
def get(q):
    while True:
        q.get()
def put(q):
    while True:
        q.put(b"x")
def in_child(q):
    TurboQueue().put(2)
    q.put(3)
q, uses = TurboQueue(), (get, get, put)
q.put(1)
child = get_context("fork").Process(target=in_child, args=(q,))
{kept}
"""
    for _ in range(3):
        assert not program(code)
        assert not os.listdir(root)


def test_threads_of_a_child_go_on_when_its_main_function_has_returned(root: Path) -> None:
    """Up to Python 3.12 multiprocessing's own exit function comes before the end of those threads.  Others than these
    end only when they are asked to at the end: they keep no queue."""
    code = """
import threading, time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from tqshim import SimpleTurboQueue
def produce(q):
    for number in range(3):
        time.sleep(0.05)
        q.put(number)
def consume(q):
    print([q.get() for _ in range(3)], flush=True)
def main():
    global executor, kept
    executor, kept = ThreadPoolExecutor(1), SimpleTurboQueue()
    executor.submit(kept.put, 1).result()
    q = SimpleTurboQueue()
    for part in (produce, consume):
        threading.Thread(target=part, args=(q,)).start()
child = get_context("fork").Process(target=main)
child.start()
child.join()
print(child.exitcode)
"""
    assert program(code) == "[0, 1, 2]\n0\n"
    assert not os.listdir(root)


def test_a_programs_own_fork_hook_may_use_a_queue_in_the_child() -> None:
    """The hooks of the package come first, also where the first queue is made after the program's hook is there."""
    code = """
import os
from tqshim import TurboQueue
queue = None
os.register_at_fork(after_in_child=lambda: queue.put(os.getpid()))
queue = TurboQueue(1000)
wanted = set()
for number in range(20):
    queue.put(-number)
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    wanted |= {-number, child}
assert queue.qsize() == 40
assert {queue.get() for _ in range(40)} == wanted
"""
    assert program(code) == ""


@pytest.mark.in_turn
def test_a_signal_in_a_childs_fork_hook_does_not_leave_it_its_parents_queues() -> None:
    """Once at each line of what runs there."""
    code = """
import os, signal, sys
from tqshim import TurboQueue
from tqshim.runtime import forks
queue = TurboQueue()
queue.put("parent")
step = 0
def trace(frame, event, _):
    global left
    if event == "line" and "tqshim" in frame.f_code.co_filename:
        left -= 1
        if not left:
            sys.settrace(None)
            raise KeyboardInterrupt
    return trace
def begin():
    sys.settrace(trace)
forks._in_child.insert(0, begin)
sys.stderr = open(os.devnull, "w")  # what such an exception says
while True:
    step += 1
    left = step
    child = os.fork()
    if not child:
        sys.settrace(None)
        queue.put((step, left))
        os._exit(0)
    os.waitpid(child, 0)
    if queue.qsize() != step + 1:
        sys.exit(f"of {step} children {queue.qsize() - 1} have put")
    if step > 20 and step % 10 == 0:
        queue.put("end")
        found = [queue.get() for _ in range(step + 2)]
        assert found[0] == "parent" and [number for number, _ in found[1:-1]] == list(range(1, step + 1))
        if found[-2][1] > 0:
            break
        sys.exit("not long enough") if step > 500 else None
        found.pop()
        for item in found:
            queue.put(item)
print("all")
"""
    assert program(code) == "all\n"


def test_a_queue_that_can_not_be_opened_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise OSError("no more descriptors")

    before = len(os.listdir("/dev/fd"))
    monkeypatch.setattr(tqshim.engine.engine.Engine, "__init__", fails)
    with pytest.raises(OSError, match="no more"):
        TurboQueue()
    assert len(os.listdir("/dev/fd")) == before


def test_a_weak_set_is_looked_at_while_other_threads_add_to_it() -> None:
    class Thing:
        pass

    things = [Thing() for _ in range(3)]

    class Growing(weakref.WeakSet[Thing]):
        def __iter__(self) -> Iterator[Thing]:
            if len(things) < 5:
                things.append(Thing())
                self.add(things[-1])
                raise RuntimeError("Set changed size during iteration")  # as before 3.14, which looks at a copy
            return super().__iter__()

    assert set(alive(Growing(things))) == set(things)
    assert len(things) == 5


@pytest.mark.skipif(not tqshim.engine.tuning.GIL, reason="a free-threaded build collects when it likes to")
def test_a_garbage_collection_may_destroy_other_queues_at_any_step() -> None:
    doomed: list[TurboQueue[int]] = []
    steps, still = 0, 0

    def destroy(phase: str, _: dict[str, int]) -> None:
        nonlocal still
        if phase == "stop":
            still -= 1
            if not still:
                doomed.clear()

    before = gc.get_threshold()
    gc.callbacks.append(destroy)
    try:
        while not doomed:  # until all has been done before the collection came
            steps += 1
            gc.disable()
            doomed.extend(TurboQueue() for _ in range(3))
            for queue in doomed:
                queue.put(steps)
            del queue
            fresh: TurboQueue[int] = TurboQueue()
            still = steps
            gc.set_threshold(1, 1000, 1000)
            gc.enable()
            fresh.put(steps)
            assert fresh.get() == steps
            fresh.close()
            gc.disable()
    finally:
        gc.callbacks.remove(destroy)
        gc.set_threshold(*before)
        gc.enable()
    assert steps > 5


def test_no_thread_of_ours_is_left_when_the_interpreter_ends(tmp_path: Path) -> None:
    """One that is left is stopped for good with the locks that it holds, and before 3.10.8 the interpreter may wait for
    it for ever (CPython's gh-96387)."""
    code = """
import _thread, atexit, sys
atexit.register(lambda: print(_thread._count()))
import tqshim
from tqshim.turbo_queue import Enqueue
q = Enqueue()
q.queue_name = "events"
q.root_path = sys.argv[1]
while not _thread._count():
    q.add("event")
print(_thread._count())
"""
    assert program(code, str(tmp_path)).split()[-1] == "0"


def test_a_queue_has_no_thread_of_its_own(tmp_path: Path) -> None:
    """Whatever is done with it, in whatever process."""
    code = """
import _thread, multiprocessing, sys
import tqshim
def use(q):
    for number in range(3000):
        q.put(number)
        q.put(b"x" * 100_000) if not number % 500 else None
        if number > 50:
            q.get()
    q.put_many(range(10))
    with q.claimed():
        pass
    q.qsize(), q.stats()
    assert _thread._count() == 0, _thread._count()
for q in (tqshim.TurboQueue(), tqshim.TurboQueue(1000), tqshim.TurboQueue(path=sys.argv[1])):
    use(q)
    child = multiprocessing.get_context("fork").Process(target=use, args=(q,))
    child.start()
    child.join()
    assert not child.exitcode and not _thread._count()
"""
    program(code, str(tmp_path / "queue"))


def test_forking_after_puts_warns_of_no_threads() -> None:
    """Python 3.12 and later do, where a thread runs."""
    code = """
import os, warnings
warnings.simplefilter("error")
from tqshim import TurboQueue
q = TurboQueue()
for turn in range(5):
    for number in range(20):
        q.put(number)
    child = os.fork()
    if child == 0:
        q.put("child")
        q.close()
        os._exit(0)
    os.waitpid(child, 0)
print(q.qsize())
"""
    assert program(code, options=("-W", "error")) == "105\n"


def work(tasks: Any, results: Any) -> None:
    for item in iter(tasks.get, None):
        results.put_many([item, item])
        tasks.task_done()
    tasks.task_done()


@pytest.mark.parametrize("method", sampled("warnings", ["fork", "spawn", "forkserver"], 1))
def test_nothing_that_queues_do_warns(tmp_path: Path, method: str) -> None:
    """Of what a version of Python deprecates, of files that nobody closed: a warning would end it as an error does."""
    code = f"""
import multiprocessing, sys, tqshim
from test_traps import work
if __name__ == "__main__":
    context = tqshim.get_context("{method}")
    for tasks in context.JoinableQueue(10), tqshim.JoinableQueue(path=sys.argv[1], durable=True, authkey=b"key"):
        results = context.Queue()
        child = context.Process(target=work, args=(tasks, results))
        child.start()
        for number in range(50):
            tasks.put(b"." * (1, 100, 70_000)[number % 3])
        tasks.put(None)
        tasks.join()
        child.join()
        assert not child.exitcode
        assert len(results.get_many(False)) + sum(1 for _ in results.drain()) == 100
        for queue in tasks, results:
            queue.close()
            queue.join_thread()
    with tqshim.install(), multiprocessing.get_context("{method}").Pool(2) as pool:
        print(pool.map(abs, range(3)))
"""
    file = tmp_path / "warns.py"
    file.write_text(code)
    surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TQSHIM_CHECK": "all"}
    command = [sys.executable, "-X", "dev", "-W", "error", str(file), str(tmp_path / "queue")]
    done = subprocess.run(command, env=surroundings, capture_output=True, text=True, timeout=LONG)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[0, 1, 2]\n", "")


@pytest.mark.parametrize("error", [OverflowError, MemoryError, RuntimeError])
@pytest.mark.parametrize("maxsize", [0, 100])
@pytest.mark.parametrize("size", [10, 100_000])
def test_an_error_of_our_own_is_told_as_what_it_is_and_costs_no_item(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception], maxsize: int, size: int
) -> None:
    """No full disk is made of it, nothing that was put goes with it, and the next put goes on."""
    monkeypatch.setattr(tqshim.engine.tuning, "CHECK_ALL", True)
    queue: Any = TurboQueue(maxsize)
    put, failed, check = [], 0, index.check

    def fails(*arguments: Any) -> bytes:
        if number % 3 == 1:
            raise error("of ours")
        return check(*arguments)

    monkeypatch.setattr(index, "check", fails)
    for number in range(30):
        try:
            queue.put((number, b"." * size))
            put.append(number)
        except error as raised:
            assert str(raised) == "of ours"
            failed += 1
    number = 0
    assert failed == 10
    assert [one for one, _ in drain(queue)] == put
    queue.close()


# -- room


def test_files_of_items_that_were_read_go_early() -> None:
    """A gigabyte may flow through a folder of a few megabytes."""
    q: Any = TurboQueue()
    folder = q._engine.folder.path
    item = b"x" * 100_000
    most = 0
    for _ in range(40):
        for _ in range(25):
            q.put(item)
        for _ in range(25):
            assert q.get(True, LONG) == item
        most = max(most, sum(os.stat(os.path.join(folder, name)).st_blocks * 512 for name in os.listdir(folder)))
    assert most < 16 << 20


def test_a_small_dev_shm_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default queues lie where there is room."""
    if not os.path.isdir(tqshim.runtime.systems.SHM):
        pytest.skip("there is no /dev/shm")

    class Room:
        f_frsize = 4096
        f_bavail = 0

    monkeypatch.delenv("TQSHIM_DIR")
    monkeypatch.setattr(tqshim.storage.places.os, "statvfs", lambda path: Room)
    assert tqshim.storage.places.anonymous_root() == tempfile.gettempdir()
    Room.f_bavail = 1 << 30
    assert tqshim.storage.places.anonymous_root() == tqshim.runtime.systems.SHM


# -- clocks, races


def test_the_wall_clock_may_step_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits end in time, and a pickle on its way keeps its folder."""
    q: Any = TurboQueue(1)
    q.put("item")
    data = pickle.dumps(q)
    q.close()
    del q
    real = time.time
    for step in (-30.0, 30.0):
        monkeypatch.setattr(tqshim.storage.places, "wall", lambda step=step: real() + step)
        TurboQueue().close()  # sweeps
    again = pickle.loads(data)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    with pytest.raises(tqshim.Full):
        again.put(1, True, 0.01)
    assert again.get(True, 0.01) == "item"
    with pytest.raises(tqshim.Empty):
        again.get(True, 0.01)


def test_a_batch_file_that_somebody_deleted_is_reported_and_the_rest_arrives(tmp_path: Path) -> None:
    path = str(tmp_path / "queue")
    program("import sys; from tqshim import TurboQueue; TurboQueue(path=sys.argv[1]).put(1)", path)
    for name in os.listdir(path):
        if name.startswith(("load", "ready")):
            os.unlink(os.path.join(path, name))
    program("import sys; from tqshim import TurboQueue; TurboQueue(path=sys.argv[1]).put(2)", path)
    q: Any = TurboQueue(path=path)
    with pytest.raises(CorruptBatchError) as caught:
        q.get(True, LONG)
    assert path in str(caught.value)
    assert q.get(True, LONG) == 2
    assert q.empty()


def test_making_queues_while_others_sweep_fails_for_nobody() -> None:
    """Sweepers take folders that are just being made for abandoned ones."""
    failures: list[BaseException] = []

    def make_and_drop() -> None:
        try:
            for number in range(60):
                q: Any = TurboQueue()
                q.put(number)
                assert q.get() == number
                q.close()
        except BaseException as error:
            failures.append(error)

    others = [
        subprocess.Popen(
            [sys.executable, "-c", "from tqshim import TurboQueue\nfor n in range(100): TurboQueue(3).put(n)"]
        )
        for _ in range(2)
    ]
    threads = [threading.Thread(target=make_and_drop) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    for other in others:
        assert other.wait(LONG) == 0
    assert not failures, failures


def test_a_queue_lives_only_as_long_as_its_handles() -> None:
    """No cycle, no thread and no registry keeps it."""
    root = os.environ["TQSHIM_DIR"]
    before = set(os.listdir(root))
    gc.disable()
    try:
        for maxsize in (0, 3000):
            q: Any = TurboQueue(maxsize)
            q.put_many(range(100))
            for number in range(50):
                q.put(number)
            q.get()
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                del q
            assert set(os.listdir(root)) <= before
    finally:
        gc.enable()


def test_what_a_killed_member_leaves_goes_where_all_others_are_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits: processes that begin a batch file, or empty one, look who has died."""
    monkeypatch.setattr(tqshim.engine.tuning, "SCAN_EVERY", 0.05)
    queue: Any = TurboQueue(batch_size=20)
    queue.put_many(range(20))
    queue.get()
    child = os.fork()
    if not child:
        try:
            queue.get()
            claim = queue.claimed()
            claim.__enter__()
            queue.put("theirs")
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    queue.qsize()
    engine = queue._engine
    ledger = engine.parts.replica.ledger
    assert len(ledger.members.by_slot) == 4
    deadline = time.monotonic() + 20
    while len(ledger.members.by_slot) > 2 and time.monotonic() < deadline:
        queue.put("mine")
        queue.get_nowait()
        ledger = engine.parts.replica.ledger
    assert len(ledger.members.by_slot) == 2
    assert not ledger.holds.held
    assert engine.parts.members.cells.sleepers(0) == []
    assert len([name for name in os.listdir(engine.folder.path) if name.startswith("load_")]) <= 2
