"""Arguments that make no sense raise what the standard library raises, at once, and leave nothing behind."""

from __future__ import annotations

import math
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Optional

import pytest
from programs.things import BadAtLoading

import tqshim
from tqshim import Empty, FolderError, Full, JoinableTurboQueue, TurboQueue, monitor
from tqshim.queues.pickling import GETTABLE, REBUILT

HUGE = 10**400
STRANGE = [math.nan, math.inf, -math.inf, -1, 0, 0.01, True, "x", [], HUGE, 2**63, 1e30]
THEIRS = multiprocessing.get_context("spawn")


class Hangs(Exception):
    pass


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    """No call waits for ever."""

    def end(number: int, frame: Optional[FrameType]) -> None:
        raise Hangs

    former = signal.signal(signal.SIGALRM, end)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, former)


def outcome(call: Callable[[], Any]) -> Any:
    """What it returns, or the kind of what it raises."""
    signal.setitimer(signal.ITIMER_REAL, 5)
    try:
        return call()
    except Exception as error:
        return type(error)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@pytest.mark.parametrize(
    "maxsize",
    ["x", b"x", 2.5, None, 2**70, 2**31 - 1, -1, -(2**70), True, math.nan, math.inf, -math.inf, [], 1j],
)
@pytest.mark.parametrize("kind", ["Queue", "JoinableQueue"])
def test_a_maxsize_is_refused_as_the_standard_library_does(kind: str, maxsize: Any) -> None:
    def made(where: Any) -> Any:
        queue = getattr(where, kind)(maxsize)
        queue.close()

    theirs = outcome(lambda: made(THEIRS))
    assert outcome(lambda: made(tqshim.get_context("spawn"))) is theirs
    assert outcome(lambda: made(tqshim)) is theirs


@pytest.mark.in_turn
@pytest.mark.parametrize("timeout", STRANGE, ids=lambda value: str(value)[:8])
@pytest.mark.parametrize("block", [True, False, 1, 0])
@pytest.mark.parametrize("items, maxsize", [(0, 0), (1, 0), (1, 1)])
def test_a_timeout_raises_what_it_raises_there(items: int, maxsize: int, block: bool, timeout: Any) -> None:
    """Two differences, where the standard library's raises ``OSError: Invalid argument``: a put that would wait says
    what is wrong.  (What is no bool is taken for one here as in ``queue.Queue``, and no ``TypeError``.)"""
    if timeout is HUGE and not block:
        pytest.skip("there a get that does not wait looks at it; here it is not looked at")
    for method in ("get", "put"):
        found = []
        for kind in (THEIRS.Queue, TurboQueue):
            queue: Any = kind(maxsize)
            for item in range(items):
                queue.put(item)
            if items and kind is not TurboQueue:
                while queue.empty():
                    pass
            call = queue.get if method == "get" else lambda *more, queue=queue: queue.put(0, *more)
            found.append(outcome(lambda call=call: call(block, timeout)))
            queue.close()
            if kind is not TurboQueue:
                queue.cancel_join_thread()
        if found[0] is OSError:
            found[0] = ValueError if math.isnan(timeout) else OverflowError
        assert found[0] == found[1], method


@pytest.mark.parametrize("timeout, error", [(math.nan, ValueError), (math.inf, OverflowError), ("x", TypeError)])
def test_other_waits_are_refused_in_the_same_way(timeout: Any, error: type[Exception]) -> None:
    empty, full, busy = TurboQueue(), TurboQueue(1), tqshim.JoinableQueue()
    full.put(1)
    busy.put(1)
    calls: list[Callable[[], Any]] = [
        lambda: empty.get_many(True, timeout),
        lambda: empty.claimed(True, timeout).__enter__(),
        lambda: full.put_many([1], True, timeout),
        lambda: busy.join(timeout=timeout),
    ]
    assert [outcome(call) for call in calls] == [error] * len(calls)
    assert (full.get(), busy.get()) == (1, 1)
    assert outcome(lambda: empty.get(True, 0.001)) is Empty


