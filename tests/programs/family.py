"""What the children of ``test_family`` do."""

from __future__ import annotations

import os
import signal
from typing import Any

from watching import sleep_on, until_asleep

from tqshim import Empty, ShutDown


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
    sleep_on()
    says.put("waits")
    tasks.join()
    says.put("joined")


def report(says: Any, act: Any, *arguments: Any) -> None:
    """Say what an act on a queue comes to; who sleeps in it is to be rung for."""
    sleep_on()
    says.put("begins")
    try:
        says.put(("returns", act(*arguments)))
    except (Empty, ShutDown) as error:
        says.put(("raises", type(error).__name__))


def echo(calls: Any, answers: Any) -> None:
    """Answer each item with itself until a ``None`` comes."""
    while (item := calls.get()) is not None:
        answers.put(item)


def put_then_say(tasks: Any, says: Any, number: int) -> None:
    """Put so many items, say so, and do nothing any more."""
    for item in range(number):
        tasks.put(item)
    says.put("all put")
    signal.pause()


def shut_down_when_somebody_waits(tasks: Any, says: Any) -> None:
    until_asleep(tasks)
    tasks.shutdown()


def put_and_be_stopped(tasks: Any, says: Any, number: int) -> None:
    """Put so many items, be stopped, and put another when somebody continues this process."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCONT})
    for item in range(number):
        tasks.put(item)
    says.put("all put")
    signal.sigwait({signal.SIGCONT})
    try:
        tasks.put("late")
    except ShutDown:
        says.put("too late")


def put_and_wait(tasks: Any, other: Any, wait: str) -> None:
    """Put ten, and wait in a method of another queue."""
    for item in range(10):
        tasks.put(item)
    getattr(other, wait)(*([0] if wait == "put" else []))
