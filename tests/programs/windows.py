"""A program with one import line for every system, on a system that is made to look like Windows.

Before the package is imported, the program takes away what Windows lacks by CPython's documentation: modules, and names
of ``os`` and other modules, except what ``multiprocessing`` itself needs here to start a child.
"""

from __future__ import annotations

import argparse  # noqa: F401  all of the standard library that is needed, as long as it finds what it wants
import asyncio  # noqa: F401
import importlib
import logging  # noqa: F401
import mmap
import multiprocessing
import multiprocessing.managers
import multiprocessing.queues
import multiprocessing.synchronize
import os
import select
import signal
import sys
import tempfile  # noqa: F401
import time
import warnings
from typing import Any

WITHOUT = ("fcntl", "resource", "pwd", "grp", "termios")
NOT_IN_OS = (
    "O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK chown fchmod fchown fork fstatvfs getegid geteuid getgid getuid link"
    " lockf mkfifo posix_fallocate posix_fadvise pread preadv pwrite pwritev register_at_fork sched_getaffinity"
    " sched_yield setegid seteuid setgid setuid statvfs sysconf uname writev"
)
NOT_IN_MMAP = "MAP_ANONYMOUS MAP_PRIVATE MAP_SHARED MAP_POPULATE PROT_READ PROT_WRITE"


def look_like_windows() -> None:
    for name in WITHOUT:
        sys.modules[name] = None  # type: ignore[assignment]
    for module, names in (
        (os, NOT_IN_OS),
        (mmap, NOT_IN_MMAP),
        (select, "poll epoll EPOLLEXCLUSIVE"),
        (signal, "setitimer ITIMER_REAL SIGALRM"),
        (time, "clock_gettime CLOCK_MONOTONIC"),
    ):
        for name in names.split():
            if hasattr(module, name):
                delattr(module, name)
    os.supports_dir_fd.clear()
    for name in ("ForkContext", "ForkServerContext"):
        delattr(multiprocessing.context, name)
    for name, module in list(sys.modules.items()):
        if name.startswith("multiprocessing.") and hasattr(module, "sys"):
            module.sys = Here()  # its processes and semaphores are those of this system all the same
    sys.platform = "win32"


class Here:
    """``sys``, with the platform that it really is."""

    platform = sys.platform

    def __getattr__(self, name: str) -> Any:
        return getattr(sys, name)


multiprocessing.set_start_method("spawn", force=True)
look_like_windows()

import tqshim  # noqa: E402
from tqshim import JoinableQueue, Queue, SimpleQueue, UnsupportedError  # noqa: E402


def work(tasks: Any, results: Any, simple: Any) -> None:
    for number in iter(tasks.get, None):
        results.put_many([number, number * number])
        tasks.task_done()
    tasks.task_done()
    simple.put(("over", tqshim.supported))


def refused(call: Any) -> bool:
    try:
        call()
    except UnsupportedError as error:
        return "Linux or macOS" in str(error)
    return False


def main() -> None:
    assert not tqshim.supported
    assert refused(tqshim.TurboQueue) and refused(tqshim.SimpleTurboQueue)
    assert refused(lambda: tqshim.TurboQueue(path="jobs"))
    assert refused(lambda: importlib.import_module("tqshim.monitor"))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        tasks, results, simple = JoinableQueue(3), Queue(), SimpleQueue()
    assert [(one.category, one.filename) for one in warned] == [(RuntimeWarning, __file__)], warned
    assert "multiprocessing's" in str(warned[0].message)
    warnings.simplefilter("error")
    assert isinstance(tasks, multiprocessing.queues.JoinableQueue)
    assert isinstance(results, multiprocessing.queues.Queue)
    assert isinstance(simple, multiprocessing.queues.SimpleQueue)
    worker = multiprocessing.Process(target=work, args=(tasks, results, simple))
    worker.start()
    tasks.put_many([1, 2, 3, 4, None])
    tasks.join()
    assert simple.get() == ("over", False)
    found: list[Any] = []
    while len(found) < 8:
        found += results.get_many(timeout=60, max_messages_to_get=3)
    assert found == [1, 1, 2, 4, 3, 9, 4, 16]
    worker.join()
    with Queue(2) as small:
        small.put_many_nowait([1, 2])
        try:
            small.put_many([3, 4], timeout=0.01)
        except tqshim.Full:
            pass
        assert small.get_many(True, 60, 1) == [1]
        try:
            small.put_many([3, 4, 5], False)
        except tqshim.Full as error:
            assert str(error) == "1 of 3 items were put"
        assert [small.get(timeout=60), small.get(timeout=60)] == [2, 3]
        try:
            small.get_many_nowait()
        except tqshim.Empty:
            pass
    for call in (lambda: Queue(path="jobs"), lambda: JoinableQueue(path="jobs", durable=True)):
        assert refused(call)
    assert not os.path.exists("jobs")
    with tqshim.install():
        for made in (multiprocessing.Queue(), multiprocessing.JoinableQueue(), tqshim.get_context().Queue()):
            made.put_many([1, 2])
            assert [made.get(timeout=60), made.get(timeout=60)] == [1, 2]
        multiprocessing.SimpleQueue().close()
    assert not hasattr(multiprocessing.Queue(), "put_many")
    from tqshim.__main__ import main as command

    sys.argv[1:] = ["ls"]
    assert command() == 2
    print("all of it")


if __name__ == "__main__":
    main()
