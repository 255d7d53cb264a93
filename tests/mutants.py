"""Mutants: faults that somebody could make while changing the engine, and the test of the contract that catches each.

    python tests/mutants.py [--only NAME ...] [--list]

Each mutant is tried on a copy of the package: its old text must stand there exactly once, whichever file that is; its
test must pass with the copy as it is, and fail with the new text.  A test that hangs has caught nothing, unless it ends
by its own limit.  Prints which mutants were caught and by which test; the list is in ``mutant_list``.

The tests are those in ``tests/contract``, which use public names only: they hold also after a room was rewritten.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import own_folder
from mutant_list import MUTANTS, Mutant

ROOT = Path(__file__).absolute().parent.parent
PACKAGE = "tqshim"
TESTS = "tests/contract"
LIMIT = 40.0
"""Seconds for one test, which has a limit of its own."""
HANG = "10"
"""Seconds after which a test of the contract fails that does not end."""
GRACE = 3.0
"""Seconds for which a run may go on once its tests have ended."""
NO_LINE = "return self._rawentry.tb_lineno - 1"
"""Where pytest fails itself when the limit ends a test at a jump that belongs to no line, as 3.11 makes them."""
AT_ONCE = 3
"""Mutants that are tried at the same time."""
TRIES = 3
"""Runs of its test for a mutant that survives."""
CAUGHT = "caught"
REPORTER = f"""
import os

import {PACKAGE}

assert {PACKAGE}.__file__.startswith(os.path.dirname(os.path.abspath(__file__))), {PACKAGE}.__file__


def note(line):
    with open("outcomes", "a") as file:
        file.write(line.replace("\\n", " ") + "\\n")


def pytest_runtest_logstart(nodeid):
    note(f"began\\t{{nodeid}}\\t")


def pytest_runtest_logreport(report):
    if report.failed or report.when == "call":
        crash = getattr(report.longrepr, "reprcrash", None)
        note(f"{{report.outcome}}\\t{{report.nodeid}}\\t{{crash.message if crash else ''}}")
"""


class Verdict(NamedTuple):
    """What became of a mutant."""

    mutant: Mutant
    what: str
    """``caught``, or why not."""
    how: str = ""
    """What the test said."""


class Outcome(NamedTuple):
    """What became of a test."""

    what: str
    """``passed`` or ``failed``, or that it never came to an end."""
    how: str


@functools.cache
def sources() -> dict[Path, str]:
    """The package's texts."""
    home = ROOT / PACKAGE
    return {path.relative_to(home): path.read_text(encoding="utf-8") for path in sorted(home.rglob("*.py"))}


def place(mutant: Mutant) -> Path:
    """The file of the package, relative to it, that holds the old text.

    Raises ``ValueError`` where that is not one, or holds it more than once."""
    holders = {path: text.count(mutant.old) for path, text in sources().items() if mutant.old in text}
    if sum(holders.values()) != 1:
        told = ", ".join(f"{path} ({count})" for path, count in holders.items()) or "nowhere"
        raise ValueError(f"{mutant.name}: its old text must stand in {PACKAGE}/ exactly once, and stands: {told}")
    return next(iter(holders))


