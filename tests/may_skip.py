"""What a continuous-integration run may skip, and why; any other skip is a failure there.

A test that is skipped because something is missing proves nothing, and nobody reads why.  So where
``TQSHIM_ALL_PLACES`` is set, as in ``.ci/run``, ``conftest`` turns a skip into a failure if the reason of the skip is
not in ``MAY_SKIP``, or stands there for other runs than this one.
"""

from __future__ import annotations

import fnmatch
import os
import sys
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import pytest

from tqshim.engine.tuning import GIL, SHORT_WAYS

STRICT: Final = bool(os.environ.get("TQSHIM_ALL_PLACES"))
"""Nothing may be missing here but what is listed."""
SWITCHED: Final = bool({"TQSHIM_PORTABLE", "TQSHIM_WITHOUT", "TQSHIM_CHECK"}.intersection(os.environ))
"""This run does without something, as on other systems, or to see what that costs."""


class May(NamedTuple):
    """Why a test may be skipped, and where."""

    why: str
    here: bool = True
    test: str = "*"
    """The pattern of who may: a function's name."""


def _not_of(its_version: bool) -> May:
    return May("of another version of Python: compat.interpreters runs it there", not its_version)


def _no_case_of(test: str) -> May:
    return May(f"the parameters of {test} combine to nothing here", test=test)


VERSION: Final = sys.version_info[:2]
_SWITCHED: Final = May("without what is switched off: the default run has it", SWITCHED)
_SHORT: Final = May("3.9 and free-threaded builds lack it, too", SWITCHED or not SHORT_WAYS)
_USER: Final = May("only root can: .ci/run as root has it", os.geteuid() != 0)

