"""Odd places for a program to run in: mounts, namespaces, limits and filters of its own, which end with the program.

Where a place is not available, its tests are skipped with the reason; in a continuous-integration run a skip is a
failure, unless ``may_skip`` lists it.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Final

import pytest

LONG: Final = 120.0


def lacking(place: str, reason: str) -> None:
    """Skip this test for want of a place."""
    pytest.skip(f"no {place} here: {reason}")


@functools.lru_cache(None)
def _trouble(words: tuple[str, ...]) -> str:
    if shutil.which(words[0]) is None:
        return f"{words[0]} is not installed"
    done = subprocess.run([*words, "true"], capture_output=True, text=True, timeout=LONG)
    return done.stderr.strip() or f"status {done.returncode}" if done.returncode else ""


def needs(*words: str) -> None:
    """Skip where a program can't be run by these words."""
    trouble = _trouble(words)
    if trouble:
        lacking(" ".join(words[:2]), trouble)


MOUNTS: Final = ("unshare", "--mount", "--propagation", "private")
"""A process with mounts of its own."""


def run(
    program: Sequence[str], *, by: Sequence[str] = (), mounts: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    """``python`` with these words, in a place: ``by`` are the words that begin it, ``mounts`` shell commands that
    mount things before, for it alone.

    Anonymous queues lie where they do by default, if ``variables`` of the environment don't say otherwise."""
    command = [*by, sys.executable, *program]
    if by:
        needs(*by)
    if mounts:
        needs(*MOUNTS)
        command = [*MOUNTS, "sh", "-ec", f'{mounts}\nexec "$@"', "sh", *command]
    surroundings: dict[str, Any] = {
        name: value for name, value in os.environ.items() if name not in ("TQSHIM_DIR", "TQSHIM_SPILL_DIR")
    }
    surroundings.update(variables)
    return subprocess.run(command, env=surroundings, capture_output=True, text=True, timeout=LONG)
