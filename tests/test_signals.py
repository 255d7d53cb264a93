"""Signals in the middle of calls: what the interrupted call did not deliver, the next one does; nothing comes twice."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import multiprocessing
import os
import queue
import signal
import subprocess
import sys
import traceback
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import sampling
from programs.things import Ringing
from signalling import signalled_before

from tqshim import TurboQueue
from tqshim.engine.acts import Acts
from tqshim.engine.gets import take_in_acts, take_short
from tqshim.engine.producer import Producer
from tqshim.engine.wait_policy import Waiter
from tqshim.runtime import systems

LIMIT = 200
"""Seconds in which a program must end that takes one or two."""


def interrupted(
    what: str, kind: str, count: int, maxsize: int = 0, seed: int = 1, most: int = 200, **environment: str
) -> dict[str, Any]:
    """Run programs/interrupted.py, and return its report; one that hangs tells where."""
    command = [sys.executable, "-X", "faulthandler", "-m", "programs.interrupted", what, kind]
    if kind.startswith("fork"):
        most = min(most, 40)
    command += [str(count), str(maxsize), str(seed), str(most)]
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
        start_new_session=True,
    )
    try:
        out, err = child.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGABRT)  # faulthandler writes where each of its processes hangs
        _, err = child.communicate()
        pytest.fail(f"hangs: {err.decode()[-6000:]}")
    assert child.returncode == 0, err.decode()[-3000:]
    assert b"Traceback" not in err, err.decode()[-3000:]  # nor in a child of its own
    report: dict[str, Any] = json.loads(out.splitlines()[-1])
    assert not report["missing"], report
    assert not report["doubled"], report
    assert report["in order"], report
    assert not report.get("strange"), report
    assert report["left"] == 0, report
    assert report["hits"] > 0, report
    assert report.get("other", True), report
    return report


raised = pytest.mark.skipif(
    sys.version_info < (3, 10),
    reason="3.9 may run a handler between the end of a with block and the release of its lock, which stays taken then",
)


@pytest.mark.in_turn
@raised
@pytest.mark.parametrize(
    ("what", "kind", "maxsize"),
    sampling.sampled("gets", list(product(("get", "get_many", "blocking"), ("keyboard", "custom"), (0, 50, 3000))), 6),
)
def test_an_interrupted_get_loses_and_doubles_nothing(what: str, kind: str, maxsize: int) -> None:
    interrupted(what, kind, 2000, maxsize)


def test_an_interrupted_get_of_the_standard_librarys_queue_may_lose_its_item() -> None:
    """At the line behind the one that has read it."""
    theirs = multiprocessing.get_context("spawn").Queue()
    theirs.put("lost")
    theirs.put("next")

    def trace(frame: Any, event: str, _: Any) -> Any:
        if frame.f_code is type(theirs).get.__code__ and event == "line" and "res" in frame.f_locals:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    former = sys.gettrace()
    sys.settrace(trace)
    try:
        with pytest.raises(KeyboardInterrupt):
            theirs.get(timeout=LIMIT)
    finally:
        sys.settrace(former)
    assert theirs.get(timeout=LIMIT) == "next"


@pytest.mark.in_turn
@raised
@pytest.mark.parametrize("kind", ["keyboard", "custom", "fork", "other"])
def test_an_interrupted_claim_loses_nothing_and_doubles_only_what_it_marks(kind: str) -> None:
    """Also where the end of the block is what was interrupted."""
    report = interrupted("claimed", kind, 2000)
    assert report["spurious"] <= report["hits"]


@pytest.mark.in_turn
@raised
@pytest.mark.parametrize("kind", ["keyboard", "custom", "fork"])
def test_an_interrupted_get_of_what_has_come_back_loses_and_doubles_nothing(kind: str) -> None:
    interrupted("returned", kind, 1500)


@pytest.mark.in_turn
@raised
@pytest.mark.parametrize(
    ("what", "kind", "maxsize"),
    sampling.sampled("interrupted puts", list(product(("put", "put_many"), ("keyboard", "custom"), (0, 50, 3000))), 4),
)
def test_an_interrupted_put_happens_once_or_not_at_all(what: str, kind: str, maxsize: int) -> None:
    interrupted(what, kind, 2000, maxsize)


@raised
@pytest.mark.parametrize(
    "off",
    sampling.sampled("off", ["short_ways", "leases", "reservations", "short_ways,leases,reservations,spinning"], 1),
)
def test_interrupts_do_no_harm_without_optimisations(off: str) -> None:
    interrupted("get", "keyboard", 3000, 0, 2, 100, TQSHIM_WITHOUT=off)
    interrupted("put", "keyboard", 4000, 3000, 2, 100, TQSHIM_WITHOUT=off)


@pytest.mark.parametrize(
    ("what", "maxsize"),
    sampling.sampled("others", list(product(("get", "get_many", "put", "put_many"), (0, 3000))), 4),
)
def test_a_handler_may_use_other_queues(what: str, maxsize: int) -> None:
    interrupted(what, "other", 5000, maxsize)


@pytest.mark.in_turn
@pytest.mark.parametrize("what", ["get", "get_many", "put", "put_many"])
def test_a_handler_may_fork(what: str) -> None:
    interrupted(what, "fork", 4000)


@pytest.mark.in_turn
@pytest.mark.parametrize(
    ("what", "maxsize"), sampling.sampled("forked gets", list(product(("get", "get_many"), (0, 3000))), 1)
)
def test_a_child_forked_in_the_middle_of_a_get_takes_an_item_of_its_own_or_none(what: str, maxsize: int) -> None:
    interrupted(what, "fork and go on", 600, maxsize)


@pytest.mark.in_turn
@pytest.mark.parametrize("what", sampling.sampled("forked puts", ["put", "put_many"], 1))
def test_a_child_forked_in_the_middle_of_a_put_does_the_parent_no_harm(what: str) -> None:
    interrupted(what, "fork and go on", 2000)


def wait_in_vain(q: Any) -> None:
    """Long enough to fall asleep, also where others keep this process from its processor."""
    with contextlib.suppress(queue.Empty):
        q.get(timeout=0.05)


@pytest.mark.in_turn
@pytest.mark.parametrize(
    "function", sampling.sampled("forks", [Producer._own_log, Acts.act, take_short, take_in_acts, Waiter.wake], 2)
)
def test_a_child_forked_at_any_instruction_goes_on_with_what_is_its_own(function: Any) -> None:
    """On 3.9 these are all; later ones run handlers at calls and jumps back alone."""
    if function is take_short and not systems.MAPS_AHEAD:
        pytest.skip("there is no short way to get")
    children: list[int] = []
    former = signal.signal(signal.SIGUSR1, lambda *_: children.append(os.fork()))
    try:
        for instruction in itertools.count(1):
            with TurboQueue() as q:
                for number in range(6):
                    q.put(number)
                assert q.get() == 0  # from here on it has all that comes
                act = functools.partial(q.put_many, [6])
                if function is take_short:
                    act = q.get_nowait
                elif function is take_in_acts:
                    act = functools.partial(q.get_many, False, None, 2)
                elif function is Waiter.wake:
                    q.get_many()
                    act = functools.partial(wait_in_vain, q)
                try:
                    there = signalled_before(instruction, function, signal.SIGUSR1, act)
                    if 0 in children:
                        q.put(q.qsize())
                        q.close()
                        os._exit(0)
                finally:
                    if 0 in children:
                        traceback.print_exc()
                        os._exit(1)
                if not there:
                    break
                assert os.waitpid(children.pop(), 0)[1] == 0, f"forked at instruction {instruction}"
    finally:
        signal.signal(signal.SIGUSR1, former)
    assert instruction > 3


def test_ctrl_c_ends_a_get_that_waits() -> None:
    """A real SIGINT from another process; the queue goes on."""
    program = """
