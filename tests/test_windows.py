"""Where our queues don't work, one import line still serves: the standard library's queues take their place.

These tests run on a system that is made to look like Windows; nobody has tried it on the real one."""

from __future__ import annotations

import subprocess
import sys

import tqshim


def test_a_program_with_our_import_line_runs_on_windows() -> None:
    done = subprocess.run([sys.executable, "-m", "programs.windows"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "all of it\n"), done.stderr
    assert done.stderr == "python -m tqshim: there are no queues of ours on this system; only run works\n"


def test_here_our_queues_work() -> None:
    assert tqshim.supported is True
    assert tqshim.Queue is tqshim.TurboQueue
    assert tqshim.JoinableQueue is tqshim.JoinableTurboQueue
    assert tqshim.SimpleQueue is tqshim.SimpleTurboQueue
