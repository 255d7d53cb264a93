"""What the children of ``test_family`` do."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from tqshim import Empty, ShutDown, tuning, waiting


def count_off(tasks: Any, results: Any, number: int) -> None:
    """Get so many items, hand each on, call it off."""
    for _ in range(number):
        results.put(tasks.get(timeout=60))
        tasks.task_done()


def branch(tasks: Any) -> None:
    """For an item n put the items 0 up to n, then call it off, until a ``None`` comes."""
    for item in iter(tasks.get, None):
        for smaller in range(item):
            tasks.put(smaller)
        tasks.task_done()
    tasks.task_done()


def die_with_an_item(tasks: Any) -> None:
    """Get an item, and be killed before it is called off."""
    tasks.get(timeout=60)
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for_all(tasks: Any, says: Any) -> None:
    says.put("waits")
    tasks.join()
    says.put("joined")


def report(says: Any, act: Any, *arguments: Any) -> None:
    """Say what an act on a queue comes to."""
    says.put("begins")
    try:
        says.put(("returns", act(*arguments)))
    except (Empty, ShutDown) as error:
        says.put(("raises", type(error).__name__))


def echo(calls: Any, answers: Any) -> None:
    """Answer each item with itself until a ``None`` comes."""
    while (item := calls.get()) is not None:
        answers.put(item)


def burst_then_say(tasks: Any, says: Any, number: int) -> None:
    """Put so many items in one burst, say so, and stay until told to go."""
    for item in range(number):
        tasks.put(item)
    says.put("all put")
    signal.pause()


def shut_down_when_somebody_waits(tasks: Any, says: Any) -> None:
    engine = tasks._engine
    tasks.empty()  # a forked engine is its own from its first act on
    while not engine.cells.sleepers(waiting.SLEEPS):
        time.sleep(0.001)
    tasks.shutdown()


def hold_back_until_continued(tasks: Any, says: Any) -> None:
    """Put a burst of ten, most of it not published, and wait to be stopped; published are they when this process goes
    on and ends."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCONT})
    tuning.LINGER = tuning.GAP_FIRST = 1000.0  # type: ignore[misc]
    for item in range(10):
        tasks.put(item)
    says.put("held back")
    signal.sigwait({signal.SIGCONT})


def hold_back_and_wait(tasks: Any, other: Any, wait: str) -> None:
    """Put a burst of ten that would not be published by itself, and wait in a method of another queue."""
    tuning.LINGER = tuning.GAP_FIRST = 1000.0  # type: ignore[misc]
    for item in range(10):
        tasks.put(item)
    getattr(other, wait)(*([0] if wait == "put" else []))