class Short:
    """A number as numpy's ``float32``: a sum with it is one, and no ``float``."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __float__(self) -> float:
        return self.value

    def __radd__(self, other: float) -> Short:
        return Short(other + self.value)

    def __lt__(self, other: float) -> bool:
        return self.value < other


def test_a_number_whose_sums_are_no_floats_is_a_timeout() -> None:
    queue: Any = JoinableTurboQueue(1)
    for get in (queue.get, queue.get_many):
        with pytest.raises(Empty):
            get(timeout=Short(0.03))
    queue.put(1)
    for put in (queue.put, lambda item, timeout: queue.put_many([item], timeout=timeout)):
        with pytest.raises(Full):
            put(2, timeout=Short(0.03))
    assert not queue.join(timeout=Short(0.03))


def test_who_waits_long_waits() -> None:
    """A hundred years are none too many."""
    queue = TurboQueue(1)
    threading.Timer(0.05, queue.put, ("item",)).start()
    assert queue.get(timeout=3e9) == "item"
    assert outcome(lambda: queue.put(1, timeout=3e9)) is None
    assert outcome(lambda: queue.put(2, False, 3e9)) is Full


@pytest.mark.parametrize("path", ["jobs", b"jobs", Path("jobs")])
def test_a_path_in_the_place_of_maxsize_is_told_from_a_number(path: Any) -> None:
    with pytest.raises(TypeError) as caught:
        TurboQueue(path)
    assert f"path={path!r}" in str(caught.value)


@pytest.mark.parametrize("kind", [str, os.fsencode, Path])
def test_a_path_may_be_text_bytes_or_a_path(tmp_path: Path, kind: Callable[[str], Any]) -> None:
    path = kind(str(tmp_path / "queue"))
    with TurboQueue(path=path) as queue:
        queue.put("item")
        assert queue._engine.folder.path == str(tmp_path / "queue")  # type: ignore[union-attr]
        pickle.dumps(queue)
    assert monitor.status(path).items == 1
    assert monitor.check(path) == []
    assert monitor.recover(path, kind(str(tmp_path / "other"))).copied == 1
    assert monitor.fill(path, ["1"]) == 1
    assert monitor.drain(path, lambda line: None).items == 2
    assert monitor.remove(path) == 0


REFUSED: list[dict[str, Any]] = [
    {"maxsize": 2**70},
    {"maxsize": "x"},
    {"maxsize": 2.5},
    {"batch_size": 0},
    {"batch_size": "x"},
    {"batch_size": 2.5},
    {"authkey": "no bytes"},
    {"authkey": b""},
]


@pytest.mark.parametrize("arguments", REFUSED, ids=str)
def test_a_refused_argument_leaves_no_folder(tmp_path: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError)):
        TurboQueue(path=str(tmp_path / "queue"), **arguments)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("path, error", [("", ValueError), (b"", ValueError), (7, TypeError), ("a\0b", ValueError)])
def test_what_is_no_path_is_refused(path: Any, error: type[Exception]) -> None:
    """The empty one would be the current folder."""
    with pytest.raises(error):
        TurboQueue(path=path)


def test_durable_is_true_or_false_by_its_truth(tmp_path: Path) -> None:
    """As ``bool`` takes it: 1 or "yes" made a durable queue and was then refused for not being that queue's."""
    for number, (value, durable) in enumerate([(1, True), ("yes", True), (0, False)]):
        queue: Any = TurboQueue(path=str(tmp_path / str(number)), durable=value)
        assert queue._engine.durable is durable


class BadEachTime:
    """Raises one and the same exception."""

    error = TypeError("bad")

    def __reduce__(self) -> str:
        raise self.error


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exceptions can't be given notes")
def test_an_exception_that_is_raised_again_and_again_has_one_note() -> None:
    queue: Any = TurboQueue()
    for _ in range(3):
        with pytest.raises(TypeError, match="bad"):
            queue.put(BadEachTime())
    assert len(BadEachTime.error.__notes__) == 1
    BadEachTime.error.__traceback__ = None  # whose frames have the queue


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exceptions can't be given notes")
def test_what_cannot_be_pickled_says_which_queue_and_what_to_do(tmp_path: Path) -> None:
    """The standard library prints the exception, in another thread, and nothing of the queue."""
    queue = TurboQueue(path=str(tmp_path / "queue"))
    with pytest.raises(TypeError) as caught:
        queue.put(one for one in ())
    told = "".join(traceback.format_exception(caught.value)).splitlines()[-1]
    assert told.startswith(f"tqshim: queue at {tmp_path}/queue: a generator was not put, the queue goes on: put what")
    queue.put(BadAtLoading())
    queue.put("next")
    with pytest.raises(Exception) as failed:
        queue.get()
    told = "".join(traceback.format_exception(failed.value)).splitlines()[-1]
    assert told == f"tqshim: queue at {tmp_path}/queue: an item is gone, all others arrive: {REBUILT}"
    assert queue.get() == "next"
    queue.put(FromNowhere())
    with pytest.raises(ImportError) as failed:
        queue.get()
    told = "".join(traceback.format_exception(failed.value)).splitlines()[-1]
    assert told == f"tqshim: queue at {tmp_path}/queue: an item is gone, all others arrive: {GETTABLE}"


class FromNowhere:
    def __reduce__(self) -> Any:
        return __import__, ("no_such_module_anywhere",)


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_path_that_is_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("of somebody")
    with pytest.raises(FolderError, match="is a file, or lies below one; take another"):
        TurboQueue(path=tmp_path / name)
