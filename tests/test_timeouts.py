"""Timeouts end in time, and what others do is noticed: ``compat.timeouts`` in full is a stress run; shortened, it runs
each time, and asserts what must hold on any machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from compat import timeouts
from compat.timeouts import BESIDE, KINDS, NOTICED, NOTICES, Row, at

ROOT = Path(__file__).parent.parent
COUNT = int(os.environ.get("TQSHIM_TIMEOUTS", "2000"))
"""Samples of each kind that the stress runs take."""
MARGIN = 0.02
"""Seconds by which the median of waits may be beyond the 99th percentile of sleeps, on any machine: six slices of the
processor that others take."""
LONG = 1.0 - timeouts.TIMEOUT
"""Seconds that no wait is late where no sleep is."""


def run(*options: object) -> list[Row]:
    """In a process of its own: the threads and the size of this one would cost each peer that it forks."""
    command = [sys.executable, "-m", "compat.timeouts", "--json", *map(str, options)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert not done.stderr, done.stderr
    rows = [Row(**json.loads(line)) for line in done.stdout.splitlines()]
    for row in rows:
        print(timeouts.line(row))
    assert done.returncode == (not all(row.holds() for row in rows))
    return rows


def check_anywhere(rows: list[Row]) -> None:
    for row in rows:
        assert row.waits
        assert not row.early
        assert not row.missed
        if row.name.startswith("dead"):
            assert row.waits[-1] < 2 * NOTICED
            continue
        plain = sorted(own for other in rows if other.beside == row.beside for own in other.plain)
        assert at(row.waits, 0.5) <= at(plain, 0.99) + MARGIN, timeouts.line(row)
        assert row.waits[-1] < LONG or plain[-1] > LONG / 2, timeouts.line(row)


def test_no_wait_returns_too_early_or_much_later_than_a_sleep() -> None:
    """Beside nobody, killed, stopped and busy peers."""
    rows = run(*KINDS, "--count", 6, "--lanes", 1)
    assert {(row.name, row.beside) for row in rows} == {(name, beside) for name in KINDS for beside in BESIDE}
    check_anywhere(rows)


def test_what_others_do_is_noticed() -> None:
    rows = run(*NOTICES, "--count", 40)
    assert [row.name for row in rows] == [*NOTICES]
    check_anywhere(rows)


@pytest.mark.stress
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("beside", BESIDE)
def test_99_of_100_waits_are_as_late_as_sleeps(beside: str) -> None:
    rows = run(*KINDS, "--count", COUNT, "--beside", beside)
    assert [row.name for row in rows] == [*KINDS]
    check_anywhere(rows)
    late = [timeouts.line(row) for row in rows if not row.holds()]
    assert not late


@pytest.mark.stress
@pytest.mark.timeout(1800)
def test_what_others_do_is_noticed_as_soon_as_a_pipe_tells_it() -> None:
    check_anywhere(run(*NOTICES, "--count", COUNT))
