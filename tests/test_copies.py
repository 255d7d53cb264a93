"""Two copies of the package in one process share a queue as two processes would: in two interpreters, or in one.

Record locks of the POSIX kind belong to a process: with them one copy would take the other copy's members for dead.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Union

import pytest

import tqshim

of_opens = pytest.mark.skipif(
    tqshim.runtime.systems.OFD_TEST is None, reason="locks belong to processes here: one copy of the package to each"
)
interpreters = pytest.mark.skipif(sys.version_info < (3, 14), reason="InterpreterPoolExecutor came with 3.14")


def run(name: str, *values: Union[str, int]) -> None:
    """One of the programs, with a time limit of its own."""
    command = [sys.executable, "-c", f"from programs import copies; copies.{name}(*{values!r})"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stderr) == (0, "")


@of_opens
def test_one_copy_buries_no_member_of_the_other(tmp_path: Path) -> None:
    run("bury_nobody", str(tmp_path / "queue"))


@pytest.mark.parametrize("how", ["used", "unused", "born meanwhile"])
def test_forked_child_keeps_no_member_of_a_killed_parent_alive(tmp_path: Path, how: str) -> None:
    run("killed", str(tmp_path / "queue"), how)


@pytest.mark.in_turn
@of_opens
def test_two_copies_put_and_get_at_once(tmp_path: Path) -> None:
    run("copies_at_once", str(tmp_path / "queue"), 2000, 4)


@of_opens
@interpreters
def test_interpreters_put_and_get_at_once(tmp_path: Path) -> None:
    run("interpreters_at_once", str(tmp_path / "queue"), 1000, 4)


@pytest.mark.stress
@of_opens
@interpreters
def test_interpreters_put_and_get_at_once_for_long(tmp_path: Path) -> None:
    for _ in range(10):
        run("interpreters_at_once", str(tmp_path / "queue"), 5000, 3)
