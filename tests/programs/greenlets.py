"""A program that gevent or eventlet has patched uses queues; prints what it found, as JSON.

Usage: python -m programs.greenlets gevent|eventlet first|last

``first``: tqshim is imported before anything is patched; ``last``: after it.
"""

# ruff: noqa: E402
from __future__ import annotations

import sys
from typing import Any

LIBRARY, ORDER = sys.argv[1:3]
if ORDER == "first":
    import tqshim
if LIBRARY == "gevent":
    from gevent import monkey

    monkey.patch_all()
    from gevent import sleep, spawn
elif LIBRARY == "eventlet":
    import eventlet

    eventlet.monkey_patch()
    from eventlet import sleep, spawn

import json
import multiprocessing
import os
import time

import tqshim

PATIENCE = 30.0
ticks: list[int] = []


def tick() -> None:
    while True:
        sleep(0.01)
        ticks.append(os.getpid())


def answer(asked: Any, answers: Any) -> None:
    """In a forked child, in the greenlet in which it was forked."""
    for item in iter(lambda: asked.get(timeout=PATIENCE), None):
        answers.put(item)
    answers.put((ticks.count(os.getpid()), "ticks"))


def own_greenlets(answers: Any) -> None:
    """In a forked child: greenlets of its own take turns in a queue of its own."""
    own: Any = tqshim.TurboQueue()

    def echo() -> None:
        answers.put([own.get(timeout=PATIENCE) for _ in range(3)])

    one = spawn(echo)
    for number in range(3):
        sleep(0.05)
        own.put(number)
    (one.join if LIBRARY == "gevent" else one.wait)()


def main() -> dict[str, Any]:
    found: dict[str, Any] = {}
    context: Any = multiprocessing.get_context("fork")
    spawn(tick)
    sleep(0.05)
    asked: Any = tqshim.TurboQueue()
    answers: Any = tqshim.TurboQueue()

    # Each alone with its own queue, and others run meanwhile.
    child = context.Process(target=answer, args=(asked, answers))
    child.start()
    before = len(ticks)
    got = []
    for number in range(5):
        sleep(0.05)
        asked.put(number)
        got.append(answers.get(timeout=PATIENCE))
    asked.put(None)
    found["answers"], found["ticks of copies"] = got, answers.get(timeout=PATIENCE)[0]
    found["ticked"] = len(ticks) > before + 5
    child.join()
    found["exit"] = child.exitcode

    child = context.Process(target=own_greenlets, args=(answers,))
    child.start()
    found["own greenlets"] = answers.get(timeout=PATIENCE)
    child.join()

    # Several in one process: some wait for items, some for places, one for the end; each goes on.
    queue: Any = tqshim.JoinableTurboQueue(2)
    taken: list[int] = []

    def take() -> None:
        for _ in range(10):
            taken.append(queue.get())
            sleep(0)
            queue.task_done()

    def put(first: int) -> None:
        for number in range(first, first + 10):
            queue.put(number)

    takers = [spawn(take) for _ in range(3)]
    sleep(0.05)
    putters = [spawn(put, first) for first in (0, 10, 20)]
    for one in (*putters, *takers):
        (one.join if LIBRARY == "gevent" else one.wait)()
    queue.join()
    found["taken"] = sorted(taken) == list(range(30)) and queue.empty()

    began, before = time.monotonic(), len(ticks)
    try:
        queue.get(timeout=0.3)
    except tqshim.Empty:
        found["waited"] = 0.29 < time.monotonic() - began < 5 and len(ticks) > before + 5
    return found


if __name__ == "__main__":
    print(json.dumps(main()))