import signal, sys
from tqshim import TurboQueue
q = TurboQueue(path=sys.argv[1])
for turn in range(3):
    try:
        print("waiting", flush=True)
        q.get()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
print(q.get(timeout=60), flush=True)
"""
    path = os.path.join(os.environ["TQSHIM_DIR"], "ctrl-c")
    q: Any = TurboQueue(path=path)
    child = subprocess.Popen([sys.executable, "-c", program, path], stdout=subprocess.PIPE)
    assert child.stdout is not None
    for _ in range(3):
        assert child.stdout.readline() == b"waiting\n"
        child.send_signal(signal.SIGINT)
        assert child.stdout.readline() == b"interrupted\n"
    q.put("item")
    assert child.stdout.readline() == b"item\n"
    assert child.wait(60) == 0
    child.stdout.close()
    assert q.empty()


class Alarm(Exception):
    pass


def handle(number: int, frame: Any) -> None:
    raise Alarm


class Handler:
    def __call__(self, *told: Any) -> None:
        raise Alarm

    def method(self, *told: Any) -> None:
        raise Alarm


@pytest.mark.parametrize("way", ["get", "get_many", "claimed"])
@pytest.mark.parametrize(
    "handler",
    [handle, lambda *told: handle(*told), functools.partial(functools.partial(handle)), Handler(), Handler().method],
    ids=["function", "lambda", "partial", "callable", "method"],
)
def test_any_handlers_exception_while_an_item_is_unpickled_does_not_lose_it(way: str, handler: Any) -> None:
    q: Any = TurboQueue()
    q.put(Ringing())
    former = signal.signal(signal.SIGUSR1, handler)
    Ringing.rung = False
    try:
        with pytest.raises(Alarm):
            if way == "claimed":
                q.claimed().__enter__()
            else:
                q.get_many() if way == "get_many" else q.get()
    finally:
        signal.signal(signal.SIGUSR1, former)
    assert q.get(timeout=20) == "rung"


def test_what_a_handler_in_c_raises_while_an_item_is_unpickled_loses_it_as_in_the_standard_library() -> None:
    """Nothing tells that from an item that fails."""
    for q in (multiprocessing.Queue(), TurboQueue()):
        q.put(Ringing())
        q.put("next")
        former = signal.signal(signal.SIGUSR1, functools.partial(int, "no number"))  # type: ignore[arg-type]
        Ringing.rung = False
        try:
            with pytest.raises(TypeError):
                q.get()
        finally:
            signal.signal(signal.SIGUSR1, former)
        assert q.get(timeout=20) == "next"
        q.close()


@pytest.mark.parametrize("many", [False, True])
def test_a_handlers_exception_while_an_item_is_unpickled_does_not_lose_it(many: bool) -> None:
    """It is no failure of the item: that can be got again."""
    q: Any = TurboQueue()
    q.put_many([1, Ringing(), 3])
    former = signal.signal(signal.SIGUSR1, handle)
    Ringing.rung = False
    got: list[Any] = []
    alarms = 0
    try:
        for _ in range(6):
            try:
                got += q.get_many(False) if many else [q.get(False)]
            except Alarm:
                alarms += 1
            except queue.Empty:
                break
    finally:
        signal.signal(signal.SIGUSR1, former)
    assert got == [1, "rung", 3]
    assert alarms == 1


KINDS_OF_QUEUES = [(), ("durable",), ("authkey",)]


@pytest.mark.in_turn
@pytest.mark.parametrize(
    ("what", "kind"), sampling.sampled("lines", list(product(("get", "put"), KINDS_OF_QUEUES)), 1, rest=False)
)
def test_an_exception_at_any_line_leaves_all_items_there_and_the_queue_usable(what: str, kind: tuple[str, ...]) -> None:
    """A handler interrupts each line that some case comes to, in one or two cases that it comes to it."""
    assert at_each_line(what, *kind) > 300


@pytest.mark.stress
@pytest.mark.parametrize("kind", KINDS_OF_QUEUES, ids=" ".join)
@pytest.mark.parametrize("what", ["get", "put"])
def test_an_exception_at_any_line_does_no_harm_in_any_case(what: str, kind: tuple[str, ...]) -> None:
    """At the first line, the second, and so on."""
    assert at_each_line(what, *kind, "all") > 2000


def at_each_line(*what: str) -> int:
    done = subprocess.run(
        [sys.executable, "-m", "programs.every_line", *what], capture_output=True, timeout=5 * LIMIT, check=False
    )
    told = done.stdout.decode()  # the seed of a sample
    assert done.returncode == 0, told + done.stderr.decode()[-3000:]
    return int(told.split()[-1])


@pytest.mark.stress
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["keyboard", "other", "fork"])
@pytest.mark.parametrize("what", ["get", "get_many", "blocking", "put", "put_many"])
@pytest.mark.parametrize("maxsize", [0, 1, 50, 3000])
def test_thousands_of_interrupts_do_no_harm(what: str, kind: str, maxsize: int, seed: int) -> None:
    interrupted(what, kind, 5_000 if kind == "fork" else 50_000, maxsize, 100 + seed, 40 if kind == "fork" else 3000)


@pytest.mark.in_turn
@pytest.mark.parametrize(
    ("kind", "durable"), sampling.sampled("all of it", list(product(("count", "shutdown"), ("", "durable"))), 1)
)
def test_what_interrupts_an_act_of_a_queue_may_use_all_of_it(kind: str, durable: str, tmp_path: Path) -> None:
    """Once at each line of a put, a look, a get and a ``task_done``: nobody hangs, and what was said counts."""
    code = """