@contextlib.contextmanager
def copied(mutant: Mutant | None = None) -> Iterator[Path]:
    """A folder with a copy of the package, with that fault if there is to be one, and of the tests."""
    shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    home = Path(own_folder.make("mutants-of-tqshim-", shm))
    try:
        shutil.copytree(ROOT / PACKAGE, home / PACKAGE)
        shutil.copytree(ROOT / TESTS, home / TESTS, ignore=shutil.ignore_patterns("__pycache__"))
        (home / "conftest.py").write_text(REPORTER, encoding="utf-8")
        (home / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        (home / "queues").mkdir(0o700)
        if mutant is not None:
            file = home / PACKAGE / place(mutant)
            file.unlink()  # and what was compiled of it
            for compiled in (file.parent / "__pycache__").glob(f"{file.stem}.*"):
                compiled.unlink()
            file.write_text(sources()[place(mutant)].replace(mutant.old, mutant.new), encoding="utf-8")
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def run(home: Path, tests: Iterable[str]) -> dict[str, Outcome]:
    """Run these tests of a copy, and say what became of each."""
    nodes = [f"{TESTS}/{test}" for test in dict.fromkeys(tests)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TQSHIM_", "PYTEST_"))}
    environment.update(PYTHONPATH=str(home), TQSHIM_DIR=str(home / "queues"))
    environment.update(PYTEST_DISABLE_PLUGIN_AUTOLOAD="1", PYTHONWARNINGS="ignore", CONTRACT_LIMIT=HANG)
    options = ["-q", "-p", "pytest_timeout", "-p", "no:cacheprovider", "--rootdir", str(home), "-c", "pytest.ini"]
    with open(home / "output", "w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *options, *nodes],
            cwd=home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            _wait(process, home, len(nodes))
        finally:
            code = process.poll()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    found = _outcomes(home)
    for node in nodes:
        if node not in found or found[node].what == "began":
            tail = " ".join((home / "output").read_text(encoding="utf-8", errors="replace").split())[-300:]
            if node in found and code is not None and code < 0:
                found[node] = Outcome("failed", f"died of {signal.Signals(-code).name}")
            elif node in found and code is None:
                found[node] = Outcome(f"hung for {LIMIT:.0f} s, beyond its own limit", tail)
            elif node in found and ("from pytest-timeout" in tail or NO_LINE in tail):
                found[node] = Outcome("failed", tail)  # just as it ended, or between two lines: pytest's own error
            else:
                found[node] = Outcome("never came to its test", tail)
    return {node[len(TESTS) + 1 :]: outcome for node, outcome in found.items()}


def _wait(process: subprocess.Popen[bytes], home: Path, tests: int) -> None:
    """Until the run has ended, or has outlived its tests by a moment: what a fault leaves may keep it from ending."""
    known: dict[str, Outcome] = {}
    deadline = time.monotonic() + LIMIT
    while process.poll() is None and time.monotonic() < deadline:
        if (found := _outcomes(home)) != known:
            known = found
            ended = sum(outcome.what != "began" for outcome in known.values()) == tests
            deadline = time.monotonic() + (GRACE if ended else LIMIT)
        time.sleep(0.02)


def _outcomes(home: Path) -> dict[str, Outcome]:
    found: dict[str, Outcome] = {}
    with contextlib.suppress(FileNotFoundError):
        for line in (home / "outcomes").read_text(encoding="utf-8").splitlines():
            what, node, how = line.split("\t", 2)
            if node not in found or found[node].what != "failed":
                found[node] = Outcome(what, how)
    return found


def judge(mutant: Mutant) -> Verdict:
    """Try one mutant, whose test is known to pass without it.

    One that survives is tried again, and the verdict says so: a test that waits for an unlucky moment may miss it."""
    missed = 0
    while True:
        with copied(mutant) as home:
            outcome = run(home, [mutant.test])[mutant.test]
        if outcome.what != "passed":
            what = CAUGHT if outcome.what == "failed" else outcome.what
            return Verdict(mutant, what, f"missed {missed} times, then: {outcome.how}" if missed else outcome.how)
        missed += 1
        if missed == TRIES:
            return Verdict(mutant, "survived", outcome.how)


def judge_all(mutants: list[Mutant], told: Callable[[Verdict], object] = lambda verdict: None) -> list[Verdict]:
    """Try these; ``told`` is called with each verdict as it comes."""
    with copied() as home:
        good = run(home, [mutant.test for mutant in mutants])
    verdicts = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for mutant, found in [(mutant, pool.submit(judge, mutant)) for mutant in mutants]:
            sound = good[mutant.test]
            if sound.what == "passed":
                verdicts.append(found.result())
            else:
                verdicts.append(Verdict(mutant, f"its test fails without it: {sound.what}", sound.how))
            told(verdicts[-1])
    return verdicts


def table(mutants: Iterable[Mutant] = MUTANTS) -> str:
    """The mutants, and the test that catches each, as a table of a page."""
    lines = ["| mutant | in | what a user sees | caught by |", "|---|---|---|---|"]
    for mutant in mutants:
        lines.append(f"| {mutant.name} | `{place(mutant).as_posix()}` | {mutant.seen} | `{mutant.test}` |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Faults, planted one by one, and the test of the contract for each.")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these mutants, and no others")
    parser.add_argument("--list", action="store_true", help="say which there are, and try none")
    options = parser.parse_args()
    known = {mutant.name: mutant for mutant in MUTANTS}
    unknown = [name for name in options.only or () if name not in known]
    if unknown:
        parser.error(f"no mutant is called {', '.join(unknown)}; --list says which there are")
    chosen = [known[name] for name in options.only or known]
    if options.list:
        print(table(chosen))
        return 0
    print("| mutant | in | what a user sees | verdict | by |\n|---|---|---|---|---|", flush=True)

    def told(verdict: Verdict) -> None:
        mutant = verdict.mutant
        row = f"| {mutant.name} | `{place(mutant)}` | {mutant.seen} | {verdict.what} | `{mutant.test}` |"
        print(row, flush=True)
        print(f"    {verdict.how[:300]}", file=sys.stderr, flush=True)

    verdicts = judge_all(chosen, told)
    caught = sum(verdict.what == CAUGHT for verdict in verdicts)
    print(f"\n{caught} of {len(verdicts)} mutants are caught.")
    for verdict in verdicts:
        if verdict.what != CAUGHT:  # once more: of a long output the end is read
            print(f"NOT CAUGHT: {verdict.mutant.name}: {verdict.what}: {verdict.how[:300]}")
    return 0 if caught == len(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