MAY_SKIP: Final = {
    # by the version of Python
    "InterpreterPoolExecutor came with 3.14": _not_of(VERSION >= (3, 14)),
    "queue.Queue.shutdown is of Python 3.13": _not_of(VERSION >= (3, 13)),
    "there is no sys.monitoring": _not_of(VERSION >= (3, 12)),
    "this interpreter has no such event": _not_of(VERSION >= (3, 14)),
    "exceptions can't be given notes": _not_of(VERSION >= (3, 11)),
    "errors carry no notes": _not_of(VERSION >= (3, 11)),
    "a lock of Python's own made of a C lock; later it is one word": _not_of(VERSION < (3, 14)),
    "from 3.14 on it is the same": _not_of(VERSION < (3, 14)),
    "3.9 may run a handler *": _not_of(VERSION > (3, 9)),
    "3.9 and 3.10 have no tables of handlers": _not_of(VERSION >= (3, 11)),
    "of what 3.12 and 3.13 make of such a loop": _not_of((3, 12) <= VERSION <= (3, 13)),
    "there is no list of the standard library's modules": _not_of(VERSION >= (3, 10)),
    "what threads share here, the GIL guards": May("free-threaded builds alone lack the GIL", not GIL),
    "a free-threaded build collects when it likes to": May("as above", not GIL),
    "no Python * with its test suite here; TQSHIM_PYTHONS can name one": May(
        "what .ci/run may do without, compat.interpreters lists"
    ),
    "faster-fifo is not there for this Python": May("its wheels end with 3.13", sys.version_info >= (3, 14)),
    # what no run of every day can install
    "torch is not installed": May("some gigabytes: compat.programs --big runs torch's own programs"),
    "* is not installed here": May(
        "compat.programs fails where a program of others is missing", test="test_a_program_comes_to_the_same"
    ),
    # by the case
    "there a get that does not wait looks at it; here it is not looked at": _no_case_of(
        "test_a_timeout_raises_what_it_raises_there"
    ),
    "what a killed process had in its hand is lost, but for blocks": _no_case_of(
        "test_what_a_leaving_process_had_taken_and_not_got_others_get"
    ),
    "there is always a place": _no_case_of("test_two_threads_whose_records_come_too_late_learn_it_both"),
    "once is enough": _no_case_of("test_a_process_exits_although_nobody_reads"),
    # where something is switched off
    "as above": _SWITCHED,
    "each put goes through the journal": _SWITCHED,
    "files of theirs that are not locked are asked for there": _SWITCHED,
    "here zeros are written instead": _SWITCHED,
    "it is switched off": _SWITCHED,
    "leases are switched off": _SWITCHED,
    "leases, or their short way, are switched off": _SWITCHED,
    "locks belong to processes here: one copy of the package to each": _SWITCHED,
    "no disk space can be set aside here, so a journal may find the disk full": _SWITCHED,
    "no disk space is set aside by ioctl here": _SWITCHED,
    "no file is filled again": _SWITCHED,
    "no file is mapped here, or that is switched off": _SWITCHED,
    "no file is refilled": _SWITCHED,
    "no list of mounted file systems here": _SWITCHED,
    "no pages are counted": _SWITCHED,
    "no places are reserved": _SWITCHED,
    "no reservations: they are switched off, or this system has no barrier for them": _SWITCHED,
    "nobody takes one here": _SWITCHED,
    "nobody puts without a word here": _SWITCHED,
    "not all acts can be walked here": _SWITCHED,
    "nothing else says it here": _SWITCHED,
    "nothing is unpickled from its file": _SWITCHED,
    "only /proc tells who holds a folder": _SWITCHED,
    "only where nothing is done without": _SWITCHED,
    "so many claims fill the journal, and the next one finds the disk full": _SWITCHED,
    "some are in what is only used on Linux, with all optimisations": _SWITCHED,
    "switched off: *": _SWITCHED,
    "that call is not made here": _SWITCHED,
    "the places are those of Linux": _SWITCHED,
    "there are no leases here": _SWITCHED,
    "nobody reserves places here": _SHORT,
    "there is no /dev/shm": _SWITCHED,
    "there is no short way": _SWITCHED,
    "there is no short way of a claim": _SWITCHED,
    "there is no short way to get": _SHORT,
    "there is no short way to put": _SHORT,
    "there is no short way to put into a bounded queue": _SHORT,
    "there is no such lease": _SWITCHED,
    "this system does not tell who has a file open: an empty one may be in use, and stays": _SWITCHED,
    "this system has no barrier for counters, or is not to use it": _SWITCHED,
    "this system makes FIFOs by path: see test_systems": _SWITCHED,
    "without epoll no thread listens for another": _SWITCHED,
    "without such locks, or where that is switched off, or where they are checked, all records are read at once": (
        _SWITCHED
    ),
    # by who runs it
    "only root can become another user": _USER,
    "only root can give a folder to somebody else": _USER,
    "only root can give files away": _USER,
    "no memory cgroup here: *": _USER,
    "no unshare --mount here: *": _USER,
    "no unshare --pid here: *": _USER,
    "no small tmpfs here: *": _USER,
}
"""By the reason as a report has it, where ``*`` stands for anything."""


def refusal(reason: str, test: str) -> str:
    """Why a skip of that test for that reason is a failure here; empty where it may be."""
    found = [may for pattern, may in MAY_SKIP.items() if fnmatch.fnmatchcase(reason, pattern)]
    if any(may.here and fnmatch.fnmatchcase(test, may.test) for may in found):
        return ""
    why = f"may be skipped elsewhere ({found[0].why})" if found else "is not in tests/may_skip.py"
    return f"skipped, which TQSHIM_ALL_PLACES makes a failure: {reason!r} {why}"


def _refuse(report: Any) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        told = report.longrepr
        reason = str(told[2] if isinstance(told, tuple) else told).partition("Skipped: ")[2]
        refused = refusal(reason, report.nodeid.rpartition("::")[2].partition("[")[0])
        if refused:
            report.outcome, report.longrepr = "failed", refused


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """A test."""
    outcome: Any = yield
    if STRICT:
        _refuse(outcome.get_result())


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    """A whole file."""
    outcome: Any = yield
    if STRICT:
        _refuse(outcome.get_result())