import queue, sys, time
from tqshim import JoinableTurboQueue
from tqshim.queues.queue import ShutDown
kind, path, durable = sys.argv[1], sys.argv[2], bool(sys.argv[3])
def interrupt():
    if kind == "shutdown":
        q.shutdown()
        return
    q.task_done()
    assert not q.join(timeout=0.001)  # one of this step's three is not done
    assert 3 * step - 1 <= q.stats().put <= 3 * step
    try:
        with q.claimed(timeout=0.001): pass
    except queue.Empty:
        pass
def trace(frame, event, _):
    global left
    if frame.f_globals["__name__"].partition(".")[0] == "tqshim" and event == "line":
        left -= 1
        if not left:
            sys.settrace(None)
            interrupt()
    return trace
def use():
    q.put(step)
    q.qsize()
    q.get(timeout=1)
    q.task_done()
def empty():
    try:
        while True:
            q.get_nowait()
    except (queue.Empty, ShutDown):
        pass
left = step = short = 0
while short < 5:  # how many lines there are varies a little
    if not step or kind == "shutdown":
        q = JoinableTurboQueue(path=f"{path}{step}", durable=durable)
    step += 1
    left = step
    q.put("another")
    q.put("another")
    sys.settrace(trace)
    try:
        use()
    except ShutDown:
        assert kind == "shutdown"
    sys.settrace(None)
    short = short + 1 if left > 0 else 0
    if kind == "shutdown":
        until = time.monotonic() + 60
        while not q.is_shutdown and left <= 0:
            time.sleep(0.001)
            q.qsize()
            assert time.monotonic() < until
        q.close()
        step += 6  # it costs a queue each
    else:
        q.task_done()
        empty()
        if left > 0:
            q.task_done()  # nobody has interrupted this time
