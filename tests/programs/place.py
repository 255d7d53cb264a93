"""A program that uses queues as programs do: small items and large ones, over a forked and a spawned child.

It prints where its queue lies.  Its arguments: ``path=...`` for a queue at a path, ``spawn`` for that start method
alone, ``small`` for small items alone, ``without=N,N`` for system calls that fail with ENOSYS, or commands of ``fcntl``
that fail with EINVAL (a seccomp filter).
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import platform
import struct
import sys
from typing import Any

import tqshim
from tqshim import TurboQueue

LARGE = 3 << 20
NUMBERS = {"x86_64": {"fcntl": 72, "membarrier": 324}, "aarch64": {"fcntl": 25, "membarrier": 283}}
EINVAL, ENOSYS = 22, 38


def forbid(calls: list[str]) -> None:
    """From here on, and in all children, ``membarrier`` does not exist, ``ofd`` locks are no commands of ``fcntl``."""
    numbers = NUMBERS[platform.machine()]
    load, jump, give = 0x20, 0x15, 0x06
    allow, fail = 0x7FFF0000, 0x00050000
    steps = [(load, 0, 0, 0)]
    if "membarrier" in calls:
        steps += [(jump, 0, 1, numbers["membarrier"]), (give, 0, 0, fail | ENOSYS)]
    if "ofd" in calls:
        steps += [(jump, 0, 4, numbers["fcntl"]), (load, 0, 0, 24), (jump, 1, 0, 36), (jump, 0, 1, 37)]
        steps += [(give, 0, 0, fail | EINVAL)]
    steps += [(give, 0, 0, allow)]
    code = b"".join(struct.pack("=HBBI", *step) for step in steps)
    program = ctypes.create_string_buffer(code)
    header = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(program)))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    assert prctl(38, 1, 0, 0, 0) == 0
    assert prctl(22, 2, ctypes.c_void_p(ctypes.addressof(header)), 0, 0) == 0, os.strerror(ctypes.get_errno())


def give(queue: Any, number: int, large: bool) -> None:
    for item in range(200):
        queue.put((number, item))
    if large:
        queue.put((number, bytearray(LARGE)))
    queue.put((number, "end"))


def main(words: list[str]) -> None:
    options = dict(word.partition("=")[::2] for word in words)
    if "without" in options:
        forbid(options["without"].split(","))
    queue: Any = TurboQueue(path=options.get("path"))
    methods = ["spawn"] if "spawn" in options else ["fork", "spawn"]
    children = [
        multiprocessing.get_context(method).Process(target=give, args=(queue, number, "small" not in options))
        for number, method in enumerate(methods)
    ]
    for child in children:
        child.start()
    got: dict[int, list[Any]] = {number: [] for number in range(len(methods))}
    while sum(items[-1:] == ["end"] for items in got.values()) < len(methods):
        number, item = queue.get(timeout=60)
        got[number].append(item)
    for child in children:
        child.join()
        assert child.exitcode == 0, child.exitcode
    for items in got.values():
        assert items[:200] == list(range(200))
        assert "small" in options or len(items[200]) == LARGE
    try:
        queue.get(timeout=0.01)
    except tqshim.Empty:
        pass
    print(os.path.dirname(queue._engine.folder.path), flush=True)
    queue.close()


if __name__ == "__main__":
    main(sys.argv[1:])
