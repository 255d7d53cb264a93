"""What processes do with a handle that has travelled to them."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from typing import Any

from tqshim import TurboQueue

LONG = 60.0
kept: Any = None


def echo(there: Any, back: Any, count: int) -> None:
    for _ in range(count):
        back.put(("echo", there.get(True, LONG)))


class Caller:
    def __init__(self, q: Any) -> None:
        self.q = q

    def __call__(self) -> None:
        self.q.put("called")


def keep(q: Any) -> None:
    global kept
    kept = q


def put_kept(item: Any) -> None:
    kept.put(item)


def put_pid(q: Any) -> None:
    q.put(("pid", os.getpid()))


def put_both(q: Any, item: Any) -> None:
    q.put(item)


def make_and_fill(count: int) -> Any:
    q: Any = TurboQueue()
    q.put_many(range(count))
    return q


def answer_on_the_queue_inside(outer: Any) -> None:
    inner = outer.get(True, LONG)["answer"][0]
    inner.put("inside")
    itself = outer.get(True, LONG)
    itself.put("itself")
    inner.put(outer.get(True, LONG))


def receive_and_answer(standard: Any, pipe: Any) -> None:
    standard.get(True, LONG).put("by queue")
    pipe.recv().put("by pipe")


def descend(q: Any, depth: int, method: str) -> None:
    q.put(depth)
    if depth:
        child: Any = multiprocessing.get_context(method).Process(target=descend, args=(q, depth - 1, method))
        child.start()
        child.join(LONG)
        assert child.exitcode == 0


def use_labelled(q: Any) -> None:
    q.count += 1
    q.put(q.count)


def sum_ten(q: Any, results: Any) -> None:
    results.put(sum(q.get(True, LONG) for _ in range(10)))


def alternate(one: Any, two: Any, more: list[Any]) -> None:
    handles = [one, two, *more]
    for number in range(100):
        handles[number % len(handles)].put(number)


def number_them(queues: list[Any]) -> None:
    for number, q in enumerate(queues):
        q.put(number)


def spawn_first(q: Any, method: str) -> None:
    """Use the handle for the first time to give it to a child."""
    child: Any = multiprocessing.get_context(method).Process(target=put_both, args=(q, method))
    child.start()
    child.join(LONG)
    assert child.exitcode == 0


def pickle_first(q: Any, pipe: Any) -> None:
    """Use the handle for the first time to send it somewhere; then it is closed here."""
    pipe.send_bytes(pickle.dumps(q))
    q.close()