if kind == "count":
    assert q.join(timeout=60), q.stats()
    try:
        q.task_done()
    except ValueError:
        print(step)
else:
    print(step)
"""
    words = [sys.executable, "-X", "faulthandler", "-c", code, kind, str(tmp_path / "queue"), durable]
    done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) > 100


@pytest.mark.in_turn
@pytest.mark.parametrize(
    ("kind", "maxsize", "durable"),
    sampling.sampled("puts", list(product(("handler", "destructor"), (0, 1000), ("", "durable"))), 1),
)
def test_what_interrupts_an_act_of_a_queue_may_put_into_it(
    kind: str, maxsize: int, durable: str, tmp_path: Path
) -> None:
    """Once at each line of a put, a get and a look: nobody hangs, and what was put arrives."""
    code = """
import gc, queue, sys
from tqshim import TurboQueue
kind, maxsize, path, durable = sys.argv[1], int(sys.argv[2]), sys.argv[3], bool(sys.argv[4])
q = TurboQueue(maxsize, path=path, durable=durable)
wanted, got, left = 0, [], 0
def interrupt():
    global wanted
    q.put(("from within", wanted))
    q.put_many([("from within", wanted + 1)])
    wanted += 2
    size = q.qsize()
    # This step's item may not be put yet, or be what the interrupted get just returns.
    assert wanted + step - len(got) - 1 <= size <= wanted + step - len(got)
    assert q.empty() == (not size) and not q.full()
    try:
        got.append(q.get_nowait())
    except queue.Empty:
        pass
    try:
        got.append(q.get(timeout=0.001))
    except queue.Empty:
        pass
class Cycle:
    def __init__(self): self.me = self
    def __del__(self): interrupt()
def trace(frame, event, _):
    global left
    if frame.f_globals["__name__"].partition(".")[0] == "tqshim" and event == "line":
        left -= 1
        if not left:
            sys.settrace(None)
            if kind == "handler":
                interrupt()
            else:
                Cycle()
                gc.collect()
    return trace
gc.disable()
step = short = 0
while short < 5:  # how many lines there are varies a little
    step += 1
    left = step
    sys.settrace(trace)
    q.put(("put", step))
    q.qsize()
    got.append(q.get())
    sys.settrace(None)
    short = short + 1 if left > 0 else 0
q.put("last")
while len(got) < wanted + step + 1:
    got.append(q.get(timeout=60))
