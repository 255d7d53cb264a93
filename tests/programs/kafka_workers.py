"""What workers do in the tests of ``tqshim.kafka``."""

from __future__ import annotations

import hashlib
import itertools
import os
import signal
import time
from pathlib import Path
from typing import Optional

from tqshim.kafka import Event, Message

ROUNDS = 200
"""Hashes of one event: some tens of microseconds of a processor."""


DEADLY = (2000, 5000)
counter = itertools.count(1)
"""Events of this process."""


def once(name: str) -> bool:
    """Whether this is the first call with that name, among all processes of the test."""
    try:
        os.close(os.open(Path(os.environ["TEST_FOLDER"]) / name, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def hashed(event: Event) -> Message:
    """The hash of a hash of a hash...; says which machine it was."""
    digest = event.value or b""
    for _ in range(ROUNDS):
        digest = hashlib.sha256(digest).digest()
    return Message(event.value, event.key, (("machine", os.environ.get("TEST_MACHINE", "").encode()),))


def killed_twice(event: Event) -> Message:
    """The same, but the first worker to come to its 2,000th event is killed, and so is the first at its 5,000th."""
    calls = next(counter)
    if calls in DEADLY and once(f"killed-{calls}"):
        os.kill(os.getpid(), signal.SIGKILL)
    return hashed(event)


def slow(event: Event) -> Message:
    """The same, in some milliseconds."""
    time.sleep(0.005)
    return hashed(event)


def various(event: Event) -> Optional[list[object]]:
    """Everything that may come of an event: one or more messages, none, errors, death."""
    number = int(event.value or b"")
    if number % 100 == 1:
        return None
    if number % 100 == 2:
        return [b"%d" % number, Message(b"again", b"other key", (("part", b"2"),))]
    if number == 203:
        raise ValueError("not this one")
    if number == 204:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 205 and once("failed"):
        raise ValueError("not at once")
    if number == 206 and once("died"):
        os._exit(3)
    return [b"%d" % number]


class Unloadable:
    """A worker whose process dies while it unpickles it."""

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (7,)

    def __call__(self, event: Event) -> None:
        raise AssertionError("it never gets here")


def refused_by_type(event: Event) -> str:
    """What no worker may return."""
    return "text"
