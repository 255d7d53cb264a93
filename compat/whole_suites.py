"""Run CPython's own test modules as they are and under ``python -m tqshim run``: each test must have the same result.

    python -m compat.whole_suites [MODULE ...]

The modules are those of the interpreter that runs this program: pools, executors, managers, locks and logging, with
every start method.  Most of their tests make no queue, and must go on as they are.  ``compat.cpython_suite`` runs the
queue tests alone, and checks that each makes a queue of ours.

Flow: each module runs twice.  A test that fails in one of the two runs only runs again by itself, because some tests
fail on a busy machine.  A test whose results still differ must stand in DIFFERENCES, with the row of
docs/differences.md that says so.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib.util
import os
import re
import sys
import tempfile
import time
from typing import Final, NamedTuple

from compat.programs.__main__ import end_of

MODULES: Final = (
    "test_logging",
    "test_concurrent_futures",
    "test_multiprocessing_fork",
    "test_multiprocessing_spawn",
    "test_multiprocessing_forkserver",
)
PATIENCE: Final = 1200.0
"""Seconds for one run of a module; the longest takes some 200 on a quiet machine."""
AGAIN: Final = 4
DIFFERENCES: Final = {
    "*.TestSimpleQueue.test_closed": "inside",
    "*.WithProcessesTestQueue.test_queue_feeder_donot_stop_onexc": "an item that can't be pickled",
    "*.TestStartMethod.test_mixed_startmethod": "a handle travels",
}
"""Tests that fail with our queues alone, as patterns of their ids, and the row of docs/differences.md that says so."""
_TEST: Final = re.compile(r"^(?:FAIL|ERROR): (test\w+) \(([\w.]+)\)", re.MULTILINE)
_UNEXPECTED: Final = re.compile(r"^UNEXPECTED SUCCESS: (test\w+) \(([\w.]+)\)", re.MULTILINE)
_SUMMARY: Final = re.compile(r"^Ran (\d+) tests? in .*\n+\w+(?: \((.*)\))?$", re.MULTILINE)


class Outcome(NamedTuple):
    """How a run ended: which tests failed, and unittest's own counts."""

    failed: frozenset[str]
    ran: int
    skipped: int
    output: str


def run(names: list[str], turbo: bool) -> Outcome:
    """One run of modules or tests, with a temporary folder of its own."""
    with tempfile.TemporaryDirectory(prefix="suite-") as folder:
        environment = {**os.environ, "TMPDIR": folder}  # short, for there are sockets in it
        environment.pop("TQSHIM_DIR", None)
        _, text = end_of(["-m", "unittest", "-v", *names], turbo, folder, environment, PATIENCE)
    failed = {f"{where}.{name}" if not where.endswith(f".{name}") else where for name, where in _TEST.findall(text)}
    failed |= {f"{where}.{name}" for name, where in _UNEXPECTED.findall(text)}
    summary = _SUMMARY.search(text)
    if summary is None:
        return Outcome(frozenset(failed | {"no end"}), 0, 0, text)
    skipped = re.search(r"skipped=(\d+)", summary[2] or "")
    return Outcome(frozenset(failed), int(summary[1]), int(skipped[1]) if skipped else 0, text)


def difference(module: str) -> list[str]:
    """Which results differ with our queues, in words."""
    theirs, ours = run([module], False), run([module], True)
    if theirs.ran <= theirs.skipped or "unittest.loader._FailedTest" in theirs.output:
        return [f"without us nothing of it has run, either:\n{theirs.output[-3000:]}"]
    found = [] if theirs[1:3] == ours[1:3] else [f"{theirs[1:3]} tests ran and were skipped, with us {ours[1:3]}"]
    for test in sorted(theirs.failed ^ ours.failed):
        row = next((row for pattern, row in DIFFERENCES.items() if fnmatch.fnmatchcase(test, pattern)), None)
        if row is None and (test == "no end" or not _comes_to_the_same(test)):
            with_us = "fails" if test in ours.failed else "passes"
            found.append(f"{test} {with_us} with our queues alone:\n{_told(test, (ours, theirs))}")
    return found


def _comes_to_the_same(test: str) -> bool:
    """Whether a test, run alone several times, has the same result with our queues each time."""
    return all(bool(run([test], False).failed) == bool(run([test], True).failed) for _ in range(AGAIN))


def _told(test: str, outcomes: tuple[Outcome, Outcome]) -> str:
    """The output of the run in which the test failed."""
    for outcome in outcomes:
        if test in outcome.failed:
            begins = re.search(rf"^(?:FAIL|ERROR): {test.rpartition('.')[2]} ", outcome.output, re.MULTILINE)
            return outcome.output[begins.start() :][:3000] if begins else outcome.output[-3000:]
    return ""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m compat.whole_suites", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("module", nargs="*", default=MODULES, help="of CPython's tests (default: all of these)")
    bad = 0
    for module in parser.parse_args(arguments).module:
        name = f"test.{module}"
        if importlib.util.find_spec(name) is None:
            print(f"{module}: this interpreter comes without it: call one that has the whole suite", flush=True)
            bad += 1
            continue
        began = time.monotonic()
        found = difference(name)
        bad += len(found)
        version = sys.version.partition(" ")[0]
        told = "\n".join(found) or "the same"
        print(f"{module}, Python {version}: {told} ({time.monotonic() - began:.0f} s)", flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