got.remove("last")
assert sorted(number for kind, number in got if kind == "from within") == list(range(wanted))
assert sorted(number for kind, number in got if kind == "put") == list(range(1, step + 1))
print(step)
"""
    words = [sys.executable, "-X", "faulthandler", "-c", code, kind, str(maxsize), str(tmp_path / "queue"), durable]
    done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) > 100


IN_THEIRS = """
import linecache, multiprocessing, sys
q = multiprocessing.get_context("spawn").Queue()
def trace(frame, event, _):
    if event == "line" and sys.argv[1] in linecache.getline(frame.f_code.co_filename, frame.f_lineno):
        sys.settrace(None)
        print("interrupted", flush=True)
        q.put("from within")
    return trace
sys.settrace(trace)
q.put("put")
print(q.get(timeout=60))
sys.settrace(None)
print(q.get(timeout=60))
"""


@pytest.mark.in_turn
def test_what_interrupts_a_get_of_the_standard_librarys_queue_may_put_and_a_put_hangs() -> None:
    """It holds a lock that the other put waits for."""
    for line, hangs in (("self._sem.release()", False), ("self._buffer.append(", True)):
        with subprocess.Popen([sys.executable, "-c", IN_THEIRS, line], stdout=subprocess.PIPE, text=True) as done:
            assert done.stdout is not None and done.stdout.readline() == "interrupted\n"
            try:
                if hangs:
                    with pytest.raises(subprocess.TimeoutExpired):
                        done.wait(1.0)
                else:
                    assert done.stdout.read() == "put\nfrom within\n"
            finally:
                done.kill()


class Asks:
    """Unpickling it asks whether an act of that engine is being interrupted."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _ask, ()


_asked: list[TurboQueue[Any]] = []


def _ask() -> bool:
    return _asked[0]._engine.is_interrupted  # type: ignore[union-attr]


def test_what_is_unpickled_interrupts_no_act_of_the_queue_that_it_comes_from() -> None:
    """The get has no lock then: a put in there needs no engine of its own."""
    with TurboQueue() as queue:
        _asked[:] = [queue]
        queue.put_many([Asks(), Asks()])
        assert queue.get() is False
        assert queue.get_many() == [False]
    _asked.clear()


def test_a_warning_that_is_logged_into_the_very_queue_that_is_read_hangs_nobody(tmp_path: Path) -> None:
    code = """
import logging.handlers, os, sys
from tqshim import CorruptBatchError, TurboQueue
path = sys.argv[1]
q = TurboQueue(path=path)
for number in range(5):
    q.put(number)
    q.qsize()
(name,) = [name for name in os.listdir(path) if name.startswith(("load_", "ready_"))]
with open(os.path.join(path, name), "r+b") as file:
    file.seek(8)
    file.write(bytes([255] * 8))
logging.basicConfig(handlers=[logging.handlers.QueueHandler(q)])
found = None
while not isinstance(found, logging.LogRecord):
    try:
        found = q.get(timeout=60)
    except CorruptBatchError:
        pass
print(found.getMessage().count("it is kept as"))
"""
    words = [sys.executable, "-X", "faulthandler", "-c", code, str(tmp_path / "queue")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr[-3000:]


def test_what_a_handler_has_put_at_the_very_end_is_there(tmp_path: Path) -> None:
    """The program ends in the handler's frame, in the middle of an act of that queue."""
    code = """
import os, sys
from tqshim import TurboQueue
q = TurboQueue(path=sys.argv[1])
def handle():
    q.put(7)
    q.put_many([8, 9])
    os._exit(0)
q._engine.act(handle)
"""
    path = str(tmp_path / "queue")
    subprocess.run([sys.executable, "-c", code, path], timeout=LIMIT, check=True)
    with TurboQueue(path=path) as queue:
        assert [queue.get_nowait() for _ in range(3)] == [7, 8, 9]


@pytest.mark.parametrize("durable", ["", "durable"])
@pytest.mark.parametrize("many", [False, True])
def test_a_put_comes_after_what_a_handler_has_put(many: bool, durable: str, tmp_path: Path) -> None:
    """What has interrupted an act of the queue has put it into a log of its own."""
    with TurboQueue(path=str(tmp_path / "queue"), durable=bool(durable)) as queue:
        for turn in range(0, 30, 3):
            queue.put(turn)
            queue._engine.act(queue.put, turn + 1)  # type: ignore[union-attr]
            if many:
                queue.put_many([turn + 2])
            else:
                queue.put(turn + 2)
        assert [queue.get(timeout=20) for _ in range(30)] == list(range(30))
