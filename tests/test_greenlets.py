"""Programs that gevent or eventlet has patched, with the packages themselves."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.mark.in_turn
@pytest.mark.parametrize("order", ["first", "last"])
@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_greenlets_wait_for_queues_and_a_forked_child_runs_no_copies_of_them(library: str, order: str) -> None:
    pytest.importorskip(library)
    words = [sys.executable, "-X", "faulthandler", "-W", "ignore", "-m", "programs.greenlets", library, order]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "answers": [0, 1, 2, 3, 4],
        "ticks of copies": 0,
        "ticked": True,
        "exit": 0,
        "own greenlets": [0, 1, 2],
        "taken": True,
        "waited": True,
    }
